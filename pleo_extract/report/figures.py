"""The queries of a report. Each number comes from one of the macros of `sql/`."""

from __future__ import annotations

from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

from pleo_extract.answers import answer, name_lake, translate_errors
from pleo_extract.answers.definition import literal
from pleo_extract.answers.doors import connect
from pleo_extract.errors import TryLater, UsageError
from pleo_extract.lake.status import read_status
from pleo_extract.lake.store import open_lake, open_to_read
from pleo_extract.report.window import ReportPeriod, choose_window
from pleo_extract.report.words import moment

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    import duckdb
    import polars as pl

    from pleo_extract.lake.status import LakeStatus
    from pleo_extract.lake.store import StoreOptions

__all__ = ["Figures", "Headline", "ask_lake"]

UTC_ZONE: Final = ZoneInfo("UTC")
LONGEST_NAME: Final = 80
"""Of a company's name, the page shows this many characters."""
MOST_ROWS: Final = 10
MOST_COMPANIES: Final = 25
"""The rows of a list on the page, and the companies. The workbook has `MOST_IN_WORKBOOK`."""
MOST_IN_WORKBOOK: Final = 10_000

OVERVIEW = """
select min(created_at), count(*) filter (where created_at >= coalesce($since, timestamptz '-infinity')),
    coalesce(
        (select max(now) from companies where id = $company_id or $company_id is null),
        (select now from snapshot)
    )
from export_jobs
where (company_id = $company_id or $company_id is null) and (created_at < $until or $until is null)"""
HAS_JOBS = "select count(*) > 0 from export_jobs where company_id = $company_id"
# When clocks are set back, two hours show the same `period`: only the instants tell them apart.
BY_PERIOD = """
select *,
    if($grain = 'hour', starts_at + interval 1 hour, timezone($tz, period + cast(concat('1 ', $grain) as interval)))
        as ends_at
from ({})"""
# The interval considers clusters, where the days are enough to know them: retries make a rate no surer.
RATES = """
select * replace (coalesce(clustered_low, low) as low, coalesce(clustered_high, high) as high)
from failure_rates($grain, tz := $tz, company_id := $company_id, since := $since, until := $until, per_company := false)"""
DURATIONS = """
from duration_stats($grain, tz := $tz, company_id := $company_id, since := $since, until := $until, per_company := false)
where duration = 'total'"""
# `since` selects rows of the answer, not jobs: an incident is judged by the periods before it, also by older ones.
LIMITS = """
from incidents($grain, tz := $tz, company_id := $company_id, until := $until, per_company := false, every_period := true)
where starts_at >= $since"""
INCIDENTS = """
select *, dense_rank() over (order by starts_at) as number
from (
    from incidents($grain, tz := $tz, company_id := $company_id, until := $until, per_company := false)
    union all by name
    from incidents($grain, tz := $tz, company_id := $company_id, until := $until) where $company_id is null
)
where starts_at >= $since
order by starts_at, company_id nulls first"""
# A bad day can drown in its week, and the week that runs is not judged to its end. `check --no-incident` names such days.
BAD_DAYS = """
from incidents('day', tz := $tz, company_id := $company_id, until := $until)
where starts_at + interval 1 day > $last_days and q <= 0.01 and $grain in ('week', 'month', 'year')
order by starts_at, company_id"""
SURVIVAL = "from survival(company_id := $company_id, since := $since, until := $until, per_company := false)"
REASONS = """
select r.*, e.example
from failure_reasons('all', company_id := $company_id, since := $since, until := $until, per_company := false) as r
left join (
    select failure_reason_type as reason, left(arg_max(failure_reason, created_at), 400) as example
    from export_jobs
    where status = 'failed'
        and (company_id = $company_id or $company_id is null)
        and (created_at >= $since or $since is null) and (created_at < $until or $until is null)
    group by all
) as e using (reason)
order by r.jobs desc, r.reason"""
RECOVERIES = """
select reason, count(*) as times, median(seconds) as half, max(seconds) as longest,
    count(*) filter (where is_censored) as not_yet
from recoveries(company_id := $company_id, since := $since, until := $until)
where is_first
group by reason
order by times desc, reason"""
THROUGHPUT = "from throughput($grain, tz := $tz, company_id := $company_id, since := $since, until := $until, per_company := false)"
SLOW = """
select *, count(*) over () as all_of_them
from slow_jobs(company_id := $company_id, since := $since, until := $until)
where id not in (select id from stuck_jobs(company_id := $company_id))
limit $most"""
JUDGED = """
select count(distinct company_id)
from incidents($grain, tz := $tz, company_id := $company_id, until := $until, every_period := true)
where starts_at >= $since"""
SILENCES = "from silences(as_of := $as_of, company_id := $company_id, tz := $tz, every_company := true)"
SHIFTS = """
select company_id, began, max(period) as ended, max(period) = any_value(last_period) as goes_on,
    arg_max(usual_rate, period) as usual_rate, arg_max(rate_since, period) as rate_since, max(evidence) as evidence
from (
    select *, max(period) over (partition by company_id) as last_period
    from shifts('day', tz := $tz, company_id := $company_id, until := $until, every_period := true)
)
where is_shift and period >= $since at time zone $tz
group by company_id, began
order by goes_on desc, evidence desc, company_id"""
STUCK = "select *, count(*) over () as all_of_them from stuck_jobs(company_id := $company_id) limit $most"
# Judged by the same interval.
COMPANIES = """
select f.*, coalesce(f.clustered_low, f.low) as lower_end, coalesce(f.clustered_high, f.high) as upper_end,
    d.n, d.p50, d.p95, count(*) over () as all_of_them
from failure_rates('all', company_id := $company_id, since := $since, until := $until) as f
left join (
    from duration_stats('all', company_id := $company_id, since := $since, until := $until) where duration = 'total'
) as d using (company_id)
order by lower_end desc nulls last, f.company_id
limit $most"""
COMPARED = """
from compare($before, $recent, $recent, $until, company_id := $company_id, per_company := false)
where figure in ('failure_rate', 'median_total_seconds')"""
OPEN_AT = """
select count(*) from job_durations
where (company_id = $company_id or $company_id is null)
    and created_at <= $instant and (is_censored or ended_at > $instant)"""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Headline:
    """The figures of the recent time range, and of the range before it.

    Attributes:
        rates: the row of `failure_rates`; None if there is no job.
        rates_before: the same for the range before; None if the lake does not reach back that far.
        durations: the row of `duration_stats`; None if there is no job.
        durations_before: the same for the range before.
        changes: rows of `compare`, by figure.
        open_now: jobs that are open at the end of the report.
        open_before: jobs that were open when the recent range began; None if the lake does not reach back that far.
        stuck: open jobs that should have expired when the lake was last read.
    """

    rates: Row | None
    rates_before: Row | None
    durations: Row | None
    durations_before: Row | None
    changes: dict[str, Row]
    open_now: int
    open_before: int | None
    stuck: int


