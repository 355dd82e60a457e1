"""Columns of pandas, polars and NumPy: what they hold, as numbers, and columns of their types."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from numbers import Integral, Number
from typing import Any

import numpy as np

_KINDS_OF_CODES = {
    "b": "boolean",
    "i": "integer",
    "u": "integer",
    "f": "number",
    "M": "date",
    "m": "duration",
    "U": "text",
    "O": "objects",
}

# Parts of a second in the units of dates and durations.
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_SECONDS_OF_DAY = 86_400

# Years 1 to 9999 in seconds since 1970, which Python can represent.
_YEARS = (-62_135_596_800, 253_402_300_799)
# Years 1678 to 2261, which 64 bits can represent in nanoseconds.
_YEARS_IN_NS = (-9_214_560_000, 9_214_646_399)

_MISSING_TYPES = ("NoneType", "NAType", "NaTType")


def is_frame(X: Any) -> bool:
    """Whether X is a data frame of pandas or polars."""
    return hasattr(X, "columns") and hasattr(X, "dtypes") and hasattr(X, "shape")


def is_pandas(values: Any) -> bool:
    """Whether values are a frame or a column of pandas."""
    return hasattr(values, "iloc")


def columns_of(X: Any) -> list[Any]:
    """Return the columns of a frame or an array."""
    if is_pandas(X):
        return [X.iloc[:, i] for i in range(X.shape[1])]
    return [*X.get_columns()] if is_frame(X) else [X[:, i] for i in range(X.shape[1])]


def _holds_objects(values: Any) -> bool:
    return str(values.dtype).lower() == "object"


def as_objects(values: Sequence[Any]) -> np.ndarray:
    """Return values of any type as an array of objects."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def kind_of(values: Any) -> str:
    """Return what a column holds.

    One of "number", "integer", "boolean", "date", "duration", "text" and "category" (a type that
    lists its levels); "unknown" for objects that are all missing, "mixed" for objects of several
    types, and "other".
    """
    if isinstance(values, np.ndarray):
        kind = _KINDS_OF_CODES.get(values.dtype.kind, "other")
    else:
        kind = _pandas_kind(values.dtype) if is_pandas(values) else _polars_kind(values.dtype)
    return _kind_of_objects(_listed(values)) if kind == "objects" else kind


def _pandas_kind(dtype: Any) -> str:
    import pandas as pd

    if isinstance(dtype, pd.CategoricalDtype):
        return "category"
    if isinstance(dtype, pd.StringDtype):
        return "text"
    if isinstance(dtype, pd.SparseDtype):
        dtype = dtype.subtype
    arrow = str(getattr(dtype, "pyarrow_dtype", ""))
    kinds = {
        "dictionary": "category",
        "decimal": "number",
        "null": "unknown",
        "large_string": "text",  # an object for pandas 2.1
    }
    for start, kind in kinds.items():
        if arrow.startswith(start):
            return kind
    if dtype.kind == "O" and dtype != np.dtype(object):  # such as a period
        return "other"
    return _KINDS_OF_CODES.get(dtype.kind, "other")


def _polars_kind(dtype: Any) -> str:
    if dtype.is_numeric():
        return "integer" if dtype.is_integer() else "number"
    kinds = {
        "Boolean": "boolean",
        "Categorical": "category",
        "Date": "date",
        "Datetime": "date",
        "Duration": "duration",
        "Enum": "category",
        "Null": "unknown",
        "Object": "objects",
        "String": "text",
    }
    return kinds.get(type(dtype).__name__, "other")


def _kind_of_objects(objects: list[Any]) -> str:
    types = {type(value): value for value in objects if not is_missing(value)}
    families = {_family(value) for value in types.values()}
    if len(families) != 1:
        return "mixed" if families else "unknown"
    (family,) = families
    if family != "number":
        return family if family in ("text", "date", "duration") else "other"
    if all(issubclass(each, bool | np.bool_) for each in types):
        return "boolean"
    return "integer" if all(issubclass(each, Integral) for each in types) else "number"


def is_missing(value: Any) -> bool:
    """Whether an object is None, NA, NaT or NaN."""
    if isinstance(value, float | np.floating | Decimal):
        return bool(value != value)
    return type(value).__name__ in _MISSING_TYPES


def _family(value: Any) -> str:
    """Return which values an object may be compared with."""
    if isinstance(value, str):
        return "text"
    if isinstance(value, Number | np.bool_):
        return "number"
    if isinstance(value, date):
        return "date"
    return "duration" if isinstance(value, timedelta) else type(value).__name__


