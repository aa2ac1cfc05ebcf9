"""From a lake to DuckDB: a connection over one snapshot, and the catalogue file."""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import polars as pl

from pleo_extract.answers.facts import INSTANTS, VANISHED
from pleo_extract.answers.names import read_kept_names, read_names
from pleo_extract.errors import LakeError, PleoExtractError, check_path, escape
from pleo_extract.keywords import check_keywords
from pleo_extract.lake import disk
from pleo_extract.lake.folder.opening import open_snapshot
from pleo_extract.lake.layout import Layout
from pleo_extract.lake.store import open_lake, open_to_read
from pleo_extract.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Future
    from datetime import datetime

    import duckdb

    from pleo_extract.answers import SnapshotFacts
    from pleo_extract.lake.folder.opening import Opened
    from pleo_extract.lake.store import StoreOptions

__all__ = [
    "CatalogueAhead",
    "connect",
    "connect_to_ask",
    "list_answers",
    "read_snapshot_facts",
    "renew_catalogue",
    "write_catalogue",
]

LOOKED_AT: Final = 0.2
"""Seconds of a first dump after which it is known whether it waits for its server."""
BUSY: Final = 0.6
"""CPU seconds of a second in which a process is busy itself."""
_HEADER: Final = 3 * 4096
_BLOCK: Final = 256 * 1024
"""A DuckDB file is a header and whole blocks; a file that was cut short is not."""

_log = logging.getLogger(__name__)


@check_keywords
def connect(  # noqa: PLR0913 - all are independent, and have defaults
    lake: str | Path,
    as_of: datetime | int | None = None,
    *,
    locked: bool = False,
    allow: Sequence[Path] = (),
    names: str | Path | Mapping[str, str] | None = None,
    storage_options: Mapping[str, str] | None = None,
    workspace: str | Path | None = None,
) -> duckdb.DuckDBPyConnection:
    """Open a DuckDB connection over one snapshot of a lake, in UTC, with its views and macros.

    Views: `export_jobs`, `job_durations`, `vanished`, `companies`, `snapshot`. Macros: ``FROM failure_rates('month')``,
    ``FROM duration_stats('week')`` and the others that `pleo-extract sql --list` names. For open jobs, "now" is the
    instant at which the last complete run read their company, even if it found nothing new; see the view `companies`.
    An empty folder has no rows.

    Args:
        lake: the folder of the lake, or the URL or folder of a Delta table; see `scan_lake`.
        as_of: the snapshot that was current at this instant, or the number of a snapshot; by default the current one.
        locked: refuse access to any file outside the lake; of the files in it, only their permissions keep `COPY … TO` from
            overwriting them. False by default, so that you can join files of your own.
        allow: further files and folders that a locked connection may read.
        names: names of companies for the view `companies`, by id, or a CSV file with the columns id and name; they win
            over those that the lake knows. If the lake has a job of none of them, this logs a warning.
        storage_options: how to reach an object store; see `scan_lake`.
        workspace: the folder to which files of an object store are copied.

    Raises:
        LakeError: there is no such folder, or it is not a lake.
        TryLater: a first dump has begun, and none has been completed.
        UsageError: the lake does not keep this snapshot.
        ConfigurationError: the names cannot be used.
    """
    store: StoreOptions = {"storage_options": storage_options, "workspace": workspace}
    return connect_to_ask(None, lake, as_of, store, locked=locked, allow=allow, names=names)


def connect_to_ask(  # noqa: PLR0913 - as `connect`
    asked: str | None,
    lake: str | Path,
    as_of: datetime | int | None,
    store: StoreOptions,
    *,
    locked: bool = False,
    allow: Sequence[Path] = (),
    names: str | Path | Mapping[str, str] | None = None,
) -> duckdb.DuckDBPyConnection:
    """Return `connect(lake, …)` with only the macros that the SQL `asked` needs; all of them if that is None."""
    from pleo_extract.answers import open_warehouse, read_facts  # noqa: PLC0415 - imports duckdb only where it is needed

    given = {} if names is None else read_names(names)
    opened = open_to_read(open_lake(lake, **store), as_of)
    if opened is None:
        return open_warehouse([], locked=locked, allow=allow, asked=asked)
    known = read_kept_names(lake) | given
    facts = read_facts(opened.manifest.accounts, opened.manifest.made_at, as_of=as_of, names=known)
    con = open_warehouse(opened.files, facts=facts, locked=locked, allow=allow, asked=asked)
    if given:
        _warn_of_strangers(con, lake, given)
    return con


