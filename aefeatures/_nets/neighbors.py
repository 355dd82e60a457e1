"""Graph of nearest neighbours of the training rows, and their principal axes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F

from aefeatures._rows.batches import Batches
from aefeatures._rows.sources import SOME_ROWS, many_rows
from aefeatures._torch.ranks import ALONE, Ranks

# Number of principal components between which distances are computed: distances between raw pixels
# take many times as long and are no better.
_N_COMPONENTS = 50
_N_PASSES = 4

# Multiplications with additions up to which a product of matrices takes negligible time.
_MULTIPLY_ADDS = 10**10

# Entries of an axis below this are due to rounding.
_ROUNDING = 1e-7

# Columns up to which all of their covariances are computed, in one pass over the rows: the passes
# of the iteration take as many products, and each has to convert and centre the rows again.
_COVARIANCE_COLUMNS = 1_024

# Rows up to which the search compares every row with every other.
_EXACT_ROWS = 100_000

# Squares of larger numbers, summed over columns, may overflow in float32.
_LARGEST = 1e15

# Distances in memory at once: 16 MB in float32. On a CPU, more would not stay in the cache.
_DISTANCES = 4_000_000

# Columns up to which scikit-learn's search in a tree is faster than computing all distances.
_TREE_COLUMNS = 15

# Number of columns of the matrix of distances in a block that is reduced to its minimum.
_BLOCK = 128


def neighbor_graph(
    batches: Batches, means: torch.Tensor, n_neighbors: int, rng: np.random.Generator
) -> np.ndarray:
    """Return the positions of each row's nearest other rows.

    Parameters
    ----------
    batches : Batches
        Batches of the rows.
    means : tensor of shape (n_features,)
        Column means, which replace missing values.
    n_neighbors : int
        Number of neighbours; fewer if there are fewer other rows. A single row is its own
        neighbour.
    rng : np.random.Generator
        Generator that approximate searches are seeded from.

    Returns
    -------
    graph : ndarray of int32, shape (n_rows, n_neighbors)

    Raises
    ------
    ValueError
        If rows lie so far apart that their distances overflow in float32.
    ImportError
        If there are more than 100,000 rows and pynndescent is not installed.
    """
    n_neighbors = min(n_neighbors, batches.n_rows - 1)
    if n_neighbors <= 0:
        return np.zeros((1, 1), dtype=np.int32)
    points = _principal_components(batches, means, rng)
    largest = float(points.abs().max())
    if not largest < _LARGEST:
        raise ValueError(
            f"Neighbours cannot be found among rows with values as large as {largest:.3g} in the "
            "network's range: X is too far from the rows that its scaling was learned from."
        )
    on_cpu = points.device.type == "cpu"
    if on_cpu and len(points) > _EXACT_ROWS:
        graph = _approximate(points.numpy(), n_neighbors, rng)
    elif on_cpu and points.shape[1] <= _TREE_COLUMNS:
        from sklearn.neighbors import NearestNeighbors

        search = NearestNeighbors(n_neighbors=n_neighbors).fit(points.numpy())
        graph = search.kneighbors(return_distance=False)
    else:
        graph = _by_all_distances(points, n_neighbors)
    return graph.astype(np.int32)


def _principal_components(
    batches: Batches, means: torch.Tensor, rng: np.random.Generator
) -> torch.Tensor:
    """Return the rows' leading principal components, of shape (n_rows, at most 50)."""
    if batches.n_features <= _N_COMPONENTS:
        return torch.cat(list(_chunks(batches, means)))
    axes, _ = principal_axes(batches, means, _N_COMPONENTS, rng)
    return torch.cat([rows @ axes for rows in _chunks(batches, means)])


