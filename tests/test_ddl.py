"""`pleo-extract ddl`: statements that other engines can parse, with every column of the lake."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import sqlglot
from sqlglot import exp

from pleo_extract import COLUMNS
from pleo_extract.cli import group
from pleo_extract.cli.ddl import ENGINES, register_statements
from pleo_extract.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

FOLDERS = sorted(ENGINES)
DELTA = sorted(name for name, (_, delta) in ENGINES.items() if delta)


@pytest.mark.parametrize("engine", FOLDERS)
def test_a_folder_is_a_table_of_all_columns(engine: str) -> None:
    """The statement parses in the engine's dialect; the location is escaped, and the month partitions the table."""
    text = register_statements(engine, "pleo.export_jobs", "s3://it's/here", is_delta=False)
    create, find = sqlglot.parse(text, dialect=engine)
    assert isinstance(create, exp.Create)
    assert find is not None
    columns = [each.name for each in create.find_all(exp.ColumnDef)]
    assert [*COLUMNS, "created_month"] == columns
    assert create.this.this.sql() == "pleo.export_jobs"
    assert "s3://it's/here" in [each.this for each in create.find_all(exp.Literal)]


@pytest.mark.parametrize("engine", DELTA)
def test_a_delta_table_is_registered_by_its_place(engine: str) -> None:
    """The statement names the table and its place; columns are in the table's log."""
    text = register_statements(engine, "export_jobs", "s3://bucket/export_jobs", is_delta=True)
    (parsed,) = (each for each in sqlglot.parse(text, dialect=engine) if each)
    assert not list(parsed.find_all(exp.ColumnDef))
    assert "'s3://bucket/export_jobs'" in text
    assert "export_jobs" in text


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command detects the kind of lake, and names a folder by its URL."""
    group.main(["ddl", str(tmp_path), "--for", "spark"], standalone_mode=False)
    assert tmp_path.as_uri() in capsys.readouterr().out
    group.main(["ddl", "s3://bucket/jobs", "--for", "trino"], standalone_mode=False)
    assert "register_table(schema_name => 'default'" in capsys.readouterr().out


@pytest.mark.parametrize("table", ["", "a b", "x; DROP TABLE y", "a..b", "a.`b`"])
def test_a_bad_name_is_refused(table: str) -> None:
    """What is no name of a table does not get into a statement."""
    with pytest.raises(UsageError, match="not the name of a table"):
        register_statements("spark", table, "s3://bucket/x", is_delta=False)


def test_hive_reads_no_delta_table() -> None:
    """Hive needs a library of its own."""
    with pytest.raises(UsageError, match="library of its own"):
        register_statements("hive", "export_jobs", "s3://bucket/x", is_delta=True)
