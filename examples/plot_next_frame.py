"""
The next frame
==============

The next frame of a film can be treated as a missing value. An autoencoder gets rows of the last
frames and the change to the next one. Its encoder never sees the change, so it learns to fill it
in. `NextFramePredictor` makes these rows and puts the predicted pictures together.
"""

# %%
# Digits that move
# ----------------
# In each film a digit moves straight on, up to two pixels a frame, and bounces off the edges. The
# test films show digits that were held out.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from aefeatures import AutoencoderTransformer, NextFramePredictor


def make_films(digits, seed, n_frames=10, room=8):
    rng = np.random.default_rng(seed)
    start = rng.integers(0, room + 1, (len(digits), 1, 2))
    step = rng.integers(1, 3, (len(digits), 1, 2)) * rng.choice([-1, 1], (len(digits), 1, 2))
    way = start + step * np.arange(n_frames)[:, np.newaxis]
    films = np.zeros((len(digits), n_frames, room + 8, room + 8), dtype=np.float32)
    places = abs((way + room) % (2 * room) - room)
    for film, digit, way in zip(films, digits, places, strict=True):
        for frame, (row, column) in zip(film, way, strict=True):
            frame[row : row + 8, column : column + 8] = digit.reshape(8, 8) / 16
    return films


train, test = train_test_split(load_digits().data, random_state=0)
films, films_test = make_films(train, seed=0), make_films(test, seed=1)

# %%
# A row of X is a flattened frame. `groups` says which film it belongs to.
X, X_test = films.reshape(-1, 256), films_test.reshape(-1, 256)
groups = np.repeat(np.arange(len(films)), 10)
groups_test = np.repeat(np.arange(len(films_test)), 10)

# ``motion=2`` also shows it the last frame, moved on as before. It still has to learn the bounces.
autoencoder = AutoencoderTransformer(
    64, hidden_layer_sizes=(256,), scaling=None, batch_size=256, max_epochs=8
)
predictor = NextFramePredictor(autoencoder, n_frames=3, motion=2, random_state=0)
predictor.fit(X, groups=groups)

# %%
# One frame ahead
# ---------------
# Row i of `predict_next` is the prediction of the frame after row i. The mean squared error is
# compared with that of showing the last frame again. Both start when three frames have been seen.
predicted = predictor.predict_next(X_test, groups=groups_test).reshape(films_test.shape)
true, last, predicted = films_test[:, 3:], films_test[:, 2:-1], predicted[:, 2:-1]
print(f"last frame again {((last - true) ** 2).mean():.4f}")
print(f"predicted        {((predicted - true) ** 2).mean():.4f}")


# %%
# For six films, the rows show the last frame, the true next frame, the predicted one, and the
# difference of the two.
def draw(pictures, titles, n_columns):
    _, axes = plt.subplots(
        len(pictures), n_columns, figsize=(1.1 * n_columns + 1, 1.15 * len(pictures)),
        squeeze=False, layout="constrained",
    )  # fmt: skip
    for title, row, kind in zip(titles, axes, pictures, strict=True):
        for ax, picture in zip(row, kind, strict=True):
            if title == "difference":
                ax.imshow(picture, cmap="RdBu_r", vmin=-1, vmax=1)
            else:
                ax.imshow(picture, cmap="gray", vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[])
        row[0].set_ylabel(title, rotation=0, ha="right", va="center")
    return axes


kinds = [last[:6, 3], true[:6, 3], predicted[:6, 3], (predicted - true)[:6, 3]]
draw(kinds, ["last", "next", "predicted", "difference"], 6)

# %%
# Five frames ahead
# -----------------
# `rollout` predicts from its own predictions. They blur if the direction is no longer certain, but
# stay closer to the truth than the last frame seen.
seen, future = films_test[:, :5], films_test[:, 5:]
rollout = predictor.rollout(
    seen.reshape(-1, 256), 5, groups=np.repeat(np.arange(len(seen)), 5)
).reshape(future.shape)
for i in range(5):
    again = ((seen[:, -1] - future[:, i]) ** 2).mean()
    error = ((rollout[:, i] - future[:, i]) ** 2).mean()
    print(f"{i + 1} ahead: last frame again {again:.4f}, predicted {error:.4f}")

strip = [[*seen[0, -3:], *future[0]], [*seen[0, -3:], *rollout[0]]]
axes = draw(strip, ["true", "rollout"], 8)
for i, ax in enumerate(axes[0]):
    ax.set_title("seen" if i < 3 else f"{i - 2} ahead", fontsize="small")
