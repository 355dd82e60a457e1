"""Checks of rows, codes and labels of all supported types."""

from __future__ import annotations

from functools import partial
from numbers import Integral
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn import get_config
from sklearn.utils import assert_all_finite, get_tags
from sklearn.utils.validation import (
    check_array,
    check_consistent_length,
    column_or_1d,
    validate_data,
)

from aefeatures._rows.batches import work_dtype
from aefeatures._rows.columns import is_frame, is_pandas, make_frame
from aefeatures._rows.sources import ArraySource, RowView, Source, as_source, is_dataset
from aefeatures._rows.tables import (
    Table,
    learn_table,
    refuse_columns,
    set_table,
    table_of,
)
from aefeatures._sklearn import (
    array_library,
    convert_like,
    convert_to_numpy,
    in_container,
    safe_indexing,
)
from aefeatures._torch.ranks import current_ranks


def check_rows_and_labels(
    estimator: Any, X: Any, y: Any, *, reset: bool, min_rows: int = 1
) -> tuple[Source, np.ndarray | None]:
    """Return X as `check_rows` does, and y if the estimator requires it, otherwise None."""
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


def check_labels(y: Any) -> np.ndarray:
    """Return y as a vector, of objects if another array would change the kind of its values."""
    y = as_numpy(y)
    dtypes = [y.dtype] if hasattr(y, "dtype") else getattr(y, "dtypes", [])
    if any(hasattr(dtype, "na_value") for dtype in dtypes):  # pandas' own, which may hold NA
        y = np.asarray(y.astype(object))
    elif hasattr(y, "null_count") and y.null_count():  # a series of polars
        y = np.array(y.to_list(), dtype=object)
    elif isinstance(y, (list, tuple)) and 0 < sum(isinstance(label, str) for label in y) < len(y):
        y = np.array(y, dtype=object)  # otherwise numbers and None would become texts
    labels: np.ndarray = column_or_1d(y, warn=True)
    return labels


def check_rows(estimator: Any, X: Any, *, reset: bool, min_rows: int = 1) -> Source:
    """Return X as rows of numbers without infinity, not copied if it is a matrix of numbers.

    With `reset`, the estimator learns number, names and kinds of columns from X, otherwise X is
    checked against them. The values of a dataset in a file are checked when they are read.
    """
    if reset and hasattr(estimator, "categorical_features"):
        set_table(estimator, _learned_table(estimator, X))
    table = table_of(estimator)
    if table is not None:
        return _check_table(estimator, table, X, reset=reset, min_rows=min_rows)
    if is_dataset(X):
        return _check_dataset(estimator, X, reset=reset, min_rows=min_rows)
    return as_source(check_matrix(estimator, X, reset=reset, min_rows=min_rows))


def _learned_table(estimator: Any, X: Any) -> Table | None:
    """Return the table that X is, or None if X is a matrix of numbers."""
    chosen = estimator.categorical_features
    has_chosen = not (chosen is None or isinstance(chosen, str) or np.size(chosen) == 0)
    refuse_unknown_size(X)
    if has_chosen and isinstance(X, (list, tuple)):
        X = _as_array(X)
    if not (is_frame(X) or isinstance(X, np.ndarray)) or len(X.shape) != 2:
        if not has_chosen:
            return None
        raise ValueError(
            "categorical_features needs a data frame or an array of two dimensions in memory, got "
            f"{type(X).__name__}. Convert X, or set categorical_features=None."
        )
    return learn_table(
        X, chosen, estimator.min_frequency, estimator.max_categories, current_ranks()
    )


def _check_table(estimator: Any, table: Table, X: Any, *, reset: bool, min_rows: int) -> Source:
    """Return the rows of a table as numbers, after the same checks as of a matrix."""
    refuse_unknown_size(X)
    if not is_frame(X):
        X = _as_array(X)
    if len(X.shape) != 2 or X.shape[0] < min_rows:
        check_array(np.empty(X.shape), estimator=estimator)  # raises scikit-learn's message
    validate_data(estimator, X, reset=reset, skip_check_array=True)
    numbers = table.numbers(X)
    with _overflow_ignored():
        assert_all_finite(
            numbers, allow_nan=True, input_name="X", estimator_name=type(estimator).__name__
        )
    return ArraySource(numbers)


def _as_array(X: Any) -> np.ndarray:
    """Return rows as an array, of objects if their library has no arrays of its own."""
    if sparse.issparse(X):
        X = X.toarray()
    X = as_numpy(X)
    return X if isinstance(X, np.ndarray) else np.array(X, dtype=object)


