"""Searches of scikit-learn and Optuna over autoencoder and classifier."""

import inspect
import tracemalloc
import warnings

import joblib
import numpy as np
import optuna
import pytest
from optuna_integration import OptunaSearchCV
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.exceptions import FitFailedWarning
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import GridSearchCV, HalvingRandomSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.svm import SVC

from aefeatures import AutoencoderTransformer, Denoising, RowView

# Two epochs on a few rows teach little.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

GRID = {
    "codes__n_components": [2, 6],
    "codes__regularizer__amount": [0.1, 0.3],
    "svc__C": [0.1, 1, 10],
}


def make(memory=None, **params):
    codes = AutoencoderTransformer(
        **{"max_epochs": 2, "regularizer": Denoising(), "random_state": 0, **params}
    )
    return Pipeline([("codes", codes), ("svc", SVC())], memory=memory)


@pytest.fixture
def fits(monkeypatch):
    """The parameters of every fit."""
    fit = AutoencoderTransformer.fit
    made = []

    def counting(self, X, y=None):
        made.append((self.n_components, self.regularizer.amount, len(X)))
        return fit(self, X, y)

    counting.__signature__ = inspect.signature(fit)
    monkeypatch.setattr(AutoencoderTransformer, "fit", counting)
    return made


@pytest.mark.parametrize("random_state", [0, None])
@pytest.mark.parametrize("kind", [np.asarray, RowView])
def test_memory_trains_once_per_setting_and_fold(digits, tmp_path, fits, random_state, kind):
    X, _, y, _ = digits
    pipeline = make(joblib.Memory(tmp_path, verbose=0), random_state=random_state, max_epochs=1)
    X, y = kind(X[:200]), y[:200]
    search = GridSearchCV(pipeline, GRID, cv=2, refit=False).fit(X, y)
    assert len(search.cv_results_["params"]) == 12
    assert len(fits) == 4 * 2
    search.fit(X, y)
    assert len(fits) == 4 * 2, "a further search takes all from the cache"


def test_views_give_what_arrays_give(digits):
    X, X_test, y, _ = digits
    X, y = X[:400], y[:400]
    grid = {"codes__n_components": [2, 6]}
    given = GridSearchCV(make(), grid, cv=3).fit(X, y)
    view = GridSearchCV(make(), grid, cv=3, n_jobs=2).fit(RowView(X), y)
    scores = [each.cv_results_["mean_test_score"] for each in (given, view)]
    np.testing.assert_array_equal(*scores)
    np.testing.assert_array_equal(given.predict(X_test), view.predict(RowView(X_test)))
    for early_stopping in (False, True):
        codes = AutoencoderTransformer(
            early_stopping=early_stopping, max_epochs=2, random_state=0, regularizer="neighbors"
        )
        rows = np.arange(1, 400, 3)
        fold = RowView(X)[rows]
        of_view, of_rows = clone(codes).fit(fold), clone(codes).fit(X[rows])
        np.testing.assert_array_equal(of_view.transform(fold), of_rows.transform(X[rows]))
        np.testing.assert_array_equal(of_view.reconstruct(fold), of_rows.reconstruct(X[rows]))


def test_other_steps_get_arrays_of_views(digits):
    X, _, y, _ = digits
    pipeline = Pipeline([("scale", MinMaxScaler()), ("svc", SVC())])
    expected = cross_val_score(pipeline, X, y, cv=3)
    np.testing.assert_array_equal(cross_val_score(pipeline, RowView(X), y, cv=3), expected)
    columns = make_column_transformer((MinMaxScaler(), [3, 1]), ("passthrough", [2]))
    np.testing.assert_array_equal(columns.fit_transform(RowView(X)), columns.fit_transform(X))


