import functools
import itertools
import json
import pickle
import shutil
import subprocess
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import polars as pl
import pytest
import skl2onnx
import torch
from imblearn.over_sampling import RandomOverSampler
from imblearn.pipeline import make_pipeline as make_pipeline_with_samplers
from scipy import sparse
from skl2onnx._supported_operators import sklearn_operator_name_map
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline, make_union
from sklearn.preprocessing import (
    FunctionTransformer,
    OneHotEncoder,
    OrdinalEncoder,
    StandardScaler,
    TargetEncoder,
)
from sklearn.semi_supervised import LabelSpreading
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier
from torch import nn

from aefeatures import (
    AutoencoderOutlierDetector,
    AutoencoderTransformer,
    ConvNetwork,
    DenseNetwork,
    RowView,
    encode_table,
    register_onnx_converters,
    to_onnx,
)
from aefeatures._bridges import onnx as onnx_bridge

# skl2onnx 1.20 reads what scikit-learn 1.9 deprecates.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Attribute `prob[AB]_`:FutureWarning"),
    pytest.mark.usefixtures("shared_exports"),
]


class Content(pickle.Pickler):
    """A pickle that is the same for equal modules, as tensors are written by their values."""

    def persistent_id(self, value):
        if isinstance(value, torch.Tensor):
            value = value.detach()
            return value.dtype, value.stride(), value.contiguous().numpy().tobytes()
        return None


@pytest.fixture(scope="session")
def exports():
    """What PyTorch's exporter made, by the content of the module and the types of its ends."""
    return {}


@pytest.fixture
def shared_exports(monkeypatch, quick_exports, exports):
    """Equal modules are exported once, as PyTorch's exporter takes most of the time here."""
    export = onnx_bridge._exported

    def exported(*given):
        content = BytesIO()
        try:
            Content(content).dump(given)
        except (pickle.PicklingError, AttributeError):  # of a class within a function
            return export(*given)
        key = content.getvalue()
        if key not in exports:
            exports[key] = export(*given).SerializeToString()
        return onnx.load_from_string(exports[key])

    monkeypatch.setattr(onnx_bridge, "_exported", exported)
    return export


@pytest.fixture
def separate_exports(monkeypatch, shared_exports):
    """Each export is made, for tests of whether exports disturb each other."""
    monkeypatch.setattr(onnx_bridge, "_exported", shared_exports)


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
NAMES_OF_OUTPUTS = {
    "encoder": ["codes"],
    "decoder": ["reconstruction"],
    "autoencoder": ["codes", "reconstruction"],
}
# An autoencoder has the operations of its encoder and its decoder.
QUICK = [
    *(("default", np.float32, part) for part in NAMES_OF_OUTPUTS),
    ("conv", np.float64, "autoencoder"),
    ("of_users", np.float64, "autoencoder"),
    ("of_users", np.float64, "decoder"),
]


def quick():
    return AutoencoderTransformer(1, max_epochs=8, random_state=0)


