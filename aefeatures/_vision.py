"""Images of torchvision's datasets as rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def load_images(dataset: Any) -> tuple[np.ndarray, np.ndarray]:
    """Turn a torchvision dataset of images into a matrix and its labels.

    Parameters
    ----------
    dataset : torchvision.datasets.VisionDataset
        Or any sequence of (image, label), the image as PIL gives it or as a tensor of
        shape (channels, height, width). All images must have the same size.

    Returns
    -------
    X : ndarray of shape (n_samples, n_features), dtype uint8
        One image per row, flattened channel first. A transform that gives floats in [0, 1],
        as `ToTensor` does, is turned back into uint8.
    y : ndarray of shape (n_samples,)

    Raises
    ------
    ValueError
        If the dataset is empty, or its images differ in size or are not in [0, 1].

    Examples
    --------
    >>> from aefeatures import load_images
    >>> dataset = [(np.zeros((28, 28), dtype=np.uint8), digit) for digit in (3, 8)]
    >>> X, y = load_images(dataset)
    >>> X.shape, y
    ((2, 784), array([3, 8]))
    """
    if _gives_stored_images(dataset):
        images = np.asarray(dataset.data)
        if images.ndim == 4:  # (n, height, width, channels), as CIFAR's
            images = images.transpose(0, 3, 1, 2)
        return images.reshape(len(images), -1), np.asarray(dataset.targets)
    rows, labels, first = [], [], None
    for i in range(len(dataset)):
        image, label = dataset[i]
        array = _channels_first(image)
        first = array.shape if first is None else first
        if array.shape != first:
            raise ValueError(
                f"All images must have the same size: image {i} has shape {array.shape}, image 0 "
                f"has {first}. Give the dataset a transform that resizes."
            )
        rows.append(_to_uint8(array, i).ravel())
        labels.append(label)
    if not rows:
        raise ValueError("The dataset has no images.")
    return np.stack(rows), np.asarray(labels)


def _gives_stored_images(dataset: Any) -> bool:
    """Whether `.data` and `.targets` hold just what indexing gives, many times faster."""
    if not (hasattr(dataset, "data") and hasattr(dataset, "targets")):
        return False
    if getattr(dataset, "target_transform", None) is not None or len(dataset.data) == 0:
        return False
    if np.asarray(dataset.data[0]).dtype != np.uint8:
        return False
    transform = getattr(dataset, "transform", None)
    if transform is None:
        return True
    from torchvision.transforms import ToTensor

    return isinstance(transform, ToTensor)


def _channels_first(image: Any) -> np.ndarray:
    if isinstance(image, torch.Tensor):
        return image.detach().cpu().numpy()
    array = np.asarray(image)
    return array.transpose(2, 0, 1) if array.ndim == 3 else array


def _to_uint8(image: np.ndarray, i: int) -> np.ndarray:
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind == "b":
        return image.astype(np.uint8) * np.uint8(255)
    if image.dtype.kind == "f" and image.min() >= 0 and image.max() <= 1:
        return np.rint(image * 255).astype(np.uint8)
    raise ValueError(
        f"Images must be uint8 or floats in [0, 1], but image {i} is {image.dtype} in "
        f"[{image.min():g}, {image.max():g}]. Leave normalization to the transformer's scaling."
    )
