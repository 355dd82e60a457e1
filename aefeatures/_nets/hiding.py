"""Entries that are hidden from the encoder, so that the network learns to fill in missing ones."""

from __future__ import annotations

import copy

import numpy as np
import torch

from aefeatures._nets.networks import FillMissing
from aefeatures._nets.regularizer import Batch, Regularizer, TrainingData, check_number

# Largest number of factors of a covariance: a system of as many equations is solved for each row.
_MOST_FACTORS = 64

# Variance of each column that no other column explains, at least, relative to the mean variance.
_LEAST_NOISE = 0.01

# Passes over the rows with missing values, each of which makes the estimates better.
_N_PASSES = 8

# Multiplications in a pass, up to which more rows are used.
_MULTIPLICATIONS = 10**9
_FEWEST_ROWS = 512

# Rows whose equations are in memory at once.
_ROWS_TOGETHER = 256


class ExpectedFill(FillMissing):
    """Layer that replaces missing values by their expectation, given the known values of the row.

    The expectation is that of a normal distribution with the covariance
    ``factors @ factors.T + noise * I``. It is linear in the known values, with other coefficients
    for each pattern of missing values.

    Parameters
    ----------
    means : tensor of shape (n_features,)
        In the network's range.
    factors : tensor of shape (n_features, n_factors)
    noise : tensor of shape ()
    """

    factors: torch.Tensor
    noise: torch.Tensor

    def __init__(self, means: torch.Tensor, factors: torch.Tensor, noise: torch.Tensor) -> None:
        super().__init__(means)
        self.values.requires_grad_(False)
        self.register_buffer("factors", factors)
        self.register_buffer("noise", noise)

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """Fill X, of shape (n, n_features)."""
        gaps = X.isnan().any(dim=1).nonzero().squeeze(1)
        filled = X.clone()
        for rows in gaps.split(_ROWS_TOGETHER):
            filled[rows] = self._expected(X[rows])[0]
        return filled

    def completed(self, X: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return X without gaps, and the sum of the covariances of the missing values of rows."""
        filled, covariance = X.clone(), X.new_zeros(X.shape[1], X.shape[1])
        for rows in X.isnan().any(dim=1).nonzero().squeeze(1).split(_ROWS_TOGETHER):
            filled[rows], lower = self._expected(X[rows])
            inverse = torch.cholesky_inverse(lower)
            missing = X[rows].isnan().to(X.dtype)
            masked = self.factors * missing[:, :, None]
            covariance += _columns_first(masked @ inverse) @ _columns_first(masked).t()
            covariance.diagonal().add_(self.noise * missing.sum(dim=0))
        return filled, covariance

    def _expected(self, X: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return X without gaps, and the Cholesky factor of the precision of each row's factors."""
        factors, n_factors = self.factors, self.factors.shape[1]
        missing = X.isnan()
        known = torch.where(missing, 0, X - self.values)
        # The products of the factors of a row's known columns, summed over these columns.
        squares = (factors[:, :, None] * factors[:, None, :]).flatten(1)
        precision = ((~missing).to(X.dtype) @ squares).view(len(X), n_factors, n_factors)
        precision = precision / self.noise
        precision.diagonal(dim1=1, dim2=2).add_(1)
        lower = torch.linalg.cholesky(precision)
        found = torch.cholesky_solve((known @ factors / self.noise)[:, :, None], lower).squeeze(2)
        return torch.where(missing, self.values + found @ factors.t(), X), lower


def _columns_first(of_rows: torch.Tensor) -> torch.Tensor:
    return of_rows.transpose(0, 1).flatten(1)


def learn_fill(rows: torch.Tensor) -> ExpectedFill:
    """Return the layer for the distribution of rows, of shape (n, n_features), with gaps.

    Expectation and maximization by turns: from a distribution to the missing values and their
    covariances, and back.
    """
    missing = rows.isnan()
    means = rows.nanmean(dim=0).nan_to_num()
    filled = torch.where(missing, means, rows)
    of_gaps = rows.new_zeros(rows.shape[1], rows.shape[1])
    least = _LEAST_NOISE * float((filled - means).square().mean()) or 1.0
    for _ in range(_N_PASSES):
        means = filled.mean(dim=0)
        centred = filled - means
        covariance = (centred.t() @ centred + of_gaps) / len(rows)
        fill = _of_covariance(means, covariance, least)
        if not bool(missing.any()):
            break
        filled, of_gaps = fill.completed(rows)
    return fill


def _of_covariance(means: torch.Tensor, covariance: torch.Tensor, least: float) -> ExpectedFill:
    variances, axes = torch.linalg.eigh(covariance)
    variances = variances.clamp(min=0)
    n_rest = max(0, len(means) - _MOST_FACTORS)
    noise = variances[:n_rest].mean() if n_rest else variances.new_zeros(())
    factors = axes[:, n_rest:] * (variances[n_rest:]).sqrt()
    return ExpectedFill(means, factors, noise.clamp(min=least))


class Hiding(Regularizer):
    """Hide known entries from the encoder, as if they were missing.

    The encoder gets the expectation of hidden and missing entries, see `ExpectedFill`, which is the
    best linear estimate. The network learns what is better. All levels of a category are hidden
    together.

    Parameters
    ----------
    amount : float, default=0.25
        Fraction of entries that are hidden, in [0, 1).
    """

    compresses = False
    head: ExpectedFill | None

    def __init__(self, amount: float = 0.25) -> None:
        self.amount = amount

    def prepare(self, data: TrainingData) -> Regularizer:
        """Learn the distribution of the rows."""
        check_number(self, "amount", upper=1.0)
        prepared = copy.copy(self)
        batches = data.batches
        of_output = np.arange(batches.n_features) if batches.columns is None else batches.columns
        prepared._n_columns = int(of_output.max()) + 1
        prepared._columns = torch.as_tensor(of_output, device=data.means.device)
        cost = batches.n_features**2 * min(batches.n_features, _MOST_FACTORS)
        prepared.head = learn_fill(batches.sample(max(_FEWEST_ROWS, _MULTIPLICATIONS // cost)))
        return prepared

    @torch.no_grad()
    def corrupt(self, inputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Replace hidden and missing entries by their expectation."""
        drawn = inputs.new_empty(len(inputs), self._n_columns)
        hidden = drawn.uniform_(generator=batch.generator) < self.amount
        assert self.head is not None
        filled: torch.Tensor = self.head(inputs.masked_fill(hidden[:, self._columns], torch.nan))
        return filled
