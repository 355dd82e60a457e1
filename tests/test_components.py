import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from matplotlib.figure import Figure
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.datasets import load_diabetes, load_wine
from sklearn.decomposition import PCA
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    ShuffleSplit,
    StratifiedKFold,
)
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVC

from aefeatures import AutoencoderTransformer, ComponentsDisplay, RowView, Supervised

SCORES = ("scores", "pca_scores", "predictor_scores", "pca_predictor_scores")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def wine():
    """X and y, sorted by class, read-only."""
    X, y = load_wine(return_X_y=True)
    X.setflags(write=False)
    y.setflags(write=False)
    return X, y


def small(**params):
    given = {
        "hidden_layer_sizes": (32,),
        "learning_rate": 0.03,
        "batch_size": 16,
        "max_epochs": 8,
        "init": "random",
        "regularizer": None,
        "random_state": 0,
    }
    return AutoencoderTransformer(**{**given, **params})


def show(estimator, X, y=None, **kwargs):
    """Draw with few trainings."""
    given = {"n_components": [1, 2, 5], "cv": 2, "random_state": 0}
    return ComponentsDisplay.from_estimator(estimator, X, y, **{**given, **kwargs})


@pytest.fixture(scope="module")
def display_of_wine(wine):
    return show(small(), *wine)


def assert_same(display, other):
    for name in SCORES:
        ours, theirs = getattr(display, name), getattr(other, name)
        assert (ours is None) == (theirs is None)
        if ours is not None:
            # Means of columns differ by rounding where these lie in another order in memory.
            np.testing.assert_allclose(ours, theirs, rtol=1e-12, err_msg=name)


def legend_texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


# Scores


def test_scores_are_those_of_estimators_fitted_by_hand(wine):
    X, y = wine
    cv = StratifiedKFold(2, shuffle=True, random_state=3)
    display = show(small(), X, y, cv=cv, n_components=[1, 4])
    assert display.scores.shape == display.pca_predictor_scores.shape == (2, 2)
    assert (display.score_name, display.predictor_name) == ("accuracy", "KNeighborsClassifier")
    for j, (train, test) in enumerate(cv.split(X, y)):
        scaler = StandardScaler().fit(X[train])
        Z, Z_test = scaler.transform(X[train]), scaler.transform(X[test])
        total = np.square(Z_test).sum()
        for i, n in enumerate([1, 4]):
            transformer = small(n_components=n).fit(X[train])
            back = scaler.transform(transformer.reconstruct(X[test]))
            r2 = 1 - np.square(Z_test - back).sum() / total
            assert display.scores[i, j] == pytest.approx(r2, rel=1e-9)
            knn = KNeighborsClassifier().fit(transformer.transform(X[train]), y[train])
            accuracy = knn.score(transformer.transform(X[test]), y[test])
            assert display.predictor_scores[i, j] == accuracy
            pca = PCA(n).fit(Z)
            back = pca.inverse_transform(pca.transform(Z_test))
            r2 = 1 - np.square(Z_test - back).sum() / total
            assert display.pca_scores[i, j] == pytest.approx(r2, rel=1e-9)
            knn.fit(pca.transform(Z), y[train])
            accuracy = knn.score(pca.transform(Z_test), y[test])
            assert display.pca_predictor_scores[i, j] == accuracy


def test_units_do_not_matter_where_columns_are_standardised(wine):
    X, _ = wine
    display = show(small(), X)
    scaled = show(small(), X * 10.0 ** np.arange(-6, 7))
    np.testing.assert_allclose(scaled.scores, display.scores, rtol=1e-3)
    np.testing.assert_allclose(scaled.pca_scores, display.pca_scores, rtol=1e-6)


