import copy
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits

from aefeatures import AutoencoderTransformer, ConvNetwork, encode_table
from aefeatures._autoencoder import check_fitted_rows, fitted_model
from aefeatures._nets.model import Model
from aefeatures._rows.sources import as_source

pytestmark = pytest.mark.filterwarnings("ignore:.*learned nothing")

CPU = torch.device("cpu")
X = load_digits().data[:300]
HOLES = np.where(np.random.default_rng(0).random(X.shape) < 0.1, np.nan, X)
KINDS = {
    "default": ({}, X),
    "missing": ({}, HOLES),
    "float32": ({"scaling": "feature"}, X.astype("f4")),
    "images": ({"network": ConvNetwork((8, 8), channels=(2, 3))}, (X * 15).astype("u1")),
    "own loss": ({"loss": lambda r, t: (r - t).abs().sum(dim=1)}, HOLES),
}


@pytest.fixture(scope="module", params=sorted(KINDS))
def fitted(request):
    """A fitted transformer and its rows. Not to be changed."""
    params, rows = KINDS[request.param]
    return AutoencoderTransformer(max_epochs=3, random_state=0, **params).fit(rows), rows


def results(model, rows):
    source = as_source(rows)
    codes = model.encode(source, CPU)
    return [
        codes,
        model.decode(codes, CPU),
        model.reconstruct(source, CPU),
        -model.row_losses(source, CPU),
        -model.entry_errors(source, CPU, raw=False),
    ]


def test_the_transformer_returns_the_results_of_its_model(fitted):
    transformer, rows = fitted
    codes = transformer.transform(rows)
    expected = [
        codes,
        transformer.inverse_transform(codes),
        transformer.reconstruct(rows),
        transformer.score_samples(rows),
        transformer.score_samples(rows, per_feature=True),
    ]
    for ours, theirs in zip(results(fitted_model(transformer), rows), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("part", ["encoder", "decoder", "autoencoder"])
def test_parts_are_copies(fitted, part):
    model = fitted_model(fitted[0])
    module = model.to_module(part)
    before = results(model, fitted[1])[0]
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    np.testing.assert_array_equal(results(model, fitted[1])[0], before)


@pytest.mark.parametrize("kind", ["pickle", "deepcopy"])
def test_copies_give_the_same_results(fitted, kind):
    transformer, rows = fitted
    model = fitted_model(transformer)
    if kind == "pickle" and callable(model.loss):
        with pytest.raises((AttributeError, pickle.PicklingError), match="lambda"):
            pickle.dumps(model)
        return
    other = pickle.loads(pickle.dumps(model)) if kind == "pickle" else copy.deepcopy(model)
    assert other is not model
    for ours, theirs in zip(results(other, rows), results(model, rows), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_state_holds_arrays_and_the_names_of_earlier_pickles(fitted):
    state = fitted_model(fitted[0]).state()
    assert {"encoder_", "decoder_", "_scaling", "_fill", "_network", "_built_from"} <= state.keys()
    modules = [state[name] for name in ("encoder_", "decoder_", "_scaling", "_fill")]
    layers = [layer for module in modules for layer in module.modules()]
    held = [value for layer in layers for value in vars(layer)["_parameters"].values()]
    assert held
    assert all(isinstance(value, np.ndarray) or value is None for value in held)
    assert Model.take_from(dict(state)).n_components == 3


@pytest.mark.parametrize("part", ["encoder", "decoder", "autoencoder"])
def test_modules_of_tables_are_exported_for_any_number_of_rows(part):
    rng = np.random.default_rng(0)
    columns = {"n": rng.normal(size=60), "c": rng.choice(["a", "b", None], 60), "none": None}
    columns |= {"d": rng.choice([*"abcd"], 60), "day": pd.date_range("2024", periods=60)}
    frame = pd.DataFrame(columns).astype({"none": "category"})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "X has no known value in column 'none'")
        transformer = AutoencoderTransformer(2, max_epochs=3, random_state=0).fit(frame)
    module = transformer.to_module(part)
    inputs = encode_table(transformer, frame)[0]
    inputs = torch.randn(60, 2) if part == "decoder" else inputs
    rows = torch.export.Dim("rows", min=1)
    exported = torch.export.export(module, (inputs[:3],), dynamic_shapes=({0: rows},)).module()
    for some in (inputs, inputs[:1]):
        torch.testing.assert_close(exported(some), module(some), equal_nan=True)


def test_rows_and_misses_come_back_in_units_of_rows(fitted):
    transformer, rows = fitted
    model = fitted_model(transformer)
    values, misses = model.rows_and_misses(as_source(rows), CPU)
    missing = np.isnan(np.asarray(rows, dtype=float))
    np.testing.assert_array_equal(np.isnan(misses), missing)
    expected = np.where(missing, transformer.reconstruct(rows), rows)
    np.testing.assert_allclose(model.in_units_of_rows(values), expected, rtol=1e-4, atol=1e-3)
    rebuilt = model.in_units_of_rows(values - np.nan_to_num(misses))
    np.testing.assert_allclose(rebuilt, transformer.reconstruct(rows), rtol=1e-4, atol=1e-3)


def test_reconstruction_of_a_level_is_its_probability():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=99), "b": rng.choice(["u", "v", "w"], 99)})
    transformer = AutoencoderTransformer(1, max_epochs=3, random_state=0).fit(frame)
    model, source = fitted_model(transformer), check_fitted_rows(transformer, frame, "transform")
    values, misses = model.rows_and_misses(source, CPU)
    assert list(model.column_of_output) == [0, 1, 1, 1]
    # Levels are columns with a mean of 0, and their probabilities add up to 1 as they do.
    np.testing.assert_allclose(misses[:, 1:].sum(axis=1), 0, atol=1e-6)
    unit = model.scaling.unit.numpy() / model.scaling.variance() ** -0.5
    probabilities = (values - misses)[:, 1:] * unit + model.scaling.share.numpy()
    expected = model.decode_probabilities(model.encode(source, CPU), CPU)[:, 1:]
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)
    inside = transformer._table.rows(model.in_units_of_rows(values))
    assert list(inside["b"]) == list(frame["b"])
