import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import skops.io
from scipy import sparse
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from sklearn.svm import SVC

import aefeatures._generation
import aefeatures._rows.batches
import aefeatures._rows.sources
from aefeatures import AutoencoderGenerator, AutoencoderTransformer


@pytest.fixture(scope="module")
def labelled(digits):
    """Fitted with classes, on floats of 0 to 16. Not to be changed."""
    X, _, y, _ = digits
    return AutoencoderGenerator(small(), random_state=0).fit(X, y)


@pytest.fixture(scope="module")
def unlabelled(digits):
    return AutoencoderGenerator(small(), random_state=0).fit(digits[0])


def small(**params):
    settings = {"n_components": 8, "hidden_layer_sizes": (64, 32), "max_epochs": 20}
    return AutoencoderTransformer(**{**settings, **params})


@pytest.fixture(scope="module")
def frozen(digits):
    """An autoencoder that is fitted once for many generators."""
    return FrozenEstimator(small(random_state=0).fit(digits[0]))


def test_samples_are_of_the_class_asked_for(labelled, digits):
    X, X_test, y, y_test = digits
    judge = SVC().fit(X, y)
    assert judge.score(X_test, y_test) > 0.97
    X_new, y_new = labelled.sample(500)
    assert X_new.shape == (500, 64)
    assert judge.score(X_new, y_new) > 0.9
    assert SVC().fit(X_new, y_new).score(X_test, y_test) > 0.85


def test_samples_are_no_copies_and_no_single_picture(labelled, digits):
    X_new, _ = labelled.sample(200, y=3)
    nearest = np.sqrt(((X_new[:, None] - digits[0]) ** 2).sum(-1)).min(axis=1)
    real = np.sqrt(((digits[1][:, None] - digits[0]) ** 2).sum(-1)).min(axis=1)
    assert 0.6 < np.median(nearest) / np.median(real) < 1.4
    assert X_new.std(axis=0).max() > 0.6 * digits[0][digits[2] == 3].std(axis=0).max()


def test_y_is_one_class_or_one_for_each_row(labelled):
    assert (labelled.sample(4, y=7)[1] == 7).all()
    wanted = [3, 1, 3, 0]
    X, y = labelled.sample(4, y=wanted)
    assert y.tolist() == wanted
    assert X.shape == (4, 64)


def test_classes_come_as_often_as_they_were(digits):
    X, _, y, _ = digits
    labels = np.where(y == 0, "nought", "other")
    generator = AutoencoderGenerator(PCA(5), random_state=0).fit(X, labels)
    _, drawn = generator.sample(4_000)
    assert abs((drawn == "nought").mean() - (labels == "nought").mean()) < 0.02
    assert generator.classes_.tolist() == ["nought", "other"]
    assert (generator.sample(3, y="nought")[1] == "nought").all()


def test_without_y_samples_have_none(unlabelled):
    X = unlabelled.sample(20)
    assert isinstance(X, np.ndarray)
    assert X.shape == (20, 64)
    with pytest.raises(ValueError, match="fitted without y"):
        unlabelled.sample(2, y=1)


def test_the_same_state_gives_the_same_samples(labelled):
    assert (labelled.sample(5)[0] == labelled.sample(5)[0]).all()
    first = labelled.sample(5, random_state=1)[0]
    assert (first == labelled.sample(5, random_state=1)[0]).all()
    assert not (first == labelled.sample(5, random_state=2)[0]).all()


def test_a_random_state_of_none_draws_anew(digits, frozen):
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    generator = AutoencoderGenerator(frozen, GaussianMixture(2)).fit(digits[0])
    assert not (generator.sample(5, random_state=3) == generator.sample(5)).all()
    assert not (generator.sample(5) == generator.sample(5)).all()
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_fits_repeat(digits):
    X, _, y, _ = digits
    once, again = (
        AutoencoderGenerator(small(max_epochs=2), random_state=0).fit(X, y).sample(9)[0]
        for _ in range(2)
    )
    assert (once == again).all()


def test_parts_keep_their_own_random_state(digits):
    generator = AutoencoderGenerator(small(max_epochs=2, random_state=5), random_state=0)
    generator.fit(digits[0])
    assert generator.autoencoder_.random_state == 5
    assert generator.autoencoder.random_state == 5
    assert generator.set_params(autoencoder__random_state=None).fit(digits[0]) is generator
    assert generator.autoencoder.random_state is None
    assert generator.autoencoder_.random_state is not None


@pytest.mark.parametrize("density", [GaussianMixture(3), KernelDensity(bandwidth=0.2), "normal"])
def test_any_density(digits, frozen, density):
    generator = AutoencoderGenerator(frozen, density, random_state=0).fit(digits[0])
    X = generator.sample(30)
    assert X.shape == (30, 64)
    assert 0.5 < X.std() / digits[0].std() < 2
    assert not (generator.sample(30, random_state=1) == X).all()
    assert generator.score_samples(digits[1]).shape == (450,)


