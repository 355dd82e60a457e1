"""The thread in which a training computes."""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import torch

from aefeatures._torch.random_state import on_behalf_of_caller

T = TypeVar("T")

# Multiply-adds of one training step from which several CPU threads compute it: the default
# network from about 230 rows a batch on. At 64 rows two threads took 1.6 times as long as
# one, at 256 rows 0.6 times (784 columns, two cores).
_MULTI_THREAD_WORK = 50_000_000


# The process-wide thread count is touched for microseconds by `_prepare_thread`; the lock keeps
# two fits from reading each other's value.
_thread_count_lock = threading.Lock()


def _renew_lock() -> None:
    global _thread_count_lock
    _thread_count_lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # another thread may have held it
    os.register_at_fork(after_in_child=_renew_lock)


class TrainingThread:
    """Where a training computes: for small networks, a thread of its own.

    In it denormal numbers are flushed to zero (Adam's moments decay into them, and a step
    is then up to twice as slow), and one CPU thread computes. Both are settings of
    a thread and of the workers it starts, so they go when it ends, also after an error
    and beside other fits. Gradient mode, default device and the like of the caller's thread
    do not reach it either.

    Where a step is large enough for several CPU threads, it computes in the caller's thread,
    with the workers that thread has: a second set of workers would contend with them for
    the cores (three times slower here). This is for the main thread alone: elsewhere the
    caller already runs things side by side, as in a search with threads.

    Parameters
    ----------
    work : int
        Multiply-adds of one training step.
    """

    def __init__(self, work: int) -> None:
        self.stopping = threading.Event()
        self._executor = None
        with _thread_count_lock:
            n_threads = torch.get_num_threads()  # also settles the caller's own count
        alone = threading.current_thread() is threading.main_thread()
        if work < _MULTI_THREAD_WORK or n_threads == 1 or not alone:
            self._executor = ThreadPoolExecutor(
                1,
                thread_name_prefix="aefeatures-training",
                initializer=_prepare_thread,
                # As CUDA has it, each thread has a current device.
                initargs=(torch.cuda.current_device() if torch.cuda.is_initialized() else None,),
            )

    def run(self, function: Callable[..., T], *args: Any) -> T:
        """Call `function` and wait for what it returns or raises.

        `function` should return soon once `stopping` is set: it is when the wait is
        interrupted, and the interrupt is raised when `function` is done.
        """
        if self._executor is None:
            with torch.inference_mode(False), torch.enable_grad(), _flush_to_zero():
                return function(*args)
        future = self._executor.submit(on_behalf_of_caller(function), *args)
        try:
            return future.result()
        except BaseException:
            self.stopping.set()
            wait([future])
            raise

    def stop(self) -> None:
        """Let what runs end, and wait for it."""
        self.stopping.set()
        if self._executor is not None:
            self._executor.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


@contextmanager
def _flush_to_zero() -> Iterator[None]:
    """Flush denormal numbers to zero in the calling thread and its workers; put both back."""
    here, workers = _flush_modes()
    torch.set_flush_denormal(True)
    _give_mode_to_workers()
    try:
        yield
    finally:
        torch.set_flush_denormal(workers)
        _give_mode_to_workers()
        torch.set_flush_denormal(here)


def _flush_modes() -> tuple[bool, bool]:
    """Whether the calling thread and the last of its workers flush denormal numbers to zero."""
    # So many that every worker gets some; the first part is the calling thread's.
    numbers = torch.full((100_000 * torch.get_num_threads(),), 1e-40, device="cpu").neg_()
    return float(numbers[0]) == 0, float(numbers[-1]) == 0


def _give_mode_to_workers() -> None:
    """Set the floating-point mode of the calling thread in its OpenMP workers.

    PyTorch has no call for this, so its OpenMP library is asked to run C's `fesetenv` in each
    of them. Where that library is another, the workers keep their mode.
    """
    library = _openmp_library()
    if library is None:
        return
    mode = ctypes.create_string_buffer(256)  # larger than any fenv_t
    c = ctypes.CDLL(None)
    c.fegetenv(mode)
    n_threads = torch.get_num_threads()
    library.GOMP_parallel(ctypes.cast(c.fesetenv, ctypes.c_void_p), mode, n_threads, 0)


@functools.cache
def _openmp_library() -> ctypes.CDLL | None:
    """PyTorch's copy of GNU's OpenMP library, as its builds for Linux have it."""
    try:
        (path,) = (Path(torch.__file__).parent / "lib").glob("libgomp*.so*")
        library = ctypes.CDLL(str(path))
        library.GOMP_parallel.argtypes = [
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_uint,
            ctypes.c_uint,
        ]
        library.GOMP_parallel.restype = None
        _ = ctypes.CDLL(None).fegetenv, ctypes.CDLL(None).fesetenv
    except (ValueError, OSError, AttributeError, TypeError):
        return None
    return library


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
