"""Objective of a training: the reconstruction loss and the terms of regularizers."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import numpy as np
import torch
from torch import autocast, nn

from aefeatures._nets.losses import RowLoss
from aefeatures._nets.regularizer import Batch, Regularizer
from aefeatures._nets.regularizers import REGULARIZERS
from aefeatures._rows.batches import Batches
from aefeatures._torch.random_state import RandomState


class Objective:
    """Reconstruction loss of a batch and the terms that regularizers add to it.

    Parameters
    ----------
    autoencoder : nn.Sequential
        An encoder and its decoder.
    loss : callable
        Loss per row.
    regularizers : list of Regularizer
        Regularizers that `prepare` returned.
    batches : Batches
    rng : np.random.Generator
    mixed : bool
        Whether the network's products of matrices are computed in bfloat16.
    draws : RandomState, optional
        Random state that user-defined modules, losses and regularizers draw from while a gradient
        is computed.
    """

    def __init__(
        self,
        autoencoder: nn.Sequential,
        loss: RowLoss,
        regularizers: list[Regularizer],
        batches: Batches,
        rng: np.random.Generator,
        *,
        mixed: bool = False,
        draws: RandomState | None = None,
    ) -> None:
        self.draws = draws or RandomState(0, ())
        self.autoencoder = autoencoder
        self.loss = loss
        self.regularizers = regularizers
        self.mixed = mixed
        self._all_built_in = {type(each) for each in regularizers} <= {*REGULARIZERS.values()}
        parts = [each._decoded_part for each in regularizers] if self._all_built_in else []
        self._decoded_part = min([1.0, *parts])
        self.batches = batches
        self._take = batches.take
        self._rng = rng
        self.generator = torch.Generator(batches.device)
        if regularizers:
            self.generator.manual_seed(int(rng.integers(np.iinfo(np.int64).max)))

    def __call__(self, rows: torch.Tensor, index: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the sum of the rows' reconstruction losses, and the mean with penalties.

        If only a part of the rows is decoded, the sum is scaled up to all rows.
        """
        encoder, decoder = self.autoencoder
        batch, partners = self.batch(rows, index)
        partner_inputs = [partner for partner in partners if partner is not None]
        inputs = torch.cat([batch.inputs, *partner_inputs]) if partner_inputs else batch.inputs
        with self._autocast(rows):
            codes = encoder(inputs).to(rows.dtype)
        batch.codes, *partner_codes = codes.split([len(rows), *map(len, partner_inputs)])
        passed = batch.codes
        for regularizer in self.regularizers:
            passed = regularizer.perturb(self._for_regularizer(passed), batch)
        n_decoded = self.n_decoded(len(rows))
        with self._autocast(rows):
            batch.reconstruction = decoder(passed[:n_decoded]).to(rows.dtype)
        summed = self.loss(batch.reconstruction, rows[:n_decoded]).sum()
        total = summed / n_decoded
        for regularizer, partner in zip(self.regularizers, partners, strict=True):
            own = None if partner is None else partner_codes.pop(0)
            total = total + regularizer.penalty(replace(batch, partner_codes=own))
        return summed.detach() * (len(rows) / n_decoded), total

    def batch(
        self, rows: torch.Tensor, index: np.ndarray
    ) -> tuple[Batch, list[torch.Tensor | None]]:
        """Return a batch without codes, and the encoder's inputs for each regularizer's partners.

        Both are corrupted.
        """
        # User-defined regularizers may change tensors in place, so they get copies.
        batch = self._corrupted(self._for_regularizer(rows), index)
        return batch, [self._partners(regularizer, batch) for regularizer in self.regularizers]

    def n_decoded(self, n_rows: int) -> int:
        """Return how many of the first rows of a batch are decoded.

        Batches are in random order: their first rows are a random sample.
        """
        return math.ceil(self._decoded_part * n_rows)

    def _partners(self, regularizer: Regularizer, batch: Batch) -> torch.Tensor | None:
        positions = regularizer.partners(batch)
        if positions is None:
            return None
        partners = self._corrupted(self._take(positions), positions)
        return regularizer._vary(partners.inputs, partners)

    def _autocast(self, rows: torch.Tensor) -> AbstractContextManager[object]:
        if not self.mixed:
            return nullcontext()
        # Within an autocast of the caller's, even one that is switched off, PyTorch would keep the
        # first weights that it converted.
        return autocast(rows.device.type, dtype=torch.bfloat16, cache_enabled=False)

    def _corrupted(self, rows: torch.Tensor, index: np.ndarray) -> Batch:
        encoder, decoder = self.autoencoder
        batch = Batch(
            rows, index, encoder, decoder, self.generator, self._rng, self._take, inputs=rows
        )
        for regularizer in self.regularizers:
            batch.inputs = regularizer.corrupt(self._for_regularizer(batch.inputs), batch)
        return batch

    def _for_regularizer(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor if self._all_built_in else tensor.clone()