def test_the_prior_of_a_variational_autoencoder(digits):
    X, _, y, _ = digits
    generator = AutoencoderGenerator(
        small(regularizer="variational", max_epochs=60), "normal", random_state=0
    ).fit(X)
    judge = SVC().fit(X, y)
    drawn = judge.predict(generator.sample(300))
    assert len(np.unique(drawn)) >= 9  # of all classes
    assert (generator._mean == 0).all()
    with pytest.raises(ValueError, match="'normal' is one density for all rows"):
        generator.fit(X, y)
    assert generator.sample(2).shape == (2, 64)  # as before


def test_score_samples_is_the_log_density_of_the_codes(digits, frozen):
    X, X_test, _, _ = digits
    codes = frozen.transform(X)
    generator = AutoencoderGenerator(frozen, GaussianMixture(1)).fit(X)
    ours = generator.score_samples(X_test)
    # The same density without the standardization that the generator does.
    raw = GaussianMixture(1).fit(codes)
    theirs = raw.score_samples(frozen.transform(X_test))
    np.testing.assert_allclose(ours, theirs, atol=0.01)
    noise = np.random.default_rng(0).uniform(0, 16, X_test.shape)
    assert np.median(generator.score_samples(noise)) < np.median(ours)


def test_score_samples_weighs_classes_by_their_share(labelled, digits):
    codes = labelled.autoencoder_.transform(digits[1])
    standardized = (codes - labelled._mean) / labelled._spread
    each = [np.exp(density.score_samples(standardized)) for density in labelled.densities_]
    expected = labelled.class_prior_ @ each / labelled._spread.prod()
    ours = np.exp(labelled.score_samples(digits[1]))
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_interpolation_goes_from_one_reconstruction_to_the_other(labelled, digits):
    X = digits[1]
    steps = labelled.interpolate(X[0], X[1:2], 7)
    assert steps.shape == (7, 64)
    ends = labelled.autoencoder_.reconstruct(X[:2])
    whole = np.clip(ends.round(), digits[0].min(axis=0), digits[0].max(axis=0))
    assert np.mean(steps[[0, -1]] == whole) > 0.98  # a half may be rounded either way
    jumps = np.linalg.norm(np.diff(steps, axis=0), axis=1)
    assert jumps.max() < np.linalg.norm(ends[0] - ends[1])


def test_interpolation_refuses_what_it_cannot_do(labelled, digits):
    with pytest.raises(ValueError, match="n_steps must be an int of at least 2, got 1"):
        labelled.interpolate(digits[1][0], digits[1][1], 1)
    with pytest.raises(ValueError, match="x_to must be one row, got 3"):
        labelled.interpolate(digits[1][0], digits[1][:3], 5)
    with pytest.raises(ValueError, match="X has 3 features, but AutoencoderGenerator is expecting"):
        labelled.interpolate(digits[1][0, :3], digits[1][0], 5)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(np.uint8, np.float32), (np.float32, np.float32), (np.int64, np.float64), (float, float)],
)
def test_dtypes(digits, dtype, expected):
    X = digits[0].astype(dtype)
    generator = AutoencoderGenerator(small(max_epochs=1), random_state=0).fit(X)
    assert generator.sample(3).dtype == expected
    assert generator.interpolate(X[0], X[1], 3).dtype == expected


@pytest.mark.parametrize("library", [pd, pl])
def test_frames_come_back_as_frames(digits, library):
    X, _, y, _ = digits
    names = [f"pixel {i}" for i in range(64)]
    table = pd.DataFrame(X, columns=names) if library is pd else pl.DataFrame(X, schema=names)
    generator = AutoencoderGenerator(small(max_epochs=1), random_state=0).fit(table, y)
    X_new, y_new = generator.sample(5)
    assert isinstance(X_new, library.DataFrame)
    assert list(X_new.columns) == names
    assert isinstance(y_new, np.ndarray)
    assert generator.score_samples(X_new).shape == (5,)
    steps = generator.interpolate(X[0], table[1:2], 4)
    assert list(steps.columns) == names


@pytest.mark.parametrize("names", [[f"pixel {i}" for i in range(6)], [7, 5, 3, 2, 11, 0]])
@pytest.mark.parametrize("library", [pd, pl])
def test_a_series_is_a_row_by_its_names(digits, names, library):
    names = names if library is pd else [str(name) for name in names]
    table = pd.DataFrame(digits[0][:60, 18:24] * [1, 10, 100, 1, 1, 1], columns=names)
    given = table if library is pd else pl.DataFrame(table.to_dict("list"))
    generator = AutoencoderGenerator(PCA(3), random_state=0).fit(given)
    expected = generator.interpolate(table.to_numpy()[0], table.to_numpy()[1], 3)
    kind = object if library is pd else float  # as of a row of numbers and booleans
    for row in (table.iloc[0], table.iloc[0][::-1].astype(kind), table.iloc[0].sample(frac=1)):
        between = generator.interpolate(row, table.iloc[1], 3)
        np.testing.assert_array_equal(between.to_numpy(), expected.to_numpy())
    renamed = table.iloc[0].rename({names[2]: "colour"})
    for row in (renamed, table.iloc[0].reset_index(drop=True).rename(lambda i: i + 20)):
        with pytest.raises(ValueError, match=r"x_to is a Series .* lacks the columns \["):
            generator.interpolate(table.iloc[0], row, 3)
    with pytest.raises(
        ValueError, match=rf"columns \[{names[2]!r}\] and has the unknown ones \['colour'\]\."
    ):
        generator.interpolate(renamed, table.iloc[0], 3)
    for row in (table.iloc[0][:4], pd.concat([table.iloc[0], table.iloc[0][:1]])):
        with pytest.raises(ValueError, match="x_from is a Series that is matched"):
            generator.interpolate(row, table.iloc[0], 3)


