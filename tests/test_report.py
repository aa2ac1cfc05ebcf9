from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unicodedata import category
from zoneinfo import ZoneInfo

import msgspec
import pytest
from cases import mostly_slow
from click.testing import CliRunner
from lakes import SERVER, make_lake
from warehouse_jobs import START, A, B, Row, job

from pleo_extract import connect
from pleo_extract.cli import group
from pleo_extract.core.state import SyncState
from pleo_extract.errors import LakeError, StorageError, TryLater, UsageError
from pleo_extract.lake.layout import Layout
from pleo_extract.lake.record import write_last_run
from pleo_extract.report import write_report
from pleo_extract.report.axis import count_axis, duration_axis, share_axis, time_axis
from pleo_extract.report.window import choose_window
from pleo_extract.report.words import count, day, duration, interval, moment, percent

if TYPE_CHECKING:
    from collections.abc import Callable

SAMPLE = Path(__file__).parent.parent / "data" / "sample"
NOW = START + timedelta(days=40, hours=12)
LATER = date(2030, 1, 1)
"""After every job: a page without jobs has its head and foot, and is made in a third of the time."""
VOID = {"meta", "wbr", "br", "link"}
SPACE = "\N{NO-BREAK SPACE}"


class Page(HTMLParser):
    """A page as a browser parses it: its elements, its text, and unclosed elements."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.html = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(self.html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open an element."""
        assert len(dict(attrs)) == len(attrs), f"<{tag}> has an attribute twice"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an empty SVG element."""
        assert "svg" in self.open
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """Close an element, which must be the last opened one."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Collect text outside of the style."""
        if "style" not in self.open and "title" not in self.open:
            self.words.append(data)
            if {"td", "th"} & set(self.open):
                self.rows[-1][-1] += data.replace(SPACE, " ")

    @property
    def text(self) -> str:
        """Return the visible text with plain spaces."""
        return " ".join("".join(self.words).split()).replace(SPACE, " ")

    def attributes(self, tag: str, name: str) -> list[str | None]:
        """Return one attribute of all elements of a kind."""
        return [attributes.get(name) for found, attributes in self.elements if found == tag]


def some_jobs(number: int = 200) -> list[Row]:
    """Return a month of jobs of two companies: every seventh failed, the last ones open."""
    return [
        job(
            n,
            "pending" if n >= number - 3 else "failed" if n % 7 == 0 else "completed",
            company_id=(A, B)[n % 2],
            created_at=START + timedelta(hours=4 * n),
            started_at=START + timedelta(hours=4 * n, minutes=1),
            completed_at=None if n >= number - 3 else START + timedelta(hours=4 * n, minutes=2 + n % 5),
        )
        for n in range(number)
    ]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """Return the report of the sample lake."""
    return Page(write_report(SAMPLE, tmp_path_factory.mktemp("report") / "report.html"))


@pytest.fixture
def report(tmp_path: Path) -> Callable[..., Page]:
    """Return a function that makes a report on jobs."""

    def make(
        rows: list[Row], made_at: datetime = NOW, names: dict[str, str] | None = None, **asked: Any
    ) -> Page:
        lake = make_lake(tmp_path / f"lake{len(list(tmp_path.iterdir()))}", rows, made_at, names)
        return Page(write_report(lake, tmp_path / "report.html", **asked))

    return make


