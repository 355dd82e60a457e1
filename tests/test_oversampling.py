import inspect
import pickle
import sys

import numpy as np
import pandas as pd
import polars as pl
import pytest
from imblearn.over_sampling import RandomOverSampler
from imblearn.pipeline import make_pipeline
from imblearn.utils.estimator_checks import estimator_checks_generator
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

import aefeatures
from aefeatures import AutoencoderOversampler, AutoencoderTransformer

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


def quick(**params):
    small = AutoencoderTransformer(3, max_epochs=2)
    return AutoencoderOversampler(**{"autoencoder": small, "random_state": 0, **params})


@pytest.fixture(scope="module")
def table():
    """30 malignant and 357 benign rows of 30 columns."""
    X, y = load_breast_cancer(return_X_y=True)
    rows = np.r_[np.flatnonzero(y == 1), np.flatnonzero(y == 0)[:30]]
    return X[rows], y[rows]


def test_without_imbalanced_learn_an_error_says_what_to_install(monkeypatch):
    # That `import aefeatures` does not import it is tested in test_imports.py.
    monkeypatch.delitem(sys.modules, "aefeatures._oversampling")
    monkeypatch.setitem(sys.modules, "imblearn.over_sampling.base", None)
    with pytest.raises(ImportError, match=r"pip install 'aefeatures\[imbalance\]'"):
        aefeatures.AutoencoderOversampler  # noqa: B018
    assert "AutoencoderOversampler" in dir(aefeatures)
    monkeypatch.setitem(sys.modules, "imblearn", None)
    assert "AutoencoderOversampler" not in dir(aefeatures)
    assert "AutoencoderGenerator" in dict(inspect.getmembers(aefeatures))
    assert "AutoencoderOversampler" not in aefeatures.__all__  # `import *` works without
    with pytest.raises(AttributeError, match="has no attribute 'Oversampler'"):
        aefeatures.Oversampler  # noqa: B018


CONTRACT = estimator_checks_generator(
    AutoencoderOversampler(autoencoder=AutoencoderTransformer(1, max_epochs=2), random_state=0)
)


@pytest.mark.parametrize(("estimator", "check"), list(CONTRACT))
def test_contract_of_imbalanced_learn(estimator, check):
    check(estimator)


def test_classes_are_evened_out_by_new_rows(table):
    X, y = table
    X_more, y_more = quick().fit_resample(X, y)
    assert np.bincount(y_more).tolist() == [357, 357]
    assert (X_more[: len(X)] == X).all()
    new = X_more[len(X) :]
    assert len(np.unique(new, axis=0)) == len(new)
    assert (new >= X.min(axis=0)).all()
    assert (new <= X.max(axis=0)).all()
    rows = X[y == 0]
    distance = (np.abs(new[:, None] - rows) / X.std(axis=0)).mean(axis=-1).min(axis=1)
    assert 0.01 < np.median(distance) < 1


def test_it_helps_more_than_repeating_rows(table):
    """A linear model that must not take the few for noise."""
    X, y = load_breast_cancer(return_X_y=True)
    few, many = np.flatnonzero(y == 0), np.flatnonzero(y == 1)
    train = np.r_[many[::2], few[:5]]
    test = np.r_[many[1::2], few[5:]]

    def accuracy(sampler):
        model = make_pipeline(StandardScaler(), sampler, LogisticRegression(max_iter=10_000))
        return balanced(model, X[train], y[train], X[test], y[test])

    def balanced(model, X, y, X_test, y_test):
        predicted = model.fit((X - X.mean(0)) / X.std(0), y).predict(
            (X_test - X.mean(0)) / X.std(0)
        )
        return np.mean([(predicted[y_test == label] == label).mean() for label in (0, 1)])

    ours = np.mean([accuracy(AutoencoderOversampler(random_state=seed)) for seed in range(2)])
    assert ours > accuracy(RandomOverSampler(random_state=0)) + 0.005
    assert ours > accuracy("passthrough")


