import os
import pickle
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from aefeatures import AutoencoderTransformer, DenseNetwork, fit_on_ray, transform_on_ray
from aefeatures._bridges.ray import (
    _absolute,
    _check_estimator,
    _device_of_worker,
    _Encoder,
    _resolve_columns,
    _survey_block,
    _survey_table_block,
    _to_matrix,
    _to_numbers,
)
from aefeatures._rows.scaling import learn_scaling
from aefeatures._rows.survey import Survey
from aefeatures._rows.tables import learn_table

X, Y = load_digits(return_X_y=True)
X = X.astype(np.float32)
PIXELS = [f"p{i}" for i in range(64)]
CODES = [f"autoencodertransformer{i}" for i in range(3)]


def scaled_by_blocks(rows, how):
    blocks = [_survey_block({"data": each}, ["data"]) for each in np.array_split(rows, 7)]
    survey, *others = [pickle.loads(block["found"][0]) for block in blocks]
    for other in others:
        survey.join(other)
    return survey, learn_scaling(survey, how)


@pytest.mark.parametrize("how", ["auto", "standard", "feature", "global", None])
@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_blocks_tell_what_all_rows_do(how, dtype):
    rows = (X * 15).astype(dtype)
    about, (scaling, means) = scaled_by_blocks(rows, how)
    expected, expected_means = learn_scaling(Survey.of(rows), how)
    assert (about.n_rows, about.n_features, about.missing) == (1797, 64, False)
    assert scaling.bounded == expected.bounded
    np.testing.assert_allclose(scaling.offset, expected.offset, rtol=1e-12)
    np.testing.assert_allclose(scaling.scale, expected.scale, rtol=1e-12)
    np.testing.assert_allclose(means, expected_means, rtol=1e-12)


def test_blocks_of_missing_values():
    rows = X.copy()
    rows[:300, 3] = np.nan
    rows[:, 5] = np.nan
    about, (scaling, _) = scaled_by_blocks(rows, "standard")
    assert about.missing
    np.testing.assert_allclose(scaling.scale, learn_scaling(Survey.of(rows), "standard")[0].scale)


@pytest.mark.parametrize("how", ["auto", "standard", "feature", "global", None])
def test_blocks_and_rows_of_missing_values_alone_count_for_nothing(how):
    rows = 5 + X
    empty = np.full((600, 64), np.nan, np.float32)
    about, (scaling, means) = scaled_by_blocks(np.vstack([rows, empty]), how)
    expected, expected_means = learn_scaling(Survey.of(rows), how)
    assert about.n_rows == 1797
    np.testing.assert_allclose(scaling.offset, expected.offset, rtol=1e-12)
    np.testing.assert_allclose(scaling.scale, expected.scale, rtol=1e-12)
    np.testing.assert_allclose(means, expected_means, rtol=1e-12)
    assert not np.isnan(about.sample).any()


def test_columns_of_numbers_and_of_arrays_side_by_side():
    pictures = np.empty(4, dtype=object)
    pictures[:] = [np.full((2, 2), i) for i in range(4)]
    batch = {"a": np.arange(4.0), "pictures": pictures, "nothing": np.array([None] * 4)}
    found = _to_matrix(batch, ["a", "pictures", "nothing"])
    assert found.shape == (4, 6)
    np.testing.assert_array_equal(found[2], [2, 2, 2, 2, 2, np.nan])


def objects(*values):
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def test_none_is_missing():
    flags = _to_numbers(objects(True, None, False), "a")
    np.testing.assert_array_equal(flags, [[1], [np.nan], [0]])
    rows = _to_numbers(objects(None, np.ones(2), [2, 3]), "a")
    np.testing.assert_array_equal(rows, [[np.nan, np.nan], [1, 1], [2, 3]])


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (objects(None, "2"), r"'a' must hold numbers, .* got str: '2'"),
        (
            objects(np.ones(3), None, np.ones(2)),
            r"'a' .* of one shape, got shapes \(2,\) and \(3,\)",
        ),
        (objects(1.0, np.ones(2)), r"'a' .* of one shape, got shapes \(\) and \(2,\)"),
        (np.array(["1", "2"], dtype=object), r"'a' must hold numbers, .* got str: '1'"),
        (np.array([1.0, "2"], dtype=object), r"'a' must hold numbers, .* got str: '2'"),
        (np.array(["2020-01-01"], dtype="datetime64[D]"), r"'a' must hold numbers, .* got date"),
        (np.array([1.0, np.inf]), "Column 'a' contains infinity"),
    ],
)
def test_columns_of_something_else(column, message):
    with pytest.raises(ValueError, match=message):
        _to_matrix({"a": column}, ["a"])