def census(n_rows=300):
    """Columns of ages, hours and gains, of which a decoder knows no bounds."""
    rng = np.random.default_rng(0)
    return {
        "age": rng.integers(17, 91, n_rows),
        "hours": rng.integers(1, 100, n_rows).astype(float),
        "gain": np.where(rng.random(n_rows) < 0.9, 0.0, rng.lognormal(8, 1, n_rows)),
        "rate": rng.random(n_rows).astype(np.float32),
        "flag": rng.random(n_rows) < 0.2,
        "same": np.full(n_rows, 0.3),
        "small": rng.integers(0, 3, n_rows).astype(np.uint8),
        "large": rng.integers(2**62, 2**62 + 9, n_rows),
    }


def assert_within(new, X):
    for name in X.columns:
        column, seen = np.asarray(new[name]), np.asarray(X[name])
        assert column.min() >= seen.min(), name
        assert column.max() <= seen.max(), name
        if name not in ("gain", "rate", "same"):
            assert (column == np.round(column)).all(), name


@pytest.mark.parametrize("density", [None, GaussianMixture(3, reg_covar=4.0)])
@pytest.mark.parametrize("container", [pd.DataFrame, pl.DataFrame, np.asarray])
def test_samples_keep_to_the_range_and_kind_of_columns(container, density):
    X = pd.DataFrame(census())
    given = X.to_numpy() if container is np.asarray else container(census())
    quick = AutoencoderTransformer(3, max_epochs=3)
    generator = AutoencoderGenerator(quick, density, random_state=0).fit(given)
    for new in (generator.sample(500), generator.interpolate(given[:1], given[1:2], 20)):
        if container is np.asarray:
            assert new.dtype == np.float64
            new = pd.DataFrame(new, columns=X.columns)
        else:
            assert list(new.dtypes) == list(given.dtypes)
        assert_within(new, X)
    free = AutoencoderGenerator(quick, density, keep_range=False, random_state=0).fit(given)
    ages = np.asarray(free.sample(500))[:, 0]
    assert not (ages == np.round(ages)).any()


@pytest.mark.parametrize(
    "column",
    [
        pd.array([1, 2, None] * 20, "Int16"),
        pd.array([True, False, None] * 20, "boolean"),
        pd.array([0.5, 2.5, None] * 20, "Float32"),
        pd.Categorical([1, 2, 7] * 20),
        pd.Categorical([0.5, None, 0.25] * 20, ordered=True),
    ],
    ids=lambda column: str(column.dtype)[:50],
)
def test_samples_have_the_dtypes_of_pandas(column):
    small = np.arange(60, dtype=np.int8)
    X = pd.DataFrame({"kind": column, "size": np.arange(60.0), "small": small})
    quick = AutoencoderTransformer(2, max_epochs=2)
    generator = AutoencoderGenerator(quick, random_state=0).fit(X)
    new = pickle.loads(pickle.dumps(generator)).sample(30)
    assert new.dtypes.equals(X.dtypes)
    assert not new["kind"].isna().any()
    assert set(new["size"] % 1) == {0.0}


def test_integers_of_64_bits_stay_within_them():
    X = np.array([2**62, 2**63 - 1])[np.arange(40) % 2][:, None] - np.arange(2)
    wide = GaussianMixture(1, reg_covar=9.0)
    frame = pd.DataFrame(X, columns=["a", "b"])
    new = AutoencoderGenerator(PCA(1), wide, random_state=0).fit(frame).sample(50)
    assert (new.min() == X.min(axis=0)).all()
    assert (new.max() == X.max(axis=0)).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_pictures_of_integers_are_whole(digits, dtype):
    X = digits[0].astype(dtype)
    new = AutoencoderGenerator(small(max_epochs=1), random_state=0).fit(X).sample(20)
    assert new.dtype == np.float32
    assert (new == new.round()).all()
    assert (new <= X.max(axis=0)).all()
    new = AutoencoderGenerator(small(max_epochs=5), random_state=0).fit(X / 16).sample(20)
    assert (new != new.round()).any()


def test_columns_without_names_of_their_own(digits):
    table = pd.DataFrame(digits[0][:40, 18:22], columns=[7, 5, 3, 2])
    X_new = AutoencoderGenerator(PCA(2), random_state=0).fit(table).sample(3)
    assert list(X_new.columns) == [7, 5, 3, 2]


