import inspect
import pickle
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import heads_of, split_of
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import aefeatures._nets.contrastive
from aefeatures import (
    AutoencoderTransformer,
    Checkpoint,
    Contractive,
    Denoising,
    DenseNetwork,
    NearPCA,
    NeighborPreserving,
    Regularizer,
    Sparse,
    Supervised,
    Variational,
)
from aefeatures._autoencoder import fitted_model
from aefeatures._nets.networks import BuildSpec
from aefeatures._nets.objective import Objective
from aefeatures._nets.regularizer import Batch, TrainingData
from aefeatures._nets.regularizers import REGULARIZERS, resolve_regularizers
from aefeatures._rows.batches import RowBatches
from aefeatures._rows.labels import split_labels

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*learned nothing"),
    pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad=True to a scalar"),
]


def quick(regularizer, **params):
    return AutoencoderTransformer(
        **{"regularizer": regularizer, "max_epochs": 2, "random_state": 0, **params}
    )


def batch(**fields):
    defaults = {
        "rows": torch.rand(50, 6),
        "index": np.arange(50),
        "encoder": torch.nn.Linear(6, 2),
        "decoder": torch.nn.Linear(2, 6),
        "generator": torch.Generator().manual_seed(0),
        "rng": np.random.default_rng(0),
        "take": None,
    }
    return Batch(**{**defaults, **fields})


def data(y=None, n_components=2, head=None, n_rows=10):
    """Of six columns, each of variance 4."""
    rows = np.full((n_rows, 6), 2, np.float32) * np.resize([1, -1], (n_rows, 1))
    device = torch.device("cpu")
    batches = RowBatches(rows, lambda x: x, batch_size=5, device=device, dtype=torch.float32)
    rng = np.random.default_rng(0)
    return TrainingData(batches, y, torch.zeros(6), n_components, rng, head)


@pytest.mark.parametrize("name", sorted(REGULARIZERS))
@pytest.mark.parametrize("kind", ["dense", "missing", "sparse"])
def test_every_regularizer_takes_every_kind_of_data(digits, name, kind):
    X, _, y, _ = digits
    X = X[:300].copy()
    if kind == "missing":
        X[np.random.default_rng(0).random(X.shape) < 0.1] = np.nan
    if kind == "sparse":
        X = sparse.csr_matrix(X)
    transformer = quick(name, early_stopping=True)
    codes = transformer.fit(X, y[:300]).transform(X)
    assert codes.shape == (300, 3)
    assert (codes.std(axis=0) > 0.1).all()
    if kind == "sparse":
        dense = clone(transformer).fit(X.toarray(), y[:300]).transform(X.toarray())
        np.testing.assert_allclose(codes, dense, rtol=1e-5, atol=1e-5)
    again = clone(transformer).fit(X, y[:300]).transform(X)
    np.testing.assert_array_equal(codes, again)


@pytest.mark.parametrize("name", sorted(REGULARIZERS))
def test_every_regularizer_goes_on_in_partial_fit(digits, name):
    X, _, y, _ = digits
    transformer, codes = quick(name), []
    for part in (slice(0, 100), slice(100, 101), slice(101, 400)):
        transformer.partial_fit(X[part], y[part] % 2 if part.start != 100 else y[:1] % 2)
        codes.append(transformer.transform(X))
    assert transformer.n_iter_ == 3
    assert all((np.abs(np.diff(codes, axis=0)) > 0).any(axis=(1, 2))), "each call changed the codes"
    assert (codes[-1].std(axis=0) > 0.1).all()


def test_regularizers_may_change_between_calls(digits):
    X, _, y, _ = digits
    transformer, losses = quick(None, init="random"), []
    for regularizer in (None, "variational", "supervised", ["sparse", "supervised"], "sparse"):
        transformer.set_params(regularizer=regularizer).partial_fit(X[:200], y[:200])
        losses.append(-transformer.score(X[:200]))
    assert transformer.n_iter_ == 5
    assert (np.diff(losses) < 0).all(), "the network goes on learning"


def test_noise_by_default_only_where_columns_are_standardized(digits):
    X, images = digits[0][:300], digits[0][:300].astype(np.uint8) * 15

    def codes(rows, regularizer, **params):
        return quick(regularizer, **params).fit_transform(rows)

    noise = [Denoising("gaussian", 0.3), NearPCA()]
    np.testing.assert_array_equal(codes(X, "auto"), codes(X, noise))
    assert not np.array_equal(codes(X, "auto"), codes(X, None))
    for rows, scaling in ((X, None), (X, "global"), (X, "feature"), (images, "auto")):
        params = {"scaling": scaling, "max_epochs": 1}
        np.testing.assert_array_equal(codes(rows, "auto", **params), codes(rows, None, **params))


@pytest.mark.parametrize("missing", [False, True])
def test_codes_stay_near_principal_components(missing):
    X, _ = load_wine(return_X_y=True)
    scaled = StandardScaler().fit_transform(X)
    if missing:
        scaled[::9, 4] = np.nan
    components = PCA(3).fit_transform(np.nan_to_num(scaled))

    def distance(regularizer):
        transformer = AutoencoderTransformer(
            regularizer=regularizer, scaling=None, init="random", random_state=0, max_epochs=300
        )
        codes = transformer.fit_transform(scaled)
        signs = np.sign((codes * components).sum(axis=0))
        return np.square(signs * codes - components).mean() / components.var()

    strong = distance(NearPCA(10.0))
    assert strong < 0.03
    assert strong < distance(NearPCA(0.1)) < distance(None)


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_later_calls_keep_the_components(digits, method):
    X = digits[0]
    transformer = quick(NearPCA(), warm_start=True)
    for few in (1, 2):
        getattr(transformer, method)(X[:few])
        assert heads_of(transformer)[0].axes.shape == (64, few - 1)
    getattr(transformer, method)(X[:200])
    axes = heads_of(transformer)[0].axes.clone()
    getattr(transformer, method)(X[700:710])
    assert torch.equal(heads_of(transformer)[0].axes, axes)
    assert axes.shape == (64, 3)


def test_codes_without_a_component_are_free():
    X = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)  # of rank 2
    device = torch.device("cpu")
    batches = RowBatches(X, lambda x: x, batch_size=3, device=device, dtype=torch.float32)
    means = torch.from_numpy(X.mean(axis=0))
    near = NearPCA().prepare(TrainingData(batches, None, means, 5, np.random.default_rng(0)))
    assert near.head.axes.shape == (6, 2)
    codes = torch.zeros(3, 5, requires_grad=True)
    near.penalty(batch(rows=torch.from_numpy(X), codes=codes)).backward()
    assert not codes.grad[:, 2:].any()
    assert codes.grad[:, :2].all()


