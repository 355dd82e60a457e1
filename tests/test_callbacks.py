import pickle
import threading

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.datasets import load_wine
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import aefeatures._pictures.reconstructions
import aefeatures._train.training
from aefeatures import AutoencoderTransformer, ReconstructionDisplay, ReconstructionMonitor

needs_callbacks = pytest.mark.skipif(
    not hasattr(AutoencoderTransformer, "set_callbacks"),
    reason="scikit-learn has callbacks from 1.9 on",
)


def quick(**params):
    return AutoencoderTransformer(**{"max_epochs": 3, "random_state": 0, **params})


def score(estimator, X, y):
    return {"score": estimator.score(X, y)}


class Recording:
    """Keeps the names of its tasks, and what `act` makes of each fitted estimator."""

    def __init__(self, act=lambda estimator: None):
        self.calls, self.acts, self.act = [], [], act

    def setup(self, estimator, context):
        self.calls.append("setup")

    def on_fit_task_begin(self, estimator, context):
        self.calls.append(f"begin {context.task_name}")

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, fitted_estimator=None):
        self.calls.append(f"end {context.task_name}")
        self.X, self.y = X, y
        if context.task_name == "epoch":
            self.acts.append(self.act(fitted_estimator))
            return isinstance(self.acts[-1], str) and self.acts[-1] == "stop"
        return None

    def teardown(self, estimator, context):
        self.calls.append("teardown")


@needs_callbacks
def test_a_fit_is_a_task_with_a_task_per_epoch(digits):
    callback = Recording()
    quick(max_epochs=2).set_callbacks(callback).fit(digits[0])
    epoch = ["begin epoch", "end epoch"]
    assert callback.calls == ["setup", "begin fit", *epoch, *epoch, "end fit", "teardown"]
    assert callback.X is callback.y is digits[0]


@needs_callbacks
def test_y_is_handed_on_where_there_is_one(digits):
    callback = Recording()
    quick(max_epochs=1).set_callbacks(callback).fit(digits[0], digits[2])
    assert callback.y is digits[2]


@needs_callbacks
def test_fitted_estimator_is_what_the_fit_would_leave_if_it_ended(digits):
    def look(estimator):
        seen.append(estimator)
        return estimator.transform(digits[1]), estimator.n_iter_, estimator.loss_curve_

    seen = []
    callback = Recording(look)
    params = {"learning_rate_schedule": "constant"}
    transformer = quick(**params).set_callbacks(callback).fit(digits[0])
    for n, (codes, n_iter, losses) in enumerate(callback.acts, start=1):
        shorter = quick(max_epochs=n, **params).fit(digits[0])
        np.testing.assert_array_equal(codes, shorter.transform(digits[1]))
        assert n_iter == n
        assert losses == shorter.loss_curve_
        # One that was kept is not changed by the epochs after it.
        np.testing.assert_array_equal(seen[n - 1].transform(digits[1]), codes)
        pickle.loads(pickle.dumps(seen[n - 1].set_callbacks()))
    assert transformer.n_iter_ == 3


@needs_callbacks
@pytest.mark.parametrize("params", [{}, {"early_stopping": True}, {"precision": "float64"}])
def test_callbacks_change_no_bit(digits, params):
    alone = quick(**params).fit(digits[0])
    watched = quick(**params).set_callbacks(Recording(lambda e: e.transform(digits[1]).sum()))
    watched.fit(digits[0])
    np.testing.assert_array_equal(watched.transform(digits[1]), alone.transform(digits[1]))
    # Nothing is left but what the user set.
    assert set(vars(watched)) - set(vars(alone)) == {"_skl_callbacks"}


@needs_callbacks
def test_fitted_estimator_knows_what_was_learned_for_missing_values(digits):
    X = digits[0].copy()
    X[::5, 20] = np.nan
    callback = Recording(lambda estimator: estimator.reconstruct(X[:20]))
    transformer = quick().set_callbacks(callback).fit(X)
    np.testing.assert_array_equal(callback.acts[-1], transformer.reconstruct(X[:20]))


@needs_callbacks
def test_callback_stops_the_training(digits):
    callback = Recording(lambda estimator: "stop" if estimator.n_iter_ == 2 else None)
    transformer = quick(max_epochs=9).set_callbacks(callback).fit(digits[0])
    assert transformer.n_iter_ == len(transformer.loss_curve_) == 2
    assert callback.calls[-2:] == ["end fit", "teardown"]


