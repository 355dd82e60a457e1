import copy

import pytest
import torch

from aefeatures._nets.networks import BuildSpec, DenseNetwork
from aefeatures._train.optimizer import Adam


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


def test_moments_stay_out_of_the_denormal_range():
    module = torch.nn.Linear(3, 2)
    optimizer, kept = Adam(module), Adam(copy.deepcopy(module))
    for each in (optimizer, kept):
        each.gradient.fill_(1.0)
        each.step(1e-2)
        each.gradient.zero_()
        each.gradient[0] = 1e-20  # its square is denormal
    for _ in range(1_200):
        optimizer.step(1e-2, drop_tiny=True)
        for moment in (optimizer.state.mean, optimizer.state.variance):
            assert ((moment == 0) | (moment.abs() > torch.finfo(torch.float32).tiny)).all()
        kept.step(1e-2)
    assert (optimizer.state.mean[1:] == 0).all()
    assert (kept.state.mean[1:] != 0).all()  # denormal numbers that never reach zero
    assert torch.equal(optimizer.vector, kept.vector)


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


@pytest.mark.parametrize("fused", [True, False])
def test_frozen_parameters_stay_bit_for_bit(fused):
    module = model()
    frozen = [module[0][0].weight, module[1][-1].bias]
    for parameter in frozen:
        parameter.requires_grad_(False)
    reference = copy.deepcopy(module)
    optimizer = Adam(module, weight_decay=0.1)
    theirs = torch.optim.AdamW(
        [p for p in reference.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.1
    )
    before = [parameter.clone() for parameter in frozen]
    for rows in batches():
        optimizer.gradient.zero_()
        loss(module, rows).backward()
        if fused:
            optimizer.step(1e-2)
        else:
            optimizer.state.n_steps += 1
            optimizer._step_unfused(1e-2)
        theirs.zero_grad()
        loss(reference, rows).backward()
        theirs.step()
    optimizer.release()
    for p, q in zip(module.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(p, q)
    for parameter, kept in zip(frozen, before, strict=True):
        assert torch.equal(parameter, kept)


@pytest.mark.parametrize("fused", [True, False])
def test_what_is_not_to_decay_does_not(fused):
    module = model()
    kept, other = module[1][0].bias, module[1][0].weight
    with torch.no_grad():
        kept.fill_(1)
    before = kept.detach().clone(), other.detach().clone()
    optimizer = Adam(module, weight_decay=0.1, undecayed=[kept])
    if fused:
        optimizer.step(1e-2)
    else:
        optimizer.state.n_steps += 1
        optimizer._step_unfused(1e-2)
    assert torch.equal(kept, before[0])
    torch.testing.assert_close(other, before[1] * (1 - 1e-3))


def test_moments_of_other_parameters_are_not_used():
    module = model()
    first, second = module[0][0].weight, module[1][-1].weight  # of the same size
    assert first.numel() == second.numel()
    first.requires_grad_(False)
    optimizer = Adam(module)
    optimizer.gradient.fill_(1)
    optimizer.step(1e-2)
    optimizer.release()
    assert Adam(module, state=optimizer.state).state.n_steps == 1
    first.requires_grad_(True)
    second.requires_grad_(False)
    state = Adam(module, state=optimizer.state).state
    assert state.n_steps == 0
    assert not state.mean.any()


@pytest.mark.parametrize(
    ("module", "n"), [(torch.nn.ReLU(), 0), (torch.nn.Linear(2, 2).requires_grad_(False), 2)]
)
def test_nothing_to_train_is_an_error(module, n):
    with pytest.raises(ValueError, match=f"no weights to train: it has {n} parameters, none of"):
        Adam(module)
