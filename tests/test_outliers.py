import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits, load_wine
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from aefeatures import AutoencoderOutlierDetector, AutoencoderTransformer, OutlierDisplay

mpl.use("agg")


def short(**params):
    return AutoencoderOutlierDetector(
        AutoencoderTransformer(3, scaling="standard", max_epochs=20), random_state=0, **params
    )


@pytest.fixture(scope="module")
def wine():
    return load_wine(return_X_y=True, as_frame=True)[0]


@pytest.fixture(scope="module")
def detector(wine):
    return short(calibration_fraction=0.2).fit(wine)


@pytest.fixture(autouse=True)
def _close():
    yield
    mpl.pyplot.close("all")


def texts(display):
    return [text.get_text().strip() for text in display.ax_.texts]


def labels(display):
    return [label.get_text() for label in display.ax_.get_yticklabels()]


def test_bars_show_the_explanation_of_the_most_unusual_rows(detector, wine):
    display = OutlierDisplay.from_estimator(detector, wine, n_samples=3, n_columns=2)
    scores = detector.score_samples(wine)
    worst = np.argsort(scores)[:3]
    found = detector.explain(wine.iloc[worst], n_columns=2)
    assert labels(display) == [*found["column"]]
    np.testing.assert_allclose([bar.get_width() for bar in display.ax_.patches], found["part"])
    p_values = detector.p_values(wine.iloc[worst])
    titles = [f"row {row}, p = {p:.2g}" for row, p in zip(worst, p_values, strict=True)]
    assert texts(display)[::3] == titles
    first = found.iloc[0]
    assert texts(display)[1] == f"{first['value']:.4g}, expected {first['expected']:.4g}"


def test_rows_have_the_names_of_the_index(detector, wine):
    rows = wine.set_axis([f"bottle {i}" for i in range(len(wine))])
    title = texts(OutlierDisplay.from_estimator(detector, rows, n_samples=1))[0]
    assert title.startswith("row bottle ")


@pytest.mark.parametrize("name", ["costs $5 or $6", "a, b", ("x", 3), "_hidden"])
def test_names_of_rows_are_drawn_as_they_are(detector, wine, name):
    rows = wine.iloc[:1].set_axis(pd.Index([name], tupleize_cols=False))
    title = f"row {name}, p = {detector.p_values(rows)[0]:.2g}"
    display = OutlierDisplay.from_estimator(detector, rows)
    assert texts(display)[0].replace(r"\$", "$") == title
    display = OutlierDisplay.from_estimator(detector, rows, image_shape=(1, 13))
    drawn = display.ax_.get_xticklabels()[0].get_text()
    assert drawn.replace(r"\$", "$").split("\np = ") == title.split(", p = ")


def test_dates_are_drawn_without_midnight(wine):
    X = wine[["alcohol", "hue", "ash"]].assign(day=pd.date_range("2020-01-01", periods=len(wine)))
    strange = X.iloc[:2].assign(day=[pd.Timestamp("2031-05-05"), pd.Timestamp("2031-05-05 13:22")])
    display = OutlierDisplay.from_estimator(short().fit(X), strange, n_columns=1)
    days = sorted(text.split(", expected ")[0] for text in texts(display) if "expected" in text)
    assert days == ["2031-05-05", "2031-05-05 13:22:…"]


@pytest.mark.parametrize("times", [1, 10, 1e3, 1e7])
def test_bars_of_all_rows_can_be_seen_and_texts_fit_in(times):
    part = np.array([[2.0 * times, times], [2.0, 1.0]])
    text = [["long value of 18 ch"] * 2] * 2
    display = OutlierDisplay([[0, 1]] * 2, text, text, part).plot()
    display.figure_.canvas.draw()
    pixels = [bar.get_window_extent().width for bar in display.ax_.patches]
    assert min(pixels) > 2
    assert np.argmax(pixels) == 0
    border = display.figure_.bbox.x1
    assert all(each.get_window_extent().x1 <= border for each in display.ax_.texts)


def test_categories_are_texts(wine):
    X = wine[["alcohol", "hue"]].assign(kind=np.where(wine["hue"] > 1, "pale_$1$", "dark"))
    found = short().fit(X)
    odd = X.assign(kind=X["kind"].map({"pale_$1$": "dark", "dark": "pale_$1$"}))
    display = OutlierDisplay.from_estimator(found, odd, n_samples=2, n_columns=3)
    assert any("dark, expected pale" in text for text in texts(display))
    display.figure_.canvas.draw()  # "$" is not taken for a formula


def test_columns_without_names(wine):
    found = short().fit(wine.to_numpy())
    display = OutlierDisplay.from_estimator(found, wine.to_numpy(), n_samples=1, n_columns=40)
    assert sorted(labels(display)) == sorted(f"x{i}" for i in range(13))
    named = OutlierDisplay.from_estimator(
        found, wine.to_numpy(), n_samples=1, feature_names=list(wine.columns)
    )
    assert set(labels(named)) <= set(wine.columns)


