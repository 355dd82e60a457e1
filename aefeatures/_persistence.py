"""Models as files: arrays and a JSON document in one safetensors file, and no code.

The metadata of the file hold one entry, "aefeatures": the document as a string, which begins
with a digest of the whole file (computed with zeros in the digest's place), the number of the
format and the first version of aefeatures that reads it. These three stay where they are in
every format to come, so that an older version can say what it needs. What grows with the data
or the epochs (feature names, loss curves) is kept as arrays: the header stays small, and a
limit on its size keeps a bad one from costing time and memory.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import re
import secrets
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors
import safetensors.numpy
import sklearn
import torch
from sklearn.base import clone
from torch import nn

from aefeatures._device import (
    PRECISIONS,
    resolve_device,
    resolve_saved_device,
    settle_after_fork,
)
from aefeatures._labels import TASKS
from aefeatures._losses import LOSSES
from aefeatures._networks import (
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
from aefeatures._regularizers import REGULARIZERS
from aefeatures._scaling import Scaling
from aefeatures._version import __version__

E = TypeVar("E")

FORMAT = 1
# The first version that reads FORMAT: what an older one tells its user to install.
_NEEDS = "0.1.0"

_KEY = "aefeatures"
_START = b'{"__metadata__":{"' + _KEY.encode() + b'":"{\\"digest\\":\\"'
_NO_DIGEST = "0" * 64
# Python's objects for the worst JSON of this size take 60 MB.
_MAX_HEADER = 2**21

_PARTS = ("encoder", "decoder", "scaling", "fill")
# Not for a file to choose: it may come from anyone.
_NOT_KEPT = ("checkpoint",)
_COUNTS = ("n_iter_", "n_steps_", "_seed")

_OBJECTS: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (DenseNetwork, ConvNetwork, *REGULARIZERS.values())
}
_NUMPY_DTYPES = {np.dtype(code).name for code in "?bhilqBHILQefd"}


def save_model(estimator: Any, path: str | os.PathLike[str]) -> None:
    """Write a fitted `AutoencoderTransformer`; see its `save`."""
    write_file(path, *_describe(estimator))


def load_model(
    cls: type[E], path: str | os.PathLike[str], device: str | torch.device, network: Any
) -> E:
    """Return the `cls` that a file of `save_model` holds; see `AutoencoderTransformer.load`."""
    settle_after_fork()
    document, arrays = read_file(path)
    own_network = document.get("own_network")
    if own_network is not None and network is None:
        raise ValueError(
            f"{os.fspath(path)} was fitted with a network of its user's own, "
            f"{_short(own_network)}, which no file holds. Give it again: load(path, network=...)."
        )
    if own_network is None and network is not None:
        raise ValueError(
            f"{os.fspath(path)} holds its network. Leave out network, got {_short(network)}."
        )
    try:
        with torch.inference_mode(False):  # tensors made in it could not be trained
            estimator: Any = _rebuild(cls, document, arrays, network)
    except Exception as error:
        # Whatever a file asks for, it is the file that is wrong.
        raise ValueError(f"{os.fspath(path)} cannot be loaded: {_reason(error)}") from error
    if not (isinstance(device, str) and device == "auto"):
        estimator.device, estimator.device_ = device, resolve_device(device)
    return estimator


# The estimator as a document and arrays, and back


def _describe(estimator: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    network = estimator._network
    own = [
        each
        for each in (network, estimator.network, estimator._built_from["network"])
        if each is not None and type(each) not in _OBJECTS.values()
    ]
    parameters = {
        name: _encode(value, name, own)
        for name, value in estimator.get_params(deep=False).items()
        if name not in _NOT_KEPT
    }
    if not isinstance(estimator._fitted_loss, str):
        _encode(estimator._fitted_loss, "loss")  # raises
    generator = estimator._rng.bit_generator.state
    document = {
        "versions": {
            "aefeatures": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "safetensors": safetensors.__version__,
            "scikit-learn": sklearn.__version__,
            "torch": torch.__version__,
        },
        "parameters": parameters,
        "network": _encode(network, "network", own),
        "own_network": getattr(own[0], "__qualname__", type(own[0]).__name__) if own else None,
        "built_from": {
            name: _encode(value, name, own) for name, value in estimator._built_from.items()
        },
        "bounded": estimator._scaling.bounded,
        "common": estimator._scaling.common,
        "fitted_loss": estimator._fitted_loss,
        "learns_missing": estimator._learns_missing,
        "width": estimator._cost.width,
        "multiply_adds": estimator._cost.multiply_adds,
        "max_epochs_": getattr(estimator, "max_epochs_", None),
        "task_": getattr(estimator, "task_", None),
        "frozen": [
            name
            for name, parameter in _parameters(estimator.__dict__)
            if not parameter.requires_grad
        ],
        **{name: getattr(estimator, name) for name in _COUNTS},
        "rng": [
            generator["state"]["state"],
            generator["state"]["inc"],
            generator["has_uint32"],
            generator["uinteger"],
        ],
        "output": getattr(estimator, "_sklearn_output_config", {}).get("transform"),
    }
    fitted = estimator.__dict__
    modules = (fitted["encoder_"], fitted["decoder_"], estimator._scaling, estimator._fill)
    arrays = {"loss_curve": np.asarray(estimator.loss_curve_, np.float64)}
    if estimator.validation_loss_curve_ is not None:
        arrays["validation_loss_curve"] = np.asarray(estimator.validation_loss_curve_, np.float64)
    if hasattr(estimator, "feature_names_in_"):
        names = [name.encode("utf-8", "surrogatepass") for name in estimator.feature_names_in_]
        arrays["feature_names"] = np.frombuffer(b"".join(names), np.uint8)
        arrays["feature_name_lengths"] = np.array([*map(len, names)], np.int64)
    for part, module in zip(_PARTS, modules, strict=True):
        for name, tensor in module.state_dict().items():
            if not isinstance(tensor, torch.Tensor):
                raise ValueError(
                    f"The {part} has an extra state {name!r}, a {type(tensor).__name__}, which "
                    "save cannot store: it stores tensors. Use pickle or joblib for this model."
                )
            arrays[f"{part}.{name}"] = tensor.detach().cpu().numpy()
    return document, arrays


def _rebuild(cls: type[E], document: dict[str, Any], arrays: dict[str, np.ndarray], own: Any) -> E:
    parameters = {
        name: _decode(value, own) for name, value in _typed(document, "parameters", dict).items()
    }
    known = set(cls._get_param_names()).difference(_NOT_KEPT)  # type: ignore[attr-defined]
    unknown = set(parameters).difference(known)
    if unknown:
        version = _typed(document, "versions", dict).get("aefeatures")
        raise ValueError(
            f"it has parameters that {cls.__name__} does not: {_short(sorted(unknown))}. It was "
            f"saved by aefeatures {_short(version)}, this is {__version__}."
        )
    estimator: Any = cls(**parameters)
    built_from = {
        name: _decode(value, own) for name, value in _typed(document, "built_from", dict).items()
    }
    n_components = _typed(built_from, "n_components", int)
    dtype = PRECISIONS[_typed(built_from, "precision", str)]
    bounded = _typed(document, "bounded", bool)
    for name in _COUNTS:
        setattr(estimator, name, _count(document, name))

    n_bytes = sum(array.nbytes for array in arrays.values())
    if not 0 < n_components <= n_bytes:  # before a callable is asked for so many
        raise ValueError(f"{n_components} components are asked for, in {n_bytes} bytes of arrays.")
    fill = FillMissing(_tensor(arrays.pop("fill.values")))
    if fill.values.dim() != 1 or fill.values.dtype != dtype:
        raise ValueError(
            f"fill.values should be {dtype} of shape (n_features,), got {_kind(fill.values)}."
        )
    n_features = len(fill.values)
    statistics = {name: arrays.pop(f"scaling.{name}") for name in ("offset", "scale")}
    if "scaling.spread" in arrays:  # files of earlier versions lack both
        statistics |= {name: arrays.pop(f"scaling.{name}") for name in ("center", "spread")}
    for name, array in statistics.items():
        shapes = [(n_features,)] if name in ("center", "spread") else [(), (n_features,)]
        if array.shape not in shapes or array.dtype != np.float64:
            raise ValueError(
                f"scaling.{name} should be float64 of shape {' or '.join(map(str, shapes))}, got "
                f"{_kind(array)}."
            )
    common = "common" in document and _typed(document, "common", bool)
    tensors = {name: _tensor(array) for name, array in statistics.items()}
    scaling = Scaling(**tensors, bounded=bounded, common=common)

    network = _decode(document["network"], own)
    if isinstance(built_from["network"], str):  # how older versions wrote down its parameters
        built_from["network"] = network
    spec = BuildSpec(bounded, dtype, torch.Generator("cpu").manual_seed(estimator._seed))
    encoder, decoder = _rebuild_network(
        network, n_features, n_components, spec, arrays, is_own=own is not None and network is own
    )
    estimator.__dict__.update(encoder_=encoder, decoder_=decoder)
    if "frozen" in document:  # older files lack it
        frozen = _typed(document, "frozen", list)
        for name, parameter in _parameters(estimator.__dict__):
            parameter.requires_grad_(name not in frozen)
    # Not measured: a row sent through takes what memory the sizes ask for, and time.
    cost = Cost(*(_count(document, name) for name in ("width", "multiply_adds")))
    estimator._cost = cost
    if cost.width < max(n_features, n_components):
        raise ValueError(
            f"width should be at least {max(n_features, n_components)}, got {cost.width}."
        )
    estimator._scaling, estimator._fill = scaling, fill.eval()
    estimator._network = clone(network) if isinstance(network, Network) else network
    if isinstance(network, DenseNetwork):
        widths = layer_widths("hidden_layer_sizes", network.hidden_layer_sizes)
        estimator.hidden_layer_sizes_ = tuple(widths)
    estimator._built_from = built_from
    estimator._fitted_library = None  # rows of any library will do
    estimator._fitted_loss = _typed(document, "fitted_loss", str)
    if estimator._fitted_loss not in LOSSES:
        raise ValueError(f"unknown loss {_short(estimator._fitted_loss)}.")
    estimator._learns_missing = _typed(document, "learns_missing", bool)
    estimator._heads, estimator._optimizer_state = [], None
    estimator._rng = _generator(_typed(document, "rng", list))
    if document["max_epochs_"] is not None:
        estimator.max_epochs_ = _count(document, "max_epochs_")
    estimator.task_ = document.get("task_")  # files of earlier versions have none
    if estimator.task_ not in (None, *TASKS[1:]):
        raise ValueError(f"unknown task {_short(estimator.task_)}.")
    estimator.loss_curve_ = _curve(arrays.pop("loss_curve"))
    validation = arrays.pop("validation_loss_curve", None)
    estimator.validation_loss_curve_ = None if validation is None else _curve(validation)
    estimator.loss_ = estimator.loss_curve_[-1]
    estimator.best_loss_ = min(estimator.validation_loss_curve_ or estimator.loss_curve_)
    estimator.n_features_in_ = n_features
    if "feature_names" in arrays:
        estimator.feature_names_in_ = _feature_names(
            arrays.pop("feature_names"), arrays.pop("feature_name_lengths"), n_features
        )
    if arrays:
        raise ValueError(f"it has arrays that nothing takes: {_short(sorted(arrays))}.")
    if document["output"] is not None:
        estimator.set_output(transform=_typed(document, "output", str))
    estimator.device_ = resolve_saved_device(estimator.device)
    return estimator


def _rebuild_network(
    network: Any,
    n_features: int,
    n_components: int,
    spec: BuildSpec,
    arrays: dict[str, np.ndarray],
    *,
    is_own: bool,
) -> Pair:
    """Build encoder and decoder, and move their arrays into them."""
    if isinstance(network, Network) and not is_own:
        deepest = max(np.size(value) for value in network.get_params().values())
        if deepest > len(arrays):  # before so many layers are made
            raise ValueError(f"{deepest} layers are asked for, {len(arrays)} arrays are there.")
    elif not is_own:
        raise ValueError(f"network should be one of this library, got {_short(network)}.")
    # Of our own networks only shapes are made, until they have been compared with the arrays.
    spec = replace(spec, device="cpu" if is_own else "meta")
    encoder, decoder = build_network(network, n_features, n_components, spec=spec)
    for part, module in (("encoder", encoder), ("decoder", decoder)):
        _restore(part, module, arrays, assign=not is_own)
    return encoder, decoder


def _restore(part: str, module: nn.Module, arrays: dict[str, np.ndarray], *, assign: bool) -> None:
    """Move the arrays named after `part` into `module`, which has to have just these."""
    names = [name for name in arrays if name.startswith(f"{part}.")]
    found = {name.removeprefix(f"{part}."): arrays.pop(name) for name in names}
    expected = module.state_dict()
    if found.keys() != expected.keys():
        raise ValueError(
            f"the {part} of the network has the arrays {_short(sorted(expected))}, the file "
            f"{_short(sorted(found))}."
        )
    tensors = {name: _tensor(array) for name, array in found.items()}
    for name in expected:  # the order in a file is not always the same
        tensor = tensors[name]
        if tensor.shape != expected[name].shape or tensor.dtype != expected[name].dtype:
            raise ValueError(
                f"{part}.{name} should be {_kind(expected[name])}, got {_kind(tensor)}."
            )
    module.load_state_dict(tensors, assign=assign)
    module.eval()


def _parameters(fitted: dict[str, Any]) -> list[tuple[str, nn.Parameter]]:
    """The parameters of the network, with names that begin with the part."""
    return [
        (f"{part}.{name}", parameter)
        for part in ("encoder", "decoder")
        for name, parameter in fitted[f"{part}_"].named_parameters()
    ]


def _tensor(array: np.ndarray) -> torch.Tensor:
    # A copy in memory that PyTorch aligned: products may round by where a matrix starts.
    return torch.from_numpy(array).clone()


def _curve(array: np.ndarray) -> list[float]:
    if array.dtype != np.float64 or array.ndim != 1 or len(array) == 0:
        raise ValueError(f"a loss curve should be float64 of shape (n_iter,), got {_kind(array)}.")
    curve: list[float] = array.tolist()
    return curve


def _feature_names(text: np.ndarray, lengths: np.ndarray, n_features: int) -> np.ndarray:
    ends = np.cumsum(lengths)
    if (
        lengths.shape != (n_features,)
        or lengths.dtype != np.int64
        or text.dtype != np.uint8
        or (lengths < 0).any()
        or (lengths > text.size).any()  # which also keeps their sum from overflowing
        or ends[-1] != text.size
    ):
        raise ValueError(f"the feature names are not those of {n_features} columns.")
    data = text.tobytes()
    return np.array(
        [
            data[end - length : end].decode("utf-8", "surrogatepass")
            for end, length in zip(ends.tolist(), lengths.tolist(), strict=True)
        ],
        dtype=object,
    )


def _generator(state: list[Any]) -> np.random.Generator:
    generator = np.random.default_rng(0)
    names = ("state", "inc", "has_uint32", "uinteger")
    if len(state) != len(names):
        raise ValueError(f"rng should hold {', '.join(names)}, got {_short(state)}.")
    numbers = dict(zip(names, state, strict=True))
    counts = {name: _count(numbers, name, 2**128) for name in names}
    generator.bit_generator.state = {**counts, "bit_generator": "PCG64", "state": counts}
    return generator


# Values of parameters as JSON, and back


def _encode(value: Any, name: str, own: Iterable[Any] = ()) -> Any:
    """Return a parameter's value as JSON; what JSON lacks is an object with one key, its kind."""
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
        items = [_encode(item, name) for item in value]
        return items if isinstance(value, list) else {"tuple": items}
    if isinstance(value, np.ndarray) and value.dtype.name in _NUMPY_DTYPES:
        return {"array": [value.dtype.name, _encode(value.tolist(), name)]}
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
                key: _encode(item, f"{name}__{key}") for key, item in parameters.items()
            }
        }
    raise ValueError(
        f"{name}={_short(value)} cannot be saved: save stores no code, but numbers, strings, None, "
        f"lists, tuples, arrays and {', '.join(_OBJECTS)}. Use pickle or joblib for this model."
    )