@pytest.mark.parametrize(
    ("device", "use_gpu", "asked"),
    [
        ("auto", True, "cuda"),  # which is the current one, as Ray Train sets it
        ("cuda", True, "cuda"),
        ("cuda:1", True, "cuda:1"),
        ("auto", False, "cpu"),
        ("cpu", True, "cpu"),
    ],
)
def test_device_that_a_worker_asks_for(monkeypatch, device, use_gpu, asked):
    monkeypatch.setattr("aefeatures._bridges.ray.resolve_device", lambda device: device)
    assert _device_of_worker(device, use_gpu) == asked


@pytest.mark.filterwarnings("error")
def test_current_gpu_of_a_worker_where_there_are_none(monkeypatch):
    """PyTorch is told of two GPUs, of which the second is current; nothing computes on them."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert _device_of_worker("auto", True) == torch.device("cuda:1")
    assert _device_of_worker("cuda", True) == torch.device("cuda:1")
    assert _device_of_worker("auto", False) == torch.device("cpu")


def test_principal_components_are_refused():
    with pytest.raises(
        ValueError, match="n_principal_components needs rows in memory, but fit_on_ray"
    ):
        _check_estimator(small(network=DenseNetwork((8,), n_principal_components=5)))
    _check_estimator(small(network=DenseNetwork((8,))))
    _check_estimator(small())


def test_local_paths_are_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert _absolute("a/b") == str(tmp_path / "a" / "b")
    assert _absolute(tmp_path) == str(tmp_path)
    assert _absolute("s3://bucket/a") == "s3://bucket/a"


# Tables with categories, dates and durations


def mixed_table(n=240):
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 3, n)
    table = pd.DataFrame(
        {
            "number": kind + rng.normal(0, 0.2, n),
            "whole": 10 * kind,
            "flag": kind == 2,
            "letter": np.array(["a", "b", "c"])[kind],
            "size": pd.Categorical(np.array(["small", "large", "small"])[kind], ["small", "large"]),
            "day": pd.Timestamp("2024-01-01", tz="Europe/Paris") + pd.to_timedelta(kind, "D"),
            "stay": pd.to_timedelta(kind, "h"),
            "id": np.arange(n),
        }
    )
    table.loc[::7, "letter"] = None
    table["whole"] = table["whole"].astype("Int64")
    table.loc[1, "whole"] = None
    return table


COLUMNS = ["number", "whole", "flag", "letter", "size", "day", "stay"]


def found_in(frame, names=COLUMNS, chosen="from_dtype"):
    """What the blocks of a frame tell together."""
    pa = pytest.importorskip("pyarrow")
    found = None
    for part in np.array_split(np.arange(len(frame)), 4):
        batch = pa.Table.from_pandas(frame.iloc[part], preserve_index=False)
        (packed,) = _survey_table_block(batch, names, chosen)["found"]
        block = pickle.loads(packed)
        if isinstance(block, Exception):
            raise block
        if found is None:
            found = block
        else:
            found.join(block)
    return found


def test_blocks_of_a_table_tell_what_all_rows_do():
    frame = mixed_table()
    found = found_in(frame)
    table = found.about.table(None, "auto")
    expected = learn_table(frame[COLUMNS], "from_dtype", None, "auto")
    for ours, theirs in zip(table.columns, expected.columns, strict=True):
        assert (ours.name, ours.kind, ours.step) == (theirs.name, theirs.kind, theirs.step)
        if theirs.levels is not None:
            assert ours.levels.all == theirs.levels.all
            assert ours.levels.counts.tolist() == theirs.levels.counts.tolist()
    numbers = expected.numbers(frame[COLUMNS])
    np.testing.assert_array_equal(table.numbers(frame[COLUMNS]), numbers)
    is_number = np.array([column.levels is None for column in table.columns])
    survey, whole = found.survey.of_columns(is_number), Survey.of(numbers).of_columns(is_number)
    assert (survey.n_rows, survey.missing) == (240, True)
    np.testing.assert_allclose(survey.columns.mean, whole.columns.mean, rtol=1e-12)
    np.testing.assert_allclose(survey.columns.squares, whole.columns.squares, rtol=1e-9)
    assert sum(map(len, found.samples)) == 64


def test_blocks_without_a_known_level_and_rows_without_a_known_value():
    frame = mixed_table()[["letter", "number"]]
    frame.loc[60:, "letter"] = None
    frame.loc[120:179, "number"] = np.nan
    found = found_in(frame, ["letter", "number"])
    table = found.about.table(None, "auto")
    assert table.attributes()["categories_"][0].tolist() == ["a", "b", "c"]
    assert found.survey.n_rows == 180
    assert found.about.n_rows == 240
    assert sum(map(len, found.samples)) == 48


def test_chosen_categories_and_identifiers():
    frame = mixed_table()
    table = found_in(frame, ["whole", "id"], ["whole"]).about.table(None, "auto")
    assert [column.kind for column in table.columns] == ["category", "integer"]
    with pytest.warns(UserWarning, match="'name' has 240 levels in 240 rows. If it is an identif"):
        found_in(frame.assign(name=frame["id"].astype(str)), ["name"]).about.table(None, "auto")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"number": np.inf}, "Column 'number' contains infinity"),
        ({"number": [np.zeros(2)] * 240}, r"these columns do not: 'number' \(object\)"),
        ({"letter": [*"xy"] * 60 + [1, 2] * 60}, r"kinds \['category', 'integer'\]: 'letter'"),
    ],
)
def test_tables_that_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        found_in(mixed_table().assign(**changes))


def test_an_actor_encodes_tables():
    pytest.importorskip("ray", reason="needs Ray")
    pa = pytest.importorskip("pyarrow")
    frame = mixed_table()
    fitted = small(max_epochs=5).fit(frame[COLUMNS])
    table = pa.Table.from_pandas(frame)
    encoded = _Encoder(pickle.dumps(fitted), COLUMNS, ["id"], CODES)(table)
    assert encoded.column_names == ["id", *CODES]
    expected = fitted.transform(frame[COLUMNS])
    np.testing.assert_array_equal(np.stack([encoded[name] for name in CODES], axis=1), expected)
    other = pa.Table.from_pandas(frame.assign(letter=1.5))
    with pytest.raises(ValueError, match="Column 'letter' had levels such as 'a' in fit"):
        _Encoder(pickle.dumps(fitted), COLUMNS, ["id"], CODES)(other)


# On a cluster of this machine.


@pytest.fixture(scope="module")
def ray():
    ray = pytest.importorskip("ray", reason="needs Ray")
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        log_to_driver=False,
        object_store_memory=200 * 2**20,
    )
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Digits in eight files, a column for each pixel."""
    folder = tmp_path_factory.mktemp("digits")
    table = pd.DataFrame(X, columns=PIXELS).assign(id=np.arange(len(X)), label=Y.astype(str))
    for i in range(8):
        table[i::8].to_parquet(folder / f"{i}.parquet")
    return folder


