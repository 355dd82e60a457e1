import base64
import io
import json
import re
import sys
import zlib

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import sparse
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_wine
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler
from torch import nn

from aefeatures import (
    AutoencoderTransformer,
    ConvNetwork,
    LatentSpaceDisplay,
    code_importance,
    code_sensitivity,
    write_latent_map,
)

pytest.importorskip("plotly", reason="needs the extra 'map'")

# Most are fitted for so short that little is learned.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

HOSTILE = (
    """<img src=x onerror="window.hacked=1">'"</script><script>window.hacked=1</script>&amp;"""
)


@pytest.fixture(scope="module")
def wine():
    X, y = load_wine(return_X_y=True, as_frame=True)
    return X, np.array(["low", "middle", "high"])[y]


@pytest.fixture(scope="module")
def wine_fitted(wine):
    """Two codes, so that every point lies in the open. Not to be changed."""
    return AutoencoderTransformer(2, max_epochs=60, random_state=0).fit(wine[0])


@pytest.fixture(scope="module")
def digits_map(tmp_path_factory, fitted, digits):
    path = tmp_path_factory.mktemp("map") / "digits.html"
    return write_latent_map(fitted, digits[1], digits[3], path, image_shape=(8, 8), max_points=30)


@pytest.fixture(scope="module")
def wine_map(tmp_path_factory, wine_fitted, wine):
    path = tmp_path_factory.mktemp("map") / "wine.html"
    return write_latent_map(wine_fitted, *wine, path, max_points=40)


def contents(path):
    """What the page was given."""
    text = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="contents">(.*?)</script>', text)[1])


# What is written


def test_returns_the_path(digits_map, tmp_path, fitted, digits):
    assert digits_map.is_file()
    path = write_latent_map(fitted, digits[1][:3], path=str(tmp_path / "page.html"))
    assert path == tmp_path / "page.html"
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


def test_default_path_is_in_the_working_directory(fitted, digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_latent_map(fitted, digits[1][:3])
    assert (tmp_path / "latent_map.html").is_file()


def test_failure_leaves_the_page_that_was_there(fitted, digits, tmp_path):
    path = tmp_path / "page.html"
    path.write_text("before", encoding="utf-8")
    with pytest.raises(ValueError, match="image_shape"):
        write_latent_map(fitted, digits[1], path=path, image_shape=(9, 9))
    assert path.read_text(encoding="utf-8") == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


def test_page_refers_to_no_other_file(digits_map):
    text = digits_map.read_text(encoding="utf-8")
    markup = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"\b(src|href)=|@import|url\(", markup)
    assert "default-src 'none'" in markup


def test_the_same_call_writes_the_same_page(fitted, digits, tmp_path):
    pages = [
        write_latent_map(fitted, digits[1], digits[3], tmp_path / name, max_points=50).read_bytes()
        for name in ("a", "b")
    ]
    assert pages[0] == pages[1]


def test_sample_keeps_the_shares_of_classes(fitted, digits, tmp_path):
    X, y = digits[0], np.where(np.arange(len(digits[0])) < 100, "few", "many")
    path = write_latent_map(fitted, X, y, tmp_path / "page.html", max_points=135)
    given = contents(path)
    assert given["n_rows"] == len(X)
    assert given["rows"]["shape"] == [135]
    assert given["target"]["classes"] == ["few", "many"]
    page = unpack(given["target"]["values"])
    assert (page == 0).sum() == pytest.approx(135 * 100 / len(X), abs=1)


def unpack(packed):
    data = zlib.decompress(base64.b64decode(packed["data"]))
    return np.frombuffer(data, packed["dtype"]).reshape(packed["shape"])


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        ([1, 0, 1], ["0", "1"]),
        (["b", "a", None], ["a", "b", "missing"]),
        ([True, False, True], ["False", "True"]),
        ([0.0, np.nan, 1.0], ["0", "1", "missing"]),
        (pd.array(["b", None, "a"], dtype="string"), ["a", "b", "missing"]),
        (np.array([[1], [2], [3]]), ["1", "2", "3"]),
    ],
)
def test_classes(fitted, digits, tmp_path, y, classes):
    path = write_latent_map(fitted, digits[1][:3], y, tmp_path / "page.html")
    assert contents(path)["target"]["classes"] == classes


def test_many_numbers_are_a_quantity_and_many_names_have_a_rest(fitted, digits, tmp_path):
    X = digits[1][:60]
    y = np.arange(60.0)
    y[3] = np.nan
    target = contents(write_latent_map(fitted, X, y, tmp_path / "page.html"))["target"]
    assert target["classes"] is None
    np.testing.assert_array_equal(unpack(target["values"]), y)
    few = contents(write_latent_map(fitted, X, y % 3 / 2, tmp_path / "page.html"))["target"]
    assert few["classes"] is None  # three numbers, but not integers: as in a display
    names = [f"class {i}" for i in range(60)]
    target = contents(write_latent_map(fitted, X, names, tmp_path / "page.html"))["target"]
    assert len(target["classes"]) == 39
    assert target["classes"][-1] == "22 other classes"


DATES = pd.Series(pd.date_range("2023-03-01", periods=30, freq="18h", tz="Europe/Paris"))


@pytest.mark.parametrize(
    "y",
    [
        DATES,
        np.array([np.inf, -np.inf, *range(28)]),
        np.array([np.inf, *np.linspace(0, 1, 29)]),
        pd.array([True, None, False] * 10, dtype="boolean"),
        pd.array([3, None, 1] * 10, dtype="Int64"),
        pd.Categorical(["low", "high", None] * 10, ["low", "mid", "high"]),
        [f"class {i}" for i in range(15)] * 2,
        pd.Series(pd.to_timedelta(range(30), "h")),
    ],
    ids=["dates", "infinite", "one infinite", "booleans", "integers", "ordered", "names", "hours"],
)
def test_targets_are_what_they_are_in_a_display(fitted, digits, tmp_path, y):
    path = write_latent_map(fitted, digits[1][:30], y, tmp_path / "page.html")
    classes = contents(path)["target"]["classes"]
    display = LatentSpaceDisplay(np.eye(30)[:, :2], y=y).plot()
    legend = display.ax_.get_legend()
    plt.close(display.figure_)
    assert classes == (None if legend is None else [t.get_text() for t in legend.get_texts()])


def test_dates_are_exact_seconds_on_their_own_clock(fitted, digits, tmp_path):
    path = write_latent_map(fitted, digits[1][:30], DATES, tmp_path / "page.html")
    target = contents(path)["target"]
    assert target["is_date"]
    wall = DATES.dt.tz_localize(None).to_numpy().astype("M8[s]").astype(float)
    np.testing.assert_array_equal(unpack(target["values"]), wall)


