"""The one rule for labels; what `Supervised` and the generator do with them is tested there."""

import datetime as dt
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from helpers import heads_of
from sklearn.decomposition import PCA

from aefeatures import AutoencoderGenerator, AutoencoderTransformer, Supervised
from aefeatures._rows.checks import check_labels
from aefeatures._rows.labels import keep_groups, split_labels

pytestmark = pytest.mark.filterwarnings("ignore:.*learned nothing")


def classes_of_both(X, y):
    """The classes that `Supervised` and the generator find in y."""
    transformer = AutoencoderTransformer(2, regularizer="supervised", max_epochs=1, random_state=0)
    supervised = heads_of(transformer.fit(X, y))[0].classes
    generator = AutoencoderGenerator(PCA(2), random_state=0).fit(X, y)
    return supervised.tolist(), generator.classes_.tolist()


def objects(*labels):
    return np.array(labels, dtype=object)


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        (np.array([0, 1, 2, -1]), [0, 1, 2]),
        (np.array([0, 1, 2, -1], np.int8), [0, 1, 2]),
        (np.array([0.0, 1.0, 2.0, -1.0]), [0.0, 1.0, 2.0]),
        (np.array([0.0, 1.0, np.nan, -1.0], np.float32), [0.0, 1.0]),
        (objects(0, 1.0, -1, None), [0, 1]),
        (objects("a", "b", -1, "c"), ["a", "b", "c"]),
        (objects("a", "b", -1.0, np.nan), ["a", "b"]),
        (objects("a", "b", np.int64(-1), pd.NA), ["a", "b"]),
        (["a", "b", -1, None], ["a", "b"]),  # of which NumPy would make texts
        (["a", "a", -1, np.nan], ["a"]),
        (objects(True, False, -1, None), [False, True]),
        (objects(True, True, -1, -1), [True]),
        (np.array(["1", "-1", "0", "1"]), ["-1", "0", "1"]),
        (np.array(["a", "b", "", "b"]), ["", "a", "b"]),
        (pd.Series([True, False, pd.NA, True], dtype="boolean"), [False, True]),
        (pd.Series([0, 1, -1, pd.NA], dtype="Int64"), [0, 1]),
        (pd.Series([0, 1, -1, 1], dtype="Int8"), [0, 1]),
        (pd.Series(["a", "b", pd.NA, "b"], dtype="string"), ["a", "b"]),
        (pd.Series(["a", "b", None, "b"], dtype="category"), ["a", "b"]),
        (pd.Series([0, 1, -1, None], dtype="category"), [0, 1]),
        (pd.DataFrame({"y": pd.Series([True, False, pd.NA, True], dtype="boolean")}), [0, 1]),
        (pl.Series([0, 1, -1, None]), [0, 1]),
        (pl.Series([True, False, None, True]), [False, True]),
        (pl.Series(["a", "b", None, "b"]), ["a", "b"]),
    ],
)
def test_one_rule_for_all(digits, y, classes):
    n = len(y)
    X = digits[0][:n]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "A column-vector y")
        supervised, generated = classes_of_both(X, y)
    assert supervised == generated == classes
    assert all(type(a) is type(b) for a, b in zip(supervised, generated, strict=True))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (objects("a", 1, 2.5, "b"), r"different types: 'a|b' \(str\), (1 \(int\)|2.5 \(float\))\."),
        (["a", 1, "b", 2], r"different types: '.' \(str\), . \(int\)\. Use one type for all"),
        (objects("a", 1, None, -1), r"different types: 'a' \(str\), 1 \(int\)"),
        (objects("a", b"b", "a", "a"), r"different types: '?a'? \(str\), b'b' \(bytes\)"),
        (objects("a", dt.date(2020, 1, 1), "a", "a"), r"'a' \(str\), .* \(date\)"),
        (np.array(["a", "b", -1, "b"]), r"y has the text '-1' beside 'a', which may be a class or"),
        (np.full(4, np.nan), "No row of y is labelled"),
        (np.full(4, -1), "No row of y is labelled"),
        (objects(-1, None, -1.0, pd.NA), "No row of y is labelled"),
    ],
)
def test_what_cannot_be_read_is_named(digits, y, message):
    for estimator in (
        AutoencoderTransformer(2, regularizer="supervised", max_epochs=1),
        AutoencoderGenerator(PCA(2)),
    ):
        with pytest.raises(ValueError, match=message):
            estimator.fit(digits[0][:4], y)


