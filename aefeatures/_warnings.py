"""Warnings that show the line of the user's code, and support for old forms of arguments."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, currentframe, signature
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

# Packages whose lines do not help a user. Their decorators, pipelines, searches and context
# managers run between the user's code and the code that warns.
_SKIPPED_PACKAGES = {"aefeatures", "contextlib", "imblearn", "joblib", "sklearn"}


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn, and show the line of the code that called this library.

    The line is the innermost one outside this library, scikit-learn and similar packages. If a
    search runs `fit` in a worker process, it is a line of the code that runs the worker.
    """
    warnings.warn(message, category, stacklevel=_caller_level())


def _caller_level() -> int:
    """Return the `stacklevel` for a call of `warnings.warn` in the calling function."""
    frame, level = currentframe(), 0
    while frame is not None and _package(frame.f_globals) in _SKIPPED_PACKAGES:
        frame, level = frame.f_back, level + 1
    return level


def _package(names: Mapping[str, Any]) -> str:
    """Return the package of the code that has these global names."""
    # Code run by `exec` may have no `__name__`.
    return str(names.get("__name__")).partition(".")[0]


def takes_old_arguments(
    positional: Sequence[str] = (), renamed: Mapping[str, str] | None = None
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Let a function accept arguments in the form of an earlier version, with a `FutureWarning`.

    The signature and the documentation of the function still show the new form only.

    Parameters
    ----------
    positional : sequence of str, default=()
        Keyword-only parameters that could be passed by position before, in their old order.
    renamed : mapping of str to str, default=None
        New names of renamed parameters, by their old names.
    """
    new_names = {} if renamed is None else renamed

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        name = function.__qualname__.removesuffix(".__init__")
        kinds = [parameter.kind for parameter in signature(function).parameters.values()]
        n_positional = kinds.count(Parameter.POSITIONAL_OR_KEYWORD)

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> T:
            named: dict[str, Any] = {}
            # With more arguments than even the old form had, the function itself raises an error.
            if n_positional < len(args) <= n_positional + len(positional):
                named = dict(zip(positional, args[n_positional:], strict=False))
                args = args[:n_positional]
                warn(
                    f"Pass {', '.join(f'{new}=...' for new in named)} to {name} by keyword: "
                    "passing by position is deprecated, and will be an error in a later version.",
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
            # Python raises a TypeError if an argument is given in both forms.
            return function(*args, **named, **kwargs)

        return wrapper

    return decorate
