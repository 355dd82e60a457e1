"""Fits that go on after the process was killed: a file of a fit's state in a folder.

The file is named by a digest of what the fit depends on, so that the same fit finds it again and
clones in a search can share the folder. A lock beside it, which the operating system takes
back when the process dies, keeps a second fit of the same kind away from it.
"""

from __future__ import annotations

import os
import sys
import time
import types
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator

from aefeatures._files import read_file, write_file
from aefeatures._nets.networks import plain
from aefeatures._train.digests import digest
from aefeatures._train.training import TrainingResult, TrainingState, Watcher
from aefeatures._version import __version__
from aefeatures._warnings import warn

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

# Least seconds between two checkpoints, at the end of an epoch and within an epoch, and in
# multiples of the seconds that writing one took.
_SECONDS_BETWEEN = 1.0
_SECONDS_WITHIN_EPOCH = 120.0
_TIMES_ITS_DURATION = 20


class Checkpoint(BaseEstimator):
    """A folder that keeps running fits, for the parameter `checkpoint`.

    Parameters
    ----------
    folder : str or path-like
        Created if it does not exist. Passing the folder itself as `checkpoint` is the same as
        `keep=False`.
    keep : bool, default=False
        Whether the file stays at the end of the fit. The same `fit` then reads its result from the
        file instead of training, even after an early stop.

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
    """The file that keeps a running fit. It has to be used in a `with` statement, as last watcher.

    Parameters
    ----------
    checkpoint : path or Checkpoint
    depends_on : object
        Everything that the course of the fit depends on; see `digest`.
    seed : int
        Seed of the fit if there is no file.

    Attributes
    ----------
    seed : int
        Seed of the fit: that in the file, if there is one. If the user sets no `random_state`, the
        seed is known from the file alone.
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
        self._warned = False
        self.seed = seed
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._last_write, self._took = time.monotonic(), 0.0
        self._locked = _acquire(self._lock)
        if self._locked is None:
            warn(
                f"A fit with the same parameters and data is running and keeps its checkpoint in "
                f"{folder}: this one runs without a checkpoint.",
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
        """Continue from the file, if there is one."""
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
        """Write the file if that is due and the training continues, or if the file shall stay."""
        assert self._state is not None
        if self._keep if self._state.stopped else self._is_due(_SECONDS_BETWEEN):
            self._write()
        if self._problem is not None and not self._warned:
            self._warned = True
            warn(
                f"The fit continues without a new checkpoint. {self._problem}",
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
        except OSError as error:  # warned of at the end of the epoch, in the caller's thread
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
            f"The checkpoint cannot be used, the fit starts from the beginning: {error}",
            RuntimeWarning,
        )
        self._remove()


def _acquire(path: Path) -> BinaryIO | None:
    """Lock the file `path`, which is created if needed; return None if it is locked already."""
    while True:
        file = path.open("ab")
        try:
            if sys.platform == "win32":
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
                return file
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The last owner may have removed the file since it was opened here.
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
