"""What a finished walk proves, and what the server's `total` is worth.

Theory of operation. The proof of a walk lies in its pages: `hasNextPage` was false at the end, the order was kept, and
no gap was left between segments. `total` is a cross-check only, since servers count in many ways: exactly, wrong by a
constant (deleted jobs are counted), up to a cap (search engines count to 10,000), the rows of the page, or an estimate
that differs each time. So fewer jobs than `total` do not fail a run at once: one more pass is due. If it meets the same
jobs, `total` is wrong, and the verdict is `complete_with_drift`. If the two passes differ, or if rows that came twice can
explain why jobs are missing from both, the list is `incomplete`.

`learn_total` remembers over the runs which kind of total a server has, so that an incremental sync can compare how much
`total` has changed with how many jobs it has read, and does not raise the same doubt in every run.

Rules of this room: no clock, no randomness, no I/O.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, get_args

import msgspec

from pleo_extract.errors import amount

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pleo_extract.core.state import SyncState, TotalKind

__all__ = [
    "MANY",
    "MANY_MISSES",
    "VERDICTS",
    "Verdict",
    "VerdictName",
    "count_arrivals",
    "count_replaced",
    "decide_part",
    "decide_verdict",
    "expect_total",
    "is_many",
    "is_skip_likely",
    "learn_total",
]


MANY: Final = 100
"""Up to this many jobs, or up to 1 % of all, may come, go or be wrong before it is more than drift (`is_many`, F21)."""
VerdictName = Literal["complete", "complete_with_drift", "incomplete"]
VERDICTS: Final[tuple[VerdictName, ...]] = get_args(VerdictName)
"""From the best to the worst."""
MANY_MISSES: Final = 2
"""Doubtful full walks in a row after which `total` is unusable: one may have been unlucky."""
_OTHERS: Final = "so others may be missing"
_ROUND: Final = 1_000
"""Caps are multiples of this; search engines count to 10,000."""


class Verdict(msgspec.Struct, frozen=True):
    """What a finished walk proves.

    Attributes:
        name: ``complete``, ``complete_with_drift`` or ``incomplete``.
        why: the reason in words; "" when complete.
        again: whether one more pass is due.
    """

    name: VerdictName
    why: str = ""
    again: bool = False


def is_many(count: int, total: int) -> bool:
    """Return whether a count is above 100 and above 1 % of `total`: then it is more than the drift of a moving list."""
    return count > max(MANY, total // 100)


def decide_verdict(  # noqa: PLR0913 - the counts of one walk and of the one before it
    distinct: int,
    totals: tuple[int | None, int | None],
    *,
    moves: tuple[int, int] = (0, 0),
    repeated: int = 0,
    is_moving: bool = False,
    meets_arrivals: bool = False,
    previous: int | None = None,
    confirmed: bool = False,
) -> Verdict:
    """Decide whether `distinct` jobs are all there are, by the first and the last `total`.

    Args:
        distinct: different jobs read, unusable rows included.
        totals: `total` of the first and of the last page; None where the server gave none.
        moves: by how much `total` rose and fell from page to page.
        repeated: rows that came twice in a list sorted by created_at alone: each may have taken the place of another.
        is_moving: whether rows of a list without order came twice: jobs have moved in it, perhaps past the reader.
        meets_arrivals: whether jobs that are created meanwhile are read too, as in ascending order.
        previous: different jobs read after the first pass, if this is the second one.
        confirmed: whether the second pass alone met the same jobs as the first.
    """
    known = [total for total in totals if total is not None]
    doubt = ""
    if known and is_many(known[0] - known[-1], known[0]) and distinct < known[0]:
        doubt = f"total fell from {known[0]} to {known[-1]} while {distinct} jobs were read"
    elif repeated and not (known and distinct == known[0] == known[-1]):
        doubt = f"{amount(repeated, 'row')} came twice, {_OTHERS}, and {_compare_total(distinct, known)}"
    elif is_moving and not (known and distinct == known[-1]):
        doubt = f"rows of a list without order came twice, {_OTHERS}, and {_compare_total(distinct, known)}"
    # Both passes can miss the same job by chance, so a second pass with such rows confirms no shortfall that they explain.
    is_explained = repeated > 0 and bool(known) and distinct < max(known)
    if doubt and (is_explained or not confirmed):
        return Verdict("incomplete", doubt, again=previous is None)
    # If arrivals are read too and `total` only grew, a last total above `distinct` counts jobs that the walk passed over.
    is_short = meets_arrivals and not moves[1] and len(known) > 1 and distinct < known[-1]
    again = previous is None and not confirmed and (is_short or is_skip_likely(distinct, totals, moves))
    if not known or distinct == known[0] == known[-1]:
        return Verdict("complete", again=again)
    if min(known) <= distinct <= max(known):
        return Verdict("complete_with_drift", f"total went from {known[0]} to {known[-1]}", again=again)
    if distinct > max(known):
        why = f"{distinct} jobs read, more than the total of {max(known)}"
        return Verdict("complete_with_drift", why, again=again)
    shortfall = f"{distinct} jobs read, fewer than the total of {min(known)}"
    if previous == distinct:
        return Verdict(
            "complete_with_drift", f"total_untrusted: {shortfall}, but the same jobs in two passes"
        )
    why = shortfall if previous is None else f"{shortfall}; the pass before read {previous}"
    return Verdict("incomplete", why, again=previous is None)


def _compare_total(distinct: int, known: Sequence[int]) -> str:
    if not known:
        return "there is no total to tell"
    if distinct > max(known):
        return f"the total of {max(known)} is too low to tell"
    if distinct < min(known):
        return f"{distinct} jobs are fewer than the total of {min(known)}"
    return f"total went from {known[0]} to {known[-1]}"


def decide_part(moves: tuple[int, int], total: int | None, *, repeated: int) -> Verdict:
    """Decide whether a part of the list, read newest first, may lack a job; `total` counts the whole list.

    A `total` that falls by more than a list loses in this time is an estimate, and proves nothing.

    Args:
        moves: by how much `total` rose and fell from page to page: a deleted job may have moved another past the reader.
        total: `total` of the first page.
        repeated: rows that came twice in a list sorted by created_at alone, see `decide_verdict`.
    """
    risen, fallen = moves
    if count_replaced(repeated, risen):
        return Verdict("incomplete", f"{amount(repeated, 'row')} came twice, {_OTHERS}", again=True)
    if not fallen or total is None or is_many(fallen, total):
        return Verdict("complete")
    return Verdict(
        "complete_with_drift", f"total fell by {fallen} while a part of the list was read", again=True
    )


def count_replaced(repeated: int, risen: int) -> int:
    """Return how many rows that came twice in a list read newest first may have taken the place of others.

    Each new job moves the list by one row, so that one that was read comes again; `total` rises by it.
    """
    return max(0, repeated - risen)


def is_skip_likely(distinct: int, totals: tuple[int | None, int | None], moves: tuple[int, int]) -> bool:
    """Return whether a walk may have skipped a job although the counts fit.

    Where cursors are positions, a job that is deleted behind the reader moves another one past it, and neither total
    shows it: 699 of 700 jobs were read, and the last total was 699; or 700 were read and the last total was 700, since
    one was created meanwhile. A `total` that moves more than a list does is an estimate and shows nothing.

    Args:
        distinct: different jobs read, unusable rows included.
        totals: `total` of the first and of the last page of the walk.
        moves: by how much `total` rose and fell from page to page.
    """
    first, last = totals
    if first is None:
        return False
    fallen = max(moves[1], 0 if last is None else first - last)
    # If more jobs were read than `total` ever counted, it is too low to rule out a skip.
    return fallen > 0 and not is_many(fallen, distinct) and distinct != first + moves[0]


def expect_total(account: SyncState, totals: tuple[int | None, int | None]) -> tuple[int | None, int | None]:
    """Return how many jobs these totals stand for; None where they prove nothing."""
    if account.total_kind == "unusable":
        return None, None
    first, last = (None if total is None else total - account.total_offset for total in totals)
    return first, last


def count_arrivals(
    first: tuple[int | None, int | None], again: tuple[int | None, int | None]
) -> range | None:
    """Return how many jobs can have come from one reading of the list to the next, if `total` is wrong by a constant.

    A job that comes while the list is read may stand before the reader or behind.

    Args:
        first: `total` on the first and on the last page of the first reading.
        again: the same of the second reading.

    Returns:
        The possible numbers; None where a total is missing.
    """
    (start, end), (start_again, end_again) = first, again
    if start is None or end is None or start_again is None or end_again is None:
        return None
    return range(start_again - end, end_again - start + 1)


def learn_total(
    before: SyncState, jobs: int, totals: Sequence[int | None], *, fallen: int, page: int
) -> SyncState:
    """Return the state with what a full walk shows about the kind of `total`.

    A total that is wrong by a constant is as good as a right one, since only its changes are compared. A total that is
    wrong by another number in each full walk is an estimate or has a cap, and so is one that moves more than the list can.
    The walk meets the jobs that appear meanwhile, so a total that grew to fit them is no reason for doubt; one that fell
    always is. One doubtful walk proves nothing either way; `MANY_MISSES` in a row are believed.

    A total that is too low may be a cap, whatever its value. Its kind is known once it has grown or shrunk with the list.

    Args:
        before: the state before the walk.
        jobs: different jobs that the walk met.
        totals: every total of the walk, in order; the closing reads gave the last one.
        fallen: by how much `total` fell from page to page; as many of the jobs may be gone.
        page: rows of the page that gave the last one.
    """
    given = [total for total in totals if total is not None and total >= 0]
    if not given:
        return msgspec.structs.replace(before, total_kind="", total_offset=0, total_misses=0)
    offset = given[-1] - jobs
    fits = offset == before.total_offset
    fall = max(high - low for n, high in enumerate(given) for low in given[n:])
    wobble = fall if fits else max(given) - min(given)
    highest = max(given) if is_many(fallen, jobs) else max(*given, given[-1] + fallen)
    if min(given) <= jobs + before.total_offset <= highest:  # jobs that came or went meanwhile
        offset = before.total_offset
    is_known = before.total_kind or before.total_misses or before.full_jobs
    moved = abs(offset - before.total_offset) if is_known else 0
    misses = before.total_misses + 1 if wobble or (moved and offset) else 0
    is_short = offset < 0 and (given[-1] % _ROUND == 0 or given[-1] <= page)  # a cap, or the rows of the page
    kind: TotalKind = "constant" if offset else "exact"
    has_moved = before.total_kind == "constant" or (fits and jobs != before.full_jobs)
    # An estimate fits now and then; two in a row are believed.
    is_luck = before.total_kind == "unusable" and not misses
    if misses or is_luck or (offset < 0 and not has_moved):
        kind = ""
    is_estimate = is_many(wobble, jobs) or (offset != 0 and is_many(moved, jobs))
    if is_short or is_estimate or misses >= MANY_MISSES:
        kind = "unusable"
    return msgspec.structs.replace(before, total_kind=kind, total_offset=offset, total_misses=misses)