@pytest.mark.parametrize(
    "strategy", [0.5, "minority", {0: 100}, lambda y: {0: int((y == 1).sum()) // 2}]
)
def test_sampling_strategy(table, strategy):
    X, y = table
    _, y_more = quick(sampling_strategy=strategy).fit_resample(X, y)
    expected = {0.5: 178, "minority": 357}.get(strategy if not isinstance(strategy, dict) else None)
    if expected is None:
        expected = 100 if isinstance(strategy, dict) else 178
    assert (y_more == 0).sum() == expected


def test_columns_keep_their_kind(table):
    X, y = table
    frame = pd.DataFrame(
        {
            "size": X[:, 0],
            "count": np.arange(len(X)) % 7,
            "flag": X[:, 1] > 18,
            "small": (X[:, 2] % 5).astype(np.int8),
            "single": X[:, 3].astype(np.float32),
        }
    )
    target = pd.Series(np.where(y == 0, "bad", "good"), name="kind")
    frame_more, target_more = quick().fit_resample(frame, target)
    assert frame_more.dtypes.tolist() == frame.dtypes.tolist()
    assert target_more.value_counts().to_dict() == {"bad": 357, "good": 357}
    assert frame_more["count"].between(0, 6).all()
    new = frame_more[len(frame) :]
    assert new["flag"].nunique() == 2
    assert new["count"].nunique() > 3


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, bool])
def test_dtypes(digits, dtype):
    X, _, y, _ = digits
    rows = np.r_[np.flatnonzero(y == 1), np.flatnonzero(y == 2)[:9]]
    X = (X[rows] > 7) if dtype is bool else X[rows].astype(dtype)
    X_more, _ = quick().fit_resample(X, y[rows])
    assert X_more.dtype == dtype
    assert X_more[len(X) :].max() <= X.max()
    assert X_more[len(X) :].std() > 0


def test_integers_stay_within_64_bits():
    ends = np.array([2**62, 2**63 - 1])
    X = ends[np.arange(40) % 2][:, None] - np.arange(2)
    y = np.arange(40) < 32
    X_more, _ = quick(autoencoder=PCA(1), spread=5.0).fit_resample(X, y)
    assert X_more.dtype == np.int64
    assert len(X_more) == 64
    assert (X_more.min(axis=0) == X.min(axis=0)).all()
    assert (X_more.max(axis=0) == X.max(axis=0)).all()


def test_rows_are_made_in_parts(table, monkeypatch):
    X, y = table
    at_once, _ = quick(autoencoder=PCA(3)).fit_resample(X, y)
    monkeypatch.setattr(aefeatures._rows.sources, "_CHUNK_ELEMENTS", 50 * X.shape[1])
    sizes = []
    decode = AutoencoderOversampler._decode
    monkeypatch.setattr(
        AutoencoderOversampler,
        "_decode",
        lambda self, codes: (sizes.append(len(codes)), decode(self, codes))[1],
    )
    in_parts, _ = quick(autoencoder=PCA(3)).fit_resample(X, y)
    # 30 rows, moved nine times each, tell where the values of the class lie.
    assert sizes[:2] == [270, 270]
    assert set(sizes[2:]) == {50, 27}
    np.testing.assert_allclose(in_parts, at_once, rtol=1e-10)


def test_a_frozen_autoencoder_is_given_the_names_it_knows(table):
    X, y = table
    frame = pd.DataFrame(X, columns=load_breast_cancer().feature_names)
    frozen = FrozenEstimator(PCA(3).fit(frame))
    frame_more, _ = quick(autoencoder=frozen).fit_resample(frame, y)  # a warning is an error
    assert frame_more.columns.equals(frame.columns)
    sparse_frame = frame.astype(pd.SparseDtype(float, 0.0))
    assert len(quick(autoencoder=frozen).fit_resample(sparse_frame, y)[0]) == len(frame_more)


def test_where_classes_are_even_nothing_is_trained(table):
    X, y = table[0][-60:], table[1][-60:]
    sampler = quick()
    X_same, y_same = sampler.fit_resample(X, y)
    assert (X_same == X).all()
    assert (y_same == y).all()
    assert not np.shares_memory(X_same, X)
    assert not hasattr(sampler, "autoencoder_")


