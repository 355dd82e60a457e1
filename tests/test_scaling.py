import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.datasets import load_digits, load_wine
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.preprocessing import MinMaxScaler, StandardScaler, normalize

import aefeatures._rows.batches
import aefeatures._rows.sources
from aefeatures._rows.scaling import extend_scaling, learn_scaling
from aefeatures._rows.survey import Survey

WINE = load_wine().data


def learned(X, how, **settings):
    return learn_scaling(Survey.of(X), how, **settings)


def extended(scaling, X):
    return extend_scaling(scaling, Survey.of(X, scaling.fixed))


def scaled(X, how):
    scaling, _ = learned(X, how)
    return scaling, scaling(torch.from_numpy(np.asarray(X, dtype=np.float64))).numpy()


@pytest.mark.parametrize("how", ["auto", "standard", "feature", "global", None])
def test_scaling_inverts(how):
    scaling, Z = scaled(WINE, how)
    np.testing.assert_allclose(scaling.inverse(torch.from_numpy(Z)), WINE, rtol=1e-12)


@pytest.mark.parametrize(
    ("how", "reference"), [("standard", StandardScaler), ("feature", MinMaxScaler)]
)
def test_scaling_agrees_with_scikit_learn(how, reference, monkeypatch):
    monkeypatch.setattr(aefeatures._rows.sources, "_CHUNK_ELEMENTS", 20 * WINE.shape[1])
    _, Z = scaled(WINE, how)
    np.testing.assert_allclose(Z, reference().fit_transform(WINE), atol=1e-9)


def test_global_scaling_keeps_the_relations_of_columns():
    scaling, Z = scaled(WINE, "global")
    assert (Z.min(), Z.max()) == (0, 1)
    assert scaling.bounded
    np.testing.assert_allclose(np.corrcoef(Z.ravel(), WINE.ravel())[0, 1], 1)


@pytest.mark.parametrize(
    ("X", "bounded", "largest"),
    [
        (np.array([[0, 255], [3, 4]], np.uint8), True, 1.0),
        (np.array([[0, 128], [3, 4]], np.uint8), True, 128 / 255),
        (np.array([[0, 65535], [3, 4]], np.uint16), True, 1.0),
        (np.array([[0.0, 1.0], [0.5, 0.25]]), True, 1.0),
        (np.array([[False, True], [True, True]]), True, 1.0),
        # 127 of 255 could be a count, and 12 bits in uint16 never reach half of its range.
        (np.array([[0, 127], [3, 4]], np.uint8), False, 1.0),
        (np.array([[0, 4095], [3, 4]], np.uint16), False, 1.0),
        (np.array([[0.0, 1.1], [0.5, 0.25]]), False, 1.0),
        (np.array([[-0.1, 1.0], [0.5, 0.25]]), False, 1.0),
    ],
)
def test_auto_scaling(X, bounded, largest):
    scaling, Z = scaled(X, "auto")
    assert scaling.bounded == bounded
    assert Z.max() == pytest.approx(largest)


def rounded(dtype, n_rows=400):
    """Columns that arithmetic in a type leaves constant except for rounding, and what they are."""
    rng = np.random.default_rng(0)
    values = np.array([0.3, 1e-6, 1e6, -7.1, 1e-30], dtype)
    noise = rng.uniform(0.5, 2, size=(n_rows, len(values))).astype(dtype)
    with_noise = (values * noise) / noise
    noise *= 8 if dtype == np.float64 else 1
    sums = (values + values * noise) - values * noise
    return np.hstack([with_noise, sums]), np.tile(values, 2)


def in_chunks(X, how, n_chunks):
    """The scaling as ranks and Ray learn it: from statistics that are joined."""
    survey, *others = [Survey.of(part) for part in np.array_split(X, n_chunks)]
    for other in others:
        survey.join(other)
    return learn_scaling(survey, how)


