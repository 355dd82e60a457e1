import datetime as dt
import inspect
import itertools
import os
import pickle
import random
import subprocess
import sys
import threading
import warnings

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from helpers import split_of
from scipy import sparse
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import aefeatures._rows.batches
import aefeatures._rows.sources
import aefeatures._train.thread
import aefeatures._train.training
from aefeatures import (
    AutoencoderGenerator,
    AutoencoderTransformer,
    ConvNetwork,
    DenseNetwork,
    NeighborPreserving,
    Variational,
)
from aefeatures._autoencoder import fitted_model


def quick(**params):
    return AutoencoderTransformer(**{"max_epochs": 3, "random_state": 0, **params})


# What it is for


def test_codes_in_a_pipeline_beat_those_of_pca(digits):
    X, X_test, y, y_test = digits
    pipeline = make_pipeline(AutoencoderTransformer(random_state=0), SVC())
    score = pipeline.fit(X, y).score(X_test, y_test)
    assert score > 0.83
    assert score > make_pipeline(PCA(3), SVC()).fit(X, y).score(X_test, y_test) + 0.05


@pytest.mark.parametrize(
    "convert",
    [
        lambda X: X.astype(np.uint8),
        lambda X: np.rint(X * 4095 / 16).astype(np.uint16),
        lambda X: X.astype(np.float32) / 16,
        lambda X: (X - X.mean(axis=0)) * 1e-3,
    ],
    ids=["uint8", "12 bits in uint16", "[0, 1]", "small and centred"],
)
def test_raw_input_of_any_kind_trains_well(digits, convert):
    X, X_test, y, y_test = digits
    pipeline = make_pipeline(AutoencoderTransformer(random_state=0), KNeighborsClassifier())
    assert pipeline.fit(convert(X), y).score(convert(X_test), y_test) > 0.82


@pytest.mark.parametrize(("load", "bar"), [(load_wine, 0.85), (load_breast_cancer, 0.9)])
def test_columns_of_different_units_train_well(load, bar):
    X, X_test, y, y_test = train_test_split(*load(return_X_y=True), random_state=0)
    scores = [  # one of them depends on how the processor rounds
        make_pipeline(AutoencoderTransformer(random_state=seed), KNeighborsClassifier())
        .fit(X, y)
        .score(X_test, y_test)
        for seed in range(3)
    ]
    assert np.median(scores) > bar


def test_scores_are_those_of_the_fitted_loss(digits):
    transformer = quick(scaling="feature").fit(digits[0])
    expected = transformer.score(digits[1])
    assert transformer.set_params(loss="mae").score(digits[1]) == expected


def test_novelties_score_lower(digits):
    X, X_test, y, y_test = digits
    detector = AutoencoderTransformer(random_state=0).fit(X[y != 4])
    assert roc_auc_score(y_test != 4, detector.score_samples(X_test)) > 0.7


def test_alone_in_a_grid_search(digits):
    search = GridSearchCV(quick(), {"n_components": [1, 8]}, cv=2).fit(digits[0][:300])
    assert search.best_params_ == {"n_components": 8}
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


# The lecture


def test_preset_lecture():
    params = AutoencoderTransformer.from_preset("lecture", n_components=2).get_params()
    changed = {k: v for k, v in params.items() if v != AutoencoderTransformer().get_params()[k]}
    assert changed == {
        "hidden_layer_sizes": [128, 64, 12],
        "learning_rate_schedule": "constant",
        "max_epochs": 10,
        "init": "random",
        "regularizer": None,
        "n_components": 2,
    }
    with pytest.raises(ValueError, match=r"Unknown preset 'lectures'\. Presets: classes, images, "):
        AutoencoderTransformer.from_preset("lectures")


@pytest.mark.parametrize("name", ["classes", "images", "lecture", "neighbors", "tabular"])
def test_presets_train_and_share_nothing(digits, name):
    transformer = AutoencoderTransformer.from_preset(name, max_epochs=5, random_state=0)
    assert transformer.fit_transform(digits[0], digits[2]).shape == (len(digits[0]), 3)
    other = AutoencoderTransformer.from_preset(name)
    for parameter in ("regularizer", "network"):
        value = getattr(transformer, parameter)
        assert value in (None, "auto") or value is not getattr(other, parameter)


@pytest.mark.parametrize(
    ("preset", "params"),
    [
        ("images", {"network__image_shape": (28, 28)}),
        ("images", {"network__channels": (4,), "network__kernel_size": 5, "n_components": 7}),
        ("neighbors", {"regularizer__weight": 0.25, "regularizer__n_neighbors": 9}),
        ("neighbors", {"regularizer__n_neighbors": 3, "regularizer": NeighborPreserving(7)}),
        ("lecture", {"network__activation": "relu", "network": ConvNetwork()}),
        ("classes", {"regularizer__beta": 2.0, "regularizer": Variational(), "batch_size": 8}),
        ("tabular", {"n_components": 2}),
    ],
)
def test_presets_take_nested_names_as_set_params(preset, params):
    before = repr(AutoencoderTransformer.from_preset(preset).get_params())
    given = AutoencoderTransformer.from_preset(preset, **params)
    expected = AutoencoderTransformer.from_preset(preset).set_params(**params)
    assert repr(given.get_params()) == repr(expected.get_params())
    for name in params:
        if "__" in name:
            assert given.get_params()[name] == params[name]
    assert repr(AutoencoderTransformer.from_preset(preset).get_params()) == before


def test_a_preset_with_nested_names_trains(digits):
    X = digits[0][:, :60]
    params = {"network__image_shape": (6, 10), "network__channels": (4,), "max_epochs": 5}
    transformer = AutoencoderTransformer.from_preset("images", **params)
    assert transformer.fit_transform(X).shape == (len(X), 3)


@pytest.mark.parametrize(
    ("preset", "params", "text"),
    [
        ("classes", {"regularizer__weight": 1.0}, r"regularizer is \[Supervised\(.*nested names"),
        ("tabular", {"regularizer__weight": 1.0}, r"regularizer is 'auto', which has no nested n"),
        ("lecture", {"network__image_shape": (8, 8)}, "network is None, which has no nested name"),
        ("images", {"regularizer": ["sparse"], "regularizer__weight": 1}, r"is \['sparse'\], whi"),
        ("images", {"network__shape": (8, 8)}, "Invalid parameter 'shape' for estimator ConvNet"),
        ("images", {"shape": (8, 8)}, "Invalid parameter 'shape' for estimator AutoencoderTrans"),
        ("images", {"net__shape": (8, 8)}, "Invalid parameter 'net' for estimator AutoencoderTr"),
    ],
)
def test_unknown_names_of_presets(preset, params, text):
    with pytest.raises(ValueError, match=text):
        AutoencoderTransformer.from_preset(preset, **params)


@pytest.mark.parametrize("load", [load_wine, load_breast_cancer, load_digits])
def test_classes_preset_pays_before_a_classifier(load):
    X, y = load(return_X_y=True)
    X, X_new, y, y_new = train_test_split(X, y, stratify=y, random_state=0)
    transformer = AutoencoderTransformer.from_preset("classes", random_state=0).fit(X, y)
    pca = make_pipeline(StandardScaler(), PCA(3)).fit(X)

    def scores(model):
        knn = KNeighborsClassifier().fit(model.transform(X), y)
        return knn.score(model.transform(X_new), y_new), knn.score(model.transform(X), y)

    new, trained = scores(transformer)
    assert new >= scores(pca)[0]
    assert trained - new < 0.06, "codes of trained rows mislead the classifier"


def test_classes_preset_learns_from_rows_without_labels(digits):
    X, X_test, y, y_test = digits
    few = np.where(np.arange(len(y)) < 100, y, -1)
    transformer = AutoencoderTransformer.from_preset("classes", random_state=0).fit(X, few)
    knn = KNeighborsClassifier().fit(transformer.transform(X[:100]), y[:100])
    pca = make_pipeline(StandardScaler(), PCA(3)).fit(X)
    of_pca = KNeighborsClassifier().fit(pca.transform(X[:100]), y[:100])
    score = knn.score(transformer.transform(X_test), y_test)
    assert score > of_pca.score(pca.transform(X_test), y_test) + 0.1


CLASSES_OF_WINE = load_wine().target


@pytest.mark.parametrize(
    ("y", "task"),
    [
        (CLASSES_OF_WINE.astype(str), "classification"),
        (np.where(np.arange(178) % 3, CLASSES_OF_WINE.astype(str), None), "classification"),
        (np.where(np.arange(178) % 3, CLASSES_OF_WINE, np.nan), "classification"),
        (np.zeros(178, int), "classification"),
        (np.linspace(0, 1, 178), "regression"),
    ],
    ids=["texts", "missing texts", "missing numbers", "one class", "numbers"],
)
def test_classes_preset_takes_every_y(y, task):
    X, _ = load_wine(return_X_y=True)
    transformer = AutoencoderTransformer.from_preset("classes", max_epochs=5, random_state=0)
    codes = transformer.fit(X, y).transform(X)
    assert transformer.task_ == task
    np.testing.assert_array_equal(clone(transformer).fit_transform(X, y), codes)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.full(178, -1), r"No row of y is labelled\. The first fit needs at least one label"),
        (np.c_[CLASSES_OF_WINE, CLASSES_OF_WINE], "y should be a 1d array, got an array of shape"),
        (np.where(CLASSES_OF_WINE == 0, -1, 1), "y has -1 and one other value"),
        (None, "requires y to be passed, but the target y is None"),
    ],
)
def test_classes_preset_says_what_is_wrong_with_y(y, message):
    X, _ = load_wine(return_X_y=True)
    with pytest.raises(ValueError, match=message):
        AutoencoderTransformer.from_preset("classes").fit(X, y)


@pytest.mark.parametrize("max_epochs", [20, pytest.param("auto", marks=pytest.mark.slow)])
def test_neighbors_preset_serves_few_labels(digits, max_epochs):
    X, X_test, y, y_test = digits
    few = np.concatenate([np.flatnonzero(y == label)[:5] for label in range(10)])

    def score(transformer):
        transformer.fit(X)
        knn = KNeighborsClassifier(3).fit(transformer.transform(X[few]), y[few])
        return knn.score(transformer.transform(X_test), y_test)

    preset = AutoencoderTransformer.from_preset("neighbors", max_epochs=max_epochs, random_state=0)
    assert score(preset) > score(AutoencoderTransformer(random_state=0)) + 0.05


