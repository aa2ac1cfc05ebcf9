"""Who we are to the server: one key or token, opaque everywhere but in the one header it belongs in."""

from __future__ import annotations

import base64
import os
import re
import shlex
import subprocess
import threading
from collections import deque
from typing import TYPE_CHECKING, Final, NoReturn

from pleo_extract.client.mask import Mask
from pleo_extract.errors import CredentialsError, escape

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

__all__ = ["Credential", "Secret"]

KEPT: Final = 3
"""Tokens that are remembered, to be known again in an answer: the present one, and some before it."""
COMMAND_SECONDS: Final = 60
"""How long PLEO_TOKEN_COMMAND may take."""


class Secret:
    """A credential that never shows itself: not in repr, str, format, pickle or a traceback with locals."""

    __slots__ = ("_reveal",)
    _reveal: Callable[[], str]

    def __init__(self, text: str, origin: str = "the credential") -> None:
        try:
            if problem := _find_problem(text):
                raise CredentialsError(f"{origin} {problem}")
            self._reveal = _keep(text)
        finally:
            del text  # a traceback may show the locals of this frame

    def reveal(self) -> str:
        """The text itself, for the one header it belongs in."""
        return self._reveal()

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled; make it anew where it is needed")


def _find_problem(text: object) -> str:
    """Why this can be no key or token; empty where it can."""
    if not isinstance(text, str) or not text:
        return "is empty, or no text"
    if text != text.strip():
        return "begins or ends with a space or a line break; give the key or token alone"
    if any(c.isspace() for c in text):
        return "has a space or a line break in it; give one key or token alone"
    if not (text.isascii() and text.isprintable()):
        return "holds characters that no key or token has"
    return ""


def _keep(text: str) -> Callable[[], str]:
    return lambda: text


class Credential:
    """One credential, and how it is renewed: once at a time, and only by who saw the present one fail."""

    def __init__(
        self, scheme: str, secret: Secret | None, supply: Callable[[], str] | None = None, *, origin: str = ""
    ) -> None:
        if scheme == "Basic" and secret is not None and ":" in secret.reveal():
            raise CredentialsError("an API key holds no colon; give the key alone, the password is empty")
        self.generation = 0
        self.origin = origin
        """Where it is to be mended: the name of a variable, file or argument."""
        self._scheme = scheme
        self._secret = secret
        self._supply = supply
        self._lock = threading.Lock()
        self._masks: deque[Mask] = deque(maxlen=KEPT)
        if secret is not None:
            self._masks.append(Mask(secret.reveal()))

    @classmethod
    def find(cls, api_key: str | None, access_token: str | Callable[[], str] | None) -> Credential:
        """The credential given, or else the environment's.

        Raises:
            CredentialsError: there is none, or more than one.
        """
        try:
            if api_key is None and access_token is None:
                return cls._find_in_environment()
            if api_key is not None and access_token is not None:
                raise CredentialsError("there is an API key and an access token; give one of them")
            if callable(access_token):
                return cls("Bearer", None, access_token, origin="what access_token returns")
            return (
                cls("Basic", Secret(api_key), origin="the api_key that was given")
                if api_key is not None
                else cls("Bearer", Secret(access_token or ""), origin="the access_token that was given")
            )
        finally:
            del api_key, access_token  # a traceback may show the locals of this frame

    @classmethod
    def _find_in_environment(cls) -> Credential:
        names = ("PLEO_API_KEY", "PLEO_ACCESS_TOKEN", "PLEO_TOKEN_COMMAND")
        given = [name for name in names if os.environ.get(name)]
        if not given:
            raise CredentialsError(
                "no credential: set PLEO_API_KEY (or PLEO_ACCESS_TOKEN), or pass api_key to Client"
            )
        if len(given) > 1:
            raise CredentialsError(f"{' and '.join(given)} are set; unset all but one")
        if given == ["PLEO_TOKEN_COMMAND"]:
            return cls("Bearer", None, _run_token_command, origin=given[0])
        scheme = "Basic" if given == ["PLEO_API_KEY"] else "Bearer"
        return cls(scheme, Secret(os.environ[given[0]], given[0]), origin=given[0])

    def sign(self, request: httpx.Request) -> int:
        """Give the request its Authorization: Bearer, or Basic with the key as user name and an empty password.

        Returns:
            The generation of the secret that it now bears, for `renew` should the server refuse it.
        """
        secret, generation = self._present()
        if self._scheme == "Basic":
            request.headers["Authorization"] = (
                f"Basic {base64.b64encode(f'{secret.reveal()}:'.encode()).decode()}"
            )
        else:
            request.headers["Authorization"] = f"{self._scheme} {secret.reveal()}"
        return generation

    def mask(self, body: bytes) -> bytes:
        """Return the bytes without any secret that this credential has had; see `Mask`."""
        for mask in self._masks:
            body = mask.clean(body)
        return body

    def mask_page(self, body: bytes) -> bytes:
        """Return the bytes of a page, whose data must stay as it is: secrets as short as words are left."""
        for mask in self._masks:
            if mask.is_long:
                body = mask.clean(body)
        return body

    def mask_text(self, text: str) -> str:
        """Return the text without any secret that this credential has had."""
        for mask in self._masks:
            text = mask.clean_text(text)
        return text

    def fixed(self) -> str | None:
        """The credential itself where it stays the same, to be hashed; None where it is renewed."""
        return None if self._supply is not None or self._secret is None else self._secret.reveal()

    def renew(self, generation: int) -> bool:
        """Get a new secret in place of the one of this generation; False when there is no way to get one."""
        if self._supply is None:
            return False
        with self._lock:
            if generation == self.generation:
                self._secret = self._get_new()
                self.generation += 1
        return True

    def _present(self) -> tuple[Secret, int]:
        with self._lock:
            if self._secret is None and self._supply is not None:
                self._secret = self._get_new()
            if self._secret is None:
                raise CredentialsError("there is no credential")
            return self._secret, self.generation

    def _get_new(self) -> Secret:
        assert self._supply is not None
        secret = Secret(self._supply(), f"{self.origin}: the token")
        self._masks = deque(
            [Mask(secret.reveal()), *self._masks], maxlen=KEPT
        )  # replaced: others may read it now
        return secret


