"""Samples of a table: AUC of classifiers that are trained on them and tested on real rows.

    python examples/benchmark_table_samples.py --data FOLDER [--rows 10000] [--json FILE]

Generators learn from rows of the census table "adult" and draw as many rows. Logistic regression
and boosted trees are trained on these and tested on the real test rows. Contestants are real rows,
a Gaussian copula, and CTGAN and TVAE of the package `ctgan` if it is installed (extra `bench`).
"distance" is the mean total variation of the categories' levels between samples and real rows.
"told apart" is the AUC of boosted trees that tell samples from real rows, of which 0.5 is best;
all generators fill in missing values, except those that are given them as the level "?". FOLDER
holds adult.npz with X_train, X_test, y_train, y_test, cols and categories. `--quick` runs a small
table of random numbers for a test of this script.
"""

import argparse
import importlib.util
import json
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import norm
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from aefeatures import AutoencoderGenerator


def adult(folder, part):
    """Return the columns of the table, with None for missing levels, and whether income is high."""
    with np.load(folder / "adult.npz", allow_pickle=True) as data:
        X = pd.DataFrame(data[f"X_{part}"], columns=[str(name) for name in data["cols"]])
        y, categories = data[f"y_{part}"].astype(int), json.loads(str(data["categories"]))
    for name, levels in categories.items():
        values = np.array(levels, dtype=object)[X[name].to_numpy()]
        X[name] = pd.Series(np.where(values == "?", None, values), dtype=object)
    return X, y


def small_table(n_rows, seed):
    rng = np.random.default_rng(seed)
    city, age = rng.choice(["Bern", "Oslo", "Rome"], n_rows), rng.integers(18, 80, n_rows)
    gain = np.where(rng.random(n_rows) < 0.9, 0, rng.integers(100, 200, n_rows))
    y = (age + 20 * (city == "Oslo") + rng.normal(scale=10, size=n_rows) > 60).astype(int)
    return pd.DataFrame({"city": city.astype(object), "age": age, "gain": gain}), y


def texts(X):
    return [name for name in X if not pd.api.types.is_numeric_dtype(X[name])]


def filled(X):
    """Return the table with "?" for missing levels, as other generators and classifiers need it."""
    X = X.copy()
    for name in texts(X):
        X[name] = X[name].astype(object).where(X[name].notna(), "?")
    return X


class Copula:
    """Ranks as normal numbers, their covariance, and quantiles; levels are ordered by frequency."""

    def fit(self, table):
        self.table = table.apply(self._numbers)
        uniform = (self.table.rank() - 0.5) / len(table)
        self.covariance = np.cov(norm.ppf(uniform), rowvar=False)
        self.levels = {name: table[name].value_counts().index.to_numpy() for name in texts(table)}
        return self

    def sample(self, n, rng):
        drawn = rng.multivariate_normal(np.zeros(len(self.covariance)), self.covariance, n)
        shares = norm.cdf(drawn / np.sqrt(np.diag(self.covariance)))
        columns = {}
        for name, share in zip(self.table, shares.T, strict=True):
            values = np.quantile(self.table[name], share, method="inverted_cdf")
            is_level = name in self.levels
            columns[name] = self.levels[name][values.astype(int)] if is_level else values
        return pd.DataFrame(columns)

    @staticmethod
    def _numbers(column):
        if pd.api.types.is_numeric_dtype(column):
            return column
        return column.map({level: i for i, level in enumerate(column.value_counts().index)})


def ours(X, y, seed):
    return AutoencoderGenerator(random_state=seed).fit(X, y).sample(len(X))


def ours_with_target(X, y, seed):
    table = AutoencoderGenerator(random_state=seed).fit(X.assign(target=y.astype(str)))
    return apart(table.sample(len(X)))


def copula(X, y, seed):
    table = filled(X).assign(target=y.astype(str))
    return apart(Copula().fit(table).sample(len(X), np.random.default_rng(seed)))


