import itertools
import re
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import polars as pl
import pytest
from matplotlib.figure import Figure
from sklearn.datasets import load_diabetes, load_wine
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVC

import aefeatures
from aefeatures import (
    AutoencoderTransformer,
    LatentSpaceDisplay,
    LossCurveDisplay,
    ReconstructionDisplay,
)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def pipeline(digits):
    """A fitted pipeline with a scaler before and a classifier after the transformer."""
    transformer = AutoencoderTransformer(max_epochs=3, early_stopping=True, random_state=0)
    return make_pipeline(MinMaxScaler(), transformer, SVC()).fit(digits[0], digits[2])


def draw(display):
    """Lay out and paint all of it, as saving does."""
    display.figure_.canvas.draw()
    return display


def points(display):
    return sum(len(c.get_offsets()) for c in display.ax_.collections)


def legend_texts(legend):
    return [text.get_text() for text in legend.get_texts()]


DISPLAYS = {
    "reconstruction": ReconstructionDisplay.from_estimator,
    "latent space": LatentSpaceDisplay.from_estimator,
    "loss": lambda estimator, X, **kwargs: LossCurveDisplay.from_estimator(estimator, **kwargs),
}


@pytest.mark.parametrize("name", DISPLAYS)
def test_contract_of_displays(pipeline, digits, name):
    display = DISPLAYS[name](pipeline, digits[1])
    assert display.ax_.figure is display.figure_
    assert display.plot() is display
    draw(display)
    figure = Figure()
    ax = figure.add_subplot(projection="3d" if name == "latent space" else None)
    display = DISPLAYS[name](pipeline, digits[1], ax=ax)
    assert display.ax_ is ax
    assert display.figure_ is figure


@pytest.mark.parametrize("name", DISPLAYS)
@pytest.mark.parametrize(
    "estimator",
    [
        AutoencoderTransformer(),
        make_pipeline(StandardScaler(), AutoencoderTransformer()),
        GridSearchCV(AutoencoderTransformer(), {}),
    ],
    ids=["alone", "pipeline", "search"],
)
def test_unfitted_estimators_are_refused(digits, name, estimator):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        DISPLAYS[name](estimator, digits[1])


@pytest.mark.parametrize("name", DISPLAYS)
def test_estimators_without_an_autoencoder_are_refused(digits, name):
    estimator = make_pipeline(StandardScaler(), PCA(2)).fit(digits[0])
    with pytest.raises(
        TypeError, match=r"must be an AutoencoderTransformer or a Pipeline.*got Pip"
    ):
        DISPLAYS[name](estimator, digits[1])


@pytest.mark.parametrize("name", DISPLAYS)
def test_missing_matplotlib_is_told(pipeline, digits, name, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"pip install 'aefeatures\[plot\]'"):
        DISPLAYS[name](pipeline, digits[1])


def test_rows_are_what_the_steps_before_return(pipeline, digits):
    X = digits[1][:4]
    display = ReconstructionDisplay.from_estimator(pipeline, X, image_shape=(8, 8))
    scaled = pipeline[0].transform(X)
    np.testing.assert_array_equal(display.originals, scaled)
    np.testing.assert_array_equal(display.reconstructions, pipeline[1].reconstruct(scaled))
    codes = LatentSpaceDisplay.from_estimator(pipeline, X).codes
    np.testing.assert_array_equal(codes, pipeline[:-1].transform(X))
    nested = Pipeline([("scale", make_pipeline(pipeline[0])), ("rest", pipeline[1:])])
    codes = LatentSpaceDisplay.from_estimator(nested, X).codes
    np.testing.assert_array_equal(codes, pipeline[:-1].transform(X))


def test_search_shows_its_best_estimator(digits):
    search = GridSearchCV(AutoencoderTransformer(random_state=0), {"max_epochs": [5, 10]}, cv=2)
    search.fit(digits[0][:300])
    display = LossCurveDisplay.from_estimator(search)
    assert display.loss_curve == search.best_estimator_.loss_curve_


# Reconstructions


