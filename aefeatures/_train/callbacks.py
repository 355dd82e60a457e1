"""A fit and its epochs as tasks of scikit-learn's callbacks, which it has from 1.9 on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aefeatures._sklearn import callback_context, has_callbacks
from aefeatures._train.training import TrainingResult, Watcher


class FitTask:
    """What an estimator's callbacks are told of one `fit`; nothing where it has none.

    To be made before anything of the estimator changes: the state that it adds to it is
    scikit-learn's to remove, also after an error.

    Parameters
    ----------
    estimator : estimator
        With scikit-learn's `CallbackSupportMixin`, where there is one.
    X, y : array-like
        As they were given to `fit`. Where y is None, callbacks get X in its place: it is what
        an autoencoder learns to give back, and `ScoringMonitor` records nothing without a y.
    """

    def __init__(self, estimator: Any, X: Any, y: Any) -> None:
        self._context = None
        if has_callbacks(estimator):
            self._context = callback_context(estimator)
        self._about = {"estimator": estimator, "X": X, "y": X if y is None else y}

    def begin(self, n_epochs: int) -> None:
        """Tell that the fit begins, now that the number of epochs is known."""
        if self._context is not None:
            self._context.max_subtasks = n_epochs
            self._context.call_on_fit_task_begin(**self._about)

    def watchers(self, fitted: Callable[[TrainingResult], dict[str, Any]]) -> list[Watcher]:
        """What tells the callbacks of epochs.

        `fitted` returns the attributes that the estimator would have if the training were over,
        and is called where a callback asks for them.
        """
        return [] if self._context is None else [_EpochTasks(self._context, self._about, fitted)]

    def end(self) -> None:
        """Tell that the estimator is fitted."""
        if self._context is not None:
            self._context.call_on_fit_task_end(**self._about, reconstruction_attributes={})


class _EpochTasks(Watcher):
    def __init__(
        self,
        context: Any,
        about: dict[str, Any],
        fitted: Callable[[TrainingResult], dict[str, Any]],
    ) -> None:
        self._context, self._about, self._fitted = context, about, fitted
        self._epoch: Any = None

    def begin_epoch(self) -> None:
        self._epoch = self._context.subcontext(task_name="epoch")
        self._epoch.call_on_fit_task_begin(**self._about)

    def end_epoch(self, result: TrainingResult) -> bool:
        return bool(
            self._epoch.call_on_fit_task_end(
                **self._about, reconstruction_attributes=lambda: self._fitted(result)
            )
        )
