import multiprocessing
import os
import pickle
import re
import signal
import sys
import threading
import time

import joblib
import numpy as np
import pytest
import torch
from torch import nn

from aefeatures._device import (
    TrainingThread,
    available_devices,
    from_arrays,
    place,
    resolve_device,
    to_arrays,
)

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
        ValueError, match=rf"device='{device}' cannot be used: .*Devices here: .*cpu"
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


def test_training_thread_has_settings_of_its_own():
    before = torch.get_num_threads()

    def inside():
        return keeps_denormals(), torch.get_num_threads(), torch.is_grad_enabled()

    with torch.no_grad(), TrainingThread(work=SMALL) as thread:
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

    expected = (threading.main_thread(), torch.get_num_threads(), True, False)
    with torch.inference_mode(), TrainingThread(work=LARGE) as thread:
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


def flushed_part():
    """The part of denormal numbers that an operation on all threads flushes to zero."""
    return float((torch.full((1_000_000,), 1e-40).mul(0.5) == 0).float().mean())


@pytest.mark.skipif(sys.platform != "linux", reason="PyTorch has GNU's OpenMP on Linux alone")
@pytest.mark.skipif(torch.get_num_threads() == 1, reason="needs more than one thread")
def test_large_steps_flush_denormals_in_all_threads():
    before = flushed_part()
    with TrainingThread(10**12) as thread:
        assert thread.run(flushed_part) == 1
        assert flushed_part() == before == 0


@pytest.mark.parametrize("work", [SMALL, LARGE])
def test_training_thread_hands_on_results_and_errors(work):
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
