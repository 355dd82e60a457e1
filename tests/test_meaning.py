"""Sensitivities of codes, and what each code explains."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from scipy.linalg import subspace_angles
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from aefeatures import (
    AutoencoderTransformer,
    ConvNetwork,
    DenseNetwork,
    code_importance,
    code_sensitivity,
)
from aefeatures._meaning import CodeImportance

# Most trainings are short, as sensitivities are the same function of any weights.
pytestmark = pytest.mark.filterwarnings(
    "ignore:AutoencoderTransformer learned nothing:sklearn.exceptions.ConvergenceWarning"
)

WINE, _ = load_wine(return_X_y=True, as_frame=True)
X = WINE.to_numpy()
LINEAR = {"hidden_layer_sizes": (), "scaling": "standard", "regularizer": None}
PIXELS = load_digits().data[:200]


class Squared(torch.nn.Module):
    """A network that nothing is known about: it works in place, and has no layers."""

    def __init__(self, n_in, n_out):
        super().__init__()
        self.weight = torch.nn.Parameter(0.1 * torch.eye(n_out, n_in))

    def forward(self, x):
        x += 0.5  # in place
        return (
            x.square() @ self.weight.t() if len(self.weight) < x.shape[1] else x @ self.weight.t()
        )


def guest(n_features, n_components):
    return Squared(n_features, n_components), Squared(n_components, n_features)


@pytest.fixture(scope="module")
def fitted_wine():
    return AutoencoderTransformer(
        3, activation="tanh", init="random", max_epochs=20, random_state=0
    ).fit(WINE)


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    frame = WINE.iloc[:, :4].copy()
    frame["kind"] = np.where(
        frame["alcohol"] > 13, "strong", np.where(X[:, 1] > 2, "sour", "light")
    )
    frame["day"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 90, len(X)), "D")
    return frame


def by_differences(transformer, rows, step=1e-4):
    """Sensitivities of each row by central differences, of shape (n, n_components, n_features)."""
    spread = rows.std(axis=0)
    found = []
    for j, size in enumerate(spread):
        moved = np.zeros(rows.shape[1])
        moved[j] = step * (size or 1)
        change = transformer.transform(rows + moved) - transformer.transform(rows - moved)
        found.append(change / (2 * step) * (size > 0))
    return np.stack(found, axis=2)


def angle(sensitivity, rows):
    spread = rows.std(axis=0)
    scaled = (rows - rows.mean(axis=0)) / np.where(spread > 0, spread, 1)
    axes = PCA(len(sensitivity)).fit(scaled).components_
    return subspace_angles(sensitivity.T, axes.T).max()


@pytest.mark.parametrize("load", [load_wine, load_breast_cancer, load_digits])
def test_linear_autoencoder_has_the_axes_of_pca(load):
    rows, _ = load(return_X_y=True)
    transformer = AutoencoderTransformer(
        3, **LINEAR, init="pca", batch_size=len(rows), max_epochs=100, random_state=0
    ).fit(rows)
    assert angle(code_sensitivity(transformer, rows), rows) < 1e-3


def test_linear_autoencoder_finds_the_axes_from_random_weights():
    transformer = AutoencoderTransformer(
        3, **LINEAR, init="random", batch_size=len(X), max_epochs=3000, random_state=0
    ).fit(X)
    sensitivity = code_sensitivity(transformer, X)
    assert angle(sensitivity, X) < 1e-3
    for average in ("rms", None):  # all rows have the same
        other = np.abs(code_sensitivity(transformer, X, average=average))
        np.testing.assert_allclose(other, np.broadcast_to(np.abs(sensitivity), other.shape))


@pytest.mark.parametrize(
    ("rows", "settings"),
    [
        (X, {"activation": "tanh", "init": "random"}),
        (X, {"activation": "gelu", "normalization": "layer", "init": "random"}),
        (X, {"activation": "silu", "normalization": "batch", "init": "random"}),
        (X, {"activation": "tanh", "init": "random", "scaling": "feature"}),
        (X, {"activation": "tanh", "init": "random", "regularizer": "variational"}),
        (PIXELS, {"network": ConvNetwork(channels=(4, 8)), "activation": "silu"}),
        (PIXELS / 16, {"network": DenseNetwork((8,), activation="tanh")}),
    ],
    ids=["dense", "layer norm", "batch norm", "feature", "variational", "convolutions", "unit"],
)
def test_equals_finite_differences(rows, settings):
    transformer = AutoencoderTransformer(2, max_epochs=2, random_state=0, **settings).fit(rows)
    found = code_sensitivity(transformer, rows, average=None)
    expected = by_differences(transformer, rows)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())
    mean = code_sensitivity(transformer, rows)
    np.testing.assert_allclose(mean, found.mean(axis=0), atol=1e-12)
    rms = code_sensitivity(transformer, rows, average="rms")
    np.testing.assert_allclose(rms, np.sqrt(np.square(found).mean(axis=0)), atol=1e-12)


def test_network_of_the_users_own():
    transformer = AutoencoderTransformer(
        2, network=guest, scaling="standard", learning_rate=1e-3, max_epochs=2, random_state=0
    ).fit(X)
    weights = [p.detach().clone() for p in transformer.encoder_.parameters()]
    found = code_sensitivity(transformer, X, average=None)
    expected = by_differences(transformer, X, step=1e-2)  # it computes in float32
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())
    for before, after in zip(weights, transformer.encoder_.parameters(), strict=True):
        assert torch.equal(before, after)
        assert after.grad is None
        assert after.requires_grad


def test_chunks_do_not_matter(fitted_wine, monkeypatch):
    each = {how: code_sensitivity(fitted_wine, WINE, average=how) for how in ("mean", "rms", None)}
    monkeypatch.setattr("aefeatures._rows.sources._CHUNK_ELEMENTS", 2000)
    for how, expected in each.items():
        found = code_sensitivity(fitted_wine, WINE, average=how)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8", "bool", "sparse"])
def test_any_type_of_numbers(dtype):
    rows = (PIXELS > 8) if dtype == "bool" else PIXELS
    rows = sparse.csr_matrix(rows) if dtype == "sparse" else rows.astype(dtype)
    transformer = AutoencoderTransformer(2, max_epochs=1, random_state=0).fit(rows)
    found = code_sensitivity(transformer, rows)
    assert found.dtype == transformer.transform(rows).dtype
    assert found.shape == (2, 64)
    assert np.isfinite(found).all()
    assert np.abs(found).max() > 0


def test_columns_without_influence():
    rows = np.column_stack([X[:, :3], np.full(len(X), 7.0), np.full(len(X), np.nan)])
    with pytest.warns(UserWarning, match="no known value"):
        transformer = AutoencoderTransformer(2, max_epochs=2, random_state=0).fit(rows)
    found = code_sensitivity(transformer, rows)
    assert (found[:, 3] == 0).all()  # constant
    assert np.isnan(found[:, 4]).all()  # never known
    assert (np.abs(found[:, :3]) > 0).all()


def test_missing_values_have_no_sensitivity(fitted_wine):
    rows = WINE.to_numpy(copy=True)
    rows[::2, 3] = np.nan
    rows[:, 5] = np.nan
    found = code_sensitivity(fitted_wine, pd.DataFrame(rows, columns=WINE.columns), average=None)
    each = found.to_numpy().reshape(len(X), 3, 13)
    np.testing.assert_array_equal(
        np.isnan(each), np.broadcast_to(np.isnan(rows)[:, None], each.shape)
    )
    mean = code_sensitivity(fitted_wine, pd.DataFrame(rows, columns=WINE.columns)).to_numpy()
    np.testing.assert_allclose(mean[:, 3], each[1::2, :, 3].mean(axis=0))
    assert np.isnan(mean[:, 5]).all()


def test_unit_is_the_spread_in_fit(fitted_wine):
    one = code_sensitivity(fitted_wine, WINE.iloc[[7]])
    each = code_sensitivity(fitted_wine, WINE, average=None)
    np.testing.assert_allclose(one, each.loc[7])


def test_frames(fitted_wine, table):
    found = code_sensitivity(fitted_wine, WINE)
    assert found.columns.tolist() == WINE.columns.tolist()
    assert found.index.tolist() == fitted_wine.get_feature_names_out().tolist()
    np.testing.assert_array_equal(found, code_sensitivity(fitted_wine, WINE, average="mean"))
    labelled = WINE.set_axis([f"wine {i}" for i in range(len(X))])
    each = code_sensitivity(fitted_wine, labelled, average=None)
    assert each.index[0] == ("wine 0", "autoencodertransformer0")
    assert each.index.names == [None, "code"]


def test_frames_of_polars():
    polars = pytest.importorskip("polars", reason="needs polars")
    frame = polars.DataFrame({"code": X[:, 0], "ash": X[:, 2], "row": X[:, 3]})
    transformer = AutoencoderTransformer(2, max_epochs=2, random_state=0).fit(frame)
    found = code_sensitivity(transformer, frame)
    assert found.columns == ["code_", "code", "ash", "row"]
    assert found["code_"].to_list() == transformer.get_feature_names_out().tolist()
    each = code_sensitivity(transformer, frame[:3], average=None)
    assert each.columns == ["row_", "code_", "code", "ash", "row"]
    assert each["row_"].to_list() == [0, 0, 1, 1, 2, 2]
    importance = code_importance(transformer, frame)
    assert importance.columns == ["code", "drop", "cumulative"]


def test_category_is_the_deviation_over_its_levels(table):
    transformer = AutoencoderTransformer(2, activation="tanh", max_epochs=5, random_state=0).fit(
        table
    )
    found = code_sensitivity(transformer, table, average=None)
    assert found.columns.tolist() == table.columns.tolist()
    assert (found["kind"] >= 0).all()
    # The encoder reads levels as columns of 0 and 1, behind those of the numbers.
    model = transformer._model
    scaling = model.scaling
    rows = torch.from_numpy(np.column_stack([table.iloc[:, :4], np.zeros((len(X), 2))]))
    kinds = sorted(set(table["kind"]))
    rows[:, 4] = torch.tensor([kinds.index(kind) for kind in table["kind"]])
    rows[:, 5] = torch.tensor(table["day"].astype("datetime64[s]").astype(np.int64).tolist())
    scaled = scaling(rows).float()[0]
    jacobian = torch.autograd.functional.jacobian(lambda x: model.encoder(x[None])[0], scaled)
    of_levels = jacobian[:, 5:].double().numpy() / scaling.unit.numpy()
    share = table["kind"].value_counts(normalize=True).sort_index().to_numpy()
    variance = (of_levels**2 @ share) - (of_levels @ share) ** 2
    np.testing.assert_allclose(found["kind"].to_numpy()[:2], np.sqrt(variance), rtol=1e-4)
    np.testing.assert_allclose(found["day"].to_numpy()[:2], jacobian[:, 4], rtol=1e-4)


def test_tables_average_levels_one_by_one(table):
    transformer = AutoencoderTransformer(
        2, activation="tanh", init="random", max_epochs=5, random_state=0
    ).fit(table)
    mean, rms = (code_sensitivity(transformer, table, average=how) for how in ("mean", "rms"))
    assert (mean["kind"] <= rms["kind"]).all()
    each = code_sensitivity(transformer, table, average=None)
    of_first = each.xs("autoencodertransformer0", level="code")
    np.testing.assert_allclose(rms.iloc[0], np.sqrt(np.square(of_first).mean()), rtol=1e-5)
    gaps = table.assign(kind=None)
    assert code_sensitivity(transformer, gaps)["kind"].isna().all()


def test_pipelines_give_the_columns_of_the_autoencoder(fitted_wine):
    pipeline = make_pipeline(
        StandardScaler(), AutoencoderTransformer(2, max_epochs=2, random_state=0)
    ).fit(WINE)
    found = code_sensitivity(pipeline, WINE)
    assert found.columns.tolist() == WINE.columns.tolist()
    alone = AutoencoderTransformer(2, max_epochs=2, random_state=0).fit(WINE)
    np.testing.assert_allclose(found, code_sensitivity(alone, WINE), rtol=1e-6, atol=1e-9)
    reduced = make_pipeline(PCA(4), AutoencoderTransformer(2, max_epochs=2)).fit(WINE)
    assert code_sensitivity(reduced, WINE).columns.tolist() == ["pca0", "pca1", "pca2", "pca3"]
    assert code_importance(reduced, WINE)["code"].str.startswith("autoencodertransformer").all()


def test_tensors_and_lists_are_arrays():
    transformer = AutoencoderTransformer(2, max_epochs=2, random_state=0).fit(X)
    expected = code_sensitivity(transformer, X)
    for rows in (torch.tensor(X), X.tolist(), np.asfortranarray(X)):
        np.testing.assert_array_equal(code_sensitivity(transformer, rows), expected)


def test_nothing_else_changes(fitted_wine):
    given = X.copy()
    given.setflags(write=False)
    before = torch.get_rng_state()
    codes = fitted_wine.transform(WINE)
    expected = code_sensitivity(fitted_wine, WINE)
    with torch.inference_mode():
        code_importance(fitted_wine, WINE)
        np.testing.assert_array_equal(code_sensitivity(fitted_wine, WINE), expected)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(code_sensitivity(fitted_wine, WINE), expected)
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(fitted_wine.transform(WINE), codes)


def test_loaded_in_inference_mode(fitted_wine, tmp_path):
    fitted_wine.save(tmp_path / "wine.safetensors")
    with torch.inference_mode():
        loaded = AutoencoderTransformer.load(tmp_path / "wine.safetensors")
        loaded.transform(WINE)
    found = code_sensitivity(loaded, WINE)
    np.testing.assert_array_equal(found, code_sensitivity(fitted_wine, WINE))


def test_errors(fitted_wine):
    with pytest.raises(ValueError, match="average must be 'mean', 'rms' or None, got 'max'"):
        code_sensitivity(fitted_wine, WINE, average="max")
    with pytest.raises(NotFittedError, match="is not fitted yet"):
        code_sensitivity(AutoencoderTransformer(), WINE)
    with pytest.raises(TypeError, match="estimator must be an AutoencoderTransformer or a Pipe"):
        code_importance(PCA().fit(X), X)
    with pytest.raises(ValueError, match="feature names should match"):
        code_sensitivity(fitted_wine, WINE.iloc[:, ::-1])


class Rounded(torch.nn.Module):
    def __init__(self, n_in, n_out):
        super().__init__()
        self.layer = torch.nn.Linear(n_in, n_out)

    def forward(self, x):
        return self.layer(x.detach())


def test_encoder_without_gradient():
    transformer = AutoencoderTransformer(
        2, network=lambda n, k: (Rounded(n, k), torch.nn.Linear(k, n)), max_epochs=1
    ).fit(X)
    with pytest.raises(ValueError, match="needs an encoder that is differentiable"):
        code_sensitivity(transformer, X)


def test_importance_of_a_linear_autoencoder_is_that_of_pca():
    transformer = AutoencoderTransformer(
        3, **LINEAR, init="pca", batch_size=len(X), max_epochs=100, random_state=0
    ).fit(X)
    pca = PCA(3).fit((X - X.mean(axis=0)) / X.std(axis=0))
    found = code_importance(transformer, X)
    assert isinstance(found, CodeImportance)
    np.testing.assert_array_equal(found.code, [0, 1, 2])
    np.testing.assert_allclose(found.drop, pca.explained_variance_ratio_, atol=1e-4)
    np.testing.assert_allclose(
        found.cumulative, np.cumsum(pca.explained_variance_ratio_), atol=1e-4
    )


def test_importance_is_of_held_codes(fitted_wine):
    codes = fitted_wine.transform(WINE)
    scaled, held = X / X.std(axis=0), []
    for j in range(3):
        fixed = codes.copy()
        fixed[:, j] = codes[:, j].mean()
        rows = np.asarray(fitted_wine.inverse_transform(fixed)) / X.std(axis=0)
        held.append(np.square(scaled - rows).sum())
    total = np.square(scaled - scaled.mean(axis=0)).sum()
    joint = 1 - np.square(scaled - fitted_wine.reconstruct(WINE) / X.std(axis=0)).sum() / total
    drops = joint - (1 - np.array(held) / total)
    found = code_importance(fitted_wine, WINE)
    order = np.argsort(-drops)
    assert found["code"].tolist() == [f"autoencodertransformer{j}" for j in order]
    np.testing.assert_allclose(found["drop"], drops[order], rtol=1e-6)
    np.testing.assert_allclose(found["cumulative"].iloc[-1], joint, rtol=1e-6)
    loss = 1 + fitted_wine.score(WINE)  # the mean squared error, in deviations
    np.testing.assert_allclose(joint, loss, rtol=1e-6)


def test_importance_of_tables_with_gaps(table):
    gaps = table.copy()
    gaps.iloc[::3, 0] = np.nan
    gaps.loc[::4, "kind"] = None
    transformer = AutoencoderTransformer(3, max_epochs=60, random_state=0).fit(gaps)
    found = code_importance(transformer, gaps)
    assert (np.diff(found["drop"]) <= 0).all()
    assert 0.5 < found["cumulative"].iloc[-1] < 1


def test_importance_with_one_code_and_constant_columns():
    rows = np.column_stack([X[:, :3], np.full(len(X), 7.0)])
    transformer = AutoencoderTransformer(1, max_epochs=5, random_state=0).fit(rows)
    found = code_importance(transformer, rows)
    assert found.code.tolist() == [0]
    assert found.cumulative.shape == (1,)
    changed = rows + np.array([0, 0, 0, 5.0])  # the decoder gives the constant anyway
    np.testing.assert_allclose(code_importance(transformer, changed).drop, found.drop)