@pytest.mark.parametrize("how", ["standard", "feature"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("n_chunks", [1, 7])
def test_what_varies_by_rounding_alone_is_constant(how, dtype, n_chunks):
    X, values = rounded(dtype)
    assert (np.ptp(X, axis=0) > 0).any()
    scaling, _ = in_chunks(X, how, n_chunks)
    np.testing.assert_allclose(scaling.scale, np.abs(values), rtol=1e-5)
    np.testing.assert_array_equal(scaling.spread, 0)
    np.testing.assert_allclose(scaling(torch.from_numpy(X)), 0, atol=1e-5)
    decoded = scaling.inverse(torch.full((1, len(values)), 9.0, dtype=torch.float64))
    np.testing.assert_allclose(decoded[0], values, rtol=1e-5)


@pytest.mark.parametrize("how", ["global", "standard"])
def test_a_matrix_that_varies_by_rounding_alone_is_constant(how):
    X = np.where(np.arange(12).reshape(4, 3) % 2, 0.3, 0.1 + 0.2)
    scaling, _ = learned(X, how)
    np.testing.assert_allclose(scaling(torch.full((1, 3), 0.31)), 0.01 / 0.3, rtol=1e-4)


@pytest.mark.parametrize("how", ["standard", "feature"])
@pytest.mark.parametrize("n_rows", [300, 1_000_000])
def test_small_variance_is_no_rounding_however_many_rows(how, n_rows):
    rng = np.random.default_rng(0)
    seconds = 1.7e9 + rng.random(n_rows)
    X = np.column_stack([seconds, rng.integers(20_240_101, 20_240_132, n_rows)])
    scaling, _ = learned(X, how)
    expected = X.std(axis=0) if how == "standard" else np.ptp(X, axis=0)
    np.testing.assert_allclose(scaling.scale, expected, rtol=1e-3)
    if how == "standard":
        assert scaling.scale[0] == pytest.approx(12**-0.5, rel=0.05)
    dates = X[:, 1:].astype(np.float32)  # of which the type holds every second one
    assert learned(dates, how)[0].scale == pytest.approx(expected[1], rel=0.1)


@pytest.mark.parametrize("how", ["auto", "standard", "feature", "global", None])
@pytest.mark.parametrize("parts", [[20, 40], [0, 20], [40, 60]])
def test_a_part_of_missing_values_alone_counts_for_nothing(how, parts, monkeypatch):
    X = np.random.default_rng(0).uniform(5, 9.7, size=(60, 3))
    known = np.delete(X, np.r_[slice(*parts)], axis=0)
    X[slice(*parts)] = np.nan
    expected, expected_means = learned(known, how)
    monkeypatch.setattr(aefeatures._rows.sources, "_CHUNK_ELEMENTS", 4 * 20 * 3)
    for scaling, means in (learned(X, how), in_chunks(X, how, 3)):
        np.testing.assert_allclose(scaling.offset, expected.offset)
        np.testing.assert_allclose(scaling.scale, expected.scale)
        np.testing.assert_allclose(means, expected_means)


def words(kind):
    """Texts of two topics: shares or tf-idf weights of words, most of which a text lacks."""
    rng = np.random.default_rng(0)
    rates = rng.pareto(1.0, size=(2, 2_000)) / 60
    counts = rng.poisson(rates[np.arange(200) % 2])
    X = sparse.csr_matrix(counts[counts.sum(axis=1) > 0], dtype=np.float64)
    if kind == "shares":
        return normalize(X, norm="l1")
    return TfidfTransformer().fit_transform(X) if kind == "tf-idf" else (X > 0).astype(np.float32)


@pytest.mark.parametrize("kind", ["tf-idf", "shares", "dense"])
def test_auto_scaling_of_columns_that_hardly_vary_within_their_range(kind):
    """All are divided by one number, so that rare words stay small."""
    if kind == "dense":
        X = 0.5 + np.random.default_rng(0).normal(size=(200, 50)) / 1000
        X[:, 3] = 1
    else:
        X = words(kind)
    dense = X.toarray() if sparse.issparse(X) else X
    scaling, means = learned(X, "auto")
    assert not scaling.bounded
    Z = scaling(torch.from_numpy(dense)).numpy()
    assert Z[:, dense.std(axis=0) > 0].var(axis=0).mean() == pytest.approx(1)
    np.testing.assert_allclose(np.corrcoef(Z.std(axis=0), dense.std(axis=0))[0, 1], 1)
    np.testing.assert_allclose(scaling.inverse(torch.from_numpy(Z)), dense, atol=1e-12)
    np.testing.assert_allclose(means, dense.mean(axis=0))
    assert learned(X, "auto", bounded=True)[0].bounded


@pytest.mark.parametrize("kind", ["words", "one-hot", "pixels", "pixels in a large frame"])
def test_auto_scaling_leaves_what_fills_its_range(kind):
    if kind == "words":
        X = words("yes and no")[:, :200]
    elif kind == "one-hot":
        X = sparse.csr_matrix(np.eye(60)[np.arange(600) % 60])
    else:
        X = load_digits().data / 16
        X = X if kind == "pixels" else np.hstack([X, np.zeros((len(X), 3000))])
    scaling, _ = learned(X, "auto")
    assert scaling.bounded
    assert (scaling.scale, scaling.offset) == (1, 0)


@pytest.mark.parametrize("how", ["standard", "feature"])
def test_columns_that_told_nothing_are_learned_when_they_vary(how):
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 50, 4))
    first[:, 0], first[:, 1], first[:, 2] = 0, np.nan, 3
    second[:, 2] = 3
    before, _ = learned(first, how)
    assert extended(before, first) is before
    after = extended(before, second)
    together = np.vstack([first[:, [0, 1]], second[:, [0, 1]]])
    expected, _ = learned(together, how)
    np.testing.assert_allclose(after.offset[:2], expected.offset, atol=1e-12)
    np.testing.assert_allclose(after.scale[:2], expected.scale)
    np.testing.assert_allclose(after.spread[:2], np.nanstd(together, axis=0))
    for name in ("offset", "scale", "center", "spread"):
        assert torch.equal(getattr(after, name)[2:], getattr(before, name)[2:])
    nothing = np.full((5, 4), np.nan)
    assert extended(before, nothing) is before


