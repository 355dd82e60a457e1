"""Pictures of a fitted transformer, to scikit-learn's contract of displays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
import sklearn
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from sklearn.utils import check_array
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d

from aefeatures._autoencoder import AutoencoderTransformer
from aefeatures._batches import take_rows, to_dense
from aefeatures._networks import resolve_image_shape
from aefeatures._validation import CallbackSupportMixin, check_rows

# Ten colours that also the colour-blind tell apart (Petroff, "Accessible color sequences for
# data visualization", 2021).
PALETTE = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6",
    "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadb",
)  # fmt: skip
_MARKERS = "o^sDv*P"  # for each further ten classes
_MISSING = "#c9a0a0"  # a colour that no grey picture has
_MOST_BARS = 30
_MOST_CLASSES = 20
_MOST_PAIRED = 5
_INCHES = 0.8  # the longer side of a picture


def _import_pyplot() -> Any:
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            "Drawing needs matplotlib. Install it with pip install 'aefeatures[plot]'."
        ) from error
    return plt


def _find_transformer(estimator: Any, X: Any = None) -> tuple[AutoencoderTransformer, Any]:
    """The fitted transformer in `estimator`, and X as the steps before it return it."""
    estimator = getattr(estimator, "best_estimator_", estimator)  # of a search
    if isinstance(estimator, Pipeline):
        for i, (_, step) in enumerate(estimator.steps):
            if isinstance(step, (AutoencoderTransformer, Pipeline)):
                check_is_fitted(step)
                if X is not None and i > 0:
                    X = estimator[:i].transform(X)
                return _find_transformer(step, X)
    if not isinstance(estimator, AutoencoderTransformer):
        raise TypeError(
            "estimator must be an AutoencoderTransformer or a Pipeline that has one as a step, "
            f"got {estimator!r}."
        )
    check_is_fitted(estimator)
    return estimator, X


class ReconstructionDisplay:
    """Rows over what the autoencoder makes of them.

    Rows are drawn as images where they have an `image_shape`, else as bars (few columns) or as
    strips of colour (many). Given the reconstructions after several epochs, there
    is one row of originals and reconstructions for each.

    Parameters
    ----------
    originals : array-like of shape (n_samples, n_features)
        A missing value (NaN) is left out, or has a colour of its own.
    reconstructions : array-like of shape (n_samples, n_features) or \