def small(**changes):
    return AutoencoderTransformer(**{"random_state": 0, "max_epochs": 2, **changes})


pytestmark = pytest.mark.filterwarnings(
    "ignore::Warning:ray",
    "ignore::ResourceWarning",
    "ignore:Series.values returning:DeprecationWarning",  # in pyarrow
)


@pytest.mark.slow
def test_fit_and_transform(ray, files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset = ray.data.read_parquet(str(files))
    estimator = small(batch_size=32, max_epochs=8)
    fitted = fit_on_ray(estimator, dataset, feature_columns=PIXELS, storage_path="checkpoints")
    (folder,) = (tmp_path / "checkpoints").glob("aefeatures-*")
    assert any(folder.glob("*/fit.safetensors"))
    assert not hasattr(estimator, "encoder_")
    assert list(fitted.feature_names_in_) == PIXELS
    assert (fitted.n_iter_, fitted.n_steps_) == (8, 8 * 29)
    assert fitted.loss_curve_[-1] < 0.7 * fitted.loss_curve_[0]
    codes = transform_on_ray(fitted, dataset, keep_columns=["label", "id"]).to_pandas()
    assert list(codes) == ["label", "id", *CODES]
    codes = codes.sort_values("id")
    np.testing.assert_array_equal(codes["id"], np.arange(len(X)))
    expected = clone_without_names(fitted).transform(X)
    np.testing.assert_allclose(codes[CODES].to_numpy(np.float32), expected, rtol=1e-5, atol=1e-5)

    def accuracy(Z):
        return KNeighborsClassifier(5).fit(Z[::2], Y[::2]).score(Z[1::2], Y[1::2])

    local = small(max_epochs=8).fit(X)
    assert accuracy(expected) > accuracy(local.transform(X)) - 0.1


def clone_without_names(fitted):
    import copy

    copied = copy.copy(fitted)
    del copied.feature_names_in_
    return copied


@pytest.mark.slow
def test_arrays_and_missing_values(ray):
    rows = X[:400].copy()
    rows[::3, 7] = np.nan
    dataset = ray.data.from_numpy(rows.reshape(-1, 8, 8)).rename_columns({"data": "picture"})
    fitted = fit_on_ray(small(), dataset, feature_columns="picture", num_workers=1)
    assert fitted.n_features_in_ == 64
    assert fitted._memory.learns_missing
    codes = transform_on_ray(
        fitted, dataset, num_workers=1, output_columns=["a", "b", "c"], keep_columns=[]
    )
    assert codes.columns() == ["a", "b", "c"]
    assert codes.count() == 400


def refused(ray, dataset, message, estimator=None, error=ValueError, **changes):
    with pytest.raises(error, match=message):
        fit_on_ray(estimator or small(), dataset, num_workers=2, **changes)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["parquet", "pandas"])
