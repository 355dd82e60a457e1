"""The graph of nearest neighbours of the training rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors

from aefeatures._batches import Batches

# Neighbours are searched among this many principal components: all distances of raw pixels
# take many times as long and say no more.
_N_COMPONENTS = 50
_N_ITERATIONS = 3

# Rows up to which the search compares every row with every other.
_EXACT_ROWS = 100_000

# Squares of larger numbers, summed over columns, may overflow in float32.
_LARGEST = 1e15

# Distances that are held at once on a device: 400 MB in float32.
_DISTANCES = 100_000_000


def neighbor_graph(
    batches: Batches, means: torch.Tensor, n_neighbors: int, rng: np.random.Generator
) -> np.ndarray:
    """Return the positions of each row's nearest other rows.

    Parameters
    ----------
    batches : Batches
        The rows; missing values count as their column's mean.
    means : tensor of shape (n_features,)
        What stands for missing values.
    n_neighbors : int
        Fewer where there are fewer rows. A single row is its own neighbour.
    rng : np.random.Generator
        What approximate searches are seeded from.

    Returns
    -------
    graph : ndarray of int32, shape (n_rows, n_neighbors)

    Raises
    ------
    ValueError
        If rows lie so far apart that float32 does not hold their distances.
    ImportError
        If there are more than 100,000 rows and pynndescent is not installed.
    """
    n_neighbors = min(n_neighbors, batches.n_rows - 1)
    if n_neighbors == 0:
        return np.zeros((1, 1), dtype=np.int32)
    points = _principal_components(batches, means, rng)
    largest = float(points.abs().max())
    if not largest < _LARGEST:
        raise ValueError(
            f"Neighbours cannot be found among rows with values as large as {largest:.3g} in the "
            "network's range: X is too far from what its scaling was learned from."
        )
    if points.device.type == "cuda":
        graph = _on_device(points, n_neighbors)
    elif len(points) <= _EXACT_ROWS:
        search = NearestNeighbors(n_neighbors=n_neighbors).fit(points.numpy())
        graph = search.kneighbors(return_distance=False)
    else:
        graph = _approximate(points.numpy(), n_neighbors, rng)
    return graph.astype(np.int32)


def _principal_components(
    batches: Batches, means: torch.Tensor, rng: np.random.Generator
) -> torch.Tensor:
    """The rows' leading principal components, of shape (n_rows, at most 50).

    By subspace iteration (Halko, Martinsson and Tropp 2011) in passes over chunks of
    rows, so that no scaled copy of X is needed.
    """

    def centred() -> Iterator[torch.Tensor]:
        for rows in batches.chunks():
            difference = rows - means
            yield torch.where(difference.isnan(), 0, difference)

    if batches.n_features <= _N_COMPONENTS:
        return torch.cat(list(centred()))
    size = (batches.n_features, min(_N_COMPONENTS + 10, batches.n_rows))
    basis = torch.from_numpy(rng.standard_normal(size)).to(means)
    for _ in range(_N_ITERATIONS):
        product = torch.zeros_like(basis)
        for rows in centred():
            product += rows.t() @ (rows @ basis)
        basis = torch.linalg.qr(product).Q
    return torch.cat([rows @ basis for rows in centred()])[:, :_N_COMPONENTS].contiguous()


def _on_device(points: torch.Tensor, n_neighbors: int) -> np.ndarray:
    squares = points.square().sum(dim=1)
    size = max(1, _DISTANCES // len(points))
    parts = []
    for start in range(0, len(points), size):
        rows = points[start : start + size]
        distances = torch.addmm(squares.expand(len(rows), -1), rows, points.t(), alpha=-2)
        own = torch.arange(len(rows), device=points.device)
        distances[own, start + own] = torch.inf
        parts.append(distances.topk(n_neighbors, largest=False).indices.to(torch.int32))
    return torch.cat(parts).cpu().numpy()


def _approximate(points: np.ndarray, n_neighbors: int, rng: np.random.Generator) -> np.ndarray:
    try:
        from pynndescent import NNDescent
    except ImportError as error:
        raise ImportError(
            f"Neighbours of more than {_EXACT_ROWS:,} rows (here {len(points):,}) are searched "
            "with pynndescent, which is not installed: pip install 'aefeatures[neighbors]'"
        ) from error
    seed = int(rng.integers(np.iinfo(np.int32).max))
    graph, _ = NNDescent(points, n_neighbors=n_neighbors + 1, random_state=seed).neighbor_graph
    return _without_self(graph)


def _without_self(graph: np.ndarray) -> np.ndarray:
    """Take each row out of its own neighbours, or the last one where it is not among them."""
    own = graph == np.arange(len(graph))[:, None]
    own[~own.any(axis=1), -1] = True
    return graph[~own].reshape(len(graph), -1)
