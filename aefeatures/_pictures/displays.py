"""Displays of codes and losses that follow scikit-learn's conventions for displays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.utils import check_array
from sklearn.utils.validation import check_consistent_length, column_or_1d

from aefeatures._bridges.pipelines import find_transformer
from aefeatures._pictures.targets import Target

# Ten colours that colour-blind people can tell apart (Petroff, "Accessible color sequences for data
# visualization", 2021).
PALETTE = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6",
    "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
# Only two markers, as small points of other shapes look like one of these.
_MARKERS = "ox"
_MOST_CLASSES = len(PALETTE) * len(_MARKERS)
# Colour and marker of points of other classes, and of points whose y is missing.
_OTHER = ("0.55", "+")
_MISSING = ("0.82", "o")
_MOST_CODES_IN_GRID = 5
_LONGEST_NAME = 28  # characters of a class in the legend


def import_pyplot() -> Any:
    """Return `matplotlib.pyplot`, which is optional as only drawing needs it."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            "Drawing needs matplotlib. Install it with pip install 'aefeatures[plot]'."
        ) from error
    return plt


class LatentSpaceDisplay:
    """Scatter plot of codes, coloured by y.

    A single code is drawn along an axis. Two and three codes are drawn in two and three dimensions,
    and more codes as a grid of pairs.

    Parameters
    ----------
    codes : array-like of shape (n_samples, n_components)
        Codes of the rows.
    y : array-like of shape (n_samples,), default=None
        Classes, numbers, dates or durations that the points are coloured by. Points with a missing
        y are grey. If there are more than 20 classes, the 18 largest classes have a colour and all
        others share a grey mark. Infinite numbers have the colour at the end of the scale.
    categorical : bool or None, default=None
        Whether y holds classes. If None, categories, names, booleans and at most 20 different whole
        numbers are classes. Everything else is shown on a scale.
    target_name : str, default=None
        Title of the legend or label of the colour bar. By default the name of y if it is a series.
    components : sequence of int, default=None
        Codes to draw. By default all codes are drawn, or the first five if there are more, with a
        note in the picture.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        The axes, or the lower left axes of a grid.
    axes_ : ndarray of shape (n, n)
        All axes. A grid has None in the upper triangle. Other pictures have the shape (1, 1).
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
        estimator : AutoencoderTransformer, Pipeline, search or FrozenEstimator
            Fitted estimator. In a pipeline, the first autoencoder and the steps before it are used.
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : array-like of shape (n_samples,), default=None
            Classes, numbers, dates or durations that the points are coloured by.
        categorical : bool or None, default=None
            Whether y holds classes.
        target_name : str, default=None
            Name of y. By default its own name if it is a series.
        components : sequence of int, default=None
            Codes to draw.
        ax : matplotlib.axes.Axes, default=None
            Axes to draw in. By default a new figure is made. Three codes need axes in three
            dimensions.
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
        transformer, X = find_transformer(estimator, X)
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
            Axes to draw in. By default a new figure is made, which is wide enough for its legend.
            Three codes need axes in three dimensions (``projection="3d"``). A grid replaces the
            axes. Given axes get narrower to make room for the legend.
        trim : float, default=0.0
            Fraction of the points that is left out at either end of each code. It is of use if a
            few far points squeeze all others together.
        cmap : str or matplotlib.colors.Colormap, default="viridis"
            Colours of y on a scale.
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
            If matplotlib is not installed.
        ValueError
            If y is not as long as the codes or does not fit `categorical`, or if `ax` has the wrong
            number of dimensions.
        """
        codes = check_array(self.codes, dtype="numeric")
        n_components = codes.shape[1]
        chosen = choose_components(self.components, n_components, _MOST_CODES_IN_GRID)
        target = None
        if self.y is not None:
            target = Target(
                self.y,
                most_classes=_MOST_CLASSES,
                categorical=self.categorical,
                name=self.target_name,
            )
            check_consistent_length(codes, target.numbers)
        if not 0 <= trim < 0.5:
            raise ValueError(f"trim must be in [0, 0.5), got {trim}.")
        codes = codes[:, chosen]
        if trim:
            low, high = np.quantile(codes, [trim, 1 - trim], axis=0)
            inner = ((codes >= low) & (codes <= high)).all(axis=1)
            codes = codes[inner]
            if target is not None:
                target.numbers = target.numbers[inner]
        plt = import_pyplot()
        colors = _Colors(plt, target, len(codes), cmap)
        names = [f"code {i}" for i in chosen]
        size = float(np.clip(20_000 / max(len(codes), 1), 3, 24))
        style = {"s": size, **kwargs}
        self._own_figure = ax is None
        if len(chosen) > 3:
            self._plot_grid(plt, ax, codes, names, colors, style)
            if self.components is None and n_components > len(chosen):
                self._add_note(
                    f"codes 0 to {chosen[-1]} of {n_components};\nset components= for others"
                )
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
            size = [(6.0, 3.0), (5.4, 4.0), (5.2, 4.0)][n - 1]
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
            # The figure's layout does not know the labels of 3D axes, which would leave the figure.
            ax.set_box_aspect(None, zoom=1.0)
            ax.tick_params(labelsize="x-small", pad=-2)
            for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
                axis.labelpad = -4
                axis.get_major_locator().set_params(nbins=4)
        colors.scatter(ax, codes.T, style)
        ax.set(**dict(zip(("xlabel", "ylabel", "zlabel"), names, strict=False)))

    def _plot_line(self, code: np.ndarray, name: str, colors: _Colors, style: Any) -> None:
        """Draw a single code against y, or as a histogram without y."""
        ax, target = self.ax_, colors.target
        ax.set_xlabel(name)
        if target is None:
            ax.hist(code, bins="auto", color=PALETTE[0])
            ax.set_ylabel("rows")
            return
        if target.classes is None:
            # Infinite values are drawn at the edge, as the axis is finite.
            colors.scatter(ax, (code, np.clip(colors.values, *colors.limits)), style)
            note = "\n(infinity at the edge)" if colors.extend != "neither" else ""
            ax.set_ylabel(plain(target.name or "target") + note)
            colors.format_dates(ax.yaxis)
            return
        spread = np.random.default_rng(0).uniform(-0.35, 0.35, len(code))
        colors.scatter(ax, (code, target.numbers + spread), style)
        labels = colors.labels()
        ax.set_yticks(range(len(labels)), labels)
        ax.set_ylim(len(labels) - 0.5, -0.5)
        if target.name is not None:
            ax.set_ylabel(plain(target.name))
        if self._own_figure:
            ax.figure.set_figheight(max(3.0, 0.19 * len(labels) + 0.7))

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
                    "More than 3 codes are drawn in a grid, which can replace axes made by "
                    "subplots, but ax was placed by hand. Choose at most 3 components, or pass "
                    "axes made by subplots."
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
        # The legend is placed in the upper triangle, which is free.
        self._corner = figure.add_subplot(grid[: n - 1, n - 1])
        self._corner.set_axis_off()

    def _add_note(self, text: str) -> None:
        """Write a text to the right of the first cell of the grid, where no axes are."""
        self.axes_[0, 0].annotate(
            text, (1.08, 1), xycoords="axes fraction", va="top", fontsize="small", color="0.35"
        ).set_in_layout(False)

    def _add_legend(self, colors: _Colors) -> None:
        target = colors.target
        if target is None:
            return
        title = None if target.name is None else plain(target.name)
        grid = self.axes_.shape != (1, 1)
        if target.classes is None:
            place: dict[str, Any]
            if grid:
                place = {"cax": self._corner.inset_axes((0.45, 0.3, 0.1, 0.7))}
            else:
                pad = 0.12 if self.ax_.name == "3d" else 0.03
                place = {"ax": self.ax_, "pad": pad, "shrink": 0.8}
            bar = self.figure_.colorbar(colors.mappable, label=title, extend=colors.extend, **place)
            colors.format_dates(bar.ax.yaxis)
            return
        style = {
            "loc": "upper right",
            "title": title,
            "frameon": False,
            "fontsize": "small",
            "handletextpad": 0.2,
            "columnspacing": 0.8,
            "borderaxespad": 0.3,
        }
        ax = self._corner if grid else self.ax_
        legend = ax.legend(colors.handles(), colors.labels(), **style)
        extent, available = legend.get_window_extent(), ax.get_window_extent()
        if not self._own_figure and extent.height > available.height:
            legend = ax.legend(colors.handles(), colors.labels(), ncols=2, **style)
            extent = legend.get_window_extent()
        # As part of the layout, the legend would shrink the plot or spread the grid.
        legend.set_in_layout(False)
        if not grid or extent.width > available.width or extent.height > available.height:
            self._place_beside(legend, extent, ax)

    def _place_beside(self, legend: Any, extent: Any, ax: Any) -> None:
        """Make room at the right for the whole legend, whatever its size."""
        figure = ax.figure
        width, height = extent.width / figure.dpi, extent.height / figure.dpi
        if self._own_figure:
            plot = figure.get_figwidth()
            figure.set_size_inches(plot + width, max(figure.get_figheight(), height + 0.1))
            figure.get_layout_engine().set(rect=(0, 0, plot / (plot + width), 1))
            legend.set_loc("center right")
            legend.set_bbox_to_anchor((1, 0.5), transform=figure.transSubfigure)
        elif figure.get_layout_engine() is not None and ax.get_subplotspec() is not None:
            legend.set_loc("center left")
            legend.set_bbox_to_anchor((1, 0.5))
            legend.set_in_layout(True)
        else:
            box = ax.get_position()
            legend.set_loc("center right")
            legend.set_bbox_to_anchor(
                (box.x1, (box.y0 + box.y1) / 2), transform=figure.transSubfigure
            )
            # Twice, as the space that labels need in three dimensions depends on the size.
            for _ in range(2):
                right = max(ax.get_tightbbox().x1, ax.bbox.x1)
                narrower = ax.bbox.width - max(right - legend.get_window_extent().x0, 0)
                share = narrower / figure.bbox.width
                ax.set_position((box.x0, box.y0, max(share, 0.3 * box.width), box.height))


