"""Classifiers that know only a few labels of each class, on codes of unlabelled rows.

The codes are learned from all training rows without their labels. Images that are turned, shifted,
stretched or sheared a little count as neighbours. The classifiers are:

- KNN(1) and SVC on the codes of the labelled rows;
- `CodeSpreading` below, which spreads the labels over the codes of all rows.

For comparison, they also run on the columns themselves and on as many principal components. Prints
medians over draws of the labelled rows, and the lowest.

    python examples/few_labels.py [--data FILE.npz] [--per-class 1 4 10] [--codes 8] [--seed 0]

FILE holds X_train, y_train, X_test and y_test. Without it scikit-learn's bundled digits are used.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.metrics import pairwise_distances
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors, kneighbors_graph
from sklearn.svm import SVC

from aefeatures import AutoencoderTransformer, NeighborPreserving

NAMES = ["KNN(1)", "SVC", "CodeSpreading", "with equal sizes"]


class CodeSpreading(ClassifierMixin, BaseEstimator):
    """Spread labels along the graph of nearest codes (label spreading, Zhou et al. 2004).

    Use it as the last step of a pipeline, after an `AutoencoderTransformer`. In `fit`, -1 marks a
    row without a label. Unlike in scikit-learn's `LabelSpreading`, every row starts with a guess:
    the shares of the classes in its similarities to the labelled rows. The similarity is
    ``(1 + squared distance) ** -2``, as in the training of the codes. The guess decides for clumps
    that no label reaches along the graph.

    Parameters
    ----------
    n_neighbors : int, default=10
    alpha : float, default=0.999
        Share of a row that comes from its neighbours.
    guess : float, default=0.1
        Weight of the guess. A label has weight 1.
    equal_sizes : bool, default=False
        Whether the classes are known to be about equally large. If so, the votes are scaled until
        they are. This helps in draws in which a label lies at the edge of its class.
    """

    def __init__(self, n_neighbors=10, alpha=0.999, guess=0.1, equal_sizes=False):
        self.n_neighbors = n_neighbors
        self.alpha = alpha
        self.guess = guess
        self.equal_sizes = equal_sizes

    def fit(self, X, y, graph=None):
        """Learn from codes and labels; for many y, `graph_of(X, n_neighbors)` can be reused."""
        y = np.asarray(y)
        labelled = y != -1
        self.classes_, known = np.unique(y[labelled], return_inverse=True)
        labels = np.eye(len(self.classes_), dtype=np.float32)[known]
        start = pairwise_distances(X, X[labelled], metric="sqeuclidean")
        start = ((1 + start) ** -2 @ labels).astype(np.float32)
        start *= self.guess / start.sum(axis=1, keepdims=True)
        start[labelled] = labels
        graph = graph_of(X, self.n_neighbors) if graph is None else graph
        votes = start
        for _ in range(300):
            votes = self.alpha * (graph @ votes) + (1 - self.alpha) * start
        votes /= votes.sum(axis=1, keepdims=True)
        if self.equal_sizes:
            weights = np.ones(len(self.classes_), dtype=np.float32)
            for _ in range(50):
                shares = votes * weights
                shares /= shares.sum(axis=1, keepdims=True)
                weights /= shares.mean(axis=0) * len(weights)
            votes = votes * weights
        self.transduction_ = self.classes_[votes.argmax(axis=1)]
        self.search_ = NearestNeighbors(n_neighbors=15).fit(X)
        return self

    def predict(self, X):
        return self.vote(self.search_.kneighbors(X, return_distance=False))

    def vote(self, nearest):
        """Return the most frequent class of each row's nearest training rows."""
        votes = self.transduction_[nearest]
        counts = [(votes == label).sum(axis=1) for label in self.classes_]
        return self.classes_[np.argmax(counts, axis=0)]


def graph_of(X, n_neighbors):
    """Weights of nearest rows; they fall with the distance relative to the farthest row."""
    graph = kneighbors_graph(X, n_neighbors, mode="distance")
    squares = graph.data.reshape(len(X), -1) ** 2
    farthest = np.maximum(squares.max(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    graph.data = np.exp(-4 * squares / farthest).ravel().astype(np.float32)
    graph = graph.maximum(graph.T)
    scale = sparse.diags(np.float32(np.asarray(graph.sum(axis=1)).ravel() ** -0.5))
    return (scale @ graph @ scale).tocsr()


def load(path):
    if path is None:
        digits = load_digits()
        return train_test_split(digits.data, digits.target, random_state=0)
    with np.load(path) as data:
        X, X_test = (data[name].reshape(len(data[name]), -1) for name in ("X_train", "X_test"))
        return X, X_test, data["y_train"], data["y_test"]


def draw(y, per_class, seed):
    """Return y with `per_class` labels of each class, and -1 for rows without a label."""
    rng = np.random.default_rng(seed)
    rows = [np.flatnonzero(y == label) for label in np.unique(y)]
    rows = np.concatenate([rng.choice(r, per_class, replace=False) for r in rows])
    partly = np.full(len(y), -1)
    partly[rows] = y[rows]
    return partly


def learn(X, n_components, seed):
    """A transformer of images, fitted without labels."""
    return AutoencoderTransformer.from_preset(
        "neighbors",
        n_components=n_components,
        scaling="global",  # pixels have one unit
        regularizer=NeighborPreserving(transform="affine"),
        random_state=seed,
    ).fit(X)


def scores(Z, Z_test, y, y_test, per_class, n_draws):
    """Accuracies on test rows, of shape (n_draws, 4)."""
    found = []
    graph = graph_of(Z, 10)
    nearest = NearestNeighbors(n_neighbors=15).fit(Z).kneighbors(Z_test, return_distance=False)
    for seed in range(n_draws):
        partly = draw(y, per_class, seed)
        rows = partly != -1
        classifiers = [KNeighborsClassifier(1), SVC()]
        fitted = [classifier.fit(Z[rows], y[rows]) for classifier in classifiers]
        found.append([classifier.score(Z_test, y_test) for classifier in fitted])
        for equal_sizes in (False, True):
            spreading = CodeSpreading(equal_sizes=equal_sizes).fit(Z, partly, graph)
            found[-1].append(float(np.mean(spreading.vote(nearest) == y_test)))
    return np.array(found)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--per-class", type=int, nargs="+", default=[1, 4, 10])
    parser.add_argument("--codes", type=int, default=8)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    X, X_test, y, y_test = load(args.data)

    start = time.perf_counter()
    transformer = learn(X, args.codes, args.seed)
    seconds = time.perf_counter() - start
    features = {f"aefeatures, {args.codes} codes": transformer}
    if args.data is None:  # graphs of many columns take long
        features[f"PCA, {args.codes} components"] = PCA(args.codes, random_state=0).fit(X)
        features[f"{X.shape[1]} columns"] = None
    print(f"{len(X):,} rows without labels ({seconds:.1f} s), {len(X_test):,} to test")
    print(f"{'':<24}{'labels':>8}" + "".join(f"{name:>20}" for name in NAMES))
    for name, model in features.items():
        Z, Z_test = (rows if model is None else model.transform(rows) for rows in (X, X_test))
        for per_class in args.per_class:
            found = scores(Z, Z_test, y, y_test, per_class, args.draws)
            cells = [f"{np.median(column):.4f} ({min(column):.3f})" for column in found.T]
            n_labels = per_class * len(np.unique(y))
            print(f"{name:<24}{n_labels:>8}" + "".join(f"{cell:>20}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