def test_lectures_loop_is_a_plain_for_loop(digits):
    X = digits[0]
    transformer = AutoencoderTransformer.from_preset("lecture", random_state=0)
    pictures = [transformer.partial_fit(X).reconstruct(X[:5]) for _ in range(5)]
    errors = [((picture - X[:5]) ** 2).mean() for picture in pictures]
    assert errors[-1] < 0.7 * errors[0]
    assert transformer.n_iter_ == len(transformer.loss_curve_) == 5
    assert transformer.n_steps_ == 5 * 22


def test_module_is_the_lectures(digits):
    X = (digits[0] / 16).astype(np.float32)
    transformer = quick().fit(X)
    module = transformer.to_module("autoencoder")
    encoded, decoded = module(torch.from_numpy(X))
    assert [name for name, _ in module.named_children()] == [
        "encoder",
        "decoder",
        "scaling",
        "fill",
    ]
    assert list(module.state_dict())[:2] == ["encoder.0.weight", "encoder.0.bias"]
    np.testing.assert_array_equal(encoded.detach(), module.encoder(torch.from_numpy(X)).detach())
    np.testing.assert_allclose(encoded.detach(), transformer.transform(X), atol=1e-5)
    np.testing.assert_allclose(decoded.detach(), transformer.reconstruct(X), atol=1e-5)


@pytest.mark.parametrize("dtype", ["f4", "f8", "u1", "i8"])
def test_modules_take_and_give_raw_units(fitted, digits, dtype):
    X = digits[1].astype(dtype)
    rows = torch.from_numpy(X)
    with torch.no_grad():
        codes = fitted.to_module("encoder")(rows)
        np.testing.assert_allclose(codes, fitted.transform(X), rtol=1e-4, atol=1e-4)
        back = fitted.to_module("decoder")(codes)
        np.testing.assert_allclose(back, fitted.reconstruct(X), atol=1e-3)


def test_modules_are_copies(digits):
    transformer = quick().fit(digits[0])
    before = transformer.transform(digits[1])
    module = transformer.to_module()
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            tensor.fill_(9)
    np.testing.assert_array_equal(transformer.transform(digits[1]), before)
    with pytest.raises(ValueError, match=r"part must be .* got 'middle'"):
        transformer.to_module("middle")


def assert_exports(transformer, X):
    """Every part goes through `torch.export`, and gives the same for any number of rows."""
    rows = torch.from_numpy(X.copy())
    for part in ("encoder", "decoder", "autoencoder"):
        module = transformer.to_module(part)
        inputs = torch.from_numpy(transformer.transform(X)) if part == "decoder" else rows
        n_rows = torch.export.Dim("n_rows", min=1)
        exported = torch.export.export(module, (inputs[:3],), dynamic_shapes=({0: n_rows},))
        for n in (1, 2, len(X)):
            expected = module(inputs[:n])
            torch.testing.assert_close(
                exported.module()(inputs[:n]), expected, rtol=1e-5, atol=1e-6
            )


def test_modules_are_exported(fitted, digits):
    assert_exports(fitted, digits[1])


NETWORKS_TO_EXPORT = [
    {},
    {"normalization": "layer"},
    {"normalization": "batch"},
    {"network": ConvNetwork()},
    {"network": ConvNetwork((8, 8), normalization="layer")},
    {"network": ConvNetwork((1, 8, 8), normalization="batch")},
    {"network": DenseNetwork((8,), n_principal_components=10)},
    {"regularizer": "variational"},
]


# Each with each scaling and with each dtype; the first with all pairs of these, which stand before
# the network and do not depend on it.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*learned nothing")
@pytest.mark.parametrize(
    ("params", "scaling", "dtype"),
    [
        (params, scaling, dtype)
        for i, params in enumerate(NETWORKS_TO_EXPORT)
        for j, scaling in enumerate(["auto", "feature", "wide"])
        for k, dtype in enumerate(["f4", "f8", "u1"])
        if i == 0 or (i + j + k) % 3 == 0
    ],
    ids=str,
)
def test_every_module_is_exported(digits, params, scaling, dtype):
    X = digits[0].astype(dtype)
    if scaling == "wide":  # beyond float32, in float64
        X, scaling = X.astype("f4" if dtype == "f4" else "f8") * 1e36, "auto"
    if X.dtype.kind == "f":
        X[::7, 3] = np.nan
    assert_exports(quick(max_epochs=1, scaling=scaling, **params).fit(X), X)


# fit and its record


def test_record_of_a_fit(fitted, digits):
    assert fitted.max_epochs_ == fitted.n_iter_ == len(fitted.loss_curve_) == 100
    assert fitted.n_steps_ == 100 * 22
    assert fitted.loss_ == fitted.loss_curve_[-1]
    assert fitted.best_loss_ == min(fitted.loss_curve_)
    assert fitted.validation_loss_curve_ is None
    assert fitted.device_.type in ("cpu", "cuda", "mps")
    assert -fitted.score(digits[0]) == pytest.approx(fitted.loss_, rel=0.1)


def test_init_only_stores():
    assert not [name for name in vars(AutoencoderTransformer()) if name.endswith("_")]
    for method in ("transform", "inverse_transform", "reconstruct", "score_samples", "to_module"):
        with pytest.raises(NotFittedError, match="not fitted yet"):
            getattr(AutoencoderTransformer(), method)(np.zeros((2, 3)))


def test_early_stopping_records_both_curves(digits):
    transformer = quick(early_stopping=True, max_epochs=400, n_iter_no_change=3).fit(digits[0])
    curve = transformer.validation_loss_curve_
    assert len(curve) == len(transformer.loss_curve_) == transformer.n_iter_ < 400
    assert transformer.best_loss_ == min(curve)
    assert transformer.n_steps_ == transformer.n_iter_ * -(-1212 // 64)


def test_early_stopping_needs_two_rows(digits):
    with pytest.raises(ValueError, match="n_samples=1"):
        quick(early_stopping=True).fit(digits[0][:1])


def test_warm_start_goes_on(digits):
    X = digits[0]
    transformer = quick(warm_start=True).fit(X)
    first = transformer.loss_
    transformer.fit(X)
    assert transformer.loss_ < first
    assert transformer.n_iter_ == len(transformer.loss_curve_) == 6
    transformer.set_params(warm_start=False).fit(X)
    assert transformer.n_iter_ == 3


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_training_on_needs_the_same_network(digits, method):
    X = digits[0]
    transformer = quick(warm_start=True).fit(X).set_params(n_components=4, activation="tanh")
    with pytest.raises(ValueError, match="n_components, activation changed since the last fit"):
        getattr(transformer, method)(X)
    assert transformer.transform(X).shape[1] == 3
    with pytest.raises(
        ValueError, match="X has 10 features, but AutoencoderTransformer is expecting"
    ):
        getattr(transformer, method)(X[:, :10])


def test_fit_after_fit_on_other_data_starts_anew(digits):
    X = digits[0]
    transformer = quick().fit(X[:50, :20]).fit(X)
    np.testing.assert_array_equal(transformer.transform(X), quick().fit(X).transform(X))


def test_partial_fit_after_fit_goes_on(digits):
    transformer = quick(max_epochs=20).fit(digits[0])
    before = transformer.score(digits[0])
    for _ in range(20):
        transformer.partial_fit(digits[0])
    assert transformer.score(digits[0]) > before
    assert transformer.n_iter_ == 40


def test_warm_start_validates_on_the_same_rows_and_keeps_no_stale_curve(digits):
    transformer = quick(early_stopping=True, warm_start=True, max_epochs=2).fit(digits[0])
    rows = split_of(transformer, 100)[1]
    transformer.fit(digits[0])
    np.testing.assert_array_equal(split_of(transformer, 100)[1], rows)
    assert len(transformer.validation_loss_curve_) == 4
    transformer.set_params(early_stopping=False).fit(digits[0])
    assert transformer.validation_loss_curve_ is None
    assert transformer.best_loss_ == min(transformer.loss_curve_)


def test_divergence_in_the_very_last_step_is_seen(digits):
    params = {"max_epochs": 1, "batch_size": 5000, "learning_rate": 1e38}
    with pytest.raises(FloatingPointError, match="diverged"):
        quick(**params, learning_rate_schedule="constant").fit(digits[0])


def test_partial_fit_takes_chunks_of_any_size(digits):
    X = digits[0]
    errors = []
    for seed in range(4):  # of one start the error is off by 5% either way
        transformer = quick(random_state=seed)
        for chunk in np.split(X, [1, 2, 100, 1000]) * 10:
            transformer.partial_fit(chunk)
        errors.append(((transformer.reconstruct(X) - X) ** 2).mean())
    assert np.mean(errors) < 0.7 * X.var(axis=0).mean()


def test_moments_go_from_call_to_call_but_not_into_a_pickle(digits):
    X = digits[0]
    together = quick().partial_fit(X).partial_fit(X)
    pickled = pickle.loads(pickle.dumps(quick().partial_fit(X))).partial_fit(X)
    assert not np.array_equal(together.transform(X), pickled.transform(X))
    cloned = clone(together).partial_fit(X).partial_fit(X)
    np.testing.assert_array_equal(together.transform(X), cloned.transform(X))


QUICK_PAIRS = [("mse", "layer"), ("bce", "batch")]  # of a loss and a normalization


@pytest.mark.parametrize(
    ("loss", "normalization"),
    [
        each if None in each or each in QUICK_PAIRS else pytest.param(*each, marks=pytest.mark.slow)
        for each in itertools.product(["mse", "bce", "mae", "huber"], [None, "layer", "batch"])
    ],
)
def test_losses_and_normalizations_learn(digits, loss, normalization):
    X = digits[0] / 16
    transformer = quick(loss=loss, normalization=normalization, max_epochs=20).fit(X)
    assert ((transformer.reconstruct(X) - X) ** 2).mean() < 0.85 * X.var(axis=0).mean()


@pytest.fixture(scope="module")
def in_float32(digits):
    return quick(max_epochs=20).fit(digits[0])


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("float32", torch.float32), ("float64", torch.float64), ("bfloat16", torch.float32)],
)
def test_precision(digits, in_float32, precision, dtype):
    transformer = quick(precision=precision, max_epochs=20).fit(digits[0])
    assert transformer.encoder_[0].weight.dtype == dtype
    assert transformer.score(digits[0]) == pytest.approx(in_float32.score(digits[0]), rel=0.15)
    different = not np.allclose(transformer.loss_curve_, in_float32.loss_curve_, rtol=1e-7)
    assert different == (precision != "float32")