def _decode(value: Any, own: Any = None) -> Any:
    """Undo `_encode`."""
    if isinstance(value, list):
        return [_decode(item, own) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise ValueError(f"unknown kind of value: {_short(value)}.")
    ((kind, content),) = value.items()
    if kind == "own_network":
        return own
    if kind in _OBJECTS and isinstance(content, dict):
        return _OBJECTS[kind](**{key: _decode(item) for key, item in content.items()})
    if kind in _DECODERS:
        return _DECODERS[kind](content)
    raise ValueError(f"unknown kind of value: {_short(value)}.")


def _decode_array(content: Any) -> np.ndarray:
    name, values = content
    if name not in _NUMPY_DTYPES:
        raise ValueError(f"unknown dtype {_short(name)}.")
    return np.array(_decode(values), dtype=name)


def _decode_number(content: Any) -> Any:
    array = _decode_array(content)
    if array.ndim:
        raise ValueError(f"a number should be one number, got shape {array.shape}.")
    return array[()]


def _decode_random_state(content: Any) -> np.random.RandomState:
    keys, position, *rest = _decode(content)
    if len(keys) != 624 or not 0 <= position <= 624:
        raise ValueError("the random state is not one of the Mersenne twister.")
    random_state = np.random.RandomState(0)
    random_state.set_state(("MT19937", np.array(keys, np.uint32), position, *rest))
    return random_state


def _decode_float(content: Any) -> float:
    return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[content]


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "tuple": lambda content: tuple(_decode(content)),
    "float": _decode_float,
    "numpy": _decode_number,  # of older versions
    "array": _decode_array,
    "device": lambda content: torch.device(str(content)),
    "RandomState": _decode_random_state,
}


