"""The start of a fit: a look at the rows, and the model that a training starts from."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils import check_random_state
from torch import nn

from aefeatures._nets.model import Model
from aefeatures._nets.neighbors import principal_axes
from aefeatures._nets.networks import (
    BuildSpec,
    DenseNetwork,
    FillMissing,
    Network,
    build_network,
    can_start_as_pca,
    cost_per_row,
    layer_widths,
    resolve_widths,
    same_value,
)
from aefeatures._nets.placing import place_scaling
from aefeatures._nets.regularizer import Regularizer
from aefeatures._nets.regularizers import resolve_regularizers
from aefeatures._rows.batches import RowBatches
from aefeatures._rows.scaling import extend_scaling, learn_scaling
from aefeatures._rows.sources import Source
from aefeatures._rows.survey import Survey
from aefeatures._rows.table_scaling import (
    AnyScaling,
    TableScaling,
    extend_table_scaling,
    learn_table_scaling,
)
from aefeatures._rows.tables import Table
from aefeatures._torch.devices import PRECISIONS
from aefeatures._torch.random_state import (
    global_seed,
)
from aefeatures._torch.ranks import ALONE, Ranks
from aefeatures._train.checkpoint import FitFile
from aefeatures._train.digests import digest, digest_of_rows, in_short
from aefeatures._train.optimizer import AdamState
from aefeatures._warnings import warn

# Parameters that may differ between ranks.
_OF_A_RANK = ("device", "random_state", "verbose")

# Parameters that a checkpoint does not depend on: without effect on the result, or counted in
# resolved form.
_NOT_IN_KEY = (
    "checkpoint",
    "device",
    "random_state",
    "verbose",
    "warm_start",
    # Their effect is the table.
    "categorical_features",
    "min_frequency",
    "max_categories",
)

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
    table : Table or None
        Columns of the table that the rows are made of.
    """

    rows: Source
    y: np.ndarray | None
    survey: Survey
    known: np.ndarray | None
    ranks: Ranks = ALONE
    table: Table | None = None


@dataclass
class Memory:
    """State beside the model with which a further training goes on.

    Attributes
    ----------
    rng : np.random.Generator
    n_steps : int
        Number of steps of all trainings so far.
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
class Start:
    """The model and the state that a training starts from, and its checkpoint."""

    model: Model
    memory: Memory
    checkpoint: FitFile | None = None


def check_same_on_ranks(given: Any, rows: Source, ranks: Ranks, last: Start | None) -> None:
    """Refuse fits of several ranks that differ in what has to be the same.

    Raises
    ------
    ValueError
        If they differ, have no rows at all, or shall keep a checkpoint.
    """
    if given.checkpoint is not None:
        raise ValueError(
            "checkpoint cannot be used within distributed(): it keeps the fit of one process. Set "
            "it to None."
        )
    settings: dict[str, Any] = {
        "number of columns": rows.shape[1],
        "names of columns": list(getattr(given, "feature_names_in_", [])),
        "start": "new" if last is None else "from an earlier fit",
    }
    parameters = given.get_params(deep=False)
    settings |= {name: parameters[name] for name in parameters if name not in _OF_A_RANK}
    same = {name: in_short(value) for name, value in settings.items()}
    if last is not None:
        key = digest([last.model.modules, last.memory.heads, last.memory.learns_missing])
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


def look_at(
    rows: Source,
    y: np.ndarray | None,
    ranks: Ranks,
    last: Start | None = None,
    table: Table | None = None,
) -> Data:
    """Read rows once, for everything that a fit has to know of them.

    If training goes on, the last model knows all columns except those that were constant or
    unknown so far.

    Raises
    ------
    ValueError
        If no value is known.
    """
    survey = Survey.of(rows, None if last is None else last.model.scaling.fixed)
    total = survey.of_all(ranks)
    if total.n_known == 0:
        raise ValueError("X has no known value: all are missing. There is nothing to learn.")
    return Data(rows, y, total, survey.known, ranks, table)


def scale(
    given: Any, survey: Survey, device: torch.device, table: Table | None = None
) -> tuple[AnyScaling, FillMissing]:
    """Learn the scaling, and the values that stand for missing ones.

    Parameters
    ----------
    given : AutoencoderTransformer
        With the parameters, as Python's numbers.
    """
    scaling: AnyScaling
    if table is None:
        scaling, means = learn_scaling(survey, given.scaling, bounded=given.loss == "bce")
        scaled_means = scaling(torch.from_numpy(means))
    else:
        scaling, means = learn_table_scaling(survey, table.shares(), given.scaling)
        scaled_means = scaling.fill_values(means)
    width = len(scaled_means)
    compresses = all(each.compresses for each in resolve_regularizers(given.regularizer))
    if compresses and given.n_components >= width > 1:  # no code compresses a single column
        warn(
            f"n_components={given.n_components} is not below the number of columns, "
            f"{width}: the code is not a compression."
        )
    if scaling.wide and device.type == "mps":
        raise ValueError(
            "X has columns so large or so nearly constant that their scaling needs float64, which "
            "device 'mps' does not support. Use device='cpu', or rescale them."
        )
    if scaling.has_unknown:
        warn(
            f"X has no known value in {_names_of_unknown(given, scaling)}: values of new rows have "
            "no effect there, and come back as missing (NaN)."
        )
    _check_loss_range(given, scaling)
    return scaling, FillMissing(scaled_means.to(PRECISIONS[given.precision]))


def _names_of_unknown(given: Any, scaling: AnyScaling) -> str:
    """The columns that were never known, as a message names them."""
    columns = scaling.unknown_columns()
    names = getattr(given, "feature_names_in_", None)
    named = [repr(str(names[i])) if names is not None else str(i) for i in columns[:10]]
    more = ", ..." if len(columns) > 10 else ""
    return f"column{'s' * (len(columns) > 1)} {', '.join(named)}{more}"


def _check_loss_range(given: Any, scaling: AnyScaling) -> None:
    """Refuse "bce" if the network's range is not [0, 1]."""
    if given.loss == "bce" and isinstance(scaling, TableScaling):
        raise ValueError(
            "loss='bce' is not supported for tables with categories or dates. Use loss='mse' for "
            "their numbers: categories have a cross-entropy with every loss."
        )
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