COLUMNS = {
    "texts": pd.Index(["a b", "", "c", "d"], name="measured"),
    "numbers": pd.Index([7, 5, 3, 2]),
    "range": pd.RangeIndex(4),
    "fractions": pd.Index([0.5, 1.5, 2.5, 3.5]),
    "dates": pd.DatetimeIndex(["2020-01-01", "2020-01-03", "2021-01-01", "2019-05-05"]),
    "levels": pd.MultiIndex.from_product([["left", "right"], [1, 2]], names=["side", None]),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_names_come_back_from_a_file_as_they_were_given(digits, kind):
    table = pd.DataFrame(digits[0][:40, 18:22]).set_axis(COLUMNS[kind], axis=1)
    generator = AutoencoderGenerator(PCA(2), random_state=0).fit(table)
    data = skops.io.dumps(generator)
    loaded = skops.io.loads(data, trusted=skops.io.get_untrusted_types(data=data))
    for each in (generator, loaded, pickle.loads(pickle.dumps(generator))):
        drawn = each.sample(3)
        pd.testing.assert_index_equal(drawn.columns, COLUMNS[kind], exact="equiv")
        np.testing.assert_array_equal(drawn, generator.sample(3))
        assert not any("pandas" in type(value).__module__ for value in vars(each).values())


@pytest.mark.parametrize(
    "columns",
    [pd.period_range("2020", periods=4, freq="Y"), pd.interval_range(0, 4)],
    ids=["periods", "intervals"],
)
def test_names_that_are_objects_of_pandas_come_back_as_text(digits, columns):
    table = pd.DataFrame(digits[0][:40, 18:22]).set_axis(columns, axis=1)
    drawn = AutoencoderGenerator(PCA(2), random_state=0).fit(table).sample(3)
    assert list(drawn.columns) == [str(name) for name in columns]


def test_a_pickle_of_an_earlier_version(digits):
    table = pd.DataFrame(digits[0][:40, 18:22]).set_axis(COLUMNS["levels"], axis=1)
    generator = AutoencoderGenerator(PCA(2), random_state=0).fit(table)
    generator._columns, generator._code_dtype = table.columns, np.dtype(generator._code_dtype)
    del generator._column_levels
    drawn = pickle.loads(pickle.dumps(generator)).sample(3)
    pd.testing.assert_index_equal(drawn.columns, table.columns)


class Resampled:
    """The least that a density must be: it gives codes that it has seen."""

    def fit(self, Z):
        self.codes = Z
        return self

    def sample(self, n_samples):
        return self.codes[:n_samples]


def test_a_density_that_is_no_estimator(digits):
    X, density = digits[0], Resampled()
    generator = AutoencoderGenerator(PCA(2), density).fit(X)
    assert generator.sample(3).shape == (3, 64)
    assert not hasattr(density, "codes")
    with pytest.raises(AttributeError, match=r"Resampled object .* has no score_samples"):
        generator.score_samples(X)


def test_repeated_rows_bear_no_components(digits):
    """Nor do they warn of clusters that are not distinct."""
    X = np.repeat(digits[0][:3], 40, axis=0)
    generator = AutoencoderGenerator(small(max_epochs=10), random_state=0).fit(X)
    assert generator.densities_[0].n_components == 1


def test_a_single_column(digits):
    """Its one code compresses nothing, of which nobody need be warned."""
    generator = AutoencoderGenerator(
        AutoencoderTransformer(1, max_epochs=10, hidden_layer_sizes=8), random_state=0
    )
    assert generator.fit(digits[0][:, 20:21]).sample(3).shape == (3, 1)


def test_sparse_and_missing_values(digits, frozen):
    X = digits[0]
    dense = AutoencoderGenerator(frozen, random_state=0).fit(X).sample(3)
    from_sparse = AutoencoderGenerator(frozen, random_state=0).fit(sparse.csr_matrix(X)).sample(3)
    np.testing.assert_allclose(dense, from_sparse, rtol=1e-5)
    X = X.copy()
    X[::7, 20] = np.nan
    generator = AutoencoderGenerator(small(max_epochs=1), random_state=0).fit(X)
    drawn, known = generator.sample(200)[:, 20], X[:, 20][~np.isnan(X[:, 20])]
    assert abs(drawn.mean() - known.mean()) < known.std()
    assert drawn.std() > 0.1 * known.std()


@pytest.mark.filterwarnings("ignore:.*learned nothing")
@pytest.mark.parametrize("constant", [0.0, 1e-6, 5.0])
def test_columns_without_information(constant):
    X = np.random.default_rng(0).normal(size=(100, 7))
    X[:, 2], X[:, 5] = constant, np.nan
    generator = AutoencoderGenerator(small(n_components=3, max_epochs=2), random_state=0)
    with pytest.warns(UserWarning, match="no known value in column 5"):
        generator.fit(X)
    samples = generator.sample(50)
    assert (samples[:, 2] == constant).all()
    assert (np.isnan(samples) == (np.arange(7) == 5)).all()
    assert np.isfinite(generator.score_samples(X)).all()
    assert (generator.interpolate(X[0], X[1], 3)[:, 2] == constant).all()


def test_few_labels_are_spread(digits):
    X, X_test, y, y_test = digits
    few = np.full(len(y), -1)
    for label in range(10):
        few[np.flatnonzero(y == label)[:5]] = label
    preset = AutoencoderTransformer.from_preset("neighbors", n_components=8, max_epochs=20)
    X_new, y_new = AutoencoderGenerator(preset, random_state=0).fit(X, few).sample(1_000)
    alone = SVC().fit(X[few >= 0], few[few >= 0]).score(X_test, y_test)
    assert SVC().fit(X_new, y_new).score(X_test, y_test) > alone + 0.02


def test_what_is_unlabelled(digits, frozen):
    X, _, y, _ = digits
    y = y[:300].astype(float)
    y[::2] = np.nan
    assert AutoencoderGenerator(frozen).fit(X[:300], y).classes_.tolist() == list(range(10))
    signs = np.where(digits[2] < 5, -1, 1)
    assert AutoencoderGenerator(frozen).fit(X, signs).classes_.tolist() == [-1, 1]
    with pytest.raises(ValueError, match="No row of y is labelled"):
        AutoencoderGenerator(frozen).fit(X, np.full(len(X), np.nan))
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        AutoencoderGenerator(frozen).fit(X, X[:, 20] + 0.5 * X[:, 21] + 0.25)


@pytest.mark.parametrize(
    "y",
    [
        pd.Series(["0", "1", "2", pd.NA] * 20, dtype="string"),
        pd.Series([0, 1, 2, -1] * 20, dtype="Int64"),
        np.array([0, 1, 2, -1] * 20, dtype=object),
        np.array([0, 1, 2, None] * 20, dtype=object),
        pl.Series([0, 1, 2, None] * 20),
    ],
)
def test_labels_of_any_library(digits, y):
    autoencoder = small(max_epochs=10, regularizer="supervised")
    generator = AutoencoderGenerator(autoencoder, random_state=0).fit(digits[0][:80], y)
    assert generator.classes_.astype(int).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("y", "dtype"),
    [
        (pd.Series([True, False], dtype="boolean"), bool),
        (pd.Series([True, False, pd.NA], dtype="boolean"), bool),
        (pd.Series([True, False, None], dtype="category"), bool),
        (pd.Series([3, 4, None], dtype="category"), np.int64),
        (pd.Series([3, 4, pd.NA], dtype="Int64"), np.int64),
        (pd.Series([3.0, 4.0, pd.NA], dtype="Float64"), np.float64),
        (pd.Series(["a", "b", pd.NA], dtype="string"), object),
        (pl.Series([True, False, None]), bool),
        (pl.Series([3, 4, None]), np.int64),
        (pl.Series(["a", "b", None]), object),
        (np.array([3, 4], np.uint8), np.uint8),
        ([True, False, None], bool),
    ],
)
def test_labels_come_back_as_they_were(digits, frozen, y, dtype):
    known = [label for label in y if not pd.isna(label)]
    # Each class often enough for a density of its own.
    rows = np.repeat(np.arange(len(y)), 40)
    if isinstance(y, list):
        y = [y[i] for i in rows]
    else:
        y = y.iloc[rows] if isinstance(y, pd.Series) else y[rows]
    generator = AutoencoderGenerator(frozen, random_state=0).fit(digits[0][: len(rows)], y)
    drawn = generator.sample(40)[1]
    assert generator.classes_.dtype == drawn.dtype == dtype
    assert set(drawn.tolist()) == set(known)
    again = generator.sample(4, y=known[0])[1]
    assert again.tolist() == [known[0]] * 4


