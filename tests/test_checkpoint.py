import json
import os
import pickle
import subprocess
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

import aefeatures._rows.batches
import aefeatures._rows.sources
import aefeatures._train.checkpoint
import aefeatures._train.digests
import aefeatures._train.starting
import aefeatures._train.training
from aefeatures import AutoencoderTransformer, Checkpoint, Denoising, Regularizer
from aefeatures._files import read_file, write_file
from aefeatures._rows.sources import as_source
from aefeatures._train.checkpoint import FitFile
from aefeatures._train.digests import digest, digest_of_rows


class Death(BaseException):
    """What stands for the end of a process, where one need not be killed."""


@pytest.fixture(autouse=True)
def eager(monkeypatch):
    """The file is written after each epoch."""
    monkeypatch.setattr(aefeatures._train.checkpoint, "_SECONDS_BETWEEN", 0)
    monkeypatch.setattr(aefeatures._train.checkpoint, "_TIMES_ITS_DURATION", 0)
    monkeypatch.setattr(aefeatures._train.training, "_last_interrupt", -np.inf)


@pytest.fixture(name="X")
def some_digits(digits):
    return digits[0][:400]


def small(**params):
    return AutoencoderTransformer(
        **{"hidden_layer_sizes": (16,), "max_epochs": 8, "random_state": 0, **params}
    )


def fit_and_die(transformer, X, y=None, after=3, error=Death, of="end_epoch"):
    """Fit until so many epochs, or steps, are over."""
    calls = []
    method = getattr(FitFile, of)

    def dying(self, *args):
        method(self, *args)
        calls.append(0)
        if len(calls) == after:
            raise error
        return False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FitFile, of, dying)
        if error is Death:
            with pytest.raises(Death):
                transformer.fit(X, y)
        else:
            transformer.fit(X, y)
    return transformer


def count(of, transformer, X, y=None):
    """Fit, and return how many steps or epochs that took."""
    calls = []
    method = getattr(FitFile, of)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FitFile, of, lambda *args: calls.append(0) or method(*args))
        transformer.fit(X, y)
    return len(calls)


def count_epochs(transformer, X, y=None):
    return count("end_epoch", transformer, X, y)


def assert_equal(ours, theirs, X):
    np.testing.assert_array_equal(ours.transform(X), theirs.transform(X))
    np.testing.assert_array_equal(ours.reconstruct(X), theirs.reconstruct(X))
    for name in ("loss_curve_", "validation_loss_curve_", "best_loss_", "n_iter_", "n_steps_"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours._memory.rng.bit_generator.state == theirs._memory.rng.bit_generator.state
    assert vars(ours).keys() == vars(theirs).keys()


def own_network(n_features, n_components):
    return (
        torch.nn.Sequential(
            torch.nn.BatchNorm1d(n_features), torch.nn.Linear(n_features, n_components)
        ),
        torch.nn.Linear(n_components, n_features),
    )


class DrawingPenalty(Regularizer):
    def prepare(self, data):
        prepared = DrawingPenalty()
        prepared.head = torch.nn.Linear(data.n_components, 1)
        return prepared

    def penalty(self, batch):
        return (self.head(batch.codes) * torch.rand(())).square().mean()


def drawing_network(n_features, n_components):
    """Draws while it trains and, by the function, while it encodes."""
    encoder = torch.nn.Sequential(
        torch.nn.Dropout(0.2),
        torch.nn.LazyLinear(16),
        torch.nn.RReLU(),
        DropoutAlways(),
        torch.nn.Linear(16, n_components),
    )
    return encoder, torch.nn.Linear(n_components, n_features)


class DropoutAlways(torch.nn.Module):
    def forward(self, rows):
        return torch.nn.functional.dropout(rows, 0.1)


def drawing_loss(reconstruction, target):
    return ((reconstruction - target) * torch.rand_like(target)).square().mean(dim=1)


PARAMS = pytest.mark.parametrize(
    "params",
    [
        {},
        {"normalization": "batch", "precision": "float64", "learning_rate_schedule": "cosine"},
        {"regularizer": ["neighbors", "supervised", "variational", "denoising"]},
        {"early_stopping": True, "n_iter_no_change": 3, "tol": 0.9, "batch_size": 16},
        {"network": own_network, "precision": "bfloat16"},
        {"network": drawing_network, "early_stopping": True, "batch_size": 32},
        {"loss": drawing_loss, "regularizer": [DrawingPenalty(), "sparse"], "batch_size": 16},
        {"scaling": "feature", "verbose": 1, "batch_size": 16, "weight_decay": 0.1},
    ],
)


@PARAMS
def test_a_fit_that_died_goes_on_to_the_same_result(X, digits, tmp_path, params):
    y = digits[2][:400]
    expected = small(**params).fit(X, y)
    for after in (2, 1):
        fit_and_die(small(**params, checkpoint=tmp_path), X, y, after)
        assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]
    resumed = small(**params, checkpoint=tmp_path)
    assert count_epochs(resumed, X, y) == expected.n_iter_ - 3
    assert_equal(resumed, expected, X)
    assert list(tmp_path.iterdir()) == []