def test_small_tables_are_not_learned_by_heart():
    gains = []
    for load in (load_wine, load_breast_cancer, load_diabetes):
        X, _ = load(return_X_y=True)
        X, X_new = train_test_split(X, random_state=0)
        by_default, bare = (
            AutoencoderTransformer(random_state=0, **params).fit(X).score(X_new)
            for params in ({}, {"regularizer": None, "init": "random"})
        )
        gains.append(bare / by_default)
    assert min(gains) > 1.1, gains


def test_names_stand_for_defaults():
    for name, kind in REGULARIZERS.items():
        (regularizer,) = resolve_regularizers(name)
        assert type(regularizer) is kind
        assert regularizer.get_params() == kind().get_params()


def test_lists_combine(digits):
    X = digits[0][:300]
    both = quick(["sparse", Denoising("gaussian", 0.5)]).fit_transform(X)
    assert not np.array_equal(both, quick(["sparse"]).fit_transform(X))
    assert not np.array_equal(both, quick(Denoising("gaussian", 0.5)).fit_transform(X))
    np.testing.assert_array_equal(quick([]).fit_transform(X), quick(None).fit_transform(X))


@pytest.mark.parametrize(
    ("regularizer", "error", "message"),
    [
        ("neighbours", ValueError, "regularizer must be 'auto', a Regularizer, one of 'denoising'"),
        ([3], TypeError, "list of these, got 3"),
        (Sparse, ValueError, "'regularizer' parameter"),
        (Sparse(weight=-1), ValueError, r"weight of Sparse must be a number in \[0, inf\)"),
        (Sparse(target=1), ValueError, r"target must be in \(0, 1\), got 1"),
        (
            Denoising("salt"),
            ValueError,
            "noise must be 'masking', 'swap', .* got 'salt'",
        ),
        (Denoising(amount=1.5), ValueError, r"amount of Denoising must be a number in \[0, 1\)"),
        (NeighborPreserving(0), ValueError, "n_neighbors of NeighborPreserving must be an integer"),
        (Contractive("much"), ValueError, "weight of Contractive must be a number"),
        (Variational(None), ValueError, "beta of Variational must be a number"),
    ],
)
def test_bad_regularizers_are_refused(digits, regularizer, error, message):
    with pytest.raises(error, match=message):
        quick(regularizer).fit(digits[0][:50])


@pytest.mark.parametrize(
    ("kind", "args"),
    [
        (Denoising, ("gaussian", 0.3)),
        (NeighborPreserving, (5, 0.25, "affine")),
    ],
)
def test_image_shape_by_position_is_deprecated(kind, args):
    expected = kind(*args, image_shape=(4, 5))
    with pytest.warns(
        FutureWarning, match=rf"Pass image_shape=\.\.\. to {kind.__name__} by ke"
    ) as c:
        regularizer = kind(*args, (4, 5))
    assert [each.filename for each in c] == [__file__]
    assert regularizer.get_params() == expected.get_params()
    assert clone(regularizer).get_params() == expected.get_params()
    parameter = inspect.signature(kind).parameters["image_shape"]
    assert parameter.kind is parameter.KEYWORD_ONLY
    with pytest.raises(TypeError, match="positional arguments but"):
        kind(*args, (4, 5), None)


def test_nested_parameters_can_be_searched(digits):
    search = GridSearchCV(
        make_pipeline(quick(Sparse()), KNeighborsClassifier()),
        {"autoencodertransformer__regularizer__weight": [0.0, 1.0]},
        cv=2,
    ).fit(digits[0][:200], digits[2][:200])
    assert len(set(search.cv_results_["mean_test_score"])) == 2


def test_twenty_lines_make_a_regularizer(digits):
    class Centred(Regularizer):
        def __init__(self, weight=1.0):
            self.weight = weight

        def penalty(self, batch):
            return self.weight * batch.codes.square().mean()

    X = digits[0]
    spread = {
        weight: quick(Centred(weight), max_epochs=5).fit_transform(X).std() for weight in (0, 0.1)
    }
    assert spread[0.1] < 0.8 * spread[0]


def test_reported_loss_is_that_of_reconstruction_alone(digits):
    X = digits[0]

    class Constant(Regularizer):
        def penalty(self, batch):
            return 1000.0

    assert quick(Constant()).fit(X).loss_ == quick(Regularizer()).fit(X).loss_


@pytest.mark.parametrize("n_rows", [20, 2000], ids=["drawn for the batch", "drawn before"])
def test_masking_sets_the_asked_part_to_zero_and_leaves_missing_values(n_rows):
    rows = torch.ones(2000, 6)
    rows[:, 0] = torch.nan
    denoising = Denoising("masking", 0.3).prepare(data(n_rows=n_rows))
    corrupted = denoising.corrupt(rows, batch(rows=rows))
    assert corrupted[:, 0].isnan().all()
    assert float((corrupted[:, 1:] == 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    assert set(corrupted[:, 1:].unique().tolist()) == {0.0, 1.0}
    assert float(rows[:, 1:].min()) == 1


@pytest.mark.parametrize("n_rows", [20, 8000], ids=["drawn for the batch", "drawn before"])
def test_gaussian_noise_has_the_asked_deviation(n_rows):
    rows = torch.ones(8000, 6)
    # of columns with the deviation 2
    denoising = Denoising("gaussian", 0.3).prepare(data(n_rows=n_rows))
    batches = [batch(rows=rows, rng=np.random.default_rng(seed)) for seed in range(2)]
    noise, other = (denoising.corrupt(rows, each) - rows for each in batches)
    assert float(noise.std()) == pytest.approx(0.6, abs=0.02)
    assert float(noise.mean()) == pytest.approx(0, abs=0.01)
    assert torch.equal(noise, other) == (n_rows == 20)  # whose generators have the same seed


def test_clean_rows_are_the_target_of_denoising():
    seen = []

    class Look(Regularizer):
        def penalty(self, batch):
            seen.append((batch.rows, batch.inputs))
            return 0.0

    X = np.random.default_rng(0).random((64, 6)) / 2 + 0.25
    AutoencoderTransformer(regularizer=[Denoising(), Look()], max_epochs=1, scaling=None).fit(X)
    rows, inputs = seen[0]
    assert float((inputs == 0).float().mean()) == pytest.approx(0.25, abs=0.1)
    assert float(rows.min()) >= 0.25


def test_sparse_penalty_is_the_divergence_and_is_reached(digits):
    codes = torch.randn(100, 4, dtype=torch.float64)
    expected = sum(
        torch.distributions.kl_divergence(
            torch.distributions.Bernoulli(torch.tensor(0.2, dtype=torch.float64)),
            torch.distributions.Bernoulli(codes.sigmoid().mean(dim=0)[j]),
        )
        for j in range(4)
    )
    assert float(Sparse(3.0, 0.2).penalty(batch(codes=codes))) == pytest.approx(3 * float(expected))
    transformer = quick(Sparse(1.0, 0.1), n_components=16, max_epochs=30)
    activations = 1 / (1 + np.exp(-transformer.fit_transform(digits[0])))
    np.testing.assert_allclose(activations.mean(axis=0), 0.1, atol=0.03)


def test_contractive_penalty_is_the_norm_of_the_jacobian(digits):
    encoder = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2))
    rows = torch.rand(7, 6)
    expected = np.mean(
        [float(torch.autograd.functional.jacobian(encoder, row).square().sum()) for row in rows]
    )
    penalty = Contractive(0.5).penalty(batch(encoder=encoder, inputs=rows))
    assert float(penalty.detach()) == pytest.approx(0.5 * expected, rel=1e-5)
    penalty.backward()
    assert encoder[0].weight.grad.abs().max() > 0


