"""Tests of the command line: what each command prints, the code it ends with, and that it never prints a secret."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import polars as pl
import pytest
from canary import CANARY
from lakes import list_months, lose_month, spoil_month

from pleo_extract import (
    COLUMNS,
    Client,
    Lake,
    Query,
    connect,
    dump_accounts,
    dump_export_jobs,
    fetch_page,
    iter_export_jobs,
    load_export_jobs,
    scan_lake,
)
from pleo_extract.answers.doors import connect_to_ask
from pleo_extract.cli.metrics import write_metrics
from pleo_extract.client import choose_shard, read_accounts
from pleo_extract.contract import POLARS_SCHEMA
from pleo_extract.core.decode import parse_page
from pleo_extract.core.state import AccountKey, SyncState
from pleo_extract.errors import ConfigurationError, LakeError, TryLater, UsageError, amount
from pleo_extract.lake.layout import Layout
from pleo_extract.lake.lock import hold_lock
from pleo_extract.lake.record import LastRun
from pleo_extract.report import write_report
from pleo_extract.sandbox import API_KEY, Rules, Sandbox, World, serve
from pleo_extract.sync.receipt import Receipt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from conftest import Said

    from pleo_extract.sandbox import Served


COMPANY = "6f1f2c1e-8f5b-4a53-9f0a-0d3c6f0a7b11"
SAMPLE = Path(__file__).parent.parent / "data/sample"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """Serve a sandbox on loopback, and point the environment to it."""
    sandbox = Sandbox(World(jobs=1_000), api_keys={CANARY: None, API_KEY: None})
    with serve(sandbox) as running:
        monkeypatch.setenv("PLEO_API_KEY", CANARY)
        monkeypatch.setenv("PLEO_BASE_URL", running.url)
        yield running


def test_dump_status_plan_verify_sql(pleo: Callable[..., Said], served: Served, tmp_path: Path) -> None:
    """Dump, status, plan, verify and sql print what a scheduler and an analyst need to know."""
    lake = tmp_path / "lake"
    plan = pleo("plan", lake)
    assert plan.code == 0
    assert "full sync (first dump): 1,000 jobs at the server, 0 in the lake" in plan.out
    assert "10 to 20 requests" in plan.out
    dump = pleo("dump", lake, "--rate", 100_000)
    assert dump.code == 0
    assert "1,000 jobs, snapshot 1" in dump.out
    assert "complete, full sync (first dump): 1,000 jobs" in dump.out
    again = pleo("dump", lake, "--rate", 100_000)
    assert "nothing new" in again.out
    assert ", incremental sync: " in again.out
    assert "incremental sync: 1,000 jobs at the server, 1,000 in the lake" in pleo("plan", lake).out
    status = pleo("status", lake)
    assert status.code == 0
    for words in ("1,000, 2 of them open", "last run", "code 0", "next full sync", served.url):
        assert words in status.out, words
    reported = json.loads(pleo("status", lake, "--json").out)
    assert (reported["rows"], reported["snapshot"], reported["last_run"]["code"]) == (1_000, 1, 0)
    assert "all intact" in pleo("verify", lake).out
    answer = pleo(
        "sql", "--lake", lake, "select count(*) as n from export_jobs where status = $s", "-p", "s=failed"
    )
    assert answer.code == 0
    assert "n" in answer.out


@pytest.fixture
def lake_and_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, pytest.MonkeyPatch]:
    """Return a folder for the lake, and the environment."""
    return tmp_path, monkeypatch


@pytest.mark.parametrize(
    ("key", "faults", "words", "code"),
    [
        ("plp_wrong", "", (), 77),
        (None, "", (), 77),
        (CANARY, "1:redirect", (), 76),
        (CANARY, "2-:html", (), 76),
        (CANARY, "1-:reset", ("--deadline", "0.4"), 75),
        (CANARY, "", ("--max-requests", "3"), 75),
        (CANARY, "", ("--base-url", "http://example.test"), 78),
        (CANARY, "", ("--base-url", "https://user:pass@example.test"), 78),
        (CANARY, "", ("--company-id", "acme"), 2),
        (CANARY, "", ("--full-every", "often"), 2),
        (CANARY, "3:badrow.float", (), 65),
    ],
)
def test_one_cause_one_code_one_line(
    key: str | None,
    faults: str,
    words: tuple[str, ...],
    code: int,
    pleo: Callable[..., Said],
    lake_and_environment: tuple[Path, pytest.MonkeyPatch],
) -> None:
    """Each error has its code and one line on stderr; the lake is published completely or not at all."""
    tmp_path, monkeypatch = lake_and_environment
    sandbox = Sandbox(World(jobs=600), faults=faults, api_keys={CANARY: None})
    with serve(sandbox) as running:
        monkeypatch.setenv("PLEO_BASE_URL", running.url)
        if key is not None:
            monkeypatch.setenv("PLEO_API_KEY", key)
        said = pleo("dump", tmp_path / "lake", "--rate", 100_000, "--quiet", *words)
    assert said.code == code
    assert said.out == ""
    lines = said.err.strip().splitlines()
    assert lines[-1].startswith(("pleo-extract: ", "Error: "))
    assert len(lines) == 1 or code == 2
    assert (tmp_path / "lake/_lake/current").exists() == (code == 65)


@pytest.mark.parametrize("command", ["dump", "plan", "status", "verify", "repair", "report"])
def test_a_lake_without_a_name_is_refused(command: str, pleo: Callable[..., Said]) -> None:
    """`pleo-extract dump "$LAKE"` with LAKE unset ends with 2, and does not create a lake in the current folder."""
    said = pleo(command, "")
    assert said.code == 2
    assert "empty; is a variable not set?" in said.err


def test_a_lake_has_a_folder_of_its_own(pleo: Callable[..., Said], served: Served, tmp_path: Path) -> None:
    """The root, a file, or a folder with other files is refused before a request is sent or a file is written."""
    (tmp_path / "letter.txt").write_text("Dear")
    (tmp_path / "photo.jpg").write_text("")
    for place, code, says in (
        ("/", 2, "a folder of its own, not /"),
        (tmp_path / "letter.txt", 78, "is a file"),
        (tmp_path, 78, "not empty (it holds 'letter.txt' and 1 more)"),
    ):
        said = pleo("dump", place)
        assert (said.code, says in said.err) == (code, True), said.err
    assert served.sandbox.requests == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["letter.txt", "photo.jpg"]
    (tmp_path / "new").mkdir()
    (tmp_path / "new/.gitkeep").touch()
    assert pleo("dump", tmp_path / "new", "--rate", 100_000).code == 0
    (tmp_path / "new/note.txt").touch()  # other files beside a lake stay
    assert pleo("dump", tmp_path / "new", "--rate", 100_000).code == 0


def test_one_is_one(
    pleo: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, served: Served, tmp_path: Path
) -> None:
    """A count of one has a singular noun, and no message says to come back in 0 s."""
    said = pleo("dump", tmp_path / "lake", "--max-requests", 1)
    assert "limit of 1 request is reached" in said.err
    with serve(Sandbox(World(jobs=1, companies=1))) as running:
        monkeypatch.setenv("PLEO_API_KEY", API_KEY)
        said = pleo("dump", tmp_path / "one", "--base-url", running.url, "--rate", 100_000)
    assert "1 job, snapshot 1, 1 month written" in said.out
    assert "1 job on 1 page, " in said.out
    said = pleo("dump", tmp_path / "two", "--base-url", running.url, "--deadline", 0.001)
    assert "ome back in 1 s" in said.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--ca-file", "nowhere.pem"), "the CA file nowhere.pem does not exist"),
        (("--proxy", "foo"), "the proxy is not a URL; give http://HOST:PORT"),
        (("--proxy", "ftp://user:secret@host"), "the proxy is not a URL; give http://HOST:PORT"),
        (("--metrics", "nowhere/pleo.prom"), "there is no folder nowhere"),
    ],
)
def test_files_and_addresses_are_checked_at_the_door(
    words: tuple[str, str], says: str, pleo: Callable[..., Said], served: Served, tmp_path: Path
) -> None:
    """A setting that cannot be used is 78 before a request is sent, even if this server does not need it."""
    said = pleo("dump", tmp_path / "lake", *words)
    assert said.code == 78
    assert says in said.err
    assert "secret" not in said.err
    assert served.sandbox.requests == []
    assert not (tmp_path / "lake").exists()


def test_a_held_lake_is_69(pleo: Callable[..., Said], served: Served, tmp_path: Path) -> None:
    """The second run ends with 69, and its message names the process that holds the lake."""
    with hold_lock(Layout(tmp_path)):
        said = pleo("dump", tmp_path)
    assert said.code == 69
    assert str(os.getpid()) in said.err


def test_a_broken_lake_is_65(pleo: Callable[..., Said], served: Served, tmp_path: Path) -> None:
    """Verify names the damaged file."""
    pleo("dump", tmp_path, "--rate", 100_000)
    file = list_months(tmp_path)[-1]
    spoil_month(file, b"PAR1")
    said = pleo("verify", tmp_path)
    assert said.code == 65
    assert file.parent.name in said.out


def test_there_is_no_lake(pleo: Callable[..., Said], tmp_path: Path) -> None:
    """A question to a lake that does not exist says so, and ends with 65."""
    for words in (["status"], ["verify"], ["sql", "from export_jobs", "--lake"]):
        said = pleo(*words, tmp_path / "nowhere")
        assert said.code == 65
        assert "there is no lake" in said.err


def write_accounts(folder: Path, sandbox_url: str, companies: Sequence[str], broken: int) -> Path:
    """Write an accounts file; the key of company `broken` is not set."""
    entries = [f'base_url = "{sandbox_url}"']
    for number, company in enumerate(companies):
        source = 'api_key_env = "NOT_SET"' if number == broken else f'api_key_file = "key-{number}"'
        entries.append(
            f'[[account]]\nname = "Company {number}"\ncompany_id = "{company}"\nrate = 100000\n{source}'
        )
        key = folder / f"key-{number}"
        key.write_text(CANARY)
        key.chmod(0o600)
    path = folder / "accounts.toml"
    path.write_text("\n".join(entries))
    return path


def test_an_accounts_file_without_a_server_means_that_of_the_environment(
    served: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """PLEO_BASE_URL is the server of all accounts that name none; without it, production is."""
    accounts = write_accounts(tmp_path, "", served.sandbox.world.companies[:1], broken=-1)
    accounts.write_text(accounts.read_text().replace('base_url = ""\n', ""))
    monkeypatch.setenv("PLEO_BASE_URL", served.url)
    assert read_accounts(accounts)[0].server == served.url
    monkeypatch.delenv("PLEO_BASE_URL")
    assert read_accounts(accounts)[0].server == "https://external.pleo.io"


def test_shards_share_the_companies_and_a_table(
    pleo: Callable[..., Said], served: Served, tmp_path: Path
) -> None:
    """Every company is in exactly one shard; two processes write their shards to one Delta table at the same time."""
    companies = served.sandbox.world.companies
    accounts = write_accounts(tmp_path, served.url, companies, broken=-1)
    entries = read_accounts(accounts)
    parts = [choose_shard(entries, part, 2) for part in (1, 2)]
    assert sorted(each.company_id for part in parts for each in part) == sorted(companies)
    assert all(parts), "the test needs companies in both parts"
    command = [sys.executable, "-m", "pleo_extract", "dump", str(tmp_path / "table"), "--format", "delta"]
    runs = [
        subprocess.Popen(
            [
                *command,
                "--workspace",
                str(tmp_path / f"work-{part}"),
                "--accounts",
                str(accounts),
                "--shard",
                f"{part}/2",
            ],
            stdout=subprocess.PIPE,
        )
        for part in (1, 2)
    ]
    for run in runs:
        run.communicate(timeout=120)
    assert [run.returncode for run in runs] == [0, 0]
    found = pl.read_delta(str(tmp_path / "table"))
    assert sorted(found["company_id"].unique()) == sorted(companies)
    assert not served.sandbox.truth(found.select(COLUMNS).drop("extra").to_dicts(), served.sandbox.world.now)


def test_parts_in_python_are_those_of_the_command_line(served: Served, tmp_path: Path) -> None:
    """`dump_accounts` takes the accounts file and a shard; a shard without companies creates no lake."""
    companies = served.sandbox.world.companies
    accounts = write_accounts(tmp_path, served.url, companies, broken=-1)
    found = {}
    for part in (1, 2):
        _, receipts = dump_accounts(tmp_path / f"lake-{part}", accounts, shard=(part, 2), progress=False)
        assert [each.code for each in receipts] == [0] * len(receipts)
        found[part] = sorted(each.account.rpartition(" ")[2] for each in receipts)
        chosen = choose_shard(read_accounts(accounts), part, 2)
        assert found[part] == sorted(each.company_id for each in chosen)
    assert sorted(found[1] + found[2]) == sorted(companies)
    alone = write_accounts(tmp_path, served.url, found[1][:1], broken=-1)
    assert dump_accounts(tmp_path / "none", alone, shard=(2, 2))[1] == []
    assert not (tmp_path / "none").exists()
    with pytest.raises(UsageError, match="no part 3 of 2"):
        dump_accounts(tmp_path / "none", accounts, shard=(3, 2))


@pytest.mark.parametrize(
    ("shard", "parts"), [("0/2", 2), ("3/2", 2), ("9/3", 3), ("1", 4), ("1/0", 4), ("a/b", 4)]
)
def test_a_shard_that_is_none_is_refused(
    shard: str, parts: int, pleo: Callable[..., Said], tmp_path: Path
) -> None:
    """The message of a shard that does not exist names the valid ones."""
    said = pleo("dump", tmp_path / "lake", "--accounts", tmp_path / "none.toml", "--shard", shard)
    assert said.code == 2
    assert f"write 1/{parts} to {parts}/{parts}" in said.err
    assert pleo("dump", tmp_path / "lake", "--shard", "1/2").code == 2


def test_f15_one_company_fails_the_others_are_published(
    pleo: Callable[..., Said], served: Served, tmp_path: Path
) -> None:
    """If one of many companies has no key, the run names it and ends with its code; the others are published."""
    companies = served.sandbox.world.companies
    accounts = write_accounts(tmp_path, served.url, companies, broken=1)
    said = pleo("dump", tmp_path / "lake", "--accounts", accounts)
    assert said.code == 77
    assert ", Company 1: api_key_env NOT_SET is not set" in said.err
    assert f"{len(companies) - 1} of {len(companies)} companies are up to date" in said.out
    rows = pl.read_parquet(f"{tmp_path}/lake/**/*.parquet", hive_partitioning=False)
    asked = frozenset(companies) - {companies[1]}
    assert (
        served.sandbox.truth(rows.drop("extra").to_dicts(), served.sandbox.world.now, companies=asked) == []
    )
    status = pleo("status", tmp_path / "lake")
    assert "Company 1: 77" in status.out
    verdict = next(line for line in status.out.splitlines() if "verdict" in line)
    of = f"for {len(companies) - 1} of {len(companies)} companies: Company 1 failed with 77"
    assert verdict.split(maxsplit=1)[1] == f"complete {of}"
    page = tmp_path / "report.html"
    assert pleo("report", tmp_path / "lake", "--output", page).code == 0
    assert of in page.read_text()
    assert "older than that" not in page.read_text()
    mended = write_accounts(tmp_path, served.url, companies, broken=-1)
    served.sandbox.world.advance(86_400)
    said = pleo("dump", tmp_path / "lake", "--accounts", mended)
    assert said.code == 0
    rows = pl.read_parquet(f"{tmp_path}/lake/**/*.parquet", hive_partitioning=False)
    assert served.sandbox.truth(rows.drop("extra").to_dicts(), served.sandbox.world.now) == []
    names = pleo("sql", "--lake", tmp_path / "lake", "from companies", "--format", "csv").out
    assert f"{companies[0]},Company 0" in names


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("not toml", "is not TOML"),
        ("[[account]]\nname = 'x'\napi_key_env = 'K'", "account 1 (x): company_id is missing"),
        (
            f'[[account]]\nname = "a\\nb"\napi_key_env = "K"\ncompany_id = "{COMPANY}"',
            r"account 1 (a\nb): a name has no line break",
        ),
        ("base_url = 'production'", "no [[account]]"),
        ("[[account]]\nname = 'x'", "needs one of"),
        ("[[account]]\napi_key_env = 'K'\ncompany_id = 'acme'", "UUID"),
        ("[[account]]\napi_key = 'plp_in_the_file'", "unknown key 'api_key'"),
        (
            "[[account]]\napi_key_env = 'K'\ncompany_id = '6f1f2c1e-8f5b-4a53-9f0a-0d3c6f0a7b11'\nrate = 0",
            "rate",
        ),
    ],
)
def test_an_accounts_file_is_checked_first(
    content: str, says: str, pleo: Callable[..., Said], served: Served, tmp_path: Path
) -> None:
    """An accounts file that cannot be used is 78; the message names the entry, and no request is sent."""
    (tmp_path / "accounts.toml").write_text(content)
    said = pleo("dump", tmp_path / "lake", "--accounts", tmp_path / "accounts.toml")
    assert said.code == 78
    assert says in said.err
    assert len(said.err.splitlines()) == 1
    assert "plp_in_the_file" not in said.err
    assert served.sandbox.requests == []


def test_f55_a_key_file_open_to_others_is_refused(
    pleo: Callable[..., Said], served: Served, tmp_path: Path
) -> None:
    """A key file that others can read is a configuration error, and the message says how to correct it."""
    companies = served.sandbox.world.companies[:1]
    accounts = write_accounts(tmp_path, served.url, companies, broken=-1)
    (tmp_path / "key-0").chmod(0o644)
    said = pleo("dump", tmp_path / "lake", "--accounts", accounts)
    assert said.code == 78
    assert "chmod 600" in said.err


def test_logs_are_one_line_each_and_name_the_run(
    pleo: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The log is JSON lines with time, level, run and message; a text of the server cannot break a line."""
    sandbox = Sandbox(World(jobs=500), faults="3:503", api_keys={CANARY: None})
    monkeypatch.setenv("PLEO_API_KEY", CANARY)
    with serve(sandbox) as running:
        said = pleo(
            "dump",
            tmp_path,
            "--base-url",
            running.url,
            "--rate",
            100_000,
            "--log-format",
            "json",
            "--log-level",
            "info",
        )
    assert said.code == 0
    records = [json.loads(line) for line in said.err.splitlines()]
    assert {"time", "level", "run", "logger", "message"} == set(records[0])
    assert len({record["run"] for record in records}) == 1
    assert any("503" in record["message"] for record in records)


