"""Who we are to the server: one key or token, opaque everywhere but in the one header it belongs in."""

from __future__ import annotations

import base64
import os
import shlex
import subprocess
import threading
from typing import TYPE_CHECKING, Final, NoReturn
from urllib.parse import quote

from pleo_extract.errors import CredentialsError

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

__all__ = ["Credential", "Secret"]

COMMAND_SECONDS: Final = 60
"""How long PLEO_TOKEN_COMMAND may take."""


class Secret:
    """A credential that never shows itself: not in repr, str, format, pickle or a traceback with locals."""

    __slots__ = ("_reveal",)
    _reveal: Callable[[], str]

    def __init__(self, text: str) -> None:
        try:
            if not _is_secret(text):
                raise CredentialsError("the credential is empty or holds characters that no key or token has")
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


def _is_secret(text: object) -> bool:
    return isinstance(text, str) and text != "" and text.isascii() and text.isprintable() and " " not in text


def _keep(text: str) -> Callable[[], str]:
    return lambda: text


class Credential:
    """One credential, and how it is renewed: once at a time, and only by who saw the present one fail."""

    def __init__(self, scheme: str, secret: Secret | None, supply: Callable[[], str] | None = None) -> None:
        if scheme == "Basic" and secret is not None and ":" in secret.reveal():
            raise CredentialsError("an API key holds no colon; give the key alone, the password is empty")
        self.generation = 0
        self._scheme = scheme
        self._secret = secret
        self._supply = supply
        self._lock = threading.Lock()

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
                return cls("Bearer", None, access_token)
            return (
                cls("Basic", Secret(api_key))
                if api_key is not None
                else cls("Bearer", Secret(access_token or ""))
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
            return cls("Bearer", None, _run_token_command)
        return cls("Basic" if given == ["PLEO_API_KEY"] else "Bearer", Secret(os.environ[given[0]]))

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
        """The bytes without the secret, should a server send back what it got: as it is, in base64, URL-encoded."""
        for spelling in _spell(self._secret) if self._secret is not None else ():
            body = body.replace(spelling, b"***")
        return body

    def fixed(self) -> str | None:
        """The credential itself where it stays the same, to be hashed; None where it is renewed."""
        return None if self._supply is not None or self._secret is None else self._secret.reveal()

    def renew(self, generation: int) -> bool:
        """Get a new secret in place of the one of this generation; False when there is no way to get one."""
        if self._supply is None:
            return False
        with self._lock:
            if generation == self.generation:
                self._secret = Secret(self._supply())
                self.generation += 1
        return True

    def _present(self) -> tuple[Secret, int]:
        with self._lock:
            if self._secret is None and self._supply is not None:
                self._secret = Secret(self._supply())
            if self._secret is None:
                raise CredentialsError("there is no credential")
            return self._secret, self.generation


def _spell(secret: Secret) -> list[bytes]:
    """How a server may spell the secret, the longest first, so that no part of a longer one stays behind."""
    texts = {
        secret.reveal(),
        quote(secret.reveal(), safe=""),
        *(base64.b64encode(f"{secret.reveal()}{end}".encode()).decode() for end in (":", "")),
    }
    return [text.encode() for text in sorted(texts, key=len, reverse=True)]


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
        problem = f"ended with {done.returncode}"
        del done  # it holds what the command wrote, and a traceback may show the locals of this frame
    except (OSError, LookupError, subprocess.TimeoutExpired, ValueError) as exc:
        problem = f"could not be run ({type(exc).__name__})"
    raise CredentialsError(f"PLEO_TOKEN_COMMAND {problem}")
