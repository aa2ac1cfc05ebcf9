"""Ranks: at which offsets a few pages are read, and what such a sample can show."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["chance_of_shift", "group_ranks", "spread_ranks"]


def spread_ranks(start: int, jobs: int, *, page: int, count: int, phase: float) -> list[int]:
    """Return offsets of `count` pages, evenly spread over the ranks from `start` to the end of a list of so many jobs.

    `phase`, from 0 to 1, says where in its part of the list each lies: by chance, so that every rank is met in time.
    """
    room = jobs - page - start + 1
    if room <= 0:
        return []
    return [start + int((n + phase) * room / count) for n in range(count)]


def chance_of_shift(start: int, jobs: int, ranks: Sequence[int]) -> float:
    """Return the chance that pages at these ranks show that one job was deleted and another one inserted.

    Both shift all jobs between them by one, so they escape only when no page lies between the two, and both lie below
    the newest `start` jobs, which are read anyway. The two places are taken as independent and equally likely.
    """
    if jobs <= 0:
        return 1.0
    ends = [min(start, jobs), *sorted(ranks), jobs]
    return 1.0 - sum((high - low) ** 2 for low, high in pairwise(ends)) / jobs**2


def group_ranks(ranks: Sequence[int], *, page: int, slack: int) -> list[int]:
    """Offsets of as few pages as show all these ranks, each with `slack` rows before it."""
    offsets: list[int] = []
    for rank in sorted(ranks):
        if not offsets or rank >= offsets[-1] + page - slack:
            offsets.append(max(0, rank - slack))
    return offsets
