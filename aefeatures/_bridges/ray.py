"""Fits and codes of Ray datasets on the workers of a cluster. Ray is imported when needed."""

from __future__ import annotations

import itertools
import pickle
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from aefeatures._autoencoder import AutoencoderTransformer, fitted_model, set_outcome
from aefeatures._files import read_file, write_file
from aefeatures._nets.contrastive import NeighborPreserving
from aefeatures._nets.model import Model
from aefeatures._nets.networks import plain
from aefeatures._nets.placing import place_scaling
from aefeatures._nets.regularizers import NearPCA, resolve_regularizers
from aefeatures._rows.batches import RowBatches, StreamedBatches
from aefeatures._rows.checks import check_rows
from aefeatures._rows.sources import as_source, evenly_spaced, iterate_slices
from aefeatures._rows.survey import Survey, with_values
from aefeatures._rows.tables import Table, TableSurvey, is_table, set_table, table_of
from aefeatures._sklearn import check_parameters, has_callbacks
from aefeatures._torch.devices import PRECISIONS, resolve_device
from aefeatures._torch.random_state import seed_beside, unaffected
from aefeatures._torch.ranks import Ranks, current_ranks, distributed
from aefeatures._train.fitting import Fit, Trained, regularizers_of, resolve_max_epochs
from aefeatures._train.starting import Memory, build, draw_seed, fresh_memory, scale
from aefeatures._train.training import TrainingResult, TrainingState, Watcher, diagnose
from aefeatures._warnings import warn

if TYPE_CHECKING:
    from ray.data import Dataset

# Numbers in a worker's chunk of rows, 64 MB in float32. Rows are shuffled within a chunk.
# Ray delivers a chunk in parts, so that its copies of the rows stay small.
_CHUNK_ELEMENTS = 16_000_000
_PARTS_OF_CHUNK = 8

# Number of rows that show whether a fit learned anything, and how many of them a block may add.
_SAMPLE_ROWS = 512
_SAMPLE_ROWS_OF_BLOCK = 16

_SECONDS_BETWEEN_CHECKPOINTS = 1.0
_FILE = "fit.safetensors"

# Rows that show whether a dataset is a table.
_FIRST_ROWS = 1000

# Number of files whose column types one task reads.
_FILES_PER_TASK = 200

# Operators of Ray in a dataset that only reads files.
_READING = {"ListFiles", "ReadFiles"}