def one_of_each_type(values: Sequence[Any]) -> list[Any]:
    """Return the first value of each type, where all numbers count as one type."""
    examples: dict[str, Any] = {}
    for value in values:
        examples.setdefault(_family(value), value)
    return [*examples.values()]


def have_common_type(values: Sequence[Any], others: Sequence[Any]) -> bool:
    """Whether any value may equal one of the others."""
    return not {*map(_family, values)}.isdisjoint(map(_family, others))


def factorized(values: Any) -> tuple[np.ndarray, list[Any]]:
    """Return the positions of a column's values in a list of its different known values, or -1.

    Raises
    ------
    TypeError
        If a value cannot be hashed.
    """
    if is_pandas(values):
        import pandas as pd

        codes, known = pd.factorize(values)
        return codes, known.tolist()
    places: dict[Any, int] = {}
    codes = [
        -1 if is_missing(value) else places.setdefault(value, len(places))
        for value in _listed(values)
    ]
    return np.array(codes, dtype=np.intp), [*places]


def known_values(values: Any) -> list[Any]:
    """Return the values of a column that are not missing."""
    return [value for value in _listed(values) if not is_missing(value)]


def _listed(values: Any) -> list[Any]:
    listed: list[Any] = values.tolist() if hasattr(values, "tolist") else values.to_list()
    return listed


# Values to numbers


def as_numbers(values: Any) -> np.ndarray:
    """Return numbers and booleans as floats, with NaN for missing ones.

    They are float32 if that holds all numbers of their type, otherwise float64.
    """
    if isinstance(values, np.ndarray) and values.dtype.kind != "O":
        return values.astype(_float_type(values.dtype))
    if is_pandas(values) and values.dtype != np.dtype(object):
        dtype = getattr(values.dtype, "subtype", values.dtype)
        dtype = _float_type(getattr(dtype, "numpy_dtype", dtype))
        if isinstance(values.dtype, np.dtype):
            return np.asarray(values, dtype)
        return np.asarray(values.to_numpy(dtype=dtype, na_value=np.nan))
    if not isinstance(values, np.ndarray | list) and not is_pandas(values):
        dtype = _float_type(values[:0].to_numpy().dtype)
        if str(values.dtype) not in ("Object", "Null"):
            pl = _polars()
            kind = pl.Float32 if dtype == np.float32 else pl.Float64
            return np.array(values.cast(kind).to_numpy(), dtype)
    listed = [np.nan if is_missing(value) else float(value) for value in _listed(values)]
    return np.array(listed, np.float64)


def _float_type(dtype: Any) -> type[np.floating[Any]]:
    code, size = getattr(dtype, "kind", "O"), getattr(dtype, "itemsize", 8)
    fits = (code == "f" and size <= 4) or (code in "biu" and size <= 2)
    return np.float32 if fits else np.float64


def as_seconds(values: Any) -> np.ndarray:
    """Return dates as seconds since 1970 (UTC) and durations as seconds, with NaN for missing."""
    if not isinstance(values, np.ndarray) and not is_pandas(values):
        dtype = values.dtype
        if type(dtype).__name__ in ("Date", "Datetime", "Duration"):
            missing = values.is_null().to_numpy()
            parts = values.to_physical().fill_null(0).cast(_polars().Int64).to_numpy()
            return _seconds(parts, getattr(dtype, "time_unit", "day"), missing)
    elif hasattr(values.dtype, "pyarrow_dtype"):
        import pyarrow as pa

        array = pa.Array.from_pandas(values)
        missing = np.asarray(array.is_null().to_numpy(zero_copy_only=False))
        unit = {"date32[day]": "day", "date64[ms]": "ms"}.get(str(array.type))
        unit = unit or array.type.unit
        whole = array.cast(pa.int32()) if unit == "day" else array.cast(pa.int64())
        return _seconds(whole.fill_null(0).to_numpy(zero_copy_only=False), unit, missing)
    elif values.dtype.kind in "Mm":
        if getattr(values.dtype, "tz", None) is not None:
            values = values.dt.tz_convert(None)
        array = np.asarray(values)
        unit, step = np.datetime_data(array.dtype)
        if unit not in _PER_SECOND or step != 1:
            array, unit = array.astype(f"{array.dtype.kind}8[s]"), "s"
        return _seconds(array.astype(np.int64), unit, np.isnat(array))
    listed = [np.nan if is_missing(value) else _seconds_of(value) for value in _listed(values)]
    return np.array(listed, np.float64)