@torch.no_grad()
def test_variational_penalty_is_the_divergence_by_sampling():
    regularizer = Variational(2.0).prepare(data())
    regularizer.head.weight.copy_(torch.tensor([[0.3, 0.1], [-0.2, 0.5]]))
    regularizer.head.bias.copy_(torch.tensor([-1.0, 0.4]))
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(5, 2, generator=generator)
    log_variance = regularizer.head(codes)
    posterior = torch.distributions.Normal(codes, (log_variance / 2).exp())
    samples = codes + posterior.stddev * torch.randn(200_000, 5, 2, generator=generator)
    log_ratio = posterior.log_prob(samples) - torch.distributions.Normal(0, 1).log_prob(samples)
    expected = 2.0 / 6 * float(log_ratio.sum(dim=-1).mean())
    penalty = float(regularizer.penalty(batch(codes=codes)))
    assert penalty == pytest.approx(expected, rel=0.01)
    part = batch()
    drawn = torch.stack([regularizer.perturb(codes, part) for _ in range(20_000)])
    torch.testing.assert_close(drawn.mean(dim=0), codes, atol=0.03, rtol=0)
    torch.testing.assert_close(drawn.std(dim=0), posterior.stddev, atol=0.03, rtol=0)


def test_variational_codes_are_the_mean_and_near_normal(digits):
    X = digits[0]
    transformer = quick(Variational(beta=10), max_epochs=40)
    codes = transformer.fit_transform(X)
    np.testing.assert_array_equal(codes, transformer.transform(X))
    plain = quick(None, max_epochs=40).fit_transform(X)
    assert codes.std() < 1.2
    assert codes.std() < 0.7 * plain.std()


def test_neighbor_penalty_is_the_contrastive_loss():
    codes, partners = torch.randn(2, 6, 3, dtype=torch.float64).requires_grad_()
    ends = torch.cat([codes, partners])
    s = 1 / (1 + torch.cdist(ends, ends).square())
    losses = []
    for i in range(12):
        j = (i + 6) % 12
        others = [k for k in range(12) if k not in (i, j)]
        losses.append(-(s[i, j] / (s[i, j] + s[i, others].sum())).log())
    expected = 0.5 * torch.stack(losses).mean()
    regularizer = NeighborPreserving()
    regularizer._scale = 0.5
    penalty = regularizer.penalty(batch(codes=codes, partner_codes=partners))
    torch.testing.assert_close(penalty, expected)
    for by_hand, by_autograd in zip(
        torch.autograd.grad(penalty, [codes, partners]),
        torch.autograd.grad(expected, [codes, partners]),
        strict=True,
    ):
        torch.testing.assert_close(by_hand, by_autograd)


def test_a_single_row_and_its_partner_do_not_push():
    codes = torch.randn(1, 3, requires_grad=True)
    regularizer = NeighborPreserving()
    regularizer._scale = 0.5
    penalty = regularizer.penalty(batch(codes=codes, partner_codes=codes.detach() + 1))
    penalty.backward()
    assert float(penalty.detach()) == pytest.approx(0, abs=1e-6)
    assert float(codes.grad.abs().max()) < 1e-6


def test_partners_are_neighbors_and_are_corrupted_too(digits):
    regularizer = NeighborPreserving()
    regularizer._graph = np.array([[1, 2], [0, 2], [0, 1]])
    drawn = np.array(
        [
            regularizer.partners(batch(index=np.arange(3), rng=np.random.default_rng(i)))
            for i in range(30)
        ]
    )
    for i in range(3):
        assert set(drawn[:, i]) == {0, 1, 2} - {i}


def test_neighbors_improve_the_codes(digits):
    X, X_test, y, y_test = digits

    def score(regularizer):
        transformer = quick(regularizer, max_epochs=30, batch_size=128)
        return make_pipeline(transformer, KNeighborsClassifier()).fit(X, y).score(X_test, y_test)

    assert score("neighbors") > score(None) + 0.02


def shifted(X, down, right):
    images = np.roll(X.reshape(-1, 8, 8), (down, right), axis=(1, 2))
    return images.reshape(len(X), -1)


def test_changed_images_are_neighbors_of_their_own(digits):
    X, X_test, y, y_test = digits

    def knn(transform):
        regularizer = NeighborPreserving(transform=transform)
        return make_pipeline(
            AutoencoderTransformer.from_preset(
                "neighbors",
                scaling="global",
                regularizer=regularizer,
                max_epochs=20,
                random_state=0,
            ),
            KNeighborsClassifier(),
        ).fit(X, y)

    plain, affine = knn(None), knn("affine")
    assert affine.score(X_test, y_test) > plain.score(X_test, y_test) - 0.01
    moved = (2 * X_test + shifted(X_test, 0, 1)) / 3  # a third of a pixel

    def way(transformer):
        before, after = (transformer.transform(rows) for rows in (X_test, moved))
        return np.median(np.linalg.norm(before - after, axis=1)) / before.std()

    assert way(affine[0]) < 0.7 * way(plain[0])


