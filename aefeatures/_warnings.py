"""Warnings that show the line of the caller; arguments that are still taken in an old form."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, currentframe, signature
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

# Modules whose lines tell a user nothing: they hold the decorators, pipelines, searches and context
# managers that stand between the user's code and the code that warns.
_BETWEEN = {"aefeatures", "contextlib", "imblearn", "joblib", "sklearn"}


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn, and show the line of the code that called this library.

    The line is the innermost one outside of this library, scikit-learn and the like. A worker
    of a search has no such line; there it is one of the code that runs the worker.
    """
    warnings.warn(message, category, stacklevel=_caller_level())


def _caller_level() -> int:
    """Return the `stacklevel` that a call of `warnings.warn` in the calling function needs."""
    frame, level = currentframe(), 0
    while frame is not None and _package(frame.f_globals) in _BETWEEN:
        frame, level = frame.f_back, level + 1
    return level


def _package(names: Mapping[str, Any]) -> str:
    """Return the package of the code that has these global names."""
    # Code that `exec` runs may have no name.
    return str(names.get("__name__")).partition(".")[0]


def takes_old_arguments(
    positional: Sequence[str] = (), renamed: Mapping[str, str] | None = None
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Let a function take arguments in the form of an earlier version, with a `FutureWarning`.

    Signature and documentation stay those of the function, which show the new form.

    Parameters
    ----------
    positional : sequence of str, default=()
        Keyword-only parameters that could be given by position, in that order.
    renamed : mapping of str to str, default=None
        The new name of each parameter that had another name.
    """
    new_names = {} if renamed is None else renamed

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        name = function.__qualname__.removesuffix(".__init__")
        kinds = [parameter.kind for parameter in signature(function).parameters.values()]
        n_positional = kinds.count(Parameter.POSITIONAL_OR_KEYWORD)

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> T:
            named: dict[str, Any] = {}
            # More arguments than there ever were are left to the function, which refuses them.
            if n_positional < len(args) <= n_positional + len(positional):
                named = dict(zip(positional, args[n_positional:], strict=False))
                args = args[:n_positional]
                warn(
                    f"Pass {', '.join(f'{new}=...' for new in named)} to {name} by keyword: by "
                    "position is deprecated, and will be an error in a later version.",
                    FutureWarning,
                )
            for old in [each for each in new_names if each in kwargs]:
                named[new_names[old]] = kwargs.pop(old)
                warn(
                    f"{old!r} was renamed to {new_names[old]!r} in {name}. Pass "
                    f"{new_names[old]}=... instead: {old!r} is deprecated, and will be an error in "
                    "a later version.",
                    FutureWarning,
                )
            # An argument that is given in both forms is refused by Python.
            return function(*args, **named, **kwargs)

        return wrapper

    return decorate
