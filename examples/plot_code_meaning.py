"""
What codes mean
===============

Users of PCA look at `components_`. For an autoencoder there are two directions. The encoder makes a
code of columns: `code_sensitivity` is the derivative of a code by a column, averaged over rows. The
decoder makes columns of a code: `LatentTraversalDisplay` decodes along one code while the others
stay where they are.
"""

# %%
# A table
# -------
# The sensitivities are in standard deviations of a code per standard deviation of a column. The
# display groups the columns by the code that they matter most to.
import numpy as np
from sklearn.datasets import load_digits, load_wine

from aefeatures import (
    AutoencoderTransformer,
    CodeSensitivityDisplay,
    LatentTraversalDisplay,
    code_importance,
    code_sensitivity,
)

X, _ = load_wine(return_X_y=True, as_frame=True)
transformer = AutoencoderTransformer(random_state=0).fit(X)
CodeSensitivityDisplay.from_estimator(transformer, X)

# %%
# The other direction: each block shows the five columns that change most from the 5% quantile of a
# code to its 95% quantile, in their standard deviations. The other codes are at their medians.
LatentTraversalDisplay.from_estimator(transformer, X)

# %%
# How much each code explains: R2 falls by `drop` if the code is held at its mean, and `cumulative`
# is R2 with the codes so far. The codes themselves keep their order in `transform`.
print(code_importance(transformer, X).round(2))

# %%
# Three answers to one question
# -----------------------------
# Which columns drive the first code? Correlation, sensitivity and traversal answer different
# questions, and here they disagree about magnesium and od280.
import matplotlib.pyplot as plt

codes = transformer.transform(X)
traversal = LatentTraversalDisplay.from_estimator(transformer, X, components=[0])
plt.close(traversal.figure_)
answers = {
    "correlation": [np.corrcoef(codes[:, 0], column)[0, 1] for column in X.to_numpy().T],
    "sensitivity": code_sensitivity(transformer, X).iloc[0],
    "traversal": (traversal.decoded[0, -1] - traversal.decoded[0, 0]) / traversal.scale,
}
names = [name.split("/")[0] for name in X.columns]
figure, axes = plt.subplots(1, 3, figsize=(6.4, 3.6), sharey=True, layout="constrained")
for ax, (title, answer) in zip(axes, answers.items(), strict=True):
    share = np.asarray(answer) / np.abs(answer).max()
    colors = ["#e76300" if name in ("magnesium", "od280") else "#3f90da" for name in names]
    ax.barh(names, share, color=colors)
    ax.axvline(0, color="0.6", linewidth=0.8)
    ax.set_title(title, fontsize="medium")
    ax.set_xticks([-1, 0, 1])
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
axes[0].invert_yaxis()
axes[1].set_xlabel("relative to the largest")

# %%
# od280 is among the most correlated columns, but the encoder reads it only half as much as
# flavanoids, which tell nearly the same. Magnesium is weakly correlated with the code, but the
# decoder moves it as far as any other column, at the ends of the code where there are few wines.
# Correlation describes the rows in which the code is high. Sensitivity tells what a change of one
# column alone would do to the code, such as an error of measurement. Traversal tells what the
# decoder has learned to draw. A name for a code is safe if all three agree.

# %%
# Pictures
# --------
# A code rises if red pixels get brighter, and falls if blue pixels do.
X, y = load_digits(return_X_y=True)
transformer = AutoencoderTransformer(scaling="global", random_state=0).fit(X)
CodeSensitivityDisplay.from_estimator(transformer, X, image_shape=(8, 8))

# %%
# Signs differ from digit to digit, so averages with signs cancel. The sensitivities at one digit,
# here a zero, are larger.
CodeSensitivityDisplay.from_estimator(transformer, X, row=0, image_shape=(8, 8))

# %%
LatentTraversalDisplay.from_estimator(transformer, X, image_shape=(8, 8))

# %%
# The same zero, changed along each code:
LatentTraversalDisplay.from_estimator(transformer, X, row=0, image_shape=(8, 8))
