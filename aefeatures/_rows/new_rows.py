"""Properties of columns that new rows keep: range, distribution, levels and dtype."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from aefeatures._rows.sources import as_source, evenly_spaced

# In the count of repeated values, all rows together weigh as much as this many rows of the class.
# The fewer rows a class has, the less its own repetitions say.
_PRIOR_ROWS = 3

# Probability that a repeated value stays as it is. If most values of a row changed, a decision
# tree could tell new rows from real ones, and would learn that difference.
_KEEP_PROBABILITY = 0.5


# The distribution of a column is kept as this many numbers, if the class has at least as many rows
# as the other number.
_GRID = 1_001
_LEAST_ROWS = 32


def describe_columns(X: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the smallest and the largest value of each column, and whether all are whole.

    Missing values are left out.
    """
    chunks = [_describe(chunk) for chunk in as_source(X).chunks()]
    low, high, whole = map(np.array, zip(*chunks, strict=True))
    # These stay in X's dtype, as float64 cannot hold all 64-bit integers.
    return np.fmin.reduce(low), np.fmax.reduce(high), np.logical_and.reduce(whole)


def _describe(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    low, high = np.fmin.reduce(rows), np.fmax.reduce(rows)  # these ignore NaN
    if rows.dtype.kind != "f":
        return low, high, np.ones(rows.shape[1], dtype=bool)
    return low, high, (np.isnan(rows) | (rows == np.round(rows))).all(axis=0)


def keep_to(rows: np.ndarray, low: np.ndarray, high: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return rows clipped to the range of the columns, rounded if whole, in the dtype of `low`."""
    rows = np.where(whole, np.round(rows), rows)
    below, above = rows <= low, rows >= high
    # Other values are not converted: as float64, the largest 64-bit integer is out of its range.
    between = np.where(below | above, 0, rows).astype(low.dtype)
    return np.where(below, low, np.where(above, high, between))


class PointMasses:
    """Values that the columns of a class repeat, such as zeros, small integers and categories.

    Noise would move every one of these values. `restore` therefore gives each column its
    distribution back: a moved value is replaced by a repeated one if its rank among the moved
    values is within the ranks of the repeated value among the values of the class. Ranks do not
    depend on the units of the column. All other moved values stay as they are.

    The count of a value is the number of rows of the class that have it, plus `_PRIOR_ROWS` times
    its share of all rows. A value is repeated if its count is at least 2.

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

    def restore(
        self,
        moved: np.ndarray,
        kept: np.ndarray,
        start: np.ndarray,
        rng: np.random.RandomState,
    ) -> None:
        """Put repeated values into `kept`, which holds the result of `keep_to` for `moved`.

        `start` holds the rows before they were moved. Each repeated value in it stays with a
        probability of one half.
        """
        stays = rng.random_sample(moved.shape) < _KEEP_PROBABILITY
        for j, (ordered, values, shares, repeated) in enumerate(self._columns):
            if len(values) == 0:
                continue
            last = len(values) - 1
            rank = np.searchsorted(ordered, moved[:, j]) + np.searchsorted(
                ordered, moved[:, j], side="right"
            )
            place = np.minimum(np.searchsorted(shares, rank / (2 * len(ordered))), last)
            column = np.where(repeated[place], values[place], kept[:, j])
            place = np.minimum(np.searchsorted(values, start[:, j]), last)
            stays[:, j] &= repeated[place] & (values[place] == start[:, j])
            kept[:, j] = np.where(np.isnan(moved[:, j]), kept[:, j], column)
        # A value that the noise did not move has no reason to change.
        np.copyto(kept, start, where=stays | (moved == start))


def _repeated(
    members: np.ndarray, moved: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return moved values in order, values, their cumulative shares, and whether each is repeated.

    All arguments are of a single column.
    """
    members, moved, rows = (each[~np.isnan(each)] for each in (members, moved, rows))
    values, place = np.unique(np.concatenate([members, rows]), return_inverse=True)
    weights = np.full(len(place), _PRIOR_ROWS / max(1, len(rows)))
    weights[: len(members)] = 1.0
    count = np.bincount(place, weights, minlength=len(values))
    if len(members) == 0:
        values = values[:0]
    return np.sort(moved), values, np.cumsum(count) / max(1.0, count.sum()), count >= 2


class Marginals:
    """Distribution of each number column of a class, for rows that a decoder made.

    A decoder smooths: its numbers are less spread than those of real rows, and values that many
    rows repeat, such as zeros, are only approached. `restore` gives a number the value that has its
    rank among the rows of the class. Ranks do not depend on the units of a column.

    Parameters
    ----------
    members : ndarray of shape (n_members, n_columns)
        These columns of the rows of the class.
    decoded : ndarray of shape (n_decoded, n_columns)
        These columns of rows that the decoder made for the class.
    columns : sequence of int
        Positions of these columns.
    """

    def __init__(self, members: np.ndarray, decoded: np.ndarray, columns: Sequence[int]) -> None:
        self._columns = []
        for j, real, made in zip(columns, members.T, decoded.T, strict=True):
            values = np.sort(real[~np.isnan(real)])
            if len(values) < _LEAST_ROWS or np.isnan(made).any():
                continue
            repeats = 2 * np.count_nonzero(np.diff(values)) < len(values)
            self._columns.append((j, _on_grid(np.sort(made)), _on_grid(values), repeats))

    def restore(self, rows: np.ndarray, rng: np.random.RandomState) -> None:
        """Change decoded rows, so that their columns are distributed as those of the class."""
        for j, decoded, values, repeats in self._columns:
            first = np.searchsorted(decoded, rows[:, j])
            last = np.searchsorted(decoded, rows[:, j], side="right")
            # A rank is drawn from those of equal numbers, or between two neighbours.
            rank = first - 1 + rng.random_sample(len(rows)) * (last - first + 1)
            place = np.clip(rank / (len(decoded) - 1), 0, 1) * (len(values) - 1)
            if repeats:  # a number between two values may be none that the column can have
                place = np.round(place)
            rows[:, j] = np.interp(place, np.arange(len(values)), values)


def _on_grid(ordered: np.ndarray) -> np.ndarray:
    """Return at most `_GRID` numbers that are evenly spaced in rank, both ends included."""
    return ordered[evenly_spaced(len(ordered), _GRID)]


def draw_levels(probabilities: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Return a code for each row of probabilities, which need not sum to 1; NaN without levels."""
    if probabilities.shape[1] == 0:
        return np.full(len(probabilities), np.nan)
    cumulative = np.cumsum(probabilities, axis=1, dtype=np.float64)
    drawn = rng.random_sample(len(probabilities)) * cumulative[:, -1]
    # The comparison includes equality, as a level of probability 0 must not be drawn.
    codes = (cumulative <= drawn[:, None]).sum(axis=1)
    return np.minimum(codes, probabilities.shape[1] - 1).astype(np.float64)


# Frames

_POLARS_NUMBERS = ("Int", "UInt", "Float", "Boolean")


def describe_dtypes(X: Any) -> list[Any]:
    """Return what `with_dtypes` needs to know about a frame's columns, without pandas objects."""
    return [_describe_dtype(dtype) for dtype in X.dtypes]


def _describe_dtype(dtype: Any) -> Any:
    if hasattr(dtype, "categories") and hasattr(dtype, "ordered"):
        return np.asarray(dtype.categories), bool(dtype.ordered)
    # Columns of other kinds, such as objects, become float64.
    return str(dtype) if getattr(dtype, "kind", "i") in "biuf" else "float64"


def with_dtypes(frame: Any, dtypes: list[Any]) -> Any:
    """Return a frame of numbers with the dtypes that `describe_dtypes` found in another frame."""
    if type(frame).__module__.startswith("polars"):
        import polars as pl

        names = [name if name.startswith(_POLARS_NUMBERS) else "Float64" for name in dtypes]
        columns = zip(frame.columns, names, strict=True)
        return frame.cast({column: getattr(pl, name) for column, name in columns})
    import pandas as pd

    for i, dtype in enumerate(dtypes):
        column: Any = frame.iloc[:, i]
        if isinstance(dtype, tuple):
            column = to_categories(column, pd.CategoricalDtype(*dtype))
        else:
            column = column.astype(dtype)
        frame.isetitem(i, column)
    return frame


def to_categories(column: Any, dtype: Any) -> Any:
    """Return numbers as the nearest categories of a dtype whose categories are numbers."""
    import pandas as pd

    values = np.asarray(column, dtype=np.float64)
    categories = np.asarray(dtype.categories, dtype=np.float64)
    order = np.argsort(categories)
    borders = (categories[order][1:] + categories[order][:-1]) / 2
    codes = np.where(np.isnan(values), -1, order[np.searchsorted(borders, values)])
    return pd.Categorical.from_codes(codes, dtype=dtype)


def numbers_of_categories(X: Any) -> Any:
    """Return a pandas frame with categories replaced by the numbers that they stand for.

    Other columns, and other types of X, are returned as they are.
    """
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
            continue  # text, for which a later check raises an error that names the column
        numbers.isetitem(i, categories[codes])  # the code of a missing value is -1: NaN
    return numbers
