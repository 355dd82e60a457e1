"""Displays of sensitivities and traversals."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_wine
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from aefeatures import (
    AutoencoderTransformer,
    CodeSensitivityDisplay,
    LatentTraversalDisplay,
    code_sensitivity,
)

WINE, _ = load_wine(return_X_y=True, as_frame=True)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def of_wine():
    return AutoencoderTransformer(max_epochs=20, random_state=0).fit(WINE)


@pytest.fixture(scope="module")
def of_digits(digits):
    return AutoencoderTransformer(max_epochs=2, random_state=0).fit(digits[0])


@pytest.fixture(scope="module")
def table():
    frame = WINE.iloc[:, :3].copy()
    frame["kind"] = np.where(frame["alcohol"] > 13, "strong", "light")
    frame["day"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(np.arange(len(frame)), "D")
    return frame


@pytest.fixture(scope="module")
def of_table(table):
    return AutoencoderTransformer(2, max_epochs=40, random_state=0).fit(table)


def ticks(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_sensitivities_of_a_table(of_wine):
    display = CodeSensitivityDisplay.from_estimator(of_wine, WINE)
    spread = of_wine.transform(WINE).std(axis=0)
    expected = code_sensitivity(of_wine, WINE).to_numpy() / spread[:, None]
    np.testing.assert_allclose(display.sensitivity, expected, rtol=1e-6)
    assert sorted(ticks(display.ax_.yaxis)) == sorted(WINE.columns)
    assert ticks(display.ax_.xaxis) == ["code 0", "code 1", "code 2"]
    first = WINE.columns.get_loc(ticks(display.ax_.yaxis)[0])
    written = [float(text.replace("\u2212", "-")) for text in texts(display.ax_)[:3]]
    np.testing.assert_allclose(written, expected[:, first], atol=0.0051)
    # Columns are grouped by the code that they matter most to.
    main = np.abs(expected).argmax(axis=0)[[*map(WINE.columns.get_loc, ticks(display.ax_.yaxis))]]
    assert (np.diff(main) >= 0).all()
    unit = display.figure_.axes[1].get_ylabel().split()
    assert unit == ["deviations", "of", "code", "per", "deviation", "of", "column"]


def test_only_the_columns_that_matter_most(of_wine):
    display = CodeSensitivityDisplay.from_estimator(of_wine, WINE, max_features=4)
    largest = np.abs(display.sensitivity).max(axis=0)
    assert set(ticks(display.ax_.yaxis)) == set(WINE.columns[np.argsort(-largest)[:4]])
    assert "4 of 13 columns" in texts(display.ax_)


def test_sensitivities_as_pictures(of_digits, digits):
    display = CodeSensitivityDisplay.from_estimator(
        of_digits, digits[0], image_shape=(8, 8), components=[2, 0]
    )
    assert texts(display.ax_) == ["code 2", "code 0"]
    values = display.sensitivity[[2, 0]]
    left, right = (image.get_array() for image in display.ax_.images)
    high = np.abs(values).max()
    colors = plt.get_cmap("RdBu_r")((values / high + 1) / 2)
    np.testing.assert_allclose(left, colors[0].reshape(8, 8, 4), atol=0.01)
    np.testing.assert_allclose(right, colors[1].reshape(8, 8, 4), atol=0.01)


def test_channels_are_added_up():
    sensitivity = np.random.default_rng(0).normal(size=(1, 12))
    display = CodeSensitivityDisplay(sensitivity, image_shape=(3, 2, 2)).plot()
    values = sensitivity.reshape(3, 2, 2).sum(axis=0)
    colors = plt.get_cmap("RdBu_r")((values / np.abs(values).max() + 1) / 2)
    np.testing.assert_allclose(display.ax_.images[0].get_array(), colors, atol=0.01)


def test_sizes_without_sign_have_other_colours(of_wine):
    display = CodeSensitivityDisplay.from_estimator(of_wine, WINE, average="rms")
    np.testing.assert_array_equal(
        display.ax_.images[0].get_array().max(axis=(0, 1))[3], plt.get_cmap("viridis")(1.0)[3]
    )
    assert display.figure_.axes[1].get_ylim()[0] == 0


def test_sensitivities_at_one_row(of_wine):
    display = CodeSensitivityDisplay.from_estimator(of_wine, WINE, row=-1)
    spread = of_wine.transform(WINE).std(axis=0)[:, None]
    expected = code_sensitivity(of_wine, WINE.iloc[[-1]]) / spread
    np.testing.assert_allclose(display.sensitivity, expected, rtol=1e-6)


def test_sensitivities_of_categories_and_of_frames(of_table, table):
    display = CodeSensitivityDisplay.from_estimator(of_table, table)
    assert sorted(ticks(display.ax_.yaxis)) == sorted(table.columns)
    own = CodeSensitivityDisplay(code_sensitivity(of_table, table)).plot()
    assert sorted(ticks(own.ax_.yaxis)) == sorted(table.columns)


def test_missing_sensitivities_are_grey():
    display = CodeSensitivityDisplay([[1.0, np.nan], [-1.0, 0.5]]).plot()
    assert ticks(display.ax_.yaxis) == ["column 0", "column 1"]
    assert texts(display.ax_) == ["1.00", "\u22121.00", "\u2013", "0.50"]
    grey = [0.8, 0.8, 0.8, 1]
    np.testing.assert_allclose(display.ax_.images[0].get_array()[1, 0], grey)
    display = CodeSensitivityDisplay([[1.0, np.nan], [-1.0, 0.5]], image_shape=(1, 2)).plot()
    np.testing.assert_allclose(display.ax_.images[0].get_array()[0, 1], grey)
    nothing = CodeSensitivityDisplay([[np.nan] * 2]).plot()
    assert texts(nothing.ax_) == ["\u2013"] * 2


def test_rounding_errors_are_no_changes():
    decoded = 5 + np.array([[[0.0, 0.0], [1e-7, -1e-8]]])
    display = LatentTraversalDisplay(decoded, start=[5, 5], quantiles=[0.1, 0.9]).plot()
    np.testing.assert_allclose(np.ptp(display.ax_.images[0].get_array(), axis=(0, 1)), 0)


@pytest.mark.parametrize(
    ("quantiles", "labels"),
    [
        ([0.05, 0.5], ["5%", "50%"]),
        ([0.005, 0.995], ["0.5%", "99.5%"]),
        ([0, 1 / 3, 1], ["0%", "33.3%", "100%"]),
    ],
)
def test_quantiles_are_labelled_exactly(of_wine, quantiles, labels):
    display = LatentTraversalDisplay.from_estimator(of_wine, WINE, quantiles=quantiles)
    assert ticks(display.ax_.xaxis) == labels


def test_labels_of_small_pictures_fit_in(of_digits, digits):
    displays = [
        CodeSensitivityDisplay([[0.5]], unit="deviations of code per deviation of column").plot(),
        LatentTraversalDisplay(np.ones((1, 1, 1)), start=[0], quantiles=[0.5]).plot(),
        LatentTraversalDisplay.from_estimator(
            of_digits, digits[0], quantiles=[0.5], image_shape=(8, 8)
        ),
    ]
    for display in displays:
        figure = display.figure_
        figure.canvas.draw()
        for ax in figure.axes:
            for label in filter(mpl.text.Text.get_text, (ax.xaxis.label, ax.yaxis.label)):
                box = label.get_window_extent()
                assert figure.bbox.x0 <= box.x0 <= box.x1 <= figure.bbox.x1
                assert figure.bbox.y0 <= box.y0 <= box.y1 <= figure.bbox.y1


def test_names_of_a_pipeline(of_wine):
    pipeline = make_pipeline(
        StandardScaler(), AutoencoderTransformer(2, max_epochs=2, random_state=0)
    ).fit(WINE)
    for kind in (CodeSensitivityDisplay, LatentTraversalDisplay):
        display = kind.from_estimator(pipeline, WINE)
        assert set(ticks(display.ax_.yaxis)) <= set(WINE.columns)


@pytest.mark.parametrize("kind", [CodeSensitivityDisplay, LatentTraversalDisplay])
def test_given_axes_and_many_codes(kind, digits):
    transformer = AutoencoderTransformer(12, max_epochs=1, random_state=0).fit(digits[0])
    _, (ax, other) = plt.subplots(1, 2)
    display = kind.from_estimator(transformer, digits[0][:50], image_shape=(8, 8), ax=ax)
    assert display.ax_ is ax
    assert display.figure_ is ax.figure
    assert not other.has_data()
    labels = texts(ax) if kind is CodeSensitivityDisplay else ticks(ax.yaxis)
    assert labels == [f"code {k}" for k in range(10)]
    table = kind.from_estimator(transformer, digits[0][:50], components=[11, 3])
    labels = ticks(table.ax_.xaxis) if kind is CodeSensitivityDisplay else texts(table.ax_)
    assert labels[:2] == ["code 11", "code 3"]


def test_traversal_is_the_decoder_along_a_code(of_digits, digits):
    X = digits[0]
    display = LatentTraversalDisplay.from_estimator(
        of_digits, X, image_shape=(8, 8), quantiles=[0.1, 0.5, 0.9]
    )
    codes = of_digits.transform(X)
    expected = np.tile(np.median(codes, axis=0), (3, 1))
    expected[:, 1] = np.quantile(codes[:, 1], [0.1, 0.5, 0.9])
    rows = of_digits.inverse_transform(expected)
    np.testing.assert_allclose(display.decoded[1], rows, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(display.start, rows[1], rtol=1e-4, atol=1e-4)
    assert ticks(display.ax_.yaxis) == ["code 0", "code 1", "code 2"]
    assert ticks(display.ax_.xaxis) == ["10%", "50%", "90%"]
    assert display.limits == (0, 16)
    canvas = display.ax_.images[0].get_array()
    grey = np.clip(rows[2].reshape(8, 8) / 16, 0, 1)
    np.testing.assert_allclose(canvas[9:17, 18:26, 0], grey, atol=0.01)


def test_traversal_from_a_row(of_digits, digits):
    X = digits[0]
    display = LatentTraversalDisplay.from_estimator(of_digits, X, row=4, image_shape=(8, 8))
    np.testing.assert_allclose(display.start, of_digits.reconstruct(X)[4], rtol=1e-5, atol=1e-5)


def test_traversal_of_a_table(of_wine):
    display = LatentTraversalDisplay.from_estimator(of_wine, WINE, max_features=4)
    assert texts(display.ax_) == ["code 0", "code 1", "code 2"]
    changes = (display.decoded - display.start) / WINE.std(ddof=0).to_numpy()
    for k in range(3):
        largest = np.argsort(-np.ptp(changes[k], axis=0))[:4]
        assert ticks(display.ax_.yaxis)[4 * k : 4 * k + 4] == WINE.columns[largest].tolist()
    np.testing.assert_allclose(changes[:, 3], 0, atol=1e-4)  # the median


def test_traversal_of_categories(of_table, table):
    display = LatentTraversalDisplay.from_estimator(of_table, table)
    names = ["alcohol", "malic_acid", "ash", "kind_light", "kind_strong", "day"]
    assert display.feature_names == names
    np.testing.assert_allclose(display.decoded[:, :, 3:5].sum(axis=2), 1, atol=1e-6)
    share = (table["kind"] == "light").mean()
    np.testing.assert_allclose(display.scale[3:5], np.sqrt(share * (1 - share)))
    shown = ticks(display.ax_.yaxis)[:5]
    assert len({"kind_light", "kind_strong"} & set(shown)) == 1  # one for each column
    days = table["day"].astype("datetime64[s]").astype(np.int64)
    assert days.min() - 1e7 < display.decoded[..., 5].min() < days.max()


def test_errors(of_wine, of_digits, digits):
    with pytest.raises(NotFittedError, match="is not fitted yet"):
        CodeSensitivityDisplay.from_estimator(AutoencoderTransformer(), WINE)
    with pytest.raises(ValueError, match="average must be 'mean' or 'rms', got None"):
        CodeSensitivityDisplay.from_estimator(of_wine, WINE, average=None)
    for kind in (CodeSensitivityDisplay, LatentTraversalDisplay):
        with pytest.raises(ValueError, match="row must be a position among the 178 rows of X"):
            kind.from_estimator(of_wine, WINE, row=178)
        for row in ("first", 1.5):
            with pytest.raises(TypeError, match=f"row must be the position .* got {row!r}"):
                kind.from_estimator(of_wine, WINE, row=row)
        with pytest.raises(ValueError, match="components must be among 0 to 2, got"):
            kind.from_estimator(of_wine, WINE, components=[3])
        with pytest.raises(ValueError, match="max_features must be at least 1, got 0"):
            kind.from_estimator(of_wine, WINE, max_features=0)
        with pytest.raises(ValueError, match="There are 2 feature_names for 13 columns"):
            kind.from_estimator(of_wine, WINE, feature_names=["a", "b"])
        with pytest.raises(ValueError, match="image_shape"):
            kind.from_estimator(of_digits, digits[0], image_shape=(9, 9))
    with pytest.raises(ValueError, match=r"X has a single row. .* as row=."):
        CodeSensitivityDisplay.from_estimator(of_wine, WINE[:1])
    with pytest.raises(ValueError, match=r"quantiles must be numbers in \[0, 1\]"):
        LatentTraversalDisplay.from_estimator(of_wine, WINE, quantiles=[5, 95])
    with pytest.raises(ValueError, match=r"decoded must have the shape \(n_codes, 2, n_columns\)"):
        LatentTraversalDisplay(np.zeros((1, 3, 4)), start=np.zeros(4), quantiles=[0, 1]).plot()
    with pytest.raises(ValueError, match="Images have 1 channel"):
        LatentTraversalDisplay.from_estimator(of_digits, digits[0], image_shape=(2, 4, 8))
