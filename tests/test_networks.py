import itertools
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_wine
from sklearn.decomposition import PCA
from sklearn.model_selection import cross_val_score
from sklearn.preprocessing import StandardScaler
from torch import nn

from aefeatures import AutoencoderTransformer, ConvNetwork, Sparse
from aefeatures._nets.networks import (
    ACTIVATIONS,
    NORMALIZATIONS,
    BatchNorm,
    BuildSpec,
    Cost,
    DenseNetwork,
    cost_per_row,
    plain,
    resolve_image_shape,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*learned nothing")


def spec(bounded=True, seed=0):
    return BuildSpec(bounded, torch.float32, torch.Generator().manual_seed(seed))


def network(bounded=True, seed=0, **params):
    return DenseNetwork(**params).build(784, 3, spec=spec(bounded, seed))


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


def test_encoder_reads_principal_components(digits, tmp_path):
    X, X_test = digits[0].copy(), digits[1]
    X[::7, 3] = np.nan
    network = DenseNetwork((8,), n_principal_components=10)
    transformer = AutoencoderTransformer(network=network, max_epochs=2, random_state=0).fit(X)
    projection, first = transformer.encoder_[:2]
    assert (first.in_features, first.out_features) == (10, 8)
    assert sum(p.numel() for p in transformer.encoder_.parameters()) == 10 * 8 + 8 + 8 * 3 + 3
    scaler = StandardScaler().fit(X)
    scaled = np.nan_to_num(scaler.transform(X))
    expected = PCA(10, svd_solver="full").fit(scaled)
    rows = np.nan_to_num(scaler.transform(X_test))
    found = projection(torch.from_numpy(rows).float()).numpy()
    np.testing.assert_allclose(
        np.abs(found[:, :4]), np.abs(expected.transform(rows)[:, :4]), atol=0.05
    )
    transformer.save(tmp_path / "model")
    for loaded in (
        AutoencoderTransformer.load(tmp_path / "model"),
        pickle.loads(pickle.dumps(transformer)),
    ):
        np.testing.assert_array_equal(loaded.transform(X_test), transformer.transform(X_test))
    codes = transformer.to_module()(torch.from_numpy(X_test.copy())).detach()
    np.testing.assert_allclose(codes, transformer.transform(X_test), rtol=1e-3, atol=1e-4)


def test_principal_components_of_few_rows_and_few_columns(digits):
    network = DenseNetwork((8,), n_principal_components=10)
    few_rows = AutoencoderTransformer(network=network, max_epochs=1).fit(digits[0][:4])
    assert (few_rows.encoder_[0].weight[4:] == 0).all()
    few_columns = AutoencoderTransformer(network=network, max_epochs=1).fit(digits[0][:, 20:30])
    assert isinstance(few_columns.encoder_[0], nn.Linear)
    network.set_params(n_principal_components=0)
    with pytest.raises(
        ValueError, match="n_principal_components must be None or an integer of at least 1"
    ):
        AutoencoderTransformer(network=network).fit(digits[0])


def untrained(X, **params):
    return AutoencoderTransformer(
        init="pca", learning_rate=1e-9, max_epochs=1, regularizer=None, random_state=0, **params
    ).fit(X)


@pytest.mark.parametrize("hidden", [(), (7,), (128, 64, 12)])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "elu"])
def test_the_first_weights_give_pca(hidden, activation):
    X, _ = load_wine(return_X_y=True)
    scaled = StandardScaler().fit_transform(X)
    pca = PCA(3).fit(scaled)
    expected = pca.transform(scaled)
    transformer = untrained(X, hidden_layer_sizes=hidden, activation=activation)
    codes = transformer.transform(X)
    signs = np.sign((codes * expected).sum(axis=0))
    # Three deviations below the mean a rectifier cuts off.
    usual = (signs * expected > -3 * expected.std(axis=0, ddof=1)).all(axis=1)
    assert usual.mean() > 0.98
    np.testing.assert_allclose((signs * codes)[usual], expected[usual], atol=1e-4)
    of_pca = ((scaled - pca.inverse_transform(expected)) ** 2).mean()
    assert -transformer.score(X) == pytest.approx(of_pca, rel=0.1)


def test_training_adds_to_pca(digits):
    X, X_test = (rows[:, 10:40] for rows in digits[:2])
    scaler = StandardScaler().fit(X)
    pca = PCA(3).fit(scaler.transform(X))
    rows = scaler.transform(X_test)
    of_pca = ((rows - pca.inverse_transform(pca.transform(rows))) ** 2).mean()
    assert -AutoencoderTransformer(random_state=0).fit(X).score(X_test) < 0.9 * of_pca


