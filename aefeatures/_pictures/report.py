"""The report: a page that shows how good an autoencoder is."""

from __future__ import annotations

import base64
import io
import os
import re
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from sklearn import config_context
from sklearn.utils import indexable

from aefeatures._autoencoder import AutoencoderTransformer, check_fitted_rows, fitted_model
from aefeatures._bridges.pipelines import find_steps, names_of_columns
from aefeatures._detection import detector_around, explanation_of
from aefeatures._files import write_atomically
from aefeatures._meaning import importances
from aefeatures._pictures.codes import CodeSensitivityDisplay
from aefeatures._pictures.components import resolve_predictor
from aefeatures._pictures.displays import LatentSpaceDisplay, LossCurveDisplay, import_pyplot
from aefeatures._pictures.latent_map import describe_index, page_path, resolve_shape, sample_rows
from aefeatures._pictures.outliers import OutlierDisplay
from aefeatures._pictures.reconstructions import ReconstructionDisplay
from aefeatures._pictures.targets import Target
from aefeatures._rows.checks import as_numpy, take_samples
from aefeatures._rows.sources import evenly_spaced
from aefeatures._version import __version__

_FEWEST_ROWS = 10
_MOST_CLASSES = 20

# Rows for measures whose time grows with the square of the rows or with the number of codes.
_SOME_ROWS = 2000
_MOST_CODES = 16  # up to which the importance of each code is measured
_MOST_CODES_DRAWN = 4  # legible on a phone
_UNUSUAL_ROWS = 4
_UNUSUAL_COLUMNS = 5


def write_report(
    estimator: Any,
    X: Any,
    y: Any = None,
    path: str | os.PathLike[str] = "report.html",
    *,
    image_shape: Sequence[int] | None = None,
    feature_names: Sequence[Any] | None = None,
    max_rows: int = 10_000,
    title: str | None = None,
    target_name: str | None = None,
) -> Path:
    """Write a page that shows how good an autoencoder is.

    The page is a single HTML file that opens in any browser, loads nothing from the network and
    runs no scripts. Each of its parts has a sentence that says how to read it:

    - the codes against as many principal components: R2 of the reconstruction, how well the
      nearest rows are kept, and how well y is predicted;
    - the loss of each epoch;
    - some rows and their reconstructions;
    - the codes, the columns that they depend on, and the R2 that is lost without each of them;
    - the most unusual rows, and what is unusual about them.

    The page shows some of the rows: anybody who gets the page gets these rows.

    Parameters
    ----------
    estimator : AutoencoderTransformer, Pipeline, search or FrozenEstimator
        Fitted estimator. In a pipeline the steps before the autoencoder transform X, and the page
        is about rows as the autoencoder gets them. The steps after it are not used.
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        Input of `estimator`, at least 10 rows. Rows that the autoencoder was not fitted on give
        figures that hold for new rows.
    y : array-like of shape (n_samples,), default=None
        Classes, numbers, dates or durations to predict from the codes, which are coloured by them.
        Rows without a label, by the rule of `Supervised`, are left out of the prediction.
    path : str or path-like, default="report.html"
        File to write. An existing file is replaced.
    image_shape : tuple of int, default=None
        (channels, height, width) of pictures with 1 or 3 channels, or (height, width) of grey
        pictures, as which rows are shown. If None, rows are shown as values by name, or as pictures
        of the network's shape if the network is a `ConvNetwork`.
    feature_names : array-like of str of shape (n_features,), default=None
        Names of the columns that the autoencoder gets. If None, they are taken from the estimator
        or the steps before it.
    max_rows : int, default=10_000
        Largest number of rows that the page is made from. If X has more rows, a random sample is
        used, which is the same at every call and has each class with its share.
    title : str, default=None
        Title of the page, by default "Report on an autoencoder".
    target_name : str, default=None
        Name of y in the page. By default its own name if it is a series.

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
        If X or `max_rows` has fewer than 10 rows, if y has fewer than 10 labels, if y,
        `image_shape` or `feature_names` do not fit X, or if the folder of `path` does not exist.
    ImportError
        If matplotlib is not installed.

    See Also
    --------
    write_latent_map : Page to explore the codes in.
    ComponentsDisplay : Scores of new fits, on held-out rows, against the number of codes.

    Notes
    -----
    All measures are in the network's range, in which a category is one column for each level. PCA
    is fitted on the rows of the page, with missing values replaced by means. The neighbours are
    measured by `sklearn.manifold.trustworthiness` with 10 neighbours. y is predicted from the 5
    nearest rows, with 5 folds. Both, and the importance of codes, use at most 2000 rows.

    The unusual rows are found by an `AutoencoderOutlierDetector` around the fitted autoencoder
    itself, which compares rows with each other.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from sklearn.datasets import load_wine
    >>> from aefeatures import AutoencoderTransformer, write_report
    >>> X, y = load_wine(return_X_y=True, as_frame=True)
    >>> transformer = AutoencoderTransformer(max_epochs=10, random_state=0).fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = write_report(transformer, X, y, Path(folder) / "wine.html")
    ...     "Rows: 178, columns: 13, codes: 3." in page.read_text()
    True
    """
    path = page_path(path)
    import_pyplot()  # raises an error before anything is computed
    transformer, before = find_steps(estimator)
    X, y = indexable(X, y)
    n_rows = X.shape[0] if hasattr(X, "shape") else len(X)
    if min(n_rows, max_rows) < _FEWEST_ROWS:
        raise ValueError(
            f"A report needs at least {_FEWEST_ROWS} rows, got {n_rows} rows and "
            f"max_rows={max_rows}."
        )
    target = None if y is None else Target(y, most_classes=_MOST_CLASSES, name=target_name)
    index = sample_rows(n_rows, target, max_rows)
    rows = take_samples(X, index)
    for step in before:
        rows = step.transform(rows)
    rows = as_numpy(rows)
    names = names_of_columns(transformer, before) if feature_names is None else feature_names
    look: dict[str, Any] = {
        "image_shape": resolve_shape(image_shape, transformer),
        "feature_names": None if names is None else [str(name) for name in names],
    }
    described = describe_index(X, index)
    row_names = [f"row {name}" for name in (described["labels"] if described else index)]
    some = evenly_spaced(len(index), _SOME_ROWS)
    y = None if y is None else take_samples(as_numpy(y), index[some])
    name = "y" if target is None or target.name is None else target.name
    sampled = "" if len(index) == n_rows else f" This page is about {len(index):,} of the rows."
    with config_context(array_api_dispatch=False):  # the page is made from NumPy arrays
        few = take_samples(rows, some)
        parts = {
            "title": escape("Report on an autoencoder" if title is None else str(title)),
            "summary": f"Rows: {n_rows:,}, columns: {transformer.n_features_in_:,}, "
            f"codes: {fitted_model(transformer).n_components}.{sampled}",
            "comparison": _compare(transformer, rows, some, y, name),
            "without_y": " hidden" if y is None else "",
            "without_supervision": " hidden" if y is None or transformer.task_ is None else "",
            "loss": _picture(LossCurveDisplay.from_estimator(transformer), "Loss of each epoch."),
            "reconstructions": _reconstructions(transformer, rows, look),
            "codes": _codes(transformer, few, y, name),
            "importance": _importance(transformer, few),
            "sensitivity": _sensitivity(transformer, few, look),
            "unusual": _unusual_rows(transformer, rows, row_names, look),
            "version": __version__,
            "settings": escape(repr(transformer)),
        }
    write_atomically(path, [_filled_template(parts).encode()], "page")
    return path


