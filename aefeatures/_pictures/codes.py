"""Displays of the sensitivities of codes, and of rows decoded along codes."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from textwrap import fill
from typing import Any, Literal, Self

import numpy as np
from sklearn.utils import check_array

from aefeatures._autoencoder import check_fitted_rows, fitted_model
from aefeatures._bridges.pipelines import find_steps, find_transformer, names_of_columns
from aefeatures._meaning import sensitivities_per_deviation
from aefeatures._nets.networks import resolve_image_shape
from aefeatures._pictures.displays import choose_components, import_pyplot, plain
from aefeatures._pictures.reconstructions import image_limits, picture_shape, to_rgba
from aefeatures._rows.sources import ArraySource, evenly_spaced
from aefeatures._rows.tables import table_of

_MOST_CODES = 10
_MOST_COLUMNS = 15  # of a table of sensitivities
_MOST_COLUMNS_OF_CODE = 5  # of a table of traversals
_MOST_NUMBERS = 6  # codes up to which sensitivities are written into their cells
_PICTURES_IN_LINE = 5
_SOME_ROWS = 1000  # that show which values pictures may have
_LONGEST_NAME = 30  # characters of a column
_LOWEST, _NARROWEST = 2.3, 2.2  # inches of a picture, for the labels of its axes
_MISSING = "0.8"
_QUANTILES = (0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95)


class CodeSensitivityDisplay:
    """How much each code depends on each column.

    Images are drawn as a picture for each code: the code rises if red pixels get brighter, and
    falls if blue pixels do. Tables are drawn as a heat map of the columns that matter most. Columns
    are grouped by the code that they matter most to. A missing sensitivity (NaN) is grey.

    Parameters
    ----------
    sensitivity : array-like of shape (n_components, n_features)
        Sensitivities as of `code_sensitivity`. `from_estimator` divides those of each code by the
        standard deviation of the code, so that codes are comparable.
    image_shape : tuple of int, default=None
        (channels, height, width), or (height, width) for one channel. The pixels of three channels
        are added up: the code's change if all three get brighter.
    feature_names : array-like of str of shape (n_features,), default=None
        Names of the columns. By default those of a pandas frame; other columns are numbered.
    components : sequence of int, default=None
        Codes to draw. By default all codes are drawn, or the first ten if there are more.
    unit : str, default="change of code per deviation of column"
        Label of the colours.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
    figure_ : matplotlib.figure.Figure

    See Also
    --------
    code_sensitivity : The numbers.
    LatentTraversalDisplay : The other direction.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from aefeatures import AutoencoderTransformer, CodeSensitivityDisplay
    >>> X, _ = load_wine(return_X_y=True, as_frame=True)
    >>> transformer = AutoencoderTransformer(max_epochs=20).fit(X)
    >>> CodeSensitivityDisplay.from_estimator(transformer, X)
    <...CodeSensitivityDisplay object at ...>
    """

    def __init__(
        self,
        sensitivity: Any,
        *,
        image_shape: Sequence[int] | None = None,
        feature_names: Sequence[Any] | None = None,
        components: Sequence[int] | None = None,
        unit: str = "change of code per deviation of column",
    ) -> None:
        self.sensitivity = sensitivity
        self.image_shape = image_shape
        self.feature_names = feature_names
        self.components = components
        self.unit = unit

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        average: Literal["mean", "rms"] = "mean",
        row: int | None = None,
        image_shape: Sequence[int] | None = None,
        feature_names: Sequence[Any] | None = None,
        components: Sequence[int] | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Compute the sensitivities at the rows of X, and draw them.

        Parameters
        ----------
        estimator : AutoencoderTransformer, Pipeline, search or FrozenEstimator
            Fitted estimator. In a pipeline the first autoencoder is used, and the columns are those
            that the steps before it return.
        X : {array-like, sparse matrix, frame} of shape (n_samples, n_features)
            Rows to average over, whose codes have the deviations that sensitivities are divided by.
        average : {"mean", "rms"}, default="mean"
            As in `code_sensitivity`.
        row : int, default=None
            Position of a row in X: draws the sensitivities at this row alone, not the average.
        image_shape : tuple of int, default=None
            (channels, height, width), or (height, width) for one channel.
        feature_names : array-like of str of shape (n_features,), default=None
            Names of the columns. By default the names seen in `fit`, or the names that the steps
            before the autoencoder return, if there are any.
        components : sequence of int, default=None
            Codes to draw.
        ax : matplotlib.axes.Axes, default=None
            Axes to draw in. By default a new figure is made.
        **kwargs
            Passed to `plot`.

        Returns
        -------
        display : CodeSensitivityDisplay

        Raises
        ------
        NotFittedError
            If the autoencoder is not fitted.
        ValueError
            If `row` is not a position in X, if X has a single row, and as of `code_sensitivity`
            and `plot`.
        """
        if average not in ("mean", "rms"):
            raise ValueError(f"average must be 'mean' or 'rms', got {average!r}.")
        transformer, rows = find_transformer(estimator, X)
        source = check_fitted_rows(transformer, rows, "code_sensitivity")
        at = None
        if row is not None:
            at = ArraySource(source.checked(source.take(_position(row, source.shape[0]))))
        if source.shape[0] == 1:
            raise ValueError(
                "Sensitivities are divided by the deviations of the codes of X, but X has a single "
                "row. Pass more rows as X, and the position of the row as row=."
            )
        if feature_names is None:
            feature_names = names_of_columns(transformer, find_steps(estimator)[1])
        display = cls(
            sensitivities_per_deviation(transformer, source, average, at),
            image_shape=image_shape,
            feature_names=feature_names,
            components=components,
            unit="deviations of code per deviation of column",
        )
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax: Any = None, *, max_features: int = _MOST_COLUMNS, cmap: Any = None) -> Self:
        """Draw the sensitivities.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Axes to draw in. By default a new figure is made.
        max_features : int, default=15
            Largest number of columns of a table that are drawn: those with the largest absolute
            sensitivity of any code.
        cmap : str or matplotlib.colors.Colormap, default=None
            Colours. By default "RdBu_r", with white for 0, or "viridis" if no number is negative.

        Returns
        -------
        self

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If `image_shape`, `feature_names` or `components` do not fit, or if `max_features` is
            below 1.
        """
        values = check_array(
            self.sensitivity, dtype=np.float64, ensure_all_finite="allow-nan", ensure_min_samples=1
        )
        chosen = choose_components(self.components, len(values), _MOST_CODES)
        values = values[chosen]
        if max_features < 1:
            raise ValueError(f"max_features must be at least 1, got {max_features}.")
        n_features = values.shape[1]
        given = self.feature_names
        if given is None:
            given = getattr(self.sensitivity, "columns", None)
        names = _names(given, n_features)
        plt = import_pyplot()
        if self.image_shape is not None:
            shape = resolve_image_shape(self.image_shape, n_features)
            pictures = values.reshape(-1, *shape).sum(axis=1)
            scale = _Scale(plt, pictures, cmap)
            self.ax_ = _pictures_of_codes(plt, ax, scale.rgba(pictures), chosen)
        else:
            scale = _Scale(plt, values, cmap)
            self.ax_ = self._plot_table(plt, ax, values, chosen, scale, names, max_features)
        self.figure_ = self.ax_.figure
        scale.add_bar(self.ax_, self.unit, below=self.image_shape is not None)
        return self

    def _plot_table(
        self,
        plt: Any,
        ax: Any,
        values: np.ndarray,
        chosen: list[int],
        scale: _Scale,
        names: list[str],
        max_features: int,
    ) -> Any:
        sizes = np.nan_to_num(np.abs(values))
        size, main = sizes.max(axis=0), sizes.argmax(axis=0)
        columns = np.argsort(-size, kind="stable")[:max_features]
        columns = columns[np.lexsort((-size[columns], main[columns]))]
        shown = values[:, columns].T
        if ax is None:
            longest = max(len(names[j]) for j in columns)
            height = max(_LOWEST, 0.27 * len(columns) + 0.9)
            figsize = (0.55 * len(chosen) + 0.085 * longest + 1.3, height)
            ax = plt.figure(figsize=figsize, layout="constrained").add_subplot()
        ax.imshow(scale.rgba(shown), aspect="auto", interpolation="nearest")
        if len(chosen) <= _MOST_NUMBERS:
            for (i, k), value in np.ndenumerate(shown):
                text = {"fontsize": "small", "color": scale.ink(value)}
                ax.text(k, i, _short(value), ha="center", va="center", **text)
        ax.set_xticks(range(len(chosen)), [f"code {k}" for k in chosen])
        if len(chosen) > 3:
            ax.set_xticklabels(chosen)
            ax.set_xlabel("code", loc="left")
        ax.xaxis.set_ticks_position("top")
        ax.xaxis.set_label_position("top")
        ax.set_yticks(range(len(columns)), [plain(names[j]) for j in columns])
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        if len(columns) < values.shape[1]:
            ax.annotate(
                f"{len(columns)} of {values.shape[1]} columns", (0, 0), (0, -4),
                xycoords="axes fraction", textcoords="offset points",
                va="top", fontsize="small", color="0.35",
            )  # fmt: skip
        return ax


