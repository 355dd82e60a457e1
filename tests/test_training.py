import copy
import itertools
import os
import signal
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

import aefeatures._train.training
from aefeatures._nets.losses import LOSSES, TableLoss, leave_out_missing
from aefeatures._nets.networks import BuildSpec, DenseNetwork
from aefeatures._rows.batches import RowBatches
from aefeatures._rows.survey import Survey
from aefeatures._rows.table_scaling import learn_table_scaling
from aefeatures._torch.random_state import RandomState
from aefeatures._train.training import (
    SCHEDULES,
    EarlyStopping,
    Plan,
    Training,
    Watcher,
    diagnose,
    evaluate,
)


def make(X, batch_size=64, rows=None):
    return RowBatches(
        X,
        lambda rows: rows / 16,
        batch_size=batch_size,
        device=torch.device("cpu"),
        dtype=torch.float32,
        rows=rows,
    )


def network(n_features=64):
    spec = BuildSpec(True, torch.float32, torch.Generator().manual_seed(0))
    parts = DenseNetwork((32,)).build(n_features, 3, spec=spec)
    return torch.nn.Sequential(*parts)


def run(model, batches, loss=LOSSES["mse"], **changes):
    settings = {
        "max_epochs": 4,
        "learning_rate": 5e-3,
        "rng": np.random.default_rng(0),
        **changes,
    }
    return Training(Plan(model, batches, loss, **settings)).run()


@pytest.fixture(autouse=True)
def forget_interrupts(monkeypatch):
    monkeypatch.setattr(aefeatures._train.training, "_last_interrupt", -np.inf)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_schedules_peak_where_they_say(name):
    schedule = SCHEDULES[name]
    factors = [schedule.factor(progress) for progress in np.linspace(0, 0.999, 1000)]
    assert max(factors) == pytest.approx(1, abs=1e-4)
    assert schedule.factor(schedule.peak) == pytest.approx(1)
    assert min(factors) >= 0
    after = [schedule.factor(progress) for progress in np.linspace(schedule.peak, 0.999, 500)]
    assert all(b <= a + 1e-12 for a, b in itertools.pairwise(after))


def test_training_lowers_the_loss_and_counts(digits):
    batches = make(digits[0], batch_size=100)
    model = network()
    before = evaluate(model, batches, LOSSES["mse"])
    result = run(model, batches)
    assert result.n_steps == 4 * 14
    assert len(result.loss_curve) == 4
    assert result.validation_loss_curve == []
    assert evaluate(model, batches, LOSSES["mse"]) < 0.8 * before
    assert not model.training
    assert all(p.grad is None for p in model.parameters())


def test_loss_curve_weighs_every_row_alike(digits):
    X = digits[0][:65]  # batches of 64 rows and of one
    result = run(network(), make(X), max_epochs=1, learning_rate=1e-12)
    assert result.loss_curve[0] == pytest.approx(evaluate(network(), make(X), LOSSES["mse"]))


def test_two_epochs_in_two_calls_equal_two_in_one(digits):
    batches = make(digits[0])
    once, twice = network(), network()
    run(once, batches, max_epochs=2)
    rng = np.random.default_rng(0)
    first = run(twice, batches, max_epochs=1, rng=rng)
    run(twice, batches, max_epochs=1, rng=rng, optimizer_state=first.optimizer_state)
    for p, q in zip(once.parameters(), twice.parameters(), strict=True):
        assert torch.equal(p, q)


def test_early_stopping_restores_the_best_weights(digits):
    X = digits[0]
    validation = make(X, rows=np.arange(40))
    model = network()
    result = run(
        model,
        make(X, rows=np.arange(40, 80)),  # so few that they are overfitted
        max_epochs=2000,
        early_stopping=EarlyStopping(validation, patience=5, tol=0.0),
    )
    curve = result.validation_loss_curve
    assert len(curve) == len(result.loss_curve) < 2000
    assert np.argmin(curve) == len(curve) - 6
    assert evaluate(model, validation, LOSSES["mse"]) == pytest.approx(min(curve))