def test_pixels_count_in_one_unit(digits):
    X = (digits[0][:300] * 15).astype(np.uint8)
    cv = ShuffleSplit(1, test_size=0.5, random_state=0)
    display = show(small(), X, cv=cv, n_components=[5])
    ((train, test),) = cv.split(X)
    train.sort()
    test.sort()
    back = small(n_components=5).fit(X[train]).reconstruct(X[test])
    # Pixels that are always black in the training rows are left out.
    varies = X[train].std(axis=0) > 0
    error = np.square(X[test] - back)[:, varies].sum()
    r2 = 1 - error / np.square(X[test] - X[train].mean(axis=0))[:, varies].sum()
    assert varies.sum() < 64
    assert display.scores[0, 0] == pytest.approx(r2, rel=1e-5)
    pca = PCA(5).fit(X[train])
    back = pca.inverse_transform(pca.transform(X[test]))
    r2 = r2_score(X[test][:, varies], back[:, varies], multioutput="variance_weighted")
    assert display.pca_scores[0, 0] == pytest.approx(r2, abs=0.02)


def test_missing_entries_are_left_out(wine):
    X, _ = wine
    holes = np.random.default_rng(0).random(X.shape) < 0.1
    with_holes = np.where(holes, np.nan, X)
    cv = KFold(2, shuffle=True, random_state=0)
    display = show(small(), with_holes, cv=cv, n_components=[3])
    for j, (train, test) in enumerate(cv.split(X)):
        rows = with_holes[test]
        center, spread = (f(with_holes[train], axis=0) for f in (np.nanmean, np.nanstd))
        back = small(n_components=3).fit(with_holes[train]).reconstruct(rows)
        error = np.nansum(np.square((rows - back) / spread))
        r2 = 1 - error / np.nansum(np.square((rows - center) / spread))
        assert display.scores[0, j] == pytest.approx(r2, rel=1e-9)
    assert (display.pca_scores > 0.3).all()


def test_columns_that_are_constant_or_never_known_are_left_out(wine):
    X, y = wine
    display = show(small(scaling="standard"), X)
    constant = np.column_stack([X, np.full(len(X), 7.0)])
    assert show(small(scaling="standard"), constant).pca_scores == pytest.approx(display.pca_scores)
    unknown = np.column_stack([constant, np.full(len(X), np.nan)])
    with pytest.warns(UserWarning, match="no known value"):
        display = show(small(), unknown, y)
    assert all(np.isfinite(getattr(display, name)).all() for name in SCORES)
    assert display.scores.min() > -0.5


def test_categories_count_as_one_column_each():
    rng = np.random.default_rng(0)
    group = rng.integers(0, 3, 120)
    X = pd.DataFrame(
        {
            "number": group + rng.normal(0, 0.1, 120),
            "letter": np.array(["a", "b", "c"])[group],
            "same": "x",
            "gaps": np.where(rng.random(120) < 0.2, None, np.array(["u", "v", "w"])[group]),
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(10 * group, "D"),
        }
    )
    train, test = np.arange(80), np.arange(80, 120)
    display = show(small(max_epochs=40), X, group, cv=[(train, test)], n_components=[1, 2])
    # Of 4 columns that vary, 120 entries each have a sum of squares of about 1.
    fitted = small(max_epochs=40, n_components=2).fit(X[:80])
    probabilities = fitted.reconstruct(X[80:], probabilities=True)
    squares, total = 0.0, 0.0
    for name in ("letter", "gaps"):
        shares = X[name][:80].value_counts(normalize=True)
        unit = 1 - (shares**2).sum()
        known = X[name][80:].notna().to_numpy()
        for level, share in shares.items():
            is_level = (X[name][80:] == level).to_numpy().astype(float)[known]
            squares += np.square(is_level - probabilities[f"{name}_{level}"][known]).sum() / unit
            total += np.square(is_level - share).sum() / unit
    for name in ("number", "day"):
        column = X[name].astype("int64") if name == "day" else X[name]
        rebuilt = probabilities[name].astype("int64") if name == "day" else probabilities[name]
        scale = column[:80].std(ddof=0)
        squares += np.square((column[80:] - rebuilt) / scale).sum()
        total += np.square((column[80:] - column[:80].mean()) / scale).sum()
    assert display.scores[1, 0] == pytest.approx(1 - squares / total, abs=0.01)
    assert display.scores[1, 0] > 0.9
    assert display.pca_scores[1, 0] > 0.9
    assert display.predictor_scores[1, 0] > 0.9