def of_ctgan(name, epochs):
    def generate(X, y, seed):
        import ctgan
        import torch

        table = filled(X).assign(target=y.astype(str))
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 (the package draws from the global generator)
        generator = getattr(ctgan, name)(epochs=epochs)
        generator.fit(table, texts(table))
        return apart(generator.sample(len(X)))

    return generate


def apart(table):
    y = table.pop("target").astype(int).to_numpy()
    return table, y


def classifiers(X):
    levels, numbers = texts(X), [name for name in X if name not in texts(X)]
    one_hot = OneHotEncoder(handle_unknown="ignore")
    ordinal = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan)
    yield (
        "logistic",
        make_pipeline(
            make_column_transformer((one_hot, levels), (StandardScaler(), numbers)),
            LogisticRegression(max_iter=500),
        ),
    )
    yield (
        "boosting",
        make_pipeline(
            make_column_transformer((ordinal, levels), remainder="passthrough"),
            HistGradientBoostingClassifier(random_state=0),
        ),
    )


def judged(X, X_new, y_new, X_test, y_test):
    """Yield names and values of the figures of some samples."""
    X, X_new, X_test = filled(X), filled(X_new), filled(X_test)
    for name, classifier in classifiers(X):
        predicted = classifier.fit(X_new, y_new).predict_proba(X_test)[:, 1]
        yield name, roc_auc_score(y_test, predicted)
    distances = [
        X[name]
        .value_counts(normalize=True)
        .sub(X_new[name].value_counts(normalize=True), fill_value=0)
        .abs()
        .sum()
        / 2
        for name in texts(X)
    ]
    yield "distance", np.mean(distances)
    both, is_new = pd.concat([X, X_new], ignore_index=True), np.repeat([0, 1], [len(X), len(X_new)])
    _, trees = classifiers(X)
    order = np.random.default_rng(0).permutation(len(both))
    predicted = cross_val_predict(
        trees[1], both.iloc[order], is_new[order], cv=3, method="predict_proba"
    )
    yield "told apart", roc_auc_score(is_new[order], predicted[:, 1])


def samples(args):
    """Print the figures of each contestant."""
    if args.quick:
        X_all, y_all = small_table(300, 0)
        X_test, y_test = small_table(200, 1)
    else:
        (X_all, y_all), (X_test, y_test) = (adult(args.data, part) for part in ("train", "test"))
    contestants = {
        "real rows": None,
        "AutoencoderGenerator, y as classes": ours,
        "AutoencoderGenerator, y as a column": ours_with_target,
        "Gaussian copula": copula,
    }
    if importlib.util.find_spec("ctgan") is not None and not args.quick:
        for name in ("TVAE", "CTGAN"):
            contestants[f"{name}, {args.epochs} epochs"] = of_ctgan(name, args.epochs)
    figures = {}
    for seed in range(args.seeds):
        rows = np.random.default_rng(seed).permutation(len(X_all))[: args.rows]
        X, y = X_all.iloc[rows].reset_index(drop=True), y_all[rows]
        for contestant, generate in contestants.items():
            start = time.perf_counter()
            X_new, y_new = (X, y) if generate is None else generate(X, y, seed)
            seconds = time.perf_counter() - start
            for name, value in (*judged(X, X_new, y_new, X_test, y_test), ("seconds", seconds)):
                figures.setdefault((contestant, name), []).append(value)
                print(f"{contestant:<40}{name:<12}{value:10.4f}", flush=True)
    print("\nMedians over seeds")
    for (contestant, name), runs in figures.items():
        print(f"{contestant:<40}{name:<12}{np.median(runs):10.4f}")
    if args.json:
        named = {f"{contestant}, {name}": runs for (contestant, name), runs in figures.items()}
        args.json.write_text(json.dumps(named, indent=1), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=300, help="of CTGAN and TVAE")
    parser.add_argument("--quick", action="store_true", help="a small table, one seed")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.quick:
        args.seeds = 1
    elif args.data is None:
        parser.error("give --data FOLDER, or --quick")
    warnings.filterwarnings("ignore", message="n_components")
    samples(args)


if __name__ == "__main__":
    main()
