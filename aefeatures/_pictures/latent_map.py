"""The latent map: a page to explore a fitted autoencoder in a browser."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
import re
import zlib
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn import config_context
from sklearn.utils import check_consistent_length, resample
from torch import nn

from aefeatures._autoencoder import AutoencoderTransformer, fitted_model
from aefeatures._bridges.pipelines import find_steps, names_out
from aefeatures._files import write_atomically
from aefeatures._meaning import importances, sensitivities_per_deviation
from aefeatures._nets.networks import ACTIVATIONS, BatchNorm, ConvNetwork, resolve_image_shape
from aefeatures._pictures.targets import Target
from aefeatures._rows.checks import as_numpy, check_rows, take_samples
from aefeatures._rows.columns import zone_in_name
from aefeatures._rows.sources import ArraySource, evenly_spaced
from aefeatures._rows.table_scaling import AnyScaling, TableScaling
from aefeatures._rows.tables import Table, table_of
from aefeatures._warnings import takes_old_arguments, warn

# Ten colours times four symbols can be told apart. If there are more classes, the rarest share one
# entry.
_MOST_CLASSES = 40

# Up to this many codes have a slider each. With more codes, three sliders go along the plotted
# directions.
_MOST_SLIDERS = 16

# Largest number of values in the grid of decoded codes, for decoders that the page cannot compute.
_GRID_ELEMENTS = 5_000_000

# Tables of more values than this are rounded to 65,535 steps per column.
_EXACT_ELEMENTS = 500_000

# Rows that sensitivities and explained variance are measured on. More would take longer and hardly
# change a mean.
_ROWS_OF_MEANING = 1000

_LARGE_PAGE_BYTES = 50_000_000


@takes_old_arguments(positional=("image_shape", "feature_names", "max_points"))
def write_latent_map(
    estimator: Any,
    X: Any,
    y: Any = None,
    path: str | os.PathLike[str] = "latent_map.html",
    *,
    image_shape: Sequence[int] | None = None,
    feature_names: Sequence[Any] | None = None,
    max_points: int = 5000,
    title: str | None = None,
    target_name: str | None = None,
) -> Path:
    """Write an interactive page that shows and decodes the codes of X.

    The page is a single HTML file that opens in any browser and loads nothing from the network. It
    shows:

    - the codes in three dimensions, or in one or two if there are fewer codes;
    - the row under the pointer, its reconstruction and its reconstruction error;
    - the decoded path between two rows that were clicked on;
    - the decoded row of a code that is set by sliders;
    - for up to 16 codes, what each of them depends on and explains: the columns with the largest
      `code_sensitivity`, or a picture of it, and the drop of R2 of `code_importance`.

    Categories are shown as their levels, and dates and durations as such, even in decoded rows. A
    decoded category is its likeliest level, and reconstructed levels that differ from the row's are
    marked. Points are coloured by y, by their reconstruction error or by a column of a table, as
    chosen in the page. The file contains the rows that it shows: anybody who gets the page gets
    these rows.

    Parameters
    ----------
    estimator : AutoencoderTransformer, Pipeline, search or FrozenEstimator
        Fitted estimator. In a pipeline the steps before the autoencoder transform X, and the page
        shows rows as the autoencoder gets them. The steps after it are not used.
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        Input of `estimator`. Missing values (NaN) are shown as missing. The index of a pandas
        frame is shown beside each row, unless it numbers the rows from 0.
    y : array-like of shape (n_samples,), default=None
        Values that the points are coloured by. Categories, names, booleans and at most 20 different
        whole numbers are classes that can be switched on and off. Other numbers, dates and
        durations have a colour scale. If there are more than 40 classes, the rarest share one
        entry.
    path : str or path-like, default="latent_map.html"
        File to write. An existing file is replaced.
    image_shape : tuple of int, default=None
        (channels, height, width) of pictures with 1 or 3 channels, or (height, width) of grey
        pictures, as which rows are shown. If None, rows are shown as values by name, or as pictures
        of the network's shape if the network is a `ConvNetwork`.
    feature_names : array-like of str of shape (n_features,), default=None
        Names of the columns that the autoencoder gets. If None, they are taken from X, the
        estimator or the steps before it. Columns without names are numbered.
    max_points : int, default=5000
        Largest number of rows to show. If X has more rows, a random sample is shown, which is the
        same at every call and has each class with its share. A larger number makes the page larger.
    title : str, default=None
        Title of the page, by default "Latent map".
    target_name : str, default=None
        Name of y in the page. By default the name of y if it is a series, and otherwise "class" or
        "y".

    Returns
    -------
    path : pathlib.Path
        Path of the file.

    Raises
    ------
    NotFittedError
        If the estimator is not fitted.
    TypeError
        If `estimator` has no `AutoencoderTransformer`.
    ValueError
        If y, `image_shape` or `feature_names` do not fit X, if `max_points` is below 1, or if the
        folder of `path` does not exist.
    ImportError
        If plotly is not installed.

    Warns
    -----
    UserWarning
        If the page is larger than 50 MB, which browsers open slowly.

    Notes
    -----
    More than three codes are plotted by their first three principal components. Up to 16 codes have
    a slider each. With more codes, three sliders go along the plotted directions, and the other
    directions stay at their mean.

    A decoder that consists of linear layers, normalizations and the activations known to
    `AutoencoderTransformer` is computed exactly in the page. For any other decoder, such as that of
    a `ConvNetwork`, the page contains a grid of decoded codes along the plotted directions and
    interpolates between them. It then has sliders along these directions only.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from sklearn.datasets import load_digits
    >>> from aefeatures import AutoencoderTransformer, write_latent_map
    >>> X, y = load_digits(return_X_y=True)
    >>> transformer = AutoencoderTransformer(max_epochs=2, random_state=0).fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "digits.html"
    ...     page = write_latent_map(transformer, X, y, path, image_shape=(8, 8))
    ...     page.name, page.stat().st_size > 1_000_000
    ('digits.html', True)
    """
    path = page_path(path)
    if max_points < 1:
        raise ValueError(f"max_points must be at least 1, got {max_points}.")
    transformer, before = find_steps(estimator)
    plotly_js = _load_plotly_js()
    n_rows = X.shape[0] if hasattr(X, "shape") else len(X)
    target = None
    if y is not None:
        check_consistent_length(X, y)
        target = Target(y, most_classes=_MOST_CLASSES, name=target_name)
    index = sample_rows(n_rows, target, max_points)
    shown = take_samples(X, index)
    names = getattr(X, "columns", None) if not before else None
    for i, step in enumerate(before):
        shown = step.transform(shown)
        names = getattr(shown, "columns", None)
        if names is None and i == len(before) - 1:
            names = names_out(before)
    shape = resolve_shape(image_shape, transformer)
    shown = as_numpy(shown)
    loss = fitted_model(transformer).loss
    with config_context(array_api_dispatch=False):  # the page is made from NumPy arrays
        contents = {
            "n_rows": n_rows,
            "title": "Latent map" if title is None else str(title),
            "rows": _pack(index.astype(np.int32)),
            "index": describe_index(X, index),
            "target": None if target is None else _describe_target(target, index),
            "image_shape": shape,
            "feature_names": _resolve_names(feature_names, names, transformer),
            "loss": loss if isinstance(loss, str) else "loss",
            "errors": _pack(-transformer.score_samples(shown).astype(np.float32)),
            **_describe_codes(transformer, shown, is_image=shape is not None),
            "meaning": _describe_meaning(transformer, shown),
        }
    page = _fill_template(contents, plotly_js).encode()
    if len(page) > _LARGE_PAGE_BYTES:
        warn(
            f"The page is {len(page) / 1e6:.0f} MB large. Lower max_points (now {max_points}) for "
            "a page that opens faster."
        )
    write_atomically(path, [page], "page")
    return path


def page_path(path: str | os.PathLike[str]) -> Path:
    """Return the path of a page to write, whose folder has to exist."""
    path = Path(path)
    if not path.parent.is_dir():
        raise ValueError(
            f"The folder of path={str(path)!r} does not exist. Create it first, or change path."
        )
    return path


def _load_plotly_js() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise ImportError(
            "write_latent_map needs plotly. Install it with pip install 'aefeatures[map]'."
        ) from error
    return get_plotlyjs()


def describe_index(X: Any, rows: np.ndarray) -> dict[str, Any] | None:
    """Return the index labels of a frame's rows, or None if they just number the rows."""
    index: Any = getattr(X, "index", None)
    if not hasattr(index, "names") or np.array_equal(index, np.arange(len(index))):
        return None
    labels = index[rows]
    if index.nlevels > 1:
        labels = [", ".join(map(str, label)) for label in labels]
    else:
        labels = map(str, labels.astype(str))  # astype writes dates without a time of midnight
    name = ", ".join(str(name) for name in index.names if name is not None)
    return {"name": name or "index", "labels": list(labels)}


