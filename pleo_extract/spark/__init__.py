"""The door to Spark: the live API as a data source, and the answers as views and functions of a Spark session.

    from pleo_extract.spark import answers, register

    register(spark)
    jobs = spark.read.format("pleo_export_jobs").option("companies", "accounts.toml").load()

    answers(spark, "data/export_jobs")
    spark.sql("SELECT * FROM failure_rates('month', per_company => FALSE)")

It needs the extra `spark` (pyspark 4.3 or newer), and `pleo-extract` on the workers too. Nothing else in this library
imports it.

    schema      the columns as Spark types
    options     what may be said to the data source
    pushing     filters that travel to the server
    source      the data source: companies to tasks, tasks to Arrow batches
    session     answers: the statements of `sql/` over a lake, as Spark's views and functions
"""

from __future__ import annotations

try:
    from pleo_extract.spark.session import answers
    from pleo_extract.spark.source import list_companies, register
except ModuleNotFoundError as exc:
    if exc.name != "pyspark":
        raise
    raise ModuleNotFoundError(
        "pleo_extract.spark needs pyspark; install it with: pip install 'pleo-extract[spark]'", name="pyspark"
    ) from exc

__all__ = ["answers", "list_companies", "register"]
