"""A fit, from the start of the training to the model that was trained."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from aefeatures._nets.losses import RowLoss
from aefeatures._nets.model import Model
from aefeatures._nets.networks import (
    DenseNetwork,
    Guest,
    copied,
)
from aefeatures._nets.regularizer import Regularizer, TrainingData
from aefeatures._nets.regularizers import Denoising, NearPCA, resolve_regularizers
from aefeatures._nets.supervised import Supervised
from aefeatures._rows.batches import Batches, RowBatches, batch_size_of
from aefeatures._rows.labels import is_auto, keep_groups
from aefeatures._rows.table_scaling import TableScaling
from aefeatures._torch.random_state import (
    RandomState,
    global_seed,
    is_ours,
    random_state_for,
    seed_beside,
)
from aefeatures._torch.ranks import ALONE, Ranks
from aefeatures._train.callbacks import FitTask
from aefeatures._train.progress import Progress
from aefeatures._train.starting import Data, Memory, Start, row_batches
from aefeatures._train.training import (
    EarlyStopping,
    Plan,
    Training,
    TrainingResult,
    Watcher,
    diagnose,
)

# On small data "auto" stands for 3,000 steps at batch 64.
_AUTO_BATCH = 64
_AUTO_ROWS = 3_000 * _AUTO_BATCH

# Deviation of the noise that the default adds to standardized columns.
_AUTO_NOISE = 0.3

# Fraction of entries that the default swaps in tables, and its weight of the principal components.
_TABLE_SWAPPED = 0.45
_TABLE_WEIGHT = 0.15


@dataclass(frozen=True)
class Trained:
    """Outcome of a fit.

    Attributes
    ----------
    model : Model
    memory : Memory
    result : TrainingResult
    task : {"classification", "regression"} or None
        How the labels were taken.
    nothing_learned : str or None
        Sign that nothing was learned.
    """

    model: Model
    memory: Memory
    result: TrainingResult
    task: str | None
    nothing_learned: str | None = None


@dataclass(frozen=True)
class Fit:
    """A fit that is prepared: the model it starts from, and what it is trained on.

    Attributes
    ----------
    given : AutoencoderTransformer
        With the parameters, as Python's numbers.
    model : Model
    memory : Memory
        Not changed.
    batches : Batches
    device : torch.device
    regularizers : list of Regularizer
        Not prepared.
    n_rows : int
        Training rows of all ranks.
    max_epochs : int
    schedule : str
    missing : bool
        Whether any value of all rows is missing.
    y : ndarray or None
        Labels of all rows of this process.
    rows : ndarray of int or None
        Positions of the training rows in y; None stands for all.
    early_stopping : EarlyStopping, optional
    ranks : Ranks
    once : bool
        Whether the training is one epoch, as in `partial_fit`.
    """

    given: Any
    model: Model
    memory: Memory
    batches: Batches
    device: torch.device
    regularizers: list[Regularizer]
    n_rows: int
    max_epochs: int = 1
    schedule: str = "constant"
    missing: bool = False
    y: np.ndarray | None = None
    rows: np.ndarray | None = None
    early_stopping: EarlyStopping | None = None
    ranks: Ranks = ALONE
    once: bool = False

    def run(
        self,
        task: FitTask | None = None,
        as_fitted: Callable[[Trained], dict[str, Any]] | None = None,
        keeper: Watcher | None = None,
        *,
        diagnosed: bool = False,
    ) -> Trained:
        """Train a copy of the model.

        Parameters
        ----------
        task : FitTask, optional
            Its callbacks are called.
        as_fitted : callable, optional
            Returns the attributes of an estimator with an outcome, for the callbacks.
        keeper : Watcher, optional
            Keeps the state of the training.
        diagnosed : bool
            Whether to find out if anything was learned.
        """
        model = self.model
        memory = replace(self.memory, rng=copy.deepcopy(self.memory.rng))
        encoder, decoder, _, fill = copied(model.modules)
        layers = None
        if not model.is_as_built:
            encoder, decoder = Guest(encoder), Guest(decoder)
        elif isinstance(model.network, DenseNetwork):
            layers = model.network.layers_as_built(encoder, decoder)
        if self.missing and not memory.learns_missing:
            memory.learns_missing = True
            memory.optimizer_state = None  # it has no moments for the values to learn
        loss = model.row_loss(self.device, missing=memory.learns_missing)
        if memory.learns_missing:
            encoder = nn.Sequential(fill, encoder)
            layers = None if layers is None else replace(layers, fill=fill)
        autoencoder = nn.Sequential(encoder, decoder).to(self.device)
        regularizers, draws = self._prepared(memory)
        if [type(each) for each in regularizers] != [kind for kind, _ in memory.heads]:
            memory.optimizer_state = None  # its moments are of other parameters
        tasks = (each.task for each in regularizers if isinstance(each, Supervised))
        labels_are = next(tasks, None)

        def attributes_now(result: TrainingResult) -> dict[str, Any]:
            assert as_fitted is not None
            now = self._with_weights(copied(autoencoder), memory)
            return as_fitted(Trained(now, memory, result, labels_are))

        watchers: list[Watcher] = []
        if self.given.verbose and self.ranks.rank == 0:
            watchers.append(Progress(self.max_epochs, self.n_rows))
        if task is not None:
            watchers += task.watchers(attributes_now)
        if keeper is not None:
            watchers.append(keeper)
        plan = self._plan(autoencoder, loss, memory, regularizers, draws)
        plan = replace(plan, layers=layers, watchers=watchers)
        result = Training(plan).run()
        memory.heads = [(type(each), each.head) for each in regularizers]
        memory.optimizer_state = result.optimizer_state
        memory.n_steps += result.n_steps
        problem = None
        if diagnosed:
            with global_seed(model.seed, model.network, model.loss):
                problem = diagnose(autoencoder, self.batches, loss, self.ranks)
        trained = self._with_weights(autoencoder, memory)
        return Trained(trained, memory, result, labels_are, problem)

    def _plan(
        self,
        autoencoder: nn.Sequential,
        loss: RowLoss,
        memory: Memory,
        regularizers: list[Regularizer],
        draws: RandomState,
    ) -> Plan:
        return Plan(
            autoencoder,
            self.batches,
            loss,
            self.max_epochs,
            self.given.learning_rate,
            memory.rng,
            schedule=self.schedule,
            weight_decay=self.given.weight_decay,
            early_stopping=self.early_stopping,
            optimizer_state=memory.optimizer_state,
            mixed=self.given.precision == "bfloat16",
            regularizers=regularizers,
            multiply_adds=self.model.cost.multiply_adds * self.batches.batch_size,
            ranks=self.ranks,
            draws=draws,
        )

    def _prepared(self, memory: Memory) -> tuple[list[Regularizer], RandomState]:
        """Return the prepared regularizers, and what code of the caller's draws from."""
        model = self.model
        draws = random_state_for(
            [model.network, model.loss, *self.regularizers],
            seed_beside(memory.rng, memory.n_steps),
            self.device,
        )
        # Training goes on with the heads of the last call, if it had the same regularizers.
        heads: list[nn.Module | None] = [None] * len(self.regularizers)
        if [type(each) for each in self.regularizers] == [kind for kind, _ in memory.heads]:
            heads = [copy.deepcopy(head) for _, head in memory.heads]
        data = TrainingData(
            self.batches,
            self.y if self.y is None or self.rows is None else self.y[self.rows],
            model.fill.values.detach().to(self.device, copy=True),
            model.n_components,
            memory.rng,
            None,
            self.ranks,
            self.y,
            self.rows,
            self.missing,
            self.once,
        )
        prepared = []
        for regularizer, head in zip(self.regularizers, heads, strict=True):
            with nullcontext() if is_ours(regularizer) else draws.borrowed():
                prepared.append(regularizer.prepare(replace(data, head=head)))
        return prepared, draws

    def _with_weights(self, autoencoder: nn.Sequential, memory: Memory) -> Model:
        """Return the model with the trained modules, moved to the CPU."""
        encoder, decoder = autoencoder.cpu()
        fill: Any = self.model.fill
        if memory.learns_missing:
            fill, encoder = encoder.children()
        parts = [part.network if isinstance(part, Guest) else part for part in (encoder, decoder)]
        return replace(self.model, encoder=parts[0], decoder=parts[1], fill=fill)


