"""Saving and loading of fitted transformers.

Nothing in a file is imported or run: its document can only name classes of this library.
"""

from __future__ import annotations

import math
import os
import platform
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import numpy as np
import safetensors
import sklearn
import torch
from sklearn.base import clone
from torch import nn

from aefeatures._files import count, read_file, reason, short, typed, write_file
from aefeatures._nets.losses import LOSSES
from aefeatures._nets.model import Model
from aefeatures._nets.networks import (
    BuildSpec,
    ConvNetwork,
    Cost,
    DenseNetwork,
    FillMissing,
    Network,
    Pair,
    build_network,
    layer_widths,
    plain,
)
from aefeatures._nets.regularizers import REGULARIZERS
from aefeatures._rows.labels import TASKS
from aefeatures._rows.scaling import Scaling
from aefeatures._rows.table_scaling import AnyScaling, TableScaling
from aefeatures._rows.tables import KINDS, Column, Levels, Table, set_table, table_of
from aefeatures._sklearn import output_container, parameter_names
from aefeatures._torch.devices import (
    PRECISIONS,
    resolve_device,
    resolve_saved_device,
    settle_after_fork,
)
from aefeatures._train.starting import Memory
from aefeatures._version import __version__

E = TypeVar("E")

_PARTS = ("encoder", "decoder", "scaling", "fill")
# Parameters that a file must not set, because it may come from anyone.
_NEVER_SAVED = ("checkpoint",)

_OBJECTS: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (DenseNetwork, ConvNetwork, *REGULARIZERS.values())
}
# Types of levels, and how they are read from text. A boolean is also an integer in Python.
_LEVELS: dict[type, Callable[[str], Any]] = {
    bool: {"False": False, "True": True}.__getitem__,
    int: int,
    float: float,
    str: str,
}
# Most columns times levels of a table in a small file. The scaling takes memory for each.
_SMALL_TABLE = 2**21
_NUMPY_DTYPES = {np.dtype(code).name for code in "?bhilqBHILQefd"}


class Owner(NamedTuple):
    """Estimator that holds a transformer, as it is saved in the file of the transformer.

    Attributes
    ----------
    kind : str
        Name of its class.
    document : dict
        All that is no array, as JSON can hold it; see `encode`.
    arrays : dict of ndarray
    """

    kind: str
    document: dict[str, Any]
    arrays: dict[str, np.ndarray]


def save_model(
    estimator: Any,
    model: Model,
    memory: Memory,
    path: str | os.PathLike[str],
    owner: Owner | None = None,
) -> None:
    """Write a fitted `AutoencoderTransformer`, and its owner, to a file; see its `save`."""
    document, arrays = _document(estimator, model, memory), _arrays(estimator, model)
    if owner is not None:
        document["owner"] = {"kind": owner.kind, **owner.document}
        arrays |= {f"owner.{name}": array for name, array in owner.arrays.items()}
    table = table_of(estimator)
    if table is None:
        write_file(path, document, arrays)
    else:
        document["table"] = _pack_table(table, arrays)
        write_file(path, document, arrays, format_=2)


def load_model(
    cls: type[E],
    path: str | os.PathLike[str],
    device: str | torch.device,
    network: Any,
    kind: str | None = None,
) -> tuple[E, Model, Memory, Owner | None]:
    """Return the estimator in a file of `save_model`, its model, its memory, and its owner.

    The other attributes of the fit are set. The owner must be of a `kind`, and there must be none
    if that is None. See `AutoencoderTransformer.load`.
    """
    settle_after_fork()
    document, arrays = read_file(path)
    own_network = document.get("own_network")
    if own_network is not None and network is None:
        raise ValueError(
            f"{os.fspath(path)} was fitted with the custom network {short(own_network)}, which "
            "files do not contain. Pass the network again: load(path, network=...)."
        )
    if own_network is None and network is not None:
        raise ValueError(
            f"{os.fspath(path)} contains its network, got network={short(network)}. Leave network "
            "out."
        )
    try:
        owner = _owner(document, arrays, kind)
        with torch.inference_mode(False):  # tensors made in inference mode cannot be trained
            estimator: Any = _estimator(cls, document, network)
            memory = _memory(document)
            # Files of numbers have no table.
            table = _unpack_table(document, arrays) if "table" in document else None
            set_table(estimator, table)
            model = _model(document, arrays, network, table)
            _set_record(estimator, model, document, arrays)
            if arrays:
                raise ValueError(f"it has unknown arrays: {short(sorted(arrays))}.")
            if document["output"] is not None:
                estimator.set_output(transform=typed(document, "output", str))
            estimator.device_ = resolve_saved_device(estimator.device)
    except Exception as error:
        # Whatever error a file causes, the file is wrong.
        raise ValueError(f"{os.fspath(path)} cannot be loaded: {reason(error)}") from error
    if not (isinstance(device, str) and device == "auto"):
        estimator.device, estimator.device_ = device, resolve_device(device)
    return estimator, model, memory, owner


