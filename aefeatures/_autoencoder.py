"""`AutoencoderTransformer`: the estimator."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self, TypeVar

import numpy as np
import torch
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    clone,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted
from torch import nn

from aefeatures._nets.contrastive import NeighborPreserving
from aefeatures._nets.losses import LOSSES
from aefeatures._nets.model import Model
from aefeatures._nets.networks import (
    ACTIVATIONS,
    NORMALIZATIONS,
    ConvNetwork,
    DenseNetwork,
    Network,
    layer_widths,
    plain,
)
from aefeatures._nets.placing import note_given_out
from aefeatures._nets.regularizer import Regularizer
from aefeatures._nets.regularizers import Denoising, requires_labels
from aefeatures._nets.supervised import Supervised
from aefeatures._persistence import Owner, load_model, save_model
from aefeatures._rows.checks import (
    check_array_library,
    check_codes,
    check_has_levels,
    check_rows,
    check_rows_and_labels,
    in_columns_of_fit,
    like,
    name_of_array_library,
    probabilities_in_columns,
    scores_in_columns,
)
from aefeatures._rows.scaling import SCALINGS
from aefeatures._rows.sources import Source
from aefeatures._rows.tables import Table
from aefeatures._sklearn import (
    CallbackSupportMixin,
    Hidden,
    Interval,
    RealNotInt,
    StrOptions,
    fit_context,
    unchanged_on_error,
    without_running_fit,
)
from aefeatures._torch.devices import PRECISIONS, resolve_device, resolve_saved_device
from aefeatures._torch.random_state import without_autocast
from aefeatures._torch.ranks import Ranks, current_ranks
from aefeatures._train.callbacks import FitTask
from aefeatures._train.checkpoint import Checkpoint
from aefeatures._train.digests import in_short
from aefeatures._train.fitting import Trained, plan_fit
from aefeatures._train.starting import Data, Memory, Start, check_same_on_ranks, look_at, start
from aefeatures._train.training import SCHEDULES
from aefeatures._warnings import takes_old_arguments, warn

# Checked by scikit-learn's decorator of `fit`.
_CONSTRAINTS: dict[str, list[Any]] = {
    "n_components": [Interval(Integral, 1, None, closed="left")],
    "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
    "activation": [StrOptions(set(ACTIVATIONS))],
    "normalization": [None, StrOptions(set(NORMALIZATIONS))],
    # Hidden types are refused by `build_network`, whose message says what to pass.
    "network": [None, Network, callable, Hidden(tuple), Hidden(list)],
    "scaling": [None, StrOptions(set(SCALINGS))],
    "loss": [StrOptions(set(LOSSES)), callable],
    "init": [StrOptions({"auto", "pca", "random"})],
    "regularizer": [None, str, Regularizer, list, tuple],
    "learning_rate": [Interval(Real, 0, None, closed="neither")],
    "learning_rate_schedule": [StrOptions(set(SCHEDULES))],
    "weight_decay": [Interval(Real, 0, None, closed="left")],
    "batch_size": [Interval(Integral, 1, None, closed="left")],
    "max_epochs": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
    "early_stopping": ["boolean"],
    "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
    "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
    "tol": [Interval(Real, 0, None, closed="left")],
    "warm_start": ["boolean"],
    "device": [str, torch.device],
    "precision": [StrOptions(set(PRECISIONS))],
    "random_state": ["random_state"],
    "checkpoint": [None, str, os.PathLike, Checkpoint],
    "verbose": ["verbose"],
    "categorical_features": ["array-like", StrOptions({"from_dtype"}), None],
    "min_frequency": [
        None,
        Interval(Integral, 1, None, closed="left"),
        Interval(RealNotInt, 0, 1, closed="neither"),
    ],
    "max_categories": [None, StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
}

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


T = TypeVar("T", bound="AutoencoderTransformer")


def fitted_model(transformer: AutoencoderTransformer) -> Model:
    """Return the model of a fitted transformer."""
    check_is_fitted(transformer)
    return transformer._model


def check_fitted_rows(transformer: AutoencoderTransformer, X: Any, method: str) -> Source:
    """Return X as rows for a fitted transformer, whose `method` an error names."""
    check_is_fitted(transformer)
    check_array_library(transformer, X, transformer._fitted_library, method)
    return check_rows(transformer, X, reset=False)


def save_owned(
    transformer: AutoencoderTransformer,
    path: str | os.PathLike[str],
    owner: Owner | None = None,
) -> None:
    """Write a fitted transformer to a file, and the estimator that holds it; see `save`."""
    check_is_fitted(transformer)
    save_model(transformer, transformer._model, transformer._memory, path, owner)


def load_owned(
    cls: type[T], path: str | os.PathLike[str], device: Any, network: Any, kind: str | None = None
) -> tuple[T, Owner | None]:
    """Return a transformer of a class, and its owner of a `kind`, from a file of `save_owned`."""
    transformer, model, memory, owner = load_model(cls, path, device, network, kind)
    transformer._model, transformer._memory = model, memory
    transformer._fitted_library = None  # rows of any library will do
    return transformer, owner


def set_outcome(
    transformer: AutoencoderTransformer, trained: Trained, max_epochs: int
) -> AutoencoderTransformer:
    """Set the attributes of an unfitted transformer as its `fit` would, and return it."""
    transformer._reset(trained.model)
    transformer._store(trained)
    transformer.max_epochs_ = max_epochs
    transformer.device_ = resolve_saved_device(transformer.device)
    return transformer


class _Part:
    """Encoder or decoder of the model, as a public attribute of a fitted transformer.

    The caller may change its weights unseen from then on, which is noted.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, transformer: Any, owner: type) -> nn.Module:
        model = None if transformer is None else vars(transformer).get("_model")
        if model is None:
            raise AttributeError(f"{owner.__name__!r} object has no attribute {self._name!r}")
        module: nn.Module = getattr(model, self._name.removesuffix("_"))
        note_given_out(module)
        return module

    def __set__(self, transformer: AutoencoderTransformer, module: nn.Module) -> None:
        note_given_out(module)
        part: Any = {self._name.removesuffix("_"): module}
        transformer._model = replace(transformer._model, **part)


