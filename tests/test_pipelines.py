import matplotlib.pyplot as plt
import numpy as np
import pytest
from imblearn.over_sampling import RandomOverSampler
from imblearn.pipeline import Pipeline as PipelineWithSamplers
from imblearn.under_sampling import RandomUnderSampler
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC

from aefeatures import (
    AutoencoderTransformer,
    LatentSpaceDisplay,
    LossCurveDisplay,
    ReconstructionDisplay,
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
