"""`AutoencoderTransformer`: the estimator."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
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
    StreamedBatches,
    batch_size_of,
    has_missing,
    map_chunks,
    rows_with_values,
    to_tensor,
    work_dtype,
)
from aefeatures._callbacks import FitTask
from aefeatures._checkpoint import Checkpoint, FitFile, digest, digest_of_rows
from aefeatures._device import (
    PRECISIONS,
    PublicModule,
    from_arrays,
    place,
    place_guest,
    placed_before,
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
from aefeatures._labels import is_auto, keep_groups
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
    Guest,
    Network,
    build_network,
    can_start_as_pca,
    copied,
    cost_per_row,
    is_as_built,
    layer_widths,
    plain,
    resolve_widths,
    same_value,
)
from aefeatures._optimizer import AdamState
from aefeatures._persistence import load_model, save_model
from aefeatures._progress import Progress
from aefeatures._regularizers import (
    Denoising,
    NearPCA,
    NeighborPreserving,
    Regularizer,
    Supervised,
    TrainingData,
    requires_labels,
    resolve_regularizers,
)
from aefeatures._scaling import Scaling, extend_scaling, learn_scaling
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
from aefeatures._warnings import takes_old_arguments, warn

_MODULES = ("encoder_", "decoder_", "_scaling", "_fill")
_OF_RUNNING_FIT = ("_callback_fit_ctx", "_skl_callbacks_to_teardown")

# Parameters that do not change what a fit comes to, or that count by what they came to.
_NOT_TOLD_APART = ("checkpoint", "device", "random_state", "verbose", "warm_start")

# Deviation of the noise that the default adds to standardized columns.
_AUTO_NOISE = 0.3

# Characters of a value in an error about ranks.
_SHOWN = 100

# Parameters that may differ between ranks.
_OF_A_RANK = ("device", "random_state", "verbose")

PRESETS: dict[str, dict[str, Any]] = {
    "lecture": {
        "hidden_layer_sizes": [128, 64, 12],  # a list: these for any number of codes
        "init": "random",
        "regularizer": None,
        "learning_rate_schedule": "constant",
        "max_epochs": 10,
    },
    "neighbors": {
        "hidden_layer_sizes": (320, 256, 64),
        "activation": "gelu",
        "normalization": "layer",
        "regularizer": NeighborPreserving(),
        "learning_rate": 7e-3,
        "batch_size": 256,
    },
    "tabular": {"scaling": "standard"},
    "classes": {
        "hidden_layer_sizes": (256, 128, 64),
        "regularizer": [Supervised(weight=5.0, mixup=0.5), Denoising("gaussian", 0.7)],
        "learning_rate": 7e-3,
        "batch_size": 256,
    },
    "images": {"network": ConvNetwork(), "learning_rate": 7e-3, "batch_size": 128},
}


def _in_short(value: Any) -> tuple[str, str]:
    """What tells a value from others, and what an error shows of it."""
    # Where an object is in memory tells nothing of it.
    text = re.sub(" at 0x[0-9a-fA-F]+", "", repr(value))
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    if callable(value) and not isinstance(value, BaseEstimator):
        return text, shown  # what functions close over may be of a rank
    try:
        return digest(value), shown
    except TypeError:  # it has no value, as a lock in it has none
        return text, shown


class AutoencoderTransformer(
    CallbackSupportMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator
):
    """Features learned by an autoencoder.

    An autoencoder is a network trained to give back its input through a narrow middle, the
    code [1]_. `fit` trains one on the rows of X, `transform` returns the codes: a few
    numbers per row that a classifier takes as features.

    By default the encoder has the widths n_features-128-64-12-3 (without 12 or 64 if the code has
    more numbers) with a rectifier between
    them and none after the code, the decoder mirrors it, and Adam [2]_ minimizes the
    mean squared error over batches of 64 rows.

    Parameters
    ----------
    n_components : int, default=3
        Size of the code.
    hidden_layer_sizes : int or array-like of int, default=(128, 64, 12)
        Widths of the encoder's hidden layers; the decoder mirrors them. `()` makes encoder
        and decoder linear. Of the default, widths below `n_components` are left out, and if none
        remains there is one layer of `n_components`. The list [128, 64, 12] is these widths for
        any `n_components`.
    activation : {"relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid"}, default="relu"
        What follows each hidden layer.
    normalization : {"layer", "batch"} or None, default=None
        What stands between each hidden layer and its activation.
    network : DenseNetwork, ConvNetwork, callable or None, default=None
        Builds encoder and decoder. None is a `DenseNetwork` of the three parameters above, which
        are not used otherwise (with `NeighborPreserving` it reads principal components where rows
        and columns are many). A callable `(n_features, n_components) -> (encoder, decoder)`
        returns two modules that turn rows of the one width into rows of the other, in the
        network's range (see `scaling`). Copies of them are trained, by autograd. They may share and
        freeze weights, and work in place.
    scaling : {"auto", "standard", "feature", "global"} or None, default="auto"
        The affine map from X to the network's range, learned in `fit` and undone in
        `inverse_transform`.

        - "standard": each column to zero mean and unit variance.
        - "feature": each column to [0, 1].
        - "global": the whole matrix to [0, 1], by one minimum and one maximum.
        - None: X as it is.
        - "auto": uint8 and uint16 whose largest value is above half their type's maximum
          are divided by that maximum; X within [0, 1] stays as it is, except if its columns hardly
          vary there; otherwise it is "standard". Columns within [0, 1] with a mean variance below
          0.01, such as the weights of words in texts, are centred and divided by one number, the
          root of that variance (and stay as they are for the loss "bce").

        Where the range is [0, 1] the decoder ends in a sigmoid, otherwise it is linear.
    loss : {"mse", "bce", "mae", "huber"} or callable, default="mse"
        Reconstruction loss, a mean over columns, in the network's range. A callable takes
        `(reconstruction, target)`, two tensors of shape (n, n_features), and returns a
        tensor of shape (n,); it may be negative. "bce" needs a range of [0, 1]. The notes say how
        missing values are left out of a callable.
    init : {"auto", "pca", "random"}, default="auto"
        How the weights start, without `network`; see `DenseNetwork`. "auto" is "pca" where that can
        be had, i.e. with an activation that is linear above 0, no `normalization`, a range that is
        not [0, 1], and fewer codes than columns, but not in `fit_on_ray`; otherwise "random".
    regularizer : str, Regularizer, list of these, or None, default="auto"
        What shapes the codes beside the reconstruction: "denoising", "sparse", "contractive",
        "near_pca", "variational", "neighbors", "supervised", the objects of these (`Denoising`,
        `Sparse`, `Contractive`, `NearPCA`, `Variational`, `NeighborPreserving`, `Supervised`), or a
        `Regularizer` of your own. "auto" is ``[Denoising("gaussian", 0.3), NearPCA()]`` where the
        columns are standardized and more than the codes, so that small tables are not learned by
        heart and the codes serve linear models, too; otherwise None.
    learning_rate : float, default=5e-3
        Peak learning rate of Adam.
    learning_rate_schedule : {"one_cycle", "constant", "cosine"}, default="one_cycle"
        "one_cycle" rises from a 25th of the peak over the first 30% of the steps, then falls
        to nearly zero [3]_; "cosine" falls from the start.
    weight_decay : float, default=0.0
        Decoupled weight decay [4]_. Weights that require no gradient, and the values that stand
        for missing ones, do not decay.
    batch_size : int, default=64
        Rows in a step. The last batch of an epoch holds the rows left over. With a callable
        `network` a single row left over shares the rows of the batch before it, as batch
        normalization needs two.
    max_epochs : int or "auto", default="auto"
        Passes over the rows. "auto" means ``max(10, ceil(192_000 / n_rows))``, where fewer rows
        than 64 or `batch_size` count as so many: 10 on data of 60,000 rows, and on small data
        about 3,000 steps at batches of 64. With `NeighborPreserving` at least 20 and at most 200,
        with `NearPCA`, as by default on standardized columns, at most 100, with `Supervised` 60.
    early_stopping : bool, default=False
        Whether to set `validation_fraction` of the rows aside, stop when the loss on them
        no longer falls, and keep the weights at which it was lowest.
    validation_fraction : float, default=0.1
        Part of the rows, drawn at random, that `early_stopping` sets aside. With `Supervised`, at
        least one labelled row of each class is left for training.
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
    hidden_layer_sizes_ : tuple of int
        Widths of the encoder's hidden layers. Only for a `DenseNetwork` and without `network`.
    n_features_in_ : int
        Number of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns seen in `fit`, where X has string names for all of them.
    n_iter_ : int
        Epochs trained: fewer than `max_epochs_` after an interrupt or an early stop.
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
    task_ : {"classification", "regression"} or None
        How `Supervised` took y, with its "auto" resolved; None without `Supervised`. Of several,
        that of the first.

    See Also
    --------
    sklearn.decomposition.PCA : The best linear map to a code, in closed form.

    Notes
    -----
    float64 and 32- or 64-bit integer X is encoded and returned in float64, all else in
    float32. A nullable column of a frame counts as NumPy's type of the same name, objects count as
    float64. A network of your own computes in the precision it was trained in, and the result is
    cast.

    A missing value (NaN) is left out of the loss and of the scaling's statistics. What enters
    the network in its place is a number per column: the column's mean or, where the training
    data misses any value, one that is learned with the weights. Rows with no known value are not
    trained on. Sparse matrices are made dense a few batches at a time, and give what the dense
    matrix gives.

    A column that is constant in `fit`, except for rounding, comes back as exactly that constant. A
    new value that differs has no effect on the code (except in image bytes and X within [0, 1],
    where a constant column is a pixel like others); in `score_samples` it counts in units of the
    constant's size. A column with no known value in `fit` has no effect at all and comes back as
    NaN. `partial_fit` and a warm start take such a column in when it varies for the first time.

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

    encoder_ = PublicModule()
    decoder_ = PublicModule()
    hidden_layer_sizes_: tuple[int, ...]
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
    task_: str | None
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
        init: str = "auto",
        regularizer: Any = "auto",
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
        self.init = init
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
        name : {"lecture", "neighbors", "tabular", "classes", "images"}
            - "lecture": a constant learning rate and 10 epochs, whatever the number of rows, the
              widths 128, 64 and 12, whatever the number of codes, and random first weights.
            - "neighbors": codes for KNN and SVM, few of them, and where few rows are labelled.
              A wider network with layer normalization, and `NeighborPreserving`. Chosen on
              MNIST, Fashion-MNIST, satimage, covtype, segment, spambase, adult and tox_171.
            - "tabular": the default with all columns standardized, also of tables within [0, 1]:
              codes for any classifier or regressor behind, as good as principal components, and
              better where they are few. Chosen on 11 tables.
            - "classes": codes for the classifier or regressor behind it in a pipeline, from the y
              that the pipeline passes; rows of y without a label are learned from as well. See
              `Supervised` for what y may be. Chosen on 9 tables.
            - "images": a `ConvNetwork` for square images, for a good reconstruction; other
              shapes by ``network__image_shape``. Chosen on MNIST with 32 codes. Transforms of
              torchvision go into `Denoising`.
        **params
            Parameters that override those of the preset, as `set_params` takes them. A parameter
            of an object in the preset has a nested name, as ``regularizer__weight`` of
            "neighbors". The regularizers of "classes" are a list, which has no nested names.

        Returns
        -------
        AutoencoderTransformer

        Raises
        ------
        ValueError
            If there is no preset or no parameter of that name.

        Examples
        --------
        >>> from aefeatures import AutoencoderTransformer
        >>> AutoencoderTransformer.from_preset("lecture", n_components=2)
        AutoencoderTransformer(hidden_layer_sizes=[128, 64, 12], init='random',
                               learning_rate_schedule='constant', max_epochs=10,
                               n_components=2, regularizer=None)
        """
        if name not in PRESETS:
            raise ValueError(f"Unknown preset {name!r}. Presets: {', '.join(sorted(PRESETS))}.")
        transformer = cls(**clone(PRESETS[name], safe=False))
        given = transformer.get_params(deep=False)
        for nested in params:
            outer, separator, _ = nested.partition("__")
            if not separator or outer not in given:
                continue
            holder = params.get(outer, given[outer])
            if not hasattr(holder, "set_params"):
                raise ValueError(
                    f"There is no parameter {nested!r} in the preset {name!r}: {outer} is "
                    f"{_in_short(holder)[1]}, which has no nested names. Give {outer} as a whole."
                )
        return transformer.set_params(**params)

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> Self:
        """Train the autoencoder on the rows of X.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Numbers without infinity; NaN, None and NA are missing values. Not changed, and not
            copied as a whole where it is an array, a memory map, a CSR matrix, a dataset of h5py
            or zarr, or what ``load_images(..., lazy=True)`` gives. Of a dataset of h5py or zarr,
            and of a map larger than half the memory of the machine or its container, blocks of
            consecutive rows are read in random order.
        y : array-like of shape (n_samples,), default=None
            Ignored, unless a regularizer learns from it (`Supervised`).

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If X or a parameter cannot be used; the message says what was expected. Also if no
            weight of the network can be trained, or it needs more rows in a batch than one.
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
            If interrupted later: the estimator is fitted with the best weights so far, and
            `n_iter_` is below `max_epochs_`. A search goes on, and ranks the fit like the others.
            If a column has no known value, if there are at least as many codes as columns, or if a
            hidden layer of your own is narrower than the code.
        RuntimeWarning
            If a checkpoint is damaged, cannot be written, or belongs to a fit that is running.
        ConvergenceWarning
            If nothing was learned: the reconstructions are no better than the means of the
            columns, or all rows have the same code.
        """
        given = plain(self)
        resume = given.warm_start and "encoder_" in self.__dict__
        task = FitTask(self, X, y)
        ranks = current_ranks()
        with self._fitting(), ranks.together(), ExitStack() as closing:
            self._fitted_library = name_of_array_library(X)
            X, y = self._check(X, y, resume, ranks)
            missing = has_missing(X)
            known = self._known_rows(X, missing, ranks)
            self._start(X, resume, ranks, rows=known)
            checkpoint = None
            if self.checkpoint is not None:
                checkpoint = closing.enter_context(self._open_checkpoint(X, y, resume))
                if self.random_state is None and not resume:
                    self._start_network(X, checkpoint.seed, rows=known)
            self._optimizer_state = None
            train_rows, validation_rows = self._split(X.shape[0], y, known, ranks)
            counts = ranks.gather(X.shape[0] if train_rows is None else len(train_rows))
            batches = self._make_training_batches(X, train_rows, counts, ranks)
            early_stopping = None
            if validation_rows is not None:
                validation = self._make_batches(X, validation_rows)
                early_stopping = EarlyStopping(validation, given.n_iter_no_change, given.tol)
            self.max_epochs_ = resolve_max_epochs(
                given.max_epochs,
                sum(counts),
                given.batch_size * ranks.size,
                self._resolve_regularizers(),
            )
            task.begin(self.max_epochs_)
            autoencoder, loss, result = self._train(
                any(ranks.gather(missing)),
                y,
                batches,
                ranks,
                rows=train_rows,
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
            warn(
                f"{type(self).__name__} learned nothing: {nothing_learned}. Change max_epochs "
                f"(now {self.max_epochs_}), learning_rate (now {self.learning_rate:g}) or "
                f"scaling (now {self.scaling!r}).",
                ConvergenceWarning,
            )
        return self

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Train for one epoch on the rows of X, at the constant `learning_rate`.

        The first call settles the network and the scaling from its X, except for columns that are
        constant or unknown there: their scaling is settled when they vary for the first time.
        Adam's moments go from call to call, but not into a pickle or a clone.

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
        resume = "encoder_" in self.__dict__
        ranks = current_ranks()
        with self._fitting(), ranks.together():
            self._fitted_library = name_of_array_library(X)
            X, y = self._check(X, y, resume, ranks)
            missing = has_missing(X)
            known = self._known_rows(X, missing, ranks)
            self._start(X, resume, ranks, rows=known)
            counts = ranks.gather(X.shape[0] if known is None else len(known))
            batches = self._make_training_batches(X, known, counts, ranks)
            autoencoder, _, result = self._train(
                any(ranks.gather(missing)),
                y,
                batches,
                ranks,
                rows=known,
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
        X_new : array of shape (n_samples, n_components)
            In float64 for float64 and 32- or 64-bit integer X, otherwise in float32.
        """
        rows = self._check_fitted_rows(X, "transform")
        encoder = self._placed("encoder_", rows.dtype)
        inputs = self._scaling.inputs
        codes = self._map_chunks(
            lambda chunk: encoder(self._filled(inputs(to_tensor(chunk, self.device_)), chunk)),
            rows,
            self._n_features_out,
        )
        return like(codes, X)

    @takes_old_arguments(renamed={"Z": "X"})
    def inverse_transform(self, X: Any) -> np.ndarray:
        """Return the rows, in the units of `fit`, that the decoder makes of codes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components)
            Codes, such as `transform` returns.

        Returns
        -------
        X_original : ndarray or data frame of shape (n_samples, n_features)
            A frame with the names of the columns in `fit`, where `set_output` asks for frames. NaN
            in a column with no known value in `fit`.
        """
        check_is_fitted(self)
        check_array_library(self, X, self._fitted_library, "inverse_transform")
        codes = check_codes(X, self._n_features_out, self)
        decoder = self._placed("decoder_", codes.dtype)
        rows = self._map_chunks(
            lambda chunk: self._in_units_of_X(decoder(to_tensor(chunk, self.device_))),
            codes,
            self.n_features_in_,
        )
        return in_columns_of_fit(self, rows, X)

    def reconstruct(self, X: Any) -> np.ndarray:
        """Return X as the autoencoder gives it back: an estimate of every entry.

        ``np.where(np.isnan(X), transformer.reconstruct(X), X)`` fills in missing values.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        X_reconstructed : ndarray or data frame of shape (n_samples, n_features)
            In X's units, in the dtype of `transform`. A frame, and NaN, as of `inverse_transform`.
        """
        rows = self._check_fitted_rows(X, "reconstruct")
        return in_columns_of_fit(self, self._reconstruct(rows), X)

    def score_samples(self, X: Any, *, per_feature: bool | Literal["raw"] = False) -> np.ndarray:
        """Return minus the reconstruction error of the rows of X: higher is more normal.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        per_feature : bool or "raw", default=False
            Whether to return an error for each entry of X instead of one per row. True gives errors
            in comparable units, which tell what makes a row unusual; "raw" gives them in the units
            of X. A scikit-learn pipeline does not hand the parameter on: transform the rows with
            ``pipeline[:-1]`` and score them with ``pipeline[-1]``.

        Returns
        -------
        scores : ndarray of shape (n_samples,), or ndarray or data frame of (n_samples, n_features)
            Per row, minus the `loss` in the network's range, without missing values; NaN for a row
            with no known value. Per feature, minus the absolute difference between X and its
            reconstruction, 0 where X is missing. With True it is in standard deviations of the
            column in `fit`; a column that was constant there has its own size for a deviation,
            or 1 if it was 0.

        Raises
        ------
        ValueError
            If `per_feature` is something else, or True for a model of an earlier version that has
            no deviations.

        Examples
        --------
        In a pipeline:

        >>> from sklearn.datasets import load_wine
        >>> from sklearn.impute import SimpleImputer
        >>> from sklearn.pipeline import make_pipeline
        >>> from aefeatures import AutoencoderTransformer
        >>> X, _ = load_wine(return_X_y=True)
        >>> pipeline = make_pipeline(SimpleImputer(), AutoencoderTransformer(random_state=0)).fit(X)
        >>> rows = pipeline[:-1].transform(X)
        >>> pipeline[-1].score_samples(rows, per_feature=True).shape
        (178, 13)
        """
        raw = isinstance(per_feature, str) and per_feature == "raw"
        if not (raw or isinstance(per_feature, bool | np.bool_)):
            raise ValueError(f"per_feature must be True, False or 'raw', got {per_feature!r}.")
        rows = self._check_fitted_rows(X, "score_samples")
        if not per_feature:
            return like(self._score_samples(rows), X)

        def differences(x: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
            difference = self._scaling.differences(x, r, raw=raw)
            return -difference.masked_fill(x.isnan(), 0)

        scores = self._map_reconstructed(rows, differences, rows.shape[1])
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
            Higher is better. Comparable only between fits of the same `loss` and `scaling`. Rows
            with no known value are left out; NaN if there are no others.
        """
        rows = self._check_fitted_rows(X, "score")
        scores = self._score_samples(rows)
        known = scores[~np.isnan(scores)]
        return float(known.mean(dtype=np.float64)) if len(known) else float("nan")

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
        encoder, decoder, scaling, fill = copied(tuple(self.__dict__[name] for name in _MODULES))
        copies = not self._is_as_built
        if part == "encoder":
            return Encoder(encoder, scaling, fill).eval()
        if part == "decoder":
            return Decoder(decoder, scaling, copies=copies).eval()
        return Autoencoder(encoder, decoder, scaling, fill, copies=copies).eval()

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

    def _placed(self, name: str, dtype: np.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
        module, work = self.__dict__[name], work_dtype(dtype, self.device_)
        placed = placed_before(module, self.device_, work)
        if placed is not None:
            return placed
        if is_as_built(self._network, module):
            return place(module, self.device_, work)
        return place_guest(module, self.device_)

    def _score_samples(self, X: Rows) -> np.ndarray:
        loss = leave_out_missing(resolve_loss(self._fitted_loss))
        return self._map_reconstructed(X, lambda x, r: (-loss(r, x), x.isnan().all(dim=1)), None)

    def _reconstruct(self, X: Rows) -> np.ndarray:
        return self._map_reconstructed(X, lambda _, r: self._in_units_of_X(r), X.shape[1])

    def _map_reconstructed(
        self,
        X: Rows,
        function: Callable[[torch.Tensor, torch.Tensor], Any],
        n_columns: int | None,
    ) -> np.ndarray:
        """Apply `function` to rows and reconstructions in the network's range."""
        encoder = self._placed("encoder_", X.dtype)
        decoder = self._placed("decoder_", X.dtype)

        def on_chunk(rows: Rows) -> Any:
            unscaled = to_tensor(rows, self.device_)
            scaled = self._scaling(unscaled)
            inputs = self._scaling.inputs(unscaled) if self._scaling.has_hidden else scaled
            reconstruction = decoder(encoder(self._filled(inputs, rows)))
            return function(self._scaling.targets(scaled), self._scaling.outputs(reconstruction))

        return self._map_chunks(on_chunk, X, n_columns)

    def _map_chunks(
        self, function: Callable[[Rows], torch.Tensor], X: Rows, n_columns: int | None
    ) -> np.ndarray:
        """Do as `map_chunks` with code that may be the caller's own: each call draws the same."""
        with unaffected(self._seed, self._network, self._fitted_loss):
            return map_chunks(function, X, n_columns, width=self._cost.width)

    def _filled(self, inputs: torch.Tensor, rows: Rows) -> torch.Tensor:
        if not (self._scaling.has_unknown or has_missing(rows)):
            return inputs
        fill = place(self._fill, self.device_, work_dtype(rows.dtype, self.device_))
        filled: torch.Tensor = fill(inputs)
        return filled

    def _in_units_of_X(self, rows: torch.Tensor) -> Any:  # noqa: N802
        """Rows in the network's range in X's units, and where they are missing."""
        inverse = self._scaling.inverse(rows)
        return (inverse, inverse.isnan() & ~rows.isnan()) if self._scaling.has_unknown else inverse

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
        settings: dict[str, Any] = {
            "number of columns": X.shape[1],
            "names of columns": list(getattr(self, "feature_names_in_", [])),
            "start": "from an earlier fit" if resume else "new",
        }
        parameters = plain(self).get_params(deep=False)
        settings |= {name: parameters[name] for name in parameters if name not in _OF_A_RANK}
        same = {name: _in_short(value) for name, value in settings.items()}
        if resume:
            modules = [getattr(self, name) for name in _MODULES]
            model = digest([modules, self._heads, self._learns_missing])
            same["model to go on from"] = model, model
        others = ranks.gather(same)
        for name in same:
            keys, shown = zip(*(other.get(name, (None, "None")) for other in others), strict=True)
            if any(key != keys[0] for key in keys):
                if len(set(shown)) == 1:  # they differ in what is left out
                    shown = tuple(
                        f"{text} (digest {key[:8]})" for text, key in zip(shown, keys, strict=True)
                    )
                raise ValueError(
                    f"All ranks must fit with the same {name}, got by rank: {', '.join(shown)}."
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
        rows: np.ndarray | None = None,
    ) -> None:
        """Set all that a training needs: new, or left by the last one.

        `rows` are those of X to learn from. Where `learned` has the scaling and the means, X needs
        no more than a shape.
        """
        self.device_ = resolve_device(self.device)
        if self.device_.type == "mps" and self.precision == "float64":
            raise ValueError(
                "precision='float64' cannot be had with device 'mps'. Use precision='float32' or "
                "device='cpu'."
            )
        self._fitted_loss = self.loss
        given = plain(self)
        network = clone(given.network) if isinstance(given.network, Network) else given.network
        built_from: dict[str, Any] = {
            "n_components": given.n_components,
            "hidden_layer_sizes": str(layer_widths("hidden_layer_sizes", self.hidden_layer_sizes)),
            "activation": given.activation,
            "normalization": given.normalization,
            "network": network,
            "precision": given.precision,
            "scaling": given.scaling,
        }
        if resume:
            changed = [
                name
                for name, value in built_from.items()
                if not same_value(value, self._built_from[name])
            ]
            if changed:
                raise ValueError(
                    f"Training cannot go on: {', '.join(changed)} changed since the last fit. "
                    "Set it back, or train a new network with warm_start=False and fit."
                )
            self._scaling = extend_scaling(self._scaling, X, ranks)
            check_loss_range(self.loss, self._scaling, self.scaling)
            self._rng = copy.deepcopy(self._rng)
            return
        if self.n_components >= X.shape[1] > 1:  # a single column is what no code compresses
            warn(
                f"n_components={self.n_components} is not below the number of columns, "
                f"{X.shape[1]}: the code is not a compression."
            )
        if self.random_state is None:  # scikit-learn would advance NumPy's global generator
            seed = int(np.random.SeedSequence().generate_state(1)[0])
        else:
            seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        seed, *_ = ranks.gather(seed)
        self._scaling, means = learned or learn_scaling(
            X, self.scaling, ranks, bounded=self.loss == "bce"
        )
        if self._scaling.wide and self.device_.type == "mps":
            raise ValueError(
                "X has columns so large or so nearly constant that float32, all that device 'mps' "
                "has, does not hold what they are scaled by. Use device='cpu', or rescale them."
            )
        if self._scaling.has_unknown:
            warn(
                f"X has no known value in {self._names_of_unknown()}: values of new rows have no "
                "effect there, and come back as missing (NaN)."
            )
        scaled_means = self._scaling(torch.from_numpy(means))
        self._fill = FillMissing(scaled_means.to(PRECISIONS[self.precision]))
        check_loss_range(self.loss, self._scaling, self.scaling)
        self._built_from = built_from
        if network is None:
            network = DenseNetwork(
                given.hidden_layer_sizes,
                given.activation,
                given.normalization,
                resolve_principal_components(
                    (sum(ranks.gather(X.shape[0])), X.shape[1]),
                    resolve_regularizers(self.regularizer),
                ),
                self._resolve_init(X.shape[1], has_rows=learned is None),
            )
        self._network = clone(network) if isinstance(network, Network) else network
        self.__dict__.pop("hidden_layer_sizes_", None)
        if isinstance(self._network, DenseNetwork):
            widths = resolve_widths(self._network.hidden_layer_sizes, self._n_features_out)
            self._network.hidden_layer_sizes = widths
            self.hidden_layer_sizes_ = tuple(layer_widths("hidden_layer_sizes", widths))
        self._start_network(X, seed, ranks, rows)
        self._heads = []
        self.task_ = None
        self._optimizer_state = None
        self._learns_missing = False
        self.n_iter_ = self.n_steps_ = 0
        self.loss_curve_ = []
        self.validation_loss_curve_ = None

    def _resolve_init(self, n_features: int, *, has_rows: bool) -> str:
        """How the weights start; "auto" is PCA where it can be had and compresses."""
        if self.init != "auto":
            return self.init
        able = can_start_as_pca(self.activation, self.normalization)
        able = able and has_rows and self._n_features_out < n_features
        return "pca" if able and not self._scaling.bounded else "random"

    def _names_of_unknown(self) -> str:
        """The columns that were never known, as a message names them."""
        columns = self._scaling.unknown_columns()
        names = getattr(self, "feature_names_in_", None)
        named = [repr(str(names[i])) if names is not None else str(i) for i in columns[:10]]
        more = ", ..." if len(columns) > 10 else ""
        return f"column{'s' * (len(columns) > 1)} {', '.join(named)}{more}"

    def _start_network(
        self, X: Rows, seed: int, ranks: Ranks = ALONE, rows: np.ndarray | None = None
    ) -> None:
        """Set all that is drawn at random before a training."""
        self._seed = seed
        # Ranks draw orders and noise of their own.
        self._rng = np.random.default_rng([seed, ranks.rank] if ranks.rank else seed)

        def axes(
            n_axes: int, *, sample: bool = False
        ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            means = self._fill.values.detach().to(self.device_)
            rng = np.random.default_rng(seed)
            batches = self._make_batches(X, rows)
            axes, deviations = principal_axes(batches, means, n_axes, rng, ranks, sample=sample)
            return axes.cpu(), means.cpu(), deviations.cpu()

        spec = BuildSpec(
            self._scaling.bounded,
            PRECISIONS[self.precision],
            torch.Generator("cpu").manual_seed(seed),
            principal_axes=axes,
        )
        modules = build_network(self._network, X.shape[1], self._n_features_out, spec=spec)
        self.__dict__.update(zip(("encoder_", "decoder_"), modules, strict=True))
        with global_seed(seed, self._network):
            self._cost = cost_per_row(nn.Sequential(*modules), X.shape[1])

    def _open_checkpoint(self, X: Rows, y: np.ndarray | None, resume: bool) -> FitFile:
        parameters = plain(self).get_params(deep=False).items()
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
            modules = tuple(self.__dict__[name] for name in _MODULES[:2])
            depends_on += [
                modules,
                self._heads,
                self._learns_missing,
                self._rng.bit_generator.state,
            ]
        assert self.checkpoint is not None
        return FitFile(self.checkpoint, depends_on, self._seed)

    def _split(
        self,
        n_rows: int,
        y: np.ndarray | None = None,
        known: np.ndarray | None = None,
        ranks: Ranks = ALONE,
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Training and validation rows, both of the `known`; None stands for all and none."""
        if not self.early_stopping:
            return known, None
        rows = np.arange(n_rows) if known is None else known
        if max(ranks.gather(len(rows))) == 1:
            raise ValueError(
                "early_stopping=True needs at least 2 rows, got n_samples=1. Set it to False."
            )
        groups = [] if y is None else self._groups(y, ranks)
        if len(rows) < 2:  # of a rank
            training, validation = rows, np.empty(0, np.intp)
        else:
            # The seed of the first fit: a warm start must not validate on what it was trained on.
            share = plain(self).validation_fraction
            training, validation = train_test_split(rows, test_size=share, random_state=self._seed)
        if groups:
            training, validation = keep_groups(groups, training, validation)
            if not any(ranks.gather(len(validation) > 0)):
                raise ValueError(
                    "early_stopping=True finds no row to validate on: each is the only labelled "
                    "row of its class, and needed for training. Set it to False."
                )
        return np.sort(training), np.sort(validation)  # datasets in files are read in order

    def _known_rows(self, X: Rows, missing: bool, ranks: Ranks) -> np.ndarray | None:
        """Rows of X to learn from, those with any known value; None stands for all."""
        known = rows_with_values(X) if missing else None
        if sum(ranks.gather(X.shape[0] if known is None else len(known))) == 0:
            raise ValueError("X has no known value: all are missing. There is nothing to learn.")
        return known

    def _groups(self, y: np.ndarray, ranks: Ranks) -> list[np.ndarray]:
        """For each regularizer that has any, the groups of rows that training needs."""
        regularizers = resolve_regularizers(self.regularizer)
        groups = [regularizer._groups(y, ranks) for regularizer in regularizers]
        return [each for each in groups if each is not None]

    @property
    def _is_as_built(self) -> bool:
        return is_as_built(self._network, *(self.__dict__[name] for name in _MODULES[:2]))

    def _make_training_batches(
        self, X: Rows, rows: np.ndarray | None, counts: list[int], ranks: Ranks
    ) -> Batches:
        batch_size = plain(self).batch_size
        # A network of the caller's own may need more than one row, as for a variance.
        single = self._is_as_built or batch_size == 1
        batch_size = batch_size_of(counts, batch_size, ranks.rank, 1 if single else 2)
        return self._make_batches(X, rows, batch_size=batch_size, no_single_rows=not single)

    def _make_batches(self, X: Rows, rows: np.ndarray | None = None, **settings: Any) -> Batches:
        return Batches(
            X,
            self._scaling,
            **{"batch_size": plain(self).batch_size, **settings},
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
        rows: np.ndarray | None = None,
        task: FitTask | None = None,
        checkpoint: Watcher | None = None,
        **settings: Any,
    ) -> tuple[nn.Sequential, RowLoss, TrainingResult]:
        """Train a copy of the network on the device; return it, the loss it was trained with."""
        given = plain(self)
        encoder, decoder, _, fill = copied(tuple(self.__dict__[name] for name in _MODULES))
        as_built = self._is_as_built
        if not as_built:
            encoder, decoder = Guest(encoder), Guest(decoder)
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
        regularizers = self._prepare_regularizers(y, batches, ranks, rows, draws)
        tasks = (each.task for each in regularizers if isinstance(each, Supervised))
        self.task_ = next(tasks, None)
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
            learning_rate=given.learning_rate,
            weight_decay=given.weight_decay,
            rng=self._rng,
            mixed=self.precision == "bfloat16",
            regularizers=regularizers,
            work=self._cost.multiply_adds * batches.batch_size,
            watchers=watchers,
            ranks=ranks,
            written_gradient=as_built and getattr(self._network, "has_written_gradient", False),
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
        rows: np.ndarray | None = None,
        draws: RandomState | None = None,
    ) -> list[Regularizer]:
        regularizers = self._resolve_regularizers()
        if is_auto(self.regularizer) and isinstance(batches, StreamedBatches):
            # Of rows that are streamed there are no principal axes.
            regularizers = [each for each in regularizers if not isinstance(each, NearPCA)]
        means = self._fill.values.detach().to(self.device_, copy=True)
        # Training goes on with the heads of the last call, where it asked for the same.
        heads: list[nn.Module | None] = [None] * len(regularizers)
        if [type(regularizer) for regularizer in regularizers] == [kind for kind, _ in self._heads]:
            heads = [copy.deepcopy(head) for _, head in self._heads]
        own = y if y is None or rows is None else y[rows]
        data = TrainingData(
            batches, own, means, self._n_features_out, self._rng, None, ranks, y, rows
        )
        prepared = []
        for regularizer, head in zip(regularizers, heads, strict=True):
            with nullcontext() if draws is None or is_ours(regularizer) else draws.borrowed():
                prepared.append(regularizer.prepare(replace(data, head=head)))
        return prepared

    def _resolve_regularizers(self) -> list[Regularizer]:
        """What the parameter stands for; "auto" depends on the scaling."""
        scaling = self._scaling
        standard = self.scaling in ("auto", "standard") and not (scaling.bounded or scaling.common)
        compresses = self._n_features_out < self.n_features_in_
        if is_auto(self.regularizer) and standard and compresses:
            return [Denoising("gaussian", _AUTO_NOISE), NearPCA()]
        return resolve_regularizers(self.regularizer)

    def _store(self, autoencoder: nn.Sequential, result: TrainingResult) -> None:
        encoder, decoder = autoencoder.cpu()
        if self._learns_missing:
            self._fill, encoder = encoder.children()
        for name, part in (("encoder_", encoder), ("decoder_", decoder)):
            self.__dict__[name] = part.network if isinstance(part, Guest) else part
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
        fitted._store(copied(autoencoder), result)
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
        modules = to_arrays(tuple(state[name] for name in _MODULES))
        state |= zip(_MODULES, modules, strict=True)
        return {**state, "_heads": [], "_optimizer_state": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "encoder_" in state:
            modules = from_arrays(tuple(state[name] for name in _MODULES))
            state = {**state, **dict(zip(_MODULES, modules, strict=True))}
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
