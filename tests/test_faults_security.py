"""F48 to F55 in a dump, a load and the command line: nothing leaks, escapes or runs."""

from __future__ import annotations

import json
import logging
import os
import pickle
import re
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from canary import CANARY, found
from trial import Trial, edit_pages

from pleo_extract import connect, scan_lake, verify_lake
from pleo_extract.errors import LakeError, PleoExtractError, RejectedRows, UsageError, WalkError
from pleo_extract.sandbox import Rules, Sandbox, World, serve
from pleo_extract.sandbox.badrows import HOSTILE

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import FakeClock, Said

    from pleo_extract.sandbox import RequestLike, Response

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202e]")
"""The characters that no terminal or log may receive; tabs and line breaks are our own."""
COMPANY = "6f1f2c1e-8f5b-4a53-9f0a-0d3c6f0a7b11"
first_only = pytest.mark.parametrize("trial", ["first"], indirect=True)
GLOB = "a [b] *?"


def shown(error: BaseException) -> str:
    """Return an error with the locals of all frames of the library, as a careless reporter sends it."""
    parts = [repr(error), str(vars(error))]
    seen: BaseException | None = error
    while seen is not None:
        for frame, _ in traceback.walk_tb(seen.__traceback__):
            if "pleo_extract" in frame.f_code.co_filename:
                parts.append(f"{frame.f_code.co_qualname} {frame.f_locals}")
        seen = seen.__cause__ or seen.__context__
    return "\n".join(parts)


