import copy

import pytest
import torch

from aefeatures._networks import BuildSpec, DenseNetwork
from aefeatures._optimizer import Adam


def model():
    spec = BuildSpec(False, torch.float64, torch.Generator().manual_seed(0))
    parts = DenseNetwork((4,), "tanh").build(6, 2, spec=spec)
    return torch.nn.Sequential(*parts)


def batches():
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(5, 6, dtype=torch.float64, generator=generator) for _ in range(20)]


def loss(module, rows):
    return ((module(rows) - rows) ** 2).mean()


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adam_equals_pytorchs(fused, weight_decay):
    ours = model()
    theirs = copy.deepcopy(ours)
    optimizer = Adam(ours, weight_decay=weight_decay)
    reference = torch.optim.AdamW(theirs.parameters(), lr=1e-2, weight_decay=weight_decay)
    for rows in batches():
        optimizer.gradient.zero_()
        loss(ours, rows).backward()
        if fused:
            optimizer.step(1e-2)
        else:
            optimizer.state.n_steps += 1
            optimizer._step_unfused(1e-2)
        reference.zero_grad()
        loss(theirs, rows).backward()
        reference.step()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_release_gives_each_parameter_its_own_memory():
    module = model()
    optimizer = Adam(module)
    optimizer.release()
    for parameter in module.parameters():
        assert parameter.grad is None
        assert parameter.untyped_storage().nbytes() == parameter.numel() * 8


def test_state_goes_on_where_it_was_and_is_not_changed():
    through, halves = model(), model()
    optimizer = Adam(through)
    for rows in batches():
        optimizer.gradient.zero_()
        loss(through, rows).backward()
        optimizer.step(1e-2)
    state = None
    for half in (batches()[:10], batches()[10:]):
        optimizer = Adam(halves, state=state)
        kept = None if state is None else state.copy_to(torch.device("cpu"))
        for rows in half:
            optimizer.gradient.zero_()
            loss(halves, rows).backward()
            optimizer.step(1e-2)
        if kept is not None:
            assert torch.equal(state.mean, kept.mean)
            assert state.n_steps == kept.n_steps == 10
        optimizer.release()
        state = optimizer.state
    for p, q in zip(through.parameters(), halves.parameters(), strict=True):
        assert torch.equal(p, q)
