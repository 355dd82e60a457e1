"""Tables of numbers, categories, dates and durations as matrices of numbers, and back.

Each column of a table is one column of the matrix: a category is the code of its level, a boolean
is 0 or 1, a date is in seconds since 1970 (UTC), a duration is in seconds, and a missing value is
NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import cached_property
from numbers import Integral, Number
from typing import Any

import numpy as np

from aefeatures._torch.ranks import ALONE, Ranks
from aefeatures._warnings import warn

# Most levels of a column with max_categories="auto": a column of names would otherwise take most
# of the network's weights.
_MOST_LEVELS = 50

# A column with more levels than this, and with more than half as many levels as known values, is
# taken for an identifier.
_FEW_LEVELS = 20

_SECONDS_OF_DAY = 86_400
_MICROSECONDS = 1_000_000

# Years 1 to 9999 in seconds, which Python and polars can represent.
_DATES = (-62_135_596_800.0, 253_402_300_799.0)


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

    def names(self) -> list[str]:
        """Return a name for each code; that of grouped levels is as in `OneHotEncoder`."""
        names = [str(self.all[i]) for i in self.commonest]
        if self.grouped.any():
            names[-1] = "infrequent"
        return names


@dataclass(frozen=True)
class Column:
    """Column of a table.

    Attributes
    ----------
    name : str
    kind : {"number", "integer", "boolean", "date", "duration", "category"}
    dtype : str or list
        Type of the column in its library, see `_dtype_of`.
    levels : Levels or None
        Of a category.
    step : float
        Dates and durations in `fit` were multiples of this number of seconds; 0 if of none.
    """

    name: str
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
            for column, values in zip(self.columns, _columns_of(X), strict=True)
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
            _values(column, numbers[:, i], self.library, rng)
            for i, column in enumerate(self.columns)
        ]
        names = [column.name for column in self.columns]
        if self.library == "numpy":
            kind = np.result_type(*(np.asarray(column).dtype for column in columns))
            dtype = self.columns[0].dtype
            return np.array(columns, dtype=kind if dtype == "object" else dtype).T
        return make_frame(self.library, columns, names, index)

    def level_names(self) -> list[str]:
        """Return the names of the columns of `probabilities`."""
        return [
            f"{column.name}_{level}"
            for column in self.columns
            for level in ([""] if column.levels is None else column.levels.names())
        ]


def make_frame(library: str, columns: Sequence[Any], names: Sequence[str], index: Any) -> Any:
    """Return a frame of a library; `index` is that of a pandas frame."""
    if library == "polars":
        import polars as pl

        return pl.DataFrame(
            [pl.Series(name, column) for name, column in zip(names, columns, strict=True)]
        )
    import pandas as pd

    frame = pd.DataFrame({i: pd.Series(column) for i, column in enumerate(columns)})
    frame.columns = pd.Index(names, dtype=object) if names else frame.columns
    if index is not None:
        frame.index = index
    return frame


def as_objects(values: Sequence[Any]) -> np.ndarray:
    """Return values of any type as an array of objects."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def is_frame(X: Any) -> bool:
    """Whether X is a data frame of pandas or polars."""
    # A lazy frame of polars has no shape, and warns if it is asked for its columns.
    return hasattr(X, "shape") and hasattr(X, "columns") and hasattr(X, "dtypes")


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
        If a column holds values of several types, or `categorical_features` does not fit X.
    """
    chosen = _chosen(X, categorical_features)
    if not is_frame(X) and not any(chosen):
        return None
    library = ("polars" if hasattr(X, "iter_columns") else "pandas") if is_frame(X) else "numpy"
    names = [*map(str, X.columns)] if is_frame(X) else [f"x{i}" for i in range(X.shape[1])]
    kinds = [
        _kind(name, values, categorical, from_dtype=isinstance(categorical_features, str))
        for name, values, categorical in zip(names, _columns_of(X), chosen, strict=True)
    ]
    kinds = [_joint_kind(each) for each in zip(*ranks.gather(kinds), strict=True)]
    if not {"category", "date", "duration"} & set(kinds):
        return None
    columns = []
    for name, kind, values in zip(names, kinds, _columns_of(X), strict=True):
        column = Column(name, kind, _dtype_of(values))
        if kind == "category":
            levels = _learn_levels(column, values, ranks)
            column = replace(column, levels=_grouped(name, levels, min_frequency, max_categories))
        elif kind in ("date", "duration"):
            known = _numbers(column, values)
            steps = ranks.gather(_step(known[~np.isnan(known)]))
            column = replace(column, step=min(steps))
        columns.append(column)
    return Table(library, columns)


# Which columns are categorical, and of which kind the others are.


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
    if wanted.size == 0:
        return [False] * n_columns
    if wanted.dtype.kind in "OU" and all(isinstance(name, str) for name in wanted.tolist()):
        if not is_frame(X):
            raise ValueError("categorical_features has names, but X has no column names.")
        names = [*map(str, X.columns)]
        unknown = [name for name in wanted.tolist() if name not in names]
        if unknown:
            raise ValueError(f"categorical_features has names that are not in X: {unknown[:5]}.")
        return [name in set(wanted.tolist()) for name in names]
    if wanted.dtype.kind == "b":
        if wanted.shape != (n_columns,):
            raise ValueError(
                f"categorical_features as a mask must have shape ({n_columns},), got "
                f"{wanted.shape}."
            )
        return [*map(bool, wanted)]
    if wanted.dtype.kind not in "iu" or wanted.min() < 0 or wanted.max() >= n_columns:
        raise ValueError(
            f"categorical_features as positions must be integers from 0 to {n_columns - 1}, got "
            f"{categorical_features!r}."
        )
    return [i in set(wanted.tolist()) for i in range(n_columns)]


def _kind(name: str, values: Any, categorical: bool, *, from_dtype: bool) -> str:
    """Return the kind of a column; that of a column without known values may be "unknown"."""
    if categorical:
        return "category"
    described = str(values.dtype).lower()
    if described.startswith(("datetime", "date", "timestamp")):
        return "date"
    if described.startswith(("timedelta", "duration")):
        return "duration"
    if described.startswith("bool"):
        return "boolean"
    if hasattr(values.dtype, "categories") or described.startswith(
        ("str", "large_str", "category", "enum", "dictionary", "string", "categorical", "utf8")
    ):
        return "category" if from_dtype else "number"  # which is refused by a later check
    if described in ("object", "null"):
        return _kind_of_objects(name, values) if from_dtype else "number"
    if described.startswith(("int", "uint")):
        return "integer"
    return "number"


def _kind_of_objects(name: str, values: Any) -> str:
    known = _factorized(values)[1]
    if not known:
        return "unknown"
    texts = [value for value in known if isinstance(value, str)]
    others = [value for value in known if not isinstance(value, str)]
    if texts and others:
        raise ValueError(
            f"Column {name!r} holds values of several types, such as {texts[0]!r} "
            f"({type(texts[0]).__name__}) and {others[0]!r} ({type(others[0]).__name__}). Convert "
            "it to one type, for example with .astype(str)."
        )
    if texts:
        return "category"
    if all(isinstance(value, bool | np.bool_) for value in known):
        return "boolean"
    if all(isinstance(value, date | datetime) for value in known):
        return "date"
    if all(isinstance(value, timedelta) for value in known):
        return "duration"
    return "number"


def _joint_kind(kinds: Sequence[str]) -> str:
    """Return the kind of a column of several ranks."""
    known = [kind for kind in kinds if kind != "unknown"] or ["number"]
    if len(set(known)) > 1:
        raise ValueError(f"All ranks must fit the same columns, got the kinds {set(known)}.")
    return known[0]


def _dtype_of(values: Any) -> Any:
    """Return a description of a column's type that can be written as JSON.

    A category of pandas or an Enum of polars is a list of its levels, of their type and of whether
    they are ordered, if its levels are of simple types. Otherwise it is the name of the type.
    """
    dtype = values.dtype
    categories = getattr(dtype, "categories", None)
    if categories is None or (str(dtype) == "Categorical"):
        return str(dtype)
    kind = getattr(categories.dtype, "name", str(categories.dtype))
    return [categories.to_list(), str(kind), bool(getattr(dtype, "ordered", True))]


# Levels


def _factorized(values: Any) -> tuple[np.ndarray, list[Any]]:
    """Return the positions of a column's values in a list of its different known values, or -1."""
    if type(values).__module__.startswith("polars"):
        import polars as pl

        if str(values.dtype).startswith(("Cat", "Enum")):
            values = values.cast(pl.String)
        values = np.array(values.to_list(), dtype=object)
    if isinstance(values, np.ndarray):
        listed = values.tolist()
        places: dict[Any, int] = {}
        codes = np.array(
            [
                -1 if value is None or value != value else places.setdefault(value, len(places))
                for value in listed
            ],
            dtype=np.intp,
        )
        return codes, [*places]
    import pandas as pd

    codes, known = pd.factorize(values)
    return codes, known.tolist()


