import json
import warnings
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

from aefeatures import (
    AutoencoderGenerator,
    AutoencoderTransformer,
    NeighborPreserving,
    RowView,
    Sparse,
)
from aefeatures._autoencoder import fitted_model
from aefeatures._train.fitting import resolve_max_epochs
from aefeatures._train.starting import resolve_principal_components

X = np.random.default_rng(0).normal(size=(20, 6))


class Stored:
    """A matrix in a file, as of h5py."""

    def __init__(self, X):
        self._X, self.shape, self.dtype, self.chunks = X, X.shape, X.dtype, (7, X.shape[1])

    def __getitem__(self, key):
        assert isinstance(key, slice)
        return self._X[key]


# One epoch of a few steps explains next to nothing.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def quick(**params):
    return AutoencoderTransformer(**{"max_epochs": 1, "random_state": 0, **params})


@pytest.mark.parametrize(
    ("n_rows", "epochs"), [(60_000, 10), (19_200, 10), (1_437, 134), (64, 3_000), (1, 3_000)]
)
def test_auto_epochs(n_rows, epochs):
    assert resolve_max_epochs("auto", n_rows, 64, []) == epochs
    assert resolve_max_epochs(7, n_rows, 64, []) == 7


def test_auto_epochs_of_small_data_and_of_regularizers():
    assert resolve_max_epochs("auto", 100, 256, []) == resolve_max_epochs("auto", 256, 64, [])
    assert resolve_max_epochs("auto", 60_000, 64, [Sparse(), NeighborPreserving()]) == 20
    assert resolve_max_epochs("auto", 60_000, 64, [Sparse()]) == 10
    assert resolve_max_epochs("auto", 100, 64, [NeighborPreserving()]) == 100


@pytest.mark.parametrize(
    ("shape", "expected"), [((60_000, 784), 64), ((8_191, 784), None), ((60_000, 127), None)]
)
def test_principal_components_that_the_default_network_reads(shape, expected):
    regularizers = [Sparse(), NeighborPreserving()]
    assert resolve_principal_components(shape, regularizers) == expected
    assert resolve_principal_components(shape, [Sparse()]) is None


@pytest.mark.parametrize("widths", [(0,), (8, -1), (8.5,), ("a",)])
def test_widths_must_be_positive_integers(widths):
    with pytest.raises(ValueError, match="hidden_layer_sizes must hold integers of at least 1"):
        quick(hidden_layer_sizes=widths).fit(X)


@pytest.mark.parametrize("widths", [8, [8], (8,), np.array([8])])
def test_widths_of_many_kinds(widths):
    encoder = quick(hidden_layer_sizes=widths).fit(X).encoder_
    assert [layer.out_features for layer in encoder[::2]] == [8, 3]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (X[0], "Expected 2D array, got 1D array instead"),
        (X[:0], r"Found array with 0 sample\(s\)"),
        (X[:, :0], r"Found array with 0 feature\(s\)"),
        (np.full((5, 3), np.inf), "Input X contains infinity"),
        (X.reshape(5, 4, 6), r"dim 3.*[fF]latten with X.reshape\(len\(X\), -1\)"),
        (X + 1j, "Complex data not supported"),
        (np.array([["a", "b"]]), "dtype='numeric' is not compatible with arrays of bytes/strings"),
    ],
)
def test_bad_rows_get_scikit_learns_message(bad, message):
    with pytest.raises(ValueError, match=message):
        quick().fit(bad)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("n_components", [0, 1.5, "3"]),
        ("hidden_layer_sizes", [0, None, (0,)]),
        ("activation", ["rectifier", None]),
        ("normalization", ["group"]),
        ("scaling", ["minmax", 1]),
        ("loss", ["l2", None]),
        ("learning_rate", [0, -1, "fast"]),
        ("learning_rate_schedule", [None, "step"]),
        ("weight_decay", [-0.1]),
        ("batch_size", [0, 1.5]),
        ("max_epochs", [0, 2.5, "many"]),
        ("early_stopping", ["yes"]),
        ("validation_fraction", [0.0, 1.0]),
        ("n_iter_no_change", [0]),
        ("tol", [-1e-3]),
        ("warm_start", [None]),
        ("device", [0, None, "gpu"]),
        ("precision", ["half", 32]),
        ("random_state", ["seed", -1]),
        ("verbose", ["loud"]),
    ],
)
def test_illegal_parameters_are_named(name, values):
    for value in values:
        with pytest.raises(ValueError, match=name):
            quick(**{name: value}).fit(X)


def test_every_parameter_has_a_constraint():
    assert set(AutoencoderTransformer._parameter_constraints) == set(
        AutoencoderTransformer().get_params()
    )