def test_patience_counts_from_the_peak_of_the_schedule(digits):
    result = run(
        network(),
        make(digits[0][:64]),
        max_epochs=40,
        schedule="one_cycle",
        early_stopping=EarlyStopping(make(digits[0][64:99]), patience=1, tol=1.0),
    )
    assert len(result.loss_curve) == 13  # the first epoch that ends after 30% of 40


def test_loss_that_is_not_finite_names_epoch_and_rate(digits):
    with pytest.raises(
        FloatingPointError, match=r"nan in epoch 1 after step 1, .*=0.005.*own must"
    ):
        run(network(), make(digits[0]), loss=lambda r, t: (r - t).sum(dim=1) * float("nan"))


def test_batch_that_does_not_fit_names_batch_size(digits):
    def loss(reconstruction, target):
        raise torch.cuda.OutOfMemoryError

    with pytest.raises(MemoryError, match=r"A batch of 64 rows does not fit .* Lower batch_size"):
        run(network(), make(digits[0]), loss=loss)


def interrupting(at_call, error=KeyboardInterrupt):
    calls = []

    def loss(reconstruction, target):
        calls.append(0)
        if len(calls) == at_call:
            raise error
        return LOSSES["mse"](reconstruction, target)

    return loss


def test_interrupt_before_the_first_epoch_is_over_is_raised(digits):
    with pytest.raises(KeyboardInterrupt):
        run(network(), make(digits[0]), loss=interrupting(3))


def test_interrupt_later_warns_and_keeps_the_best_weights(digits):
    batches = make(digits[0])
    model, same = network(), network()
    with pytest.warns(UserWarning, match="interrupted by user in epoch 3 of 4"):
        result = run(model, batches, loss=interrupting(2 * len(batches) + 5))
    assert len(result.loss_curve) == 2
    assert np.argmin(result.loss_curve) == 1
    run(same, batches, loss=interrupting(-1), max_epochs=2)
    for p, q in zip(model.parameters(), same.parameters(), strict=True):
        assert torch.equal(p, q)


def test_second_interrupt_within_two_seconds_is_raised(digits):
    batches = make(digits[0])
    with pytest.warns(UserWarning, match="interrupted"):
        run(network(), batches, loss=interrupting(2 * len(batches)))
    with pytest.raises(KeyboardInterrupt):
        run(network(), batches, loss=interrupting(2 * len(batches)))


def test_sigint_ends_training_within_a_step(digits, interruptible):
    begun = threading.Event()

    def loss(reconstruction, target):
        begun.set()
        return LOSSES["mse"](reconstruction, target)

    def interrupt():
        begun.wait()
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.warns(UserWarning, match="interrupted"):
        result = run(network(), make(digits[0]), loss=loss, max_epochs=100_000)
    thread.join()
    assert 0 < len(result.loss_curve) < 100_000


class Recording(Watcher):
    def __init__(self, stop_after=99):
        self.calls, self.stop_after = [], stop_after

    def begin_epoch(self):
        self.calls.append("begin")

    def step(self, n_rows, summed_loss):
        self.calls.append(n_rows)

    def end_epoch(self, result):
        self.calls.append("end")
        return len(result.loss_curve) >= self.stop_after

    def close(self):
        self.calls.append("close")


def test_watchers_see_every_step_and_change_nothing(digits):
    batches = make(digits[0], batch_size=500)
    watched, alone = network(), network()
    watchers = [Recording(), Recording()]
    run(watched, batches, max_epochs=2, watchers=watchers)
    run(alone, batches, max_epochs=2)
    for watcher in watchers:
        assert watcher.calls == ["begin", 500, 500, 347, "end"] * 2 + ["close"]
    for p, q in zip(watched.parameters(), alone.parameters(), strict=True):
        assert torch.equal(p, q)


