import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from imblearn.over_sampling import RandomOverSampler
from imblearn.pipeline import Pipeline as PipelineWithSamplers
from imblearn.under_sampling import RandomUnderSampler
from scipy import sparse
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC

from aefeatures import (
    AutoencoderGenerator,
    AutoencoderOutlierDetector,
    AutoencoderTransformer,
    LatentSpaceDisplay,
    LossCurveDisplay,
    ReconstructionDisplay,
    code_importance,
    code_sensitivity,
    encode_table,
    write_latent_map,
)
from aefeatures._bridges.pipelines import find_transformer

SCALER = FunctionTransformer(lambda X: X - 7)  # not fitted, so that samplers do not matter
CODES = AutoencoderTransformer(max_epochs=4, random_state=0)


def named(kind, *steps):
    return kind([(f"step {i}", step) for i, step in enumerate(steps)])


def frozen(X):
    return FrozenEstimator(AutoencoderTransformer(max_epochs=4, random_state=0).fit(X))


# What holds a transformer; the scaler is what X passes before it.
WAYS = {
    "sampler": lambda X: named(PipelineWithSamplers, SCALER, RandomOverSampler(), CODES, SVC()),
    "samplers": lambda X: named(
        PipelineWithSamplers, RandomOverSampler(), SCALER, RandomUnderSampler(), CODES
    ),
    "none": lambda X: named(Pipeline, None, SCALER, "passthrough", CODES, None),
    "frozen": lambda X: make_pipeline(SCALER, frozen(SCALER.fit_transform(X)), SVC()),
    "frozen pipeline": lambda X: FrozenEstimator(make_pipeline(SCALER, CODES).fit(X)),
    "frozen in front": lambda X: make_pipeline(FrozenEstimator(SCALER.fit(X)), CODES),
    "nested": lambda X: make_pipeline(
        make_pipeline("passthrough", FrozenEstimator(make_pipeline(SCALER).fit(X))),
        make_pipeline(CODES, StandardScaler()),
    ),
    "search": lambda X: GridSearchCV(
        named(PipelineWithSamplers, RandomOverSampler(), SCALER, CODES, SVC()),
        {"step 3__C": [1, 10]},
        cv=2,
    ),
    "search in a pipeline": lambda X: make_pipeline(
        SCALER, GridSearchCV(CODES, {"n_components": [3]}, cv=2)
    ),
    "frozen search": lambda X: FrozenEstimator(
        RandomizedSearchCV(make_pipeline(SCALER, CODES), {"memory": [None]}, n_iter=1, cv=2).fit(X)
    ),
}


@pytest.fixture(scope="module", params=WAYS)
def fitted_way(request, digits):
    X, y = digits[0][:200], digits[2][:200]
    return WAYS[request.param](X).fit(X, y)


def test_the_transformer_and_what_it_is_given(fitted_way, digits):
    transformer, X = find_transformer(fitted_way, digits[1])
    assert isinstance(transformer, AutoencoderTransformer)
    np.testing.assert_array_equal(X, digits[1] - 7)


def test_pictures_of_any_pipeline(fitted_way, digits, tmp_path):
    X, y = digits[1][:40], digits[3][:40]
    ReconstructionDisplay.from_estimator(fitted_way, X)
    LatentSpaceDisplay.from_estimator(fitted_way, X, y)
    LossCurveDisplay.from_estimator(fitted_way)
    write_latent_map(fitted_way, X, y, tmp_path / "page.html")
    plt.close("all")


@pytest.mark.parametrize("kind", [AutoencoderOutlierDetector, AutoencoderGenerator])
@pytest.mark.parametrize("wrap", [lambda found: found, make_pipeline, FrozenEstimator])
def test_errors_name_the_transformer_that_another_estimator_holds(digits, kind, wrap):
    fitted = kind(clone(CODES)).fit(digits[0][:100])
    for function in (code_sensitivity, code_importance, find_transformer):
        with pytest.raises(TypeError, match=r"(?s)as a step, got .* Pass its autoencoder_\."):
            function(wrap(fitted), digits[0])
    assert find_transformer(fitted.autoencoder_)[0] is fitted.autoencoder_


