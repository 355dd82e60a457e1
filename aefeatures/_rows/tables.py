"""Tables of numbers, categories, dates and durations as matrices of numbers, and back.

Each column of a table is one column of the matrix: a category is the code of its level, a boolean
is 0 or 1, a date is in seconds since 1970 (UTC), a duration is in seconds, and a missing value is
NaN.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from functools import cached_property
from numbers import Integral
from typing import Any

import numpy as np

from aefeatures._rows.columns import (
    as_numbers,
    as_objects,
    as_seconds,
    as_times,
    columns_of,
    dtype_name,
    factorized,
    has_zone,
    have_common_type,
    is_frame,
    is_pandas,
    kind_of,
    known_values,
    make_column,
    make_frame,
    make_series,
    one_of_each_type,
    zone_of,
)
from aefeatures._torch.ranks import ALONE, Ranks
from aefeatures._warnings import warn

# Most levels of a column with max_categories="auto": a column of names would otherwise take most
# of the network's weights.
_MOST_LEVELS = 50

# A column with more levels than this, and with more than half as many levels as known values, is
# taken for an identifier.
_FEW_LEVELS = 20

KINDS = ("number", "integer", "boolean", "date", "duration", "category")

# Kinds of columns that make a table of a frame.
_NOT_NUMBERS = {"category", "date", "duration"}
_NUMBERS = {"number", "integer", "boolean", "unknown"}

# Dates that are all whole days or seconds come back as such.
_STEPS = (86_400.0, 1.0)


@dataclass(frozen=True)
class Levels:
    """Levels of a categorical column.

    Attributes
    ----------
    all : list
        All levels that `fit` saw, in order.
    counts : ndarray of int of shape (n_levels,)
        Rows of each level.
    codes : ndarray of int of shape (n_levels,)
        Code of each level. Grouped levels share the last code.
    """

    all: list[Any]
    counts: np.ndarray
    codes: np.ndarray

    @property
    def n_codes(self) -> int:
        """Number of codes."""
        return int(self.codes.max()) + 1 if len(self.codes) else 0

    @property
    def code_counts(self) -> np.ndarray:
        """Rows of each code."""
        return np.bincount(self.codes, self.counts, self.n_codes)

    @cached_property
    def code_of(self) -> dict[Any, int]:
        """Code of each level."""
        return dict(zip(self.all, self.codes.tolist(), strict=True))

    @property
    def commonest(self) -> np.ndarray:
        """Position of the commonest level of each code."""
        order = np.argsort(-self.counts, kind="stable")
        _, first = np.unique(self.codes[order], return_index=True)
        return order[first]

    @property
    def grouped(self) -> np.ndarray:
        """Mask of the levels that share a code."""
        return np.bincount(self.codes, minlength=self.n_codes)[self.codes] > 1

    @property
    def infrequent(self) -> np.ndarray | None:
        """Levels that share a code; None if none do."""
        grouped = np.flatnonzero(self.grouped)
        return as_objects([self.all[i] for i in grouped]) if len(grouped) else None

    def __getstate__(self) -> dict[str, Any]:
        """Return the fields alone: pickles and digests do not depend on what was computed."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def names(self) -> list[str]:
        """Return a name for each code; that of grouped levels is as in `OneHotEncoder`."""
        names = [str(self.all[i]) for i in self.commonest]
        if self.grouped.any():
            names[-1] = "infrequent_sklearn"
        return names


@dataclass(frozen=True)
class Column:
    """Column of a table.

    Attributes
    ----------
    name : str or int
    kind : str
        One of `KINDS`.
    dtype : str or list
        Type of the column in its library, see `dtype_name`.
    levels : Levels or None
        Of a category.
    step : float
        Dates and durations in `fit` were multiples of this number of seconds; 0 if of none.
    """

    name: str | int
    kind: str
    dtype: Any
    levels: Levels | None = None
    step: float = 0.0


