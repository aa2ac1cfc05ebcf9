"""Open a DuckDB connection over a snapshot, run one read-only query on it, and put DuckDB's errors into words."""

from __future__ import annotations

import atexit
import difflib
import functools
import glob
import itertools
import os
import re
import shutil
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import duckdb
import polars as pl

from pleo_extract.answers.definition import Source, definitions, literal
from pleo_extract.answers.facts import SnapshotFacts
from pleo_extract.answers.statement import GRAINS, describe_unknown, statements
from pleo_extract.contract import STATUSES
from pleo_extract.errors import LakeError, PleoExtractError, StorageError, UsageError, escape
from pleo_extract.temporary import make_temporary_folder
from pleo_extract.zones import describe_unknown_zone, to_utc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_ARGUMENT_ERROR = re.compile(
    r'extract specifier "(invalid .*: use .*|since\w* .* is not before .*)" not recognized'
)
"""DuckDB's message around one of ours; see `_require` in `definition`."""
_NO_INSTANT = re.compile(r'(?:invalid timestamp field format|timestamp field value out of range): ("[^"]*")')

_LINE: Final = re.compile(r"LINE ([0-9]+): ")
"""How DuckDB shows the line of the query that an error is about."""

_CLASS: Final = re.compile(r"^[A-Z][A-Za-z ]* Error: ")
"""The class of an error at the start of its message, as in ``Binder Error: ``."""
_DAMAGE: Final = (
    duckdb.IOException,
    duckdb.HTTPException,
    duckdb.SerializationException,
    duckdb.InternalException,
    duckdb.FatalException,
)
"""What DuckDB raises for files that are missing or damaged, whatever the query."""
_DAMAGED: Final = re.compile(r"Failed to read file|Invalid string encoding found in Parquet")
"""Messages that mean the same although the error has another class."""

__all__ = ["answer", "name_lake", "open_warehouse", "translate_errors"]


def open_warehouse(
    files: Sequence[str | Path],
    *,
    facts: SnapshotFacts | None = None,
    locked: bool = False,
    allow: Sequence[Path] = (),
    asked: str | None = None,
) -> duckdb.DuckDBPyConnection:
    """Open a DuckDB connection in memory, in UTC, with the views and table macros of `statements()` over Parquet files.

    Args:
        files: the Parquet files of one snapshot, with the columns of `contract.COLUMNS`; empty for a lake without jobs.
        facts: what the lake knows about the snapshot: instants, names, vanished jobs; by default "now" is the latest
            instant in the files.
        locked: read only `files` and `allow`, load no extension, change no setting. This does not prevent COPY … TO a
            file that may be read, because DuckDB cannot; use `answer`, which runs nothing but a SELECT.
        allow: further files and folders that a locked connection may read.
        asked: the only SQL that will be run on this connection; then only the macros that it names are created.

    Raises:
        UsageError: an instant has no time zone.
        LakeError: a file is missing, is not Parquet, or lacks a column.
    """
    facts = facts or SnapshotFacts()
    for instant in (*facts.instants(), *facts.nows.values()):
        if instant is not None:
            to_utc(instant, "as_of")
    source = Source(tuple(str(file) for file in files), facts)
    con = duckdb.connect(":memory:")
    try:
        con.execute("SET TimeZone = 'UTC'")
        if asked is None and _copy_macros(con):
            asked = ""
        if locked:
            _restrict(con, source.files, allow)
        with _blame_files():
            for definition in definitions(source, asked=asked):
                con.execute(definition)
        if locked:
            con.execute("SET lock_configuration = TRUE")
    except BaseException:
        con.close()
        raise
    return con


_opened: Final = itertools.count()
_compiling: Final = threading.Lock()


def _copy_macros(con: duckdb.DuckDBPyConnection) -> bool:
    """Copy all macros from a file of this process, and return whether that was possible.

    DuckDB needs 0.4 s to parse them, and a tenth of that to copy them. The first connection parses them: most processes
    open only one, which would pay for the file and never use it.
    """
    if next(_opened) == 0:
        return False
    with _compiling:
        file = _compile_macros()
    if not file:
        return False
    try:
        con.execute(f"ATTACH {literal(file)} AS compiled (READ_ONLY)")
    except duckdb.Error:  # a program that cleans up has removed it
        _compile_macros.cache_clear()
        return False
    con.execute("COPY FROM DATABASE compiled TO memory")
    con.execute("DETACH compiled")
    return True


