"""`ComponentsDisplay`: scores on held-out rows against the number of codes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from numbers import Integral
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.pipeline import make_pipeline
from sklearn.utils import check_array, check_random_state, indexable
from sklearn.utils.parallel import Parallel, delayed

from aefeatures._autoencoder import AutoencoderTransformer, fitted_model
from aefeatures._bridges.pipelines import split_steps
from aefeatures._pictures.displays import PALETTE, import_pyplot, plain
from aefeatures._pictures.targets import Target
from aefeatures._rows.checks import as_numpy, check_labels, check_rows, take_samples
from aefeatures._rows.labels import Labels, split_labels
from aefeatures._rows.scaling import learn_scaling
from aefeatures._rows.survey import Survey
from aefeatures._rows.table_scaling import AnyScaling, TableScaling, learn_table_scaling
from aefeatures._rows.tables import table_of

_SIZES = (1, 2, 3, 5, 8, 12, 16, 24, 32)
# A y with more different whole numbers than this is a quantity, as in the other pictures.
_MOST_CLASSES = 20


class ComponentsDisplay:
    """Scores on held-out rows against the number of codes, compared with PCA.

    The first panel shows how well rows are reconstructed. If there is a y, the second panel shows
    how well y is predicted from the codes. Bands extend one standard error over the folds to either
    side.

    Parameters
    ----------
    n_components : array-like of int of shape (n_sizes,)
        Numbers of codes, in increasing order.
    scores : array-like of shape (n_sizes, n_splits)
        R2 of the reconstruction, for each number of codes and each fold.
    pca_scores : array-like of shape (n_sizes, n_splits), default=None
        R2 of the reconstruction from the same numbers of principal components.
    predictor_scores, pca_predictor_scores : array-like of shape (n_sizes, n_splits), default=None
        Scores of predicting y from the codes and from the principal components.
    score_name : str, default="score"
        Name of the score in `predictor_scores`, shown as the label of its axis.
    predictor_name : str, default=None
        Name of the predictor, shown as the title of its panel.

    Attributes
    ----------
    knee_ : int
        Number of codes at the knee of the mean R2. Beyond the knee, a further code adds less than
        a code adds on average over the whole curve. The knee is where the curve is farthest above
        the line from its start to the best R2 at its end ("Kneedle" [1]_), so that it depends on
        the numbers of codes that were tried.
    n_components_ : int or None
        Smallest number of codes whose mean score of predicting y is at most one standard error
        below the best one (the "one standard error rule" [2]_). None without `predictor_scores`.
    ax_ : matplotlib.axes.Axes
        The axes of R2.
    axes_ : ndarray of shape (n_panels,)
        All axes.
    figure_ : matplotlib.figure.Figure

    See Also
    --------
    sklearn.model_selection.ValidationCurveDisplay : Curves of one score against any parameter.

    References
    ----------
    .. [1] V. Satopaa, J. Albrecht, D. Irwin and B. Raghavan. Finding a "Kneedle" in a haystack:
       detecting knee points in system behavior. ICDCS Workshops 2011.
    .. [2] T. Hastie, R. Tibshirani and J. Friedman. The elements of statistical learning, second
       edition, section 7.10. Springer 2009.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from aefeatures import AutoencoderTransformer, ComponentsDisplay
    >>> X, y = load_wine(return_X_y=True)
    >>> transformer = AutoencoderTransformer(max_epochs=50)
    >>> display = ComponentsDisplay.from_estimator(
    ...     transformer, X, y, n_components=[1, 2, 4, 8], cv=2, random_state=0
    ... )
    >>> display.scores.shape
    (4, 2)
    """

    def __init__(
        self,
        n_components: Any,
        scores: Any,
        *,
        pca_scores: Any = None,
        predictor_scores: Any = None,
        pca_predictor_scores: Any = None,
        score_name: str = "score",
        predictor_name: str | None = None,
    ) -> None:
        self.n_components = n_components
        self.scores = scores
        self.pca_scores = pca_scores
        self.predictor_scores = predictor_scores
        self.pca_predictor_scores = pca_predictor_scores
        self.score_name = score_name
        self.predictor_name = predictor_name

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any = None,
        *,
        n_components: Sequence[int] | None = None,
        predictor: Any = None,
        scoring: Any = None,
        cv: Any = 3,
        random_state: Any = None,
        n_jobs: int | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Train an autoencoder for each number of codes and each fold, and draw the scores.

        Nine numbers of codes and three folds are 27 trainings. To save time, use fewer numbers of
        codes, fewer folds, fewer `max_epochs` or a part of the rows.

        Parameters
        ----------
        estimator : AutoencoderTransformer, Pipeline, search or FrozenEstimator
            Estimator of which clones are fitted. It is not changed. In a pipeline the first
            autoencoder is used. The steps before it are fitted on each fold. The steps after it are
            fitted on the codes if the last one predicts y. Samplers are left out. A search has to
            be fitted, and its best estimator is used.
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows. The input of the autoencoder is made dense, as PCA needs it.
        y : array-like of shape (n_samples,), default=None
            Classes, numbers, dates or durations to predict from the codes. Rows without a label, by
            the rule of `Supervised`, only help to train the autoencoder.
        n_components : sequence of int, default=None
            Numbers of codes. By default 1, 2, 3, 5, 8, 12, 16, 24 and 32, as far as they are
            smaller than the number of columns.
        predictor : estimator, default=None
            Estimator that predicts y. By default the steps after the autoencoder, if the last one
            is a classifier or a regressor. Otherwise it is `KNeighborsClassifier` if y holds values
            that are not numbers or at most 20 different whole numbers, and `KNeighborsRegressor`
            for all other y.
        scoring : str or callable, default=None
            Score of the predictor, in any form that scikit-learn accepts. By default the
            predictor's own score: accuracy or R2.
        cv : int, splitter or iterable of (train, test), default=3
            An int is the number of folds. Their rows are shuffled, and the classes of y are spread
            evenly. A single split, ``ShuffleSplit(1)``, needs the fewest trainings, but gives no
            standard error.
        random_state : int, RandomState instance or None, default=None
            Determines the folds and the random solvers of PCA. It also seeds the trainings if the
            `random_state` of the autoencoder is None.
        n_jobs : int or None, default=None
            Number of trainings at a time, as in joblib.
        ax : matplotlib.axes.Axes or array of two, default=None
            Axes to draw in. By default a new figure is made. Two panels replace a single axes.
        **kwargs
            Passed to `plot`.

        Returns
        -------
        display : ComponentsDisplay

        Raises
        ------
        TypeError
            If there is no autoencoder in `estimator`.
        ValueError
            If `n_components` holds anything except whole numbers of at least 1, if y is not as long
            as X, if y is None although `predictor` or `scoring` is given, or if the test rows of a
            fold have nothing to score.

        Notes
        -----
        R2 is one minus a ratio of two sums over the test rows: the squared errors, and the squared
        differences from the means of the training rows. A perfect reconstruction has an R2 of 1,
        and a reconstruction by the means an R2 of 0. Columns are scaled by the autoencoder's
        `scaling`, as in its loss: to standard deviations of the training rows if it standardizes,
        and to one common unit if it treats all columns as one kind, such as pixels. Missing values,
        and columns that are constant in the training rows, are left out. A category of a table
        counts as one standardized column: its levels, as columns of 0 and 1, are compared with the
        probabilities that the decoder gives them.

        PCA is fitted on the same scaled columns and is the best linear code for them. Missing
        values are replaced by the mean of their column. PCA has no more components than there are
        columns or training rows.
        """
        from sklearn.decomposition import PCA

        import_pyplot()  # raises an error before the long trainings, not after them
        if y is None and not (predictor is None and scoring is None):
            raise ValueError(
                "predictor and scoring need a y to predict, got y=None. Pass y, or leave both out."
            )
        before, transformer, after = split_steps(estimator)
        sizes = None if n_components is None else _check_sizes(n_components)
        # With None, `check_random_state` would return NumPy's global generator.
        rng = np.random.RandomState() if random_state is None else check_random_state(random_state)
        if random_state is not None and transformer.random_state is None:
            transformer = clone(transformer).set_params(random_state=_seed(rng))
        X, y = indexable(X, y)
        labels, head = None, None
        names: dict[str, str] = {}
        if y is not None:
            labels, head, names = resolve_predictor(y, after, predictor, scoring)
            y = check_labels(y)
        splits = _splits(cv, X, labels, rng)
        pca = PCA(random_state=_seed(rng))
        folds = (
            _make_fold(before, transformer, X, y, labels, train, test) for train, test in splits
        )
        first = next(folds, None)
        if first is None:
            raise ValueError(f"cv gives no split: {cv!r}. At least one is needed.")
        if sizes is None:
            n_features = first.train.shape[1]
            sizes = [size for size in _SIZES if size < n_features] or [1]
        of_codes, of_pca = _score_folds(
            chain([first], folds), transformer, pca, sizes, head, scoring, n_jobs
        )
        display = cls(
            np.array(sizes),
            of_codes[:, 0],
            pca_scores=of_pca[:, 0],
            predictor_scores=None if head is None else of_codes[:, 1],
            pca_predictor_scores=None if head is None else of_pca[:, 1],
            **names,
        )
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax: Any = None, **kwargs: Any) -> Self:
        """Draw the scores.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or array of two, default=None
            Axes to draw in. By default a new figure is made. Two panels replace a single axes.
        **kwargs
            Passed to `matplotlib.axes.Axes.plot` for all curves.

        Returns
        -------
        self

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If the shape of any scores is not (n_sizes, n_splits), if scores are not finite, or if
            `ax` is neither a single axes nor one for each panel.
        """
        sizes = _check_sizes(self.n_components)
        if sizes != list(np.asarray(self.n_components)):
            raise ValueError(
                "n_components must increase and hold each number once, got "
                f"{list(self.n_components)}."
            )
        panels = [[self._checked("scores"), self._checked("pca_scores")]]
        if self.predictor_scores is not None:
            panels.append(
                [self._checked("predictor_scores"), self._checked("pca_predictor_scores")]
            )
        reconstruction = panels[0][0]
        assert reconstruction is not None
        self.knee_ = sizes[_knee(np.array(sizes), reconstruction.mean(axis=1))]
        marks = [(self.knee_, f"knee: {_codes(self.knee_)}")]
        names = [("reconstruction", "R2")]
        self.n_components_ = None
        if len(panels) > 1:
            prediction = panels[1][0]
            assert prediction is not None
            self.n_components_ = sizes[_fewest(prediction)]
            rule = "one-SE rule" if prediction.shape[1] > 1 else "best"
            marks.append((self.n_components_, f"{rule}: {_codes(self.n_components_)}"))
            names.append((self.predictor_name or "prediction", self.score_name))
        plt = import_pyplot()
        self.axes_ = _make_axes(plt, ax, len(panels))
        self.ax_, self.figure_ = self.axes_[0], self.axes_[0].figure
        for panel, curves, (chosen, label), (title, name) in zip(
            self.axes_, panels, marks, names, strict=True
        ):
            _draw(panel, sizes, curves, kwargs, in_legend=panel is self.ax_)
            assert curves[0] is not None
            panel.plot(
                chosen, curves[0].mean(axis=1)[sizes.index(chosen)], "o", color=PALETTE[0],
                markeredgecolor="white", markersize=9, label=label, zorder=4,
            )  # fmt: skip
            panel.set(xlabel="number of codes", ylabel=plain(f"held-out {name}"))
            panel.set_title(plain(title), loc="left", fontsize="medium")
            panel.xaxis.get_major_locator().set_params(integer=True)
            panel.spines[["top", "right"]].set_visible(False)
            panel.legend(frameon=False, fontsize="small")
        return self

    def _checked(self, name: str) -> np.ndarray | None:
        """Return the scores in this attribute as an array of shape (n_sizes, n_splits)."""
        values = getattr(self, name)
        if values is None:
            return None
        scores: np.ndarray = check_array(values, dtype=np.float64, input_name=name)
        n_sizes = len(self.n_components)
        expected = (n_sizes, np.shape(self.scores)[-1])
        if scores.shape != expected:
            raise ValueError(
                f"{name} must have a row for each of {n_sizes} numbers of codes and a column for "
                f"each fold: expected the shape {expected}, got {scores.shape}."
            )
        return scores


