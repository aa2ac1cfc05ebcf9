"""Jobs whose created_at has moved: a job stands in one month, so its rows leave every other one.

By the contract `createdAt` never changes. Servers were seen to change it all the same, and to show a job twice in one
walk while they do. The lake files a job by the month of its creation: without this it would hold such a job twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pleo_extract.contract import KEY
from pleo_extract.core.rows import created_month, keep_latest
from pleo_extract.errors import ContractError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pleo_extract.core.state import JobKey
    from pleo_extract.sync.task import Task

__all__ = ["OTHER_DATA", "find_listed", "move_jobs", "move_listed", "settle_split"]

MANY_MOVED: Final = 100
"""Above this many moved jobs, and above 1 % of all, the server is not believed."""
OTHER_DATA: Final = "If the server holds other data now (another account, a sandbox started anew), dump that to a folder of its own"


def settle_split(task: Task) -> int:
    """Choose the month of each job that was read under two or more; returns how many rows too many these jobs have.

    The latest row stays, as everywhere: of the later `last_updated_at`, of equals the one fetched later.
    """
    split = task.staging.find_split()
    if split.is_empty():
        return 0
    stays = keep_latest(split).select(*KEY, stays=created_month())
    read = split.select(*KEY, month=created_month()).unique().join(stays, on=KEY)
    for company, name, month, home in read.iter_rows():
        leaving = task.staging.leaving.setdefault(month, set())
        if month == home:
            leaving.discard((company, name))  # it moved back
        else:
            leaving.add((company, name))
    _count(task)
    return read.height - stays.height


def move_listed(task: Task, news: pl.DataFrame) -> set[JobKey]:
    """Let jobs move that the lake has, though not at the instants of these rows; returns all such jobs.

    One that stays in its month is merged there by its key.
    """
    if news.is_empty():
        return set()
    near = task.lake.filter(pl.col("id").is_in(news["id"].implode())).select(*KEY, month=created_month())
    had = near.collect().join(news, on=KEY, how="semi").unique()
    read = news.select(*KEY, month=created_month())
    moved: dict[JobKey, list[str]] = {}
    for company, name, month in had.join(read, on=[*KEY, "month"], how="anti").iter_rows():
        moved.setdefault((company, name), []).append(month)
    move_jobs(task, moved)
    return set(had.select(KEY).iter_rows())


def find_listed(task: Task, jobs: Collection[JobKey]) -> set[JobKey]:
    """Which of these jobs are staged, in whatever month."""
    if not jobs:
        return set()
    wanted = pl.DataFrame(sorted(jobs), schema=dict.fromkeys(KEY, pl.String), orient="row")
    frames = (frame.select(KEY) for month in task.staging.months() for frame in task.staging.read(month))
    return {(c, name) for frame in frames for c, name in frame.join(wanted, on=KEY, how="semi").iter_rows()}


def move_jobs(task: Task, jobs: Mapping[JobKey, list[str]]) -> None:
    """Let these jobs leave the months in which the lake has them: they are listed in others now.

    Raises:
        ContractError: more than 100 of them, and more than 1 % of the account's jobs.
    """
    if len(jobs) > max(MANY_MOVED, task.before.full_jobs // 100):
        task.staging.clear()
        raise ContractError(
            f"{len(jobs)} job(s) of the lake are listed with another created_at, {min(jobs)[1]} among them, and a job's "
            f"never changes; nothing was published. {OTHER_DATA}"
        )
    for job, months in jobs.items():
        for month in months:
            task.staging.leaving.setdefault(month, set()).add(job)
    _count(task)


def _count(task: Task) -> None:
    task.evidence.moved = len(set().union(*task.staging.leaving.values()))