def _run_token_command() -> str:
    """The output of the user's own command, which is split as a shell splits, and run without a shell."""
    problem = ""
    try:
        done = subprocess.run(  # noqa: S603 - see above
            shlex.split(os.environ["PLEO_TOKEN_COMMAND"]),
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        if done.returncode == 0:
            return done.stdout.strip()
        problem = f"ended with {done.returncode}{_read_last_words(done.stderr, done.stdout)}"
        del done  # it holds what the command wrote, and a traceback may show the locals of this frame
    except FileNotFoundError:
        problem = "could not be run: there is no such program"
    except subprocess.TimeoutExpired:
        problem = f"could not be run: it took longer than {COMMAND_SECONDS} s"
    except (OSError, LookupError, ValueError) as exc:
        problem = f"could not be run ({type(exc).__name__})"
    raise CredentialsError(f"PLEO_TOKEN_COMMAND {problem}")


_LIKE_SECRETS: Final = re.compile(
    r"(?P<name>\b(?:pass\w*|secret|token|key|bearer|authorization)\w*\s*[:=]\s*(?:bearer\s+|basic\s+)?)\S+"
    r"|(?=\S*\d)[^\s'\"]{16,}",
    re.IGNORECASE,
)
"""What stands after such a name, and any long word with a digit in it."""


def _read_last_words(stderr: str, stdout: str) -> str:
    """The last line of what a command complained, without what may be a secret: what it printed, or what looks so."""
    lines = stderr.strip().splitlines()
    if not lines:
        return ", and said nothing"
    last = lines[-1]
    for printed in stdout.split():
        last = last.replace(printed, "***")
    shown = _LIKE_SECRETS.sub(lambda found: (found["name"] or "") + "***", last.strip())
    return f": {escape(shown, 200)}"
