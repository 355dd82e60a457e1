import copy
import errno
import hashlib
import io
import json
import os
import pickle
import re
import struct
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import joblib
import make_models
import numpy as np
import pandas as pd
import polars as pl
import pytest
import safetensors.numpy
import skops.io
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import nn

import aefeatures._files as files
import aefeatures._nets.networks as networks
import aefeatures._persistence as persistence
from aefeatures import (
    AutoencoderGenerator,
    AutoencoderImputer,
    AutoencoderOversampler,
    AutoencoderTransformer,
    Checkpoint,
    Contractive,
    ConvNetwork,
    Denoising,
    DenseNetwork,
    NeighborPreserving,
    NextFramePredictor,
    Regularizer,
    Sparse,
    Supervised,
    Variational,
    code_importance,
    code_sensitivity,
)
from aefeatures._autoencoder import fitted_model

pytestmark = pytest.mark.filterwarnings("ignore:.*learned nothing", "ignore:n_components=")

FIXTURES = sorted(make_models.FOLDER.glob("format_*_*.safetensors"))


def quick(**params):
    return AutoencoderTransformer(
        **{"hidden_layer_sizes": (8,), "max_epochs": 2, "random_state": 0, **params}
    )


@pytest.fixture(scope="module", name="X")
def some_digits():
    X = load_digits().data[:300]
    X.setflags(write=False)
    return X


@pytest.fixture(scope="module")
def model(X):
    return quick().fit(X)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.fixture
def saved(model, path):
    model.save(path)
    return path


def assert_same_values(ours, theirs):
    """Of arrays, and of frames in all their types."""
    assert type(ours) is type(theirs)
    if isinstance(ours, pd.DataFrame):
        pd.testing.assert_frame_equal(ours, theirs)
    elif isinstance(ours, pl.DataFrame):
        assert ours.equals(theirs)
        assert ours.schema == theirs.schema
    else:
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def assert_same(loaded, fitted, X):
    """All that can be seen of a fitted transformer."""
    for method in ("transform", "reconstruct", "score_samples"):
        assert_same_values(getattr(loaded, method)(X), getattr(fitted, method)(X))
    Z = np.asarray(fitted.transform(X))
    assert_same_values(loaded.inverse_transform(Z), fitted.inverse_transform(Z))
    assert vars(loaded).keys() == vars(fitted).keys()
    for name, value in vars(fitted).items():
        if isinstance(value, (int, float, str, dict)) and name not in loaded.get_params():
            assert repr(getattr(loaded, name)) == repr(value), name
    assert loaded.n_features_in_ == fitted.n_features_in_
    assert loaded.loss_curve_ == fitted.loss_curve_
    assert loaded.validation_loss_curve_ == fitted.validation_loss_curve_
    assert loaded.device_ == fitted.device_
    assert list(loaded.get_feature_names_out()) == list(fitted.get_feature_names_out())
    assert repr(loaded.encoder_) == repr(fitted.encoder_)
    assert fitted_model(loaded).cost == fitted_model(fitted).cost
    for ours, theirs in ((loaded.encoder_, fitted.encoder_), (loaded.decoder_, fitted.decoder_)):
        assert ours.training == theirs.training
        for mine, yours in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert mine.requires_grad == yours.requires_grad
            assert mine.stride() == yours.stride()


@pytest.mark.parametrize("scaling", ["standard", "feature", "global", "auto", None])
@pytest.mark.parametrize("bits", [8, 64])
def test_columns_without_information_are_kept(X, path, scaling, bits):
    rows = X[:, :20].astype(np.float64) / 16
    rows[:, 3], rows[:, 7] = 0.25, np.nan
    if bits == 8:
        rows = np.nan_to_num(rows * 255).astype(np.uint8)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "X has no known value in column 7")
        fitted = quick(scaling=scaling).fit(rows)
    fitted.save(path)
    loaded = AutoencoderTransformer.load(path)
    new = rows.copy()
    new[:, [3, 7]] = 1
    for given in (rows, new):
        assert_same(loaded, fitted, given)
        for per_feature in (True, "raw"):
            np.testing.assert_array_equal(
                loaded.score_samples(given, per_feature=per_feature),
                fitted.score_samples(given, per_feature=per_feature),
            )


@pytest.mark.parametrize("scaling", ["standard", "feature", "global"])
def test_files_without_statistics_of_columns(X, path, scaling):
    """Those of earlier versions: the same codes, and deviations only where the scale has them."""
    fitted = quick(scaling=scaling).fit(X)
    fitted.save(path)
    document, arrays = files.read_file(path)
    del document["common"], arrays["scaling.center"], arrays["scaling.spread"]
    own = ("digest", "format", "needs")
    files.write_file(
        path, {name: value for name, value in document.items() if name not in own}, arrays
    )
    loaded = AutoencoderTransformer.load(path)
    np.testing.assert_array_equal(loaded.transform(X), fitted.transform(X))
    raw = loaded.score_samples(X, per_feature="raw")
    if scaling == "global":
        with pytest.raises(ValueError, match=r"version without them\. Use per_feature='raw'"):
            loaded.score_samples(X, per_feature=True)
    else:
        scores = loaded.score_samples(X, per_feature=True)
        np.testing.assert_allclose(scores * fitted_model(loaded).scaling.scale.numpy(), raw)
    for function in (code_sensitivity, code_importance):
        with pytest.raises(ValueError, match=r"saved by an earlier version without them\. Fit it"):
            function(loaded, X)
    loaded.save(path)
    again = AutoencoderTransformer.load(path)
    np.testing.assert_array_equal(again.reconstruct(X), loaded.reconstruct(X))
    again.partial_fit(X)


def test_widths_left_out_of_the_default_are_kept(X, path):
    fitted = quick(n_components=20, hidden_layer_sizes=(128, 64, 12)).fit(X)
    fitted.save(path)
    loaded = AutoencoderTransformer.load(path)
    assert loaded.hidden_layer_sizes_ == (128, 64)
    assert_same(loaded.partial_fit(X), fitted.partial_fit(X), X)


@pytest.mark.filterwarnings("ignore:hidden_layer_sizes=.*caps the rank")
def test_files_of_default_networks_with_a_narrow_layer(X, path):
    """As earlier versions built them: the widths in a file are those of its network."""
    fitted = quick(n_components=20, hidden_layer_sizes=[128, 64, 12]).fit(X)
    for settings in (fitted, fitted_model(fitted).network):
        settings.hidden_layer_sizes = (128, 64, 12)
    fitted.save(path)
    loaded = AutoencoderTransformer.load(path)
    assert loaded.hidden_layer_sizes_ == (128, 64, 12)
    np.testing.assert_array_equal(loaded.transform(X), fitted.transform(X))
    loaded.partial_fit(X)