def test_fit_and_transform_of_a_table(ray, tmp_path, kind):
    frame = mixed_table()
    if kind == "parquet":
        for i in range(4):
            frame[i::4].to_parquet(tmp_path / f"{i}.parquet")
        dataset = ray.data.read_parquet(str(tmp_path))
    else:
        dataset = ray.data.from_pandas([frame[i::4] for i in range(4)])
    estimator = small(batch_size=16, max_epochs=15)
    fitted = fit_on_ray(estimator, dataset, feature_columns=COLUMNS)
    assert list(fitted.feature_names_in_) == COLUMNS
    assert fitted.n_features_in_ == 7
    assert fitted.is_categorical_.tolist() == [False, False, False, True, True, False, False]
    assert [each.tolist() for each in fitted.categories_] == [[*"abc"], ["small", "large"]]
    rebuilt = fitted.reconstruct(frame[COLUMNS])
    assert rebuilt["flag"].dtype == "boolean"
    assert rebuilt["whole"].dtype == "Int64"
    assert str(rebuilt["day"].dtype).endswith("Europe/Paris]")
    known = frame["letter"].notna()
    assert (rebuilt["letter"][known] == frame["letter"][known]).mean() > 0.9
    assert (rebuilt["flag"] == frame["flag"]).mean() > 0.9

    codes = transform_on_ray(fitted, dataset, keep_columns=["id"]).to_pandas().sort_values("id")
    expected = fitted.transform(frame[COLUMNS])
    assert list(codes) == ["id", *CODES]
    np.testing.assert_allclose(codes[CODES].to_numpy(np.float64), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"fitted on 7 columns, but feature_columns has 1: id\."):
        transform_on_ray(fitted, dataset, feature_columns="id")


@pytest.mark.slow
def test_tables_of_ray_that_are_refused(ray, tmp_path):
    frame = mixed_table(60)[["letter", "number"]]
    mixed = frame.assign(letter=["x", 1] * 30)
    refused(ray, ray.data.from_pandas(mixed), r"Column 'letter' holds values of several types")
    infinite = ray.data.from_pandas([frame, frame.assign(number=np.inf)])
    refused(ray, infinite, "Column 'number' contains infinity")
    # Text that comes after rows in which nothing is known.
    late = [pd.DataFrame({"n": [1.0] * 1000, "t": [text] * 1000}) for text in (None, "x")]
    refused(ray, ray.data.from_pandas(late), r"Column 't' must hold numbers, .* got str: 'x'")
    refused(
        ray,
        ray.data.from_pandas(frame),
        r"these columns do not: 'letter'",
        small(categorical_features=["number"]),
    )
    for i, part in enumerate([frame, frame[["number"]]]):
        part.to_parquet(tmp_path / f"{i}.parquet")
    lacking = ray.data.read_parquet(str(tmp_path))
    refused(ray, lacking, r"The file .*1\.parquet has no column 'letter'")