def test_folds_without_anything_to_score_on_are_refused():
    X = np.eye(4)[:, :1].repeat(3, axis=1)  # the test rows know no value
    X[2:] = np.nan
    with pytest.raises(ValueError, match="R2 needs test rows with known values in columns"):
        show(small(), X, n_components=[1], cv=[([0, 1], [2, 3])])


# Ways of giving the data


@pytest.mark.parametrize(
    "convert",
    [
        np.ndarray.tolist,
        sparse.csr_array,
        RowView,
        pd.DataFrame,
        lambda X: pl.DataFrame(X, [f"c{i}" for i in range(X.shape[1])]),
        lambda X: torch.tensor(X),
    ],
    ids=["list", "sparse", "view", "pandas", "polars", "tensor"],
)
def test_kinds_of_x_give_the_same(wine, display_of_wine, convert):
    assert_same(show(small(), convert(wine[0]), wine[1]), display_of_wine)


@pytest.mark.parametrize(
    "convert",
    [
        np.ndarray.tolist,
        pd.Series,
        lambda y: np.array(["ann", "bob", "cas"])[y],
        lambda y: pd.Categorical.from_codes(y, ["ann", "bob", "cas"]),
        lambda y: pl.Series(y).cast(pl.Float64),
    ],
    ids=["list", "series", "texts", "categories", "floats"],
)
def test_kinds_of_y_give_the_same(wine, display_of_wine, convert):
    assert_same(show(small(), wine[0], convert(wine[1])), display_of_wine)


def test_nothing_that_was_given_changes(wine):
    X, y = wine  # read-only
    frame, series = pd.DataFrame(X), pd.Series(y)
    frame_before, series_before = frame.copy(), series.copy()
    last = LogisticRegression()
    pipeline = make_pipeline(StandardScaler(), small(n_components=7), last).fit(X, y)
    params = {name: repr(value) for name, value in pipeline.get_params().items()}
    codes = pipeline[:-1].transform(X)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    show(pipeline, frame, series, random_state=None)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    pd.testing.assert_frame_equal(frame, frame_before)
    pd.testing.assert_series_equal(series, series_before)
    assert {name: repr(value) for name, value in pipeline.get_params().items()} == params
    np.testing.assert_array_equal(pipeline[:-1].transform(X), codes)
    unfitted = small()
    show(unfitted, X, y)
    assert not hasattr(unfitted, "n_features_in_")


# Steps


class Wider(TransformerMixin, BaseEstimator):
    """Adds the columns' squares; counts its fits."""

    n_fits = 0

    def fit(self, X, y=None):
        Wider.n_fits += 1
        return self

    def transform(self, X):
        return np.hstack([X, X**2])


def test_steps_in_front_are_fitted_once_a_fold_and_set_the_columns(wine):
    X, _ = wine
    Wider.n_fits = 0
    estimator = Pipeline([("a", make_pipeline(Wider(), StandardScaler())), ("b", small())])
    display = show(estimator, X[:, :2], n_components=None)
    assert display.n_components.tolist() == [1, 2, 3]  # below 4 columns, not below 2
    assert Wider.n_fits == 2
    # On training rows alone: the ends of the range are those of all rows otherwise.
    seen = show(make_pipeline(MinMaxScaler(), small(scaling=None)), X)
    whole = show(small(scaling=None), MinMaxScaler().fit_transform(X))
    assert not np.array_equal(seen.pca_scores, whole.pca_scores)


