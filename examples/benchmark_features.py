"""What three codes are worth to a classifier, on real data and over seeds.

Image sets: `AutoencoderTransformer()` on all training images, KNN(15) on the codes of the
test images, and the mean squared error of their pixels in [0, 1]. Tables: raw columns, a
held-out quarter, KNN(5), beside PCA(3) on the raw and on standardised columns. Medians over
seeds, with the lowest and highest.

    python examples/benchmark_features.py --data FOLDER [--quick] [--json FILE]

FOLDER holds `mnist.npz`, `fashion_mnist.npz` (X_train, y_train, X_test, y_test), `segment.npz`
and `spambase.npz` (X, y); sets that are not there are left out. Without it the tables that
scikit-learn bundles are measured.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from aefeatures import AutoencoderTransformer


def summary(values):
    return f"{np.median(values):.4f} ({min(values):.4f} to {max(values):.4f})"


def measure_images(path, n_seeds):
    with np.load(path) as data:
        X, X_test = (data[name].reshape(len(data[name]), -1) for name in ("X_train", "X_test"))
        y, y_test = data["y_train"], data["y_test"]
    results = {"KNN(15)": [], "test MSE": [], "fit seconds": []}
    for seed in range(n_seeds):
        transformer = AutoencoderTransformer(random_state=seed)
        start = time.perf_counter()
        codes = transformer.fit(X).transform(X)
        results["fit seconds"].append(time.perf_counter() - start)
        knn = KNeighborsClassifier(15).fit(codes, y)
        results["KNN(15)"].append(knn.score(transformer.transform(X_test), y_test))
        error = (X_test - transformer.reconstruct(X_test)) / 255
        results["test MSE"].append(float((error**2).mean()))
    return results


def measure_table(X, y, n_seeds):
    results = {"AutoencoderTransformer": [], "PCA raw": [], "PCA standardised": []}
    features = {
        "AutoencoderTransformer": lambda seed: AutoencoderTransformer(random_state=seed),
        "PCA raw": lambda seed: PCA(3, random_state=seed),
        "PCA standardised": lambda seed: make_pipeline(StandardScaler(), PCA(3, random_state=seed)),
    }
    for seed in range(n_seeds):
        X_train, X_test, y_train, y_test = train_test_split(
            X, y, test_size=0.25, random_state=seed, stratify=y
        )
        for name, make in features.items():
            pipeline = make_pipeline(make(seed), KNeighborsClassifier(5))
            results[name].append(pipeline.fit(X_train, y_train).score(X_test, y_test))
    return results


def tables(folder):
    digits, digits_y = load_digits(return_X_y=True)
    yield "digits", digits, digits_y
    yield "digits, uint8", digits.astype(np.uint8), digits_y
    yield "digits, 12 bits in uint16", np.rint(digits * 4095 / 16).astype(np.uint16), digits_y
    yield "wine", *load_wine(return_X_y=True)
    yield "breast cancer", *load_breast_cancer(return_X_y=True)
    for name in ("segment", "spambase"):
        if folder and (folder / f"{name}.npz").exists():
            with np.load(folder / f"{name}.npz") as data:
                yield name, data["X"], data["y"]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--quick", action="store_true", help="one seed on images, two on tables")
    parser.add_argument("--json", type=Path, help="where to write every single figure")
    args = parser.parse_args()

    results = {}
    for name, X, y in tables(args.data):
        results[name] = measure_table(X, y, 2 if args.quick else 10)
        print(f"{name}: KNN(5) on a held-out quarter of {len(X)} rows", flush=True)
        for contestant, values in results[name].items():
            print(f"    {contestant:<24}{summary(values)}", flush=True)
    for name in ("mnist", "fashion_mnist"):
        if args.data and (args.data / f"{name}.npz").exists():
            results[name] = measure_images(args.data / f"{name}.npz", 1 if args.quick else 5)
            print(f"{name}: 3 codes by default")
            for quantity, values in results[name].items():
                print(f"    {quantity:<24}{summary(values)}", flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
