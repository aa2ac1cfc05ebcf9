"""The contract as Pleo publishes it, and a mended copy that tools can use.

    python tests/contract/mend.py > mended.yaml

`export-jobs-v3.yaml` is the OpenAPI document of Pleo's Export API 32.4.0, operation getExportJobsListV3, verbatim as
published at developers.pleo.io under the licence that it names, Apache 2.0. Three defects in it stop a tool from
checking anything. Only these are mended; the script fails if the text of one of them has changed:

1. The `pattern` of the dates is a template (`YYYY-MM-DDTHH:mi:ssZ`), not a regular expression: no real date matches.
2. `failureReasonType` is not nullable, although null must be expected, as in its neighbours.
3. Only the response 200 is declared: any other response would be a violation, however correct.

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
    """Return the contract with the three defects mended."""
    mended = _replace(contract, DATE_PICTURE, "", times=5)
    mended = _replace(mended, REASON, REASON + NULLABLE)
    return _replace(mended, PAGE, PAGE + ERROR)


def give_cursors_a_pattern(mended: str) -> str:
    """Return a copy for Prism's mock, which otherwise invents cursors that no request may send."""
    for name in ("endCursor", "startCursor"):
        place = CURSOR.format(name)
        mended = _replace(mended, place, place + CURSOR_PATTERN)
    return mended


def find_block(seed: str) -> str:
    """Return the fenced OpenAPI block of the page from which the contract was copied."""
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
