"""Tests of how the pages install the package: every block runs in an empty home, with the wheel that was built here.

`.ci/install` builds the wheel and runs this.
"""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent.parent
TOOLS = Path(os.environ["INSTALL_TOOLS"])
blocks = runpy.run_path(str(ROOT / "docs" / "blocks.py"))
INSTALLING = [
    pytest.param(block.text, id=f"{page}-{block.line}")
    for page in ("README.md", "docs/install.md")
    for block in blocks["read_blocks"]((ROOT / page).read_text(encoding="utf-8"))
    if block.installs and "pleo-extract" in block.text
]


def run(script: str, home: Path) -> str:
    """Run a script in bash, in an empty environment whose home is `home`, and return what it prints."""
    # The names of the tools come last on the PATH: a script finds the python3 of the machine, and what it installs.
    (home / "bin").mkdir(exist_ok=True)
    for name in ("uv", "uvx", "pipx"):
        if not (home / "bin" / name).exists():
            (home / "bin" / name).symlink_to(TOOLS / "bin" / name)
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_", "SSL_"))}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=home,
        env=kept
        | {
            "HOME": str(home),
            "PATH": f"{home}/.local/bin:/usr/local/bin:/usr/bin:/bin:{home}/bin",
            "PIP_FIND_LINKS": f"{TOOLS / 'dist'} {os.environ.get('PIP_FIND_LINKS', '')}",
            "UV_FIND_LINKS": str(TOOLS / "dist"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    return done.stdout


def test_there_is_something_to_install() -> None:
    """The README and docs/install.md each install the package in several ways."""
    assert len(INSTALLING) >= 6


@pytest.mark.parametrize("script", INSTALLING)
def test_a_page_installs(script: str, tmp_path: Path) -> None:
    """The block of a page runs as written, and the program that it installs answers."""
    printed = run(script.replace("/srv/pleo", f"{tmp_path}/srv/pleo"), tmp_path)
    found = [*tmp_path.rglob("bin/pleo-extract")]
    assert found
    assert "pleo-extract" in run(f"'{found[0]}' --version", tmp_path)
    if "pleo-extract demo" in script:
        assert "failure_rates" in printed
        assert (tmp_path / "demo/export_jobs/_lake/current").exists()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Yield a folder that other users can reach, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_the_steps_of_the_dockerfile_run(open_folder: Path) -> None:
    """The steps of the Dockerfile install a program that dumps as a user without rights, below one folder."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    places = {
        "/opt/pleo": f"{open_folder}/opt/pleo",
        "/data": f"{open_folder}/data",
        "/src": f"{open_folder}/src",
    }

    def move(line: str) -> str:
        return re.sub(r"(?<![\w/])/(?:opt/pleo|data|src)\b", lambda found: places[found[0]], line)

    for source in ("pyproject.toml", "README.md", "LICENSE", "pleo_extract"):
        copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
        (open_folder / "src").mkdir(exist_ok=True)
        copy(ROOT / source, open_folder / "src" / source)
    steps = re.findall(r"^RUN (.*)$", text, re.MULTILINE)
    assert len(steps) == 2
    run(move(steps[0]).replace("python -m venv", "python3 -m venv"), open_folder)
    (open_folder / "data").mkdir()
    user = re.findall(r"^USER (\d+)$", text, re.MULTILINE)[-1]
    os.chown(open_folder / "data", int(user), int(user))
    variables = re.findall(r"^ENV (.*)$", text, re.MULTILINE)[-1]
    (program,) = re.findall(r'^ENTRYPOINT \["(.*)"\]$', text, re.MULTILINE)
    as_user = f"setpriv --reuid {user} --regid {user} --clear-groups env -i {move(variables)} {move(program)}"
    printed = run(
        f"cd '{open_folder}/data' && {as_user} demo --out export_jobs && {as_user} status export_jobs",
        open_folder,
    )
    assert "complete" in printed
    assert (open_folder / "data/export_jobs/_lake/current").stat().st_uid == int(user)