# Two rows are too few for batch normalization to learn anything.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("normalization", [None, "layer", "batch"])
@pytest.mark.parametrize("n_rows", [1, 2, 65])
def test_few_rows_and_tails_of_one_row(digits, normalization, n_rows):
    transformer = quick(normalization=normalization, max_epochs=50).fit(digits[0][:n_rows])
    X = digits[0][:n_rows]
    if (n_rows, normalization) != (2, "batch"):
        assert ((transformer.reconstruct(X) - X) ** 2).mean() <= 0.9 * X.var(axis=0).mean()
    # All columns of one row are constant: they have no share in codes.
    assert ((transformer.transform(digits[1]).std(axis=0) > 0.1) == (n_rows > 1)).all()
    assert transformer.n_steps_ == 50 * -(-n_rows // 64)


def test_a_fit_that_learned_nothing_says_so(digits):
    with pytest.warns(
        ConvergenceWarning, match=r"learned nothing.*max_epochs \(now 3\), learning_rate"
    ):
        quick(learning_rate=1e-9, init="random").fit(digits[0])
    with pytest.warns(ConvergenceWarning, match="all of the 20 rows looked at are the same"):
        quick().fit(np.ones((20, 5)))


def test_verbose_and_silence(digits, capfd):
    quick().fit(digits[0])
    assert capfd.readouterr() == ("", "")
    quick(verbose=1).fit(digits[0])
    assert "[Epoch 3/3] loss " in capfd.readouterr().out


# What bad input and interrupts leave behind


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"learning_rate": 1e30}, FloatingPointError, "diverged.*learning_rate=1e"),
        ({"loss": lambda r, t: (r - t).mean()}, ValueError, "one number per row"),
        ({"device": "cuda:99"}, ValueError, "device='auto' or one of"),
    ],
)
def test_refused_fit_leaves_the_estimator_as_it_was(digits, method, params, error, message):
    X = digits[0]
    transformer = quick().fit(X)
    before = pickle.dumps(transformer.__getstate__())
    codes = transformer.transform(X)
    transformer.set_params(**params)
    with pytest.raises(error, match=message):
        getattr(transformer, method)(X)
    transformer.set_params(**{name: quick().get_params()[name] for name in params})
    assert pickle.dumps(transformer.__getstate__()) == before
    np.testing.assert_array_equal(transformer.transform(X), codes)
    fresh = AutoencoderTransformer(**params)
    with pytest.raises(error, match=message):
        getattr(fresh, method)(X)
    assert vars(fresh) == vars(AutoencoderTransformer(**params))


def test_interrupted_fit_is_usable(digits, monkeypatch):
    monkeypatch.setattr(aefeatures._train.training, "_last_interrupt", -np.inf)
    calls = []

    def loss(reconstruction, target):
        calls.append(0)
        if len(calls) == 50:
            raise KeyboardInterrupt
        return ((reconstruction - target) ** 2).mean(dim=1)

    with pytest.warns(UserWarning, match="interrupted by user in epoch 3"):
        transformer = quick(max_epochs=99, loss=loss).fit(digits[0])
    assert transformer.n_iter_ == 2
    assert transformer.transform(digits[1]).shape == (450, 3)


# X: kinds, dtypes, units


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("f8", "f8"), ("i8", "f8"), ("i4", "f8"), ("u4", "f8"), ("u8", "f8"),
        ("f4", "f4"), ("f2", "f4"), ("u1", "f4"), ("i2", "f4"), ("u2", "f4"), ("bool", "f4"),
    ],
)  # fmt: skip
def test_dtype_of_the_results_follows_x(fitted, digits, dtype, expected):
    X = digits[1].astype(dtype)
    codes = fitted.transform(X)
    assert codes.dtype == expected
    assert fitted.reconstruct(X).dtype == fitted.score_samples(X).dtype == expected
    assert fitted.inverse_transform(codes).dtype == expected


def test_x_is_not_changed_and_may_be_read_only(digits):
    X = digits[0].copy()
    quick().fit(X).transform(X)
    np.testing.assert_array_equal(X, digits[0])
    assert not digits[0].flags.writeable


def test_memory_order_and_memory_maps_make_no_difference(digits, tmp_path):
    X = digits[0].astype(np.float32)
    np.save(tmp_path / "X.npy", X)
    expected = quick().fit_transform(X)
    for same in (np.asfortranarray(X), np.load(tmp_path / "X.npy", mmap_mode="r"), X.tolist()):
        codes = quick().fit(same).transform(X)
        np.testing.assert_allclose(codes, expected, rtol=1e-3, atol=1e-3)


def test_rows_are_gathered_from_large_data_as_from_small(digits, monkeypatch):
    expected = quick().fit_transform(digits[0])
    monkeypatch.setattr(aefeatures._rows.batches, "_RESIDENT_BYTES", -1)
    monkeypatch.setattr(aefeatures._rows.sources, "_CHUNK_ELEMENTS", 64 * 7)
    np.testing.assert_allclose(quick().fit_transform(digits[0]), expected, rtol=1e-9)


def test_transform_of_a_row_does_not_depend_on_its_company(fitted, digits):
    X = digits[1]
    together = fitted.transform(X)
    alone = np.vstack([fitted.transform(X[i : i + 1]) for i in range(20)])
    np.testing.assert_allclose(together[:20], alone, rtol=1e-9)


def test_inverse_transform_has_the_parameter_of_scikit_learn(fitted, digits):
    codes = fitted.transform(digits[1])
    expected = fitted.inverse_transform(codes)
    np.testing.assert_array_equal(fitted.inverse_transform(X=codes), expected)
    with pytest.warns(FutureWarning, match="'Z' was renamed to 'X' in .*inverse_transform") as c:
        rows = fitted.inverse_transform(Z=codes)
    assert [each.filename for each in c] == [__file__]
    np.testing.assert_array_equal(rows, expected)
    parameters = {
        kind: list(inspect.signature(kind.inverse_transform).parameters)
        for kind in (AutoencoderTransformer, PCA)
    }
    assert parameters[AutoencoderTransformer][:2] == parameters[PCA] == ["self", "X"]
    # scikit-learn takes parameters other than X for metadata to route.
    assert not hasattr(AutoencoderTransformer, "set_inverse_transform_request")
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'X'"):
        fitted.inverse_transform()


def test_reconstruct_is_inverse_transform_of_transform(fitted, digits):
    X = digits[1]
    np.testing.assert_allclose(
        fitted.reconstruct(X), fitted.inverse_transform(fitted.transform(X)), rtol=1e-9, atol=1e-9
    )


def test_score_samples(fitted, digits):
    X = digits[1]
    scaled_error = (X - fitted.reconstruct(X)) / fitted_model(fitted).scaling.scale.numpy()
    np.testing.assert_allclose(fitted.score_samples(X), -(scaled_error**2).mean(axis=1))
    raw = fitted.score_samples(X, per_feature="raw")
    np.testing.assert_allclose(raw, -np.abs(X - fitted.reconstruct(X)), atol=1e-9)
    per_feature = fitted.score_samples(X, per_feature=True)
    np.testing.assert_allclose(per_feature, -np.abs(scaled_error), atol=1e-9)
    assert fitted.score(X) == pytest.approx(fitted.score_samples(X).mean())