def test_title_and_names(fitted, digits, tmp_path):
    X, path = digits[1][:30], tmp_path / "page.html"
    y = pd.Series(digits[3][:30], name="digit")
    given = contents(write_latent_map(fitted, X, y, path))
    assert (given["title"], given["target"]["name"], given["index"]) == (
        "Latent map",
        "digit",
        None,
    )
    given = contents(write_latent_map(fitted, X, y, path, title=HOSTILE, target_name="a & b"))
    assert (given["title"], given["target"]["name"]) == (HOSTILE, "a & b")
    assert "window.hacked=1</script>" not in path.read_text(encoding="utf-8")
    assert contents(write_latent_map(fitted, X, digits[3][:30], path))["target"]["name"] == "class"
    assert contents(write_latent_map(fitted, X, X[:, 20] / 7, path))["target"]["name"] == "y"
    with pytest.raises(TypeError, match="positional"):
        write_latent_map(fitted, X, y, path, None, None, 10, "title")


@pytest.mark.parametrize(
    ("index", "name", "labels"),
    [
        (pd.RangeIndex(178), None, None),
        (pd.Index(range(178)), None, None),
        (pd.Index(range(5, 183)), "index", ["5", "6"]),
        (
            pd.Index([f"bottle {i}" for i in range(178)], name="wine"),
            "wine",
            ["bottle 0", "bottle 1"],
        ),
        (pd.date_range("2024-01-01", periods=178, name="day"), "day", ["2024-01-01", "2024-01-02"]),
        (
            pd.MultiIndex.from_product([["a", "b"], range(89)], names=["cellar", None]),
            "cellar",
            ["a, 0", "a, 1"],
        ),
        (pd.Index([None, np.nan, *map(str, range(176))]), "index", None),
    ],
)
def test_index_of_a_frame(wine_fitted, wine, tmp_path, index, name, labels):
    X = wine[0].set_index(index)
    pipeline = make_pipeline("passthrough", wine_fitted)
    for max_points in (178, 100):
        path = write_latent_map(pipeline, X, path=tmp_path / "page.html", max_points=max_points)
        given = contents(path)
        if name is None:
            assert given["index"] is None
            continue
        assert given["index"]["name"] == name
        assert len(given["index"]["labels"]) == max_points
        if labels is not None and max_points == 178:
            assert given["index"]["labels"][:2] == labels
        if len(set(map(str, index))) == 178 and index.nlevels == 1 and (labels or "x")[0][0] != "2":
            rows = unpack(given["rows"])
            assert given["index"]["labels"] == [str(label) for label in index[rows]]


@pytest.mark.parametrize("kind", ["array", "float32", "sparse", "frame", "list"])
def test_all_kinds_of_data_give_the_same_rows(fitted, digits, tmp_path, kind):
    X = digits[1][:20]
    given = {
        "array": X,
        "float32": X.astype(np.float32),
        "sparse": sparse.csr_matrix(X),
        "frame": pd.DataFrame(X),
        "list": X.tolist(),
    }[kind]
    page = contents(write_latent_map(fitted, given, path=tmp_path / "page.html", max_points=15))
    np.testing.assert_array_equal(unpack(page["values"]), X[unpack(page["rows"])])


def test_missing_values(fitted, digits, tmp_path):
    X = digits[1][:20].copy()
    X[3, 5] = np.nan
    page = contents(write_latent_map(fitted, X, path=tmp_path / "page.html"))
    np.testing.assert_array_equal(unpack(page["values"]), X)
    page = contents(write_latent_map(fitted, X, path=tmp_path / "page.html", image_shape=(8, 8)))
    assert (unpack(page["values"]) == page["values"]["missing"]).sum() == 1


def test_columns_without_information(wine, tmp_path):
    """The page decodes constants exactly, and as missing what was never known."""
    X = wine[0].copy()
    X["ash"], X["hue"] = 2.5, np.nan
    with pytest.warns(UserWarning, match="no known value in column 'hue'"):
        transformer = AutoencoderTransformer(2, max_epochs=2, random_state=0).fit(X)
    page = contents(write_latent_map(transformer, X, path=tmp_path / "page.html"))
    codes = transformer.transform(X)
    decoded = transformer.decoder_(torch.from_numpy(np.float32(codes))).detach().numpy()
    scale, offset = (unpack(page["layers"][-1][name]) for name in ("scale", "offset"))
    expected = transformer.inverse_transform(codes)
    np.testing.assert_allclose(decoded * scale + offset, expected, rtol=1e-4)
    assert ((decoded * scale + offset)[:, 2] == 2.5).all()


def test_names_of_columns(wine, wine_fitted, tmp_path):
    X, _ = wine
    path = tmp_path / "page.html"
    assert contents(write_latent_map(wine_fitted, X, path=path))["feature_names"] == list(X)
    names = [f"f{i}" for i in range(13)]
    page = contents(write_latent_map(wine_fitted, X, path=path, feature_names=names))
    assert page["feature_names"] == names


def test_pipeline_shows_rows_as_the_autoencoder_sees_them(wine, tmp_path):
    X, y = wine
    X = X.assign(cellar=y)
    columns = make_column_transformer(
        (OneHotEncoder(sparse_output=False), ["cellar"]), remainder=MinMaxScaler()
    )
    pipeline = make_pipeline(
        make_pipeline(columns, "passthrough"),
        AutoencoderTransformer(max_epochs=3, random_state=0),
        StandardScaler(),
    ).fit(X)
    page = contents(write_latent_map(pipeline, X, y, tmp_path / "page.html", max_points=100))
    assert "onehotencoder__cellar_low" in page["feature_names"]
    rows = unpack(page["rows"])
    np.testing.assert_allclose(unpack(page["values"]), pipeline[0].transform(X)[rows])
    np.testing.assert_allclose(
        unpack(page["codes"]), pipeline[:2].transform(X)[rows], rtol=1e-4, atol=1e-4
    )


def test_other_networks_bring_a_grid(digits, tmp_path):
    X = digits[1][:50]
    for network in (
        ConvNetwork(channels=(4,)),
        lambda n, k: (nn.Linear(n, k), nn.Sequential(nn.Linear(k, n), nn.Hardtanh(-99, 99))),
    ):
        transformer = AutoencoderTransformer(network=network, max_epochs=2, random_state=0).fit(X)
        page = contents(write_latent_map(transformer, X, path=tmp_path / "page.html"))
        assert page["layers"] is None
        assert [len(nodes) for nodes in page["nodes"]] == [17, 17, 17]
        assert page["image_shape"] == ([1, 8, 8] if isinstance(network, ConvNetwork) else None)