class TestSecrets:
    """F48: the credential appears nowhere; the canary plugin checks output, records, errors and files."""

    def test_f48_failures_of_a_dump(self, trial: Trial, caplog: pytest.LogCaptureFixture) -> None:
        """After any failure the credential is in no error, frame, receipt or debug record."""
        caplog.set_level(logging.DEBUG)
        for fault in ("401", "403", "400", "418", "503", "html", "badjson", "redirect", "reset", "nocursor"):
            for verb in (trial.dump, trial.load):
                trial.strike(f"1-:{fault}")
                with pytest.raises(PleoExtractError) as caught:
                    verb()
                assert not found(shown(caught.value))
                assert not found(pickle.dumps(caught.value))
        assert caplog.records
        assert not found(caplog.text)

    def test_f48_servers_that_repeat_it(self, trial: Trial) -> None:
        """A server that sends the header back, as an error or in a page, does not make us store it."""

        def echo(status: int, request: RequestLike) -> Response:
            said = trial.sandbox(request)
            body = json.dumps({"type": "no", "message": request.headers["authorization"]}).encode()
            return type(said)(status, said.headers, body)

        for status in (200, 400, 401, 403, 500):
            trial.transport = partial(echo, status)
            with pytest.raises(PleoExtractError) as caught:
                trial.dump(deadline=5.0)
            assert not found(shown(caught.value))

    def test_f48_a_run_that_succeeds(self, trial: Trial, caplog: pytest.LogCaptureFixture) -> None:
        """A successful run leaves no credential in receipt, manifest, state, record or pace file."""
        caplog.set_level(logging.DEBUG)
        with trial.on_the_wire():
            receipt = trial.dump(client={"rate": 600, "clock": None})
        assert not found(repr(receipt))
        assert list(Path(os.environ["XDG_CACHE_HOME"]).rglob("*"))
        assert not found(
            "".join(str(asked.parameters) + asked.request.path for asked in trial.sandbox.requests)
        )

    @pytest.mark.parametrize("fault", ["", "*:401", "*:redirect", "3:badrow.null"])
    def test_f48_command_line(
        self, fault: str, pleo: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """The most verbose command line does not show the credential."""
        with serve(Sandbox(World(jobs=600), faults=fault, api_keys={CANARY: None})) as running:
            monkeypatch.setenv("PLEO_API_KEY", CANARY)
            monkeypatch.setenv("PLEO_BASE_URL", running.url)
            for form in ("text", "json"):
                said = pleo(
                    "dump", tmp_path / "lake", "--log-level", "debug", "--log-format", form, "--rate", 100_000
                )
                assert not found(said.out + said.err)
            pleo("plan", tmp_path / "lake")
        pleo("status", tmp_path / "lake", "--json")


class TestOneServer:
    """F49: only the named host is contacted."""

    def test_f49_links_and_proxies(
        self, trial: Trial, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Links in a page, and proxies and .netrc of the environment, are never used."""
        trap = Sandbox(World(jobs=10), api_keys={CANARY: None})
        with serve(trap) as elsewhere, trial.on_the_wire() as url:
            for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
                monkeypatch.setenv(name, elsewhere.url)
            monkeypatch.delenv("no_proxy", raising=False)
            (tmp_path / "netrc").write_text("default login trap password trap")
            monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
            linked = f"{elsewhere.url}/v3/export-jobs"

            def link(page: dict[str, Any], _: int) -> None:
                page["pagination"] |= {
                    "next": linked,
                    "links": {"next": "//pleo.invalid"},
                    "nextPage": linked,
                }
                page["_links"] = {"next": {"href": linked}}

            assert url
            trial.survives()
            trial.move(trial.nowhere)
            trial.sandbox.world.advance(86_400)
            trial.transport = edit_pages(trial.sandbox, link)
            trial.dump()
            assert trial.wrong() == []
            assert trap.requests == []

    def test_f49_cursors_are_no_urls(self, trial: Trial) -> None:
        """A cursor that is a link, a path or parameters is invalid: 76, and it is never sent."""

        def set_cursor(cursor: str, page: dict[str, Any], number: int) -> None:
            if number == 2:
                page["pagination"] |= {"hasNextPage": True, "endCursor": cursor}

        for cursor in ("https://pleo.invalid/v3", "//pleo.invalid", "AB&company_id=x", "../A", "A\r\nX: y"):
            trial.strike()
            trial.transport = edit_pages(trial.sandbox, partial(set_cursor, cursor))
            trial.fails(WalkError, at_most=2)
        trial.heals()

    def test_f49_plain_http(
        self, tmp_path: Path, pleo: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Plain http to another machine gives 78 before anything is sent."""
        monkeypatch.setenv("PLEO_API_KEY", CANARY)
        said = pleo("dump", tmp_path / "lake", "--base-url", "http://pleo.invalid")
        assert said.code == 78
        assert "https" in said.err


class TestPaths:
    """F50, F51, F55: texts in paths, and file permissions."""

    def test_f50_path_traversal(self, trial: Trial) -> None:
        """A server's text never becomes a path: rows with bad ids are rejected, and all files are in place."""
        values = ("../../../../tmp/escaped", "/etc/passwd", "a/b", "..", "x=1/../../y", "\0")

        def spoil(page: dict[str, Any], number: int) -> None:
            if number == 3:
                for place, value in enumerate(values):
                    page["data"][place]["id"] = value
                    page["data"][-1 - place]["companyId"] = value

        trial.transport = edit_pages(trial.sandbox, spoil)
        with pytest.raises(RejectedRows) as caught:
            trial.dump()
        assert len(caught.value.reasons) == 2 * len(values)
        shapes = re.compile(
            r"_lake(/(current|lock|staging|objects(/\d{4}-\d\d-[0-9a-f]{64})?|snapshots(/\d{6}\.json)?|now\.csv|vanished\.csv"
            r"|state\.json|last_run\.json|rejected(/[\dTZ]+-[0-9a-f]{8}-[0-9a-f]{16}\.jsonl)?))?"
            r"|created_month=\d{4}-\d\d(/part-0\.parquet)?|_jobs\.duckdb"
        )
        for path in trial.lake.rglob("*"):
            assert shapes.fullmatch(str(path.relative_to(trial.lake))), path
        assert sorted(path.name for path in trial.lake.parent.iterdir()) == ["lake"]
        trial.heals(full=True)

    @first_only
    @pytest.mark.parametrize("company", ["../../x", "*", "' or 1=1 --", f"{COMPANY}/.."])
    def test_f50_company_of_the_caller(self, company: str, trial: Trial) -> None:
        """A company_id that is not a UUID is refused before anything is sent."""
        with pytest.raises(UsageError):
            trial.dump(company_id=company)
        assert trial.sandbox.requests == []

    def test_f55_links_in_place_of_folders(self, trial: Trial) -> None:
        """A link in place of a folder of the lake is not followed: 65, and its target does not change."""
        outside, kept = trial.lake.parent / "outside", trial.lake.parent / "kept"
        outside.mkdir()
        (trial.lake / "_lake").mkdir(parents=True, exist_ok=True)
        for folder in ("_lake/staging", "_lake/snapshots", "_lake/rejected", "_lake/objects", "_lake"):
            here = trial.lake / folder
            if here.exists():
                here.rename(kept)
            here.symlink_to(outside)
            with pytest.raises(LakeError, match="is a link"):
                trial.dump()
            assert list(outside.iterdir()) == []
            here.unlink()
            if kept.exists():
                kept.rename(here)
        trial.heals()

    def test_f55_nobody_else_reads(self, trial: Trial) -> None:
        """Under a umask of 0, staging, rejected rows and the pace file are private to their owner.

        Other files follow the umask, except that nobody may write to data files.

        """
        before = os.umask(0)
        try:
            trial.strike("2:badrow.null,4-:503")
            with pytest.raises(PleoExtractError):
                trial.dump()
            assert trial.staged() > 0
            self.is_private(trial.lake, "_lake/staging")
            trial.strike(
                "*:badrow.null"
            )  # whichever page comes second: one that is read twice may be well in the end
            with pytest.raises(RejectedRows):
                trial.dump()
            self.is_private(trial.lake, "_lake/staging", "_lake/rejected")
            cache = Path(os.environ["XDG_CACHE_HOME"])
            with trial.open(transport=None, rate=500):
                self.is_private(cache, "pleo_extract")
        finally:
            os.umask(before)
        data = [*trial.lake.glob("created_month=*/*"), *trial.lake.glob("_lake/objects/*")]
        assert data
        for path in data:
            assert path.stat().st_mode & 0o777 == 0o444, f"{path} can be written, or not be read"

    @staticmethod
    def is_private(folder: Path, *names: str) -> None:
        """Check that only the owner can read these files and folders."""
        for name in names:
            top = folder / name
            if top.is_dir():
                assert not top.stat().st_mode & 0o077, f"{top}"
            for path in [top] if top.is_file() else top.rglob("*"):
                mode = path.stat().st_mode & 0o777
                assert mode == (0o700 if path.is_dir() else 0o600), f"{path}: {mode:o}"

    @pytest.mark.parametrize("mode", ["first", "refresh"])
    @pytest.mark.parametrize("name", ['it\'s -- "x"; drop table', GLOB])
    def test_f51_names_of_folders(
        self, name: str, mode: str, tmp_path: Path, clock: FakeClock, dumped: Path
    ) -> None:
        """A lake in a folder whose name is SQL or a glob works like any other."""
        trial = Trial(mode, tmp_path / name, clock, dumped=dumped)
        trial.survives()
        with connect(trial.lake, locked=True) as con:
            (count,) = con.execute("select count(*) from export_jobs").fetchall()[0]
        assert count == len(trial.sandbox.world.visible())
        assert sorted(path.name for path in tmp_path.iterdir()) == [name]

    def test_f51_values_are_bound(self, trial: Trial, pleo: Callable[..., Said]) -> None:
        """A parameter is only a value, and a locked lake reads and writes no other file."""
        trial.strike("2:hostile.template")
        trial.dump()
        value = HOSTILE["template"]
        asked = ["sql", "--lake", trial.lake, "--format", "json", "-p", f"r={value}"]
        said = pleo(*asked, "select failure_reason from export_jobs where failure_reason = $r")
        assert json.loads(said.out) == [{"failure_reason": value}]
        for query in (
            "from read_text('/etc/passwd')",
            "from '/etc/passwd'",
            f"from read_csv('{trial.lake.parent}/*')",
            "select getenv('PLEO_API_KEY')",
        ):
            assert pleo("sql", "--lake", trial.lake, query).code == 2
        said = pleo("sql", "--lake", trial.lake, f"copy export_jobs to '{trial.lake.parent}/out.csv'")
        assert said.code == 2
        assert sorted(path.name for path in trial.lake.parent.iterdir()) == ["lake"]
        assert verify_lake(trial.lake).ok


class TestShown:
    """F52 to F54: the server's text where people see it."""

    def test_f52_html_of_a_frame(self, trial: Trial) -> None:
        """The HTML of a frame in a notebook escapes the server's markup."""
        trial.strike("2:hostile.script")
        trial.dump()
        kept = (
            scan_lake(trial.lake)
            .filter(pl.col("failure_reason") == HOSTILE["script"])
            .select("failure_reason")
        )
        with pl.Config(fmt_str_lengths=200):
            html = kept.collect()._repr_html_()
        assert "&lt;script&gt;alert(1)" in html
        assert "<script>" not in html.replace("<script>\n", "")
        assert "<img" not in html

    def test_f52_html_of_a_report(self, trial: Trial, pleo: Callable[..., Said]) -> None:
        """A report has no script and no markup of the server."""
        markup = HOSTILE["script"]

        def spoil(page: dict[str, Any], _: int) -> None:
            for row in page["data"]:
                row |= {"status": "failed", "failureReason": markup, "failureReasonType": markup}

        trial.transport = edit_pages(trial.sandbox, spoil)
        trial.dump(full=True)
        file = trial.lake.parent / "report.html"
        assert pleo("report", trial.lake, "-o", file).code == 0
        page = file.read_text().replace("<wbr>", "")  # marks where a long word may break
        assert "&lt;script&gt;alert(1)" in page
        assert re.findall(r"<(?:script|img|iframe|object|embed|form)\b|\bon\w+=[\"']", page) == []
        policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
        assert policy is not None
        assert "default-src 'none'" in policy[1]
        assert "script-src" not in policy[1].replace("script-src 'none'", "")

    def test_f53_formulas_in_csv(self, trial: Trial, pleo: Callable[..., Said]) -> None:
        """A text that a spreadsheet would run gets an apostrophe in CSV, unless that is turned off."""
        trial.strike("2:hostile.formula")
        trial.dump()
        query = "select failure_reason from export_jobs where failure_reason like '%cmd%'"
        safe = pleo("sql", "--lake", trial.lake, "--format", "csv", query)
        assert f"\n'{HOSTILE['formula']}" in safe.out.replace('"', "")
        raw = pleo("sql", "--lake", trial.lake, "--format", "csv", "--raw-csv", query)
        assert f"\n{HOSTILE['formula']}" in raw.out.replace('"', "")

    def test_f54_tables(self, trial: Trial, pleo: Callable[..., Said]) -> None:
        """Control characters and line breaks do not reach a printed table."""
        names = ("esc", "crlf", "nul", "rtl", "emoji")
        trial.strike(",".join(f"{number}:hostile.{name}" for number, name in enumerate(names, start=2)))
        trial.dump()
        texts = [HOSTILE[name] for name in names]
        jobs = scan_lake(trial.lake).filter(pl.col("failure_reason").is_in(texts)).collect()["id"]
        given = [word for n, job in enumerate(jobs) for word in ("-p", f"j{n}={job}")]
        said = pleo(
            *("sql", "--lake", trial.lake, *given),
            "select failure_reason from export_jobs where id in ($j0, $j1, $j2, $j3, $j4)",
        )
        assert said.code == 0
        assert "(5 rows)" in said.out
        assert len(said.out.strip().splitlines()) == 3 + len(names)
        assert not CONTROL.search(said.out)

    @pytest.mark.parametrize("form", ["text", "json"])
    @pytest.mark.parametrize("status", [200, 401, 418, 503])
    def test_f54_messages_and_records(
        self,
        status: int,
        form: str,
        pleo: Callable[..., Said],
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        """A server's message cannot leave its line, colour it, or forge a record."""
        sandbox = Sandbox(World(jobs=200), rules=Rules(max_limit=20), api_keys={CANARY: None})

        def hostile(request: RequestLike) -> Response:
            said = sandbox(request)
            body = json.dumps(
                {"type": HOSTILE["esc"], "message": HOSTILE["crlf"]}, ensure_ascii=False
            ).encode()
            body = b"\x1b[31m\r\nforged: 1\n" + body
            headers = {"Content-Type": "text/x-\x1b[2J", "Location": "//\x1b[1m/", "Retry-After": "0"}
            return type(said)(status, headers, body)

        monkeypatch.setenv("PLEO_API_KEY", CANARY)
        with serve(hostile) as running:  # type: ignore[arg-type]
            said = pleo(
                *("dump", tmp_path / "lake", "--base-url", running.url, "--log-format", form),
                *("--log-level", "info", "--rate", 100_000, "--deadline", 0.3, "--quiet"),
            )
        assert said.code in (75, 76, 77)
        assert not CONTROL.search(said.err)
        lines = said.err.splitlines()
        assert lines[-1].startswith("pleo-extract: run ")
        assert not [line for line in lines if line.startswith("forged")]
        if form == "json":
            assert all(json.loads(line)["level"] for line in lines[:-1])


@first_only
def test_f48_user_in_the_url(
    trial: Trial, pleo: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key in the URL gives 78 and is not shown."""
    monkeypatch.setenv("PLEO_API_KEY", CANARY)
    quoted = CANARY.replace("/", "%2F").replace("+", "%2B").replace("=", "%3D")
    said = pleo("dump", trial.lake, "--base-url", f"https://{quoted}:x@external.pleo.io")
    assert said.code == 78
    assert not found(said.err)