def test_each_image_is_changed_a_little_and_by_a_draw_of_its_own(digits):
    image = torch.from_numpy(np.kron(digits[0][0].reshape(8, 8), np.ones((4, 4)))).float()
    rows = image.repeat(50, 1, 1).view(50, -1)
    regularizer = NeighborPreserving(transform="affine", image_shape=(1, 32, 32))
    regularizer._means = torch.zeros(32 * 32)
    rows[0, :40] = torch.nan
    part = batch(rows=rows)
    changed = regularizer._vary(rows.clone(), part)
    assert torch.equal(changed.isnan(), rows.isnan())
    whole = changed[1:]
    assert float((whole.std(dim=0)).mean()) > 0.3
    assert 0 < float((whole - rows[1:]).abs().mean()) < 3
    assert float(whole.sum(dim=1).std() / whole.sum(dim=1).mean()) < 0.2
    assert float(whole.min()) >= 0
    assert float(whole.max()) <= 16.001
    again = batch(rows=rows)
    assert torch.equal(regularizer._vary(rows.clone(), again)[1:], whole)
    plain = NeighborPreserving()
    assert plain._vary(rows, part) is rows


def test_a_transform_of_neighbors_leaves_the_rows_alone(digits):
    X = (digits[0][:256] / 16).astype(np.float32)
    X[::5, 7] = np.nan
    seen = []

    def mirror(images):
        seen.append(images.clone())
        return images.flip(3)

    inputs = []

    class Look(Regularizer):
        def penalty(self, batch):
            inputs.append((batch.rows, batch.inputs))
            return 0.0

    regularizers = [NeighborPreserving(transform=mirror), Look()]
    quick(regularizers, max_epochs=1).fit(X)
    assert seen[0].shape == (64, 1, 8, 8)
    assert not seen[0].isnan().any()
    for rows, encoded in inputs:
        torch.testing.assert_close(rows, encoded, equal_nan=True)


def test_transforms_of_neighbors_follow_the_random_state(digits, tmp_path):
    X = (digits[0] / 16).astype(np.float32)

    def noisy(images):
        return images + 0.1 * torch.randn_like(images)

    for transform in ("affine", noisy):
        transformer = quick(NeighborPreserving(transform=transform))
        state = torch.get_rng_state()
        codes = transformer.fit_transform(X)
        assert torch.equal(torch.get_rng_state(), state)
        np.testing.assert_array_equal(clone(transformer).fit_transform(X), codes)
        other = clone(transformer).set_params(random_state=1)
        assert not np.array_equal(other.fit_transform(X), codes)
    transformer = quick(NeighborPreserving(transform="affine")).fit(X)
    transformer.save(tmp_path / "model")
    loaded = AutoencoderTransformer.load(tmp_path / "model")
    assert loaded.regularizer.get_params() == transformer.regularizer.get_params()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"transform": "shift"},
            "transform must be 'affine', a callable on images or None, got 'sh",
        ),
        ({"transform": "affine", "image_shape": (8, 7)}, "image_shape"),
        (
            {"transform": lambda x: x[:, :, 1:]},
            r"transform must keep the shape of images: \(64, 1, 8",
        ),
        ({"transform": lambda x: x / 0}, "transform must return finite numbers"),
    ],
)
def test_transforms_of_neighbors_that_do_not_fit(digits, settings, message):
    with pytest.raises(ValueError, match=message):
        quick(NeighborPreserving(**settings)).fit(digits[0])


def test_a_part_of_a_batch_of_many_rows_is_decoded(digits, monkeypatch):
    X = digits[0]
    monkeypatch.setattr(aefeatures._nets.contrastive, "_MANY_COLUMNS", 64)
    decoded, losses = [], []

    def fit(regularizers):
        transformer = quick(regularizers, max_epochs=10, loss="huber")  # not the written gradient
        forward = torch.nn.Sequential.forward

        def watch(self, inputs):
            if inputs.shape[1] == 3 and len(inputs) <= 64:  # not the look at what was learned
                decoded.append(len(inputs))
            return forward(self, inputs)

        with monkeypatch.context() as watching:
            watching.setattr(torch.nn.Sequential, "forward", watch)
            transformer.fit(X)
        losses.append(transformer.loss_)
        return max(decoded[:20])

    assert fit(NeighborPreserving()) == 64
    monkeypatch.setattr(aefeatures._nets.contrastive, "_MANY_ROWS", 500)
    decoded.clear()
    assert fit(NeighborPreserving()) == 32
    assert 0.5 < losses[1] / losses[0] < 2, "the loss is that of a row"
    decoded.clear()
    assert fit([NeighborPreserving(), Regularizer()]) == 64, "it may look at all of them"


@pytest.mark.parametrize(("name", "weight"), [("neighbors", 0.5), ("supervised", 1.0)])
def test_the_weight_follows_the_units_of_the_columns(digits, name, weight):
    X = digits[0].astype(np.float64)
    X_missing = np.where(np.random.default_rng(0).random(X.shape) < 0.1, np.nan, X)

    def scale(X):
        transformer = quick(name, scaling=None, max_epochs=1).fit(X, digits[2])
        model = fitted_model(transformer)
        batches = RowBatches(
            X, model.scaling, batch_size=64, device=torch.device("cpu"), dtype=torch.float32
        )
        means = model.fill.state_dict()["values"]
        data = TrainingData(batches, digits[2], means, 3, np.random.default_rng(0))
        return REGULARIZERS[name]().prepare(data)._scale

    assert scale(X) == pytest.approx(weight * X.var(axis=0).mean(), rel=1e-4)
    assert scale(X / 16) == pytest.approx(scale(X) / 256, rel=1e-4)
    assert scale(X_missing) == pytest.approx(scale(X), rel=0.02)


@pytest.mark.parametrize("n_rows", [1, 2, 5, 16])
def test_fewer_rows_than_neighbors(digits, n_rows):
    codes = quick("neighbors").fit(digits[0][:n_rows]).transform(digits[0][:n_rows])
    assert len(np.unique(codes.round(5), axis=0)) == n_rows


def test_the_graph_is_not_kept(digits):
    regularizer = NeighborPreserving()
    transformer = quick(regularizer).fit(digits[0])
    assert vars(regularizer) == vars(NeighborPreserving())
    kept = [v for v in vars(transformer).values() if isinstance(v, np.ndarray)]
    assert all(len(v) != len(digits[0]) for v in kept)
    assert transformer._memory.heads == [(NeighborPreserving, None)]


def test_labels_shape_the_codes(digits):
    X, X_test, y, y_test = digits

    def score(regularizer, labels):
        transformer = quick(regularizer, max_epochs=20).fit(X, labels)
        knn = KNeighborsClassifier().fit(transformer.transform(X), y)
        return knn.score(transformer.transform(X_test), y_test)

    with_labels, without = score("supervised", y), score(None, None)
    assert with_labels > max(without + 0.03, 0.93)
    assert score("supervised", y.astype(str)) == with_labels
    assert score(Supervised(weight=0.0), y) == pytest.approx(without, abs=0.05)


