"""The log of the library on stderr: one line for each record, with the name of the run."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

from pleo_extract.errors import escape

__all__ = ["set_up_log"]

LONGEST = 4_000
"""Most characters of a message."""


def set_up_log(form: str, level: str) -> None:
    """Send the records of `pleo_extract` to stderr.

    Args:
        form: ``json`` for one JSON object in each line, otherwise text.
        level: the lowest level to show.
    """
    handler = logging.StreamHandler(sys.stderr) if sys.stderr is not None else logging.NullHandler()
    handler.setFormatter(_JsonLines() if form == "json" else _TextLines())
    log = logging.getLogger("pleo_extract")
    log.handlers[:] = [handler]
    log.setLevel(level.upper())
    log.propagate = False


class _TextLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        run = getattr(record, "run", "")
        where = f" [{run}]" if run else ""
        return f"{_format_time(record)} {record.levelname.lower()}{where} {escape(_format_message(record), LONGEST)}"


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": _format_time(record),
            "level": record.levelname.lower(),
            "run": getattr(record, "run", ""),
            "logger": record.name,
            "message": _format_message(record),
        }
        return json.dumps(fields)


def _format_time(record: logging.LogRecord) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"


def _format_message(record: logging.LogRecord) -> str:
    error = record.exc_info[1] if record.exc_info else None
    return record.getMessage() + (f": {type(error).__name__}: {error}" if error else "")
