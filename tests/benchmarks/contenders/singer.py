"""A Singer tap made with the Singer SDK, its messages written to a file. Arguments: URL, key, output folder."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

TITLE = "Singer SDK, the tap alone"
REQUIREMENTS = ["singer-sdk"]


def make_tap(url: str, key: str) -> Any:
    """Return the tap."""
    from singer_sdk import RESTStream, Tap  # noqa: PLC0415 - only in its own environment
    from singer_sdk import typing as th  # noqa: PLC0415 - as above
    from singer_sdk.authenticators import BasicAuthenticator  # noqa: PLC0415 - as above

    text, instant = th.StringType, th.DateTimeType
    kinds: dict[str, Any] = {
        "id": text,
        "companyId": text,
        "status": text,
        "createdAt": instant,
        "startedAt": instant,
        "completedAt": instant,
        "expiredAt": instant,
        "lastUpdatedAt": instant,
        "expiresIn": th.IntegerType,
        "createdBy": text,
        "isInteractive": th.BooleanType,
        "numberOfItems": th.IntegerType,
        "vendorBasedBookkeeping": th.BooleanType,
        "failureReasonType": text,
        "failureReason": text,
    }

    class ExportJobs(RESTStream):  # type: ignore[type-arg,misc,unused-ignore]
        name = "export_jobs"
        path = "/v3/export-jobs"
        primary_keys = ("id",)
        records_jsonpath = "$.data[*]"
        url_base = url
        schema = th.PropertiesList(*(th.Property(name, kind) for name, kind in kinds.items())).to_dict()

        @property
        def authenticator(self) -> Any:
            return BasicAuthenticator(username=key, password="")

        def get_url_params(self, _context: Any, next_page_token: Any) -> dict[str, Any]:
            return {"limit": 100} | ({"after": next_page_token} if next_page_token else {})

        def get_next_page_token(self, response: Any, previous_token: Any) -> Any:
            reported = response.json()["pagination"]
            return reported["endCursor"] if reported["hasNextPage"] else None

    class PleoTap(Tap):  # type: ignore[misc,unused-ignore]
        name = "tap-pleo"
        config_jsonschema = th.PropertiesList().to_dict()

        def discover_streams(self) -> list[Any]:
            return [ExportJobs(self)]

    return PleoTap(config={})


def run(url: str, key: str, out: str) -> None:
    """Fetch all jobs as Singer messages into a file in the folder."""
    Path(out).mkdir()
    with Path(out, "messages.jsonl").open("w", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        make_tap(url, key).sync_all()


if __name__ == "__main__":
    run(*sys.argv[1:4])
