"""Whatever X and the parameters are: finite numbers of the right shape, or an error that says why.

What is drawn is small, so that an example takes milliseconds. `AEFEATURES_HYPOTHESIS=nightly` draws
20,000 examples, other ones at every run.
"""

import os
import warnings
from unittest import mock

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse
from sklearn.exceptions import NotFittedError

from aefeatures import (
    AutoencoderGenerator,
    AutoencoderOversampler,
    AutoencoderTransformer,
    Contractive,
    ConvNetwork,
    Denoising,
    DenseNetwork,
    NearPCA,
    NeighborPreserving,
    Sparse,
    Supervised,
    Variational,
    _generation,
    _oversampling,
)
from aefeatures._autoencoder import fitted_model
from aefeatures._rows.checks import check_rows

NIGHTLY = os.environ.get("AEFEATURES_HYPOTHESIS") == "nightly"
N_EXAMPLES = 20_000 if NIGHTLY else 1_000

# What the documentation names: a code that is no compression, a fit that learned nothing, a column
# without information.
pytestmark = [
    pytest.mark.filterwarnings("ignore:n_components=. is not below:UserWarning"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:X has no known value in column:UserWarning"),
]


def of_all(share):
    """Draw this part of all examples. The same ones each time, but at night."""
    return settings(
        max_examples=round(share * N_EXAMPLES),
        derandomize=not NIGHTLY,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


# Matrices

INTEGERS = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"]
FLOATS = ["f2", "f4", "f8", "g", ">f8", "<f4"]
# What float32 and float64 hold with room for differences and for what a decoder overshoots.
LARGEST = {2: 6e4, 4: 1e37, 8: 1e300, 16: 1e300}
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.1, 1e16, 1e16 + 2, 3e18, 1e-300, -1e-300, 5e-324, 1e-310, 1e300]


def elements(dtype):
    if dtype.kind != "f":
        return None  # all there are
    largest = LARGEST[dtype.itemsize]
    width = min(64, 8 * dtype.itemsize)
    held = np.dtype(
        f"f{width // 8}"
    ).type  # older versions of hypothesis do not round by themselves
    special = [float(held(value)) for value in SPECIAL if abs(value) <= largest]
    largest = float(held(largest))
    return st.sampled_from(special) | st.floats(-largest, largest, width=width)


def laid_out(X, how):
    """The same matrix, elsewhere in memory."""
    if how == "Fortran":
        return np.asfortranarray(X)
    if how == "reversed":
        return X[::-1, ::-1].copy()[::-1, ::-1]
    if how == "every other":
        return np.repeat(np.repeat(X, 2, axis=0), 3, axis=1)[::2, ::3]
    if how == "unaligned":
        held = np.empty(X.nbytes + 1, np.uint8)[1:].view(X.dtype).reshape(X.shape)
        held[:] = X
        return held
    return X


@st.composite
def matrices(draw, dtypes=("?", *INTEGERS, *FLOATS)):
    """Rows that `fit` has to take."""
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 5)))
    drawn = np.dtype(f"f{min(8, dtype.itemsize)}") if dtype.kind == "f" else dtype
    X = draw(arrays(drawn, shape, elements=elements(dtype))).astype(dtype)
    if dtype.kind == "f" and dtype.itemsize >= 8:
        X += dtype.type(draw(st.sampled_from([0, 0, 1e9, -1e15])))  # a small variance beside it
    if draw(st.booleans()):
        X = X[draw(arrays(np.intp, len(X), elements=st.integers(0, len(X) - 1)))]
    if dtype.kind == "f" and draw(st.booleans()):
        X[draw(arrays(bool, shape))] = np.nan
    X = laid_out(X, draw(st.sampled_from(["C", "Fortran", "reversed", "every other", "unaligned"])))
    X.setflags(write=draw(st.booleans()))
    return X


def quick(**params):
    return AutoencoderTransformer(
        **{"hidden_layer_sizes": (6,), "max_epochs": 1, "random_state": 0, **params}
    )


