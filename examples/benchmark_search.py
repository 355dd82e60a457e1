"""Memory of a search in two processes, and how often it trains the autoencoder.

The grid has 12 settings: 4 of the autoencoder times 3 of the classifier. It is searched in 3 folds,
with a `Pipeline` that has a `memory`. X is given as

    array      an array in memory, which scikit-learn cuts into folds by copying
    view       a `RowView` of it
    map        a `RowView` of a memory map in a file

Memory is the sampled peak of both processes of the search together, beyond their memory after the
imports. It consists of the anonymous memory of each, and of the files that they have mapped, such
as joblib's copy of X. A file that both have mapped counts once. Libraries are left out. The target
is 1.5 times X.

    python examples/benchmark_search.py [--data mnist.npz] [--quick] [--folder FOLDER] [--json FILE]

X are the bundled digits, magnified to 24 x 24 pixels, or with --data the training images of MNIST,
in float32 and repeated to 300,000 rows. The memory map and the cache are written to FOLDER.
"""

import argparse
import importlib
import json
import os
import re
import tempfile
import threading
import time
from pathlib import Path

import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, ParameterGrid, StratifiedKFold
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline

from aefeatures import AutoencoderTransformer, Denoising, RowView

GRID = {
    "codes__n_components": [4, 8],
    "codes__regularizer__amount": [0.1, 0.3],
    "bayes__var_smoothing": [1e-9, 1e-6, 1e-3],
}
N_FOLDS = 3


class CountingTransformer(AutoencoderTransformer):
    """Transformer that writes a line for every fit into the file that the environment names."""

    def fit(self, X, y=None):
        with Path(os.environ["FITS_FILE"]).open("a", encoding="utf-8") as file:
            file.write("fit\n")
        return super().fit(X, y)


class Peak:
    """Peak of the memory of processes while the block runs, above that before it, in MB."""

    def __init__(self, processes):
        self._processes = processes

    def __enter__(self):
        self._base = {pid: memory(pid)[0] for pid in self._processes}
        self.total = self.anonymous = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self):
        while not self._done.wait(0.05):
            anonymous, files = 0.0, {}
            for pid in self._processes:
                own, mapped = memory(pid)
                anonymous += own - self._base[pid]
                files = {
                    name: max(mapped.get(name, 0), files.get(name, 0)) for name in mapped | files
                }
            self.anonymous = max(self.anonymous, anonymous)
            self.total = max(self.total, anonymous + sum(files.values()))

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()


def memory(pid):
    """Anonymous memory of a process, and the part in memory of each mapped file, in MB.

    PSS, which divides files among the processes, is not used: if a file is in large pages, some
    versions of Linux count all of it for each process.
    """
    anonymous, files, name = 0.0, {}, ""
    with Path(f"/proc/{pid}/smaps").open(encoding="utf-8") as file:
        for line in file:
            if re.match("[0-9a-f]+-", line):
                name = line.split(maxsplit=5)[5].strip() if line.count("/") else ""
            elif ".so" in name or "/bin/python" in name:
                continue
            elif line.startswith("Rss:") and name:
                files[name] = files.get(name, 0.0) + int(line.split()[1]) / 1024
            elif line.startswith("Anonymous:"):
                anonymous += int(line.split()[1]) / 1024
    return anonymous, files


def import_all():
    """Import the modules that a process of the search needs, and return its id."""
    time.sleep(1)  # so that the other process gets the second call
    return AutoencoderTransformer and GridSearchCV and os.getpid()


def digits(n_rows):
    X, y = load_digits(return_X_y=True)
    X = np.kron(X.reshape(-1, 8, 8), np.ones((3, 3))).reshape(len(X), -1) / 16
    return repeated(X, y, n_rows)


def repeated(X, y, n_rows):
    """Rows of X, repeated into one new array."""
    times = -(-n_rows // len(X))
    rows = np.empty((n_rows, X.shape[1]), np.float32)
    for start in range(0, n_rows, len(X)):
        rows[start : start + len(X)] = X[: n_rows - start]
    return rows, np.tile(y, times)[:n_rows]


def measure(kind, X, y, folder, batch_size):
    if kind == "map":
        np.save(folder / "X.npy", X)
        X = np.load(folder / "X.npy", mmap_mode="r")
    given = X if kind == "array" else RowView(X)
    fits = folder / "fits"
    fits.touch()
    os.environ["FITS_FILE"] = str(fits)
    # Imported by name, as joblib's cache does not support classes of a script.
    codes = importlib.import_module(Path(__file__).stem).CountingTransformer(
        regularizer=Denoising(),
        max_epochs=1,
        batch_size=batch_size,
        device="cpu",
        random_state=0,
    )
    pipeline = Pipeline(
        [("codes", codes), ("bayes", GaussianNB())],
        memory=joblib.Memory(folder / "cache", verbose=0),
    )
    cv = StratifiedKFold(N_FOLDS)
    with joblib.parallel_backend("loky", n_jobs=2):
        processes = set(joblib.Parallel()(joblib.delayed(import_all)() for _ in range(2)))
        assert len(processes) == 2
        search = GridSearchCV(pipeline, GRID, cv=cv, refit=False)
        start = time.perf_counter()
        with Peak(processes) as peak:
            search.fit(given, y)
        seconds = time.perf_counter() - start
    joblib.externals.loky.get_reusable_executor().shutdown()
    of_codes = {name: values for name, values in GRID.items() if name.startswith("codes")}
    return {
        "X, MB": X.nbytes / 2**20,
        "memory, MB": peak.total,
        "memory / X": peak.total * 2**20 / X.nbytes,
        "anonymous / X": peak.anonymous * 2**20 / X.nbytes,
        "settings x folds": len(ParameterGrid(GRID)) * N_FOLDS,
        "of the autoencoder": len(ParameterGrid(of_codes)) * N_FOLDS,
        "trained": len(fits.read_text(encoding="utf-8").splitlines()),
        "seconds": seconds,
        "best score": float(search.cv_results_["mean_test_score"].max()),
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--quick", action="store_true", help="2,000 rows")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--only", choices=["array", "view", "map"], nargs="+")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    n_rows = 2_000 if args.quick else args.rows
    if args.data is None:
        X, y = digits(n_rows)
    else:
        with np.load(args.data) as data:
            X, y = data["X_train"], data["y_train"]
        X, y = repeated(X.reshape(len(X), -1) / 255, y, n_rows)
    results = {}
    for kind in args.only or ["array", "view", "map"]:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            results[kind] = measure(kind, X, y, Path(folder), batch_size=512)
        print(kind)
        for quantity, value in results[kind].items():
            print(f"    {quantity:<20}{value:>12,.2f}", flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
