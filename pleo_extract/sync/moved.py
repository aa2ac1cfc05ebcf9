"""Moved jobs: jobs that the server lists with another created_at than the lake has.

The contract says that `createdAt` never changes. Some servers change it all the same, and may then show one job twice in
one walk, under both months. The lake stores a job in the month of its creation, so without this file it would hold
such a job twice. A moved job is kept in one month; publishing removes its rows from every other (`Staging.leaving`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pleo_extract.contract import KEY
from pleo_extract.core.rows import created_month, keep_latest
from pleo_extract.core.verdict import is_many
from pleo_extract.errors import ContractError, amount
from pleo_extract.sync.task import build_key_frame

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import polars as pl

    from pleo_extract.core.state import JobKey
    from pleo_extract.sync.task import Task

__all__ = ["OTHER_DATA", "choose_months", "count_surplus", "find_staged", "move_jobs", "move_listed"]

OTHER_DATA: Final = (
    "If the server holds other data now (another account, a new sandbox), dump that to a folder of its own"
)


def choose_months(task: Task) -> pl.DataFrame:
    """Choose the month of each job that is staged under several, and return the rows of all jobs that have moved.

    The month of the latest row wins, by the order of `keep_latest`. Jobs that have moved within a month are returned too:
    each of their rows was read at another place of the list.
    """
    moved = task.staging.find_moved()
    split = moved.drop("phase").filter(created_month().n_unique().over(KEY) > 1)
    if split.is_empty():
        return moved
    latest = keep_latest(split).select(*KEY, chosen=created_month())
    staged = split.select(*KEY, month=created_month()).unique().join(latest, on=KEY)
    for company, name, month, chosen in staged.iter_rows():
        leaving = task.staging.leaving.setdefault(month, set())
        if month == chosen:
            leaving.discard((company, name))  # it moved back
        else:
            leaving.add((company, name))
    _count_moved(task)
    return moved


def count_surplus(moved: pl.DataFrame, by: pl.Expr) -> int:
    """Return by how many a count of jobs for each value of `by` exceeds the number of jobs."""
    return moved.select(*KEY, by).n_unique() - moved.select(KEY).n_unique()


def move_listed(task: Task, news: pl.DataFrame) -> set[JobKey]:
    """Move the jobs that the lake has at another instant than these rows, and return all of them.

    A job whose month stays the same needs no move: the merge of that month replaces its row by key.
    """
    if news.is_empty():
        return set()
    had = task.find_in_lake(news).select(*KEY, month=created_month()).unique()
    read = news.select(*KEY, month=created_month())
    moved: dict[JobKey, list[str]] = {}
    for company, name, month in had.join(read, on=[*KEY, "month"], how="anti").iter_rows():
        moved.setdefault((company, name), []).append(month)
    move_jobs(task, moved)
    return set(had.select(KEY).iter_rows())


def find_staged(task: Task, jobs: Collection[JobKey]) -> set[JobKey]:
    """Return those of the jobs that are staged, in any month."""
    if not jobs:
        return set()
    wanted = build_key_frame(jobs)
    frames = (frame.select(KEY) for month in task.staging.months() for frame in task.staging.read(month))
    return {(c, name) for frame in frames for c, name in frame.join(wanted, on=KEY, how="semi").iter_rows()}


def move_jobs(task: Task, jobs: Mapping[JobKey, list[str]]) -> None:
    """Remove each job from the given months of the lake when this sync is published; it is listed in another month now.

    Raises:
        ContractError: more than 100 jobs, and more than 1 % of the account's, have moved.
    """
    if is_many(len(jobs), task.before.full_jobs):
        task.staging.clear()
        raise ContractError(
            f"{amount(len(jobs), 'job of the lake is', 'jobs of the lake are')} listed with another created_at, "
            f"{min(jobs)[1]} among them, although created_at never changes; nothing was published. {OTHER_DATA}"
        )
    for job, months in jobs.items():
        for month in months:
            task.staging.leaving.setdefault(month, set()).add(job)
    _count_moved(task)


def _count_moved(task: Task) -> None:
    task.evidence.moved = len(set().union(*task.staging.leaving.values()))