def test_a_class_of_one_row(digits):
    X, _, y, _ = digits
    frozen = FrozenEstimator(small(max_epochs=60, random_state=0).fit(X))
    rows = np.r_[np.flatnonzero(y != 4), np.flatnonzero(y == 4)[:1]]
    generator = AutoencoderGenerator(frozen, keep_range=False, random_state=0)
    generator.fit(X[rows], y[rows])
    fours, _ = generator.sample(2000, y=4)
    assert (SVC().fit(X, y).predict(fours) == 4).mean() > 0.7
    assert fours.std(axis=0).max() > 1  # they vary
    with pytest.raises(ValueError, match="cannot be fitted to the 1 rows of class 4: Found"):
        AutoencoderGenerator(frozen, GaussianMixture()).fit(X[rows], y[rows])


def test_a_single_row(digits):
    generator = AutoencoderGenerator(small(max_epochs=1), random_state=0).fit(digits[0][:1])
    np.testing.assert_allclose(generator.sample(3), digits[0][[0, 0, 0]], atol=1)


def test_errors_of_sample(labelled, digits):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        AutoencoderGenerator().sample(1)
    for wrong in (0, -3, 2.5, True):
        with pytest.raises(ValueError, match=f"at least 1, got {wrong}"):
            labelled.sample(wrong)
    with pytest.raises(ValueError, match=r"asks for the class 11, which was not .*\[0, 1, 2"):
        labelled.sample(3, y=11)
    with pytest.raises(ValueError, match=r"n_samples=3 rows, got 2"):
        labelled.sample(3, y=[1, 2])
    with pytest.raises(MemoryError, match=r"more than the memory of this machine. Draw fewer"):
        labelled.sample(10**15)


def test_samples_are_drawn_in_parts(labelled, monkeypatch):
    sizes = []
    decode = AutoencoderGenerator._decode
    monkeypatch.setattr(aefeatures._rows.sources, "_CHUNK_ELEMENTS", 64 * 10)
    monkeypatch.setattr(
        AutoencoderGenerator,
        "_decode",
        lambda self, codes: (sizes.append(len(codes)), decode(self, codes))[1],
    )
    X, y = labelled.sample(25, y=np.arange(25) % 10)
    assert sizes == [10, 10, 5]
    assert X.shape == (25, 64)
    assert y.tolist() == [i % 10 for i in range(25)]


