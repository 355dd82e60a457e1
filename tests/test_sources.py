import numpy as np
import pytest
from scipy import sparse

import aefeatures._rows.batches
import aefeatures._rows.sources
from aefeatures import AutoencoderTransformer, RowView
from aefeatures._rows.checks import check_rows
from aefeatures._rows.sources import as_source, evenly_spaced
from aefeatures._train.training import Training

pytestmark = pytest.mark.filterwarnings("ignore:.*learned nothing")

X = np.random.default_rng(0).normal(size=(400, 6))


class File:
    """A dataset in a file that counts the rows that are read."""

    chunks = (10, 6)

    def __init__(self, X):
        self._X, self.shape, self.dtype, self.n_read = X, X.shape, X.dtype, 0

    def __getitem__(self, rows):
        part = self._X[rows]
        self.n_read += len(part)
        return part


class Images(File):
    any_order = True


SOURCES = {
    "array": lambda X: X,
    "matrix": sparse.csr_matrix,
    "file": File,
    "images": Images,
    "view": lambda X: RowView(np.repeat(X, 2, axis=0))[np.arange(0, 2 * len(X), 2)],
    "view of a file": lambda X: RowView(File(X[::-1]))[np.arange(len(X))[::-1]],
}


@pytest.mark.parametrize("kind", sorted(SOURCES))
def test_rows_are_the_same_from_every_source(kind, monkeypatch):
    monkeypatch.setattr(aefeatures._rows.sources, "_CHUNK_ELEMENTS", 50 * 6)
    source = as_source(SOURCES[kind](X))
    assert source.shape == X.shape
    assert source.dtype == X.dtype
    assert as_source(source) is source
    np.testing.assert_array_equal(source.dense(), X)
    np.testing.assert_array_equal(source.read(slice(7, 30)), X[7:30])
    np.testing.assert_array_equal(source.take(np.array([3, 9, 300])), X[[3, 9, 300]])
    order = np.array([300, 3, 3, 9])
    np.testing.assert_array_equal(source.take_in_any_order(order), X[order])
    for chunks in (source.chunks, source.chunks_for_fit):
        chunks = list(chunks())
        assert len(chunks) == 8
        np.testing.assert_array_equal(np.concatenate(chunks), X)
    np.testing.assert_array_equal(source.take(np.arange(400)), X)


def rows_read_before_training(monkeypatch, X, **params):
    file, read = File(X), []
    run = Training.run
    monkeypatch.setattr(Training, "run", lambda self: read.append(file.n_read) or run(self))
    AutoencoderTransformer(max_epochs=1, random_state=0, **params).fit(file)
    return read[0] / len(X)


@pytest.mark.parametrize("n_rows_of_chunk", [10, 1_000])
@pytest.mark.parametrize("kind", ["float64", "float32", "missing", "unit"])
def test_a_file_of_floats_is_read_once_before_the_training(monkeypatch, n_rows_of_chunk, kind):
    """With the statistics, the check for infinity, the axes of PCA, and the variance."""
    monkeypatch.setattr(aefeatures._rows.sources, "_CHUNK_ELEMENTS", n_rows_of_chunk * 6)
    if n_rows_of_chunk == 10:
        monkeypatch.setattr(aefeatures._rows.batches, "_RESIDENT_BYTES", 1)
    rows = X.astype("f4") if kind == "float32" else X / 8 + 0.5 if kind == "unit" else X.copy()
    if kind == "missing":
        rows[::7, 3] = np.nan
    assert rows_read_before_training(monkeypatch, rows) == 1


@pytest.mark.parametrize("kind", [*sorted(set(SOURCES) - {"array", "matrix"}), "whole view"])
def test_infinity_is_an_error_wherever_rows_are_read(monkeypatch, kind):
    monkeypatch.setattr(aefeatures._rows.sources, "_CHUNK_ELEMENTS", 50 * 6)
    rows = X.copy()
    rows[321, 2] = np.inf
    held = RowView(rows) if kind == "whole view" else SOURCES[kind](rows)
    fitted = AutoencoderTransformer(max_epochs=1, random_state=0).fit(X)
    methods = [
        AutoencoderTransformer().fit,
        AutoencoderTransformer().partial_fit,
        fitted.transform,
        fitted.reconstruct,
        fitted.score_samples,
        check_rows(fitted, held, reset=False).dense,
    ]
    for method in methods:
        with pytest.raises(ValueError, match="Input X contains infinity"):
            method() if method == methods[-1] else method(held)


def test_samples_that_are_kept_are_dropped_when_the_training_reads_other_rows(monkeypatch):
    monkeypatch.setattr(aefeatures._rows.sources, "_CHUNK_ELEMENTS", 50 * 6)
    monkeypatch.setattr(aefeatures._rows.sources, "SOME_ROWS", 20)
    monkeypatch.setattr(aefeatures._rows.sources, "_MANY_ELEMENTS", 40 * 6)
    file = File(X)
    source = as_source(file)
    list(source.chunks_for_fit())
    sample = evenly_spaced(400, 40)
    for _ in range(2):
        np.testing.assert_array_equal(source.take(sample), X[sample])
    assert file.n_read == 400
    np.testing.assert_array_equal(source.take(np.array([1, 2, 3])), X[1:4])
    assert file.n_read == 403
    np.testing.assert_array_equal(source.take(sample), X[sample])
    assert file.n_read > 403
