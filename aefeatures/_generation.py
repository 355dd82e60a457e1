"""`AutoencoderGenerator`: new rows, from a density of the codes and the decoder."""

from __future__ import annotations

import copy
import inspect
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
from scipy.special import logsumexp
from sklearn import config_context
from sklearn.base import BaseEstimator, clone
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KNeighborsClassifier
from sklearn.utils import check_random_state, get_tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d

from aefeatures._autoencoder import AutoencoderTransformer
from aefeatures._nets.networks import plain
from aefeatures._rows.checks import as_numpy, check_labels, check_rows
from aefeatures._rows.labels import split_labels
from aefeatures._rows.memory import physical_memory
from aefeatures._rows.new_rows import describe_columns, describe_dtypes, keep_to, with_dtypes
from aefeatures._rows.sources import Source, iterate_slices
from aefeatures._sklearn import HasMethods, StrOptions, fit_context, unchanged_on_error

# Components of a mixture: the most, and how many rows there are for each. Few rows span few
# directions only, those in which codes go together.
_MOST_COMPONENTS = 64
_ROWS_OF_COMPONENT = 16

# The part of the variance below which a mixture's components do not shrink.
_LEAST_VARIANCE = 1e-4

_N_NEIGHBORS = 5


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


# What an autoencoder has to offer to generator and oversampler.
CODES_AND_BACK = HasMethods(["fit", "transform", "inverse_transform"])