def fit_on_ray(
    estimator: AutoencoderTransformer,
    dataset: Dataset,
    *,
    feature_columns: Sequence[str] | str | None = None,
    num_workers: int = 2,
    use_gpu: bool = False,
    storage_path: str | None = None,
    max_failures: int = 3,
    resources_per_worker: dict[str, float] | None = None,
) -> AutoencoderTransformer:
    """Return an estimator that was trained on a dataset of Ray, by workers of Ray Train.

    The dataset is streamed: once for the statistics that the scaling needs, then once an epoch. The
    result needs no Ray.

    Parameters
    ----------
    estimator : AutoencoderTransformer
        Not fitted; a clone of it is.
    dataset : ray.data.Dataset
        Of columns of numbers, or of arrays of one shape, which are flattened. Or of columns of
        numbers, text, categories, dates and durations, whose levels are learned as in `fit`. Null
        and NaN are missing values.
    feature_columns : str or sequence of str, default=None
        The columns to learn from; None means all.
    num_workers : int, default=2
        They train together as within `distributed`: each takes `batch_size` rows a step.
    use_gpu : bool, default=False
        Whether each worker has a GPU, which is then what the devices "auto" and "cuda" mean. Else
        "auto" is the CPU.
    storage_path : str, default=None
        A folder or an address that all machines of the cluster reach, for checkpoints. Each fit
        leaves a folder of its own there. None is a temporary folder, which only workers on this
        machine reach.
    max_failures : int, default=3
        How often workers may fail, or be lost with their machine. Then all of them start again from
        the last checkpoint, which is written after each epoch, at most once a second.
    resources_per_worker : dict, default=None
        As of `ray.train.ScalingConfig`. None is a CPU, or so much less that one is left for reading
        the dataset, and a GPU with `use_gpu`.

    Returns
    -------
    fitted : AutoencoderTransformer

    Raises
    ------
    ImportError
        If Ray is not installed.
    TypeError, ValueError
        If the estimator, a parameter or the dataset cannot be used: it is fitted already, there are
        no rows, a column is missing, or it holds values that are not supported.
    FloatingPointError
        If the training diverges.

    Warns
    -----
    ConvergenceWarning
        If nothing was learned.

    Notes
    -----
    Rows are shuffled within chunks of up to 16 million numbers of a worker. Data that is sorted
    should be shuffled before, or files be read in random order: ``ray.data.read_parquet(...,
    shuffle="files")``. An epoch may leave out some rows, fewer than there are workers. With a
    `random_state`, and a dataset that is read in the same order each time, a fit is the same bit
    for bit when it is repeated, also where workers were lost.

    Whether a dataset has categories, dates or durations is seen from the types of its columns and
    its first rows. After such a fit, `inverse_transform` and `reconstruct` return frames of pandas.

    `early_stopping`, `checkpoint`, callbacks, a network that reads principal components, and
    regularizers that ask for labels or other rows (`Supervised`, `NeighborPreserving`, `NearPCA`)
    cannot be used. The default ``regularizer="auto"`` is noise alone here, and ``init="auto"`` is
    "random", so that the result is not quite that of `fit`.
    """
    _import_ray()
    _check_estimator(estimator)
    num_workers = _check_count("num_workers", num_workers)
    names = _resolve_columns(dataset, feature_columns)
    survey, table = _look_at(dataset, names, estimator)
    if survey is None or survey.n_rows < num_workers:
        raise ValueError(
            f"Found no row for each of the num_workers={num_workers}: the dataset has "
            f"{0 if survey is None else survey.n_rows} rows."
        )
    fitted = clone(estimator)
    _check_names(fitted, names, survey.n_features, table)
    given = plain(fitted)
    device = torch.device("cpu")  # here; workers have devices of their own
    if not use_gpu and fitted.device != "auto":
        device = resolve_device(fitted.device)
    sample, survey.sample = survey.sample, np.empty(0)
    scaling, fill = scale(given, survey, device, table)
    model = build(given, None, survey, scaling, fill, draw_seed(given.random_state), device)
    task = _Task(
        given,
        model,
        table,
        names,
        survey.n_rows // num_workers,
        survey.dtype,
        survey.missing,
        resolve_max_epochs(
            given.max_epochs,
            survey.n_rows,
            given.batch_size * num_workers,
            resolve_regularizers(given.regularizer),
        ),
        use_gpu,
    )

    resources = resources_per_worker or _resources(num_workers, use_gpu)
    trained = _train_on_cluster(
        task, dataset, num_workers, resources, storage_path, plain(max_failures)
    )
    _warn_if_nothing_learned(trained, given, sample)
    return set_outcome(fitted, trained, task.max_epochs)


def _train_on_cluster(
    task: _Task,
    dataset: Dataset,
    num_workers: int,
    resources: dict[str, float],
    storage_path: str | None,
    max_failures: int,
) -> Trained:
    """Return the outcome of a task that the workers of Ray Train have done together."""
    from ray.train import CheckpointConfig, DataConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    options = DataConfig.default_ingest_options()
    options.preserve_order = True  # an epoch that is begun again is to be the same
    with tempfile.TemporaryDirectory() as folder:
        trainer = TorchTrainer(
            _work,
            train_loop_config={"task": task},
            datasets={"train": dataset.select_columns(task.names)},
            dataset_config=DataConfig(execution_options=options),
            scaling_config=ScalingConfig(
                num_workers=num_workers, use_gpu=task.use_gpu, resources_per_worker=resources
            ),
            run_config=RunConfig(
                name=f"aefeatures-{uuid4().hex}",  # names by Ray may be equal within a second
                storage_path=_absolute(storage_path or folder),
                failure_config=FailureConfig(max_failures=max_failures),
                checkpoint_config=CheckpointConfig(num_to_keep=2),
            ),
        )
        result = trainer.fit().return_value
    if isinstance(result, Exception):
        raise result
    trained: Trained = pickle.loads(result)
    return trained