def _learn_levels(column: Column, values: Any, ranks: Ranks) -> Levels:
    codes, known = _factorized(values)
    _refuse_mixed(column.name, known)
    own = dict(zip(known, np.bincount(codes[codes >= 0], minlength=len(known)), strict=True))
    counts: dict[Any, int] = {}
    for each in ranks.gather(own):
        for value, count in each.items():
            counts[value] = counts.get(value, 0) + int(count)
    if isinstance(column.dtype, list):  # the order of the categories
        ordered = [value for value in column.dtype[0] if value in counts]
    else:
        ordered = sorted(counts)
    n = len(ordered)
    return Levels(ordered, np.array([counts[value] for value in ordered], np.intp), np.arange(n))


def _refuse_mixed(name: str, known: list[Any]) -> None:
    examples: dict[str, Any] = {}
    for value in known:
        kind = "number" if isinstance(value, Number) else type(value).__name__
        examples.setdefault(kind, value)
    if len(examples) > 1:
        shown = " and ".join(
            f"{value!r} ({type(value).__name__})" for value in [*examples.values()][:3]
        )
        raise ValueError(
            f"Column {name!r} holds values of several types, such as {shown}. Convert it to one "
            "type, for example with .astype(str)."
        )


def _grouped(
    name: str, levels: Levels, min_frequency: float | None, max_categories: int | str | None
) -> Levels:
    """Return levels of which the infrequent ones share a code, as in `OneHotEncoder`.

    Warns
    -----
    UserWarning
        If the column may be an identifier, or "auto" groups levels.
    """
    counts, n = levels.counts, len(levels.all)
    most = _MOST_LEVELS if max_categories == "auto" else max_categories
    least: float = 0
    if min_frequency is not None:
        whole = isinstance(min_frequency, Integral)
        least = min_frequency if whole else min_frequency * counts.sum()
    infrequent = counts < least
    if most is not None and n - infrequent.sum() + infrequent.any() > most:
        infrequent[np.argsort(-counts, kind="stable")[int(most) - 1 :]] = True
    grouped = int(infrequent.sum())
    if n > _FEW_LEVELS and 2 * n > counts.sum():
        warn(
            f"Column {name!r} has {n:,} levels in {counts.sum():,} rows. If it is an identifier, "
            f"drop it: X.drop(columns={name!r})."
        )
    elif max_categories == "auto" and grouped and most is not None and n > most:
        warn(
            f"Column {name!r} has {n:,} levels: the {n - grouped} most frequent ones are kept, "
            "and all others count as one. Set max_categories to keep another number, or None to "
            "keep all."
        )
    if grouped < 2:
        return levels
    codes = np.where(infrequent, n - grouped, np.cumsum(~infrequent) - 1)
    return replace(levels, codes=codes)


