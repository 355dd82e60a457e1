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


def _cross_entropy(
    reconstruction: torch.Tensor, target: torch.Tensor, reduction: str
) -> torch.Tensor:
    """Cross-entropy; new rows may lie outside [0, 1], and then by how far counts as well."""
    inside = target.clamp(0, 1)
    entropy = F.binary_cross_entropy(reconstruction, inside, reduction=reduction)
    return entropy + (target - inside).abs()


LOSSES: dict[str, RowLoss] = {
    "mse": _mean_over_columns(F.mse_loss),
    "bce": _mean_over_columns(_cross_entropy),
    "mae": _mean_over_columns(F.l1_loss),
    "huber": _mean_over_columns(F.huber_loss),
}


def leave_out_missing(loss: RowLoss) -> RowLoss:
    """Return `loss` for targets that miss values (NaN): a mean over the columns that are there."""

    def row_loss(reconstruction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        missing = target.isnan()
        # Where nothing is known, the reconstruction is its own target: no gradient...
        own = reconstruction.detach()
        rows = loss(reconstruction, torch.where(missing, own, target))
        # ... and what loss such entries have (cross-entropy has some) is taken out.
        if loss is LOSSES["bce"]:
            entropy = F.binary_cross_entropy(own, own, reduction="none")
            rows = rows - torch.where(missing, entropy, 0).mean(dim=1)
        n_columns = target.shape[1]
        return rows * (n_columns / (n_columns - missing.sum(dim=1)).clamp(min=1))

    return row_loss


def resolve_loss(loss: str | RowLoss) -> RowLoss:
    """Return the per-row loss that `loss` names or is; a callable's result is checked."""
    if isinstance(loss, str):
        return LOSSES[loss]

    def checked(reconstruction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        rows = loss(reconstruction.clone(), target.clone())  # it may work in place
        if not isinstance(rows, torch.Tensor) or rows.shape != target.shape[:1]:
            got = tuple(rows.shape) if isinstance(rows, torch.Tensor) else type(rows).__name__
            raise ValueError(
                "loss must return one number per row, a tensor of shape (n_rows,): expected "
                f"{tuple(target.shape[:1])}, got {got}."
            )
        return rows

    return checked
