"""F1 to F24 in a dump, first and refresh: temporary faults are survived, permanent ones do no harm."""

from __future__ import annotations

import itertools
import json
import math
import socket
import ssl
import threading
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from canary import CANARY
from trial import PAGE, edit_pages

from pleo_extract import scan_lake, verify_lake
from pleo_extract.client import read_accounts
from pleo_extract.client import wire as wire_module
from pleo_extract.contract import KEY
from pleo_extract.core.pace import Patience
from pleo_extract.core.pages import MOST
from pleo_extract.errors import (
    ConfigurationError,
    ContractError,
    CredentialsError,
    CursorRefused,
    DeadlineExceeded,
    IncompleteWalk,
    PageError,
    PageTooLarge,
    TryLater,
    WalkError,
)
from pleo_extract.sandbox import Sandbox, World, serve
from pleo_extract.sync.dump import dump_accounts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import FakeClock
    from trial import Trial

    from pleo_extract.sandbox import RequestLike, Response


TLS = Path(__file__).parent / "tls"
BRIEF = Patience(request_seconds=0.4, read_seconds=0.3, connect_seconds=1.0, attempts=3)
"""Options for faults that take time on a real socket."""
SEVERAL = {"in_flight": 4}
TRIES = Patience().attempts

each_transport = pytest.mark.usefixtures("each_transport")
first_only = pytest.mark.parametrize("trial", ["first"], indirect=True)
refresh_only = pytest.mark.parametrize("trial", ["refresh"], indirect=True)


class TestPauses:
    """F1 to F3: 429 in all its forms."""

    def test_f1_seconds_are_waited(self, trial: Trial) -> None:
        """A dump waits for each Retry-After in seconds, then continues: 0."""
        trial.strike("2:429.30,4:429.7")
        receipt = trial.survives()
        assert receipt.waited >= 37
        assert receipt.faults == {"429": 2}

    def test_f1_at_most_two_minutes_at_once(self, trial: Trial) -> None:
        """A server that asks for an hour is asked again every two minutes."""
        trial.strike("2-3:429.3600")
        assert 240 <= trial.survives().waited <= 250

    def test_f1_all_workers_pause(self, trial: Trial, clock: FakeClock) -> None:
        """While one worker waits for Retry-After, no other sends a request."""
        trial.sandbox.timer = clock.monotonic
        trial.strike("3:429.30", max_limit=10)
        trial.survives(client=SEVERAL)
        (reported,) = [asked.time for asked in trial.sandbox.requests if asked.status == 429]
        assert [asked for asked in trial.sandbox.requests if reported < asked.time < reported + 30] == []

    def test_f1_longer_than_the_deadline(self, trial: Trial, clock: FakeClock) -> None:
        """A wait longer than the run's deadline ends the run immediately with 75 and says when to return."""
        trial.strike("3-:429.100")
        failure = trial.fails(DeadlineExceeded, at_most=3, deadline=60.0)
        assert "Come back in 10" in str(failure)
        assert clock.now < 60
        trial.heals()

    def test_f1_for_ever(self, trial: Trial) -> None:
        """A server that always answers 429 gives 75 after the allowed attempts."""
        trial.strike("3-:429.5")
        failure = trial.fails(TryLater, at_most=2 + TRIES)
        assert "429" in str(failure)
        trial.heals()

    def test_f2_date_is_waited_for(self, trial: Trial) -> None:
        """A date in Retry-After counts from the response's own Date, even if the server's year is wrong."""
        trial.strike("2:429date.40")
        assert 40 <= trial.survives().waited <= 45

    def test_f2_past_date(self, trial: Trial) -> None:
        """A past date in Retry-After gives the shortest back-off."""
        trial.strike("2:429past")
        assert trial.survives().waited <= 1

    def test_f2_date_beyond_the_deadline(self, trial: Trial) -> None:
        """A date after the deadline ends the run immediately with 75."""
        trial.strike("3-:429date.4000")
        trial.fails(DeadlineExceeded, at_most=3, deadline=60.0)
        trial.heals()

    def test_f3_unusable(self, trial: Trial) -> None:
        """Without a usable Retry-After (none, empty, junk, negative, nan) each back-off is at most 1 s."""
        trial.strike("2:429none,4:429empty,6:429junk,8:429negative,10:429nan")
        receipt = trial.survives()
        assert receipt.faults == {"429": 5}
        assert receipt.waited <= 5

    def test_f3_huge(self, trial: Trial) -> None:
        """A wait of 31 years ends a run with a deadline immediately with 75."""
        trial.strike("3-:429huge")
        failure = trial.fails(DeadlineExceeded, at_most=3, deadline=3600.0)
        assert "Come back in 1000000" in str(failure)
        trial.heals()


