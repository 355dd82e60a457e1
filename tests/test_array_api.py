"""scikit-learn's array API, in a process whose SCIPY_ARRAY_API is 1: `test_common.py` starts it."""

import pickle

import array_api_strict
import numpy as np
import pytest
import torch
from sklearn import config_context
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import estimator_checks_generator

from aefeatures import (
    AutoencoderGenerator,
    AutoencoderImputer,
    AutoencoderTransformer,
    CodeSensitivityDisplay,
    LatentSpaceDisplay,
    LatentTraversalDisplay,
    NextFramePredictor,
    _autoencoder,
    code_importance,
    code_sensitivity,
    write_latent_map,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:n_components=. is not below:UserWarning"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def quick(**params):
    return AutoencoderTransformer(max_epochs=2, random_state=0, **params)


@pytest.fixture(autouse=True)
def dispatch():
    with config_context(array_api_dispatch=True):
        yield


def checks():
    """Those of scikit-learn that can run here."""
    for estimator in (
        quick(),
        quick(regularizer=["supervised", "neighbors"]),
        NextFramePredictor(quick()),
        AutoencoderImputer(quick()),
        AutoencoderGenerator(quick()),
    ):
        for each, check in estimator_checks_generator(estimator):
            what = check.keywords
            used = [
                (what.get("array_namespace"), what.get("device_name")),
                *(what[name] for name in what if name.endswith("_ns_and_device")),
            ]
            here = {"numpy": [None], "torch": [None, *DEVICES]}
            if check.func.__name__.startswith("check_array_api") and all(
                name in (None, "array_api_strict") or device in here.get(name, [])
                for name, device in used
            ):
                yield each, check


@pytest.mark.parametrize(("estimator", "check"), list(checks()))
def test_scikit_learn_contract(estimator, check):
    with config_context(array_api_dispatch=False):
        check(estimator)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("dtype", "given"),
    [
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.uint8, torch.float32),
        (torch.int64, torch.float64),
    ],
)
def test_tensors_in_tensors_out(digits, device, dtype, given):
    X = torch.from_numpy(digits[1].copy()).to(device, dtype)
    before = X.clone()
    transformer = quick().fit(X)
    # NumPy has no bfloat16; in float32 the rows are the same, and encoded in float32 as well.
    rows = X.cpu().float().numpy() if dtype == torch.bfloat16 else X.cpu().numpy()
    with config_context(array_api_dispatch=False):
        same = quick().fit(rows)
        expected = [getattr(same, m)(rows) for m in ("transform", "reconstruct", "score_samples")]
        expected.append(same.inverse_transform(expected[0]))
        expected.append(same.score_samples(rows, per_feature=True))
    codes = transformer.transform(X)
    results = [
        codes,
        transformer.reconstruct(X),
        transformer.score_samples(X),
        transformer.inverse_transform(codes),
        transformer.score_samples(X, per_feature=True),
    ]
    for result, array in zip(results, expected, strict=True):
        assert (result.device, result.dtype) == (X.device, given)
        tolerance = 1e-5 if device == "cpu" else 1e-3
        np.testing.assert_allclose(result.cpu(), array, rtol=tolerance, atol=tolerance)
    assert isinstance(transformer.score(X), float)
    assert torch.equal(X, before)
    assert torch.equal(pickle.loads(pickle.dumps(transformer)).transform(X), codes)
    assert torch.equal(clone(transformer).fit_transform(X), codes)


def test_tensors_on_the_cpu_are_not_copied(digits, monkeypatch):
    X = torch.from_numpy(digits[1].astype(np.uint8))
    seen = []
    check = _autoencoder.check_fitted_rows

    def look(transformer, X, method):
        seen.append(check(transformer, X, method))
        return seen[-1]

    monkeypatch.setattr(_autoencoder, "check_fitted_rows", look)
    quick().fit(X).transform(X)
    assert seen[0].dense().ctypes.data == X.data_ptr()