@pytest.mark.filterwarnings("ignore:n_components=20 is not below:UserWarning")
@pytest.mark.parametrize("n_components", [1, 2, 3, 4, 20])
def test_any_number_of_codes(wine, tmp_path, n_components):
    transformer = AutoencoderTransformer(n_components, max_epochs=2, random_state=0).fit(wine[0])
    page = contents(write_latent_map(transformer, wine[0], path=tmp_path / "page.html"))
    assert page["points"]["shape"] == [178, min(n_components, 3)]
    assert page["sliders_are_codes"] == (n_components <= 16)
    codes = transformer.transform(wine[0])
    points = (codes - page["mean"]) @ np.array(page["directions"]).T
    np.testing.assert_allclose(unpack(page["points"]), points, rtol=1e-4, atol=1e-4)


def test_what_codes_depend_on(wine_fitted, wine, wine_map):
    given = contents(wine_map)
    rows = wine[0].iloc[unpack(given["rows"])]
    importance = code_importance(wine_fitted, rows)
    names = wine_fitted.get_feature_names_out()[given["meaning"]["codes"]]
    assert names.tolist() == importance["code"].tolist()
    np.testing.assert_allclose(given["meaning"]["drops"], importance["drop"], rtol=1e-6)
    assert given["meaning"]["r2"] == pytest.approx(importance["cumulative"].iloc[-1])
    spread = wine_fitted.transform(rows).std(axis=0)[:, None]
    expected = (code_sensitivity(wine_fitted, rows) / spread).loc[names]
    np.testing.assert_allclose(unpack(given["meaning"]["sensitivity"]), expected, rtol=1e-5)


class Rounded(nn.Linear):
    """A layer that passes no gradient to its input."""

    def forward(self, x):
        return super().forward(x.detach())


@pytest.mark.filterwarnings("ignore:n_components=17 is not below:UserWarning")
@pytest.mark.parametrize("kind", ["many codes", "no gradient"])
def test_maps_without_what_codes_depend_on(wine, tmp_path, kind):
    settings = {"n_components": 17 if kind == "many codes" else 2, "max_epochs": 1}
    if kind == "no gradient":
        settings["network"] = lambda n, k: (Rounded(n, k), nn.Linear(k, n))
    transformer = AutoencoderTransformer(random_state=0, **settings).fit(wine[0])
    page = write_latent_map(transformer, wine[0], path=tmp_path / "page.html")
    assert contents(page)["meaning"] is None


def test_one_row(fitted, digits, tmp_path):
    page = contents(write_latent_map(fitted, digits[1][:1], ["a"], tmp_path / "page.html"))
    assert page["points"]["shape"] == [1, 3]


def test_names_do_not_end_the_element_they_are_in(wine_fitted, wine, tmp_path):
    names = [f"{HOSTILE}{i}" for i in range(13)]
    y = np.where(wine[1] == "low", HOSTILE, "\u2028</SCRIPT>")
    path = write_latent_map(wine_fitted, wine[0], y, tmp_path / "page.html", feature_names=names)
    text = path.read_text(encoding="utf-8")
    assert "window.hacked=1</script>" not in text
    page = contents(path)
    assert page["feature_names"] == names
    assert page["target"]["classes"] == [HOSTILE, "\u2028</SCRIPT>"]


def mixed_table(n=120):
    """Columns of every kind; some levels are rare, and one is like markup."""
    rng = np.random.default_rng(0)
    days = pd.Timestamp("2024-02-01") + pd.to_timedelta(rng.integers(0, 90, n), "D")
    X = pd.DataFrame(
        {
            "number": rng.normal(50, 10, n),
            "whole": rng.integers(0, 30, n),
            "flag": rng.random(n) < 0.4,
            "place": rng.choice(["Bern", "Genf", HOSTILE], n),
            "size": pd.Categorical(rng.choice(["small", "large"], n), ["small", "large"]),
            "street": [f"street {i % 40 if i % 3 else 0}" for i in range(n)],
            "day": days,
            "time": days.tz_localize("UTC").tz_convert("Asia/Tokyo") + pd.Timedelta(150, "min"),
            "stay": pd.to_timedelta(rng.integers(0, 4000, n), "min"),
        }
    )
    X.loc[2, ["number", "place", "day"]] = None
    return X


@pytest.fixture(scope="module")
def table_fitted():
    """Two codes of a table. Not to be changed."""
    transformer = AutoencoderTransformer(2, max_epochs=40, max_categories=8, random_state=0)
    return transformer.fit(mixed_table())


@pytest.fixture(scope="module")
def table_rows():
    """Rows of a table, one with a level that the fit did not see."""
    rows = mixed_table()[:30]
    rows.loc[1, "place"] = "Chur"
    return rows


@pytest.fixture(scope="module")
def table_map(tmp_path_factory, table_fitted, table_rows):
    path = tmp_path_factory.mktemp("map") / "table.html"
    return write_latent_map(table_fitted, table_rows, table_rows["size"], path)


def as_shown(column):
    """A column of `mixed_table` as texts in the page."""
    shown = []
    for value in column:
        if value is None or value != value:
            shown.append("missing")
        elif isinstance(value, pd.Timedelta):
            days, rest = divmod(int(value.total_seconds()), 86_400)
            clock = f"{rest // 3600:02}:{rest % 3600 // 60:02}" + (
                f":{rest % 60:02}" * (rest % 60 > 0)
            )
            parts = [f"{days} d"] * (days > 0) + [clock] * (not days or rest > 0)
            shown.append(" ".join(parts))
        elif isinstance(value, pd.Timestamp):
            shown.append(re.sub("( 00:00)?:00$", "", str(value.tz_localize(None).floor("s"))))
        else:
            shown.append(str(value))
    return shown


def texts(page, place, column):
    return page.locator(f"{place} tbody tr td:nth-of-type({column})").all_inner_texts()


def assert_same_row(shown, expected):
    """Whether texts are those of a frame of one row; numbers have a few digits."""
    assert len(shown) == expected.shape[1]
    for text, name in zip(shown, expected, strict=True):
        (value,) = as_shown(expected[name])
        if name == "number" and value != "missing":
            assert float(text) == pytest.approx(float(value), rel=1e-3)
        elif name in ("time", "stay") and text != value:
            # To the second, as the network computes in float32.
            assert text[:-2] == value[:-2]
        else:
            assert text == value