# What save keeps


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"hidden_layer_sizes": (), "scaling": None},
        {"hidden_layer_sizes": 5, "scaling": "global", "loss": "bce", "activation": "tanh"},
        {"hidden_layer_sizes": [8, 4], "normalization": "layer", "early_stopping": True},
        {"hidden_layer_sizes": np.array([8, 4]), "normalization": "batch"},
        {"n_components": np.int64(2), "learning_rate": np.float32(1e-3), "tol": np.float64(0.1)},
        {"network": DenseNetwork((8, 4), "gelu"), "precision": "float64"},
        {"network": ConvNetwork(channels=[4, 8], normalization="batch")},
        {"network": ConvNetwork(channels=(4,), normalization="layer"), "precision": "bfloat16"},
        {"regularizer": "variational"},
        {"regularizer": ["denoising", NeighborPreserving(3), Sparse(target=np.float64(0.1))]},
        {"regularizer": (Variational(beta=0.5), Denoising("gaussian"))},
        {"random_state": None, "device": torch.device("cpu")},
    ],
    ids=str,
)
def test_load_gives_back_what_was_saved(X, path, params):
    fitted = quick(**params).fit(X)
    fitted.save(path)
    loaded = AutoencoderTransformer.load(path)
    assert_same(loaded, fitted, X)
    saved = networks.plain(fitted).get_params()  # with Python's numbers
    assert repr(loaded.get_params()) == repr(saved)
    assert list(map(type, loaded.get_params().values())) == list(map(type, saved.values()))
    again = path.with_name("again")
    loaded.save(again)
    assert again.read_bytes() == path.read_bytes()


def numbers(estimator):
    """All of its parameters that are numbers, nested ones with them."""
    params = estimator.get_params().items()
    return {name: each for name, each in params if isinstance(each, (bool, int, float))}


@pytest.mark.parametrize(("integer", "real"), [(np.uint8, np.float16), (np.int64, np.float64)])
@pytest.mark.parametrize(
    "params",
    [
        {"network": DenseNetwork((8, 4), n_principal_components=5), "regularizer": Denoising()},
        {"network": ConvNetwork((8, 8), 2, kernel_size=3), "regularizer": NeighborPreserving()},
        {"hidden_layer_sizes": 8, "regularizer": Sparse()},
        {"regularizer": Variational()},
        {"regularizer": Contractive()},
        {"regularizer": Supervised(), "batch_size": 7},
    ],
    ids=str,
)
def test_numpys_numbers_are_plain_ones(X, path, tmp_path, params, integer, real):
    """In the results, the names of checkpoints and the files of models, and they stay as given."""
    kept = Checkpoint(tmp_path / "fits", keep=True)
    params = {"max_epochs": 2, "batch_size": 200, "early_stopping": True, **params}
    plain_one = clone(quick(**params, checkpoint=kept))
    given = {
        name: np.bool_(value)
        if isinstance(value, bool)
        else integer(value)
        if isinstance(value, int)
        else real(value)
        for name, value in numbers(plain_one).items()
    }
    assert given.keys() >= {"n_components", "tol", "warm_start", "checkpoint__keep"}
    plain_one.set_params(**{name: value.item() for name, value in given.items()})
    fitted = clone(plain_one).set_params(**given)
    y = X[:, 20]
    plain_one.fit(X, y)
    fitted.fit(X, y)
    assert len(list((tmp_path / "fits").iterdir())) == 1
    for estimator in (plain_one, fitted):
        estimator.save(path)
        assert len({*map(type, numbers(AutoencoderTransformer.load(path)).values())}) == 3
        estimator.saved = path.read_bytes()
    assert fitted.saved == plain_one.saved
    np.testing.assert_array_equal(
        fitted.partial_fit(X, y).transform(X), plain_one.partial_fit(X, y).transform(X)
    )
    assert {name: type(fitted.get_params()[name]) for name in given} == {
        name: type(value) for name, value in given.items()
    }


@pytest.mark.parametrize("sizes", [[4, 5], np.array([4, 5]), (np.int64(4), np.uint8(5))])
@pytest.mark.parametrize(
    "make",
    [lambda sizes: {"network": ConvNetwork((8, 8), sizes)}, lambda s: {"network": DenseNetwork(s)}],
)
def test_training_goes_on_whatever_sizes_are_held_in(X, path, make, sizes):
    quick(**make((4, 5))).fit(X).save(path)
    loaded = AutoencoderTransformer.load(path).set_params(**make(sizes))
    assert loaded.partial_fit(X).n_iter_ == 3
    with pytest.raises(ValueError, match="network changed since the last fit"):
        loaded.set_params(**make((4, 6))).partial_fit(X)
    with pytest.raises(ValueError, match="network changed since the last fit"):
        loaded.set_params(network=None).partial_fit(X)


def test_training_goes_on_where_the_network_has_a_new_parameter(X, path, monkeypatch):
    quick(network=ConvNetwork((8, 8), (2, 3))).fit(X).save(path)

    class Wider(ConvNetwork):
        def __init__(
            self,
            image_shape=None,
            channels=(32, 64),
            kernel_size=3,
            activation="gelu",
            normalization=None,
            dilation=1,
        ):
            super().__init__(image_shape, channels, kernel_size, activation, normalization)
            self.dilation = dilation

    monkeypatch.setitem(persistence._OBJECTS, "ConvNetwork", Wider)
    loaded = AutoencoderTransformer.load(path)
    assert loaded.network.dilation == 1
    assert loaded.partial_fit(X).n_iter_ == 3
    with pytest.raises(ValueError, match="network changed since the last fit"):
        loaded.set_params(network__dilation=2).partial_fit(X)


def test_unlabelled_mark_that_is_nan(X, path):
    fitted = quick(regularizer=Supervised(unlabeled=np.nan)).fit(X, X[:, 20])
    fitted.save(path)
    assert np.isnan(AutoencoderTransformer.load(path).regularizer.unlabeled)


def test_random_state_instances_go_on_where_they_were(X, path):
    fitted = quick(random_state=np.random.RandomState(3)).fit(X)
    fitted.save(path)
    loaded = AutoencoderTransformer.load(path)
    assert loaded.random_state.randint(2**31) == fitted.random_state.randint(2**31)
    other = quick(random_state=np.random.RandomState(np.random.PCG64(3))).fit(X)
    with pytest.raises(ValueError, match=r"random_state=RandomState.* cannot be saved"):
        other.save(path)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_feature_names_and_output_container(X, path, library):
    frame = pytest.importorskip(library).DataFrame
    columns = [f"c{i}" for i in range(61)] + [" ", "größe\n", "\x00😀"]
    table = frame(X.copy(), **{"columns" if library == "pandas" else "schema": columns})
    fitted = quick().set_output(transform=library).fit(table)
    fitted.save(path)
    loaded = AutoencoderTransformer.load(path)
    assert loaded.feature_names_in_.tolist() == columns
    assert loaded.feature_names_in_.dtype == fitted.feature_names_in_.dtype
    assert type(loaded.transform(table)) is frame
    assert_same(loaded, fitted, table)
    assert isinstance(loaded.set_output(transform="default").transform(table), np.ndarray)


def test_missing_values(X, path):
    holes = np.where(np.random.default_rng(0).random(X.shape) < 0.1, np.nan, X)
    fitted = quick().fit(holes)
    fitted.save(path)
    assert_same(AutoencoderTransformer.load(path), fitted, holes)


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_training_goes_on_as_after_a_pickle(X, path, method):
    fitted = quick(warm_start=True, regularizer="variational").fit(X)
    fitted.save(path)
    with torch.inference_mode():
        loaded = AutoencoderTransformer.load(path)
    pickled = pickle.loads(pickle.dumps(fitted))
    codes = getattr(loaded, method)(X).transform(X)
    np.testing.assert_array_equal(codes, getattr(pickled, method)(X).transform(X))
    assert loaded.n_iter_ > fitted.n_iter_
    with pytest.raises(ValueError, match="n_components changed"):
        loaded.set_params(n_components=4).partial_fit(X)