def transform_on_ray(
    estimator: AutoencoderTransformer,
    dataset: Dataset,
    *,
    batch_size: int = 4096,
    num_workers: int = 2,
    use_gpu: bool = False,
    feature_columns: Sequence[str] | str | None = None,
    output_columns: Sequence[str] | str | None = None,
    keep_columns: Sequence[str] | str | None = None,
) -> Dataset:
    """Return a Ray dataset with the codes of its rows as additional columns.

    The dataset is computed when it is read or written, one batch at a time, by actors that load the
    model once. If an actor is lost, Ray starts it again and gives its batch to another actor.

    Parameters
    ----------
    estimator : AutoencoderTransformer
        Fitted estimator, with or without Ray.
    dataset : ray.data.Dataset
        Rows to encode.
    batch_size : int, default=4096
        Number of rows that an actor encodes at once.
    num_workers : int, default=2
        Number of actors.
    use_gpu : bool, default=False
        Whether each actor has a GPU.
    feature_columns : str or sequence of str, default=None
        Columns to encode. None means the columns that the estimator was fitted on. If the estimator
        has no names, the dataset must have only one column.
    output_columns : str or sequence of str, default=None
        Names of the columns of the codes. None means the names of `get_feature_names_out`.
    keep_columns : str or sequence of str, default=None
        Columns of the dataset to keep. None means all columns.

    Returns
    -------
    dataset : ray.data.Dataset
        The columns that are kept, then the codes.

    Raises
    ------
    ImportError
        If Ray is not installed.
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.
    TypeError, ValueError
        If a parameter or the columns cannot be used. A value that cannot be encoded is an error
        when the dataset is computed.
    """
    ray = _import_ray()
    _check_kind(estimator)
    check_is_fitted(estimator)
    num_workers = _check_count("num_workers", num_workers)
    batch_size = _check_count("batch_size", batch_size)
    if feature_columns is None:
        feature_columns = getattr(estimator, "feature_names_in_", None)
    names = _resolve_columns(dataset, feature_columns)
    if feature_columns is None and len(names) > 1:
        raise ValueError(
            "estimator was fitted without column names, and the dataset has several columns: "
            f"{_shortened(names)}. Name the columns to encode in feature_columns."
        )
    schema = dataset.columns() or []
    kept = _as_list(schema if keep_columns is None else keep_columns)
    outputs = _as_list(
        estimator.get_feature_names_out() if output_columns is None else output_columns
    )
    _check_available("keep_columns", kept, schema)
    table = table_of(estimator)
    if table is not None and len(names) != len(table.columns):
        raise ValueError(
            f"estimator was fitted on {len(table.columns)} columns, but feature_columns has "
            f"{len(names)}: {_shortened(names)}."
        )
    n_components = fitted_model(estimator).n_components
    if len(outputs) != n_components:
        raise ValueError(f"output_columns must name {n_components} columns, got {outputs!r}.")
    duplicates = sorted(name for name, count in Counter(outputs + kept).items() if count > 1)
    if duplicates:
        raise ValueError(
            f"Columns {duplicates} would occur twice. Choose other names in output_columns, "
            "or leave them out of keep_columns."
        )
    resources = _resources(num_workers, use_gpu)
    return dataset.map_batches(
        _Encoder,
        fn_constructor_args=[ray.cloudpickle.dumps(estimator), names, kept, outputs],
        batch_size=batch_size,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=num_workers),
        num_cpus=resources["CPU"],
        num_gpus=resources.get("GPU"),
    )


class _Encoder:
    """Actor that adds codes to tables."""

    def __init__(
        self, pickled: bytes, names: list[str], kept: list[str], outputs: list[str]
    ) -> None:
        self._estimator = pickle.loads(pickled).set_output(transform="default")
        # `transform_on_ray` checked the names. A column may be an array of many features.
        vars(self._estimator).pop("feature_names_in_", None)
        self._names, self._kept, self._outputs = names, kept, outputs

    def __call__(self, table: Any) -> Any:
        codes = self._encode(table.select(self._names))
        table = table.select(self._kept)
        for name, code in zip(self._outputs, codes.T, strict=True):
            table = table.append_column(name, [np.ascontiguousarray(code)])
        return table

    def _encode(self, batch: Any) -> np.ndarray:
        from ray.data.block import BlockAccessor

        estimator = self._estimator
        table = table_of(estimator)
        if table is not None:
            frame = _to_frame(batch, self._names)
            rows = as_source(_table_numbers(frame, table))
            return fitted_model(estimator).encode(rows, estimator.device_)
        columns = BlockAccessor.for_block(batch).to_numpy(self._names)
        codes: np.ndarray = estimator.transform(_to_matrix(columns, self._names))
        return codes


# Statistics of a dataset before the training


