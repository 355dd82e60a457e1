"""Time of the same training in this library and in others.

All train the network 784-128-64-12-3 and its mirror with Adam and mean squared error for ten
epochs. Each contestant is written as its users would write it:

    lecture        the lecture's loop: `DataLoader`, `ToTensor` on PIL images
    bare loop      a tuned loop: data in one tensor, `index_select`, fused Adam (the better
                   of one and two threads)
    skorch         `NeuralNetRegressor`
    PyOD           `AutoEncoder` with its defaults: batch normalization, dropout, scaling
    PyOD plain     the same without these three
    MLPRegressor   scikit-learn's, fitted to (X, X) in float32
    products       the matrix products of the ten epochs and nothing else: the floor (the
                   better of one and two threads)
    aefeatures     `AutoencoderTransformer()` on the uint8 pixels
    no flush       the same without flushing denormal numbers to zero

All run in one process, in turn, round after round. All except the last flush denormal numbers to
zero. Prints medians with their range, and the median over the rounds of each contestant's time
divided by ours in the same round.

    python examples/benchmark_speed.py --data mnist.npz [--quick] [--json FILE] [--chart FILE]
    OMP_NUM_THREADS=1 python examples/benchmark_speed.py --data mnist.npz --progress
    python examples/benchmark_speed.py --profile [--data mnist.npz]
    python examples/benchmark_speed.py --search

The second command only measures the cost of progress and callbacks, on every fifth image. The third
shows where the processor time of fits goes, on one thread, and the time of the import. The fourth
searches 12 settings in 3 folds of the bundled digits, in two processes: 3 and 10 codes of PCA and
of the autoencoder, and three classifiers each.

Needs the extra `bench`. `--data` is a .npz file with images in `X_train`.
"""

import argparse
import contextlib
import io
import itertools
import json
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import sklearn
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC
from torch import nn

from aefeatures import AutoencoderTransformer
from aefeatures._nets import contrastive
from aefeatures._nets.objective import Objective
from aefeatures._rows.batches import RowBatches
from aefeatures._train import gradients
from aefeatures._train.callbacks import _EpochTasks
from aefeatures._train.optimizer import Adam
from aefeatures._train.progress import Progress
from aefeatures._train.training import Training

WIDTHS = (128, 64, 12, 3)
LEARNING_RATE = 5e-3


@contextlib.contextmanager
def flush_to_zero():
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@contextlib.contextmanager
def threads(n):
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class LectureAutoencoder(nn.Module):
    def __init__(self, n_features, bounded=True):
        super().__init__()
        widths = [n_features, *WIDTHS]
        self.encoder = self._stack(widths)
        self.decoder = self._stack(widths[::-1])
        if bounded:
            self.decoder.append(nn.Sigmoid())

    @staticmethod
    def _stack(widths):
        layers = []
        for n_in, n_out in itertools.pairwise(widths):
            layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        return nn.Sequential(*layers[:-1])

    def forward(self, x):
        encoded = self.encoder(x)
        return encoded, self.decoder(encoded)


class ImageDataset(torch.utils.data.Dataset):
    """Dataset that makes a PIL image of each row, then `ToTensor`, as torchvision's MNIST."""

    def __init__(self, X):
        from torchvision.transforms import ToTensor

        side = round(X.shape[1] ** 0.5)
        self.images = X.reshape(-1, side, side)
        self.transform = ToTensor()

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        from PIL import Image

        return self.transform(Image.fromarray(self.images[i])), 0


def lecture(data, batch_size, epochs):
    loader = torch.utils.data.DataLoader(
        ImageDataset(data["uint8"]), batch_size=batch_size, shuffle=True
    )
    n_features = data["uint8"].shape[1]
    autoencoder = LectureAutoencoder(n_features)
    optimizer = torch.optim.Adam(autoencoder.parameters(), lr=LEARNING_RATE)
    criterion = nn.MSELoss()
    with flush_to_zero():
        for _ in range(epochs):
            for x, _label in loader:
                x = x.view(-1, n_features)
                _, decoded = autoencoder(x)
                loss = criterion(decoded, x)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()


def bare_loop(data, batch_size, epochs):
    X = data["tensor"]
    autoencoder = LectureAutoencoder(X.shape[1], data["bounded"])
    optimizer = torch.optim.Adam(autoencoder.parameters(), lr=LEARNING_RATE, fused=True)
    with flush_to_zero():
        for _ in range(epochs):
            for index in torch.randperm(len(X)).split(batch_size):
                rows = X.index_select(0, index)
                loss = F.mse_loss(autoencoder(rows)[1], rows)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()


