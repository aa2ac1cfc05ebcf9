"""Tests of the recipes of docs/scheduling.md: systemd checks the units, the DAG runs, the accounts file is read.

Tests of the recipes for Dask are in tests/cluster.
"""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from pleo_extract.client import read_accounts
from pleo_extract.sandbox import API_KEY, Sandbox, World, serve

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "scheduling.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Return the blocks of the page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_units_are_what_systemd_takes(tmp_path: Path) -> None:
    """The services and the timer have no error, as systemd checks them."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not on this machine")
    names = ("pleo-extract.service", "pleo-extract.timer", "pleo-extract-alert@.service")
    with installed(tmp_path) as srv:
        for name, text in zip(names, blocks("ini"), strict=True):
            (tmp_path / name).write_text(text.replace("/srv/pleo", srv))
    units = [str(tmp_path / name.replace("@", "@x")) for name in names]
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    about_ours = [line for line in done.stderr.splitlines() if "pleo-extract" in line]
    assert (done.returncode, about_ours) == (0, [])


def test_the_service_runs_commands_that_are_there(tmp_path: Path) -> None:
    """The service's commands end with 0 in systemd's environment, and others may read its lake; 3 is a failure."""
    settings = re.findall(r"^(\w+)=(.*)$", blocks("ini")[0], re.MULTILINE)
    service, commands = dict(settings), [value for name, value in settings if name == "ExecStart"]
    assert service["SuccessExitStatus"] == "69 75"
    assert (service["StateDirectoryMode"], service["UMask"]) == ("0755", "0022")
    with installed(tmp_path) as srv:
        file = service["EnvironmentFile"].replace("/srv/pleo", srv)
        given = dict(line.split("=", 1) for line in Path(file).read_text(encoding="utf-8").splitlines())
        for command in commands:
            words = (
                command.replace("/srv/pleo", srv).replace("/var/lib/pleo", str(tmp_path)).replace("%%", "%")
            )
            run_command(words.split(), given | {"XDG_CACHE_HOME": str(tmp_path / "cache")})
    assert len(commands) == 2
    assert all(path.stat().st_mode & 0o004 for path in (tmp_path / "export_jobs").glob("*/*.parquet"))


def test_the_dag_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The DAG defines a dump and a check after it, whose commands end with 0 against a sandbox."""
    text = blocks("py")[0]
    tasks: list[Task] = []

    class Dag:
        def __init__(self, dag_id: str, **_more: Any) -> None:
            assert re.fullmatch(r"\w+", dag_id)

        def __enter__(self) -> None: ...

        def __exit__(self, *_failure: object) -> None: ...

    class Task:
        def __init__(self, **given: Any) -> None:
            self.given, self.after = given, list[Task]()
            tasks.append(self)

        def __rshift__(self, later: Task) -> None:
            later.after.append(self)

    stand_ins: dict[str, dict[str, Any]] = {
        "airflow.sdk": {"DAG": Dag},
        "airflow.providers.standard.operators.bash": {"BashOperator": Task},
    }
    for name, members in stand_ins.items():
        module = ModuleType(name)
        module.__dict__.update(members)
        monkeypatch.setitem(sys.modules, name, module)
    exec(compile(text, "scheduling.md", "exec"), {})
    dump, check = tasks
    assert dump.given["skip_on_exit_code"] == 69
    assert (check.after, check.given["trigger_rule"], check.given["retries"]) == ([dump], "all_done", 0)
    with installed(tmp_path) as srv:
        for task in tasks:
            run_command(["bash", "-c", task.given["bash_command"].replace("/srv/pleo", srv)], {})
    assert (tmp_path / "srv/pleo/export_jobs/_lake").is_dir()


def test_the_accounts_file_is_one(tmp_path: Path) -> None:
    """The accounts file of the page has two companies, each with the place of its key."""
    path = tmp_path / "accounts.toml"
    path.write_text(blocks("toml")[0])
    accounts = read_accounts(path)
    assert [account.name for account in accounts] == ["Acme", "Globex"]
    assert [account.rate for account in accounts] == [500, 300]
    assert [account.source for account in accounts] == ["api_key_env", "api_key_file"]


@contextmanager
def installed(folder: Path) -> Iterator[str]:
    """Yield a folder like /srv/pleo, with the program and the key of a sandbox that runs meanwhile."""
    with serve(Sandbox(World(jobs=300))) as running:
        runpy.run_path(str(DOCS / "blocks.py"))["_environment"](running.url, folder)
        key = folder / "srv/pleo/key.env"
        key.write_text(f"PLEO_API_KEY={API_KEY}\n", encoding="utf-8")
        yield str(key.parent)


def run_command(words: list[str], environment: dict[str, str]) -> None:
    """Run the command with nothing but this environment; check that it ends with 0 and prints nothing on stdout."""
    bare = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
    done = subprocess.run(
        words, env=bare | environment, cwd="/", umask=0o022, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
