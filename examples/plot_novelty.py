"""
What is unusual, and why
========================

`AutoencoderOutlierDetector` learns from rows that are mostly normal. It finds unusual rows, and
says which columns or pixels make them unusual.
"""

# %%
# A digit that was never seen
# ---------------------------
# The detectors learn from all digits except fours. Among the test digits the fours are the novelty.
import matplotlib.pyplot as plt
from sklearn.datasets import load_digits, load_wine
from sklearn.ensemble import IsolationForest
from sklearn.metrics import RocCurveDisplay
from sklearn.model_selection import train_test_split

from aefeatures import AutoencoderOutlierDetector, OutlierDisplay

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
X_train, is_novel = X_train[y_train != 4], y_test == 4

detectors = {
    "AutoencoderOutlierDetector": AutoencoderOutlierDetector(
        calibration_fraction=0.2, random_state=0
    ).fit(X_train),
    "IsolationForest": IsolationForest(random_state=0).fit(X_train),
}
figure, ax = plt.subplots(figsize=(5, 4.5), layout="constrained")
for name, detector in detectors.items():
    novelty = -detector.score_samples(X_test)
    RocCurveDisplay.from_predictions(is_novel, novelty, name=name, ax=ax)

# %%
# A threshold with a meaning
# --------------------------
# `p_values` compares rows with training rows that were kept aside. Of normal rows, about 5% have a
# p-value of at most 0.05, whatever the data.
detector = detectors["AutoencoderOutlierDetector"]
p_values = detector.p_values(X_test)
for name, rows in {"fours": is_novel, "other digits": ~is_novel}.items():
    print(f"{name}: {(p_values[rows] <= 0.05).mean():.0%} have a p-value of at most 0.05")

# %%
# Why they are unusual
# --------------------
# What was expected comes from the training rows that are nearest by the other pixels. The colour
# marks the pixels that are most unlike it.
OutlierDisplay.from_estimator(detector, X_test[is_novel], image_shape=(8, 8), n_samples=5)

# %%
# In a table
# ----------
# Wines from three vineyards: each bar is a column, with its value and what was expected. A part of
# 2 means twice as far from it as is typical for the column.
wine, _ = load_wine(return_X_y=True, as_frame=True)
detector = AutoencoderOutlierDetector(random_state=0).fit(wine)
OutlierDisplay.from_estimator(detector, wine, n_samples=3)

# %%
# The same as a frame, for a row that we change: such a value of magnesium occurs nowhere else.
strange = wine.iloc[[0]].assign(magnesium=180.0)
print(detector.predict(strange))
detector.explain(strange, n_columns=3)
