"""Displays of rows and their reconstructions, and a callback that keeps them after each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
import sklearn
from scipy import sparse
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_array

from aefeatures._autoencoder import AutoencoderTransformer, fitted_model
from aefeatures._bridges.pipelines import find_steps, find_transformer, names_of_columns
from aefeatures._nets.networks import resolve_image_shape
from aefeatures._pictures.displays import PALETTE, import_pyplot, plain
from aefeatures._rows.checks import check_rows, take_samples
from aefeatures._rows.columns import (
    as_numbers,
    as_seconds,
    columns_of,
    factorized,
    is_frame,
    kind_of,
)
from aefeatures._rows.sources import as_source, evenly_spaced
from aefeatures._rows.table_scaling import TableScaling
from aefeatures._rows.tables import table_of
from aefeatures._sklearn import CallbackSupportMixin

_MISSING = "#c9a0a0"  # a colour that no grey picture has
_MOST_BARS = 30
_WORST_BARS = 15  # number of bars if there are more columns than _MOST_BARS
_MOST_EPOCHS = 10
_INCHES = 0.8  # length of the longer side of a picture
_FONT_SIZE = 6.5  # of a table
_LONGEST_TEXT = 13  # characters in a cell of a table
_KINDS = ("auto", "image", "bars", "strips", "table")
_NUMBERS = {"number", "integer", "boolean", "unknown"}


class ReconstructionDisplay:
    """Rows above their reconstructions.

    Rows are drawn as images if they have an `image_shape`, and as bars otherwise. If a table has
    many columns, bars show the columns that are reconstructed worst. Many columns without names are
    drawn as strips of colour. A table with categories is drawn as a table, with bars for numbers
    and dates, and text for levels. Levels that change are written twice. With reconstructions after
    several epochs, images, bars and tables show the originals and the reconstructions once for each
    epoch.

    Parameters
    ----------
    originals : array-like or frame of shape (n_samples, n_features)
        Rows as they are. Missing values (NaN) are left out, or have their own colour.
    reconstructions : array-like of shape (n_samples, n_features) or \
