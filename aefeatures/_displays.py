"""Pictures of codes and losses, to scikit-learn's contract of displays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.utils import check_array
from sklearn.utils.validation import check_consistent_length, column_or_1d

from aefeatures._pipelines import find_transformer
from aefeatures._validation import as_numpy

# Ten colours that also the colour-blind tell apart (Petroff, "Accessible color sequences for
# data visualization", 2021).
PALETTE = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6",
    "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadb",
)  # fmt: skip
_MARKERS = "o^sDv*P"  # for each further ten classes
_MOST_CLASSES = 20
_MOST_PAIRED = 5


def import_pyplot() -> Any:
    """Return `matplotlib.pyplot`, which nothing but drawing needs."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            "Drawing needs matplotlib. Install it with pip install 'aefeatures[plot]'."
        ) from error
    return plt


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
        estimator : AutoencoderTransformer, Pipeline, search or FrozenEstimator
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
        transformer, X = find_transformer(estimator, X)
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
            y = column_or_1d(as_numpy(self.y))
            check_consistent_length(codes, y)
        if not 0 <= trim < 0.5:
            raise ValueError(f"trim must be in [0, 0.5), got {trim}.")
        codes = codes[:, chosen]
        if trim:
            low, high = np.quantile(codes, [trim, 1 - trim], axis=0)
            inner = ((codes >= low) & (codes <= high)).all(axis=1)
            codes, y = codes[inner], None if y is None else y[inner]
        plt = import_pyplot()
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
            # Else its labels stand out of the figure: its layout does not know of them.
            ax.set_box_aspect(None, zoom=1.0)
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
            ax.set_ylabel(plain(self.target_name or "target"))
            return
        spread = np.random.default_rng(0).uniform(-0.35, 0.35, len(code))
        colors.scatter(ax, (code, colors.positions() + spread), style)
        labels = colors.labels()
        ax.set_yticks(range(len(labels)), labels)
        ax.invert_yaxis()
        if self.target_name is not None:
            ax.set_ylabel(plain(self.target_name))

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
        # The upper triangle is free: for the legend.
        self._corner = figure.add_subplot(grid[: n - 1, n - 1])
        self._corner.set_axis_off()

    def _add_legend(self, colors: _Colors) -> None:
        title = None if self.target_name is None else plain(self.target_name)
        grid = self.axes_.shape != (1, 1)
        if colors.values is None:
            return
        if colors.classes is None:
            if grid:
                ax = self._corner.inset_axes((0.5, 0.3, 0.1, 0.7))
                self.figure_.colorbar(colors.mappable, cax=ax, label=title)
            else:
                pad = 0.12 if self.ax_.name == "3d" else 0.03
                self.figure_.colorbar(
                    colors.mappable, ax=self.ax_, label=title, pad=pad, shrink=0.8
                )
            return
        handles = colors.handles()
        ax, where = self.ax_, {"loc": "center left", "bbox_to_anchor": (1.01, 0.5)}
        if grid:
            ax, where = self._corner, {"loc": "upper right"}
        elif ax.name == "3d":
            where["bbox_to_anchor"] = (1.08, 0.5)
        legend = ax.legend(
            handles,
            colors.labels(),
            title=title,
            ncols=1 if len(handles) <= 12 else 2,
            frameon=False,
            fontsize="small",
            handletextpad=0.2,
            columnspacing=0.8,
            borderaxespad=0.2,
            **where,
        )
        legend.set_in_layout(not grid)  # there it has room, and would move the grid apart


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
        missing = np.array([is_missing(value) for value in y], dtype=bool)
        if categorical is None:
            categorical = holds_classes(y[~missing])
        if categorical:
            self.classes, inverse = unique_classes(y[~missing])
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
        return [plain(name) for name in self.classes] + ["missing"] * self._any_missing()

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
        estimator : AutoencoderTransformer, Pipeline, search or FrozenEstimator
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
            estimator, _ = find_transformer(estimator)
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
        plt = import_pyplot()
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


def is_missing(value: Any) -> bool:
    """Whether a label is None, NaN or pandas' NA, which is not even unequal to itself."""
    try:
        return value is None or bool(value != value)
    except TypeError:
        return True


def holds_classes(y: np.ndarray) -> bool:
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


def unique_classes(y: np.ndarray) -> tuple[list[Any], np.ndarray]:
    """Classes in order, also where they are of several types, and each value's position."""
    try:
        classes, inverse = np.unique(y, return_inverse=True)
    except TypeError:
        classes, inverse = np.unique(y.astype(str), return_inverse=True)
    return classes.tolist(), inverse


def plain(text: Any) -> str:
    """A name as text that matplotlib neither typesets nor, with "_" in front, leaves out."""
    if isinstance(text, float) and text.is_integer():
        text = int(text)
    text = str(text).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
