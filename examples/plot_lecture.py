"""
Pictures after every epoch
==========================

This is how a lecture shows an autoencoder: five images are kept aside, and after each epoch they
are shown beside their reconstructions. `ReconstructionMonitor` is a callback of scikit-learn (1.9
or later) that keeps these pictures. `ReconstructionDisplay` draws them, and `LossCurveDisplay`
shows the loss of each epoch.
"""

# %%
# Keep five images in view
# ------------------------
from sklearn.datasets import load_digits

from aefeatures import (
    AutoencoderTransformer,
    LossCurveDisplay,
    ReconstructionDisplay,
    ReconstructionMonitor,
)

X, y = load_digits(return_X_y=True)
X_view, X_train = X[:5], X[5:]
monitor = ReconstructionMonitor(X_view)
transformer = AutoencoderTransformer(max_epochs=40, random_state=0)
transformer.set_callbacks(monitor).fit(X_train)

# %%
# The originals are shown with their reconstructions as the network learned. At first it gives back
# the mean of all digits. Then it separates round digits from straight ones.
monitor.display(image_shape=(8, 8), epochs=[1, 5, 10, 20, 40])

# %%
# The loss of every epoch
# -----------------------
LossCurveDisplay.from_estimator(transformer)

# %%
# The same by hand
# ----------------
# `partial_fit` trains for one epoch, so a loop can replace the callback. This works with versions
# before scikit-learn 1.9, too.
by_hand = AutoencoderTransformer(random_state=0)
pictures = []
for _ in range(5):
    by_hand.partial_fit(X_train)
    pictures.append(by_hand.reconstruct(X_view))
ReconstructionDisplay(X_view, pictures, image_shape=(8, 8)).plot()
