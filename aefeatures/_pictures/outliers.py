"""Display of what makes rows unusual."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from aefeatures._bridges.pipelines import flat_steps, names_out
from aefeatures._detection import AutoencoderOutlierDetector, explanation_of
from aefeatures._pictures.displays import PALETTE, import_pyplot, plain
from aefeatures._pictures.reconstructions import arrange, image_limits, picture_shape, to_rgba
from aefeatures._rows.checks import as_numpy, take_samples
from aefeatures._rows.columns import is_frame

_INCHES = 0.8  # length of the longer side of a picture
_INCHES_OF_BAR = 0.17
_INCHES_OF_LONGEST = 1.2  # length of the longest bar
_INCHES_OF_LETTER = 0.055
_MOST_TIMES = 30  # length of the longest bar in those of other rows, on a linear scale
_MARK = PALETTE[6]  # of what is unusual; not red and green, and unlike any grey
_MISSING = "#c9a0a0"
_LONGEST_TEXT = 18  # characters of a value
_LONGEST_NAME = 22  # characters of a column


class OutlierDisplay:
    """The columns that make rows unusual.

    Each row has a bar for each of its most unusual columns, as long as the part of the column, with
    the value and the value that was expected. The scale is logarithmic if the longest bars of rows
    differ by more than a factor of 30. For images there are three lines: the image, what was
    expected, and the image in grey with a colour over the pixels that are unusual.

    Parameters
    ----------
    column : array-like of int of shape (n_samples, n_columns)
        Positions of columns, the most unusual one first, as in `Explanation`.
    value, expected, part : array-like of shape (n_samples, n_columns)
        Values of these columns, expected values, and their parts in the unusualness.
    row_names : list of str, default=None
        Titles of the rows. By default "row 0", "row 1" and so on.
    feature_names : array-like of str of shape (n_features,), default=None
        Names of the columns. By default "x0", "x1" and so on.
    image_shape : tuple of int, default=None
        (channels, height, width), or (height, width) for one channel. Rows are then drawn as
        images, and need an entry for each of their columns.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        The axes that contain the whole picture.
    figure_ : matplotlib.figure.Figure

    See Also
    --------
    AutoencoderOutlierDetector.explain : The same as numbers.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from aefeatures import AutoencoderOutlierDetector, OutlierDisplay
    >>> X, _ = load_wine(return_X_y=True, as_frame=True)
    >>> detector = AutoencoderOutlierDetector(random_state=0).fit(X)
    >>> OutlierDisplay.from_estimator(detector, X)
    <...OutlierDisplay object at ...>
    """

    def __init__(
        self,
        column: Any,
        value: Any,
        expected: Any,
        part: Any,
        *,
        row_names: Sequence[str] | None = None,
        feature_names: Sequence[str] | None = None,
        image_shape: Sequence[int] | None = None,
    ) -> None:
        self.column = column
        self.value = value
        self.expected = expected
        self.part = part
        self.row_names = row_names
        self.feature_names = feature_names
        self.image_shape = image_shape

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        n_samples: int = 4,
        n_columns: int = 5,
        image_shape: Sequence[int] | None = None,
        feature_names: Sequence[str] | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Explain the most unusual rows of X and draw them.

        Parameters
        ----------
        estimator : AutoencoderOutlierDetector, or a Pipeline or search that ends in one
            Fitted estimator. Rows are drawn as the steps before the detector return them.
        X : {array-like, sparse matrix, frame} of shape (n_samples, n_features)
        n_samples : int, default=4
            Largest number of rows to draw: the most unusual ones first.
        n_columns : int, default=5
            Largest number of bars for each row.
        image_shape : tuple of int, default=None
            (channels, height, width), or (height, width) for one channel. The rows are then drawn
            as images.
        feature_names : array-like of str of shape (n_features,), default=None
            Names of the columns. By default the names seen in `fit`, or the names that the steps
            before the detector return, if there are any.
        ax : matplotlib.axes.Axes, default=None
            Axes to draw in. By default a new figure is made.
        **kwargs
            Passed to `plot`.

        Returns
        -------
        display : OutlierDisplay

        Raises
        ------
        TypeError
            If `estimator` does not end in an `AutoencoderOutlierDetector`.
        NotFittedError
            If the detector is not fitted.
        ValueError
            If `n_samples` or `n_columns` is below 1, or `image_shape` does not fit the columns.
        """
        for name, number in {"n_samples": n_samples, "n_columns": n_columns}.items():
            if number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}.")
        *before, detector = flat_steps(estimator)
        if not isinstance(detector, AutoencoderOutlierDetector):
            raise TypeError(
                "estimator must be an AutoencoderOutlierDetector or a Pipeline that ends in one, "
                f"got {estimator!r}."
            )
        check_is_fitted(detector)
        for step in before:
            X = step.transform(X)
        scores = as_numpy(detector.score_samples(X))
        rows = np.argsort(scores, kind="stable")[:n_samples]
        shown = take_samples(X, rows)
        explanation = explanation_of(detector, shown, None if image_shape else n_columns)
        if feature_names is None:
            feature_names = shown.columns if is_frame(shown) else names_out(before)
        names = np.asarray(X.index)[rows] if hasattr(X, "index") else rows
        titles = [f"row {name}" for name in names]
        if len(detector.calibration_scores_):
            p_values = as_numpy(detector.p_values(shown))
            titles = [f"{title}, p = {p:.2g}" for title, p in zip(titles, p_values, strict=True)]
        display = cls(
            *explanation, row_names=titles, feature_names=feature_names, image_shape=image_shape
        )
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax: Any = None) -> Self:
        """Draw the rows.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Axes to draw in. By default a new figure is made.

        Returns
        -------
        self

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If the arrays are empty or differ in shape, or do not fit `image_shape`, if images have
            neither 1 nor 3 channels, or if a row or a column has no name.
        """
        arrays = [np.asarray(each) for each in (self.column, self.value, self.expected, self.part)]
        if arrays[0].ndim != 2 or len({each.shape for each in arrays}) > 1:
            raise ValueError(
                "column, value, expected and part must have the same shape (n_samples, n_columns), "
                f"got {', '.join(str(each.shape) for each in arrays)}."
            )
        n_samples, n_columns = arrays[0].shape
        if not (n_samples and n_columns):
            raise ValueError(f"There is nothing to draw in arrays of shape {arrays[0].shape}.")
        given = range(n_samples) if self.row_names is None else self.row_names
        titles = [f"row {name}" if self.row_names is None else str(name) for name in given]
        if len(titles) != n_samples:
            raise ValueError(
                f"There are {len(titles)} row_names for {n_samples} rows. Pass a name for each row."
            )
        names, last = self.feature_names, int(arrays[0].max())
        if names is not None and len(names) <= last:
            raise ValueError(
                f"There are {len(names)} feature_names, but column {last} is shown. Pass a name "
                "for each column."
            )
        plt = import_pyplot()
        plot = self._plot_bars if self.image_shape is None else self._plot_images
        self.ax_ = plot(plt, ax, titles, *arrays)
        self.figure_ = self.ax_.figure
        return self

    def _plot_bars(
        self,
        plt: Any,
        ax: Any,
        titles: Sequence[str],
        column: np.ndarray,
        value: np.ndarray,
        expected: np.ndarray,
        part: np.ndarray,
    ) -> Any:
        n_samples, n_columns = column.shape
        block = n_columns + 1.7  # lines of a row, with its title
        names = [self._name(each) for each in column.ravel()]
        texts = [
            [f" {_text(v)}, expected {_text(e)}" for v, e in zip(*both, strict=True)]
            for both in zip(value, expected, strict=True)
        ]
        # Values stand behind the bars, which leave them room.
        room = _INCHES_OF_LETTER * max(len(text) for line in texts for text in line)
        if ax is None:
            width = _INCHES_OF_LETTER * max(map(len, names)) + _INCHES_OF_LONGEST + room + 0.2
            size = (max(4.0, width), _INCHES_OF_BAR * block * n_samples + 0.5)
            ax = plt.figure(figsize=size, layout="constrained").add_subplot()
        style = {"va": "center", "fontsize": 7}
        for i, title in enumerate(titles):
            ax.text(0, i * block - 1, plain(title), fontweight="bold", **style)
            for j in range(n_columns):
                ax.text(part[i, j], i * block + j, texts[i][j], **style)
        y = (np.arange(n_samples)[:, None] * block + np.arange(n_columns)).ravel()
        ax.barh(y, part.ravel(), height=0.75, color=_MARK)
        ax.set_yticks(y, names, fontsize=7)
        longest = float(part.max()) or 1.0  # without anything unusual
        share = 1 + room / _INCHES_OF_LONGEST
        ax.set_xlim(0, share * longest)
        if part.max(axis=1).min() * _MOST_TIMES < part.max():
            ax.set_xscale("asinh")
            ax.set_xlim(0, np.sinh(share * np.arcsinh(longest)))
        ax.set_ylim(n_samples * block - 1.2, -1.7)
        ax.set_xticks([tick for tick in ax.get_xticks() if 0 <= tick <= longest])
        ax.minorticks_off()
        ax.tick_params(axis="x", labelsize=7)
        ax.tick_params(axis="y", length=0)
        ax.set_xlabel("part of the column, in typical deviations", fontsize=7, loc="left")
        ax.spines[["top", "right", "bottom"]].set_visible(False)
        return ax

    def _plot_images(
        self,
        plt: Any,
        ax: Any,
        titles: Sequence[str],
        column: np.ndarray,
        value: np.ndarray,
        expected: np.ndarray,
        part: np.ndarray,
    ) -> Any:
        shape = picture_shape(self.image_shape, column.shape[1])
        order = np.argsort(column, axis=1)
        value, expected, part = (
            np.take_along_axis(each, order, axis=1) for each in (value, expected, part)
        )
        limits = image_limits(value)
        grey, missing = plt.get_cmap("gray"), plt.matplotlib.colors.to_rgba(_MISSING)
        lines = [to_rgba(each, shape, limits, grey, missing) for each in (value, expected)]
        lines.append(_marked(lines[0], part.reshape(-1, *shape).max(axis=1), plt))
        canvas, centers = arrange(lines, group=len(lines))
        height, width = shape[1:]
        if ax is None:
            inch = _INCHES / max(height, width)
            size = (canvas.shape[1] * inch + 0.8, canvas.shape[0] * inch + 0.4)
            # "constrained" ignores that the axes shrink to the proportions of the pictures.
            ax = plt.figure(figsize=size, layout="compressed").add_subplot()
        ax.imshow(canvas, interpolation="nearest" if max(height, width) < 64 else "antialiased")
        ax.set_yticks(centers, ["row", "expected", "unusual"], fontsize=8)
        step = canvas.shape[1] / len(titles)
        middles = step * np.arange(len(titles)) + (width - 1) / 2
        names = [plain(title).replace(", p = ", "\np = ") for title in titles]
        ax.set_xticks(middles, names, fontsize=7)
        ax.xaxis.tick_top()
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        return ax

    def _name(self, position: int) -> str:
        name = f"x{position}" if self.feature_names is None else self.feature_names[position]
        return _short(plain(name), _LONGEST_NAME)


def _marked(images: np.ndarray, part: np.ndarray, plt: Any) -> np.ndarray:
    """Return images in light grey, with a colour where a part is large among those of all rows.

    The colour is full for the largest 3%: a pixel that is black in all training rows may have a
    part many times as large as the others.
    """
    grey = images[..., :3].mean(axis=-1, keepdims=True)
    light = 0.6 + 0.4 * grey
    most = max(float(np.quantile(part, 0.97)), 1e-300)
    strength = np.clip(part / most, 0, 1)[..., None]
    color = np.array(plt.matplotlib.colors.to_rgb(_MARK))
    mixed = (1 - strength) * light + strength * color
    return np.concatenate([mixed, np.ones_like(grey)], axis=-1)


def _text(value: Any) -> str:
    if isinstance(value, (float, np.floating)):
        return f"{value:.4g}"
    value = str(value).removesuffix(" 00:00:00")  # a date
    return _short(plain(value), _LONGEST_TEXT)


def _short(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