def test_sparse_and_missing_values(table):
    X, y = table
    X_more, _ = quick().fit_resample(sparse.csr_matrix(X), y)
    assert sparse.issparse(X_more)
    X = X.copy()
    X[::3, 4] = np.nan
    X[:, 5] = np.nan
    with pytest.warns(UserWarning, match="no known value in column 5"):
        X_more, _ = quick().fit_resample(X, y)
    new = X_more[len(X) :]
    assert 0 < np.isnan(new[:, 4]).mean() < 1
    assert np.isnan(new[:, 5]).all()
    assert np.isfinite(np.delete(new, [4, 5], axis=1)).all()


def skewed(n_rows=1_000, n_few=150):
    """A table of two classes whose columns repeat values, each in another way."""
    rng = np.random.default_rng(0)
    few = np.arange(n_rows) < n_few
    size = rng.normal(size=n_rows) + few
    columns = {
        "gain": np.where(rng.random(n_rows) < 0.85, 0.0, rng.lognormal(8, 1, n_rows)),
        "hours": np.where(rng.random(n_rows) < 0.6, 40.0, rng.normal(40 + size, 12)),
        "full": np.minimum(rng.normal(size=n_rows) + 0.5, 1.0),
        "code": rng.choice([0.0, 3.0, 9.0, 41.0], n_rows, p=[0.5, 0.3, 0.15, 0.05]),
        "constant of a class": np.where(few, 5.0, rng.normal(5, 1, n_rows)),
        "size": size,
    }
    return pd.DataFrame(columns), few.astype(int)


@pytest.fixture(
    scope="module",
    params=[
        AutoencoderTransformer(5, max_epochs=20, scaling="standard"),
        AutoencoderTransformer(3, max_epochs=2),
        PCA(3),
    ],
    ids=["autoencoder", "short", "pca"],
)
def resampled(request):
    """Columns with repeated values of a class, and its new rows."""
    X, y = skewed()
    X_more, _ = quick(autoencoder=request.param).fit_resample(X, y)
    return X[y == 1], X_more[len(X) :]


@pytest.mark.parametrize("column", ["gain", "hours", "full", "code", "constant of a class"])
def test_repeated_values_keep_their_share(resampled, column):
    values, new = resampled
    shares = values[column].value_counts(normalize=True)
    for value, share in shares[shares > 0.02].items():
        assert abs((new[column] == value).mean() - share) < 0.1
    assert new["size"].nunique() > 0.9 * len(new)


def test_a_class_of_few_rows_leans_on_all():
    X, y = skewed(n_few=3)
    X_more, _ = quick(autoencoder=PCA(3)).fit_resample(X, y)
    new = X_more[len(X) :]
    assert (new["gain"] == 0).mean() > 0.5
    assert new["hours"].nunique() > 3
    assert 0 < (new["constant of a class"] != 5).mean() < 0.5


def test_new_rows_look_like_real_ones_to_a_tree():
    """Otherwise it learns what is new and forgets what the class is."""
    X, y = skewed(2_000, 300)
    X_test, y_test = X[::2], y[::2]
    X, y = X[1::2], y[1::2]
    X_more, _ = quick().fit_resample(X, y)
    new, real = X_more[len(X) :], X_test[y_test == 1]
    rows = np.vstack([new[: len(real)], real])
    told = cross_val_score(
        DecisionTreeClassifier(max_depth=6, random_state=0),
        rows,
        np.arange(len(rows)) < len(real),
        cv=StratifiedKFold(4, shuffle=True, random_state=0),
    )
    assert told.mean() < 0.7


@pytest.mark.parametrize("n_few", [40, 1])
def test_sparse_rows_stay_sparse(n_few):
    rng = np.random.default_rng(0)
    X = sparse.random(200 + n_few, 300, 0.03, "csr", random_state=0, data_rvs=rng.random)
    y = np.arange(X.shape[0]) >= 200
    X_more, _ = quick().fit_resample(X, y)
    assert X_more.format == "csr"
    new, members = X_more[len(y) :], X[200:]
    assert 0.5 < new.nnz / new.shape[0] / (members.nnz / n_few) < 2
    assert (X_more[: len(y)] != X).nnz == 0