def test_pipelines_show_rows_as_the_detector_gets_them(wine):
    pipeline = make_pipeline(StandardScaler(), short()).fit(wine)
    display = OutlierDisplay.from_estimator(pipeline, wine, n_samples=1, n_columns=1)
    scaled = pipeline[0].transform(wine)
    worst = int(np.argmin(pipeline.score_samples(wine)))
    column = list(wine.columns).index(labels(display)[0])
    assert texts(display)[1].startswith(f"{scaled[worst, column]:.4g}, expected")


def test_images_have_a_line_of_what_is_unusual():
    X = load_digits().data[:300]
    found = short().fit(X)
    strange = X[:3].copy()
    strange[1, 3 * 8 + 0] = 16  # a pixel at the edge
    display = OutlierDisplay.from_estimator(found, strange, image_shape=(8, 8), n_samples=1)
    assert labels(display) == ["row", "expected", "unusual"]
    canvas = np.asarray(display.ax_.images[0].get_array())
    marked = canvas[18:26, :8, :3]
    np.testing.assert_allclose(canvas[:8, :8, 0], strange[1].reshape(8, 8) / 16, atol=5e-3)
    saturation = marked.max(axis=-1) - marked.min(axis=-1)
    assert saturation[3, 0] > 0.99 * saturation.max()
    assert np.median(saturation) < 0.5 * saturation.max()


def test_given_axes_are_drawn_in(detector, wine):
    _, ax = mpl.pyplot.subplots()
    display = OutlierDisplay.from_estimator(detector, wine, ax=ax)
    assert display.ax_ is ax
    assert display.figure_ is ax.figure


def test_rows_without_anything_unusual():
    zeros = np.zeros((2, 3))
    display = OutlierDisplay(zeros.astype(int), zeros, zeros, zeros).plot()
    display.figure_.canvas.draw()
    assert display.ax_.get_xlim()[0] == 0
    assert all(text.get_position()[0] == 0 for text in display.ax_.texts)
    OutlierDisplay([[0, 1, 2, 3]], [[0] * 4], [[0] * 4], [[0] * 4], image_shape=(2, 2)).plot()


@pytest.mark.parametrize("name", ["n_samples", "n_columns"])
def test_numbers_below_one_are_refused(detector, wine, name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        OutlierDisplay.from_estimator(detector, wine, **{name: 0})


def test_other_estimators_are_refused(wine):
    for other in (OneClassSVM().fit(wine), AutoencoderTransformer(max_epochs=1).fit(wine)):
        with pytest.raises(TypeError, match="must be an AutoencoderOutlierDetector or a Pipe"):
            OutlierDisplay.from_estimator(other, wine)
    with pytest.raises(NotFittedError, match="is not fitted yet"):
        OutlierDisplay.from_estimator(short(), wine)


def test_shapes_that_do_not_fit(detector, wine):
    with pytest.raises(ValueError, match="must have the same shape"):
        OutlierDisplay([[0]], [[1.0]], [[1.0]], [[1.0, 2.0]]).plot()
    with pytest.raises(ValueError, match="image_shape"):
        OutlierDisplay.from_estimator(detector, wine, image_shape=(3, 4))
    with pytest.raises(ValueError, match=r"nothing to draw in arrays of shape \(0, 2\)"):
        OutlierDisplay(*np.zeros((4, 0, 2))).plot()


@pytest.mark.parametrize("kind", [list, np.array, tuple])
def test_names_are_one_for_each_row_and_column(kind):
    arrays = [[0, 2]] * 2, *np.ones((3, 2, 2))
    display = OutlierDisplay(
        *arrays, row_names=kind(["first", "second"]), feature_names=kind(["a", "b", "c"])
    ).plot()
    assert labels(display) == ["a", "c"] * 2
    assert texts(display)[::3] == ["first", "second"]
    with pytest.raises(ValueError, match="There are 1 row_names for 2 rows"):
        OutlierDisplay(*arrays, row_names=kind(["first"])).plot()
    with pytest.raises(ValueError, match="There are 2 feature_names, but column 2 is shown"):
        OutlierDisplay(*arrays, feature_names=kind(["a", "b"])).plot()


@pytest.mark.parametrize("n_channels", [2, 4])
def test_images_have_one_or_three_channels(n_channels):
    arrays = [np.arange(n_channels * 4)[None], *np.ones((3, 1, n_channels * 4))]
    with pytest.raises(ValueError, match=r"Images have 1 channel \(grey\) or 3"):
        OutlierDisplay(*arrays, image_shape=(n_channels, 2, 2)).plot()
