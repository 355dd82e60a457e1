"""`Target`: y as pictures show it, in classes or on a scale of numbers, dates or durations."""

from __future__ import annotations

from datetime import UTC, date, timedelta
from typing import Any

import numpy as np
from sklearn.utils.validation import column_or_1d

from aefeatures._rows.checks import as_numpy

# A y of whole numbers with more different values than this is a quantity.
_MOST_INTEGERS = 20

_SECONDS = {"days": 86_400.0, "hours": 3600.0, "minutes": 60.0, "seconds": 1.0}


class Target:
    """y as pictures show it.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
    most_classes : int
        Largest number of entries in a legend. If there are more classes, the rarest share one
        entry, "n other classes".
    categorical : bool or None, default=None
        Whether y holds classes. If None, categories, names, booleans and at most 20 different whole
        numbers are classes. Other numbers, dates and durations are on a scale.
    name : str, default=None
        Name of y. By default that of the series, or of the only column if y is a frame.

    Attributes
    ----------
    name : str or None
        Name of y, followed by the unit if y holds durations.
    classes : list of str or None
        Names of the classes in order, with the entries for other classes and for missing values at
        the end. None if y is on a scale.
    n_named : int
        Number of classes that have an entry of their own.
    has_other, has_missing : bool
        Whether `classes` has these entries.
    is_date : bool
        Whether values on the scale are dates, as seconds since 1970 in local time of y's time zone.
    numbers : ndarray of shape (n_samples,)
        Positions in `classes`, or float64 values on a scale, with NaN if y is missing.

    Raises
    ------
    ValueError
        If y has several columns, or if `categorical` is False and y holds neither numbers nor
        dates.
    """

    def __init__(
        self,
        y: Any,
        *,
        most_classes: int,
        categorical: bool | None = None,
        name: str | None = None,
    ) -> None:
        if len(getattr(y, "columns", ())) == 1:
            y = y[y.columns[0]]
        own_name = getattr(y, "name", None)
        self.name = name if name is not None or own_name in (None, "") else str(own_name)
        self.classes: list[str] | None = None
        self.n_named, self.has_other, self.has_missing, self.is_date = 0, False, False, False
        categories: Any = getattr(getattr(y, "dtype", None), "categories", None)
        ordered = list(categories) if hasattr(categories, "__len__") else None
        y = _one_column(y)
        known = ~np.array([_is_missing(value) for value in y], dtype=bool)
        values = _plain_times(y[known])
        if categorical is None:
            categorical = ordered is not None or _holds_classes(values)
        if categorical:
            self._set_classes(values, known, ordered, most_classes)
        else:
            self._set_scale(values, known)

    def _set_classes(
        self, values: np.ndarray, known: np.ndarray, ordered: list[Any] | None, most: int
    ) -> None:
        names, positions = _unique(values, ordered)
        self.n_named = len(names)
        if len(names) > most:
            counts = np.bincount(positions, minlength=len(names))
            # Two entries are left for other classes and for missing values.
            kept = np.sort(np.argsort(-counts, kind="stable")[: most - 2])
            moved = np.full(len(names), len(kept))
            moved[kept] = np.arange(len(kept))
            others = f"{len(names) - len(kept)} other classes"
            names, positions = [*(names[i] for i in kept), others], moved[positions]
            self.n_named, self.has_other = len(kept), True
        self.has_missing = not known.all()
        self.numbers = np.full(len(known), len(names))
        self.numbers[known] = positions
        self.classes = [*names, "missing"] if self.has_missing else names

    def _set_scale(self, values: np.ndarray, known: np.ndarray) -> None:
        if values.dtype.kind == "M":
            self.is_date = True
            values = values.astype("datetime64[us]").astype(np.int64) / 1e6
        elif values.dtype.kind == "m":
            values = values.astype("timedelta64[us]").astype(np.int64) / 1e6
            longest = np.abs(values).max(initial=0)
            unit = next((u for u, size in _SECONDS.items() if longest >= 2 * size), "seconds")
            values = values / _SECONDS[unit]
            self.name = f"{self.name or 'y'} ({unit})"
        self.numbers = np.full(len(known), np.nan)
        try:
            self.numbers[known] = [float(value) for value in values.tolist()]
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"categorical=False puts y on a scale, which needs numbers or dates: {error}. "
                "Leave categorical at None."
            ) from error

    @property
    def limits(self) -> tuple[float, float]:
        """Return the smallest and the largest finite value on the scale."""
        finite = self.numbers[np.isfinite(self.numbers)]
        return (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)


