import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy
from sklearn.base import clone
from sklearn.neighbors import KernelDensity
from sklearn.utils.estimator_checks import parametrize_with_checks

from aefeatures import (
    AutoencoderGenerator,
    AutoencoderImputer,
    AutoencoderTransformer,
    NextFramePredictor,
)
from aefeatures._autoencoder import PRESETS
from aefeatures._nets.regularizers import REGULARIZERS

# The checks fit data of two columns, and for so short that little is learned.
pytestmark = [
    pytest.mark.filterwarnings("ignore:n_components=. is not below:UserWarning"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning"),
]


@parametrize_with_checks(
    [
        AutoencoderTransformer(max_epochs=2),
        AutoencoderTransformer(max_epochs=2, early_stopping=True),
        AutoencoderTransformer(max_epochs=2, normalization="batch", precision="float64"),
        AutoencoderTransformer(max_epochs=2, regularizer=["supervised", "neighbors"]),
        AutoencoderImputer(AutoencoderTransformer(max_epochs=2)),
        NextFramePredictor(AutoencoderTransformer(max_epochs=2)),
        AutoencoderGenerator(AutoencoderTransformer(max_epochs=2)),
        AutoencoderGenerator(
            AutoencoderTransformer(max_epochs=2, regularizer="supervised"), KernelDensity()
        ),
    ]
)
def test_scikit_learn_contract(estimator, check):
    check(estimator)


def test_array_api_where_it_is_allowed():
    if tuple(map(int, scipy.__version__.split(".")[:2])) < (1, 14):
        pytest.skip("scipy has the array API from 1.14 on")
    path = Path(__file__).with_name("test_array_api.py")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", str(path)],
        env={**os.environ, "SCIPY_ARRAY_API": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.slow
@parametrize_with_checks(
    [AutoencoderTransformer(max_epochs=2, regularizer=name) for name in REGULARIZERS]
    + [
        AutoencoderTransformer.from_preset(name, max_epochs=2)
        for name in PRESETS
        if name != "images"  # the checks' columns are no squares
    ]
)
def test_scikit_learn_contract_of_each_regularizer_and_preset(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([AutoencoderTransformer(), NextFramePredictor(), AutoencoderImputer()])
def test_scikit_learn_contract_with_default_parameters(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    ("n_columns", "dtype"),
    [
        *((n_columns, np.float32) for n_columns in (1, 4, 9, 12, 16, 75)),
        *((n_columns, dtype) for n_columns in (9, 75) for dtype in (np.float64, np.uint8)),
        *(
            pytest.param(n_columns, dtype, marks=pytest.mark.slow)
            for n_columns in (1, 4, 12, 16)
            for dtype in (np.float64, np.uint8)
        ),
    ],
)
def test_contract_of_the_images_preset_on_square_columns(n_columns, dtype):
    X = np.random.default_rng(0).integers(0, 255, (20, n_columns)).astype(dtype)
    X.setflags(write=False)
    estimator = AutoencoderTransformer.from_preset("images", max_epochs=2, random_state=0)
    before = repr(estimator.get_params())
    codes = estimator.fit_transform(X)
    assert repr(estimator.get_params()) == before
    assert codes.dtype == (np.float64 if dtype == np.float64 else np.float32)
    tolerance = {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_array_equal(clone(estimator).fit(X).transform(X), codes)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(estimator)).transform(X), codes)
    by_rows = np.vstack([estimator.transform(X[i : i + 1]) for i in range(20)])
    np.testing.assert_allclose(by_rows, codes, **tolerance)
    np.testing.assert_allclose(estimator.transform(X[::-1])[::-1], codes, **tolerance)
    assert estimator.set_output(transform="pandas").transform(X).shape == (20, 3)
    assert estimator.partial_fit(X).n_iter_ == 3
    assert clone(estimator).fit(X[:1]).reconstruct(X).shape == X.shape
    with pytest.raises(ValueError, match=f"X has {n_columns + 1} features, but Autoencoder"):
        estimator.transform(np.hstack([X, X[:, :1]]))


@pytest.mark.parametrize("n_columns", [2, 5, 24])
def test_images_are_square(n_columns):
    with pytest.raises(ValueError, match=f"{n_columns} columns are neither a square image nor"):
        AutoencoderTransformer.from_preset("images").fit(np.ones((3, n_columns)))