def test_steps_in_front_get_the_labels_of_the_training_rows(wine):
    X, y = wine
    noise = np.random.default_rng(0).normal(size=(len(y), 40))
    wide = np.hstack([noise, X])
    estimator = make_pipeline(SelectKBest(k=5), small())
    display = show(estimator, wide, y, n_components=[3])
    assert display.pca_predictor_scores.min() > 0.8  # from five columns of noise: a third
    with pytest.raises(ValueError, match="requires y to be passed"):
        show(estimator, wide)


@pytest.mark.parametrize(
    ("last", "name", "score"),
    [
        (LogisticRegression(), "LogisticRegression", "accuracy"),
        (Ridge(), "Ridge", "R2"),
    ],
)
def test_last_step_predicts(wine, last, name, score):
    X, y = wine
    cv = KFold(2, shuffle=True, random_state=0)
    pipeline = make_pipeline(small(), StandardScaler(), last)
    display = show(pipeline, X, y, cv=cv)
    assert (display.predictor_name, display.score_name) == (name, score)
    for j, (train, test) in enumerate(cv.split(X)):
        by_hand = clone(pipeline).set_params(autoencodertransformer__n_components=5)
        expected = by_hand.fit(X[train], y[train]).score(X[test], y[test])
        assert display.predictor_scores[2, j] == pytest.approx(expected)
    assert show(pipeline, X, cv=cv).predictor_scores is None


def test_steps_behind_count_only_with_a_predictor(wine, display_of_wine):
    assert_same(show(make_pipeline(small(), StandardScaler()), *wine), display_of_wine)
    given = show(make_pipeline(small(), SVC()), *wine, predictor=KNeighborsClassifier())
    assert_same(given, display_of_wine)


def test_search_shows_its_best_estimator(wine, display_of_wine):
    X, y = wine
    search = GridSearchCV(small(), {"max_epochs": [1, 8]}, cv=2).fit(X)
    assert search.best_params_ == {"max_epochs": 8}
    assert_same(show(search, X, y), display_of_wine)


@pytest.mark.parametrize("estimator", [PCA(2), make_pipeline(StandardScaler(), SVC())])
def test_estimators_without_an_autoencoder_are_refused(wine, estimator):
    with pytest.raises(TypeError, match="must be an AutoencoderTransformer or a Pipeline"):
        show(estimator, *wine)


# What y is


def test_numbers_are_predicted_by_regression():
    X, y = load_diabetes(return_X_y=True)  # whole numbers, of 214 kinds
    cv = KFold(2, shuffle=True, random_state=0)
    display = show(small(), X, y, cv=cv)
    assert (display.score_name, display.predictor_name) == ("R2", "KNeighborsRegressor")
    train, test = next(iter(cv.split(X)))
    transformer = small(n_components=2).fit(X[train])
    knn = KNeighborsRegressor().fit(transformer.transform(X[train]), y[train])
    expected = knn.score(transformer.transform(X[test]), y[test])
    assert display.predictor_scores[1, 0] == pytest.approx(expected)
    for days in (y.astype("datetime64[D]"), y.astype("timedelta64[D]").astype(object)):
        of_days = show(small(), X, days, cv=cv)
        np.testing.assert_allclose(of_days.predictor_scores, display.predictor_scores, rtol=1e-9)
    classes = show(small(), X[:100], y[:100] > 150, predictor=LogisticRegression())
    assert classes.score_name == "accuracy"


def test_score_may_be_another(wine):
    X, y = wine
    display = show(small(), X, y, predictor=Ridge(), scoring="neg_mean_absolute_error")
    assert (display.predictor_scores < 0).all()
    label = display.axes_[1].get_ylabel()
    assert label == "held-out neg mean absolute error"
    display = show(small(), X, y, scoring=lambda estimator, X, y: len(y))
    np.testing.assert_array_equal(display.predictor_scores, 89)
    assert display.score_name == "score"