# From an estimator to a document and arrays


def _document(estimator: Any, model: Model, memory: Memory) -> dict[str, Any]:
    network = model.network
    own = [
        each
        for each in (network, estimator.network, model.built_from["network"])
        if each is not None and type(each) not in _OBJECTS.values()
    ]
    parameters = estimator.get_params(deep=False).items()
    if not isinstance(model.loss, str):
        encode(model.loss, "loss")  # raises
    state = memory.rng.bit_generator.state
    return {
        "versions": {
            "aefeatures": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "safetensors": safetensors.__version__,
            "scikit-learn": sklearn.__version__,
            "torch": torch.__version__,
        },
        "parameters": {
            name: encode(value, name, own) for name, value in parameters if name not in _NEVER_SAVED
        },
        "network": encode(network, "network", own),
        "own_network": getattr(own[0], "__qualname__", type(own[0]).__name__) if own else None,
        "built_from": {name: encode(value, name, own) for name, value in model.built_from.items()},
        "bounded": model.scaling.bounded,
        "common": model.scaling.common,
        "fitted_loss": model.loss,
        "learns_missing": memory.learns_missing,
        "width": model.cost.width,
        "multiply_adds": model.cost.multiply_adds,
        "max_epochs_": getattr(estimator, "max_epochs_", None),
        "task_": getattr(estimator, "task_", None),
        "frozen": [
            name
            for name, parameter in _parameters(model.encoder, model.decoder)
            if not parameter.requires_grad
        ],
        "n_iter_": estimator.n_iter_,
        "n_steps_": estimator.n_steps_,
        "_seed": model.seed,
        "rng": [
            state["state"]["state"],
            state["state"]["inc"],
            state["has_uint32"],
            state["uinteger"],
        ],
        "output": output_container(estimator),
    }


def _arrays(estimator: Any, model: Model) -> dict[str, np.ndarray]:
    arrays = {"loss_curve": np.asarray(estimator.loss_curve_, np.float64)}
    if estimator.validation_loss_curve_ is not None:
        arrays["validation_loss_curve"] = np.asarray(estimator.validation_loss_curve_, np.float64)
    if hasattr(estimator, "feature_names_in_"):
        joined = _joined(estimator.feature_names_in_)
        arrays["feature_names"], arrays["feature_name_lengths"] = joined
    for part, module in zip(_PARTS, model.modules, strict=True):
        for name, tensor in module.state_dict().items():
            if not isinstance(tensor, torch.Tensor):
                raise ValueError(
                    f"The {part} has an extra state {name!r} of type {type(tensor).__name__}, but "
                    "save stores only tensors. Use pickle or joblib for this model."
                )
            arrays[f"{part}.{name}"] = tensor.detach().cpu().numpy()
    return arrays


# From a document and arrays to an estimator. Each function removes the arrays that it uses.


def _owner(
    document: dict[str, Any], arrays: dict[str, np.ndarray], kind: str | None
) -> Owner | None:
    content = typed(document, "owner", dict) if "owner" in document else {}
    found = content.get("kind")
    if found != kind:
        raise ValueError(
            f"it contains {short(found or 'AutoencoderTransformer')}, not "
            f"{kind or 'AutoencoderTransformer'!r}; call `load` of the class that saved it."
        )
    if kind is None:
        return None
    names = [name for name in arrays if name.startswith("owner.")]
    return Owner(kind, content, {name.removeprefix("owner."): arrays.pop(name) for name in names})


