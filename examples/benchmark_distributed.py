"""The cost of training on several processes and on Ray, and how it survives lost workers.

Every worker has one CPU thread. "throughput" measures 1 and 2 ranks, and "shards" shards of unequal
size. "knn" measures the accuracy of codes from 2 ranks and from Ray. "kill" kills workers during a
fit and during `transform_on_ray`. "stream" measures memory on a Parquet set that is larger than the
memory of a worker.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import threading
import time
import warnings
from contextvars import Context
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.neighbors import KNeighborsClassifier
from torch import distributed as dist
from torch import multiprocessing

from aefeatures import AutoencoderTransformer, distributed, fit_on_ray, transform_on_ray
from aefeatures._torch.ranks import current_ranks

BATCH_SIZES = (2048, 512, 64)  # rows of a rank in a step
PARTS = ["throughput", "shards", "knn", "kill", "stream"]
CODES = [f"autoencodertransformer{i}" for i in range(3)]


def pixels(path, quick):
    """MNIST, or rows like it, and labels: X, X_test, y, y_test."""
    if path is None:
        rng = np.random.default_rng(0)
        y = rng.integers(10, size=14_000)
        X = rng.random((10, 784))[y] * 255 * rng.random((len(y), 784))
        parts = X[:12_000], X[12_000:], y[:12_000], y[12_000:]
    else:
        with np.load(path) as data:
            parts = [data[n] for n in ("X_train", "X_test", "y_train", "y_test")]
            order = np.random.default_rng(0).permutation(len(parts[0]))
            parts[0], parts[2] = parts[0][order], parts[2][order]
    X, X_test, y, y_test = parts
    n = 2_000 if quick else len(X)
    X, X_test = (rows.reshape(-1, 784).astype(np.uint8) for rows in (X[:n], X_test))
    return X, X_test, y[:n], y_test


def accuracy(encode, X, X_test, y, y_test):
    neighbors = KNeighborsClassifier(15).fit(encode(X), y)
    return round(float(neighbors.score(encode(X_test), y_test)), 4)


# Ranks


def rank_of(rank, size, folder, work, args):
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", ConvergenceWarning)  # the rows have no structure
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size
    )
    with distributed():
        found = work(rank, size, *args)
    dist.barrier()
    Path(folder, f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def on_ranks(size, work, *args):
    """Results of `work(rank, size, *args)` in each of `size` processes."""
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(rank_of, (size, folder, work, args), nprocs=size)
        return [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(size)]


def rates(rank, size, n_rows):
    """Rows per second of all ranks for each batch size, from the time that six more epochs take."""
    rng = np.random.default_rng(rank)
    found = []
    for batch_size in BATCH_SIZES:
        X = rng.random((batch_size * max(4, n_rows // batch_size), 784), dtype=np.float32)
        seconds = {}
        for n_epochs in (1, 2, 8):  # the first is a warm-up
            transformer = AutoencoderTransformer(
                batch_size=batch_size, max_epochs=n_epochs, learning_rate=1e-3, random_state=0
            )
            start = time.perf_counter()
            transformer.fit(X)
            seconds[n_epochs] = time.perf_counter() - start
        found.append(size * 6 * len(X) / (seconds[8] - seconds[2]))
    return found


def rates_apart(*args):
    """The same for processes that run at the same time, but train alone."""
    return Context().run(rates, *args)  # a context without a group


def reduction(_rank, _size, n):
    """Seconds that a sum of `n` float32 over ranks adds to a step."""
    buffer, rows, weights = torch.zeros(n), torch.rand(512, 784), torch.rand(784, 128)
    seconds = {False: [], True: []}
    for reduces in [False, True] * 10:
        start = time.perf_counter()
        for _ in range(50):
            rows @ weights
            if reduces:
                current_ranks().sum_(buffer)
        seconds[reduces].append((time.perf_counter() - start) / 50)
    return float(np.median(seconds[True]) - np.median(seconds[False]))


def throughput(quick):
    kinds = {"one": (1, rates), "two": (2, rates), "apart": (2, rates_apart)}
    # Of each round, kind and batch size, the mean of the ranks.
    rounds = [
        {
            name: np.mean(on_ranks(size, work, 3_000 if quick else 40_000), axis=0)
            for name, (size, work) in kinds.items()
        }
        for _ in range(1 if quick else 5)
    ]
    results = {}
    for i, batch_size in enumerate(BATCH_SIZES):
        found = {name: float(np.median([each[name][i] for each in rounds])) for name in kinds}
        ratios = np.sort([each["two"][i] / each["one"][i] for each in rounds])
        results[batch_size] = found | {"ratio": np.median(ratios), "ratios": ratios.tolist()}
        print(
            f"{batch_size:5} rows a rank: 1 rank {found['one']:9,.0f} rows/s, 2 ranks "
            f"{found['two']:9,.0f} rows/s, {np.median(ratios):.2f}x ({ratios[0]:.2f} to "
            f"{ratios[-1]:.2f}); 2 that train apart {found['apart']:9,.0f} rows/s",
            flush=True,
        )
    model = AutoencoderTransformer().partial_fit(np.eye(784, dtype=np.float32)[:64])
    n = sum(p.numel() for m in (model.encoder_, model.decoder_) for p in m.parameters())
    results["bytes"] = 4 * (n + 3)
    results["reduction"] = max(on_ranks(2, reduction, n + 3))
    print(
        f"A step reduces {results['bytes']:,} bytes, which adds "
        f"{1e3 * results['reduction']:.2f} ms to a step of 2 processes here"
    )
    return results


class Counting:
    """Mean squared error that counts the rows it is computed on in training."""

    n_rows = 0

    def __call__(self, reconstruction, target):
        if torch.is_grad_enabled():
            self.n_rows += len(target)
        return (reconstruction - target).square().mean(dim=1)


def fits_of_shards(rank, _size, cases):
    """Rows, steps and codes of a rank, for each of several sizes of the shards."""
    return [fit_of_shard(rank, sizes) for sizes in cases]


def fit_of_shard(rank, sizes):
    start = sum(sizes[:rank])
    X = np.random.default_rng(0).random((sum(sizes), 20), dtype=np.float32)
    loss = Counting()
    transformer = AutoencoderTransformer(
        batch_size=64, max_epochs=3, random_state=0, loss=loss
    ).fit(X[start : start + sizes[rank]])
    codes = transformer.transform(X[:100])
    return {"rows": loss.n_rows / 3, "steps": transformer.n_steps_, "codes": codes.tobytes().hex()}


def shards():
    results = []
    for n_ranks, cases in (2, ([10_000, 7_333], [10_000, 50], [10_000, 0])), (3, ([5, 3, 0],)):
        of_ranks = on_ranks(n_ranks, fits_of_shards, cases)
        for sizes, *found in zip(cases, *of_ranks, strict=True):
            same = len({each["codes"] for each in found}) == 1
            rows = [each["rows"] for each in found]
            results.append({"sizes": sizes, "rows": rows, "same": same, "steps": found[0]["steps"]})
            print(f"Shards of {sizes}: rows an epoch {rows}, same model {same}")
    return results


def codes_of_ranks(rank, size, path, quick):
    X, X_test, y, y_test = pixels(path, quick)
    transformer = AutoencoderTransformer(batch_size=64 // size, random_state=0).fit(X[rank::size])
    return accuracy(transformer.transform, X, X_test, y, y_test) if rank == 0 else None


# Ray


def start_ray(object_store=500 * 2**20):
    import ray

    ray.init(
        num_cpus=2,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        log_to_driver=False,
        object_store_memory=object_store,
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    return ray


def write_parquet(folder, X, y, n_files):
    import pyarrow as pa
    from pyarrow import parquet

    width = X.shape[1]
    for i in range(n_files):
        rows = np.ascontiguousarray(X[i::n_files])
        table = pa.table(
            {
                "id": np.arange(len(X))[i::n_files],
                "label": y[i::n_files],
                "pixels": pa.FixedSizeListArray.from_arrays(rows.ravel(), width),
            }
        )
        parquet.write_table(table, folder / f"{i:04}.parquet")


def processes(title):
    """Ids of the processes of Ray whose title contains `title`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::") and title.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:  # it has ended
            continue
    return found