PARAMS = st.fixed_dictionaries(
    {
        "n_components": st.integers(1, 6),
        "scaling": st.sampled_from(["auto", "standard", "feature", "global"]),
        "loss": st.sampled_from(["mse", "mae", "huber"]),
        "max_epochs": st.integers(1, 2),
    },
    optional={
        "activation": st.sampled_from(["relu", "elu", "tanh"]),
        "normalization": st.sampled_from(["layer", "batch"]),
        "regularizer": st.sampled_from(
            [
                "denoising",
                "sparse",
                "contractive",
                "near_pca",
                "variational",
                "neighbors",
                "supervised",
            ]
        ),
        "learning_rate_schedule": st.sampled_from(["constant", "cosine"]),
        "batch_size": st.integers(1, 5),
        "precision": st.sampled_from(["float64", "bfloat16"]),
        "early_stopping": st.just(True),
    },
)


def fit(params, X, matrix=None):
    """Fit X, which holds `matrix`; a matrix without any known value is refused."""
    missing = np.isnan(np.asarray(X if matrix is None else matrix, dtype=float))
    if (~missing.all(axis=1)).sum() < 2:
        params = {**params, "early_stopping": False}
    transformer, y = quick(**params), np.linspace(0.1, 0.9, len(missing))
    if missing.all():
        with pytest.raises(ValueError, match="X has no known value: all are missing"):
            transformer.fit(X, y)
        reject()
    return transformer.fit(X, y)


def assert_all_usable(transformer, X, matrix=None, wide=None):
    """Finite numbers, except for columns and rows of which nothing is known."""
    matrix = X if matrix is None else matrix
    n_rows, n_columns = matrix.shape
    unknown = np.broadcast_to(fitted_model(transformer).scaling._unknown.numpy(), n_columns)
    missing = {
        "inverse_transform": unknown,
        "reconstruct": unknown,
        "score_samples": (np.isnan(matrix.astype(float)) | unknown).all(axis=1)[:, None],
    }
    if wide is None:
        wide = X.dtype.itemsize >= 8 or (X.dtype.kind in "iu" and X.dtype.itemsize == 4)
    codes = transformer.transform(X)
    results = {
        "transform": (codes, transformer.n_components),
        "inverse_transform": (transformer.inverse_transform(codes), n_columns),
        "reconstruct": (transformer.reconstruct(X), n_columns),
        "per feature": (transformer.score_samples(X, per_feature=True), n_columns),
        "score_samples": (transformer.score_samples(X)[:, None], 1),
    }
    for name, (result, width) in results.items():
        assert result.shape == (n_rows, width), name
        assert result.dtype == (np.float64 if wide else np.float32), name
        is_missing = np.broadcast_to(missing.get(name, False), result.shape)
        np.testing.assert_array_equal(np.isnan(result), is_missing, name)
        assert np.isfinite(result[~is_missing]).all(), name
    assert np.isfinite(transformer.loss_curve_).all()
    decoded, expected = (
        results[name][0][:, ~unknown] for name in ("inverse_transform", "reconstruct")
    )
    scale = np.broadcast_to(fitted_model(transformer).scaling.scale.numpy(), n_columns)[~unknown]
    size = np.abs(expected).max(axis=0) + scale
    np.testing.assert_array_less(np.abs(decoded / size - expected / size), 1e-3)


@of_all(0.4)
@given(matrices(), PARAMS)
def test_any_numbers_give_finite_ones(X, params):
    before = X.copy()
    transformer = fit(params, X)
    assert_all_usable(transformer, X)
    transformer.partial_fit(X, np.linspace(0.1, 0.9, len(X)))
    assert_all_usable(transformer, X)
    np.testing.assert_array_equal(X, before)


@of_all(0.1)
@given(matrices(), matrices(), PARAMS)
def test_other_rows_give_finite_numbers_or_are_too_far(X, other, params):
    """Also of another dtype; what float32 or float64 cannot hold is an error, not NaN."""
    other = np.resize(other, (len(other), X.shape[1]))
    transformer = fit({**params, "early_stopping": False}, X)
    for method in ("transform", "reconstruct", "score_samples"):
        try:
            result = getattr(transformer, method)(other)
        except ValueError as error:
            assert "is not finite in float" in str(error)  # noqa: PT017
        else:
            alone = getattr(transformer, method)(other[:1])
            assert (len(result), result.dtype) == (len(other), alone.dtype)
            tolerance = 1e-3 * np.abs(np.nan_to_num(result)).max()
            np.testing.assert_allclose(result[:1], alone, rtol=0, atol=tolerance)
    fitted = vars(transformer).copy()
    try:
        transformer.partial_fit(other, np.linspace(0.1, 0.9, len(other)))
    except (FloatingPointError, ValueError) as error:
        known = (
            "let scaling='standard' bring X into a small range",
            "Neighbours cannot be found",
            "X has no known value: all are missing",
        )
        assert any(words in str(error) for words in known)  # noqa: PT017
        assert vars(transformer) == fitted
    else:
        assert transformer.n_iter_ == fitted["n_iter_"] + 1
        assert transformer.transform(X).shape == (len(X), transformer.n_components)


