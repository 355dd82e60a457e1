"""Processes that train one model together in a process group of PyTorch."""

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

# Interrupts of several ranks within this time count as one, because a terminal sends an interrupt
# to all of them. A later one ends only this process if the first has not ended the training.
_SAME_INTERRUPT_SECONDS = 2.0


class Ranks:
    """Processes that take part in a fit. This class is for a single process.

    All processes call the same methods in the same order.

    Attributes
    ----------
    rank, size : int
    told : bool
        Whether all ranks know about an error or an interrupt on one of them.
    interrupted : bool
        Whether this rank was interrupted and the other ranks do not know it yet.
    """

    rank = 0
    size = 1
    told = False
    interrupted = False

    def gather(self, value: T) -> list[T]:
        """Return the values of all ranks, in the order of the ranks."""
        return [value]

    def sum_(self, tensor: torch.Tensor) -> None:
        """Replace a tensor by its sum over all ranks."""

    def share_(self, tensor: torch.Tensor) -> None:
        """Replace a tensor by the tensor of rank 0."""

    def mean(self, mean: float, n: int) -> float:
        """Return the mean over all ranks. This rank has `n` numbers with the given mean."""
        return mean

    def fail(self, error: BaseException) -> None:
        """Report an error to the other ranks, in their current or next `gather`."""

    def together(self) -> AbstractContextManager[None]:
        """Return a context in which an error of one rank is raised on all ranks."""
        return nullcontext()


ALONE = Ranks()


@dataclass
class _Failure:
    """Error of a rank, which is gathered instead of a value."""

    message: str
    interrupt: bool


class _Group(Ranks):
    """Ranks of a process group."""

    def __init__(self, group: Any) -> None:
        self._group = group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self._first = 0 if group is None else dist.get_global_rank(group, 0)
        self._interrupted_at = self._told_at = -math.inf

    def gather(self, value: T) -> list[T]:
        gathered: list[Any] = [None] * self.size
        dist.all_gather_object(gathered, (value, self.interrupted), group=self._group)
        values = [each for each, _ in gathered]
        failures = {i: each for i, each in enumerate(values) if isinstance(each, _Failure)}
        interrupted = any(flag for _, flag in gathered)
        if not (interrupted or failures):
            return values
        self.told, self.interrupted = True, False
        self._told_at = time.monotonic()
        for rank, failure in failures.items():
            if not failure.interrupt:
                raise RuntimeError(
                    f"Rank {rank} of {self.size} failed, so all ranks stop: {failure.message}"
                )
        raise KeyboardInterrupt

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
            # An interrupted rank stops as the others do, and another rank may have had an error.
            if interrupt and isinstance(raised, RuntimeError):
                raise

    @contextmanager
    def together(self) -> Iterator[None]:
        self.told = self.interrupted = False
        self._told_at = -math.inf
        with self._recording_interrupts():
            try:
                yield
                self.gather(None)
            except BaseException as error:
                if not self.told:
                    self.fail(error)
                raise

    @contextmanager
    def _recording_interrupts(self) -> Iterator[None]:
        """Record interrupts instead of raising them, so that all ranks stop at the same place.

        An interrupt in the middle of a `gather`, for example, would separate this rank from the
        others.
        """
        before = signal.getsignal(signal.SIGINT)
        if (
            threading.current_thread() is not threading.main_thread()
            or before is not signal.default_int_handler
        ):
            yield
            return

        def record(number: int, frame: Any) -> None:
            now = time.monotonic()
            if now - self._told_at < _SAME_INTERRUPT_SECONDS:
                return
            if self.interrupted and now - self._interrupted_at >= _SAME_INTERRUPT_SECONDS:
                signal.default_int_handler(number, frame)
            if not self.interrupted:
                self.interrupted, self._interrupted_at = True, now

        signal.signal(signal.SIGINT, record)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


_ranks: ContextVar[Ranks] = ContextVar("aefeatures_ranks", default=ALONE)


def current_ranks() -> Ranks:
    """Return the ranks that take part in a fit that begins here."""
    return _ranks.get()


@contextmanager
def distributed(group: Any = None) -> Iterator[None]:
    """Let `fit` and `partial_fit` train one model on the rows of all processes of a group.

    Every process calls them on its own rows, a shard, with an estimator of the same parameters, and
    gets the same model. Statistics and losses are those of all rows, and the gradient of a step is
    the mean over the batches of all processes. Outside of this context process groups are ignored.
    The caller creates and destroys the group.

    Parameters
    ----------
    group : torch.distributed.ProcessGroup, default=None
        None means the default group of all processes.

    Raises
    ------
    RuntimeError
        If there is no process group, or this process is not in it.

    Notes
    -----
    Only `AutoencoderTransformer` trains together. `batch_size` is the number of rows of one
    process: two processes with a batch size of 32 take the same steps as one with 64. A process may
    have fewer rows than others, even none (X of shape (0, n_features)). Each row counts once in an
    epoch. If shards differ in size, smaller shards have smaller batches, so that all shards have
    the same number of batches.

    An error in one process is raised in all processes. The other processes raise a `RuntimeError`
    that names the rank. An interrupt also stops all processes, and the best weights are kept if an
    epoch has ended. If an interrupt has no effect, another one after two seconds ends only its own
    process. The backend of the group detects that a process is lost, at the latest after the
    timeout of the group.

    `early_stopping` uses a part of each shard for validation. Some parts of a model depend on the
    whole batch, and see only the batch of their process: batch normalization, whose running
    statistics are averaged after each epoch, and the penalties of `Sparse` and
    `NeighborPreserving`. The latter finds neighbors only within the shard. Shards should therefore
    be drawn at random. `checkpoint` is not supported. Threads that are started in this context
    train alone. On a CPU each process trains with one thread, so start one process for each core.
    With several GPUs, `device="auto"` is the GPU of LOCAL_RANK, which torchrun and others set.

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
            "distributed() needs a process group, but there is none. Call "
            "torch.distributed.init_process_group in every process first."
        )
    if dist.get_rank(group) < 0:
        raise RuntimeError(
            "distributed() got a process group without this process. Call it only in processes of "
            "the group."
        )
    token = _ranks.set(_Group(group) if dist.get_world_size(group) > 1 else ALONE)
    try:
        yield
    finally:
        _ranks.reset(token)
