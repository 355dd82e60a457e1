"""`NeighborPreserving`: neighbours among the rows stay neighbours among the codes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from aefeatures._nets.neighbors import neighbor_graph
from aefeatures._nets.networks import resolve_image_shape
from aefeatures._nets.regularizer import (
    Batch,
    Regularizer,
    TakesTransform,
    TrainingData,
    check_number,
    seeded,
    transformed,
)
from aefeatures._warnings import takes_old_arguments

# Largest rotation of an image in radians, its largest shear and stretches in width and height, and
# its largest shifts to the sides and down, in halves of its size.
_AFFINE = [0.0873, 0.05, 0.05, 0.05, 0.07, 0.07]

# Part of a batch that is decoded, if X has at least the numbers of columns and rows below.
_DECODED_PART = 0.5
_MANY_COLUMNS = 128
_MANY_ROWS = 8_192


class NeighborPreserving(TakesTransform):
    """Keep rows that are neighbours in X neighbours among the codes.

    In every step each row i comes with one of its nearest neighbours j, drawn at random. Their
    codes are pulled together, and pushed from the codes of all other rows and neighbours k
    in the batch: ``-log(s_ij / (s_ij + sum over k of s_ik))``, with the similarity
    ``s = 1 / (1 + squared distance of the codes)`` of t-SNE, averaged over rows and neighbours,
    times `weight` [1]_, [2]_. This makes the codes good for KNN and SVM, and a plot of
    them shows the groups in the data.

    Parameters
    ----------
    n_neighbors : int, default=5
    weight : float, default=0.5
        Weight in units of the columns' mean variance in the network's range, which is the squared
        error of predicting their means: the same number suits pixels and standardized columns.
    transform : "affine", callable or None, default=None
        Random change of each neighbour before it is encoded, for images: images that differ by such
        a change get codes that are neighbours. "affine" draws for each image a rotation of up to 5
        degrees, a shift of up to 3.5% of its size (a pixel of 28), a stretch of up to 5% in height
        and in width, and a shear of up to 5%. A callable is like that of `Denoising`. The
        reconstruction is compared with the unchanged rows.
    image_shape : tuple of int or None, default=None
        Layout of a row, as in `ConvNetwork`. Only used with `transform`.

    Notes
    -----
    Neighbours are found by the Euclidean distance between rows in the network's range, or between
    their first 50 principal components if there are more than 50 columns. The search is exact up
    to 100,000 rows (and on a GPU), and uses pynndescent for more. The graph is kept for one
    training.

    If X has at least 128 columns and 8,192 rows, the encoder of the default network reads the rows'
    first 64 principal components. This is faster, and better for new rows. `DenseNetwork` has a
    parameter for it. For such data only the first half of a batch's rows is decoded in each step,
    unless a user-defined regularizer takes part, because the decoder is the more expensive half of
    the network.

    References
    ----------
    .. [1] S. Damrich, J. N. Böhm, F. A. Hamprecht and D. Kobak. From t-SNE to UMAP with
       contrastive learning. ICLR 2023.
    .. [2] T. Sainburg, L. McInnes and T. Q. Gentner. Parametric UMAP embeddings for
       representation and semisupervised learning. Neural Computation 33, 2021.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from aefeatures import AutoencoderTransformer, NeighborPreserving
    >>> X, _ = load_digits(return_X_y=True)
    >>> transformer = AutoencoderTransformer(regularizer=NeighborPreserving(5), max_epochs=2)
    >>> transformer.fit_transform(X).shape
    (1797, 3)
    """

    min_epochs = 20
    max_epochs = 100  # more epochs would overfit few rows
    n_principal_components = 64

    @takes_old_arguments(positional=("image_shape",))
    def __init__(
        self,
        n_neighbors: int = 5,
        weight: float = 0.5,
        transform: str | Callable[[torch.Tensor], torch.Tensor] | None = None,
        *,
        image_shape: Sequence[int] | None = None,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.weight = weight
        self.transform = transform
        self.image_shape = image_shape

    def prepare(self, data: TrainingData) -> Regularizer:
        """Find the neighbours."""
        check_number(self, "weight")
        check_number(self, "n_neighbors", lower=1, integer=True)
        prepared = copy.copy(self)
        if self.transform is not None:
            if not callable(self.transform) and self.transform != "affine":
                raise ValueError(
                    "transform must be 'affine', a callable on images or None, got "
                    f"{self.transform!r}."
                )
            prepared.image_shape = resolve_image_shape(self.image_shape, data.batches.n_features)
            prepared._means = data.means
        batches = data.batches
        if batches.n_features >= _MANY_COLUMNS and batches.n_rows >= _MANY_ROWS:
            prepared._decoded_part = _DECODED_PART
        prepared._graph = neighbor_graph(data.batches, data.means, self.n_neighbors, data.rng)
        prepared._scale = self.weight * data.variance()
        return prepared

    def partners(self, batch: Batch) -> np.ndarray:
        """Return a random neighbour of each row."""
        chosen = batch.rng.integers(self._graph.shape[1], size=len(batch.index))
        neighbors: np.ndarray = self._graph[batch.index, chosen].astype(np.intp)
        return neighbors

    def _vary(self, inputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Transform the neighbours; missing values stay missing."""
        if self.transform is None:
            return inputs
        assert self.image_shape is not None
        draws: AbstractContextManager[object] = nullcontext()  # draws from the batch's generator
        transform: Callable[[torch.Tensor], torch.Tensor] = _Affine(batch.generator)
        if callable(self.transform):
            draws, transform = seeded(batch), self.transform
        with draws:
            return transformed("transform", transform, inputs, self.image_shape, self._means)

    def penalty(self, batch: Batch) -> torch.Tensor:
        """Return the weighted contrastive loss of the batch."""
        loss: torch.Tensor = ContrastiveLoss.apply(batch.codes, batch.partner_codes)
        return self._scale * loss

    def _add_gradient(
        self, batch: Batch, gradient: torch.Tensor, partner_gradient: torch.Tensor | None
    ) -> None:
        assert batch.partner_codes is not None
        assert partner_gradient is not None
        pairs = _Pairs(batch.codes, batch.partner_codes)
        for target, pull in zip(
            (gradient, partner_gradient), pairs.gradient(self._scale), strict=True
        ):
            target += pull


