"""The affine map between X and the range in which the network works."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import nn

from aefeatures._batches import Rows, is_lazy, iterate_chunks, to_dense
from aefeatures._distributed import ALONE, Ranks

SCALINGS = ("auto", "standard", "feature", "global")

# Sums and differences of larger numbers may overflow in float64.
_LARGEST = 1e300
# In float32 the squares of larger ones, summed over an epoch, overflow.
_LARGEST_UNSCALED = 1e15
# What is smaller is no number to divide by: denormal, and zero where these are flushed.
_SMALLEST = float(np.finfo(np.float64).tiny)
# Offsets and scales between these can be computed with in float32, others in float64 alone.
_IN_FLOAT32 = (1e-30, 1e30)


class Scaling(nn.Module):
    """``(X - offset) / scale`` and back.

    Parameters
    ----------
    offset, scale : float or ndarray of shape (n_features,)
        In X's units.
    bounded : bool
        Whether training data is mapped into [0, 1], so that a sigmoid may end the decoder.
    """

    offset: torch.Tensor
    scale: torch.Tensor

    def __init__(self, offset: Any = 0.0, scale: Any = 1.0, *, bounded: bool) -> None:
        super().__init__()
        for name, values in {"offset": offset, "scale": scale}.items():
            self.register_buffer(name, torch.as_tensor(values, dtype=torch.float64, device="cpu"))
        self.bounded = bounded
        # `x - 0` and `x / 1` would be passes over the data that change nothing.
        self.shifts = bool((self.offset != 0).any())
        self.scales = bool((self.scale != 1).any())
        smallest, largest = _IN_FLOAT32
        self.wide = bool(
            (self.scale < smallest).any()
            or (self.scale > largest).any()
            or (self.offset.abs() > largest).any()
        )

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """Map X, of shape (n, n_features), into the network's range."""
        dtype = X.dtype
        if self.wide:
            X = X.double()
        if self.shifts:
            X = X - self.offset.to(X)
        return (X / self.scale.to(X) if self.scales else X).to(dtype)

    def inverse(self, X: torch.Tensor) -> torch.Tensor:
        """Map from the network's range back into X's units."""
        dtype = X.dtype
        if self.wide:
            X = X.double()
        if self.scales:
            X = X * self.scale.to(X)
        return (X + self.offset.to(X) if self.shifts else X).to(dtype)

    def extra_repr(self) -> str:
        """Tell in the module's repr what the map does."""
        return f"shifts={self.shifts}, scales={self.scales}, bounded={self.bounded}"


def learn_scaling(X: Rows, how: str | None, ranks: Ranks = ALONE) -> tuple[Scaling, np.ndarray]:
    """Learn from X, of shape (n, n_features), the map that `how` names.

    Returned with it are the means of the columns, in X's units. Missing values (NaN) are left
    out. The statistics of columns come from one pass over chunks of rows; a sparse X is made
    dense a chunk at a time, so that it gets the very numbers that a dense one gets. They are of
    the rows of all ranks.
    """
    columns = None
    if is_lazy(X) and X.dtype.kind in "bu" and X.dtype.itemsize <= 4:
        # To read it takes longer than to sum it: one pass gives everything.
        columns = Columns(X.shape[1], spread=True)
        columns.add(X)
        extent = float(columns.low.min()), float(columns.high.max())
    else:
        extent = _extent(X)
    lows, highs, fulls = zip(*ranks.gather((*extent, largest_of_type(X))), strict=True)
    low, high, full = min(lows), max(highs), max(fulls)
    kind = resolve_scaling(how, low, high, full)
    if columns is None:
        columns = Columns(X.shape[1], spread=kind in ("standard", "feature"))
        columns.add(X)
    columns, *others = ranks.gather(columns)
    for other in others:
        columns.join(other)
    return make_scaling(kind, low, high, full, columns)


def resolve_scaling(how: str | None, low: float, high: float, full: float) -> str | None:
    """What "auto" stands for where X has values from `low` to `high`, in a type up to `full`.

    Raises
    ------
    ValueError
        If the values are too large.
    """
    largest = max(-low, high)
    if largest > _LARGEST:
        raise ValueError(
            f"X has values as large as {largest:.3g}, more than {_LARGEST:g}: sums of them "
            "overflow. Divide X by a constant."
        )
    if how is None and largest > _LARGEST_UNSCALED:
        raise ValueError(
            f"scaling=None hands values as large as {largest:.3g}, more than "
            f"{_LARGEST_UNSCALED:g}, to the network, where their squares overflow. Use "
            "scaling='standard'."
        )
    if how != "auto":
        return how
    return "bytes" if high > full / 2 else "unit" if low >= 0 and high <= 1 else "standard"


def make_scaling(
    kind: str | None, low: float, high: float, full: float, columns: Columns
) -> tuple[Scaling, np.ndarray]:
    """Return the map of a kind and the means of the columns."""
    columns.finish()
    mean = columns.mean
    if kind == "standard":
        return Scaling(mean, _divisor(columns.standard_deviation), bounded=False), mean
    if kind == "bytes":
        return Scaling(0.0, full, bounded=True), mean
    if kind == "unit" or kind is None:
        return Scaling(bounded=kind == "unit"), mean
    if kind == "feature":
        return Scaling(columns.low, _divisor(columns.high - columns.low), bounded=True), mean
    # 0, the mean of a column of missing values, may lie anywhere.
    return Scaling(low, _divisor(high - low), bounded=True), np.clip(mean, low, high)


