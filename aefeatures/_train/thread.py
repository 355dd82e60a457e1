"""The thread in which a training computes."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, Self, TypeVar

import torch

from aefeatures._torch.random_state import on_behalf_of_caller

T = TypeVar("T")

# Multiply-adds of one training step from which several CPU threads compute it: the default
# network from about 230 rows a batch on. At 64 rows two threads took 1.6 times as long as
# one, at 256 rows 0.6 times (784 columns, two cores).
_MULTI_THREAD_WORK = 50_000_000


# Seconds after which a wait starts again. On Windows a wait without end cannot be interrupted.
_WAIT_SECONDS = 0.1 if sys.platform == "win32" else None

# The process-wide thread count is touched for microseconds by `_prepare_thread`; the lock keeps
# two fits from reading each other's value.
_thread_count_lock = threading.Lock()


def _renew_lock() -> None:
    global _thread_count_lock
    _thread_count_lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # another thread may have held it
    os.register_at_fork(after_in_child=_renew_lock)


class Workers:
    """Threads beside the one that computes, each of which has one CPU thread.

    The workers of OpenMP spin while they wait for each other. Beside other work on the same cores
    each of their many waits lasts until a worker that was interrupted comes back, and the others
    take its time. These threads sleep while they wait, and they wait a few times in a step.

    Parameters
    ----------
    n : int
        Number of threads, beside the one that calls `run`.
    """

    def __init__(self, n: int) -> None:
        self.n_threads = n + 1
        self._executor = _executor(n, "aefeatures-worker") if n else None

    def run(self, calls: Sequence[Callable[[], object]]) -> None:
        """Call the functions side by side, one for each thread, the first in the caller's."""
        first, *others = calls
        if self._executor is None:
            first()
            return
        futures = [self._executor.submit(call) for call in others]
        try:
            first()
        finally:
            wait(futures)
        for future in futures:
            future.result()

    def stop(self) -> None:
        """End the threads."""
        if self._executor is not None:
            self._executor.shutdown()


def _executor(n: int, name: str) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(
        n,
        thread_name_prefix=name,
        initializer=_prepare_thread,
        # As CUDA has it, each thread has a current device.
        initargs=(torch.cuda.current_device() if torch.cuda.is_initialized() else None,),
    )


class TrainingThread:
    """Where a training computes: for small networks, a thread of its own.

    In it denormal numbers are flushed to zero (Adam's moments decay into them, and a step
    is then up to twice as slow), and one CPU thread computes. Both are settings of
    a thread and of the workers it starts, so they go when it ends, also after an error
    and beside other fits. Gradient mode, default device and the like of the caller's thread
    do not reach it either.

    Where a step is large enough for several CPU threads, and can be split, workers take part in it.
    If it cannot be split, it computes in the caller's thread,
    with the workers that thread has: a second set of workers would contend with them for
    the cores (three times slower here). This is for the main thread alone: elsewhere the
    caller already runs things side by side, as in a search with threads. The floating-point
    mode of these threads is left alone, and Adam keeps its moments out of the denormal range
    instead (`flushes` is False).

    Parameters
    ----------
    work : int
        Multiply-adds of one training step.
    splits : bool
        Whether the step can be split among workers.

    Attributes
    ----------
    stopping : threading.Event
        Whether what runs should return soon.
    flushes : bool
        Whether denormal numbers are flushed to zero.
    workers : Workers
        They share a large step that can be split.
    """

    def __init__(self, work: int, *, splits: bool = False) -> None:
        self.stopping = threading.Event()
        self._executor = None
        with _thread_count_lock:
            n_threads = torch.get_num_threads()  # also settles the caller's own count
        alone = threading.current_thread() is threading.main_thread()
        small = work < _MULTI_THREAD_WORK or n_threads == 1 or not alone
        self.flushes = small or splits
        self.workers = Workers(0 if small or not splits else n_threads - 1)
        if self.flushes:
            self._executor = _executor(1, "aefeatures-training")

    def run(self, function: Callable[..., T], *args: Any) -> T:
        """Call `function` and wait for what it returns or raises.

        `function` should return soon once `stopping` is set: it is when the wait is
        interrupted, and the interrupt is raised when `function` is done.
        """
        if self._executor is None:
            with torch.inference_mode(False), torch.enable_grad():
                return function(*args)
        future = self._executor.submit(on_behalf_of_caller(function), *args)
        try:
            while True:
                try:
                    return future.result(_WAIT_SECONDS)
                except TimeoutError:
                    if future.done():  # the function's own error
                        raise
        except BaseException:
            self.stopping.set()
            wait([future])
            raise

    def stop(self) -> None:
        """Let what runs end, and wait for it."""
        self.stopping.set()
        if self._executor is not None:
            self._executor.shutdown()
        self.workers.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def _prepare_thread(gpu: int | None) -> None:
    """Give the calling thread one CPU thread, flush-to-zero and a GPU, and no other thread."""
    with _thread_count_lock:
        before = torch.get_num_threads()
        if before > 1:
            # `set_num_threads` sets this thread's count and the one that threads new to
            # PyTorch start from. A throw-away thread puts the second back.
            torch.set_num_threads(1)
            restore = threading.Thread(target=torch.set_num_threads, args=(before,))
            restore.start()
            restore.join()
    torch.set_flush_denormal(True)
    if gpu is not None:
        torch.cuda.set_device(gpu)
