"""`AutoencoderOutlierDetector`: rows far from their neighbours, in values and reconstruction."""

from __future__ import annotations

import os
from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from scipy import sparse
from scipy.spatial.distance import cdist
from sklearn.base import BaseEstimator, OutlierMixin, clone
from sklearn.utils import get_tags
from sklearn.utils.validation import check_consistent_length, check_is_fitted
from torch import nn

from aefeatures._autoencoder import (
    AutoencoderTransformer,
    check_fitted_rows,
    fitted_model,
    load_owned,
    save_owned,
)
from aefeatures._files import reason, short, typed
from aefeatures._generation import give_seeds, make_rng
from aefeatures._persistence import Owner, decode, encode
from aefeatures._rows.checks import (
    as_numpy,
    check_labels,
    like,
    refuse_unknown_size,
    take_samples,
)
from aefeatures._rows.columns import as_objects, columns_of, is_frame, is_pandas, make_frame
from aefeatures._rows.sources import ArraySource, Source, evenly_spaced
from aefeatures._rows.tables import table_of
from aefeatures._sklearn import (
    Interval,
    StrOptions,
    check_parameters,
    fit_context,
    unchanged_on_error,
)

# Weight of the decoder's misses beside the values. Of 0, 0.25, 0.5, 1 and 2, this was best if rows
# of both kinds count: training rows that are all normal, and training rows with outliers.
_MISS_WEIGHT = 0.5

# Added to the typical miss of a column and to its typical distance from neighbours, so that a
# column that is predicted almost exactly does not decide alone. In standard deviations.
_FLOOR = 0.05

# Difference up to which a landmark is the row itself, in standard deviations of a column, or in
# shares of larger values. Scores that differ by less are equal.
_SAME = 1e-5

# Difference from neighbours that larger ones count as, in standard deviations of a column. The
# squares of larger ones overflow in float32, and in float64 they hide all other columns.
_FARTHEST = 1e6

# Rows from which on some are kept aside for p-values. On smaller sets this lowered the area under
# the ROC curve by 0.01 to 0.02.
_FEWEST_TO_CALIBRATE = 200

# Entries of landmarks that the typical distance from neighbours is measured on, and the fewest and
# most landmarks: each entry is compared with all landmarks.
_REFERENCE_ENTRIES = 40_000
_REFERENCE_ROWS = (50, 500)

_SAVED_OF_LANDMARKS = ("values", "misses", "typical_miss")


class Explanation(NamedTuple):
    """Columns of each row, in decreasing order of their part in its unusualness.

    Attributes
    ----------
    column : ndarray of int of shape (n_samples, n_columns)
        Positions of columns, the most unusual one first.
    value : ndarray of shape (n_samples, n_columns)
        Values of the row in these columns.
    expected : ndarray of shape (n_samples, n_columns)
        Values that the other columns of the row suggest.
    part : ndarray of shape (n_samples, n_columns)
        How unusual each value is, in typical deviations of its column.
    """

    column: np.ndarray
    value: np.ndarray
    expected: np.ndarray
    part: np.ndarray


