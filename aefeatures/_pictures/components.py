"""How many codes to take: scores on held-out rows against the number of codes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from numbers import Integral
from typing import Any, NamedTuple, Self

import numpy as np
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.decomposition import PCA
from sklearn.metrics import check_scoring
from sklearn.model_selection import KFold, StratifiedKFold, check_cv
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.utils import check_array, check_random_state, indexable
from sklearn.utils.parallel import Parallel, delayed

from aefeatures._autoencoder import AutoencoderTransformer, fitted_model
from aefeatures._bridges.pipelines import split_steps
from aefeatures._pictures.displays import PALETTE, import_pyplot, plain
from aefeatures._pictures.targets import Target
from aefeatures._rows.checks import check_labels, check_rows, take_samples
from aefeatures._rows.labels import Labels, split_labels
from aefeatures._rows.scaling import Scaling, learn_scaling
from aefeatures._rows.survey import Survey

_SIZES = (1, 2, 3, 5, 8, 12, 16, 24, 32)
# More different whole numbers than this are a quantity, as in the other pictures.
_MOST_CLASSES = 20


class ComponentsDisplay:
    """Scores on held-out rows against the number of codes, beside those of PCA.

    The first panel shows how well rows are reconstructed, the second, where there is a y, how well
    it is predicted from the codes. Bands are one standard error over the folds to either side.

    Parameters
    ----------
    n_components : array-like of int of shape (n_sizes,)
        Numbers of codes, from the smallest on.
    scores : array-like of shape (n_sizes, n_splits)
        R2 of the reconstruction, for each number of codes and each fold.
    pca_scores : array-like of shape (n_sizes, n_splits), default=None
        The same from as many principal components.
    predictor_scores, pca_predictor_scores : array-like of shape (n_sizes, n_splits), default=None
        Scores of what predicts y from the codes and from the principal components.
    score_name : str, default="score"
        What `predictor_scores` are: the label of their axis.
    predictor_name : str, default=None
        What predicts: the title of the panel.

    Attributes
    ----------
    knee_ : int
        The number of codes at the knee of the mean R2: behind it, a further code adds less than
        one does on average over the whole curve. It is where the curve is farthest above the line
        from its start to the best R2 at its end ("Kneedle" [1]_), so that it depends on which
        numbers of codes were tried.
    n_components_ : int or None
        The fewest codes whose mean score, of predicting y, is at most one standard error below the
        best one (the "one standard error rule" [2]_). None without `predictor_scores`.
    ax_ : matplotlib.axes.Axes
        The axes of R2.
    axes_ : ndarray of shape (n_panels,)
        All axes.
    figure_ : matplotlib.figure.Figure

    See Also
    --------
    sklearn.model_selection.ValidationCurveDisplay : The same of any parameter and one score.

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

        Nine numbers of codes and three folds are 27 trainings. Fewer of either, fewer `max_epochs`
        and a part of the rows make it shorter.

        Parameters
        ----------
        estimator : AutoencoderTransformer, Pipeline, search or FrozenEstimator
            Clones of it are fitted, and it stays as it is. In a pipeline the first autoencoder is
            taken. The steps before it are fitted on each fold, those behind it on the codes if
            the last one predicts y. Samplers are left out. Of a search, which has to be fitted, it
            is the best estimator.
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            What the autoencoder gets of it is made dense, as PCA needs it.
        y : array-like of shape (n_samples,), default=None
            Classes or numbers that are to be predicted from the codes. Rows without a label, by
            the rule of `Supervised`, help to train the autoencoder alone.
        n_components : sequence of int, default=None
            Numbers of codes. By default those of 1, 2, 3, 5, 8, 12, 16, 24 and 32 that are fewer
            than the columns.
        predictor : estimator, default=None
            Predicts y. By default the steps behind the autoencoder, where the last one is a
            classifier or a regressor; otherwise `KNeighborsClassifier` or `KNeighborsRegressor`:
            classes are what is not a number, and at most 20 different whole numbers.
        scoring : str or callable, default=None
            The score of the predictor, as scikit-learn takes it. By default the predictor's own:
            accuracy or R2.
        cv : int, splitter or iterable of (train, test), default=3
            An int is the number of folds, of shuffled rows, with the classes of y spread evenly. A
            single split, ``ShuffleSplit(1)``, needs the fewest trainings, but gives no
            standard error.
        random_state : int, RandomState instance or None, default=None
            Determines the folds, PCA where its solver is a random one and, where the autoencoder
            has no `random_state` of its own, the trainings.
        n_jobs : int or None, default=None
            Number of trainings at a time, as joblib takes it.
        ax : matplotlib.axes.Axes or array of two, default=None
            Where to draw; by default in a new figure. Two panels take the place of one axes.
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
            If `n_components` holds anything but whole numbers from 1 on, y is not as long as X or
            is missing where there is a predictor, or a fold has nothing to score on.

        Notes
        -----
        R2 is one minus the sum of squared errors over that of the squared differences from the
        training rows' means: 1 is a perfect reconstruction, 0 one by the means. Columns count as
        the autoencoder's `scaling` maps them, as they do in its loss: in standard deviations of
        the training rows where it standardises, and in one unit where it takes all columns for
        one kind, as pixels. Missing values, and columns that are constant in the training rows, are
        left out.

        PCA is fitted on the same scaled columns, of which it is the best linear code, with a
        column's mean for missing values. It has no more components than columns or training rows.
        """
        import_pyplot()  # before all the trainings
        if y is None and not (predictor is None and scoring is None):
            raise ValueError("predictor and scoring need a y to predict, got y=None.")
        before, transformer, after = split_steps(estimator)
        sizes = None if n_components is None else _check_sizes(n_components)
        # None would draw from NumPy's global generator.
        rng = np.random.RandomState() if random_state is None else check_random_state(random_state)
        if random_state is not None and transformer.random_state is None:
            transformer = clone(transformer).set_params(random_state=_seed(rng))
        X, y = indexable(X, y)
        labels, head = None, None
        names: dict[str, str] = {}
        if y is not None:
            labels, head, names = _resolve_predictor(y, after, predictor, scoring)
            y = check_labels(y)
        splits = _splits(cv, X, labels, rng)
        pca = PCA(random_state=_seed(rng))
        folds = (
            _make_fold(before, transformer, X, y, labels, train, test) for train, test in splits
        )
        first = next(folds, None)
        if first is None:
            raise ValueError(f"cv gives no split: {cv!r}.")
        if sizes is None:
            n_features = first.train.shape[1]
            sizes = [size for size in _SIZES if size < n_features] or [1]

        def tasks() -> Iterator[Any]:
            # As they are asked for: only the folds at work are in memory.
            for fold in _chain(first, folds):
                yield delayed(_score_pca)(fold, pca, sizes, head, scoring)
                for size in sizes:
                    yield delayed(_score_codes)(fold, transformer, size, head, scoring)

        results = list(Parallel(n_jobs=n_jobs)(tasks()))
        step = 1 + len(sizes)
        # Of shape (n_sizes, 2, n_splits).
        linear = np.array(results[::step]).transpose(1, 2, 0)
        ours = [results[start + 1 : start + step] for start in range(0, len(results), step)]
        codes = np.array(ours).transpose(1, 2, 0)
        display = cls(
            np.array(sizes),
            codes[:, 0],
            pca_scores=linear[:, 0],
            predictor_scores=None if head is None else codes[:, 1],
            pca_predictor_scores=None if head is None else linear[:, 1],
            **names,
        )
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax: Any = None, **kwargs: Any) -> Self:
        """Draw the scores.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or array of two, default=None
            Where to draw; by default in a new figure. Two panels take the place of one axes.
        **kwargs
            Passed to `matplotlib.axes.Axes.plot` for all curves.

        Returns
        -------
        self

        Raises
        ------
        ImportError
            If matplotlib is missing.
        ValueError
            If scores have another shape than (n_sizes, n_splits) or are not finite, or `ax` is not
            one axes or as many as there are panels.
        """
        sizes = _check_sizes(self.n_components)
        if sizes != list(np.asarray(self.n_components)):
            raise ValueError(
                f"n_components must rise, each number once, got {list(self.n_components)}."
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
            _draw(panel, sizes, curves, kwargs, named=panel is self.ax_)
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
        """The scores of this name, each number of codes a row."""
        values = getattr(self, name)
        if values is None:
            return None
        scores: np.ndarray = check_array(values, dtype=np.float64, input_name=name)
        n_sizes = len(self.n_components)
        expected = (n_sizes, np.shape(self.scores)[-1])
        if scores.shape != expected:
            raise ValueError(
                f"{name} must have a row for each of {n_sizes} numbers of codes and a column for "
                f"each fold, {expected}, got {scores.shape}."
            )
        return scores


# Scores


class _Fold(NamedTuple):
    """What is trained and scored on in a split.

    Attributes
    ----------
    rows, rows_test : array-like or sparse matrix
        As the steps before the autoencoder return them.
    y : ndarray or None
        Of the training rows, for the autoencoder.
    scaling : Scaling
        What the autoencoder will learn of the training rows.
    train, test : ndarray
        The same rows as dense arrays of float64, scaled.
    labels, labels_test : Labels or None
    """

    rows: Any
    rows_test: Any
    y: np.ndarray | None
    scaling: Scaling
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
    checking = clone(transformer)  # learns the names of columns
    dense = check_rows(checking, rows, reset=True).dense()
    dense_test = check_rows(checking, rows_test, reset=False).dense()
    # That of the loss "bce" may differ by a factor of all columns, which changes no R2.
    scaling, _ = learn_scaling(Survey.of(dense), transformer.scaling)
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


def _scaled(scaling: Scaling, rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    scaled: np.ndarray = (rows - scaling.offset.numpy()) / scaling.scale.numpy()
    return scaled


def _score_codes(
    fold: _Fold, transformer: AutoencoderTransformer, size: int, head: Any, scoring: Any
) -> tuple[float, float]:
    """R2 of the reconstruction and the predictor's score, with this many codes."""
    transformer = clone(transformer).set_params(n_components=size).fit(fold.rows, fold.y)
    rows = check_rows(transformer, fold.rows_test, reset=False)
    reconstructed = fitted_model(transformer).reconstruct(rows, transformer.device_)
    r2 = _r2(fold, _scaled(fold.scaling, reconstructed))
    if head is None:
        return r2, np.nan
    codes = (np.asarray(transformer.transform(each)) for each in (fold.rows, fold.rows_test))
    return r2, _predict(fold, head, scoring, *codes)


