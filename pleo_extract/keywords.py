"""Unknown keywords at the public doors: refused before any work, with the name that was probably meant."""

from __future__ import annotations

import inspect
from difflib import get_close_matches
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["check_keywords"]

P = ParamSpec("P")
T = TypeVar("T")


def check_keywords(function: Callable[P, T]) -> Callable[P, T]:
    """Return the function with a better TypeError for a keyword that it does not have.

    Python's own error names the wrong keyword only. This one also names the nearest that exists, since a misspelt
    option must neither be ignored nor cost a look at the documentation.

    Raises:
        TypeError: when called with an unknown keyword.
    """
    known = tuple(inspect.signature(function).parameters)

    @wraps(function)
    def call(*args: P.args, **given: P.kwargs) -> T:
        for name in given:
            if name not in known:
                near = get_close_matches(name, known, n=1, cutoff=0.5) or [
                    each for each in known if each.startswith(name)
                ]
                hint = f"; did you mean {near[0]!r}?" if near else f"; it takes {', '.join(known)}"
                raise TypeError(f"{function.__qualname__}() has no parameter {name!r}{hint}")
        try:
            return function(*args, **given)
        finally:
            del (
                args,
                given,
            )  # a traceback may show the locals of this frame, and among them may be a credential

    return call
