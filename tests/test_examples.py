import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"

pytestmark = pytest.mark.slow


def run(name, *args):
    command = [sys.executable, EXAMPLES / f"{name}.py", *map(str, args)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_digits_pipeline(tmp_path):
    out = run("digits_pipeline", "--output", tmp_path / "digits.png")
    rows = [line.split() for line in out.splitlines() if line.startswith(("Auto", "PCA"))]
    accuracy = {(row[0], row[2]): float(row[3]) for row in rows}
    for classifier in ("SVC", "KNN"):
        ours = accuracy["AutoencoderTransformer,", classifier]
        assert ours > accuracy["PCA,", classifier] + 0.05
    assert f"Picture: {tmp_path / 'digits.png'}" in out
    assert (tmp_path / "digits.png").stat().st_size > 20_000
    assert f"browser: {(tmp_path / 'digits.html').as_uri()}" in out
    assert (tmp_path / "digits.html").stat().st_size > 1_000_000


def test_few_labels():
    lines = run("few_labels", "--draws", 5, "--per-class", 1, 10).splitlines()[2:]
    scores = {(line[:22].strip(), int(line[24:32])): float(line.split()[-2]) for line in lines}
    for n_labels, least in ((10, 0.88), (100, 0.95)):
        ours = scores["aefeatures, 8 codes", n_labels]
        assert ours > least
        assert ours > scores["PCA, 8 components", n_labels] + 0.08
        assert ours > scores["64 columns", n_labels] + 0.02


@pytest.mark.parametrize("source", ["npz", "torchvision"])
def test_mnist_features(tmp_path, digits, mnist_root, source):
    if source == "npz":
        X, X_test, y, y_test = digits
        path = tmp_path / "digits.npz"
        pixels = {"X_train": X * 15, "X_test": X_test * 15}
        pixels = {k: v.astype(np.uint8).reshape(-1, 8, 8) for k, v in pixels.items()}
        np.savez(path, **pixels, y_train=y, y_test=y_test)
        where = ["--data", path]
    else:
        where = ["--dataset", "MNIST", "--root", mnist_root]
    out = run("mnist_features", *where, "--epochs", 30, "--output", tmp_path / "picture.png")
    assert [line.split()[1] for line in out.splitlines() if line.startswith("[Epoch")] == [
        f"{i}]" for i in range(1, 31)
    ]
    for classifier in ("KNN(15)", "linear SVM", "RBF SVM", "logistic regression"):
        assert classifier in out
    assert (tmp_path / "picture.png").stat().st_size > 20_000


def test_mnist_features_says_how_to_get_the_data(tmp_path):
    with pytest.raises(subprocess.CalledProcessError) as error:
        run("mnist_features", "--dataset", "KMNIST", "--root", tmp_path)
    assert "does not exist; add --download to fetch it" in error.value.stderr


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("benchmark_features", ["--quick", "--sets", "digits", "wine"]),
        ("benchmark_tables", ["--quick", "--sets", "wine"]),
        ("benchmark_generation", ["--quick"]),
        ("benchmark_table_samples", ["--quick"]),
        ("benchmark_missing", ["--quick"]),
        ("benchmark_imputation", ["--quick", "--sets", "wine"]),
        ("benchmark_frames", ["--quick", "--only", "repeating", "ridge", "PCA"]),
        ("benchmark_memory", ["--quick"]),
        ("benchmark_gpu", ["--quick", "--device", "cpu", "--batch-sizes", 64]),
        ("benchmark_onnx", ["--quick"]),
        ("benchmark_search", ["--quick"]),
        ("benchmark_speed", ["--quick", "--only", "bare loop", "MLPRegressor", "products"]),
    ],
)
def test_benchmarks_run(name, args, tmp_path):
    run(name, *args, "--json", tmp_path / "results.json")
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))


def test_benchmark_of_detectors(tmp_path, digits):
    X, _, y, _ = digits
    for digit in (0, 1):
        np.savez(tmp_path / f"{digit}.npz", X=X[:400, 20:40], y=(y == digit)[:400])
    args = ["--contamination", 0.1, "--seeds", 1, "--no-pyod"]
    out = run("benchmark_detection", "--data", tmp_path, *args, "--only", "detectors", "planted")
    assert "mean area, 10% of the outliers among the training rows" in out
    assert "AutoencoderOutlierDetector(contamination=0.1)" in out
    assert "moved by 4, explain" in out


def test_benchmark_of_ranks_and_the_plan_that_rests_on_it(tmp_path):
    measured = tmp_path / "measured.json"
    args = ["--quick", "--parts", "throughput", "shards"]
    out = run("benchmark_distributed", *args, "--json", measured)
    assert out.count("same model True") == 4
    out = run("scale_plan", "--measured", measured)
    assert "An epoch of 1,000,000,000 rows" in out
    assert out.count(" steps\n") == 24


def test_ray_parquet(tmp_path):
    pytest.importorskip("ray", reason="needs Ray")
    out = run("ray_parquet", "--epochs", 5, "--folder", tmp_path)
    assert "1,797 rows of 64 columns, 5 epochs" in out
    assert len(list((tmp_path / "codes").iterdir())) > 0


def test_cost_of_progress_is_measured(tmp_path, digits):
    X = (digits[0] * 15).astype(np.uint8).reshape(-1, 8, 8)
    np.savez(tmp_path / "digits.npz", X_train=X)
    args = ["--data", tmp_path / "digits.npz", "--progress", "--quick"]
    out = run("benchmark_speed", *args, "--json", tmp_path / "results.json")
    assert "verbose=1, terminal" in out
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["silent"]
