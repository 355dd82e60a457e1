"""`Supervised`: a regularizer that uses labels in the training of the codes."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from aefeatures._nets.regularizer import Batch, Regularizer, TrainingData, check_number, linear_head
from aefeatures._rows.labels import TASKS, Labels, is_auto, minus_ones, split_labels
from aefeatures._torch.devices import copy_to
from aefeatures._torch.ranks import Ranks


class Supervised(Regularizer):
    """Make the codes predict labels, for the rows that have one.

    Adds `weight` times the loss of a linear model on the codes, which is trained along with the
    network: cross-entropy for classes, squared error for numbers (standardized). The loss is a mean
    over all rows, in which rows without a label count as 0.

    Parameters
    ----------
    weight : float, default=1.0
        Weight in units of the columns' mean variance, as in `NeighborPreserving`. A large
        weight overfits if there are few labels.
    unlabeled : object, default="auto"
        Label that marks a row of y as unlabelled, in addition to missing labels. "auto" uses the
        rule in the notes. None means that every row is labelled, and a missing label is an error.
    task : {"auto", "classification", "regression"}, default="auto"
        Whether labels are classes or numbers. "auto" is "regression" if y holds floats and any of
        them is not a whole number, otherwise "classification": targets such as 151.0 and 75.0 are
        classes unless `task` is set. The fitted transformer has the choice as `task_`.
    mixup : float, default=0.0
        If above 0, labels are learned from mixtures of two labelled rows, ``share * row +
        (1 - share) * other``, and of their labels, instead of the rows themselves. The share is
        drawn from a beta distribution whose two parameters are this number [1]_. 0.5 suits most
        tables. Without mixtures, codes of training rows separate the classes better than codes of
        new rows, which misleads a classifier that is fitted to them. Takes a second pass through
        the encoder.

    Notes
    -----
    Rows of y are unlabelled, with ``unlabeled="auto"``, by one rule for the whole library:

    - A row with a missing label (None, NaN, NaT, NA) is unlabelled.
    - In classification, the number -1 (or -1.0) marks an unlabelled row if y has at least two other
      numbers, or texts, booleans or any other labels that are not numbers.
      Texts with -1 need an array of objects or a list: an array of texts would hold "-1".
    - If y has a single other number, -1 may be the second class: `Supervised` asks for `unlabeled`,
      `AutoencoderGenerator` treats -1 as a class.
    - In regression, -1 is a number.

    The rule looks at the whole y, before `early_stopping` sets rows aside; at least one labelled
    row of each class stays in training. In `partial_fit` and with `warm_start`, classes and task
    are those of the first call: a later y may have no labels at all, but no new class. They are
    forgotten, with the linear model, by pickle and `save`.

    A y of several columns is an error. The labels of a single class add nothing to the loss.

    References
    ----------
    .. [1] H. Zhang, M. Cisse, Y. N. Dauphin and D. Lopez-Paz. mixup: beyond empirical risk
       minimization. ICLR 2018.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from aefeatures import AutoencoderTransformer
    >>> X, y = load_digits(return_X_y=True)
    >>> y[100:] = -1
    >>> transformer = AutoencoderTransformer(regularizer="supervised", max_epochs=2)
    >>> transformer.fit_transform(X, y).shape
    (1797, 3)
    >>> transformer.task_
    'classification'
    """

    requires_y = True
    max_epochs = 60  # more epochs would overfit few labels

    def __init__(
        self,
        weight: float = 1.0,
        unlabeled: Any = "auto",
        task: str = "auto",
        mixup: float = 0.0,
    ) -> None:
        self.weight = weight
        self.unlabeled = unlabeled
        self.task = task
        self.mixup = mixup

    def prepare(self, data: TrainingData) -> Regularizer:
        """Check y, and create the linear model that predicts it."""
        check_number(self, "weight")
        check_number(self, "mixup")
        head: Any = data.head
        y = np.asarray(data.y if data.y_all is None else data.y_all)
        labels = self._split_labels(y, head, data.ranks)
        if head is None and not any(data.ranks.gather(bool(labels.labelled.any()))):
            raise ValueError(
                "No row of y is labelled. The first fit needs at least one label; the notes of "
                "Supervised say which rows count as unlabelled."
            )
        classification = labels.task == "classification"
        if is_auto(self.unlabeled) and classification and minus_ones(labels.known).any():
            raise ValueError(
                "y has -1 and one other value, so -1 may be a class or mark unlabelled rows. Set "
                "unlabeled=None if it is a class, unlabeled=-1 if it marks unlabelled rows."
            )
        labelled, known, task = labels.of_rows(data.rows)
        if head is None:
            make = _classes_head if classification else _numbers_head
            head = make(data, labels.known if classification else known)
        prepared = copy.copy(self)
        prepared.head, prepared.task = head, task
        targets = np.zeros(len(labelled), dtype=np.int64 if classification else np.float64)
        if classification:
            targets[labelled] = np.searchsorted(head.classes, known)
        else:
            targets[labelled] = (known - head.mean) / head.spread
        prepared._scale = self.weight * data.variance()
        device = data.means.device
        prepared._is_labelled = labelled
        prepared._labelled = torch.from_numpy(labelled).to(device)
        prepared._targets = torch.from_numpy(targets).to(device)
        if not classification:
            prepared._targets = prepared._targets.to(data.means.dtype)
        return prepared

    def penalty(self, batch: Batch) -> torch.Tensor:
        """Return the weighted loss of the labelled rows, divided by the number of all rows."""
        device = self._targets.device
        if not self.mixup:
            index = copy_to(torch.from_numpy(batch.index), device)
            losses = self._losses(batch.codes, self._targets[index]) * self._labelled[index]
            return self._scale * losses.mean()
        # Chosen on the host, which would otherwise wait for the device to count them.
        chosen = np.flatnonzero(self._is_labelled[batch.index])
        if not len(chosen):
            return batch.codes.new_zeros(())
        rows = batch.rows[copy_to(torch.from_numpy(chosen), device)]
        targets = self._targets[copy_to(torch.from_numpy(batch.index[chosen]), device)]
        order = torch.randperm(len(rows), generator=batch.generator, device=rows.device)
        share = float(batch.rng.beta(self.mixup, self.mixup))
        mixed = share * rows + (1 - share) * rows[order]
        codes = batch.encoder(mixed).to(mixed.dtype)
        losses = share * self._losses(codes, targets)
        losses = losses + (1 - share) * self._losses(codes, targets[order])
        return self._scale * losses.sum() / len(batch.index)

    def _losses(self, codes: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the loss of each row."""
        head: Any = self.head
        predicted = head(codes)
        if head.classes is None:
            return (predicted[:, 0] - targets).square()
        return F.cross_entropy(predicted, targets, reduction="none")

    def _split_labels(self, y: np.ndarray, head: Any, ranks: Ranks) -> Labels:
        """Return the labels in y, with the task and the classes of `head` unless it is None."""
        if self.task not in TASKS:
            raise ValueError(f"task must be one of {', '.join(TASKS)}, got {self.task!r}.")
        if head is None:
            return split_labels(y, self.unlabeled, self.task, ranks=ranks)
        task = "regression" if head.classes is None else "classification"
        if self.task not in ("auto", task):
            raise ValueError(
                f"task={self.task!r}, but the first call learned a {task}. Set it back, or train a "
                "new network with warm_start=False and fit."
            )
        labels = split_labels(y, self.unlabeled, task, head.classes, ranks)
        if head.classes is None:
            return labels
        if unseen := set(labels.known.tolist()).difference(head.classes.tolist()):
            raise ValueError(
                f"y has the classes {sorted(unseen)}, which the first call did not have: "
                f"{head.classes.tolist()}."
            )
        return labels

    def _groups(self, y: np.ndarray, ranks: Ranks) -> np.ndarray:
        """Return the class of each labelled row as its group; numbers are a single group."""
        labels = self._split_labels(y, None, ranks)
        groups = np.full(len(y), -1)
        groups[labels.labelled] = (
            np.unique(labels.known, return_inverse=True)[1]
            if labels.task == "classification"
            else 0
        )
        return groups


def _numbers_head(data: TrainingData, known: np.ndarray) -> Any:
    """Return a linear model of numbers on the codes, with their mean and standard deviation."""
    head: Any = linear_head(data, 1)
    n = max(len(known), 1)
    mean = data.ranks.mean(known.sum() / n, len(known))
    variance = data.ranks.mean(np.square(known - mean).sum() / n, len(known))
    head.classes, head.mean, head.spread = None, mean, variance**0.5 or 1.0
    return head


def _classes_head(data: TrainingData, known: np.ndarray) -> Any:
    """Return a linear model of classes on the codes, with the classes of its outputs."""
    known_to_each = data.ranks.gather(np.unique(known))
    classes = np.unique(np.concatenate([each for each in known_to_each if len(each)]))
    head: Any = linear_head(data, len(classes))
    head.classes = classes
    return head