def table(n_rows=300):
    """Seven columns of normal numbers that depend on two, in units from 1e-3 to 1e5."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n_rows, 2)) @ rng.normal(size=(2, 7)) + rng.normal(size=(n_rows, 7)) / 10
    return 1 + X * np.geomspace(1e-3, 1e5, 7)


EVERY_SCALING = ["auto", "standard", "feature", "global", None]


@pytest.fixture(scope="module", params=["standard", "feature"])
def of_units(request):
    """Fitted to columns of different units, with each scaling that looks at every column."""
    return quick(n_components=2, scaling=request.param, max_epochs=60).fit(table())


@pytest.mark.parametrize("column", range(7))
def test_scores_of_features_compare_columns_of_any_unit(column, of_units):
    X = table()
    odd = X[:20].copy()
    odd[:, column] += 30 * X[:, column].std()
    scores = of_units.score_samples(odd, per_feature=True)
    assert (scores.argmin(axis=1) == column).mean() >= 0.9
    in_units = of_units.score_samples(odd, per_feature="raw")
    np.testing.assert_allclose(in_units, scores * X.std(axis=0))


@pytest.mark.filterwarnings("ignore:.*learned nothing")
@pytest.mark.parametrize("scaling", EVERY_SCALING)
def test_scores_of_features_are_in_deviations_whatever_the_scaling(scaling):
    X = table() / 1e6
    X -= X.min()
    X /= X.max()  # so that "auto" leaves it as it is
    X[:5, 2] = np.nan
    transformer = quick(scaling=scaling).fit(X)
    scores = transformer.score_samples(X, per_feature=True)
    expected = -np.abs(X - transformer.reconstruct(X)) / np.nanstd(X, axis=0)
    np.testing.assert_allclose(scores, np.nan_to_num(expected), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("per_feature", ["deviations", 1, None, "True"])
def test_bad_per_feature(fitted, digits, per_feature):
    with pytest.raises(ValueError, match="per_feature must be True, False or 'raw', got"):
        fitted.score_samples(digits[1], per_feature=per_feature)


def test_scores_of_features_in_a_pipeline():
    X = table()
    pipeline = make_pipeline(PCA(whiten=False), quick(scaling="standard")).fit(X)
    scores = pipeline[-1].score_samples(pipeline[:-1].transform(X), per_feature=True)
    assert scores.shape == X.shape
    np.testing.assert_allclose(pipeline.score_samples(X), -np.square(scores).mean(axis=1))


# Columns and rows without information


@pytest.mark.filterwarnings("ignore:.*learned nothing")
@pytest.mark.parametrize("constant", [0.0, 1e-6, 0.3, 5.0, -1e5])
@pytest.mark.parametrize("scaling", EVERY_SCALING)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_constant_columns(constant, scaling, dtype):
    X = np.random.default_rng(0).normal(size=(200, 7))
    X[:, 3] = constant
    X = X.astype(dtype)
    transformer = quick(scaling=scaling).fit(X)
    odd = X.copy()
    odd[:, 3] = 2 * odd[:, 3] + (constant == 0)
    for rows in (X, odd):
        assert (transformer.reconstruct(rows)[:, 3] == X[0, 3]).all()
    codes = transformer.transform(X)
    assert (transformer.inverse_transform(3 * codes)[:, 3] == X[0, 3]).all()
    np.testing.assert_array_equal(transformer.transform(odd), codes)
    each = {name: transformer.score_samples(rows, per_feature=True) for name, rows in
            (("seen", X), ("odd", odd))}  # fmt: skip
    np.testing.assert_array_equal(each["seen"][:, 3], 0)
    # Beside columns of size 1 float32 hardly holds a constant of 1e-6.
    rtol = 1e-6 if dtype == np.float64 else 0.2
    np.testing.assert_allclose(each["odd"][:, 3], -1, rtol=rtol)
    if scaling in ("auto", "standard"):
        dearer = transformer.score_samples(X) - transformer.score_samples(odd)
        np.testing.assert_allclose(dearer, 1 / 7, rtol=1e-3)
    module = transformer.to_module("autoencoder")
    encoded, decoded = (part.detach().numpy() for part in module(torch.from_numpy(odd)))
    np.testing.assert_allclose(encoded, codes, rtol=1e-3, atol=1e-4 * np.abs(codes).max())
    np.testing.assert_array_equal(decoded[:, 3], np.float32(X[0, 3]).astype(decoded.dtype))


@pytest.mark.parametrize("bytes_", [True, False])
def test_constant_pixels_come_back_and_enter_the_codes(digits, bytes_):
    """Where all columns are of one kind a pixel that is lit for the first time is a pixel."""
    X = (digits[0] * 15).astype(np.uint8) if bytes_ else digits[0] / 16
    transformer = quick().fit(X)
    assert (transformer.reconstruct(X)[:, 0] == 0).all()
    odd = X.copy()
    odd[:, 0] = X.max()
    assert not np.allclose(transformer.transform(odd), transformer.transform(X))


@pytest.mark.filterwarnings("ignore:.*learned nothing")
@pytest.mark.parametrize("scaling", EVERY_SCALING)
@pytest.mark.parametrize("named", [True, False])
def test_columns_never_known(scaling, named):
    X = np.random.default_rng(0).normal(size=(200, 7))
    X[:, [2, 5]] = np.nan
    rows = pd.DataFrame(X, columns=[*"abcdefg"]) if named else X
    columns = "columns 'c', 'f'" if named else "columns 2, 5"
    with pytest.warns(UserWarning, match="no known value in") as caught:
        transformer = quick(scaling=scaling).fit(rows)
    assert [columns in str(warning.message) for warning in caught] == [True]
    codes = transformer.transform(rows)
    scores = transformer.score_samples(rows)
    for value in (0.0, -3.0, 1e6):
        filled = rows.fillna(value) if named else np.nan_to_num(X, nan=value)
        np.testing.assert_array_equal(transformer.transform(filled), codes)
        np.testing.assert_array_equal(transformer.score_samples(filled), scores)
        each = transformer.score_samples(filled, per_feature=True)
        np.testing.assert_array_equal(each[:, [2, 5]], 0)
    back = transformer.inverse_transform(codes)
    np.testing.assert_array_equal(np.isnan(back), np.isnan(X))
    np.testing.assert_array_equal(np.isnan(transformer.reconstruct(rows)), np.isnan(X))
    encoded, decoded = transformer.to_module("autoencoder")(torch.from_numpy(np.nan_to_num(X)))
    np.testing.assert_allclose(encoded.detach(), codes, atol=1e-4)
    np.testing.assert_array_equal(decoded.isnan(), np.isnan(X))


@pytest.mark.filterwarnings("ignore:X has no known value")
def test_columns_never_known_leave_the_others_as_they_are():
    """The seed alone decided what such a column did."""
    X = table()
    X[:, 3] = np.nan
    new = X[:20].copy()
    new[:, 3] = 1e3
    for seed in range(3):
        transformer = quick(random_state=seed).fit(X)
        np.testing.assert_array_equal(transformer.transform(new), transformer.transform(X[:20]))


@pytest.mark.filterwarnings("ignore:.*learned nothing")
@pytest.mark.parametrize(
    "loss", ["mse", "bce", "mae", "huber", lambda r, t: ((r - t) ** 2).mean(1)]
)
@pytest.mark.parametrize("early_stopping", [True, False])
def test_rows_with_nothing_known(loss, early_stopping):
    X = table(200)
    X[:20, 1] = np.nan
    empty = np.full((100, 7), np.nan)
    settings = {"loss": loss, "scaling": "feature", "early_stopping": early_stopping}
    expected = quick(**settings).fit(X)
    transformer = quick(**settings).fit(np.vstack([X, empty]))
    assert transformer.loss_curve_ == expected.loss_curve_
    assert transformer.validation_loss_curve_ == expected.validation_loss_curve_
    np.testing.assert_array_equal(transformer.transform(X), expected.transform(X))
    scores = transformer.score_samples(np.vstack([empty, X]))
    assert np.isnan(scores[:100]).all()
    np.testing.assert_array_equal(scores[100:], expected.score_samples(X))
    assert transformer.score(np.vstack([empty, X])) == expected.score(X)
    assert np.isnan(transformer.score(empty))


@pytest.mark.filterwarnings("ignore:.*learned nothing")
def test_rows_with_nothing_known_in_chunks_and_alone():
    X = table(200)
    X[:20, 1] = np.nan
    empty = np.full((100, 7), np.nan)
    y = np.arange(200) % 2
    settings = {"regularizer": "supervised"}
    expected = quick(**settings).partial_fit(X, y)
    transformer = quick(**settings).partial_fit(np.vstack([empty, X]), np.append([0] * 100, y))
    assert transformer.loss_ == expected.loss_
    np.testing.assert_array_equal(transformer.transform(X), expected.transform(X))
    for method in ("fit", "partial_fit"):
        with pytest.raises(ValueError, match="X has no known value: all are missing"):
            getattr(quick(), method)(empty)


@pytest.mark.filterwarnings("ignore:.*learned nothing")
@pytest.mark.filterwarnings("ignore:X has no known value")
@pytest.mark.parametrize("scaling", ["standard", "feature", "global", None])
def test_chunks_take_in_columns_that_told_nothing_before(scaling):
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 200, 7))
    first[:, 2], first[:, 4] = 5.0, np.nan
    second[:, 4] = 100 * second[:, 0]
    transformer = quick(scaling=scaling).partial_fit(first).partial_fit(first)
    np.testing.assert_array_equal(transformer.reconstruct(second)[:, 2], 5)
    transformer.partial_fit(second)
    reconstruction = transformer.reconstruct(second)
    assert np.isfinite(reconstruction).all()
    assert np.ptp(reconstruction[:, 2]) > 0
    changed = second.copy()
    changed[:, [2, 4]] += 1
    assert (transformer.transform(changed) != transformer.transform(second)).any()
    if scaling == "standard":
        expected = np.append(np.full(200, 5), second[:, 2])  # as many rows as are new
        scale = fitted_model(transformer).scaling.scale.numpy()
        np.testing.assert_allclose(scale[[2, 4]], [expected.std(), second[:, 4].std()])


# Widths by themselves


@pytest.mark.filterwarnings("ignore:.*learned nothing", "ignore:.*code is not a compression")
@pytest.mark.parametrize(
    ("n_components", "widths"),
    [(3, (128, 64, 12)), (12, (128, 64, 12)), (13, (128, 64)), (64, (128, 64)), (65, (128,))],
)
@pytest.mark.parametrize("network", [None, DenseNetwork()])
def test_default_widths_are_no_narrower_than_the_code(digits, n_components, widths, network):
    X = np.hstack([digits[0][:40]] * 2)
    transformer = quick(n_components=n_components, network=network, max_epochs=1).fit(X)
    assert transformer.hidden_layer_sizes_ == widths
    assert transformer.hidden_layer_sizes == (128, 64, 12)
    linear = [layer for layer in transformer.encoder_ if isinstance(layer, torch.nn.Linear)]
    assert [layer.out_features for layer in linear] == [*widths, n_components]
    transformer.partial_fit(X)
    assert transformer.n_iter_ == 2


@pytest.mark.filterwarnings("ignore:.*learned nothing", "ignore:.*code is not a compression")
def test_default_widths_of_a_code_wider_than_all_of_them():
    X = np.random.default_rng(0).normal(size=(20, 300))
    transformer = quick(n_components=200, max_epochs=1).fit(X)
    assert transformer.hidden_layer_sizes_ == (200,)
    convolutional = transformer.set_params(network=ConvNetwork((1, 15, 20), channels=(2,))).fit(X)
    assert not hasattr(convolutional, "hidden_layer_sizes_")


@pytest.mark.filterwarnings("ignore:.*learned nothing", "ignore:.*code is not a compression")
@pytest.mark.parametrize("widths", [[128, 64, 12], (64, 12), 12, np.array([128, 64, 12])])
@pytest.mark.parametrize("as_network", [True, False])
def test_own_widths_below_the_code_are_kept_with_a_warning(digits, widths, as_network):
    settings = {"network": DenseNetwork(widths)} if as_network else {"hidden_layer_sizes": widths}
    with pytest.warns(UserWarning, match=r"has a layer of 12, below n_components=13: it caps"):
        transformer = quick(n_components=13, max_epochs=1, **settings).fit(digits[0][:40])
    assert transformer.hidden_layer_sizes_ == tuple(np.atleast_1d(widths).tolist())
    quick(n_components=12, max_epochs=1, **settings).fit(digits[0][:40])


@pytest.mark.filterwarnings("ignore:.*learned nothing")
def test_preset_lecture_keeps_its_widths(digits):
    with pytest.warns(UserWarning, match="caps the rank of the code at 12"):
        AutoencoderTransformer.from_preset("lecture", n_components=13, max_epochs=1).fit(
            digits[0][:40]
        )


# In company


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_data_frames_in_and_out(digits, library):
    columns = [f"pixel {i}" for i in range(64)]
    make = pd.DataFrame if library == "pandas" else pl.DataFrame
    X = make(digits[0].copy(), **{"columns" if library == "pandas" else "schema": columns})
    transformer = quick().set_output(transform=library).fit(X)
    assert list(transformer.feature_names_in_) == columns
    codes = transformer.transform(X)
    assert isinstance(codes, make)
    names = [f"autoencodertransformer{i}" for i in range(3)]
    assert list(codes.columns) == list(transformer.get_feature_names_out()) == names
    scores = transformer.score_samples(X, per_feature=True)
    for rows in (transformer.inverse_transform(codes), transformer.reconstruct(X), scores):
        assert isinstance(rows, make)
        assert list(rows.columns) == columns
        assert rows.shape == X.shape
    assert isinstance(transformer.score_samples(X), np.ndarray)
    transformer.set_output(transform="default")
    assert isinstance(transformer.inverse_transform(codes), np.ndarray)
    assert isinstance(transformer.reconstruct(X), np.ndarray)
    with pytest.raises(ValueError, match="feature names"):
        transformer.transform(X[columns[::-1]])


def test_rows_of_a_frame_keep_their_index(digits):
    X = pd.DataFrame(digits[0][:50], index=[f"row {i}" for i in range(50)]).add_prefix("pixel ")
    pipeline = make_pipeline(StandardScaler(), quick()).set_output(transform="pandas").fit(X)
    codes = pipeline.transform(X)
    decoded = pipeline[-1].inverse_transform(codes)
    assert list(decoded.columns) == list(X.columns)
    assert list(decoded.index) == list(pipeline[-1].reconstruct(X).index) == list(X.index)
    # What a pipeline gives back is for its first step to say: scikit-learn's give arrays.
    assert pipeline.inverse_transform(codes).shape == X.shape
    nameless = quick().set_output(transform="pandas").fit(X.to_numpy())
    assert list(nameless.reconstruct(X.to_numpy()).columns[:2]) == ["x0", "x1"]
    with config_context(transform_output="polars"):
        assert isinstance(quick().fit(X).reconstruct(X), pl.DataFrame)
        generator = AutoencoderGenerator(quick(), random_state=0).fit(digits[0][:50])
        assert isinstance(generator.sample(3), np.ndarray)


@pytest.mark.parametrize(
    "column",
    [
        pd.array([1, None] * 20, dtype="Int64"),
        pd.array([1.5, None] * 20, dtype="Float64"),
        pd.array([True, None] * 20, dtype="boolean"),
        pd.Categorical([1, 2] * 20),
        np.array([1, None] * 20, dtype=object),
        pl.Series([1, None] * 20),
        pl.Series([True, None] * 20),
        pl.Series([None] * 40),
    ],
)
@pytest.mark.filterwarnings("ignore:X has no known value in column")
def test_columns_that_hold_numbers(column):
    frame = pl.DataFrame if isinstance(column, pl.Series) else pd.DataFrame
    X = frame({"a": np.arange(40.0), "b": np.arange(40.0)[::-1].copy(), "c": column})
    numbers = [np.nan if value is None or value is pd.NA else float(value) for value in column]
    expected = quick(n_components=2).fit_transform(np.c_[X["a"], X["b"], numbers])
    # A type that lists its levels is categorical by default, even if they are numbers.
    transformer = quick(n_components=2, categorical_features=None)
    np.testing.assert_array_equal(np.asarray(transformer.fit_transform(X)), expected)


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pd.Categorical(["x", "y"]), "category"),
        (pd.Categorical(["x", "y"], pd.Index(["x", "y"], dtype=object)), "category"),
        (pd.Series(["x", "y"], dtype=object), "object"),  # what a text is in pandas 2
        (pd.array(["x", "y"], dtype="string"), "string"),
        (np.array([1j, 2j]), "complex128"),
        (pl.Series(["x", "y"]), "String"),
        (pl.Series(["x", "y"], dtype=pl.Categorical), "Categorical.*"),
        (pl.Series([dt.time(1), None]), "Time"),
    ],
)
def test_columns_that_hold_no_numbers_are_named(column, kind):
    frame = pl.DataFrame if isinstance(column, pl.Series) else pd.DataFrame
    X = frame({"a": [1.0, 2.0], "b": column})
    with pytest.raises(ValueError, match=rf"these columns do not: 'b' \({kind}\). Encode them"):
        quick(categorical_features=None).fit(X)


@pytest.mark.parametrize("dump", [pickle, joblib], ids=["pickle", "joblib"])
def test_pickles_give_the_same_codes_and_are_small(fitted, digits, dump, tmp_path):
    with (tmp_path / "model").open("wb") as file:
        dump.dump(fitted, file)
    with (tmp_path / "model").open("rb") as file:
        loaded = dump.load(file)
    np.testing.assert_array_equal(loaded.transform(digits[1]), fitted.transform(digits[1]))
    parts = [*fitted.encoder_.parameters(), *fitted.decoder_.parameters()]
    n_bytes = sum(p.numel() * 4 for p in parts)
    assert (tmp_path / "model").stat().st_size < 1.1 * n_bytes + 20_000


def test_pickle_loaded_in_inference_mode(fitted, digits):
    data = pickle.dumps(fitted)
    with torch.inference_mode():
        loaded = pickle.loads(data)
        codes = loaded.transform(digits[1])
    np.testing.assert_array_equal(codes, fitted.transform(digits[1]))
    loaded.partial_fit(digits[0])


def test_pickle_from_a_device_that_is_not_there(fitted, digits):
    state = {**fitted.__getstate__(), "device": "cuda:99", "device_": torch.device("cuda:99")}
    loaded = AutoencoderTransformer.__new__(AutoencoderTransformer)
    loaded.__setstate__(state)
    np.testing.assert_array_equal(loaded.transform(digits[1]), fitted.transform(digits[1]))


def test_pipeline_with_memory(digits, tmp_path):
    X, X_test, y, y_test = digits
    memory = joblib.Memory(tmp_path, verbose=0)
    scores = [
        make_pipeline(quick(), SVC(), memory=memory).fit(X, y).score(X_test, y_test)
        for _ in range(2)
    ]
    assert scores[0] == scores[1]


@pytest.fixture(scope="module")
def sequential_search(digits):
    pipeline = make_pipeline(quick(), KNeighborsClassifier())
    grid = {"autoencodertransformer__n_components": [2, 6]}
    return GridSearchCV(pipeline, grid, cv=2, n_jobs=1).fit(digits[0], digits[2])


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_grid_search_in_parallel(digits, sequential_search, backend):
    X, _, y, _ = digits
    before = torch.get_num_threads()
    # joblib tells the processes not to start pools of threads of their own.
    with joblib.parallel_backend(backend, n_jobs=2):
        parallel = clone(sequential_search).set_params(n_jobs=None).fit(X, y)
    assert torch.get_num_threads() == before
    np.testing.assert_allclose(
        parallel.cv_results_["mean_test_score"],
        sequential_search.cv_results_["mean_test_score"],
        atol=0.02,
    )


# Reproducibility


def test_same_seed_gives_bitwise_the_same_codes(digits):
    X = digits[0]
    expected = quick().fit_transform(X)
    torch.rand(3)
    np.random.rand(3)  # noqa: NPY002
    np.testing.assert_array_equal(quick().fit_transform(X), expected)
    assert not np.array_equal(quick(random_state=1).fit_transform(X), expected)


def test_same_seed_beside_other_fits_in_threads(digits):
    X = digits[0]
    expected = quick(max_epochs=10).fit_transform(X)
    results = {}

    def work(i):
        results[i] = quick(max_epochs=10, random_state=i % 2).fit_transform(X)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in (0, 2, 4):
        np.testing.assert_array_equal(results[i], expected)
    for i in (1, 3, 5):
        assert not np.array_equal(results[i], expected)


def test_unseeded_fits_differ_and_random_state_instances_advance(digits):
    X = digits[0]
    assert not np.array_equal(
        quick(random_state=None).fit_transform(X), quick(random_state=None).fit_transform(X)
    )
    state = np.random.RandomState(0)
    first = quick(random_state=state).fit_transform(X)
    assert not np.array_equal(quick(random_state=state).fit_transform(X), first)


def test_callers_settings_stay(digits):
    def settings():
        return (
            torch.get_rng_state().tolist(),
            np.random.get_state()[1].tolist(),  # noqa: NPY002
            random.getstate(),
            torch.get_num_threads(),
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
            list(warnings.filters),
            dict(os.environ),
            np.geterr(),
            np.float64(5e-324) * 1.0 != 0,
            bool(torch.tensor([1e-40]) * 1.0 != 0),
        )

    before = settings()
    transformer = quick(random_state=None).fit(digits[0]).partial_fit(digits[0])
    transformer.transform(digits[1])
    transformer.score(digits[1])
    assert settings() == before


# In a thread of its own, and, where two cores are worth it, in the caller's.
@pytest.mark.parametrize("params", [{}, {"batch_size": 4096, "hidden_layer_sizes": (999, 12)}])
def test_callers_settings_do_not_reach_training(digits, params):
    X = digits[0]
    params = {"max_epochs": 20, **params}
    expected = quick(**params).fit_transform(X)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode(), torch.device("meta"):
            codes = quick(**params).fit_transform(X)
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_array_equal(codes, expected)


def test_codes_do_not_depend_on_the_process(digits, tmp_path):
    np.save(tmp_path / "X.npy", digits[0])
    code = (
        "import sys, numpy as np; from aefeatures import AutoencoderTransformer as A;"
        "X = np.load(sys.argv[1]);"
        "np.save(sys.argv[2], A(max_epochs=3, random_state=0).fit_transform(X))"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "X.npy", tmp_path / "Z.npy"], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "Z.npy"), quick().fit_transform(digits[0]))


def test_cross_validation_on_every_row_count(digits):
    X, _, y, _ = digits
    scores = cross_val_score(make_pipeline(quick(), SVC()), X[:101], y[:101], cv=3)
    assert np.isfinite(scores).all()


@pytest.mark.slow
def test_lectures_experiment_on_mnist(mnist):
    X, X_test, y, y_test = mnist
    transformer = AutoencoderTransformer(random_state=0)
    codes = transformer.fit_transform(X)
    assert transformer.n_iter_ == 10
    score = KNeighborsClassifier(15).fit(codes, y).score(transformer.transform(X_test), y_test)
    assert score > 0.82
    assert ((transformer.reconstruct(X_test) / 255 - X_test / 255) ** 2).mean() < 0.0325


# Sparse matrices, missing values, data in files


@pytest.fixture(scope="module", params=["auto", "feature", "global", None])
def dense(request, digits):
    """Fitted to a dense matrix, with each scaling."""
    return quick(scaling=request.param, learning_rate=1e-3, max_epochs=5).fit(digits[0])


@pytest.mark.parametrize("format", ["csr", "csc", "coo"])
def test_sparse_equals_dense(digits, format, dense):
    X, X_test = digits[0], digits[1]
    to_sparse = getattr(sparse, f"{format}_matrix")
    thin = clone(dense).fit(to_sparse(X))
    Z = to_sparse(X_test)
    np.testing.assert_allclose(thin.transform(Z), dense.transform(X_test), atol=1e-9)
    np.testing.assert_allclose(thin.score_samples(Z), dense.score_samples(X_test), atol=1e-9)
    np.testing.assert_allclose(thin.reconstruct(Z), dense.reconstruct(X_test), atol=1e-9)


def test_large_sparse_data_is_densified_by_batches(digits, monkeypatch):
    X = sparse.csr_array(digits[0])
    expected = quick().fit_transform(X)
    monkeypatch.setattr(aefeatures._rows.batches, "_RESIDENT_BYTES", -1)
    monkeypatch.setattr(type(X), "__array__", None, raising=False)
    np.testing.assert_allclose(quick().fit_transform(X), expected, rtol=1e-9)


@pytest.fixture(scope="module")
def holes(digits):
    """Digits of which a fifth of the entries is missing, and where."""
    missing = np.random.default_rng(0).random(digits[0].shape) < 0.2
    return np.where(missing, np.nan, digits[0]), missing


@pytest.mark.parametrize(
    "loss", ["mse", "bce", "mae", "huber", lambda r, t: ((r - t) ** 2).mean(1)]
)
def test_missing_values_are_filled_in_better_than_by_means(digits, holes, loss):
    X, missing = holes
    transformer = quick(n_components=8, scaling="feature", loss=loss, max_epochs=30).fit(X)
    estimates = transformer.reconstruct(X)
    assert -transformer.score_samples(X).mean() == pytest.approx(transformer.loss_, rel=0.1)
    error = (estimates - digits[0])[missing]
    mean_error = (np.nanmean(X, axis=0) - digits[0])[missing]
    assert (error**2).mean() < 0.6 * (mean_error**2).mean()


def test_missing_values_are_left_out_of_the_scores(fitted, digits):
    X = digits[1].copy()
    X[:, 10] = np.nan
    per_feature = fitted.score_samples(X, per_feature=True)
    assert (per_feature[:, 10] == 0).all()
    assert (per_feature[:, 20] < 0).all()
    errors = ((X - fitted.reconstruct(X)) / fitted_model(fitted).scaling.scale.numpy()) ** 2
    np.testing.assert_allclose(fitted.score_samples(X), -np.nanmean(errors, axis=1))


def test_missing_values_at_transform_alone_become_column_means(fitted, digits):
    X = digits[1].copy()
    X[:, 10] = np.nan
    filled = np.where(np.isnan(X), digits[0].mean(axis=0), X)
    np.testing.assert_allclose(fitted.transform(X), fitted.transform(filled))
    codes = fitted.to_module()(torch.from_numpy(X)).detach()
    np.testing.assert_allclose(codes, fitted.transform(X), atol=1e-3)


def test_values_for_missing_entries_are_learned_and_widths_stay(holes, digits):
    transformer = quick(max_epochs=20).fit(holes[0])
    assert transformer.encoder_[0].in_features == 64
    assert not torch.equal(
        fitted_model(transformer).fill.values, fitted_model(quick().fit(digits[0])).fill.values
    )
    loaded = pickle.loads(pickle.dumps(transformer))
    np.testing.assert_array_equal(loaded.transform(holes[0]), transformer.transform(holes[0]))


def test_duplicate_entries_of_a_sparse_matrix_add_up(digits):
    X = sparse.csr_matrix(digits[0] / 2)
    doubled = sparse.csr_matrix(
        (np.repeat(X.data, 2), np.repeat(X.indices, 2), X.indptr * 2), shape=X.shape
    )
    np.testing.assert_allclose(quick().fit_transform(doubled), quick().fit_transform(digits[0]))


def test_sparse_matrices_may_miss_values(holes):
    expected = quick().fit_transform(holes[0])
    np.testing.assert_allclose(quick().fit_transform(sparse.csr_matrix(holes[0])), expected)


@pytest.mark.parametrize("scaling", ["auto", "feature", "global", None])
def test_columns_and_rows_that_miss_everything(digits, scaling):
    X = digits[0] / 16
    X[:, 3] = np.nan
    X[7] = np.nan
    with pytest.warns(UserWarning, match="X has no known value in column 3: values of new rows"):
        codes = quick(scaling=scaling, max_epochs=20).fit_transform(X)
    assert (np.delete(codes, 7, axis=0).std(axis=0) > 0.2).all()


def test_chunks_with_and_without_missing_values(digits, holes):
    transformer = quick()
    for X in (digits[0], holes[0], digits[0], holes[0]):
        transformer.partial_fit(X)
    errors = (transformer.reconstruct(holes[0]) - digits[0]) ** 2
    assert errors.mean() < 0.7 * digits[0].var(axis=0).mean()


class Dataset:
    """What h5py and zarr have in common: slices of rows, no fancy indexing."""

    chunks = (100, 64)

    def __init__(self, X):
        self.shape, self.dtype, self._X = X.shape, X.dtype, X

    def __getitem__(self, rows):
        assert isinstance(rows, slice), "only slices of rows can be read"
        self.longest = max(getattr(self, "longest", 0), len(self._X[rows]))
        return self._X[rows].copy()


def test_validation_rows_alone_are_converted(digits, monkeypatch):
    X = np.repeat(digits[0], 10, axis=0)
    converted = []
    convert = aefeatures._rows.batches.RowBatches._convert
    monkeypatch.setattr(
        aefeatures._rows.batches.RowBatches,
        "_convert",
        lambda self, rows: converted.append(rows.shape[0]) or convert(self, rows),
    )
    aefeatures._rows.batches.RowBatches(
        X,
        lambda rows: rows,
        batch_size=64,
        device=torch.device("cpu"),
        dtype=torch.float32,
        rows=np.arange(0, len(X), 100),
    )
    assert sum(converted) == -(-len(X) // 100)


@pytest.fixture(scope="module")
def score_of_an_array(digits):
    """Score of the fit that datasets are compared with."""
    X = digits[0].astype(np.float32)
    return quick(max_epochs=15).fit(X).score(X)


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("resident", [True, False])
def test_datasets_are_read_by_slices(
    digits, score_of_an_array, monkeypatch, early_stopping, resident
):
    X = digits[0].astype(np.float32)
    monkeypatch.setattr(aefeatures._rows.sources, "_CHUNK_ELEMENTS", 64 * 200)
    if not resident:
        monkeypatch.setattr(aefeatures._rows.batches, "_RESIDENT_BYTES", -1)
    dataset = Dataset(X)
    transformer = quick(max_epochs=15, early_stopping=early_stopping).fit(dataset)
    assert dataset.longest <= 200
    assert transformer.n_features_in_ == 64
    assert transformer.n_steps_ == 15 * -(-(1212 if early_stopping else 1347) // 64)
    np.testing.assert_allclose(transformer.transform(dataset), transformer.transform(X), atol=1e-5)
    assert transformer.score(dataset) == pytest.approx(score_of_an_array, rel=0.2)


def test_bad_datasets(digits):
    X = digits[0].astype(np.float32)
    with pytest.raises(ValueError, match="contains infinity"):
        quick().fit(Dataset(np.where(X == 3, np.inf, X)))
    with pytest.raises(ValueError, match=r"0 sample\(s\)"):
        quick().fit(Dataset(X[:0]))
    with pytest.raises(
        ValueError, match="X has 10 features, but AutoencoderTransformer is expecting"
    ):
        quick().fit(X).transform(Dataset(X[:, :10]))


# Code of the caller's own: what it draws, the precision it computes in, weights that are frozen


may_learn_nothing = pytest.mark.filterwarnings("ignore:.*learned nothing")


class DropoutAlways(torch.nn.Module):
    """The function's default is to drop entries in evaluation, too."""

    def forward(self, rows):
        return torch.nn.functional.dropout(rows, 0.2)