@pytest.mark.parametrize("scaling", ["auto", "standard", None])
def test_bce_needs_a_bounded_range(scaling):
    with pytest.raises(ValueError, match=f"range \\[0, 1\\], which scaling={scaling!r} does not"):
        quick(loss="bce", scaling=scaling).fit(X)
    quick(loss="bce", scaling="feature", max_epochs=50).fit(X)


def test_codes_of_the_wrong_width():
    transformer = quick().fit(X)
    with pytest.raises(
        ValueError, match="X has 2 columns, but AutoencoderTransformer has codes of 3"
    ):
        transformer.inverse_transform(np.zeros((4, 2)))


def test_as_many_codes_as_columns_is_no_compression():
    with pytest.warns(UserWarning, match="n_components=6 is not below the number of columns, 6"):
        quick(n_components=6).fit(X)


def test_long_double_is_encoded_as_float64():
    transformer = quick().fit(X)
    codes = transformer.transform(X.astype(np.longdouble))
    assert codes.dtype == np.float64
    np.testing.assert_array_equal(codes, transformer.transform(X))


def test_masked_numbers_among_objects_are_missing():
    masked = np.ma.array(X.astype(object), mask=False)
    masked[3, 2] = np.ma.masked
    masked.data[3, 2] = 1e6
    filled = np.where(masked.mask, np.nan, X)
    transformer = quick().fit(masked)
    np.testing.assert_array_equal(transformer.transform(masked), transformer.transform(filled))


def test_masked_codes_are_refused():
    transformer = quick().fit(X)
    codes = np.ma.masked_less(transformer.transform(X), 0)
    with pytest.raises(ValueError, match="X has masked values, but every number of a code is"):
        transformer.inverse_transform(codes)


# Every kind of X goes through one door, and is there what the same numbers are in an array.

HOLED = np.where(np.random.default_rng(1).random(X.shape) < 0.2, np.nan, X)
FLAGS = np.where(np.isnan(HOLED), np.nan, HOLED > 0)
METHODS = ("transform", "reconstruct", "score_samples")


def with_none(X, missing=None):
    return [[missing if np.isnan(value) else value for value in row] for row in X.tolist()]


def results(fit, X):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few columns and of so short a fit
        transformer = getattr(quick(hidden_layer_sizes=8, batch_size=8), fit)(X)
    scores = np.asarray(transformer.score_samples(X, per_feature=True))
    return [*(np.asarray(getattr(transformer, name)(X)) for name in METHODS), scores]


def assert_the_same(given, expected):
    """What is given counts as the array, in all methods."""
    for fit in ("fit", "partial_fit"):
        for result, other in zip(results(fit, given), results(fit, expected), strict=True):
            assert result.dtype == other.dtype
            # Sums are rounded by the order in memory.
            np.testing.assert_allclose(result, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "convert",
    [
        with_none,
        lambda X: tuple(map(tuple, with_none(X))),
        lambda X: [np.array(row, dtype=object) for row in with_none(X)],
        lambda X: with_none(X, pd.NA),
        lambda X: np.array(with_none(X, pd.NA), dtype=object),
        lambda X: pd.DataFrame(with_none(X, pd.NA), dtype=object),
        lambda X: [[Fraction(x) if x is not None else None for x in row] for row in with_none(X)],
        lambda X: pl.DataFrame(
            {
                str(i): pl.Series(with_none(X[:, i : i + 1].T)[0], dtype=pl.Object)
                for i in range(X.shape[1])
            }
        ),
    ],
)
def test_objects_are_numbers_and_missing_values(convert):
    assert_the_same(convert(HOLED), HOLED)


def test_json_of_booleans_and_null():
    assert_the_same(json.loads(json.dumps(with_none(FLAGS))), FLAGS)