def check_matrix(estimator: Any, X: Any, *, reset: bool, min_rows: int = 1) -> Any:
    """Return X, unless it is a dataset in a file, as an array or a CSR matrix."""
    refuse_unknown_size(X)
    try:
        X = _as_numbers(X)
        with _overflow_ignored():
            rows: Any = validate_data(
                estimator,
                X,
                reset=reset,
                accept_sparse="csr",
                dtype="numeric",
                ensure_all_finite="allow-nan",
                ensure_min_samples=min_rows,
            )
            if rows.dtype.kind == "O" or (rows.dtype.kind == "f" and rows.dtype.itemsize > 8):
                rows = _floats(rows)
                assert_all_finite(rows, allow_nan=True, input_name="X")
    except ValueError as error:
        if np.ndim(X) > 2:
            raise ValueError(f"{error} Flatten with X.reshape(len(X), -1).") from error
        raise
    except OverflowError as error:  # a Python integer of hundreds of digits
        raise ValueError(f"X has a value that does not fit into float64: {error}.") from error
    if rows.dtype.kind not in "biuf":
        raise ValueError(f"X must hold numbers, got {rows.dtype}. Convert its columns to numbers.")
    if sparse.issparse(rows) and not rows.has_canonical_format:
        rows = rows.copy()
        rows.sum_duplicates()
    return rows


def refuse_unknown_size(X: Any) -> None:
    """Refuse an X whose rows are not computed yet."""
    name = f"{type(X).__module__.partition('.')[0]} {type(X).__name__}"
    if type(X).__name__ == "LazyFrame":
        raise TypeError(f"X is a {name}, which holds no rows yet. Pass X.collect().")
    shape = () if isinstance(X, torch.Tensor) else getattr(X, "shape", None) or ()
    if not all(isinstance(n, Integral) for n in shape):
        raise ValueError(
            f"X is a {name} whose number of rows is not known. Pass X.compute() or, to read it by "
            "chunks, a dask array of known size: X.compute_chunk_sizes(), or "
            "X.to_dask_array(lengths=True) for a frame."
        )


def _as_numbers(X: Any) -> Any:
    """Return X in NumPy's types: an array, a sparse matrix, or a frame with the same names.

    None and NA become NaN. If X is in NumPy's types already, it is returned unchanged.
    """
    if isinstance(X, np.ma.MaskedArray):
        X = _fill_masked(X)
    elif isinstance(X, (list, tuple)) and any(
        issubclass(kind, torch.Tensor) for kind in set(map(type, X))
    ):
        X = [as_numpy(row) for row in X]
    else:
        X = as_numpy(X)
    if hasattr(X, "columns") and hasattr(X, "dtypes"):
        return _polars_numbers(X) if hasattr(X, "iter_columns") else _pandas_numbers(X)
    if isinstance(X, np.ndarray) and X.dtype.kind == "O" and X.ndim == 2:
        return _floats(X)
    return X


def _floats(objects: Any) -> Any:
    """Return objects, or numbers of other types, as float64, with None and NA as NaN."""
    try:
        try:
            return objects.astype(np.float64)
        except TypeError:  # raised for NA, which only pandas has
            missing = np.frompyfunc(lambda value: type(value).__name__ == "NAType", 1, 1)(objects)
            return np.where(missing.astype(bool), np.nan, objects).astype(np.float64)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        place, value = next(each for each in np.ndenumerate(objects) if not _is_number(each[1]))
        raise kind(
            f"{str(error).rstrip('.')}. X must hold numbers, but {value!r:.100} is at position "
            f"{place}. Convert it to a number."
        ) from error


def _is_number(value: Any) -> bool:
    cell = np.empty(1, dtype=object)
    cell[0] = value  # `np.array([value])` would take a list apart
    try:
        cell.astype(np.float64)
    except (TypeError, ValueError):
        return type(value).__name__ == "NAType"
    return True


def _pandas_numbers(X: Any) -> Any:
    """Return a pandas frame in NumPy's types, nullable columns in the smallest that fits."""
    if all(_is_plain(dtype) for dtype in X.dtypes):
        return X
    columns: list[Any] = [_pandas_column(X.iloc[:, i]) for i in range(X.shape[1])]
    refuse_columns(X.columns, X.dtypes, [column is None for column in columns])
    numbers = np.empty(X.shape, np.result_type(*{column.dtype for column in columns}))
    for i, column in enumerate(columns):
        numbers[:, i] = column
    return type(X)(numbers, index=X.index, columns=X.columns)