def test_folds_of_views_are_not_copied(monkeypatch):
    monkeypatch.setattr("aefeatures._rows.sources._CHUNK_ELEMENTS", 100_000)
    monkeypatch.setattr("aefeatures._rows.batches._RESIDENT_BYTES", 0)
    X = np.random.default_rng(0).integers(0, 256, (60_000, 50), dtype=np.uint8)
    codes = AutoencoderTransformer(
        hidden_layer_sizes=(8,), max_epochs=1, batch_size=512, random_state=0
    )
    tracemalloc.start()
    fold = RowView(X)[np.flatnonzero(np.arange(60_000) % 3), ...]
    assert codes.fit_transform(fold).shape == (40_000, 3)
    codes.reconstruct(fold[np.arange(1_000)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < fold.shape[0] * 50 * 0.9, "less than the bytes of the fold"


@pytest.mark.parametrize(
    "resource", [{"max_resources": 300}, {"resource": "codes__max_epochs", "max_resources": 9}]
)
def test_halving_random_search(digits, resource):
    X, _, y, _ = digits
    search = HalvingRandomSearchCV(
        make(), GRID, n_candidates=6, cv=2, random_state=0, min_resources="exhaust", **resource
    ).fit(RowView(X[:400]), y[:400])
    assert set(search.best_params_) >= set(GRID)
    assert search.n_iterations_ >= 2
    assert search.predict(X[:5]).shape == (5,)


@pytest.mark.filterwarnings("ignore:The OptunaSearchCV or classes:FutureWarning")  # with 1.6
def test_optuna_search(digits):
    X, _, y, _ = digits
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {
        "codes__n_components": optuna.distributions.IntDistribution(2, 8),
        "codes__regularizer__amount": optuna.distributions.FloatDistribution(0.05, 0.4),
        "svc__C": optuna.distributions.FloatDistribution(0.1, 10, log=True),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is experimental, and uses what Optuna deprecates
        search = OptunaSearchCV(make(), space, n_trials=3, cv=2, random_state=0)
        search.fit(RowView(X[:400]), y[:400])
    assert set(search.best_params_) == set(space)
    best = search.best_estimator_["codes"]
    assert best.n_components == search.best_params_["codes__n_components"]
    assert best.regularizer.amount == search.best_params_["codes__regularizer__amount"]


def test_optuna_study(digits):
    X, _, y, _ = digits
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def objective(trial):
        pipeline = make().set_params(
            codes__n_components=trial.suggest_int("n_components", 2, 8),
            codes__regularizer__amount=trial.suggest_float("amount", 0.05, 0.4),
            svc__C=trial.suggest_float("C", 0.1, 10, log=True),
        )
        return cross_val_score(pipeline, RowView(X[:400]), y[:400], cv=2).mean()

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(objective, n_trials=3)
    assert 0 < study.best_value <= 1
    assert set(study.best_params) == {"n_components", "amount", "C"}


def test_warm_start_does_nothing_in_a_search(digits):
    X, _, y, _ = digits
    fitted = make(warm_start=True).fit(X[:300], y[:300])
    scores = [
        GridSearchCV(each, {"svc__C": [1]}, cv=2).fit(X[:300], y[:300]).best_score_
        for each in (fitted, make())
    ]
    assert scores[0] == scores[1], "a search fits clones, which have no weights to go on from"


def interrupting(*at):
    """A loss that is interrupted in its calls of these numbers."""
    calls = []

    def loss(reconstruction, target):
        calls.append(0)
        if len(calls) in at:
            raise KeyboardInterrupt
        return (reconstruction - target).square().mean(dim=1)

    return loss


class Shared:
    """A loss that clones share."""

    def __init__(self, loss):
        self.loss = loss

    def __call__(self, reconstruction, target):
        return self.loss(reconstruction, target)

    def __deepcopy__(self, memo):
        return self


def test_an_interrupt_in_a_search_says_how_to_end_it(digits, monkeypatch):
    monkeypatch.setattr("aefeatures._train.training._last_interrupt", -np.inf)
    X = digits[0][:128]

    def search(*interrupts):
        one = AutoencoderTransformer(
            hidden_layer_sizes=(8,), max_epochs=4, loss=Shared(interrupting(*interrupts))
        )
        return GridSearchCV(one, {"n_components": [2, 3]}, cv=2, refit=False).fit(X)

    with pytest.warns(UserWarning, match="in epoch 3 of 4.* search goes on.* again within 2 sec"):
        interrupted = search(3)
    assert np.isfinite(interrupted.cv_results_["mean_test_score"]).all()
    # Another interrupt at once, in the next fit of the search.
    monkeypatch.setattr("aefeatures._train.training._last_interrupt", -np.inf)
    with pytest.warns(UserWarning, match="in epoch"), pytest.raises(KeyboardInterrupt):
        search(3, 9)
    # The guide's recipe.
    monkeypatch.setattr("aefeatures._train.training._last_interrupt", -np.inf)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FitFailedWarning)
        warnings.filterwarnings("ignore", "One or more of the test scores", UserWarning)
        warnings.filterwarnings("error", "Training interrupted")
        scores = search(3).cv_results_["split0_test_score"]
    assert np.isnan(scores).tolist() == [True, False]


def test_an_interrupted_fit_shows_that_it_is_short(digits, monkeypatch):
    monkeypatch.setattr("aefeatures._train.training._last_interrupt", -np.inf)
    one = AutoencoderTransformer(hidden_layer_sizes=(8,), max_epochs=4, loss=interrupting(6))
    with pytest.warns(UserWarning, match="ranks this fit like the others"):
        one.fit(digits[0][:128])
    assert (one.n_iter_, one.max_epochs_) == (2, 4)
