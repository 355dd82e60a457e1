"""Gradients of the reconstruction loss: by autograd, or by hand for dense networks.

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
from aefeatures._train.thread import Workers

# Writes the gradient of the mean loss over rows, given with their positions, into the
# parameters' `grad`, and returns the sum of the rows' reconstruction losses.
GradientStep = Callable[[torch.Tensor, np.ndarray], torch.Tensor]
Call = Callable[[], object]

# Numbers that ranks reduce in a step behind the gradient: summed loss, rows, ranks in trouble.
N_BEHIND = 3

# Regularizers whose gradient is written out.
WRITTEN = {Denoising, NearPCA, NeighborPreserving, Sparse}

# Rows of a batch for each thread that shares it, at least, and number of these threads, at most:
# they wait for the lock of the interpreter between the calls, and their gradients are added.
_LEAST_ROWS = 64
_MOST_PARTS = 8

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
        return DenseGradient(layers, objective, gradient)

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
    gradient : tensor of shape (n_parameters,)
        Vector of which the parameters' `grad` are views.

    Attributes
    ----------
    workers : Workers
        Threads that share the rows of a batch.
    """

    def __init__(self, layers: DenseLayers, objective: Objective, gradient: torch.Tensor) -> None:
        self._layers, self._objective, self._gradient = layers, objective, gradient
        like = layers.trained[0].bias
        loss = objective.loss
        self._table = TableGradient(loss, like[0]) if isinstance(loss, TableLoss) else None
        self._fill = None if layers.fill is None else layers.fill.values
        self._steps: dict[int, _Step] = {}
        self.workers = Workers(0)

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
            step = self._new_step([len(rows), *map(len, partner_inputs)], encoded)
        if self._fill is None:
            step.inputs.copy_(encoded)
        else:
            missing = encoded.isnan()
            torch.where(missing, self._fill.data, encoded, out=step.inputs)
        self.workers.run([part.forward for part in step.encoders])
        self.workers.run([partial(self._decode, *part, rows) for part in step.decoders])
        if batch is not None:
            if len(step.gradient_beyond):
                step.gradient_beyond.zero_()
            (batch.codes, gradient), *of_partners = step.codes_and_gradients
            for regularizer, partner in zip(objective.regularizers, partners, strict=True):
                own, pull = (None, None) if partner is None else of_partners.pop(0)
                batch.partner_codes = own
                regularizer._add_gradient(batch, gradient, pull)
        self.workers.run([part.backward for part in step.encoders])
        for others in step.other_gradients:
            self._gradient += others
        if self._fill is not None:
            torch.sum(step.input_gradient.masked_fill_(~missing, 0), 0, out=self._fill.grad)
        return step.summed(len(rows))

    def _new_step(self, sizes: list[int], encoded: torch.Tensor) -> _Step:
        n_rows = sizes[0]
        n_parts = min(self.workers.n_threads, _MOST_PARTS, max(1, n_rows // _LEAST_ROWS))
        n_decoded = self._objective.n_decoded(n_rows)
        step = _Step(self._layers, encoded, sizes, n_decoded, self._gradient, n_parts)
        self._steps[n_rows] = step
        return step

    def _decode(self, decoder: _Part, loss: _Loss, rows: torch.Tensor) -> None:
        decoder.forward()
        rows = rows[loss.rows]
        if self._table is None:
            loss.write_gradient(decoder.outputs, rows, decoder.gradient)
        else:
            loss.summed.copy_(self._table(decoder.outputs, rows, decoder.gradient))
            if loss.share < 1:
                decoder.gradient *= loss.share
        decoder.backward()


class _Step:
    """Calls of a step on batches of one size, and their buffers.

    Parameters
    ----------
    layers : DenseLayers
    encoded : tensor of shape (n_encoded, n_inputs)
        Inputs of the encoder, of which `inputs` is a buffer.
    sizes : list of int
        Numbers of rows that are encoded: of the batch, and of the partners of each regularizer.
    n_decoded : int
        Number of the first codes that are decoded.
    gradient : tensor of shape (n_parameters,)
        Gradient that the first part of the rows writes to. Each other part has a vector of its own.
    n_parts : int
        Number of parts of the rows that are computed side by side.
    """

    def __init__(
        self,
        layers: DenseLayers,
        encoded: torch.Tensor,
        sizes: list[int],
        n_decoded: int,
        gradient: torch.Tensor,
        n_parts: int,
    ) -> None:
        n_encoded = len(encoded)
        self.inputs = torch.empty_like(encoded)
        self.input_gradient: Any = None  # of values that are filled in
        if layers.fill is not None:
            self.input_gradient = torch.empty_like(encoded)
        last: Any = layers.encoder[-1]
        self.codes = encoded.new_empty(n_encoded, len(last.bias))
        self.gradient = torch.empty_like(self.codes)
        self.gradient_beyond = self.gradient[n_decoded:]
        self.codes_and_gradients = [
            *zip(self.codes.split(sizes), self.gradient.split(sizes), strict=True)
        ]
        self.other_gradients = [torch.zeros_like(gradient) for _ in range(n_parts - 1)]
        self.encoders, self.decoders = [], []
        for i, own in enumerate([gradient, *self.other_gradients]):
            views = _Views(gradient, own)
            rows = _slice(n_encoded, i, n_parts)
            inputs = self.inputs[rows]
            input_gradient = None if self.input_gradient is None else self.input_gradient[rows]
            codes = self.codes[rows], self.gradient[rows]
            self.encoders.append(_Part(layers.encoder, views, (inputs, input_gradient), codes))
            rows = _slice(n_decoded, i, n_parts)
            decoder = _Part(layers.decoder, views, (self.codes[rows], self.gradient[rows]))
            self.decoders.append((decoder, _Loss(decoder.gradient, rows, n_decoded)))

    def summed(self, n_rows: int) -> torch.Tensor:
        """Return the sum of the losses of `n_rows` rows, from those that were decoded."""
        (_, first), *others = self.decoders
        for _, loss in others:
            first.summed += loss.summed
        if first.n_decoded < n_rows:
            first.summed *= n_rows / first.n_decoded
        return first.summed


def _slice(n: int, i: int, n_parts: int) -> slice:
    """Return the rows of a part."""
    return slice(i * n // n_parts, (i + 1) * n // n_parts)


class _Views:
    """The parts of a vector, one for each parameter, that take the places of its `grad`."""

    def __init__(self, gradient: torch.Tensor, vector: torch.Tensor) -> None:
        self._first, self._vector = gradient.storage_offset(), vector

    def of(self, parameter: Any) -> torch.Tensor:
        """Return the part for a parameter."""
        start = parameter.grad.storage_offset() - self._first
        return self._vector[start : start + parameter.numel()].view(parameter.shape)


class _Loss:
    """Squared error of a part of the rows: its sum, and its part of the mean's gradient."""

    def __init__(self, gradient: torch.Tensor, rows: slice, n_decoded: int) -> None:
        self.rows, self.n_decoded = rows, n_decoded
        self.share = len(gradient) / n_decoded
        self.summed = gradient.new_empty(())
        n_entries = n_decoded * gradient.shape[1]
        self._flat = gradient.view(-1)
        self._factor = gradient.new_full((), 2 / n_entries)
        self._of_squares = gradient.new_full((), 1 / gradient.shape[1])

    def write_gradient(
        self, outputs: torch.Tensor, rows: torch.Tensor, gradient: torch.Tensor
    ) -> None:
        """Write the gradient of the outputs."""
        torch.sub(outputs, rows, out=gradient)
        torch.dot(self._flat, self._flat, out=self.summed)
        self.summed *= self._of_squares
        gradient *= self._factor


class _Part:
    """Calls that compute layers one after the other, and their gradients, by the chain rule.

    Parameters
    ----------
    layers : list of nn.Module
    views : _Views
        Gradients of the parameters, that `backward` writes to.
    inputs : pair of tensors of shape (n, n_inputs)
        Buffer that `forward` reads, and buffer for its gradient, that `backward` writes to; None
        if that gradient is not needed.
    outputs : pair of tensors of shape (n, n_outputs), optional
        Buffers of `outputs` and `gradient`, if the last layer is linear.

    Attributes
    ----------
    outputs : tensor of shape (n, n_outputs)
        Buffer that `forward` writes to.
    gradient : tensor of shape (n, n_outputs)
        Buffer with the gradient of the outputs, that `backward` reads.
    """

    def __init__(
        self,
        layers: list[nn.Module],
        views: _Views,
        inputs: tuple[torch.Tensor, torch.Tensor | None],
        outputs: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> None:
        self._forward: list[Call] = []
        self._backward: list[Call] = []
        self._views = views
        self.outputs: torch.Tensor
        self.gradient: Any  # a tensor once there is a layer to train
        self.outputs, self.gradient = inputs
        for layer in layers:
            if isinstance(layer, (nn.Linear, Projection)):
                self._append_linear(layer, outputs if layer is layers[-1] else None)
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

    def _next(
        self, width: int, given: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, Any]:
        """Replace `outputs` and `gradient` by those of a layer more, and return the old ones."""
        before = self.outputs, self.gradient
        outputs = self.outputs.new_empty(len(self.outputs), width)
        self.outputs, self.gradient = given or (outputs, torch.empty_like(outputs))
        return before

    def _append_linear(self, layer: Any, outputs: tuple[torch.Tensor, torch.Tensor] | None) -> None:
        inputs, input_gradient = self._next(len(layer.bias), outputs)
        weight, bias, delta = layer.weight.data, layer.bias.data, self.gradient
        self._forward.append(partial(torch.addmm, bias, inputs, weight.t(), out=self.outputs))
        calls = []
        if isinstance(layer, nn.Linear):
            of_weight, of_bias = map(self._views.of, (layer.weight, layer.bias))
            calls.append(partial(torch.mm, delta.t(), inputs, out=of_weight))
            # Faster than `torch.sum`.
            calls.append(partial(torch.mv, delta.t(), delta.new_ones(len(delta)), out=of_bias))
        if input_gradient is not None:
            calls.append(partial(torch.mm, delta, weight, out=input_gradient))
        self._backward[:0] = calls
        if isinstance(layer, Projection) and input_gradient is None:
            self.gradient = None

    def _append_normalization(self, layer: Any) -> None:
        inputs, input_gradient = self._next(self.outputs.shape[1])
        targets = (input_gradient, *map(self._views.of, (layer.weight, layer.bias)))
        normalization = _Normalization(layer)
        self._forward.append(partial(normalization.forward, inputs, self.outputs))
        self._backward.insert(0, partial(normalization.backward, self.gradient, inputs, targets))

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

    def __init__(self, layer: Any) -> None:
        self._shape, self._eps = layer.normalized_shape, layer.eps
        self._parameters = (layer.weight.data, layer.bias.data)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """Normalize x into y."""
        result, *self._statistics = torch.native_layer_norm(
            x, self._shape, *self._parameters, self._eps
        )
        y.copy_(result)

    def backward(self, d: torch.Tensor, x: torch.Tensor, targets: Iterable[torch.Tensor]) -> None:
        """Write the gradients of x, weight and bias, with d that of the result."""
        gradients = aten.native_layer_norm_backward(
            d, x, self._shape, *self._statistics, *self._parameters, [True] * 3
        )
        for target, gradient in zip(targets, gradients, strict=True):
            target.copy_(gradient)


def _relu_backward(d: torch.Tensor, y: torch.Tensor, signs: torch.Tensor) -> None:
    """Set the gradient d to 0 where the output y is; faster than the call of `aten`."""
    torch.sign(y, out=signs)
    d *= signs


# Calls that compute an activation in place, and its gradient from that of its outputs.
_BY_OUTPUTS: dict[type[nn.Module], Callable[..., tuple[Call, Call]]] = {
    nn.ReLU: lambda _, y, d: (
        partial(torch.relu_, y),
        partial(_relu_backward, d, y, torch.empty_like(y)),
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
