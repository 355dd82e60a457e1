"""Where a network computes: device, precision, threads and local random state."""

from __future__ import annotations

import copy
import ctypes
import functools
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import nn
from torch.nn.utils import parametrize

from aefeatures._global_state import on_behalf_of_caller
from aefeatures._networks import OWN_LAYERS, Guest, copied, layers_in, layers_of, results_in

T = TypeVar("T")

# The dtype of the weights. "bfloat16" is mixed: only the products of matrices are in it.
PRECISIONS = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.float32}

# Multiply-adds of one training step from which several CPU threads compute it: the default
# network from about 230 rows a batch on. At 64 rows two threads took 1.6 times as long as
# one, at 256 rows 0.6 times (784 columns, two cores).
_MULTI_THREAD_WORK = 50_000_000

# Copies that `place` made, for as long as the module they were made of lives.
_placed: WeakKeyDictionary[nn.Module, tuple[Any, nn.Module]] = WeakKeyDictionary()

# Modules that were given out, for as long as they live.
_public: WeakSet[nn.Module] = WeakSet()

# The process that `settle_after_fork` was last called in; not yet, in a child of `multiprocessing`
# that is the first to import this, whose parent may have computed with PyTorch.
_process = (
    None if type(multiprocessing.current_process()).__name__ == "ForkProcess" else os.getpid()
)

# The process-wide thread count is touched for microseconds by `_prepare`; the lock keeps
# two fits from reading each other's value.
_thread_count_lock = threading.Lock()


def settle_after_fork() -> None:
    """Let a process that was forked compute with one CPU thread. To be called before it computes.

    The workers of the thread that forked are not in the child, but OpenMP there believes that
    they are, and would wait for them for ever.
    """
    global _process, _thread_count_lock
    if os.getpid() != _process:
        _process = os.getpid()
        _thread_count_lock = threading.Lock()  # another thread may have held it
        torch.set_num_threads(1)


def available_devices() -> list[str]:
    """Names of the devices that PyTorch can use here, the fastest kind first."""
    names = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("mps")
    return [*names, "cpu"]


def _own_device(devices: list[str]) -> str:
    """The device that "auto" takes in this process.

    Processes beside each other would else all compute on the first GPU: those of one training,
    which know their number on this machine by LOCAL_RANK, and those of a search by joblib's loky,
    which are numbered from 1, take them in turn.
    """
    gpus = [name for name in devices if name.startswith("cuda")]
    kind, _, number = multiprocessing.current_process().name.partition("-")
    rank = os.environ.get("LOCAL_RANK", "")
    if kind == "LokyProcess" and number.isdecimal():
        rank = str(int(number) - 1)
    return gpus[int(rank) % len(gpus)] if gpus and rank.isdecimal() else devices[0]


def resolve_device(device: str | torch.device) -> torch.device:
    """Turn "auto", a name or a `torch.device` into a device that is there.

    Where there are several GPUs, "auto" is the first, and in the processes of a search or of one
    training one each.

    Raises
    ------
    ValueError
        If the device is not known to PyTorch or not there; lists those that are.
    RuntimeError
        If it is CUDA, and this process was forked from one that had used it.
    """
    settle_after_fork()
    devices = available_devices()
    if isinstance(device, str) and device == "auto":
        return _usable(torch.device(_own_device(devices)))
    problem = None
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as error:
        problem = str(error).splitlines()[0]
    else:
        if resolved.type == "cuda" and resolved.index is None and devices[0] == "cuda:0":
            _usable(resolved)
            # A name without a number means the device the caller has made current.
            resolved = torch.device("cuda", torch.cuda.current_device())
        name = resolved.type if resolved.type in ("cpu", "mps") else str(resolved)
        if name in devices:
            return _usable(resolved)
        problem = "it is not there"
    raise ValueError(
        f"device={str(device)!r} cannot be used: {problem}. Devices here: {', '.join(devices)}; "
        "device='auto' takes the first."
    )


def _usable(device: torch.device) -> torch.device:
    """Return the device, unless this process cannot start it."""
    if device.type == "cuda" and torch.cuda._is_in_bad_fork():
        raise RuntimeError(
            "This process was forked from one that had used CUDA, and so cannot use it. Start "
            "processes with multiprocessing's 'spawn' or 'forkserver', or joblib's 'loky', or set "
            "device='cpu'."
        )
    return device


def resolve_saved_device(device: str | torch.device) -> torch.device:
    """Do the same for a model from elsewhere: where its device is not there, "auto" is."""
    try:
        return resolve_device(device)
    except ValueError:
        return resolve_device("auto")


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
