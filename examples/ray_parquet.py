"""From a folder of Parquet files to codes in Parquet files, with workers of Ray.

    python examples/ray_parquet.py [--data mnist.npz] [--address auto] [--folder FOLDER]

Without --address, a cluster of two workers is started on this machine, and no other machine can
reach it. With --address, all machines of the cluster have to see FOLDER. Without --data, the digits
of scikit-learn are used.
"""

import argparse
import os
import tempfile
from pathlib import Path

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import numpy as np
import pandas as pd
import ray
import ray.data
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from aefeatures import AutoencoderTransformer, fit_on_ray, transform_on_ray


def load(path):
    """Rows in random order, because a stream is only shuffled in parts."""
    if path is None:
        X, y = load_digits(return_X_y=True)
    else:
        with np.load(path) as data:
            X, y = data["X_train"], data["y_train"]
            X = X.reshape(len(X), -1)
    order = np.random.default_rng(0).permutation(len(X))
    return X[order].astype(np.uint8), y[order]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="an .npz with X_train and y_train")
    parser.add_argument("--address", help="of a Ray cluster; 'auto' finds the one that runs here")
    parser.add_argument("--folder", type=Path, help="where files are written; else removed after")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", default="auto", help="passes over the rows")
    args = parser.parse_args()
    if args.folder and any((args.folder / name).exists() for name in ("rows", "codes")):
        parser.error(f"--folder: {args.folder} has rows or codes of another run")
    if args.address:
        ray.init(args.address)
    else:
        ray.init(num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1")
    with tempfile.TemporaryDirectory() as temporary:
        run(args, args.folder or Path(temporary))
    ray.shutdown()


def run(args, folder):
    X, y = load(args.data)
    pixels = [f"pixel{i}" for i in range(X.shape[1])]
    rows, codes = folder / "rows", folder / "codes"
    rows.mkdir(parents=True)
    table = pd.DataFrame(X, columns=pixels).assign(label=y)
    for i, part in enumerate(np.array_split(np.arange(len(X)), 20)):
        table.iloc[part].to_parquet(rows / f"{i:02}.parquet")

    dataset = ray.data.read_parquet(str(rows), shuffle="files")
    transformer = AutoencoderTransformer(
        batch_size=64 // args.workers,
        max_epochs=args.epochs if args.epochs == "auto" else int(args.epochs),
        random_state=0,
    )
    transformer = fit_on_ray(transformer, dataset, feature_columns=pixels, num_workers=args.workers)
    transform_on_ray(
        transformer, dataset, num_workers=args.workers, keep_columns=["label"]
    ).write_parquet(str(codes))

    table = pd.read_parquet(codes)
    Z = table[list(transformer.get_feature_names_out())].to_numpy()
    train, test = np.arange(len(Z)) % 5 > 0, np.arange(len(Z)) % 5 == 0
    neighbors = KNeighborsClassifier(15).fit(Z[train], table["label"][train])
    print(f"{len(Z):,} rows of {X.shape[1]} columns, {transformer.n_iter_} epochs")
    print(f"KNN(15) on the codes: {neighbors.score(Z[test], table['label'][test]):.3f}")


if __name__ == "__main__":
    main()
