from types import SimpleNamespace

import numpy as np
import pytest
import torch

from aefeatures._gradients import DenseGradient, gradient_step
from aefeatures._losses import LOSSES, resolve_loss
from aefeatures._networks import BuildSpec, DenseNetwork
from aefeatures._optimizer import Adam
from aefeatures._regularizers import Objective

NO_BATCHES = SimpleNamespace(device=torch.device("cpu"), take=None)
NO_INDEX = np.empty(0, dtype=int)


def autoencoder(hidden=(9, 5), bounded=True, dtype=torch.float64, **changes):
    settings = {"activation": "relu", "normalization": None, **changes}
    spec = BuildSpec(bounded, dtype, torch.Generator().manual_seed(0))
    parts = DenseNetwork(hidden, **settings).build(14, 2, spec=spec)
    return torch.nn.Sequential(*parts)


def step_of(model, optimizer, loss):
    objective = Objective(model, loss, [], NO_BATCHES, np.random.default_rng(0))
    return gradient_step(objective, optimizer.gradient)


@pytest.mark.parametrize("hidden", [(), (9,), (9, 5)])
@pytest.mark.parametrize("bounded", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient_by_hand_equals_autograd(hidden, bounded, dtype):
    model = autoencoder(hidden, bounded, dtype)
    optimizer = Adam(model)
    by_hand = step_of(model, optimizer, LOSSES["mse"])
    by_autograd = step_of(model, optimizer, lambda r, t: LOSSES["mse"](r, t))
    assert isinstance(by_hand, DenseGradient)
    assert not isinstance(by_autograd, DenseGradient)
    generator = torch.Generator().manual_seed(1)
    for n_rows in (7, 1, 7, 3):  # buffers are kept per size of batch
        rows = torch.rand(n_rows, 14, dtype=dtype, generator=generator)
        expected_loss = by_autograd(rows, NO_INDEX)
        expected = optimizer.gradient.clone()
        optimizer.gradient.fill_(float("nan"))
        torch.testing.assert_close(by_hand(rows, NO_INDEX), expected_loss)
        torch.testing.assert_close(optimizer.gradient, expected)
        assert expected.abs().max() > 0
        optimizer.step(1e-2)


@pytest.mark.parametrize(
    "changes",
    [{"activation": "tanh"}, {"normalization": "layer"}, {"normalization": "batch"}],
)
def test_other_networks_go_through_autograd(changes):
    assert not DenseGradient.covers(autoencoder(**changes))


@pytest.mark.parametrize("loss", sorted(set(LOSSES) - {"mse"}))
def test_other_losses_go_through_autograd(loss):
    model = autoencoder()
    optimizer = Adam(model)
    step = step_of(model, optimizer, resolve_loss(loss))
    rows = torch.rand(5, 14, dtype=torch.float64)
    summed = step(rows, NO_INDEX)
    with torch.no_grad():
        expected = float(resolve_loss(loss)(model(rows), rows).sum())
    assert float(summed) == pytest.approx(expected)
    assert optimizer.gradient.abs().max() > 0


def test_a_frozen_layer_goes_through_autograd_and_stays():
    model = autoencoder()
    frozen = model[0][0].weight.requires_grad_(False)
    assert not DenseGradient.covers(model)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = Adam(model)
    step = step_of(model, optimizer, LOSSES["mse"])
    for _ in range(3):
        step(torch.rand(5, 14, dtype=torch.float64), NO_INDEX)
        optimizer.step(1e-2)
    for parameter, old in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, old) == (parameter is frozen)
