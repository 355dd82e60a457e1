"""The next frame of a film, as a missing value of the autoencoder's."""

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

# Pixels around each by which its motion is found, and how much worse, in mean squared
# differences between frames, a match may be and still count.
_MATCHED = 13
_TOLERANCE = 0.25
# The most rows that are learned from; by default as many are trained on, seen again or not.
_ROWS = 240_000


class NextFramePredictor(BaseEstimator):
    """Predict the next frame of a film from the last ones.

    An autoencoder learns rows of the last frames and the change to the next, which its encoder
    never sees: what the decoder makes of the codes holds the most likely change [1]_. Of large
    pictures it learns patches with their surroundings, and averages where they overlap.
    Neither an offset of the values nor their unit matters.

    Parameters
    ----------
    autoencoder : AutoencoderTransformer or None, default=None
        Cloned in `fit`; without early stopping, as validation rows show the change. None is one of
        64 codes (of narrow rows, half as many as columns), with a hidden layer of 512 and weight
        decay, trained for few epochs. The columns it gets have about unit variance already.
    n_frames : int, default=2
        Frames that a prediction looks back on.
    patch_size : int or None, default=None
        Height and width of the patches; None takes frames whole, for small pictures.
    margin : int, default=4
        Pixels around a patch that are seen with it.
    motion : int, default=0
        The farthest, in pixels, that something is looked for between the last two frames. Where it
        is not 0, the frame that would come if all went on as it moved is seen as well. Needs two
        frames at least.
    image_shape : tuple of int, default=None
        (height, width), needed with patches and motion where frames are not square.
    random_state : int, RandomState instance or None, default=None
        Given to the autoencoder where that is None; draws the patches where there are too many.

    Attributes
    ----------
    autoencoder_ : AutoencoderTransformer
        Fitted on rows of the past and the change.
    n_features_in_ : int
        Number of pixels.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns seen in `fit`, where X has string names for all of them.

    Notes
    -----
    There is no `predict`: of that scikit-learn expects the same for a row whatever stands
    before it. Pickle keeps a fitted predictor; `autoencoder_` has no `save`, as the change is
    hidden by a regularizer of the predictor's own.

    Frames are numbers of any dtype, sparse or not; those predicted are float64 where X is wider
    than float32, else float32. Missing and masked pixels are refused.

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
            A flattened frame per row.
        y : None
            Ignored.
        groups : array-like of shape (n_samples,), default=None
            Which film a frame is of; frames of a film stand together. By default all are of one.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If no film has two frames, or X or a parameter cannot be used.
        """
        with unchanged_on_error(self):
            self._fit(X, groups)
        return self

    def _fit(self, X: Any, groups: Any) -> None:
        if self.autoencoder is not None and self.autoencoder.early_stopping:
            raise ValueError(
                "autoencoder must not have early_stopping=True: the loss on validation rows is "
                "with the change in sight. Set max_epochs instead."
            )
        X, starts = self._check(X, groups, reset=True)
        now = np.flatnonzero(starts[:-1] == starts[1:])
        if not len(now):
            raise ValueError(
                "No film has two frames to learn a change from: got n_samples = "
                f"{len(X)} and as many groups."
            )
        if self.motion and self.n_frames < 2:
            raise ValueError(f"motion={self.motion} needs n_frames of at least 2, got 1.")
        self._shape = self._resolve_shape(X.shape[1])
        low, high = self._range = float(X.min()), float(X.max())
        self._centre, self._unit = float(X.mean(dtype=np.float64)), high / 2 - low / 2 or 1.0
        self._noise = self._tolerated(X, now)
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
        """Return for each frame the one expected after it.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_pixels)
            In the order of time. The first of a film counts as if it had stood still before.
        groups : array-like of shape (n_samples,), default=None
            Which film a frame is of; by default all are of one.

        Returns
        -------
        X_next : ndarray of shape (n_samples, n_pixels)
            Row i is what is expected after row i, within the range of values seen in `fit`.
        """
        check_is_fitted(self)
        X, starts = self._check(X, groups, reset=False)
        following = np.empty(X.shape, code_dtype(X.dtype))
        for part in self._parts(len(X)):
            past = self._past(X, starts, np.arange(len(X))[part])
            following[part] = self._restored(self._predict(past))
        return following

    def rollout(self, X: Any, n_steps: int, groups: Any = None) -> np.ndarray:
        """Return the frames expected after the last one, each from those predicted before.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_pixels)
            In the order of time.
        n_steps : int
            How many to predict.
        groups : array-like of shape (n_samples,), default=None
            Which film a frame is of; by default all are of one.

        Returns
        -------
        X_next : ndarray of shape (n_steps, n_pixels) or (n_films, n_steps, n_pixels)
            The latter with `groups`, in the order of the films.
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
                films[part, step] = self._restored(frame)
                past = np.concatenate([past[:, 1:], frame[:, None]], axis=1)
        return films[0] if groups is None else films

    def _check(self, X: Any, groups: Any, *, reset: bool) -> tuple[np.ndarray, np.ndarray]:
        X = check_rows(self, X, reset=reset).dense()
        if has_missing(X):
            raise ValueError("Input X contains NaN or masked pixels: frames must be whole.")
        return X, _starts(X, groups)

    def _resolve_shape(self, n_pixels: int) -> tuple[int, int]:
        if self.image_shape is None and self.patch_size is None and not self.motion:
            return 1, n_pixels
        channels, height, width = resolve_image_shape(self.image_shape, n_pixels)
        if channels != 1:
            raise ValueError(
                f"Frames have one channel here, got {channels}: give each its own predictor."
            )
        if self.patch_size is not None and self.patch_size > min(height, width):
            raise ValueError(
                f"patch_size={self.patch_size} is larger than frames of {height} x {width}."
            )
        return height, width

    def _frames(self, X: np.ndarray) -> np.ndarray:
        """Frames about 0, in a unit that float32 squares; what lies far out says no more."""
        values = (X.astype(np.float64) - self._centre) / self._unit
        return values.clip(-1e6, 1e6).reshape(*X.shape[:-1], *self._shape).astype(np.float32)

    def _restored(self, frames: np.ndarray) -> np.ndarray:
        values = frames.reshape(len(frames), -1).astype(np.float64) * self._unit + self._centre
        return np.clip(values, *self._range)

    def _past(self, X: np.ndarray, starts: np.ndarray, now: np.ndarray) -> np.ndarray:
        """The last `n_frames` frames at each of `now`: (n, n_frames, height, width)."""
        steps = np.arange(1 - plain(self).n_frames, 1)
        rows = np.maximum(now[:, None] + steps, starts[now][:, None])
        return self._frames(X[rows])

    def _parts(self, n: int) -> Iterator[slice]:
        """The places of consecutive frames, of n, whose rows are held at a time."""
        given = plain(self)
        rows, columns, size = self._grid()
        around = 0 if given.patch_size is None else 2 * given.margin
        window = (size[0] + around) * (size[1] + around)
        return iterate_slices(n, len(rows) * len(columns) * window * (given.n_frames + 2))

    def _tolerated(self, X: np.ndarray, now: np.ndarray) -> float:
        squares = 0.0
        for part in self._parts(len(now)):
            change = self._frames(X[now[part] + 1]) - self._frames(X[now[part]])
            squares += float(np.square(change).sum(dtype=np.float64))
        return _TOLERANCE * squares / (len(now) * X.shape[1]) or 1.0

    def _rows(self, X: np.ndarray, starts: np.ndarray, now: np.ndarray) -> tuple[np.ndarray, int]:
        """Rows to learn from, of all patches or as many as are held, and the change's width."""
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
        """Where patches start, half a patch apart, and their size."""
        size = plain(self.patch_size)
        if size is None:
            return np.zeros(1, int), np.zeros(1, int), self._shape
        step = max(1, size // 2)
        rows, columns = (np.unique(np.r_[0 : n - size : step, n - size]) for n in self._shape)
        return rows, columns, (size, size)

    def _patches(self, frames: np.ndarray, margin: int) -> np.ndarray:
        """Patches of frames with `margin` around them, a row each."""
        rows, columns, size = self._grid()
        window = size[0] + 2 * margin, size[1] + 2 * margin
        padded = np.pad(frames, ((0, 0), (margin, margin), (margin, margin)), mode="edge")
        patches = sliding_window_view(padded, window, axis=(1, 2))[:, rows[:, None], columns]
        return patches.reshape(-1, window[0] * window[1])

    def _inputs(self, past: np.ndarray) -> list[np.ndarray]:
        """What is seen of the past: changes, the last frame, and where motion leads."""
        margin = 0 if self.patch_size is None else plain(self.margin)
        last = self._patches(past[:, -1], margin)
        if self.patch_size is not None:  # a patch may be of any brightness
            last = last - last.mean(axis=1, keepdims=True)
        seen = [
            last,
            *(self._patches(step, margin) for step in np.diff(past, axis=1).swapaxes(0, 1)),
        ]
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
    """Hides the last columns from the encoder, behind what stands for a missing value."""

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
    """For each row where its film starts."""
    if groups is None:
        return np.zeros(len(X), int)
    groups = column_or_1d(groups)
    check_consistent_length(X, groups)
    first = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
    if len(first) > len(np.unique(groups)):
        raise ValueError("Frames of a film must stand together: a group in groups comes twice.")
    return np.repeat(first, np.diff(np.r_[first, len(X)]))


def _moved_on(before: np.ndarray, last: np.ndarray, reach: int, noise: float) -> np.ndarray:
    """The frames that come if everything moves on as between the two before.

    Every displacement of up to `reach` pixels is tried; what each pixel is moved by is their
    mean, weighted by how well the surroundings match.
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
                weight += 1e-6  # where nothing matches, nothing moves
            total += weight * moved
            weights += weight
    return total / weights