def _is_table(dataset: Dataset, names: list[str], categorical_features: Any) -> bool:
    """Whether the first rows have categories, dates or durations."""
    first = dataset.select_columns(names).limit(_FIRST_ROWS)
    with _errors_of_reading():
        batches = list(first.iter_batches(batch_size=None, batch_format="pyarrow"))
    return any(is_table(_to_frame(batch, names), categorical_features) for batch in batches)


@dataclass
class _Found:
    """Statistics of a part of a table.

    Attributes
    ----------
    about : TableSurvey
    survey : Survey
        Of the rows with any known value. The codes of levels are those of this part.
    samples : list of pandas.DataFrame
        A few of the rows.
    """

    about: TableSurvey
    survey: Survey
    samples: list[Any]

    def join(self, other: _Found) -> None:
        """Add another part."""
        self.about.join(other.about)
        self.survey.join(other.survey)
        self.samples += other.samples
        if len(self.samples) * _SAMPLE_ROWS_OF_BLOCK >= 2 * _SAMPLE_ROWS:
            self.samples = self.samples[::2]


def _survey_table_block(
    batch: Any, names: list[str], categorical_features: Any
) -> dict[str, list[bytes]]:
    """Return what a block of a table holds, as `_survey_block` does."""
    found: Any = None
    try:
        frame = _to_frame(batch, names)
        if len(frame):
            about = TableSurvey.of(frame, categorical_features)
            assert about is not None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the levels of all blocks count
                numbers = _table_numbers(frame, about.table(None, None))
            known = np.flatnonzero(~np.isnan(numbers).all(axis=1))
            chosen = known[evenly_spaced(len(known), _SAMPLE_ROWS_OF_BLOCK)]
            found = _Found(about, Survey.of(numbers[known]), [frame.iloc[chosen]])
    except ValueError as error:
        found = error
    return {"found": [pickle.dumps(found)]}


def _survey_table(dataset: Dataset, names: list[str], categorical_features: Any) -> _Found | None:
    """Read a table once and return what it holds, or None if it has no rows."""
    found: _Found | None = None
    parts = dataset.select_columns(names).map_batches(
        _survey_table_block,
        fn_args=[names, categorical_features],
        batch_size=None,
        batch_format="pyarrow",
    )
    for of_block in _results(parts):
        if found is None:
            found = of_block
        else:
            found.join(of_block)
    return found


def _look_at(
    dataset: Dataset, names: list[str], estimator: AutoencoderTransformer
) -> tuple[Survey | None, Table | None]:
    """Read the dataset once; return its statistics if it has rows, and its table if it is one."""
    chosen = estimator.categorical_features
    if not _is_table(dataset, names, chosen):
        return _survey(dataset, names), None
    found = _survey_table(dataset, names, chosen)
    if found is None:
        return None, None
    table = found.about.table(estimator.min_frequency, estimator.max_categories)
    found.survey.sample = np.concatenate([table.numbers(rows) for rows in found.samples])
    return found.survey, table


def _survey_block(batch: dict[str, np.ndarray], names: list[str]) -> dict[str, list[bytes]]:
    """Return the survey of a block as a row of a dataset, or an error if the block is unusable."""
    found: Any = None
    try:
        for part in iterate_slices(len(batch[names[0]]), len(names)):
            rows = _to_matrix({name: batch[name][part] for name in names}, names)
            survey = Survey.of(with_values(rows), n_sampled=_SAMPLE_ROWS_OF_BLOCK)
            found = survey if found is None else _merged(found, survey)
    except ValueError as error:  # the driver raises it, without tracebacks of the cluster
        found = error
    return {"found": [pickle.dumps(found)]}


def _survey(dataset: Dataset, names: list[str]) -> Survey | None:
    """Read the dataset once and return its statistics, or None if it has no rows."""
    survey: Survey | None = None
    parts = dataset.select_columns(names).map_batches(
        _survey_block, fn_args=[names], batch_size=None, batch_format="numpy"
    )
    for of_block in _results(parts):
        survey = of_block if survey is None else _merged(survey, of_block)
    return survey


def _results(parts: Dataset) -> Iterator[Any]:
    """Yield what was found in blocks that have rows, or raise the error of a block."""
    with _errors_of_reading():
        for row in parts.iter_rows():
            found = pickle.loads(row["found"])
            if isinstance(found, Exception):
                raise found
            if found is not None:
                yield found


