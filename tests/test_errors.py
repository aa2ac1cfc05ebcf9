"""The tree of errors: its drawing, exit codes, printable messages, and pickling."""

from __future__ import annotations

import copy
import pickle
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pleo_extract import errors
from pleo_extract.errors import (
    ConfigurationError,
    ContractError,
    CredentialsError,
    CursorRefused,
    DataError,
    DeadlineExceeded,
    IncompleteWalk,
    LakeError,
    LakeLocked,
    PageError,
    PleoExtractError,
    RejectedRows,
    RequestRefused,
    RequestsExceeded,
    Stopped,
    StorageError,
    TryLater,
    UsageError,
    WalkError,
    escape,
    is_shown_whole,
    worst_code,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

CODES: dict[type[PleoExtractError], int] = {
    UsageError: 2,
    DataError: 65,
    RejectedRows: 65,
    LakeError: 65,
    LakeLocked: 69,
    StorageError: 74,
    TryLater: 75,
    DeadlineExceeded: 75,
    RequestsExceeded: 75,
    Stopped: 75,
    ContractError: 76,
    PageError: 76,
    WalkError: 76,
    CursorRefused: 76,
    RequestRefused: 76,
    IncompleteWalk: 76,
    CredentialsError: 77,
    ConfigurationError: 78,
}


def all_errors(root: type[PleoExtractError] = PleoExtractError) -> Iterator[type[PleoExtractError]]:
    """Return every class below the root."""
    for child in root.__subclasses__():
        yield child
        yield from all_errors(child)


EVERY = sorted(set(all_errors()), key=lambda kind: kind.__name__)


def make(kind: type[PleoExtractError]) -> PleoExtractError:
    """Make an error of this class."""
    if kind is RejectedRows:
        return RejectedRows(["page 2, $.data[3].id: not a UUID", "page 4, $.data[0].status: missing"])
    if kind is RequestRefused:
        return RequestRefused("refused", params=[("limit", "100")])
    return kind("what happened, where, what to do")


def test_codes() -> None:
    """Each cause has its own exit code."""
    assert {kind: kind.code for kind in CODES} == CODES


def test_tree_is_as_drawn() -> None:
    """The docstring draws every class once, under its parent, with its code where it differs."""
    drawn: list[tuple[str, str, int | None]] = []
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"    ( *[│ ]*[├└]─ )?(\w+?)( +\d+)?(?:  .*)?$", line):
            depth = len(found[1] or "") // 4
            path[depth:] = [found[2]]
            drawn.append((found[2], path[depth - 1] if depth else "", int(found[3]) if found[3] else None))
    assert [name for name, _, _ in drawn[:1]] == ["PleoExtractError"]
    by_name = {kind.__name__: kind for kind in EVERY}
    assert sorted(name for name, _, _ in drawn[1:]) == sorted(by_name)
    for name, parent, code in drawn[1:]:
        kind = by_name[name]
        assert kind.__bases__[0].__name__ == parent, name
        own = kind.code if kind.code != kind.__bases__[0].code else None  # type: ignore[attr-defined]
        assert own == code, name


def test_every_error_is_public_and_says_what_it_is() -> None:
    """Every error class is in `__all__` and has a docstring."""
    assert {kind.__name__ for kind in EVERY} < set(errors.__all__)
    assert all(kind.__doc__ for kind in EVERY)


def test_usage_error_is_a_value_error() -> None:
    """An argument error can be caught as ValueError."""
    with pytest.raises(ValueError, match="limit"):
        raise UsageError("limit")


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("carry", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy])
def test_errors_travel(kind: type[PleoExtractError], carry: object) -> None:
    """A pickled error keeps class, message, attributes and receipt."""
    error = make(kind)
    error.receipt = {"run": "r", "code": error.code}
    assert callable(carry)
    arrived = carry(error)
    assert type(arrived) is kind
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)


def test_rejected_rows_names_the_first_and_counts_the_rest() -> None:
    """The message has the first row's reason, the number of rows, and what to do."""
    one, three = RejectedRows(["page 1, a: b"]), RejectedRows(["page 1, a: b", "c", "d"])
    assert str(one).startswith("1 row does not fit the contract: page 1, a: b. A dump ")
    assert str(three).startswith("3 rows do not fit the contract: page 1, a: b; and 2 more. A dump ")
    assert three.reasons == ("page 1, a: b", "c", "d")


@pytest.mark.parametrize(
    ("codes", "worst"),
    [
        ([], 0),
        ([0, 0], 0),
        ([0, 75], 75),
        ([75, 65], 65),
        ([65, 76, 75], 76),
        ([76, 77], 77),
        ([77, 78, 0], 78),
        ([75, 74], 75),
        ([0, 74, 69], 74),
        ([130], 130),
    ],
)
def test_worst_code(codes: list[int], worst: int) -> None:
    """Over many companies the exit code is the first of 78, 77, 76, 65, 75 that occurs."""
    assert worst_code(codes) == worst


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text", "plain text"),
        ("Köb ﷽ 日本", "Köb ﷽ 日本"),
        ("a\r\nb\x00c", "a\\r\\nb\\x00c"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("a\u2028b\u202ec\u200d", "a\\u2028b\\u202ec\\u200d"),
        ("half \ud83d pair", "half \\ud83d pair"),
        ("x" * 81, "x" * 80 + "…"),
        ("x" * 80, "x" * 80),
    ],
)
def test_f54_escape(text: str, shown: str) -> None:
    """F54, F31: a server's text is shown on one line, without control characters, clipped."""
    assert escape(text) == shown


@given(st.text(st.characters(codec=None), max_size=200), st.integers(1, 100))
def test_escape_is_always_printable(text: str, limit: int) -> None:
    """`escape` returns one printable, encodable line of bounded length for any input."""
    shown = escape(text, limit)
    assert shown.isprintable()
    assert len(shown) <= 10 * limit + 1
    shown.encode()


@pytest.mark.parametrize(
    "name", ["Ærø ApS", "株式会社", "\u0645\u06cc\u200c\u062e", "\u0915\u094d\u200d\u0937"]
)
def test_names_in_any_script_are_shown_whole(name: str) -> None:
    """Letters and what joins them hide nothing."""
    assert is_shown_whole(name)


@pytest.mark.parametrize("sign", ["\n", "\x1b", "\u200b", "\u202e", "\u2066", "\u2028"])
def test_what_hides_in_a_name_is_found(sign: str) -> None:
    """A line break, a mark of direction or another control character can make a name pass for another."""
    assert not is_shown_whole(f"a{sign}b")
