"""Progress of a training for `verbose=1`: one line that is rewritten, or lines in a log."""

from __future__ import annotations

import io
import os
import shutil
import sys
import time
from typing import TextIO

import torch

from aefeatures._train.training import TrainingResult, TrainingState, Watcher

# Seconds between two writes: a log gets at most a line a second at the end of an epoch, and one a
# minute within an epoch that takes longer.
_LIVE_SECONDS = 0.1
_LOG_SECONDS = 1.0
_LOG_SECONDS_WITHIN_EPOCH = 60.0
_WIDEST_BAR = 24
_NARROWEST_BAR = 6


class Progress(Watcher):
    """Shows the progress of a training.

    In a terminal and in Jupyter it is one line, rewritten up to ten times a second; elsewhere
    a line after the first epoch and the last and, between them, at most one a second.

    Parameters
    ----------
    max_epochs : int
    n_rows : int
        Rows of an epoch.
    stream : file, optional
        Default is what `sys.stdout` is at the time; nothing is written where that is None.
    """

    def __init__(self, max_epochs: int, n_rows: int, stream: TextIO | None = None) -> None:
        self._max_epochs, self._n_rows = max_epochs, n_rows
        self._stream = stream or sys.stdout or io.StringIO()
        self._live = _rewrites_lines(self._stream)
        self._full, self._empty = _bar_characters(self._stream)
        self._epoch = self._epochs_before = 0  # epochs that are over; those of an earlier run
        self._rows = self._rows_before = 0  # of the epoch that is not
        self._loss: float | None = None
        self._validation_loss: float | None = None
        self._start = self._last_write = time.monotonic()
        self._within_epoch = _LIVE_SECONDS if self._live else _LOG_SECONDS_WITHIN_EPOCH
        self._after_epoch = _LIVE_SECONDS if self._live else _LOG_SECONDS
        self._pending = False  # whether what is known of the last epoch is yet to be written
        self._written = 0  # characters of the line that the next one overwrites

    def begin(self, state: TrainingState) -> None:
        """Count from where the training goes on."""
        self._epoch = self._epochs_before = len(state.result.loss_curve)
        self._rows = self._rows_before = state.rows_done

    def step(self, n_rows: int, summed_loss: torch.Tensor) -> None:
        """Write now and then."""
        self._rows += n_rows
        now = time.monotonic()
        if now - self._last_write < self._within_epoch:
            return
        # Waits for the step to end where that is a GPU's: not more often than it is shown.
        self._loss = float(summed_loss) / self._rows
        self._write(self._message())

    def end_epoch(self, result: TrainingResult) -> bool:
        """Write the epoch's losses, where that is due."""
        self._epoch += 1
        self._rows = 0
        self._loss = result.loss_curve[-1]
        if result.validation_loss_curve:
            self._validation_loss = result.validation_loss_curve[-1]
        self._pending = True
        first_in_log = self._epoch == self._epochs_before + 1 and not self._live
        due = time.monotonic() - self._last_write >= self._after_epoch
        if (first_in_log or due) and self._epoch < self._max_epochs:
            self._write(self._message())
        return False

    def close(self) -> None:
        """Write the last epoch's losses and leave the line."""
        if self._pending:
            self._rows = 0
            self._write(self._message(over=True))
        if self._live and self._written:
            self._stream.write("\n")
            self._stream.flush()
            self._written = 0

    def _message(self, over: bool = False) -> str:
        elapsed = time.monotonic() - self._start
        done = self._epoch * self._n_rows + self._rows
        before = self._epochs_before * self._n_rows + self._rows_before
        here = max(done - before, 1)
        total = self._max_epochs * self._n_rows
        epoch = f"{self._epoch + (self._rows > 0)}/{self._max_epochs}"
        parts = [f"loss {self._loss:#.4g}"]
        if self._validation_loss is not None:
            parts.append(f"validation {self._validation_loss:#.4g}")
        parts.append(f"{here / max(elapsed, 1e-9):,.0f} rows/s")
        if over:
            parts.append(f"took {_duration(elapsed)}")
        else:
            parts.append(f"{_duration(elapsed * (total - done) / here)} left")
        if not self._live:
            within = f", {self._rows / self._n_rows:.0%}" if self._rows else ""
            return f"[Epoch {epoch}{within}] {', '.join(parts)}"
        columns = shutil.get_terminal_size().columns - 1
        while len(parts) > 1 and len(f"Epoch {epoch} {', '.join(parts)}") > columns:
            parts.pop(-2)  # the rate first
        text = ", ".join(parts)
        width = min(_WIDEST_BAR, columns - len(f"Epoch {epoch}  {text}"))
        filled = round(width * (1 if over else done / total))
        bar = self._full * filled + self._empty * (width - filled)
        bar = f"{bar} " if width >= _NARROWEST_BAR else ""
        return f"Epoch {epoch} {bar}{text}"[:columns]

    def _write(self, line: str) -> None:
        self._pending = False
        self._last_write = time.monotonic()
        if self._live:
            self._stream.write("\r" + line.ljust(self._written))
            self._written = len(line)
        else:
            self._stream.write(line + "\n")
        self._stream.flush()


def _rewrites_lines(stream: TextIO) -> bool:
    """Whether a carriage return goes back to the start of what is shown, as in Jupyter."""
    if type(stream).__module__.startswith("ipykernel."):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _bar_characters(stream: TextIO) -> tuple[str, str]:
    for characters in ("━╌", "#."):
        try:
            characters.encode(getattr(stream, "encoding", None) or "ascii")
        except UnicodeEncodeError:
            continue
        return characters[0], characters[1]
    return "#", "."


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
