"""
How many codes
==============

`ComponentsDisplay` trains an autoencoder for each of several numbers of codes and scores it on
rows that it has not seen: how well it reconstructs them and, where there is a y, how well that is
predicted from the codes. PCA with as many components is beside it.
"""

# %%
# With something to predict
# -------------------------
# Digits, with a classifier behind the codes, which is what predicts. Short trainings tell enough
# about the number of codes: there is one for each number and each of three folds.
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from aefeatures import AutoencoderTransformer, ComponentsDisplay

X, y = load_digits(return_X_y=True)
pipeline = make_pipeline(AutoencoderTransformer(scaling="global", max_epochs=20), SVC())
display = ComponentsDisplay.from_estimator(
    pipeline, X, y, n_components=[1, 2, 3, 5, 8, 16, 32], random_state=0
)

# %%
# Bands are one standard error over the folds to either side. The mark on the left is the knee of
# the curve; the one on the right is the fewest codes that are as good as the best, but for one
# standard error. The reconstruction gets better with every code, so that it is the right panel that
# says how many a classifier needs. Two or three codes of the autoencoder tell more than as many
# principal components; of many, those of PCA are the better ones here.
print(f"knee of the reconstruction: {display.knee_}")
print(f"codes for the classifier:   {display.n_components_}")
for n, ours, theirs in zip(
    display.n_components,
    display.predictor_scores.mean(axis=1),
    display.pca_predictor_scores.mean(axis=1),
    strict=True,
):
    print(f"{n:>3}  autoencoder {ours:.3f}   PCA {theirs:.3f}")

# %%
# Without a y
# -----------
# A table of 30 columns of different units: R2 is of standardised columns. Where PCA is as good with
# as many components, its codes are the better choice, as they need no training.
X, _ = load_breast_cancer(return_X_y=True)
transformer = AutoencoderTransformer(scaling="standard", max_epochs=40)
ComponentsDisplay.from_estimator(transformer, X, random_state=0)
