"""Tables with text, categories and gaps: codes beside principal components of encoded columns.

Codes are learned from the columns of all training rows, without labels. Classifiers learn from the
codes of few labelled rows (200 of adult, a tenth of the others), and are measured on held-out rows:
the area under the ROC curve of KNN(15) and logistic regression, for diamonds R2 of KNN(15) and
ridge regression. The contestants are columns of skrub's TableVectorizer, with gaps filled by means,
as they are ("raw") or standardized, and their principal components. For adult the script also
prints how often each category is reconstructed rightly from 10 codes, and the time of a fit beside
that of a fit on the same rows encoded in front.

    python examples/benchmark_mixed.py --data FOLDER [--sets adult titanic] [--quick] [--json FILE]

FOLDER holds `adult.npz` and the folder `tables/mixed` of CSV files whose column `target` is
predicted. Needs pandas and skrub.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skrub import TableVectorizer

from aefeatures import AutoencoderTransformer

SETS = ("adult", "credit_g", "breast_cancer", "vote", "titanic", "diamonds")
N_CODES = 8


def adult(folder, part):
    """Return the census as a frame of words and numbers, with None for unknown values."""
    with np.load(folder / "adult.npz") as data:
        X, y = data[f"X_{part}"], data[f"y_{part}"].astype(int)
        names, categories = data["cols"], json.loads(str(data["categories"]))
    table = pd.DataFrame(X, columns=[str(name) for name in names])
    for name, words in categories.items():
        table[name] = np.array([None if word == "?" else word for word in words])[table[name]]
    return table, y


def load(folder, name):
    """Return training rows, test rows, and the targets of both."""
    if name == "adult":
        (X, y), (X_new, y_new) = adult(folder, "train"), adult(folder, "test")
        return X, X_new, y, y_new
    X = pd.read_csv(folder / "tables" / "mixed" / f"{name}.csv")
    y = X.pop("target").to_numpy()
    if name != "diamonds":
        y = (y == np.unique(y)[0]).astype(int)
    return train_test_split(X, y, test_size=1 / 3, random_state=0)


def encoded(X, X_new, *, standardized):
    steps = [TableVectorizer(), SimpleImputer(), *([StandardScaler()] if standardized else [])]
    vectorizer = make_pipeline(*steps)
    return np.asarray(vectorizer.fit_transform(X)), np.asarray(vectorizer.transform(X_new))


def by_pca(X, X_new, seed, *, standardized):
    rows, new_rows = encoded(X, X_new, standardized=standardized)
    pca = PCA(min(N_CODES, rows.shape[1]), random_state=seed).fit(rows)
    return pca.transform(rows), pca.transform(new_rows)


def by_codes(X, X_new, seed):
    transformer = AutoencoderTransformer(N_CODES, random_state=seed).fit(X)
    return transformer.transform(X), transformer.transform(X_new)


CONTESTANTS = {
    "8 codes": by_codes,
    "8 components, raw": lambda *args: by_pca(*args, standardized=False),
    "8 components, standardized": lambda *args: by_pca(*args, standardized=True),
    "all columns, standardized": lambda X, X_new, _: encoded(X, X_new, standardized=True),
}


def scores(Z, Z_new, y, y_new, draw, *, regression):
    n = 200 if len(y) > 20_000 else max(20, len(y) // 10)
    few = np.random.default_rng(draw).permutation(len(y))[:n]
    models = (
        (KNeighborsRegressor(15), Ridge())
        if regression
        else (KNeighborsClassifier(15), LogisticRegression(max_iter=1000))
    )
    for model in models:
        fitted = make_pipeline(StandardScaler(), model).fit(Z[few], y[few])
        if regression:
            yield float(r2_score(y_new, fitted.predict(Z_new)))
        else:
            yield float(roc_auc_score(y_new, fitted.predict_proba(Z_new)[:, 1]))


def print_codes(folder, name, n_seeds, n_draws):
    X, X_new, y, y_new = load(folder, name)
    print(f"{name}, {len(X)} + {len(X_new)} rows of {X.shape[1]} columns", flush=True)
    found = {}
    for contestant, learn in CONTESTANTS.items():
        figures = []
        for seed in range(n_seeds if "codes" in contestant else 1):
            Z, Z_new = learn(X, X_new, seed)
            regression = name == "diamonds"
            figures += [
                [*scores(Z, Z_new, y, y_new, draw, regression=regression)]
                for draw in range(n_draws)
            ]
        means, spread = np.mean(figures, axis=0), np.std(np.mean(figures, axis=1))
        found[contestant] = figures
        print(
            f"    {contestant:<28}KNN {means[0]:.3f}, linear {means[1]:.3f}, "
            f"mean {means.mean():.4f} (deviation of draws {spread:.3f})",
            flush=True,
        )
    return found


def print_reconstruction(folder):
    (X, _), (X_new, _) = adult(folder, "train"), adult(folder, "test")
    transformer = AutoencoderTransformer(10, random_state=0).fit(X)
    rebuilt = transformer.reconstruct(X_new)
    print("adult, held-out accuracy of categories from 10 codes (of the most frequent level)")
    found = {}
    for name in X.columns[transformer.is_categorical_]:
        known = X_new[name].notna()
        right = float((rebuilt[name] == X_new[name])[known].mean())
        most = float((X_new[name] == X[name].mode()[0])[known].mean())
        found[name] = right, most
        print(f"    {name:<16}{right:.3f} ({most:.3f})", flush=True)
    return found


def print_times(folder, n_pairs):
    X, _ = adult(folder, "train")
    rows, _ = encoded(X, X, standardized=True)
    rows = rows.astype(np.float32)
    seconds = {"as it is": [], "encoded in front": []}
    for seed in range(n_pairs):
        for what, given in (("as it is", X), ("encoded in front", rows)):
            start = time.perf_counter()
            AutoencoderTransformer(N_CODES, random_state=seed).fit(given)
            seconds[what].append(time.perf_counter() - start)
    ratios = np.divide(*seconds.values())
    print(
        f"adult, a fit as it is / encoded in front: {np.median(ratios):.2f} "
        f"({ratios.min():.2f} to {ratios.max():.2f})"
    )
    return seconds


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--quick", action="store_true", help="one seed, two draws, no times")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)
    n_seeds, n_draws = (1, 2) if args.quick else (3, 10)
    results = {name: print_codes(args.data, name, n_seeds, n_draws) for name in args.sets}
    if "adult" in args.sets and not args.quick:
        results["reconstruction"] = print_reconstruction(args.data)
        results["seconds"] = print_times(args.data, 5)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
