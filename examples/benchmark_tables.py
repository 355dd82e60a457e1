"""Accuracy of classifiers on a few codes of a table, with labels and without.

The figures for every table and contestant are on held-out rows, as medians of the seeds. They are
the accuracy of KNN(5), SVC and logistic regression on the codes, R2 of the reconstruction on
standardized columns, and seconds of a fit on one thread. "few" is the accuracy of KNN(5) with ten
labelled rows of each class (median of five draws), on codes learned from all rows. "gap" is the
accuracy of KNN(5) on rows that were trained on (each left out of its own neighbours), minus that on
new rows. The number of codes is 3 or, with "many", min(10, columns // 2).

    python examples/benchmark_tables.py --data FOLDER --part labels [--codes 3]
    python examples/benchmark_tables.py --data FOLDER --part "no labels" [--codes many]
    python examples/benchmark_tables.py --data FOLDER --part imbalance

FOLDER holds .npz files with X and y. All contestants get standardized columns. Classes of fewer
than 8 rows are dropped, 30% of the rows are held out, and at most `--rows` of the others are
learned from. Without `--data` the tables that scikit-learn bundles are measured. `--write FILE`
puts the table between the comments ``<!-- PART, CODES -->`` and ``<!-- end -->`` of a Markdown
file. UMAP is measured if it is installed.
"""

import argparse
import importlib.util
import json
import re
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier, NeighborhoodComponentsAnalysis
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from aefeatures import AutoencoderTransformer

BUNDLED = {"digits": load_digits, "wine": load_wine, "breast cancer": load_breast_cancer}


def umap(n, seed):
    from umap import UMAP

    return UMAP(n_components=n, random_state=seed, n_jobs=1)


def lda(n, _, n_classes):
    # LDA has one direction less than there are classes.
    return LinearDiscriminantAnalysis(n_components=min(n, n_classes - 1))


def preset(name, **params):
    return lambda n, seed, *_: AutoencoderTransformer.from_preset(
        name, n_components=n, random_state=seed, **params
    )


# Each function takes the number of codes, a seed and the number of classes.
PARTS = {
    "labels": {
        "all columns": None,
        "PCA": lambda n, seed, *_: PCA(n, random_state=seed),
        "LDA": lda,
        "NCA": lambda n, seed, *_: NeighborhoodComponentsAnalysis(n, random_state=seed),
        "UMAP with y": lambda n, seed, *_: umap(n, seed),
        'preset "classes"': preset("classes"),
        "MLPClassifier((256, 128, 64))": "MLP",
    },
    "no labels": {
        "all columns": None,
        "PCA": lambda n, seed, *_: PCA(n, random_state=seed),
        "UMAP": lambda n, seed, *_: umap(n, seed),
        "`AutoencoderTransformer()`": lambda n, seed, *_: AutoencoderTransformer(
            n, random_state=seed
        ),
        'preset "tabular"': preset("tabular"),
        'preset "classes", ten labels': "ten labels",
    },
    "imbalance": {
        "all columns": None,
        "LDA": lda,
        'preset "classes"': preset("classes"),
    },
}
TAKES_LABELS = ("LDA", "NCA", "UMAP with y", 'preset "classes"')
N_DRAWS = 5
SHOWN = ("KNN(5)", "SVC", "logistic", "few", "gap", "R2", "seconds")


def load(path, seed, max_rows):
    if isinstance(path, str):
        X, y = BUNDLED[path](return_X_y=True)
    else:
        with np.load(path) as data:
            X, y = data["X"].astype(float), data["y"].astype(int)
    kept = np.isin(y, np.flatnonzero(np.bincount(y) >= 8))
    X, y = X[kept], np.unique(y[kept], return_inverse=True)[1]
    X, X_new, y, y_new = train_test_split(X, y, test_size=0.3, stratify=y, random_state=seed)
    if len(X) > max_rows:
        X, _, y, _ = train_test_split(X, y, train_size=max_rows, stratify=y, random_state=seed)
    scaler = StandardScaler().fit(X)
    return scaler.transform(X), scaler.transform(X_new), y, y_new


