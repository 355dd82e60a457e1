"""Accuracy of classifiers on learned features, on real data and over seeds.

The figures for every set, number of codes and contestant, on held-out rows:

    KNN(k)         accuracy of k nearest neighbours on the codes
    linear, RBF    the same of support vector machines, on standardised codes and at most
                   10,000 rows
    few labels     KNN(5) with ten labelled rows of each class (median of five draws); the
                   codes are learned from all rows without labels
    trust          trustworthiness of 2,000 rows (scikit-learn's, 5 neighbours)
    MSE            of the reconstruction, in pixels of [0, 1] or standardised columns
    fit, new       seconds to learn the codes of the training rows, and for the test rows

Contestants are the features themselves, PCA, KernelPCA (learned from 2,000 rows), UMAP with its
defaults (after a warm-up), PyOD's autoencoder, `AutoencoderTransformer()` and its presets. Ours get
the columns as they are, all others pixels in [0, 1] or standardised columns. The figures are
medians over seeds. If a set has no test rows, a stratified quarter is held out for every seed.

    python examples/benchmark_features.py --data FOLDER [--quick] [--sets mnist segment]
        [--codes 3] [--only neighbors UMAP] [--seeds 3] [--json FILE] [--chart FILE]
    python examples/benchmark_features.py --data FOLDER --novelty
    python examples/benchmark_features.py --data FOLDER --labels
    python examples/benchmark_features.py --data FOLDER --few-labels [--codes 16] [--seeds 3]
    python examples/benchmark_features.py --data FOLDER --time [--codes 3] [--seeds 3]

Other measurements replace these:

- `--novelty`: detectors on FOLDER/anomaly, which learn from half of the normal rows. AUC over the
  other half and the outliers.
- `--labels`: `Supervised` on MNIST.
- `--few-labels`: the recipe of `few_labels.py` with 1, 4 and 10 labels of each class, medians of
  ten draws and the lowest.
- `--time`: "neighbors" against UMAP, in turn and both warm.

The last two use MNIST and Fashion-MNIST unless `--sets` names others. FOLDER holds .npz files with
X_train, y_train, X_test, y_test or X, y. Without it the tables that scikit-learn bundles are
measured. UMAP and PyOD need the extra `bench`.
"""

import argparse
import json
import time
import warnings
from functools import partial
from pathlib import Path

import few_labels as recipe
import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.decomposition import PCA, KernelPCA
from sklearn.ensemble import IsolationForest
from sklearn.manifold import trustworthiness
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from aefeatures import AutoencoderTransformer, Denoising, NeighborPreserving, Supervised

IMAGES = ("mnist", "fashion_mnist")
SUBSAMPLE = {"covtype": 20_000}
BUNDLED = {"digits": load_digits, "wine": load_wine, "breast cancer": load_breast_cancer}
SVM_ROWS = 10_000


class KernelPCASubsample(KernelPCA):
    """KernelPCA learned from 2,000 rows, as its matrix has a number for each pair of rows."""

    def fit(self, X, y=None):
        rows = np.random.default_rng(0).permutation(len(X))[:2_000]
        return super().fit(X[rows])

    def fit_transform(self, X, y=None):
        return self.fit(X).transform(X)


class PyODCodes:
    """The codes of PyOD's autoencoder, with the default's widths."""

    def __init__(self, n_components):
        from pyod.models.auto_encoder import AutoEncoder

        widths = [128, 64, 12, n_components]
        self.detector = AutoEncoder(
            hidden_neuron_list=widths, batch_size=64, preprocessing=False, verbose=0
        )

    def fit_transform(self, X):
        self.detector.fit(X)
        return self.transform(X)

    def transform(self, X):
        import torch

        with torch.inference_mode():
            rows = torch.from_numpy(X).to(self.detector.device)
            return self.detector.model.eval().encoder(rows).cpu().numpy()


def umap(n_components):
    from umap import UMAP

    return UMAP(n_components=n_components)


def preset(name):
    return lambda n, seed: AutoencoderTransformer.from_preset(
        name, n_components=n, random_state=seed
    )


# Each function takes the number of codes and a seed.
CONTESTANTS = {
    "raw": None,
    "PCA": lambda n, seed: PCA(n, random_state=seed),
    "KernelPCA": lambda n, _: KernelPCASubsample(n, kernel="rbf"),
    "UMAP": lambda n, _: umap(n),
    "PyOD": lambda n, _: PyODCodes(n),
    "default": lambda n, seed: AutoencoderTransformer(n, random_state=seed),
    "neighbors": preset("neighbors"),
    "tabular": preset("tabular"),
    "images": preset("images"),
}
OURS = ("default", "neighbors", "tabular", "images")