class _Landmarks:
    """Training rows that others are compared with.

    Parameters
    ----------
    values : ndarray of shape (n_landmarks, n_outputs)
        Rows in the network's range.
    misses : ndarray of shape (n_landmarks, n_outputs)
        Their differences from the decoder's output, in units of `typical_miss`.
    typical_miss : ndarray of shape (n_outputs,)
    column : ndarray of shape (n_outputs,)
        Column of X of each column in the network's range.
    n_neighbors : int
    """

    def __init__(
        self,
        values: np.ndarray,
        misses: np.ndarray,
        typical_miss: np.ndarray,
        column: np.ndarray,
        n_neighbors: int,
    ) -> None:
        from sklearn.neighbors import NearestNeighbors

        self.values, self.misses, self.typical_miss = values, misses, typical_miss
        self.column = column
        self.n_neighbors = min(n_neighbors, max(1, len(values) - 1))
        self.n_found = min(self.n_neighbors + 1, len(values))  # with the row itself
        self.search = NearestNeighbors(n_neighbors=self.n_found).fit(values)

    @classmethod
    def of(
        cls, values: np.ndarray, misses: np.ndarray, column: np.ndarray, n_neighbors: int
    ) -> _Landmarks:
        """Make landmarks of the results of `Model.rows_and_misses`."""
        misses = np.nan_to_num(misses)  # NaN of missing values
        # All levels of a category have one unit: a rare level is missed by little on average.
        squares = _sums_of_columns(np.square(misses), column).mean(axis=0)
        typical_miss = (np.sqrt(squares) + _FLOOR)[column].astype(values.dtype)
        return cls(values, misses / typical_miss, typical_miss, column, n_neighbors)

    def distances(self, values: np.ndarray, misses: np.ndarray) -> np.ndarray:
        """Return how far each row is from the middle of its neighbours, in deviations."""
        near = self._neighbors(values)
        squares = np.square(_differences(values, self.values[near].mean(axis=1)))
        squares[np.isnan(misses)] = 0
        squares += _MISS_WEIGHT * np.square(self._unlike_neighbors(misses, near))
        distances: np.ndarray = np.sqrt(squares.sum(axis=1) / (self.column.max() + 1))
        return distances

    def parts(self, values: np.ndarray, misses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the part of each column in a row's unusualness, and the expected values.

        A value is compared with that of the nearest landmarks by the other columns: the value
        itself would draw in landmarks that share it.
        """
        fewest, most = _REFERENCE_ROWS
        n_reference = min(most, max(fewest, _REFERENCE_ENTRIES // values.shape[1]))
        reference = self.values[evenly_spaced(len(self.values), n_reference)]
        typical = self._apart(reference, self._expected(reference))
        typical = np.sqrt(np.square(typical).mean(axis=0)) + _FLOOR
        expected = self._expected(values)
        miss = np.square(self._unlike_neighbors(misses, self._neighbors(values)))
        of_misses = np.sqrt(_sums_of_columns(miss, self.column))
        parts = (self._apart(values, expected) / typical + of_misses) / 2
        missing = _sums_of_columns(np.isnan(misses).astype(float), self.column) > 0
        return np.where(missing, 0, parts), expected

    def _neighbors(self, values: np.ndarray) -> np.ndarray:
        """Return the positions of the nearest landmarks, other than the row itself."""
        near = self.search.kneighbors(values, return_distance=False)
        if near.shape[1] == self.n_neighbors:  # a single landmark
            return near
        itself = self._equals(values, near[:, 0])
        return np.where(itself[:, None], near[:, 1:], near[:, :-1])

    def _equals(self, values: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Whether each row equals the landmark at its position."""
        tolerance = _SAME * np.maximum(1, np.abs(values))
        close = np.abs(self.values[positions] - values) <= tolerance
        equal: np.ndarray = close.all(axis=1)
        return equal

    def _unlike_neighbors(self, misses: np.ndarray, near: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            misses = misses / self.typical_miss
        return np.nan_to_num(_differences(misses, self.misses[near].mean(axis=1)))

    def _expected(self, values: np.ndarray) -> np.ndarray:
        """Return the mean of each column over the nearest landmarks by the other columns."""
        lowest, highest = self.values.min(axis=0), self.values.max(axis=0)
        values = np.clip(values, lowest - _FARTHEST, highest + _FARTHEST)
        distances = cdist(values, self.values, "sqeuclidean")
        if len(self.values) > 1:
            nearest = distances.argmin(axis=1)
            itself = self._equals(values, nearest)
            distances[itself, nearest[itself]] = np.inf
        expected = np.empty_like(values)
        k = self.n_neighbors
        for position in np.unique(self.column):
            here = self.column == position
            others = distances - cdist(values[:, here], self.values[:, here], "sqeuclidean")
            near = np.argpartition(others, k - 1, axis=1)[:, :k]
            expected[:, here] = self.values[:, here][near].mean(axis=1)
        return expected

    def _apart(self, values: np.ndarray, expected: np.ndarray) -> np.ndarray:
        squares = np.square(_differences(values, expected))
        apart: np.ndarray = np.sqrt(_sums_of_columns(squares, self.column))
        return apart


class ScoreModule(nn.Module):
    """Labels and scores of `AutoencoderOutlierDetector` for X, as a module of PyTorch.

    Neighbours are searched among all landmarks at once, so that rows cost memory of their number
    times that of the landmarks.
    """

    values: torch.Tensor
    misses: torch.Tensor
    typical_miss: torch.Tensor

    def __init__(self, detector: AutoencoderOutlierDetector) -> None:
        super().__init__()
        landmarks = detector._landmarks
        self.rows = fitted_model(detector.autoencoder_).to_module("misses")
        for name in _SAVED_OF_LANDMARKS:
            self.register_buffer(name, torch.from_numpy(getattr(landmarks, name)).double())
        self.n_columns = int(landmarks.column.max()) + 1
        self.n_found, self.n_neighbors = landmarks.n_found, landmarks.n_neighbors
        self.offset = detector.offset_

    def forward(self, X: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return labels and scores, each of shape (n,), for X of shape (n, n_features)."""
        values, misses = (each.double() for each in self.rows(X))
        distances = self.values.square().sum(dim=1) - 2 * values @ self.values.T
        near = distances.topk(self.n_found, dim=1, largest=False).indices
        if self.n_found > self.n_neighbors:
            tolerance = _SAME * values.abs().clamp(1, torch.inf)  # older exporters need both
            equal = (self.values[near[:, 0]] - values).abs() <= tolerance
            itself = equal.all(dim=1, keepdim=True)
            near = torch.where(itself, near[:, 1:], near[:, :-1])
        apart = (values - self.values[near].mean(dim=1)).clamp(-_FARTHEST, _FARTHEST)
        squares = apart.square()
        unlike = misses / self.typical_miss - self.misses[near].mean(dim=1)
        squares = squares + _MISS_WEIGHT * unlike.clamp(-_FARTHEST, _FARTHEST).square()
        squares = squares.masked_fill(misses.isnan(), 0)
        scores = -(squares.sum(dim=1) / self.n_columns).sqrt()
        return torch.where(scores < self.offset, -1, 1), scores


def _default_autoencoder(X: Any) -> AutoencoderTransformer:
    n_features = np.shape(X)[1] if np.ndim(X) == 2 else np.inf
    return AutoencoderTransformer(
        int(min(3, max(1, n_features - 1))),
        scaling="auto" if getattr(X, "dtype", None) in (np.uint8, np.uint16) else "standard",
    )


def _indexable(X: Any) -> Any:
    """Return X in a form of which rows can be taken."""
    refuse_unknown_size(X)
    X = as_numpy(X)
    if sparse.issparse(X):
        return X.tocsr()
    return X if hasattr(X, "__len__") else np.asarray(X)  # that only has `__array__`


def _split(
    X: Any, fraction: float | str, rng: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of the rows of X to keep aside, and of the others, both in order."""
    n_rows = X.shape[0] if hasattr(X, "shape") and np.ndim(X) else len(X)
    if isinstance(fraction, str):
        fraction = 0.1 if n_rows >= _FEWEST_TO_CALIBRATE else 0.0
    n_aside = min(round(fraction * n_rows), max(0, n_rows - 1))
    shuffled = rng.permutation(n_rows)
    return np.sort(shuffled[:n_aside]), np.sort(shuffled[n_aside:])


def _threshold(scores: np.ndarray, contamination: float | str) -> float:
    """Return the score below which a row is an outlier."""
    if isinstance(contamination, str):
        lower, upper = np.quantile(scores, [0.25, 0.75])
        threshold = lower - 1.5 * (upper - lower)
    else:
        threshold = np.quantile(scores, contamination)
    # The score of a row that occurs often may be the threshold, and rounding must not decide then.
    return float(threshold - _SAME)


def _entries(X: Any) -> np.ndarray:
    """Return the entries of a frame or an array, as objects if they are not all numbers."""
    if not is_frame(X):
        return np.asarray(X)
    columns = columns_of(X)
    arrays = [np.asarray(column) for column in columns]
    if all(array.dtype.kind in "biuf" for array in arrays):
        return np.stack(arrays, axis=1)
    entries = np.empty(X.shape, dtype=object)
    for i, column in enumerate(columns):
        entries[:, i] = as_objects(column.to_list())
    return entries


def explanation_of(
    detector: AutoencoderOutlierDetector, X: Any, n_columns: int | None = None
) -> Explanation:
    """Return what `explain` does, as arrays also for a frame."""
    check_is_fitted(detector)
    if n_columns is not None and (
        isinstance(n_columns, bool) or not isinstance(n_columns, Integral) or n_columns < 1
    ):
        raise ValueError(f"n_columns must be an int of at least 1 or None, got {n_columns!r}.")
    landmarks = detector._landmarks
    rows = detector._rows(X, "explain")
    found = [
        landmarks.parts(*both)
        for both in detector._rows_and_misses(rows, n_numbers=len(landmarks.values))
    ]
    parts, expected = (np.concatenate(each) for each in zip(*found, strict=True))
    expected = fitted_model(detector.autoencoder_).in_units_of_rows(expected)
    values: Any = rows.dense()
    order = np.argsort(-parts, axis=1, kind="stable")[:, :n_columns]
    table = table_of(detector.autoencoder_)
    if table is not None:
        values, expected = _entries(X), _entries(table.rows(expected))
    elif is_frame(X):
        values = _entries(X)
    values, expected, parts = (
        np.take_along_axis(each, order, axis=1) for each in (values, expected, parts)
    )
    return Explanation(order, values, expected, parts)


def detector_around(transformer: AutoencoderTransformer, X: Any) -> AutoencoderOutlierDetector:
    """Return a detector with a transformer that is fitted already, and with landmarks from X."""
    detector = AutoencoderOutlierDetector(transformer, calibration_fraction=0, random_state=0)
    detector._set_fitted(transformer)
    rows = detector._rows(X, "fit")
    detector._set_landmarks(take_samples(X, evenly_spaced(rows.shape[0], detector.n_landmarks)))
    scores = detector._scores(rows)
    detector.calibration_scores_ = scores[:0]
    detector.offset_ = _threshold(scores, detector.contamination)
    return detector


def _long_form(explanation: Explanation, X: Any) -> Any:
    """Return an explanation as a frame with a row for each entry."""
    n_rows, n_columns = explanation.column.shape
    index = np.arange(n_rows) if getattr(X, "index", None) is None else np.asarray(X.index)
    library = "pandas" if is_pandas(X) else "polars"
    columns = {
        "row": np.repeat(index, n_columns),
        "column": as_objects(list(X.columns))[explanation.column.ravel()],
        "value": explanation.value.ravel(),
        "expected": explanation.expected.ravel(),
        "part": explanation.part.ravel(),
    }
    if library == "polars":  # whose columns hold values of one type
        for name, values in columns.items():
            if values.dtype.kind == "O":
                columns[name] = as_objects([None if each is None else str(each) for each in values])
    return make_frame(library, list(columns.values()), list(columns), None)


def _differences(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.clip(rows - others, -_FARTHEST, _FARTHEST)


def _sums_of_columns(entries: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Return sums over the columns in the network's range that belong to one column of X."""
    n_columns = int(column.max()) + 1
    if len(column) == n_columns and (np.diff(column) == 1).all():
        return entries
    sums = np.zeros((n_columns, len(entries)), entries.dtype)
    np.add.at(sums, column, entries.T)
    return sums.T


class AutoencoderOutlierDetector(OutlierMixin, BaseEstimator):
    """Find unusual rows, and say what is unusual about them.

    An autoencoder learns how columns depend on each other. A row is compared with the training rows
    that are nearest to it: how far its values are from their middle, and how differently the
    autoencoder reconstructs it. What the autoencoder misses in a whole region, because three codes
    cannot hold it, then does not count against the rows there.

    Parameters
    ----------
    autoencoder : AutoencoderTransformer or None, default=None
        Estimator of which a clone is fitted. None means an `AutoencoderTransformer` with 3 codes,
        and with ``scaling="standard"`` (``"auto"`` for unsigned integers of 8 and 16 bits). To set
        other parameters, or to search over them as ``autoencoder__...``, pass such an estimator.
    contamination : "auto" or float, default="auto"
        Share of outliers among the training rows, in (0, 0.5]. It determines the threshold:
        `predict` returns -1 for this share of the training rows. The autoencoder is trained twice
        then, the second time without this share of its rows, those with the lowest scores. It would
        learn to reconstruct outliers otherwise.

        With "auto", the autoencoder learns from all rows, and an outlier is a row that a box plot
        of the training rows' scores would draw as one: below their lower quartile by more than 1.5
        times the distance of the quartiles.
    n_neighbors : int, default=10
        Number of nearest training rows that a row is compared with.
    n_landmarks : int, default=2000
        Largest number of training rows, drawn at random, that are kept to compare rows with. More
        take longer and make a larger model.
    calibration_fraction : "auto" or float, default="auto"
        Share of the rows, drawn at random, that neither the autoencoder nor the landmarks see.
        `p_values` compares rows with them. "auto" is 0.1 for 200 rows or more and 0 for fewer, of
        which the autoencoder needs each.
    random_state : int, RandomState instance or None, default=None
        Determines which rows are kept aside and which are landmarks. It also seeds the autoencoder
        if its own `random_state` is None.

    Attributes
    ----------
    autoencoder_ : AutoencoderTransformer
        The fitted autoencoder.
    offset_ : float
        Threshold of `score_samples`: `decision_function` is the difference.
    calibration_scores_ : ndarray
        Scores of the rows that were kept aside, in increasing order.
    n_features_in_ : int
        Number of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns seen in `fit`. Only if all names are strings.

    See Also
    --------
    AutoencoderTransformer.score_samples : The error of the reconstruction alone.
    sklearn.neighbors.LocalOutlierFactor : Neighbours alone.

    Notes
    -----
    X may be all that the autoencoder takes, such as a frame with text, categories and missing
    values. A missing value is taken as reconstructed, and adds nothing to the score itself.
    A level of a category that `fit` has not seen counts as missing.

    The nearest rows of a training row do not include the row itself, so that the scores of training
    rows and of new rows are comparable. A new row that equals a landmark is treated likewise.

    The score is minus the root of a mean over columns, in the network's range: of the squared
    distance from the mean of the nearest landmarks, plus half of the squared difference between
    what the decoder misses of the row and what it misses of them on average. The misses are in
    units of what is typical for the column.

    References
    ----------
    .. [1] S. Ramaswamy, R. Rastogi and K. Shim. Efficient algorithms for mining outliers from large
       data sets. SIGMOD 2000.
    .. [2] S. Bates, E. Candès, L. Lei, Y. Romano and M. Sesia. Testing for outliers with conformal
       p-values. Annals of Statistics 51, 2023.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from aefeatures import AutoencoderOutlierDetector
    >>> X, _ = load_wine(return_X_y=True, as_frame=True)
    >>> detector = AutoencoderOutlierDetector(random_state=0).fit(X)
    >>> strange = X.iloc[[0]].assign(magnesium=180.0)
    >>> detector.predict(strange)
    array([-1])
    >>> detector.explain(strange).loc[0, "column"]
    'magnesium'
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "autoencoder": [None, AutoencoderTransformer],
        "contamination": [StrOptions({"auto"}), Interval(Real, 0, 0.5, closed="right")],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "n_landmarks": [Interval(Integral, 1, None, closed="left")],
        "calibration_fraction": [StrOptions({"auto"}), Interval(Real, 0, 1, closed="left")],
        "random_state": ["random_state"],
    }

    autoencoder_: AutoencoderTransformer
    offset_: float
    calibration_scores_: np.ndarray
    n_features_in_: int
    _landmarks: _Landmarks

    def __init__(
        self,
        autoencoder: AutoencoderTransformer | None = None,
        *,
        contamination: float | str = "auto",
        n_neighbors: int = 10,
        n_landmarks: int = 2000,
        calibration_fraction: float | str = "auto",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.autoencoder = autoencoder
        self.contamination = contamination
        self.n_neighbors = n_neighbors
        self.n_landmarks = n_landmarks
        self.calibration_fraction = calibration_fraction
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> Self:
        """Train the autoencoder, and keep the rows that others are compared with.

        Parameters
        ----------
        X : {array-like, sparse matrix, frame} of shape (n_samples, n_features)
            Rows, of which most are normal, in any form that the autoencoder accepts.
        y : array-like of shape (n_samples,), default=None
            Only used if a regularizer of the autoencoder needs it.

        Returns
        -------
        self
        """
        with unchanged_on_error(self):
            X = _indexable(X)
            rng = make_rng(self.random_state)
            autoencoder = _default_autoencoder(X) if self.autoencoder is None else self.autoencoder
            transformer = give_seeds(clone(autoencoder), rng)
            aside, kept = _split(X, self.calibration_fraction, rng)
            training = take_samples(X, kept) if len(aside) else X
            if y is not None and get_tags(transformer).target_tags.required:
                y = check_labels(y)
                check_consistent_length(X, y)
                y = y[kept]
            else:
                y = None
            chosen = rng.choice(len(kept), min(len(kept), self.n_landmarks), replace=False)
            landmarks = take_samples(training, np.sort(chosen))
            self._learn(transformer, training, y, landmarks)
            if not isinstance(self.contamination, str):
                order = np.argsort(self._scores(self._rows(training, "fit")), kind="stable")
                rest = np.sort(order[int(self.contamination * len(order)) :])
                if len(rest) < len(order):
                    y = None if y is None else y[rest]
                    self._learn(transformer, take_samples(training, rest), y, landmarks)
            scores = self._scores(self._rows(X, "fit"))
            self.calibration_scores_ = np.sort(scores[aside])
            self.offset_ = _threshold(scores, self.contamination)
        return self

    def _learn(
        self, transformer: AutoencoderTransformer, training: Any, y: Any, landmarks: Any
    ) -> None:
        self._set_fitted(transformer.fit(training, y))
        self._set_landmarks(landmarks)

    def _set_landmarks(self, X: Any) -> None:
        model = fitted_model(self.autoencoder_)
        self._landmarks = _Landmarks.of(
            *model.rows_and_misses(self._rows(X, "fit"), self.autoencoder_.device_),
            model.column_of_output,
            self.n_neighbors,
        )

    def score_samples(self, X: Any) -> np.ndarray:
        """Return how normal the rows of X are: higher is more normal.

        Parameters
        ----------
        X : {array-like, sparse matrix, frame} of shape (n_samples, n_features)

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            Minus the distance from the nearest training rows, as the notes describe it.
        """
        check_is_fitted(self)
        return like(self._scores(self._rows(X, "score_samples")), X)

    def decision_function(self, X: Any) -> np.ndarray:
        """Return `score_samples` minus `offset_`: outliers have a negative value.

        Parameters
        ----------
        X : {array-like, sparse matrix, frame} of shape (n_samples, n_features)

        Returns
        -------
        decision : ndarray of shape (n_samples,)
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """Return 1 for each normal row of X, and -1 for each outlier.

        Parameters
        ----------
        X : {array-like, sparse matrix, frame} of shape (n_samples, n_features)

        Returns
        -------
        labels : ndarray of int of shape (n_samples,)
        """
        return np.where(as_numpy(self.decision_function(X)) < 0, -1, 1)

    def p_values(self, X: Any) -> np.ndarray:
        """Return the probability that a normal row is as unusual as each row of X.

        These are conformal p-values: the share of the calibration rows, which `fit` kept aside,
        that are at least as unusual. Of normal rows like those of `fit`, a share of at most 0.05
        has a p-value of at most 0.05, on average over the draws of calibration rows, whatever their
        distribution.

        Parameters
        ----------
        X : {array-like, sparse matrix, frame} of shape (n_samples, n_features)

        Returns
        -------
        p_values : ndarray of shape (n_samples,)
            Multiples of ``1 / (n + 1)`` with n calibration rows, at least ``1 / (n + 1)``.

        Raises
        ------
        ValueError
            If `fit` kept no rows aside.

        Examples
        --------
        >>> from sklearn.datasets import load_wine
        >>> from aefeatures import AutoencoderOutlierDetector
        >>> X, _ = load_wine(return_X_y=True)
        >>> detector = AutoencoderOutlierDetector(calibration_fraction=0.3, random_state=0).fit(X)
        >>> detector.p_values(X[:3] + 100).round(2)
        array([0.02, 0.02, 0.02])
        """
        check_is_fitted(self)
        calibration = self.calibration_scores_
        if not len(calibration):
            raise ValueError(
                "p_values compares rows with training rows that fit kept aside, but there are "
                f"none with calibration_fraction={self.calibration_fraction!r}. Fit with a larger "
                "fraction, such as 0.2, or with more rows."
            )
        as_unusual = np.searchsorted(calibration, as_numpy(self.score_samples(X)), side="right")
        return like((1 + as_unusual) / (len(calibration) + 1), X)

    def explain(self, X: Any, *, n_columns: int | None = None) -> Any:
        """Return the columns that make each row of X unusual, in order.

        A value is compared with its mean over the training rows that are nearest by the other
        columns. Half of its part is the distance from that mean, in units that are typical for the
        column. The other half is what the decoder misses of it more than of the nearest rows.

        Parameters
        ----------
        X : {array-like, sparse matrix, frame} of shape (n_samples, n_features)
        n_columns : int or None, default=None
            Number of columns for each row. None means all columns.

        Returns
        -------
        explanation : frame or Explanation
            For a frame X, a frame with the columns "row" (index in X, or position), "column",
            "value", "expected" and "part", and with `n_columns` rows for each row of X. Otherwise a
            named tuple of arrays `column`, `value`, `expected` and `part`, of shape (n_samples,
            n_columns). The part of a missing value is 0, and what was expected is an estimate. In
            polars, the values of a table with categories or dates are texts.

        Raises
        ------
        ValueError
            If `n_columns` is not an int of at least 1.

        Examples
        --------
        >>> from sklearn.datasets import load_wine
        >>> from aefeatures import AutoencoderOutlierDetector
        >>> X, _ = load_wine(return_X_y=True)
        >>> detector = AutoencoderOutlierDetector(random_state=0).fit(X)
        >>> strange = X[:1].copy()
        >>> strange[0, 4] = 180
        >>> explanation = detector.explain(strange, n_columns=3)
        >>> int(explanation.column[0, 0]), float(explanation.value[0, 0])
        (4, 180.0)
        """
        explanation = explanation_of(self, X, n_columns)
        return _long_form(explanation, X) if is_frame(X) else explanation

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted detector to a file without code, which `load` reads.

        The file is that of `AutoencoderTransformer.save`, with the landmarks and the scores of the
        calibration rows.

        Parameters
        ----------
        path : str or path-like
            An existing file is replaced. No suffix is added; ".safetensors" is usual.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If it is not fitted.
        ValueError
            If the autoencoder cannot be saved; see `AutoencoderTransformer.save`.
        OSError
            If the file cannot be written.

        Examples
        --------
        >>> import tempfile
        >>> from pathlib import Path
        >>> from sklearn.datasets import load_wine
        >>> from aefeatures import AutoencoderOutlierDetector
        >>> X, _ = load_wine(return_X_y=True)
        >>> detector = AutoencoderOutlierDetector(random_state=0).fit(X)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     detector.save(Path(folder, "wine.safetensors"))
        ...     loaded = AutoencoderOutlierDetector.load(Path(folder, "wine.safetensors"))
        >>> bool((loaded.predict(X) == detector.predict(X)).all())
        True
        """
        check_is_fitted(self)
        parameters = self.get_params(deep=False)
        has_default = parameters.pop("autoencoder") is None
        document = {
            "parameters": {name: encode(value, name) for name, value in parameters.items()},
            "has_default_autoencoder": has_default,
        }
        arrays = {name: getattr(self._landmarks, name) for name in _SAVED_OF_LANDMARKS}
        arrays["offset"] = np.array(self.offset_)
        arrays["calibration_scores"] = self.calibration_scores_
        save_owned(
            self.autoencoder_, path, Owner(AutoencoderOutlierDetector.__name__, document, arrays)
        )

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], device: str | torch.device = "auto", network: Any = None
    ) -> Self:
        """Return the detector that `save` wrote.

        No code from the file is run: unlike a pickle, a file from anyone can be loaded.

        Parameters
        ----------
        path : str or path-like
        device : str or torch.device, default="auto"
            Parameter `device` of the autoencoder, as in `AutoencoderTransformer.load`.
        network : callable, default=None
            Parameter `network` of the autoencoder, if it is one of your own, which is not in the
            file.

        Returns
        -------
        AutoencoderOutlierDetector
            If its parameter `autoencoder` was not None, it is a clone of `autoencoder_`.

        Raises
        ------
        ValueError
            If the file contains no detector, is damaged or of a later version of aefeatures; if
            `network` is missing, or builds another network; if `device` is not available.
        OSError
            If the file cannot be read.
        """
        transformer, owner = load_owned(
            AutoencoderTransformer, path, device, network, AutoencoderOutlierDetector.__name__
        )
        assert owner is not None
        try:
            return cls._restored(transformer, owner)
        except Exception as error:
            # Whatever error a file causes, the file is wrong.
            raise ValueError(f"{os.fspath(path)} cannot be loaded: {reason(error)}") from error

    @classmethod
    def _restored(cls, transformer: AutoencoderTransformer, owner: Owner) -> Self:
        parameters = typed(owner.document, "parameters", dict)
        detector = cls(**{name: decode(value) for name, value in parameters.items()})
        if not typed(owner.document, "has_default_autoencoder", bool):
            detector.autoencoder = clone(transformer)
        check_parameters(detector)
        column, arrays = fitted_model(transformer).column_of_output, owner.arrays
        n_landmarks = len(arrays["values"])
        shapes = {
            "values": (n_landmarks, len(column)),
            "misses": (n_landmarks, len(column)),
            "typical_miss": (len(column),),
            "offset": (),
            "calibration_scores": (arrays["calibration_scores"].size,),
        }
        for name, shape in shapes.items():
            array = arrays[name]
            if array.shape != shape or array.dtype.kind != "f" or not np.isfinite(array).all():
                raise ValueError(f"{name} should be finite numbers of shape {shape}.")
        if arrays.keys() != shapes.keys():
            raise ValueError(f"it has unknown arrays: {short(sorted(arrays))}.")
        detector._set_fitted(transformer)
        values, misses, typical_miss = (arrays[name] for name in _SAVED_OF_LANDMARKS)
        detector._landmarks = _Landmarks(values, misses, typical_miss, column, detector.n_neighbors)
        detector.offset_ = float(arrays["offset"])
        detector.calibration_scores_ = arrays["calibration_scores"]
        return detector

    def _set_fitted(self, transformer: AutoencoderTransformer) -> None:
        self.autoencoder_ = transformer
        for name in ("n_features_in_", "feature_names_in_"):
            self.__dict__.pop(name, None)
            if hasattr(transformer, name):
                setattr(self, name, getattr(transformer, name))

    def _rows(self, X: Any, method: str) -> Source:
        return check_fitted_rows(self.autoencoder_, X, method)

    def _rows_and_misses(
        self, rows: Source, n_numbers: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield rows and misses in chunks of rows that take `n_numbers` each, besides columns."""
        model = fitted_model(self.autoencoder_)
        for chunk in rows.chunks(max(n_numbers, 2 * model.n_outputs)):
            yield model.rows_and_misses(ArraySource(chunk), self.autoencoder_.device_)

    def _scores(self, rows: Source) -> np.ndarray:
        n_numbers = self._landmarks.n_neighbors * self._landmarks.values.shape[1]
        each = [
            -self._landmarks.distances(*both) for both in self._rows_and_misses(rows, n_numbers)
        ]
        return np.concatenate(each)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = True
        return tags