def test_what_tensors_may_be(digits):
    X = digits[1].astype(np.float32)
    transformer = quick().fit(X)
    codes = transformer.transform(X)
    assert isinstance(codes, np.ndarray)
    # Of a model that was fitted on NumPy's arrays, any library may ask.
    for rows in (
        torch.from_numpy(X.copy()).requires_grad_(),
        torch.from_numpy(X.T.copy()).T,
        torch.from_numpy(X.repeat(2, axis=0))[::2],
    ):
        result = transformer.transform(rows)
        assert isinstance(result, torch.Tensor)
        assert not result.requires_grad
        np.testing.assert_allclose(result, codes, rtol=1e-6)
    strict = transformer.transform(array_api_strict.asarray(X))
    assert type(strict) is type(array_api_strict.asarray(X))
    with config_context(array_api_dispatch=False):
        assert isinstance(transformer.transform(torch.from_numpy(X)), np.ndarray)
    with pytest.raises(ValueError, match="Input X contains infinity"):
        transformer.transform(torch.full((2, 64), torch.inf))
    with pytest.raises(ValueError, match="X has 63 features, but AutoencoderTransformer"):
        transformer.transform(torch.ones(2, 63))


def test_one_library_for_fit_and_the_rest(digits):
    X = digits[1]
    transformer = quick().fit(torch.from_numpy(X.copy()))
    codes = transformer.transform(torch.from_numpy(X.copy()))
    for method, value in (
        ("transform", X),
        ("reconstruct", X.tolist()),
        ("score_samples", X),
        ("score", X),
        ("inverse_transform", codes.numpy()),
    ):
        with pytest.raises(ValueError, match=rf"{method}\(\) must use the same namespace.*torch"):
            getattr(transformer, method)(value)
    with config_context(array_api_dispatch=False):
        np.testing.assert_array_equal(transformer.transform(X), codes)
    transformer.partial_fit(X)
    assert isinstance(transformer.transform(X), np.ndarray)


def test_labels_and_pipelines(digits):
    X, y = torch.from_numpy(digits[0].copy()), torch.from_numpy(digits[2].copy())
    supervised = quick(regularizer="supervised").fit(X, y)
    same = quick(regularizer="supervised").fit(digits[0], digits[2])
    np.testing.assert_array_equal(supervised.transform(X), same.transform(digits[0]))
    codes = make_pipeline(quick(), quick(n_components=2)).fit_transform(X)
    assert codes.shape == (len(X), 2)
    assert isinstance(codes, torch.Tensor)
    generator = AutoencoderGenerator(quick(), random_state=0).fit(X, y)
    assert isinstance(generator.sample(3)[0], np.ndarray)
    assert generator.score_samples(X).shape == generator.score_samples(digits[0]).shape
    assert generator.interpolate(X[0], X[1], 3).shape == (3, 64)
    np.testing.assert_array_equal(generator.sample(3, y[:3])[1], digits[2][:3])
    frozen = FrozenEstimator(quick().fit(X))
    generator = AutoencoderGenerator(frozen, random_state=0).fit(X, y)
    assert generator.sample(3)[0].shape == (3, 64)
    assert generator.score_samples(X).shape == (len(X),)
    assert generator.interpolate(X[0], X[1], 3).shape == (3, 64)


@pytest.mark.parametrize("device", DEVICES)
def test_sensitivities_of_tensors(digits, device):
    X = torch.from_numpy(digits[1].copy()).to(device)
    transformer = quick().fit(X)
    found = code_sensitivity(transformer, X)
    assert (found.device, found.dtype) == (X.device, torch.float64)
    with config_context(array_api_dispatch=False):
        same = quick().fit(digits[1])
        expected = code_sensitivity(same, digits[1])
        drops = code_importance(same, digits[1]).drop
    np.testing.assert_allclose(found.cpu(), expected, atol=1e-3 * np.abs(expected).max())
    np.testing.assert_allclose(code_importance(transformer, X).drop, drops, atol=1e-3)


def test_pictures_of_tensors(digits, tmp_path):
    X, y = torch.from_numpy(digits[1].copy()), torch.from_numpy(digits[3].copy())
    transformer = quick(n_components=2).fit(X)
    for kind in (CodeSensitivityDisplay, LatentTraversalDisplay):
        assert kind.from_estimator(transformer, X, image_shape=(8, 8)).ax_.images
    display = LatentSpaceDisplay.from_estimator(transformer, X, y)
    assert len(display.ax_.get_legend().get_texts()) == 10
    pages = [tmp_path / "tensors.html", tmp_path / "arrays.html"]
    write_latent_map(transformer, X, y, path=pages[0], image_shape=(8, 8))
    with config_context(array_api_dispatch=False):
        write_latent_map(transformer, digits[1], digits[3], path=pages[1], image_shape=(8, 8))
    assert pages[0].read_bytes() == pages[1].read_bytes()
