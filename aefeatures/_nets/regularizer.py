"""Base class of regularizers, and the data and batches that they get."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import nn

from aefeatures._nets.networks import uninitialized
from aefeatures._rows.batches import Batches
from aefeatures._torch.random_state import global_seed, is_ours
from aefeatures._torch.ranks import ALONE, Ranks


@dataclass
class TrainingData:
    """Data that a regularizer may use before the training.

    Attributes
    ----------
    batches : Batches
        The training rows in the network's range: `n_rows`, `n_features`, `chunks()` and
        `take(positions)`.
    y : ndarray of shape (n_rows,) or None
        The y of `fit`, for the training rows.
    means : tensor of shape (n_features,)
        Column means in the network's range, on the device and in the precision of the training.
    n_components : int
        Size of the code.
    rng : numpy.random.Generator
        Generator to draw from, seeded by `random_state`.
    head : torch.nn.Module or None
        The `head` of the previous training, if this training continues it.
    ranks : Ranks
        Processes within `distributed`, each of which trains on its own rows.
    y_all : ndarray of shape (n_samples,) or None
        The y of `fit`, for the training rows and those that `early_stopping` sets aside. None means
        that it is `y`.
    rows : ndarray of int, shape (n_rows,), or None
        Positions of the training rows in `y_all`; None means all.
    missing : bool
        Whether values may be missing.
    once : bool
        Whether the training is one epoch, as in `partial_fit`.
    """

    batches: Batches
    y: np.ndarray | None
    means: torch.Tensor
    n_components: int
    rng: np.random.Generator
    head: nn.Module | None = None
    ranks: Ranks = ALONE
    y_all: np.ndarray | None = None
    rows: np.ndarray | None = None
    missing: bool = True
    once: bool = False

    def variance(self) -> float:
        """Return the columns' mean variance: the squared error of predicting their means.

        A penalty in this unit has the same weight for pixels as for standardized columns.
        """
        return self.ranks.mean(self.batches.variance(self.means), self.batches.n_rows)


_NOTHING = torch.empty(0)


@dataclass
class Batch:
    """Rows and tensors of one step of the training.

    Attributes
    ----------
    rows : tensor of shape (n, n_features)
        Uncorrupted rows in the network's range; missing values are NaN.
    index : ndarray of int, shape (n,)
        Positions of the rows among the training rows.
    encoder, decoder : torch.nn.Module
        Modules to be called. A user-defined network is wrapped, so that its input is copied.
    generator : torch.Generator
        Generator on the device of the rows, seeded by `random_state`.
    rng : numpy.random.Generator
    take : callable
        ``take(positions)`` returns other training rows.
    inputs : tensor of shape (n, n_features)
        Rows that were encoded, after every `corrupt`.
    codes : tensor of shape (n, n_components)
    partner_codes : tensor of shape (m, n_components) or None
        Codes of the rows that `partners` asked for.
    reconstruction : tensor of shape (n, n_features)
    """

    rows: torch.Tensor
    index: np.ndarray
    encoder: nn.Module
    decoder: nn.Module
    generator: torch.Generator
    rng: np.random.Generator
    take: Callable[[np.ndarray], torch.Tensor]
    inputs: torch.Tensor = _NOTHING
    codes: torch.Tensor = _NOTHING
    partner_codes: torch.Tensor | None = None
    reconstruction: torch.Tensor = _NOTHING


class Regularizer(BaseEstimator):
    """Base class of regularizers, which shape the codes in addition to the reconstruction loss.

    A subclass overrides one or more of the methods below. `__init__` stores the parameters and
    nothing else. Everything else that a training needs is created in `prepare`.

    See Also
    --------
    Denoising, Sparse, Contractive, Variational, NeighborPreserving, Supervised

    Examples
    --------
    Codes that lie near the origin:

    >>> from sklearn.datasets import load_digits
    >>> from aefeatures import AutoencoderTransformer, Regularizer
    >>> class Centred(Regularizer):
    ...     def __init__(self, weight=0.1):
    ...         self.weight = weight
    ...
    ...     def penalty(self, batch):
    ...         return self.weight * batch.codes.square().mean()
    >>> X, _ = load_digits(return_X_y=True)
    >>> transformer = AutoencoderTransformer(regularizer=Centred(), max_epochs=5, random_state=0)
    >>> bool(abs(transformer.fit_transform(X)).mean() < 1)
    True
    """

    #: Whether `fit` needs y.
    requires_y = False

    #: Least and largest number of epochs that `max_epochs="auto"` stands for.
    min_epochs = 10
    max_epochs: float = math.inf

    #: Largest number of principal components that the encoder of the default network reads.
    n_principal_components: float = math.inf

    #: Whether a code has to be smaller than a row, because the network would learn to copy.
    compresses = True

    # Part of a batch's rows that is decoded. With a user-defined regularizer, which may use the
    # whole reconstruction, all rows are decoded.
    _decoded_part: float = 1.0

    #: Module that is trained along with the network, created in `prepare`.
    head: nn.Module | None = None

    def prepare(self, data: TrainingData) -> Regularizer:
        """Return the regularizer that takes part in one training, by default this one.

        Called once in every `fit` and `partial_fit`, before the first step.

        Parameters
        ----------
        data : TrainingData

        Returns
        -------
        regularizer : Regularizer
        """
        return self

    def _groups(self, y: np.ndarray, ranks: Ranks) -> np.ndarray | None:
        """Return a group for each row or -1; `early_stopping` keeps a row of each in training."""
        return None

    def corrupt(self, inputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the input of the encoder instead of `inputs`; the loss uses the uncorrupted rows.

        Parameters
        ----------
        inputs : tensor of shape (n, n_features)
            Copy that may be changed in place.
        batch : Batch
            Batch with `rows` and `index`, but without codes.

        Returns
        -------
        inputs : tensor of shape (n, n_features)
        """
        return inputs

    def partners(self, batch: Batch) -> np.ndarray | None:
        """Return positions of other training rows to be encoded along with the batch.

        Parameters
        ----------
        batch : Batch
            Batch with `rows` and `index`, but without codes.

        Returns
        -------
        positions : ndarray of int, shape (m,), or None
            Positions of rows whose codes `penalty` gets as `batch.partner_codes`.
        """
        return None

    def _vary(self, inputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the input of the encoder for `batch`, the rows that `partners` asked for."""
        return inputs

    def perturb(self, codes: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the input of the decoder instead of the codes.

        Parameters
        ----------
        codes : tensor of shape (n, n_components)
            Copy that may be changed in place.
        batch : Batch
            Batch with `inputs`.

        Returns
        -------
        codes : tensor of shape (n, n_components)
        """
        return codes

    def penalty(self, batch: Batch) -> torch.Tensor | float:
        """Return the term that is added to the mean reconstruction loss of the batch.

        Parameters
        ----------
        batch : Batch

        Returns
        -------
        penalty : tensor of shape () or float
        """
        return 0.0

    def _add_gradient(
        self, batch: Batch, gradient: torch.Tensor, partner_gradient: torch.Tensor | None
    ) -> None:
        """Add the gradient of `penalty` with regard to codes and partners' codes.

        It is used instead of autograd's for regularizers that the written gradient knows.
        """


class TakesTransform(Regularizer):
    """Regularizer that may have a transform of torchvision as a parameter.

    Many such transforms have a method `get_params` that is not an estimator's.
    """

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters, which have no nested ones."""
        params: dict[str, Any] = super().get_params(deep=False)
        return params

    def __sklearn_clone__(self) -> Self:
        return type(self)(**copy.deepcopy(self.get_params()))


def seeded(batch: Batch) -> AbstractContextManager[object]:
    """Seed PyTorch's global random state for a user-defined function, and restore it afterwards."""
    return global_seed(int(batch.rng.integers(np.iinfo(np.int64).max)))


def transformed(
    name: str,
    transform: Callable[[torch.Tensor], torch.Tensor],
    inputs: torch.Tensor,
    image_shape: Sequence[int],
    means: torch.Tensor,
) -> torch.Tensor:
    """Return rows changed as images by `transform`, the parameter `name`; NaN stays NaN."""
    missing = inputs.isnan()
    # A copy, because a transform may change it in place.
    images = torch.where(missing, means, inputs).view(-1, *image_shape)
    shape = images.shape
    with torch.no_grad():
        images = transform(images)
    if not isinstance(images, torch.Tensor) or images.shape != shape:
        got = tuple(images.shape) if isinstance(images, torch.Tensor) else type(images)
        raise ValueError(
            f"{name} must keep the shape of images: {tuple(shape)} became {got}. Add a transform "
            "that restores the size."
        )
    if not images.is_floating_point():
        raise ValueError(
            f"{name} must return floats in the network's range, got {images.dtype}. End it "
            "with v2.ToDtype(torch.float32, scale=True)."
        )
    # Reading the result waits for a device, so our own transforms are trusted.
    if not is_ours(transform) and not bool(images.isfinite().all()):
        raise ValueError(f"{name} must return finite numbers, got NaN or infinity.")
    return images.reshape(inputs.shape).to(inputs).masked_fill(missing, torch.nan)


def linear_head(data: TrainingData, n_outputs: int) -> nn.Linear:
    """Return a linear layer on the codes whose weights are zero."""
    head: nn.Linear = uninitialized(
        nn.Linear, data.n_components, n_outputs, device=data.means.device, dtype=data.means.dtype
    )
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def check_number(
    regularizer: Regularizer,
    name: str,
    lower: float = 0.0,
    upper: float = np.inf,
    *,
    integer: bool = False,
) -> None:
    value = getattr(regularizer, name)
    kind: Any = Integral if integer else Real
    if not (isinstance(value, kind) and lower <= value < upper):
        what = "an integer" if integer else "a number"
        raise ValueError(
            f"{name} of {type(regularizer).__name__} must be {what} in [{lower:g}, {upper:g}), "
            f"got {value!r}."
        )