(n_snapshots, n_samples, n_features)
        Of the same rows; snapshots are made as the network learns.
    image_shape : tuple of int, default=None
        (channels, height, width), or (height, width) for one channel. 1 channel is grey,
        3 are red, green and blue.
    feature_names : array-like of str of shape (n_features,), default=None
        Names beside the bars.
    center, scale : float or array-like of shape (n_features,), default=0.0 and 1.0
        Bars and strips show ``(value - center) / scale``, since columns of different
        units have no common axis. `from_estimator` takes the transformer's own scaling.
    snapshot_names : list of str, default=None
        What stands beside the reconstructions; by default "epoch 1" and so on, or
        "reconstruction" where there is but one.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        The axes that everything is drawn in.
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
        estimator : AutoencoderTransformer, Pipeline or search
            Fitted. In a pipeline the first autoencoder is taken, and the rows are drawn as
            the steps before it return them.
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        image_shape : tuple of int, default=None
            (channels, height, width), or (height, width) for one channel.
        n_samples : int, default=5
            The most rows to draw: of more, as many are taken evenly spaced, since some data is
            sorted by class.
        feature_names : array-like of str of shape (n_features,), default=None
            By default those seen in `fit`, where X had names.
        ax : matplotlib.axes.Axes, default=None
            Where to draw; by default in a new figure.
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
            If `image_shape` does not have as many entries as X has columns.
        """
        transformer, X = _find_transformer(estimator, X)
        rows = check_rows(transformer, X, reset=False)
        rows = take_rows(rows, _evenly_spaced(rows.shape[0], n_samples))
        display = cls(
            to_dense(rows),
            transformer._reconstruct(rows),
            image_shape=image_shape,
            **_columns_of(transformer, feature_names),
        )
        return display.plot(ax=ax, **kwargs)

    def plot(
        self,
        ax: Any = None,
        *,
        kind: Literal["auto", "image", "bars", "strips"] = "auto",
        vmin: float | None = None,
        vmax: float | None = None,
        cmap: Any = None,
    ) -> Self:
        """Draw the rows.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Where to draw; by default in a new figure.
        kind : {"auto", "image", "bars", "strips"}, default="auto"
            "auto" is "image" with an `image_shape`, else "bars" for up to 30 columns, else
            "strips".
        vmin, vmax : float, default=None
            What is drawn darkest and brightest, or as the ends of the bars. By default 0 and 255
            for images of uint8, 0 and 1 for images within that, else the least and the
            greatest value that is drawn (for images, among the originals).
        cmap : str or matplotlib.colors.Colormap, default=None
            Colours of grey images ("gray") and of strips.

        Returns
        -------
        self

        Raises
        ------
        ImportError
            If matplotlib is missing.
        ValueError
            If originals and reconstructions differ in shape, or do not have the
            `image_shape`.
        """
        originals = check_array(self.originals, dtype="numeric", ensure_all_finite="allow-nan")
        snapshots = check_array(
            self.reconstructions, dtype="numeric", ensure_all_finite="allow-nan", allow_nd=True
        )
        snapshots = snapshots[None] if snapshots.ndim == 2 else snapshots
        if snapshots.ndim != 3 or snapshots.shape[1:] != originals.shape:
            raise ValueError(
                f"reconstructions must have the shape of originals, {originals.shape}, or that for "
                f"each snapshot, got {np.shape(self.reconstructions)}."
            )
        if self.image_shape is not None:
            shape = resolve_image_shape(self.image_shape, originals.shape[1])
        elif kind == "image":
            shape = resolve_image_shape(None, originals.shape[1])
        if kind == "auto":
            few = originals.shape[1] <= _MOST_BARS
            kind = "image" if self.image_shape is not None else "bars" if few else "strips"
        plt = _import_pyplot()
        if kind == "image":
            self._plot_images(plt, ax, originals, snapshots, shape, (vmin, vmax), cmap)
        elif kind in ("bars", "strips"):
            originals = (originals - self.center) / self.scale
            snapshots = (snapshots - self.center) / self.scale
            drawn = np.concatenate([originals[None], snapshots])
            limits = (
                float(np.nanmin(drawn)) if vmin is None else vmin,
                float(np.nanmax(drawn)) if vmax is None else vmax,
            )
            if kind == "bars":
                self._plot_bars(plt, ax, originals, snapshots, limits)
            else:
                self._plot_strips(plt, ax, originals, snapshots, limits, cmap)
        else:
            raise ValueError(f"kind must be 'auto', 'image', 'bars' or 'strips', got {kind!r}.")
        self.figure_ = self.ax_.figure
        return self

    def _snapshot_names(self, n: int) -> list[str]:
        if self.snapshot_names is not None:
            return [_plain(name) for name in self.snapshot_names]
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
        channels, height, width = shape
        if channels not in (1, 3):
            raise ValueError(
                f"Images have 1 channel (grey) or 3 (red, green, blue), got image_shape={shape}."
            )
        low, high = _image_limits(originals)
        low, high = (
            low if limits[0] is None else limits[0],
            high if limits[1] is None else limits[1],
        )
        colors = plt.get_cmap("gray" if cmap is None else cmap)
        missing = plt.matplotlib.colors.to_rgba(_MISSING)

        def colored(row: np.ndarray) -> np.ndarray:
            image = np.moveaxis(row.reshape(shape).astype(float), 0, -1)
            image = np.clip((image - low) / max(high - low, 1e-300), 0, 1)
            rgba = (
                colors(image[..., 0])
                if channels == 1
                else np.dstack([image, image[..., 0] * 0 + 1])
            )
            rgba[np.isnan(image).any(axis=-1)] = missing
            return rgba

        gap = max(1, round(0.08 * max(height, width)))
        n_samples, n_snapshots = len(originals), len(snapshots)
        step_y, step_x = height + gap, width + gap
        # A wider gap between the pairs shows what belongs together.
        pair = 2 * step_y + 2 * gap * (n_snapshots > 1)
        canvas = np.zeros((pair * n_snapshots, step_x * n_samples, 4))
        centers, names = [], []
        for i, (snapshot, name) in enumerate(
            zip(snapshots, self._snapshot_names(n_snapshots), strict=True)
        ):
            for j, (rows, label) in enumerate([(originals, "original"), (snapshot, name)]):
                top = i * pair + j * step_y
                for k, row in enumerate(rows):
                    canvas[top : top + height, k * step_x : k * step_x + width] = colored(row)
                centers.append(top + (height - 1) / 2)
                names.append(label)
        canvas = canvas[: pair * (n_snapshots - 1) + step_y + height, : step_x * n_samples - gap]
        if ax is None:
            inch = _INCHES / max(height, width)
            size = (canvas.shape[1] * inch + 1.3, canvas.shape[0] * inch + 0.15)
            ax = plt.figure(figsize=size, layout="constrained").add_subplot()
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
    ) -> None:
        n_samples, n_features = originals.shape
        low, high = min(0.0, *limits), max(0.0, *limits)
        width = 1.08 * max(high - low, 1e-300)  # of a cell, in units of the values
        block = n_features + 1.6
        names = range(n_features) if self.feature_names is None else self.feature_names
        labels = [_plain(name) for name in names]
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
                there = np.isfinite(row)
                shown = np.clip(row[there], low, high)
                ax.barh(y[there], shown, left=zero, height=0.8, color=PALETTE[i % 2])
                ax.plot([zero, zero], [y[0] - 0.5, y[-1] + 0.5], color="0.6", linewidth=0.8)
                ax.plot(np.full((~there).sum(), zero), y[~there], "x", color=_MISSING, markersize=5)
        ax.set_yticks(positions, labels * n_rows, fontsize="x-small")
        ax.tick_params(length=0)
        ax.set_xticks([])
        ax.set_xlim(low, low + width * n_samples)
        ax.set_ylim(n_rows * block - 1.6, -1.8)
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
    """A callback of scikit-learn's that keeps reconstructions of some rows after every epoch.

    Set it on the transformer, also where that is a step of a pipeline or searched over:
    ``AutoencoderTransformer().set_callbacks(monitor)``. It keeps those of the last `fit` that
    ended in this process; a search ends with the fit of the best parameters.

    Parameters
    ----------
    X_view : array-like of shape (n_samples, n_features)
        The rows to look at, as the transformer gets them.

    Attributes
    ----------
    reconstructions_ : ndarray of shape (n_epochs, n_samples, n_features)
        In the units of X.

    Raises
    ------
    ImportError
        Where scikit-learn is older than 1.9 and has no callbacks.

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
                "ReconstructionMonitor needs the callbacks of scikit-learn 1.9 or later; this is "
                f"{sklearn.__version__}. With it, a loop over partial_fit and reconstruct gives "
                "the same pictures."
            )
        self.X_view = X_view
        self._running: dict[int, list[np.ndarray]] = {}  # by fit: there may be several at a time

    def setup(self, estimator: Any, context: Any) -> None:
        """A fit begins."""
        self._running[id(context)] = []

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        """An epoch begins."""

    def on_fit_task_end(
        self, estimator: Any, context: Any, *, fitted_estimator: Any = None
    ) -> None:
        """Keep what the estimator makes of the rows after an epoch."""
        if context.task_name != "epoch" or not isinstance(fitted_estimator, AutoencoderTransformer):
            return
        kept = self._running[id(context.parent)]
        kept.append(fitted_estimator.reconstruct(self.X_view))
        self._columns = _columns_of(fitted_estimator)

    def teardown(self, estimator: Any, context: Any) -> None:
        """A fit is over."""
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
        """Draw the rows over their reconstructions, a pair for each epoch.

        Parameters
        ----------
        image_shape : tuple of int, default=None
            (channels, height, width), or (height, width) for one channel.
        epochs : sequence of int, default=None
            Which epochs to draw, counted from 1; by default ten of them, evenly spaced.
        ax : matplotlib.axes.Axes, default=None
            Where to draw; by default in a new figure.
        **kwargs
            Passed to `ReconstructionDisplay.plot`.

        Returns
        -------
        display : ReconstructionDisplay

        Raises
        ------
        NotFittedError
            If there was no epoch yet.
        """
        if not hasattr(self, "reconstructions_"):
            raise NotFittedError(
                "This ReconstructionMonitor has seen no epoch. Set it on the transformer itself, "
                "AutoencoderTransformer().set_callbacks(monitor), and fit."
            )
        n_epochs = len(self.reconstructions_)
        chosen = _evenly_spaced(n_epochs, 10) + 1 if epochs is None else np.asarray(epochs)
        if chosen.size == 0 or chosen.min() < 1 or chosen.max() > n_epochs:
            raise ValueError(f"epochs must be among 1 to {n_epochs}, got {chosen.tolist()}.")
        display = ReconstructionDisplay(
            _dense_array(self.X_view),
            self.reconstructions_[chosen - 1],
            image_shape=image_shape,
            snapshot_names=[f"epoch {epoch}" for epoch in chosen],
            **self._columns,
        )
        return display.plot(ax=ax, **kwargs)