class _Affine:
    """Rotate, shift, stretch and shear images a little, each by its own random amounts.

    Areas beyond an image's edge repeat its outermost pixels, because the value of empty pixels
    depends on the scaling.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        drawn = images.new_empty(6, len(images)).uniform_(-1, 1, generator=self.generator)
        # Numbers, because a tensor of them would have to be copied to the device.
        angle, shear, wider, higher, right, down = map(torch.mul, drawn, _AFFINE)
        cos, sin, wider, higher = angle.cos(), angle.sin(), 1 + wider, 1 + higher
        rows = [wider * cos, shear - higher * sin, right, wider * sin, higher * cos, down]
        maps = torch.stack(rows, dim=1).view(-1, 2, 3)
        grid = F.affine_grid(maps, list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


class ContrastiveLoss(torch.autograd.Function):
    """Loss of `NeighborPreserving` with a hand-written gradient."""

    @staticmethod
    def forward(ctx: Any, codes: torch.Tensor, partners: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of all rows and partners, tensors of shape (n, n_components)."""
        ctx.pairs = _Pairs(codes, partners)
        return ctx.pairs.loss()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the gradients of codes and partners."""
        return ctx.pairs.gradient(gradient)


class _Pairs:
    """Similarities of all pairs of rows and partners.

    It works in place on one matrix of them. The dozen such matrices that autograd makes took longer
    than the network's products of matrices.
    """

    def __init__(self, codes: torch.Tensor, partners: torch.Tensor) -> None:
        self._ends = ends = torch.cat([codes, partners])
        squares = ends.square().sum(dim=1)
        similarity = torch.addmm(squares + 1, ends, ends.t(), alpha=-2)
        similarity += squares[:, None]
        self._similarity = similarity.clamp_(min=1).reciprocal_()
        self._distance = distance = 1 + (codes - partners).square().sum(dim=1).repeat(2)
        # All rows push, except the row itself and its partner.
        pushes = similarity.sum(dim=1) - similarity.diagonal() - 1 / distance
        self._pushes = pushes.clamp(min=0)

    def loss(self) -> torch.Tensor:
        """Return the mean loss."""
        return torch.log1p(self._distance * self._pushes).mean()

    def gradient(self, factor: torch.Tensor | float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return `factor` times the gradients of codes and partners; callable once."""
        ends, distance, pushes = self._ends, self._distance, self._pushes
        n = len(ends) // 2
        scale = factor / (len(ends) * (1 + distance * pushes))
        # A pair's similarity is s = 1 / (1 + d), with d the squared distance, so ds/dd = -s**2. It
        # pushes both ends of the pair.
        forces = self._similarity.square_().fill_diagonal_(0)
        forces.diagonal(n).zero_()
        forces.diagonal(-n).zero_()
        weights = scale * distance
        forces *= weights[:, None] + weights
        result = 2 * torch.addmm(forces.sum(dim=1, keepdim=True) * -ends, forces, ends)
        pulls = scale * pushes
        between = 2 * (pulls[:n] + pulls[n:])[:, None] * (ends[:n] - ends[n:])
        result[:n] += between
        result[n:] -= between
        return result[:n], result[n:]