@functools.cache
def _compile_macros() -> str:
    """Write a DuckDB file with all macros into a temporary folder, and return its path; empty if it cannot be written.

    The process removes the folder at its end.
    """
    try:
        folder = make_temporary_folder()
    except OSError:
        return ""
    file = str(Path(folder, "macros.duckdb"))
    atexit.register(_remove_folder, folder, os.getpid())
    try:
        with duckdb.connect(file, config={"threads": 1}) as con:
            con.begin()  # otherwise DuckDB syncs the file once a macro
            for definition in definitions(Source(())):
                con.execute(definition)
            for statement in statements().values():
                if statement.kind == "view":
                    con.execute(f"DROP VIEW {statement.name}")
            con.commit()
    except duckdb.Error:
        _remove_folder(folder, os.getpid())
        return ""
    return file


def _remove_folder(folder: str, process: int) -> None:
    if os.getpid() == process:  # a forked process must not remove it from its parent
        shutil.rmtree(folder, ignore_errors=True)


def answer(
    con: duckdb.DuckDBPyConnection, sql: str, params: Mapping[str, object] | None = None
) -> duckdb.DuckDBPyRelation:
    """Return the answer to one question, a read-only query.

    `.pl()` makes a Polars frame of it, `.to_arrow_table()` an Arrow table. Reading the rows can raise errors of DuckDB;
    wrap it in `translate_errors`, as `read_table` and `write` do.

    Args:
        con: a connection of `open_warehouse`.
        sql: one SELECT (or FROM, VALUES, DESCRIBE, SUMMARIZE, SHOW), with values as ``$name``.
        params: the values, by name. They are bound, never inserted into the text.

    Raises:
        UsageError: the text is not one single SELECT, is wrong SQL, names something unknown, lacks a value, or reads a
            file that the connection may not read.
        LakeError: a file of the lake cannot be read.
        StorageError: there is not enough memory or disk.
    """
    try:
        sql.encode()
    except UnicodeEncodeError:
        raise UsageError("the query is not valid UTF-8") from None
    with translate_errors(sql):
        found = _parse(con, sql)
        if len(found) != 1:
            raise UsageError(f"give one statement, not {len(found)}" if found else "the query is empty")
        if found[0].type != duckdb.StatementType.SELECT:
            kind = found[0].type.name
            if kind == "MULTI":  # a PIVOT without values: DuckDB makes two queries of it
                raise UsageError("the values of the PIVOT are missing: name them with ON x IN (…)")
            raise UsageError(f"only SELECT is answered, this is {kind}")
        # As a subquery: DuckDB accepts a COPY … TO in a WITH at the top level, but not below it.
        inner = f"SELECT * FROM (\n{_strip_semicolon(found[0].query)}\n)"  # noqa: S608 -- one SELECT, as parsed
        return con.sql(inner, params=dict(params)) if params else con.sql(inner)


def _parse(con: duckdb.DuckDBPyConnection, sql: str) -> list[duckdb.Statement]:
    try:
        return con.extract_statements(sql)
    except duckdb.ParserException:
        # DuckDB names the last word before the end of the text, which is no help.
        text = sql.encode()
        opened: list[int] = []
        for start, kind in duckdb.tokenize(sql):
            if kind == duckdb.token_type.operator and text[start : start + 1] == b"(":
                opened.append(start)
            elif kind == duckdb.token_type.operator and text[start : start + 1] == b")" and opened:
                opened.pop()
        if opened:
            number = 1 + text.count(b"\n", 0, opened[-1])
            line = f" in line {number}" if b"\n" in text.strip() else ""
            raise UsageError(f"a parenthesis is opened{line} and not closed") from None
        raise


@contextmanager
def translate_errors(query: str = "") -> Iterator[None]:
    """Raise errors of this library in place of DuckDB's; for code that reads the rows of an answer itself.

    Args:
        query: the SQL, if an error can be about its names; DuckDB's messages do not repeat all of them.

    Raises:
        UsageError: the query is wrong.
        LakeError: the files cannot be read.
        StorageError: memory or disk is not sufficient.
        KeyboardInterrupt: the query was interrupted, which DuckDB reports as a RuntimeError.
    """
    try:
        yield
    except _DAMAGE as exc:
        raise LakeError(_tell_damage(exc)) from exc
    except (duckdb.OutOfMemoryException, MemoryError) as exc:
        raise StorageError(f"not enough memory or disk for this question: {_first_line(exc)}") from exc
    except duckdb.Error as exc:
        # DuckDB's Parquet reader raises errors of no class for damaged pages; a query cannot cause such an error.
        if type(exc) is duckdb.Error or _DAMAGED.search(str(exc)):
            raise LakeError(_tell_damage(exc)) from exc
        raise UsageError(_first_line(exc, query)) from exc
    except UnicodeDecodeError as exc:  # DuckDB quotes a part of the query, and cuts it inside a character
        raise UsageError(_first_line(exc.object.decode(errors="replace"), query)) from exc
    except RuntimeError as exc:
        if str(exc) == "Query interrupted":
            raise KeyboardInterrupt from exc
        raise


