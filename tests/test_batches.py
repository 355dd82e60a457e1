import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

import aefeatures._rows.batches
import aefeatures._rows.sources
from aefeatures._rows.batches import (
    RowBatches,
    StreamedBatches,
    code_dtype,
    map_chunks,
    to_tensor,
)
from aefeatures._rows.memory import physical_memory
from aefeatures._rows.sources import RowView, as_source

CPU = torch.device("cpu")
X = np.arange(70.0).reshape(10, 7)


def batches(X=X, batch_size=4, scaling=lambda rows: rows / 2, **kwargs):
    return RowBatches(X, scaling, batch_size=batch_size, device=CPU, dtype=torch.float32, **kwargs)


@pytest.fixture(params=["resident", "gathered"])
def residence(request, monkeypatch):
    """Both ways of making batches: from a scaled copy, and from X row by row."""
    if request.param == "gathered":
        monkeypatch.setattr(aefeatures._rows.batches, "_RESIDENT_BYTES", -1)
    return request.param


@pytest.mark.parametrize("batch_size", [1, 3, 4, 10, 1000])
def test_every_row_comes_once_an_epoch(residence, batch_size):
    made = batches(batch_size=batch_size)
    parts = list(made.epoch(np.random.default_rng(0)))
    assert len(parts) == len(made) == -(-10 // min(batch_size, 10))
    rows = torch.cat(parts).numpy()
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows[np.argsort(rows[:, 0])], X / 2)
    assert not np.array_equal(rows, X / 2), "shuffled"


def test_both_residences_give_the_same_batches(monkeypatch):
    resident = list(batches().epoch(np.random.default_rng(3)))
    monkeypatch.setattr(aefeatures._rows.batches, "_RESIDENT_BYTES", -1)
    gathered = list(batches().epoch(np.random.default_rng(3)))
    for a, b in zip(resident, gathered, strict=True):
        assert torch.equal(a, b)


def test_rows_without_rng_come_in_order(residence):
    np.testing.assert_array_equal(torch.cat(list(batches().epoch())), X / 2)


def test_only_the_given_rows_are_used(residence):
    made = batches(rows=np.array([7, 2, 5]))
    assert made.n_rows == 3
    np.testing.assert_array_equal(torch.cat(list(made.epoch())), X[[7, 2, 5]] / 2)
    np.testing.assert_array_equal(made.sample(2), X[[7, 5]] / 2)


def test_sample_is_spread_over_sorted_rows(residence):
    np.testing.assert_array_equal(batches().sample(3), X[[0, 4, 9]] / 2)
    np.testing.assert_array_equal(batches().sample(99), X / 2)


@pytest.mark.parametrize(
    "dtype",
    ["bool", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", ">f8", ">i4"],
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_dtype_and_order(dtype, order, residence):
    rows = np.array([[0, 1], [1, 0], [1, 1]]).astype(dtype, order=order)
    rows.setflags(write=False)
    expected = np.array([[0, 1], [1, 0], [1, 1]]) / 2
    np.testing.assert_array_equal(torch.cat(list(batches(rows).epoch())), expected)
    wide = np.dtype(dtype).kind in "iuf" and np.dtype(dtype).itemsize >= 4 and dtype != "f4"
    assert code_dtype(rows.dtype) == (np.float64 if wide else np.float32)
    assert to_tensor(rows, CPU).dtype == (torch.float64 if wide else torch.float32)


def test_views_with_negative_strides():
    for rows in (X[::-1, ::-2], X[::-1][:1], X[:1, ::-1][:, :1]):
        np.testing.assert_array_equal(to_tensor(rows, CPU), rows)


def test_data_that_does_not_fit_on_the_device_is_streamed(monkeypatch):
    calls = []

    def scaling(rows):
        calls.append(0)
        if len(calls) == 1:
            raise torch.cuda.OutOfMemoryError
        return rows / 2

    with pytest.warns(RuntimeWarning, match="X does not fit into the memory of cpu"):
        made = batches(scaling=scaling)
    np.testing.assert_array_equal(torch.cat(list(made.epoch())), X / 2)


@pytest.fixture
def larger_than_memory(monkeypatch):
    """Memory so small, and blocks so short, that a map of 100 rows is read by blocks."""
    monkeypatch.setattr(aefeatures._rows.sources, "physical_memory", lambda: 1000)
    monkeypatch.setattr(aefeatures._rows.batches, "_RESIDENT_BYTES", -1)
    monkeypatch.setattr(aefeatures._rows.sources, "_CHUNK_ELEMENTS", 4 * 16 * 2)


GIB = 2**30


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        # Version 2: a limit of its own, one of a group around it, and the container's as the root.
        ("0::/a/b\n", {"a/b/memory.max": GIB, "a/memory.max": "max"}, GIB),
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": GIB}, GIB),
        ("0::/a/b\n", {"a/b/memory.max": 2 * GIB, "a/memory.max": GIB}, GIB),
        ("0::/\n", {"memory.max": GIB}, GIB),
        ("0::/../b\n", {"memory.max": GIB}, GIB),
        # Version 1, where other controllers have paths of their own.
        (
            "5:cpu,cpuacct:/x\n4:memory:/docker/a\n0::/\n",
            {
                "memory/docker/a/memory.limit_in_bytes": GIB,
                "memory/x/memory.limit_in_bytes": 1,
                "x/memory.max": 1,
            },
            GIB,
        ),
        ("4:memory:/docker/a\n", {"memory/memory.limit_in_bytes": GIB}, GIB),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": 9223372036854771712}, None),
        # No limit, and no groups at all.
        ("0::/a\n", {"a/memory.max": "max", "b/memory.max": 1}, None),
        ("0::/a\n", {}, None),
        (None, {"memory.max": 1}, None),
    ],
)
def test_memory_is_that_of_the_container(tmp_path, groups, limits, expected):
    if groups is not None:
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(groups)
    for name, limit in limits.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{limit}\n")
    physical_memory.cache_clear()  # the folder may have the name of an earlier one
    machine = physical_memory(str(tmp_path / "empty"))
    assert physical_memory(str(tmp_path)) == min(expected or machine, machine)


