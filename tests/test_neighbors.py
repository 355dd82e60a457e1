import builtins

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

import aefeatures._nets.neighbors
import aefeatures._rows.sources
from aefeatures._nets.neighbors import (
    _by_all_distances,
    _without_self,
    neighbor_graph,
    principal_axes,
)
from aefeatures._rows.batches import RowBatches


def batches_of(X):
    batches = RowBatches(
        X, lambda rows: rows, batch_size=64, device=torch.device("cpu"), dtype=torch.float32
    )
    return batches, torch.from_numpy(np.nanmean(X, axis=0)).float()


def graph(X, n_neighbors=5, seed=0):
    return neighbor_graph(*batches_of(X), n_neighbors, np.random.default_rng(seed))


def exact(X, n_neighbors=5):
    return NearestNeighbors(n_neighbors=n_neighbors).fit(X).kneighbors(return_distance=False)


def overlap(a, b):
    return np.mean([len(np.intersect1d(x, y)) / len(x) for x, y in zip(a, b, strict=True)])


def test_few_columns_give_the_exact_neighbors():
    X = np.random.default_rng(0).random((200, 20)).astype(np.float32)
    found = graph(X)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, exact(X))


def test_many_columns_give_nearly_the_exact_neighbors(digits):
    X = digits[0][:600]
    assert X.shape[1] > aefeatures._nets.neighbors._N_COMPONENTS
    assert overlap(graph(X), exact(X)) > 0.9


def test_wide_data_with_fewer_rows_than_components():
    X = np.random.default_rng(0).random((30, 500)).astype(np.float32)
    assert overlap(graph(X), exact(X)) > 0.99


@pytest.mark.parametrize(("n_rows", "n_axes"), [(1000, 10), (40, 10), (40, 60)])
@pytest.mark.parametrize("covariances", [True, False])
def test_principal_axes_are_those_of_pca(digits, monkeypatch, n_rows, n_axes, covariances):
    if not covariances:
        monkeypatch.setattr(aefeatures._nets.neighbors, "_COVARIANCE_COLUMNS", 0)
    X = digits[0][:n_rows].astype(np.float32)
    axes, deviations = principal_axes(*batches_of(X), n_axes, np.random.default_rng(0))
    axes = axes.numpy()
    assert axes.shape == (64, n_axes)
    n_found = min(n_axes, n_rows)
    assert not axes[:, n_found:].any()
    expected = PCA(5).fit(X)
    variances = np.var((X - X.mean(axis=0)) @ axes[:, :5], axis=0, ddof=1)
    np.testing.assert_allclose(variances, expected.explained_variance_, rtol=0.02)
    np.testing.assert_allclose(deviations[:5] ** 2, expected.explained_variance_, rtol=0.05)
    assert not deviations[n_found:].any()
    assert (((X - X.mean(axis=0)) @ axes[:, :5]) ** 3).mean(axis=0).min() >= 0


@pytest.mark.parametrize("covariances", [True, False])
def test_axes_of_a_sample_are_nearly_those_of_all_rows(digits, monkeypatch, covariances):
    if not covariances:
        monkeypatch.setattr(aefeatures._nets.neighbors, "_COVARIANCE_COLUMNS", 0)
    monkeypatch.setattr(aefeatures._rows.sources, "SOME_ROWS", 1)
    monkeypatch.setattr(aefeatures._rows.sources, "_MANY_ELEMENTS", 64 * 400)
    batches, means = batches_of(digits[0].astype(np.float32))
    several = [
        principal_axes(batches, means, 3, np.random.default_rng(0), sample=sample)
        for sample in (False, True)
    ]
    (axes, deviations), (sampled, of_sample) = several
    assert not torch.equal(axes, sampled)
    assert float((axes * sampled).sum(dim=0).abs().min()) > 0.9
    torch.testing.assert_close(of_sample, deviations, rtol=0.1, atol=0)


@pytest.mark.parametrize("n_rows", [6, 128, 700])
def test_all_distances_give_the_exact_neighbors(monkeypatch, n_rows):
    points = torch.rand(n_rows, 20, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(aefeatures._nets.neighbors, "_DISTANCES", 50 * n_rows)
    np.testing.assert_array_equal(_by_all_distances(points, 5), exact(points.numpy()))


def test_a_tree_and_all_distances_find_the_same(monkeypatch):
    X = np.random.default_rng(0).random((300, 10)).astype(np.float32)
    by_tree = graph(X)
    monkeypatch.setattr(aefeatures._nets.neighbors, "_TREE_COLUMNS", 0)
    np.testing.assert_array_equal(graph(X), by_tree)


def test_missing_values_count_as_means():
    X = np.random.default_rng(0).random((100, 10)).astype(np.float32)
    X[3:40, 2] = np.nan
    filled = np.where(np.isnan(X), np.nanmean(X, axis=0), X)
    assert overlap(graph(X), exact(filled)) > 0.99


def test_duplicates_and_few_rows():
    X = np.zeros((20, 3), np.float32)
    found = graph(X)
    assert found.shape == (20, 5)
    assert (found != np.arange(20)[:, None]).all()
    assert graph(X[:4]).shape == (4, 3)
    np.testing.assert_array_equal(graph(X[:1]), [[0]])


def test_rows_are_taken_out_of_their_own_neighbors():
    found = _without_self(np.array([[0, 1, 2], [2, 0, 1], [0, 1, 3]]))
    np.testing.assert_array_equal(found, [[1, 2], [2, 0], [0, 1]])


@pytest.mark.slow  # numba compiles
def test_large_data_is_searched_approximately(digits, monkeypatch):
    monkeypatch.setattr(aefeatures._nets.neighbors, "_EXACT_ROWS", 500)
    X = digits[0]
    found = graph(X)
    assert found.shape == (len(X), 5)
    assert (found != np.arange(len(X))[:, None]).all()
    assert overlap(found, exact(X)) > 0.85
    np.testing.assert_array_equal(found, graph(X))


def test_large_data_without_pynndescent_says_what_to_install(digits, monkeypatch):
    monkeypatch.setattr(aefeatures._nets.neighbors, "_EXACT_ROWS", 500)
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "pynndescent":
            raise ImportError
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"not installed: pip install 'aefeatures\[neighbors\]'"):
        graph(digits[0])
