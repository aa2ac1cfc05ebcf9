"""The incremental sync (mode `refresh` in receipts): read only what can have changed, and check that it fits the lake.

Theory of operation. A job changes while it is unsettled (pending, in_progress or of an unknown status) and new jobs
appear at the head of the list. So a handful of requests can bring a lake of any size up to date:

1. the first two closing reads (see `closing`): the open list, and the newest jobs down to the watermark less an hour;
2. the third: each job that lake or staging holds as unsettled and that 1 did not show, looked up at its rank;
3. the audit: a few pages of old jobs at random ranks;
4. the checks below.

The lake is the expectation, what was read is the evidence. If they differ, `Mismatch` is raised, and the caller runs a
full sync, which is slower but assumes nothing. The main differences:

    a settled job is missing where the head walk passed      a deletion
    a settled job differs from the lake's row                a change that the contract excludes
    an old page holds a job that the lake lacks, or lacks
    one that the lake has                                    an insertion or a deletion in the past
    an old page does not begin at its rank                   a deletion and an insertion that cancel out in `total`
    the lake's jobs plus the new ones are not `total`        any of these, anywhere

An *unsettled* job that is gone is no mismatch. It has vanished: its row stays in the lake, marked.

The lake's jobs plus the new ones are compared with the `total` of the first page of the head. A newest-first walk shows no job that came after its first page, so a
later `total` would let a deleted job hide behind an arrival. For the same reason jobs that only later reads have met are
not counted (`_find_late`).

No second round of closing reads is needed: what an interrupted run left staged is older than this run's head walk, and
all unsettled jobs of it are looked up again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
import polars as pl

from pleo_extract.contract import KEY
from pleo_extract.core.rows import find_changed, find_unknown, is_as_late, is_later
from pleo_extract.core.state import stop_line
from pleo_extract.core.verdict import Verdict, expect_total
from pleo_extract.errors import CursorRefused, RequestRefused, amount
from pleo_extract.sync.audit import audit
from pleo_extract.sync.closing import find_jobs, read_head
from pleo_extract.sync.moved import choose_months, move_listed
from pleo_extract.sync.readings import count_rereads
from pleo_extract.sync.task import drop_jobs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pleo_extract.core.state import JobKey, SyncState
    from pleo_extract.sync.closing import Head
    from pleo_extract.sync.task import Task

__all__ = ["Mismatch", "sync_incrementally"]


_LOST: Final = "jobs that an earlier run staged are no longer listed"


class Mismatch(Exception):
    """Raised when what was read does not fit the lake, so that a full sync is due. The message says what does not fit.

    `kind` is ``ranks`` if the offsets of the server do not lead to the jobs that must stand there.
    """

    def __init__(self, message: str, *, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind


def sync_incrementally(task: Task) -> SyncState:
    """Read into staging what can have changed, check it against the lake, and return the account's new state.

    Raises:
        Mismatch: a full sync is due.
    """
    head = _read_head(task)
    first_late = len(task.staging.batches)
    vanished, unlisted = _look_up_missing(task, head)
    problem = audit(task, head, vanished)
    if problem:
        raise Mismatch(problem, kind="ranks")
    fresh = task.staging.frame()
    phases = [batch.phase for batch in task.staging.batches]
    pages = [frame for n, frame in task.staging.numbered(start=head.batch) if phases[n] in ("audit", "rank")]
    lake = task.read_lake_near(fresh, pages)
    choose_months(task)
    news = fresh.join(lake, on=[*KEY, "created_at"], how="anti")
    moved = move_listed(task, news)
    _compare(task, pages, lake, vanished, moved)
    new = drop_jobs(news.unique(KEY), moved | _find_late(task, head, first_late))
    state = _conclude(task, head, new.height, vanished, unlisted)
    return msgspec.structs.replace(state, unknown=count_rereads(task))


def _read_head(task: Task) -> Head:
    before = task.before
    assert before.watermark is not None, "choose_mode asks for a full sync without one"
    try:
        head = read_head(task, "new", stop_line(before.watermark))
    except (CursorRefused, RequestRefused) as exc:
        raise Mismatch(f"the list could not be read newest first ({exc})") from exc
    if head.order == "none" or (head.order == "created" and before.order == "strict"):
        raise Mismatch("the server does not list the newest jobs first")
    if head.oldest is None:
        raise Mismatch("the list is empty")
    if head.replaced:
        came = amount(head.replaced, "row")
        raise Mismatch(f"{came} of the newest jobs came twice, so others may be missing")
    return head


def _look_up_missing(task: Task, head: Head) -> tuple[set[JobKey], set[JobKey]]:
    """Look up the jobs that were unsettled and that no read has shown, and the jobs whose rows were rejected.

    A settled job that is missing where the walk passed raises `Mismatch`.

    Returns:
        The unsettled jobs that have vanished, and the rejected ones that are no longer listed.
    """
    assert head.oldest is not None
    staged = task.staging.frame().select(KEY)
    columns = ("created_at", *KEY)
    # A walk that reached the end has passed the whole list, even jobs older than the last one that it showed: those
    # have been deleted.
    is_passed = pl.lit(value=True) if head.ended else is_later(head.oldest)
    near = task.lake if head.ended else task.lake.filter(is_as_late(head.oldest))
    passed = near.select("status", *columns).collect()
    known = task.known_vanished()
    gone = task.drop_rejected(passed.filter(is_passed).join(staged, on=KEY, how="anti"))
    settled = [key for key in gone.filter(~task.is_unsettled()).select(KEY).iter_rows() if key not in known]
    if settled:
        raise Mismatch(
            f"{amount(len(settled), 'settled job is', 'settled jobs are')} no longer listed where the walk passed"
        )
    vanished = set(gone.select(KEY).iter_rows()) - known
    if _has_lost_staged(task, head):
        raise Mismatch(_LOST)
    unsettled = task.lake.filter(task.is_unsettled()).select(columns).collect()
    missing = unsettled.filter(~is_passed).join(staged, on=KEY, how="anti")
    stale = task.unsettled.find(before=head.batch)  # jobs that an earlier run saw open may have ended since
    missing = task.drop_rejected(pl.concat([missing, stale.select(columns)]).unique(KEY))
    missing = drop_jobs(missing, known)
    rejected = task.find_unmet_rejected().join(staged, on=KEY, how="anti").join(missing, on=KEY, how="anti")
    sought = pl.concat([missing, rejected.select(columns)])
    if not sought.height:
        return vanished, set()
    lost = find_jobs(task, sought, lambda keys: _count_newer(task, keys))
    if lost is None or (stale.height and lost & set(stale.select(KEY).iter_rows())):
        raise Mismatch(_LOST)
    return vanished | (lost & set(missing.select(KEY).iter_rows())), lost & task.known_rejected()


def _has_lost_staged(task: Task, head: Head) -> bool:
    """Return whether the head walk passed a job that an earlier run staged without meeting it: it has been deleted.

    The lake does not hold such a job yet, so nothing else but `total` would show that it is gone.
    """
    if not head.batch:  # no earlier run staged anything, as a rule
        return False
    nothing = task.lake.head(0).select("created_at", *KEY).collect()
    seen: dict[bool, list[pl.DataFrame]] = {True: [nothing], False: [nothing]}
    walked = [nothing]
    for n, frame in task.staging.numbered():
        seen[n >= head.batch].append(frame.select("created_at", *KEY))
        if n >= head.batch and task.staging.batches[n].phase == "new":
            walked.append(frame.select("created_at", *KEY))
    oldest = pl.concat(walked)["created_at"].min()
    if oldest is None:
        return False
    lost = pl.concat(seen[False]).join(pl.concat(seen[True]), on=KEY, how="anti")
    is_passed = pl.lit(value=True) if head.ended_now else pl.col("created_at") > pl.lit(oldest)
    return task.drop_rejected(lost.filter(is_passed)).height > 0


def _find_late(task: Task, head: Head, first_late: int) -> set[JobKey]:
    """Return the jobs that appeared after the head was read: as new as its newest, first met from this batch on.

    The `total` on the head's first page does not count them. If they counted here, one of them could make up for a job
    that was inserted into the past, and the run would be called complete without that job.
    """
    assert head.newest is not None
    nothing = task.lake.head(0).select(KEY).collect()
    met = {True: [nothing], False: [nothing]}
    for n, frame in task.staging.numbered():
        met[n >= first_late].append(frame.filter(is_as_late(head.newest)).select(KEY))
    return set(pl.concat(met[True]).join(pl.concat(met[False]), on=KEY, how="anti").iter_rows())


def _count_newer(task: Task, keys: Sequence[pl.Expr]) -> list[int]:
    """Return how many jobs match each expression, in lake and staging. Jobs new to the lake stand before all others."""
    counts = task.lake.select(key.sum().alias(str(n)) for n, key in enumerate(keys)).collect().row(0)
    fresh = task.count_new(task.staging.frame())
    return [fresh + count for count in counts]


def _compare(
    task: Task,
    pages: Sequence[pl.DataFrame],
    known: pl.DataFrame,
    vanished: set[JobKey],
    moved: set[JobKey],
) -> None:
    """Raise `Mismatch` where what was read differs from the lake.

    Args:
        task: the account's sync.
        pages: the pages of old jobs; each must show exactly what the lake has between its first and last row.
        known: the lake's rows, as `Task.read_lake_near` returns them.
        vanished: unsettled jobs that this run found to be gone.
        moved: jobs listed with another created_at.
    """
    assert task.before.watermark is not None
    expected = moved | task.known_rejected()  # the lake may hold an older row of a rejected job
    changed = drop_jobs(find_changed(known, task.staging.frame(), task.before.unknown), expected)
    if changed.height:
        raise Mismatch(f"{amount(changed.height, 'settled job')} changed, {changed['id'][0]} among them")
    for page in filter(len, pages):
        low, high = page["created_at"].min(), page["created_at"].max()
        lake = known.filter(pl.col("created_at").is_between(low, high)).select("created_at", *KEY)
        unknown = find_unknown(lake, page, until=stop_line(task.before.watermark))
        unknown = drop_jobs(unknown, expected)  # an earlier run rejected the row of such a job: it is not new
        if unknown.height:
            raise Mismatch(
                f"{amount(unknown.height, 'old job is', 'old jobs are')} new to the lake, {unknown['id'][0]} among them"
            )
        inside = lake.filter(pl.col("created_at").is_between(low, high, closed="none"))
        gone = set(inside.join(page, on=KEY, how="anti").select(KEY).iter_rows())
        gone -= task.known_vanished() | task.list_rejected() | vanished | moved
        if gone:
            raise Mismatch(f"{amount(len(gone), 'old job is', 'old jobs are')} no longer listed")


def _conclude(task: Task, head: Head, new: int, vanished: set[JobKey], unlisted: set[JobKey]) -> SyncState:
    """Compare the number of jobs with `total`, set the verdict and return the new state.

    Args:
        task: the account's sync.
        head: the result of reading the newest jobs.
        new: how many jobs are new to the lake.
        vanished: unsettled jobs that this run found to be gone.
        unlisted: rejected jobs that are no longer listed; the state stops waiting for them.
    """
    task.refuse_many_rejected()
    before, staged = task.before, task.staging.frame()
    met = set(staged.select(KEY).iter_rows())
    gone = (task.known_vanished() | vanished) - met - task.list_rejected()
    seen = {f"{company}/{name}" for company, name in met | unlisted}
    rejected = sorted(({*before.rejected} - seen) | task.staging.unresolved())
    jobs = task.count_lake() + new - len(gone) + task.count_missing(rejected) + len(task.list_forgotten())
    totals = [total for total in expect_total(before, head.totals) if total is not None]
    if totals and jobs != totals[0]:
        raise Mismatch(f"the lake and what was read make {jobs} jobs, the server counts {totals[0]}")
    if totals and totals[-1] < totals[0]:
        # A job was deleted within these seconds, or `total` is an estimate; a full sync finds out which.
        raise Mismatch(f"total fell from {totals[0]} to {totals[-1]} while the newest jobs were read")
    drift = len(set(totals)) > 1 or vanished
    why = (
        f"{amount(len(vanished), 'open job is', 'open jobs are')} no longer listed"
        if vanished
        else "jobs came or went meanwhile"
    )
    verdict = Verdict("complete_with_drift", why) if drift else Verdict("complete")
    task.evidence.conclude(verdict, distinct=len(met) + len(task.staging.met_forgotten()))
    task.evidence.order, task.evidence.vanished = head.order, sorted(vanished)
    # Only a total that has grown with the list is no cap (see `learn_total`).
    kind = (
        "constant"
        if new and totals and before.total_offset < 0 and not before.total_misses
        else before.total_kind
    )
    task.evidence.total_kind = kind
    newest = max(key for key in (head.newest, before.watermark) if key is not None)
    return msgspec.structs.replace(
        before,
        verdict=verdict.name,
        watermark=newest,
        total_kind=kind,
        vanished=sorted(gone),
        rejected=rejected,
        data_as_of=head.as_of,
        forgotten=sorted(task.list_forgotten()),
    )
