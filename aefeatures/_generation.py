"""`AutoencoderGenerator`: new rows, decoded from a density of the codes."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from numbers import Integral
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from scipy.special import logsumexp
from sklearn import config_context
from sklearn.base import BaseEstimator, clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils import check_random_state, get_tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d

from aefeatures._autoencoder import AutoencoderTransformer, fitted_model
from aefeatures._nets.model import Model
from aefeatures._nets.networks import plain
from aefeatures._rows.checks import as_numpy, check_labels, check_rows
from aefeatures._rows.columns import is_frame
from aefeatures._rows.conditions import Condition, resolve_conditions
from aefeatures._rows.labels import split_labels
from aefeatures._rows.memory import physical_memory
from aefeatures._rows.new_rows import (
    Marginals,
    describe_columns,
    describe_dtypes,
    draw_levels,
    keep_to,
    with_dtypes,
)
from aefeatures._rows.sources import Source, iterate_slices, rows_of_chunk
from aefeatures._rows.tables import Table, is_table, table_of
from aefeatures._sklearn import HasMethods, StrOptions, fit_context, unchanged_on_error
from aefeatures._warnings import warn

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture

# Largest number of components of a mixture, and number of rows for each component. With fewer rows,
# the covariance of a component would span too few directions.
_MOST_COMPONENTS = 64
_ROWS_PER_COMPONENT = 16

# Variance that is added to every direction of a component, relative to that of the codes.
_LEAST_VARIANCE = 1e-4

_N_NEIGHBORS = 5

# Number of rows that are drawn in `fit` to learn how decoded columns are distributed.
_DECODED_ROWS = 4_000

# Rows that are drawn for each row that has to fulfil conditions, and least number of them.
_TRIES_PER_ROW = 20
_LEAST_TRIES = 50_000


class StandardNormal(BaseEstimator):
    """The prior of a variational autoencoder: independent normal codes."""

    def fit(self, Z: np.ndarray, y: Any = None) -> Self:
        """Remember the number of codes."""
        self.n_features_in_ = Z.shape[1]
        return self

    def sample(
        self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None
    ) -> np.ndarray:
        """Draw codes."""
        rng = check_random_state(random_state)
        return rng.standard_normal((n_samples, self.n_features_in_))

    def score_samples(self, Z: np.ndarray) -> np.ndarray:
        """Return the logarithm of the density at the codes Z."""
        log_density: np.ndarray = -0.5 * ((Z**2).sum(axis=1) + Z.shape[1] * np.log(2 * np.pi))
        return log_density


# Methods that generator and oversampler need of an autoencoder.
CODES_AND_BACK = HasMethods(["fit", "transform", "inverse_transform"])


class AutoencoderGenerator(BaseEstimator):
    """Generate new rows that look like the rows seen in `fit`.

    `fit` trains an autoencoder and estimates the density of its codes, separately for each class if
    y is given. `sample` draws codes from that density and decodes them.

    Parameters
    ----------
    autoencoder : AutoencoderTransformer or None, default=None
        Estimator that encodes rows and decodes codes. A clone of it is fitted, with y if a
        regularizer needs it. To keep a fitted one, wrap it in `sklearn.frozen.FrozenEstimator`. Any
        transformer with an `inverse_transform` is supported, such as a pipeline or a PCA. None
        means an `AutoencoderTransformer` whose settings were chosen for good samples. `fit` stores
        it as `autoencoder_`.
    density : {"normal"}, object or None, default=None
        The density of the codes: a density estimator of scikit-learn or any object with `fit` and
        `sample`. For each class, a clone of it (a deep copy if it is not an estimator) is fitted to
        the standardized codes. These have zero mean and unit variance over all rows, so that a
        bandwidth means the same for any autoencoder.

        - None: a `GaussianMixture` with one component for every 16 different rows (in a table, for
          every 16 rows), and at most 64 components. Fewer than 32 different rows have a single
          component, whose covariance leans on that of the other classes.
        - "normal": the standard normal distribution of the codes, which are not standardized. It is
          the prior of an autoencoder with `Variational`, and does not support classes.
    keep_range : bool, default=True
        Whether samples keep the properties of the columns seen in `fit`: values between the
        smallest and the largest one, whole numbers if all values are whole, and the dtypes of a
        frame. If False, samples are returned as decoded.
    random_state : int, RandomState instance or None, default=None
        Determines what `sample` draws, unless `sample` gets a `random_state`. It also seeds the
        autoencoder and the density if their own `random_state` is None.

    Attributes
    ----------
    autoencoder_ : transformer
        The fitted autoencoder.
    densities_ : list
        Fitted density of each class in `classes_`, or a single one without y.
    classes_ : ndarray of shape (n_classes,) or None
        The classes in y. None without y.
    class_prior_ : ndarray of shape (n_classes,) or None
        Share of the rows that belong to each class. None without y.
    n_features_in_ : int
        Number of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns seen in `fit`. Only available if all columns of X have string names.

    See Also
    --------
    AutoencoderOversampler : Balances classes with new rows.
    Variational : Brings codes near the standard normal distribution.

    Notes
    -----
    A row is unlabelled if its y is missing (NaN, None, NA) or -1, by the rule in the notes of
    `Supervised`. Unlabelled rows help to train the autoencoder. Each then gets the class that most
    of the 5 labelled rows with the nearest codes have, weighted by distance. -1 is a class if y has
    just one other value, a number.

    Tables: with an `AutoencoderTransformer`, X may be a frame with text, categories, booleans,
    dates and missing values. Samples then have the same columns in the same types, without missing
    values. Levels are drawn from the probabilities that the decoder gives them. Levels that share a
    code (see `max_categories`) are drawn by their shares in `fit`. With `keep_range`, the numbers
    and dates of a class of at least 32 rows are distributed as they were in `fit`: a decoder alone
    would only approach values that many rows repeat, such as zeros.

    A column of classes, such as the target of a classifier, is learned better as y than as a column
    of X, as each class then has a density of its own.

    Conditions: rows are drawn, and each is kept with the probability that it fulfils the conditions
    given its code. A level has the probability that the decoder gives it. A number may differ from
    the wanted one by about a twentieth of the column's standard deviation, and is then set to it.
    If y is not given, classes are as frequent as among rows that fulfil the conditions.

    Samples are in X's units. They are float64 if X is float64 or holds 32- or 64-bit integers, and
    float32 otherwise. They are a frame of pandas or polars if `fit` got one.

    The default autoencoder scales columns by their mean and standard deviation, so that samples do
    not depend on the units of columns. Unsigned 8- and 16-bit integers are an exception: they are
    scaled as by ``scaling="auto"``, which suits pictures best.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from aefeatures import AutoencoderGenerator, AutoencoderTransformer
    >>> X, y = load_digits(return_X_y=True)
    >>> autoencoder = AutoencoderTransformer(8, max_epochs=20)
    >>> generator = AutoencoderGenerator(autoencoder, random_state=0).fit(X, y)
    >>> X_new, y_new = generator.sample(100)
    >>> X_new.shape, y_new.shape
    ((100, 64), (100,))
    >>> sevens, _ = generator.sample(5, y=7)

    A table, and rows that fulfil a condition:

    >>> import numpy as np
    >>> import pandas as pd
    >>> rng = np.random.default_rng(0)
    >>> color = rng.choice(["red", "green", "blue"], 500)
    >>> size = (color == "red") * 5 + rng.integers(0, 3, 500)
    >>> table = pd.DataFrame({"color": color, "size": size})
    >>> generator = AutoencoderGenerator(random_state=0).fit(table)
    >>> red = generator.sample(100, conditions={"color": "red"})
    >>> set(red["color"]), red["size"].dtype
    ({'red'}, dtype('int64'))
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "autoencoder": [None, CODES_AND_BACK],
        "density": [None, StrOptions({"normal"}), HasMethods(["fit", "sample"])],
        "keep_range": ["boolean"],
        "random_state": ["random_state"],
    }

    autoencoder_: Any
    densities_: list[Any]
    classes_: np.ndarray | None
    class_prior_: np.ndarray | None
    n_features_in_: int
    _mean: np.ndarray
    _spread: np.ndarray
    _code_dtype: str
    # These defaults are for pickles of an earlier version, which lack the attributes.
    _described: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
    _table: Table | None = None
    _marginals: list[Marginals] | None = None
    _frame: str | None
    _columns: Any
    _column_levels: list[Any] | None
    _dtypes: list[Any] | None = None

    def __init__(
        self,
        autoencoder: Any = None,
        density: Any = None,
        *,
        keep_range: bool = True,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.autoencoder = autoencoder
        self.density = density
        self.keep_range = keep_range
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> Self:
        """Train the autoencoder and estimate the density of the codes.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows, in any form that the autoencoder accepts.
        y : array-like of shape (n_samples,), default=None
            Classes. The notes explain how to mark unlabelled rows.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If X or y is invalid, or the density cannot be fitted to a class.
        """
        X, y = as_numpy(X), as_numpy(y)
        # With array API dispatch, scikit-learn's mixtures cannot be initialized by k-means.
        with unchanged_on_error(self), config_context(array_api_dispatch=False):
            of_table = reads_table(self.autoencoder, X)
            self._table = self._marginals = None
            rows = X if of_table else check_rows(self, X, reset=True)
            rng = make_rng(self.random_state)
            classes = labels = None
            if y is not None:
                y = check_labels(y)
                check_consistent_length(rows, y)
                classes, labels = _check_classes(y)
                if isinstance(self.density, str) and len(classes) > 1:
                    raise ValueError(
                        "density='normal' is one density for all rows and does not support "
                        "classes. Fit without y, or use another density."
                    )
            self.autoencoder_ = self._make_autoencoder(rows, rng)
            self.autoencoder_.fit(X, y)
            if of_table:  # the columns that the autoencoder has learned
                self._table = unfrozen(self.autoencoder_)._table
                rows = check_rows(self, X, reset=True)
            codes = np.asarray(self.autoencoder_.transform(X))
            # A string, as skops does not trust NumPy's dtypes by default.
            self._code_dtype = codes.dtype.name
            codes = self._learn_scale(codes)
            if labels is not None and (labels < 0).any():
                labels = _label_by_neighbors(codes, labels)
            self.classes_ = classes
            self._fit_densities(codes, labels, rng)
            self._frame = _frame_library(X)
            self._columns, self._column_levels = _plain_names(X, self._frame)
            self._described = self._dtypes = None
            if self.keep_range:
                self._described = describe_columns(rows)
                self._dtypes = None if self._frame is None else describe_dtypes(X)
                if self._table is not None:
                    self._learn_marginals(rows, labels, rng)
        return self

    def sample(
        self,
        n_samples: int,
        y: Any = None,
        random_state: int | np.random.RandomState | None = None,
        conditions: Mapping[Any, Any] | None = None,
    ) -> Any:
        """Draw new rows.

        Parameters
        ----------
        n_samples : int
            Number of rows, at least 1.
        y : one class or array-like of shape (n_samples,), default=None
            Class of all rows, or class of each row. None draws each class with its share of the
            rows in `fit`.
        random_state : int, RandomState instance or None, default=None
            Determines what is drawn. None uses the generator's own `random_state`. If that is an
            int, each call draws the same rows.
        conditions : dict, default=None
            Columns and the value that each has in all rows, such as ``{"education": "Doctorate",
            "age": 40}``: a level, a number, a boolean or a date. Columns are given by name, or by
            position if the X of `fit` had no names. The other columns are as in rows that have
            these values. The notes say how.

        Returns
        -------
        X : ndarray or frame of shape (n_samples, n_features)
            New rows in the units of the X seen in `fit`.
        y : ndarray of shape (n_samples,)
            Class of each row, in the type of y in `fit`: booleans, integers and texts of pandas or
            polars keep their type. Only returned if `fit` got a y.

        Raises
        ------
        ValueError
            If `n_samples` is below 1, if y has another length or holds a class that `fit` has not
            seen, or if y is given but `fit` got none. Also if conditions name a column or a level
            that `fit` has not seen, or a number out of the column's range.
        MemoryError
            If the rows are larger than the memory. Codes are drawn and decoded in parts, so that
            little more memory is needed than for the result.

        Warns
        -----
        UserWarning
            If rows that fulfil the conditions are so rare that too few were drawn. The others are
            then the rows that were nearest to fulfilling them.
        """
        check_is_fitted(self)
        if isinstance(n_samples, bool) or not isinstance(n_samples, Integral) or n_samples < 1:
            raise ValueError(f"n_samples must be an int of at least 1, got {n_samples!r}.")
        n_samples = int(n_samples)
        self._check_size(n_samples)
        rng = make_rng(self.random_state if random_state is None else random_state)
        if conditions:
            wanted = self._resolve_conditions(conditions)
            if y is None and self.classes_ is not None:
                labels = np.full(n_samples, -1)  # the conditions make some classes more likely
            else:
                labels = self._resolve_labels(n_samples, y, rng)
            samples, labels = self._draw_fulfilling(labels, wanted, rng)
            if self._table is None:
                samples = self._kept(samples, self._code_dtype)
            X = self._to_frame(samples, self._dtypes, rng, wanted)
            return X if self.classes_ is None else (X, self.classes_[labels])
        labels = self._resolve_labels(n_samples, y, rng)
        samples = None
        for part in iterate_slices(n_samples, self._width):
            decoded = self._make_rows(labels[part], rng)
            if samples is None:
                samples = np.empty((n_samples, self.n_features_in_), decoded.dtype)
            samples[part] = decoded
        X = self._to_frame(samples, self._dtypes, rng)
        return X if self.classes_ is None else (X, self.classes_[labels])

    def score_samples(self, X: Any) -> np.ndarray:
        """Return the logarithm of the density at the codes of the rows of X.

        The score depends on the codes alone: even a row that is reconstructed badly may have codes
        of high density.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            Logarithm of the density of all classes together, each weighted by its share.

        Raises
        ------
        AttributeError
            If the density has no `score_samples`.
        """
        check_is_fitted(self)
        if not all(hasattr(density, "score_samples") for density in self.densities_):
            raise AttributeError(
                f"The density {self.density!r} has no score_samples. Use a density that has it, "
                "such as density=None."
            )
        X = as_numpy(X)
        check_rows(self, X, reset=False)
        codes = self._encode(X).astype(np.float64)
        codes = (codes - self._mean) / self._spread
        each = np.stack([density.score_samples(codes) for density in self.densities_], axis=1)
        prior = np.ones(1) if self.class_prior_ is None else self.class_prior_
        log_density: np.ndarray = logsumexp(each, axis=1, b=prior) - np.log(self._spread).sum()
        return log_density

    def interpolate(self, x_from: Any, x_to: Any, n_steps: int) -> Any:
        """Return rows between two rows: equal steps from code to code, decoded.

        Parameters
        ----------
        x_from, x_to : array-like of shape (n_features,) or (1, n_features)
            First and last row. A Series of pandas, such as a row of the frame seen in `fit`, is
            matched to the columns by name.
        n_steps : int
            Number of rows to return, at least 2. The first and the last row are the
            reconstructions of `x_from` and `x_to`.

        Returns
        -------
        X : ndarray or frame of shape (n_steps, n_features)

        Raises
        ------
        ValueError
            If `n_steps` is below 2, if `x_from` or `x_to` has more than one row, or if the names in
            a Series are not those of the columns.
        """
        check_is_fitted(self)
        if isinstance(n_steps, bool) or not isinstance(n_steps, Integral) or n_steps < 2:
            raise ValueError(f"n_steps must be an int of at least 2, got {n_steps!r}.")
        ends = [self._encode_one(row, name) for row, name in ((x_from, "x_from"), (x_to, "x_to"))]
        steps = self._decode(np.linspace(*ends, int(n_steps)))
        return self._to_frame(steps, self._dtypes)

    def _make_autoencoder(self, rows: Any, rng: np.random.RandomState) -> Any:
        given = self.autoencoder
        return give_seeds(default_autoencoder(rows) if given is None else clone(given), rng)

    def _learn_scale(self, codes: np.ndarray) -> np.ndarray:
        """Return the codes, standardized unless the density is "normal"."""
        codes = codes.astype(np.float64)
        self._mean, self._spread = np.zeros(codes.shape[1]), np.ones(codes.shape[1])
        if not isinstance(self.density, str):
            self._mean, self._spread = scale_of_codes(codes)
        return (codes - self._mean) / self._spread

    def _fit_densities(
        self, codes: np.ndarray, labels: np.ndarray | None, rng: np.random.RandomState
    ) -> None:
        if labels is None:
            groups, self.class_prior_ = [codes], None
        else:
            groups = [codes[labels == label] for label in range(len(self.classes_))]  # type: ignore[arg-type]
            self.class_prior_ = np.array([len(group) for group in groups]) / len(codes)
        common = common_covariance(groups)
        self.densities_ = []
        for i, group in enumerate(groups):
            if self.density is None:
                density: Any = _fit_mixture(group, common, rng, of_table=self._table is not None)
            elif isinstance(self.density, str):
                density = StandardNormal().fit(group)
            else:
                density = give_seeds(clone(self.density, safe=False), rng)
                try:
                    density.fit(group)
                except ValueError as error:
                    rows = f"{len(group)} rows"
                    if self.classes_ is not None:
                        rows += f" of class {self.classes_.tolist()[i]!r}"
                    raise ValueError(
                        f"The density {self.density!r} cannot be fitted to the {rows}: {error}"
                    ) from error
            self.densities_.append(density)

    def _check_size(self, n_samples: int) -> None:
        size = n_samples * self.n_features_in_ * np.dtype(self._code_dtype).itemsize
        if size > physical_memory():
            raise MemoryError(
                f"n_samples={n_samples} rows of {self.n_features_in_} columns take "
                f"{size / 2**30:.0f} GiB, which is more than the memory of this machine. Draw "
                "fewer at a time."
            )

    def _resolve_labels(self, n_samples: int, y: Any, rng: np.random.RandomState) -> np.ndarray:
        """Return the position of each sample's class in `classes_`."""
        if self.classes_ is None:
            if y is not None:
                raise ValueError(
                    f"y={y!r} asks for classes, but this {type(self).__name__} was fitted without "
                    "y. Fit it with y, or sample without y."
                )
            return np.zeros(n_samples, dtype=np.intp)
        if y is None:
            return rng.choice(len(self.classes_), n_samples, p=self.class_prior_)
        wanted = np.asarray(y)
        if wanted.ndim == 0:
            wanted = np.full(n_samples, y, dtype=wanted.dtype)
        wanted = column_or_1d(wanted)
        if len(wanted) != n_samples:
            raise ValueError(
                f"y must be one class or a class for each of the n_samples={n_samples} rows, got "
                f"{len(wanted)}."
            )
        position = {label: i for i, label in enumerate(self.classes_.tolist())}
        wanted = wanted.tolist()
        unseen = sorted({repr(label) for label in wanted if label not in position})
        if unseen:
            raise ValueError(
                f"y asks for the class {', '.join(unseen)}, which was not in the y of fit. The "
                f"classes are {self.classes_.tolist()}."
            )
        return np.array([position[label] for label in wanted], dtype=np.intp)

    def _draw_codes(self, labels: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
        codes = np.empty((len(labels), len(self._mean)))
        for label in np.unique(labels):
            places = np.flatnonzero(labels == label)
            drawn = _draw(self.densities_[label], len(places), rng)
            # Mixtures return samples sorted by component.
            codes[places] = drawn[rng.permutation(len(places))]
        return codes * self._spread + self._mean

    def _learn_marginals(
        self, rows: Source, labels: np.ndarray | None, rng: np.random.RandomState
    ) -> None:
        """Learn how the numbers of each class are distributed, before and after the decoder."""
        assert self._table is not None
        numbers = np.flatnonzero(~self._table.is_category)
        starts = [self._table.blocks()[i].start for i in numbers]
        X = rows.take(np.arange(rows.shape[0]))[:, numbers]
        self._marginals = []
        for label in range(len(self.densities_)):
            codes = self._draw_codes(np.full(_DECODED_ROWS, label), rng)
            members = X if labels is None else X[labels == label]
            decoded = self._probabilities(codes)[:, starts]
            self._marginals.append(Marginals(members, decoded, numbers.tolist()))

    @property
    def _model(self) -> Model:
        return fitted_model(unfrozen(self.autoencoder_))

    @property
    def _width(self) -> int:
        """Largest number of columns that a row has on its way."""
        return self.n_features_in_ if self._table is None else self._table.blocks()[-1].stop

    def _make_rows(self, labels: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
        """Return new rows of the classes at these positions."""
        codes = self._draw_codes(labels, rng)
        if self._table is None:
            return self._decode(codes)
        return self._draw_rows(self._probabilities(codes), labels, rng)

    def _draw_rows(
        self, decoded: np.ndarray, labels: np.ndarray, rng: np.random.RandomState
    ) -> np.ndarray:
        """Return rows of a table, given numbers and probabilities of levels."""
        assert self._table is not None
        blocks = [decoded[:, block] for block in self._table.blocks()]
        rows = np.empty((len(decoded), len(blocks)))
        for i, is_category in enumerate(self._table.is_category):
            rows[:, i] = draw_levels(blocks[i], rng) if is_category else blocks[i][:, 0]
        if self._marginals is not None:
            for label in np.unique(labels):
                of_class = labels == label
                restored = rows[of_class]
                self._marginals[label].restore(restored, rng)
                rows[of_class] = restored
        return self._kept(rows, np.float64)

    def _probabilities(self, codes: np.ndarray) -> np.ndarray:
        autoencoder = unfrozen(self.autoencoder_)
        return self._model.decode_probabilities(codes.astype(self._code_dtype), autoencoder.device_)

    def _resolve_conditions(self, conditions: Mapping[Any, Any]) -> list[Condition]:
        names = None if self._frame is None else [plain(each) for each in self._columns]
        return resolve_conditions(
            conditions, names, self.n_features_in_, self._described, self._table
        )

    def _draw_fulfilling(
        self, labels: np.ndarray, wanted: list[Condition], rng: np.random.RandomState
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return rows that fulfil conditions, and labels, of which -1 stands for any class."""
        rows = np.empty((len(labels), self.n_features_in_))
        given, labels = labels, labels.copy()
        for label in np.unique(given):
            places = np.flatnonzero(given == label)
            rows[places], labels[places] = self._draw_of_class(len(places), label, wanted, rng)
        return rows, labels

    def _draw_of_class(
        self, n: int, label: int, wanted: list[Condition], rng: np.random.RandomState
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return `n` rows that fulfil conditions, and their labels.

        A row is kept with the probability that it fulfils the conditions, given its code. If too
        few are kept, the others with the largest ratio of this probability to a random number join.
        """
        tries = max(_LEAST_TRIES, _TRIES_PER_ROW * n)
        largest = min(rows_of_chunk(self._width), tries)
        size = min(max(2 * n, 1_000), largest)
        best = np.empty((0, self.n_features_in_))
        keys, best_labels = np.empty(0), np.empty(0, np.intp)
        spreads: list[float] | None = None
        drawn = 0
        while drawn < tries and np.count_nonzero(keys >= 0) < n:
            labels = np.full(size, label)
            if label < 0:
                labels = rng.choice(len(self.densities_), size, p=self.class_prior_)
            rows, weights, spreads = self._weighted_rows(labels, wanted, spreads, rng)
            keys = np.concatenate([keys, weights - np.log(1 - rng.random_sample(size))])
            best, best_labels = np.concatenate([best, rows]), np.append(best_labels, labels)
            # Rows are equally likely once they are kept.
            keys = np.where(keys >= 0, rng.random_sample(len(keys)), keys)
            chosen = np.sort(np.argsort(-keys, kind="stable")[:n])
            keys, best, best_labels = keys[chosen], best[chosen], best_labels[chosen]
            drawn += size
            size = min(2 * size, largest)
        n_kept = np.count_nonzero(keys >= 0)
        if n_kept < n:
            warn(
                f"Among {drawn:,} rows only {n_kept:,} fulfil the conditions, {n:,} are wanted. "
                "The others are nearest to rows that fulfil them: fit has seen few such rows, or "
                "none."
            )
        for condition in wanted:
            best[:, condition.column] = condition.value
        return best, best_labels

    def _weighted_rows(
        self,
        labels: np.ndarray,
        wanted: list[Condition],
        spreads: list[float] | None,
        rng: np.random.RandomState,
    ) -> tuple[np.ndarray, np.ndarray, list[float]]:
        """Return rows, the logarithms of their weights under conditions, and columns' spreads."""
        weights = np.zeros(len(labels))
        codes = self._draw_codes(labels, rng)
        if self._table is None:
            rows = np.asarray(self._decode(codes), np.float64)
        else:
            decoded = self._probabilities(codes)
            rows = self._draw_rows(decoded, labels, rng)
            blocks = self._table.blocks()
        if spreads is None:
            spreads = [float(np.nanstd(rows[:, each.column])) for each in wanted]
        for condition, spread in zip(wanted, spreads, strict=True):
            column = condition.column
            if self._table is not None and self._table.is_category[column]:
                level = decoded[:, blocks[column]][:, int(condition.value)]
                with np.errstate(divide="ignore"):
                    weights += np.log(level.astype(np.float64) * condition.share)
            else:
                weights += condition.log_weights(rows[:, column], spread)
        return rows, weights, spreads

    # With array API dispatch, a frozen autoencoder that was fitted on tensors would accept tensors
    # only.

    def _encode(self, X: Any) -> np.ndarray:
        with config_context(array_api_dispatch=False):
            return np.asarray(self.autoencoder_.transform(X))

    def _decode(self, codes: np.ndarray) -> np.ndarray:
        with config_context(array_api_dispatch=False):
            decoded = self.autoencoder_.inverse_transform(codes.astype(self._code_dtype))
        decoded = np.asarray(decoded if self._table is None else self._table.numbers(decoded))
        return self._kept(decoded, decoded.dtype)

    def _kept(self, rows: np.ndarray, dtype: Any) -> np.ndarray:
        """Return rows that keep to what is known of the columns, in this type if in an array."""
        if self._described is None:
            return rows.astype(dtype, copy=False)
        kept = keep_to(rows, *self._described)
        # For a frame, integers stay integers, as float64 cannot hold all of them.
        return kept if self._frame is not None else kept.astype(dtype, copy=False)

    def _encode_one(self, row: Any, name: str) -> np.ndarray:
        row = as_numpy(row)
        if self._table is not None and not hasattr(row, "columns") and np.ndim(row) < 2:
            row = self._table.one_row(list(self._in_column_order(row, name)))
            if self._frame == "pandas":
                row.columns = self._pandas_columns()
        elif np.ndim(row) == 1:
            row = self._to_frame(np.asarray(self._in_column_order(row, name))[None])
        n_rows = check_rows(self, row, reset=False).shape[0]
        if n_rows != 1:
            raise ValueError(f"{name} must be one row, got {n_rows}.")
        return self._encode(row)[0]

    def _in_column_order(self, row: Any, name: str) -> Any:
        """Return a row with its values in the order of the columns, if it is a Series."""
        if self._frame is None or not hasattr(row, "index") or not hasattr(row, "loc"):
            return row
        names = row.index.tolist()
        columns = [plain(each) for each in self._columns]
        if names == columns:
            return row
        missing = [column for column in columns if column not in names]
        unknown = [each for each in names if each not in columns]
        if missing or unknown or len(names) != len(columns):
            raise ValueError(
                f"{name} is a Series that is matched to the columns of fit by its index, but it "
                f"lacks the columns {missing[:5]} and has the unknown ones {unknown[:5]}. Pass a "
                "row such as X.iloc[0], or an array in the order of the columns."
            )
        return row.loc[columns]

    def _to_frame(
        self,
        X: Any,
        dtypes: list[Any] | None = None,
        rng: np.random.RandomState | None = None,
        wanted: list[Condition] | None = None,
    ) -> Any:
        """Return rows as a frame, with these dtypes if given, if `fit` got a frame."""
        if self._table is not None:
            table = self._table
            for condition in wanted or ():
                if condition.level is not None:
                    table = table.with_level(condition.column, condition.level)
            rows = table.rows(X, rng=rng)
            if self._frame == "pandas":  # a table has its names as text
                rows.columns = self._pandas_columns()
            return rows
        if self._frame is None:
            return X
        if self._frame == "polars":
            import polars as pl

            frame: Any = pl.DataFrame(X, schema=self._columns)
            frame.columns = self._columns  # the schema would replace the name ""
        else:
            import pandas as pd

            frame = pd.DataFrame(X, columns=self._pandas_columns())
        return frame if dtypes is None else with_dtypes(frame, dtypes)

    def _pandas_columns(self) -> Any:
        import pandas as pd

        columns, levels = self._columns, getattr(self, "_column_levels", None)
        # In a pickle of an earlier version `_columns` is an Index and levels are missing.
        if levels is None:
            return columns
        if len(levels) > 1:
            return pd.MultiIndex.from_tuples(columns, names=levels)
        return pd.Index(columns, name=levels[0])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        encoder = AutoencoderTransformer() if self.autoencoder is None else self.autoencoder
        encoder_tags = get_tags(encoder)
        tags.input_tags = copy.copy(encoder_tags.input_tags)
        tags.target_tags.required = encoder_tags.target_tags.required
        return tags


def unfrozen(autoencoder: Any) -> Any:
    """Return the estimator in a `FrozenEstimator`, or the estimator itself."""
    return autoencoder.estimator if isinstance(autoencoder, FrozenEstimator) else autoencoder


def reads_table(autoencoder: Any, X: Any) -> bool:
    """Whether an autoencoder takes X for a table with categories, dates or durations."""
    given = AutoencoderTransformer() if autoencoder is None else unfrozen(autoencoder)
    if not isinstance(given, AutoencoderTransformer):
        return False
    if given is not autoencoder and autoencoder is not None:  # frozen, and so fitted
        return table_of(given) is not None
    return is_table(X, given.categorical_features)


def default_scaling(X: Any) -> str:
    """Return the `scaling` of a default autoencoder, which does not depend on the columns' units.

    "auto" would not scale data that happens to be within [0, 1].
    """
    pictures = not is_frame(X) and X.dtype in (np.uint8, np.uint16)
    return "auto" if pictures else "standard"


def default_autoencoder(X: Any) -> AutoencoderTransformer:
    """Return the autoencoder of a generator with ``autoencoder=None``."""
    n_features = X.shape[1]
    return AutoencoderTransformer(
        min(32, max(1, n_features - 1)),
        hidden_layer_sizes=(512, 256, 128) if n_features > 256 else (256, 128),
        activation="gelu",
        normalization="layer",
        scaling=default_scaling(X),
        regularizer=None,
        batch_size=256,
    )


def make_rng(random_state: int | np.random.RandomState | None) -> np.random.RandomState:
    """Return a generator as `check_random_state` does, but a new one instead of NumPy's global one.

    Drawing with `random_state=None` then leaves the global generator unchanged.
    """
    if random_state is None:
        random_state = int(np.random.SeedSequence().generate_state(1)[0])
    return check_random_state(random_state)


def give_seeds(part: Any, rng: np.random.RandomState) -> Any:
    """Set each `random_state` that is None in an estimator, unless it is frozen."""
    if isinstance(part, FrozenEstimator) or not hasattr(part, "get_params"):
        return part
    unset = [
        name
        for name, value in part.get_params().items()
        if name.rpartition("__")[2] == "random_state" and value is None
    ]
    if unset:
        part.set_params(**{name: int(rng.randint(np.iinfo(np.int32).max)) for name in unset})
    return part


def _check_classes(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes in y and each row's position among them, -1 if it is unlabelled."""
    labelled, known, _ = split_labels(y)
    if not labelled.any():
        raise ValueError(
            "No row of y is labelled: all are missing or -1. Pass y=None to fit without classes."
        )
    check_classification_targets(known)
    labels = np.full(len(y), -1, dtype=np.intp)
    classes, labels[labelled] = np.unique(known, return_inverse=True)
    return classes, labels


def _label_by_neighbors(codes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return labels in which each unlabelled row has the class of the nearest labelled rows."""
    from sklearn.neighbors import KNeighborsClassifier

    known = labels >= 0
    knn = KNeighborsClassifier(min(_N_NEIGHBORS, int(known.sum())), weights="distance")
    filled = labels.copy()
    filled[~known] = knn.fit(codes[known], labels[known]).predict(codes[~known])
    return filled


def scale_of_codes(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of each code and its standard deviation, or 1 if the code is constant."""
    spread = codes.std(axis=0)
    # Rounding alone makes a constant code vary by about 1e-7 of its size.
    varies = spread > 1e-6 * np.abs(codes).max(axis=0)
    return codes.mean(axis=0), np.where(varies, spread, 1.0)


def common_covariance(groups: list[np.ndarray]) -> np.ndarray:
    """Return the covariance of codes about the mean of their class, which is never singular."""
    deviations = np.concatenate([group - group.mean(axis=0) for group in groups])
    free = max(1, len(deviations) - len(groups))
    covariance: np.ndarray = deviations.T @ deviations / free
    return covariance + _LEAST_VARIANCE * np.eye(len(covariance))


def _fit_mixture(
    codes: np.ndarray, common: np.ndarray, rng: np.random.RandomState, *, of_table: bool = False
) -> GaussianMixture:
    """Return a Gaussian mixture fitted to the codes, with more components for more rows."""
    from sklearn.mixture import GaussianMixture

    # Equal rows may have codes that differ in the last digits, depending on their batch.
    distinct = np.unique(codes.round(6), axis=0)
    n_components = min(_MOST_COMPONENTS, len(distinct) // _ROWS_PER_COMPONENT)
    if of_table:  # equal rows are usual, and each kind of them may need a component
        n_rows = len(codes)
        n_components = min(_MOST_COMPONENTS, len(distinct), n_rows // _ROWS_PER_COMPONENT)
    if n_components < 2:
        return _fit_normal(codes, common)
    return GaussianMixture(
        n_components,
        reg_covar=_LEAST_VARIANCE,
        tol=5e-3,  # in nats per row: smaller gains do not improve samples
        max_iter=1_000,
        random_state=rng.randint(np.iinfo(np.int32).max),
    ).fit(codes)


def leaning_covariance(codes: np.ndarray, common: np.ndarray) -> np.ndarray:
    """Return the covariance of codes, drawn towards the common one the more, the fewer rows."""
    n_rows, n_codes = codes.shape
    deviations = codes - codes.mean(axis=0)
    # The common covariance counts for `n_codes` rows.
    covariance: np.ndarray = deviations.T @ deviations + n_codes * common
    return covariance / (n_rows - 1 + n_codes)


def _fit_normal(codes: np.ndarray, common: np.ndarray) -> GaussianMixture:
    """Return a mixture of a single component with the leaning covariance of the codes."""
    from sklearn.mixture import GaussianMixture

    mean, covariance = codes.mean(axis=0), leaning_covariance(codes, common)
    normal = GaussianMixture(1, reg_covar=_LEAST_VARIANCE)
    normal.weights_, normal.means_ = np.ones(1), mean[None]
    normal.covariances_ = covariance[None]
    factor = np.linalg.cholesky(covariance)
    normal.precisions_cholesky_ = np.linalg.inv(factor).T[None]
    normal.precisions_ = np.linalg.inv(covariance)[None]
    normal.converged_, normal.n_iter_, normal.n_features_in_ = True, 0, len(common)
    return normal


def _draw(density: Any, n_samples: int, rng: np.random.RandomState) -> np.ndarray:
    """Draw samples. The random state is an argument of `sample` or an attribute of the density."""
    if "random_state" in inspect.signature(density.sample).parameters:
        drawn = density.sample(n_samples, random_state=rng)
    else:
        if hasattr(density, "random_state"):
            density = copy.copy(density)
            density.random_state = rng
        drawn = density.sample(n_samples)
    return np.asarray(drawn[0] if isinstance(drawn, tuple) else drawn)


def _library_of(value: Any) -> str:
    return type(value).__module__.partition(".")[0]


def _frame_library(X: Any) -> str | None:
    library = _library_of(X)
    return library if library in ("pandas", "polars") and hasattr(X, "columns") else None


def _plain_names(X: Any, frame: str | None) -> tuple[Any, list[Any] | None]:
    """Return names of a frame's columns, and of their levels in pandas, as plain objects.

    Without objects of pandas, skops can save a fitted model, and another version of pandas can
    load it.
    """
    if frame is None:
        return None, None
    if frame == "polars":
        return list(X.columns), None
    names = np.asarray(X.columns)
    if names.dtype == object and any(_library_of(each) == "pandas" for each in names):
        names = names.astype(str).astype(object)  # such as periods and intervals
    return names, list(X.columns.names)