@PARAMS
def test_a_fit_that_died_within_an_epoch(X, digits, tmp_path, params, monkeypatch):
    """Not one step is taken again."""
    monkeypatch.setattr(aefeatures._train.checkpoint, "_SECONDS_WITHIN_EPOCH", 0)
    y = digits[2][:400]
    expected = small(**params).fit(X, y)
    for after in (10, 1):
        fit_and_die(small(**params, checkpoint=tmp_path), X, y, after, of="step")
    resumed = small(**params, checkpoint=tmp_path)
    assert count("step", resumed, X, y) == expected.n_steps_ - 11
    assert_equal(resumed, expected, X)
    assert list(tmp_path.iterdir()) == []


def test_within_an_epoch_there_is_a_file_every_two_minutes(X, tmp_path, monkeypatch):
    times = []
    write = FitFile._write
    monkeypatch.setattr(FitFile, "_write", lambda file: times.append(now[0]) or write(file))
    now = [0.0]
    monkeypatch.setattr(aefeatures._train.checkpoint.time, "monotonic", lambda: now[0])
    step = FitFile.step

    def slow(self, *args):
        now[0] += 50
        step(self, *args)

    monkeypatch.setattr(FitFile, "step", slow)
    small(max_epochs=2, checkpoint=tmp_path).fit(X)
    # Steps of 50 s, seven of them an epoch: the end of the first one is due as well.
    assert times == [150, 300, 350, 500, 650]


def of_polars(X):
    return pl.DataFrame({name: [v if v == v else None for v in X[name]] for name in X})


def town_table(n=300, towns=("Bern", "Genf", "Chur")):
    rng = np.random.default_rng(0)
    town = np.append(rng.choice(towns, n - 1), None)
    days = np.datetime64("2024-01-01", "us") + rng.integers(0, 99, n) * np.timedelta64(1, "D")
    return pd.DataFrame({"number": rng.normal(size=n), "town": town, "day": days})