@needs_callbacks
@pytest.mark.parametrize("hook", ["setup", "on_fit_task_begin", "on_fit_task_end"])
def test_failing_callback_leaves_the_estimator_as_it_was(digits, hook):
    def fail(*args, **kwargs):
        raise RuntimeError("mine")

    transformer = quick().fit(digits[0])
    codes, attributes = transformer.transform(digits[1]), set(vars(transformer))
    callback = Recording()
    setattr(callback, hook, fail)
    transformer.set_callbacks(callback).set_params(random_state=1)
    with pytest.raises(RuntimeError, match="mine"):
        transformer.fit(digits[0])
    assert callback.calls[-1] == "teardown"
    assert set(vars(transformer)) == attributes | {"_skl_callbacks"}
    np.testing.assert_array_equal(transformer.transform(digits[1]), codes)
    fresh = quick().set_callbacks(callback)
    with pytest.raises(RuntimeError, match="mine"):
        fresh.fit(digits[0])
    with pytest.raises(NotFittedError, match="is not fitted yet"):
        fresh.transform(digits[1])


@needs_callbacks
def test_refused_fit_still_tears_callbacks_down(digits):
    callback = Recording()
    with pytest.raises(ValueError, match="infinity"):
        quick().set_callbacks(callback).fit(np.full((9, 4), np.inf))
    assert callback.calls == ["setup", "teardown"]


@needs_callbacks
def test_interrupt_in_a_callback_keeps_the_epochs_so_far(digits, monkeypatch):
    def interrupt(estimator):
        if estimator.n_iter_ == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(aefeatures._train.training, "_last_interrupt", -np.inf)
    callback = Recording(interrupt)
    with pytest.warns(UserWarning, match="interrupted by user"):
        transformer = quick(max_epochs=9).set_callbacks(callback).fit(digits[0])
    assert transformer.n_iter_ == 2
    assert transformer.transform(digits[1]).shape == (450, 3)
    assert callback.calls[-1] == "teardown"


@needs_callbacks
def test_clone_pickle_and_parameters(digits):
    callback = Recording()
    transformer = quick().set_callbacks(callback)
    assert transformer.get_params() == quick().get_params()
    assert repr(transformer) == repr(quick())
    assert clone(transformer)._skl_callbacks == [callback]
    fitted = quick().set_callbacks(ReconstructionMonitor(digits[1][:2])).fit(digits[0])
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.transform(digits[1]), fitted.transform(digits[1]))
    assert again._skl_callbacks[0].reconstructions_.shape == (3, 2, 64)


# scikit-learn's own callbacks


@needs_callbacks
def test_scoring_monitor_alone_and_in_a_pipeline(digits):
    from sklearn.callback import ScoringMonitor

    monitor = ScoringMonitor(scoring=score)
    transformer = quick().set_callbacks(monitor)
    for estimator in (transformer, make_pipeline(StandardScaler(), transformer)):
        estimator.fit(digits[0])
        log = [row for row in monitor.get_logs().data if row["task_name"] == "epoch"]
        assert [row["task_id"] for row in log] == [0, 1, 2]
        scores = [row["score"] for row in log]
        assert scores == sorted(scores)
    last = transformer.score(StandardScaler().fit_transform(digits[0]))
    assert scores[-1] == pytest.approx(last)


@needs_callbacks
def test_scoring_monitor_gets_frames_as_they_are():
    from sklearn.callback import ScoringMonitor

    monitor = ScoringMonitor(scoring=score)
    X = load_wine(as_frame=True).data  # an array would warn about names of columns
    quick().set_callbacks(monitor).fit(X)
    assert len(monitor.get_logs().data) == 4


@needs_callbacks
def test_callbacks_in_a_parallel_search(digits, capfd):
    pytest.importorskip("rich")
    from sklearn.callback import ProgressBar, ScoringMonitor

    scores, pictures = ScoringMonitor(scoring=score), ReconstructionMonitor(digits[1][:2])
    pipeline = make_pipeline(quick(max_epochs=2).set_callbacks(scores, pictures))
    grid = {"autoencodertransformer__n_components": [2, 3]}
    search = GridSearchCV(pipeline, grid, cv=2, n_jobs=2)
    search.set_callbacks(ProgressBar(max_propagation_depth=None)).fit(digits[0][:400])
    epochs = [row for row in scores.get_logs().data if row["task_name"] == "epoch"]
    assert len(epochs) == 2 * (4 + 1)
    best = search.best_estimator_[0]
    np.testing.assert_array_equal(pictures.reconstructions_[-1], best.reconstruct(digits[1][:2]))
    assert "AutoencoderTransformer" in capfd.readouterr().out


@needs_callbacks
def test_progress_bar_knows_the_number_of_epochs(digits):
    class Sizes(Recording):
        max_propagation_depth = None

        def on_fit_task_begin(self, estimator, context):
            self.calls.append((context.task_name, context.max_subtasks))

    callback = Sizes()
    make_pipeline(quick()).set_callbacks(callback).fit(digits[0])
    assert ("fit", 3) in callback.calls
    assert callback.calls.count(("epoch", 0)) == 3


# ReconstructionMonitor


