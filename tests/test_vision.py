import pickle
import re
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from torch.utils.data import ConcatDataset, Subset

from aefeatures import AutoencoderTransformer, RowView, load_images

torchvision = pytest.importorskip("torchvision")
from PIL import Image  # noqa: E402
from torchvision.transforms import v2  # noqa: E402

datasets, transforms = torchvision.datasets, torchvision.transforms


def slowly(dataset):
    """X as indexing gives it."""
    return load_images([dataset[i] for i in range(len(dataset))])


@pytest.mark.parametrize("transform", [None, transforms.ToTensor()])
def test_mnist_format(mnist_root, digits, transform):
    dataset = datasets.MNIST(mnist_root, train=True, transform=transform)
    X, y = load_images(dataset)
    assert X.dtype == np.uint8
    assert X.shape == (len(digits[0]), 784)
    np.testing.assert_array_equal(y, digits[2])
    np.testing.assert_array_equal(
        X[0].reshape(28, 28)[3:26:3, 3:26:3], digits[0][0].reshape(8, 8) * 15
    )
    np.testing.assert_array_equal(X, slowly(dataset)[0])


def test_other_transforms_are_applied(mnist_root):
    flip = transforms.Compose([transforms.RandomHorizontalFlip(p=1.0), transforms.ToTensor()])
    plain = load_images(datasets.MNIST(mnist_root, train=False))[0]
    flipped = load_images(datasets.MNIST(mnist_root, train=False, transform=flip))[0]
    np.testing.assert_array_equal(
        flipped.reshape(-1, 28, 28), plain.reshape(-1, 28, 28)[:, :, ::-1]
    )


def test_target_transform_is_applied(mnist_root, digits):
    dataset = datasets.MNIST(mnist_root, target_transform=lambda label: label + 100)
    np.testing.assert_array_equal(load_images(dataset)[1], digits[2] + 100)


@pytest.mark.parametrize("transform", [None, transforms.ToTensor()])
def test_colours_are_flattened_channel_first(transform):
    dataset = datasets.FakeData(size=4, image_size=(3, 5, 6), transform=transform)
    X, y = load_images(dataset)
    assert X.shape == (4, 90)
    assert X.dtype == np.uint8
    image = np.asarray(datasets.FakeData(size=4, image_size=(3, 5, 6))[2][0])
    np.testing.assert_array_equal(X[2].reshape(3, 5, 6), image.transpose(2, 0, 1))
    assert y.shape == (4,)


# Files of torchvision's classes, each of which keeps images and labels in its own way


def idx_files(folder, prefix, images, labels):
    folder.mkdir(parents=True, exist_ok=True)
    header = struct.pack(">IIII", 0x803, *images.shape)
    (folder / f"{prefix}-images-idx3-ubyte").write_bytes(header + images.tobytes())
    header = struct.pack(">II", 0x801, len(labels))
    (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())


def fashion_mnist(root, images, labels):
    for part in ("t10k", "train"):
        idx_files(root / "FashionMNIST" / "raw", part, images[..., 0], labels)
    return datasets.FashionMNIST(root)


def emnist(root, images, labels):
    idx_files(root / "EMNIST" / "raw", "emnist-letters-train", images[..., 0], labels)
    return datasets.EMNIST(root, "letters")


def cifar10(root, images, labels):
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for i in range(5):
        rows = images[i::5].transpose(0, 3, 1, 2).reshape(-1, 3072)
        part = {"data": rows, "labels": labels[i::5].tolist()}
        (folder / f"data_batch_{i + 1}").write_bytes(pickle.dumps(part))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": []}))
    return datasets.CIFAR10(root)


def svhn(root, images, labels):
    savemat(root / "train_32x32.mat", {"X": images.transpose(1, 2, 3, 0), "y": labels[:, None]})
    return datasets.SVHN(root)


def stl10(root, images, labels):
    folder = root / "stl10_binary"
    folder.mkdir()
    images = images.repeat(3, axis=1).repeat(3, axis=2)  # 96 x 96
    (folder / "train_X.bin").write_bytes(images.transpose(0, 3, 2, 1).tobytes())
    (folder / "train_y.bin").write_bytes((labels + 1).astype(np.uint8).tobytes())
    return datasets.STL10(root)


