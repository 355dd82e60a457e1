"""
A latent space in three dimensions
==================================

Three numbers per row can be drawn. The preset "neighbors" uses `NeighborPreserving`, which gives
similar codes to similar rows. Classes become clouds that the eye can tell apart, although the
training saw no labels.
"""

# %%
# Plain and neighbour-preserving codes
# ------------------------------------
import matplotlib.pyplot as plt
from sklearn.datasets import load_digits

from aefeatures import AutoencoderTransformer, LatentSpaceDisplay

X, y = load_digits(return_X_y=True)
settings = {"scaling": "global", "random_state": 0}  # pixels have one unit
plain = AutoencoderTransformer(**settings).fit(X)
neighbors = AutoencoderTransformer.from_preset("neighbors", **settings).fit(X)

figure, axes = plt.subplots(
    1, 2, figsize=(9, 4.5), layout="constrained", subplot_kw={"projection": "3d"}
)
for ax, transformer, title in zip(
    axes, (plain, neighbors), ("AutoencoderTransformer", 'preset "neighbors"'), strict=True
):
    last = ax is axes[-1]
    LatentSpaceDisplay.from_estimator(
        transformer, X, y, ax=ax, trim=0.01, legend=last, target_name="digit", s=6
    )
    ax.set_title(title)

# %%
# Two numbers, and the way between digits
# ---------------------------------------
# From codes between those of two digits the decoder draws new pictures.
import numpy as np

from aefeatures import ReconstructionDisplay

flat = AutoencoderTransformer.from_preset("neighbors", n_components=2, **settings).fit(X)
LatentSpaceDisplay.from_estimator(flat, X, y, trim=0.005, target_name="digit")

# %%
start, end = flat.transform(X[[0, 1]])
steps = np.linspace(0, 1, 8)[:, None]
path = flat.inverse_transform((1 - steps) * start + steps * end)
ReconstructionDisplay(
    path, flat.reconstruct(path), image_shape=(8, 8), snapshot_names=["encoded\nagain"]
).plot()