@dataclass(frozen=True, slots=True)
class Figures:
    """The content of a report.

    Attributes:
        status: the status of the lake.
        company_id: the only company of the report, or None.
        names: names of companies, by id.
        namesakes: the companies whose names look like another's, and how many digits of their ids tell them apart.
        reads: when each company was last read, if that is known.
        now: as of when the data is true, for the company that was read last.
        zone: the time zone of the report.
        window: the time of the report; None if there is no job in it. Then `headline` and `frames` are None too.
        headline: the most important figures.
        frames: answers of the macros they are named after, by name. Those by period say when each begins and ends, as
            instants: `starts_at` and `ends_at`.
    """

    status: LakeStatus
    company_id: str | None
    names: dict[str, str]
    namesakes: dict[str, int]
    reads: dict[str, datetime]
    now: datetime
    zone: ZoneInfo
    window: ReportPeriod | None
    headline: Headline | None = None
    frames: dict[str, pl.DataFrame] | None = None

    def moment(self, instant: datetime | None) -> str:
        """Format an instant in the time zone of the report."""
        return moment(instant and instant.astimezone(self.zone))

    def frame(self, name: str) -> pl.DataFrame:
        """Return one of the frames."""
        assert self.frames is not None
        return self.frames[name]


def ask_lake(  # noqa: PLR0913 - all are independent
    lake: str | Path,
    *,
    company_id: str | None,
    since: datetime | None,
    until: datetime | None,
    zone: ZoneInfo = UTC_ZONE,
    names: str | Path | Mapping[str, str] | None = None,
    store: StoreOptions,
) -> Figures:
    """Query one snapshot of a lake for everything that a report shows.

    Raises:
        LakeError: there is no such lake, or it is broken.
        TryLater: the lake has no job yet, or no dump to it has been completed.
        UsageError: the lake has no job of this company.
    """
    status = read_status(lake, **store)
    if not status.rows:
        open_to_read(open_lake(lake, **store))  # says in its words that a first dump was cut short
        cause = "there is no job in" if status.snapshot else "nothing was published yet in"
        raise TryLater(f"{cause} {lake}, so there is nothing to report; run: pleo-extract dump {lake}")
    with closing(connect(lake, status.snapshot or None, names=names, **store)) as con, name_lake(lake):
        con.execute(f"SET TimeZone = {literal(str(zone))}")
        ask = _Query(con, {"company_id": company_id, "since": since, "until": until, "tz": str(zone)})
        if company_id is not None and not ask(HAS_JOBS).item():  # a mistyped id would give an empty page
            raise UsageError(
                f"there is no job of company {company_id} in {lake}; list its companies with: "
                f"pleo-extract sql {lake} \"from failure_rates('all')\""
            )
        companies = ask("select id, name, now from companies").rows()
        known = {company: name for company, name, _ in companies if name}
        namesakes = _find_namesakes(known)
        reads = {company: now for company, _, now in companies if now and company_id in (None, company)}
        first, jobs, now = ask(OVERVIEW).row(0)
        if not jobs:
            return Figures(status, company_id, known, namesakes, reads, now, zone, None)
        window = choose_window(now, first, jobs, since=since, until=until)
        ask.values |= {"since": window.since, "grain": window.grain, "most": MOST_IN_WORKBOOK}
        frames = {
            "rates": ask(BY_PERIOD.format(RATES)),
            "durations": ask(BY_PERIOD.format(DURATIONS)),
            "limits": ask(BY_PERIOD.format(LIMITS)),
            "incidents": ask(BY_PERIOD.format(INCIDENTS)),
            "bad_days": ask(BAD_DAYS, last_days=window.last_days),
            "survival": ask(SURVIVAL),
            "reasons": ask(REASONS),
            "recoveries": ask(RECOVERIES),
            "throughput": ask(BY_PERIOD.format(THROUGHPUT)),
            "slow": ask(SLOW),
            "shifts": ask(SHIFTS),
            "silences": ask(SILENCES, as_of=window.end if window.end < now else None),
            "judged": ask(JUDGED),
            "stuck": ask(STUCK),
            "companies": ask(COMPANIES),
        }
        headline = _ask_headline(ask, window, frames["stuck"])
        return Figures(status, company_id, known, namesakes, reads, now, zone, window, headline, frames)