@dataclass(frozen=True)
class Table:
    """Columns of the table that an estimator was fitted on.

    Attributes
    ----------
    library : {"pandas", "polars", "numpy"}
    columns : list of Column
    """

    library: str
    columns: list[Column]

    @property
    def is_category(self) -> np.ndarray:
        """Mask of the categorical columns."""
        return np.array([column.levels is not None for column in self.columns])

    def attributes(self) -> dict[str, Any]:
        """Return the public attributes of an estimator that was fitted on the table."""
        levels = [column.levels for column in self.columns if column.levels is not None]
        return {
            "is_categorical_": self.is_category,
            "categories_": [as_objects(each.all) for each in levels],
            "infrequent_categories_": [each.infrequent for each in levels],
        }

    def shares(self) -> list[np.ndarray | None]:
        """Return the shares of the codes of each categorical column; None for other columns."""
        return [
            None if column.levels is None else _shares(column.levels.code_counts)
            for column in self.columns
        ]

    def numbers(self, X: Any) -> np.ndarray:
        """Return a table with the same columns as a matrix of numbers.

        Raises
        ------
        ValueError
            If a column holds values of another kind than in `fit`.
        """
        numbers = [
            _numbers(column, values)
            for column, values in zip(self.columns, columns_of(X), strict=True)
        ]
        dtype = np.result_type(np.float32, *(each.dtype for each in numbers))
        matrix = np.empty((X.shape[0], len(numbers)), dtype)
        for i, each in enumerate(numbers):
            matrix[:, i] = each
        return matrix

    def rows(self, numbers: np.ndarray, index: Any = None, rng: Any = None) -> Any:
        """Return a matrix of numbers as a table.

        Grouped levels become their commonest one, or are drawn by their shares in `fit` from `rng`,
        a `numpy.random.RandomState`, if there is one. Integers and dates are rounded.
        """
        columns = [
            make_column(_values(column, numbers[:, i], rng), column.dtype, self.library)
            for i, column in enumerate(self.columns)
        ]
        if self.library != "numpy":
            return make_frame(self.library, columns, self.names, index)
        types = [column.dtype for column in columns]
        if all(column.dtype == self.columns[0].dtype for column in self.columns):
            types = [self.columns[0].dtype]
        return np.array(columns, np.result_type(*types)).T

    def probabilities(self, found: np.ndarray, index: Any = None) -> Any:
        """Return the result of `Model.decode_probabilities` as a table with columns of levels."""
        if self.library == "numpy":
            return found
        columns = []
        for column, block in zip(self.columns, self.blocks(), strict=True):
            entries = found[:, block]
            if column.levels is not None:
                columns += [*entries.T]
            else:
                values = _values(column, entries[:, 0])
                columns.append(make_column(values, column.dtype, self.library))
        return make_frame(self.library, columns, self.level_names(), index)

    def levels_in(self, X: Any) -> list[tuple[np.ndarray, list[str]] | None]:
        """Return the levels of each category of X as positions in a list; None for other columns.

        The list begins with the commonest level of each code. Other grouped levels follow, then
        levels that `fit` did not see. The position of a missing value is -1.
        """
        return [
            None if column.levels is None else _named_levels(column.name, column.levels, values)
            for column, values in zip(self.columns, columns_of(X), strict=True)
        ]

    @property
    def names(self) -> list[str | int]:
        """Names of the columns."""
        return [column.name for column in self.columns]

    def blocks(self) -> list[slice]:
        """Return where each column is in the result of `Model.decode_probabilities`."""
        sizes = [1 if each.levels is None else each.levels.n_codes for each in self.columns]
        ends = np.cumsum(sizes).tolist()
        return [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]

    def one_row(self, values: Sequence[Any]) -> Any:
        """Return a table of one row, given its values."""
        if self.library == "numpy":
            return as_objects(values)[None]
        columns = [make_series(self.library, [value]) for value in values]
        return make_frame(self.library, columns, self.names, None)

    def number_of(self, position: int, value: Any) -> float:
        """Return one value of a column that is not categorical as a number.

        A date without a time zone counts as UTC if the column has one.
        """
        column = self.columns[position]
        if isinstance(value, datetime) and value.tzinfo is None and has_zone(column.dtype):
            value = value.replace(tzinfo=UTC)
        return float(_numbers(column, make_series(self.library, [value]))[0])

    def with_level(self, position: int, level: Any) -> Table:
        """Return the table in which a group of levels that holds this one is always drawn as it."""
        column = self.columns[position]
        assert column.levels is not None
        is_level = np.array([each == level for each in column.levels.all])
        counts = np.where(column.levels.grouped, is_level, column.levels.counts)
        columns = [*self.columns]
        columns[position] = replace(column, levels=replace(column.levels, counts=counts))
        return replace(self, columns=columns)

    def level_names(self) -> list[str | int]:
        """Return the names of the columns of `probabilities`."""
        names: list[str | int] = []
        for column in self.columns:
            if column.levels is None:
                names.append(column.name)
            else:
                names += [f"{column.name}_{level}" for level in column.levels.names()]
        return names


