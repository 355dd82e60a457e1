"""Data and fitted models that several test files read."""

import functools
import os
import shutil
import signal
import struct
import sys
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from aefeatures import AutoencoderTransformer
from aefeatures._autoencoder import PRESETS

os.environ.setdefault("MPLBACKEND", "agg")  # draws without a display
# For clusters of Ray on this machine. It starts 32 processes to read the ends of some small files,
# and ends processes that have done nothing for a second, so that the next task starts others.
os.environ.setdefault("RAY_DATA_PARQUET_FOOTER_NUM_ACTORS", "1")
os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "600000")
os.environ.setdefault("RAY_num_workers_soft_limit", "12")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# WebGL by the processor: there need not be a GPU.
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]
# `test_common.py` runs it in a process of its own.
collect_ignore = [] if os.environ.get("SCIPY_ARRAY_API") == "1" else ["test_array_api.py"]


def pytest_collection_modifyitems(items):
    """Leave out what cannot run here.

    That is checks of the array API, which `test_array_api.py` runs, and the one example that older
    versions of scikit-learn lack something for.
    """
    items[:] = [item for item in items if "-check_array_api_" not in item.name]
    for item in items:
        if item.name.endswith(".ReconstructionMonitor") and not hasattr(
            AutoencoderTransformer, "set_callbacks"
        ):
            item.add_marker(pytest.mark.skip(reason="scikit-learn has callbacks from 1.9 on"))
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a GPU that PyTorch can use"))


@pytest.fixture(scope="session")
def digits():
    """X_train, X_test, y_train, y_test of the bundled digits, read-only."""
    parts = train_test_split(*load_digits(return_X_y=True), random_state=0)
    for part in parts:
        part.setflags(write=False)
    return parts


@pytest.fixture
def interruptible():
    """SIGINT raises KeyboardInterrupt, also where the test run was started in the background."""
    if sys.platform == "win32":
        pytest.skip("os.kill would end the process on Windows")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def fitted(digits):
    """A transformer fitted with its defaults. Not to be changed."""
    return AutoencoderTransformer(random_state=0).fit(digits[0])


@pytest.fixture
def short_neighbors_preset(monkeypatch):
    """For tests of whether code runs: the preset "neighbors" takes eight seconds on the digits."""
    monkeypatch.setitem(PRESETS["neighbors"], "max_epochs", 3)


@pytest.fixture
def short_fits(monkeypatch):
    """For tests of whether code runs: fewer digits, and 10 epochs unless it says how many."""
    X, y = load_digits(return_X_y=True)
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda **_: (X[:1300], y[:1300]))
    monkeypatch.setitem(AutoencoderTransformer.__init__.__kwdefaults__, "max_epochs", 10)
    monkeypatch.setattr("aefeatures._imputation._ROWS", 0)


@pytest.fixture(scope="session")
def operators_of_onnx():
    """PyTorch's table of the operators that it exports, made once; None for older versions."""
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        make = ONNXRegistry.from_torchlib
    except (ImportError, AttributeError):
        return None
    # PyTorch 2.5 gives it a dictionary.
    return functools.cache(make) if set(signature(make).parameters) <= {"opset_version"} else None


@pytest.fixture
def quick_exports(monkeypatch, operators_of_onnx):
    """Exports share that table, which takes as long to make as all else in a small export."""
    if operators_of_onnx is not None:
        name = "torch.onnx._internal.exporter._registration.ONNXRegistry.from_torchlib"
        monkeypatch.setattr(name, staticmethod(operators_of_onnx))


@pytest.fixture(scope="session")
def mnist_root(tmp_path_factory, digits):
    """The bundled digits in the files of torchvision's MNIST."""
    root = tmp_path_factory.mktemp("data")
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    X, X_test, y, y_test = digits
    for name, images, labels in (("train", X, y), ("t10k", X_test, y_test)):
        pixels = np.zeros((len(images), 28, 28), np.uint8)
        pixels[:, 2:26, 2:26] = np.kron(images.reshape(-1, 8, 8), np.ones((3, 3))) * 15
        header = struct.pack(">IIII", 0x803, len(pixels), 28, 28)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        header = struct.pack(">II", 0x801, len(labels))
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(header + labels.astype(np.uint8).tobytes())
    return root


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright for Python")
    if CHROMIUM is None:
        pytest.skip("needs the browser Chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def mnist():
    """X_train, X_test, y_train, y_test of MNIST as rows of uint8."""
    path = Path(os.environ.get("AEFEATURES_DATA", "")) / "mnist.npz"
    if not path.exists():
        pytest.skip("needs mnist.npz in the folder that AEFEATURES_DATA names")
    with np.load(path) as data:
        return (
            data["X_train"].reshape(60_000, -1),
            data["X_test"].reshape(10_000, -1),
            data["y_train"],
            data["y_test"],
        )