def attention():
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3, batch_first=True)
    return torch.nn.Sequential(torch.nn.Unflatten(1, (8, 8)), layer, torch.nn.Flatten())


DRAWING = {
    "Dropout": lambda: torch.nn.Dropout(0.3),
    "dropout": DropoutAlways,
    "RReLU": torch.nn.RReLU,
    "attention": attention,
}


def drawing(name):
    def network(n_features, n_components):
        encoder = torch.nn.Sequential(DRAWING[name](), torch.nn.LazyLinear(n_components))
        return encoder, torch.nn.Sequential(
            torch.nn.Linear(n_components, n_features), DRAWING[name]()
        )

    return network


@may_learn_nothing
@pytest.mark.parametrize("how", ["fit", "partial_fit"])
@pytest.mark.parametrize("name", DRAWING)
def test_own_modules_draw_from_random_state(digits, name, how):
    X, fits = digits[0][:150], []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        transformer = quick(network=drawing(name), early_stopping=how == "fit", max_epochs=2)
        for _ in range(2):
            getattr(transformer, how)(X)
        fits.append([transformer.transform(X), transformer.reconstruct(X), transformer.score(X)])
        np.testing.assert_array_equal(transformer.transform(X), fits[-1][0])
        assert torch.equal(torch.get_rng_state(), before)
    for one, other in zip(*fits, strict=True):
        np.testing.assert_array_equal(one, other)
    transformer = quick(network=drawing(name), random_state=1)
    assert not np.array_equal(getattr(transformer, how)(X).transform(X), fits[0][0])