@of_all(0.05)
@given(matrices(FLOATS), st.sampled_from(["float32", "float64"]))
def test_unscaled_numbers_are_taken_or_refused(X, precision):
    transformer = quick(scaling=None, precision=precision)
    if np.nanmax(np.abs(np.append(X, 0))) > 1e15:
        with pytest.raises(ValueError, match="scaling=None hands values as large as"):
            transformer.fit(X)
        assert vars(transformer) == vars(quick(scaling=None, precision=precision))
    else:
        assert_all_usable(fit({"scaling": None, "precision": precision}, X), X)


@of_all(0.05)
@given(arrays("f8", st.tuples(st.integers(1, 4), st.just(3))), st.sampled_from(["f4", "f8", "g"]))
def test_codes_of_any_size(fitted, Z, dtype):
    with np.errstate(over="ignore"):
        Z = Z.astype(dtype)
    try:
        rows = fitted.inverse_transform(Z)
    except ValueError as error:
        beyond = "is not finite in float" in str(error)
        assert beyond or not np.isfinite(Z).all()
    else:
        assert rows.shape == (len(Z), 64)
        alone = fitted.inverse_transform(Z[-1:])
        np.testing.assert_allclose(rows[-1:], alone, rtol=1e-4, atol=1e-4 * np.abs(alone).max())


# Units

# Between which values the columns are, and what is repeated among them.
COLUMNS = {
    "unit": lambda rng, n: rng.random(n),
    "normal": lambda rng, n: rng.normal(size=n),
    "skewed": lambda rng, n: rng.lognormal(0, 1, n),
    "zeros": lambda rng, n: np.where(rng.random(n) < 0.6, 0.0, rng.random(n)),
    "steps": lambda rng, n: rng.choice([0.15, 0.4, 0.85], n),
    "two": lambda rng, n: np.arange(n) % 2 - 0.25,
}


@pytest.mark.parametrize("kind", ["generator", "oversampler"])
@of_all(0.03)
@given(
    st.integers(0, 9),
    st.lists(
        st.tuples(st.sampled_from(sorted(COLUMNS)), st.floats(-6, 6), st.floats(-3, 3)),
        min_size=2,
        max_size=4,
    ),
    st.booleans(),
)
def test_units_do_not_matter(kind, seed, columns, alike):
    """New rows of X in other units are the new rows of X in other units."""
    rng = np.random.default_rng(seed)
    X = np.stack([COLUMNS[name](rng, 40) for name, _, _ in columns], axis=1)
    factors = np.array([10**power for _, power, _ in columns])
    offsets = factors * [offset for _, _, offset in columns]
    if alike:
        factors[:], offsets[:] = factors[0], 0.0
    y = np.arange(40) < 12
    module = {"generator": _generation, "oversampler": _oversampling}[kind]
    make = {"generator": "default_autoencoder", "oversampler": "_default_autoencoder"}[kind]
    default = getattr(module, make)

    def new_rows(X):
        if kind == "generator":
            return AutoencoderGenerator(random_state=0).fit(X, y).sample(50)[0]
        return AutoencoderOversampler(random_state=0).fit_resample(X, y)[0]

    def quickly(*args):
        return default(*args).set_params(max_epochs=1, hidden_layer_sizes=(8,))

    with mock.patch.object(module, make, quickly):
        rows = new_rows(X)
        others = (new_rows(X * factors + offsets) - offsets) / factors
    off = np.abs(others - rows) / X.std(axis=0)
    # A number at the border of a repeated value may be rounded to its other side.
    assert np.mean(off > 0.01) < 0.03


# Containers


