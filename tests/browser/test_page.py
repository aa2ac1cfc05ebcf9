"""The report in a real browser. `.ci/browser` runs this and says where Chromium and axe-core are."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from devtools import open_browser
from lakes import make_lake
from warehouse_jobs import A, B, job

from pleo_extract.report import write_report

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devtools import Page

SAMPLE = Path(__file__).parent.parent.parent / "data" / "sample"
NOW = datetime(2026, 4, 1, tzinfo=UTC)
HOSTILE = (
    "<script>document.title = 'script'</script><img src=https://example.invalid/x onerror=alert(1)>\u202e\x1b"
)
NAME = HOSTILE.replace("\x1b", "")
"""Names without control characters: the reader refuses a manifest that has them."""
WIDTHS = (360, 800, 1280)
OPEN_ALL = "document.querySelectorAll('details').forEach(each => each.open = true)"
TOO_WIDE = """
[...document.querySelectorAll('body *')]
    .filter(each => !each.closest('.wide table') && each.getBoundingClientRect().right > WIDTH + 1)
    .map(each => `${each.tagName} ${each.textContent.slice(0, 40)}`)
"""
AXE = """
axe.run(document, {resultTypes: ['violations']}).then(found => found.violations.map(
    each => `${each.impact} ${each.id}: ${each.nodes.slice(0, 3).map(node => node.html.slice(0, 120)).join(' | ')}`))
"""


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """Yield one browser for all tests."""
    with open_browser(os.environ["CHROMIUM"]) as opened:
        yield opened


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return three reports: of the sample, of long names and hostile text, and of a time without jobs."""
    folder = tmp_path_factory.mktemp("reports")
    rows = [
        job(
            n,
            "failed" if n % 9 == 0 else "completed" if n < 700 else HOSTILE,
            failure_reason_type=HOSTILE if n % 18 == 0 else "accounting_system_authentication_failure",
            failure_reason=HOSTILE * 50,
            number_of_items=10**9,
            expires_in=60,
        )
        for n in range(720)
    ]
    lakes = {
        "sample": SAMPLE,
        "hostile": make_lake(folder / "hostile", rows, NOW, {A: "W" * 70 + NAME, B: "Other"}),
    }
    written = {name: write_report(lake, folder / f"{name}.html") for name, lake in lakes.items()}
    return written | {"empty": write_report(SAMPLE, folder / "empty.html", until=date(2000, 1, 1))}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["sample", "hostile", "empty"])
def test_the_page_fits_loads_nothing_and_is_accessible(
    page: Page, reports: dict[str, Path], name: str, width: int, *, dark: bool
) -> None:
    """The page does not scroll sideways, loads only itself, logs nothing, and axe finds nothing serious."""
    page.show(reports[name], width=width, dark=dark)
    page.ask(OPEN_ALL)
    assert page.ask("document.documentElement.scrollWidth") <= width
    assert page.ask(TOO_WIDE.replace("WIDTH", str(width))) == []
    page.ask(Path(os.environ["AXE"]).read_text(encoding="utf-8") + "; 0")
    found: list[str] = page.ask(AXE)
    assert not [each for each in found if each.startswith(("serious", "critical"))], found
    assert reported(page, "Network.requestWillBeSent", "request", "url") == [reports[name].as_uri()]
    assert reported(page, "Log.entryAdded", "entry", "text") == []
    assert reported(page, "Runtime.exceptionThrown", "exceptionDetails", "text") == []


def test_no_script_runs(page: Page, reports: dict[str, Path]) -> None:
    """The content security policy stops a script that got into the page."""
    page.show(reports["hostile"], width=800)
    assert page.ask("document.title") == "Export jobs"
    page.ask(
        "for (const text of ['document.title = \"script\"', '']) {"
        " const script = document.createElement('script'); script.textContent = text;"
        " if (!text) script.src = 'https://example.invalid/x.js'; document.body.append(script) }"
    )
    page.ask("new Promise(done => setTimeout(done, 100))")
    assert page.ask("document.title") == "Export jobs"
    refused = reported(page, "Log.entryAdded", "entry", "text")
    assert len(refused) == 2
    assert all("Content Security Policy" in text for text in refused)


@pytest.mark.parametrize("name", ["sample", "hostile", "empty"])
def test_it_prints(page: Page, reports: dict[str, Path], name: str) -> None:
    """The printed report is a few sheets, without collapsed parts."""
    page.show(reports[name], width=1280)
    paper = page.paper()
    assert paper.startswith(b"%PDF")
    assert 1 <= paper.count(b"/Type /Page\n") <= 9


def reported(page: Page, method: str, part: str, name: str) -> list[Any]:
    """Return the browser's events of one kind since the page was opened."""
    return [each["params"][part][name] for each in page.events if each.get("method") == method]