def largest_of_type(X: Rows) -> float:
    """The largest number that X's type holds, where that type tells what X is scaled by."""
    if X.shape[0] == 0:  # of a rank without rows: the others tell
        return 0.0
    small = X.dtype.kind == "u" and X.dtype.itemsize <= 2  # in any order of bytes
    return float(np.iinfo(X.dtype).max) if small else np.inf


def _divisor(spread: Any) -> np.ndarray:
    """What to divide columns of this spread by: 1 where they do not vary."""
    return np.where(spread < _SMALLEST, 1.0, spread)


def _extent(X: Rows) -> tuple[float, float]:
    """Minimum and maximum over all of X but missing values."""
    if X.shape[0] == 0:
        return np.inf, -np.inf
    if sparse.issparse(X):
        zero = [X.dtype.type(0)] if X.nnz < X.shape[0] * X.shape[1] else []
        chunks = iter([np.append(X.data, zero)])
    else:
        chunks = iterate_chunks(X)
    extents = [
        (np.fmin.reduce(chunk, axis=None), np.fmax.reduce(chunk, axis=None))
        for chunk in map(np.asarray, chunks)
    ]
    lows, highs = np.nan_to_num(np.asarray(extents, dtype=np.float64)).T
    return float(lows.min()), float(highs.max())


class Columns:
    """Mean of each column but missing values and, with `spread`, its extent and deviation.

    One pass, whose chunks are joined by the formula of Chan, Golub and LeVeque (1983): it stays
    exact where the offset is large beside the variance. A column of missing values alone is
    all zero.
    """

    def __init__(self, n_features: int, *, spread: bool) -> None:
        self.low, self.high = np.full(n_features, np.inf), np.full(n_features, -np.inf)
        self.mean, self.squares, self.count = (np.zeros(n_features) for _ in range(3))
        self.unit = np.full(n_features, _SMALLEST)  # `squares` are in units of its square
        self._spread = spread

    def add(self, X: Rows) -> None:
        """Take the rows of X in."""
        with np.errstate(under="ignore"):  # what vanishes beside larger numbers
            for part in iterate_chunks(X, width=4 * X.shape[1]):
                self._add_chunk(to_dense(part))

    def _add_chunk(self, chunk: np.ndarray) -> None:
        other = Columns(chunk.shape[1], spread=self._spread)
        missing = np.isnan(chunk) if chunk.dtype.kind == "f" else np.False_
        known = np.where(missing, 0, chunk) if missing.any() else chunk
        other.count = len(chunk) - np.broadcast_to(missing, chunk.shape).sum(axis=0)
        other.mean = known.sum(axis=0, dtype=np.float64) / np.maximum(other.count, 1)
        if self._spread:
            other.low = np.fmin.reduce(chunk, axis=0).astype(np.float64)
            other.high = np.fmax.reduce(chunk, axis=0).astype(np.float64)
            step = np.abs(other.mean - self.mean)
            other.unit = np.maximum(self.unit, _unit(np.fmax(other.high - other.low, step)))
            centred = known - other.mean
            centred[np.broadcast_to(missing, chunk.shape)] = 0
            if (other.unit != 1).any():
                centred /= other.unit
            other.squares = np.einsum("ij,ij->j", centred, centred)
        self.join(other)

    def join(self, other: Columns) -> None:
        """Take in what another has of other rows."""
        joined = np.maximum(self.count + other.count, 1)
        step = other.mean - self.mean
        if self._spread:
            unit = np.maximum(np.maximum(self.unit, other.unit), _unit(np.abs(step)))
            self.squares *= (self.unit / unit) ** 2
            self.squares += other.squares * (other.unit / unit) ** 2
            self.squares += (step / unit) ** 2 * (self.count * other.count / joined)
            self.unit = unit
            self.low = np.fmin(self.low, other.low)
            self.high = np.fmax(self.high, other.high)
        self.mean += step * (other.count / joined)
        self.count = self.count + other.count

    def finish(self) -> None:
        """Set `standard_deviation`, when all rows are in."""
        self.low[self.count == 0] = self.high[self.count == 0] = 0.0
        # Of a constant column the sum, and so the mean, may have been rounded.
        constant = self.low == self.high
        self.mean[constant] = self.low[constant]
        with np.errstate(under="ignore"):
            deviation = np.sqrt(self.squares / np.maximum(self.count, 1)) * self.unit
        self.standard_deviation = np.where(constant, 0.0, deviation)


def _unit(spread: np.ndarray) -> np.ndarray:
    """What to divide numbers of this size by before they are squared: most often 1.

    Else a power of two, so that nothing is rounded.
    """
    ordinary = (spread > 1e-140) & (spread < 1e140)
    near = np.where(spread > 0, np.ldexp(1.0, np.frexp(spread)[1] - 1), 0.0)
    return np.where(ordinary, 1.0, np.maximum(near, _SMALLEST))