def learn_table(
    X: Any,
    categorical_features: Any,
    min_frequency: float | None,
    max_categories: int | str | None,
    ranks: Ranks = ALONE,
) -> Table | None:
    """Return the columns of X if any of them is a category, a date or a duration, otherwise None.

    Parameters
    ----------
    X : frame, or array of two dimensions
    categorical_features, min_frequency, max_categories
        Parameters of the transformer.
    ranks : Ranks
        Processes whose tables are one.

    Raises
    ------
    ValueError
        If a column holds values that are not supported, or `categorical_features` does not fit X.
    """
    survey = TableSurvey.of(X, categorical_features)
    if survey is None:
        return None
    survey, *others = ranks.gather(survey)
    for other in others:
        survey.join(other)
    return survey.table(min_frequency, max_categories) if survey.is_table else None


@dataclass
class ColumnSurvey:
    """Kind, type and levels of a column of a table, in some of its rows.

    Attributes
    ----------
    name : str or int
    kind : str
        One of `KINDS`, "unknown" if no value is known, or a kind that is not supported.
    dtype : str or list
        Type of the column in its library, see `dtype_name`.
    counts : dict
        Rows of each level of a category.
    step : float
        As in `Column`.
    """

    name: str | int
    kind: str
    dtype: Any
    counts: dict[Any, int]
    step: float

    @classmethod
    def of(cls, name: str | int, kind: str, values: Any) -> ColumnSurvey:
        """Return the survey of a column of a kind."""
        dtype = dtype_name(values, kind) if kind in KINDS else str(values.dtype)
        survey = cls(name, kind, dtype, {}, _STEPS[0])
        if kind == "category":
            codes, known = _levels_in(name, values)
            counts = np.bincount(codes[codes >= 0], minlength=len(known)).tolist()
            survey.counts = {value: n for value, n in zip(known, counts, strict=True) if n}
        elif kind in ("date", "duration"):
            seconds = _numbers(Column(name, kind, dtype), values)
            survey.step = _step(seconds[~np.isnan(seconds)])
        return survey

    def join(self, other: ColumnSurvey) -> None:
        """Add the survey of the same column in other rows."""
        kinds = {self.kind, other.kind} - {"unknown"}
        if kinds == {"integer", "number"}:  # gaps make numbers of integers
            first = self if self.kind == "number" else other
        elif len(kinds) > 1:
            raise ValueError(
                "All ranks and blocks of rows must fit the same columns, got a column of the kinds "
                f"{sorted(kinds)}: {self.name!r}."
            )
        else:
            first = other if self.kind == "unknown" else self
        dtypes = self.dtype, other.dtype
        self.kind, self.dtype = first.kind, first.dtype
        if all(isinstance(dtype, list) for dtype in dtypes):
            listed = dict.fromkeys(level for dtype in dtypes for level in dtype[0])
            self.dtype = [[*listed], *first.dtype[1:]]
        for value, count in other.counts.items():
            self.counts[value] = self.counts.get(value, 0) + count
        self.step = min(self.step, other.step)

    def levels(self) -> Levels:
        """Return the levels, each with its own code."""
        _refuse_mixed(self.name, [*self.counts])
        if isinstance(self.dtype, list):  # the order of the categories
            ordered = [value for value in self.dtype[0] if value in self.counts]
        else:
            ordered = sorted(self.counts)
        counts = np.array([*map(self.counts.get, ordered)], np.intp)
        return Levels(ordered, counts, np.arange(len(ordered)))


