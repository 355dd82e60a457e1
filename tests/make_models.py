"""Write the models of the current format that `test_persistence.py` loads for ever.

`python tests/make_models.py`, once for every format that is released; files that are there are
left as they are. Beside each model are the codes that it gave for the first rows of scikit-learn's
digits. `moved_*` are pickles, and a file of skops, from before the modules moved into folders. They
were written with the lowest versions, as NumPy 1 does not read pickles of NumPy 2.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import load_digits

from aefeatures import AutoencoderTransformer, ConvNetwork, Variational, _files

FOLDER = Path(__file__).parent / "data"
SMALL = {"hidden_layer_sizes": (6,), "max_epochs": 3, "random_state": 0}
MODELS = {
    "dense": SMALL,
    "missing": {**SMALL, "normalization": "batch", "early_stopping": True, "scaling": "feature"},
    "images": {**SMALL, "network": ConvNetwork((8, 8), channels=(2, 3)), "precision": "float64"},
    "variational": {**SMALL, "regularizer": ["neighbors", Variational(beta=np.float32(0.5))]},
}


def digits(name):
    """The rows that the model `name` was fitted on: NaN in "missing", named in "variational"."""
    X = load_digits().data[:200]
    if name == "missing":
        X[np.random.default_rng(0).random(X.shape) < 0.1] = np.nan
    if name == "variational":
        return pd.DataFrame(X, columns=[f"pixel {i}, größe" for i in range(64)])
    return X


def write(name, X, params):
    """Write the model and the codes of its first rows."""
    stem = FOLDER / f"format_{_files.FORMAT}_{name}"
    if not stem.with_suffix(".safetensors").exists():
        transformer = AutoencoderTransformer(**params).fit(X)
        transformer.save(stem.with_suffix(".safetensors"))
        np.save(stem.with_suffix(".npy"), transformer.transform(X[:10]))


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, params in MODELS.items():
        write(name, digits(name), params)
    newer = FOLDER / "newer.safetensors"
    if not newer.exists():
        _files.FORMAT, _files._NEEDS = 1000, "1000.0.0"
        _files.write_file(newer, {}, {"array": np.zeros(1)})
