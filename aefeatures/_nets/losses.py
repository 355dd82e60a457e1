"""Reconstruction losses, which return one number per row."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
import torch.nn.functional as F

from aefeatures._rows.table_scaling import TableScaling
from aefeatures._torch.random_state import global_seed

RowLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
_Probes = list[tuple[torch.Tensor, torch.Tensor]]

# Logit of a level that is certain.
_CERTAIN = 50.0

# Exponentials of logits up to this size, and their sums, are far from the limits of float32.
_LARGEST_LOGIT = 60.0

_ADVICE = (
    "For a loss of PyTorch, pass its mean over columns: "
    "lambda r, t: F.mse_loss(r, t, reduction='none').mean(dim=1)"
)


def _mean_over_columns(
    elementwise: Callable[..., torch.Tensor],
) -> RowLoss:
    def row_loss(reconstruction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return elementwise(reconstruction, target, reduction="none").mean(dim=1)

    return row_loss


def _cross_entropy(
    reconstruction: torch.Tensor, target: torch.Tensor, reduction: str
) -> torch.Tensor:
    """Cross-entropy, plus the distance of the target from [0, 1], which new rows may exceed."""
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
    """Return `loss` for targets with missing values (NaN): the loss of a row's known entries."""
    if isinstance(loss, TableLoss):
        left_out = TableLoss(leave_out_missing(loss.numbers), loss.scaling, missing=True)
        left_out.is_squared_error = loss.is_squared_error
        return left_out
    return _masked_built_in(loss) if loss in LOSSES.values() else _masked_custom(loss)


