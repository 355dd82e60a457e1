"""Regularizers, except those with a module of their own, and their names."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import nn

from aefeatures._nets.contrastive import NeighborPreserving
from aefeatures._nets.neighbors import principal_axes
from aefeatures._nets.networks import n_components_of, plain, resolve_image_shape
from aefeatures._nets.regularizer import (
    Batch,
    Regularizer,
    TakesTransform,
    TrainingData,
    check_number,
    linear_head,
    seeded,
    transformed,
)
from aefeatures._nets.supervised import Supervised
from aefeatures._rows.labels import is_auto
from aefeatures._warnings import takes_old_arguments

# Mean activation of a code below which its divergence from the target stays the same.
_LEAST_MEAN = 1e-6

# Numbers of noise that are drawn once for a training, for at most this many epochs: drawing them
# for each batch takes as long as a layer. A batch whose noise would come from fewer than this many
# places without overlap draws its own.
_MOST_DRAWN = 2**20
_MOST_EPOCHS = 16
_LEAST_PLACES = 8


class Denoising(TakesTransform):
    """Encode corrupted rows and reconstruct the clean ones [1]_.

    The network has to predict corrupted columns from the others. This suits tables with redundant
    columns, robust features, and many codes, with which a plain autoencoder may learn to copy.

    Parameters
    ----------
    noise : {"masking", "swap", "gaussian"} or callable, default="masking"
        Kind of corruption. "masking" sets entries to 0 in the network's range: to the column's mean
        with scaling "standard", to black in an image. "swap" takes entries from another row of the
        batch [2]_, which suits categories. "gaussian" adds normal noise. A callable, such as a
        transform of `torchvision.transforms.v2`, takes images of shape (n, channels, height, width)
        in the network's range, on the device of the training, and returns images of the same shape.
    amount : float, default=0.25
        Fraction of entries that is masked or swapped, in [0, 1), or the noise's standard deviation,
        in units of the root of the columns' mean variance: the same number suits pixels and
        standardized columns. Not used with a callable.
    image_shape : tuple of int or None, default=None
        Layout of a row, as in `ConvNetwork`. Only used with a callable.

    Notes
    -----
    A callable gets a whole batch, and a transform of torchvision draws once for all of its images:
    one angle, one area to erase. Only noise is drawn for each pixel. To draw for each image, which
    takes one call per image, wrap the transform::

        v2.Lambda(lambda images: torch.stack([transform(image) for image in images]))

    A callable draws from PyTorch's global random state, which is seeded by `random_state` for the
    call and restored afterwards. During the call other fits with a callable wait, and your own
    threads draw other numbers from that state than they would have drawn. Missing values are
    replaced by the columns' means for the call, and are missing again afterwards.

    In a search over `noise`, put a transform of torchvision into a `v2.Compose`. Otherwise
    scikit-learn takes most transforms for estimators, because they have a method `get_params`.

    References
    ----------
    .. [1] P. Vincent, H. Larochelle, Y. Bengio and P.-A. Manzagol. Extracting and composing
       robust features with denoising autoencoders. ICML 2008.
    .. [2] J. Yoon, Y. Zhang, J. Jordon and M. van der Schaar. VIME: extending the success of self-
       and semi-supervised learning to tabular domain. NeurIPS 2020.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from aefeatures import AutoencoderTransformer, Denoising
    >>> X, _ = load_digits(return_X_y=True)
    >>> transformer = AutoencoderTransformer(10, regularizer=Denoising(amount=0.3), max_epochs=2)
    >>> transformer.fit_transform(X).shape
    (1797, 10)

    Blurred digits:

    >>> from torchvision.transforms import v2
    >>> transformer.set_params(regularizer=Denoising(v2.GaussianBlur(3))).fit_transform(X).shape
    (1797, 10)
    """

    _columns: torch.Tensor | None = None

    @takes_old_arguments(positional=("image_shape",))
    def __init__(
        self,
        noise: str | Callable[[torch.Tensor], torch.Tensor] = "masking",
        amount: float = 0.25,
        *,
        image_shape: Sequence[int] | None = None,
    ) -> None:
        self.noise = noise
        self.amount = amount
        self.image_shape = image_shape

    def prepare(self, data: TrainingData) -> Regularizer:
        """Check the parameters."""
        if callable(self.noise):
            prepared = copy.copy(self)
            prepared.image_shape = resolve_image_shape(self.image_shape, data.batches.n_features)
            prepared._means = data.means
            return prepared
        if not isinstance(self.noise, str) or self.noise not in ("masking", "swap", "gaussian"):
            raise ValueError(
                "noise must be 'masking', 'swap', 'gaussian' or a callable on images, got "
                f"{self.noise!r}."
            )
        check_number(self, "amount", upper=np.inf if self.noise == "gaussian" else 1.0)
        prepared = copy.copy(self)
        if data.batches.columns is not None:  # the levels of a category are corrupted together
            prepared._columns = torch.from_numpy(data.batches.columns).to(data.batches.device)
        if self.noise == "gaussian":
            prepared._deviation = self.amount * data.variance() ** 0.5
        prepared._n_columns = data.batches.n_features
        if data.batches.columns is not None:
            prepared._n_columns = int(data.batches.columns.max()) + 1
        # Whatever the number of epochs, so that a longer fit begins as a shorter one.
        size = min(_MOST_DRAWN, _MOST_EPOCHS * data.batches.n_rows * prepared._n_columns)
        size = 0 if data.once else size
        generator = torch.Generator(data.means.device)
        generator.manual_seed(int(data.rng.integers(np.iinfo(np.int64).max)))
        prepared._drawn = prepared._draw(data.means.new_empty(size), generator)
        return prepared

    def corrupt(self, inputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Mask, shift or transform the inputs; missing values stay missing."""
        if callable(self.noise):
            assert self.image_shape is not None
            with seeded(batch):
                return transformed("noise", self.noise, inputs, self.image_shape, self._means)
        if self.noise == "gaussian":
            return inputs + self._noise(batch)
        chosen = self._noise(batch)
        if self._columns is not None:
            chosen = chosen.index_select(1, self._columns)
        if self.noise == "swap":
            n_rows = len(inputs)
            order = torch.randperm(n_rows, generator=batch.generator, device=inputs.device)
            return torch.where(chosen, inputs.index_select(0, order), inputs)
        return inputs.masked_fill(chosen & ~inputs.isnan(), 0)

    def _draw(self, empty: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return normal noise, or which entries are chosen, of the shape of `empty`."""
        if self.noise == "gaussian":
            return empty.normal_(0, self._deviation, generator=generator)
        return empty.uniform_(generator=generator) < self.amount

    def _noise(self, batch: Batch) -> torch.Tensor:
        """Return the noise of a batch: what was drawn before, from a random place on."""
        shape = (len(batch.rows), self._n_columns)
        n, n_drawn = shape[0] * shape[1], len(self._drawn)
        if _LEAST_PLACES * n > n_drawn:
            return self._draw(batch.rows.new_empty(shape), batch.generator)
        start = int(batch.rng.integers(n_drawn - n + 1))
        return self._drawn[start : start + n].view(shape)


class NearPCA(Regularizer):
    """Keep the codes near the rows' principal components [1]_.

    Adds ``weight * ||z - p||**2 / n_features`` to the loss, with z the code of a row and p its
    leading principal components. Each code is then a principal component plus what is needed to
    reconstruct the rest. Distances and directions of the rows, which plain autoencoders distort,
    keep their meaning, and SVM and logistic regression do as well on the codes as after PCA.

    Parameters
    ----------
    weight : float, default=0.3
        Weight of the squared difference of a code, relative to the squared error of a column.

    Notes
    -----
    The components are those of the training rows in the network's range. Missing values are
    replaced by the column's mean, and signs are chosen so that longer tails are positive. In
    `partial_fit` and with `warm_start`, the components are those of the first call with enough
    rows. Codes beyond the number of rows or columns are not constrained.

    References
    ----------
    .. [1] I. T. Jolliffe. Principal component analysis, second edition. Springer 2002.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from aefeatures import AutoencoderTransformer, NearPCA
    >>> X, _ = load_wine(return_X_y=True)
    >>> transformer = AutoencoderTransformer(regularizer=NearPCA(), max_epochs=20, random_state=0)
    >>> transformer.fit_transform(X).shape
    (178, 3)
    """

    max_epochs = 100  # more epochs would overfit small tables

    def __init__(self, weight: float = 0.3) -> None:
        self.weight = weight

    def prepare(self, data: TrainingData) -> Regularizer:
        """Find the principal axes."""
        check_number(self, "weight")
        prepared = NearPCA(self.weight)
        n_axes = min(data.n_components, data.batches.n_features)
        head: Any = data.head
        if head is None or head.axes.shape[1] < n_axes:  # from a first chunk of a few rows
            rng = np.random.default_rng(0)  # in the same state on all ranks
            axes, deviations = principal_axes(
                data.batches, data.means, n_axes, rng, data.ranks, sample=True
            )
            axes = axes[:, : n_components_of(deviations)]
            if head is None or head.axes.shape[1] < axes.shape[1]:
                head = nn.Module()
                head.register_buffer("axes", axes)
                head.register_buffer("means", data.means.clone())
        prepared.head = head
        prepared._missing, prepared._axes, prepared._means = data.missing, head.axes, head.means
        prepared._middle = head.means @ head.axes
        return prepared

    def penalty(self, batch: Batch) -> torch.Tensor:
        """Return the weighted squared distance from the principal components."""
        distance = self._distance(batch.codes, batch.rows)
        return self.weight / batch.rows.shape[1] * distance.square().sum(dim=1).mean()

    def _add_gradient(
        self, batch: Batch, gradient: torch.Tensor, partner_gradient: torch.Tensor | None
    ) -> None:
        distance = self._distance(batch.codes, batch.rows)
        gradient[:, : distance.shape[1]].add_(distance, alpha=2 * self.weight / batch.rows.numel())

    def _distance(self, codes: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        codes = codes[:, : len(self._middle)]
        if self._missing:
            return codes - (rows - self._means).nan_to_num(nan=0.0) @ self._axes
        return torch.addmm(codes, rows, self._axes, alpha=-1).add_(self._middle)


class Sparse(Regularizer):
    """Keep the mean activation of every code small [1]_.

    The activation of a code z is ``1 / (1 + exp(-z))``. Over the rows of a batch its mean
    rho_j is held near `target` by ``weight * sum over j of KL(target || rho_j)``, with the
    divergence of two Bernoulli variables. This suits many codes, of which each row uses a few.

    Parameters
    ----------
    weight : float, default=0.1
    target : float, default=0.05
        Mean activation, in (0, 1).

    References
    ----------
    .. [1] A. Ng. Sparse autoencoder. CS294A lecture notes, Stanford University, 2011.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from aefeatures import AutoencoderTransformer, Sparse
    >>> X, _ = load_digits(return_X_y=True)
    >>> transformer = AutoencoderTransformer(32, regularizer=Sparse(), max_epochs=20)
    >>> activations = 1 / (1 + np.exp(-transformer.fit_transform(X)))
    >>> bool(activations.mean() < 0.15)
    True
    """

    def __init__(self, weight: float = 0.1, target: float = 0.05) -> None:
        self.weight = weight
        self.target = target

    def prepare(self, data: TrainingData) -> Regularizer:
        """Check the parameters."""
        check_number(self, "weight")
        if not (isinstance(self.target, Real) and 0 < self.target < 1):
            raise ValueError(f"target must be in (0, 1), got {self.target!r}.")
        return self

    def penalty(self, batch: Batch) -> torch.Tensor:
        """Return the weighted divergence of the batch."""
        mean = batch.codes.sigmoid().mean(dim=0).clamp(_LEAST_MEAN, 1 - _LEAST_MEAN)
        rho = self.target
        divergence = rho * (rho / mean).log() + (1 - rho) * ((1 - rho) / (1 - mean)).log()
        return self.weight * divergence.sum()

    def _add_gradient(
        self, batch: Batch, gradient: torch.Tensor, partner_gradient: torch.Tensor | None
    ) -> None:
        activations = batch.codes.sigmoid()
        mean = activations.mean(dim=0)
        slope = (1 - self.target) / (1 - mean) - self.target / mean
        slope.masked_fill_((mean < _LEAST_MEAN) | (mean > 1 - _LEAST_MEAN), 0)
        gradient += self.weight / len(activations) * slope * activations * (1 - activations)


class Contractive(Regularizer):
    """Make the codes insensitive to small changes of the input [1]_.

    Adds ``weight`` times the squared Frobenius norm of the encoder's Jacobian, averaged
    over the rows, in the network's range. This suits noisy measurements. The Jacobian takes one
    more backward pass for every code. It is that of `transform`: batch normalization uses its
    running statistics, and dropout is off.

    Parameters
    ----------
    weight : float, default=1e-3

    References
    ----------
    .. [1] S. Rifai, P. Vincent, X. Muller, X. Glorot and Y. Bengio. Contractive auto-encoders:
       explicit invariance during feature extraction. ICML 2011.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from aefeatures import AutoencoderTransformer
    >>> X, _ = load_digits(return_X_y=True)
    >>> transformer = AutoencoderTransformer(regularizer="contractive", max_epochs=2)
    >>> transformer.fit_transform(X).shape
    (1797, 3)
    """

    def __init__(self, weight: float = 1e-3) -> None:
        self.weight = weight

    def prepare(self, data: TrainingData) -> Regularizer:
        """Check the parameters."""
        check_number(self, "weight")
        return self

    def penalty(self, batch: Batch) -> torch.Tensor:
        """Return the weighted squared norm of the batch's Jacobians."""
        inputs = batch.inputs.detach().requires_grad_()
        with _evaluating(batch.encoder):
            codes = batch.encoder(inputs)
        squared = codes.new_zeros(())
        for j in range(codes.shape[1]):
            (row_gradients,) = torch.autograd.grad(codes[:, j].sum(), inputs, create_graph=True)
            squared = squared + row_gradients.square().sum()
        return self.weight * squared / len(inputs)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluate each row by itself, as in `transform`, without a change of running statistics."""
    training = [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


class Variational(Regularizer):
    """Make the codes a distribution that can be sampled from: a variational autoencoder [1]_.

    The encoder's output is the mean m of a normal distribution of the code. A linear layer on it,
    used in the training only, returns the logarithm of its variance v. The decoder gets a sample of
    the distribution, and ``beta / n_features`` times the Kullback-Leibler divergence to the
    standard normal distribution, ``sum over j of (m_j**2 + v_j - log(v_j) - 1) / 2``, is added to
    the loss (which is a mean over columns). With `loss="bce"` and beta=1 this is the
    evidence lower bound, with beta > 1 the beta-VAE [2]_. `transform` gives the mean.

    Parameters
    ----------
    beta : float, default=1.0

    References
    ----------
    .. [1] D. P. Kingma and M. Welling. Auto-encoding variational Bayes. ICLR 2014.
    .. [2] I. Higgins et al. beta-VAE: learning basic visual concepts with a constrained
       variational framework. ICLR 2017.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from aefeatures import AutoencoderTransformer
    >>> X, _ = load_digits(return_X_y=True)
    >>> transformer = AutoencoderTransformer(regularizer="variational", max_epochs=20)
    >>> transformer.fit_transform(X).shape
    (1797, 3)
    """

    def __init__(self, beta: float = 1.0) -> None:
        self.beta = beta

    def prepare(self, data: TrainingData) -> Regularizer:
        """Create the layer that returns the variances, which are 1 for every row at first."""
        check_number(self, "beta")
        prepared = Variational(self.beta)
        prepared.head = data.head or linear_head(data, data.n_components)
        return prepared

    def perturb(self, codes: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Draw from each row's distribution."""
        noise = torch.empty_like(codes).normal_(generator=batch.generator)
        return codes + noise * (self._log_variance(codes) / 2).exp()

    def penalty(self, batch: Batch) -> torch.Tensor:
        """Return the weighted divergence from the standard normal distribution."""
        log_variance = self._log_variance(batch.codes)
        divergence = (batch.codes.square() + log_variance.exp() - log_variance - 1).sum(dim=1) / 2
        return self.beta / batch.rows.shape[1] * divergence.mean()

    def _log_variance(self, codes: torch.Tensor) -> torch.Tensor:
        assert self.head is not None
        # Beyond these bounds a variance in float32 and its logarithm are useless.
        log_variance: torch.Tensor = self.head(codes).clamp(-20, 20)
        return log_variance


REGULARIZERS: dict[str, type[Regularizer]] = {
    "denoising": Denoising,
    "sparse": Sparse,
    "contractive": Contractive,
    "near_pca": NearPCA,
    "variational": Variational,
    "neighbors": NeighborPreserving,
    "supervised": Supervised,
}


def resolve_regularizers(regularizer: Any) -> list[Regularizer]:
    """Return the regularizers that the parameter names or holds; an empty list for "auto".

    Raises
    ------
    ValueError
        If a name is not in `REGULARIZERS`.
    TypeError
        If anything is neither a name nor a `Regularizer`.
    """
    if regularizer is None or is_auto(regularizer):
        return []
    several = regularizer if isinstance(regularizer, (list, tuple)) else [regularizer]
    return [_resolve(one) for one in plain(several)]


def requires_labels(regularizer: Any) -> bool:
    """Whether `fit` needs y, even if `resolve_regularizers` refuses the parameter."""
    several = regularizer if isinstance(regularizer, (list, tuple)) else [regularizer]
    return any(
        one == "supervised" if isinstance(one, str) else getattr(one, "requires_y", False)
        for one in several
    )


def _resolve(regularizer: Any) -> Regularizer:
    if isinstance(regularizer, Regularizer):
        return regularizer
    if isinstance(regularizer, str) and regularizer in REGULARIZERS:
        return REGULARIZERS[regularizer]()
    names = ", ".join(map(repr, REGULARIZERS))
    message = (
        f"regularizer must be 'auto', a Regularizer, one of {names}, or a list of these, got "
        f"{regularizer!r}."
    )
    raise ValueError(message) if isinstance(regularizer, str) else TypeError(message)