def test_page_has_the_levels_as_they_are(table_fitted, table_rows, table_map):
    page = contents(table_map)
    assert [each["kind"] for each in page["columns"]] == [
        "number", "integer", "boolean", "category", "category", "category", "date", "date",
        "duration",
    ]  # fmt: skip
    values = unpack(page["values"])
    for j, name in enumerate(table_rows):
        if page["columns"][j]["kind"] != "category":
            continue
        levels = page["columns"][j]["levels"]
        shown = ["missing" if np.isnan(place) else levels[int(place)] for place in values[:, j]]
        assert shown == as_shown(table_rows[name])
    # Eight levels have an output each, the last one of a group, and the page knows their names.
    assert page["columns"][5]["n_outputs"] == 8
    assert page["columns"][7]["zone"] == "Asia/Tokyo"
    assert page["columns"][6]["zone"] is None


@pytest.mark.parametrize("kind", ["number", "category", "both"])
def test_layers_of_a_table_give_its_rows(table_rows, tmp_path, kind):
    names = {"number": ["number", "day"], "category": ["place", "size"], "both": list(table_rows)}
    X = mixed_table()[names[kind]]
    transformer = AutoencoderTransformer(1, max_epochs=3, random_state=0).fit(X)
    page = contents(write_latent_map(transformer, X, path=tmp_path / "page.html"))
    decoded = transformer.decoder_(torch.from_numpy(unpack(page["codes"]).copy()))
    *_, affine, order = page["layers"]
    outputs = decoded.detach().numpy() * unpack(affine["scale"]) + unpack(affine["offset"])
    outputs = outputs[:, order["order"]]
    expected = transformer.inverse_transform(unpack(page["codes"]))
    first = 0
    for j, column in enumerate(page["columns"]):
        of_column = outputs[:, first : first + column.get("n_outputs", 1)]
        first += of_column.shape[1]
        if column["kind"] == "category":
            found = [column["levels"][i] for i in of_column.argmax(axis=1)]
            assert found == expected.iloc[:, j].astype(str).tolist()
        elif column["kind"] == "number":
            np.testing.assert_allclose(of_column[:, 0], expected.iloc[:, j], rtol=1e-4)
    assert first == outputs.shape[1]


def test_large_tables_are_exact(table_fitted, table_rows, tmp_path, monkeypatch):
    monkeypatch.setattr("aefeatures._pictures.latent_map._EXACT_ELEMENTS", 10)
    page = contents(write_latent_map(table_fitted, table_rows, path=tmp_path / "page.html"))
    days = unpack(page["values"])[:, 6]
    known = table_rows["day"].notna().to_numpy()
    seconds = table_rows["day"].to_numpy().astype("M8[s]").astype(float)
    np.testing.assert_array_equal(days[known], seconds[known])
    assert np.isnan(days[~known]).all()


# Refusals


def test_bad_input(fitted, digits, tmp_path):
    X, y = digits[1], digits[3]
    path = tmp_path / "page.html"
    with pytest.raises(NotFittedError, match="not fitted"):
        write_latent_map(AutoencoderTransformer(), X, path=path)
    with pytest.raises(NotFittedError, match="not fitted"):
        write_latent_map(make_pipeline(StandardScaler(), AutoencoderTransformer()), X, path=path)
    with pytest.raises(TypeError, match=r"that has one as a step, got StandardScaler\(\)"):
        write_latent_map(StandardScaler(), X, path=path)
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[450, 449\]"):
        write_latent_map(fitted, X, y[1:], path=path)
    with pytest.raises(ValueError, match=r"image_shape=\(7, 9\) has 63 entries, but X has 64"):
        write_latent_map(fitted, X, path=path, image_shape=(7, 9))
    with pytest.raises(ValueError, match=r"\(4, 4, 4\) has 4 channels, but pictures need 1"):
        write_latent_map(fitted, X, path=path, image_shape=(4, 4, 4))
    with pytest.raises(ValueError, match=r"feature_names has 2 names, but the .* sees 64 columns"):
        write_latent_map(fitted, X, path=path, feature_names=["a", "b"])
    with pytest.raises(ValueError, match="max_points must be at least 1, got 0"):
        write_latent_map(fitted, X, path=path, max_points=0)
    with pytest.raises(ValueError, match=r"folder of path=.* does not exist"):
        write_latent_map(fitted, X, path=tmp_path / "nowhere" / "page.html")
    with pytest.raises(ValueError, match="63 features"):
        write_latent_map(fitted, X[:, 1:], path=path)
    assert not path.exists()


def test_tables_are_no_pictures(table_fitted, table_rows, tmp_path):
    with pytest.raises(ValueError, match=r"image_shape needs rows of numbers, but .* on a table"):
        write_latent_map(table_fitted, table_rows, path=tmp_path / "a.html", image_shape=(3, 3))


def test_without_plotly(fitted, digits, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(ImportError, match=r"pip install 'aefeatures\[map\]'"):
        write_latent_map(fitted, digits[1], path=tmp_path / "page.html")


def test_large_pages_are_pointed_out(fitted, digits, tmp_path, monkeypatch):
    monkeypatch.setattr("aefeatures._pictures.latent_map._LARGE_PAGE_BYTES", 4_000_000)
    with pytest.warns(UserWarning, match=r"MB large. Lower max_points \(now 20\)"):
        write_latent_map(fitted, digits[1], path=tmp_path / "page.html", max_points=20)

    with pytest.warns(UserWarning, match="MB large") as caught:
        write_latent_map(fitted, digits[1], path=tmp_path / "page.html", max_points=20)
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("names", "values"),
    [
        (["image_shape"], [(8, 8)]),
        (["image_shape", "feature_names"], [None, [f"x{i}" for i in range(64)]]),
        (["image_shape", "feature_names", "max_points"], [(8, 8), None, 10]),
    ],
)
def test_arguments_by_position_are_deprecated(fitted, digits, tmp_path, names, values):
    X, y = digits[1][:30], digits[3][:30]
    by_name = dict(zip(names, values, strict=True))
    expected = write_latent_map(fitted, X, y, tmp_path / "new.html", **by_name).read_bytes()
    text = r"=\.\.\., ".join(names)
    with pytest.warns(FutureWarning, match=rf"Pass {text}=\.\.\. to write_latent_map by") as caught:
        page = write_latent_map(fitted, X, y, tmp_path / "old.html", *values)
    assert [each.filename for each in caught] == [__file__]
    assert page.read_bytes() == expected


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["lecture", "neighbors"])
def test_page_of_mnist_is_below_15_mb(mnist, tmp_path, preset):
    transformer = AutoencoderTransformer.from_preset(preset, max_epochs=2, random_state=0)
    transformer.fit(mnist[0][::30])
    path = write_latent_map(
        transformer, mnist[1], mnist[3], tmp_path / "page.html", image_shape=(28, 28)
    )
    assert contents(path)["rows"]["shape"] == [5000]
    assert path.stat().st_size < 15_000_000


