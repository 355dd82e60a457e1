"""Sources of rows: one small interface for all types of X."""

from __future__ import annotations

import mmap
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy import sparse

from aefeatures._rows.memory import physical_memory

# Numbers in a chunk of rows: 16 MB in float32. Larger chunks are not faster.
_CHUNK_ELEMENTS = 4_000_000

# Largest distance of two wanted rows that are read in one slice, with the rows between them.
_LONGEST_GAP = 100

# Rows of a sample for the variance of columns, and entries of a sample for their principal axes:
# 40 MB in float32.
SOME_ROWS = 2_000
_MANY_ELEMENTS = 10_000_000


def many_rows(n_features: int) -> int:
    """Return the number of rows in a sample for the principal axes of all rows."""
    return max(SOME_ROWS, _MANY_ELEMENTS // n_features)


def evenly_spaced(n: int, n_most: int) -> np.ndarray:
    """Return at most `n_most` increasing positions from 0 to n - 1, with both ends."""
    return np.unique(np.linspace(0, n - 1, min(n, n_most)).astype(np.intp))


def rows_of_chunk(width: int) -> int:
    """Return the number of rows in a chunk if each takes `width` numbers."""
    return max(1, _CHUNK_ELEMENTS // width)


def iterate_slices(n_rows: int, width: int) -> Iterator[slice]:
    """Yield slices of consecutive rows, in chunks, if each row takes `width` numbers."""
    size = rows_of_chunk(width)
    for start in range(0, n_rows, size):
        yield slice(start, start + size)


class Source(ABC):
    """Rows of numbers, read a few at a time as dense arrays.

    Attributes
    ----------
    shape : tuple of int
        Number of rows and of columns.
    dtype : numpy.dtype
    by_blocks : bool
        Whether only consecutive rows are read fast, as from a file.
    """

    shape: tuple[int, int]
    dtype: np.dtype
    by_blocks = False

    # Refuses rows with values that are not finite. Arrays do not need it, because they have been
    # checked as a whole.
    check: Callable[[np.ndarray], object] | None = None
    # Positions and rows that `chunks_for_fit` has kept.
    _kept: tuple[np.ndarray, np.ndarray] | None = None

    @abstractmethod
    def read(self, rows: slice) -> np.ndarray:
        """Return consecutive rows; a view if they are in memory."""

    @abstractmethod
    def _take(self, index: np.ndarray) -> np.ndarray:
        """Return the rows at positions, which increase if `by_blocks`."""

    def take(self, index: np.ndarray) -> np.ndarray:
        """Return the rows at positions, which have to increase if `by_blocks`."""
        if self._kept is not None:
            positions, rows = self._kept
            place = np.searchsorted(positions, index).clip(max=len(positions) - 1)
            if (positions[place] == index).all():
                return rows[place]
            self._kept = None  # the training reads other rows: the samples are not needed again
        return self._take(index)

    def take_in_any_order(self, index: np.ndarray) -> np.ndarray:
        """Return the rows at positions in any order, even if `by_blocks`."""
        if not self.by_blocks or (np.diff(index) >= 0).all():
            return self.take(index)
        index, back = np.unique(index, return_inverse=True)
        return self.take(index)[back]

    def chunks(self, width: int = 1) -> Iterator[np.ndarray]:
        """Yield all rows in order, in chunks that are small enough to be converted in memory.

        `width` is how many numbers a row takes in the caller's computations, at least its columns.
        """
        for part in iterate_slices(self.shape[0], max(self.shape[1], width)):
            yield self.checked(self.read(part))

    def chunks_for_fit(self, width: int = 1) -> Iterator[np.ndarray]:
        """Yield the same as `chunks`, in the single pass over all rows before a training.

        If rows are not in memory, those that the start of a training samples are kept, or all rows
        if they are one chunk, so that nothing is read twice.
        """
        if not self.by_blocks:
            yield from self.chunks(width)
            return
        n_rows, n_features = self.shape
        wanted = np.arange(n_rows)
        if n_rows * n_features > _CHUNK_ELEMENTS:
            sizes = (SOME_ROWS, many_rows(n_features))
            wanted = np.unique(np.concatenate([evenly_spaced(n_rows, size) for size in sizes]))
        kept = np.empty((len(wanted), n_features), self.dtype)
        start = 0
        for chunk in self.chunks(width):
            here = slice(*np.searchsorted(wanted, [start, start + len(chunk)]))
            kept[here] = chunk[wanted[here] - start]
            start += len(chunk)
            yield chunk
        self._kept = wanted, kept

    def dense(self) -> np.ndarray:
        """Return all rows as an array, not copied if they are one."""
        return self.checked(self.read(slice(None)))

    def checked(self, rows: np.ndarray) -> np.ndarray:
        """Return rows of this source, if all of their values may be used."""
        if self.check is not None:
            self.check(rows)
        return rows

    def stored(self, rows: slice) -> list[np.ndarray]:
        """Return consecutive rows as the arrays that hold them."""
        return [self.read(rows)]

    @property
    def nbytes(self) -> int:
        """Bytes of all rows, as they are stored."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize


class ArraySource(Source):
    """Rows of an array in memory."""

    def __init__(self, X: np.ndarray) -> None:
        self._X = X
        self.shape, self.dtype = X.shape, X.dtype

    def read(self, rows: slice) -> np.ndarray:
        """Return a view of consecutive rows."""
        return self._X[rows]

    def _take(self, index: np.ndarray) -> np.ndarray:
        return np.take(self._X, index, axis=0)


class SparseSource(Source):
    """Rows of a CSR matrix, made dense as they are read."""

    def __init__(self, X: Any) -> None:
        self._X = X
        self.shape, self.dtype = X.shape, X.dtype

    def read(self, rows: slice) -> np.ndarray:
        """Return consecutive rows."""
        dense: np.ndarray = self._X[rows].toarray()
        return dense

    def _take(self, index: np.ndarray) -> np.ndarray:
        dense: np.ndarray = self._X[index].toarray()
        return dense

    def stored(self, rows: slice) -> list[np.ndarray]:
        """Return the arrays of a CSR matrix of consecutive rows."""
        block = self._X[rows]
        return [block.indptr, block.indices, block.data]

    @property
    def nbytes(self) -> int:
        """Bytes of the stored entries and their columns."""
        return int(self._X.data.nbytes + self._X.indices.nbytes)


class ImageSource(Source):
    """Rows that are decoded as they are read, at the same speed in any order."""

    def __init__(self, X: Any) -> None:
        self._X = X
        self.shape, self.dtype = X.shape, X.dtype

    def read(self, rows: slice) -> np.ndarray:
        """Return consecutive rows."""
        return np.asarray(self._X[rows])

    def _take(self, index: np.ndarray) -> np.ndarray:
        return np.asarray(self._X[index])


class FileSource(Source):
    """Rows of a dataset in a file, such as h5py's or zarr's, or of a very large memory map."""

    by_blocks = True

    def __init__(self, X: Any) -> None:
        self._X = X
        self.shape, self.dtype = (int(X.shape[0]), int(X.shape[1])), X.dtype

    def read(self, rows: slice) -> np.ndarray:
        """Return consecutive rows."""
        return np.asarray(self._X[rows])

    def _take(self, index: np.ndarray) -> np.ndarray:
        # All kinds of datasets read slices fast. Near rows are read in one slice, which is at most
        # as long as a chunk.
        longest = rows_of_chunk(self.shape[1])
        apart = (np.diff(index) > _LONGEST_GAP) | (np.diff(index // longest) > 0)
        spans = np.split(index, np.flatnonzero(apart) + 1)
        return np.concatenate([self.read(slice(s[0], s[-1] + 1))[s - s[0]] for s in spans])


class ViewSource(Source):
    """Some of the rows of another source."""

    def __init__(self, base: Source, rows: np.ndarray) -> None:
        self._base, self._rows = base, rows
        self.shape, self.dtype = (len(rows), base.shape[1]), base.dtype
        self.by_blocks = base.by_blocks

    def read(self, rows: slice) -> np.ndarray:
        """Return consecutive rows of the view."""
        return self._take(np.arange(*rows.indices(len(self._rows))))

    def _take(self, index: np.ndarray) -> np.ndarray:
        return self._base.take_in_any_order(self._rows[index])


def is_dataset(X: Any) -> bool:
    """Whether X is a matrix in a file, such as h5py's or zarr's, with chunks and slices."""
    return (
        all(hasattr(X, name) for name in ("shape", "dtype", "chunks", "__getitem__"))
        and len(X.shape) == 2
    )


def as_source(X: Any, check: Callable[[np.ndarray], object] | None = None) -> Source:
    """Return the source of the rows of X, which is a matrix of numbers.

    `check` is called with rows as they are read, to refuse values that are not finite.
    """
    if isinstance(X, Source):
        return X
    if isinstance(X, RowView):
        source = as_source(X.base)
        if X.positions is not None:
            source = ViewSource(source, X.positions)
    elif isinstance(X, np.ndarray):
        source = FileSource(X) if _exceeds_memory(X) else ArraySource(X)
    elif sparse.issparse(X):
        source = SparseSource(X)
    else:
        source = ImageSource(X) if getattr(X, "any_order", False) else FileSource(X)
    source.check = check
    return source


def _exceeds_memory(X: np.ndarray) -> bool:
    """Whether X is a memory map too large to stay in the page cache during a training."""
    base: Any = X
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, mmap.mmap) and X.nbytes > physical_memory() // 2


class RowView:
    """View of the rows of a large X, so that searches and cross-validation copy no folds.

    scikit-learn selects the folds of an array by ``X[index]``, which copies them: every process of
    a search holds a copy of nearly all of X. ``RowView(X)[index]`` only stores positions of rows.
    An autoencoder reads them batch by batch in `fit` and `transform`, with the same result as
    from a copy. All other estimators get an array by NumPy's `asarray`.

    Processes that joblib starts share one memory map of X. If X is an array in memory, joblib
    writes it to a temporary memory map.

    Parameters
    ----------
    X : ndarray or dataset of shape (n_samples, n_features)
        Array in memory, memory map, or dataset of h5py or zarr. For a search in several processes,
        it must be possible to pickle a dataset; datasets of h5py cannot be pickled.

    Attributes
    ----------
    shape, dtype, ndim
        Shape, type and number of dimensions of the selected rows.

    Notes
    -----
    Slices and single integers return arrays, as with a dataset. Arrays of integers or booleans
    return views. Sparse matrices and data frames are not supported: slices of the former are small,
    and ``X.to_numpy()`` converts the latter to an array.

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
    positions: np.ndarray | None
    chunks = None  # makes it a dataset, which is not converted before it is read

    def __init__(self, X: Any) -> None:
        if isinstance(X, RowView):
            X, self.positions = X.base, X.positions
        elif (isinstance(X, np.ndarray) and X.ndim == 2) or is_dataset(X):
            self.positions = None
        else:
            shape = f" of shape {X.shape}" if hasattr(X, "shape") else ""
            raise TypeError(
                "RowView takes an array of two dimensions or a dataset of h5py or zarr, got "
                f"{type(X).__name__}{shape}. Convert a data frame by X.to_numpy(); pass a sparse "
                "matrix itself."
            )
        if isinstance(X, np.ma.MaskedArray):
            raise TypeError("RowView takes no masked array. Use X.filled(np.nan).")
        if X.dtype.kind not in "biuf" or X.dtype.itemsize > 8:
            raise TypeError(f"RowView takes numbers of at most 64 bits, got {X.dtype}.")
        # A memory map becomes a plain array, which joblib's caches treat as the same.
        self.base = np.asarray(X) if isinstance(X, np.ndarray) else X
        self.dtype = X.dtype

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and of columns."""
        n_rows = self.base.shape[0] if self.positions is None else len(self.positions)
        return n_rows, self.base.shape[1]

    def take(self, index: np.ndarray) -> np.ndarray:
        """Return the rows at positions `index` as an array."""
        rows = index if self.positions is None else self.positions[index]
        return as_source(self.base).take_in_any_order(rows)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, tuple):
            # scikit-learn takes rows by X[rows, ...], columns by X[:, columns].
            return self[key[0]] if key[1:] == (Ellipsis,) else self[:][key]
        if isinstance(key, slice) and self.positions is None:
            return np.asarray(self.base[key])
        positions = np.arange(len(self)) if self.positions is None else self.positions
        rows = positions[key]  # NumPy raises the errors
        if isinstance(key, slice):
            return RowView(self.base).take(rows)
        if np.ndim(rows) == 0:
            return RowView(self.base).take(rows[None])[0]
        view = RowView(self.base)
        view.positions = rows
        return view

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array: np.ndarray = self[:]
        return array.astype(array.dtype if dtype is None else dtype, copy=bool(copy))

    def __repr__(self) -> str:
        return f"RowView of {len(self)} rows of {self.dtype} of shape {self.base.shape}"
