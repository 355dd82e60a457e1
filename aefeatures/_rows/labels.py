"""Which rows of y have a label, and whether labels are classes or numbers."""

from __future__ import annotations

import re
from collections.abc import Collection
from numbers import Number
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import assert_all_finite

from aefeatures._torch.ranks import ALONE, Ranks

TASKS = ("auto", "classification", "regression")


class Labels(NamedTuple):
    """Labels of the rows, as y has them.

    Attributes
    ----------
    labelled : ndarray of bool, shape (n_rows,)
        Whether each row has a label.
    known : ndarray of shape (n_labelled,)
        The labels of the labelled rows, in their own type even if y held them as objects.
    task : {"classification", "regression"}
    """

    labelled: np.ndarray
    known: np.ndarray
    task: str

    def of_rows(self, rows: np.ndarray | None) -> Labels:
        """Return the labels of the rows at these positions; None means all rows."""
        if rows is None:
            return self
        labelled = self.labelled[rows]
        positions = np.cumsum(self.labelled)[rows[labelled]] - 1
        return Labels(labelled, self.known[positions], self.task)


def split_labels(
    y: np.ndarray,
    unlabeled: Any = "auto",
    task: str = "auto",
    seen: np.ndarray | None = None,
    ranks: Ranks = ALONE,
) -> Labels:
    """Return which rows have a label, by the rule in the notes of `Supervised`, and the labels.

    Every part of the library that takes labels uses this function.

    Parameters
    ----------
    y : ndarray of shape (n_rows,)
    unlabeled : object
        As in `Supervised`.
    task : {"auto", "classification", "regression"}
    seen : ndarray, optional
        Classes of an earlier call.
    ranks : Ranks
        Processes that have labels of other rows.

    Raises
    ------
    ValueError
        If labels are of different types, contradict `task` or `unlabeled`, or are ambiguous.
    """
    auto = is_auto(unlabeled)
    labelled = ~_missing(y)
    if unlabeled is None and not labelled.all():
        raise ValueError(
            f"y lacks the labels of {np.sum(~labelled)} rows, but unlabeled=None means that every "
            "row has one. Use unlabeled='auto'."
        )
    known = y[labelled]
    marked = minus_ones(known) if auto else _equal(known, unlabeled)
    others = _typed(known[~marked])
    if task == "auto":
        continuous = others.dtype.kind == "f" and bool((others != np.round(others)).any())
        task = "regression" if any(ranks.gather(continuous)) else "classification"
    if task == "classification":
        # Classes of earlier chunks and of other ranks count, even if this y lacks them.
        classes_of_ranks = ranks.gather(set(others.tolist()))
        classes: set[Any] = set().union(*classes_of_ranks, [] if seen is None else seen.tolist())
        _check_one_type(classes)
        if auto and len(classes) == 1 and all(map(_is_number, classes)):
            marked = np.zeros(len(known), dtype=bool)  # -1 may be the second class
        if auto and "-1" in classes:
            _check_text_of_minus_one(classes)
    elif auto:
        marked = np.zeros(len(known), dtype=bool)
    labelled[labelled] = ~marked
    known = _typed(known[~marked])
    if task == "regression":
        if len(known) and known.dtype.kind not in "biuf":
            raise ValueError(
                f"task='regression' needs numbers as labels, got {known.tolist()[0]!r}. Use "
                "task='classification'."
            )
        known = known.astype(np.float64)
    return Labels(labelled, known, task)


def keep_groups(
    several: list[np.ndarray], training: np.ndarray, validation: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Exchange rows so that training has at least one of each group; -1 is no group."""
    order = np.concatenate([training, validation])
    needed = np.zeros(len(several[0]), dtype=bool)  # for all rows, even those in neither part
    for groups in several:
        present, first = np.unique(groups[order], return_index=True)
        needed[order[first[present >= 0]]] = True
    moved = validation[needed[validation]]
    spare = training[~needed[training]][: len(moved)]
    return (
        np.append(np.setdiff1d(training, spare), moved),
        np.append(np.setdiff1d(validation, moved), spare),
    )


def is_auto(unlabeled: Any) -> bool:
    """Whether the rule decides which rows are unlabelled."""
    return isinstance(unlabeled, str) and unlabeled == "auto"


def is_missing(label: Any) -> bool:
    """Whether a label is None, NaN (not equal to itself) or NA (neither equal nor unequal)."""
    equal = label == label
    return label is None or not (isinstance(equal, (bool, np.bool_)) and equal)


def minus_ones(labels: np.ndarray) -> np.ndarray:
    """Return which labels are the number -1, but not the text "-1"."""
    if labels.dtype.kind in "if":
        return labels == -1
    if labels.dtype.kind != "O":
        return np.zeros(len(labels), dtype=bool)
    return np.array([_is_number(label) and label == -1 for label in labels.tolist()], dtype=bool)


def _missing(y: np.ndarray) -> np.ndarray:
    if y.dtype.kind == "O":
        return np.array([is_missing(label) for label in y.tolist()], dtype=bool)
    if y.dtype.kind in "mM":
        return np.isnat(y)
    return np.isnan(y) if y.dtype.kind == "f" else np.zeros(len(y), dtype=bool)


def _equal(labels: np.ndarray, mark: Any) -> np.ndarray:
    if mark is None or is_missing(mark):  # missing labels are unlabelled anyway
        return np.zeros(len(labels), dtype=bool)
    equal: np.ndarray = np.broadcast_to(np.asarray(labels == mark, dtype=bool), labels.shape)
    return equal


def _is_number(label: Any) -> bool:
    return isinstance(label, Number) and not isinstance(label, bool)


def _typed(labels: np.ndarray) -> np.ndarray:
    """Return labels as an array of numbers if they are numbers in an array of objects."""
    if labels.dtype.kind != "O":
        return labels
    values = labels.tolist()
    if _check_one_type(values) is not Number:
        return labels
    numbers = np.array(values)
    if numbers.dtype.kind not in "biuf":
        return labels
    assert_all_finite(numbers, input_name="y")
    return numbers


def _check_one_type(labels: Collection[Any]) -> type | None:
    """Return the common type of all labels; all numbers count as one type, and so do all texts."""
    examples = {_type(label): label for label in labels}
    if len(examples) > 1:
        several = sorted(f"{label!r} ({type(label).__name__})" for label in examples.values())
        raise ValueError(
            f"y mixes labels of different types: {', '.join(several)}. Use one type for all "
            "labels, and None, NaN or the number -1 for rows without a label."
        )
    return next(iter(examples), None)


def _type(label: Any) -> type:
    for kind in (Number, str, bytes):
        if isinstance(label, kind):
            return kind
    return Number if isinstance(label, np.bool_) else type(label)


def _check_text_of_minus_one(classes: set[Any]) -> None:
    """Refuse "-1" among words: NumPy turns the number -1 in a list of texts into it."""
    words = sorted(text for text in classes if not re.fullmatch(r"[-+]?[\d.]+", text))
    if words:
        raise ValueError(
            f"y has the text '-1' beside {words[0]!r}, which may be a class or mark unlabelled "
            "rows. For a mark, use None in an array with dtype=object; for a class, use another "
            "name. `Supervised` also takes unlabeled='-1' for a mark and None for a class."
        )
