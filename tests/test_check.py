"""Tests of `pleo-extract check`: which limits a lake breaks, what is printed, and the exit code."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING

import msgspec
import polars as pl
from lakes import SERVER, make_lake
from warehouse_jobs import START, A, B, Row, job

from pleo_extract import connect
from pleo_extract.core.state import SyncState
from pleo_extract.lake.layout import Layout
from pleo_extract.lake.record import LastRun
from pleo_extract.sync.receipt import Receipt

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Said

DAY = timedelta(days=1)
MADE = START + 30 * DAY


def company(number: int) -> str:
    """Return the id of a company."""
    return f"{number:08d}-0000-4000-8000-000000000000"


def history(counts: dict[str, list[tuple[int, int]]]) -> list[Row]:
    """Return jobs by company and day before MADE, the last day last: (failed, completed)."""
    rows: list[Row] = []
    for owner, days in counts.items():
        for ago, (failed, done) in enumerate(reversed(days)):
            created = MADE - (ago + 1) * DAY + timedelta(hours=9)
            for status in ["failed"] * failed + ["completed"] * done:
                rows.append(job(len(rows), status, company_id=owner, created_at=created))
    return rows


def set_states(lake: Path, **states: SyncState) -> None:
    """Give the lake these accounts instead of its own; names are `any`, A and B."""
    layout, keys = Layout(lake), {"A": A, "B": B, "any": "*"}
    accounts = {f"{SERVER} {keys[name]}": state for name, state in states.items()}
    manifest = msgspec.structs.replace(layout.manifest(1), accounts=accounts)
    layout.manifest_file(1).write_bytes(msgspec.json.encode(manifest))


def test_a_rate_is_judged_by_the_lower_end_of_its_interval(pleo: Callable[..., Said], tmp_path: Path) -> None:
    """Exactly the companies are named whose interval of the last days lies above the limit, clusters considered."""
    luck = Random(15)
    counts = {company(n): [(luck.randint(0, 4), luck.randint(0, 24)) for _ in range(20)] for n in range(40)}
    lake = make_lake(tmp_path / "lake", history(counts), MADE)
    with connect(lake) as con:
        since = (MADE - 7 * DAY).isoformat()
        rates = con.sql(f"FROM failure_rates('all', since := '{since}')").pl()
    enough = rates.filter(pl.col("finished") >= 90)
    few = rates.height - enough.height
    expected = set(enough.filter(pl.col("clustered_low") > 0.1)["company_id"])
    assert expected < set(enough.filter(pl.col("low") > 0.1)["company_id"])
    asked = ("check", lake, "--max-failure-rate", "10%", "--min-jobs", 90)
    said = pleo(*asked)
    lines = said.out.splitlines()
    assert {line.partition(":")[0] for line in lines} == expected
    assert 0 < len(expected) == len(lines)
    assert few > 0
    assert said.code == 3
    assert said.err == f"pleo-extract: {lake}: {len(lines)} breaches\n"
    quiet = pleo("check", lake, "--max-failure-rate", "0.99", "--min-jobs", 90)
    closest = enough.sort("clustered_low")[-1]
    highest = f"the highest rate: {closest['rate'][0]:.1%}, at least {closest['clustered_low'][0]:.1%} without chance"
    judged = f"of 40 companies, judged: {40 - few} by failure rate ({highest})"
    assert (quiet.code, quiet.out, quiet.err) == (0, f"{lake}: no breach; {judged}\n", "")
    assert pleo("check", lake, "--max-failure-rate", "0.99", "--quiet") == (0, "", "")


def test_a_check_that_judges_no_company_says_so(pleo: Callable[..., Said], tmp_path: Path) -> None:
    """With --quiet too: such a check would pass for ever."""
    lake = make_lake(tmp_path / "lake", history({A: [(1, 1)] * 7, B: [(2, 0)] * 7}), MADE)
    said = pleo("check", lake, "--max-failure-rate", "1%", "--no-incident", "--no-silence", "--quiet")
    assert (said.code, said.out) == (0, "")
    assert said.err.splitlines() == [
        f"pleo-extract: no company of {lake} can be judged by {each}"
        for each in (
            "failure rate: that needs 50 finished jobs in the 7 days before the lake was last read; see --min-jobs and --since",
            (
                "incidents: that needs eight days or weeks with ten finished jobs each, and one of them in the 7 days before "
                "the lake was last read; see --since"
            ),
            "silence: that needs a job in the last two months, and more than 20 over more than 14 days before",
        )
    ]
    told = json.loads(pleo("check", lake, "--max-failure-rate", "1%", "--min-jobs", 2, "--json").out)
    assert (told["companies"], told["judged"]) == (2, {"max_failure_rate": 2})


def test_since_says_how_far_back_a_rate_counts(pleo: Callable[..., Said], tmp_path: Path) -> None:
    """Failures before the span are not counted; the span ends when the lake was last read, not at the clock's now."""
    lake = make_lake(tmp_path / "lake", history({A: [(15, 15)] * 5 + [(0, 30)] * 7}), MADE)
    assert pleo("check", lake, "--max-failure-rate", "1%", "--since", "7d").code == 0
    said = pleo("check", lake, "--max-failure-rate", "1%", "--since", "12d")
    assert said.code == 3
    assert said.out.startswith(
        f"{A}: 75 of 360 exports failed since 2026-03-19 00:00 UTC, 20.8%; the true rate is at least "
    )
    assert said.out.endswith(", and 1% is allowed\n")