# In a browser


@pytest.fixture
def show(browser):
    """Open a page; at the end nothing may have failed in it, nor asked for another file."""
    problems, requests, contexts = [], [], []

    def show(path, **settings):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **settings})
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: problems.append(dialog.message))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_selector("main:not([aria-busy])", timeout=120_000)
        return page

    yield show
    for context in contexts:
        context.close()
    assert problems == []
    assert len(requests) == len(contexts), requests


def channels(canvas):
    """Red, green, blue and opacity of a picture in the page."""
    data = canvas.evaluate(
        "c => [c.height, c.width, ...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
    )
    return np.array(data[2:]).reshape(*data[:2], 4)


def pixels(canvas):
    """Grey values of a picture in the page."""
    return channels(canvas)[..., 0]


def assert_shows(canvas, row, low=0, high=16):
    """Whether a picture shows a row of digits, to the rounding of a grey value."""
    expected = ((np.asarray(row) - low) / (high - low) * 255).clip(0, 255).reshape(8, 8)
    np.testing.assert_allclose(pixels(canvas), expected, atol=1)


def numbers(page, place, column):
    """What a table in the page says, a number per row."""
    cells = page.locator(f"{place} tbody tr td:nth-of-type({column})")
    return np.array([float(text) for text in cells.all_inner_texts()])


def row_shown(page):
    return int(page.input_value("#row"))


# Where Plotly draws the points: by its axes, or by the camera of three dimensions.
PLACES = """() => {
  const plot = document.getElementById("plot");
  const layout = plot._fullLayout;
  const onAxes = (x, y) => {
    const box = plot.getBoundingClientRect();
    return [
      box.left + layout.xaxis._offset + layout.xaxis.l2p(x),
      box.top + layout.yaxis._offset + layout.yaxis.l2p(y),
    ];
  };
  const inScene = (...point) => {
    const scene = layout.scene._scene;
    const camera = scene.glplot.cameraParams;
    let v = [...point.map((value, k) => value * scene.dataScale[k]), 1];
    for (const m of [camera.model, camera.view, camera.projection]) {
      v = [0, 1, 2, 3].map(r => m[r] * v[0] + m[r + 4] * v[1] + m[r + 8] * v[2] + m[r + 12] * v[3]);
    }
    const box = scene.container.getBoundingClientRect();
    return [
      box.left + box.width * (1 + v[0] / v[3]) / 2,
      box.top + box.height * (1 - v[1] / v[3]) / 2,
    ];
  };
  const traces = plot.data.filter(trace => !trace.meta);
  return traces.flatMap(({x, y, z}) =>
    Array.from(x, (_, i) => (z ? inScene(x[i], y[i], z[i]) : onAxes(x[i], y[i])))
  );
}"""


def hover_points(page, n_points):
    """Move the mouse to points until so many rows were shown; return row and place of each."""
    found = {}
    for x, y in page.evaluate(PLACES):
        if any(np.hypot(x - u, y - v) < 50 for u, v in found.values()):
            continue
        # From elsewhere, and not from the row that is shown already.
        before = row_shown(page)
        page.mouse.move(2, 2)
        page.wait_for_timeout(150)
        page.mouse.move(x, y)
        page.wait_for_timeout(300)
        if row_shown(page) != before:
            found[row_shown(page)] = (x, y)
            if len(found) == n_points:
                return found
    pytest.fail(f"The mouse met {len(found)} rows.")


def hover(page, row, place):
    """Keep the mouse at a place, as a hand does, until it is seen: a drawing may be under way."""
    for i in range(60):
        page.mouse.move(place[0] + i % 2, place[1])
        page.wait_for_timeout(200)
        if row_shown(page) == row:
            return
    pytest.fail(f"Row {row} is not shown.")


def test_hover_shows_picture_reconstruction_class_and_error(show, digits_map, fitted, digits):
    page = show(digits_map)
    X, y = digits[1], digits[3]
    pictures = page.locator("#record canvas")
    (row,) = hover_points(page, 1)
    assert_shows(pictures.nth(0), X[row])
    assert_shows(pictures.nth(1), fitted.reconstruct(X[[row]]))
    assert page.inner_text("#class") == str(y[row])
    error = float(page.inner_text("#error").split()[0])
    assert error == pytest.approx(-fitted.score_samples(X[[row]])[0], rel=1e-3)


def test_hover_shows_values_of_a_table(show, wine_map, wine_fitted, wine):
    page = show(wine_map)
    X = wine[0]
    for row in hover_points(page, 2):
        page.fill("#row", str(row))
        page.press("#row", "Enter")
        assert page.inner_text("#class") == wine[1][row]
        np.testing.assert_allclose(numbers(page, "#record", 2), X.iloc[row], rtol=1e-3)
        reconstructed = wine_fitted.reconstruct(X.iloc[[row]])[0]
        np.testing.assert_allclose(numbers(page, "#record", 3), reconstructed, rtol=1e-3)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_click_pins_and_two_pins_show_the_path(show, request, dimensions, fitted, digits):
    page = show(request.getfixturevalue("wine_map" if dimensions == 2 else "digits_map"))
    places = hover_points(page, 2)
    for row, place in places.items():
        hover(page, row, place)
        page.mouse.down()
        page.mouse.up()
    letters = page.locator("#pins div").all_inner_texts()
    assert [re.search(r"row (\d+)", text)[1] for text in letters] == [str(row) for row in places]
    if dimensions == 3:
        start, stop = fitted.transform(digits[1][list(places)])
        steps = page.locator("#path canvas")
        assert steps.count() == 8
        for s in (0, 3, 7):
            code = start + s / 7 * (stop - start)
            assert_shows(steps.nth(s), fitted.inverse_transform(code[None]))
    page.locator("#pins button").first.click()
    assert page.locator("#pins div").count() == 1
    assert page.locator("#path *").count() == 0


@pytest.mark.slow
def test_turning_pins_nothing(show, digits_map):
    page = show(digits_map)
    ((_, place),) = hover_points(page, 1).items()
    page.mouse.move(*place)
    page.mouse.down()
    page.mouse.move(place[0] + 80, place[1] + 10, steps=4)
    page.mouse.up()
    assert page.locator("#pins div").count() == 0


def test_switching_a_class_hides_it(show, wine_map, wine):
    page = show(wine_map)
    ((row, place),) = hover_points(page, 1).items()
    name = wine[1][row]
    button = page.locator("#legend button", has_text=name)
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    page.click("#previous" if name == "high" else "#next")  # "high" are the last rows
    other = row_shown(page)
    assert wine[1][other] != name  # the rows that the buttons step through are those in sight
    page.wait_for_timeout(300)
    page.mouse.move(*place)
    page.wait_for_timeout(300)
    assert row_shown(page) != row
    button.click()
    hover(page, row, place)