def test_components_that_are_read_start_as_pca(digits):
    X = digits[0][:, 10:40]
    network = DenseNetwork((16, 8), n_principal_components=12, init="pca")
    settings = {"regularizer": None, "learning_rate": 1e-9, "max_epochs": 1, "random_state": 0}
    transformer = AutoencoderTransformer(network=network, **settings).fit(X)
    scaled = StandardScaler().fit_transform(X)
    pca = PCA(3, svd_solver="full").fit(scaled)
    expected = pca.transform(scaled)
    codes = transformer.transform(X)
    signs = np.sign((codes * expected).sum(axis=0))
    usual = (signs * expected > -2.5 * expected.std(axis=0)).all(axis=1)
    np.testing.assert_allclose((signs * codes)[usual], expected[usual], atol=1e-3)
    of_pca = ((scaled - pca.inverse_transform(expected)) ** 2).mean()
    assert -transformer.score(X) == pytest.approx(of_pca, rel=0.05)


@pytest.mark.parametrize("n_rows", [1, 2, 4])
def test_pca_of_few_rows_leaves_the_other_units_random(digits, n_rows):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformer = untrained(digits[0][:n_rows], n_components=5)
    weights = [p for p in transformer.encoder_.parameters() if p.dim() == 2]
    assert all(bool((weight.abs().sum(dim=1) > 0).all()) for weight in weights)
    assert np.isfinite(transformer.reconstruct(digits[1])).all()


def test_layers_narrower_than_the_code_carry_what_they_can(digits):
    X = digits[0]
    with pytest.warns(UserWarning, match="caps the rank of the code at 2"):
        transformer = untrained(X, n_components=4, hidden_layer_sizes=(32, 2))
    varying = StandardScaler().fit_transform(X)[:, X.std(axis=0) > 0]
    pca = PCA(2).fit(varying)
    of_pca = ((varying - pca.inverse_transform(pca.transform(varying))) ** 2).sum() / X.size
    assert -transformer.score(X) == pytest.approx(of_pca, rel=0.1)


@pytest.mark.parametrize(
    "params",
    [{"activation": "gelu"}, {"normalization": "layer"}, {"scaling": "feature"}],
)
def test_what_cannot_start_as_pca_says_so(digits, params):
    with pytest.raises(ValueError, match=r"init='pca' needs an activation of relu, .* no normal"):
        AutoencoderTransformer(init="pca", **params).fit(digits[0])
    automatic = AutoencoderTransformer(max_epochs=1, random_state=0, **params).fit(digits[0])
    random = AutoencoderTransformer(max_epochs=1, random_state=0, init="random", **params)
    np.testing.assert_array_equal(
        automatic.transform(digits[1]), random.fit(digits[0]).transform(digits[1])
    )


def test_names_of_inits(digits):
    with pytest.raises(ValueError, match="init of a network must be 'random' or 'pca', got 'auto'"):
        AutoencoderTransformer(network=DenseNetwork(init="auto")).fit(digits[0])
    with pytest.raises(ValueError, match="The 'init' parameter of AutoencoderTransformer must be"):
        AutoencoderTransformer(init="spectral").fit(digits[0])


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
    first = network(seed=5)[0][0].weight
    torch.rand(3)
    second = network(seed=5)[0][0].weight
    other = network(seed=6)[0][0].weight
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


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 7, 5), (2, 1, 9), (1, 3, 3)])
@pytest.mark.parametrize("normalization", [None, "layer", "batch"])
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_convolutions_of_any_size(shape, normalization, kernel_size):
    n_features = int(np.prod(shape))
    network = ConvNetwork(shape, (4, 6, 8), kernel_size, normalization=normalization)
    X = np.random.default_rng(0).random((9, n_features))
    # The last batch has one row.
    transformer = AutoencoderTransformer(2, network=network, max_epochs=2, batch_size=4)
    codes = transformer.fit(X).transform(X)
    assert codes.shape == (9, 2)
    assert transformer.reconstruct(X).shape == X.shape


def test_columns_are_laid_out_channel_by_channel():
    encoder, _ = ConvNetwork((2, 4, 4), (3,)).build(32, 2, spec=spec())
    image = torch.arange(32.0).view(2, 4, 4)
    assert torch.equal(encoder[0](image.reshape(1, -1))[0], image)


@pytest.mark.parametrize(
    ("n_features", "image_shape", "expected"),
    [
        (64, None, (1, 8, 8)),
        (48, None, (3, 4, 4)),
        (12, (3, 4), (1, 3, 4)),
        (24, [2, 3, 4], (2, 3, 4)),
    ],
)
def test_image_shapes(n_features, image_shape, expected):
    assert resolve_image_shape(image_shape, n_features) == expected