def test_metrics_are_written_by_runs_that_fail_too(
    pleo: Callable[..., Said], served: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A failed run updates its own metrics and keeps those of the lake and of the last success."""
    file = tmp_path / "pleo.prom"
    pleo("dump", tmp_path / "lake", "--rate", 100_000, "--metrics", file)
    first = dict(line.rsplit(" ", 1) for line in file.read_text().splitlines() if not line.startswith("#"))
    label = f'{{lake="{tmp_path / "lake"}"}}'
    assert first[f"pleo_extract_lake_rows{label}"] == "1000"
    assert first[f"pleo_extract_last_run_exit_code{label}"] == "0"
    monkeypatch.setenv("PLEO_API_KEY", "plp_wrong")
    assert pleo("dump", tmp_path / "lake", "--metrics", file).code == 77
    second = dict(line.rsplit(" ", 1) for line in file.read_text().splitlines() if not line.startswith("#"))
    assert second[f"pleo_extract_last_run_exit_code{label}"] == "77"
    success = f"pleo_extract_last_success_timestamp_seconds{label}"
    assert first[success] == second[success] != "0"
    assert second[f"pleo_extract_lake_rows{label}"] == "1000", "it failed, and the lake is as it was"


def test_f58_freshness_of_each_company(pleo: Callable[..., Said], served: Served, tmp_path: Path) -> None:
    """One invalid key of many stops `last_success`, but not the freshness of the other companies, nor the count of stale ones."""
    lake, file = tmp_path / "lake", tmp_path / "pleo.prom"
    companies = served.sandbox.world.companies
    accounts = write_accounts(tmp_path, served.url, companies, broken=-1)

    def read() -> dict[str, float]:
        lines = (line.rsplit(" ", 1) for line in file.read_text().splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in lines}

    def fresh(figures: dict[str, float]) -> list[float]:
        name = f'pleo_extract_account_data_as_of_timestamp_seconds{{lake="{lake}",company="'
        return [
            next(value for key, value in figures.items() if key.startswith(f"{name}{each}"))
            for each in companies
        ]

    assert pleo("dump", lake, "--accounts", accounts, "--metrics", file).code == 0
    first = read()
    assert first[f'pleo_extract_stale_accounts{{lake="{lake}"}}'] == 0
    (tmp_path / "key-0").write_text("plp_wrong")
    assert pleo("dump", lake, "--accounts", accounts, "--metrics", file).code == 77
    second = read()
    before, after = fresh(first), fresh(second)
    assert before[0] == after[0], "its key is dead"
    assert all(then < now for then, now in zip(before[1:], after[1:], strict=True))
    reported = json.loads(pleo("status", lake, "--json").out)
    by_company = {each["account"].rpartition(" ")[2]: each["data_as_of"] for each in reported["accounts"]}
    assert [datetime.fromisoformat(by_company[each]).timestamp() for each in companies] == pytest.approx(
        after
    )
    assert pleo("status", lake).out.count("for the stalest company") == 1


def test_f58_companies_that_are_stale(tmp_path: Path) -> None:
    """A company is stale if its data is more than a day old, was never complete, or is not in the lake yet."""
    ended = datetime(2026, 11, 3, tzinfo=UTC)
    run = LastRun(
        run="20261103T000000Z-x",
        ended_at=ended,
        code=77,
        error=None,
        published=True,
        last_complete_at=None,
        seconds_since_complete=None,
        receipt=Receipt().to_dict(),
        failed={"never read": [77, "x"], "old": [77, "x"]},
    )
    accounts = {
        AccountKey.of("https://a.example", "fresh"): SyncState(
            name='a "quoted"\n' + "x" * 5_000, data_as_of=ended - timedelta(hours=23)
        ),
        AccountKey.of("https://a.example", "old"): SyncState(
            name="old", data_as_of=ended - timedelta(hours=25)
        ),
        AccountKey.of("https://a.example", "part"): SyncState(),
    }
    write_metrics(tmp_path / "pleo.prom", "lake", run, accounts)
    lines = (tmp_path / "pleo.prom").read_text().splitlines()
    assert 'pleo_extract_stale_accounts{lake="lake"} 3' in lines
    series = [line for line in lines if line.startswith("pleo_extract_account_data_as_of")]
    assert len(series) == 4
    assert (
        series.pop(0)
        == 'pleo_extract_account_data_as_of_timestamp_seconds{lake="lake",company="",name="never read"} 0'
    )
    assert series[0].startswith(
        'pleo_extract_account_data_as_of_timestamp_seconds{lake="lake",company="fresh",name="a \\"quoted\\"'
    )
    assert max(map(len, series)) < 300
    assert series[2].endswith(" 0")


def test_status_counts_from_now(pleo: Callable[..., Said], served: Served, tmp_path: Path) -> None:
    """`seconds_since_complete` counts until the question, not until the last run ended."""
    lake = tmp_path / "lake"
    assert pleo("dump", lake, "--rate", 100_000).code == 0
    record = lake / "_lake/last_run.json"
    last = json.loads(record.read_text())
    then = datetime.now(UTC) - timedelta(days=59)
    record.write_text(json.dumps(last | {"ended_at": then.isoformat(), "last_complete_at": then.isoformat()}))
    assert last["seconds_since_complete"] == 0
    reported = json.loads(pleo("status", lake, "--json").out)
    assert reported["last_run"]["seconds_since_complete"] == pytest.approx(59 * 86_400, abs=600)


@pytest.mark.parametrize("kind", ["parquet", "delta"])
def test_a_run_that_fails_says_what_the_lake_has(
    kind: str,
    pleo: Callable[..., Said],
    served: Served,
    tmp_path: Path,
) -> None:
    """A failed run's receipt has the rows and the snapshot of the lake; if the lake cannot be opened, there is no number of rows."""
    lake, file = tmp_path / "lake", tmp_path / "pleo.prom"
    store = ("--workspace", tmp_path / "work") if kind == "delta" else ()
    companies = served.sandbox.world.companies
    accounts = write_accounts(tmp_path, served.url, companies, broken=-1)
    words = ("dump", lake, "--accounts", accounts, "--metrics", file, *store)
    assert pleo(*words, "--format", kind).code == 0
    for number in range(len(companies)):
        (tmp_path / f"key-{number}").write_text("plp_wrong")
    said = pleo(*words)
    assert said.code == 77
    assert "1,000 jobs, snapshot 1, nothing published\nincomplete, nothing read" in said.out
    assert f'pleo_extract_lake_rows{{lake="{lake}"}} 1000' in file.read_text().splitlines()
    options: dict[str, Any] = {"workspace": tmp_path / "work"} if kind == "delta" else {}
    _, receipts = dump_accounts(lake, accounts, progress=False, **options)
    assert [(each.code, each.lake_rows, each.snapshot) for each in receipts] == [(77, 1_000, 1)] * len(
        receipts
    )
    if kind == "delta":
        next(lake.glob("**/created_month=*/*.parquet")).unlink()
    else:
        lose_month(list_months(lake)[0])
    assert pleo(*words).code == 65
    assert "pleo_extract_lake_rows" not in file.read_text()


def test_a_dump_of_a_broken_lake_is_no_success(
    pleo: Callable[..., Said], served: Served, tmp_path: Path
) -> None:
    """It ends with 65, as rejected rows do, but does not count as a success, or no alert would notice it."""
    lake, file = tmp_path / "lake", tmp_path / "pleo.prom"
    pleo("dump", lake, "--rate", 100_000)
    lose_month(list_months(lake)[0])

    def read() -> str | None:
        last: str | None = json.loads((lake / "_lake/last_run.json").read_text())["last_complete_at"]
        return last

    before = read()
    for _ in range(2):
        assert pleo("dump", lake, "--rate", 100_000, "--metrics", file).code == 65
        assert read() == before
    success = next(
        line for line in file.read_text().splitlines() if line.startswith("pleo_extract_last_success")
    )
    assert before is not None
    assert float(success.rsplit(" ", 1)[1]) == pytest.approx(datetime.fromisoformat(before).timestamp())


@pytest.mark.parametrize(
    "command", [["verify"], ["status"], ["report"], ["sql", "from export_jobs", "--lake"]]
)
def test_a_folder_of_other_files_is_no_empty_lake(
    command: list[str], pleo: Callable[..., Said], tmp_path: Path
) -> None:
    """A wrong path is an error, or it would look like a lake without failures."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").write_text("mine")
    said = pleo(*command, tmp_path / "other")
    assert said.code == 65
    assert "is not a lake" in said.err


def test_status_tells_the_lakes_verdict_from_how_the_last_run_ended(
    pleo: Callable[..., Said], served: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A wrong key does not make the lake incomplete; a repair that lost a month does."""
    lake = tmp_path / "lake"
    pleo("dump", lake, "--rate", 100_000)
    monkeypatch.setenv("PLEO_API_KEY", "plp_wrong")
    assert pleo("dump", lake).code == 77
    verdict = next(line for line in pleo("status", lake).out.splitlines() if "verdict" in line)
    assert verdict.split()[1].startswith("complete")
    lose_month(list_months(lake)[0])
    pleo("repair", lake)
    verdict = next(line for line in pleo("status", lake).out.splitlines() if "verdict" in line)
    assert verdict.split()[1] == "incomplete"


@pytest.mark.parametrize(
    "place", ["server", "error", "failed name", "failed code", "failed error", "account"]
)
def test_f54_status_shows_no_control_character(
    place: str, pleo: Callable[..., Said], served: Served, tmp_path: Path
) -> None:
    """F54: control characters in a record or a manifest do not reach the terminal."""
    lake, hostile = tmp_path / "lake", "\x1b[2J\x9b31m\r\nforged"
    pleo("dump", lake, "--rate", 100_000)
    record, manifest = lake / "_lake/last_run.json", Layout(lake).manifest_file(1)
    reported = json.loads(record.read_text())
    reported["error"] = hostile if place == "error" else None
    reported["failed"] = {
        hostile if place == "failed name" else "Company 1": [
            hostile if place == "failed code" else 77,
            hostile if place == "failed error" else "no",
        ]
    }
    record.write_text(json.dumps(reported))
    named = json.loads(manifest.read_text())
    if place == "server":
        named["server"] += hostile
    if place == "account":
        named["accounts"] = {f"{served.url} {hostile}": each for each in named["accounts"].values()}
    manifest.write_text(json.dumps(named))
    said = pleo("status", lake)
    assert said.code in (0, 65)
    shown = (said.out + said.err).replace("\n", "")
    assert shown
    assert shown.isprintable()
    assert not [line for line in said.out.splitlines() if line.startswith("forged")]


def test_repair_says_what_it_did(pleo: Callable[..., Said], served: Served, tmp_path: Path) -> None:
    """Repair prints what it did, for a lost month and for a manifest that contradicts its files, or that it did nothing."""
    lake = tmp_path / "lake"
    lake.mkdir()
    assert pleo("repair", lake).out == f"{lake}: nothing needed repair, nothing was published yet\n"
    pleo("dump", lake, "--rate", 100_000)
    said = pleo("repair", lake)
    assert (said.code, said.err) == (0, "")
    assert said.out == f"{lake}: nothing needed repair, snapshot 1 is intact\n"
    lose_month(list_months(lake)[0])
    said = pleo("repair", lake)
    assert (said.code, "nothing needed repair" in said.out) == (0, False)
    assert "snapshot 2 was made from" in said.out
    manifest = Layout(lake).manifest_file(2)
    reported = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**reported, "rows": reported["rows"] + 1}))
    said = pleo("repair", lake)
    assert (said.code, "nothing needed repair" in said.out) == (0, False)
    assert pleo("verify", lake).code == 0


