"""Pickles and skops files from before the modules moved into folders."""

import pickle
import warnings

import make_models
import numpy as np
import pytest
from sklearn.datasets import load_digits

import aefeatures
from aefeatures import AutoencoderTransformer
from aefeatures._moved import _MODULES, first_name

X, Y = (part[:200] for part in load_digits(return_X_y=True))
PICKLES = sorted(make_models.FOLDER.glob("moved_*.pkl"))


def read(path, load):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*Trying to unpickle estimator")
        return load(path)


@pytest.mark.parametrize("path", PICKLES, ids=lambda path: path.stem)
def test_pickles_give_the_codes_they_gave(path):
    loaded = read(path, lambda path: pickle.loads(path.read_bytes()))
    codes = np.load(path.with_suffix(".npy"))
    np.testing.assert_allclose(loaded.transform(X[:10]), codes, rtol=1e-5, atol=1e-6)
    assert loaded.partial_fit(X, Y).n_iter_ == 4
    again = pickle.loads(pickle.dumps(loaded))
    np.testing.assert_array_equal(again.transform(X), loaded.transform(X))


def test_skops_files_give_the_codes_they_gave():
    io = pytest.importorskip("skops.io", reason="needs skops")
    path = make_models.FOLDER / "moved_dense.skops"
    names = io.get_untrusted_types(file=path)
    assert "aefeatures._scaling.Scaling" in names
    loaded = read(path, lambda path: io.load(path, trusted=names))
    codes = np.load(path.with_name("moved_dense.npy"))
    np.testing.assert_allclose(loaded.transform(X[:10]), codes, rtol=1e-5, atol=1e-6)


def test_there_is_a_pickle_for_each_kind_of_network():
    assert {"dense", "images", "components", "supervised", "neighbors", "frozen"} == {
        path.stem.removeprefix("moved_") for path in PICKLES
    }


@pytest.mark.parametrize("old", sorted(_MODULES))
def test_modules_are_known_by_their_first_name(old):
    for new in _MODULES[old]:
        assert first_name(f"aefeatures.{new}") == f"aefeatures.{old}"
    name = AutoencoderTransformer.__module__
    assert first_name(name) == name


def test_public_classes_of_old_modules_resolve():
    regularizers = [
        name for name in aefeatures.__all__ if hasattr(getattr(aefeatures, name), "penalty")
    ]
    for module, names in {
        "_batches": ["RowView"],
        "_checkpoint": ["Checkpoint"],
        "_networks": ["DenseNetwork", "ConvNetwork", "FillMissing", "Projection", "Cost"],
        "_regularizers": regularizers,
        "_scaling": ["Scaling"],
    }.items():
        found = __import__(f"aefeatures.{module}", fromlist=names)
        for name in names:
            assert getattr(found, name).__name__ == name
