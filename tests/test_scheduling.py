"""Tests of the recipes of docs/scheduling.md: systemd checks the units, the DAG runs, the accounts file is read.

Tests of the recipes for Dask are in tests/cluster.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pleo_extract.client import read_accounts
from pleo_extract.sandbox import API_KEY, Sandbox, World, serve

PAGE = (Path(__file__).parent.parent / "docs" / "scheduling.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Return the blocks of the page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_units_are_what_systemd_takes(tmp_path: Path) -> None:
    """The service and the timer have no error, as systemd checks them."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not on this machine")
    service, timer = blocks("ini")
    (tmp_path / "pleo-extract.service").write_text(service)
    (tmp_path / "pleo-extract.timer").write_text(timer)
    units = [str(tmp_path / name) for name in ("pleo-extract.service", "pleo-extract.timer")]
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    about_ours = [line for line in done.stderr.splitlines() if "pleo-extract" in line]
    assert (done.returncode, about_ours) == (0, [])


def test_the_service_runs_a_command_that_is_there(tmp_path: Path) -> None:
    """The command of the service ends with 0 against a sandbox, and the service accepts 69 and 75."""
    service = blocks("ini")[0]
    command = re.search(r"^ExecStart=/usr/bin/env pleo-extract (.*)$", service, re.MULTILINE)
    assert command is not None
    assert re.search(r"^SuccessExitStatus=69 75$", service, re.MULTILINE)
    run_command(command[1].replace("/var/lib/pleo/export_jobs", str(tmp_path / "lake")))


def test_the_dag_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The DAG defines one task, whose command ends with 0 against a sandbox."""
    text = blocks("py")[0]
    made: list[dict[str, Any]] = []

    class Dag:
        def __init__(self, dag_id: str, **_more: Any) -> None:
            assert re.fullmatch(r"\w+", dag_id)

        def __enter__(self) -> None: ...

        def __exit__(self, *_failure: object) -> None: ...

    stand_ins: dict[str, dict[str, Any]] = {
        "airflow.sdk": {"DAG": Dag},
        "airflow.providers.standard.operators.bash": {"BashOperator": lambda **task: made.append(task)},
    }
    for name, members in stand_ins.items():
        module = ModuleType(name)
        module.__dict__.update(members)
        monkeypatch.setitem(sys.modules, name, module)
    exec(compile(text, "scheduling.md", "exec"), {})
    (task,) = made
    assert task["skip_on_exit_code"] == 69
    run_command(
        task["bash_command"].removeprefix("pleo-extract ").replace("data/export_jobs", str(tmp_path / "lake"))
    )


def test_the_accounts_file_is_one(tmp_path: Path) -> None:
    """The accounts file of the page has two companies, each with the place of its key."""
    path = tmp_path / "accounts.toml"
    path.write_text(blocks("toml")[0])
    accounts = read_accounts(path)
    assert [account.name for account in accounts] == ["Acme", "Globex"]
    assert [account.rate for account in accounts] == [500, 300]
    assert [account.source for account in accounts] == ["api_key_env", "api_key_file"]


def run_command(words: str) -> None:
    """Run `pleo-extract` against a sandbox, and check that it ends with 0 and prints nothing on stdout."""
    with serve(Sandbox(World(jobs=300))) as running:
        done = subprocess.run(
            [sys.executable, "-m", "pleo_extract", *words.split()],
            env=os.environ | {"PLEO_API_KEY": API_KEY, "PLEO_BASE_URL": running.url},
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