def regularizers_of(given: Any, model: Model) -> list[Regularizer]:
    """Return what the parameter `regularizer` stands for; "auto" depends on the scaling."""
    scaling = model.scaling
    if is_auto(given.regularizer) and isinstance(scaling, TableScaling):
        return [Denoising("swap", _TABLE_SWAPPED), NearPCA(_TABLE_WEIGHT)]
    standard = given.scaling in ("auto", "standard") and not (scaling.bounded or scaling.common)
    compresses = model.n_components < len(model.fill.values)
    if is_auto(given.regularizer) and standard and compresses:
        return [Denoising("gaussian", _AUTO_NOISE), NearPCA()]
    return resolve_regularizers(given.regularizer)


def plan_fit(
    given: Any, data: Data, first: Start, device: torch.device, *, once: bool = False
) -> Fit:
    """Return a fit of the data, as the parameters say, or of one epoch at a constant rate."""
    model, ranks = first.model, data.ranks
    training, validation = data.known, None
    if not once:
        training, validation = split(given, data, model.seed)
    batches, n_rows = _training_batches(given, model, device, data, training)
    fit = Fit(
        given,
        model,
        first.memory,
        batches,
        device,
        regularizers_of(given, model),
        n_rows,
        missing=data.survey.missing,
        y=data.y,
        rows=training,
        ranks=ranks,
        once=once,
    )
    if once:
        return fit
    if validation is not None:
        held_out = row_batches(given, model.scaling, device, data, validation)
        stopping = EarlyStopping(held_out, given.n_iter_no_change, given.tol)
        fit = replace(fit, early_stopping=stopping)
    size = given.batch_size * ranks.size
    return replace(
        fit,
        memory=replace(first.memory, optimizer_state=None),
        max_epochs=resolve_max_epochs(given.max_epochs, n_rows, size, fit.regularizers),
        schedule=given.learning_rate_schedule,
    )