@needs_callbacks
def test_monitor_keeps_the_pictures_of_every_epoch(digits):
    X = digits[1][:5]
    monitor = ReconstructionMonitor(X)
    transformer = quick(learning_rate_schedule="constant", init="random", regularizer=None)
    transformer.set_callbacks(monitor).fit(digits[0])
    assert monitor.reconstructions_.shape == (3, 5, 64)
    np.testing.assert_array_equal(monitor.reconstructions_[-1], transformer.reconstruct(X))
    errors = ((monitor.reconstructions_ - X) ** 2).mean(axis=(1, 2))
    assert errors[0] > errors[1] > errors[2]
    display = monitor.display(image_shape=(8, 8))
    assert isinstance(display, ReconstructionDisplay)
    labels = [text.get_text() for text in display.ax_.get_yticklabels()]
    assert labels[1::2] == ["epoch 1", "epoch 2", "epoch 3"]
    display = monitor.display(epochs=[3, 1])
    np.testing.assert_array_equal(display.reconstructions, monitor.reconstructions_[[2, 0]])
    transformer.set_params(max_epochs=1).fit(digits[0])
    assert len(monitor.reconstructions_) == 1


@needs_callbacks
def test_monitor_draws_ten_of_many_epochs(digits):
    monitor = ReconstructionMonitor(pd.DataFrame(digits[1][:2]))
    quick(max_epochs=25).set_callbacks(monitor).fit(pd.DataFrame(digits[0][:100]))
    names = monitor.display(image_shape=(8, 8)).snapshot_names
    assert len(names) == 10
    assert (names[0], names[-1]) == ("epoch 1", "epoch 25")


@needs_callbacks
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_monitor_of_a_table(library):
    X = pd.DataFrame({"number": np.arange(40.0), "letter": [*"abcd"] * 10})
    if library == "polars":
        X = pl.from_pandas(X)
    monitor = ReconstructionMonitor(X[:3])
    fitted = quick().set_callbacks(monitor).fit(X)
    n_epochs = fitted.n_iter_
    assert monitor.reconstructions_.shape == (n_epochs, 3, 2)
    last = np.asarray(fitted.reconstruct(X[:3]))
    np.testing.assert_array_equal(monitor.reconstructions_[-1][:, 1], last[:, 1])
    np.testing.assert_allclose(
        monitor.reconstructions_[-1][:, 0].astype(float), last[:, 0].astype(float), rtol=1e-5
    )
    display = monitor.display(epochs=[1, n_epochs])
    labels = [t.get_text() for t in display.ax_.get_yticklabels()]
    assert labels == ["number", "letter"] * 2
    texts = {text.get_text() for text in display.ax_.texts}
    assert {"original", "\u2192 epoch 1", f"\u2192 epoch {n_epochs}"} <= texts
    assert {"a", "b", "c"} <= texts


@needs_callbacks
def test_one_monitor_on_fits_side_by_side(digits):
    monitor = ReconstructionMonitor(digits[1][:2])
    threads = [
        threading.Thread(target=quick(max_epochs=n).set_callbacks(monitor).fit, args=(digits[0],))
        for n in (2, 4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(monitor.reconstructions_) in (2, 4)
    assert monitor._running == {}


@needs_callbacks
@pytest.mark.parametrize("epochs", [[0], [4], []])
def test_monitor_refuses_epochs_that_there_were_not(digits, epochs):
    monitor = ReconstructionMonitor(digits[1][:2])
    quick().set_callbacks(monitor).fit(digits[0])
    with pytest.raises(ValueError, match="epochs must be among 1 to 3, got"):
        monitor.display(epochs=epochs)


@needs_callbacks
def test_monitor_that_saw_nothing_says_where_to_set_it(digits):
    monitor = ReconstructionMonitor(digits[1][:2])
    make_pipeline(quick()).set_callbacks(monitor).fit(digits[0])
    with pytest.raises(NotFittedError, match=r"has seen no epoch\. Set it on the transformer"):
        monitor.display()


def test_monitor_needs_a_scikit_learn_with_callbacks(digits, monkeypatch):
    monkeypatch.setattr(aefeatures._pictures.reconstructions, "CallbackSupportMixin", object)
    with pytest.raises(ImportError, match=r"scikit-learn 1\.9 or later, but this is \d"):
        ReconstructionMonitor(digits[1][:2])


@pytest.mark.gpu
@needs_callbacks
def test_callbacks_get_weights_on_the_cpu_from_a_gpu(digits):
    callback = Recording(lambda e: (str(next(e.encoder_.parameters()).device), e.score(digits[1])))
    quick(device="cuda").set_callbacks(callback).fit(digits[0])
    assert {device for device, _ in callback.acts} == {"cpu"}
    assert callback.acts[0][1] < callback.acts[2][1]