def test_unlabelled_rows_count_for_nothing():
    codes = torch.randn(6, 2)
    y = np.array([0, 1, -1, 2, -1, -1])
    regularizer = Supervised().prepare(data(y))
    with torch.no_grad():
        regularizer.head.weight.normal_()
    part = batch(codes=codes, index=np.arange(6))
    expected = torch.nn.functional.cross_entropy(
        regularizer.head(codes[[0, 1, 3]]), torch.tensor([0, 1, 2]), reduction="sum"
    )
    assert float(regularizer.penalty(part)) == pytest.approx(4 * float(expected) / 6, rel=1e-5)


def test_numbers_are_regressed_on():
    y = np.array([0.5, 2.5, np.nan, 1.1])
    regularizer = Supervised().prepare(data(y))
    assert regularizer.head.classes is None
    # The model starts at the mean, where the standardized squared error is 1.
    penalty = regularizer.penalty(batch(codes=torch.randn(4, 2), index=np.arange(4)))
    assert float(penalty) == pytest.approx(4 * 3 / 4, rel=1e-5)


@pytest.mark.parametrize(
    ("y", "unlabeled", "labelled"),
    [
        ([0, 1, -1], "auto", [1, 1, 0]),
        ([0, 1, -1], None, [1, 1, 1]),
        ([1, -1, 1], -1, [1, 0, 1]),
        ([1, -1, 1], None, [1, 1, 1]),
        ([0.5, np.nan, -1.0], "auto", [1, 0, 1]),
        ([0.5, np.nan, 7.0], 7.0, [1, 0, 0]),
        (["a", "b", "?"], "?", [1, 1, 0]),
        (["a", "b", "auto"], "auto", [1, 1, 1]),
        (np.array(["a", np.nan, "b"], dtype=object), "auto", [1, 0, 1]),
        ([0.0, np.nan, 1.0], np.nan, [1, 0, 1]),
        ([0.0, np.nan, 1.0, -1.0], "auto", [1, 0, 1, 0]),
        ([-1.0, np.nan, 1.0], "auto", [1, 0, 1]),
        (np.array(["a", None, pd.NA], dtype=object), "auto", [1, 0, 0]),
        (np.array([0, 1, -1, None], dtype=object), "auto", [1, 1, 0, 0]),
    ],
)
def test_what_counts_as_unlabelled(y, unlabeled, labelled):
    found, known, _ = split_labels(np.asarray(y), unlabeled)
    assert found.tolist() == [bool(row) for row in labelled]
    assert len(known) == sum(labelled)


def test_objects_are_labels(digits):
    X, y = digits[0][:60], np.arange(60) % 3
    objects = y.astype(object)
    objects[::5] = None
    labelled = np.where(objects == None, -1, y)  # noqa: E711
    expected = quick("supervised").fit(X, labelled).transform(X)
    np.testing.assert_array_equal(quick("supervised").fit(X, objects).transform(X), expected)
    with pytest.raises(ValueError, match="Set unlabeled=None if it is a class"):
        quick("supervised").fit(X, np.where(y, 1, -1).astype(object))


def test_bad_labels_are_refused(digits):
    X = digits[0][:50]
    y = np.where(np.arange(50) % 2, 1, -1)
    with pytest.raises(ValueError, match="Set unlabeled=None if it is a class"):
        quick("supervised").fit(X, y)
    quick(Supervised(unlabeled=None)).fit(X, y)
    with pytest.raises(ValueError, match="requires y to be passed, but the target y is None"):
        quick("supervised").fit(X)
    with pytest.raises(ValueError, match="No row of y is labelled"):
        quick("supervised").fit(X, np.full(50, np.nan))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        quick("supervised").fit(X, y[:20])
    transformer = quick(Supervised(unlabeled=None)).partial_fit(X, y)
    with pytest.raises(ValueError, match=r"y has the classes \[5\], which the first call did not"):
        transformer.partial_fit(X, np.full(50, 5))


@pytest.mark.parametrize(
    ("y", "task"),
    [
        ([0, 1, 2], "classification"),
        ([3.0, 151.0, 75.0, np.nan], "classification"),
        ([True, False, True], "classification"),
        (["a", "b", None], "classification"),
        ([0.5, 151.0, 75.0, None], "regression"),
    ],
)
def test_what_labels_are_taken_for_is_visible(digits, tmp_path, y, task):
    X, y = digits[0][:60], np.resize(np.array(y, dtype=object), 60)
    transformer = quick(["sparse", "supervised"], n_components=2).fit(X, y)
    assert transformer.task_ == task
    assert pickle.loads(pickle.dumps(transformer)).task_ == task
    transformer.save(tmp_path / "model")
    assert AutoencoderTransformer.load(tmp_path / "model").task_ == task
    assert transformer.set_params(regularizer=None).fit(X).task_ is None


@pytest.mark.parametrize("dtype", [np.int64, np.float64, np.uint8, object])
def test_whole_numbers_can_be_regressed_on(digits, dtype):
    X, y = digits[0][:100], digits[2][:100]
    # Standardized, halves are bitwise the same numbers.
    expected = quick("supervised").fit(X, y / 2)
    regression = quick(Supervised(task="regression")).fit(X, y.astype(dtype))
    assert regression.task_ == expected.task_ == "regression"
    np.testing.assert_array_equal(regression.transform(X), expected.transform(X))
    classes = quick(Supervised(task="classification")).fit(X, y / 2)
    assert classes.task_ == "classification"
    np.testing.assert_array_equal(classes.transform(X), quick("supervised").fit(X, y).transform(X))


def test_the_task_stays_that_of_the_first_call(digits):
    X, y = digits[0][:60], digits[2][:60] / 2
    transformer = quick("supervised").partial_fit(X, y)
    transformer.partial_fit(X[:3], np.array([1, -1, 2]))  # numbers still, although they are whole
    assert transformer.task_ == "regression"
    assert heads_of(transformer)[0].classes is None
    transformer.set_params(regularizer=Supervised(task="classification"))
    with pytest.raises(ValueError, match="task='classification', but the first call learned a reg"):
        transformer.partial_fit(X, y)
    with pytest.raises(ValueError, match=r"task must be one of auto, .*, got 'ranking'"):
        quick(Supervised(task="ranking")).fit(X, y)
    with pytest.raises(ValueError, match=r"task='regression' needs numbers as labels, got '1.0'"):
        quick(Supervised(task="regression")).fit(X, y.astype(str))