def as_masked(X):
    """NaN as a mask over numbers that nobody shall see."""
    return np.ma.array(np.where(np.isnan(X), 777, X), mask=np.isnan(X))


CONTAINERS = {
    "list": lambda X: X.tolist(),
    "objects": lambda X: X.astype(object),
    "strings": lambda X: X.astype(str).astype(object),
    "masked": as_masked,
    "unmasked": lambda X: np.ma.array(X),
    "CSR": sparse.csr_matrix,
    "CSC array": sparse.csc_array,
    "COO": sparse.coo_matrix,
    "pandas": lambda X: pd.DataFrame(X),
    "pandas, nullable": lambda X: pd.DataFrame(X).astype("Float64"),
    "pandas, objects": lambda X: pd.DataFrame(X).astype(object),
    "pandas, sparse": lambda X: pd.DataFrame(X).astype(pd.SparseDtype("float64", 0.0)),
    "polars": lambda X: pl.DataFrame(X, schema=[str(i) for i in range(X.shape[1])]),
    "polars, nulls": lambda X: pl.DataFrame(X, schema=[str(i) for i in range(X.shape[1])]).fill_nan(
        None
    ),
}


@of_all(0.1)
@given(matrices(["f8"]), st.sampled_from(sorted(CONTAINERS)), PARAMS)
def test_containers_are_what_is_in_them(X, container, params):
    held = CONTAINERS[container](X)
    rows = check_rows(quick(), held, reset=True)
    np.testing.assert_array_equal(rows.dense(), X)
    assert_all_usable(fit(params, held, X), held, X, wide=True)


@of_all(0.05)
@given(
    st.lists(st.text(max_size=5) | st.integers() | st.none() | st.floats(), min_size=2, max_size=4),
    st.booleans(),
)
def test_names_of_columns(tmp_path_factory, names, repeated):
    """Kept, also in a file, where all are strings; scikit-learn's error where some are."""
    if repeated:
        names = [names[0]] * len(names)
    X = pd.DataFrame(np.eye(len(names)), columns=pd.Index(names, dtype=object))
    strings = [isinstance(name, str) for name in names]
    if any(strings) and not all(strings):
        with pytest.raises(
            (TypeError, ValueError), match=r"^(Feature names are only|Expected uniq)"
        ):
            quick().fit(X)
        return
    try:
        transformer = quick().fit(X)
    except ValueError as error:  # newer versions of scikit-learn
        assert X.columns.has_duplicates
        assert "Expected unique column names" in str(error)  # noqa: PT017
        return
    assert hasattr(transformer, "feature_names_in_") == all(strings)
    if all(strings):
        path = tmp_path_factory.mktemp("names") / "model"
        transformer.save(path)
        transformer = AutoencoderTransformer.load(path)
        assert list(transformer.feature_names_in_) == names
    codes = transformer.transform(X)
    frame = transformer.set_output(transform="pandas").transform(X)
    assert list(frame.columns) == [f"autoencodertransformer{i}" for i in range(3)]
    np.testing.assert_array_equal(frame, codes)


DATES = np.array(["2020-01-01", "NaT"], "M8[D]")


def as_frame(X):
    try:
        return pd.DataFrame(X)
    except OverflowError:  # older versions of pandas look for a type by themselves
        return pd.DataFrame(X, dtype=object)


@pytest.mark.parametrize("convert", [np.asarray, lambda X: np.asarray(X).tolist()])
@pytest.mark.parametrize(
    "X",
    [DATES[:, None], DATES[:, None] - DATES[0], [["a", "b"]], np.array([["1", "x"]], object)],
    ids=lambda X: repr(X)[:40],
)
def test_texts_and_dates_need_a_frame(X, convert):
    test_what_is_no_matrix_of_numbers(X, convert)