def test_network_is_that_of_the_fit_and_parameters_are_those_of_now(X, path):
    fitted = quick().fit(X).set_params(n_components=5, hidden_layer_sizes=(3, 2), loss="mae")
    codes = fitted.transform(X)
    fitted.save(path)
    loaded = AutoencoderTransformer.load(path)
    np.testing.assert_array_equal(loaded.transform(X), codes)
    assert loaded.score(X) == fitted.score(X)
    assert (loaded.n_components, loaded.hidden_layer_sizes) == (5, (3, 2))


def test_after_partial_fit(X, path):
    fitted = quick().partial_fit(X)
    fitted.save(path)
    loaded = AutoencoderTransformer.load(path)
    assert not hasattr(loaded, "max_epochs_")
    np.testing.assert_array_equal(loaded.transform(X), fitted.transform(X))


def test_subclasses_load_as_themselves(X, path):
    class Named(AutoencoderTransformer):
        def __init__(self, n_components=2, *, title="", max_epochs=1):
            super().__init__(n_components, max_epochs=max_epochs)
            self.title = title

        @classmethod
        def _get_param_names(cls):
            return sorted(["title", *AutoencoderTransformer._get_param_names()])

        def set_title(self, title):
            self.title = title
            return self

    class Renamed(AutoencoderTransformer):
        pass

    quick().fit(X).save(path)
    assert type(Renamed.load(path)) is Renamed
    fitted = Named(title="a").fit(X)
    fitted.save(path)
    with pytest.raises(
        ValueError, match=r"AutoencoderTransformer does not have: \['title'\].*saved by"
    ):
        AutoencoderTransformer.load(path)


def test_saving_changes_nothing(X, model, path):
    before = {name: id(value) for name, value in vars(model).items()}
    values = [parameter.detach().clone() for parameter in model.encoder_.parameters()]
    model.save(path)
    AutoencoderTransformer.load(path).partial_fit(X)
    assert {name: id(value) for name, value in vars(model).items()} == before
    for parameter, value in zip(model.encoder_.parameters(), values, strict=True):
        assert torch.equal(parameter, value)


def test_unfitted_transformers_are_not_saved(path):
    with pytest.raises(NotFittedError, match="is not fitted yet"):
        AutoencoderTransformer().save(path)
    assert not path.exists()


def test_format_is_safetensors(saved, model):
    arrays = safetensors.numpy.load_file(saved)
    np.testing.assert_array_equal(arrays["encoder.0.weight"], model.encoder_[0].weight.detach())
    with safetensors.safe_open(saved, "numpy") as file:
        document = json.loads(file.metadata()["aefeatures"])
    assert document["format"] == 1  # of models of numbers
    assert document["versions"].keys() >= {"aefeatures", "torch", "numpy", "scikit-learn"}
    n_bytes = sum(array.nbytes for array in arrays.values())
    assert saved.stat().st_size < n_bytes + 5_000


# Devices


def test_device_is_resolved_anew(X, model, path):
    elsewhere = copy.copy(model).set_params(device="cuda:99")
    elsewhere.device_ = torch.device("cuda:99")
    elsewhere.save(path)
    loaded = AutoencoderTransformer.load(path)
    assert loaded.device == "cuda:99"
    np.testing.assert_allclose(loaded.transform(X), model.transform(X), rtol=1e-5, atol=1e-5)
    assert AutoencoderTransformer.load(path, device="cpu").device == "cpu"
    with pytest.raises(ValueError, match="device='cuda:99' cannot be used: it is not available"):
        AutoencoderTransformer.load(path, device="cuda:99")


# Tables


def mixed(library="pandas"):
    """A table with columns of all kinds, gaps, and texts of all kinds."""
    rng, n = np.random.default_rng(0), 150
    texts = rng.choice(["a", "größe\n", "\x00😀", "", None], n)
    columns = {
        "number": np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n)),
        "small": rng.integers(0, 9, n).astype(np.int8),
        "flag": rng.random(n) < 0.5,
        "text, größe\n": texts.tolist(),
        "many": rng.integers(0, 30, n).astype(str).tolist(),
        "day": np.datetime64("2024-01-01", "us") + rng.integers(0, 99, n) * np.timedelta64(1, "D"),
        "age": rng.integers(0, 10**9, n).astype("timedelta64[us]"),
    }
    sizes = ["large", "middle", "small"]
    if library == "polars":
        size = pl.Series(rng.choice(sizes[1:], n).tolist(), dtype=pl.Enum(sizes))
        frame = pl.DataFrame(columns | {"size": size})
        return frame.with_columns(pl.col("day").cast(pl.Date), pl.col("many").cast(pl.Categorical))
    size = pd.Categorical(rng.choice(sizes[1:], n), categories=sizes, ordered=True)
    codes = {"whole": rng.choice([7, 3], n), "real": rng.choice([0.1, 1e300], n)}
    codes |= {"truth": rng.random(n) < 0.3}
    frame = pd.DataFrame(columns | {"size": size, **codes})
    frame["zoned"] = frame["day"].dt.tz_localize("Europe/Zurich")
    return frame.astype(dict.fromkeys(codes, "category") | {"small": "Int8"})


def objects():
    return mixed().iloc[:, [0, 3, 4]].to_numpy(object)


TABLES = {
    "pandas": (mixed, {}),
    "grouped": (mixed, {"max_categories": 4, "min_frequency": 0.02, "n_components": 8}),
    "feature": (mixed, {"scaling": "feature", "precision": "float64", "loss": "mae"}),
    "polars": (lambda: mixed("polars"), {"min_frequency": 3}),
    "objects": (objects, {"categorical_features": [1, 2]}),
    "numbers": (lambda: np.arange(300).reshape(100, 3) % 7, {"categorical_features": [0]}),
}


@pytest.fixture(scope="module", params=TABLES)
def fitted_table(request):
    make, params = TABLES[request.param]
    X = make()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Column 'many' has 30 levels")
        return quick(**{"n_components": 2, **params}).fit(X), X


def test_tables_come_back(fitted_table, path):
    fitted, X = fitted_table
    fitted.save(path)
    assert files.read_file(path)[0]["format"] == 2
    loaded = AutoencoderTransformer.load(path)
    assert_same(loaded, fitted, X)
    for per_feature in (True, "raw"):
        ours, theirs = (each.score_samples(X, per_feature=per_feature) for each in (loaded, fitted))
        assert_same_values(ours, theirs)
    np.testing.assert_array_equal(loaded.is_categorical_, fitted.is_categorical_)
    assert [*map(list, loaded.categories_)] == [*map(list, fitted.categories_)]
    pairs = zip(loaded.categories_, fitted.categories_, strict=True)
    assert all([*map(type, ours)] == [*map(type, theirs)] for ours, theirs in pairs)
    assert repr(loaded.get_params()) == repr(fitted.get_params())
    again = path.with_name("again")
    loaded.save(again)
    assert again.read_bytes() == path.read_bytes()
    pickled = pickle.loads(pickle.dumps(fitted))
    assert_same(loaded.partial_fit(X), pickled.partial_fit(X), X)