@pytest.mark.parametrize("image_shape", [(8, 8), (1, 8, 8)])
def test_images_are_drawn_over_their_reconstructions(fitted, digits, image_shape):
    X = digits[1][[0, 1]]
    display = ReconstructionDisplay.from_estimator(fitted, X, image_shape=image_shape)
    canvas = draw(display).ax_.images[0].get_array()
    for i, rows in enumerate([X, fitted.reconstruct(X)]):
        for j, row in enumerate(rows):
            picture = canvas[i * 9 : i * 9 + 8, j * 9 : j * 9 + 8]
            shown = np.clip((row.reshape(8, 8) - X.min()) / (X.max() - X.min()), 0, 1)
            np.testing.assert_allclose(picture[..., 0], shown, atol=1 / 255)
            np.testing.assert_array_equal(picture[..., 3], 1)
    assert [t.get_text() for t in display.ax_.get_yticklabels()] == ["original", "reconstruction"]


def test_colour_images_keep_their_colours():
    red, green = np.zeros((2, 3, 4, 5), np.uint8)
    red[0], green[1] = 255, 255
    rows = np.stack([red.ravel(), green.ravel()])
    display = ReconstructionDisplay(rows, rows, image_shape=(3, 4, 5)).plot()
    canvas = display.ax_.images[0].get_array()
    np.testing.assert_array_equal(canvas[2, 2], [1, 0, 0, 1])
    np.testing.assert_array_equal(canvas[2, -2], [0, 1, 0, 1])


def test_missing_pixels_have_a_colour_of_their_own(digits):
    X = digits[1][:2].copy()
    X[0, 0] = np.nan
    display = ReconstructionDisplay(X, digits[1][:2], image_shape=(8, 8)).plot()
    pixel = display.ax_.images[0].get_array()[0, 0]
    assert pixel[0] > pixel[1]
    draw(display)


def test_snapshots_are_a_row_pair_each(fitted, digits):
    X = digits[1][:3]
    snapshots = np.stack([fitted.reconstruct(X) * part for part in (0.2, 0.6, 1.0)])
    for shape, per_snapshot in [((8, 8), 2), (None, None)]:
        display = ReconstructionDisplay(X, snapshots, image_shape=shape).plot()
        labels = [t.get_text() for t in draw(display).ax_.get_yticklabels()]
        if per_snapshot:
            expected = [("original", f"epoch {i}") for i in (1, 2, 3)]
            assert labels == [label for pair in expected for label in pair]
        else:  # strips: an original and its snapshots for each row
            assert labels == ["original", "epoch 1", "epoch 2", "epoch 3"] * 3


def test_tables_are_bars_with_names_in_units_of_the_scaling():
    X = load_wine(as_frame=True).data
    X.columns = ["$cost$", *X.columns[1:]]
    transformer = AutoencoderTransformer(max_epochs=5, random_state=0).fit(X)
    seen = X.iloc[:3].copy()
    seen.iloc[0, 2] = np.nan
    display = ReconstructionDisplay.from_estimator(transformer, seen)
    labels = [t.get_text() for t in draw(display).ax_.get_yticklabels()]
    assert labels == [r"\$cost\$", *X.columns[1:]] * 2
    scaled = (seen.to_numpy() - X.to_numpy().mean(axis=0)) / X.to_numpy().std(axis=0)
    drawn = np.concatenate([bars.datavalues for bars in display.ax_.containers[:3]])
    np.testing.assert_allclose(drawn, scaled[np.isfinite(scaled)], rtol=1e-6)


@pytest.fixture(scope="module")
def wide():
    """100 named columns in units that differ by six orders, four of which cannot be learned."""
    r = np.random.default_rng(0)
    X = r.normal(size=(300, 2)) @ r.normal(size=(2, 100))
    noise = [7, 20, 61, 90]
    X[:, noise] = r.normal(size=(300, 4))
    X *= 10.0 ** r.integers(-3, 4, 100)
    X = pd.DataFrame(X, columns=[f"sensor_{i}" for i in range(100)])
    transformer = AutoencoderTransformer(2, max_epochs=40, random_state=0)
    return X, [f"sensor_{i}" for i in noise], transformer


