"""From the rows of X to scaled batches on the device, and back to arrays."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse

from aefeatures._warnings import warn

# What X may be once it is checked: an array, also a memory map; a CSR matrix; a `RowView`; or
# anything with `shape`, `dtype` and slices of rows that become arrays, as of h5py and zarr.
Rows = Any

# Numbers in a chunk of rows: 16 MB in float32, enough for full speed.
_CHUNK_ELEMENTS = 4_000_000

# Numbers that are gathered from X at once in training: 1 MB in float32.
_BLOCK_ELEMENTS = 250_000

# Data that takes at most this much when scaled is scaled once, before training, instead
# of batch by batch: small sets are bound by the overhead of each operation of a step.
_RESIDENT_BYTES = 16_000_000


# Rows of a dataset in a file that are read though they are not asked for, to read fewer slices.
_LONGEST_GAP = 100

# Blocks of consecutive rows that are shuffled together, where rows are read by blocks: data that
# is sorted by class would else be learned a class at a time.
_BLOCKS_TOGETHER = 16


def iterate_chunks(X: Rows, width: int = 1) -> Iterator[Rows]:
    """Consecutive rows of X, small enough to be converted in memory; views of an array.

    `width` is the number of columns that a row takes where it takes more than in X.
    """
    for part in iterate_slices(X.shape[0], max(X.shape[1], width)):
        yield X[part]


def iterate_slices(n_rows: int, width: int) -> Iterator[slice]:
    """The places of consecutive rows of which each takes `width` numbers."""
    size = max(1, _CHUNK_ELEMENTS // width)
    for start in range(0, n_rows, size):
        yield slice(start, start + size)


def is_dataset(X: Any) -> bool:
    """Whether X is a matrix in a file, as of h5py or zarr: it has chunks, and slices of rows."""
    return (
        all(hasattr(X, name) for name in ("shape", "dtype", "chunks", "__getitem__"))
        and len(X.shape) == 2
    )


def is_lazy(X: Rows) -> bool:
    """Whether X lies elsewhere, as a dataset of h5py or zarr does."""
    X = X.base if isinstance(X, RowView) else X
    return not (isinstance(X, np.ndarray) or sparse.issparse(X))


def reads_by_blocks(X: Rows) -> bool:
    """Whether X lies elsewhere and is read fast by consecutive rows only: not so image files."""
    base = X.base if isinstance(X, RowView) else X
    return (is_lazy(base) and not getattr(base, "any_order", False)) or exceeds_memory(base)


def exceeds_memory(X: Rows) -> bool:
    """Whether X is a memory map too large to stay in the page cache while it is gathered from."""
    X = base = X.base if isinstance(X, RowView) else X
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, mmap.mmap) and X.nbytes > physical_memory() // 2


@cache
def physical_memory(root: str = "/") -> int:
    """Bytes of memory that the process may use: of the machine, or of its container if fewer.

    `root` is where "proc" and "sys" are.
    """
    try:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError):  # not a POSIX system
        machine = 2**33
    return min([machine, *_limits_of_groups(Path(root))])


def _limits_of_groups(root: Path) -> Iterator[int]:
    """The limits of memory of the control groups that the process is in, of both versions."""
    try:
        groups = Path(root, "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    for group in groups:
        _, controllers, path = group.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        folder, name = ("memory", "memory.limit_in_bytes") if controllers else ("", "memory.max")
        # A container may see its own group as the root, and not where its path says it is.
        within = Path(path.lstrip("/"))
        for each in (within, *within.parents):
            limit = Path(root, "sys/fs/cgroup", folder, each, name)
            with suppress(OSError, ValueError):  # no such group; "max", which is no limit
                yield int(limit.read_text())


def to_dense(rows: Rows) -> np.ndarray:
    """A chunk of rows of X as an array."""
    return rows.toarray() if sparse.issparse(rows) else np.asarray(rows)


def has_missing(X: Rows) -> bool:
    """Whether X misses any value (NaN)."""
    if X.dtype.kind != "f":
        return False
    if sparse.issparse(X):
        return bool(np.isnan(X.data).any())
    return any(bool(np.isnan(chunk).any()) for chunk in map(np.asarray, iterate_chunks(X)))


def rows_with_values(X: Rows) -> np.ndarray | None:
    """Positions of the rows of X with any known value; None stands for all."""
    known = np.ones(X.shape[0], bool)
    start = 0
    for chunk in map(to_dense, iterate_chunks(X)):
        known[start : start + len(chunk)] = ~np.isnan(chunk).all(axis=1)
        start += len(chunk)
    return None if known.all() else np.flatnonzero(known)


def code_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype in which rows of `dtype` are encoded: wide input keeps its precision."""
    wide = dtype.itemsize >= 8 or (dtype.kind in "iu" and dtype.itemsize == 4)
    return np.dtype(np.float64 if wide else np.float32)


