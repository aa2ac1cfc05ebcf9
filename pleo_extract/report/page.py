"""The page: one HTML file without script, with warnings about the data and a section that describes the data."""

from __future__ import annotations

from datetime import timedelta
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from pleo_extract.report.headline import name_recent, name_span, summary, tiles
from pleo_extract.report.markup import Column, name_company, note, table
from pleo_extract.report.sections import sections
from pleo_extract.report.words import attribute, count, date_range, plural, untrusted
from pleo_extract.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pleo_extract.lake.status import LakeStatus
    from pleo_extract.report.figures import Figures
    from pleo_extract.report.window import ReportPeriod

__all__ = ["render"]

POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
)
MOST_ACCOUNTS: Final = 50
LATE: Final = timedelta(hours=1)
"""The page names a company in its header if its data is older than that of the others by more than this."""


def render(figures: Figures) -> str:
    """Return the report as HTML."""
    style = (resources.files("pleo_extract.report") / "page.css").read_text(encoding="utf-8")
    title = "Export jobs" + (f" of {attribute(_company_name(figures), 80)}" if figures.company_id else "")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="generator" content="pleo-extract {__version__}">\n<meta name="referrer" content="no-referrer">\n'
        f"<title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(_content(figures))
        + "\n</main>\n</body>\n</html>\n"
    )


def _company_name(figures: Figures) -> str:
    company = figures.company_id or ""
    return figures.names.get(company, company)


def _content(figures: Figures) -> Iterator[str]:
    yield _head(figures)
    yield from _warnings(figures)
    window, headline = figures.window, figures.headline
    if window is None or headline is None:
        whose = " of this company" if figures.company_id else ""
        yield f'<p class="lead">The lake has no export job{whose} in this time.</p>'
    else:
        yield f'<p class="lead">{summary(headline, window)}</p>'
        yield f"<h2>The {name_recent(window)}</h2>"
        if window.before is None:
            yield note(
                f"The data does not reach back far enough to compare this with {name_span(window)} before."
            )
        yield tiles(headline, window)
        yield from sections(figures, window)
    yield _about(figures)


def _head(figures: Figures) -> str:
    window = figures.window
    whose = f" of {untrusted(_company_name(figures), 80)}" if figures.company_id else ""
    when = f"{_dates(window)}, by {window.grain} · " if window else ""
    server = _server(figures.status)
    source = f"from {server} · " if server else ""
    return (
        f'<header><h1>Export jobs{whose}</h1><p class="soft">{when}{source}{_freshness(figures)}</p></header>'
    )


def _dates(window: ReportPeriod) -> str:
    return date_range(window.since, window.end - timedelta(microseconds=1))


def _server(status: LakeStatus) -> str:
    return untrusted(status.server.partition("//")[2] or status.server, 100) if status.server else ""


def _freshness(figures: Figures) -> str:
    """Return as of when the data is true, and which companies have older data because they could not be read since."""
    late = {company: read for company, read in figures.reads.items() if figures.now - read > LATE}
    text = f"data as of {figures.moment(figures.now)}"
    if not late:
        return text
    first = min(late, key=lambda company: (late[company], company))
    more = f" ({plural(len(late) - 1, 'more company', 'more companies')} behind)" if len(late) > 1 else ""
    return f"{text}; {name_company(first, figures)} was last read {figures.moment(late[first])}{more}"


def _warnings(figures: Figures) -> Iterator[str]:
    status = figures.status
    last = status.last_run
    if last is not None and last.code:
        error = f": {untrusted(last.error, 300)}" if last.error else ""
        how, older = (
            f"ended with code {last.code}{error}",
            "" if last.published else " The data below is older than this run.",
        )
        # A run of many accounts can fail for one of them and still read the others: their data is not old.
        if last.failed and any((each.name or each.account) not in last.failed for each in status.accounts):
            names = [untrusted(name, 80) for name in list(last.failed)[:3]]
            if more := len(last.failed) - len(names):
                names.append(plural(more, "other"))
            how = f"could not read {', '.join(names)} (code {last.code}{error})"
            older = " Their data below is from an earlier run; the others were read."
        yield f'<p class="warn">The last run, {figures.moment(last.ended_at)}, {how}.{older}</p>'
    incomplete = sum(account.verdict == "incomplete" for account in status.accounts)
    if incomplete:
        yield f'<p class="warn">{plural(incomplete, "account")} could not be read completely: numbers may be too low.</p>'


