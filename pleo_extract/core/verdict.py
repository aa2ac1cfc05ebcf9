"""What a finished walk proves, and what the server's `total` is worth.

Rules of this room: no clock, no randomness, no I/O.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, get_args

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pleo_extract.core.state import SyncState, TotalKind

__all__ = [
    "MANY_GONE",
    "MANY_JOBS",
    "MANY_MISSES",
    "VERDICTS",
    "Verdict",
    "VerdictName",
    "decide_verdict",
    "expect_total",
    "learn_total",
]


MANY_GONE: Final = 100
"""A `total` that falls by more than these, and by more than 1 %, while it is walked is not drift."""
VerdictName = Literal["complete", "complete_with_drift", "incomplete"]
VERDICTS: Final[tuple[VerdictName, ...]] = get_args(VerdictName)
"""From the best to the worst."""
MANY_JOBS: Final = 100
"""By how many jobs, or 1 % of them, a `total` may wobble while the list moves."""
MANY_MISSES: Final = 2
_ROUND: Final = 1_000
"""Caps are multiples of this: search engines count to 10,000."""


class Verdict(msgspec.Struct, frozen=True):
    """What a finished walk proves: the name, and whether another pass is due; `why` in words, "" when complete."""

    name: VerdictName
    why: str = ""
    again: bool = False


def decide_verdict(
    distinct: int,
    totals: tuple[int | None, int | None],
    *,
    previous: int | None = None,
    confirmed: bool = False,
) -> Verdict:
    """Whether `distinct` jobs are all there are, by the totals told first and last.

    Args:
        distinct: different jobs read, unusable rows included.
        totals: `total` of the first and of the last page; None where the server told none.
        previous: distinct jobs after the pass before, when this is the second pass.
        confirmed: whether the second pass, by itself, met the same jobs as the first.

    Fewer than the smaller total asks for one more pass, as does a total that fell while fewer were met than it told first;
    the same jobs again mean that `total` is not to be trusted.
    """
    known = [total for total in totals if total is not None]
    fell = bool(known) and known[0] - known[-1] > max(MANY_GONE, known[0] // 100) and distinct < known[0]
    if fell and not confirmed:
        why = f"total fell from {known[0]} to {known[-1]} while {distinct} jobs were read"
        return Verdict("incomplete", why, again=previous is None)
    if not known or distinct == known[0] == known[-1]:
        return Verdict("complete")
    if min(known) <= distinct <= max(known):
        # Where cursors are positions, a job that is deleted behind the reader moves another one past it.
        is_skip_likely = previous is None and not confirmed and known[-1] < known[0] > distinct
        why = f"total went from {known[0]} to {known[-1]}"
        return Verdict("complete_with_drift", why, again=is_skip_likely)
    if distinct > max(known):
        return Verdict("complete_with_drift", f"{distinct} jobs read, more than the total of {max(known)}")
    shortfall = f"{distinct} jobs read, fewer than the total of {min(known)}"
    if previous == distinct:
        return Verdict("complete_with_drift", f"total_untrusted: {shortfall}, twice the same jobs")
    why = shortfall if previous is None else f"{shortfall}, and {previous} before"
    return Verdict("incomplete", why, again=previous is None)


def expect_total(account: SyncState, totals: tuple[int | None, int | None]) -> tuple[int | None, int | None]:
    """Return these totals as the number of jobs they stand for, None where they stand for nothing."""
    if account.total_kind == "unusable":
        return None, None
    first, last = (None if total is None else total - account.total_offset for total in totals)
    return first, last


def learn_total(before: SyncState, jobs: int, totals: Sequence[int | None], *, page: int) -> SyncState:
    """Return the state with what a full walk, which met `jobs` jobs, shows of `total`.

    A total that is wrong by a constant is as good as a right one, since its changes are compared. One that is wrong by
    another number at each full walk is an estimate or has a cap; so is one that no change of the list can explain. Jobs
    that appear during a walk are met by it, so the last total tells of all of them, however many: what it has grown by is
    no doubt where it fits, what it has fallen by always is. One doubtful walk proves nothing either way, two are believed.

    Args:
        before: the state before the walk.
        jobs: different jobs met.
        totals: as told in the walk, the last one by the closing reads.
        page: rows of the page that told the last one.
    """
    told = [total for total in totals if total is not None and total >= 0]
    if not told:
        return msgspec.structs.replace(before, total_kind="", total_offset=0, total_misses=0)
    much, offset = max(MANY_JOBS, jobs // 100), told[-1] - jobs
    fits = offset == before.total_offset
    fall = max(high - low for n, high in enumerate(told) for low in told[n:])
    wobble = fall if fits else max(told) - min(told)
    if min(told) <= jobs + before.total_offset <= max(told):  # jobs that came or went meanwhile
        offset = before.total_offset
    moved = abs(offset - before.total_offset) if before.total_kind or before.total_misses else 0
    misses = before.total_misses + 1 if wobble or (moved and offset) else 0
    is_short = offset < 0 and (told[-1] % _ROUND == 0 or told[-1] <= page)  # a cap, or the rows of the page
    kind: TotalKind = "constant" if offset else "exact"
    if misses:
        kind = ""
    if is_short or wobble > much or (offset and moved > much) or misses >= MANY_MISSES:
        kind = "unusable"
    return msgspec.structs.replace(before, total_kind=kind, total_offset=offset, total_misses=misses)