@pytest.fixture(scope="module")
def table():
    """Columns of all types, and targets: numbers, and two and three classes."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "i": rng.integers(0, 9, 200),
            "f": rng.normal(size=200).astype(np.float32),
            "d": rng.normal(size=200),
            "t": 1.7e9 + 100 * rng.normal(size=200),  # float32 has steps of 128 there
            "c": rng.choice(["a", "b", "c"], 200),
            "b": rng.random(200) > 0.5,
        }
    )
    target = (frame["d"] + frame["f"] + frame["t"] / 100 - 1.7e7).to_numpy()
    return frame, target, np.digitize(target, [0.0]), np.digitize(target, [-1.0, 1.0])


def columns_of(frame):
    """The columns of a frame as onnxruntime takes them."""
    return {
        str(name): frame.iloc[:, [i]].to_numpy(object if dtype.kind not in "biuf" else dtype)
        for i, (name, dtype) in enumerate(frame.dtypes.items())
    }


def run_by_name(content, frame, output=0):
    session = session_of(content)
    columns = columns_of(frame)
    given = {each.name: columns[each.name] for each in session.get_inputs()}
    return session.run(None, given)[output]


def small(**settings):
    return AutoencoderTransformer(
        **{"n_components": 4, "max_epochs": 3, "random_state": 0, **settings}
    )


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


@pytest.mark.filterwarnings("ignore:.*learned nothing", "ignore:X has no known value")
@pytest.mark.parametrize("scaling", ["standard", None])
def test_columns_without_information(tmp_path, scaling):
    X = np.random.default_rng(0).normal(size=(100, 7))
    X[:, 2], X[:, 5] = 2.5, np.nan
    transformer = small(scaling=scaling).fit(X)
    new = X.copy()
    new[:, 2], new[:, 5] = 7, 7
    codes, rows = run(written(transformer, tmp_path, "autoencoder", X=X[:1]), new)
    np.testing.assert_allclose(codes, transformer.transform(X), atol=1e-5)
    np.testing.assert_allclose(rows, transformer.reconstruct(X), atol=1e-5)
    assert (rows[:, 2] == 2.5).all()
    assert np.isnan(rows[:, 5]).all()


@pytest.mark.parametrize(
    ("network", "dtype", "part"),
    [
        each if each in QUICK else pytest.param(*each, marks=pytest.mark.slow)
        for each in itertools.product(NETWORKS, (np.float32, np.float64), NAMES_OF_OUTPUTS)
    ],
)
def test_parts_give_what_the_methods_give(network, digits, tmp_path, dtype, part):
    X, X_test = (part.astype(dtype) for part in digits[:2])
    X[::7, 20] = np.nan
    X_test[::5, 10] = np.nan
    transformer = small(**NETWORKS[network]).fit(X)
    codes = transformer.transform(X_test)
    given, *results = {
        "encoder": (X_test, codes),
        "decoder": (codes, transformer.inverse_transform(codes)),
        "autoencoder": (X_test, codes, transformer.reconstruct(X_test)),
    }[part]
    model = written(transformer, tmp_path, part, X=X[:1])
    description = onnx.load_from_string(model)
    properties = {each.key: each.value for each in description.metadata_props}
    assert properties["part"] == part
    assert [each.name for each in description.graph.output] == NAMES_OF_OUTPUTS[part]
    for n in (len(given), 1):
        for got, result in zip(run(model, given[:n]), results, strict=True):
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
    pipeline = make_pipeline(codes, LogisticRegression()).fit(frame, digits[2])
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
    np.testing.assert_array_equal(labels, pipeline.predict(frame))


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
    "names",
    [
        ["a b", "a_b", "a.b", "a_b1"],
        ["home.dest", "price (EUR)", "1st", "größe/€"],
        [3, 1, 0, 2],
        ["X", "variable", "merged_columns", "joined"],
        ["Ge_Gemm", "scores", "codes", "autoencoder_linear"],
    ],
)
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_inputs_have_the_names_of_the_columns(table, tmp_path, names, library):
    frame, _, _, classes = table
    frame = frame[["d", "f", "i", "t"]].set_axis(names, axis=1)
    codes = quick() if library == "pandas" else PCA(2)
    pipeline = make_pipeline(StandardScaler(), codes, KNeighborsClassifier()).fit(frame, classes)
    given = frame
    if library == "polars":
        given = pl.DataFrame({str(name): frame[name].to_numpy() for name in names})
        pipeline.fit(given, classes)
    content = written(pipeline, tmp_path, X=given)
    assert [each.name for each in session_of(content).get_inputs()] == [str(n) for n in names]
    np.testing.assert_array_equal(run_by_name(content, frame), pipeline.predict(given))


def test_names_of_values_inside_make_room_for_columns(table, tmp_path):
    frame = table[0][["d", "f", "t"]]
    pipeline = make_pipeline(StandardScaler(), quick())
    graph = onnx.load_from_string(written(pipeline.fit(frame), tmp_path, X=frame)).graph
    inside = [output for node in graph.node for output in node.output]
    taken = {"first": inside[:3], "last": inside[-4:-1]}
    for names in taken.values():
        renamed = frame.set_axis(names, axis=1)
        content = written(pipeline.fit(renamed), tmp_path, X=renamed)
        np.testing.assert_allclose(run_by_name(content, renamed), pipeline.transform(renamed))


def test_columns_chosen_by_name_from_names_of_any_kind(table, tmp_path):
    frame, target, *_ = table
    frame = frame.rename(columns={"c": "a b", "d": "a_b", "f": "price (EUR)", "t": ""})
    encode = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["a b"]),
        (StandardScaler(), ["a_b", "price (EUR)"]),
    )
    pipeline = make_pipeline(encode, Ridge()).fit(frame, target)
    with pytest.raises(ValueError, match=r"different names that are not empty.*\[''\]"):
        to_onnx(pipeline, tmp_path / "model.onnx", X=frame)
    assert not list(tmp_path.iterdir())
    frame = frame.drop(columns="")
    pipeline.fit(frame, target)
    content = written(pipeline, tmp_path, X=frame[frame.columns[::-1]])  # its order is free
    labels = run_by_name(content, frame)
    np.testing.assert_allclose(labels[:, 0], pipeline.predict(frame), rtol=1e-9)


def test_columns_that_cannot_be_inputs(table, tmp_path):
    frame, _, classes, _ = table
    frame = frame[["d", "f"]]

    def fails(names, message, given=None):
        named = frame.set_axis(names, axis=1)
        pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(named, classes)
        with pytest.raises(ValueError, match=message):
            to_onnx(pipeline, tmp_path / "model.onnx", X=named if given is None else given)

    fails(["label", "f"], r"name of an output.*Rename these columns before fit: \['label'\]")
    fails(["d", "probabilities"], r"name of an output.*\['probabilities'\]")
    fails(
        ["a", "b"],
        r"the 2 columns of fit, got 1 without \['b'\]",
        frame[["d"]].set_axis(["a"], axis=1),
    )
    fails([0, 1], "the 2 columns of fit, got 3", pd.DataFrame(np.zeros((1, 3))))
    dates = frame.assign(f=pd.Timestamp("2020-01-01"))
    fails(["d", "f"], "values of 'f' are datetime64", dates)
    assert not list(tmp_path.iterdir())


PLAIN = ["i", "f", "d", "t"]
# skl2onnx has it from 1.19 on.
WITH_TARGETS = [TargetEncoder(cv=2)] if TargetEncoder in sklearn_operator_name_map else []
one_hot = functools.partial(OneHotEncoder, sparse_output=False, handle_unknown="ignore")


@pytest.mark.parametrize("order", [PLAIN, PLAIN[::-1], ["f", "t", "i", "d"]], ids="".join)
@pytest.mark.parametrize(
    "steps",
    [
        [StandardScaler()],
        [quick()],
        [PCA(3)],
        [make_union(StandardScaler(), PCA(1))],
        [FeatureUnion([("a", "passthrough"), ("b", PCA(1))], transformer_weights={"a": 0.25})],
    ],
    ids=["scaler", "codes", "components", "union", "weights"],
)
def test_columns_of_different_types_meet_in_the_type_that_holds_all(table, tmp_path, steps, order):
    frame, target, *_ = table
    frame = frame[order]
    pipeline = make_pipeline(*steps, StandardScaler(), Ridge()).fit(frame, target)
    predicted = run_by_name(written(pipeline, tmp_path, X=frame), frame)
    np.testing.assert_allclose(predicted[:, 0], pipeline.predict(frame), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "columns",
    [
        [("c", one_hot(), ["c"])],  # of float32 in ONNX, before what is of float64
        [("c", one_hot(), ["c", "i"]), ("s", StandardScaler(), ["i", "f"])],
        [("s", StandardScaler(), ["f", "t"]), ("c", OrdinalEncoder(), ["c"])],
        [("b", "passthrough", ["b", "i", "f"]), ("c", "drop", ["c"]), ("no", PCA(), [])],
        [
            ("c", make_pipeline("passthrough", one_hot()), ["c"]),
            ("u", make_union(PCA(1), "drop"), ["i", "t"]),
        ],
        [
            (
                "c",
                make_pipeline(
                    make_column_transformer((one_hot(), ["c"]), remainder="passthrough"), None
                ),
                ["c", "i", "d"],
            )
        ],
    ],
    ids=["one hot", "twice", "ordinal", "passthrough", "nested", "within itself"],
)
def test_results_of_different_types_meet_in_the_type_that_holds_all(table, tmp_path, columns):
    frame, target, *_ = table
    weights = {name: 0.25 + i for i, (name, *_) in enumerate(columns)}
    for each in (None, weights):
        join = ColumnTransformer(columns, remainder="passthrough", transformer_weights=each)
        pipeline = make_pipeline(join, StandardScaler(), Ridge()).fit(frame, target)
        predicted = run_by_name(written(pipeline, tmp_path, X=frame), frame)
        np.testing.assert_allclose(predicted[:, 0], pipeline.predict(frame), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("missing", [None, np.nan])
@pytest.mark.parametrize(
    "encoder",
    [
        one_hot(),
        one_hot(min_frequency=0.2),
        OneHotEncoder(drop="first", sparse_output=False),
        OrdinalEncoder(),
        OrdinalEncoder(
            handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-9
        ),
        *WITH_TARGETS,
    ],
    ids=str,
)
def test_missing_text(table, tmp_path, missing, encoder):
    _, _, classes, _ = table
    kinds = np.array([missing, "a", "b", "c"], dtype=object)  # not the text "nan"
    text = np.random.default_rng(0).choice(kinds, 200, p=[0.4, 0.3, 0.2, 0.1])
    frame = pd.DataFrame({"c": text, "k": text[::-1]}, dtype=object)
    pipeline = make_pipeline(make_column_transformer((encoder, ["c", "k"])), StandardScaler())
    content = written(pipeline.fit(frame, classes), tmp_path, X=frame)
    expected = pipeline.transform(frame)
    for stand_in in ("", "nan", "NaN", "None", "<NA>", None, np.nan, pd.NA):
        given = frame.apply(lambda column: [stand_in if v != v or v is None else v for v in column])  # noqa: B023
        np.testing.assert_allclose(run_by_name(content, given.astype(object)), expected, atol=1e-5)


def test_text_that_reads_like_missing_text(table, tmp_path):
    def made(*values):
        frame = pd.DataFrame({"c": pd.Series(list(values) * 10, dtype=object), "d": 1.0})
        pipeline = make_pipeline(make_column_transformer((one_hot(), ["c"])))
        return pipeline.fit(frame), frame

    pipeline, frame = made("None", "", np.nan, "a")  # "None" is a kind of garage, say
    result = run_by_name(written(pipeline, tmp_path, X=frame), frame)
    np.testing.assert_array_equal(result, pipeline.transform(frame))
    pipeline, frame = made("None", "", "a")  # nothing is missing
    frame.loc[0, "c"] = "nan"
    result = run_by_name(written(pipeline, tmp_path, X=frame), frame)
    np.testing.assert_array_equal(result, pipeline.transform(frame))
    for values in (["nan", np.nan, "a"], ["None", None, "a"], [None, np.nan, "a"]):
        pipeline, frame = made(*values)
        with pytest.raises(ValueError, match=r"stands for more than one category.*Fill in"):
            to_onnx(pipeline, tmp_path / "other.onnx", X=frame)
    assert not (tmp_path / "other.onnx").exists()


@pytest.mark.parametrize(
    "encoder",
    [
        one_hot(),
        OrdinalEncoder(),
        OrdinalEncoder(encoded_missing_value=-1),
        *WITH_TARGETS,
    ],
    ids=str,
)
def test_missing_numbers_as_categories_leave_no_file(table, tmp_path, encoder):
    frame = pd.DataFrame({"i": table[0]["i"].where(table[0]["b"])}, dtype=np.float32)
    pipeline = make_pipeline(make_column_transformer((encoder, ["i"]))).fit(frame, table[2])
    with pytest.raises(ValueError, match=r"^No file was written.*missing numbers.*Fill in"):
        to_onnx(pipeline, tmp_path / "model.onnx", X=frame)
    assert not list(tmp_path.iterdir())


def test_the_table_of_the_readme(tmp_path):
    """A pipeline over text and numbers of float64, which could not be loaded."""
    frame = pd.DataFrame(
        {
            "city": ["Oslo", "Rome", "Oslo", "Rome"] * 30,
            "rooms": [1.0, 2.0, 3.0, 4.0] * 30,
            "area": [30.0, 55.0, 80.0, 120.0] * 30,
        }
    )
    dear = [False, False, True, True] * 30
    columns = make_column_transformer((one_hot(), ["city"]), remainder="passthrough")
    pipeline = make_pipeline(columns, quick(), LogisticRegression()).fit(frame, dear)
    new = pd.concat([frame, frame.assign(city="Bergen")])
    content = written(pipeline, tmp_path, X=frame)
    np.testing.assert_array_equal(run_by_name(content, new), pipeline.predict(new))
    probabilities = run_by_name(content, new, output=1)
    np.testing.assert_allclose(probabilities, pipeline.predict_proba(new), rtol=1e-6)


# Tables, whose columns are inputs


def mixed(n=240):
    """A table with columns of all kinds and gaps, text first."""
    rng = np.random.default_rng(0)
    day = np.datetime64("2024-01-01", "us") + rng.integers(0, 99, n) * np.timedelta64(1, "D")
    frame = pd.DataFrame(
        {
            "town": rng.choice(["Zürich", "Bern", "", None], n),
            "i": rng.integers(0, 9, n),
            "f": rng.normal(size=n).astype(np.float32),
            "gaps": np.where(rng.random(n) < 0.2, np.nan, rng.normal(size=n)),
            "b": rng.random(n) > 0.5,
            "many": rng.integers(0, 30, n).astype(str),
            "whole": pd.Categorical(rng.choice([7, -3, 99], n)),
            "real": pd.Categorical(rng.choice([0.1, 2.5, np.nan], n)),
            "truth": pd.Categorical(rng.random(n) > 0.3),
            "day": pd.Series(day).dt.tz_localize("Europe/Zurich"),
            "age": rng.integers(0, 10**9, n).astype("timedelta64[us]"),
            "size, größe": pd.Categorical(rng.choice(["s", "l"], n), categories=["s", "m", "l"]),
        }
    )
    frame.loc[::9, "day"] = pd.NaT
    return frame


def of_polars(X):
    return pl.DataFrame({name: [v if v == v else None for v in X[name]] for name in X})


def inputs_of(session, X):
    """The columns of a table in the types of a model's inputs, with a text for missing text."""
    types = {"string": object, "double": "f8", "float": "f4", "int64": "i8", "bool": bool}
    given = {}
    for each in session.get_inputs():
        values, dtype = X[each.name], types[each.type[7:-1]]
        if isinstance(X, pl.DataFrame):
            values = values.to_pandas()
        if values.dtype.kind in "mM":
            start = pd.Timestamp(0, tz=values.dt.tz) if values.dtype.kind == "M" else 0 * values
            values = (values - start).dt.total_seconds()
        values = values.astype(object if dtype is object else dtype)
        if dtype is object:
            values = values.where(values.notna(), "-")
        given[each.name] = values.to_numpy(dtype, copy=True)[:, None]
    return given