def _filled_template(parts: dict[str, str]) -> str:
    template = resources.files("aefeatures._pictures").joinpath("report.html")
    text = template.read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], text)


def _reconstructions(transformer: AutoencoderTransformer, rows: Any, look: dict[str, Any]) -> str:
    n_shown = 5 if look["image_shape"] else 3
    display = ReconstructionDisplay.from_estimator(transformer, rows, n_samples=n_shown, **look)
    return _picture(display, "Some rows and their reconstructions.")


def _codes(transformer: AutoencoderTransformer, rows: Any, y: Any, name: str) -> str:
    drawn = range(min(fitted_model(transformer).n_components, _MOST_CODES_DRAWN))
    display = LatentSpaceDisplay.from_estimator(
        transformer, rows, y, target_name=name, components=drawn
    )
    return _picture(display, "Codes as points.")


def _compare(
    transformer: AutoencoderTransformer, X: Any, some: np.ndarray, y: Any, name: str
) -> str:
    """Return a table of what components and codes keep of X, and tell about the y of some rows."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import trustworthiness

    model = fitted_model(transformer)
    rows = check_fitted_rows(transformer, X, "write_report")
    values, misses = model.rows_and_misses(rows, transformer.device_)
    known = ~np.isnan(misses)
    means = np.sum(values, axis=0, where=known, dtype=np.float64) / known.sum(axis=0).clip(1)
    columns = np.where(known, values - means, 0)
    pca = PCA(min(model.n_components, *columns.shape), random_state=0)
    components = pca.fit_transform(columns)

    def r2(misses: np.ndarray) -> float:
        missed = np.square(misses).sum(where=known, dtype=np.float64)
        total = np.square(columns).sum()
        return float(1 - missed / total) if total > 0 else np.nan

    of_pca, of_codes = r2(columns - pca.inverse_transform(components)), r2(misses)
    lines: list[tuple[Any, ...]] = [("reconstruction (R2)", 0.0, of_pca, of_codes, 1.0)]
    codes = model.encode(rows, transformer.device_)
    components, codes, columns = (each[some] for each in (components, codes, columns))
    n_neighbors = min(10, (len(some) - 1) // 2)
    of_pca, of_codes = (
        float(trustworthiness(columns, each, n_neighbors=n_neighbors))
        for each in (components, codes)
    )
    lines.append(("nearest rows kept", 0.5, of_pca, of_codes, 1.0))
    if y is not None:
        lines.append(_predict(y, name, components, codes, columns))
    head = "".join(f"<th>{each}</th>" for each in ("", "guess", "PCA", "codes", "all columns"))
    body = "".join(_line(*line) for line in lines)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>"


def _predict(y: Any, name: str, *inputs: np.ndarray) -> tuple[Any, ...]:
    """Return a line of the table: scores of a guess of y, and of predictions from the inputs."""
    from sklearn.model_selection import KFold, cross_val_score

    labels, predictor, called = resolve_predictor(y, [], None, None)
    if len(labels.known) < _FEWEST_ROWS:
        raise ValueError(
            f"A report needs at least {_FEWEST_ROWS} rows with a label in y, got "
            f"{len(labels.known)}. Leave y at None."
        )
    guess = 0.0
    if labels.task == "classification":
        guess = np.unique(labels.known, return_counts=True)[1].max() / len(labels.known)
    folds = KFold(5, shuffle=True, random_state=0)
    scores = (
        cross_val_score(predictor, each[labels.labelled], labels.known, cv=folds).mean()
        for each in inputs
    )
    return f"prediction of {name} ({called['score_name']})", guess, *scores


def _line(measure: str, *numbers: float) -> str:
    """Return a line of the table, with the better one of PCA and codes in bold."""
    texts = [f"{number:.2f}" for number in numbers]
    best = f"{max(numbers[1:3]):.2f}"
    kinds = ["", *(' class="best"' if text == best else "" for text in texts[1:3]), ""]
    cells = "".join(f"<td{kind}>{text}</td>" for kind, text in zip(kinds, texts, strict=True))
    return f"<tr><th>{escape(measure)}</th>{cells}</tr>\n"


def _importance(transformer: AutoencoderTransformer, X: Any) -> str:
    if fitted_model(transformer).n_components > _MOST_CODES:
        return ""
    found = importances(transformer, check_fitted_rows(transformer, X, "write_report"))
    drops = ", ".join(
        f"{drop:.2f} without code {code}" for code, drop in zip(found.code, found.drop, strict=True)
    )
    return f"The R2 of the reconstruction falls by {drops}."


def _sensitivity(transformer: AutoencoderTransformer, X: Any, look: dict[str, Any]) -> str:
    try:
        display = CodeSensitivityDisplay.from_estimator(transformer, X, **look)
    except (ValueError, RuntimeError):  # a network of the user's own may not be differentiable
        return "<p>The encoder is not differentiable.</p>"
    return _picture(display, "Sensitivity of each code to the columns.")


def _unusual_rows(
    transformer: AutoencoderTransformer, X: Any, row_names: list[str], look: dict[str, Any]
) -> str:
    detector = detector_around(transformer, X)
    scores = as_numpy(detector.score_samples(X))
    shown = np.argsort(scores, kind="stable")[:_UNUSUAL_ROWS]
    n_columns = None if look["image_shape"] else _UNUSUAL_COLUMNS
    explanation = explanation_of(detector, take_samples(X, shown), n_columns)
    names = [row_names[i] for i in shown]
    display = OutlierDisplay(*explanation, row_names=names, **look).plot()
    columns = look["feature_names"] or [f"x{j}" for j in range(transformer.n_features_in_)]
    reasons = (
        f"{name} by {columns[j]}" for name, j in zip(names, explanation.column[:, 0], strict=True)
    )
    return _picture(display, f"Unusual: {', '.join(reasons)}.")


def _picture(display: Any, alt: str) -> str:
    """Return the figure of a display as an element of the page."""
    buffer = io.BytesIO()
    figure = display.figure_
    figure.savefig(buffer, format="png", dpi=200)
    import_pyplot().close(figure)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    width = round(96 * figure.get_figwidth())
    return f'<img width="{width}" alt="{escape(alt)}" src="data:image/png;base64,{data}">'