class TestTrouble:
    """F4 to F8: servers and networks that fail."""

    def test_f4_burst(self, trial: Trial) -> None:
        """A dump survives a burst of server errors."""
        trial.strike("2:500,3:502,4:503,5:504,8:503")
        assert trial.survives().faults == {"500": 1, "502": 1, "503": 2, "504": 1}

    def test_f4_burst_for_several_workers(self, trial: Trial) -> None:
        """Several workers survive a burst, too; a failed offset is replaced by cursors."""
        trial.strike("3-8:503", max_limit=10)
        receipt = trial.survives(client=SEVERAL)
        assert receipt.faults == {"503": 6}
        assert 3 <= receipt.retries <= 6

    def test_f4_for_ever(self, trial: Trial) -> None:
        """Permanent errors give 75 within the allowed attempts, and the pages before them stay staged."""
        trial.strike("3-:503")
        trial.fails(TryLater, at_most=2 + TRIES)
        assert trial.staged() > 0
        trial.heals()

    def test_f4_for_ever_within_the_deadline(self, trial: Trial, clock: FakeClock) -> None:
        """A deadline ends permanent errors earlier."""
        trial.strike("3-:503")
        trial.fails(
            DeadlineExceeded, at_most=2 + TRIES, deadline=5.0
        )  # seven random waits are shorter once in 100,000 runs
        assert clock.now <= 5
        trial.heals()

    def test_f4_one_budget(self, trial: Trial) -> None:
        """A server that fails half of its requests stays within one retry budget."""
        trial.strike("*:500=0.5")
        try:
            trial.survives()
        except TryLater:
            assert len(trial.sandbox.requests) <= 100 + 2 * 12
        trial.heals()

    @each_transport
    def test_f5_reset(self, trial: Trial) -> None:
        """A connection that is reset before or within a response leads to a retry, never to an empty page."""
        with trial.on_the_wire():
            trial.strike("2-3:reset,5-6:reset_mid")
            assert trial.survives().retries == 4

    def test_f5_for_ever(self, trial: Trial) -> None:
        """Permanent resets give 75."""
        trial.fails_of("3-:reset", "2-:reset_mid", error=TryLater, at_most=2 + TRIES)

    @each_transport
    def test_f6_truncated(self, trial: Trial) -> None:
        """A truncated body, in each of five ways, is requested again."""
        with trial.on_the_wire():
            trial.strike("2:cut,4:cut.tail,6:cut.short,8:cut.close,10:cut.chunked")
            assert trial.survives().retries == 5

    def test_f6_for_ever(self, trial: Trial) -> None:
        """Permanent truncation gives 75, or 76 if the framing says that the body is complete."""
        for kind in ("cut.short", "cut.close"):
            trial.strike(f"2-:{kind}")
            trial.fails(PageError, at_most=1 + 3)
        trial.fails_of("2-:cut", "2-:cut.tail", "2-:cut.chunked", error=TryLater, at_most=1 + TRIES)

    @pytest.mark.parametrize("fault", ["drip.30"])
    @each_transport
    def test_f7_drip(self, fault: str, trial: Trial) -> None:
        """A body that arrives byte by byte exceeds the request's time and is requested again; permanently: 75."""
        self.is_given_up(fault, trial)

    @each_transport
    def test_f8_silence(self, trial: Trial) -> None:
        """A silent connection is abandoned after the read timeout and retried; permanently: 75."""
        self.is_given_up("silence", trial)

    @staticmethod
    def is_given_up(fault: str, trial: Trial) -> None:
        """Check that the fault once is survived as a timeout, and permanently gives 75."""
        with trial.on_the_wire():
            trial.strike(f"3-:{fault}")
            trial.fails(TryLater, at_most=2 + 3, client={"patience": BRIEF})
            staged = trial.staged()
            trial.strike(f"2:{fault}")
            # On a busy machine a good response may be late too: this run may ask as often as any run.
            receipt = trial.survives(client={"patience": replace(BRIEF, attempts=TRIES)})
            assert receipt.faults.keys() == {"timeout"}
            assert receipt.resumed == (staged > 0)


