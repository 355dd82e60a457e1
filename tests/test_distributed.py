import copy
import hashlib
import multiprocessing
import os
import pickle
import re
import signal
import sys
import threading
import time
import warnings
from contextvars import Context
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits
from torch import distributed as dist

from aefeatures import (
    AutoencoderTransformer,
    ConvNetwork,
    Regularizer,
    Supervised,
    Variational,
    distributed,
)
from aefeatures._autoencoder import fitted_model
from aefeatures._nets.losses import LOSSES
from aefeatures._nets.networks import BuildSpec, DenseNetwork, plain
from aefeatures._rows.batches import RowBatches, batch_size_of
from aefeatures._rows.checks import check_rows
from aefeatures._rows.scaling import learn_scaling
from aefeatures._rows.survey import Survey
from aefeatures._torch.ranks import Ranks, current_ranks
from aefeatures._train.starting import check_same_on_ranks
from aefeatures._train.training import Plan, Training, Watcher

X, Y = load_digits(return_X_y=True)
X = X.astype(np.float32)
# Rows of three ranks: many, fewer than a batch, none.
PARTS = [slice(0, 1000), slice(1000, 1040), slice(1040, 1040)]
ALL = slice(0, 1040)
NAMES = [f"a{i}" for i in range(64)]


# What each of three processes does. All processes run all of it, one after the other.