def fresh_memory(seed: int, ranks: Ranks) -> Memory:
    """Return the state of a first training: each rank draws orders and noise of its own."""
    return Memory(np.random.default_rng([seed, ranks.rank] if ranks.rank else seed))


def start(
    given: Any,
    data: Data,
    device: torch.device,
    last: Start | None = None,
    closing: ExitStack | None = None,
) -> Start:
    """Return what a training starts from: a new model, or that of the `last` one.

    The checkpoint that `given` asks for is opened in `closing`, if there is one.
    """
    if device.type == "mps" and given.precision == "float64":
        raise ValueError(
            "precision='float64' is not supported on device 'mps'. Use precision='float32' or "
            "device='cpu'."
        )
    if given.checkpoint is None:
        closing = None
    checkpoint = None
    if last is not None:
        model, memory = go_on(given, data.survey, last.model), last.memory
        if closing is not None:
            depends_on = [
                *_common_key(given, data, device, model.scaling, model.fill),
                model.seed,
                (model.encoder, model.decoder),
                memory.heads,
                memory.learns_missing,
                memory.rng.bit_generator.state,
            ]
            checkpoint = closing.enter_context(FitFile(given.checkpoint, depends_on, model.seed))
        return Start(model, memory, checkpoint)
    seed = draw_seed(given.random_state, data.ranks)
    scaling, fill = scale(given, data.survey, device, data.table)
    if closing is not None:
        known = None if given.random_state is None else seed
        depends_on = [*_common_key(given, data, device, scaling, fill), known]
        checkpoint = closing.enter_context(FitFile(given.checkpoint, depends_on, seed))
        seed = checkpoint.seed  # of an unseeded fit, that of the fit that was interrupted
    model = build(given, data, data.survey, scaling, fill, seed, device)
    return Start(model, fresh_memory(seed, data.ranks), checkpoint)


def _common_key(
    given: Any,
    data: Data,
    device: torch.device,
    scaling: AnyScaling,
    fill: FillMissing,
) -> list[Any]:
    """Return what every checkpoint depends on, in an order that files of earlier versions have."""
    parameters = given.get_params(deep=False)
    return [
        type(given),
        {name: parameters[name] for name in parameters if name not in _NOT_IN_KEY},
        device.type,
        digest_of_rows(data.rows),
        data.y,
        scaling,
        fill,
        *([] if data.table is None else [[column.levels for column in data.table.columns]]),
    ]


def build(
    given: Any,
    data: Data | None,
    survey: Survey,
    scaling: AnyScaling,
    fill: FillMissing,
    seed: int,
    device: torch.device,
) -> Model:
    """Return a model with first weights; without `data`, rows of a stream, none come from PCA."""
    n_features = len(fill.values)
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
    elif isinstance(network, Network):
        network = clone(network)
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
    if isinstance(scaling, TableScaling) and isinstance(network, DenseNetwork):
        start_at_shares(decoder, scaling)
    with global_seed(seed, network):
        cost = cost_per_row(nn.Sequential(encoder, decoder), n_features)
    return Model(
        encoder, decoder, scaling, fill, given.loss, network, cost, seed, built_from(given)
    )


def start_at_shares(decoder: nn.Module, scaling: TableScaling) -> None:
    """Add the logits of the levels' shares to the last bias."""
    last: Any = [layer for layer in decoder.modules() if isinstance(layer, nn.Linear)][-1]
    with torch.no_grad():
        last.bias[scaling.n_numbers :] += scaling.share.log().to(last.bias)


def _resolve_init(given: Any, scaling: AnyScaling, n_features: int, *, has_rows: bool) -> str:
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
    scaling: AnyScaling
    if isinstance(model.scaling, TableScaling):
        scaling = extend_table_scaling(model.scaling, survey)
    else:
        scaling = extend_scaling(model.scaling, survey)
    _check_loss_range(given, scaling)
    return replace(model, scaling=scaling, loss=given.loss)


def row_batches(
    given: Any,
    scaling: AnyScaling,
    device: torch.device,
    data: Data,
    rows: np.ndarray | None,
    **settings: Any,
) -> RowBatches:
    """Return batches of some rows of the data."""
    return RowBatches(
        data.rows,
        place_scaling(scaling, device),
        **{"batch_size": given.batch_size, **settings},
        device=device,
        dtype=PRECISIONS[given.precision],
        rows=rows,
    )


def resolve_principal_components(
    shape: tuple[int, int], regularizers: Sequence[Regularizer]
) -> int | None:
    """How many principal components of X the default network reads; None for all columns."""
    asked = [regularizer.n_principal_components for regularizer in regularizers]
    most = min([Regularizer.n_principal_components, *asked])
    n_rows, n_features = shape
    enough = most * _COLUMNS_PER_COMPONENT <= n_features and most * _ROWS_PER_COMPONENT <= n_rows
    return int(most) if enough else None
