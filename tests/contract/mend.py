"""The contract as Pleo publishes it, and the copy that tools can work with.

    python tests/contract/mend.py > mended.yaml

`export-jobs-v3.yaml` is the OpenAPI document of Pleo's Export API 32.4.0, operation getExportJobsListV3, word for
word as published at developers.pleo.io under the licence that it names, Apache 2.0. Three things in it stop
a tool from checking anything, and only these are mended, each found word for word or the script fails:

1. The `pattern` of the dates is a picture (`YYYY-MM-DDTHH:mi:ssZ`), not an expression: it refuses every real date.
2. `failureReasonType` is not marked nullable, yet null must be expected, as for its neighbours.
3. No answer but 200 is declared: any other one would be a violation, however right.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

__all__ = ["CONTRACT", "find_block", "give_cursors_a_pattern", "mend"]

CONTRACT = Path(__file__).with_name("export-jobs-v3.yaml")
SEED_BLOCK = re.compile(r"^````yaml get /v3/export-jobs\n(.*?)^````$", re.DOTALL | re.MULTILINE)

DATE_PICTURE = "          pattern: YYYY-MM-DDTHH:mi:ssZ\n"
REASON = "          description: This can be one of ExportJobFailureReasonType values\n"
NULLABLE = "          nullable: true\n"
PAGE = "                $ref: '#/components/schemas/CursorPaginatedResponseExportJobV3'\n"
ERROR = """\
        default:
          description: Anything but the list.
          content:
            application/json;charset=UTF-8:
              schema:
                required:
                  - type
                  - message
                type: object
                properties:
                  type:
                    type: string
                  message:
                    type: string
"""
CURSOR = "        {}:\n          type: string\n"
CURSOR_PATTERN = "          pattern: ^[A-Z2-7=~]+$\n"


def mend(contract: str) -> str:
    """The contract with the three mends."""
    mended = _replace(contract, DATE_PICTURE, "", times=5)
    mended = _replace(mended, REASON, REASON + NULLABLE)
    return _replace(mended, PAGE, PAGE + ERROR)


def give_cursors_a_pattern(mended: str) -> str:
    """A copy for Prism's mock alone, which else invents cursors that no request may carry."""
    for name in ("endCursor", "startCursor"):
        place = CURSOR.format(name)
        mended = _replace(mended, place, place + CURSOR_PATTERN)
    return mended


def find_block(seed: str) -> str:
    """The fenced OpenAPI block of the page that the contract was taken from."""
    found = SEED_BLOCK.findall(seed)
    if len(found) != 1:
        raise ValueError(f"{len(found)} OpenAPI blocks found in the seed, one expected")
    return str(found[0])


def _replace(text: str, old: str, new: str, *, times: int = 1) -> str:
    if text.count(old) != times:
        raise ValueError(f"{old.strip()!r} occurs {text.count(old)} times in the contract, not {times}")
    return text.replace(old, new)


if __name__ == "__main__":
    sys.stdout.write(mend(CONTRACT.read_text(encoding="utf-8")))
