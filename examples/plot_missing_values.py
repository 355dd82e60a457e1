"""
Filling in missing values
=========================

NaN in X is a missing value. It is left out of the loss, and a learned number replaces it in the
input of the network. `reconstruct` estimates every entry, so one line of NumPy is enough to impute.
"""

# %%
# A quarter of the pixels is gone
# -------------------------------
import numpy as np
from sklearn.datasets import load_digits
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.model_selection import train_test_split

from aefeatures import AutoencoderTransformer, ReconstructionDisplay

X, y = load_digits(return_X_y=True)
missing = np.random.default_rng(0).random(X.shape) < 0.25
X_missing = np.where(missing, np.nan, X)
X_train, X_test, _, complete_test = train_test_split(X_missing, X, random_state=0)

transformer = AutoencoderTransformer(16, hidden_layer_sizes=(128, 64), random_state=0).fit(X_train)
filled = np.where(np.isnan(X_test), transformer.reconstruct(X_test), X_test)

# %%
# How well
# --------
# The root mean squared error is computed on the removed pixels, in grey levels from 0 to 16.
gone = np.isnan(X_test)
imputed = {
    "mean of the column": SimpleImputer(keep_empty_features=True).fit(X_train).transform(X_test),
    "KNNImputer": KNNImputer(keep_empty_features=True).fit(X_train).transform(X_test),
    "AutoencoderTransformer": filled,
}
for name, rows in imputed.items():
    error = np.sqrt(((rows - complete_test)[gone] ** 2).mean())
    print(f"{name:<24}{error:.2f}")

# %%
# Six digits are shown as they are, with missing pixels, and as filled in by the autoencoder.
ReconstructionDisplay(
    complete_test[:6],
    [X_test[:6], filled[:6]],
    image_shape=(8, 8),
    snapshot_names=["with holes", "filled"],
).plot()