@pytest.mark.parametrize("mark", [-1, None, np.nan])
def test_rows_without_a_label_help_to_train_alone(wine, mark):
    X, y = wine
    hidden = np.arange(len(y)) % 3 == 0
    some = y.astype(object)
    some[hidden] = mark
    cv = KFold(2, shuffle=True, random_state=0)
    display = show(small(), X, some, cv=cv)
    np.testing.assert_array_equal(display.scores, show(small(), X, cv=cv).scores)
    train, test = next(iter(cv.split(X)))
    transformer = small(n_components=2).fit(X[train])
    train, test = train[~hidden[train]], test[~hidden[test]]
    knn = KNeighborsClassifier().fit(transformer.transform(X[train]), y[train])
    assert display.predictor_scores[1, 0] == knn.score(transformer.transform(X[test]), y[test])


def test_autoencoders_that_learn_labels_get_those_of_the_training_rows(wine):
    X, y = wine
    cv = StratifiedKFold(2, shuffle=True, random_state=0)
    estimator = small(regularizer=Supervised(weight=5.0), max_epochs=60)
    display = show(estimator, X, y, cv=cv, n_components=[1])
    train, test = next(iter(cv.split(X, y)))
    transformer = clone(estimator).set_params(n_components=1).fit(X[train], y[train])
    knn = KNeighborsClassifier().fit(transformer.transform(X[train]), y[train])
    assert display.predictor_scores[0, 0] == knn.score(transformer.transform(X[test]), y[test])
    shuffled = show(estimator, X, np.roll(y, 60), cv=cv, n_components=[1])
    assert not np.array_equal(shuffled.scores, display.scores)
    with pytest.raises(ValueError, match="requires y to be passed"):
        show(estimator, X, cv=cv)


# Folds, sizes and seeds


def test_folds_are_shuffled_and_keep_classes_together(wine, display_of_wine):
    X, y = wine
    # In order, half of the rows would miss a class that the other half has.
    in_order = show(small(), X, y, cv=KFold(2))
    assert display_of_wine.predictor_scores.min() > in_order.predictor_scores.max()
    assert show(small(), X).scores[-1].mean() > in_order.scores[-1].mean()
    groups = np.arange(len(X)) // 10
    splits = list(GroupKFold(3).split(X, y, groups))
    assert show(small(), X, y, cv=splits).scores.shape == (3, 3)
    masks = [(np.isin(np.arange(len(X)), train), test[::-1]) for train, test in splits]
    assert_same(show(small(), X, y, cv=masks), show(small(), X, y, cv=splits))


def test_default_sizes_are_below_the_number_of_columns(wine, digits):
    X, _ = wine
    once = ShuffleSplit(1, random_state=0)
    for n_features, expected in [(1, [1]), (2, [1]), (13, [1, 2, 3, 5, 8, 12])]:
        display = show(small(), X[:, :n_features], n_components=None, cv=once)
        assert display.n_components.tolist() == expected
    display = show(small(), digits[0][:100], n_components=None, cv=once)
    assert display.n_components.tolist() == [1, 2, 3, 5, 8, 12, 16, 24, 32]


def test_sizes_are_drawn_in_order_and_may_exceed_what_pca_has(wine):
    X, _ = wine
    with pytest.warns(UserWarning, match="not below the number of columns"):
        display = show(small(), X, n_components=[20, 2, 2])
    assert display.n_components.tolist() == [2, 20]
    np.testing.assert_allclose(display.pca_scores[1], 1)


def test_random_state_settles_everything(wine):
    X, y = wine
    unset = small(random_state=None)
    display = show(unset, X, y)
    assert_same(display, show(unset, X, y))
    assert_same(display, show(unset, X, y, random_state=np.random.RandomState(0)))
    other = show(unset, X, y, random_state=1)
    assert not np.array_equal(other.pca_scores, display.pca_scores)  # other folds
    cv = KFold(2)
    a, b = (show(unset, X, cv=cv, random_state=seed).scores for seed in (0, 1))
    assert not np.array_equal(a, b)
    a, b = (show(small(), X, cv=cv, random_state=seed).scores for seed in (0, 1))
    np.testing.assert_array_equal(a, b)  # the autoencoder's own counts


