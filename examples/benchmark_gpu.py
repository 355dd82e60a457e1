"""Time of trainings and codes on a GPU.

    lecture        `AutoencoderTransformer()`, the network 784-128-64-12-3 for ten epochs
    neighbors      the preset "neighbors" for ten epochs, the search of neighbours included
    beyond memory  the first again, on rows that do not stay on the GPU: they are copied there a
                   few batches at a time while it computes
    transform      codes of all rows

Each at every size of a batch and in each precision, after a warm-up. Prints a Markdown table with
rows a second, medians over rounds. `make gpu` writes it to a file, for `docs/benchmarks.md`.

    python examples/benchmark_gpu.py [--data mnist.npz] [--quick] [--device cpu] [--json FILE]

Without `--data` the rows are random bytes of MNIST's shape, so that nothing is said of accuracy.
"""

import argparse
import json
import statistics
import sys
import time
import warnings
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from aefeatures import AutoencoderTransformer
from aefeatures._rows.batches import RowBatches

PRECISIONS = ("float32", "bfloat16")


def images(path, n_rows):
    if path is None:
        return np.random.default_rng(0).integers(0, 256, (n_rows, 784), dtype=np.uint8)
    with np.load(path) as stored:
        return stored["X_train"][:n_rows].reshape(-1, 784)


def seconds(function):
    """Time of a call; results are arrays, so nothing is under way on the device afterwards."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def beyond_memory():
    """Let a training keep no rows on the device."""
    return mock.patch.object(RowBatches, "_resident_bytes", return_value=0)


def measure(X, device, batch_size, precision, epochs, n_rounds):
    """Rows a second of each work, by round."""
    settings = {
        "batch_size": batch_size,
        "precision": precision,
        "device": device,
        "max_epochs": epochs,
        "random_state": 0,
    }
    lecture = AutoencoderTransformer(**settings)
    neighbors = AutoencoderTransformer.from_preset("neighbors", **settings)
    works = {
        "lecture": (lecture, nullcontext),
        "neighbors": (neighbors, nullcontext),
        "beyond memory": (lecture, beyond_memory),
    }
    rates = {name: [] for name in (*works, "transform")}
    for i in range(n_rounds + 1):  # the first is a warm-up
        for name, (estimator, condition) in works.items():
            with condition():
                taken = seconds(lambda estimator=estimator: estimator.fit(X))
            rates[name].append(epochs * len(X) / taken)
        rates["transform"].append(len(X) / seconds(lambda: lecture.transform(X)))
        if i == 0:
            rates = {name: [] for name in rates}
    return rates


def table(results, title):
    """Return a Markdown table of medians."""
    names = list(next(iter(results.values())))
    lines = [f"| {title} | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for setting, rates in results.items():
        medians = (f"{statistics.median(rates[name]):,.0f}" for name in names)
        lines.append(f"| {setting} | {' | '.join(medians)} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="a .npz with X_train of images")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[64, 512, 4096])
    parser.add_argument("--quick", action="store_true", help="600 rows, one epoch, one round")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--table", type=Path, help="file for the table")
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # random bytes cannot be learned
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("PyTorch finds no GPU here. --device cpu measures the CPU.")
    X = images(args.data, 600 if args.quick else args.rows)
    n_rounds, epochs = (1, 1) if args.quick else (args.rounds, 10)
    on_gpu = args.device.startswith("cuda")
    name = torch.cuda.get_device_name(args.device) if on_gpu else "CPU"
    title = f"{name}, torch {torch.__version__}; rows a second of {len(X):,} x 784"
    results = {}
    for batch_size in args.batch_sizes:
        for precision in PRECISIONS:
            setting = f"batch {batch_size:,}, {precision}"
            results[setting] = measure(X, args.device, batch_size, precision, epochs, n_rounds)
            print(f"{setting}: done", file=sys.stderr)
    print(table(results, title))
    if args.table:
        args.table.write_text(table(results, title) + "\n", encoding="utf-8")
    if args.json:
        args.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