def in_given_order(rank, size):
    """100 steps on the batches of a single process, split among `size`; returns codes."""

    class InOrder(RowBatches):
        def indexed_epoch(self, rng=None, skip=0):
            yield from super().indexed_epoch(None, skip)

    rows = X[:1600].reshape(25, size, 64 // size, 64)[:, rank].reshape(-1, 64)
    batches = InOrder(
        rows,
        lambda rows: rows / 16,
        batch_size=64 // size,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    spec = BuildSpec(True, torch.float32, torch.Generator().manual_seed(0))
    model = torch.nn.Sequential(*DenseNetwork().build(64, 3, spec=spec))
    plan = Plan(
        model,
        batches,
        LOSSES["mse"],
        max_epochs=4,
        learning_rate=5e-3,
        schedule="one_cycle",
        rng=np.random.default_rng(0),
        ranks=current_ranks(),
    )
    result = Training(plan).run()
    with torch.no_grad():
        return model[0](torch.from_numpy(X[:200] / 16)).numpy(), result


class Counting:
    """A loss that counts the rows it sees while it trains."""

    def __init__(self):
        self.n_rows = 0

    def __call__(self, reconstruction, target):
        if torch.is_grad_enabled():
            self.n_rows += len(target)
        return (reconstruction - target).square().mean(dim=1)


def model_of(fitted):
    """A digest of all that a fitted transformer computes with."""
    hashed = hashlib.sha256()
    for module in fitted_model(fitted).modules:
        for tensor in module.state_dict().values():
            hashed.update(tensor.numpy().tobytes())
    return hashed.hexdigest()


def fitted(rows, y=None, **changes):
    settings = {"max_epochs": 2, "random_state": 0, **changes}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*interrupted by user")
        transformer = AutoencoderTransformer(**settings).fit(rows, y)
    return {
        "model": model_of(transformer),
        "codes": transformer.transform(X[1040:1200]),
        "loss_curve": transformer.loss_curve_,
        "validation": transformer.validation_loss_curve_,
        "n_steps": transformer.n_steps_,
        "max_epochs": transformer.max_epochs_,
        "seed": fitted_model(transformer).seed,
    }


def missing_in_the_second(rank):
    rows = X[PARTS[rank]].copy()
    if rank == 1:
        rows[::3, ::5] = np.nan
    return rows


def interrupting(at_rank, at_call):
    calls = []

    def loss(reconstruction, target):
        calls.append(0)
        if len(calls) == at_call and current_rank() == at_rank:
            os.kill(os.getpid(), signal.SIGINT)
        return (reconstruction - target).square().mean(dim=1)

    return loss


def current_rank():
    return dist.get_rank()


def failing(at_rank):
    def loss(reconstruction, target):
        if current_rank() == at_rank:
            raise OSError("no more of this")
        return (reconstruction - target).square().mean(dim=1)

    return loss


class StopsAfterTwo(Watcher):
    def end_epoch(self, result):
        return len(result.loss_curve) == 2


class Fails(Watcher):
    def __init__(self, when):
        setattr(self, when, self.fail)

    def fail(self, *args):
        raise OSError("disk full")


def watched_by_one(rank, watcher):
    batches = RowBatches(
        X[PARTS[rank]],
        lambda rows: rows / 16,
        batch_size=64,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    spec = BuildSpec(True, torch.float32, torch.Generator().manual_seed(0))
    model = torch.nn.Sequential(*DenseNetwork((8,)).build(64, 3, spec=spec))
    with current_ranks().together():
        plan = Plan(
            model,
            batches,
            LOSSES["mse"],
            max_epochs=5,
            learning_rate=1e-3,
            rng=np.random.default_rng(0),
            watchers=[watcher] if rank == 1 else [],
            ranks=current_ranks(),
        )
        return Training(plan).run().loss_curve


def in_parts(rank):
    transformer = AutoencoderTransformer(random_state=0)
    for _ in range(3):
        transformer.partial_fit(X[PARTS[rank]])
    return model_of(transformer), transformer.n_steps_, transformer.loss_


def from_fits_apart(rank):
    """`partial_fit` together after each rank has trained alone."""
    transformer = Context().run(AutoencoderTransformer(random_state=0).partial_fit, X[rank::3])
    transformer.partial_fit(X[rank::3])


def interrupted_in_a_gather(rank):
    """A rank is interrupted while it waits, within `fit`, for one that is late."""
    over = threading.Event()

    def interrupt():
        while signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            if over.wait(0.01):
                return
        os.kill(os.getpid(), signal.SIGINT)

    if rank == 0:
        threading.Thread(target=interrupt).start()
    elif rank == 1:
        time.sleep(0.3)
    try:
        fitted(X[PARTS[rank]])
    finally:
        over.set()


def with_message_of_its_own(rank):
    """A message of the caller between two ranks is under way during a fit."""
    sent, got = torch.full((3,), float(rank)), torch.empty(3)
    request = dist.isend(sent, 3 - rank)  # of the pair, which is ranks 1 and 2 of all
    result = fitted(X[:200], network=DenseNetwork((8,), n_principal_components=5))
    dist.recv(got, 3 - rank)
    request.wait()
    return result["model"], got.tolist()


def raised(function, *args, **kwargs):
    """What it raises, and whether the next fit of all is well."""
    try:
        function(*args, **kwargs)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001
        return f"{type(error).__name__}: {error}"
    return None


def counted(rank):
    loss = Counting()
    result = fitted(X[PARTS[rank]], loss=loss)
    return {**result, "n_rows": loss.n_rows}


def scaled(rank, how):
    rows = missing_in_the_second(rank) + np.float32(1e4)
    scaling, means = learn_scaling(Survey.of(rows).of_all(current_ranks()), how)
    return [scaling.offset.numpy(), scaling.scale.numpy(), means]


# Labels of which no rank sees all, digits sorted by class.
ORDER = np.argsort(Y[ALL], kind="stable")
SORTED, SORTED_Y = X[ALL][ORDER], Y[ALL][ORDER]


# A table of which no rank sees all levels, and the last rank no rows.
TABLE = pd.DataFrame(
    {"digit": np.array([f"digit {each}" for each in SORTED_Y]), "dark": SORTED.mean(axis=1)}
)


def of_table(rank):
    transformer = AutoencoderTransformer(1, max_epochs=2, random_state=0).fit(TABLE[PARTS[rank]])
    return {
        "levels": transformer.categories_[0].tolist(),
        "counts": transformer._table.columns[0].levels.counts.tolist(),
        "codes": transformer.transform(TABLE),
    }


def shares(rank):
    """Everything that is compared, by name."""
    rows = X[PARTS[rank]]
    bad = rows.copy()
    if rank == 1:
        bad[3, 4] = np.inf
    numbers = SORTED_Y[PARTS[rank]] + np.where(rank == 0, 0.5, 0.0)
    some = {
        "plain": lambda: fitted(rows),
        "same seed without one": lambda: fitted(rows, random_state=None),
        "counted": lambda: counted(rank),
        "early stopping": lambda: fitted(
            rows, early_stopping=True, max_epochs=50, n_iter_no_change=2, tol=0.05
        ),
        "batch normalization": lambda: fitted(rows, normalization="batch"),
        "missing": lambda: fitted(missing_in_the_second(rank)),
        "table": lambda: of_table(rank),
        "nothing known": lambda: fitted(
            np.vstack([missing_in_the_second(rank), np.full((200 * (rank > 0), 64), np.nan)])
        ),
        "variational": lambda: fitted(rows, regularizer=["variational", "denoising", "sparse"]),
        "neighbors": lambda: fitted(rows, regularizer="neighbors"),
        "classes": lambda: fitted(
            SORTED[PARTS[rank]], SORTED_Y[PARTS[rank]], regularizer=Supervised(unlabeled=None)
        ),
        "numbers": lambda: fitted(SORTED[PARTS[rank]], numbers, regularizer="supervised"),
        "auto": lambda: fitted(
            np.tile(rows, (6, 1)), max_epochs="auto", batch_size=500, hidden_layer_sizes=(8,)
        ),
        "partial_fit": lambda: in_parts(rank),
        "stopped by one": lambda: watched_by_one(rank, StopsAfterTwo()),
        "interrupted": lambda: fitted(rows, max_epochs=4, loss=interrupting(1, 20)),
        "components": lambda: fitted(rows, network=DenseNetwork((8,), n_principal_components=5)),
        **{f"scaled {how}": lambda how=how: scaled(rank, how) for how in ("standard", "global")},
    }
    errors = {
        "infinity": lambda: fitted(bad),
        "columns": lambda: fitted(rows[:, rank:]),
        "names": lambda: fitted(pd.DataFrame(rows, columns=NAMES[:: -1 if rank else 1])),
        "kinds": lambda: fitted(TABLE.assign(digit=SORTED_Y) if rank else TABLE),
        "parameter": lambda: fitted(rows, batch_size=64 if rank else 32),
        "layers": lambda: fitted(rows, hidden_layer_sizes=(8 + rank,)),
        "regularizer": lambda: fitted(rows, regularizer=Variational(0.1 + rank)),
        "fits apart": lambda: from_fits_apart(rank),
        "no rows": lambda: fitted(rows[:0]),
        "checkpoint": lambda: fitted(rows, checkpoint="folder"),
        "loss": lambda: fitted(rows, loss=failing(1)),
        "beginning": lambda: watched_by_one(rank, Fails("begin_epoch")),
        "step": lambda: watched_by_one(rank, Fails("step")),
        "end": lambda: watched_by_one(rank, Fails("end_epoch")),
        "diverged": lambda: fitted(rows, learning_rate=1e30),
        "interrupted in a gather": lambda: interrupted_in_a_gather(rank),
        "interrupted at once": lambda: fitted(rows, loss=interrupting(0, 2)),
        "labels": lambda: fitted(rows, np.full(len(rows), np.nan), regularizer="supervised"),
    }
    results = {name: function() for name, function in some.items()}
    results |= {name: raised(function) for name, function in errors.items()}
    results["after errors"] = fitted(rows)
    return results


def work(rank, folder):
    """One of three processes; leaves what it found in a file."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    store = dist.FileStore(str(folder / "store"), 3)
    dist.init_process_group(
        "gloo", store=store, rank=rank, world_size=3, timeout=timedelta(seconds=60)
    )
    pair = dist.new_group([1, 2])  # whose ranks are others than those of all
    found = {}
    try:
        with distributed():
            found = shares(rank)
        found["outside"] = fitted(X[ALL]) if rank == 0 else None  # the others do not take part
        if rank > 0:
            with distributed(pair):
                found["in order"] = in_given_order(rank - 1, 2)
                found["message"] = with_message_of_its_own(rank)
        else:
            found["not in the group"] = raised(distributed(pair).__enter__)
    except BaseException as error:
        found["error"] = repr(error)
        raise
    finally:
        (folder / str(rank)).write_bytes(pickle.dumps(found))
    dist.destroy_process_group()


def work_of_lost(rank, folder):
    """One of two processes, of which the second is gone in the middle of a fit."""
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)

    def loss(reconstruction, target):
        if rank == 1 and len(calls) == 10:
            os.kill(os.getpid(), signal.SIGKILL)
        calls.append(0)
        return (reconstruction - target).square().mean(dim=1)

    calls = []
    with distributed():
        (folder / "0").write_text(raised(fitted, X[rank::2], loss=loss), encoding="utf-8")


def start(function, n, folder):
    """Run `function(rank, folder)` in n processes; return their exit codes."""
    context = multiprocessing.get_context("forkserver")
    # Once for all.
    context.set_forkserver_preload(["aefeatures", "pytest", "sklearn.datasets"])
    processes = [context.Process(target=function, args=(rank, folder)) for rank in range(n)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    return [process.exitcode for process in processes]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of three processes found."""
    folder = tmp_path_factory.mktemp("ranks")
    codes = start(work, 3, folder)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You are using `torch.load`", FutureWarning)  # 2.4
        found = [pickle.loads((folder / str(rank)).read_bytes()) for rank in range(3)]
    assert [each.get("error") for each in found] == [None] * 3
    assert codes == [0, 0, 0]
    return found


FITS = [
    "plain",
    "same seed without one",
    "counted",
    "early stopping",
    "batch normalization",
    "missing",
    "nothing known",
    "variational",
    "neighbors",
    "classes",
    "numbers",
    "auto",
    "interrupted",
    "components",
    "after errors",
]


@pytest.mark.parametrize("name", FITS)
def test_every_rank_ends_with_the_same_model(ranks, name):
    first, *others = [each[name] for each in ranks]
    for other in others:
        assert other["model"] == first["model"]
        for same in ("loss_curve", "validation", "n_steps", "max_epochs", "seed"):
            assert other[same] == first[same]


def test_rows_with_nothing_known_are_no_rows_of_a_rank(ranks):
    for each in ranks:
        np.testing.assert_allclose(
            each["nothing known"]["loss_curve"], each["missing"]["loss_curve"], rtol=1e-6
        )
        assert each["nothing known"]["n_steps"] == each["missing"]["n_steps"]


def test_two_ranks_of_32_rows_step_as_one_of_64(ranks):
    codes, result = in_given_order(0, 1)
    assert result.n_steps == 100
    for each in ranks[1:]:
        own, own_result = each["in order"]
        np.testing.assert_allclose(own, codes, atol=1e-4)
        np.testing.assert_allclose(own_result.loss_curve, result.loss_curve, rtol=1e-4)


def test_messages_of_the_caller_are_left_to_it(ranks):
    first, second = (each["message"] for each in ranks[1:])
    assert first[0] == second[0]
    assert (first[1], second[1]) == ([2.0] * 3, [1.0] * 3)


def test_every_row_counts_once_in_an_epoch(ranks):
    assert [each["counted"]["n_rows"] for each in ranks] == [2000, 80, 0]
    assert ranks[0]["counted"]["n_steps"] == 2 * 16


@pytest.mark.parametrize(
    ("counts", "sizes"),
    [
        ([1000, 40, 0], [64, 3, 1]),
        ([100, 100], [64, 64]),
        ([7, 1], [64, 64]),
        ([640, 639], [64, 64]),
        ([640, 300], [64, 30]),
    ],
)
def test_smaller_shards_last_the_epoch(counts, sizes):
    assert [batch_size_of(counts, 64, rank) for rank in range(len(counts))] == sizes


@pytest.mark.parametrize("how", ["standard", "global"])
def test_scaling_is_that_of_all_rows(ranks, how):
    rows = np.concatenate([missing_in_the_second(rank) for rank in range(3)]) + np.float32(1e4)
    scaling, means = learn_scaling(Survey.of(rows), how)
    for each in ranks:
        for found, expected in zip(
            each[f"scaled {how}"], (scaling.offset, scaling.scale, means), strict=True
        ):
            np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_levels_of_a_table_are_those_of_all_ranks(ranks):
    for each in ranks:
        found = each["table"]
        assert found["levels"] == sorted(set(TABLE["digit"]))
        assert found["counts"] == TABLE["digit"].value_counts().sort_index().tolist()
        np.testing.assert_array_equal(found["codes"], ranks[0]["table"]["codes"])
        assert "must fit the same columns, got a column of the kinds" in each["kinds"]


def test_auto_epochs_are_of_all_rows_and_batches(ranks):
    assert ranks[2]["auto"]["max_epochs"] == 31  # ceil(192,000 / (6 * 1,040))


def test_early_stopping_stops_all(ranks):
    assert 2 < len(ranks[2]["early stopping"]["validation"]) < 50


def test_one_watcher_stops_all(ranks):
    assert [len(each["stopped by one"]) for each in ranks] == [2, 2, 2]


def test_partial_fit_goes_on_together(ranks):
    model, n_steps, _ = ranks[0]["partial_fit"]
    assert n_steps == 3 * 16
    assert all(each["partial_fit"][0] == model for each in ranks)


def test_outside_groups_are_ignored(ranks):
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the ranks: codes are the same bit for bit at as many threads
    try:
        expected = fitted(X[ALL])
    finally:
        torch.set_num_threads(n_threads)
    np.testing.assert_array_equal(ranks[0]["outside"]["codes"], expected["codes"])


def test_interrupt_of_one_keeps_the_best_of_all(ranks):
    assert [len(each["interrupted"]["loss_curve"]) for each in ranks] == [1, 1, 1]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("infinity", ["Rank 1 of 3 failed", "ValueError: Input X contains inf", "Rank 1 of 3"]),
        ("columns", ["same number of columns, got by rank: 64, 63, 62"] * 3),
        ("names", ["same names of columns, got by rank: ['a0', 'a1'"] * 3),
        ("layers", ["same hidden_layer_sizes, got by rank: (8,), (9,), (10,)"] * 3),
        ("regularizer", ["same regularizer, got by rank: Variational(beta=0.1), Var"] * 3),
        ("fits apart", ["same model to go on from, got by rank: "] * 3),
        ("parameter", ["same batch_size, got by rank: 32, 64, 64"] * 3),
        ("no rows", ["ValueError: Found no rows on any rank"] * 3),
        ("checkpoint", ["ValueError: checkpoint cannot be used within distributed()"] * 3),
        (
            "loss",
            ["Error: Rank 1 of 3 failed, so all ranks stop: OSError: no", "OSError: no", "Rank 1"],
        ),
        *[
            (when, ["Error: Rank 1 of 3 failed", "OSError: disk full", "Rank 1 of 3 failed"])
            for when in ("beginning", "step", "end")
        ],
        ("interrupted in a gather", ["KeyboardInterrupt"] * 3),
        ("diverged", ["FloatingPointError: The training diverged"] * 3),
        ("interrupted at once", ["KeyboardInterrupt"] * 3),
        ("labels", ["ValueError: No row of y is labelled."] * 3),
    ],
)
def test_an_error_of_one_rank_is_raised_on_all(ranks, name, expected):
    for each, part in zip(ranks, expected, strict=True):
        assert part in each[name]


class Remembering(Ranks):
    """One of two ranks, which finds what the other has gathered before."""

    size = 2

    def __init__(self, other=None):
        self.gathered = []
        self.other = list(other.gathered) if other else []

    def gather(self, value):
        self.gathered.append(value)
        return [self.other.pop(0) if self.other else value, value]


class Prototypes(Regularizer):
    def __init__(self, rows=None):
        self.rows = rows


LONG = np.zeros((60, 64))
ANOTHER = LONG.copy()
ANOTHER[30, 30] = 1e-12


def check(params, X, rank):
    estimator = AutoencoderTransformer(**params)
    rows = check_rows(estimator, X, reset=True)
    check_same_on_ranks(plain(estimator), rows, rank, None)


def told_apart(value, other, X=X[:40], of_other=X[:40]):
    """What two ranks with these estimators say."""
    first, second = (
        each if isinstance(each, dict) else {"regularizer": each} for each in (value, other)
    )
    rank = Remembering()
    check(first, X, rank)
    try:
        check(second, of_other, Remembering(rank))
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("value", "other", "name"),
    [
        (Prototypes(LONG), Prototypes(ANOTHER), "regularizer"),
        ([Prototypes(LONG)], [Prototypes(ANOTHER)], "regularizer"),
        (Prototypes(list(range(3000))), Prototypes([*range(2999), 0]), "regularizer"),
        (
            {"hidden_layer_sizes": np.full(2000, 8)},
            {"hidden_layer_sizes": np.r_[np.full(1000, 8), 9, np.full(999, 8)]},
            "hidden_layer_sizes",
        ),
        (
            {"network": ConvNetwork((8, 8), np.full(2000, 8))},
            {"network": ConvNetwork((8, 8), np.r_[np.full(1000, 8), 9, np.full(999, 8)])},
            "network",
        ),
    ],
)
def test_long_values_are_compared_as_a_whole(value, other, name):
    message = told_apart(value, other)
    assert message.startswith(f"All ranks must fit with the same {name}, got by rank: ")
    assert len(message) < 400
    shown = message.partition(": ")[2]
    parts = re.split(r"(?<=\(digest \w{8}\)), " if "digest" in shown else r"\), ", shown)
    assert len(set(parts)) == len(parts)  # also where only their beginnings are shown
    assert told_apart(value, copy.deepcopy(value)) == ""


def test_what_is_the_same_on_all_ranks():
    """Also numbers of NumPy, and what differs in nothing but its place in memory."""
    params = {"batch_size": 32, "tol": 0.5, "regularizer": Variational(0.5)}
    given = {"tol": np.float16(0.5)}
    given |= {"batch_size": np.int64(32), "regularizer": Variational(np.float32(0.5))}
    assert told_apart(params, given) == ""
    for make in (threading.Lock, object, lambda: lambda x: x):
        assert told_apart(Prototypes(make()), Prototypes(make())) == ""


def test_process_outside_of_the_group(ranks):
    assert "got a process group without this process" in ranks[0]["not in the group"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL")
def test_a_lost_rank_is_an_error_of_the_others(tmp_path):
    assert start(work_of_lost, 2, tmp_path) == [0, -9]
    assert "RuntimeError" in (tmp_path / "0").read_text(encoding="utf-8")


def test_without_process_group():
    with pytest.raises(RuntimeError, match=r"there is none. Call torch.distributed.init_process"):
        distributed().__enter__()
