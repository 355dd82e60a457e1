"""Gradients of the reconstruction loss: by autograd, or by hand for the default network.

Of the batches of this process, or of those of all ranks.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules import module as torch_module

from aefeatures._nets.contrastive import NeighborPreserving
from aefeatures._nets.losses import LOSSES, RowLoss, TableGradient, TableLoss
from aefeatures._nets.networks import DenseLayers, Projection
from aefeatures._nets.objective import Objective
from aefeatures._nets.regularizers import Denoising, NearPCA, Sparse
from aefeatures._torch.ranks import Ranks

# Writes the gradient of the mean loss over rows, given with their positions, into the
# parameters' `grad`, and returns the sum of the rows' reconstruction losses.
GradientStep = Callable[[torch.Tensor, np.ndarray], torch.Tensor]
Call = Callable[[], object]

# Numbers that ranks reduce in a step behind the gradient: summed loss, rows, ranks in trouble.
N_BEHIND = 3

# Regularizers whose gradient is written out.
WRITTEN = {Denoising, NearPCA, NeighborPreserving, Sparse}

# Where PyTorch keeps the hooks of all modules.
_GLOBAL_HOOKS = (
    "_global_backward_hooks",
    "_global_backward_pre_hooks",
    "_global_forward_hooks",
    "_global_forward_pre_hooks",
)

aten = torch.ops.aten


def own_steps(
    step_gradient: GradientStep,
    batches: Iterable[tuple[torch.Tensor, np.ndarray]],
    stopping: threading.Event,
) -> Iterator[tuple[int, torch.Tensor]]:
    """Compute the gradient of one batch after the other, until `stopping` is set.

    Yields the number of rows of each batch, and the sum of their losses.
    """
    for rows, index in batches:
        if stopping.is_set():
            return
        yield len(rows), step_gradient(rows, index)


def joint_steps(
    step_gradient: GradientStep,
    batches: Iterable[tuple[torch.Tensor, np.ndarray]],
    stopping: threading.Event,
    buffer: torch.Tensor,
    ranks: Ranks,
    errors: list[BaseException],
) -> Iterator[tuple[int, torch.Tensor]]:
    """Do the same with the batches of all ranks, each row of which weighs the same.

    The gradient is the front of `buffer`, which is reduced as a whole in one call. The result is
    that of DistributedDataParallel. A rank that has no batches left takes part until no rank has
    any. A rank that meets an error tells the others in the same step, and all raise. This includes
    an error that the caller met after the last step and put into `errors`.
    """
    gradient, behind = buffer[:-N_BEHIND], buffer[-N_BEHIND:]
    remaining = itertools.chain(batches, itertools.repeat(None))
    while True:
        error = errors.pop() if errors else None
        if error is None and (stopping.is_set() or ranks.interrupted):
            error = KeyboardInterrupt()
        batch = None
        try:
            if error is None and (batch := next(remaining)) is not None:
                rows, index = batch
                behind[0] = step_gradient(rows, index)
                gradient *= len(rows)
                behind[1], behind[2] = len(rows), 0
        except BaseException as raised:  # noqa: BLE001 - raised below, when all know of it
            error = raised
        if error is not None or batch is None:
            buffer.zero_()
            behind[2] = error is not None
        ranks.sum_(buffer)
        _, n_rows, n_in_trouble = behind.tolist()
        if error is not None:
            ranks.fail(error)
            raise error
        if n_in_trouble:
            ranks.gather(None)
        if n_rows == 0:
            return
        gradient /= n_rows
        yield int(n_rows), behind[0]


def gradient_step(
    objective: Objective, gradient: torch.Tensor, layers: DenseLayers | None = None
) -> GradientStep:
    """Return the fastest way to the gradient of `objective`.

    Parameters
    ----------
    objective : Objective
        Of a network whose parameters' `grad` are views of `gradient`.
    gradient : tensor of shape (n_parameters,)
    layers : DenseLayers, optional
        Layers of the network, if the gradient of its squared error is the one written out here, as
        its builder declares.
    """
    if (
        layers is not None
        and not objective.mixed
        and {type(each) for each in objective.regularizers} <= WRITTEN
        and _is_squared_error(objective.loss)
        and (layers.fill is None or isinstance(objective.loss, TableLoss))
        and not _is_watched(layers)
    ):
        return DenseGradient(layers, objective)

    def by_autograd(rows: torch.Tensor, index: np.ndarray) -> torch.Tensor:
        gradient.zero_()
        with objective.draws.borrowed():
            try:
                summed, total = objective(rows, index)
            except ValueError as error:
                if len(rows) == 1 and "more than 1 value per channel" in str(error):
                    raise ValueError(
                        "The network normalizes over the rows of a batch, and one row has no "
                        "variance. "
                        + (
                            "There is one row to train on: give more rows, or use a normalization "
                            "that takes one, such as nn.LayerNorm."
                            if objective.batches.n_rows == 1
                            else "Set batch_size to 2 or more, got batch_size=1."
                        )
                    ) from error
                raise
            if not total.requires_grad:
                raise ValueError(
                    "The loss depends on no weight that is trained: network or loss cut the "
                    "gradient, as by detach(), no_grad() or NumPy. Compute with tensors alone, or "
                    "thaw weights by requires_grad_()."
                )
            total.backward()
        return summed

    return by_autograd


class DenseGradient:
    """Gradient of the mean squared error of a dense network, by hand.

    Autograd spends about as long on its bookkeeping and on allocating as on the products of a batch
    of 64 rows. Here the calls of a step are listed once per size of batch, with the buffers that
    they write to, so that little but the products is left.

    Parameters
    ----------
    layers : DenseLayers
    objective : Objective
        Its regularizers take part, which are among `WRITTEN`.
    """

    def __init__(self, layers: DenseLayers, objective: Objective) -> None:
        self._layers, self._objective = layers, objective
        self._one = torch.ones_like(layers.trained[0].bias[0])
        loss = objective.loss
        self._table = TableGradient(loss, self._one) if isinstance(loss, TableLoss) else None
        self._fill = None if layers.fill is None else layers.fill.values
        self._steps: dict[int, _Step] = {}

    @torch.no_grad()
    def __call__(self, rows: torch.Tensor, index: np.ndarray) -> torch.Tensor:
        """Write the gradient for a batch and return the sum of its rows' losses."""
        objective = self._objective
        batch, partners = objective.batch(rows, index) if objective.regularizers else (None, [])
        encoded = rows if batch is None else batch.inputs
        partner_inputs = [partner for partner in partners if partner is not None]
        if partner_inputs:
            encoded = torch.cat([encoded, *partner_inputs])
        step = self._steps.get(len(rows))
        if step is None:  # an epoch has at most two sizes of batch
            step = _Step(self._layers, encoded, objective.n_decoded(len(rows)))
            self._steps[len(rows)] = step
        if self._fill is None:
            step.inputs.copy_(encoded)
        else:
            missing = encoded.isnan()
            torch.where(missing, self._fill.data, encoded, out=step.inputs)
        step.encoder.forward()
        step.decoder.forward()
        summed = self._decoder_gradient(step, rows)
        step.decoder.backward()
        if batch is not None:
            step.gradient_beyond.zero_()
            sizes = [len(rows), *map(len, partner_inputs)]
            batch.codes, *codes = step.encoder.outputs.split(sizes)
            gradient, *gradients = step.encoder.gradient.split(sizes)
            for regularizer, partner in zip(objective.regularizers, partners, strict=True):
                own, pull = (None, None) if partner is None else (codes.pop(0), gradients.pop(0))
                batch.partner_codes = own
                regularizer._add_gradient(batch, gradient, pull)
        step.encoder.backward()
        if self._fill is not None:
            torch.sum(step.input_gradient.masked_fill_(~missing, 0), 0, out=self._fill.grad)
        return summed

    def _decoder_gradient(self, step: _Step, rows: torch.Tensor) -> torch.Tensor:
        """Write the gradient of the decoder's outputs, and return the sum of the rows' losses."""
        outputs, delta, flat = step.decoder.outputs, step.decoder.gradient, step.differences
        n_rows, n_decoded = len(rows), len(outputs)
        if n_decoded < n_rows:
            rows = rows[:n_decoded]
        if self._table is not None:
            summed = self._table(outputs, rows, delta)
        else:
            aten.mse_loss_backward.grad_input(self._one, outputs, rows, 1, grad_input=delta)
            # delta is now the difference times 2 / n, n the number of entries
            summed = torch.dot(flat, flat, out=step.summed)
            summed *= rows.numel() ** 2 / (4 * rows.shape[1])
        return summed if n_decoded == n_rows else summed * (n_rows / n_decoded)