def test_a_lake_without_jobs_is_noted(pleo: Callable[..., Said], tmp_path: Path) -> None:
    """A question to a lake without jobs prints a note, because the answer is empty."""
    (tmp_path / "lake").mkdir()
    said = pleo("sql", "from failure_rates('month')", "--lake", tmp_path / "lake")
    assert said.code == 0
    assert "there is no job in" in said.err


def test_sql_reads_only_the_lake(pleo: Callable[..., Said], served: Served, tmp_path: Path) -> None:
    """A query can read only the lake and the paths of --allow, and cannot write."""
    pleo("dump", tmp_path / "lake", "--rate", 100_000)
    (tmp_path / "own.csv").write_text("a\n1\n")
    query = f"select * from read_csv('{tmp_path / 'own.csv'}')"
    assert pleo("sql", "--lake", tmp_path / "lake", query).code == 2
    assert pleo("sql", "--lake", tmp_path / "lake", "--allow", tmp_path, query).code == 0
    target = tmp_path / "lake/out.csv"
    assert pleo("sql", "--lake", tmp_path / "lake", f"copy export_jobs to '{target}'").code == 2
    assert not target.exists()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_f36_signals_keep_what_was_fetched(number: signal.Signals, code: int, tmp_path: Path) -> None:
    """SIGTERM and Ctrl-C end a dump with their code; fetched pages are kept, and the next run continues with them."""
    sandbox = Sandbox(World(jobs=5_000), rules=Rules(latency=0.1))
    with serve(sandbox) as running:
        environment = os.environ | {"PLEO_API_KEY": API_KEY, "PLEO_BASE_URL": running.url}
        command = [
            sys.executable,
            "-m",
            "pleo_extract",
            "dump",
            str(tmp_path),
            "--rate",
            "100000",
            "--in-flight",
            "2",
        ]
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        while len(sandbox.requests) < 12:
            assert process.poll() is None
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
        assert process.returncode == code
        assert "fetched pages are kept" in err
        assert not (tmp_path / "_lake/current").exists()
        last = json.loads((tmp_path / "_lake/last_run.json").read_text())
        word = "terminated" if number == signal.SIGTERM else "interrupted"
        assert (last["code"], last["error"]) == (code, word)
        asked = len(sandbox.requests)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "5,000 jobs" in done.stdout
    # Two pages on their way, a probe, and one more; and the closing reads: the open jobs, the head, one at its rank.
    assert len(sandbox.requests) - asked <= 50 - asked + 4 + 3
    assert json.loads((tmp_path / "_lake/last_run.json").read_text())["receipt"]["resumed"]


