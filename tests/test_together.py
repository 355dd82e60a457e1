"""With threads, forked processes and what else the caller's process holds."""

import logging
import os
import pickle
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import aefeatures._nets.model
from aefeatures import AutoencoderTransformer
from aefeatures._torch.devices import resolve_device


def quick(**params):
    return AutoencoderTransformer(**{"max_epochs": 2, "random_state": 0, **params})


def in_threads(functions):
    """What the functions return, all begun at the same moment."""
    results, barrier = [None] * len(functions), threading.Barrier(len(functions))

    def work(i):
        barrier.wait(60)
        try:
            results[i] = functions[i]()
        except Exception as error:  # noqa: BLE001 - shown by what compares the results
            results[i] = error

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return results


def test_eight_threads_transform_with_one_estimator(fitted, digits, monkeypatch):
    """Half of them in float32, so that they take turns at the copy of the weights that is kept."""
    inputs = [digits[1].astype(dtype) for dtype in (np.float32, np.float64)]
    fitted = pickle.loads(pickle.dumps(fitted))  # nobody has had hold of its modules

    def all_of(X):
        return [fitted.transform(X), fitted.reconstruct(X), fitted.score_samples(X)]

    expected = [all_of(X) for X in inputs]
    converted, place = [], aefeatures._nets.model.place

    def placed(module, device, dtype):
        converted.extend([module] if dtype == torch.float64 else [])
        return place(module, device, dtype)

    monkeypatch.setattr(aefeatures._nets.model, "place", placed)
    repeated = in_threads(
        [lambda i=i: [all_of(inputs[i % 2]) for _ in range(20)] for i in range(8)]
    )
    for i, results in enumerate(repeated):
        for result in results:
            for ours, theirs in zip(result, expected[i % 2], strict=True):
                np.testing.assert_array_equal(ours, theirs)
    assert converted == [], "copies from before are there"


def test_threads_fit_transform_pickle_and_save_side_by_side(digits, tmp_path):
    X = digits[0]
    expected = [quick(random_state=i).fit_transform(X) for i in range(2)]

    def work(i):
        transformer = quick(random_state=i % 2).fit(X)
        transformer.save(tmp_path / f"{i}")
        return AutoencoderTransformer.load(tmp_path / f"{i}").transform(X)

    for i, codes in enumerate(in_threads([lambda i=i: work(i) for i in range(8)])):
        np.testing.assert_array_equal(codes, expected[i % 2])


FORKS = """
import multiprocessing, sys
import joblib, numpy as np, torch
from sklearn.datasets import load_digits
from aefeatures import AutoencoderTransformer

torch.set_num_threads(2)
X = load_digits().data
# A step in a thread of its own, and one in the caller's and in OpenMP's, which a child lacks.
settings = [{}, {"hidden_layer_sizes": (999, 12), "batch_size": 4096}]

def fit(i):
    return AutoencoderTransformer(max_epochs=2, random_state=0, **settings[i]).fit(X)

fitted = [fit(i) for i in range(2)]
(torch.rand(800, 800) @ torch.rand(800, 800)).sum()
expected = [each.transform(X) for each in fitted]

def work(name):
    kind, i = name
    return (fitted[i] if kind == "transform" else fit(i)).transform(X)

names = [(kind, i) for i in range(2) for kind in ("transform", "fit")]

def check(results):
    for (_, i), codes in zip(names, results):
        np.testing.assert_allclose(codes, expected[i], rtol=1e-3, atol=1e-3)

print("multiprocessing", end=" ", flush=True)
with multiprocessing.get_context("fork").Pool(2) as pool:
    check(pool.map(work, names))
print("joblib", end=" ", flush=True)
with joblib.parallel_backend("multiprocessing", n_jobs=2):
    check(joblib.Parallel()(joblib.delayed(work)(name) for name in names))
print("done")
"""


FORKED_FIRST = """
import multiprocessing, torch

torch.set_num_threads(2)
(torch.rand(800, 800) @ torch.rand(800, 800)).sum()

def work():
    import numpy as np
    from aefeatures import AutoencoderTransformer

    X = np.random.default_rng(0).random((5000, 100))
    settings = {"hidden_layer_sizes": (999, 12), "batch_size": 4096, "max_epochs": 2}
    AutoencoderTransformer(**settings).fit_transform(X)

process = multiprocessing.get_context("fork").Process(target=work)
process.start()
process.join()
print("done" if process.exitcode == 0 else process.exitcode)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks after PyTorch computed")
@pytest.mark.parametrize(
    ("program", "printed"),
    [(FORKS, "multiprocessing joblib done\n"), (FORKED_FIRST, "done\n")],
    ids=["multiprocessing and joblib", "the child imports first"],
)
def test_forked_children_of_a_process_that_computed(program, printed):
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,  # where it hangs
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == printed


def test_a_forked_child_without_cuda_says_how_to_start_one_with_it(monkeypatch, digits):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert resolve_device("auto").type == "cuda"
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)
    for device in ("auto", "cuda", "cuda:0"):
        with pytest.raises(
            RuntimeError, match=r"CUDA, because it was forked.*'spawn' or 'forkserver'.*'loky'"
        ):
            resolve_device(device)
    transformer = quick()
    with pytest.raises(RuntimeError, match="device='cpu'"):
        transformer.fit(digits[0])
    assert vars(transformer) == vars(quick())
    assert quick(device="cpu").fit_transform(digits[0]).shape == (1347, 3)


def test_what_the_process_holds_stays(digits, tmp_path):
    def held():
        root = logging.getLogger()
        return (
            torch.get_num_threads(),
            torch.get_num_interop_threads(),
            list(warnings.filters),
            warnings.showwarning,
            dict(os.environ),
            root.level,
            list(root.handlers),
            {name: logging.getLogger(name).level for name in logging.root.manager.loggerDict},
            logging.root.manager.disable,
            sys.stdout,
            sys.excepthook,
            threading.excepthook,
            threading.active_count(),
            Path.cwd(),
            np.geterr(),
            torch.get_default_dtype(),
        )

    before = held()
    transformer = quick(checkpoint=tmp_path / "fits", early_stopping=True).fit(digits[0])
    transformer.transform(digits[1])
    transformer.reconstruct(digits[1])
    transformer.partial_fit(digits[0])
    transformer.save(tmp_path / "model")
    AutoencoderTransformer.load(tmp_path / "model").score(digits[1])
    with pytest.raises(ValueError, match="infinity"):
        transformer.fit(np.full((3, 2), np.inf))
    assert held() == before