@contextmanager
def name_lake(lake: str | Path) -> Iterator[None]:
    """Add the lake to a LakeError that does not name it; for code that asks a connection over one lake.

    Raises:
        LakeError: one was raised inside, or damaged pages hold an instant that Polars or Python cannot represent.
    """
    try:
        yield
    except (pl.exceptions.PanicException, OverflowError) as exc:
        raise LakeError(f"{lake}: {_tell_damage(exc)}") from exc
    except ValueError as exc:
        if isinstance(exc, PleoExtractError) or "out of range" not in str(exc):
            raise
        raise LakeError(f"{lake}: {_tell_damage(exc)}") from exc
    except LakeError as exc:
        if str(lake) not in str(exc):
            exc.args = (f"{lake}: {exc}",)
        raise


def _tell_damage(exc: BaseException) -> str:
    return f"the data files cannot be read ({_first_line(exc)}); see pleo-extract verify"


@contextmanager
def _blame_files() -> Iterator[None]:
    """Raise LakeError for any error while the views are created: a file is missing, not Parquet, or lacks columns."""
    try:
        yield
    except duckdb.Error as exc:
        raise LakeError(f"the files are not a snapshot of export jobs: {_first_line(exc)}") from exc


def _restrict(con: duckdb.DuckDBPyConnection, files: Sequence[str], allow: Sequence[Path]) -> None:
    folders = [path for path in allow if path.is_dir()]
    # Both spellings of a path with glob characters: DuckDB finds a file by its pattern and opens it by its name.
    names = [*files, *(str(path) for path in allow if path not in folders)]
    paths = list(dict.fromkeys([*names, *map(glob.escape, names)]))
    for setting, values in (
        ("allowed_directories", [f"{folder}/" for folder in folders]),
        ("allowed_paths", paths),
    ):
        con.execute(f"SET {setting} = [{', '.join(map(literal, values))}]")
    for setting in (
        "autoinstall_known_extensions",
        "autoload_known_extensions",
        "python_enable_replacements",  # otherwise `FROM name` reads variables of the calling program
        "enable_external_access",  # last, because it makes the other settings read-only
    ):
        con.execute(f"SET {setting} = FALSE")


def _strip_semicolon(query: str) -> str:
    """Return the query without semicolons and comments at its end, so that it can become a subquery."""
    text = query.encode()
    for offset, kind in reversed(duckdb.tokenize(query)):
        if kind != duckdb.token_type.comment and not text.startswith(b";", offset):
            break
        text = text[:offset]
    return text.decode()


def _first_line(exc: BaseException | str, query: str = "") -> str:
    """Return DuckDB's message about a query in one line, escaped.

    The names that DuckDB suggests stay. The class of the error and the excerpt of the query are removed.
    """
    message, *more = str(exc).split("\n")
    message = _CLASS.sub("", message)
    if found := _ARGUMENT_ERROR.fullmatch(message):
        is_swapped = re.match(r"invalid grain [\d.]+:", found[1])
        message = f"{found[1]}; {_IN_ORDER}" if is_swapped else found[1]
    if found := _NO_INSTANT.match(message):
        # With = in place of := the argument is a comparison, whose result is true or false.
        way = (
            "an argument's name takes :=, as in since := '2026-11-01'"
            if found[1].strip('"') in {"true", "false"}
            else "write 2026-11-01 or 2026-11-01T08:00:00Z; current_date - 7 is a week ago"
        )
        message, more = f"{found[1]} is no time: {way}", []
    if message.startswith(("syntax error", "unterminated")) and "\n" in query.strip():
        message += "".join(f" in line {found[1]}" for line in more if (found := _LINE.match(line)))
    rest = itertools.dropwhile(lambda line: not line.strip().startswith(("Candidate", "Did you mean")), more)
    suggestions = [line.strip() for line in itertools.takewhile(str.strip, rest)]
    if hint := _find_hint(message, query, suggestions):
        return escape(hint, 600)
    return escape(" ".join([message, *suggestions]), 600)


def _find_hint(message: str, query: str, suggestions: Sequence[str]) -> str:
    """Return better words for what newcomers to the macros, or to a locked connection, get wrong; empty if there are none."""
    for pattern, explain in _HINTS.items():
        if found := pattern.match(message):
            return explain(found, query, suggestions)
    return ""


def _explain_relation(found: re.Match[str], _query: str, _suggestions: Sequence[str]) -> str:
    name = found[1]
    known = statements().get(name.lower())
    if known and known.kind == "macro":
        return f"{name} is a macro: call it with parentheses, FROM {known.signature}"
    if known:
        return f"{name} is a view: name it without parentheses, FROM {name}"
    if os.path.lexists(name):
        return f"this query may not read {name}; open it with --allow {name}"
    return describe_unknown(name)