def _merged(survey: Survey, other: Survey) -> Survey:
    survey.join(other)
    if len(survey.sample) >= 2 * _SAMPLE_ROWS:
        survey.sample = survey.sample[evenly_spaced(len(survey.sample), _SAMPLE_ROWS)]
    return survey


def _to_matrix(batch: dict[str, np.ndarray], names: list[str]) -> np.ndarray:
    """Return the columns of a batch as one matrix. Arrays in a column are flattened."""
    parts = [_to_numbers(batch[name], name) for name in names]
    if len(parts) == 1:
        return parts[0]
    return np.ascontiguousarray(np.concatenate([part.T for part in parts]).T)


def _to_numbers(column: np.ndarray, name: str) -> np.ndarray:
    """Return a column as a matrix of numbers. None, even instead of an array, becomes NaN."""
    if column.dtype.kind == "O" and len(column):
        values = column.tolist()
        shapes = sorted({np.shape(value) for value in values if value is not None})
        if len(shapes) > 1:
            raise ValueError(
                f"Column {name!r} must hold numbers, or arrays of one shape, got shapes "
                f"{shapes[0]} and {shapes[1]}."
            )
        missing = np.full(shapes[0] if shapes else (), np.nan, np.float32)
        arrays = [missing if value is None else np.asarray(value) for value in values]
        if all(array.dtype.kind in "biuf" for array in arrays):
            column = np.stack(arrays)
    if column.dtype.kind not in "biuf":
        others = (value for value in column if not isinstance(value, (int, float, type(None))))
        other = next(others, None)
        raise ValueError(
            f"Column {name!r} must hold numbers, or arrays of one shape, got "
            f"{type(other).__name__}: {str(other)[:60]!r}."
        )
    if column.dtype.kind == "f" and np.isinf(column).any():
        raise ValueError(f"Column {name!r} contains infinity.")
    return column.reshape(len(column), -1)


def _to_frame(batch: Any, names: list[str]) -> Any:
    """Return a batch of pyarrow as a frame, in which integers and booleans may be missing."""
    import pandas as pd
    import pyarrow as pa

    kinds = [pd.Int8Dtype, pd.Int16Dtype, pd.Int32Dtype, pd.Int64Dtype, pd.BooleanDtype]
    kinds += [pd.UInt8Dtype, pd.UInt16Dtype, pd.UInt32Dtype, pd.UInt64Dtype]
    types = {pa.from_numpy_dtype(kind().numpy_dtype): kind() for kind in kinds}
    frame = batch.select(names).unify_dictionaries().to_pandas(types_mapper=types.get)
    for name in names:
        if "pickled_object" in str(batch.schema.field(name).type):  # Ray's type for any objects
            frame[name] = frame[name].astype(object)
    return frame


def _table_numbers(frame: Any, table: Table) -> np.ndarray:
    """Return a frame with the columns of a table as a matrix of numbers."""
    numbers = table.numbers(frame)
    infinite = np.isinf(numbers).any(axis=0)
    if infinite.any():
        raise ValueError(f"Column {frame.columns[infinite.argmax()]!r} contains infinity.")
    return numbers


@contextmanager
def _errors_of_reading() -> Iterator[None]:
    """Turn errors of Ray while it reads a dataset into a ValueError."""
    from pyarrow import ArrowException
    from ray.exceptions import RayError

    try:
        yield
    except (RayError, ArrowException) as error:
        raise ValueError(f"The dataset cannot be read: {error}") from error


# The training in a worker


@dataclass(frozen=True)
class _Task:
    """Task of each worker.

    Attributes
    ----------
    given : AutoencoderTransformer
        Estimator that holds the parameters, with numbers of Python.
    model : Model
        Model with its initial weights.
    table : Table or None
    names : list of str
        Columns of the dataset.
    n_rows : int
        Approximate number of rows that a worker gets in an epoch.
    dtype : numpy.dtype
        Common dtype of the columns.
    missing : bool
        Whether any value is missing.
    max_epochs : int
    use_gpu : bool
    """

    given: AutoencoderTransformer
    model: Model
    table: Table | None
    names: list[str]
    n_rows: int
    dtype: np.dtype
    missing: bool
    max_epochs: int
    use_gpu: bool

    @property
    def batch_size(self) -> int:
        """Number of rows of a worker in a step."""
        return min(self.given.batch_size, max(1, self.n_rows))


