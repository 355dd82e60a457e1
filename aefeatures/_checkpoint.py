"""Fits that go on after the process was killed: a file of a fit's state in a folder.

The file is named by a digest of what the fit depends on, so that the same fit finds it again and
clones in a search can share the folder. A lock beside it, which the operating system takes
back when the process dies, keeps a second fit of the same kind away from it.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
import types
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import torch
from scipy import sparse
from sklearn.base import BaseEstimator
from torch import nn

from aefeatures._batches import Rows
from aefeatures._networks import plain
from aefeatures._persistence import read_file, write_file
from aefeatures._training import TrainingResult, TrainingState, Watcher
from aefeatures._version import __version__
from aefeatures._warnings import warn

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

# A checkpoint is written when so many seconds have gone by since the last one, at the end of an
# epoch and within one, and so many times the seconds that it took.
_SECONDS_BETWEEN = 1.0
_SECONDS_WITHIN_EPOCH = 120.0
_TIMES_ITS_DURATION = 20

# X up to so many bytes is digested as a whole; of a larger one so many blocks of consecutive rows,
# together a quarter of that.
_WHOLE_BYTES = 2**28
_BLOCKS = 64

_CONSTANTS = (bool, int, float, str)
_METHODS = (types.FunctionType, staticmethod, classmethod, property)

# Packages whose classes do not change while their version stays the same.
_RELEASED = ("aefeatures", "builtins", "collections", "functools", "numpy", "sklearn", "torch")


class Checkpoint(BaseEstimator):
    """How a fit is kept in a folder, for `AutoencoderTransformer`'s parameter `checkpoint`.

    Parameters
    ----------
    folder : str or path-like
        Made if it is not there. To give it alone, without this object, is the same as `keep=False`.
    keep : bool, default=False
        Whether the file stays when the fit is over. The same `fit` then takes its result
        from there, in the time that reading takes; also after the end of an early stop.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from sklearn.datasets import load_digits
    >>> from aefeatures import AutoencoderTransformer, Checkpoint
    >>> X, _ = load_digits(return_X_y=True)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     checkpoint = Checkpoint(folder, keep=True)
    ...     transformer = AutoencoderTransformer(
    ...         max_epochs=2, random_state=0, checkpoint=checkpoint
    ...     ).fit(X)
    ...     len(list(Path(folder).iterdir()))
    1
    """

    def __init__(self, folder: str | os.PathLike[str], keep: bool = False) -> None:
        self.folder = folder
        self.keep = keep


class FitFile(Watcher):
    """Where a fit is kept while it runs. To be used in a `with` statement, as the last watcher.

    Parameters
    ----------
    checkpoint : path or Checkpoint
    depends_on : object
        All that the course of the fit depends on; see `digest`.
    seed : int
        What the fit drew its random numbers from so far.

    Attributes
    ----------
    seed : int
        What it has to draw them from to go on from the file: where a fit is not seeded by its user,
        it is in the file alone.
    """

    def __init__(
        self, checkpoint: str | os.PathLike[str] | Checkpoint, depends_on: Any, seed: int
    ) -> None:
        if not isinstance(checkpoint, Checkpoint):
            checkpoint = Checkpoint(checkpoint)
        given: Any = plain(checkpoint)
        folder = given.folder
        for name, kinds in (("folder", (str, os.PathLike)), ("keep", (bool,))):
            value = getattr(given, name)
            if not isinstance(value, kinds):
                expected = " or ".join(kind.__name__ for kind in kinds)
                raise ValueError(f"{name} of Checkpoint must be {expected}, got {value!r}.")
        self._keep = given.keep
        versions = (__version__, torch.__version__, np.__version__)
        key = digest([versions, depends_on])
        self._path = Path(folder, f"fit-{key}.safetensors")
        self._lock = Path(folder, f"fit-{key}.lock")
        self._temporary = f".fit-{key}.tmp"
        self._found: tuple[dict[str, Any], dict[str, np.ndarray]] | None = None
        self._state: TrainingState | None = None
        self._problem: OSError | None = None
        self._told = False
        self.seed = seed
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._last_write, self._took = time.monotonic(), 0.0
        self._locked = _acquire(self._lock)
        if self._locked is None:
            warn(
                f"A fit of the same parameters and data keeps its checkpoint in {folder} right "
                "now: this one runs without.",
                RuntimeWarning,
            )
            return
        try:
            self._path.with_name(self._temporary).unlink(missing_ok=True)
            if self._path.exists():
                self._read()
        except BaseException:
            _release(self._lock, self._locked)
            raise

    def begin(self, state: TrainingState) -> None:
        """Go on from the file, if there was one."""
        self._state = state
        if self._found is None:
            return
        try:
            state.load(*self._found)
        except (ValueError, TypeError, KeyError, RuntimeError) as error:
            self._discard(error)
        self._found = None

    def step(self, n_rows: int, summed_loss: torch.Tensor) -> None:
        """Write the file now and then within a long epoch."""
        if self._is_due(_SECONDS_WITHIN_EPOCH):
            self._write()

    def end_epoch(self, result: TrainingResult) -> bool:
        """Write the file, if that is due and the training goes on, or if it is to stay."""
        assert self._state is not None
        if self._keep if self._state.stopped else self._is_due(_SECONDS_BETWEEN):
            self._write()
        if self._problem is not None and not self._told:
            self._told = True
            warn(
                f"The fit goes on without a new checkpoint. {self._problem}",
                RuntimeWarning,
            )
        return False

    def _is_due(self, seconds: float) -> bool:
        wait = max(seconds, _TIMES_ITS_DURATION * self._took)
        return time.monotonic() >= self._last_write + wait

    def _write(self) -> None:
        if self._locked is None:
            return
        start = time.monotonic()
        assert self._state is not None
        document, arrays = self._state.save()
        try:
            document = {"seed": self.seed, **document}
            write_file(self._path, document, arrays, "checkpoint", self._temporary)
        except OSError as error:  # told at the end of the epoch, in the thread of the caller
            self._problem = error
        self._last_write = time.monotonic()
        self._took = self._last_write - start

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        """Remove the file if the fit is over, or would fail again in the same way."""
        if self._locked is None:
            return
        if kind is None:
            interrupted = self._state is None or self._state.result.interrupted
            over = not interrupted and not self._keep
        else:
            over = issubclass(kind, FloatingPointError)
        if over:
            self._remove()
        _release(self._lock, self._locked)
        self._locked = None

    def _remove(self) -> None:
        with suppress(OSError):  # no reason for a fit to fail
            self._path.unlink()

    def _read(self) -> None:
        try:
            document, arrays = read_file(self._path)
            seed = document.pop("seed")
            if type(seed) is not int or not 0 <= seed < 2**32:
                raise ValueError(f"its seed should be in [0, 2**32), got {seed!r}.")
        except (ValueError, TypeError, KeyError) as error:
            self._discard(error)
        else:
            self.seed, self._found = seed, (document, arrays)

    def _discard(self, error: Exception) -> None:
        warn(
            f"The checkpoint cannot be used, the fit starts anew: {error}",
            RuntimeWarning,
        )
        self._remove()


def _acquire(path: Path) -> BinaryIO | None:
    """Lock the file `path`, made if need be; returns None where another has locked it."""
    while True:
        file = path.open("ab")
        try:
            if sys.platform == "win32":
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
                return file
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Who had it may have removed the file since it was opened: a lock of no file.
            if os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                return file
        except FileNotFoundError:
            pass
        except (BlockingIOError, PermissionError):
            file.close()
            return None
        except BaseException:
            file.close()
            raise
        file.close()


def _release(path: Path, file: BinaryIO) -> None:
    if sys.platform == "win32":  # cannot remove what is open
        file.close()
    with suppress(OSError):
        path.unlink()
    file.close()


# What a fit depends on


def digest_of_rows(X: Rows) -> str:
    """Return a digest of X: of all its bytes, or, where it is large, of some of its rows."""
    n_rows = X.shape[0]
    size = n_rows * X.shape[1] * X.dtype.itemsize
    if sparse.issparse(X):
        size = X.data.nbytes + X.indices.nbytes
    whole = size <= _WHOLE_BYTES
    length = max(1, n_rows * _WHOLE_BYTES // (4 * _BLOCKS * max(size, 1)))
    n_blocks = -(-n_rows // length) if whole else _BLOCKS
    hashed = hashlib.blake2b(f"{X.shape} {X.dtype} {whole}".encode(), digest_size=16)
    for start in np.linspace(0, max(0, n_rows - length), n_blocks).astype(np.intp).tolist():
        block = X[start : start + length]
        stored = [block.indptr, block.indices, block.data] if sparse.issparse(X) else [block]
        for array in map(np.ascontiguousarray, stored):
            hashed.update(array.reshape(-1).view(np.uint8).data)
    return hashed.hexdigest()


def digest(value: Any) -> str:
    """Return a digest of a value, the same in every process.

    Functions and classes of the caller's own count by their code and the numbers and strings that
    they read; what they call in other modules only by its name.

    Raises
    ------
    TypeError
        If there is a part that has no value, like an open file.
    """
    hashed = hashlib.blake2b(digest_size=16)
    try:
        for part in _parts(value, {}):
            hashed.update(len(part).to_bytes(8, "little") + part)
    except (TypeError, RecursionError) as error:
        raise TypeError(
            "checkpoint has to tell one fit from another by the values of its parameters, which "
            f"these have not: {error}. Set it to None, or change the network, loss or regularizer."
        ) from error
    return hashed.hexdigest()


def _parts(value: Any, seen: dict[int, Any]) -> Iterator[bytes]:
    """What tells `value` from others; `seen` holds the functions and classes met so far."""
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
    # A script that starts processes has another name in them.
    module = "__main__" if kind.__module__ == "__mp_main__" else kind.__module__
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
    reduced = value.__reduce_ex__(2)  # what makes it what it is, as pickle has it
    return [reduced] if isinstance(reduced, str) else list(reduced[:3])


def _code(value: Any) -> list[Any]:
    """What a function or class of the caller's own consists of."""
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