def split(given: Any, data: Data, seed: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return the rows to train on and those to validate on; None stands for all and none."""
    if not given.early_stopping:
        return data.known, None
    y, ranks = data.y, data.ranks
    rows = np.arange(data.rows.shape[0]) if data.known is None else data.known
    if max(ranks.gather(len(rows))) == 1:
        raise ValueError(
            "early_stopping=True needs at least 2 rows, got n_samples=1. Set it to False."
        )
    groups = []
    if y is not None:
        each = (one._groups(y, ranks) for one in resolve_regularizers(given.regularizer))
        groups = [groups_of_one for groups_of_one in each if groups_of_one is not None]
    if len(rows) < 2:  # of a rank
        training, validation = rows, np.empty(0, np.intp)
    else:
        from sklearn.model_selection import train_test_split

        # The seed of the first fit: a warm start must not validate on what it was trained on.
        share = given.validation_fraction
        training, validation = train_test_split(rows, test_size=share, random_state=seed)
    if groups:
        training, validation = keep_groups(groups, training, validation)
        if not any(ranks.gather(len(validation) > 0)):
            raise ValueError(
                "early_stopping=True finds no row to validate on: each is the only labelled "
                "row of its class, and needed for training. Set it to False."
            )
    return np.sort(training), np.sort(validation)  # datasets in files are read in order


def _training_batches(
    given: Any, model: Model, device: torch.device, data: Data, rows: np.ndarray | None
) -> tuple[RowBatches, int]:
    """Return the batches to train on, and the number of rows to train on of all ranks."""
    counts = data.ranks.gather(data.rows.shape[0] if rows is None else len(rows))
    # A network of the caller's own may need more than one row, as for a variance.
    single = model.is_as_built or given.batch_size == 1
    size = batch_size_of(counts, given.batch_size, data.ranks.rank, 1 if single else 2)
    batches = row_batches(
        given, model.scaling, device, data, rows, batch_size=size, no_single_rows=not single
    )
    return batches, sum(counts)


def resolve_max_epochs(
    max_epochs: int | str, n_rows: int, batch_size: int, regularizers: Sequence[Regularizer]
) -> int:
    """The number of epochs that "auto" stands for on `n_rows` training rows."""
    if max_epochs != "auto":
        return int(max_epochs)
    fewest = max([Regularizer.min_epochs, *(each.min_epochs for each in regularizers)])
    most = min([Regularizer.max_epochs, *(each.max_epochs for each in regularizers)])
    # Of data smaller than a batch an epoch is one step.
    steps_worth = math.ceil(_AUTO_ROWS / max(n_rows, _AUTO_BATCH, batch_size))
    return max(fewest, int(min(most, steps_worth)))