def load(name, folder, seed):
    """Training rows, test rows and their labels; whether they are images."""
    if name in BUNDLED:
        X, y = BUNDLED[name](return_X_y=True)
    else:
        with np.load(folder / f"{name}.npz") as data:
            if "X_train" in data:
                parts = [data[part] for part in ("X_train", "X_test", "y_train", "y_test")]
                flat = [part.reshape(len(part), -1) for part in parts[:2]]
                return *flat, *parts[2:], parts[0].ndim == 3
            X, y = data["X"], data["y"]
    if name in SUBSAMPLE:
        rows = np.random.default_rng(seed).choice(len(X), SUBSAMPLE[name], replace=False)
        X, y = X[rows], y[rows]
    return *train_test_split(X, y, test_size=0.25, random_state=seed, stratify=y), False


def few_labels(Z, y, Z_test, y_test):
    scores = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        rows = [np.flatnonzero(y == label) for label in np.unique(y)]
        rows = np.concatenate([rng.choice(r, min(10, len(r)), replace=False) for r in rows])
        knn = KNeighborsClassifier(min(5, len(rows))).fit(Z[rows], y[rows])
        scores.append(knn.score(Z_test, y_test))
    return float(np.median(scores))


def measure(contestant, n_components, seed, X, X_test, y, y_test, peers):
    """Every figure of one contestant; `peers` is the result of `for_peers`."""
    rows, rows_test = (X, X_test) if contestant in OURS else peers[:2]
    figures = {}
    if contestant == "raw":
        Z, Z_test = rows, rows_test
    else:
        transformer = CONTESTANTS[contestant](n_components, seed)
        start = time.perf_counter()
        Z = transformer.fit_transform(rows)
        figures["fit"] = time.perf_counter() - start
        start = time.perf_counter()
        Z_test = transformer.transform(rows_test)
        figures["new"] = time.perf_counter() - start
        restored = None
        if contestant in OURS:
            restored = transformer.reconstruct(X_test)
        elif contestant == "PCA":
            restored = transformer.inverse_transform(Z_test)
        if restored is not None:
            scale = peers[2] if contestant in OURS else 1.0
            target = X_test if contestant in OURS else rows_test
            figures["MSE"] = float((((target - restored) / scale) ** 2).mean())
    for k in (1, 5, 15):
        knn = KNeighborsClassifier(k).fit(Z, y)
        figures[f"KNN({k})"] = knn.score(Z_test, y_test)
    figures["few labels"] = few_labels(Z, y, Z_test, y_test)
    part = np.random.default_rng(seed).permutation(len(y))[:SVM_ROWS]
    for name, svm in {"linear": LinearSVC(max_iter=2000), "RBF": SVC()}.items():
        pipeline = make_pipeline(StandardScaler(), svm).fit(Z[part], y[part])
        figures[name] = pipeline.score(Z_test, y_test)
    if contestant != "raw":
        figures["trust"] = trustworthiness(peers[1][:2000], Z_test[:2000])
    return figures


def for_peers(X, X_test, is_image):
    """Rows for the other methods, and the scale of a column."""
    if is_image:
        return np.float32(X / 255), np.float32(X_test / 255), 255.0
    scaler = StandardScaler().fit(X)
    return np.float32(scaler.transform(X)), np.float32(scaler.transform(X_test)), scaler.scale_


COLUMNS = [
    "KNN(1)",
    "KNN(5)",
    "KNN(15)",
    "linear",
    "RBF",
    "few labels",
    "trust",
    "MSE",
    "fit",
    "new",
]


def report(title, figures):
    print(f"\n{title}\n{'':<12}" + "".join(f"{column:>12}" for column in COLUMNS))
    for contestant, runs in figures.items():
        cells = []
        for column in COLUMNS:
            values = [run[column] for run in runs if column in run]
            digits = 1 if column in ("fit", "new") else 4
            cells.append(f"{np.median(values):.{digits}f}" if values else "-")
        print(f"{contestant:<12}" + "".join(f"{cell:>12}" for cell in cells), flush=True)


def save(results, path):
    """Write every single figure, even if the run is not finished."""
    if path:
        path.write_text(json.dumps(results, indent=1), encoding="utf-8")