def test_own_modules_draw_other_numbers_in_each_call_of_partial_fit(digits):
    drawn = []

    class Noting(torch.nn.Module):
        def forward(self, rows):
            if self.training:
                drawn.append(float(torch.rand(())))
            return rows

    def network(n_features, n_components):
        encoder = torch.nn.Sequential(Noting(), torch.nn.Linear(n_features, n_components))
        return encoder, torch.nn.Linear(n_components, n_features)

    for seed in (1, 2):
        torch.manual_seed(seed)
        transformer = quick(network=network)
        for _ in range(3):
            transformer.partial_fit(digits[0][:1])
    assert len(set(drawn)) == 3
    assert drawn[:3] == drawn[3:]


@may_learn_nothing
def test_own_losses_draw_from_random_state(digits):
    def loss(reconstruction, target):
        return ((reconstruction - target) * torch.rand_like(target)).square().mean(dim=1)

    X, results = digits[0][:150], []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        transformer = quick(loss=loss, early_stopping=True).fit(X)
        results.append([transformer.transform(X), transformer.score_samples(X)])
        assert torch.equal(torch.get_rng_state(), before)
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


@may_learn_nothing
def test_own_modules_that_draw_side_by_side(digits):
    X = digits[0][:150]
    expected = quick(network=drawing("dropout")).fit(X).transform(X)
    before = torch.get_rng_state()
    found = joblib.Parallel(3, backend="threading")(
        joblib.delayed(lambda: quick(network=drawing("dropout")).fit(X).transform(X))()
        for _ in range(4)
    )
    for codes in found:
        np.testing.assert_array_equal(codes, expected)
    assert torch.equal(torch.get_rng_state(), before)