class AutoencoderTransformer(
    CallbackSupportMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator
):
    """Features learned by an autoencoder.

    An autoencoder is a network trained to give back its input through a narrow middle, the
    code [1]_. `fit` trains one on the rows of X, `transform` returns the codes: a few
    numbers per row that a classifier takes as features.

    By default the encoder has the widths n_features-128-64-12-3 (without 12 or 64 if the code has
    more numbers). Rectifiers stand between the layers, none follows the code, and the decoder
    mirrors the encoder. Adam [2]_ minimizes the mean squared error over batches of 64 rows.

    Parameters
    ----------
    n_components : int, default=3
        Size of the code.
    hidden_layer_sizes : int or array-like of int, default=(128, 64, 12)
        Widths of the encoder's hidden layers; the decoder mirrors them. `()` makes encoder
        and decoder linear. The default, a tuple, leaves out widths below `n_components`; if none
        remains, there is one layer of `n_components`. The list [128, 64, 12] keeps these widths for
        any `n_components`.
    activation : {"relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid"}, default="relu"
        Activation after each hidden layer.
    normalization : {"layer", "batch"} or None, default=None
        Normalization applied before each hidden activation.
    network : DenseNetwork, ConvNetwork, callable or None, default=None
        Builder of encoder and decoder. None is a `DenseNetwork` of the three parameters above,
        which are not used otherwise. With `NeighborPreserving`, that network reads principal
        components if X has many rows and columns. A callable `(n_features, n_components) ->
        (encoder, decoder)` returns two modules, from rows to codes and back, in the network's range
        (see `scaling`). Copies of the modules are trained by autograd. The modules may share and
        freeze weights, and work in place.
    scaling : {"auto", "standard", "feature", "global"} or None, default="auto"
        The affine map from X to the network's range, learned in `fit` and undone in
        `inverse_transform`.

        - "standard": each column to zero mean and unit variance.
        - "feature": each column to [0, 1].
        - "global": the whole matrix to [0, 1], by one minimum and one maximum.
        - None: X as it is.
        - "auto": uint8 and uint16 whose largest value is above half their type's maximum
          are divided by that maximum. X within [0, 1] stays as it is, except if its columns hardly
          vary. Any other X gets "standard". Columns within [0, 1] with a mean variance below
          0.01, such as the weights of words in texts, are centred and divided by one number, the
          root of that variance (and stay as they are for the loss "bce").

        If the range is [0, 1], the decoder ends in a sigmoid, otherwise it is linear.
    loss : {"mse", "bce", "mae", "huber"} or callable, default="mse"
        Reconstruction loss, a mean over columns, in the network's range. A callable takes
        `(reconstruction, target)`, two tensors of shape (n, n_features), and returns a
        tensor of shape (n,); it may be negative. "bce" needs a range of [0, 1]. The notes say how
        missing values are left out of a callable.
    init : {"auto", "pca", "random"}, default="auto"
        First weights if `network` is None; see `DenseNetwork`. "auto" is "pca" with an activation
        that is linear above 0, no `normalization`, a range that is not [0, 1], and fewer codes than
        columns. Otherwise, and in `fit_on_ray`, it is "random".
    regularizer : str, Regularizer, list of these, or None, default="auto"
        Further objectives that shape the codes: "denoising", "sparse", "contractive",
        "near_pca", "variational", "neighbors", "supervised", the objects of these (`Denoising`,
        `Sparse`, `Contractive`, `NearPCA`, `Variational`, `NeighborPreserving`, `Supervised`), or a
        `Regularizer` of your own. "auto" is ``[Denoising("gaussian", 0.3), NearPCA()]`` if the
        columns are standardized and there are more columns than codes. Small tables are then not
        learned by heart, and the codes serve linear models as well. In a frame with categories it
        is ``[Denoising("swap", 0.45), NearPCA(0.15)]``. Otherwise "auto" is None.
    learning_rate : float, default=5e-3
        Peak learning rate of Adam.
    learning_rate_schedule : {"one_cycle", "constant", "cosine"}, default="one_cycle"
        "one_cycle" rises from a 25th of the peak over the first 30% of the steps, then falls
        to nearly zero [3]_; "cosine" falls from the start.
    weight_decay : float, default=0.0
        Decoupled weight decay [4]_. Weights that require no gradient do not decay, and neither do
        the values that fill in missing ones.
    batch_size : int, default=64
        Number of rows in a step. The last batch of an epoch holds the rows left over. With a
        callable `network`, a single row left over shares the rows of the batch before it, as batch
        normalization needs two rows.
    max_epochs : int or "auto", default="auto"
        Number of passes over the rows. "auto" means ``max(10, ceil(192_000 / n))`` with n the
        largest of n_rows, 64 and `batch_size`: 10 epochs on data of 60,000 rows, and about 3,000
        steps of 64 rows on small data. `NeighborPreserving` takes at least 20 and at most 100
        epochs, `NearPCA`, which is the default on standardized columns, at most 100, and
        `Supervised` at most 60.
    early_stopping : bool, default=False
        Whether to set `validation_fraction` of the rows aside, to stop when the loss on them
        no longer falls, and to keep the weights with the lowest loss.
    validation_fraction : float, default=0.1
        Part of the rows, drawn at random, that `early_stopping` sets aside. With `Supervised`, at
        least one labelled row of each class is left for training.
    n_iter_no_change : int, default=5
        Number of epochs without improvement after which `early_stopping` stops. Epochs before the
        peak of the learning rate do not count.
    tol : float, default=1e-4
        Improvement that counts, relative to the size of the best validation loss.
    warm_start : bool, default=False
        Whether a further `fit` continues from the weights and the scaling of the last one.
    device : str or torch.device, default="auto"
        Device for training and encoding. "auto" is CUDA if available, otherwise MPS, otherwise the
        CPU. If there are several GPUs, it is the first one. The processes of joblib's loky, such as
        those of a search with `n_jobs`, take the GPUs in turn.
    precision : {"float32", "float64", "bfloat16"}, default="float32"
        Precision of the weights and of the training. "bfloat16" keeps the weights in float32
        and multiplies matrices in bfloat16: for large networks on a GPU.
    random_state : int, RandomState instance or None, default=None
        Source of the first weights, the order of rows, the validation rows and the random numbers
        of your own code (see the notes). The same int gives the same codes on the same machine with
        the same number of threads.
    checkpoint : str, path-like or Checkpoint, default=None
        Folder that keeps the state of a running fit, in case its process dies. `fit` with the same
        parameters and data then continues from there, with bitwise the same result on the same
        machine. Each fit has its own file, so that clones can share the folder. The file is written
        at the end of an epoch, about once a second, and every two minutes within long epochs. It is
        removed at the end of the fit, except with ``Checkpoint(folder, keep=True)``. See the notes.
    verbose : int, default=0
        0 is silent. 1 shows losses, rows per second and the time left: in a terminal and in Jupyter
        in one line that is rewritten, otherwise in at most one new line a second.
    categorical_features : {"from_dtype"}, array-like of {bool, int, str} or None, \
            default="from_dtype"
        Columns that hold categories, as in `HistGradientBoostingClassifier`: a mask, positions, or
        names. "from_dtype" means the columns of a pandas or polars frame that hold text or have
        the type category, Categorical or Enum. Dates and durations are numbers in seconds inside,
        and come back as dates and durations. With None, a column of text is an error.
    min_frequency : int, float or None, default=None
        Levels of a category in fewer rows, or in a smaller fraction of them, count as one level, as
        in `OneHotEncoder`. The group comes back as its most frequent level.
    max_categories : int, "auto" or None, default="auto"
        Largest number of levels of a category, the group of less frequent ones included, as in
        `OneHotEncoder`. "auto" is 50, with a warning that names a column with more levels. None
        keeps all levels.

    Attributes
    ----------
    encoder_, decoder_ : torch.nn.Module
        The trained network, on the CPU, in the network's range. `to_module` returns it together
        with the scaling.
    hidden_layer_sizes_ : tuple of int
        Widths of the encoder's hidden layers. Only for a `DenseNetwork` and without `network`.
    n_features_in_ : int
        Number of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns seen in `fit`. Only if all names are strings.
    is_categorical_ : ndarray of bool of shape (n_features,)
        Whether each column holds categories. Only for a table with categories, dates or durations.
    categories_ : list of ndarray
        Levels of each categorical column in `fit`, in order. Only for such a table.
    infrequent_categories_ : list of (ndarray or None)
        Levels of each categorical column that count as one; None if none do. Only for such a table.
    n_iter_ : int
        Number of epochs trained; fewer than `max_epochs_` after an interrupt or an early stop.
    n_steps_ : int
        Number of batches trained on.
    max_epochs_ : int
        Number of epochs, with "auto" resolved.
    loss_ : float
        Training loss in the last epoch.
    loss_curve_ : list of float
        Training loss of the reconstruction per epoch, in the network's range, measured while the
        weights change. The terms of regularizers are not included.
    validation_loss_curve_ : list of float or None
        Loss on the validation rows after each epoch; None without `early_stopping`.
    best_loss_ : float
        Lowest value of `validation_loss_curve_` or, where that is None, of `loss_curve_`.
    device_ : torch.device
        Device of the last `fit`.
    task_ : {"classification", "regression"} or None
        Task of the first `Supervised` regularizer, with "auto" resolved; None without one.

    See Also
    --------
    sklearn.decomposition.PCA : The best linear map to a code, in closed form.

    Notes
    -----
    X of float64 and of 32- or 64-bit integers is encoded and returned in float64, X of any other
    type in float32. A nullable column of a frame counts as NumPy's type of the same name, objects
    count as float64. A network of your own computes in the precision it was trained in, and its
    result is cast.

    Missing values (NaN) are left out of the loss and of the scaling's statistics. The network gets
    a number per column instead: the column's mean or, if any value is missing in training, a number
    that is learned with the weights. Rows with no known value are not trained on. Sparse matrices
    are made dense a few batches at a time, and give the result of the dense matrix.

    In a table with categories, the network gets a column for each level, and the decoder returns
    logits of the levels. The loss is a mean over the columns of X: `loss` for numbers, and for a
    category the cross-entropy divided by the entropy of its levels. Both are 1 if nothing but means
    and shares is known. A level that `fit` did not see is a missing value. `inverse_transform` and
    `reconstruct` return a frame like that of `fit`, with the most probable levels.

    A column that is constant in `fit`, except for rounding, is reconstructed as exactly that
    constant. A new value that differs has no effect on the code, except in image bytes and X within
    [0, 1], where a constant column is a pixel like any other. In `score_samples` the difference
    counts in units of the constant's size. A column with no known value in `fit` has no effect at
    all, and its reconstruction is NaN. `partial_fit` and a warm start learn the scaling of such a
    column when it varies for the first time.

    A `loss` of your own is applied to the known entries of a row. If it is a sum or a mean over
    columns of one function of an entry and its target, it is computed for these entries alone. If
    columns have weights, it is a mean over the known columns. Any other loss has to ignore entries
    with a target of NaN by itself, otherwise `fit` and `score_samples` raise an error for X with
    missing values.

    A `network`, `loss` or regularizer of your own may draw from PyTorch's global random state, as
    dropout does. During each step that state is replaced by one that follows from `random_state`,
    and then restored. Meanwhile other fits of this kind wait, and other threads of your own should
    not draw from it. If such code draws random numbers in `transform` or similar methods, each call
    draws the same numbers. The random states of NumPy and Python are not replaced: use PyTorch's.

    With scikit-learn's array API dispatch (``config_context(array_api_dispatch=True)``), results
    are arrays of the library of X, such as tensors, on the device of X, which may differ from that
    of the transformer. Without dispatch, results are NumPy arrays.

    Callbacks of scikit-learn 1.9 or later (``transformer.set_callbacks(...)``) are called in `fit`,
    not in `partial_fit`: for the whole fit and for each epoch. A callback that returns True after
    an epoch ends the training. Its `fitted_estimator` has the weights of that epoch. If y is None,
    callbacks get X as y.

    With `checkpoint`, a fit is recognized by a digest of its parameters, of X (beyond 256 MiB of
    some of its rows and all columns' means), of y if a regularizer needs it, of the kind of
    device and of the versions of the libraries. Functions of your own count by their code. With
    ``random_state=None`` the fit continues with the random numbers that it drew at first. After
    Ctrl-C the file stays, and the same `fit` continues from it. A damaged file is removed with a
    warning, and the fit starts from the beginning. If the same fit is already running in that
    folder, this one runs without a checkpoint. State that your own network or regularizer keeps
    outside of parameters and buffers is not in the file. `partial_fit` writes no file, and `load`
    does not restore the parameter.

    `fit` does not take `sample_weight`: scikit-learn asks that weights equal repeated rows, which
    an optimizer of batches cannot fulfil.

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

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = _CONSTRAINTS
    # scikit-learn takes parameters other than X for metadata to route.
    __metadata_request__inverse_transform: ClassVar[dict[str, str]] = {"probabilities": UNUSED}

    encoder_ = _Part()
    decoder_ = _Part()
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
    task_: str | None
    _model: Model
    _memory: Memory
    _fitted_library: str | None = None  # of arrays that are not NumPy's
    _table: Table | None = None
    # For pickles of earlier versions, which lack them.
    categorical_features: Any = "from_dtype"
    min_frequency: float | None = None
    max_categories: int | str | None = "auto"

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
        categorical_features: Any = "from_dtype",
        min_frequency: float | None = None,
        max_categories: int | str | None = "auto",
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
        self.categorical_features = categorical_features
        self.min_frequency = min_frequency
        self.max_categories = max_categories

    @classmethod
    def from_preset(cls, name: str, **params: Any) -> Self:
        """Return an unfitted transformer with the settings of a preset.

        Parameters
        ----------
        name : {"lecture", "neighbors", "tabular", "classes", "images"}
            - "lecture": the settings of the lecture: a constant learning rate, 10 epochs for any
              number of rows, the widths 128, 64 and 12 for any number of codes, and random first
              weights.
            - "neighbors": few codes, for KNN and SVM, also if few rows are labelled. A wider
              network with layer normalization, and `NeighborPreserving`. Chosen on MNIST,
              Fashion-MNIST, satimage, covtype, segment, spambase, adult and tox_171.
            - "tabular": the default with all columns standardized, even if they lie within [0, 1].
              Codes for any classifier or regressor. They are as good as principal components, and
              better if they are few. Chosen on 11 tables.
            - "classes": codes that learn from the y that a pipeline passes, for the classifier or
              regressor that follows. Rows without a label are used as well. `Supervised` describes
              what y may be. Chosen on 9 tables.
            - "images": a `ConvNetwork` for square images and a good reconstruction. Other shapes
              are set by ``network__image_shape``. Chosen on MNIST with 32 codes. Transforms of
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
                    f"{in_short(holder)[1]}, which has no nested names. Give {outer} as a whole."
                )
        return transformer.set_params(**params)

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> Self:
        """Train the autoencoder on the rows of X.

        Parameters
        ----------
        X : {array-like, sparse matrix, data frame} of shape (n_samples, n_features)
            Numbers without infinity; a frame of pandas or polars may also have columns of text,
            categories, dates and durations. NaN, None and NA are missing values. X is not changed.
            It is
            not copied as a whole if it is an array, a memory map, a CSR matrix, a dataset of h5py
            or zarr, or the result of ``load_images(..., lazy=True)``. A dataset of h5py or zarr,
            and a memory map larger than half the memory of the machine or its container, is read in
            blocks of consecutive rows, in random order.
        y : array-like of shape (n_samples,), default=None
            Ignored, unless a regularizer learns from it (`Supervised`).

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If X or a parameter cannot be used, if no weight of the network can be trained, or if
            the network needs more than one row in a batch and gets one.
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
            `n_iter_` is below `max_epochs_`. A search continues, and ranks this fit like the
            others. Also if a column has no known value, if there are at least as many codes as
            columns, or if a hidden layer of your own is narrower than the code.
        RuntimeWarning
            If a checkpoint is damaged, cannot be written, or belongs to a fit that is running.
        ConvergenceWarning
            If nothing was learned: the reconstructions are no better than the means of the
            columns, or all rows have the same code.
        """
        task = FitTask(self, X, y)
        ranks = current_ranks()
        with self._fitting(), ranks.together(), ExitStack() as closing:
            last = self._last() if self.warm_start else None
            data, given = self._look_at(X, y, ranks, last)
            first = start(given, data, self.device_, last, closing)
            if last is None:
                self._reset(first.model)
            fit = plan_fit(given, data, first, self.device_)
            self.max_epochs_ = fit.max_epochs
            task.begin(self.max_epochs_)
            trained = fit.run(task, self._as_fitted, first.checkpoint, diagnosed=True)
            self._store(trained)
            self._memory.optimizer_state = None  # moments go from one `partial_fit` to the next
            task.end()
        if trained.nothing_learned:
            warn(
                f"{type(self).__name__} learned nothing: {trained.nothing_learned}. Change "
                f"max_epochs (now {self.max_epochs_}), learning_rate (now {self.learning_rate:g}) "
                f"or scaling (now {self.scaling!r}).",
                ConvergenceWarning,
            )
        return self

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Train for one epoch on the rows of X, at the constant `learning_rate`.

        The first call builds the network and learns the scaling. Columns that are constant or
        unknown in its X get their scaling when they vary for the first time. Adam's moments are
        kept from call to call, but not in a pickle or a clone.

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
        ranks = current_ranks()
        with self._fitting(), ranks.together():
            last = self._last()
            data, given = self._look_at(X, y, ranks, last)
            first = start(given, data, self.device_, last)
            if last is None:
                self._reset(first.model)
            self._store(plan_fit(given, data, first, self.device_, once=True).run())
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the codes of the rows of X.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        X_new : array of shape (n_samples, n_components)
            In float64 if X is float64 or a 32- or 64-bit integer, otherwise in float32.
        """
        rows = check_fitted_rows(self, X, "transform")
        return like(self._model.encode(rows, self.device_), X)

    @takes_old_arguments(renamed={"Z": "X"})
    def inverse_transform(self, X: Any, *, probabilities: bool = False) -> np.ndarray:
        """Return the rows, in the units of `fit`, that the decoder makes of codes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components)
            Codes, such as `transform` returns.
        probabilities : bool, default=False
            Whether to return a column for each level of a category, with its probability, instead
            of the likeliest level.

        Returns
        -------
        X_original : ndarray or data frame of shape (n_samples, n_features)
            A frame with the columns of `fit` if the X of `fit` was a frame with categories or
            dates, or if `set_output` asks for frames. NaN in a column with no known value in `fit`.
            With `probabilities`, columns of levels are named as by `OneHotEncoder`.

        Raises
        ------
        ValueError
            If `probabilities` is True and there are no categories.

        Examples
        --------
        >>> import pandas as pd
        >>> from aefeatures import AutoencoderTransformer
        >>> X = pd.DataFrame({"size": [1, 2, 30, 31], "kind": ["cup", "cup", "tree", "tree"]})
        >>> transformer = AutoencoderTransformer(1, random_state=0).fit(X)
        >>> codes = transformer.transform(X)
        >>> transformer.inverse_transform(codes)["kind"].tolist()
        ['cup', 'cup', 'tree', 'tree']
        >>> transformer.inverse_transform(codes, probabilities=True).columns.tolist()
        ['size', 'kind_cup', 'kind_tree']
        """
        check_is_fitted(self)
        check_array_library(self, X, self._fitted_library, "inverse_transform")
        codes = check_codes(X, self._model.n_components, self)
        if probabilities:
            check_has_levels(self)
            found = self._model.decode_probabilities(codes, self.device_)
            return probabilities_in_columns(self, found, X)
        return in_columns_of_fit(self, self._model.decode(codes, self.device_), X)

    def reconstruct(self, X: Any, *, probabilities: bool = False) -> np.ndarray:
        """Return the reconstruction of X: an estimate of every entry.

        ``np.where(np.isnan(X), transformer.reconstruct(X), X)`` fills in missing values.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        probabilities : bool, default=False
            As in `inverse_transform`.

        Returns
        -------
        X_reconstructed : ndarray or data frame of shape (n_samples, n_features)
            In X's units, in the dtype of `transform`. A frame, and NaN, as of `inverse_transform`.

        Raises
        ------
        ValueError
            If `probabilities` is True and there are no categories.
        """
        rows = check_fitted_rows(self, X, "reconstruct")
        if probabilities:
            check_has_levels(self)
            found = self._model.reconstruct_probabilities(rows, self.device_)
            return probabilities_in_columns(self, found, X)
        return in_columns_of_fit(self, self._model.reconstruct(rows, self.device_), X)

    def score_samples(self, X: Any, *, per_feature: bool | Literal["raw"] = False) -> np.ndarray:
        """Return minus the reconstruction error of the rows of X: higher is more normal.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        per_feature : bool or "raw", default=False
            Whether to return an error for each entry of X instead of one per row. True gives errors
            in comparable units, which show what makes a row unusual. "raw" gives errors in the
            units of X. A scikit-learn pipeline does not pass the parameter on: transform the rows
            with ``pipeline[:-1]`` and score them with ``pipeline[-1]``.

        Returns
        -------
        scores : ndarray of shape (n_samples,), or ndarray or data frame of (n_samples, n_features)
            Per row: minus the `loss` in the network's range, without missing values; NaN for a row
            with no known value. Per feature: minus the absolute difference between X and its
            reconstruction, 0 if the entry is missing. For a category: the logarithm of the
            probability of its level, with True divided by the entropy of the column's levels. A
            frame if X is one with categories. With True the unit is the standard deviation
            of the column in `fit`; for a column that was constant it is the size of the constant,
            or 1 if that was 0.

        Raises
        ------
        ValueError
            If `per_feature` is none of these, or True for a model of an earlier version, which has
            no standard deviations.

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
        rows = check_fitted_rows(self, X, "score_samples")
        if not per_feature:
            return like(-self._model.row_losses(rows, self.device_), X)
        errors = self._model.entry_errors(rows, self.device_, raw=raw)
        return scores_in_columns(self, -errors, X)

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
            Higher is better. Scores are comparable between fits of the same `loss` and `scaling`.
            Rows with no known value are left out; NaN if there are no others.
        """
        rows = check_fitted_rows(self, X, "score")
        scores = -self._model.row_losses(rows, self.device_)
        known = scores[~np.isnan(scores)]
        return float(known.mean(dtype=np.float64)) if len(known) else float("nan")

    def to_module(
        self, part: Literal["encoder", "decoder", "autoencoder"] = "encoder"
    ) -> nn.Module:
        """Return the fitted network as a module from and to X's own units.

        A module of a table with categories or dates takes and returns the tensors of
        `encode_table`, in which a category is the number of its level.

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
        return self._model.to_module(part)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted transformer to a file without code, which `load` reads.

        The file has the safetensors format: the weights, the scaling and the record of the
        training as arrays, and a JSON document with the parameters. It is written beside `path` and
        renamed when it is complete, so that an existing file stays whole if anything fails.
        Like a pickle, it does not contain Adam's moments.

        Parameters
        ----------
        path : str or path-like
            An existing file is replaced. No suffix is added; ".safetensors" is usual.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If it is not fitted.
        ValueError
            If a parameter is code: a `loss`, a `noise` or a `Regularizer` of your own. If the
            levels of a category are not texts, integers, floats or booleans, but intervals or
            dates, for example. Use pickle then. A `network` of your own is not saved, and has to be
            given to `load` again.
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
        save_owned(self, path)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], device: str | torch.device = "auto", network: Any = None
    ) -> Self:
        """Return the transformer that `save` wrote.

        No code from the file is run: unlike a pickle, a file from anyone can be loaded.

        Parameters
        ----------
        path : str or path-like
        device : str or torch.device, default="auto"
            Parameter `device` of the transformer that is returned. "auto" leaves it as it was
            saved; if that device is not available, the fastest available one is used.
        network : callable, default=None
            Parameter `network` that the transformer was fitted with, if it is one of your own,
            which is not in the file.

        Returns
        -------
        AutoencoderTransformer
            An object of the class that `load` was called on.

        Raises
        ------
        ValueError
            If the file is not a model, truncated, damaged or of a later version of aefeatures; if
            `network` is missing, or builds another network; if `device` is not available.
        OSError
            If the file cannot be read.
        """
        return load_owned(cls, path, device, network)[0]

    @property
    def _n_features_out(self) -> int:
        return self._model.n_components

    def _last(self) -> Start | None:
        """Return what the last fit left for a training that goes on; None before the first."""
        return Start(self._model, self._memory) if "_model" in self.__dict__ else None

    def _look_at(self, X: Any, y: Any, ranks: Ranks, last: Start | None) -> tuple[Data, Self]:
        """Check X and y and read X once; return them, and the parameters as Python's numbers."""
        self._fitted_library = name_of_array_library(X)
        fewest = 1 if ranks.size == 1 else 0
        rows, y = check_rows_and_labels(self, X, y, reset=last is None, min_rows=fewest)
        given = plain(self)
        if ranks.size > 1:
            check_same_on_ranks(given, rows, ranks, last)
        data = look_at(rows, y, ranks, last, self._table)
        self.device_ = resolve_device(given.device)
        return data, given

    def _reset(self, model: Model) -> None:
        """Set the attributes of a fit that begins with a new model."""
        of_tables = ("is_categorical_", "categories_", "infrequent_categories_")
        for name in ("hidden_layer_sizes_", *of_tables):
            self.__dict__.pop(name, None)
        if isinstance(model.network, DenseNetwork):
            widths = layer_widths("hidden_layer_sizes", model.network.hidden_layer_sizes)
            self.hidden_layer_sizes_ = tuple(widths)
        if self._table is not None:
            self.__dict__.update(self._table.attributes())
        self.task_ = None
        self.n_iter_ = self.n_steps_ = 0
        self.loss_curve_ = []
        self.validation_loss_curve_ = None

    def _store(self, trained: Trained) -> None:
        """Set the attributes that a training leaves."""
        result = trained.result
        self._model, self._memory, self.task_ = trained.model, trained.memory, trained.task
        self.n_iter_ += len(result.loss_curve)
        self.n_steps_ += result.n_steps
        self.loss_curve_ = self.loss_curve_ + result.loss_curve
        self.loss_ = result.loss_curve[-1]
        validation = result.validation_loss_curve
        self.validation_loss_curve_ = (
            (self.validation_loss_curve_ or []) + validation if validation else None
        )
        self.best_loss_ = min(self.validation_loss_curve_ or self.loss_curve_)

    def _as_fitted(self, trained: Trained) -> dict[str, Any]:
        """Return the attributes that the fit would leave if it were over."""
        fitted = object.__new__(type(self))
        fitted.__dict__.update(self.__dict__)
        fitted._store(trained)
        return fitted.__dict__

    @contextmanager
    def _fitting(self) -> Iterator[None]:
        # Tensors made in inference mode could not be trained.
        with unchanged_on_error(self), torch.inference_mode(False), without_autocast():
            yield

    def __getstate__(self) -> dict[str, Any]:
        state = without_running_fit(super().__getstate__())
        if "_model" not in state:
            return state
        model, memory, _ = state.pop("_model"), state.pop("_memory"), state.pop("device_")
        return {
            **state,
            **model.state(),
            "_rng": memory.rng,
            "_learns_missing": memory.learns_missing,
            "_heads": [],
            "_optimizer_state": None,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        if "encoder_" in state:
            state["_model"] = Model.take_from(state)
            state["_memory"] = Memory(
                state.pop("_rng"), state["n_steps_"], state.pop("_learns_missing")
            )
            for name in ("_heads", "_optimizer_state"):
                state.pop(name)
        super().__setstate__(state)
        if "_model" in state:
            self.device_ = resolve_saved_device(self.device)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.target_tags.required = requires_labels(self.regularizer)
        tags.input_tags.allow_nan = True
        tags.array_api_support = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
