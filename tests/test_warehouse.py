from __future__ import annotations

import csv
import io
import itertools
import json
import re
import subprocess
import sys
import tempfile
import textwrap
from datetime import datetime, timedelta, timezone
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import polars as pl
import pytest
from cases import mostly_slow
from hypothesis import given, settings
from hypothesis import strategies as st
from warehouse_jobs import START, A, B, ask, job, make_catalogue, parquet, rows_of, warehouse

from pleo_extract import list_answers
from pleo_extract.answers import (
    SnapshotFacts,
    answer,
    connection,
    open_warehouse,
    read_table,
    statements,
    write,
    write_catalogue,
)
from pleo_extract.answers.definition import Source, definitions, literal
from pleo_extract.answers.statement import ENGINE_VIEWS, find_statement, parts
from pleo_extract.cli.answer import format_answer
from pleo_extract.contract import COLUMNS, DUCKDB_SCHEMA, POLARS_SCHEMA
from pleo_extract.errors import LakeError, PleoExtractError, StorageError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator


def described(con: duckdb.DuckDBPyConnection, relation: str) -> dict[str, str]:
    """Return columns and types of a relation."""
    rows = con.execute(f"DESCRIBE {relation}").fetchall()
    return {row[0]: row[1] for row in rows}


# Opening


@pytest.mark.parametrize("jobs", [[], [job(1)]], ids=["empty", "one"])
def test_export_jobs_has_the_contracts_columns(tmp_path: Path, jobs: list[dict[str, Any]]) -> None:
    """`export_jobs` has all columns of the contract in order with their types, also without files."""
    files = [parquet(tmp_path / "a.parquet", jobs)] if jobs else []
    with open_warehouse(files) as con:
        assert list(described(con, "export_jobs").items()) == list(DUCKDB_SCHEMA.items())
        frame = con.sql("FROM export_jobs").pl()
    assert frame.schema == POLARS_SCHEMA
    assert frame["created_at"].to_list() == [row["created_at"] for row in jobs]


def test_columns_of_a_partitioned_path_stay_out(tmp_path: Path) -> None:
    """A path like `created_month=2026-03` adds no column."""
    (tmp_path / "created_month=2026-03").mkdir()
    with open_warehouse([parquet(tmp_path / "created_month=2026-03" / "part-0.parquet", [job(1)])]) as con:
        assert con.sql("FROM export_jobs").columns == list(COLUMNS)


def test_several_files_are_one_table(tmp_path: Path) -> None:
    """All files are read once."""
    files = [parquet(tmp_path / f"{n}.parquet", [job(n)]) for n in range(3)]
    with open_warehouse(files) as con:
        assert con.sql("SELECT count(*), count(DISTINCT id) FROM export_jobs").fetchall() == [(3, 3)]


def test_a_path_is_taken_literally(tmp_path: Path) -> None:
    """Quotes and glob characters in a path are literal, locked or not."""
    odd = tmp_path / "it's [ab]* {x,y}? $1 ; DROP"
    twin = tmp_path / "it's a1 {x,y}! $1 ; DROP"
    for folder, status in ((odd, "completed"), (twin, "failed")):
        folder.mkdir()
        parquet(folder / "jobs.parquet", [job(1, status)])
    for locked in (False, True):
        with open_warehouse([odd / "jobs.parquet"], locked=locked) as con:
            assert con.sql("SELECT status FROM export_jobs").fetchall() == [("completed",)]


def test_a_missing_or_broken_file_is_an_error_of_the_lake(tmp_path: Path) -> None:
    """A missing, invalid or incomplete file is a LakeError when the warehouse opens."""
    (tmp_path / "text.parquet").write_text("no parquet, whatever its name says")
    pl.DataFrame({"id": ["1"]}).write_parquet(tmp_path / "thin.parquet")
    for name, said in (("gone", "No files found"), ("text", "magic bytes"), ("thin", "company_id")):
        with pytest.raises(LakeError, match=said):
            open_warehouse([tmp_path / f"{name}.parquet"])


def test_the_session_is_in_utc() -> None:
    """Instants are in UTC, whatever the machine's zone."""
    assert ask("SELECT created_at::VARCHAR AS t FROM export_jobs", [job(0)])["t"].to_list() == [
        "2026-03-01 00:00:00+00"
    ]