def test_columns_without_a_known_value_and_of_one_level(path):
    X = mixed()[["number"]].assign(one="a", none=pd.Series([None] * 150, dtype="str"), nan=np.nan)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "X has no known value in columns 'none', 'nan'")
        fitted = quick().fit(X)
    fitted.save(path)
    assert_same(AutoencoderTransformer.load(path), fitted, X)


def test_a_table_of_categories_alone(path):
    X = mixed()[["many", "size"]]
    fitted = quick().fit(X)
    fitted.save(path)
    assert_same(AutoencoderTransformer.load(path), fitted, X)


def test_a_fit_on_numbers_after_one_on_a_table_forgets_the_table(X, path):
    fitted = quick().fit(mixed()[["number", "size"]]).fit(X)
    fitted.save(path)
    assert files.read_file(path)[0]["format"] == 1
    assert_same(AutoencoderTransformer.load(path), fitted, X)


def test_files_from_before_tables(saved, path):
    document, arrays = files.read_file(saved)
    later = ("categorical_features", "min_frequency", "max_categories")
    for name in later:
        del document["parameters"][name]
    own = ("digest", "format", "needs")
    files.write_file(path, {name: document[name] for name in document if name not in own}, arrays)
    loaded = AutoencoderTransformer.load(path)
    assert {name: loaded.get_params()[name] for name in later} == {
        name: AutoencoderTransformer().get_params()[name] for name in later
    }


@pytest.mark.parametrize(
    ("levels", "shown"),
    [
        (pd.interval_range(0, 3), r"Interval\(0, 1, closed='right'\) \(Interval\)"),
        (pd.date_range("2024", periods=3), r"Timestamp\('2024-01-01 00:00:00'\) \(Timestamp\)"),
        ([b"a", b"b"], r"b'a' \(bytes\)"),
        ([1, 2.5], r"1 \(int\)"),
    ],
    ids=["intervals", "dates", "bytes", "several"],
)
def test_levels_of_other_types_need_a_pickle(levels, shown, path):
    objects = pd.Series([levels[i % 2] for i in range(40)], dtype=object)
    values = objects if isinstance(levels, list) else pd.Categorical(objects, categories=levels)
    X = pd.DataFrame({"n": np.arange(40.0), "c": values})
    fitted = quick(n_components=1, categorical_features=["c"]).fit(X)
    with pytest.raises(ValueError, match=rf"Column 'c' has levels such as {shown}.* Use pickle"):
        fitted.save(path)
    assert not path.exists()
    assert_same(pickle.loads(pickle.dumps(fitted)), fitted, X)


@pytest.mark.parametrize("dump", ["pickle", "joblib", "skops"])
def test_pickles_of_tables(fitted_table, dump):
    fitted, X = fitted_table
    if dump == "pickle":
        loaded = pickle.loads(pickle.dumps(fitted))
    elif dump == "joblib":
        file = io.BytesIO()
        joblib.dump(fitted, file)
        loaded = joblib.load(file)
    else:
        data = skops.io.dumps(fitted)
        asked = set(skops.io.get_untrusted_types(data=data))
        assert asked <= TRUSTED | TRUSTED_OF_TABLES
        loaded = skops.io.loads(data, trusted=sorted(asked))
    assert_same(loaded, fitted, X)


def test_pickles_do_not_depend_on_what_was_computed(fitted_table):
    fitted, X = fitted_table
    before = pickle.dumps(pickle.loads(pickle.dumps(fitted)))
    loaded = pickle.loads(before)
    loaded.transform(X)
    assert len(pickle.dumps(loaded)) == len(before)


def with_columns(document, i, **changes):
    document["table"]["columns"][i].update(changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d, a: d["table"].update(library="dask"), "unknown library 'dask'"),
        (lambda d, a: d["table"]["columns"].pop(), "levels that its type lacks"),
        (
            lambda d, a: d["table"]["columns"].__setitem__(0, None),
            "column should be a dict, got None",
        ),
        (lambda d, a: with_columns(d, 0, kind="text"), "unknown kind of column 'text'"),
        (lambda d, a: with_columns(d, 0, kind="category"), "unknown kind of column 'category'"),
        (lambda d, a: with_columns(d, 0, kind=["number"]), "kind should be a str"),
        (lambda d, a: with_columns(d, 0, step=-1.0), r"step should be a number.*got -1\.0"),
        (lambda d, a: with_columns(d, 0, step=None), "step should be a float, got None"),
        (lambda d, a: with_columns(d, 0, dtype=3), "unknown type of column 3"),
        (lambda d, a: with_columns(d, 0, dtype="U1000000000"), "unknown type of column 'U1"),
        (lambda d, a: with_columns(d, 1, levels=None), "unknown kind of column 'category'"),
        (lambda d, a: with_columns(d, 1, levels=["str", 10**9]), "1000000000 levels should be"),
        (lambda d, a: with_columns(d, 1, levels=["int", 5]), "invalid literal for int"),
        (lambda d, a: with_columns(d, 1, levels=["bytes", 5]), "levels should be their type and"),
        (lambda d, a: with_columns(d, 6, dtype={"levels": ["str", 3]}), "kind should be a str"),
        (lambda d, a: a.pop("table.codes"), "table.codes"),
        (lambda d, a: a.update({"table.codes": a["table.codes"][:-1]}), "their codes"),
        (lambda d, a: a.update({"table.codes": a["table.codes"] + 1}), "codes of .* out of range"),
        (lambda d, a: a.update({"table.codes": a["table.codes"] - 1}), "codes of .* out of range"),
        (lambda d, a: a.update({"table.codes": a["table.codes"] * 0}), "numbers, not"),
        (lambda d, a: a.update({"table.codes": a["table.codes"][::-1].copy()}), "out of range"),
        (lambda d, a: a.update({"table.codes": a["table.codes"] * 10**18}), "out of range"),
        (lambda d, a: a.update({"table.codes": a["table.codes"] / 1}), "should be int64 of"),
        (lambda d, a: a.update({"table.counts": a["table.counts"] * 0}), "counts of .* out of"),
        (lambda d, a: a.update({"table.counts": a["table.counts"] - 99}), "counts of .* out of"),
        (lambda d, a: a["table.counts"].fill(2**62), "counts of .* out of"),
        (lambda d, a: a["table.texts"].fill(97), "different levels|levels that its type lacks"),
        (lambda d, a: a["table.text_lengths"].fill(-1), "the texts of the table are not those of"),
        (lambda d, a: a.update({"scaling.numbers.scale": np.ones(2)}), "scaling.numbers.scale sho"),
    ],
)
def test_damaged_tables_are_refused(path, forge, change, message):
    document, arrays = files.read_file(make_models.FOLDER / "format_2_pandas.safetensors")
    arrays = {name: array.copy() for name, array in arrays.items()}
    change(document, arrays)
    forge(document, arrays)
    with pytest.raises(ValueError, match=f"cannot be loaded: .*{message}"):
        AutoencoderTransformer.load(path)