def _shares(counts: np.ndarray) -> np.ndarray:
    return counts / max(1, counts.sum())


# Values to numbers


def _columns_of(X: Any) -> list[Any]:
    """Return the columns of a frame or an array."""
    if hasattr(X, "iter_columns"):
        return [*X.get_columns()]
    if hasattr(X, "iloc"):
        return [X.iloc[:, i] for i in range(X.shape[1])]
    return [X[:, i] for i in range(X.shape[1])]


def _numbers(column: Column, values: Any) -> np.ndarray:
    """Return the values of a column as numbers, with NaN for missing ones."""
    if column.levels is not None:
        codes, known = _factorized(values)
        texts = {isinstance(value, str) for value in column.levels.all}
        if known and texts and {isinstance(value, str) for value in known}.isdisjoint(texts):
            raise ValueError(
                f"Column {column.name!r} had levels such as {column.levels.all[0]!r} in fit, "
                f"but holds values such as {known[0]!r} ({values.dtype}). Convert it to the type "
                "that it had."
            )
        code_of = column.levels.code_of
        of_known = np.array([code_of.get(value, np.nan) for value in known] + [np.nan], np.float32)
        return of_known[codes]
    if column.kind in ("date", "duration"):
        return _seconds(column, values)
    return _plain_numbers(column, values)


