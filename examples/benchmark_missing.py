"""Filling in missing values: `reconstruct` beside scikit-learn's imputers.

A fifth of all entries is removed at random. Prints the root mean squared error on the removed
entries of standardised columns, as medians over seeds with the lowest and highest. The mean of the
column reaches about 1.

    python examples/benchmark_missing.py --data FOLDER [--quick] [--json FILE]

FOLDER holds `segment.npz`, `spambase.npz` and `satimage.npz`. Without it the bundled digits and
breast cancer sets are measured.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.impute import KNNImputer, SimpleImputer

from aefeatures import AutoencoderTransformer


def autoencoder(X, seed):
    n_components = max(3, X.shape[1] // 4)
    transformer = AutoencoderTransformer(
        n_components, hidden_layer_sizes=(128, 64), random_state=seed
    )
    return transformer.fit(X).reconstruct(X)


CONTESTANTS = {
    "AutoencoderTransformer": autoencoder,
    "SimpleImputer (mean)": lambda X, _: SimpleImputer(keep_empty_features=True).fit_transform(X),
    "KNNImputer": lambda X, _: KNNImputer(keep_empty_features=True).fit_transform(X),
}


def datasets(folder):
    if folder is None:
        yield "digits", load_digits().data
        yield "breast cancer", load_breast_cancer().data
        return
    for name in ("segment", "spambase", "satimage"):
        with np.load(folder / f"{name}.npz") as data:
            yield name, np.asarray(data["X" if "X" in data else "X_train"], dtype=np.float64)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--quick", action="store_true", help="one seed")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results = {}
    for name, X in datasets(args.data):
        X = (X - X.mean(axis=0)) / np.where(X.std(axis=0) > 0, X.std(axis=0), 1)
        print(f"{name}, {X.shape[0]} x {X.shape[1]}, 20% of the entries removed", flush=True)
        results[name] = {}
        for contestant, impute in CONTESTANTS.items():
            errors, seconds = [], []
            for seed in range(1 if args.quick else 3):
                missing = np.random.default_rng(seed).random(X.shape) < 0.2
                start = time.perf_counter()
                filled = impute(np.where(missing, np.nan, X), seed)
                seconds.append(time.perf_counter() - start)
                errors.append(float(np.sqrt(((filled - X)[missing] ** 2).mean())))
            results[name][contestant] = {"error": errors, "seconds": seconds}
            print(
                f"    {contestant:<24}{np.median(errors):.3f} ({min(errors):.3f} to "
                f"{max(errors):.3f}), {np.median(seconds):.1f} s",
                flush=True,
            )
    if args.json:
        args.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
