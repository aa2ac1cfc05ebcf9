"""Spark sessions on this machine: loopback only, without UI, in a zone other than UTC."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import pytest
from canary import CANARY
from pyspark.sql import SparkSession

from spark.clusters import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterator

MANY_QUESTIONS: Final = {
    "spark.driver.extraJavaOptions": "-XX:+UseSerialGC",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
}
"""Settings for one process that plans hundreds of large queries over few rows: Java's second compiler halves the time of
planning, and interpreting an expression takes less time than compiling it. The programs on clusters compile theirs."""


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """Yield a session in local[2] with filter pushdown, whose executors have the canary as their key."""
    folder = tmp_path_factory.mktemp("spark")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLEO_API_KEY", CANARY)
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.delenv("PLEO_COMPANY_ID", raising=False)
        builder = SparkSession.builder.master("local[2]").config("spark.sql.warehouse.dir", str(folder))
        settings = SETTINGS | {"spark.sql.python.filterPushdown.enabled": "true"} | MANY_QUESTIONS
        for name, value in settings.items():
            builder = builder.config(name, value)
        session = builder.getOrCreate()
    assert "PLEO_API_KEY" not in os.environ or os.environ["PLEO_API_KEY"] != CANARY
    session.sparkContext.setLogLevel("OFF")
    yield session
    session.stop()
