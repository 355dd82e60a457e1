"""Private parts of scikit-learn. No other module uses any of them.

If a new version of scikit-learn moves one of them, only this module has to change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
from sklearn import get_config
from sklearn.base import _fit_context
from sklearn.utils import _safe_indexing as safe_indexing
from sklearn.utils._array_api import _convert_to_numpy, device, get_namespace
from sklearn.utils._param_validation import (
    HasMethods,
    Hidden,
    Interval,
    MissingValues,
    RealNotInt,
    StrOptions,
)
from sklearn.utils._set_output import _get_container_adapter
from sklearn.utils.validation import _check_feature_names_in

try:
    from sklearn.callback import CallbackSupportMixin
except ImportError:  # scikit-learn before 1.9

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Empty class for versions without callbacks."""


__all__ = [
    "CallbackSupportMixin",
    "HasMethods",
    "Hidden",
    "Interval",
    "MissingValues",
    "RealNotInt",
    "StrOptions",
    "array_library",
    "callback_context",
    "check_parameters",
    "columns_of",
    "convert_like",
    "convert_to_numpy",
    "feature_names_in",
    "fit_context",
    "has_callbacks",
    "in_container",
    "is_search",
    "output_container",
    "parameter_constraints",
    "parameter_names",
    "safe_indexing",
    "unchanged_on_error",
    "without_running_fit",
]

F = TypeVar("F", bound=Callable[..., Any])

# Attributes that an estimator with callbacks has only during a fit.
_ATTRIBUTES_OF_RUNNING_FIT = ("_callback_fit_ctx", "_skl_callbacks_to_teardown")


def fit_context(*, prefer_skip_nested_validation: bool) -> Callable[[F], F]:
    """Return scikit-learn's decorator of `fit`, with types so that `fit` keeps its own."""
    decorator: Callable[[F], F] = _fit_context(
        prefer_skip_nested_validation=prefer_skip_nested_validation
    )
    return decorator


@contextmanager
def unchanged_on_error(estimator: Any) -> Iterator[None]:
    """Restore the attributes of an estimator if fitting it fails."""
    before = estimator.__dict__.copy()
    try:
        yield
    except BaseException:
        estimator.__dict__ = before  # one step, which no interrupt can split
        raise


# Parameters


def check_parameters(estimator: Any) -> None:
    """Check the parameters against the constraints of the estimator's class, as `fit` does."""
    estimator._validate_params()


def parameter_constraints(cls: Any) -> dict[str, list[Any]]:
    """Return the constraints of a class for its parameters."""
    constraints: dict[str, list[Any]] = cls._parameter_constraints
    return constraints


def parameter_names(cls: Any) -> list[str]:
    """Return the names of the parameters of a class."""
    names: list[str] = cls._get_param_names()
    return names


def is_search(estimator: Any) -> bool:
    """Return whether the estimator is a search over parameters."""
    from sklearn.model_selection._search import BaseSearchCV

    return isinstance(estimator, BaseSearchCV)


# Callbacks


def has_callbacks(estimator: Any) -> bool:
    """Return whether callbacks were set on the estimator."""
    return bool(getattr(estimator, "_skl_callbacks", None))


def callback_context(estimator: Any) -> Any:
    """Return the context through which the callbacks of a fit are called."""
    return estimator._init_callback_context(max_subtasks=None)


def without_running_fit(state: dict[str, Any]) -> dict[str, Any]:
    """Return attributes without those of a running fit. A callback may save the estimator."""
    return {name: value for name, value in state.items() if name not in _ATTRIBUTES_OF_RUNNING_FIT}


# Arrays of other libraries, and frames


def array_library(X: Any) -> Any:
    """Return the namespace of X, or None for NumPy and without array API dispatch."""
    if not get_config()["array_api_dispatch"] or isinstance(X, (np.ndarray, np.generic)):
        return None
    return get_namespace(X)[0] if hasattr(X, "__dlpack__") else None


def convert_to_numpy(X: Any, library: Any) -> Any:
    """Return an array of another library as a NumPy array."""
    return _convert_to_numpy(X, library)


def convert_like(result: np.ndarray, X: Any, library: Any) -> Any:
    """Return a NumPy array as an array of the library of X, on the device of X."""
    return library.asarray(result, device=device(X))


def output_container(estimator: Any) -> str | None:
    """Return the kind of container that `set_output` asked for."""
    kind: str | None = getattr(estimator, "_sklearn_output_config", {}).get("transform")
    return kind


def in_container(estimator: Any, rows: np.ndarray, given: Any) -> Any:
    """Return rows as a DataFrame with the columns of `fit`; None if `set_output` asks for none.

    `given` is the X that the rows were computed from. The DataFrame takes its index if it has one.
    """
    adapter = _get_container_adapter("transform", estimator)
    if adapter is None:
        return None
    names = _check_feature_names_in(estimator)
    frame = adapter.create_container(rows, given, columns=names)
    return adapter.rename_columns(frame, names.tolist())  # polars replaces the name ""


def feature_names_in(estimator: Any, given: Any = None) -> np.ndarray:
    """Return the names of the columns of X, those `given` if they agree with those of `fit`."""
    names: np.ndarray = _check_feature_names_in(estimator, given)
    return names


def columns_of(column_transformer: Any, name: str) -> Any:
    """Return the positions of the columns that a transformer of a `ColumnTransformer` takes."""
    return column_transformer._transformer_to_input_indices[name]
