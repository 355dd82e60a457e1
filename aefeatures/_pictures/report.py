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
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness
from sklearn.model_selection import KFold, cross_val_score
from sklearn.utils import check_consistent_length

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
from aefeatures._rows.labels import Labels
from aefeatures._rows.sources import evenly_spaced
from aefeatures._version import __version__

_FEWEST_ROWS = 10
_MOST_CLASSES = 20

# Rows for measures whose time grows with the square of the rows or with the number of codes.
_SOME_ROWS = 2000
_MOST_CODES = 16  # up to which the importance of each code is measured
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
        Classes or numbers to predict from the codes, which are coloured by them. Rows without a
        label, by the rule of `Supervised`, are left out of the prediction.
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
    ...     "alcohol" in page.read_text()
    True
    """
    path = page_path(path)
    import_pyplot()  # raises an error before anything is computed
    transformer, before = find_steps(estimator)
    n_rows = X.shape[0] if hasattr(X, "shape") else len(X)
    for name, number in {"X": n_rows, "max_rows": max_rows}.items():
        if number < _FEWEST_ROWS:
            raise ValueError(
                f"A report needs at least {_FEWEST_ROWS} rows, got {number} by {name}."
            )
    target = None
    if y is not None:
        check_consistent_length(X, y)
        target = Target(y, most_classes=_MOST_CLASSES, name=target_name)
    index = sample_rows(n_rows, target, max_rows)
    rows = take_samples(X, index)
    for step in before:
        rows = step.transform(rows)
    rows = as_numpy(rows)
    some = evenly_spaced(len(index), _SOME_ROWS)
    few = take_samples(rows, some)
    names = names_of_columns(transformer, before) if feature_names is None else feature_names
    look = {
        "image_shape": resolve_shape(image_shape, transformer),
        "feature_names": None if names is None else list(map(str, names)),
    }
    described = describe_index(X, index)
    row_names = [f"row {i}" for i in (index if described is None else described["labels"])]
    labels = None if y is None else take_samples(as_numpy(y), index)
    with config_context(array_api_dispatch=False):  # the page is made from NumPy arrays
        sections = [
            _compare(transformer, rows, labels, some),
            _show_loss(transformer),
            _show_reconstructions(transformer, rows, look),
            _show_codes(
                transformer,
                few,
                None if labels is None else take_samples(labels, some),
                None if target is None else target.name,
            ),
            _show_meaning(transformer, few, look),
            _show_unusual_rows(transformer, rows, row_names, look),
            _section(
                "Settings",
                f"Parameters that differ from their defaults, in aefeatures {__version__}.",
                f"<code>{escape(repr(transformer))}</code>",
            ),
        ]
    sampled = "" if len(index) == n_rows else f" This page is about {len(index):,} of the rows."
    template = resources.files("aefeatures._pictures").joinpath("report.html")
    parts = {
        "title": escape("Report on an autoencoder" if title is None else str(title)),
        "summary": f"{n_rows:,} rows, {transformer.n_features_in_:,} columns, "
        f"{fitted_model(transformer).n_components} codes.{sampled}",
        "sections": "\n".join(sections),
    }
    text = template.read_text(encoding="utf-8")
    page = re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], text)
    write_atomically(path, [page.encode()], "page")
    return path


# Sections


def _compare(transformer: AutoencoderTransformer, X: Any, y: Any, some: np.ndarray) -> str:
    """Return the table of what codes and principal components keep of X, and know of y."""
    model = fitted_model(transformer)
    rows = check_fitted_rows(transformer, X, "write_report")
    values, misses = model.rows_and_misses(rows, transformer.device_)
    known = ~np.isnan(misses)
    means = np.sum(values, axis=0, where=known, dtype=np.float64) / known.sum(axis=0).clip(1)
    columns = np.where(known, values - means, 0)
    pca = PCA(min(model.n_components, *columns.shape), random_state=0)
    components = pca.fit_transform(columns)
    codes = model.encode(rows, transformer.device_)

    def r2(misses: np.ndarray) -> float:
        total = np.square(columns).sum()
        missed = np.square(misses).sum(where=known, dtype=np.float64)
        return float(1 - missed / total) if total > 0 else float("nan")

    lines: list[list[Any]] = [
        [
            "reconstruction (R2)",
            0.0,
            r2(columns - pca.inverse_transform(components)),
            r2(misses),
            1.0,
        ]
    ]
    given = [each[some] for each in (components, codes, columns)]
    n_neighbors = min(10, (len(some) - 1) // 2)
    kept = [trustworthiness(given[2], each, n_neighbors=n_neighbors) for each in given[:2]]
    lines.append(["nearest rows kept", 0.5, *kept, 1.0])
    notes = [
        f"All numbers are of the same rows. PCA has {pca.n_components_} components, fitted on them."
        " The higher one of PCA and codes is bold. A guess knows no row, and all columns are the"
        " rows without any loss. If the autoencoder was fitted on these rows, it may be less good"
        " on new ones.",
        "Reconstruction: the part of the columns' variance that the decoder gets back. 0 is a"
        " guess of the means.",
        f"Nearest rows kept (trustworthiness): 1 if the {n_neighbors} nearest rows by their codes"
        " are also the nearest in all columns, about 0.5 if they are any rows.",
    ]
    if y is not None:
        labels, predictor, called = resolve_predictor(y, [], None, None)
        labels = labels.of_rows(some)
        lines.append(
            [f"prediction of y ({called['score_name']})", *_predict(labels, predictor, given)]
        )
        notes.append(
            "Prediction of y: score on rows that were kept aside, by the 5 nearest of the other"
            " rows. If all columns do better, the codes have lost something that y needs."
        )
        if transformer.task_ is not None:
            notes.append(
                "The autoencoder has learned from y (Supervised). If it was fitted on these rows,"
                " its prediction is too good: use rows that it has not seen."
            )
    header = ["", "guess", "PCA", "codes", "all columns"]
    return _section("Codes against PCA", *notes[:1], _table(header, lines) + _paragraphs(notes[1:]))


def _predict(labels: Labels, predictor: Any, given: list[np.ndarray]) -> list[float]:
    """Return scores of a guess and of the predictor on each of the arrays that are `given`."""
    if len(labels.known) < _FEWEST_ROWS:
        raise ValueError(
            f"A report needs at least {_FEWEST_ROWS} rows with a label in y, got "
            f"{len(labels.known)}. Leave y at None."
        )
    guess = 0.0
    if labels.task == "classification":
        guess = np.unique(labels.known, return_counts=True)[1].max() / len(labels.known)
    folds = KFold(5, shuffle=True, random_state=0)
    scores = [
        cross_val_score(predictor, each[labels.labelled], labels.known, cv=folds).mean()
        for each in given
    ]
    return [guess, *scores]


def _show_loss(transformer: AutoencoderTransformer) -> str:
    display = LossCurveDisplay.from_estimator(transformer)
    losses = transformer.loss_curve_
    return _section(
        "Training",
        "A curve that still falls at its end asks for more epochs. A validation loss that rises"
        " while the training loss falls asks for fewer codes or a regularizer.",
        _picture(
            display, f"Loss in {len(losses)} epochs, from {losses[0]:.3g} to {losses[-1]:.3g}."
        ),
    )


def _show_reconstructions(transformer: AutoencoderTransformer, X: Any, look: Any) -> str:
    display = ReconstructionDisplay.from_estimator(transformer, X, **look)
    return _section(
        "Rows and their reconstructions",
        "What a reconstruction lacks is not in the codes. The rows are evenly spaced in the data.",
        _picture(display, "Five rows and their reconstructions."),
    )


def _show_codes(transformer: AutoencoderTransformer, X: Any, y: Any, name: str | None) -> str:
    display = LatentSpaceDisplay.from_estimator(transformer, X, y, target_name=name)
    coloured = "" if y is None else " Colours that lie apart can be predicted from the codes."
    return _section(
        "Codes",
        f"Each point is a row. Groups and gaps are structure in the data.{coloured}",
        _picture(display, "Scatter plot of the codes."),
    )


def _show_meaning(transformer: AutoencoderTransformer, X: Any, look: Any) -> str:
    try:
        display = CodeSensitivityDisplay.from_estimator(transformer, X, **look)
        body = _picture(display, "How much each code depends on each column.")
    except (ValueError, RuntimeError):  # a network of the user's own may not be differentiable
        body = _paragraphs(["The encoder is not differentiable, so it has no sensitivities."])
    how = (
        "Red: the code rises with the column, blue: it falls. Columns with strong colours drive the"
        " code."
    )
    if fitted_model(transformer).n_components <= _MOST_CODES:
        importance = importances(transformer, check_fitted_rows(transformer, X, "write_report"))
        lines = [[f"code {j}", drop] for j, drop in zip(*importance[:2], strict=True)]
        body += _table(["", "R2 lost without it"], lines)
        how += " A code without which R2 falls little could be left out."
    return _section("What drives the codes", how, body)


def _show_unusual_rows(
    transformer: AutoencoderTransformer, X: Any, row_names: list[str], look: Any
) -> str:
    detector = detector_around(transformer, X)
    scores = as_numpy(detector.score_samples(X))
    worst = np.argsort(scores, kind="stable")[:_UNUSUAL_ROWS]
    by_row = np.sort(worst)
    n_columns = None if look["image_shape"] else _UNUSUAL_COLUMNS
    explanation = explanation_of(detector, take_samples(X, by_row), n_columns)
    order = np.searchsorted(by_row, worst)
    titles = [row_names[i] for i in worst]
    display = OutlierDisplay(*(each[order] for each in explanation), row_names=titles, **look)
    return _section(
        "Most unusual rows",
        "A row is unusual if it is far from the rows most like it, or reconstructed otherwise than"
        " they are. Bars or colours show by which columns. Errors in the data are found here. The"
        " rows were compared with each other, by this autoencoder.",
        _picture(display.plot(), f"What is unusual about {', '.join(titles)}."),
    )


# HTML. All text is escaped here.


def _section(title: str, how_to_read: str, body: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{_paragraphs([how_to_read])}{body}</section>"


def _paragraphs(texts: Sequence[str]) -> str:
    return "".join(f'<p class="quiet">{escape(text)}</p>\n' for text in texts)


def _table(header: Sequence[str], lines: list[list[Any]]) -> str:
    head = "".join(f"<th>{escape(each)}</th>" for each in header)
    body = "".join(
        f"<tr><th>{escape(name)}</th>{''.join(map(_cell, numbers))}</tr>\n"
        for name, *numbers in lines
    )
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n"


def _cell(number: float) -> str:
    return f"<td>{'–' if np.isnan(number) else f'{number:.2f}'}</td>"


def _picture(display: Any, alt: str) -> str:
    buffer = io.BytesIO()
    figure = display.figure_
    figure.savefig(buffer, format="png", dpi=200)
    import_pyplot().close(figure)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    width = round(96 * figure.get_figwidth())
    return f'<img width="{width}" alt="{escape(alt)}" src="data:image/png;base64,{data}">\n'