def ten_of_each(y, seed):
    """Positions of ten rows of each class."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.permutation(np.flatnonzero(y == c))[:10] for c in np.unique(y)])


def gap(Z, y, score):
    graph = KNeighborsClassifier(6).fit(Z, y).kneighbors(Z, return_distance=False)
    votes = [np.bincount(y[row[row != i][:5]]).argmax() for i, row in enumerate(graph)]
    return float(np.mean(votes == y)) - score


def measure(name, make, n, seed, X, X_new, y, y_new, accuracy):
    classifiers = {
        "KNN(5)": KNeighborsClassifier(5),
        "SVC": SVC(),
        "logistic": make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
    }
    if make == "MLP":
        start = time.process_time()
        mlp = MLPClassifier((256, 128, 64), random_state=seed).fit(X, y)
        score = accuracy(y_new, mlp.predict(X_new))
        return {**dict.fromkeys(classifiers, score), "seconds": time.process_time() - start}
    figures, Z, Z_new, transformer = {}, X, X_new, None
    takes_labels, n_classes = name in TAKES_LABELS, len(np.unique(y))
    if make is not None:
        transformer = make(n, seed, n_classes)
        start = time.process_time()
        transformer.fit(X, y if takes_labels else None)
        figures["seconds"] = time.process_time() - start
        Z, Z_new = transformer.transform(X), transformer.transform(X_new)
        restore = getattr(transformer, "reconstruct", None)
        if restore is not None or name == "PCA":
            restored = restore(X_new) if restore else transformer.inverse_transform(Z_new)
            error = ((X_new - restored) ** 2).sum()
            figures["R2"] = 1 - error / ((X_new - X.mean(axis=0)) ** 2).sum()
    for kind, classifier in classifiers.items():
        figures[kind] = accuracy(y_new, classifier.fit(Z, y).predict(Z_new))
    if accuracy is accuracy_score:
        figures["gap"] = gap(Z, y, figures["KNN(5)"])
    if not takes_labels and accuracy is accuracy_score:
        few = (ten_of_each(y, draw) for draw in range(N_DRAWS))
        knn = KNeighborsClassifier(5)
        figures["few"] = np.median([knn.fit(Z[r], y[r]).score(Z_new, y_new) for r in few])
    return figures


def measure_few(n, seed, X, X_new, y, y_new):
    """Figures of the preset "classes" with ten labelled rows of each class among all."""
    scores = []
    for draw in range(N_DRAWS):
        rows = ten_of_each(y, draw)
        labels = np.full(len(y), None)
        labels[rows] = y[rows]
        transformer = preset("classes")(n, seed).fit(X, labels)
        knn = KNeighborsClassifier(5).fit(transformer.transform(X[rows]), y[rows])
        scores.append(knn.score(transformer.transform(X_new), y_new))
    return {"few": np.median(scores)}


def table(results, codes):
    """Means in Markdown, and on how many tables KNN(5) is as good as on all columns."""
    n_sets = len(results)
    names = next(iter(results.values())).keys()
    lines = [
        f"| {n_sets} tables, {codes} codes | " + " | ".join(SHOWN) + " | as good as all columns |",
        "|---" * (len(SHOWN) + 2) + "|",
    ]
    for name in names:
        cells = []
        for figure in SHOWN:
            values = [
                np.median([run[figure] for run in runs[name]])
                for runs in results.values()
                if all(figure in run for run in runs[name])
            ]
            digits = 2 if figure == "seconds" else 3
            cells.append(f"{np.mean(values):.{digits}f}" if values else "")
        level = ""
        if all("KNN(5)" in run for runs in results.values() for run in runs[name]):
            differences = [
                np.median([run["KNN(5)"] for run in runs[name]])
                - np.median([run["KNN(5)"] for run in runs["all columns"]])
                for runs in results.values()
            ]
            level = f"{sum(each >= -0.005 for each in differences)} of {n_sets}"
        lines.append(f"| {name} | " + " | ".join([*cells, level]) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--sets", nargs="+")
    parser.add_argument("--part", choices=PARTS, default="labels")
    parser.add_argument("--codes", choices=("3", "many"), default="3")
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=1_000)
    parser.add_argument("--json", type=Path, help="where to write every single figure")
    parser.add_argument("--write", type=Path, help="a Markdown file with the comments")
    parser.add_argument("--quick", action="store_true", help="one seed and no UMAP")
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # fits that do not converge, more codes than columns
    torch.set_num_threads(1)
    contestants = dict(PARTS[args.part])
    if args.quick:
        args.seeds = 1
    without_umap = args.quick or not importlib.util.find_spec("umap")
    for name in list(contestants):
        unwanted = args.only and name not in [*args.only, "all columns"]
        if unwanted or (without_umap and "UMAP" in name):
            del contestants[name]
    sets = {path.stem: path for path in sorted(args.data.glob("*.npz"))} if args.data else BUNDLED
    accuracy = balanced_accuracy_score if args.part == "imbalance" else accuracy_score
    results = {}
    for name in args.sets or sets:
        results[name] = {contestant: [] for contestant in contestants}
        for seed in range(args.seeds):
            parts = load(sets[name] if args.data else name, seed, args.rows)
            n_columns = parts[0].shape[1]
            n = min(10, n_columns // 2) if args.codes == "many" else min(3, n_columns)
            for contestant, make in contestants.items():
                if make == "ten labels":
                    figures = measure_few(n, seed, *parts)
                else:
                    figures = measure(contestant, make, n, seed, *parts, accuracy)
                results[name][contestant].append(figures)
        print(f"\n{table({name: results[name]}, n)}", flush=True)
        if args.json:
            args.json.write_text(json.dumps(results, indent=1, default=float), encoding="utf-8")
    codes = "3" if args.codes == "3" else "min(10, columns // 2)"
    means = table(results, codes)
    print(f"\nMeans\n\n{means}")
    if args.write:
        text = args.write.read_text(encoding="utf-8")
        place = re.compile(rf"(<!-- {args.part}, {args.codes} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not place.search(text):
            raise SystemExit(f"{args.write} has no comment <!-- {args.part}, {args.codes} -->")
        args.write.write_text(
            place.sub(lambda found: f"{found[1]}{means}\n{found[2]}", text), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