@dataclass
class TableSurvey:
    """Kinds, types and levels of the columns of a table, in some of its rows.

    Surveys of different rows can be joined: of ranks, and of blocks of a Ray dataset.

    Attributes
    ----------
    library : {"pandas", "polars", "numpy"}
    n_rows : int
    columns : list of ColumnSurvey
    """

    library: str
    n_rows: int
    columns: list[ColumnSurvey]

    @classmethod
    def of(cls, X: Any, categorical_features: Any) -> TableSurvey | None:
        """Return the survey of X, None if X is an array without categories."""
        kinds = _kinds(X, categorical_features)
        if kinds is None:
            return None
        columns = zip(_names_of(X), kinds, columns_of(X), strict=True)
        library = ("pandas" if is_pandas(X) else "polars") if is_frame(X) else "numpy"
        return cls(library, X.shape[0], [ColumnSurvey.of(*each) for each in columns])

    def join(self, other: TableSurvey) -> None:
        """Add the survey of other rows.

        Raises
        ------
        ValueError
            If the columns differ in number or hold values of different kinds.
        """
        if len(self.columns) != len(other.columns):
            raise ValueError(
                "All rows must have the same number of columns, got rows with "
                f"{len(self.columns)} and with {len(other.columns)} columns."
            )
        self.n_rows += other.n_rows
        for column, same in zip(self.columns, other.columns, strict=True):
            column.join(same)

    @property
    def is_table(self) -> bool:
        """Whether any column is a category, a date or a duration."""
        return not _NOT_NUMBERS.isdisjoint(each.kind for each in self.columns)

    def table(self, min_frequency: float | None, max_categories: int | str | None) -> Table:
        """Return the table of all rows.

        Raises
        ------
        ValueError
            If a column holds values that are not supported.
        """
        allowed = {*KINDS, "unknown"}
        refuse_columns(
            [each.name for each in self.columns],
            [each.dtype for each in self.columns],
            [each.kind not in allowed for each in self.columns],
        )
        columns = []
        for each in self.columns:
            column = Column(
                each.name, "number" if each.kind == "unknown" else each.kind, each.dtype
            )
            if column.kind == "category":
                levels = _grouped(
                    each.name, each.levels(), self.n_rows, min_frequency, max_categories
                )
                column = replace(column, levels=levels)
            elif column.kind in ("date", "duration"):
                column = replace(column, step=each.step)
            columns.append(column)
        return Table(self.library, columns)


def refuse_columns(names: Sequence[Any], dtypes: Sequence[Any], refused: Sequence[bool]) -> None:
    """Raise an error that names the `refused` columns, which hold no numbers, if there are any."""
    columns = zip(names, dtypes, refused, strict=True)
    others = [f"{name!r} ({dtype})" for name, dtype, is_other in columns if is_other]
    if others:
        more = ", ..." if len(others) > 5 else ""
        raise ValueError(
            f"X must hold numbers, but these columns do not: {', '.join(others[:5])}{more}. Encode "
            "them first, for example with skrub.TableVectorizer or a ColumnTransformer."
        )


def _names_of(X: Any) -> list[str | int]:
    if not is_frame(X):
        return [f"x{i}" for i in range(X.shape[1])]
    return [int(name) if isinstance(name, Integral) else str(name) for name in X.columns]


def table_of(estimator: Any) -> Table | None:
    """Return the table that an estimator was fitted on, or None."""
    table: Table | None = estimator.__dict__.get("_table")
    return table


def set_table(estimator: Any, table: Table | None) -> None:
    """Make a table the one that an estimator was fitted on."""
    estimator.__dict__["_table"] = table


def is_table(X: Any, categorical_features: Any) -> bool:
    """Whether `learn_table` would return a table, without its warnings."""
    if not (is_frame(X) or isinstance(X, np.ndarray)) or len(X.shape) != 2:
        return False
    return not _NOT_NUMBERS.isdisjoint(_kinds(X, categorical_features) or [])


# Which columns are categorical, and of which kind the others are.


def _kinds(X: Any, categorical_features: Any) -> list[str] | None:
    """Return the kind of each column, or None if X is an array without categories.

    Beside `KINDS` there are kinds of columns that are not supported.
    """
    chosen = _chosen(X, categorical_features)
    if not is_frame(X) and not any(chosen):
        return None
    from_dtype = isinstance(categorical_features, str)
    kinds = []
    for name, values, categorical in zip(_names_of(X), columns_of(X), chosen, strict=True):
        kind = "category" if categorical else kind_of(values)
        if from_dtype and kind == "mixed":
            _refuse_mixed(name, known_values(values))
        if kind == "category" and not (categorical or from_dtype):
            levels = factorized(values)[1]
            kind = "number" if kind_of(as_objects(levels)) in _NUMBERS else "text"
        kinds.append("category" if from_dtype and kind == "text" else kind)
    return kinds