def _describe_target(target: Target, rows: np.ndarray) -> dict[str, Any]:
    dtype = np.float64 if target.classes is None else np.int32
    return {
        "name": target.name or ("y" if target.classes is None else "class"),
        "classes": target.classes,
        "n_named": target.n_named,
        "is_date": target.is_date,
        "values": _pack(target.numbers[rows].astype(dtype)),
    }


def sample_rows(n_rows: int, target: Target | None, max_points: int) -> np.ndarray:
    """Return the positions of the rows to show, in increasing order."""
    index = np.arange(n_rows)
    if n_rows <= max_points:
        return index
    stratify = None if target is None or target.classes is None else target.numbers
    drawn = resample(index, replace=False, n_samples=max_points, random_state=0, stratify=stratify)
    return np.sort(drawn)


def _resolve_names(given: Any, found: Any, transformer: AutoencoderTransformer) -> list[str]:
    n_features = transformer.n_features_in_
    if given is not None:
        if len(given) != n_features:
            raise ValueError(
                f"feature_names has {len(given)} names, but the autoencoder sees {n_features} "
                "columns. Pass a name for each column."
            )
        found = given
    if found is None:
        found = getattr(transformer, "feature_names_in_", None)
    if found is None:
        found = [f"column {i}" for i in range(n_features)]
    return [str(name) for name in found]


