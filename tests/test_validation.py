import numpy as np
import pytest

from aefeatures import AutoencoderTransformer, NeighborPreserving, Sparse
from aefeatures._validation import resolve_max_epochs, resolve_principal_components

X = np.random.default_rng(0).normal(size=(20, 6))


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
    assert resolve_max_epochs("auto", 100, 64, [NeighborPreserving()]) == 200


@pytest.mark.parametrize(
    ("shape", "expected"), [((60_000, 784), 128), ((8_191, 784), None), ((60_000, 128), None)]
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
        ValueError, match="Z has 2 columns, but AutoencoderTransformer has codes of 3"
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
    with pytest.raises(ValueError, match="Z has masked values, but every number of a code is"):
        transformer.inverse_transform(codes)