TABLES = {
    "pandas": (mixed, {}),
    "grouped": (mixed, {"max_categories": 3, "scaling": "feature", "precision": "float64"}),
    "float32": (lambda: mixed()[["f", "town", "b"]], {"n_components": 2}),
    "categories": (lambda: mixed()[["many", "town", "whole"]], {"activation": "gelu"}),
    "dates": (lambda: mixed()[["day", "f", "age"]], {"n_components": 2}),
    "of users": (mixed, {"network": lambda n, k: (nn.Linear(n, k), nn.Linear(k, n))}),
    "polars": (lambda: of_polars(mixed()[["town", "i", "gaps", "day", "b"]]), {}),
}


QUICK_TABLES = [
    ("pandas", True, "autoencoder"),
    ("float32", False, "encoder"),
    ("polars", True, "encoder"),
]


@pytest.mark.filterwarnings("ignore:.*learned nothing", "ignore:n_components=")
@pytest.mark.parametrize(
    ("kind", "shown", "part"),
    [
        each if each in QUICK_TABLES else pytest.param(*each, marks=pytest.mark.slow)
        for each in itertools.product(TABLES, [False, True], ["encoder", "autoencoder"])
    ],
)
def test_columns_of_a_table_are_inputs(tmp_path, kind, shown, part):
    make, params = TABLES[kind]
    X = make()
    y = np.array(["no", "yes"])[np.random.default_rng(1).integers(0, 2, len(X))]
    pipeline = make_pipeline(small(**params), LogisticRegression()).fit(X, y)
    settings = {"X": X[:1]} if shown else {}
    session = session_of(written(pipeline, tmp_path, **settings))
    assert [each.name for each in session.get_inputs()] == [*X.columns]
    assert [each.shape for each in session.get_inputs()] == [[None, 1]] * X.shape[1]
    given = inputs_of(session, X)
    labels, probabilities = session.run(None, given)
    np.testing.assert_array_equal(labels, pipeline.predict(X))
    np.testing.assert_allclose(probabilities, pipeline.predict_proba(X), atol=1e-5)
    session = session_of(written(pipeline[0], tmp_path, part, **settings))
    codes, *reconstruction = session.run(None, inputs_of(session, X))
    np.testing.assert_allclose(codes, pipeline[0].transform(X), rtol=1e-4, atol=1e-5)
    if part == "autoencoder":
        decoded = pipeline[0].to_module("autoencoder")(encode_table(pipeline[0], X)[0])[1]
        np.testing.assert_allclose(reconstruction[0], decoded.detach(), rtol=1e-4, atol=1e-4)