@pytest.mark.parametrize("scaled", [False, True])
def test_wide_tables_show_the_worst_columns_by_name(wide, scaled):
    X, noise, estimator = wide
    if scaled:
        estimator = make_pipeline(StandardScaler(), estimator)
    display = ReconstructionDisplay.from_estimator(estimator.fit(X), X, n_samples=8)
    labels = [t.get_text() for t in draw(display).ax_.get_yticklabels()]
    assert len(labels) == 2 * 15
    assert set(labels[:4]) == set(noise)
    assert labels[:15] == labels[15:]
    assert display.ax_.get_xlabel().startswith("15 of 100 columns")
    difference = (display.originals - display.reconstructions) / display.scale
    worst = np.abs(difference).mean(axis=0).argsort()[::-1]
    assert labels[:15] == [f"sensor_{i}" for i in worst[:15]]
    bars = np.array([bar.datavalues for bar in display.plot(max_features=3).ax_.containers])
    np.testing.assert_allclose(
        bars[:8], ((display.originals - display.center) / display.scale)[:, worst[:3]]
    )


def test_missing_values_are_not_among_the_worst(digits):
    X = digits[1][:5].copy()
    X[:, 3] = np.nan
    X[:2, 4] = np.nan
    display = ReconstructionDisplay(X, digits[1][:5] + np.arange(64) / 64)
    labels = [t.get_text() for t in display.plot(kind="bars").ax_.get_yticklabels()]
    assert labels[:15] == [str(i) for i in range(63, 48, -1)]
    labels = display.plot(kind="bars", max_features=64).ax_.get_yticklabels()
    assert len(labels) == 128
    with pytest.raises(ValueError, match="max_features must be at least 1, got 0"):
        display.plot(max_features=0)


def test_many_rows_are_thinned_out_evenly(fitted, digits):
    display = ReconstructionDisplay.from_estimator(fitted, digits[1], n_samples=4)
    np.testing.assert_array_equal(display.originals, digits[1][[0, 149, 299, 449]])


