"""What a lake knows about a snapshot besides its rows: as of when it is true, names of companies, vanished jobs."""

from __future__ import annotations

import csv
import io
import os
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from pleo_extract.errors import LakeError, StorageError
from pleo_extract.lake import disk

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pleo_extract.core.state import AccountKey, JobKey, SyncState

__all__ = ["INSTANTS", "VANISHED", "SnapshotFacts", "find_damaged_facts", "read_facts", "write_facts"]

INSTANTS: Final = "/_lake/now.csv"
VANISHED: Final = "/_lake/vanished.csv"
"""The files from which a catalogue reads the facts; see `definition.Source.root`."""
_SOURCES: Final = ("/_lake/current", "/_lake/state.json", "/_lake/names.csv")
"""The files that change whenever the facts do."""


@dataclass(frozen=True, slots=True)
class SnapshotFacts:
    """The instants, names and vanished jobs of one snapshot; without any, "now" is the latest instant in the rows.

    Attributes:
        as_of: when the snapshot was published, with a time zone; None for the latest instant in the rows.
        data_as_of: the instant as of which all rows are true: the earliest of all accounts; None for `as_of`.
        now: the instant that counts as now for companies that are not in `nows`; None for `as_of`.
        nows: the instant that counts as now, by company.
        names: names of companies, by id.
        vanished: (company_id, id) of each job that the server no longer lists.
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
        """Yield the rows of the view `companies`: id, name, and now as text, empty if it is not known."""
        for company in dict.fromkeys([*self.names, *self.nows]):
            now = self.nows.get(company)
            yield company, self.names.get(company), "" if now is None else now.isoformat()

    def encode_instants(self) -> bytes:
        """Return the rows of `snapshot` and `companies` as CSV. The row without a company is that of `snapshot`."""
        as_of, data_as_of, now = (each.isoformat() if each else "" for each in self.instants())
        rows = [("", "", now, as_of, data_as_of)]
        rows += [(company, name or "", its_now, "", "") for company, name, its_now in self.companies()]
        return _encode_csv(("company_id", "name", "now", "as_of", "data_as_of"), rows)

    def encode_vanished(self) -> bytes:
        """Return the keys of vanished jobs as CSV."""
        return _encode_csv(("company_id", "id"), self.vanished)


def read_facts(
    accounts: Mapping[AccountKey, SyncState],
    made_at: datetime,
    *,
    as_of: datetime | int | None = None,
    names: Mapping[str, str] = MappingProxyType({}),
) -> SnapshotFacts:
    """Return what a manifest says about its snapshot.

    A company's "now" is when the last complete run began its closing reads of the company, even if that run published
    nothing: a job that hangs must become overdue although nothing is new. While a company cannot be read its now stands
    still, because nothing is known about its jobs since. The state of an account for all companies applies to companies
    without a state of their own. If a company has two instants, the later one counts.

    Args:
        accounts: the states in the manifest, by account (``server company``, or ``server *`` for all companies).
        made_at: when the snapshot was published; the default for states of older versions, which have no `data_as_of`.
        as_of: how the caller selected the snapshot. If it is an instant, no now is later than that.
        names: names of companies, by id, which win over those of the accounts.
    """

    def limit(instant: datetime) -> datetime:
        return min(instant, as_of) if isinstance(as_of, datetime) else instant

    states = {key: limit(state.data_as_of or state.updated_at or made_at) for key, state in accounts.items()}
    nows: dict[str, datetime] = {}
    for key, instant in states.items():
        company = key.company
        nows[company] = max(nows.get(company, instant), instant)
    shared = nows.pop("*", None)
    if shared is not None:
        nows = {company: max(instant, shared) for company, instant in nows.items()}
    return SnapshotFacts(
        as_of=made_at,
        data_as_of=min(states.values(), default=limit(made_at)),
        now=shared or limit(made_at),
        nows=nows,
        names={key.company: state.name for key, state in accounts.items() if state.name} | dict(names),
        vanished=sorted({key for state in accounts.values() for key in state.vanished}),
    )


def write_facts(lake: str | Path, facts: SnapshotFacts) -> None:
    """Write the files from which a catalogue reads the facts, if they differ; without facts, remove them.

    A file that is right but older than its sources gets a new time, so that `find_damaged_facts` compares it.

    Raises:
        StorageError: a file cannot be written.
    """
    for file, content in _encode_files(lake, facts).items():
        try:
            if not content:
                file.unlink(missing_ok=True)
            elif _read_plain(file) == content:
                if _is_older(file, lake):
                    disk.touch_file(file)
            else:
                disk.replace_file(file, content)
        except (OSError, StorageError) as exc:
            reason = getattr(exc.__cause__, "strerror", None) or exc
            raise StorageError(f"{file}, which the catalogue reads, cannot be written: {reason}") from exc


def find_damaged_facts(lake: str | Path, facts: SnapshotFacts) -> dict[Path, str]:
    """Return the files of `write_facts` that differ from the facts, or are missing, each with words that say so.

    A file that is older than those from which the facts come is not damaged but out of date: a run was killed before it
    wrote the file, or someone has edited the names. The next dump writes it.
    """
    found: dict[Path, str] = {}
    for file, content in _encode_files(lake, facts).items():
        if not os.path.lexists(file):
            found |= {file: "missing"} if content else {}
        elif (data := _read_plain(file)) is None:
            found[file] = "not a plain file"
        elif data != content and not _is_older(file, lake):
            found[file] = "not what the last run wrote"
    return found


def _encode_files(lake: str | Path, facts: SnapshotFacts) -> dict[Path, bytes]:
    """Return what belongs into each file; no bytes for a file that is not to be there."""
    is_known = facts.as_of is not None
    return {
        Path(f"{lake}{INSTANTS}"): facts.encode_instants() if is_known else b"",
        Path(f"{lake}{VANISHED}"): facts.encode_vanished() if is_known else b"",
    }


def _is_older(file: Path, lake: str | Path) -> bool:
    """Return whether a file is older than the newest of those from which the facts come."""
    sources = (Path(f"{lake}{name}") for name in _SOURCES)
    return file.stat().st_mtime_ns < max(
        (each.stat().st_mtime_ns for each in sources if each.exists()), default=0
    )


def _read_plain(file: Path) -> bytes | None:
    """Return the bytes of a file; None where it is missing, or a link, a folder or a pipe."""
    try:
        return disk.read_file(file)
    except LakeError:
        return None


def _encode_csv(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    return text.getvalue().encode()