def few(y, per_class=1, unlabelled=-1):
    """Labels for some rows of each class alone."""
    labels = np.full(len(y), unlabelled, dtype=np.result_type(y, type(unlabelled)))
    for label in np.unique(y):
        labels[np.flatnonzero(y == label)[:per_class]] = label
    return labels


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("kind", [np.int64, np.float64, str, object])
def test_early_stopping_keeps_a_label_of_each_class(digits, fraction, kind):
    X, y = digits[0][:300], few(digits[2][:300])
    y = np.where(y < 0, None, y.astype(str)) if kind is str else y.astype(kind)
    classes = [str(i) for i in range(10)] if kind is str else list(range(10))
    for seed in range(5):
        transformer = AutoencoderTransformer(
            2, hidden_layer_sizes=4, regularizer=[Sparse(), Supervised()], max_epochs=1,
            early_stopping=True, validation_fraction=fraction, random_state=seed,
        ).fit(X, y)  # fmt: skip
        head = heads_of(transformer)[1]
        assert head.classes.tolist() == classes
        training, validation = split_of(transformer, 300, y)
        assert set(y[training].tolist()) >= set(classes)
        assert sorted([*training, *validation]) == list(range(300))
        assert len(validation) == 300 * fraction


@pytest.mark.parametrize("y", [[0, 0, 1, 1, -1, -1], [-1, -1, 4, 5, 6, -1], [0.5] + 5 * [np.nan]])
def test_labels_are_judged_before_rows_are_set_aside(digits, y):
    """Whatever of them is left for training, and be it one class and -1."""
    y = np.array(y)
    for seed in range(8):
        transformer = quick("supervised", early_stopping=True, validation_fraction=0.5)
        transformer.set_params(random_state=seed, max_epochs=1).fit(digits[0][:6], y)
        expected = None if y.dtype.kind == "f" else sorted(set(y.tolist()) - {-1})
        classes = heads_of(transformer)[0].classes
        assert expected == (None if classes is None else classes.tolist())


def test_early_stopping_splits_as_ever_where_no_class_is_lost(digits):
    X, y = digits[0][:200], digits[2][:200]
    transformer = quick("supervised", early_stopping=True).fit(X, y)
    for ours, plain in zip(
        split_of(transformer, 200, y), split_of(transformer, 200, None), strict=True
    ):
        np.testing.assert_array_equal(ours, plain)
    with pytest.raises(ValueError, match="finds no row to validate on: each is the only labelled"):
        quick("supervised", early_stopping=True).fit(X[:10], np.arange(10))


@pytest.mark.parametrize("method", ["partial_fit", "fit"])
@pytest.mark.parametrize("later", [-1, np.nan, None])
@pytest.mark.parametrize("kind", [np.int64, np.float64, object, str])
def test_later_rows_without_labels_are_learned(digits, method, later, kind):
    X, y = digits[0][:120], digits[2][:120] % 3
    y = y.astype(kind)
    transformer = quick("supervised", warm_start=True, max_epochs=1)
    getattr(transformer, method)(X[:60], y[:60])
    before = transformer.transform(X)
    getattr(transformer, method)(X[60:], np.full(60, later, dtype=None if later else object))
    assert transformer.n_iter_ == 2
    assert not np.array_equal(transformer.transform(X), before)
    # One class and -1 are no new pair of classes.
    mixed = np.where(np.arange(60) % 2, y[60:][0], np.array(later, dtype=object))
    getattr(transformer, method)(X[60:], mixed)
    assert heads_of(transformer)[0].classes.tolist() == np.unique(y).tolist()
    new = "x" if kind is str else 7
    with pytest.raises(ValueError, match=rf"\[{new!r}\], which the first call did not have"):
        getattr(transformer, method)(X[60:], np.full(60, new))


def test_rows_without_labels_add_no_gradient_of_labels(digits):
    X, y = digits[0][:60], digits[2][:60] % 3
    chunks = [(X, y), (X, np.full(60, -1))]
    with_labels = quick(Supervised(weight=1.0), learning_rate=1e-3)
    head_after = []
    for rows, labels in chunks:
        if head_after:
            with_labels._memory.optimizer_state = None  # no momentum of the labels before
        with_labels.partial_fit(rows, labels)
        head_after.append(heads_of(with_labels)[0].weight.detach().clone())
    assert torch.equal(*head_after)


def test_a_first_fit_needs_a_label(digits):
    for method in ("fit", "partial_fit"):
        with pytest.raises(ValueError, match=r"No row of y is labelled\. The first fit needs"):
            getattr(quick("supervised"), method)(digits[0][:9], np.full(9, -1))


@pytest.mark.parametrize("mixup", [0.0, 0.5])
def test_the_loss_of_labels_is_that_of_mixed_rows(mixup):
    y = np.array([0, 0, 0, 1, -1, 2])
    regularizer = Supervised(mixup=mixup).prepare(data(y))
    regularizer.head.weight.data.normal_(generator=torch.Generator().manual_seed(1))
    rows = torch.rand(6, 6, generator=torch.Generator().manual_seed(2))
    encoder = torch.nn.Linear(6, 2)
    given = batch(rows=rows, index=np.arange(6), encoder=encoder)
    labelled, targets = [0, 1, 2, 3, 5], torch.tensor([0, 0, 0, 1, 2])
    order, share = torch.arange(5), 1.0
    if mixup:
        order = torch.randperm(5, generator=torch.Generator().manual_seed(0))
        share = np.random.default_rng(0).beta(mixup, mixup)
    known = rows[labelled]
    logits = regularizer.head(encoder(share * known + (1 - share) * known[order]))
    losses = -logits.log_softmax(dim=1)
    each = torch.arange(5)
    expected = share * losses[each, targets].sum()
    expected += (1 - share) * losses[each, targets[order]].sum()
    if not mixup:  # the codes of the step
        given.codes = encoder(rows)
    expected = float(regularizer._scale) * expected / 6
    torch.testing.assert_close(regularizer.penalty(given), expected)


def test_mixup_of_numbers_mixes_losses():
    y = np.array([0.5, 2.0, 3.5, np.nan, 1.0, 7.0])
    regularizer = Supervised(mixup=1.0).prepare(data(y))
    encoder = torch.nn.Linear(6, 2)
    rows = torch.rand(6, 6)
    penalty = regularizer.penalty(batch(rows=rows, index=np.arange(6), encoder=encoder))
    targets = StandardScaler().fit_transform(y[~np.isnan(y), None])[:, 0]
    assert float(penalty) == pytest.approx(float(regularizer._scale) * (targets**2).sum() / 6)
    penalty.backward()
    assert regularizer.head.weight.grad.abs().max() > 0