def _chosen(X: Any, categorical_features: Any) -> list[bool]:
    """Return whether each column is categorical by the parameter, without a look at types."""
    n_columns = X.shape[1]
    if categorical_features is None or isinstance(categorical_features, str):
        if categorical_features not in (None, "from_dtype"):
            raise ValueError(
                "categorical_features must be 'from_dtype', None, or the names, positions or a "
                f"mask of columns, got {categorical_features!r}."
            )
        return [False] * n_columns
    wanted = np.asarray(categorical_features)
    if wanted.ndim != 1:
        raise ValueError(
            f"categorical_features must be a list of columns, got {categorical_features!r}."
        )
    listed = wanted.tolist()
    if any(isinstance(name, str) for name in listed):
        if not is_frame(X):
            raise ValueError("categorical_features has names, but X has no column names.")
        names = [*map(str, X.columns)]
        unknown = [name for name in listed if name not in names]
        if unknown:
            raise ValueError(f"categorical_features has names that are not in X: {unknown[:5]}.")
        return [name in set(listed) for name in names]
    if wanted.dtype.kind == "b":
        if wanted.shape != (n_columns,):
            raise ValueError(
                f"categorical_features as a mask must have shape ({n_columns},), got "
                f"{wanted.shape}."
            )
        return [*map(bool, wanted)]
    if len(wanted) and (
        wanted.dtype.kind not in "iu" or min(listed) < 0 or max(listed) >= n_columns
    ):
        raise ValueError(
            f"categorical_features as positions must be integers from 0 to {n_columns - 1}, got "
            f"{categorical_features!r}."
        )
    return [i in set(listed) for i in range(n_columns)]


# Levels


def _levels_in(name: str | int, values: Any) -> tuple[np.ndarray, list[Any]]:
    """Return what `factorized` does, of values of one type."""
    try:
        codes, known = factorized(values)
    except TypeError as error:
        raise ValueError(
            f"Column {name!r} ({values.dtype}) holds values that cannot be levels of a category: "
            f"{error}."
        ) from error
    _refuse_mixed(name, known)
    return codes, known


def _refuse_mixed(name: str | int, known: list[Any]) -> None:
    examples = one_of_each_type(known)
    if len(examples) > 1:
        shown = " and ".join(f"{value!r} ({type(value).__name__})" for value in examples[:3])
        raise ValueError(
            f"Column {name!r} holds values of several types, such as {shown}. Convert it to one "
            "type, for example with .astype(str)."
        )


def _grouped(
    name: str | int,
    levels: Levels,
    n_rows: int,
    min_frequency: float | None,
    max_categories: int | str | None,
) -> Levels:
    """Return levels of which the infrequent ones share a code, as in `OneHotEncoder`.

    Warns
    -----
    UserWarning
        If the column may be an identifier, or "auto" groups levels.
    """
    counts, n = levels.counts, len(levels.all)
    most: Any = _MOST_LEVELS if max_categories == "auto" else max_categories
    infrequent = np.zeros(n, dtype=bool)
    if min_frequency is not None:
        whole = isinstance(min_frequency, Integral)
        infrequent = counts < (min_frequency if whole else min_frequency * n_rows)
    if most is not None and n - infrequent.sum() + infrequent.any() > most:
        # Of equally frequent levels the last ones are kept, as in `OneHotEncoder`.
        infrequent[np.argsort(counts, kind="stable")[: n - most + 1]] = True
    n_grouped = int(infrequent.sum())
    if n > _FEW_LEVELS and 2 * n > counts.sum():
        warn(
            f"Column {name!r} has {n:,} levels in {counts.sum():,} rows. If it is an identifier, "
            "leave it out of X."
        )
    elif max_categories == "auto" and n_grouped and n > most:
        warn(
            f"Column {name!r} has {n:,} levels: the {n - n_grouped} most frequent ones are kept, "
            "and all others count as one. Set max_categories to keep another number, or None to "
            "keep all."
        )
    if n_grouped < 2:  # a group of one level is that level
        return levels
    codes = np.where(infrequent, n - n_grouped, np.cumsum(~infrequent) - 1)
    return replace(levels, codes=codes)


def _shares(counts: np.ndarray) -> np.ndarray:
    return counts / max(1, counts.sum())


# Values to numbers