def work_dtype(dtype: np.dtype, device: torch.device) -> torch.dtype:
    """`code_dtype` as far as the device has it: MPS has no float64."""
    wide = code_dtype(dtype) == np.float64 and device.type != "mps"
    return torch.float64 if wide else torch.float32


def to_tensor(rows: Rows, device: torch.device) -> torch.Tensor:
    """Rows of X, unscaled, on the device."""
    work = work_dtype(rows.dtype, device)
    # uint8 moves to the device as it is: a quarter of the bytes.
    moved = rows.dtype if rows.dtype == np.uint8 else np.dtype(str(work).removeprefix("torch."))
    array = np.require(to_dense(rows), moved, ["C", "W", "A"])
    # A single row or column may count as contiguous and yet have strides that PyTorch refuses.
    return torch.from_numpy(array.ravel()).view(array.shape).to(device).to(work)


# Rows by which a variance is judged.
_VARIANCE_ROWS = 2_000


class Batches:
    """Shuffled batches of the rows of X, scaled, on the device.

    X stays where it is: rows are gathered by index, a few batches at a time, and
    converted there. Only where the whole of X is small is a scaled copy kept. What cannot be
    gathered by index at speed, data that lies elsewhere, is read by blocks of
    consecutive rows: some blocks at a time, drawn at random, whose rows are shuffled together.

    Parameters
    ----------
    X : array, CSR matrix or dataset of shape (n_samples, n_features)
    scaling : callable
        Maps a tensor of rows into the network's range. It is applied in the rows' own
        precision, so that a small variance beside a large offset is not lost in float32.
    batch_size : int
        The last batch of an epoch holds the rows that are left over.
    device, dtype
        Where and in which precision the network trains.
    rows : ndarray of int, optional
        The rows of X to use; None means all.
    no_single_rows : bool
        Whether a batch of one row, beside larger ones, shares the rows of the batch before it: what
        normalizes over a batch has no variance there.
    """

    def __init__(
        self,
        X: Rows,
        scaling: Callable[[torch.Tensor], torch.Tensor],
        *,
        batch_size: int,
        device: torch.device,
        dtype: torch.dtype,
        rows: np.ndarray | None = None,
        no_single_rows: bool = False,
    ) -> None:
        self.n_rows = X.shape[0] if rows is None else len(rows)
        self.n_features = X.shape[1]
        self.batch_size = max(1, min(batch_size, self.n_rows))  # a rank may have no rows
        self.device = device
        self._no_single_rows = no_single_rows and self.batch_size > 1
        self._X, self._rows, self._scaling, self._dtype = X, rows, scaling, dtype
        self._resident: torch.Tensor | None = None
        if self.n_rows * self.n_features * dtype.itemsize <= self._resident_bytes():
            try:
                self._resident = self._convert_all()
            except torch.cuda.OutOfMemoryError:
                warn(
                    f"X does not fit into the memory of {device}: its rows are copied there a few "
                    "batches at a time, which is slower.",
                    RuntimeWarning,
                )

    def __len__(self) -> int:
        n_rows = self.n_rows
        if self._no_single_rows and self.batch_size == 2 and n_rows > 1:
            n_rows -= n_rows % 2  # the last batch has three rows
        return -(-n_rows // self.batch_size)

    def epoch(self, rng: np.random.Generator | None = None) -> Iterator[torch.Tensor]:
        """Every row once, in an order drawn from `rng`; in the order of X without it."""
        for rows, _ in self.indexed_epoch(rng):
            yield rows

    def indexed_epoch(
        self, rng: np.random.Generator | None = None, skip: int = 0
    ) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
        """The batches of `epoch`, each with the positions of its rows.

        The first `skip` rows, those of earlier batches, are left out and hardly read. What is drawn
        from `rng` is drawn before the first batch.
        """
        batches = self._batches(rng, skip)
        return _without_single_rows(batches, self.batch_size) if self._no_single_rows else batches

    def _batches(
        self, rng: np.random.Generator | None, skip: int
    ) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
        for index in self._order_by_blocks(rng) if self._by_blocks else self._order(rng):
            if skip >= len(index):
                skip -= len(index)
                continue
            rows = self.take(index)
            for start in range(0, len(index), self.batch_size):
                part = slice(max(start, skip), start + self.batch_size)
                if skip < part.stop:
                    yield rows[part], index[part]
            skip = 0

    def _order(self, rng: np.random.Generator | None) -> Iterator[np.ndarray]:
        order = np.arange(self.n_rows) if rng is None else rng.permutation(self.n_rows)
        # Several batches are gathered at once, as many as stay in the processor's cache.
        block = self._whole_batches(_BLOCK_ELEMENTS)
        for start in range(0, self.n_rows, block):
            yield order[start : start + block]

    def _order_by_blocks(self, rng: np.random.Generator | None) -> Iterator[np.ndarray]:
        size = self._whole_batches(_CHUNK_ELEMENTS // _BLOCKS_TOGETHER)
        starts = np.arange(0, self.n_rows, size)
        if rng is not None:
            rng = np.random.default_rng(rng.integers(2**63))
            starts = rng.permutation(starts)
        for i in range(0, len(starts), _BLOCKS_TOGETHER):
            index = (starts[i : i + _BLOCKS_TOGETHER, None] + np.arange(size)).ravel()
            index = index[index < self.n_rows]
            yield index if rng is None else rng.permutation(index)

    def _whole_batches(self, n_elements: int) -> int:
        """About as many rows as `n_elements` hold, a multiple of the batch size."""
        return max(1, n_elements // (self.n_features * self.batch_size)) * self.batch_size

    def sample(self, n: int) -> torch.Tensor:
        """At most `n` rows, evenly spaced, so that sorted data is met in all its parts."""
        return self.take(evenly_spaced(self.n_rows, n))

    def variance(self, means: torch.Tensor) -> float:
        """The columns' mean variance, in a sample of the rows; missing values do not count."""
        differences = self.sample(_VARIANCE_ROWS) - means
        return float(differences.square().nanmean().nan_to_num())

    def take(self, index: np.ndarray) -> torch.Tensor:
        """The rows at any positions, scaled, on the device."""
        if self._resident is not None:
            return self._resident.index_select(0, torch.from_numpy(index).to(self.device))
        if not self._by_blocks:
            return self._convert(take_rows(self._X, self._positions(index)))
        # A file is read in its own order.
        index, back = np.unique(index, return_inverse=True)
        rows = self._convert(take_rows(self._X, self._positions(index)))
        return rows.index_select(0, torch.from_numpy(back).to(self.device))

    def chunks(self) -> Iterator[torch.Tensor]:
        """All rows in order, in chunks as large as is quick."""
        size = max(1, _CHUNK_ELEMENTS // self.n_features)
        for start in range(0, self.n_rows, size):
            yield self.take(np.arange(start, min(start + size, self.n_rows)))

    def _positions(self, index: np.ndarray) -> np.ndarray:
        return index if self._rows is None else self._rows[index]

    def _convert_all(self) -> torch.Tensor:
        everything = torch.empty(
            self.n_rows, self.n_features, dtype=self._dtype, device=self.device
        )
        start = 0
        for rows in self.chunks():
            everything[start : start + len(rows)] = rows
            start += len(rows)
        return everything

    def _convert(self, rows: Rows) -> torch.Tensor:
        return self._scaling(to_tensor(rows, self.device)).to(self._dtype)

    @property
    def _by_blocks(self) -> bool:
        return self._resident is None and reads_by_blocks(self._X)

    def _resident_bytes(self) -> int:
        if self.device.type == "cuda":
            return int(torch.cuda.mem_get_info(self.device)[0]) // 2
        return _RESIDENT_BYTES


class StreamedBatches(Batches):
    """Batches of rows that come in chunks, from elsewhere, anew for each epoch.

    Rows are shuffled within a chunk, and none is kept.

    Parameters
    ----------
    chunks : callable
        Begins an epoch: returns an iterator of arrays of shape (n, n_features), of whole batches
        but for the last.
    n_rows : int
        About how many rows come in an epoch.
    """

    def __init__(
        self,
        chunks: Callable[[], Iterator[np.ndarray]],
        n_rows: int,
        n_features: int,
        scaling: Callable[[torch.Tensor], torch.Tensor],
        *,
        batch_size: int,
        device: torch.device,
        dtype: torch.dtype,
        no_single_rows: bool = False,
    ) -> None:
        self.n_rows, self.n_features, self.batch_size = n_rows, n_features, batch_size
        self.device = device
        self._no_single_rows = no_single_rows and batch_size > 1
        self._chunks, self._scaling, self._dtype = chunks, scaling, dtype

    def _batches(
        self, rng: np.random.Generator | None, skip: int
    ) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
        """The batches of an epoch; positions are those within the chunk."""
        block = self._whole_batches(_BLOCK_ELEMENTS)
        for chunk in self._chunks():
            order = np.arange(len(chunk)) if rng is None else rng.permutation(len(chunk))
            for start in range(0, len(chunk), block):
                index = order[start : start + block]
                rows = self._convert(chunk[index])
                for first in range(0, len(index), self.batch_size):
                    part = slice(first, first + self.batch_size)
                    yield rows[part], index[part]

    def variance(self, means: torch.Tensor) -> float:
        """That of all rows, which the scaling knows: none can be looked at."""
        return float(self._scaling.variance())  # type: ignore[attr-defined]

    def take(self, index: np.ndarray) -> torch.Tensor:
        """Refused: rows are not kept."""
        raise ValueError(
            "Rows that are streamed cannot be had by their position, which a regularizer asked "
            "for. Fit it within distributed(), on rows in memory."
        )


def _without_single_rows(
    batches: Iterable[tuple[torch.Tensor, np.ndarray]], batch_size: int
) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
    """The same rows in the same order, except that none is a batch alone.

    It shares the rows of the batch before it, or, as the first, of the one after it.
    """
    held: tuple[torch.Tensor, np.ndarray] | None = None
    for batch in batches:
        if held is None:
            held = batch
            continue
        if 1 in (len(held[1]), len(batch[1])):
            rows, index = torch.cat([held[0], batch[0]]), np.concatenate([held[1], batch[1]])
            if len(index) <= max(batch_size, 3):  # of three rows, one would be left over
                held = rows, index
                continue
            half = -(-len(index) // 2)
            held, batch = (rows[:half], index[:half]), (rows[half:], index[half:])
        yield held
        held = batch
    if held is not None:
        yield held


def batch_size_of(counts: list[int], batch_size: int, rank: int, least: int = 1) -> int:
    """Rows of a rank in a step, where the ranks have so many rows.

    Those with fewer rows than others take fewer at a time, but at least `least`, so that all last
    the epoch: else its last steps would be on the rows of the larger ranks alone.
    """
    n_steps = max(-(-n_rows // batch_size) for n_rows in counts)
    if -(-counts[rank] // batch_size) == n_steps:
        return batch_size
    return max(least, -(-counts[rank] // n_steps))


def evenly_spaced(n: int, n_most: int) -> np.ndarray:
    """At most `n_most` of the positions 0 to n - 1, in order, the first and the last with them."""
    return np.unique(np.linspace(0, n - 1, min(n, n_most)).astype(np.intp))


def take_rows(X: Rows, index: np.ndarray) -> Rows:
    """The rows at the increasing or, where X is not read by blocks, any positions `index`."""
    if isinstance(X, RowView):
        return X.take(index)
    if isinstance(X, np.ndarray):
        return np.take(X, index, axis=0)
    if not reads_by_blocks(X):
        return X[index]
    # Slices are what every kind of dataset can read, and reads fast: a longer one where it
    # spares many short ones, but no longer than a chunk.
    longest = max(1, _CHUNK_ELEMENTS // X.shape[1])
    apart = (np.diff(index) > _LONGEST_GAP) | (np.diff(index // longest) > 0)
    spans = np.split(index, np.flatnonzero(apart) + 1)
    return np.concatenate([np.asarray(X[span[0] : span[-1] + 1])[span - span[0]] for span in spans])


class RowView:
    """A large X for searches and cross-validation, whose folds are views.

    scikit-learn cuts the folds of an array as ``X[index]``, which copies them: every process of a
    search holds a copy of nearly all of X. ``RowView(X)[index]`` only remembers which rows are
    meant. An autoencoder in `fit` and `transform` reads them batch by batch, with the same
    result as from the copy; anything else gets an array, by NumPy's `asarray`.

    Processes that joblib starts share one memory map of X; where X is none, joblib writes it into a
    temporary one.

    Parameters
    ----------
    X : ndarray or dataset of shape (n_samples, n_features)
        Numbers in memory, a memory map, or a dataset of h5py or zarr. For a search in several
        processes a dataset has to be one that can be pickled: h5py's cannot.

    Attributes
    ----------
    shape, dtype, ndim
        Those of the rows in view.

    Notes
    -----
    Slices and single integers give arrays, as with a dataset; arrays of integers or booleans give
    views. Sparse matrices and data frames are not taken: slices of the former are small, and the
    latter become an array by ``X.to_numpy()``.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.svm import SVC
    >>> from aefeatures import AutoencoderTransformer, RowView
    >>> X, y = load_digits(return_X_y=True)
    >>> view = RowView(X)
    >>> view[np.arange(600)]
    RowView of 600 rows of float64 of shape (1797, 64)
    >>> pipeline = make_pipeline(AutoencoderTransformer(max_epochs=2, random_state=0), SVC())
    >>> search = GridSearchCV(pipeline, {"svc__C": [1, 10]}, cv=2).fit(view, y)
    >>> search.predict(X).shape
    (1797,)
    """

    ndim = 2
    base: Any
    _rows: np.ndarray | None
    chunks = None  # scikit-learn is not to convert it, as it is not to convert a dataset

    def __init__(self, X: Any) -> None:
        if isinstance(X, RowView):
            X, self._rows = X.base, X._rows
        elif (isinstance(X, np.ndarray) and X.ndim == 2) or is_dataset(X):
            self._rows = None
        else:
            shape = f" of shape {X.shape}" if hasattr(X, "shape") else ""
            raise TypeError(
                "RowView takes an array of two dimensions or a dataset of h5py or zarr, got "
                f"{type(X).__name__}{shape}. A data frame becomes one by X.to_numpy(); a sparse "
                "matrix needs none."
            )
        if isinstance(X, np.ma.MaskedArray):
            raise TypeError("RowView takes no masked array. Use X.filled(np.nan).")
        if X.dtype.kind not in "biuf" or X.dtype.itemsize > 8:
            raise TypeError(f"RowView takes numbers of at most 64 bits, got {X.dtype}.")
        # Of a memory map a plain array, which counts as the same in joblib's caches.
        self.base = np.asarray(X) if isinstance(X, np.ndarray) else X
        self.dtype = X.dtype

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        n_rows = self.base.shape[0] if self._rows is None else len(self._rows)
        return n_rows, self.base.shape[1]

    def take(self, index: np.ndarray) -> np.ndarray:
        """The rows at positions `index`, as an array."""
        rows = index if self._rows is None else self._rows[index]
        if not reads_by_blocks(self.base) or (np.diff(rows) >= 0).all():
            return np.asarray(take_rows(self.base, rows))
        rows, back = np.unique(rows, return_inverse=True)  # a file is read in its own order
        return np.asarray(take_rows(self.base, rows)[back])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, tuple):
            # scikit-learn takes rows by X[rows, ...], columns by X[:, columns].
            return self[key[0]] if key[1:] == (Ellipsis,) else self[:][key]
        if isinstance(key, slice) and self._rows is None:
            return np.asarray(self.base[key])
        positions = np.arange(len(self)) if self._rows is None else self._rows
        rows = positions[key]  # raises NumPy's errors
        if isinstance(key, slice):
            return RowView(self.base).take(rows)
        if np.ndim(rows) == 0:
            return RowView(self.base).take(rows[None])[0]
        view = RowView(self.base)
        view._rows = rows
        return view

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array: np.ndarray = self[:]
        return array.astype(array.dtype if dtype is None else dtype, copy=bool(copy))

    def __repr__(self) -> str:
        return f"RowView of {len(self)} rows of {self.dtype} of shape {self.base.shape}"


def map_chunks(
    function: Callable[[Rows], Any],
    X: Rows,
    n_columns: int | None,
    *,
    width: int,
) -> np.ndarray:
    """Apply `function` to X a chunk of rows at a time and join the results in one array.

    Parameters
    ----------
    function : callable
        Returns a tensor, or a tensor and a mask of where it is missing, which becomes NaN.
    n_columns : int or None
        Columns of the result; None where it has one number per row.
    width : int
        The most numbers that `function` makes of a row on its way.

    Raises
    ------
    ValueError
        If a result that is not missing is not finite.
    """
    shape = (X.shape[0],) if n_columns is None else (X.shape[0], n_columns)
    result = np.empty(shape, dtype=code_dtype(X.dtype))
    start = 0
    with torch.inference_mode():
        for chunk in iterate_chunks(X, width):
            stop = start + chunk.shape[0]
            values = function(chunk)
            values, missing = values if isinstance(values, tuple) else (values, None)
            result[start:stop] = values.cpu().numpy()
            finite = np.isfinite(result[start:stop])
            if missing is not None:
                missing = missing.cpu().numpy()
                result[start:stop][missing] = np.nan
                finite |= missing
            if not finite.all():
                row = start + int(np.argmin(finite.reshape(stop - start, -1).all(axis=1)))
                raise ValueError(
                    f"The result for row {row} is not finite in {result.dtype}: the row's values "
                    "are too far from those that the estimator was fitted to."
                )
            start = stop
    return result
