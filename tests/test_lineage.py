"""Tests of `dump --lineage`: which events of OpenLineage a run sends, to whom, and what happens if nobody takes them."""

from __future__ import annotations

import json
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from canary import CANARY

from pleo_extract import COLUMNS
from pleo_extract.sandbox import API_KEY, Sandbox, World, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Said

    from pleo_extract.sandbox import Served

TOKEN = "token-of-the-receiver"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """Serve a sandbox on loopback, and point the environment to it."""
    with serve(Sandbox(World(jobs=120), api_keys={CANARY: None, API_KEY: None})) as running:
        monkeypatch.setenv("PLEO_API_KEY", CANARY)
        monkeypatch.setenv("PLEO_BASE_URL", running.url)
        yield running


@contextmanager
def receive(status: int) -> Iterator[tuple[str, list[tuple[str | None, dict[str, Any]]]]]:
    """Serve a receiver that answers with this status; yield its URL, and the token and body of each request."""
    received: list[tuple[str | None, dict[str, Any]]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.headers["Authorization"], json.loads(body)))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/api/v1/lineage", received
        server.shutdown()
        thread.join()


def read_events(file: Path) -> list[dict[str, Any]]:
    """Return the events of a file, which has one in each line."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_each_run_appends_two_events(
    pleo: Callable[..., Said], served: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """START and COMPLETE, or FAIL, name the server's list and the lake; the last one says what the run found."""
    lake, file = tmp_path / "lake", tmp_path / "events.jsonl"
    assert pleo("dump", lake, "--rate", 100_000, "--lineage", file).code == 0
    monkeypatch.setenv("PLEO_API_KEY", "plp_wrong")
    assert pleo("dump", lake, "--lineage", file).code == 77
    events = read_events(file)
    assert [each["eventType"] for each in events] == ["START", "COMPLETE", "START", "FAIL"]
    ids = [UUID(each["run"]["runId"]) for each in events]
    assert ids[0] == ids[1] != ids[2] == ids[3]
    times = [datetime.fromisoformat(each["eventTime"]) for each in events]
    assert times == sorted(times)
    assert all(each.tzinfo for each in times)
    for each in events:
        assert each["inputs"] == [{"namespace": served.url, "name": "/v3/export-jobs"}]
        assert [(out["namespace"], out["name"]) for out in each["outputs"]] == [("file", str(lake))]
        assert each["job"] == {"namespace": "pleo-extract", "name": f"dump {lake}"}
        assert each["schemaURL"].endswith("OpenLineage.json#/$defs/RunEvent")
        assert each["producer"].startswith("urn:pleo-extract:")
    (written,), run = events[1]["outputs"], events[1]["run"]
    assert [field["name"] for field in written["facets"]["schema"]["fields"]] == list(COLUMNS)
    assert written["facets"]["version"]["datasetVersion"] == "1"
    assert written["outputFacets"]["outputStatistics"]["rowCount"] == 120
    assert run["facets"]["pleo_extract"].items() >= {"mode": "full", "verdict": "complete", "code": 0}.items()
    failed = events[3]["run"]["facets"]
    assert "401" in failed["errorMessage"]["message"]
    assert failed["pleo_extract"]["code"] == 77
    assert "outputFacets" not in events[3]["outputs"][0], "it wrote nothing"
    for facet in (*written["facets"].values(), *written["outputFacets"].values(), *failed.values()):
        assert facet["_schemaURL"].startswith("https://openlineage.io/spec/")


@pytest.mark.parametrize("status", [201, 500])
def test_a_receiver_gets_the_events(
    pleo: Callable[..., Said], served: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, status: int
) -> None:
    """Each event is a POST with the receiver's own token; a receiver that refuses them fails no run."""
    monkeypatch.setenv("OPENLINEAGE_API_KEY", TOKEN)
    with receive(status) as (url, received):
        said = pleo("dump", tmp_path / "lake", "--rate", 100_000, "--lineage", url, "--quiet")
    assert said.code == 0
    assert {token for token, _ in received} == {f"Bearer {TOKEN}"}
    if status == 201:
        assert [event["eventType"] for _, event in received] == ["START", "COMPLETE"]
        assert said.err == ""
    else:
        assert "127.0.0.1 answered 500 to an OpenLineage event. The run itself is not affected" in said.err


def test_nobody_listens(pleo: Callable[..., Said], served: Served, tmp_path: Path) -> None:
    """A receiver that is not there fails no run either."""
    said = pleo("dump", tmp_path / "lake", "--rate", 100_000, "--lineage", "http://127.0.0.1:1/lineage")
    assert said.code == 0
    assert "127.0.0.1 did not take an OpenLineage event" in said.err


def test_the_companies_of_many_servers(pleo: Callable[..., Said], served: Served, tmp_path: Path) -> None:
    """Each server that a company of the lake comes from is an input."""
    company = served.sandbox.world.companies[0]
    accounts = tmp_path / "accounts.toml"
    entry = '[[account]]\nname = "A"\nbase_url = "{}"\ncompany_id = "{}"\napi_key_env = "PLEO_API_KEY"\n'
    accounts.write_text(entry.format(served.url, company))
    assert pleo("dump", tmp_path / "lake", "--accounts", accounts, "--lineage", tmp_path / "events").code == 0
    assert read_events(tmp_path / "events")[1]["inputs"][0]["namespace"] == served.url


def test_a_refused_run_sends_none(
    pleo: Callable[..., Said], served: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A run that is refused before it begins has no events, and does not send those of the run before it again."""
    lake, file = tmp_path / "lake", tmp_path / "events.jsonl"
    assert pleo("dump", lake, "--rate", 100_000).code == 0
    monkeypatch.setenv("PLEO_BASE_URL", "http://127.0.0.1:1")
    assert pleo("dump", lake, "--lineage", file).code == 78
    assert not file.exists()


@pytest.mark.parametrize(
    ("sink", "code", "says"),
    [
        ("nowhere/events.jsonl", 78, "there is no folder nowhere"),
        ("http:///lineage", 78, "the URL names no host"),
        ("http://[::1/lineage", 78, "the URL is malformed"),
        ("http://receiver.invalid:99999/", 78, "the URL is malformed"),
        ("https://me:hidden@receiver.invalid/", 78, "the receiver's token goes into OPENLINEAGE_API_KEY"),
        (
            "http://receiver.invalid/lineage",
            78,
            "OPENLINEAGE_API_KEY is sent to https:// and to this machine only",
        ),
        ("lake/events.jsonl", 2, "is in the lake"),
    ],
)
def test_what_is_no_receiver_is_refused(
    pleo: Callable[..., Said],
    served: Served,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    *,
    sink: str,
    code: int,
    says: str,
) -> None:
    """It is refused before anything is read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENLINEAGE_API_KEY", TOKEN)
    (tmp_path / "lake" / "_lake").mkdir(parents=True)
    said = pleo("dump", "other", "--lineage", sink)
    assert said.code == code
    assert says in said.err
    assert "hidden" not in said.err
    assert not served.sandbox.requests