def test_snapshot_is_the_instant_given() -> None:
    """`snapshot` has as_of in UTC, else the latest instant of the data, else null."""
    given_at = datetime(2026, 4, 1, 2, 0, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
    assert ask("FROM snapshot", [job(0)], given_at)["as_of"].item() == given_at
    assert ask("FROM snapshot", [job(0), job(5)])["as_of"].item() == START + timedelta(hours=5, minutes=3)
    assert ask("FROM snapshot", [])["as_of"].to_list() == [None]


@pytest.mark.parametrize("is_removed", [False, True], ids=["kept", "removed"])
def test_every_connection_of_a_process_has_the_same_macros(
    monkeypatch: pytest.MonkeyPatch, *, is_removed: bool
) -> None:
    """The first connection parses them, later ones copy a file, or parse them if the file is gone."""
    listed = """
        SELECT function_name, parameters, macro_definition, database_name, schema_name
        FROM duckdb_functions() WHERE NOT internal ORDER BY ALL
    """
    monkeypatch.setattr(connection, "_opened", itertools.count())
    found = []
    for number in range(4):
        if is_removed and number == 2:
            Path(connection._compile_macros()).unlink()
        with open_warehouse([], locked=number == 3) as con:
            found.append(con.execute(listed).fetchall())
            assert con.execute("SELECT count(*) FROM duckdb_databases() WHERE NOT internal").fetchone() == (
                1,
            )
            assert con.execute("FROM failure_rates('month')").fetchall() == []
    assert len(found[0]) == len([each for each in statements().values() if each.kind == "macro"])
    assert found == [found[0]] * 4


def test_macros_are_parsed_where_there_is_no_room_for_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without a temporary folder that can be written, each connection parses them, and nothing is tried again."""
    for folder in (tmp_path / "none", "/dev/full"):
        monkeypatch.setattr(connection, "_opened", itertools.count())
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        connection._compile_macros.cache_clear()
        for _ in range(3):
            with open_warehouse([]) as con:
                assert con.execute("FROM failure_rates('month')").fetchall() == []
        assert connection._compile_macros() == ""
    connection._compile_macros.cache_clear()


def test_a_forked_process_leaves_the_macros_to_its_parent() -> None:
    """Only the process that has written the file removes it, and only at its end."""
    code = """
        import os
        from pleo_extract.answers import connection, open_warehouse
        for _ in range(2):
            open_warehouse([]).close()
        folder = os.path.dirname(connection._compile_macros())
        if os.fork() == 0:  # only what is ours runs at its end: of the oldest libraries one waits for threads that it has not
            connection._remove_folder(folder, os.getppid())
            os._exit(0)
        os.wait()
        print(os.path.exists(connection._compile_macros()), connection._compile_macros())
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=True,
    )
    was_there, file = done.stdout.split()
    assert was_there == "True"
    assert not Path(file).parent.exists()


def test_as_of_needs_a_time_zone() -> None:
    """A naive as_of is refused."""
    with pytest.raises(UsageError, match="time zone"):
        open_warehouse([], facts=SnapshotFacts(datetime(2026, 3, 1)))  # noqa: DTZ001 -- the mistake under test


def test_companies_are_named() -> None:
    """`companies` has the given names unchanged, and is empty without them."""
    name = "O'Reilly; DROP TABLE x --\x1b"
    with open_warehouse([], facts=SnapshotFacts(names={A: name})) as con:
        assert con.sql("FROM companies").fetchall() == [(A, name, None)]
    odd = {A: "\x01\x02\n\t, 'a'", B: "\x03|;", "*": "any"}
    with open_warehouse([], facts=SnapshotFacts(names=odd)) as con:
        assert con.sql("SELECT id, name FROM companies").fetchall() == list(odd.items())
    with warehouse([]) as con:
        assert described(con, "companies") == {
            "id": "VARCHAR",
            "name": "VARCHAR",
            "now": "TIMESTAMP WITH TIME ZONE",
        }
        assert con.sql("FROM companies").fetchall() == []