class TableLoss:
    """Mean over the columns of a table: a loss of numbers, and the cross-entropy of categories.

    The cross-entropy of a category is divided by the entropy of its levels, which makes it 1 for a
    decoder that knows nothing but their shares, as the squared error of a standardized number is.

    Parameters
    ----------
    numbers : callable
        Loss of a row's numbers, their mean.
    scaling : TableScaling
    missing : bool
        Whether targets may be missing (NaN).
    """

    def __init__(self, numbers: RowLoss, scaling: TableScaling, *, missing: bool = False) -> None:
        self.numbers, self.scaling, self.missing = numbers, scaling, missing
        self.is_squared_error = numbers is LOSSES["mse"]

    def __call__(self, reconstruction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss of each row."""
        scaling = self.scaling
        n_numbers, n_columns = scaling.n_numbers, scaling.n_features
        numbers, levels = scaling.split(target)
        outputs, logits = scaling.split(reconstruction)
        surprise = scaling.surprise(levels, logits)
        total = (surprise * scaling.weight.to(surprise)).sum(dim=1)
        if n_numbers:
            known = n_numbers - numbers.isnan().sum(dim=1) if self.missing else n_numbers
            total = total + self.numbers(outputs, numbers) * known
        if self.missing:
            n_missing = scaling.missing(target).sum(dim=1)
            return total / (n_columns - n_missing).clamp(min=1)
        return total / n_columns

    def constant(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the reconstruction of a decoder that knows only means and shares."""
        numbers, _ = self.scaling.split(rows)
        means = numbers.nanmean(dim=0).nan_to_num()
        row = torch.cat([means, self.scaling.share.log().to(means)])
        return row.expand_as(rows)

    def perfect(self, rows: torch.Tensor) -> torch.Tensor:
        """Return reconstructions without an error."""
        numbers, levels = self.scaling.split(rows)
        logits = (self.scaling.is_level(levels) - 1) * _CERTAIN
        return torch.cat([numbers, logits], dim=1).nan_to_num(nan=0.0)


class TableGradient:
    """Gradient of `TableLoss` with squared errors, on a device.

    Parameters
    ----------
    loss : TableLoss
    like : tensor
        Of the device and the type of the rows.
    """

    def __init__(self, loss: TableLoss, like: torch.Tensor) -> None:
        scaling = loss.scaling
        self._scaling, self._missing = scaling, loss.missing
        self._n_numbers, self._n_columns = scaling.n_numbers, scaling.n_features
        self._share, self._unit = scaling.share.to(like), scaling.unit.to(like)
        self._weights = scaling.weight.to(like)
        block, self._on_cpu = scaling.block.to(like.device), like.device.type == "cpu"
        self._factor = self._weights[block]
        # Sums over the levels of each category, and back, as products of matrices.
        n_levels, n_blocks = len(block), len(scaling.padded)
        members = like.new_zeros(n_levels, n_blocks)
        members[torch.arange(n_levels, device=like.device), block] = 1
        self._members = members
        self._to_levels = members.t().contiguous()
        self._part_of_column = torch.cat(
            [like.new_ones(self._n_numbers), 1 / members.sum(dim=0)[block]]
        )

    def __call__(
        self, reconstruction: torch.Tensor, target: torch.Tensor, gradient: torch.Tensor
    ) -> torch.Tensor:
        """Write the gradient of the rows' mean loss, and return the sum of the rows' losses."""
        k, n = self._n_numbers, len(target)
        known = None
        share: Any = 1 / self._n_columns  # weight of a column in the loss of its row
        missing = target.isnan() if self._missing else None
        # Whether any is missing is only known at once on a CPU.
        if missing is not None and (not self._on_cpu or bool(missing.any())):
            known = (~missing).to(target)
            target = target.masked_fill(missing, 0)
            share = 1 / (known @ self._part_of_column).round().clamp(min=1)[:, None]
        numbers = torch.sub(reconstruction[:, :k], target[:, :k], out=gradient[:, :k])
        if known is not None:
            numbers *= known[:, :k]
        summed = (numbers.square() * share).sum()
        numbers *= 2 / n * share
        logits = reconstruction[:, k:]
        if logits.numel() == 0:
            return summed
        is_level = torch.addcmul(self._share, target[:, k:], self._unit)
        is_level *= self._factor
        if known is not None:
            is_level *= known[:, k:]
        found, log_sums = self._probabilities(logits)
        levels = torch.mul(found, self._factor, out=gradient[:, k:])
        of_known: Any = self._weights
        if known is not None:
            levels *= known[:, k:]
            of_known = is_level @ self._members  # the weight of each known category
        summed -= (is_level * logits * share).sum() - (log_sums * of_known * share).sum()
        levels -= is_level
        levels *= share / n
        return summed

    def _probabilities(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return probabilities of levels, and the logarithm of the sum of each category's odds."""
        # Products of matrices are twice as fast as a softmax of padded rows, but overflow for large
        # logits.
        if self._on_cpu and bool(logits.abs().amax() < _LARGEST_LOGIT):
            odds = logits.exp()
            sums = odds @ self._members
            return odds * (sums.reciprocal() @ self._to_levels), sums.log()
        found = self._scaling.log_probabilities(logits)
        # All levels of a category have the same difference.
        first = self._scaling.padded[:, 0].to(logits.device)
        log_sums = logits.index_select(1, first) - found.index_select(1, first)
        return found.exp(), log_sums


def _masked_built_in(loss: RowLoss) -> RowLoss:
    def row_loss(reconstruction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        missing = target.isnan()
        # The reconstruction is its own target at missing entries, so that they have no gradient.
        own = reconstruction.detach()
        rows = loss(reconstruction, torch.where(missing, own, target))
        # Cross-entropy is not 0 at its own target, so the loss of these entries is subtracted.
        if loss is LOSSES["bce"]:
            entropy = F.binary_cross_entropy(own, own, reduction="none")
            rows = rows - torch.where(missing, entropy, 0).mean(dim=1)
        n_columns = target.shape[1]
        return rows * (n_columns / (n_columns - missing.sum(dim=1)).clamp(min=1))

    return row_loss


# User-defined losses. Nothing is known of them: a reconstruction that is its own target may have a
# loss and a gradient. A way to leave out values is searched for once, by calls of the loss.

# Value of a reconstruction and a target that every loss accepts: inside (0, 1), and positive.
_LEGAL = 0.5
_PROBED_ROWS = 16
_TOLERANCE = 1e-4

# Loss of the known entries, given a reconstruction, a target and where the target is missing.
_KnownLoss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def _masked_custom(loss: RowLoss) -> RowLoss:
    known_loss: list[_KnownLoss] = []

    def row_loss(reconstruction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        missing = target.isnan()
        if not bool(missing.any()):
            return loss(reconstruction, target)
        if not known_loss:
            with torch.inference_mode(False), torch.enable_grad(), global_seed(0):
                known_loss.append(_loss_of_known(loss, reconstruction, target))
        return known_loss[0](reconstruction, target, missing)

    return row_loss


def _loss_of_known(loss: RowLoss, reconstruction: torch.Tensor, target: torch.Tensor) -> _KnownLoss:
    """Return a function for the loss of the known entries, found by calling `loss` with probes.

    Raises
    ------
    ValueError
        If missing values cannot be left out of `loss`.
    """
    n_columns = target.shape[1]
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand(2, _PROBED_ROWS, n_columns, generator=generator).to(target) * 0.9 + 0.05
    # Rows of the data may lie outside (0, 1), where the loss may be another function.
    first = target[:_PROBED_ROWS]
    given = reconstruction.detach()[:_PROBED_ROWS].clone(), first.nan_to_num(_LEGAL).clone()
    finite = loss(*given).isfinite()
    probes = [(drawn[0], drawn[1])]
    if finite.any():
        probes.append((given[0][finite], given[1][finite]))
    for leave_out in (_by_loss_itself, _by_entries, _by_weights):
        with suppress(Exception):  # a loss may raise anything for fewer columns or for NaN
            if (way := leave_out(loss, probes)) is not None:
                return way
    raise ValueError(
        "X has missing values, which cannot be left out of this loss: it is neither a sum nor a "
        "mean over columns of one function of an entry and its target. Write it as one, or let it "
        "leave out entries whose target is NaN, as in: known = ~target.isnan(); "
        "target = torch.where(known, target, 0.0); return ((reconstruction - target).square() * "
        "known).sum(dim=1) / known.sum(dim=1)"
    )


def _by_loss_itself(loss: RowLoss, probes: _Probes) -> _KnownLoss | None:
    """Handle a loss that accepts NaN as a target and ignores the reconstruction there."""
    mask = _some_entries(probes[0][1])
    mask &= ~mask.all(dim=1, keepdim=True)
    reconstruction = probes[0][0].clone().requires_grad_()
    target = probes[0][1].masked_fill(mask, torch.nan)
    rows = loss(reconstruction, target)
    other = loss(torch.where(mask, 1 - reconstruction, reconstruction), target)
    finite = bool(rows.isfinite().all())
    if rows.requires_grad:
        (gradient,) = torch.autograd.grad(rows.sum(), reconstruction)
        finite = finite and bool(gradient.isfinite().all())
    if not (finite and bool(mask.any()) and torch.allclose(rows, other)):
        return None

    def known(
        reconstruction: torch.Tensor, target: torch.Tensor, missing: torch.Tensor
    ) -> torch.Tensor:
        some = ~missing.all(dim=1)  # a mean over no entries is NaN
        rows = loss(reconstruction[some], target[some])
        return rows.new_zeros(len(target)).masked_scatter(some, rows)

    return known


def _by_entries(loss: RowLoss, probes: _Probes) -> _KnownLoss | None:
    """Handle a sum or a mean over columns of one function, the loss of rows of one column."""
    kinds = {"sum", "mean"}
    for reconstruction, target in probes:
        rows, entries = loss(reconstruction, target), _of_entries(loss, reconstruction, target)
        for kind in tuple(kinds):
            joined = entries.sum(dim=1) if kind == "sum" else entries.mean(dim=1)
            size = entries.abs().sum(dim=1) if kind == "sum" else entries.abs().mean(dim=1)
            if not _are_close(rows, joined, size):
                kinds.remove(kind)
    if not kinds:
        return None

    def known(
        reconstruction: torch.Tensor, target: torch.Tensor, missing: torch.Tensor
    ) -> torch.Tensor:
        entries = _of_entries(loss, *_replaced(reconstruction, target, missing))
        rows = entries.masked_fill(missing, 0).sum(dim=1)
        return rows / (~missing).sum(dim=1).clamp(min=1) if "mean" in kinds else rows

    return known


def _by_weights(loss: RowLoss, probes: _Probes) -> _KnownLoss | None:
    """Handle a mean over columns with weights, or of functions that are 0 at the target.

    The part of the missing entries is computed with legal values and subtracted.
    """
    for reconstruction, target in probes:
        # Two rows have the same total loss after they have exchanged entries.
        other = _some_entries(target)
        pair = [torch.cat([x, x.flip(0)]) for x in (reconstruction, target)]
        exchanged = [torch.where(other, x, x.flip(0)) for x in (reconstruction, target)]
        back = [torch.where(other, x.flip(0), x) for x in (reconstruction, target)]
        before, after = loss(*pair), loss(*map(torch.cat, zip(exchanged, back, strict=True)))
        before, after = (rows.view(2, -1).sum(dim=0) for rows in (before, after))
        if not _are_close(before, after, before.abs().max()):
            return None
    reconstruction, target = probes[0]
    legal = torch.full_like(target[:1], _LEGAL)
    base = loss(legal, legal)
    weights = torch.zeros_like(legal)
    if not _are_close(base, torch.zeros_like(base), loss(reconstruction, target).abs().mean()):
        weights, others = (_weights_at(loss, legal, *at) for at in ((0.7, 0.2), (0.4, 0.9)))
        if not _are_close(weights, others, weights.abs().mean()):
            return None
    taken_out = (weights * base).detach()

    def known(
        reconstruction: torch.Tensor, target: torch.Tensor, missing: torch.Tensor
    ) -> torch.Tensor:
        rows = loss(*_replaced(reconstruction, target, missing))
        rows = rows - torch.where(missing, taken_out, 0).sum(dim=1)
        n_columns, n_known = target.shape[1], (~missing).sum(dim=1)
        return torch.where(n_known > 0, rows, 0) * (n_columns / n_known.clamp(min=1))

    return known


def _some_entries(rows: torch.Tensor) -> torch.Tensor:
    """Return a random mask of about half of the entries."""
    drawn = torch.rand(rows.shape, generator=torch.Generator().manual_seed(1))
    return (drawn < 0.5).to(rows.device)


def _weights_at(
    loss: RowLoss, legal: torch.Tensor, reconstruction: float, target: float
) -> torch.Tensor:
    """Return each column's part of the loss, if all have the same entry and target."""
    row = torch.full_like(legal, reconstruction).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(row, torch.full_like(legal, target)).sum(), row)
    return gradient / gradient.sum()


def _of_entries(loss: RowLoss, reconstruction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return loss(reconstruction.reshape(-1, 1), target.reshape(-1, 1)).view(target.shape)


def _replaced(
    reconstruction: torch.Tensor, target: torch.Tensor, missing: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return both with legal constants for missing targets, which then have no gradient."""
    return torch.where(missing, _LEGAL, reconstruction), torch.where(missing, _LEGAL, target)


def _are_close(x: torch.Tensor, y: torch.Tensor, size: torch.Tensor) -> bool:
    """Whether x equals y except for rounding, if their numbers have this size."""
    return bool(((x - y).abs() <= _TOLERANCE * size).all())


def resolve_loss(loss: str | RowLoss) -> RowLoss:
    """Return the loss per row that `loss` names or is; the result of a callable is checked."""
    if isinstance(loss, str):
        return LOSSES[loss]
    if isinstance(loss, type):
        raise TypeError(
            "loss must be one of 'mse', 'bce', 'mae', 'huber', or a function of a reconstruction "
            f"and a target, got the class {loss.__name__}. {_ADVICE}"
        )

    def checked(reconstruction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        rows = loss(reconstruction.clone(), target.clone())  # it may change them in place
        if not isinstance(rows, torch.Tensor) or rows.shape != target.shape[:1]:
            got = tuple(rows.shape) if isinstance(rows, torch.Tensor) else type(rows).__name__
            raise ValueError(
                "loss must return one number per row, a tensor of shape (n_rows,): expected "
                f"{tuple(target.shape[:1])}, got {got}. {_ADVICE}"
            )
        return rows

    return checked