def _about(figures: Figures) -> str:
    known = [("Data as of", _freshness(figures).removeprefix("data as of ")), *_facts(figures)]
    facts = "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in known if text)
    return (
        '<section aria-labelledby="about-head" class="long"><h2 id="about-head">About the data</h2>'
        f'<dl class="facts">{facts}</dl>{_accounts(figures)}'
        '<p class="note">All times are those of the time zone above. A job belongs to the period in which it was created. Failed jobs are those with status '
        "failed, expired ones included; jobs completed with errors are not failed. Open jobs count neither as success nor "
        "as failure. Intervals of rates are Wilson intervals that take the jobs of one day as a cluster, because retries and "
        "outages make a rate no surer; of few days, they take jobs as independent. A difference is called more than chance if its 95 % interval "
        "excludes zero; without any real difference, that happens once in twenty comparisons. "
        f"Made by pleo-extract {__version__}.</p></section>"
    )


def _facts(figures: Figures) -> Iterator[tuple[str, str]]:
    status, window = figures.status, figures.window
    receipt: dict[str, Any] = status.last_run.receipt if status.last_run else {}
    if figures.company_id:
        yield "Company", f'<span class="id">{attribute(figures.company_id)}</span>'
    if window is not None:
        yield (
            "Period",
            f"{_dates(window)}, by {window.grain}; the first figures are of the {name_recent(window)}",
        )
    yield "Time zone", untrusted(str(figures.zone), 60)
    yield (
        "Snapshot",
        f"{count(status.snapshot)}, published {figures.moment(status.made_at)}"
        if status.snapshot
        else "none yet",
    )
    yield "Jobs in the lake", f"{count(status.rows)}, {count(status.open)} of them open"
    yield "Newest job", figures.moment(status.newest)
    yield "Server", _server(status)
    if status.last_run is not None:
        yield "Last run", f"{figures.moment(status.last_run.ended_at)}, code {status.last_run.code}"
        yield "Last complete run", figures.moment(status.last_run.last_complete_at)
    modes = {"refresh": "incremental sync", "full": "full sync"}
    yield "Mode", modes.get(receipt["mode"], untrusted(receipt["mode"], 40)) if receipt.get("mode") else ""
    yield "Verdict", untrusted(_verdict(status, receipt), 500)
    due = [account.next_full_at for account in status.accounts if account.next_full_at]
    yield "Next full sync", f"by {figures.moment(min(due))}" if due else "with the next run"
    if receipt.get("pages"):
        yield (
            "Receipt",
            (
                f"{plural(receipt['pages'], 'page')}, {plural(receipt['rows'], 'row')}, {count(receipt['distinct'])} distinct, "
                f"{plural(receipt['duplicates'], 'duplicate')}; the server counted {_total(receipt)}"
            ),
        )
    yield (
        "Rejected",
        plural(sum(account.rejected for account in status.accounts), "row")
        + " that did not match the contract",
    )
    yield (
        "Vanished",
        plural(sum(account.vanished for account in status.accounts), "job")
        + " that the server no longer lists, kept as last seen",
    )


def _verdict(status: LakeStatus, receipt: dict[str, Any]) -> str:
    verdict, space, whose = (status.format_verdict() or str(receipt.get("verdict", "none"))).partition(" ")
    return verdict.replace("_", " ") + space + whose


def _total(receipt: dict[str, Any]) -> str:
    first, last = receipt.get("total_first"), receipt.get("total_last")
    if first is None or last is None:
        return "none"
    return count(last) if first == last else f"{count(first)} at the start and {count(last)} at the end"


def _accounts(figures: Figures) -> str:
    accounts = figures.status.accounts
    if len(accounts) < 2:
        return ""
    columns = [
        Column(
            "Account",
            lambda account: (
                untrusted(account.name, 80)
                if account.name and account.account.company not in figures.namesakes
                else name_company(account.account.company, figures)
            ),
        ),
        Column("Verdict", lambda account: untrusted(account.verdict.replace("_", " "), 40)),
        Column(
            "Last read",
            lambda account: figures.moment(figures.reads.get(account.account.company, figures.now)),
        ),
        Column("Last full sync", lambda account: figures.moment(account.full_at), "less"),
        Column(
            "Next full sync",
            lambda account: (
                figures.moment(account.next_full_at) if account.next_full_at else "with the next run"
            ),
            "less",
        ),
    ]
    more = len(accounts) - MOST_ACCOUNTS
    listed = table("Accounts of this lake", columns, accounts[:MOST_ACCOUNTS])
    return listed + note(f"And {plural(more, 'other')}." if more > 0 else "")