class _Colors:
    """Colours and markers of points.

    Attributes
    ----------
    target : Target or None
    mappable : matplotlib.cm.ScalarMappable
        Colours of values. This and the following attributes are only set if y is on a scale.
    values : ndarray of shape (n_samples,)
        Values on the scale, dates as days in matplotlib's format.
    limits : tuple of float
        The smallest and the largest finite value.
    extend : str
        Ends of the scale at which there are infinite values, as `Figure.colorbar` expects it.
    """

    def __init__(self, plt: Any, target: Target | None, n: int, cmap: Any) -> None:
        self._plt, self.target = plt, target
        # Points are drawn in random order. If y is sorted, the last class would hide the others.
        self._order = np.random.default_rng(0).permutation(n)
        if target is None or target.classes is not None:
            return
        self.values, self.limits = target.numbers, target.limits
        if target.is_date:
            start = plt.matplotlib.dates.date2num(np.datetime64(0, "s"))
            self.values = start + self.values / 86_400
            low, high = self.limits
            self.limits = start + low / 86_400, start + high / 86_400
        below, above = (bool((self.values == end).any()) for end in (-np.inf, np.inf))
        self.extend = ("neither", "max", "min", "both")[2 * below + above]
        self.mappable = plt.cm.ScalarMappable(plt.Normalize(*self.limits), plt.get_cmap(cmap))

    def scatter(self, ax: Any, points: Any, style: dict[str, Any]) -> None:
        """Draw points, given as one array for each coordinate."""
        points = [np.asarray(coordinate)[self._order] for coordinate in points]
        if self.target is None:
            ax.scatter(*points, **{"color": PALETTE[0], "linewidths": 0, **style})
        elif self.target.classes is None:
            values = self.values[self._order]
            colors = self.mappable.to_rgba(
                np.nan_to_num(values, nan=0.0, posinf=np.inf, neginf=-np.inf)
            )
            colors[np.isnan(values)] = self._plt.matplotlib.colors.to_rgba(_MISSING[0])
            ax.scatter(*points, c=colors, **{"linewidths": 0, **style})
        else:
            entry_colors, entry_markers = zip(*self._legend_marks(), strict=True)
            # As a list: matplotlib 3.8 takes a tuple of two for a colour and its opacity.
            colors = self._plt.matplotlib.colors.to_rgba_array(list(entry_colors))
            markers = np.array(entry_markers)
            values = self.target.numbers[self._order]
            for marker in np.unique(markers):
                drawn = markers[values] == marker
                lines = {"linewidths": 0.0 if marker == "o" else 1.0}
                ax.scatter(
                    *(coordinate[drawn] for coordinate in points),
                    c=colors[values[drawn]],
                    marker=marker,
                    **{**lines, **style},
                )

    def _legend_marks(self) -> list[tuple[str, str]]:
        """Return colour and marker of each entry of the legend."""
        assert self.target is not None
        marks = [
            (PALETTE[i % len(PALETTE)], _MARKERS[i // len(PALETTE)])
            for i in range(self.target.n_named)
        ]
        return marks + [_OTHER] * self.target.has_other + [_MISSING] * self.target.has_missing

    def labels(self) -> list[str]:
        """Return the entries of the legend. The middle of long ones is left out."""
        assert self.target is not None
        assert self.target.classes is not None
        half = (_LONGEST_NAME - 1) // 2
        return [
            plain(name if len(name) <= _LONGEST_NAME else f"{name[:half]}\u2026{name[-half:]}")
            for name in self.target.classes
        ]

    def handles(self) -> list[Any]:
        """Return the marker that the legend shows for each of `labels`."""
        line = self._plt.matplotlib.lines.Line2D
        return [
            line([], [], color=color, marker=marker, linestyle="", markersize=6)
            for color, marker in self._legend_marks()
        ]

    def format_dates(self, axis: Any) -> None:
        """Label the ticks of an axis with dates if y holds dates."""
        if self.target is not None and self.target.is_date:
            dates = self._plt.matplotlib.dates
            locator = dates.AutoDateLocator()
            axis.set_major_locator(locator)
            axis.set_major_formatter(dates.ConciseDateFormatter(locator))


class LossCurveDisplay:
    """The loss after each epoch, on training and validation rows, with the best epoch marked.

    Parameters
    ----------
    loss_curve : array-like of shape (n_epochs,)
        Training loss of each epoch.
    validation_loss_curve : array-like of shape (n_epochs,), default=None
        Loss on validation rows after each epoch.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
    figure_ : matplotlib.figure.Figure
    best_epoch_ : int
        Epoch, counted from 1, with the lowest validation loss, or the lowest training loss if there
        is no validation loss.

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
        estimator : AutoencoderTransformer, Pipeline, search or FrozenEstimator
            Fitted estimator. Any estimator with a `loss_curve_` is supported.
        ax : matplotlib.axes.Axes, default=None
            Axes to draw in. By default a new figure is made.
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
            If the estimator has no loss curve.
        """
        if not hasattr(estimator, "loss_curve_"):
            estimator, _ = find_transformer(estimator)
        validation = getattr(estimator, "validation_loss_curve_", None)
        return cls(estimator.loss_curve_, validation_loss_curve=validation).plot(ax=ax, **kwargs)

    def plot(self, ax: Any = None, **kwargs: Any) -> Self:
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Axes to draw in. By default a new figure is made.
        **kwargs
            Passed to `matplotlib.axes.Axes.plot` for both curves.

        Returns
        -------
        self

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If there is no epoch, or if the curves have different lengths.
        """
        training = np.asarray(column_or_1d(self.loss_curve), dtype=float)
        curves = {"training": training}
        if self.validation_loss_curve is not None:
            curves["validation"] = np.asarray(column_or_1d(self.validation_loss_curve), dtype=float)
            check_consistent_length(*curves.values())
        if len(training) == 0:
            raise ValueError("loss_curve has no epochs, but at least one is needed.")
        plt = import_pyplot()
        if ax is None:
            ax = plt.figure(figsize=(5.2, 3.4), layout="constrained").add_subplot()
        self.ax_, self.figure_ = ax, ax.figure
        epochs = np.arange(1, len(training) + 1)
        for (name, losses), color in zip(curves.items(), (PALETTE[0], PALETTE[6]), strict=False):
            # A single epoch is drawn as a point, as a line of one point is invisible.
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


def choose_components(components: Any, n_components: int, n_most: int) -> list[int]:
    """Return the positions of the codes to draw: those given, or else the first ones."""
    given = range(min(n_components, n_most)) if components is None else components
    chosen = [int(i) for i in given]
    if not chosen or min(chosen) < 0 or max(chosen) >= n_components:
        raise ValueError(f"components must be among 0 to {n_components - 1}, got {chosen}.")
    return chosen


def plain(text: Any) -> str:
    """Return a name as text that matplotlib shows unchanged, even with "$" or a leading "_"."""
    if isinstance(text, float) and text.is_integer():
        text = int(text)
    text = str(text).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
