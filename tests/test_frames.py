import pickle

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.base import clone

from aefeatures import AutoencoderTransformer, NextFramePredictor
from aefeatures._autoencoder import fitted_model
from aefeatures._frames import _moved_on

SMALL = AutoencoderTransformer(8, hidden_layer_sizes=(32,), scaling=None, max_epochs=100)


def film(n_frames, size=12, seed=0, step=1):
    """A bright square on a textured ground that wanders to the right and comes in again."""
    rng = np.random.default_rng(seed)
    ground = rng.uniform(0, 0.1, (size, size))
    ground[3:8, 2:7] = rng.uniform(0.5, 1, (5, 5))
    frames = [np.roll(ground, step * i, axis=1) for i in range(n_frames)]
    return np.stack(frames).reshape(n_frames, -1)


@pytest.fixture(scope="module")
def films():
    X = np.concatenate([film(12, seed=seed) for seed in range(40)])
    return X, np.repeat(np.arange(40), 12)


@pytest.fixture(scope="module")
def fitted(films):
    autoencoder = AutoencoderTransformer(
        32, hidden_layer_sizes=(128,), scaling=None, max_epochs=40, learning_rate=2e-3
    )
    return NextFramePredictor(autoencoder, random_state=0).fit(
        films[0][:360], groups=films[1][:360]
    )


def mse(a, b):
    return np.square(a - b).mean()


def test_predicts_films_that_were_not_seen(films, fitted):
    X, groups = films[0][360:], films[1][360:]
    predicted = fitted.predict_next(X, groups=groups)
    assert predicted.shape == X.shape
    inner = np.flatnonzero((groups[:-1] == groups[1:]) & (np.arange(len(X) - 1) % 12 > 0))
    assert mse(predicted[inner], X[inner + 1]) < 0.3 * mse(X[inner], X[inner + 1])


def test_rollout_beats_the_last_frame_at_every_step(films, fitted):
    X = films[0][360:].reshape(10, 12, -1)
    seen = X[:, :7].reshape(70, -1)
    rollout = fitted.rollout(seen, 5, groups=np.repeat(np.arange(10), 7))
    assert rollout.shape == (10, 5, 144)
    for i in range(5):
        assert mse(rollout[:, i], X[:, 7 + i]) < mse(X[:, 6], X[:, 7 + i])


def test_rollout_begins_with_predict_next_and_goes_on_from_it(films, fitted):
    X = films[0][:12]
    two = fitted.rollout(X, 2)
    assert two.shape == (2, 144)
    one = fitted.predict_next(X)[-1:]
    np.testing.assert_allclose(two[:1], one, atol=1e-6)
    after = fitted.predict_next(np.concatenate([X, one]))[-1]
    np.testing.assert_allclose(two[1], after, atol=1e-5)


def test_predictions_do_not_cross_films(films, fitted):
    X, groups = films[0][:24], films[1][:24]
    apart = [fitted.predict_next(X[:12]), fitted.predict_next(X[12:])]
    together = fitted.predict_next(X, groups=groups)
    np.testing.assert_allclose(together, np.concatenate(apart), atol=1e-6)
    assert np.abs(fitted.predict_next(X)[12] - together[12]).max() > 1e-3


def test_learning_does_not_cross_films():
    rng = np.random.default_rng(0)
    X = np.repeat(rng.uniform(size=(10, 16)), 2, axis=0)  # each film stands still
    predictor = NextFramePredictor(SMALL, random_state=0)
    predictor.fit(X + 0.0, groups=np.repeat(np.arange(10), 2))
    np.testing.assert_allclose(predictor.predict_next(X)[1::2], X[1::2], atol=0.5)
    assert predictor._scales[-1] == 1.0  # no change was seen at all


def test_the_future_is_not_seen(films, fitted):
    X = films[0][:12]
    other = X.copy()
    other[6:] = 0.5
    np.testing.assert_allclose(
        fitted.predict_next(X)[:6], fitted.predict_next(other)[:6], atol=1e-6
    )


def test_encoder_ignores_the_columns_of_the_change(films, fitted):
    autoencoder = fitted.autoencoder_
    n_pixels = films[0].shape[1]
    rows = np.random.default_rng(0).normal(size=(5, autoencoder.n_features_in_))
    rows[:, -n_pixels:] = np.nan
    hidden = np.nan_to_num(rows)
    means = fitted_model(autoencoder).fill.values.detach().numpy()
    hidden[:, -n_pixels:] = means[-n_pixels:]
    np.testing.assert_allclose(autoencoder.transform(rows), autoencoder.transform(hidden))


