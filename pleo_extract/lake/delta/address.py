"""The address of a Delta table and how it is reached.

Credentials come from the environment, from profiles of the store's client, or from storage options. The metadata service
of a cloud machine is asked only if the option ``instance_metadata`` is true.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from pleo_extract.cache import cache_path
from pleo_extract.errors import ConfigurationError, CredentialsError, UsageError, check_path

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Address", "read_address"]

AZURE: Final = ("az", "azure", "abfs", "abfss", "adl")
GOOGLE: Final = ("gs",)
AMAZON: Final = ("s3", "s3a")
SCHEMES: Final = (*AMAZON, *AZURE, *GOOGLE)
DEFAULTS: Final = {"max_retries": "6", "retry_timeout": "60s", "timeout": "60s", "connect_timeout": "10s"}
"""Timeouts and retries of one request to the store; options of the same name take precedence."""
INSTANCE_METADATA: Final = "instance_metadata"
"""An option of ours: whether the metadata service may be asked for credentials."""
NOWHERE: Final = "http://127.0.0.1:9"
"""The discard port of loopback, given as the address of a metadata service that must not be asked."""
SWITCH: Final = "AWS_EC2_METADATA_DISABLED"
OURS: Final = "True"
"""A spelling that nobody else uses, so that we recognise our own setting. The SDK ignores case."""
KNOWN: Final[Mapping[tuple[str, ...], tuple[str, ...]]] = {
    AZURE: (
        "account_key",
        "access_key",
        "master_key",
        "sas_key",
        "sas_token",
        "client_secret",
        "federated_token_file",
        "bearer_token",
        "use_azure_cli",
        "skip_signature",
        "use_emulator",
    ),
    GOOGLE: ("service_account", "service_account_path", "application_credentials", "skip_signature"),
}
"""Options that hold or lead to credentials, after the prefix `azure_storage_`, `azure_`, `google_storage_`, `google_` or none."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a Delta table is.

    Attributes:
        uri: the address for delta-rs.
        local: its folder; None in an object store.
        home: the folder in which this machine keeps copies of data files, and the folders of runs.
        options: storage options for delta-rs; they may hold secrets and are never shown.
    """

    uri: str
    local: Path | None
    home: Path
    options: dict[str, str] = field(repr=False)

    @property
    def runs(self) -> list[Path]:
        """The folders of runs on this machine, one for each set of accounts."""
        return sorted((self.home / "runs").glob("*"))


def read_address(
    lake: str | Path, options: Mapping[str, str] | None = None, workspace: str | Path | None = None
) -> Address:
    """Return the address of a folder or URL.

    Args:
        lake: a folder, or a URL without a query, a fragment or a password.
        options: storage options of delta-rs.
        workspace: the home; by default ``_pleo_extract`` in the folder, or for a URL a folder in the user's cache.

    Raises:
        ConfigurationError: the URL cannot be used, or an endpoint is neither https nor on this machine.
        CredentialsError: no credential is given, and the metadata service may not be asked for one.
        UsageError: there are storage options for a folder.
    """
    text = str(lake)
    for path, what in ((lake, "the lake's address"), (workspace or ".", "the workspace")):
        check_path(path, what)
    if "://" not in text:
        if options:
            raise UsageError(f"{text} is a folder; storage options are for an object store")
        local = Path(lake).absolute()
        if local.exists() and not local.is_dir():
            raise ConfigurationError(f"{local} is a file, not a folder that can hold a Delta table")
        home = Path(workspace).absolute() if workspace else local / "_pleo_extract"
        return Address(uri=str(local), local=local, home=home, options={})
    uri = _check_url(text)
    scheme = urlsplit(uri).scheme
    given = {str(key): str(value) for key, value in (options or {}).items()}
    may_ask = given.pop(INSTANCE_METADATA, "false").lower() in ("true", "1", "yes")
    _check_endpoints(given)
    if scheme in AMAZON:
        _disable_metadata(may_ask=may_ask)
    if not may_ask:
        _require_credentials(scheme, given)
        given |= _redirect_metadata(scheme, given)
    home = Path(workspace).absolute() if workspace else _find_cache(uri)
    return Address(uri=uri, local=None, home=home, options={**DEFAULTS, **given})


def _check_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in SCHEMES:
        known = ", ".join(f"{each}://" for each in SCHEMES)
        raise ConfigurationError(
            f"addresses that begin with {parts.scheme}:// are not supported; use a folder, or one of {known}"
        )
    is_container = parts.scheme.startswith("abfs") and parts.password is None
    if parts.query or parts.fragment or not parts.netloc or ("@" in parts.netloc and not is_container):
        raise ConfigurationError(
            f"the address of a {parts.scheme}:// lake is a bucket and a path; remove the credential, query or fragment"
        )
    return text.rstrip("/")


def _check_endpoints(options: Mapping[str, str]) -> None:
    for name, value in options.items():
        if "endpoint" in name.lower():
            parts = urlsplit(value)
            is_loopback = parts.hostname in ("127.0.0.1", "localhost", "::1")
            if (
                parts.username
                or parts.password
                or not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback))
            ):
                raise ConfigurationError(f"the option {name} must be an https:// URL without a credential")


def _require_credentials(scheme: str, options: Mapping[str, str]) -> None:
    """Raise where no credential is named: the clients of Azure and Google would then ask the metadata service.

    That of S3 has a switch against it, see `_disable_metadata`.
    """
    known = next((names for schemes, names in KNOWN.items() if scheme in schemes), None)
    if known is None:
        return
    company = "azure" if scheme in AZURE else "google"
    named = [*options, *(name for name in os.environ if name.upper().startswith(company.upper()))]
    prefixes = (f"{company}_storage_", f"{company}_", "")
    if not any(name.lower() == prefix + each for name in named for prefix in prefixes for each in known):
        example = "AZURE_STORAGE_ACCOUNT_KEY" if company == "azure" else "GOOGLE_APPLICATION_CREDENTIALS"
        raise CredentialsError(
            f"no credential for {scheme}:// is set; set one in the environment, for example {example}. On a machine "
            f"that has a role of its own, use the storage option {INSTANCE_METADATA}=true"
        )


def _redirect_metadata(scheme: str, options: Mapping[str, str]) -> dict[str, str]:
    """Return options that keep a client from asking a metadata service, except those that the user gives."""
    nowhere = {"azure_msi_endpoint": NOWHERE} if scheme in AZURE else {}
    if scheme in AMAZON:
        nowhere = {"aws_metadata_endpoint": NOWHERE}
    return {name: value for name, value in nowhere.items() if name not in {each.lower() for each in options}}


def _disable_metadata(*, may_ask: bool) -> None:
    """Set or clear the environment variable that Amazon's SDK obeys, since no option does the same; a user's value stays."""
    if may_ask:
        if os.environ.get(SWITCH) == OURS:
            del os.environ[SWITCH]
    else:
        os.environ.setdefault(SWITCH, OURS)


def _find_cache(uri: str) -> Path:
    try:
        return cache_path(uri, "lakes")
    except RuntimeError:  # HOME is not set and the user has no entry, as in slim containers
        raise ConfigurationError(
            "no home folder is known for the copies of a Delta table; set XDG_CACHE_HOME, or use --workspace"
        ) from None
