"""Who we are to the server: one key or token, opaque everywhere but in the one header it belongs in."""

from __future__ import annotations

import base64
import os
import shlex
import subprocess
import threading
from typing import TYPE_CHECKING, Final, NoReturn

from pleo_extract.errors import CredentialsError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Credential", "Secret"]

COMMAND_SECONDS: Final = 60
"""How long PLEO_TOKEN_COMMAND may take."""


class Secret:
    """A credential that never shows itself: not in repr, str, format, pickle or a traceback with locals."""

    __slots__ = ("_reveal",)
    _reveal: Callable[[], str]

    def __init__(self, text: str) -> None:
        if not text or not text.isascii() or not text.isprintable() or " " in text:
            raise CredentialsError("the credential is empty or holds characters that no key or token has")
        self._reveal = lambda: text

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


class Credential:
    """One credential, and how it is renewed: once at a time, and only by who saw the present one fail."""

    def __init__(self, scheme: str, secret: Secret | None, supply: Callable[[], str] | None = None) -> None:
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

    def header(self) -> str:
        """The value of Authorization: Bearer, or Basic with the key as user name and an empty password."""
        secret = self._present()
        if self._scheme == "Basic":
            return f"Basic {base64.b64encode(f'{secret.reveal()}:'.encode()).decode()}"
        return f"{self._scheme} {secret.reveal()}"

    def renew(self, generation: int) -> bool:
        """Get a new secret in place of the one of this generation; False when there is no way to get one."""
        if self._supply is None:
            return False
        with self._lock:
            if generation == self.generation:
                self._secret = Secret(self._supply())
                self.generation += 1
        return True

    def _present(self) -> Secret:
        with self._lock:
            if self._secret is None and self._supply is not None:
                self._secret = Secret(self._supply())
            if self._secret is None:
                raise CredentialsError("there is no credential")
            return self._secret


def _run_token_command() -> str:
    """The output of the user's own command, which is split as a shell splits, and run without a shell."""
    try:
        command = shlex.split(os.environ["PLEO_TOKEN_COMMAND"])
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=True)  # noqa: S603 - see above
    except subprocess.CalledProcessError as exc:
        raise CredentialsError(f"PLEO_TOKEN_COMMAND ended with {exc.returncode}") from None
    except (OSError, subprocess.TimeoutExpired, ValueError) as exc:
        raise CredentialsError(f"PLEO_TOKEN_COMMAND could not be run ({type(exc).__name__})") from None
    return done.stdout.strip()
