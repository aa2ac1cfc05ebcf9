"""dlt with its rest_api source, to Parquet. Arguments: URL, key, output folder."""

from __future__ import annotations

import sys
from pathlib import Path

TITLE = "dlt, rest_api to Parquet"
REQUIREMENTS = ["dlt[parquet,filesystem]"]


def pipe(url: str, key: str, out: str, destination: object, **how: str) -> None:
    """Run the pipeline to a destination."""
    import dlt  # noqa: PLC0415 - only in its own environment
    from dlt.sources.rest_api import rest_api_source  # noqa: PLC0415 - as above

    source = rest_api_source(
        {
            "client": {
                "base_url": url,
                "auth": {"type": "http_basic", "username": key, "password": ""},
                "paginator": {
                    "type": "cursor",
                    "cursor_path": "pagination.endCursor",
                    "cursor_param": "after",
                    "has_more_path": "pagination.hasNextPage",
                },
            },
            "resources": [
                {
                    "name": "export_jobs",
                    "primary_key": "id",
                    "write_disposition": "replace",
                    "endpoint": {"path": "v3/export-jobs", "params": {"limit": 100}, "data_selector": "data"},
                }
            ],
        }
    )
    pipeline = dlt.pipeline(
        "pleo", destination=destination, dataset_name="pleo", pipelines_dir=f"{out}-state"
    )
    pipeline.run(source, **how).raise_on_failed_jobs()


def run(url: str, key: str, out: str) -> None:
    """Fetch all jobs into Parquet files below the folder."""
    import dlt  # noqa: PLC0415 - only in its own environment

    pipe(url, key, out, dlt.destinations.filesystem(Path(out).as_uri()), loader_file_format="parquet")


if __name__ == "__main__":
    run(*sys.argv[1:4])
