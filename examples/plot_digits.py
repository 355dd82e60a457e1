"""
Digits in ten lines
===================

Three learned features replace 64 pixels, and a support vector machine works on them.
`AutoencoderTransformer` takes the place of PCA in the pipeline. It needs no scaler before it, no
training loop and no labels.
"""

# %%
# Learn the features and the classifier
# -------------------------------------
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from aefeatures import AutoencoderTransformer, LatentSpaceDisplay, ReconstructionDisplay

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
pipeline = make_pipeline(AutoencoderTransformer(random_state=0), SVC())
pipeline.fit(X_train, y_train)
print(f"three codes: {pipeline.score(X_test, y_test):.3f}")

pca = make_pipeline(PCA(3), SVC()).fit(X_train, y_train)
print(f"three principal components: {pca.score(X_test, y_test):.3f}")

# %%
# What three numbers remember
# ---------------------------
# The decoder turns the codes back into pictures. Originals are above, reconstructions below. The
# displays find the autoencoder in the pipeline.
ReconstructionDisplay.from_estimator(pipeline, X_test, image_shape=(8, 8), n_samples=8)

# %%
# Where the digits lie
# --------------------
# Each point is a test digit, coloured by its class. The autoencoder never saw the classes.
LatentSpaceDisplay.from_estimator(pipeline, X_test, y_test, trim=0.01, target_name="digit")
