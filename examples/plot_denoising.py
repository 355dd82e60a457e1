"""
Taking noise away
=================

An autoencoder that learns to restore corrupted rows (`Denoising`) learns how the columns depend on
each other. It can clean rows that it has never seen, and its codes suffer less from noise.
"""

# %%
# Noisy digits
# ------------
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from aefeatures import AutoencoderTransformer, Denoising, ReconstructionDisplay

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
rng = np.random.default_rng(0)
X_noisy = X_test + rng.normal(scale=5, size=X_test.shape)

# %%
# Two autoencoders have 16 codes each. One of them is trained with noise of the same kind on its
# input. The amount of noise is in units of the standard deviation of the pixels.
amount = 5 / np.sqrt(X_train.var(axis=0).mean())
settings = {"n_components": 16, "hidden_layer_sizes": (128, 64), "scaling": "global"}
plain = AutoencoderTransformer(**settings, random_state=0).fit(X_train)
denoising = AutoencoderTransformer(
    **settings, regularizer=Denoising("gaussian", amount=amount), random_state=0
).fit(X_train)

cleaned = {
    "noisy": X_noisy,
    "plain": plain.reconstruct(X_noisy),
    "denoising": denoising.reconstruct(X_noisy),
}
for name, rows in cleaned.items():
    print(f"{name:<10} RMSE to the clean digits {np.sqrt(((rows - X_test) ** 2).mean()):.2f}")

# %%
# The rows show clean digits, the same digits with noise, and both reconstructions of the latter.
ReconstructionDisplay(
    X_test[:6],
    [rows[:6] for rows in cleaned.values()],
    image_shape=(8, 8),
    snapshot_names=list(cleaned),
).plot()

# %%
# Features from noisy rows
# ------------------------
# A classifier of nearest neighbours learns from clean digits and predicts noisy ones.
from sklearn.neighbors import KNeighborsClassifier

print(f"pixels     {KNeighborsClassifier().fit(X_train, y_train).score(X_noisy, y_test):.3f}")
for name, transformer in {"plain": plain, "denoising": denoising}.items():
    knn = KNeighborsClassifier().fit(transformer.transform(X_train), y_train)
    print(f"{name:<10} {knn.score(transformer.transform(X_noisy), y_test):.3f}")
