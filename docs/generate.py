"""Write what the documents say from what the code says (`make docs`); with `--check`, say where they differ.

Between `<!-- generated: NAME -->` and `<!-- end -->` in a document stands what the function NAME below returns.
`tests/help/` holds the `--help` of every command, as a terminal of 80 columns shows it. Written (but not compared,
tests/test_docs.py does that) is also what the documents' blocks print, see `blocks`.
"""
# ruff: noqa: INP001, T201 - a script, no part of a package; it prints

from __future__ import annotations

import difflib
import inspect
import json
import re
import runpy
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import blocks
import scaling
from click.testing import CliRunner

import pleo_extract
from pleo_extract import errors
from pleo_extract.answers import statements
from pleo_extract.cli import group
from pleo_extract.contract import EXTRA, FIELDS, POLARS_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TABLE = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

WHAT_TO_DO = {
    0: ("done", "nothing"),
    1: ("a defect of pleo-extract, with a traceback", "report it"),
    2: ("usage", "correct the command; nothing was sent or written"),
    65: ("bad data, or a lake that is not as it was written", "look: the message names rows or files"),
    69: ("another run holds the lake", "nothing: that run is doing the work"),
    74: ("disk", "make room or set permissions, run again"),
    75: ("try again later", "nothing: the next run goes on"),
    76: ("the server broke its contract", "run again; if it stays, report it with the message"),
    77: ("credentials", "renew the key or token"),
    78: ("configuration", "correct the URL, file or setting"),
    129: ("hung up (SIGHUP: the terminal or session is gone)", "run again"),
    130: ("interrupted (Ctrl-C)", "run again"),
    143: ("terminated (SIGTERM)", "run again"),
}
_TYPES = {"instant": 'Datetime("us", "UTC")'}
_ATHENA = {
    "uuid": "string",
    "text": "string",
    "json": "string",
    "instant": "timestamp",
    "int32": "int",
    "int64": "bigint",
    "bool": "boolean",
}
_CONSTANTS = {
    "COLUMNS": "The columns of every frame and file, in order.",
    "POLARS_SCHEMA": "The columns with their Polars types.",
}


def columns() -> Iterator[str]:
    """The columns of an export job, from `contract.FIELDS`."""
    rows = (
        (
            f"`{field.column}`",
            f"`{field.name}`" if field.name else "all others",
            f"`{_TYPES.get(field.kind, repr(POLARS_SCHEMA[field.column]))}`",
            "no" if field.required else "yes",
            field.note,
        )
        for field in (*FIELDS, EXTRA)
    )
    return _table(("column", "field of the API", "type", "null?", "what it says"), rows)


def exit_codes() -> Iterator[str]:
    """The exit codes and the errors behind them, from the tree of errors."""
    classes = [found for found in vars(errors).values() if inspect.isclass(found)]
    found = {
        code: [
            name
            for name in errors.__all__
            if getattr(errors, name) in classes and getattr(errors, name).code == code != 1
        ]
        for code in WHAT_TO_DO
    }
    unknown = {each.code for each in classes if issubclass(each, errors.PleoExtractError)} - WHAT_TO_DO.keys()
    assert not unknown, f"say what to do about the exit codes {unknown}"
    rows = (
        (str(code), meaning, ", ".join(f"`{name}`" for name in found[code]), advice)
        for code, (meaning, advice) in WHAT_TO_DO.items()
    )
    return _table(("code", "meaning", "error in Python", "what to do"), rows)


def commands() -> Iterator[str]:
    """The commands, from the command line."""
    rows = (
        (f"[`pleo-extract {name}`](tests/help/{name}.txt)", command.get_short_help_str(limit=200))
        for name, command in group.commands.items()
    )
    return _table(("command", "what it does"), rows)


def names() -> Iterator[str]:
    """What `pleo_extract` exports, from its docstrings."""
    rows = ((f"`{name}`", _first_sentence(name)) for name in pleo_extract.__all__ if name != "__version__")
    return _table(("name", "what it is"), rows)


