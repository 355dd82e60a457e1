"""The affine map between X and the range in which the network works."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.preprocessing import StandardScaler
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
    out. The statistics of columns come from one pass over chunks
    of rows; a sparse X is made dense a chunk at a time, so that it gets the very numbers
    that a dense one gets.
    """
    low, high = _extent(X)
    kind = how
    if how == "auto":
        full = float(np.iinfo(X.dtype).max) if X.dtype in (np.uint8, np.uint16) else np.inf
        kind = "bytes" if high > full / 2 else "unit" if low >= 0 and high <= 1 else "standard"
    if kind == "standard":
        scaler = StandardScaler()
        for chunk in iterate_chunks(X, width=4 * X.shape[1]):
            scaler.partial_fit(np.asarray(to_dense(chunk), dtype=np.float64))
        # A column of missing values alone has no mean.
        mean = np.nan_to_num(scaler.mean_)
        return Scaling(mean, np.nan_to_num(scaler.scale_, nan=1.0), bounded=False), mean
    lows: Any
    highs: Any
    lows, highs, mean = _columns(X)
    if kind == "bytes":
        return Scaling(0.0, full, bounded=True), mean
    if kind == "unit" or kind is None:
        return Scaling(bounded=kind == "unit"), mean
    if kind == "global":
        lows, highs = low, high
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


def _columns(X: Rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Minimum, maximum and mean of each column but missing values."""
    n_features = X.shape[1]
    lows, highs = np.full(n_features, np.inf), np.full(n_features, -np.inf)
    total, count = np.zeros(n_features), np.zeros(n_features)
    for chunk in map(to_dense, iterate_chunks(X, width=4 * n_features)):
        lows = np.fmin(lows, np.fmin.reduce(chunk, axis=0))
        highs = np.fmax(highs, np.fmax.reduce(chunk, axis=0))
        if chunk.dtype.kind == "f":
            missing = np.isnan(chunk)
            count += len(chunk) - missing.sum(axis=0)
            total += np.where(missing, 0, chunk).sum(axis=0, dtype=np.float64)
        else:
            count += len(chunk)
            total += chunk.sum(axis=0, dtype=np.float64)
    empty = count == 0
    lows[empty] = highs[empty] = 0.0
    return lows, highs, total / np.maximum(count, 1)
