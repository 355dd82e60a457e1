"""Conversion of fitted estimators to ONNX models, which run without Python."""

from __future__ import annotations

import copy
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
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    OneHotEncoder,
    OrdinalEncoder,
    TargetEncoder,
)
from sklearn.utils.validation import check_is_fitted
from torch import nn

from aefeatures._autoencoder import AutoencoderTransformer, fitted_model
from aefeatures._bridges.pipelines import flat_steps, unwrap
from aefeatures._detection import AutoencoderOutlierDetector, ScoreModule
from aefeatures._files import write_atomically
from aefeatures._rows.batches import work_dtype
from aefeatures._rows.checks import check_rows
from aefeatures._rows.columns import is_frame
from aefeatures._rows.tables import Column, Levels, Table, table_of
from aefeatures._sklearn import columns_of
from aefeatures._torch.devices import PRECISIONS
from aefeatures._torch.random_state import unaffected
from aefeatures._version import __version__
from aefeatures._warnings import warn

# The oldest opset that PyTorch's exporter writes without a conversion. Runtimes read it since 2023.
_OPSET = 18
_OPSET_ML = 3
_IR_VERSION = 8

# Names of the input and the outputs of each part's model.
_NAMES_OF_PARTS = {
    "encoder": ("X", ["codes"]),
    "decoder": ("codes", ["reconstruction"]),
    "autoencoder": ("X", ["codes", "reconstruction"]),
}
_NAMES_OF_DETECTOR = ("X", ["label", "scores"])
# The earlier spelling of "autoencoder", with one output.
_NAMES_OF_DEPRECATED_PARTS = {"reconstruct": ("X", ["reconstruction"])}

