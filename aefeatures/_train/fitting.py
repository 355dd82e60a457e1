"""The steps of a fit, from rows to a trained model, for `fit`, `partial_fit` and Ray's workers."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from torch import nn

from aefeatures._nets.losses import RowLoss, leave_out_missing, resolve_loss
from aefeatures._nets.model import Model
from aefeatures._nets.neighbors import principal_axes
from aefeatures._nets.networks import (
    BuildSpec,
    DenseNetwork,
    FillMissing,
    Guest,
    Network,
    build_network,
    can_start_as_pca,
    copied,
    cost_per_row,
    layer_widths,
    resolve_widths,
    same_value,
)
from aefeatures._nets.regularizer import Regularizer, TrainingData
from aefeatures._nets.regularizers import Denoising, NearPCA, resolve_regularizers
from aefeatures._nets.supervised import Supervised
from aefeatures._rows.batches import Batches, RowBatches, StreamedBatches, batch_size_of
from aefeatures._rows.labels import is_auto, keep_groups
from aefeatures._rows.scaling import Scaling, extend_scaling, learn_scaling
from aefeatures._rows.sources import Source
from aefeatures._rows.survey import Survey
from aefeatures._torch.devices import PRECISIONS
from aefeatures._torch.random_state import (
    RandomState,
    global_seed,
    is_ours,
    random_state_for,
    seed_beside,
)
from aefeatures._torch.ranks import ALONE, Ranks
from aefeatures._train.digests import digest, in_short
from aefeatures._train.optimizer import AdamState
from aefeatures._train.training import (
    EarlyStopping,
    Plan,
    Training,
    TrainingResult,
    Watcher,
    diagnose,
)
from aefeatures._warnings import warn

# Parameters that may differ between ranks.
_OF_A_RANK = ("device", "random_state", "verbose")

# On small data "auto" stands for 3,000 steps at batch 64.
_AUTO_BATCH = 64
_AUTO_ROWS = 3_000 * _AUTO_BATCH

# Deviation of the noise that the default adds to standardized columns.
_AUTO_NOISE = 0.3

# Fewer rows do not settle the axes: codes of new rows are worse than from all columns. And fewer
# columns make no difference to the time.
_ROWS_PER_COMPONENT = 128
_COLUMNS_PER_COMPONENT = 2


@dataclass(frozen=True)
class Data:
    """Rows to fit on.

    Attributes
    ----------
    rows : Source
        Rows of this process.
    y : ndarray or None
        Their labels, if a regularizer asks for them.
    survey : Survey
        Of the rows of all ranks.
    known : ndarray of int or None
        Positions of the rows with any known value; None stands for all.
    ranks : Ranks
    """

    rows: Source
    y: np.ndarray | None
    survey: Survey
    known: np.ndarray | None
    ranks: Ranks = ALONE


@dataclass
class Memory:
    """State beside the model with which a further training goes on.

    Attributes
    ----------
    rng : np.random.Generator
    n_steps : int
        Steps of all trainings so far.
    learns_missing : bool
        Whether the values that fill in missing ones are trained.
    heads : list of (type, nn.Module or None)
        Kinds of the regularizers, and the modules that they trained along.
    optimizer_state : AdamState or None
    """

    rng: np.random.Generator
    n_steps: int = 0
    learns_missing: bool = False
    heads: list[tuple[type[Regularizer], nn.Module | None]] = field(default_factory=list)
    optimizer_state: AdamState | None = None


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
        What shows that nothing was learned.
    """

    model: Model
    memory: Memory
    result: TrainingResult
    task: str | None
    nothing_learned: str | None = None


def check_same_on_ranks(
    given: Any, rows: Source, ranks: Ranks, model: Model | None, memory: Memory | None
) -> None:
    """Refuse fits of several ranks that differ in what has to be the same.

    Raises
    ------
    ValueError
        If they differ, have no rows at all, or shall keep a checkpoint.
    """
    if given.checkpoint is not None:
        raise ValueError(
            "checkpoint cannot be used within distributed(): it is of one process. Set it to None."
        )
    settings: dict[str, Any] = {
        "number of columns": rows.shape[1],
        "names of columns": list(getattr(given, "feature_names_in_", [])),
        "start": "new" if model is None else "from an earlier fit",
    }
    parameters = given.get_params(deep=False)
    settings |= {name: parameters[name] for name in parameters if name not in _OF_A_RANK}
    same = {name: in_short(value) for name, value in settings.items()}
    if model is not None and memory is not None:
        key = digest([model.modules, memory.heads, memory.learns_missing])
        same["model to go on from"] = key, key
    others = ranks.gather(same)
    for name in same:
        keys, shown = zip(*(other.get(name, (None, "None")) for other in others), strict=True)
        if any(key != keys[0] for key in keys):
            if len(set(shown)) == 1:  # they differ in what is left out
                shown = tuple(
                    f"{text} (digest {key[:8]})" for text, key in zip(shown, keys, strict=True)
                )
            raise ValueError(
                f"All ranks must fit with the same {name}, got by rank: {', '.join(shown)}."
            )
    if sum(ranks.gather(rows.shape[0])) == 0:
        raise ValueError("Found no rows on any rank: fit needs at least 1.")