def test_sparse_rows_and_one_row(fitted, digits):
    sparse = pytest.importorskip("scipy.sparse").csr_array(digits[1][:1])
    display = ReconstructionDisplay.from_estimator(fitted, sparse, image_shape=(8, 8))
    np.testing.assert_array_equal(display.originals, digits[1][:1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_shape": (7, 8)}, r"56.*64|64.*56"),
        ({"image_shape": (2, 4, 8)}, r"1 channel \(grey\) or 3"),
        ({"reconstructions": np.zeros((2, 64))}, r"originals, \(3, 64\).*got \(2, 64\)"),
        ({"reconstructions": np.zeros((4, 2, 64))}, r"originals, \(3, 64\).*got \(4, 2, 64\)"),
        ({"feature_names": ["a", "b"]}, "2 feature_names for 64 columns"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(digits, changes, message):
    X = digits[1][:3]
    display = ReconstructionDisplay(**{"originals": X, "reconstructions": X, **changes})
    with pytest.raises(ValueError, match=message):
        display.plot()


def test_unknown_kind_is_refused(digits):
    display = ReconstructionDisplay(digits[1][:3], digits[1][:3])
    with pytest.raises(ValueError, match="'bars', 'strips' or 'table', got 'pie'"):
        display.plot(kind="pie")


# Tables with categories


def mixed_table(n=90):
    rng = np.random.default_rng(0)
    X = pd.DataFrame(
        {
            "price": rng.normal(100, 20, n),
            "$where_": rng.choice(["Bern", "Genf", "a long name of a place"], n),
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 90, n), "D"),
            "size": pd.Categorical(rng.choice(["small", "large"], n)),
        }
    )
    X.loc[0, ["price", "$where_"]] = None
    return X


@pytest.fixture(scope="module")
def table_fitted():
    """Fitted on `mixed_table`. Not to be changed."""
    return AutoencoderTransformer(2, max_epochs=10, random_state=0).fit(mixed_table())


def written(display):
    """Texts in the cells of a table."""
    return [text.get_text() for text in draw(display).ax_.texts]


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_levels_are_written_and_numbers_are_bars(table_fitted, library):
    X = mixed_table()[:4]
    X["$where_"] = X["$where_"].astype(object)
    original, rebuilt = X.copy(), table_fitted.reconstruct(X)
    if library == "polars":
        X = pl.from_pandas(X)
    display = ReconstructionDisplay.from_estimator(table_fitted, X)
    labels = [t.get_text() for t in draw(display).ax_.get_yticklabels()]
    assert labels == ["price", r"\$where_", "day", "size"]
    expected = []
    for i in range(4):
        for name in ("$where_", "size"):
            before, after = original[name][i], rebuilt[name][i]
            short = {"a long name of a place": "a long\u2026 place"}
            before, after = ("missing" if pd.isna(v) else short.get(v, v) for v in (before, after))
            expected += [before] if before == after else [before, f"\u2192 {after}"]
    found = written(display)
    assert found[:2] == ["original", "\u2192 reconstruction"]
    assert sorted(found[2:]) == sorted(expected)
    # Bars are in standard deviations. The price of the first row is missing.
    bars = {float(c.datavalues[0]) for c in display.ax_.containers}
    prices = mixed_table()["price"]
    scaled = (prices - prices.mean()) / prices.std(ddof=0)
    days = mixed_table()["day"].astype("int64")
    scaled_days = (days - days.mean()) / days.std(ddof=0)
    for value in [*scaled[1:4], *scaled_days[:4]]:
        assert min(abs(value - bar) for bar in bars) < 1e-6
    assert len(display.ax_.containers) == 2 * 2 * 4 - 1


def test_changed_levels_are_marked():
    before = pd.DataFrame({"a": ["x", "y", None], "b": [1.0, 2.0, 3.0]})
    after = pd.DataFrame({"a": ["x", "x", "y"], "b": [1.0, 2.5, 3.0]})
    display = ReconstructionDisplay(before, after, feature_names=["a", "b"]).plot()
    assert written(display)[2:] == ["x", "y", "\u2192 x", "missing", "\u2192 y"]
    colours = {text.get_text(): text.get_color() for text in display.ax_.texts[2:]}
    assert colours["\u2192 x"] == colours["\u2192 y"] != colours["x"]
    assert colours["missing"] != colours["y"]


def test_levels_that_are_numbers_are_written_as_text():
    X = np.c_[np.random.default_rng(0).normal(size=(60, 2)), np.arange(60) % 3]
    transformer = AutoencoderTransformer(1, max_epochs=3, categorical_features=[2], random_state=0)
    display = ReconstructionDisplay.from_estimator(transformer.fit(X), X, n_samples=3)
    assert len(display.ax_.containers) == 2 * 2 * 3
    levels = {text.strip("\u2192 ") for text in written(display)[2:]}
    assert levels <= {"0.0", "1.0", "2.0"}
    assert np.isnan(display.scale).tolist() == [False, False, True]


def test_columns_of_a_table_that_are_reconstructed_worst():
    names = [f"c{i}" for i in range(40)]
    before = pd.DataFrame({name: ["x", "y"] for name in names}).assign(n=[1.0, 2.0])
    after = before.assign(c7=["y", "x"], c20=["y", "y"])
    display = ReconstructionDisplay(before, after, feature_names=[*names, "n"]).plot()
    labels = [t.get_text() for t in draw(display).ax_.get_yticklabels()]
    assert labels[:2] == ["c7", "c20"]
    assert len(labels) == 15
    assert display.ax_.get_xlabel().startswith("15 of 41 columns")
    display.plot(max_features=1)
    assert [t.get_text() for t in display.ax_.get_yticklabels()] == ["c7"]


@pytest.mark.parametrize("kind", ["bars", "strips", "image"])
def test_text_is_drawn_as_a_table_only(kind):
    X = pd.DataFrame({"n": [1.0, 2.0], "a": ["x", "y"]})
    display = ReconstructionDisplay(X, X, image_shape=(1, 2) if kind == "image" else None)
    with pytest.raises(ValueError, match=f"kind='{kind}' shows numbers, but column 1 holds text"):
        display.plot(kind=kind)


def test_tables_of_other_columns_are_refused():
    X = pd.DataFrame({"n": [1.0, 2.0], "a": ["x", "y"]})
    with pytest.raises(ValueError, match="must have the same columns"):
        ReconstructionDisplay(X, X[["a"]]).plot()
    with pytest.raises(ValueError, match=r"shape of originals, \(2, 2\)"):
        ReconstructionDisplay(X, X[:1]).plot()


def test_numbers_may_be_drawn_as_a_table(fitted, digits):
    display = ReconstructionDisplay.from_estimator(fitted, digits[1], n_samples=2, kind="table")
    assert len(draw(display).ax_.get_yticklabels()) == 15
    assert len(display.ax_.containers) == 2 * 2 * 15


def test_pictures_of_a_table_in_a_pipeline_and_of_snapshots(table_fitted):
    X = mixed_table()[:3]
    pipeline = make_pipeline("passthrough", table_fitted)
    display = ReconstructionDisplay.from_estimator(pipeline, X)
    assert written(display)[2:]
    rebuilt = table_fitted.reconstruct(X)
    for snapshots in ([X, rebuilt], np.array([np.asarray(X, object), np.asarray(rebuilt, object)])):
        display = ReconstructionDisplay(X, snapshots, feature_names=list(X)).plot()
        texts = written(display)
        assert [text for text in texts if "epoch" in text] == ["\u2192 epoch 1", "\u2192 epoch 2"]
        assert len(display.ax_.get_yticklabels()) == 8


@pytest.mark.parametrize("library", ["pandas", "polars"])
@pytest.mark.parametrize("name", ["$where_", "size", "day", "price"])
def test_codes_of_a_table_are_coloured_by_its_columns(table_fitted, library, name):
    X = mixed_table()
    X["$where_"] = X["$where_"].astype(object)
    if library == "polars":
        X = pl.from_pandas(X)
    display = draw(LatentSpaceDisplay.from_estimator(table_fitted, X, X[name]))
    legend = display.ax_.get_legend()
    if name in ("price", "day"):
        assert legend is None
    else:
        assert legend.get_title().get_text().replace("\\", "") == name
        known = sorted(mixed_table()[name].dropna().unique())
        assert legend_texts(legend) == known + ["missing"] * (name == "$where_")


# Codes


@pytest.mark.parametrize("n", [1, 2, 3])
def test_every_row_is_a_point_and_every_class_in_the_legend(fitted, digits, n):
    codes, y = fitted.transform(digits[1])[:, :n], digits[3]
    display = draw(LatentSpaceDisplay(codes, y=y, target_name="digit").plot())
    assert points(display) == len(codes)
    if n == 1:
        names = [t.get_text() for t in display.ax_.get_yticklabels()]
    else:
        names = legend_texts(display.ax_.get_legend())
        assert display.ax_.get_legend().get_title().get_text() == "digit"
    assert names == [str(i) for i in range(10)]
    assert display.axes_.shape == (1, 1)
    draw(LatentSpaceDisplay(codes).plot())


@pytest.mark.parametrize("n", [2, 3])
def test_legend_lies_beside_the_points(fitted, digits, n):
    codes = fitted.transform(digits[1])[:, :n]
    display = draw(LatentSpaceDisplay(codes, y=digits[3]).plot())
    legend = display.ax_.get_legend().get_window_extent()
    assert legend.x0 > display.ax_.bbox.x1
    assert legend.x1 <= display.figure_.bbox.x1


def test_more_codes_are_a_grid_of_pairs(digits):
    codes = np.random.default_rng(0).normal(size=(450, 8))
    display = draw(LatentSpaceDisplay(codes, y=digits[3]).plot())
    assert display.axes_.shape == (4, 4)
    drawn = display.axes_ != np.array(None)
    np.testing.assert_array_equal(drawn, np.tri(4, dtype=bool))
    assert display.ax_.get_xlabel() == "code 0"
    assert display.ax_.get_ylabel() == "code 4"
    chosen = LatentSpaceDisplay(codes, components=[7, 2]).plot().ax_
    assert (chosen.get_xlabel(), chosen.get_ylabel()) == ("code 7", "code 2")
    figure = Figure()
    axes = figure.subplots(1, 2)
    display = LatentSpaceDisplay(codes, y=digits[3]).plot(ax=axes[1])
    assert display.figure_ is figure


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_numbers_have_a_colour_bar(n):
    X, y = load_diabetes(return_X_y=True, as_frame=True)
    display = draw(LatentSpaceDisplay(X.to_numpy()[:, :n], y=y, target_name="progression").plot())
    labels = [ax.get_ylabel() for ax in display.figure_.axes]
    labels += [child.get_ylabel() for ax in display.figure_.axes for child in ax.child_axes]
    assert "progression" in labels


def test_name_of_a_series_is_the_title(pipeline, digits):
    y = pd.Series(digits[3], name="digit")
    display = LatentSpaceDisplay.from_estimator(pipeline, digits[1], y)
    assert display.ax_.get_legend().get_title().get_text() == "digit"


@pytest.mark.parametrize(
    ("y", "names"),
    [
        (["b", None, "a", "b"], ["a", "b", "missing"]),
        ([0.0, np.nan, 1.0, 1.0], ["0", "1", "missing"]),
        (pd.Series(["a", pd.NA, "b", "a"]), ["a", "b", "missing"]),
        ([True, False, True, True], ["False", "True"]),
        (["$x$", "_y", "<b>", "_y"], [r"\$x\$", "<b>", " _y"]),
        ([1, "a", 1, "a"], ["1", "a"]),
    ],
)
def test_classes_of_every_kind(y, names):
    y = y if isinstance(y, pd.Series) else np.array(y, dtype=object)
    display = draw(LatentSpaceDisplay(np.eye(4)[:, :2], y=y).plot())
    assert legend_texts(display.ax_.get_legend()) == names
    assert points(display) == 4


def test_more_classes_than_colours_differ_by_marker():
    y = np.arange(15)
    display = draw(LatentSpaceDisplay(np.eye(15)[:, :2], y=y).plot())
    handles = display.ax_.get_legend().legend_handles
    assert len({(h.get_color(), h.get_marker()) for h in handles}) == 15


def inside(extent, figure):
    """Whether all of it is in the figure."""
    return (
        0 <= extent.x0 < extent.x1 <= figure.bbox.x1
        and 0 <= extent.y0 < extent.y1 <= figure.bbox.y1
    )


def legend_of(display):
    (legend,) = [ax.get_legend() for ax in display.figure_.axes if ax.get_legend() is not None]
    return legend


def cells(display):
    return [ax for ax in display.axes_.ravel() if ax is not None]


@pytest.mark.parametrize(
    ("n", "n_classes"),
    [
        *((2, n_classes) for n_classes in (10, 16, 20, 60)),  # one plot
        *((3, n_classes) for n_classes in (20, 60)),  # one in space
        *((4, n_classes) for n_classes in (16, 60)),  # a grid
        *((6, n_classes) for n_classes in (10, 20, 60)),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in [(3, 10), (3, 16), (4, 10), (4, 20), (6, 16)]
        ),
    ],
)
def test_legend_of_any_length_is_in_the_figure_and_shrinks_no_plot(n, n_classes):
    codes = np.random.default_rng(0).normal(size=(240, n))
    y = [f"a class with a long name, {i}" for i in np.arange(240) % n_classes]
    display = draw(LatentSpaceDisplay(codes, y=y, target_name="kind").plot())
    legend = legend_of(display)
    extent = legend.get_window_extent()
    assert inside(extent, display.figure_)
    assert all(inside(t.get_window_extent(), display.figure_) for t in legend.get_texts())
    for ax in cells(display):
        assert not extent.overlaps(ax.bbox)
        assert min(ax.bbox.width, ax.bbox.height) > (110 if n > 3 else 330)
    names = legend_texts(legend)
    assert len(names) == {60: 19}.get(n_classes, n_classes)
    if n_classes == 60:
        assert names[-1] == "42 other classes"
    looks = {(h.get_color(), h.get_marker()) for h in legend.legend_handles}
    assert len(looks) == len(names)
    assert len({marker for _, marker in looks}) <= 3