def _find_namesakes(names: Mapping[str, str]) -> dict[str, int]:
    """Return the companies whose names look the same on a page, each with as many digits of its id as tell it apart."""
    by_look = defaultdict[str, list[str]](list)
    for company, name in names.items():
        by_look[" ".join(name.split()).casefold()[:LONGEST_NAME]].append(company)
    found: dict[str, int] = {}
    for companies in by_look.values():
        if len(companies) > 1:
            is_short = len({company[:8] for company in companies}) == len(companies)
            found |= dict.fromkeys(companies, 8 if is_short else 36)
    return found


class _Query:
    """A function that runs a query with those of the stored values that the query names."""

    def __init__(self, con: duckdb.DuckDBPyConnection, values: Row) -> None:
        self.con = con
        self.values = values

    def __call__(self, sql: str, **more: object) -> pl.DataFrame:
        values = self.values | more
        used = {name: value for name, value in values.items() if f"${name}" in sql}
        with translate_errors():
            rows: pl.DataFrame = answer(self.con, sql, used).pl()
            return rows


def _ask_headline(ask: _Query, window: ReportPeriod, stuck: pl.DataFrame) -> Headline:
    def first_row(sql: str, since: datetime | None, until: datetime | None) -> Row | None:
        rows = ask(sql, grain="all", since=since, until=until).rows(named=True)
        return rows[0] if rows else None

    recent, before = window.recent, window.before
    compared = ask(COMPARED, before=before, recent=recent).rows(named=True) if before else []
    return Headline(
        rates=first_row(RATES, recent, window.until),
        rates_before=first_row(RATES, before, recent) if before else None,
        durations=first_row(DURATIONS, recent, window.until),
        durations_before=first_row(DURATIONS, before, recent) if before else None,
        changes={row["figure"]: row for row in compared},
        open_now=ask(OPEN_AT, instant=window.end).item(),
        open_before=ask(OPEN_AT, instant=recent).item() if before else None,
        stuck=stuck["all_of_them"][0] if stuck.height else 0,
    )
