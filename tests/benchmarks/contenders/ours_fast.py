"""pleo-extract with the extra `fast`, as its users run it. Arguments: URL, key, output folder."""

from __future__ import annotations

import sys

from ours import run

TITLE = "pleo-extract dump, with [fast]"
REQUIREMENTS: list[str] = []
EXTRA = "[fast]"


if __name__ == "__main__":
    run(*sys.argv[1:4])
