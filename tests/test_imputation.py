import os
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from aefeatures import AutoencoderImputer, AutoencoderTransformer, Denoising

QUICK = AutoencoderTransformer(max_epochs=3)

pytestmark = [
    pytest.mark.filterwarnings("ignore:n_components=. is not below:UserWarning"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


def numbers(n=60, seed=0, share=0.2):
    """Three columns of one kind of number, and a fourth of noise; gaps in them."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n)
    X = np.stack([z, 3 * z + 7, -z, rng.normal(size=n)], axis=1)
    return X, np.where(rng.random(X.shape) < share, np.nan, X)


def mixed(n=90, seed=0):
    """A frame in which each column follows from a hidden class."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(3, size=n)
    frame = pd.DataFrame(
        {
            "height": kind * 10 + rng.normal(size=n),
            "count": pd.array(kind * 100 + rng.integers(5, size=n), dtype="Int64"),
            "text": np.array(["low", "mid", "high"], dtype=object)[kind],
            "grade": pd.Categorical.from_codes(kind, ["a", "b", "c"], ordered=True),
            "flag": pd.array(kind == 2, dtype="boolean"),
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(kind * 30, unit="D"),
            "took": pd.to_timedelta(kind * 60 + rng.integers(9, size=n), unit="s"),
        }
    )
    frame["day"] = frame["day"].dt.tz_localize("Europe/Paris")
    return frame, frame.mask(rng.random(frame.shape) < 0.2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_known_numbers_stay_and_gaps_are_filled_within_the_range(dtype):
    _, X = numbers()
    X = X.astype(dtype)
    before = X.copy()
    filled = AutoencoderImputer(QUICK, random_state=0).fit_transform(X)
    np.testing.assert_array_equal(X, before)
    assert filled.dtype == dtype
    assert not np.isnan(filled).any()
    known = ~np.isnan(X)
    np.testing.assert_array_equal(filled[known], X[known])
    assert (filled >= np.nanmin(X, axis=0)).all()
    assert (filled <= np.nanmax(X, axis=0)).all()


def test_estimates_follow_from_the_other_columns_of_the_row():
    X, X_missing = numbers(200)
    new, new_missing = numbers(100, seed=1)
    imputer = AutoencoderImputer(random_state=0).fit(X_missing)
    gaps = np.isnan(new_missing[:, :3]) & ~np.isnan(new_missing[:, :3]).all(axis=1, keepdims=True)
    error = (imputer.transform(new_missing)[:, :3] - new[:, :3])[gaps] / X[:, :3].std(axis=0).max()
    assert np.sqrt((error**2).mean()) < 0.2


def test_fills_new_rows_after_a_fit_without_gaps():
    X, _ = numbers(200)
    new, new_missing = numbers(100, seed=1)
    imputer = AutoencoderImputer(random_state=0).fit(X)
    np.testing.assert_array_equal(imputer.transform(X), X)
    gaps = np.isnan(new_missing)
    gaps[:, 3] = False
    gaps[np.isnan(new_missing[:, :3]).all(axis=1)] = False
    error = (imputer.transform(new_missing) - new)[gaps] / X.std(axis=0).max()
    assert np.sqrt((error**2).mean()) < 0.2


def test_categories_follow_from_the_other_columns_of_the_row():
    truth, X = mixed(300)
    filled = AutoencoderImputer(random_state=0).fit(X[:200]).transform(X[200:])
    for name in ("text", "grade", "flag"):
        gaps = X[name][200:].isna()
        right = filled[name][gaps] == truth[name][200:][gaps]
        assert right.mean() > 0.8


def test_tables_keep_their_columns_types_and_known_entries():
    _, X = mixed()
    before = X.copy()
    filled = AutoencoderImputer(QUICK, random_state=0).fit_transform(X)
    pd.testing.assert_frame_equal(X, before)
    assert filled.dtypes.equals(X.dtypes)
    assert filled.index.equals(X.index)
    assert not filled.isna().to_numpy().any()
    pd.testing.assert_frame_equal(filled.where(X.notna()), X)
    assert filled["day"].between(X["day"].min(), X["day"].max()).all()
    assert set(filled["text"]) <= {"low", "mid", "high"}


def test_tables_of_polars():
    frame = pl.DataFrame(
        {
            "a": [1.5, None, 2.5, float("nan")] * 10,
            "n": [1, 2, None, 4] * 10,
            "text": ["x", "y", None, "y"] * 10,
            "kind": pl.Series(["x", None, "z", "z"] * 10, dtype=pl.Enum(["x", "y", "z"])),
            "day": pl.Series([0, 1, None, 3] * 10).cast(pl.Date),
        }
    )
    filled = AutoencoderImputer(QUICK, random_state=0, add_indicator=True).fit_transform(frame)
    assert filled.columns[:5] == frame.columns
    assert filled.dtypes[:5] == frame.dtypes
    assert filled.columns[5:] == [f"missingindicator_{name}" for name in frame.columns]
    assert filled["missingindicator_a"].to_list() == [False, True, False, True] * 10
    assert sum(filled.null_count().row(0)) == 0
    assert not filled["a"].is_nan().any()
    for name in ("n", "text", "kind", "day"):
        known = frame[name].is_not_null()
        assert filled[name].filter(known).equals(frame[name].filter(known))


def test_a_level_that_fit_has_not_seen_is_kept():
    _, X = mixed()
    imputer = AutoencoderImputer(QUICK, random_state=0).fit(X)
    new = X[:3].reset_index(drop=True)
    new["text"] = ["other", None, "low"]
    new["grade"] = pd.Categorical(["a", None, "a"], categories=["a"], ordered=True)
    filled = imputer.transform(new)
    assert filled["text"][0] == "other"
    assert filled["text"][2] == "low"
    assert not filled.isna().to_numpy().any()


def test_columns_of_integers_are_rounded_and_others_are_not():
    X, _ = numbers()
    X = np.round(10 * X)
    gaps = np.random.default_rng(0).random(X.shape) < 0.2
    marked = np.where(gaps, -999, X).astype(np.int32)
    filled = AutoencoderImputer(QUICK, missing_values=-999, random_state=0).fit_transform(marked)
    assert filled.dtype == np.int32
    assert not (filled == -999).any()
    np.testing.assert_array_equal(filled[~gaps], marked[~gaps])
    floats = AutoencoderImputer(QUICK, random_state=0).fit_transform(np.where(gaps, np.nan, X))
    assert (floats[gaps] != np.round(floats[gaps])).any()


def test_large_integers_stay_exact():
    X = np.arange(40).reshape(10, 4) + 2**60 + 1
    X[::3, 1] = -1
    filled = AutoencoderImputer(QUICK, missing_values=-1, random_state=0).fit_transform(X)
    np.testing.assert_array_equal(filled[X != -1], X[X != -1])
    assert (filled > 2**60 - 2**10).all()


@pytest.mark.parametrize("mark", [-1, 0.5, np.nan, None, pd.NA])
def test_marks_of_missing_numbers(mark):
    _, X = numbers()
    plain = mark is None or mark is pd.NA or np.isnan(mark)
    marked = X if plain else np.where(np.isnan(X), mark, X)
    expected = AutoencoderImputer(QUICK, random_state=0).fit_transform(X)
    imputer = AutoencoderImputer(QUICK, missing_values=mark, random_state=0)
    np.testing.assert_array_equal(imputer.fit_transform(marked), expected)


def test_marks_of_missing_text():
    _, X = mixed()
    X["text"] = X["text"].astype(object)
    marked = X.assign(text=X["text"].fillna("?"))
    expected = AutoencoderImputer(QUICK, random_state=0).fit_transform(X)
    imputer = AutoencoderImputer(QUICK, missing_values="?", random_state=0)
    pd.testing.assert_frame_equal(imputer.fit_transform(marked), expected, check_dtype=False)
    in_polars = pl.DataFrame({"text": marked["text"].to_list(), "height": marked["height"]})
    filled = imputer.fit_transform(in_polars.with_columns(pl.col("height").fill_nan(0.0)))
    assert "?" not in filled["text"].to_list()


def test_indicators_are_of_the_columns_with_gaps_in_fit():
    X, _ = numbers()
    X[::3, 1] = np.nan
    imputer = AutoencoderImputer(QUICK, add_indicator=True, random_state=0).fit(X)
    X[::2, 0] = np.nan
    filled = imputer.transform(X)
    np.testing.assert_array_equal(filled[:, 4], np.isnan(X[:, 1]))
    names = ["x0", "x1", "x2", "x3", "missingindicator_x1"]
    assert imputer.get_feature_names_out().tolist() == names
    _, table = mixed()
    imputer.fit(table)
    assert imputer.transform(table).columns.tolist() == imputer.get_feature_names_out().tolist()
    pd.testing.assert_series_equal(
        imputer.transform(table)["missingindicator_text"], table["text"].isna(), check_names=False
    )


@pytest.mark.parametrize("keep", [False, True])
def test_columns_without_a_known_value(keep):
    X, _ = numbers()
    X[:, 2] = np.nan
    imputer = AutoencoderImputer(QUICK, keep_empty_features=keep, random_state=0)
    with pytest.warns(UserWarning, match="no known value in column 2"):
        filled = imputer.fit_transform(X)
    assert filled.shape == (60, 3 + keep)
    assert not np.isnan(filled).any()
    names = ["x0", "x1", *["x2"] * keep, "x3"]
    assert imputer.get_feature_names_out().tolist() == names
    frame = mixed()[1].assign(height=np.nan)
    with pytest.warns(UserWarning, match="no known value in column 'height'"):
        filled = imputer.fit_transform(frame)
    assert ("height" in filled) == keep
    assert not filled.isna().to_numpy().any()


def test_set_output():
    X = load_iris(as_frame=True).data.mask(np.random.default_rng(0).random((150, 4)) < 0.1)
    imputer = AutoencoderImputer(QUICK, random_state=0)
    array = imputer.fit_transform(X)
    frame = imputer.set_output(transform="pandas").fit_transform(X)
    assert isinstance(array, np.ndarray)
    np.testing.assert_array_equal(frame.to_numpy(), array)
    assert frame.columns.tolist() == X.columns.tolist() == imputer.feature_names_in_.tolist()


def test_the_same_seed_gives_the_same_estimates_also_from_pickles_and_clones():
    for X in (numbers()[1], mixed()[1]):
        imputer = AutoencoderImputer(QUICK, random_state=0).fit(X)
        expected = pd.DataFrame(imputer.transform(X))
        for other in (pickle.loads(pickle.dumps(imputer)), clone(imputer).fit(X)):
            pd.testing.assert_frame_equal(pd.DataFrame(other.transform(X)), expected)


def test_new_rows_do_not_depend_on_each_other():
    _, X = numbers()
    imputer = AutoencoderImputer(QUICK, random_state=0).fit(X)
    one_by_one = np.vstack([imputer.transform(X[i : i + 1]) for i in range(len(X))])
    np.testing.assert_allclose(one_by_one, imputer.transform(X), rtol=1e-6, atol=1e-9)


def test_rows_and_columns_that_are_empty_or_single():
    _, X = numbers()
    X[0] = np.nan
    filled = AutoencoderImputer(QUICK, random_state=0).fit_transform(X)
    assert not np.isnan(filled).any()
    one = AutoencoderImputer(QUICK, random_state=0).fit(X[:, :1]).transform([[np.nan]])
    assert np.nanmin(X[:, 0]) <= one[0, 0] <= np.nanmax(X[:, 0])
    row = AutoencoderImputer(QUICK, random_state=0).fit(numbers()[0][:1])
    assert np.isfinite(row.transform(X)).all()


def test_wide_rows():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 5)) @ rng.normal(size=(5, 120))
    X_missing = np.where(rng.random(X.shape) < 0.2, np.nan, X)
    autoencoder = AutoencoderTransformer(20, hidden_layer_sizes=(64,), max_epochs=20)
    filled = AutoencoderImputer(autoencoder, random_state=0).fit_transform(X_missing)
    gaps = np.isnan(X_missing)
    assert np.sqrt(((filled - X)[gaps] ** 2).mean()) < 0.5 * X.std()


def test_in_a_pipeline_with_folds():
    X, y = load_breast_cancer(return_X_y=True)
    X = np.where(np.random.default_rng(0).random(X.shape) < 0.2, np.nan, X)
    pipeline = make_pipeline(
        AutoencoderImputer(QUICK, random_state=0), StandardScaler(), LogisticRegression()
    )
    assert cross_val_score(pipeline, X, y, cv=3).mean() > 0.9


def test_the_autoencoder_is_cloned_and_keeps_its_own_regularizers():
    _, X = numbers()
    autoencoder = clone(QUICK).set_params(regularizer=Denoising("gaussian"), random_state=1)
    imputer = AutoencoderImputer(autoencoder, random_state=0).fit(X)
    assert not hasattr(autoencoder, "n_iter_")
    assert isinstance(imputer.autoencoder_.regularizer[-1], Denoising)
    assert imputer.autoencoder_.random_state == 1
    assert imputer.autoencoder_.n_iter_ == 3


def test_bad_input():
    _, X = numbers()
    early = clone(QUICK).set_params(early_stopping=True)
    with pytest.raises(ValueError, match="autoencoder must not have early_stopping=True"):
        AutoencoderImputer(early).fit(X)
    with pytest.raises(ValueError, match="X has no known value"):
        AutoencoderImputer(QUICK).fit(np.full((5, 2), np.nan))
    with pytest.raises(ValueError, match=r"X has 3 features, but .* is expecting 4 features"):
        AutoencoderImputer(QUICK).fit(X).transform(X[:, :3])
    with pytest.raises(ValueError, match="'autoencoder' parameter of AutoencoderImputer must be"):
        AutoencoderImputer(LogisticRegression()).fit(X)


def test_a_failed_fit_leaves_the_imputer_as_it_was():
    _, X = numbers()
    imputer = AutoencoderImputer(QUICK, random_state=0).fit(X)
    expected = imputer.transform(X)
    with pytest.raises(ValueError, match="X has no known value"):
        imputer.fit(np.full((5, 2), np.nan))
    np.testing.assert_array_equal(imputer.transform(X), expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vehicle", "glass", "texture"])
def test_better_than_neighbours(name):
    from sklearn.impute import KNNImputer

    with np.load(Path(os.environ["AEFEATURES_DATA"], "tables", f"{name}.npz")) as data:
        X = StandardScaler().fit_transform(data["X"])
    rng = np.random.default_rng(0)
    X = X[rng.permutation(len(X))[:2_000]]
    gaps = rng.random(X.shape) < 0.2
    train, test = np.array_split(np.where(gaps, np.nan, X), 2)
    truth, hidden = X[len(train) :], gaps[len(train) :]
    errors = [
        np.sqrt(((imputer.fit(train).transform(test) - truth)[hidden] ** 2).mean())
        for imputer in (AutoencoderImputer(random_state=0), KNNImputer())
    ]
    assert errors[0] < 0.9 * errors[1]


def test_frames_without_rows_yet_are_refused():
    lazy = pl.DataFrame({"a": [1.0, None, 3.0]}).lazy()
    with pytest.raises(TypeError, match=r"polars LazyFrame, .* Pass X.collect\(\)"):
        AutoencoderImputer().fit(lazy)