# The lock


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a locked connection to a file in `lake/`, with `allowed/` and `one.csv` allowed."""
    for name in ("lake", "allowed", "allowed-not"):
        (tmp_path / name).mkdir()
    for name in ("allowed/in.csv", "allowed-not/out.csv", "one.csv", "two.csv"):
        (tmp_path / name).write_text("a\n1\n")
    file = parquet(tmp_path / "lake" / "jobs.parquet", [job(1), job(2, "failed")])
    parquet(tmp_path / "lake" / "other.parquet", [job(3)])
    with open_warehouse([file], locked=True, allow=[tmp_path / "allowed", tmp_path / "one.csv"]) as con:
        yield con


@pytest.mark.parametrize(
    "sql",
    [
        "FROM read_text('/etc/passwd')",
        "FROM read_csv('{0}/two.csv')",
        "FROM '{0}/lake/other.parquet'",
        "FROM '{0}/allowed-not/out.csv'",
        "FROM '{0}/allowed/../two.csv'",
        "FROM glob('{0}/*')",
        "FROM sniff_csv('{0}/two.csv')",
        "FROM read_text('https://127.0.0.1:9/x')",
        "COPY (SELECT 1) TO '{0}/new.csv'",
        "COPY companies FROM '{0}/two.csv'",
        "EXPORT DATABASE '{0}/export'",
        "ATTACH '{0}/new.duckdb'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = TRUE",
        "SET allowed_directories = ['/']",
        "SET TimeZone = 'Asia/Tokyo'",
        "RESET lock_configuration",
        "CALL enable_logging(storage = 'file', storage_path = '{0}/log')",
        "FROM unlocked_frame",
    ],
)
def test_f51_a_locked_connection_refuses(locked: duckdb.DuckDBPyConnection, tmp_path: Path, sql: str) -> None:
    """F51: a locked connection opens no other file, extension, setting or variable."""
    unlocked_frame = pl.DataFrame({"secret": [1]})
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(duckdb.Error):
        locked.execute(sql.format(tmp_path))
    assert sorted(tmp_path.rglob("*")) == before
    assert unlocked_frame.height == 1


def test_f51_a_locked_connection_answers(locked: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    """F51: views, macros and allowed files work on a locked connection."""
    assert answer(locked, "SELECT rate FROM failure_rates('month')").fetchall() == [(0.5,)]
    assert answer(locked, "SELECT count(*) FROM job_durations").fetchall() == [(2,)]
    for path in ("allowed/in.csv", "allowed/*.csv", "one.csv"):
        assert answer(locked, f"FROM '{tmp_path}/{path}'").fetchall() == [(1,)]


@pytest.mark.parametrize(
    "sql",
    [
        "COPY (SELECT 1 AS id) TO '{0}/lake/jobs.parquet'",
        "EXPLAIN ANALYZE COPY (SELECT 1 AS id) TO '{0}/lake/jobs.parquet'",
        "WITH x AS (INSERT INTO companies VALUES ('1', '2') RETURNING id) FROM x",
        "WITH x AS (COPY (SELECT 1 AS id) TO '{0}/lake/jobs.parquet') FROM x",
        "FROM query('WITH x AS (COPY (SELECT 1) TO ''{0}/lake/jobs.parquet'') FROM x')",
        "SELECT 1) AS x; COPY (SELECT 1 AS id) TO '{0}/lake/jobs.parquet' --",
        "INSERT INTO companies VALUES ('1', '2')",
        "CREATE TABLE t AS SELECT 1",
        "DROP VIEW export_jobs",
        "ATTACH ':memory:' AS other",
        "SET threads = 1",
        "SELECT 1; COPY (SELECT 1 AS id) TO '{0}/lake/jobs.parquet'",
        "",
    ],
)
def test_f51_an_answer_only_reads(locked: duckdb.DuckDBPyConnection, tmp_path: Path, sql: str) -> None:
    """F51: `answer` takes one SELECT, which cannot write."""
    before = (tmp_path / "lake" / "jobs.parquet").read_bytes()
    with pytest.raises(UsageError):
        answer(locked, sql.format(tmp_path)).fetchall()
    assert (tmp_path / "lake" / "jobs.parquet").read_bytes() == before
    assert answer(locked, "FROM companies").fetchall() == []


# Questions


def test_values_are_bound() -> None:
    """A parameter is only a value, also as the argument of a macro."""
    text = "x' OR '1'='1"
    assert ask("SELECT $t AS t", [], t=text)["t"].item() == text
    quoted = f"{A[:24]}' OR '1'<'2'"
    assert ask("FROM failure_rates($g, company_id := $c)", [job(1)], g="month", c=quoted).height == 0


@pytest.mark.parametrize(
    "sql",
    [
        "FROM range(2) AS t(i);",
        "FROM range(2) AS t(i) ; -- the end; really\n",
        "-- first\nWITH x AS (FROM range(2) AS t(i)) FROM x ORDER BY i -- é;",
        "VALUES (0), (1);;",
    ],
)
def test_a_question_may_end_in_a_semicolon_and_comments(sql: str) -> None:
    """A query may end with a semicolon and comments."""
    with warehouse([]) as con:
        assert answer(con, sql).fetchall() == [(0,), (1,)]


def test_an_answer_keeps_its_order(tmp_path: Path) -> None:
    """ORDER BY is kept for more rows than one chunk of DuckDB."""
    with warehouse([]) as con:
        rows = answer(con, "SELECT hash(i) AS h FROM range(200000) AS t(i) ORDER BY h").pl()["h"]
        write(
            answer(con, "SELECT hash(i) AS h FROM range(200000) AS t(i) ORDER BY h"),
            tmp_path / "x",
            "parquet",
        )
    assert rows.is_sorted()
    assert rows.equals(pl.read_parquet(tmp_path / "x")["h"])


@pytest.mark.parametrize(
    "sql", ["DESCRIBE export_jobs", "SHOW TABLES", "SUMMARIZE companies", "TABLE companies"]
)
def test_what_there_is_can_be_asked(sql: str) -> None:
    """SHOW and DESCRIBE work."""
    with open_warehouse([], facts=SnapshotFacts(names={A: "Acme"})) as con:
        assert answer(con, sql).fetchall() != []


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELEC 1", "syntax error"),
        ("FROM nowhere", "nowhere"),
        ("SELECT $a", "parameters: a"),
        ("SELECT 1; SELECT 2", "one statement, not 2"),
        ("DELETE FROM companies", "only SELECT"),
        ("PIVOT export_jobs ON status", r"ON x IN \(…\)"),
    ],
)
def test_a_wrong_question_is_a_usage_error(sql: str, said: str) -> None:
    """A wrong query is a UsageError with one line."""
    with warehouse([]) as con, pytest.raises(UsageError, match=said) as caught:
        answer(con, sql)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("jobs", [[], [job(1)]], ids=["empty", "one"])
@pytest.mark.parametrize("grain", mostly_slow(["Month", None, "fortnight", "decade", "", "month'"], quick=2))
def test_an_unknown_grain_is_an_error(jobs: list[dict[str, Any]], grain: str | None) -> None:
    """Every macro with a grain refuses an unknown one with the valid ones, also without jobs."""
    dated = [s for s in statements().values() if any(p.name == "grain" for p in s.parameters)]
    assert len(dated) >= 2
    for statement in dated:
        last = (
            "quarter or year"
            if statement.name in {"compare", "downtime", "incidents", "shifts"}
            else "quarter, year or all"
        )
        with pytest.raises(UsageError, match=f"^invalid grain .*: use hour, day, week, month, {last}$"):
            ask(f"FROM {statement.name}(grain := $g)", jobs, g=grain)


@pytest.mark.parametrize("jobs", [[], [job(1)]], ids=["empty", "one"])
@pytest.mark.parametrize("until", mostly_slow(["2026-01-02", "2026-01-01", "2000-01-01"]))
def test_a_span_that_ends_before_it_begins_is_an_error(jobs: list[dict[str, Any]], until: str) -> None:
    """Every macro refuses a reversed or empty span, also without jobs."""
    spanned = [s for s in statements().values() if any(p.name.startswith("since") for p in s.parameters)]
    assert len(spanned) >= 8
    for statement in spanned:
        names = [p.name for p in statement.parameters if p.name.startswith("since")]
        for name in names:
            other = name.replace("since", "until")
            given = dict.fromkeys(names, "'2026-01-02'") | {
                n.replace("since", "until"): "NULL" for n in names
            }
            asked = ", ".join(f"{n} := {v}" for n, v in (given | {other: f"'{until}'"}).items())
            with pytest.raises(UsageError, match=rf"^{name} 2026-01-02 .* is not before {other} {until}"):
                ask(f"FROM {statement.name}({asked}, company_id := '{B}')", jobs)
            with pytest.raises(UsageError, match=f"^{name} .* is not before {other}"):
                ask(f"FROM {statement.name}({asked})", jobs)


def test_a_bound_still_skips_files() -> None:
    """The check of a span keeps its bounds constant, so that files are skipped."""
    with warehouse([job(n) for n in range(100)]) as con:
        call = "FROM failure_rates(since := '2026-03-01 00:00:20Z', until := '2026-03-02')"
        ((_, plan),) = con.execute(f"EXPLAIN {call}").fetchall()
    scan = plan[plan.index("READ_PARQUET") :]
    assert re.search(r"created_at\s*>=\s*'2026-03-01 00:00:20\+00'::TIMESTAMP", scan), scan


@pytest.mark.parametrize("jobs", [[], [job(1)]], ids=["empty", "one"])
@pytest.mark.parametrize("q", ["99", "-0.1", "1.01", "'nan'"])
def test_what_is_no_quantile_is_an_error(jobs: list[dict[str, Any]], q: str) -> None:
    """An invalid quantile is refused with the range."""
    with pytest.raises(UsageError, match=r"^invalid q .*: use a quantile from 0 to 1$"):
        ask(f"FROM slow_jobs({q})", jobs)


# The texts in sql/


def test_statements_document_themselves() -> None:
    """Each statement has a summary and a definition of every column."""
    with warehouse([]) as con:
        for statement in statements().values():
            assert statement.summary.endswith((".", "?")), statement.name
            given_values = ", ".join("NULL" for p in statement.parameters if p.default is None)
            call = statement.name + (f"({given_values})" if statement.kind == "macro" else "")
            for column in described(con, f"FROM {call}"):
                assert re.search(rf"\b{column}\b", statement.definition), (statement.name, column)


def test_parameters_are_declared_and_used() -> None:
    """The parameters in the first line of a query are exactly those that it uses."""
    for statement in statements().values():
        names = [parameter.name for parameter in statement.parameters]
        text = next(d for d in definitions(Source(())) if re.match(rf"CREATE \w+ {statement.name}\b", d))
        body = text.partition(" AS TABLE ")[2]
        assert set(re.findall(r"CAST\((\w+) AS [A-Z]+\)", body)) & set(names) == set(names), statement.name
        assert not re.findall(r"(?<![:\w]):[a-z]\w*", body), statement.name


def test_company_id_is_never_bare() -> None:
    """A column company_id is qualified beside a parameter of that name, else DuckDB takes the parameter."""
    for statement in (*statements().values(), *parts().values()):
        code = re.sub(r"--.*", "", statement.query)
        assert not re.search(r"(?<!AS )(?<![.:\w])company_id\b", code), statement.name


def test_the_sql_is_in_the_package() -> None:
    """Each statement is one file with its name in the installed package."""
    folder = resources.files("pleo_extract.answers") / "sql"
    files = {file.name.removesuffix(".sql") for file in folder.iterdir() if file.name.endswith(".sql")}
    assert {*files, *ENGINE_VIEWS} == set(statements())


def test_a_name_that_does_not_exist() -> None:
    """The error for an unknown name lists the existing ones."""
    with pytest.raises(UsageError, match="failure_rates"):
        find_statement("failure_rate")
    for name, meant in (
        ("failure_rate", "failure_rates"),
        ("Stuck_Jobs()", "stuck_jobs"),
        ("jobs", "slow_jobs"),
    ):
        with pytest.raises(UsageError, match=f"did you mean .*{meant}.*pleo-extract sql --list"):
            find_statement(name)
    with pytest.raises(
        UsageError,
        match="there are attempts, companies, export_jobs, job_durations, snapshot, vanished, backlog",
    ):
        find_statement("weather")
    assert find_statement("failure_rates").signature.startswith(
        "failure_rates(grain := 'month', company_id := "
    )


@pytest.mark.catalogue
@pytest.mark.parametrize(
    "jobs", mostly_slow([[job(1), job(2, "failed"), job(3, "pending")], []]), ids=["some", "empty"]
)
def test_the_catalogue_works_opened_and_attached(tmp_path: Path, jobs: list[dict[str, Any]]) -> None:
    """Every view and macro of the catalogue gives another client the same as `open_warehouse`."""
    folder = tmp_path / "it's [a]"
    folder.mkdir()
    names = list(statements())
    made = make_catalogue(folder, jobs, facts := SnapshotFacts(START, names={A: "Acme"}))
    files = sorted(folder.glob("created_month=*/*"))
    with open_warehouse(files, facts=facts) as con:
        expected = {name: rows_as_csv(con, "", name) for name in names}
    with duckdb.connect(str(made), read_only=True) as con:
        con.execute("SET TimeZone = 'UTC'")
        assert {name: rows_as_csv(con, "", name) for name in names} == expected
    with duckdb.connect() as con:
        con.execute(f"SET TimeZone = 'UTC'; ATTACH {literal(str(folder / '_jobs.duckdb'))} AS jobs")
        assert {name: rows_as_csv(con, "jobs.", name) for name in names} == expected
    assert {path.name for path in folder.iterdir()} == {
        "_jobs.duckdb",
        "_lake",
        *(f.parent.name for f in files),
    }
    assert {path.name for path in (folder / "_lake").iterdir()} == {"now.csv", "vanished.csv"}


@pytest.mark.catalogue
def test_the_catalogue_follows_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths in the catalogue are absolute, and the next query sees replaced and new files."""
    month = make_catalogue(tmp_path, [job(1)]).parent / "created_month=2026-01"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with duckdb.connect("../_jobs.duckdb", read_only=True) as con:
        assert con.sql("SELECT jobs, failed FROM failure_rates('all')").fetchall() == [(1, 0)]
        parquet(tmp_path / "next", [job(1, "failed")]).replace(month / "part-0.parquet")
        assert con.sql("SELECT jobs, failed FROM failure_rates('all')").fetchall() == [(1, 1)]
        parquet(month / "part-1.parquet", [job(2, "failed")])
        assert con.sql("SELECT jobs, failed FROM failure_rates('all')").fetchall() == [(2, 2)]


