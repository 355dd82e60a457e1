"""What codes mean: how much they depend on columns, and how much of X they explain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from aefeatures._autoencoder import AutoencoderTransformer, check_fitted_rows, fitted_model
from aefeatures._bridges.pipelines import find_steps, names_of_columns
from aefeatures._rows.checks import like
from aefeatures._rows.columns import as_objects, is_frame, is_pandas, make_frame
from aefeatures._rows.sources import Source


class CodeImportance(NamedTuple):
    """Codes in decreasing order of what they explain.

    Attributes
    ----------
    code : ndarray of int of shape (n_components,)
        Positions of codes in the result of `transform`, the most important one first.
    drop : ndarray of shape (n_components,)
        How much R2 falls if this code alone is held at its mean.
    cumulative : ndarray of shape (n_components,)
        R2 with this code and those before it, while the others are held at their means. The last
        number is the R2 of the reconstruction from all codes.
    """

    code: np.ndarray
    drop: np.ndarray
    cumulative: np.ndarray


def code_sensitivity(
    estimator: Any, X: Any, *, average: Literal["mean", "rms"] | None = "mean"
) -> Any:
    """Return how much each code depends on each column.

    The sensitivity is the derivative of a code by a column, times the standard deviation of the
    column: how far the code moves, to first order, if the column alone moves by one deviation. It
    is the counterpart of PCA's `components_`. The sensitivities of a linear autoencoder without
    regularizer span the same space as the principal axes of the scaled columns.

    Parameters
    ----------
    estimator : AutoencoderTransformer, Pipeline, search or FrozenEstimator
        Fitted estimator. In a pipeline the steps before the autoencoder transform X, and the
        columns are those that the autoencoder gets.
    X : {array-like, sparse matrix, frame} of shape (n_samples, n_features)
        Rows at which the derivatives are taken.
    average : {"mean", "rms"} or None, default="mean"
        Average over the rows.

        - "mean": with sign. It is near 0 if a code rises with a column in some rows and falls in
          others.
        - "rms": root mean square, the size without sign. It is large in both cases.
        - None: no average, but one result for each row.

    Returns
    -------
    sensitivity : ndarray or frame of shape (n_components, n_features)
        In the order of `transform`, in units of the codes. If `average` is None, of shape
        (n_samples, n_components, n_features). For a frame X, a frame whose columns have the names
        of X's columns. In pandas the index holds the names of the codes, with `average=None` below
        the index of X. In polars a column "code" holds the names, with `average=None` after a
        column "row" with positions.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If the autoencoder is not fitted.
    TypeError
        If `estimator` has no autoencoder.
    ValueError
        If `average` is none of these, if X does not have the columns of `fit`, or if the encoder
        is a network of your own that is not differentiable.

    See Also
    --------
    CodeSensitivityDisplay : Picture of sensitivities.
    LatentTraversalDisplay : What the decoder makes of each code.
    code_importance : How much of X each code explains.

    Notes
    -----
    The standard deviations are those of `fit`, not those of X. So sensitivities of some rows, even
    of one row, are comparable with those of others. Columns that were constant in `fit` have a
    sensitivity of 0.

    The encoder does not see missing values, and their sensitivity is NaN. An average is over the
    rows in which the column is known, and NaN if there are none.

    Levels of a category enter the encoder as columns of 0 and 1. The sensitivity to a category is
    the standard deviation of the derivatives by its levels, weighted by their shares in `fit`. As
    for a number, it is the standard deviation of the code, to first order, if only this column
    varies as it did in `fit`. It has no sign.

    A sensitivity tells how the encoder computes a code. It does not tell what the code means in the
    data: a column that hardly enters the computation may be highly correlated with the code. See
    the user guide.

    References
    ----------
    .. [1] K. Simonyan, A. Vedaldi and A. Zisserman. Deep inside convolutional networks: visualising
       image classification models and saliency maps. ICLR Workshop 2014.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from aefeatures import AutoencoderTransformer, code_sensitivity
    >>> X, _ = load_wine(return_X_y=True, as_frame=True)
    >>> transformer = AutoencoderTransformer(random_state=0).fit(X)
    >>> sensitivity = code_sensitivity(transformer, X)
    >>> sensitivity.shape
    (3, 13)
    >>> sorted(sensitivity.iloc[2].abs().nlargest(2).index)
    ['alcalinity_of_ash', 'ash']
    """
    if average is not None and average not in ("mean", "rms"):
        raise ValueError(f"average must be 'mean', 'rms' or None, got {average!r}.")
    transformer, names, rows = _resolve(estimator, X, "code_sensitivity")
    found = sensitivities(transformer, rows, average)
    if not is_frame(X):
        return like(found, X)
    return _framed(found, X, names, transformer.get_feature_names_out().tolist())


def code_importance(estimator: Any, X: Any) -> Any:
    """Return how much of X each code explains, the most important code first.

    It is the counterpart of PCA's `explained_variance_ratio_`. The measure is R2 in the network's
    range: one minus the squared error of the reconstruction over the variance of the columns. With
    the loss "mse" this is the error of `score_samples`.

    Parameters
    ----------
    estimator : AutoencoderTransformer, Pipeline, search or FrozenEstimator
        Fitted estimator. In a pipeline the steps before the autoencoder transform X.
    X : {array-like, sparse matrix, frame} of shape (n_samples, n_features)

    Returns
    -------
    importance : CodeImportance or frame
        A named tuple of arrays `code`, `drop` and `cumulative` of shape (n_components,). For a
        frame X, a frame with these columns, in which `code` holds names.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If the autoencoder is not fitted.
    TypeError
        If `estimator` has no autoencoder.
    ValueError
        If X does not have the columns of `fit`.

    See Also
    --------
    ComponentsDisplay : R2 on held-out rows against the number of codes.

    Notes
    -----
    The variance is that of the columns in `fit`, and the means of the codes are those in X. A
    category counts as one column: its levels, as columns of 0 and 1, are compared with the
    probabilities of the decoder. Missing values are left out.

    The drops of a linear autoencoder with uncorrelated codes are the explained variance ratios of
    PCA, and add up to R2. Other drops do not add up, for two reasons. Codes that are correlated
    carry some information together. And the decoder does not decode the mean of a code to the mean
    of the rows, because it is not linear. On scikit-learn's wine, breast_cancer and digits, with 3
    and 5 codes, the drops add up to 1.2 to 1.7 times R2 with the default regularizers, and to 1.7
    to 2.2 times R2 without them. So read drops as an order with sizes, not as shares, and use
    `cumulative` to decide how many codes to keep. The first entries of `cumulative` may be small or
    negative, since codes held at their means together decode to rows that may be far from all
    others.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from aefeatures import AutoencoderTransformer, code_importance
    >>> X, _ = load_wine(return_X_y=True)
    >>> transformer = AutoencoderTransformer(random_state=0).fit(X)
    >>> importance = code_importance(transformer, X)
    >>> importance.code
    array([0, 1, 2])
    >>> importance.cumulative.round(1)
    array([0.3, 0.7, 0.8])
    """
    transformer, _, rows = _resolve(estimator, X, "code_importance")
    found = importances(transformer, rows)
    if not is_frame(X):
        return found
    names = as_objects(transformer.get_feature_names_out().tolist())
    columns = [names[found.code], found.drop, found.cumulative]
    library = "pandas" if is_pandas(X) else "polars"
    return make_frame(library, columns, ["code", "drop", "cumulative"])


def sensitivities(
    transformer: AutoencoderTransformer, rows: Source, average: str | None
) -> np.ndarray:
    """Return what `code_sensitivity` does as an array."""
    effects = fitted_model(transformer).scaling.effects
    if average is None:
        return np.concatenate([effects(each).numpy() for each in _jacobians(transformer, rows)])
    total: Any = 0.0
    count: Any = 0
    for jacobians in _jacobians(transformer, rows):
        # Levels of a category are averaged one by one, so that those of opposite sign cancel.
        terms = jacobians if average == "mean" else effects(jacobians).square()
        total = total + terms.nansum(dim=0, dtype=torch.float64)
        count = count + (~terms.isnan()).sum(dim=0)
    means = total / count
    averaged = effects(means) if average == "mean" else means.sqrt()
    return averaged.numpy().astype(jacobians.numpy().dtype)


def sensitivities_per_deviation(
    transformer: AutoencoderTransformer, rows: Source, average: str, at: Source | None = None
) -> np.ndarray:
    """Return averaged sensitivities in standard deviations of the codes of rows.

    They are taken at the rows themselves, or at others.
    """
    codes = fitted_model(transformer).encode(rows, transformer.device_)
    spread = codes.std(axis=0, dtype=np.float64)[:, None]
    found: np.ndarray = sensitivities(transformer, rows if at is None else at, average)
    return found / np.where(spread > 0, spread, 1)


def importances(transformer: AutoencoderTransformer, rows: Source) -> CodeImportance:
    """Return what `code_importance` does as a tuple of arrays."""
    model, device = fitted_model(transformer), transformer.device_
    n_codes = model.n_components
    means = torch.from_numpy(model.encode(rows, device).mean(axis=0, dtype=np.float64))

    def r2(held: Any) -> float:
        is_held = torch.zeros(n_codes, dtype=torch.bool)
        is_held[np.asarray(held, dtype=int)] = True
        return model.explained(
            rows,
            device,
            lambda codes: torch.where(is_held.to(codes.device), means.to(codes), codes),
        )

    joint = r2([])
    drops = np.array([joint - r2([j]) for j in range(n_codes)])
    order = np.argsort(-drops, kind="stable")
    cumulative = [r2(order[j:]) for j in range(1, n_codes)]
    return CodeImportance(order, drops[order], np.array([*cumulative, joint]))


def _resolve(
    estimator: Any, X: Any, function: str
) -> tuple[AutoencoderTransformer, list[Any] | None, Source]:
    """Return the transformer in `estimator`, the names of its columns, and X as its rows."""
    transformer, before = find_steps(estimator)
    for step in before:
        X = step.transform(X)
    names = names_of_columns(transformer, before)
    return transformer, names, check_fitted_rows(transformer, X, function)


def _jacobians(transformer: AutoencoderTransformer, rows: Source) -> Iterator[torch.Tensor]:
    model = fitted_model(transformer)
    # Autograd keeps the results of several layers.
    width = max(4 * model.cost.width, model.n_components * model.n_outputs)
    for chunk in rows.chunks(width):
        yield model.jacobians(chunk, transformer.device_)


def _framed(found: np.ndarray, X: Any, names: list[Any] | None, codes: list[str]) -> Any:
    """Return sensitivities as a frame of the library of X."""
    names = [f"x{i}" for i in range(found.shape[-1])] if names is None else names
    n_rows = None if found.ndim == 2 else len(found)
    flat = [*found.reshape(-1, found.shape[-1]).T]
    if is_pandas(X):
        import pandas as pd

        index: Any = pd.Index(codes)
        if n_rows is not None:
            index = pd.MultiIndex.from_product([X.index, codes], names=[X.index.name, "code"])
        return make_frame("pandas", flat, names, index)
    labels: dict[str, Any] = {"code": codes * (1 if n_rows is None else n_rows)}
    if n_rows is not None:
        labels = {"row": np.repeat(np.arange(n_rows), len(codes)), **labels}
    # A column of X may have such a name.
    free = [_unused(label, names) for label in labels]
    return make_frame("polars", [*labels.values(), *flat], [*free, *names])


def _unused(label: str, names: list[Any]) -> str:
    while label in map(str, names):
        label += "_"
    return label