# Scores


class _Fold(NamedTuple):
    """Training and test data of a split.

    Attributes
    ----------
    rows, rows_test : array-like or sparse matrix
        Training and test rows as the steps before the autoencoder return them.
    y : ndarray or None
        The y of the training rows, for the autoencoder.
    scaling : Scaling or TableScaling
        Scaling that the autoencoder will learn from the training rows.
    train, test : ndarray
        Both kinds of rows as dense arrays of float64, scaled.
    labels, labels_test : Labels or None
    """

    rows: Any
    rows_test: Any
    y: np.ndarray | None
    scaling: AnyScaling
    train: np.ndarray
    test: np.ndarray
    labels: Labels | None
    labels_test: Labels | None


def _make_fold(
    before: list[Any],
    transformer: AutoencoderTransformer,
    X: Any,
    y: np.ndarray | None,
    labels: Labels | None,
    train: np.ndarray,
    test: np.ndarray,
) -> _Fold:
    rows, rows_test = take_samples(X, train), take_samples(X, test)
    y_train = None if y is None else y[train]
    for step in map(clone, before):
        rows = step.fit_transform(rows, y_train)
        rows_test = step.transform(rows_test)
    checked = clone(transformer)  # check_rows stores the names of columns in it
    dense = check_rows(checked, rows, reset=True).dense()
    dense_test = check_rows(checked, rows_test, reset=False).dense()
    # With the loss "bce" the scaling may differ by one factor for all columns, which does not
    # change R2.
    scaling: AnyScaling
    table = table_of(checked)
    if table is None:
        scaling, _ = learn_scaling(Survey.of(dense), transformer.scaling)
    else:
        how = transformer.scaling
        scaling, _ = learn_table_scaling(Survey.of(dense), table.shares(), how)
    return _Fold(
        rows,
        rows_test,
        y_train,
        scaling,
        _scaled(scaling, dense),
        _scaled(scaling, dense_test),
        None if labels is None else labels.of_rows(train),
        None if labels is None else labels.of_rows(test),
    )