class LatentSpaceDisplay:
    """Codes as points, coloured by what is known of their rows.

    One code is drawn along an axis, two and three as points in the plane and in space, more as a
    grid of pairs.

    Parameters
    ----------
    codes : array-like of shape (n_samples, n_components)
    y : array-like of shape (n_samples,), default=None
        Classes or numbers that the points are coloured by. Missing ones are grey.
    categorical : bool or None, default=None
        Whether y holds classes. None takes it so where y is not numeric, or holds at most 20
        different integers.
    target_name : str, default=None
        Title of the legend or label of the colour bar.
    components : sequence of int, default=None
        Which codes to draw; by default all, or the first five of more.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        The axes; of a grid, the lower left one.
    axes_ : ndarray of shape (n, n)
        All axes, with None in the upper triangle of a grid; of shape (1, 1) else.
    figure_ : matplotlib.figure.Figure

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from aefeatures import AutoencoderTransformer, LatentSpaceDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> transformer = AutoencoderTransformer(max_epochs=5).fit(X)
    >>> LatentSpaceDisplay.from_estimator(transformer, X, y)
    <...LatentSpaceDisplay object at ...>
    """

    def __init__(
        self,
        codes: Any,
        *,
        y: Any = None,
        categorical: bool | None = None,
        target_name: str | None = None,
        components: Sequence[int] | None = None,
    ) -> None:
        self.codes = codes
        self.y = y
        self.categorical = categorical
        self.target_name = target_name
        self.components = components

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any = None,
        *,
        categorical: bool | None = None,
        target_name: str | None = None,
        components: Sequence[int] | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Encode the rows of X and draw their codes.

        Parameters
        ----------
        estimator : AutoencoderTransformer, Pipeline or search
            Fitted. Of a pipeline the first autoencoder, and the steps before it, are used.
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : array-like of shape (n_samples,), default=None
            Classes or numbers that the points are coloured by.
        categorical : bool or None, default=None
            Whether y holds classes.
        target_name : str, default=None
            By default the name that y has as a series.
        components : sequence of int, default=None
            Which codes to draw.
        ax : matplotlib.axes.Axes, default=None
            Where to draw; by default in a new figure. Three codes need axes in three dimensions.
        **kwargs
            Passed to `plot`.

        Returns
        -------
        display : LatentSpaceDisplay

        Raises
        ------
        NotFittedError
            If the autoencoder is not fitted.
        ValueError
            If y is not as long as X.
        """
        transformer, X = _find_transformer(estimator, X)
        if target_name is None and getattr(y, "name", None) is not None:
            target_name = str(y.name)
        display = cls(
            np.asarray(transformer.transform(X)),
            y=y,
            categorical=categorical,
            target_name=target_name,
            components=components,
        )
        return display.plot(ax=ax, **kwargs)

    def plot(
        self,
        ax: Any = None,
        *,
        trim: float = 0.0,
        cmap: Any = "viridis",
        legend: bool = True,
        **kwargs: Any,
    ) -> Self:
        """Draw the codes.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Where to draw; by default in a new figure. Three codes need axes in three dimensions
            (``projection="3d"``); a grid takes the place of the axes.
        trim : float, default=0.0
            Part of the points, at either end of each code, that is left out: a few far codes
            make the rest small.
        cmap : str or matplotlib.colors.Colormap, default="viridis"
            Colours of numbers.
        legend : bool, default=True
            Whether to draw the legend or the colour bar.
        **kwargs
            Passed to `matplotlib.axes.Axes.scatter`.

        Returns
        -------
        self

        Raises
        ------
        ImportError
            If matplotlib is missing.
        ValueError
            If y is not as long as the codes, or `ax` has not the dimensions it takes.
        """
        codes = check_array(self.codes, dtype="numeric")
        n_components = codes.shape[1]
        chosen = (
            range(min(n_components, _MOST_PAIRED)) if self.components is None else self.components
        )
        chosen = [int(i) for i in chosen]
        if not chosen or min(chosen) < 0 or max(chosen) >= n_components:
            raise ValueError(f"components must be among 0 to {n_components - 1}, got {chosen}.")
        y = None
        if self.y is not None:
            y = column_or_1d(self.y)
            check_consistent_length(codes, y)
        if not 0 <= trim < 0.5:
            raise ValueError(f"trim must be in [0, 0.5), got {trim}.")
        codes = codes[:, chosen]
        if trim:
            low, high = np.quantile(codes, [trim, 1 - trim], axis=0)
            inner = ((codes >= low) & (codes <= high)).all(axis=1)
            codes, y = codes[inner], None if y is None else y[inner]
        plt = _import_pyplot()
        colors = _Colors(plt, y, len(codes), self.categorical, cmap)
        names = [f"code {i}" for i in chosen]
        size = float(np.clip(20_000 / max(len(codes), 1), 3, 24))
        style = {"s": size, "linewidths": 0, **kwargs}
        if len(chosen) > 3:
            self._plot_grid(plt, ax, codes, names, colors, style)
        else:
            self._plot_single(plt, ax, codes, names, colors, style)
        self.figure_ = self.ax_.figure
        if legend and len(chosen) > 1:  # a single code is drawn over y
            self._add_legend(colors)
        return self

    def _plot_single(
        self, plt: Any, ax: Any, codes: np.ndarray, names: list[str], colors: _Colors, style: Any
    ) -> None:
        n = len(names)
        if ax is None:
            size = [(6.0, 3.0), (5.4, 4.0), (5.8, 4.6)][n - 1]
            figure = plt.figure(figsize=size, layout="constrained")
            ax = figure.add_subplot(projection="3d" if n == 3 else None)
        if (ax.name == "3d") != (n == 3):
            raise ValueError(
                f"{n} codes need axes {'with' if n == 3 else 'without'} projection='3d', got "
                f"{type(ax).__name__}."
            )
        self.ax_, self.axes_ = ax, np.array([[ax]], dtype=object)
        if n == 1:
            self._plot_line(codes[:, 0], names[0], colors, style)
            return
        if n == 3:
            style = {"depthshade": False, **style}
            # Else its labels stand out of the figure: its layout does not know of them.
            ax.set_box_aspect(None, zoom=0.82)
            ax.tick_params(labelsize="x-small", pad=-2)
            for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
                axis.labelpad = -4
                axis.get_major_locator().set_params(nbins=4)
        colors.scatter(ax, codes.T, style)
        ax.set(**dict(zip(("xlabel", "ylabel", "zlabel"), names, strict=False)))

    def _plot_line(self, code: np.ndarray, name: str, colors: _Colors, style: Any) -> None:
        """One code, over classes or numbers, or as a histogram."""
        ax = self.ax_
        ax.set_xlabel(name)
        if colors.values is None:
            ax.hist(code, bins="auto", color=PALETTE[0])
            ax.set_ylabel("rows")
            return
        if colors.classes is None:
            colors.scatter(ax, (code, colors.values), style)
            ax.set_ylabel(_plain(self.target_name or "target"))
            return
        spread = np.random.default_rng(0).uniform(-0.35, 0.35, len(code))
        colors.scatter(ax, (code, colors.positions() + spread), style)
        labels = colors.labels()
        ax.set_yticks(range(len(labels)), labels)
        ax.invert_yaxis()
        if self.target_name is not None:
            ax.set_ylabel(_plain(self.target_name))

    def _plot_grid(
        self, plt: Any, ax: Any, codes: np.ndarray, names: list[str], colors: _Colors, style: Any
    ) -> None:
        n = len(names) - 1
        if ax is None:
            figure = plt.figure(figsize=(1.7 * n + 0.6, 1.6 * n + 0.5), layout="constrained")
            grid = figure.add_gridspec(n, n)
        else:
            if ax.get_subplotspec() is None:
                raise ValueError(
                    "More than 3 codes are drawn in a grid, which can take the place of axes made "
                    "by subplots, not of axes placed by hand."
                )
            figure = ax.figure
            grid = ax.get_subplotspec().subgridspec(n, n)
            ax.set_axis_off()
        style = {**style, "s": style["s"] * 0.5}
        self.axes_ = np.full((n, n), None, dtype=object)
        for i in range(n):
            for j in range(i + 1):
                shared = {"sharex": self.axes_[j, j] if i > j else None}
                cell = figure.add_subplot(grid[i, j], **shared)
                self.axes_[i, j] = cell
                colors.scatter(cell, (codes[:, j], codes[:, i + 1]), style)
                cell.tick_params(labelsize="x-small", labelbottom=i == n - 1, labelleft=j == 0)
                cell.locator_params(nbins=3)
                if i == n - 1:
                    cell.set_xlabel(names[j])
                if j == 0:
                    cell.set_ylabel(names[i + 1])
        self.ax_ = self.axes_[-1, 0]
        # The upper triangle is free.
        self._corner = figure.add_subplot(grid[0, n - 1])
        self._corner.set_axis_off()

    def _add_legend(self, colors: _Colors) -> None:
        title = None if self.target_name is None else _plain(self.target_name)
        grid = self.axes_.shape != (1, 1)
        if colors.values is None:
            return
        if colors.classes is None:
            if grid:
                ax = self._corner.inset_axes((0.55, 0.0, 0.12, 1.0))
                self.figure_.colorbar(colors.mappable, cax=ax, label=title)
            else:
                pad = 0.12 if self.ax_.name == "3d" else 0.03
                self.figure_.colorbar(
                    colors.mappable, ax=self.ax_, label=title, pad=pad, shrink=0.8
                )
            return
        handles = colors.handles()
        columns = 1 if len(handles) <= 12 else 2
        where: dict[str, Any] = (
            {"loc": "upper right"}
            if grid
            else {
                "loc": "center left",
                "bbox_to_anchor": (1.08 if self.ax_.name == "3d" else 1.01, 0.5),
            }
        )
        (self._corner if grid else self.ax_).legend(
            handles, colors.labels(), title=title, ncols=columns, frameon=False,
            fontsize="small", handletextpad=0.2, columnspacing=0.8, borderaxespad=0.2, **where,
        )  # fmt: skip


class _Colors:
    """How points show what is known of them.

    Attributes
    ----------
    values : ndarray or None
        As numbers, where they are numbers; else positions among `classes`, -1 where missing.
    classes : list or None
    """

    def __init__(
        self, plt: Any, y: np.ndarray | None, n: int, categorical: bool | None, cmap: Any
    ) -> None:
        self._plt, self._cmap = plt, cmap
        self.classes: list[Any] | None = None
        self.values: np.ndarray | None = None
        self.mappable: Any = None
        # Drawn in the order of a sorted y, the last class would hide the others.
        self._order = np.random.default_rng(0).permutation(n)
        if y is None:
            return
        missing = np.array([value is None or value != value for value in y], dtype=bool)
        if categorical is None:
            categorical = _holds_classes(y[~missing])
        if categorical:
            self.classes, inverse = _unique(y[~missing])
            self.values = np.full(n, -1)
            self.values[~missing] = inverse
        else:
            self.values = np.full(n, np.nan)
            self.values[~missing] = y[~missing].astype(float)
            present = self.values[~missing]
            norm = plt.Normalize(*((present.min(), present.max()) if len(present) else (0, 1)))
            self.mappable = plt.cm.ScalarMappable(norm, plt.get_cmap(cmap))

    def scatter(self, ax: Any, points: Any, style: dict[str, Any]) -> None:
        """Draw points, given a coordinate at a time."""
        points = [np.asarray(coordinate)[self._order] for coordinate in points]
        if self.values is None:
            ax.scatter(*points, **{"color": PALETTE[0], **style})
            return
        values = self.values[self._order]
        if self.classes is None:
            missing, markers = np.isnan(values), np.zeros(len(values), dtype=int)
            colors = self.mappable.to_rgba(np.nan_to_num(values))
        else:
            missing, markers = values < 0, np.maximum(values, 0) // len(PALETTE)
            palette = self._plt.matplotlib.colors.to_rgba_array(PALETTE)
            colors = palette[values % len(PALETTE)]
        colors[missing] = (0.8, 0.8, 0.8, 1.0)
        for i in np.unique(markers):
            some = markers == i
            ax.scatter(
                *(coordinate[some] for coordinate in points),
                c=colors[some],
                marker=_MARKERS[i % len(_MARKERS)],
                **style,
            )

    def positions(self) -> np.ndarray:
        """Classes as 0, 1, ..., with what is missing after the last."""
        assert self.values is not None
        assert self.classes is not None
        return np.where(self.values < 0, len(self.classes), self.values)

    def labels(self) -> list[str]:
        """Names of the classes, and of what is missing where any is."""
        assert self.classes is not None
        return [_plain(name) for name in self.classes] + ["missing"] * self._any_missing()

    def handles(self) -> list[Any]:
        """What the legend shows for each of `labels`."""
        assert self.classes is not None
        marks = [
            (PALETTE[i % len(PALETTE)], _MARKERS[i // len(PALETTE) % len(_MARKERS)])
            for i in range(len(self.classes))
        ]
        marks += [("0.8", "o")] * self._any_missing()
        line = self._plt.matplotlib.lines.Line2D
        return [
            line([], [], color=color, marker=marker, linestyle="", markersize=6)
            for color, marker in marks
        ]

    def _any_missing(self) -> bool:
        return self.values is not None and bool((self.values < 0).any())


class LossCurveDisplay:
    """The loss after each epoch, on training and validation rows, with the best epoch marked.

    Parameters
    ----------
    loss_curve : array-like of shape (n_epochs,)
        Training loss per epoch.
    validation_loss_curve : array-like of shape (n_epochs,), default=None
        Loss on validation rows after each epoch.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
    figure_ : matplotlib.figure.Figure
    best_epoch_ : int
        The epoch, counted from 1, with the lowest validation loss, or training loss where there is
        no other.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from aefeatures import AutoencoderTransformer, LossCurveDisplay
    >>> X, _ = load_digits(return_X_y=True)
    >>> transformer = AutoencoderTransformer(max_epochs=5, early_stopping=True).fit(X)
    >>> LossCurveDisplay.from_estimator(transformer)
    <...LossCurveDisplay object at ...>
    """

    def __init__(self, loss_curve: Any, *, validation_loss_curve: Any = None) -> None:
        self.loss_curve = loss_curve
        self.validation_loss_curve = validation_loss_curve

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None, **kwargs: Any) -> Self:
        """Draw the loss of a fitted estimator.

        Parameters
        ----------
        estimator : AutoencoderTransformer, Pipeline or search
            Fitted. Any estimator with a `loss_curve_` will do.
        ax : matplotlib.axes.Axes, default=None
            Where to draw; by default in a new figure.
        **kwargs
            Passed to `plot`.

        Returns
        -------
        display : LossCurveDisplay

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        TypeError
            If it keeps no loss curve.
        """
        if not hasattr(estimator, "loss_curve_"):
            estimator, _ = _find_transformer(estimator)
        validation = getattr(estimator, "validation_loss_curve_", None)
        return cls(estimator.loss_curve_, validation_loss_curve=validation).plot(ax=ax, **kwargs)

    def plot(self, ax: Any = None, **kwargs: Any) -> Self:
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Where to draw; by default in a new figure.
        **kwargs
            Passed to `matplotlib.axes.Axes.plot` for both curves.

        Returns
        -------
        self

        Raises
        ------
        ImportError
            If matplotlib is missing.
        ValueError
            If there is no epoch, or the curves are not of the same length.
        """
        training = np.asarray(column_or_1d(self.loss_curve), dtype=float)
        curves = {"training": training}
        if self.validation_loss_curve is not None:
            curves["validation"] = np.asarray(column_or_1d(self.validation_loss_curve), dtype=float)
            check_consistent_length(*curves.values())
        if len(training) == 0:
            raise ValueError("loss_curve has no epochs.")
        plt = _import_pyplot()
        if ax is None:
            ax = plt.figure(figsize=(5.2, 3.4), layout="constrained").add_subplot()
        self.ax_, self.figure_ = ax, ax.figure
        epochs = np.arange(1, len(training) + 1)
        for (name, losses), color in zip(curves.items(), (PALETTE[0], PALETTE[6]), strict=False):
            # A single epoch would be a line without length.
            style = {"color": color, "marker": "." if len(losses) < 2 else None, **kwargs}
            ax.plot(epochs, losses, label=name, **style)
        best = int(np.nanargmin(losses)) if np.isfinite(losses).any() else 0
        self.best_epoch_ = best + 1
        ax.plot(
            epochs[best], losses[best], "o", color=color, markeredgecolor="white", markersize=9,
            label=f"lowest: {losses[best]:.4g} in epoch {best + 1}", zorder=3,
        )  # fmt: skip
        ax.set(xlabel="epoch", ylabel="loss")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False)
        return self