def _work(config: dict[str, Any]) -> Any:
    """Train with the other workers; return the pickled outcome, or what is wrong with it."""
    from ray import cloudpickle

    task: _Task = config["task"]
    with distributed():
        ranks = current_ranks()
        try:
            with ranks.together():
                trained = _train(task, ranks)
        except Exception as error:
            # An error that would occur again is handed over. Ray replaces a worker that was lost.
            if ranks.told or isinstance(error, (ArithmeticError, TypeError, ValueError)):
                return error
            raise
    memory = Memory(trained.memory.rng, trained.memory.n_steps, trained.memory.learns_missing)
    result = replace(trained.result, optimizer_state=None)  # on this worker's device
    # A loss may be of a notebook.
    return cloudpickle.dumps(replace(trained, memory=memory, result=result))


def _train(task: _Task, ranks: Ranks) -> Trained:
    given, model = task.given, task.model
    device = _device_of_worker(given.device, task.use_gpu)
    batches = StreamedBatches(
        partial(_chunks, task),
        (task.n_rows, len(model.fill.values)),
        place_scaling(model.scaling, device),
        batch_size=task.batch_size,
        device=device,
        dtype=PRECISIONS[given.precision],
        no_single_rows=not model.is_as_built,
    )

    # A stream of rows has no principal axes.
    regularizers = [each for each in regularizers_of(given, model) if not isinstance(each, NearPCA)]
    return Fit(
        given,
        model,
        fresh_memory(model.seed, ranks),
        batches,
        device,
        regularizers,
        n_rows=sum(ranks.gather(task.n_rows)),
        max_epochs=task.max_epochs,
        schedule=given.learning_rate_schedule,
        missing=task.missing,
        ranks=ranks,
    ).run(keeper=_Reports(ranks, model.seed))


def _chunks(task: _Task) -> Iterator[np.ndarray]:
    """Yield the rows of this worker in an epoch, in chunks of whole batches."""
    from ray import train

    shard = train.get_dataset_shard("train")
    n_features = task.model.n_features
    size = task.batch_size
    n_rows_of_part = size * max(1, _CHUNK_ELEMENTS // (_PARTS_OF_CHUNK * n_features * size))
    chunk = np.empty((_PARTS_OF_CHUNK * n_rows_of_part, n_features), task.dtype)
    n_rows = 0
    kind = "numpy" if task.table is None else "pyarrow"
    for batch in shard.iter_batches(batch_size=n_rows_of_part, batch_format=kind):
        if task.table is None:
            rows = _to_matrix(batch, task.names)
        else:
            rows = _table_numbers(_to_frame(batch, task.names), task.table)
        part = with_values(rows)
        chunk[n_rows : n_rows + len(part)] = part
        n_rows += len(part)
        if n_rows + n_rows_of_part > len(chunk):
            yield chunk[:n_rows]
            n_rows = 0
    if n_rows:
        yield chunk[:n_rows]


def _device_of_worker(device: str | torch.device, use_gpu: bool) -> torch.device:
    """Return the device on which this worker trains.

    A worker sees all GPUs of its machine. "cuda" means the current GPU, which Ray has assigned.
    """
    if str(device) == "auto":
        device = "cuda" if use_gpu else "cpu"
    return resolve_device(device)


class _Reports(Watcher):
    """Watcher that saves checkpoints with Ray, and resumes from the last checkpoint."""

    def __init__(self, ranks: Ranks, seed: int) -> None:
        self._ranks, self._seed = ranks, seed
        self._last = time.monotonic()
        self._state: TrainingState | None = None

    def begin(self, state: TrainingState) -> None:
        from ray import train

        self._state = state
        checkpoint = train.get_checkpoint()
        if checkpoint is None:
            return
        with checkpoint.as_directory() as folder:
            state.load(*read_file(Path(folder, _FILE)))

    def begin_epoch(self) -> None:
        """Seed the epoch, because a checkpoint contains only the random state of rank 0."""
        assert self._state is not None
        seed = [self._seed, self._ranks.rank, len(self._state.result.loss_curve)]
        rng = np.random.default_rng(seed)
        self._state.generator.manual_seed(int(rng.integers(2**63)))
        self._state.draws.manual_seed(seed_beside(rng))
        self._state.rng.bit_generator.state = rng.bit_generator.state

    def end_epoch(self, result: TrainingResult) -> bool:
        from ray import train

        assert self._state is not None
        due = time.monotonic() - self._last >= _SECONDS_BETWEEN_CHECKPOINTS
        if not (self._state.stopped or self._ranks.gather(due)[0]):
            return False
        metrics = {"epoch": len(result.loss_curve), "loss": result.loss_curve[-1]}
        if self._ranks.rank != 0:
            train.report(metrics)
        else:
            with tempfile.TemporaryDirectory() as folder:
                write_file(Path(folder, _FILE), *self._state.save(), "checkpoint")
                train.report(metrics, checkpoint=train.Checkpoint.from_directory(folder))
        self._last = time.monotonic()
        return False


# Checks


def _import_ray() -> Any:
    try:
        import ray
        import ray.data
        import ray.train
    except ImportError as error:
        raise ImportError(
            "Ray, or a part of it, is not installed: pip install 'aefeatures[ray]'."
        ) from error
    return ray


def _check_kind(estimator: Any) -> None:
    if not isinstance(estimator, AutoencoderTransformer):
        raise TypeError(
            f"estimator must be an AutoencoderTransformer, got {type(estimator).__name__}."
        )


def _check_estimator(estimator: Any) -> None:
    _check_kind(estimator)
    if hasattr(estimator, "encoder_"):
        raise ValueError(
            "estimator is fitted already, but fit_on_ray trains a new one. Pass "
            "sklearn.base.clone(estimator)."
        )
    check_parameters(estimator)
    for name, unused in (("early_stopping", False), ("checkpoint", None)):
        if getattr(estimator, name) != unused:
            raise ValueError(f"fit_on_ray does not support {name}. Set it to {unused}.")
    if has_callbacks(estimator):
        raise ValueError("fit_on_ray does not support callbacks. Remove them with set_callbacks().")
    if getattr(estimator.network, "n_principal_components", None) is not None:
        raise ValueError(
            "n_principal_components needs rows in memory, but fit_on_ray streams them. Set it to "
            "None, or fit within distributed()."
        )
    for regularizer in resolve_regularizers(estimator.regularizer):
        if regularizer.requires_y or isinstance(regularizer, (NearPCA, NeighborPreserving)):
            raise ValueError(
                f"{type(regularizer).__name__} needs labels or other rows, but fit_on_ray streams "
                "rows without labels. Fit within distributed() on rows in memory."
            )


def _check_count(name: str, value: Any) -> int:
    if not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value!r}.")
    return int(value)


