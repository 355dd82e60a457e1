"""Digits in ten lines: three learned features for SVC and KNN, beside three of PCA.

Prints a table of test accuracies and saves one picture: original digits over their
reconstructions, and the codes of the test digits in three dimensions. An interactive page of the
codes is saved beside it.
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

from aefeatures import (
    AutoencoderTransformer,
    LatentSpaceDisplay,
    ReconstructionDisplay,
    write_latent_map,
)


def save_picture(transformer, X, y, path):
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(8, 6.4), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1, 2.3])
    one_of_each = [np.flatnonzero(y == digit)[0] for digit in range(10)]
    ReconstructionDisplay.from_estimator(
        transformer, X[one_of_each], image_shape=(8, 8), n_samples=10, ax=top.add_subplot()
    )
    top.suptitle("Test digits over their reconstructions from three numbers")
    # A few distant codes would shrink the rest, so `trim` leaves them out.
    display = LatentSpaceDisplay.from_estimator(
        transformer, X, y, target_name="digit", ax=bottom.add_subplot(projection="3d"), trim=0.01
    )
    display.ax_.get_legend().set_bbox_to_anchor((1.1, 0.5))  # beside the label of the third axis
    bottom.suptitle("The three numbers of all test digits (without the outermost)")
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