(n_snapshots, n_samples, n_features)
        Reconstructions of these rows, a frame or a list of frames if `originals` is a frame.
        Snapshots are reconstructions made during the training.
    image_shape : tuple of int, default=None
        (channels, height, width), or (height, width) for one channel. 1 channel is grey,
        3 channels are red, green and blue.
    feature_names : array-like of str of shape (n_features,), default=None
        Names beside the bars.
    center, scale : float or array-like of shape (n_features,), default=0.0 and 1.0
        Bars and strips show ``(value - center) / scale``, since columns of different
        units have no common axis. Dates and durations are in seconds. A column whose scale is NaN
        is written as text, like a column of text. `from_estimator` uses the scaling of the
        transformer.
    snapshot_names : list of str, default=None
        Labels of the reconstructions. By default "epoch 1" and so on, or "reconstruction" if there
        is only one snapshot.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        The axes that contain the whole picture.
    figure_ : matplotlib.figure.Figure

    See Also
    --------
    ReconstructionMonitor : Keeps reconstructions of each epoch.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from aefeatures import AutoencoderTransformer, ReconstructionDisplay
    >>> X, _ = load_digits(return_X_y=True)
    >>> transformer = AutoencoderTransformer(max_epochs=5).fit(X)
    >>> ReconstructionDisplay.from_estimator(transformer, X, image_shape=(8, 8))
    <...ReconstructionDisplay object at ...>
    """

    def __init__(
        self,
        originals: Any,
        reconstructions: Any,
        *,
        image_shape: Sequence[int] | None = None,
        feature_names: Sequence[str] | None = None,
        center: Any = 0.0,
        scale: Any = 1.0,
        snapshot_names: Sequence[str] | None = None,
    ) -> None:
        self.originals = originals
        self.reconstructions = reconstructions
        self.image_shape = image_shape
        self.feature_names = feature_names
        self.center = center
        self.scale = scale
        self.snapshot_names = snapshot_names

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        image_shape: Sequence[int] | None = None,
        n_samples: int = 5,
        feature_names: Sequence[str] | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Reconstruct rows of X and draw them.

        Parameters
        ----------
        estimator : AutoencoderTransformer, Pipeline, search or FrozenEstimator
            Fitted estimator. In a pipeline the first autoencoder is used, and the rows are drawn as
            the steps before it return them.
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        image_shape : tuple of int, default=None
            (channels, height, width), or (height, width) for one channel.
        n_samples : int, default=5
            Largest number of rows to draw. If X has more rows, evenly spaced ones are drawn, since
            some data is sorted by class.
        feature_names : array-like of str of shape (n_features,), default=None
            Names of the columns. By default the names seen in `fit`, or the names that the steps
            before the autoencoder return, if there are any.
        ax : matplotlib.axes.Axes, default=None
            Axes to draw in. By default a new figure is made.
        **kwargs
            Passed to `plot`.

        Returns
        -------
        display : ReconstructionDisplay

        Raises
        ------
        NotFittedError
            If the autoencoder is not fitted.
        ValueError
            If the number of entries of `image_shape` is not the number of columns of X.
        """
        transformer, X = find_transformer(estimator, X)
        rows = check_rows(transformer, X, reset=False)
        index = evenly_spaced(rows.shape[0], n_samples)
        if feature_names is None:
            feature_names = names_of_columns(transformer, find_steps(estimator)[1])
        if table_of(transformer) is not None:
            shown = take_samples(X, index)
            reconstructed = transformer.reconstruct(shown)
        else:
            shown = rows.checked(rows.take(index))
            source = as_source(shown)
            reconstructed = fitted_model(transformer).reconstruct(source, transformer.device_)
        display = cls(
            shown,
            reconstructed,
            image_shape=image_shape,
            **_columns_of(transformer, feature_names),
        )
        return display.plot(ax=ax, **kwargs)

    def plot(
        self,
        ax: Any = None,
        *,
        kind: Literal["auto", "image", "bars", "strips", "table"] = "auto",
        vmin: float | None = None,
        vmax: float | None = None,
        cmap: Any = None,
        max_features: int | None = None,
    ) -> Self:
        """Draw the rows.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Axes to draw in. By default a new figure is made.
        kind : {"auto", "image", "bars", "strips", "table"}, default="auto"
            Form of the picture. "auto" means "image" if there is an `image_shape`, and "table" if
            any column holds text. Otherwise it means "bars" if the columns have names or are at
            most 30, and "strips" if not.
        vmin, vmax : float, default=None
            Values drawn darkest and brightest, or at the ends of the bars. By default 0 and 255
            for images of uint8, and 0 and 1 for other images within this range. In all other cases
            they are the smallest and the largest value drawn (for images, of the originals).
        cmap : str or matplotlib.colors.Colormap, default=None
            Colours of grey images (by default "gray") and of strips.
        max_features : int, default=None
            Largest number of columns that bars and tables show. If there are more columns, the ones
            with the largest mean absolute difference between the drawn rows and their
            reconstructions are shown, in units of `scale` and the worst first. A changed level
            counts as a difference of 1. The last of several snapshots decides.
            None shows all columns if there are at most 30, and otherwise 15.

        Returns
        -------
        self

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If originals and reconstructions differ in shape or do not fit `image_shape`, if `kind`
            is unknown or does not show text, or if `max_features` is below 1.
        """
        if kind not in _KINDS:
            raise ValueError(
                f"kind must be 'auto', 'image', 'bars', 'strips' or 'table', got {kind!r}."
            )
        if max_features is not None and max_features < 1:
            raise ValueError(f"max_features must be at least 1, got {max_features}.")
        originals, snapshots, levels = self._checked_rows()
        n_features = originals.shape[1]
        if self.image_shape is not None or kind == "image":
            shape = picture_shape(self.image_shape, n_features)
        if kind == "auto":
            kind = self._resolve_kind(n_features, has_text=bool(levels))
        if levels and kind != "table":
            raise ValueError(
                f"kind={kind!r} shows numbers, but column {next(iter(levels))} holds text. Use "
                "kind='table', and leave image_shape at None."
            )
        plt = import_pyplot()
        if kind == "image":
            self._plot_images(plt, ax, originals, snapshots, shape, (vmin, vmax), cmap)
            self.figure_ = self.ax_.figure
            return self
        is_text = np.isin(np.arange(n_features), list(levels))
        originals = np.where(is_text, originals, (originals - self.center) / self.scale)
        snapshots = np.where(is_text, snapshots, (snapshots - self.center) / self.scale)
        columns: Any = np.arange(n_features)
        if kind != "strips":
            columns = _worst_columns(originals, snapshots[-1], is_text, max_features)
            originals, snapshots = originals[:, columns], snapshots[..., columns]
        limits = _limits([originals, *snapshots], ~is_text[columns], vmin, vmax)
        if kind == "bars":
            self._plot_bars(plt, ax, originals, snapshots, limits, columns)
        elif kind == "table":
            texts = [levels.get(j) for j in columns]
            self._plot_table(plt, ax, originals, snapshots, limits, columns, texts)
        else:
            self._plot_strips(plt, ax, originals, snapshots, limits, cmap)
        self.figure_ = self.ax_.figure
        return self

    def _resolve_kind(
        self, n_features: int, *, has_text: bool
    ) -> Literal["image", "bars", "strips", "table"]:
        if self.image_shape is not None:
            return "image"
        if has_text:
            return "table"
        return "bars" if self.feature_names is not None or n_features <= _MOST_BARS else "strips"

    def _checked_rows(self) -> tuple[np.ndarray, np.ndarray, dict[int, list[str]]]:
        """Return originals and reconstructions as numbers, and the texts of columns of text.

        Reconstructions have an axis of snapshots in front. A text is its position among the texts
        of its column, NaN if it is missing.
        """
        given: list[Any] = [self.originals]
        several = (
            isinstance(self.reconstructions, list | tuple) or np.ndim(self.reconstructions) > 2
        )
        given += list(self.reconstructions) if several else [self.reconstructions]
        levels: dict[int, list[str]] = {}
        if np.isnan(self.scale).any() or any(_holds_others(rows) for rows in given):
            (originals, *others), levels = _as_numbers(given, np.isnan(self.scale))
            snapshots = np.array(others)
        else:
            originals = check_array(self.originals, dtype="numeric", ensure_all_finite="allow-nan")
            snapshots = check_array(
                self.reconstructions, dtype="numeric", ensure_all_finite="allow-nan", allow_nd=True
            )
        snapshots = snapshots[None] if snapshots.ndim == 2 else snapshots
        if snapshots.ndim != 3 or snapshots.shape[1:] != originals.shape:
            raise ValueError(
                f"reconstructions must have the shape of originals, {originals.shape}, for each "
                f"snapshot if there are several, got {np.shape(self.reconstructions)}."
            )
        if self.feature_names is not None and len(self.feature_names) != originals.shape[1]:
            raise ValueError(
                f"There are {len(self.feature_names)} feature_names for {originals.shape[1]} "
                "columns. Pass a name for each column."
            )
        return originals, snapshots, levels

    def _snapshot_names(self, n: int) -> list[str]:
        if self.snapshot_names is not None:
            return [plain(name) for name in self.snapshot_names]
        return ["reconstruction"] if n == 1 else [f"epoch {i + 1}" for i in range(n)]

    def _plot_images(
        self,
        plt: Any,
        ax: Any,
        originals: np.ndarray,
        snapshots: np.ndarray,
        shape: tuple[int, int, int],
        limits: tuple[float | None, float | None],
        cmap: Any,
    ) -> None:
        height, width = shape[1:]
        darkest, brightest = image_limits(originals)
        low = darkest if limits[0] is None else limits[0]
        high = brightest if limits[1] is None else limits[1]
        colors = plt.get_cmap("gray" if cmap is None else cmap)
        missing = plt.matplotlib.colors.to_rgba(_MISSING)
        lines, names = [], []
        for rows, name in zip(snapshots, self._snapshot_names(len(snapshots)), strict=True):
            lines += [
                to_rgba(each, shape, (low, high), colors, missing) for each in (originals, rows)
            ]
            names += ["original", name]
        canvas, centers = arrange(lines)
        if ax is None:
            inch = _INCHES / max(height, width)
            longest = max(len(name) for name in names)
            size = (canvas.shape[1] * inch + 0.08 * longest + 0.3, canvas.shape[0] * inch + 0.15)
            # "constrained" ignores that the axes shrink to the proportions of the pictures.
            ax = plt.figure(figsize=size, layout="compressed").add_subplot()
        ax.imshow(canvas, interpolation="nearest" if max(height, width) < 64 else "antialiased")
        ax.set_xticks([])
        ax.set_yticks(centers, names)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        self.ax_ = ax

    def _plot_bars(
        self,
        plt: Any,
        ax: Any,
        originals: np.ndarray,
        snapshots: np.ndarray,
        limits: tuple[float, float],
        columns: np.ndarray,
    ) -> None:
        n_samples, n_features = originals.shape
        labels = self._names(columns)
        low, high = min(0.0, *limits), max(0.0, *limits)
        width = 1.08 * max(high - low, 1e-300)  # of a cell, in units of the values
        block = n_features + 1.6
        n_rows = 2 * len(snapshots)
        if ax is None:
            longest = max(len(label) for label in labels)
            size = (1.1 * n_samples + 0.075 * longest + 0.3, 0.15 * block * n_rows + 0.2)
            ax = plt.figure(figsize=size, layout="constrained").add_subplot()
        titles = self._snapshot_names(len(snapshots))
        positions: list[float] = []
        for i in range(n_rows):
            rows = snapshots[i // 2] if i % 2 else originals
            y = i * block + np.arange(n_features)
            positions.extend(y)
            ax.text(
                low, y[0] - 0.75, titles[i // 2] if i % 2 else "original",
                va="bottom", fontsize="small", fontweight="bold",
            )  # fmt: skip
            for k, row in enumerate(rows):
                zero = k * width
                known = np.isfinite(row)
                shown = np.clip(row[known], low, high)
                ax.barh(y[known], shown, left=zero, height=0.8, color=PALETTE[i % 2])
                ax.plot([zero, zero], [y[0] - 0.5, y[-1] + 0.5], color="0.6", linewidth=0.8)
                ax.plot(np.full((~known).sum(), zero), y[~known], "x", color=_MISSING, markersize=5)
        ax.set_yticks(positions, labels * n_rows, fontsize="x-small")
        self._finish_cells(ax, (low, width * n_samples), n_rows * block - 1.6, -1.8)
        self._note_columns(ax, n_features)

    def _plot_table(
        self,
        plt: Any,
        ax: Any,
        originals: np.ndarray,
        snapshots: np.ndarray,
        limits: tuple[float, float],
        columns: np.ndarray,
        texts: list[list[str] | None],
    ) -> None:
        """Draw a cell for each entry: bars of a number, or a level and what it becomes."""
        n_samples, n_columns = originals.shape
        labels = self._names(columns)
        low, high = min(0.0, *limits), max(0.0, *limits)
        width = 1.08 * max(high - low, 1e-300)  # of a cell, in units of the values
        block = n_columns + 1.4
        if ax is None:
            longest = max(len(label) for label in labels)
            size = (0.8 * n_samples + 0.06 * longest + 0.2, 0.25 * block * len(snapshots) + 0.1)
            ax = plt.figure(figsize=size, layout="constrained").add_subplot()
        style = {"fontsize": _FONT_SIZE, "va": "center"}
        names = self._snapshot_names(len(snapshots))
        lines: list[float] = []
        for b, (rows, name) in enumerate(zip(snapshots, names, strict=True)):
            top = b * block
            title = {**style, "fontweight": "bold"}
            ax.text(low, top - 0.9, "original", color=PALETTE[0], **title)
            ax.text(low + 0.85 * width, top - 0.9, f"\u2192 {name}", color=PALETTE[6], **title)
            for (k, j), original in np.ndenumerate(originals):
                y, zero = top + j, k * width
                level = texts[j]
                if level is not None:
                    both = [_name_of(value, level) for value in (original, rows[k, j])]
                    _write_levels(ax, (zero + low, y), both, style)
                else:
                    _draw_bars(ax, (zero, y), (original, rows[k, j]), (low, high))
            lines.extend(top + np.arange(n_columns))
            ax.hlines(
                top + np.arange(n_columns + 1) - 0.5, low, low + width * n_samples, "0.9", lw=0.6
            )
        ax.set_yticks(lines, labels * len(snapshots), fontsize=_FONT_SIZE)
        self._finish_cells(ax, (low, width * n_samples), len(snapshots) * block - 1.9, -1.4)
        self._note_columns(ax, n_columns, fontsize=_FONT_SIZE)

    def _names(self, columns: np.ndarray) -> list[str]:
        """Return the names of columns, or their numbers if they have none."""
        names = self.feature_names
        return [plain(j if names is None else names[j]) for j in columns.tolist()]

    def _note_columns(self, ax: Any, n_columns: int, **style: Any) -> None:
        """Write below the picture which columns it shows, if it does not show all."""
        n_all = np.shape(self.originals)[1]
        if n_columns < n_all:
            ax.set_xlabel(
                f"{n_columns} of {n_all} columns: those reconstructed worst, worst first",
                loc="left",
                **style,
            )

    def _finish_cells(
        self, ax: Any, across: tuple[float, float], bottom: float, top: float
    ) -> None:
        ax.tick_params(length=0)
        ax.set_xticks([])
        ax.set_xlim(across[0], across[0] + across[1])
        ax.set_ylim(bottom, top)
        ax.spines[:].set_visible(False)
        self.ax_ = ax

    def _plot_strips(
        self,
        plt: Any,
        ax: Any,
        originals: np.ndarray,
        snapshots: np.ndarray,
        limits: tuple[float, float],
        cmap: Any,
    ) -> None:
        n_samples, n_features = originals.shape
        n_strips = 1 + len(snapshots)
        low, high = limits
        if cmap is None:
            cmap = "RdBu_r" if low < 0 < high else "viridis"
            if low < 0 < high:
                low, high = -max(-low, high), max(-low, high)
        colors = plt.get_cmap(cmap)
        strips = np.concatenate([originals[:, None], snapshots.swapaxes(0, 1)], axis=1)
        missing = np.isnan(strips)
        shown = colors(np.clip((np.nan_to_num(strips) - low) / max(high - low, 1e-300), 0, 1))
        shown[missing] = plt.matplotlib.colors.to_rgba(_MISSING)
        if ax is None:
            size = (6.4, 0.22 * n_samples * (n_strips + 0.6) + 0.9)
            ax = plt.figure(figsize=size, layout="constrained").add_subplot()
        positions: list[float] = []
        names = ["original", *self._snapshot_names(len(snapshots))]
        for i, picture in enumerate(shown):
            top = i * (n_strips + 0.6)
            ax.imshow(
                picture,
                aspect="auto",
                interpolation="nearest",
                extent=(-0.5, n_features - 0.5, top + n_strips, top),
            )
            positions.extend(top + 0.5 + np.arange(n_strips))
        ax.set_yticks(positions, names * n_samples, fontsize="small")
        ax.set_ylim(top + n_strips, 0)
        ax.set_xlabel("column")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.tick_params(axis="y", length=0)
        ax.spines[:].set_visible(False)
        mappable = plt.cm.ScalarMappable(plt.Normalize(low, high), colors)
        scaled = np.any(np.asarray(self.center) != 0) or np.any(np.asarray(self.scale) != 1)
        ax.figure.colorbar(mappable, ax=ax, label="scaled value" if scaled else "value")
        self.ax_ = ax


class ReconstructionMonitor:
    """Callback for scikit-learn that keeps reconstructions of some rows after every epoch.

    Set it on the transformer, even if the transformer is a step of a pipeline or part of a search:
    ``AutoencoderTransformer().set_callbacks(monitor)``. It keeps the reconstructions of the last
    `fit` that ended in this process. The last `fit` of a search is the one with the best
    parameters.

    Parameters
    ----------
    X_view : array-like of shape (n_samples, n_features)
        Rows to reconstruct, in the form that the transformer gets.

    Attributes
    ----------
    reconstructions_ : ndarray of shape (n_epochs, n_samples, n_features)
        Reconstructions of the rows after each epoch, in the units of X. They are objects if X is a
        table with categories.

    Raises
    ------
    ImportError
        If scikit-learn is older than 1.9, which has no callbacks.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from aefeatures import AutoencoderTransformer, ReconstructionMonitor
    >>> X, _ = load_digits(return_X_y=True)
    >>> monitor = ReconstructionMonitor(X[:5])
    >>> transformer = AutoencoderTransformer(max_epochs=3).set_callbacks(monitor).fit(X)
    >>> monitor.reconstructions_.shape
    (3, 5, 64)
    >>> monitor.display(image_shape=(8, 8))
    <...ReconstructionDisplay object at ...>
    """

    def __init__(self, X_view: Any) -> None:
        if not hasattr(CallbackSupportMixin, "set_callbacks"):
            raise ImportError(
                "ReconstructionMonitor needs the callbacks of scikit-learn 1.9 or later, but this "
                f"is {sklearn.__version__}. Upgrade scikit-learn, or call partial_fit and "
                "reconstruct in a loop for the same pictures."
            )
        self.X_view = X_view
        self._running: dict[int, list[np.ndarray]] = {}  # one list per fit, as fits may overlap

    def setup(self, estimator: Any, context: Any) -> None:
        """Prepare for a fit that begins."""
        self._running[id(context)] = []

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        """Do nothing: reconstructions are made when an epoch has ended."""

    def on_fit_task_end(
        self, estimator: Any, context: Any, *, fitted_estimator: Any = None
    ) -> None:
        """Keep the reconstructions of the rows after an epoch."""
        if context.task_name != "epoch" or not isinstance(fitted_estimator, AutoencoderTransformer):
            return
        kept = self._running[id(context.parent)]
        kept.append(np.asarray(fitted_estimator.reconstruct(self.X_view)))
        self._columns = _columns_of(fitted_estimator)

    def teardown(self, estimator: Any, context: Any) -> None:
        """Store the reconstructions of a fit that has ended."""
        kept = self._running.pop(id(context))
        if kept:
            self.reconstructions_ = np.stack(kept)

    def display(
        self,
        *,
        image_shape: Sequence[int] | None = None,
        epochs: Sequence[int] | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> ReconstructionDisplay:
        """Draw the rows above their reconstructions, one pair for each epoch.

        Parameters
        ----------
        image_shape : tuple of int, default=None
            (channels, height, width), or (height, width) for one channel.
        epochs : sequence of int, default=None
            Epochs to draw, counted from 1. By default at most ten epochs, evenly spaced.
        ax : matplotlib.axes.Axes, default=None
            Axes to draw in. By default a new figure is made.
        **kwargs
            Passed to `ReconstructionDisplay.plot`.

        Returns
        -------
        display : ReconstructionDisplay

        Raises
        ------
        NotFittedError
            If no epoch has ended yet.
        """
        if not hasattr(self, "reconstructions_"):
            raise NotFittedError(
                "This ReconstructionMonitor has seen no epoch. Set it on the transformer itself, "
                "AutoencoderTransformer().set_callbacks(monitor), and fit."
            )
        n_epochs = len(self.reconstructions_)
        chosen = evenly_spaced(n_epochs, _MOST_EPOCHS) + 1 if epochs is None else np.asarray(epochs)
        if chosen.size == 0 or chosen.min() < 1 or chosen.max() > n_epochs:
            raise ValueError(f"epochs must be among 1 to {n_epochs}, got {chosen.tolist()}.")
        originals = self.X_view if _holds_others(self.X_view) else _dense_array(self.X_view)
        display = ReconstructionDisplay(
            originals,
            self.reconstructions_[chosen - 1],
            image_shape=image_shape,
            snapshot_names=[f"epoch {epoch}" for epoch in chosen],
            **self._columns,
        )
        return display.plot(ax=ax, **kwargs)


def _columns_of(transformer: AutoencoderTransformer, names: Any = None) -> dict[str, Any]:
    """Return names and scaling of a fitted transformer's columns, as arguments of the display."""
    scaling = fitted_model(transformer).scaling
    if names is None:
        names = getattr(transformer, "feature_names_in_", None)
    if not isinstance(scaling, TableScaling):
        center, scale = scaling.offset.numpy(), scaling.scale.numpy()
    else:
        center, scale = np.full((2, scaling.n_features), np.nan)
        numbers = scaling.number_columns.numpy()
        center[numbers] = scaling.numbers.offset.numpy()
        scale[numbers] = scaling.numbers.scale.numpy()
    return {"feature_names": names, "center": center, "scale": scale}


def _holds_others(rows: Any) -> bool:
    """Whether rows hold something that is not a number."""
    if is_frame(rows):
        return any(kind_of(column) not in _NUMBERS for column in columns_of(rows))
    return isinstance(rows, np.ndarray) and rows.dtype.kind in "OUmM"


def _as_numbers(
    given: list[Any], is_text: np.ndarray
) -> tuple[list[np.ndarray], dict[int, list[str]]]:
    """Return tables of the same columns as matrices, and the texts of columns that hold text.

    A text is its position among the texts of its column, and a missing value is NaN.
    """
    tables = [columns_of(rows) for rows in given]
    if len({len(table) for table in tables}) > 1:
        raise ValueError("originals and reconstructions must have the same columns.")
    levels: dict[int, list[str]] = {}
    numbers: list[list[np.ndarray]] = [[] for _ in given]
    for j, (parts, is_chosen) in enumerate(
        zip(zip(*tables, strict=True), np.broadcast_to(is_text, len(tables[0])), strict=True)
    ):
        kinds = {kind_of(part) for part in parts} - {"unknown"}
        if not is_chosen and kinds <= _NUMBERS:
            found = [as_numbers(part) for part in parts]
        elif not is_chosen and kinds in ({"date"}, {"duration"}):
            found = [as_seconds(part) for part in parts]
        else:
            found, levels[j] = _as_places(parts)
        for matrix, column in zip(numbers, found, strict=True):
            matrix.append(column)
    return [np.array(matrix, np.float64).T for matrix in numbers], levels


def _as_places(parts: Sequence[Any]) -> tuple[list[np.ndarray], list[str]]:
    """Return the values of columns as positions in a list of texts, with NaN for missing ones."""
    texts: dict[str, int] = {}
    found = []
    for part in parts:
        codes, known = factorized(part)
        places = [texts.setdefault(str(value), len(texts)) for value in known]
        found.append(np.array([*places, np.nan])[codes])
    return found, [*texts]


def _limits(
    drawn: Sequence[np.ndarray], is_number: np.ndarray, vmin: float | None, vmax: float | None
) -> tuple[float, float]:
    """Return the ends of bars and colours: by default, the extreme values of columns of numbers."""
    values = np.concatenate([rows[:, is_number] for rows in drawn])
    known = values[~np.isnan(values)] if is_number.any() else np.zeros(1)
    low = float(known.min()) if vmin is None else vmin
    return low, float(known.max()) if vmax is None else vmax


def _name_of(place: float, texts: list[str]) -> str | None:
    return None if np.isnan(place) else texts[int(place)]


def _shortened(text: str) -> str:
    """Return a text without its middle if it is too long for a cell."""
    half = (_LONGEST_TEXT - 1) // 2
    return text if len(text) <= _LONGEST_TEXT else f"{text[:half]}\u2026{text[-half:]}"


def _write_levels(
    ax: Any, place: tuple[float, float], levels: list[str | None], style: dict[str, Any]
) -> None:
    """Write a level once, or, if it is changed, above what it became."""
    x, y = place
    original, rebuilt = (None if each is None else plain(_shortened(each)) for each in levels)
    if levels[0] == levels[1]:
        ax.text(x, y, original or "missing", color="0.35", **style)
        return
    color = PALETTE[0] if original else _MISSING
    ax.text(x, y - 0.22, original or "missing", color=color, **style)
    ax.text(x, y + 0.24, f"\u2192 {rebuilt or 'missing'}", color=PALETTE[6], **style)


def _draw_bars(
    ax: Any,
    place: tuple[float, float],
    values: tuple[float, float],
    ends: tuple[float, float],
) -> None:
    """Draw a number above its reconstruction, both from zero; a cross if it is missing."""
    zero, y = place
    for value, color, height in zip(values, (PALETTE[0], PALETTE[6]), (-0.19, 0.19), strict=True):
        if np.isnan(value):
            ax.plot(zero, y + height, "x", color=_MISSING, markersize=4)
        else:
            ax.barh(y + height, np.clip(value, *ends), left=zero, height=0.34, color=color)
    ax.plot([zero, zero], [y - 0.5, y + 0.5], color="0.6", linewidth=0.8)


def _dense_array(X: Any) -> np.ndarray:
    return check_array(
        X.toarray() if sparse.issparse(X) else np.asarray(X),
        dtype="numeric",
        ensure_all_finite="allow-nan",
    )


def _worst_columns(
    originals: np.ndarray,
    reconstructions: np.ndarray,
    is_text: np.ndarray,
    max_features: int | None,
) -> np.ndarray:
    """Return all columns, or if there are too many, those reconstructed worst, worst first."""
    n_features = originals.shape[1]
    if max_features is None:
        max_features = n_features if n_features <= _MOST_BARS else _WORST_BARS
    if n_features <= max_features:
        return np.arange(n_features)
    difference = np.abs(np.nan_to_num(reconstructions - originals))
    difference = np.where(is_text, difference > 0, difference).sum(axis=0)
    known = np.isfinite(originals).sum(axis=0)
    return np.argsort(-difference / np.maximum(known, 1), kind="stable")[:max_features]


def picture_shape(image_shape: Sequence[int] | None, n_features: int) -> tuple[int, int, int]:
    """Return (channels, height, width) of rows that can be drawn as images."""
    shape = resolve_image_shape(image_shape, n_features)
    if shape[0] not in (1, 3):
        raise ValueError(
            f"Images have 1 channel (grey) or 3 (red, green, blue), got image_shape={shape}."
        )
    return shape


def to_rgba(
    rows: np.ndarray,
    shape: tuple[int, int, int],
    limits: tuple[float, float],
    colors: Any,
    missing: Any,
) -> np.ndarray:
    """Return rows as images with colours, of shape (n_samples, height, width, 4)."""
    low, high = limits
    images = np.moveaxis(rows.reshape(-1, *shape).astype(float), 1, -1)
    images = np.clip((images - low) / max(high - low, 1e-300), 0, 1)
    opaque = np.ones_like(images[..., :1])
    grey = shape[0] == 1
    rgba = colors(images[..., 0]) if grey else np.concatenate([images, opaque], axis=-1)
    rgba[np.isnan(images).any(axis=-1)] = missing
    return rgba


def arrange(lines: list[np.ndarray], group: int = 2) -> tuple[np.ndarray, list[float]]:
    """Return one picture of all images, and the vertical centre of each line.

    Each line holds the images beside each other. Successive lines are groups, such as pairs of
    originals and reconstructions, with wider gaps between the groups.
    """
    n_samples, height, width, _ = lines[0].shape
    gap = max(1, round(0.08 * max(height, width)))
    step_y, step_x = height + gap, width + gap
    tops = [i * step_y + i // group * 2 * gap for i in range(len(lines))]
    canvas = np.zeros((tops[-1] + height, step_x * n_samples - gap, 4))
    for top, images in zip(tops, lines, strict=True):
        for k, image in enumerate(images):
            canvas[top : top + height, k * step_x : k * step_x + width] = image
    return canvas, [top + (height - 1) / 2 for top in tops]


def image_limits(images: np.ndarray) -> tuple[float, float]:
    """Return the values that are drawn black and white in images."""
    if images.dtype == np.uint8:
        return 0.0, 255.0
    if np.isnan(images).all():
        return 0.0, 1.0
    low, high = float(np.nanmin(images)), float(np.nanmax(images))
    return (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)