def _numbers(column: Column, values: Any) -> np.ndarray:
    """Return the values of a column as numbers, with NaN for missing ones."""
    if column.levels is not None:
        return _codes(column.name, column.levels, values)
    kind = kind_of(values)
    allowed = _NUMBERS | {"category"} if column.kind in _NUMBERS else {column.kind}
    known: list[Any] = []
    if kind not in allowed or kind == "category":
        known = known_values(values)
        if not known:
            return np.full(len(values), np.nan, np.float32)
    if kind not in allowed or (known and not have_common_type(known, [0])):
        held = "number" if column.kind in _NUMBERS else column.kind
        raise ValueError(
            f"Column {column.name!r} held {held}s in fit, but holds values such as "
            f"{known[0]!r:.100} ({values.dtype}) now. Convert it to {held}s."
        )
    if column.kind in _NUMBERS:
        return as_numbers(values)
    seconds = as_seconds(values)
    if column.kind == "date" and not np.isnan(seconds).all():
        _check_zone(column, values)
    return seconds


def _codes(name: str | int, levels: Levels, values: Any) -> np.ndarray:
    """Return the codes of levels, NaN for a level that `fit` did not see."""
    codes, known = _levels_in(name, values)
    if known and levels.all and not have_common_type(known, levels.all):
        raise ValueError(
            f"Column {name!r} had levels such as {levels.all[0]!r} in fit, but holds values such "
            f"as {known[0]!r} ({values.dtype}) now. Convert it to the type that it had."
        )
    code_of = levels.code_of
    of_known = np.array([code_of.get(value, np.nan) for value in known] + [np.nan], np.float32)
    return of_known[codes]


def _named_levels(name: str | int, levels: Levels, values: Any) -> tuple[np.ndarray, list[str]]:
    codes, known = _levels_in(name, values)
    listed = dict.fromkeys([*(levels.all[i] for i in levels.commonest), *known])
    place = {level: i for i, level in enumerate(listed)}
    return np.array([*(place[level] for level in known), -1])[codes], [*map(str, listed)]


def _check_zone(column: Column, values: Any) -> None:
    """Refuse dates with a time zone if those of `fit` had none, or the other way round."""
    try:
        zone = zone_of(values)
    except ValueError as error:
        raise ValueError(f"Column {column.name!r}: {error}. Convert them to one zone.") from error
    had_zone = has_zone(column.dtype)
    if had_zone == (zone is not None):
        return
    had, has = ("a", "none") if had_zone else ("no", f"{zone}")
    raise ValueError(
        f"Column {column.name!r} had dates with {had} time zone in fit, but the time zone of these "
        f"is {has}. Convert them, for example with .dt.tz_localize in pandas or "
        ".dt.replace_time_zone in polars."
    )


def _step(seconds: np.ndarray) -> float:
    """Return the largest step that all numbers are multiples of, otherwise 0."""
    return next((step for step in _STEPS if (seconds % step == 0).all()), 0.0)


# Numbers to values


def _values(column: Column, numbers: np.ndarray, rng: Any = None) -> np.ndarray:
    """Return numbers as values of a column; missing ones are NaN, NaT or None."""
    if column.levels is not None:
        return _as_levels(column.levels, numbers, rng)
    if column.kind in ("date", "duration"):
        step = column.step
        seconds = np.round(np.asarray(numbers, np.float64) / step) * step if step else numbers
        return as_times(seconds, column.kind, column.dtype)
    if column.kind == "number":
        return numbers
    missing = np.isnan(numbers)
    filled = np.where(missing, 0, numbers)
    values = filled >= 0.5 if column.kind == "boolean" else _as_integers(filled, column.dtype)
    if missing.any():
        values = values.astype(object)
        values[missing] = None
    return values


def _as_integers(numbers: np.ndarray, dtype: str) -> np.ndarray:
    """Return numbers as the nearest integers that a type holds."""
    name = re.search(r"u?int(8|16|32|64)", dtype.lower())
    info = np.iinfo(name.group() if name else np.int64)
    rounded = np.round(np.asarray(numbers, np.float64))
    inside = (rounded > info.min) & (rounded < float(info.max))
    whole = np.where(inside, rounded, 0).astype(info.dtype)
    low, high = (np.array(end, info.dtype) for end in (info.min, info.max))
    ends = np.where(rounded > 0, high, low)
    return np.where(inside, whole, ends)


def _as_levels(levels: Levels, numbers: np.ndarray, rng: Any) -> np.ndarray:
    codes = np.where(np.isnan(numbers), -1, numbers).astype(np.intp)
    places = np.append(levels.commonest, -1)[codes]
    if rng is not None and levels.grouped.any():
        group = np.flatnonzero(levels.grouped)
        drawn = codes == levels.codes[group[0]]
        shares = _shares(levels.counts[group])
        places[drawn] = rng.choice(group, drawn.sum(), p=shares)
    return as_objects([*levels.all, None])[places]
