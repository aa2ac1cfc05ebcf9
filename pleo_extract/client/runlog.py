"""What a session logs. Repeats are held back, so that a thousand pages are not a thousand warnings."""

from __future__ import annotations

import logging
import math
import threading
from typing import TYPE_CHECKING, Final

from pleo_extract.errors import span

if TYPE_CHECKING:
    from pleo_extract.client.answer import Retryable

__all__ = ["RunLog"]

SILENCE: Final = 5.0
"""Seconds that a request may be in trouble before it is a warning; each silence after that is twice the last.

A passing fault then costs no line, and so no mail from cron. An outage of an hour costs a dozen.
"""

_log = logging.getLogger(__name__)


class RunLog:
    """The warnings of one session.

    Attributes:
        run: the name of the run, part of every record.
        known_statuses: unknown statuses that were reported before; sessions may share this set.
    """

    def __init__(self, run: str) -> None:
        self.run = run
        self.known_statuses: set[str] = set()
        self._lock = threading.Lock()
        self._seen: set[str] = set()
        self._silences: dict[str, tuple[float, float]] = {}
        """By kind of failure: when the silence ends, and the seconds it lasts."""

    def is_first(self, topic: str) -> bool:
        """Return whether this is the first call with this topic."""
        with self._lock:
            is_known = topic in self._seen
            self._seen.add(topic)
        return not is_known

    def warn_once(self, topic: str, message: str) -> None:
        """Log a warning, unless this session has already warned about this topic."""
        if self.is_first(topic):
            self._write(logging.WARNING, message)

    def report_retry(self, failure: Retryable, count: int, *, wait: float, now: float, since: float) -> None:
        """Log why a request is sent again: as a warning when it has been failing for long, else as information.

        Args:
            failure: what went wrong.
            count: how often this kind of failure has occurred in this session.
            wait: seconds until the retry.
            now: the present instant.
            since: the instant at which this request first failed.
        """
        with self._lock:
            end, silence = self._silences.get(failure.kind, (-math.inf, SILENCE))
            if is_due := now >= end and now + wait - since >= SILENCE:
                self._silences[failure.kind] = (now + 2 * silence, 2 * silence)
        times = f" ({count} times so far)" if count > 1 else ""
        level = logging.WARNING if is_due else logging.INFO
        self._write(level, f"{failure.error}{times}; retrying in {span(wait)}")

    def report_unreachable(self, failure: Retryable, seconds: float) -> None:
        """Warn that there is no connection to the server, and for how long the session tries.

        This comes at the first failure, without the usual silence: a refused connection looked like a run that hangs.
        """
        self._write(
            logging.WARNING,
            f"the server cannot be reached ({failure.error}); retrying for at most {span(seconds)}",
        )

    def _write(self, level: int, message: str) -> None:
        _log.log(level, "%s", message, extra={"run": self.run})