def resolve_shape(
    image_shape: Sequence[int] | None, transformer: AutoencoderTransformer
) -> tuple[int, int, int] | None:
    n_features = transformer.n_features_in_
    if table_of(transformer) is not None:
        if image_shape is not None:
            raise ValueError(
                "image_shape needs rows of numbers, but the autoencoder was fitted on a table with "
                "categories or dates. Leave image_shape at None."
            )
        return None
    if image_shape is None:
        if not isinstance(transformer.network, ConvNetwork):
            return None
        shape = resolve_image_shape(transformer.network.image_shape, n_features)
        return shape if shape[0] in (1, 3) else None
    shape = resolve_image_shape(image_shape, n_features)
    if shape[0] not in (1, 3):
        raise ValueError(
            f"image_shape={tuple(image_shape)} has {shape[0]} channels, but pictures need 1 (grey) "
            "or 3 (red, green, blue)."
        )
    return shape


def _describe_codes(
    transformer: AutoencoderTransformer, X: Any, *, is_image: bool
) -> dict[str, Any]:
    """Return rows, codes, the points to plot, and the decoder or a grid of decoded codes."""
    table = table_of(transformer)
    values = check_rows(transformer, X, reset=False).dense().astype(np.float64)
    columns = None if table is None else _describe_columns(table, X, values)
    limits = _extent(values) if is_image else None  # shown as black and white
    exact = table is not None  # neither a level nor a date can be rounded
    model = fitted_model(transformer)
    codes = np.asarray(transformer.transform(X), np.float32)
    n_components = codes.shape[1]
    mean, directions = np.zeros(n_components), np.eye(n_components)
    if n_components > 3:
        mean = codes.mean(axis=0, dtype=np.float64)
        directions = _principal_directions(codes - mean)
    points = (codes - mean) @ directions.T
    layers = _page_layers(model.decoder, model.scaling)
    sliders_are_codes = n_components <= (_MOST_SLIDERS if layers else 3)
    contents: dict[str, Any] = {
        "n_components": n_components,
        "values": _pack_rows(values, limits, exact=exact),
        "columns": columns,
        "codes": _pack(codes),
        "points": _pack(points.astype(np.float32)),
        "mean": mean.tolist(),
        "directions": directions.tolist(),
        "sliders_are_codes": sliders_are_codes,
        "layers": layers,
    }
    if layers is None:
        nodes = _grid_nodes(points, len(model.fill.values))
        places = np.stack(np.meshgrid(*nodes, indexing="ij"), axis=-1).reshape(-1, len(nodes))
        at_nodes = (mean + places @ directions).astype(np.float32)
        # Probabilities can be interpolated, but levels cannot.
        decode = model.decode if table is None else model.decode_probabilities
        reconstructed = model.reconstruct(
            check_rows(transformer, X, reset=False), transformer.device_
        )
        contents["nodes"] = [axis.tolist() for axis in nodes]
        contents["grid"] = _pack_rows(decode(at_nodes, transformer.device_), limits)
        contents["reconstructions"] = _pack_rows(reconstructed, limits, exact=exact)
    return contents