@pytest.fixture(scope="module")
def named_map(tmp_path_factory, wine):
    """Three codes of rows with names, a missing and a far value in a column."""
    X = wine[0].set_index(pd.Index([f"{HOSTILE}{i}" for i in range(178)], name="bottle"))
    X.iloc[3, 12], X.iloc[0, 4] = 1e6, np.nan
    transformer = AutoencoderTransformer(3, max_epochs=40, random_state=0).fit(X)
    path = tmp_path_factory.mktemp("map") / "named.html"
    y = pd.Series(wine[1], name="<b>cultivar</b>")
    return write_latent_map(transformer, X, y, path, title=f"Wines {HOSTILE}")


def drawn_colours(page):
    """What Plotly was given as colours of the points, a list for each class."""
    return page.evaluate(
        "() => document.getElementById('plot').data.filter(t => !t.meta).map(t => t.marker.color)"
    )


def test_title_index_and_name_of_y_are_shown_as_text(show, named_map):
    page = show(named_map)
    assert page.title() == page.inner_text("h1") == f"Wines {HOSTILE}"
    page.fill("#row", "7")
    page.press("#row", "Enter")
    assert page.inner_text("#index-term") == "bottle"
    assert page.inner_text("#index") == f"{HOSTILE}7"
    assert page.inner_text("#class-term") == "<b>cultivar</b>"
    page.click("#pin")
    assert f"{HOSTILE}7" in page.inner_text("#pins")
    assert page.locator("main b, main img, h1 img").count() == 0


def test_points_are_coloured_by_a_column(show, named_map, wine):
    page = show(named_map)
    options = page.locator("#colour option").all_inner_texts()
    assert options == ["<b>cultivar</b>", "reconstruction error", *wine[0].columns]
    assert all(isinstance(colour, str) for colour in drawn_colours(page))
    page.click("#none")
    page.locator("#legend button", has_text="low").click()
    page.select_option("#colour", label="magnesium")
    page.wait_for_timeout(300)
    assert "magnesium is missing (1)" in page.inner_text("#scale")
    # Classes stay switched off.
    pressed = [b.get_attribute("aria-pressed") for b in page.locator("#legend button").all()]
    assert sorted(pressed) == ["false", "false", "true"]
    colours = drawn_colours(page)
    position = page.locator("#legend .name").all_inner_texts().index("low")
    low = colours[position]
    assert len(low) == (wine[1] == "low").sum()
    assert low[0] == "#8a8f98"  # missing
    values = wine[0]["magnesium"][wine[1] == "low"].to_numpy()
    lightness = [sum(map(int, re.findall(r"\d+", colour))) for colour in low[1:]]
    order = np.argsort(values[1:], kind="stable")
    assert np.corrcoef(np.arange(len(order)), np.array(lightness)[order])[0, 1] > 0.9
    # One far value does not make the rest one colour, and is not hidden in the scale.
    page.select_option("#colour", label="proline")
    page.wait_for_timeout(300)
    assert len(set(drawn_colours(page)[position])) > 30
    assert "\u2265" in page.inner_text("#scale .ticks")
    page.select_option("#colour", label="<b>cultivar</b>")
    page.wait_for_timeout(300)
    assert page.locator("#scale").is_hidden()
    assert all(isinstance(colour, str) for colour in drawn_colours(page))


@pytest.mark.parametrize("kind", ["dates", "infinite"])
def test_scales_in_the_page(show, fitted, digits, tmp_path, kind):
    y = DATES if kind == "dates" else np.array([np.inf, np.nan, *np.linspace(0.25, 7, 28)])
    page = show(write_latent_map(fitted, digits[1][:30], y, tmp_path / "page.html"))
    ticks = page.locator("#scale .ticks span").all_inner_texts()
    (colours,) = drawn_colours(page)
    if kind == "dates":
        assert ticks == ["2023-03-01", "2023-03-11 21:00", "2023-03-22 18:00"]
        page.fill("#row", "1")
        page.press("#row", "Enter")
        assert page.inner_text("#class") == "2023-03-01 18:00"
        assert len(set(colours)) == 30
    else:
        assert ticks == ["0.25", "3.625", "\u2265 7"]
        assert page.inner_text("#class") == "Infinity"
        assert colours[0] == colours[-1] != colours[1]
        assert len(set(colours)) == 29


@pytest.mark.parametrize("kind", ["digits_map", pytest.param("named_map", marks=pytest.mark.slow)])
def test_first_screen(show, request, kind):
    """The points fill their panel, and the decoder is in sight."""
    page = show(request.getfixturevalue(kind))
    page.wait_for_timeout(300)
    for element in ("#decoder-title", "#slider-0", "#slider-2", "#decoded > :last-child"):
        box = page.locator(element).bounding_box()
        assert box["y"] < 700
        assert box["x"] + box["width"] <= 1280
    plot = page.locator("#plot")
    shape = plot.bounding_box()
    images = []
    for _ in range(2):
        picture = Image.open(io.BytesIO(plot.screenshot())).convert("RGB")
        images.append(np.asarray(picture, dtype=int))
        page.click("#none")  # leaves the axes alone
        page.wait_for_timeout(500)
    rows, columns = np.nonzero(np.abs(images[0] - images[1]).max(axis=-1) > 40)
    tall, wide = np.ptp(rows) / shape["height"], np.ptp(columns) / shape["width"]
    assert max(tall, wide) > 0.65
    assert min(tall, wide) > 0.35
    margins = (
        columns.min(),
        shape["width"] - columns.max(),
        rows.min(),
        shape["height"] - rows.max(),
    )
    assert min(margins) > 4  # none is cut off


def test_sliders_decode_as_inverse_transform(show, digits_map, fitted):
    page = show(digits_map)
    decoded = page.locator("#decoded canvas")
    before = pixels(decoded)
    for k, presses in ((0, 7), (1, -4), (2, 9)):
        for _ in range(abs(presses)):
            page.press(f"#slider-{k}", "ArrowRight" if presses > 0 else "ArrowLeft")
    codes = [[float(page.input_value(f"#slider-{k}")) for k in range(3)]]
    assert_shows(decoded, fitted.inverse_transform(codes))
    assert np.abs(pixels(decoded) - before).max() > 20
    box = page.locator("#slider-0").bounding_box()
    page.mouse.click(box["x"] + 0.8 * box["width"], box["y"] + box["height"] / 2)
    moved = [[float(page.input_value(f"#slider-{k}")) for k in range(3)]]
    assert moved[0][0] != codes[0][0]
    assert_shows(decoded, fitted.inverse_transform(moved))