@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize(
    ("library", "params"),
    [
        ("pandas", {"regularizer": "neighbors"}),
        ("pandas", {"early_stopping": True, "max_categories": 2, "scaling": "feature"}),
        ("polars", {"network": own_network, "random_state": None}),
        ("numpy", {"categorical_features": [1], "precision": "float64"}),
    ],
)
def test_a_fit_of_a_table_that_died(tmp_path, library, params, within, monkeypatch):
    X = town_table()
    if library == "polars":
        X = of_polars(X)
    elif library == "numpy":
        X = X[["number", "town"]].to_numpy(object)
    if within:
        monkeypatch.setattr(aefeatures._train.checkpoint, "_SECONDS_WITHIN_EPOCH", 0)
    of, after = ("step", 7) if within else ("end_epoch", 3)
    params = {"n_components": 2, **params}
    if params.get("random_state", 0) is None:
        monkeypatch.setattr(aefeatures._train.starting, "draw_seed", lambda *_: 3)
    expected = small(**params).fit(X)
    fit_and_die(small(**params, checkpoint=tmp_path), X, after=after, of=of)
    resumed = small(**params, checkpoint=tmp_path)
    whole = {"step": expected.n_steps_, "end_epoch": expected.n_iter_}[of]
    assert count(of, resumed, X) == whole - after
    np.testing.assert_array_equal(resumed.transform(X), expected.transform(X))
    assert resumed.loss_curve_ == expected.loss_curve_
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize("kind", ["sparse", "missing", "memory map", "blocks"])
def test_kinds_of_data(X, tmp_path, kind, within, monkeypatch):
    if within:
        monkeypatch.setattr(aefeatures._train.checkpoint, "_SECONDS_WITHIN_EPOCH", 0)
    if kind == "sparse":
        X = sparse.csr_matrix(X)
    elif kind == "missing":
        X = np.where(np.random.default_rng(0).random(X.shape) < 0.1, np.nan, X)
    else:
        np.save(tmp_path / "X.npy", X)
        X = np.load(tmp_path / "X.npy", mmap_mode="r")
    if kind == "blocks":
        monkeypatch.setattr(aefeatures._rows.sources, "physical_memory", lambda: 1000)
        monkeypatch.setattr(aefeatures._rows.batches, "_RESIDENT_BYTES", -1)
        monkeypatch.setattr(aefeatures._rows.sources, "_CHUNK_ELEMENTS", 64 * 64 * 16)
    folder = tmp_path / "a" / "new"
    fit_and_die(
        small(checkpoint=str(folder)),
        X,
        after=24 if within else 3,
        of="step" if within else "end_epoch",
    )
    resumed = small(checkpoint=str(folder))
    assert count("step", resumed, X) == 8 * 7 - (24 if within else 21)
    assert_equal(resumed, small().fit(X), X)


def test_warm_start_goes_on_from_where_it_was(X, tmp_path):
    first = small(warm_start=True, regularizer="variational").fit(X)
    fresh = clone(first)
    expected = pickle.loads(pickle.dumps(first)).fit(X)
    dead = pickle.loads(pickle.dumps(first)).set_params(checkpoint=tmp_path)
    fit_and_die(dead, X)
    assert dead.n_iter_ == 8
    # Another start, another file.
    assert count_epochs(fresh.set_params(checkpoint=tmp_path), X) == 8
    resumed = pickle.loads(pickle.dumps(first)).set_params(checkpoint=tmp_path)
    assert count_epochs(resumed, X) == 5
    assert_equal(resumed, expected, X)


SEEDS = []


class Seen(Regularizer):
    def prepare(self, data):
        SEEDS.append(data.rng.bit_generator.state["state"]["state"])
        return self


def test_a_fit_without_seed_goes_on_with_what_it_drew(X, tmp_path):
    regularizer = Seen()
    fit_and_die(small(random_state=None, checkpoint=tmp_path, regularizer=regularizer), X)
    resumed = small(random_state=None, checkpoint=tmp_path, regularizer=regularizer)
    assert count_epochs(resumed, X) == 5
    assert SEEDS[0] == SEEDS[1]
    again = small(random_state=None, checkpoint=tmp_path, regularizer=regularizer)
    assert count_epochs(again, X) == 8
    assert SEEDS[2] != SEEDS[0]


def test_random_state_instances_advance_as_without(X, tmp_path):
    alone, dead, resumed = (np.random.RandomState(5) for _ in range(3))
    expected = small(random_state=alone).fit(X)
    fit_and_die(small(random_state=dead, checkpoint=tmp_path), X)
    transformer = small(random_state=resumed, checkpoint=tmp_path)
    assert count_epochs(transformer, X) == 5
    assert_equal(transformer, expected, X)
    assert alone.randint(2**31) == resumed.randint(2**31)


def test_interrupted_fit_leaves_a_file_to_go_on_from(X, tmp_path):
    with pytest.warns(UserWarning, match="interrupted by user in epoch 4 of 8"):
        interrupted = fit_and_die(small(checkpoint=tmp_path), X, error=KeyboardInterrupt)
    assert interrupted.n_iter_ == 3
    assert_equal(interrupted.fit(X), small().fit(X), X)
    assert interrupted.n_iter_ == 8
    assert list(tmp_path.iterdir()) == []