@pytest.mark.parametrize(
    ("image_shape", "message"),
    [
        (None, "60 columns are neither a square image nor three square channels"),
        ((1, 28, 28), r"image_shape=\(1, 28, 28\) has 784 entries, but X has 60 columns"),
        (
            (60,),
            r"image_shape must be \(channels, height, width\) or \(height, width\), got \(60,\)",
        ),
    ],
)
def test_image_shapes_that_do_not_fit_are_refused(image_shape, message):
    transformer = AutoencoderTransformer(network=ConvNetwork(image_shape))
    with pytest.raises(ValueError, match=message):
        transformer.fit(np.zeros((5, 60)))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (ConvNetwork(channels=(0,)), "channels must hold integers of at least 1"),
        (ConvNetwork(kernel_size=2), "kernel_size must be an odd integer, got 2"),
        (ConvNetwork(activation="swish"), "activation must be one of relu, .*got 'swish'"),
        (DenseNetwork(normalization="group"), "normalization must be one of None, layer, batch"),
    ],
)
def test_bad_parameters_of_networks_are_refused(network, message):
    with pytest.raises(ValueError, match=message):
        AutoencoderTransformer(network=network).fit(np.random.default_rng(0).random((5, 64)))


def test_a_dense_network_is_the_default(digits):
    X = digits[0]
    params = {"max_epochs": 1, "random_state": 0}
    default = AutoencoderTransformer(**params).fit_transform(X)
    network = DenseNetwork(init="pca")
    explicit = AutoencoderTransformer(network=network, **params).fit_transform(X)
    np.testing.assert_array_equal(default, explicit)


def linear_pair(n_features, n_components):
    return nn.Linear(n_features, n_components), nn.Linear(n_components, n_features)


def test_a_callable_gives_any_modules(digits):
    X = digits[0]
    transformer = AutoencoderTransformer(network=linear_pair, max_epochs=3, random_state=0)
    state = torch.get_rng_state()
    codes = transformer.fit_transform(X)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(codes, clone(transformer).fit_transform(X))
    restored = pickle.loads(pickle.dumps(transformer))
    np.testing.assert_array_equal(codes, restored.transform(X))


def test_a_callable_may_train_a_network_of_its_own(digits):
    X = digits[0][:50]

    def pretrained(n_features, n_components):
        inner = AutoencoderTransformer(n_components, network=linear_pair, max_epochs=1)
        inner.fit(X)
        return inner.encoder_, inner.decoder_

    state = torch.get_rng_state()
    AutoencoderTransformer(network=pretrained, max_epochs=1).fit(X)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_callable_may_fit_in_threads(digits):
    """Only what is of our own, which waits for nobody."""
    X = digits[0][:50]

    def searched(n_features, n_components):
        with ThreadPoolExecutor(2) as pool:
            fits = [
                pool.submit(AutoencoderTransformer(n_components, max_epochs=1).fit, X)
                for _ in range(2)
            ]
        best = max((fit.result(60) for fit in fits), key=lambda fitted: fitted.score(X))
        return best.encoder_, nn.LazyLinear(n_features)  # draws when all is done

    state = torch.get_rng_state()
    assert AutoencoderTransformer(network=searched, max_epochs=1).fit(X).n_iter_ == 1
    assert torch.equal(torch.get_rng_state(), state)


