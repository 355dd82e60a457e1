"""Encoders and decoders."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral
from operator import attrgetter, itemgetter
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.base import BaseEstimator
from torch import nn

from aefeatures._rows.scaling import Scaling
from aefeatures._rows.table_scaling import AnyScaling, TableScaling
from aefeatures._torch.random_state import global_seed, is_ours
from aefeatures._warnings import warn

Pair = tuple[nn.Module, nn.Module]
T = TypeVar("T")

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


class BatchNorm(nn.BatchNorm1d):
    """Batch normalization that also trains on a batch of one value per column.

    A single row has no variance, so it is normalized by the running statistics and does not change
    them. It is the last batch of an epoch if ``n_rows % batch_size == 1``. The input is rows, of
    shape (n, columns), or images, of shape (n, channels, height, width).
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(input)

    def _check_input_dim(self, input: torch.Tensor) -> None:
        pass


DEFAULT_WIDTHS = (128, 64, 12)

# Activations that leave numbers above zero unchanged.
_LINEAR_ABOVE_ZERO = ("relu", "leaky_relu", "elu")

# Standard deviations by which principal components are shifted above zero for these activations.
_LIFT = 3.0

# Components do not vary if their deviation is at most this fraction of the first one's.
_LEAST_DEVIATION = 1e-3

NORMALIZATIONS: dict[str, type[nn.Module]] = {"layer": nn.LayerNorm, "batch": BatchNorm}


class Network(BaseEstimator):
    """Base class of builders of an encoder and a decoder, with parameters that a search can set."""

    def build(self, n_features: int, n_components: int, *, spec: BuildSpec) -> Pair:
        """Return encoder and decoder, ``(n, n_features) -> (n, n_components)`` and back."""
        raise NotImplementedError