@pytest.mark.parametrize("layout", [None, "constrained", "tight"])
@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("by_hand", [False, True])
def test_given_axes_make_room_for_the_legend(n, layout, by_hand):
    figure = Figure(figsize=(8, 4), layout=layout)
    projection = "3d" if n == 3 else None
    if by_hand:
        axes = [figure.add_axes((x, 0.1, 0.4, 0.8), projection=projection) for x in (0.05, 0.55)]
    else:
        axes = figure.subplots(1, 2, subplot_kw={"projection": projection})
    codes = np.random.default_rng(0).normal(size=(160, n))
    display = draw(LatentSpaceDisplay(codes, y=np.arange(160) % 16).plot(ax=axes[0]))
    extent = display.ax_.get_legend().get_window_extent()
    assert inside(extent, figure)
    assert not extent.overlaps(axes[1].bbox)
    if layout is None or by_hand:
        assert not extent.padded(-0.5).overlaps(axes[0].bbox)  # they may touch
    assert axes[0].bbox.width > 150


def test_classes_without_a_mark_of_their_own_are_all_drawn():
    y = [None, *(f"class {i}" for i in range(59))]
    display = draw(LatentSpaceDisplay(np.eye(60)[:, :2], y=y).plot())
    assert points(display) == 60
    assert legend_texts(legend_of(display))[-2:] == ["41 other classes", "missing"]
    display = draw(LatentSpaceDisplay(np.eye(60)[:, :1], y=y).plot())
    labels = display.ax_.get_yticklabels()
    assert [t.get_text() for t in labels][-2:] == ["41 other classes", "missing"]
    boxes = [t.get_window_extent() for t in labels]
    assert all(inside(box, display.figure_) for box in boxes)
    assert all(a.y0 >= b.y1 for a, b in itertools.pairwise(boxes))


