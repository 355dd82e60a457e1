"""Survey of the rows of X: all statistics that a fit needs, from one pass."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from aefeatures._rows.sources import as_source, evenly_spaced
from aefeatures._torch.ranks import Ranks

# Smallest divisor. Smaller numbers are denormal, and some processors treat them as zero.
SMALLEST = float(np.finfo(np.float64).tiny)

# Relative range below which a column of floats is constant except for rounding, by the bytes of its
# type. It is hundreds of units in the last place in float64, which is far more precise than any
# measurement, but only a few in smaller types, in which dates and coordinates may vary by few.
_ROUNDING = {2: 1e-3, 4: 1e-6, 8: 1e-13}


def nan_in(rows: np.ndarray) -> Any:
    """Return the mask of missing values (NaN), or a single False for types without NaN."""
    return np.isnan(rows) if rows.dtype.kind == "f" else np.False_


def has_missing(rows: np.ndarray) -> bool:
    """Whether any value is missing (NaN)."""
    return bool(nan_in(rows).any())


def with_values(rows: np.ndarray) -> np.ndarray:
    """Return the rows that have any known value."""
    missing = nan_in(rows)
    return rows[~missing.all(axis=1)] if missing.any() else rows


@dataclass
class Survey:
    """Number, type, missing values and columns' statistics of rows.

    Surveys of different rows can be joined: of chunks, of ranks, and of blocks of a Ray dataset.

    Attributes
    ----------
    n_rows : int
    n_features : int
    dtype : numpy.dtype
        Type that holds the values of all rows.
    missing : bool
        Whether any value is missing.
    columns : Columns
        Statistics of the requested columns.
    known : ndarray of int or None
        Positions of the rows with any known value, if some have none, among the rows of this
        process.
    n_known : int
        Number of rows with any known value.
    largest : float
        Largest number of the type, if it is an unsigned integer of at most 16 bits, otherwise
        infinity. Scaling may divide X by it.
    sample : ndarray
        Some of the rows, if they were requested.
    """

    n_rows: int
    n_features: int
    dtype: np.dtype
    missing: bool
    columns: Columns
    known: np.ndarray | None
    n_known: int
    largest: float
    sample: np.ndarray

    @classmethod
    def of(cls, X: Any, columns: np.ndarray | None = None, n_sampled: int = 0) -> Survey:
        """Return the survey of the rows of X, which are read once.

        Parameters
        ----------
        X : Source, or what `as_source` takes
        columns : ndarray of bool, default=None
            Columns whose statistics are needed; None means all.
        n_sampled : int, default=0
            Rows to keep as a sample.
        """
        source = as_source(X)
        n_rows, n_features = source.shape
        survey = cls(
            n_rows=n_rows,
            n_features=n_features,
            dtype=source.dtype,
            missing=False,
            columns=Columns(n_features if columns is None else int(columns.sum())),
            known=None,
            n_known=n_rows,
            largest=_largest(source.dtype) if n_rows else 0.0,  # of a rank without rows
            sample=source.take(evenly_spaced(n_rows, n_sampled)) if n_sampled else np.empty(0),
        )
        whole = columns is None or bool(columns.all())
        if source.dtype.kind != "f" and not survey.columns.mean.size:
            return survey  # nothing to look for
        known = []
        for chunk in source.chunks_for_fit(width=4 * n_features):
            missing = nan_in(chunk)
            any_missing = bool(missing.any())
            known.append(~missing.all(axis=1) if any_missing else np.ones(len(chunk), bool))
            survey.missing |= any_missing
            if whole:
                survey.columns.add(chunk, missing)
            elif survey.columns.mean.size:
                survey.columns.add(chunk[:, columns])
        if survey.missing and not (every := np.concatenate(known)).all():
            survey.known = np.flatnonzero(every)
            survey.n_known = len(survey.known)
        return survey

    def join(self, other: Survey) -> None:
        """Add the survey of other rows; `known` becomes None, as positions differ by process.

        Raises
        ------
        ValueError
            If the rows have another number of columns.
        """
        if other.n_features != self.n_features:
            raise ValueError(
                "All rows must have the same number of columns, got rows with "
                f"{self.n_features} and with {other.n_features} columns."
            )
        self.n_rows += other.n_rows
        self.dtype = np.promote_types(self.dtype, other.dtype)
        self.missing |= other.missing
        self.columns.join(other.columns)
        self.known = None
        self.n_known += other.n_known
        self.largest = max(self.largest, other.largest)
        self.sample = np.concatenate([self.sample, other.sample])

    def of_columns(self, wanted: np.ndarray) -> Survey:
        """Return the survey of some columns, given by a mask."""
        return replace(self, n_features=int(wanted.sum()), columns=self.columns.of(wanted))

    def of_all(self, ranks: Ranks) -> Survey:
        """Return the survey of the rows of all ranks, joined in the same order on each rank."""
        if ranks.size == 1:
            return self
        total, *others = ranks.gather(replace(self, known=None))
        for other in others:
            total.join(other)
        return total


def _largest(dtype: np.dtype) -> float:
    small = dtype.kind == "u" and dtype.itemsize <= 2  # in any byte order
    return float(np.iinfo(dtype).max) if small else np.inf


class Columns:
    """Mean, extent and deviation of each column, without missing values.

    They are computed in one pass. Chunks are joined by the formula of Chan, Golub and LeVeque
    (1983), which is exact even if the offset is much larger than the variance. The statistics of a
    column of missing values are all zero.
    """

    def __init__(self, n_features: int) -> None:
        self.low, self.high = np.full(n_features, np.inf), np.full(n_features, -np.inf)
        self.mean, self.squares, self.count = (np.zeros(n_features) for _ in range(3))
        self.unit = np.full(n_features, SMALLEST)  # `squares` are in units of its square
        self.rounding = 0.0  # relative range below which a column does not vary

    def add(self, chunk: np.ndarray, missing: Any = None) -> None:
        """Add rows, of shape (n, n_features), in which `missing` is the mask of NaN."""
        if missing is None:
            missing = nan_in(chunk)
        with np.errstate(under="ignore", over="ignore", invalid="ignore"):
            self.join(self._of_chunk(chunk, missing))

    def _of_chunk(self, chunk: np.ndarray, missing: Any) -> Columns:
        other = Columns(chunk.shape[1])
        if chunk.dtype.kind == "f":
            other.rounding = _ROUNDING.get(chunk.dtype.itemsize, 0.0)
        known = np.where(missing, 0, chunk) if missing.any() else chunk
        other.count = len(chunk) - np.broadcast_to(missing, chunk.shape).sum(axis=0)
        other.mean = known.sum(axis=0, dtype=np.float64) / np.maximum(other.count, 1)
        other.low = np.fmin.reduce(chunk, axis=0).astype(np.float64)
        other.high = np.fmax.reduce(chunk, axis=0).astype(np.float64)
        step = np.abs(other.mean - self.mean)
        other.unit = np.maximum(self.unit, _unit(np.fmax(other.high - other.low, step)))
        centred = known - other.mean
        centred[np.broadcast_to(missing, chunk.shape)] = 0
        if (other.unit != 1).any():
            centred /= other.unit
        other.squares = np.einsum("ij,ij->j", centred, centred)
        return other

    def join(self, other: Columns) -> None:
        """Add the statistics of other rows."""
        joined = np.maximum(self.count + other.count, 1)
        step = other.mean - self.mean
        unit = np.maximum(np.maximum(self.unit, other.unit), _unit(np.abs(step)))
        self.squares *= (self.unit / unit) ** 2
        self.squares += other.squares * (other.unit / unit) ** 2
        self.squares += (step / unit) ** 2 * (self.count * other.count / joined)
        self.unit = unit
        self.low = np.fmin(self.low, other.low)
        self.high = np.fmax(self.high, other.high)
        self.mean += step * (other.count / joined)
        self.count = self.count + other.count
        self.rounding = max(self.rounding, other.rounding)

    def of(self, wanted: np.ndarray) -> Columns:
        """Return the statistics of some columns, given by a mask."""
        other = Columns(int(wanted.sum()))
        for name in ("low", "high", "mean", "squares", "count", "unit"):
            setattr(other, name, getattr(self, name)[wanted])
        other.rounding = self.rounding
        return other

    def constants(self, values: np.ndarray) -> Columns:
        """Return statistics of constant columns with as many rows; a value of NaN is missing."""
        other = Columns(len(values))
        other.count = np.where(np.isnan(values), 0, self.count)
        other.mean = np.nan_to_num(values)
        other.low = other.high = values
        return other

    def finish(self) -> None:
        """Set `standard_deviation` after all rows: 0 if a column varies only by rounding."""
        self.low[self.count == 0] = self.high[self.count == 0] = 0.0
        with np.errstate(under="ignore", over="ignore"):
            constant = self.high - self.low <= self.rounding * np.maximum(-self.low, self.high)
            # The mean of a constant column may differ from the constant by rounding.
            self.mean[constant] = np.clip(self.mean, self.low, self.high)[constant]
            deviation = np.sqrt(self.squares / np.maximum(self.count, 1)) * self.unit
        self.standard_deviation = np.where(constant, 0.0, deviation)

    def extent(self) -> tuple[float, float]:
        """Return the least and the largest value of all columns, after all rows."""
        known = self.count > 0
        if not known.any():
            return 0.0, 0.0
        return float(self.low[known].min()), float(self.high[known].max())


def _unit(spread: np.ndarray) -> np.ndarray:
    """Return the divisor of numbers of this size before they are squared, which is usually 1.

    Otherwise it is a power of two, so that the division does not round.
    """
    ordinary = (spread > 1e-140) & (spread < 1e140)
    near = np.where(spread > 0, np.ldexp(1.0, np.frexp(spread)[1] - 1), 0.0)
    return np.where(ordinary, 1.0, np.maximum(near, SMALLEST))