# Operations that onnxruntime supports only in float32 on a CPU. Sigmoid is one of them because
# onnxruntime 1.20 to 1.23 fuse it with a product that follows it, as in "silu".
_ONLY_IN_FLOAT32 = {
    *("Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "AveragePool", "Conv", "ConvTranspose"),
    *("Cosh", "Elu", "Erf", "Gelu", "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid"),
    *("InstanceNormalization", "LRN", "LeakyRelu", "LpPool", "PRelu", "Resize", "Selu", "Sigmoid"),
    *("Sinh", "Softplus", "Softsign", "Tan", "ThresholdedRelu"),
}

_DETECTOR = "AefeaturesAutoencoderOutlierDetector"

# All threads share PyTorch's exporter and the warning filters.
_exporting = threading.RLock()


def register_onnx_converters() -> None:
    """Register converters for our transformer and our detector with skl2onnx.

    ``skl2onnx.to_onnx(pipeline, X[:1])`` then works for every pipeline whose other steps skl2onnx
    can convert. The network computes in float64 if `transform` does. The exceptions are operations
    that onnxruntime supports only in float32: convolutions, and all activations except "relu" and
    "tanh". Missing values (NaN) are handled as in `transform`.

    Raises
    ------
    ImportError
        If skl2onnx is not installed: ``pip install 'aefeatures[onnx]'``.

    See Also
    --------
    to_onnx : Write a transformer, one of its parts, or a pipeline to a file. Also for transformers
        that were fitted on tables with text, which ``skl2onnx.to_onnx`` cannot convert.

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
    skl2onnx.update_registered_converter(
        AutoencoderOutlierDetector, _DETECTOR, _set_output_type, _convert, parser=_parse_detector
    )


def to_onnx(
    estimator: Any,
    path: str | os.PathLike[str],
    part: Literal["encoder", "decoder", "autoencoder"] = "encoder",
    *,
    X: Any = None,
) -> None:
    """Write a transformer, one of its parts, a detector or a whole pipeline to an ONNX file.

    The model of an encoder has the input "X" and the output "codes". The model of a decoder has the
    input "codes" and the output "reconstruction". The model of the whole autoencoder has the input
    "X" and the outputs "codes" and "reconstruction". The model of an `AutoencoderOutlierDetector`
    has the outputs "label" (of `predict`) and "scores" (of `score_samples`), of shape (n_samples,).
    The model of a pipeline has the outputs that `skl2onnx.to_onnx` gives it, for a classifier
    "label" and a matrix "probabilities". A model takes any number of rows. A transformer that was
    fitted on a table with categories, dates or durations has one input of shape (n_samples, 1) for
    each column, with the column's name, instead of "X". The opset is 18, the opset of "ai.onnx.ml"
    is 3, and the version of the format (IR) is 8. The metadata contain the versions of the
    libraries and, as JSON, the names of the columns.

    No file is written if the estimator cannot be converted, or if onnxruntime is installed and
    cannot open the model.

    Parameters
    ----------
    estimator : AutoencoderTransformer, AutoencoderOutlierDetector, Pipeline or another estimator
        Fitted estimator. Another one has to be convertible by skl2onnx. For a search, its best
        estimator is converted. For a `sklearn.frozen.FrozenEstimator`, the estimator inside it is
        converted. Samplers in pipelines of imbalanced-learn are left out, as in `predict`.
    path : str or path-like
        File to write. An existing file is replaced.
    part : {"encoder", "decoder", "autoencoder"}, default="encoder"
        Part of a transformer, as in `AutoencoderTransformer.to_module`. "encoder" computes
        what `transform` returns, "decoder" what `inverse_transform` returns, and "autoencoder" what
        `transform` and `reconstruct` return. A pipeline is always converted as a whole.

        .. deprecated:: 0.1
           "reconstruct", the autoencoder without the output "codes". Use "autoencoder".
    X : array-like or DataFrame of shape (n_samples, n_features), default=None
        Rows of the kind that the model will be given; one row is enough. The inputs of the model
        get the types of their columns. If X is a DataFrame of pandas or polars, the model of a
        pipeline has an input for each column, with the column's name. None means a float32 matrix.
        A pipeline that selects columns by name needs a DataFrame.

    Raises
    ------
    ImportError
        If a required package is not installed: ``pip install 'aefeatures[onnx]'``.
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.
    ValueError
        If `part` is not one of the three parts, or is given for a pipeline. If the columns of X
        differ from those of `fit`, or their names cannot be names of inputs: an empty name, or
        "label" or "probabilities" for a classifier. If skl2onnx cannot convert the estimator, or
        onnxruntime cannot open the model.
    OSError
        If the file cannot be written.

    Notes
    -----
    ONNX has no missing text. If an encoder has seen missing text in `fit`, each of the texts "",
    "nan", "NaN", "None" and "<NA>" stands for it in the model, unless the text is itself a
    category.

    Inputs of a table are text for categories of texts, and numbers otherwise. A date is a double in
    seconds since 1970 (UTC), a duration a double in seconds. Without X, columns that were float32
    or boolean are float inputs, other numbers are double inputs, and categories of integers are
    int64 inputs. NaN is a missing number. Any text or number that is not a level of a category is a
    missing one, such as "" or -1. A transformer of a table has to be the first step of a pipeline.
    The output "reconstruction" is a matrix with the columns of `encode_table`.

    The model of a detector compares all rows with all landmarks at once: 1,000 rows take 16 MB with
    2,000 landmarks, so give it many rows in parts. Of landmarks that are equally near but for
    rounding, it may take others than `score_samples`.

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
    if part not in _NAMES_OF_PARTS and part not in _NAMES_OF_DEPRECATED_PARTS:
        raise ValueError(
            f"part must be one of {', '.join(map(repr, _NAMES_OF_PARTS))}, got {part!r}."
        )
    estimator = unwrap(estimator)
    check_is_fitted(estimator)
    if isinstance(estimator, AutoencoderTransformer):
        if part in _NAMES_OF_DEPRECATED_PARTS:
            warn(
                f"part={part!r} is deprecated and will raise an error in a later version. Use "
                "part='autoencoder', whose model has the outputs 'codes' and 'reconstruction'.",
                FutureWarning,
            )
        rows = None if X is None else check_rows(estimator, X, reset=False)
        if table_of(estimator) is None or part == "decoder":
            dtype = np.dtype(np.float32 if rows is None else rows.dtype)
            model = _export(estimator, part, dtype)
        else:
            model = _export_of_columns(estimator, part, X)
    elif part != "encoder":
        raise ValueError(
            f"part={part!r} needs an AutoencoderTransformer, got a {type(estimator).__name__}. "
            "Pass the transformer, or part='encoder' for the whole estimator."
        )
    else:
        model = _convert_whole(estimator, X)
    properties = {
        "estimator": type(estimator).__name__,
        "part": part,
        "aefeatures": __version__,
        "scikit-learn": sklearn.__version__,
        "torch": torch.__version__,
    }
    (first, *_) = flat_steps(estimator) or [estimator]
    if hasattr(first, "feature_names_in_"):
        properties["feature_names"] = json.dumps(list(first.feature_names_in_))
    onnx.helper.set_model_props(model, properties)
    model.ir_version = _IR_VERSION
    content = model.SerializeToString()
    _check_opens(content)
    write_atomically(path, [content], "ONNX model")


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"ONNX models need {name}: pip install 'aefeatures[onnx]'.") from error


def _check_opens(content: bytes) -> None:
    """Raise an error if onnxruntime is installed and cannot open the model."""
    try:
        onnxruntime = importlib.import_module("onnxruntime")
    except ImportError:
        return
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal errors only, so that nothing is printed
    options.intra_op_num_threads = 1
    try:
        onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the classes of onnxruntime's errors are not public
        raise ValueError(
            f"No file was written, because onnxruntime cannot open the model: {error}"
        ) from error