def detector(**params):
    return AutoencoderOutlierDetector(small(**params), contamination=0.1, random_state=0)


def with_gaps(X):
    """Missing values in one half of the rows."""
    return np.where((X % 7 == 3) & (np.arange(len(X)) % 2 == 0)[:, None], np.nan, X)


DETECTORS = {
    "float32": (lambda X: X.astype(np.float32), {"scaling": "standard"}),
    "missing": (with_gaps, {"n_components": 2}),
}


@pytest.mark.parametrize("kind", DETECTORS)
def test_detectors(digits, tmp_path, kind):
    make, params = DETECTORS[kind]
    X = make(digits[0].astype(float))
    pipeline = make_pipeline(StandardScaler(), detector(**params)).fit(X[:600])
    labels, scores = session_of(written(pipeline, tmp_path, X=X)).run(None, {"X": X})
    np.testing.assert_array_equal(labels, pipeline.predict(X))
    np.testing.assert_allclose(scores, pipeline.score_samples(X), rtol=1e-5)
    assert set(labels) == {-1, 1}


def test_detector_of_a_table(tmp_path):
    X = mixed()
    found = detector(n_components=2).fit(X)
    session = session_of(written(found, tmp_path, X=X))
    assert [each.name for each in session.get_inputs()] == [*X.columns]
    labels, scores = session.run(None, inputs_of(session, X))
    np.testing.assert_allclose(scores, found.score_samples(X), rtol=1e-4)
    assert (labels == found.predict(X)).mean() > 0.99