@pytest.mark.parametrize("convert", [np.asarray, as_frame, lambda X: np.asarray(X).tolist()])
@pytest.mark.parametrize(
    "X",
    [
        [[1 + 0j, 2]],
        np.array([[1 + 1j]], "G"),
        [[b"a", b"b"]],
        [[{}, 1]],
        np.array([[[1, 2], None], [3, 4]], object),
        [[10**400, 1]],
        [[np.inf, 1]],
        [[1e305, -1e305]],
        np.array([["1e400", "1"]], np.longdouble),
        np.zeros((0, 3)),
        np.zeros((3, 0)),
    ],
    ids=lambda X: repr(X)[:40],
)
def test_what_is_no_matrix_of_numbers(X, convert):
    transformer = quick()
    with np.errstate(over="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what `convert` does
        X = convert(X)
    with pytest.raises((ValueError, TypeError), match=r"[a-z]{3}.* [a-z]{3}"):
        transformer.fit(X)
    assert vars(transformer) == vars(quick())
    with pytest.raises(NotFittedError, match="not fitted yet"):
        transformer.transform([[1.0]])


@pytest.mark.parametrize(
    "X",
    [
        pd.DataFrame({"a": pd.Categorical([], categories=["x"])}),
        pd.DataFrame({"a": pd.Categorical(["x", "y"])}),
        pd.DataFrame({"a": pd.Categorical([1.0, 2.0], categories=[1.0, 2.0, 3.0])}),
        pd.DataFrame({"a": pd.to_datetime(["2020-01-01", None])}),
        pd.DataFrame({"a": pd.array([1, None], "Int8"), "b": [True, False]}),
        pd.DataFrame({"a": ["x", None], "b": [1, 2]}),
        pl.DataFrame({"a": ["x", None], "b": [1, 2]}),
        pl.DataFrame({"a": pl.Series(["x", "y"], dtype=pl.Categorical)}),
        pl.DataFrame({"a": [[1, 2], [3]]}),
        pl.DataFrame({"a": [None, None]}),
        pl.DataFrame({"a": [1, None], "b": [True, None]}),
        pl.DataFrame(),
        pd.DataFrame(),
    ],
    ids=lambda X: f"{type(X).__module__[:6]} {[*map(str, X.dtypes)]}",
)
def test_columns_of_other_types(X):
    """Numbers if they are numbers, a table of the same types, or an error that says why."""
    try:
        transformer = quick().fit(X)
        codes = transformer.transform(X)
    except (ValueError, TypeError) as error:
        assert len(str(error).split()) > 3  # noqa: PT017
        return
    if hasattr(transformer, "is_categorical_"):
        assert codes.shape == (len(X), 3)
        assert np.isfinite(codes).all()
        assert list(transformer.reconstruct(X).dtypes) == list(X.dtypes)
    else:
        assert codes.shape == (len(X), 3)
        rows = X.to_numpy().astype(object)
        numbers = np.where(pd.isna(rows), np.nan, rows).astype(float)
        np.testing.assert_array_equal(codes, quick().fit_transform(numbers.astype(codes.dtype)))


def test_a_hundred_thousand_columns():
    X = np.random.default_rng(0).random((3, 100_000), np.float32)
    X[0, :50_000] = np.nan
    assert_all_usable(quick(n_components=3).fit(X), X)


# Parameters

BOOLEANS = st.booleans()
NUMBERS = st.integers(-5, 5) | st.floats()
WORDS = st.text(max_size=8)
THINGS = st.sampled_from(
    [b"relu", {}, {1}, object(), 1j, np.zeros(3), pd.NA, range(0), [[1], [2, 3]]]
)
ANYTHING = st.none() | NUMBERS | WORDS | THINGS | st.lists(NUMBERS | WORDS, max_size=3)


def is_integer(value):
    return isinstance(value, (int, np.integer))


def is_number(value):
    return isinstance(value, (int, float, np.number)) and value == value


def is_at_least(least, kind=is_integer):
    return lambda value: kind(value) and least <= value < np.inf


def is_widths(value):
    return is_at_least(1)(value) or (
        isinstance(value, (list, tuple, range, np.ndarray)) and all(map(is_at_least(1), value))
    )


def is_one_of(*names):
    return lambda value: (
        value in names if isinstance(value, str) else value is None and None in names
    )


ACTIVATION = is_one_of("relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid")
NORMALIZATION = is_one_of(None, "layer", "batch")


def is_positive(value):
    return is_number(value) and 0 < value < np.inf


def is_choice_of_columns(value):
    """Whether it chooses columns of `X4`."""
    if isinstance(value, (list, tuple, range, np.ndarray)):
        return all(is_integer(i) and 0 <= i < 4 for i in value)
    return is_one_of(None, "from_dtype")(value)


LEGAL = {
    "n_components": is_at_least(1),
    "hidden_layer_sizes": is_widths,
    "activation": ACTIVATION,
    "normalization": NORMALIZATION,
    "network": is_one_of(None),
    "scaling": is_one_of(None, "auto", "standard", "feature", "global"),
    "loss": is_one_of("mse", "bce", "mae", "huber"),
    "init": is_one_of("auto", "pca", "random"),
    "regularizer": lambda value: (
        is_one_of(None, "auto")(value) or (isinstance(value, list) and not value)
    ),
    "learning_rate": is_positive,
    "learning_rate_schedule": is_one_of("one_cycle", "constant", "cosine"),
    "weight_decay": is_at_least(0, is_number),
    "batch_size": is_at_least(1),
    "max_epochs": lambda value: is_at_least(1)(value) or is_one_of("auto")(value),
    "early_stopping": lambda value: isinstance(value, bool),
    "validation_fraction": lambda value: is_number(value) and 0 < value < 1,
    "n_iter_no_change": is_at_least(1),
    "tol": is_at_least(0, is_number),
    "warm_start": lambda value: isinstance(value, bool),
    "device": is_one_of("auto", "cpu"),
    "precision": is_one_of("float32", "float64", "bfloat16"),
    "random_state": lambda value: value is None or is_at_least(0)(value),
    "checkpoint": lambda value: value is None or isinstance(value, str),
    "verbose": lambda value: is_at_least(0)(value),
    "categorical_features": is_choice_of_columns,
    "min_frequency": lambda value: (
        value is None
        or is_at_least(1)(value)
        or (is_number(value) and not is_integer(value) and 0 < value < 1)
    ),
    "max_categories": lambda value: is_at_least(1)(value) or is_one_of("auto", None)(value),
}
LEGAL_IN_PARTS = [
    (DenseNetwork, "hidden_layer_sizes", is_widths),
    (DenseNetwork, "activation", ACTIVATION),
    (DenseNetwork, "normalization", NORMALIZATION),
    (ConvNetwork, "image_shape", lambda value: value is None),
    (ConvNetwork, "channels", is_widths),
    (ConvNetwork, "kernel_size", lambda value: is_at_least(1)(value) and value % 2 == 1),
    (ConvNetwork, "activation", ACTIVATION),
    (ConvNetwork, "normalization", NORMALIZATION),
    (Denoising, "noise", is_one_of("masking", "swap", "gaussian")),
    (Denoising, "amount", lambda value: is_number(value) and 0 <= value < 1),
    (Sparse, "weight", is_at_least(0, is_number)),
    (Sparse, "target", lambda value: is_number(value) and 0 < value < 1),
    (Contractive, "weight", is_at_least(0, is_number)),
    (Variational, "beta", is_at_least(0, is_number)),
    (NeighborPreserving, "n_neighbors", is_at_least(1)),
    (NeighborPreserving, "weight", is_at_least(0, is_number)),
    (Supervised, "weight", is_at_least(0, is_number)),
    (Supervised, "mixup", is_at_least(0, is_number)),
    (NearPCA, "weight", is_at_least(0, is_number)),
    (DenseNetwork, "init", is_one_of("random", "pca")),
]
X4 = np.arange(8.0).reshape(2, 4)
Y2 = np.array([0, 1])


def assert_refused(transformer, name):
    before = vars(transformer).copy()
    with pytest.raises((ValueError, TypeError), match=name):
        transformer.fit(X4, Y2)
    assert vars(transformer).keys() == before.keys()


def test_every_parameter_is_tried():
    assert LEGAL.keys() == AutoencoderTransformer().get_params().keys()


@of_all(0.15)
@given(st.sampled_from(sorted(LEGAL)), ANYTHING)
def test_illegal_values_are_told_by_the_name_of_their_parameter(name, value):
    if not LEGAL[name](value):
        assert_refused(quick(**{name: value}), name)


@of_all(0.1)
@given(st.sampled_from(LEGAL_IN_PARTS), ANYTHING)
def test_also_those_of_networks_and_regularizers(part, value):
    kind, name, is_legal = part
    if not is_legal(value):
        where = "network" if kind in (DenseNetwork, ConvNetwork) else "regularizer"
        assert_refused(quick(**{where: kind(**{name: value})}), name)