def measure_sets(args):
    names = args.sets or (
        [*BUNDLED, *sorted(path.stem for path in args.data.glob("*.npz"))] if args.data else BUNDLED
    )
    if "UMAP" in args.only:  # compiled on first use
        umap(3).fit(np.random.default_rng(0).random((500, 5)))
    results = {}
    for name in names:
        for n_components in args.codes:
            figures = {contestant: [] for contestant in args.only}
            for seed in range(args.seeds):
                X, X_test, y, y_test, is_image = load(name, args.data, seed)
                peers = for_peers(X, X_test, is_image)
                for contestant in args.only:
                    if contestant == "images" and not is_image:
                        continue
                    if contestant == "PCA" and n_components > min(X.shape):
                        continue
                    figures[contestant].append(
                        measure(contestant, n_components, seed, X, X_test, y, y_test, peers)
                    )
            title = f"{name}, {n_components} codes, {len(X)} + {len(X_test)} rows x {X.shape[1]}"
            results[title] = {key: runs for key, runs in figures.items() if runs}
            report(title, results[title])
            save(results, args.json)
    return results


def measure_novelty(args):
    """AUC of detectors over the sets of FOLDER/anomaly."""

    def pca_error(X):
        pca = make_pipeline(StandardScaler(), PCA(min(3, X.shape[1] - 1))).fit(X)
        scaler, model = pca[0], pca[1]

        def score(Z):
            Z = scaler.transform(Z)
            return -((Z - model.inverse_transform(model.transform(Z))) ** 2).mean(axis=1)

        return score

    def ours(name=None, **params):
        make = AutoencoderTransformer
        if name is not None:
            make = partial(AutoencoderTransformer.from_preset, name)

        def fit(X):
            warnings.simplefilter("ignore")  # more codes than columns
            return make(random_state=0, **params).fit(X).score_samples

        return fit

    table = {"scaling": "standard", "hidden_layer_sizes": (256, 128, 64)}
    detectors = {
        "PCA(3)": pca_error,
        "IsolationForest": lambda X: IsolationForest(random_state=0).fit(X).score_samples,
        "default": ours(),
        "denoising": ours(regularizer="denoising"),
        "contractive": ours(regularizer="contractive"),
        "variational": ours(regularizer="variational"),
        "1 code": ours(n_components=1),
        "neighbors": ours("neighbors", **table),
        "neigh., noise": ours(
            "neighbors",
            regularizer=[NeighborPreserving(), Denoising("gaussian", amount=0.5)],
            **table,
        ),
    }
    results = {name: {} for name in detectors}
    print(f"{'':<20}" + "".join(f"{name:>16}" for name in detectors))
    for path in sorted((args.data / "anomaly").glob("*.npz"))[: 3 if args.quick else None]:
        with np.load(path) as data:
            X, y = data["X"], data["y"]
        normal = np.random.default_rng(0).permutation(np.flatnonzero(y == 0))
        half = normal[: len(normal) // 2]
        rest = np.setdiff1d(np.arange(len(y)), half)
        for name, fit in detectors.items():
            score = fit(X[half])
            results[name][path.stem] = roc_auc_score(y[rest], -score(X[rest]))
        aucs = "".join(f"{results[name][path.stem]:>16.3f}" for name in detectors)
        print(f"{path.stem:<20}{aucs}", flush=True)
    means = "".join(f"{np.mean(list(results[name].values())):>16.3f}" for name in detectors)
    print(f"{'mean':<20}{means}")
    return results


def measure_labels(args):
    """KNN(15) on MNIST's test rows with all labels, with 1,000, and without."""
    X, X_test, y, y_test, _ = load("mnist", args.data, 0)
    results = {}
    for name, n_labels, regularizer in (
        ("Supervised, all labels", len(y), Supervised()),
        ("NeighborPreserving, no labels", 0, NeighborPreserving()),
        ("both, 1,000 labels", 1_000, [NeighborPreserving(), Supervised()]),
    ):
        results[name] = []
        for seed in range(args.seeds):
            labels = y.astype(int)
            labels[np.random.default_rng(seed).permutation(len(y))[n_labels:]] = -1
            transformer = AutoencoderTransformer.from_preset(
                "neighbors", regularizer=regularizer, random_state=seed
            )
            codes = transformer.fit(X, labels).transform(X)
            knn = KNeighborsClassifier(15).fit(codes, y)
            results[name].append(knn.score(transformer.transform(X_test), y_test))
        print(f"{name:<32}{np.median(results[name]):.4f} {np.round(results[name], 4)}", flush=True)
    return results


def measure_few_labels(args):
    """Accuracies on test rows of the recipe of `few_labels.py`, for each draw of labels."""
    results = {}
    names = "".join(f"{name:>18}" for name in recipe.NAMES)
    print(f"{'':<34}{'KNN(15), all labels':>20}{names}")
    for name in args.sets or IMAGES:
        X, X_test, y, y_test, _ = load(name, args.data, 0)
        for n_components in args.codes:
            for seed in range(args.seeds):
                transformer = recipe.learn(X, n_components, seed)
                Z, Z_test = transformer.transform(X), transformer.transform(X_test)
                knn = KNeighborsClassifier(15).fit(Z, y).score(Z_test, y_test)
                for per_class in (1, 4, 10):
                    scores = recipe.scores(Z, Z_test, y, y_test, per_class, 10)
                    title = f"{name}, {n_components} codes, seed {seed}, {per_class} a class"
                    results[title] = {"KNN(15)": knn, "draws": scores.tolist()}
                    cells = [f"{np.median(each):.4f} ({min(each):.3f})" for each in scores.T]
                    cells = "".join(f"{cell:>18}" for cell in cells)
                    print(f"{title:<40}{knn:>14.4f}{cells}", flush=True)
                    save(results, args.json)
    return results


def measure_time(args):
    """Seconds of fit and of the codes of test rows, "neighbors" and UMAP in turn."""
    results = {}
    for name in args.sets or IMAGES:
        X, X_test, y, y_test, is_image = load(name, args.data, 0)
        peers = for_peers(X, X_test, is_image)
        for n_components in args.codes:
            runs = []
            for seed in range(-1, args.seeds):
                part = slice(5_000 if seed < 0 else None)  # once to compile
                run = {}
                for contestant in ("neighbors", "UMAP"):
                    rows, rows_test = (X, X_test) if contestant in OURS else peers[:2]
                    transformer = CONTESTANTS[contestant](n_components, max(seed, 0))
                    start = time.perf_counter()
                    Z = transformer.fit_transform(rows[part])
                    Z_test = transformer.transform(rows_test)
                    seconds = time.perf_counter() - start
                    knn = KNeighborsClassifier(15).fit(Z, y[part])
                    run[contestant] = {"s": seconds, "KNN(15)": knn.score(Z_test, y_test)}
                    if contestant in OURS:
                        difference = (X_test - transformer.reconstruct(X_test)) / peers[2]
                        run[contestant]["MSE"] = float((difference**2).mean())
                if seed >= 0:
                    ratio = run["neighbors"]["s"] / run["UMAP"]["s"]
                    print(
                        f"{name}, {n_components} codes: time ratio {ratio:.2f}; {run}", flush=True
                    )
                    runs.append({**run, "ratio": ratio})
            ratio = np.median([run["ratio"] for run in runs])
            print(f"{name}, {n_components} codes: median ratio {ratio:.2f}", flush=True)
            results[f"{name}, {n_components} codes"] = runs
            save(results, args.json)
    return results


def save_chart(results, path):
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        len(results), 1, figsize=(8, 0.6 + 2.7 * len(results)), layout="constrained", squeeze=False
    )
    for ax, (title, figures) in zip(axes[:, 0], results.items(), strict=True):
        names = list(figures)[::-1]
        for offset, column in ((0.2, "KNN(5)"), (-0.2, "few labels")):
            values = [np.median([run[column] for run in figures[name]]) for name in names]
            bars = ax.barh(np.arange(len(names)) + offset, values, 0.38, label=column)
            ax.bar_label(bars, fmt="%.3f", padding=2, fontsize=7)
        ax.set_yticks(np.arange(len(names)), names, fontsize=8)
        ax.set_xlim(0, 1.1)
        ax.set_title(title, loc="left", fontsize=9)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0, 0].legend(fontsize=8, loc="lower right")
    axes[-1, 0].set_xlabel("accuracy on held-out rows (median over seeds)")
    figure.savefig(path, dpi=100)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--sets", nargs="+")
    parser.add_argument("--codes", type=int, nargs="+", help="2 3 10 32, or what the table needs")
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--novelty", action="store_true")
    parser.add_argument("--labels", action="store_true")
    parser.add_argument("--few-labels", action="store_true")
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--quick", action="store_true", help="3 codes, one seed, no optional peers")
    parser.add_argument("--json", type=Path, help="where to write every single figure")
    parser.add_argument("--chart", type=Path)
    args = parser.parse_args()
    if args.quick:
        args.codes, args.seeds = [3], 1
        args.only = [name for name in args.only if name not in ("UMAP", "PyOD")]
    run, codes = measure_sets, [2, 3, 10, 32]
    for chosen, other, needed in (
        (args.novelty, measure_novelty, []),
        (args.labels, measure_labels, []),
        (args.few_labels, measure_few_labels, [16]),
        (args.time, measure_time, [3]),
    ):
        if chosen:
            run, codes = other, needed
    args.codes = args.codes or codes
    if run is not measure_sets and not args.data:
        parser.error("all tables but the first need --data")
    results = run(args)
    save(results, args.json)
    if args.chart and run is measure_sets:
        save_chart(results, args.chart)


if __name__ == "__main__":
    main()