def test_inputs_of_a_table_have_the_types_of_x(tmp_path):
    X = mixed()
    transformer = small(max_categories=30).fit(X)
    types = {}
    for shown in (None, X):
        session = session_of(written(transformer, tmp_path, X=shown))
        types[shown is None] = [each.type[7:-1] for each in session.get_inputs()]
    always = {0: "string", 5: "string", 9: "double", 10: "double", 11: "string"}
    seen = "string int64 float double bool string int64 double bool double double string"
    unseen = "string double float double float string int64 double bool double double string"
    assert types == {False: seen.split(), True: unseen.split()}
    assert all(each[i] == kind for each in types.values() for i, kind in always.items())


def test_levels_that_fit_has_not_seen_are_missing(tmp_path):
    X = mixed()[["town", "gaps", "whole", "real"]]
    transformer = small(n_components=2).fit(X)
    missing = X.copy()
    missing["town"], missing["whole"], missing["real"] = None, np.nan, np.nan
    session = session_of(written(transformer, tmp_path))
    for text, number in [("nan", -1), ("Genf", 8), ("None", 2**40)]:
        given = inputs_of(session, X)
        given["town"][:], given["whole"][:], given["real"][:] = text, number, number
        np.testing.assert_allclose(
            session.run(None, given)[0], transformer.transform(missing), atol=1e-6
        )