def principal_axes(
    batches: Batches,
    means: torch.Tensor,
    n_axes: int,
    rng: np.random.Generator,
    ranks: Ranks = ALONE,
    *,
    sample: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the leading principal axes of the rows of all ranks, and the deviations along them.

    Their shapes are (n_features, n_axes) and (n_axes,). They are computed from the covariances of
    the columns, or by subspace iteration if there are many columns (Halko, Martinsson and Tropp
    2011), in passes over chunks of rows, so that no scaled copy of X is needed. Both are zero
    beyond the number of rows. Axes point in the direction of the longer tail. `rng` has to be in
    the same state on all ranks. With `sample`, at most some thousands of evenly spaced rows are
    used.
    """
    most = many_rows(batches.n_features) if sample else batches.n_rows
    few = batches.n_rows > most

    def centred() -> Iterator[torch.Tensor]:
        return iter([_centred(batches.sample(most), means)]) if few else _chunks(batches, means)

    n_rows = sum(ranks.gather(min(batches.n_rows, most)))
    if batches.n_features <= min(_COVARIANCE_COLUMNS, n_rows):
        # In float64, if it costs little, the order of summation does not change the axes.
        small = n_rows * batches.n_features**2 <= _MULTIPLY_ADDS and means.device.type != "mps"
        dtype = torch.float64 if small else means.dtype
        product = means.new_zeros(batches.n_features, batches.n_features, dtype=dtype)
        for rows in centred():
            rows = rows.to(dtype)
            product.addmm_(rows.t(), rows)
        ranks.sum_(product)
        basis = torch.eye(batches.n_features, dtype=dtype, device=means.device)
    else:
        size = (batches.n_features, min(n_axes + 10, n_rows, batches.n_features))
        basis = torch.from_numpy(rng.standard_normal(size)).to(means)
        for i in range(_N_PASSES):
            product = torch.zeros_like(basis)
            for rows in centred():
                product += rows.t() @ (rows @ basis)
            ranks.sum_(product)
            if i < _N_PASSES - 1:  # MPS has no such decomposition
                basis = torch.linalg.qr(product.cpu()).Q.to(basis)
    # Axes within the space that was found, by decreasing variance.
    values, vectors = torch.linalg.eigh((basis.t() @ product).cpu())
    axes = (basis @ vectors.flip(1).to(basis))[:, : min(n_axes, n_rows)].to(means)
    axes = axes.masked_fill(axes.abs() < _ROUNDING, 0)  # from constant columns
    deviations = (values.flip(0).clamp(min=0) / max(n_rows, 1)).sqrt()[: axes.shape[1]].to(axes)
    # Signs are arbitrary. Longer tails are made positive, so that a rectifier keeps them.
    tails = torch.zeros_like(deviations)
    if batches.n_rows:
        tails += (_centred(batches.sample(SOME_ROWS), means) @ axes).pow(3).sum(dim=0)
    ranks.sum_(tails)
    axes = torch.where(tails < 0, -axes, axes)
    missing = n_axes - axes.shape[1]
    return F.pad(axes, (0, missing)).contiguous(), F.pad(deviations, (0, missing))


def _chunks(batches: Batches, means: torch.Tensor) -> Iterator[torch.Tensor]:
    return (_centred(rows, means) for rows in batches.chunks())


def _centred(rows: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
    difference = rows - means
    return torch.where(difference.isnan(), 0, difference)


def _by_all_distances(points: torch.Tensor, n_neighbors: int) -> np.ndarray:
    """Compare every row with every other, some rows at a time.

    The k smallest distances of a row lie in the k blocks with the smallest minima. One pass for the
    minima leaves a few hundred candidates to sort. This takes half the time of scikit-learn's
    search (60,000 rows, 50 columns).
    """
    n_rows = len(points)
    padding = -n_rows % _BLOCK
    others = F.pad(points, (0, 0, 0, padding)).t()
    squares = F.pad(points.square().sum(dim=1), (0, padding), value=torch.inf)
    n_blocks = len(squares) // _BLOCK
    size = max(1, _DISTANCES // len(squares))
    parts = []
    for start in range(0, n_rows, size):
        rows = points[start : start + size]
        distances = torch.addmm(squares, rows, others, alpha=-2)  # without the row's own square
        own = torch.arange(len(rows), device=points.device)
        distances[own, start + own] = torch.inf
        blocks = distances.view(len(rows), n_blocks, _BLOCK)
        nearest = blocks.amin(dim=2).topk(min(n_neighbors, n_blocks), largest=False).indices
        candidates = blocks[own[:, None], nearest].flatten(1)
        chosen = candidates.topk(n_neighbors, largest=False).indices
        block = nearest.gather(1, chosen.div(_BLOCK, rounding_mode="floor"))
        parts.append((block * _BLOCK + chosen % _BLOCK).to(torch.int32))
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
    """Remove each row from its own neighbours, or the last neighbour if it is not among them."""
    own = graph == np.arange(len(graph))[:, None]
    own[~own.any(axis=1), -1] = True
    return graph[~own].reshape(len(graph), -1)