@pytest.mark.catalogue
def test_the_catalogue_is_replaced_whole(tmp_path: Path) -> None:
    """A client with the old catalogue open continues and sees the new now; a missing folder is a disk error."""
    with duckdb.connect(str(make_catalogue(tmp_path, [], SnapshotFacts(START))), read_only=True) as con:
        make_catalogue(tmp_path, [], SnapshotFacts(START + timedelta(days=1)))
        later = (START + timedelta(days=1)).timestamp()
        assert con.sql("SELECT epoch(as_of) FROM snapshot").fetchall() == [(later,)]
    with pytest.raises(StorageError, match=re.escape(str(tmp_path / "gone"))):
        write_catalogue(tmp_path / "gone" / "_jobs.duckdb", tmp_path)


@pytest.mark.catalogue
def test_the_catalogue_of_a_lake_elsewhere(tmp_path: Path) -> None:
    """A catalogue written for another path works there, or where the client says the lake is."""
    (tmp_path / "here").mkdir()
    make_catalogue(tmp_path / "here", [job(1), job(2, "failed")], SnapshotFacts(START))
    mount = tmp_path / "it's [there]"
    made = tmp_path / "other.duckdb"
    write_catalogue(made, tmp_path / "here", root=str(mount), facts=SnapshotFacts(START))
    with duckdb.connect(str(made), read_only=True) as con:
        with pytest.raises(duckdb.IOException, match="No files found"):
            con.sql("FROM export_jobs").fetchall()
        con.execute(f"SET VARIABLE pleo_root = {literal(str(tmp_path / 'here'))}")
        assert con.sql("SELECT jobs, failed FROM failure_rates('all')").fetchall() == [(2, 1)]
    (tmp_path / "here").rename(mount)
    with duckdb.connect(str(made), read_only=True) as con:
        assert con.sql("SELECT jobs, failed FROM failure_rates('all')").fetchall() == [(2, 1)]
        assert con.sql("SELECT epoch(as_of) FROM snapshot").fetchall() == [(START.timestamp(),)]


