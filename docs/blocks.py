"""Run the code blocks of a document in order, as a reader would, and capture what they print.

`python` blocks share one namespace, `sh` blocks run in bash. Both run in a new folder that holds only
`data/sample` and `data/names.csv`. The environment names a sandbox with the jobs of the sample as the server, and `…`
stands for its key. A `text` block directly below a block is its output. A `cron` block runs as cron runs it: with an empty
environment, in `/bin/sh`. `/srv/pleo` is a folder beside, with the program installed. Blocks of other languages do
not run, nor do `sh` blocks that install something: `.ci/install` runs these.
"""
# ruff: noqa: INP001 - a script, not part of a package

from __future__ import annotations

import contextlib
import io
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from pleo_extract.sandbox import API_KEY, Sandbox, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parent.parent
FENCED = re.compile(r"^```(\w*)\n(.*?)^```\n(?:\n```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE)
INSTALLS = re.compile(r"^make |pip install|pipx install|uv tool install", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """One code block of a document.

    Attributes:
        language: the language of the fence.
        text: the code.
        line: the line of the fence in the document.
        output: the documented output, or None.
        span: where the output is in the document.
    """

    language: str
    text: str
    line: int
    output: str | None
    span: tuple[int, int]

    @property
    def installs(self) -> bool:
        """Return whether the block installs something, so that a test must not run it."""
        return self.language == "sh" and INSTALLS.search(self.text) is not None


def read_blocks(document: str) -> list[Block]:
    """Return the blocks of a document, in order."""
    return [
        Block(found[1], found[2], document.count("\n", 0, found.start()) + 1, found[3], found.span(3))
        for found in FENCED.finditer(document)
        if found[1] != "text"
    ]


def run_blocks(document: str) -> Iterator[tuple[Block, Callable[[], str]]]:
    """Yield each block that can run, with a function that runs it and returns what it printed.

    The function raises AssertionError if the block fails.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        serve(Sandbox(runpy.run_path(str(ROOT / "data" / "make_sample.py"))["make_world"]())) as running,
        patch.dict(os.environ, _environment(running.url, Path(folder))),
        contextlib.chdir(folder),
    ):
        shutil.copytree(ROOT / "data" / "sample", "data/sample")
        shutil.copy(ROOT / "data" / "names.csv", "data/names.csv")
        names: dict[str, Any] = {"__name__": "__document__"}
        for block in read_blocks(document):
            if block.language == "python":
                yield block, partial(_run_python, block, names)
            elif block.language == "sh" and not block.installs:
                yield block, partial(_run_shell, block.text, block.line)
            elif block.language == "cron":
                yield block, partial(_run_cron, block.text, block.line)


def _environment(url: str, folder: Path) -> dict[str, str]:
    """Return the environment: the sandbox as the server, and a `pleo-extract` that runs this interpreter."""
    command = folder / "srv" / "pleo" / ".venv" / "bin" / "pleo-extract"
    command.parent.mkdir(parents=True)
    # It names the server itself, because an empty environment, as cron's, must not reach the real one.
    variables = f'PLEO_BASE_URL="${{PLEO_BASE_URL-{url}}}" PYTHONPATH="{ROOT}"'
    program = f'{variables} exec "{sys.executable}" -m pleo_extract "$@"'
    command.write_text(f"#!/bin/sh\n{program}\n", encoding="utf-8")
    command.chmod(0o755)
    return {
        "PLEO_API_KEY": API_KEY,
        "PLEO_BASE_URL": url,
        "PATH": f"{command.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "error",
        "COLUMNS": "100",
    }


def _run_python(block: Block, names: dict[str, Any]) -> str:
    printed = io.StringIO()
    # The blank lines make line numbers in a traceback those of the document.
    code = compile("\n" * block.line + block.text, "document", "exec")
    with contextlib.redirect_stdout(printed):
        exec(code, names)  # noqa: S102 - the project's own documents
    return printed.getvalue()


def _run_shell(text: str, line: int) -> str:
    return _run(["bash", "-euo", "pipefail", "-c", text], line)


def _run_cron(text: str, line: int) -> str:
    """Run the command of a crontab's line in the environment that cron gives it, and check that cron sends no mail."""
    # cron ends the command at the first % without a backslash, and gives the rest to it as its input.
    command = re.split(r"(?<!\\)%", text.split(maxsplit=5)[5])[0].replace(r"\%", "%")
    given = {"HOME": str(Path.cwd()), "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}
    bare = [f"{name}={value}" for name, value in given.items()]
    printed = _run(["env", "-i", *bare, "/bin/sh", "-c", command], line)
    assert printed == "", f"line {line} printed {printed}"
    return printed


def _run(words: list[str], line: int) -> str:
    *before, script = words
    script = script.replace("…", API_KEY).replace("/srv/pleo", str(Path.cwd() / "srv" / "pleo"))
    done = subprocess.run([*before, script], capture_output=True, text=True, check=False, timeout=300)  # noqa: S603 - the project's own documents
    assert done.returncode == 0, f"line {line} ended with {done.returncode}: {done.stderr}"
    return done.stdout


def fill(document: str) -> str:
    """Return the document with each documented output replaced by what its block prints now."""
    pieces, at = [], 0
    for block, run in run_blocks(document):
        printed = run()
        if block.output is not None:
            pieces += [document[at : block.span[0]], printed]
            at = block.span[1]
    return "".join([*pieces, document[at:]])
