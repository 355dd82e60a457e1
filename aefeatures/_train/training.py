"""The one training loop. It knows modules and batches, never an estimator."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from aefeatures._nets.losses import RowLoss, TableLoss
from aefeatures._nets.networks import DenseLayers, FillMissing
from aefeatures._nets.objective import Objective
from aefeatures._nets.regularizer import Regularizer
from aefeatures._rows.batches import Batches
from aefeatures._torch.random_state import RandomState, global_seed
from aefeatures._torch.ranks import ALONE, Ranks
from aefeatures._train.gradients import (
    N_BEHIND,
    DenseGradient,
    gradient_step,
    joint_steps,
    own_steps,
)
from aefeatures._train.optimizer import Adam, AdamState
from aefeatures._train.thread import TrainingThread
from aefeatures._warnings import warn

# Part of the training after which "one_cycle" has reached its peak (Smith & Topin 2019).
_WARM_UP = 0.3
_INTERRUPT_AGAIN_SECONDS = 2.0
_SAMPLE_ROWS = 512

# Share of the error of predicting the columns' means that has to be explained at least.
_LEAST_SHARE = 0.01

# A loss explodes, finite or not, if it is this multiple of the loss of reconstructing zeros.
_EXPLODED = 1e4
# A squared error below this is rounding of numbers around 1 in float32.
_ROUNDING = float(np.finfo(np.float32).eps) ** 2
# Number of steps between two reads of the loss on a device: each read waits for all steps before.
_LOOK_EVERY = 64

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
    """Record of a training; the weights are in the modules that it was given."""

    n_steps: int = 0
    loss_curve: list[float] = field(default_factory=list)
    validation_loss_curve: list[float] = field(default_factory=list)
    optimizer_state: AdamState | None = None
    interrupted: bool = False


class Watcher:
    """Base class of everything that follows a training; it does nothing."""

    def begin(self, state: TrainingState) -> None:
        """The training begins; a watcher may set `state` to that of an earlier training.

        The last watcher is called first, so that the others see the state that it has set.
        """

    def begin_epoch(self) -> None:
        """An epoch begins."""

    def step(self, n_rows: int, summed_loss: torch.Tensor) -> None:
        """A batch of `n_rows` is done; called in the training thread.

        `summed_loss` is the sum over the epoch's rows so far, on the device. It changes later.
        """

    def end_epoch(self, result: TrainingResult) -> bool:
        """An epoch is over; return whether the training shall stop."""
        return False

    def close(self) -> None:
        """The training is over, even if by an error or an interrupt."""


@dataclass(frozen=True)
class Plan:
    """A training: the network to train, its data, and for how long.

    Attributes
    ----------
    autoencoder : nn.Sequential
        An encoder and its decoder, on the device and in the precision of `batches`. Trained in
        place.
    batches : Batches
    loss : callable
        Loss per row.
    max_epochs : int
    learning_rate : float
        Peak of the schedule.
    rng : np.random.Generator
        Gives the order of the rows.
    schedule : str
        Key of `SCHEDULES`.
    weight_decay : float
    early_stopping : EarlyStopping, optional
    optimizer_state : AdamState, optional
        Adam's moments of an earlier training of the same network; not changed.
    mixed : bool
        Whether products of matrices are computed in bfloat16.
    regularizers : sequence of Regularizer
        As `prepare` returned them. Their heads are trained along.
    multiply_adds : int
        Of a step, by which `TrainingThread` chooses where it computes.
    watchers : sequence of Watcher
        Any of them may end the training after an epoch. An error of theirs is raised.
    ranks : Ranks
        All train the same network, each on batches of its own.
    layers : DenseLayers, optional
        Layers of the autoencoder whose gradient is written out, as their builder declares.
    draws : RandomState, optional
        Random state that modules, losses and regularizers of the caller's own draw from.
    """

    autoencoder: nn.Sequential
    batches: Batches
    loss: RowLoss
    max_epochs: int
    learning_rate: float
    rng: np.random.Generator
    schedule: str = "constant"
    weight_decay: float = 0.0
    early_stopping: EarlyStopping | None = None
    optimizer_state: AdamState | None = None
    mixed: bool = False
    regularizers: Sequence[Regularizer] = ()
    multiply_adds: int = 0
    watchers: Sequence[Watcher] = ()
    ranks: Ranks = ALONE
    layers: DenseLayers | None = None
    draws: RandomState = field(default_factory=lambda: RandomState(0, ()))


class Training:
    """A training that runs a plan, once.

    Parameters
    ----------
    plan : Plan

    Raises
    ------
    ValueError
        If there are no weights to train.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        ranks, batches = plan.ranks, plan.batches
        self._alone = ranks.size == 1
        heads = [each.head for each in plan.regularizers if each.head is not None]
        self._trained = trained = nn.ModuleList([plan.autoencoder, *heads])
        self._optimizer = optimizer = Adam(
            trained,
            weight_decay=plan.weight_decay,
            undecayed=[part.values for part in trained.modules() if isinstance(part, FillMissing)],
            state=plan.optimizer_state,
            n_behind=0 if self._alone else N_BEHIND,
        )
        frozen = [parameter for parameter in trained.parameters() if not parameter.requires_grad]
        objective = Objective(
            plan.autoencoder,
            plan.loss,
            list(plan.regularizers),
            batches,
            plan.rng,
            mixed=plan.mixed,
            draws=plan.draws,
        )
        self._step_gradient = gradient_step(objective, optimizer.gradient, plan.layers)
        self._schedule = SCHEDULES[plan.schedule]
        steps_of_epoch, self._share = len(batches), 1.0
        if not self._alone:
            n_steps, n_rows = zip(*ranks.gather((len(batches), batches.n_rows)), strict=True)
            steps_of_epoch, self._share = max(n_steps), batches.n_rows / sum(n_rows)
        self._total_steps = plan.max_epochs * steps_of_epoch
        self._result = TrainingResult()
        self._best = _Best([optimizer.vector, *trained.buffers()])
        self._summed = torch.zeros((), device=batches.device)  # losses of the epoch's rows so far
        tensors = [*optimizer.state.tensors(), *self._best.tensors, *frozen, self._summed]
        self._state = TrainingState(
            self._result, self._best, tensors, plan.rng, objective.generator, plan.draws
        )
        for tensor in [] if self._alone else tensors:
            ranks.share_(tensor)
        self._divergence = _Divergence(plan, self._rate, steps_of_epoch)

    def run(self) -> TrainingResult:
        """Train until the epochs are over, early stopping or a watcher ends them, or an interrupt.

        Raises
        ------
        FloatingPointError
            If the loss is not finite, or 10,000 times that of reconstructing zeros.
        MemoryError
            If a batch does not fit into the device's memory.
        KeyboardInterrupt
            If interrupted before the end of the first epoch, or within two seconds of
            another interrupt. Any other interrupt ends the training with a warning and the
            best weights so far.
        """
        plan = self.plan
        # Ranks always compute in the thread: an interrupt must not tear one from a step of all.
        gradient = self._step_gradient
        splits = isinstance(gradient, DenseGradient) and plan.batches.device.type == "cpu"
        work = plan.multiply_adds if self._alone else 0
        with TrainingThread(work, splits=splits) as self._thread, ExitStack() as watching:
            if isinstance(gradient, DenseGradient):
                gradient.workers = self._thread.workers
            for watcher in plan.watchers:
                watching.callback(watcher.close)
            for watcher in reversed(plan.watchers):
                watcher.begin(self._state)
            try:
                while not self._stopped():
                    self._run_epoch()
            except KeyboardInterrupt as interrupt:
                n_epochs = self._epochs_before(interrupt)
                self._thread.stop()  # a step may be under way if the interrupt came just before it
                watching.close()
                self._keep_best(n_epochs)
        return self._finished()

    def _stopped(self) -> bool:
        """Whether the last epoch is over on any rank."""
        stopped = self._state.stopped
        return stopped if self._alone else any(self.plan.ranks.gather(stopped))

    def _run_epoch(self) -> None:
        """Train for an epoch, and judge it; called in the thread of the caller."""
        plan, result, state = self.plan, self._result, self._state
        for watcher in plan.watchers:
            watcher.begin_epoch()
        if not self._alone:
            plan.ranks.gather(None)  # raises the error of any rank on all
        try:
            train_loss, validation_loss = self._thread.run(self._train_epoch)
        except torch.cuda.OutOfMemoryError as error:
            raise MemoryError(
                f"A batch of {plan.batches.batch_size} rows does not fit into the memory of "
                f"{plan.batches.device}. Lower batch_size or hidden_layer_sizes."
            ) from error
        watched = train_loss if validation_loss is None else validation_loss
        self._divergence.check(train_loss, watched, self._best.loss, result.n_steps)
        stopping = plan.early_stopping
        improved = _is_better(watched, self._best.loss, stopping.tol if stopping else 0)
        self._best.keep_if_better(watched)
        if validation_loss is not None:
            result.validation_loss_curve.append(validation_loss)
        result.loss_curve.append(train_loss)
        past_peak = result.n_steps > self._schedule.peak * self._total_steps
        state.waited = 0 if improved or not past_peak else state.waited + 1
        state.stopped = len(result.loss_curve) == plan.max_epochs or (
            stopping is not None and state.waited >= stopping.patience
        )
        for watcher in plan.watchers:
            state.stopped |= watcher.end_epoch(result)

    def _train_epoch(self) -> tuple[float, float | None]:
        """Return the losses on training and validation rows; called in the training thread."""
        plan, state = self.plan, self._state
        if state.rows_done == 0:
            self._summed.zero_()
        step = self._result.n_steps + -(-state.rows_done // plan.batches.batch_size)
        self._trained.train()
        errors: list[BaseException] = []
        for n_rows, summed_loss in self._gradients(errors):
            # Summed on the device: reading each loss would wait for its step.
            self._summed.add_(summed_loss)
            self._optimizer.step(self._rate(step), drop_tiny=not self._thread.flushes)
            step += 1
            state.rows_done += n_rows
            self._after_step(step, n_rows, errors)
        train_loss = float(self._summed) / max(state.rows_done, 1)
        self._result.n_steps, state.rows_done = step, 0
        self._trained.eval()
        if not self._alone:
            _settle(self._trained, self._optimizer.vector, self._share, plan.ranks)
        if plan.early_stopping is None:
            return train_loss, None
        validation = plan.early_stopping.validation
        with plan.draws.borrowed():
            return train_loss, evaluate(plan.autoencoder, validation, plan.loss, plan.ranks)

    def _gradients(self, errors: list[BaseException]) -> Iterator[tuple[int, torch.Tensor]]:
        """Return an iterator that computes the gradient of a step, and gives its rows and loss."""
        state, stopping = self._state, self._thread.stopping
        epoch = self.plan.batches.indexed_epoch(state.order(), state.rows_done)
        if self._alone:
            return own_steps(self._step_gradient, epoch, stopping)
        buffer = self._optimizer.buffer
        return joint_steps(self._step_gradient, epoch, stopping, buffer, self.plan.ranks, errors)

    def _after_step(self, step: int, n_rows: int, errors: list[BaseException]) -> None:
        look_every = 1 if self._summed.device.type == "cpu" else _LOOK_EVERY
        if step % look_every == 0 and not math.isfinite(float(self._summed)):
            raise self._divergence.error(float(self._summed), step)
        try:
            for watcher in self.plan.watchers:
                watcher.step(n_rows, self._summed)
        except Exception as error:
            if self._alone:
                raise
            errors.append(error)  # for the next step of all

    def _rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        return self.plan.learning_rate * self._schedule.factor(step / self._total_steps)

    def _epochs_before(self, interrupt: KeyboardInterrupt) -> int:
        """Return how many epochs all ranks had finished; raise the interrupt if there is none."""
        ranks = self.plan.ranks
        if not ranks.told:
            ranks.fail(interrupt)
        # Some ranks may have counted an epoch that others have not counted yet.
        n_epochs = min(ranks.gather(len(self._result.loss_curve)))
        if any(ranks.gather(_is_second_interrupt())) or n_epochs == 0:
            raise interrupt
        ranks.told = False
        return n_epochs

    def _keep_best(self, n_epochs: int) -> None:
        """Go back to the best weights of the epochs before an interrupt, and say so."""
        result = self._result
        self._best.restore()
        for tensor in self._best.tensors:
            self.plan.ranks.share_(tensor)
        result.interrupted = True
        del result.loss_curve[n_epochs:]
        del result.validation_loss_curve[len(result.loss_curve) :]
        warn(
            f"Training interrupted by user in epoch {len(result.loss_curve) + 1} of "
            f"{self.plan.max_epochs}: keeping the best weights so far. A search goes on, and ranks "
            "this fit like the others: interrupt again within 2 seconds to end it."
        )

    def _finished(self) -> TrainingResult:
        if self.plan.early_stopping:
            self._best.restore()
        # No loss shows the result of the last step.
        if not bool(torch.isfinite(self._optimizer.vector).all()):
            raise self._divergence.error(math.nan, self._result.n_steps)
        self._trained.eval()
        self._optimizer.release()
        self._result.optimizer_state = self._optimizer.state
        return self._result


def _is_better(loss: float, other: float, tol: float) -> bool:
    """Whether a loss is below another, which may be negative, by `tol` times the other's size."""
    return loss < other if math.isinf(other) else loss < other - tol * abs(other)


def evaluate(
    autoencoder: nn.Module, batches: Batches, loss: RowLoss, ranks: Ranks = ALONE
) -> float:
    """Mean loss over the rows of the `batches` of all ranks, without training."""
    with torch.inference_mode():
        summed = sum(
            loss(autoencoder(rows), rows).sum(dtype=torch.float32) for rows in batches.epoch()
        )
    return ranks.mean(float(summed) / max(batches.n_rows, 1), batches.n_rows)


def diagnose(
    autoencoder: nn.Sequential, batches: Batches, loss: RowLoss, ranks: Ranks = ALONE
) -> str | None:
    """Return a sign that a trained autoencoder has learned nothing, or None.

    It is judged on a sample of the training rows, by all ranks that have rows.
    """
    able = batches.n_rows > 1
    found = ranks.gather((able, _diagnose(autoencoder, batches, loss) if able else None))
    messages = [message for able, message in found if able]
    return messages[0] if messages and all(messages) else None


def _diagnose(autoencoder: nn.Sequential, batches: Batches, loss: RowLoss) -> str | None:
    with torch.inference_mode():
        rows = batches.sample(_SAMPLE_ROWS)
        codes = autoencoder[0](rows)
        reached = float(loss(autoencoder[1](codes.clone()), rows).mean())
        if isinstance(loss, TableLoss):
            means, best = loss.constant(rows), loss.perfect(rows)
        else:
            means = rows.nanmean(dim=0).nan_to_num().expand_as(rows)
            best = torch.where(rows.isnan(), means, rows)
        trivial = float(loss(means, rows).mean())
        # Cross-entropy is not zero even then.
        perfect = float(loss(best, rows).mean())
        spread = (codes.amax(dim=0) - codes.amin(dim=0)).max()
        constant = bool(spread <= 1e-6 * codes.abs().max())
    if bool((rows == rows[0]).all()):
        return f"all of the {len(rows)} rows looked at are the same"
    if constant:
        return "every row has the same code"
    possible = trivial - perfect if perfect < min(reached, trivial) else abs(trivial)
    if not trivial - reached > _LEAST_SHARE * possible:
        how = "hardly" if reached < trivial else "no"
        return (
            f"the reconstructions (loss {reached:.4g}) are {how} better than the means of the "
            f"columns (loss {trivial:.4g})"
        )
    return None


def _is_second_interrupt() -> bool:
    """Whether another interrupt came just before this one: the user wants out."""
    global _last_interrupt
    before, _last_interrupt = _last_interrupt, time.monotonic()
    return _last_interrupt - before < _INTERRUPT_AGAIN_SECONDS


def _settle(trained: nn.Module, vector: torch.Tensor, share: float, ranks: Ranks) -> None:
    """Give all ranks the same network after an epoch; this rank had a `share` of its rows.

    Running statistics of batch normalization are averaged. The weights are the same already, unless
    processors of different kinds round differently.
    """
    for module in trained.modules():
        if isinstance(module, _NormBase):
            for statistic in (module.running_mean, module.running_var):
                if statistic is not None:
                    ranks.sum_(statistic.mul_(share))
    for tensor in (vector, *trained.buffers()):
        ranks.share_(tensor)


class _Best:
    """The values of `tensors` at the lowest loss so far."""

    def __init__(self, tensors: list[torch.Tensor]) -> None:
        self.loss = math.inf
        self.tensors = tensors
        self.kept: list[torch.Tensor] = []

    def keep_if_better(self, loss: float) -> None:
        if loss < self.loss:
            self.kept = [tensor.clone() for tensor in self.tensors]
            self.loss = loss

    def restore(self) -> None:
        for tensor, kept in zip(self.tensors, self.kept, strict=True):
            tensor.copy_(kept)


@dataclass
class TrainingState:
    """Everything beside its plan that a training depends on between two steps.

    Attributes
    ----------
    result : TrainingResult
    best : _Best
    tensors : list of tensor
        Adam's moments and steps, the weights, the buffers, the frozen weights and the sum of the
        epoch's losses.
    rng : numpy.random.Generator
    generator : torch.Generator
        The objective's.
    draws : RandomState
        Random state that code of the caller's own draws from.
    waited : int
        Number of epochs without improvement that early stopping has counted.
    stopped : bool
        Whether the epoch that is over was the last one.
    rows_done : int
        Rows of the epoch that is under way.
    """

    result: TrainingResult
    best: _Best
    tensors: list[torch.Tensor]
    rng: np.random.Generator
    generator: torch.Generator
    draws: RandomState
    waited: int = 0
    stopped: bool = False
    rows_done: int = 0
    _at_epoch: dict[str, Any] = field(default_factory=dict)  # the state of `rng` as it began

    def order(self) -> np.random.Generator:
        """Return the generator of the order of the epoch's rows.

        It is `rng` or, in an epoch that another process began, a generator in the state that `rng`
        had there.
        """
        if self.rows_done == 0:
            self._at_epoch = dict(self.rng.bit_generator.state)
            return self.rng
        again = np.random.default_rng(0)
        again.bit_generator.state = self._at_epoch
        return again

    def save(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return it as a JSON document and arrays, which may share memory with the tensors."""
        arrays = {
            "loss_curve": np.array(self.result.loss_curve, np.float64),
            "validation_loss_curve": np.array(self.result.validation_loss_curve, np.float64),
            "best_loss": np.array([self.best.loss]),
            "generator": _to_bytes(self.generator.get_state()),
        }
        lists = {"tensor": self.tensors, "best": self.best.kept, "draws": self.draws.states}
        for name, tensors in lists.items():
            arrays |= {f"{name}.{i}": _to_bytes(tensor) for i, tensor in enumerate(tensors)}
        document = {
            "n_steps": self.result.n_steps,
            "waited": self.waited,
            "stopped": self.stopped,
            "rows_done": self.rows_done,
            "rng": self.rng.bit_generator.state,
            "rng_at_epoch": self._at_epoch,
        }
        return document, arrays

    def load(self, document: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Go back to what `save` returned, of a training of the same network.

        Raises
        ------
        ValueError
            If it is of another network. Nothing has changed then.
        """
        n_best = sum(name.startswith("best.") for name in arrays)
        kept = [torch.empty_like(tensor) for tensor in self.best.tensors[:n_best]]
        generator = self.generator.get_state()
        draws = [torch.empty_like(state) for state in self.draws.states]
        targets = {f"tensor.{i}": tensor for i, tensor in enumerate(self.tensors)}
        targets |= {f"best.{i}": tensor for i, tensor in enumerate(kept)}
        targets |= {f"draws.{i}": tensor for i, tensor in enumerate(draws)}
        targets["generator"] = generator
        curves = ("loss_curve", "validation_loss_curve", "best_loss")
        expected = {name: _n_bytes(tensor) for name, tensor in targets.items()}
        found = {name: array.nbytes for name, array in arrays.items() if name not in curves}
        if found != expected or n_best not in (0, len(self.best.tensors)):
            raise ValueError(f"it is of another network: {found} bytes instead of {expected}.")
        losses, validation_losses, (best_loss,) = (arrays[name].tolist() for name in curves)
        counts = {name: document[name] for name in ("waited", "stopped", "rows_done")}
        n_steps, at_epoch = document["n_steps"], document["rng_at_epoch"]
        self.rng.bit_generator.state = document["rng"]
        for name, tensor in targets.items():
            values = torch.from_numpy(arrays[name].copy())
            tensor.copy_(values.view(tensor.dtype).reshape(tensor.shape))
        self.generator.set_state(generator)
        self.draws.states = draws
        self.result.loss_curve[:] = losses
        self.result.validation_loss_curve[:] = validation_losses
        self.result.n_steps, self._at_epoch = n_steps, at_epoch
        vars(self).update(counts)
        self.best.loss, self.best.kept = best_loss, kept


def _to_bytes(tensor: torch.Tensor) -> np.ndarray:
    """The tensor's bytes: NumPy does not have all of PyTorch's types."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    array: np.ndarray = flat.view(torch.uint8).numpy()
    return array


def _n_bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


class _Divergence:
    """Finds out that a training diverged, and says why."""

    def __init__(self, plan: Plan, rate_of: Callable[[int], float], steps_of_epoch: int) -> None:
        self._plan, self._rate_of, self._steps_of_epoch = plan, rate_of, steps_of_epoch

    def check(self, train_loss: float, watched: float, lowest: float, step: int) -> None:
        """Raise if a loss of an epoch is not finite, or that of its training explodes."""
        for loss in (train_loss, watched):
            if not math.isfinite(loss):
                raise self.error(loss, step)
        # Cheap first: data in the network's range is around 1, and most losses fall.
        suspicious = train_loss > max(_EXPLODED * min(lowest, 1.0), _ROUNDING)
        if suspicious and 0 < _EXPLODED * self._loss_of_zeros < train_loss:
            raise self.error(train_loss, step)

    @cached_property
    def _loss_of_zeros(self) -> float:
        """Mean size of the loss of reconstructing zeros, which may be negative.

        A network that learned nothing stays below.
        """
        # Not from the training's own state: a fit that goes on from a file may compute it again.
        apart = global_seed(0) if self._plan.draws.states else nullcontext()
        with torch.inference_mode(), apart:
            summed = sum(
                float(self._plan.loss(torch.zeros_like(rows), rows).abs().sum(dtype=torch.float64))
                for rows in self._plan.batches.epoch()
            )
        n_rows = self._plan.batches.n_rows
        return self._plan.ranks.mean(summed / max(n_rows, 1), n_rows)

    def error(self, train_loss: float, step: int) -> FloatingPointError:
        """Return the error to raise after `step` steps."""
        advice = (
            "let scaling='standard' bring X into a small range; a loss of your own must be finite "
            "for every row."
        )
        cause = (
            f"Before it has learned anything that is not for a learning rate: {advice}"
            if step == 1
            else "The likely cause is a learning rate that is too high. Lower learning_rate, or "
            f"{advice}"
        )
        return FloatingPointError(
            f"The training diverged: its loss was {train_loss:.6g} in epoch "
            f"{-(-step // self._steps_of_epoch)} after step {step}, at a rate of "
            f"{self._rate_of(step - 1):.3g} with "
            f"learning_rate={self._plan.learning_rate:g}. {cause}"
        )
