"""Encoders and decoders."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from aefeatures._scaling import Scaling

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
    """Batch normalization that also trains on a batch of one row.

    One row has no variance: it is normalized by the running statistics and leaves them as
    they are. It is the tail of an epoch where ``n_rows % batch_size == 1``.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self.training and len(input) == 1:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(input)


NORMALIZATIONS: dict[str, type[nn.Module]] = {"layer": nn.LayerNorm, "batch": BatchNorm}


def dense_network(
    n_features: int,
    n_components: int,
    *,
    hidden_layer_sizes: Sequence[int],
    activation: str,
    normalization: str | None,
    bounded: bool,
    dtype: torch.dtype,
    generator: torch.Generator,
) -> tuple[nn.Sequential, nn.Sequential]:
    """Build a dense encoder and the decoder that mirrors it, on the CPU.

    Parameters
    ----------
    bounded : bool
        Whether a sigmoid ends the decoder.
    generator : torch.Generator
        What the weights are drawn from; the global random state is not touched.

    Returns
    -------
    encoder, decoder : nn.Sequential
        ``(n, n_features) -> (n, n_components)`` and back.
    """

    def layers(widths: Sequence[int]) -> list[nn.Module]:
        modules: list[nn.Module] = []
        for i, (n_in, n_out) in enumerate(itertools.pairwise(widths)):
            last = i == len(widths) - 2
            modules.append(_linear(n_in, n_out, None if last else activation, dtype, generator))
            if not last:
                if normalization is not None:
                    modules.append(NORMALIZATIONS[normalization](n_out, device="cpu", dtype=dtype))
                modules.append(ACTIVATIONS[activation]())
        return modules

    widths = [n_features, *hidden_layer_sizes, n_components]
    encoder = nn.Sequential(*layers(widths))
    decoder = nn.Sequential(*layers(widths[::-1]), *([nn.Sigmoid()] if bounded else []))
    return encoder, decoder


def _linear(
    n_in: int, n_out: int, activation: str | None, dtype: torch.dtype, generator: torch.Generator
) -> nn.Linear:
    """A linear layer that keeps the scale of what passes through it and its activation.

    PyTorch's own start shrinks the signal at every layer, so that the three codes begin almost
    constant, and some never recover. Orthogonal weights of the gain that the activation
    asks for (Saxe et al. 2014, He et al. 2015) and zero biases do not.
    """
    # `nn.Linear` would draw its first weights from the global random state.
    layer = nn.utils.skip_init(nn.Linear, n_in, n_out, device="cpu", dtype=dtype)
    gain = {None: 1.0, "tanh": 5 / 3, "sigmoid": 4.0}.get(activation, 2**0.5)
    nn.init.orthogonal_(layer.weight, gain, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


class FillMissing(nn.Module):
    """Puts a value per column where a row is missing one (NaN).

    Parameters
    ----------
    values : tensor of shape (n_features,)
        In the network's range. They are trained where the training data misses any.
    """

    def __init__(self, values: torch.Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(values)

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """Fill X, of shape (n, n_features)."""
        return torch.where(X.isnan(), self.values, X)


def widest(module: nn.Module) -> int:
    """The most numbers that a dense `module` makes of a row on its way."""
    return max((max(p.shape) for p in module.parameters()), default=1)


class Encoder(nn.Module):
    """From X's own units to codes."""

    def __init__(self, network: nn.Module, scaling: Scaling, fill: nn.Module) -> None:
        super().__init__()
        self.scaling = scaling
        self.fill = fill
        self.network = network

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """Encode X, of shape (n, n_features) and any dtype; scaled in its own precision."""
        if not X.is_floating_point() or X.element_size() < 4:
            X = X.to(torch.float64 if X.element_size() >= 4 else torch.float32)
        return self.network(self.fill(self.scaling(X).to(_dtype(self.network))))


class Decoder(nn.Module):
    """From codes to X's own units."""

    def __init__(self, network: nn.Module, scaling: Scaling) -> None:
        super().__init__()
        self.scaling = scaling
        self.network = network

    def forward(self, Z: torch.Tensor) -> torch.Tensor:
        """Decode Z, of shape (n, n_components)."""
        return self.scaling.inverse(self.network(Z.to(_dtype(self.network))))


class Autoencoder(nn.Module):
    """From X's own units to codes and back."""

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, scaling: Scaling, fill: nn.Module
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.scaling = scaling
        self.fill = fill

    def forward(self, X: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the codes of X and its reconstruction."""
        encoded = Encoder(self.encoder, self.scaling, self.fill)(X)
        return encoded, Decoder(self.decoder, self.scaling)(encoded)


def _dtype(module: nn.Module) -> torch.dtype:
    return next(module.parameters()).dtype
