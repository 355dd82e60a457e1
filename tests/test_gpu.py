"""Fits and codes on a GPU are those on the CPU: on one made of memory, and on a real one."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from fake_gpu import FakeGPU
from sklearn.datasets import load_digits, load_wine
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn
from torchvision.transforms import v2

import aefeatures
from aefeatures import (
    AutoencoderGenerator,
    AutoencoderImputer,
    AutoencoderOutlierDetector,
    AutoencoderTransformer,
    ConvNetwork,
    Denoising,
    DenseNetwork,
    NeighborPreserving,
    NextFramePredictor,
    Regularizer,
    Supervised,
    code_importance,
    code_sensitivity,
)
from aefeatures._nets.networks import ACTIVATIONS
from aefeatures._nets.regularizers import REGULARIZERS

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*learned nothing"),
    pytest.mark.filterwarnings("ignore:X has no known value in column"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:n_components=. is not below:UserWarning"),
]

# Where a step of the training waits for the device, and a case in which it does; the reasons are
# in docs/decisions/training.md.
WAITS = {
    ("training._after_step", "_local_scalar_dense"): "128 steps",
    ("progress.step", "_local_scalar_dense"): "progress",
    ("hiding.forward", "nonzero"): "imputer",
    ("hiding._expected", "_linalg_check_errors"): "imputer",
    ("losses.row_loss", "_local_scalar_dense"): "own loss, missing",
    ("regularizer.transformed", "_local_scalar_dense"): "own transform",
}


def own_network(n, k):
    return nn.Sequential(nn.Linear(n, 8), nn.BatchNorm1d(8), nn.Linear(8, k)), nn.Linear(k, n)


def own_loss(reconstruction, target):
    return (reconstruction - target).abs().sum(dim=1)


class Own(Regularizer):
    def penalty(self, batch):
        return (batch.codes - torch.zeros(3, device=batch.codes.device)).square().mean()


def data():
    """Rows and labels by name."""
    X, y = load_digits(return_X_y=True)
    X, y = X[:96].astype(np.float32), y[:96]
    rng = np.random.default_rng(0)
    gaps = np.where(rng.random(X.shape) < 0.1, np.nan, X)
    gaps[:, 9] = np.nan
    wine = load_wine(as_frame=True).frame[::2].reset_index(drop=True)
    table = wine.iloc[:, :5].astype(np.float32)
    table["kind"] = pd.Categorical(np.array(["a", "b", "c"])[wine["target"]])
    table["size"] = pd.Categorical(np.array(["low", "high"])[(wine["proline"] > 700).astype(int)])
    table_gaps = table.mask(rng.random(table.shape) < 0.1)
    return {
        "digits": (X, y),
        "bytes": (X.astype(np.uint8), y),
        "double": (X.astype(float), y),
        "missing": (gaps, y),
        "numbers": (X, y + 0.5),
        "table": (table, wine["target"].to_numpy()),
        "table, missing": (table_gaps, wine["target"].to_numpy()),
    }


DATA = data()
SMALL = {"hidden_layer_sizes": 16}
CASES = {
    "default": ("digits", {}),
    "double": ("double", {"precision": "float64"}),
    "bytes, bfloat16": ("bytes", {"precision": "bfloat16"}),
    "missing": ("missing", {"weight_decay": 1e-3}),
    "table": ("table", {}),
    "table, missing": ("table, missing", {}),
    "early stopping": ("digits", {"early_stopping": True}),
    "128 steps": ("digits", {"batch_size": 1, **SMALL}),
    "progress": ("digits", {"verbose": 1}),
    "lecture": ("bytes", {"scaling": "feature", "loss": "bce"}),
    "own network": ("digits", {"network": own_network}),
    "own loss": ("digits", {"loss": own_loss}),
    "own loss, missing": ("missing", {"loss": own_loss}),
    "own regularizer": ("digits", {"regularizer": Own()}),
    "own transform": ("digits", {"regularizer": NeighborPreserving(transform=v2.GaussianBlur(3))}),
    "affine": ("digits", {"regularizer": NeighborPreserving(transform="affine")}),
    "swap": ("table, missing", {"regularizer": Denoising("swap")}),
    "blurred": ("missing", {"regularizer": Denoising(v2.GaussianBlur(3))}),
    "regression": ("numbers", {"regularizer": Supervised()}),
    "mixup": ("missing", {"regularizer": Supervised(mixup=0.5)}),
    "components": ("digits", {"network": DenseNetwork((16,), n_principal_components=8)}),
    "convolutions": ("digits", {"network": ConvNetwork(channels=(4, 8))}),
}
CASES |= {
    f"loss {loss}": ("missing", {"loss": loss, "scaling": "feature"}) for loss in ("bce", "mae")
}
CASES |= {"table, huber": ("table, missing", {"loss": "huber"})}
CASES |= {name: ("digits", {"activation": name, **SMALL}) for name in ACTIVATIONS}
CASES |= {
    f"{name} normalization": ("digits", {"normalization": name}) for name in ("layer", "batch")
}
CASES |= {
    f"{name}, {rows}": (rows, {"regularizer": name, **SMALL})
    for name in REGULARIZERS
    for rows in ("digits", "missing", "table, missing")
}
CASES |= {"all": ("digits", {"regularizer": list(REGULARIZERS), "precision": "bfloat16"})}


def transformed(name, device):
    """Everything that a transformer returns for the rows of a case, and its losses."""
    kind, params = CASES[name]
    X, y = DATA[kind]
    transformer = AutoencoderTransformer(
        **{"max_epochs": 2, "batch_size": 32, "random_state": 0, "device": device, **params}
    )
    transformer.fit(X, y)
    codes = transformer.transform(X)
    results = {
        "codes": codes,
        "rows": transformer.inverse_transform(codes),
        "reconstruction": transformer.reconstruct(X),
        "scores": transformer.score_samples(X),
        "scores of columns": transformer.score_samples(X, per_feature=True),
        "losses": np.array(transformer.loss_curve_),
    }
    results["further"] = transformer.partial_fit(X, y).transform(X)
    return results


def numbers(found):
    return found.iloc[:, :5].to_numpy() if isinstance(found, pd.DataFrame) else found


def generated(device):
    generator = AutoencoderGenerator(small(device), random_state=0).fit(*DATA["table"])
    frame, y = generator.sample(20)
    return {"rows": frame, "labels": y}


def imputed(device):
    imputer = AutoencoderImputer(small(device))
    return {"rows": imputer.fit_transform(DATA["missing"][0])}


def detected(device):
    detector = AutoencoderOutlierDetector(small(device)).fit(DATA["digits"][0])
    return {"scores": detector.score_samples(DATA["digits"][0])}


def predicted(device):
    frames = DATA["digits"][0]
    predictor = NextFramePredictor(small(device)).fit(frames)
    return {"frames": predictor.predict_next(frames)}


def meant(device):
    rows, _ = DATA["table"]
    transformer = small(device).fit(rows)
    drops = code_importance(transformer, rows)
    return {
        "sensitivity": code_sensitivity(transformer, rows).to_numpy(),
        "importance": np.asarray(drops["drop"] if isinstance(drops, pd.DataFrame) else drops.drop),
    }


def small(device):
    return AutoencoderTransformer(max_epochs=2, batch_size=32, random_state=0, device=device)


OTHERS = {
    "generator": generated,
    "imputer": imputed,
    "detector": detected,
    "next frames": predicted,
    "meaning": meant,
}


def run(name, device):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return OTHERS[name](device) if name in OTHERS else transformed(name, device)


@pytest.mark.parametrize("name", [*CASES, *OTHERS])
def test_results_are_those_of_the_cpu(name, monkeypatch):
    monkeypatch.setattr("aefeatures._train.progress._LOG_SECONDS_WITHIN_EPOCH", 0.0)
    with FakeGPU() as gpu:
        found = run(name, "cuda")
    expected = run(name, "cpu")
    for what, values in expected.items():
        here, there = numbers(values), numbers(found[what])
        assert there.dtype == here.dtype
        np.testing.assert_allclose(there, here, 1e-3, 1e-4, err_msg=what)
    assert gpu.waits <= WAITS.keys()
    assert name == "double" or not gpu.doubles
    assert {place for place, case in WAITS.items() if case == name} <= gpu.waits


FAULTS = {
    "device": lambda codes: codes - torch.zeros(3),
    "index": lambda codes: codes.index_select(1, torch.arange(2)),
    "generator": lambda codes: codes * torch.empty_like(codes).normal_(generator=GENERATOR),
    "NumPy": lambda codes: codes * float(codes.detach().numpy().mean()),
}
GENERATOR = torch.Generator()
SLOW = {
    "a number": lambda codes: codes * float(codes.detach().mean()),
    "a mask": lambda codes: codes[codes > 0],
    "a list": lambda codes: codes * torch.tensor([1.0, 2.0, 3.0], device=codes.device),
    "a copy": lambda codes: codes * torch.ones(3).to(codes.device),
}


def with_penalty(function):
    class Faulty(Regularizer):
        def penalty(self, batch):
            return function(batch.codes).square().mean()

    return small("cuda").set_params(regularizer=Faulty())


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_errors_as_on_a_real_gpu(fault):
    messages = "tensors on cuda:0 got others|got a generator of the CPU|can't convert cuda:0"
    with FakeGPU(), pytest.raises((RuntimeError, TypeError), match=messages):
        with_penalty(FAULTS[fault]).fit(DATA["digits"][0])


@pytest.mark.parametrize("what", SLOW)
def test_waits_are_noted(what):
    with FakeGPU() as gpu:
        with_penalty(SLOW[what]).fit(DATA["digits"][0])
    assert "objective.__call__" in {place for place, _ in gpu.waits}
    assert not gpu.doubles


def test_double_precision_is_noted():
    with FakeGPU() as gpu:
        with_penalty(lambda codes: codes.double()).fit(DATA["digits"][0])
    assert gpu.doubles


def test_rows_beyond_the_memory_are_copied_while_steps_compute(monkeypatch):
    monkeypatch.setattr("fake_gpu.MEMORY", 1000)
    for name in ("missing", "table, missing", "bytes, bfloat16"):
        with FakeGPU() as gpu:
            found = run(name, "cuda")
        assert not gpu.waits
        np.testing.assert_allclose(found["codes"], run(name, "cpu")["codes"], 1e-3, 1e-4)


# On a real GPU, by `make gpu`. Its generator draws other numbers than that of the CPU, so losses
# are alike instead of codes being the same.


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_a_gpu_learns_what_the_cpu_does(name):
    found, expected = run(name, "cuda"), run(name, "cpu")
    for what, values in expected.items():
        here, there = numbers(values), numbers(found[what])
        assert there.dtype == here.dtype
        assert there.shape == here.shape
        np.testing.assert_array_equal(np.isnan(there), np.isnan(here), what)
    np.testing.assert_allclose(found["losses"], expected["losses"], rtol=0.25)


@pytest.mark.gpu
@pytest.mark.parametrize("name", OTHERS)
def test_other_estimators_run_on_a_gpu(name):
    assert run(name, "cuda").keys() == run(name, "cpu").keys()


@pytest.mark.gpu
@pytest.mark.parametrize("name", [name for name in CASES if name not in WAITS.values()])
def test_no_step_waits_for_a_gpu(name, monkeypatch):
    own_steps = aefeatures._train.training.own_steps

    def without_waits(*args):
        steps = own_steps(*args)
        while True:
            torch.cuda.set_sync_debug_mode("error")
            try:
                step = next(steps, None)
            finally:
                torch.cuda.set_sync_debug_mode("default")
            if step is None:
                return
            yield step

    run(name, "cuda")  # the first step sets up what later ones use
    monkeypatch.setattr("aefeatures._train.training.own_steps", without_waits)
    run(name, "cuda")


@pytest.mark.gpu
def test_rows_that_do_not_fit_stay_in_the_memory_of_the_machine():
    X = np.random.default_rng(0).integers(0, 256, (400_000, 784), dtype=np.uint8)  # 1.25 GB there
    estimator = small("cuda").set_params(batch_size=4_096, max_epochs=1)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(6e8 / torch.cuda.mem_get_info()[1])
    try:
        with pytest.warns(RuntimeWarning, match="does not fit into the memory of cuda:0"):
            estimator.fit(X)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert np.isfinite(estimator.transform(X[:1000])).all()


@pytest.mark.gpu
@parametrize_with_checks(
    [
        on_gpu := AutoencoderTransformer(max_epochs=2, device="cuda"),
        AutoencoderTransformer(max_epochs=2, device="cuda", precision="bfloat16"),
        AutoencoderTransformer(
            max_epochs=2, device="cuda", regularizer=["supervised", "neighbors"]
        ),
        AutoencoderImputer(on_gpu),
        NextFramePredictor(on_gpu),
        AutoencoderGenerator(on_gpu),
        AutoencoderOutlierDetector(on_gpu, random_state=0),
    ]
)
def test_scikit_learn_contract_on_a_gpu(estimator, check):
    check(estimator)
