"""Affine map between X and the network's range."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from aefeatures._rows.survey import SMALLEST, Survey

SCALINGS = ("auto", "standard", "feature", "global")

# Sums and differences of larger numbers may overflow in float64.
_LARGEST = 1e300
# In float32, sums of squares of larger numbers over an epoch overflow.
_LARGEST_UNSCALED = 1e15
# Range of offsets and scales that are computed with in float32; others need float64.
_IN_FLOAT32 = (1e-30, 1e30)
# Mean variance below which columns within [0, 1] do not fill that range, as is usual for weights of
# words: a network that ends in a sigmoid would not learn them.
_LEAST_VARIANCE = 1e-2


class Scaling(nn.Module):
    """``(X - offset) / scale`` and back, except for columns without information.

    A column that was constant in `fit` is decoded as its constant. The encoder gets the constant
    whatever X holds, so only a loss depends on the difference. A column without any known value is
    always missing.

    Parameters
    ----------
    offset, scale : float or ndarray of shape (n_features,)
        Offset and scale in X's units.
    bounded : bool
        Whether training data is mapped into [0, 1], so that the decoder may end in a sigmoid.
    common : bool
        Whether all columns have one meaning, as pixels do. The encoder then gets the values of
        constant columns, too.
    center, spread : ndarray of shape (n_features,) or None
        Mean and standard deviation of each column, in X's units: a spread of 0 marks constant
        columns, a center of NaN columns without any known value. None, as in files of earlier
        versions, means that they are unknown.
    """

    offset: torch.Tensor
    scale: torch.Tensor
    center: torch.Tensor | None
    spread: torch.Tensor | None
    has_unknown: bool
    has_constant: bool
    has_hidden: bool
    _unknown: torch.Tensor
    _constant: torch.Tensor
    _hidden: torch.Tensor
    _input_scale: torch.Tensor

    def __init__(
        self,
        offset: Any = 0.0,
        scale: Any = 1.0,
        *,
        bounded: bool,
        common: bool = False,
        center: Any = None,
        spread: Any = None,
    ) -> None:
        super().__init__()
        statistics = {"offset": offset, "scale": scale, "center": center, "spread": spread}
        for name, values in statistics.items():
            if values is not None:
                values = torch.as_tensor(values, dtype=torch.float64, device="cpu")
            self.register_buffer(name, values)
        self.bounded = bounded
        self.common = common
        # Computing `x - 0` and `x / 1` would take time and change nothing.
        self.shifts = bool((self.offset != 0).any())
        self.scales = bool((self.scale != 1).any())
        smallest, largest = _IN_FLOAT32
        self.wide = bool(
            (self.scale < smallest).any()
            or (self.scale > largest).any()
            or (self.offset.abs() > largest).any()
        )
        if self.center is None or self.spread is None:
            unknown = constant = torch.zeros((), dtype=torch.bool)
        else:
            unknown = self.center.isnan()
            constant = (self.spread == 0) & ~unknown
        hidden = unknown if common else unknown | constant
        masks = {"unknown": unknown, "constant": constant, "hidden": hidden}
        for name, columns in masks.items():
            self.register_buffer(f"_{name}", columns, persistent=False)
            setattr(self, f"has_{name}", bool(columns.any()))
        # Division by infinity sets hidden columns to 0 without another pass over the data.
        input_scale = torch.where(hidden, torch.inf, self.scale)
        self.register_buffer("_input_scale", input_scale, persistent=False)
        self.lifts = self.has_hidden and bool((hidden & (self.center != self.offset)).any())

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """Map X, of shape (n, n_features), into the network's range."""
        return self._map(X, self.scale if self.scales else None)

    def variance(self) -> float:
        """Return the columns' mean variance in the network's range."""
        if self.spread is None:  # loaded from a file of an earlier version
            return 1.0
        return float((self.spread / self.scale).square().nanmean())

    def deviations(self, *, raw: bool) -> torch.Tensor:
        """Return the columns' standard deviations in `fit`, 0 if they were never known.

        They are in X's units if `raw`, otherwise in the network's range.

        Raises
        ------
        ValueError
            If the deviations are not known.
        """
        if self.spread is None:
            raise ValueError(
                "Sensitivities, traversals and explained variance need the columns' standard "
                "deviations, but this model was saved by an earlier version without them. Fit it "
                "again."
            )
        return (self.spread if raw else self.spread / self.scale).nan_to_num()

    def effects(self, derivatives: torch.Tensor) -> torch.Tensor:
        """Return derivatives by columns in the network's range in units of their deviations.

        Columns are the last axis.
        """
        return derivatives * self.deviations(raw=False).to(derivatives)

    def inputs(self, X: torch.Tensor) -> torch.Tensor:
        """Map X to the encoder's input in the network's range; missing values stay missing."""
        if not self.has_hidden:
            return self(X)
        scaled = self._map(X, self._input_scale)
        if not self.lifts:
            return scaled
        return scaled + self._settle(scaled.new_zeros(scaled.shape[1]), self._hidden)

    def _map(self, X: torch.Tensor, scale: torch.Tensor | None) -> torch.Tensor:
        dtype = X.dtype
        if self.wide:
            X = X.double()
        if self.shifts:
            X = X - self.offset.to(X)
        return (X if scale is None else X / scale.to(X)).to(dtype)

    def targets(self, X: torch.Tensor) -> torch.Tensor:
        """Return rows in the network's range as targets of a loss."""
        return self._settle(X, self._unknown) if self.has_unknown else X

    def outputs(self, X: torch.Tensor) -> torch.Tensor:
        """Return outputs of the decoder in the network's range, with constant columns set."""
        return self._settle(X, self._constant) if self.has_constant else X

    def _settle(self, X: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        assert self.center is not None
        # Scaled as X was, so that rounding does not change a constant column.
        return torch.where(columns.to(X.device), self(self.center.to(X)), X)

    def expected(self, Y: torch.Tensor) -> torch.Tensor:
        """Return outputs of the decoder as expected rows in the network's range."""
        return Y

    def inverse(self, X: torch.Tensor) -> torch.Tensor:
        """Map from the network's range back into X's units."""
        dtype = X.dtype
        if self.wide:
            X = X.double()
        if self.scales:
            X = X * self.scale.to(X)
        X = X + self.offset.to(X) if self.shifts else X
        if self.has_constant or self.has_unknown:
            assert self.center is not None
            X = torch.where((self._constant | self._unknown).to(X.device), self.center.to(X), X)
        return X.to(dtype)

    def affine(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the factor and the offset that `inverse` applies."""
        if not (self.has_constant or self.has_unknown):
            return self.scale.numpy(), self.offset.numpy()
        assert self.center is not None
        fixed = self._constant | self._unknown
        factor = torch.where(fixed, 0.0, self.scale)
        return factor.numpy(), torch.where(fixed, self.center, self.offset).numpy()

    def differences(self, X: torch.Tensor, Y: torch.Tensor, *, raw: bool) -> torch.Tensor:
        """Return absolute differences of rows in the network's range.

        They are in X's units if `raw`, otherwise in standard deviations of the columns. The unit of
        a constant column is its absolute value.

        Raises
        ------
        ValueError
            If the deviations are not known.
        """
        difference = (X - Y).abs()
        if raw:
            factor = self.scale
        elif self.center is not None and self.spread is not None:
            unit = _divisor(self.spread.numpy(), self.center.numpy())
            factor = (self.scale / torch.from_numpy(unit)).nan_to_num()  # 0 times infinity is NaN
        elif self.scale.dim() == 1:
            return difference
        else:
            raise ValueError(
                "per_feature=True needs the columns' standard deviations, but this model was saved "
                "by an earlier version without them. Use per_feature='raw', or fit it again."
            )
        if self.wide or bool((factor > _IN_FLOAT32[1]).any()):
            difference = difference.double()
        return (difference * factor.to(difference)).to(X.dtype)

    @property
    def fixed(self) -> np.ndarray:
        """Mask of columns that were constant or never known, of shape (n_features,) or ()."""
        mask: np.ndarray = (self._constant | self._unknown).numpy()
        return mask

    def unknown_columns(self) -> list[int]:
        """Return the positions of the columns that were never known."""
        positions: list[int] = torch.nonzero(self._unknown)[:, 0].tolist()
        return positions

    def extra_repr(self) -> str:
        """Return the settings, for `repr`."""
        return f"shifts={self.shifts}, scales={self.scales}, bounded={self.bounded}"


def learn_scaling(
    survey: Survey, how: str | None, *, bounded: bool = False
) -> tuple[Scaling, np.ndarray]:
    """Return the map that `how` names and the means of the columns, in X's units.

    Parameters
    ----------
    survey : Survey
        Survey of all rows.
    how : str or None
        Value of `scaling`.
    bounded : bool
        Whether the loss needs a range of [0, 1]. If so, "auto" keeps an X in that range.

    Raises
    ------
    ValueError
        If the values are too large.
    """
    columns, full = survey.columns, survey.largest
    columns.finish()
    low, high = columns.extent()
    kind = _resolve(how, low, high, full)
    mean, spread = columns.mean, columns.standard_deviation
    if how == "auto" and kind == "unit" and not bounded and (spread > 0).any():
        largest = spread.max()  # the squares of small spreads may underflow
        together = largest * np.sqrt(np.square(spread[spread > 0] / largest).mean())
        kind = "together" if together**2 < _LEAST_VARIANCE else "unit"
    center = np.where(columns.count > 0, mean, np.nan)
    offset: Any = 0.0
    scale: Any = 1.0
    if kind == "standard":
        offset, scale = mean, _divisor(spread, center)
    elif kind == "feature":
        extents = np.where(spread > 0, columns.high - columns.low, 0)
        offset, scale = columns.low, _divisor(extents, center)
    elif kind == "global":
        extent = high - low if high - low > columns.rounding * max(-low, high) else 0.0
        offset, scale = low, _divisor(extent, high)
        mean = np.clip(mean, low, high)  # unknown columns have a mean of 0
    elif kind == "together":
        offset, scale = mean, together
    elif kind == "bytes":
        scale = full
    scaling = Scaling(
        offset,
        scale,
        bounded=kind in ("feature", "global", "bytes", "unit"),
        common=kind in ("bytes", "unit"),
        center=center,
        spread=spread,
    )
    return scaling, mean


def extend_scaling(scaling: Scaling, survey: Survey) -> Scaling:
    """Return the scaling, updated for columns that were constant or unknown before.

    `survey` has the statistics of these columns, the `fixed` ones. In a column that was constant,
    earlier rows get the same total weight as those of X.
    """
    fixed = scaling.fixed
    if not fixed.any():
        return scaling
    columns = survey.columns
    assert scaling.center is not None
    assert scaling.spread is not None
    center, spread = scaling.center.numpy().copy(), scaling.spread.numpy().copy()
    columns.join(columns.constants(center[fixed]))
    columns.finish()
    changed = fixed.copy()
    changed[fixed] = (columns.standard_deviation > 0) | np.isnan(center[fixed])
    changed[fixed] &= columns.count > 0
    if not changed.any():
        return scaling
    now = changed[fixed]
    center[changed] = columns.mean[now]
    spread[changed] = columns.standard_deviation[now]
    offset, scale = scaling.offset.numpy().copy(), scaling.scale.numpy().copy()
    if offset.ndim:
        offset[changed] = (columns.low if scaling.bounded else columns.mean)[now]
    if scale.ndim:
        extent = columns.high - columns.low if scaling.bounded else columns.standard_deviation
        extent = np.where(columns.standard_deviation > 0, extent, 0)
        scale[changed] = _divisor(extent[now], center[changed])
    return Scaling(
        offset,
        scale,
        bounded=scaling.bounded,
        common=scaling.common,
        center=center,
        spread=spread,
    )


def _resolve(how: str | None, low: float, high: float, full: float) -> str | None:
    """Return the kind of scaling for values from `low` to `high`, in a type with maximum `full`."""
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


def _divisor(spread: Any, center: Any) -> Any:
    """Return divisors of columns: their spread, or their size or 1 if they do not vary."""
    size = np.nan_to_num(np.abs(center))
    size = np.where(size < SMALLEST, 1.0, size)
    return np.where(np.asarray(spread) < SMALLEST, size, spread)
