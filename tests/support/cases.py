"""Which cases of a table the fast tests run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _pytest.mark import ParameterSet

__all__ = ["mostly_slow"]

_PARAMETERS = type(pytest.param())
"""Old releases of pytest do not export its name."""


def mostly_slow(cases: Iterable[Any], *, quick: int = 1) -> list[ParameterSet]:
    """Return all cases as parameters: the first ones for the fast tests, the others for the slow ones.

    For tables whose cases take the same way through the code. A case is a value, a tuple of values, or a `pytest.param`.
    """
    return [_mark(case) if place >= quick else _unpack(case) for place, case in enumerate(cases)]


def _unpack(case: Any) -> ParameterSet:
    if isinstance(case, _PARAMETERS):
        return case
    return pytest.param(*case) if isinstance(case, tuple) else pytest.param(case)


def _mark(case: Any) -> ParameterSet:
    plain = _unpack(case)
    return pytest.param(*plain.values, id=plain.id, marks=[*plain.marks, pytest.mark.slow])