def look_at(rows: Source, y: np.ndarray | None, ranks: Ranks, model: Model | None = None) -> Data:
    """Read rows once, for everything that a fit has to know of them.

    A `model` to go on from knows all columns except those that were constant or unknown so far.

    Raises
    ------
    ValueError
        If no value is known.
    """
    survey = Survey.of(rows, None if model is None else model.scaling.fixed)
    total = survey.of_all(ranks)
    if total.n_known == 0:
        raise ValueError("X has no known value: all are missing. There is nothing to learn.")
    return Data(rows, y, total, survey.known, ranks)


def scale(given: Any, survey: Survey, device: torch.device) -> tuple[Scaling, FillMissing]:
    """Learn the scaling, and the values that stand for missing ones.

    Parameters
    ----------
    given : AutoencoderTransformer
        With the parameters, as Python's numbers.
    """
    if device.type == "mps" and given.precision == "float64":
        raise ValueError(
            "precision='float64' is not supported on device 'mps'. Use precision='float32' or "
            "device='cpu'."
        )
    if given.n_components >= survey.n_features > 1:  # no code compresses a single column
        warn(
            f"n_components={given.n_components} is not below the number of columns, "
            f"{survey.n_features}: the code is not a compression."
        )
    scaling, means = learn_scaling(survey, given.scaling, bounded=given.loss == "bce")
    if scaling.wide and device.type == "mps":
        raise ValueError(
            "X has columns so large or so nearly constant that float32, all that device 'mps' "
            "has, does not hold what they are scaled by. Use device='cpu', or rescale them."
        )
    if scaling.has_unknown:
        warn(
            f"X has no known value in {_names_of_unknown(given, scaling)}: values of new rows have "
            "no effect there, and come back as missing (NaN)."
        )
    _check_loss_range(given, scaling)
    scaled_means = scaling(torch.from_numpy(means))
    return scaling, FillMissing(scaled_means.to(PRECISIONS[given.precision]))


def _names_of_unknown(given: Any, scaling: Scaling) -> str:
    """The columns that were never known, as a message names them."""
    columns = scaling.unknown_columns()
    names = getattr(given, "feature_names_in_", None)
    named = [repr(str(names[i])) if names is not None else str(i) for i in columns[:10]]
    more = ", ..." if len(columns) > 10 else ""
    return f"column{'s' * (len(columns) > 1)} {', '.join(named)}{more}"


def _check_loss_range(given: Any, scaling: Scaling) -> None:
    """Refuse "bce" if the network's range is not [0, 1]."""
    if given.loss == "bce" and not scaling.bounded:
        raise ValueError(
            f"loss='bce' needs data in the range [0, 1], which scaling={given.scaling!r} does not "
            "give for this X. Use scaling='feature' or scaling='global'."
        )


def draw_seed(random_state: Any, ranks: Ranks = ALONE) -> int:
    """Return the seed of a fit, that of rank 0."""
    if random_state is None:  # scikit-learn would advance NumPy's global generator
        seed = int(np.random.SeedSequence().generate_state(1)[0])
    else:
        seed = int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
    seed, *_ = ranks.gather(seed)
    return seed


def seeded_rng(seed: int, ranks: Ranks) -> np.random.Generator:
    """Return the generator of a rank: each draws orders and noise of its own."""
    return np.random.default_rng([seed, ranks.rank] if ranks.rank else seed)


