"""The one training loop. It knows modules and batches, never an estimator."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from aefeatures._batches import Batches
from aefeatures._device import TrainingThread
from aefeatures._gradients import gradient_step
from aefeatures._losses import RowLoss
from aefeatures._optimizer import Adam, AdamState
from aefeatures._regularizers import Objective, Regularizer

# Part of the training after which "one_cycle" has reached its peak (Smith & Topin 2019).
_WARM_UP = 0.3
_INTERRUPT_AGAIN_SECONDS = 2.0
_SAMPLE_ROWS = 512

_last_interrupt = -math.inf


def _one_cycle(progress: float) -> float:
    if progress < _WARM_UP:
        return _cosine(1 / 25, 1.0, progress / _WARM_UP)
    return _cosine(1.0, 1e-4 / 25, (progress - _WARM_UP) / (1 - _WARM_UP))


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class Schedule:
    """The learning rate over training, as a factor of its peak."""

    factor: Callable[[float], float]  # of the part of all steps that is done, in [0, 1)
    peak: float = 0.0  # the part of all steps after which it only falls


SCHEDULES = {
    "one_cycle": Schedule(_one_cycle, _WARM_UP),
    "constant": Schedule(lambda _: 1.0),
    "cosine": Schedule(lambda progress: _cosine(1.0, 0.0, progress)),
}


@dataclass(frozen=True)
class EarlyStopping:
    """Stop when the loss on `validation` has not fallen by `tol` in `patience` epochs."""

    validation: Batches
    patience: int
    tol: float


@dataclass
class TrainingResult:
    """What a training did; the weights are in the modules it was given."""

    n_steps: int = 0
    loss_curve: list[float] = field(default_factory=list)
    validation_loss_curve: list[float] = field(default_factory=list)
    optimizer_state: AdamState | None = None


class Watcher:
    """What is told how a training goes. This one does nothing with it."""

    def begin_epoch(self) -> None:
        """An epoch begins."""

    def step(self, n_rows: int, summed_loss: torch.Tensor) -> None:
        """A batch of `n_rows` is done; called in the training thread.

        `summed_loss` is that of the epoch's rows so far, on the device, and goes on to change.
        """

    def end_epoch(self, result: TrainingResult) -> bool:
        """An epoch is over; returns whether the training shall stop."""
        return False

    def close(self) -> None:
        """The training is over, also by an error or an interrupt."""


def train(
    autoencoder: nn.Sequential,
    batches: Batches,
    loss: RowLoss,
    *,
    max_epochs: int,
    learning_rate: float,
    schedule: str = "constant",
    weight_decay: float = 0.0,
    rng: np.random.Generator,
    early_stopping: EarlyStopping | None = None,
    optimizer_state: AdamState | None = None,
    mixed: bool = False,
    regularizers: Sequence[Regularizer] = (),
    work: int = 0,
    watchers: Sequence[Watcher] = (),
) -> TrainingResult:
    """Train `autoencoder`, an encoder and its decoder, in place.

    Parameters
    ----------
    autoencoder : nn.Sequential
        On the device and in the precision of `batches`.
    rng : np.random.Generator
        What the order of the rows is drawn from.
    optimizer_state : AdamState, optional
        Adam's moments of an earlier training of the same network; not changed.
    mixed : bool
        Whether products of matrices are computed in bfloat16.
    regularizers : sequence of Regularizer
        As `prepare` returned them. Their heads are trained along.
    work : int
        Multiply-adds of a step, by which `TrainingThread` chooses where it computes.
    watchers : sequence of Watcher
        Any of them may end the training after an epoch. An error of theirs is raised.

    Raises
    ------
    FloatingPointError
        If the loss is not finite.
    MemoryError
        If a batch does not fit into the device's memory.
    KeyboardInterrupt
        If interrupted before the end of the first epoch, or within two seconds of
        another interrupt. Any other interrupt ends the training with a warning and the
        best weights so far.
    """
    heads = [regularizer.head for regularizer in regularizers if regularizer.head is not None]
    trained = nn.ModuleList([autoencoder, *heads])
    optimizer = Adam(trained, weight_decay=weight_decay, state=optimizer_state)
    objective = Objective(autoencoder, loss, list(regularizers), batches, rng, mixed=mixed)
    step_gradient = gradient_step(objective, optimizer.gradient)
    rate = SCHEDULES[schedule]
    total_steps = max_epochs * len(batches)
    result = TrainingResult()
    best = _Best([optimizer.vector, *trained.buffers()])
    waited = 0

    def run_epoch() -> tuple[float, float | None]:
        """Losses on training and validation rows; called in the training thread."""
        step = result.n_steps
        summed = torch.zeros((), device=batches.device)
        trained.train()
        for rows, index in batches.indexed_epoch(rng):
            if thread.stopping.is_set():
                break
            # Summed on the device: reading each loss would wait for its step.
            summed += step_gradient(rows, index)
            optimizer.step(learning_rate * rate.factor(step / total_steps))
            step += 1
            for watcher in watchers:
                watcher.step(len(rows), summed)
        result.n_steps = step
        trained.eval()
        return float(summed) / batches.n_rows, (
            evaluate(autoencoder, early_stopping.validation, loss) if early_stopping else None
        )

    with TrainingThread(work) as thread, ExitStack() as watching:
        for watcher in watchers:
            watching.callback(watcher.close)
        try:
            for epoch in range(1, max_epochs + 1):
                for watcher in watchers:
                    watcher.begin_epoch()
                try:
                    train_loss, validation_loss = thread.run(run_epoch)
                except torch.cuda.OutOfMemoryError as error:
                    raise MemoryError(
                        f"A batch of {batches.batch_size} rows does not fit into the memory of "
                        f"{batches.device}. Lower batch_size or hidden_layer_sizes."
                    ) from error
                watched = train_loss if validation_loss is None else validation_loss
                if not (math.isfinite(train_loss) and math.isfinite(watched)):
                    raise _diverged(train_loss, epoch, learning_rate)
                improved = watched < best.loss * (1 - (early_stopping.tol if early_stopping else 0))
                best.keep_if_better(watched)
                result.loss_curve.append(train_loss)
                if validation_loss is not None:
                    result.validation_loss_curve.append(validation_loss)
                past_peak = result.n_steps > rate.peak * total_steps
                waited = 0 if improved or not past_peak else waited + 1
                stops = [watcher.end_epoch(result) for watcher in watchers]
                if any(stops) or (early_stopping and waited >= early_stopping.patience):
                    break
        except KeyboardInterrupt:
            if _is_second_interrupt() or not result.loss_curve:
                raise
            watching.close()
            best.restore()
            warnings.warn(
                f"Training interrupted by user in epoch {len(result.loss_curve) + 1} of "
                f"{max_epochs}: keeping the best weights so far.",
                stacklevel=3,
            )
    if early_stopping:
        best.restore()
    # What the last step did is in no loss.
    if not bool(torch.isfinite(optimizer.vector).all()):
        raise _diverged(math.nan, len(result.loss_curve), learning_rate)
    trained.eval()
    optimizer.release()
    result.optimizer_state = optimizer.state
    return result


def evaluate(autoencoder: nn.Module, batches: Batches, loss: RowLoss) -> float:
    """Mean loss over all rows of `batches`, without training."""
    with torch.inference_mode():
        summed = sum(
            loss(autoencoder(rows), rows).sum(dtype=torch.float32) for rows in batches.epoch()
        )
    return float(summed) / batches.n_rows


def diagnose(autoencoder: nn.Sequential, batches: Batches, loss: RowLoss) -> str | None:
    """Say in what way a trained autoencoder has learned nothing; None where it has learned.

    Judged on a sample of the training rows.
    """
    if batches.n_rows == 1:
        return None
    with torch.inference_mode():
        rows = batches.sample(_SAMPLE_ROWS)
        codes = autoencoder[0](rows)
        reached = float(loss(autoencoder[1](codes), rows).mean())
        means = rows.nanmean(dim=0).nan_to_num().expand_as(rows)
        trivial = float(loss(means, rows).mean())
        spread = (codes.amax(dim=0) - codes.amin(dim=0)).max()
        constant = bool(spread <= 1e-6 * codes.abs().max())
    if bool((rows == rows[0]).all()):
        return f"all of the {len(rows)} rows looked at are the same"
    if constant:
        return "every row has the same code"
    if not reached < 0.999 * trivial:
        return (
            f"the reconstructions (loss {reached:.4g}) are no better than the means of the "
            f"columns (loss {trivial:.4g})"
        )
    return None


def _is_second_interrupt() -> bool:
    """Whether another interrupt came just before this one: the user wants out."""
    global _last_interrupt
    before, _last_interrupt = _last_interrupt, time.monotonic()
    return _last_interrupt - before < _INTERRUPT_AGAIN_SECONDS


class _Best:
    """The values of `tensors` at the lowest loss so far."""

    def __init__(self, tensors: list[torch.Tensor]) -> None:
        self.loss = math.inf
        self._tensors = tensors
        self._kept: list[torch.Tensor] = []

    def keep_if_better(self, loss: float) -> None:
        if loss < self.loss:
            self._kept = [tensor.clone() for tensor in self._tensors]
            self.loss = loss

    def restore(self) -> None:
        for tensor, kept in zip(self._tensors, self._kept, strict=True):
            tensor.copy_(kept)


def _diverged(loss: float, epoch: int, learning_rate: float) -> FloatingPointError:
    return FloatingPointError(
        f"The training diverged: its loss was {loss} in epoch {epoch} at "
        f"learning_rate={learning_rate:g}. Lower learning_rate, or let scaling='standard' "
        "bring X into a small range; a loss of your own must be finite for every row."
    )