@pytest.mark.slow
def test_what_is_refused(ray, files, tmp_path):
    dataset = ray.data.read_parquet(str(files))
    refused(ray, dataset, "fitted already", small().fit(X))
    refused(ray, dataset, "does not support early_stopping", small(early_stopping=True))
    refused(ray, dataset, "Supervised needs labels", small(regularizer="supervised"))
    refused(ray, dataset, "n_components", small(n_components=0))
    refused(ray, X, "must be a ray.data.Dataset, got ndarray", error=TypeError)
    refused(ray, dataset, r"no columns \['x'\]. It has p0", feature_columns=["p0", "x"])
    refused(
        ray,
        dataset.filter(lambda row: row["id"] < 0),
        "Found no row for .* has 0 rows|The dataset has no columns",
        feature_columns=PIXELS,
    )

    part = pd.DataFrame(X[:50], columns=PIXELS)
    for name, changed in {
        "lacking": part.drop(columns="p7"),
        "text": part.assign(p7="x"),
        "infinite": part.assign(p7=np.inf),
    }.items():
        folder = tmp_path / name
        folder.mkdir()
        part.to_parquet(folder / "0.parquet")
        changed.to_parquet(folder / "1.parquet")
    lacking = ray.data.read_parquet(str(tmp_path / "lacking"))
    refused(ray, lacking, r"The file .*1\.parquet has no column 'p7'")
    infinite = ray.data.read_parquet(str(tmp_path / "infinite"))
    refused(ray, infinite, "Column 'p7' contains infinity")
    with pytest.raises(Exception, match="Field p7 has incompatible types"):  # Ray's own
        ray.data.read_parquet(str(tmp_path / "text")).columns()

    def spoil(batch):
        batch["p3"] = batch["p3"].astype(object if batch["id"].min() == 0 else np.float32)
        batch["p3"][:1] = "x" if batch["id"].min() == 0 else 1
        return batch

    refused(ray, dataset.map_batches(spoil), "p3", feature_columns=PIXELS)
    refused(
        ray,
        dataset,
        "The training diverged",
        small(learning_rate=1e30),
        FloatingPointError,
        feature_columns=PIXELS,
    )
    assert fit_on_ray(small(), dataset, feature_columns=PIXELS).n_iter_ == 2  # all is well


@pytest.mark.slow
def test_sets_side_by_side(ray, tmp_path):
    """Each of two sets of files lacks the columns of the other."""

    def write(name, table):
        (tmp_path / name).mkdir()
        for i in range(2):
            table[i * 60 : (i + 1) * 60].to_parquet(tmp_path / name / f"{i}.parquet")
        return ray.data.read_parquet(str(tmp_path / name))

    table = pd.DataFrame(X[:120], columns=PIXELS)
    table["id"] = np.arange(120)
    left, right = (
        write("left", table[[*PIXELS[:32], "id"]]),
        write("right", table[[*PIXELS[32:], "id"]]),
    )
    joined = left.join(right, join_type="inner", num_partitions=1, on=("id",))
    assert _resolve_columns(joined, PIXELS) == PIXELS

    def repair(batch):
        return {**batch, "p0": batch["p0"].astype(np.float32)}

    text = write("text", table[[*PIXELS[:32], "id"]].astype({"p0": str}))
    repaired = text.map_batches(repair, batch_format="numpy")
    fitted = small().fit(X[:, :32])
    codes = transform_on_ray(
        fitted, left.union(repaired), feature_columns=PIXELS[:32], keep_columns="id"
    ).to_pandas()
    expected = fitted.transform(X[codes["id"], :32])
    np.testing.assert_allclose(codes[CODES].to_numpy(np.float32), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="is of a driver without a GPU")
