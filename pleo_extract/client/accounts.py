"""The accounts file: many companies, each with a credential of its own.

    base_url = "production"                 # for accounts that name none; by default PLEO_BASE_URL, else production

    [[account]]
    name = "Acme"
    company_id = "6f1f2c1e-8f5b-4a53-9f0a-0d3c6f0a7b11"
    api_key_env = "ACME_PLEO_KEY"           # or api_key_file, access_token_env, access_token_file
    rate = 300                              # requests in any 60 seconds; 500 by default

The file holds no secret. It says where each secret is: in an environment variable, or in a file that only its owner
can read (relative to the accounts file). People paste a key where the name of its place belongs; so what looks like a
key is refused and never shown.
"""

from __future__ import annotations

import codecs
import hashlib
import os
import re
import stat
import threading
import tomllib
import unicodedata
import zlib
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pleo_extract.client.gate import Gate
from pleo_extract.client.server import open_transport, resolve_server
from pleo_extract.contract import canonical_uuid
from pleo_extract.core.pace import FASTEST, RATE
from pleo_extract.errors import (
    ConfigurationError,
    CredentialsError,
    UsageError,
    check_path,
    escape,
    is_shown_whole,
)
from pleo_extract.system import IS_WINDOWS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pleo_extract.client import Client
    from pleo_extract.client.credential import Credential
    from pleo_extract.client.transport import Transport

__all__ = ["AccountEntry", "choose_shard", "read_accounts"]

SOURCES: Final = ("api_key_env", "api_key_file", "access_token_env", "access_token_file")
KNOWN: Final = frozenset({"name", "company_id", "base_url", "rate", *SOURCES})
VARIABLE: Final = re.compile("[A-Z_][A-Z0-9_]*")
PASTED: Final = re.compile(r"(?=.*\d)(?=.*[A-Za-z])[^.]{16,}")
"""What looks like a credential in the place of a file name."""
ENTRY: Final = re.compile(r"\s*\[\[\s*account\s*\]\]")
CONNECTIONS: Final = 8
"""The most open connections to one server, for all accounts together."""


@dataclass(frozen=True, slots=True)
class AccountEntry:
    """One account of the file.

    Attributes:
        name: what messages call it; the company_id if the file gives no name.
        company_id: its company.
        server: its base URL.
        rate: requests in any 60 seconds.
        source: the kind of credential and of place, such as ``api_key_env``.
        place: the variable or file that holds the credential.
        shared: what it shares with the other accounts of the file.
        page_size: the rows to ask for at a time; None to find out.
    """

    name: str
    company_id: str
    server: str
    rate: int
    source: str
    place: str
    shared: _Shared
    page_size: int | None = None

    @contextmanager
    def open(self) -> Iterator[Client]:
        """Open a client for this company. It reads the credential now, and shares connections with the other accounts.

        Raises:
            CredentialsError: the variable or file is missing or empty.
            ConfigurationError: the file can be read by others, or is not UTF-8.
        """
        with self._connect() as client:
            yield client

    def _connect(self) -> Client:
        from pleo_extract.client import Client  # noqa: PLC0415 - the room's own front

        is_key = self.source.startswith("api_key")
        text = self._read_credential()
        try:
            client = Client(
                self.server,
                api_key=text if is_key else None,
                access_token=None if is_key else text,
                company_id=self.company_id,
                rate=self.rate,
                in_flight=1,
                page_size=self.page_size,
                transport=self.shared.transport(self.server),
            )
        except CredentialsError as exc:
            raise CredentialsError(f"{self.source} {self.place}: {exc}") from None
        finally:
            del text  # a traceback may show the locals of this frame
        channel = client._channel  # noqa: SLF001 - the room's own
        channel.credential.origin = self.place
        client._channel = replace(channel, gate=self.shared.gate(self.server, channel.credential))  # noqa: SLF001 - as above
        return client

    def _read_credential(self) -> str:
        is_file = self.source.endswith("file")
        text = _read_private(Path(self.place), self.source) if is_file else os.environ.get(self.place, "")
        if not text:
            raise CredentialsError(
                f"{self.source} {self.place} is {'empty' if is_file else 'not set, or empty'}"
            )
        return text


