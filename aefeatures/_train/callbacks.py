"""A fit and its epochs as tasks of scikit-learn's callbacks, which it has from 1.9 on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aefeatures._sklearn import callback_context, has_callbacks
from aefeatures._train.training import TrainingResult, Watcher


class FitTask:
    """A fit as a task of the estimator's callbacks, if it has any.

    It has to be made before anything of the estimator changes: scikit-learn removes the state that
    it adds to the estimator, even after an error.

    Parameters
    ----------
    estimator : estimator
        With scikit-learn's `CallbackSupportMixin`, if there is one.
    X, y : array-like
        As they were given to `fit`. If y is None, callbacks get X as y: it is the target of an
        autoencoder, and `ScoringMonitor` records nothing without a y.
    """

    def __init__(self, estimator: Any, X: Any, y: Any) -> None:
        self._context = None
        if has_callbacks(estimator):
            self._context = callback_context(estimator)
        self._about = {"estimator": estimator, "X": X, "y": X if y is None else y}

    def begin(self, n_epochs: int) -> None:
        """Call the callbacks at the beginning of the fit, when the number of epochs is known."""
        if self._context is not None:
            self._context.max_subtasks = n_epochs
            self._context.call_on_fit_task_begin(**self._about)

    def watchers(self, fitted: Callable[[TrainingResult], dict[str, Any]]) -> list[Watcher]:
        """Return the watchers that call the callbacks at each epoch.

        `fitted` returns the attributes that the estimator would have if the training were over.
        It is called if a callback asks for them.
        """
        return [] if self._context is None else [_EpochTasks(self._context, self._about, fitted)]

    def end(self) -> None:
        """Call the callbacks at the end of the fit."""
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
