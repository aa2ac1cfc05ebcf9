"""The committed contract is the published one, and our declaration of it agrees."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from contract.mend import CONTRACT, find_block, mend
from contract.server import TOOLS
from pleo_extract.contract import FIELDS, PATH, SERVERS, STATUSES, PageOrder, Query

if TYPE_CHECKING:
    from contract.conftest import Note
SEED = Path(__file__).parents[3] / "shared/seed-export-jobs-v3.md"
AS_JSON = "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin.buffer), sys.stdout)"
KINDS = {
    ("string", "uuid"): "uuid",
    ("string", "date-time"): "instant",
    ("string", None): "text",
    ("integer", "int32"): "int32",
    ("integer", None): "int64",
    ("boolean", None): "bool",
}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """Return the committed contract as data."""
    command = [str(TOOLS / "bin/python"), "-c", AS_JSON]
    reported = subprocess.run(command, input=CONTRACT.read_bytes(), capture_output=True, check=True).stdout
    return dict(json.loads(reported))


def test_copy_is_verbatim(note: Note) -> None:
    """The committed file equals the seed's block byte for byte, if the seed is beside the project."""
    if not SEED.exists():
        note("comparison", "committed contract = the seed's", "not compared: no ../shared here")
        pytest.skip(
            "the seed does not lie beside the project (../shared), so there is nothing to compare with"
        )
    assert CONTRACT.read_bytes() == find_block(SEED.read_text(encoding="utf-8")).encode()
    note("comparison", "committed contract = the seed's", f"{CONTRACT.stat().st_size:,} bytes, verbatim")


def test_mends_are_found_word_for_word() -> None:
    """Mending fails if one of the three places in the contract has changed."""
    mended = mend(CONTRACT.read_text(encoding="utf-8"))
    with pytest.raises(ValueError, match=r"'pattern: YYYY.*' occurs 0 times"):
        mend(mended)


def test_fields(document: dict[str, Any], note: Note) -> None:
    """FIELDS has the contract's fields, with its types and its required fields."""
    job = document["components"]["schemas"]["ExportJobV3"]
    ours = {field.name: field for field in FIELDS}
    assert set(ours) == set(job["properties"])
    assert {name for name, field in ours.items() if field.required} == set(job["required"])
    kinds = {
        name: KINDS[reported["type"], reported.get("format")] for name, reported in job["properties"].items()
    }
    assert {name: field.kind for name, field in ours.items()} == kinds
    note("comparison", "our declaration = the contract", f"{len(ours)} fields")


def test_question(document: dict[str, Any]) -> None:
    """Path, servers, parameters, statuses and orders are those of the contract."""
    assert list(document["paths"]) == [PATH]
    assert list(SERVERS.values()) == [server["url"] for server in document["servers"]]
    parameters = document["paths"][PATH]["get"]["parameters"]
    assert {reported["name"] for reported in parameters} == set(Query.__slots__)
    assert {reported["schema"].get("pattern") for reported in parameters} == {None, "^[A-Z2-7=~]+$"}
    schemas = document["components"]["schemas"]
    assert list(STATUSES) == schemas["ExportJobStatus"]["enum"]
    assert [str(order) for order in PageOrder] == schemas["PageOrder"]["enum"]