def test_any_watcher_may_stop_the_training(digits):
    watchers = [Recording(stop_after=2), Recording()]
    result = run(network(), make(digits[0]), watchers=watchers)
    assert len(result.loss_curve) == 2
    assert [watcher.calls.count("end") for watcher in watchers] == [2, 2]


def test_watchers_are_closed_before_an_error_is_seen(digits):
    watcher = Recording()
    with pytest.raises(RuntimeError, match="broken"):
        run(
            network(),
            make(digits[0]),
            loss=interrupting(3, RuntimeError("broken")),
            watchers=[watcher],
        )
    assert watcher.calls == ["begin", 64, 64, "close"]


def test_diagnose(digits):
    X = digits[0].astype(np.float32)
    model = network()
    run(model, make(X), max_epochs=20)
    assert diagnose(model, make(X), LOSSES["mse"]) is None
    assert diagnose(model, make(X[:1]), LOSSES["mse"]) is None
    assert diagnose(model, make(np.repeat(X[:1], 9, axis=0)), LOSSES["mse"]) == (
        "all of the 9 rows looked at are the same"
    )
    assert "no better than the means" in diagnose(network(), make(X), LOSSES["mse"])
    dead = copy.deepcopy(model)
    with torch.no_grad():
        dead[0][-1].weight.zero_()
    assert diagnose(dead, make(X), LOSSES["mse"]) == "every row has the same code"


@pytest.mark.parametrize("loss", ["mse", "bce", "mae", "huber"])
@pytest.mark.parametrize(("share", "verdict"), [(0.5, None), (0.003, "hardly"), (-0.1, "no")])
def test_diagnose_compares_with_the_means_on_what_can_be_explained(loss, share, verdict):
    """Cross-entropy is above zero even for a perfect reconstruction."""
    rng = np.random.default_rng(0)
    rows = (8 + rng.normal(size=(200, 20)) / 6).astype(np.float32)
    # The codes are the rows, moved towards their means so that `share` of the loss is gone.
    kept = 1 - (1 - share) ** (1 if loss == "mae" else 0.5)
    means = torch.from_numpy(rows.mean(axis=0)) / 16

    class Partial(nn.Module):
        def forward(self, codes):
            return means + kept * (codes - means)

    found = diagnose(nn.Sequential(nn.Identity(), Partial()), make(rows), LOSSES[loss])
    assert found is None if verdict is None else f"are {verdict} better than the means" in found


@pytest.mark.parametrize("gaps", [True, False])
def test_diagnose_compares_with_the_shares_of_levels(gaps):
    rng = np.random.default_rng(0)
    X = np.c_[rng.choice(3, 200, p=[0.7, 0.2, 0.1]), rng.normal(size=(200, 2))]
    if gaps:
        X[rng.random(X.shape) < 0.1] = np.nan
    codes = X[~np.isnan(X[:, 0]), 0].astype(int)
    shares = [np.bincount(codes) / len(codes), None, None]
    scaling, _ = learn_table_scaling(Survey.of(X), shares, "auto")
    loss = TableLoss(LOSSES["mse"], scaling)
    batches = RowBatches(X, scaling, batch_size=64, device=torch.device("cpu"), dtype=torch.float64)

    class Decoder(nn.Module):
        def __init__(self, decode):
            super().__init__()
            self.forward = decode

    class Filled(nn.Module):
        def forward(self, rows):
            return rows.nan_to_num()

    for decode, verdict in ((loss.constant, "no better"), (loss.perfect, None)):
        model = nn.Sequential(Filled(), Decoder(decode))
        found = diagnose(model, batches, leave_out_missing(loss))
        assert found is None if verdict is None else f"are {verdict} than the means" in found


@pytest.mark.parametrize("offset", [-300.0, -1000.0])
def test_diagnose_does_not_depend_on_the_sign_of_the_loss(digits, offset):
    X = digits[0].astype(np.float32)

    def loss(reconstruction, target):
        return LOSSES["mse"](reconstruction, target) + offset

    model = network()
    assert "no better than the means" in diagnose(model, make(X), loss)
    run(model, make(X), max_epochs=20)
    assert diagnose(model, make(X), lambda r, t: LOSSES["mse"](r, t) - 10) is None


