"""A low-code source of the Airbyte CDK, its messages written to a file. Arguments: URL, key, output folder."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

TITLE = "Airbyte CDK, the source alone"
REQUIREMENTS = ["airbyte-cdk"]
TEXTS = ("id", "companyId", "status", "createdBy", "failureReasonType", "failureReason")
TIMES = ("createdAt", "startedAt", "completedAt", "expiredAt", "lastUpdatedAt")
NUMBERS = ("expiresIn", "numberOfItems")
TRUTHS = ("isInteractive", "vendorBasedBookkeeping")


def make_manifest(url: str) -> dict[str, Any]:
    """Return the declaration of the source."""
    kinds = dict.fromkeys((*TEXTS, *TIMES), "string") | dict.fromkeys(NUMBERS, "integer")
    kinds |= dict.fromkeys(TRUTHS, "boolean")
    properties = {name: {"type": ["null", kind]} for name, kind in kinds.items()}
    schema = {"$schema": "http://json-schema.org/schema#", "type": "object", "properties": properties}
    return {
        "version": "6.0.0",
        "type": "DeclarativeSource",
        "check": {"type": "CheckStream", "stream_names": ["export_jobs"]},
        "streams": [
            {
                "type": "DeclarativeStream",
                "name": "export_jobs",
                "primary_key": ["id"],
                "schema_loader": {"type": "InlineSchemaLoader", "schema": schema},
                "retriever": {
                    "type": "SimpleRetriever",
                    "requester": {
                        "type": "HttpRequester",
                        "url_base": url,
                        "path": "/v3/export-jobs",
                        "http_method": "GET",
                        "authenticator": {
                            "type": "BasicHttpAuthenticator",
                            "username": "{{ config['key'] }}",
                            "password": "",
                        },
                        "request_parameters": {"limit": "100"},
                    },
                    "record_selector": {
                        "type": "RecordSelector",
                        "extractor": {"type": "DpathExtractor", "field_path": ["data"]},
                    },
                    "paginator": {
                        "type": "DefaultPaginator",
                        "page_token_option": {
                            "type": "RequestOption",
                            "inject_into": "request_parameter",
                            "field_name": "after",
                        },
                        "pagination_strategy": {
                            "type": "CursorPagination",
                            "cursor_value": "{{ response.pagination.endCursor }}",
                            "stop_condition": "{{ not response.pagination.hasNextPage }}",
                        },
                    },
                },
            }
        ],
        "spec": {
            "type": "Spec",
            "connection_specification": {"type": "object", "properties": {"key": {"type": "string"}}},
        },
    }


def run(url: str, key: str, out: str) -> None:
    """Fetch all jobs as Airbyte messages into a file in the folder."""
    from airbyte_cdk.entrypoint import AirbyteEntrypoint, launch  # noqa: PLC0415 - only in its own environment
    from airbyte_cdk.models import ConfiguredAirbyteCatalogSerializer  # noqa: PLC0415 - as above
    from airbyte_cdk.sources.declarative.concurrent_declarative_source import (  # noqa: PLC0415 - as above
        ConcurrentDeclarativeSource,
    )

    catalog = {
        "streams": [
            {
                "stream": {
                    "name": "export_jobs",
                    "json_schema": {},
                    "supported_sync_modes": ["full_refresh"],
                },
                "sync_mode": "full_refresh",
                "destination_sync_mode": "overwrite",
            }
        ]
    }
    folder = Path(out)
    folder.mkdir()
    (folder / "catalog.json").write_text(json.dumps(catalog), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"key": key}), encoding="utf-8")
    args = ["read", "--config", f"{out}/config.json", "--catalog", f"{out}/catalog.json"]
    AirbyteEntrypoint.parse_args(args)
    source = ConcurrentDeclarativeSource(
        catalog=ConfiguredAirbyteCatalogSerializer.load(catalog),
        config={"key": key},
        state=[],
        source_config=make_manifest(url),
    )
    with (folder / "messages.jsonl").open("w", encoding="utf-8") as file:
        os.dup2(
            file.fileno(), sys.stdout.fileno()
        )  # the CDK writes to the file descriptor, not to sys.stdout
        launch(source, args)


if __name__ == "__main__":
    run(*sys.argv[1:4])