def test_a_fit_that_diverges_leaves_no_file(X, tmp_path):
    calls = []

    def loss(reconstruction, target):
        calls.append(0)
        return (reconstruction - target).square().mean(dim=1) * (1 if len(calls) < 30 else np.inf)

    with pytest.raises(FloatingPointError, match="in epoch 5"):
        small(loss=loss, checkpoint=tmp_path).fit(X)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "another network", "a model"])
def test_a_damaged_file_is_told_and_removed(X, tmp_path, damage):
    expected = small().fit(X)
    fit_and_die(small(checkpoint=tmp_path), X)
    (path,) = tmp_path.iterdir()
    data = path.read_bytes()
    if damage == "cut":
        path.write_bytes(data[:-9])
    elif damage == "flipped":
        path.write_bytes(data[:-900] + bytes([data[-900] ^ 1]) + data[-899:])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "a model":
        expected.save(path)
    else:
        document, arrays = read_file(path)
        del document["digest"]
        arrays["tensor.0"] = arrays["tensor.0"][:-4]
        write_file(path, document, arrays)
    resumed = small(checkpoint=tmp_path)
    with pytest.warns(RuntimeWarning, match="used, the fit starts from the beginning: .") as caught:
        resumed.fit(X)
    assert caught[0].filename == __file__
    assert_equal(resumed, expected, X)
    assert list(tmp_path.iterdir()) == []


BEGUN, GO_ON = threading.Event(), threading.Event()


class Slow(Regularizer):
    def penalty(self, batch):
        BEGUN.set()
        assert GO_ON.wait(60)
        return 0.0


def test_the_same_fit_twice_at_once(X, tmp_path):
    """The second one runs without, and leaves the file and the lock of the first alone."""
    first, second = (small(regularizer=Slow(), checkpoint=tmp_path) for _ in range(2))
    thread = threading.Thread(target=first.fit, args=(X,))
    thread.start()
    try:
        assert BEGUN.wait(60)
        (path,) = tmp_path.iterdir()
        assert path.suffix == ".lock"
        with pytest.raises(RuntimeWarning, match=r"checkpoint in .*: this one runs"):
            second.fit(X)
        assert list(tmp_path.iterdir()) == [path]
    finally:
        GO_ON.set()
        thread.join()
    assert_equal(first, second.fit(X), X)
    assert list(tmp_path.iterdir()) == []


def test_locks_of_many_threads_exclude_each_other(tmp_path):
    inside, errors = [], []

    def work():
        for _ in range(200):
            locked = aefeatures._train.checkpoint._acquire(tmp_path / "lock")
            if locked is not None:
                inside.append(0)
                if len(inside) != 1:
                    errors.append(len(inside))
                inside.pop()
                aefeatures._train.checkpoint._release(tmp_path / "lock", locked)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_costs_the_checkpoint_alone(X, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device", "fit")

    monkeypatch.setattr(aefeatures._train.checkpoint, "write_file", full)
    transformer = small(checkpoint=tmp_path)
    with pytest.warns(RuntimeWarning, match="No space left") as caught:
        transformer.fit(X)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert_equal(transformer, small().fit(X), X)


def test_folders_that_cannot_be_used(X, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    transformer = small(checkpoint=file)
    with pytest.raises(OSError, match="file"):
        transformer.fit(X)
    assert vars(transformer) == vars(small(checkpoint=file))
    with pytest.raises(ValueError, match="'checkpoint' parameter"):
        small(checkpoint=3).fit(X)


def test_a_file_that_stays_gives_its_result_again(X, tmp_path):
    params = {
        "early_stopping": True,
        "n_iter_no_change": 1,
        "tol": 0.9,
        "regularizer": "variational",
    }
    expected = small(**params).fit(X)
    keeping = small(**params, checkpoint=Checkpoint(tmp_path, keep=True))
    assert repr(clone(keeping).checkpoint) == repr(keeping.checkpoint)
    assert count_epochs(keeping, X) == expected.n_iter_
    assert_equal(keeping, expected, X)
    (path,) = tmp_path.iterdir()
    again = clone(keeping)
    assert count_epochs(again, X) == 0
    assert_equal(again, expected, X)
    assert list(tmp_path.iterdir()) == [path]
    # The same fit without `keep` finds it, too.
    last = small(**params, checkpoint=tmp_path)
    assert count_epochs(last, X) == 0
    assert_equal(last, expected, X)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        (Checkpoint(3), "folder of Checkpoint must be str or PathLike, got 3"),
        (Checkpoint("x", keep="yes"), "keep of Checkpoint must be bool, got 'yes'"),
    ],
)
def test_bad_checkpoints_are_named(X, checkpoint, message):
    with pytest.raises(ValueError, match=message):
        small(checkpoint=checkpoint).fit(X)


