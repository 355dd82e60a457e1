"""Images of torchvision's datasets as rows."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, overload

import numpy as np
import torch
from joblib import effective_n_jobs

# Where datasets keep their labels, or pairs of a file and its label.
_LABELS = ("targets", "labels", "_labels", "y")
_PAIRS = ("samples", "_samples")
# Where they keep the paths of their files, alone or each with its label.
_FILES = (*_PAIRS, "imgs", "_image_files", "_images", "images")


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
    """Turn a torchvision dataset of images into a matrix and its labels.

    Parameters
    ----------
    dataset : torchvision.datasets.VisionDataset
        Or any sequence of (image, label), the image as PIL gives it or as a tensor of
        shape (channels, height, width). All images must have the same size, for which a dataset
        of torchvision takes a `transform`. Paths are not taken: a folder of images becomes a
        dataset by `torchvision.datasets.ImageFolder`.
    lazy : bool, default=False
        Whether to leave the images where they are, for more of them than memory holds: `fit`,
        `transform` and the like then decode a few batches at a time, anew in each epoch. Its
        `transform` should then not draw at random. y is known at once where the dataset keeps its
        labels as most of torchvision's do, and compared with the label of each image that is
        decoded; otherwise all images are decoded for it.
    n_jobs : int or None, default=None
        Threads that decode images. None is 1, and -1 as many as there are processors. More than
        one is for datasets whose images may be read side by side, as from files.

    Returns
    -------
    X : ndarray of shape (n_samples, n_features), dtype uint8
        One image per row, flattened channel first. A transform that gives floats in [0, 1],
        as `ToTensor` does, is turned back into uint8. With `lazy`, where the dataset does not hold
        its images in memory, an object of this shape and dtype whose rows and slices are arrays.
    y : ndarray of shape (n_samples,)

    Raises
    ------
    ValueError
        If the dataset is empty, or its images differ in size or are not in [0, 1]; with `lazy`,
        of images but the first, when they are read. With `lazy` also if the label of an image that
        is read is not the one that the dataset keeps for it.
    TypeError
        If it is a path, or its items are not pairs of an image and a label.

    Examples
    --------
    >>> import numpy as np
    >>> from aefeatures import load_images
    >>> dataset = [(np.zeros((28, 28), dtype=np.uint8), digit) for digit in (3, 8)]
    >>> X, y = load_images(dataset)
    >>> X.shape, y
    ((2, 784), array([3, 8]))

    Files are read when their rows are asked for:

    >>> X, y = load_images(dataset, lazy=True)
    >>> X
    ImageRows(shape=(2, 784), image_shape=(28, 28))
    >>> X[1:].shape
    (1, 784)
    """
    if isinstance(dataset, (str, bytes, os.PathLike)):
        raise TypeError(
            f"load_images takes a dataset, got the path {os.fspath(dataset)!r}. A folder with a "
            "subfolder for each class becomes one by torchvision.datasets.ImageFolder("
            f"{os.fspath(dataset)!r}, transform=torchvision.transforms.Resize((32, 32)))."
        )
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise TypeError(
            "load_images takes a dataset that has a length and gives its items by position, got "
            f"a {type(dataset).__name__}. Of a DataLoader pass its attribute dataset."
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
    """The images of a dataset as rows of uint8, each decoded when it is read.

    Parameters
    ----------
    dataset : sequence of (image, label)
    n_jobs : int or None, default=None
        Threads that decode.

    Attributes
    ----------
    shape, dtype, chunks
        As of a dataset of h5py, for which `fit` takes it.
    image_shape : tuple of int
        That of the images as arrays, (channels, height, width) or (height, width).
    labels : ndarray or None
        What the label of each image that is decoded has to be.
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
        """Decode one row, those of a slice, at positions, or where a mask is True."""
        if isinstance(index, tuple):
            # scikit-learn takes rows by X[rows, ...], columns by X[:, columns].
            return self[index[0]] if index[1] is Ellipsis else self[:][index]
        every = range(len(self))
        if isinstance(index, slice):
            return self.read(every[index])[0]
        positions = np.asarray(index)
        if positions.dtype == bool and positions.shape == (len(self),):
            positions = np.flatnonzero(positions)
        if positions.size == 0:
            positions = positions.astype(np.intp)  # of [], as NumPy has it
        if positions.dtype.kind not in "iu" or positions.ndim > 1:
            raise IndexError(
                f"Rows are chosen by a slice, integers or a mask of {len(self)} rows, got "
                f"{index!r}."
            )
        rows, _ = self.read([every[i] for i in np.atleast_1d(positions).tolist()])
        return rows if positions.ndim else rows[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("Images cannot become an array without being decoded into one.")
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
                f"All images must have the same size: {_called(self.dataset, i)} has shape "
                f"{array.shape}, {_called(self.dataset, 0)} has {self.image_shape}. Give the "
                "dataset a transform that resizes, as torchvision.transforms.Resize((32, 32))."
            )
        if self.labels is not None and not _equal(label, self.labels[i]):
            raise ValueError(
                f"{_called(self.dataset, i)} has the label {label!r}, but "
                f"{self.labels[i].tolist()!r} among the labels that the dataset keeps, of which y "
                "is made. Use lazy=False, which reads the label of every image."
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
            f"An item of the dataset should be a pair (image, label), got a "
            f"{type(item).__name__}{parts}."
        )
    return item[0], item[1]