def test_a_users_modules_are_not_changed(digits):
    pair = linear_pair(64, 3)
    before = [p.detach().clone() for part in pair for p in part.parameters()]
    AutoencoderTransformer(network=lambda *_: pair, max_epochs=1).fit(digits[0])
    for p, q in zip(before, [p for part in pair for p in part.parameters()], strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize(
    ("network", "error", "message"),
    [
        (lambda n, k: nn.Linear(n, k), TypeError, "two modules, .*Linear"),
        (lambda n, k: (1, 2), TypeError, "two modules, .*int.*int"),
        (
            lambda n, k: linear_pair(n, k + 1),
            ValueError,
            r"encoder of network must turn rows of 64 columns into rows of 3, but .* \(2, 4\)",
        ),
        (
            lambda n, k: (nn.Linear(n, k), nn.Linear(k, 9)),
            ValueError,
            r"decoder of network must turn rows of 3 columns into rows of 64, but .* \(2, 9\)",
        ),
    ],
)
def test_callables_that_give_something_else_are_refused(digits, network, error, message):
    with pytest.raises(error, match=message):
        AutoencoderTransformer(network=network).fit(digits[0])


class OwnNetwork(DenseNetwork):
    def build(self, n_features, n_components, *, spec):
        return linear_pair(n_features, n_components)


@pytest.mark.parametrize(
    "network",
    [lambda n, k: (nn.LazyLinear(k), nn.LazyLinear(n)), OwnNetwork()],
    ids=["lazy", "subclass"],
)
def test_first_weights_of_any_network_come_from_random_state(digits, network):
    X, first = digits[0][:40], []
    before = torch.get_rng_state()
    for _ in range(2):
        transformer = AutoencoderTransformer(
            network=network, max_epochs=1, learning_rate=1e-9, random_state=0
        )
        first.append(transformer.fit(X).encoder_.weight)
        assert torch.equal(torch.get_rng_state(), before)
        torch.rand(1)
        before = torch.get_rng_state()
    assert torch.equal(*first)
    other = clone(transformer).set_params(random_state=1).fit(X)
    assert not torch.equal(first[0], other.encoder_.weight)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Linear(64, 3), "got a module of the class Linear. Pass network=make, with: def make"),
        (nn.Sequential(*linear_pair(64, 3)), "got a module of the class Sequential. Pass"),
        (linear_pair(64, 3), "got a tuple of 2. Pass network=make, with: def make"),
        (list(linear_pair(64, 3)), "got a list of 2. Pass"),
        (nn.Linear, "got the class Linear. Pass network=make"),
        (DenseNetwork, r"must be an instance, got the class DenseNetwork. Pass DenseNetwork\(\)"),
        (ConvNetwork, r"Pass ConvNetwork\(\)"),
    ],
)
def test_modules_and_classes_as_networks_are_refused(digits, network, message):
    with pytest.raises(TypeError, match=message):
        AutoencoderTransformer(network=network).fit(digits[0])


def test_training_goes_on_only_with_the_same_network(digits):
    transformer = AutoencoderTransformer(network=DenseNetwork((8,)), max_epochs=1)
    transformer.partial_fit(digits[0]).set_params(network__hidden_layer_sizes=(9,))
    with pytest.raises(ValueError, match="network changed since the last fit"):
        transformer.partial_fit(digits[0])


def test_cost_counts_products_and_the_widest_layer():
    dense = nn.Sequential(*network())
    weights = sum(p.numel() for p in dense.parameters() if p.dim() == 2)
    assert cost_per_row(dense, 784) == Cost(784, weights)
    convolution = nn.Sequential(nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 5, 3, 2, 1))
    back = nn.Sequential(convolution, nn.ConvTranspose2d(5, 7, 3, 2, 1, output_padding=1))
    assert cost_per_row(convolution, 64) == Cost(80, 45 * 16)
    assert cost_per_row(back, 64) == Cost(7 * 64, 45 * 16 + 315 * 16)


class InPlace(nn.Module):
    """An operation in front of a linear layer, in place or not."""

    def __init__(self, n_in, n_out, operation, in_place):
        super().__init__()
        self.layer = nn.Linear(n_in, n_out)
        self.operation = operation
        self.in_place = in_place

    def forward(self, X):
        return self.layer(self.operation(X if self.in_place else X.clone()))


def set_a_column(X):
    X[:, 0] = 0.3
    return X


def scale_the_transposed(X):
    X.t().mul_(0.5)
    return X


OPERATIONS = {
    "subtract": lambda X: X.sub_(0.5),
    "rectify": lambda X: nn.functional.relu_(X.sub_(0.2)),
    "set a column": set_a_column,
    "transposed": scale_the_transposed,
    "drop": lambda X: nn.functional.threshold_(X, 0.5, 0.0),
}


def working_in_place(operation, in_place=True):
    def network(n, k):
        return InPlace(n, k, operation, in_place), InPlace(k, n, operation, in_place)

    return network


def as_map(X, path):
    written = np.memmap(path, X.dtype, "w+", shape=X.shape)
    written[:] = X
    written.flush()
    return np.memmap(path, X.dtype, "r+", shape=X.shape)