@pytest.mark.parametrize("factor", [1e-4, 1e-6])
@pytest.mark.parametrize("autoencoder", [PCA(3), None])
def test_noise_is_in_units_of_the_columns(table, autoencoder, factor):
    X, y = table
    if autoencoder is None:
        X = X[:, :4]  # of which X times 1e-4 is within [0, 1]
    X_more, _ = quick(autoencoder=autoencoder).fit_resample(X, y)
    scaled, _ = quick(autoencoder=autoencoder).fit_resample(X * factor, y)
    off = np.abs(scaled / factor - X_more) / X.std(axis=0)
    assert np.mean(off > 0.01) < 0.02


@pytest.mark.parametrize(
    "kind",
    [
        pd.Categorical([1, 2, 7] * 40),
        pd.Categorical([0.0, 0.5, 2.25] * 40),
        pd.Categorical([True, False, True] * 40),
        pd.Categorical([3, 1, 2] * 40, categories=[3, 1, 2, 99], ordered=True),
        pd.Categorical([1, None, 2] * 40),
        pd.Categorical(pd.array([1, 2, 7] * 40, "Int8")),
        pd.Categorical(np.array([1, 2.5, 7] * 40, dtype=object)),
    ],
    ids=lambda kind: str(kind.dtype)[:60],
)
@pytest.mark.parametrize("alone", [False, True])
def test_categories_that_are_numbers(kind, alone):
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"kind": kind, "beside": kind} if alone else {"kind": kind})
    if not alone:
        X["size"] = rng.normal(size=len(X))
        X["large"] = np.arange(len(X)) + 2**62  # which float64 does not hold
    X.index = X.index + 5
    autoencoder = AutoencoderTransformer(1, max_epochs=2)
    X_more, _ = quick(autoencoder=autoencoder).fit_resample(X, np.arange(len(X)) < 30)
    assert X_more.dtypes.equals(X.dtypes)
    pd.testing.assert_frame_equal(X_more[: len(X)], X.reset_index(drop=True))
    new = X_more["kind"][len(X) :]
    assert new.isna().any() == X["kind"].isna().any()
    assert set(new.dropna().unique()) == set(X["kind"].dropna().unique())


def test_only_rows_to_train_on_are_resampled(table):
    X, y = table
    seen = []

    class Spy(LogisticRegression):
        def fit(self, X, y):
            seen.append(np.bincount(y).tolist())
            return super().fit(X, y)

        def score(self, X, y):
            seen.append(len(y))
            return super().score(X, y)

    model = make_pipeline(quick(), Spy(max_iter=10_000))
    cross_val_score(model, X, y, cv=StratifiedKFold(3))
    assert seen == [[238, 238], 129] * 3


def test_several_classes_and_one_of_one_row(digits):
    X, _, y, _ = digits
    rows = np.r_[np.flatnonzero(y < 2), np.flatnonzero(y == 2)[:1], np.flatnonzero(y == 3)[:20]]
    X_more, y_more = quick().fit_resample(X[rows], y[rows])
    counts = np.bincount(y_more)
    assert (counts == counts.max()).all()
    assert X_more[y_more == 2].std(axis=0).max() > 0


def test_no_spread_repeats_rows(table):
    X, y = table
    X_more, _ = quick(spread=0.0).fit_resample(X, y)
    rows = {row.tobytes() for row in X}
    assert all(row.tobytes() in rows for row in X_more[len(X) :])


def test_it_repeats_clones_and_pickles(table):
    X, y = table
    sampler = quick(autoencoder=None).set_params(spread=0.3)
    once = sampler.fit_resample(X, y)[0]
    assert (once == clone(sampler).fit_resample(X, y)[0]).all()
    assert (once == pickle.loads(pickle.dumps(sampler)).fit_resample(X, y)[0]).all()
    sampler = quick().set_params(autoencoder__n_components=2)
    sampler.fit_resample(X, y)
    assert sampler.autoencoder_.n_components == 2


