"""Data and fitted models that several test files read."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from aefeatures import AutoencoderTransformer


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
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def fitted(digits):
    """A transformer fitted with its defaults. Not to be changed."""
    return AutoencoderTransformer(random_state=0).fit(digits[0])


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
