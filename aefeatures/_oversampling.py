"""`AutoencoderOversampler`: new rows for the classes that have few."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from scipy import sparse
from sklearn.base import clone

from aefeatures._autoencoder import AutoencoderTransformer
from aefeatures._batches import iterate_chunks, iterate_slices, to_dense
from aefeatures._generation import common_covariance, give_seeds, leaning_covariance, make_rng
from aefeatures._networks import plain
from aefeatures._validation import OVERSAMPLER_CONSTRAINTS, check_rows, get_tags

try:
    from imblearn.over_sampling.base import BaseOverSampler
    from imblearn.utils import check_target_type
except ImportError as error:
    raise ImportError(
        "AutoencoderOversampler needs imbalanced-learn. Install it with "
        "pip install 'aefeatures[imbalance]'."
    ) from error


class AutoencoderOversampler(BaseOverSampler):
    """Even out classes with new rows that lie where the data lies.

    An autoencoder learns from the rows of all classes, without their labels, in which
    directions rows vary together. A new row starts from one of its class, drawn at random: its
    code is moved by noise whose covariance is that of the class (leaning on that of all classes
    where the class has few rows), decoded, and given what the decoder had missed of the row it
    started from. `SMOTE` of imbalanced-learn draws straight lines between rows instead.

    It is a sampler of imbalanced-learn's: in `imblearn.pipeline.Pipeline` only
    the rows that a pipeline is fitted on are resampled. Needs imbalanced-learn
    (``pip install 'aefeatures[imbalance]'``).

    Parameters
    ----------
    sampling_strategy : float, str, dict or callable, default="auto"
        Which classes get how many rows, as of all over-samplers of imbalanced-learn. "auto" brings
        all classes to the size of the largest. A float is the ratio of two classes. A dict
        gives the number of rows of each class, a callable makes one of y.
    autoencoder : AutoencoderTransformer or None, default=None
        Gives codes and decodes them. A clone is fitted; `sklearn.frozen.FrozenEstimator` around a
        fitted one keeps that one. None is one with at most 16 codes.
    spread : float, default=0.4
        Standard deviation of the noise, in units of that of the class. 0 repeats rows.
    random_state : int, RandomState instance or None, default=None
        Determines what is drawn, and seeds the autoencoder where its own is None.

    Attributes
    ----------
    sampling_strategy_ : dict
        How many rows each class was given.
    autoencoder_ : transformer
        The fitted autoencoder; not there where no class was to get rows.
    n_features_in_ : int
        Number of columns seen in `fit_resample`.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns, where X has string names for all of them.

    See Also
    --------
    AutoencoderGenerator : Rows from a density of the codes.

    Notes
    -----
    New rows keep to what their columns are: within the smallest and the largest value, and whole
    numbers where all values are, so that columns of integers and of yes and no stay so. A value
    that is missing (NaN) in the row that a new one starts from is missing there too.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_breast_cancer
    >>> from aefeatures import AutoencoderOversampler
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> X_more, y_more = AutoencoderOversampler(random_state=0).fit_resample(X, y)
    >>> np.bincount(y), np.bincount(y_more)
    (array([212, 357]), array([357, 357]))
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseOverSampler._parameter_constraints,
        **OVERSAMPLER_CONSTRAINTS,
    }

    def __init__(
        self,
        *,
        sampling_strategy: Any = "auto",
        autoencoder: Any = None,
        spread: float = 0.4,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(sampling_strategy=sampling_strategy)
        self.autoencoder = autoencoder
        self.spread = spread
        self.random_state = random_state

    def _check_X_y(self, X: Any, y: Any, accept_sparse: Any = None) -> tuple[Any, Any, bool]:  # noqa: N802
        if any(type(given).__module__.startswith("polars") for given in (X, y)):
            raise TypeError(
                "imbalanced-learn does not give back frames or series of polars. Pass "
                "X.to_numpy() and y.to_numpy()."
            )
        y, one_of_each = check_target_type(y, indicate_one_vs_all=True)
        return check_rows(self, X, reset=True), y, one_of_each

    def _fit_resample(self, X: Any, y: np.ndarray, **_: Any) -> tuple[Any, np.ndarray]:
        wanted = {label: n for label, n in self.sampling_strategy_.items() if n > 0}
        if not wanted:
            return X.copy(), y.copy()
        rng = make_rng(self.random_state)
        autoencoder = (
            _default_autoencoder(*X.shape) if self.autoencoder is None else clone(self.autoencoder)
        )
        named = self._name_columns(X)
        self.autoencoder_ = give_seeds(autoencoder, rng).fit(named, y)
        codes = np.asarray(self.autoencoder_.transform(named), dtype=np.float64)
        common = common_covariance([codes[y == label] for label in np.unique(y)])
        columns = _Columns(X)
        parts = [X]
        for label, n_samples in wanted.items():
            members = np.flatnonzero(y == label)
            factor = np.linalg.cholesky(leaning_covariance(codes[members], common))
            chosen = members[rng.randint(len(members), size=n_samples)]
            noise = rng.standard_normal((n_samples, codes.shape[1])) @ factor.T
            for part in iterate_slices(n_samples, X.shape[1]):
                start = chosen[part]
                # The row and the way from its reconstruction to that of the moved code.
                moved = self._decode(codes[start] + plain(self.spread) * noise[part])
                rows = columns.keep_to(to_dense(X[start]) + (moved - self._decode(codes[start])))
                parts.append(sparse.csr_matrix(rows) if sparse.issparse(X) else rows)
        labels = [np.full(n, label, dtype=y.dtype) for label, n in wanted.items()]
        stacked = sparse.vstack(parts, format="csr") if sparse.issparse(X) else np.vstack(parts)
        return stacked, np.concatenate([y, *labels])

    def _name_columns(self, X: Any) -> Any:
        """The rows in the frame that imbalanced-learn took them out of."""
        names = getattr(self, "feature_names_in_", None)
        if names is None:
            return X
        import pandas as pd

        if sparse.issparse(X):
            return pd.DataFrame.sparse.from_spmatrix(X, columns=names)
        return pd.DataFrame(X, columns=names, copy=False)

    def _decode(self, codes: np.ndarray) -> np.ndarray:
        return np.asarray(self.autoencoder_.inverse_transform(codes), dtype=np.float64)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        of = get_tags(AutoencoderTransformer() if self.autoencoder is None else self.autoencoder)
        tags.input_tags.sparse = of.input_tags.sparse
        tags.input_tags.allow_nan = of.input_tags.allow_nan
        return tags


class _Columns:
    """What the values of each column are: their range, and whether they are whole numbers."""

    def __init__(self, X: Any) -> None:
        chunks = [_describe(to_dense(chunk)) for chunk in iterate_chunks(X)]
        low, high, whole = map(np.array, zip(*chunks, strict=True))
        # Of X's dtype: float64 does not hold all integers of 64 bits.
        self.low, self.high = np.fmin.reduce(low), np.fmax.reduce(high)
        self.whole = whole.all(axis=0)

    def keep_to(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows as what X holds."""
        rows[:, self.whole] = np.round(rows[:, self.whole])
        low, high = rows <= self.low, rows >= self.high
        # Only what lies between is converted: the largest integer's float64 is above it.
        between = np.where(low | high, 0, rows).astype(self.low.dtype)
        return np.where(low, self.low, np.where(high, self.high, between))


def _describe(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The smallest and the largest value of each column, and whether all are whole numbers."""
    low, high = np.fmin.reduce(rows), np.fmax.reduce(rows)  # which pass over NaN
    if rows.dtype.kind != "f":
        return low, high, np.ones(rows.shape[1], dtype=bool)
    return low, high, (np.isnan(rows) | (rows == np.round(rows))).all(axis=0)


def _default_autoencoder(n_rows: int, n_features: int) -> AutoencoderTransformer:
    return AutoencoderTransformer(
        min(16, max(1, n_features - 1)),
        hidden_layer_sizes=(128, 64),
        activation="gelu",
        normalization="layer",
        batch_size=128,
        # What it misses of a row is put back, so that a short training does.
        max_epochs=int(np.clip(128_000 // n_rows, 5, 100)),
    )
