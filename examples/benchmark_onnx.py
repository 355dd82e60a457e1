"""ONNX models beside the estimators they were made from: labels, codes, time and size.

Pipelines of a scaler, a transformer of each kind of network and a classifier are converted by
skl2onnx and run by onnxruntime on the test rows. "codes" is the largest difference divided by the
largest code. Times are medians. Both sides run in turn, with the same number of threads.

    python examples/benchmark_onnx.py --data FOLDER [--threads N] [--quick] [--json FILE]

FOLDER holds `mnist.npz`. Without it the bundled digits are used.
"""

import argparse
import json
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import skl2onnx
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from aefeatures import AutoencoderTransformer, ConvNetwork, register_onnx_converters, to_onnx

NETWORKS = {
    "default": {},
    "layer normalization, gelu": {"normalization": "layer", "activation": "gelu"},
    "batch normalization": {"normalization": "batch"},
    "convolutional": {"network": ConvNetwork(channels=(8, 16))},
    "variational": {"regularizer": "variational"},
}
CLASSIFIERS = [KNeighborsClassifier(15), SVC(), LogisticRegression(max_iter=1000)]
ROWS_OF_CLASSIFIER = 5_000
ROWS_AT_ONCE = 1_000  # the distances to all training rows are a matrix


def load(data):
    """X_train, X_test, y_train in float64: pixels in [0, 1]."""
    if data is None:
        X, y = load_digits(return_X_y=True)
        X_train, X_test, y_train, _ = train_test_split(X / 16, y, random_state=0)
        return X_train, X_test, y_train
    with np.load(data / "mnist.npz") as file:
        train, test = (file[name].reshape(len(file[name]), -1) for name in ("X_train", "X_test"))
        return train / 255, test / 255, file["y_train"].astype(np.int64)


def session_of(content, threads):
    """An onnxruntime session on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def run(session, X):
    """Outputs for X, computed in chunks of rows."""
    name = session.get_inputs()[0].name
    parts = [X[i : i + ROWS_AT_ONCE] for i in range(0, len(X), ROWS_AT_ONCE)]
    outputs = [session.run(None, {name: part}) for part in parts]
    return [np.concatenate(each) for each in zip(*outputs, strict=True)]


def compare_labels(X_train, X_test, y_train, threads, networks):
    """Print and return how well codes and labels agree."""
    results = []
    print(f"{'network':28}{'classifier':24}{'input':>8}{'codes':>10}{'labels equal':>14}{'kB':>8}")
    for dtype in (np.float32, np.float64):
        given, asked = X_train.astype(dtype), X_test.astype(dtype)
        for network, settings in networks.items():
            transformer = AutoencoderTransformer(max_epochs=2, random_state=0, **settings)
            front = make_pipeline(StandardScaler(), transformer).fit(given)
            codes = front.transform(asked)
            session = session_of(skl2onnx.to_onnx(front, given[:1]).SerializeToString(), threads)
            error = abs(run(session, asked)[0] - codes).max() / abs(codes).max()
            few = slice(None, None, max(1, len(given) // ROWS_OF_CLASSIFIER))
            for classifier in CLASSIFIERS:
                classifier.fit(front.transform(given[few]), y_train[few])
                pipeline = Pipeline([*front.steps, ("classifier", classifier)])
                model = skl2onnx.to_onnx(pipeline, given[:1], options={"zipmap": False})
                content = model.SerializeToString()
                labels = run(session_of(content, threads), asked)[0]
                equal = (labels == pipeline.predict(asked)).mean()
                names = (network, type(classifier).__name__, np.dtype(dtype).name)
                results.append((*names, float(error), float(equal), len(content)))
                print(
                    "{:28}{:24}{:>8}".format(*names),
                    f"{error:>9.1e}{equal:>14.2%}{len(content) / 1000:>8.0f}",
                )
    return results


def compare_times(X_train, X_test, threads, networks, repeats):
    """Print and return the times of one row and of 10,000, in milliseconds."""
    results = []
    X = np.ascontiguousarray(np.resize(X_test, (10_000, X_test.shape[1])), dtype=np.float32)
    for network, settings in networks.items():
        transformer = AutoencoderTransformer(max_epochs=1, random_state=0, **settings)
        transformer.fit(X_train.astype(np.float32))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "encoder.onnx")
            to_onnx(transformer, path)
            session = session_of(path.read_bytes(), threads)
        for n in (1, len(X)):
            rows = X[:n]
            sides = (
                partial(transformer.transform, rows),
                partial(session.run, None, {"X": rows}),
            )
            calls = 100 if n == 1 else 1
            times = np.empty((repeats, 2))
            for i in range(-1, repeats):  # the first is a warm-up
                for side in range(2):
                    start = time.perf_counter()
                    for _ in range(calls):
                        sides[side]()
                    times[i, side] = (time.perf_counter() - start) / calls * 1e3
            ratios = times[:, 0] / times[:, 1]
            ours, onnx = np.median(times, axis=0)
            results.append((network, n, ours, onnx, float(np.median(ratios))))
            print(
                f"{network}, {n} rows: transform {ours:.3f} ms, onnxruntime {onnx:.3f} ms, "
                f"{np.median(ratios):.2f} times as fast ({ratios.min():.2f} to {ratios.max():.2f})"
            )
    return results


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="one network, one round")
    parser.add_argument("--only", choices=["labels", "times"])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    # skl2onnx 1.20 uses an attribute that scikit-learn 1.9 deprecates.
    warnings.filterwarnings("ignore", "Attribute `prob", FutureWarning)
    torch.set_num_threads(args.threads)
    register_onnx_converters()
    networks = dict(list(NETWORKS.items())[:1]) if args.quick else NETWORKS
    X_train, X_test, y_train = load(args.data)
    results = {}
    if args.only != "times":
        results["labels"] = compare_labels(X_train, X_test, y_train, args.threads, networks)
    if args.only != "labels":
        repeats = 1 if args.quick else 15
        results["times"] = compare_times(X_train, X_test, args.threads, networks, repeats)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
