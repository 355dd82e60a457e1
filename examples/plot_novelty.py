"""
Novelty detection
=================

An autoencoder gives back well what is like its training rows. `score_samples` is minus the error
of the reconstruction: low where a row is unlike them; with ``per_feature=True`` it says
which columns make it so.
"""

# %%
# Tumours unlike benign ones
# --------------------------
# Learned from benign samples of the breast cancer data alone; malignant ones are the novelty.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import IsolationForest
from sklearn.metrics import RocCurveDisplay, roc_auc_score
from sklearn.model_selection import train_test_split

from aefeatures import AutoencoderTransformer

data = load_breast_cancer()
benign, malignant = data.data[data.target == 1], data.data[data.target == 0]
X_train, X_benign = train_test_split(benign, random_state=0)
X_test = np.concatenate([X_benign, malignant])
is_novel = np.repeat([0, 1], [len(X_benign), len(malignant)])

detectors = {
    "AutoencoderTransformer": AutoencoderTransformer(random_state=0).fit(X_train),
    "IsolationForest": IsolationForest(random_state=0).fit(X_train),
}
figure, ax = plt.subplots(figsize=(5, 4.5), layout="constrained")
for name, detector in detectors.items():
    novelty = -detector.score_samples(X_test)
    RocCurveDisplay.from_predictions(is_novel, novelty, name=name, ax=ax)
    print(f"{name}: area under the curve {roc_auc_score(is_novel, novelty):.3f}")

# %%
# Which columns make a row novel
# ------------------------------
# The most novel row: how far each column is from its reconstruction, in standard deviations of
# the training rows.
transformer = detectors["AutoencoderTransformer"]
row = X_test[[transformer.score_samples(X_test).argmin()]]
distance = -transformer.score_samples(row, per_feature=True)[0] / X_train.std(axis=0)
top = np.argsort(distance)[-8:]
figure, ax = plt.subplots(figsize=(6, 3.5), layout="constrained")
ax.barh(data.feature_names[top], distance[top])
ax.set(xlabel="distance to the reconstruction, in standard deviations")
ax.spines[["top", "right"]].set_visible(False)

# %%
# A threshold
# -----------
# `score_samples` has no threshold of its own: take a quantile of the training rows' scores.
threshold = np.quantile(transformer.score_samples(X_train), 0.05)
flagged = transformer.score_samples(X_test) < threshold
print(f"flagged: {flagged[is_novel == 1].mean():.0%} of malignant rows", end=", ")
print(f"{flagged[is_novel == 0].mean():.0%} of benign ones")
