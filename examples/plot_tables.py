"""
Tables as they are
==================

A data frame with text, numbers and gaps goes into the autoencoder as it comes. Everything that
comes back speaks of its columns: reconstructions, samples, imputed gaps, and the reasons why a row
is unusual.

The table is a part of the census "Adult" of the UCI Machine Learning Repository (B. Becker and R.
Kohavi, 1996, CC BY 4.0): 4,000 of its rows.
"""

# %%
# From a frame to a classifier
# ----------------------------
# The column ``income`` is to be predicted. Codes are learned from all training rows, without it.
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from aefeatures import (
    AutoencoderGenerator,
    AutoencoderImputer,
    AutoencoderTransformer,
    LatentSpaceDisplay,
)

folder = Path("examples") if Path("examples").is_dir() else Path()
table = pd.read_csv(folder / "adult.csv.gz")
X, y = table.drop(columns="income"), table["income"]
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
print(X_train.iloc[:5, :6].to_string())

# %%
model = make_pipeline(
    AutoencoderTransformer(8, random_state=0), StandardScaler(), LogisticRegression()
)
model.fit(X_train, y_train)
print(f"accuracy on new rows: {model.score(X_test, y_test):.3f}")
print(f"of the most frequent income: {(y_test == y_train.mode()[0]).mean():.3f}")

# %%
# What the codes hold
# -------------------
# Eight codes give most of the columns back.
codes = model[0]
rebuilt = codes.reconstruct(X_test)
right = pd.DataFrame(
    {
        "rebuilt": [(rebuilt[c] == X_test[c])[X_test[c].notna()].mean() for c in X_test],
        "most frequent": [(X_test[c] == X_train[c].mode()[0]).mean() for c in X_test],
    },
    index=X_test.columns,
)[codes.is_categorical_]
figure, ax = plt.subplots(figsize=(6, 3.5), layout="constrained")
right.plot.barh(ax=ax, color=["#3f90da", "0.8"])
ax.set_xlabel("share of test rows with the right level")

# %%
# Codes of the test rows, coloured by a column.
LatentSpaceDisplay.from_estimator(codes, X_test, X_test["marital_status"], components=[0, 1])

# %%
# The strangest rows, and why
# ---------------------------
# `score_samples` is low for rows that the columns of other rows do not explain. With
# ``per_feature=True`` each column has a score of its own.
scores = codes.score_samples(X_test)
reasons = codes.score_samples(X_test, per_feature=True)
for i in np.argsort(scores)[:5]:
    worst = reasons.iloc[i].sort_values().index[:3]
    why = ", ".join(f"{c} = {X_test.iloc[i][c]} (expected {rebuilt.iloc[i][c]})" for c in worst)
    print(f"score {scores[i]:.2f}: {why}")

# %%
# Gaps
# ----
# `AutoencoderImputer` fills in what is missing. A fifth of the test rows' entries is hidden here,
# to compare them with what is filled in.
hidden = np.random.default_rng(0).random(X_test.shape) < 0.2
filled = AutoencoderImputer(random_state=0).fit(X_train).transform(X_test.mask(hidden))
for column in ("relationship", "sex", "education"):
    at = hidden[:, X_test.columns.get_loc(column)] & X_test[column].notna().to_numpy()
    most = X_train[column].mode()[0]
    print(
        f"{column}: {(filled[column] == X_test[column])[at].mean():.2f} filled in rightly, "
        f"{(X_test[column] == most)[at].mean():.2f} by the most frequent level"
    )

# %%
# More rows
# ---------
# Samples are rows of the same kinds, here of people with a doctorate.
generator = AutoencoderGenerator(random_state=0).fit(table)
samples = generator.sample(5, conditions={"education": "Doctorate"})
print(samples.iloc[:, [0, 1, 3, 5, 6, 12, 14]].to_string())
