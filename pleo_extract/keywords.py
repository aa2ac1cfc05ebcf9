"""Keywords of public functions: an unknown one is refused before any work, with the name that was probably meant."""

from __future__ import annotations

import inspect
from difflib import get_close_matches
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["check_keywords", "check_keywords_of"]

P = ParamSpec("P")
T = TypeVar("T")


def check_keywords(function: Callable[P, T]) -> Callable[P, T]:
    """Return the function with a TypeError for unknown keywords that names the nearest known one.

    Python's own error names the wrong keyword only.

    Raises:
        TypeError: when called with an unknown keyword.
    """
    known = tuple(name for name in inspect.signature(function).parameters if name != "self")
    called = function.__qualname__.removesuffix(".__init__")

    @wraps(function)
    def call(*args: P.args, **given: P.kwargs) -> T:
        for name in given:
            if name not in known:
                near = get_close_matches(name, known, n=1, cutoff=0.5) or [
                    each for each in known if each.startswith(name)
                ]
                hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(known) or 'none'}"
                raise TypeError(f"{called}() has no parameter {name!r}; {hint}")
        try:
            return function(*args, **given)
        finally:
            # Tracebacks with locals, as some log handlers write them, would show a credential among these.
            del args, given

    return call


def check_keywords_of(made: type[T]) -> type[T]:
    """Return a dataclass whose constructor checks its keywords with `check_keywords`."""
    made.__init__ = check_keywords(made.__init__)  # type: ignore[method-assign] # the one that dataclass wrote
    return made
