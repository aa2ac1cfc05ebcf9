"""The credential: one API key or access token, visible nowhere but in the one header that it belongs in.

What this file promises, and how each promise is kept:

- *No object shows it.* A `Secret` keeps its text in a closure; `repr`, `str`, `format` and `vars` show stars, and
  pickling is refused, so it cannot travel in a Spark plan.
- *No traceback shows it.* Error trackers and notebooks print the locals of every frame. So each function deletes the
  local that holds the text before an exception can leave it.
- *No answer brings it back.* `Mask` removes it from what the server sends, including tokens of the recent past.
- *No message quotes it.* Errors name where it came from: a variable, a file, an argument. What PLEO_TOKEN_COMMAND wrote
  is shown only after everything that looks like a secret is removed.
"""

from __future__ import annotations

import base64
import os
import re
import shlex
import subprocess
import threading
import time
from collections import deque
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Final, NoReturn

from pleo_extract.client.mask import Mask
from pleo_extract.client.transport import Failure
from pleo_extract.errors import CredentialsError, escape
from pleo_extract.signals import TICK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pleo_extract.client.transport import Limit, Request

__all__ = ["Credential", "Secret", "find_exposed"]

KEPT: Final = 3
"""Tokens to mask in answers: the present one and those before it, since an answer may be older than the last renewal."""
_SECRETS: Final = ("PLEO_API_KEY", "PLEO_ACCESS_TOKEN")
"""The variables that hold a credential themselves."""
_QUOTES: Final = "\"'`"
COMMAND_SECONDS: Final = 60
"""The longest that PLEO_TOKEN_COMMAND may take."""
MOST_OUTPUT: Final = 2**20
"""The most bytes that it may write."""
LEFT_SECONDS: Final = 1.0
"""How long its output may still take to arrive when it has ended."""


def find_exposed(settings: Iterable[tuple[str, str]]) -> list[str]:
    """Return the names, sorted, of the settings that are named after a credential's variable, or hold the credential."""
    secrets = [text for name in _SECRETS if (text := os.environ.get(name))]
    try:
        return sorted(
            {
                key
                for key, value in settings
                if any(name in key.upper() for name in _SECRETS) or any(secret in value for secret in secrets)
            }
        )
    finally:
        del secrets, settings  # a traceback may show the locals of this frame


class Secret:
    """A credential that never shows itself: not in repr, str, format, pickle or a traceback with locals.

    Args:
        text: the key or token.
        origin: what an error about it names.

    Raises:
        CredentialsError: the text cannot be a key or token.
    """

    __slots__ = ("_reveal",)
    _reveal: Callable[[], str]

    def __init__(self, text: str, origin: str = "the credential") -> None:
        try:
            if problem := _find_problem(text):
                raise CredentialsError(f"{origin} {problem}")
            self._reveal = _enclose(text)
        finally:
            del text  # a traceback may show the locals of this frame

    def reveal(self) -> str:
        """Return the text itself, for the one header that it belongs in."""
        return self._reveal()

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled; create it where it is needed")


def _find_problem(text: object) -> str:
    """Return why this cannot be a key or token; "" if it can."""
    if not isinstance(text, str) or not text:
        return "is empty, or no text"
    if text != text.strip():
        return "begins or ends with a space or a line break; give the key or token alone"
    if any(c.isspace() for c in text):
        return "has a space or a line break in it; give one key or token alone"
    if not (text.isascii() and text.isprintable()):
        return "holds characters that no key or token has"
    # `docker run --env-file` takes quotation marks for a part of the value.
    if text[0] in _QUOTES or text[-1] in _QUOTES:
        return "begins or ends with a quotation mark; give the key or token without it"
    return ""


def _enclose(text: str) -> Callable[[], str]:
    """Return a function that returns the text. A lambda in `__init__` would lose its text with the `del` there."""
    return lambda: text


def _without_limit(supply: Callable[[], str]) -> Callable[[Limit], str]:
    """Return a supply of tokens that cannot be interrupted: it is the caller's own function."""
    return lambda _limit: supply()


