"""The lecture's experiment: an autoencoder learns MNIST, and classifiers use its codes.

Trains 784-128-64-12-3 and its mirror for ten epochs, and shows five test images over their
reconstructions after each epoch. Then compares classifiers on the three codes and on three
components of PCA.

    python examples/mnist_features.py --data mnist.npz
    python examples/mnist_features.py --dataset FashionMNIST --root data --download
"""

import argparse
import time
from pathlib import Path

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from aefeatures import AutoencoderTransformer, ReconstructionDisplay, load_images


def load(args):
    """X_train, y_train, X_test, y_test; rows of uint8 pixels."""
    if args.data:
        with np.load(args.data) as data:
            X_train, y_train, X_test, y_test = (
                data[name] for name in ("X_train", "y_train", "X_test", "y_test")
            )
        return X_train.reshape(len(X_train), -1), y_train, X_test.reshape(len(X_test), -1), y_test
    from torchvision import datasets

    dataset = getattr(datasets, args.dataset)
    train, test = (
        load_images(dataset(args.root, train=train, download=args.download))
        for train in (True, False)
    )
    return *train, *test


def save_picture(originals, snapshots, path):
    """Save the originals over their reconstructions, with a pair of rows for each epoch."""
    import matplotlib as mpl

    mpl.use("agg")
    side = round(originals.shape[1] ** 0.5)
    display = ReconstructionDisplay(originals, np.stack(snapshots), image_shape=(side, side)).plot()
    path.parent.mkdir(parents=True, exist_ok=True)
    display.figure_.savefig(path, dpi=90)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="a .npz with X_train, y_train, X_test, y_test")
    source.add_argument("--dataset", choices=["MNIST", "FashionMNIST", "KMNIST"])
    parser.add_argument("--root", type=Path, default=Path("data"), help="torchvision's folder")
    parser.add_argument("--download", action="store_true", help="download missing files")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("output/mnist.png"))
    args = parser.parse_args()
    if args.dataset and not (args.download or (args.root / args.dataset).exists()):
        parser.error(f"{args.root / args.dataset} does not exist; add --download to fetch it")
    X_train, y_train, X_test, y_test = load(args)

    # The lecture's loop: train an epoch, look at five reconstructions.
    # Evenly spaced, since some copies of the data are sorted by class.
    viewed, pictures = X_test[np.linspace(0, len(X_test) - 1, 5, dtype=int)], []
    transformer = AutoencoderTransformer.from_preset("lecture", random_state=args.seed)
    for epoch in range(1, args.epochs + 1):
        transformer.partial_fit(X_train)
        pictures.append(transformer.reconstruct(viewed))
        print(f"[Epoch {epoch}] loss {transformer.loss_:.5f}", flush=True)
    save_picture(viewed, pictures, args.output)
    print(f"Pictures of every epoch: {args.output.resolve()}\n")

    # The same network with the default schedule, the usual way to train it for its codes.
    start = time.perf_counter()
    transformer = AutoencoderTransformer(max_epochs=args.epochs, random_state=args.seed)
    codes_train = transformer.fit_transform(X_train)
    seconds = time.perf_counter() - start
    codes_test = transformer.transform(X_test)
    error = (((X_test - transformer.reconstruct(X_test)) / 255) ** 2).mean()
    print(
        f"AutoencoderTransformer(): {transformer.n_iter_} epochs on {transformer.device_} in "
        f"{seconds:.1f} s, test MSE of pixels in [0, 1] {error:.4f}"
    )
    pca = PCA(3, random_state=0).fit(X_train)
    features = {
        "3 codes": (codes_train, codes_test),
        "PCA, 3": (pca.transform(X_train), pca.transform(X_test)),
    }
    classifiers = {
        "KNN(15)": KNeighborsClassifier(15),
        "linear SVM": make_pipeline(StandardScaler(), LinearSVC()),
        "RBF SVM": make_pipeline(StandardScaler(), SVC()),
        "logistic regression": make_pipeline(StandardScaler(), LogisticRegression()),
    }
    print(f"\n{'test accuracy':<22}" + "".join(f"{name:>10}" for name in features))
    for name, classifier in classifiers.items():
        scores = [
            classifier.fit(train, y_train).score(test, y_test) for train, test in features.values()
        ]
        print(f"{name:<22}" + "".join(f"{score:>10.3f}" for score in scores), flush=True)


if __name__ == "__main__":
    main()