def _plain_numbers(column: Column, values: Any) -> np.ndarray:
    dtype = values.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "biuf":
        array = np.asarray(values)
        return array if dtype.kind == "f" else array.astype(_float_type(dtype.itemsize))
    try:
        if type(values).__module__.startswith("polars"):
            return np.asarray(values.cast(_polars().Float64).to_numpy(), np.float64)
        if hasattr(values, "to_numpy"):
            return np.asarray(values.to_numpy(dtype=np.float64, na_value=np.nan))
        return np.asarray(values, dtype=np.float64)
    except Exception as error:
        known = _factorized(values)[1]
        raise ValueError(
            f"Column {column.name!r} held numbers in fit, but holds values such as "
            f"{known[0] if known else None!r} ({dtype}) now. Convert it to numbers."
        ) from error


def _float_type(itemsize: int) -> type[np.floating[Any]]:
    return np.float32 if itemsize <= 2 else np.float64


def _polars() -> Any:
    import polars as pl

    return pl


def _seconds(column: Column, values: Any) -> np.ndarray:
    """Return dates as seconds since 1970 (UTC), durations as seconds."""
    kind = "datetime64[us]" if column.kind == "date" else "timedelta64[us]"
    if _kind(column.name, values, False, from_dtype=True) not in (column.kind, "unknown"):
        raise ValueError(
            f"Column {column.name!r} held {column.kind}s in fit, but is of type {values.dtype} "
            f"now. Convert it to {column.kind}s."
        )
    array = _naive(values) if hasattr(values, "dt") else np.asarray(values)
    if array.dtype.kind == "O":
        array = np.array([None if v != v else v for v in array.tolist()], dtype=object)
        zones = {getattr(v, "tzinfo", None) is not None for v in array if v is not None}
        if True in zones:
            raise ValueError(
                f"Column {column.name!r} holds dates with time zones as objects. Convert it with "
                "pd.to_datetime(..., utc=True)."
            )
    with np.errstate(over="ignore"):
        micro = array.astype(kind)
    seconds = micro.astype(np.int64) / _MICROSECONDS
    seconds[np.isnat(micro)] = np.nan
    return seconds


def _naive(values: Any) -> np.ndarray:
    """Return dates as NumPy's, in UTC, or durations."""
    if type(values).__module__.startswith("polars"):
        if getattr(values.dtype, "time_zone", None):
            values = values.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        return np.asarray(values.to_numpy())
    if str(values.dtype).startswith(("timestamp", "date32", "date64", "duration")):  # of pyarrow
        import pandas as pd

        name = str(values.dtype)
        if name.startswith("date"):
            values = pd.Series(pd.to_datetime(values.to_numpy(object)))
        elif name.startswith("duration"):
            values = values.astype("timedelta64[ns]")
        else:
            zone = values.dt.tz
            values = values.astype(f"datetime64[ns, {zone}]" if zone else "datetime64[ns]")
    if getattr(values.dtype, "tz", None) is not None:
        values = values.dt.tz_convert("UTC").dt.tz_localize(None)
    return np.asarray(values.to_numpy())


def _step(seconds: np.ndarray) -> float:
    """Return the largest of a day and a second that all numbers are multiples of, otherwise 0."""
    for step in (_SECONDS_OF_DAY, 1.0):
        if (seconds % step == 0).all():
            return float(step)
    return 0.0


# Numbers to values


def _values(column: Column, numbers: np.ndarray, library: str, rng: Any) -> Any:
    """Return numbers as a column of the type that it had in `fit`."""
    if column.levels is not None:
        return _as_levels(column, numbers, library, rng)
    if column.kind in ("date", "duration"):
        return _as_times(column, numbers, library)
    if column.kind == "boolean":
        return _typed(numbers >= 0.5, column.dtype, library)
    if column.kind == "integer":
        return _typed(_as_integers(numbers, column.dtype), column.dtype, library)
    return _typed(numbers, column.dtype, library)


def _as_integers(numbers: np.ndarray, dtype: str) -> np.ndarray:
    name = dtype.lower().partition("[")[0]
    kind = np.iinfo(name if name in ("int8", "int16", "int32", "uint8", "uint16", "uint32") else 8)
    if name == "uint64":
        kind = np.iinfo(np.uint64)
    elif name not in ("int8", "int16", "int32", "uint8", "uint16", "uint32"):
        kind = np.iinfo(np.int64)
    rounded = np.round(np.asarray(numbers, np.float64))
    inside = (rounded > kind.min) & (rounded < float(kind.max))
    whole = np.where(inside, rounded, 0).astype(kind.dtype)
    return np.where(inside, whole, np.where(rounded > 0, kind.max, kind.min).astype(kind.dtype))