def image_folder(root, images, labels):
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = root / f"class {label}"
        folder.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"{i:05d}.png")
    return datasets.ImageFolder(root)


def flowers(root, images, labels):
    folder = root / "flowers-102"
    (folder / "jpg").mkdir(parents=True)
    for i, image in enumerate(images, 1):
        Image.fromarray(image).save(folder / "jpg" / f"image_{i:05d}.jpg", format="PNG")
    savemat(folder / "setid.mat", {"trnid": np.arange(len(images), 0, -1)})
    savemat(folder / "imagelabels.mat", {"labels": labels + 1})
    return datasets.Flowers102(root)


def gtsrb(root, images, labels):
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = root / "gtsrb" / "GTSRB" / "Training" / f"{label:05d}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i:05d}.ppm")
    return datasets.GTSRB(root)


def dtd(root, images, labels):
    folder = root / "dtd" / "dtd"
    (folder / "labels").mkdir(parents=True)
    lines = []
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / "images" / f"c{label}").mkdir(parents=True, exist_ok=True)
        lines.append(f"c{label}/{i}.jpg")
        Image.fromarray(image).save(folder / "images" / lines[-1], format="PNG")
    (folder / "labels" / "train1.txt").write_text("\n".join(lines))
    return datasets.DTD(root)


