"""What new rows keep to: ranges, whole numbers, repeated values and dtypes of the columns."""

from __future__ import annotations

from typing import Any

import numpy as np

from aefeatures._rows.sources import as_source

# Rows of its own that a class counts for as much as all rows do together: the fewer rows a class
# has, the less their repetitions say.
_ROWS_OF_PRIOR = 3

# Chance of a repeated value to stay. Rows in which most values have moved are told from real
# ones by a tree, which then learns the difference.
_STAYS = 0.5


def describe_columns(X: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the smallest and the largest value of each column, and whether all are whole.

    Missing values are left out.
    """
    chunks = [_describe(chunk) for chunk in as_source(X).chunks()]
    low, high, whole = map(np.array, zip(*chunks, strict=True))
    # Of X's dtype: float64 does not hold all integers of 64 bits.
    return np.fmin.reduce(low), np.fmax.reduce(high), np.logical_and.reduce(whole)


def _describe(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    low, high = np.fmin.reduce(rows), np.fmax.reduce(rows)  # which pass over NaN
    if rows.dtype.kind != "f":
        return low, high, np.ones(rows.shape[1], dtype=bool)
    return low, high, (np.isnan(rows) | (rows == np.round(rows))).all(axis=0)


def keep_to(rows: np.ndarray, low: np.ndarray, high: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return rows of floats within the range of their columns, in the dtype of that."""
    rows = np.where(whole, np.round(rows), rows)
    below, above = rows <= low, rows >= high
    # Only values in between are converted: the largest integer's float64 is above it.
    between = np.where(below | above, 0, rows).astype(low.dtype)
    return np.where(below, low, np.where(above, high, between))


class PointMasses:
    """Values that the columns of a class repeat, such as zeros, small integers and categories.

    Noise would move all of them off their value. Each column therefore keeps its distribution: a
    moved value is put on a repeated one if its rank among the moved values of the class is
    within that of the repeated one among the values of the class. Order and units do not matter
    to ranks, and values that are not repeated stay where they were moved.

    A value is counted once for each row of the class that has it, and by its share of all rows
    `_ROWS_OF_PRIOR` times. It is repeated if that makes two.

    Parameters
    ----------
    members : ndarray of shape (n_members, n_features)
        Rows of the class.
    moved : ndarray of shape (n_moved, n_features)
        These rows moved by noise, each equally often.
    rows : ndarray of shape (n_rows, n_features)
        Rows of all classes.
    """

    def __init__(self, members: np.ndarray, moved: np.ndarray, rows: np.ndarray) -> None:
        self._columns = [
            _repeated(*column) for column in zip(members.T, moved.T, rows.T, strict=True)
        ]

    def put(
        self,
        moved: np.ndarray,
        kept: np.ndarray,
        start: np.ndarray,
        rng: np.random.RandomState,
    ) -> None:
        """Change `kept`, what columns hold of `moved`, to repeated values.

        A repeated value in `start`, the rows before they were moved, stays with a chance of a half.
        """
        stays = rng.random_sample(moved.shape) < _STAYS
        for j, (ordered, values, until, repeated) in enumerate(self._columns):
            if len(values) == 0:
                continue
            rank = np.searchsorted(ordered, moved[:, j]) + np.searchsorted(
                ordered, moved[:, j], side="right"
            )
            place = np.searchsorted(until, rank / (2 * len(ordered)))
            place = np.minimum(place, len(values) - 1)
            column = np.where(repeated[place], values[place], kept[:, j])
            place = np.minimum(np.searchsorted(values, start[:, j]), len(values) - 1)
            stays[:, j] &= repeated[place] & (values[place] == start[:, j])
            kept[:, j] = np.where(np.isnan(moved[:, j]), kept[:, j], column)
        # A value that was not moved is none to be put elsewhere.
        np.copyto(kept, start, where=stays | (moved == start))


def _repeated(
    members: np.ndarray, moved: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """For a column: moved values in order, values, the share up to each, which are repeated."""
    members, moved, rows = (each[each == each] for each in (members, moved, rows))  # known
    values, place = np.unique(np.concatenate([members, rows]), return_inverse=True)
    weights = np.full(len(place), _ROWS_OF_PRIOR / max(1, len(rows)))
    weights[: len(members)] = 1.0
    count = np.bincount(place, weights, minlength=len(values))
    if len(members) == 0:
        values = values[:0]
    return np.sort(moved), values, np.cumsum(count) / max(1.0, count.sum()), count >= 2


# Frames

_NUMBERS_OF_POLARS = ("Int", "UInt", "Float", "Boolean")


def describe_dtypes(X: Any) -> list[Any]:
    """Return what `with_dtypes` needs to know of a frame's columns, without objects of pandas."""
    return [_describe_dtype(dtype) for dtype in X.dtypes]


def _describe_dtype(dtype: Any) -> Any:
    if hasattr(dtype, "categories") and hasattr(dtype, "ordered"):
        return np.asarray(dtype.categories), bool(dtype.ordered)
    # Columns of other kinds, such as objects, come back as the numbers that are in them.
    return str(dtype) if getattr(dtype, "kind", "i") in "biuf" else "float64"


def with_dtypes(frame: Any, dtypes: list[Any]) -> Any:
    """Return a frame of numbers with the dtypes that another had."""
    if type(frame).__module__.startswith("polars"):
        import polars as pl

        names = [of if of.startswith(_NUMBERS_OF_POLARS) else "Float64" for of in dtypes]
        columns = zip(frame.columns, names, strict=True)
        return frame.cast({column: getattr(pl, name) for column, name in columns})
    import pandas as pd

    for i, of in enumerate(dtypes):
        if isinstance(of, tuple):
            column: Any = to_categories(frame.iloc[:, i], pd.CategoricalDtype(*of))
        else:
            column = frame.iloc[:, i].astype(of)
        frame.isetitem(i, column)
    return frame


def to_categories(column: Any, dtype: Any) -> Any:
    """Return numbers as the nearest of a dtype's categories, which are numbers too."""
    import pandas as pd

    values = np.asarray(column, dtype=np.float64)
    categories = np.asarray(dtype.categories, dtype=np.float64)
    order = np.argsort(categories)
    borders = (categories[order][1:] + categories[order][:-1]) / 2
    codes = np.where(np.isnan(values), -1, order[np.searchsorted(borders, values)])
    return pd.Categorical.from_codes(codes, dtype=dtype)


def numbers_of_categories(X: Any) -> Any:
    """Return a frame of pandas with numbers where it has categories; all else as it is."""
    if not hasattr(X, "iloc") or not any(hasattr(dtype, "categories") for dtype in X.dtypes):
        return X
    numbers = X.copy(deep=False)
    for i, dtype in enumerate(X.dtypes):
        kind = getattr(getattr(dtype, "categories", None), "dtype", None)
        if kind is None or not (kind == np.dtype(object) or kind.kind in "biuf"):
            continue
        codes = X.iloc[:, i].cat.codes.to_numpy()
        try:
            categories = np.append(np.asarray(dtype.categories, dtype=np.float64), np.nan)
        except (TypeError, ValueError):
            continue  # text, which is refused by the name of its column later
        numbers.isetitem(i, categories[codes])  # -1, a missing one, is the last
    return numbers