def skorch(data, batch_size, epochs):
    from skorch import NeuralNetRegressor

    class Module(LectureAutoencoder):
        def forward(self, x):
            return super().forward(x)[1]

    net = NeuralNetRegressor(
        Module,
        module__n_features=data["float32"].shape[1],
        module__bounded=data["bounded"],
        criterion=nn.MSELoss,
        optimizer=torch.optim.Adam,
        lr=LEARNING_RATE,
        batch_size=batch_size,
        max_epochs=epochs,
        train_split=None,
        verbose=0,
    )
    with flush_to_zero():
        net.fit(data["float32"], data["float32"])


def pyod(data, batch_size, epochs, **params):
    from pyod.models.auto_encoder import AutoEncoder

    with flush_to_zero():
        AutoEncoder(
            hidden_neuron_list=list(WIDTHS),
            batch_size=batch_size,
            epoch_num=epochs,
            lr=LEARNING_RATE,
            verbose=0,
            **params,
        ).fit(data["float32"])


def pyod_plain(*args):
    pyod(*args, batch_norm=False, dropout_rate=0.0, preprocessing=False)


def mlp_regressor(data, batch_size, epochs):
    X = data["float32"]
    MLPRegressor(
        hidden_layer_sizes=(*WIDTHS, *WIDTHS[-2::-1]),
        batch_size=min(batch_size, len(X)),
        max_iter=epochs,
        learning_rate_init=LEARNING_RATE,
        alpha=0.0,
        tol=0.0,
        n_iter_no_change=10**6,
    ).fit(X, X)