def test_short_fits_write_nothing(X, tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(aefeatures._train.checkpoint, "write_file", None)
    small(checkpoint=tmp_path).fit(X)
    assert list(tmp_path.iterdir()) == []


def test_partial_fit_writes_nothing(X, tmp_path):
    small(checkpoint=tmp_path / "new").partial_fit(X)
    assert not (tmp_path / "new").exists()


def test_the_clones_of_a_search_share_the_folder(X, tmp_path):
    search = GridSearchCV(small(checkpoint=tmp_path), {"n_components": [2, 3]}, cv=2, n_jobs=2).fit(
        X
    )
    assert search.best_estimator_.checkpoint == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_checkpoint_does_not_come_out_of_a_file(X, tmp_path):
    transformer = small(checkpoint=tmp_path).fit(X)
    transformer.save(tmp_path / "model")
    assert AutoencoderTransformer.load(tmp_path / "model").checkpoint is None
    assert pickle.loads(pickle.dumps(transformer)).checkpoint == tmp_path
    document, arrays = read_file(tmp_path / "model")
    del document["digest"]
    document["parameters"]["checkpoint"] = str(tmp_path)
    write_file(tmp_path / "model", document, arrays)
    with pytest.raises(ValueError, match="parameters that AutoencoderTransformer does not"):
        AutoencoderTransformer.load(tmp_path / "model")


# What a fit depends on


def key(tmp_path, X, y=None, **params):
    """The name of the file that a fit writes."""
    fit_and_die(small(**params, checkpoint=tmp_path), X, y, after=1)
    (path,) = tmp_path.iterdir()
    path.unlink()
    return path.name


def test_what_changes_the_fit_changes_the_name(X, digits, tmp_path):
    y = digits[2][:400]
    changed = X.copy()
    changed[200, 30] += 1
    names = [
        key(tmp_path, X),
        key(tmp_path, changed),
        key(tmp_path, X[::-1]),
        key(tmp_path, X.astype(np.float32)),
        key(tmp_path, X, random_state=1),
        key(tmp_path, X, random_state=None),
        key(tmp_path, X, max_epochs=9),
        key(tmp_path, X, regularizer=Denoising()),
        key(tmp_path, X, regularizer=Denoising(amount=0.5)),
        key(tmp_path, X, y, regularizer="supervised"),
        key(tmp_path, X, y[::-1], regularizer="supervised"),
        key(tmp_path, X, loss=lambda r, t: (r - t).square().mean(dim=1)),
        key(tmp_path, X, loss=lambda r, t: 2 * (r - t).square().mean(dim=1)),
    ]
    assert len(set(names)) == len(names)
    assert key(tmp_path, X.copy(), y, verbose=1, warm_start=True, device="cpu") == names[0]


def test_levels_are_part_of_the_name(tmp_path):
    params = {"n_components": 1}
    X = town_table()
    names = [
        key(tmp_path, X, **params),
        key(tmp_path, town_table(towns=("Berne", "Genf", "Chur")), **params),
        key(tmp_path, X.assign(number=0), **params),
        key(tmp_path, X, max_categories=2, **params),
        key(tmp_path, X.assign(town=X["town"].map({"Bern": 0, "Chur": 1, "Genf": 2})), **params),
    ]
    assert len(set(names)) == len(names)
    same = [
        key(tmp_path, X.copy(), **params),
        key(tmp_path, X, max_categories=3, min_frequency=1, **params),
        key(tmp_path, X, categorical_features=["town"], **params),
        key(tmp_path, X.astype({"town": "category"}), **params),
        key(tmp_path, of_polars(X), **params),
    ]
    assert set(same) == {names[0]}


SCALE = 2


class Scaled:
    power = 2


def scaled(x):
    return SCALE * x**Scaled.power


def test_functions_and_classes_count_by_what_they_do(monkeypatch):
    def outer(factor):
        def inner(x):
            return factor * x

        return inner

    class First(Regularizer):
        def penalty(self, batch):
            return 1.0

    one = First
    first = digest(one())

    class First(Regularizer):
        def penalty(self, batch):
            return 2.0

    assert digest(First()) != first
    assert digest(one()) == first
    assert digest(outer(1)) == digest(outer(1)) != digest(outer(2))
    before = digest(scaled)
    monkeypatch.setattr(Scaled, "power", 3)
    assert digest(scaled) != before
    monkeypatch.setattr(Scaled, "power", 2)
    assert digest(scaled) == before
    monkeypatch.setattr(sys.modules[__name__], "SCALE", 3)
    assert digest(scaled) != before
    assert digest(types.SimpleNamespace(a=1)) != digest(types.SimpleNamespace(a=2))
    with pytest.raises(TypeError, match="Set checkpoint to None, or change"):
        digest(outer(threading.Lock()))


def test_digests_are_the_same_in_every_process(capsys):
    code = """
from aefeatures import ConvNetwork, Denoising
from aefeatures._train.digests import digest
class Mine(Denoising):
    def corrupt(self, inputs, batch):
        return inputs if batch in {"a", "b", "c"} else super().corrupt(inputs, batch)
print(digest([Mine(), ConvNetwork(), {"x", "y", "z"}, len, print, lambda x: x + 1]))
"""
    exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    elsewhere = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": seed},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert capsys.readouterr().out == elsewhere


def test_rows_of_large_data_are_sampled(monkeypatch):
    X = np.random.default_rng(0).random((5000, 3))
    whole = digest_of_rows(as_source(X))
    X[-2] += 1
    assert digest_of_rows(as_source(X)) != whole
    monkeypatch.setattr(aefeatures._train.digests, "_WHOLE_BYTES", 40_000)
    sampled = digest_of_rows(as_source(X))
    assert sampled != whole
    for row in (0, -1):
        changed = X.copy()
        changed[row] += 1
        assert digest_of_rows(as_source(changed)) != sampled
    assert digest_of_rows(as_source(sparse.csr_matrix(X))) != sampled


# Processes that die

SURVIVOR = """
import json, os, pathlib, random, signal, sys, tempfile, time, warnings
import numpy as np
from sklearn.datasets import load_digits
import aefeatures._train.checkpoint, aefeatures._train.training
from aefeatures import AutoencoderTransformer
from helpers import split_of

mode, n_moments, n_epochs, seed = sys.argv[1], *map(int, sys.argv[2:])
aefeatures._train.checkpoint._SECONDS_BETWEEN = aefeatures._train.checkpoint._TIMES_ITS_DURATION = 0
if mode == "killed within epochs":
    aefeatures._train.checkpoint._SECONDS_WITHIN_EPOCH = 0.03
    aefeatures._train.checkpoint._SECONDS_BETWEEN = 1000
X = load_digits().data[:500]
X = X[:, X.std(axis=0) > 0]  # scores leave out constant columns, losses do not
warnings.simplefilter("ignore")
folder = pathlib.Path(tempfile.mkdtemp())
PARAMS = {
    "hidden_layer_sizes": (16,), "normalization": "batch", "max_epochs": n_epochs,
    "regularizer": ["neighbors", "variational"], "early_stopping": True, "random_state": 0,
}


def killed(report):
    loaded = []
    load = aefeatures._train.training.TrainingState.load
    def noting(state, *found):
        load(state, *found)
        loaded.append(state.rows_done)
    aefeatures._train.training.TrainingState.load = noting
    fitted = AutoencoderTransformer(**PARAMS, checkpoint=folder / "checkpoints").fit(X)
    report(
        resumed=bool(loaded), within=bool(loaded and loaded[0]),
        result=[fitted.transform(X).tobytes().hex(), fitted.loss_curve_, fitted.n_steps_,
                fitted.validation_loss_curve_],
    )


def interrupted(report):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    transformer = AutoencoderTransformer(**PARAMS)
    fresh = dict(vars(transformer))
    raised = False
    try:
        try:
            transformer.fit(X)
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
    except KeyboardInterrupt:
        raised = True
    if hasattr(transformer, "encoder_"):
        validation = split_of(transformer, len(X))[1]
        kept = -transformer.score(X[validation])
        assert abs(kept - transformer.best_loss_) < 1e-3 * kept
        assert len(transformer.loss_curve_) == transformer.n_iter_ > 0
        assert len(transformer.validation_loss_curve_) == transformer.n_iter_
    else:
        assert raised and vars(transformer) == fresh
    report(raised=raised, n_iter=getattr(transformer, "n_iter_", 0))


def child(function, signal_=None, after=None):
    \"\"\"What `function` reported in a process of its own; None if it died first.\"\"\"
    path = folder / "report"
    path.unlink(missing_ok=True)

    def report(**kinds):
        part = folder / "part"
        part.write_text(json.dumps(kinds))
        part.replace(path)  # whole or not at all, whenever this process is killed

    pid = os.fork()
    if pid == 0:
        try:
            function(report)
        except BaseException:
            import traceback
            traceback.print_exc()
        os._exit(0)
    if after is not None:
        time.sleep(after)
        os.kill(pid, signal_)
    end = time.monotonic() + 120
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise SystemExit("hangs")
        time.sleep(0.005)
    return json.loads(path.read_text()) if path.exists() else None


moments = random.Random(seed)
function = interrupted if mode == "interrupted" else killed
begun = time.monotonic()
expected = child(function)
took = time.monotonic() - begun
outcomes = []
for _ in range(n_moments):
    if mode == "interrupted":
        outcomes.append(child(function, signal.SIGINT, moments.uniform(0.02, took)))
        continue
    found = child(function, signal.SIGKILL, moments.uniform(0, 0.8 * took))
    if found is None:  # once more, in what is left
        found = child(function, signal.SIGKILL, moments.uniform(0, 0.5 * took)) or child(function)
    same = found.pop("result") == expected["result"]
    outcomes.append({**found, "same": same})
    assert list((folder / "checkpoints").iterdir()) == []
print(json.dumps({"took": took, "outcomes": outcomes}))
"""

linux = pytest.mark.skipif(sys.platform != "linux", reason="forks after PyTorch was imported")


def survive(mode, n_moments, n_epochs):
    done = subprocess.run(
        [sys.executable, "-c", SURVIVOR, mode, str(n_moments), str(n_epochs), "0"],
        check=False,
        capture_output=True,
        text=True,
        timeout=1200,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    result = json.loads(done.stdout)
    print(f"a fit takes {result['took']:.2f} s")
    return result["outcomes"]


@linux
@pytest.mark.parametrize(
    ("mode", "n_moments", "n_epochs"),
    [
        ("killed within epochs", 5, 12),
        pytest.param("killed within epochs", 25, 30, marks=pytest.mark.slow),
        pytest.param("killed", 25, 30, marks=pytest.mark.slow),
    ],
)
def test_fits_killed_at_any_moment_come_to_the_same_result(mode, n_moments, n_epochs):
    outcomes = survive(mode, n_moments, n_epochs)
    assert all(outcome["same"] for outcome in outcomes)
    print(f"{sum(outcome['resumed'] for outcome in outcomes)} of {len(outcomes)} resumed")
    assert any(outcome["resumed"] for outcome in outcomes)
    assert any(outcome["within"] for outcome in outcomes) == (mode != "killed")


@linux
@pytest.mark.slow
def test_interrupts_at_any_moment_leave_a_usable_or_an_unfitted_estimator():
    outcomes = survive("interrupted", 100, 30)
    assert None not in outcomes
    print(f"{sum(outcome['n_iter'] > 0 for outcome in outcomes)} of {len(outcomes)} are fitted")
    assert any(outcome["n_iter"] > 0 and not outcome["raised"] for outcome in outcomes)