def _describe_meaning(transformer: AutoencoderTransformer, X: Any) -> dict[str, Any] | None:
    """Return what codes depend on and explain, the most important first; None for many codes."""
    model = fitted_model(transformer)
    if model.n_components > _MOST_SLIDERS:
        return None
    rows = check_rows(transformer, X, reset=False)
    rows = ArraySource(rows.checked(rows.take(evenly_spaced(rows.shape[0], _ROWS_OF_MEANING))))
    try:
        sensitivity = sensitivities_per_deviation(transformer, rows, "mean")
    except (ValueError, RuntimeError):  # a network of the user's own may not be differentiable
        return None
    importance = importances(transformer, rows)
    if not np.isfinite(importance.drop).all():  # no row has a known value
        return None
    return {
        "codes": importance.code.tolist(),
        "drops": importance.drop.tolist(),
        "r2": importance.cumulative[-1],
        "sensitivity": _pack(sensitivity[importance.code].astype(np.float32)),
    }


def _describe_columns(table: Table, X: Any, values: np.ndarray) -> list[dict[str, Any]]:
    """Return what the columns of a table hold, and replace codes by positions in `levels`."""
    described = []
    for i, (column, found) in enumerate(zip(table.columns, table.levels_in(X), strict=True)):
        what: dict[str, Any] = {"kind": column.kind}
        if found is not None and column.levels is not None:
            places, levels = found
            values[:, i] = np.where(places < 0, np.nan, places)
            what |= {"kind": "category", "levels": levels, "n_outputs": column.levels.n_codes}
        elif column.kind in ("date", "duration"):
            what |= {"step": column.step, "zone": zone_in_name(column.dtype)}
        described.append(what)
    return described


def _extent(values: np.ndarray) -> tuple[float, float]:
    low, high = (float(np.nan_to_num(f.reduce(values, axis=None))) for f in (np.fmin, np.fmax))
    return low, high if high > low else low + 1


def _principal_directions(centred: np.ndarray) -> np.ndarray:
    """Return the three orthogonal directions of largest variance as rows, with fixed signs."""
    directions = np.linalg.svd(centred, full_matrices=True)[2][:3]
    largest = np.abs(directions).argmax(axis=1)[:, None]
    return directions * np.sign(np.take_along_axis(directions, largest, axis=1))


def _grid_nodes(points: np.ndarray, n_features: int) -> list[np.ndarray]:
    """Return the grid's positions along each plotted direction, denser where points are denser."""
    n_axes = points.shape[1]
    n_nodes = int((_GRID_ELEMENTS / n_features) ** (1 / n_axes))
    shares = np.linspace(0, 1, min(max(n_nodes, 3), (65, 33, 17)[n_axes - 1]))
    nodes = []
    for column in points.T.astype(np.float64):
        low, high = column.min(), column.max()
        if high == low:
            low, high = low - 0.5, high + 0.5
        even = low + shares * (high - low)
        nodes.append((even + np.quantile(column, shares).clip(low, high)) / 2)
    return nodes


# Descriptions of layers for the page. None means that the page cannot compute the layer.


def _describe_linear(layer: nn.Linear) -> dict[str, Any]:
    bias = torch.zeros(layer.out_features) if layer.bias is None else layer.bias
    return {"kind": "linear", "weight": _pack(_array(layer.weight)), "bias": _pack(_array(bias))}


def _describe_layer_norm(layer: nn.LayerNorm) -> dict[str, Any] | None:
    if len(layer.normalized_shape) != 1:
        return None
    ones = torch.ones(layer.normalized_shape)
    weight = ones if layer.weight is None else layer.weight
    bias = ones * 0 if layer.bias is None else layer.bias
    return {
        "kind": "layer_norm",
        "scale": _pack(_array(weight)),
        "offset": _pack(_array(bias)),
        "epsilon": layer.eps,
    }


def _describe_batch_norm(layer: nn.BatchNorm1d) -> dict[str, Any] | None:
    if layer.running_mean is None or layer.running_var is None:
        return None
    mean, variance = (b.double() for b in (layer.running_mean, layer.running_var))
    scale = (variance + layer.eps).rsqrt()
    scale = scale if layer.weight is None else scale * layer.weight
    offset = -mean * scale
    offset = offset if layer.bias is None else offset + layer.bias
    return _affine(_array(scale, np.float64), _array(offset, np.float64))


def _affine(scale: np.ndarray, offset: np.ndarray) -> dict[str, Any]:
    return {"kind": "affine", "scale": _pack(scale), "offset": _pack(offset)}