ARRAYS = [fashion_mnist, emnist, cifar10]
OTHERS = [svhn, stl10, image_folder, flowers, gtsrb, dtd]


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Make a dataset of 20 colour images of 32 x 32."""
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    for kind in (datasets.CIFAR10, datasets.SVHN, datasets.STL10, datasets.Flowers102):
        monkeypatch.setattr(kind, "_check_integrity", lambda self: True)

    def make(kind):
        images = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
        return kind(tmp_path, images, np.repeat(np.arange(4, dtype=np.uint8), 5) + 1)

    return make


def count_decoded(dataset, monkeypatch):
    """The positions that are asked of the dataset from now on."""
    asked, get = [], type(dataset).__getitem__

    def look(self, index):
        asked.append(index)
        return get(self, index)

    monkeypatch.setattr(type(dataset), "__getitem__", look)
    return asked


@pytest.mark.parametrize("kind", ARRAYS + OTHERS)
def test_every_dataset_eagerly_and_lazily(kind, make, monkeypatch):
    dataset = make(kind)
    X, y = slowly(dataset)
    assert y.dtype.kind in "iu"
    asked = count_decoded(dataset, monkeypatch)
    lazy, lazy_y = load_images(dataset, lazy=True)
    assert len(asked) <= 6
    assert isinstance(lazy, np.ndarray) == (kind in ARRAYS)
    eager, eager_y = load_images(dataset)
    assert len(asked) <= 32
    for rows, labels in ((lazy, lazy_y), (eager, eager_y)):
        assert (rows.shape, rows.dtype) == (X.shape, np.uint8)
        np.testing.assert_array_equal(np.asarray(rows), X)
        np.testing.assert_array_equal(labels, y)
    dataset.target_transform = lambda label: f"label {label}"
    np.testing.assert_array_equal(load_images(dataset, lazy=True)[1], [f"label {k}" for k in y])


def test_lazy_rows_are_read_like_those_of_an_array(make, monkeypatch):
    dataset = make(image_folder)
    X, y = load_images(dataset)
    rows, _ = load_images(dataset, lazy=True, n_jobs=3)
    assert len(rows) == 20
    assert rows.image_shape == (3, 32, 32)
    mask = np.arange(20) % 3 == 0
    asked = count_decoded(dataset, monkeypatch)
    for index in (
        3,
        -1,
        slice(4, 9),
        slice(None, None, -3),
        [5, 2, 2],
        np.array([-1, 0]),
        mask,
        mask[:0] * 1,
        [],
    ):
        del asked[:]
        np.testing.assert_array_equal(rows[index], X[index])
        assert len(asked) == X[index].size // X.shape[1]
    for index in ([1.5], mask[1:], [[1]], "a"):
        with pytest.raises(
            IndexError, match="Rows are chosen by a slice, integers or a mask of 20"
        ):
            rows[index]
    with pytest.raises(IndexError, match="out of range"):
        rows[20]
    np.testing.assert_array_equal(rows[:, [9, 2]], X[:, [9, 2]])
    pipeline = make_pipeline(MinMaxScaler(), KNeighborsClassifier(1))
    expected = cross_val_score(pipeline, X, y, cv=2)
    np.testing.assert_array_equal(cross_val_score(pipeline, rows, y, cv=2), expected)
    np.testing.assert_array_equal(cross_val_score(pipeline, RowView(rows), y, cv=2), expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(rows))[:], X)


def test_images_of_all_sizes_with_a_transform(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(6):
        folder = tmp_path / f"{i % 2}"
        folder.mkdir(exist_ok=True)
        image = rng.integers(0, 256, (10 + i, 20 - i, 3), np.uint8)
        Image.fromarray(image).save(folder / f"{i}.png")
    plain = datasets.ImageFolder(tmp_path)
    lazy, y = load_images(plain, lazy=True, n_jobs=2)
    np.testing.assert_array_equal(y, [0, 0, 0, 1, 1, 1])
    with pytest.raises(ValueError, match=r"image \d \(.*png\) has .* Give the dataset a tran"):
        lazy[:2]
    with pytest.raises(ValueError, match=r"image \d \(.*png\) has .* Give the dataset a tran"):
        AutoencoderTransformer().fit(lazy)
    for transform in (
        transforms.Resize((8, 8)),
        transforms.Compose([transforms.CenterCrop(8), transforms.ToTensor()]),
        v2.Compose([v2.ToImage(), v2.Resize((8, 8)), v2.ToDtype(torch.float32, scale=True)]),
    ):
        dataset = datasets.ImageFolder(tmp_path, transform=transform)
        lazy, y = load_images(dataset, lazy=True)
        assert lazy.shape == (6, 192)
        np.testing.assert_array_equal(lazy[:], slowly(dataset)[0])


def test_parts_and_sums_of_datasets_keep_labels(make, monkeypatch):
    dataset = make(gtsrb)
    both = ConcatDataset([Subset(dataset, [7, 3, 15]), dataset])
    X, y = slowly(dataset)
    asked = count_decoded(dataset, monkeypatch)
    rows, labels = load_images(both, lazy=True)
    assert len(asked) < 8
    np.testing.assert_array_equal(labels, np.r_[y[[7, 3, 15]], y])
    np.testing.assert_array_equal(rows[:5], X[[7, 3, 15, 0, 1]])


def test_labels_that_are_not_kept_are_read():
    dataset = datasets.FakeData(size=9, image_size=(3, 4, 5))
    rows, y = load_images(dataset, lazy=True)
    np.testing.assert_array_equal(y, slowly(dataset)[1])
    np.testing.assert_array_equal(rows[:], slowly(dataset)[0])
    assert len(np.unique(y)) > 1

    class Misleading(list):
        targets = (0, 0, 1, 1, 9)  # other than what indexing gives
        samples = ("a", 0, 0, 0, 0)

    image = np.zeros((2, 2), np.uint8)
    pairs = Misleading((image, label) for label in (0, 0, 1, 1, 1))
    np.testing.assert_array_equal(load_images(pairs, lazy=True)[1], [0, 0, 1, 1, 1])


@pytest.mark.filterwarnings("ignore:.*learned nothing")  # from noise
@pytest.mark.parametrize("resident", [True, False])
def test_a_fit_on_files_is_that_on_the_array(make, monkeypatch, resident):
    dataset = make(image_folder)
    rows, y = load_images(dataset, lazy=True, n_jobs=2)
    X, _ = load_images(dataset)
    if not resident:
        monkeypatch.setattr("aefeatures._rows.batches._RESIDENT_BYTES", 0)
        monkeypatch.setattr("aefeatures._rows.batches._BLOCK_ELEMENTS", X.shape[1] * 4)
    transformer = AutoencoderTransformer.from_preset(
        "images", regularizer="supervised", max_epochs=3, batch_size=4, random_state=0
    )
    expected = clone(transformer).fit(X, y)
    asked = count_decoded(dataset, monkeypatch)
    transformer.fit(rows, y)
    # Once for the scaling; in each epoch or once for all of them; a few, looked at on the way.
    assert 20 * (2 if resident else 4) <= len(asked) <= 20 * (3 if resident else 7) + 1
    for method in ("transform", "reconstruct", "score_samples"):
        np.testing.assert_array_equal(
            getattr(transformer, method)(rows), getattr(expected, method)(X)
        )


def test_memory_stays_flat(monkeypatch):
    """Of 50 MB of images, which are made when they are read, a part is held at a time."""
    monkeypatch.setattr("aefeatures._rows.batches._RESIDENT_BYTES", 0)

    class Shades:
        targets = np.arange(3_000) % 10
        decoded = 0

        def __len__(self):
            return len(self.targets)

        def __getitem__(self, i):
            self.decoded += 1
            return np.full((128, 128), i % 251, np.uint8), self.targets[i]

    dataset = Shades()
    tracemalloc.start()
    rows, _ = load_images(dataset, lazy=True)
    assert dataset.decoded <= 6
    transformer = AutoencoderTransformer(hidden_layer_sizes=(8,), max_epochs=1, random_state=0)
    transformer.fit(rows).transform(rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < rows.shape[0] * rows.shape[1] / 2


def test_images_with_a_palette_are_coloured():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8))
    image = image.convert("P", palette=Image.Palette.ADAPTIVE, colors=3)
    X, _ = load_images([(image, 0)])
    np.testing.assert_array_equal(
        X, np.asarray(image.convert("RGB")).transpose(2, 0, 1).reshape(1, -1)
    )


def test_deep_images_are_read_as_the_error_advises():
    pixels = np.random.default_rng(0).integers(0, 2**16, (4, 4), np.uint16)
    image = Image.fromarray(pixels)
    with pytest.raises(ValueError, match=r"image 0 is uint16 .* a transform that divides by the"):
        load_images([(image, 0)])
    X, _ = load_images([(np.asarray(image) / 65535, 0)])
    np.testing.assert_allclose(X[0], pixels.ravel() / 257, atol=0.5)


def test_bad_datasets():
    image = np.zeros((4, 4), np.uint8)
    with pytest.raises(ValueError, match="no images"):
        load_images([])
    with pytest.raises(ValueError, match=r"image 1 has shape \(3, 4\), image 0 has \(4, 4\)"):
        load_images([(image, 0), (image[:3], 0)])
    with pytest.raises(ValueError, match=r"image 0 is float64 in \[-1, 2\]"):
        load_images([(np.array([[-1.0, 2.0]]), 0)])
    with pytest.raises(TypeError, match=r"a pair \(image, label\), got a ndarray\."):
        load_images([image])
    with pytest.raises(TypeError, match=r"a pair \(image, label\), got a tuple of 3\."):
        load_images([(image, image, 1)])


@pytest.mark.parametrize("path", ["pictures", Path("pictures"), b"pictures"])
def test_paths_are_no_datasets(path):
    line = r"torchvision.datasets.ImageFolder\(b?'pictures', transform=.*Resize\(\(32, 32\)\)\)"
    with pytest.raises(TypeError, match=f"takes a dataset, got the path b?'pictures'.* by {line}"):
        load_images(path)


def test_what_has_no_items_by_position(make):
    loader = torch.utils.data.DataLoader(make(image_folder))
    for dataset, name in ((loader, "DataLoader"), (iter([]), "list_iterator"), (3, "int")):
        with pytest.raises(
            TypeError, match=rf"by position, got a {name}\. Instead of a DataLoader, pass"
        ):
            load_images(dataset)


def of_many_sizes(dataset):
    dataset.transform = lambda image: np.asarray(image)[: 10 + image.getpixel((0, 0))[0] % 20]
    return dataset


def of_high_numbers(dataset):
    dataset.transform = lambda image: np.asarray(image, np.float32)
    return dataset


@pytest.mark.parametrize("change", [of_many_sizes, of_high_numbers])
@pytest.mark.parametrize("kind", [image_folder, flowers, gtsrb, dtd])
def test_errors_name_the_file(kind, change, make):
    dataset = change(make(kind))
    paths = [
        str(entry[0] if isinstance(entry, tuple) else entry)
        for entry in next(
            vars(dataset)[name]
            for name in ("samples", "_image_files", "_samples")
            if name in vars(dataset)
        )
    ]
    for parts in (
        dataset,
        Subset(dataset, [7, 3, 15]),
        ConcatDataset([Subset(dataset, [5]), dataset]),
    ):
        with pytest.raises(ValueError, match=r"image \d \(.*\)") as caught:
            load_images(parts)
        found = re.findall(r"image (\d+) \((.*?)\)", str(caught.value))
        assert found
        for i, path in found:
            item = parts[int(i)][0]
            assert path in paths
            np.testing.assert_array_equal(item, dataset[paths.index(path)][0])


# Labels that a dataset keeps, beside those that indexing gives


def relabelled(dataset):
    """By code of its user's, in one place that a look at a few would not find."""

    class Relabelled(type(dataset)):
        def __getitem__(self, i):
            image, label = super().__getitem__(i)
            return image, label + 1 if i == 7 else label

    dataset.__class__ = Relabelled
    return dataset


