"""Copies of modules on other devices and in pickles."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import nn
from torch.nn.utils import parametrize

from aefeatures._nets.networks import (
    OWN_LAYERS,
    Guest,
    copied,
    layers_in,
    layers_of,
    results_in,
    tensors_by_name,
)
from aefeatures._torch.devices import settle_after_fork

T = TypeVar("T")

# Last copy that `place` made of each module, kept as long as the module lives.
_placed: WeakKeyDictionary[nn.Module, tuple[Any, nn.Module]] = WeakKeyDictionary()

# Modules that callers have, kept as long as they live.
_public: WeakSet[nn.Module] = WeakSet()


def place(module: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Return `module` with its tensors on `device` in `dtype`, as a copy if any has to change.

    Only for modules that this library has built. The last copy is kept as long as the module lives
    and its tensors are the same, because converting the weights takes longer than encoding a row.
    No copy is kept of modules that were given out: changes of their weights through `data` or NumPy
    cannot be detected.
    """
    settle_after_fork()
    layers = layers_of(module)
    tensors = [
        tensor
        for layer in layers
        for group in tensors_by_name(layer)
        for tensor in group.values()
        if tensor is not None
    ]

    def target(tensor: torch.Tensor) -> torch.dtype:
        return dtype if tensor.is_floating_point() else tensor.dtype

    if all(t.device == device and t.dtype == target(t) for t in tensors):
        return module
    # Tensors that were loaded in inference mode have no version, and they never change.
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


def place_scaling(scaling: T, device: torch.device) -> T:
    """Return a scaling on a device; on MPS, which has no float64, as it is."""
    if device.type == "mps":
        return scaling
    placed: Any = place(cast(nn.Module, scaling), device, torch.float64)
    return cast(T, placed)


def note_given_out(module: nn.Module) -> None:
    """Keep no copy of `module` from now on: the caller has it and may change its weights."""
    _public.add(module)


def placed_before(module: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module | None:
    """Return the copy that `place` keeps of `module`, or None."""
    settle_after_fork()
    kept = None if module in _public else _placed.get(module)
    return None if kept is None or kept[0][:2] != (device, dtype) else kept[1]


def place_guest(module: nn.Module, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function that calls, on `device`, a module of which nothing is known.

    The module computes in its own precision (see `Guest`). It is copied to another device in each
    call of `place_guest`, because more than its tensors may have changed. It is not called in
    inference mode, because a later training could not use tensors that it created there and kept.
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


def place_for_gradients(
    module: nn.Module, device: torch.device, dtype: torch.dtype | None
) -> nn.Module:
    """Return a copy of `module` on `device` through which gradients of its input can pass.

    It is in `dtype`, or computes in its own precision if that is None (see `Guest`). Not to be
    called in inference mode.
    """
    settle_after_fork()
    # Without a copy, tensors that were made in inference mode would refuse the gradient.
    copy_of = copied(module).to(device=device, dtype=dtype).requires_grad_(False)
    return copy_of if dtype is not None else Guest(copy_of)


class _Held:
    """Array of a tensor in a pickle, with what a plain array cannot tell of the tensor.

    A tensor that several modules share is still shared after unpickling. With plain arrays it would
    not be, because joblib stores a shared array twice.
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        self.array = tensor.detach().cpu().numpy()
        self.is_parameter = isinstance(tensor, nn.Parameter)
        self.requires_grad = tensor.requires_grad


def to_arrays(modules: T) -> T:
    """Return a module, or a tuple of modules, with NumPy arrays instead of tensors, for a pickle.

    Tensors are unpickled by `torch.load`, which warns or fails in some versions.
    """
    memo = results_in(modules)
    for layer in layers_in(modules):
        parameters, buffers = tensors_by_name(layer)
        for group in (parameters, buffers):
            for tensor in group.values():
                if tensor is None:
                    continue
                plain = type(layer) in OWN_LAYERS and tensor.requires_grad == (group is parameters)
                if plain and id(tensor) not in memo:
                    memo[id(tensor)] = tensor.detach().cpu().numpy()
                else:  # also a tensor that is shared, and was met before
                    memo[id(tensor)] = _Held(tensor)
    arrays = copy.deepcopy(modules, memo)
    for layer in layers_in(arrays):
        if parametrize.is_parametrized(layer):  # its class, made for it alone, cannot be pickled
            layer.__class__ = parametrize.type_before_parametrizations(layer)
            layer._load_state_dict_pre_hooks.clear()  # local functions, cannot be pickled
    return arrays


def from_arrays(modules: T) -> T:
    """Return the modules that `to_arrays` was given."""
    memo: dict[int, Any] = {}
    for layer in layers_in(modules):
        parameters, buffers = tensors_by_name(layer)
        for group in (parameters, buffers):
            for stored in group.values():
                if stored is None or id(stored) in memo:
                    continue
                if isinstance(stored, _Held):
                    array, is_parameter = stored.array, stored.is_parameter
                    requires_grad = stored.requires_grad
                else:
                    array, is_parameter, requires_grad = stored, group is parameters, True
                # A copy in memory that PyTorch has aligned: where a matrix starts in memory may
                # change how products with it are rounded.
                tensor = torch.tensor(array)
                memo[id(stored)] = nn.Parameter(tensor, requires_grad) if is_parameter else tensor
    tensors = copy.deepcopy(modules, memo)
    for layer in layers_in(tensors):
        if parametrize.is_parametrized(layer):
            parametrize._inject_new_class(layer)
            for name in layer.parametrizations:  # type: ignore[union-attr]
                parametrize._inject_property(layer, name)
    return tensors