@pytest.mark.parametrize("how", ["standard", "feature", "global"])
def test_constant_columns_are_safe(how):
    X = np.full((7, 3), 5.0)
    scaling, Z = scaled(X, how)
    np.testing.assert_array_equal(Z, 0)
    np.testing.assert_array_equal(scaling.inverse(torch.from_numpy(Z)), X)


def test_columns_that_begin_or_stay_missing(monkeypatch):
    monkeypatch.setattr(aefeatures._rows.sources, "_CHUNK_ELEMENTS", 20 * WINE.shape[1])
    X = WINE.copy()
    X[:100, 3] = X[:, 5] = np.nan
    with np.errstate(all="raise"):
        scaling, means = learned(X, "standard")
    np.testing.assert_allclose(means[3], WINE[100:, 3].mean())
    np.testing.assert_allclose(scaling.scale[3], WINE[100:, 3].std())
    assert (means[5], scaling.scale[5]) == (0, 1)


def test_small_variance_beside_a_large_offset_is_kept():
    X = 1e8 + np.arange(10.0)[:, None]
    _, Z = scaled(X, "standard")
    np.testing.assert_allclose(np.diff(Z[:, 0]), 1 / np.arange(10).std(), rtol=1e-6)


@pytest.mark.parametrize("factor", [1e-300, 1e-160, 1e160, 1e295])
def test_squares_that_would_vanish_or_overflow(factor, monkeypatch):
    """The scaled columns are those of numbers of ordinary size, also beside such."""
    factors = np.where(np.arange(WINE.shape[1]) % 2, 1.0, factor)
    monkeypatch.setattr(aefeatures._rows.sources, "_CHUNK_ELEMENTS", 20 * WINE.shape[1])
    with np.errstate(all="raise"):
        scaling, Z = scaled(WINE * factors, "standard")
    np.testing.assert_allclose(Z, scaled(WINE, "standard")[1], rtol=1e-9, atol=1e-9)
    back = scaling.inverse(torch.from_numpy(Z).float())
    assert back.dtype == torch.float32


@pytest.mark.parametrize("how", ["standard", "feature", "global"])
def test_means_that_are_rounded_are_no_variation(how):
    X = np.full((7, 2), 1e300 / 3)
    X[:, 1] = np.nan
    scaling, means = learned(X, how)
    np.testing.assert_array_equal(scaling(torch.from_numpy(means)), 0)


def test_numbers_too_large():
    with pytest.raises(ValueError, match=r"values as large as 2e\+300, more than 1e\+300"):
        learned(np.array([[1.0], [-2e300]]), "standard")
    with pytest.raises(ValueError, match="scaling=None hands values as large as 1e"):
        learned(np.array([[1.0], [1e16]]), None)


@pytest.mark.parametrize("how", [None, "auto", "standard", "feature", "global"])
@pytest.mark.parametrize("largest", [16, 250])
def test_bytes_elsewhere_are_read_once(how, largest, monkeypatch):
    """Where reading means decoding: each of several chunks once."""
    monkeypatch.setattr(aefeatures._rows.sources, "_CHUNK_ELEMENTS", 20 * 6)
    X = np.random.default_rng(0).integers(0, largest, (50, 6), np.uint8)
    X[:, 2] = 7

    class Elsewhere:
        shape, dtype = X.shape, X.dtype

        def __getitem__(self, part):
            read.append(range(50)[part])
            return X[part]

    read, elsewhere = [], Elsewhere()
    (ours, our_means), (scaling, means) = learned(elsewhere, how), learned(X, how)
    assert len(read) > 2
    assert [row for chunk in read for row in chunk] == list(range(50))
    assert ours.bounded == scaling.bounded
    assert torch.equal(ours.offset, scaling.offset)
    assert torch.equal(ours.scale, scaling.scale)
    np.testing.assert_array_equal(our_means, means)
    np.testing.assert_allclose(our_means, X.mean(axis=0))
