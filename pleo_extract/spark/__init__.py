"""The door to Spark: the live API as a data source, and the answers as views and functions of a Spark session.

    from pleo_extract.spark import answers, register

    register(spark)
    jobs = spark.read.format("pleo_export_jobs").option("companies", "accounts.toml").load()

    answers(spark, "data/export_jobs")
    spark.sql("SELECT * FROM failure_rates('month', per_company => FALSE)")

It needs the extra `spark` (pyspark 4.3 or newer), and `pleo-extract` on the workers too. No other part of this library
imports it.

    schema      the columns as Spark types
    options     the options of the data source
    pushing     filter pushdown: the filters of a query that the server can apply
    source      the data source: from companies to tasks, from tasks to Arrow batches
    session     answers: the statements of `sql/` over a lake, as views and functions of Spark
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