def test_arrays_of_objects_have_inputs_with_numbers(tmp_path):
    X = mixed()[["town", "f", "i"]].to_numpy(object)
    transformer = small(n_components=2, categorical_features=[0, 2]).fit(X)
    session = session_of(written(transformer, tmp_path, X=X[:1]))
    given = inputs_of(session, pd.DataFrame(X, columns=["x0", "x1", "x2"]))
    np.testing.assert_allclose(session.run(None, given)[0], transformer.transform(X), atol=1e-6)


def test_a_column_of_no_level(tmp_path):
    X = mixed()[["f", "town"]].assign(none=pd.Categorical([None] * 240))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "X has no known value in column 'none'")
        transformer = small(n_components=2).fit(X)
    session = session_of(written(transformer, tmp_path))
    codes = session.run(None, inputs_of(session, X))[0]
    np.testing.assert_allclose(codes, transformer.transform(X), atol=1e-6)


def test_tables_that_cannot_be_converted(tmp_path):
    X, y = mixed()[["f", "gaps", "town"]], np.arange(240) % 2
    path = tmp_path / "model.onnx"
    with_dates = X.assign(town=pd.Categorical(pd.date_range("2024", periods=3).repeat(80)))
    transformer = small(n_components=2).fit(with_dates)
    with pytest.raises(ValueError, match=r"'town' has levels such as Timestamp.* Convert them to"):
        to_onnx(transformer, path)
    transformer = small(n_components=2).fit(X)
    with pytest.raises(ValueError, match="feature names should match"):
        to_onnx(transformer, path, X=X[["town", "f", "gaps"]])
    second = make_pipeline(FunctionTransformer(), small(n_components=2), LogisticRegression())
    with pytest.raises(ValueError, match=r"cannot convert .* has to be the first step"):
        to_onnx(second.fit(X[["town"]].assign(other="a"), y), path)
    named = small(n_components=2).fit(X.rename(columns={"f": "codes"}))
    with pytest.raises(ValueError, match=r"name of an output .* before fit: \['codes'\]"):
        to_onnx(named, path)
    assert not path.exists()


