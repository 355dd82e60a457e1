import io
import itertools
import os
import re
import sys

import numpy as np
import pytest
import torch

import aefeatures._train.progress
from aefeatures import AutoencoderTransformer
from aefeatures._train.progress import Progress
from aefeatures._train.training import TrainingResult


class Terminal(io.TextIOWrapper):
    """A terminal of 80 columns, as far as a program can tell."""

    def __init__(self, encoding="utf-8"):
        super().__init__(io.BytesIO(), encoding=encoding)

    def isatty(self):
        return True

    def text(self):
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)


class Clock:
    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(aefeatures._train.progress.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture(autouse=True)
def columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")


def train(progress, clock, *, epochs, steps=10, seconds=1.0, validation=True):
    """Steps of 10 rows with a loss of 0.5 per row, `seconds` each."""
    result = TrainingResult()
    for _ in range(epochs):
        progress.begin_epoch()
        for step in range(1, steps + 1):
            clock.now += seconds
            progress.step(10, torch.tensor(5.0 * step))
        result.loss_curve.append(0.25)
        if validation:
            result.validation_loss_curve.append(0.125)
        assert not progress.end_epoch(result)
    progress.close()


def test_terminal_shows_one_line_that_fits(clock):
    stream = Terminal()
    train(Progress(4, 100, stream), clock, epochs=4)
    text = stream.text()
    assert text.count("\n") == 1
    assert text.endswith("\n")
    shown = text.strip("\n").split("\r")[1:]
    assert max(map(len, shown)) <= 79
    assert shown[0].startswith("Epoch 1/4 ")
    assert shown[0].rstrip().endswith("loss 0.5000, 10 rows/s, 0:39 left")
    assert "Epoch 2/4 " in shown[14]
    assert "loss 0.5000, validation 0.1250, 10 rows/s, 0:25 left" in shown[14]
    assert shown[-1].split("  ")[0].startswith("Epoch 4/4 ")
    assert "loss 0.2500, validation 0.1250, 10 rows/s, took 0:40" in shown[-1]
    # Each line overwrites all of the one before it.
    assert all(len(b) >= len(a.rstrip()) for a, b in itertools.pairwise(shown))


def test_terminal_is_written_at_most_ten_times_a_second(clock):
    stream = Terminal()
    train(Progress(1, 10_000, stream), clock, epochs=1, steps=1000, seconds=0.001)
    assert 5 <= stream.text().count("\r") <= 11


@pytest.mark.parametrize("columns", [1, 20, 60, 200])
def test_terminal_of_any_width_and_encoding(clock, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = Terminal("ascii")
    train(Progress(4, 100, stream), clock, epochs=4)
    assert max(map(len, stream.text().strip("\n").split("\r"))) <= max(columns - 1, 0)
    assert ("#" in stream.text()) == (columns > 20)


def test_terminal_line_is_left_when_training_is_broken_off(clock):
    stream = Terminal()
    progress = Progress(4, 100, stream)
    clock.now += 1
    progress.step(10, torch.tensor(5.0))
    progress.close()
    progress.close()
    assert stream.text().count("\n") == 1
    assert stream.text().endswith("\n")


def test_log_gets_a_line_per_epoch_but_at_most_one_a_second(clock):
    stream = io.StringIO()
    train(Progress(3, 100, stream), clock, epochs=3, seconds=1.0, validation=False)
    assert stream.getvalue().splitlines() == [
        "[Epoch 1/3] loss 0.2500, 10 rows/s, 0:20 left",
        "[Epoch 2/3] loss 0.2500, 10 rows/s, 0:10 left",
        "[Epoch 3/3] loss 0.2500, 10 rows/s, took 0:30",
    ]
    stream = io.StringIO()
    train(Progress(1000, 100, stream), clock, epochs=1000, seconds=0.001)
    lines = stream.getvalue().splitlines()
    assert 10 <= len(lines) <= 12
    assert lines[0].startswith("[Epoch 1/1000] ")
    assert lines[-1].startswith("[Epoch 1000/1000] ")


def test_log_gets_a_line_a_minute_within_a_long_epoch(clock):
    stream = io.StringIO()
    train(Progress(2, 100, stream), clock, epochs=2, steps=10, seconds=30.0)
    assert [line.split("]")[0] for line in stream.getvalue().splitlines()] == [
        *(f"[Epoch 1/2, {percent}%" for percent in (20, 40, 60, 80, 100)),
        "[Epoch 1/2",
        *(f"[Epoch 2/2, {percent}%" for percent in (20, 40, 60, 80, 100)),
        "[Epoch 2/2",
    ]


def test_training_that_stops_early_ends_with_its_last_epoch(clock):
    stream = io.StringIO()
    train(Progress(100, 100, stream), clock, epochs=2, seconds=0.001)
    assert stream.getvalue().splitlines()[-1].startswith("[Epoch 2/100] loss 0.2500")
    assert stream.getvalue().splitlines()[-1].endswith("took 0:00")


def test_jupyter_rewrites_its_line(clock):
    stream = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})()
    train(Progress(2, 100, stream), clock, epochs=2)
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().count("\r") > 10


def test_dumb_terminal_is_a_log(clock, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    train(Progress(2, 100, stream), clock, epochs=2)
    assert "\r" not in stream.text()


def test_without_a_console_nothing_is_written(monkeypatch, digits):
    monkeypatch.setattr(sys, "stdout", None)
    AutoencoderTransformer(max_epochs=1, verbose=1).fit(digits[0])


def test_codes_are_the_same_with_progress(digits, capsys):
    codes = [
        AutoencoderTransformer(max_epochs=3, random_state=0, verbose=verbose).fit_transform(
            digits[0]
        )
        for verbose in (0, 1)
    ]
    np.testing.assert_array_equal(*codes)


def test_silent_fit_writes_no_file_and_no_output(digits, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    AutoencoderTransformer(max_epochs=3).fit(digits[0])
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal")
def test_fit_in_a_real_terminal(digits, monkeypatch):
    reader, writer = os.openpty()
    with os.fdopen(writer, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        AutoencoderTransformer(max_epochs=2, verbose=1).fit(digits[0])
        monkeypatch.undo()
        text = os.read(reader, 100_000).decode()
    os.close(reader)
    assert re.fullmatch(r"(\r[^\r\n]+)+\r\n", text)
    assert "Epoch 2/2" in text


def test_interrupt_leaves_the_line_before_it_warns(digits, capsys, monkeypatch):
    monkeypatch.setattr(aefeatures._train.training, "_last_interrupt", -np.inf)
    calls = []

    def loss(reconstruction, target):
        calls.append(0)
        if len(calls) == 50:
            raise KeyboardInterrupt
        return ((reconstruction - target) ** 2).mean(dim=1)

    with pytest.warns(UserWarning, match="interrupted by user in epoch 3"):
        AutoencoderTransformer(max_epochs=9, loss=loss, verbose=1).fit(digits[0])
    assert capsys.readouterr().out.splitlines()[-1].startswith("[Epoch 2/9] loss")
