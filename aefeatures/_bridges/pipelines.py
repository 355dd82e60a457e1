"""The way of X through pipelines: to the transformer in them, and into a tensor."""

from __future__ import annotations

from typing import Any

import torch
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from aefeatures._autoencoder import AutoencoderTransformer
from aefeatures._rows.batches import to_tensor
from aefeatures._rows.checks import check_rows
from aefeatures._rows.tables import table_of
from aefeatures._sklearn import is_search


def encode_table(estimator: Any, X: Any) -> tuple[torch.Tensor, list[str]]:
    """Return X as the tensor that modules of `to_module` take, and the names of its columns.

    The tensor has one column for each column of X. A category is the position of its level in
    `categories_`, and all levels that `min_frequency` or `max_categories` groups share the number
    that follows those of the other levels. A boolean is 0 or 1, a date is in seconds since 1970
    (UTC), a duration is in seconds, and a missing value or an unknown level is NaN. The
    reconstructions of `to_module` have the same columns.

    Parameters
    ----------
    estimator : AutoencoderTransformer or Pipeline
        Fitted transformer, or a pipeline with one, whose steps before it are applied to X.
    X : {array-like, sparse matrix, DataFrame} of shape (n_samples, n_features)

    Returns
    -------
    tensor : torch.Tensor of shape (n_samples, n_features)
        On the CPU, in the precision of `transform`.
    names : list of str
        Names of the columns; "x0", "x1" and so on if X had none in `fit`.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If the transformer is not fitted.
    TypeError
        If there is no transformer in `estimator`.
    ValueError
        If X cannot be transformed.

    See Also
    --------
    AutoencoderTransformer.to_module : Network as a module for such tensors.

    Examples
    --------
    >>> import pandas as pd
    >>> from aefeatures import AutoencoderTransformer, encode_table
    >>> X = pd.DataFrame({"size": [4.0, 7.5, None, 5.0], "town": ["Bern", "Genf", "Bern", None]})
    >>> transformer = AutoencoderTransformer(1, max_epochs=2, random_state=0).fit(X)
    >>> tensor, names = encode_table(transformer, X)
    >>> names
    ['size', 'town']
    >>> tensor[:, 1]
    tensor([0., 1., 0., nan], dtype=torch.float64)
    >>> transformer.to_module()(tensor).shape
    torch.Size([4, 1])
    """
    transformer, X = find_transformer(estimator, X)
    rows = check_rows(transformer, X, reset=False).dense()
    names = names_of_columns(transformer, []) or [f"x{i}" for i in range(rows.shape[1])]
    return to_tensor(rows, torch.device("cpu")).clone(), [str(name) for name in names]


def find_transformer(estimator: Any, X: Any = None) -> tuple[AutoencoderTransformer, Any]:
    """Return the fitted transformer in `estimator`, and X transformed by the steps before it."""
    transformer, before = find_steps(estimator)
    if X is not None:
        for step in before:
            X = step.transform(X)
    return transformer, X


def find_steps(estimator: Any) -> tuple[AutoencoderTransformer, list[Any]]:
    """Return the fitted transformer in `estimator`, and the steps before it."""
    before, transformer, _ = split_steps(estimator)
    check_is_fitted(transformer)
    return transformer, before


def split_steps(estimator: Any) -> tuple[list[Any], AutoencoderTransformer, list[Any]]:
    """Return the first transformer in `estimator`, between the steps before and after it."""
    steps = flat_steps(estimator)
    for i, step in enumerate(steps):
        if isinstance(step, AutoencoderTransformer):
            return steps[:i], step, steps[i + 1 :]
    held = getattr(steps[-1] if steps else None, "autoencoder_", None)
    hint = " Pass its autoencoder_." if isinstance(held, AutoencoderTransformer) else ""
    raise TypeError(
        "estimator must be an AutoencoderTransformer or a Pipeline that has one as a step, "
        f"got {estimator!r}.{hint}"
    )


def flat_steps(estimator: Any) -> list[Any]:
    """Return the steps that X passes in a prediction, including those of nested pipelines.

    "passthrough" and samplers, which act only in `fit`, are left out.
    """
    estimator = unwrap(estimator)
    if not isinstance(estimator, Pipeline):
        return [estimator]
    steps: list[Any] = []
    for _, step in estimator.steps:
        step = unwrap(step)
        if isinstance(step, Pipeline):
            steps += flat_steps(step)
        elif not (step is None or isinstance(step, str) or hasattr(step, "fit_resample")):
            steps.append(step)
    return steps


def names_out(steps: list[Any]) -> Any:
    """Return the column names of the last step's output, or None if a step has no names."""
    names = None
    for step in steps:
        try:
            names = step.get_feature_names_out(names)
        except (AttributeError, ValueError):  # some transformers know no names
            return None
    return names


def names_of_columns(transformer: AutoencoderTransformer, before: list[Any]) -> list[Any] | None:
    """Return the names of the columns that a transformer gets, or None if they have none."""
    if (table := table_of(transformer)) is not None:
        return list(table.names)
    names = getattr(transformer, "feature_names_in_", None)
    names = names_out(before) if names is None else names
    return None if names is None else list(names)


def unwrap(estimator: Any) -> Any:
    """Return the estimator inside a frozen one, or the best estimator of a search."""
    if isinstance(estimator, FrozenEstimator):
        return unwrap(estimator.estimator)
    if is_search(estimator):
        check_is_fitted(estimator)
        if not hasattr(estimator, "best_estimator_"):
            raise ValueError(
                f"This {type(estimator).__name__} has no best estimator, got refit=False. Search "
                "with refit=True."
            )
        return unwrap(estimator.best_estimator_)
    return estimator
