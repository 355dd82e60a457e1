"""What unlabelled data is worth: a classifier that knows five labelled rows of each class.

The codes are learned from all training rows without their labels; then KNN and SVC are trained on
the codes of five labelled rows of each class. Beside them the same classifiers on the columns
themselves and on as many principal components. Medians over draws of the labelled rows.

    python examples/few_labels.py [--data FILE.npz] [--per-class 5]

Without `--data` (X_train, y_train, X_test, y_test) scikit-learn's bundled digits are used.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

from aefeatures import AutoencoderTransformer


def load(path):
    if path is None:
        digits = load_digits()
        return train_test_split(digits.data, digits.target, random_state=0)
    with np.load(path) as data:
        X, X_test = (data[name].reshape(len(data[name]), -1) for name in ("X_train", "X_test"))
        return X, X_test, data["y_train"], data["y_test"]


def draw(y, per_class, seed):
    """Positions of `per_class` rows of each class."""
    rng = np.random.default_rng(seed)
    rows = [np.flatnonzero(y == label) for label in np.unique(y)]
    return np.concatenate([rng.choice(r, per_class, replace=False) for r in rows])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--per-class", type=int, default=5)
    parser.add_argument("--draws", type=int, default=10)
    args = parser.parse_args()
    X, X_test, y, y_test = load(args.data)

    # Pixels have one unit.
    transformer = AutoencoderTransformer.from_preset("neighbors", scaling="global", random_state=0)
    start = time.perf_counter()
    transformer.fit(X)  # no labels
    seconds = time.perf_counter() - start
    pca = PCA(3, random_state=0).fit(X)
    features = {
        f"{X.shape[1]} columns": (X, X_test),
        "PCA, 3 components": (pca.transform(X), pca.transform(X_test)),
        "aefeatures, 3 codes": (transformer.transform(X), transformer.transform(X_test)),
    }
    n_labels = args.per_class * len(np.unique(y))
    print(
        f"{len(X):,} rows without labels ({seconds:.1f} s), {n_labels} with, "
        f"{len(X_test):,} to test"
    )
    print(f"{'':<24}{'KNN(5)':>10}{'SVC':>10}")
    for name, (Z, Z_test) in features.items():
        scores = []
        for seed in range(args.draws):
            rows = draw(y, args.per_class, seed)
            scores.append(
                [
                    classifier.fit(Z[rows], y[rows]).score(Z_test, y_test)
                    for classifier in (KNeighborsClassifier(5), SVC())
                ]
            )
        knn, svc = np.median(scores, axis=0)
        print(f"{name:<24}{knn:>10.3f}{svc:>10.3f}")


if __name__ == "__main__":
    main()
