"""What a training can be asked for beside the reconstruction."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.base import BaseEstimator
from torch import autocast, nn
from torch.autograd.function import once_differentiable

from aefeatures._batches import Batches
from aefeatures._distributed import ALONE, Ranks
from aefeatures._global_state import RandomState, global_seed
from aefeatures._labels import TASKS, Labels, is_auto, minus_ones, split_labels
from aefeatures._losses import RowLoss
from aefeatures._neighbors import neighbor_graph, principal_axes
from aefeatures._networks import n_components_of, plain, resolve_image_shape, uninitialized
from aefeatures._warnings import takes_old_arguments

# The most that an image is turned by, in radians, sheared, stretched in width and height, and
# shifted to the sides and down, in halves of its size.
_AFFINE = [0.0873, 0.05, 0.05, 0.05, 0.07, 0.07]

# The part of a batch that is decoded beside neighbours, of so many columns and rows.
_DECODED_PART = 0.5
_MANY_COLUMNS = 128
_MANY_ROWS = 8_192


@dataclass
class TrainingData:
    """What a regularizer may look at before the training.

    Attributes
    ----------
    batches : Batches
        The training rows in the network's range: `n_rows`, `n_features`, `chunks()` and
        `take(positions)`.
    y : ndarray of shape (n_rows,) or None
        What `fit` was given, for the training rows.
    means : tensor of shape (n_features,)
        Column means in the network's range, on the device and in the precision of the training.
    n_components : int
        Size of the code.
    rng : numpy.random.Generator
        To draw from; seeded by `random_state`.
    head : torch.nn.Module or None
        The `head` of the last training, where this one goes on from it.
    ranks : Ranks
        The processes of which each trains on rows of its own, within `distributed`.
    y_all : ndarray of shape (n_samples,) or None
        What `fit` was given, for the training rows and those that `early_stopping` sets aside;
        None is the same as `y`.
    rows : ndarray of int, shape (n_rows,), or None
        Positions of the training rows in `y_all`; None stands for all.
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

    def variance(self) -> float:
        """The columns' mean variance: the squared error of predicting their means.

        A penalty in this unit has the same weight for pixels as for standardized columns.
        """
        return self.ranks.mean(self.batches.variance(self.means), self.batches.n_rows)