@pytest.mark.parametrize(
    ("dtype", "numbers"),
    [
        ("Float32", np.float32),
        ("Int8", np.int8),
        ("UInt8", np.uint8),
        ("UInt16", np.uint16),
        ("boolean", bool),
        ("float[pyarrow]", np.float32),
        ("uint8[pyarrow]", np.uint8),
        ("bool[pyarrow]", bool),
    ],
)
def test_nullable_columns_count_as_numpys(dtype, numbers):
    whole = np.abs(X * 90).astype(np.uint8)
    if numbers is bool:
        whole = whole > 60
    elif dtype.startswith("UInt"):
        whole = (whole.astype(numbers) + 1) * (np.iinfo(numbers).max // 256)
    whole = whole.astype(numbers)
    frame = pd.DataFrame(whole).astype(dtype)
    assert_the_same(frame, whole)
    frame.iloc[3, 2] = pd.NA
    missing = np.ma.array(whole, mask=False)
    missing[3, 2] = np.ma.masked
    assert_the_same(frame, missing)


def test_nullable_columns_beside_others():
    frame = pd.DataFrame(X.astype(np.float32))
    frame[1] = frame[1].astype("Float32")
    frame[2] = (frame[2] > 0).astype("boolean")
    expected = np.column_stack([X[:, :2], X[:, 2] > 0, X[:, 3:]]).astype(np.float32)
    assert_the_same(frame, expected)
    frame[1] = frame[1].astype("Float64")
    assert_the_same(frame, expected.astype(np.float64))


@pytest.mark.parametrize(
    "frame",
    [
        pl.DataFrame({"a": [True, None, False], "b": [None, True, True]}),
        pl.DataFrame({"a": [True, None, False], "b": [None] * 3}),
        pd.DataFrame({"a": [True, None, False], "b": [None] * 3}, dtype="boolean"),
        pd.DataFrame({"a": [True, None, False]}, dtype="boolean").assign(
            b=pd.Series([None] * 3, dtype=pd.ArrowDtype(pa.null())).astype("boolean")
        ),
    ],
)
def test_frames_of_booleans_and_of_nothing(frame):
    expected = np.array([[1.0, np.nan], [np.nan, 1], [0, 1]], np.float32)
    expected[:, 1] = np.nan if frame["b"][1] is None or frame["b"][1] is pd.NA else expected[:, 1]
    assert_the_same(frame, expected)


@pytest.mark.parametrize(
    "make",
    [
        lambda a: pd.DataFrame({"a": pd.array(a, pd.ArrowDtype(pa.decimal128(10, 3)))}),
        lambda a: pl.DataFrame({"a": pl.Series(a, dtype=pl.Decimal(10, 3))}),
        lambda a: [[value] for value in a],
    ],
)
def test_decimals_are_numbers(make):
    decimals = [Decimal("1.500"), None, Decimal("-2.250"), Decimal("7.125")] * 5
    expected = np.array([[1.5], [np.nan], [-2.25], [7.125]] * 5)
    assert_the_same(make(decimals), expected)


@pytest.mark.parametrize("hold", [np.asarray, RowView, Stored, np.ma.array, pd.DataFrame])
def test_order_of_bytes_makes_no_difference(hold):
    whole = np.random.default_rng(2).integers(0, 2**15 + 9_000, size=(30, 6))
    for kind in ("u2", "i4", "f4"):
        numbers = whole.astype(kind)
        assert_the_same(hold(numbers.astype(numbers.dtype.newbyteorder())), numbers)
    assert fitted_model(quick().partial_fit(hold(whole.astype(">u2")))).scaling.bounded


def test_codes_in_another_order_of_bytes():
    transformer = quick().fit(X.astype(np.float32))
    codes = transformer.transform(X.astype(np.float32))
    rows = transformer.inverse_transform(codes.astype(">f4"))
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, transformer.inverse_transform(codes))


@pytest.mark.parametrize(
    "convert",
    [
        lambda X: torch.from_numpy(X).requires_grad_(),
        lambda X: torch.nn.Parameter(torch.from_numpy(X)),
        lambda X: torch._neg_view(torch.from_numpy(-X)),
        lambda X: torch.complex(torch.from_numpy(X), torch.from_numpy(-X)).conj().imag,
        lambda X: list(torch.from_numpy(X).requires_grad_()),
        lambda X: tuple(torch._neg_view(torch.from_numpy(-X))),
    ],
)
def test_tensors_without_dispatch(convert):
    assert_the_same(convert(X.astype(np.float32)), X.astype(np.float32))
    transformer = quick().fit(X)
    codes = transformer.transform(X)
    np.testing.assert_array_equal(
        transformer.inverse_transform(convert(codes)), transformer.inverse_transform(codes)
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_tensors_of_fewer_bits_count_as_float32(dtype):
    tensor = torch.from_numpy(X).to(dtype)
    assert_the_same(tensor, tensor.float().numpy())
    assert_the_same(list(tensor), tensor.float().numpy())


def test_labels_may_be_such_tensors():
    y = torch.from_numpy(X[:, 0]).requires_grad_()
    transformer = quick(regularizer="supervised").fit(torch.from_numpy(X).requires_grad_(), y)
    same = quick(regularizer="supervised").fit(X, X[:, 0])
    np.testing.assert_array_equal(transformer.transform(X), same.transform(X))


@pytest.mark.filterwarnings("ignore:.*nested tensors is in prototype")
@pytest.mark.parametrize(
    ("make", "advice"),
    [
        (lambda: torch.eye(3).to_sparse(), r"layout torch.sparse_coo. Pass X.to_dense\(\)"),
        (lambda: torch.empty(3, 3, device="meta"), "on the device 'meta', where it has no values"),
        (
            lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
            r"different lengths. Pass X.to_padded_tensor\(torch.nan\)",
        ),
    ],
)
def test_tensors_that_hold_no_rows_say_what_to_pass(make, advice):
    tensor = make()
    with pytest.raises(TypeError, match=advice):
        quick().fit(tensor)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([["a", None], [1, 2]], r"'a' is at position \(0, 0\). Convert it"),
        (
            np.array([[1, pd.NA], [{}, 2]], object),
            r"not 'dict'. X must hold .*at position \(1, 0\)",
        ),
        (pd.DataFrame({"b": [1.0, pd.NA], "a": ["x", pd.NA]}, dtype=object), r"do not: 'a' \(obj"),
        (pl.DataFrame({"b": [1.0], "a": pl.Series([{}], dtype=pl.Object)}), r"do not: 'a' \(Obj"),
    ],
)
def test_what_is_no_number_among_objects_is_named(bad, message):
    with pytest.raises((TypeError, ValueError), match=message):
        quick(categorical_features=None).fit(bad)