def test_errors_of_parameters(digits):
    with pytest.raises(ValueError, match=r"'density' parameter .* implementing 'fit' and 'sample'"):
        AutoencoderGenerator(density=PCA()).fit(digits[0])
    with pytest.raises(ValueError, match=r"'autoencoder' parameter .* 'inverse_transform'"):
        AutoencoderGenerator(SVC()).fit(digits[0])
    with pytest.raises(ValueError, match="'keep_range' parameter of AutoencoderGenerator must be"):
        AutoencoderGenerator(keep_range="yes").fit(digits[0])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        AutoencoderGenerator().fit(digits[0], [1, 2])


def test_a_refused_fit_changes_nothing(digits, frozen):
    generator = AutoencoderGenerator(frozen, random_state=0).fit(digits[0])
    before = generator.sample(2)
    with pytest.raises(ValueError, match="infinity"):
        generator.fit(np.full((4, 64), np.inf))
    with pytest.raises(ValueError, match="features"):
        generator.fit(digits[0][:, :5])
    assert (generator.sample(2) == before).all()


def test_clone_pickle_and_nested_parameters(labelled):
    copied = clone(labelled)
    assert not hasattr(copied, "densities_")
    copied.set_params(autoencoder__n_components=3, density=GaussianMixture())
    copied.set_params(density__n_components=4)
    assert copied.get_params()["density__n_components"] == 4
    loaded = pickle.loads(pickle.dumps(labelled))
    assert (loaded.sample(4)[0] == labelled.sample(4)[0]).all()


def test_a_frozen_autoencoder_stays(digits, frozen):
    generator = AutoencoderGenerator(frozen).fit(digits[0][:100])
    assert generator.autoencoder_.estimator is frozen.estimator


def test_number_of_components_follows_the_rows():
    rng = np.random.RandomState(0)
    fit = aefeatures._generation._fit_mixture
    sizes = (31, 40, 400, 1_200)
    components = [fit(rng.normal(size=(n, 3)), np.eye(3), rng).n_components for n in sizes]
    assert components == [1, 2, 25, 64]


def test_few_rows_lean_on_the_covariance_of_all():
    rng = np.random.RandomState(0)
    wide, fit = np.diag([9.0, 1.0, 1.0]), aefeatures._generation._fit_mixture
    few, more = (fit(rng.normal(size=(n, 3)), wide, rng).covariances_[0, 0, 0] for n in (2, 15))
    assert few > more > 1.3
    assert fit(np.zeros((1, 3)), wide, rng).covariances_[0].tolist() == wide.tolist()


def test_constant_columns_and_codes(digits):
    X = np.hstack([digits[0][:200], np.full((200, 2), 3.0)])
    generator = AutoencoderGenerator(PCA(10), random_state=0).fit(X)
    np.testing.assert_allclose(generator.sample(5)[:, -2:], 3.0)


# Tables


def shop(n_rows=400):
    """Orders whose columns depend on each other, of all kinds of columns."""
    rng = np.random.default_rng(0)
    color = rng.choice(["red", "green", "blue"], n_rows, p=[0.5, 0.3, 0.2])
    is_red = color == "red"
    return pd.DataFrame(
        {
            "color": color.astype(object),
            "size": np.where(is_red, 40, 10) + rng.integers(0, 3, n_rows),
            "price": np.where(rng.random(n_rows) < 0.6, 0.0, rng.lognormal(1, 0.5, n_rows)),
            "day": pd.date_range("2020-01-01", periods=n_rows, tz="Europe/Berlin"),
            "gift": is_red ^ (rng.random(n_rows) < 0.05),
            "shape": pd.Categorical(
                np.where(is_red, "a", "b"), categories=["c", "b", "a"], ordered=True
            ),
        }
    )


def as_polars(X):
    frame = pl.from_pandas(X.assign(shape=X["shape"].astype(str), day=X["day"].dt.tz_convert(None)))
    day = pl.col("day").dt.replace_time_zone("UTC").dt.convert_time_zone("Europe/Berlin")
    return frame.with_columns(day)


@pytest.fixture(scope="module")
def of_shop():
    """Fitted on a table. Not to be changed."""
    autoencoder = small(n_components=5, regularizer=None)
    return AutoencoderGenerator(autoencoder, random_state=0).fit(shop())


@pytest.mark.parametrize("container", [lambda X: X, as_polars], ids=["pandas", "polars"])
def test_samples_of_a_table_have_its_columns_and_types(container):
    X = container(shop())
    generator = AutoencoderGenerator(small(n_components=5), random_state=0).fit(X)
    assert generator.n_features_in_ == 6
    X_new = pickle.loads(pickle.dumps(generator)).sample(200)
    assert list(X_new.columns) == list(X.columns)
    assert list(X_new.dtypes) == list(X.dtypes)
    for name in ("color", "size", "gift", "shape"):
        assert set(X_new[name]) <= set(X[name]), name
    for name in ("price", "day"):
        assert X[name].min() <= X_new[name].min() <= X_new[name].max() <= X[name].max(), name
    assert generator.score_samples(X_new).shape == (200,)
    assert container(shop()).equals(X)