def build(
    given: Any,
    data: Data | None,
    survey: Survey,
    scaling: Scaling,
    fill: FillMissing,
    seed: int,
    device: torch.device,
) -> Model:
    """Return a model with first weights; without `data`, rows of a stream, none come from PCA."""
    n_features = survey.n_features
    network = given.network
    if network is None:
        network = DenseNetwork(
            given.hidden_layer_sizes,
            given.activation,
            given.normalization,
            resolve_principal_components(
                (survey.n_rows, n_features), resolve_regularizers(given.regularizer)
            ),
            _resolve_init(given, scaling, n_features, has_rows=data is not None),
        )
    network = clone(network) if isinstance(network, Network) else network
    if isinstance(network, DenseNetwork):
        network.hidden_layer_sizes = resolve_widths(network.hidden_layer_sizes, given.n_components)

    def axes(
        n_axes: int, *, sample: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        assert data is not None
        means = fill.values.detach().to(device)
        rng = np.random.default_rng(seed)
        batches = row_batches(given, scaling, device, data, data.known)
        found = principal_axes(batches, means, n_axes, rng, data.ranks, sample=sample)
        return found[0].cpu(), means.cpu(), found[1].cpu()

    spec = BuildSpec(
        scaling.bounded,
        PRECISIONS[given.precision],
        torch.Generator("cpu").manual_seed(seed),
        principal_axes=axes,
    )
    encoder, decoder = build_network(network, n_features, given.n_components, spec=spec)
    with global_seed(seed, network):
        cost = cost_per_row(nn.Sequential(encoder, decoder), n_features)
    return Model(
        encoder, decoder, scaling, fill, given.loss, network, cost, seed, built_from(given)
    )


def _resolve_init(given: Any, scaling: Scaling, n_features: int, *, has_rows: bool) -> str:
    """How the weights start; "auto" is PCA if the layers can carry it and the code compresses."""
    if given.init != "auto":
        return str(given.init)
    able = can_start_as_pca(given.activation, given.normalization)
    able = able and has_rows and given.n_components < n_features
    return "pca" if able and not scaling.bounded else "random"


def built_from(given: Any) -> dict[str, Any]:
    """Return the parameters that must not change before a further training."""
    network = given.network
    return {
        "n_components": given.n_components,
        "hidden_layer_sizes": str(layer_widths("hidden_layer_sizes", given.hidden_layer_sizes)),
        "activation": given.activation,
        "normalization": given.normalization,
        "network": clone(network) if isinstance(network, Network) else network,
        "precision": given.precision,
        "scaling": given.scaling,
    }


def go_on(given: Any, survey: Survey, model: Model) -> Model:
    """Return the model of the last fit, for a training that goes on with new rows.

    Raises
    ------
    ValueError
        If a parameter changed that the model was built from.
    """
    now = built_from(given)
    changed = [name for name in now if not same_value(now[name], model.built_from[name])]
    if changed:
        raise ValueError(
            f"Training cannot go on: {', '.join(changed)} changed since the last fit. "
            "Set it back, or train a new network with warm_start=False and fit."
        )
    scaling = extend_scaling(model.scaling, survey)
    _check_loss_range(given, scaling)
    return replace(model, scaling=scaling, loss=given.loss)


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


def row_batches(
    given: Any,
    scaling: Scaling,
    device: torch.device,
    data: Data,
    rows: np.ndarray | None,
    **settings: Any,
) -> RowBatches:
    """Return batches of some rows of the data."""
    return RowBatches(
        data.rows,
        scaling,
        **{"batch_size": given.batch_size, **settings},
        device=device,
        dtype=PRECISIONS[given.precision],
        rows=rows,
    )


def training_batches(
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


def resolve_principal_components(
    shape: tuple[int, int], regularizers: Sequence[Regularizer]
) -> int | None:
    """How many principal components of X the default network reads; None for all columns."""
    asked = [regularizer.n_principal_components for regularizer in regularizers]
    most = min([Regularizer.n_principal_components, *asked])
    n_rows, n_features = shape
    enough = most * _COLUMNS_PER_COMPONENT <= n_features and most * _ROWS_PER_COMPONENT <= n_rows
    return int(most) if enough else None


def auto_regularizers(given: Any, model: Model) -> list[Regularizer]:
    """Return what the parameter `regularizer` stands for; "auto" depends on the scaling."""
    scaling = model.scaling
    standard = given.scaling in ("auto", "standard") and not (scaling.bounded or scaling.common)
    compresses = model.n_components < len(model.fill.values)
    if is_auto(given.regularizer) and standard and compresses:
        return [Denoising("gaussian", _AUTO_NOISE), NearPCA()]
    return resolve_regularizers(given.regularizer)


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
    max_epochs : int
    schedule : str
    missing : bool
        Whether any value of all rows is missing.
    y : ndarray or None
        Labels of all rows of this process.
    rows : ndarray of int or None
        Positions of the training rows in y; None stands for all.
    early_stopping : EarlyStopping, optional
    watchers : callable
        Returns the watchers of the training. It is given a function that returns the outcome that
        the training would have if it ended now.
    ranks : Ranks
    """

    given: Any
    model: Model
    memory: Memory
    batches: Batches
    device: torch.device
    max_epochs: int
    schedule: str = "constant"
    missing: bool = False
    y: np.ndarray | None = None
    rows: np.ndarray | None = None
    early_stopping: EarlyStopping | None = None
    watchers: Callable[[Callable[[TrainingResult], Trained]], list[Watcher]] = lambda _: []
    ranks: Ranks = ALONE

    def run(self, *, diagnosed: bool = False) -> Trained:
        """Train a copy of the model; if `diagnosed`, look whether it has learned anything."""
        model = self.model
        memory = replace(self.memory, rng=copy.deepcopy(self.memory.rng))
        encoder, decoder, _, fill = copied(model.modules)
        layers = None
        if not model.is_as_built:
            encoder, decoder = Guest(encoder), Guest(decoder)
        elif isinstance(model.network, DenseNetwork):
            layers = model.network.layers_as_built(encoder, decoder)
        loss = resolve_loss(model.loss)
        if self.missing and not memory.learns_missing:
            memory.learns_missing = True
            memory.optimizer_state = None  # it has no moments for the values to learn
        if memory.learns_missing:
            loss = leave_out_missing(loss)
            encoder = nn.Sequential(fill, encoder)
        autoencoder = nn.Sequential(encoder, decoder).to(self.device)
        return self._train(autoencoder, loss, memory, layers, diagnosed)

    def _train(
        self,
        autoencoder: nn.Sequential,
        loss: RowLoss,
        memory: Memory,
        layers: Any,
        diagnosed: bool,
    ) -> Trained:
        given, model, ranks = self.given, self.model, self.ranks
        regularizers, draws = self._prepared_regularizers(memory)
        tasks = (each.task for each in regularizers if isinstance(each, Supervised))
        task = next(tasks, None)
        if [type(each) for each in regularizers] != [kind for kind, _ in memory.heads]:
            memory.optimizer_state = None  # its moments are of other parameters

        def outcome(result: TrainingResult, modules: nn.Sequential | None = None) -> Trained:
            parts = copied(autoencoder) if modules is None else modules
            return Trained(self._with_weights(parts, memory), memory, result, task)

        plan = Plan(
            autoencoder,
            self.batches,
            loss,
            max_epochs=self.max_epochs,
            learning_rate=given.learning_rate,
            rng=memory.rng,
            schedule=self.schedule,
            weight_decay=given.weight_decay,
            early_stopping=self.early_stopping,
            optimizer_state=memory.optimizer_state,
            mixed=given.precision == "bfloat16",
            regularizers=regularizers,
            multiply_adds=model.cost.multiply_adds * self.batches.batch_size,
            watchers=self.watchers(outcome),
            ranks=ranks,
            layers=layers,
            draws=draws,
        )
        result = Training(plan).run()
        memory.heads = [(type(each), each.head) for each in regularizers]
        memory.optimizer_state = result.optimizer_state
        memory.n_steps += result.n_steps
        problem = None
        if diagnosed:
            with global_seed(model.seed, model.network, model.loss):
                problem = diagnose(autoencoder, self.batches, loss, ranks)
        return replace(outcome(result, autoencoder), nothing_learned=problem)

    def _prepared_regularizers(self, memory: Memory) -> tuple[list[Regularizer], RandomState]:
        """Return the regularizers of this training, and what code of the caller's draws from."""
        given, model = self.given, self.model
        draws = random_state_for(
            [model.network, model.loss, *resolve_regularizers(given.regularizer)],
            seed_beside(memory.rng, memory.n_steps),
            self.device,
        )
        regularizers = auto_regularizers(given, model)
        if is_auto(given.regularizer) and isinstance(self.batches, StreamedBatches):
            # A stream of rows has no principal axes.
            regularizers = [each for each in regularizers if not isinstance(each, NearPCA)]
        # Training goes on with the heads of the last call, if it had the same regularizers.
        heads: list[nn.Module | None] = [None] * len(regularizers)
        if [type(each) for each in regularizers] == [kind for kind, _ in memory.heads]:
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
        )
        prepared = []
        for regularizer, head in zip(regularizers, heads, strict=True):
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
