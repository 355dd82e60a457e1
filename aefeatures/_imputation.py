"""`AutoencoderImputer`: missing values from an autoencoder that learned to fill in hidden ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils.validation import check_is_fitted

from aefeatures._autoencoder import AutoencoderTransformer, check_fitted_rows, fitted_model
from aefeatures._nets.hiding import ExpectedFill, Hiding
from aefeatures._nets.regularizers import resolve_regularizers
from aefeatures._rows.checks import like, refuse_unknown_size
from aefeatures._rows.columns import is_frame, make_frame
from aefeatures._rows.gaps import filled, is_plain_mark, missing_in, without_marks
from aefeatures._rows.tables import table_of
from aefeatures._sklearn import MissingValues, feature_names_in, fit_context, unchanged_on_error

# Rows that the default autoencoder is trained on, seen again or not.
_ROWS = 300_000


class AutoencoderImputer(TransformerMixin, BaseEstimator):
    """Fill in missing values with what an autoencoder expects there.

    In `fit`, entries of X are hidden at random, whether or not X has missing values, and an
    autoencoder learns to reconstruct them from the other entries of the row [1]_. Its input is a
    first estimate, the expectation under a normal distribution, which is the best linear one.
    `transform` fills in new rows with the same network, so that the imputer can be a step of a
    pipeline in cross-validation.

    Parameters
    ----------
    autoencoder : AutoencoderTransformer or None, default=None
        Transformer of which a clone is fitted. Its other regularizers stay. None means one whose
        settings were chosen on four tables. `fit` stores it as `autoencoder_`.
    missing_values : int, float, str, numpy.nan, None or pandas.NA, default=numpy.nan
        Value that marks missing entries. NaN, None and NA always count as missing.
    add_indicator : bool, default=False
        Whether to append a column to the result for each column with missing values in `fit`,
        which tells where they were.
    keep_empty_features : bool, default=False
        Whether to keep columns without a known value in `fit`, filled with 0. Columns of dates and
        other objects stay missing. By default these columns are left out of the result.
    random_state : int, RandomState instance or None, default=None
        Seeds the autoencoder if its own `random_state` is None.

    Attributes
    ----------
    autoencoder_ : AutoencoderTransformer
        The fitted transformer.
    n_features_in_ : int
        Number of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns seen in `fit`. Only available if all columns of X have string names.

    See Also
    --------
    sklearn.impute.KNNImputer : Means of the nearest rows.
    sklearn.impute.IterativeImputer : A regression for each column, by turns.

    Notes
    -----
    X may be a frame of pandas or polars with text, categories, dates, durations and booleans, see
    `categorical_features` of `AutoencoderTransformer`. The result is then a frame with the same
    columns and types. Any other X gives an array of the same type, or what `set_output` asks for.
    Known entries are returned as they are. Estimates lie within the range of the column in `fit`.
    They are rounded if the column held integers or booleans in `fit`, and have a level of `fit` if
    the column is categorical.

    References
    ----------
    .. [1] P. Vincent, H. Larochelle, Y. Bengio and P.-A. Manzagol. Extracting and composing
       robust features with denoising autoencoders. ICML 2008.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from aefeatures import AutoencoderImputer
    >>> X, _ = load_iris(return_X_y=True)
    >>> X_missing = np.where(np.random.default_rng(0).random(X.shape) < 0.2, np.nan, X)
    >>> X_filled = AutoencoderImputer(random_state=0).fit_transform(X_missing)
    >>> bool(abs(X_filled - X).max() < 2)
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "autoencoder": [None, AutoencoderTransformer],
        "missing_values": [MissingValues()],
        "add_indicator": ["boolean"],
        "keep_empty_features": ["boolean"],
        "random_state": ["random_state"],
    }

    autoencoder_: AutoencoderTransformer
    n_features_in_: int
    _first: tuple[np.ndarray, np.ndarray, np.ndarray]
    _range: tuple[np.ndarray, np.ndarray]
    _whole: np.ndarray
    _kept: np.ndarray
    _indicated: np.ndarray

    def __init__(
        self,
        autoencoder: Any = None,
        *,
        missing_values: Any = np.nan,
        add_indicator: bool = False,
        keep_empty_features: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.autoencoder = autoencoder
        self.missing_values = missing_values
        self.add_indicator = add_indicator
        self.keep_empty_features = keep_empty_features
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> Self:
        """Train the autoencoder on the rows of X.

        Parameters
        ----------
        X : array-like or frame of shape (n_samples, n_features)
            Rows, with or without missing values.
        y : None
            Ignored, unless a regularizer of the autoencoder learns from it.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If X or a parameter is invalid, or no value of X is known.

        Warns
        -----
        UserWarning
            If a column has no known value.
        """
        with unchanged_on_error(self):
            self._fit(X, y)
        return self

    def _fit(self, X: Any, y: Any) -> None:
        X = self._without_marks(X)
        autoencoder = self.autoencoder
        if autoencoder is None:
            n_rows = len(X) if hasattr(X, "__len__") else len(np.asarray(X))
            autoencoder = _default(max(1, n_rows))
        autoencoder = clone(autoencoder)
        if autoencoder.early_stopping:
            raise ValueError(
                "autoencoder must not have early_stopping=True: no entries are hidden in "
                "validation rows, so that their loss is too low. Set max_epochs instead."
            )
        if autoencoder.random_state is None:
            autoencoder.random_state = self.random_state
        others = resolve_regularizers(autoencoder.regularizer)
        autoencoder.regularizer = [Hiding(), *others]
        self.autoencoder_ = autoencoder.fit(X, y)
        self.n_features_in_ = autoencoder.n_features_in_
        self.__dict__.pop("feature_names_in_", None)
        if hasattr(autoencoder, "feature_names_in_"):
            self.feature_names_in_ = autoencoder.feature_names_in_
        first: Any = autoencoder._memory.heads[0][1]
        tensors = (first.values, first.factors, first.noise)
        means, factors, noise = (each.detach().cpu().numpy() for each in tensors)
        self._first = means, factors, noise
        numbers = check_fitted_rows(autoencoder, X, "fit").dense()
        self._range = np.fmin.reduce(numbers), np.fmax.reduce(numbers)
        self._whole = _are_whole(X, numbers)
        empty = missing_in(numbers).all(axis=0)
        self._kept = np.logical_or(~empty, self.keep_empty_features)
        self._indicated = np.flatnonzero(self._missing(X, numbers).any(axis=0))

    def transform(self, X: Any) -> Any:
        """Fill in the missing values of X.

        Parameters
        ----------
        X : array-like or frame of shape (n_samples, n_features)

        Returns
        -------
        X_filled : array or frame of shape (n_samples, n_features_out)
            As described in the notes.
        """
        check_is_fitted(self)
        given, X = X, self._without_marks(X)
        autoencoder = self.autoencoder_
        rows = check_fitted_rows(autoencoder, X, "transform")
        numbers = rows.dense()
        missing = self._missing(X, numbers)
        estimates = numbers
        if missing.any():
            model = replace(fitted_model(autoencoder), fill=self._filling())
            estimates = self._kept_to_range(model.reconstruct(rows, autoencoder.device_))
        table = table_of(autoencoder)
        if table is not None:
            X = X if is_frame(X) else np.asarray(X)
            full = filled(X, missing, table.rows(estimates, getattr(X, "index", None)))
            return self._with_indicators_in_table(full, missing)
        if isinstance(given, np.ndarray) and given.dtype.kind in "iu":
            numbers = given  # of which large ones would not be exact as floats
        result = np.array(numbers)
        result[missing] = estimates[missing].astype(result.dtype)
        result = result[:, self._kept]
        if self.add_indicator:
            indicators = missing[:, self._indicated].astype(result.dtype)
            result = np.hstack([result, indicators])
        return like(result, given)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the columns that `transform` returns.

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            Names of the columns of X. None uses those seen in `fit`.

        Returns
        -------
        names : ndarray of object
        """
        check_is_fitted(self)
        names = feature_names_in(self, input_features)
        added = [f"missingindicator_{names[i]}" for i in self._indicated] * self.add_indicator
        return np.array([*names[self._kept], *added], dtype=object)

    def _without_marks(self, X: Any) -> Any:
        refuse_unknown_size(X)
        if sparse.issparse(X):
            raise TypeError(
                "Sparse data was passed, but AutoencoderImputer needs dense data. Use X.toarray()."
            )
        return without_marks(X, self.missing_values)

    def _missing(self, X: Any, numbers: np.ndarray) -> np.ndarray:
        """Return where X is missing. A level that `fit` has not seen is not a missing one."""
        if table_of(self.autoencoder_) is None:
            return missing_in(numbers)
        return missing_in(X if is_frame(X) else np.asarray(X))

    def _filling(self) -> ExpectedFill:
        means, factors, noise = map(torch.tensor, self._first)
        return ExpectedFill(means, factors, noise)

    def _kept_to_range(self, estimates: np.ndarray) -> np.ndarray:
        """Return estimates within the columns' ranges, rounded if whole; 0 for empty columns."""
        clipped = np.clip(estimates, *self._range)
        empty = np.isnan(self._range[0])
        return np.where(empty, 0, np.where(self._whole, np.round(clipped), clipped))

    def _with_indicators_in_table(self, full: Any, missing: np.ndarray) -> Any:
        kept = [int(i) for i in np.flatnonzero(self._kept)]
        added = missing[:, self._indicated] if self.add_indicator else None
        if not is_frame(full):
            full = full[:, kept]
            return full if added is None else np.hstack([full, added.astype(full.dtype)])
        polars = hasattr(full, "iter_columns")
        full = full[:, kept] if polars else full.iloc[:, kept]
        if added is None:
            return full
        names = [*self.get_feature_names_out()[len(kept) :]]
        frame = make_frame(
            "polars" if polars else "pandas", [*added.T], names, getattr(full, "index", None)
        )
        if polars:
            return full.hstack(frame)
        import pandas as pd

        return pd.concat([full, frame], axis=1)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = is_plain_mark(self.missing_values)
        tags.target_tags.required = False
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _default(n_rows: int) -> AutoencoderTransformer:
    # With less decay, small tables are learned by heart, levels of categories above all.
    return AutoencoderTransformer(
        64,
        hidden_layer_sizes=(256, 128),
        init="pca",
        scaling="standard",
        learning_rate=2e-3,
        weight_decay=1.0,
        max_epochs=int(np.clip(_ROWS // n_rows, 10, 240)),
    )


def _are_whole(X: Any, numbers: np.ndarray) -> np.ndarray:
    """Return which columns held integers or booleans in `fit`, by their types."""
    if is_frame(X):
        kinds = [str(dtype).lower() for dtype in X.dtypes]
        return np.array([kind.startswith(("int", "uint", "bool")) for kind in kinds])
    return np.full(numbers.shape[1], getattr(X, "dtype", numbers.dtype).kind in "biu")