def check_page(page: Page) -> None:
    """Check what holds for every report: no script, nothing to load, a policy, accessible names, complete tables."""
    tags = Counter(tag for tag, _ in page.elements)
    assert not tags.keys() & {"script", "iframe", "object", "embed", "link", "form", "img", "a", "base"}
    for tag, attributes in page.elements:
        assert not [
            name for name in attributes if name.startswith("on") or name in {"href", "src", "style"}
        ], tag
    style = page.html[page.html.index("<style>") : page.html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    policy = next(each["content"] for tag, each in page.elements if each.get("http-equiv"))
    assert str(policy).startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")
    assert page.attributes("html", "lang") == ["en"]
    assert tags["h1"] == tags["main"] == 1
    ids = [found for found in (each.get("id") for _, each in page.elements) if found]
    assert len(ids) == len(set(ids))
    for _, each in page.elements:
        assert set((each.get("aria-labelledby") or "").split()) <= set(ids)
    drawn = [each for tag, each in page.elements if tag == "svg" and each.get("class") == "chart"]
    assert all(each.get("role") == "img" and each.get("aria-labelledby") for each in drawn)
    assert tags["table"] == tags["caption"] == tags["thead"]
    assert None not in page.attributes("th", "scope")
    assert not re.search(r"\b(nan|None|inf|NaT)\b", page.html)


# What it says


def test_the_sample(sample: Page) -> None:
    """The sample's report is well-formed, small, and shows the incident, stuck jobs and the receipt."""
    check_page(sample)
    assert len(sample.html) < 150_000
    assert next(row for row in sample.rows if "48 of 92" in "".join(row))[:5] == [
        "1",
        "week of 23 February 2026",
        "all",
        "52.2 %48 of 92",
        "5.6 %",
    ]
    for said in (
        "29 September 2025 to 30 September 2026",
        "data as of 30 Sep 2026, 15:00 UTC",
        "3 jobs are stuck and need attention",
        "1, published 30 Sep 2026, 15:00 UTC",
        "by 7 Oct 2026, 15:00 UTC",
        "32 pages, 3,105 rows, 3,000 distinct, 0 duplicates; the server counted 3,000",
        "Pale: week of 28 September 2026, incomplete",
    ):
        assert said in sample.text


def test_headline_figures_are_the_macros(sample: Page) -> None:
    """The headline equals `failure_rates`, `duration_stats` and `compare` for the last 30 days."""
    con = connect(SAMPLE)
    stretch = "since := timestamptz '2026-08-31 15:00Z', per_company := false"
    jobs, rate, low, high = con.sql(
        f"select jobs, rate, clustered_low, clustered_high from failure_rates('all', {stretch})"
    ).fetchall()[0]
    p50, p95 = con.sql(
        f"select p50, p95 from duration_stats('all', {stretch}) where duration = 'total'"
    ).fetchall()[0]
    before = con.sql(
        "select value_a from compare('2026-08-01 15:00Z', '2026-08-31 15:00Z', '2026-08-31 15:00Z', null, "
        "per_company := false) where figure = 'failure_rate'"
    ).fetchall()[0][0]
    tiles = sample.html[sample.html.index('<dl class="tiles">') : sample.html.index("</dl>")]
    figures = re.findall(r'<dd class="figure">([^<]*)</dd>', tiles)
    assert figures == [count(jobs), percent(rate), duration(p50), duration(p95), "5"]
    assert interval(low, high) in tiles
    assert f"{percent(before)} before, may be chance" in tiles


def test_tables_are_the_macros(sample: Page) -> None:
    """Reasons, companies, weeks, stuck and slow jobs equal the rows of their macros."""
    con = connect(SAMPLE)
    window = "since := timestamptz '2025-09-29 00:00Z'"

    def ask(sql: str) -> list[Any]:
        return con.sql(sql).fetchall()

    for reason, jobs in ask(
        f"select reason, jobs from failure_reasons('all', {window}, per_company := false) limit 12"
    ):
        row = next(row for row in sample.rows if row[0].startswith(reason))
        assert row[2] == count(jobs)
    ranked = ask(
        f"select company_id, failed, finished from failure_rates('all', {window}) order by rate desc"
    )
    shown = [
        row
        for row in sample.rows
        if len(row) == 6 and re.fullmatch(r"[0-9a-f]{8}.*", row[0]) and " of " in row[3]
    ]
    assert [row[3] for row in shown] == [
        f"{count(failed)} of {count(finished)}" for _, failed, finished in ranked
    ]
    assert [row[0][:8] for row in shown] == [company[:8] for company, *_ in ranked]
    weeks = ask(f"select finished, failed from failure_rates('week', {window}, per_company := false)")
    listed = [row for row in sample.rows if row[0].startswith("week of") and "to" in row[4]]
    assert [row[1:3] for row in listed] == [[count(n), count(k)] for n, k in weeks[:-1]], "whole weeks only"
    for reason, times, half, longest, not_yet in ask(
        "select reason, count(*) as times, median(seconds), max(seconds), count(*) filter (where is_censored) "
        f"from recoveries({window}) where is_first group by reason order by times desc, reason limit 12"
    ):
        more = f"{count(not_yet)} not over yet" if not_yet else ""
        row = [reason, count(times), duration(half), duration(longest) + more]
        assert [cell.replace(SPACE, " ") for cell in row] in sample.rows
    entries = ask(
        f"select exported_jobs, exported_items, items_per_run_second from throughput('week', {window}, per_company := false)"
    )
    listed = [
        row for row in sample.rows if row[0].startswith("week of") and re.fullmatch(r"\d\.\d\d", row[3])
    ]
    assert [row[1:4] for row in listed] == [[count(n), count(k), f"{speed:.2f}"] for n, k, speed in entries]
    assert f"{count(sum(row[1] for row in entries))} accounting entries in" in sample.text
    for macro in ("stuck_jobs()", "slow_jobs() where id not in (select id from stuck_jobs())"):
        for (found,) in ask(f"select id from {macro} limit 10"):
            assert found in sample.html


def test_the_curve_is_survivals(sample: Page) -> None:
    """The times in which half, 90, 95 and 99 % end come from `survival`, with open jobs."""
    con = connect(SAMPLE)
    for share in (0.5, 0.9, 0.95, 0.99):
        sql = f"select min(seconds) from survival(per_company := false) where survival <= {1 - share + 1e-12}"
        seconds = con.sql(sql).fetchall()[0][0]
        assert f"{share:.0%} within {duration(seconds)}".replace("%", " %").replace(SPACE, " ") in sample.text


def test_names_of_companies(report: Callable[..., Page]) -> None:
    """Companies have the names of their accounts, else the first digits of their ids."""
    page = report(some_jobs(), names={A: "Ångström & Søn <b>", B: ""})
    check_page(page)
    assert "Ångström & Søn <b>" in page.text
    assert "0000000b" in page.text
    assert "Accounts of this lake" in page.text


def test_companies_of_one_name_are_told_apart(report: Callable[..., Page]) -> None:
    """Where two names look the same, each has the first digits of its id beside it, or all of them; others have not."""
    third = A.replace("a", "c")
    rows = [*some_jobs(), *(row | {"company_id": third} for row in some_jobs(40))]
    names = {A: "Acme  ApS", B: "ACME ApS", third: "Bolt"}
    page = report(rows, names=names)
    check_page(page)
    shown = {row[0].partition("fails")[0].partition("too few")[0] for row in page.rows if row and row[0]}
    assert {f"Acme ApS {A[:8]}", f"ACME ApS {B[:8]}", "Bolt"} <= {" ".join(each.split()) for each in shown}
    assert f"Bolt {third[:8]}" not in page.text
    alike = A[:-1] + "f"
    page = report(
        [*some_jobs(), *(row | {"company_id": alike} for row in some_jobs(40))], names={A: "X", alike: "X"}
    )
    assert f"X {A}" in page.text
    assert f"X {alike}" in page.text
    one = report(some_jobs(), names={A: "Acme", B: "Acme"}, company_id=A)
    assert "Export jobs of Acme" in one.text
    assert f"Company{A}Period" in one.text


def test_it_says_when_companies_were_read(tmp_path: Path) -> None:
    """The head shows as of when the data is true, and which companies are older."""
    lake = make_lake(tmp_path / "lake", some_jobs(), NOW, names={A: "", B: ""})
    layout, later = Layout(lake), NOW + timedelta(days=2)
    states = {A: SyncState(name="Alpha", data_as_of=later), B: SyncState(name="<Beta>", data_as_of=NOW)}
    accounts = {f"{SERVER} {company}": state for company, state in states.items()}
    manifest = msgspec.structs.replace(layout.manifest(1), accounts=accounts)
    layout.manifest_file(1).write_bytes(msgspec.json.encode(manifest))
    for company, said in (
        (None, f"data as of {moment(later)}; <Beta> was last read {moment(NOW)}"),
        (A, f"data as of {moment(later)}"),
        (B, f"data as of {moment(NOW)}"),
    ):
        page = Page(write_report(lake, tmp_path / "report.html", company_id=company, since=LATER))
        check_page(page)
        assert said.replace(SPACE, " ") in page.text
        assert ("was last read" in page.text) == (company is None)
    assert f"1, published {moment(NOW)}".replace(SPACE, " ") in page.text


def test_a_report_is_put_beside_no_link(tmp_path: Path) -> None:
    """A link under the report's name is replaced, not written through."""
    other, path = tmp_path / "other", tmp_path / "report.html"
    other.write_text("of somebody else")
    path.symlink_to(other)
    write_report(SAMPLE, path, since=LATER)
    assert other.read_text() == "of somebody else"
    assert not path.is_symlink()


def test_one_company(report: Callable[..., Page]) -> None:
    """A report of a company counts only its jobs and mentions no other."""
    page = report(some_jobs(), names={A: "Alpha", B: "Beta"}, company_id=B.upper())
    check_page(page)
    assert "Export jobs of Beta" in page.text
    assert "Companies by failure rate" not in page.text
    assert "100 exports were started" in page.text


def test_since_and_until(report: Callable[..., Page]) -> None:
    """Headline and charts show the requested span, and compare it with an equal one before."""
    page = report(some_jobs(), since=date(2026, 3, 15), until=date(2026, 3, 22))
    check_page(page)
    assert "15 March 2026 to 21 March 2026" in page.text
    assert "In the 7 days to 21 March 2026, 42 exports were started" in page.text
    assert "unchanged on 42 before" in page.text


def test_the_page_says_whose_times_it_shows(sample: Page) -> None:
    """The page says server, period and time zone in words, and names the time that it compares with."""
    assert (
        "29 September 2025 to 30 September 2026, by week · from sandbox.invalid · data as of" in sample.text
    )
    assert (
        "Period29 September 2025 to 30 September 2026, by week; the first figures are of the 30 days"
        in sample.text
    )
    assert "Time zoneUTC" in sample.text
    assert "failed; in the 30 days before, it was" in sample.text


@pytest.mark.parametrize("tz", mostly_slow(["Europe/Copenhagen", "America/St_Johns", "Asia/Kolkata"]))
def test_another_time_zone(tz: str, report: Callable[..., Page]) -> None:
    """With `tz`, periods, dates and times are those of the zone: its days have the numbers of `failure_rates`."""
    zone = ZoneInfo(tz)
    rows = some_jobs(240)  # over the change of clocks of 29 March
    page = report(rows, since=date(2026, 3, 9), until=date(2026, 4, 6), tz=tz)
    check_page(page)
    assert "9 March 2026 to 5 April 2026, by day" in page.text
    assert f"Time zone{tz}" in page.text
    assert f"{NOW.astimezone(zone):%H:%M %Z}" in page.text
    inside = [
        row
        for row in rows
        if date(2026, 3, 9) <= row["created_at"].astimezone(zone).date() <= date(2026, 4, 5)
    ]
    by_day = Counter(row["created_at"].astimezone(zone).date() for row in inside)
    shown = {
        row[0]: row[1]
        for row in page.rows
        if re.fullmatch(r"\d+ \w+ 2026", row[0]) and len(row) == 6 and "to" in row[4]
    }
    finished = Counter(
        row["created_at"].astimezone(zone).date() for row in inside if row["status"] != "pending"
    )
    assert shown == {f"{day.day} {day:%B %Y}": count(finished[day]) for day in by_day}
    assert f"In the 28 days to 5 April 2026, {len(inside)} exports were started" in page.text
    assert "UTC" not in page.text


def test_a_bad_day_of_a_week_that_goes_on(report: Callable[..., Page]) -> None:
    """A day that `check --no-incident` names is on the page although charts are weekly, with its day and its share."""
    first, rows = datetime(2026, 1, 5, 9, tzinfo=UTC), list[Row]()
    for days in range(200):
        created = first + timedelta(days=days)
        failed = 14 if days == 197 else 1
        rows += [
            job(len(rows) + n, each, created_at=created, started_at=created, completed_at=created)
            for n, each in enumerate(["failed"] * failed + ["completed"] * (20 - failed))
        ]
    page = report(rows, rows[-1]["created_at"])
    check_page(page)
    bad = [row for row in page.rows if row[0] == "21 July 2026" and "14 of 20" in row[2]]
    assert len(bad) == 1
    assert "Single days of the last seven with more failures than their past explains" in page.text
    calm = report(rows, rows[-1]["created_at"], until=first + timedelta(days=197))
    assert "Single days" not in calm.text
    assert "Single days" not in report(rows, rows[-1]["created_at"], since=first + timedelta(days=180)).text


def test_the_hour_that_comes_twice(report: Callable[..., Page]) -> None:
    """In autumn two hours show the same time: each has its own row, offset, place and verdict."""
    back = datetime(2025, 10, 26, 1, tzinfo=UTC)  # Copenhagen: 02:00 comes twice, and the second one is bad
    rows: list[Row] = []
    for hour in range(-20, 6):
        created = back + timedelta(hours=hour)
        statuses = ["failed"] * (20 if hour == 0 else 1) + ["completed"] * 20
        rows += [
            job(len(rows) + n, each, created_at=created, started_at=created, completed_at=created)
            for n, each in enumerate(statuses)
        ]
    first, last = back - timedelta(hours=20), back + timedelta(hours=6)
    page = report(rows, last, since=first, tz="Europe/Copenhagen")
    check_page(page)
    numbers = {row[0]: row[1:3] for row in page.rows if row[0].startswith("hour from") and "to" in row[-2]}
    assert len(numbers) == 26
    assert numbers["hour from 26 Oct 2025, 02:00 CEST"] == ["21", "1"]
    assert numbers["hour from 26 Oct 2025, 02:00 CET"] == ["40", "20"]
    incident = next(row for row in page.rows if row[0] == "1")
    assert incident[1] == "hour from 26 Oct 2025, 02:00 CET"
    assert incident[3] == "50.0 %20 of 40"
    for chart in ("outcomes", "rates", "durations"):
        drawn = page.html[page.html.index(f'aria-labelledby="{chart}-title') :]
        shown = re.findall(
            r'<rect class="point" x="([\d.]+)%"[^>]*><title>(hour from [^:]*:\d\d.C\w+)',
            drawn[: drawn.index("</figure>")],
        )
        places = {name.replace(SPACE, " "): float(place) for place, name in shown}
        assert len(places) == 26
        steps = [right - left for left, right in pairwise(sorted(places.values()))]
        assert steps == pytest.approx([100 / 26] * 25, abs=0.011)
        assert places["hour from 26 Oct 2025, 02:00 CET"] == max(
            place for name, place in places.items() if "02:00" in name and "26" in name
        )
    (mark,) = re.findall(r'<circle class="mark" cx="([\d.]+)%"', page.html)
    assert float(mark) == pytest.approx(100 * 20.5 / 26, abs=0.01)
    early = [row for row in rows if row["created_at"] <= back]
    amid = report(early, back + timedelta(minutes=30), since=first, tz="Europe/Copenhagen")
    assert "Pale: hour from 26 Oct 2025, 02:00 CET, incomplete" in amid.text
    again = report(rows, last, since=back, tz="Europe/Copenhagen")
    assert not any("02:00 CEST" in row[0] for row in again.rows if row)


def test_no_such_time_zone(tmp_path: Path) -> None:
    """A time zone that does not exist is an error that shows how to write one."""
    usual = "Europe/Copenhagen, or UTC"
    places = (("Copenhagen", "Europe/Copenhagen"), ("berlin", "Europe/Berlin"), ("../UTC", "UTC"))
    for tz, meant in (*places, ("", usual), ("\x1b[31m", usual)):
        with pytest.raises(UsageError, match=f"is no time zone; write a name such as {meant}$"):
            write_report(SAMPLE, tmp_path / "r.html", tz=tz)
    done = CliRunner().invoke(group, ["report", str(SAMPLE), "--tz", "CPH", "-o", str(tmp_path / "r.html")])
    assert isinstance(done.exception, UsageError)
    assert list(tmp_path.iterdir()) == []


def test_a_day_without_a_zone_is_in_that_of_the_report(tmp_path: Path) -> None:
    """`--since` and `--until` without a zone are in the zone of `--tz`, as in Python."""
    asked = ["--since", "2026-03-01", "--until", "2026-04-01", "--tz", "Asia/Kolkata"]
    done = CliRunner().invoke(group, ["report", str(SAMPLE), *asked, "-o", str(tmp_path / "a.html")])
    assert done.exit_code == 0, done.output
    write_report(
        SAMPLE, tmp_path / "b.html", since=date(2026, 3, 1), until=date(2026, 4, 1), tz="Asia/Kolkata"
    )
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert "1 March 2026 to 31 March 2026, by day" in Page(tmp_path / "a.html").text


def steady_jobs(company: str, days: int, first: int) -> list[Row]:
    """Return one job every three hours of each day, over `days` days."""
    instants = (START + timedelta(hours=3 * n, minutes=7 * (n % 5)) for n in range(8 * days))
    return [
        job(
            first + n,
            company_id=company,
            created_at=at,
            started_at=at,
            completed_at=at + timedelta(minutes=1),
        )
        for n, at in enumerate(instants)
    ]


def test_silences(report: Callable[..., Page]) -> None:
    """The report lists the companies that `silences` finds, and says how many it cannot judge and why."""
    rows = [*steady_jobs(A, 40, 0), *steady_jobs(B, 30, 1000), job(9999, company_id=A.replace("a", "c"))]
    page = report(rows)
    check_page(page)
    (row,) = (row for row in page.rows if row[0] == B[:8] and "in" in row[-1] and "once" in row[-1])
    last = max(each["created_at"] for each in rows if each["company_id"] == B)
    assert row[1:3] == [
        each.replace(SPACE, " ") for each in (moment(last), duration((NOW - last).total_seconds()))
    ]
    assert "Companies without a new export for longer than their own rhythm explains" in page.text
    assert "1 company is not judged: that needs more than 20 jobs over more than 14 days." in page.text
    long = report(rows, START + timedelta(days=95))
    marks = {row[0]: row[2] for row in long.rows if "once" in row[-1]}
    assert marks == {A[:8]: "55.1 days", f"{B[:8]}has probably left": "65.1 days"}
    before = report(rows, until=date(2026, 3, 30))
    assert "No company has been without a new export for longer than its own rhythm explains." in before.text


def test_shifts(sample: Page, report: Callable[..., Page], tmp_path: Path) -> None:
    """The report lists the shifts that `shifts` finds in its time, those that go on as such."""
    with connect(SAMPLE) as con:
        company, began, ended, before, since = con.sql(
            "SELECT company_id, began, max(period), arg_max(usual_rate, period), arg_max(rate_since, period) "
            "FROM shifts('day') GROUP BY ALL ORDER BY max(evidence) DESC"
        ).fetchall()[0]
    expected = [percent(since), percent(before)]
    row = next(
        row for row in sample.rows if row[0] == company[:8] and row[1] == day(began).replace(SPACE, " ")
    )
    assert row[2:] == [each.replace(SPACE, " ") for each in (day(ended), *expected)]
    amid = Page(write_report(SAMPLE, tmp_path / "b.html", until=ended.date() + timedelta(days=1)))
    row = next(row for row in amid.rows if row[0] == company[:8] and row[1] == day(began).replace(SPACE, " "))
    assert row[2] == "it goes on"
    assert "No company's failure rate has crept up." in report(some_jobs()).text


def test_a_company_with_few_jobs_is_not_judged(report: Callable[..., Page]) -> None:
    """The page says which companies have too few jobs to differ from others, and what judging a company needs."""
    few = [
        job(2000 + n, "failed" if n < 2 else "completed", company_id=B, created_at=START + timedelta(days=n))
        for n in range(9)
    ]
    page = report([*some_jobs(), *few, *(job(3000 + n, company_id=A.replace("a", "c")) for n in range(3))])
    (row,) = (row for row in page.rows if row[0].startswith(A.replace("a", "c")[:8]) and " of " in row[3])
    assert row[0].endswith("too few finished exports to tell")
    assert (
        "companies have too few exports to be judged alone: that needs eight weeks with at least ten"
        in page.text
    )


def test_failures_that_come_together_make_no_company_worse(report: Callable[..., Page]) -> None:
    """A company is coloured by the interval that considers clusters: one bad day says little about its rate."""
    rows: list[Row] = []
    others = [A.replace("a", digit) for digit in "cd"]
    for company, bad in ((A, {3: 10, 25: 10}), (B, dict.fromkeys(range(20), 1)), *((c, {}) for c in others)):
        for number in range(40):
            created, failed = START + timedelta(days=number, hours=9), bad.get(number, 0)
            rows += [
                job(
                    len(rows) + n,
                    "failed" if n < failed else "completed",
                    company_id=company,
                    created_at=created,
                )
                for n in range(10)
            ]
    page = report(rows)
    check_page(page)
    said = {row[0][:8]: row[0][8:] for row in page.rows if len(row) == 6 and " of 400" in row[3]}
    assert said == {
        A[:8]: "",
        B[:8]: "fails more often than all together",
        **{company[:8]: "fails less often than all together" for company in others},
    }


def test_a_period_that_is_not_whole(report: Callable[..., Page]) -> None:
    """Charts of counts show the partial day pale; charts of rates and durations leave it out."""
    rows = [job(n, created_at=START + timedelta(hours=n)) for n in range(20 * 24 + 6)]
    page = report(rows, made_at=START + timedelta(days=20, hours=6))
    assert "Pale: 21 March 2026, incomplete" in page.text
    days = [row for row in page.rows if row[0] == "21 March 2026"]
    assert [len(row) for row in days] == [3, 5], "jobs and entries only"


def test_a_lake_whose_last_run_failed(tmp_path: Path) -> None:
    """A failed last run is the first thing on the page, escaped."""
    lake = make_lake(tmp_path / "lake", some_jobs(), NOW)
    receipt = {"run": "r", "code": 75, "published": False}
    write_last_run(Layout(lake), receipt=receipt, error="<i>503</i>\x1b[31m", complete=False, failed={})
    page = Page(write_report(lake, tmp_path / "report.html", since=LATER))
    check_page(page)
    assert r"ended with code 75: <i>503</i>\x1b[31m. The data below is older than this run." in page.text


@pytest.mark.parametrize("published", mostly_slow([True, False]), ids=["published", "nothing new"])
def test_a_run_that_failed_for_one_company(tmp_path: Path, *, published: bool) -> None:
    """After a run that failed for one company the page has its date and names the company."""
    lake = make_lake(tmp_path / "lake", some_jobs(), NOW)
    receipt = {"run": "r", "code": 77, "published": published}
    failed = {"<b>Acme</b>\u202e": [77, "no key"]}
    write_last_run(Layout(lake), receipt=receipt, error="no key", complete=False, failed=failed)
    page = Page(write_report(lake, tmp_path / "report.html", since=LATER))
    check_page(page)
    assert r"could not read <b>Acme</b>\u202e (code 77: no key)." in page.text
    assert "the others were read" in page.text
    assert "older than this run" not in page.text
    assert r"complete for 1 of 2 companies: <b>Acme</b>\u202e failed with 77" in page.text


# What it survives


@pytest.mark.slow
@pytest.mark.parametrize(
    "rows",
    [
        [job(1)],
        [job(1, "failed")],
        [job(1, "pending", started_at=None, last_updated_at=None)],
        [job(n) for n in range(50)],
        [job(n, "failed") for n in range(300)],
        [job(n, "pending", completed_at=None) for n in range(300)],
        [job(n, "archived") for n in range(300)],
        [job(n, completed_at=START + timedelta(hours=n)) for n in range(300)],
        [job(n, completed_at=START + timedelta(hours=n - 1)) for n in range(300)],
        [job(n, started_at=None, completed_at=None, last_updated_at=None) for n in range(300)],
        [job(n, number_of_items=0, created_at=START) for n in range(300)],
        [job(0, created_at=START - timedelta(days=20 * 365)), job(1)],
    ],
    ids=[
        "one",
        "one-failed",
        "one-open",
        "one-company",
        "all-failed",
        "all-open",
        "all-unknown",
        "no-time",
        "negative",
        "unknown-ends",
        "one-instant",
        "twenty-years",
    ],
)
def test_lakes_at_the_edge(report: Callable[..., Page], rows: list[Row]) -> None:
    """Extreme lakes give a well-formed page."""
    check_page(report(rows))


def test_what_is_open_now_is_no_part_of_a_past_day(report: Callable[..., Page]) -> None:
    """A report that ends before the lake was read says as of when jobs are stuck, and counts none of them in its figures."""
    start = START + timedelta(days=20)
    rows = [*map(job, range(20 * 24, 20 * 24 + 30)), job(38 * 24, "pending")]
    past, present = report(rows, since=start, until=start + timedelta(days=1)), report(rows, since=start)
    for page, is_past in ((past, True), (present, False)):
        check_page(page)
        text = re.sub(r"\s+", " ", page.html)
        assert ("<dt>Open at the end</dt>" in text) == is_past
        assert ("<dt>Open now</dt>" in text) != is_past
        assert ("is stuck and needs attention" in text) != is_past
        assert ("of them stuck" in text) != is_past
        assert ("when the lake was last read; not as of the end of this report" in text) == is_past


def test_no_snapshot_and_no_lake(tmp_path: Path) -> None:
    """An empty lake and a missing lake give no file, with different errors."""
    (tmp_path / "lake").mkdir()
    (tmp_path / "empty").mkdir()
    make_lake(tmp_path / "empty", [], NOW)
    page = tmp_path / "none.html"
    for lake, words in (("lake", "nothing was published yet in"), ("empty", "there is no job in")):
        with pytest.raises(TryLater, match=f"{words} .*{lake}, .*: pleo-extract dump"):
            write_report(tmp_path / lake, page)
        done = CliRunner().invoke(group, ["report", str(tmp_path / lake), "-o", str(page)])
        assert isinstance(done.exception, TryLater)
        assert done.exception.code == 75
    with pytest.raises(LakeError, match="there is no lake"):
        write_report(tmp_path / "none", page)
    assert not page.exists()


def test_a_company_without_jobs(tmp_path: Path) -> None:
    """An unknown company is an error; one without jobs in the span has a page that says so."""
    page = tmp_path / "report.html"
    with pytest.raises(UsageError, match=r"there is no job of company 6f1f2c1e.*failure_rates") as caught:
        write_report(SAMPLE, page, company_id="6F1F2C1E-8f5b-4a53-9f0a-0d3c6f0a7b11")
    assert caught.value.code == 2
    assert not page.exists()
    known = connect(SAMPLE).sql("select min(company_id) from export_jobs").fetchall()[0][0]
    write_report(SAMPLE, page, company_id=known, until=date(2020, 1, 1))
    assert "has no export job of this company in this time" in Page(page).text


HOSTILE = "</bdi></td><script>alert(1)</script>\"'&lt;\x1b[31m\r\n\u202e\u2028\0 =1+1 \N{FIRE}"
NAME = "".join(mark for mark in HOSTILE if category(mark) != "Cc")
"""Names without control characters: the reader refuses a manifest that has them."""


def test_text_of_others_is_text(report: Callable[..., Page]) -> None:
    """Reasons, messages, statuses and names stay text: no tag, control or direction character."""
    rows = [
        job(1, "failed", failure_reason_type=HOSTILE, failure_reason=HOSTILE),
        job(2, HOSTILE, expires_in=1),
        *(job(n) for n in range(3, 90)),
        job(90, "failed", failure_reason_type=HOSTILE * 9, failure_reason=HOSTILE * 20_000, completed_at=NOW),
        job(91, HOSTILE * 9, expires_in=1),
    ]
    page = report(rows, names={A: NAME, B: "b"})
    check_page(page)
    assert len(page.html) < 100_000
    for odd in "\x1b\r\u202e\u2028\0":
        assert odd not in page.html
    assert "<script>alert(1)</script>" in page.text
    assert r"\x1b[31m\r\n\u202e\u2028\x00 =1+1 " + "\N{FIRE}" in page.text


def test_a_year_of_twenty_companies(report: Callable[..., Page]) -> None:
    """A year of twenty companies is a page below 1 MB; of more, the page names the important ones."""
    companies = [f"{n:08x}-0000-4000-8000-000000000000" for n in range(30)]
    rows = [
        job(n, "failed" if n % 11 == n % 3 else "completed", company_id=companies[n % 30])
        for n in range(365 * 24)
    ]
    page = report(rows, made_at=START + timedelta(days=365))
    check_page(page)
    assert len(page.html) < 300_000
    assert "The 25 of 30 companies whose rate is most certainly high." in page.text


def test_the_same_snapshot_gives_the_same_bytes(sample: Page, tmp_path: Path) -> None:
    """A report has nothing of the time or the machine."""
    again = write_report(SAMPLE, tmp_path / "again.html").read_bytes()
    assert again == sample.path.read_bytes()
    assert str(SAMPLE.parent).encode() not in again


def test_the_file_is_put_in_place_whole(tmp_path: Path) -> None:
    """A report that cannot be written leaves the old one and no temporary file."""
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "folder", tmp_path / "none" / "report.html"):
        with pytest.raises(StorageError, match="cannot write "):
            write_report(SAMPLE, path, since=LATER)
    assert [each.name for each in tmp_path.iterdir()] == ["folder"]


