"""dlt with a hand-written resource that yields Arrow tables. Arguments: URL, key, output folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

TITLE = "dlt, Arrow resource to Parquet"
REQUIREMENTS = ["dlt[parquet,filesystem]", "requests", "pyarrow"]
TIMES = ("createdAt", "startedAt", "completedAt", "expiredAt", "lastUpdatedAt")


def pages(url: str, key: str) -> Iterator[Any]:
    """Yield the list as Arrow tables of twenty pages."""
    import pyarrow as pa  # noqa: PLC0415 - only in its own environment
    import requests  # noqa: PLC0415 - as above
    from pyarrow import compute  # noqa: PLC0415 - as above

    kinds = {
        "id": pa.string(),
        "companyId": pa.string(),
        "status": pa.string(),
        "createdBy": pa.string(),
        "expiresIn": pa.int32(),
        "isInteractive": pa.bool_(),
        "numberOfItems": pa.int64(),
        "vendorBasedBookkeeping": pa.bool_(),
        "failureReasonType": pa.string(),
        "failureReason": pa.string(),
    } | dict.fromkeys(TIMES, pa.string())

    def table(rows: list[dict[str, Any]]) -> Any:
        made = pa.Table.from_pylist(rows, schema=pa.schema(kinds))
        for column in TIMES:
            instants = compute.strptime(made[column], format="%Y-%m-%dT%H:%M:%SZ", unit="us")
            place = made.schema.get_field_index(column)
            made = made.set_column(place, column, instants.cast(pa.timestamp("us", "UTC")))
        return made

    rows: list[dict[str, Any]] = []
    params: dict[str, Any] = {"limit": 100}
    with requests.Session() as session:
        session.auth = (key, "")
        while True:
            response = session.get(f"{url}/v3/export-jobs", params=params)
            response.raise_for_status()
            page = response.json()
            rows += page["data"]
            if len(rows) >= 2_000 or not page["pagination"]["hasNextPage"]:
                yield table(rows)
                rows = []
            if not page["pagination"]["hasNextPage"]:
                break
            params["after"] = page["pagination"]["endCursor"]


def run(url: str, key: str, out: str) -> None:
    """Fetch all jobs into Parquet files below the folder."""
    import dlt  # noqa: PLC0415 - only in its own environment

    resource = dlt.resource(pages(url, key), name="export_jobs", write_disposition="replace")
    pipeline = dlt.pipeline(
        "pleo",
        destination=dlt.destinations.filesystem(Path(out).as_uri()),
        dataset_name="pleo",
        pipelines_dir=f"{out}-state",
    )
    pipeline.run(resource, loader_file_format="parquet").raise_on_failed_jobs()


if __name__ == "__main__":
    run(*sys.argv[1:4])