class _Shared:
    """What the accounts of one file share: the connections to each server, and the gate of each credential.

    Otherwise each of perhaps ten thousand companies would open connections of its own, with a TLS handshake each.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._transports: dict[str, Transport] = {}
        self._gates: dict[str, Gate] = {}

    def transport(self, server: str) -> Transport:
        """Return the transport for a server, which all its accounts use."""
        with self._lock:
            if server not in self._transports:
                self._transports[server] = open_transport(
                    resolve_server(server), None, CONNECTIONS, None, None
                )
            return self._transports[server]

    def gate(self, server: str, credential: Credential) -> Gate:
        """Return the gate of a credential: a server's limit on concurrency is for all accounts that use the credential."""
        name = hashlib.sha256(f"{server} {credential.fixed()}".encode()).hexdigest()
        with self._lock:
            return self._gates.setdefault(name, Gate(CONNECTIONS))

    def __reduce__(self) -> tuple[type[_Shared], tuple[()]]:
        return _Shared, ()  # an entry may travel to another process, which opens its own connections

    def close(self) -> None:
        """Close the connections; they open again when they are needed."""
        with self._lock:
            transports, self._transports, self._gates = self._transports, {}, {}
        for transport in transports.values():
            transport.close()


def read_accounts(path: str | Path) -> list[AccountEntry]:
    """Return the accounts of a TOML file, checked; read no credential yet.

    Raises:
        ConfigurationError: the file cannot be read, or an entry cannot be used; the message names file, line and entry.
    """
    check_path(path, "the accounts file")
    path = Path(path)
    try:
        text = _decode(path.read_bytes(), path)
        content = tomllib.loads(text)
    except OSError as exc:
        raise ConfigurationError(f"cannot read {path}: {exc.strerror}") from exc
    except RecursionError as exc:
        raise ConfigurationError(f"{path} is nested too deeply for a list of accounts") from exc
    except ValueError as exc:  # TOMLDecodeError, or a number with thousands of digits
        raise ConfigurationError(f"{path} is not TOML: {escape(str(exc), 200)}") from exc
    if unknown := sorted(content.keys() - {"base_url", "account"}):
        raise ConfigurationError(
            f"{path} has an unknown key {escape(unknown[0])!r}; there are base_url and [[account]] tables"
        )
    entries = content.get("account")
    if not isinstance(entries, list) or not entries:
        raise ConfigurationError(
            f"{path} has no [[account]]{', but an [account]' if isinstance(entries, dict) else ''}"
        )
    default = content.get("base_url") or os.environ.get("PLEO_BASE_URL") or "production"
    shared, lines = _Shared(), _find_entries(text)
    accounts = []
    for n, entry in enumerate(entries, start=1):
        line = f", line {lines[n - 1]}" if len(lines) == len(entries) else ""
        accounts.append(_read_entry(entry, f"{path}{line}: account {n}", path, default, shared))
    for what, attribute in (("company", "company_id"), ("name", "name")):
        if twice := _find_twice([getattr(account, attribute) for account in accounts]):
            raise ConfigurationError(f"{path} names {what} {escape(twice)} twice")
    return accounts


def _decode(data: bytes, path: Path) -> str:
    """Return the text of a file, without the UTF-8 byte order mark that some editors write at its start."""
    problem = ""
    try:
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in data[:4]:
            problem = " is UTF-16 or UTF-32, from line 1 on; save it as UTF-8"
        else:
            return data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        problem = f", line {line}: byte {data[exc.start]:#x} is not UTF-8; save the file as UTF-8"
    finally:
        del data  # the file may hold a key, and a traceback may show the locals of this frame
    raise ConfigurationError(f"{path}{problem}")


def _find_entries(text: str) -> list[int]:
    """Return the line number of each ``[[account]]``, from 1."""
    return [n for n, line in enumerate(text.split("\n"), start=1) if ENTRY.match(line)]


def _find_twice(texts: Sequence[str]) -> str | None:
    """Return a text that occurs more than once, whichever way its accents are encoded, or None."""
    counts = Counter(unicodedata.normalize("NFC", text) for text in texts)
    return next((text for text, count in counts.items() if count > 1), None)