def memory(pid):
    """Bytes that a process holds: alone, with libraries, and with the object store."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    kinds = ("RssAnon", "RssFile", "RssShmem")
    return np.cumsum([1024 * int(fields[kind].split()[0]) for kind in kinds]).tolist()


class Watch(threading.Thread):
    """Record the memory of the processes of Ray every half second; kill some on time."""

    def __init__(self, title="", kill_at=()):
        super().__init__(daemon=True)
        self.title, self.kill_at, self.killed = title, list(kill_at), []
        self.most, self.store = {}, 0
        self.over = threading.Event()

    def run(self):
        seen = None
        while not self.over.wait(0.5):
            alive = processes(self.title) if self.kill_at else []
            seen = seen or (time.monotonic() if alive else None)
            if alive and time.monotonic() - seen > self.kill_at[0]:
                os.kill(alive[0], signal.SIGKILL)
                self.killed.append(alive[0])
                self.kill_at.pop(0)
                seen = None
            for pid in processes(""):
                try:
                    title = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
                    held = memory(pid)
                except (OSError, KeyError):
                    continue
                before = self.most.get(title, [0, 0, 0])
                self.most[title] = [max(pair) for pair in zip(before, held, strict=True)]
            self.store = max(self.store, stored())

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()


def stored():
    """Bytes of the memory of Ray's object store that are in use."""
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            if path.read_text().strip() == "raylet":
                opened = [
                    fd for fd in (path.parent / "fd").iterdir() if "plasma" in str(fd.readlink())
                ]
                return sum(512 * fd.stat().st_blocks for fd in opened)
        except OSError:  # it has ended
            continue
    return 0