@check_keywords
def list_answers() -> pl.DataFrame:
    """Return the views and macros of `connect` as a frame, one row each. No lake is needed.

    Columns: `name`; `kind`, which is ``view`` or ``macro``; `call`, the name with its parameters and their defaults;
    `summary`, one sentence; `definition`, the meaning and units of each column, what counts and what is left out.
    """
    from pleo_extract.answers import statements  # noqa: PLC0415 - as above

    rows = [
        (each.name, each.kind, each.signature, each.summary, each.definition)
        for each in statements().values()
    ]
    return pl.DataFrame(rows, schema=["name", "kind", "call", "summary", "definition"], orient="row")


class CatalogueAhead:
    """The catalogue of a first dump, compiled in a thread while the dump reads.

    DuckDB takes a quarter of a second for it, without holding Python's lock. At the end of a dump, all else would wait for
    it; while the dump reads, it is the server that is waited for. Beside a quick server, which keeps the process busy, a
    second busy thread gains nothing and costs a tenth more CPU time. A block ends when the thread has.

    Args:
        lake: the folder of the lake.
    """

    def __init__(self, lake: str | Path) -> None:
        self._layout = Layout(lake)
        self._pool = ThreadPoolExecutor(1, "catalogue")
        self._lock = threading.Lock()
        self._compiled: Future[bytes] | None = None
        self._started, self._worked = time.monotonic(), time.process_time()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def note_page(self) -> None:
        """Begin, unless that was done, if the dump waits for its server more than it works.

        Called once there is a page: a run that fails before needs no catalogue.
        """
        seconds = time.monotonic() - self._started
        if seconds < LOOKED_AT or time.process_time() - self._worked >= BUSY * seconds:
            return
        with self._lock:
            if self._compiled is None:
                self._compiled = self._pool.submit(self._compile)

    def _compile(self) -> bytes:
        # Imported in this thread, which no Ctrl-C reaches: DuckDB aborts the process if its import is interrupted and then
        # repeated.
        from pleo_extract import answers  # noqa: PLC0415 - as above

        target, root = self._layout.catalogue, self._layout.root
        return answers.compile_ahead(target, root, _make_mark(target))

    def take(self, mark: str) -> bytes | None:
        """Return the catalogue if this is its mark; None if it could not be compiled, or if another one is needed."""
        if self._compiled is None or self._compiled.exception() is not None:
            return None
        data = self._compiled.result()
        return data if mark.encode() in data else None


def renew_catalogue(lake: str | Path, *, run: str, ahead: CatalogueAhead | None = None) -> None:
    """Update the catalogue of a lake, ``LAKE/_jobs.duckdb``: the facts that it reads, and the file itself if necessary.

    The catalogue has the views and macros of `connect`, for any DuckDB client that opens or attaches it. It contains no
    data: it finds the months by a glob pattern and reads the facts from small files in `_lake`, so that a session that
    has it open sees new data. Only a new path, a new version of this library, or the first data changes the file.

    The lake is complete without a catalogue. If it cannot be written, this logs a warning and the run does not fail.

    Args:
        lake: the folder of the lake.
        run: the name of the run, for the log.
        ahead: what the run has compiled before.
    """
    layout = Layout(lake)
    target = layout.catalogue
    try:
        from pleo_extract import answers  # noqa: PLC0415 - as above

        opened = open_snapshot(lake)
        facts = read_snapshot_facts(lake, opened)
        has_months, has_objects = bool(opened and opened.files), _has_objects(layout)
        mark = _make_mark(
            target, has_months=has_months, has_objects=has_objects, has_facts=facts.as_of is not None
        )
        _clear_the_way(layout)
        answers.write_facts(layout.root, facts)
        with suppress(LakeError):
            data = disk.read_file(target)
            if mark.encode() in data and (len(data) - _HEADER) % _BLOCK == 0:
                return
        if ahead is not None and (compiled := ahead.take(mark)) is not None:
            disk.replace_file(target, compiled)
            return
        answers.write_catalogue(
            target, layout.root, facts=facts, has_months=has_months, has_objects=has_objects, mark=mark
        )
    except (PleoExtractError, ImportError, OSError, RuntimeError, ValueError) as exc:
        _log.warning(
            "%s. The data is published; only the catalogue for other DuckDB clients is not up to date",
            escape(str(exc), 500),
            extra={"run": run},
        )


