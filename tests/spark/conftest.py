"""Spark sessions on this machine: loopback only, without UI, in a zone other than UTC."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from canary import CANARY
from pyspark.sql import SparkSession

from spark.clusters import MANY_QUESTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """Yield a session in local[2] with filter pushdown, whose executors have the canary as their key."""
    folder = tmp_path_factory.mktemp("spark")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLEO_API_KEY", CANARY)
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.delenv("PLEO_COMPANY_ID", raising=False)
        builder = SparkSession.builder.master("local[2]").config("spark.sql.warehouse.dir", str(folder))
        settings = MANY_QUESTIONS | {"spark.sql.python.filterPushdown.enabled": "true"}
        for name, value in settings.items():
            builder = builder.config(name, value)
        session = builder.getOrCreate()
    assert "PLEO_API_KEY" not in os.environ or os.environ["PLEO_API_KEY"] != CANARY
    session.sparkContext.setLogLevel("OFF")
    yield session
    session.stop()
