"""The Spark blocks of docs/engines.md, run in order."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from canary import CANARY

from pleo_extract import Client, dump_export_jobs
from pleo_extract.sandbox import Sandbox, World, serve

if TYPE_CHECKING:
    import pytest
    from pyspark.sql import SparkSession

    from pleo_extract.sandbox import Served

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "engines.md").read_text(encoding="utf-8")


def test_the_page_runs(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Spark blocks of the page work, except the one with Delta's reader, which the page calls untested.

    A folder here stands for the table in an object store; `tests/stores` tests real stores.

    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "sample").symlink_to(ROOT / "data" / "sample")
    api = Sandbox(World(jobs=90, companies=3), api_keys={CANARY: None})
    (tmp_path / "companies.txt").write_text("\n".join(api.world.companies))
    blocks = re.findall(r"^```py\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {"spark": spark}
    with serve(api) as server:
        for block in blocks:
            if "s3a://" in block:
                continue
            if "s3://" in block:
                _answer_a_table(block, server, names, tmp_path)
                continue
            here = block.replace(
                '.option("companies"', f'.option("base_url", "{server.url}").option("companies"'
            )
            here = here.replace('"companies.txt"', repr(str(tmp_path / "companies.txt")))
            here = here.replace('"failed.parquet"', repr(str(tmp_path / "failed.parquet")))
            exec(compile(here, "engines.md", "exec"), names)
            if "rates" in names:
                assert names["rates"].first()["company_id"] is None
                assert names["slow"].count() > 0
        failed = sum(job["status"] == "failed" for job in api.world.visible())
        assert spark.read.parquet(str(tmp_path / "failed.parquet")).count() == failed
    assert [block for block in blocks if "s3a://" in block] == [
        'answers(spark, spark.read.format("delta").load("s3a://bucket/export_jobs"))\n'
    ]
    assert sum("s3://" in block for block in blocks) == 1


def _answer_a_table(block: str, server: Served, names: dict[str, Any], folder: Path) -> None:
    table = folder / "table"
    with Client(server.url, api_key=CANARY) as client:
        dump_export_jobs(table, format="delta", client=client, workspace=folder / "work")
    given = r'"s3://bucket/export_jobs",\n\s+storage_options=\{"aws_region": "eu-west-1"\},'
    here, found = re.subn(
        given, f"{str(table)!r},", block.replace('"/shared/pleo"', repr(str(folder / "work")))
    )
    assert found == 1
    exec(compile(here, "engines.md", "exec"), names)
    assert names["spark"].table("export_jobs").count() == 90
