"""Checks of X and of the parameters; every "auto"; scikit-learn's private parts."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any, TypeVar

import numpy as np
import torch
from scipy import sparse
from sklearn import get_config
from sklearn.base import _fit_context
from sklearn.model_selection._search import BaseSearchCV
from sklearn.utils import _safe_indexing, assert_all_finite, get_tags
from sklearn.utils._array_api import _convert_to_numpy, device, get_namespace
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils._set_output import _get_container_adapter
from sklearn.utils.validation import (
    _check_feature_names_in,
    check_array,
    check_consistent_length,
    column_or_1d,
    validate_data,
)

from aefeatures._batches import (
    Rows,
    RowView,
    is_dataset,
    iterate_chunks,
    take_rows,
    work_dtype,
)
from aefeatures._checkpoint import Checkpoint
from aefeatures._device import PRECISIONS
from aefeatures._losses import LOSSES
from aefeatures._networks import ACTIVATIONS, NORMALIZATIONS, Network
from aefeatures._regularizers import Regularizer
from aefeatures._scaling import SCALINGS, Scaling
from aefeatures._training import SCHEDULES

try:
    from sklearn.callback import CallbackSupportMixin
except ImportError:  # scikit-learn before 1.9

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Stands in for what older versions lack."""


__all__ = [
    "CallbackSupportMixin",
    "GENERATOR_CONSTRAINTS",
    "OVERSAMPLER_CONSTRAINTS",
    "PARAMETER_CONSTRAINTS",
    "BaseSearchCV",
    "Interval",
    "as_numpy",
    "check_array_library",
    "check_codes",
    "check_labels",
    "check_loss_range",
    "check_rows",
    "check_rows_and_labels",
    "fit_context",
    "in_columns_of_fit",
    "get_tags",
    "like",
    "name_of_array_library",
    "resolve_max_epochs",
    "resolve_principal_components",
    "take_samples",
    "unchanged_on_error",
]

F = TypeVar("F", bound=Callable[..., Any])

# On small data "auto" stands for 3,000 steps at batch 64.
_AUTO_BATCH = 64
_AUTO_ROWS = 3_000 * _AUTO_BATCH

# Fewer rows do not settle the axes: codes of new rows are worse than from all columns.
_ROWS_PER_COMPONENT = 64

PARAMETER_CONSTRAINTS: dict[str, list[Any]] = {
    "n_components": [Interval(Integral, 1, None, closed="left")],
    "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
    "activation": [StrOptions(set(ACTIVATIONS))],
    "normalization": [None, StrOptions(set(NORMALIZATIONS))],
    "network": [None, Network, callable],
    "scaling": [None, StrOptions(set(SCALINGS))],
    "loss": [StrOptions(set(LOSSES)), callable],
    "regularizer": [None, str, Regularizer, list, tuple],
    "learning_rate": [Interval(Real, 0, None, closed="neither")],
    "learning_rate_schedule": [StrOptions(set(SCHEDULES))],
    "weight_decay": [Interval(Real, 0, None, closed="left")],
    "batch_size": [Interval(Integral, 1, None, closed="left")],
    "max_epochs": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
    "early_stopping": ["boolean"],
    "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
    "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
    "tol": [Interval(Real, 0, None, closed="left")],
    "warm_start": ["boolean"],
    "device": [str, torch.device],
    "precision": [StrOptions(set(PRECISIONS))],
    "random_state": ["random_state"],
    "checkpoint": [None, str, os.PathLike, Checkpoint],
    "verbose": ["verbose"],
}


_CODES_AND_BACK = HasMethods(["fit", "transform", "inverse_transform"])

GENERATOR_CONSTRAINTS: dict[str, list[Any]] = {
    "autoencoder": [None, _CODES_AND_BACK],
    "density": [None, StrOptions({"normal"}), HasMethods(["fit", "sample"])],
    "keep_range": ["boolean"],
    "random_state": ["random_state"],
}

# Beside those of imbalanced-learn's base class.
OVERSAMPLER_CONSTRAINTS: dict[str, list[Any]] = {
    "autoencoder": [None, _CODES_AND_BACK],
    "spread": [Interval(Real, 0, None, closed="left")],
}


def fit_context(*, prefer_skip_nested_validation: bool) -> Callable[[F], F]:
    """scikit-learn's decorator of `fit`, with types: else type checkers see none of `fit`."""
    decorator: Callable[[F], F] = _fit_context(
        prefer_skip_nested_validation=prefer_skip_nested_validation
    )
    return decorator


def check_rows_and_labels(
    estimator: Any, X: Any, y: Any, *, reset: bool, min_rows: int = 1
) -> tuple[Rows, np.ndarray | None]:
    """Return X as `check_rows` does, and y where the estimator asks for it."""
    if not get_tags(estimator).target_tags.required:
        return check_rows(estimator, X, reset=reset, min_rows=min_rows), None
    if y is None:
        raise ValueError(
            f"This {type(estimator).__name__} estimator requires y to be passed, but the target y "
            "is None."
        )
    rows = check_rows(estimator, X, reset=reset, min_rows=min_rows)
    y = check_labels(y)
    assert_all_finite(y, allow_nan=True, input_name="y")
    check_consistent_length(rows, y)
    return rows, y


