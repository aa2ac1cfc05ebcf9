"""delta-rs's errors as ours. What a store says may hold a signed URL or a key's name: of that only its codes are told."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from deltalake.exceptions import (
    CommitFailedError,
    DeltaError,
    DeltaProtocolError,
    SchemaMismatchError,
    TableNotFoundError,
)

from pleo_extract.errors import (
    ConfigurationError,
    CredentialsError,
    LakeError,
    NoLake,
    PleoExtractError,
    StorageError,
    TryLater,
    escape,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pleo_extract.lake.delta.address import Address

__all__ = ["translated"]

_CODE: Final = re.compile(
    r"<Code>(\w{1,60})</Code>|x-ms-error-code: (\w{1,60})|\b(?:status|Status)[^\d]{0,20}([345]\d\d)\b"
)
_REFUSED: Final = re.compile(
    r"\b40[13]\b|AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|AuthenticationFailed"
    r"|AuthorizationFailure|Forbidden|Unauthorized|[Cc]redentials? (?:provider|were not|not loaded)|CredentialsNotLoaded"
    r"|latest/api/token|/metadata/identity|computeMetadata|127\.0\.0\.1:9/|^Operation not supported"
)
_NO_BUCKET: Final = re.compile(r"NoSuchBucket|ContainerNotFound|InvalidBucketName|bucket does not exist")
_OF_STORE: Final = re.compile(r"Generic|://|[Ss]torage error|[Oo]bject ?[Ss]tore|error sending")
_PROPERTY: Final = re.compile(r"append-only|[Ff]eature|[Pp]rotocol")
"""Refusals that a property of the table has caused."""
_SETTING: Final = re.compile(
    r"[Bb]uilder error|invalid (?:URL|value)|Missing region|Configuration key|Unable to (?:parse|convert)"
)


@contextmanager
def translated(address: Address, verb: str) -> Iterator[None]:
    """While the store is spoken to; `verb` says what is being done, for the message.

    Raises:
        LakeError: there is no table, or one that is not ours to read. ConfigurationError: it does not take a commit.
        TryLater: the store did not answer properly. CredentialsError, ConfigurationError: it refused.
        StorageError: the disk refused.
    """
    try:
        yield
    except PleoExtractError:
        raise
    except CommitFailedError as exc:
        raise _refusal(address, verb, str(exc)) from None
    except TableNotFoundError:
        raise NoLake(
            f"there is no lake at {address.uri}; make one with: pleo-extract dump {address.uri}"
        ) from None
    except (DeltaProtocolError, SchemaMismatchError) as exc:
        raise LakeError(f"the Delta table {address.uri} cannot be used: {_first_line(exc)}") from None
    except (DeltaError, OSError, ValueError) as exc:
        if address.local is not None:
            raise _on_disk(address, verb, exc) from exc
        raise _in_store(address, verb, str(exc)) from None  # it may hold what must not be shown


def _refusal(address: Address, verb: str, said: str) -> PleoExtractError:
    """A commit that the table does not take, in delta-rs's words. That another was first is looked at by who commits."""
    if address.local is None and _OF_STORE.search(said):
        return _in_store(address, verb, said)
    kind = ConfigurationError if _PROPERTY.search(said) else LakeError
    return kind(f"the Delta table {address.uri} does not take this commit: {_first_line(said)}")


def _on_disk(address: Address, verb: str, exc: Exception) -> PleoExtractError:
    if isinstance(exc, FileNotFoundError) or "not found" in str(exc).lower():
        return LakeError(f"cannot {verb} {address.uri}: a file of it is missing ({_first_line(exc)})")
    if isinstance(exc, OSError):
        return StorageError(f"cannot {verb} {address.uri}: {_first_line(exc)}. See to the disk and run again")
    return LakeError(f"cannot {verb} {address.uri}: {_first_line(exc)}")


def _in_store(address: Address, verb: str, said: str) -> PleoExtractError:
    found = [part for match in _CODE.finditer(said) for part in match.groups() if part]
    codes = f" ({', '.join(dict.fromkeys(found))})" if found else ""
    if _NO_BUCKET.search(said):
        return ConfigurationError(f"cannot {verb} {address.uri}: there is no such bucket or container{codes}")
    if _REFUSED.search(said):
        return CredentialsError(
            f"cannot {verb} {address.uri}: the store refuses the credential, or there is none{codes}"
        )
    if _SETTING.search(said):
        return ConfigurationError(f"cannot {verb} {address.uri}: a storage option is missing or wrong")
    if "not found" in said.lower() or "404" in found:
        return LakeError(f"cannot {verb} {address.uri}: a file of it is missing{codes}")
    return TryLater(
        f"cannot {verb} {address.uri}: the store does not answer properly{codes}; run again later"
    )


def _first_line(exc: Exception | str) -> str:
    return escape(str(exc).partition("\n")[0], 200)