def test_what_cannot_be_asked(tmp_path: Path) -> None:
    """An invalid UUID, a naive instant or a reversed span is a UsageError without a file."""
    path = tmp_path / "report.html"
    with pytest.raises(UsageError, match="company_id is not a UUID"):
        write_report(SAMPLE, path, company_id="acme")
    known = connect(SAMPLE).sql("select min(company_id) from export_jobs").fetchall()[0][0]
    for spelt in (f"{{{known}}}", f"urn:uuid:{known}", known.replace("-", ""), f" {known}"):
        with pytest.raises(UsageError, match="company_id is"):
            write_report(SAMPLE, path, company_id=spelt)
    with pytest.raises(UsageError, match="since has no time zone"):
        write_report(SAMPLE, path, since=datetime(2026, 1, 1))  # noqa: DTZ001 - that is what is tested
    with pytest.raises(UsageError, match=r"is not before until \("):
        write_report(SAMPLE, path, since=date(2026, 2, 1), until=date(2026, 2, 1))
    assert not path.exists()


def test_the_command(tmp_path: Path) -> None:
    """`pleo-extract report` writes the file, prints its size, and takes days and a company."""
    path = tmp_path / "report.html"
    asked = ["report", str(SAMPLE), "-o", str(path), "--since", "2026-02-01", "--until", "2026-03-01"]
    company = connect(SAMPLE).sql("select min(company_id) from export_jobs").fetchall()[0][0]
    done = CliRunner().invoke(group, [*asked, "--company", company])
    assert done.exit_code == 0, done.output
    assert re.fullmatch(rf"{re.escape(str(path))}: \d+ kB\n", done.output)
    assert f"Export jobs of {company}" in Page(path).text
    assert "1 February 2026 to 28 February 2026" in Page(path).text


