import itertools

import pytest
import torch
from torch import nn

from aefeatures._networks import ACTIVATIONS, NORMALIZATIONS, BatchNorm, dense_network


def network(**changes):
    settings = {
        "hidden_layer_sizes": (128, 64, 12),
        "activation": "relu",
        "normalization": None,
        "bounded": True,
        "dtype": torch.float32,
        "generator": torch.Generator().manual_seed(0),
    }
    return dense_network(784, 3, **{**settings, **changes})


def test_default_network_is_the_lectures():
    encoder, decoder = network()
    assert [(m.in_features, m.out_features) for m in encoder if isinstance(m, nn.Linear)] == [
        (784, 128),
        (128, 64),
        (64, 12),
        (12, 3),
    ]
    assert [(m.in_features, m.out_features) for m in decoder if isinstance(m, nn.Linear)] == [
        (3, 12),
        (12, 64),
        (64, 128),
        (128, 784),
    ]
    assert [type(m).__name__ for m in encoder] == ["Linear", "ReLU"] * 3 + ["Linear"]
    assert [type(m).__name__ for m in decoder] == ["Linear", "ReLU"] * 3 + ["Linear", "Sigmoid"]


def test_decoder_is_linear_where_the_range_is_not_bounded():
    assert isinstance(network(bounded=False)[1][-1], nn.Linear)


def test_no_hidden_layers_give_linear_maps():
    encoder, decoder = network(hidden_layer_sizes=(), bounded=False)
    assert [type(m) for m in [*encoder, *decoder]] == [nn.Linear, nn.Linear]


@pytest.mark.parametrize(
    ("activation", "normalization"), list(itertools.product(ACTIVATIONS, [None, *NORMALIZATIONS]))
)
def test_signal_neither_dies_nor_explodes(activation, normalization):
    encoder, decoder = network(activation=activation, normalization=normalization, bounded=False)
    codes = encoder(torch.randn(256, 784, generator=torch.Generator().manual_seed(1)))
    assert 0.02 < codes.std(dim=0).mean() < 20
    assert decoder(codes).shape == (256, 784)


def test_weights_come_from_the_generator_alone():
    state = torch.get_rng_state()
    first = network(generator=torch.Generator().manual_seed(5))[0][0].weight
    torch.rand(3)
    second = network(generator=torch.Generator().manual_seed(5))[0][0].weight
    other = network(generator=torch.Generator().manual_seed(6))[0][0].weight
    torch.set_rng_state(state)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_batch_normalization_of_one_row_uses_running_statistics():
    layer = BatchNorm(4)
    layer(torch.randn(64, 4) * 3 + 1)
    mean = layer.running_mean.clone()
    row = torch.randn(1, 4)
    trained = layer(row)
    assert torch.equal(layer.running_mean, mean)
    torch.testing.assert_close(trained, layer.eval()(row))