@pytest.mark.parametrize("offset", [-1.5, -2.0])
def test_patience_does_not_depend_on_the_sign_of_the_loss(digits, offset):
    """A loss that falls by a tenth of its size at once, and then stays."""
    calls = []

    def loss(reconstruction, target):
        calls.append(0)
        epoch = (len(calls) - 1) // 2  # one batch of training rows, one of validation rows
        return LOSSES["mse"](reconstruction, target) * 0 + 1 + offset - 0.2 * (epoch >= 1)

    X = digits[0]
    stopping = EarlyStopping(make(X, rows=np.arange(64)), patience=3, tol=0.09)
    result = run(
        network(), make(X, rows=np.arange(64)), loss, max_epochs=30, early_stopping=stopping
    )
    assert len(result.loss_curve) == 5


def test_training_touches_no_warning_filters(digits):
    before = list(warnings.filters)
    run(network(), make(digits[0]))
    assert warnings.filters == before


# Divergence


def test_divergence_names_epoch_step_rate_and_cause(digits):
    calls = []

    def loss(reconstruction, target):
        calls.append(0)
        return LOSSES["mse"](reconstruction, target) * (np.nan if len(calls) == 30 else 1)

    batches = make(digits[0])
    assert len(batches) == 22
    with pytest.raises(
        FloatingPointError,
        match=r"was nan in epoch 2 after step 30, at a rate of 0\.00378 with learning_rate=0\.005\."
        r" The likely cause is a learning rate that is too high",
    ):
        run(network(), batches, loss=loss, schedule="cosine")
    assert len(calls) == 30


def test_a_loss_that_explodes_stops_the_training(digits):
    calls = []

    def loss(reconstruction, target):
        calls.append(0)
        return LOSSES["mse"](reconstruction, target) * (1e6 if len(calls) > 44 else 1)

    # The loss of zeros is computed with the same loss, when it is large already.
    def honest(reconstruction, target):
        if not reconstruction.any():
            return LOSSES["mse"](reconstruction, target)
        return loss(reconstruction, target)

    with pytest.raises(FloatingPointError, match=r"diverged: its loss was \d+.* in epoch 3 after"):
        run(network(), make(digits[0]), loss=honest)


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_large_and_small_losses_do_not_explode(digits, factor):
    def loss(reconstruction, target):
        return LOSSES["mse"](reconstruction, target) * factor

    assert len(run(network(), make(digits[0]), loss=loss).loss_curve) == 4


@pytest.mark.parametrize("offset", [-0.4, -5.0])
def test_a_loss_below_zero_that_explodes_stops_the_training(digits, offset):
    calls = []

    def loss(reconstruction, target):
        calls.append(0)
        zeros = not reconstruction.any()
        rows = LOSSES["mse"](reconstruction, target) + offset
        return rows * (-1e6 if len(calls) > 44 and not zeros else 1)

    with pytest.raises(FloatingPointError, match=r"diverged: its loss was \d+.* in epoch 3 after"):
        run(network(), make(digits[0]), loss=loss)


def test_zeros_with_a_mean_loss_near_zero_make_no_divergence(digits):
    batches = make(digits[0])
    rows = torch.cat(list(batches.epoch()))
    mean = float(rows.square().mean())
    calls = []

    def loss(reconstruction, target):
        calls.append(0)
        return LOSSES["mse"](reconstruction, target) - mean * 0.9999 + (22 < len(calls) <= 44)

    assert len(run(network(), batches, loss=loss).loss_curve) == 4


def test_an_outlier_in_the_validation_rows_is_no_divergence(digits):
    X = digits[0].copy()
    X[-1] = 1e6
    stopping = EarlyStopping(make(X, rows=np.arange(1300, 1347)), patience=99, tol=0.0)
    result = run(network(), make(X, rows=np.arange(1300)), early_stopping=stopping)
    assert min(result.validation_loss_curve) > 1e4 * max(result.loss_curve)
    assert len(result.loss_curve) == 4


