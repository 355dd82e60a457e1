import copy
import io
import multiprocessing
import os
import pickle
import re
import signal
import threading
import time

import joblib
import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from torch import nn
from torch.nn.utils import parametrizations

from aefeatures import AutoencoderTransformer
from aefeatures._nets.placing import from_arrays, place, to_arrays
from aefeatures._torch.devices import available_devices, resolve_device
from aefeatures._train.thread import TrainingThread, Workers

pytestmark = pytest.mark.filterwarnings("ignore:.*learned nothing")

SMALL, LARGE = 1, 10**12


def keeps_denormals():
    return np.float64(5e-324) * 1.0 != 0 and (torch.tensor([1e-40]) * 1.0).item() != 0


def test_auto_takes_the_first_device_that_is_there():
    assert resolve_device("auto") == torch.device(available_devices()[0])
    assert resolve_device("cpu") == resolve_device(torch.device("cpu")) == torch.device("cpu")


def test_processes_beside_each_other_are_spread_over_the_gpus(monkeypatch):
    process = multiprocessing.current_process()
    monkeypatch.setattr(process, "_name", process.name)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: False)
    taken = []
    for name in ("MainProcess", "LokyProcess-1", "LokyProcess-2", "LokyProcess-3"):
        process.name = name
        taken.append(str(resolve_device("auto")))
    assert taken == ["cuda:0", "cuda:0", "cuda:1", "cuda:0"]
    process.name = "MainProcess"
    monkeypatch.setenv("LOCAL_RANK", "3")  # as torchrun sets it
    assert str(resolve_device("auto")) == "cuda:1"
    assert str(resolve_device("cuda:1")) == "cuda:1", "a device that is named is taken"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert str(resolve_device("auto")) == available_devices()[0]


def test_processes_of_a_search_are_numbered():
    def name():
        return multiprocessing.current_process().name

    with joblib.parallel_backend("loky", n_jobs=2):
        names = set(joblib.Parallel(batch_size=1)(joblib.delayed(name)() for _ in range(4)))
    assert names
    assert all(re.fullmatch(r"LokyProcess-[1-9]\d*", name) for name in names)


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "cpu:x", "meta", ""])
def test_unusable_device_lists_those_that_are_there(device):
    with pytest.raises(
        ValueError, match=rf"device='{device}' cannot be used: .*device='auto' or one of .*cpu"
    ):
        resolve_device(device)


def test_place_copies_only_what_differs():
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).eval()
    assert place(module, torch.device("cpu"), torch.float32) is module
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    placed = place(module, torch.device("cpu"), torch.float64)
    rows = torch.rand(4, 3)
    torch.testing.assert_close(placed(rows.double()), module(rows).double())
    assert placed[1].num_batches_tracked.dtype == torch.int64
    for name, tensor in module.state_dict().items():
        assert tensor.dtype == before[name].dtype
        assert torch.equal(tensor, before[name])


def test_placed_copies_follow_the_weights():
    module = nn.Sequential(nn.Linear(3, 2))
    rows = torch.rand(4, 3)

    def placed():
        return place(module, torch.device("cpu"), torch.float64)

    first = placed()
    assert placed() is first
    with torch.no_grad():
        module[0].weight.mul_(2)
    torch.testing.assert_close(placed()(rows.double()), module(rows).double())
    module[0].weight.data = torch.ones(2, 3)
    torch.testing.assert_close(placed()(rows.double()), module(rows).double())
    assert placed() is not first


def test_modules_pickle_as_arrays():
    module = nn.Sequential(nn.Linear(3, 2, bias=False), nn.BatchNorm1d(2)).eval()
    arrays = to_arrays(module)
    assert isinstance(arrays[0].weight, np.ndarray)
    assert isinstance(module[0].weight, nn.Parameter)
    loaded = from_arrays(pickle.loads(pickle.dumps(arrays)))
    assert loaded.state_dict().keys() == module.state_dict().keys()
    assert isinstance(loaded[0].weight, nn.Parameter)
    rows = torch.rand(4, 3)
    assert torch.equal(loaded(rows), module(rows))


