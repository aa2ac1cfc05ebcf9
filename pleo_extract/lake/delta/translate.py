"""Translate errors of delta-rs into ours. The text of a store's error may hold a signed URL or a key: only its codes are shown."""

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
"""In a refused commit: a property of the table is the cause, so its owner must change it."""
_SETTING: Final = re.compile(
    r"[Bb]uilder error|invalid (?:URL|value)|Missing region|Configuration key|Unable to (?:parse|convert)"
)


@contextmanager
def translated(address: Address, verb: str) -> Iterator[None]:
    """Translate what delta-rs raises in this block; `verb` says what is being done, for the message.

    Raises:
        NoLake: there is no table.
        LakeError: the table cannot be read, or a file of it is missing.
        ConfigurationError: the table does not accept the commit, the bucket does not exist, or a storage option is wrong.
        CredentialsError: the store refuses the credential.
        TryLater: the store gave no proper answer.
        StorageError: the disk refused.
    """
    try:
        yield
    except PleoExtractError:
        raise
    except CommitFailedError as exc:
        raise _translate_commit(address, verb, str(exc)) from None
    except TableNotFoundError:
        raise NoLake(
            f"there is no lake at {address.uri}; make one with: pleo-extract dump {address.uri}"
        ) from None
    except (DeltaProtocolError, SchemaMismatchError) as exc:
        raise LakeError(f"the Delta table {address.uri} cannot be used: {_first_line(exc)}") from None
    except (DeltaError, OSError, ValueError) as exc:
        if address.local is not None:
            raise _translate_disk(address, verb, exc) from exc
        raise _translate_store(address, verb, str(exc)) from None  # a chained error would show the secrets


def _translate_commit(address: Address, verb: str, text: str) -> PleoExtractError:
    """Return the error for a refused commit, with the words of delta-rs. `Version.commit` handles conflicts itself."""
    if address.local is None and _OF_STORE.search(text):
        return _translate_store(address, verb, text)
    kind = ConfigurationError if _PROPERTY.search(text) else LakeError
    return kind(f"the Delta table {address.uri} does not accept this commit: {_first_line(text)}")


def _translate_disk(address: Address, verb: str, exc: Exception) -> PleoExtractError:
    if isinstance(exc, FileNotFoundError) or "not found" in str(exc).lower():
        return LakeError(f"cannot {verb} {address.uri}: a file of it is missing ({_first_line(exc)})")
    if isinstance(exc, OSError):
        return StorageError(f"cannot {verb} {address.uri}: {_first_line(exc)}. Check the disk and run again")
    return LakeError(f"cannot {verb} {address.uri}: {_first_line(exc)}")


def _translate_store(address: Address, verb: str, text: str) -> PleoExtractError:
    found = [part for match in _CODE.finditer(text) for part in match.groups() if part]
    codes = f" ({', '.join(dict.fromkeys(found))})" if found else ""
    if _NO_BUCKET.search(text):
        return ConfigurationError(
            f"cannot {verb} {address.uri}: the bucket or container does not exist{codes}"
        )
    if _REFUSED.search(text):
        return CredentialsError(
            f"cannot {verb} {address.uri}: the store refuses the credential, or none is set{codes}"
        )
    if _SETTING.search(text):
        return ConfigurationError(f"cannot {verb} {address.uri}: a storage option is missing or wrong")
    if "not found" in text.lower() or "404" in found:
        return LakeError(f"cannot {verb} {address.uri}: a file of it is missing{codes}")
    return TryLater(f"cannot {verb} {address.uri}: the store gave no proper answer{codes}; run again later")


def _first_line(exc: Exception | str) -> str:
    return escape(str(exc).partition("\n")[0], 200)
