"""A view: the jobs of one selection in one order, kept sorted while the jobs change.

A key is a flat tuple: for each sorting key the rank of nulls and the value, then the id and the company. So no two
jobs have the same key. `ASC` puts nulls last and `DESC` puts them first, as PostgreSQL does.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from pleo_extract.sandbox.life import Job

__all__ = ["ORDERS", "SORTABLE", "Key", "Selection", "Sort", "View", "restore_key"]

Key = tuple[Any, ...]
Sort = tuple[tuple[str, str], ...]
"""Pairs of a field's name and its PageOrder (contract: sorting_keys, sorting_order)."""

ORDERS = {
    "ASC": (False, 2),
    "ASC_NULLS_FIRST": (False, 0),
    "ASC_NULLS_LAST": (False, 2),
    "DESC": (True, 0),
    "DESC_NULLS_FIRST": (True, 0),
    "DESC_NULLS_LAST": (True, 2),
}
"""For each PageOrder: whether it is descending, and the rank of null; the rank of a value is 1."""


def _field(name: str) -> Callable[[Job, int], Any]:
    return lambda job, t: job.record(t).get(name)


SORTABLE: dict[str, Callable[[Job, int], Any]] = {
    "createdAt": lambda job, t: job.created_time(t),
    "id": lambda job, _: job.id_number,
    "companyId": lambda job, _: job.company,
    "status": lambda job, t: job.status(t),
    **{
        name: _field(name)
        for name in ("startedAt", "completedAt", "expiredAt", "lastUpdatedAt", "createdBy", "numberOfItems")
    },
}
"""The fields that the list can be sorted by, and the function that reads each from a job."""


class Selection(NamedTuple):
    """The filter and the order of a list; None stands for all companies or all statuses."""

    companies: frozenset[str] | None
    statuses: frozenset[str] | None
    sort: Sort

    def matches(self, job: Job, t: int) -> bool:
        """Return whether the job is listed in this selection at `t`."""
        return (
            job.is_listed(t)
            and (self.companies is None or job.company in self.companies)
            and (self.statuses is None or job.status(t) in self.statuses)
        )


class Descending(str):
    """A text that sorts in reverse, for the DESC orders."""

    __slots__ = ()

    def __lt__(self, other: str) -> bool:
        return str.__gt__(self, other)


def _invert(value: Any) -> Any:
    return Descending(value) if isinstance(value, str) else -value


def restore_key(sort: Sort, values: Sequence[Any]) -> Key:
    """Rebuild a key of this sort from the plain values that a cursor holds."""
    key = list(values)
    for place, (_, order) in enumerate(sort):
        if ORDERS[order][0] and isinstance(key[2 * place + 1], str):
            key[2 * place + 1] = Descending(key[2 * place + 1])
    return tuple(key)


class View:
    """The jobs of a selection in order. The world calls `update` for each job that changed.

    Attributes:
        selection: the filter and the order.
        log_position: the number of entries of the world's change log that the view has applied.
        keys: the keys of the jobs, sorted.
        jobs: the jobs in the same order.
    """

    def __init__(self, selection: Selection, jobs: Iterable[Job], t: int, log_position: int) -> None:
        self.selection = selection
        self.log_position = log_position
        self._fields = [(SORTABLE[name], *ORDERS[order]) for name, order in selection.sort]
        rows = [(self.key(job, t), job) for job in jobs if selection.matches(job, t)]
        rows.sort(key=itemgetter(0))
        self.keys = [key for key, _ in rows]
        self.jobs = [job for _, job in rows]
        self._key_of = {job: key for key, job in rows}

    def key(self, job: Job, t: int) -> Key:
        """Return the job's key at `t`."""
        parts: list[Any] = []
        for value_of, descending, null_rank in self._fields:
            value = value_of(job, t)
            if value is None:
                parts += (null_rank, 0)
            else:
                parts += (1, _invert(value) if descending else value)
        return (*parts, job.id_number, job.company)

    def update(self, job: Job, t: int) -> None:
        """Move the job to its position at `t`, or remove it."""
        old = self._key_of.pop(job, None)
        if old is not None:
            place = bisect_left(self.keys, old)
            del self.keys[place], self.jobs[place]
        if self.selection.matches(job, t):
            key = self._key_of[job] = self.key(job, t)
            place = bisect_left(self.keys, key)
            self.keys.insert(place, key)
            self.jobs.insert(place, job)
