"""The Dask recipes of docs/scheduling.md, on two worker processes of this machine."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest
from canary import CANARY
from dask.distributed import LocalCluster

from pleo_extract import COLUMNS, scan_lake, verify_lake
from pleo_extract.client import choose_shard, read_accounts
from pleo_extract.sandbox import Rules, Sandbox, World, serve

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "scheduling.md").read_text(encoding="utf-8")
RECIPES = [
    text for text in re.findall(r"^```py\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE) if "dask" in text
]
COMPANIES = 12
SAYS = """
import json
print(json.dumps([[receipt.name, receipt.code, receipt.mode] for receipt in receipts]))
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Yield two workers, each a process with one thread; they inherit this environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPANY_KEY", CANARY)
        with LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
        ) as started:
            yield started


def write_accounts(folder: Path, url: str, world: World, missing: str = "") -> list[str]:
    """Write an accounts file; the key of one company may be missing."""
    entries = [
        f'[[account]]\nname = "{company}"\ncompany_id = "{company}"\nrate = 100000\n'
        f'api_key_env = "{"NOT_SET" if company == missing else "COMPANY_KEY"}"\n'
        for company in world.companies
    ]
    (folder / "accounts.toml").write_text(f'base_url = "{url}"\n' + "\n".join(entries))
    return list(world.companies)


def start(recipe: str, folder: Path, cluster: LocalCluster) -> subprocess.Popen[str]:
    """Start a recipe as a program that uses the cluster."""
    program = recipe.replace("tcp://scheduler:8786", cluster.scheduler_address)
    program = program.replace('"s3://bucket/export_jobs"', repr(str(folder / "table")))
    program = program.replace('"accounts.toml"', repr(str(folder / "accounts.toml")))
    program = program.replace('Path("data")', f"Path({str(folder)!r})")
    program = program.replace("PARTS = 8", "PARTS = 3")
    (folder / "program.py").write_text(program + SAYS)
    environment = {name: value for name, value in os.environ.items() if name != "COMPANY_KEY"}
    with (folder / "program.log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, folder / "program.py"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )


def finish(program: subprocess.Popen[str], folder: Path) -> list[list[str | int]]:
    """Wait for the program; return name, code and mode of each receipt."""
    out, _ = program.communicate(timeout=120)
    assert program.returncode == 0, (folder / "program.log").read_text()[-3000:]
    found: list[list[str | int]] = json.loads(out.splitlines()[-1])
    return found


def test_there_are_two_recipes() -> None:
    """The page shows two recipes: one table for all, and one lake for each part."""
    assert [("merge_lakes" in text, 'format="delta"' in text) for text in RECIPES] == [
        (False, True),
        (True, False),
    ]


@pytest.mark.parametrize(
    ("recipe", "lake"), list(zip(RECIPES, ("table", "all"), strict=True)), ids=["table", "lakes"]
)
def test_every_row_is_there_once(recipe: str, lake: str, cluster: LocalCluster, tmp_path: Path) -> None:
    """Both recipes store each job once, also on the second run, and one failing company does not affect others."""
    world = World(jobs=600, companies=COMPANIES)
    sandbox = Sandbox(world, api_keys={CANARY: None})
    with serve(sandbox) as served:
        companies = write_accounts(tmp_path, served.url, world, missing=world.companies[0])
        parts = [choose_shard(read_accounts(tmp_path / "accounts.toml"), part, 3) for part in (1, 2, 3)]
        assert all(parts), "the test needs companies in every part"
        receipts = finish(start(recipe, tmp_path, cluster), tmp_path)
        assert sorted(name for name, code, _ in receipts if code) == [companies[0]]
        assert len(receipts) == COMPANIES
        found = scan_lake(tmp_path / lake).collect()
        assert sorted(found["company_id"].unique()) == sorted(companies[1:])
        write_accounts(tmp_path, served.url, world)
        world.advance(86_400)
        receipts = finish(start(recipe, tmp_path, cluster), tmp_path)
        assert {name: (code, mode) for name, code, mode in receipts} == {
            company: (0, "full" if company == companies[0] else "refresh") for company in companies
        }
    rows = scan_lake(tmp_path / lake).collect()
    assert sandbox.truth(rows.drop("extra").to_dicts(), world.now) == []
    assert rows.select("company_id", "id").is_unique().all()
    assert verify_lake(tmp_path / lake).ok
    if lake == "table":
        assert pl.read_delta(str(tmp_path / lake)).select(COLUMNS).height == rows.height


def test_a_part_whose_worker_dies_is_run_again(cluster: LocalCluster, tmp_path: Path) -> None:
    """Dask runs the part of a killed worker again, and no row is lost."""
    world = World(jobs=600, companies=COMPANIES)
    sandbox = Sandbox(world, api_keys={CANARY: None}, rules=Rules(latency=0.1))
    with serve(sandbox) as served:
        write_accounts(tmp_path, served.url, world)
        program = start(RECIPES[0], tmp_path, cluster)
        while not sandbox.requests and program.poll() is None:
            time.sleep(0.05)
        os.kill(next(iter(cluster.workers.values())).pid, signal.SIGKILL)
        receipts = finish(program, tmp_path)
    assert sorted(code for _, code, _ in receipts) == [0] * COMPANIES
    rows = scan_lake(tmp_path / "table").collect()
    assert sandbox.truth(rows.drop("extra").to_dicts(), world.now) == []
    assert rows.select("company_id", "id").is_unique().all()
