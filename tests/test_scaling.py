import numpy as np
import pytest
import torch
from sklearn.datasets import load_wine
from sklearn.preprocessing import MinMaxScaler, StandardScaler

import aefeatures._batches
from aefeatures._scaling import learn_scaling

WINE = load_wine().data


def scaled(X, how):
    scaling, _ = learn_scaling(X, how)
    return scaling, scaling(torch.from_numpy(np.asarray(X, dtype=np.float64))).numpy()


@pytest.mark.parametrize("how", ["auto", "standard", "feature", "global", None])
def test_scaling_inverts(how):
    scaling, Z = scaled(WINE, how)
    np.testing.assert_allclose(scaling.inverse(torch.from_numpy(Z)), WINE, rtol=1e-12)


@pytest.mark.parametrize(
    ("how", "reference"), [("standard", StandardScaler), ("feature", MinMaxScaler)]
)
def test_scaling_agrees_with_scikit_learn(how, reference, monkeypatch):
    monkeypatch.setattr(aefeatures._batches, "_CHUNK_ELEMENTS", 20 * WINE.shape[1])
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


@pytest.mark.parametrize("how", ["standard", "feature", "global"])
def test_constant_columns_are_safe(how):
    X = np.full((7, 3), 5.0)
    scaling, Z = scaled(X, how)
    np.testing.assert_array_equal(Z, 0)
    np.testing.assert_array_equal(scaling.inverse(torch.from_numpy(Z)), X)


def test_columns_that_begin_or_stay_missing(monkeypatch):
    monkeypatch.setattr(aefeatures._batches, "_CHUNK_ELEMENTS", 20 * WINE.shape[1])
    X = WINE.copy()
    X[:100, 3] = X[:, 5] = np.nan
    with np.errstate(all="raise"):
        scaling, means = learn_scaling(X, "standard")
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
    monkeypatch.setattr(aefeatures._batches, "_CHUNK_ELEMENTS", 20 * WINE.shape[1])
    with np.errstate(all="raise"):
        scaling, Z = scaled(WINE * factors, "standard")
    np.testing.assert_allclose(Z, scaled(WINE, "standard")[1], rtol=1e-9, atol=1e-9)
    back = scaling.inverse(torch.from_numpy(Z).float())
    assert back.dtype == torch.float32


@pytest.mark.parametrize("how", ["standard", "feature", "global"])
def test_means_that_are_rounded_are_no_variation(how):
    X = np.full((7, 2), 1e300 / 3)
    X[:, 1] = np.nan
    scaling, means = learn_scaling(X, how)
    np.testing.assert_array_equal(scaling(torch.from_numpy(means)), 0)


def test_numbers_too_large():
    with pytest.raises(ValueError, match=r"values as large as 2e\+300, more than 1e\+300"):
        learn_scaling(np.array([[1.0], [-2e300]]), "standard")
    with pytest.raises(ValueError, match="scaling=None hands values as large as 1e"):
        learn_scaling(np.array([[1.0], [1e16]]), None)


@pytest.mark.parametrize("how", [None, "auto", "standard", "feature", "global"])
@pytest.mark.parametrize("largest", [16, 250])
def test_bytes_elsewhere_are_read_once(how, largest, monkeypatch):
    """Where reading means decoding: each of several chunks once."""
    monkeypatch.setattr(aefeatures._batches, "_CHUNK_ELEMENTS", 20 * 6)
    X = np.random.default_rng(0).integers(0, largest, (50, 6), np.uint8)
    X[:, 2] = 7

    class Elsewhere:
        shape, dtype = X.shape, X.dtype

        def __getitem__(self, part):
            read.append(range(50)[part])
            return X[part]

    read, elsewhere = [], Elsewhere()
    (ours, our_means), (scaling, means) = learn_scaling(elsewhere, how), learn_scaling(X, how)
    assert len(read) > 2
    assert [row for chunk in read for row in chunk] == list(range(50))
    assert ours.bounded == scaling.bounded
    assert torch.equal(ours.offset, scaling.offset)
    assert torch.equal(ours.scale, scaling.scale)
    np.testing.assert_array_equal(our_means, means)
    np.testing.assert_allclose(our_means, X.mean(axis=0))
