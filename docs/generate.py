"""Write the generated parts of the documents from the code (`make docs`); with `--check`, show where they differ.

The text between `<!-- generated: NAME -->` and `<!-- end -->` in a document comes from the function NAME below.
`tests/help/` holds the `--help` of every command, for a terminal of 80 columns. The script also writes what the
documents' code blocks print, see `blocks`; `--check` does not compare that, tests/test_docs.py does.
"""
# ruff: noqa: INP001, T201 - a script, not part of a package; it prints

from __future__ import annotations

import difflib
import inspect
import json
import re
import runpy
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import blocks
import scaling
from click.testing import CliRunner

import pleo_extract
from pleo_extract import errors
from pleo_extract.answers import statements
from pleo_extract.cli import group
from pleo_extract.cli.ddl import register_statements
from pleo_extract.contract import EXTRA, FIELDS, POLARS_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TABLE = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

WHAT_TO_DO = {
    0: ("done", "nothing"),
    1: ("a bug in pleo-extract, with a traceback", "report it"),
    2: ("wrong usage", "correct the command; nothing was sent or written"),
    3: ("a check found a breach of a limit", "read the lines on stdout: one per breach"),
    65: ("bad data, or a damaged lake", "read the message: it names the rows or files"),
    69: ("another run holds the lake", "nothing: the other run does the work"),
    74: ("disk full or not writable", "free space or correct permissions, then run again"),
    75: ("temporary failure", "nothing: the next run continues"),
    76: ("the server broke its contract", "run again; if it fails again, report the message"),
    77: ("credential refused", "renew the key or token"),
    78: ("wrong configuration", "correct the URL, file or setting"),
    129: ("hung up (SIGHUP: the terminal or session has closed)", "run again"),
    130: ("interrupted (Ctrl-C)", "run again"),
    143: ("terminated (SIGTERM)", "run again"),
}
_TYPES = {"instant": 'Datetime("us", "UTC")'}
_CONSTANTS = {
    "COLUMNS": "The columns of every frame and file, in order.",
    "POLARS_SCHEMA": "The columns with their Polars types.",
}


def columns() -> Iterator[str]:
    """Return the columns of an export job, from `contract.FIELDS`."""
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
    return _table(("column", "field of the API", "type", "null?", "meaning"), rows)


def exit_codes() -> Iterator[str]:
    """Return the exit codes and their errors, from the tree of errors."""
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
    """Return the commands of the command line."""
    rows = (
        (f"[`pleo-extract {name}`](../tests/help/{name}.txt)", command.get_short_help_str(limit=200))
        for name, command in group.commands.items()
    )
    return _table(("command", "what it does"), rows)


def names() -> Iterator[str]:
    """Return what `pleo_extract` exports, from the docstrings."""
    others = {"__version__", *errors.__all__} - {
        "PleoExtractError"
    }  # the errors are in the table of exit codes
    rows = ((f"`{name}`", _first_sentence(name)) for name in pleo_extract.__all__ if name not in others)
    return _table(("name", "what it is"), rows)


def answers() -> Iterator[str]:
    """Return the views and macros, from `sql/`."""
    rows = (
        (f"`{found.name}{'(…)' if found.kind == 'macro' else ''}`", found.summary)
        for found in statements().values()
    )
    return _table(("view or macro", "what it answers"), rows)


def options() -> Iterator[str]:
    """Return the options of Spark's data source, from a file that imports without Spark."""
    described = runpy.run_path(str(ROOT / "pleo_extract" / "spark" / "options.py"))["OPTIONS"]
    return _table(("option", "meaning"), ((f"`{name}`", text) for name, text in described.items()))


