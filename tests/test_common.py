import pytest
from sklearn.neighbors import KernelDensity
from sklearn.utils.estimator_checks import parametrize_with_checks

from aefeatures import AutoencoderGenerator, AutoencoderTransformer

# The checks fit data of two columns, and for so short that little is learned.
pytestmark = [
    pytest.mark.filterwarnings("ignore:n_components=3 is not below:UserWarning"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning"),
]


@parametrize_with_checks(
    [
        AutoencoderTransformer(max_epochs=2),
        AutoencoderTransformer(max_epochs=2, early_stopping=True),
        AutoencoderTransformer(max_epochs=2, normalization="batch", precision="float64"),
        AutoencoderTransformer(max_epochs=2, regularizer=["supervised", "neighbors"]),
        AutoencoderGenerator(AutoencoderTransformer(max_epochs=2)),
        AutoencoderGenerator(
            AutoencoderTransformer(max_epochs=2, regularizer="supervised"), KernelDensity()
        ),
    ]
)
def test_scikit_learn_contract(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([AutoencoderTransformer()])
def test_scikit_learn_contract_with_default_parameters(estimator, check):
    check(estimator)
