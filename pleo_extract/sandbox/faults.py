"""Fault scripts: which request is struck by which kind of fault.

A script names faults by request number or by probability, separated by commas:

    12:503, 30-32:429, 5-:reset, *:badrow.float, reset=0.01

A kind may carry a variant after a dot. Any status is a kind, its variant the Retry-After in seconds. The kinds are
listed in `kinds`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from pleo_extract.sandbox.exchange import Response
from pleo_extract.sandbox.kinds import KINDS, STATUS, Strike, status

__all__ = ["Fault", "choose_fault", "parse_faults", "strike"]

PART = re.compile(
    r"(?:(?P<first>\d+|\*)(?P<open>-(?P<last>\d+)?)?:)?(?P<kind>\w+)(?:\.(?P<variant>\w+))?(?:=(?P<p>[\d.]+))?"
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One entry of a script: requests `first` to `last` (None: for ever), with a probability."""

    kind: str
    variant: str = ""
    first: int = 1
    last: int | None = None
    probability: float = 1.0

    def covers(self, number: int) -> bool:
        """Whether the script names this request."""
        return self.first <= number and (self.last is None or number <= self.last)


def parse_faults(text: str) -> tuple[Fault, ...]:
    """The faults of a script like `12:503,30-32:429,reset=0.01`.

    Raises:
        ValueError: names the part that cannot be read, or the kind or variant that does not exist.
    """
    return tuple(_parse(part.strip()) for part in text.split(",") if part.strip())


def choose_fault(faults: Sequence[Fault], number: int, luck: Random) -> Fault | None:
    """The first fault that strikes this request; luck is drawn for every request alike, to stay reproducible."""
    drawn = [fault for fault in faults if fault.probability == 1 or luck.random() < fault.probability]
    return next((fault for fault in drawn if fault.covers(number)), None)


def strike(fault: Fault, blow: Strike) -> Response:
    """What comes of the answer."""
    if STATUS.fullmatch(fault.kind):
        return status(blow, int(fault.kind), fault.variant)
    return KINDS[fault.kind].strike(blow, fault.variant)


def _parse(part: str) -> Fault:
    match = PART.fullmatch(part)
    if match is None or (match["first"] is None and match["p"] is None):
        raise ValueError(f"{part!r} is no fault; write 12:503, 30-32:429, 5-:500 or reset=0.01")
    kind, variant = match["kind"], match["variant"] or ""
    if not STATUS.fullmatch(kind):
        _check(kind, variant)
    endless = match["first"] in (None, "*") or match["open"] == "-"
    first = 1 if match["first"] in (None, "*") else int(match["first"])
    return Fault(
        kind, variant, first, None if endless else int(match["last"] or first), float(match["p"] or 1)
    )


def _check(kind: str, variant: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"{kind!r} is no kind of fault; there are any status, {', '.join(sorted(KINDS))}")
    known = KINDS[kind].variants
    if variant and variant not in known and not ("N" in known and variant.isdigit()):
        raise ValueError(f"{kind!r} has no variant {variant!r}; there are {', '.join(known) or 'none'}")
