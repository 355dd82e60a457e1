"""
New digits
==========

A density of the codes, together with the decoder, makes new rows. They can be looked at and used as
training data.
"""

# %%
# Learn to draw each digit
# ------------------------
# `AutoencoderGenerator` trains an autoencoder on all rows, and fits a mixture of Gaussians to the
# codes of each class.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import pairwise_distances_argmin_min
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC

from aefeatures import AutoencoderGenerator, AutoencoderTransformer

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
generator = AutoencoderGenerator(random_state=0).fit(X_train, y_train)

# %%
# Samples beside the nearest training rows
# ----------------------------------------
# There are four samples of each class. In each pair, the sample is on the left and the training row
# nearest to it on the right. If they were the same, the samples would be copies.
labels = np.repeat(np.arange(10), 4)
samples, _ = generator.sample(40, y=labels)
nearest, distance = pairwise_distances_argmin_min(samples, X_train)
gap = np.full((8, 1), np.nan)


def beside(left, right):
    return np.hstack([left.reshape(8, 8), gap, right.reshape(8, 8)])


figure, axes = plt.subplots(10, 4, figsize=(5.2, 6.6), layout="constrained")
for ax, sample, row in zip(axes.ravel(), samples, X_train[nearest], strict=True):
    ax.imshow(beside(sample, row), cmap="gray_r", vmin=0, vmax=16)
    ax.set_axis_off()
figure.suptitle("Samples, each with the nearest training row to its right", fontsize=10)

_, real = pairwise_distances_argmin_min(X_test, X_train)
print(f"Distance to the nearest training row, median: {np.median(distance):.1f} of samples,")
print(f"{np.median(real):.1f} of test rows")

# %%
# From one digit to another
# -------------------------
# The path from one code to the other is divided into equal steps, which are decoded.
figure, axes = plt.subplots(4, 1, figsize=(7, 3.2), layout="constrained")
for ax, (start, end) in zip(axes, [(0, 6), (1, 7), (3, 8), (4, 9)], strict=True):
    ends = (X_test[y_test == digit][0] for digit in (start, end))
    steps = generator.interpolate(*ends, 12)
    ax.imshow(np.hstack([step.reshape(8, 8) for step in steps]), cmap="gray_r", vmin=0, vmax=16)
    ax.set_axis_off()

# %%
# More training data
# ------------------
# Five digits of each class have labels, and the other rows have none (-1). The generator learns
# from all rows, and can give a classifier any number of labelled rows.
few = np.full(len(y_train), -1)
for digit in range(10):
    rows = np.flatnonzero(y_train == digit)[:5]
    few[rows] = digit
known = few >= 0
autoencoder = AutoencoderTransformer.from_preset("neighbors", n_components=8, scaling="global")
generator = AutoencoderGenerator(autoencoder, random_state=0).fit(X_train, few)
X_new, y_new = generator.sample(1_000)
alone = SVC().fit(X_train[known], few[known]).score(X_test, y_test)
more = SVC().fit(np.vstack([X_train[known], X_new]), np.r_[few[known], y_new])
score = more.score(X_test, y_test)
print(f"SVC on 50 labelled digits: {alone:.3f}; with 1,000 samples: {score:.3f}")