@pytest.mark.parametrize(
    ("activation", "normalization", "scaling"),
    [
        ("gelu", "layer", "standard"),
        *(
            pytest.param(*parameters, marks=pytest.mark.slow)
            for parameters in [
                ("silu", "batch", "feature"),
                ("leaky_relu", None, "feature"),
                ("elu", "layer", None),
                ("tanh", "batch", "global"),
                ("sigmoid", None, "standard"),
            ]
        ),
    ],
)
def test_page_computes_every_dense_decoder(
    show, wine, tmp_path, activation, normalization, scaling
):
    X = wine[0]
    transformer = AutoencoderTransformer(
        5,
        hidden_layer_sizes=(16, 8),
        activation=activation,
        normalization=normalization,
        scaling=scaling,
        max_epochs=20,
        random_state=0,
    ).fit(X)
    page = show(write_latent_map(transformer, X, path=tmp_path / "page.html"))
    for k in range(5):
        page.press(f"#slider-{k}", "PageUp" if k % 2 else "PageDown")
    code = [[float(page.input_value(f"#slider-{k}")) for k in range(5)]]
    np.testing.assert_allclose(
        numbers(page, "#decoded", 2), transformer.inverse_transform(code)[0], rtol=1e-3, atol=1e-3
    )


def test_page_interpolates_what_it_cannot_compute(show, digits, tmp_path):
    X = digits[1][:200]
    transformer = AutoencoderTransformer(
        network=ConvNetwork(channels=(8,)), max_epochs=30, random_state=0
    ).fit(X)
    page = show(write_latent_map(transformer, X, path=tmp_path / "page.html"))
    assert "interpolated" in page.inner_text("#decoder-hint")
    page.click("#pin")
    page.fill("#row", "7")
    page.press("#row", "Enter")
    page.click("#pin")
    reconstructed = transformer.reconstruct(X[[0, 7]])
    steps = page.locator("#path canvas")
    assert_shows(steps.nth(0), reconstructed[0])
    assert_shows(steps.nth(7), reconstructed[1])
    steps.nth(3).click()
    codes = [[float(page.input_value(f"#slider-{k}")) for k in range(3)]]
    expected = transformer.inverse_transform(codes).reshape(8, 8) / 16 * 255
    off = np.abs(pixels(page.locator("#decoded canvas")) - expected.clip(0, 255))
    assert off.mean() < 5


def test_names_are_shown_as_text(show, wine_fitted, wine, tmp_path):
    names = [f"{HOSTILE} {i}" for i in range(13)]
    y = np.where(wine[1] == "low", HOSTILE, "<b>bold</b> <a href='javascript:hacked=1'>x</a>")
    path = write_latent_map(wine_fitted, wine[0], y, tmp_path / "page.html", feature_names=names)
    page = show(path)
    hover_points(page, 1)
    page.click("#pin")
    page.click("#next")
    page.click("#pin")
    assert page.evaluate("window.hacked") is None
    assert page.locator("main img, main a, main b").count() == 0
    assert page.locator("#record tbody th").all_inner_texts() == names
    assert page.locator("#path tbody th").all_inner_texts() == names
    assert set(page.locator("#legend .name").all_inner_texts()) == set(y)
    assert page.inner_text("#class") in set(y)


@pytest.mark.slow
def test_missing_values_and_quantities(show, wine_fitted, wine, tmp_path):
    X, y = wine[0].iloc[:30].copy(), wine[0]["proline"].iloc[:30].to_numpy().copy()
    X.iloc[0, 2] = y[1] = np.nan
    page = show(write_latent_map(wine_fitted, X, y, tmp_path / "page.html"))
    assert page.locator("#record tbody tr:nth-child(3) td").nth(1).inner_text() == "missing"
    assert float(page.inner_text("#class")) == pytest.approx(y[0], rel=1e-3)
    assert "y is missing (1)" in page.inner_text("#scale")


@pytest.mark.slow
def test_colours_of_pictures(show, tmp_path):
    X = np.random.default_rng(0).integers(0, 256, (40, 48), dtype=np.uint8)
    transformer = AutoencoderTransformer(max_epochs=3, random_state=0).fit(X)
    path = write_latent_map(transformer, X, path=tmp_path / "page.html", image_shape=(3, 4, 4))
    page = show(path)
    data = page.locator("#record canvas").first.evaluate(
        "c => Array.from(c.getContext('2d').getImageData(0, 0, 4, 4).data)"
    )
    colours = np.array(data).reshape(4, 4, 4)[..., :3].transpose(2, 0, 1)
    np.testing.assert_array_equal(colours, X[0].reshape(3, 4, 4))


@pytest.mark.slow
def test_one_code_is_drawn_on_a_line(show, wine, tmp_path):
    transformer = AutoencoderTransformer(1, max_epochs=40, random_state=0).fit(wine[0])
    page = show(write_latent_map(transformer, *wine, tmp_path / "page.html", max_points=30))
    (row,) = hover_points(page, 1)
    assert page.inner_text("#class") == wine[1][row]


def test_all_of_it_is_reached_by_keyboard(show, digits_map):
    page = show(digits_map)
    reached, outlined = [], []
    for _ in range(60):
        page.keyboard.press("Tab")
        name, outline = page.evaluate(
            "() => [document.activeElement.id || document.activeElement.textContent,"
            " getComputedStyle(document.activeElement).outlineStyle]"
        )
        reached.append(name)
        outlined.append(outline)
        if name == "slider-2":
            break
    for name in ("plot", "reset", "all", "previous", "row", "next", "pin", "slider-0", "slider-2"):
        assert name in reached
    assert set(outlined) == {"solid"}
    page.focus("#plot")
    page.keyboard.press("n")
    assert page.locator("#pins div").count() == 0
    page.keyboard.press("Enter")
    assert page.locator("#pins div").count() == 1
    page.wait_for_timeout(300)
    before = page.locator("#plot").screenshot()
    page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(500)
    assert page.locator("#plot").screenshot() != before


@pytest.mark.parametrize("kind", [pytest.param("digits_map", marks=pytest.mark.slow), "wine_map"])
def test_nothing_is_wider_than_the_screen(show, request, kind):
    page = show(request.getfixturevalue(kind))
    page.click("#pin")
    page.click("#next")
    page.click("#pin")
    for width in (1280, 700, 390):
        page.set_viewport_size({"width": width, "height": 844})
        page.wait_for_timeout(200)
        assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("kind", ["digits_map", pytest.param("wine_map", marks=pytest.mark.slow)])