# What cannot be saved


class Centred(Regularizer):
    def penalty(self, batch):
        return batch.codes.square().mean()


def own_loss(reconstruction, target):
    return (reconstruction - target).square().mean(dim=1)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"loss": own_loss}, "loss=<function own_loss .* cannot be saved: save stores no code"),
        ({"regularizer": Centred()}, r"regularizer=Centred\(\) cannot be saved"),
        ({"regularizer": ["sparse", Centred()]}, r"regularizer=Centred\(\) cannot be saved"),
    ],
)
def test_code_is_not_saved(X, saved, params, message):
    before = saved.read_bytes()
    fitted = quick(**params).fit(X)
    with pytest.raises(ValueError, match=message):
        fitted.save(saved)
    fitted.set_params(regularizer=None)
    if "loss" in params:
        with pytest.raises(ValueError, match=r"loss=.* cannot be saved"):
            fitted.set_params(loss="mse").save(saved)
    assert saved.read_bytes() == before
    assert [*saved.parent.iterdir()] == [saved]


def own_network(n_features, n_components, width=7):
    shared = nn.Linear(width, width)
    encoder = nn.Sequential(
        nn.Linear(n_features, width), nn.BatchNorm1d(width), shared, nn.Linear(width, n_components)
    )
    return encoder, nn.Sequential(
        nn.Linear(n_components, width), shared, nn.Linear(width, n_features)
    )


class OwnNetwork(DenseNetwork):
    def build(self, n_features, n_components, *, spec):
        encoder, decoder = super().build(n_features, n_components, spec=spec)
        return nn.Sequential(nn.Identity(), encoder), decoder


@pytest.mark.parametrize("network", [own_network, OwnNetwork((6,))], ids=["callable", "Network"])
def test_network_of_ones_own_is_given_again(X, path, network):
    fitted = quick(network=network, warm_start=True).fit(X)
    fitted.save(path)
    name = getattr(network, "__name__", "OwnNetwork")
    with pytest.raises(
        ValueError, match=rf"'{name}', which files do not contain.*load\(path, network="
    ):
        AutoencoderTransformer.load(path)
    loaded = AutoencoderTransformer.load(path, network=network)
    assert_same(loaded, fitted, X)
    assert loaded.network is network
    loaded.fit(X)


def test_network_given_again_has_to_be_the_same(X, path, saved):
    quick(network=own_network).fit(X).save(path)
    with pytest.raises(ValueError, match=r"encoder\.\S+ should be torch.float32 of shape \(9,"):
        AutoencoderTransformer.load(path, network=lambda n, k: own_network(n, k, 9))
    with pytest.raises(
        ValueError, match=r"the encoder of the network has the arrays .*, but the file"
    ):
        AutoencoderTransformer.load(path, network=lambda n, k: (nn.Linear(n, k), nn.Linear(k, n)))
    quick().fit(X).save(path)
    with pytest.raises(ValueError, match=r"contains its network, got .* Leave network out\."):
        AutoencoderTransformer.load(path, network=own_network)


# Writing


def test_full_disk_leaves_the_old_file(saved, model):
    resource = pytest.importorskip("resource")
    before = saved.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, limits[1]))
    try:
        with pytest.raises(OSError, match="The model was not saved: File too large") as caught:
            model.save(saved)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == str(saved)
    assert saved.read_bytes() == before
    assert [*saved.parent.iterdir()] == [saved]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=repr
)
def test_failure_at_the_end_leaves_the_old_file(saved, model, monkeypatch, failing, error):
    before = saved.read_bytes()

    def fail(*args):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, fail)
        if failing == "replace":
            patch.setattr(Path, "replace", fail)
        message = "not saved: No space left" if isinstance(error, OSError) else None
        with pytest.raises(type(error), match=message):
            model.save(saved)
    assert saved.read_bytes() == before
    assert [*saved.parent.iterdir()] == [saved]