def _explain_arguments(found: re.Match[str], query: str, _suggestions: Sequence[str]) -> str:
    known = statements().get(found[1].lower())
    if not known:
        return ""
    called = re.findall(r"\b(\w+)\s*\(", query)
    names = {
        each.name for name in called for each in getattr(statements().get(name.lower()), "parameters", ())
    }
    wrong = next((name for name in _NAMED.findall(query) if name.lower() not in names), "")
    if not wrong:
        return f"{found[1]} has no such argument, or not as many: {known.signature}"
    near = difflib.get_close_matches(wrong.lower(), [each.name for each in known.parameters], n=1)
    meant = f"; did you mean {near[0]}?" if near else ":"
    return f"{found[1]} has no argument {wrong}{meant} {known.signature}"


def _explain_column(found: re.Match[str], query: str, suggestions: Sequence[str]) -> str:
    name = found[1]
    there = f"there is no column {name}"
    if argument := re.search(rf"\b(\w+)\s*(?::=|=>)\s*{name}\b", query):
        is_yes_or_no = name.lower() in {"yes", "no", "on", "off", "y", "n"}
        takes = "true or false" if is_yes_or_no else f"a text in single quotes: '{name}'"
        return f"{there}; {argument[1]} := takes {takes}"
    # Where another column has a similar name, that is as likely meant.
    near = f". {' '.join(suggestions)}" if suggestions else ""
    if name in STATUSES:
        return f"{there}; if it is a status, write it in single quotes: '{name}'{near}"
    if name in GRAINS:
        return f"{there}; if it is a grain, write it in single quotes: '{name}'{near}"
    if any(name == each.name for known in statements().values() for each in known.parameters):
        return f"{there}; if it is an argument of a macro, write := after it, as in {name} := …{near}"
    if name == "company_name":
        return f"{there} in the query: --names adds it to the answer, beside company_id"
    return f"{there}{near}"


def _explain_syntax(found: re.Match[str], _query: str, _suggestions: Sequence[str]) -> str:
    known = statements().get(found[2].lower())
    return f"{found[1]}; a query begins with SELECT or FROM, as in FROM {known.signature}" if known else ""  # noqa: S608 - a message


def _explain_function(found: re.Match[str], _query: str, suggestions: Sequence[str]) -> str:
    # Candidates that take as many instants as the call has come first: most columns of a job are instants.
    calls = sorted(
        suggestions[1:],
        key=lambda each: -min(each.count(" TIMESTAMP WITH TIME ZONE"), found[2].count("ZONE")),
    )
    return f"{found[1]}() does not take ({found[2]})" + (f", but {calls[0]}" if calls else "")


_NAMED: Final = re.compile(r"\b(\w+)\s*(?::=|=>)")
"""The name of an argument in a query."""
_IN_ORDER: Final = "arguments without a name come in the order that pleo-extract sql --describe shows"
_HINTS: Final[Mapping[re.Pattern[str], Callable[[re.Match[str], str, Sequence[str]], str]]] = {
    re.compile(r"Table (?:Function )?with name (.+?) does not exist!"): _explain_relation,
    re.compile(r'Macro "?(\w+)"?\(\) does not support the supplied arguments'): _explain_arguments,
    re.compile(r'Function "(\w+)" is a table function'): lambda found, *_: (
        f"{found[1]} gives a table: write FROM {found[1]}(…), not SELECT {found[1]}(…)"
    ),
    re.compile(r"(Could not convert string '[\d.]+ ?[a-z]+' to DOUBLE)$"): lambda found, *_: (
        f"{found[1]}; durations are numbers of seconds, as in within(600)"
    ),
    re.compile(r"(Could not convert string '.*' to [A-Z]+)$"): lambda found, *_: f"{found[1]}; {_IN_ORDER}",
    re.compile(
        r"(Cannot compare values of type TIMESTAMP.*) - an explicit cast is required"
    ): lambda found, *_: f"{found[1]}; write a date in single quotes, as in '2026-11-01'",
    re.compile(r"WHERE clause cannot contain aggregates!"): lambda *_: (
        "WHERE takes no aggregate; write that condition as HAVING, after GROUP BY"
    ),
    re.compile(r"No function matches the given name and argument types '(\w+)\((.*)\)'"): _explain_function,
    re.compile(r'Cannot access (?:file|directory) "(.+?)"'): lambda found, *_: (
        f"this query may not read {found[1]}; open it with --allow {found[1]}"
    ),
    re.compile(r'Referenced column "(\w+)" (?:was )?not found'): _explain_column,
    re.compile(r'(syntax error at or near "(\w+)".*)'): _explain_syntax,
    re.compile(r"Unknown TimeZone '(.*?)'!"): lambda found, *_: describe_unknown_zone(found[1]),
}
"""What DuckDB says, and what is said instead; an empty text leaves DuckDB's."""