def test_folds_share_out_the_few_labelled_rows(wine):
    X, y = wine
    some = np.full(len(y), -1)
    for label in range(3):
        some[np.flatnonzero(y == label)[[0, 1]]] = label
    classes = []
    show(
        small(),
        X,
        some,
        n_components=[2],
        predictor=KNeighborsClassifier(1),
        scoring=lambda knn, Z, y: classes.append((knn.classes_.tolist(), sorted(y))) or 0.0,
        random_state=3,
    )
    assert classes == [([0, 1, 2], [0, 1, 2])] * 4


@pytest.mark.slow
def test_trainings_side_by_side_give_the_same(wine, display_of_wine):
    assert_same(show(small(), *wine, n_jobs=2), display_of_wine)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n_components": [0, 2]}, r"whole numbers from 1 on, got \[0, 2\]"),
        ({"n_components": []}, r"whole numbers from 1 on, got \[\]"),
        ({"n_components": [1.5]}, r"whole numbers from 1 on, got \[1.5\]"),
        ({"n_components": [True]}, r"whole numbers from 1 on, got \[True\]"),
        ({"y": [0, 1]}, r"inconsistent numbers of samples: \[178, 2\]"),
        ({"y": None, "predictor": SVC()}, "need a y to predict, got y=None"),
        ({"y": None, "scoring": "accuracy"}, "need a y to predict, got y=None"),
        ({"cv": 1}, "n_splits=2 or more, got n_splits=1"),
        ({"cv": []}, r"cv gives no split: \[\]"),
    ],
)
def test_bad_input_is_refused(wine, kwargs, message):
    X, y = wine
    with pytest.raises(ValueError, match=message):
        show(small(), X, **{"y": y, **kwargs})


# What is chosen


@pytest.mark.parametrize(
    ("sizes", "means", "knee"),
    [
        ([1, 2, 3, 5, 8, 16], [0.2, 0.5, 0.8, 0.84, 0.88, 0.9], 3),
        ([1, 2, 3, 4], [0.2, 0.9, 0.92, 0.91], 2),
        ([1, 2, 3, 4], [0.1, 0.2, 0.3, 0.4], 1),  # a line has none
        ([2, 4, 8], [0.9, 0.5, 0.1], 2),
        ([2, 4], [0.9, 0.9], 2),
        ([7], [0.5], 7),
        ([1, 2, 3, 5, 8, 16], [-3, 0.5, 0.8, 0.84, 0.88, 0.9], 3),
    ],
)
def test_knee(sizes, means, knee):
    display = ComponentsDisplay(sizes, np.c_[means]).plot()
    assert display.knee_ == knee
    assert display.n_components_ is None
    codes = "1 code" if knee == 1 else f"{knee} codes"
    assert legend_texts(display.ax_) == ["autoencoder", f"knee: {codes}"]


def test_one_standard_error_rule():
    scores = np.array([[0.5, 0.7], [0.74, 0.78], [0.7, 0.9], [0.7, 0.88]])
    r2 = np.array([[0.1], [0.2], [0.3], [0.4]]).repeat(2, axis=1)
    display = ComponentsDisplay([1, 2, 4, 8], r2, predictor_scores=scores).plot()
    assert display.n_components_ == 2  # 0.76, where 0.8 is the best and 0.1 its error
    assert legend_texts(display.axes_[1]) == ["one-SE rule: 2 codes"]
    single = ComponentsDisplay([1, 2, 4, 8], r2[:, :1], predictor_scores=scores[:, 1:]).plot()
    assert single.n_components_ == 4
    assert legend_texts(single.axes_[1]) == ["best: 4 codes"]


# What is drawn


