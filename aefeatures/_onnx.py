"""Fitted estimators as ONNX models, which run without Python."""

from __future__ import annotations

import importlib
import json
import os
import threading
import warnings
from inspect import signature
from io import BytesIO
from typing import Any, Literal, cast

import numpy as np
import sklearn
import torch
from scipy import sparse
from sklearn.base import is_classifier
from sklearn.utils.validation import check_is_fitted
from torch import nn

from aefeatures._autoencoder import AutoencoderTransformer
from aefeatures._batches import work_dtype
from aefeatures._global_state import unaffected
from aefeatures._validation import check_rows
from aefeatures._version import __version__

# The oldest that PyTorch's exporter writes without a conversion, read by runtimes since 2023.
_OPSET = 18
_OPSET_ML = 3
_IR_VERSION = 8

# Input and output of the model of a part.
_NAMES = {
    "encoder": ("X", "codes"),
    "decoder": ("codes", "reconstruction"),
    "reconstruct": ("X", "reconstruction"),
}

# What onnxruntime computes in float32 alone on a CPU. (Sigmoid is one where a product follows it,
# as in "silu", which onnxruntime 1.20 to 1.23 make one operation of.)
_IN_FLOAT32_ONLY = {
    *("Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "AveragePool", "Conv", "ConvTranspose"),
    *("Cosh", "Elu", "Erf", "Gelu", "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid"),
    *("InstanceNormalization", "LRN", "LeakyRelu", "LpPool", "PRelu", "Resize", "Selu", "Sigmoid"),
    *("Sinh", "Softplus", "Softsign", "Tan", "ThresholdedRelu"),
}

# PyTorch's exporter and the filters of warnings belong to all threads.
_exporting = threading.RLock()


def register_onnx_converters() -> None:
    """Teach skl2onnx to convert `AutoencoderTransformer`, also within pipelines.

    After it ``skl2onnx.to_onnx(pipeline, X[:1])`` works where skl2onnx can convert the other steps.
    The network computes in float64 where `transform` does, but for the few operations that
    onnxruntime has in float32 alone: convolutions, and the activations but "relu" and "tanh". A
    missing value (NaN) is one as in `transform`.

    Raises
    ------
    ImportError
        If skl2onnx is not installed: ``pip install 'aefeatures[onnx]'``.

    See Also
    --------
    to_onnx : Writes a file, and parts of a transformer.

    Examples
    --------
    >>> import numpy as np
    >>> import onnxruntime
    >>> from skl2onnx import to_onnx
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from sklearn.pipeline import make_pipeline
    >>> from aefeatures import AutoencoderTransformer, register_onnx_converters
    >>> X, y = load_digits(return_X_y=True)
    >>> X = X.astype(np.float32)
    >>> pipeline = make_pipeline(AutoencoderTransformer(max_epochs=2), KNeighborsClassifier())
    >>> register_onnx_converters()
    >>> model = to_onnx(pipeline.fit(X, y), X[:1], options={"zipmap": False})
    >>> session = onnxruntime.InferenceSession(model.SerializeToString())
    >>> labels = session.run(["label"], {"X": X})[0]
    >>> bool((labels == pipeline.predict(X)).mean() > 0.999)
    True
    """
    skl2onnx = _import("skl2onnx")
    skl2onnx.update_registered_converter(
        AutoencoderTransformer, "AefeaturesAutoencoderTransformer", _set_output_type, _convert
    )


def to_onnx(
    estimator: Any,
    path: str | os.PathLike[str],
    part: Literal["encoder", "decoder", "reconstruct"] = "encoder",
    *,
    X: Any = None,
) -> None:
    """Write a fitted transformer, one of its parts, or a whole pipeline to an ONNX file.

    The model of a transformer has one input and one output: "X" and "codes" of the encoder,
    "codes" and "reconstruction" of the decoder, "X" and "reconstruction" of both together. That of
    a pipeline has what `skl2onnx.to_onnx` gives it: of a classifier "label" and "probabilities", a
    matrix. It takes any number of rows. The opset is 18, with 3 of "ai.onnx.ml", the version of
    the format (IR) 8. The metadata hold the versions of the libraries and, in JSON, the names of
    the columns.

    Parameters
    ----------
    estimator : AutoencoderTransformer, Pipeline or any estimator that skl2onnx converts
        Fitted.
    path : str or path-like
        Replaced if there is one.
    part : {"encoder", "decoder", "reconstruct"}, default="encoder"
        What of a transformer: `transform`, `inverse_transform` or `reconstruct`. A pipeline is
        always converted as a whole.
    X : array-like or DataFrame of shape (n_samples, n_features), default=None
        Some rows, one is enough, of the kind that the model will be given: it takes the types of
        their columns. The model of a pipeline has an input for each column of a frame of pandas
        or polars. None is a matrix of float32; columns that are chosen by name need a frame.

    Raises
    ------
    ImportError
        If what it needs is not installed: ``pip install 'aefeatures[onnx]'``.
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.
    ValueError
        If `part` is none of the three, or is asked for of a pipeline; if X has other columns.

    References
    ----------
    .. [1] The ONNX standard, https://onnx.ai.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import onnxruntime
    >>> from sklearn.datasets import load_digits
    >>> from aefeatures import AutoencoderTransformer, to_onnx
    >>> X, _ = load_digits(return_X_y=True)
    >>> transformer = AutoencoderTransformer(max_epochs=2, random_state=0).fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     to_onnx(transformer, Path(folder, "encoder.onnx"))
    ...     session = onnxruntime.InferenceSession(Path(folder, "encoder.onnx"))
    >>> session.run(["codes"], {"X": X.astype(np.float32)})[0].shape
    (1797, 3)
    """
    onnx = _import("onnx")
    check_is_fitted(estimator)
    if part not in _NAMES:
        raise ValueError(f"part must be one of {', '.join(map(repr, _NAMES))}, got {part!r}.")
    if isinstance(estimator, AutoencoderTransformer):
        dtype = np.float32 if X is None else check_rows(estimator, X, reset=False).dtype
        model = _export(estimator, part, np.dtype(dtype))
    elif part != "encoder":
        raise ValueError(
            f"part={part!r} is one of an AutoencoderTransformer: give that instead of a "
            f"{type(estimator).__name__}."
        )
    else:
        register_onnx_converters()
        with _exporting, warnings.catch_warnings():
            # skl2onnx 1.20 reads attributes of SVC that scikit-learn 1.9 deprecates.
            warnings.filterwarnings("ignore", "Attribute `prob[AB]_`", FutureWarning)
            model = _import("skl2onnx").to_onnx(
                estimator,
                initial_types=_input_types(estimator, X),
                options={"zipmap": False} if is_classifier(estimator) else None,
                target_opset={"": _OPSET, "ai.onnx.ml": _OPSET_ML},
            )
    properties = {
        "estimator": type(estimator).__name__,
        "part": part,
        "aefeatures": __version__,
        "scikit-learn": sklearn.__version__,
        "torch": torch.__version__,
    }
    if hasattr(estimator, "feature_names_in_"):
        properties["feature_names"] = json.dumps(list(estimator.feature_names_in_))
    onnx.helper.set_model_props(model, properties)
    model.ir_version = _IR_VERSION
    onnx.save(model, os.fspath(path))


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"ONNX models need {name}: pip install 'aefeatures[onnx]'.") from error


