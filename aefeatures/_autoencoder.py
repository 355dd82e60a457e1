"""`AutoencoderTransformer`: the estimator."""

from __future__ import annotations

import copy
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    clone,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import nn

from aefeatures._batches import (
    Batches,
    Rows,
    batch_size_of,
    has_missing,
    map_chunks,
    to_tensor,
    work_dtype,
)
from aefeatures._callbacks import FitTask
from aefeatures._checkpoint import Checkpoint, FitFile, digest, digest_of_rows
from aefeatures._device import (
    PRECISIONS,
    from_arrays,
    place,
    resolve_device,
    resolve_saved_device,
    to_arrays,
)
from aefeatures._distributed import ALONE, Ranks, current_ranks
from aefeatures._global_state import (
    RandomState,
    global_seed,
    is_ours,
    random_state_for,
    seed_beside,
    unaffected,
    without_autocast,
)
from aefeatures._losses import RowLoss, leave_out_missing, resolve_loss
from aefeatures._neighbors import principal_axes
from aefeatures._networks import (
    Autoencoder,
    BuildSpec,
    ConvNetwork,
    Cost,
    Decoder,
    DenseNetwork,
    Encoder,
    FillMissing,
    Network,
    build_network,
    cost_per_row,
    layer_widths,
)
from aefeatures._optimizer import AdamState
from aefeatures._persistence import load_model, save_model
from aefeatures._progress import Progress
from aefeatures._regularizers import (
    NeighborPreserving,
    Regularizer,
    TrainingData,
    requires_labels,
    resolve_regularizers,
)
from aefeatures._scaling import Scaling, learn_scaling
from aefeatures._training import EarlyStopping, TrainingResult, Watcher, diagnose, train
from aefeatures._validation import (
    PARAMETER_CONSTRAINTS,
    CallbackSupportMixin,
    check_array_library,
    check_codes,
    check_loss_range,
    check_rows,
    check_rows_and_labels,
    fit_context,
    in_columns_of_fit,
    like,
    name_of_array_library,
    resolve_max_epochs,
    resolve_principal_components,
    unchanged_on_error,
)

_MODULES = ("encoder_", "decoder_", "_scaling", "_fill")
_OF_RUNNING_FIT = ("_callback_fit_ctx", "_skl_callbacks_to_teardown")

# Parameters that do not change what a fit comes to, or that count by what they came to.
_NOT_TOLD_APART = ("checkpoint", "device", "random_state", "verbose", "warm_start")

# Parameters that may differ between ranks.
_OF_A_RANK = ("device", "random_state", "verbose")

_NEIGHBORS: dict[str, Any] = {
    "activation": "gelu",
    "normalization": "layer",
    "regularizer": NeighborPreserving(),
    "learning_rate": 7e-3,
    "batch_size": 256,
}

PRESETS: dict[str, dict[str, Any]] = {
    "lecture": {"learning_rate_schedule": "constant", "max_epochs": 10},
    "neighbors": {**_NEIGHBORS, "hidden_layer_sizes": (320, 256, 64)},
    "tabular": {**_NEIGHBORS, "hidden_layer_sizes": (256, 128, 64), "scaling": "standard"},
    "images": {"network": ConvNetwork(), "learning_rate": 7e-3, "batch_size": 128},
}


