"""One ordering of one selection of the jobs, kept in order while their lives go on.

A key is a flat tuple: for each sorting key where nulls go and the value, then the id and the company, so that
no two jobs share one. `ASC` puts nulls last and `DESC` first, as PostgreSQL does.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from pleo_extract.sandbox.life import Job

__all__ = ["ORDERS", "SORTABLE", "Key", "Selection", "Sort", "View", "restore_key"]

Key = tuple[Any, ...]
Sort = tuple[tuple[str, str], ...]
"""Pairs of a field's name and a PageOrder (contract: sorting_keys, sorting_order)."""

ORDERS = {
    "ASC": (False, 2),
    "ASC_NULLS_FIRST": (False, 0),
    "ASC_NULLS_LAST": (False, 2),
    "DESC": (True, 0),
    "DESC_NULLS_FIRST": (True, 0),
    "DESC_NULLS_LAST": (True, 2),
}
"""PageOrder: whether values fall, and the rank of a null, where a value has rank 1."""


def _field(name: str) -> Callable[[Job, int], Any]:
    return lambda job, t: job.at(t).get(name)


SORTABLE: dict[str, Callable[[Job, int], Any]] = {
    "createdAt": lambda job, t: job.placed(t),
    "id": lambda job, _: job.rank,
    "companyId": lambda job, _: job.company,
    "status": lambda job, t: job.status(t),
    **{
        name: _field(name)
        for name in ("startedAt", "completedAt", "expiredAt", "lastUpdatedAt", "createdBy", "numberOfItems")
    },
}
"""The fields that can be sorted by, and how each is read."""


class Selection(NamedTuple):
    """Which jobs, in which order: None stands for all companies, all statuses."""

    companies: frozenset[str] | None
    statuses: frozenset[str] | None
    sort: Sort

    def holds(self, job: Job, t: int) -> bool:
        """Whether the job is listed in this selection at `t`."""
        return (
            job.exists(t)
            and (self.companies is None or job.company in self.companies)
            and (self.statuses is None or job.status(t) in self.statuses)
        )


class Falling(str):
    """A text that sorts backwards, for the DESC orders."""

    __slots__ = ()

    def __lt__(self, other: str) -> bool:
        return str.__gt__(self, other)


def _fall(value: Any) -> Any:
    return Falling(value) if isinstance(value, str) else -value


def restore_key(sort: Sort, values: Sequence[Any]) -> Key:
    """A key of this sort from its plain values, as a cursor keeps them."""
    key = list(values)
    for place, (_, order) in enumerate(sort):
        if ORDERS[order][0] and isinstance(key[2 * place + 1], str):
            key[2 * place + 1] = Falling(key[2 * place + 1])
    return tuple(key)


class View:
    """The jobs of a selection in its order at the instant they were last placed; `read` counts the log."""

    def __init__(self, selection: Selection, jobs: Iterable[Job], t: int, read: int) -> None:
        self.selection = selection
        self.read = read
        self._fields = [(SORTABLE[name], *ORDERS[order]) for name, order in selection.sort]
        rows = [(self.key(job, t), job) for job in jobs if selection.holds(job, t)]
        rows.sort(key=itemgetter(0))
        self.keys = [key for key, _ in rows]
        self.jobs = [job for _, job in rows]
        self._key_of = {job: key for key, job in rows}

    def key(self, job: Job, t: int) -> Key:
        """Where the job belongs at `t`."""
        parts: list[Any] = []
        for value_of, falls, null_rank in self._fields:
            value = value_of(job, t)
            if value is None:
                parts += (null_rank, 0)
            else:
                parts += (1, _fall(value) if falls else value)
        return (*parts, job.rank, job.company)

    def place(self, job: Job, t: int) -> None:
        """Put the job where it belongs at `t`, or take it out."""
        old = self._key_of.pop(job, None)
        if old is not None:
            place = bisect_left(self.keys, old)
            del self.keys[place], self.jobs[place]
        if self.selection.holds(job, t):
            key = self._key_of[job] = self.key(job, t)
            place = bisect_left(self.keys, key)
            self.keys.insert(place, key)
            self.jobs.insert(place, job)
