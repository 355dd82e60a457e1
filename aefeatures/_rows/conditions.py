"""Conditions on columns that new rows have to fulfil."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from numbers import Integral, Real
from typing import Any

import numpy as np

from aefeatures._rows.tables import Column, Levels, Table

# A number may differ from the one asked for by about this part of the column's standard deviation,
# before it is set to that number.
_TOLERANCE = 0.05

_MOST_SHOWN = 10


@dataclass(frozen=True)
class Condition:
    """Value that a column of new rows has to have.

    Attributes
    ----------
    column : int
        Position of the column.
    value : float
        The number, or the code of the level.
    level : object
        Level of a category, otherwise None.
    share : float
        Share of the level among those with its code, 1 for numbers.
    """

    column: int
    value: float
    level: Any = None
    share: float = 1.0

    def log_weights(self, numbers: np.ndarray, spread: float) -> np.ndarray:
        """Return the logarithms of the weights in [0, 1] of a column's numbers."""
        unit = _TOLERANCE * spread or 1.0
        weights: np.ndarray = -0.5 * np.square((numbers - self.value) / unit)
        return weights


def resolve_conditions(
    conditions: Mapping[Any, Any],
    names: Sequence[Any] | None,
    n_columns: int,
    described: tuple[np.ndarray, np.ndarray, np.ndarray] | None,
    table: Table | None,
) -> list[Condition]:
    """Return the conditions that `sample` was given.

    Parameters
    ----------
    conditions : mapping of names to values
        Positions instead of names if columns have no names.
    names : sequence or None
        Names of the columns, if they have any.
    n_columns : int
    described : tuple of ndarray or None
        Smallest and largest value of each column, and whether all are whole.
    table : Table or None

    Raises
    ------
    ValueError
        If there is no such column or level, or the number is not one of the column's range.
    """
    if not isinstance(conditions, Mapping):
        raise ValueError(
            "conditions must be a dict of columns and values, such as {'age': 40}, got "
            f"{conditions!r}."
        )
    resolved = []
    for name, value in conditions.items():
        position = _position(name, names, n_columns)
        column = None if table is None else table.columns[position]
        if column is not None and column.levels is not None:
            resolved.append(_of_level(position, column, column.levels, value))
            continue
        number = _number(name, position, value, table)
        if described is not None:
            _check_range(name, value, number, [each[position] for each in described])
        resolved.append(Condition(position, number))
    return resolved


def _position(
    name: Any,
    names: Sequence[Any] | None,
    n_columns: int,
) -> int:
    if names is None:
        known = isinstance(name, Integral) and not isinstance(name, bool)
        if known and 0 <= int(name) < n_columns:
            return int(name)
        raise ValueError(
            f"conditions has the column {name!r}. The X of fit had no names: give positions "
            f"from 0 to {n_columns - 1}."
        )
    if name in names:
        return [*names].index(name)
    raise ValueError(
        f"conditions has the unknown column {name!r}. The columns are {_listed(names)}."
    )


def _of_level(position: int, column: Column, levels: Levels, value: Any) -> Condition:
    try:
        code = levels.code_of.get(value)
    except TypeError:  # such as a list
        code = None
    if code is None:
        raise ValueError(
            f"conditions asks for {value!r} in the column {column.name!r}, which was not in fit. "
            f"Its levels are {_listed(levels.all)}."
        )
    level = next(i for i, each in enumerate(levels.all) if each == value)
    share = levels.counts[level] / levels.code_counts[code]
    return Condition(position, float(code), levels.all[level], float(share))


def _number(name: Any, position: int, value: Any, table: Table | None) -> float:
    kind = "number" if table is None else table.columns[position].kind
    number = np.nan
    if kind in ("date", "duration"):
        assert table is not None
        try:
            value = datetime.fromisoformat(value) if isinstance(value, str) else value
            number = table.number_of(position, value)
        except (TypeError, ValueError, OverflowError):
            number = np.nan
    elif isinstance(value, Real | np.bool_):
        number = float(value)
    if not np.isfinite(number):
        raise ValueError(
            f"conditions asks for {value!r} in the column {name!r}, which holds {kind}s."
        )
    return number


def _check_range(name: Any, value: Any, number: float, described: Sequence[Any]) -> None:
    low, high, whole = described
    if not low <= number <= high:
        shown = "" if isinstance(value, datetime | str) else f", {low:g} to {high:g}"
        raise ValueError(
            f"conditions asks for {value!r} in the column {name!r}, which is not in its range in "
            f"fit{shown}."
        )
    if whole and number != round(number):
        raise ValueError(
            f"conditions asks for {value!r} in the column {name!r}, which holds whole numbers."
        )


def _listed(values: Sequence[Any]) -> str:
    more = f" and {len(values) - _MOST_SHOWN} more" if len(values) > _MOST_SHOWN else ""
    return ", ".join(map(repr, [*values][:_MOST_SHOWN])) + more
