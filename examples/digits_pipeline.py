"""Digits in ten lines: three learned features for SVC and KNN, beside three of PCA.

Prints a table of test accuracies and saves one picture: original digits over their
reconstructions, and the codes of the test digits in three dimensions. A page beside it
shows the same to turn and point at.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from aefeatures import AutoencoderTransformer, write_latent_map


def save_picture(transformer, X, y, path):
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1])
    chosen = [np.flatnonzero(y == digit)[0] for digit in range(10)]
    originals, reconstructions = X[chosen], transformer.reconstruct(X[chosen])
    rows = [originals[:5], reconstructions[:5], originals[5:], reconstructions[5:]]
    labels = ["original", "from 3 numbers"] * 2
    axes = left.subplots(4, 5)
    for row_axes, pictures, label in zip(axes, rows, labels, strict=True):
        row_axes[0].set_ylabel(label)
        for ax, picture in zip(row_axes, pictures, strict=True):
            ax.imshow(picture.reshape(8, 8), cmap="gray", vmin=0, vmax=16)
            ax.set(xticks=[], yticks=[])
    left.suptitle("Test digits over their reconstructions")

    ax = right.add_subplot(projection="3d")
    codes = transformer.transform(X)
    low, high = np.percentile(codes, [1, 99], axis=0)
    inner = ((codes >= low) & (codes <= high)).all(axis=1)  # a few far codes would shrink the rest
    points = ax.scatter(
        *codes[inner].T, c=y[inner], cmap="tab10", vmin=-0.5, vmax=9.5, s=12, depthshade=False
    )
    ax.locator_params(nbins=5)
    ax.set(xlabel="code 0", ylabel="code 1", zlabel="code 2")
    right.colorbar(points, ax=ax, ticks=range(10), label="digit", shrink=0.7, pad=0.12)
    right.suptitle(f"The codes of {inner.sum()} of {len(X)} (without the outermost)")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("output/digits.png"))
    args = parser.parse_args()

    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)

    print(f"{len(X_train)} digits of 8 x 8 pixels to learn from, {len(X_test)} to test on.\n")
    print(f"{'features':<30}{'classifier':<15}{'test accuracy':>13}{'fit':>9}")
    classifiers = {"SVC": SVC(), "KNN": KNeighborsClassifier()}
    features = {
        "AutoencoderTransformer, 3": AutoencoderTransformer(random_state=0),
        "PCA, 3": PCA(3),
    }
    for name, transformer in features.items():
        for classifier_name, classifier in classifiers.items():
            pipeline = make_pipeline(transformer, classifier)
            start = time.perf_counter()
            pipeline.fit(X_train, y_train)
            seconds = time.perf_counter() - start
            accuracy = pipeline.score(X_test, y_test)
            print(f"{name:<30}{classifier_name:<15}{accuracy:>13.3f}{seconds:>7.2f} s")

    autoencoder = features["AutoencoderTransformer, 3"]
    save_picture(autoencoder, X_test, y_test, args.output)
    page = write_latent_map(
        autoencoder, X_test, y_test, args.output.with_suffix(".html"), image_shape=(8, 8)
    )
    print(f"\nTrained on {autoencoder.device_}. Picture: {args.output.resolve()}")
    print(f"Latent map, to open in a browser: {page.resolve().as_uri()}")


if __name__ == "__main__":
    main()
