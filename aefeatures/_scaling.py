"""The affine map between X and the range in which the network works."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from torch import nn

from aefeatures._batches import iterate_chunks

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
        self.register_buffer("offset", torch.as_tensor(offset, dtype=torch.float64, device="cpu"))
        self.register_buffer("scale", torch.as_tensor(scale, dtype=torch.float64, device="cpu"))
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


def learn_scaling(X: np.ndarray, how: str | None) -> Scaling:
    """Learn from X, of shape (n, n_features), the map that `how` names.

    The statistics come from scikit-learn's scalers in one pass over chunks of rows.
    """
    if how is None:
        return Scaling(bounded=False)
    if how == "auto":
        low, high = X.min(), X.max()
        if X.dtype in (np.uint8, np.uint16) and high > np.iinfo(X.dtype).max / 2:
            return Scaling(scale=float(np.iinfo(X.dtype).max), bounded=True)
        if low >= 0 and high <= 1:
            return Scaling(bounded=True)
        how = "standard"
    if how == "global":
        low, high = float(X.min()), float(X.max())
        return Scaling(low, (high - low) or 1.0, bounded=True)
    scaler = StandardScaler() if how == "standard" else MinMaxScaler()
    for chunk in iterate_chunks(X):
        scaler.partial_fit(np.asarray(chunk, dtype=np.float64))
    if how == "standard":
        return Scaling(scaler.mean_, scaler.scale_, bounded=False)
    span = scaler.data_max_ - scaler.data_min_
    return Scaling(scaler.data_min_, np.where(span > 0, span, 1.0), bounded=True)