def on_ray(ray, folder, test, y_test, **watch):
    """Accuracy of codes that were learned and computed on Ray."""
    dataset = ray.data.read_parquet(folder)
    start = time.perf_counter()
    with Watch(**watch) as watched:
        fitted = fit_on_ray(
            AutoencoderTransformer(batch_size=32, random_state=0),
            dataset,
            feature_columns="pixels",
            num_workers=2,
        )
    seconds = time.perf_counter() - start
    codes = transform_on_ray(
        fitted, dataset, feature_columns="pixels", keep_columns=["id", "label"]
    ).to_pandas()
    neighbors = KNeighborsClassifier(15).fit(codes[CODES].to_numpy(), codes["label"])
    return {
        "knn": round(float(neighbors.score(fitted.transform(test), y_test)), 4),
        "seconds": round(seconds, 1),
        "epochs": fitted.n_iter_,
        "killed": len(watched.killed),
        "ids": bool(np.array_equal(np.sort(codes["id"]), np.arange(dataset.count()))),
    }


def knn(path, quick):
    X, X_test, y, y_test = pixels(path, quick)
    local = AutoencoderTransformer(random_state=0).fit(X)
    results = {
        "local": accuracy(local.transform, X, X_test, y, y_test),
        "2 ranks": on_ranks(2, codes_of_ranks, path, quick)[0],
    }
    ray = start_ray()
    with tempfile.TemporaryDirectory() as folder:
        write_parquet(Path(folder), X, y, 16)
        results["Ray"] = on_ray(ray, folder, X_test, y_test)
    ray.shutdown()
    print(f"KNN(15): {results}")
    return results