def _describe_activation(layer: Any) -> dict[str, Any] | None:
    if getattr(layer, "approximate", "none") != "none":
        return None
    name = next(name for name, kind in ACTIVATIONS.items() if kind is type(layer))
    slope = getattr(layer, "negative_slope", getattr(layer, "alpha", 1.0))
    return {"kind": name, "slope": slope}


_DESCRIPTIONS: dict[type[nn.Module], Callable[[Any], dict[str, Any] | None]] = {
    nn.Linear: _describe_linear,
    nn.LayerNorm: _describe_layer_norm,
    BatchNorm: _describe_batch_norm,
    nn.BatchNorm1d: _describe_batch_norm,
    **dict.fromkeys(ACTIVATIONS.values(), _describe_activation),
}


def _page_layers(decoder: nn.Module, scaling: AnyScaling) -> list[dict[str, Any]] | None:
    """Return the layers that map codes to X's units, or None if the page cannot compute one.

    The layers of a table return numbers in X's units and logits of levels, in the columns' order.
    """
    layers = []
    for layer in _flat_layers(decoder):
        # Only exact types count, as a subclass may compute something different.
        if type(layer) in (nn.Identity, nn.Dropout):
            continue
        described = _DESCRIPTIONS.get(type(layer), lambda _: None)(layer)
        if described is None:
            return None
        layers.append(described)
    if not isinstance(scaling, TableScaling):
        return [*layers, _affine(*map(np.atleast_1d, scaling.affine()))]
    factor, offset = np.ones(scaling.n_outputs), np.zeros(scaling.n_outputs)
    factor[: scaling.n_numbers], offset[: scaling.n_numbers] = scaling.numbers.affine()
    order = {"kind": "order", "order": scaling.order.tolist()}
    return [*layers, _affine(factor, offset), order]


def _flat_layers(module: nn.Module) -> list[nn.Module]:
    if type(module) is not nn.Sequential:
        return [module]
    return list(itertools.chain.from_iterable(map(_flat_layers, module)))


def _array(tensor: torch.Tensor, dtype: type = np.float32) -> np.ndarray:
    return tensor.detach().cpu().numpy().astype(dtype)


def _pack(array: np.ndarray) -> dict[str, Any]:
    """Return an array in the form that the page unpacks: compressed, in base64."""
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    data = base64.b64encode(zlib.compress(little.tobytes(), 6)).decode("ascii")
    return {"data": data, "dtype": array.dtype.name, "shape": array.shape}


def _pack_rows(
    rows: np.ndarray, limits: tuple[float, float] | None, *, exact: bool = False
) -> dict[str, Any]:
    """Pack rows: pictures in 8 bits between `limits`, large tables in 16 bits by column.

    Small tables are packed exactly, and large ones if they have to be `exact`. The rows are in X's
    units.
    """
    if limits is None and (exact or rows.size <= _EXACT_ELEMENTS):
        return _pack(rows.astype(np.float64))
    missing = np.isnan(rows)
    low: Any
    high: Any
    if limits is None:
        low, high = (np.nan_to_num(f.reduce(rows, axis=0)) for f in (np.fmin, np.fmax))
        last = 65_535
    else:
        low, high = limits
        last = 255
    # If any value is missing, the last step stands for missing values.
    steps = last - missing.any()
    scale = np.where(high > low, high - low, 1.0) / steps
    quantized = np.where(missing, last, np.rint((rows.clip(low, high) - low) / scale))
    return {
        **_pack(quantized.astype(np.uint16 if limits is None else np.uint8)),
        "offset": np.atleast_1d(low).tolist(),
        "scale": np.atleast_1d(scale).tolist(),
        "missing": last if missing.any() else None,
    }


def _fill_template(contents: dict[str, Any], plotly_js: str) -> str:
    """Return the page. It parses `contents` as JSON and shows them as text, never as markup."""
    files = resources.files("aefeatures._pictures")
    template = files.joinpath("latent_map.html").read_text(encoding="utf-8")
    script = files.joinpath("latent_map.js").read_text(encoding="utf-8")
    # Browsers hash scripts after they have turned all line ends into "\n".
    scripts = [re.sub("\r\n?", "\n", text) for text in (plotly_js, script)]
    hashes = [hashlib.sha256(text.encode()).digest() for text in scripts]
    text = json.dumps(contents, allow_nan=False, separators=(",", ":"))
    parts = {
        "plotly": scripts[0],
        "script": scripts[1],
        # The browser runs no other scripts, so that markup injected into the page stays harmless.
        "hashes": " ".join(f"'sha256-{base64.b64encode(h).decode('ascii')}'" for h in hashes),
        # Without "<", no name can end the element that holds the data.
        "contents": text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)