def _as_levels(column: Column, numbers: np.ndarray, library: str, rng: Any) -> Any:
    levels = column.levels
    assert levels is not None
    values = np.empty(len(levels.all) + 1, dtype=object)
    values[:-1] = levels.all
    codes = np.where(np.isnan(numbers), -1, numbers).astype(np.intp)
    places = np.append(levels.commonest, -1)[codes]
    if rng is not None and levels.grouped.any():
        group = np.flatnonzero(levels.grouped)
        drawn = codes == levels.codes[group[0]]
        shares = _shares(levels.counts[group])
        places[drawn] = rng.choice(group, drawn.sum(), p=shares)
    taken = values[places]
    if isinstance(column.dtype, list):
        known, kind, ordered = column.dtype
        if library == "polars":
            pl = _polars()
            return pl.Series(taken.tolist(), dtype=pl.Enum(known))
        import pandas as pd

        categories = pd.Index(known, dtype=_readable(kind))
        return pd.Categorical(taken, categories=categories, ordered=ordered)
    return _typed(taken, column.dtype, library)


def _as_times(column: Column, numbers: np.ndarray, library: str) -> Any:
    seconds = np.clip(np.asarray(numbers, np.float64), *_DATES)
    if column.step:
        seconds = np.round(seconds / column.step) * column.step
    missing = np.isnan(seconds)
    micro = np.round(np.where(missing, 0, seconds) * _MICROSECONDS).astype(np.int64)
    times = micro.astype("datetime64[us]" if column.kind == "date" else "timedelta64[us]")
    times[missing] = "NaT"
    if library == "polars":
        return _polars_times(times, column.dtype)
    import pandas as pd

    series = pd.Series(times)
    name = str(column.dtype)
    if "ns" in name or name in ("object",):
        low, high = pd.Timestamp.min.to_datetime64(), pd.Timestamp.max.to_datetime64()
        if column.kind == "date":
            low, high = (np.datetime64(end, "us") for end in (low, high))
            series = pd.Series(np.clip(times, low + 1, high - 1))
    if column.kind == "date":
        zone = _time_zone(name)
        if zone is not None:
            series = series.dt.tz_localize("UTC").dt.tz_convert(zone)
    if name == "object":
        return series.dt.to_pydatetime() if column.kind == "date" else series
    if name.startswith("date"):
        if "[pyarrow]" in name:
            series = series.dt.date
        return series.astype(_readable(name))
    return series.astype(_readable(name))


def _time_zone(name: str) -> str | None:
    """Return the time zone in the name of a type of pandas or pyarrow."""
    inside = name.partition("[")[2].partition("]")[0]
    zone = inside.partition(",")[2].strip().removeprefix("tz=")
    return zone or None


def _polars_times(times: np.ndarray, dtype: str) -> Any:
    pl = _polars()
    series = pl.Series(times)
    if dtype == "Date":
        return series.cast(pl.Date)
    unit = next((each for each in ("ns", "us", "ms") if f"'{each}'" in dtype), "us")
    if dtype.startswith("Duration"):
        return series.cast(pl.Duration(unit))
    series = series.cast(pl.Datetime(unit))
    zone = dtype.partition("time_zone='")[2].partition("'")[0]
    if zone:
        series = series.dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
    return series


def _typed(values: np.ndarray, dtype: str, library: str) -> Any:
    """Return values as a column of a type, or of the nearest one that can be made of them."""
    if library == "numpy":
        return values
    if library == "polars":
        pl = _polars()
        kind = getattr(pl, dtype, None)
        series = pl.Series(values.tolist()) if values.dtype.kind == "O" else pl.Series(values)
        return series if kind is None or kind in (pl.Object, pl.Null) else series.cast(kind)
    import pandas as pd

    if dtype == "object" and values.dtype.kind in "biuf":
        return pd.Series(values.astype(object))
    return pd.Series(values).astype(_readable(dtype))


def _readable(dtype: str) -> Any:
    """Return the type of pandas with a name, or the nearest one whose name can be read."""
    import pandas as pd

    if dtype.startswith("dictionary"):
        return "category"
    if dtype.startswith("decimal"):
        return "float64"
    try:
        return pd.api.types.pandas_dtype(dtype)
    except (TypeError, NotImplementedError):
        return "object"
