import functools
import itertools
import json
import shutil
import subprocess
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import polars as pl
import pytest
import skl2onnx
import torch
from scipy import sparse
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC
from torch import nn

from aefeatures import (
    AutoencoderTransformer,
    ConvNetwork,
    DenseNetwork,
    RowView,
    register_onnx_converters,
    to_onnx,
)

# skl2onnx 1.20 reads what scikit-learn 1.9 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:Attribute `prob[AB]_`:FutureWarning")


class Atan(nn.Module):
    def forward(self, X):
        return X.atan()


def of_users(n_features, n_components):
    """A network of a user's own, of modules that the library does not use."""
    middle = nn.Sequential(nn.Linear(n_features, 16), nn.Softplus(), Atan())
    encoder = nn.Sequential(*middle, nn.Linear(16, n_components))
    larger = nn.Sequential(nn.Unflatten(1, (1, 4, 4)), nn.Upsample(scale_factor=2), nn.Flatten())
    widen = nn.Sequential(nn.Linear(n_components, 16), nn.SELU(), *larger)
    return encoder, nn.Sequential(*widen, nn.Linear(64, n_features))


NETWORKS = {
    "default": {},
    "conv": {"network": ConvNetwork(channels=(4, 8), normalization="layer")},
    "of_users": {"network": of_users},
    "layer": {"normalization": "layer", "activation": "gelu"},
    "batch": {"normalization": "batch", "activation": "leaky_relu"},
    "components": {"network": DenseNetwork((32,), "silu", n_principal_components=20)},
    "conv_batch": {"network": ConvNetwork(channels=(4, 8), normalization="batch")},
    "variational": {"regularizer": "variational", "activation": "elu"},
    "float64": {"precision": "float64", "activation": "sigmoid"},
    "tanh": {"activation": "tanh", "scaling": "standard"},
}
QUICK = [("default", np.float32), ("conv", np.float64), ("of_users", np.float64)]


def small(**settings):
    return AutoencoderTransformer(4, **{"max_epochs": 3, "random_state": 0, **settings})


def session_of(model):
    content = model if isinstance(model, bytes) else model.SerializeToString()
    return onnxruntime.InferenceSession(content)


def run(model, X):
    """What onnxruntime makes of X."""
    session = session_of(model)
    return session.run(None, {session.get_inputs()[0].name: X})


def written(estimator, folder, *args, **kwargs):
    """The bytes that `to_onnx` writes, checked."""
    path = folder / "model.onnx"
    to_onnx(estimator, path, *args, **kwargs)
    onnx.checker.check_model(path, full_check=True)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("network", "dtype"),
    [
        each if each in QUICK else pytest.param(*each, marks=pytest.mark.slow)
        for each in itertools.product(NETWORKS, (np.float32, np.float64))
    ],
)
def test_parts_give_what_the_methods_give(network, digits, tmp_path, dtype):
    X, X_test = (part.astype(dtype) for part in digits[:2])
    X[::7, 20] = np.nan
    X_test[::5, 10] = np.nan
    transformer = small(**NETWORKS[network]).fit(X)
    codes = transformer.transform(X_test)
    expected = {
        "encoder": (X_test, codes),
        "decoder": (codes, transformer.inverse_transform(codes)),
        "reconstruct": (X_test, transformer.reconstruct(X_test)),
    }
    for part, (given, result) in expected.items():
        model = written(transformer, tmp_path, part, X=X[:1])
        for n in (len(given), 1):
            (got,) = run(model, given[:n])
            assert got.dtype == dtype
            assert abs(got - result[:n]).max() <= 1e-5 * abs(result).max()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("classifier", [KNeighborsClassifier(), SVC(), LogisticRegression()])
def test_pipelines(classifier, digits, dtype):
    X, X_test = (part.astype(dtype) for part in digits[:2])
    pipeline = make_pipeline(StandardScaler(), small(), classifier).fit(X, digits[2])
    register_onnx_converters()
    model = skl2onnx.to_onnx(pipeline, X[:1], options={"zipmap": False})
    onnx.checker.check_model(model, full_check=True)
    assert len(model.SerializeToString()) < 2_000_000
    X_test[::3, 30] = np.nan
    expected = pipeline.predict(X_test)
    np.testing.assert_array_equal(run(model, X_test)[0], expected)
    np.testing.assert_array_equal(run(model, X_test[:1])[0], expected[:1])


def test_within_other_transformers(digits):
    X, X_test = (part.astype(np.float32) for part in digits[:2])
    register_onnx_converters()
    pipelines = [
        make_pipeline(make_union(small(), PCA(3)), KNeighborsClassifier()),
        make_pipeline(
            ColumnTransformer(
                [("codes", small(), list(range(10, 60))), ("rest", "passthrough", [20])]
            ),
            KNeighborsClassifier(),
        ),
    ]
    for pipeline in pipelines:
        pipeline.fit(X, digits[2])
        model = skl2onnx.to_onnx(pipeline, X[:1], options={"zipmap": False})
        np.testing.assert_array_equal(run(model, X_test)[0], pipeline.predict(X_test))