@contextmanager
def unchanged_on_error(estimator: Any) -> Iterator[None]:
    """Give an estimator back what it was where fitting it fails."""
    before = estimator.__dict__.copy()
    try:
        yield
    except BaseException:
        estimator.__dict__ = before  # at once: an interrupt finds one or the other
        raise


def check_labels(y: Any) -> np.ndarray:
    """Return y as a vector."""
    y = as_numpy(y)
    dtype = getattr(y, "dtype", None)
    if getattr(dtype, "kind", None) == "i" and not isinstance(dtype, np.dtype):
        y = np.asarray(y, dtype=object)  # pandas' nullable integers, which would become floats
    labels: np.ndarray = column_or_1d(y, warn=True)
    return labels


def check_rows(estimator: Any, X: Any, *, reset: bool, min_rows: int = 1) -> Rows:
    """Return X as a matrix of numbers without infinity, not copied where it is one already.

    `reset` tells whether the estimator's number and names of columns are learned from X or
    X is checked against them.
    """
    if is_dataset(X):
        return _check_dataset(estimator, X, reset=reset, min_rows=min_rows)
    X = _fill_masked(X) if isinstance(X, np.ma.MaskedArray) else as_numpy(X)
    if hasattr(X, "columns") and hasattr(X, "dtypes"):
        _check_columns(X)
    try:
        with _no_warnings_of_sums():
            rows: Rows = validate_data(
                estimator,
                X,
                reset=reset,
                accept_sparse="csr",
                dtype="numeric",
                ensure_all_finite="allow-nan",
                ensure_min_samples=min_rows,
            )
    except ValueError as error:
        if np.ndim(X) > 2:
            raise ValueError(f"{error} Flatten with X.reshape(len(X), -1).") from error
        raise
    except OverflowError as error:  # a Python integer of hundreds of digits
        raise ValueError(f"Input X has a value that no float64 holds: {error}.") from error
    if rows.dtype.kind not in "biuf":
        raise ValueError(f"X must hold numbers, got {rows.dtype}. Convert its columns to numbers.")
    if sparse.issparse(rows) and not rows.has_canonical_format:
        rows = rows.copy()
        rows.sum_duplicates()
    if rows.dtype.kind == "f" and rows.dtype.itemsize > 8:
        with _no_warnings_of_sums():
            rows = rows.astype(np.float64)
            assert_all_finite(rows, allow_nan=True, input_name="X")
    return rows


def _check_columns(X: Any) -> None:
    """Refuse the columns of a frame that are no numbers, by their names."""
    others = [
        f"{name!r} ({dtype})"
        for i, (name, dtype) in enumerate(zip(X.columns, X.dtypes, strict=True))
        if not _holds_numbers(X, i, dtype)
    ]
    if others:
        more = ", ..." if len(others) > 5 else ""
        raise ValueError(
            f"X must hold numbers, but these columns do not: {', '.join(others[:5])}{more}. Encode "
            "them first, as with skrub.TableVectorizer or a ColumnTransformer."
        )


def _holds_numbers(X: Any, i: int, dtype: Any) -> bool:
    """Whether a frame's column i may hold numbers; objects, as texts are in pandas 2, are tried."""
    if hasattr(dtype, "is_numeric"):  # of polars
        return bool(dtype.is_numeric()) or str(dtype) in ("Boolean", "Null", "Object")
    categories = getattr(dtype, "categories", None)
    dtype = getattr(categories, "dtype", dtype)
    kind = getattr(dtype, "kind", "O")
    if kind != "O" or str(dtype).startswith(("str", "date", "time", "duration")):
        return kind in "biuf"
    try:
        np.asarray(X.iloc[:, i] if categories is None else categories, dtype=np.float64)
    except (TypeError, ValueError):
        return False
    except OverflowError:  # numbers all the same: `check_rows` says what is wrong
        pass
    return True


def _no_warnings_of_sums() -> np.errstate:
    """Large numbers whose sum is not finite: scikit-learn then looks at each of them."""
    return np.errstate(over="ignore", invalid="ignore")


def _fill_masked(X: Any) -> np.ndarray:
    """Return the array with NaN, which is a missing value, where it is masked."""
    if not np.ma.is_masked(X):
        return np.asarray(X)
    if X.dtype.kind not in "biufO":  # dates and the like, which are refused
        return np.asarray(X)
    held = np.result_type(X.dtype, np.float16)  # the smallest that holds the numbers and NaN
    filled: np.ndarray = X.astype(held).filled(np.nan)
    return filled


def take_samples(X: Any, index: np.ndarray) -> Any:
    """The rows at the increasing positions `index` of an X of any kind, in that kind."""
    if isinstance(X, RowView):
        return X[index]
    return take_rows(X, index) if is_dataset(X) else _safe_indexing(X, index)