class TestBodies:
    """F9 to F11: responses that are not a page."""

    def test_f9_no_page(self, trial: Trial) -> None:
        """Two bad bodies are survived; a third in a row gives 76 with the beginning of the body."""
        for kind in ("html", "empty", "204", "error200", "nodata", "nopagination"):
            trial.strike(f"2-:{kind}")
            failure = trial.fails(PageError, at_most=1 + 3)
            assert len(trial.sandbox.requests) == 1 + 3
            if kind == "html":
                assert "54 bytes, starting '<!doctype html>" in str(failure)
                assert "sent as text/html" in str(failure)
        trial.strike("2-3:html,5:empty")
        assert trial.survives().resumed

    def test_f9_another_content_type(self, trial: Trial, caplog: pytest.LogCaptureFixture) -> None:
        """Pages with another content type are accepted, with one warning."""
        trial.strike("*:wrongtype")
        trial.survives()
        assert [r.getMessage() for r in caplog.records] == [
            "a page came as 'text/plain', not as JSON; its rows are used"
        ]

    def test_f10_bad_json(self, trial: Trial) -> None:
        """Bytes that are not JSON are survived twice; three times in a row give 76."""
        for kind in ("badjson", "badutf8", "bom", "deep", "nan", "surrogate"):
            trial.strike(f"2-:{kind}")
            trial.fails(PageError, at_most=1 + 3)
        trial.strike("2-3:badjson,5:badutf8")
        assert trial.survives().resumed

    def test_f10_duplicate_key(self, trial: Trial) -> None:
        """A page with `data` twice counts as its last, empty one; the total shows that rows are missing."""
        trial.strike("3:dupkey")
        receipt = trial.dump()
        assert receipt.verdict != "incomplete"
        assert trial.wrong() == []
        trial.heals()

    def test_f11_bomb(self, trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
        """A body that decompresses beyond the limit is not read further; fewer rows are asked for."""
        monkeypatch.setattr(wire_module, "LARGEST_PAGE", 2**20)
        trial.strike("3:bomb.3")
        trial.survives()

    def test_f11_bombs_whatever_is_asked(self, trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
        """If one row is too large as well, the run ends after as few requests as it takes to see this: 76."""
        monkeypatch.setattr(wire_module, "LARGEST_PAGE", 2**20)
        trial.strike("3-:bomb.3")
        failure = trial.fails(PageTooLarge, at_most=2 + 1 + int(math.log2(MOST)))
        assert "more than 1048576 bytes" in str(failure)
        trial.heals()

    def test_f11_packings_that_nobody_asked_for(self, trial: Trial) -> None:
        """Encodings other than gzip are not decoded: 76 after three tries."""
        for encoding in ("zstd", "br", "gzip, gzip"):
            trial.strike()
            trial.transport = partial(self.pack, trial.sandbox, encoding)
            trial.fails(PageError, at_most=1 + 3)
        trial.heals()

    @staticmethod
    def pack(honest: Sandbox, encoding: str, request: RequestLike) -> Response:
        """Return the sandbox with this Content-Encoding from the second request on."""
        assert request.headers["accept-encoding"] == "gzip"
        said = honest(request)
        late = len(honest.requests) > 1
        return replace(said, headers={**said.headers, "Content-Encoding": encoding}) if late else said


class TestElsewhere:
    """F12 and F13: other hosts, and no host."""

    @each_transport
    def test_f12_redirect(self, trial: Trial) -> None:
        """A redirect is never followed: 76 after one request, and the other server receives nothing."""
        other = Sandbox(World(jobs=10), api_keys={CANARY: None})
        with serve(other) as elsewhere, trial.on_the_wire():
            for target in (elsewhere.url, "http://pleo.invalid", "https://pleo.invalid"):
                trial.strike("2-:redirect", elsewhere=target)
                failure = trial.fails(ContractError, at_most=2)
                assert f"a redirect to host '{target.split('/')[2].split(':')[0]}'" in str(failure)
            trial.strike("2-:redirect.same")  # an endless loop if it were followed
            failure = trial.fails(ContractError, at_most=2)
            assert "a redirect to the same host" in str(failure)
            assert other.requests == []
            trial.heals()

    @each_transport
    def test_f13_refused(self, trial: Trial) -> None:
        """A refused connection is retried, then gives 75."""
        with trial.on_the_wire():
            pass
        failure = trial.fails(TryLater, at_most=0, client={"patience": Patience(attempts=3)})
        assert "127.0.0.1" in str(failure)
        assert failure.receipt is not None
        assert failure.receipt["requests"] == 3
        trial.move(trial.nowhere)
        trial.heals()

    @each_transport
    def test_f13_unknown_name(self, trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
        """An unknown host name is retried, then gives 75."""

        def unknown(*_: object, **__: object) -> None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", unknown)
        trial.move("https://pleo.invalid")
        failure = trial.fails(TryLater, at_most=0, client={"patience": Patience(attempts=3)})
        assert "pleo.invalid" in str(failure)
        trial.move(trial.nowhere)
        trial.heals()

    @each_transport
    def test_f13_tls(self, trial: Trial) -> None:
        """An untrusted certificate gives 78 without a retry, and nothing is sent."""
        for pem, host, trusted, words in (
            ("loopback.pem", "127.0.0.1", False, "self-signed"),
            ("expired.pem", "127.0.0.1", True, "expired"),
            ("loopback.pem", "localhost", True, "Hostname mismatch"),
        ):
            with greet(pem) as (port, received):
                trial.move(f"https://{host}:{port}")
                ca_file = TLS / pem if trusted else None
                failure = trial.fails(ConfigurationError, at_most=0, client={"ca_file": ca_file})
            assert words in str(failure)
            assert "--ca-file" in str(failure)
            assert failure.receipt is not None
            assert (failure.receipt["requests"], received) == (1, [])
        trial.move(trial.nowhere)
        trial.heals()


@contextmanager
def greet(pem: str) -> Iterator[tuple[int, list[bytes]]]:
    """Run a TLS server with this certificate that records what it receives; yield its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / pem)
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with suppress(OSError), context.wrap_socket(connection, server_side=True) as stream:
                        if data := stream.recv(65536):
                            received.append(data)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listening.getsockname()[1], received
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


class TestAccess:
    """F14 and F15: credentials that are refused."""

    def test_f14_refused_at_the_start(self, trial: Trial) -> None:
        """A refused key gives 77 after one request and says what to check."""
        trial.strike("*:401")
        failure = trial.fails(CredentialsError, at_most=1)
        assert "Check the api_key" in str(failure)
        trial.heals()

    def test_f14_expires_on_the_way(self, trial: Trial) -> None:
        """A token that expires every three requests is renewed once each time."""
        tokens = [CANARY]

        def renew() -> str:
            if trial.sandbox.requests:
                tokens.append(trial.sandbox.renew(tokens[-1]))
            return tokens[-1]

        trial.strike(token_uses=3)
        receipt = trial.survives(client={"access_token": renew, **SEVERAL})
        assert len(tokens) > 2
        assert [asked.status for asked in trial.sandbox.requests].count(401) >= len(tokens) - 1
        assert receipt.faults == {}

    def test_f14_revoked(self, trial: Trial) -> None:
        """A revoked token that cannot be renewed gives 77, and a later run resumes."""
        trial.strike(token_uses=2)
        trial.fails(CredentialsError, at_most=3, client={"access_token": CANARY})
        assert trial.staged() > 0
        trial.heals()

    def test_f14_renewed_in_vain(self, trial: Trial) -> None:
        """A renewed token that is refused, too, gives 77 without a third try."""
        trial.strike(token_uses=2)
        trial.fails(CredentialsError, at_most=4, client={"access_token": lambda: CANARY})
        trial.heals()

    @pytest.mark.parametrize(("mode", "status"), [("first", 403), ("refresh", 404)])
    def test_f15_one_company_of_many(self, mode: str, status: int, tmp_path: Path) -> None:
        """A company without access gives 77 and is named; the others are published, and a later run reads it."""
        sandbox = Sandbox(World(jobs=200, days=30), api_keys={CANARY: None})
        shut, *others = sandbox.world.companies
        closed: set[str] = set()

        def answer(request: RequestLike) -> Response:
            said = sandbox(request)
            return (
                replace(said, status=status, body=b"{}") if any(c in request.query for c in closed) else said
            )

        lake = tmp_path / "lake"
        with serve(answer) as running:  # type: ignore[arg-type]
            accounts = read_accounts(write_accounts(tmp_path, running.url, sandbox.world.companies))
            if mode == "refresh":
                dump_accounts(lake, accounts)
                sandbox.world.advance(86_400)
            closed.add(shut)
            _, receipts = dump_accounts(lake, accounts)
            assert [each.code for each in receipts] == [77, 0, 0, 0, 0]
            assert f"no access to export jobs of {shut}" in (receipts[0].error or "")
            rows = scan_lake(lake).filter(pl.col("company_id") != shut).collect().drop("extra").to_dicts()
            assert sandbox.truth(rows, sandbox.world.now, companies=frozenset(others)) == []
            assert json.loads((lake / "_lake/last_run.json").read_text())["code"] == 77
            closed.clear()
            assert [each.code for each in dump_accounts(lake, accounts)[1]] == [0] * 5
        rows = scan_lake(lake).collect().drop("extra").to_dicts()
        assert sandbox.truth(rows, sandbox.world.now) == []

    def test_f1_companies_that_wait_side_by_side(self, tmp_path: Path) -> None:
        """Waits of several companies at the same time count once in the receipt."""
        sandbox = Sandbox(World(jobs=200, days=30), api_keys={CANARY: None}, faults="1-5:429.1")
        numbers, all_there = itertools.count(1), threading.Barrier(5)

        def answer(request: RequestLike) -> Response:
            if next(numbers) <= all_there.parties:
                all_there.wait(timeout=60)
            return sandbox(request)

        with serve(answer) as running:  # type: ignore[arg-type]
            accounts = read_accounts(write_accounts(tmp_path, running.url, sandbox.world.companies))
            whole, receipts = dump_accounts(tmp_path / "lake", accounts)
        assert [each.code for each in receipts] == [0] * 5
        assert 1 <= whole.waited <= whole.seconds
        assert whole.waited < sum(each.waited for each in receipts)
        assert (
            json.loads((tmp_path / "lake/_lake/last_run.json").read_text())["receipt"]["waited"]
            == whole.waited
        )


def write_accounts(folder: Path, url: str, companies: tuple[str, ...]) -> Path:
    """Write an accounts file of these companies with one key."""
    key = folder / "key"
    key.write_text(CANARY)
    key.chmod(0o600)
    entry = '[[account]]\ncompany_id = "{}"\nrate = 100000\napi_key_file = "key"\n'
    path = folder / "accounts.toml"
    path.write_text(f'base_url = "{url}"\n' + "".join(map(entry.format, companies)))
    return path


class TestCursors:
    """F16 to F19: cursors that are refused, repeat, or lead nowhere."""

    @pytest.mark.parametrize("fault", ["lostcursor", *(f"lostcursor.{code}" for code in (404, 410, 422))])
    def test_f16_lost_once(self, fault: str, trial: Trial) -> None:
        """A cursor that is refused in the middle loses and doubles no job; the contract names no status for that."""
        trial.strike(f"4:{fault}")
        assert trial.survives().restarts == 1

    def test_f16_every_one_lost(self, trial: Trial) -> None:
        """With offsets and a proven order, a dump reads even a server that refuses every cursor."""
        trial.strike("3-:lostcursor")
        trial.survives()

    def test_f16_lost_for_good(self, trial: Trial) -> None:
        """Without offsets the walk starts over once; a second refusal gives 76."""
        trial.strike("3-:lostcursor", offsets="refuse")
        failure = trial.fails(CursorRefused, at_most=16)
        assert "again after starting over" in str(failure)
        trial.strike(offsets="honour")
        trial.heals()

    @pytest.mark.parametrize("fault", ["3-:repeatcursor", "4-:loop2"])
    def test_f17_repeated_cursor(self, fault: str, trial: Trial) -> None:
        """A cursor that repeats, immediately or after another, gives 76 with the page; nothing is complete."""
        trial.strike(fault)
        failure = trial.fails(WalkError, at_most=5)
        assert "loop at page" in str(failure)
        trial.heals()

    def test_f17_back_to_the_start(self, trial: Trial) -> None:
        """A cursor that leads back to an early page is found, because all cursors are remembered."""
        first: list[str] = []

        def lead_back(page: dict[str, Any], number: int) -> None:
            if number == 2:
                first.append(page["pagination"]["endCursor"])
            if number == 5:
                page["pagination"] |= {"hasNextPage": True, "endCursor": first[0]}

        trial.transport = edit_pages(trial.sandbox, lead_back)
        failure = trial.fails(WalkError, at_most=5)
        assert "loop at page" in str(failure)
        trial.heals()

    def test_f18_no_usable_cursor(self, trial: Trial) -> None:
        """A next page without a cursor gives 76, and the first page is not requested again."""
        for kind in ("nocursor", "nocursor.null", "nocursor.blank", "badcursor"):
            trial.strike(f"2-:{kind}")
            failure = trial.fails(WalkError, at_most=2)
            assert "hasNextPage is true but endCursor is" in str(failure)
            asked = [str(each.parameters) for each in trial.sandbox.requests]
            assert len(set(asked)) == len(asked) == 2
        trial.heals()

    def test_f19_an_empty_page(self, trial: Trial) -> None:
        """A dump continues through nine empty pages in a row."""
        trial.strike("3-11:emptypage")
        trial.survives()

    def test_f19_empty_pages_for_ever(self, trial: Trial) -> None:
        """The tenth empty page in a row gives 76."""
        trial.strike("3-:emptypage")
        failure = trial.fails(WalkError, at_most=2 + 10)
        assert "10th empty page in a row" in str(failure)
        trial.heals()


class TestCounts:
    """F20 and F21: lists that are shorter or longer than they claim."""

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("total", "verdicts", "why"),
        [
            (False, ["complete"], ""),
            ("big", ["complete_with_drift"], "total_untrusted"),
            ("small", ["complete_with_drift"], "more than the total"),
            ("negative", ["complete"], ""),
            ("shrinking", ["complete_with_drift"], ""),
        ],
        ids=str,
    )
    def test_f20_total(self, total: object, verdicts: list[str], why: str, trial: Trial) -> None:
        """A missing `total` costs nothing; a wrong one costs a walk or two and is reported; no job is missing."""
        trial.strike(total=total)
        receipt = trial.dump()
        assert (receipt.code, receipt.verdict) == (0, verdicts[0])
        assert why in receipt.why
        assert trial.wrong() == []
        trial.strike(total=True)
        trial.heals()

    def test_f20_fewer_jobs_than_total_twice(self, trial: Trial) -> None:
        """Two different passes with fewer jobs than `total` are published as incomplete: 76, then a full sync."""
        before = scan_lake(trial.lake).collect().height if trial.mode == "refresh" else 0
        trial.strike("3:endsearly,8:endsearly")
        with pytest.raises(IncompleteWalk) as caught:
            trial.dump(full=True)
        receipt = caught.value.receipt
        assert receipt is not None
        assert (receipt["code"], receipt["verdict"], receipt["rows"]) == (76, "incomplete", 8 * PAGE)
        assert scan_lake(trial.lake).collect().height == max(before, 5 * PAGE)
        assert verify_lake(trial.lake).ok
        assert trial.heals().mode == "full"

    def test_f21_ends_early(self, trial: Trial) -> None:
        """A list that ends too early once is read again, and no job is missing."""
        trial.strike("3:endsearly")
        receipt = trial.dump()
        assert receipt.verdict == "complete"
        assert trial.wrong() == []
        trial.heals()

    @refresh_only
    def test_f21_suddenly_empty(self, trial: Trial) -> None:
        """A list that is suddenly empty gives 76 and says what to do if it is right."""
        trial.strike("*:emptied")
        failure = trial.fails(ContractError, at_most=6)
        assert "--accept-vanished" in str(failure)
        trial.heals()

    @first_only
    def test_f21_empty_at_first(self, trial: Trial) -> None:
        """A list that is empty at first gives an empty lake, and its jobs come later."""
        trial.strike("*:emptied")
        assert trial.dump().lake_rows == 0
        trial.heals()


class TestRepeats:
    """F22 and F23: a list that changes while it is read."""

    @pytest.mark.parametrize(
        ("seconds", "kept"),
        [(3_600, "changed"), (0, "changed"), (-3_600, None)],
        ids=["later", "same", "earlier"],
    )
    def test_f22_same_row_twice(self, seconds: int, kept: str | None, trial: Trial) -> None:
        """Of a job's rows the one updated last counts; of equal ones, the one fetched last."""
        last: dict[str, Any] = {}
        updated_at: list[str] = []

        def repeat(page: dict[str, Any], number: int) -> None:
            if number == 3 and last:
                updated = datetime.fromisoformat(last["lastUpdatedAt"]) + timedelta(seconds=seconds)
                updated_at.append(f"{updated:%Y-%m-%dT%H:%M:%SZ}")
                again = {**last, "failureReason": "changed", "lastUpdatedAt": updated_at[0]}
                page["data"].insert(0, again)
            if number == 2:
                last.update(next(row for row in reversed(page["data"]) if row["status"] == "completed"))

        trial.transport = edit_pages(trial.sandbox, repeat)
        receipt = trial.dump(full=True)
        assert receipt.duplicates == 1
        rows = scan_lake(trial.lake).collect()
        assert rows.select(KEY).is_unique().all()
        (found,) = rows.filter(pl.col("id") == last["id"])["failure_reason"].to_list()
        assert found == kept
        if seconds > 0:  # a real change, so later pages show it, too
            trial.sandbox.world.change(
                last["id"], last["companyId"], failureReason=kept, lastUpdatedAt=updated_at[0]
            )
        trial.heals(full=True)

    def test_f22_equal_rows(self, trial: Trial) -> None:
        """If each page begins with the last row of the one before, every job appears once; repeats are counted."""
        last: list[Any] = []

        def repeat(page: dict[str, Any], _: int) -> None:
            rows = page["data"]
            page["data"] = [*last, *rows]
            last[:] = rows[-1:]

        trial.transport = edit_pages(trial.sandbox, repeat)
        receipt = trial.dump(full=True)
        walked = [
            each
            for each in trial.sandbox.requests
            if each.parameters["sorting_order"][0] == "ASC" and "statuses" not in each.parameters
        ]
        assert receipt.duplicates == len(walked) - 1  # rows of the closing reads do not count as duplicates
        assert trial.wrong() == []
        trial.heals()

    def test_f23_changes_between_pages(self, trial: Trial) -> None:
        """While jobs come, change and go, each job that stays is in the lake once and correct."""
        world, honest, since = trial.sandbox.world, trial.sandbox, trial.sandbox.world.now
        removed: list[str] = []

        def answer(request: RequestLike) -> Response:
            jobs = world.visible()
            if len(honest.requests) in (2, 4):
                world.insert(world.now - timedelta(days=3))
                world.change(jobs[5]["id"], jobs[5]["companyId"], failureReason="changed meanwhile")
            if len(honest.requests) == 3:
                world.remove(jobs[-2]["id"], jobs[-2]["companyId"])
                removed.append(jobs[-2]["id"])
            world.advance(600)
            return honest(request)

        trial.transport = answer
        receipt = trial.dump()
        assert receipt.code == 0
        assert removed
        rows = scan_lake(trial.lake).collect().drop("extra").to_dicts()
        assert honest.truth(rows, since) == []
        trial.transport = None
        assert trial.dump(full=True).code == 0
        assert {each.id for each in trial.wrong()} <= set(removed)


class TestIgnored:
    """F24: parameters that the server ignores."""

    @pytest.mark.parametrize("limit", [7, 150])
    def test_f24_limit(self, limit: int, trial: Trial) -> None:
        """Pages that are smaller or larger than requested are read completely."""
        honest = trial.sandbox
        trial.strike(max_limit=1_000)
        trial.transport = lambda request: honest(
            replace(request, query=request.query.replace("limit=100", f"limit={limit}"))
        )
        trial.survives()

    @pytest.mark.parametrize("unsortable", ["refuse", "ignore", "lie"])
    def test_f24_sort(self, unsortable: str, trial: Trial) -> None:
        """If sorting is refused, ignored, or falsely echoed, the whole list is read."""
        trial.strike(sorting=(), unsortable=unsortable)
        receipt = trial.dump()
        assert (receipt.mode, receipt.code, receipt.order) == ("full", 0, "none")
        assert trial.wrong() == []

    def test_f24_statuses(self, trial: Trial) -> None:
        """A server that ignores `statuses` is detected by its rows; open jobs are then read by rank."""
        trial.strike(filter_statuses=False)
        receipt = trial.dump()
        assert (receipt.mode, receipt.code) == ("full" if trial.mode == "first" else "refresh", 0)
        assert trial.wrong() == []

    def test_f24_company(self, trial: Trial) -> None:
        """A server that ignores `company_id` gives 76, and no foreign row is published."""
        company = trial.sandbox.world.companies[0]
        before = trial.published()
        trial.strike(filter_company=False)
        with pytest.raises(WalkError, match="holds a row of company") as caught:
            trial.dump(company_id=company)
        assert caught.value.code == 76
        assert len(trial.sandbox.requests) == 1
        assert trial.published() == before
        trial.strike(filter_company=True)
        trial.heals()