def _estimator(cls: type[E], document: dict[str, Any], own: Any) -> E:
    """Return an unfitted estimator with the parameters of the document."""
    parameters = {
        name: decode(value, own) for name, value in typed(document, "parameters", dict).items()
    }
    unknown = set(parameters).difference(set(parameter_names(cls)).difference(_NEVER_SAVED))
    if unknown:
        version = typed(document, "versions", dict).get("aefeatures")
        raise ValueError(
            f"it has parameters that {cls.__name__} does not have: {short(sorted(unknown))}. It "
            f"was saved by aefeatures {short(version)}, this is aefeatures {__version__}."
        )
    return cls(**parameters)


def _memory(document: dict[str, Any]) -> Memory:
    return Memory(
        _generator(typed(document, "rng", list)),
        count(document, "n_steps_"),
        typed(document, "learns_missing", bool),
    )


def _model(
    document: dict[str, Any], arrays: dict[str, np.ndarray], own: Any, table: Table | None
) -> Model:
    built_from = {
        name: decode(value, own) for name, value in typed(document, "built_from", dict).items()
    }
    n_components = typed(built_from, "n_components", int)
    dtype = PRECISIONS[typed(built_from, "precision", str)]
    n_bytes = sum(array.nbytes for array in arrays.values())
    if not 0 < n_components <= n_bytes:  # a larger network would only exhaust the memory
        raise ValueError(f"{n_components} components do not fit in {n_bytes} bytes of arrays.")
    fill = FillMissing(_tensor(arrays.pop("fill.values")))
    if fill.values.dim() != 1 or fill.values.dtype != dtype:
        raise ValueError(
            f"fill.values should be {dtype} of shape (n_features,), got "
            f"{_dtype_and_shape(fill.values)}."
        )
    n_features = len(fill.values)
    if table is None:
        scaling: AnyScaling = _scaling(document, arrays, n_features)
    else:
        scaling = _table_scaling(document, arrays, table, n_features)
    network = decode(document["network"], own)
    if isinstance(built_from["network"], str):  # as older versions saved it
        built_from["network"] = network
    seed = count(document, "_seed")
    spec = BuildSpec(scaling.bounded, dtype, torch.Generator("cpu").manual_seed(seed))
    encoder, decoder = _rebuild_network(
        network, n_features, n_components, spec, arrays, is_own=own is not None and network is own
    )
    if "frozen" in document:  # older files lack it
        frozen = typed(document, "frozen", list)
        for name, parameter in _parameters(encoder, decoder):
            parameter.requires_grad_(name not in frozen)
    # The file tells the cost. Measuring it would take time, and memory of any size in a bad file.
    cost = Cost(*(count(document, name) for name in ("width", "multiply_adds")))
    if cost.width < max(n_features, n_components):
        raise ValueError(
            f"width should be at least {max(n_features, n_components)}, got {cost.width}."
        )
    loss = typed(document, "fitted_loss", str)
    if loss not in LOSSES:
        raise ValueError(f"unknown loss {short(loss)}.")
    network = clone(network) if isinstance(network, Network) else network
    return Model(encoder, decoder, scaling, fill.eval(), loss, network, cost, seed, built_from)


def _scaling(
    document: dict[str, Any],
    arrays: dict[str, np.ndarray],
    n_features: int,
    prefix: str = "scaling",
) -> Scaling:
    statistics = {name: arrays.pop(f"{prefix}.{name}") for name in ("offset", "scale")}
    if f"{prefix}.spread" in arrays:  # files of earlier versions lack spread and center
        statistics |= {name: arrays.pop(f"{prefix}.{name}") for name in ("center", "spread")}
    for name, array in statistics.items():
        shapes = [(n_features,)] if name in ("center", "spread") else [(), (n_features,)]
        if array.shape not in shapes or array.dtype != np.float64:
            raise ValueError(
                f"{prefix}.{name} should be float64 of shape {' or '.join(map(str, shapes))}, got "
                f"{_dtype_and_shape(array)}."
            )
    common = "common" in document and typed(document, "common", bool)
    tensors = {name: _tensor(array) for name, array in statistics.items()}
    return Scaling(**tensors, bounded=typed(document, "bounded", bool), common=common)


