"""OpenLineage events of a run: which list it read, and which lake it wrote, for data catalogues that draw lineage."""

from __future__ import annotations

import json
import os
import uuid
from contextlib import closing
from datetime import timedelta
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from pleo_extract.contract import DUCKDB_SCHEMA, PATH
from pleo_extract.errors import ConfigurationError, StorageError
from pleo_extract.lake import disk
from pleo_extract.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from pleo_extract.lake.record import LastRun

__all__ = ["check_sink", "send_lineage"]

SPEC: Final = "https://openlineage.io/spec"
PRODUCER: Final = f"urn:pleo-extract:{__version__}"
"""The URI of the producer; nobody opens it."""
VARIABLE: Final = "OPENLINEAGE_API_KEY"
"""The variable with the token of a receiver of events, as OpenLineage's own clients name it."""
SECONDS: Final = 10.0
"""The timeout of a request."""
FIELDS: Final = ("mode", "verdict", "requests", "rows", "rejected", "snapshot", "data_as_of", "code")
"""The fields of a receipt that the event's own facet repeats."""


def check_sink(sink: str) -> None:
    """Refuse a receiver that cannot be one, before anything is read.

    Raises:
        ConfigurationError: it is neither a URL nor a file in a folder that exists; the URL names a user or no host; or the
            token would be sent unencrypted.
    """
    try:
        url = urlsplit(sink)
        _ = url.port
    except ValueError as exc:
        raise ConfigurationError(f"--lineage: the URL is malformed: {exc}") from exc
    if url.scheme not in {"http", "https"}:
        if not Path(sink).absolute().parent.is_dir():
            raise ConfigurationError(
                f"--lineage {sink}: there is no folder {Path(sink).parent}; create it first"
            )
    elif not url.hostname or url.username or url.password:
        what = (
            "contains a user name; the receiver's token goes into " + VARIABLE
            if url.hostname
            else "names no host"
        )
        raise ConfigurationError(f"--lineage: the URL {what}")
    elif (
        os.environ.get(VARIABLE)
        and url.scheme == "http"
        and url.hostname not in {"127.0.0.1", "::1", "localhost"}
    ):
        raise ConfigurationError(
            f"--lineage {url.hostname}: {VARIABLE} is sent to https:// and to this machine only"
        )


def send_lineage(sink: str, lake: str | Path, run: LastRun, servers: Iterable[str]) -> None:
    """Send the events of a run, START and COMPLETE or FAIL, or append them to a file, one JSON object a line.

    Args:
        sink: a URL that takes POST, or a file.
        lake: the lake.
        run: the record of the run.
        servers: the URLs of the servers that its jobs come from.

    Raises:
        StorageError: the file cannot be written, or the receiver did not accept an event.
    """
    events = [json.dumps(event).encode() for event in _make_events(lake, run, servers)]
    if not sink.startswith(("http://", "https://")):
        for event in events:
            disk.append_line(Path(sink), event)
        return
    url = urlsplit(sink)
    connect = HTTPSConnection if url.scheme == "https" else HTTPConnection
    headers = {"Content-Type": "application/json"}
    if token := os.environ.get(VARIABLE):
        headers["Authorization"] = f"Bearer {token}"
    try:
        for event in events:
            with closing(connect(url.hostname or "", url.port, timeout=SECONDS)) as connection:
                connection.request("POST", url._replace(scheme="", netloc="").geturl() or "/", event, headers)
                status = connection.getresponse().status
            if status // 100 != 2:
                raise StorageError(f"{url.hostname} answered {status} to an OpenLineage event")
    except (OSError, HTTPException, ValueError) as exc:
        raise StorageError(
            f"{url.hostname} did not take an OpenLineage event: {exc or type(exc).__name__}"
        ) from exc


def _make_events(lake: str | Path, run: LastRun, servers: Iterable[str]) -> Iterator[dict[str, Any]]:
    receipt = run.receipt
    own = {name: receipt.get(name) for name in FIELDS}
    facets: dict[str, Any] = {"pleo_extract": own | _mark("2-0-2/OpenLineage.json", "RunFacet")}
    if run.code:
        error = {"message": run.error or "", "programmingLanguage": "Python"}
        facets["errorMessage"] = error | _mark("facets/1-0-1/ErrorMessageRunFacet.json")
    output = _name_lake(str(lake))
    schema = {"fields": [{"name": name, "type": kind} for name, kind in DUCKDB_SCHEMA.items()]}
    version = {"datasetVersion": str(receipt.get("snapshot"))}
    written: dict[str, Any] = output | {
        "facets": {
            "schema": schema | _mark("facets/1-1-1/SchemaDatasetFacet.json"),
            "version": version | _mark("facets/1-0-1/DatasetVersionDatasetFacet.json"),
        }
    }
    if run.published:
        rows = {"rowCount": receipt.get("lake_rows")}
        written["outputFacets"] = {
            "outputStatistics": rows | _mark("facets/1-0-2/OutputStatisticsOutputDatasetFacet.json")
        }
    common = {
        "job": {"namespace": "pleo-extract", "name": f"dump {output['name']}"},
        "inputs": [{"namespace": server, "name": PATH} for server in sorted(set(servers))],
        "producer": PRODUCER,
        "schemaURL": f"{SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent",
    }
    # A runId must be a UUID, and the name of a run is not one.
    identity = {
        "runId": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{output['namespace']} {output['name']} {run.run}"))
    }
    began = run.ended_at - timedelta(seconds=receipt.get("seconds") or 0)
    yield common | {"eventType": "START", "eventTime": _format(began), "run": identity, "outputs": [output]}
    how = "FAIL" if run.code else "COMPLETE"
    end = {"eventType": how, "eventTime": _format(run.ended_at), "run": identity | {"facets": facets}}
    yield common | end | {"outputs": [written]}


def _mark(schema: str, name: str = "") -> dict[str, str]:
    """Return what every facet has to say: who made it, and by which schema."""
    return {"_producer": PRODUCER, "_schemaURL": f"{SPEC}/{schema}#/$defs/{name or Path(schema).stem}"}


def _name_lake(lake: str) -> dict[str, str]:
    """Return a lake's name as OpenLineage forms it: the store and the path in it."""
    url = urlsplit(lake)
    if "://" not in lake:
        return {"namespace": "file", "name": str(Path(lake).absolute())}
    return {"namespace": f"{url.scheme}://{url.netloc}", "name": url.path.strip("/")}


def _format(instant: datetime) -> str:
    return instant.isoformat(timespec="milliseconds")