def _stored_images(dataset: Any) -> np.ndarray | None:
    """What `.data` holds, channel first, where that is just what indexing gives."""
    data = getattr(dataset, "data", None)
    if not isinstance(data, (np.ndarray, torch.Tensor)) or len(data) != len(dataset):
        return None
    if not _is_read_by("torchvision", dataset):  # code of its user's may give some otherwise
        return None
    transform = getattr(dataset, "transform", None)
    if transform is not None:
        from torchvision.transforms import ToTensor

        if not isinstance(transform, ToTensor):
            return None
    images = np.asarray(data)
    if images.dtype != np.uint8:
        return None
    ends = [
        (i, _to_uint8(_channels_first(_item(dataset, i)[0]), dataset, i))
        for i in {0, len(dataset) - 1}
    ]
    layouts = [images, images.transpose(0, 3, 1, 2)] if images.ndim == 4 else [images]
    for layout in layouts:
        # `ToTensor` gives grey images a channel.
        if all(np.array_equal(layout[i].ravel(), image.ravel()) for i, image in ends):
            return layout
    return None


def _stored_labels(dataset: Any) -> np.ndarray | None:
    """The labels that the dataset keeps, where those are what indexing gives."""
    from torch.utils.data import ConcatDataset, Subset

    if _is_read_by("torch", dataset) and isinstance(dataset, Subset):
        labels = _stored_labels(dataset.dataset)
        return None if labels is None else labels[np.asarray(dataset.indices)]
    if _is_read_by("torch", dataset) and isinstance(dataset, ConcatDataset):
        parts = [_stored_labels(part) for part in dataset.datasets]
        known = [part for part in parts if part is not None]
        return np.concatenate(known) if len(known) == len(parts) else None
    n = len(dataset)
    looked_at = {i: np.asarray(_item(dataset, i)[1]) for i in (0, n // 2, n - 1)}
    transform = getattr(dataset, "target_transform", None)
    found: np.ndarray | None = None
    for name in (*_LABELS, *_PAIRS):
        kept: Any = getattr(dataset, name, None)
        if not hasattr(kept, "__len__") or len(kept) != n:
            continue
        if name in _PAIRS:
            if not (isinstance(kept[0], (tuple, list)) and len(kept[0]) == 2):
                continue
            kept = [pair[1] for pair in kept]
        else:
            kept = np.asarray(kept).tolist()
        labels = np.asarray(kept if transform is None else [transform(label) for label in kept])
        if not all(np.array_equal(labels[i], label) for i, label in looked_at.items()):
            continue
        if found is not None and not np.array_equal(found, labels):
            return None  # one of the two was changed
        found = labels
    return found


def _is_read_by(package: str, dataset: Any) -> bool:
    """Whether it is the package's own code that gives the items of a dataset."""
    for kind in type(dataset).__mro__:
        if "__getitem__" in vars(kind):
            return kind.__module__.partition(".")[0] == package
    return False


def _called(dataset: Any, i: int) -> str:
    """How an error names an image: by its file, too, where the dataset keeps it."""
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
    for name in _FILES:
        files = getattr(held, name, None)
        entry = files[k] if isinstance(files, (list, tuple)) and len(files) == len(held) else None
        path = entry[0] if isinstance(entry, (list, tuple)) and entry else entry
        if isinstance(path, (str, os.PathLike)):
            return f"image {i} ({os.fspath(path)})"
    return f"image {i}"


def _channels_first(image: Any) -> np.ndarray:
    if isinstance(image, torch.Tensor):
        return image.detach().cpu().numpy()
    if getattr(image, "mode", None) == "P":  # its numbers are positions in a palette
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
        f"Images must be uint8 or floats in [0, 1], but {_called(dataset, i)} is {image.dtype} in "
        f"[{image.min():g}, {image.max():g}]. Give the dataset a transform that divides by the "
        "largest value there can be, and leave normalization to the transformer's scaling."
    )
