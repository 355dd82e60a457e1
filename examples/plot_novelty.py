"""
Novelty detection
=================

An autoencoder reconstructs rows well if they are like its training rows. `score_samples` is minus
the error of the reconstruction, so unlike rows have a low score. With ``per_feature=True`` it shows
the columns that cause this, in standard deviations of each column. With ``per_feature="raw"`` it
uses the units of the columns.
"""

# %%
# A digit that was never seen
# ---------------------------
# The detectors learn from all digits except fours. Among the test digits the fours are the novelty.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.ensemble import IsolationForest
from sklearn.metrics import RocCurveDisplay
from sklearn.model_selection import train_test_split

from aefeatures import AutoencoderTransformer, ReconstructionDisplay

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
X_train, is_novel = X_train[y_train != 4], y_test == 4

detectors = {
    "AutoencoderTransformer": AutoencoderTransformer(random_state=0).fit(X_train),
    "IsolationForest": IsolationForest(random_state=0).fit(X_train),
}
figure, ax = plt.subplots(figsize=(5, 4.5), layout="constrained")
for name, detector in detectors.items():
    novelty = -detector.score_samples(X_test)
    RocCurveDisplay.from_predictions(is_novel, novelty, name=name, ax=ax)

# %%
# Why they are novel
# ------------------
# Fours come back as the digits that look most like them.
transformer = detectors["AutoencoderTransformer"]
fours = X_test[is_novel][:6]
ReconstructionDisplay.from_estimator(transformer, fours, image_shape=(8, 8), n_samples=6)

# %%
# These pixels make each of them novel. The scale is the difference in grey levels.
distance = -transformer.score_samples(fours, per_feature="raw")
figure, axes = plt.subplots(1, 6, figsize=(6, 1.4), layout="constrained")
for ax, picture in zip(axes, distance, strict=True):
    shown = ax.imshow(picture.reshape(8, 8), cmap="magma", vmin=0, vmax=16)
    ax.set_axis_off()
figure.colorbar(shown, ax=axes, label="difference")

# %%
# A threshold
# -----------
# `score_samples` has no threshold of its own. Take a quantile of the scores of normal rows that
# were not used in training, because the scores of training rows are too good.
normal = X_test[~is_novel]
calibration, rest = normal[::2], normal[1::2]
threshold = np.quantile(transformer.score_samples(calibration), 0.05)
for name, rows in {"fours": X_test[is_novel], "other digits": rest}.items():
    print(f"flagged of the {name}: {(transformer.score_samples(rows) < threshold).mean():.0%}")