def test_patches_that_overlap_give_whole_frames(films):
    X = film(6, size=12)[:, : 12 * 11]  # 11 is no multiple of the patches' distance
    predictor = NextFramePredictor(SMALL, patch_size=4, margin=2, image_shape=(11, 12))
    predictor.fit(X)
    rows, columns, _ = predictor._grid()
    assert list(rows) == [0, 2, 4, 6, 7]
    assert list(columns) == [0, 2, 4, 6, 8]
    patches = predictor._patches(X.reshape(-1, 11, 12), 0)
    assert patches.shape == (6 * 25, 16)
    np.testing.assert_array_equal(patches[24], X[0].reshape(11, 12)[7:, 8:].ravel())
    assert predictor.predict_next(X).shape == X.shape


class Keeping(AutoencoderTransformer):
    def fit(self, X, y=None):
        self.rows_ = X.copy()
        return super().fit(X, y)


def test_no_more_rows_are_held_than_are_learned_from(monkeypatch):
    X = film(20)
    autoencoder = Keeping(8, hidden_layer_sizes=(32,), scaling=None, max_epochs=20)
    predictor = NextFramePredictor(autoencoder, patch_size=4, margin=1, motion=1, random_state=0)
    held = []
    for n_rows in (10_000, 50, 50):
        monkeypatch.setattr("aefeatures._frames._ROWS", n_rows)
        predictor.fit(X)
        scales = np.repeat(predictor._scales, [36, 36, 36, 16])
        held.append(predictor.autoencoder_.rows_ * scales)
    assert [len(rows) for rows in held] == [19 * 25, 50, 50]
    np.testing.assert_array_equal(held[1], held[2])
    distances = np.abs(held[1][:, None] - held[0]).max(axis=2)
    assert distances.min(axis=1).max() < 1e-5
    assert len(np.unique(distances.argmin(axis=1) // 25)) > 12  # of most frames


def test_motion_goes_on():
    frames = film(3, size=24, step=2).reshape(3, 24, 24)
    moved = _moved_on(frames[:1], frames[1:2], 3, 1e-3)[0]
    assert mse(moved[3:-3, 6:-6], frames[2, 3:-3, 6:-6]) < 1e-3
    assert mse(frames[1], frames[2]) > 1e-2


def test_motion_of_nothing_is_none():
    frame = np.random.default_rng(0).uniform(size=(1, 8, 8))
    far = frame + 100.0  # nothing matches
    np.testing.assert_allclose(_moved_on(frame, far, 2, 1e-3), far)


def test_motion_helps_patches_whose_way_differs():
    X = np.concatenate([film(6, size=16, seed=seed, step=2 * (-1) ** seed) for seed in range(10)])
    groups = np.repeat(np.arange(10), 6)
    errors = []
    for motion in (0, 2):
        autoencoder = clone(SMALL).set_params(n_components=16, max_epochs=10, batch_size=256)
        predictor = NextFramePredictor(
            autoencoder, patch_size=4, margin=2, motion=motion, random_state=0
        ).fit(X[:42], groups=groups[:42])
        predicted = predictor.predict_next(X[42:], groups=groups[42:]).reshape(3, 6, -1)
        errors.append(mse(predicted[:, 1:-1], X[42:].reshape(3, 6, -1)[:, 2:]))

    assert errors[1] < 0.9 * errors[0]


def test_same_seed_same_frames(films):
    X, groups = films[0][:60], films[1][:60]
    one, other = (NextFramePredictor(SMALL, random_state=3).fit(X, groups=groups) for _ in range(2))
    np.testing.assert_array_equal(one.predict_next(X), other.predict_next(X))


def test_parameters_stay_as_they_are(films):
    autoencoder = clone(SMALL).set_params(regularizer=["denoising"])
    NextFramePredictor(autoencoder, random_state=0).fit(films[0][:60])
    assert autoencoder.regularizer == ["denoising"]
    assert autoencoder.random_state is None
    assert not hasattr(autoencoder, "encoder_")


def test_a_fit_that_fails_changes_nothing(films):
    X = films[0][:60]
    predictor = NextFramePredictor(SMALL, random_state=0).fit(X)
    before = predictor.predict_next(X)
    with pytest.raises(ValueError, match="No film has two frames"):
        predictor.fit(X[:2, :100], groups=[0, 1])
    np.testing.assert_array_equal(predictor.predict_next(X), before)


def test_pickle_predicts_the_same(films, fitted):
    X = films[0][:12]
    loaded = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(loaded.predict_next(X), fitted.predict_next(X))


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float16, np.float32, np.float64])
def test_dtype_and_range(dtype):
    frames = (film(12).round() * 255).astype(dtype)
    predictor = NextFramePredictor(SMALL).fit(frames)
    predicted = predictor.predict_next(frames)
    assert predicted.dtype == (np.float64 if frames.itemsize == 8 else np.float32)
    assert predictor.rollout(frames, 2).dtype == predicted.dtype
    assert predicted.min() >= frames.min()
    assert predicted.max() <= frames.max()
    assert predictor.predict_next(np.full((1, 144), 1e300)).max() <= frames.max()