def answers() -> Iterator[str]:
    """The views and macros, from `sql/`."""
    rows = (
        (f"`{found.name}{'(…)' if found.kind == 'macro' else ''}`", found.summary)
        for found in statements().values()
    )
    return _table(("view or macro", "what it answers"), rows)


def options() -> Iterator[str]:
    """The options of Spark's data source, from a file that can be read without Spark."""
    said = runpy.run_path(str(ROOT / "pleo_extract" / "spark" / "options.py"))["OPTIONS"]
    return _table(("option", "what it says"), ((f"`{name}`", text) for name, text in said.items()))


def athena() -> Iterator[str]:
    """A table for Athena over a copy of a snapshot, from `contract.FIELDS`."""
    declared = [f"    {field.column} {_ATHENA[field.kind]}" for field in (*FIELDS, EXTRA)]
    yield "```sql"
    yield "CREATE EXTERNAL TABLE export_jobs ("
    yield ",\n".join(declared)
    yield ")"
    yield "PARTITIONED BY (created_month string)"
    yield "STORED AS PARQUET"
    yield "LOCATION 's3://bucket/snapshot/'"
    yield "```"


def first_dump() -> Iterator[str]:
    """A first dump beside its peers, from what `make bench` measured last."""
    return _measured("A first dump")


def refreshes() -> Iterator[str]:
    """What a refresh costs, from what `make bench` measured last."""
    return _measured("A refresh")


def torture() -> Iterator[str]:
    """What the torture came to when it last ran, by scenario, from torture.json."""
    told = json.loads((ROOT / "docs" / "torture.json").read_text(encoding="utf-8"))
    counts = ("tries", "lost", "double", "wrong", "unreadable")
    rows = [
        (each["scenario"], *(f"{each[name]:,}" for name in counts), each["form"], each["when"])
        for each in told.values()
    ]
    sums = ("together", *(f"{sum(each[name] for each in told.values()):,}" for name in counts), "", "")
    return _table(("scenario", *counts, "form", "run on"), [*rows, sums])


def _measured(title: str) -> Iterator[str]:
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    _, _, section = text.partition(f"## {title}")
    return (line for line in section.partition("\n## ")[0].splitlines() if line.startswith("|"))


def _first_sentence(name: str) -> str:
    doc = _CONSTANTS.get(name) or inspect.getdoc(getattr(pleo_extract, name)) or ""
    return " ".join(doc.partition("\n\n")[0].split())


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |"


TABLES = {
    made.__name__: made
    for made in (
        answers,
        athena,
        columns,
        commands,
        exit_codes,
        first_dump,
        names,
        options,
        refreshes,
        torture,
    )
} | {name: getattr(scaling, name) for name in scaling.__all__ if name.startswith("scale_")}


def helps() -> Iterator[tuple[Path, str]]:
    """Every command's help, and the file it is compared with."""
    for name in ("pleo-extract", *group.commands):
        asked = ["--help"] if name == "pleo-extract" else [name, "--help"]
        shown = CliRunner().invoke(group, asked, prog_name="pleo-extract", terminal_width=80)
        yield ROOT / "tests" / "help" / f"{name}.txt", shown.output


def documents(*, run: bool) -> Iterator[tuple[Path, str]]:
    """Every document, with its tables as they should be, and with `run` what its blocks print."""
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        text = blocks.fill(text) if run else text
        yield path, TABLE.sub(lambda found: found[1] + "\n".join(TABLES[found[2]]()) + "\n" + found[3], text)


def main(*, check: bool) -> int:
    """Write, or with `check` compare; 1 where something differs."""
    wanted = [*helps(), *documents(run=not check)]
    stray = sorted({*(ROOT / "tests" / "help").glob("*.txt")} - {path for path, _ in wanted})
    differ = False
    for path, text in wanted:
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        if check and before != text:
            differ = True
            name = path.relative_to(ROOT).as_posix()
            print(
                *difflib.unified_diff(before.splitlines(), text.splitlines(), name, "generated", lineterm=""),
                sep="\n",
            )
        elif not check and before != text:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"written: {path.relative_to(ROOT)}")
    for path in stray:
        differ = True
        print(f"{path.relative_to(ROOT)}: no such command")
        if not check:
            path.unlink()
    return int(check and differ)


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