# How it chooses and words


@pytest.mark.parametrize(
    ("days", "jobs", "grain"),
    [
        (2, 5_000, "hour"),
        (2, 40, "hour"),
        (85, 30, "week"),
        (60, 5_000, "day"),
        (60, 200, "week"),
        (364, 3_000, "week"),
        (1200, 9_000, "month"),
    ],
)
def test_periods_are_short_but_hold_some_jobs(days: int, jobs: int, grain: str) -> None:
    """Periods are the shortest with ten jobs on average and not too many of them."""
    since = NOW - timedelta(days=days)
    assert choose_window(NOW, since, jobs, since=since, until=None).grain == grain


def test_what_the_headline_compares() -> None:
    """The headline compares 30 days with the 30 before; charts show a year from a whole period on."""
    window = choose_window(NOW, NOW - timedelta(days=900), 9_000, since=None, until=None)
    assert (window.recent, window.before) == (NOW - timedelta(days=30), NOW - timedelta(days=60))
    assert window.since == datetime(2025, 4, 14, tzinfo=UTC)
    assert choose_window(NOW, NOW - timedelta(days=50), 9_000, since=None, until=None).before is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (0.26, "0.3 s"), (59, "59 s"), (60, "1 min"), (252, "4.2 min"), (4680, "1.3 h"), (172_800, "2 days"), (-5, "-5 s"), (None, "\N{EN DASH}")],
)  # fmt: skip
def test_durations_in_words(seconds: float | None, words: str) -> None:
    """Durations use the unit that people use."""
    assert duration(seconds).replace(SPACE, " ") == words


