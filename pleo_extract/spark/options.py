"""What may be said to the data source, checked before anything is read. Never a credential: Spark shows options."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pleo_extract.client import read_accounts, resolve_server
from pleo_extract.contract import canonical_uuid
from pleo_extract.core.pace import RATE
from pleo_extract.errors import ConfigurationError, UsageError, escape
from pleo_extract.fetch.selection import check_wanted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pleo_extract.client import AccountEntry

__all__ = ["OPTIONS", "Options", "read_companies", "read_options"]

OPTIONS: Final = {
    "base_url": "production, staging or a URL; else PLEO_BASE_URL of each executor",
    "company_id": "one company, or several with commas between; else all that the credential sees, in one task",
    "companies": "a file of companies, one a line, or an accounts.toml, which names a credential for each",
    "statuses": "known statuses with commas between; else all",
    "since": "a date, or an instant with its zone: only jobs created from then on",
    "until": "the same: only jobs created before then",
    "tasks": "into how many tasks the companies are divided; as many as there are companies, 100 at most",
    "rate": "requests in any minute for the whole job, 500 by default; an accounts.toml says it for each company",
    "machines": "how many machines share the rate; those with an executor when `register` was called",
}
"""Each option and what it says."""

TASKS: Final = 100
"""A task costs Spark about 50 ms, so a task a company would take longer than reading what is small."""

_CREDENTIAL: Final = re.compile(r"key|token|secret|passw|credential|auth", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Options:
    """What one read was told.

    Attributes:
        base_url: None for the executor's own.
        companies: canonical, each once; None for all that the credential sees.
        accounts: companies with credentials of their own; then `companies` is None.
        statuses, since, until: as `iter_export_jobs` takes them.
        tasks: how many at most.
        rate: requests in any minute on one machine.
    """

    base_url: str | None
    companies: tuple[str, ...] | None
    accounts: tuple[AccountEntry, ...]
    statuses: tuple[str, ...]
    since: str | None
    until: str | None
    tasks: int
    rate: int


def read_options(given: Mapping[str, str], *, machines: int) -> Options:
    """The options of a read, checked.

    Raises:
        UsageError: an unknown option, a credential, or a value that cannot be used.
        ConfigurationError: a server or a file of companies that cannot be used.
    """
    for name in given:
        if name.lower() not in OPTIONS:
            raise UsageError(_refuse(name))
    said = {name.lower(): text.strip() for name, text in given.items()}
    if "companies" in said and "company_id" in said:
        raise UsageError("there are company_id and companies; give one of them")
    accounts = _read_accounts(said)
    wanted = check_wanted(None, _split(said.get("statuses", "")), said.get("since"), said.get("until"))
    shared = _whole(said, "rate", RATE) // _whole(said, "machines", machines)
    return Options(
        base_url=str(resolve_server(said["base_url"])) if "base_url" in said else None,
        companies=None if accounts else _read_list(said),
        accounts=accounts,
        statuses=wanted.statuses,
        since=said.get("since"),
        until=said.get("until"),
        tasks=_whole(said, "tasks", TASKS),
        rate=max(1, shared),
    )


def read_companies(texts: list[str]) -> tuple[str, ...]:
    """Companies in canonical form, each once, in the order given.

    Raises:
        UsageError: a text that is no UUID.
    """
    return tuple(dict.fromkeys(canonical_uuid(text) for text in texts))


def _refuse(name: str) -> str:
    if _CREDENTIAL.search(name):
        return (
            f"credentials are no options, because Spark shows options in its plans and its UI ({escape(name)}); "
            "set PLEO_API_KEY for each executor, for example in spark.executorEnv.PLEO_API_KEY"
        )
    return f"unknown option {escape(name)!r}; there are {', '.join(OPTIONS)}"


def _read_accounts(said: Mapping[str, str]) -> tuple[AccountEntry, ...]:
    path = said.get("companies", "")
    if not path.endswith(".toml"):
        return ()
    if clash := sorted({"base_url", "rate", "machines"} & said.keys()):
        raise UsageError(f"{path} says {clash[0]} for each company; leave the option out")
    return tuple(read_accounts(path))


def _read_list(said: Mapping[str, str]) -> tuple[str, ...] | None:
    if "companies" not in said:
        return read_companies(_split(said["company_id"])) if "company_id" in said else None
    path = Path(said["companies"])
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as exc:
        raise ConfigurationError(f"cannot read {path}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigurationError(f"{path} is no text: {exc.reason}") from exc
    return read_companies([line.strip() for line in lines if line.strip() and not line.startswith("#")])


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _whole(said: Mapping[str, str], name: str, usual: int) -> int:
    text = said.get(name, str(usual))
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise UsageError(f"{name} is a whole number from 1, not {escape(text)!r}")
    return int(text)