def _score_pca(
    fold: _Fold, pca: PCA, sizes: list[int], head: Any, scoring: Any
) -> list[tuple[float, float]]:
    """The same from principal components, for all sizes: the first of many are those of few."""
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
    """Means of the known values of the columns; 0 of none."""
    known = ~np.isnan(rows)
    means: np.ndarray = np.where(known, rows, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return means


def _r2(fold: _Fold, reconstructed: np.ndarray) -> float:
    """R2 over all known entries of the test rows, in the network's range."""
    spread = fold.scaling.spread
    assert spread is not None
    varies = spread.numpy() > 0
    rows = fold.test[:, varies]
    known = ~np.isnan(rows)
    total = np.square(rows - _means(fold.train[:, varies]))[known].sum()
    if not total > 0:
        raise ValueError(
            "R2 needs test rows with known values in columns that vary, but a fold has none."
        )
    return float(1 - np.square(rows - reconstructed[:, varies])[known].sum() / total)


def _predict(
    fold: _Fold, head: Any, scoring: Any, codes: np.ndarray, codes_test: np.ndarray
) -> float:
    """The score of a predictor that learns from the labelled codes."""
    assert fold.labels is not None
    assert fold.labels_test is not None
    head = clone(head).fit(codes[fold.labels.labelled], fold.labels.known)
    scorer = check_scoring(head, scoring)
    return float(scorer(head, codes_test[fold.labels_test.labelled], fold.labels_test.known))


# What is asked for


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
    found: list[int] = np.unique(sizes).tolist()
    return found


def _resolve_predictor(
    y: Any, after: list[Any], predictor: Any, scoring: Any
) -> tuple[Labels, Any, dict[str, str]]:
    """What y says of the rows, what is to predict it, and the names of that and of its score."""
    predicts = bool(after) and (is_classifier(after[-1]) or is_regressor(after[-1]))
    if predictor is None and predicts:
        predictor = make_pipeline(*after)
    if predictor is not None:
        numbers = is_regressor(predictor)
    else:
        numbers = Target(y, most_classes=_MOST_CLASSES).classes is None
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
    """Training and test rows of each fold, in increasing order."""
    n_rows = X.shape[0] if hasattr(X, "shape") else len(X)
    target = np.zeros(n_rows)
    classes = labels is not None and labels.task == "classification"
    if labels is not None:
        known = np.unique(labels.known, return_inverse=True)[1] if classes else labels.known
        target = np.full(n_rows, -1, dtype=known.dtype)  # rows without a label are a class
        target[labels.labelled] = known
    if isinstance(cv, Integral):
        # Of sorted rows, folds in order would miss whole classes.
        kind = StratifiedKFold if classes else KFold
        cv = kind(int(cv), shuffle=True, random_state=_seed(rng))
    for train, test in check_cv(cv).split(np.zeros((n_rows, 1)), target):
        yield _positions(train), _positions(test)


def _positions(index: Any) -> np.ndarray:
    index = np.asarray(index)
    return np.flatnonzero(index) if index.dtype.kind == "b" else np.sort(index)


def _seed(rng: np.random.RandomState) -> int:
    return int(rng.randint(np.iinfo(np.int32).max))


def _chain(first: _Fold, others: Iterator[_Fold]) -> Iterator[_Fold]:
    yield first
    yield from others


# What is chosen and drawn


def _knee(sizes: np.ndarray, means: np.ndarray) -> int:
    """Where the curve is farthest above the line from the smallest size to the best."""
    height, width = means.max() - means[0], sizes[-1] - sizes[0]
    if height <= 0 or width == 0:
        return 0  # no further code is of use
    return int(np.argmax((means - means[0]) / height - (sizes - sizes[0]) / width))


def _fewest(scores: np.ndarray) -> int:
    """The first size whose mean score is within one standard error of the best."""
    means, errors = scores.mean(axis=1), _standard_errors(scores)
    best = int(np.argmax(means))
    return int(np.argmax(means >= means[best] - errors[best]))


def _standard_errors(scores: np.ndarray) -> np.ndarray:
    """Of the mean over folds; 0 of a single one."""
    n_splits = scores.shape[1]
    if n_splits == 1:
        return np.zeros(len(scores))
    errors: np.ndarray = scores.std(axis=1, ddof=1) / np.sqrt(n_splits)
    return errors


def _codes(n: int) -> str:
    return f"{n} code" if n == 1 else f"{n} codes"


def _make_axes(plt: Any, ax: Any, n_panels: int) -> np.ndarray:
    """The axes of the panels: new ones, those given, or some in the place of one."""
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
            f"{n_panels} panels can take the place of axes made by subplots, not of axes placed by "
            "hand."
        )
    ax.set_axis_off()
    grid = ax.get_subplotspec().subgridspec(1, n_panels)
    return np.array([ax.figure.add_subplot(cell) for cell in grid])


def _draw(
    ax: Any, sizes: list[int], curves: list[np.ndarray | None], style: Any, *, named: bool
) -> None:
    """Draw the curves; `named` tells whether the legend has them."""
    looks = (("autoencoder", PALETTE[0], "-"), ("PCA", PALETTE[6], "--"))
    for scores, (name, color, line) in zip(curves, looks, strict=True):
        if scores is None:
            continue
        means, errors = scores.mean(axis=1), _standard_errors(scores)
        ax.plot(
            sizes,
            means,
            label=name if named else None,
            **{"color": color, "linestyle": line, "marker": ".", **style},
        )
        if errors.any():
            ax.fill_between(
                sizes, means - errors, means + errors, color=color, alpha=0.2, linewidth=0
            )