@pytest.mark.parametrize(("number", "word"), [(signal.SIGTERM, "terminated"), (signal.SIGINT, "interrupted")])
def test_f36_a_signal_after_the_snapshot_says_that_it_was_published(
    number: signal.Signals, word: str, served: Served, tmp_path: Path
) -> None:
    """A signal after the publish says that the snapshot was published: there are no pages to continue from."""
    program = (
        "import os, sys; from pleo_extract.cli import main; from pleo_extract.sync import run; "
        f"run.renew_catalogue = lambda *_, **__: os.kill(os.getpid(), {int(number)}); main()"
    )
    command = [sys.executable, "-c", program, "dump", str(tmp_path / "lake"), "--rate", "100000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 128 + number
    assert done.stderr.splitlines()[-1] == f"pleo-extract: {word}; snapshot 1 was published"
    last = json.loads((tmp_path / "lake/_lake/last_run.json").read_text())
    assert (last["published"], last["error"]) == (True, word)
    assert served.sandbox.requests


def test_a_wrong_key_of_an_account_is_named_by_its_place(
    pleo: Callable[..., Said], served: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The message names the account's own variable, the run and the company, each once."""
    companies = served.sandbox.world.companies[:2]
    accounts = write_accounts(tmp_path, served.url, companies, broken=1)
    for key, says in (
        ("plp_wrong", "Check NOT_SET"),
        (f"{CANARY}\n", "NOT_SET: the credential begins or ends with a space or a line break"),
        (f"{CANARY} {CANARY}", "NOT_SET: the credential has a space or a line break in it"),
    ):
        monkeypatch.setenv("NOT_SET", key)
        said = pleo("dump", tmp_path / "lake", "--accounts", accounts, "--rate", 100_000)
        assert said.code == 77
        (line,) = [each for each in said.err.splitlines() if each.startswith("pleo-extract: ")]
        assert says in line
        assert "PLEO_API_KEY" not in line
        assert line.count("Company 1") == 1
        run = json.loads((tmp_path / "lake/_lake/last_run.json").read_text())["receipt"]["run"]
        assert line.startswith(f"pleo-extract: run {run}, Company 1: ")
        assert "asked for" not in said.out


@pytest.mark.parametrize("key", ["plp_x\n", " plp_x", "plp x", "plp\rx"])
def test_a_key_with_spaces_is_named(
    key: str, pleo: Callable[..., Said], served: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A space or line break in a key is named, with the variable that has it."""
    monkeypatch.setenv("PLEO_API_KEY", key)
    said = pleo("dump", tmp_path / "lake")
    assert said.code == 77
    assert "PLEO_API_KEY" in said.err
    assert "a space or a line break" in said.err
    assert served.sandbox.requests == []


def test_a_plan_counts_what_was_asked_just_before(
    pleo: Callable[..., Said], served: Served, tmp_path: Path
) -> None:
    """After a run that used most of a minute's requests, the estimate includes the wait for the rest of that minute."""

    def soonest() -> int:
        line = pleo("plan", tmp_path / "lake", "--rate", 50).out.splitlines()[1]
        number = re.search(r"\d+", line.split("; ")[1].split(" to ")[0])
        assert number is not None
        return int(number[0])

    before = soonest()
    with Client() as client:
        run = client.start_session()
        for _ in range(45):
            run.fetch(Query(limit=1), parse_page)
    assert before < soonest() <= 61


@contextlib.contextmanager
def sandbox_process(*words: str) -> Iterator[Callable[[], datetime]]:
    """Run `pleo-extract sandbox` on a free port; yield a function that returns the creation time of its newest job."""
    command = [sys.executable, "-m", "pleo_extract", "sandbox", "--port", "0", "--jobs", "1000", *words]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        url = next(word for word in process.stdout.readline().split() if word.startswith("http"))

        def ask() -> datetime:
            with Client(url.rstrip(";"), api_key=API_KEY) as client:
                query = Query(limit=1, sorting_keys=["createdAt"], sorting_order=["DESC"])
                newest: datetime = fetch_page(query, client=client).frame["created_at"][0]
            return newest

        try:
            yield ask
        finally:
            process.terminate()


def test_the_sandboxs_clock_is_the_machines(tmp_path: Path, pleo: Callable[..., Said]) -> None:
    """The newest job of a sandbox and of a demo is recent, or close to --now, and never in the future."""
    now = datetime.now(UTC)
    with sandbox_process() as newest:
        assert now - timedelta(days=14) < newest() <= datetime.now(UTC)
    with sandbox_process("--now", "2025-03-01T12:00:00+01:00") as newest:
        assert datetime(2025, 2, 15, tzinfo=UTC) < newest() < datetime(2025, 3, 2, tzinfo=UTC)
    for words, latest in (((), now), (("--now", "2025-03-01"), datetime(2025, 3, 1, tzinfo=UTC))):
        assert pleo("demo", "--out", tmp_path / f"demo{len(words)}", "--jobs", 2000, *words).code == 0
        jobs = scan_lake(tmp_path / f"demo{len(words)}").select(pl.col("created_at").max()).collect()
        assert latest - timedelta(days=7) < jobs.item() < latest + timedelta(hours=1)
    said = pleo("sandbox", "--now", "soon")
    assert (said.code, "'soon' is not an instant; write 2026-11-01" in said.err) == (2, True)


def test_a_port_that_is_taken_is_named(pleo: Callable[..., Said], served: Served) -> None:
    """A sandbox on a used port ends with 78 and one line that says what to do."""
    port = served.url.rpartition(":")[2]
    said = pleo("sandbox", "--port", port, "--jobs", 10)
    assert (said.code, said.out) == (78, "")
    assert said.err == (
        f"pleo-extract: port {port} is in use by another program, perhaps another sandbox. Choose another with "
        "--port N, or --port 0 for any that is free\n"
    )


def test_a_files_name_says_how_to_write_it(pleo: Callable[..., Said], tmp_path: Path) -> None:
    """The extension of the file sets the format, and --format overrides it; for an unknown one, the message lists the known ones."""
    ask = ("sql", "select 1 as n", "--lake", SAMPLE, "-o")
    for name, begins in (
        ("x.csv", b"n\n1"),
        ("x.JSON", b"["),
        ("x.parquet", b"PAR1"),
        ("x.txt", b"n"),
        ("x.xlsx", b"PK"),
    ):
        assert pleo(*ask, tmp_path / name).code == 0
        assert (tmp_path / name).read_bytes().replace(b"\r", b"").lstrip().startswith(begins), name
    assert pleo(*ask, tmp_path / "y.csv", "--format", "json").code == 0
    assert json.loads((tmp_path / "y.csv").read_text()) == [{"n": 1}]
    for name in ("x.ods", "x"):
        said = pleo(*ask, tmp_path / name)
        assert said.code == 2
        for known in (
            ".csv (csv), .json (json), .parquet (parquet), .txt (table) or .xlsx (xlsx)",
            "--format: table, csv, json, parquet, xlsx, excel-csv",
        ):
            assert known in said.err
        assert not (tmp_path / name).exists()
        assert pleo(*ask, tmp_path / name, "--format", "csv").code == 0


def test_a_misspelt_name_is_helped(pleo: Callable[..., Said]) -> None:
    """`--describe` of an unknown name suggests similar names and how to list all; `--list` has all of them."""
    said = pleo("sql", "--describe", "failure_rate")
    assert (said.code, said.out) == (2, "")
    assert "did you mean failure_rates" in said.err
    assert "pleo-extract sql --list" in said.err
    listed = pleo("sql", "--list").out
    for name in ("companies", "export_jobs", "job_durations", "snapshot", "failure_rates("):
        assert f"\n{name}" in f"\n{listed}"
        assert pleo("sql", "--describe", name.strip("(")).code == 0


def test_what_an_answer_cannot_be_asked_is_said(pleo: Callable[..., Said]) -> None:
    """A span that ends before it begins and an invalid quantile are 2, with one line."""
    for query, words in (
        (
            "from failure_rates('month', since := '2026-09-01', until := '2026-03-01')",
            "is not before until 2026-03-01",
        ),
        ("from slow_jobs(99)", "invalid q 99.0: use a quantile from 0 to 1"),
    ):
        said = pleo("sql", "--lake", SAMPLE, query)
        assert (said.code, said.out, words in said.err) == (2, "", True), said.err


def test_plan_of_many_companies(pleo: Callable[..., Said], served: Served, tmp_path: Path) -> None:
    """The plan sends one request for each company, prints a row each and a total, and names a company that it cannot ask."""
    companies = served.sandbox.world.companies
    accounts = write_accounts(tmp_path, served.url, companies, broken=-1)
    said = pleo("plan", tmp_path / "lake", "--accounts", accounts)
    assert said.code == 0
    assert len(served.sandbox.requests) == len(companies)
    assert not (tmp_path / "lake").exists()
    head, _, *lines, _, total = said.out.splitlines()
    assert head.split("  ")[0] == "company"
    counts = [int(line.split()[3].replace(",", "")) for line in lines]
    assert [line.split()[:3] for line in lines] == [
        ["Company", str(n), "full"] for n in range(len(companies))
    ]
    assert sum(counts) == 1_000
    assert total.split() == [str(len(companies)), "together", "1,000", "0", *total.split()[-3:]]
    assert pleo("dump", tmp_path / "lake", "--accounts", accounts).code == 0
    again = pleo("plan", tmp_path / "lake", "--accounts", accounts)
    assert again.out.count("incremental") == len(companies)
    broken = write_accounts(tmp_path, served.url, companies, broken=2)
    said = pleo("plan", tmp_path / "lake", "--accounts", broken)
    assert said.code == 77
    assert said.err.startswith("pleo-extract: Company 2: api_key_env NOT_SET is not set")
    assert f"{len(companies) - 1} together" in said.out
    assert pleo("plan", tmp_path / "lake", "--accounts", broken, "--base-url", served.url).code == 2


SAMPLE = Path(__file__).parent.parent / "data" / "sample"


def test_no_output_goes_into_a_lake(pleo: Callable[..., Said], tmp_path: Path) -> None:
    """Programs that read a lake's folder take each file there for data, unless its name begins with _ or a dot."""
    lake = shutil.copytree(SAMPLE, tmp_path / "lake")
    for command in (
        ["sql", lake, "from stuck_jobs()", "-o", lake / "x.csv"],
        ["changes", lake, "-o", lake / "created_month=2026-01" / "x.csv"],
        ["report", lake, "-o", lake / "report.html"],
        ["catalogue", lake, "-o", lake / "x.duckdb"],
        ["dump", lake, "--metrics", lake / "pleo.prom"],
    ):
        said = pleo(*command)
        assert (said.code, f"is in the lake {lake}" in said.err) == (2, True), said
    assert pleo("sql", lake, "from stuck_jobs()", "-o", lake / "_stuck.csv").code == 0
    assert pd.read_parquet(lake).shape[0] == 3_000


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("select statu from export_jobs", 'Candidate bindings: "status"'),
        ("from failure_rate('week')", "there is no view or macro 'failure_rate'; did you mean failure_rates"),
        ("from zzz()", "there is no view or macro 'zzz'; there are attempts, companies,"),
        ("from vanish", "did you mean vanished or"),
        ("from within('month')", "to DOUBLE; arguments without a name come in the order that"),
        (
            "from within('all', 600)",
            "invalid grain 600: use hour, day, week, month, quarter, year or all; arguments w",
        ),
        (
            "from failure_rates(per_compny := false)",
            "failure_rates has no argument per_compny; did you mean per_company? failure_rates(grain",
        ),
        (
            "from within(secs := 5)",
            "within has no argument secs; did you mean seconds? within(seconds := 600",
        ),
        ("from backlog(x := 1)", "backlog has no argument x: backlog(as_of"),
        ("from backlog(1, 2, 3, 4, 5, 6)", "backlog has no such argument, or not as many: backlog(as_of"),
        ("from export_jobs()", "export_jobs is a view: name it without parentheses, FROM export_jobs"),
        (
            "select failure_rates('month')",
            "failure_rates gives a table: write FROM failure_rates(…), not SELECT",
        ),
        ("from failure_rates('month'", "pleo-extract: a parenthesis is opened and not closed"),
        ("from failure_rates('month'))", 'syntax error at or near ")"'),
        ("from export_jobs\nwher status = 'failed'\n", 'syntax error at or near "status" in line 2\n'),
        ("from failure_rates(per_company := no)", "no column no; per_company := takes true or false\n"),
        ("from failure_rates(grain := month)", "grain := takes a text in single quotes: 'month'\n"),
        ("from within('10 minutes')", "durations are numbers of seconds, as in within(600)\n"),
        ("select\n'abc\nfrom export_jobs", "pleo-extract: unterminated string literal in line 2\n"),
        ("select (\n (1), (2\n", "pleo-extract: a parenthesis is opened in line 2 and not closed\n"),
        (
            "from export_jobs where created_at > 2026-09-01",
            "write a date in single quotes, as in '2026-11-01'\n",
        ),
        (
            "select status from export_jobs where count(*) > 1",
            "write that condition as HAVING, after GROUP BY\n",
        ),
        (
            "select datediff(created_at, started_at) from export_jobs",
            "but datediff(part VARCHAR, startdate TIMESTAMP WITH TIME ZONE, enddate TIMESTAMP WITH TIME ZONE)",
        ),
        ("", "pleo-extract: the query is empty\n"),
        ("-", "pleo-extract: to read the query from stdin, write --file -\n"),
        ("select x'é'", "contains a non-hexadecimal character"),
        ("select 'caf\udce9'", "pleo-extract: the query is not valid UTF-8"),
        ("select failed from first_pass('all')", "single quotes: 'failed'. Candidate bindings: \""),
        (
            'from export_jobs where status = "failed"',
            "if it is a status, write it in single quotes: 'failed'",
        ),
        ("from failure_rates('week', compny := 'x')", "failure_rates(grain := 'month', company_id := NULL"),
        ("from failure_rates('week', tz := 'Mars/X')", "a name such as Europe/Copenhagen, or UTC"),
        (
            "from failure_rates('week', tz := 'Berlin')",
            "'Berlin' is no time zone; write a name such as Europe/Berlin",
        ),
        (
            "from failure_rates('week', since := '7d')",
            "write 2026-11-01 or 2026-11-01T08:00:00Z; current_date - 7 is a week ago",
        ),
        ("from failure_rates('fortnight')", "pleo-extract: invalid grain fortnight: use hour, day, week,"),
        ("from failure_rates(month)", "write it in single quotes: 'month'"),
        (
            "from failure_rates('month', since := '2026-13-01')",
            '"2026-13-01" is no time: write 2026-11-01 or',
        ),
        ("from stuck_jobs(as_of = '2026-01-01')", "an argument's name takes :=, as in since := '2026-11-01'"),
        ("from failure_rates('month', since := 'yesterday')", '"yesterday" is no time: write 2026-11-01 or'),
        (
            "failure_rates('all')",
            "a query begins with SELECT or FROM, as in FROM failure_rates(grain := 'month', ",
        ),
        ("select perod from failure_rates('all')", 'there is no column perod. Candidate bindings: "period"'),
        ("select company_name from failure_rates()", "--names adds it to the answer, beside company_id\n"),
        ("drop table export_jobs", "only SELECT is answered, this is DROP\n"),
        (
            "pivot export_jobs on status using count(*)",
            "the values of the PIVOT are missing: name them with ON x IN (…)",
        ),
    ],
)
def test_sql_says_what_may_have_been_meant(query: str, says: str, pleo: Callable[..., Said]) -> None:
    """The message of an unknown name suggests known ones; a refusal says in one line what was refused."""
    said = pleo("sql", "--lake", SAMPLE, query)
    assert said.code == 2
    assert says in said.err
    assert said.err.count("\n") == 1


def test_sql_may_begin_with_a_comment(pleo: Callable[..., Said]) -> None:
    """A comment at the start is no option."""
    said = pleo("sql", SAMPLE, "-- how many\nselect count(*) as n from export_jobs", "--format", "csv")
    assert (said.code, said.out.split()) == (0, ["n", "3000"])


@pytest.mark.parametrize("bound", ["current_date - 7", "now() - interval 7 days", "timestamptz '2026-09-01'"])
def test_a_query_that_counts_from_today_is_noted(pleo: Callable[..., Said], bound: str) -> None:
    """In a lake that was read long ago nothing is of the last days, which looks like a time without exports."""
    said = pleo("sql", SAMPLE, f"select count(*) from export_jobs where created_at > {bound}")
    noted = f"note: {SAMPLE} was last read at 2026-09-30 15:00 UTC, and the query counts from today\n"
    assert (said.code, said.err) == (0, "" if "2026" in bound else noted)


def test_a_file_in_the_place_of_a_folder_is_named(pleo: Callable[..., Said], tmp_path: Path) -> None:
    """An output below a file says that it is one."""
    (tmp_path / "file").write_text("")
    said = pleo("sql", SAMPLE, "select 1", "-o", tmp_path / "file" / "out.csv")
    assert said.code == 74
    assert f"the folder {tmp_path / 'file'} is a file" in said.err


NOBODY = "ACADEMIC-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    ("query", "words", "noted"),
    [
        (f"from failure_rates('all', company_id := '{NOBODY}')", (), NOBODY),
        ("select count(*) from export_jobs where company_id = $c", ("-p", "c=acme"), "acme"),
        ("from failure_rates('all') where company_id = 'Acme ApS'", (), "Acme ApS"),
        ("from failure_rates('all', company_id := $c)", ("-p", "c=943ED717-c36d-4aad-bf07-1747abb86545"), ""),
        ("select 'acme' as company_id", (), ""),
    ],
)
def test_sql_notes_a_company_without_jobs(
    query: str, words: tuple[str, ...], noted: str, pleo: Callable[..., Said]
) -> None:
    """If the lake has no job of a company that a query names, stderr says so, and the answer does not change."""
    said = pleo("sql", "--lake", SAMPLE, query, *words, "--format", "csv")
    assert said.code == 0
    way = f"list the UUIDs of its companies with: pleo-extract sql {SAMPLE} \"from failure_rates('all')\""
    assert said.err == (f"note: there is no job of company {noted} in {SAMPLE}; {way}\n" if noted else "")


