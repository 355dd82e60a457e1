"""Missing values in arrays and frames: their marks, their places, and estimates put there."""

from __future__ import annotations

from typing import Any

import numpy as np

from aefeatures._rows.columns import is_frame


def is_plain_mark(mark: Any) -> bool:
    """Whether a mark of missing values is one of NaN, None and NA, which need no search."""
    return mark is None or type(mark).__name__ == "NAType" or bool(mark != mark)


def without_marks(X: Any, mark: Any) -> Any:
    """Return X with a missing value in each place where X has the `mark`."""
    if is_plain_mark(mark):
        return X
    if hasattr(X, "iter_columns"):
        return X.with_columns([_polars_without(column, mark) for column in X.iter_columns()])
    if is_frame(X):
        marked = X.eq(mark)
        return X.mask(marked) if marked.to_numpy(bool, na_value=False).any() else X
    if isinstance(X, np.ma.MaskedArray):
        return np.ma.masked_equal(X, mark)
    X = np.asarray(X)
    marked = np.equal(X, mark, dtype=object).astype(bool)
    if not marked.any():
        return X
    kind = object if X.dtype.kind in "OUS" else np.result_type(X.dtype, np.float16)
    changed = X.astype(kind)
    changed[marked] = np.nan
    return changed


def _polars_without(column: Any, mark: Any) -> Any:
    import polars as pl

    is_text = isinstance(mark, str)
    if is_text != (not column.dtype.is_numeric()) or column.dtype.is_temporal():
        return column
    if is_text and column.dtype not in (pl.String, pl.Categorical, pl.Enum):
        return column
    marked = (column.cast(pl.String) if is_text else column) == mark
    nothing = pl.Series([None], dtype=column.dtype)
    return (
        nothing.new_from_index(0, len(column))
        .zip_with(marked.fill_null(False), column)
        .alias(column.name)
    )


def missing_in(X: Any) -> np.ndarray:
    """Return where a frame or an array has missing values: NaN, None or NA."""
    if hasattr(X, "iter_columns"):
        return np.stack([_missing_in_polars(column) for column in X.iter_columns()], axis=1)
    if is_frame(X):
        of_frame: np.ndarray = X.isna().to_numpy(bool)
        return of_frame
    if X.dtype.kind == "O":
        of_objects: np.ndarray = np.frompyfunc(is_plain_mark, 1, 1)(X).astype(bool)
        return of_objects
    return np.isnan(X) if X.dtype.kind == "f" else np.zeros(X.shape, bool)


def _missing_in_polars(column: Any) -> np.ndarray:
    missing = column.is_null()
    if column.dtype.is_float():
        missing = missing | column.is_nan().fill_null(False)
    return np.asarray(missing.to_numpy())


def filled(X: Any, missing: np.ndarray, estimates: Any) -> Any:
    """Return a table with estimates, another table with the same columns, where X is missing.

    All other entries stay as they are, and columns keep their type.
    """
    if not is_frame(X):
        result = X.copy()
        result[missing] = estimates[missing]
        return result
    places = [*np.flatnonzero(missing.any(axis=0))]
    if hasattr(X, "iter_columns"):
        import polars as pl

        columns = X.get_columns()
        for i in places:
            other = estimates[:, int(i)].cast(columns[i].dtype)
            chosen = other.zip_with(pl.Series(missing[:, i]), columns[i])
            columns[i] = chosen.alias(columns[i].name)
        return pl.DataFrame(columns)
    result = X.copy()
    for i in places:
        result.isetitem(i, _pandas_filled(X.iloc[:, i], missing[:, i], estimates.iloc[:, i]))
    return result


def _pandas_filled(column: Any, missing: np.ndarray, estimates: Any) -> Any:
    values = estimates[missing].array
    column = column.copy()
    if hasattr(column.dtype, "categories"):
        values = np.asarray(values, dtype=object)
        # A later table may lack levels of the first one.
        known = set(column.dtype.categories)
        column = column.cat.add_categories([each for each in {*values} if each not in known])
    column.iloc[np.flatnonzero(missing)] = values
    return column
