"""From the rows of X to scaled batches on the device, and back to arrays."""

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
from aefeatures._warnings import warn

# Numbers that are gathered from X at once in training: 1 MB in float32.
_BLOCK_ELEMENTS = 250_000

# Data that takes at most this much when scaled is scaled once, before training, instead
# of batch by batch: small sets are bound by the overhead of each operation of a step.
_RESIDENT_BYTES = 16_000_000

# Blocks of consecutive rows that are shuffled together, if rows are read by blocks: data that
# is sorted by class would otherwise be learned a class at a time.
_BLOCKS_TOGETHER = 16

# A batch, and the positions of its rows.
IndexedBatch = tuple[torch.Tensor, np.ndarray]


def code_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype in which rows of `dtype` are encoded: wide input keeps its precision."""
    wide = dtype.itemsize >= 8 or (dtype.kind in "iu" and dtype.itemsize == 4)
    return np.dtype(np.float64 if wide else np.float32)


def work_dtype(dtype: np.dtype, device: torch.device) -> torch.dtype:
    """`code_dtype` as far as the device has it: MPS has no float64."""
    wide = code_dtype(dtype) == np.float64 and device.type != "mps"
    return torch.float64 if wide else torch.float32


def to_tensor(rows: np.ndarray, device: torch.device) -> torch.Tensor:
    """Rows of X, unscaled, on the device."""
    work = work_dtype(rows.dtype, device)
    # uint8 moves to the device as it is: a quarter of the bytes.
    moved = rows.dtype if rows.dtype == np.uint8 else np.dtype(str(work).removeprefix("torch."))
    array = np.require(rows, moved, ["C", "W", "A"])
    # A single row or column may count as contiguous and yet have strides that PyTorch refuses.
    return torch.from_numpy(array.ravel()).view(array.shape).to(device).to(work)


class Batches(ABC):
    """Shuffled batches of rows, scaled, on the device.

    Attributes
    ----------
    n_rows, n_features : int
    batch_size : int
        The last batch of an epoch holds the rows that are left over.
    device : torch.device
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
        self._scaling, self._dtype = scaling, dtype
        self._no_single_rows = no_single_rows and batch_size > 1

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
    ) -> Iterator[IndexedBatch]:
        """The batches of `epoch`, each with the positions of its rows.

        The first `skip` rows, those of earlier batches, are left out and hardly read. Everything
        that is drawn from `rng` is drawn before the first batch.
        """
        batches = self._batches(rng, skip)
        return _without_single_rows(batches, self.batch_size) if self._no_single_rows else batches

    @abstractmethod
    def _batches(self, rng: np.random.Generator | None, skip: int) -> Iterator[IndexedBatch]:
        """The batches of an epoch, with a single row left over as the last one."""

    @abstractmethod
    def take(self, index: np.ndarray) -> torch.Tensor:
        """The rows at any positions, scaled, on the device."""

    def sample(self, n: int) -> torch.Tensor:
        """At most `n` rows, evenly spaced, so that sorted data is met in all its parts."""
        return self.take(evenly_spaced(self.n_rows, n))

    @abstractmethod
    def chunks(self) -> Iterator[torch.Tensor]:
        """All rows in order, in chunks as large as is quick."""

    @abstractmethod
    def variance(self, means: torch.Tensor) -> float:
        """The columns' mean variance; missing values do not count."""

    def _convert(self, rows: np.ndarray) -> torch.Tensor:
        return self._scaling(to_tensor(rows, self.device)).to(self._dtype)

    def _rows_of_block(self) -> int:
        """Rows that are gathered at once, a multiple of the batch size."""
        return max(1, _BLOCK_ELEMENTS // (self.n_features * self.batch_size)) * self.batch_size


class RowBatches(Batches):
    """Batches of the rows of X.

    X stays where it is: rows are gathered by index, a few batches at a time, and
    converted there. A scaled copy is kept only of a small X. Rows that cannot be gathered by index
    at speed, because they lie in a file, are read by blocks of consecutive rows: some blocks at a
    time, drawn at random, whose rows are shuffled together.

    Parameters
    ----------
    X : Source, or what `as_source` takes, of shape (n_samples, n_features)
    scaling : callable
        Maps a tensor of rows into the network's range. It is applied in the rows' own
        precision, so that a small variance beside a large offset is not lost in float32.
    batch_size : int
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
        # Several batches are gathered at once, as many as stay in the processor's cache.
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
        """The columns' mean variance, in a sample of the rows; missing values do not count."""
        differences = self.sample(SOME_ROWS) - means
        return float(differences.square().nanmean().nan_to_num())

    def take(self, index: np.ndarray) -> torch.Tensor:
        """The rows at any positions, scaled, on the device."""
        if self._resident is not None:
            return self._resident.index_select(0, torch.from_numpy(index).to(self.device))
        positions = index if self._rows is None else self._rows[index]
        return self._convert(self._source.take_in_any_order(positions))

    def chunks(self) -> Iterator[torch.Tensor]:
        """All rows in order, in chunks as large as is quick."""
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
    """Batches of rows that come in chunks, from elsewhere, again for each epoch.

    Rows are shuffled within a chunk, and none is kept.

    Parameters
    ----------
    chunks : callable
        Begins an epoch: returns an iterator of arrays of shape (n, n_features), of whole batches
        except for the last.
    shape : tuple of int
        About how many rows come in an epoch, and their columns.
    scaling, batch_size, device, dtype, no_single_rows
        As of `RowBatches`.
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
        self._variance = scaling.variance

    def _batches(self, rng: np.random.Generator | None, skip: int) -> Iterator[IndexedBatch]:
        """The batches of an epoch; positions are those within the chunk."""
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
        """The variance of all rows, which the scaling knows: no sample of them can be looked at."""
        return float(self._variance())

    def chunks(self) -> Iterator[torch.Tensor]:
        """All rows in order, in the chunks that they come in."""
        return map(self._convert, self._chunks())

    def take(self, index: np.ndarray) -> torch.Tensor:
        """Refuse: rows are not kept."""
        raise ValueError(
            "Rows that are streamed cannot be taken by their position, which a regularizer asked "
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
