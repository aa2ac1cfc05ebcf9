"""What in a lake breaks the limits of `pleo-extract check`."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from pleo_extract.errors import TryLater, amount, escape

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import duckdb

    from pleo_extract.lake.status import LakeStatus
    from pleo_extract.lake.store import StoreOptions

__all__ = ["Breach", "Findings", "Limits", "find_breaches", "format_span"]

LONGEST_NAME: Final = 60
LONGEST_TEXT: Final = 500

NOW = "select greatest(max(c.now), max(s.now)) as now from snapshot as s left join companies as c on true"
RATES = """
select r.company_id, c.name, r.finished, r.failed, r.rate, coalesce(r.clustered_low, r.low) as lower_end,
    coalesce(r.clustered_high, r.high) as upper_end
from failure_rates('all', since := $since) as r left join companies as c on c.id = r.company_id
order by lower_end desc, r.company_id
"""
# Of many companies some have an incident by chance every week: q says how many are judged.
INCIDENTS = """
with found as (
    select *, 'day' as grain, period + interval 1 day as ends from incidents('day', every_period := true)
    union all
    select *, 'week' as grain, period + interval 7 days as ends from incidents('week', every_period := true)
),
judged as (
    select * replace (is_incident and q <= 0.01 as is_incident) from found
),
days as (
    select company_id, sum(finished) as finished from judged where grain = 'day' and ends > $since group by all
),
-- A company is judged by the day if its judged days have most of its exports, else by the week.
chosen as (
    select r.company_id, if(2 * coalesce(d.finished, 0) >= r.finished, 'day', 'week') as grain
    from failure_rates('all', since := $since) as r left join days as d using (company_id)
)
select j.company_id, c.name, j.grain, j.period, j.failed, j.finished, j.rate, j.usual_rate, j.limit_rate,
    j.q, j.reasons, j.is_partial, j.is_incident,
    count(*) filter (where j.is_incident) over (partition by j.company_id) as periods