def _check_dataset(estimator: Any, X: Any, *, reset: bool, min_rows: int) -> Any:
    """Check a dataset by its chunks instead of reading it whole."""
    if X.shape[0] < min_rows or X.shape[1] == 0:
        check_array(np.empty(X.shape), estimator=estimator)  # raises scikit-learn's message
    # Integers are finite: of these the first row tells all.
    for chunk in iterate_chunks(X) if X.dtype.kind not in "biu" else [X[:1]]:
        with _no_warnings_of_sums():
            check_array(
                np.asarray(chunk),
                dtype="numeric",
                ensure_all_finite="allow-nan",
                estimator=estimator,
                input_name="X",
            )
    validate_data(estimator, X, reset=reset, skip_check_array=True)
    return X


def check_codes(Z: Any, n_components: int, estimator: Any) -> np.ndarray:
    """Return Z as a finite matrix of codes."""
    if np.ma.is_masked(Z):
        raise ValueError("Z has masked values, but every number of a code is needed.")
    Z = as_numpy(Z)
    with _no_warnings_of_sums():
        codes: np.ndarray = check_array(Z, dtype=[np.float64, np.float32], estimator=estimator)
    if codes.shape[1] != n_components:
        raise ValueError(
            f"Z has {codes.shape[1]} columns, but {type(estimator).__name__} has codes of "
            f"{n_components} components."
        )
    return codes


# Arrays of other libraries, where scikit-learn's array API dispatch is on


def _array_library(X: Any) -> Any:
    """The namespace of an array that is not NumPy's; None for all else and without dispatch."""
    if not get_config()["array_api_dispatch"] or isinstance(X, (np.ndarray, np.generic)):
        return None
    return get_namespace(X)[0] if hasattr(X, "__dlpack__") else None


def as_numpy(X: Any) -> Any:
    """Return an array of another library as NumPy's, in the same memory where that can be."""
    library = _array_library(X)
    if library is None:
        return X
    if not isinstance(X, torch.Tensor):
        return _convert_to_numpy(X, library)
    X = X.detach().cpu()
    return (X.float() if X.dtype == torch.bfloat16 else X).numpy()


def like(result: np.ndarray, X: Any) -> Any:
    """Return a result as an array of the library of X, on the device of X."""
    library = _array_library(X)
    if library is None:
        return result
    if isinstance(X, torch.Tensor):
        return torch.from_numpy(result).to(X.device, work_dtype(result.dtype, X.device))
    return library.asarray(result, device=device(X))


def name_of_array_library(X: Any) -> str | None:
    """What `check_array_library` compares; None for what any estimator takes."""
    library = _array_library(X)
    # Where the namespace of a library is found depends on scikit-learn's version.
    return None if library is None else library.__name__.rpartition(".")[2]


def check_array_library(estimator: Any, X: Any, fitted: str | None, method: str) -> None:
    """Refuse, with dispatch, another library than that of `fit`: scikit-learn's contract."""
    if fitted is None or not get_config()["array_api_dispatch"]:
        return
    name = name_of_array_library(X)
    if name != fitted:
        raise ValueError(
            f"Inputs passed to {type(estimator).__name__}.{method}() must use the same namespace "
            f"as those passed to fit() where array_api_dispatch=True: {fitted}, got "
            f"{name or type(X).__name__}."
        )


def in_columns_of_fit(estimator: Any, rows: np.ndarray, given: Any) -> Any:
    """Rows in X's own columns, as `like` gives them; in a frame where `set_output` asks for one.

    `given` is what they were computed from, whose index, if it has one, they take.
    """
    adapter = _get_container_adapter("transform", estimator)
    if adapter is None:
        return like(rows, given)
    return adapter.create_container(rows, given, columns=_check_feature_names_in(estimator))


def check_loss_range(loss: Any, scaling: Scaling, name: str | None) -> None:
    """Refuse "bce" where the network's range is not [0, 1]."""
    if loss == "bce" and not scaling.bounded:
        raise ValueError(
            f"loss='bce' needs data in the range [0, 1], which scaling={name!r} does not give "
            "for this X. Use scaling='feature' or scaling='global'."
        )


def resolve_max_epochs(
    max_epochs: int | str, n_rows: int, batch_size: int, regularizers: Sequence[Regularizer]
) -> int:
    """The number of epochs that "auto" stands for on `n_rows` training rows."""
    if max_epochs != "auto":
        return int(max_epochs)
    fewest = max([Regularizer.min_epochs, *(each.min_epochs for each in regularizers)])
    most = min([Regularizer.max_epochs, *(each.max_epochs for each in regularizers)])
    # Of data smaller than a batch an epoch is one step.
    steps_worth = math.ceil(_AUTO_ROWS / max(n_rows, _AUTO_BATCH, batch_size))
    return max(fewest, int(min(most, steps_worth)))


def resolve_principal_components(
    shape: tuple[int, int], regularizers: Sequence[Regularizer]
) -> int | None:
    """How many principal components of X the default network reads; None for all columns."""
    asked = [regularizer.n_principal_components for regularizer in regularizers]
    most = min([Regularizer.n_principal_components, *asked])
    n_rows, n_features = shape
    return int(most) if most < n_features and most * _ROWS_PER_COMPONENT <= n_rows else None