def _one_column(y: Any) -> np.ndarray:
    """Return y as an array that keeps booleans, big integers, categories and local times."""
    dtype = getattr(y, "dtype", None)
    if getattr(dtype, "time_zone", None) is not None:  # polars would convert times to UTC
        y = y.dt.replace_time_zone(None)
    elif getattr(dtype, "na_value", None) is not None and not isinstance(dtype, np.dtype):
        y = np.asarray(y, dtype=object)  # pandas' nullable types would become floats
    column: np.ndarray = column_or_1d(as_numpy(y))
    return column


def _is_missing(value: Any) -> bool:
    """Return whether a label is None, NaN or pandas' NA."""
    try:
        return value is None or bool(value != value)
    except TypeError:  # NA compares to NA, which has no truth value
        return True


def _plain_times(values: np.ndarray) -> np.ndarray:
    """Convert objects to NumPy if all are dates or all are durations. Leave others unchanged."""
    if values.dtype.kind != "O" or not len(values):
        return values
    times = [v.to_timestamp() if hasattr(v, "to_timestamp") else v for v in values]  # periods
    if all(isinstance(time, (timedelta, np.timedelta64)) for time in times):
        return np.array(times, dtype="timedelta64[us]")
    if not all(isinstance(time, (date, np.datetime64)) for time in times):
        return values
    # Zones are compared by name, as pytz has several objects for a zone, one for each offset.
    zones = {str(getattr(time, "tzinfo", None)) for time in times}
    return np.array([_without_zone(time, len(zones) > 1) for time in times], dtype="datetime64[us]")


def _without_zone(time: Any, utc: bool) -> Any:
    """Return a time without its zone: in local time, or in UTC if `utc`."""
    if getattr(time, "tzinfo", None) is None:
        return time
    return (time.astimezone(UTC) if utc else time).replace(tzinfo=None)


def _holds_classes(values: np.ndarray) -> bool:
    """Return whether the values are classes, not numbers, dates or durations on a scale."""
    if values.dtype.kind == "O":
        if any(isinstance(value, (str, bytes)) for value in values):
            return True  # even "00501" is a name, not a number
        try:
            values = values.astype(float)
        except (TypeError, ValueError):
            return True
    if values.dtype.kind in "mM":
        return False
    if values.dtype.kind not in "iuf":
        return True
    distinct = np.unique(values)
    # Infinity is a quantity, as no class has such a number.
    whole = np.isfinite(distinct).all() and (distinct == np.rint(distinct)).all()
    return len(distinct) <= _MOST_INTEGERS and bool(whole)


def _unique(values: np.ndarray, ordered: list[Any] | None) -> tuple[list[str], np.ndarray]:
    """Return the names of the classes in `values`, in order, and the position of each value."""
    if ordered is not None:
        place = {category: i for i, category in enumerate(ordered)}
        occurring, positions = np.unique([place[v] for v in values], return_inverse=True)
        return [_name(ordered[int(i)]) for i in occurring], positions
    try:
        classes, positions = np.unique(values, return_inverse=True)
    except TypeError:  # values of several types cannot be sorted
        classes, positions = np.unique(values.astype(str), return_inverse=True)
    if classes.dtype.kind == "M":
        return np.datetime_as_string(classes, unit="auto").tolist(), positions
    return [_name(label) for label in classes.tolist()], positions


def _name(label: Any) -> str:
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    return str(label)
