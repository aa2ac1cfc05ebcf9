"""Fault scripts: which request gets which fault.

A script names faults by request number or by probability, separated by commas:

    12:503, 30-32:429, 5-:reset, *:badrow.float, reset=0.01

A variant of a kind follows after a dot. Every HTTP status is a kind; its variant is the Retry-After in seconds.
`kinds` lists the other kinds.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from pleo_extract.sandbox.exchange import Response
from pleo_extract.sandbox.kinds import KINDS, STATUS, FaultContext, status

__all__ = ["Fault", "apply_fault", "choose_fault", "parse_faults"]

PART = re.compile(
    r"(?:(?P<first>\d+|\*)(?P<open>-(?P<last>\d+)?)?:)?(?P<kind>\w+)(?:\.(?P<variant>\w+))?(?:=(?P<p>[\d.]+))?"
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One entry of a script. It covers the requests `first` to `last` (None: no end), with a probability."""

    kind: str
    variant: str = ""
    first: int = 1
    last: int | None = None
    probability: float = 1.0

    def covers(self, number: int) -> bool:
        """Return whether the entry covers this request."""
        return self.first <= number and (self.last is None or number <= self.last)


def parse_faults(text: str) -> tuple[Fault, ...]:
    """Parse a script like `12:503,30-32:429,reset=0.01`.

    Raises:
        ValueError: an entry cannot be parsed, or its kind or variant does not exist; the message names it.
    """
    return tuple(_parse(part.strip()) for part in text.split(",") if part.strip())


def choose_fault(faults: Sequence[Fault], number: int, rng: Random) -> Fault | None:
    """Return the first fault of this request, or None."""
    # Draw for every request, covered or not: then the n-th request gets the same number in every run.
    candidates = [fault for fault in faults if fault.probability == 1 or rng.random() < fault.probability]
    return next((fault for fault in candidates if fault.covers(number)), None)


def apply_fault(fault: Fault, context: FaultContext) -> Response:
    """Return the response with the fault applied to it."""
    if STATUS.fullmatch(fault.kind):
        return status(context, int(fault.kind), fault.variant)
    return KINDS[fault.kind].apply(context, fault.variant)


def _parse(part: str) -> Fault:
    match = PART.fullmatch(part)
    if match is None or (match["first"] is None and match["p"] is None):
        raise ValueError(f"{part!r} is not a fault; write 12:503, 30-32:429, 5-:500 or reset=0.01")
    kind, variant = match["kind"], match["variant"] or ""
    _check_kind(kind, variant)
    endless = match["first"] in (None, "*") or match["open"] == "-"
    first = 1 if match["first"] in (None, "*") else int(match["first"])
    return Fault(
        kind, variant, first, None if endless else int(match["last"] or first), float(match["p"] or 1)
    )


def _check_kind(kind: str, variant: str) -> None:
    if STATUS.fullmatch(kind):
        if variant and not variant.isdigit():
            raise ValueError(
                f"{kind!r} has no variant {variant!r}; its variant is the Retry-After in seconds"
            )
        return
    if kind not in KINDS:
        raise ValueError(
            f"{kind!r} is not a kind of fault; choose an HTTP status or one of {', '.join(sorted(KINDS))}"
        )
    known = KINDS[kind].variants
    if variant and variant not in known and not ("N" in known and variant.isdigit()):
        raise ValueError(
            f"{kind!r} has no variant {variant!r}; its variants are: {', '.join(known) or 'none'}"
        )
