import base64
import io
import re
from html import escape, unescape

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_wine
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.manifold import trustworthiness
from sklearn.model_selection import KFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from aefeatures import AutoencoderTransformer, code_importance, write_report

# Most are fitted for so short that little is learned.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

HOSTILE = """</p><script>hacked()</script><img src="x" onerror='hacked()'>"""


@pytest.fixture(scope="module")
def wine():
    return load_wine(return_X_y=True, as_frame=True)


@pytest.fixture(scope="module")
def wine_fitted(wine):
    """Not to be changed."""
    return AutoencoderTransformer(random_state=0, max_epochs=30).fit(wine[0])


@pytest.fixture(scope="module")
def wine_report(tmp_path_factory, wine_fitted, wine):
    path = tmp_path_factory.mktemp("report") / "wine.html"
    before = plt.get_fignums()
    page = write_report(wine_fitted, *wine, path, title="Three wines").read_text(encoding="utf-8")
    assert plt.get_fignums() == before
    return page


def report(*args, **kwargs):
    return write_report(*args, **kwargs).read_text(encoding="utf-8")


def comparison(page):
    """The numbers of each line of the table."""
    lines = re.findall(r"<tr><th>([^<]+)</th>(.+?)</tr>", page)
    return {
        unescape(name): [float(n) for n in re.findall(r">([\d.-]+)<", cells)]
        for name, cells in lines
    }


def hidden(page):
    """The first words of the parts that are not shown."""
    return re.findall(r" hidden>(\w+)", page)


def test_compares_codes_with_pca_and_all_columns(wine_report, wine_fitted, wine):
    X = StandardScaler().fit_transform(wine[0])
    pca = PCA(3).fit(X)
    inputs = [pca.transform(X), np.asarray(wine_fitted.transform(wine[0])), X]
    r2 = code_importance(wine_fitted, wine[0])["cumulative"].iloc[-1]
    kept = [trustworthiness(X, each, n_neighbors=10) for each in inputs[:2]]
    folds = KFold(5, shuffle=True, random_state=0)
    knn = KNeighborsClassifier()
    scores = [cross_val_score(knn, each, wine[1], cv=folds).mean() for each in inputs]
    expected = {
        "reconstruction (R2)": [0, pca.explained_variance_ratio_.sum(), r2, 1],
        "nearest rows kept": [0.5, *kept, 1],
        "prediction of target (accuracy)": [wine[1].value_counts(normalize=True).max(), *scores],
    }
    found = comparison(wine_report)
    assert list(found) == list(expected)
    for name, numbers in expected.items():
        np.testing.assert_allclose(found[name], numbers, atol=0.0051)


def test_page_needs_nothing_else(wine_report):
    assert "<title>Three wines</title>" in wine_report
    assert "Rows: 178, columns: 13, codes: 3.<" in wine_report
    assert "AutoencoderTransformer(max_epochs=30, random_state=0)" in wine_report
    assert hidden(wine_report) == ["The"]  # there were no labels in the training
    assert "{{" not in wine_report
    assert "<script" not in wine_report
    pictures = re.findall(r'<img width="(\d+)" alt="([^"]+)" src="([^"]+)">', wine_report)
    assert len(pictures) == wine_report.count("<img") == 5
    for width, _, source in pictures:
        data = base64.b64decode(source.removeprefix("data:image/png;base64,"))
        assert Image.open(io.BytesIO(data)).width > 2 * int(width)


