"""Filling in missing values of new rows: `AutoencoderImputer` beside scikit-learn's imputers.

A fifth of all entries is removed at random. The imputers are fitted on one half of the rows, with
gaps, and fill in the other half. Prints two figures for the removed entries of the other half, as
medians over seeds with the lowest and highest: the root mean squared error of numbers, in units of
their standard deviation, and the share of right levels of categories. Also prints the seconds of
`fit` and of `transform`. Other imputers than ours get standardised numbers, and a column of 0 and 1
for each level.

    python examples/benchmark_imputation.py --data FOLDER [--sets vehicle adult] [--seeds 3]
        [--contestants KNNImputer] [--quick] [--json FILE]

FOLDER holds `segment.npz`, `satimage.npz`, `adult.npz`, `tables/*.npz` and `tables/mixed/*.csv`.
Without it, sets that scikit-learn bundles are measured. With `--json`, the file is written after
every figure.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

from aefeatures import AutoencoderImputer

SETS = ("vehicle", "glass", "segment", "adult", "texture", "vowel", "satimage", "credit_g")
MOST_ROWS = 5_000


def missforest(seed):
    trees = ExtraTreesRegressor(20, max_features="sqrt", random_state=seed)
    return IterativeImputer(trees, max_iter=5, random_state=seed, keep_empty_features=True)


def autoencoder(seed):
    return AutoencoderImputer(random_state=seed).set_output(transform="pandas")


CONTESTANTS = {
    "AutoencoderImputer": autoencoder,
    "mean or mode": lambda _: SimpleImputer(keep_empty_features=True),
    "KNNImputer": lambda _: KNNImputer(keep_empty_features=True),
    "IterativeImputer": lambda seed: IterativeImputer(random_state=seed, keep_empty_features=True),
    "MissForest recipe": missforest,
}


def load(name, folder):
    """Return a frame whose columns of text are categories."""
    if folder is None:
        return {"wine": load_wine, "breast cancer": load_breast_cancer}[name](as_frame=True).data
    if name == "adult":
        with np.load(folder / "adult.npz") as data:
            frame = pd.DataFrame(data["X_train"], columns=[str(name) for name in data["cols"]])
            levels = json.loads(str(data["categories"]))
        for column, names in levels.items():
            texts = np.array(names, dtype=object)[frame[column].to_numpy()]
            frame[column] = np.where(texts == "?", None, texts)
    elif (folder / "tables" / "mixed" / f"{name}.csv").exists():
        frame = pd.read_csv(folder / "tables" / "mixed" / f"{name}.csv").drop(columns="target")
    else:
        path = folder / f"{name}.npz"
        with np.load(path if path.exists() else folder / "tables" / f"{name}.npz") as data:
            frame = pd.DataFrame(np.float64(data["X" if "X" in data else "X_train"]))
            frame.columns = frame.columns.astype(str)
    order = np.random.default_rng(0).permutation(len(frame))[:MOST_ROWS]
    return frame.iloc[order].reset_index(drop=True)


class Encoded:
    """An imputer of numbers, as one of tables: levels become columns of 0 and 1, and back."""

    def __init__(self, imputer):
        self.imputer = imputer

    def fit(self, X):
        self.levels = {
            name: np.unique(X[name].dropna().to_numpy(object)) for name in X if is_category(X[name])
        }
        numbers = X.drop(columns=[*self.levels])
        self.mean, self.deviation = numbers.mean(), numbers.std(ddof=0).replace(0, 1)
        self.imputer.fit(self._encode(X))
        return self

    def transform(self, X):
        filled = self.imputer.transform(self._encode(X))
        numbers = filled[:, : len(self.mean)] * self.deviation.to_numpy() + self.mean.to_numpy()
        result = pd.DataFrame(numbers, columns=self.mean.index)
        start = len(self.mean)
        for name, levels in self.levels.items():
            scores = filled[:, start : start + len(levels)]
            result[name] = levels[scores.argmax(axis=1)]
            start += len(levels)
        return result[[*X]]

    def _encode(self, X):
        numbers = (X[self.mean.index] - self.mean) / self.deviation
        parts = [numbers.to_numpy(np.float64)]
        for name, levels in self.levels.items():
            values = X[name].to_numpy(object)[:, None]
            known = pd.notna(values)
            parts.append(np.where(known, values == levels[None], np.nan).astype(np.float64))
        return np.hstack(parts)


def is_category(column):
    return not pd.api.types.is_numeric_dtype(column)


def errors(truth, filled, scored, deviation):
    """Return the error of numbers and the share of right levels at the scored entries."""
    squares, right = [], []
    for j, name in enumerate(truth):
        rows = scored[:, j]
        expected, found = (frame[name].to_numpy()[rows] for frame in (truth, filled))
        if is_category(truth[name]):
            right.append(expected == found)
        else:
            squares.append(((np.float64(found) - expected) / deviation[name]) ** 2)
    rmse = float(np.sqrt(np.concatenate(squares).mean())) if squares else None
    return rmse, float(np.concatenate(right).mean()) if right else None


def measure(X, make, seed, *, takes_tables):
    """Return the two figures, and the seconds of `fit` and of `transform`."""
    rng = np.random.default_rng(seed)
    X = X.iloc[rng.permutation(len(X))].reset_index(drop=True)
    hidden = rng.random(X.shape) < 0.2
    integers = {name: float for name in X if pd.api.types.is_integer_dtype(X[name])}
    gaps = X.astype(integers).mask(hidden)
    half = len(X) // 2
    train, test = gaps[:half], gaps[half:].reset_index(drop=True)
    truth = X[half:].reset_index(drop=True)
    imputer = make(seed)
    if not takes_tables:
        imputer = Encoded(imputer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        start = time.perf_counter()
        imputer.fit(train)
        middle = time.perf_counter()
        filled = imputer.transform(test)
        end = time.perf_counter()
    numbers = X[:half].select_dtypes("number")
    deviation = numbers.std(ddof=0).replace(0, 1)
    scored = hidden[half:] & truth.notna().to_numpy()
    return (*errors(truth, filled, scored, deviation), middle - start, end - middle)


def shown(values):
    if None in values:
        return f"{'':<25}"
    return f"{np.median(values):7.3f} ({min(values):.3f} to {max(values):.3f})"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--sets", nargs="+")
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=[*CONTESTANTS])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one seed, at most 500 rows")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results = {}
    for name in args.sets or (SETS if args.data else ("wine", "breast cancer")):
        X = load(name, args.data)
        if args.quick:
            X = X[:500]
        print(f"{name}, {X.shape[0]:,} x {X.shape[1]}: error, share of right levels, seconds of")
        print("    fit and transform", flush=True)
        results[name] = {}
        for contestant in args.contestants:
            make, takes_tables = CONTESTANTS[contestant], contestant == "AutoencoderImputer"
            seeds = range(1 if args.quick else args.seeds)
            runs = [measure(X, make, seed, takes_tables=takes_tables) for seed in seeds]
            figures = list(zip(*runs, strict=True))
            names = ("error", "right", "fit", "transform")
            results[name][contestant] = dict(zip(names, figures, strict=True))
            print(
                f"    {contestant:<20}{shown(figures[0])}  {shown(figures[1])}"
                f"{np.median(figures[2]):8.2f}{np.median(figures[3]):8.3f}",
                flush=True,
            )
            if args.json:
                args.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
