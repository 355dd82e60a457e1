"""Adam on one flat vector of parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8

# Moments of this size move a parameter by less than 1e-22 times the learning rate. A first moment
# needs 173 steps without gradient to decay from here into the denormal range, below 1.2e-38.
_TINY, _DROP_EVERY = 1e-30, 100


@dataclass
class AdamState:
    """Adam's moments, of shape (n_trained,), and its number of steps.

    `trained` says of each of the module's parameters whether the moments are of it.
    """

    mean: torch.Tensor
    variance: torch.Tensor
    n_steps: torch.Tensor
    trained: list[bool]

    def tensors(self) -> list[torch.Tensor]:
        """All of it."""
        return [self.mean, self.variance, self.n_steps]

    def copy_to(self, device: torch.device) -> AdamState:
        """Return a copy on `device` that shares nothing with this one."""
        mean, variance, n_steps = (tensor.to(device, copy=True) for tensor in self.tensors())
        return AdamState(mean, variance, n_steps, self.trained)


class Adam:
    """Adam with decoupled weight decay (Kingma & Ba 2015, Loshchilov & Hutter 2019).

    While it is in use, all parameters of the module that require a gradient are views of one
    vector and their gradients of another, so that a step is one call instead of one for each
    parameter (and PyTorch's optimizer classes, whose import takes a second, are not needed).
    `release` gives each parameter its own memory again. The gradient is the front of `buffer`,
    which has `n_behind` other numbers behind it. Frozen parameters are left alone.

    Parameters
    ----------
    undecayed : sequence of nn.Parameter
        Parameters of the module that `weight_decay` does not move.
    state : AdamState, optional
        Of the same module; not used if other parameters are frozen now.

    Raises
    ------
    ValueError
        If the module has no parameters to train.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        weight_decay: float = 0.0,
        undecayed: Sequence[nn.Parameter] = (),
        state: AdamState | None = None,
        n_behind: int = 0,
    ) -> None:
        trained = [parameter.requires_grad for parameter in module.parameters()]
        if not any(trained):
            raise ValueError(
                f"network has no weights to train: it has {len(trained)} parameters, none of "
                "which requires a gradient. Give it a layer with weights, or thaw one by "
                "requires_grad_()."
            )
        undecayed = [p for p in undecayed if p.requires_grad]
        kept = {id(parameter) for parameter in undecayed}
        decayed = [p for p in module.parameters() if p.requires_grad and id(p) not in kept]
        self._parameters = [*undecayed, *decayed]
        with torch.no_grad():
            self.vector = torch.cat([p.detach().reshape(-1) for p in self._parameters])
        self.buffer = self.vector.new_zeros(len(self.vector) + n_behind)
        self.gradient = self.buffer[: len(self.vector)]
        views = _split_like(self.vector, self._parameters)
        gradients = _split_like(self.gradient, self._parameters)
        for parameter, view, gradient in zip(self._parameters, views, gradients, strict=True):
            parameter.data = view
            parameter.grad = gradient
        if state is None or state.trained != trained:
            mean, variance = torch.zeros_like(self.vector), torch.zeros_like(self.vector)
            self.state = AdamState(
                mean, variance, torch.zeros((), device=self.vector.device), trained
            )
        else:
            self.state = state.copy_to(self.vector.device)
        self._one = torch.ones_like(self.state.n_steps)  # adding a number of Python's would copy it
        tensors = [self.vector, self.gradient, self.state.mean, self.state.variance]
        self._parts = [(tensors, weight_decay)]  # what a step moves, and the decay of it
        if undecayed and weight_decay:
            n = sum(parameter.numel() for parameter in undecayed)
            self._parts = [
                ([tensor[:n] for tensor in tensors], 0.0),
                ([tensor[n:] for tensor in tensors], weight_decay),
            ]

    def step(self, learning_rate: float, *, drop_tiny: bool = False) -> None:
        """Move the parameters against the gradient.

        Parameters
        ----------
        learning_rate : float
        drop_tiny : bool, default=False
            Whether to set tiny moments on a CPU to zero every 100 steps. Otherwise they decay into
            denormal numbers, on which a CPU computes slowly unless it flushes them to zero.
        """
        state = self.state
        state.n_steps.add_(self._one)
        cpu = self.vector.device.type == "cpu"
        if drop_tiny and cpu and int(state.n_steps) % _DROP_EVERY == 0:
            for moment in (state.mean, state.variance):
                moment.copy_(F.hardshrink(moment, _TINY))
        if self.vector.device.type not in ("cpu", "cuda"):
            self._step_unfused(learning_rate)
            return
        for (vector, gradient, mean, variance), weight_decay in self._parts:
            torch._fused_adamw_(
                [vector],
                [gradient],
                [mean],
                [variance],
                [],
                [state.n_steps],
                lr=learning_rate,
                beta1=_BETA1,
                beta2=_BETA2,
                weight_decay=weight_decay,
                eps=_EPSILON,
                amsgrad=False,
                maximize=False,
            )

    def _step_unfused(self, learning_rate: float) -> None:
        """Do the same on devices without the fused kernel."""
        state, gradient = self.state, self.gradient
        for (vector, *_), weight_decay in self._parts:
            vector.mul_(1 - learning_rate * weight_decay)
        state.mean.lerp_(gradient, 1 - _BETA1)
        state.variance.mul_(_BETA2).addcmul_(gradient, gradient, value=1 - _BETA2)
        # 1 - beta**n_steps, without the cancellation that float32 would suffer
        bias1, bias2 = (-torch.expm1(state.n_steps * math.log(b)) for b in (_BETA1, _BETA2))
        spread = (state.variance / bias2).sqrt_().add_(_EPSILON)
        self.vector.sub_(learning_rate * state.mean / bias1 / spread)

    def release(self) -> None:
        """Give each parameter memory of its own, without gradient."""
        for parameter in self._parameters:
            parameter.data = parameter.data.clone()
            parameter.grad = None


def _split_like(vector: torch.Tensor, parameters: list[nn.Parameter]) -> list[torch.Tensor]:
    parts = vector.split([p.numel() for p in parameters])
    return [part.view(p.shape) for part, p in zip(parts, parameters, strict=True)]
