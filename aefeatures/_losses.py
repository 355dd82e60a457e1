"""Reconstruction losses: one number per row, then the mean over the rows."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

RowLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _mean_over_columns(
    elementwise: Callable[..., torch.Tensor],
) -> RowLoss:
    def row_loss(reconstruction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return elementwise(reconstruction, target, reduction="none").mean(dim=1)

    return row_loss


LOSSES: dict[str, RowLoss] = {
    "mse": _mean_over_columns(F.mse_loss),
    "bce": _mean_over_columns(F.binary_cross_entropy),
    "mae": _mean_over_columns(F.l1_loss),
    "huber": _mean_over_columns(F.huber_loss),
}


def resolve_loss(loss: str | RowLoss) -> RowLoss:
    """Return the per-row loss that `loss` names or is; a callable's result is checked."""
    if isinstance(loss, str):
        return LOSSES[loss]

    def checked(reconstruction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        rows = loss(reconstruction, target)
        if not isinstance(rows, torch.Tensor) or rows.shape != target.shape[:1]:
            got = tuple(rows.shape) if isinstance(rows, torch.Tensor) else type(rows).__name__
            raise ValueError(
                "loss must return one number per row, a tensor of shape (n_rows,): expected "
                f"{tuple(target.shape[:1])}, got {got}."
            )
        return rows

    return checked