def _is_plain(dtype: Any) -> bool:
    """Whether a column has numbers in a type of NumPy, even if pandas stores it as sparse."""
    if hasattr(dtype, "fill_value"):
        dtype = dtype.subtype
    return isinstance(dtype, np.dtype) and dtype.kind in "biuf"


def _pandas_column(column: Any) -> np.ndarray | None:
    """Return the numbers in a column, or None if it holds other values."""
    dtype = getattr(getattr(column.dtype, "categories", column), "dtype", None)
    held = getattr(dtype, "numpy_dtype", getattr(dtype, "subtype", dtype))
    kind = getattr(held, "kind", "O")
    if str(dtype).startswith(("str", "date", "time", "duration")) or kind not in "biufO":
        return None
    if kind != "O" and dtype is column.dtype:
        if not column.hasnans:
            return column.to_numpy(held)
        return column.to_numpy(np.result_type(held, np.float16), na_value=np.nan)
    return _floats_or_none(column.to_numpy(object))


def _polars_numbers(X: Any) -> Any:
    """Return a polars frame whose columns have numbers in NumPy's types."""
    import polars as pl

    changed: list[Any] = []
    refused = []
    for column in X.get_columns():
        kind = str(column.dtype)
        refused.append(not (column.dtype.is_numeric() or kind in ("Boolean", "Null", "Object")))
        if kind in ("Boolean", "Null") and column.null_count():
            changed.append(column.cast(pl.Float32))
        elif kind == "Object":
            numbers = _floats_or_none(column.to_numpy())
            refused[-1] = numbers is None
            changed.append(pl.Series(column.name, numbers))
        elif not refused[-1] and column[:0].to_numpy().dtype.kind == "O":  # such as Decimal
            changed.append(column.cast(pl.Float64))
    refuse_columns(X.columns, X.dtypes, refused)
    return X.with_columns(changed) if changed else X


def _floats_or_none(objects: np.ndarray) -> np.ndarray | None:
    try:
        floats: np.ndarray = _floats(objects)
    except (TypeError, ValueError):
        return None
    return floats


def _overflow_ignored() -> np.errstate:
    """Ignore warnings if a sum overflows, after which scikit-learn checks each number."""
    return np.errstate(over="ignore", invalid="ignore")


def _fill_masked(X: Any) -> np.ndarray:
    """Return the array with NaN (a missing value) for masked entries."""
    if not np.ma.is_masked(X):
        return np.asarray(X)
    if X.dtype.kind not in "biufO":  # such as dates, which are refused later
        return np.asarray(X)
    dtype = np.result_type(X.dtype, np.float16)  # smallest type for the numbers and NaN
    filled: np.ndarray = X.astype(dtype).filled(np.nan)
    return filled


def take_samples(X: Any, index: np.ndarray) -> Any:
    """Return the rows of X at increasing positions, in the type of X, which may be any."""
    if isinstance(X, RowView):
        return X[index]
    return as_source(X).take(index) if is_dataset(X) else safe_indexing(X, index)


def _check_dataset(estimator: Any, X: Any, *, reset: bool, min_rows: int) -> Source:
    """Check a dataset without reading it; floats are checked when they are read."""
    refuse_unknown_size(X)
    if X.shape[0] < min_rows or X.shape[1] == 0:
        check_array(np.empty(X.shape), estimator=estimator)  # raises scikit-learn's message
    check = partial(_check_chunk, estimator)
    if X.dtype.kind not in "biuf":
        check(np.asarray(X[:1]))  # its error may be more specific than the next one
    if X.dtype.kind not in "biuf" or X.dtype.itemsize > 8:
        raise ValueError(f"A dataset must hold numbers of at most 64 bits, got {X.dtype}.")
    validate_data(estimator, X, reset=reset, skip_check_array=True)
    return as_source(X, check if X.dtype.kind == "f" else None)


def _check_chunk(estimator: Any, chunk: np.ndarray) -> None:
    with _overflow_ignored():
        check_array(
            chunk,
            dtype="numeric",
            ensure_all_finite="allow-nan",
            estimator=estimator,
            input_name="X",
        )


def check_codes(X: Any, n_components: int, estimator: Any) -> np.ndarray:
    """Return X as a finite matrix of codes."""
    if np.ma.is_masked(X):
        raise ValueError("X has masked values, but every number of a code is needed.")
    X = _as_numbers(X)
    dtypes: list[Any] = [np.float64, np.float32]
    if getattr(getattr(X, "dtype", None), "itemsize", 0) == 4 and X.dtype.kind == "f":
        dtypes.reverse()  # float32 in another byte order becomes float32
    with _overflow_ignored():
        codes: np.ndarray = check_array(X, dtype=dtypes, estimator=estimator)
    if codes.shape[1] != n_components:
        raise ValueError(
            f"X has {codes.shape[1]} columns, but {type(estimator).__name__} has codes of "
            f"{n_components} components."
        )
    return codes


