"""`NextFramePredictor`: the next frame of a film as values that are missing for the encoder."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import uniform_filter
from sklearn.base import BaseEstimator, clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import (
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
)

from aefeatures._autoencoder import AutoencoderTransformer
from aefeatures._nets.networks import plain, resolve_image_shape
from aefeatures._nets.regularizer import Batch, Regularizer, TrainingData
from aefeatures._nets.regularizers import resolve_regularizers
from aefeatures._rows.batches import code_dtype
from aefeatures._rows.checks import check_rows
from aefeatures._rows.sources import iterate_slices
from aefeatures._rows.survey import has_missing
from aefeatures._sklearn import Interval, fit_context, unchanged_on_error

# Side, in pixels, of the square around a pixel that is compared to find its motion.
_MATCHED = 13
# Error at which the weight of a match falls to 1/e, relative to the mean squared difference between
# successive frames.
_TOLERANCE = 0.25
# Largest number of rows to learn from. By default the training sees about as many rows in total.
_ROWS = 240_000


class NextFramePredictor(BaseEstimator):
    """Predict the next frame of a film from the frames before it.

    An autoencoder learns rows that hold the last frames and the change to the next frame. Its
    encoder never sees the change, so that the decoder has to predict it from the codes [1]_. Large
    pictures are learned in patches with their surroundings, and predictions are averaged where
    patches overlap. Neither an offset of the values nor their unit matters.

    Parameters
    ----------
    autoencoder : AutoencoderTransformer or None, default=None
        Estimator that `fit` trains a clone of. It must not use early stopping, as its validation
        rows would show the change. None means 64 codes (for narrow rows, half the number of
        columns), a hidden layer of 512 units, weight decay and few epochs. The autoencoder gets
        columns of about unit variance.
    n_frames : int, default=2
        Number of last frames that a prediction is made from.
    patch_size : int or None, default=None
        Height and width of the patches. None takes whole frames, which suits small pictures.
    margin : int, default=4
        Width, in pixels, of the border around a patch that is part of the input.
    motion : int, default=0
        Largest displacement, in pixels, that is searched for between the last two frames. If it is
        not 0, the input also contains the frame that follows if everything moves on unchanged. This
        needs `n_frames` of at least 2.
    image_shape : tuple of int, default=None
        (height, width) of the frames. It is needed for patches and motion if frames are not
        square.
    random_state : int, RandomState instance or None, default=None
        Passed to the autoencoder if its own `random_state` is None. It also determines which
        patches are drawn if there are too many.

    Attributes
    ----------
    autoencoder_ : AutoencoderTransformer
        The autoencoder, fitted on rows that hold the last frames and the change.
    n_features_in_ : int
        Number of pixels.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns seen in `fit`. Only available if all columns of X have string names.

    Notes
    -----
    There is no `predict`, as scikit-learn expects from it that the result for a row does not depend
    on the rows before it. A fitted predictor can be pickled. `autoencoder_` cannot be saved with
    `save`, as a private regularizer of the predictor hides the change.

    Frames are numbers of any dtype, sparse or not. Predicted frames are float64 if X is wider
    than float32, and float32 otherwise. Missing and masked pixels raise an error.

    References
    ----------
    .. [1] D. Pathak, P. Krähenbühl, J. Donahue, T. Darrell and A. A. Efros. Context encoders:
       feature learning by inpainting. CVPR 2016.

    Examples
    --------
    A bar that moves to the right, again and again:

    >>> import numpy as np
    >>> from aefeatures import NextFramePredictor
    >>> frames = np.tile(np.eye(8), (20, 1))
    >>> predictor = NextFramePredictor(random_state=0).fit(frames)
    >>> predictor.rollout(frames, 3).round().argmax(axis=1)
    array([0, 1, 2])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "autoencoder": [None, AutoencoderTransformer],
        "n_frames": [Interval(Integral, 1, None, closed="left")],
        "patch_size": [None, Interval(Integral, 1, None, closed="left")],
        "margin": [Interval(Integral, 0, None, closed="left")],
        "motion": [Interval(Integral, 0, None, closed="left")],
        "image_shape": [None, "array-like"],
        "random_state": ["random_state"],
    }

    autoencoder_: AutoencoderTransformer
    n_features_in_: int
    _shape: tuple[int, int]
    _range: tuple[float, float]
    _centre: float
    _unit: float
    _noise: float
    _scales: list[float]

    def __init__(
        self,
        autoencoder: Any = None,
        *,
        n_frames: int = 2,
        patch_size: int | None = None,
        margin: int = 4,
        motion: int = 0,
        image_shape: Any = None,
        random_state: Any = None,
    ) -> None:
        self.autoencoder = autoencoder
        self.n_frames = n_frames
        self.patch_size = patch_size
        self.margin = margin
        self.motion = motion
        self.image_shape = image_shape
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None, groups: Any = None) -> Self:
        """Learn from frames in the order of time.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_pixels)
            One flattened frame per row.
        y : None
            Ignored.
        groups : array-like of shape (n_samples,), default=None
            Film that each frame belongs to. Frames of a film must stand together. By default all
            frames belong to one film.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If no film has two frames, or if X or a parameter is invalid.
        """
        with unchanged_on_error(self):
            self._fit(X, groups)
        return self

    def _fit(self, X: Any, groups: Any) -> None:
        if self.autoencoder is not None and self.autoencoder.early_stopping:
            raise ValueError(
                "autoencoder must not have early_stopping=True: the encoder sees the change in "
                "validation rows, so that their loss is too low. Set max_epochs instead."
            )
        X, starts = self._check(X, groups, reset=True)
        now = np.flatnonzero(starts[:-1] == starts[1:])
        if not len(now):
            raise ValueError(
                f"No film has two frames to learn a change from: got n_samples = {len(X)}, each in "
                "its own group. Pass films of at least two frames."
            )
        if self.motion and self.n_frames < 2:
            raise ValueError(
                f"motion={self.motion} needs n_frames of at least 2, got 1. Set n_frames=2, or "
                "motion=0."
            )
        self._shape = self._resolve_shape(X.shape[1])
        low, high = self._range = float(X.min()), float(X.max())
        self._centre, self._unit = float(X.mean(dtype=np.float64)), high / 2 - low / 2 or 1.0
        self._noise = self._tolerance(X, now)
        rows, n_hidden = self._rows(X, starts, now)
        autoencoder = self.autoencoder
        if autoencoder is None:
            autoencoder = AutoencoderTransformer(
                min(64, rows.shape[1] // 2),
                hidden_layer_sizes=(512,),
                activation="gelu",
                scaling=None,
                init="random",
                learning_rate=2e-3,
                weight_decay=0.1,
                batch_size=256,
                max_epochs=int(np.clip(_ROWS / len(rows), 5, 200)),
            )
        autoencoder = clone(autoencoder)
        if autoencoder.random_state is None:
            autoencoder.random_state = self.random_state
        others = resolve_regularizers(autoencoder.regularizer)
        autoencoder.regularizer = [_HideLast(n_hidden), *others]
        self.autoencoder_ = autoencoder.fit(rows)

    def predict_next(self, X: Any, groups: Any = None) -> np.ndarray:
        """Return for each frame the frame expected after it.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_pixels)
            Frames in the order of time. A film is taken to have stood still before its first frame.
        groups : array-like of shape (n_samples,), default=None
            Film that each frame belongs to. By default all frames belong to one film.

        Returns
        -------
        X_next : ndarray of shape (n_samples, n_pixels)
            Row i is the frame expected after row i, within the range of values seen in `fit`.
        """
        check_is_fitted(self)
        X, starts = self._check(X, groups, reset=False)
        following = np.empty(X.shape, code_dtype(X.dtype))
        for part in self._parts(len(X)):
            past = self._past(X, starts, np.arange(len(X))[part])
            following[part] = self._unscaled(self._predict(past))
        return following

    def rollout(self, X: Any, n_steps: int, groups: Any = None) -> np.ndarray:
        """Return the frames expected after the last one, each predicted from those before it.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_pixels)
            Frames in the order of time.
        n_steps : int
            Number of frames to predict.
        groups : array-like of shape (n_samples,), default=None
            Film that each frame belongs to. By default all frames belong to one film.

        Returns
        -------
        X_next : ndarray of shape (n_steps, n_pixels) or (n_films, n_steps, n_pixels)
            Predicted frames. With `groups` they have the second shape, in the order of the films.
        """
        check_is_fitted(self)
        X, starts = self._check(X, groups, reset=False)
        if not isinstance(n_steps, Integral) or n_steps < 1:
            raise ValueError(f"n_steps must be an integer of at least 1, got {n_steps!r}.")
        last = np.flatnonzero(np.r_[np.diff(starts) > 0, True])
        films = np.empty((len(last), n_steps, X.shape[1]), code_dtype(X.dtype))
        for part in self._parts(len(last)):
            past = self._past(X, starts, last[part])
            for step in range(n_steps):
                frame = self._predict(past)
                films[part, step] = self._unscaled(frame)
                past = np.concatenate([past[:, 1:], frame[:, None]], axis=1)
        return films[0] if groups is None else films

    def _check(self, X: Any, groups: Any, *, reset: bool) -> tuple[np.ndarray, np.ndarray]:
        X = check_rows(self, X, reset=reset).dense()
        if has_missing(X):
            raise ValueError(
                "Input X contains NaN or masked pixels, but every pixel of a frame needs a value. "
                "Fill them first."
            )
        return X, _starts(X, groups)

    def _resolve_shape(self, n_pixels: int) -> tuple[int, int]:
        if self.image_shape is None and self.patch_size is None and not self.motion:
            return 1, n_pixels
        channels, height, width = resolve_image_shape(self.image_shape, n_pixels)
        if channels != 1:
            raise ValueError(
                f"image_shape must have one channel here, got {channels}. Fit one predictor for "
                "each channel."
            )
        if self.patch_size is not None and self.patch_size > min(height, width):
            raise ValueError(
                f"patch_size={self.patch_size} is larger than frames of {height} x {width} pixels. "
                "Lower it."
            )
        return height, width

    def _frames(self, X: np.ndarray) -> np.ndarray:
        """Return frames centred at 0 in the unit of `fit`, clipped so that squares fit float32."""
        values = (X.astype(np.float64) - self._centre) / self._unit
        return values.clip(-1e6, 1e6).reshape(*X.shape[:-1], *self._shape).astype(np.float32)

    def _unscaled(self, frames: np.ndarray) -> np.ndarray:
        """Return flattened frames in X's units, within the range seen in `fit`."""
        values = frames.reshape(len(frames), -1).astype(np.float64) * self._unit + self._centre
        return np.clip(values, *self._range)

    def _past(self, X: np.ndarray, starts: np.ndarray, now: np.ndarray) -> np.ndarray:
        """Return the last `n_frames` frames at each of `now`: (n, n_frames, height, width)."""
        steps = np.arange(1 - plain(self).n_frames, 1)
        rows = np.maximum(now[:, None] + steps, starts[now][:, None])
        return self._frames(X[rows])

    def _parts(self, n: int) -> Iterator[slice]:
        """Iterate over slices of n frames whose rows fit into memory at once."""
        given = plain(self)
        rows, columns, size = self._grid()
        around = 0 if given.patch_size is None else 2 * given.margin
        window = (size[0] + around) * (size[1] + around)
        return iterate_slices(n, len(rows) * len(columns) * window * (given.n_frames + 2))

    def _tolerance(self, X: np.ndarray, now: np.ndarray) -> float:
        """Return `_TOLERANCE` in scaled units: the error at which a match has a weight of 1/e."""
        squares = 0.0
        for part in self._parts(len(now)):
            change = self._frames(X[now[part] + 1]) - self._frames(X[now[part]])
            squares += float(np.square(change).sum(dtype=np.float64))
        return _TOLERANCE * squares / (len(now) * X.shape[1]) or 1.0

    def _rows(self, X: np.ndarray, starts: np.ndarray, now: np.ndarray) -> tuple[np.ndarray, int]:
        """Return rows of all patches, or of `_ROWS` drawn ones, and the columns of the change."""
        rows, columns, _ = self._grid()
        taken = np.ones((len(now), len(rows) * len(columns)), bool)
        if taken.size > _ROWS:
            seed = self.random_state
            if seed is not None:
                seed = check_random_state(seed).randint(np.iinfo(np.int32).max)
            taken[:] = False
            drawn = np.random.default_rng(seed).choice(taken.size, _ROWS, replace=False)
            taken.flat[drawn] = True
        parts = []
        for part in self._parts(len(now)):
            past = self._past(X, starts, now[part])
            change = self._frames(X[now[part] + 1]) - past[:, -1]
            blocks = [*self._inputs(past), self._patches(change, 0)]
            parts.append(np.hstack(blocks)[taken[part].ravel()])
        held = np.concatenate(parts)
        self._scales = []
        for block in np.split(held, np.cumsum([block.shape[1] for block in blocks[:-1]]), axis=1):
            self._scales.append(float(block.std(dtype=np.float64)) or 1.0)
            block /= np.float32(self._scales[-1])
        return held, blocks[-1].shape[1]

    def _grid(self) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
        """Return the first rows and columns of patches, half a patch apart, and their size."""
        size = plain(self.patch_size)
        if size is None:
            return np.zeros(1, int), np.zeros(1, int), self._shape
        step = max(1, size // 2)
        rows, columns = (np.unique(np.r_[0 : n - size : step, n - size]) for n in self._shape)
        return rows, columns, (size, size)

    def _patches(self, frames: np.ndarray, margin: int) -> np.ndarray:
        """Return each patch of the frames, with `margin` pixels around it, as a row."""
        rows, columns, size = self._grid()
        window = size[0] + 2 * margin, size[1] + 2 * margin
        padded = np.pad(frames, ((0, 0), (margin, margin), (margin, margin)), mode="edge")
        patches = sliding_window_view(padded, window, axis=(1, 2))[:, rows[:, None], columns]
        return patches.reshape(-1, window[0] * window[1])

    def _inputs(self, past: np.ndarray) -> list[np.ndarray]:
        """Return what the encoder sees: the last frame, the changes before it, and the motion."""
        margin = 0 if self.patch_size is None else plain(self.margin)
        last = self._patches(past[:, -1], margin)
        if self.patch_size is not None:  # the brightness of a patch does not matter
            last = last - last.mean(axis=1, keepdims=True)
        changes = np.diff(past, axis=1).swapaxes(0, 1)
        seen = [last, *(self._patches(change, margin) for change in changes)]
        if self.motion:
            moved = _moved_on(past[:, -2], past[:, -1], plain(self.motion), self._noise)
            seen.append(self._patches(moved - past[:, -1], margin))
        return seen

    def _scaled(self, blocks: list[np.ndarray]) -> np.ndarray:
        return np.hstack([b / np.float32(s) for b, s in zip(blocks, self._scales, strict=False)])

    def _predict(self, past: np.ndarray) -> np.ndarray:
        rows, columns, (height, width) = self._grid()
        seen = self._scaled(self._inputs(past))
        hidden = np.full((len(seen), height * width), np.nan, np.float32)
        change = np.asarray(self.autoencoder_.reconstruct(np.hstack([seen, hidden])))
        change = change[:, seen.shape[1] :]
        change = change.reshape(len(past), len(rows), len(columns), height, width)
        total = np.zeros(past[:, 0].shape, np.float32)
        count = np.zeros(self._shape, np.float32)
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                place = slice(row, row + height), slice(column, column + width)
                total[:, *place] += change[:, i, j]
                count[place] += 1
        frames = past[:, -1] + total * np.float32(self._scales[-1]) / count
        low, high = ((end - self._centre) / self._unit for end in self._range)
        return np.clip(frames, low, high)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


class _HideLast(Regularizer):
    """Hides the last columns from the encoder: their means replace them, as for missing values."""

    def __init__(self, n_columns: int, weight: float = 9.0) -> None:
        self.n_columns = n_columns
        self.weight = weight

    def prepare(self, data: TrainingData) -> Regularizer:
        prepared = copy.copy(self)
        prepared._means = data.means[-self.n_columns :]
        return prepared

    def corrupt(self, inputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        hidden = self._means.expand(len(inputs), -1)
        return torch.cat([inputs[:, : -self.n_columns], hidden], dim=1)

    def penalty(self, batch: Batch) -> torch.Tensor:
        difference = (batch.reconstruction - batch.rows)[:, -self.n_columns :]
        return self.weight * difference.square().mean()


def _starts(X: np.ndarray, groups: Any) -> np.ndarray:
    """Return the position of the first frame of each row's film."""
    if groups is None:
        return np.zeros(len(X), int)
    groups = column_or_1d(groups)
    check_consistent_length(X, groups)
    first = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
    if len(first) > len(np.unique(groups)):
        raise ValueError(
            "Frames of a film must stand together, but a group in groups occurs again after "
            "another one. Sort the frames by group."
        )
    return np.repeat(first, np.diff(np.r_[first, len(X)]))


def _moved_on(before: np.ndarray, last: np.ndarray, reach: int, noise: float) -> np.ndarray:
    """Return the frames that follow if everything moves on as it did from `before` to `last`.

    Every displacement of up to `reach` pixels is tried. The result is the mean of the moved
    frames, in which each pixel is weighted by how well its surroundings match.
    """
    height, width = last.shape[1:]
    around = [
        np.pad(frames, ((0, 0), (reach, reach), (reach, reach)), mode="edge")
        for frames in (before, last)
    ]
    total, weights = np.zeros_like(last), np.zeros_like(last)
    for row in range(2 * reach + 1):
        for column in range(2 * reach + 1):
            matched, moved = (f[:, row : row + height, column : column + width] for f in around)
            error = uniform_filter(np.square(last - matched), (0, _MATCHED, _MATCHED))
            weight = np.exp(-error / noise)
            if row == column == reach:
                weight += 1e-6  # if nothing matches, the pixel does not move
            total += weight * moved
            weights += weight
    return total / weights