@pytest.mark.parametrize(
    ("y", "unlabeled", "task", "labelled", "found"),
    [
        ([0.5, -1.0, np.nan, 2.0], "auto", "auto", [1, 1, 0, 1], "regression"),
        ([0.0, -1.0, np.nan, 2.0], "auto", "regression", [1, 1, 0, 1], "regression"),
        ([0, -1, 1, 2], "auto", "regression", [1, 1, 1, 1], "regression"),
        ([0, -1, 1, 2], -1, "regression", [1, 0, 1, 1], "regression"),
        ([0.5, -1.0, np.nan, 2.0], "auto", "classification", [1, 0, 0, 1], "classification"),
        ([0, 1, -1, -2], "auto", "auto", [1, 1, 0, 1], "classification"),
        ([1.0, -1.0, -1.0, 1.0], "auto", "auto", [1, 1, 1, 1], "classification"),
        ([1.0, -1.0, np.nan, 1.0], None, "auto", None, None),
        ([1.0, -1.0, np.nan, 1.0], 1.0, "auto", [0, 1, 0, 0], "classification"),
        (["a", "-1", "b", "a"], "-1", "auto", [1, 0, 1, 1], "classification"),
        (["a", "-1", "b", "a"], None, "auto", [1, 1, 1, 1], "classification"),
    ],
)
def test_the_mark_and_the_task_may_be_given(y, unlabeled, task, labelled, found):
    y = np.array(y)
    if labelled is None:
        with pytest.raises(ValueError, match="y lacks the labels of 1 rows, but unlabeled=None"):
            split_labels(y, unlabeled, task)
        return
    labels = split_labels(y, unlabeled, task)
    assert labels.labelled.tolist() == [bool(each) for each in labelled]
    assert labels.known.tolist() == y[labels.labelled].tolist()
    assert labels.task == found


def test_labels_of_some_rows():
    labels = split_labels(objects("a", None, "b", -1, "c"))
    some = labels.of_rows(np.array([1, 2, 4]))
    assert some.labelled.tolist() == [False, True, True]
    assert some.known.tolist() == ["b", "c"]


def test_known_classes_settle_what_minus_one_is():
    y = np.array([1, -1, 1, -1])
    assert split_labels(y).labelled.all()
    assert split_labels(y, seen=np.array([0, 1])).labelled.tolist() == [True, False] * 2
    assert split_labels(np.array(["a", "b"]), seen=np.array(["c"])).known.tolist() == ["a", "b"]
    with pytest.raises(ValueError, match="mixes labels of different types"):
        split_labels(y, seen=np.array(["a", "b"]))


def test_infinity_is_no_label(digits):
    for y in (np.array([0, np.inf, 1, 0]), objects(0.0, np.inf, None, 1.0)):
        for regularizer in ("supervised", Supervised(task="regression")):
            with pytest.raises(ValueError, match="Input y contains infinity"):
                AutoencoderTransformer(2, regularizer=regularizer).fit(digits[0][:4], y)


@pytest.mark.parametrize(
    ("y", "kind"),
    [
        ([True, False], "b"),
        (["a", "b"], "U"),
        ([0, 1], "i"),
        (np.array([0, 1], np.uint8), "u"),
        (pl.Series([True, False]), "b"),
        (pl.Series([1, 2], dtype=pl.Int8), "i"),
        (np.array(["2020-01-01", "NaT"], "datetime64[s]"), "M"),
    ],
)
def test_labels_that_arrays_hold_stay_as_they_are(y, kind):
    labels = check_labels(y)
    assert labels.dtype.kind == kind
    assert labels.tolist() == np.asarray(y).tolist()


def test_groups_keep_a_training_row():
    rng = np.random.default_rng(0)
    for _ in range(50):
        n = int(rng.integers(4, 40))
        several = [rng.integers(-1, n // 4, n) for _ in range(2)]
        order = rng.permutation(n)
        before = order[: n // 2], order[n // 2 :]
        training, validation = keep_groups(several, *before)
        assert sorted([*training, *validation]) == list(range(n))
        for groups in several:
            assert set(groups[training]) | {-1} == set(groups) | {-1}
        if all(set(groups[before[0]]) | {-1} >= set(groups) for groups in several):
            assert set(training) == set(before[0])
        assert len(validation) <= n - n // 2
