"""What a lake says of a snapshot beside its rows: when it is true for whom, names, and jobs that are no longer listed."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from pleo_extract.core.state import AccountKey, JobKey, SyncState

__all__ = ["SnapshotFacts", "read_facts"]


@dataclass(frozen=True, slots=True)
class SnapshotFacts:
    """Instants, names and vanished jobs of one snapshot; without any, all of it follows from the rows.

    Attributes:
        as_of: when the snapshot was published, with a time zone; None for the latest instant in the rows.
        data_as_of: the earliest of the instants as of which each account's rows are true; None for `as_of`.
        now: what "now" means for companies that are not in `nows`; None for `as_of`.
        nows: what it means for the others, by company.
        names: names of companies, by id.
        vanished: (company_id, id) of jobs that the server no longer lists; each once.
    """

    as_of: datetime | None = None
    data_as_of: datetime | None = None
    now: datetime | None = None
    nows: Mapping[str, datetime] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    vanished: Sequence[JobKey] = ()

    def instants(self) -> tuple[datetime | None, datetime | None, datetime | None]:
        """Return the row of the view `snapshot`: as_of, data_as_of, now."""
        return self.as_of, self.data_as_of or self.as_of, self.now or self.as_of

    def companies(self) -> Iterator[tuple[str, str | None, str]]:
        """Yield the rows of the view `companies`: id, name, and now as text, empty where it is not known."""
        for company in dict.fromkeys([*self.names, *self.nows]):
            now = self.nows.get(company)
            yield company, self.names.get(company), "" if now is None else now.isoformat()

    def spell_instants(self) -> bytes:
        """Return the rows of `snapshot` and `companies` as CSV; the one without a company is the snapshot's."""
        as_of, data_as_of, now = (each.isoformat() if each else "" for each in self.instants())
        rows = [("", "", now, as_of, data_as_of)]
        rows += [(company, name or "", its, "", "") for company, name, its in self.companies()]
        return _spell(("company_id", "name", "now", "as_of", "data_as_of"), rows)

    def spell_vanished(self) -> bytes:
        """Return the keys of vanished jobs as CSV."""
        return _spell(("company_id", "id"), self.vanished)


def read_facts(
    accounts: Mapping[AccountKey, SyncState], made_at: datetime, *, asked: datetime | None = None
) -> SnapshotFacts:
    """Return what a manifest says of its snapshot.

    "Now" is when the last complete run began its closing reads of the company, whoever published since: a job that
    hangs grows older by it although nothing is new, and a job of a company that cannot be read does not. A state for
    any company speaks for those that have none of their own; of two the later counts.

    Args:
        accounts: the states of the manifest, by account (``server company``, or ``server *`` for any company).
        made_at: when it was published. Lakes of older versions say no more than this, and when a run last published.
        asked: the instant for which the snapshot was chosen: no "now" is later.
    """

    def cut(instant: datetime) -> datetime:
        return instant if asked is None else min(instant, asked)

    states = {key: cut(state.data_as_of or state.updated_at or made_at) for key, state in accounts.items()}
    nows: dict[str, datetime] = {}
    for key, instant in states.items():
        company = key.company
        nows[company] = max(nows.get(company, instant), instant)
    shared = nows.pop("*", None)
    if shared is not None:
        nows = {company: max(instant, shared) for company, instant in nows.items()}
    return SnapshotFacts(
        as_of=made_at,
        data_as_of=min(states.values(), default=cut(made_at)),
        now=shared or cut(made_at),
        nows=nows,
        names={key.company: state.name for key, state in accounts.items() if state.name},
        vanished=sorted({key for state in accounts.values() for key in state.vanished}),
    )


def _spell(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    return text.getvalue().encode()
