"""The next frame of a film: `NextFramePredictor` beside repeating, motion and linear models.

Prints the mean squared error of pixels in [0, 1] on held-out frames, as medians over seeds with the
lowest and highest. "of repeating" is the ratio to the error of showing the last frame again.

    python examples/benchmark_frames.py --data FOLDER [--quick] [--sets carphone digits]
        [--only NAME ...] [--json FILE]

FOLDER holds `carphone.npz`. Contestants learn from its first half and are tested on the second,
with patches of 8 x 8 and 4 pixels around them. "motion" shows the last frame, moved on by the
motion between the last two frames. "half motion" is the mean of this and the last frame. Neither
learns anything. "ridge" and "PCA" are linear models. They get the same rows of past frames as the
predictor: all columns, or 64 components.

Moving digits are made from scikit-learn's. A digit of 8 x 8 pixels goes straight on in 16 x 16
pixels and bounces. A quarter of the digits is held out, with their films. "codes" are the codes of
whole frames from an autoencoder; a network predicts the next code. Without `--data` only digits are
measured.
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline

from aefeatures import AutoencoderTransformer, NextFramePredictor
from aefeatures._frames import _TOLERANCE, _moved_on

SIZE, LENGTH, SEEN = 16, 12, 3


class LinearModel(AutoencoderTransformer):
    """A linear model of the hidden columns, used instead of an autoencoder."""

    def model(self):
        return Ridge(1_000.0)

    def fit(self, X, y=None):
        hidden = self.regularizer[0].n_columns
        self.n_features_in_ = X.shape[1]
        self.model_ = self.model().fit(X[:, :-hidden], X[:, -hidden:])
        return self

    def reconstruct(self, X):
        seen = X[:, : self.model_.n_features_in_]
        return np.hstack([seen, self.model_.predict(seen)])


class PCAModel(LinearModel):
    def model(self):
        return make_pipeline(PCA(64, random_state=0), Ridge(1_000.0))


def moving_digits(digits, seed):
    """Films of shape (n, LENGTH, SIZE * SIZE), with one digit in each."""
    rng = np.random.default_rng(seed)
    room = SIZE - 8
    start = rng.integers(0, room + 1, (len(digits), 1, 2))
    step = rng.integers(1, 3, (len(digits), 1, 2)) * rng.choice([-1, 1], (len(digits), 1, 2))
    way = start + step * np.arange(LENGTH)[:, None]
    places = np.abs((way + room) % (2 * room) - room)
    films = np.zeros((len(digits), LENGTH, SIZE, SIZE), np.float32)
    for film, digit, where in zip(films, digits, places, strict=True):
        for frame, (row, column) in zip(film, where, strict=True):
            frame[row : row + 8, column : column + 8] = digit.reshape(8, 8) / 16
    return films.reshape(len(digits), LENGTH, -1)


def as_rows(films):
    return films.reshape(-1, films.shape[-1]), np.repeat(np.arange(len(films)), films.shape[1])


def carphone(folder, seeds, only):
    """Errors of each contestant, in one dictionary per seed."""
    with np.load(folder / "carphone.npz") as data:
        X = data["X"].reshape(len(data["X"]), -1).astype(np.float32) / 255
    half = len(X) // 2
    past, true = X[half - 2 : -1], X[half:]
    noise = _TOLERANCE * np.square(np.diff(X[:half], axis=0)).mean()

    def move_on(frames):
        images = frames.reshape(-1, 144, 176)
        return _moved_on(images[:-1], images[1:], 3, noise).reshape(len(frames) - 1, -1)

    moved = move_on(past)
    patches = {"patch_size": 8, "image_shape": (144, 176)}
    contestants = {
        "repeating": lambda _: past[1:],
        "motion": lambda _: moved,
        "half motion": lambda _: (moved + past[1:]) / 2,
    }
    models = {"ridge": LinearModel(), "PCA": PCAModel(), "NextFramePredictor": None}
    for motion in (0, 3):
        for name, model in models.items():

            def predict(seed, model=model, motion=motion):
                predictor = NextFramePredictor(model, motion=motion, random_state=seed, **patches)
                return predictor.fit(X[:half]).predict_next(past)[1:]

            contestants[f"{name}, motion={motion}"] = predict
    early, moved_early = X[: half - 1], move_on(X[: half - 1])
    for name, frames in {
        "repeating": early[1:],
        "motion": moved_early,
        "half motion": (moved_early + early[1:]) / 2,
    }.items():
        error = np.square(frames - X[2:half]).mean()
        print(f"    the first half itself, {name}: {error:.6f}")
    for seed in range(seeds):
        for name, predict in contestants.items():
            if (seed and not name.startswith("NextFrame")) or (only and name not in only):
                continue  # the others do not depend on a seed
            begin = time.perf_counter()
            error = float(np.square(predict(seed) - true).mean())
            yield name, {"next": error, "seconds": time.perf_counter() - begin}


def codes_and_network(films, seed):
    """A function that predicts the next frame from the last SEEN, (n, SEEN, pixels)."""
    autoencoder = AutoencoderTransformer(
        64, hidden_layer_sizes=(512,), batch_size=256, max_epochs=10, random_state=seed
    ).fit(as_rows(films)[0])
    codes = autoencoder.transform(as_rows(films)[0]).reshape(*films.shape[:2], -1)
    scale = codes.std(axis=(0, 1))

    def seen(codes):
        return (codes / scale).reshape(len(codes), -1)

    windows = [codes[:, i : i + SEEN + 1] for i in range(LENGTH - SEEN)]
    windows = np.concatenate(windows)
    network = MLPRegressor(
        hidden_layer_sizes=(512,), batch_size=256, early_stopping=True, n_iter_no_change=3,
        max_iter=40, random_state=seed,
    ).fit(seen(windows[:, :-1]), windows[:, -1] / scale)  # fmt: skip

    def predict(frames):
        codes = autoencoder.transform(as_rows(frames)[0]).reshape(*frames.shape[:2], -1)
        following = network.predict(seen(codes)) * scale
        return autoencoder.inverse_transform(following.astype(np.float32))

    return predict


def repeating(_films, _seed):
    return lambda frames: frames[:, -1]


def move_on(films, _seed):
    noise = _TOLERANCE * np.square(np.diff(films, axis=1)).mean()

    def predict(frames):
        images = frames.reshape(-1, SEEN, SIZE, SIZE)
        return _moved_on(images[:, -2], images[:, -1], 2, noise).reshape(len(frames), -1)

    return predict


def predictor(films, seed, model=None, motion=0):
    """The same for a `NextFramePredictor`."""
    rows, groups = as_rows(films)
    fitted = NextFramePredictor(model, n_frames=SEEN, motion=motion, random_state=seed)
    fitted.fit(rows, groups=groups)

    def predict(frames):
        rows, groups = as_rows(frames)
        return fitted.rollout(rows, 1, groups=groups)[:, 0]

    return predict


def digits(seeds, only):
    images, labels = load_digits(return_X_y=True)
    contestants = {
        "repeating": repeating,
        "ridge": partial(predictor, model=LinearModel()),
        "PCA": partial(predictor, model=PCAModel()),
        "codes": codes_and_network,
        "NextFramePredictor": predictor,
        "motion": move_on,
        "NextFramePredictor, motion=2": partial(predictor, motion=2),
    }
    start = LENGTH - 5  # first frame of the rollout
    for seed in range(seeds):
        train, test = train_test_split(images, random_state=seed, stratify=labels)
        films, true = moving_digits(train, seed), moving_digits(test, seed + 100)
        for name, learn in contestants.items():
            if only and name not in only:
                continue
            begin = time.perf_counter()
            predict = learn(films, seed)
            errors = [
                np.square(predict(true[:, i - SEEN : i]) - true[:, i]).mean()
                for i in range(SEEN, LENGTH)
            ]
            frames, rollout = true[:, start - SEEN : start], []
            for i in range(start, LENGTH):
                frame = predict(frames)
                rollout.append(float(np.square(frame - true[:, i]).mean()))
                frames = np.concatenate([frames[:, 1:], frame[:, None]], axis=1)
            seconds = time.perf_counter() - begin
            yield name, {"next": float(np.mean(errors)), "rollout": rollout, "seconds": seconds}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--quick", action="store_true", help="one seed")
    parser.add_argument("--sets", nargs="+", choices=["carphone", "digits"])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="contestants")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    seeds = 1 if args.quick else 3
    results = {}
    for name in args.sets or (["carphone", "digits"] if args.data else ["digits"]):
        if name == "carphone" and args.data is None:
            parser.error("carphone needs --data FOLDER")
        runs = (
            carphone(args.data, seeds, args.only)
            if name == "carphone"
            else digits(seeds, args.only)
        )
        results[name] = {}
        for contestant, figures in runs:
            results[name].setdefault(contestant, []).append(figures)
            print(f"    {name}, {contestant}: {figures['next']:.6f}", flush=True)
            if args.json:
                args.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
        first = next(iter(results[name].values()))  # repeating, unless it is left out
        base = np.median([run["next"] for run in first])
        print(f"{name}: error (lowest to highest), of repeating, seconds; rollout of five frames")
        for contestant, figures in results[name].items():
            errors = [run["next"] for run in figures]
            rollout = np.median([run.get("rollout", []) for run in figures], axis=0)
            print(
                f"{contestant:<30}{np.median(errors):.6f} ({min(errors):.6f} to {max(errors):.6f}) "
                f"{np.median(errors) / base:6.3f} "
                f"{np.median([run['seconds'] for run in figures]):5.0f} s  "
                + " ".join(f"{error:.4f}" for error in np.atleast_1d(rollout)),
                flush=True,
            )


if __name__ == "__main__":
    main()
