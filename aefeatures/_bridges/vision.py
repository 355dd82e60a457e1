"""Rows from image datasets of torchvision."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, overload

import numpy as np
import torch
from joblib import effective_n_jobs

# Attributes in which datasets keep their labels, or pairs of a file and its label.
_LABEL_ATTRIBUTES = ("targets", "labels", "_labels", "y")
_PAIR_ATTRIBUTES = ("samples", "_samples")
# Attributes in which datasets keep the paths of their files, with or without labels.
_FILE_ATTRIBUTES = (*_PAIR_ATTRIBUTES, "imgs", "_image_files", "_images", "images")


@overload
def load_images(
    dataset: Any, *, lazy: Literal[False] = False, n_jobs: int | None = None
) -> tuple[np.ndarray, np.ndarray]: ...


@overload
def load_images(
    dataset: Any, *, lazy: Literal[True], n_jobs: int | None = None
) -> tuple[Any, np.ndarray]: ...


def load_images(
    dataset: Any, *, lazy: bool = False, n_jobs: int | None = None
) -> tuple[Any, np.ndarray]:
    """Turn a torchvision dataset of images into a matrix and labels.

    Parameters
    ----------
    dataset : torchvision.datasets.VisionDataset
        Dataset, or any sequence of pairs (image, label). An image is a PIL image or a tensor of
        shape (channels, height, width). All images must have the same size; the `transform` of a
        torchvision dataset can resize them. Paths are not supported: use
        `torchvision.datasets.ImageFolder` for a folder of images.
    lazy : bool, default=False
        Whether to decode images only when their rows are read, for datasets larger than memory.
        Methods such as `fit` and `transform` then decode a few batches at a time, again in each
        epoch. The `transform` of the dataset should then not be random. If the dataset keeps its
        labels, as most datasets of torchvision do, y is made from them, and compared with the label
        of each image that is decoded. Otherwise all images are decoded once for y.
    n_jobs : int or None, default=None
        Number of threads that decode images. None means 1, and -1 means all processors. Use more
        than one thread only if the dataset may be read by several threads at once, for example if
        it reads files.

    Returns
    -------
    X : ndarray of shape (n_samples, n_features), dtype uint8
        One image per row, flattened with the channels first. Floats in [0, 1], which `ToTensor`
        gives, become uint8 again. With `lazy`, unless the dataset holds its images in memory, X is
        an object of this shape and dtype whose rows and slices are arrays.
    y : ndarray of shape (n_samples,)
        Labels of the images.

    Raises
    ------
    ValueError
        If the dataset is empty, or if images differ in size or are floats outside of [0, 1]. With
        `lazy`, images except the first are checked when they are read, and an image must have the
        label that the dataset keeps for it.
    TypeError
        If the dataset is a path, or its items are not pairs of an image and a label.

    Examples
    --------
    >>> import numpy as np
    >>> from aefeatures import load_images
    >>> dataset = [(np.zeros((28, 28), dtype=np.uint8), digit) for digit in (3, 8)]
    >>> X, y = load_images(dataset)
    >>> X.shape, y
    ((2, 784), array([3, 8]))

    With `lazy`, an image is decoded when its row is read:

    >>> X, y = load_images(dataset, lazy=True)
    >>> X
    ImageRows(shape=(2, 784), image_shape=(28, 28))
    >>> X[1:].shape
    (1, 784)
    """
    if isinstance(dataset, (str, bytes, os.PathLike)):
        raise TypeError(
            f"load_images takes a dataset, got the path {os.fspath(dataset)!r}. Load a folder with "
            "a subfolder for each class by torchvision.datasets.ImageFolder("
            f"{os.fspath(dataset)!r}, transform=torchvision.transforms.Resize((32, 32)))."
        )
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise TypeError(
            "load_images takes a dataset that has a length and gives its items by position, got "
            f"a {type(dataset).__name__}. Instead of a DataLoader, pass its attribute dataset."
        )
    if len(dataset) == 0:
        raise ValueError("The dataset has no images.")
    stored = _stored_images(dataset)
    if stored is not None and (stored.flags.c_contiguous or not lazy):
        X: Any = stored.reshape(len(stored), -1)
    else:
        X = ImageRows(dataset, n_jobs)
        if not lazy:
            return X.read(range(len(X)))
    y = _stored_labels(dataset)
    if y is None:
        y = np.asarray([_item(dataset, i)[1] for i in range(len(dataset))])
    elif isinstance(X, ImageRows):
        X.labels = y
    return X, y


class ImageRows:
    """Rows of uint8 that hold the images of a dataset, each decoded when it is read.

    Parameters
    ----------
    dataset : sequence of (image, label)
    n_jobs : int or None, default=None
        Number of threads that decode images.

    Attributes
    ----------
    shape, dtype, chunks
        The same attributes as of an h5py dataset, so that `fit` reads the rows in the same way.
    image_shape : tuple of int
        Shape of an image, (channels, height, width) or (height, width).
    labels : ndarray or None
        Expected labels. An image with another label is an error when it is decoded.
    """

    dtype = np.dtype(np.uint8)
    any_order = True  # see `Batches`

    def __init__(self, dataset: Any, n_jobs: int | None = None) -> None:
        self.dataset = dataset
        self.n_jobs = n_jobs
        self.labels: np.ndarray | None = None
        image = _channels_first(_item(dataset, 0)[0])
        self.image_shape = image.shape
        self.shape = (len(dataset), image.size)
        self.chunks = (1, image.size)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"ImageRows(shape={self.shape}, image_shape={self.image_shape})"

    def __getitem__(self, index: Any) -> np.ndarray:
        """Return the rows at an integer, a slice, an array of integers or a mask."""
        if isinstance(index, tuple):
            # scikit-learn reads rows as X[rows, ...] and columns as X[:, columns].
            return self[index[0]] if index[1] is Ellipsis else self[:][index]
        all_positions = range(len(self))
        if isinstance(index, slice):
            return self.read(all_positions[index])[0]
        positions = np.asarray(index)
        if positions.dtype == bool and positions.shape == (len(self),):
            positions = np.flatnonzero(positions)
        if positions.size == 0:
            positions = positions.astype(
                np.intp
            )  # np.asarray([]) is float, but [] is a valid index
        if positions.dtype.kind not in "iu" or positions.ndim > 1:
            raise IndexError(
                f"Rows are chosen by a slice, integers or a mask of {len(self)} rows, got "
                f"{index!r}."
            )
        rows, _ = self.read([all_positions[i] for i in np.atleast_1d(positions).tolist()])
        return rows if positions.ndim else rows[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError(
                "An array of the images is always a copy. Use copy=None, got copy=False."
            )
        return self[:].astype(dtype or self.dtype, copy=False)

    def read(self, positions: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows at `positions`, and their labels."""
        rows = np.empty((len(positions), self.shape[1]), np.uint8)
        labels: list[Any] = [None] * len(positions)
        n_threads = min(effective_n_jobs(self.n_jobs), len(positions))

        def decode(start: int) -> None:
            for k in range(start, len(positions), n_threads):
                rows[k], labels[k] = self._decode(positions[k])

        if n_threads > 1:
            with ThreadPoolExecutor(n_threads) as pool:
                list(pool.map(decode, range(n_threads)))
        elif n_threads == 1:
            decode(0)
        return rows, np.asarray(labels)

    def _decode(self, i: int) -> tuple[np.ndarray, Any]:
        image, label = _item(self.dataset, i)
        array = _channels_first(image)
        if array.shape != self.image_shape:
            raise ValueError(
                f"All images must have the same size: {_image_name(self.dataset, i)} has shape "
                f"{array.shape}, {_image_name(self.dataset, 0)} has {self.image_shape}. Give the "
                "dataset a transform that resizes, as torchvision.transforms.Resize((32, 32))."
            )
        if self.labels is not None and not _equal(label, self.labels[i]):
            raise ValueError(
                f"{_image_name(self.dataset, i)} has the label {label!r}, but "
                f"{self.labels[i].tolist()!r} among the labels that the dataset keeps, which y is "
                "made from. Use lazy=False, which reads the label of every image."
            )
        return _to_uint8(array, self.dataset, i).ravel(), label