@check_keywords
def write_catalogue(lake: str | Path, path: str | Path, *, root: str = "") -> Path:
    """Write a catalogue of a lake for DuckDB clients that reach the lake by another path, such as another mount.

    Every dump keeps the same catalogue in the lake as `_jobs.duckdb`. Both show new data without being written again.

    Args:
        lake: the folder of the lake. There are no catalogues of Delta tables.
        path: the DuckDB file to write; an existing file is replaced.
        root: the folder of the lake as the clients see it; by default as it is here.

    Returns:
        The path of the file.

    Raises:
        LakeError: there is no such lake, nothing has been published to it, or its format is older.
        StorageError: the file cannot be written.
    """
    from pleo_extract import answers  # noqa: PLC0415 - as above

    check_path(path, "the catalogue's file")
    layout, opened = Layout(lake), open_snapshot(lake)
    if opened is None or layout.is_old:
        raise LakeError(f"{lake} has no snapshot for a catalogue yet; run: pleo-extract dump {lake}")
    facts = read_snapshot_facts(lake, opened)
    if not (layout.own / "now.csv").exists():  # no dump has written a catalogue here
        answers.write_facts(layout.root, facts)
    answers.write_catalogue(
        path,
        layout.root,
        root=root.rstrip("/"),
        facts=facts,
        has_months=bool(opened.files),
        has_objects=_has_objects(layout),
    )
    return Path(path)


def _warn_of_strangers(con: duckdb.DuckDBPyConnection, lake: str | Path, names: Mapping[str, str]) -> None:
    """Warn if no job is of a company with a name: then the names are those of other companies, or of another lake."""
    from pleo_extract.answers import translate_errors  # noqa: PLC0415 - as above

    try:
        with translate_errors():
            rows = con.execute("select distinct company_id from export_jobs").fetchall()
    except BaseException:
        con.close()
        raise
    known = {row[0] for row in rows}
    if known and known.isdisjoint(names):
        _log.warning(
            "no company in %s has a name in the given names; the ids there begin with %s",
            lake,
            ", ".join(sorted(each[:8] for each in known)[:3]),
        )


def read_snapshot_facts(lake: str | Path, opened: Opened | None) -> SnapshotFacts:
    """Return what a lake knows about a snapshot besides its rows, with the names that it keeps.

    Raises:
        LakeError: the names are damaged.
    """
    from pleo_extract.answers import SnapshotFacts, read_facts  # noqa: PLC0415 - as above

    if opened is None:
        return SnapshotFacts()
    return read_facts(opened.manifest.accounts, opened.manifest.made_at, names=read_kept_names(lake))


def _clear_the_way(layout: Layout) -> None:
    """Move folders that have the name of a file of the catalogue to `_lake/strays`: no file can replace them."""
    for path in (layout.catalogue, *(layout.root / name.lstrip("/") for name in (INSTANTS, VANISHED))):
        if path.is_dir() and not path.is_symlink():
            disk.make_folder(layout.strays)
            disk.rename(path, layout.strays / f"{path.name}.{secrets.token_hex(4)}")


def _has_objects(layout: Layout) -> bool:
    return any(layout.objects.glob("*"))


def _make_mark(
    target: Path, *, has_months: bool = True, has_objects: bool = True, has_facts: bool = True
) -> str:
    """Return a text that changes whenever the content of the catalogue has to change, apart from the files it reads."""
    content = f"{target} {has_months} {has_objects} {not has_facts}"
    return f"pleo_extract {__version__} {hashlib.sha256(content.encode()).hexdigest()[:16]}"