def test_axes_hold_their_values() -> None:
    """An axis begins and ends at a labelled value, and values beyond an end are on it."""
    assert [name for _, name in share_axis(0.43).ticks] == [f"{n}{SPACE}%" for n in (0, 10, 20, 30, 40, 50)]
    assert share_axis(0.0).high > 0
    assert count_axis(17).high == 20
    axis = duration_axis(5, 900)
    assert (axis.low, axis.high) == (1, 3600)
    assert axis.place(0) == 0
    assert axis.place(-1) == 0
    assert axis.place(1e9) == 1
    assert [name for _, name in time_axis(datetime(2025, 11, 3, tzinfo=UTC), datetime(2026, 5, 1, tzinfo=UTC)).ticks] == [
        "Dec 2025", "Jan 2026", "Feb", "Mar", "Apr", "May",
    ]  # fmt: skip


def test_a_report_of_a_time_without_jobs_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An empty page is written with a warning; a page with jobs is not."""
    write_report(SAMPLE, tmp_path / "full.html")
    assert not caplog.text
    write_report(SAMPLE, tmp_path / "empty.html", since=LATER)
    assert "has no job created in this time, so the page is empty" in caplog.text


def test_jobs_that_wait_are_not_called_running(sample: Page) -> None:
    """Jobs without a duration are pending or in progress: both have not ended, and only one of them runs."""
    text = sample.text
    assert "that have not ended: the next chart includes them" in text
    assert "still running" not in text