class Tied(nn.Module):
    """The weights of a layer, the other way round."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.bias = nn.Parameter(torch.zeros(layer.in_features))

    def forward(self, Z):
        return nn.functional.linear(Z, self.layer.weight.t(), self.bias)


class Recurrent(nn.Module):
    """Columns as a sequence; begins with zeros of the default dtype."""

    def __init__(self, n_out, kind):
        super().__init__()
        self.cells = kind(1, 4, batch_first=True)
        self.head = nn.Linear(4, n_out)

    def forward(self, X):
        state = torch.zeros(1, len(X), 4)
        state = (state, state) if isinstance(self.cells, nn.LSTM) else state
        return self.head(self.cells(X[..., None], state)[0][:, -1])


class Keeps(nn.Module):
    """A number that `to` does not convert, buffers that are one, and what it computed last."""

    def __init__(self, n_in, n_out):
        super().__init__()
        self.layer = nn.Linear(n_in, n_out)
        self.constant = torch.eye(n_in)
        self.register_buffer("first", torch.ones(n_in))
        self.second = nn.Module()
        self.second.register_buffer("same", self.first)

    def forward(self, X):
        self.last = self.layer((X @ self.constant) * self.first * self.second.same)
        return self.last


def tied(n, k):
    layer = nn.Linear(n, k)
    return layer, Tied(layer)


def frozen(n, k):
    encoder = nn.Sequential(nn.Linear(n, 6), nn.Tanh(), nn.Linear(6, k))
    encoder[0].requires_grad_(False)
    return encoder, nn.Linear(k, n)


def shared_layer(n, k):
    layer = nn.Linear(6, 6)
    encoder = nn.Sequential(nn.Linear(n, 6), layer, nn.Tanh(), layer, nn.Linear(6, k))
    return encoder, nn.Sequential(nn.Linear(k, 6), layer, nn.Linear(6, n))


def with_first(change):
    """A network whose encoder begins with a layer that `change` changes."""
    return lambda n, k: (nn.Sequential(change(nn.Linear(n, 6)), nn.Linear(6, k)), nn.Linear(k, n))


KINDS = {
    "tied": tied,
    "frozen": frozen,
    "shared layer": shared_layer,
    "keeps": lambda n, k: (Keeps(n, k), nn.Linear(k, n)),
    "lstm": lambda n, k: (Recurrent(k, nn.LSTM), nn.Linear(k, n)),
    "gru": lambda n, k: (Recurrent(k, nn.GRU), nn.Linear(k, n)),
    "weight norm": with_first(parametrizations.weight_norm),
    "spectral norm": with_first(parametrizations.spectral_norm),
    "orthogonal": with_first(parametrizations.orthogonal),
    "old weight norm": with_first(nn.utils.weight_norm),
    "old spectral norm": with_first(nn.utils.spectral_norm),
    "compiled": with_first(lambda layer: torch.compile(layer, backend="eager")),
}


class Build:
    """A network of one's own that pickles."""

    def __init__(self, kind):
        self.kind = kind

    def __call__(self, n, k):
        return KINDS[self.kind](n, k)


def through_joblib(value):
    file = io.BytesIO()
    joblib.dump(value, file)
    file.seek(0)
    return joblib.load(file)


COPIES = {
    "pickle": lambda fitted: pickle.loads(pickle.dumps(fitted)),
    "joblib": through_joblib,
    "deepcopy": copy.deepcopy,
    "twice": lambda fitted: copy.deepcopy(through_joblib(fitted)),
}


def identity_of(fitted):
    """Flags of the parameters and buffers, and which of them are one."""
    numbers = {}
    parts = nn.ModuleList([fitted.encoder_, fitted.decoder_])
    both = [
        *parts.named_parameters(remove_duplicate=False),
        *parts.named_buffers(remove_duplicate=False),
    ]
    return [
        (name, tensor.requires_grad, type(tensor), numbers.setdefault(id(tensor), len(numbers)))
        for name, tensor in both
    ]


@pytest.mark.filterwarnings(
    "ignore:.*weight_norm.*:FutureWarning",
    "ignore:The .grad attribute",  # by the compiler
    "ignore:You are using `torch.load`:FutureWarning",
)
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_copies_of_networks_of_ones_own_are_the_same(kind):
    X = np.random.default_rng(0).random((60, 5))
    fitted = AutoencoderTransformer(
        2, network=Build(kind), max_epochs=3, warm_start=True, random_state=0
    ).fit(X)
    codes = fitted.transform(X)
    assert codes.dtype == np.float64
    np.testing.assert_array_equal(codes, codes.astype(np.float32), "in the network's precision")
    np.testing.assert_allclose(fitted.transform(X.astype(np.float32)), codes, rtol=1e-3, atol=1e-5)
    identity = identity_of(fitted)
    copies = {how: make(fitted) for how, make in COPIES.items()}
    further = fitted.partial_fit(X).fit(X).transform(X)
    assert identity_of(fitted) == identity
    for how, each in copies.items():
        np.testing.assert_array_equal(each.transform(X), codes, how)
        assert identity_of(each) == identity, how
        np.testing.assert_array_equal(each.partial_fit(X).fit(X).transform(X), further, how)
        assert identity_of(each) == identity, how
    encoded, _ = fitted.to_module("autoencoder")(torch.from_numpy(X.astype(np.float32)))
    np.testing.assert_allclose(encoded.detach(), further, rtol=1e-3, atol=1e-4)