def test_incidents_of_the_last_days_are_breaches(pleo: Callable[..., Said], tmp_path: Path) -> None:
    """A company with many jobs is judged by the day, one with few by the week, each as `incidents` does."""
    calm = [(1, 29)] * 80
    slow = [(0, 2)] * 5 + [(1, 2), (0, 0)]
    counts = {
        company(1): [*calm[:-3], (15, 15), *calm[:2]],  # a bad day, two days ago
        company(2): [*calm[:-20], (15, 15), *calm[:19]],  # a bad day, long ago
        company(3): calm,
        company(4): [*slow * 11, *[(3, 0)] * 6],  # too few a day; a bad week
        company(5): slow * 12,
    }
    lake = make_lake(tmp_path / "lake", history(counts), MADE)
    said = pleo("check", lake, "--no-incident", "--since", "7d", "--json")
    found = json.loads(said.out)["breaches"]
    assert said.code == 3
    assert {(each["company_id"], each["figures"]["grain"]) for each in found} == {
        (company(1), "day"),
        (company(4), "week"),
    }
    with connect(lake) as con:
        for each in found:
            figures = each["figures"]
            grain, period = figures["grain"], figures["period"]
            asked = f"FROM incidents('{grain}', company_id := '{each['company_id']}') WHERE period = $period"
            row = con.sql(asked, params={"period": datetime.fromisoformat(period)}).pl().row(0, named=True)
            assert {name: figures[name] for name in ("failed", "finished", "limit_rate", "reasons")} == {
                name: row[name] for name in ("failed", "finished", "limit_rate", "reasons")
            }
    assert pleo("check", lake, "--no-incident", "--since", "1d").code == 0  # the week was over before
    noon = MADE - 2.5 * DAY
    earlier = [row for row in history({company(1): counts[company(1)]}) if row["created_at"] < noon]
    lake = make_lake(tmp_path / "earlier", earlier, noon)
    said = pleo("check", lake, "--no-incident", "--since", "7d")
    assert said.out.startswith(f"{company(1)}: incident on 2026-03-28, which is not over: 15 of 30 ")


def test_chance_makes_no_breach_among_many_companies(pleo: Callable[..., Said], tmp_path: Path) -> None:
    """Of 300 companies whose rate stays, `incidents` names some in a month and `check` none; a real one is named."""
    luck = Random(8)
    steady = {
        company(n): [(k := sum(luck.random() < 0.2 for _ in range(10)), 10 - k) for _ in range(40)]
        for n in range(300)
    }
    rows = history(steady)
    lake = make_lake(tmp_path / "lake", rows, MADE)
    with connect(lake) as con:
        assert 1 <= len(con.sql("FROM incidents('day')")) <= 10
    assert pleo("check", lake, "--no-incident", "--since", "30d").code == 0
    rows = [row for row in rows if row["company_id"] != company(7)]
    steady[company(7)][-2] = (10, 0)
    bad = history({company(7): steady[company(7)]})
    lake = make_lake(tmp_path / "bad", rows + bad, MADE)
    said = pleo("check", lake, "--no-incident", "--since", "30d", "--json")
    (found,) = json.loads(said.out)["breaches"]
    assert (found["company_id"], found["figures"]["failed"]) == (company(7), 10)
    assert found["figures"]["q"] <= 0.01


def test_a_company_that_has_stopped_is_a_breach(pleo: Callable[..., Said], tmp_path: Path) -> None:
    """A company without exports for longer than its past explains is named, one that rests on weekends is not."""
    counts = {company(1): [(0, 10)] * 80 + [(0, 0)] * 4, company(2): [(0, 10)] * 83 + [(0, 0)]}
    lake = make_lake(tmp_path / "lake", history(counts), MADE)
    said = pleo("check", lake, "--no-silence", "--json")
    (found,) = json.loads(said.out)["breaches"]
    assert (said.code, found["check"], found["company_id"]) == (3, "no_silence", company(1))
    with connect(lake) as con:
        row = con.sql(f"FROM silences(company_id := '{company(1)}')").pl().row(0, named=True)
    assert found["figures"]["once_in_days"] == row["once_in_days"] > 2 * 365
    line = pleo("check", lake, "--no-silence").out
    assert line.startswith(f"{company(1)}: no new export for 4.62 days, since 2026-03-26 09:00 UTC; usually ")