def kill(path, quick, seconds):
    """Kill two workers during a fit, and two actors while they encode more rows."""
    X, X_test, y, y_test = pixels(path, quick)
    ray = start_ray()
    with tempfile.TemporaryDirectory() as folder:
        write_parquet(Path(folder), X, y, 16)
        results = {
            "fit": on_ray(
                ray, folder, X_test, y_test, title="RayTrainWorker", kill_at=[seconds] * 2
            )
        }
        print(f"Killed in the fit: {results['fit']}", flush=True)
        fitted = AutoencoderTransformer(max_epochs=1, random_state=0).fit(X[:5_000])
    with tempfile.TemporaryDirectory() as folder:
        n_times = 1 if quick else 8
        X, y = np.tile(X, (n_times, 1)), np.tile(y, n_times)
        write_parquet(Path(folder), X, y, 32)
        dataset = ray.data.read_parquet(folder)
        with Watch("_Encoder)).submit", [1, 1]) as watched:
            codes = transform_on_ray(
                fitted, dataset, feature_columns="pixels", keep_columns=["id"], batch_size=500
            ).to_pandas()
        results["transform"] = {
            "killed": len(watched.killed),
            "rows": len(codes),
            "ids": bool(np.array_equal(np.sort(codes["id"]), np.arange(len(X)))),
        }
    ray.shutdown()
    print(f"Killed in transform_on_ray: {results['transform']}")
    return results


def stream(folder, gigabytes):
    """One epoch on a Parquet set, and its codes, with the peak memory of the processes."""
    import pyarrow as pa
    from pyarrow import parquet

    n_rows, n_files = int(gigabytes * 1e9 / (4 * 784)), 100
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    patterns = rng.random((10, 784), dtype=np.float32)
    for i in range(n_files):
        if not (folder / f"{i:04}.parquet").exists():
            rows = rng.random((n_rows // n_files, 784), dtype=np.float32)
            rows *= patterns[rng.integers(10, size=len(rows))]
            table = pa.table({f"x{j}": np.ascontiguousarray(rows[:, j]) for j in range(784)})
            parquet.write_table(table, folder / f"{i:04}.parquet")
    limit = 500 * 2**20
    ray = start_ray(limit)
    dataset = ray.data.read_parquet(str(folder))
    results = {}
    start = time.perf_counter()
    with Watch() as watched:
        estimator = AutoencoderTransformer(batch_size=512, max_epochs=1, random_state=0)
        fitted = fit_on_ray(estimator, dataset)
    results["fit"] = {"seconds": time.perf_counter() - start, "memory": watched.most}
    store = watched.store
    start = time.perf_counter()
    with Watch() as watched, tempfile.TemporaryDirectory() as codes:
        transform_on_ray(fitted, dataset, keep_columns=[]).write_parquet(codes)
        n_codes = sum(parquet.read_metadata(path).num_rows for path in Path(codes).iterdir())
    results["transform"] = {"seconds": time.perf_counter() - start, "memory": watched.most}
    results |= {"rows": n_rows // n_files * n_files, "codes": n_codes}
    results |= {"store": max(store, watched.store), "limit": limit}
    ray.shutdown()
    for name in ("fit", "transform"):
        print(f"{name}: {results[name]['seconds']:.0f} s; memory, + libraries, + object store")
        for title, held in sorted(results[name]["memory"].items()):
            print(f"  {title[:50]:50}" + "".join(f"{each / 1e6:9,.0f} MB" for each in held))
    used = results["store"]
    print(
        f"{n_codes:,} codes of {results['rows']:,} rows; object store {used / 1e6:,.0f} MB of "
        f"{limit / 1e6:,.0f} MB"
    )
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--data", help="an .npz with X_train, y_train, X_test and y_test")
    parser.add_argument("--quick", action="store_true", help="little data, to see that it runs")
    parser.add_argument("--kill-after", type=float, default=20, help="seconds into the fit")
    parser.add_argument("--folder", help="where the streamed set lies, or is to be written")
    parser.add_argument("--gigabytes", type=float, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results = {}
    for part in args.parts:
        print(f"-- {part}", flush=True)
        if part == "throughput":
            results[part] = throughput(args.quick)
        elif part == "shards":
            results[part] = shards()
        elif part == "knn":
            results[part] = knn(args.data, args.quick)
        elif part == "kill":
            results[part] = kill(args.data, args.quick, args.kill_after)
        else:
            with tempfile.TemporaryDirectory() as folder:
                gigabytes = 0.1 if args.quick else args.gigabytes
                results[part] = stream(args.folder or folder, gigabytes)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