def _equal(label: Any, other: Any) -> bool:
    equal = label == other
    return bool(equal) if isinstance(equal, (bool, np.bool_)) else np.array_equal(label, other)


def _item(dataset: Any, i: int) -> tuple[Any, Any]:
    item = dataset[i]
    if not (isinstance(item, (tuple, list)) and len(item) == 2):
        parts = f" of {len(item)}" if isinstance(item, (tuple, list)) else ""
        raise TypeError(
            "Each item of the dataset must be a pair (image, label), got a "
            f"{type(item).__name__}{parts}."
        )
    return item[0], item[1]


def _stored_images(dataset: Any) -> np.ndarray | None:
    """Return the attribute `data`, channels first, if indexing gives the same images."""
    data = getattr(dataset, "data", None)
    if not isinstance(data, (np.ndarray, torch.Tensor)) or len(data) != len(dataset):
        return None
    if not _is_read_by("torchvision", dataset):  # a user's own code may change images
        return None
    transform = getattr(dataset, "transform", None)
    if transform is not None:
        from torchvision.transforms import ToTensor

        if not isinstance(transform, ToTensor):
            return None
    images = np.asarray(data)
    if images.dtype != np.uint8:
        return None
    samples = [
        (i, _to_uint8(_channels_first(_item(dataset, i)[0]), dataset, i))
        for i in {0, len(dataset) - 1}
    ]
    layouts = [images, images.transpose(0, 3, 1, 2)] if images.ndim == 4 else [images]
    for layout in layouts:
        # `ToTensor` gives gray images a channel.
        if all(np.array_equal(layout[i].ravel(), image.ravel()) for i, image in samples):
            return layout
    return None


