"""Search for the transformer in a pipeline, and for the steps before and after it."""

from __future__ import annotations

from typing import Any

from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from aefeatures._autoencoder import AutoencoderTransformer
from aefeatures._sklearn import BaseSearchCV


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
    raise TypeError(
        "estimator must be an AutoencoderTransformer or a Pipeline that has one as a step, "
        f"got {estimator!r}."
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


def unwrap(estimator: Any) -> Any:
    """Return the estimator inside a frozen one, or the best estimator of a search."""
    if isinstance(estimator, FrozenEstimator):
        return unwrap(estimator.estimator)
    if isinstance(estimator, BaseSearchCV):
        check_is_fitted(estimator)
        if not hasattr(estimator, "best_estimator_"):
            raise ValueError(
                f"This {type(estimator).__name__} has no best estimator, got refit=False. Search "
                "with refit=True."
            )
        return unwrap(estimator.best_estimator_)
    return estimator