class Credential:
    """One credential that threads share, and the way to renew it.

    A 401 reaches all threads at the same time, but a refresh token works once: Pleo kills the old one. So each secret has
    a generation, and only the first thread that saw the present generation fail gets a new one.

    Attributes:
        generation: how often the secret was renewed.
        origin: what a user must correct when it is refused: the name of a variable, file or argument.
    """

    def __init__(
        self,
        scheme: str,
        secret: Secret | None,
        supply: Callable[[Limit], str] | None = None,
        *,
        origin: str = "",
    ) -> None:
        if scheme == "Basic" and secret is not None and ":" in secret.reveal():
            raise CredentialsError("an API key holds no colon; give the key alone, the password is empty")
        self.generation = 0
        self.origin = origin
        self._scheme = scheme
        self._secret = secret
        self._supply = supply
        self._lock = threading.Lock()
        self._masks: deque[Mask] = deque(maxlen=KEPT)
        if secret is not None:
            self._masks.append(Mask(secret.reveal()))

    @classmethod
    def find(cls, api_key: str | None, access_token: str | Callable[[], str] | None) -> Credential:
        """Return the credential that is given, or else the environment's.

        Raises:
            CredentialsError: no credential is set, or more than one.
        """
        try:
            if api_key is None and access_token is None:
                return cls._find_in_environment()
            if api_key is not None and access_token is not None:
                raise CredentialsError("there are both an API key and an access token; give one of them")
            if callable(access_token):
                return cls("Bearer", None, _without_limit(access_token), origin="what access_token returns")
            return (
                cls("Basic", Secret(api_key), origin="the api_key that was given")
                if api_key is not None
                else cls("Bearer", Secret(access_token or ""), origin="the access_token that was given")
            )
        finally:
            del api_key, access_token  # a traceback may show the locals of this frame

    @classmethod
    def _find_in_environment(cls) -> Credential:
        names = (*_SECRETS, "PLEO_TOKEN_COMMAND")
        given = [name for name in names if os.environ.get(name)]
        if not given:
            raise CredentialsError(
                f"no credential: set one of {', '.join(names)} (in Python, Client(api_key=...) works too)"
            )
        if len(given) > 1:
            raise CredentialsError(f"{' and '.join(given)} are set; unset all but one")
        if given == ["PLEO_TOKEN_COMMAND"]:
            return cls("Bearer", None, _run_token_command, origin=given[0])
        scheme = "Basic" if given == ["PLEO_API_KEY"] else "Bearer"
        return cls(scheme, Secret(os.environ[given[0]], given[0]), origin=given[0])

    def sign(self, request: Request) -> int:
        """Add the Authorization header: Bearer, or Basic with the key as user name and an empty password.

        A token that is missing or was refused is asked for first, within the limit of the request.

        Returns:
            The generation of the secret, for `renew` if the server refuses it.
        """
        secret, generation = self._get_current(request.limit)
        if self._scheme == "Basic":
            request.headers["Authorization"] = (
                f"Basic {base64.b64encode(f'{secret.reveal()}:'.encode()).decode()}"
            )
        else:
            request.headers["Authorization"] = f"{self._scheme} {secret.reveal()}"
        return generation

    def mask(self, body: bytes) -> bytes:
        """Return the bytes without any secret of this credential, present or recent; see `Mask`."""
        for mask in self._masks:
            body = mask.clean(body)
        return body

    def mask_page(self, body: bytes) -> bytes:
        """Return the bytes of a page without long secrets. A short one stays: it may be a word of the data, which must not change."""
        for mask in self._masks:
            if mask.is_long:
                body = mask.clean(body)
        return body

    def mask_text(self, text: str) -> str:
        """Return the text without any secret of this credential, present or recent."""
        for mask in self._masks:
            text = mask.clean_text(text)
        return text

    def mask_headers(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Return the headers with the values that `mask_text` returns."""
        # One search through all of them, not one each, was a tenth of the work around a request.
        joined = "\n".join(headers.values())
        if self.mask_text(joined) == joined:
            return headers
        return {name: self.mask_text(value) for name, value in headers.items()}

    def fixed(self) -> str | None:
        """Return the credential's text for hashing; None if it is one that is renewed."""
        return None if self._supply is not None or self._secret is None else self._secret.reveal()

    def renew(self, generation: int) -> bool:
        """Drop the secret of this generation, so that `sign` asks for a new one; return False if it cannot be replaced."""
        if self._supply is None:
            return False
        with self._lock:
            if generation == self.generation:
                self._secret = None
                self.generation += 1
        return True

    def _get_current(self, limit: Limit) -> tuple[Secret, int]:
        with self._lock:
            if self._secret is None and self._supply is not None:
                self._secret = self._get_new(limit)
            if self._secret is None:
                raise CredentialsError("there is no credential")
            return self._secret, self.generation

    def _get_new(self, limit: Limit) -> Secret:
        assert self._supply is not None
        secret = Secret(self._supply(limit), f"{self.origin}: the token")
        # A new deque instead of a change to the old one: other threads may be iterating over that one now.
        self._masks = deque([Mask(secret.reveal()), *self._masks], maxlen=KEPT)
        return secret


def _capture(command: list[str], limit: Limit) -> tuple[int, str, str]:
    """Run a command; return its exit code and what it wrote, each stream up to `MOST_OUTPUT` bytes.

    A process that it leaves behind may hold the streams open: they are read no longer than until the command ends.

    Raises:
        ValueError: it writes more.
        Failure: it takes longer than `COMMAND_SECONDS`, or than the request that needs its token may take.
        Stopped: the session was stopped.
    """
    process = subprocess.Popen(  # noqa: S603 - the user's own command
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    pieces: tuple[bytearray, bytearray] = bytearray(), bytearray()

    def read(stream: IO[bytes], piece: bytearray) -> None:
        with stream:
            while len(piece) <= MOST_OUTPUT and (data := os.read(stream.fileno(), 65_536)):
                piece += data
        if len(piece) > MOST_OUTPUT:
            process.kill()

    streams = (process.stdout, process.stderr)
    readers = [
        threading.Thread(target=read, args=each, name="token command", daemon=True)
        for each in zip(streams, pieces, strict=True)
    ]
    for reader in readers:
        reader.start()
    try:
        code = _wait(process, limit)
    finally:
        process.kill()
        process.wait()
        for reader in readers:
            reader.join(LEFT_SECONDS)
    if any(len(piece) > MOST_OUTPUT for piece in pieces):
        raise ValueError("too much output")
    return code, pieces[0].decode(), pieces[1].decode(errors="replace")


def _wait(process: subprocess.Popen[bytes], limit: Limit) -> int:
    until = time.monotonic() + COMMAND_SECONDS
    while True:
        with suppress(subprocess.TimeoutExpired):
            return process.wait(min(TICK, limit.left(until - time.monotonic())))


def _run_token_command(limit: Limit) -> str:
    """Return what PLEO_TOKEN_COMMAND writes. It is split as a shell splits it, but no shell runs it."""
    problem, began = "", time.monotonic()
    try:
        code, out, err = _capture(shlex.split(os.environ["PLEO_TOKEN_COMMAND"]), limit)
        if code == 0:
            return out.strip()
        problem = f"ended with {code}{_format_complaint(err, out)}"
        del out, err  # they may hold a token, and a traceback may show the locals of this frame
    except FileNotFoundError:
        problem = "could not be run: there is no such program"
    except Failure:
        problem = f"could not be run: it took longer than {time.monotonic() - began:.0f} s"
    except (OSError, LookupError, ValueError) as exc:
        problem = f"could not be run ({type(exc).__name__})"
    raise CredentialsError(f"PLEO_TOKEN_COMMAND {problem}")


_LIKE_SECRETS: Final = re.compile(
    r"(?P<name>\b(?:pass\w*|secret|token|key|bearer|authorization)\w*\s*[:=]\s*(?:bearer\s+|basic\s+)?)\S+"
    r"|(?=\S*\d)[^\s'\"]{16,}",
    re.IGNORECASE,
)
"""What follows a name such as `token=`, and any word of 16 characters or more with a digit in it."""


def _format_complaint(stderr: str, stdout: str) -> str:
    """Return the last line of stderr for a message, without anything that may be a secret.

    A secret may be what the command printed on stdout, since that is the token, or any word that looks like one.
    """
    lines = stderr.strip().splitlines()
    if not lines:
        return ", and said nothing"
    last = lines[-1]
    for printed in stdout.split():
        last = last.replace(printed, "***")
    shown = _LIKE_SECRETS.sub(lambda found: (found["name"] or "") + "***", last.strip())
    return f": {escape(shown, 200)}"
