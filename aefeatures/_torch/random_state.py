"""State of PyTorch that all code in a process shares: global random generators and autocast.

The caller's own modules, losses and regularizers may draw from the global generators. All
operations follow autocast.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import (
    AbstractContextManager,
    ExitStack,
    contextmanager,
    nullcontext,
    suppress,
)
from typing import Any, TypeVar

import numpy as np
import torch

T = TypeVar("T")

_NO_CHANGE = nullcontext()

# All threads share PyTorch's global random state. One thread at a time may borrow it, together with
# the threads that it waits for. `_thread.borrows` is True in these threads.
_borrowing = threading.Lock()
_thread = threading.local()


def _renew_lock() -> None:
    global _borrowing
    _borrowing = threading.Lock()


if hasattr(os, "register_at_fork"):  # another thread may have held the lock
    os.register_at_fork(after_in_child=_renew_lock)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    if getattr(_thread, "borrows", False):
        yield
        return
    with _borrowing:
        try:
            _thread.borrows = True
            yield
        finally:
            _thread.borrows = False


def on_behalf_of_caller(function: Callable[..., T]) -> Callable[..., T]:
    """Return `function` for a new thread that may use the random state the current one borrows.

    The current thread must wait for the new one. For example, building a network may train another
    network in a new thread.
    """
    borrows = getattr(_thread, "borrows", False)

    def run(*args: Any) -> T:
        _thread.borrows = borrows
        try:
            return function(*args)
        finally:
            _thread.borrows = False

    return run


def is_ours(part: Any) -> bool:
    """Return whether `part` is a name or an object of this library, which draw only with a seed."""
    return isinstance(part, str) or type(part).__module__.startswith("aefeatures.")


class RandomState:
    """Private state for PyTorch's global generators, which continues from use to use.

    Parameters
    ----------
    seed : int
    generators : sequence of torch.Generator
        Global generators to borrow. If there are none, `borrowed` does nothing.

    Attributes
    ----------
    states : list of tensor
        State of each generator.
    """

    def __init__(self, seed: int, generators: Sequence[torch.Generator]) -> None:
        self._generators = generators
        self.manual_seed(seed)

    def manual_seed(self, seed: int) -> None:
        """Set the states to those of generators seeded with `seed`."""
        self.states = [
            torch.Generator(generator.device).manual_seed(seed).get_state()
            for generator in self._generators
        ]

    @contextmanager
    def borrowed(self) -> Iterator[None]:
        """Put this state into the global generators, and restore theirs at the end.

        Other threads that borrow the generators wait.
        """
        if not self._generators:
            yield
            return
        with _one_at_a_time():
            before = [generator.get_state() for generator in self._generators]
            try:
                self._set(self.states)
                yield
            finally:
                self.states = [generator.get_state() for generator in self._generators]
                self._set(before)

    def _set(self, states: list[torch.Tensor]) -> None:
        for generator, state in zip(self._generators, states, strict=True):
            generator.set_state(state)


def seed_beside(rng: np.random.Generator, *numbers: int) -> int:
    """Return a seed that depends on the state of `rng` and on other numbers.

    The state of `rng` does not change.
    """
    bit_generator: Any = rng.bit_generator
    from_rng = int(np.random.Generator(bit_generator.jumped()).integers(2**63))
    return int(np.random.default_rng([from_rng, *numbers]).integers(2**63))


def random_state_for(parts: Sequence[Any], seed: int, device: torch.device) -> RandomState:
    """Return the random state for `parts` on `device`. It does nothing if all parts are ours."""
    return RandomState(seed, () if all(map(is_ours, parts)) else _global_generators(device))


def global_seed(seed: int, *parts: Any) -> AbstractContextManager[Any]:
    """Seed PyTorch's global random state, and restore it at the end.

    `torch.manual_seed` in `torch.random.fork_rng` would also seed devices that were never used.
    Fits in different threads wait for each other. Nothing happens if all `parts` are ours.
    """
    if parts and all(map(is_ours, parts)):
        return _NO_CHANGE
    return RandomState(seed, _global_generators()).borrowed()


def _global_generators(device: torch.device | None = None) -> list[torch.Generator]:
    """Return the generators of the CPU, and of `device` or all devices that have been used."""
    generators = [torch.default_generator]
    if device is None or device.type == "cuda":
        if device is not None:
            torch.cuda.init()
        if torch.cuda.is_initialized():
            of_gpus = torch.cuda.default_generators
            generators += of_gpus if device is None else [of_gpus[_cuda_index(device)]]
    if torch.backends.mps.is_available() and (device is None or device.type == "mps"):
        generators.append(torch.mps._get_default_mps_generator())
    return generators


def _cuda_index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index


def _kinds_with_autocast() -> list[str]:
    kinds = ["cpu", "cuda"]
    if torch.backends.mps.is_available():
        with suppress(RuntimeError):  # older PyTorch has no autocast for MPS
            torch.is_autocast_enabled("mps")
            kinds.append("mps")
    return kinds


_AUTOCAST_KINDS = _kinds_with_autocast()


def _may_autocast() -> bool:
    """Return whether autocast may be on, ten times as fast as `torch.is_autocast_enabled`."""
    is_any_enabled = getattr(torch._C, "_is_any_autocast_enabled", None)
    return is_any_enabled is None or "mps" in _AUTOCAST_KINDS or bool(is_any_enabled())


@contextmanager
def without_autocast() -> Iterator[None]:
    """Compute without any `torch.autocast` of the caller."""
    with ExitStack() as stack:
        for kind in _AUTOCAST_KINDS:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


def unaffected(seed: int, *parts: Any) -> AbstractContextManager[Any]:
    """Compute without autocast, and let `parts` draw from `seed`.

    If neither matters this takes a microsecond. Encoding a row takes several hundred.
    """
    if not _may_autocast() and all(map(is_ours, parts)):
        return _NO_CHANGE
    return _unaffected(seed, parts)


@contextmanager
def _unaffected(seed: int, parts: Sequence[Any]) -> Iterator[None]:
    with without_autocast(), global_seed(seed, *parts):
        yield