def test_a_batch_without_labels_adds_nothing():
    regularizer = Supervised(mixup=0.5).prepare(data(np.array([0, 1, -1, 2, -1, -1])))
    unlabelled = batch(rows=torch.rand(3, 6), index=np.array([2, 4, 5]))
    assert float(regularizer.penalty(unlabelled)) == 0


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"mixup": -1}, r"mixup of Supervised must be a number in \[0, inf\), got -1"),
        ({"mixup": "yes"}, "mixup of Supervised must be a number"),
    ],
)
def test_bad_parameters_of_labels(digits, params, message):
    with pytest.raises(ValueError, match=message):
        quick(Supervised(**params)).fit(digits[0], digits[2])


def test_tags_ask_for_labels_only_where_they_are_needed():
    assert quick("supervised").__sklearn_tags__().target_tags.required
    assert quick(["sparse", Supervised()]).__sklearn_tags__().target_tags.required
    assert not quick(["sparse"]).__sklearn_tags__().target_tags.required


def test_objective_brings_partners_of_several_regularizers():
    class Other(Regularizer):
        def __init__(self, offset=1):
            self.offset = offset

        def partners(self, batch):
            return (batch.index + self.offset) % 10

        def penalty(self, batch):
            expected = batch.encoder(batch.take((batch.index + self.offset) % 10))
            torch.testing.assert_close(batch.partner_codes, expected)
            return batch.partner_codes.sum()

    X = torch.rand(10, 6)
    batches = SimpleNamespace(device=torch.device("cpu"), take=lambda index: X[index])
    model = torch.nn.Sequential(torch.nn.Linear(6, 2), torch.nn.Linear(2, 6))
    objective = Objective(
        model,
        aefeatures._nets.losses.LOSSES["mse"],
        [Other(1), Regularizer(), Other(3)],
        batches,
        np.random.default_rng(0),
    )
    index = np.array([2, 9, 4])
    summed, total = objective(X[index], index)
    mean = float(((model(X[index]) - X[index]) ** 2).mean())
    assert float(summed) == pytest.approx(3 * mean, rel=1e-5)
    brought = float(model[0](X[(index + 1) % 10]).sum() + model[0](X[(index + 3) % 10]).sum())
    assert float(total) == pytest.approx(mean + brought, rel=1e-4)


def test_only_the_networks_products_are_in_bfloat16(digits):
    seen = []

    class Look(Regularizer):
        def penalty(self, batch):
            seen.append((batch.codes.dtype, (batch.codes @ batch.codes.T).dtype))
            return 0.0

    quick([Look(), "neighbors"], precision="bfloat16", max_epochs=1).fit(digits[0][:64])
    assert seen == [(torch.float32, torch.float32)]


# Transforms of torchvision as the corruption


def images(noise, **params):
    params = {"max_epochs": 2, "random_state": 0, **params}
    return AutoencoderTransformer.from_preset("images", regularizer=Denoising(noise), **params)


def transforms():
    v2 = pytest.importorskip("torchvision.transforms.v2")
    everything = [v2.RandomErasing(p=1), v2.RandomAffine(20, scale=(0.8, 1)), v2.GaussianBlur(3)]
    everything += [v2.RandomResizedCrop(8, antialias=True), v2.ColorJitter(0.5)]
    return v2, v2.Compose(everything)


def test_transforms_get_images_in_the_networks_range(digits):
    X = (digits[0][:, :48] / 16).astype(np.float32)
    X[::5, 7] = np.nan
    seen = []

    def mirror(images):
        seen.append(images.clone())
        return images.flip(3)

    rows = []

    class Look(Regularizer):
        def penalty(self, batch):
            rows.append((batch.rows, batch.inputs))
            return 0.0

    regularizers = [Denoising(mirror, image_shape=(3, 4, 4)), Look()]
    AutoencoderTransformer(regularizer=regularizers, max_epochs=1, random_state=0).fit(X)
    clean, inputs = rows[0]
    assert seen[0].shape == (64, 3, 4, 4)
    assert not seen[0].isnan().any()
    assert torch.equal(inputs.isnan(), clean.isnan())
    known = ~clean.isnan()
    assert torch.equal(seen[0].view(64, 48)[known], clean[known])
    assert torch.equal(inputs[known], seen[0].flip(3).reshape(64, 48)[known])


def test_transforms_draw_from_the_random_state_and_leave_the_global_one(digits):
    _, everything = transforms()
    X = (digits[0] / 16).astype(np.float32)
    before = X.copy()
    torch.rand(1)
    state = torch.get_rng_state()
    codes = images(everything).fit_transform(X)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    transformer = images(everything)
    np.testing.assert_array_equal(clone(transformer).fit_transform(X), codes)
    torch.set_rng_state(state)
    np.testing.assert_array_equal(X, before)
    other = clone(transformer).set_params(random_state=1)
    assert not np.array_equal(other.fit_transform(X), codes)
    assert not np.array_equal(images(everything, max_epochs=1).fit_transform(X), codes)


def test_fits_with_transforms_side_by_side(digits):
    _, everything = transforms()
    X = (digits[0] / 16).astype(np.float32)
    state = torch.get_rng_state()
    with ThreadPoolExecutor(3) as pool:
        codes = list(pool.map(lambda _: images(everything).fit_transform(X), range(3)))
    assert torch.equal(torch.get_rng_state(), state)
    for other in codes:
        np.testing.assert_array_equal(other, images(everything).fit_transform(X))


def test_a_transform_that_fails_leaves_the_global_random_state(digits):
    def fail(images):
        torch.rand(3)
        raise RuntimeError("no")

    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="no"):
        images(fail).fit(digits[0])
    assert torch.equal(torch.get_rng_state(), state)
    images(torch.nn.Identity()).fit(digits[0])  # the lock is free


def test_transforms_in_searches_checkpoints_and_files(digits, tmp_path):
    v2, everything = transforms()
    X, y = digits[0][:200], digits[2][:200]
    pipeline = make_pipeline(images("masking", scaling="global"), KNeighborsClassifier())
    name = "autoencodertransformer__regularizer"
    grid = [
        {f"{name}__noise": [everything, "gaussian"]},
        {name: [Denoising(v2.RandomErasing()), None]},
    ]
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(X, y)
    assert len(search.cv_results_["mean_test_score"]) == 4
    blurred = images(v2.GaussianBlur(3))  # which has a `get_params` of its own
    assert clone(blurred).get_params()["regularizer__noise"].kernel_size == (3, 3)
    assert "GaussianBlur" in repr(blurred)
    assert "GaussianBlur" in blurred._repr_html_()
    pickled = pickle.loads(pickle.dumps(blurred))
    np.testing.assert_array_equal(pickled.fit_transform(X), blurred.fit_transform(X))
    kept = images(everything, checkpoint=Checkpoint(tmp_path, keep=True))
    codes = kept.fit_transform(X)
    np.testing.assert_array_equal(clone(kept).fit_transform(X), codes)
    assert len(list(tmp_path.iterdir())) == 1
    clone(kept).set_params(regularizer__noise=v2.GaussianBlur(5)).fit(X)
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(ValueError, match=r"(?s)regularizer__noise=Compose.* save stores no code"):
        kept.save(tmp_path / "model")