class LatentTraversalDisplay:
    """Rows decoded along each code, while the other codes stay fixed.

    Images are drawn as a line of pictures for each code. Tables are drawn as a heat map for each
    code, of the columns that change most, in standard deviations of the columns from the row that
    is decoded at the start. A category is shown by its level that changes most: the probability of
    that level, in the deviations of a column of 0 and 1.

    Parameters
    ----------
    decoded : array-like of shape (n_codes, n_steps, n_columns)
        Decoded rows: for each code, and for each step along it. A category has a column with the
        probability of each level.
    start : array-like of shape (n_columns,)
        The decoded row from which the codes are varied.
    scale : array-like of shape (n_columns,) or float, default=1.0
        Standard deviations of the columns. Heat maps show ``(decoded - start) / scale``.
    quantiles : array-like of shape (n_steps,)
        Quantiles of the code at the steps.
    image_shape : tuple of int, default=None
        (channels, height, width), or (height, width) for one channel.
    limits : tuple of float, default=None
        Values that images show as black and as white. By default the smallest and the largest
        decoded value, or 0 and 1 if all are within.
    feature_names : array-like of str of shape (n_columns,), default=None
        Names of the columns. By default columns are numbered.
    column_of : array-like of int of shape (n_columns,), default=None
        Column of X of each decoded column. Of the levels of a category, heat maps show only the one
        that changes most. By default each is a column of its own.
    components : sequence of int of shape (n_codes,), default=None
        Positions of the codes, for their labels. By default from 0 on.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
    figure_ : matplotlib.figure.Figure

    See Also
    --------
    CodeSensitivityDisplay : What the encoder makes a code of.
    write_latent_map : A page with a slider for each code.

    References
    ----------
    .. [1] I. Higgins et al. beta-VAE: learning basic visual concepts with a constrained variational
       framework. ICLR 2017.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from aefeatures import AutoencoderTransformer, LatentTraversalDisplay
    >>> X, _ = load_digits(return_X_y=True)
    >>> transformer = AutoencoderTransformer(max_epochs=5).fit(X)
    >>> LatentTraversalDisplay.from_estimator(transformer, X, image_shape=(8, 8))
    <...LatentTraversalDisplay object at ...>
    """

    def __init__(
        self,
        decoded: Any,
        *,
        start: Any,
        scale: Any = 1.0,
        quantiles: Sequence[float],
        image_shape: Sequence[int] | None = None,
        limits: tuple[float, float] | None = None,
        feature_names: Sequence[Any] | None = None,
        column_of: Any = None,
        components: Sequence[int] | None = None,
    ) -> None:
        self.decoded = decoded
        self.start = start
        self.scale = scale
        self.quantiles = quantiles
        self.image_shape = image_shape
        self.limits = limits
        self.feature_names = feature_names
        self.column_of = column_of
        self.components = components

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        row: int | None = None,
        quantiles: Sequence[float] = _QUANTILES,
        image_shape: Sequence[int] | None = None,
        feature_names: Sequence[Any] | None = None,
        components: Sequence[int] | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Decode along the codes of X and draw the results.

        Parameters
        ----------
        estimator : AutoencoderTransformer, Pipeline, search or FrozenEstimator
            Fitted estimator. In a pipeline the first autoencoder is used, and its rows are drawn.
        X : {array-like, sparse matrix, frame} of shape (n_samples, n_features)
            Rows whose codes say how far each code is varied.
        row : int, default=None
            Position of the row in X whose other codes are fixed. By default all codes start at
            their median.
        quantiles : sequence of float, default=(0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95)
            Quantiles of a code, over the rows of X, that are the steps along it.
        image_shape : tuple of int, default=None
            (channels, height, width), or (height, width) for one channel.
        feature_names : array-like of str, default=None
            Names of the decoded columns. By default the names seen in `fit`, or the names that the
            steps before the autoencoder return, if there are any.
        components : sequence of int, default=None
            Codes to vary. By default all codes, or the first ten if there are more.
        ax : matplotlib.axes.Axes, default=None
            Axes to draw in. By default a new figure is made.
        **kwargs
            Passed to `plot`.

        Returns
        -------
        display : LatentTraversalDisplay

        Raises
        ------
        NotFittedError
            If the autoencoder is not fitted.
        ValueError
            If `row`, `quantiles`, `components` or `image_shape` do not fit.
        """
        steps = np.asarray(quantiles, dtype=float)
        if steps.ndim != 1 or not len(steps) or not ((steps >= 0) & (steps <= 1)).all():
            raise ValueError(f"quantiles must be numbers in [0, 1], got {quantiles!r}.")
        transformer, X = find_transformer(estimator, X)
        rows = check_fitted_rows(transformer, X, "transform")
        model, table = fitted_model(transformer), table_of(transformer)
        codes = model.encode(rows, transformer.device_).astype(np.float64)
        chosen = choose_components(components, model.n_components, _MOST_CODES)
        start = np.median(codes, axis=0) if row is None else codes[_position(row, len(codes))][0]
        moved = np.tile(start, (len(chosen), len(steps), 1))
        for i, k in enumerate(chosen):
            moved[i, :, k] = np.quantile(codes[:, k], steps)
        decode = model.decode if table is None else model.decode_probabilities
        found = decode(np.vstack([start, *moved]), transformer.device_)
        if feature_names is None and table is not None:
            feature_names = table.level_names()
        elif feature_names is None:
            feature_names = names_of_columns(transformer, find_steps(estimator)[1])
        sample = rows.take(evenly_spaced(len(codes), _SOME_ROWS))
        display = cls(
            found[1:].reshape(len(chosen), len(steps), -1),
            start=found[0],
            scale=model.scaling.deviations(raw=True).numpy(),
            quantiles=steps.tolist(),
            image_shape=image_shape,
            limits=None if image_shape is None else image_limits(sample),
            feature_names=feature_names,
            column_of=np.sort(model.column_of_output),
            components=chosen,
        )
        return display.plot(ax=ax, **kwargs)

    def plot(
        self, ax: Any = None, *, max_features: int = _MOST_COLUMNS_OF_CODE, cmap: Any = None
    ) -> Self:
        """Draw the decoded rows.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Axes to draw in. By default a new figure is made.
        max_features : int, default=5
            Largest number of columns of a table that are drawn for each code: those that change
            most along it.
        cmap : str or matplotlib.colors.Colormap, default=None
            Colours: by default "gray" for images of one channel, and "RdBu_r" for tables.

        Returns
        -------
        self

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If shapes do not fit each other, if images have neither 1 nor 3 channels, or if
            `max_features` is below 1.
        """
        decoded = check_array(
            self.decoded, dtype=np.float64, ensure_all_finite="allow-nan", allow_nd=True
        )
        n_steps = len(self.quantiles)
        if decoded.ndim != 3 or decoded.shape[1] != n_steps:
            raise ValueError(
                f"decoded must have the shape (n_codes, {n_steps}, n_columns) for {n_steps} "
                f"quantiles, got {decoded.shape}."
            )
        if max_features < 1:
            raise ValueError(f"max_features must be at least 1, got {max_features}.")
        n_codes, _, n_columns = decoded.shape
        codes = list(range(n_codes) if self.components is None else self.components)
        names = _names(self.feature_names, n_columns)
        plt = import_pyplot()
        if self.image_shape is not None:
            shape = picture_shape(self.image_shape, n_columns)
            self._plot_images(plt, ax, decoded, codes, shape, cmap)
        else:
            self._plot_table(plt, ax, decoded, codes, names, max_features, cmap)
        self.figure_ = self.ax_.figure
        return self

    def _plot_images(
        self,
        plt: Any,
        ax: Any,
        decoded: np.ndarray,
        codes: list[int],
        shape: tuple[int, int, int],
        cmap: Any,
    ) -> None:
        limits = image_limits(decoded) if self.limits is None else self.limits
        colors = plt.get_cmap("gray" if cmap is None else cmap)
        pictures = np.stack(
            [to_rgba(rows, shape, limits, colors, (0, 0, 0, 0)) for rows in decoded]
        )
        canvas, (lines, columns) = _grid(pictures)
        if ax is None:
            inch = 0.75 / max(shape[1:])
            width = max(_NARROWEST, canvas.shape[1] * inch + 0.8)
            figsize = (width, canvas.shape[0] * inch + 0.5)
            ax = plt.figure(figsize=figsize, layout="compressed").add_subplot()
        ax.imshow(canvas, interpolation="nearest" if max(shape[1:]) < 64 else "antialiased")
        ax.set_yticks(lines, [f"code {k}" for k in codes])
        self._label_steps(ax, columns)
        self.ax_ = ax

    def _plot_table(
        self,
        plt: Any,
        ax: Any,
        decoded: np.ndarray,
        codes: list[int],
        names: list[str],
        max_features: int,
        cmap: Any,
    ) -> None:
        n_steps = decoded.shape[1]
        unit = np.broadcast_to(self.scale, decoded.shape[2:])
        changes = np.nan_to_num((decoded - self.start) / np.where(unit > 0, unit, np.inf))
        changes = changes.round(6)  # rounding errors of the decoder are no changes
        column_of = np.arange(decoded.shape[2]) if self.column_of is None else self.column_of
        most = [_most_changed(each, column_of, max_features) for each in changes]
        shown = [each[:, columns].T for each, columns in zip(changes, most, strict=True)]
        scale = _Scale(plt, np.stack(shown), "RdBu_r" if cmap is None else cmap)
        block = len(most[0]) + 1.0
        if ax is None:
            longest = max(len(names[j]) for columns in most for j in columns)
            height = max(_LOWEST, 0.24 * block * len(codes) + 0.5)
            figsize = (0.42 * n_steps + 0.08 * longest + 1.1, height)
            ax = plt.figure(figsize=figsize, layout="constrained").add_subplot()
        places: list[float] = []
        for i, (k, values) in enumerate(zip(codes, shown, strict=True)):
            top = i * block
            extent = (-0.5, n_steps - 0.5, top + len(values), top)
            ax.imshow(scale.rgba(values), extent=extent, aspect="auto", interpolation="nearest")
            ax.text(-0.5, top - 0.08, f"code {k}", va="bottom", fontweight="bold", fontsize="small")
            places += (top + 0.5 + np.arange(len(values))).tolist()
        labels = [plain(names[j]) for columns in most for j in columns]
        ax.set_yticks(places, labels, fontsize="small")
        ax.set_ylim(len(codes) * block - 1, -0.95)
        self._label_steps(ax, np.arange(n_steps))
        self.ax_ = ax
        scale.add_bar(ax, "change, in deviations of column")

    def _label_steps(self, ax: Any, places: Any) -> None:
        ax.set_xticks(places, [f"{100 * q:.3g}%" for q in self.quantiles], fontsize="small")
        ax.set_xlabel("quantile of the code")
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)


class _Scale:
    """Colours of numbers: white for 0 if there are negative ones, and grey for NaN."""

    def __init__(self, plt: Any, values: np.ndarray, cmap: Any) -> None:
        high = float(np.nan_to_num(np.abs(values)).max(initial=0)) or 1.0
        has_negative = bool((values < 0).any())
        if cmap is None:
            cmap = "RdBu_r" if has_negative else "viridis"
        low = 0.0 if cmap == "viridis" else -high
        norm = plt.Normalize(low, high)
        colors = plt.get_cmap(cmap).with_extremes(bad=_MISSING)
        self._mappable = plt.cm.ScalarMappable(norm, colors)

    def rgba(self, values: Any) -> np.ndarray:
        """Return the colours of an array of numbers."""
        flat = self._mappable.to_rgba(np.ravel(values))
        rgba: np.ndarray = flat.reshape(*np.shape(values), 4)
        return rgba

    def ink(self, value: float) -> str:
        """Return the colour of a text on the colour of a number."""
        red, green, blue, _ = self.rgba(value)
        return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"

    def add_bar(self, ax: Any, label: str, *, below: bool = False) -> None:
        """Draw the colours beside or below axes."""
        place = {"location": "bottom", "fraction": 0.08} if below else {"location": "right"}
        bar = ax.figure.colorbar(self._mappable, ax=ax, aspect=30, pad=0.03, **place)
        bar.set_label(label if below else fill(label, 22), fontsize="small")
        bar.ax.tick_params(labelsize="small")
        bar.outline.set_visible(False)


def _names(given: Any, n_columns: int) -> list[str]:
    """Return the names of columns, shortened in their middle, or their numbers."""
    if given is None:
        return [f"column {j}" for j in range(n_columns)]
    if len(given) != n_columns:
        raise ValueError(
            f"There are {len(given)} feature_names for {n_columns} columns. Pass a name for each "
            "column."
        )
    half = (_LONGEST_NAME - 1) // 2
    names = [str(name) for name in given]
    return [
        name if len(name) <= _LONGEST_NAME else f"{name[:half]}\u2026{name[-half:]}"
        for name in names
    ]


def _most_changed(changes: np.ndarray, column_of: np.ndarray, n_most: int) -> np.ndarray:
    """Return the positions with the largest ranges, one for each column of X."""
    order = np.argsort(-np.ptp(changes, axis=0), kind="stable")
    _, first = np.unique(np.asarray(column_of)[order], return_index=True)
    return order[np.sort(first)[:n_most]]


def _position(row: int, n_rows: int) -> np.ndarray:
    """Return the position of a row as an array."""
    if not isinstance(row, Integral):
        raise TypeError(f"row must be the position of a row as an int, got {row!r}.")
    if not -n_rows <= row < n_rows:
        raise ValueError(f"row must be a position among the {n_rows} rows of X, got {row}.")
    return np.array([row % n_rows])


def _short(value: float) -> str:
    """Return a number with two digits after the point, and without a sign if that leaves 0."""
    if np.isnan(value):
        return "\u2013"
    text = f"{value:.2f}"
    return "0" if float(text) == 0 else text.replace("-", "\u2212")


def _grid(pictures: np.ndarray) -> tuple[np.ndarray, tuple[list[float], list[float]]]:
    """Return one picture of pictures of shape (n_lines, n_in_line, height, width, 4).

    Also return the vertical centre of each line and the horizontal centre of each column.
    """
    n_lines, n_in_line, height, width, _ = pictures.shape
    gap = max(1, round(0.08 * max(height, width)))
    canvas = np.zeros((n_lines * (height + gap) - gap, n_in_line * (width + gap) - gap, 4))
    tops, lefts = (
        np.arange(n) * (size + gap) for n, size in ((n_lines, height), (n_in_line, width))
    )
    for top, line in zip(tops, pictures, strict=True):
        for left, picture in zip(lefts, line, strict=True):
            canvas[top : top + height, left : left + width] = picture
    centers = (tops + (height - 1) / 2).tolist(), (lefts + (width - 1) / 2).tolist()
    return canvas, centers


def _pictures_of_codes(plt: Any, ax: Any, pictures: np.ndarray, codes: list[int]) -> Any:
    """Draw a picture for each code under its name, in lines of several."""
    n, height, width, _ = pictures.shape
    n_lines = -(-n // _PICTURES_IN_LINE)
    n_in_line = -(-n // n_lines)
    label = 0.22 * max(height, width)  # room for a name
    step_x, step_y = width * 1.08, height + label * 1.25
    if ax is None:
        inch = 1.15 / max(height, width)
        figsize = (max(3.6, n_in_line * step_x * inch + 0.2), n_lines * step_y * inch + 0.8)
        ax = plt.figure(figsize=figsize, layout="compressed").add_subplot()
    for i, (k, picture) in enumerate(zip(codes, pictures, strict=True)):
        left, top = i % n_in_line * step_x, i // n_in_line * step_y
        extent = (left, left + width, top + height, top)
        ax.imshow(picture, extent=extent, interpolation="nearest")
        ax.text(left + width / 2, top - 0.1 * label, f"code {k}", ha="center", va="bottom")
        ax.add_patch(
            plt.Rectangle((left, top), width, height, fill=False, edgecolor="0.7", linewidth=0.8)
        )
    ax.set_xlim(-0.02 * width, n_in_line * step_x - 0.06 * width)
    ax.set_ylim(n_lines * step_y - label * 1.2, -label * 1.1)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
    return ax