def test_a_company_that_left_long_ago_is_no_breach_but_counted(
    pleo: Callable[..., Said], tmp_path: Path
) -> None:
    """After 60 days a silence is no breach any more, does not make others harder to judge, and is still mentioned."""
    works: list[tuple[int, int]] = [(0, 10)] * 60
    counts = {company(1): works + [(0, 0)] * 61, company(2): works + [(0, 0)] * 59, company(3): works * 2}
    lake = make_lake(tmp_path / "lake", history(counts), MADE)
    said = pleo("check", lake, "--no-silence", "--json")
    found = json.loads(said.out)
    assert [each["company_id"] for each in found["breaches"]] == [company(2)]
    assert (found["left"], found["judged"]["no_silence"]) == ([company(1)], 2)
    said = pleo("check", lake, "--no-silence")
    assert (
        "1 company has been silent for more than 60 days, which is no breach any more; list them with: "
        f'pleo-extract sql {lake} "from silences() where has_left"\n'
    ) in said.err
    assert "60 days" not in pleo("check", lake, "--no-silence", "--quiet").err
    with connect(lake) as con:
        assert con.sql("SELECT company_id FROM silences() WHERE has_left").fetchall() == [(company(1),)]


def test_data_that_is_too_old_is_a_breach_of_each_company(pleo: Callable[..., Said], tmp_path: Path) -> None:
    """The age of each company's data counts, one that was never read included; an error of its last run is printed."""
    now = datetime.now(UTC)
    lake = make_lake(
        tmp_path / "lake", history({A: [(0, 1)], B: [(0, 1)]}), now, names={A: "Acme", B: "Bolt"}
    )
    set_states(
        lake,
        A=SyncState(name="Acme", verdict="complete", data_as_of=now - timedelta(hours=9)),
        B=SyncState(name="Bolt", verdict="complete", data_as_of=now - timedelta(hours=1)),
    )
    said = pleo("check", lake, "--max-age", "4h")
    assert said.code == 3
    assert said.out.startswith(f"Acme ({A}): last read completely 9 hours ago, at ")
    assert said.out.endswith("; at most 4 hours are allowed\n")
    assert pleo("check", lake, "--max-age", "10h") == (
        0,
        f"{lake}: no breach; read completely 9 hours ago\n",
        "",
    )
    record = LastRun(
        run="r",
        ended_at=now,
        code=77,
        error=None,
        published=False,
        last_complete_at=None,
        seconds_since_complete=None,
        receipt=Receipt().to_dict(),
        failed={"Acme": [77, "key\x1b[31m refused"], "New": [75, "no answer"]},
    )
    (lake / "_lake/last_run.json").write_bytes(msgspec.json.encode(record))
    never, acme = pleo("check", lake, "--max-age", "4h").out.splitlines()
    assert never == (
        "New: never read completely; at most 4 hours are allowed. The last run ended with 75: no answer"
    )
    assert acme.endswith("The last run ended with 77: key\\x1b[31m refused")


def test_a_lake_that_was_never_read_is_too_old(pleo: Callable[..., Said], tmp_path: Path) -> None:
    """Without a snapshot its age is a breach; other limits give 75: it may be the folder of a disk that is not mounted."""
    said = pleo("check", tmp_path, "--max-age", "4h", "--max-failure-rate", "1%", "--no-incident")
    assert (said.code, said.out.count("\n")) == (3, 1)
    assert "never read completely" in said.out
    said = pleo("check", tmp_path, "--max-failure-rate", "1%", "--no-incident")
    assert (said.code, said.out, "no snapshot yet" in said.err) == (75, "", True)


def test_a_check_of_nothing_is_a_wrong_usage(pleo: Callable[..., Said], tmp_path: Path) -> None:
    """Without a limit, or with a share that is none, the command ends with 2: it does not pass in silence."""
    assert pleo("check", tmp_path).code == 2
    for share in ("10", "100%", "-1%", "nan", "a tenth", ""):
        said = pleo("check", tmp_path, "--max-failure-rate", share)
        assert (said.code, "write 10%, or 0.1 (in a crontab, where % ends a command)" in said.err) == (
            2,
            True,
        ), share


def test_one_second_is_no_plural(pleo: Callable[..., Said], tmp_path: Path) -> None:
    """A limit of 1 is named in the singular."""
    lake = make_lake(tmp_path / "lake", history({A: [(1, 1)]}), MADE)
    assert pleo("check", lake, "--max-age", "1s").out.endswith("; at most 1 second is allowed\n")