@pytest.mark.parametrize(
    ("noise", "image_shape", "message"),
    [
        (lambda x: x[:, :, 1:], None, r"shape of images: \(64, 1, 8, 8\) became \(64, 1, 7, 8\)"),
        (lambda x: None, None, r"shape of images: \(64, 1, 8, 8\) became <class 'NoneType'>"),
        (lambda x: (x * 255).byte(), None, "noise must return floats .* got torch.uint8"),
        (lambda x: x.log(), None, "noise must return finite numbers, got NaN or infinity"),
        (lambda x: x, (3, 8, 8), r"image_shape=\(3, 8, 8\) has 192 entries, but X has 64"),
    ],
)
def test_transforms_that_do_not_fit_are_refused(digits, noise, image_shape, message):
    regularizer = Denoising(noise, image_shape=image_shape)
    with pytest.raises(ValueError, match=message):
        quick(regularizer).fit(digits[0])


class WorksInPlace(Regularizer):
    """Noise without a draw, in place or not."""

    def __init__(self, in_place):
        self.in_place = in_place

    def prepare(self, data):
        if self.in_place:
            data.means.fill_(99)
        return self

    def corrupt(self, inputs, batch):
        if self.in_place:
            batch.rows[:, 1] = 5
        return inputs.mul_(0.5) if self.in_place else inputs * 0.5

    def perturb(self, codes, batch):
        return codes.add_(0.1) if self.in_place else codes + 0.1

    def penalty(self, batch):
        return batch.codes.square().mean()


@pytest.mark.parametrize("scaling", [None, "standard"])
def test_regularizers_of_ones_own_may_work_in_place(scaling):
    X = np.random.default_rng(0).random((50, 6))
    before = X.copy()
    first, second = (
        AutoencoderTransformer(
            2, regularizer=[WorksInPlace(in_place)], scaling=scaling, max_epochs=3, random_state=0
        ).fit(X)
        for in_place in (True, False)
    )
    np.testing.assert_array_equal(X, before)
    np.testing.assert_array_equal(first.transform(X), second.transform(X))
    assert first.loss_curve_ == second.loss_curve_
    X[0, 0] = np.nan  # filled by the mean, which `prepare` got a copy of
    np.testing.assert_array_equal(first.transform(X), second.transform(X))


# What a regularizer of the caller's own draws


class Drawing(Regularizer):
    """Draws from PyTorch's global state, wherever it can."""

    def prepare(self, data):
        prepared = Drawing()
        prepared.head = torch.nn.Linear(data.n_components, 2)
        return prepared

    def corrupt(self, inputs, batch):
        return inputs + 0.1 * torch.randn_like(inputs)

    def perturb(self, codes, batch):
        return torch.nn.functional.dropout(codes, 0.2)

    def penalty(self, batch):
        return (self.head(batch.codes) * torch.rand(())).square().mean()


@pytest.mark.parametrize("params", [{}, {"early_stopping": True}])
def test_own_regularizers_draw_from_random_state(digits, params):
    X, codes = digits[0][:150], []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        codes.append(quick([Drawing(), "sparse"], **params).fit_transform(X))
        assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(*codes)
    other = quick(Drawing(), random_state=1, **params).fit_transform(X)
    assert not np.array_equal(codes[0], other)


# The Jacobian of each row


def normalized_encoder(n_features, n_components):
    encoder = torch.nn.Sequential(
        torch.nn.Linear(n_features, 8),
        torch.nn.BatchNorm1d(8),
        torch.nn.Tanh(),
        torch.nn.Dropout(0.3),
        torch.nn.Linear(8, n_components),
    )
    return encoder, torch.nn.Linear(n_components, n_features)


@pytest.mark.parametrize("n_rows", [1, 7])
@pytest.mark.parametrize("kind", ["ours", "PyTorch's"])
def test_contractive_is_of_each_rows_jacobian(kind, n_rows):
    torch.manual_seed(0)
    if kind == "ours":
        spec = BuildSpec(False, torch.float32, torch.Generator().manual_seed(0))
        encoder, _ = DenseNetwork((8,), "tanh", "batch").build(6, 2, spec=spec)
    else:
        encoder, _ = normalized_encoder(6, 2)
    encoder.train()
    for _ in range(20):  # running statistics
        encoder(3 * torch.randn(32, 6) + 1)
    buffers = [buffer.clone() for buffer in encoder.buffers()]
    inputs = 3 * torch.randn(n_rows, 6) + 1
    penalty = Contractive(0.5).penalty(SimpleNamespace(inputs=inputs, encoder=encoder))
    for buffer, before in zip(encoder.buffers(), buffers, strict=True):
        assert torch.equal(buffer, before)
    assert all(part.training for part in encoder.modules())
    encoder.eval()
    jacobians = torch.stack(
        [torch.autograd.functional.jacobian(lambda x: encoder(x[None])[0], row) for row in inputs]
    )
    expected = 0.5 * jacobians.square().sum(dim=(1, 2)).mean()
    torch.testing.assert_close(penalty, expected)


def test_contractive_leaves_modules_that_evaluate_as_they_are():
    norms = torch.nn.BatchNorm1d(4).eval(), torch.nn.BatchNorm1d(4)  # one was trained before
    encoder = torch.nn.Sequential(torch.nn.Linear(6, 4), *norms)
    Contractive().penalty(SimpleNamespace(inputs=torch.randn(5, 6), encoder=encoder))
    assert [part.training for part in encoder] == [True, False, True]
    assert [int(part.num_batches_tracked) for part in norms] == [0, 0]


def test_running_statistics_are_updated_once_a_step(digits):
    X = digits[0][:64]
    variances = []
    for regularizer in (None, Contractive(0.0)):
        network = DenseNetwork((8,), normalization="batch")
        transformer = quick(regularizer, network=network, max_epochs=1, learning_rate=1e-9)
        variances.append(transformer.fit(X).encoder_[1].running_var)
    torch.testing.assert_close(*variances)
