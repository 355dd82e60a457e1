"""Gradients of the reconstruction loss: by autograd, or by hand for the default network.

Of the batches of this process, or of those of all ranks.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch.nn.modules import module as torch_module

from aefeatures._nets.losses import LOSSES, RowLoss, TableGradient, TableLoss
from aefeatures._nets.networks import DenseLayers
from aefeatures._nets.objective import Objective
from aefeatures._nets.regularizers import Denoising, NearPCA
from aefeatures._torch.ranks import Ranks

# Writes the gradient of the mean loss over rows, given with their positions, into the
# parameters' `grad`, and returns the sum of the rows' reconstruction losses.
GradientStep = Callable[[torch.Tensor, np.ndarray], torch.Tensor]

# Numbers that ranks reduce in a step behind the gradient: summed loss, rows, ranks in trouble.
N_BEHIND = 3

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
        and {type(each) for each in objective.regularizers} <= {Denoising, NearPCA}
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
    """Gradient of the mean squared error of linear layers with rectifiers, by hand.

    Autograd spends about as long on its bookkeeping and on allocating as on the
    products of a batch of 64 rows. Here every result goes into a buffer that is allocated
    once per size of batch, so that little but the products is left.

    Parameters
    ----------
    layers : DenseLayers
    objective : Objective
        Its `Denoising` and `NearPCA` take part.

    Notes
    -----
    With activations ``h[0] = x``, ``a[i] = h[i] W[i].T + b[i]`` and ``h[i+1] = f(a[i])``,
    and ``d[i] = dL / da[i]``: ``dL/dW[i] = d[i].T h[i]``, ``dL/db[i] = sum of d[i] over
    rows``, and ``dL/dh[i] = d[i] W[i]``.
    """

    def __init__(self, layers: DenseLayers, objective: Objective) -> None:
        regularizers = objective.regularizers
        noise = any(isinstance(each, Denoising) for each in regularizers)
        self._corrupted = objective.corrupted if noise else None
        self._near = [each for each in regularizers if isinstance(each, NearPCA)]
        linear: list[Any] = layers.linear
        self._code = layers.code
        self._rectified = layers.rectified
        self._sigmoid = layers.sigmoid
        self._weights = [layer.weight.data for layer in linear]
        self._transposed = [weight.t() for weight in self._weights]
        self._biases = [layer.bias.data for layer in linear]
        self._weight_gradients = [layer.weight.grad for layer in linear]
        self._bias_gradients = [layer.bias.grad for layer in linear]
        self._one = torch.ones_like(self._biases[0][0])
        loss = objective.loss
        self._table = TableGradient(loss, self._one) if isinstance(loss, TableLoss) else None
        self._fill = None if layers.fill is None else layers.fill.values
        self._widths = [layer.out_features for layer in linear]
        self._buffers: dict[int, tuple[list[torch.Tensor], list[torch.Tensor]]] = {}

    @torch.no_grad()
    def __call__(self, rows: torch.Tensor, index: np.ndarray) -> torch.Tensor:
        """Write the gradient for a batch and return the sum of its rows' losses."""
        outputs, deltas = self._buffers_for(rows)
        encoded = rows if self._corrupted is None else self._corrupted(rows, index)
        if self._fill is not None:
            missing = encoded.isnan()
            encoded = torch.where(missing, self._fill.data, encoded)
        inputs = [encoded, *outputs[:-1]]
        for i, output in enumerate(outputs):
            torch.addmm(self._biases[i], inputs[i], self._transposed[i], out=output)
            if self._rectified[i]:
                output.relu_()
        reconstruction = outputs[-1]
        if self._sigmoid:
            reconstruction.sigmoid_()

        delta = deltas[-1]
        if self._table is not None:
            summed = self._table(reconstruction, rows, delta)
        else:
            aten.mse_loss_backward.grad_input(self._one, reconstruction, rows, 1, grad_input=delta)
            # delta is now the difference times 2 / n, n the number of entries
            flat = delta.view(-1)
            summed = torch.dot(flat, flat) * (rows.numel() ** 2 / (4 * rows.shape[1]))
        if self._sigmoid:
            aten.sigmoid_backward.grad_input(delta, reconstruction, grad_input=delta)
        for i in range(len(outputs) - 1, -1, -1):
            if i == self._code:
                for near in self._near:
                    pull = near.penalty_gradient(outputs[i], rows)
                    deltas[i][:, : pull.shape[1]] += pull
            torch.mm(deltas[i].t(), inputs[i], out=self._weight_gradients[i])
            torch.sum(deltas[i], 0, out=self._bias_gradients[i])
            if i > 0:
                below = torch.mm(deltas[i], self._weights[i], out=deltas[i - 1])
                if self._rectified[i - 1]:
                    aten.threshold_backward.grad_input(below, inputs[i], 0, grad_input=below)
        if self._fill is not None:
            pulls = torch.mm(deltas[0], self._weights[0]).masked_fill_(~missing, 0)
            torch.sum(pulls, 0, out=self._fill.grad)
        return summed

    def _buffers_for(self, rows: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Outputs and deltas of all layers. An epoch has at most two sizes of batch."""
        n = len(rows)
        if n not in self._buffers:
            outputs, deltas = (
                [rows.new_empty(n, width) for width in self._widths] for _ in range(2)
            )
            self._buffers[n] = (outputs, deltas)
        return self._buffers[n]


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