def _scaled(scaling: AnyScaling, rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    if isinstance(scaling, TableScaling):
        in_range: np.ndarray = scaling(torch.from_numpy(rows)).numpy()
        return in_range
    scaled: np.ndarray = (rows - scaling.offset.numpy()) / scaling.scale.numpy()
    return scaled


def _score_folds(
    folds: Iterable[_Fold],
    transformer: AutoencoderTransformer,
    pca: Any,
    sizes: list[int],
    head: Any,
    scoring: Any,
    n_jobs: int | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return scores of the codes and of PCA, both of shape (n_sizes, 2, n_splits).

    Along the second axis are R2 and the score of the predictor.
    """

    def tasks() -> Iterator[Any]:
        # A generator, so that only the folds being scored are in memory.
        for fold in folds:
            yield delayed(_score_pca)(fold, pca, sizes, head, scoring)
            for size in sizes:
                yield delayed(_score_codes)(fold, transformer, size, head, scoring)

    results = list(Parallel(n_jobs=n_jobs)(tasks()))
    step = 1 + len(sizes)
    of_codes = [results[start + 1 : start + step] for start in range(0, len(results), step)]
    return np.array(of_codes).transpose(1, 2, 0), np.array(results[::step]).transpose(1, 2, 0)


def _score_codes(
    fold: _Fold, transformer: AutoencoderTransformer, size: int, head: Any, scoring: Any
) -> tuple[float, float]:
    """Return R2 of the reconstruction and the score of the predictor, with `size` codes."""
    transformer = clone(transformer).set_params(n_components=size).fit(fold.rows, fold.y)
    rows = check_rows(transformer, fold.rows_test, reset=False)
    model, scaling = fitted_model(transformer), fold.scaling
    if isinstance(scaling, TableScaling):
        found = model.reconstruct_probabilities(rows, transformer.device_).astype(np.float64)
        reconstructed = scaling.scaled_probabilities(torch.from_numpy(found)).numpy()
    else:
        reconstructed = _scaled(scaling, model.reconstruct(rows, transformer.device_))
    r2 = _r2(fold, reconstructed)
    if head is None:
        return r2, np.nan
    codes = (np.asarray(transformer.transform(each)) for each in (fold.rows, fold.rows_test))
    return r2, _predict(fold, head, scoring, *codes)


def _score_pca(
    fold: _Fold, pca: Any, sizes: list[int], head: Any, scoring: Any
) -> list[tuple[float, float]]:
    """Return the same scores for all sizes of PCA, as fewer components are the first of many."""
    means = _means(fold.train)
    train, test = (np.where(np.isnan(rows), means, rows) for rows in (fold.train, fold.test))
    pca = clone(pca).set_params(n_components=min(max(sizes), *train.shape)).fit(train)
    codes, codes_test = pca.transform(train), pca.transform(test)
    results = []
    for size in sizes:
        reconstructed = codes_test[:, :size] @ pca.components_[:size] + pca.mean_
        score = np.nan
        if head is not None:
            score = _predict(fold, head, scoring, codes[:, :size], codes_test[:, :size])
        results.append((_r2(fold, reconstructed), score))
    return results


def _means(rows: np.ndarray) -> np.ndarray:
    """Return the mean of the known values in each column, or 0 if there are none."""
    known = ~np.isnan(rows)
    means: np.ndarray = np.where(known, rows, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return means


def _r2(fold: _Fold, reconstructed: np.ndarray) -> float:
    """Return R2 over all known values of the test rows, which are scaled."""
    varies = _varying(fold.scaling)
    rows = fold.test[:, varies]
    known = ~np.isnan(rows)
    total = np.square(rows - _means(fold.train[:, varies]))[known].sum()
    if not total > 0:
        raise ValueError(
            "R2 needs test rows with known values in columns that vary, but a fold has none. Use "
            "fewer folds, or more rows."
        )
    return float(1 - np.square(rows - reconstructed[:, varies])[known].sum() / total)


def _varying(scaling: AnyScaling) -> np.ndarray:
    """Return the mask of the columns in the network's range that are not constant."""
    assert scaling.spread is not None
    varies: np.ndarray = scaling.spread.numpy() > 0
    if isinstance(scaling, TableScaling):
        varies = np.concatenate([varies, scaling.share.numpy() < 1])
    return varies


def _predict(
    fold: _Fold, head: Any, scoring: Any, codes: np.ndarray, codes_test: np.ndarray
) -> float:
    """Return the score of a predictor that is fitted on the codes of labelled rows."""
    from sklearn.metrics import check_scoring

    assert fold.labels is not None
    assert fold.labels_test is not None
    head = clone(head).fit(codes[fold.labels.labelled], fold.labels.known)
    scorer = check_scoring(head, scoring)
    return float(scorer(head, codes_test[fold.labels_test.labelled], fold.labels_test.known))


# Parameters


def _check_sizes(n_components: Any) -> list[int]:
    sizes = np.atleast_1d(np.asarray(n_components))
    if (
        sizes.ndim > 1
        or sizes.size == 0
        or not all(isinstance(size, Integral) for size in sizes.tolist())
        or sizes.dtype.kind not in "iu"
        or sizes.min() < 1
    ):
        raise ValueError(f"n_components must be whole numbers from 1 on, got {n_components!r}.")
    distinct: list[int] = np.unique(sizes).tolist()
    return distinct


def resolve_predictor(
    y: Any, after: list[Any], predictor: Any, scoring: Any
) -> tuple[Labels, Any, dict[str, str]]:
    """Return the labels in y, the predictor, and the names of the predictor and of its score."""
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    target = Target(y, most_classes=_MOST_CLASSES)
    if target.classes is None and as_numpy(y).dtype.kind not in "biuf":
        y = target.numbers  # of dates and durations
    predicts = bool(after) and (is_classifier(after[-1]) or is_regressor(after[-1]))
    if predictor is None and predicts:
        predictor = make_pipeline(*after)
    if predictor is not None:
        numbers = is_regressor(predictor)
    else:
        numbers = target.classes is None
        predictor = KNeighborsRegressor() if numbers else KNeighborsClassifier()
    labels = split_labels(check_labels(y), task="regression" if numbers else "classification")
    if scoring is None:
        name = "R2" if numbers else "accuracy"
    else:
        name = scoring.replace("_", " ") if isinstance(scoring, str) else "score"
    last = predictor[-1] if hasattr(predictor, "steps") else predictor
    return labels, predictor, {"score_name": name, "predictor_name": type(last).__name__}


def _splits(
    cv: Any, X: Any, labels: Labels | None, rng: np.random.RandomState
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield positions of the training and the test rows of each fold, in increasing order."""
    from sklearn.model_selection import KFold, StratifiedKFold, check_cv

    n_rows = X.shape[0] if hasattr(X, "shape") else len(X)
    target = np.zeros(n_rows)
    classes = labels is not None and labels.task == "classification"
    if labels is not None:
        known = np.unique(labels.known, return_inverse=True)[1] if classes else labels.known
        target = np.full(n_rows, -1, dtype=known.dtype)  # unlabelled rows are spread evenly, too
        target[labels.labelled] = known
    if isinstance(cv, Integral):
        # Without shuffling, folds of sorted rows would lack whole classes.
        kind = StratifiedKFold if classes else KFold
        cv = kind(int(cv), shuffle=True, random_state=_seed(rng))
    for train, test in check_cv(cv).split(np.zeros((n_rows, 1)), target):
        yield _positions(train), _positions(test)


def _positions(index: Any) -> np.ndarray:
    index = np.asarray(index)
    return np.flatnonzero(index) if index.dtype.kind == "b" else np.sort(index)


def _seed(rng: np.random.RandomState) -> int:
    return int(rng.randint(np.iinfo(np.int32).max))


# Choice of a size, and drawing


def _knee(sizes: np.ndarray, means: np.ndarray) -> int:
    """Return the position where the curve is farthest above the line from its start to the best."""
    height, width = means.max() - means[0], sizes[-1] - sizes[0]
    if height <= 0 or width == 0:
        return 0  # no further code improves the score
    return int(np.argmax((means - means[0]) / height - (sizes - sizes[0]) / width))


def _fewest(scores: np.ndarray) -> int:
    """Return the position of the first size whose mean is within one standard error of the best."""
    means, errors = scores.mean(axis=1), _standard_errors(scores)
    best = int(np.argmax(means))
    return int(np.argmax(means >= means[best] - errors[best]))


def _standard_errors(scores: np.ndarray) -> np.ndarray:
    """Return the standard error of each mean over folds, or 0 with a single fold."""
    n_splits = scores.shape[1]
    if n_splits == 1:
        return np.zeros(len(scores))
    errors: np.ndarray = scores.std(axis=1, ddof=1) / np.sqrt(n_splits)
    return errors


def _codes(n: int) -> str:
    return f"{n} code" if n == 1 else f"{n} codes"


def _make_axes(plt: Any, ax: Any, n_panels: int) -> np.ndarray:
    """Return the axes of the panels: new ones, the given ones, or some that replace a given one."""
    if ax is None:
        figure = plt.figure(figsize=(4.6 * n_panels, 3.4), layout="constrained")
        return np.array(figure.subplots(1, n_panels)).reshape(-1)
    given = np.asarray(ax, dtype=object).reshape(-1)
    if len(given) == n_panels:
        return given
    if len(given) != 1:
        raise ValueError(f"ax must be one axes or {n_panels} of them, got {len(given)}.")
    ax = given[0]
    if ax.get_subplotspec() is None:
        raise ValueError(
            f"{n_panels} panels can replace a single axes only if it was made by subplots, but ax "
            f"was placed by hand. Pass {n_panels} axes, or one made by subplots."
        )
    ax.set_axis_off()
    grid = ax.get_subplotspec().subgridspec(1, n_panels)
    return np.array([ax.figure.add_subplot(cell) for cell in grid])


def _draw(
    ax: Any, sizes: list[int], curves: list[np.ndarray | None], style: Any, *, in_legend: bool
) -> None:
    """Draw the curves, with entries in the legend if `in_legend`."""
    looks = (("autoencoder", PALETTE[0], "-"), ("PCA", PALETTE[6], "--"))
    for scores, (name, color, line) in zip(curves, looks, strict=True):
        if scores is None:
            continue
        means, errors = scores.mean(axis=1), _standard_errors(scores)
        ax.plot(
            sizes,
            means,
            label=name if in_legend else None,
            **{"color": color, "linestyle": line, "marker": ".", **style},
        )
        if errors.any():
            ax.fill_between(
                sizes, means - errors, means + errors, color=color, alpha=0.2, linewidth=0
            )