def edited(dataset):
    """In the list that most read, which is not the one that is read here."""
    dataset.targets = [*dataset.targets[:7], dataset.targets[7] + 1, *dataset.targets[8:]]
    return dataset


class RelabelledPart(Subset):
    def __getitem__(self, i):
        image, label = super().__getitem__(i)
        return image, label + 1 if i == 7 else label

    def __getitems__(self, positions):
        return [self[i] for i in positions]


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        *[
            (kind, relabelled)
            for kind in (fashion_mnist, cifar10, svhn, image_folder, flowers, gtsrb)
        ],
        (image_folder, edited),
        (fashion_mnist, lambda dataset: RelabelledPart(dataset, range(20))),
        (image_folder, lambda dataset: RelabelledPart(dataset, range(20))),
        (gtsrb, lambda dataset: ConcatDataset([relabelled(dataset)])),
        (cifar10, lambda dataset: Subset(relabelled(dataset), range(20))),
    ],
)
def test_labels_are_those_of_indexing_or_an_error(kind, change, make):
    """Never other ones in silence; without `lazy` always the right ones."""
    dataset = change(make(kind))
    expected = np.array([label for _, label in dataset])
    np.testing.assert_array_equal(load_images(dataset)[1], expected)
    X, y = load_images(dataset, lazy=True)
    if not np.array_equal(y, expected):
        wrong = r"image 7 (\(.*\) )?has the label \d, but \d among the labels.*Use lazy=False"
        with pytest.raises(ValueError, match=wrong):
            X[:]
        np.testing.assert_array_equal(X[8:10], load_images(dataset)[0][8:10])


def test_images_are_those_of_indexing(make):
    dataset = make(cifar10)

    class Inverted(type(dataset)):
        def __getitem__(self, i):
            image, label = super().__getitem__(i)
            return 255 - np.asarray(image) if i == 7 else image, label

    plain, _ = load_images(dataset)
    dataset.__class__ = Inverted
    for lazy in (False, True):
        X = np.asarray(load_images(dataset, lazy=lazy)[0])
        np.testing.assert_array_equal(X[7], 255 - plain[7])
        np.testing.assert_array_equal(np.delete(X, 7, 0), np.delete(plain, 7, 0))


def test_a_fit_on_labels_that_are_wrong_is_an_error(make):
    X, y = load_images(relabelled(make(image_folder)), lazy=True, n_jobs=2)
    transformer = AutoencoderTransformer(regularizer="supervised", max_epochs=1)
    with pytest.raises(
        ValueError, match=r"image 7 \(.*png\) has the label 2, but 1 among the labels"
    ):
        transformer.fit(X, y)