@pytest.mark.parametrize("name", sorted(OPERATIONS))
@pytest.mark.parametrize("scaling", ["auto", None, "standard"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_modules_that_work_in_place_change_nothing_of_the_callers(tmp_path, name, scaling, dtype):
    X = np.random.default_rng(0).random((70, 6)).astype(dtype)
    rows = as_map(X, tmp_path / "rows")
    params = {"scaling": scaling, "max_epochs": 3, "random_state": 0, "warm_start": True}
    network = working_in_place(OPERATIONS[name])
    transformer = AutoencoderTransformer(2, network=network, **params)
    codes = transformer.fit(rows).partial_fit(rows).transform(rows)
    kept = codes.copy()
    results = [
        codes,
        transformer.inverse_transform(codes),
        transformer.reconstruct(rows),
        transformer.score_samples(rows),
        transformer.score_samples(rows, per_feature=True),
    ]
    tensors = torch.from_numpy(np.array(rows)), torch.from_numpy(codes)
    encoded, decoded = transformer.to_module("autoencoder")(tensors[0])
    transformer.to_module("encoder")(tensors[0])
    transformer.to_module("decoder")(tensors[1])
    del rows
    np.testing.assert_array_equal(np.fromfile(tmp_path / "rows", dtype).reshape(X.shape), X)
    np.testing.assert_array_equal(tensors[0], X)
    np.testing.assert_array_equal(codes, kept)
    np.testing.assert_allclose(encoded.detach(), codes, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(decoded.detach(), results[2], rtol=1e-4, atol=1e-5)
    # They learn and give the same as if they did not work in place.
    other = AutoencoderTransformer(
        2, network=working_in_place(OPERATIONS[name], in_place=False), **params
    )
    other.fit(X).partial_fit(X)
    assert transformer.loss_curve_ == other.loss_curve_
    expected = [
        other.transform(X),
        other.inverse_transform(codes),
        other.reconstruct(X),
        other.score_samples(X),
        other.score_samples(X, per_feature=True),
    ]
    for result, each in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result, each)


def normalized(*more):
    def network(n, k):
        encoder = nn.Sequential(nn.Linear(n, 5), nn.BatchNorm1d(5), *more, nn.Linear(5, k))
        return encoder, nn.Sequential(nn.Linear(k, 5), nn.BatchNorm1d(5), nn.Linear(5, n))

    return network


class Standardize(nn.Module):
    """Normalizes by hand: the deviation of one row is NaN."""

    def forward(self, X):
        return (X - X.mean(dim=0)) / (X.std(dim=0) + 1e-3) if self.training else X


@pytest.mark.parametrize("network", [normalized(), normalized(Standardize())])
@pytest.mark.parametrize(
    ("n_rows", "batch_size"), [(129, 64), (65, 64), (5, 4), (5, 2), (4, 3), (3, 2)]
)
def test_a_row_left_over_is_no_batch_of_a_network_of_ones_own(network, n_rows, batch_size):
    X = np.random.default_rng(0).normal(size=(n_rows, 7))
    transformer = AutoencoderTransformer(
        2, network=network, batch_size=batch_size, max_epochs=3, random_state=0
    )
    assert np.isfinite(transformer.fit(X).loss_curve_).all()
    assert transformer.n_steps_ % 3 == 0
    assert transformer.partial_fit(X).transform(X).shape == (n_rows, 2)


def test_cross_validation_of_a_network_with_batch_normalization():
    X = np.random.default_rng(0).normal(size=(194, 7))  # 129 or 130 rows in each fold
    transformer = AutoencoderTransformer(2, network=normalized(), max_epochs=2, random_state=0)
    assert np.isfinite(cross_val_score(transformer, X, cv=3)).all()


@pytest.mark.parametrize(
    ("n_rows", "batch_size", "message"),
    [
        (9, 1, "Set batch_size to 2 or more, got batch_size=1"),
        (1, 64, "There is one row to train on: give more rows"),
        (1, 1, "There is one row to train on: give more rows"),
    ],
)
def test_batches_of_one_row_that_cannot_be_trained_on_say_what_to_change(
    n_rows, batch_size, message
):
    X = np.random.default_rng(0).normal(size=(n_rows, 7))
    transformer = AutoencoderTransformer(2, network=normalized(), batch_size=batch_size)
    with pytest.raises(ValueError, match=message):
        transformer.fit(X)


def test_plain_numbers_stay_what_they_are():
    """Only what holds a number of NumPy's is copied, and nothing is changed."""
    array, parts = np.array([8, 16]), [Sparse(0.1), "neighbors"]
    for value in (3, 0.5, True, None, "relu", (8, 16), parts, array, DenseNetwork((8,)), plain):
        assert plain(value) is value
    given = [
        Sparse(np.float32(0.5), np.longdouble(0.25)),
        DenseNetwork((np.int8(8), 4), np.str_("elu")),
    ]
    kept = repr(given)
    sparse, network = plain(given)
    assert repr(sparse) == "Sparse(target=0.25, weight=0.5)"
    assert repr(network) == "DenseNetwork(activation='elu', hidden_layer_sizes=(8, 4))"
    assert repr(given) == kept
    date = np.datetime64("NaT")
    assert plain(date) is date