def as_numpy(X: Any) -> Any:
    """Return an array of another library as a NumPy array, in the same memory if possible.

    Tensors are always converted, other arrays only if `array_api_dispatch` is on.
    """
    if isinstance(X, torch.Tensor):
        return _tensor_as_numpy(X)
    library = array_library(X)
    return X if library is None else convert_to_numpy(X, library)


def _tensor_as_numpy(X: torch.Tensor) -> np.ndarray:
    problem = None
    if X.is_nested:
        problem = "has rows of different lengths. Pass X.to_padded_tensor(torch.nan)."
    elif X.layout != torch.strided:
        problem = f"is of layout {X.layout}. Pass X.to_dense(), or a matrix of scipy.sparse."
    elif X.is_meta:
        problem = "is on the device 'meta', where it has no values."
    elif X.is_quantized:
        problem = "is quantized. Pass X.dequantize()."
    if problem is not None:
        raise TypeError(f"The tensor {problem}")
    if X.is_floating_point() and X.element_size() <= 2 and X.dtype != torch.float16:
        X = X.float()  # NumPy has no bfloat16
    # NumPy supports neither gradients nor lazy conjugation and negation.
    array: np.ndarray = X.detach().cpu().resolve_conj().resolve_neg().numpy()
    return array


def like(result: np.ndarray, X: Any) -> Any:
    """Return a result as an array of the library of X, on the device of X."""
    library = array_library(X)
    if library is None:
        return result
    if isinstance(X, torch.Tensor):
        return torch.from_numpy(result).to(X.device, work_dtype(result.dtype, X.device))
    return convert_like(result, X, library)


def name_of_array_library(X: Any) -> str | None:
    """Return the name that `check_array_library` compares, or None if any estimator accepts X."""
    library = array_library(X)
    # The module of a library's namespace depends on scikit-learn's version.
    return None if library is None else library.__name__.rpartition(".")[2]


def check_array_library(estimator: Any, X: Any, fitted: str | None, method: str) -> None:
    """With array API dispatch, refuse another library than in `fit`, as scikit-learn does."""
    if fitted is None or not get_config()["array_api_dispatch"]:
        return
    name = name_of_array_library(X)
    if name != fitted:
        raise ValueError(
            f"Inputs passed to {type(estimator).__name__}.{method}() must use the same namespace "
            f"as those passed to fit() with array_api_dispatch=True: expected {fitted}, got "
            f"{name or type(X).__name__}."
        )


def in_columns_of_fit(estimator: Any, rows: np.ndarray, given: Any) -> Any:
    """Return rows in X's own columns as `like` does, or in a frame if `set_output` asks for one.

    The rows were computed from `given`, and a frame has its index, if there is one.
    """
    table = table_of(estimator)
    if table is not None:
        rows = table.rows(rows, _index_of(given))
        if table.library != "numpy":
            return rows
    frame = in_container(estimator, rows, given)
    return like(rows, given) if frame is None else frame


def scores_in_columns(estimator: Any, scores: np.ndarray, given: Any) -> Any:
    """Return a number for each entry of X, in a frame if X is a table."""
    table = table_of(estimator)
    if table is None or table.library == "numpy":
        frame = in_container(estimator, scores, given)
        return like(scores, given) if frame is None else frame
    return make_frame(table.library, [*scores.T], table.names, _index_of(given))


def probabilities_in_columns(estimator: Any, found: np.ndarray, given: Any) -> Any:
    """Return numbers and probabilities of levels in columns of their own, in a frame if X was one.

    Raises
    ------
    ValueError
        If X has no categories.
    """
    table = table_of(estimator)
    assert table is not None
    return table.probabilities(found, _index_of(given))


def check_has_levels(estimator: Any) -> None:
    """Refuse to give probabilities of levels if X has no categories."""
    table = table_of(estimator)
    if table is None or not table.is_category.any():
        raise ValueError(
            "probabilities=True needs categories, but the X of fit has no categorical columns."
        )


def _index_of(X: Any) -> Any:
    """Return the index of a frame of pandas, otherwise None."""
    return X.index if is_frame(X) and is_pandas(X) else None