def _convert_whole(estimator: Any, X: Any) -> Any:
    """Return a pipeline, or another estimator that skl2onnx converts, as an ONNX model."""
    from sklearn.compose import ColumnTransformer

    skl2onnx = _import("skl2onnx")
    register_onnx_converters()
    pipeline = _prediction_pipeline(estimator)
    names, types = _input_names_and_types(pipeline, X)
    last = _with_int64_classes(pipeline.steps[-1][1])
    pipeline.steps[-1] = ("last", last)
    with _exporting, warnings.catch_warnings():
        # skl2onnx 1.20 reads attributes of SVC that scikit-learn 1.9 deprecates.
        warnings.filterwarnings("ignore", "Attribute `prob[AB]_`", FutureWarning)
        try:
            model = skl2onnx.convert_sklearn(
                pipeline,
                f"ONNX({type(estimator).__name__})",
                [(str(name), kind) for name, kind in zip(names, types, strict=True)],
                options={id(last): {"zipmap": False} if _has_option(last, "zipmap") else {}},
                target_opset={"": _OPSET, "ai.onnx.ml": _OPSET_ML},
                custom_parsers={
                    Pipeline: _parse_pipeline,
                    ColumnTransformer: _parse_columns,
                    FeatureUnion: _parse_union,
                    AutoencoderTransformer: _parse_transformer,
                    AutoencoderOutlierDetector: _parse_detector,
                },
                custom_conversion_functions=dict.fromkeys(
                    (OneHotEncoder, OrdinalEncoder, TargetEncoder), _convert_categories
                ),
            )
        except Exception as error:  # skl2onnx raises many classes
            raise ValueError(
                "No file was written, because skl2onnx cannot convert this "
                f"{type(estimator).__name__} of "
                f"{', '.join(type(step).__name__ for _, step in pipeline.steps)}: "
                f"{str(error)[:500]}"
            ) from error
    _rename_inputs(model.graph, [str(name) for name in names])
    return model


def _input_names_and_types(pipeline: Pipeline, X: Any) -> tuple[list[Any], list[Any]]:
    """Return the names of a pipeline's inputs, and their types as skl2onnx has them."""
    n_columns = getattr(pipeline, "n_features_in_", None)
    table = _table_of(pipeline.steps[0][1])
    if table is not None:
        if X is not None:
            check_rows(_transformer_of(pipeline.steps[0][1]), X, reset=False)
        names = _names_of_inputs(pipeline, [column.name for column in table.columns])
        dtypes = _dtypes_of_inputs(table, X)
        columns = {
            name: np.full((1, 1), "" if dtype.kind == "O" else 0, dtype)
            for name, dtype in zip(names, dtypes, strict=True)
        }
    elif hasattr(X, "columns") and hasattr(X, "dtypes"):
        names = _names_of_inputs(pipeline, list(X.columns))
        columns = {name: _column_values(X[name])[:, None] for name in names}
    else:
        if X is None:
            if n_columns is None:
                raise ValueError("The number of columns is not known. Pass some rows as X.")
            X = np.zeros((1, n_columns), np.float32)
        X = X[:1].toarray() if sparse.issparse(X) else np.asarray(X[:1])
        if X.ndim != 2 or n_columns not in (None, X.shape[1]):
            raise ValueError(
                f"X has {X.shape[-1]} features, but Pipeline is expecting {n_columns} features as "
                "input."
            )
        names, columns = ["X"], {"X": X}
    types = []
    for name, values in columns.items():
        try:
            kind = _tensor_type(values)
        except NotImplementedError as error:
            raise ValueError(
                f"The values of {name!r} are {values.dtype}, which ONNX does not support. Convert "
                "them to numbers or text before fit, and in X."
            ) from error
        kind.shape = [None, *values.shape[1:]]
        types.append(kind)
    return names, types


def _names_of_inputs(pipeline: Any, given: list[Any]) -> list[Any]:
    """Return the columns of the fit in order, or those of X if the fit had no names."""
    n_columns = getattr(pipeline, "n_features_in_", len(given))
    names = list(getattr(pipeline, "feature_names_in_", given))
    missing = [name for name in names if name not in given]
    if missing or len(names) != n_columns:
        raise ValueError(
            f"X must have the {n_columns} columns of fit, got {len(given)}"
            + (f" without {missing}." if missing else ".")
        )
    texts = [str(name) for name in names]
    if "" in texts or len(set(texts)) < len(texts):
        unusable = sorted({name for name in texts if not name or texts.count(name) > 1})
        raise ValueError(
            "The inputs of an ONNX model must have different names that are not empty. Rename "
            f"these columns before fit: {unusable}."
        )
    return names


def _tensor_type(values: np.ndarray) -> Any:
    return _import("skl2onnx.common.data_types").guess_data_type(values)[0][1]


