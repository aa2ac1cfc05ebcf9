"""What the objects show that a session at the prompt or a notebook prints."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import pleo_extract
from pleo_extract import (
    Client,
    Lake,
    PleoExtractError,
    Receipt,
    UsageError,
    connect,
    dump_export_jobs,
    iter_export_jobs,
    merge_lakes,
    scan_lake,
)
from pleo_extract.sandbox import API_KEY, Sandbox, World

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).parent.parent / "docs" / "exit-codes.md"


@pytest.fixture
def client() -> Iterator[Client]:
    """Return a client of a sandbox with 300 jobs."""
    api = Sandbox(World(jobs=300))
    with Client("https://sandbox.invalid", api_key=API_KEY, transport=api, rate=10_000) as client:
        yield client


def test_a_receipt_prints_as_two_lines(tmp_path: Path, client: Client) -> None:
    """`print(receipt)` shows the lake and the run, and its repr fits in a line."""
    receipt = dump_export_jobs(tmp_path / "lake", client=client, progress=False)
    lake, run = str(receipt).split("\n")
    assert lake == f"{tmp_path}/lake: 300 jobs, snapshot 1, {len(receipt.months_written)} months written"
    assert run.startswith("complete, full sync (first dump): 300 jobs on ")
    assert repr(receipt) == f"<Receipt of {tmp_path}/lake: complete, 300 jobs, snapshot 1, code 0>"


def test_the_receipt_of_a_merge_names_its_source(tmp_path: Path, client: Client) -> None:
    """The second line of a merge's receipt says how many rows it took, and from where."""
    dump_export_jobs(tmp_path / "lake", client=client, progress=False)
    receipt = merge_lakes(tmp_path / "lake", tmp_path / "other", progress=False)
    assert str(receipt).split("\n")[1].startswith(f"300 of 300 jobs taken from {tmp_path}/lake")


def test_a_receipt_completes_what_it_says() -> None:
    """The names that an editor offers are the fields and `to_dict`: nothing that only makes receipts."""
    names = dir(Receipt())
    assert {"verdict", "months_written", "to_dict"} <= set(names)
    assert set(names) - {"to_dict"} == Receipt().to_dict().keys()


def test_a_notebook_shows_text_as_text() -> None:
    """The HTML of a receipt is one table, in which nothing of a server's text is markup."""
    shown = Receipt(lake="a<b>", error='<img src="x">\x1b[2J', code=76)._repr_html_()
    assert shown.startswith("<table>")
    assert "a&lt;b&gt;" in shown
    assert not re.search(r"<(?!/?(?:table|caption|tr|th|td)\b)|\x1b", shown)


def test_a_notebook_shows_a_status_as_a_table(tmp_path: Path, client: Client) -> None:
    """The HTML of a status has a row for each line of `pleo-extract status`."""
    dump_export_jobs(tmp_path / "lake", client=client, progress=False)
    status = Lake(tmp_path / "lake").status()
    shown = status._repr_html_()
    for name, _ in status.describe():
        assert f">{name}</th>" in shown
    assert "300, " in shown
    assert "complete" in shown


def test_batches_say_what_they_are(client: Client) -> None:
    """The iterator of `iter_export_jobs` says how it is read."""
    assert repr(iter_export_jobs(client=client)).startswith("<Batches of export jobs: iterate")


def test_a_client_in_place_of_a_lake_is_named(client: Client) -> None:
    """A client as the first argument is refused as what it is, before a credential is looked for."""
    for function in (dump_export_jobs, connect, Lake, scan_lake):
        with pytest.raises(UsageError, match="the lake's folder is a path, not a Client"):
            function(client)  # type: ignore[arg-type]


def test_the_errors_of_the_table_are_public() -> None:
    """Every error that docs/exit-codes.md names can be imported from the package."""
    named = set(re.findall(r"`([A-Z]\w+)`", PAGE.read_text(encoding="utf-8").partition("<!-- generated")[2]))
    assert len(named) > 15
    assert all(issubclass(getattr(pleo_extract, name), PleoExtractError) for name in named)