class DenseNetwork(Network):
    """Linear layers with an activation between them; the decoder mirrors the encoder.

    By default, `AutoencoderTransformer` builds it from its own parameters of the same names.

    Parameters
    ----------
    hidden_layer_sizes : int or array-like of int, default=(128, 64, 12)
        Widths of the encoder's hidden layers. `()` makes encoder and decoder linear. A transformer
        leaves widths below its `n_components` out of the default.
    activation : {"relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid"}, default="relu"
        Activation after each hidden layer.
    normalization : {"layer", "batch"} or None, default=None
        Normalization between each hidden layer and its activation.
    n_principal_components : int or None, default=None
        Number of principal components of the rows that the encoder reads instead of the columns.
        They are learned before the training. With None, or with as many as there are columns, the
        encoder reads the columns. The decoder always returns all columns.
    init : {"random", "pca"}, default="random"
        Initial weights. "random": orthogonal [1]_. "pca": some units carry the principal components
        to the code and back, as many as the layers are wide enough for, so that codes and
        reconstructions start as those of PCA; the other units are random and have no effect at
        first. "pca" needs an activation that is linear above 0, no `normalization`, and a range
        that is not [0, 1].

    References
    ----------
    .. [1] A. M. Saxe, J. L. McClelland and S. Ganguli. Exact solutions to the nonlinear dynamics
       of learning in deep linear neural networks. ICLR 2014.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from aefeatures import AutoencoderTransformer, DenseNetwork
    >>> X, _ = load_digits(return_X_y=True)
    >>> transformer = AutoencoderTransformer(network=DenseNetwork((64, 32)), max_epochs=2)
    >>> transformer.fit_transform(X).shape
    (1797, 3)
    """

    def __init__(
        self,
        hidden_layer_sizes: int | Sequence[int] = DEFAULT_WIDTHS,
        activation: str = "relu",
        normalization: str | None = None,
        n_principal_components: int | None = None,
        init: str = "random",
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.normalization = normalization
        self.n_principal_components = n_principal_components
        self.init = init

    def build(self, n_features: int, n_components: int, *, spec: BuildSpec) -> Pair:
        """Return encoder and decoder."""
        _check_layers(self.activation, self.normalization)
        _check_init(self.init, self.activation, self.normalization, bounded=spec.bounded)
        hidden = layer_widths("hidden_layer_sizes", self.hidden_layer_sizes)
        n_inputs = n_features
        if self.n_principal_components is not None:
            n_inputs = self.n_principal_components
            if not (isinstance(n_inputs, Integral) and n_inputs >= 1):
                raise ValueError(
                    "n_principal_components must be None or an integer of at least 1, got "
                    f"{n_inputs!r}."
                )
        projection = [Projection(n_features, n_inputs, spec)] if n_inputs < n_features else []

        def layers(widths: Sequence[int]) -> list[nn.Module]:
            modules: list[nn.Module] = []
            for i, (n_in, n_out) in enumerate(itertools.pairwise(widths)):
                last = i == len(widths) - 2
                modules.append(_linear(n_in, n_out, None if last else self.activation, spec))
                if not last:
                    if self.normalization is not None:
                        modules.append(
                            _normalization(NORMALIZATIONS[self.normalization], n_out, spec=spec)
                        )
                    modules.append(ACTIVATIONS[self.activation]())
            return modules

        reading = [min(n_inputs, n_features), *hidden, n_components]
        encoder = nn.Sequential(*projection, *layers(reading))
        writing = [n_components, *hidden[::-1], n_features]
        decoder = nn.Sequential(*layers(writing), *([nn.Sigmoid()] if spec.bounded else []))
        if self.init == "pca" and spec.device != "meta":
            _start_as_pca(encoder, decoder, min(n_components, *hidden, reading[0]), spec)
        return encoder, decoder

    def layers_as_built(self, encoder: nn.Module, decoder: nn.Module) -> DenseLayers | None:
        """Return the layers that `build` returned, for the hand-written gradient.

        None if `build` makes layers of other kinds, or if layers have been replaced since.
        """
        if self.normalization == "batch":  # depends on the other rows of a batch
            return None
        between = [ACTIVATIONS[self.activation]]
        if self.normalization is not None:
            between.insert(0, NORMALIZATIONS[self.normalization])
        hidden = [nn.Linear, *between] * len(layer_widths("", self.hidden_layer_sizes))
        expected = [*hidden, nn.Linear]
        layers = DenseLayers([*encoder.children()], [*decoder.children()])
        reading, writing = ([type(each) for each in part] for part in layers.parts)
        if reading not in (expected, [Projection, *expected]):
            return None
        if writing not in (expected, [*expected, nn.Sigmoid]):
            return None
        weights = {id(parameter) for parameter in layers.parameters()}
        return layers if len(weights) == 2 * len(layers.trained) else None


@dataclass(frozen=True)
class DenseLayers:
    """Layers of a `DenseNetwork` without batch normalization.

    Attributes
    ----------
    encoder, decoder : list of nn.Module
    fill : FillMissing or None
        Layer in front that fills in missing values, if its values are trained.
    """

    encoder: list[nn.Module]
    decoder: list[nn.Module]
    fill: FillMissing | None = None

    @property
    def parts(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """Layers of the encoder and of the decoder."""
        return self.encoder, self.decoder

    @property
    def trained(self) -> list[Any]:
        """Layers with weights and biases to train."""
        layers = [*self.encoder, *self.decoder]
        return [layer for layer in layers if isinstance(layer, (nn.Linear, nn.LayerNorm))]

    def parameters(self) -> list[nn.Parameter]:
        """Return weights, biases and fill, except biases that have been removed."""
        own = [parameter for layer in self.trained for parameter in (layer.weight, layer.bias)]
        if self.fill is not None:
            own.append(self.fill.values)
        return [parameter for parameter in own if type(parameter) is nn.Parameter]


class Projection(nn.Module):
    """Linear layer from rows to their leading principal components, which is not trained."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, n_features: int, n_axes: int, spec: BuildSpec) -> None:
        super().__init__()
        if spec.device == "meta":
            axes = torch.empty(n_features, n_axes, dtype=spec.dtype, device="meta")
            means = torch.empty(n_features, dtype=spec.dtype, device="meta")
        else:
            assert spec.principal_axes is not None
            axes, means, _ = spec.principal_axes(n_axes)
        self.register_buffer("weight", axes.t().to(spec.dtype).contiguous())
        self.register_buffer("bias", -(means @ axes).to(spec.dtype))

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """Project X, of shape (n, n_features)."""
        return F.linear(X, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Return the sizes, for `repr`."""
        n_axes, n_features = self.weight.shape
        return f"in_features={n_features}, out_features={n_axes}"


class FillMissing(nn.Module):
    """Layer that replaces missing values (NaN) by one value per column.

    Parameters
    ----------
    values : tensor of shape (n_features,)
        Values in the network's range. They are trained if the training data has missing values.
    """

    def __init__(self, values: torch.Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(values)

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """Fill X, of shape (n, n_features)."""
        return torch.where(X.isnan(), self.values, X)


class ConvNetwork(Network):
    """Convolutions for rows that are flattened images; the decoder mirrors the encoder.

    Each hidden layer is a convolution of stride 2, which halves height and width (rounded up), and
    an activation. A linear layer returns the code.

    Parameters
    ----------
    image_shape : tuple of int or None, default=None
        Layout of a row, channel by channel: (channels, height, width), or (height, width) for grey
        images. None reads the columns as one square grey image or as three square channels.
    channels : int or array-like of int, default=(32, 64)
        Channels of the hidden layers.
    kernel_size : int, default=3
        Height and width of the convolutions' windows, an odd number.
    activation : {"relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid"}, default="gelu"
        Activation after each hidden layer.
    normalization : {"layer", "batch"} or None, default=None
        Normalization between each hidden layer and its activation.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from aefeatures import AutoencoderTransformer, ConvNetwork
    >>> X, _ = load_digits(return_X_y=True)
    >>> network = ConvNetwork(image_shape=(8, 8), channels=(8, 16))
    >>> transformer = AutoencoderTransformer(network=network, max_epochs=2)
    >>> transformer.fit_transform(X).shape
    (1797, 3)
    """

    def __init__(
        self,
        image_shape: Sequence[int] | None = None,
        channels: int | Sequence[int] = (32, 64),
        kernel_size: int = 3,
        activation: str = "gelu",
        normalization: str | None = None,
    ) -> None:
        self.image_shape = image_shape
        self.channels = channels
        self.kernel_size = kernel_size
        self.activation = activation
        self.normalization = normalization

    def build(self, n_features: int, n_components: int, *, spec: BuildSpec) -> Pair:
        """Return encoder and decoder."""
        _check_layers(self.activation, self.normalization)
        size = self.kernel_size
        if not (isinstance(size, Integral) and size >= 1 and size % 2 == 1):
            raise ValueError(f"kernel_size must be an odd integer, got {size!r}.")
        image_channels, height, width = resolve_image_shape(self.image_shape, n_features)
        channels = [image_channels, *layer_widths("channels", self.channels)]
        sizes = [(height, width)]
        for _ in channels[1:]:
            sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
        flat = channels[-1] * sizes[-1][0] * sizes[-1][1]
        down: list[nn.Module] = []
        up: list[nn.Module] = []
        for i, (n_in, n_out) in enumerate(itertools.pairwise(channels)):
            down += [self._convolution(n_in, n_out, spec), *self._after(n_out, spec)]
            # A doubled size is even with output padding, and odd without it.
            extra = tuple(1 - size % 2 for size in sizes[i])
            after = [] if i == 0 else self._after(n_in, spec)
            up = [self._convolution(n_out, n_in, spec, extra, last=i == 0), *after, *up]
        encoder = nn.Sequential(
            nn.Unflatten(1, (image_channels, height, width)),
            *down,
            nn.Flatten(),
            _linear(flat, n_components, None, spec),
        )
        decoder = nn.Sequential(
            _linear(n_components, flat, self.activation, spec),
            ACTIVATIONS[self.activation](),
            nn.Unflatten(1, (channels[-1], *sizes[-1])),
            *up,
            nn.Flatten(),
            *([nn.Sigmoid()] if spec.bounded else []),
        )
        return encoder, decoder

    def _convolution(
        self,
        n_in: int,
        n_out: int,
        spec: BuildSpec,
        extra: tuple[int, ...] | None = None,
        *,
        last: bool = False,
    ) -> nn.Module:
        """Return a layer that halves the size, or doubles it with the output padding `extra`."""
        sizes: dict[str, Any] = {
            "kernel_size": self.kernel_size,
            "stride": 2,
            "padding": self.kernel_size // 2,
        }
        kind: type[nn.Module] = nn.Conv2d
        fan_in: float = n_in * self.kernel_size**2
        if extra is not None:
            kind = nn.ConvTranspose2d
            sizes["output_padding"] = extra
            fan_in /= 4  # a quarter of the window reaches each entry of the doubled image
        layer = uninitialized(kind, n_in, n_out, **sizes, device=spec.device, dtype=spec.dtype)
        if spec.device == "meta":
            return layer
        gain = 1.0 if last else _gain(self.activation)
        nn.init.normal_(layer.weight, std=gain / fan_in**0.5, generator=spec.generator)
        nn.init.zeros_(layer.bias)
        return layer

    def _after(self, n_channels: int, spec: BuildSpec) -> list[nn.Module]:
        modules: list[nn.Module] = [ACTIVATIONS[self.activation]()]
        if self.normalization == "layer":
            modules.insert(0, _normalization(nn.GroupNorm, 1, n_channels, spec=spec))
        elif self.normalization == "batch":
            modules.insert(0, _normalization(BatchNorm, n_channels, spec=spec))
        return modules


def resolve_image_shape(image_shape: Sequence[int] | None, n_features: int) -> tuple[int, int, int]:
    """Return (channels, height, width) of rows of `n_features` columns.

    Raises
    ------
    ValueError
        If the shape does not have as many entries as a row, or if it is not given and the row is
        neither one square nor three.
    """
    if image_shape is None:
        for channels in (1, 3):
            side = round((n_features / channels) ** 0.5)
            if channels * side * side == n_features:
                return channels, side, side
        raise ValueError(
            f"{n_features} columns are neither a square image nor three square channels: set "
            "image_shape to (channels, height, width)."
        )
    shape = tuple(layer_widths("image_shape", image_shape))
    if len(shape) == 2:
        shape = (1, *shape)
    if len(shape) != 3:
        raise ValueError(
            "image_shape must be (channels, height, width) or (height, width), got "
            f"{image_shape!r}."
        )
    if math.prod(shape) != n_features:
        raise ValueError(
            f"image_shape={tuple(image_shape)} has {math.prod(shape)} entries, but X has "
            f"{n_features} columns."
        )
    return shape[0], shape[1], shape[2]


def build_network(network: Any, n_features: int, n_components: int, *, spec: BuildSpec) -> Pair:
    """Return the encoder and the decoder that a `Network` or a callable builds.

    Raises
    ------
    TypeError
        If it is a module, a class or a pair of modules instead of a callable, or a callable that
        does not return two modules.
    ValueError
        If their shapes do not fit.
    """
    _check_callable(network)
    if is_ours(network):
        own: Pair = network.build(n_features, n_components, spec=spec)
        return own
    with global_seed(spec.generator.initial_seed()):  # user-defined modules draw from it
        if isinstance(network, Network):
            return network.build(n_features, n_components, spec=spec)
        built = network(n_features, n_components)
        pair = built if isinstance(built, tuple) else ()
        if len(pair) != 2 or not all(isinstance(part, nn.Module) for part in pair):
            raise TypeError(
                "network must return two modules, (encoder, decoder), got "
                f"{tuple(map(type, built)) if isinstance(built, tuple) else type(built)}."
            )
        encoder, decoder = (part.cpu().to(spec.dtype) for part in copied(pair))
        # Lazy modules draw their weights here.
        _check_shape("encoder", encoder, n_features, n_components, spec)
        _check_shape("decoder", decoder, n_components, n_features, spec)
    return encoder, decoder


def _check_callable(network: Any) -> None:
    """Refuse modules and classes: they are callable, but return no encoder and decoder."""
    if isinstance(network, type):
        kind = f"the class {network.__name__}"
    elif isinstance(network, nn.Module):
        kind = f"a module of the class {type(network).__name__}"
    elif isinstance(network, (tuple, list)):
        kind = f"a {type(network).__name__} of {len(network)}"
    else:
        return
    if isinstance(network, type) and issubclass(network, Network):
        raise TypeError(f"network must be an instance, got {kind}. Pass {network.__name__}().")
    if not isinstance(network, type) or issubclass(network, nn.Module):
        raise TypeError(
            f"network must be a function that makes an encoder and a decoder, got {kind}. Pass "
            "network=make, with: def make(n_features, n_components): return encoder, decoder"
        )


# Layers of which this library builds modules. None of them changes its input in place.
OWN_LAYERS = {
    *ACTIVATIONS.values(),
    BatchNorm,
    FillMissing,
    Projection,
    Scaling,
    TableScaling,
    nn.Conv2d,
    nn.ConvTranspose2d,
    nn.Flatten,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.Linear,
    nn.Sequential,
    nn.Unflatten,
}


def is_as_built(network: Any, *modules: nn.Module) -> bool:
    """Whether `modules` were built by `network`, a network of this library, and not changed since.

    Otherwise nothing is known of them. A subclass may build anything. `encoder_` and `decoder_` are
    public, so their layers may have been replaced or given hooks.
    """
    return type(network) in (DenseNetwork, ConvNetwork) and all(
        type(layer) in OWN_LAYERS and not any(_hooks(vars(layer))) and "forward" not in vars(layer)
        for module in modules
        for layer in layers_of(module)
    )


# Dictionaries of a layer's hooks, and of its parameters and buffers. PyTorch has no public access
# to hooks, and its iterators over parameters and buffers are slow compared to encoding one row.
_hooks = itemgetter(
    "_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks"
)
tensors_by_name: Callable[[nn.Module], tuple[dict[str, Any], dict[str, Any]]]
tensors_by_name = attrgetter("_parameters", "_buffers")


def layers_of(module: nn.Module) -> list[nn.Module]:
    """Return the module and all modules in it, shared ones repeatedly; faster than `modules`."""
    layers = [module]
    for layer in layers:  # also those that are appended on the way
        layers += layer._modules.values()  # type: ignore[arg-type]
    return layers


class Guest(nn.Module):
    """Layer around a module of which nothing is known, such as a user-defined one.

    The module may change its input in place, so it gets a copy. It may hold numbers that `to` does
    not convert, so it computes in its own precision.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """Return the output of the module for X, in the precision of X."""
        result: torch.Tensor = self.network(X.to(_dtype(self.network), copy=True))
        return result.to(X.dtype)


def copied(modules: T) -> T:
    """Return a deep copy of a module, or of a tuple of modules.

    The copies share what the modules share. Unlike with `copy.deepcopy` alone, modules may hold
    results of computations, as those of `torch.nn.utils.weight_norm` do, and hooks of parameters
    are kept.
    """
    memo = results_in(modules)
    copies = copy.deepcopy(modules, memo)
    for layer in layers_in(modules):
        for parameter in layer.parameters(recurse=False):
            for hooks in ("_backward_hooks", "_post_accumulate_grad_hooks"):
                if getattr(parameter, hooks) and id(parameter) in memo:
                    setattr(memo[id(parameter)], hooks, getattr(parameter, hooks))
    return copies


def results_in(modules: Any) -> dict[int, Any]:
    """Return a memo for `copy.deepcopy` that detaches the results of autograd in `modules`."""
    return {
        id(value): value.detach().clone()
        for layer in layers_in(modules)
        for value in vars(layer).values()
        if isinstance(value, torch.Tensor) and not value.is_leaf
    }


def layers_in(modules: Any) -> list[nn.Module]:
    """Return all modules in a module, or in a tuple of modules, each once."""
    parts = modules if isinstance(modules, tuple) else (modules,)
    return [*nn.ModuleList(parts).modules()][1:]


def _check_shape(name: str, module: nn.Module, n_in: int, n_out: int, spec: BuildSpec) -> None:
    module.eval()
    with torch.no_grad():
        output = module(torch.zeros(2, n_in, dtype=spec.dtype))
    shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output)
    if shape != (2, n_out):
        raise ValueError(
            f"The {name} of network must turn rows of {n_in} columns into rows of {n_out}, but for "
            f"an input of shape (2, {n_in}) it returned {shape}."
        )


@dataclass(frozen=True)
class BuildSpec:
    """Settings that a network is built with, besides its sizes.

    Attributes
    ----------
    bounded : bool
        Whether a sigmoid ends the decoder.
    dtype : torch.dtype
    generator : torch.Generator
        Generator that the weights are drawn from. The global random state is not changed.
    device : str
        "cpu", or "meta" for a network without values, which takes no memory. Callables ignore it.
    principal_axes : callable or None
        ``principal_axes(n)`` returns the leading principal axes of the rows, of shape
        (n_features, n), the means of the columns, and the deviations of the components. With
        ``sample=True`` they are computed from some thousands of rows.
    """

    bounded: bool
    dtype: torch.dtype
    generator: torch.Generator
    device: str = "cpu"
    principal_axes: Callable[..., tuple[torch.Tensor, torch.Tensor, torch.Tensor]] | None = None


# Types that `plain` does not inspect.
_PLAIN_TYPES = (type(None), bool, int, float, str)


def plain(value: Any) -> Any:
    """Return the value of a parameter with Python's numbers instead of NumPy's.

    NumPy's numbers overflow, and JSON does not support them. A list or an object with parameters is
    copied if it holds any. Everything else, arrays included, is returned unchanged.
    """
    if isinstance(value, np.generic) and value.dtype.kind in "biufU":
        return float(value) if value.dtype.kind == "f" else value.item()
    if type(value) in (list, tuple):
        items = [plain(item) for item in value]
        unchanged = all(item is given for item, given in zip(items, value, strict=True))
        return value if unchanged else type(value)(items)
    if isinstance(value, BaseEstimator):
        changed = {
            name: settled
            for name, each in vars(value).items()
            if type(each) not in _PLAIN_TYPES
            and "_" not in (name[0], name[-1])  # the name of a parameter
            and (settled := plain(each)) is not each
        }
        if changed:
            copied = object.__new__(type(value))
            copied.__dict__.update({**vars(value), **changed})
            return copied
    return value


def same_value(value: Any, other: Any) -> bool:
    """Whether two values of a parameter build the same network."""
    if not (isinstance(value, Network) and type(value) is type(other)):
        return bool(value == other)
    mine, others = (
        {
            # Sizes may be one number, a list, a tuple or an array.
            name: np.atleast_1d(np.asarray(each, dtype=object)).tolist()
            for name, each in network.get_params().items()
        }
        for network in (value, other)
    )
    return mine == others


def layer_widths(name: str, sizes: int | Sequence[int]) -> list[int]:
    """Return a parameter's sizes as a list of positive integers."""
    try:
        widths: list[int] = np.atleast_1d(np.asarray(sizes)).tolist()
    except ValueError:  # rows of different lengths
        widths = [0]
    if not all(isinstance(width, int) and width >= 1 for width in widths):
        raise ValueError(f"{name} must hold integers of at least 1, got {sizes!r}.")
    return widths


def resolve_widths(sizes: Any, n_components: int) -> Any:
    """Return `hidden_layer_sizes` for a code of `n_components` numbers.

    Widths that would limit the rank of the code are left out of the default, which is a tuple.

    Warns
    -----
    UserWarning
        If other widths limit the rank of the code.
    """
    if isinstance(sizes, tuple) and sizes == DEFAULT_WIDTHS:
        if n_components <= DEFAULT_WIDTHS[-1]:
            return sizes
        return tuple(width for width in sizes if width >= n_components) or (n_components,)
    narrowest = min(layer_widths("hidden_layer_sizes", sizes), default=n_components)
    if narrowest < n_components:
        warn(
            f"hidden_layer_sizes={sizes!r} has a layer of {narrowest}, below n_components="
            f"{n_components}: it caps the rank of the code at {narrowest}. Use wider layers or "
            "fewer components."
        )
    return sizes


def _check_layers(activation: str, normalization: str | None) -> None:
    for parameter, name, legal in (
        ("activation", activation, [*ACTIVATIONS]),
        ("normalization", normalization, [None, *NORMALIZATIONS]),
    ):
        if not (name is None or isinstance(name, str)) or name not in legal:
            names = ", ".join(map(str, legal))
            raise ValueError(f"{parameter} must be one of {names}, got {name!r}.")


def _check_init(init: str, activation: str, normalization: str | None, *, bounded: bool) -> None:
    if not isinstance(init, str) or init not in ("random", "pca"):
        raise ValueError(f"init of a network must be 'random' or 'pca', got {init!r}.")
    if init == "pca" and (bounded or not can_start_as_pca(activation, normalization)):
        raise ValueError(
            f"init='pca' needs an activation of {', '.join(_LINEAR_ABOVE_ZERO)}, no normalization "
            "and a scaling whose range is not [0, 1]. Use init='random'."
        )


def can_start_as_pca(activation: str, normalization: str | None) -> bool:
    """Whether layers with these settings leave numbers above zero unchanged."""
    return activation in _LINEAR_ABOVE_ZERO and normalization is None


def n_components_of(deviations: torch.Tensor) -> int:
    """Return how many of the leading principal components vary; they may be few for few rows."""
    return int((deviations > _LEAST_DEVIATION * deviations[:1]).sum())


@torch.no_grad()
def _start_as_pca(encoder: nn.Sequential, decoder: nn.Sequential, n: int, spec: BuildSpec) -> None:
    """Set the first units of all layers to carry up to `n` principal components."""
    assert spec.principal_axes is not None
    first: Any = encoder[0]
    narrow: Any = decoder[0]
    last: Any = decoder[-1]
    projects = isinstance(first, Projection)  # it may return more components than are needed
    n_axes = len(first.bias) if projects else n
    axes, means, deviations = (
        tensor.to(spec.dtype) for tensor in spec.principal_axes(n_axes, sample=not projects)
    )
    n = min(n, n_components_of(deviations))
    if n == 0:
        return
    axes, deviations = axes[:, :n], deviations[:n]
    components = torch.eye(n, n_axes, dtype=axes.dtype, device=axes.device)
    narrow.weight[:, :n] /= deviations
    _carry(encoder, (components if projects else axes.t()) / deviations[:, None], deviations.diag())
    _carry(decoder, (1 / deviations).diag(), axes * deviations)
    if not projects:
        first.bias -= first.weight @ means
    last.bias += means


def _carry(part: nn.Module, into: torch.Tensor, out: torch.Tensor) -> None:
    """Set linear layers to pass ``into @ x`` on unchanged and to return ``out`` times it.

    A rectifier keeps only numbers above zero. So the numbers, which have a deviation of 1, are
    shifted up in the first layer and down in the last. Units that carry them do not read random
    units at first.
    """
    layers = [layer for layer in part.modules() if isinstance(layer, nn.Linear)]
    n, n_in = into.shape
    if len(layers) == 1:
        layers[0].weight[: len(out), :n_in] = out @ into
        return
    for i, layer in enumerate(layers):
        weight, bias = layer.weight, layer.bias
        if i == 0:
            weight[:n] = 0
            weight[:n, :n_in] = into
            bias[:n] = _LIFT
        elif i < len(layers) - 1:
            weight[:n] = 0
            weight[:, :n] = 0
            weight[:n, :n] = torch.eye(n, dtype=weight.dtype, device=weight.device)
        else:
            weight[: len(out)] = 0
            weight[:, :n] = 0
            weight[: len(out), :n] = out
            bias[: len(out)] = -_LIFT * out.sum(dim=1)


def _gain(activation: str | None) -> float:
    """Return the factor of the weights that keeps the scale through an activation."""
    return {None: 1.0, "tanh": 5 / 3, "sigmoid": 4.0}.get(activation, 2**0.5)


def _linear(n_in: int, n_out: int, activation: str | None, spec: BuildSpec) -> nn.Linear:
    """Return a linear layer that, with its activation, keeps the scale of its input.

    PyTorch's own initialization shrinks the signal in every layer, so that the three codes are
    almost constant at first, and some never recover. Orthogonal weights with the gain of the
    activation (Saxe et al. 2014, He et al. 2015) and zero biases keep it.
    """
    layer = uninitialized(nn.Linear, n_in, n_out, device=spec.device, dtype=spec.dtype)
    if spec.device == "meta":
        return layer
    nn.init.orthogonal_(layer.weight, _gain(activation), generator=spec.generator)
    nn.init.zeros_(layer.bias)
    return layer


def _normalization(kind: type[nn.Module], *sizes: int, spec: BuildSpec) -> nn.Module:
    layer = uninitialized(kind, *sizes, device=spec.device, dtype=spec.dtype)
    if spec.device != "meta":
        layer.reset_parameters()
    return layer


def uninitialized(kind: type[nn.Module], *sizes: int, **settings: Any) -> Any:
    """Return a layer whose weights are not set yet.

    The constructor of `kind` would draw them from the global random state, and PyTorch's
    `skip_init` imports modules that take up to a second.
    """
    without_reset = type(kind.__name__, (kind,), {"reset_parameters": lambda _: None})
    layer = without_reset(*sizes, **settings)
    layer.__class__ = kind
    return layer


@dataclass(frozen=True)
class Cost:
    """Cost of a module for one row.

    Attributes
    ----------
    width : int
        Size of the largest input or output of a layer.
    multiply_adds : int
        Number of multiplications with additions in linear and convolution layers.
    """

    width: int
    multiply_adds: int


def cost_per_row(module: nn.Module, n_in: int) -> Cost:
    """Return the cost of `module`, measured on a row of `n_in` zeros in evaluation mode."""
    widths, products = [n_in], [0]

    def note(part: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if not isinstance(output, torch.Tensor):
            return
        widths.append(output.numel())
        weight = getattr(part, "weight", None)
        if isinstance(weight, torch.Tensor) and weight.dim() > 1:
            # A convolution uses its weights once at each position in the smaller image.
            places = min(x.shape[2:].numel() for x in (output, *inputs[:1]))
            products.append(weight.numel() * places)

    handles = [part.register_forward_hook(note) for part in module.modules()]
    training = module.training
    first = next(module.parameters(), torch.empty(0))
    try:
        with torch.no_grad():
            module.eval()(torch.zeros(1, n_in, dtype=first.dtype, device=first.device))
    finally:
        module.train(training)
        for handle in handles:
            handle.remove()
    return Cost(max(widths), sum(products))


class Encoder(nn.Module):
    """Module from X in its own units to codes."""

    def __init__(self, network: nn.Module, scaling: AnyScaling, fill: nn.Module) -> None:
        super().__init__()
        self.scaling = scaling
        self.fill = fill
        self.network = network

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """Encode X, of shape (n, n_features) and any dtype; it is scaled in its own precision."""
        inputs = self.scaling.inputs(as_floating(X))
        return self.network(self.fill(inputs.to(_dtype(self.network))))


class Decoder(nn.Module):
    """Module from codes to X in its own units.

    With `copies`, the network gets a copy of the codes, because it may change them in place.
    """

    copies = False  # for pickles of earlier versions, which lack it

    def __init__(self, network: nn.Module, scaling: AnyScaling, *, copies: bool) -> None:
        super().__init__()
        self.scaling = scaling
        self.network = network
        self.copies = copies

    def forward(self, Z: torch.Tensor) -> torch.Tensor:
        """Decode Z, of shape (n, n_components)."""
        codes = Z.to(_dtype(self.network), copy=self.copies)
        return self.scaling.inverse(self.network(codes))


class Autoencoder(nn.Module):
    """Module from X in its own units to codes and back; `copies` is that of `Decoder`."""

    copies = False  # for pickles of earlier versions, which lack it

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        scaling: AnyScaling,
        fill: nn.Module,
        *,
        copies: bool,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.scaling = scaling
        self.fill = fill
        self.copies = copies

    def forward(self, X: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the codes of X and its reconstruction."""
        encoded = Encoder(self.encoder, self.scaling, self.fill)(X)
        return encoded, Decoder(self.decoder, self.scaling, copies=self.copies)(encoded)


def as_floating(X: torch.Tensor) -> torch.Tensor:
    """Return X in a precision that can be scaled."""
    if X.is_floating_point() and X.element_size() >= 4:
        return X
    return X.to(torch.float64 if X.element_size() >= 4 else torch.float32)


def _dtype(module: nn.Module) -> torch.dtype:
    for parameter in module.parameters():  # `torch.export` of PyTorch 2.4 has no `next`
        return parameter.dtype
    return torch.float32