def test_gpus_that_only_workers_have(ray, files, monkeypatch):
    """Of what is done before the workers start: a stand-in for the trainer starts none."""

    class StartedError(Exception):
        pass

    def start(work, *, train_loop_config, **options):
        raise StartedError(train_loop_config)

    monkeypatch.setattr("ray.train.torch.TorchTrainer", start)
    dataset = ray.data.read_parquet(str(files / "0.parquet"))
    with pytest.raises(StartedError) as started:
        fit_on_ray(small(device="cuda"), dataset, feature_columns=PIXELS, use_gpu=True)
    (config,) = started.value.args
    assert config["task"].use_gpu
    assert config["task"].given.device == "cuda"
    copied = pickle.loads(pickle.dumps(config["task"]))
    assert copied.given.device == "cuda"
    assert all(each.device.type == "cpu" for each in copied.model.encoder.parameters())
    with pytest.raises(ValueError, match="device='cuda' cannot be used"):
        fit_on_ray(small(device="cuda"), dataset, feature_columns=PIXELS)


@pytest.mark.slow
def test_what_transform_refuses(ray, files):
    dataset = ray.data.read_parquet(str(files))
    fitted = small().fit(X)
    with pytest.raises(ValueError, match="output_columns must name 3 columns"):
        transform_on_ray(fitted, dataset, feature_columns=PIXELS, output_columns=["a"])
    with pytest.raises(ValueError, match=r"Columns \['id'\] would occur twice"):
        transform_on_ray(fitted, dataset, feature_columns=PIXELS, output_columns=["id", "b", "c"])
    with pytest.raises(ValueError, match=r"keep_columns: the dataset has no columns \['x'\]"):
        transform_on_ray(fitted, dataset, feature_columns=PIXELS, keep_columns=["x"])
    with pytest.raises(ValueError, match=r"Columns \['id'\] would occur twice"):
        transform_on_ray(fitted, dataset, feature_columns=PIXELS, keep_columns=["id", "id"])
    with pytest.raises(ValueError, match=r"must name 3 columns, got \['abc'\]"):
        transform_on_ray(fitted, dataset, feature_columns=PIXELS, output_columns="abc")
    with pytest.raises(
        ValueError, match=r"columns: p0, .*Name the columns to encode in feature_columns"
    ):
        transform_on_ray(fitted, dataset)


def test_an_actor_gives_numbers_whatever_the_output_of_transform_is():
    pytest.importorskip("ray", reason="needs Ray")
    pa = pytest.importorskip("pyarrow")
    fitted = small(max_epochs=5).fit(X[:100]).set_output(transform="pandas")
    table = pa.table({name: X[:20, i] for i, name in enumerate(PIXELS)})
    encoded = _Encoder(pickle.dumps(fitted), PIXELS, ["p0"], CODES)(table)
    expected = fitted.set_output(transform="default").transform(X[:20])
    np.testing.assert_array_equal(np.stack([encoded[name] for name in CODES], axis=1), expected)


class Lost:
    """Kills a process of Ray whose title has a word in it, soon after it is there."""

    def __init__(self, word):
        self.word, self.killed = word.encode(), None
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.watch)

    def watch(self):
        while not self.over.wait(0.2):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    title = path.read_bytes()
                except OSError:
                    continue
                if title.startswith(b"ray::") and self.word in title:
                    self.killed = int(path.parent.name)
                    self.over.wait(3)
                    os.kill(self.killed, signal.SIGKILL)
                    return

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="finds processes in /proc")
def test_a_fit_with_a_lost_worker_is_the_same(ray, files):
    dataset = ray.data.read_parquet(str(files))

    def slow_loss(reconstruction, target):
        time.sleep(0.02)
        return (reconstruction - target).square().mean(dim=1)

    def fit():
        estimator = small(max_epochs=6, loss=slow_loss, regularizer="denoising", batch_size=32)
        return fit_on_ray(estimator, dataset, feature_columns=PIXELS, num_workers=2)

    with Lost("RayTrainWorker") as lost:
        fitted = fit()
    assert lost.killed
    assert not Path(f"/proc/{lost.killed}").exists()
    undisturbed = fit()
    assert fitted.loss_curve_ == undisturbed.loss_curve_
    for p, q in zip(fitted.encoder_.parameters(), undisturbed.encoder_.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.slow
def test_search_with_joblib_on_ray(ray):
    import joblib
    from ray.util.joblib import register_ray
    from sklearn.model_selection import GridSearchCV

    register_ray()
    search = GridSearchCV(small(), {"n_components": [2, 8]}, cv=2)
    with joblib.parallel_backend("ray"):
        search.fit(X[:400])
    assert search.best_params_ == {"n_components": 8}
    assert clone(search.best_estimator_).n_components == 8