def choose_shard(accounts: Sequence[AccountEntry], part: int, parts: int) -> list[AccountEntry]:
    """Return part number `part`, from 1, of the accounts split into `parts`.

    The part depends on the company_id alone, so a company stays in its part when the file changes.

    Raises:
        UsageError: there is no such part.
    """
    if not 1 <= part <= parts:
        raise UsageError(f"there is no part {part} of {parts}")
    return [each for each in accounts if zlib.crc32(each.company_id.encode("ascii")) % parts == part - 1]


def _read_entry(entry: Any, where: str, path: Path, base_url: object, shared: _Shared) -> AccountEntry:
    if not isinstance(entry, dict):
        raise ConfigurationError(f"{where} is not a table")
    name = entry.get("name", "")
    if not isinstance(name, str) or ("name" in entry and not name.strip()):
        raise ConfigurationError(f"{where}: a name is a text, and not empty")
    where = f"{where} ({escape(name or 'without a name')})"
    if not is_shown_whole(name):
        raise ConfigurationError(
            f"{where}: a name has no line break, no mark of direction and no other control character"
        )
    if unknown := sorted(entry.keys() - KNOWN):
        raise ConfigurationError(
            f"{where} has an unknown key {escape(unknown[0])!r}; there are {', '.join(sorted(KNOWN))}"
        )
    source, place = _read_place(entry, where, path.parent)
    try:
        company = canonical_uuid(entry.get("company_id"))
    except UsageError as exc:
        raise ConfigurationError(f"{where}: {exc}") from exc
    rate = entry.get("rate", RATE)
    if not isinstance(rate, int) or isinstance(rate, bool) or not 1 <= rate <= FASTEST:
        raise ConfigurationError(f"{where}: rate must be a whole number from 1 to {FASTEST:,}")
    try:
        server = str(resolve_server(str(entry.get("base_url", base_url)))).rstrip("/")
    except ConfigurationError as exc:
        raise ConfigurationError(f"{where}: {exc}") from exc
    return AccountEntry(
        name=name or company,
        company_id=company,
        server=server,
        rate=rate,
        source=source,
        place=str(path.parent / place) if source.endswith("file") else place,
        shared=shared,
    )


def _read_place(entry: dict[str, Any], where: str, folder: Path) -> tuple[str, str]:
    """Return which kind of credential an entry has, and where the credential is; do not read it."""
    given = [source for source in SOURCES if source in entry]
    if len(given) != 1 or not isinstance(entry[given[0]], str):
        problem = f" has {' and '.join(given)}, and" if len(given) > 1 else ""
        raise ConfigurationError(f"{where}{problem} needs one of {', '.join(SOURCES)}")
    source, place = given[0], entry[given[0]]
    if "\0" in place:
        raise ConfigurationError(f"{where}: {source} holds a NUL")
    if source.endswith("env"):
        kind = "an environment variable, in capitals"
        is_pasted = not (VARIABLE.fullmatch(place) or place in os.environ)
    else:
        check_path(place, f"{where}: {source}")
        kind = "a file that exists"
        is_pasted = bool(PASTED.fullmatch(place)) and not (folder / place).exists()
    if is_pasted:
        raise ConfigurationError(
            f"{where}: {source} is the name of {kind}; the value is not shown, since it may be a credential"
        )
    return source, place


def _read_private(path: Path, source: str) -> str:
    """Return the text of a file that only its owner can read.

    Raises:
        ConfigurationError: others can read it, or it is not UTF-8.
        CredentialsError: it cannot be read.
    """
    try:
        # On Windows a mode says nothing; there the folder's permissions hold, in a user's own folder the right ones.
        if stat.S_IMODE(path.stat().st_mode) & 0o077 and not IS_WINDOWS:
            raise ConfigurationError(f"{path} can be read by others; run: chmod 600 {path}")
        return _decode(path.read_bytes(), path).strip()
    except OSError as exc:
        raise CredentialsError(f"cannot read {source} {path}: {exc.strerror}") from exc
