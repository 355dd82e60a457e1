"""Looks into fitted transformers that several test files share."""

import numpy as np

from aefeatures._nets.networks import plain
from aefeatures._rows.sources import as_source
from aefeatures._train.fitting import split
from aefeatures._train.starting import Data


def heads_of(transformer):
    """What the regularizers of the last training have trained along."""
    return [head for _, head in transformer._memory.heads]


def split_of(transformer, n_rows, y=None):
    """Training and validation rows of a fit on `n_rows` rows."""
    data = Data(as_source(np.empty((n_rows, 1))), y, None, None)
    return split(plain(transformer), data, transformer._model.seed)