def _resolve_columns(dataset: Dataset, columns: Any) -> list[str]:
    """Return the names of the columns to read, which every file must have."""
    import ray.data

    if not isinstance(dataset, ray.data.Dataset):
        raise TypeError(f"dataset must be a ray.data.Dataset, got {type(dataset).__name__}.")
    requested = None if columns is None else [str(name) for name in _as_list(columns)]
    with _errors_of_reading():
        try:
            available = dataset.columns() or []
        except Exception:
            _check_files(dataset, requested)  # may raise a clearer error
            raise
        names = available if requested is None else requested
        _check_available("feature_columns", names, available)
        _check_files(dataset, names)
    if not names:
        raise ValueError("The dataset has no columns.")
    return names


def _as_list(names: Sequence[str] | str) -> list[str]:
    """Return a list of names. A string is one name."""
    return [names] if isinstance(names, str) else list(names)


def _check_available(parameter: str, names: list[str], available: list[str]) -> None:
    missing = [name for name in names if name not in available]
    if missing:
        raise ValueError(
            f"{parameter}: the dataset has no columns {missing}. It has {_shortened(available)}."
        )


def _check_files(dataset: Dataset, names: Sequence[str] | None) -> None:
    """Raise an error if a Parquet file lacks a column that other files have.

    Ray fills such a column with nulls, which would be missing values. If the dataset does more than
    reading, a column that has numbers in no file is not checked, because it may be computed from
    others. A column may be converted to numbers, so that only its presence is checked.
    """
    import ray

    read = ray.remote(_types_of_files)
    sets, only_read = _parquet_files(dataset)
    tasks = [
        [
            read.remote(filesystem, paths[i : i + _FILES_PER_TASK])
            for i in range(0, len(paths), _FILES_PER_TASK)
        ]
        for filesystem, paths in sets
    ]
    for tasks_of_set in tasks:
        files = dict(itertools.chain(*ray.get(tasks_of_set)))
        for name in dict.fromkeys(itertools.chain(*files.values())) if names is None else names:
            types = {path: each.get(name) for path, each in files.items()}
            has_numbers = any(kind is not None and kind[1] for kind in types.values())
            if not (has_numbers or (only_read and names is not None and any(types.values()))):
                continue
            for path, kind in types.items():
                if kind is None:
                    raise ValueError(f"The file {path} has no column {name!r}, but others do.")
                if only_read and has_numbers and not kind[1]:
                    raise ValueError(
                        f"Column {name!r} must hold numbers or arrays of numbers, but has type "
                        f"{kind[0]} in the file {path}."
                    )