def test_steps_that_do_nothing_in_a_prediction(table, tmp_path):
    frame, _, classes, _ = table
    X = frame[["d", "f"]].to_numpy(np.float32)
    fitted = quick().fit(X)
    for pipeline in (
        make_pipeline(None, "passthrough", quick(), None, SVC()),
        make_pipeline(StandardScaler(), "passthrough"),
        make_pipeline("passthrough"),
        make_pipeline_with_samplers(RandomOverSampler(random_state=0), StandardScaler(), SVC()),
        make_pipeline_with_samplers(StandardScaler(), RandomOverSampler(random_state=0), SVC()),
        make_pipeline(FrozenEstimator(fitted), SVC()),
        make_pipeline(make_pipeline(FrozenEstimator(make_pipeline(None, fitted)), None), SVC()),
        FrozenEstimator(make_pipeline(StandardScaler(), SVC()).fit(X, classes)),
        make_union(FrozenEstimator(fitted), "passthrough", make_pipeline("passthrough", PCA(1))),
        GridSearchCV(make_pipeline(StandardScaler(), SVC()), {"svc__C": [1, 2]}, cv=2),
        RandomizedSearchCV(
            make_pipeline(StandardScaler(), SVC()), {"svc__C": [1, 2]}, n_iter=1, cv=2
        ),
    ):
        pipeline.fit(X, classes)
        (result, *_) = run(written(pipeline, tmp_path, X=X), X)
        if hasattr(pipeline, "predict"):
            np.testing.assert_array_equal(result, pipeline.predict(X))
        else:
            np.testing.assert_allclose(result, pipeline.transform(X), rtol=1e-5, atol=1e-5)


def test_parts_of_a_frozen_transformer_and_of_a_search(table, tmp_path):
    X = table[0][["d", "f", "t"]].to_numpy()
    search = GridSearchCV(quick(), {"n_components": [1, 2]}, cv=2).fit(X)
    for estimator in (FrozenEstimator(quick().fit(X)), search, FrozenEstimator(search)):
        codes, rows = run(written(estimator, tmp_path, "autoencoder", X=X), X)
        transformer = getattr(estimator, "best_estimator_", estimator)
        np.testing.assert_allclose(codes, transformer.transform(X), rtol=1e-6)
        np.testing.assert_allclose(rows, transformer.reconstruct(X), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.uint8, np.uint32, bool, str])
@pytest.mark.parametrize(
    "classifier", [KNeighborsClassifier(), SVC(), LinearSVC(), DecisionTreeClassifier()], ids=str
)
def test_labels_of_any_type(table, tmp_path, classifier, dtype):
    frame, _, two, three = table
    X = frame[["d", "f"]].to_numpy(np.float32)
    for y in (two.astype(dtype), three.astype(dtype)):
        pipeline = make_pipeline(StandardScaler(), classifier).fit(X, y)
        labels = run(written(pipeline, tmp_path), X)[0]
        np.testing.assert_array_equal(labels, pipeline.predict(X))
        assert pipeline.classes_.dtype == y.dtype


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize(
    "classifier",
    [KNeighborsClassifier(), DecisionTreeClassifier(), RandomForestClassifier(3)],
    ids=str,
)
def test_two_columns_of_labels_work_or_leave_no_file(table, tmp_path, classifier, n_classes):
    frame, _, two, three = table
    X = frame[["d", "f"]].to_numpy(np.float32)
    Y = np.stack([two, two[::-1] if n_classes == 2 else three], axis=1)
    pipeline = make_pipeline(StandardScaler(), classifier).fit(X, Y)
    if n_classes == 3 and not isinstance(classifier, RandomForestClassifier):
        with pytest.raises(ValueError, match=r"^No file was written, because "):
            to_onnx(pipeline, tmp_path / "model.onnx")
        assert not list(tmp_path.iterdir())
    else:
        np.testing.assert_array_equal(run(written(pipeline, tmp_path), X)[0], pipeline.predict(X))


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (make_pipeline(quick(), LabelSpreading()), "LabelSpreading"),
        (
            make_pipeline(FunctionTransformer(np.abs), SVC()),
            "skl2onnx cannot convert this Pipeline of FunctionTransformer, SVC: ",
        ),
        (make_pipeline(type("Own", (AutoencoderTransformer,), {})(2, max_epochs=8), SVC()), "Own"),
    ],
    ids=["spreading", "function", "subclass"],
)
def test_an_old_file_stays_where_a_model_cannot_be_made(table, tmp_path, estimator, message):
    X = table[0][["d", "f", "t"]].to_numpy()
    path = tmp_path / "model.onnx"
    path.write_text("old")
    with pytest.raises(ValueError, match=f"^No file was written.*{message}"):
        to_onnx(estimator.fit(X, table[2]), path)
    assert [each.read_text() for each in tmp_path.iterdir()] == ["old"]