# Going on from a state


class Stopping(Watcher):
    """Goes on from `found`, and keeps the state after some epochs."""

    def __init__(self, found=None, after=99):
        self.found, self.after, self.kept = found, after, None

    def begin(self, state):
        self.state = state
        if self.found is not None:
            state.load(*self.found)

    def end_epoch(self, result):
        if len(result.loss_curve) < self.after:
            return False
        self.kept = copy.deepcopy(self.state.save())
        return True


def test_training_goes_on_from_a_state_to_the_same_result(digits):
    X = digits[0]
    settings = {
        "max_epochs": 20,
        "schedule": "one_cycle",
        "early_stopping": EarlyStopping(make(X, rows=np.arange(40)), patience=5, tol=0.0),
    }
    batches = make(X, rows=np.arange(40, 80))
    whole, part, rest = network(), network(), network()
    expected = run(whole, batches, **settings)
    stopping = Stopping(after=9)
    run(part, batches, **settings, watchers=[stopping])
    recording = Recording()
    result = run(
        rest,
        batches,
        **settings,
        rng=np.random.default_rng(1),
        watchers=[recording, Stopping(stopping.kept)],
    )
    assert recording.calls.count("begin") == len(expected.loss_curve) - 9
    assert vars(result).keys() == vars(expected).keys()
    assert result.loss_curve == expected.loss_curve
    assert result.validation_loss_curve == expected.validation_loss_curve
    assert result.n_steps == expected.n_steps
    for p, q in zip(whole.parameters(), rest.parameters(), strict=True):
        assert torch.equal(p, q)


def test_state_of_another_network_changes_nothing(digits):
    batches = make(digits[0])
    stopping = Stopping(after=1)
    run(network(), batches, watchers=[stopping])
    other = torch.nn.Sequential(torch.nn.Linear(64, 2), torch.nn.Linear(2, 64))
    before = [parameter.detach().clone() for parameter in other.parameters()]
    with pytest.raises(ValueError, match="another network"):
        run(other, batches, watchers=[Stopping(stopping.kept)])
    for p, q in zip(other.parameters(), before, strict=True):
        assert torch.equal(p, q)


def test_state_without_the_draws_of_the_callers_code_changes_nothing(digits):
    batches = make(digits[0])
    stopping = Stopping(after=1)
    run(network(), batches, watchers=[stopping])
    draws = RandomState(0, [torch.default_generator])
    model = network()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    with pytest.raises(ValueError, match="another network"):
        run(model, batches, watchers=[Stopping(stopping.kept)], draws=draws)
    for p, q in zip(model.parameters(), before, strict=True):
        assert torch.equal(p, q)


def test_a_loss_without_a_gradient_is_refused(digits):
    with pytest.raises(ValueError, match="loss depends on no weight that is trained"):
        run(network(), make(digits[0]), lambda r, t: LOSSES["mse"](r.detach(), t))


def test_an_interrupt_while_a_step_is_handed_over_keeps_the_best_weights(digits, monkeypatch):
    batches = make(digits[0])
    model, same = network(), network()
    submit = ThreadPoolExecutor.submit
    futures = []

    def handing_over(self, *args):
        futures.append(submit(self, *args))
        if len(futures) == 3:
            raise KeyboardInterrupt
        return futures[-1]

    monkeypatch.setattr(ThreadPoolExecutor, "submit", handing_over)
    with pytest.warns(UserWarning, match="interrupted by user in epoch 3 of 4"):
        result = run(model, batches)
    assert result.interrupted
    assert futures[-1].done()
    monkeypatch.undo()
    assert not run(same, batches, max_epochs=2).interrupted
    for p, q in zip(model.parameters(), same.parameters(), strict=True):
        assert torch.equal(p, q)