def test_sparse_frames(films, fitted):
    X = np.where(films[0][:12] > 0.3, films[0][:12], 0)
    np.testing.assert_array_equal(fitted.predict_next(csr_array(X)), fitted.predict_next(X))


@pytest.mark.parametrize(("factor", "offset"), [(1, 100), (-1e-30, 0), (1e39, 1e40)])
def test_neither_offset_nor_unit_matters(factor, offset):
    X = film(12)[:, :24]
    predictor = NextFramePredictor(SMALL, random_state=0).fit(factor * X + offset)
    expected = NextFramePredictor(SMALL, random_state=0).fit(np.sign(factor) * X)
    for name, args in (("predict_next", ()), ("rollout", (3,))):
        there = getattr(predictor, name)(factor * X + offset, *args)
        here = getattr(expected, name)(np.sign(factor) * X, *args)
        np.testing.assert_allclose((there - offset) / abs(factor), here, atol=1e-3)


def test_bad_input(films, fitted):
    X = films[0][:12]
    with pytest.raises(ValueError, match=r"No film has two frames.*n_samples = 3"):
        NextFramePredictor().fit(X[:3], groups=[0, 1, 2])
    with pytest.raises(ValueError, match="a group in groups occurs again"):
        NextFramePredictor().fit(X, groups=[0, 1] * 6)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        fitted.predict_next(X, groups=[0] * 11)
    with pytest.raises(ValueError, match="motion=2 needs n_frames of at least 2, got 1"):
        NextFramePredictor(n_frames=1, motion=2).fit(X)
    with pytest.raises(ValueError, match="autoencoder must not have early_stopping=True"):
        NextFramePredictor(clone(SMALL).set_params(early_stopping=True)).fit(X)
    with pytest.raises(ValueError, match="patch_size=13 is larger than frames of 12 x 12"):
        NextFramePredictor(patch_size=13).fit(X)
    with pytest.raises(ValueError, match="one channel here, got 3"):
        NextFramePredictor(patch_size=2, image_shape=(3, 6, 8)).fit(X)
    with pytest.raises(ValueError, match="neither a square image"):
        NextFramePredictor(patch_size=2).fit(X[:, :143])
    with pytest.raises(ValueError, match="n_steps must be an integer of at least 1, got 0"):
        fitted.rollout(X, 0)
    for broken in (np.where(X > 0.9, np.nan, X), np.ma.masked_greater(X, 0.9)):
        with pytest.raises(ValueError, match="X contains NaN or masked pixels"):
            fitted.predict_next(broken)


def test_numpys_numbers_are_plain_ones():
    frames = film(30, size=8)
    params = {"n_frames": 3, "patch_size": 4, "margin": 2, "motion": 1, "random_state": 3}
    predictors = [
        NextFramePredictor(
            AutoencoderTransformer(8, hidden_layer_sizes=8, max_epochs=9),
            image_shape=shape,
            **{name: kind(n) for name, n in params.items()},
        )
        for kind, shape in ((int, (8, 8)), (np.uint8, np.array([8, 8], np.uint8)))
    ]
    plain, given = (predictor.fit(frames).rollout(frames, 2) for predictor in predictors)
    np.testing.assert_array_equal(given, plain)
    assert isinstance(predictors[1].n_frames, np.uint8)
