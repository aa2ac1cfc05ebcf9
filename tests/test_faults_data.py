"""F26 to F33 in a dump: unknown values, rows that break the types, hostile texts."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from trial import edit_pages

from pleo_extract import POLARS_SCHEMA, scan_lake, verify_lake
from pleo_extract.contract import KEY
from pleo_extract.errors import DataError, RejectedRows
from pleo_extract.sandbox.badrows import HOSTILE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trial import Trial

    from pleo_extract.sync.receipt import Receipt


DAY = 86_400.0


def dump_rejected(trial: Trial, **options: Any) -> tuple[Mapping[str, Any], list[dict[str, Any]]]:
    """Dump a server with bad rows, which ends with 65; return the receipt and the rejected rows."""
    with pytest.raises(RejectedRows) as caught:
        trial.dump(**options)
    receipt = caught.value.receipt
    assert receipt is not None
    assert (caught.value.code, receipt["code"], receipt["published"]) == (65, 65, True)
    assert caught.value.tell().isprintable()
    assert verify_lake(trial.lake).ok
    (file,) = (trial.lake / "_lake/rejected").iterdir()
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    return receipt, [json.loads(line) for line in file.read_text().splitlines()]


def set_field(trial: Trial, number: int, **fields: Any) -> list[dict[str, Any]]:
    """Give one row of this page other values from now on; return the original rows."""
    honest: list[dict[str, Any]] = []

    def edit(page: dict[str, Any], asked: int) -> None:
        if asked == number:
            row = page["data"][3]
            honest.append(dict(row))
            row |= fields

    trial.transport = edit_pages(trial.sandbox, edit)
    return honest


def is_set_aside(trial: Trial, count: int) -> None:
    """Check that this many rows are rejected, counted and named, and come back once the server sends them right."""
    receipt, kept = dump_rejected(trial)
    assert receipt["rejected"] == len(kept) == count
    assert all(row["path"].startswith("$.data[") and row["reason"] for row in kept)
    assert len({row["page"] for row in kept}) == count
    assert [json.loads(row["row"]) for row in kept]
    assert [each.kind for each in trial.wrong()] == ["missing"] * count
    trial.transport = None
    trial.strike()
    said = ""
    try:
        trial.dump()
    except RejectedRows as exc:
        said = str(exc)
    # If the random audit reads these rows, they are valid by then.
    assert "earlier run" in said or trial.wrong() == []
    trial.heals(full=True)


def row_of(lake: Path, name: str) -> dict[str, Any]:
    """Return the lake's row of this job."""
    (row,) = scan_lake(lake).filter(pl.col("id") == name).collect().to_dicts()
    return row


class TestOpenSets:
    """F26 and F30: values and fields outside the contract."""

    def test_f26_unknown_status(self, trial: Trial, caplog: pytest.LogCaptureFixture) -> None:
        """An unknown status is kept as text, with one warning per run; a null reason equals an absent one."""
        trial.strike(unknown_status=True, null_reason=True)
        trial.dump(full=True)
        assert trial.wrong() == []
        assert "canceled" in scan_lake(trial.lake).collect()["status"].to_list()
        warned = [record.getMessage() for record in caplog.records if "status" in record.getMessage()]
        assert len(warned) == 1
        assert "status 'canceled' is unknown, and kept as it is" in warned[0]
        trial.sandbox.world.advance(DAY)
        assert trial.dump().mode == "refresh"
        assert trial.wrong() == []

    def test_f26_unknown_reason(self, trial: Trial) -> None:
        """An unknown failure reason is kept as text."""
        rows = set_field(trial, 3, failureReasonType="solar_flare")
        assert trial.dump().code == 0
        assert row_of(trial.lake, rows[0]["id"])["failure_reason_type"] == "solar_flare"
        trial.heals(full=True)

    def test_f30_unknown_fields(self, trial: Trial) -> None:
        """Unknown fields, also nested ones, are kept as JSON in one column, and the schema does not change."""
        trial.strike(extra=True)
        trial.dump(full=True)
        frame = scan_lake(trial.lake).collect()
        assert frame.schema == POLARS_SCHEMA
        extras = [json.loads(text) for text in frame["extra"]]
        assert len(extras) == len(trial.sandbox.world.visible())
        assert all(extra["exportTarget"]["ledgers"][0]["name"] == 'Köb "A/S"' for extra in extras)
        assert trial.wrong() == []
        trial.strike(extra=False)
        trial.heals(full=True)


BAD_ROWS = {
    "f27": ["missing", "noid", "null", "number_text", "string_bool", "epoch", "list", "nothing"],
    "f28": ["overflow", "overflow32", "float", "string_number", "bool_number", "number_bool"],
    "f29": ["baddate", "weekdate", "nozone", "hour24", "year10000", "picture"],
    "f33": ["baduuid", "braces"],
}
"""The variants of the sandbox's bad rows, by fault."""