class _Step:
    """Calls of a step on batches of one size, and their buffers.

    Parameters
    ----------
    layers : DenseLayers
    encoded : tensor of shape (n_encoded, n_inputs)
        Inputs of the encoder, of which `inputs` is a buffer.
    n_decoded : int
        Number of the first codes that are decoded.
    """

    def __init__(self, layers: DenseLayers, encoded: torch.Tensor, n_decoded: int) -> None:
        self.inputs = torch.empty_like(encoded)
        self.input_gradient: Any = None if layers.fill is None else torch.empty_like(encoded)
        self.encoder = _Part(layers.encoder, self.inputs, self.input_gradient)
        codes, gradient = self.encoder.outputs, self.encoder.gradient
        self.decoder = _Part(layers.decoder, codes[:n_decoded], gradient[:n_decoded])
        self.gradient_beyond = gradient[n_decoded:]
        self.differences = self.decoder.gradient.view(-1)
        self.summed = encoded.new_empty(())


class _Part:
    """Calls that compute layers one after the other, and their gradients, by the chain rule.

    Parameters
    ----------
    layers : list of nn.Module
    inputs : tensor of shape (n, n_inputs)
        Buffer that `forward` reads.
    input_gradient : tensor of shape (n, n_inputs) or None
        Buffer that `backward` writes to, if the gradient of the inputs is needed.

    Attributes
    ----------
    outputs : tensor of shape (n, n_outputs)
        Buffer that `forward` writes to.
    gradient : tensor of shape (n, n_outputs)
        Buffer with the gradient of the outputs, that `backward` reads.
    """

    def __init__(
        self, layers: list[nn.Module], inputs: torch.Tensor, input_gradient: torch.Tensor | None
    ) -> None:
        self._forward: list[Call] = []
        self._backward: list[Call] = []
        self.outputs = inputs
        self.gradient: Any = input_gradient  # a tensor once there is a layer to train
        for layer in layers:
            if isinstance(layer, (nn.Linear, Projection)):
                self._append_linear(layer)
            elif isinstance(layer, nn.LayerNorm):
                self._append_normalization(layer)
            else:
                self._append_activation(layer)

    def forward(self) -> None:
        """Compute `outputs`."""
        for call in self._forward:
            call()

    def backward(self) -> None:
        """Write the gradients of weights and inputs."""
        for call in self._backward:
            call()

    def _next(self, width: int) -> tuple[torch.Tensor, Any]:
        """Replace `outputs` and `gradient` by those of a layer more, and return the old ones."""
        before = self.outputs, self.gradient
        self.outputs = self.outputs.new_empty(len(self.outputs), width)
        self.gradient = torch.empty_like(self.outputs)
        return before

    def _append_linear(self, layer: Any) -> None:
        inputs, input_gradient = self._next(len(layer.bias))
        weight, bias, delta = layer.weight.data, layer.bias.data, self.gradient
        self._forward.append(partial(torch.addmm, bias, inputs, weight.t(), out=self.outputs))
        calls = []
        if isinstance(layer, nn.Linear):
            calls.append(partial(torch.mm, delta.t(), inputs, out=layer.weight.grad))
            calls.append(partial(torch.sum, delta, 0, out=layer.bias.grad))
        if input_gradient is not None:
            calls.append(partial(torch.mm, delta, weight, out=input_gradient))
        self._backward[:0] = calls
        if isinstance(layer, Projection) and input_gradient is None:
            self.gradient = None

    def _append_normalization(self, layer: Any) -> None:
        inputs, input_gradient = self._next(self.outputs.shape[1])
        normalization = _Normalization(layer)
        self._forward.append(partial(normalization.forward, inputs, self.outputs))
        calls = partial(normalization.backward, self.gradient, inputs, input_gradient)
        self._backward.insert(0, calls)

    def _append_activation(self, layer: nn.Module) -> None:
        if type(layer) in _BY_OUTPUTS:  # which replace the inputs, and so do their gradients
            forward, backward = _BY_OUTPUTS[type(layer)](layer, self.outputs, self.gradient)
        else:
            inputs, input_gradient = self._next(self.outputs.shape[1])
            call = _BY_INPUTS[type(layer)]
            forward, backward = call(inputs, input_gradient, self.outputs, self.gradient)
        self._forward.append(forward)
        self._backward.insert(0, backward)