def test_columns_of_a_frame_are_inputs(digits, tmp_path):
    frame = pd.DataFrame(digits[0].astype(np.float32)).rename(columns="pixel_{}".format)
    frame["pixel_20"] = frame["pixel_20"].astype(np.int64)
    pipeline = make_pipeline(small(), KNeighborsClassifier()).fit(frame, digits[2])
    session = session_of(written(pipeline, tmp_path, X=frame))
    columns = {name: frame[[name]].to_numpy() for name in frame}
    labels = session.run(["label"], columns)[0]
    assert (labels == pipeline.predict(frame)).mean() > 0.999
    names = session.get_modelmeta().custom_metadata_map["feature_names"]
    assert json.loads(names) == list(frame)


def test_nullable_columns_are_inputs_of_numbers(digits, tmp_path):
    frame = pd.DataFrame(digits[0][:, 18:22], columns=list("abcd")).astype("Float64")
    frame = frame.astype({"b": "Float32", "c": "Int64", "d": "Int64"})
    frame.loc[::3, ["a", "c"]] = pd.NA
    codes = AutoencoderTransformer(2, max_epochs=2, random_state=0)
    pipeline = make_pipeline(codes, KNeighborsClassifier()).fit(frame, digits[2])
    session = session_of(written(pipeline, tmp_path, X=frame))
    types = [each.type for each in session.get_inputs()]
    assert types == ["tensor(double)", "tensor(float)", "tensor(double)", "tensor(int64)"]
    columns = {
        "a": frame[["a"]].to_numpy(float, na_value=np.nan),
        "b": frame[["b"]].to_numpy(np.float32),
        "c": frame[["c"]].to_numpy(float, na_value=np.nan),
        "d": frame[["d"]].to_numpy(np.int64),
    }
    labels = session.run(["label"], columns)[0]
    assert (labels == pipeline.predict(frame)).mean() > 0.95  # many rows are equally near


# scikit-learn 1.6 warns of what a later version does.
@pytest.mark.filterwarnings("ignore:\\nThe format of the columns of the:FutureWarning")
def test_a_frame_of_polars_with_texts(digits, tmp_path):
    frame = pl.DataFrame(digits[0][:, :20].astype(np.float32)).with_columns(
        pl.Series("kind", ["", "a", "b"] * 449)
    )
    encode = make_column_transformer(
        (OneHotEncoder(sparse_output=False, handle_unknown="ignore"), ["kind"]),
        remainder="passthrough",
    )
    pipeline = make_pipeline(encode, small(), KNeighborsClassifier())
    pipeline.fit(frame.to_pandas(), digits[2])
    session = session_of(written(pipeline, tmp_path, X=frame))
    labels = session.run(["label"], {name: frame[[name]].to_numpy() for name in frame.columns})[0]
    assert (labels == pipeline.predict(frame.to_pandas())).mean() > 0.999


@pytest.mark.parametrize(
    "make", [np.ndarray.tolist, sparse.csr_matrix, torch.tensor, RowView], ids=lambda f: f.__name__
)
def test_rows_of_any_kind_show_the_type(digits, tmp_path, make):
    pipeline = make_pipeline(small(), KNeighborsClassifier()).fit(digits[0], digits[2])
    (given,) = session_of(written(pipeline, tmp_path, X=make(digits[0]))).get_inputs()
    assert (given.name, given.type, given.shape[1]) == ("X", "tensor(double)", 64)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16])
def test_other_dtypes(fitted, digits, tmp_path, dtype):
    X = digits[1].astype(dtype)
    (codes,) = run(written(fitted, tmp_path, X=X), X)
    expected = fitted.transform(X)
    assert codes.dtype == expected.dtype
    np.testing.assert_allclose(codes, expected, rtol=1e-4, atol=1e-4)


def test_offset_beyond_float32(tmp_path):
    X = 1e8 + np.random.default_rng(0).normal(size=(200, 5))
    transformer = small().fit(X)
    np.testing.assert_allclose(
        run(written(transformer, tmp_path, X=X), X)[0], transformer.transform(X), rtol=1e-9
    )


def test_what_a_model_says_of_itself(fitted, digits, tmp_path):
    content = written(fitted, tmp_path)
    model = onnx.load_from_string(content)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 18)]
    assert model.ir_version == 8
    kinds = {node.op_type for node in model.graph.node}
    assert kinds - {"Cast"} == {"Sub", "Div", "ReduceSum", "IsNaN", "If", "Gemm", "Relu"}
    assert b".py" not in content  # no paths of the machine it was made on
    properties = {each.key: each.value for each in model.metadata_props}
    assert properties["estimator"] == "AutoencoderTransformer"
    assert {"aefeatures", "scikit-learn", "torch"} < set(properties)
    X = digits[1].astype(np.float32)
    labels, probabilities = run(
        written(make_pipeline(fitted, SVC()).fit(X, digits[3]), tmp_path), X
    )
    assert labels.shape == (450,)
    assert probabilities.shape[0] == 450


