"""
How many codes
==============

`ComponentsDisplay` trains an autoencoder for each of several numbers of codes and scores it on rows
that it has not seen. It shows how well the rows are reconstructed and, if there is a y, how well y
is predicted from the codes. PCA with the same number of components is shown for comparison.
"""

# %%
# With something to predict
# -------------------------
# The data are digits, and a classifier predicts from the codes. There is one training for each
# number of codes and each of three folds. Short trainings tell enough about the number of codes.
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
# The bands show one standard error over the folds to either side. The mark on the left is the knee
# of the curve. The mark on the right is the smallest number of codes whose score is within one
# standard error of the best. The reconstruction gets better with every code, so only the right
# panel says how many codes a classifier needs. Two or three codes of the autoencoder tell more than
# two or three principal components. With many components PCA is better here.
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
# This is a table of 30 columns in different units. R2 is computed on standardised columns. If PCA
# is as good with the same number of components, it is the better choice, as it needs no training.
X, _ = load_breast_cancer(return_X_y=True)
transformer = AutoencoderTransformer(scaling="standard", max_epochs=40)
ComponentsDisplay.from_estimator(transformer, X, random_state=0)