def _input_types(estimator: Any, X: Any) -> list[tuple[str, Any]]:
    """Names and types of a pipeline's inputs, as skl2onnx takes them."""
    guess = _import("skl2onnx.common.data_types").guess_data_type
    if hasattr(X, "columns") and hasattr(X, "dtypes"):
        inputs = [(name, _values(X[name])[:, None]) for name in X.columns]
    else:
        n_columns = estimator.n_features_in_
        if X is None:
            X = np.zeros((1, n_columns), np.float32)
        X = X[:1].toarray() if sparse.issparse(X) else np.asarray(X[:1])
        if X.ndim != 2 or X.shape[1] != n_columns:
            raise ValueError(
                f"X has {X.shape[-1]} features, but {type(estimator).__name__} is expecting "
                f"{n_columns} features as input."
            )
        inputs = [("X", X)]
    types = [(name, guess(values)[0][1]) for name, values in inputs]
    for _, each in types:
        each.shape = [None, *each.shape[1:]]
    return types


def _values(column: Any) -> np.ndarray:
    """The values of a column of a frame; pandas 2 has nullable numbers as objects otherwise."""
    values: np.ndarray = np.asarray(column)
    dtype = getattr(column.dtype, "numpy_dtype", values.dtype)
    if values.dtype == object and dtype.kind in "biuf":
        dtype = np.dtype(float) if dtype.kind != "f" and column.isna().any() else dtype
        values = column.to_numpy(dtype, na_value=np.nan)
    return values