def _stored_labels(dataset: Any) -> np.ndarray | None:
    """Return the labels that the dataset keeps, if indexing gives the same labels."""
    from torch.utils.data import ConcatDataset, Subset

    if _is_read_by("torch", dataset) and isinstance(dataset, Subset):
        labels = _stored_labels(dataset.dataset)
        return None if labels is None else labels[np.asarray(dataset.indices)]
    if _is_read_by("torch", dataset) and isinstance(dataset, ConcatDataset):
        parts = [_stored_labels(part) for part in dataset.datasets]
        known = [part for part in parts if part is not None]
        return np.concatenate(known) if len(known) == len(parts) else None
    n = len(dataset)
    sampled = {i: np.asarray(_item(dataset, i)[1]) for i in (0, n // 2, n - 1)}
    transform = getattr(dataset, "target_transform", None)
    found: np.ndarray | None = None
    for name in (*_LABEL_ATTRIBUTES, *_PAIR_ATTRIBUTES):
        kept: Any = getattr(dataset, name, None)
        if not hasattr(kept, "__len__") or len(kept) != n:
            continue
        if name in _PAIR_ATTRIBUTES:
            if not (isinstance(kept[0], (tuple, list)) and len(kept[0]) == 2):
                continue
            kept = [pair[1] for pair in kept]
        else:
            kept = np.asarray(kept).tolist()
        labels = np.asarray(kept if transform is None else [transform(label) for label in kept])
        if not all(np.array_equal(labels[i], label) for i, label in sampled.items()):
            continue
        if found is not None and not np.array_equal(found, labels):
            return None  # two attributes disagree, so one was changed
        found = labels
    return found


def _is_read_by(package: str, dataset: Any) -> bool:
    """Return whether the `__getitem__` of the dataset is code of the package."""
    for kind in type(dataset).__mro__:
        if "__getitem__" in vars(kind):
            return kind.__module__.partition(".")[0] == package
    return False


def _image_name(dataset: Any, i: int) -> str:
    """Return the name of an image in an error, with its file if the dataset keeps that."""
    from torch.utils.data import ConcatDataset, Subset

    held: Any = dataset
    k = i
    while isinstance(held, (Subset, ConcatDataset)):
        if isinstance(held, Subset):
            held, k = held.dataset, held.indices[k]
        else:
            part = bisect_right(held.cumulative_sizes, k)
            k -= held.cumulative_sizes[part - 1] if part else 0
            held = held.datasets[part]
    for name in _FILE_ATTRIBUTES:
        files = getattr(held, name, None)
        entry = files[k] if isinstance(files, (list, tuple)) and len(files) == len(held) else None
        path = entry[0] if isinstance(entry, (list, tuple)) and entry else entry
        if isinstance(path, (str, os.PathLike)):
            return f"image {i} ({os.fspath(path)})"
    return f"image {i}"


def _channels_first(image: Any) -> np.ndarray:
    if isinstance(image, torch.Tensor):
        return image.detach().cpu().numpy()
    if getattr(image, "mode", None) == "P":  # its values are positions in a palette
        image = image.convert("RGB")
    array = np.asarray(image)
    return array.transpose(2, 0, 1) if array.ndim == 3 else array


def _to_uint8(image: np.ndarray, dataset: Any, i: int) -> np.ndarray:
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind == "b":
        return image.astype(np.uint8) * np.uint8(255)
    if image.dtype.kind == "f" and image.min() >= 0 and image.max() <= 1:
        return np.rint(image * 255).astype(np.uint8)
    raise ValueError(
        f"Images must be uint8 or floats in [0, 1], but {_image_name(dataset, i)} is {image.dtype} "
        f"in [{image.min():g}, {image.max():g}]. Give the dataset a transform that divides by the "
        "largest possible value, and leave normalization to the scaling of the transformer."
    )