def _rename_inputs(graph: Any, names: list[str]) -> None:
    """Give inputs the names of their columns again, which skl2onnx turned into identifiers."""
    outputs = [output.name for output in graph.output]
    # skl2onnx appends a number to the name of an output if another value has that name.
    unusable = {name for output in outputs for name in (output, output.rstrip("0123456789"))}
    if unusable & set(names):
        raise ValueError(
            f"No column may have the name of an output of the ONNX model, which are {outputs}. "
            f"Rename these columns before fit: {sorted(unusable & set(names))}."
        )
    renamed = {value.name: name for value, name in zip(graph.input, names, strict=True)}
    for value in _values_inside(graph) - set(renamed) - set(outputs):
        if value in names:
            renamed[value] = f"{value} inside"
            while renamed[value] in names:
                renamed[value] += "_"
    _rename(graph, renamed)


def _values_inside(graph: Any) -> set[str]:
    values = {initializer.name for initializer in graph.initializer}
    for node in graph.node:
        values.update(node.output)
        for attribute in node.attribute:
            values |= _values_inside(attribute.g)
    return values


def _rename(graph: Any, renamed: dict[str, str]) -> None:
    for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        value.name = renamed.get(value.name, value.name)
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
        for attribute in node.attribute:
            _rename(attribute.g, renamed)


def _prediction_pipeline(estimator: Any) -> Pipeline:
    """Return a pipeline of the steps that X passes in a prediction, unwrapped for skl2onnx."""
    steps = flat_steps(estimator) or [FunctionTransformer()]
    return Pipeline([(f"step {i}", step) for i, step in enumerate(steps)])


def _with_int64_classes(step: Any) -> Any:
    """Return a classifier whose integer classes are int64, the type of labels in ONNX."""
    classes: Any = getattr(step, "classes_", None)
    several = classes if isinstance(classes, list) else [classes]
    kinds = {getattr(each, "dtype", np.dtype(object)).kind for each in several}
    if not is_classifier(step) or not kinds <= {"i", "u"}:
        return step
    step = copy.copy(step)
    wide = [each.astype(np.int64) for each in several]
    step.classes_ = wide if isinstance(classes, list) else wide[0]
    return step


def _has_option(step: Any, option: str) -> bool:
    """Return whether skl2onnx has an option for a step."""
    aliases = _import("skl2onnx._supported_operators").sklearn_operator_name_map
    if type(step) not in aliases:
        return False
    converter = _import("skl2onnx.common._registration").get_converter(aliases[type(step)])
    return option in (converter.get_allowed_options() or ())


# Replacements for parsers of skl2onnx, which use the type of the first input for all inputs.


