"""Fitted autoencoder as one object that encodes, decodes, reconstructs and scores rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from aefeatures._nets.losses import RowLoss, TableLoss, leave_out_missing, resolve_loss
from aefeatures._nets.networks import (
    Autoencoder,
    Cost,
    Decoder,
    Encoder,
    FillMissing,
    as_floating,
    copied,
    is_as_built,
)
from aefeatures._nets.placing import (
    from_arrays,
    place,
    place_for_gradients,
    place_guest,
    place_scaling,
    placed_before,
    to_arrays,
)
from aefeatures._rows.batches import map_chunks, to_tensor, work_dtype
from aefeatures._rows.sources import ArraySource, Source
from aefeatures._rows.survey import has_missing
from aefeatures._rows.table_scaling import AnyScaling, TableScaling
from aefeatures._torch.random_state import unaffected

_MODULES = ("encoder", "decoder", "scaling", "fill")

# Names of the fields among the attributes of a pickled estimator, as in pickles of version 0.1.
_NAMES_IN_STATE = {
    "encoder": "encoder_",
    "decoder": "decoder_",
    "scaling": "_scaling",
    "fill": "_fill",
    "loss": "_fitted_loss",
    "network": "_network",
    "cost": "_cost",
    "seed": "_seed",
    "built_from": "_built_from",
}


# Function from codes to those that are decoded.
CodeChange = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Model:
    """Encoder and decoder with all that maps X in its own units to codes and back.

    The modules are on the CPU. Methods compute with copies on the device that they are given.

    Attributes
    ----------
    encoder, decoder : nn.Module
        Modules that work in the network's range.
    scaling : Scaling or TableScaling
    fill : FillMissing
    loss : str or callable
        Loss that the model was trained with.
    network : Network or callable
        Builder of encoder and decoder.
    cost : Cost
        Cost of encoding and decoding one row.
    seed : int
        Seed of the fit, and of the random numbers of user-defined code.
    built_from : dict
        Parameters on which a further training depends.
    """

    encoder: nn.Module
    decoder: nn.Module
    scaling: AnyScaling
    fill: FillMissing
    loss: str | RowLoss
    network: Any
    cost: Cost
    seed: int
    built_from: dict[str, Any]

    @property
    def n_components(self) -> int:
        """Number of components of a code."""
        return int(self.built_from["n_components"])

    @property
    def n_features(self) -> int:
        """Number of columns of X."""
        scaling = self.scaling
        return scaling.n_features if isinstance(scaling, TableScaling) else len(self.fill.values)

    @property
    def n_outputs(self) -> int:
        """Number of columns in the network's range."""
        scaling = self.scaling
        return scaling.n_outputs if isinstance(scaling, TableScaling) else self.n_features

    @property
    def column_of_output(self) -> np.ndarray:
        """Column of X of each column in the network's range."""
        scaling = self.scaling
        if isinstance(scaling, TableScaling):
            return scaling.column_of_output
        return np.arange(self.n_features)

    @property
    def is_as_built(self) -> bool:
        """Whether a network of this library built the modules and they are unchanged."""
        return is_as_built(self.network, self.encoder, self.decoder)

    @property
    def modules(self) -> tuple[nn.Module, nn.Module, AnyScaling, FillMissing]:
        """Encoder, decoder, scaling and fill."""
        return self.encoder, self.decoder, self.scaling, self.fill

    def encode(self, rows: Source, device: torch.device) -> np.ndarray:
        """Return the codes of rows, of shape (n, n_components)."""
        encoder = self._placed(self.encoder, rows.dtype, device)

        def codes(chunk: np.ndarray) -> torch.Tensor:
            inputs = self.scaling.inputs(to_tensor(chunk, device))
            return encoder(self._filled(inputs, chunk))

        return self._map(codes, rows, self.n_components)

    def row_loss(self, device: torch.device, *, missing: bool) -> RowLoss:
        """Return the loss of rows, in the network's range, of which values may be `missing`."""
        loss = resolve_loss(self.loss)
        if isinstance(self.scaling, TableScaling):
            loss = TableLoss(loss, place_scaling(self.scaling, device))
        return leave_out_missing(loss) if missing else loss

    def decode(self, codes: np.ndarray, device: torch.device) -> np.ndarray:
        """Return the rows of codes, in X's units."""
        decoder = self._placed(self.decoder, codes.dtype, device)

        def rows(chunk: np.ndarray) -> Any:
            return self._in_units_of_rows(decoder(to_tensor(chunk, device)))

        return self._map(rows, ArraySource(codes), self.n_features)

    def decode_probabilities(self, codes: np.ndarray, device: torch.device) -> np.ndarray:
        """Return the rows of codes, with a probability for each level of a table's categories."""
        decoder = self._placed(self.decoder, codes.dtype, device)

        def rows(chunk: np.ndarray) -> Any:
            return self._probabilities(decoder(to_tensor(chunk, device)))

        return self._map(rows, ArraySource(codes), len(self.fill.values))

    def reconstruct(self, rows: Source, device: torch.device) -> np.ndarray:
        """Return the reconstructions of rows, in X's units."""
        return self._map_reconstructed(
            rows,
            device,
            lambda _, reconstruction: self._in_units_of_rows(reconstruction),
            self.n_features,
        )

    def reconstruct_probabilities(self, rows: Source, device: torch.device) -> np.ndarray:
        """Return reconstructions as `decode_probabilities` does."""
        return self._map_reconstructed(
            rows,
            device,
            lambda _, reconstruction: self._probabilities(reconstruction),
            len(self.fill.values),
        )

    def row_losses(self, rows: Source, device: torch.device) -> np.ndarray:
        """Return the loss of each row; NaN for a row with no known value."""
        loss = self.row_loss(device, missing=True)
        return self._map_reconstructed(
            rows,
            device,
            lambda row, reconstruction: (loss(reconstruction, row), row.isnan().all(dim=1)),
            None,
        )

    def entry_errors(self, rows: Source, device: torch.device, *, raw: bool) -> np.ndarray:
        """Return the absolute error of each entry, 0 if it is missing; see `score_samples`."""

        def errors(row: torch.Tensor, reconstruction: torch.Tensor) -> torch.Tensor:
            scaling = self.scaling
            difference = scaling.differences(row, reconstruction, raw=raw)
            missing = scaling.missing(row) if isinstance(scaling, TableScaling) else row.isnan()
            return difference.masked_fill(missing, 0)

        return self._map_reconstructed(rows, device, errors, self.n_features)

    def rows_and_misses(self, rows: Source, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
        """Return rows in the network's range, and what their reconstructions miss of them.

        Their shape is (n, n_outputs), and their unit is the root of the columns' mean variance. The
        reconstruction of a level is its probability. A missing value is taken as reconstructed, and
        what is missed of it is NaN.
        """
        unit = _unit(self.scaling)

        def both(row: torch.Tensor, reconstruction: torch.Tensor) -> Any:
            parts = _rows_and_misses(row, reconstruction, self.scaling, unit)
            joined = torch.cat(parts, dim=1)
            return joined, torch.cat([torch.zeros_like(row), row], dim=1).isnan()

        joined = self._map_reconstructed(rows, device, both, 2 * self.n_outputs)
        return joined[:, : self.n_outputs], joined[:, self.n_outputs :]

    def explained(self, rows: Source, device: torch.device, change: CodeChange) -> float:
        """Return R2 of the reconstructions in the network's range, from codes after a `change`.

        The variance is that of `fit`. Without known values in columns that vary, the result is NaN.
        """
        scaling = self.scaling
        variances = scaling.deviations(raw=False).square()

        def sums(row: torch.Tensor, reconstruction: torch.Tensor) -> torch.Tensor:
            miss = (row - scaling.expected(reconstruction)).square()
            of_columns = variances.to(miss)
            total = (~miss.isnan()).to(miss) @ of_columns
            return torch.stack([miss.nan_to_num() @ (of_columns > 0).to(miss), total], dim=1)

        found = self._map_reconstructed(rows, device, sums, 2, change)
        error, total = found.sum(axis=0, dtype=np.float64)
        return float(1 - error / total) if total > 0 else float("nan")

    def jacobians(self, rows: np.ndarray, device: torch.device) -> torch.Tensor:
        """Return the derivatives of rows' codes by columns in the network's range.

        Their shape is (n, n_components, n_outputs), on the CPU. Those by missing values are NaN.

        Raises
        ------
        ValueError
            If the encoder is not differentiable.
        """
        dtype = work_dtype(rows.dtype, device) if is_as_built(self.network, self.encoder) else None
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            unaffected(self.seed, self.network),
        ):
            encoder = place_for_gradients(self.encoder, device, dtype)
            inputs = self.scaling.inputs(to_tensor(rows, device))
            filled = self._filled(inputs, rows).detach().requires_grad_()
            codes = encoder(filled)
            if not codes.requires_grad:
                raise ValueError(
                    "The sensitivity of codes needs an encoder that is differentiable, but no "
                    f"gradient comes through the network {self.network!r}."
                )
            derivatives = []
            for j in range(self.n_components):
                keep = j < self.n_components - 1
                (derivative,) = torch.autograd.grad(codes[:, j].sum(), filled, retain_graph=keep)
                derivatives.append(derivative.masked_fill(inputs.isnan(), torch.nan))
        return torch.stack(derivatives, dim=1).cpu()

    def in_units_of_rows(self, scaled: np.ndarray) -> np.ndarray:
        """Return the first result of `rows_and_misses`, or a mean of it, in X's units."""
        inverse = torch.from_numpy(scaled) * _unit(self.scaling)
        if isinstance(self.scaling, TableScaling):
            numbers, levels = self.scaling.split(inverse)
            inverse = torch.cat([numbers, self.scaling.is_level(levels)], dim=1)
        in_units: np.ndarray = self.scaling.inverse(inverse).numpy()
        return in_units

    def to_module(self, part: str) -> nn.Module:
        """Return a copy of a part as a module that takes and returns X in its own units.

        The part "misses" returns what `rows_and_misses` does.
        """
        encoder, decoder, scaling, fill = copied(self.modules)
        copies = not self.is_as_built
        if part == "encoder":
            return Encoder(encoder, scaling, fill).eval()
        if part == "decoder":
            return Decoder(decoder, scaling, copies=copies).eval()
        if part == "misses":
            return RowsAndMisses(encoder, decoder, scaling, fill).eval()
        return Autoencoder(encoder, decoder, scaling, fill, copies=copies).eval()

    def state(self) -> dict[str, Any]:
        """Return the fields as a pickle holds them, with arrays instead of tensors."""
        arrays = dict(zip(_MODULES, to_arrays(self.modules), strict=True))
        return {name: arrays.get(f, getattr(self, f)) for f, name in _NAMES_IN_STATE.items()}

    @classmethod
    def take_from(cls, state: dict[str, Any]) -> Model:
        """Return the model from the state of a pickle, and remove its fields from the state."""
        model = cls(**{field: state.pop(name) for field, name in _NAMES_IN_STATE.items()})
        encoder, decoder, scaling, fill = from_arrays(model.modules)
        return replace(model, encoder=encoder, decoder=decoder, scaling=scaling, fill=fill)

    def __reduce__(self) -> Any:
        return Model.take_from, (self.state(),)

    def _map_reconstructed(
        self,
        rows: Source,
        device: torch.device,
        function: Callable[[torch.Tensor, torch.Tensor], Any],
        n_columns: int | None,
        change: CodeChange | None = None,
    ) -> np.ndarray:
        """Apply `function` to rows and reconstructions in the network's range.

        Its result has one number for each row, or `n_columns`. Codes may `change` in between.
        """
        encoder = self._placed(self.encoder, rows.dtype, device)
        decoder = self._placed(self.decoder, rows.dtype, device)
        scaling = self.scaling

        def on_chunk(chunk: np.ndarray) -> Any:
            unscaled = to_tensor(chunk, device)
            scaled = scaling(unscaled)
            inputs = scaling.inputs(unscaled) if scaling.has_hidden else scaled
            codes = encoder(self._filled(inputs, chunk))
            reconstruction = decoder(codes if change is None else change(codes))
            return function(scaling.targets(scaled), scaling.outputs(reconstruction))

        return self._map(on_chunk, rows, n_columns)

    def _map(
        self, function: Callable[[np.ndarray], Any], rows: Source, n_columns: int | None
    ) -> np.ndarray:
        # User-defined code draws the same random numbers in each call.
        with unaffected(self.seed, self.network, self.loss):
            return map_chunks(function, rows, n_columns, width=self.cost.width)

    def _placed(
        self, module: nn.Module, dtype: np.dtype, device: torch.device
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        work = work_dtype(dtype, device)
        placed = placed_before(module, device, work)
        if placed is not None:
            return placed
        if is_as_built(self.network, module):
            return place(module, device, work)
        return place_guest(module, device)

    def _filled(self, inputs: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        if not (self.scaling.has_unknown or has_missing(rows)):
            return inputs
        fill = place(self.fill, inputs.device, work_dtype(rows.dtype, inputs.device))
        filled: torch.Tensor = fill(inputs)
        return filled

    def _probabilities(self, rows: torch.Tensor) -> Any:
        """Return numbers in X's units and probabilities of levels, and where they are missing."""
        assert isinstance(self.scaling, TableScaling)
        found = self.scaling.probabilities(rows)
        return found, found.isnan()

    def _in_units_of_rows(self, rows: torch.Tensor) -> Any:
        """Return rows in X's units, and where they are missing if any column was never known."""
        inverse = self.scaling.inverse(rows)
        if not self.scaling.has_unknown:
            return inverse
        if isinstance(self.scaling, TableScaling):
            return inverse, inverse.isnan() & ~rows.isnan().any(dim=1, keepdim=True)
        return inverse, inverse.isnan() & ~rows.isnan()


class RowsAndMisses(nn.Module):
    """Module from X in its own units to what `Model.rows_and_misses` returns."""

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, scaling: AnyScaling, fill: nn.Module
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.scaling = scaling
        self.fill = fill
        self.unit = _unit(scaling)

    def forward(self, X: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return rows and misses for X, of shape (n, n_features) and any dtype."""
        X = as_floating(X)
        codes = Encoder(self.encoder, self.scaling, self.fill)(X)
        row = self.scaling.targets(self.scaling(X).to(codes.dtype))
        reconstruction = self.scaling.outputs(self.decoder(codes))
        return _rows_and_misses(row, reconstruction, self.scaling, self.unit)


def _unit(scaling: AnyScaling) -> float:
    return scaling.variance() ** 0.5 or 1.0


def _rows_and_misses(
    row: torch.Tensor, reconstruction: torch.Tensor, scaling: AnyScaling, unit: float
) -> tuple[torch.Tensor, torch.Tensor]:
    reconstruction = scaling.expected(reconstruction)
    filled = torch.where(row.isnan(), reconstruction, row)
    return filled / unit, (row - reconstruction) / unit