def _typed(document: dict[str, Any], name: str, kind: type[E]) -> E:
    value = document.get(name)
    if type(value) is not kind:
        raise ValueError(f"{name} should be a {kind.__name__}, got {_short(value)}.")
    return value


def _count(document: dict[str, Any], name: str, end: int = 2**63) -> int:
    value = _typed(document, name, int)
    if not 0 <= value < end:
        raise ValueError(f"{name} should be in [0, {end}), got {_short(value)}.")
    return value


def _kind(array: np.ndarray | torch.Tensor) -> str:
    return f"{array.dtype} of shape {tuple(array.shape)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _reason(error: Exception) -> str:
    """The beginning of a message: PyTorch's bring stacks, others what they found in the file."""
    line = str(error).partition("\n")[0][:300]
    return line if type(error) is ValueError else f"{type(error).__name__}: {line}"


# The file


def write_file(
    path: str | os.PathLike[str],
    document: dict[str, Any],
    arrays: dict[str, np.ndarray],
    what: str = "model",
    temporary: str | None = None,
) -> None:
    """Write a file that `read_file` reads, as `write_atomically` does.

    Raises
    ------
    ValueError
        If the document is larger than what `read_file` takes.
    OSError
        If the file cannot be written.
    """
    envelope = {"digest": _NO_DIGEST, "format": FORMAT, "needs": _NEEDS, **document}
    text = json.dumps(envelope, allow_nan=False, separators=(",", ":"))
    data = safetensors.numpy.save(arrays, metadata={_KEY: text})
    header_end = 8 + int.from_bytes(data[:8], "little")
    if header_end > 8 + _MAX_HEADER:
        raise ValueError(
            f"The {what} cannot be saved: its parameters and the names of its {len(arrays)} arrays "
            f"take {header_end - 8} bytes, at most {_MAX_HEADER} can be stored."
        )
    digest = hashlib.sha256(data).hexdigest()
    header = data[:header_end].replace(_NO_DIGEST.encode(), digest.encode(), 1)
    write_atomically(path, [header, memoryview(data)[header_end:]], what, temporary)


