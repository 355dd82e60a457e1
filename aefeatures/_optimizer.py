"""Adam on one flat vector of parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8


@dataclass
class AdamState:
    """Adam's moments, of shape (n_parameters,), and its number of steps."""

    mean: torch.Tensor
    variance: torch.Tensor
    n_steps: torch.Tensor

    def tensors(self) -> list[torch.Tensor]:
        """All of it."""
        return [self.mean, self.variance, self.n_steps]

    def copy_to(self, device: torch.device) -> AdamState:
        """Return a copy on `device` that shares nothing with this one."""
        return AdamState(*(tensor.to(device, copy=True) for tensor in self.tensors()))


class Adam:
    """Adam with decoupled weight decay (Kingma & Ba 2015, Loshchilov & Hutter 2019).

    While it is in use, all parameters of the module are views of one vector and their
    gradients of another, so that a step is one call instead of one for each parameter
    (and PyTorch's optimizer classes, whose import takes a second, are not needed). `release`
    gives each parameter its own memory again. The gradient is the front of `buffer`, which has
    `room` for so many numbers more.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        weight_decay: float = 0.0,
        state: AdamState | None = None,
        room: int = 0,
    ) -> None:
        self._parameters = list(module.parameters())
        self._weight_decay = weight_decay
        with torch.no_grad():
            self.vector = torch.cat([p.detach().reshape(-1) for p in self._parameters])
        self.buffer = self.vector.new_zeros(len(self.vector) + room)
        self.gradient = self.buffer[: len(self.vector)]
        views = _split_like(self.vector, self._parameters)
        gradients = _split_like(self.gradient, self._parameters)
        for parameter, view, gradient in zip(self._parameters, views, gradients, strict=True):
            parameter.data = view
            parameter.grad = gradient
        self.state = (
            AdamState(
                torch.zeros_like(self.vector),
                torch.zeros_like(self.vector),
                torch.zeros((), device=self.vector.device),
            )
            if state is None
            else state.copy_to(self.vector.device)
        )

    def step(self, learning_rate: float) -> None:
        """Move the parameters against the gradient."""
        state = self.state
        state.n_steps += 1
        if self.vector.device.type not in ("cpu", "cuda"):
            self._step_unfused(learning_rate)
            return
        torch._fused_adamw_(
            [self.vector],
            [self.gradient],
            [state.mean],
            [state.variance],
            [],
            [state.n_steps],
            lr=learning_rate,
            beta1=_BETA1,
            beta2=_BETA2,
            weight_decay=self._weight_decay,
            eps=_EPSILON,
            amsgrad=False,
            maximize=False,
        )

    def _step_unfused(self, learning_rate: float) -> None:
        """Do the same on devices without the fused kernel."""
        state, gradient = self.state, self.gradient
        self.vector.mul_(1 - learning_rate * self._weight_decay)
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