class TestRejected:
    """F27 to F29 and F33: bad rows are rejected, the others are published, 65."""

    def test_f27_rows_that_do_not_fit(self, trial: Trial) -> None:
        """A row with a missing, null or mistyped required field is rejected with page, path and JSON."""
        self.are_set_aside("f27", trial)

    def test_f28_numbers_that_do_not_fit(self, trial: Trial) -> None:
        """Integers that are too large, 1.5, "7" and true are rejected as counts."""
        self.are_set_aside("f28", trial)

    def test_f29_dates_that_do_not_exist(self, trial: Trial) -> None:
        """30 February, a week date, no offset, 24:00 and the year 10000 are rejected."""
        self.are_set_aside("f29", trial)

    def test_f33_what_is_no_uuid(self, trial: Trial) -> None:
        """An id that is a path or has braces is rejected."""
        self.are_set_aside("f33", trial)

    def test_f33_urn(self, trial: Trial) -> None:
        """An id that is a URN is rejected."""
        set_field(trial, 3, id="urn:uuid:9b2f4f5e-8f5b-4a53-9f0a-0d3c6f0a7b11")
        is_set_aside(trial, 1)

    @staticmethod
    def are_set_aside(fault: str, trial: Trial) -> None:
        """Check that a bad row of each kind on each page is rejected."""
        kinds = BAD_ROWS[fault]
        trial.strike(",".join(f"{number}:badrow.{kind}" for number, kind in enumerate(kinds, start=2)))
        is_set_aside(trial, len(kinds))

    def test_f27_many(self, trial: Trial) -> None:
        """More than 100 bad rows and 1 % give 65, publish nothing, and the next run starts over."""

        def spoil(page: dict[str, Any], _: int) -> None:
            for row in page["data"]:
                row["status"] = None

        trial.sandbox.world.advance(20 * DAY)
        trial.transport = edit_pages(trial.sandbox, spoil)
        failure = trial.fails(DataError, at_most=80)
        assert "rows do not fit the contract, more than 1 %: nothing was published" in str(failure)
        (kept,) = (trial.lake / "_lake/rejected").iterdir()
        assert len(kept.read_text().splitlines()) > 100
        trial.heals()

    @pytest.mark.parametrize("trial", ["refresh"], indirect=True)
    def test_f27_many_new_ones(self, trial: Trial) -> None:
        """The same limit holds in a refresh where half of the new rows are bad."""
        since = f"{trial.sandbox.world.now:%Y-%m-%dT%H:%M:%SZ}"

        def spoil(page: dict[str, Any], _: int) -> None:
            for row in page["data"][::2]:
                row["numberOfItems"] = 1.5 if row["createdAt"] > since else row["numberOfItems"]

        trial.sandbox.world.advance(40 * DAY)
        trial.transport = edit_pages(trial.sandbox, spoil)
        failure = trial.fails(DataError, at_most=40)
        assert failure.receipt is not None
        assert failure.receipt["mode"] == "refresh"
        trial.heals()


class TestInstants:
    """F29: instants in the forms that RFC 3339 allows."""

    def test_f29_fractions_and_offsets(self, trial: Trial) -> None:
        """Nanoseconds are cut to microseconds, and offsets are converted to UTC."""
        trial.strike(zone=330, fraction=9)
        trial.dump(full=True)
        assert trial.wrong() == []
        assert scan_lake(trial.lake).collect().schema == POLARS_SCHEMA

    def test_f29_the_edges_of_time(self, trial: Trial) -> None:
        """The first and last representable instants and a leap second are stored; others are rejected."""
        known = {
            "0001-01-01T00:00:00Z": datetime(1, 1, 1, tzinfo=UTC),
            "9999-12-31T23:59:59.999999999Z": datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
            "2026-06-30T23:59:60Z": datetime(2026, 7, 1, tzinfo=UTC),
        }
        beyond = ["0000-01-01T00:00:00Z", "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"]
        names: list[str] = []

        started: dict[str, str] = {}

        def edit(page: dict[str, Any], number: int) -> None:
            if number == 3:
                names.extend(row["id"] for row in page["data"][: len(known) + len(beyond)])
                started.update(zip(names, [*known, *beyond], strict=True))
            for row in page["data"]:  # on every read
                row["startedAt"] = started.get(row["id"], row["startedAt"])

        trial.transport = edit_pages(trial.sandbox, edit)
        _, kept = dump_rejected(trial)
        assert [row["reason"].split("'")[1] for row in kept] == beyond
        assert [row_of(trial.lake, name)["started_at"] for name in names[:3]] == list(known.values())
        trial.heals(full=True)


class TestTexts:
    """F31: hostile texts are stored unchanged."""

    def test_f31_stored_exactly(self, trial: Trial) -> None:
        """A megabyte, NUL, line breaks, escape sequences, right-to-left marks and markup are stored exactly."""
        trial.strike(",".join(f"{number}:hostile.{name}" for number, name in enumerate(HOSTILE, start=2)))
        assert trial.dump(full=True).code == 0
        kept = scan_lake(trial.lake).select("failure_reason").collect()["failure_reason"].to_list()
        assert [kept.count(text) for text in HOSTILE.values()] == [1] * len(HOSTILE)
        assert verify_lake(trial.lake).ok
        trial.heals(full=True)


class TestKeys:
    """F32 and F33: the identity of a job."""

    def test_f32_same_id_in_two_companies(self, trial: Trial) -> None:
        """The same id in two companies is two jobs."""
        world = trial.sandbox.world
        twin = world.visible()[-1]
        other = next(company for company in world.companies if company != twin["companyId"])
        world.insert(world.now, id=twin["id"], company=other)
        trial.survives()
        kept = scan_lake(trial.lake).filter(pl.col("id") == twin["id"]).collect()
        assert sorted(kept["company_id"]) == sorted([twin["companyId"], other])

    def test_f33_capitals(self, trial: Trial) -> None:
        """UUIDs in capitals are the same UUIDs: the lake has each job once, in lower case."""
        trial.strike(upper_uuid=True)
        receipt: Receipt = trial.dump(full=True)
        assert receipt.code == 0
        frame = scan_lake(trial.lake).collect()
        assert frame.select(KEY).is_unique().all()
        assert (
            frame.select(pl.all_horizontal(pl.col(name).str.to_lowercase() == pl.col(name) for name in KEY))
            .to_series()
            .all()
        )
        assert trial.wrong() == []
        trial.strike(upper_uuid=False)
        trial.heals()
