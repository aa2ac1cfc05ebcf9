"""The data source and the answers in a session of Spark Connect, which has no Spark context."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from canary import CANARY

from pleo_extract.sandbox import Sandbox, World, serve
from spark.clusters import SETTINGS

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import json, sys
from pyspark.sql import SparkSession
from pleo_extract.errors import ConfigurationError
from pleo_extract.spark import answers, register

builder = SparkSession.builder.remote("local[2]")
for name, value in json.loads(sys.argv[1]).items():
    builder = builder.config(name, value)
spark = builder.getOrCreate()
register(spark)
jobs = spark.read.format("pleo_export_jobs").option("base_url", sys.argv[2]).option("rate", "100000").load()
said = {"jobs": jobs.count(), "failed": jobs.where("status = 'failed'").count()}
answers(spark, "data/sample", only=["failure_rates"])
said["answer"] = spark.sql("SELECT sum(failed) FROM failure_rates('month', per_company => FALSE)").first()[0]
spark.conf.set("spark.executorEnv.PLEO_API_KEY", "x")
try:
    register(spark)
except ConfigurationError as exc:
    said["refused"] = str(exc)
spark.stop()
print(json.dumps(said))
"""
CONNECT = {"spark.connect.grpc.binding.address": "127.0.0.1", "spark.connect.grpc.binding.port": "0"}


def test_a_session_of_spark_connect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`register` and `answers` work, filters reach the server, and a setting that shows a credential is refused."""
    api = Sandbox(World(jobs=200, companies=2), api_keys={CANARY: None})
    monkeypatch.setenv("PLEO_API_KEY", CANARY)
    monkeypatch.setenv("SPARK_TESTING", "1")  # else the client does not ask the server for its port
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with serve(api) as server:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, json.dumps(SETTINGS | CONNECT), server.url],
            cwd=ROOT,
            env=os.environ,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    failed = sum(job["status"] == "failed" for job in api.world.visible())
    assert (said["jobs"], said["failed"], said["answer"]) == (200, failed, 225)
    assert ("failed",) in {tuple(ask.parameters.get("statuses", ())) for ask in api.requests}
    assert said["refused"].startswith("spark.executorEnv.PLEO_API_KEY holds a credential")
