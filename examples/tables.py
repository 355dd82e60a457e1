"""Codes for a classifier from a table with text, categories, a date and missing values.

    python examples/tables.py --data adult.npz [--labelled 200] [--rows 10000]

The table is the census of UCI's "adult" (categories, missing values), with an invented date of the
interview. The autoencoder learns from all rows as they are, and classifiers learn from the codes of
the few labelled rows. Beside it are principal components of the columns that skrub's
TableVectorizer encodes. Prints the area under the ROC curve on the test rows. Needs skrub and
pandas.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skrub import TableVectorizer

from aefeatures import AutoencoderTransformer


def census(path, part):
    """Rows as a database would give them: words, None for unknown values, and a date."""
    with np.load(path) as data:
        X, y = data[f"X_{part}"], data[f"y_{part}"]
        names, categories = data["cols"], json.loads(str(data["categories"]))
    table = pd.DataFrame(X, columns=[str(name) for name in names])
    for name, words in categories.items():
        table[name] = pd.Categorical.from_codes(table[name], [str(word) for word in words])
        table[name] = table[name].astype(object).where(table[name] != "?", None)
    days = np.random.default_rng(0).integers(0, 365, len(table))
    table["interviewed"] = pd.Timestamp("1994-01-01") + pd.to_timedelta(days, "D")
    return table, y


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--labelled", type=int, default=200)
    parser.add_argument("--rows", type=int, default=10_000)
    args = parser.parse_args()
    (table, y), (test, y_test) = census(args.data, "train"), census(args.data, "test")
    order = np.random.default_rng(0).permutation(len(table))[: args.rows]
    table, y = table.iloc[order], y[order]
    print(table.dtypes.to_string())
    features = {
        "8 codes": make_pipeline(AutoencoderTransformer(8, random_state=0)),
        "8 principal components": make_pipeline(
            TableVectorizer(), SimpleImputer(), StandardScaler(), PCA(8)
        ),
        "all columns": make_pipeline(TableVectorizer(), SimpleImputer(), StandardScaler()),
    }
    few = table.iloc[: args.labelled]
    classifiers = {
        "KNN(15)": KNeighborsClassifier(15),
        "logistic regression": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000)),
    }
    for name, pipeline in features.items():
        pipeline.fit(table)
        Z, Z_test = (np.asarray(pipeline.transform(rows)) for rows in (few, test))
        for classifier_name, classifier in classifiers.items():
            scores = classifier.fit(Z, y[: len(few)]).predict_proba(Z_test)[:, 1]
            print(f"{name:<24}{classifier_name:<20}{roc_auc_score(y_test, scores):.3f}")


if __name__ == "__main__":
    main()