def test_a_cached_pipeline_keeps_what_is_frozen_and_tied(tmp_path):
    X = np.random.default_rng(0).random((60, 5))
    for kind in ("tied", "frozen"):
        fitted = AutoencoderTransformer(2, network=Build(kind), max_epochs=2, random_state=0)
        steps = [
            make_pipeline(fitted, MinMaxScaler(), memory=str(tmp_path)).fit(X)[0] for _ in range(2)
        ]
        assert identity_of(steps[0]) == identity_of(steps[1])
        assert len({each[-1] for each in identity_of(steps[1])}) == (3 if kind == "tied" else 6)
        assert any(not each[1] for each in identity_of(steps[1])) == (kind == "frozen")


def test_frozen_layers_of_our_networks_stay_frozen(tmp_path):
    X = np.random.default_rng(0).random((60, 5))
    fitted = AutoencoderTransformer(2, max_epochs=2, random_state=0).fit(X)
    fitted.encoder_[0].requires_grad_(False)
    fitted.save(tmp_path / "model")
    loaded = AutoencoderTransformer.load(tmp_path / "model")
    for each in (*(make(fitted) for make in COPIES.values()), loaded):
        assert identity_of(each) == identity_of(fitted)
        weight = each.encoder_[0].weight.clone()
        assert torch.equal(each.partial_fit(X).encoder_[0].weight, weight)


def swap_codes(weight):
    weight.data[:] = weight.data.flip(0).clone()


def through_numpy(weight):
    weight.detach().numpy()[0] *= 3


EDITS = {
    "data": lambda t: t.encoder_[0].weight.data.mul_(2),
    "one entry": lambda t: t.encoder_[0].bias.data[:1].add_(1),
    "swapped": lambda t: swap_codes(t.encoder_[-1].weight),
    "numpy": lambda t: through_numpy(t.encoder_[0].weight),
    "decoder": lambda t: t.decoder_[0].weight.data.neg_(),
    "activation": lambda t: t.encoder_.__setitem__(1, nn.Tanh()),
    "its setting": lambda t: setattr(t.encoder_[1], "negative_slope", 3.0),
    "forward": lambda t: setattr(t.encoder_[1], "forward", torch.zeros_like),
    "parametrization": lambda t: parametrizations.weight_norm(t.encoder_[0]),
}