def bounds() -> Iterator[str]:
    """Return the oldest versions of the dependencies, from pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for name, needed in {"always": project["dependencies"], **extras}.items():
        if name not in ("all", "dev"):
            heading = name if name == "always" else f"with `{name}`"
            yield f"- {heading}: {', '.join(f'`{each}`' for each in needed)}"


def athena() -> Iterator[str]:
    """Return the DDL of an Athena table over a folder of Parquet, as `pleo-extract ddl` prints it."""
    yield "```sql"
    yield register_statements("athena", "export_jobs", "s3://bucket/snapshot/", is_delta=False)
    yield "```"


def first_dump() -> Iterator[str]:
    """Return the first dump compared with its peers, from the last `make bench`."""
    return _measured("A first dump")


def refreshes() -> Iterator[str]:
    """Return what a refresh costs, from the last `make bench`."""
    return _measured("A refresh")


def torture() -> Iterator[str]:
    """Return the results of the last torture run by scenario, from torture.json."""
    results = json.loads((ROOT / "docs" / "torture.json").read_text(encoding="utf-8"))
    counts = ("tries", "lost", "double", "wrong", "unreadable")
    rows = [
        (each["scenario"], *(f"{each[name]:,}" for name in counts), each["form"], each["when"])
        for each in results.values()
    ]
    sums = ("total", *(f"{sum(each[name] for each in results.values()):,}" for name in counts), "", "")
    return _table(("scenario", *counts, "form", "run on"), [*rows, sums])


def clustering() -> Iterator[str]:
    """Return how often 95 % intervals contain the true rate if failures come in clusters, from alarms.json."""
    rows = (
        (
            each["world"],
            *(f"{each[name]:.0%}" for name in ("wilson", "clustered", "first_pass")),
            f"{each['design_effect']:.1f}",
        )
        for each in _alarms("clustering")
    )
    names = (
        "failures",
        "`low` to `high`",
        "`clustered_low` to `clustered_high`",
        "`first_pass`",
        "design effect",
    )
    return _table(names, rows)


def links() -> Iterator[str]:
    """Return how often `attempts` links wrongly, from alarms.json."""
    rows = (
        (
            each["exports"],
            f"{each['links']:,}",
            f"{each['wrong'] / each['links']:.1%}",
            f"{each['retries']:,}",
            f"{each['missed'] / each['retries']:.1%}",
        )
        for each in _alarms("attempts")
    )
    return _table(("entries of an export", "links", "wrong", "true retries", "missed"), rows)


def shift_alarms() -> Iterator[str]:
    """Return how often chance alone makes a shift or an incident, from alarms.json."""
    worlds = {
        "independent": "",
        "clustered": ", in clusters: some days have far more",
        "month-end": ", twice as many on the last three days of a month",
        "Mondays": ", twice as many on Mondays",
    }
    rows = (
        (
            f"{each['daily']} a day, {each['rate']:.0%} fail{worlds[each['world']]}",
            *(f"{each[k]:,}" for k in ("judged", "shifts", "least", "incidents", "alarms")),
            f"{round(each['judged'] / each['alarms'], -1):,.0f}",
        )
        for each in _alarms("shifts")["chance"]
    )
    columns = (
        "exports",
        "judged days",
        "shifts by chance",
        "incidents by an exact limit",
        "incidents by chance",
        "days with either",
        "one in",
    )
    return _table(columns, rows)


def shift_power() -> Iterator[str]:
    """Return how soon `shifts` and `incidents` notice that a rate has doubled, from alarms.json."""
    found = _alarms("shifts")
    rows = (
        (label, *(f"{found[name][days] / found['companies']:.1%}" for days in ("7", "14", "30", "100")))
        for name, label in (
            ("shifts", "`shifts`"),
            ("incidents", "`incidents`"),
            ("either", "either of them"),
        )
    )
    return _table(("noticed within", "7 days", "14 days", "30 days", "100 days"), rows)


def silence_alarms() -> Iterator[str]:
    """Return how often and how soon `silences` names a company, from alarms.json."""
    rows = (
        (
            each["rhythm"],
            f"{each['named_by_chance']} in {each['company_years']} company years",
            _hours(each["median_hours"]),
            _hours(each["slowest_hours"]),
            f"{each['slowest_in_usual_gaps']:.1f}",
        )
        for each in _alarms("silences")
    )
    columns = ("exports", "named by chance", "half named within", "all within", "the slowest, in usual gaps")
    return _table(columns, rows)


def iceberg() -> Iterator[str]:
    """Return what the same steps cost with a Delta and with an Iceberg table, from iceberg.json."""
    found = json.loads((ROOT / "docs" / "iceberg.json").read_text(encoding="utf-8"))
    rows = (
        (
            step,
            *(f"{each[kind]['cpu']:.1f}" for kind in ("delta", "iceberg")),
            f"{each['iceberg']['cpu'] / each['delta']['cpu']:.1f}",
            *(f"{each[kind]['peak']:.0f}" for kind in ("delta", "iceberg")),
        )
        for step, each in found["steps"].items()
    )
    yield f"On {found['where']}; {found['jobs']:,} jobs, medians; each step is a whole process:"
    yield ""
    columns = ("step", "Delta, CPU s", "Iceberg, CPU s", "ratio", "Delta, MB", "Iceberg, MB")
    yield from _table(columns, rows)


def _alarms(part: str) -> Any:
    return json.loads((ROOT / "docs" / "alarms.json").read_text(encoding="utf-8"))[part]


def _hours(hours: float) -> str:
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.1f} days"


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
        bounds,
        columns,
        commands,
        clustering,
        exit_codes,
        first_dump,
        iceberg,
        links,
        names,
        options,
        refreshes,
        shift_alarms,
        shift_power,
        silence_alarms,
        torture,
    )
} | {name: getattr(scaling, name) for name in scaling.__all__ if name.startswith("scale_")}


def helps() -> Iterator[tuple[Path, str]]:
    """Yield every command's help, and the file that must contain it."""
    for name in ("pleo-extract", *group.commands):
        asked = ["--help"] if name == "pleo-extract" else [name, "--help"]
        shown = CliRunner().invoke(group, asked, prog_name="pleo-extract", terminal_width=80)
        yield ROOT / "tests" / "help" / f"{name}.txt", shown.output


def documents(*, run: bool) -> Iterator[tuple[Path, str]]:
    """Yield every document with its tables generated and, with `run`, the outputs of its blocks."""
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        text = blocks.fill(text) if run else text
        yield path, TABLE.sub(lambda found: found[1] + "\n".join(TABLES[found[2]]()) + "\n" + found[3], text)


def main(*, check: bool) -> int:
    """Write the files, or with `check` compare them; return 1 if `check` finds a difference."""
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