def results_of(X, params):
    X = X.astype(np.float32)
    transformer = quick(**params).fit(X).partial_fit(X)
    codes = transformer.transform(X)
    return [
        codes,
        transformer.inverse_transform(codes),
        transformer.reconstruct(X),
        transformer.score_samples(X),
        transformer.score_samples(X, per_feature=True),
        transformer.loss_curve_,
    ]


@may_learn_nothing
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"regularizer": "neighbors", "early_stopping": True},
        {"network": DenseNetwork((16,), n_principal_components=5)},
        {"network": drawing("Dropout")},
        {"precision": "bfloat16", "normalization": "layer"},
    ],
)
def test_results_do_not_depend_on_the_callers_autocast(digits, params):
    X = digits[0][:100]
    expected = results_of(X, params)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = results_of(X, params)
        assert torch.is_autocast_enabled("cpu")
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@may_learn_nothing
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("normalization", ["layer", "batch"])  # in threads; in the caller's
def test_a_large_fit_does_not_depend_on_the_callers_autocast(
    digits, normalization, precision, monkeypatch
):
    monkeypatch.setattr(aefeatures._train.thread, "_MULTI_THREAD_WORK", 0)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        transformer = quick(
            hidden_layer_sizes=(16,), normalization=normalization, precision=precision, max_epochs=1
        )
        expected = transformer.fit(digits[0][:100]).loss_
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert transformer.fit(digits[0][:100]).loss_ == expected
    finally:
        torch.set_num_threads(n_threads)


def partly_frozen(n_features, n_components):
    encoder = torch.nn.Sequential(
        torch.nn.Linear(n_features, 16).requires_grad_(False),
        torch.nn.ReLU(),
        torch.nn.Linear(16, n_components),
    )
    decoder = torch.nn.Linear(n_components, n_features)
    decoder.bias.requires_grad_(False)
    return encoder, decoder


@may_learn_nothing
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("how", ["fit", "partial_fit"])
def test_frozen_weights_stay_bit_for_bit(digits, how, missing):
    X = digits[0][:200].copy()
    if missing:
        X[::3, 5] = np.nan
    built = []

    def network(*sizes):
        built.append(partly_frozen(*sizes))
        return built[-1]

    transformer = quick(network=network, weight_decay=0.5, max_epochs=2)
    getattr(transformer, how)(X)
    (encoder, decoder), fitted = built[0], (transformer.encoder_, transformer.decoder_)
    assert torch.equal(fitted[0][0].weight, encoder[0].weight)
    assert torch.equal(fitted[0][0].bias, encoder[0].bias)
    assert torch.equal(fitted[1].bias, decoder.bias)
    assert not torch.equal(fitted[1].weight, decoder.weight)


def test_weights_may_be_frozen_and_thawed_between_calls_of_partial_fit(digits):
    X = digits[0][:200]
    transformer = quick(weight_decay=0.1)
    transformer.partial_fit(X)
    for frozen, thawed in ((0, 2), (2, 0)):
        transformer.encoder_[frozen].requires_grad_(False)
        transformer.encoder_[thawed].requires_grad_(True)
        before = [transformer.encoder_[i].weight.detach().clone() for i in (frozen, thawed)]
        transformer.partial_fit(X)
        assert torch.equal(transformer.encoder_[frozen].weight, before[0])
        assert not torch.equal(transformer.encoder_[thawed].weight, before[1])


@may_learn_nothing
def test_weight_decay_leaves_what_stands_for_missing_values(digits):
    """Adam moves them by at most the learning rate in a step, decay would by all that they are."""
    X = digits[0][:64].copy()
    X[::3, 20] = np.nan
    transformer = quick(
        scaling=None, learning_rate=1e-3, weight_decay=1000.0, learning_rate_schedule="constant"
    )
    transformer.set_params(max_epochs=1).fit(X)
    means = np.nanmean(X, axis=0)
    np.testing.assert_allclose(
        fitted_model(transformer).fill.state_dict()["values"], means, atol=2e-3
    )
    assert not transformer.encoder_[0].weight.abs().max() > 2e-3


@pytest.mark.parametrize(
    "network",
    [
        lambda n, k: tuple(part.requires_grad_(False) for part in partly_frozen(n, k)),
        lambda n, k: (torch.nn.AdaptiveAvgPool1d(k), torch.nn.AdaptiveAvgPool1d(n)),
    ],
    ids=["all frozen", "none"],
)
def test_a_network_without_weights_to_train_is_refused(digits, network):
    with pytest.raises(ValueError, match=r"network has no weights to train: it has \d parameters"):
        quick(network=network).fit(digits[0])


def test_logits_learn_beside_missing_values():
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(300, 2))
    X = (factors @ rng.normal(size=(2, 12)) > 0).astype(np.float32)
    X_missing = X.copy()
    X_missing[rng.random(X.shape) < 0.3] = np.nan

    def loss(reconstruction, target):
        return torch.nn.functional.binary_cross_entropy_with_logits(
            reconstruction, target, reduction="none"
        ).mean(dim=1)

    def network(n_features, n_components):
        encoder = torch.nn.Sequential(
            torch.nn.Linear(n_features, 32), torch.nn.ReLU(), torch.nn.Linear(32, n_components)
        )
        return encoder, torch.nn.Linear(n_components, n_features)

    transformer = quick(network=network, loss=loss, scaling=None, max_epochs=150).fit(X_missing)
    assert 0 < transformer.loss_ < 0.3
    known = ~np.isnan(X_missing)
    right = (transformer.reconstruct(X_missing) > 0) == (X > 0.5)
    assert right[known].mean() > 0.95
    # Of each row, the mean over the known entries.
    logits = torch.from_numpy(transformer.reconstruct(X_missing))
    entries = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, torch.from_numpy(X), reduction="none"
    ).numpy()
    expected = -np.where(known, entries, 0).sum(axis=1) / known.sum(axis=1)
    np.testing.assert_allclose(transformer.score_samples(X_missing), expected, rtol=1e-4)


def test_a_loss_that_missing_values_cannot_be_left_out_of_is_refused_in_fit(digits):
    def loss(reconstruction, target):
        return (reconstruction - target).square().mean(dim=1).sqrt()

    X = digits[0][:100].copy()
    transformer = quick(loss=loss).fit(X)
    X[3, 20] = np.nan
    with pytest.raises(ValueError, match="X has missing values, which cannot be left out"):
        clone(transformer).fit(X)
    with pytest.raises(ValueError, match="X has missing values, which cannot be left out"):
        transformer.score_samples(X)


def test_losses_below_zero_stop_as_those_above(digits):
    """The same loss, less a constant, has the same gradient: and stops at the same epoch."""
    n_epochs = []
    for offset in (1, -1):

        def loss(reconstruction, target, offset=offset):
            return (reconstruction - target).square().mean(dim=1) / 100 + offset

        transformer = quick(
            loss=loss,
            early_stopping=True,
            max_epochs=60,
            tol=0.02,
            learning_rate_schedule="constant",
        )
        n_epochs.append(transformer.fit(digits[0][:200]).n_iter_)
        assert transformer.best_loss_ == min(transformer.validation_loss_curve_)
    assert n_epochs == [6, 6]


@may_learn_nothing
@pytest.mark.parametrize("scaling", ["standard", "feature", "global"])
def test_an_infinite_error_of_an_entry_is_no_score(digits, scaling):
    transformer = quick(scaling=scaling, max_epochs=1).fit(digits[0][:100] * 1e-3)
    X = digits[1][:5].astype(np.float32) * 1e-3
    X[3, 21] = np.nan
    assert np.isfinite(transformer.score_samples(X, per_feature=True)).all()
    X[2, 20] = 3e38
    with pytest.raises(ValueError, match="result for row 2 is not finite"):
        transformer.score_samples(X, per_feature=True)


# Tables


def mixed_table(n=120, seed=0, library="pandas"):
    """Columns of all kinds that depend on one number, with gaps."""
    rng = np.random.default_rng(seed)
    size = rng.random(n)
    X = pd.DataFrame(
        {
            "kind": np.where(size < 0.3, "cup", np.where(size < 0.6, "cat", "tree")),
            "height": (size * 10).astype("float32"),
            "count": (size * 100).astype("int32"),
            "alive": size > 0.3,
            "built": pd.Timestamp("2020-01-01") + pd.to_timedelta((size * 1000).astype(int), "D"),
            "lasts": pd.to_timedelta((size * 1000).astype(int), "min"),
            "letter": pd.Categorical(np.where(size < 0.5, "A", "B"), ["B", "unused", "A"]),
        }
    ).astype({"built": "datetime64[us]", "lasts": "timedelta64[us]"})
    X["built"] = X["built"].dt.tz_localize("Asia/Tokyo")
    for column in ("kind", "height", "built", "letter"):
        X.loc[rng.random(n) < 0.1, column] = None
    if library == "pandas":
        return X
    built = pl.col("built").dt.replace_time_zone("Asia/Tokyo")
    return pl.from_pandas(X.assign(built=X["built"].dt.tz_localize(None))).with_columns(built)


def linear_network(n_features, n_components):
    return torch.nn.Linear(n_features, n_components), torch.nn.Linear(n_components, n_features)


def mean_absolute_error(reconstruction, target):
    return (reconstruction - target).abs().mean(dim=1)


@pytest.fixture(scope="module")
def of_table():
    """A transformer of 4 codes of a table. Not to be changed."""
    return AutoencoderTransformer(4, random_state=0).fit(mixed_table())


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_table_comes_back_as_it_is(library):
    X, X_new = mixed_table(library=library), mixed_table(50, seed=1, library=library)
    transformer = AutoencoderTransformer(4, max_epochs=60, random_state=0).fit(X)
    if library == "pandas":
        X_new.index = X_new.index + 7
    codes = transformer.transform(X_new)
    if library == "pandas":
        codes = pd.DataFrame(codes, index=X_new.index)
    assert codes.shape == (50, 4)
    assert transformer.n_features_in_ == 7
    assert transformer.feature_names_in_.tolist() == list(X.columns)
    assert len(transformer.get_feature_names_out()) == 4
    for back in (transformer.inverse_transform(codes), transformer.reconstruct(X_new)):
        assert type(back) is type(X)
        assert list(back.columns) == list(X.columns)
        assert list(back.dtypes) == list(X.dtypes)
        as_pandas = back if library == "pandas" else back.to_pandas()
        given = X_new if library == "pandas" else X_new.to_pandas()
        assert as_pandas.notna().all(axis=None)
        assert as_pandas.index.equals(given.index)
        for column in ("kind", "alive", "letter"):
            known = given[column].notna()
            same = as_pandas[column].astype(object) == given[column].astype(object)
            assert same[known].mean() > 0.9
        difference = (as_pandas["built"] - given["built"]).dt.days.abs()
        assert difference.mean() < 60
    scores = transformer.score_samples(X_new, per_feature=True)
    assert type(scores) is type(X)
    assert list(scores.columns) == list(X.columns)
    assert scores.shape == X_new.shape


