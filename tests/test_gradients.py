from types import MethodType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrizations, prune

from aefeatures import AutoencoderTransformer
from aefeatures._nets.contrastive import NeighborPreserving
from aefeatures._nets.losses import LOSSES, resolve_loss
from aefeatures._nets.networks import ACTIVATIONS, BuildSpec, DenseNetwork
from aefeatures._nets.objective import Objective
from aefeatures._nets.regularizers import Denoising, NearPCA, Sparse
from aefeatures._train import gradients, thread
from aefeatures._train.gradients import DenseGradient, gradient_step
from aefeatures._train.optimizer import Adam
from aefeatures._train.thread import Workers

pytestmark = pytest.mark.filterwarnings("ignore:.*learned nothing")

NO_INDEX = np.empty(0, dtype=int)


def principal_axes(n):
    drawn = torch.rand(15, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return torch.linalg.qr(drawn[:n].t())[0], drawn[-1], None


def autoencoder(hidden=(9, 5), bounded=True, dtype=torch.float64, **settings):
    generator = torch.Generator().manual_seed(0)
    spec = BuildSpec(bounded, dtype, generator, principal_axes=principal_axes)
    network = DenseNetwork(hidden, **settings)
    model = torch.nn.Sequential(*network.build(14, 2, spec=spec))
    return model, network.layers_as_built(*model)


def is_by_hand(model, layers):
    return isinstance(step_of(model, Adam(model), LOSSES["mse"], layers), DenseGradient)


def step_of(model, optimizer, loss, layers, regularizers=(), X=None):
    batches = SimpleNamespace(device=torch.device("cpu"), take=lambda index: X[index])
    objective = Objective(model, loss, [*regularizers], batches, np.random.default_rng(0))
    return gradient_step(objective, optimizer.gradient, layers)


@pytest.mark.parametrize(
    "network",
    [
        *({"hidden": hidden} for hidden in [(), (9,), (9, 5)]),
        {"dtype": torch.float32},
        *({"activation": name} for name in ACTIVATIONS),
        {"normalization": "layer"},
        {"normalization": "layer", "activation": "gelu"},
        {"n_principal_components": 6},
    ],
    ids=str,
)
@pytest.mark.parametrize("bounded", [True, False])
def test_gradient_by_hand_equals_autograd(network, bounded):
    model, layers = autoencoder(bounded=bounded, **network)
    dtype = next(model.parameters()).dtype
    optimizer = Adam(model)
    by_hand = step_of(model, optimizer, LOSSES["mse"], layers)
    by_autograd = step_of(model, optimizer, lambda r, t: LOSSES["mse"](r, t), layers)
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


def near_pca(missing=False):
    axes, means, _ = principal_axes(2)
    data = SimpleNamespace(
        batches=SimpleNamespace(n_features=14),
        n_components=2,
        head=SimpleNamespace(axes=axes, means=means),
        missing=missing,
    )
    return NearPCA(0.5).prepare(data)


def denoising(noise):
    data = SimpleNamespace(
        batches=SimpleNamespace(n_rows=20, n_features=14, columns=None),
        means=torch.zeros(14, dtype=torch.float64),
        rng=np.random.default_rng(0),
        variance=lambda: 1.0,
        once=False,
    )
    return Denoising(noise).prepare(data)


def near_neighbors(part=1.0):
    neighbors = NeighborPreserving()
    neighbors._graph, neighbors._scale = np.roll(np.arange(20), 3)[:, None], 0.7
    neighbors._decoded_part = part
    return neighbors


REGULARIZERS = {
    "gaussian, near PCA": lambda: [denoising("gaussian"), near_pca()],
    "masking, near PCA": lambda: [near_pca(missing=True), denoising("masking")],
    "sparse": lambda: [Sparse()],
    "neighbors": lambda: [near_neighbors()],
    "half of the rows decoded": lambda: [near_neighbors(0.5)],
    "all": lambda: [Sparse(), near_neighbors(0.5), denoising("swap"), near_pca()],
}


@pytest.mark.parametrize("n_workers", [0, 2])
@pytest.mark.parametrize("hidden", [(), (9, 5)])
@pytest.mark.parametrize("name", REGULARIZERS)
def test_gradient_by_hand_with_regularizers(name, hidden, n_workers, monkeypatch):
    X = torch.rand(20, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    model, layers = autoencoder(hidden)
    optimizer = Adam(model)
    by_hand, by_autograd = (
        step_of(model, optimizer, loss, layers, REGULARIZERS[name](), X)
        for loss in (LOSSES["mse"], lambda r, t: LOSSES["mse"](r, t))
    )
    assert isinstance(by_hand, DenseGradient)
    assert not isinstance(by_autograd, DenseGradient)
    monkeypatch.setattr(gradients, "_LEAST_ROWS", 1)
    by_hand.workers = Workers(n_workers)
    clean = X.clone()
    for index in (np.arange(7), np.arange(5, 20, 2)):  # each draws again
        expected_loss = by_autograd(X[index], index)
        expected = optimizer.gradient.clone()
        torch.testing.assert_close(by_hand(X[index], index), expected_loss)
        torch.testing.assert_close(optimizer.gradient, expected)
    assert torch.equal(X, clean)
    by_hand.workers.stop()


def test_fits_of_several_threads_are_the_same_each_time(digits, monkeypatch):
    def fitted(work):
        monkeypatch.setattr(thread, "_MULTI_THREAD_WORK", work)
        transformer = AutoencoderTransformer(max_epochs=3, batch_size=256, random_state=0)
        return transformer.fit(digits[0])

    alone, before = fitted(10**9), torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        one, other = (fitted(0) for _ in range(2))
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(one.transform(digits[0]), other.transform(digits[0]))
    np.testing.assert_allclose(one.loss_curve_, alone.loss_curve_, rtol=1e-3)


def test_batch_normalization_goes_through_autograd():
    assert autoencoder(normalization="batch")[1] is None


@pytest.mark.parametrize("loss", sorted(set(LOSSES) - {"mse"}))
def test_other_losses_go_through_autograd(loss):
    model, layers = autoencoder()
    optimizer = Adam(model)
    step = step_of(model, optimizer, resolve_loss(loss), layers)
    rows = torch.rand(5, 14, dtype=torch.float64)
    summed = step(rows, NO_INDEX)
    with torch.no_grad():
        expected = float(resolve_loss(loss)(model(rows), rows).sum())
    assert float(summed) == pytest.approx(expected)
    assert optimizer.gradient.abs().max() > 0


def test_a_frozen_layer_goes_through_autograd_and_stays():
    model, layers = autoencoder()
    frozen = model[0][0].weight.requires_grad_(False)
    assert not is_by_hand(model, layers)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = Adam(model)
    step = step_of(model, optimizer, LOSSES["mse"], layers)
    for _ in range(3):
        step(torch.rand(5, 14, dtype=torch.float64), NO_INDEX)
        optimizer.step(1e-2)
    for parameter, old in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, old) == (parameter is frozen)


def stack(n_in, n_out, bias=True):
    return nn.Sequential(nn.Linear(n_in, 6, bias=bias), nn.ReLU(), nn.Linear(6, n_out, bias=bias))


def without_bias(n, k):
    return stack(n, k, bias=False), stack(k, n)


def a_layer_twice(n, k):
    layer = nn.Linear(6, 6)
    encoder = nn.Sequential(nn.Linear(n, 6), nn.ReLU(), layer, nn.ReLU(), layer, nn.Linear(6, k))
    return encoder, stack(k, n)


def a_layer_in_both(n, k):
    layer = nn.Linear(6, 6)
    return (
        nn.Sequential(nn.Linear(n, 6), nn.ReLU(), layer, nn.Linear(6, k)),
        nn.Sequential(nn.Linear(k, 6), nn.ReLU(), layer, nn.Linear(6, n)),
    )


def hooked(register):
    def network(n, k):
        encoder, decoder = stack(n, k), stack(k, n)
        register(encoder[-1])
        return encoder, decoder

    return network


def replace_forward(layer):
    def forward(self, X):
        return 3 * nn.functional.linear(X, self.weight, self.bias)

    layer.forward = MethodType(forward, layer)


OF_ONES_OWN = {
    "without bias": without_bias,
    "a layer twice": a_layer_twice,
    "a layer in both": a_layer_in_both,
    "plain": lambda n, k: (stack(n, k), stack(k, n)),
    "forward hook": hooked(lambda layer: layer.register_forward_hook(lambda m, i, out: 5 * out)),
    "pre-hook": hooked(lambda layer: layer.register_forward_pre_hook(lambda m, i: (i[0] / 3,))),
    "backward hook": hooked(
        lambda layer: layer.register_full_backward_hook(lambda m, i, o: (i[0] / 9,))
    ),
    "forward of its own": hooked(replace_forward),
    "pruned": hooked(lambda layer: prune.l1_unstructured(layer, "weight", 0.5)),
    "spectral norm": hooked(parametrizations.spectral_norm),
    "weight norm": hooked(parametrizations.weight_norm),
}


class Wrapped(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, X):
        return self.module(X)


@pytest.mark.parametrize("name", sorted(OF_ONES_OWN))
def test_networks_of_ones_own_train_as_when_they_are_wrapped(digits, name):
    X = digits[0][:100]
    network = OF_ONES_OWN[name]

    def fitted(network):
        return AutoencoderTransformer(2, network=network, max_epochs=30, random_state=0).fit(X)

    bare = fitted(network)
    wrapped = fitted(lambda n, k: tuple(map(Wrapped, network(n, k))))
    np.testing.assert_array_equal(bare.transform(X), wrapped.transform(X))
    assert bare.loss_curve_ == wrapped.loss_curve_
    error = -bare.score(X)  # what was trained is what transforms
    assert error == pytest.approx(bare.loss_curve_[-1], rel=0.1)


def test_hooks_of_parameters_take_part_in_the_training(digits):
    def network(n, k):
        encoder, decoder = stack(n, k), stack(k, n)
        encoder[0].weight.register_hook(lambda gradient: gradient * mask)
        decoder[0].weight.register_post_accumulate_grad_hook(lambda weight: set_to_zero(weight))
        first.extend(part[0].weight.detach().clone() for part in (encoder, decoder))
        return encoder, decoder

    def set_to_zero(weight):
        weight.grad.zero_()

    first = []
    mask = torch.zeros(6, 64)
    mask[:, 32:] = 1
    transformer = AutoencoderTransformer(2, network=network, max_epochs=2).fit(digits[0][:100])
    same = transformer.encoder_[0].weight == first[0]
    assert same[:, :32].all()
    assert not same[:, 32:].all()
    assert torch.equal(transformer.decoder_[0].weight, first[1])


def zero_forward(layer):
    layer.forward = MethodType(lambda self, X: 0 * nn.functional.linear(X, self.weight), layer)


# All of them keep the encoder from learning.
CHANGED = {
    "forward hook": lambda t: t.encoder_[-1].register_forward_hook(lambda m, i, out: 0 * out),
    "pre-hook": lambda t: t.decoder_.register_forward_pre_hook(lambda m, i: (0 * i[0],)),
    "backward hook": lambda t: t.encoder_[-1].register_full_backward_pre_hook(
        lambda m, gradients: (0 * gradients[0],)
    ),
    "hooks of parameters": lambda t: [
        each.register_hook(lambda gradient: 0 * gradient) for each in t.encoder_.parameters()
    ],
    "forward of its own": lambda t: zero_forward(t.encoder_[-1]),
}


@pytest.mark.parametrize("change", sorted(CHANGED))
@pytest.mark.parametrize("goes_on_by", ["fit", "partial_fit"])
def test_what_was_done_to_our_layers_takes_part_in_further_training(digits, change, goes_on_by):
    X = digits[0][:100]
    settings = {"regularizer": None, "warm_start": True, "random_state": 0}
    transformer = AutoencoderTransformer(2, max_epochs=2, **settings).fit(X)
    CHANGED[change](transformer)
    encoder, decoder = weights(transformer, "encoder_"), weights(transformer, "decoder_")
    getattr(transformer, goes_on_by)(X)
    assert weights(transformer, "encoder_") == encoder
    assert weights(transformer, "decoder_") != decoder


def weights(transformer, part):
    return [each.tolist() for each in getattr(transformer, part).parameters()]


def test_hooks_of_all_modules_take_part_in_the_training():
    model, layers = autoencoder()
    assert is_by_hand(model, layers)
    handle = register_module_forward_hook(lambda module, inputs, output: None)
    try:
        assert not is_by_hand(model, layers)
    finally:
        handle.remove()


def test_a_network_that_looks_like_ours_goes_through_autograd():
    model, _ = autoencoder()
    assert not is_by_hand(model, None)


@pytest.mark.parametrize(
    "network",
    [
        lambda n, k: (stack(n, k).requires_grad_(False), stack(k, n).requires_grad_(False)),
        lambda n, k: (nn.AdaptiveAvgPool1d(k), nn.AdaptiveAvgPool1d(n)),
    ],
    ids=["frozen", "none"],
)
def test_a_network_without_weights_to_train_is_refused(digits, network):
    transformer = AutoencoderTransformer(2, network=network, max_epochs=1)
    with pytest.raises(ValueError, match=r"no weights to train: it has \d+ parameters, none of"):
        transformer.fit(digits[0][:20])


def test_a_network_frozen_after_fit_is_refused(digits):
    transformer = AutoencoderTransformer(2, max_epochs=1).fit(digits[0][:20])
    transformer.encoder_.requires_grad_(False)
    transformer.partial_fit(digits[0][:20])
    transformer.decoder_.requires_grad_(False)
    with pytest.raises(ValueError, match="no weights to train"):
        transformer.partial_fit(digits[0][:20])


def test_a_loss_that_depends_on_no_weight_is_refused(digits):
    class Detached(nn.Linear):
        def forward(self, X):
            return super().forward(X).detach()

    transformer = AutoencoderTransformer(
        2, network=lambda n, k: (Detached(n, k), Detached(k, n)), max_epochs=1
    )
    with pytest.raises(ValueError, match="depends on no weight that is trained"):
        transformer.fit(digits[0][:20])


@pytest.mark.parametrize("regularizer", ["auto", None])
def test_tables_with_gaps_are_trained_by_hand(regularizer, monkeypatch):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {"a": rng.normal(size=200), "b": rng.choice(["x", "y", "z"], 200), "c": rng.random(200)}
    )
    table = table.mask(rng.random(table.shape) < 0.2)
    params = {"regularizer": regularizer, "precision": "float64", "random_state": 0}
    calls = []

    def call(step, rows, index, original=DenseGradient.__call__):
        calls.append(len(rows))
        return original(step, rows, index)

    monkeypatch.setattr(DenseGradient, "__call__", call)
    by_hand = AutoencoderTransformer(2, max_epochs=3, **params).fit(table)
    assert sum(calls) == 3 * table.notna().any(axis=1).sum()
    monkeypatch.setattr(gradients, "_is_squared_error", lambda _: False)
    by_autograd = AutoencoderTransformer(2, max_epochs=3, **params).fit(table)
    assert sum(calls) == 3 * table.notna().any(axis=1).sum()
    np.testing.assert_allclose(by_hand.loss_curve_, by_autograd.loss_curve_)
    np.testing.assert_allclose(by_hand.transform(table), by_autograd.transform(table), rtol=1e-6)
