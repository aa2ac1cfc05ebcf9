"""An Iceberg table beside a Delta table, each written by its Python library: is Iceberg worth another `Table`?

    python tests/benchmarks/iceberg.py

Writes `docs/iceberg.json`, for docs/stores.md. Both libraries do what `Table` needs, on the same rows with the same merge: the first commit, one that replaces the two
newest months, one that only keeps a sync state, and opening the table, as `status` does. Each step is a whole process.
They take turns, and the figures are medians. Iceberg needs a catalog; here it is pyiceberg's own, in SQLite. Then it
tries what else `Table` promises: a commit on a base that is no longer current must be refused.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import polars as pl
from measure import ROOT, Cost, make_venv, measure, medians, tell
from rows import make_rows
from server import Jobs

JOBS: Final = 100_000
ENDED: Final = 1_000
RUNS: Final = 5
STEPS: Final = ("first commit", "refresh of two months", "state only", "open")
STATE: Final = {"pleo_extract": "x" * 2_000}
"""About the size of the sync state of one account."""
LIBRARIES: Final = ("pyiceberg[sql-sqlite]==0.12.0", "deltalake==1.6.6")
WHERE: Final = "created_month IN ({})"


class Delta:
    """A Delta table through delta-rs."""

    def __init__(self, folder: Path) -> None:
        import deltalake  # noqa: PLC0415 - each process loads the library that it measures

        self._library, self._path = deltalake, str(folder / "delta")
        self.table: Any = None

    def open(self) -> str:
        """Open the table, and return the state that its last commit holds."""
        self.table = self._library.DeltaTable(self._path)
        return str(self.table.history(1)[0]["pleo_extract"])

    def read(self, months: list[str]) -> pl.DataFrame:
        """Return the rows of these months."""
        rows = self.table.to_pyarrow_table(filters=[("created_month", "in", months)])
        return pl.DataFrame(pl.from_arrow(rows))

    def write(self, rows: pl.DataFrame, months: list[str] | None = None) -> None:
        """Commit the rows in place of these months; without months as a new table."""
        named = ", ".join(f"'{month}'" for month in months or ())
        self._library.write_deltalake(
            self.table or self._path,
            rows.to_arrow(),
            mode="overwrite",
            predicate=WHERE.format(named) if months else None,
            partition_by=["created_month"],
            commit_properties=self._library.CommitProperties(custom_metadata=STATE, max_commit_retries=0),
        )

    def keep_state(self) -> None:
        """Commit a state, and no rows."""
        self.table.create_write_transaction(
            [], "append", self.table.schema(), commit_properties=self._library.CommitProperties(STATE)
        )


class Iceberg:
    """An Iceberg table through pyiceberg."""

    def __init__(self, folder: Path) -> None:
        from pyiceberg.catalog.sql import SqlCatalog  # noqa: PLC0415 - as above

        place = folder / "iceberg"
        place.mkdir(exist_ok=True)
        self._catalog = SqlCatalog("pleo", uri=f"sqlite:///{place}/catalog.db", warehouse=f"file://{place}")
        self.table: Any = None

    def open(self) -> str:
        """Open the table, and return the state that its last snapshot holds."""
        self.table = self._catalog.load_table("pleo.export_jobs")
        return str(self.table.current_snapshot().summary["pleo_extract"])

    def read(self, months: list[str]) -> pl.DataFrame:
        """Return the rows of these months."""
        from pyiceberg.expressions import In  # noqa: PLC0415 - as above

        return pl.DataFrame(pl.from_arrow(self.table.scan(row_filter=In("created_month", months)).to_arrow()))

    def write(self, rows: pl.DataFrame, months: list[str] | None = None) -> None:
        """Commit the rows in place of these months; without months as a new table."""
        from pyiceberg.expressions import In  # noqa: PLC0415 - as above

        data = rows.to_arrow(compat_level=pl.CompatLevel.oldest())
        if months:
            self.table.overwrite(data, In("created_month", months), snapshot_properties=STATE)
            return
        self._catalog.create_namespace("pleo")
        self.table = self._catalog.create_table("pleo.export_jobs", data.schema)
        with self.table.update_spec() as spec:
            spec.add_identity("created_month")
        self.table.append(data, snapshot_properties=STATE)

    def keep_state(self) -> None:
        """Commit a state, and no rows."""
        empty = self.table.scan(limit=1).to_arrow().slice(0, 0)
        self.table.append(empty, snapshot_properties=STATE)


KINDS: Final[dict[str, type[Delta | Iceberg]]] = {"delta": Delta, "iceberg": Iceberg}


def make_jobs(first: int = 0) -> pl.DataFrame:
    """Return the rows from number `first`, with the month that the table is partitioned by."""
    rows = make_rows(Jobs(JOBS), first, JOBS)
    return rows.with_columns(created_month=pl.col("created_at").dt.strftime("%Y-%m"))


def run(step: str, kind: str, folder: Path) -> None:
    """Do one step in this process."""
    one = KINDS[kind](folder)
    if step == "first commit":
        one.write(make_jobs())
        return
    assert one.open() == STATE["pleo_extract"]
    if step == "state only":
        one.keep_state()
    elif step == "refresh of two months":
        months = [str(month) for month in make_jobs(JOBS * 9 // 10)["created_month"].unique().sort().tail(2)]
        old = one.read(months)
        ended = old.sort("created_at").tail(ENDED).with_columns(status=pl.lit("completed"))
        rows = pl.concat([old, ended]).unique(["company_id", "id"], keep="last", maintain_order=True)
        assert rows.height == old.height
        one.write(rows, months)


def is_refused(kind: str, folder: Path) -> str:
    """Return what a commit on a base that is no longer current ends with."""
    first, second = KINDS[kind](folder), KINDS[kind](folder)
    first.open()
    second.open()
    months = [str(make_jobs(JOBS - 1)["created_month"].max())]
    rows = first.read(months)
    first.write(rows, months)
    try:
        second.write(rows, months)
    except Exception as exc:  # noqa: BLE001 - the libraries have no common error
        return type(exc).__name__
    return "nothing: the commit was accepted"


def main() -> None:
    """Measure both and print the tables, or run one step in this process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--step", nargs=3)
    asked = parser.parse_args()
    if asked.step:
        step, kind, place = asked.step
        if step == "conflict":
            print(is_refused(kind, Path(place)))
        else:
            run(step, kind, Path(place))
        return
    python = make_venv("iceberg", [*LIBRARIES, "polars", "numpy", "--editable", str(ROOT)])
    costs: dict[tuple[str, str], list[Cost]] = {(step, kind): [] for step in STEPS for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(RUNS + 1):
            for kind in KINDS:
                shutil.rmtree(Path(folder, kind), ignore_errors=True)
            for step in STEPS:
                for kind in KINDS:
                    cost = measure([python, __file__, "--step", step, kind, folder])
                    if number:  # the first round does not count
                        costs[step, kind].append(cost)
        found = {key: medians(each) for key, each in costs.items()}
        results: dict[str, Any] = {
            "when": f"{datetime.now(UTC):%Y-%m-%d}",
            "where": f"{os.cpu_count()} cores, {', '.join(LIBRARIES)}",
            "jobs": JOBS,
            "steps": {step: {kind: tell(found[step, kind]) for kind in KINDS} for step in STEPS},
            "refused": {kind: ask_refusal(python, kind, folder) for kind in KINDS},
        }
    (ROOT / "docs" / "iceberg.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def ask_refusal(python: str, kind: str, folder: str) -> str:
    """Return the error that `is_refused` finds."""
    command = [python, __file__, "--step", "conflict", kind, folder]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, text=True)
    return done.stdout.strip()


if __name__ == "__main__":
    main()