class AutoencoderGenerator(BaseEstimator):
    """New rows that look like those it was fitted on.

    `fit` trains an autoencoder and estimates the density of its codes, of each class where
    there is a y; `sample` draws codes from that density and decodes them.

    Parameters
    ----------
    autoencoder : AutoencoderTransformer or None, default=None
        Gives codes and decodes them. A clone of it is fitted, on y too where a regularizer asks for
        that; `sklearn.frozen.FrozenEstimator` around a fitted one keeps that one. Any transformer
        with an `inverse_transform` will do, such as a pipeline or a PCA. None is an
        `AutoencoderTransformer` whose settings were chosen for good samples; `fit` leaves
        it as `autoencoder_`.
    density : {"normal"}, object or None, default=None
        The density of the codes: a density of scikit-learn's or any object with `fit` and
        `sample`. A clone of it (a deep copy where it is no estimator) is fitted to the
        standardized codes (zero mean and unit variance over all rows, so that a bandwidth means
        the same for any autoencoder), one for each class.

        - None: a `GaussianMixture` of one component for every 16 rows, repeated ones counted
          once, at most 64. Below 32 rows it is a single one, whose covariance leans on that of
          the other classes.
        - "normal": the standard normal distribution of the codes as they are, which is the
          prior of an autoencoder with `Variational`. It knows no classes.
    keep_range : bool, default=True
        Whether samples are what the columns seen in `fit` are: between the smallest and the largest
        value, whole where all values are whole, and in a frame of the same dtypes. False gives what
        the decoder gives.
    random_state : int, RandomState instance or None, default=None
        Determines what is drawn in `sample`, where that is not given another, and seeds
        autoencoder and density where their own `random_state` is None.

    Attributes
    ----------
    autoencoder_ : transformer
        The fitted autoencoder.
    densities_ : list
        A fitted density for each of `classes_`; a single one without y.
    classes_ : ndarray of shape (n_classes,) or None
        The classes in y; None without y.
    class_prior_ : ndarray of shape (n_classes,) or None
        Their shares of the rows.
    n_features_in_ : int
        Number of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns seen in `fit`, where X has string names for all of them.

    See Also
    --------
    AutoencoderOversampler : Evens out classes with new rows.
    Variational : Makes codes near the standard normal distribution.

    Notes
    -----
    Rows of y that are missing (NaN, None, NA) or -1 are unlabelled, by the rule in the notes of
    `Supervised`: they teach the autoencoder, and are given the class of most of the 5 labelled
    rows whose codes are nearest. -1 beside a single other number is a class.

    Samples are in X's units, in float64 where X is of float64 or 32- or 64-bit integers and in
    float32 otherwise. They come in a frame of pandas or polars where `fit` was given one.

    The default autoencoder scales columns by their mean and standard deviation, so that samples do
    not depend on the units of columns. Only the type of 8- and 16-bit integers tells a unit: they
    are scaled as by ``scaling="auto"``, which suits pictures best.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from aefeatures import AutoencoderGenerator
    >>> X, y = load_digits(return_X_y=True)
    >>> generator = AutoencoderGenerator(random_state=0).fit(X, y)
    >>> X_new, y_new = generator.sample(100)
    >>> X_new.shape, y_new.shape
    ((100, 64), (100,))
    >>> sevens, _ = generator.sample(5, y=7)
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
    # None in a pickle of an earlier version, too.
    _described: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
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
            What the autoencoder takes.
        y : array-like of shape (n_samples,), default=None
            Classes. Unlabelled rows are marked as the notes say.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If X or y cannot be used, or the density cannot be fitted to a class.
        """
        X, y = as_numpy(X), as_numpy(y)
        # With dispatch, scikit-learn's mixtures refuse to start from k-means.
        with unchanged_on_error(self), config_context(array_api_dispatch=False):
            rows = check_rows(self, X, reset=True)
            rng = make_rng(self.random_state)
            classes = labels = None
            if y is not None:
                y = check_labels(y)
                check_consistent_length(rows, y)
                classes, labels = _check_classes(y)
                if isinstance(self.density, str) and len(classes) > 1:
                    raise ValueError(
                        "density='normal' is one density for all rows, which no class can be asked "
                        "of. Fit without y, or use another density."
                    )
            self.autoencoder_ = self._make_autoencoder(rows, rng)
            self.autoencoder_.fit(X, y)
            codes = np.asarray(self.autoencoder_.transform(X))
            self._code_dtype = codes.dtype.name  # a dtype skops would ask for
            codes = self._learn_scale(codes)
            if labels is not None and (labels < 0).any():
                labels = _label_by_neighbors(codes, labels)
            self.classes_ = classes
            self._fit_densities(codes, labels, rng)
            self._frame = _kind_of_frame(X)
            self._columns, self._column_levels = _plain_names(X, self._frame)
            self._described = self._dtypes = None
            if self.keep_range:
                self._described = describe_columns(rows)
                self._dtypes = None if self._frame is None else describe_dtypes(X)
        return self

    def sample(
        self,
        n_samples: int,
        y: Any = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> Any:
        """Draw new rows.

        Parameters
        ----------
        n_samples : int
            At least 1.
        y : one class or array-like of shape (n_samples,), default=None
            The class of all rows or of each. None draws classes as often as they were in `fit`.
        random_state : int, RandomState instance or None, default=None
            None is the generator's own `random_state`: with an int, each call draws the same.

        Returns
        -------
        X : ndarray or frame of shape (n_samples, n_features)
            In the units of the X seen in `fit`.
        y : ndarray of shape (n_samples,)
            The class of each row, of the type that it had in `fit`: booleans, integers and texts
            of pandas or polars are that here, too. Only where `fit` was given a y.

        Raises
        ------
        ValueError
            If `n_samples` is below 1; if y is of another length, holds a class that `fit` has not
            seen, or `fit` was given none.
        MemoryError
            If the rows are larger than the memory. Codes are drawn and decoded a part at a
            time, so that little more is needed than the result takes.
        """
        check_is_fitted(self)
        if isinstance(n_samples, bool) or not isinstance(n_samples, Integral) or n_samples < 1:
            raise ValueError(f"n_samples must be an int of at least 1, got {n_samples!r}.")
        n_samples = int(n_samples)
        self._check_size(n_samples)
        rng = make_rng(self.random_state if random_state is None else random_state)
        labels = self._resolve_labels(n_samples, y, rng)
        samples: np.ndarray | None = None
        for part in iterate_slices(n_samples, self.n_features_in_):
            decoded = self._decode(self._draw_codes(labels[part], rng))
            if samples is None:
                samples = np.empty((n_samples, self.n_features_in_), decoded.dtype)
            samples[part] = decoded
        X = self._as_seen(samples, self._dtypes)
        return X if self.classes_ is None else (X, self.classes_[labels])

    def score_samples(self, X: Any) -> np.ndarray:
        """Return the logarithm of the density at the codes of the rows of X.

        It judges the codes alone: a row that the decoder cannot give back may have likely codes.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            Of all classes together, each by its share.

        Raises
        ------
        AttributeError
            If the density has no `score_samples`.
        """
        check_is_fitted(self)
        if not all(hasattr(density, "score_samples") for density in self.densities_):
            raise AttributeError(f"The density {self.density!r} has no score_samples.")
        X = as_numpy(X)
        check_rows(self, X, reset=False)
        codes = self._encode(X).astype(np.float64)
        codes = (codes - self._mean) / self._spread
        each = np.stack([density.score_samples(codes) for density in self.densities_], axis=1)
        prior = np.ones(1) if self.class_prior_ is None else self.class_prior_
        log_density: np.ndarray = logsumexp(each, axis=1, b=prior) - np.log(self._spread).sum()
        return log_density

    def interpolate(self, x_from: Any, x_to: Any, n_steps: int) -> Any:
        """Return what lies between two rows: equal steps from code to code, decoded.

        Parameters
        ----------
        x_from, x_to : array-like of shape (n_features,) or (1, n_features)
            A Series of pandas, such as a row of the frame that `fit` was given, is matched to the
            columns by name.
        n_steps : int
            At least 2. The first and the last are the reconstructions of the two rows.

        Returns
        -------
        X : ndarray or frame of shape (n_steps, n_features)

        Raises
        ------
        ValueError
            If `n_steps` is below 2, more than one row is given, or a Series has other names than
            the columns.
        """
        check_is_fitted(self)
        if isinstance(n_steps, bool) or not isinstance(n_steps, Integral) or n_steps < 2:
            raise ValueError(f"n_steps must be an int of at least 2, got {n_steps!r}.")
        ends = [self._encode_one(row, name) for row, name in ((x_from, "x_from"), (x_to, "x_to"))]
        steps = self._decode(np.linspace(*ends, int(n_steps)))
        return self._as_seen(steps, self._dtypes)

    def _make_autoencoder(self, rows: Source, rng: np.random.RandomState) -> Any:
        if self.autoencoder is None:
            made: Any = default_autoencoder(rows)
        else:
            made = clone(self.autoencoder)
        return give_seeds(made, rng)

    def _learn_scale(self, codes: np.ndarray) -> np.ndarray:
        """Standardize the codes, but for the density that is of codes as they are."""
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
                density: Any = _fit_mixture(group, common, rng)
            elif isinstance(self.density, str):
                density = StandardNormal().fit(group)
            else:
                density = give_seeds(clone(self.density, safe=False), rng)
                try:
                    density.fit(group)
                except ValueError as error:
                    of = "" if self.classes_ is None else f" of class {self.classes_.tolist()[i]!r}"
                    raise ValueError(
                        f"The density {self.density!r} cannot be fitted to the {len(group)} "
                        f"rows{of}: {error}"
                    ) from error
            self.densities_.append(density)

    def _check_size(self, n_samples: int) -> None:
        size = n_samples * self.n_features_in_ * np.dtype(self._code_dtype).itemsize
        if size > physical_memory():
            raise MemoryError(
                f"n_samples={n_samples} rows of {self.n_features_in_} columns take "
                f"{size / 2**30:.0f} GiB, more than there is memory. Draw fewer at a time."
            )

    def _resolve_labels(self, n_samples: int, y: Any, rng: np.random.RandomState) -> np.ndarray:
        """Positions among the classes, one for each sample."""
        if self.classes_ is None:
            if y is not None:
                raise ValueError(
                    f"y={y!r} asks for classes, but this {type(self).__name__} was fitted without "
                    "y and knows none."
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
                f"y asks for the class {', '.join(unseen)}, which was not in the y that fit saw: "
                f"{self.classes_.tolist()}."
            )
        return np.array([position[label] for label in wanted], dtype=np.intp)

    def _draw_codes(self, labels: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
        codes = np.empty((len(labels), len(self._mean)))
        for label in np.unique(labels):
            places = np.flatnonzero(labels == label)
            drawn = _draw(self.densities_[label], len(places), rng)
            # Mixtures give their samples sorted by component.
            codes[places] = drawn[rng.permutation(len(places))]
        return codes * self._spread + self._mean

    # With dispatch, a frozen autoencoder that was fitted on tensors would take tensors only.

    def _encode(self, X: Any) -> np.ndarray:
        with config_context(array_api_dispatch=False):
            return np.asarray(self.autoencoder_.transform(X))

    def _decode(self, codes: np.ndarray) -> np.ndarray:
        with config_context(array_api_dispatch=False):
            decoded = self.autoencoder_.inverse_transform(codes.astype(self._code_dtype))
        decoded = np.asarray(decoded)
        if self._described is None:
            return decoded
        kept = keep_to(decoded, *self._described)
        # In a frame integers stay integers, as float64 does not hold all of them.
        return kept if self._frame is not None else kept.astype(decoded.dtype, copy=False)

    def _encode_one(self, row: Any, name: str) -> np.ndarray:
        row = as_numpy(row)
        if np.ndim(row) == 1:
            row = self._as_seen(np.asarray(self._in_order(row, name))[None])
        n_rows = check_rows(self, row, reset=False).shape[0]
        if n_rows != 1:
            raise ValueError(f"{name} must be one row, got {n_rows}.")
        return self._encode(row)[0]

    def _in_order(self, row: Any, name: str) -> Any:
        """A row with its values in the order of the columns, where both have names."""
        if self._frame is None or not hasattr(row, "index") or not hasattr(row, "loc"):
            return row
        names = row.index.tolist()
        columns = [plain(each) for each in self._columns]
        if names == columns:
            return row
        lacking = [column for column in columns if column not in names]
        others = [each for each in names if each not in columns]
        if lacking or others or len(names) != len(columns):
            raise ValueError(
                f"{name} is a Series that is matched to the columns of fit by its index, but lacks "
                f"{lacking[:5]} and has {others[:5]} besides. Pass a row such as X.iloc[0], or an "
                "array in the order of the columns."
            )
        return row.loc[columns]

    def _as_seen(self, X: Any, dtypes: list[Any] | None = None) -> Any:
        """Rows in a frame, where `fit` was given one; of its dtypes if they are given."""
        if self._frame is None:
            return X
        if self._frame == "polars":
            import polars as pl

            frame: Any = pl.DataFrame(X, schema=self._columns)
            frame.columns = self._columns  # it makes up one for ""
        else:
            import pandas as pd

            columns, levels = self._columns, getattr(self, "_column_levels", None)
            if levels is not None:  # None in a pickle of an earlier version, which holds an Index
                columns = (
                    pd.MultiIndex.from_tuples(columns, names=levels)
                    if len(levels) > 1
                    else pd.Index(columns, name=levels[0])
                )
            frame = pd.DataFrame(X, columns=columns)
        return frame if dtypes is None else with_dtypes(frame, dtypes)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        of = get_tags(AutoencoderTransformer() if self.autoencoder is None else self.autoencoder)
        tags.input_tags = copy.copy(of.input_tags)
        tags.target_tags.required = of.target_tags.required
        return tags


def default_scaling(X: Source) -> str:
    """How columns are scaled where nobody said it: alike in all units.

    "auto" would not scale data that happens to lie within [0, 1].
    """
    return "auto" if X.dtype in (np.uint8, np.uint16) else "standard"


def default_autoencoder(X: Source) -> AutoencoderTransformer:
    """The autoencoder of a generator that was given none."""
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
    """As `check_random_state`; None leaves NumPy's global generator alone."""
    if random_state is None:
        random_state = int(np.random.SeedSequence().generate_state(1)[0])
    return check_random_state(random_state)


def give_seeds(part: Any, rng: np.random.RandomState) -> Any:
    """Give what has no random state one; a fitted part is left alone."""
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
    """The classes in y, and their positions for each row, -1 where it is unlabelled."""
    labelled, known, _ = split_labels(y)
    if not labelled.any():
        raise ValueError("No row of y is labelled.")
    check_classification_targets(known)
    labels = np.full(len(y), -1, dtype=np.intp)
    classes, labels[labelled] = np.unique(known, return_inverse=True)
    return classes, labels


def _label_by_neighbors(codes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Labels where unlabelled rows have the class of the labelled ones nearest to them."""
    known = labels >= 0
    knn = KNeighborsClassifier(min(_N_NEIGHBORS, int(known.sum())), weights="distance")
    filled = labels.copy()
    filled[~known] = knn.fit(codes[known], labels[known]).predict(codes[~known])
    return filled


def scale_of_codes(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of each code and its standard deviation, 1 where it does not vary."""
    spread = codes.std(axis=0)
    # Rounding alone makes a constant code vary by about its size times 1e-7.
    varies = spread > 1e-6 * np.abs(codes).max(axis=0)
    return codes.mean(axis=0), np.where(varies, spread, 1.0)


def common_covariance(groups: list[np.ndarray]) -> np.ndarray:
    """The covariance of codes about the mean of their class; never singular."""
    deviations = np.concatenate([group - group.mean(axis=0) for group in groups])
    free = max(1, len(deviations) - len(groups))
    covariance: np.ndarray = deviations.T @ deviations / free
    return covariance + _LEAST_VARIANCE * np.eye(len(covariance))


def _fit_mixture(
    codes: np.ndarray, common: np.ndarray, rng: np.random.RandomState
) -> GaussianMixture:
    """A Gaussian mixture of as many components as the rows bear."""
    # Codes of one row differ in the last digits by its place in a batch.
    distinct = np.unique(codes.round(6), axis=0)
    n_components = min(_MOST_COMPONENTS, len(distinct) // _ROWS_OF_COMPONENT)
    if n_components < 2:
        return _fit_normal(codes, common)
    return GaussianMixture(
        n_components,
        reg_covar=_LEAST_VARIANCE,
        tol=5e-3,  # in nats a row: what follows is not seen in samples
        max_iter=1_000,
        random_state=rng.randint(np.iinfo(np.int32).max),
    ).fit(codes)


def leaning_covariance(codes: np.ndarray, common: np.ndarray) -> np.ndarray:
    """The covariance of codes: the fewer they are, the more it is the common one."""
    n_rows, n_codes = codes.shape
    deviations = codes - codes.mean(axis=0)
    # As if as many rows as there are codes had been seen with the common covariance.
    covariance: np.ndarray = deviations.T @ deviations + n_codes * common
    return covariance / (n_rows - 1 + n_codes)


def _fit_normal(codes: np.ndarray, common: np.ndarray) -> GaussianMixture:
    """One component."""
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
    """Samples of a density, which may take the random state here or there."""
    if "random_state" in inspect.signature(density.sample).parameters:
        drawn = density.sample(n_samples, random_state=rng)
    else:
        if hasattr(density, "random_state"):
            density = copy.copy(density)
            density.random_state = rng
        drawn = density.sample(n_samples)
    return np.asarray(drawn[0] if isinstance(drawn, tuple) else drawn)


def _library_of(thing: Any) -> str:
    return type(thing).__module__.partition(".")[0]


def _kind_of_frame(X: Any) -> str | None:
    module = _library_of(X)
    return module if module in ("pandas", "polars") and hasattr(X, "columns") else None


def _plain_names(X: Any, frame: str | None) -> tuple[Any, list[Any] | None]:
    """Names of a frame's columns, and of their levels in pandas, without objects of its library.

    A fitted model that holds none can be kept by skops, and be loaded beside another pandas.
    """
    if frame is None:
        return None, None
    if frame == "polars":
        return list(X.columns), None
    names = np.asarray(X.columns)
    if names.dtype == object and any(_library_of(each) == "pandas" for each in names):
        names = names.astype(str).astype(object)  # periods, intervals
    return names, list(X.columns.names)