def test_errors(table):
    X, y = table
    with pytest.raises(ValueError, match="'spread' parameter of AutoencoderOversampler must be"):
        quick(spread=-1.0).fit_resample(X, y)
    with pytest.raises(ValueError, match=r"'autoencoder' parameter .* 'inverse_transform'"):
        quick(autoencoder=LogisticRegression()).fit_resample(X, y)
    with pytest.raises(ValueError, match="infinity"):
        quick().fit_resample(np.where(X > 1, np.inf, X), y)
    text = pd.DataFrame({"size": X[:, 0], "city": pd.Categorical(np.where(X[:, 1] > 18, "a", "b"))})
    with pytest.raises(ValueError, match=r"must hold numbers, but .*'city' \(category\)"):
        quick(autoencoder=PCA(1)).fit_resample(text, y)
    with pytest.raises(ValueError, match="more than 1 class"):
        quick().fit_resample(X, np.zeros(len(X), int))
    with pytest.raises(TypeError, match=r"frames or series of polars. Pass X.to_numpy\(\)"):
        quick().fit_resample(pl.DataFrame(X), y)
    with pytest.raises(TypeError, match="frames or series of polars"):
        quick().fit_resample(X, pl.Series(y))


# Tables


def orders(n_rows=300, n_few=40):
    """A table in which rows of the rare class are mostly red and large."""
    rng = np.random.default_rng(0)
    y = np.arange(n_rows) < n_few
    red = y ^ (rng.random(n_rows) < 0.1)
    X = pd.DataFrame(
        {
            "color": np.where(red, "red", rng.choice(["green", "blue"], n_rows)).astype(object),
            "size": np.where(y, 40, 10) + rng.integers(0, 5, n_rows),
            "price": np.where(rng.random(n_rows) < 0.5, 0.0, rng.random(n_rows)),
            "day": pd.date_range("2020-01-01", periods=n_rows, tz="Europe/Berlin"),
            "gift": rng.random(n_rows) < 0.5,
            "shape": pd.Categorical(rng.choice(list("ab"), n_rows), categories=["c", "b", "a"]),
        },
        index=np.arange(n_rows) + 7,
    )
    return X, y


@pytest.mark.parametrize("autoencoder", [None, AutoencoderTransformer(3, max_epochs=10)])
def test_new_rows_of_a_table_have_its_levels_and_types(autoencoder):
    X, y = orders()
    before = X.copy()
    X_more, y_more = quick(autoencoder=autoencoder).fit_resample(X, y)
    pd.testing.assert_frame_equal(X, before)
    pd.testing.assert_frame_equal(X_more[: len(X)], X.reset_index(drop=True))
    assert X_more.dtypes.equals(X.dtypes)
    assert np.bincount(y_more).tolist() == [260, 260]
    new = X_more[len(X) :]
    for name in X.columns:
        if name in ("color", "shape", "gift"):
            assert set(new[name]) <= set(X[name]), name
        else:
            assert X[name].min() <= new[name].min() <= new[name].max() <= X[name].max(), name
    assert abs((new["color"] == "red").mean() - (X["color"][y] == "red").mean()) < 0.15
    assert (new["size"] > 30).mean() > 0.95
    again, _ = quick(autoencoder=autoencoder).fit_resample(X, y)
    pd.testing.assert_frame_equal(again, X_more)


def test_missing_levels_stay_missing_and_no_spread_repeats_rows_of_a_table():
    X, y = orders()
    X.loc[X.index % 3 == 0, ["color", "price"]] = None
    X_more, _ = quick(spread=0.0).fit_resample(X, y)
    new = X_more[len(X) :]
    assert new["color"].isna().any()
    assert (new["color"].isna() == new["price"].isna()).all()
    rows = set(X[y].astype(str).itertuples(index=False, name=None))
    assert set(new.astype(str).itertuples(index=False, name=None)) <= rows


def test_tables_in_pipelines_arrays_and_frozen_autoencoders():
    X, y = orders()
    frozen = FrozenEstimator(AutoencoderTransformer(3, max_epochs=2, random_state=0).fit(X))
    assert len(quick(autoencoder=frozen).fit_resample(X, y)[0]) == 520
    array = X[["color", "size"]].to_numpy(dtype=object)
    autoencoder = AutoencoderTransformer(2, max_epochs=2, categorical_features=[0])
    X_more, _ = quick(autoencoder=autoencoder).fit_resample(array, y)
    assert X_more.shape == (520, 2)
    assert set(X_more[:, 0]) == {"red", "green", "blue"}
    codes = AutoencoderTransformer(3, max_epochs=2, random_state=0)
    model = make_pipeline(quick(), codes, LogisticRegression())
    assert cross_val_score(model, X, y, cv=StratifiedKFold(3)).min() > 0.5
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        quick().fit_resample(X, y[:-1])