def _parse_pipeline(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:
    parse = _import("skl2onnx._parse")
    first = model.steps[0][1]
    apart = isinstance(first, (*parse.do_not_merge_columns, FeatureUnion))
    if len(inputs) > 1 and not apart and _table_of(first) is None:
        inputs = _join(scope, inputs)
    return parse._parse_sklearn_pipeline(scope, model, inputs, custom_parsers=custom_parsers)


def _parse_transformer(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:
    parse = _import("skl2onnx._parse")
    outputs = parse._parse_sklearn_simple_model(scope, model, inputs, custom_parsers=custom_parsers)
    _set_output_type(outputs[0].operators_outputs_[0])
    return outputs


def _parse_detector(
    scope: Any,
    model: Any,
    inputs: Any,
    custom_parsers: Any = None,  # noqa: ARG001
) -> Any:
    operator = scope.declare_local_operator(_DETECTOR, model)
    operator.inputs = list(inputs)
    for name, dtype in zip(_NAMES_OF_DETECTOR[1], (np.int64, np.float64), strict=True):
        kind = _tensor_type(np.empty((1, 1), dtype))
        kind.shape = [None]
        operator.outputs.append(scope.declare_local_variable(name, kind))
    return list(operator.outputs)


def _parse_columns(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:
    parse = _import("skl2onnx._parse")
    results = []
    for name, transformer, columns in model.transformers_:
        positions = columns_of(model, name)
        if transformer == "drop" or not len(positions):
            continue
        transformer, given = _prediction_pipeline(transformer), inputs
        if not isinstance(transformer.steps[0][1], parse.do_not_merge_columns):
            positions = positions if len(inputs) > 1 else [0]
            weighted = name in (model.transformer_weights or ())
            given = _cast_alike(scope, inputs, positions, weighted)
        part = copy.copy(model)
        part.transformers_ = [(name, transformer, columns)]
        results += parse._parse_sklearn_column_transformer(
            scope, part, given, custom_parsers=custom_parsers
        )
    return _join(scope, results)


def _parse_union(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:
    parse = _import("skl2onnx._parse")
    union = copy.copy(model)
    union.transformer_list = [
        (name, _prediction_pipeline(make_pipeline(each)))
        for name, each in model.transformer_list
        if each != "drop"
    ]
    if model.transformer_weights:
        inputs = _cast_alike(scope, inputs, weighted=True)
    outputs = parse._parse_sklearn_feature_union(
        scope, union, inputs, custom_parsers=custom_parsers
    )
    parts = outputs[0].operators_outputs_[0].inputs
    outputs[0].type = _tensor_type(np.empty((1, 1), np.result_type(*map(_dtype_of, parts))))
    outputs[0].type.shape = [None, None]
    return outputs


def _join(scope: Any, variables: list[Any]) -> list[Any]:
    """Concatenate variables. Numbers get the type that can hold all of them."""
    if len(variables) < 2:
        return variables
    variables = _cast_alike(scope, variables)
    operator = scope.declare_local_operator("SklearnConcat")
    operator.inputs = variables
    kind = type(variables[0].type)([None, None])
    operator.outputs.append(scope.declare_local_variable("joined", kind))
    return list(operator.outputs)


def _cast_alike(
    scope: Any, variables: list[Any], positions: Any = None, weighted: bool = False
) -> list[Any]:
    """Cast the variables at `positions` to the type that can hold all of them, if all are numbers.

    `weighted` variables become floating, because skl2onnx rounds the weights of integers.
    """
    positions = range(len(variables)) if positions is None else positions
    dtypes = {i: _dtype_of(variables[i]) for i in positions}
    if not dtypes or not all(dtype.kind in "biuf" for dtype in dtypes.values()):
        return list(variables)
    common = np.result_type(*dtypes.values(), *[np.float32] * weighted)
    cast = list(variables)
    for i, dtype in dtypes.items():
        if dtype == common:
            continue
        operator = scope.declare_local_operator("SklearnCast")
        operator.inputs = [variables[i]]
        kind = _tensor_type(np.empty((1, 1), common))
        kind.shape = variables[i].type.shape
        # The parser of ColumnTransformer finds the variable by this name.
        cast[i] = scope.declare_local_variable(variables[i].raw_name, kind)
        operator.outputs.append(cast[i])
    return cast


# Texts that stand for a missing text, which ONNX does not have. onnxruntime turns missing values of
# Python into "None", "nan" and "<NA>". Other languages send the empty text or "NaN".
_MISSING_TEXTS = ("", "nan", "NaN", "None", "<NA>")


def _convert_categories(scope: Any, operator: Any, container: Any) -> None:
    """Convert an encoder; `_MISSING_TEXTS` are missing values if `fit` has seen missing text."""
    onnx = _import("onnx")
    encoder, start = operator.raw_operator, len(container.nodes)
    if any(each.dtype.kind == "f" and np.isnan(each).any() for each in encoder.categories_):
        raise ValueError(
            f"{encoder!r} has a category for missing numbers, which onnxruntime cannot look up. "
            "Fill in missing values before fit."
        )
    _import("skl2onnx.common._registration").get_converter(operator.type)(
        scope, operator, container
    )
    kinds = ("OneHotEncoder", "LabelEncoder")
    encoders = [node for node in container.nodes[start:] if node.op_type in kinds]
    known = [categories for categories in encoder.categories_ if len(categories)]
    if isinstance(encoder, OrdinalEncoder) and np.isnan(encoder.encoded_missing_value):
        missing = [[each != each for each in categories] for categories in known]
        if any(map(any, missing)):
            for node, is_missing in zip(encoders, missing, strict=True):
                _encode_as_nan(node, is_missing)
    for node, categories in zip(encoders, known, strict=True):
        attributes = {each.name: each for each in node.attribute}
        texts = attributes.get("cats_strings", attributes.get("keys_strings"))
        absent = [str(each) for each in categories if each is None or each != each]
        if texts is None or not absent:
            continue
        if len(absent) > 1 or absent[0] in [each for each in categories if each is not None]:
            raise ValueError(
                f"{absent[0]!r} stands for more than one category of {encoder!r}, "
                "because ONNX has no missing text. Fill in missing values before fit."
            )
        index_of: dict[str, int] = {}
        for i, text in enumerate(texts.strings):
            # skl2onnx may repeat NaN among the infrequent categories.
            index_of.setdefault(text.decode(), i)
        added = [text for text in _MISSING_TEXTS if text not in index_of]
        index_of.update(dict.fromkeys(added, index_of[absent[0]]))
        if node.op_type == "LabelEncoder":
            texts.strings.extend(text.encode() for text in added)
            for numbers in (attributes.get("values_int64s"), attributes.get("values_floats")):
                if numbers is not None:
                    values = numbers.ints or numbers.floats
                    values.extend([values[index_of[absent[0]]]] * len(added))
            continue
        # A one-hot encoder takes one text for a category: replace the texts by numbers first.
        number = scope.get_unique_variable_name("category")
        container.add_node(
            "LabelEncoder",
            [node.input[0]],
            [number],
            op_domain="ai.onnx.ml",
            op_version=2,
            name=scope.get_unique_operator_name("LabelEncoder"),
            keys_strings=list(index_of),
            values_int64s=list(index_of.values()),
            default_int64=-1,
        )
        node.input[0] = number
        numbers = list(range(len(texts.strings)))
        node.attribute.remove(texts)
        node.attribute.append(onnx.helper.make_attribute("cats_int64s", numbers))


def _encode_as_nan(node: Any, missing: list[bool]) -> None:
    """Make the numbers of an ordinal encoder's node floating, and NaN for `missing` categories."""
    onnx = _import("onnx")
    attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    numbers = attributes.pop("values_int64s", None) or attributes.pop("values_floats")
    attributes["values_floats"] = [
        np.nan if absent else float(number) for number, absent in zip(numbers, missing, strict=True)
    ]
    default = attributes.pop("default_int64", -1)
    attributes.setdefault("default_float", float(default))
    del node.attribute[:]
    node.attribute.extend(onnx.helper.make_attribute(*each) for each in attributes.items())


def _column_values(column: Any) -> np.ndarray:
    """Return the values of a column; numbers stay numbers, even nullable ones of pandas 2."""
    values: np.ndarray = np.asarray(column)
    dtype = getattr(column.dtype, "numpy_dtype", values.dtype)
    if values.dtype == object and dtype.kind in "biuf":
        dtype = np.dtype(float) if dtype.kind != "f" and column.isna().any() else dtype
        values = column.to_numpy(dtype, na_value=np.nan)
    return values


def _dtype_of(variable: Any) -> np.dtype:
    """Return the dtype of a variable of skl2onnx, object for text."""
    elem_type = variable.type.to_onnx_type().tensor_type.elem_type
    dtype: np.dtype = _import("onnx.helper").tensor_dtype_to_np_dtype(elem_type)
    return dtype


def _set_output_type(operator: Any) -> None:
    if isinstance(operator.raw_operator, AutoencoderOutlierDetector):
        return  # its parser has set them
    table = _table_of(operator.raw_operator)
    if table is None:
        # skl2onnx expects float64 from a step whose first input is float64, otherwise float32.
        kind = _import("skl2onnx.common.data_types").guess_tensor_type(operator.inputs[0].type)
    else:
        dtypes = [_dtype_of(variable) for variable in operator.inputs]
        kind = _tensor_type(np.empty((1, 1), _dtype_of_matrix(table, dtypes)))
    kind.shape = [
        operator.inputs[0].get_first_dimension(),
        fitted_model(operator.raw_operator).n_components,
    ]
    operator.outputs[0].type = kind


def _convert(scope: Any, operator: Any, container: Any) -> None:
    """Add the graph of an encoder or a detector to the graph of a pipeline."""
    onnx = _import("onnx")
    if container.target_opset < _OPSET:
        raise ValueError(
            f"{type(operator.raw_operator).__name__} needs a target_opset of at least {_OPSET}, "
            f"got {container.target_opset}."
        )
    # The inputs are one matrix or many columns.
    dtypes = [_dtype_of(variable) for variable in operator.inputs]
    table = _table_of(operator.raw_operator)
    dtype = np.result_type(*dtypes) if table is None else _dtype_of_matrix(table, dtypes)
    # No name that skl2onnx makes contains "/".
    prefix = scope.get_unique_operator_name("autoencoder") + "/"
    graph = _export(operator.raw_operator, "encoder", dtype, prefix).graph

    names = [variable.full_name for variable in operator.inputs]
    container.nodes.extend(_nodes_of_columns(names, dtypes, table, dtype, graph.input[0].name))
    if table is not None:
        container.node_domain_version_pair_sets.add(("ai.onnx.ml", _OPSET_ML))
    container.nodes.extend(graph.node)
    container.initializers.extend(graph.initializer)
    for inside, outside in zip(graph.output, operator.outputs, strict=True):
        elem_type = outside.type.to_onnx_type().tensor_type.elem_type
        ends = [inside.name], [outside.full_name]
        name = scope.get_unique_operator_name("Cast")
        container.nodes.append(onnx.helper.make_node("Cast", *ends, name, to=elem_type))
    container.node_domain_version_pair_sets.add(("", _OPSET))


# Tables, whose columns are inputs of their own.


def _table_of(step: Any) -> Table | None:
    """Return the table that a step was fitted on; None for other steps and for numbers."""
    transformer = _transformer_of(step)
    return None if transformer is None else table_of(transformer)


def _transformer_of(step: Any) -> AutoencoderTransformer | None:
    if isinstance(step, AutoencoderOutlierDetector):
        return step.autoencoder_
    return step if isinstance(step, AutoencoderTransformer) else None


def _dtypes_of_inputs(table: Table, X: Any) -> list[np.dtype]:
    """Return the types of the inputs: those of X's columns of numbers, otherwise those of `fit`."""
    dtypes = [_dtype_of_input(column, table.library) for column in table.columns]
    if X is None:
        return dtypes
    given = [X[name] for name in X.columns] if is_frame(X) else [*np.asarray(X).T]
    for i, (column, values) in enumerate(zip(table.columns, given, strict=True)):
        dtype = _column_values(values).dtype
        if dtypes[i].kind != "O" and column.kind not in ("date", "duration"):
            dtypes[i] = dtype if dtype.kind in "biu" or dtype.char in "fd" else dtypes[i]
    return dtypes


def _dtype_of_input(column: Column, library: str) -> np.dtype:
    """Return the type of a column's input by its type in `fit`; object stands for text."""
    if column.levels is None:
        if column.dtype in ("float32", "bool") and library != "polars":
            return np.dtype(np.float32)
        return np.dtype(np.float64)
    kinds = {np.asarray(level).dtype.kind for level in column.levels.all} or {"U"}
    if not (kinds == {"U"} or kinds <= set("biuf")):
        level = column.levels.all[0]
        raise ValueError(
            f"Column {column.name!r} has levels such as {level!r} ({type(level).__name__}), which "
            "cannot be inputs of an ONNX model. Convert them to text or numbers before fit."
        )
    if kinds == {"U"}:
        return np.dtype(object)
    return np.dtype(np.float64 if "f" in kinds else bool if kinds == {"b"} else np.int64)


def _dtype_of_matrix(table: Table, dtypes: list[np.dtype]) -> np.dtype:
    """Return the type of a table as a matrix, for inputs of types, as of `Table.numbers`."""
    if len(dtypes) != len(table.columns):
        raise ValueError(
            "an estimator that was fitted on a table with categories, dates or durations has to be "
            "the first step"
        )
    numbers = [
        dtype if dtype.kind == "f" else np.float32 if dtype.itemsize <= 2 else np.float64
        for dtype, column in zip(dtypes, table.columns, strict=True)
        if column.levels is None
    ]
    return np.result_type(np.float32, *numbers)


def _nodes_of_columns(
    names: list[str], dtypes: list[np.dtype], table: Table | None, dtype: np.dtype, output: str
) -> list[Any]:
    """Return nodes that join inputs as a matrix of `dtype`, in which levels are numbers."""
    helper = _import("onnx.helper")
    nodes: list[Any] = []
    joined = []

    def add(kind: str, source: str, target: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, [source], [target], target, **attributes))
        return target

    def cast(source: str, given: np.dtype, wanted: np.dtype, target: str) -> str:
        if given == wanted:
            return source
        return add("Cast", source, target, to=helper.np_dtype_to_tensor_dtype(wanted))

    for i, (source, given) in enumerate(zip(names, dtypes, strict=True)):
        value = f"{output}/column_{i}"
        levels = None if table is None else table.columns[i].levels
        if levels is not None:
            looked_up, keys = _keys_of(levels, given)
            source = cast(source, given, looked_up, f"{value}_level")
            source = add("LabelEncoder", source, f"{value}_code", domain="ai.onnx.ml", **keys)
            given = np.dtype(np.float32)
        joined.append(cast(source, given, dtype, value))
    nodes.append(helper.make_node("Concat", joined, [output], f"{output}/joined", axis=1))
    return nodes


def _keys_of(levels: Levels, given: np.dtype) -> tuple[np.dtype, dict[str, Any]]:
    """Return the type in which levels are looked up, and the attributes of the look-up."""
    # Any other value is missing.
    numbers = {
        "values_floats": [*map(float, levels.codes)] or [np.nan],
        "default_float": np.nan,
    }
    if given.kind == "O":
        return given, {"keys_strings": levels.all or [""], **numbers}
    if given.kind == "f":
        return np.dtype(np.float32), {"keys_floats": [*map(float, levels.all)], **numbers}
    return np.dtype(np.int64), {"keys_int64s": [*map(int, levels.all)], **numbers}


def _export_of_columns(transformer: AutoencoderTransformer, part: str, X: Any) -> Any:
    """Return the ONNX model of a transformer of a table, with one input for each column."""
    onnx = _import("onnx")
    table = _table_of(transformer)
    assert table is not None
    names = _names_of_inputs(transformer, [column.name for column in table.columns])
    dtypes = _dtypes_of_inputs(table, X)
    dtype = _dtype_of_matrix(table, dtypes)
    model = _export(transformer, part, dtype)
    graph = model.graph
    (matrix,) = graph.input
    inputs = [f"{matrix.name}/input_{i}" for i in range(len(names))]
    nodes = [*_nodes_of_columns(inputs, dtypes, table, dtype, matrix.name), *graph.node]
    size = matrix.type.tensor_type.shape.dim[0].dim_param
    del graph.input[:], graph.node[:]
    graph.node.extend(nodes)
    graph.input.extend(
        onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(each), [size, 1]
        )
        for name, each in zip(inputs, dtypes, strict=True)
    )
    model.opset_import.append(onnx.helper.make_opsetid("ai.onnx.ml", _OPSET_ML))
    _rename_inputs(graph, [str(name) for name in names])
    return model


def _export(
    estimator: AutoencoderTransformer | AutoencoderOutlierDetector,
    part: str,
    dtype: np.dtype,
    prefix: str = "",
) -> Any:
    """Return the ONNX model of a part of a transformer, or of a detector, for X of `dtype`.

    For a decoder, that is the dtype of codes. All names in the model begin with `prefix`.
    """
    onnx = _import("onnx")
    is_detector = isinstance(estimator, AutoencoderOutlierDetector)
    if isinstance(estimator, AutoencoderOutlierDetector):
        transformer = estimator.autoencoder_
        scores = ScoreModule(estimator)
        module: nn.Module = scores
        network: nn.Module = scores.rows
        source, results = _NAMES_OF_DETECTOR
    else:
        transformer = estimator
        named = cast("Any", "autoencoder" if part == "reconstruct" else part)
        module = network = transformer.to_module(named)
        source, results = {**_NAMES_OF_PARTS, **_NAMES_OF_DEPRECATED_PARTS}[part]
    dtype_of_results = dtype_of_network = work_dtype(dtype, torch.device("cpu"))
    model_of_rows = fitted_model(transformer)
    if not model_of_rows.is_as_built:  # a network of the user's own keeps its precision
        dtype_of_network = PRECISIONS[transformer.precision]
    for name, child in network.named_children():
        if name != "scaling":  # it chooses its precision itself
            child.to(dtype_of_network)
    if part == "reconstruct":
        module = _SecondOutput(module)
    if dtype_of_network != dtype_of_results and not is_detector:
        module = _Cast(module, dtype_of_results)
    n_columns = transformer.n_features_in_
    if part == "decoder":
        n_columns = model_of_rows.n_components
    with _exporting, unaffected(model_of_rows.seed, model_of_rows.network):
        rows = torch.from_numpy(np.zeros((2, n_columns), dtype))
        model = _exported(module, rows, source, results)
    _remove_notes(model)
    if prefix:
        model = onnx.compose.add_prefix(model, prefix)
    wide = dtype_of_network == torch.float64
    if not is_detector and table_of(transformer) is None:
        elem_type = onnx.TensorProto.DOUBLE if wide else onnx.TensorProto.FLOAT
        _fill_only_where_missing(model.graph, elem_type)
    if wide:
        _compute_in_float32(model.graph)
    return model


def _exported(module: nn.Module, rows: torch.Tensor, source: str, results: list[str]) -> Any:
    """Return what PyTorch's exporter makes of a module, which takes any number of rows."""
    onnx = _import("onnx")
    settings: dict[str, Any] = {
        "input_names": [source],
        "output_names": results,
        "opset_version": _OPSET,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if "dynamic_shapes" in signature(torch.onnx.export).parameters:
            settings["dynamic_shapes"] = ({0: torch.export.Dim("n")},)
            program: Any = torch.onnx.export(
                module, (rows,), dynamo=True, verbose=False, **settings
            )
            return program.model_proto
        # The exporter of older PyTorch, which needs no onnxscript.
        file: Any = BytesIO()
        settings["dynamic_axes"] = {name: {0: "n"} for name in (source, *results)}
        torch.onnx.export(module, (rows,), file, **settings)
        return onnx.load_from_string(file.getvalue())


class _SecondOutput(nn.Module):
    """Module that returns the second output of another module."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        return self.module(X)[1]


class _Cast(nn.Module):
    """Module that returns the outputs of another module in another precision."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module = module
        self.dtype = dtype

    def forward(self, X: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        results = self.module(X)
        if isinstance(results, tuple):  # from an autoencoder
            return tuple(result.to(self.dtype) for result in results)
        return results.to(self.dtype)


def _remove_notes(model: Any) -> None:
    """Remove the exporter's notes about the modules, which contain paths of files."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("doc_string")
        if hasattr(part, "metadata_props"):
            part.ClearField("metadata_props")
    graph.ClearField("value_info")


def _fill_only_where_missing(graph: Any, elem_type: int) -> None:
    """Skip the filling of missing values if there are none.

    Filling takes a third of the time of a default encoder.
    """
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
    replacement = [
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
    index = next(i for i, node in enumerate(nodes) if filled in node.input)
    del graph.node[:]
    graph.node.extend([*nodes[:index], *replacement, *nodes[index:]])


def _compute_in_float32(graph: Any) -> None:
    """Cast to float32 and back around the operations that onnxruntime lacks in float64."""
    onnx = _import("onnx")
    single, double = onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE

    def cast_node(source: str, target: str, to: int) -> Any:
        return onnx.helper.make_node("Cast", [source], [target], f"cast_{target}", to=to)

    nodes = []
    for node in graph.node:
        before, after = [], []
        if node.op_type in _ONLY_IN_FLOAT32:
            wide_inputs, wide_outputs = list(node.input), list(node.output)
            if node.op_type == "Resize":  # the types of its factors and sizes are fixed
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
