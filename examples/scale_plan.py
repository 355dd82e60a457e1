"""Estimated time of an epoch on many machines, from a model of one step.

    python examples/scale_plan.py [--measured FILE]

FILE is written by `benchmark_distributed.py --parts throughput --json FILE`. A step of W workers
with b rows each takes b / r + 2 (W - 1) (a + S / (W B)) seconds. The first term is the time for the
rows at the rate r of one worker. The second is the time of a ring, in which each worker sends
2 (W - 1) messages of S / W bytes. S is the size of the gradient, B the bandwidth and a the latency
of a message. The two do not overlap.
"""

import argparse
import json
from pathlib import Path

ROWS = 10**9
COLUMNS = 784
WORKERS = (8, 64, 512)
BATCHES = (64, 512, 2048, 16384)

# These numbers are assumed, not measured. They are common in a data centre. For a GPU, a step takes
# at least a millisecond with a network as small as this, and the rows arrive at this speed.
LATENCY = 50e-6
NETWORKS = {"1 Gbit/s": 1.25e8, "10 Gbit/s": 1.25e9, "100 Gbit/s": 1.25e10}
GPU_STEP = 1e-3
READ = 1e9  # bytes per second that reach a worker


def step_seconds(compute, n_workers, n_bytes, bandwidth, latency):
    """Seconds of one step."""
    return compute + 2 * (n_workers - 1) * (latency + n_bytes / n_workers / bandwidth)


def check(measured):
    """Print measured rates of two ranks beside the model, which uses two that train apart."""
    n_bytes, seconds = measured["bytes"], measured["reduction"]
    # Between two processes of a machine, one number stands for latency and bandwidth.
    bandwidth = n_bytes / seconds
    print(f"2 ranks on this machine, a reduction adds {1e3 * seconds:.2f} ms:")
    for batch in (2048, 512, 64):
        one, two, apart = (measured[str(batch)][name] for name in ("one", "two", "apart"))
        modelled = 2 * batch / step_seconds(2 * batch / apart, 2, n_bytes, bandwidth, 0)
        print(
            f"  {batch:5} rows a rank: 1 rank {one:9,.0f} rows/s, 2 apart {apart:9,.0f}; 2 ranks "
            f"{two:9,.0f} measured, {modelled:9,.0f} modelled, {modelled / two:.2f} of it"
        )


def duration(seconds):
    """A time in a suitable unit."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def plan(measured):
    """Print the bandwidth that pays off, and the time of an epoch."""
    n_bytes = measured["bytes"]
    cpu = {int(batch): int(batch) / measured[batch]["one"] for batch in ("64", "512", "2048")}
    cpu[16384] = 8 * cpu[2048]
    gpu = {batch: max(GPU_STEP, batch * 4 * COLUMNS / READ) for batch in BATCHES}
    print(
        f"\nGradient of a step: {n_bytes:,} bytes. Bandwidth below which a worker among many does"
    )
    print(
        "less than half of what it does alone, and the number of them at which latency does that:"
    )
    for name, steps in (("CPU", cpu), ("GPU", gpu)):
        for batch in BATCHES:
            bandwidth, most = 2 * n_bytes / steps[batch], 1 + steps[batch] / (2 * LATENCY)
            print(f"  {name}, {batch:6} rows a worker: {8e-9 * bandwidth:6.2f} Gbit/s, {most:,.0f}")
    print(f"\nAn epoch of {ROWS:,} rows, by workers and network:")
    print("               rows a worker " + "".join(f"{name:>12}" for name in NETWORKS))
    for name, steps in (("CPU", cpu), ("GPU", gpu)):
        for n_workers in WORKERS:
            for batch in BATCHES:
                n_steps = ROWS / (n_workers * batch)
                times = [
                    n_steps * step_seconds(steps[batch], n_workers, n_bytes, bandwidth, LATENCY)
                    for bandwidth in NETWORKS.values()
                ]
                row = "".join(f"{duration(each):>12}" for each in times)
                print(f"  {n_workers:4} {name}s {batch:15,}    {row}   {n_steps:12,.0f} steps")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--measured", type=Path, required=True)
    measured = json.loads(parser.parse_args().measured.read_text())["throughput"]
    check(measured)
    plan(measured)


if __name__ == "__main__":
    main()