def rows_as_csv(con: duckdb.DuckDBPyConnection, schema: str, name: str) -> str:
    """Return all rows of a view, sorted, or of a macro with its defaults, in its order."""
    statement = statements().get(name)
    values = ", ".join("NULL" for p in statement.parameters if p.default is None) if statement else ""
    call = f"({values})" if statement and statement.kind == "macro" else ""
    rows: pl.DataFrame = con.sql(f"FROM {schema}{name}{call}").pl()
    return (rows if call else rows.sort(pl.all())).write_csv()


# Output


def written(relation: duckdb.DuckDBPyRelation, kind: str, **options: Any) -> bytes:
    """Return what `write` gives to an open file."""
    write(relation, file := io.BytesIO(), kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r", "\n", "\0"])
def test_f53_csv_is_formula_safe(first: str) -> None:
    """F53: a text that a spreadsheet could run gets an apostrophe, unless turned off; numbers do not."""
    with warehouse([]) as con:
        sql = "SELECT $t AS t, -1 AS n, 'a=' || $t AS inner_one"
        safe = pl.read_csv(written(answer(con, sql, {"t": f"{first}1"}), "csv"), infer_schema=False)
        raw = pl.read_csv(
            written(answer(con, sql, {"t": f"{first}1"}), "csv", formula_safe=False), infer_schema=False
        )
    assert safe.row(0) == (f"'{first}1", "-1", f"a={first}1")
    assert raw.row(0) == (f"{first}1", "-1", f"a={first}1")


def test_f53_csv_of_lists_and_other_kinds() -> None:
    """F53: lists and other types that read like a formula are safe, too."""
    cells = (
        "['=1', 'b'] AS l, [['=2']] AS ll, {'a': '=3'} AS s, '=4'::BLOB AS b, '=5'::ENUM('=5') AS e, "
        "['=6']::VARCHAR[1] AS a, MAP {'=7': 1} AS m, []::VARCHAR[] AS n, union_value(t := '=8') AS u"
    )
    with warehouse([]) as con:
        (row,) = csv.DictReader(io.StringIO(written(answer(con, f"SELECT {cells}"), "csv").decode()))
    assert row == {
        "l": "['=1', b]",
        "ll": "[['=2']]",
        "s": "{'a': '=3'}",
        "b": "'=4",
        "e": "'=5",
        "a": "['=6']",
        "m": "{'=7'=1}",
        "n": "[]",
        "u": "'=8",
    }


def test_csv_keeps_null_and_nothing_apart(tmp_path: Path) -> None:
    """In CSV null is empty, an empty text is quoted, and instants are RFC 3339."""
    with warehouse([]) as con:
        relation = answer(con, "SELECT NULL AS a, '' AS b, TIMESTAMPTZ '2026-03-01 01:00:00.5+01' AS t")
        write(relation, tmp_path / "x.csv", "csv")
    assert (tmp_path / "x.csv").read_text() == 'a,b,t\n,"",2026-03-01T00:00:00.500000Z\n'


def test_json_is_one_valid_array() -> None:
    """JSON has null for numbers that it cannot express, and text unchanged."""
    text = 'a "quote"\n\x1b\0 \u2028 😀'
    with warehouse([]) as con:
        sql = "SELECT $t AS t, 'nan'::DOUBLE AS n, 1.5 AS d, TIMESTAMPTZ '2026-03-01' AS at, NULL AS z"
        rows = json.loads(written(answer(con, sql, {"t": text}), "json"))
        nothing = json.loads(written(answer(con, "FROM export_jobs"), "json"))
    assert rows == [{"t": text, "n": None, "d": 1.5, "at": "2026-03-01T00:00:00.000000Z", "z": None}]
    assert nothing == []


def test_parquet_keeps_types(tmp_path: Path) -> None:
    """Parquet keeps all columns of export_jobs, also from a locked connection."""
    file = parquet(tmp_path / "in.parquet", [job(1), job(2, "failed", failure_reason="=1\0")])
    with open_warehouse([file], locked=True) as con:
        write(answer(con, "FROM export_jobs ORDER BY id"), tmp_path / "out.parquet", "parquet")
    assert pl.read_parquet(tmp_path / "out.parquet").equals(pl.read_parquet(file))


def test_a_path_is_replaced_whole(tmp_path: Path) -> None:
    """A query that fails halfway leaves the old file and no temporary one."""
    target = tmp_path / "it's.csv"
    with warehouse([]) as con:
        write(answer(con, "SELECT 1 AS a"), target, "csv")
        late = "SELECT CASE WHEN i < 99999 THEN i ELSE error('too late') END AS a FROM range(100000) AS t(i)"
        with pytest.raises(UsageError, match="too late"):
            write(answer(con, late), target, "csv")
    assert target.read_text() == "a\n1\n"
    assert list(tmp_path.iterdir()) == [target]


def test_a_target_that_cannot_be_written(tmp_path: Path) -> None:
    """A target that cannot be written is a disk error; an unknown format is a usage error."""
    with warehouse([]) as con:
        relation = answer(con, "SELECT 1 AS a")
        for target in (tmp_path / "none" / "x.csv", tmp_path):
            with pytest.raises(StorageError, match=re.escape(str(target))):
                write(relation, target, "csv")
        with pytest.raises(UsageError, match="csv, json, parquet, xlsx, excel-csv"):
            write(relation, tmp_path / "x", "ods")


def test_a_device_is_written_to_not_replaced() -> None:
    """`-o /dev/null` writes to the device."""
    with warehouse([]) as con:
        write(answer(con, "SELECT 1 AS a"), "/dev/null", "csv")
    assert Path("/dev/null").is_char_device()


@given(text=st.text(max_size=8), rows=st.integers(0, 3))
@settings(max_examples=30)
def test_f54_a_table_has_one_line_a_row(text: str, rows: int) -> None:
    """F54: a table has header, rule, one line per row and foot, and no control character."""
    with warehouse([]) as con:
        said = format_answer(
            read_table(answer(con, "SELECT $t AS t, 1 AS n FROM range($r::BIGINT)", {"t": text, "r": rows}))
        )
    assert len(said.split("\n")) == rows + 3
    assert said.replace("\n", "").isprintable()


def test_a_table_says_what_it_leaves_out() -> None:
    """A table aligns numbers right with four decimals, leaves nulls empty, and counts its rows."""
    with warehouse([]) as con:
        relation = answer(con, "SELECT i AS n, 'x' AS a, i / 3 AS third, NULL AS z FROM range(8, 11) AS t(i)")
        assert format_answer(read_table(relation)).split("\n") == [
            " n  a   third  z",
            "--  -  ------  -",
            " 8  x  2.6667",
            " 9  x     3.0",
            "10  x  3.3333",
            "(3 rows)",
        ]
        assert read_table(relation, hint="ask for all").note == "(3 rows)"
        long = answer(con, "SELECT repeat('x', 61) AS a")
        assert read_table(long, hint="ask").note == "(1 row; texts are cut at 60 characters; ask)"
        assert read_table(relation, rows=1).note == "(the first 1 of 3 rows)"


def test_errors_while_rows_are_read_are_ours() -> None:
    """A question can fail late: `read_table` and `write` raise errors of this library only."""
    with warehouse([]) as con:
        for shown in (read_table, lambda relation: written(relation, "json")):
            with pytest.raises(PleoExtractError, match="late"):
                shown(answer(con, "SELECT error('late') FROM range(3)"))


@pytest.mark.parametrize(
    "code",
    mostly_slow(
        [
            "read_table(answer(con, SLOW))",
            "write(answer(con, SLOW), sys.argv[1], 'csv')",
            "read_table(answer(con, SLOW + ' WHERE range <> $one', {'one': 1}))",
        ],
        quick=2,
    ),
)
def test_f36_ctrl_c_stops_a_long_question(tmp_path: Path, code: str) -> None:
    """F36: Ctrl-C ends a long query immediately and leaves no file."""
    program = f"""
import os, signal, sys, threading
from pleo_extract.answers import *
SLOW = "SELECT sum(sqrt(range)) FROM range(1000000000000)"
with open_warehouse([], locked=True) as con:
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        {code}
    except KeyboardInterrupt:
        sys.exit(7)
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "x.csv")], timeout=60, check=False)
    assert done.returncode == 7
    assert list(tmp_path.iterdir()) == []


def test_answers_are_listed_for_python() -> None:
    """`list_answers` has a row for each view and macro, with a call that works."""
    listed = list_answers()
    assert listed.columns == ["name", "kind", "call", "summary", "definition"]
    assert listed["name"].to_list() == list(statements())
    assert listed.null_count().row(0) == (0,) * 5
    with warehouse([]) as con:
        for name, kind, call in listed.select("name", "kind", "call").iter_rows():
            if kind == "view" or ":=" in call.partition(",")[0]:
                found = answer(con, f"FROM {name if kind == 'view' else call}").fetchall()
                assert found == ([(None, None, None)] if name == "snapshot" else [])


def test_all_that_a_connection_has_is_listed() -> None:
    """`--list` and `list_answers` have every view and macro of a connection."""
    with warehouse([]) as con:
        views = con.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
        macros = con.execute("SELECT function_name FROM duckdb_functions() WHERE NOT internal").fetchall()
    assert {name for (name,) in (*views, *macros)} == set(list_answers()["name"])


def test_the_period_of_all_is_null() -> None:
    """With the grain 'all' the period is null."""
    for macro in ("duration_stats", "failure_rates", "failure_reasons", "throughput"):
        with warehouse([job(1), job(2, "failed")]) as con:
            rows = rows_of(con, f"FROM {macro}('all')")
            assert rows.height
            assert rows["period"].null_count() == rows.height, macro
        assert "null where the grain is 'all'" in statements()[macro].definition