def test_no_text_from_the_data_is_markup(wine, tmp_path):
    X = wine[0].iloc[:60].rename(columns={"ash": HOSTILE})
    X["quality"] = np.where(X["hue"] > 1, HOSTILE, "low")
    X["bottled"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(X["proline"], "D")
    X.iloc[::7, 1] = np.nan
    X.index = [f"{HOSTILE}{i}" for i in range(len(X))]
    y = pd.Series(np.where(X["alcohol"] > 13.5, HOSTILE, "weak"), name=HOSTILE, index=X.index)
    transformer = AutoencoderTransformer(5, random_state=0, max_epochs=2).fit(X)
    page = report(transformer, X, y, tmp_path / "page.html", title=HOSTILE)
    assert page.count("<img") == 5
    assert "<script" not in page
    assert page.count(escape(HOSTILE)) >= 2 + 1 + 4  # title, y, and names of rows
    assert f"prediction of {HOSTILE} (accuracy)" in comparison(page)


def test_images_and_a_sample_of_rows(fitted, digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_report(fitted, digits[0], image_shape=(8, 8), max_rows=100)
    assert path.resolve() == tmp_path / "report.html"
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"]
    page = path.read_text(encoding="utf-8")
    assert "Rows: 1,347, columns: 64, codes: 3. This page is about 100 of the rows." in page
    assert hidden(page) == ["Prediction", "The", "The"]
    assert list(comparison(page)) == ["reconstruction (R2)", "nearest rows kept"]


def test_names_the_most_unusual_row_and_mentions_labels(wine, tmp_path):
    X = wine[0].copy()
    X.iloc[40, 4] = 400
    X.index += 1000
    transformer = AutoencoderTransformer(2, regularizer="supervised", max_epochs=5, random_state=0)
    pipeline = make_pipeline(StandardScaler(), transformer).fit(X, X["alcohol"])
    page = report(pipeline, X, X["alcohol"], tmp_path / "page.html", max_rows=150)
    assert 'alt="Unusual: row 1040 by magnesium, ' in page
    assert "prediction of alcohol (R2)" in comparison(page)
    assert hidden(page) == []


def test_predicts_dates_as_the_numbers_they_are(wine_fitted, wine, tmp_path):
    numbers = 1e9 * wine[1].where(wine[0].index != 7) + wine[0]["hue"]  # seconds

    def predicted(y):
        lines = comparison(report(wine_fitted, wine[0], y, tmp_path / "page.html"))
        return next(scores for name, scores in lines.items() if name.startswith("prediction"))

    as_numbers = predicted(numbers)
    assert as_numbers[-1] > 0.5
    assert predicted(pd.Timestamp("1970") + pd.to_timedelta(numbers, unit="s")) == as_numbers


def test_network_without_a_gradient(wine, tmp_path):
    class Sign(nn.Module):
        def forward(self, X):
            return torch.sign(X[:, :2]).detach()

    transformer = AutoencoderTransformer(
        2, network=lambda n_features, n_components: (Sign(), nn.Linear(2, 13)), max_epochs=2
    ).fit(wine[0])
    page = report(transformer, wine[0], path=tmp_path / "page.html")
    assert "The encoder is not differentiable." in page


def test_says_what_does_not_fit(wine_fitted, wine, tmp_path):
    X, y = wine
    path = tmp_path / "page.html"
    with pytest.raises(ValueError, match="at least 10 rows, got 9 rows and max_rows=10000"):
        write_report(wine_fitted, X[:9], path=path)
    with pytest.raises(ValueError, match="at least 10 rows, got 178 rows and max_rows=5"):
        write_report(wine_fitted, X, path=path, max_rows=5)
    with pytest.raises(ValueError, match="at least 10 rows with a label in y, got 3"):
        write_report(wine_fitted, X, y.where(y.index < 3), path)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        write_report(wine_fitted, X, y[:5], path)
    with pytest.raises(ValueError, match="has 9 entries, but X has 13 columns"):
        write_report(wine_fitted, X, path=path, image_shape=(3, 3))
    with pytest.raises(ValueError, match=r"folder of .* does not exist"):
        write_report(wine_fitted, X, path=tmp_path / "none" / "page.html")
    with pytest.raises(NotFittedError, match="is not fitted yet"):
        write_report(AutoencoderTransformer(), X, path=path)
    assert not path.exists()
