"""The affine map between X and the range in which the network works."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import nn

from aefeatures._batches import Rows, is_lazy, iterate_chunks, to_dense

SCALINGS = ("auto", "standard", "feature", "global")


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

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """Map X, of shape (n, n_features), into the network's range."""
        if self.shifts:
            X = X - self.offset.to(X)
        return X / self.scale.to(X) if self.scales else X

    def inverse(self, X: torch.Tensor) -> torch.Tensor:
        """Map from the network's range back into X's units."""
        if self.scales:
            X = X * self.scale.to(X)
        return X + self.offset.to(X) if self.shifts else X

    def extra_repr(self) -> str:
        """Tell in the module's repr what the map does."""
        return f"shifts={self.shifts}, scales={self.scales}, bounded={self.bounded}"


def learn_scaling(X: Rows, how: str | None) -> tuple[Scaling, np.ndarray]:
    """Learn from X, of shape (n, n_features), the map that `how` names.

    Returned with it are the means of the columns, in X's units. Missing values (NaN) are left
    out. The statistics of columns come from one pass over chunks of rows; a sparse X is made
    dense a chunk at a time, so that it gets the very numbers that a dense one gets.
    """
    low, high = _extent(X)
    kind = how
    full = np.inf
    if how == "auto":
        if X.dtype in (np.uint8, np.uint16):
            full = float(np.iinfo(X.dtype).max)
        kind = "bytes" if high > full / 2 else "unit" if low >= 0 and high <= 1 else "standard"
    columns = _Columns(X, spread=kind in ("standard", "feature"))
    mean = columns.mean
    if kind == "standard":
        varies = columns.high > columns.low
        scale = np.where(varies, columns.standard_deviation, 1.0)
        return Scaling(mean, np.where(scale > 0, scale, 1.0), bounded=False), mean
    if kind == "bytes":
        return Scaling(0.0, full, bounded=True), mean
    if kind == "unit" or kind is None:
        return Scaling(bounded=kind == "unit"), mean
    lows: Any = columns.low if kind == "feature" else low
    highs: Any = columns.high if kind == "feature" else high
    span = highs - lows
    return Scaling(lows, np.where(span > 0, span, 1.0), bounded=True), mean


def _extent(X: Rows) -> tuple[float, float]:
    """Minimum and maximum over all of X but missing values."""
    if sparse.issparse(X):
        zero = [X.dtype.type(0)] if X.nnz < X.shape[0] * X.shape[1] else []
        chunks = iter([np.append(X.data, zero)])
    else:
        chunks = iterate_chunks(X) if is_lazy(X) else iter([X])
    extents = [
        (np.fmin.reduce(chunk, axis=None), np.fmax.reduce(chunk, axis=None))
        for chunk in map(np.asarray, chunks)
    ]
    lows, highs = np.nan_to_num(np.asarray(extents, dtype=np.float64)).T
    return float(lows.min()), float(highs.max())


class _Columns:
    """Mean of each column but missing values and, with `spread`, its extent and deviation.

    One pass, whose chunks are joined by the formula of Chan, Golub and LeVeque (1983): it stays
    exact where the offset is large beside the variance. A column of missing values alone is
    all zero.
    """

    def __init__(self, X: Rows, *, spread: bool) -> None:
        n_features = X.shape[1]
        self.low, self.high = np.full(n_features, np.inf), np.full(n_features, -np.inf)
        self.mean, squares, count = (np.zeros(n_features) for _ in range(3))
        for part in iterate_chunks(X, width=4 * n_features):
            chunk = to_dense(part)
            missing = np.isnan(chunk) if chunk.dtype.kind == "f" else np.False_
            known = np.where(missing, 0, chunk) if missing.any() else chunk
            n = len(chunk) - np.broadcast_to(missing, chunk.shape).sum(axis=0)
            mean = known.sum(axis=0, dtype=np.float64) / np.maximum(n, 1)
            joined = np.maximum(count + n, 1)
            step = mean - self.mean
            if spread:
                centred = known - mean
                centred[np.broadcast_to(missing, chunk.shape)] = 0
                squares += np.einsum("ij,ij->j", centred, centred)
                squares += step**2 * (count * n / joined)
                self.low = np.fmin(self.low, np.fmin.reduce(chunk, axis=0))
                self.high = np.fmax(self.high, np.fmax.reduce(chunk, axis=0))
            self.mean += step * (n / joined)
            count += n
        self.low[count == 0] = self.high[count == 0] = 0.0
        self.standard_deviation = np.sqrt(squares / np.maximum(count, 1))