@dataclass
class Batch:
    """One step of the training, as a regularizer sees it.

    Attributes
    ----------
    rows : tensor of shape (n, n_features)
        As they are, in the network's range; NaN where a value is missing.
    index : ndarray of int, shape (n,)
        The rows' positions among the training rows.
    encoder, decoder : torch.nn.Module
        To be called. A network of the caller's own is wrapped, so that its input is copied.
    generator : torch.Generator
        On the device of the rows; seeded by `random_state`.
    rng : numpy.random.Generator
    take : callable
        ``take(positions)`` gives other training rows.
    inputs : tensor of shape (n, n_features)
        What was encoded: the rows after every `corrupt`.
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
    inputs: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    codes: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    partner_codes: torch.Tensor | None = None
    reconstruction: torch.Tensor = field(default_factory=lambda: torch.empty(0))


class Regularizer(BaseEstimator):
    """Base class of what shapes the codes beside the reconstruction loss.

    A subclass overrides one or more of the methods below. Its parameters are stored in
    `__init__` and nothing else is kept on it: what a training needs beside them is made in
    `prepare`.

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

    #: The fewest and the most epochs that `max_epochs="auto"` stands for.
    min_epochs = 10
    max_epochs: float = math.inf

    #: The most principal components of the rows that the encoder of the default network reads.
    n_principal_components: float = math.inf

    # The part of a batch's rows that is decoded, where no regularizer of the caller's own, which
    # may look at the reconstruction, takes part.
    _decoded_part: float = 1.0

    #: A module that is trained along with the network, made in `prepare`.
    head: nn.Module | None = None

    def prepare(self, data: TrainingData) -> Regularizer:
        """Return the regularizer that takes part in one training; by default this one.

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
        """A group for each row, -1 for none: `early_stopping` leaves a row of each in training."""
        return None

    def corrupt(self, inputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return what the encoder gets in place of `inputs`; the loss compares with the rows.

        Parameters
        ----------
        inputs : tensor of shape (n, n_features)
            A copy.
        batch : Batch
            With `rows` and `index`, but no codes yet.

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
            With `rows` and `index`, but no codes yet.

        Returns
        -------
        positions : ndarray of int, shape (m,), or None
            Their codes arrive in `penalty` as `batch.partner_codes`.
        """
        return None

    def _vary(self, inputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        """What the encoder gets of `batch`, the rows that `partners` asked for."""
        return inputs

    def perturb(self, codes: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return what the decoder gets in place of the codes.

        Parameters
        ----------
        codes : tensor of shape (n, n_components)
            A copy.
        batch : Batch
            With `inputs`.

        Returns
        -------
        codes : tensor of shape (n, n_components)
        """
        return codes

    def penalty(self, batch: Batch) -> torch.Tensor | float:
        """Return what is added to the mean reconstruction loss of the batch.

        Parameters
        ----------
        batch : Batch

        Returns
        -------
        penalty : tensor of shape () or float
        """
        return 0.0


class _TakesTransform(Regularizer):
    """A regularizer that may have a transform of torchvision as a parameter.

    Many of them have a method `get_params`, which is not an estimator's.
    """

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters; there are none nested in them."""
        params: dict[str, Any] = super().get_params(deep=False)
        return params

    def __sklearn_clone__(self) -> Self:
        return type(self)(**copy.deepcopy(self.get_params()))


class Denoising(_TakesTransform):
    """Encode corrupted rows and reconstruct the clean ones [1]_.

    What survives the corruption is what columns tell about each other. For tables with
    redundant columns, for robust features, and with many codes, where a plain
    autoencoder may learn to copy.

    Parameters
    ----------
    noise : {"masking", "gaussian"} or callable, default="masking"
        "masking" sets entries to 0 in the network's range: to the column's mean under
        scaling "standard", to black in a picture. "gaussian" adds normal noise. A callable, such as
        a transform of `torchvision.transforms.v2`, takes images of shape (n, channels, height,
        width) in the network's range, on the device of the training, and returns as many of the
        same size.
    amount : float, default=0.25
        The part of all entries that is masked, in [0, 1); or the noise's standard deviation, in
        units of the root of the columns' mean variance: the same number suits pixels and
        standardized columns. Not used with a callable.
    image_shape : tuple of int or None, default=None
        For a callable, how a row is laid out: as in `ConvNetwork`.

    Notes
    -----
    A callable is given a batch at a time, and a transform of torchvision draws once for all
    images of it: one angle, one place to erase. Noise that it adds is drawn for each pixel. For a
    draw per image, which takes the time of as many calls, wrap it::

        v2.Lambda(lambda images: torch.stack([transform(image) for image in images]))

    It draws from PyTorch's global random state, which is seeded for the call by
    `random_state` and then put back. Until then other fits with such a callable wait, and what
    threads of your own draw from that state meanwhile is not what they would have drawn.
    Missing values are the columns' means for it, and missing again after it.

    In a search over `noise`, put a transform of torchvision into a `v2.Compose`: scikit-learn would
    take most of them for estimators, as they have a method `get_params`.

    References
    ----------
    .. [1] P. Vincent, H. Larochelle, Y. Bengio and P.-A. Manzagol. Extracting and composing
       robust features with denoising autoencoders. ICML 2008.

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
        if not isinstance(self.noise, str) or self.noise not in ("masking", "gaussian"):
            raise ValueError(
                f"noise must be 'masking', 'gaussian' or a callable on images, got {self.noise!r}."
            )
        _check_number(self, "amount", upper=1.0 if self.noise == "masking" else np.inf)
        prepared = copy.copy(self)
        if self.noise == "gaussian":
            prepared._deviation = self.amount * data.variance() ** 0.5
        return prepared

    def corrupt(self, inputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Mask, shift or transform the inputs; missing values stay missing."""
        if callable(self.noise):
            assert self.image_shape is not None
            with _seeded(batch):
                return _transformed("noise", self.noise, inputs, self.image_shape, self._means)
        noise = torch.empty_like(inputs)
        if self.noise == "gaussian":
            return inputs + noise.normal_(0, self._deviation, generator=batch.generator)
        masked = noise.uniform_(generator=batch.generator) < self.amount
        return inputs.masked_fill(masked & ~inputs.isnan(), 0)


def _seeded(batch: Batch) -> AbstractContextManager[object]:
    """Lend PyTorch's global random state to a function of the caller's."""
    return global_seed(int(batch.rng.integers(np.iinfo(np.int64).max)))


def _transformed(
    name: str,
    transform: Callable[[torch.Tensor], torch.Tensor],
    inputs: torch.Tensor,
    image_shape: Sequence[int],
    means: torch.Tensor,
) -> torch.Tensor:
    """Rows that `transform`, the parameter `name`, changes as images; what misses stays missing."""
    missing = inputs.isnan()
    # A copy: a transform may work in place.
    images = torch.where(missing, means, inputs).view(-1, *image_shape)
    shape = images.shape
    with torch.no_grad():
        images = transform(images)
    if not isinstance(images, torch.Tensor) or images.shape != shape:
        got = tuple(images.shape) if isinstance(images, torch.Tensor) else type(images)
        raise ValueError(
            f"{name} must keep the shape of images: {tuple(shape)} became {got}. Follow what "
            "changes it by a transform back to that size."
        )
    if not images.is_floating_point():
        raise ValueError(
            f"{name} must return floats in the network's range, got {images.dtype}. End it "
            "with v2.ToDtype(torch.float32, scale=True)."
        )
    if not bool(images.isfinite().all()):
        raise ValueError(f"{name} must return finite numbers, got NaN or infinity.")
    return images.reshape(inputs.shape).to(inputs).masked_fill(missing, torch.nan)


class NearPCA(Regularizer):
    """Keep the codes near the rows' principal components [1]_.

    Adds ``weight * ||z - p||**2 / n_features`` to the loss, with z the code of a row and p its
    leading principal components: a code is then a principal component and what it takes to
    reconstruct the rest. So distances and directions of the rows keep their meaning, which plain
    autoencoders distort, and SVM and logistic regression do as well on the codes as after PCA.

    Parameters
    ----------
    weight : float, default=0.3
        Of the squared difference of a code, in proportion to the squared error of a column.

    Notes
    -----
    The components are those of the training rows in the network's range, with missing values as the
    column's mean, and longer tails positive. In `partial_fit` and with `warm_start` they are those
    of the first call whose rows have enough of them. Codes beyond the number of rows or columns are
    free.

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

    max_epochs = 100  # more of them only learn small tables by heart

    def __init__(self, weight: float = 0.3) -> None:
        self.weight = weight

    def prepare(self, data: TrainingData) -> Regularizer:
        """Find the principal axes."""
        _check_number(self, "weight")
        prepared = NearPCA(self.weight)
        n_axes = min(data.n_components, data.batches.n_features)
        head: Any = data.head
        if head is None or head.axes.shape[1] < n_axes:  # of a first chunk of a few rows
            rng = np.random.default_rng(0)  # in one state on all ranks
            axes, deviations = principal_axes(
                data.batches, data.means, n_axes, rng, data.ranks, sample=True
            )
            axes = axes[:, : n_components_of(deviations)]
            if head is None or head.axes.shape[1] < axes.shape[1]:
                head = nn.Module()
                head.register_buffer("axes", axes)
                head.register_buffer("means", data.means.clone())
        prepared.head = head
        return prepared

    def penalty(self, batch: Batch) -> torch.Tensor:
        """Return the weighted squared distance from the principal components."""
        distance = self._distance(batch.codes, batch.rows)
        return self.weight / batch.rows.shape[1] * distance.square().sum(dim=1).mean()

    def penalty_gradient(self, codes: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return the gradient of `penalty` with regard to the first codes."""
        return 2 * self.weight / rows.numel() * self._distance(codes, rows)

    def _distance(self, codes: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        head: Any = self.head
        components = (rows - head.means).nan_to_num(nan=0.0) @ head.axes
        return codes[:, : components.shape[1]] - components


class Sparse(Regularizer):
    """Keep the mean activation of every code small [1]_.

    The activation of a code z is ``1 / (1 + exp(-z))``. Over the rows of a batch its mean
    rho_j is held near `target` by ``weight * sum over j of KL(target || rho_j)``, with the
    divergence of two Bernoulli variables. For more codes than a picture needs, of which a
    row uses a few.

    Parameters
    ----------
    weight : float, default=0.1
    target : float, default=0.05
        In (0, 1).

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
        _check_number(self, "weight")
        if not (isinstance(self.target, Real) and 0 < self.target < 1):
            raise ValueError(f"target must be in (0, 1), got {self.target!r}.")
        return self

    def penalty(self, batch: Batch) -> torch.Tensor:
        """Return the weighted divergence of the batch."""
        mean = batch.codes.sigmoid().mean(dim=0).clamp(1e-6, 1 - 1e-6)
        rho = self.target
        divergence = rho * (rho / mean).log() + (1 - rho) * ((1 - rho) / (1 - mean)).log()
        return self.weight * divergence.sum()


class Contractive(Regularizer):
    """Make the codes insensitive to small changes of the input [1]_.

    Adds ``weight`` times the squared Frobenius norm of the encoder's Jacobian, averaged
    over the rows, in the network's range. For noisy measurements. The Jacobian takes one more
    backward pass for every code. It is that of `transform`: batch normalization counts with its
    running statistics, dropout not at all.

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
        _check_number(self, "weight")
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
    """Let each row pass on its own, as in `transform`, and leave running statistics alone."""
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

    The encoder's output is the mean m of a normal distribution of the code; a linear
    layer on it, for the training alone, gives the logarithm of its variance v. The decoder gets a
    sample of it, and ``beta / n_features`` times the Kullback-Leibler divergence to the
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
    >>> transformer = AutoencoderTransformer(regularizer="variational", random_state=0)
    >>> transformer.fit_transform(X).shape
    (1797, 3)
    """

    def __init__(self, beta: float = 1.0) -> None:
        self.beta = beta

    def prepare(self, data: TrainingData) -> Regularizer:
        """Make the layer that gives the variances; they start at 1 for every row."""
        _check_number(self, "beta")
        prepared = Variational(self.beta)
        prepared.head = data.head or _linear_head(data, data.n_components)
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
        # Beyond these a float32 variance and its logarithm are no use.
        log_variance: torch.Tensor = self.head(codes).clamp(-20, 20)
        return log_variance


class NeighborPreserving(_TakesTransform):
    """Keep rows that are neighbours in X neighbours among the codes.

    In every step each row i comes with one of its nearest neighbours j, drawn at random. Their
    codes are pulled together, and pushed from the codes of all other rows and neighbours k
    in the batch: ``-log(s_ij / (s_ij + sum over k of s_ik))``, with the similarity
    ``s = 1 / (1 + squared distance of the codes)`` of t-SNE, averaged over rows and neighbours,
    times `weight` [1]_, [2]_. Makes the codes good for KNN and SVM, and a picture of
    them show the groups in the data.

    Parameters
    ----------
    n_neighbors : int, default=5
    weight : float, default=0.5
        In units of the columns' mean variance in the network's range, which is the squared error
        of predicting their means: the same number suits pixels and standardized columns.
    transform : "affine", callable or None, default=None
        For images: what each neighbour is changed by before it is encoded, so that images that
        differ by such a change get codes that are neighbours. "affine" draws for each image a
        rotation of up to 5 degrees, a shift of up to 3.5% of its size (a pixel of 28), a stretch
        of up to 5% in height and in width, and a shear of up to 5%. A callable is like that of
        `Denoising`. The reconstruction is that of the unchanged rows.
    image_shape : tuple of int or None, default=None
        With `transform`, how a row is laid out: as in `ConvNetwork`.

    Notes
    -----
    The neighbours are those by Euclidean distance between rows in the network's range, of more
    than 50 columns between their first 50 principal components. They are found exactly up
    to 100,000 rows (and on a GPU), by pynndescent beyond. The graph lives for one training.

    Beside it, and of at least 128 columns and 8,192 rows, the encoder of the default network reads
    the rows' first 64 principal components: quicker, and better for new rows. `DenseNetwork` has a
    parameter for it. Of such data half of a batch's rows are decoded in each step, those that it
    begins with, where no regularizer of the caller's own takes part: the decoder is the dearer
    half of the network.

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
    max_epochs = 200  # a few rows, pulled together time and again, only get learned by heart
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
        _check_number(self, "weight")
        _check_number(self, "n_neighbors", lower=1, integer=True)
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
        draws: AbstractContextManager[object] = nullcontext()  # from the batch's generator
        transform: Callable[[torch.Tensor], torch.Tensor] = _Affine(batch.generator)
        if callable(self.transform):
            draws, transform = _seeded(batch), self.transform
        with draws:
            return _transformed("transform", transform, inputs, self.image_shape, self._means)

    def penalty(self, batch: Batch) -> torch.Tensor:
        """Return the weighted contrastive loss of the batch."""
        loss: torch.Tensor = ContrastiveLoss.apply(batch.codes, batch.partner_codes)
        return self._scale * loss


class _Affine:
    """Turn, shift, stretch and shear images a little, each by what is drawn for it.

    Beyond an image's edge its outermost pixels go on: what is empty there differs by scaling.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        drawn = images.new_empty(6, len(images)).uniform_(-1, 1, generator=self.generator)
        angle, shear, wider, higher, right, down = drawn * drawn.new_tensor(_AFFINE)[:, None]
        cos, sin, wider, higher = angle.cos(), angle.sin(), 1 + wider, 1 + higher
        rows = [wider * cos, shear - higher * sin, right, wider * sin, higher * cos, down]
        maps = torch.stack(rows, dim=1).view(-1, 2, 3)
        grid = F.affine_grid(maps, list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


class ContrastiveLoss(torch.autograd.Function):
    """The loss of `NeighborPreserving`, its gradient written out.

    It works in place on one matrix of the similarities of all pairs; autograd's dozen of such
    matrices took longer than the products of the network.
    """

    @staticmethod
    def forward(ctx: Any, codes: torch.Tensor, partners: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of all rows and partners, tensors of shape (n, n_components)."""
        ends = torch.cat([codes, partners])
        squares = ends.square().sum(dim=1)
        similarity = torch.addmm(squares + 1, ends, ends.t(), alpha=-2)
        similarity += squares[:, None]
        similarity.clamp_(min=1).reciprocal_()
        distance = 1 + (codes - partners).square().sum(dim=1).repeat(2)
        # All but the row itself and its partner push.
        pushes = (similarity.sum(dim=1) - similarity.diagonal() - 1 / distance).clamp(min=0)
        ctx.save_for_backward(ends, similarity, distance, pushes)
        return torch.log1p(distance * pushes).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the gradients of codes and partners."""
        ends, similarity, distance, pushes = ctx.saved_tensors
        n = len(ends) // 2
        scale = gradient / (len(ends) * (1 + distance * pushes))
        # Of a pair's similarity s = 1 / (1 + d), with d the squared distance, ds/dd = -s**2; it
        # pushes at both ends.
        own = torch.arange(n, device=ends.device)
        forces = similarity.square_().fill_diagonal_(0)
        forces[own, own + n] = 0
        forces[own + n, own] = 0
        weights = scale * distance
        forces *= weights[:, None] + weights
        result = 2 * torch.addmm(forces.sum(dim=1, keepdim=True) * -ends, forces, ends)
        pulls = scale * pushes
        between = 2 * (pulls[:n] + pulls[n:])[:, None] * (ends[:n] - ends[n:])
        result[:n] += between
        result[n:] -= between
        return result[:n], result[n:]


class Supervised(Regularizer):
    """Let labels, where there are some, tell the codes what matters.

    Adds `weight` times the loss of a linear model on the codes that is trained along:
    cross-entropy for classes, squared error for numbers (standardized), a mean over all rows
    to which those without a label add nothing.

    Parameters
    ----------
    weight : float, default=1.0
        In units of the columns' mean variance, as that of `NeighborPreserving`. With a large one a
        few labels get learned by heart.
    unlabeled : object, default="auto"
        Label that marks a row of y as unlabelled, beside missing ones. "auto" is the rule in the
        notes. None: every row is labelled, and a missing label is an error.
    task : {"auto", "classification", "regression"}, default="auto"
        Whether labels are classes or numbers. "auto" is "regression" if y holds floats and any of
        them is not a whole number, otherwise "classification": targets such as 151.0 and 75.0 are
        classes unless `task` is set. The choice is left as `task_` on the fitted transformer.
    mixup : float, default=0.0
        If above 0, labels are learned from mixtures of two labelled rows, ``share * row +
        (1 - share) * other``, and of their labels, in place of the rows themselves, with the share
        from a beta distribution of which both parameters are this number [1]_. 0.5 suits most
        tables. Of rows that were trained on, codes are then hardly better than of new ones, which
        would mislead the classifier behind. Takes a second pass through the encoder.

    Notes
    -----
    Rows of y are unlabelled, with ``unlabeled="auto"``, by one rule for the whole library:

    - A missing label (None, NaN, NaT, NA) is none.
    - In classification, the number -1 (also -1.0) marks an unlabelled row beside at least two
      other numbers, and beside texts, booleans or any other labels that are not numbers.
      Texts with -1 need an array of objects or a list: an array of texts would hold "-1".
    - Beside a single other number, -1 may be the second class: `Supervised` asks for `unlabeled`,
      `AutoencoderGenerator` takes it as a class.
    - In regression, -1 is a number.

    The rule looks at the whole y, before `early_stopping` sets rows aside; at least one labelled
    row of each class stays in training. In `partial_fit` and with `warm_start`, classes and task
    are those of the first call: a later y may have no labels at all, but no new class. They are
    forgotten, with the linear model, by pickle and `save`.

    A y of several columns is an error. In a single class there is nothing to tell apart: its labels
    add nothing.

    References
    ----------
    .. [1] H. Zhang, M. Cisse, Y. N. Dauphin and D. Lopez-Paz. mixup: beyond empirical risk
       minimization. ICLR 2018.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from aefeatures import AutoencoderTransformer
    >>> X, y = load_digits(return_X_y=True)
    >>> y[100:] = -1
    >>> transformer = AutoencoderTransformer(regularizer="supervised", max_epochs=2)
    >>> transformer.fit_transform(X, y).shape
    (1797, 3)
    >>> transformer.task_
    'classification'
    """

    requires_y = True
    max_epochs = 60  # labels of a few rows are learned by heart after

    def __init__(
        self,
        weight: float = 1.0,
        unlabeled: Any = "auto",
        task: str = "auto",
        mixup: float = 0.0,
    ) -> None:
        self.weight = weight
        self.unlabeled = unlabeled
        self.task = task
        self.mixup = mixup

    def prepare(self, data: TrainingData) -> Regularizer:
        """Check y, and make the linear model that predicts it."""
        _check_number(self, "weight")
        _check_number(self, "mixup")
        head: Any = data.head
        y = np.asarray(data.y if data.y_all is None else data.y_all)
        labels = self._judge(y, head, data.ranks)
        if head is None and not any(data.ranks.gather(bool(labels.labelled.any()))):
            raise ValueError(
                "No row of y is labelled. The first fit needs a label at least; rows without one "
                "are marked as the notes of Supervised say."
            )
        classification = labels.task == "classification"
        if is_auto(self.unlabeled) and classification and minus_ones(labels.known).any():
            raise ValueError(
                "y has -1 and one other value: -1 may be a class or mark unlabelled rows. Set "
                "unlabeled=None where it is a class, unlabeled=-1 where it is a mark."
            )
        labelled, known, task = labels.of_rows(data.rows)
        if head is None:
            make = _classes_head if classification else _numbers_head
            head = make(data, labels.known if classification else known)
        prepared = copy.copy(self)
        prepared.head, prepared.task = head, task
        targets = np.zeros(len(labelled), dtype=np.int64 if classification else np.float64)
        if classification:
            targets[labelled] = np.searchsorted(head.classes, known)
        else:
            targets[labelled] = (known - head.mean) / head.spread
        prepared._scale = self.weight * data.variance()
        device = data.means.device
        prepared._labelled = torch.from_numpy(labelled).to(device)
        prepared._targets = torch.from_numpy(targets).to(device)
        return prepared

    def penalty(self, batch: Batch) -> torch.Tensor:
        """Return the weighted loss of the labelled rows, per row of the batch."""
        index = torch.from_numpy(batch.index).to(self._targets.device)
        labelled, targets = self._labelled[index], self._targets[index]
        if not self.mixup:
            losses = self._losses(batch.codes, targets) * labelled
            return self._scale * losses.mean()
        rows, targets = batch.rows[labelled], targets[labelled]
        if not len(rows):
            return batch.codes.new_zeros(())
        order = torch.randperm(len(rows), generator=batch.generator, device=rows.device)
        share = float(batch.rng.beta(self.mixup, self.mixup))
        mixed = share * rows + (1 - share) * rows[order]
        codes = batch.encoder(mixed).to(mixed.dtype)
        losses = share * self._losses(codes, targets)
        losses = losses + (1 - share) * self._losses(codes, targets[order])
        return self._scale * losses.sum() / len(batch.index)

    def _losses(self, codes: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The loss of each row."""
        head: Any = self.head
        predicted = head(codes)
        if head.classes is None:
            return (predicted[:, 0] - targets.to(predicted)).square()
        return F.cross_entropy(predicted, targets, reduction="none")

    def _judge(self, y: np.ndarray, head: Any, ranks: Ranks) -> Labels:
        """What y says of the rows; its task and classes are those of `head` where there is one."""
        if self.task not in TASKS:
            raise ValueError(f"task must be one of {', '.join(TASKS)}, got {self.task!r}.")
        if head is None:
            return split_labels(y, self.unlabeled, self.task, ranks=ranks)
        task = "regression" if head.classes is None else "classification"
        if self.task not in ("auto", task):
            raise ValueError(
                f"task={self.task!r}, but the first call learned a {task}. Set it back, or train a "
                "new network with warm_start=False and fit."
            )
        labels = split_labels(y, self.unlabeled, task, head.classes, ranks)
        unseen = set() if head.classes is None else set(labels.known.tolist())
        unseen = unseen.difference(() if head.classes is None else head.classes.tolist())
        if unseen:
            raise ValueError(
                f"y has the classes {sorted(unseen)}, which the first call did not have: "
                f"{head.classes.tolist()}."
            )
        return labels

    def _groups(self, y: np.ndarray, ranks: Ranks) -> np.ndarray:
        """The class of each labelled row; numbers are a single group."""
        labels = self._judge(y, None, ranks)
        groups = np.full(len(y), -1)
        groups[labels.labelled] = (
            np.unique(labels.known, return_inverse=True)[1]
            if labels.task == "classification"
            else 0
        )
        return groups


def _numbers_head(data: TrainingData, known: np.ndarray) -> Any:
    """A linear model of numbers on the codes, with what standardizes them."""
    head: Any = _linear_head(data, 1)
    n = max(len(known), 1)
    mean = data.ranks.mean(known.sum() / n, len(known))
    variance = data.ranks.mean(np.square(known - mean).sum() / n, len(known))
    head.classes, head.mean, head.spread = None, mean, variance**0.5 or 1.0
    return head


def _classes_head(data: TrainingData, known: np.ndarray) -> Any:
    """A linear model of classes on the codes, with the classes that its outputs stand for."""
    known_to_each = data.ranks.gather(np.unique(known))
    classes = np.unique(np.concatenate([each for each in known_to_each if len(each)]))
    head: Any = _linear_head(data, len(classes))
    head.classes = classes
    return head


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
    """Return the regularizers that the parameter names or holds; none for "auto".

    Raises
    ------
    ValueError
        If a name is none of `REGULARIZERS`.
    TypeError
        If anything is neither a name nor a `Regularizer`.
    """
    if regularizer is None or is_auto(regularizer):
        return []
    several = regularizer if isinstance(regularizer, (list, tuple)) else [regularizer]
    return [_resolve(one) for one in plain(several)]


def requires_labels(regularizer: Any) -> bool:
    """Whether `fit` needs y; also of what `resolve_regularizers` refuses."""
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


class Objective:
    """The reconstruction loss of a batch and what regularizers add to it.

    Parameters
    ----------
    autoencoder : nn.Sequential
        An encoder and its decoder.
    loss : callable
        Loss per row.
    regularizers : list of Regularizer
        As `prepare` returned them.
    batches : Batches
    rng : np.random.Generator
    mixed : bool
        Whether the network's products of matrices are computed in bfloat16.
    draws : RandomState, optional
        Random state that modules, losses and regularizers of the caller's own draw from. It is
        borrowed where a gradient is computed.
    """

    def __init__(
        self,
        autoencoder: nn.Sequential,
        loss: RowLoss,
        regularizers: list[Regularizer],
        batches: Batches,
        rng: np.random.Generator,
        *,
        mixed: bool = False,
        draws: RandomState | None = None,
    ) -> None:
        self.draws = draws or RandomState(0, ())
        self.autoencoder = autoencoder
        self.loss = loss
        self.regularizers = regularizers
        self.mixed = mixed
        self._all_known = {type(each) for each in regularizers} <= {*REGULARIZERS.values()}
        parts = [each._decoded_part for each in regularizers] if self._all_known else []
        self._decoded_part = min([1.0, *parts])
        self.batches = batches
        self._take = batches.take
        self._rng = rng
        self.generator = torch.Generator(batches.device)
        if regularizers:
            self.generator.manual_seed(int(rng.integers(np.iinfo(np.int64).max)))

    def __call__(self, rows: torch.Tensor, index: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the sum of the rows' reconstruction losses, and the mean with penalties.

        Where a part of the rows is decoded, the sum is what all would come to by it.
        """
        encoder, decoder = self.autoencoder
        # A regularizer of the caller's own may work in place.
        batch = self._corrupted(self._lent(rows), index)
        partners = [self._partners(regularizer, batch) for regularizer in self.regularizers]
        brought = [partner.inputs for partner in partners if partner is not None]
        inputs = torch.cat([batch.inputs, *brought]) if brought else batch.inputs
        with self._products(rows):
            codes = encoder(inputs).to(rows.dtype)
        batch.codes, *partner_codes = codes.split([len(rows), *map(len, brought)])
        passed = batch.codes
        for regularizer in self.regularizers:
            passed = regularizer.perturb(self._lent(passed), batch)
        # Batches are in random order: their first rows are a random sample.
        n_decoded = math.ceil(self._decoded_part * len(rows))
        with self._products(rows):
            batch.reconstruction = decoder(passed[:n_decoded]).to(rows.dtype)
        summed = self.loss(batch.reconstruction, rows[:n_decoded]).sum()
        total = summed / n_decoded
        for regularizer, partner in zip(self.regularizers, partners, strict=True):
            own = None if partner is None else partner_codes.pop(0)
            total = total + regularizer.penalty(replace(batch, partner_codes=own))
        return summed.detach() * (len(rows) / n_decoded), total

    def _partners(self, regularizer: Regularizer, batch: Batch) -> Batch | None:
        positions = regularizer.partners(batch)
        if positions is None:
            return None
        partners = self._corrupted(self._take(positions), positions)
        partners.inputs = regularizer._vary(partners.inputs, partners)
        return partners

    def corrupted(self, rows: torch.Tensor, index: np.ndarray) -> torch.Tensor:
        """Return what is encoded in place of the rows."""
        return self._corrupted(self._lent(rows), index).inputs

    def _products(self, rows: torch.Tensor) -> AbstractContextManager[object]:
        mixed = self.mixed
        return autocast(rows.device.type, dtype=torch.bfloat16) if mixed else nullcontext()

    def _corrupted(self, rows: torch.Tensor, index: np.ndarray) -> Batch:
        encoder, decoder = self.autoencoder
        batch = Batch(
            rows, index, encoder, decoder, self.generator, self._rng, self._take, inputs=rows
        )
        for regularizer in self.regularizers:
            batch.inputs = regularizer.corrupt(self._lent(batch.inputs), batch)
        return batch

    def _lent(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor if self._all_known else tensor.clone()


def _linear_head(data: TrainingData, n_outputs: int) -> nn.Linear:
    """A linear layer on the codes that starts at zero."""
    head: nn.Linear = uninitialized(
        nn.Linear, data.n_components, n_outputs, device=data.means.device, dtype=data.means.dtype
    )
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def _check_number(
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