def _input_dtypes(operator: Any) -> list[np.dtype]:
    """The dtypes of what a step of a pipeline is given: a matrix, or columns one by one."""
    helper = _import("onnx.helper")
    types = [variable.type.to_onnx_type().tensor_type.elem_type for variable in operator.inputs]
    return [helper.tensor_dtype_to_np_dtype(each) for each in types]


def _set_output_type(operator: Any) -> None:
    # skl2onnx expects float64 of steps whose first input is float64, float32 of all others.
    kind = _import("skl2onnx.common.data_types").guess_tensor_type(operator.inputs[0].type)
    kind.shape = [
        operator.inputs[0].get_first_dimension(),
        operator.raw_operator._n_features_out,
    ]
    operator.outputs[0].type = kind


def _convert(scope: Any, operator: Any, container: Any) -> None:
    """Add the encoder's graph to that of a pipeline."""
    onnx = _import("onnx")
    if container.target_opset < _OPSET:
        raise ValueError(
            f"AutoencoderTransformer needs target_opset of at least {_OPSET}, got "
            f"{container.target_opset}."
        )
    dtypes = _input_dtypes(operator)
    dtype = np.result_type(*dtypes)
    prefix = scope.get_unique_operator_name("autoencoder") + "_"
    graph = _export(operator.raw_operator, "encoder", dtype, prefix).graph

    def add(kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        name = scope.get_unique_operator_name(kind)
        container.nodes.append(onnx.helper.make_node(kind, inputs, [output], name, **attributes))

    columns = []
    for i, (variable, its_dtype) in enumerate(zip(operator.inputs, dtypes, strict=True)):
        columns.append(variable.full_name)
        if its_dtype != dtype:
            columns[-1] = f"{prefix}column_{i}"
            elem_type = onnx.helper.np_dtype_to_tensor_dtype(dtype)
            add("Cast", [variable.full_name], columns[-1], to=elem_type)
    add("Concat", columns, graph.input[0].name, axis=1)
    container.nodes.extend(graph.node)
    container.initializers.extend(graph.initializer)
    elem_type = operator.outputs[0].type.to_onnx_type().tensor_type.elem_type
    add("Cast", [graph.output[0].name], operator.outputs[0].full_name, to=elem_type)
    container.node_domain_version_pair_sets.add(("", _OPSET))


def _export(
    transformer: AutoencoderTransformer, part: str, dtype: np.dtype, prefix: str = ""
) -> Any:
    """Return a part of a transformer, for rows or codes of `dtype`, as an ONNX model.

    All names in it begin with `prefix`.
    """
    onnx = _import("onnx")
    module = transformer.to_module(cast("Any", "autoencoder" if part == "reconstruct" else part))
    dtype_of_network = work_dtype(dtype, torch.device("cpu"))
    for name, child in module.named_children():
        if name != "scaling":  # which computes in the precision that it needs
            child.to(dtype_of_network)
    if part == "reconstruct":
        module = _Second(module)
    n_columns = transformer._n_features_out if part == "decoder" else transformer.n_features_in_
    rows = (torch.from_numpy(np.zeros((2, n_columns), dtype)),)
    source, result = _NAMES[part]
    settings: dict[str, Any] = {
        "input_names": [source],
        "output_names": [result],
        "opset_version": _OPSET,
    }
    apart = unaffected(transformer._seed, transformer._network)
    with _exporting, warnings.catch_warnings(), apart:
        warnings.simplefilter("ignore")
        if "dynamic_shapes" in signature(torch.onnx.export).parameters:
            settings["dynamic_shapes"] = ({0: torch.export.Dim("n")},)
            program: Any = torch.onnx.export(module, rows, dynamo=True, verbose=False, **settings)
            model = program.model_proto
        else:  # its predecessor, which needs no onnxscript
            file: Any = BytesIO()
            settings["dynamic_axes"] = {name: {0: "n"} for name in (source, result)}
            torch.onnx.export(module, rows, file, **settings)
            model = onnx.load_from_string(file.getvalue())
    _leave_out_notes(model)
    if prefix:
        model = onnx.compose.add_prefix(model, prefix)
    wide = dtype_of_network == torch.float64
    _fill_only_where_missing(
        model.graph, onnx.TensorProto.DOUBLE if wide else onnx.TensorProto.FLOAT
    )
    if wide:
        _compute_in_float32(model.graph)
    return model


class _Second(nn.Module):
    """The second of what a module returns."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        return self.module(X)[1]


def _leave_out_notes(model: Any) -> None:
    """Remove what the exporter notes of the modules, with paths of this machine's files."""
    graph = model.graph
    for noted in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        noted.ClearField("doc_string")
        if hasattr(noted, "metadata_props"):
            noted.ClearField("metadata_props")
    graph.ClearField("value_info")


def _fill_only_where_missing(graph: Any, elem_type: int) -> None:
    """Branch around the filling of missing values, a third of the time of a default encoder."""
    helper = _import("onnx.helper")
    test = next((node for node in graph.node if node.op_type == "IsNaN"), None)
    if test is None:  # a decoder
        return
    fill = next(node for node in graph.node if test.output[0] in node.input)
    rows, filled = test.input[0], fill.output[0]
    fill.output[0] = f"{filled}_where_missing"
    keep = helper.make_node("Identity", [rows], [f"{filled}_as_given"])

    def branch(*nodes: Any) -> Any:
        name = nodes[-1].output[0]
        output = helper.make_tensor_value_info(name, elem_type, None)
        return helper.make_graph(nodes, name, [], [output])

    total, missing = f"{filled}_sum", f"{filled}_any"
    instead = [
        helper.make_node("ReduceSum", [rows], [total], f"node_{total}", keepdims=0),
        helper.make_node("IsNaN", [total], [missing], f"node_{missing}"),
        helper.make_node(
            "If",
            [missing],
            [filled],
            f"node_{filled}",
            then_branch=branch(test, fill),
            else_branch=branch(keep),
        ),
    ]
    nodes = [node for node in graph.node if node not in (test, fill)]
    place = next(i for i, node in enumerate(nodes) if filled in node.input)
    del graph.node[:]
    graph.node.extend([*nodes[:place], *instead, *nodes[place:]])


def _compute_in_float32(graph: Any) -> None:
    """Cast to float32, and back, around what onnxruntime cannot do in float64."""
    onnx = _import("onnx")
    single, double = onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE

    def cast_node(source: str, target: str, to: int) -> Any:
        return onnx.helper.make_node("Cast", [source], [target], f"cast_{target}", to=to)

    nodes = []
    for node in graph.node:
        before, after = [], []
        if node.op_type in _IN_FLOAT32_ONLY:
            wide_inputs, wide_outputs = list(node.input), list(node.output)
            if node.op_type == "Resize":  # its factors and sizes have types of their own
                del wide_inputs[1:]
            narrow_inputs = [f"{name}_float32_{node.name}" for name in wide_inputs]
            node.input[: len(wide_inputs)] = narrow_inputs
            node.output[:] = [f"{name}_float32" for name in wide_outputs]
            before = [
                cast_node(*ends, single) for ends in zip(wide_inputs, narrow_inputs, strict=True)
            ]
            after = [
                cast_node(*ends, double) for ends in zip(node.output, wide_outputs, strict=True)
            ]
        nodes += [*before, node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
