import numpy as np
import pytest
from scipy import sparse
from sklearn.datasets import load_wine

import aefeatures._rows.sources
from aefeatures._rows.survey import Survey, has_missing, with_values

WINE = load_wine().data


def with_holes(X):
    X = X.copy()
    X[np.random.default_rng(0).random(X.shape) < 0.2] = np.nan
    X[[5, 70]] = np.nan
    return X


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("dtype", ["f8", "f4"])
@pytest.mark.parametrize("n_parts", [1, 2, 9])
def test_joined_surveys_are_that_of_all_rows(n_parts, dtype, holes):
    X = (with_holes(WINE) if holes else WINE).astype(dtype)
    joined, *others = [Survey.of(part) for part in np.array_split(X, n_parts)]
    for other in others:
        joined.join(other)
    assert (joined.n_rows, joined.n_features, joined.dtype) == (*X.shape, X.dtype)
    assert joined.missing == holes
    assert joined.n_known == len(X) - 2 * holes
    joined.columns.finish()
    np.testing.assert_allclose(joined.columns.mean, np.nanmean(X, axis=0, dtype="f8"), rtol=1e-10)
    deviation = np.nanstd(X.astype("f8"), axis=0)
    np.testing.assert_allclose(joined.columns.standard_deviation, deviation, rtol=1e-7)
    assert joined.columns.extent() == (np.nanmin(X), np.nanmax(X))


def test_rows_with_a_known_value_are_found_in_every_chunk(monkeypatch):
    X = with_holes(WINE)
    expected = np.delete(np.arange(len(X)), [5, 70])
    for elements in (10**6, 4 * 13 * 10):
        monkeypatch.setattr(aefeatures._rows.sources, "_CHUNK_ELEMENTS", elements)
        np.testing.assert_array_equal(Survey.of(X).known, expected)
        assert Survey.of(np.where(np.isnan(X), 0, X)).known is None
    np.testing.assert_array_equal(with_values(X), X[expected])
    assert with_values(WINE) is WINE
    assert has_missing(X)
    assert not has_missing(WINE.astype(int))


def test_sparse_rows_have_the_survey_of_dense_ones():
    X = np.where(WINE > 3, WINE, 0)
    ours, theirs = Survey.of(sparse.csr_matrix(X)), Survey.of(X)
    for name in ("low", "high", "mean", "squares", "count"):
        np.testing.assert_array_equal(getattr(ours.columns, name), getattr(theirs.columns, name))


@pytest.mark.parametrize(
    ("dtype", "largest"), [("u1", 255), (">u2", 65_535), ("u4", np.inf), ("f4", np.inf)]
)
def test_the_largest_number_is_that_of_image_types(dtype, largest):
    X = np.ones((3, 2), dtype)
    assert Survey.of(X).largest == largest
    assert Survey.of(X[:0]).largest == 0  # a rank without rows leaves it to the others


def test_some_columns_alone_are_surveyed():
    X = with_holes(WINE)
    columns = np.arange(13) % 3 == 0
    some, every = Survey.of(X, columns), Survey.of(X)
    assert some.missing
    np.testing.assert_array_equal(some.known, every.known)
    np.testing.assert_allclose(some.columns.mean, every.columns.mean[columns], rtol=1e-12)


def test_rows_of_different_widths_are_refused():
    with pytest.raises(ValueError, match="got rows with 13 and with 12 columns"):
        Survey.of(WINE).join(Survey.of(WINE[:, :12]))