def scale_of(display):
    """The axes of the colour bar; of a single code those of the plot."""
    others = [ax for ax in display.figure_.axes if ax.get_label() == "<colorbar>"]
    others += [child for ax in display.figure_.axes for child in ax.child_axes]
    return others[0] if others else display.ax_


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_dates_are_on_a_scale_with_dates(n):
    codes = np.random.default_rng(0).normal(size=(40, n))
    y = pd.Series(pd.date_range("2019-01-01", periods=40, freq="50D", tz="UTC"), name="sold")
    display = draw(LatentSpaceDisplay(codes, y=y).plot())
    scale = scale_of(display)
    assert scale.get_ylabel() == "sold"
    labels = {t.get_text() for t in scale.get_yticklabels()}
    assert {"2020", "2022", "2024"} <= labels
    assert all(ax.get_legend() is None for ax in display.figure_.axes)
    colors = np.concatenate([c.get_facecolors() for c in cells(display)[0].collections])
    assert len(np.unique(colors, axis=0)) == 40


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize(("ends", "extend"), [([np.inf], "max"), ([-np.inf, np.inf], "both")])
def test_infinity_leaves_the_scale_to_finite_values(n, ends, extend):
    codes = np.random.default_rng(0).normal(size=(40, n))
    y = np.linspace(0.5, 8.5, 40)
    y[: len(ends)] = ends
    display = draw(LatentSpaceDisplay(codes, y=y, target_name="ratio").plot())
    drawn = [c for c in cells(display)[0].collections if len(c.get_offsets()) > 1]
    assert sum(len(c.get_offsets()) for c in drawn) == 40
    colors = np.concatenate([c.get_facecolors() for c in drawn])
    assert len(np.unique(colors, axis=0)) == 40 - len(ends)  # that of an end
    low, high = scale_of(display).get_ylim()
    assert 0 < high - low < 10
    if n > 1:
        assert scale_of(display)._colorbar.extend == extend


