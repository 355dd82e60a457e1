"""Modules on devices, and in pickles."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import nn
from torch.nn.utils import parametrize

from aefeatures._nets.networks import OWN_LAYERS, Guest, copied, layers_in, layers_of, results_in
from aefeatures._torch.devices import settle_after_fork

T = TypeVar("T")

# Copies that `place` made, for as long as the module they were made of lives.
_placed: WeakKeyDictionary[nn.Module, tuple[Any, nn.Module]] = WeakKeyDictionary()

# Modules that were given out, for as long as they live.
_public: WeakSet[nn.Module] = WeakSet()


def place(module: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Return `module` with its tensors on `device` in `dtype`; `module` stays as it is.

    For modules that this library has built. The module itself is returned where nothing has to
    change. Otherwise the last copy is kept as long as the module lives and its tensors are the
    same: to convert the weights takes longer than to encode a row. It is not kept of modules that
    were given out, because a change through `data` or NumPy leaves no trace.
    """
    settle_after_fork()
    layers = layers_of(module)
    tensors = [
        tensor
        for layer in layers
        for group in (layer._parameters, layer._buffers)
        for tensor in group.values()
        if tensor is not None
    ]

    def target(tensor: torch.Tensor) -> torch.dtype:
        return dtype if tensor.is_floating_point() else tensor.dtype

    if all(t.device == device and t.dtype == target(t) for t in tensors):
        return module
    # A model loaded in inference mode has tensors without a version, and none will change.
    versions = [(t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors]
    key = (device, dtype, versions)
    kept = None if module in _public else _placed.get(module)
    if kept is not None and kept[0] == key:
        return kept[1]
    memo: dict[int, Any] = {id(t): t.detach().to(device, target(t)) for t in tensors}
    placed = copy.deepcopy(module, memo)
    if module not in _public:
        _placed[module] = (key, placed)
    return placed


def note_given_out(module: nn.Module) -> None:
    """Note that the caller has a module, whose weights may change unseen: no copy of it is kept."""
    _public.add(module)


def placed_before(module: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module | None:
    """Return the copy that `place` made, if the module was never given out."""
    settle_after_fork()
    kept = None if module in _public else _placed.get(module)
    return None if kept is None or kept[0][:2] != (device, dtype) else kept[1]


def place_guest(module: nn.Module, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function that computes with a module of which nothing is known, on `device`.

    It keeps its precision (see `Guest`). A copy for another device is made each time, as not only
    its tensors may have changed. What it makes and keeps may be trained with later, which tensors
    made in inference mode could not be.
    """
    settle_after_fork()
    if any(tensor.device != device for tensor in (*module.parameters(), *module.buffers())):
        module = copied(module).to(device)
    guest = Guest(module)

    def compute(X: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(False), torch.no_grad():
            result: torch.Tensor = guest(X)
        return result

    return compute


class _Held:
    """A tensor in a pickle, except a plain one of the layers that this library builds.

    It is shared by as many modules as before with every kind of pickle: joblib's does not keep that
    two arrays are one.
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        self.array = tensor.detach().cpu().numpy()
        self.is_parameter = isinstance(tensor, nn.Parameter)
        self.requires_grad = tensor.requires_grad


def to_arrays(modules: T) -> T:
    """Return a module, or a tuple of modules, with NumPy arrays for tensors, to be pickled.

    A tensor pickles through `torch.load`, which warns, or refuses, by version.
    """
    memo = results_in(modules)
    for layer in layers_in(modules):
        for group in (layer._parameters, layer._buffers):
            for tensor in group.values():
                if tensor is None:
                    continue
                plain = type(layer) in OWN_LAYERS and tensor.requires_grad == (
                    group is layer._parameters
                )
                if not plain or id(tensor) in memo:  # shared
                    memo[id(tensor)] = _Held(tensor)
                else:
                    memo[id(tensor)] = tensor.detach().cpu().numpy()
    arrays = copy.deepcopy(modules, memo)
    for layer in layers_in(arrays):
        if parametrize.is_parametrized(layer):  # by a class of its own, which no pickle holds
            layer.__class__ = parametrize.type_before_parametrizations(layer)
            layer._load_state_dict_pre_hooks.clear()  # local functions, for weights of PyTorch 1
    return arrays


def from_arrays(modules: T) -> T:
    """Undo `to_arrays`."""
    memo: dict[int, Any] = {}
    for layer in layers_in(modules):
        groups: tuple[dict[str, Any], ...] = (layer._parameters, layer._buffers)
        for group in groups:
            for held in group.values():
                if held is None or id(held) in memo:
                    continue
                if not isinstance(held, _Held):
                    array, is_parameter, requires_grad = held, group is groups[0], True
                else:
                    array, is_parameter = held.array, held.is_parameter
                    requires_grad = held.requires_grad
                # In memory that PyTorch aligned: products may round by where a matrix starts.
                tensor = torch.tensor(array)
                memo[id(held)] = nn.Parameter(tensor, requires_grad) if is_parameter else tensor
    tensors = copy.deepcopy(modules, memo)
    for layer in layers_in(tensors):
        if parametrize.is_parametrized(layer):
            parametrize._inject_new_class(layer)
            for name in layer.parametrizations:  # type: ignore[union-attr]
                parametrize._inject_property(layer, name)
    return tensors