@pytest.mark.parametrize("name", sorted(EDITS))
@pytest.mark.parametrize("held", [False, True])
def test_placed_copies_follow_every_edit(name, held):
    X = np.random.default_rng(0).random((60, 5))
    fitted = AutoencoderTransformer(2, activation="leaky_relu", max_epochs=2, random_state=0)
    fitted.fit(X).reconstruct(X)
    module = fitted.encoder_ if held else None  # got before the copy that is to follow was made
    if held:
        fitted.reconstruct(X)
    EDITS[name](fitted)
    other = copy.deepcopy(fitted.to_module("autoencoder"))
    codes, rows = other(torch.from_numpy(X.astype(np.float32)))
    np.testing.assert_allclose(fitted.transform(X), codes.detach(), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(fitted.reconstruct(X), rows.detach(), rtol=1e-3, atol=1e-4)
    del module


def test_placed_copies_are_made_once_where_nobody_has_the_module(monkeypatch):
    X = np.random.default_rng(0).random((60, 5))
    fitted = AutoencoderTransformer(2, max_epochs=2).fit(X)
    fitted.transform(X)
    with monkeypatch.context() as patched:
        patched.setattr("aefeatures._nets.model.place", None)
        fitted.transform(X)
        assert isinstance(fitted.encoder_, nn.Sequential)
        with pytest.raises(TypeError, match="NoneType"):
            fitted.transform(X)
    with pytest.raises(AttributeError, match="object has no attribute 'encoder_'"):
        _ = AutoencoderTransformer().encoder_
    assert not hasattr(AutoencoderTransformer, "encoder_")


@pytest.mark.parametrize("held", ["as it is", "in a user's module"])
def test_pickles_of_earlier_versions_hold_plain_arrays(held):
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    module = module if held == "as it is" else Tied(nn.Linear(3, 3))
    arrays = copy.deepcopy(module)
    for layer in arrays.modules():
        for group in (layer._parameters, layer._buffers):
            group.update({name: tensor.detach().numpy() for name, tensor in group.items()})
    loaded = from_arrays(pickle.loads(pickle.dumps(arrays)))
    assert all(isinstance(each, nn.Parameter) for each in loaded.parameters())
    rows = torch.rand(4, 3)
    assert torch.equal(loaded(rows), module(rows))


def test_training_thread_has_settings_of_its_own():
    before = torch.get_num_threads()

    def inside():
        return keeps_denormals(), torch.get_num_threads(), torch.is_grad_enabled()

    with torch.no_grad(), TrainingThread(work=SMALL) as thread:
        assert thread.flushes
        assert thread.run(inside) == (False, 1, True)
        assert keeps_denormals()
        assert torch.get_num_threads() == before
        new = []
        fresh = threading.Thread(target=lambda: new.append(torch.get_num_threads()))
        fresh.start()
        fresh.join()
        assert new == [before], "a thread new to PyTorch starts from the caller's count"
    assert keeps_denormals()
    assert torch.get_num_threads() == before


@pytest.mark.skipif(torch.get_num_threads() == 1, reason="needs two CPU cores")
def test_large_steps_compute_in_the_callers_thread_if_it_is_the_main_one():
    def inside():
        thread = threading.current_thread()
        return thread, torch.get_num_threads(), torch.is_grad_enabled(), keeps_denormals()

    expected = (threading.main_thread(), torch.get_num_threads(), True, True)
    with torch.inference_mode(), TrainingThread(work=LARGE) as thread:
        assert not thread.flushes
        assert thread.run(inside) == expected
    assert keeps_denormals()
    many = torch.full((1_000_000,), 1e-40)  # enough for all workers of the thread
    assert ((many * 1.0) != 0).all()
    seen = []

    def elsewhere():
        with TrainingThread(work=LARGE) as thread:
            seen.append(thread.run(torch.get_num_threads))

    caller = threading.Thread(target=elsewhere)
    caller.start()
    caller.join()
    assert seen == [1]


def test_workers_share_a_large_step_that_can_be_split(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    with TrainingThread(work=SMALL, splits=True) as thread:
        assert thread.workers.n_threads == 1
    with TrainingThread(work=LARGE, splits=True) as thread:
        assert thread.flushes
        assert thread.workers.n_threads == 3
        seen = []
        note = [lambda: seen.append((threading.get_ident(), keeps_denormals()))] * 2
        thread.run(thread.workers.run, note)
        assert len({identity for identity, _ in seen}) == 2
        assert not any(keeps for _, keeps in seen)
    assert not any("aefeatures" in t.name for t in threading.enumerate())


@pytest.mark.parametrize("place", [0, 1])
def test_errors_of_workers_are_raised_when_all_are_done(place):
    workers, done = Workers(1), []

    def slow():
        time.sleep(0.05)
        done.append(True)

    calls = [slow, slow]
    calls[place] = lambda: 1 // 0
    with pytest.raises(ZeroDivisionError, match="division"):
        workers.run(calls)
    assert done == [True]
    workers.stop()


@pytest.mark.parametrize("work", [SMALL, LARGE])
@pytest.mark.parametrize("seconds", [None, 0.001])
def test_training_thread_hands_on_results_and_errors(work, seconds, monkeypatch):
    monkeypatch.setattr("aefeatures._train.thread._WAIT_SECONDS", seconds)
    with TrainingThread(work=work) as thread:
        assert thread.run(divmod, 7, 2) == (3, 1)
        with pytest.raises(ZeroDivisionError, match="division"):
            thread.run(divmod, 7, 0)
    assert not any("aefeatures" in t.name for t in threading.enumerate())


def test_interrupt_stops_the_thread_and_is_raised(interruptible):
    done = []

    def train():
        while not thread.stopping.is_set():
            time.sleep(0.001)
        done.append(True)

    timer = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT))
    with TrainingThread(work=SMALL) as thread:
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            thread.run(train)
        assert done == [True]


def test_training_thread_has_the_current_gpu_of_its_caller(monkeypatch):
    taken = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(
        torch.cuda, "set_device", lambda gpu: taken.append((gpu, threading.get_ident()))
    )
    with TrainingThread(work=SMALL) as thread:
        assert taken == []
        assert thread.run(threading.get_ident) == taken[0][1]
    assert taken[0][0] == 1