def _parquet_files(dataset: Dataset) -> tuple[list[tuple[Any, list[str]]], bool]:
    """Return the Parquet files that a dataset reads, and whether it does nothing else.

    Each item is a file system and the paths of files that are read together. Ray has no public API
    for them. If a version of Ray lacks the private one, no files are found.
    """
    from pyarrow import fs

    sets = []
    plan = getattr(dataset, "_logical_plan", None)
    operators = [] if plan is None else [plan.dag]
    for operator in operators:
        operators += operator.input_dependencies
        filesystem = getattr(operator, "filesystem", None)
        if not isinstance(filesystem, fs.FileSystem):
            continue
        paths: list[str] = []
        for info in filesystem.get_file_info(list(getattr(operator, "paths", ()))):
            inside = [info]
            if info.type == fs.FileType.Directory:
                inside = filesystem.get_file_info(fs.FileSelector(info.path, recursive=True))
            paths += [each.path for each in inside if each.path.endswith(".parquet")]
        sets.append((filesystem, sorted(paths)))
    return sets, {type(operator).__name__ for operator in operators} <= _READING


def _types_of_files(
    filesystem: Any, paths: list[str]
) -> list[tuple[str, dict[str, tuple[str, bool]]]]:
    """Return the types of the columns of each file, and whether they may hold numbers."""
    from pyarrow import parquet, types

    no_numbers = (types.is_string, types.is_large_string, types.is_temporal, types.is_decimal)
    schemas = [(path, parquet.read_schema(path, filesystem=filesystem)) for path in paths]
    return [
        (
            path,
            {
                each.name: (str(each.type), not any(kind(each.type) for kind in no_numbers))
                for each in schema
            },
        )
        for path, schema in schemas
    ]


def _check_names(
    estimator: AutoencoderTransformer, names: list[str], n_features: int, table: Table | None
) -> None:
    """Set the number, the names and the table of the columns on the estimator."""
    import pandas as pd

    if table is not None:
        rows = pd.DataFrame(columns=names)
        validate_data(estimator, rows, reset=True, skip_check_array=True)
        set_table(estimator, table)
        return
    empty = np.empty((0, n_features), np.float32)
    named = len(names) == n_features
    rows = pd.DataFrame(empty, columns=names) if named else empty
    check_rows(estimator, rows, reset=True, min_rows=0)


def _absolute(path: str) -> str:
    """Return a local path as an absolute path, which is the same in workers, or an address."""
    return str(path) if "://" in str(path) else str(Path(path).absolute())


def _resources(num_workers: int, use_gpu: bool) -> dict[str, float]:
    """Return the resources of a worker, so that a CPU is left for reading the dataset."""
    import ray

    n_cpus = ray.cluster_resources().get("CPU", 1)
    cpus = round(min(1.0, max(n_cpus - 1, 0.5) / num_workers), 4)
    return {"CPU": cpus, "GPU": 1} if use_gpu else {"CPU": cpus}


def _warn_if_nothing_learned(trained: Trained, given: Any, rows: np.ndarray) -> None:
    model = trained.model
    loss = model.row_loss(torch.device("cpu"), missing=True)
    batches = RowBatches(
        rows,
        model.scaling,
        batch_size=len(rows),
        device=torch.device("cpu"),
        dtype=PRECISIONS[given.precision],
    )
    encoder = nn.Sequential(model.fill, model.encoder)
    with unaffected(model.seed, model.network, model.loss):
        nothing_learned = diagnose(nn.Sequential(encoder, model.decoder), batches, loss)
    if nothing_learned:
        warn(
            f"fit_on_ray learned nothing: {nothing_learned}. Change max_epochs, learning_rate or "
            "scaling of the estimator.",
            ConvergenceWarning,
        )


def _shortened(names: Sequence[str]) -> str:
    return f"{', '.join(names[:10])}{', ...' if len(names) > 10 else ''}"