def read_file(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the document and the arrays of a file of `write_file`.

    Raises
    ------
    ValueError
        If it is none, truncated, damaged or of a later format.
    OSError
        If it cannot be read.
    """
    name = os.fspath(path)
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(8 + len(_START))
        n_header = int.from_bytes(start[:8], "little")
        if len(start) < 8 or not _START.startswith(start[8:]) or not 0 < n_header <= _MAX_HEADER:
            raise ValueError(f"{name} is not a model saved by aefeatures.")
        if size < 8 + n_header:
            raise ValueError(f"{name} is truncated: {size} bytes, its header alone takes more.")
        file.seek(8)
        try:
            entries = _parse(file.read(n_header))
            document = _parse(entries.pop("__metadata__")[_KEY])
            end = max(
                _count({"end": entry["data_offsets"][1]}, "end") for entry in entries.values()
            )
            digest, format_ = document["digest"], _count(document, "format")
        except Exception as error:
            raise ValueError(
                f"{name} is damaged: its header cannot be read ({_reason(error)})."
            ) from error
        if format_ > FORMAT:
            raise ValueError(_newer(name, format_, document))
        if size != 8 + n_header + end:
            problem = "truncated" if size < 8 + n_header + end else "damaged"
            raise ValueError(f"{name} is {problem}: {size} bytes instead of {8 + n_header + end}.")
        file.seek(0)
        data = file.read()
    if not isinstance(digest, str) or digest != _digest(data, 8 + n_header, digest):
        raise ValueError(f"{name} is damaged: its contents are not those that were saved.")
    try:
        return document, safetensors.numpy.load(data)
    except Exception as error:
        raise ValueError(f"{name} is damaged: {_reason(error)}") from error


def _digest(data: bytes, header_end: int, digest: str) -> str:
    header = data[:header_end].replace(digest.encode(), _NO_DIGEST.encode(), 1)
    hashed = hashlib.sha256(header)
    hashed.update(memoryview(data)[header_end:])
    return hashed.hexdigest()


def _parse(text: str | bytes) -> dict[str, Any]:
    """Return a JSON object: strictly, so that every reader of a file sees the same."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entries = dict(pairs)
        if len(entries) < len(pairs):
            raise ValueError("a name stands twice in one object")
        return entries

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    parsed = json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    if not isinstance(parsed, dict):
        raise TypeError("it is not an object")
    return parsed


def _newer(name: str, format_: int, document: dict[str, Any]) -> str:
    needs = str(document.get("needs"))
    # Only what looks like a version is repeated: a message is no place for a file's text.
    install = f">={needs}" if re.fullmatch(r"[0-9a-z.]{1,20}", needs) else " of a later version"
    return (
        f"{name} is of format {format_}, this version of aefeatures ({__version__}) reads "
        f"formats up to {FORMAT}. Install aefeatures{install}."
    )


def write_atomically(
    path: str | os.PathLike[str],
    chunks: Iterable[bytes | memoryview],
    what: str,
    temporary_name: str | None = None,
) -> None:
    """Write beside `path`, then put it in its place: there is the old or the new file, whole.

    `what` is written, as an error says it; until it is whole it has the `temporary_name`, by
    default one that nothing else has.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    target = Path(path).resolve()  # of a link, what it points to
    temporary = target.parent / (temporary_name or f".aefeatures-{secrets.token_hex(8)}.tmp")
    try:
        try:
            with temporary.open("xb") as file:
                for chunk in chunks:
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            if target.exists():
                shutil.copymode(target, temporary)
            temporary.replace(target)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        _sync_folder(target.parent)
    except OSError as error:
        raise OSError(
            error.errno, f"The {what} was not saved: {error.strerror}", os.fspath(path)
        ) from error


def _sync_folder(folder: Path) -> None:
    """Make sure that a new name in `folder` outlives a loss of power."""
    if os.name != "posix":  # elsewhere folders cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