def test_a_model_that_onnxruntime_refuses_is_not_written(table, tmp_path, monkeypatch, capfd):
    X = table[0][["d", "f", "t"]].to_numpy()
    forests = make_pipeline(RandomForestClassifier(3)).fit(X, np.stack([table[2]] * 2, axis=1))
    path = tmp_path / "model.onnx"
    with pytest.raises(ValueError, match="No file was written, because onnxruntime cannot open"):
        to_onnx(forests, path, X=X)
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    to_onnx(forests, path, X=X)  # it cannot be known
    assert path.exists()


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
    assert kinds - {"Cast", "Constant"} == {
        "Sub",
        "Div",
        "ReduceSum",
        "IsNaN",
        "If",
        "Gemm",
        "Relu",
    }
    assert b".py" not in content  # no paths of the machine it was made on
    properties = {each.key: each.value for each in model.metadata_props}
    assert properties["estimator"] == "AutoencoderTransformer"
    assert {"aefeatures", "scikit-learn", "torch"} < set(properties)
    X = digits[1].astype(np.float32)
    pipeline = make_pipeline(FrozenEstimator(fitted), SVC()).fit(X, digits[3])
    labels, probabilities = run(written(pipeline, tmp_path), X)
    assert labels.shape == (450,)
    assert probabilities.shape[0] == 450


@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.slow)])
def test_reconstruct_is_a_deprecated_part(fitted, digits, tmp_path, dtype):
    X = digits[1].astype(dtype)
    path = tmp_path / "old.onnx"
    with pytest.warns(FutureWarning, match="'reconstruct' is deprecated.*part='autoencoder'") as c:
        to_onnx(fitted, path, "reconstruct", X=X)
    assert [each.filename for each in c] == [__file__]
    session = onnxruntime.InferenceSession(path)
    assert [each.name for each in session.get_outputs()] == ["reconstruction"]
    (rows,) = session.run(None, {"X": X})
    _, expected = run(written(fitted, tmp_path, "autoencoder", X=X), X)
    np.testing.assert_array_equal(rows, expected)


def test_a_model_does_not_depend_on_the_callers_autocast(fitted, tmp_path, separate_exports):
    paths = [tmp_path / "plain.onnx", tmp_path / "autocast.onnx"]
    to_onnx(fitted, paths[0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        to_onnx(fitted, paths[1])
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_side_by_side_in_threads(fitted, tmp_path, separate_exports):
    filters = list(warnings.filters)
    pipeline = make_pipeline(fitted)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda i: to_onnx((fitted, pipeline)[i % 2], tmp_path / str(i)), range(3)))
    assert warnings.filters == filters
    assert (tmp_path / "0").read_bytes() == (tmp_path / "2").read_bytes()


def test_what_cannot_be_converted(fitted, digits, tmp_path):
    path = tmp_path / "model.onnx"
    with pytest.raises(ValueError, match="part must be one of 'encoder', 'decoder', 'autoencoder'"):
        to_onnx(fitted, path, "codes")
    for part in ("decoder", "autoencoder", "reconstruct"):
        with pytest.raises(ValueError, match=f"part='{part}' needs an AutoencoderTransformer"):
            to_onnx(make_pipeline(fitted), path, part)
    with pytest.raises(NotFittedError, match="is not fitted yet"):
        to_onnx(AutoencoderTransformer(), path)
    with pytest.raises(ValueError, match="X has 3 features, but AutoencoderTransformer"):
        to_onnx(fitted, path, X=np.zeros((1, 3)))
    with pytest.raises(ValueError, match="X has 3 features, but Pipeline is expecting 64"):
        to_onnx(make_pipeline(fitted), path, X=np.zeros((1, 3)))
    register_onnx_converters()
    with pytest.raises(ValueError, match="needs a target_opset of at least 18, got 15"):
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
@pytest.mark.parametrize(
    ("encoder", "part"),
    [
        (lambda n, k: Recurrent(k), "autoencoder"),
        pytest.param(lambda n, k: Recurrent(k), "encoder", marks=pytest.mark.slow),
        (Constant, "encoder"),
        (Constant, "autoencoder"),
    ],
    ids=["recurrent", "recurrent-encoder", "constant-encoder", "constant-autoencoder"],
)
def test_networks_of_ones_own_keep_their_precision(tmp_path, encoder, part):
    X = np.random.default_rng(0).random((40, 5))
    X[0, 0] = np.nan
    network = lambda n, k: (encoder(n, k), nn.Linear(k, n))  # noqa: E731
    transformer = AutoencoderTransformer(2, network=network, max_epochs=2, random_state=0).fit(X)
    to_onnx(transformer, tmp_path / "model.onnx", part=part, X=X)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    results = session.run(None, {session.get_inputs()[0].name: X})
    assert len(results) == (1 if part == "encoder" else 2)
    expected = (transformer.transform(X), transformer.reconstruct(X))
    for got, result in zip(results, expected, strict=False):
        assert got.dtype == result.dtype == np.float64
        np.testing.assert_allclose(got, result, rtol=1e-4, atol=1e-5)