def test_columns_of_samples_are_distributed_and_depend_as_in_fit(of_shop):
    X, X_new = shop(), of_shop.sample(2_000)
    share, share_new = (each["color"].value_counts(normalize=True) for each in (X, X_new))
    assert (share - share_new).abs().max() < 0.06
    assert abs((X["price"] == 0).mean() - (X_new["price"] == 0).mean()) < 0.05
    assert abs(X_new["size"].std() / X["size"].std() - 1) < 0.1
    is_red = X_new["color"] == "red"
    assert ((X_new["size"] >= 40) == is_red).mean() > 0.95
    assert ((X_new["shape"] == "a") == is_red).mean() > 0.95


def test_equal_rows_of_a_table_bear_components():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 5, (2, 600))
    X = pd.DataFrame({"first": first, "second": second, "sum": (first + second) % 3}).astype(str)
    X_new = AutoencoderGenerator(random_state=0).fit(X).sample(500).astype(int)
    assert (X_new["sum"] == (X_new["first"] + X_new["second"]) % 3).mean() > 0.9


def test_missing_values_of_a_table_are_filled_in():
    X = shop()
    X.loc[::3, "color"] = None
    X.loc[::4, "day"] = pd.NaT
    X["size"] = X["size"].astype("Int64").mask(np.arange(len(X)) % 5 == 0)
    X_new = AutoencoderGenerator(small(n_components=5), random_state=0).fit(X).sample(100)
    assert not X_new.isna().any(axis=None)
    assert X_new.dtypes.equals(X.dtypes)
    assert set(X_new["color"]) <= {"red", "green", "blue"}


def test_grouped_levels_are_drawn_by_their_shares():
    rng = np.random.default_rng(0)
    letters = rng.choice(list("abcdef"), 1_000, p=[0.4, 0.3, 0.12, 0.09, 0.06, 0.03])
    X = pd.DataFrame({"letter": letters, "size": rng.random(1_000), "weight": rng.random(1_000)})
    autoencoder = small(n_components=2, max_categories=3, max_epochs=3)
    generator = AutoencoderGenerator(autoencoder, random_state=0).fit(X)
    shares = generator.sample(3_000)["letter"].value_counts(normalize=True)
    expected = X["letter"].value_counts(normalize=True)
    assert set(shares.index) == set("abcdef")
    assert (shares - expected).abs().max() < 0.05
    rare = generator.sample(50, conditions={"letter": "f"})
    assert set(rare["letter"]) == {"f"}


def test_classes_of_a_table_have_distributions_of_their_own():
    X = shop()
    is_red = X.pop("color").to_numpy() == "red"
    generator = AutoencoderGenerator(small(n_components=4), random_state=0).fit(X, is_red)
    X_new, y_new = generator.sample(400)
    assert ((X_new["size"] >= 40) == y_new).mean() > 0.98
    assert (generator.sample(50, y=True)[0]["size"] >= 40).all()
    X_new, y_new = generator.sample(50, conditions={"size": 41})
    assert (X_new["size"] == 41).all()
    assert y_new.mean() > 0.9
    X_new, y_new = generator.sample(3, y=[True, False, True], conditions={"price": 0})
    assert y_new.tolist() == [True, False, True]
    assert (X_new["price"] == 0).all()


def test_without_keep_range_levels_and_types_stay():
    generator = AutoencoderGenerator(small(n_components=5), keep_range=False, random_state=0)
    X_new = generator.fit(shop()).sample(300)
    assert X_new.dtypes.equals(shop().dtypes)
    assert set(X_new["color"]) <= {"red", "green", "blue"}
    assert (X_new["price"] == 0).mean() < 0.1


@pytest.mark.parametrize(
    ("conditions", "red"),
    [
        ({"color": "red"}, 1.0),
        ({"shape": "b"}, 0.0),
        ({"size": 41}, 1.0),
        ({"gift": False, "size": 11}, 0.0),
        ({"color": "red", "gift": True, "price": 0}, 1.0),
        ({"day": "2020-03-01"}, 0.5),
        ({"day": pd.Timestamp("2020-03-01", tz="Europe/Berlin")}, 0.5),
    ],
)
def test_all_samples_fulfil_conditions(of_shop, conditions, red):
    X_new = of_shop.sample(200, conditions=conditions)
    assert X_new.dtypes.equals(shop().dtypes)
    assert len(X_new) == 200
    for name, value in conditions.items():
        if name != "day":
            assert (X_new[name] == value).all()
    if "day" in conditions:
        assert (X_new["day"].dt.date == pd.Timestamp("2020-03-01").date()).all()
    assert abs((X_new["color"] == "red").mean() - red) < 0.2
    assert X_new["price"].nunique() > 10 or "price" in conditions
    pd.testing.assert_frame_equal(X_new, of_shop.sample(200, conditions=conditions))