def _seconds(parts: np.ndarray, unit: str, missing: np.ndarray) -> np.ndarray:
    """Return whole numbers of a unit as seconds, exact for whole seconds."""
    parts = parts.astype(np.int64)
    if unit == "day":
        seconds = parts.astype(np.float64) * _SECONDS_OF_DAY
    else:
        whole, rest = np.divmod(parts, _PER_SECOND[unit])
        seconds = whole + rest / _PER_SECOND[unit]
    seconds[missing] = np.nan
    return seconds


def _seconds_of(value: Any) -> float:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    return float((value - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())


def zone_of(values: Any) -> str | None:
    """Return the time zone of dates, None if they have none; "UTC" for objects of any zone.

    Raises
    ------
    ValueError
        If only some of the objects have a time zone.
    """
    if _holds_objects(values):
        zones = {getattr(each, "tzinfo", None) is not None for each in known_values(values)}
        if len(zones) > 1:
            raise ValueError("some dates have a time zone, and others have none")
        return "UTC" if True in zones else None
    dtype = getattr(values.dtype, "pyarrow_dtype", values.dtype)
    zone = getattr(dtype, "time_zone", None) or getattr(dtype, "tz", None)
    return None if zone is None else str(zone)


def has_zone(dtype: Any) -> bool:
    """Whether dates of a type that `dtype_name` describes have a time zone."""
    return zone_in_name(dtype) is not None


def zone_in_name(dtype: Any) -> str | None:
    """Return the time zone in the description of a type by `dtype_name`, None if it has none."""
    zone = re.search(
        r"^datetime64\[\w+, (.+)\]|\btz=(.+)\]|^object\[(UTC)\]|time_zone='(.+?)'", str(dtype)
    )
    return next(filter(None, zone.groups())) if zone else None


# Types by name


def dtype_name(values: Any, kind: str) -> Any:
    """Return a description of a column's type, of which `make_column` makes one again.

    It can be written as JSON if the levels can. A type that lists its levels is a list of these,
    of the name of their type and of whether they are ordered. Types of pyarrow begin with "arrow",
    and objects have what they are in brackets if they are dates or have a time zone. Decimals are
    described as floats.
    """
    dtype = values.dtype
    if _holds_objects(values):
        if kind != "date":
            return str(dtype)
        known = known_values(values)
        are_days = known and not any(isinstance(value, datetime) for value in known)
        return f"{dtype}[{'date' if are_days else zone_of(values) or 'datetime'}]"
    if is_pandas(values):
        is_listed = kind == "number" and _pandas_kind(dtype) == "category"
        return "float64" if is_listed else _pandas_name(dtype)
    if isinstance(values, np.ndarray):
        return str(dtype)
    if type(dtype).__name__ == "Enum":
        return [dtype.categories.to_list(), "String", True]
    if type(dtype).__name__ == "Categorical":
        return "Categorical"
    return "Float64" if kind == "number" and dtype.is_decimal() else str(dtype)


def _pandas_name(dtype: Any) -> Any:
    import pandas as pd

    if isinstance(dtype, pd.CategoricalDtype):
        levels = dtype.categories
        return [levels.tolist(), _pandas_name(levels.dtype), bool(dtype.ordered)]
    if isinstance(dtype, pd.StringDtype):
        return "str" if dtype.na_value is not pd.NA else f"string[{dtype.storage}]"
    if isinstance(dtype, pd.ArrowDtype):
        name = str(dtype.pyarrow_dtype)
        return "float64" if name.startswith("decimal") else f"arrow {name}"
    return str(dtype)


def _pandas_dtype(name: str) -> Any:
    import pandas as pd

    if not name.startswith("arrow "):
        try:
            dtype = pd.api.types.pandas_dtype(name)
        except (TypeError, NotImplementedError):  # such as a time zone of dateutil
            return "datetime64[us, UTC]" if name.startswith("datetime64") else "object"
        # pandas before version 3 takes "str" for a type of NumPy, which has no missing text.
        return "object" if getattr(dtype, "kind", "O") == "U" else dtype
    return pd.ArrowDtype(_arrow_type(name.removeprefix("arrow ")))


def _arrow_type(name: str) -> Any:
    import pyarrow as pa

    zoned = re.fullmatch(r"timestamp\[(\w+), tz=(.*)\]", name)
    if zoned:
        return pa.timestamp(*zoned.groups())
    listing = re.fullmatch(r"dictionary<values=(.*), indices=(\w+), ordered=(\d)>", name)
    if listing:
        levels, indices, ordered = listing.groups()
        return pa.dictionary(_arrow_type(indices), _arrow_type(levels), ordered == "1")
    return pa.type_for_alias(name)


def _polars() -> Any:
    import polars as pl

    return pl


# Columns of values. Missing values are NaN, NaT or None.


def make_column(values: np.ndarray, dtype: Any, library: str) -> Any:
    """Return numbers, booleans, objects, or times in microseconds as a column of a type."""
    if isinstance(dtype, str) and dtype.lower().startswith("object"):
        values = _python_objects(values, dtype)
    if library == "numpy":
        return values
    return _polars_column(values, dtype) if library == "polars" else _pandas_column(values, dtype)


def as_times(seconds: np.ndarray, kind: str, dtype: Any) -> np.ndarray:
    """Return seconds as dates or durations in microseconds that fit a type, NaN as NaT."""
    low, high = _YEARS_IN_NS if re.search(r"[\['](ns)\b", str(dtype)) else _YEARS
    missing = np.isnan(seconds)
    seconds = np.clip(np.where(missing, 0, seconds).astype(np.float64), low, high)
    micro = np.round(seconds * _PER_SECOND["us"]).astype(np.int64)
    times = micro.astype("M8[us]" if kind == "date" else "m8[us]")
    times[missing] = "NaT"
    return times


def _python_objects(values: np.ndarray, dtype: str) -> np.ndarray:
    inside = dtype.partition("[")[2].rstrip("]")
    listed = [None if is_missing(value) else value for value in values.tolist()]
    if inside == "date":
        listed = [value and value.date() for value in listed]
    elif inside == "UTC":
        listed = [value and value.replace(tzinfo=UTC) for value in listed]
    return as_objects(listed)


def _pandas_column(values: np.ndarray, dtype: Any) -> Any:
    import pandas as pd

    if isinstance(dtype, list):
        levels, kind, ordered = dtype
        categories = pd.Index(levels, dtype=_pandas_dtype(kind))
        return pd.Series(pd.Categorical(values, categories=categories, ordered=ordered))
    if dtype.startswith("object"):
        return pd.Series(values, dtype=object)
    target = _pandas_dtype(dtype)
    if isinstance(target, pd.ArrowDtype):
        import pyarrow as pa

        arrow = target.pyarrow_dtype
        if values.dtype.kind in "Mm":
            array = pa.array(values).cast(arrow, safe=False)
        else:
            array = pa.array(values.tolist(), arrow, from_pandas=True)
        return pd.Series(pd.arrays.ArrowExtensionArray(pa.chunked_array([array])))
    column = pd.Series(values)
    if values.dtype.kind == "M" and "," in dtype:
        column = column.dt.tz_localize("UTC")
    return column.astype(target)


def _polars_column(values: np.ndarray, dtype: Any) -> Any:
    pl = _polars()
    target = _polars_dtype(dtype)
    if values.dtype.kind == "O":
        return pl.Series(values.tolist(), dtype=target, strict=False)
    zone = getattr(target, "time_zone", None)
    if zone is not None:
        times = pl.Series(values).cast(pl.Datetime(target.time_unit))
        return times.dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
    series = pl.Series(values, nan_to_null=target == pl.Null)
    return series if target is None else series.cast(target)


def _polars_dtype(dtype: Any) -> Any:
    """Return the type of polars with a name, None if it is to be inferred from values."""
    pl = _polars()
    if isinstance(dtype, list):
        return pl.Enum(dtype[0])
    name, _, settings = dtype.partition("(")
    unit, zone = (re.findall(rf"{each}='(.*?)'", settings) for each in ("unit", "zone"))
    if name == "Datetime":
        return pl.Datetime(unit[0], zone[0] if zone else None)
    if name == "Duration":
        return pl.Duration(unit[0])
    return None if settings or dtype.startswith("Object") else getattr(pl, name)


def make_series(library: str, values: list[Any]) -> Any:
    """Return values as a column of a library, of a type that follows from them."""
    if library == "numpy":
        return as_objects(values)
    if library == "polars":
        import polars as pl

        return pl.Series(values, strict=False)
    import pandas as pd

    return pd.Series(values)


def make_frame(
    library: str, columns: Sequence[Any], names: Sequence[str | int], index: Any = None
) -> Any:
    """Return columns as a frame of a library; `index` is that of a pandas frame."""
    if library == "polars":
        pl = _polars()
        return pl.DataFrame(dict(zip(map(str, names), map(pl.Series, columns), strict=True)))
    import pandas as pd

    frame = pd.DataFrame({i: pd.Series(column) for i, column in enumerate(columns)})
    are_texts = all(isinstance(name, str) for name in names)
    frame.columns = pd.Index(names) if are_texts else pd.Index(names, dtype=object).infer_objects()
    if index is not None:
        frame.index = index
    return frame