def test_attributes_of_a_table(of_table):
    assert of_table.is_categorical_.tolist() == [True, *[False] * 5, True]
    assert [each.tolist() for each in of_table.categories_] == [["cat", "cup", "tree"], ["B", "A"]]
    assert of_table.infrequent_categories_ == [None, None]
    other = (
        clone(of_table)
        .set_params(n_components=1, max_categories=2, max_epochs=1)
        .fit(mixed_table())
    )
    assert other.infrequent_categories_[0].tolist() == ["cat", "cup"]
    assert other.infrequent_categories_[1] is None
    numbers = other.fit(mixed_table()[["height", "count"]].to_numpy())
    for name in ("is_categorical_", "categories_", "infrequent_categories_"):
        assert not hasattr(numbers, name)


def test_scores_of_a_table_have_a_column_for_each_original_one(of_table):
    X = mixed_table()
    strange = X.iloc[:1].assign(kind="tree", height=0.1, count=1)
    assert of_table.score_samples(strange)[0] < of_table.score_samples(X).min()
    for per_feature in (True, "raw"):
        scores = of_table.score_samples(X, per_feature=per_feature)
        assert scores.columns.tolist() == X.columns.tolist()
        assert (scores.to_numpy()[X.isna()] == 0).all()
        assert (scores <= 0).all(axis=None)
        of_strange = of_table.score_samples(strange, per_feature=per_feature)
        assert of_strange["kind"].item() < scores["kind"].quantile(0.1)
    assert of_table.score(X) == pytest.approx(of_table.score_samples(X).mean())


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_probabilities_of_levels(library):
    X = mixed_table(library=library)
    transformer = quick().fit(X)
    found = transformer.reconstruct(X, probabilities=True)
    assert sorted(found.columns) == sorted(
        [
            *("kind_cat", "kind_cup", "kind_tree", "height", "count", "alive", "built", "lasts"),
            *("letter_B", "letter_A"),
        ]
    )
    decoded = transformer.inverse_transform(transformer.transform(X), probabilities=True)
    likeliest = transformer.reconstruct(X)
    for frame in (found, decoded):
        frame = frame if library == "pandas" else frame.to_pandas()
        likely = likeliest if library == "pandas" else likeliest.to_pandas()
        shares = frame[["kind_cat", "kind_cup", "kind_tree"]]
        np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)
        assert (shares.idxmax(axis=1).str.removeprefix("kind_") == likely["kind"]).all()
        assert (frame["built"] == likely["built"]).mean() > 0.9
    with pytest.raises(TypeError, match="positional"):
        transformer.reconstruct(X, True)


@pytest.mark.parametrize("X", [np.eye(4), pd.DataFrame({"a": pd.to_datetime(["2020", "2021"])})])
@pytest.mark.filterwarnings("ignore:.*learned nothing", "ignore:.*code is not a compression")
def test_probabilities_need_categories(X):
    transformer = quick(n_components=1).fit(X)
    with pytest.raises(ValueError, match="probabilities=True needs categories, but the X of fit"):
        transformer.reconstruct(X, probabilities=True)
    with pytest.raises(ValueError, match="probabilities=True needs categories, but the X of fit"):
        transformer.inverse_transform(transformer.transform(X), probabilities=True)


def test_arrays_with_categories():
    X = mixed_table()[["kind", "height", "count", "alive"]].dropna().to_numpy(object)
    transformer = quick(categorical_features=[0], max_epochs=60).fit(X)
    back = transformer.reconstruct(X)
    assert isinstance(back, np.ndarray)
    assert back.dtype == object
    assert set(back[:, 0]) <= {"cup", "cat", "tree"}
    assert [type(value) for value in back[0]] == [str, float, int, bool]
    np.testing.assert_array_equal(transformer.fit(X.tolist()).reconstruct(X.tolist()), back)
    assert transformer.score_samples(X, per_feature=True).shape == X.shape
    assert transformer.reconstruct(X, probabilities=True).shape == (len(X), 6)
    frame = transformer.set_output(transform="pandas").reconstruct(X)
    assert frame.columns.tolist() == ["x0", "x1", "x2", "x3"]
    numbers = np.array([[5, 1.0], [7, 2], [5, 3]] * 10)
    transformer = quick(n_components=1, categorical_features=[0], max_epochs=60).fit(numbers)
    np.testing.assert_array_equal(transformer.reconstruct(numbers)[:, 0], numbers[:, 0])


@pytest.mark.parametrize("X", [sparse.eye(3).tocsr(), torch.eye(3)])
def test_categories_need_a_frame_or_an_array(X):
    with pytest.raises(ValueError, match="needs a data frame or an array of two dimensions"):
        quick(categorical_features=[0]).fit(X)


def test_a_table_with_other_columns(of_table):
    X = mixed_table()
    with pytest.raises(ValueError, match="feature names should match those"):
        of_table.transform(X[X.columns[::-1]])
    with pytest.raises(ValueError, match="'kind' had levels such as 'cat' in fit"):
        of_table.transform(X.assign(kind=3))
    with pytest.raises(ValueError, match="0 sample"):
        of_table.transform(X[:0])
    with pytest.raises(ValueError, match="0 sample"):
        quick().fit(X[:0])
    with pytest.raises(ValueError, match="feature names should match those"):
        of_table.transform(X.iloc[:, 1:])
    with pytest.raises(ValueError, match="infinity"):
        of_table.transform(X.assign(height=np.inf))
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        codes = of_table.transform(X.to_numpy())
    np.testing.assert_allclose(codes, of_table.transform(X), rtol=1e-5, atol=1e-5)
    unseen = of_table.transform(X.assign(kind="moon"))
    np.testing.assert_array_equal(unseen, of_table.transform(X.assign(kind=None)))


def test_one_row_of_a_table(of_table):
    X = mixed_table()
    one = of_table.transform(X[:1])
    np.testing.assert_allclose(one, of_table.transform(X)[:1], rtol=1e-4, atol=1e-5)
    alone = quick(n_components=1).fit(X.dropna()[:1])
    pd.testing.assert_frame_equal(alone.reconstruct(X.dropna()[:1]), X.dropna()[:1])


def test_a_column_without_known_levels_or_with_one():
    X = mixed_table()[["kind", "height"]].assign(
        none=pd.Series([None] * 120, dtype="string"), one="same"
    )
    with pytest.warns(UserWarning, match="X has no known value in column 'none'"):
        transformer = quick().fit(X)
    back = transformer.reconstruct(X)
    assert back["none"].isna().all()
    assert (back["one"] == "same").all()
    other = X.assign(none="now", one="another")
    np.testing.assert_array_equal(
        transformer.transform(other), transformer.transform(X.assign(one=None))
    )


SETTINGS_OF_A_TABLE = [
    {"regularizer": "supervised"},
    {"regularizer": "near_pca"},
    {"regularizer": None},
    {"precision": "bfloat16"},
    {"network": linear_network},
    {"loss": mean_absolute_error},
    {"warm_start": True},
]


OTHER_SETTINGS_OF_A_TABLE = [
    {"regularizer": "neighbors"},
    {"regularizer": "variational"},
    {"regularizer": "denoising"},
    {"regularizer": "contractive"},
    {"regularizer": "sparse"},
    {"early_stopping": True},
    {"precision": "float64"},
    {"network": DenseNetwork((16,), activation="gelu")},
    {"loss": "mae"},
    {"scaling": "feature"},
    {"init": "random", "normalization": "batch"},
]


# Without gaps most of what they do is the same as with gaps.
@pytest.mark.parametrize(
    ("params", "gaps"),
    [
        *((params, False) for params in SETTINGS_OF_A_TABLE),
        *((params, True) for params in SETTINGS_OF_A_TABLE),
        *((params, True) for params in OTHER_SETTINGS_OF_A_TABLE),
        *(
            pytest.param(params, False, marks=pytest.mark.slow)
            for params in OTHER_SETTINGS_OF_A_TABLE
        ),
    ],
    ids=lambda given: (
        " ".join(f"{k}={getattr(v, '__name__', v)}" for k, v in given.items())
        if isinstance(given, dict)
        else None
    ),
)
def test_settings_of_a_table(params, gaps):
    X = mixed_table() if gaps else mixed_table().dropna()
    y = X["count"].to_numpy() > 50
    transformer = quick(max_epochs=60, **params).fit(X, y)
    if gaps or transformer.warm_start:
        transformer.fit(X, y)
    back = transformer.reconstruct(X)
    majority = X["kind"].value_counts(normalize=True).iloc[0]
    assert (back["kind"] == X["kind"])[X["kind"].notna()].mean() > majority
    assert np.isfinite(transformer.transform(X)).all()
    assert pickle.loads(pickle.dumps(transformer)).reconstruct(X).equals(back)


def test_partial_fit_of_a_table():
    X = mixed_table()
    transformer = quick()
    for _ in range(20):
        transformer.partial_fit(X[:60]).partial_fit(X[60:].assign(letter="C"))
    assert [each.tolist() for each in transformer.categories_] == [
        ["cat", "cup", "tree"],
        ["B", "A"],
    ]
    assert (transformer.reconstruct(X)["kind"] == X["kind"]).mean() > 0.7
    with pytest.raises(ValueError, match="'kind' had levels such as 'cat' in fit"):
        transformer.partial_fit(X.assign(kind=1))


def test_convolutions_need_images(of_table):
    with pytest.raises(ValueError, match="image"):
        quick(network=ConvNetwork()).fit(mixed_table())


def test_cross_entropy_of_a_table_is_refused():
    with pytest.raises(ValueError, match="loss='bce' is not supported for tables with categories"):
        quick(loss="bce").fit(mixed_table())


def test_numbers_do_not_change_with_the_parameters_of_tables(digits):
    X = pd.DataFrame(digits[0][:80])
    codes = quick().fit_transform(X)
    others = {"categorical_features": None, "min_frequency": 3, "max_categories": 4}
    np.testing.assert_array_equal(quick(**others).fit_transform(X), codes)
    np.testing.assert_array_equal(quick(categorical_features=[]).fit_transform(X.to_numpy()), codes)