def test_conditions_on_polars():
    X = as_polars(shop())
    generator = AutoencoderGenerator(small(n_components=5), random_state=0).fit(X)
    X_new = generator.sample(40, conditions={"color": "blue", "gift": False, "day": "2020-02-01"})
    assert X_new.schema == X.schema
    assert X_new["color"].unique().to_list() == ["blue"]
    assert not X_new["gift"].any()
    assert X_new["day"].n_unique() == 1


def test_conditions_on_numbers(digits):
    X = pd.DataFrame(census())[["age", "gain", "rate", "flag"]]
    autoencoder = small(n_components=3, max_epochs=5)
    generator = AutoencoderGenerator(autoencoder, random_state=0).fit(X)
    X_new = generator.sample(30, conditions={"age": 40, "flag": True})
    assert X_new.dtypes.equals(X.dtypes)
    assert (X_new["age"] == 40).all()
    assert X_new["flag"].all()
    assert X_new["rate"].nunique() > 10
    of_array = AutoencoderGenerator(PCA(3), random_state=0).fit(digits[0].astype(np.float32))
    X_new = of_array.sample(20, conditions={20: 7, 30: 0})
    assert X_new.dtype == np.float32
    assert (X_new[:, [20, 30]] == [7, 0]).all()


def test_conditions_that_no_row_of_fit_fulfils_are_approximated(of_shop):
    with pytest.warns(UserWarning, match=r"only [\d,]+ fulfil the conditions, 30 are wanted"):
        X_new = of_shop.sample(30, conditions={"color": "red", "size": 10, "shape": "b"})
    assert (X_new["color"] == "red").all()
    assert (X_new["size"] == 10).all()
    assert (X_new["shape"] == "b").all()


def test_errors_of_conditions(of_shop, unlabelled):
    for conditions, message in (
        ({"colour": "red"}, r"unknown column 'colour'. The columns are 'color', 'size'"),
        ({"color": "pink"}, r"'pink' in the column 'color'.* levels are 'blue', 'green', 'red'"),
        ({"color": None}, "None in the column 'color', which was not in fit"),
        ({"color": ["red"]}, r"\['red'\] in the column 'color'"),
        ({"shape": "c"}, "'c' in the column 'shape'"),  # a category that no row has
        ({"size": 99}, "99 in the column 'size', which is not in its range in fit, 10 to 42"),
        ({"size": 10.5}, "10.5 in the column 'size', which holds whole numbers"),
        ({"size": "ten"}, "'ten' in the column 'size', which holds integers"),
        ({"size": np.nan}, "nan in the column 'size'"),
        ({"day": "soon"}, "'soon' in the column 'day', which holds dates"),
        ({"day": 3}, "3 in the column 'day', which holds dates"),
        ({"day": "1999-01-01"}, "which is not in its range in fit"),
        ([("color", "red")], "conditions must be a dict"),
    ):
        with pytest.raises(ValueError, match=message):
            of_shop.sample(3, conditions=conditions)
    for conditions in ({"pixel": 1}, {64: 1}, {-1: 1}, {True: 1}):
        with pytest.raises(ValueError, match="had no names: give positions from 0 to 63"):
            unlabelled.sample(3, conditions=conditions)


def test_interpolation_between_rows_of_a_table(of_shop):
    X = shop()
    for row in (X.iloc[0], X.iloc[0][::-1], X.iloc[[0]], X.iloc[0].tolist()):
        steps = of_shop.interpolate(row, X.iloc[[1]], 5)
        assert steps.dtypes.equals(X.dtypes)
        assert len(steps) == 5
    ends = of_shop.autoencoder_.reconstruct(X[:2])
    assert steps["color"].iloc[[0, -1]].tolist() == ends["color"].tolist()
    polars = as_polars(X)
    generator = AutoencoderGenerator(small(n_components=5, max_epochs=2), random_state=0)
    steps = generator.fit(polars).interpolate(polars.row(0), polars[1:2], 3)
    assert steps.schema == polars.schema


def test_tables_of_arrays_and_frozen_autoencoders():
    X = shop()[["color", "size", "price"]].to_numpy(dtype=object)
    autoencoder = small(n_components=2, max_epochs=2, categorical_features=[0])
    X_new = (
        AutoencoderGenerator(autoencoder, random_state=0).fit(X).sample(20, conditions={0: "red"})
    )
    assert X_new.shape == (20, 3)
    assert set(X_new[:, 0]) == {"red"}
    frozen = FrozenEstimator(small(n_components=3, max_epochs=2, random_state=0).fit(shop()))
    X_new = AutoencoderGenerator(frozen, random_state=0).fit(shop()).sample(20)
    assert X_new.dtypes.equals(shop().dtypes)
    with pytest.raises(ValueError, match="must hold numbers, but these columns do not: 'color'"):
        AutoencoderGenerator(PCA(2)).fit(shop())


@pytest.mark.parametrize("names", [[3, 1, 4, 15, 9, 2], [("a", each) for each in "bcdefg"]])
def test_names_of_a_table_come_back_as_they_were(names):
    X = shop()
    X.columns = pd.MultiIndex.from_tuples(names) if isinstance(names[0], tuple) else names
    autoencoder = small(n_components=3, max_epochs=2)
    X_new = AutoencoderGenerator(autoencoder, random_state=0).fit(X).sample(5)
    assert X_new.columns.equals(X.columns)