def test_side_by_side_in_threads(fitted, tmp_path):
    filters = list(warnings.filters)
    pipeline = make_pipeline(fitted)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda i: to_onnx((fitted, pipeline)[i % 2], tmp_path / str(i)), range(4)))
    assert warnings.filters == filters
    assert (tmp_path / "0").read_bytes() == (tmp_path / "2").read_bytes()


def test_what_cannot_be_converted(fitted, digits, tmp_path):
    path = tmp_path / "model.onnx"
    with pytest.raises(ValueError, match="part must be one of 'encoder', 'decoder', 'reconstruct'"):
        to_onnx(fitted, path, "autoencoder")
    with pytest.raises(ValueError, match="part='decoder' is one of an AutoencoderTransformer"):
        to_onnx(make_pipeline(fitted), path, "decoder")
    with pytest.raises(NotFittedError, match="is not fitted yet"):
        to_onnx(AutoencoderTransformer(), path)
    with pytest.raises(ValueError, match="X has 3 features, but AutoencoderTransformer"):
        to_onnx(fitted, path, X=np.zeros((1, 3)))
    with pytest.raises(ValueError, match="X has 3 features, but Pipeline is expecting 64"):
        to_onnx(make_pipeline(fitted), path, X=np.zeros((1, 3)))
    register_onnx_converters()
    with pytest.raises(ValueError, match="needs target_opset of at least 18, got 15"):
        skl2onnx.to_onnx(fitted, digits[0][:1], target_opset=15)
    assert not path.exists()


def test_without_the_extra(monkeypatch, fitted, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "skl2onnx", None)
    with pytest.raises(ImportError, match=r"skl2onnx: pip install 'aefeatures\[onnx\]'"):
        register_onnx_converters()


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_same_labels_in_a_browser(browser, digits, tmp_path, dtype):
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("needs npm, for onnxruntime-web")
    subprocess.run(
        [npm, "install", "--silent", "--prefix", tmp_path, "onnxruntime-web@1.30.0"], check=True
    )
    X, X_test = (part.astype(dtype) for part in digits[:2])
    X_test[::3, 30] = np.nan
    pipeline = make_pipeline(StandardScaler(), small(), KNeighborsClassifier()).fit(X, digits[2])
    written(pipeline, tmp_path, X=X[:1])
    (tmp_path / "rows").write_bytes(X_test.tobytes())
    (tmp_path / "index.html").write_text("<!doctype html>")
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=tmp_path))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        labels = page.evaluate(
            """async ([type, shape]) => {
                const ort = await import("/node_modules/onnxruntime-web/dist/ort.wasm.min.mjs");
                const session = await ort.InferenceSession.create("/model.onnx");
                const bytes = await (await fetch("/rows")).arrayBuffer();
                const rows = type === "float32" ? new Float32Array(bytes) : new Float64Array(bytes);
                const { label } = await session.run({ X: new ort.Tensor(type, rows, shape) });
                return Array.from(label.data, Number);
            }""",
            [np.dtype(dtype).name, list(X_test.shape)],
        )
        page.close()
    finally:
        server.shutdown()
        server.server_close()
    np.testing.assert_array_equal(labels, pipeline.predict(X_test))


class Recurrent(nn.Module):
    def __init__(self, n_out):
        super().__init__()
        self.cells = nn.LSTM(1, 4, batch_first=True)
        self.head = nn.Linear(4, n_out)

    def forward(self, X):
        return self.head(self.cells(X[..., None])[0][:, -1])


class Constant(nn.Module):
    """Holds a number that `to` does not convert."""

    def __init__(self, n_in, n_out):
        super().__init__()
        self.constant = torch.eye(n_in)
        self.layer = nn.Linear(n_in, n_out)

    def forward(self, X):
        return self.layer(X @ self.constant)


@pytest.mark.filterwarnings("ignore:.*learned nothing")
@pytest.mark.parametrize("encoder", [lambda n, k: Recurrent(k), Constant])
@pytest.mark.parametrize("part", ["encoder", "reconstruct"])
def test_networks_of_ones_own_keep_their_precision(tmp_path, encoder, part):
    X = np.random.default_rng(0).random((40, 5))
    X[0, 0] = np.nan
    network = lambda n, k: (encoder(n, k), nn.Linear(k, n))  # noqa: E731
    transformer = AutoencoderTransformer(2, network=network, max_epochs=2, random_state=0).fit(X)
    to_onnx(transformer, tmp_path / "model.onnx", part=part, X=X)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (result,) = session.run(None, {session.get_inputs()[0].name: X})
    expected = transformer.transform(X) if part == "encoder" else transformer.reconstruct(X)
    assert result.dtype == expected.dtype == np.float64
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)
