"""Digests of everything that a fit depends on, the same in every process."""

from __future__ import annotations

import hashlib
import os
import re
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import nn

from aefeatures._moved import first_name
from aefeatures._rows.sources import Source

# X up to this number of bytes is digested as a whole. Of a larger X this number of blocks of
# consecutive rows is digested, together a quarter of the bytes.
_WHOLE_BYTES = 2**28
_BLOCKS = 64

_CONSTANTS = (bool, int, float, str)
_METHODS = (types.FunctionType, staticmethod, classmethod, property)

# Packages whose classes do not change while their version stays the same.
_RELEASED = ("aefeatures", "builtins", "collections", "functools", "numpy", "sklearn", "torch")

# Characters of a value that an error shows.
_SHOWN = 100


def digest_of_rows(rows: Source) -> str:
    """Return a digest of rows: of all their bytes or, if these are many, of some of the rows."""
    n_rows = rows.shape[0]
    whole = rows.nbytes <= _WHOLE_BYTES
    length = max(1, n_rows * _WHOLE_BYTES // (4 * _BLOCKS * max(rows.nbytes, 1)))
    n_blocks = -(-n_rows // length) if whole else _BLOCKS
    hashed = hashlib.blake2b(f"{rows.shape} {rows.dtype} {whole}".encode(), digest_size=16)
    for start in np.linspace(0, max(0, n_rows - length), n_blocks).astype(np.intp).tolist():
        for array in map(np.ascontiguousarray, rows.stored(slice(start, start + length))):
            hashed.update(array.reshape(-1).view(np.uint8).data)
    return hashed.hexdigest()


def digest(value: Any) -> str:
    """Return a digest of a value, the same in every process.

    Functions and classes of the caller's own count by their code and by the numbers and strings
    that they read. Functions that they call in other modules count by name.

    Raises
    ------
    TypeError
        If a part has no value, such as an open file.
    """
    hashed = hashlib.blake2b(digest_size=16)
    try:
        for part in _parts(value, {}):
            hashed.update(len(part).to_bytes(8, "little") + part)
    except (TypeError, RecursionError) as error:
        raise TypeError(
            "checkpoint distinguishes fits by the values of their parameters, but a parameter has "
            f"no value: {error}. Set checkpoint to None, or change the network, the loss or the "
            "regularizer."
        ) from error
    return hashed.hexdigest()


def _parts(value: Any, seen: dict[int, Any]) -> Iterator[bytes]:
    """Yield the bytes that identify `value`; `seen` holds functions and classes met so far."""
    kind = type(value)
    yield _name(kind)
    if isinstance(value, (type(None), bool, int, float, complex, str, bytes, np.generic)):
        yield repr(value).encode()
    elif isinstance(value, (torch.device, torch.dtype, os.PathLike, types.ModuleType)):
        yield str(getattr(value, "__name__", value)).encode()
    elif isinstance(value, torch.Tensor):
        yield f"{value.dtype} {tuple(value.shape)}".encode()
        flat = value.detach().cpu().contiguous().reshape(-1)
        yield flat.view(torch.uint8).numpy().tobytes()
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        yield f"{value.dtype} {value.shape}".encode()
        yield np.ascontiguousarray(value).tobytes()
    elif isinstance(value, (types.FunctionType, type)):
        yield _name(value)
        if value.__module__.partition(".")[0] not in _RELEASED and id(value) not in seen:
            seen[id(value)] = value
            yield from _parts(_code(value), seen)
    elif isinstance(value, (set, frozenset)):  # whose order is another in each process
        yield from sorted(b"".join(_parts(item, seen)) for item in value)
    else:
        items = _items(value)
        yield str(len(items)).encode()
        for item in items:
            yield from _parts(item, seen)


def _name(kind: Any) -> bytes:
    # In the processes that a script starts, the script has another name.
    module = "__main__" if kind.__module__ == "__mp_main__" else first_name(kind.__module__)
    return f"{module}.{kind.__qualname__}".encode()


def _items(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [each for pair in value.items() for each in pair]
    if isinstance(value, (list, tuple)):
        return list(value)
    if isinstance(value, np.ndarray):
        return [value.shape, *value.ravel().tolist()]
    if isinstance(value, types.CodeType):
        return [value.co_code, value.co_consts, value.co_names, value.co_varnames]
    if isinstance(value, types.MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, (staticmethod, classmethod)):
        return [value.__func__]
    if isinstance(value, property):
        return [value.fget, value.fset]
    if isinstance(value, nn.Module):
        settings = {name: each for name, each in vars(value).items() if name[0] != "_"}
        trained = [parameter.requires_grad for parameter in value.parameters()]
        return [type(value), repr(value), settings, dict(value.state_dict()), trained]
    reduced = value.__reduce_ex__(2)  # its value, as pickle sees it
    return [reduced] if isinstance(reduced, str) else list(reduced[:3])


def _code(value: Any) -> list[Any]:
    """Return the parts of a function or class of the caller's own."""
    if isinstance(value, type):
        own = [
            each
            for name, each in vars(value).items()
            if isinstance(each, _METHODS) or (isinstance(each, _CONSTANTS) and name[:2] != "__")
        ]
        return [*value.__bases__, *own]
    cells = [cell.cell_contents for cell in value.__closure__ or ()]
    read = [value.__globals__.get(name) for name in value.__code__.co_names]
    read = [
        each
        for each in read
        if isinstance(each, _CONSTANTS)
        or (isinstance(each, (types.FunctionType, type)) and each.__module__ == value.__module__)
    ]
    return [value.__code__, value.__defaults__, value.__kwdefaults__, cells, read]


def in_short(value: Any) -> tuple[str, str]:
    """Return a text that differs between values that differ, and one for errors to show."""
    # The address of an object in memory is not part of its value.
    text = re.sub(" at 0x[0-9a-fA-F]+", "", repr(value))
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    if callable(value) and not isinstance(value, BaseEstimator):
        return text, shown  # what functions close over may be of a rank
    try:
        return digest(value), shown
    except TypeError:  # it has no value, as a lock has none
        return text, shown