def test_a_finger_pins(show, request, kind):
    page = show(
        request.getfixturevalue(kind),
        viewport={"width": 390, "height": 844},
        has_touch=True,
        is_mobile=True,
    )
    box = page.locator("#plot").bounding_box()
    for i in range(100):
        x, y = (box["width"] * (0.3 + 0.04 * (i % 10)), box["height"] * (0.3 + 0.04 * (i // 10)))
        page.touchscreen.tap(box["x"] + x, box["y"] + y)
        if page.locator("#pins div").count():
            return
    pytest.fail("No point was pinned.")


def test_dark_and_light(show, wine_map):
    page = show(wine_map)
    brightness = {}
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_timeout(500)
        colours = page.evaluate(
            "() => [document.body, document.querySelector('.card')].flatMap(e => "
            "[getComputedStyle(e).backgroundColor, getComputedStyle(e).color])"
        )
        brightness[scheme] = [sum(map(int, re.findall(r"\d+", c)[:3])) / 765 for c in colours]
        colour = page.evaluate("document.getElementById('plot')._fullLayout.xaxis.tickfont.color")
        brightness[scheme].append(int(colour[1:3], 16) / 255)
    back, text, card, card_text, ticks = np.array([*brightness.values()]).T
    assert back[0] < 0.2 < 0.8 < back[1]
    assert card[0] < 0.2 < 0.8 < card[1]
    assert text[1] < 0.2 < 0.8 < text[0]
    assert card_text[1] < 0.2 < 0.8 < card_text[0]
    assert ticks[1] < 0.5 < ticks[0]


def test_table_shows_original_values(show, table_map, table_fitted, table_rows):
    page = show(table_map)
    reconstructed = table_fitted.reconstruct(table_rows)
    for row in (0, 1, 2):
        page.fill("#row", str(row))
        page.press("#row", "Enter")
        assert_same_row(texts(page, "#record", 2), table_rows.iloc[[row]])
        assert_same_row(texts(page, "#record", 3), reconstructed.iloc[[row]])
        assert page.inner_text("#class") == table_rows["size"][row]
    marked = page.locator("#record tbody tr:has(td.changed) th").all_inner_texts()
    names = ["place", "size", "street"]
    changed = table_rows.loc[2, names].astype(object) != reconstructed.loc[2, names].astype(object)
    assert marked == [name for name in names if changed[name]]
    assert "place" in marked
    assert page.locator("main img").count() == 0


def test_sliders_decode_rows_of_a_table(show, table_map, table_fitted):
    page = show(table_map)
    for presses in (3, 6):
        for k in range(2):
            for _ in range(presses):
                page.press(f"#slider-{k}", "PageUp" if (k + presses) % 2 else "PageDown")
        codes = [[float(page.input_value(f"#slider-{k}")) for k in range(2)]]
        assert_same_row(texts(page, "#decoded", 2), table_fitted.inverse_transform(codes))


def test_points_are_coloured_by_levels_and_dates(show, table_map, table_rows):
    page = show(table_map)
    page.click("#pin")
    page.click("#next")
    page.click("#pin")
    assert page.locator("#path tbody tr").count() == 9
    page.select_option("#colour", label="place")
    page.wait_for_timeout(300)
    keys = page.locator("#scale .level-key .name").all_inner_texts()
    assert set(keys) == set(table_rows["place"].dropna())
    assert "place is missing (1)" in page.inner_text("#scale")
    colours = [colour for group in drawn_colours(page) for colour in group]
    counts = sorted(colours.count(colour) for colour in set(colours))
    assert counts == sorted(table_rows["place"].value_counts(dropna=False))
    page.select_option("#colour", label="street")
    page.wait_for_timeout(300)
    assert page.locator("#scale .level-key").count() == 10
    assert f"{table_rows['street'].nunique() - 10} other levels of street" in page.inner_text(
        "#scale"
    )
    page.select_option("#colour", label="day")
    page.wait_for_timeout(300)
    days = table_rows["day"]
    ticks = page.locator("#scale .ticks span").all_inner_texts()
    assert [ticks[0], ticks[-1]] == as_shown([days.min(), days.max()])


def test_page_interpolates_in_a_table_what_it_cannot_compute(show, table_rows, tmp_path):
    def network(n, k):
        return nn.Linear(n, k), nn.Sequential(nn.Linear(k, n), nn.Hardtanh(-9, 9))

    X = mixed_table()[["number", "place", "whole"]]
    transformer = AutoencoderTransformer(2, network=network, max_epochs=40, random_state=0).fit(X)
    page = show(write_latent_map(transformer, X[:30], path=tmp_path / "page.html"))
    reconstructed = transformer.reconstruct(X[:30])
    for row in (0, 2):
        page.fill("#row", str(row))
        page.press("#row", "Enter")
        assert_same_row(texts(page, "#record", 2), X.iloc[[row]])
        assert_same_row(texts(page, "#record", 3), reconstructed.iloc[[row]])
        decoded = texts(page, "#decoded", 2)
        assert decoded[1] == reconstructed["place"][row]
        assert int(decoded[2]) == pytest.approx(reconstructed["whole"][row], abs=1)


def test_page_says_what_codes_depend_on(show, wine_map, wine):
    page = show(wine_map)
    given = contents(wine_map)["meaning"]
    titles = page.locator("#meaning h3").all_inner_texts()
    assert [re.match(r"code (\d)", title)[1] for title in titles] == [
        str(code) for code in given["codes"]
    ]
    assert f"R\u00b2 is {given['r2']:.2f}" in page.inner_text("#meaning-hint")
    assert f"\u2212{given['drops'][0]:.2f}" in titles[0]
    first = unpack(given["sensitivity"])[0]
    largest = np.argsort(-np.abs(first))[:5]
    names = page.locator("#meaning table").first.locator("th").all_inner_texts()
    assert names == wine[0].columns[largest].tolist()
    values = page.locator("#meaning table").first.locator("td.number").all_inner_texts()
    shown = [float(value.replace("\u2212", "-")) for value in values]
    np.testing.assert_allclose(shown, first[largest], atol=0.0051)


@pytest.mark.slow
def test_page_has_pictures_of_what_codes_depend_on(show, digits_map):
    page = show(digits_map)
    given = unpack(contents(digits_map)["meaning"]["sensitivity"])
    assert page.locator("#meaning canvas").count() == 3
    red, _, blue, _ = channels(page.locator("#meaning canvas").nth(1)).reshape(64, 4).T
    strong = np.abs(given[1]) > 0.2 * np.abs(given).max()
    assert strong.any()
    np.testing.assert_array_equal(np.sign(red - blue)[strong], np.sign(given[1])[strong])