def test_paths_that_cannot_be_written(model, saved, tmp_path):
    with pytest.raises(FileNotFoundError, match="The model was not saved"):
        model.save(tmp_path / "missing" / "model")
    with pytest.raises(NotADirectoryError, match="The model was not saved"):
        model.save(saved / "model")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="The model was not saved"):
        model.save(tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", saved.name]
    assert not [*(tmp_path / "folder").iterdir()]
    with pytest.raises(FileNotFoundError, match="No such file or directory"):
        AutoencoderTransformer.load(tmp_path / "missing")


def test_links_and_permissions_stay(model, saved):
    saved.chmod(0o640)
    link = saved.with_name("link")
    link.symlink_to(saved.name)
    saved.write_bytes(b"")
    model.save(str(link))
    assert link.is_symlink()
    assert saved.stat().st_mode & 0o777 == 0o640
    assert saved.stat().st_size > 0


def test_saving_in_threads(model, path, X):
    threads = [threading.Thread(target=model.save, args=(path,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_same(AutoencoderTransformer.load(path), model, X)
    assert [*path.parent.iterdir()] == [path]


KILLED = """
import os, random, signal, sys, time, warnings
from pathlib import Path
from aefeatures import AutoencoderTransformer

folder, n_kills = Path(sys.argv[1]), int(sys.argv[2])
path = folder / "model.safetensors"
models = [AutoencoderTransformer.load(folder / name) for name in "ab"]
whole = {(folder / name).read_bytes() for name in "ab"}
models[0].save(path)
seen, strays = [], 0
random.seed(0)
# On a busy machine a child may not come to its second model, so that there have to be more.
while len(seen) < n_kills or (len(set(seen)) < 2 and len(seen) < 20 * n_kills):
    child = os.fork()
    if child == 0:
        while True:
            for model in models:
                model.save(path)
    time.sleep(random.uniform(0.01, 0.05))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    data = path.read_bytes()
    assert data in whole, len(data)
    AutoencoderTransformer.load(path)
    seen.append(data)
    for stray in folder.glob(".aefeatures-*.tmp"):
        stray.unlink()
        strays += 1
assert sorted(os.listdir(folder)) == ["a", "b", "model.safetensors"], os.listdir(folder)
print(len(seen), len(set(seen)), strays)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks after PyTorch was imported")
@pytest.mark.parametrize("n_kills", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_kill_in_the_middle_leaves_the_old_or_the_new_model(X, tmp_path, n_kills):
    for name, seed in (("a", 0), ("b", 1)):
        quick(hidden_layer_sizes=(512, 256), max_epochs=1, random_state=seed).fit(X).save(
            tmp_path / name
        )
    code = [sys.executable, "-c", KILLED, str(tmp_path), str(n_kills)]
    printed = subprocess.run(code, check=True, capture_output=True, text=True).stdout
    print("kills, different models found, temporary files found:", printed)
    n_seen, n_different, _ = map(int, printed.split())
    assert n_seen >= n_kills
    assert n_different == 2


# Reading files of any kind


def peak_memory(*, reset=False):
    """The most memory of this process since the last reset, in bytes; 0 where nobody tells."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except OSError:
        return 0


class Watch:
    """Loads files, and keeps the worst time and memory that one took."""

    def __init__(self):
        self.outcomes = {"equal": 0, "refused": 0}
        self.seconds = self.memory = 0

    def load(self, path):
        before = peak_memory(reset=True)
        loaded, message, seconds = self.timed(path)
        if seconds > 0.5:  # of a machine that is busy otherwise, the better of two
            seconds = min(seconds, self.timed(path)[2])
        self.seconds = max(self.seconds, seconds)
        self.memory = max(self.memory, peak_memory() - before)
        assert str(path) in message
        assert len(message) < 1_000
        return loaded

    def timed(self, path):
        # Of this process: others may keep the machine busy.
        started = time.process_time()
        try:
            loaded, message = AutoencoderTransformer.load(path), str(path)
        except ValueError as error:
            loaded, message = None, str(error)
        return loaded, message, time.process_time() - started

    def check(self):
        print(f"{self.outcomes}, {self.seconds:.3f} s, {self.memory / 1e6:.1f} MB")
        assert self.seconds < 1
        assert self.memory < 100e6


def mutated(data, rng):
    """`data` with 1 to 100 bytes flipped, cut or inserted."""
    n = int(rng.integers(1, 101))
    # Half of them in the header, which is where there is more to go wrong.
    end = len(data) if rng.random() < 0.5 else 8 + int.from_bytes(data[:8], "little")
    at = int(rng.integers(end))
    kind = rng.integers(4)
    if kind == 0:
        return data[:at] + data[at + n :]
    if kind == 1:
        return data[:at] + rng.bytes(n) + data[at:]
    changed = bytearray(data)
    places = range(at, min(at + n, end)) if kind == 2 else rng.integers(end, size=n)
    for place in places:
        changed[place] ^= int(rng.integers(1, 256))
    return bytes(changed)


@pytest.mark.parametrize("n_files", [400, pytest.param(10_000, marks=pytest.mark.slow)])
def test_damaged_files_are_refused(tmp_path, n_files):
    rng = np.random.default_rng(0)
    watch = Watch()
    originals = {path: (path.read_bytes(), AutoencoderTransformer.load(path)) for path in FIXTURES}
    file = tmp_path / "model"
    for i in range(n_files):
        original, fitted = originals[FIXTURES[i % len(FIXTURES)]]
        file.write_bytes(mutated(original, rng))
        loaded = watch.load(file)
        if loaded is None:
            watch.outcomes["refused"] += 1
        else:
            assert_same_values(*(each.inverse_transform(np.eye(3)) for each in (loaded, fitted)))
            assert repr(loaded.get_params()) == repr(fitted.get_params())
            watch.outcomes["equal"] += 1
    watch.check()
    assert sum(watch.outcomes.values()) == n_files


def test_every_cut_and_what_it_is_called(saved):
    data = saved.read_bytes()
    n_header = int.from_bytes(data[:8], "little")
    for n, message in [
        (0, "is not a model saved by aefeatures"),
        (7, "is not a model saved by aefeatures"),
        (8, "is truncated: 8 bytes are less than its header takes"),
        (20, "is truncated"),
        (8 + n_header - 1, "is truncated"),
        (8 + n_header, f"is truncated: {8 + n_header} bytes instead of {len(data)}"),
        (len(data) - 1, f"is truncated: {len(data) - 1} bytes instead of {len(data)}"),
    ]:
        saved.write_bytes(data[:n])
        with pytest.raises(ValueError, match=message):
            AutoencoderTransformer.load(saved)
    saved.write_bytes(data + b"x")
    with pytest.raises(ValueError, match=f"is damaged: {len(data) + 1} bytes instead of"):
        AutoencoderTransformer.load(saved)
    saved.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ValueError, match="is damaged: its contents are not those that were saved"):
        AutoencoderTransformer.load(saved)


class Bomb:
    def __reduce__(self):
        return (os.abort, ())


def test_names_that_overlap_are_refused(path, forge):
    document, arrays = files.read_file(make_models.FOLDER / "format_1_variational.safetensors")
    size = 2**20
    # Their sum overflows, and comes back to 0 after each three.
    lengths = np.array([size, 2**63 - size // 2, 2**63 - size + size // 2] * 21 + [size], np.uint64)
    assert lengths.sum() == size
    forged = {
        "feature_names": np.zeros(size, np.uint8),
        "feature_name_lengths": lengths.astype(np.int64),
    }
    forge(document, {**arrays, **forged})
    with pytest.raises(ValueError, match="feature names are not those of 64 columns"):
        AutoencoderTransformer.load(path)


def test_files_of_another_kind(path, model):
    for write in (
        lambda: path.write_bytes(b"hello, world" * 100),
        lambda: path.write_bytes(pickle.dumps(Bomb())),
        lambda: torch.save({"a": torch.zeros(3)}, path),
        lambda: safetensors.numpy.save_file({"a": np.zeros(3)}, path),
        lambda: safetensors.numpy.save_file({"a": np.zeros(3)}, path, {"format": "np"}),
        lambda: path.write_bytes(np.zeros(3).dumps()),
        lambda: path.write_bytes(bytes(10_000)),
        lambda: path.write_bytes(struct.pack("<Q", 2**63) + bytes(100)),
    ):
        write()
        with pytest.raises(ValueError, match="is not a model saved by aefeatures"):
            AutoencoderTransformer.load(path)


def sealed(header, arrays=b""):
    """A file of this header, with a digest that fits."""
    header = header if isinstance(header, bytes) else header.encode()
    data = struct.pack("<Q", len(header)) + header + arrays
    blank = b"0" * 64
    assert blank in data
    return data.replace(blank, hashlib.sha256(data).hexdigest().encode(), 1)


def header_of(text, tensors='"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'):
    document = '{"digest":"' + "0" * 64 + '","format":1,' + text + "}"
    return f'{{"__metadata__":{{"aefeatures":{json.dumps(document)}}},{tensors}}}'


@pytest.mark.parametrize(
    ("text", "tensors", "message"),
    [
        ('"a":' + "[" * 100_000 + "]" * 100_000, None, "header cannot be read"),
        ('"a":' + '{"a":' * 50_000 + "1" + "}" * 50_000, None, "header cannot be read"),
        ('"a":' + "9" * 5_000, None, "header cannot be read"),
        ('"a":NaN', None, "NaN is not JSON"),
        ('"a":1,"a":2', None, "has the same name twice"),
        ('"format":1', None, "has the same name twice"),
        ('"a":' + "[" + "[]," * 300_000 + "[]]", None, "cannot be loaded"),
        (
            '"parameters":{}',
            '"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4]}',
            "damaged",
        ),
        (
            '"parameters":{}',
            '"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,4]}',
            "damaged",
        ),
        ('"parameters":{}', '"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}', "damaged"),
        ('"parameters":{}', '"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}', "damaged"),
        (
            '"parameters":{}',
            '"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}',
            "truncated|damaged",
        ),
        ('"parameters":{}', '"a":{"dtype":"F32","shape":[1],"data_offsets":[0,"x"]}', "damaged"),
        ('"parameters":{}', '"a":[]', "header cannot be read"),
        ('"parameters":{}', '"__metadata__":{}', "has the same name twice"),
        (
            '"parameters":{}',
            '"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}',
            "cannot be loaded",
        ),
    ],
)
def test_bad_headers(path, text, tensors, message):
    header = header_of(text) if tensors is None else header_of(text, tensors)
    path.write_bytes(sealed(header, bytes(4)))
    watch = Watch()
    assert watch.load(path) is None
    watch.check()
    with pytest.raises(ValueError, match=message):
        AutoencoderTransformer.load(path)


def test_largest_header_there_may_be(path):
    limit = files._MAX_HEADER
    watch = Watch()
    for n in (limit - 1_000, limit + 1):
        header = header_of('"a":[' + "{}," * (n // 3) + "{}]")
        path.write_bytes(sealed(header[:-1].ljust(n) + "}", bytes(4)))
        assert watch.load(path) is None
    watch.check()


def leaves(document, at=()):
    """Places of all values in nested dicts and lists."""
    items = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in items:
        yield (*at, key)
        if isinstance(value, (dict, list)) and value:
            yield from leaves(value, (*at, key))


HOSTILE = [
    None,
    True,
    -1,
    0,
    10**12,
    10**30,
    0.5,
    1e300,
    "",
    "x" * 3_000,
    "/etc/passwd",
    [],
    [[]],
    [10**12, 10**12],
    [1] * 10_000,
    {},
    {"tuple": 3},
    {"tuple": [10**9] * 3},
    {"array": ["int64", [[1], [1, 2]]]},
    {"array": ["object", [None]]},
    {"array": ["int64", 10**30]},
    {"numpy": ["float64", [1.0, 2.0]]},
    {"numpy": ["U1000000000", "a"]},
    {"float": "1e5"},
    {"device": "cuda:-5"},
    {"device": "meta"},
    {"RandomState": [[0] * 624, 10**9, 0, 0.0]},
    {"RandomState": [[-1] * 624, 0, 0, 0.0]},
    {"DenseNetwork": {"hidden_layer_sizes": 10**12}},
    {"ConvNetwork": {"kernel_size": 10**9 + 1}},
    {"ConvNetwork": {"image_shape": [2**40, 2**40, 64]}},
    {"DenseNetwork": {"hidden_layer_sizes": {"DenseNetwork": {}}}},
    {"AutoencoderTransformer": {}},
    {"own_network": None},
    {"os.system": "true"},
    {"__reduce__": ["os.system", ["true"]]},
]


@pytest.fixture
def forge(path, monkeypatch):
    """Write a file of any content, its digest right, and without waiting for the disk."""
    monkeypatch.setattr(
        files, "write_atomically", lambda _, parts, *__: path.write_bytes(b"".join(parts))
    )

    def write(document, arrays):
        own = {name: document[name] for name in document.keys() - {"digest", "format", "needs"}}
        files.write_file(path, own, arrays)

    return write


@pytest.mark.parametrize("n_values", [3, pytest.param(len(HOSTILE), marks=pytest.mark.slow)])
@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda path: path.stem)
def test_documents_that_ask_for_anything(path, forge, fixture, n_values):
    document, arrays = files.read_file(fixture)
    places = [place for place in leaves(document) if place[0] not in ("digest", "format", "needs")]
    watch = Watch()
    rng = np.random.default_rng(0)
    for place in places:
        for i in rng.permutation(len(HOSTILE))[:n_values]:
            forged = copy.deepcopy(document)
            parent = forged
            for key in place[:-1]:
                parent = parent[key]
            parent[place[-1]] = HOSTILE[i]
            forge(forged, arrays)
            loaded = watch.load(path)
            watch.outcomes["refused" if loaded is None else "equal"] += 1
    watch.check()
    assert watch.outcomes["refused"] > watch.outcomes["equal"]


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: repr(value)[:30])
def test_networks_that_ask_for_anything(path, forge, value):
    document, arrays = files.read_file(FIXTURES[0])
    watch = Watch()
    for place in (
        ("network",),
        ("built_from", "n_components"),
        ("parameters", "hidden_layer_sizes"),
        ("rng",),
        ("width",),
        ("output",),
        ("versions",),
    ):
        forged = copy.deepcopy(document)
        parent = forged
        for key in place[:-1]:
            parent = parent[key]
        parent[place[-1]] = value
        forge(forged, arrays)
        watch.load(path)
    for name, array in arrays.items():
        others = {**arrays, name: array.astype(np.int8), "another": np.zeros(3)}
        for forged in (
            others,
            {key: array for key, array in arrays.items() if key != name},
            {**arrays, name: array.reshape(-1, 1)},
            {**arrays, name: array[..., :0]} if array.ndim else others,
        ):
            forge(document, forged)
            assert watch.load(path) is None
    watch.check()


# Formats


@pytest.mark.parametrize(
    "text", ["{'channels': (np.int64(2), 3), 'kernel_size': 3}", "ConvNetwork(channels=(2, 3))"]
)
def test_training_goes_on_from_what_another_version_wrote_down_of_the_network(path, forge, text):
    (fixture,) = (fixture for fixture in FIXTURES if fixture.stem.endswith("images"))
    document, arrays = files.read_file(fixture)
    document["built_from"]["network"] = text
    forge(document, arrays)
    loaded = AutoencoderTransformer.load(path)
    assert loaded.partial_fit(make_models.rows("images")).n_iter_ == 4
    with pytest.raises(ValueError, match="network changed since the last fit"):
        loaded.set_params(network__kernel_size=5).partial_fit(make_models.rows("images"))


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda path: path.stem)
def test_files_of_every_format_load_for_ever(fixture):
    loaded = AutoencoderTransformer.load(fixture)
    X = make_models.rows(fixture.stem.split("_", 2)[2])
    codes = np.load(fixture.with_suffix(".npy"))
    np.testing.assert_allclose(loaded.transform(X[:10]), codes, rtol=1e-5, atol=1e-5)
    decoded = loaded.reconstruct(X)
    assert decoded.shape == X.shape
    if isinstance(decoded, pd.DataFrame | pl.DataFrame):
        assert [*decoded.columns] == [*X.columns]
        assert [*map(str, decoded.dtypes)] == [*map(str, X.dtypes)]
    loaded.partial_fit(X)


def test_there_are_files_of_every_format():
    assert set(make_models.FORMATS) == set(range(1, files.FORMAT + 1))
    expected = {f"format_{n}_{name}" for n, names in make_models.FORMATS.items() for name in names}
    assert {path.stem for path in FIXTURES} == expected


def test_file_of_a_newer_format_says_what_to_install():
    with pytest.raises(
        ValueError, match=r"format 1000, .* up to 2. Install aefeatures>=1000.0.0\."
    ):
        AutoencoderTransformer.load(make_models.FOLDER / "newer.safetensors")


def test_needed_version_is_not_any_text(path):
    header = header_of("").replace('\\"format\\":1,', '\\"format\\":7,\\"needs\\":\\"1 && rm\\"')
    path.write_bytes(sealed(header, bytes(4)))
    with pytest.raises(ValueError, match=r"has format 7.*Install aefeatures of a later version\."):
        AutoencoderTransformer.load(path)


# Pickle, joblib, skops


@pytest.mark.parametrize("preset", [None, "lecture", "neighbors", "tabular", "images"])
@pytest.mark.parametrize("dump", [pickle, joblib], ids=["pickle", "joblib"])
def test_pickles_are_as_small_as_their_parameters(X, tmp_path, preset, dump):
    params = {"max_epochs": 1, "random_state": 0}
    fitted = (
        AutoencoderTransformer.from_preset(preset, **params)
        if preset
        else AutoencoderTransformer(**params)
    ).fit(X)
    before = {name: id(value) for name, value in vars(fitted).items()}
    with (tmp_path / "model").open("wb") as file:
        dump.dump(fitted, file)
    copy.deepcopy(fitted)
    assert {name: id(value) for name, value in vars(fitted).items()} == before
    parts = [*fitted.encoder_.parameters(), *fitted.decoder_.parameters()]
    n_bytes = sum(part.numel() * part.element_size() for part in parts)
    size = (tmp_path / "model").stat().st_size
    print(f"{preset}: {n_bytes} bytes of parameters, {size} of pickle")
    assert size < 1.1 * n_bytes + 20_000
    with (tmp_path / "model").open("rb") as file:
        loaded = dump.load(file)
    assert_same(loaded, fitted, X)


def test_pickles_hold_no_tensor_and_no_device(model):
    class Finder(pickle.Unpickler):
        def find_class(self, module, name):
            found.add(f"{module}.{name}")
            return super().find_class(module, name)

    found = set()
    state = pickle.dumps(model)
    Finder(io.BytesIO(state)).load()
    assert not {name for name in found if "storage" in name or "rebuild" in name}, found
    assert "torch.device" not in found


TRUSTED = {
    "aefeatures._autoencoder.AutoencoderTransformer",
    "aefeatures._nets.networks.Cost",
    "aefeatures._nets.networks.DenseNetwork",
    "aefeatures._nets.networks.FillMissing",
    "aefeatures._rows.scaling.Scaling",
    "torch.nn.modules.activation.ReLU",
    "torch.nn.modules.container.Sequential",
    "torch.nn.modules.linear.Linear",
}

TRUSTED_OF_TABLES = {
    "aefeatures._rows.table_scaling.TableScaling",
    "aefeatures._rows.tables.Column",
    "aefeatures._rows.tables.Levels",
    "aefeatures._rows.tables.Table",
}


def test_trusted_types_are_those_of_the_documentation():
    text = (Path(__file__).parents[1] / "docs" / "security.md").read_text(encoding="utf-8")
    assert set(re.findall(r'"((?:aefeatures|torch)\.[\w.]+)",', text)) == TRUSTED


@pytest.mark.parametrize(
    ("params", "more"),
    [
        ({}, set()),
        (
            {"network": ConvNetwork(channels=(4,)), "regularizer": [Sparse(), "variational"]},
            {
                "aefeatures._nets.networks.ConvNetwork",
                "aefeatures._nets.regularizers.Sparse",
                "torch.nn.modules.activation.GELU",
                "torch.nn.modules.conv.Conv2d",
                "torch.nn.modules.conv.ConvTranspose2d",
                "torch.nn.modules.flatten.Flatten",
                "torch.nn.modules.flatten.Unflatten",
            },
        ),
    ],
    ids=["default", "convolutions"],
)
def test_skops_round_trip_of_a_pipeline(digits, params, more):
    X, X_test, y, _ = digits
    pipeline = make_pipeline(StandardScaler(), quick(**params), SVC()).fit(X, y)
    data = skops.io.dumps(pipeline)
    asked = set(skops.io.get_untrusted_types(data=data))
    assert asked <= TRUSTED | more
    loaded = skops.io.loads(data, trusted=sorted(asked))
    np.testing.assert_array_equal(
        loaded.decision_function(X_test), pipeline.decision_function(X_test)
    )
    np.testing.assert_array_equal(loaded[:-1].transform(X_test), pipeline[:-1].transform(X_test))


def of_libraries(thing, path="", seen=None):
    """Where a fitted object holds something of a library of frames."""
    seen = {} if seen is None else seen
    if id(thing) in seen:
        return
    seen[id(thing)] = thing
    if type(thing).__module__.partition(".")[0] in ("pandas", "polars", "pyarrow"):
        yield f"{path}: {type(thing)}"
    elif isinstance(thing, dict):
        for key, value in thing.items():
            yield from of_libraries(key, f"{path}, a key", seen)
            yield from of_libraries(value, f"{path}.{key}", seen)
    elif isinstance(thing, list | tuple | set):
        for i, value in enumerate(thing):
            yield from of_libraries(value, f"{path}[{i}]", seen)
    elif isinstance(thing, np.ndarray) and thing.dtype == object:
        yield from of_libraries(thing.tolist(), path, seen)
    elif hasattr(thing, "__dict__") and not isinstance(thing, type):
        yield from of_libraries(vars(thing), path, seen)


def test_fitted_state_holds_nothing_of_pandas_or_polars(X):
    names = [f"pixel {i}" for i in range(6)]
    X, rare = X[:80, 18:24], np.arange(80) % 4 == 0
    frames = {
        "pandas": pd.DataFrame(X, columns=names, index=[f"row {i}" for i in range(80)]),
        "nullable": pd.DataFrame(X, columns=names).convert_dtypes(),
        "sparse": pd.DataFrame(X, columns=names).astype(pd.SparseDtype(float, 0.0)),
        "polars": pl.DataFrame(X, schema=names),
    }
    texts = np.where(rare, "rare", "often").astype(object)
    some = np.where(np.arange(80) % 3 > 0, texts, None)
    labels = {
        "pandas": [
            pd.Series(rare.astype(int)),
            pd.Series(texts, dtype="category"),
            pd.Series(some),
        ],
        "nullable": [pd.Series(rare, dtype="boolean"), pd.Series(some, dtype="string")],
        "sparse": [pd.Series(texts, dtype="string")],
        "polars": [pl.Series(rare), pl.Series(some.tolist())],
    }
    found = []
    for library, frame in frames.items():
        for y in labels[library]:
            estimators = [
                quick(n_components=2, regularizer=Supervised(), early_stopping=True),
                quick(n_components=2, regularizer=[Supervised(2.0), "denoising"]),
                AutoencoderGenerator(quick(n_components=2)),
            ]
            if y is labels[library][0]:
                estimators += [  # which read nothing of y
                    quick(n_components=2, regularizer="neighbors").set_output(transform="pandas"),
                    NextFramePredictor(quick(n_components=2), image_shape=(2, 3)),
                    AutoencoderImputer(quick(n_components=2), add_indicator=True),
                ]
            if library != "polars" and y.isna().sum() == 0:
                estimators.append(AutoencoderOversampler(autoencoder=quick(n_components=2)))
            for estimator in estimators:
                if isinstance(estimator, AutoencoderOversampler):
                    estimator.fit_resample(frame, y)
                else:
                    estimator.fit(frame, y)
                found += of_libraries(estimator, f"{type(estimator).__name__} of {library}")
                data = skops.io.dumps(estimator)
                trusted = skops.io.get_untrusted_types(data=data)
                assert all(
                    each.startswith(("aefeatures.", "torch.nn.modules.")) for each in trusted
                )
                assert set(vars(skops.io.loads(data, trusted=trusted))) == set(vars(estimator))
    assert found == []