def test_where_there_is_no_transformer(digits):
    X, y = digits[0][:100], digits[2][:100]
    for estimator in (
        named(PipelineWithSamplers, RandomOverSampler(), PCA(2), SVC()),
        FrozenEstimator(PCA(2).fit(X)),
        named(Pipeline, "passthrough", None),
        RandomOverSampler(),
    ):
        with pytest.raises(TypeError, match="must be an AutoencoderTransformer or a Pipeline"):
            find_transformer(estimator)
    for estimator in (
        make_pipeline(SCALER, FrozenEstimator(AutoencoderTransformer())),
        GridSearchCV(CODES, {}),
    ):
        with pytest.raises(NotFittedError, match="is not fitted yet"):
            find_transformer(estimator)
    search = GridSearchCV(make_pipeline(CODES, SVC()), {}, cv=2, refit=False).fit(X, y)
    with pytest.raises(ValueError, match=r"got refit=False\. Search with refit=True"):
        find_transformer(search)


# Tables as tensors


def towns():
    return pd.DataFrame(
        {
            "size": [4.0, 7.5, np.nan, 5.0, 1.0, 2.0],
            "town": ["Bern", "Genf", None, "Chur", "Bern", "Genf"],
            "flag": [True, False, True, True, False, False],
            "day": pd.to_datetime(["2024-01-02"] * 5 + [None]).astype("datetime64[us]"),
            "age": pd.to_timedelta([1, 2, 3, 4, 5, 6], "s"),
        }
    )


def of_polars(frame):
    columns = {name: [v if v == v else None for v in frame[name]] for name in frame}
    return pl.DataFrame({**columns, "age": frame["age"].to_numpy()})


@pytest.mark.parametrize("convert", [lambda X: X, of_polars], ids=["pandas", "polars"])
def test_a_table_as_a_tensor(convert):
    X = convert(towns())
    transformer = AutoencoderTransformer(1, max_epochs=2, random_state=0).fit(X)
    tensor, names = encode_table(transformer, X)
    assert names == ["size", "town", "flag", "day", "age"]
    day = 19724 * 86400.0
    expected = [
        [4.0, 7.5, np.nan, 5.0, 1.0, 2.0],
        [0, 2, np.nan, 1, 0, 2],
        [1, 0, 1, 1, 0, 0],
        [day] * 5 + [np.nan],
        [1, 2, 3, 4, 5, 6],
    ]
    np.testing.assert_array_equal(tensor.numpy(), np.transpose(expected))
    assert [*transformer.categories_[0]] == ["Bern", "Chur", "Genf"]
    encoded, decoded = transformer.to_module("autoencoder")(tensor)
    np.testing.assert_allclose(encoded.detach(), transformer.transform(X), rtol=1e-5)
    reconstruction, _ = encode_table(transformer, transformer.reconstruct(X))
    decoded = decoded.detach().numpy()
    np.testing.assert_array_equal(decoded[:, 1], reconstruction[:, 1])
    np.testing.assert_array_equal(decoded[:, 2] >= 0.5, reconstruction[:, 2])
    np.testing.assert_allclose(decoded[:, 0], reconstruction[:, 0], rtol=1e-5)


def test_unknown_and_grouped_levels_in_a_tensor():
    X = pd.DataFrame({"c": [*"aaabbbcd"], "n": np.arange(8, dtype=np.float32)})
    transformer = AutoencoderTransformer(1, max_epochs=2, random_state=0, min_frequency=2).fit(X)
    new = pd.DataFrame({"c": ["a", "b", "c", "d", "e", None], "n": np.zeros(6, np.float32)})
    tensor, _ = encode_table(transformer, new)
    assert tensor.dtype == torch.float32
    np.testing.assert_array_equal(tensor[:, 0], [0, 1, 2, 2, np.nan, np.nan])


@pytest.mark.parametrize(
    ("convert", "names"),
    [
        (np.asarray, ["x0", "x1", "x2"]),
        (sparse.csr_array, ["x0", "x1", "x2"]),
        (lambda X: pd.DataFrame(X, columns=[*"abc"]), ["a", "b", "c"]),
    ],
    ids=["array", "sparse", "frame"],
)
def test_numbers_as_a_tensor(convert, names):
    X = np.random.default_rng(0).normal(size=(20, 3))
    transformer = AutoencoderTransformer(1, random_state=0).fit(convert(X))
    tensor, given = encode_table(transformer, convert(X))
    assert given == names
    np.testing.assert_array_equal(tensor, X)
    tensor.zero_()
    assert X.all()


def test_a_tensor_from_a_pipeline():
    steps = FunctionTransformer(lambda X: X.iloc[:, :2]), CODES
    pipeline = make_pipeline(*steps).fit(towns())
    tensor, names = encode_table(pipeline, towns())
    assert names == ["size", "town"]
    assert tensor.shape == (6, 2)
    with pytest.raises(NotFittedError, match="is not fitted yet"):
        encode_table(AutoencoderTransformer(), towns())
    with pytest.raises(ValueError, match="feature names should match"):
        encode_table(pipeline[-1], towns()[["town", "size"]])
