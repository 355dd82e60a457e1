"""Batches of scaled rows on a device, and arrays of results of chunks of rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch

from aefeatures._rows.sources import (
    SOME_ROWS,
    Source,
    as_source,
    evenly_spaced,
    iterate_slices,
    rows_of_chunk,
)
from aefeatures._torch.devices import copy_to
from aefeatures._warnings import warn

# Numbers that are gathered from X at once during training: 1 MB in float32.
_BLOCK_ELEMENTS = 250_000

# Data of at most this size after scaling is scaled once before training instead of batch by batch:
# for small data, the overhead of each operation in a step dominates.
_RESIDENT_BYTES = 16_000_000

# Number of blocks of consecutive rows that are shuffled together, if rows are read by blocks:
# otherwise data that is sorted by class would be learned one class at a time.
_BLOCKS_TOGETHER = 16

# Rows of a batch and their positions.
IndexedBatch = tuple[torch.Tensor, np.ndarray]


def code_dtype(dtype: np.dtype) -> np.dtype:
    """Return the dtype in which rows of `dtype` are encoded: wide input keeps its precision."""
    wide = dtype.itemsize >= 8 or (dtype.kind in "iu" and dtype.itemsize == 4)
    return np.dtype(np.float64 if wide else np.float32)


def work_dtype(dtype: np.dtype, device: torch.device) -> torch.dtype:
    """Return `code_dtype` as far as the device supports it: MPS has no float64."""
    wide = code_dtype(dtype) == np.float64 and device.type != "mps"
    return torch.float64 if wide else torch.float32


def to_tensor(rows: np.ndarray, device: torch.device) -> torch.Tensor:
    """Return rows of X, unscaled, on the device."""
    work = work_dtype(rows.dtype, device)
    # uint8 is converted on the device: only a quarter of the bytes is copied there.
    moved = rows.dtype if rows.dtype == np.uint8 else np.dtype(str(work).removeprefix("torch."))
    array = np.require(rows, moved, ["C", "W", "A"])
    # A single row or column may count as contiguous and yet have strides that PyTorch refuses.
    return copy_to(torch.from_numpy(array.ravel()).view(array.shape), device).to(work)


class Batches(ABC):
    """Shuffled batches of scaled rows on the device.

    Attributes
    ----------
    n_rows, n_features : int
    batch_size : int
        Rows per batch; the last batch of an epoch has the remaining rows.
    device : torch.device
    columns : ndarray of int or None
        Column of X that each column in the network's range belongs to; None if they are the same.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        scaling: Callable[[torch.Tensor], torch.Tensor],
        batch_size: int,
        device: torch.device,
        dtype: torch.dtype,
        no_single_rows: bool,
    ) -> None:
        self.n_rows, self.n_features = shape
        self.batch_size, self.device = batch_size, device
        self.scaling, self._dtype = scaling, dtype
        self.columns: np.ndarray | None = getattr(scaling, "column_of_output", None)
        self._no_single_rows = no_single_rows and batch_size > 1

    def __len__(self) -> int:
        n_rows = self.n_rows
        if self._no_single_rows and self.batch_size == 2 and n_rows > 1:
            n_rows -= n_rows % 2  # the last batch has three rows
        return -(-n_rows // self.batch_size)

    def epoch(self, rng: np.random.Generator | None = None) -> Iterator[torch.Tensor]:
        """Yield every row once, in an order drawn from `rng`, or in the order of X without it."""
        for rows, _ in self.indexed_epoch(rng):
            yield rows

    def indexed_epoch(
        self, rng: np.random.Generator | None = None, skip: int = 0
    ) -> Iterator[IndexedBatch]:
        """Yield the batches of `epoch`, each with the positions of its rows.

        The first `skip` rows, which belong to earlier batches, are left out, and few of them are
        read. Everything that is drawn from `rng` is drawn before the first batch.
        """
        batches = self._batches(rng, skip)
        return _without_single_rows(batches, self.batch_size) if self._no_single_rows else batches

    @abstractmethod
    def _batches(self, rng: np.random.Generator | None, skip: int) -> Iterator[IndexedBatch]:
        """Yield the batches of an epoch; the last one may be a single row."""

    @abstractmethod
    def take(self, index: np.ndarray) -> torch.Tensor:
        """Return the rows at any positions, scaled, on the device."""

    def sample(self, n: int) -> torch.Tensor:
        """Return at most `n` evenly spaced rows, so that all parts of sorted data are covered."""
        return self.take(evenly_spaced(self.n_rows, n))

    @abstractmethod
    def chunks(self) -> Iterator[torch.Tensor]:
        """Yield all rows in order, in chunks whose size is fast to process."""

    @abstractmethod
    def variance(self, means: torch.Tensor) -> float:
        """Return the columns' mean variance, without missing values."""

    def _convert(self, rows: np.ndarray) -> torch.Tensor:
        return self.scaling(to_tensor(rows, self.device)).to(self._dtype)

    def _rows_of_block(self) -> int:
        """Return the number of rows that are gathered at once, a multiple of the batch size."""
        return max(1, _BLOCK_ELEMENTS // (self.n_features * self.batch_size)) * self.batch_size


class RowBatches(Batches):
    """Batches of the rows of X.

    X is not copied as a whole, unless it is small: rows are gathered by index, a few batches at a
    time, and converted. Rows in a file cannot be gathered quickly by index, so they are read in
    blocks of consecutive rows: some blocks at a time, drawn at random, whose rows are shuffled
    together.

    Parameters
    ----------
    X : Source, or what `as_source` takes, of shape (n_samples, n_features)
    scaling : callable
        Map of a tensor of rows into the network's range. It is applied in the rows' own precision,
        because float32 would lose a small variance beside a large offset.
    batch_size : int
    device, dtype
        Device and precision of the training.
    rows : ndarray of int, optional
        Positions of the rows of X to use; None means all.
    no_single_rows : bool
        Whether a batch of one row shares the rows of the batch before it, if there is one:
        normalization over a batch needs a variance.
    """

    def __init__(
        self,
        X: Any,
        scaling: Callable[[torch.Tensor], torch.Tensor],
        *,
        batch_size: int,
        device: torch.device,
        dtype: torch.dtype,
        rows: np.ndarray | None = None,
        no_single_rows: bool = False,
    ) -> None:
        self._source: Source = as_source(X)
        n_rows, n_features = self._source.shape
        if rows is not None:
            n_rows = len(rows)
        # The levels of a table's categories are columns in the network's range.
        n_features = getattr(scaling, "n_outputs", n_features)
        size = max(1, min(batch_size, n_rows))  # a rank may have no rows
        super().__init__((n_rows, n_features), scaling, size, device, dtype, no_single_rows)
        self._rows = rows
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

    def _batches(self, rng: np.random.Generator | None, skip: int) -> Iterator[IndexedBatch]:
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
        # As many batches are gathered at once as stay in the processor's cache.
        block = self._rows_of_block()
        for start in range(0, self.n_rows, block):
            yield order[start : start + block]

    def _order_by_blocks(self, rng: np.random.Generator | None) -> Iterator[np.ndarray]:
        width = self.n_features * self.batch_size * _BLOCKS_TOGETHER
        size = rows_of_chunk(width) * self.batch_size
        starts = np.arange(0, self.n_rows, size)
        if rng is not None:
            rng = np.random.default_rng(rng.integers(2**63))
            starts = rng.permutation(starts)
        for i in range(0, len(starts), _BLOCKS_TOGETHER):
            index = (starts[i : i + _BLOCKS_TOGETHER, None] + np.arange(size)).ravel()
            index = index[index < self.n_rows]
            yield index if rng is None else rng.permutation(index)

    def variance(self, means: torch.Tensor) -> float:
        """Return the columns' mean variance in a sample of the rows, without missing values."""
        differences = self.sample(SOME_ROWS) - means
        return float(differences.square().nanmean().nan_to_num())

    def take(self, index: np.ndarray) -> torch.Tensor:
        """Return the rows at any positions, scaled, on the device."""
        if self._resident is not None:
            return self._resident.index_select(0, copy_to(torch.from_numpy(index), self.device))
        positions = index if self._rows is None else self._rows[index]
        return self._convert(self._source.take_in_any_order(positions))

    def chunks(self) -> Iterator[torch.Tensor]:
        """Yield all rows in order, in chunks whose size is fast to process."""
        for part in iterate_slices(self.n_rows, self.n_features):
            yield self.take(np.arange(*part.indices(self.n_rows)))

    def _convert_all(self) -> torch.Tensor:
        everything = torch.empty(
            self.n_rows, self.n_features, dtype=self._dtype, device=self.device
        )
        start = 0
        for rows in self.chunks():
            everything[start : start + len(rows)] = rows
            start += len(rows)
        return everything

    @property
    def _by_blocks(self) -> bool:
        return self._resident is None and self._source.by_blocks

    def _resident_bytes(self) -> int:
        if self.device.type == "cuda":
            return int(torch.cuda.mem_get_info(self.device)[0]) // 2
        return _RESIDENT_BYTES


class StreamedBatches(Batches):
    """Batches of rows that are streamed in chunks, once per epoch.

    Rows are shuffled within a chunk and are not kept.

    Parameters
    ----------
    chunks : callable
        Function that starts an epoch: it returns an iterator of arrays of shape (n, n_features),
        which hold whole batches, except the last array.
    shape : tuple of int
        Approximate number of rows in an epoch, and number of columns.
    scaling, batch_size, device, dtype, no_single_rows
        As in `RowBatches`.
    """

    def __init__(
        self,
        chunks: Callable[[], Iterator[np.ndarray]],
        shape: tuple[int, int],
        scaling: Any,
        *,
        batch_size: int,
        device: torch.device,
        dtype: torch.dtype,
        no_single_rows: bool = False,
    ) -> None:
        super().__init__(shape, scaling, batch_size, device, dtype, no_single_rows)
        self._chunks = chunks

    def _batches(self, rng: np.random.Generator | None, skip: int) -> Iterator[IndexedBatch]:
        """Yield the batches of an epoch, with positions within the chunk."""
        block = self._rows_of_block()
        for chunk in self._chunks():
            order = np.arange(len(chunk)) if rng is None else rng.permutation(len(chunk))
            for start in range(0, len(chunk), block):
                index = order[start : start + block]
                rows = self._convert(chunk[index])
                for first in range(0, len(index), self.batch_size):
                    part = slice(first, first + self.batch_size)
                    yield rows[part], index[part]

    def variance(self, means: torch.Tensor) -> float:
        """Return the variance of all rows from the scaling: no sample of streamed rows exists."""
        return float(self.scaling.variance())  # type: ignore[attr-defined]

    def chunks(self) -> Iterator[torch.Tensor]:
        """Yield all rows in order, in the chunks in which they are streamed."""
        return map(self._convert, self._chunks())

    def take(self, index: np.ndarray) -> torch.Tensor:
        """Raise an error, because rows are not kept."""
        raise ValueError(
            "A regularizer asked for rows by their positions, but streamed rows have none. Fit it "
            "within distributed(), on rows in memory."
        )


def _without_single_rows(
    batches: Iterable[IndexedBatch], batch_size: int
) -> Iterator[IndexedBatch]:
    """Yield the same rows in the same order, without batches of one row.

    A single row shares the rows of the batch before it, or of the batch after it if it is first.
    """
    held: IndexedBatch | None = None
    for batch in batches:
        if held is None:
            held = batch
            continue
        if 1 in (len(held[1]), len(batch[1])):
            rows, index = torch.cat([held[0], batch[0]]), np.concatenate([held[1], batch[1]])
            if len(index) <= max(batch_size, 3):  # three rows cannot be split without a single one
                held = rows, index
                continue
            half = -(-len(index) // 2)
            held, batch = (rows[:half], index[:half]), (rows[half:], index[half:])
        yield held
        held = batch
    if held is not None:
        yield held


def batch_size_of(counts: list[int], batch_size: int, rank: int, least: int = 1) -> int:
    """Return the number of rows of a rank in a step; `counts` are the numbers of rows of all ranks.

    Ranks with fewer rows than others take fewer in a step, but at least `least`, so that their rows
    last for the epoch. Otherwise its last steps would only use rows of the larger ranks.
    """
    n_steps = max(-(-n_rows // batch_size) for n_rows in counts)
    if -(-counts[rank] // batch_size) == n_steps:
        return batch_size
    return max(least, -(-counts[rank] // n_steps))


def map_chunks(
    function: Callable[[np.ndarray], Any],
    source: Source,
    n_columns: int | None,
    *,
    width: int,
) -> np.ndarray:
    """Apply `function` to chunks of rows and join the results in one array.

    Parameters
    ----------
    function : callable
        Function that returns a tensor, or a tensor and a mask of its missing entries, which become
        NaN.
    n_columns : int or None
        Number of columns of the result, or None if it has one number per row.
    width : int
        Size of the largest intermediate result of `function` for one row.

    Raises
    ------
    ValueError
        If a result is infinite, or is NaN without being missing.
    """
    shape = (source.shape[0],) if n_columns is None else (source.shape[0], n_columns)
    result = np.empty(shape, dtype=code_dtype(source.dtype))
    start = 0
    with torch.inference_mode():
        for chunk in source.chunks(width):
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
