"""The options of the data source, checked before anything is read. No option is a credential: Spark shows options."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pleo_extract.client import read_accounts, resolve_server
from pleo_extract.contract import canonical_uuid
from pleo_extract.core.pace import RATE
from pleo_extract.errors import ConfigurationError, UsageError, check_path, escape
from pleo_extract.fetch.selection import check_wanted

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from pleo_extract.client import AccountEntry

__all__ = ["OPTIONS", "SAFE_PLACES", "Options", "read_companies", "read_options"]

OPTIONS: Final = {
    "base_url": "production, staging or a URL; default: PLEO_BASE_URL of each executor",
    "company_id": "one company, or several separated by commas; default: all that the credential sees, in one task",
    "companies": "a file of companies, one per line, or an accounts.toml, which names a credential for each",
    "statuses": "known statuses separated by commas; default: all",
    "since": "a date, or an instant with a time zone: only jobs created at or after it",
    "until": "a date, or an instant with a time zone: only jobs created before it",
    "tasks": "the largest number of tasks for the companies; default: 100",
    "rate": "requests in any minute for the whole job; default: 500. An accounts.toml has a rate for each company",
    "machines": "the number of machines that share the rate; default: those with an executor when `register` was called",
    "on_error": "fail, or skip: leave out the companies that cannot be read; default: fail",
    "what": "jobs, or failures: one row per company that cannot be read, with code and message; default: jobs",
}
"""The options, each with its meaning."""

TASKS: Final = 100
"""The default limit. A task costs Spark about 50 ms: with one task for each small company that would dominate."""

SAFE_PLACES: Final = "put PLEO_API_KEY into the environment of the workers, or name a file with api_key_file in an accounts.toml"
"""Where a credential may be on a cluster. Spark shows `spark.executorEnv.*` to all who see its UI or its event logs."""

_CREDENTIAL: Final = re.compile(r"key|token|secret|passw|credential|auth", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Options:
    """The checked options of one read.

    Attributes:
        base_url: the server; None for that of the executor's environment.
        companies: canonical UUIDs without duplicates; None for all companies that the credential sees.
        accounts: companies that have credentials of their own; if there are any, `companies` is None.
        statuses: as for `iter_export_jobs`.
        since: the earliest created_at, inclusive.
        until: the latest created_at, exclusive.
        tasks: the largest number of tasks.
        rate: requests in any minute on one machine.
        skips: whether companies that cannot be read are left out.
        wants_failures: whether these companies are wanted, not the jobs.
    """

    base_url: str | None
    companies: tuple[str, ...] | None
    accounts: tuple[AccountEntry, ...]
    statuses: tuple[str, ...]
    since: datetime | None
    until: datetime | None
    tasks: int
    rate: int
    skips: bool
    wants_failures: bool


def read_options(given: Mapping[str, str], *, machines: int) -> Options:
    """Return the options of a read, checked.

    Raises:
        UsageError: an option is unknown, holds a credential, or has an invalid value.
        ConfigurationError: the server or the file of companies cannot be used.
    """
    for name in given:
        if name.lower() not in OPTIONS:
            raise UsageError(_explain_unknown(name))
    values = {name.lower(): text.strip() for name, text in given.items()}
    if "companies" in values and "company_id" in values:
        raise UsageError("there are both company_id and companies; give one of them")
    accounts = _read_accounts(values)
    skips = _choose(values, "on_error", ("fail", "skip")) == "skip"
    wants_failures = _choose(values, "what", ("jobs", "failures")) == "failures"
    if (skips or wants_failures) and not {"company_id", "companies"} & values.keys():
        raise UsageError(
            "on_error and what need company_id or companies: without them one failure concerns everything"
        )
    wanted = check_wanted(None, _split(values.get("statuses", "")), values.get("since"), values.get("until"))
    shared = _positive_integer(values, "rate", RATE) // _positive_integer(values, "machines", machines)
    return Options(
        base_url=str(resolve_server(values["base_url"])) if "base_url" in values else None,
        companies=None if accounts else _read_company_list(values),
        accounts=accounts,
        statuses=wanted.statuses,
        since=wanted.since,
        until=wanted.until,
        tasks=_positive_integer(values, "tasks", TASKS),
        rate=max(1, shared),
        skips=skips,
        wants_failures=wants_failures,
    )


def read_companies(texts: list[str]) -> tuple[str, ...]:
    """Return the companies in canonical form, in the same order, without duplicates.

    Raises:
        UsageError: a text is not a UUID.
    """
    return tuple(dict.fromkeys(canonical_uuid(text) for text in texts))


def _explain_unknown(name: str) -> str:
    if _CREDENTIAL.search(name):
        return (
            f"a credential cannot be an option ({escape(name)}), because Spark shows options in its plans and its UI; "
            + SAFE_PLACES
        )
    if name.lower() in {"path", "provider"}:  # what a table has
        return (
            "pleo_export_jobs has no path: leave it out of load(). In SQL, use CREATE TEMPORARY VIEW … USING pleo_export_jobs; "
            "a table would have a path"
        )
    return f"unknown option {escape(name)!r}; the options are {', '.join(OPTIONS)}"


def _read_accounts(values: Mapping[str, str]) -> tuple[AccountEntry, ...]:
    path = values.get("companies", "")
    if not path.endswith(".toml"):
        return ()
    if clash := sorted({"base_url", "rate", "machines"} & values.keys()):
        raise UsageError(f"{path} has a {clash[0]} for each company; leave out the option {clash[0]}")
    return tuple(read_accounts(path))


def _read_company_list(values: Mapping[str, str]) -> tuple[str, ...] | None:
    if "companies" not in values:
        return read_companies(_split(values["company_id"])) if "company_id" in values else None
    check_path(values["companies"], "companies")
    path = Path(values["companies"])
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as exc:
        raise ConfigurationError(f"cannot read {path}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigurationError(f"{path} is not UTF-8 text: {exc.reason}") from exc
    return read_companies([line.strip() for line in lines if line.strip() and not line.startswith("#")])


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _choose(values: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str:
    text = values.get(name, choices[0])
    if text not in choices:
        raise UsageError(f"{name} must be {' or '.join(choices)}, not {escape(text)!r}")
    return text


def _positive_integer(values: Mapping[str, str], name: str, default: int) -> int:
    text = values.get(name, str(default))
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise UsageError(f"{name} must be a whole number from 1, not {escape(text)!r}")
    return int(text)
