"""A lake's folder in DataFusion, in its own environment: `DATAFUSION_PYTHON` is the Python that has it."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

from canary import CANARY
from lakes import dump

from pleo_extract import scan_lake
from pleo_extract.lake.layout import Layout
from pleo_extract.sandbox import Sandbox, World

if TYPE_CHECKING:
    from pathlib import Path

READ = """
import json, sys
from datafusion import SessionContext

context = SessionContext()
context.register_parquet("jobs", sys.argv[1], table_partition_cols=[("created_month", "string")])
print(json.dumps(sorted(context.sql("SELECT id FROM jobs").to_pydict()["id"])))
"""


def test_the_folder_is_the_dataset(tmp_path: Path) -> None:
    """DataFusion reads each job once from the folder of a lake with several snapshots."""
    lake = tmp_path / "lake"
    sandbox = Sandbox(World(jobs=400, days=90, seed=12), api_keys={CANARY: None})
    for _ in range(3):
        dump(lake, sandbox)
        sandbox.world.advance(3 * 86_400)
    assert Layout(lake).numbers() == [1, 2, 3]
    program = [os.environ["DATAFUSION_PYTHON"], "-c", READ, str(lake)]
    said = subprocess.run(program, capture_output=True, check=True, timeout=60)
    assert json.loads(said.stdout) == scan_lake(lake).collect()["id"].sort().to_list()
