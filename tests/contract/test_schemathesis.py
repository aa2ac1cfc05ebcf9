"""The sandbox on a socket, as `pleo-extract sandbox` serves it, tested by schemathesis."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest

from contract.server import TOOLS, clean_environment, run_server
from pleo_extract import Query
from pleo_extract.errors import UsageError
from pleo_extract.sandbox import API_KEY, TOKEN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from contract.conftest import Note
SERVING = re.compile(r" on (http://\S+); ")
EXAMPLES: Final = 300
SECONDS: Final = 100
"""The timeout of a run, seconds; it takes about ten."""
ANSWERS: Final = {"GET": {200, 400, 401, 403}}
"""The statuses that the sandbox may answer, by method; 405 to a method outside the contract."""
AUTHENTICATION: Final = {
    "bearer": ["--header", f"Authorization: Bearer {TOKEN}"],
    "basic": ["--auth", f"{API_KEY}:"],
}
OPAQUE = re.compile(r"the cursor (is unknown|belongs to another sorting)|sorting_keys must be of")
"""What only the server can know: its cursors, and the names that it sorts by."""
Exchange = dict[str, Any]


@contextmanager
def sandbox(tmp_path: Path, *options: str) -> Iterator[str]:
    """Run the sandbox as the command line serves it."""
    command = [sys.executable, "-m", "pleo_extract", "sandbox", "--port", "0", "--jobs", "300", *options]
    with run_server(command, tmp_path / "sandbox.log", SERVING) as url:
        yield url


def run_schemathesis(
    contract: Path, url: str, folder: Path, *options: str
) -> subprocess.CompletedProcess[str]:
    """Run schemathesis once with all checks; `folder`/har.json records the requests."""
    command = [
        TOOLS / "bin/schemathesis", "run", contract, "--url", url, "--seed", "7", "--no-color", "--report", "har",
        "--report-har-path", folder / "har.json", "--generation-database", "none", "--output-sanitize", "false",
        "--request-timeout", "20", *options,
    ]  # fmt: skip
    environment = clean_environment(SCHEMATHESIS_HOOKS="prose", PYTHONPATH=str(Path(__file__).parent))
    return subprocess.run(
        [str(part) for part in command],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip


class Judged(NamedTuple):
    """The result of a schemathesis run: the authentication, its output and the recorded requests."""

    kind: str
    exit_code: int
    said: str
    exchanges: list[Exchange]


@pytest.fixture(scope="module", params=AUTHENTICATION)
def judged(request: pytest.FixtureRequest, mended: Path, tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """Run schemathesis on the sandbox with each kind of authentication."""
    folder = tmp_path_factory.mktemp(request.param)
    options = ["--max-examples", str(EXAMPLES), "--continue-on-failure", *AUTHENTICATION[request.param]]
    with sandbox(folder) as url:
        run = run_schemathesis(mended, url, folder, *options)
    reported = json.loads((folder / "har.json").read_text(encoding="utf-8"))
    return Judged(request.param, run.returncode, run.stdout + run.stderr, reported["log"]["entries"])


def test_no_violation(judged: Judged, note: Note) -> None:
    """Every response keeps the contract: its status, content type, headers and schema; none is 5xx.

    The sandbox accepts valid requests. It refuses invalid ones, and those with another credential or method.

    """
    assert judged.exit_code == 0, judged.said
    exchanges = judged.exchanges
    statuses = Counter((each["request"]["method"], each["response"]["status"]) for each in exchanges)
    assert {pair for pair in statuses if pair[1] not in ANSWERS.get(pair[0], {405})} == set()
    pages = [json.loads(each["response"]["content"]["text"]) for each in exchanges if _is_page(each)]
    # Too few requests of a kind would prove nothing.
    assert len(exchanges) > EXAMPLES
    assert sum(page["data"] != [] for page in pages) > EXAMPLES // 5
    assert statuses["GET", 400] > EXAMPLES // 5
    assert statuses["GET", 401] > 1
    rows = sum(len(page["data"]) for page in pages)
    reported = f"{len(exchanges):,} requests, {len(pages):,} pages, {rows:,} rows"
    note("schemathesis", f"sandbox, {judged.kind}", reported)


def test_query_and_sandbox_draw_the_same_line(judged: Judged, note: Note) -> None:
    """`Query` refuses exactly what the sandbox refuses, except what only a server can know."""
    asked = [
        each
        for each in judged.exchanges
        if each["request"]["method"] == "GET" and each["response"]["status"] != 401
    ]
    wrong = [reported for each in asked if (reported := _disagreement(each))]
    assert wrong == []
    note("schemathesis", f"our Query = the sandbox, {judged.kind}", f"{len(asked):,} queries")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("badrow.null", "Response violates schema"),
        ("badrow.float", "Response violates schema"),
        ("nopagination", "Response violates schema"),
        ("wrongtype", "Undocumented Content-Type"),
        ("500", "Server error"),
    ],
)
def test_violation_is_noticed(mended: Path, tmp_path: Path, fault: str, said: str, note: Note) -> None:
    """Schemathesis finds the violations of a sandbox that breaks the contract on purpose."""
    options = ["--max-examples", "20", "--max-failures", "1", "--no-shrink", *AUTHENTICATION["basic"]]
    with sandbox(tmp_path, "--faults", f"*:{fault}") as url:
        run = run_schemathesis(mended, url, tmp_path, *options)
    assert run.returncode == 1, run.stdout + run.stderr
    assert said in run.stdout, run.stdout
    note("schemathesis", "sandbox broken on purpose, found out", fault)


def _is_page(exchange: Exchange) -> bool:
    return bool(exchange["request"]["method"] == "GET" and exchange["response"]["status"] == 200)


def _disagreement(exchange: Exchange) -> str | None:
    """Describe a query that one of the two accepts and the other refuses, or return None."""
    query = urlsplit(exchange["request"]["url"]).query
    status, text = exchange["response"]["status"], exchange["response"]["content"]["text"]
    try:
        _read_query(parse_qs(query, keep_blank_values=True))
    except UsageError as error:
        return None if status == 400 else f"?{query}: Query says {error}, the sandbox {status}"
    if status in (200, 403) or OPAQUE.search(text):
        return None
    return f"?{query}: Query takes it, the sandbox says {status} {text}"


def _read_query(parameters: dict[str, list[str]]) -> Query:
    """Return the `Query` with these parameters; ignore names that the contract does not have."""
    given: dict[str, Any] = {}
    for name in Query.__slots__:
        values = parameters.get(name, [])
        if name in ("statuses", "sorting_keys", "sorting_order"):
            given[name] = tuple(values)
        elif len(values) > 1:
            raise UsageError(f"{name} is given more than once")
        elif values and name in ("offset", "limit"):
            given[name] = int(values[0]) if re.fullmatch(r"-?[0-9]+", values[0]) else values[0]
        elif values:
            given[name] = values[0]
    return Query(**given)
