import numpy as np
import pytest

from aefeatures import load_images

torchvision = pytest.importorskip("torchvision")
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


def test_stored_colours_are_flattened_channel_first():
    class Stored(list):
        data = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
        targets = (1, 0)

    X, y = load_images(Stored())
    np.testing.assert_array_equal(X[1].reshape(3, 4, 5), Stored.data[1].transpose(2, 0, 1))
    np.testing.assert_array_equal(y, [1, 0])


def test_bad_datasets():
    image = np.zeros((4, 4), np.uint8)
    with pytest.raises(ValueError, match="no images"):
        load_images([])
    with pytest.raises(ValueError, match=r"image 1 has shape \(3, 4\), image 0 has \(4, 4\)"):
        load_images([(image, 0), (image[:3], 0)])
    with pytest.raises(ValueError, match=r"image 0 is float64 in \[-1, 2\]"):
        load_images([(np.array([[-1.0, 2.0]]), 0)])