class Uncounted:
    """As an array or a frame of dask whose number of rows nobody knows yet."""

    dtype = np.dtype(float)
    chunks = ((np.nan,), (2,))
    columns, dtypes = ["a", "b"], [np.dtype(float)] * 2

    def __init__(self, n_rows):
        self.shape = (n_rows, 2)

    def __getitem__(self, key):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("lazy", "advice"),
    [
        (Uncounted(np.nan), r"Uncounted whose number of rows is not known. Pass X.compute\(\)"),
        (Uncounted(None), r"Uncounted whose number of rows is not known. Pass X.compute\(\)"),
        (pl.DataFrame(X).lazy(), r"polars LazyFrame, which holds no rows yet. Pass X.collect\(\)"),
    ],
)
def test_rows_that_are_yet_to_be_computed(lazy, advice):
    fitted = quick(n_components=1).partial_fit(X[:, :2])
    for method in (quick().fit, quick().partial_fit, fitted.transform, fitted.score_samples):
        with pytest.raises((TypeError, ValueError), match=advice):
            method(lazy)


@pytest.mark.parametrize("dtype", [object, np.longdouble])
def test_datasets_hold_numbers_of_64_bits(dtype):
    with pytest.raises(ValueError, match="dataset must hold numbers of at most 64"):
        quick().fit(Stored(X.astype(dtype)))


@pytest.mark.parametrize("names", [["", "b", "c"], ["b", "", "column_0"]])
def test_names_that_polars_would_make_up(names):
    frame = pl.DataFrame(X[:, :3], schema=["x", "y", "z"])
    frame.columns = names
    transformer = quick(n_components=2).set_output(transform="polars").partial_fit(frame)
    assert transformer.reconstruct(frame).columns == names
    assert transformer.inverse_transform(transformer.transform(frame)).columns == names
    assert transformer.score_samples(frame, per_feature=True).columns == names
    generator = AutoencoderGenerator(quick(n_components=2), random_state=0).fit(frame)
    assert generator.sample(3).columns == names
    assert generator.interpolate(X[0, :3], X[1, :3], 3).columns == names


@pytest.mark.parametrize("unit", ["datetime64[us]", "timedelta64[us]"])
def test_frames_of_polars_whose_columns_have_no_common_type(unit):
    frame = pl.DataFrame({"a": X[:, 0], "b": X[:, 1], "time": np.arange(20).astype(unit)})
    transformer = quick(n_components=1).fit(frame)
    assert transformer.reconstruct(frame).schema == frame.schema


@pytest.mark.parametrize("library", [pd, pl])
@pytest.mark.parametrize("loss", ["mse", "mae"])
def test_tables_of_numbers_and_dates_without_categories(library, loss):
    day = np.datetime64("2024-01-01", "us") + np.arange(20) * np.timedelta64(1, "D")
    frame = library.DataFrame({"a": X[:, 0], "b": X[:, 1], "day": day})
    transformer = quick(n_components=1, loss=loss, regularizer="neighbors").fit(frame)
    assert [*transformer.reconstruct(frame).dtypes] == [*frame.dtypes]
    assert np.isfinite(transformer.score_samples(frame)).all()
    assert np.isfinite(transformer.score_samples(frame, per_feature=True)).all().all()
    assert transformer.is_categorical_.tolist() == [False] * 3
    assert transformer.categories_ == []
