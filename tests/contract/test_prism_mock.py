"""Our client against Prism's mock, which knows only the contract and invents unusual but valid responses."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Final

import polars as pl
import pytest

from contract.conftest import name_kind
from contract.mend import CONTRACT, give_cursors_a_pattern
from contract.recorder import Recorder
from contract.server import clean_environment, run_prism
from pleo_extract import (
    Client,
    PleoExtractError,
    Query,
    dump_export_jobs,
    fetch_page,
    iter_export_jobs,
    load_export_jobs,
)
from pleo_extract.contract import COLUMNS, POLARS_SCHEMA
from pleo_extract.errors import IncompleteWalk, PageError, WalkError
from pleo_extract.sandbox import API_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from contract.conftest import Note
    from pleo_extract.client import Clock

PAGES: Final = 100
WALKS: Final = 50
NAMED = re.compile(
    r"page \d+.*(endCursor|hasNextPage|total)|fewer than the total|total fell from \d+|loop at page"
)


class Mock:
    """A running mock, and our client of it."""

    def __init__(self, url: str, credential: dict[str, str], clock: Clock) -> None:
        self.url = url
        self.seen = Recorder()
        self.client = Client(url, transport=self.seen, clock=clock, rate=1_000_000, **credential)  # type: ignore[arg-type]

    def try_once(self, ask: Callable[[], pl.DataFrame]) -> pl.DataFrame | PleoExtractError:
        """Return the frame or our error; any other exception fails the test and shows the body."""
        try:
            return ask()
        except PleoExtractError as error:
            return error
        except Exception as error:  # noqa: BLE001 - the test is that none is raised
            pytest.fail(f"{error!r} came out of our client for {bytes(self.seen.last_body[:5000])!r}")


@pytest.fixture(scope="module")
def mocks(mended: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Yield the URLs of four mocks: the contract as published, as mended, and with a pattern for cursors.

    The fourth has that pattern and a seed: it always returns the same page.

    """
    folder = tmp_path_factory.mktemp("mocks")
    cursors = folder / "cursors.yaml"
    cursors.write_text(give_cursors_a_pattern(mended.read_text(encoding="utf-8")), encoding="utf-8")
    with (
        run_prism(["mock", CONTRACT, "--dynamic"], folder / "published.log") as published,
        run_prism(["mock", mended, "--dynamic"], folder / "mended.log") as repaired,
        run_prism(["mock", cursors, "--dynamic"], folder / "cursors.log") as walkable,
        run_prism(["mock", cursors, "--dynamic", "--seed", "2"], folder / "loop.log") as loop,
    ):
        yield {"published": published, "mended": repaired, "with cursors": walkable, "loop": loop}


@pytest.fixture
def open_mock(mocks: dict[str, str], clock: Clock) -> Iterator[Callable[..., Mock]]:
    """Return a function that returns a mock by name, with a client that has a credential."""
    opened: list[Mock] = []

    def open_one(name: str, credential: dict[str, str]) -> Mock:
        opened.append(Mock(mocks[name], credential, clock))
        return opened[-1]

    yield open_one
    for mock in opened:
        mock.client.close()
        mock.seen.close()


@pytest.mark.parametrize("copy", ["published", "mended"])
def test_pages(open_mock: Callable[..., Mock], credential: dict[str, str], copy: str, note: Note) -> None:
    """Everything that the contract allows decodes: any status, old years, negative numbers, unknown fields."""
    mock = open_mock(copy, credential)
    got = [mock.try_once(lambda: fetch_page(Query(limit=3), client=mock.client).frame) for _ in range(PAGES)]
    assert [result for result in got if isinstance(result, PleoExtractError)] == []
    jobs = pl.concat([result for result in got if isinstance(result, pl.DataFrame)])
    assert jobs.schema == POLARS_SCHEMA
    assert jobs.height > PAGES
    # The published contract rejects its own dates, see mend.py.
    assert [wrong for wrong in mock.seen.violations if "YYYY-MM-DDTHH:mi:ssZ" not in wrong] == []
    note(
        "Prism mock",
        f"pages, contract {copy}, {name_kind(credential)}",
        f"{PAGES} pages, {jobs.height} rows, all decoded",
    )


@pytest.mark.parametrize("copy", ["mended", "with cursors"])
def test_walks(open_mock: Callable[..., Mock], credential: dict[str, str], copy: str, note: Note) -> None:
    """A walk over invented pages ends in a frame or in an error that names page and field, and sends no wrong request.

    Without a pattern for cursors it ends at the first `hasNextPage`; with one it continues for some pages.

    """
    mock = open_mock(copy, credential)
    got = Counter[str]()
    for _ in range(WALKS):
        result = mock.try_once(lambda: load_export_jobs(client=mock.client))
        if isinstance(result, PleoExtractError):
            assert isinstance(result, (WalkError, IncompleteWalk, PageError)), result
            assert NAMED.search(str(result)), result
        else:
            assert tuple(result.columns) == COLUMNS
        got[type(result).__name__] += 1
    assert len(got) > 1
    assert mock.seen.violations == []
    note("Prism mock", f"walks, contract {copy}, {name_kind(credential)}", spell(got, mock))


@pytest.mark.parametrize("verb", ["load", "iterate", "dump"])
def test_loop(open_mock: Callable[..., Mock], tmp_path: Path, verb: str, note: Note) -> None:
    """A server that always returns the same page is detected at the second page: WalkError, 76, nothing published."""
    mock = open_mock("loop", {"api_key": API_KEY})
    lake = tmp_path / "lake"
    verbs: dict[str, Callable[[], object]] = {
        "load": lambda: load_export_jobs(client=mock.client),
        "iterate": lambda: list(iter_export_jobs(client=mock.client)),
        "dump": lambda: dump_export_jobs(lake, client=mock.client),
    }
    with pytest.raises(
        WalkError, match=r"loop at page \d+: endCursor '[A-Z2-7=~]+' was given before"
    ) as caught:
        verbs[verb]()
    assert caught.value.code == 76
    assert len(mock.seen.answers) <= 10
    assert mock.seen.violations == []
    assert not (lake / "_lake/current").exists()
    note(
        "Prism mock", f"the same page for ever, {verb}", f"WalkError after {len(mock.seen.answers)} requests"
    )


def test_loop_on_the_command_line(open_mock: Callable[..., Mock], tmp_path: Path, note: Note) -> None:
    """`pleo-extract dump` ends such a loop with exit code 76 and one line that says why."""
    mock = open_mock("loop", {"api_key": API_KEY})
    run = subprocess.run(
        [sys.executable, "-m", "pleo_extract", "dump", str(tmp_path / "lake")],
        env=clean_environment(PLEO_API_KEY=API_KEY, PLEO_BASE_URL=mock.url),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert run.returncode == 76, run
    assert "Traceback" not in run.stderr
    assert API_KEY not in run.stdout + run.stderr
    # The output has warnings about invented statuses, and one line that says why the run failed.
    ends = [line for line in run.stderr.splitlines() if " warning " not in line]
    assert len(ends) == 1, run.stderr
    assert "loop at page" in ends[0]
    note("Prism mock", "the same page for ever, pleo-extract dump", "exit code 76, one line")


def spell(got: Counter[str], mock: Mock) -> str:
    """Format how often each result came, and from how many requests."""
    reported = ", ".join(f"{times} {name}" for name, times in got.most_common())
    return f"{len(mock.seen.answers)} requests: {reported}"