@pytest.mark.parametrize("values", [[np.inf, np.nan], [5.5, np.inf], [np.inf, -np.inf]])
def test_scales_of_hardly_any_finite_value(values):
    display = draw(LatentSpaceDisplay(np.eye(2), y=values, categorical=False).plot())
    assert points(display) == 2


@pytest.mark.parametrize(
    ("n", "components", "told"),
    [(8, None, True), (6, None, True), (5, None, False), (8, [0, 1, 2, 7], False)],
)
def test_grid_says_that_there_are_more_codes(n, components, told):
    codes = np.random.default_rng(0).normal(size=(40, n))
    display = draw(LatentSpaceDisplay(codes, components=components).plot())
    texts = [t for ax in cells(display) for t in ax.texts]
    assert [t.get_text().startswith(f"codes 0 to 4 of {n}") for t in texts] == [True] * told
    for text in texts:
        assert inside(text.get_window_extent(), display.figure_)
        assert not any(text.get_window_extent().overlaps(ax.bbox) for ax in cells(display))


@pytest.mark.parametrize(
    "y", [pd.Series(list("abab"), name="kind"), pd.DataFrame({"kind": list("abab")})]
)
def test_name_of_the_series_is_the_title_without_an_estimator(y):
    display = LatentSpaceDisplay(np.eye(4)[:, :2], y=y).plot()
    assert legend_of(display).get_title().get_text() == "kind"


