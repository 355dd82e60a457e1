"""PyTorch's state that all code in a process shares: its random generators, autocast.

Code of the caller's own (modules, losses, regularizers) draws from the first without being asked;
operations obey the second, whoever calls them.
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

_NOTHING = nullcontext()

# PyTorch's global random state belongs to all threads: one at a time may borrow it, and the
# threads that it waits for. `_thread.borrows` tells whether the current one does.
_borrowing = threading.Lock()
_thread = threading.local()


def _renew_lock() -> None:
    global _borrowing
    _borrowing = threading.Lock()


if hasattr(os, "register_at_fork"):  # another thread may have held it
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
    """Return `function` for a new thread, which borrows what the current one has borrowed.

    The current thread has to wait for it: as where a network is built from one that is trained
    for it.
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
    """Whether `part` is a name or an object of this library: such code draws nothing unseeded."""
    return isinstance(part, str) or type(part).__module__.startswith("aefeatures.")


class RandomState:
    """A state of its own for PyTorch's global generators, which goes on from use to use.

    Parameters
    ----------
    seed : int
    generators : sequence of torch.Generator
        The global generators that are borrowed. Without any, `borrowed` does nothing.

    Attributes
    ----------
    states : list of tensor
        One for each generator.
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
        """Let code that draws from the global generators draw from this state; then put them back.

        Other threads that want to borrow the generators wait.
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


def seed_beside(rng: np.random.Generator, *also: int) -> int:
    """Return a seed that follows from the state of `rng` and other numbers; `rng` stays there.

    So what is seeded by it changes nothing of what `rng` gives to others.
    """
    beside: Any = rng.bit_generator
    number = int(np.random.Generator(beside.jumped()).integers(2**63))
    return int(np.random.default_rng([number, *also]).integers(2**63))


def random_state_for(parts: Sequence[Any], seed: int, device: torch.device) -> RandomState:
    """Return what `parts` draw from while they compute on `device`; nothing if all are ours."""
    return RandomState(seed, () if all(map(is_ours, parts)) else _global_generators(device))


def global_seed(seed: int, *parts: Any) -> AbstractContextManager[Any]:
    """Let code that draws from PyTorch's global random state draw from `seed`; then put it back.

    `torch.manual_seed` in `torch.random.fork_rng` would also seed devices that are yet to be
    used. Fits side by side wait for each other. Nothing is done for `parts` that all are ours.
    """
    if parts and all(map(is_ours, parts)):
        return _NOTHING
    return RandomState(seed, _global_generators()).borrowed()


def _global_generators(device: torch.device | None = None) -> list[torch.Generator]:
    """The CPU's, and that of `device` or those of all devices that have been used."""
    generators = [torch.default_generator]
    if device is None or device.type == "cuda":
        if device is not None:
            torch.cuda.init()
        if torch.cuda.is_initialized():
            every = torch.cuda.default_generators
            generators += every if device is None else [every[_number_of(device)]]
    if torch.backends.mps.is_available() and (device is None or device.type == "mps"):
        generators.append(torch.mps._get_default_mps_generator())
    return generators


def _number_of(device: torch.device) -> int:
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
    """Whether autocast may be on, at a tenth of what asking for a kind of device takes."""
    asked = getattr(torch._C, "_is_any_autocast_enabled", None)
    return asked is None or "mps" in _AUTOCAST_KINDS or bool(asked())


@contextmanager
def without_autocast() -> Iterator[None]:
    """Compute as outside any `torch.autocast` of the caller's."""
    with ExitStack() as stack:
        for kind in _AUTOCAST_KINDS:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


def unaffected(seed: int, *parts: Any) -> AbstractContextManager[Any]:
    """Compute without autocast, and let `parts` draw from `seed`.

    Where neither matters this takes a microsecond; encoding a row takes some hundreds.
    """
    if not _may_autocast() and all(map(is_ours, parts)):
        return _NOTHING
    return _unaffected(seed, parts)


@contextmanager
def _unaffected(seed: int, parts: Sequence[Any]) -> Iterator[None]:
    with without_autocast(), global_seed(seed, *parts):
        yield
