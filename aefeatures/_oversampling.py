"""`AutoencoderOversampler`: new rows for classes that have few rows."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

import numpy as np
from scipy import sparse
from sklearn.base import clone
from sklearn.utils import check_consistent_length, get_tags
from sklearn.utils.validation import validate_data

from aefeatures._autoencoder import AutoencoderTransformer, fitted_model
from aefeatures._generation import (
    CODES_AND_BACK,
    common_covariance,
    default_scaling,
    give_seeds,
    leaning_covariance,
    make_rng,
    reads_table,
    scale_of_codes,
    unfrozen,
)
from aefeatures._nets.networks import plain
from aefeatures._rows.checks import check_matrix
from aefeatures._rows.new_rows import (
    PointMasses,
    describe_columns,
    draw_levels,
    keep_to,
    numbers_of_categories,
    to_categories,
)
from aefeatures._rows.sources import as_source, evenly_spaced, iterate_slices
from aefeatures._rows.tables import Table
from aefeatures._sklearn import Interval, parameter_constraints

try:
    from imblearn.over_sampling.base import BaseOverSampler
    from imblearn.utils import check_target_type
except ImportError as error:
    raise ImportError(
        "AutoencoderOversampler needs imbalanced-learn. Install it with "
        "pip install 'aefeatures[imbalance]'."
    ) from error

# The distribution of a column is learned from a sample of rows: their least and largest number,
# the largest number of values in them, and the least number of moved rows.
_SAMPLE_ROWS = (64, 2_000)
_SAMPLE_VALUES = 4_000_000
_LEAST_MOVED_ROWS = 256


class AutoencoderOversampler(BaseOverSampler):
    """Balance classes with new rows that lie where the data lies.

    An autoencoder learns from the rows of all classes, without their labels, in which
    directions rows vary together. A new row starts from a row of its class, drawn at random. The
    code of that row is moved by noise and decoded, and the reconstruction error of the row is added
    back. The noise has the covariance of the class, which leans on that of all classes if the
    class has few rows. `SMOTE` of imbalanced-learn draws straight lines between rows instead.

    This is a sampler as imbalanced-learn defines it: in `imblearn.pipeline.Pipeline` only the rows
    that a pipeline is fitted on are resampled. It needs imbalanced-learn
    (``pip install 'aefeatures[imbalance]'``).

    Parameters
    ----------
    sampling_strategy : float, str, dict or callable, default="auto"
        Number of rows that each class gets, as for all over-samplers of imbalanced-learn. "auto"
        brings all classes to the size of the largest. A float is the ratio of two classes. A
        dict gives the number of rows of each class, and a callable returns such a dict for y.
    autoencoder : AutoencoderTransformer or None, default=None
        Estimator that encodes rows and decodes codes. A clone of it is fitted. To keep a fitted
        one, wrap it in `sklearn.frozen.FrozenEstimator`. None means an `AutoencoderTransformer`
        with at most 16 codes.
    spread : float, default=0.4
        Standard deviation of the noise, in units of that of the class. 0 repeats rows.
    random_state : int, RandomState instance or None, default=None
        Determines what is drawn, and seeds the autoencoder if its own `random_state` is None.

    Attributes
    ----------
    sampling_strategy_ : dict
        Number of new rows of each class.
    autoencoder_ : transformer
        The fitted autoencoder. Only available if at least one class gets new rows.
    n_features_in_ : int
        Number of columns seen in `fit_resample`.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns. Only available if all columns of X have string names.

    See Also
    --------
    AutoencoderGenerator : Draws rows from a density of the codes.

    Notes
    -----
    New values are between the smallest and the largest value of their column. They are whole
    numbers if all values of the column are, so that integers remain integers and 0/1 columns remain
    0/1 columns. If a value is missing (NaN) in the row that a new row starts from, it is missing in
    the new row as well.

    Values that a column of the class repeats, such as zeros, small integers and categories, are as
    frequent in new rows as in the class, so that sparse X stays sparse. Half of these values stay
    as they are in the row that a new row starts from. The other half move along the order of the
    column's values. In a class of few rows, all rows together count as much as three of its own.

    In a table, the noise changes the probabilities that the decoder gives the levels of a category.
    This change is added to a probability of 1 for the level that a new row starts from, and the new
    level is drawn from the result. A missing level stays missing. `SMOTENC` of imbalanced-learn
    takes the commonest level of the nearest rows instead.

    With the default autoencoder, new rows do not depend on the units of columns, except that whole
    numbers are whole in some units only. A given autoencoder with ``scaling="auto"`` does not scale
    X if all its values are within [0, 1].

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
        **parameter_constraints(BaseOverSampler),
        "autoencoder": [None, CODES_AND_BACK],
        "spread": [Interval(Real, 0, None, closed="left")],
    }

    _table: Table | None = None

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
                "imbalanced-learn does not return frames or series of polars. Pass X.to_numpy() "
                "or X.to_pandas(), and y.to_numpy() instead."
            )
        y, one_of_each = check_target_type(y, indicate_one_vs_all=True)
        if reads_table(self.autoencoder, X):
            validate_data(self, X, y, reset=True, skip_check_array=True)
            check_consistent_length(X, y)
            return X, y, one_of_each
        return check_matrix(self, X, reset=True), y, one_of_each

    def fit_resample(self, X: Any, y: Any, **params: Any) -> tuple[Any, Any]:
        """Return X and y with new rows appended.

        Parameters
        ----------
        X : {array-like, sparse matrix, pandas frame} of shape (n_samples, n_features)
            Numbers, or a table of pandas with text, categories, booleans and dates.
        y : array-like of shape (n_samples,)
            Classes.
        **params : dict
            Passed to `fit_resample` of imbalanced-learn, which accepts none so far.

        Returns
        -------
        X : {ndarray, sparse matrix, pandas frame} of shape (n_samples_new, n_features)
            The given rows unchanged, followed by the new rows in the same dtypes. New rows have
            levels that were given.
        y : array-like of shape (n_samples_new,)
            Classes of these rows.

        Raises
        ------
        ValueError
            If X holds infinity, or text that the autoencoder does not read, or if y has a single
            class.
        TypeError
            If X or y is a frame or series of polars.
        """
        if reads_table(self.autoencoder, X):
            return super().fit_resample(X, y, **params)
        X_more, y_more = super().fit_resample(numbers_of_categories(X), y, **params)
        if not hasattr(X, "iloc"):
            return X_more, y_more
        import pandas as pd

        new = X_more.iloc[len(X) :].copy(deep=False)
        for i, dtype in enumerate(X.dtypes):
            if isinstance(dtype, pd.CategoricalDtype):
                new.isetitem(i, to_categories(new.iloc[:, i], dtype))
        return pd.concat([X, new], ignore_index=True), y_more

    def _fit_resample(self, X: Any, y: np.ndarray, **_: Any) -> tuple[Any, np.ndarray]:
        wanted = {label: n for label, n in self.sampling_strategy_.items() if n > 0}
        if not wanted:
            return X.copy(), y.copy()
        rng = make_rng(self.random_state)
        made = _default_autoencoder(X) if self.autoencoder is None else clone(self.autoencoder)
        of_table = reads_table(self.autoencoder, X)
        named = X if of_table else self._name_columns(X)
        self.autoencoder_ = give_seeds(made, rng).fit(named, y)
        self._table = unfrozen(self.autoencoder_)._table if of_table else None
        given = X
        if self._table is not None:
            X = self._table.numbers(X)
        codes = np.asarray(self.autoencoder_.transform(named), dtype=np.float64)
        # Codes are scaled, as every autoencoder has its own units of codes.
        scale = scale_of_codes(codes)[1]
        common = common_covariance([codes[y == label] / scale for label in np.unique(y)])
        described = describe_columns(X)
        n_sample = int(np.clip(_SAMPLE_VALUES // X.shape[1], *_SAMPLE_ROWS))
        sample = as_source(X).take(evenly_spaced(X.shape[0], n_sample))
        parts = [X]
        for label, n_samples in wanted.items():
            members = np.flatnonzero(y == label)
            factor = np.linalg.cholesky(leaning_covariance(codes[members] / scale, common))
            factor = plain(self.spread) * factor.T * scale
            chosen = members[rng.randint(len(members), size=n_samples)]
            noise = rng.standard_normal((n_samples, codes.shape[1])) @ factor
            distinct = members[evenly_spaced(len(members), n_sample)]
            repeats = -(-min(_LEAST_MOVED_ROWS, n_sample) // len(distinct))
            repeated = np.tile(distinct, repeats)
            sample_noise = rng.standard_normal((len(repeated), codes.shape[1])) @ factor
            start, moved = self._move(X, codes, repeated, sample_noise)
            masses = PointMasses(start[: len(distinct)], moved, sample)
            for part in iterate_slices(n_samples, X.shape[1]):
                start, moved = self._move(X, codes, chosen[part], noise[part])
                rows = keep_to(moved, *described)
                masses.restore(moved, rows, start, rng)
                if self._table is not None:
                    self._move_levels(rows, codes[chosen[part]], noise[part], rng)
                parts.append(sparse.csr_matrix(rows) if sparse.issparse(X) else rows)
        labels = [np.full(n, label, dtype=y.dtype) for label, n in wanted.items()]
        if self._table is not None:
            new = self._table.rows(np.vstack(parts[1:]), rng=rng)
            return self._below(given, new), np.concatenate([y, *labels])
        stacked = sparse.vstack(parts, format="csr") if sparse.issparse(X) else np.vstack(parts)
        return stacked, np.concatenate([y, *labels])

    def _move(
        self, X: Any, codes: np.ndarray, index: np.ndarray, noise: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows at the positions `index`, before and after noise moves their codes."""
        rows, decoded = as_source(X).take(index), self._decode(codes[index])
        # Only the difference of the two decoded rows is added: this keeps what the decoder misses.
        return rows, rows + (self._decode(codes[index] + noise) - decoded)

    def _move_levels(
        self, rows: np.ndarray, codes: np.ndarray, noise: np.ndarray, rng: np.random.RandomState
    ) -> None:
        """Draw the levels of a table's categories, which `rows` hold as they were at the start.

        The noise changes the probabilities of levels. As with numbers, only that change counts.
        """
        assert self._table is not None
        before, after = self._decoded(codes), self._decoded(codes + noise)
        for j, block in enumerate(self._table.blocks()):
            known = ~np.isnan(rows[:, j])
            if not self._table.is_category[j] or not known.any():
                continue
            shares = (after[:, block] - before[:, block])[known]
            shares[np.arange(len(shares)), rows[known, j].astype(np.intp)] += 1
            rows[known, j] = draw_levels(np.maximum(shares, 0), rng)

    def _decoded(self, codes: np.ndarray) -> np.ndarray:
        """Return numbers, and probabilities of levels, of a table."""
        autoencoder = unfrozen(self.autoencoder_)
        return fitted_model(autoencoder).decode_probabilities(codes, autoencoder.device_)

    def _below(self, X: Any, new: Any) -> Any:
        """Return the rows of a table with new ones below."""
        if not hasattr(X, "iloc"):
            return np.concatenate([X, new.astype(X.dtype)])
        import pandas as pd

        new.columns = X.columns
        return pd.concat([X, new], ignore_index=True)

    def _name_columns(self, X: Any) -> Any:
        """Return the rows as a frame if `fit_resample` got one: imbalanced-learn unpacks frames."""
        names = getattr(self, "feature_names_in_", None)
        if names is None:
            return X
        import pandas as pd

        if sparse.issparse(X):
            return pd.DataFrame.sparse.from_spmatrix(X, columns=names)
        return pd.DataFrame(X, columns=names, copy=False)

    def _decode(self, codes: np.ndarray) -> np.ndarray:
        if self._table is None:
            return np.asarray(self.autoencoder_.inverse_transform(codes), dtype=np.float64)
        # Levels are drawn later, as they have no order in which noise could move them.
        decoded, rows = self._decoded(codes), np.zeros((len(codes), len(self._table.columns)))
        for j, block in enumerate(self._table.blocks()):
            if not self._table.is_category[j]:
                rows[:, j] = decoded[:, block.start]
        return rows

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        encoder = AutoencoderTransformer() if self.autoencoder is None else self.autoencoder
        input_tags = get_tags(encoder).input_tags
        tags.input_tags.sparse = input_tags.sparse
        tags.input_tags.allow_nan = input_tags.allow_nan
        return tags


def _default_autoencoder(X: Any) -> AutoencoderTransformer:
    n_rows, n_features = X.shape
    return AutoencoderTransformer(
        min(16, max(1, n_features - 1)),
        hidden_layer_sizes=(128, 64),
        activation="gelu",
        normalization="layer",
        scaling=default_scaling(X),
        regularizer=None,
        batch_size=128,
        # A short training is enough, as the reconstruction error of a row is added back.
        max_epochs=int(np.clip(128_000 // n_rows, 5, 100)),
    )