def products(data, batch_size, epochs):
    X = data["tensor"]
    n_rows, n_features = X.shape
    widths = [n_features, *WIDTHS, *WIDTHS[-2::-1], n_features]
    weights = [torch.randn(b, a) * 0.05 for a, b in itertools.pairwise(widths)]
    gradients = [torch.empty_like(weight) for weight in weights]
    h = [
        X[:batch_size].clone() if i == 0 else torch.zeros(batch_size, w)
        for i, w in enumerate(widths)
    ]
    d = [torch.randn(batch_size, w) * 0.05 for w in widths]
    with flush_to_zero(), torch.no_grad():
        for _ in range(epochs * (n_rows // batch_size)):
            for i, weight in enumerate(weights):
                torch.mm(h[i], weight.t(), out=h[i + 1])
            for i in range(len(weights) - 1, -1, -1):
                torch.mm(d[i + 1].t(), h[i], out=gradients[i])
                if i > 0:
                    torch.mm(d[i + 1], weights[i], out=d[i])


def ours(data, batch_size, epochs):
    AutoencoderTransformer(
        batch_size=batch_size, max_epochs=epochs, device="cpu", random_state=0
    ).fit(data["uint8"])


def ours_without_flush(data, batch_size, epochs):
    # Large steps drop tiny moments of Adam instead of flushing them.
    never = mock.patch("aefeatures._train.optimizer._DROP_EVERY", 10**9)
    with mock.patch("torch.set_flush_denormal"), never:
        ours(data, batch_size, epochs)


CONTESTANTS = {
    "aefeatures": ours,
    "no flush": ours_without_flush,
    "lecture": lecture,
    "bare loop": bare_loop,
    "skorch": skorch,
    "PyOD": pyod,
    "PyOD plain": pyod_plain,
    "MLPRegressor": mlp_regressor,
    "products": products,
}
BETTER_OF_TWO = ("bare loop", "products")


def timed(name, *args):
    """Seconds of one run, with the better number of threads if the contestant has a choice."""
    seconds = []
    for n in (1, 2) if name in BETTER_OF_TWO else (torch.get_num_threads(),):
        with threads(n):
            start = time.perf_counter()
            CONTESTANTS[name](*args)
            seconds.append(time.perf_counter() - start)
    return min(seconds)


def measure(data, batch_size, epochs, names, n_rounds):
    times = {name: [] for name in names}
    for _ in range(n_rounds):
        for name in names:
            times[name].append(timed(name, data, batch_size, epochs))
    return times


def measure_transform(X, n_rounds):
    """Seconds of `transform`: for one row beside PCA, for all rows beside a bare loop."""
    transformer = AutoencoderTransformer(max_epochs=1, device="cpu").fit(X[:2000])
    encoder = transformer.encoder_
    bare = torch.empty(len(X), 3)

    def bare_transform():
        with torch.inference_mode():
            for start in range(0, len(X), 5000):
                rows = torch.from_numpy(X[start : start + 5000])
                bare[start : start + 5000] = encoder(rows.to(torch.float32) / 255)

    one = {}
    for name, rows in {"float64": X[:1] / 255, "float32": np.float32(X[:1] / 255)}.items():
        fitted = AutoencoderTransformer(max_epochs=1, device="cpu").fit(X[:500] / 255)
        pca = PCA(3).fit(X[:500] / 255)
        one[f"aefeatures, {name}"] = lambda fitted=fitted, rows=rows: fitted.transform(rows)
        one[f"PCA, {name}"] = lambda pca=pca, rows=rows: pca.transform(rows)
    every = {"aefeatures": lambda: transformer.transform(X), "bare loop": bare_transform}
    results = {}
    for title, functions, repeats in (
        ("transform of one row of 784 columns", one, 200),
        (f"transform of {len(X):,} rows of 784 columns", every, 1),
    ):
        times = {name: [] for name in functions}
        for _ in range(n_rounds + 1):  # the first is a warm-up
            for name, function in functions.items():
                start = time.perf_counter()
                for _ in range(repeats):
                    function()
                times[name].append((time.perf_counter() - start) / repeats)
        results[title] = {name: seconds[1:] for name, seconds in times.items()}
    return results


def report_transform(results):
    for title, times in results.items():
        print(f"\n{title}")
        pairs = list(times.items())
        for (name, ours_seconds), (other, seconds) in zip(pairs[::2], pairs[1::2], strict=True):
            ratios = np.array(ours_seconds) / np.array(seconds)
            print(
                f"{name} {np.median(ours_seconds) * 1e3:.3f} ms, {other} "
                f"{np.median(seconds) * 1e3:.3f} ms: ratio {np.median(ratios):.2f} "
                f"({ratios.min():.2f} to {ratios.max():.2f})"
            )


def report(title, times):
    print(f"\n{title}")
    print(f"{'':<14}{'seconds, median (range)':>30}{'time / ours (range)':>26}")
    base = np.array(times["aefeatures"])
    for name, seconds in times.items():
        ratios = np.array(seconds) / base
        absolute = f"{np.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"
        relative = f"{np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})"
        print(f"{name:<14}{absolute:>30}{relative:>26}", flush=True)


def image_data(path, n_rows=None):
    with np.load(path) as stored:
        X = stored["X_train"]
    X = np.ascontiguousarray(X.reshape(len(X), -1)[:n_rows])
    scaled = (X / np.float32(255)).astype(np.float32)
    return {"uint8": X, "float32": scaled, "tensor": torch.from_numpy(scaled), "bounded": True}


def table_data():
    """The first 1,500 bundled digits, standardised; the lecture's loop needs images."""
    X = load_digits().data[:1500]
    scaled = ((X - X.mean(axis=0)) / np.maximum(X.std(axis=0), 1e-9)).astype(np.float32)
    return {
        "uint8": X.astype(np.uint8),
        "float32": scaled,
        "tensor": torch.from_numpy(scaled),
        "bounded": False,
    }


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Idle:
    """A callback that does nothing."""

    def setup(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass


class Asking(Idle):
    """A callback that asks for the fitted estimator after each epoch."""

    def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
        pass


@contextlib.contextmanager
def time_inside(parts):
    """Add up the processor time of calls, of which one runs at a time, and their number.

    `parts` has a list of owners and names of functions for each part. The time of a call within
    another one counts for the inner one. Yields a list for each part: seconds and calls.
    """
    spent = {part: [0.0, 0] for part in parts}
    within = [0.0]  # time of inner calls, for each call under way

    def timed(function, part):
        def call(*args, **params):
            within.append(0.0)
            start = time.process_time()
            try:
                return function(*args, **params)
            finally:
                seconds = time.process_time() - start
                spent[part][0] += seconds - within.pop()
                spent[part][1] += 1
                within[-1] += seconds

        return call

    with contextlib.ExitStack() as stack:
        for part, functions in parts.items():
            for owner, name in functions:
                function = timed(getattr(owner, name), part)
                stack.enter_context(mock.patch.object(owner, name, function))
        yield spent


PARTS_OF_A_FIT = {
    "neighbours": [(contrastive, "neighbor_graph")],
    "gather rows": [(RowBatches, "take")],
    "noise, partners": [(Objective, "batch")],
    "forward": [(gradients._Part, "forward")],
    "loss": [(gradients._Loss, "write_gradient")],
    "backward": [(gradients._Part, "backward")],
    "regularizers": [(each, "_add_gradient") for each in gradients.WRITTEN],
    "optimizer": [(Adam, "step")],
    "rest of the steps": [(Training, "_train_epoch")],
    "before, after": [(AutoencoderTransformer, "fit")],
}


def profile(images):
    """Print where the processor time of the import and of fits goes."""
    code = "import time, torch, sklearn.base; start = time.process_time(); import aefeatures; "
    code += "print(time.process_time() - start)"
    seconds = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(3)]
    print(f"\nimport beyond torch and scikit-learn: {np.median(seconds):.2f} s")
    digits = load_digits().data
    fits = {
        "default on digits": lambda **params: AutoencoderTransformer(**params).fit(digits),
        '"neighbors" on digits': lambda **params: AutoencoderTransformer.from_preset(
            "neighbors", **params
        ).fit(digits),
    }
    if images is not None:
        fits["lecture's network on 6,000 images"] = lambda **params: AutoencoderTransformer(
            **{"max_epochs": 10, **params}
        ).fit(images)
    for title, fit in fits.items():
        start = [time.process_time()]
        for _ in range(2):
            fit(max_epochs=1, device="cpu")
            start.append(time.process_time())
        first, second = np.diff(start)
        with time_inside(PARTS_OF_A_FIT) as spent:
            fit(random_state=0, device="cpu")
        total, n_steps = sum(seconds for seconds, _ in spent.values()), spent["optimizer"][1]
        print(f"\n{title}: {total:.2f} s, {n_steps:,} steps; ", end="")
        print(f"the first fit of one epoch took {first - second:+.3f} s beyond the second")
        for part, (seconds, _) in spent.items():
            print(f"{part:<18}{seconds:8.3f} s{seconds / total:8.1%}", end="")
            print(f"{seconds / n_steps * 1e6:9.0f} microseconds a step")


def search(n_rounds):
    """Print the time of searches over PCA, over the autoencoder, and over both."""
    X, y = load_digits(return_X_y=True)
    classifiers = [KNeighborsClassifier(5), SVC(), LogisticRegression(max_iter=1000)]

    def grid(methods):
        codes = [method(n, random_state=0) for method in methods for n in (3, 10)]
        return {"codes": codes, "classifier": classifiers}

    contestants = {
        "PCA": ([PCA], False),
        "autoencoder": ([AutoencoderTransformer], False),
        "autoencoder, memory": ([AutoencoderTransformer], True),
        "both": ([PCA, AutoencoderTransformer], False),
        "both, memory": ([PCA, AutoencoderTransformer], True),
    }
    results = {name: [] for name in contestants}
    for i in range(n_rounds + 1):  # the first starts the processes
        for name, (methods, with_memory) in contestants.items():
            with tempfile.TemporaryDirectory() as folder:
                steps = [("codes", PCA()), ("classifier", SVC())]
                pipeline = Pipeline(steps, memory=folder if with_memory else None)
                start = time.perf_counter()
                found = GridSearchCV(pipeline, grid(methods), cv=3, n_jobs=2).fit(X, y)
                if i > 0:
                    results[name].append(time.perf_counter() - start)
    print("\nsearch on digits, 6 settings of each method in 3 folds: seconds, median (range)")
    for name, seconds in results.items():
        print(f"{name:<22}{np.median(seconds):6.1f} ({min(seconds):.1f} to {max(seconds):.1f})")
    chosen = found.best_params_
    print(f"best: {found.best_score_:.3f}, {chosen['codes']}, {chosen['classifier']}")


def measure_progress(X, n_rounds):
    """Processor time of fits, and the part spent in progress and callbacks, in seconds.

    Whole fits cannot be compared: on a busy machine, two silent fits differ by more.
    """
    methods = [
        *((Progress, name) for name in ("step", "end_epoch", "close")),
        *((_EpochTasks, name) for name in ("begin_epoch", "end_epoch")),
    ]

    def fit(verbose=0, stream=None, callback=None):
        transformer = AutoencoderTransformer(max_epochs=10, random_state=0, verbose=verbose)
        if callback is not None:
            transformer.set_callbacks(callback)
        with (
            time_inside({"progress": methods}) as spent,
            contextlib.redirect_stdout(stream or sys.stdout),
        ):
            start = time.process_time()
            transformer.fit(X)
            return spent["progress"][0], time.process_time() - start

    variants = {
        "silent": fit,
        "verbose=1, terminal": lambda: fit(1, Terminal()),
        "verbose=1, log": lambda: fit(1, io.StringIO()),
    }
    if hasattr(AutoencoderTransformer, "set_callbacks"):
        variants["a callback that does nothing"] = lambda: fit(callback=Idle())
        variants["a callback that asks for weights"] = lambda: fit(callback=Asking())
    fit()
    rounds = [{name: run() for name, run in variants.items()} for _ in range(n_rounds)]
    return {name: [times[name] for times in rounds] for name in variants}


def report_progress(results):
    print(f"\n{'median of':<34}{'inside':>10}{'fit':>9}{'share':>9}")
    for name, times in results.items():
        inside, fit = np.median(times, axis=0)
        print(f"{name:<34}{inside * 1e3:>7.2f} ms{fit:>7.2f} s{inside / fit:>9.2%}")


def save_chart(results, path):
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        len(results), 1, figsize=(8, 2.6 * len(results)), layout="constrained", squeeze=False
    )
    for ax, (title, times) in zip(axes[:, 0], results.items(), strict=True):
        names = list(times)[::-1]
        medians = [np.median(times[name]) for name in names]
        colours = ["tab:blue" if name == "aefeatures" else "0.7" for name in names]
        bars = ax.barh(names, medians, color=colours)
        ax.bar_label(bars, fmt="%.1f s", padding=3)
        ax.set_title(title, loc="left", fontsize=10)
        ax.margins(x=0.12)
        ax.spines[["top", "right"]].set_visible(False)
    axes[-1, 0].set_xlabel("seconds (median)")
    figure.savefig(path, dpi=100)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="a .npz with X_train of images")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[64, 512, 4096])
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, help="beside aefeatures")
    parser.add_argument("--quick", action="store_true", help="6,000 rows, one round, batch 64")
    parser.add_argument("--progress", action="store_true", help="only the cost of progress")
    parser.add_argument("--profile", action="store_true", help="only where the time of fits goes")
    parser.add_argument("--search", action="store_true", help="only the time of a search")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--chart", type=Path)
    args = parser.parse_args()
    if args.progress and not args.data:
        parser.error("--progress needs --data")
    warnings.simplefilter("ignore")  # peers' convergence and deprecation warnings

    chosen = [name for name in CONTESTANTS if name in ("aefeatures", *(args.only or CONTESTANTS))]
    n_rounds = 1 if args.quick else args.rounds
    print(
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, "
        f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"scikit-learn {sklearn.__version__}, numpy {np.__version__}; {n_rounds} rounds"
    )
    if args.profile:
        with threads(1):
            profile(image_data(args.data, 6_000)["uint8"] if args.data else None)
        return
    if args.search:
        search(n_rounds)
        return
    if args.progress:
        with np.load(args.data) as data:
            X = data["X_train"][::5].reshape(-1, data["X_train"][0].size)
        times = measure_progress(X, 1 if args.quick else args.rounds)
        report_progress(times)
        if args.json:
            args.json.write_text(json.dumps(times, indent=1), encoding="utf-8")
        return
    results = {}
    table = table_data()
    epochs = 20 if args.quick else 128  # of 24 steps, about 3,000 in all
    names = [name for name in chosen if name != "lecture"]
    measure(table, 64, 1, names, 1)  # imports and first calls
    title = f"1,500 x 64 table, batch 64, {epochs} epochs"
    results[title] = measure(table, 64, epochs, names, n_rounds)
    report(title, results[title])
    if args.data:
        images = image_data(args.data, 6_000 if args.quick else None)
        transforms = measure_transform(images["uint8"], 2 if args.quick else 9)
        report_transform(transforms)
        for batch_size in [64] if args.quick else args.batch_sizes:
            title = f"{len(images['uint8']):,} x 784 images, batch {batch_size}, 10 epochs"
            measure(image_data(args.data, 2 * batch_size), batch_size, 1, chosen, 1)
            results[title] = measure(images, batch_size, 10, chosen, n_rounds)
            report(title, results[title])
    if args.json:
        everything = {**results, **(transforms if args.data else {})}
        args.json.write_text(json.dumps(everything, indent=1), encoding="utf-8")
    if args.chart:
        save_chart(results, args.chart)


if __name__ == "__main__":
    main()
