"""Quality of generated rows: as samples, as training data, and to even out classes.

    samples     MNIST and Fashion-MNIST, 10,000 samples with classes (1,000 of each):
                agree        share of samples to which a network trained on the real rows
                             gives the requested class
                samples only accuracy on real test rows of a network trained on samples alone
                Frechet      distance between samples and test rows in the features of the
                             first network
                distance     median distance to the nearest training row, divided by that of
                             real test rows
                The same figures for a Gaussian mixture on PCA codes of the same size, and for
                real training rows.
    densities   the same figures for other densities of the codes of one autoencoder, and for
                other autoencoders with the default density
    labels      MNIST, 10, 20 and 50 labelled rows per class: accuracy of an SVC on raw pixels.
                It is trained on the labelled rows alone, or together with samples of a generator
                that saw all rows and these labels
    imbalance   balanced accuracy of three classifiers without sampling, and with
                RandomOverSampler, SMOTE and AutoencoderOversampler. The sets are classes 0 and 6
                of Fashion-MNIST (T-shirt, shirt) with 3,000 and 30 rows, and those sets of
                FOLDER/anomaly in which at most an eighth of the rows is positive. Half of the
                rows are held out

    python examples/benchmark_generation.py --data FOLDER [--sets mnist] [--seeds 3]
        [--parts samples densities labels imbalance] [--rows 60000] [--quick] [--json FILE]

FOLDER holds mnist.npz and fashion_mnist.npz with X_train, y_train, X_test, y_test, and
anomaly/*.npz with X, y. Without it, sets that scikit-learn bundles are measured.
The file is written after every figure. Needs the extra `imbalance`.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from imblearn.over_sampling import SMOTE, RandomOverSampler
from sklearn.base import BaseEstimator, clone
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import nn

from aefeatures import AutoencoderGenerator, AutoencoderOversampler, AutoencoderTransformer

N_SAMPLES = 10_000
MOST_ROWS = 10_000  # per table
CLASSIFIERS = {
    "SVC": lambda _: make_pipeline(StandardScaler(), SVC()),
    "forest": lambda seed: RandomForestClassifier(random_state=seed),
    "logistic": lambda _: make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)),
}


class Judge:
    """A small convolutional network on square images."""

    def __init__(self, epochs, seed):
        self.epochs, self.seed = epochs, seed

    def fit(self, X, y):
        side = int(X.shape[1] ** 0.5)
        self.side, self.scale = side, float(X.max())
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            self.body = nn.Sequential(
                *(nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
                *(nn.Conv2d(16, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
                *(nn.Flatten(), nn.Linear(32 * (side // 4) ** 2, 64), nn.ReLU()),
            )
            self.head = nn.Linear(64, int(y.max()) + 1)
        network = nn.Sequential(self.body, self.head)
        rows, labels = self._images(X), torch.from_numpy(y.astype(np.int64))
        n_batches = -(-len(X) // 128)
        optimizer = torch.optim.Adam(network.parameters())
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, 4e-3, total_steps=self.epochs * n_batches
        )
        rng = np.random.default_rng(self.seed)
        for _ in range(self.epochs):
            for batch in np.array_split(rng.permutation(len(X)), n_batches):
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(rows[batch]), labels[batch]).backward()
                optimizer.step()
                schedule.step()
        return self

    def features(self, X):
        with torch.inference_mode():
            parts = np.array_split(X, -(-len(X) // 2_000))
            return torch.cat([self.body(self._images(part)) for part in parts]).numpy()

    def score(self, X, y):
        with torch.inference_mode():
            predicted = self.head(torch.from_numpy(self.features(X))).argmax(dim=1)
        return float((predicted.numpy() == y).mean())

    def _images(self, X):
        return torch.from_numpy(np.float32(X) / self.scale).reshape(-1, 1, self.side, self.side)


def load(name, folder, rows):
    if name == "digits":
        X, X_test, y, y_test = train_test_split(*load_digits(return_X_y=True), random_state=0)
    else:
        with np.load(folder / f"{name}.npz") as data:
            parts = [data[part] for part in ("X_train", "X_test", "y_train", "y_test")]
        X, X_test = (part.reshape(len(part), -1) for part in parts[:2])
        y, y_test = (part.astype(int) for part in parts[2:])
    order = np.random.default_rng(0).permutation(len(X))[:rows]
    return X[order], X_test, y[order], y_test


def frechet(A, B):
    """The squared Frechet distance of two normal distributions fitted to features."""
    covariances = [np.cov(features, rowvar=False) for features in (A, B)]
    shared = np.sqrt(np.linalg.eigvals(covariances[0] @ covariances[1]).real.clip(0)).sum()
    means = ((A.mean(axis=0) - B.mean(axis=0)) ** 2).sum()
    return float(means + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * shared)


def distance_to_nearest(A, X):
    """Median distance to the nearest row of X, over at most 2,000 rows of A."""
    rows = torch.from_numpy(np.float32(A[:: max(1, len(A) // 2_000)]))
    among = torch.from_numpy(np.float32(X))
    nearest = [torch.cdist(part, among).min(dim=1).values for part in rows.split(200)]
    return float(torch.cat(nearest).median())


def measure_samples(args, keep):
    for name in args.sets:
        data = load(name, args.data, args.rows)
        X, X_test, y, y_test = data
        epochs = 60 if name == "digits" else 5
        judge = Judge(epochs, 0).fit(X, y)
        keep("samples", name, "judge on real test rows", judge.score(X_test, y_test))
        wanted = np.random.default_rng(0).permutation(np.arange(N_SAMPLES) % (y.max() + 1))
        for seed in range(args.seeds):
            for method, autoencoder in (
                ("generator", None),
                ("PCA mixture", make_pipeline(PCA(32, random_state=seed))),
            ):
                start = time.perf_counter()
                generator = AutoencoderGenerator(autoencoder, random_state=seed).fit(X, y)
                keep("samples", name, f"{method}, fit [s]", time.perf_counter() - start)
                X_new, y_new = generator.sample(N_SAMPLES, y=wanted)
                X_new = X_new.clip(X.min(), X.max())
                for what, value in judged(judge, data, X_new, y_new, seed):
                    keep("samples", name, f"{method}, {what}", value)
            part = np.random.default_rng(seed).permutation(len(X))[:N_SAMPLES]
            for what, value in judged(judge, data, X[part], y[part], seed):
                keep("samples", name, f"real rows, {what}", value)


class LeastBIC(BaseEstimator):
    """The Gaussian mixture with the lowest Bayesian information criterion."""

    def __init__(self, random_state=None):
        self.random_state = random_state

    def fit(self, Z, y=None):
        each = [
            GaussianMixture(n, reg_covar=1e-4, tol=5e-3, random_state=self.random_state).fit(Z)
            for n in (1, 2, 4, 8, 16, 32)
            if n < len(Z) / 8
        ]
        self.best_ = min(each, key=lambda mixture: mixture.bic(Z))
        return self

    def sample(self, n_samples):
        return self.best_.sample(n_samples)


def measure_densities(args, keep):
    def mixture(n_components, kind):
        return GaussianMixture(n_components, covariance_type=kind, reg_covar=1e-4, tol=5e-3)

    for name in args.sets:
        data = load(name, args.data, args.rows)
        X, _, y, _ = data
        judge = Judge(60 if name == "digits" else 5, 0).fit(X, y)
        wanted = np.random.default_rng(0).permutation(np.arange(5_000) % (y.max() + 1))
        for seed in range(args.seeds):
            default = AutoencoderGenerator(random_state=seed).fit(X, y).autoencoder_
            shallow = clone(default).set_params(
                hidden_layer_sizes=(512,), activation="relu", normalization=None, batch_size=128
            )
            frozen = FrozenEstimator(default)
            for method, autoencoder, density in (
                ("default", frozen, None),
                ("least BIC", frozen, LeastBIC()),
                ("4 components", frozen, mixture(4, "full")),
                ("16 of one covariance", frozen, mixture(16, "tied")),
                ("kernel, bandwidth 0.2", frozen, KernelDensity(bandwidth=0.2)),
                ("3 codes", clone(default).set_params(n_components=3), None),
                ("16 codes", clone(default).set_params(n_components=16), None),
                ("one hidden layer of rectifiers", shallow, None),
            ):
                generator = AutoencoderGenerator(autoencoder, density, random_state=seed)
                X_new, y_new = generator.fit(X, y).sample(len(wanted), y=wanted)
                for what, value in judged(judge, data, X_new, y_new, seed):
                    keep("densities", name, f"{method}, {what}", value)


def judged(judge, data, X_new, y_new, seed):
    """Names and values of the figures of some samples."""
    X, X_test, _, y_test = data
    yield "agree", judge.score(X_new, y_new)
    yield "Frechet", frechet(judge.features(X_new), judge.features(X_test))
    yield "distance", distance_to_nearest(X_new, X) / distance_to_nearest(X_test, X)
    yield "samples only", Judge(10, seed + 1).fit(X_new, y_new).score(X_test, y_test)


def measure_labels(args, keep):
    name = "digits" if args.data is None else "mnist"
    X, X_test, y, y_test = load(name, args.data, args.rows)
    for seed in range(args.seeds):
        autoencoder = AutoencoderTransformer.from_preset(
            "neighbors", n_components=16, scaling="global", random_state=seed
        )
        for n_labels in (10, 20, 50):
            rng = np.random.default_rng(seed)
            few = np.full(len(y), -1)
            for label in np.unique(y):
                chosen = rng.permutation(np.flatnonzero(y == label))[:n_labels]
                few[chosen] = label
            if n_labels == 10:  # once is enough: it learns without labels
                autoencoder.fit(X)
            generator = AutoencoderGenerator(FrozenEstimator(autoencoder), random_state=seed)
            X_new, y_new = generator.fit(X, few).sample(5_000)
            known = few >= 0
            alone = SVC().fit(X[known] / X.max(), y[known]).score(X_test / X.max(), y_test)
            more = np.concatenate([X[known], X_new]) / X.max()
            labels = np.concatenate([y[known], y_new])
            both = SVC().fit(more, labels).score(X_test / X.max(), y_test)
            keep("labels", name, f"{n_labels} per class, labelled rows", alone)
            keep("labels", name, f"{n_labels} per class, with samples", both)
            keep("labels", name, f"{n_labels} per class, gain", both - alone)


def imbalanced_sets(args, seed):
    """Names, training and test rows, and their labels; 1 is the rare class."""
    if args.data is None:
        X, y = load_breast_cancer(return_X_y=True)
        rows = np.concatenate([np.flatnonzero(y == 1), np.flatnonzero(y == 0)[:30]])
        yield (
            "breast cancer",
            *train_test_split(
                X[rows],
                (y == 0)[rows].astype(int),
                test_size=0.5,
                stratify=y[rows],
                random_state=seed,
            ),
        )
        return
    for path in sorted((args.data / "anomaly").glob("*.npz")):
        with np.load(path) as data:
            X, y = data["X"], data["y"].astype(int).ravel()
        if y.mean() > 0.125 or (args.sets_asked and path.stem not in args.sets):
            continue
        if len(X) > MOST_ROWS:
            rows = np.random.default_rng(seed).permutation(len(X))[:MOST_ROWS]
            X, y = X[rows], y[rows]
        yield path.stem, *train_test_split(X, y, test_size=0.5, stratify=y, random_state=seed)
    X, X_test, y, y_test = load("fashion_mnist", args.data, None)
    rng = np.random.default_rng(seed)
    many = rng.permutation(np.flatnonzero(y == 0))[:3_000]
    few = rng.permutation(np.flatnonzero(y == 6))[: len(many) // 100]
    rows, test = np.concatenate([many, few]), np.isin(y_test, (0, 6))
    yield (
        "Fashion-MNIST 0:6",
        X[rows],
        X_test[test],
        (y[rows] == 6).astype(int),
        (y_test[test] == 6).astype(int),
    )


def measure_imbalance(args, keep):
    for seed in range(args.seeds):
        for name, X, X_test, y, y_test in imbalanced_sets(args, seed):
            samplers = {
                "none": None,
                "random": RandomOverSampler(random_state=seed),
                "SMOTE": SMOTE(random_state=seed, k_neighbors=min(5, int(y.sum()) - 1)),
                "ours": AutoencoderOversampler(random_state=seed),
            }
            for method, sampler in samplers.items():
                rows, labels = (X, y) if sampler is None else sampler.fit_resample(X, y)
                for kind, make in CLASSIFIERS.items():
                    predicted = make(seed).fit(rows, labels).predict(X_test)
                    score = balanced_accuracy_score(y_test, predicted)
                    keep("imbalance", name, f"{kind}, {method}", score)


def report_imbalance(figures):
    """Print on how many sets ours is above each other method; ties do not count."""
    for kind in CLASSIFIERS:
        for other in ("none", "random", "SMOTE"):
            pairs = [
                (np.median(each[f"{kind}, ours"]), np.median(each[f"{kind}, {other}"]))
                for each in figures.values()
                if f"{kind}, ours" in each
            ]
            above, below = (sum(sign * (a - b) > 1e-9 for a, b in pairs) for sign in (1, -1))
            print(f"{kind}: ours above {other} on {above}, below on {below} of {len(pairs)} sets")


PARTS = {
    "samples": measure_samples,
    "densities": measure_densities,
    "labels": measure_labels,
    "imbalance": measure_imbalance,
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=["samples", "labels", "imbalance"]
    )
    parser.add_argument("--sets", nargs="+")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, help="train on that many rows of MNIST")
    parser.add_argument("--quick", action="store_true", help="bundled data, one seed")
    parser.add_argument("--json", type=Path, help="where to write every single figure")
    args = parser.parse_args()
    if args.quick:
        args.data, args.seeds, args.sets = None, 1, None
    args.sets_asked = args.sets is not None
    if args.sets is None:
        args.sets = ["digits"] if args.data is None else ["mnist", "fashion_mnist"]
    warnings.filterwarnings("ignore", message="n_components")
    results = {}

    def keep(part, name, what, value):
        runs = results.setdefault(part, {}).setdefault(name, {}).setdefault(what, [])
        runs.append(round(float(value), 5))
        print(f"{part:<10}{name:<20}{what:<40}{value:10.4f}", flush=True)
        if args.json:
            args.json.write_text(json.dumps(results, indent=1), encoding="utf-8")

    for part in args.parts:
        PARTS[part](args, keep)
    print("\nMedians over seeds")
    for part, sets in results.items():
        for name, figures in sets.items():
            for what, runs in figures.items():
                spread = f"{min(runs):.4f} to {max(runs):.4f}"
                print(f"{part:<10}{name:<20}{what:<40}{np.median(runs):10.4f}   {spread}")
    if "imbalance" in results:
        report_imbalance(results["imbalance"])


if __name__ == "__main__":
    main()
