"""Processes that train one model together, by PyTorch's process groups."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import distributed as dist

T = TypeVar("T")

# Interrupts of several ranks within it are one, as of a terminal that sends it to all. Another
# that comes later, while the first has not ended the training, ends this process alone.
_SAME_INTERRUPT_SECONDS = 2.0


class Ranks:
    """The processes that take part in a fit: this one alone.

    All of them call the same methods in the same order.

    Attributes
    ----------
    rank, size : int
    told : bool
        Whether all know of an error or an interrupt that one of them met.
    interrupted : bool
        Whether an interrupt came of which the others do not know.
    """

    rank = 0
    size = 1
    told = False
    interrupted = False

    def gather(self, value: T) -> list[T]:
        """Return the values of all ranks, in their order."""
        return [value]

    def sum_(self, tensor: torch.Tensor) -> None:
        """Replace a tensor by the sum of those of all ranks."""

    def share_(self, tensor: torch.Tensor) -> None:
        """Replace a tensor by that of rank 0."""

    def mean(self, mean: float, n: int) -> float:
        """Return the mean of all numbers, of which this rank has `n` of that mean."""
        return mean

    def fail(self, error: BaseException) -> None:
        """Tell the others of an error, in place of the `gather` that they are in or come to."""

    def together(self) -> AbstractContextManager[None]:
        """Within it an error of one rank is raised on all."""
        return nullcontext()


ALONE = Ranks()


@dataclass
class _Failure:
    """What a rank gathers in place of a value."""

    message: str
    interrupt: bool


class _Group(Ranks):
    """The ranks of a process group."""

    def __init__(self, group: Any) -> None:
        self._group = group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self._first = 0 if group is None else dist.get_global_rank(group, 0)
        self._interrupted_at = self._told_at = -math.inf

    def gather(self, value: T) -> list[T]:
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, (value, self.interrupted), group=self._group)
        values = [each for each, _ in found]
        failures = {i: each for i, each in enumerate(values) if isinstance(each, _Failure)}
        interrupted = any(flag for _, flag in found)
        if interrupted or failures:
            self.told, self.interrupted = True, False
            self._told_at = time.monotonic()
        for rank, failure in failures.items():
            if not failure.interrupt:
                raise RuntimeError(
                    f"Rank {rank} of {self.size} failed, and so do all: {failure.message}"
                )
        if interrupted or failures:
            raise KeyboardInterrupt
        return values

    def sum_(self, tensor: torch.Tensor) -> None:
        dist.all_reduce(tensor, group=self._group)

    def share_(self, tensor: torch.Tensor) -> None:
        dist.broadcast(tensor, self._first, group=self._group)

    def mean(self, mean: float, n: int) -> float:
        parts = self.gather((mean, n))
        return sum(mean * n for mean, n in parts) / max(sum(n for _, n in parts), 1)

    def fail(self, error: BaseException) -> None:
        interrupt = isinstance(error, KeyboardInterrupt)
        try:
            self.gather(_Failure(f"{type(error).__name__}: {error}", interrupt))
        except (RuntimeError, KeyboardInterrupt) as raised:
            # Who was interrupted does as the others do: another may have met an error.
            if interrupt and isinstance(raised, RuntimeError):
                raise

    @contextmanager
    def together(self) -> Iterator[None]:
        self.told = self.interrupted = False
        self._told_at = -math.inf
        with self._interrupts_noted():
            try:
                yield
                self.gather(None)
            except BaseException as error:
                if not self.told:
                    self.fail(error)
                raise

    @contextmanager
    def _interrupts_noted(self) -> Iterator[None]:
        """Within it an interrupt is noted, for all to raise it at the same place.

        One that was raised wherever it came would tear this rank from what all do, as from the
        middle of a `gather`.
        """
        before = signal.getsignal(signal.SIGINT)
        if (
            threading.current_thread() is not threading.main_thread()
            or before is not signal.default_int_handler
        ):
            yield
            return

        def note(number: int, frame: Any) -> None:
            now = time.monotonic()
            if now - self._told_at < _SAME_INTERRUPT_SECONDS:
                return
            if self.interrupted and now - self._interrupted_at >= _SAME_INTERRUPT_SECONDS:
                signal.default_int_handler(number, frame)
            if not self.interrupted:
                self.interrupted, self._interrupted_at = True, now

        signal.signal(signal.SIGINT, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


_ranks: ContextVar[Ranks] = ContextVar("aefeatures_ranks", default=ALONE)


def current_ranks() -> Ranks:
    """Return the ranks that a fit that begins here is of."""
    return _ranks.get()


@contextmanager
def distributed(group: Any = None) -> Iterator[None]:
    """Let `fit` and `partial_fit` train one model on the rows of all processes of a group.

    Within it every process calls them on rows of its own, a shard, with an estimator of the same
    parameters, and ends with the same model: statistics and losses are those of all rows, and the
    gradient of a step is the mean over the batches of all processes. Outside of it process groups
    are ignored. The group is made and destroyed by the caller.

    Parameters
    ----------
    group : torch.distributed.ProcessGroup, default=None
        None is the default group, of all processes.

    Raises
    ------
    RuntimeError
        If there is no process group, or this process is not in it.

    Notes
    -----
    `AutoencoderTransformer` is what trains together. `batch_size` counts the rows of one process:
    two of them at 32 take the steps that one takes at 64. A process may have fewer rows than
    others, also none (X of shape (0, n_features)): each row counts once in an epoch. Where shards
    differ in size, the smaller have smaller batches, so that all of them last the epoch.

    An error in one process is raised in all: there as it is, elsewhere as a `RuntimeError` that
    names the rank. So is an interrupt, which keeps the best weights if an epoch is over; another
    one, two seconds after one that had no effect, ends its process alone. That a process is lost is
    noticed as the group's backend notices it, at the latest after the timeout of the group.

    `early_stopping` sets a part of each shard aside. What looks at a batch as a whole sees the
    batch of its process: batch normalization, whose running statistics are averaged after each
    epoch, and the penalties of `Sparse` and `NeighborPreserving`, which finds neighbours within the
    shard. Shards should therefore be drawn at random. `checkpoint` cannot be used. Threads that are
    started within it train alone. On a CPU each process trains with one thread: start one for each
    core. With several GPUs, `device="auto"` is that of LOCAL_RANK, which torchrun and others set.

    Examples
    --------
    >>> import tempfile
    >>> import torch.distributed
    >>> from sklearn.datasets import load_digits
    >>> from aefeatures import AutoencoderTransformer, distributed
    >>> X, _ = load_digits(return_X_y=True)
    >>> rank, size = 0, 1  # what torchrun tells each process
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.distributed.init_process_group(
    ...         "gloo", init_method=f"file://{folder}/group", rank=rank, world_size=size
    ...     )
    ...     with distributed():
    ...         transformer = AutoencoderTransformer(max_epochs=2).fit(X[rank::size])
    ...     torch.distributed.destroy_process_group()
    >>> transformer.transform(X).shape
    (1797, 3)
    """
    if not (dist.is_available() and dist.is_initialized()):
        raise RuntimeError(
            "distributed() needs a process group, and there is none. Call "
            "torch.distributed.init_process_group first, in every process."
        )
    if dist.get_rank(group) < 0:
        raise RuntimeError("This process is not in the process group that distributed() got.")
    token = _ranks.set(_Group(group) if dist.get_world_size(group) > 1 else ALONE)
    try:
        yield
    finally:
        _ranks.reset(token)