from judged as j join chosen as x using (company_id, grain) left join companies as c on c.id = j.company_id
where j.ends > $since
qualify row_number() over (partition by j.company_id order by j.is_incident desc, j.period desc) = 1
order by j.sigmas desc, j.company_id
"""

# By chance, one company of the whole lake is named once a year. A company that left long ago would be a breach for ever.
SILENCES = """
with listed as (from silences(every_company := true)),
judged as (select count(*) as companies from listed where not has_left)
select l.* replace (coalesce(l.once_in_days >= 365 * j.companies, false) as is_silent), c.name
from listed as l cross join judged as j left join companies as c on c.id = l.company_id
order by l.once_in_days desc, l.company_id
"""


@dataclass(frozen=True, slots=True)
class Limits:
    """What `check` tolerates; None or false for what it does not look at.

    Attributes:
        since: how far back rates and incidents are judged, counted from when the lake was last read.
        max_age: the longest time since a company was last read completely.
        max_failure_rate: the highest failure rate.
        min_jobs: a company with fewer finished jobs is not judged by its rate.
        no_incident: an incident is a breach.
        no_silence: a company that has gone silent is a breach.
    """

    since: timedelta
    max_age: timedelta | None = None
    max_failure_rate: float | None = None
    min_jobs: int = 50
    no_incident: bool = False
    no_silence: bool = False


@dataclass(frozen=True, slots=True)
class Breach:
    """One breach of one limit by one company.

    Attributes:
        check: which limit: ``max_age``, ``max_failure_rate``, ``no_incident`` or ``no_silence``.
        company_id: the company; None for an account of all companies.
        name: its name in the lake; None if it has none.
        text: what is wrong, in words.
        figures: the same as values.
    """

    check: str
    company_id: str | None
    name: str | None
    text: str
    figures: Mapping[str, Any] = field(default_factory=dict)

    def format_line(self) -> str:
        """Return the breach in one line, safe to print: names and reasons come from the data."""
        name = escape(self.name or "", LONGEST_NAME)
        company = escape(self.company_id or "", LONGEST_NAME)
        who = f"{name} ({company})" if name and company else name or company or "all companies"
        return f"{who}: {escape(self.text, LONGEST_TEXT)}"


@dataclass(frozen=True, slots=True)
class Findings:
    """What a check found.

    Attributes:
        breaches: one for each limit and company, in the order of the limits, the worst first.
        since: from when on rates and incidents are judged; None for a lake without jobs.
        companies: how many companies have a job since then.
        judged: for each limit but ``max_age`` that was checked, how many companies have enough jobs to be judged by it.
        left: companies that have been silent for more than 60 days: they are not judged by their silence any more.
        oldest_seconds: how long ago the account that was read longest ago was read completely; None if the age is not
            checked, or if one never was.
        highest_rate: the failure rate of the judged company that comes closest to the limit, and the lower end of its
            interval; None if none is judged.
    """

    breaches: tuple[Breach, ...]
    since: datetime | None
    companies: int
    judged: Mapping[str, int]
    left: tuple[str, ...] = ()
    oldest_seconds: float | None = None
    highest_rate: tuple[float, float] | None = None


def find_breaches(
    lake: str | Path, limits: Limits, store: StoreOptions, *, names: Path | None, now: datetime
) -> Findings:
    """Return what breaks the limits in the current snapshot of a lake.

    Args:
        lake: the folder or URL of the lake.
        limits: the limits.
        store: how to reach an object store.
        names: a file with names of companies.
        now: the time of the clock, from which the age of the data is counted.

    Raises:
        LakeError: there is no such lake, or it is damaged.
        TryLater: no dump has been completed.
        ConfigurationError: the names cannot be used.
    """
    from pleo_extract.answers import name_lake
    from pleo_extract.answers.doors import connect_to_ask
    from pleo_extract.answers.names import read_kept_names, read_names
    from pleo_extract.lake.status import read_status
    from pleo_extract.lake.store import open_lake, open_to_read

    status = read_status(lake, **store)
    known = read_kept_names(lake) | (read_names(names) if names else {})
    left: tuple[str, ...] = ()
    breaches = [] if limits.max_age is None else [*_find_stale(status, limits.max_age, known, now)]
    oldest = None if limits.max_age is None else _find_oldest(status, now)
    if not status.snapshot:
        if breaches:
            return Findings(tuple(breaches), None, 0, {})
        open_to_read(open_lake(lake, **store))  # says in its words that a first dump was cut short
        # The folder is empty, such as the one under a disk that is not mounted.
        raise TryLater(f"{lake} has no snapshot yet: no dump has been completed, so nothing can be checked")
    asked, snapshot = RATES + INCIDENTS + SILENCES, status.snapshot or None
    with closing(connect_to_ask(asked, lake, snapshot, store, names=names)) as con, name_lake(lake):
        last_read = _ask(con, NOW)[0]["now"]
        if last_read is None:
            return Findings(tuple(breaches), None, 0, {}, oldest_seconds=oldest)
        since = last_read.astimezone(UTC) - limits.since
        rates = _ask(con, RATES, since=since)
        judged = dict[str, int]()
        highest_rate = None
        if (highest := limits.max_failure_rate) is not None:
            rows = [row for row in rates if row["finished"] >= limits.min_jobs]
            judged["max_failure_rate"] = len(rows)
            highest_rate = next(((row["rate"], row["lower_end"]) for row in rows), None)
            breaches += [_make_rate(row, highest, since) for row in rows if row["lower_end"] > highest]
        if limits.no_incident:
            rows = _ask(con, INCIDENTS, since=since.replace(tzinfo=None))
            judged["no_incident"] = len(rows)
            breaches += [_make_incident(row, since) for row in rows if row["is_incident"]]
        if limits.no_silence:
            listed = _ask(con, SILENCES)
            left = tuple(row["company_id"] for row in listed if row["has_left"] and row["is_silent"])
            rows = [row for row in listed if not row["has_left"]]
            judged["no_silence"] = len(rows)
            breaches += [_make_silence(row) for row in rows if row["is_silent"]]
    return Findings(tuple(breaches), since, len(rates), judged, left, oldest, highest_rate)


def _find_oldest(status: LakeStatus, now: datetime) -> float | None:
    """Return how many seconds ago the account that was read longest ago was read completely; None if one never was."""
    read = [each.data_as_of for each in status.accounts]
    ages = [(now - instant).total_seconds() for instant in read if instant is not None]
    return max(ages, default=None) if len(ages) == len(read) else None


def _find_stale(
    status: LakeStatus, max_age: timedelta, known_names: Mapping[str, str], now: datetime
) -> Iterator[Breach]:
    """Yield a breach for each account that was not read completely for longer than `max_age`, the stalest first."""
    last = status.last_run
    failed = last.failed if last else {}
    known = {each.name or each.account: each for each in status.accounts}
    names = [*known, *sorted(failed.keys() - known)] or [""]  # a lake without a snapshot has no account

    def find_age(name: str) -> timedelta | None:
        as_of = known[name].data_as_of if name in known else None
        return None if as_of is None else now - as_of

    for name in sorted(names, key=lambda name: find_age(name) or timedelta.max, reverse=True):
        age = find_age(name)
        if age is not None and age <= max_age:
            continue
        text = "never read completely" if age is None else f"last read completely {format_span(age)} ago, at "
        text += "" if age is None else _format_instant(now - age)
        allowed = format_span(max_age)
        text += f"; at most {allowed} {'is' if allowed.startswith('1 ') else 'are'} allowed"
        code, error = failed.get(name, (last.code, last.error) if last and not failed else (0, None))
        text += f". The last run ended with {code}: {error}" if code else ""
        account = known.get(name)
        company = account.account.company_id if account else None
        yield Breach(
            "max_age",
            company,
            known_names.get(company or "") or (account.name if account else name) or None,
            text,
            {
                "data_as_of": None if age is None else now - age,
                "age_seconds": None if age is None else age.total_seconds(),
                "max_age_seconds": max_age.total_seconds(),
            },
        )


def _make_rate(row: Mapping[str, Any], highest: float, since: datetime) -> Breach:
    text = (
        f"{row['failed']:,} of {row['finished']:,} exports failed since {_format_instant(since)}, {row['rate']:.1%}; "
        f"the true rate is at least {row['lower_end']:.1%}, and {highest * 100:g}% is allowed"
    )
    figures = {name: row[name] for name in ("finished", "failed", "rate")}
    figures |= {"low": row["lower_end"], "high": row["upper_end"]}
    return Breach(
        "max_failure_rate",
        row["company_id"],
        row["name"],
        text,
        figures | {"since": since, "max_failure_rate": highest},
    )


def _make_incident(row: Mapping[str, Any], since: datetime) -> Breach:
    """Return a breach for the latest incident of a company."""
    others = row["periods"] - 1
    so_far = ", which is not over" if row["is_partial"] else ""
    text = (
        f"incident {'on' if row['grain'] == 'day' else 'in the week of'} {row['period']:%Y-%m-%d}{so_far}: {row['failed']:,} of {row['finished']:,} exports "
        f"failed, {row['rate']:.1%}, usually {row['usual_rate']:.1%}. {row['reasons']}"
    )
    text += f". {amount(others, 'more ' + row['grain'])} since {_format_instant(since)}" if others else ""
    figures = {
        name: row[name]
        for name in (
            "grain",
            "period",
            "finished",
            "failed",
            "rate",
            "usual_rate",
            "limit_rate",
            "q",
            "reasons",
            "is_partial",
            "periods",
        )
    }
    return Breach("no_incident", row["company_id"], row["name"], text, figures)


def _make_silence(row: Mapping[str, Any]) -> Breach:
    silent = format_span(timedelta(seconds=row["silent_seconds"]))
    text = (
        f"no new export for {silent}, since {_format_instant(row['last_job_at'])}; usually {row['expected_jobs']:.1f} "
        f"come in such a time, and at most {row['longest_jobs']:.1f} would have come in any gap of the 26 weeks before"
    )
    figures = {
        name: value
        for name, value in row.items()
        if name not in ("company_id", "name", "is_silent", "has_left")
    }
    return Breach("no_silence", row["company_id"], row["name"], text, figures)


def _ask(con: duckdb.DuckDBPyConnection, sql: str, **values: object) -> list[dict[str, Any]]:
    from pleo_extract.answers import answer, translate_errors

    with translate_errors():
        rows: list[dict[str, Any]] = answer(con, sql, values).pl().to_dicts()
        return rows


def _format_instant(instant: datetime) -> str:
    return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def format_span(span: timedelta) -> str:
    """Return a span of time in the largest unit of which it has at least two: 90 minutes, 9 hours, 3 days."""
    seconds = span.total_seconds()
    units = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))
    unit, size = next(((unit, size) for unit, size in units if seconds >= 2 * size), units[-1])
    number = f"{seconds / size:.3g}"
    return f"{number} {unit}" if number == "1" else f"{number} {unit}s"
