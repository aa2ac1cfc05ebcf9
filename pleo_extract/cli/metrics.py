"""A text file for Prometheus about the last run. An alert on it also notices a dump that no longer runs."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from pleo_extract.core.verdict import VERDICTS
from pleo_extract.errors import escape
from pleo_extract.lake import disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from pleo_extract.core.state import AccountKey, SyncState
    from pleo_extract.lake.record import LastRun

__all__ = ["write_metrics"]

FIGURES: Final[tuple[tuple[str, str, Callable[[LastRun], float | None]], ...]] = (
    ("last_run_timestamp_seconds", "When the last run ended.", lambda run: run.ended_at.timestamp()),
    (
        "last_success_timestamp_seconds",
        "When a run last ended complete; 0 if none ever did.",
        lambda run: run.last_complete_at.timestamp() if run.last_complete_at else 0,
    ),
    ("last_run_exit_code", "Exit code of the last run.", lambda run: run.code),
    ("last_run_published", "1 if the last run published a new snapshot.", lambda run: int(run.published)),
    (
        "lake_rows",
        "Jobs in the lake.",
        lambda run: run.receipt.get("lake_rows") if run.receipt.get("snapshot") else None,
    ),
    ("last_run_rows", "Rows that the last run read.", lambda run: run.receipt.get("rows")),
    (
        "last_run_rejected_rows",
        "Rows of the last run that do not fit the contract.",
        lambda run: run.receipt.get("rejected"),
    ),
    ("last_run_requests", "Requests that the last run sent.", lambda run: run.receipt.get("requests")),
    (
        "last_run_retries",
        "Requests of the last run that were retries.",
        lambda run: run.receipt.get("retries"),
    ),
    (
        "last_run_waited_seconds",
        "Seconds in which requests of the last run waited: for the rate limit, the server or a retry.",
        lambda run: run.receipt.get("waited"),
    ),
    ("last_run_seconds", "Seconds that the last run took.", lambda run: run.receipt.get("seconds")),
    (
        "data_as_of_timestamp_seconds",
        "The instant that the rows describe; the earliest one if there are several accounts.",
        lambda run: _parse_timestamp(run.receipt.get("data_as_of")),
    ),
    (
        "last_run_shift_chance",
        "The chance that the last run noticed a deleted job and one inserted into the past, which together keep the count.",
        lambda run: run.shift_chance,
    ),
    ("last_run_failed_accounts", "Accounts for which the last run failed.", lambda run: len(run.failed)),
)
"""Each metric: its name, its help text, and its value for a run. None leaves the metric out: a lake that could not be opened
is not a lake of 0 rows."""

STALE: Final = timedelta(days=1)
"""An account is stale if its rows describe an instant longer than this before the end of the last run."""
LONGEST: Final = 100
"""Most characters of an account's name."""


def write_metrics(
    path: Path, lake: str | Path, run: LastRun, accounts: Mapping[AccountKey, SyncState] | None = None
) -> None:
    """Write the metrics of a run. The file is replaced atomically, as Prometheus may read it at any time.

    Args:
        path: the file.
        lake: the label of all series.
        run: the record of the last run.
        accounts: the lake's accounts; None if the lake cannot be opened.

    Raises:
        StorageError: the file cannot be written.
    """
    name_of_lake = str(lake)
    lines: list[str] = []
    for name, text, figure in FIGURES:
        if (value := figure(run)) is not None:
            lines += _format_metric(name, text, [({"lake": name_of_lake}, value)])
    verdict = run.receipt.get("verdict")
    verdicts = [({"lake": name_of_lake, "verdict": each}, int(each == verdict)) for each in VERDICTS]
    lines += _format_metric("last_run_verdict", "1 for the last run's verdict.", verdicts)
    if accounts is not None:
        lines += _format_freshness(name_of_lake, run, accounts)
    disk.write_output(path, ("\n".join(lines) + "\n").encode())


def _parse_timestamp(instant: Any) -> float | None:
    return datetime.fromisoformat(instant).timestamp() if isinstance(instant, str) else None


def _format_freshness(lake: str, run: LastRun, accounts: Mapping[AccountKey, SyncState]) -> list[str]:
    """Return how fresh each account is. One invalid key stops `last_success`, and must not hide the other accounts."""
    failed_before_first = sorted(run.failed.keys() - {each.name or key for key, each in accounts.items()})
    instants: list[tuple[str, str, datetime | None]] = [("", name, None) for name in failed_before_first]
    instants += [(key.company, each.name, each.data_as_of) for key, each in sorted(accounts.items())]
    series = [
        (
            {"lake": lake, "company": company, "name": escape(name, LONGEST)},
            as_of.timestamp() if as_of is not None else 0,
        )
        for company, name, as_of in instants
    ]
    stale = sum(as_of is None or run.ended_at - as_of > STALE for _, _, as_of in instants)
    return [
        *_format_metric(
            "account_data_as_of_timestamp_seconds",
            "The instant that the rows of an account describe; 0 if it was never read completely.",
            series,
        ),
        *_format_metric(
            "stale_accounts",
            "Accounts whose rows describe an instant more than a day before the last run ended, or that were never read.",
            [({"lake": lake}, stale)],
        ),
    ]


def _format_metric(name: str, text: str, series: Iterable[tuple[Mapping[str, str], float]]) -> Iterator[str]:
    """Yield the lines of a metric: its help text, its type, and the labels and value of each series."""
    full = f"pleo_extract_{name}"
    yield f"# HELP {full} {text}"
    yield f"# TYPE {full} gauge"
    for labels, value in series:
        label = ",".join(f'{key}="{_escape(each)}"' for key, each in labels.items())
        yield f"{full}{{{label}}} {value:.16g}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