def _table_scaling(
    document: dict[str, Any], arrays: dict[str, np.ndarray], table: Table, n_outputs: int
) -> TableScaling:
    shares = table.shares()
    sizes = [1 if share is None else len(share) for share in shares]
    if sum(sizes) != n_outputs:
        raise ValueError(f"the columns of the table take {sum(sizes)} numbers, not {n_outputs}.")
    n_bytes = sum(array.nbytes for array in arrays.values())
    if max(sizes) * len(sizes) > max(_SMALL_TABLE, n_bytes):
        raise ValueError(f"{len(sizes)} columns of up to {max(sizes)} levels do not fit in a file.")
    n_numbers = sum(share is None for share in shares)
    return TableScaling(_scaling(document, arrays, n_numbers, "scaling.numbers"), shares)


def _set_record(
    estimator: Any, model: Model, document: dict[str, Any], arrays: dict[str, np.ndarray]
) -> None:
    """Set the public attributes of a fit."""
    for name in ("n_iter_", "n_steps_"):
        setattr(estimator, name, count(document, name))
    if isinstance(model.network, DenseNetwork):
        widths = layer_widths("hidden_layer_sizes", model.network.hidden_layer_sizes)
        estimator.hidden_layer_sizes_ = tuple(widths)
    if document["max_epochs_"] is not None:
        estimator.max_epochs_ = count(document, "max_epochs_")
    estimator.task_ = document.get("task_")  # files of earlier versions have no task
    if estimator.task_ not in (None, *TASKS[1:]):
        raise ValueError(f"unknown task {short(estimator.task_)}.")
    estimator.loss_curve_ = _curve(arrays.pop("loss_curve"))
    validation = arrays.pop("validation_loss_curve", None)
    estimator.validation_loss_curve_ = None if validation is None else _curve(validation)
    estimator.loss_ = estimator.loss_curve_[-1]
    estimator.best_loss_ = min(estimator.validation_loss_curve_ or estimator.loss_curve_)
    if (table := table_of(estimator)) is not None:
        estimator.__dict__.update(table.attributes())
    estimator.n_features_in_ = model.n_features
    if "feature_names" in arrays:
        estimator.feature_names_in_ = _feature_names(
            arrays.pop("feature_names"), arrays.pop("feature_name_lengths"), model.n_features
        )


def _rebuild_network(
    network: Any,
    n_features: int,
    n_components: int,
    spec: BuildSpec,
    arrays: dict[str, np.ndarray],
    *,
    is_own: bool,
) -> Pair:
    """Build the encoder and the decoder, and load their arrays into them."""
    if isinstance(network, Network) and not is_own:
        deepest = max(np.size(value) for value in network.get_params().values())
        if deepest > len(arrays):  # more layers would only exhaust the memory
            raise ValueError(f"{deepest} layers cannot be built from {len(arrays)} arrays.")
    elif not is_own:
        raise ValueError(f"network should be a network of this library, got {short(network)}.")
    # The library's own networks need no memory until their shapes match those of the arrays.
    spec = replace(spec, device="cpu" if is_own else "meta")
    encoder, decoder = build_network(network, n_features, n_components, spec=spec)
    for part, module in (("encoder", encoder), ("decoder", decoder)):
        _restore(part, module, arrays, assign=not is_own)
    return encoder, decoder


def _restore(part: str, module: nn.Module, arrays: dict[str, np.ndarray], *, assign: bool) -> None:
    """Load the arrays of a part into its module, which must have the same names and shapes."""
    names = [name for name in arrays if name.startswith(f"{part}.")]
    loaded = {name.removeprefix(f"{part}."): arrays.pop(name) for name in names}
    expected = module.state_dict()
    if loaded.keys() != expected.keys():
        raise ValueError(
            f"the {part} of the network has the arrays {short(sorted(expected))}, but the file has "
            f"{short(sorted(loaded))}."
        )
    tensors = {name: _tensor(array) for name, array in loaded.items()}
    for name in expected:  # a file may have them in another order
        tensor = tensors[name]
        if tensor.shape != expected[name].shape or tensor.dtype != expected[name].dtype:
            raise ValueError(
                f"{part}.{name} should be {_dtype_and_shape(expected[name])}, got "
                f"{_dtype_and_shape(tensor)}."
            )
    module.load_state_dict(tensors, assign=assign)
    module.eval()


