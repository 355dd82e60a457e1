"""Memory of a training, and how its time grows with the number of rows.

Every measurement runs in a process of its own. Memory is the peak of anonymous memory, beyond that
of the imports and of X itself. Anonymous memory (RssAnon of Linux) is the memory of a process
without the page cache of a memory map.

    array      uint8 in memory, fit and transform
    map        a memory map of uint8 on disk, which is removed afterwards; one epoch, then codes
               written chunk by chunk into another memory map; time per row beside a fit in memory
    rows       time per row and epoch from 10,000 rows to 1,000,000
    sparse     a CSR matrix with 0.1% nonzero entries, and the size of its dense copy

    python examples/benchmark_memory.py [--quick] [--folder FOLDER] [--json FILE]

The memory map is written to FOLDER: 10 GB, or 30 MB with --quick.
"""

import argparse
import json
import multiprocessing
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from scipy import sparse

from aefeatures import AutoencoderTransformer

N_FEATURES = 784
BATCH_SIZE = 512


def anonymous_megabytes():
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


class Peak:
    """Peak of anonymous memory while the block runs, above that before the block."""

    def __enter__(self):
        self._base = self._highest = anonymous_megabytes()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self):
        while not self._done.wait(0.01):
            self._highest = max(self._highest, anonymous_megabytes())

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()
        self.megabytes = max(self._highest, anonymous_megabytes()) - self._base


def pixels(n_rows, seed=0):
    """Rows of bytes like images: smooth shapes of many sizes."""
    rng = np.random.default_rng(seed)
    grid = np.linspace(-1, 1, 28)
    centres = rng.uniform(-0.6, 0.6, (2, n_rows, 1)).astype(np.float32)
    width = rng.uniform(0.02, 0.3, (n_rows, 1)).astype(np.float32)
    rows = np.exp(-((grid[None] - centres[0]) ** 2) / width).astype(np.float32)
    columns = np.exp(-((grid[None] - centres[1]) ** 2) / width).astype(np.float32)
    return (255 * rows[:, :, None] * columns[:, None, :]).astype(np.uint8).reshape(n_rows, -1)


def fill(X):
    """Fill X block by block; random shapes repeat every 10,000 rows."""
    block = pixels(10_000)
    for start in range(0, len(X), len(block)):
        X[start : start + len(block)] = block[: len(X) - start]
    return X


def transformer(**params):
    return AutoencoderTransformer(
        **{"max_epochs": 1, "batch_size": BATCH_SIZE, "device": "cpu", "random_state": 0, **params}
    )


def warm_up():
    """Fit once, as a first call loads libraries and starts threads."""
    transformer().fit(fill(np.empty((2_000, N_FEATURES), np.uint8)))


def measure_both(X):
    """Peaks of a fit and a transform, in megabytes."""
    warm_up()
    with Peak() as fit:
        fitted = transformer().fit(X)
    with Peak() as encode:
        fitted.transform(X)
    return {"fit: MB beyond X": fit.megabytes, "transform: MB beyond X": encode.megabytes}


def measure_array(quick):
    X = fill(np.empty((5_000 if quick else 600_000, N_FEATURES), np.uint8))
    return {"rows": len(X), "X, MB": X.nbytes / 2**20, **measure_both(X)}


def measure_map(quick, folder):
    n_rows = (30_000_000 if quick else 10_000_000_000) // N_FEATURES
    small = fill(np.empty((n_rows // 20, N_FEATURES), np.uint8))
    warm_up()
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        transformer().fit(small)
        seconds.append((time.perf_counter() - start) / len(small))
    in_memory = float(np.median(seconds))
    with tempfile.TemporaryDirectory(dir=folder) as name:
        path = Path(name) / "X.npy"
        X = np.lib.format.open_memmap(path, "w+", np.uint8, (n_rows, N_FEATURES))
        fill(X)
        X.flush()
        del X
        X = np.load(path, mmap_mode="r")
        with Peak() as fit:
            start = time.perf_counter()
            fitted = transformer().fit(X)
            fit_seconds = time.perf_counter() - start
        codes = np.lib.format.open_memmap(Path(name) / "Z.npy", "w+", np.float32, (n_rows, 3))
        with Peak() as encode:
            start = time.perf_counter()
            for begin in range(0, n_rows, 100_000):
                part = slice(begin, begin + 100_000)
                codes[part] = fitted.transform(X[part])
            encode_seconds = time.perf_counter() - start
    return {
        "rows": n_rows,
        "file, GB": n_rows * N_FEATURES / 1e9,
        "fit: MB beyond imports": fit.megabytes,
        "transform: MB beyond imports": encode.megabytes,
        "fit: microseconds a row": fit_seconds / n_rows * 1e6,
        "fit in memory: microseconds a row": in_memory * 1e6,
        "ratio of time per row": fit_seconds / n_rows / in_memory,
        "transform: microseconds a row": encode_seconds / n_rows * 1e6,
    }


def measure_rows(quick):
    sizes = [2_000, 8_000] if quick else [10_000, 100_000, 300_000, 1_000_000]
    X = fill(np.empty((sizes[-1], N_FEATURES), np.uint8))
    warm_up()
    times = {size: [] for size in sizes}
    for _ in range(3):
        for size in sizes:
            start = time.perf_counter()
            transformer().fit(X[:size])
            times[size].append((time.perf_counter() - start) / size * 1e6)
    result = {f"{size}: microseconds a row": float(np.median(t)) for size, t in times.items()}
    medians = list(result.values())
    return {**result, "slowest / fastest": max(medians) / min(medians)}


def measure_sparse(quick):
    shape = (500, 20_000) if quick else (50_000, 20_000)
    X = sparse.random(*shape, density=0.001, format="csr", random_state=0, dtype=np.float32)
    return {
        "rows": shape[0],
        "columns": shape[1],
        **measure_both(X),
        "a dense copy: MB": shape[0] * shape[1] * 4 / 2**20,
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--folder", type=Path, help="where to make the memory map")
    parser.add_argument("--only", choices=["array", "map", "rows", "sparse"], nargs="+")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    jobs = {
        "array": (measure_array, (args.quick,)),
        "map": (measure_map, (args.quick, args.folder)),
        "rows": (measure_rows, (args.quick,)),
        "sparse": (measure_sparse, (args.quick,)),
    }
    results = {}
    for name in args.only or jobs:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            results[name] = pool.apply(*jobs[name])
        print(name)
        for quantity, value in results[name].items():
            print(f"    {quantity:<36}{value:>14,.2f}", flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
