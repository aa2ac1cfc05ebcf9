"""Ranks: the offsets at which a few pages are read, and what such a sample can show.

The rank of a job is its offset in the ordered list. A job that is inserted or deleted shifts all jobs after it by one,
so a page that was read at a known rank shows whether the list has changed before it.

Rules of this room: no clock, no randomness, no I/O; chances come in as arguments.
"""

from __future__ import annotations

from itertools import pairwise, product
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["chance_of_notice", "chance_of_shift", "group_ranks", "spread_ranks"]


def spread_ranks(start: int, jobs: int, *, page: int, count: int, phase: float) -> list[int]:
    """Return the offsets of `count` pages, evenly spread over a list of `jobs` jobs from rank `start` on.

    The list is cut into `count` parts, and `phase`, from 0 to 1, says where in its part each page lies. It is drawn by
    chance for each run, so that every rank is read in time.
    """
    room = jobs - page - start + 1
    if room <= 0:  # one page shows them all
        return [start] if jobs > start else []
    return [start + int((n + phase) * room / count) for n in range(count)]


def chance_of_shift(start: int, jobs: int, ranks: Sequence[int]) -> float:
    """Return the probability that pages at these ranks show that one job was deleted and another one inserted.

    Together they shift the jobs between them by one. They escape only if no page lies between the two; among the newest
    `start` jobs, which are read anyway, none escapes. The two places are taken as independent and equally likely.
    """
    if jobs <= 0:
        return 1.0
    ends = [min(start, jobs), *sorted(ranks), jobs]
    return 1.0 - sum((high - low) ** 2 for low, high in pairwise(ends)) / jobs**2


def chance_of_notice(start: int, jobs: int, pages: Sequence[tuple[int, float]]) -> float:
    """Return the same probability for pages that show a shift only with a probability of their own: rank and probability."""
    chance = 0.0
    for shows in product((True, False), repeat=len(pages)):
        weight = prod(
            certainty if is_shown else 1 - certainty
            for is_shown, (_, certainty) in zip(shows, pages, strict=True)
        )
        ranks = [rank for is_shown, (rank, _) in zip(shows, pages, strict=True) if is_shown]
        chance += weight * chance_of_shift(start, jobs, ranks)
    return chance


def group_ranks(ranks: Sequence[int], *, page: int, slack: int) -> list[tuple[int, int]]:
    """Return offset and rows of as few pages of at most `page` rows as show all these ranks.

    Each rank has about `slack` rows on either side, since jobs may have been inserted or deleted meanwhile.
    """
    pages: list[tuple[int, int]] = []
    for rank in sorted(ranks):
        if not pages or rank >= pages[-1][0] + page - slack:
            pages.append((max(0, rank - slack), 0))
        offset = pages[-1][0]
        pages[-1] = offset, min(page, rank + slack + 1 - offset)
    return pages