def _parameters(encoder: nn.Module, decoder: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Return the parameters of the network, with names such as "encoder.weight"."""
    return [
        (f"{part}.{name}", parameter)
        for part, module in (("encoder", encoder), ("decoder", decoder))
        for name, parameter in module.named_parameters()
    ]


def _tensor(array: np.ndarray) -> torch.Tensor:
    # A copy is aligned as PyTorch does it. The rounding of products may depend on alignment.
    return torch.from_numpy(array).clone()


def _curve(array: np.ndarray) -> list[float]:
    if array.dtype != np.float64 or array.ndim != 1 or len(array) == 0:
        raise ValueError(
            f"a loss curve should be float64 of shape (n_iter,), got {_dtype_and_shape(array)}."
        )
    curve: list[float] = array.tolist()
    return curve


def _feature_names(text: np.ndarray, lengths: np.ndarray, n_features: int) -> np.ndarray:
    names = _texts(text, lengths)
    if names is None or len(names) != n_features:
        raise ValueError(f"the feature names are not those of {n_features} columns.")
    return np.array(names, dtype=object)


def _joined(texts: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return texts as the array of their bytes, and an array of their lengths."""
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    lengths = np.array([*map(len, encoded)], np.int64)
    return np.frombuffer(b"".join(encoded), np.uint8), lengths


def _texts(joined: np.ndarray, lengths: np.ndarray) -> list[str] | None:
    """Return the texts that `_joined` was given, or None if the arrays do not fit together."""
    if (
        lengths.ndim != 1
        or lengths.dtype != np.int64
        or joined.dtype != np.uint8
        or (lengths < 0).any()
        or (lengths > joined.size).any()  # their sum cannot overflow then
    ):
        return None
    ends = np.cumsum(lengths).tolist()
    if not ends or ends[-1] != joined.size:
        return None
    data = joined.tobytes()
    return [
        data[end - length : end].decode("utf-8", "surrogatepass")
        for end, length in zip(ends, lengths.tolist(), strict=True)
    ]


def _generator(state: list[Any]) -> np.random.Generator:
    generator = np.random.default_rng(0)
    names = ("state", "inc", "has_uint32", "uinteger")
    if len(state) != len(names):
        raise ValueError(f"rng should hold {', '.join(names)}, got {short(state)}.")
    numbers = dict(zip(names, state, strict=True))
    counts = {name: count(numbers, name, 2**128) for name in names}
    generator.bit_generator.state = {**counts, "bit_generator": "PCG64", "state": counts}
    return generator


# Tables. All their texts (names, then the levels of each column) are in one array, because they
# grow with the data.


def _pack_table(table: Table, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return a table as JSON, and add its arrays."""
    texts = [str(column.name) for column in table.columns]
    columns = []
    for column in table.columns:
        dtype, levels = column.dtype, None
        if isinstance(dtype, list):
            known, kind, ordered = dtype
            packed = _pack_levels(column.name, known, texts)
            dtype = {"levels": packed, "kind": kind, "ordered": ordered}
        if column.levels is not None:
            levels = _pack_levels(column.name, column.levels.all, texts)
        packed_column = {"kind": column.kind, "dtype": dtype, "step": column.step, "levels": levels}
        if isinstance(column.name, int):
            packed_column["numbered"] = True
        columns.append(packed_column)
    arrays["table.texts"], arrays["table.text_lengths"] = _joined(texts)
    levels_ = [column.levels for column in table.columns if column.levels is not None]
    for name in ("counts", "codes"):
        parts = [np.asarray(getattr(each, name), np.int64) for each in levels_]
        arrays[f"table.{name}"] = np.concatenate([np.empty(0, np.int64), *parts])
    return {"library": table.library, "columns": columns}


def _pack_levels(name: str | int, levels: list[Any], texts: list[str]) -> list[Any]:
    """Return type and number of levels, and add them to the texts."""
    found = [next((k for k in _LEVELS if isinstance(plain(each), k)), None) for each in levels]
    if None in found or len(set(found)) > 1:
        level = levels[found.index(None)] if None in found else levels[0]
        raise ValueError(
            f"Column {name!r} has levels such as {short(level)} ({type(level).__name__}), which "
            "cannot be saved: save stores levels that are texts, integers, floats or booleans, and "
            "of one type in a column. Use pickle or joblib for this model."
        )
    kind: Any = found[0] if found else str
    texts += [str(kind(plain(each))) for each in levels]
    return [kind.__name__, len(levels)]


def _unpack_table(document: dict[str, Any], arrays: dict[str, np.ndarray]) -> Table:
    given = typed(document, "table", dict)
    library, columns = typed(given, "library", str), typed(given, "columns", list)
    if library not in ("pandas", "polars", "numpy"):
        raise ValueError(f"unknown library {short(library)}.")
    pool = _texts(arrays.pop("table.texts"), arrays.pop("table.text_lengths"))
    if pool is None or len(pool) < len(columns):
        raise ValueError(f"the texts of the table are not those of {len(columns)} columns.")
    texts = iter(pool)
    names = [*islice(texts, len(columns))]
    entries = arrays.pop("table.counts"), arrays.pop("table.codes")
    if any(each.ndim != 1 or each.dtype != np.int64 for each in entries):
        raise ValueError("the counts and codes of levels should be int64 of shape (n_levels,).")
    unpacked, start = [], 0
    for name, column in zip(names, columns, strict=True):
        if type(column) is not dict:
            raise ValueError(f"a column should be a dict, got {short(column)}.")
        dtype = _unpack_dtype(column.get("dtype"), texts)
        levels = None
        if column.get("levels") is not None:
            all_ = _unpack_levels(column["levels"], texts)
            end = start + len(all_)
            levels = Levels(all_, *(each[start:end].astype(np.intp) for each in entries))
            _check_levels(name, levels)
            start = end
        kind, step = typed(column, "kind", str), typed(column, "step", float)
        named = int(name) if column.get("numbered") is True else name
        unpacked.append(_checked(Column(named, kind, dtype, levels, step)))
    if next(texts, None) is not None or any(len(each) != start for each in entries):
        raise ValueError("the table has texts, counts or codes that belong to no column.")
    return Table(library, unpacked)


def _unpack_dtype(dtype: Any, texts: Iterator[str]) -> Any:
    if type(dtype) is dict:
        known = _unpack_levels(dtype.get("levels"), texts)
        kind = _unpack_dtype(typed(dtype, "kind", str), texts)
        return [known, kind, typed(dtype, "ordered", bool)]
    # A type such as U1000000000 would only exhaust the memory.
    if type(dtype) is not str or len(dtype) > 1000 or re.search(r"\d{7}", dtype):
        raise ValueError(f"unknown type of column {short(dtype)}.")
    return dtype


def _unpack_levels(packed: Any, texts: Iterator[str]) -> list[Any]:
    kinds = {kind.__name__: read for kind, read in _LEVELS.items()}
    if type(packed) is not list or len(packed) != 2 or packed[0] not in kinds:
        raise ValueError(f"levels should be their type and number, got {short(packed)}.")
    n_levels = count({"number of levels": packed[1]}, "number of levels")
    levels = [kinds[packed[0]](text) for text in islice(texts, n_levels)]
    if len(levels) != n_levels or any(each != each for each in levels):
        raise ValueError(f"{n_levels} levels should be given, got {len(levels)}.")
    return levels


def _check_levels(name: str, levels: Levels) -> None:
    n, codes = len(levels.all), levels.codes
    if len(codes) != n or len(levels.counts) != n or len(set(levels.all)) != n:
        raise ValueError(f"column {short(name)} should have {n} different levels with their codes.")
    if (levels.counts < 1).any() or levels.counts.sum(dtype=np.float64) > 2**62:
        raise ValueError(f"column {short(name)} has counts of levels that are out of range.")
    in_range = ((codes >= 0) & (codes < n)).all()
    # Grouped levels share the last code.
    if not in_range or (np.bincount(codes, minlength=1)[: levels.n_codes - 1] != 1).any():
        raise ValueError(f"column {short(name)} has codes of levels that are out of range.")


def _checked(column: Column) -> Column:
    if column.kind not in KINDS or (column.kind == "category") != (column.levels is not None):
        raise ValueError(f"unknown kind of column {short(column.kind)}.")
    if not 0 <= column.step <= 1e9:
        raise ValueError(f"step should be a number of seconds, got {short(column.step)}.")
    known = column.dtype[0] if isinstance(column.dtype, list) else None
    if known and column.levels is not None and not set(known).issuperset(column.levels.all):
        raise ValueError(f"column {short(column.name)} has levels that its type lacks.")
    return column


# From values of parameters to JSON, and back


def encode(value: Any, name: str, own: Iterable[Any] = ()) -> Any:
    """Return a parameter's value as JSON.

    A type that JSON lacks becomes an object with one key, the name of the type.
    """
    if any(value is each for each in own):
        return {"own_network": None}
    value = plain(value)
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": repr(float(value))}
    if isinstance(value, (list, tuple)):
        items = [encode(item, name) for item in value]
        return items if isinstance(value, list) else {"tuple": items}
    if isinstance(value, np.ndarray) and value.dtype.name in _NUMPY_DTYPES:
        return {"array": [value.dtype.name, encode(value.tolist(), name)]}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    if isinstance(value, np.random.RandomState):
        state = value.get_state(legacy=False)
        if state["bit_generator"] == "MT19937":
            keys, position = state["state"]["key"].tolist(), int(state["state"]["pos"])
            return {"RandomState": [keys, position, state["has_gauss"], float(state["gauss"])]}
    if _OBJECTS.get(type(value).__name__) is type(value):
        parameters = value.get_params(deep=False)
        return {
            type(value).__name__: {
                key: encode(item, f"{name}__{key}") for key, item in parameters.items()
            }
        }
    raise ValueError(
        f"{name}={short(value)} cannot be saved: save stores no code, only numbers, strings, None, "
        f"lists, tuples, arrays and {', '.join(_OBJECTS)}. Use pickle or joblib for this model."
    )


def decode(value: Any, own: Any = None) -> Any:
    """Return the value that `encode` turned into JSON."""
    if isinstance(value, list):
        return [decode(item, own) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise ValueError(f"unknown kind of value: {short(value)}.")
    ((kind, content),) = value.items()
    if kind == "own_network":
        return own
    if kind in _OBJECTS and isinstance(content, dict):
        return _OBJECTS[kind](**{key: decode(item) for key, item in content.items()})
    if kind in _DECODERS:
        return _DECODERS[kind](content)
    raise ValueError(f"unknown kind of value: {short(value)}.")


def _decode_array(content: Any) -> np.ndarray:
    name, values = content
    if name not in _NUMPY_DTYPES:
        raise ValueError(f"unknown dtype {short(name)}.")
    return np.array(decode(values), dtype=name)


def _decode_number(content: Any) -> Any:
    array = _decode_array(content)
    if array.ndim:
        raise ValueError(f"a number should have shape (), got shape {array.shape}.")
    return array[()]


def _decode_random_state(content: Any) -> np.random.RandomState:
    keys, position, *rest = decode(content)
    if len(keys) != 624 or not 0 <= position <= 624:
        raise ValueError("the random state is not a state of the Mersenne twister.")
    random_state = np.random.RandomState(0)
    random_state.set_state(("MT19937", np.array(keys, np.uint32), position, *rest))
    return random_state


def _decode_float(content: Any) -> float:
    return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[content]


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "tuple": lambda content: tuple(decode(content)),
    "float": _decode_float,
    "numpy": _decode_number,  # from older versions
    "array": _decode_array,
    "device": lambda content: torch.device(str(content)),
    "RandomState": _decode_random_state,
}


def _dtype_and_shape(array: np.ndarray | torch.Tensor) -> str:
    return f"{array.dtype} of shape {tuple(array.shape)}"
