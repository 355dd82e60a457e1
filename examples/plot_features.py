"""
Features for KNN and SVM, beside PCA and UMAP
=============================================

Four methods turn each row into three numbers, without labels. The same classifiers then run on the
numbers of each method. UMAP is measured if `umap-learn` is installed; its time includes compiling.
"""

# %%
# Four ways to three numbers
# --------------------------
# All pixels are numbers from 0 to 16 in the same unit, which ``scaling="global"`` preserves.
import time

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

from aefeatures import AutoencoderTransformer

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
methods = {
    "PCA": PCA(3),
    "AutoencoderTransformer": AutoencoderTransformer(scaling="global", random_state=0),
    'preset "neighbors"': AutoencoderTransformer.from_preset(
        "neighbors", scaling="global", random_state=0
    ),
}
try:
    from umap import UMAP

    methods["UMAP"] = UMAP(n_components=3)
except ImportError:
    pass

# %%
# Classifiers on each
# -------------------
# The classifiers get the labels of all training rows, or those of five rows of each digit (the mean
# of ten draws).


def few_labels(Z, Z_test):
    scores = []
    for seed in range(10):
        order = np.random.default_rng(seed).permutation(len(y_train))
        rows = np.concatenate([order[y_train[order] == digit][:5] for digit in range(10)])
        knn = KNeighborsClassifier().fit(Z[rows], y_train[rows])
        scores.append(knn.score(Z_test, y_test))
    return np.mean(scores)


results = {"64 pixels": (X_train, X_test, 0.0)}
for name, method in methods.items():
    start = time.perf_counter()
    Z = method.fit_transform(X_train)
    seconds = time.perf_counter() - start
    results[name] = Z, method.transform(X_test), seconds

scores = {}
print(f"{'':<28}{'KNN':>8}{'SVC':>8}{'50 labels':>12}{'fit':>10}")
for name, (Z, Z_test, seconds) in results.items():
    scores[name] = [
        KNeighborsClassifier().fit(Z, y_train).score(Z_test, y_test),
        SVC().fit(Z, y_train).score(Z_test, y_test),
        few_labels(Z, Z_test),
    ]
    print(f"{name:<28}" + "{:>8.3f}{:>8.3f}{:>12.3f}".format(*scores[name]) + f"{seconds:>8.1f} s")

# %%
figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
height = 0.8 / 3
for i, label in enumerate(("KNN, all labels", "SVC, all labels", "KNN, 50 labels")):
    values = [scores[name][i] for name in scores]
    bars = ax.barh(np.arange(len(scores)) + (i - 1) * height, values, height * 0.9, label=label)
    ax.bar_label(bars, fmt="%.2f", padding=2, fontsize=8)
ax.set_yticks(np.arange(len(scores)), scores)
ax.invert_yaxis()
ax.set(xlabel="accuracy on held-out digits", xlim=(0, 1.09))
ax.spines[["top", "right"]].set_visible(False)
figure.legend(loc="outside lower center", ncols=3, frameon=False)

# %%
# More figures, on larger data and over seeds, are in :doc:`/benchmarks`.