def _columns_of(transformer: AutoencoderTransformer, names: Any = None) -> dict[str, Any]:
    """Names and scaling of the columns of a fitted transformer."""
    scaling = transformer._scaling
    return {
        "feature_names": getattr(transformer, "feature_names_in_", None)
        if names is None
        else names,
        "center": scaling.offset.numpy(),
        "scale": scaling.scale.numpy(),
    }


def _evenly_spaced(n: int, n_most: int) -> np.ndarray:
    return np.unique(np.linspace(0, n - 1, min(n, n_most)).astype(np.intp))


def _dense_array(X: Any) -> np.ndarray:
    return check_array(to_dense(X), dtype="numeric", ensure_all_finite="allow-nan")


def _image_limits(images: np.ndarray) -> tuple[float, float]:
    """What is black and what is white in images."""
    if images.dtype == np.uint8:
        return 0.0, 255.0
    if np.isnan(images).all():
        return 0.0, 1.0
    low, high = float(np.nanmin(images)), float(np.nanmax(images))
    return (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)


def _holds_classes(y: np.ndarray) -> bool:
    """Whether the values are classes rather than numbers on a scale."""
    if y.dtype.kind == "O":
        try:
            y = y.astype(float)
        except (TypeError, ValueError):
            return True
    if y.dtype.kind not in "iuf":
        return True
    distinct = np.unique(y)
    return len(distinct) <= _MOST_CLASSES and bool((distinct == np.rint(distinct)).all())


def _unique(y: np.ndarray) -> tuple[list[Any], np.ndarray]:
    """Classes in order, also where they are of several types, and each value's position."""
    try:
        classes, inverse = np.unique(y, return_inverse=True)
    except TypeError:
        classes, inverse = np.unique(y.astype(str), return_inverse=True)
    return classes.tolist(), inverse


def _plain(text: Any) -> str:
    """A name as text that matplotlib neither typesets nor, with "_" in front, leaves out."""
    if isinstance(text, float) and text.is_integer():
        text = int(text)
    text = str(text).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