def test_sql_says_how_much_it_leaves_out(pleo: Callable[..., Said]) -> None:
    """The last line of a table says how many rows there are, and how to get them all."""
    said = pleo("sql", "--lake", SAMPLE, "from export_jobs")
    assert said.out.endswith(
        "(the first 40 of 3,000 rows; texts are cut at 60 characters; all of it with --format csv)\n"
    ) or said.out.endswith("(the first 40 of 3,000 rows; all of it with --format csv)\n")


@pytest.mark.parametrize("form", ["csv", "json", "table"])
def test_a_reader_that_has_seen_enough_is_no_failure(form: str) -> None:
    """`pleo-extract sql … | head` ends with 0 and prints no error."""
    query = "select repeat('x', 50) as a from range(200000)" if form != "table" else "from export_jobs"
    command = [sys.executable, "-m", "pleo_extract", "sql", "--lake", str(SAMPLE), "--format", form, query]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        if form != "table":
            process.stdout.read(10)
        process.stdout.close()
        assert (process.stderr.read(), process.wait(60)) == (b"", 0)


def test_output_that_cannot_be_written_is_a_failure(tmp_path: Path) -> None:
    """If stdout cannot be written, the command ends with 74, even if that shows only in its last flush."""
    target = tmp_path / "out"
    # -B: Python itself would write truncated bytecode, and later processes would fail at it.
    command = ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh", sys.executable, "-B", "-m", "pleo_extract"]
    with target.open("wb") as out:
        done = subprocess.run([*command, "sql", "--list"], stdout=out, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 74
    assert target.stat().st_size == 0


@pytest.mark.parametrize("own", ["", "dirty_decay_ms:7"])
def test_freed_memory_is_given_back_soon_unless_told_otherwise(own: str) -> None:
    """The command line sets the variable before it imports polars; a value of the user stays."""
    code = (
        "import os, sys; import pleo_extract.cli as cli\n"
        "assert 'polars' not in sys.modules\n"
        "cli.main = lambda: sys.exit(print(os.environ['_RJEM_MALLOC_CONF']))\n"
        "cli.start()"
    )
    environment = {key: value for key, value in os.environ.items() if key != "_RJEM_MALLOC_CONF"}
    if own:
        environment["_RJEM_MALLOC_CONF"] = own
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == (own or "dirty_decay_ms:100,muzzy_decay_ms:0")


@pytest.mark.parametrize("kind", ["parquet", "delta"])
def test_changes_compares_the_last_two_snapshots(
    kind: str, pleo: Callable[..., Said], served: Served, tmp_path: Path
) -> None:
    """A lake with one snapshot is 2; with two, `changes` lists what differs, in any format and for both kinds of lake."""
    lake = tmp_path / "lake"
    dump = ("dump", lake, "--rate", 100_000, "--format", kind)
    assert pleo(*dump).code == 0
    said = pleo("changes", lake)
    assert (said.code, said.out) == (2, "")
    assert "has one snapshot and no earlier one to compare it with" in said.err
    served.sandbox.world.advance(86_400)
    assert pleo(*dump).code == 0
    shown, written = pleo("changes", lake), pleo("changes", lake, "--since", 1, "--format", "csv")
    assert (shown.code, written.code) == (0, 0)
    assert (shown.err, written.err) == ("from snapshot 1 to the current snapshot\n", "")
    until = pleo("changes", lake, "--since", 1, "--until", "2100-01-01T01:00:00+01:00")
    assert until.err == "from snapshot 1 to the snapshot of 2100-01-01 00:00 UTC\n"
    found = pl.read_csv(written.out.encode())
    assert found.columns == ["change", "status_before", *COLUMNS]
    assert f"({amount(found.height, 'row')}" in shown.out
    assert pleo("changes", lake, "--since", "soon").code == 2


def test_a_lake_without_a_snapshot(pleo: Callable[..., Said], served: Served, tmp_path: Path) -> None:
    """After a first dump that failed, every command says that nothing is published, and none invents a snapshot."""
    lake = tmp_path / "lake"
    assert pleo("dump", lake, "--max-requests", 2).code == 75
    verified, changed, shown = pleo("verify", lake), pleo("changes", lake), pleo("status", lake)
    assert (verified.code, changed.code) == (0, 75)
    assert "nothing is published yet" in verified.out
    assert "has no snapshot yet" in changed.err
    assert not re.search(r"server\s*$", shown.out, re.MULTILINE)


def test_a_first_dump_that_was_cut_is_no_empty_account(
    pleo: Callable[..., Said], served: Served, tmp_path: Path
) -> None:
    """Every door to the rows says that no dump has been completed, what is staged and what to run, and ends with 75."""
    lake = tmp_path / "lake"
    assert pleo("dump", lake, "--max-requests", 2).code == 75
    staged = Lake(lake).status().staged
    assert staged
    says = f"no dump to {lake} has been completed yet ({staged:,} rows staged); run: pleo-extract dump {lake}"
    for words in (
        ("sql", lake, "from failure_rates('month')"),
        ("report", lake, "-o", tmp_path / "page.html"),
        ("check", lake, "--no-incident"),
    ):
        said = pleo(*words)
        assert (said.code, said.out, said.err) == (75, "", f"pleo-extract: {says}\n")
    for read in (scan_lake, connect):
        with pytest.raises(TryLater, match=re.escape(says)):
            read(lake)
    assert pleo("check", lake, "--max-age", "1h").code == 3
    assert not (tmp_path / "page.html").exists()
    assert pleo("dump", lake, "--rate", 100_000).code == 0
    assert scan_lake(lake).select(pl.len()).collect().item() == 1_000


def test_a_since_that_is_too_late_is_noted(pleo: Callable[..., Said], served: Served, tmp_path: Path) -> None:
    """A bound after the instant at which the lake was read is named on stderr, because its answer is empty."""
    lake = tmp_path / "lake"
    assert pleo("dump", lake, "--rate", 100_000).code == 0
    says = f"note: 2999-01-01 is later than {lake} was read ("
    for query, more in (
        ("from failure_rates('month', since := '2999-01-01')", ()),
        ("from failure_rates('month', since => timestamptz '2999-01-01', tz := 'Asia/Tokyo')", ()),
        ("from failure_rates('month', since := $s)", ("-p", "s=2999-01-01")),
        ("from compare(since_a := '2020-01-01', since_b := '2999-01-01')", ()),
    ):
        said = pleo("sql", lake, query, *more)
        assert (said.code, said.err.count("note:")) == (0, 1)
        assert said.err.startswith(says)
    for since in ("2020-01-01", "nonsense"):
        assert "note:" not in pleo("sql", lake, f"select '{since}' as x, 'since := {since}' as y").err
    assert "note:" not in pleo("sql", lake, "from failure_rates('month', since := '2020-01-01')").err


def _concat_batches(since: str) -> pl.DataFrame:
    found: pl.DataFrame = pl.concat([pl.DataFrame(schema=POLARS_SCHEMA), *iter_export_jobs(since=since)])
    return found


@pytest.mark.parametrize("read", [load_export_jobs, _concat_batches])
def test_a_since_in_the_future_is_warned_of(
    read: Callable[..., pl.DataFrame], served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    """Reading the API from a day that is yet to come gives no rows and a warning; a day of the past gives none."""
    assert read(since="2999-01-01").is_empty()
    assert "since (2999-01-01 00:00:00+00:00) is in the future" in caplog.text
    caplog.clear()
    assert read(since="2000-01-01").height == 1_000
    assert not caplog.text


def test_a_deadline_that_cuts_a_run_is_named(
    pleo: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A run that its deadline ends while the server answers says so, and what is staged, in words of no library."""
    with serve(Sandbox(World(jobs=3_000), rules=Rules(latency=0.4, max_limit=100))) as running:
        monkeypatch.setenv("PLEO_API_KEY", API_KEY)
        monkeypatch.setenv("PLEO_BASE_URL", running.url)
        said = pleo("dump", tmp_path / "lake", "--deadline", "1.5", "--in-flight", 1)
        staged = Lake(tmp_path / "lake").status().staged
        alone = pleo("dump", tmp_path / "other", "--deadline", "0.2", "--in-flight", 1)
    assert (said.code, staged > 0) == (75, True)
    assert "this run's deadline of 1.5 s was reached before 127.0.0.1 had answered" in said.err
    assert f"{staged} rows are staged: run again to continue from them" in said.err
    assert "Nothing is staged: run again with a longer deadline" in alone.err
    assert "Timeout" not in said.err + alone.err


def test_names_of_other_companies_are_noted(
    pleo: Callable[..., Said], served: Served, tmp_path: Path
) -> None:
    """A names file without any company of the lake is named on stderr by sql, report and check; one with some is not."""
    lake, names = tmp_path / "lake", tmp_path / "names.csv"
    assert pleo("dump", lake, "--rate", 100_000).code == 0
    company = scan_lake(lake).select(pl.col("company_id").min()).collect().item()
    says = f"no company in {lake} has a name in the given names; the ids there begin with {company[:8]}"
    for named, is_strange in ((COMPANY, True), (company, False)):
        names.write_text(f"id,name\n{named},Acme\n")
        for words in (
            ("sql", lake, "select 1"),
            ("report", lake, "-o", tmp_path / "page.html", "--since", "2030-01-01"),
            ("check", lake, "--max-failure-rate", "99%"),
        ):
            said = pleo(*words, "--names", names)
            assert said.code == 0
            assert (says in said.err) == is_strange, said.err


def test_a_status_prints_as_the_command_does(
    pleo: Callable[..., Said], served: Served, tmp_path: Path
) -> None:
    """`print(lake.status())` shows what `pleo-extract status` shows, its repr is one line."""
    lake = tmp_path / "lake"
    assert pleo("dump", lake, "--max-requests", 2).code == 75
    assert repr(Lake(lake).status()) == f"<LakeStatus of {lake}: no snapshot yet>"
    assert pleo("dump", lake, "--rate", 100_000).code == 0
    assert f"{Lake(lake).status()}\n" == pleo("status", lake).out
    assert repr(Lake(lake).status()) == f"<LakeStatus of {lake}: 1,000 jobs, snapshot 1>"


def test_a_plan_of_nothing_is_no_range(pleo: Callable[..., Said], served: Served, tmp_path: Path) -> None:
    """Less than a second is said as such, and two ends that read the same are one number."""
    lines = pleo("plan", tmp_path / "lake").out
    assert " 0 s" not in lines
    assert "under 1 s to under 1 s" not in lines


@pytest.mark.parametrize("day", ["yesterday", "2026-13-01", "01.02.2026"])
def test_a_bad_day_of_a_report(pleo: Callable[..., Said], day: str) -> None:
    """A day that cannot be read is refused with an example, not with a format of strptime."""
    said = pleo("report", SAMPLE, "--since", day)
    assert said.code == 2
    assert "write 2026-11-01" in said.err
    assert "%Y" not in said.err


@pytest.mark.parametrize(
    ("query", "hint"),
    [
        (
            "from failure_rates",
            "failure_rates is a macro: call it with parentheses, FROM failure_rates(grain := 'month'",
        ),
        ("from failure_rates('month', per_company = false)", "write := after it, as in per_company := …"),
        (f"from '{__file__}'", f"open it with --allow {__file__}"),
        (f"from read_csv('{__file__}')", f"open it with --allow {__file__}"),
    ],
)
def test_sql_says_what_newcomers_miss(pleo: Callable[..., Said], query: str, hint: str) -> None:
    """DuckDB's own words for a macro without parentheses, a wrong `=` and a file outside the lake lead nowhere."""
    said = pleo("sql", SAMPLE, query)
    assert (said.code, said.out) == (2, "")
    assert hint in said.err


def test_sql_takes_the_lake_first_or_as_an_option(pleo: Callable[..., Said], tmp_path: Path) -> None:
    """The lake may be the first argument, as everywhere else; naming it twice or two queries are errors."""
    query = "select count(*) as n from export_jobs"
    script = tmp_path / "query.sql"
    script.write_text(query)
    for words in (
        (SAMPLE, query),
        (query, "--lake", SAMPLE),
        (SAMPLE, "-f", script),
        ("-f", script, "--lake", SAMPLE),
    ):
        said = pleo("sql", *words, "--format", "csv")
        assert (said.code, said.out.split()) == (0, ["n", "3000"]), said.err
    assert "named twice" in pleo("sql", SAMPLE, query, "--lake", SAMPLE).err
    swapped = pleo("sql", query, SAMPLE)
    assert (swapped.code, "the lake comes first, then the query" in swapped.err) == (2, True)
    for none in ((), (SAMPLE, query, query), (SAMPLE, query, "-f", script)):
        assert "give one query" in pleo("sql", *none).err


def test_output_says_what_it_wrote(pleo: Callable[..., Said], tmp_path: Path) -> None:
    """A file is written with one line on stderr: its name and its rows."""
    said = pleo("sql", SAMPLE, "from export_jobs", "-o", tmp_path / "jobs.csv")
    assert (said.code, said.out, said.err) == (0, "", f"{tmp_path / 'jobs.csv'}: 3,000 rows\n")


def test_a_company_has_both_names(pleo: Callable[..., Said], served: Served, tmp_path: Path) -> None:
    """Every command that takes a company takes it as --company-id and as --company."""
    lake, page = tmp_path / "lake", tmp_path / "page.html"
    company = served.sandbox.world.companies[0]
    assert pleo("dump", lake, "--rate", 100_000).code == 0
    for name in ("--company", "--company-id"):
        assert pleo("plan", lake, name, company).code == 0
        assert pleo("report", lake, name, company, "-o", page).code == 0


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "5x", "m", "", "1e999"])
def test_a_deadline_that_is_none(pleo: Callable[..., Said], tmp_path: Path, text: str) -> None:
    """A deadline is a time above 0, in seconds or with a unit."""
    said = pleo("dump", tmp_path / "lake", "--deadline", text)
    assert said.code == 2
    assert "--deadline" in said.err


@pytest.mark.parametrize("text", ["60", "60.5", "1m", "2h"])
def test_a_deadline_with_a_unit(pleo: Callable[..., Said], served: Served, tmp_path: Path, text: str) -> None:
    """Seconds may be written as a number, or as a span like everywhere else."""
    assert pleo("dump", tmp_path / "lake", "--deadline", text, "--rate", 100_000).code == 0


def test_a_dump_loads_only_what_it_uses(
    pleo: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The first dump writes a catalogue with DuckDB's engine alone; one that finds nothing new needs no DuckDB at all."""
    world = World(jobs=200, now=datetime(2026, 11, 1, tzinfo=UTC))
    heavy = {"duckdb", "_duckdb", "pyarrow", "httpx", "numpy", "pandas", "tqdm"}
    code = (
        "import sys; from pleo_extract import dump_export_jobs; "
        f"receipt = dump_export_jobs({str(tmp_path / 'lake')!r}, progress=False); "
        f"print(receipt.published, *sorted({heavy} & sys.modules.keys()))"
    )
    with serve(Sandbox(world, rules=Rules(tick=0), api_keys={API_KEY: None})) as running:
        monkeypatch.setenv("PLEO_API_KEY", API_KEY)
        monkeypatch.setenv("PLEO_BASE_URL", running.url)
        for expected in ("True _duckdb", "False"):
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            assert done.stdout.strip() == expected


@pytest.mark.usefixtures("each_transport")
@pytest.mark.parametrize("kind", ["port", "scheme"])
def test_a_server_that_cannot_be_reached_doubts_the_base_url(
    kind: str, pleo: Callable[..., Said], served: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A port that refuses, and https on an http port name the base URL, not the deadline."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = {
            "port": f"http://127.0.0.1:{nobody.getsockname()[1]}",
            "scheme": served.url.replace("http:", "https:"),
        }[kind]
        monkeypatch.setenv("PLEO_API_KEY", API_KEY)
        said = pleo("dump", tmp_path / "lake", "--base-url", url, "--deadline", "1")
    assert said.code == 75
    assert "; is the base URL right? See --base-url and PLEO_BASE_URL" in said.err
    assert "Nothing is staged: run again when the server can be reached" in said.err
    assert "longer deadline" not in said.err


def test_the_audit_is_shown_of_complete_runs_alone(
    pleo: Callable[..., Said], served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full sync of one run is certain; a run that was cut or refused, or an empty lake, has no line of the audit."""
    lake, metrics = tmp_path / "lake", tmp_path / "metrics.prom"
    words = "100 % chance that the last run would have noticed a deletion that a backdated job hides"
    assert pleo("dump", lake, "--metrics", metrics).code == 0
    assert words in pleo("status", lake).out
    assert "last_run_shift_chance{" in metrics.read_text()
    assert pleo("dump", lake, "--full", "--max-requests", 1, "--metrics", metrics).code == 75
    assert "chance that" not in pleo("status", lake).out
    assert "last_run_shift_chance{" not in metrics.read_text()
    monkeypatch.setenv("PLEO_API_KEY", "plp_of_nobody")
    assert pleo("dump", lake).code == 77
    assert "chance that" not in pleo("status", lake).out
    monkeypatch.setenv("PLEO_API_KEY", API_KEY)
    assert pleo("dump", lake).code == 0
    resumed = "0 % chance that the last run would have noticed a deletion that a backdated job hides: it continued pages"
    assert resumed in pleo("status", lake).out
    with serve(Sandbox(World(jobs=0))) as empty:
        monkeypatch.setenv("PLEO_API_KEY", API_KEY)
        assert pleo("dump", tmp_path / "none", "--base-url", empty.url).code == 0
    assert "chance that" not in pleo("status", tmp_path / "none").out


@pytest.mark.parametrize("lost", ["key", "both", "accounts"])
def test_a_run_without_a_credential_is_recorded(
    lost: str, pleo: Callable[..., Said], served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run without a usable credential or accounts file is in `status` and in the metrics; it makes no lake."""
    lake, metrics = tmp_path / "lake", tmp_path / "metrics.prom"
    assert pleo("dump", lake).code == 0
    before = Lake(lake).status()
    words: list[object] = []
    if lost == "key":
        monkeypatch.delenv("PLEO_API_KEY")
    elif lost == "both":
        monkeypatch.setenv("PLEO_ACCESS_TOKEN", "another")
    else:
        words = ["--accounts", tmp_path / "none.toml"]
    said = pleo("dump", lake, "--metrics", metrics, *words)
    code = 78 if lost == "accounts" else 77
    assert said.code == code
    after = Lake(lake).status()
    assert after.last_run is not None
    assert before.last_run is not None
    assert (after.last_run.code, after.last_run.published) == (code, False)
    assert after.last_run.error is not None
    assert after.last_run.error in said.err
    assert after.last_run.last_complete_at == before.last_run.last_complete_at
    assert f"code {code}: {after.last_run.error}" in pleo("status", lake).out
    text = metrics.read_text()
    assert re.search(rf"^pleo_extract_last_run_exit_code\{{.*\}} {code}$", text, re.MULTILINE)
    assert re.search(r"^pleo_extract_lake_rows\{.*\} 1000$", text, re.MULTILINE)
    assert pleo("dump", tmp_path / "new", *words).code == code
    assert not (tmp_path / "new").exists()


def test_a_refusal_beside_a_run_is_not_recorded(
    pleo: Callable[..., Said], served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a run is at work, its record is the one to come; a run without a credential leaves it alone."""
    assert pleo("dump", tmp_path).code == 0
    monkeypatch.delenv("PLEO_API_KEY")
    with hold_lock(Layout(tmp_path)):
        assert pleo("dump", tmp_path).code == 77
    last = Lake(tmp_path).status().last_run
    assert last is not None
    assert last.code == 0


HOME = "~/pleo/file"


@pytest.mark.parametrize(
    "words",
    [
        ("dump", HOME),
        ("dump", "~"),
        ("sql", HOME, "from export_jobs"),
        ("sql", SAMPLE, "from export_jobs", "-o", HOME),
        ("report", SAMPLE, "--names", HOME),
        ("dump", "lake", "--accounts", HOME),
        ("dump", "lake", "--metrics", HOME),
        ("dump", "lake", "--ca-file", HOME),
    ],
)
def test_a_home_folder_that_no_shell_expanded_is_refused(
    words: tuple[object, ...], pleo: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path that begins with a quoted ~ is refused, and makes no folder of that name."""
    monkeypatch.chdir(tmp_path)
    said = pleo(*words)
    assert said.code == 78
    assert "a shell turns ~ into the home folder, but not in quotes" in said.err
    assert list(tmp_path.iterdir()) == []


def test_the_doors_of_python_refuse_a_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The functions refuse what the commands refuse; at the end of a whole path, ~ is a name like any other."""
    monkeypatch.chdir(tmp_path)
    accounts = tmp_path / "accounts.toml"
    accounts.write_text(f'[[account]]\nname = "a"\napi_key_file = "{HOME}"\n')
    for go in (
        lambda: dump_export_jobs(HOME),
        lambda: Lake(HOME).status(),
        lambda: Client(api_key=API_KEY, ca_file=HOME),
        lambda: write_report(SAMPLE, HOME),
        lambda: read_accounts(accounts),
    ):
        with pytest.raises(ConfigurationError, match="a shell turns ~ into the home folder"):
            go()
    with pytest.raises(LakeError, match="there is no lake"):
        Lake(tmp_path / "~").status()


def test_a_file_in_place_of_a_month_is_repaired(
    pleo: Callable[..., Said], served: Served, tmp_path: Path
) -> None:
    """A dump that finds a file where a month's folder belongs advises a repair, which helps."""
    lake = tmp_path / "lake"
    assert pleo("dump", lake).code == 0
    month = min(lake.glob("created_month=*"))
    shutil.rmtree(month)
    month.write_text("mine")
    said = pleo("dump", lake)
    assert said.code == 65
    assert f"is a file where a lake keeps a folder; run: pleo-extract repair {lake}" in said.err
    assert pleo("repair", lake).code == 0
    assert pleo("dump", lake).code == 0


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "Free space on the disk and run again"),
        (errno.EROFS, "mounted read-only"),
        (errno.EACCES, "the right to write there"),
        (errno.EMFILE, "limit of open files"),
        (errno.EIO, "Repair the disk and run again"),
    ],
)
def test_the_advice_fits_the_error_of_the_disk(
    number: int, advice: str, pleo: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each error of the system comes with what helps against it; a root user can cause none of them otherwise."""
    monkeypatch.setenv("PLEO_API_KEY", CANARY)

    def fail(path: Path, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "mkdir", fail)
    said = pleo("dump", tmp_path / "lake", "--base-url", "http://127.0.0.1:9")
    assert said.code == 74
    assert os.strerror(number) in said.err
    assert advice in said.err


def test_a_file_above_the_lake_is_named(pleo: Callable[..., Said], served: Served, tmp_path: Path) -> None:
    """A lake below a file is refused with words about the path, not about the disk."""
    (tmp_path / "file").touch()
    said = pleo("dump", tmp_path / "file" / "lake")
    assert said.code == 74
    assert "A file is in the place of a folder: check the path" in said.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("dump", "lake", "--rate", "abc"), "abc is not a valid whole number."),
        (("dump", "lake", "--max-request", "1"), "Did you mean --max-requests?"),
        (("dump", "lake", "--quite"), "Did you mean --quiet?"),
        (
            ("sql", SAMPLE, "from export_jobs where status = $s", "-p", "t=failed"),
            "--param t: the query has no $t; it has $s",
        ),
        (("sql", SAMPLE, "from export_jobs", "-p", "t=failed"), "--param t: the query has no $t\n"),
    ],
)
def test_a_slip_is_named(words: tuple[object, ...], says: str, pleo: Callable[..., Said]) -> None:
    """A text for a number, a mistyped option and a parameter that a query does not have are named, each with a way out."""
    said = pleo(*words)
    assert said.code == 2
    assert says in said.err.replace("'", "")  # click 8.4 writes options in quotes
    assert "--max-request" not in said.err or "--quiet" not in said.err


def test_sql_notes_a_status_that_no_job_has(pleo: Callable[..., Said]) -> None:
    """A mistyped status is noted on stderr with the statuses that there are; one of the contract is not."""
    query = "select count(*) as n from export_jobs where status = "
    for words in ((f"{query}'fail'",), (f"{query}$s", "-p", "s=fail")):
        said = pleo("sql", SAMPLE, *words, "--format", "csv")
        assert (said.code, said.out.split()) == (0, ["n", "0"])
        assert said.err.startswith(
            "note: no job has the status 'fail'; there are completed, completed_with_errors, "
        )
    for status in ("failed", "pending", "in_progress"):
        assert pleo("sql", SAMPLE, f"{query}'{status}'").err == ""


def test_a_question_is_given_the_macros_that_it_names() -> None:
    """`sql` and `check` start sooner without the others; SQL that may need any of them has all."""
    macros = "select count(*) from duckdb_functions() where function_name in ('failure_rates', 'compare')"
    for asked, there in (
        ("from FAILURE_RATES('all')", 1),
        ("select 1", 0),
        ("from query('from failure' || '_rates()')", 2),
        ("from duckdb_functions()", 2),
        (None, 2),
    ):
        with connect_to_ask(asked, SAMPLE, None, {}) as con:
            assert con.sql(macros).fetchall() == [(there,)], asked