class AutoencoderTransformer(
    CallbackSupportMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator
):
    """Features learned by an autoencoder.

    An autoencoder is a network trained to give back its input through a narrow middle, the
    code [1]_. `fit` trains one on the rows of X, `transform` returns the codes: a few
    numbers per row that a classifier takes as features.

    By default the encoder has the widths n_features-128-64-12-3 with a rectifier between
    them and none after the code, the decoder mirrors it, and Adam [2]_ minimizes the
    mean squared error over batches of 64 rows.

    Parameters
    ----------
    n_components : int, default=3
        Size of the code.
    hidden_layer_sizes : int or array-like of int, default=(128, 64, 12)
        Widths of the encoder's hidden layers; the decoder mirrors them. `()` makes encoder
        and decoder linear.
    activation : {"relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid"}, default="relu"
        What follows each hidden layer.
    normalization : {"layer", "batch"} or None, default=None
        What stands between each hidden layer and its activation.
    network : DenseNetwork, ConvNetwork, callable or None, default=None
        Builds encoder and decoder. None is a `DenseNetwork` of the three parameters above, which
        are not used otherwise (with `NeighborPreserving` it reads principal components where rows
        and columns are many). A callable `(n_features, n_components) -> (encoder, decoder)`
        returns two modules that turn rows of the one width into rows of the other, in the
        network's range (see `scaling`); copies of them are trained.
    scaling : {"auto", "standard", "feature", "global"} or None, default="auto"
        The affine map from X to the network's range, learned in `fit` and undone in
        `inverse_transform`.

        - "standard": each column to zero mean and unit variance.
        - "feature": each column to [0, 1].
        - "global": the whole matrix to [0, 1], by one minimum and one maximum.
        - None: X as it is.
        - "auto": uint8 and uint16 whose largest value is above half their type's maximum
          are divided by that maximum; X within [0, 1] stays as it is; all else is "standard".

        Where the range is [0, 1] the decoder ends in a sigmoid, else it is linear.
    loss : {"mse", "bce", "mae", "huber"} or callable, default="mse"
        Reconstruction loss, a mean over columns, in the network's range. A callable takes
        `(reconstruction, target)`, two tensors of shape (n, n_features), and returns a
        tensor of shape (n,); it may be negative. "bce" needs a range of [0, 1]. The notes say how
        missing values are left out of a callable.
    regularizer : str, Regularizer, list of these, or None, default=None
        What shapes the codes beside the reconstruction: "denoising", "sparse", "contractive",
        "variational", "neighbors", "supervised", the objects of these (`Denoising`, `Sparse`,
        `Contractive`, `Variational`, `NeighborPreserving`, `Supervised`), or a `Regularizer` of
        your own.
    learning_rate : float, default=5e-3
        Peak learning rate of Adam.
    learning_rate_schedule : {"one_cycle", "constant", "cosine"}, default="one_cycle"
        "one_cycle" rises from a 25th of the peak over the first 30% of the steps, then falls
        to nearly zero [3]_; "cosine" falls from the start.
    weight_decay : float, default=0.0
        Decoupled weight decay [4]_. Weights that require no gradient, and the values that stand
        for missing ones, do not decay.
    batch_size : int, default=64
        Rows in a step. The last batch of an epoch holds the rows left over.
    max_epochs : int or "auto", default="auto"
        Passes over the rows. "auto" means ``max(10, ceil(192_000 / n_rows))``, where fewer rows
        than 64 or `batch_size` count as so many: 10 on data of 60,000 rows, and on small data
        about 3,000 steps at batches of 64. With `NeighborPreserving` at least 20 and at most 200.
    early_stopping : bool, default=False
        Whether to set `validation_fraction` of the rows aside, stop when the loss on them
        no longer falls, and keep the weights at which it was lowest.
    validation_fraction : float, default=0.1
        Part of the rows, drawn at random, that `early_stopping` sets aside.
    n_iter_no_change : int, default=5
        Epochs without improvement after which `early_stopping` stops. They are counted from
        where the learning rate has its peak.
    tol : float, default=1e-4
        Improvement that counts, relative to the size of the best validation loss.
    warm_start : bool, default=False
        Whether a further `fit` goes on from the weights and the scaling of the last one.
    device : str or torch.device, default="auto"
        Where to train and encode. "auto" takes CUDA, else MPS, else the CPU; of several GPUs the
        first, but the processes of joblib's loky, as of a search with `n_jobs`, take them in turn.
    precision : {"float32", "float64", "bfloat16"}, default="float32"
        Precision of the weights and of the training. "bfloat16" keeps the weights in float32
        and multiplies matrices in bfloat16: for large networks on a GPU.
    random_state : int, RandomState instance or None, default=None
        Determines the first weights, the order of rows, the validation rows and what code of your
        own draws (see the notes). The same int gives the same codes on the same machine and
        number of threads.
    checkpoint : str, path-like or Checkpoint, default=None
        A folder to keep a fit in while it runs, so that it survives the death of its process:
        `fit` with the same parameters and data goes on from there, and comes to bitwise the same
        result on the same machine. Each fit has its own file, so that clones can share the folder;
        it is written at the end of an epoch, about once a second, and within long epochs every two
        minutes. It is removed when the fit is over, but for ``Checkpoint(folder, keep=True)``. See
        the notes.
    verbose : int, default=0
        0 is silent; 1 shows losses, rows per second and the time left, in one line that moves in
        a terminal and in Jupyter, else in at most a line a second.

    Attributes
    ----------
    encoder_, decoder_ : torch.nn.Module
        The trained network, on the CPU, in the network's range. `to_module` gives it with
        the scaling.
    n_features_in_ : int
        Number of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns seen in `fit`, where X has string names for all of them.
    n_iter_ : int
        Epochs trained.
    n_steps_ : int
        Batches trained on.
    max_epochs_ : int
        What `max_epochs` came to.
    loss_ : float
        Training loss in the last epoch.
    loss_curve_ : list of float
        Training loss per epoch, in the network's range, measured while the weights change; of the
        reconstruction alone, without what a regularizer adds.
    validation_loss_curve_ : list of float or None
        Loss on the validation rows after each epoch; None without `early_stopping`.
    best_loss_ : float
        Lowest value of `validation_loss_curve_` or, where that is None, of `loss_curve_`.
    device_ : torch.device
        Where the last `fit` ran.

    See Also
    --------
    sklearn.decomposition.PCA : The best linear map to a code, in closed form.

    Notes
    -----
    float64 and 32- or 64-bit integer X is encoded and returned in float64, all else in
    float32.

    A missing value (NaN) is left out of the loss and of the scaling's statistics. What enters
    the network in its place is a number per column: the column's mean or, where the training
    data misses any value, one that is learned with the weights. Sparse matrices are
    made dense a few batches at a time, and give what the dense matrix gives.

    A `loss` of your own is that of the known entries of a row. If it is a sum or a mean over
    columns of one function of an entry and its target, it is computed for these entries alone. If
    columns have weights, it is a mean over the known columns. Any other loss has to leave out the
    entries by itself whose target is NaN, otherwise `fit` and `score_samples` refuse X.

    A `network`, `loss` or regularizer of your own may draw from PyTorch's global random state, as
    dropout does. For each step it is replaced by a state that follows from `random_state`, and then
    put back. Until then other fits of this kind wait, and other threads of your own should not draw
    from it. Where such code draws in `transform` and the like, too, each call draws the same
    numbers. The random states of NumPy and Python are not replaced: draw from PyTorch's.

    With scikit-learn's array API dispatch (``config_context(array_api_dispatch=True)``), tensors
    give tensors and other libraries' arrays give theirs, on the same device, which need not be
    that of the transformer. Without it they give NumPy arrays.

    Callbacks of scikit-learn 1.9 or later (``transformer.set_callbacks(...)``) are called in `fit`,
    not in `partial_fit`: for the whole and for each epoch, after which one that returns True
    ends the training. Their `fitted_estimator` has the weights of that epoch. Where y is None they
    get X as y.

    With `checkpoint`, a fit is found again by a digest of its parameters, of X (beyond 256 MiB of
    some of its rows and all columns' means), of y where a regularizer needs it, of the kind of
    device and of the versions of the libraries; functions of your own count by their code. With
    ``random_state=None`` it goes on with the numbers that it drew at first. After Ctrl-C the file
    stays, and the same `fit` goes on from it. A damaged file is removed with a warning, and the fit
    starts anew; where the same fit is running in that folder already, this one runs without. What
    your own network or regularizer keeps outside parameters and buffers is not in the file.
    `partial_fit` writes none, and `load` does not restore the parameter.

    Training does not take `sample_weight`: that weights equal repeated rows, as
    scikit-learn asks, cannot hold for an optimizer of batches.

    References
    ----------
    .. [1] G. E. Hinton and R. R. Salakhutdinov. Reducing the dimensionality of data with
       neural networks. Science 313, 2006.
    .. [2] D. P. Kingma and J. Ba. Adam: a method for stochastic optimization. ICLR 2015.
    .. [3] L. N. Smith and N. Topin. Super-convergence: very fast training of neural networks
       using large learning rates. SPIE 11006, 2019.
    .. [4] I. Loshchilov and F. Hutter. Decoupled weight decay regularization. ICLR 2019.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import train_test_split
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.svm import SVC
    >>> from aefeatures import AutoencoderTransformer
    >>> X, y = load_digits(return_X_y=True)
    >>> X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
    >>> pipeline = make_pipeline(AutoencoderTransformer(random_state=0), SVC())
    >>> pipeline.fit(X_train, y_train).score(X_test, y_test) > 0.8
    True
    >>> pipeline[:-1].transform(X_test).shape
    (450, 3)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = PARAMETER_CONSTRAINTS

    encoder_: nn.Module
    decoder_: nn.Module
    n_features_in_: int
    n_iter_: int
    n_steps_: int
    max_epochs_: int
    loss_: float
    loss_curve_: list[float]
    validation_loss_curve_: list[float] | None
    best_loss_: float
    device_: torch.device
    _scaling: Scaling
    _fill: Any  # a FillMissing
    _learns_missing: bool
    _fitted_library: str | None = None  # of arrays that are not NumPy's
    _built_from: dict[str, Any]  # what the network was built from, for training on
    _network: Any  # what built it: a Network, whose parameters are its own, or a callable
    _fitted_loss: str | RowLoss
    _seed: int
    _rng: np.random.Generator
    # Kinds of the last training's regularizers and what they trained along.
    _heads: list[tuple[type[Regularizer], nn.Module | None]]
    _optimizer_state: AdamState | None
    _cost: Cost

    def __init__(
        self,
        n_components: int = 3,
        *,
        hidden_layer_sizes: Any = (128, 64, 12),
        activation: str = "relu",
        normalization: str | None = None,
        network: Any = None,
        scaling: str | None = "auto",
        loss: str | Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = "mse",
        regularizer: Any = None,
        learning_rate: float = 5e-3,
        learning_rate_schedule: str = "one_cycle",
        weight_decay: float = 0.0,
        batch_size: int = 64,
        max_epochs: int | str = "auto",
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        tol: float = 1e-4,
        warm_start: bool = False,
        device: str | torch.device = "auto",
        precision: str = "float32",
        random_state: int | np.random.RandomState | None = None,
        checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
        verbose: int = 0,
    ) -> None:
        self.n_components = n_components
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.normalization = normalization
        self.network = network
        self.scaling = scaling
        self.loss = loss
        self.regularizer = regularizer
        self.learning_rate = learning_rate
        self.learning_rate_schedule = learning_rate_schedule
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.device = device
        self.precision = precision
        self.random_state = random_state
        self.checkpoint = checkpoint
        self.verbose = verbose

    @classmethod
    def from_preset(cls, name: str, **params: Any) -> Self:
        """Return an unfitted transformer with the settings of a preset.

        Parameters
        ----------
        name : {"lecture", "neighbors", "tabular", "images"}
            - "lecture": a constant learning rate and 10 epochs, whatever the number of rows.
            - "neighbors": codes for KNN and SVM, few of them, and where few rows are labelled.
              A wider network with layer normalization, and `NeighborPreserving`. Chosen on
              MNIST, Fashion-MNIST, satimage, covtype, segment, spambase, adult and tox_171.
            - "tabular": the same for tables: standardized columns and a smaller network. The
              preset for novelty detection. Chosen on the tables among these and on 19 sets
              of ADBench.
            - "images": a `ConvNetwork` for square images, for a good reconstruction; other
              shapes by ``network__image_shape``. Chosen on MNIST with 32 codes. Transforms of
              torchvision go into `Denoising`.
        **params
            Parameters that override those of the preset.

        Returns
        -------
        AutoencoderTransformer

        Raises
        ------
        ValueError
            If there is no preset of that name.

        Examples
        --------
        >>> from aefeatures import AutoencoderTransformer
        >>> AutoencoderTransformer.from_preset("lecture", n_components=2)
        AutoencoderTransformer(learning_rate_schedule='constant', max_epochs=10,
                               n_components=2)
        """
        if name not in PRESETS:
            raise ValueError(f"Unknown preset {name!r}. Presets: {', '.join(sorted(PRESETS))}.")
        return cls(**{**clone(PRESETS[name], safe=False), **params})

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> Self:
        """Train the autoencoder on the rows of X.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Numbers without infinity; NaN is a missing value. Not changed, and not copied as a
            whole where it is an array, a memory map, a CSR matrix, a dataset of h5py or zarr, or
            what ``load_images(..., lazy=True)`` gives. Of a dataset of h5py or zarr, and of a map
            larger than half the memory, blocks of consecutive rows are read in random order.
        y : array-like of shape (n_samples,), default=None
            Ignored, unless a regularizer learns from it (`Supervised`).

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If X or a parameter cannot be used; the message says what was expected.
        FloatingPointError
            If the training diverges. The estimator is left as it was before.
        MemoryError
            If a batch does not fit into the device's memory.
        KeyboardInterrupt
            If interrupted before the end of the first epoch, or twice within two seconds. The
            estimator is left as it was before.
        OSError
            If the folder `checkpoint` cannot be used.

        Warns
        -----
        UserWarning
            If interrupted later: the estimator is fitted with the best weights so far.
        RuntimeWarning
            If a checkpoint is damaged, cannot be written, or belongs to a fit that is running.
        ConvergenceWarning
            If nothing was learned: the reconstructions are no better than the means of the
            columns, or all rows have the same code.
        """
        resume = self.warm_start and hasattr(self, "encoder_")
        task = FitTask(self, X, y)
        ranks = current_ranks()
        with self._fitting(), ranks.together(), ExitStack() as closing:
            self._fitted_library = name_of_array_library(X)
            X, y = self._check(X, y, resume, ranks)
            self._start(X, resume, ranks)
            checkpoint = None
            if self.checkpoint is not None:
                checkpoint = closing.enter_context(self._open_checkpoint(X, y, resume))
                if self.random_state is None and not resume:
                    self._start_network(X, checkpoint.seed)
            self._optimizer_state = None
            train_rows, validation_rows = self._split(X.shape[0], ranks)
            y = y if y is None or train_rows is None else y[train_rows]
            counts = ranks.gather(X.shape[0] if train_rows is None else len(train_rows))
            batches = self._make_batches(
                X, train_rows, batch_size_of(counts, self.batch_size, ranks.rank)
            )
            early_stopping = None
            if validation_rows is not None:
                validation = self._make_batches(X, validation_rows)
                early_stopping = EarlyStopping(validation, self.n_iter_no_change, self.tol)
            self.max_epochs_ = resolve_max_epochs(
                self.max_epochs,
                sum(counts),
                self.batch_size * ranks.size,
                resolve_regularizers(self.regularizer),
            )
            task.begin(self.max_epochs_)
            autoencoder, loss, result = self._train(
                any(ranks.gather(has_missing(X))),
                y,
                batches,
                ranks,
                task=task,
                checkpoint=checkpoint,
                max_epochs=self.max_epochs_,
                schedule=self.learning_rate_schedule,
                early_stopping=early_stopping,
            )
            with global_seed(self._seed, self._network, self.loss):
                nothing_learned = diagnose(autoencoder, batches, loss, ranks)
            self._store(autoencoder, result)
            task.end()
        if nothing_learned:
            warnings.warn(
                f"{type(self).__name__} learned nothing: {nothing_learned}. Change max_epochs "
                f"(now {self.max_epochs_}), learning_rate (now {self.learning_rate:g}) or "
                f"scaling (now {self.scaling!r}).",
                ConvergenceWarning,
                stacklevel=3,
            )
        return self

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Train for one epoch on the rows of X, at the constant `learning_rate`.

        The first call settles the network and the scaling from its X. Adam's moments go
        from call to call, but not into a pickle or a clone.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Numbers without infinity, any number of rows.
        y : array-like of shape (n_samples,), default=None
            Ignored, unless a regularizer learns from it (`Supervised`).

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If X or a parameter cannot be used.
        FloatingPointError
            If the training diverges. The estimator is left as it was before.

        Examples
        --------
        >>> from sklearn.datasets import load_digits
        >>> from aefeatures import AutoencoderTransformer
        >>> X, _ = load_digits(return_X_y=True)
        >>> transformer = AutoencoderTransformer(random_state=0)
        >>> for epoch in range(3):
        ...     pictures = transformer.partial_fit(X).reconstruct(X[:5])
        >>> transformer.n_iter_
        3
        """
        resume = hasattr(self, "encoder_")
        ranks = current_ranks()
        with self._fitting(), ranks.together():
            self._fitted_library = name_of_array_library(X)
            X, y = self._check(X, y, resume, ranks)
            self._start(X, resume, ranks)
            counts = ranks.gather(X.shape[0])
            batch_size = batch_size_of(counts, self.batch_size, ranks.rank)
            batches = self._make_batches(X, batch_size=batch_size)
            autoencoder, _, result = self._train(
                any(ranks.gather(has_missing(X))),
                y,
                batches,
                ranks,
                max_epochs=1,
                optimizer_state=self._optimizer_state,
            )
            self._store(autoencoder, result)
            self._optimizer_state = result.optimizer_state
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the codes of the rows of X.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        Z : array of shape (n_samples, n_components)
            In float64 for float64 and 32- or 64-bit integer X, else in float32.
        """
        rows = self._check_fitted_rows(X, "transform")
        encoder = self._placed(self.encoder_, rows.dtype)
        codes = self._map_chunks(
            lambda chunk: encoder(self._filled(self._scaled(chunk), chunk)),
            rows,
            self._n_features_out,
        )
        return like(codes, X)

    def inverse_transform(self, Z: Any) -> np.ndarray:
        """Return the rows, in X's units, that the decoder makes of codes.

        Parameters
        ----------
        Z : array-like of shape (n_samples, n_components)

        Returns
        -------
        X : ndarray or data frame of shape (n_samples, n_features)
            A frame with the names of the columns in `fit`, where `set_output` asks for frames.
        """
        check_is_fitted(self)
        check_array_library(self, Z, self._fitted_library, "inverse_transform")
        codes = check_codes(Z, self._n_features_out, self)
        decoder = self._placed(self.decoder_, codes.dtype)
        rows = self._map_chunks(
            lambda chunk: self._scaling.inverse(decoder(to_tensor(chunk, self.device_))),
            codes,
            self.n_features_in_,
        )
        return in_columns_of_fit(self, rows, Z)

    def reconstruct(self, X: Any) -> np.ndarray:
        """Return X as the autoencoder gives it back: an estimate of every entry.

        ``np.where(np.isnan(X), transformer.reconstruct(X), X)`` fills in missing values.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        X_reconstructed : ndarray or data frame of shape (n_samples, n_features)
            In X's units, in the dtype of `transform`. A frame as of `inverse_transform`.
        """
        rows = self._check_fitted_rows(X, "reconstruct")
        return in_columns_of_fit(self, self._reconstruct(rows), X)

    def score_samples(self, X: Any, per_feature: bool = False) -> np.ndarray:
        """Return minus the reconstruction error of the rows of X: higher is more normal.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        per_feature : bool, default=False
            Whether to return an error for each entry of X instead of one per row.

        Returns
        -------
        scores : ndarray of shape (n_samples,), or ndarray or data frame of (n_samples, n_features)
            Per row, minus the `loss` in the network's range, without missing values. Per
            feature, minus the absolute difference between X and its reconstruction, in X's own
            units, 0 where X is missing.
        """
        rows = self._check_fitted_rows(X, "score_samples")
        if not per_feature:
            return like(self._score_samples(rows), X)
        inverse = self._scaling.inverse
        scores = self._map_reconstructed(
            rows,
            lambda x, r: -(inverse(x) - inverse(r)).abs().masked_fill(x.isnan(), 0),
            rows.shape[1],
        )
        return in_columns_of_fit(self, scores, X)

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean of `score_samples`, for model selection.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : None
            Ignored.

        Returns
        -------
        score : float
            Higher is better. Comparable only between fits of the same `loss` and `scaling`.
        """
        rows = self._check_fitted_rows(X, "score")
        return float(self._score_samples(rows).mean(dtype=np.float64))

    def to_module(
        self, part: Literal["encoder", "decoder", "autoencoder"] = "encoder"
    ) -> nn.Module:
        """Return the fitted network as a plain module that takes and gives X's own units.

        Parameters
        ----------
        part : {"encoder", "decoder", "autoencoder"}, default="encoder"
            The autoencoder's `forward` returns `(encoded, decoded)`.

        Returns
        -------
        module : torch.nn.Module
            A copy, on the CPU, in evaluation mode. `torch.export` takes it, with any number of
            rows as a dynamic shape.

        Raises
        ------
        ValueError
            If `part` is none of the three.

        Examples
        --------
        >>> import torch
        >>> from sklearn.datasets import load_digits
        >>> from aefeatures import AutoencoderTransformer
        >>> X, _ = load_digits(return_X_y=True)
        >>> module = AutoencoderTransformer(max_epochs=1).fit(X).to_module("autoencoder")
        >>> encoded, decoded = module(torch.from_numpy(X))
        >>> encoded.shape, decoded.shape
        (torch.Size([1797, 3]), torch.Size([1797, 64]))
        """
        check_is_fitted(self)
        if part not in ("encoder", "decoder", "autoencoder"):
            raise ValueError(f"part must be 'encoder', 'decoder' or 'autoencoder', got {part!r}.")
        encoder, decoder, scaling, fill = copy.deepcopy(
            (self.encoder_, self.decoder_, self._scaling, self._fill)
        )
        if part == "encoder":
            return Encoder(encoder, scaling, fill).eval()
        if part == "decoder":
            return Decoder(decoder, scaling).eval()
        return Autoencoder(encoder, decoder, scaling, fill).eval()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted transformer to a file that `load` reads, and that holds no code.

        The file is of the safetensors format: the weights, the scaling and the record of the
        training as arrays, and a JSON document with the parameters. It is written beside `path` and
        put in its place when it is complete, so that what was there stays whole if anything fails.
        Like a pickle it leaves out Adam's moments.

        Parameters
        ----------
        path : str or path-like
            Replaced if there is one. ".safetensors" is a fitting suffix; none is added.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If it is not fitted.
        ValueError
            If a parameter is code: a `loss`, a `noise` or a `Regularizer` of your own. Use pickle
            then. A `network` of your own is left out, and has to be given to `load` again.
        OSError
            If the file cannot be written, as on a full disk.

        Examples
        --------
        >>> import tempfile
        >>> from pathlib import Path
        >>> from sklearn.datasets import load_digits
        >>> from aefeatures import AutoencoderTransformer
        >>> X, _ = load_digits(return_X_y=True)
        >>> transformer = AutoencoderTransformer(max_epochs=1, random_state=0).fit(X)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     transformer.save(Path(folder, "digits.safetensors"))
        ...     loaded = AutoencoderTransformer.load(Path(folder, "digits.safetensors"))
        >>> bool((loaded.transform(X) == transformer.transform(X)).all())
        True
        """
        check_is_fitted(self)
        save_model(self, path)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], device: str | torch.device = "auto", network: Any = None
    ) -> Self:
        """Return the transformer that `save` wrote.

        No code from the file is run: a file from anyone can be loaded, which holds for no pickle.

        Parameters
        ----------
        path : str or path-like
        device : str or torch.device, default="auto"
            Becomes the parameter `device` of what is returned. "auto" leaves that as it was saved;
            where that device is not there, the fastest that is there is used.
        network : callable, default=None
            The parameter `network` that the transformer was fitted with, where that is one
            of your own, which no file holds.

        Returns
        -------
        AutoencoderTransformer
            Of the class that `load` was called on.

        Raises
        ------
        ValueError
            If the file is no model, truncated, damaged or of a later version of aefeatures; if
            `network` is missing, or builds another network; if `device` is not there.
        OSError
            If the file cannot be read.
        """
        return load_model(cls, path, device, network)

    @property
    def _n_features_out(self) -> int:
        return int(self._built_from["n_components"])

    def _check_fitted_rows(self, X: Any, method: str) -> Rows:
        check_is_fitted(self)
        check_array_library(self, X, self._fitted_library, method)
        return check_rows(self, X, reset=False)

    def _placed(self, module: nn.Module, dtype: np.dtype) -> nn.Module:
        return place(module, self.device_, work_dtype(dtype, self.device_))

    def _score_samples(self, X: Rows) -> np.ndarray:
        loss = leave_out_missing(resolve_loss(self._fitted_loss))
        return self._map_reconstructed(X, lambda x, r: -loss(r, x), None)

    def _reconstruct(self, X: Rows) -> np.ndarray:
        return self._map_reconstructed(X, lambda _, r: self._scaling.inverse(r), X.shape[1])

    def _map_reconstructed(
        self,
        X: Rows,
        function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        n_columns: int | None,
    ) -> np.ndarray:
        """Apply `function` to rows and reconstructions in the network's range."""
        encoder = self._placed(self.encoder_, X.dtype)
        decoder = self._placed(self.decoder_, X.dtype)

        def on_chunk(rows: Rows) -> torch.Tensor:
            scaled = self._scaled(rows)
            return function(scaled, decoder(encoder(self._filled(scaled, rows))))

        return self._map_chunks(on_chunk, X, n_columns)

    def _map_chunks(
        self, function: Callable[[Rows], torch.Tensor], X: Rows, n_columns: int | None
    ) -> np.ndarray:
        """Do as `map_chunks` with code that may be the caller's own: each call draws the same."""
        with unaffected(self._seed, self._network, self._fitted_loss):
            return map_chunks(function, X, n_columns, width=self._cost.width)

    def _scaled(self, rows: Rows) -> torch.Tensor:
        return self._scaling(to_tensor(rows, self.device_))

    def _filled(self, scaled: torch.Tensor, rows: Rows) -> torch.Tensor:
        if not has_missing(rows):
            return scaled
        filled: torch.Tensor = self._placed(self._fill, rows.dtype)(scaled)
        return filled

    def _check(self, X: Any, y: Any, resume: bool, ranks: Ranks) -> tuple[Rows, np.ndarray | None]:
        """Check what a fit is given, also against what the fits of other ranks are."""
        if ranks.size == 1:
            return check_rows_and_labels(self, X, y, reset=not resume)
        if self.checkpoint is not None:
            raise ValueError(
                "checkpoint cannot be used within distributed(): it is of one process. Set it to "
                "None."
            )
        X, y = check_rows_and_labels(self, X, y, reset=not resume, min_rows=0)
        same: dict[str, Any] = {
            "number of columns": X.shape[1],
            "names of columns": list(getattr(self, "feature_names_in_", [])),
            "start": "from an earlier fit" if resume else "new",
        }
        for name, value in self.get_params(deep=False).items():
            if name not in _OF_A_RANK:  # where an object is in memory tells nothing of it
                same[name] = re.sub(" at 0x[0-9a-fA-F]+", "", repr(value))
        if resume:
            modules = [getattr(self, name) for name in _MODULES]
            same["model to go on from"] = digest([modules, self._heads, self._learns_missing])
        others = ranks.gather(same)
        for name in same:
            values = [other.get(name) for other in others]
            if any(value != values[0] for value in values):
                raise ValueError(
                    f"All ranks must fit with the same {name}, got by rank: "
                    f"{', '.join(str(value)[:100] for value in values)}."
                )
        if sum(ranks.gather(X.shape[0])) == 0:
            raise ValueError("Found no rows on any rank: fit needs at least 1.")
        return X, y

    def _start(
        self,
        X: Rows,
        resume: bool,
        ranks: Ranks = ALONE,
        learned: tuple[Scaling, np.ndarray] | None = None,
    ) -> None:
        """Set all that a training needs: new, or left by the last one.

        Where `learned` has the scaling and the means, X needs no more than a shape.
        """
        self.device_ = resolve_device(self.device)
        if self.device_.type == "mps" and self.precision == "float64":
            raise ValueError(
                "precision='float64' cannot be had with device 'mps'. Use precision='float32' or "
                "device='cpu'."
            )
        self._fitted_loss = self.loss
        network = self.network
        built_from: dict[str, Any] = {
            "n_components": int(self.n_components),
            "hidden_layer_sizes": str(layer_widths("hidden_layer_sizes", self.hidden_layer_sizes)),
            "activation": self.activation,
            "normalization": self.normalization,
            "network": repr(network.get_params()) if isinstance(network, Network) else network,
            "precision": self.precision,
            "scaling": self.scaling,
        }
        if resume:
            changed = [name for name in built_from if built_from[name] != self._built_from[name]]
            if changed:
                raise ValueError(
                    f"Training cannot go on: {', '.join(changed)} changed since the last fit. "
                    "Set it back, or train a new network with warm_start=False and fit."
                )
            check_loss_range(self.loss, self._scaling, self.scaling)
            self._rng = copy.deepcopy(self._rng)
            return
        if self.n_components >= X.shape[1] > 1:  # a single column is what no code compresses
            warnings.warn(
                f"n_components={self.n_components} is not below the number of columns, "
                f"{X.shape[1]}: the code is not a compression.",
                stacklevel=4,
            )
        if self.random_state is None:  # scikit-learn would advance NumPy's global generator
            seed = int(np.random.SeedSequence().generate_state(1)[0])
        else:
            seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        seed, *_ = ranks.gather(seed)
        self._scaling, means = learned or learn_scaling(X, self.scaling, ranks)
        if self._scaling.wide and self.device_.type == "mps":
            raise ValueError(
                "X has columns so large or so nearly constant that float32, all that device 'mps' "
                "has, does not hold what they are scaled by. Use device='cpu', or rescale them."
            )
        scaled_means = self._scaling(torch.from_numpy(means))
        self._fill = FillMissing(scaled_means.to(PRECISIONS[self.precision]))
        check_loss_range(self.loss, self._scaling, self.scaling)
        self._built_from = built_from
        if network is None:
            network = DenseNetwork(
                self.hidden_layer_sizes,
                self.activation,
                self.normalization,
                resolve_principal_components(
                    (sum(ranks.gather(X.shape[0])), X.shape[1]),
                    resolve_regularizers(self.regularizer),
                ),
            )
        self._network = clone(network) if isinstance(network, Network) else network
        self._start_network(X, seed, ranks)
        self._heads = []
        self._optimizer_state = None
        self._learns_missing = False
        self.n_iter_ = self.n_steps_ = 0
        self.loss_curve_ = []
        self.validation_loss_curve_ = None

    def _start_network(self, X: Rows, seed: int, ranks: Ranks = ALONE) -> None:
        """Set all that is drawn at random before a training."""
        self._seed = seed
        # Ranks draw orders and noise of their own.
        self._rng = np.random.default_rng([seed, ranks.rank] if ranks.rank else seed)

        def axes(n_axes: int) -> tuple[torch.Tensor, torch.Tensor]:
            means = self._fill.values.detach().to(self.device_)
            rng = np.random.default_rng(seed)
            batches = self._make_batches(X)
            return principal_axes(batches, means, n_axes, rng, ranks).cpu(), means.cpu()

        spec = BuildSpec(
            self._scaling.bounded,
            PRECISIONS[self.precision],
            torch.Generator("cpu").manual_seed(seed),
            principal_axes=axes,
        )
        self.encoder_, self.decoder_ = build_network(
            self._network, X.shape[1], self._n_features_out, spec=spec
        )
        with global_seed(seed, self._network):
            self._cost = cost_per_row(nn.Sequential(self.encoder_, self.decoder_), X.shape[1])

    def _open_checkpoint(self, X: Rows, y: np.ndarray | None, resume: bool) -> FitFile:
        parameters = self.get_params(deep=False).items()
        depends_on = [
            type(self),
            {name: value for name, value in parameters if name not in _NOT_TOLD_APART},
            self.device_.type,
            digest_of_rows(X),
            y,
            self._scaling,
            self._fill,
            None if self.random_state is None and not resume else self._seed,
        ]
        if resume:
            modules = (self.encoder_, self.decoder_)
            depends_on += [
                modules,
                self._heads,
                self._learns_missing,
                self._rng.bit_generator.state,
            ]
        assert self.checkpoint is not None
        return FitFile(self.checkpoint, depends_on, self._seed)

    def _split(
        self, n_rows: int, ranks: Ranks = ALONE
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Training and validation rows; None stands for all and none."""
        if not self.early_stopping:
            return None, None
        if max(ranks.gather(n_rows)) == 1:
            raise ValueError(
                "early_stopping=True needs at least 2 rows, got n_samples=1. Set it to False."
            )
        if n_rows < 2:  # of a rank
            return None, np.empty(0, np.intp)
        # The seed of the first fit: a warm start must not validate on what it was trained on.
        parts = train_test_split(
            np.arange(n_rows), test_size=self.validation_fraction, random_state=self._seed
        )
        return np.sort(parts[0]), np.sort(parts[1])  # datasets in files are read in order

    def _make_batches(
        self, X: Rows, rows: np.ndarray | None = None, batch_size: int | None = None
    ) -> Batches:
        return Batches(
            X,
            self._scaling,
            batch_size=batch_size or self.batch_size,
            device=self.device_,
            dtype=PRECISIONS[self.precision],
            rows=rows,
        )

    def _train(
        self,
        missing: bool,
        y: np.ndarray | None,
        batches: Batches,
        ranks: Ranks,
        *,
        task: FitTask | None = None,
        checkpoint: Watcher | None = None,
        **settings: Any,
    ) -> tuple[nn.Sequential, RowLoss, TrainingResult]:
        """Train a copy of the network on the device; return it, the loss it was trained with."""
        fill, encoder, decoder = copy.deepcopy((self._fill, self.encoder_, self.decoder_))
        loss = resolve_loss(self.loss)
        if missing and not self._learns_missing:
            self._learns_missing = True
            settings["optimizer_state"] = None  # it has no moments for the values to learn
        if self._learns_missing:
            loss = leave_out_missing(loss)
            encoder = nn.Sequential(fill, encoder)
        autoencoder = nn.Sequential(encoder, decoder).to(self.device_)
        draws = random_state_for(
            [self._network, self.loss, *resolve_regularizers(self.regularizer)],
            seed_beside(self._rng, self.n_steps_),
            self.device_,
        )
        regularizers = self._prepare_regularizers(y, batches, ranks, draws)
        kinds = [type(regularizer) for regularizer in regularizers]
        if kinds != [kind for kind, _ in self._heads]:
            settings["optimizer_state"] = None  # its moments are of other parameters
        watchers: list[Watcher] = []
        n_rows = sum(ranks.gather(batches.n_rows))
        if self.verbose and ranks.rank == 0:
            watchers.append(Progress(settings["max_epochs"], n_rows))
        if task is not None:
            watchers += task.watchers(lambda result: self._as_fitted(autoencoder, result))
        if checkpoint is not None:
            watchers.append(checkpoint)
        result = train(
            autoencoder,
            batches,
            loss,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            rng=self._rng,
            mixed=self.precision == "bfloat16",
            regularizers=regularizers,
            work=self._cost.multiply_adds * batches.batch_size,
            watchers=watchers,
            ranks=ranks,
            draws=draws,
            **settings,
        )
        self._heads = [(type(regularizer), regularizer.head) for regularizer in regularizers]
        return autoencoder, loss, result

    def _prepare_regularizers(
        self,
        y: np.ndarray | None,
        batches: Batches,
        ranks: Ranks = ALONE,
        draws: RandomState | None = None,
    ) -> list[Regularizer]:
        regularizers = resolve_regularizers(self.regularizer)
        means = self._fill.values.detach().to(self.device_)
        # Training goes on with the heads of the last call, where it asked for the same.
        heads: list[nn.Module | None] = [None] * len(regularizers)
        if [type(regularizer) for regularizer in regularizers] == [kind for kind, _ in self._heads]:
            heads = [copy.deepcopy(head) for _, head in self._heads]
        prepared = []
        for regularizer, head in zip(regularizers, heads, strict=True):
            data = TrainingData(batches, y, means, self._n_features_out, self._rng, head, ranks)
            with nullcontext() if draws is None or is_ours(regularizer) else draws.borrowed():
                prepared.append(regularizer.prepare(data))
        return prepared

    def _store(self, autoencoder: nn.Sequential, result: TrainingResult) -> None:
        encoder, self.decoder_ = autoencoder.cpu()
        if self._learns_missing:
            self._fill, encoder = encoder.children()
        self.encoder_ = encoder
        self.n_iter_ += len(result.loss_curve)
        self.n_steps_ += result.n_steps
        self.loss_curve_ = self.loss_curve_ + result.loss_curve
        self.loss_ = result.loss_curve[-1]
        validation = result.validation_loss_curve
        self.validation_loss_curve_ = (
            (self.validation_loss_curve_ or []) + validation if validation else None
        )
        self.best_loss_ = min(self.validation_loss_curve_ or self.loss_curve_)

    def _as_fitted(self, autoencoder: nn.Sequential, result: TrainingResult) -> dict[str, Any]:
        """The attributes that a fit would leave if it were over, with copies of the weights."""
        fitted = object.__new__(type(self))
        fitted.__dict__.update(self.__dict__)
        fitted._store(copy.deepcopy(autoencoder), result)
        return fitted.__dict__

    @contextmanager
    def _fitting(self) -> Iterator[None]:
        # Tensors made in inference mode could not be trained.
        with unchanged_on_error(self), torch.inference_mode(False), without_autocast():
            yield

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        # What a fit under way leaves to scikit-learn: a callback may save `fitted_estimator`.
        state = {name: state[name] for name in state if name not in _OF_RUNNING_FIT}
        if "encoder_" not in state:
            return state
        state = {name: value for name, value in state.items() if name != "device_"}
        modules = {name: to_arrays(state[name]) for name in _MODULES}
        return {**state, **modules, "_heads": [], "_optimizer_state": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "encoder_" in state:
            state = {**state, **{name: from_arrays(state[name]) for name in _MODULES}}
        super().__setstate__(state)
        if "encoder_" in state:
            self.device_ = resolve_saved_device(self.device)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.target_tags.required = requires_labels(self.regularizer)
        tags.input_tags.allow_nan = True
        tags.array_api_support = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