def test_contract_of_displays(wine):
    display = show(small(), *wine)
    assert display.axes_.shape == (2,)
    assert display.ax_ is display.axes_[0]
    assert all(ax.figure is display.figure_ for ax in display.axes_)
    first = display.figure_
    assert display.plot() is display
    assert display.figure_ is not first
    display.figure_.canvas.draw()
    for ax, ours, theirs in [
        (display.axes_[0], display.scores, display.pca_scores),
        (display.axes_[1], display.predictor_scores, display.pca_predictor_scores),
    ]:
        for line, scores in zip(ax.lines, (ours, theirs), strict=False):
            np.testing.assert_array_equal(line.get_xdata(), [1, 2, 5])
            np.testing.assert_array_equal(line.get_ydata(), scores.mean(axis=1))
        assert ax.get_xlabel() == "number of codes"
    assert [ax.get_ylabel() for ax in display.axes_] == ["held-out R2", "held-out accuracy"]
    titles = [ax.get_title(loc="left") for ax in display.axes_]
    assert titles == ["reconstruction", "KNeighborsClassifier"]
    knee = display.axes_[0].lines[-1]
    assert knee.get_xdata() == [display.knee_]


def test_bands_are_one_standard_error():
    scores = np.array([[0.2, 0.4], [0.5, 0.5]])
    display = ComponentsDisplay([1, 2], scores).plot()
    (band,) = display.ax_.collections
    low, high = band.get_paths()[0].get_extents().intervaly
    assert (low, high) == pytest.approx((0.2, 0.5))
    assert not ComponentsDisplay([1, 2], scores[:, :1]).plot().ax_.collections


@pytest.mark.parametrize("size", [(9, 3.4), (6, 2.4)])
def test_axes_that_are_given_are_drawn_in(display_of_wine, size):
    display = display_of_wine
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, 2)
    display.plot(ax=axes)
    assert list(display.axes_) == list(axes)
    figure.canvas.draw()
    for ax in axes:
        box = ax.get_tightbbox()
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        legend = ax.get_legend().get_window_extent()
        assert ax.bbox.x0 <= legend.x0 < legend.x1 <= ax.bbox.x1
    # Both in the place of one.
    figure = Figure(figsize=(12, 3))
    left, right = figure.subplots(1, 2)
    display.plot(ax=right)
    figure.canvas.draw()
    assert display.figure_ is figure
    assert not right.axison
    assert all(ax.bbox.x0 > left.bbox.x1 for ax in display.axes_)
    one = Figure().add_axes((0.1, 0.1, 0.8, 0.8))
    assert ComponentsDisplay([1, 2], [[0.1], [0.2]]).plot(ax=one, linewidth=3).ax_ is one
    assert one.lines[0].get_linewidth() == 3


@pytest.mark.parametrize(
    ("params", "ax", "message"),
    [
        ({}, Figure().subplots(1, 3), "one axes or 2 of them, got 3"),
        (
            {},
            Figure().add_axes((0, 0, 1, 1)),
            "2 panels can replace a single axes only if it was made",
        ),
        ({"n_components": [2, 1]}, None, r"increase and hold each number once, got \[2, 1\]"),
        ({"scores": [[0.1, 0.2]]}, None, r"2 numbers of codes.*\(2, 2\), got \(1, 2\)"),
        ({"pca_scores": [[0.1]] * 2}, None, r"pca_scores must have.*\(2, 2\), got \(2, 1\)"),
        ({"scores": [[0.1, np.nan]] * 2}, None, "Input scores contains NaN"),
    ],
)
def test_scores_and_axes_that_do_not_fit_are_refused(params, ax, message):
    scores = np.array([[0.1, 0.2], [0.3, 0.4]])
    given = {"n_components": [1, 2], "scores": scores, "predictor_scores": scores}
    with pytest.raises(ValueError, match=message):
        ComponentsDisplay(**{**given, **params}).plot(ax=ax)


def test_missing_matplotlib_is_told_before_anything_is_trained(wine, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    monkeypatch.setattr(AutoencoderTransformer, "fit", None)
    with pytest.raises(ImportError, match=r"pip install 'aefeatures\[plot\]'"):
        show(small(), *wine)