def test_colours_are_those_of_the_paper():
    # Petroff 2021 (arXiv:2107.02270), table of ten colours.
    paper = "3f90da ffa90e bd1f01 94a4a2 832db6 a96b59 e76300 b9ac70 717581 92dadd"
    display = LatentSpaceDisplay(np.eye(10)[:, :2], y=np.arange(10)).plot()
    colors = [handle.get_color() for handle in legend_of(display).legend_handles]
    assert colors == [f"#{color}" for color in paper.split()]
    page = (Path(aefeatures.__file__).parent / "_pictures/latent_map.js").read_text(
        encoding="utf-8"
    )
    listed = re.search(r"const COLOURS = \[(.*?)\]", page, re.DOTALL)[1]
    assert re.findall(r'"(#\w+)"', listed) == colors


def test_trim_leaves_out_far_codes(digits):
    codes = np.random.default_rng(0).normal(size=(450, 2))
    codes[7] = 1e6
    display = LatentSpaceDisplay(codes, y=digits[3]).plot(trim=0.01)
    assert 420 < points(display) < 450
    assert display.ax_.get_xlim()[1] < 10


@pytest.mark.parametrize(
    ("params", "plot", "message"),
    [
        ({"y": [0, 1]}, {}, r"inconsistent numbers of samples: \[5, 2\]"),
        ({"components": [3]}, {}, "among 0 to 2, got"),
        ({}, {"trim": 0.5}, r"trim must be in \[0, 0.5\), got 0.5"),
        ({}, {"ax": Figure().add_subplot()}, "3 codes need axes with projection='3d'"),
        (
            {"codes": np.zeros((5, 4))},
            {"ax": Figure().add_axes((0, 0, 1, 1))},
            "grid, which can replace axes made by subplots",
        ),
    ],
)
def test_bad_input_for_codes_is_refused(params, plot, message):
    display = LatentSpaceDisplay(**{"codes": np.zeros((5, 3)), **params})
    with pytest.raises(ValueError, match=message):
        display.plot(**plot)


# Losses


def test_best_epoch_is_marked():
    training, validation = [3.0, 2.0, 1.0, 0.5], [3.1, 1.5, 1.25, 1.8]
    display = draw(LossCurveDisplay(training, validation_loss_curve=validation).plot())
    assert display.best_epoch_ == 3
    assert legend_texts(display.ax_.get_legend()) == [
        "training",
        "validation",
        "lowest: 1.25 in epoch 3",
    ]
    assert LossCurveDisplay(training).plot().best_epoch_ == 4
    assert LossCurveDisplay([1.0]).plot().best_epoch_ == 1


def test_loss_curve_of_any_estimator_that_has_one(pipeline, digits):
    display = LossCurveDisplay.from_estimator(pipeline)
    assert display.validation_loss_curve == pipeline[1].validation_loss_curve_
    with pytest.warns(UserWarning, match="Maximum iterations"):
        regressor = MLPRegressor(hidden_layer_sizes=(4,), max_iter=3).fit(digits[0], digits[2])
    assert LossCurveDisplay.from_estimator(regressor).loss_curve == regressor.loss_curve_


def test_curves_without_epochs_or_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="no epochs"):
        LossCurveDisplay([]).plot()
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[2, 1\]"):
        LossCurveDisplay([1, 2], validation_loss_curve=[1]).plot()
