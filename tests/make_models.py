"""Write the models of each format that `test_persistence.py` loads for ever.

`python tests/make_models.py`, once for every format that is released; files that are there are
left as they are. Models of numbers have format 1, models of tables format 2. Beside each model are
the codes that it gave for its first rows. `moved_*` are pickles, and a file of skops, from before
the modules moved into folders. They were written with the lowest versions, as NumPy 1 does not read
pickles of NumPy 2.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
from sklearn.datasets import load_digits

from aefeatures import AutoencoderTransformer, ConvNetwork, Variational, _files

FOLDER = Path(__file__).parent / "data"
SMALL = {"hidden_layer_sizes": (6,), "max_epochs": 3, "random_state": 0}
MODELS = {
    "dense": SMALL,
    "missing": {**SMALL, "normalization": "batch", "early_stopping": True, "scaling": "feature"},
    "images": {**SMALL, "network": ConvNetwork((8, 8), channels=(2, 3)), "precision": "float64"},
    "variational": {**SMALL, "regularizer": ["neighbors", Variational(beta=np.float32(0.5))]},
    "pandas": {**SMALL, "max_categories": 4},
    "polars": {**SMALL, "regularizer": None, "scaling": "feature"},
    "objects": {**SMALL, "categorical_features": [1, 2]},
}
# Names of the models of each format.
FORMATS = {
    1: ("dense", "missing", "images", "variational"),
    2: ("pandas", "polars", "objects"),
}


def table(name):
    """The table that the model `name` was fitted on, in types that all versions have."""
    n = np.arange(120)
    days = np.datetime64("2024-01-01", "us") + n % 90 * np.timedelta64(1, "D")
    known = n % 7 > 0
    towns = np.array(["Zürich", "Bern", "Basel", "Genf", "Chur"])[n * n % 11 % 5].astype(object)
    if name == "objects":
        return np.stack([n / 2, np.where(known, towns, None), n % 4], axis=1, dtype=object)
    columns = {
        "n, größe": np.where(known, np.sin(n), np.nan),
        "town": np.where(n % 5 > 0, towns, None),
        "whole": n % 13,
        "flag": n % 3 == 0,
        "day": days,
        "age": (n % 17 * 1_500_000).astype("timedelta64[us]"),
    }
    sizes = ["small", "middle", "large"]
    if name == "polars":
        size = pl.Series([sizes[i % 2] for i in n], dtype=pl.Enum(sizes))
        return pl.DataFrame(columns | {"town": columns["town"].tolist(), "size": size})
    size = pd.Categorical([sizes[i % 2] for i in n], categories=sizes, ordered=True)
    number = pd.Categorical(n * n % 10)
    frame = pd.DataFrame(columns | {"size": size, "number": number})
    return frame.assign(
        town=pd.Series(columns["town"], dtype=object), day=frame["day"].dt.tz_localize("UTC")
    )


def rows(name):
    """The rows that the model `name` was fitted on: NaN in "missing", named in "variational"."""
    if name in FORMATS[2]:
        return table(name)
    X = load_digits().data[:200]
    if name == "missing":
        X[np.random.default_rng(0).random(X.shape) < 0.1] = np.nan
    if name == "variational":
        return pd.DataFrame(X, columns=[f"pixel {i}, größe" for i in range(64)])
    return X


def write(format_, name):
    """Write the model and the codes of its first rows."""
    stem, X = FOLDER / f"format_{format_}_{name}", rows(name)
    if not stem.with_suffix(".safetensors").exists():
        transformer = AutoencoderTransformer(**MODELS[name]).fit(X)
        transformer.save(stem.with_suffix(".safetensors"))
        np.save(stem.with_suffix(".npy"), transformer.transform(X[:10]))


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for format_, names in FORMATS.items():
        for name in names:
            write(format_, name)
    newer = FOLDER / "newer.safetensors"
    if not newer.exists():
        _files._NEEDS[1000] = "1000.0.0"
        _files.write_file(newer, {}, {"array": np.zeros(1)}, format_=1000)