def test_maps_larger_than_memory_are_read_by_blocks(tmp_path, larger_than_memory):
    rows = np.repeat(np.arange(101.0)[:, None], 2, axis=1)
    np.save(tmp_path / "X.npy", rows)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    assert as_source(mapped).by_blocks
    assert as_source(np.asarray(mapped)[3:]).by_blocks
    assert not as_source(rows).by_blocks
    assert not as_source(mapped[:10]).by_blocks
    made = batches(mapped)
    parts = list(made.epoch(np.random.default_rng(0)))
    assert len(parts) == len(made) == 26
    seen = torch.cat(parts).numpy()[:, 0] * 2
    np.testing.assert_array_equal(np.sort(seen), rows[:, 0])
    # The blocks of 4 rows are whole within the 16 that are read together, and mixed there.
    together = np.unique(seen[:60] // 4)
    assert len(together) <= 16
    assert np.ptp(together) > 16
    assert np.mean([np.ptp(part.numpy()[:, 0]) * 2 > 10 for part in parts]) > 0.9
    np.testing.assert_array_equal(torch.cat(list(made.epoch())), rows / 2)


@pytest.mark.parametrize("blocks", [False, True])
def test_the_rest_of_an_epoch_is_that_of_the_whole(
    tmp_path, larger_than_memory, monkeypatch, blocks
):
    """Whatever is drawn from the generator while the epoch is under way."""
    monkeypatch.setattr(aefeatures._rows.batches, "_BLOCK_ELEMENTS", 4 * 16 * 2)
    rows = np.repeat(np.arange(101.0)[:, None], 2, axis=1)
    if blocks:
        np.save(tmp_path / "X.npy", rows)
        rows = np.load(tmp_path / "X.npy", mmap_mode="r")
    made = batches(rows)
    rng = np.random.default_rng(0)
    whole = [(part, index, rng.random())[:2] for part, index in made.indexed_epoch(rng)]
    taken = []
    take = made.take
    made.take = lambda index: taken.extend(index) or take(index)
    for n_done in (1, 7, 17, 25):
        skip = sum(len(index) for _, index in whole[:n_done])
        taken.clear()
        rest = list(made.indexed_epoch(np.random.default_rng(0), skip))
        assert len(rest) == len(whole) - n_done
        assert len(taken) < 101 - skip + 64, "rows are not read to be skipped"
        for ours, theirs in zip(rest, whole[n_done:], strict=True):
            assert torch.equal(ours[0], theirs[0])
            np.testing.assert_array_equal(ours[1], theirs[1])


@pytest.mark.parametrize("n_rows", [*range(1, 14), 65, 101, 129])
@pytest.mark.parametrize("batch_size", [2, 3, 4, 64])
@pytest.mark.parametrize("source", ["array", "map", "stream"])
def test_no_row_is_a_batch_alone(tmp_path, larger_than_memory, n_rows, batch_size, source):
    rows = np.repeat(np.arange(1.0 * n_rows)[:, None], 2, axis=1)
    if source == "map":
        np.save(tmp_path / "X.npy", rows)
        made = batches(np.load(tmp_path / "X.npy", mmap_mode="r"), batch_size, no_single_rows=True)
    elif source == "array":
        made = batches(rows, batch_size, no_single_rows=True)
    else:
        made = StreamedBatches(
            lambda: (rows[i : i + 64 * 3] for i in range(0, n_rows, 64 * 3)),
            (n_rows, 2),
            lambda part: part / 2,
            batch_size=batch_size,
            device=CPU,
            dtype=torch.float32,
            no_single_rows=True,
        )
    whole = list(made.indexed_epoch(np.random.default_rng(0)))
    sizes = [len(part) for part, _ in whole]
    assert len(whole) == len(made)
    assert min(sizes) >= min(2, n_rows)
    assert max(sizes) <= max(batch_size, 3)
    seen = torch.cat([part for part, _ in whole]).numpy()[:, 0] * 2
    np.testing.assert_array_equal(np.sort(seen), rows[:, 0])
    if source != "stream":
        for part, index in whole:
            np.testing.assert_array_equal(part, rows[index] / 2)
        for n_done in range(len(whole)):
            skip = sum(sizes[:n_done])
            rest = list(made.indexed_epoch(np.random.default_rng(0), skip))
            assert [len(part) for part, _ in rest] == sizes[n_done:]
            assert all(map(torch.equal, [part for part, _ in rest], [p for p, _ in whole[n_done:]]))


def test_chunks_cover_all_rows(monkeypatch):
    monkeypatch.setattr(aefeatures._rows.sources, "_CHUNK_ELEMENTS", 21)
    assert [len(chunk) for chunk in as_source(X).chunks()] == [3, 3, 3, 1]
    assert [len(chunk) for chunk in as_source(X).chunks(width=100)] == [1] * 10
    assert all(np.shares_memory(chunk, X) for chunk in as_source(X).chunks())


def test_map_chunks_joins_results(monkeypatch):
    monkeypatch.setattr(aefeatures._rows.sources, "_CHUNK_ELEMENTS", 21)

    def doubled(rows):
        return to_tensor(rows, CPU) * 2

    np.testing.assert_array_equal(map_chunks(doubled, as_source(X), 7, width=1), X * 2)
    sums = map_chunks(lambda rows: doubled(rows).sum(dim=1), as_source(X), None, width=1)
    np.testing.assert_array_equal(sums, X.sum(axis=1) * 2)


def test_results_that_are_not_finite_are_an_error():
    rows = np.where(np.arange(10)[:, None] == 6, 1e300, X)
    with pytest.raises(ValueError, match="row 6 is not finite in float64: the row's"):
        map_chunks(lambda rows: to_tensor(rows, CPU).square(), as_source(rows), 7, width=1)


# RowView


def test_folds_of_a_view_are_views(digits):
    X = digits[0]
    view = RowView(X)
    assert view.shape == X.shape == (len(view), 64)
    index = np.array([5, 2, 900, 2])
    fold = view[index, ...]  # as scikit-learn takes it
    assert isinstance(fold, RowView)
    assert np.shares_memory(fold.base, X)
    assert fold.shape == (4, 64)
    np.testing.assert_array_equal(fold, X[index])
    np.testing.assert_array_equal(fold[np.array([True, False, True, False])], X[[5, 900]])
    np.testing.assert_array_equal(fold[[3, 1]][:], X[[2, 2]])
    np.testing.assert_array_equal(RowView(fold)[1:3], X[[2, 900]])
    np.testing.assert_array_equal(fold[-2], X[900])
    assert np.shares_memory(view[3:7], X)
    assert np.asarray(fold, dtype=np.float32).dtype == np.float32
    with pytest.raises(IndexError, match="out of bounds"):
        fold[[4]]


class Dataset:
    """What h5py and zarr have in common; keeps what was read."""

    def __init__(self, X):
        self._X, self.shape, self.dtype, self.chunks = X, X.shape, X.dtype, (10, X.shape[1])
        self.read = []

    def __getitem__(self, rows):
        self.read.append(rows)
        return self._X[rows]


def test_view_of_a_dataset_reads_slices_in_order(digits):
    dataset = Dataset(digits[0])
    fold = RowView(dataset)[np.array([500, 3, 501, 3])]
    assert dataset.read == []
    assert as_source(fold).by_blocks
    np.testing.assert_array_equal(fold, digits[0][[500, 3, 501, 3]])
    assert dataset.read == [slice(3, 4), slice(500, 502)]


def test_view_of_a_memory_map_is_one(tmp_path, larger_than_memory):
    np.save(tmp_path / "X.npy", np.zeros((200, 2)))
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    assert as_source(RowView(mapped)[np.arange(150)]).by_blocks
    assert not as_source(RowView(np.asarray(mapped).copy())[np.arange(150)]).by_blocks
    assert joblib.hash(RowView(mapped)) == joblib.hash(RowView(np.array(mapped)))


@pytest.mark.parametrize(
    ("X", "problem"),
    [
        (np.zeros(3), r"got ndarray of shape \(3,\)"),
        (pd.DataFrame({"a": [1.0]}), r"got DataFrame of shape \(1, 1\).*X.to_numpy\(\)"),
        (sparse.csr_matrix(np.eye(3)), r"got csr_matrix of shape \(3, 3\).*pass a sparse matrix"),
        ([[1.0]], "got list"),
        (np.ma.masked_array(np.eye(2)), r"takes no masked array. Use X.filled\(np.nan\)"),
        (np.array([["a"]]), "takes numbers of at most 64 bits, got <U1"),
        (np.eye(2, dtype=np.longdouble), "takes numbers of at most 64 bits, got float128"),
    ],
)
def test_what_no_view_is_made_of(X, problem):
    with pytest.raises(TypeError, match=problem):
        RowView(X)