class _Normalization:
    """Layer normalization, whose statistics are kept for its gradient."""

    def __init__(self, layer: nn.LayerNorm) -> None:
        self._layer = layer

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """Normalize x into y."""
        layer: Any = self._layer
        shape = layer.normalized_shape
        out, *self._statistics = torch.native_layer_norm(
            x, shape, layer.weight, layer.bias, layer.eps
        )
        y.copy_(out)

    def backward(self, d: torch.Tensor, x: torch.Tensor, input_gradient: torch.Tensor) -> None:
        """Write the gradients of x, weight and bias, with d that of the result."""
        layer: Any = self._layer
        found = aten.native_layer_norm_backward(
            d, x, layer.normalized_shape, *self._statistics, layer.weight, layer.bias, [True] * 3
        )
        targets = (input_gradient, layer.weight.grad, layer.bias.grad)
        for target, gradient in zip(targets, found, strict=True):
            target.copy_(gradient)


# Calls that compute an activation in place, and its gradient from that of its outputs.
_BY_OUTPUTS: dict[type[nn.Module], Callable[..., tuple[Call, Call]]] = {
    nn.ReLU: lambda _, y, d: (
        partial(torch.relu_, y),
        partial(aten.threshold_backward.grad_input, d, y, 0, grad_input=d),
    ),
    nn.LeakyReLU: lambda layer, y, d: (
        partial(F.leaky_relu_, y, layer.negative_slope),
        partial(
            aten.leaky_relu_backward.grad_input, d, y, layer.negative_slope, True, grad_input=d
        ),
    ),
    nn.ELU: lambda layer, y, d: (
        partial(F.elu_, y, layer.alpha),
        partial(aten.elu_backward.grad_input, d, layer.alpha, 1, 1, True, y, grad_input=d),
    ),
    nn.Tanh: lambda _, y, d: (
        partial(torch.tanh_, y),
        partial(aten.tanh_backward.grad_input, d, y, grad_input=d),
    ),
    nn.Sigmoid: lambda _, y, d: (
        partial(torch.sigmoid_, y),
        partial(aten.sigmoid_backward.grad_input, d, y, grad_input=d),
    ),
}

# The same for activations whose gradient needs the inputs, which are therefore kept.
_BY_INPUTS: dict[type[nn.Module], Callable[..., tuple[Call, Call]]] = {
    nn.GELU: lambda x, dx, y, d: (
        partial(aten.gelu.out, x, out=y),
        partial(aten.gelu_backward.grad_input, d, x, grad_input=dx),
    ),
    nn.SiLU: lambda x, dx, y, d: (
        partial(aten.silu.out, x, out=y),
        partial(aten.silu_backward.grad_input, d, x, grad_input=dx),
    ),
}


def _is_squared_error(loss: RowLoss) -> bool:
    """Whether the gradient of a loss is written out here."""
    if isinstance(loss, TableLoss):
        return loss.is_squared_error
    return loss is LOSSES["mse"]


def _is_watched(layers: DenseLayers) -> bool:
    """Whether weights are frozen, or hooks wait for what autograd alone would give them."""
    if any(map(vars(torch_module).get, _GLOBAL_HOOKS)):
        return True
    return not all(
        parameter.requires_grad
        and not parameter._backward_hooks
        and not parameter._post_accumulate_grad_hooks
        for parameter in layers.parameters()
    )
