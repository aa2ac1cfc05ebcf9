"""Where a Delta table is and how it is reached. Credentials are the store's own: the environment, profiles, options.

Nothing asks an instance's metadata service for credentials unless the option ``instance_metadata`` is true.
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
"""Bounds of one request to the store and of its repetitions; options of the same name go before."""
INSTANCE_METADATA: Final = "instance_metadata"
"""Our own option: a metadata service may be asked for credentials."""
NOWHERE: Final = "http://127.0.0.1:9"
"""Loopback's discard port: where a metadata service is looked for that must not be asked."""
SWITCH: Final = "AWS_EC2_METADATA_DISABLED"
OURS: Final = "True"
"""As nobody else spells it: so it is known who has set it. The SDK does not mind."""
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
"""Names that hold or lead to credentials, below `azure_storage_`, `azure_`, `google_` or nothing."""


@dataclass(frozen=True, slots=True)
class Address:
    """A Delta table's place.

    Attributes:
        uri: for delta-rs. local: its folder; None in an object store. options: for delta-rs, never shown.
        home: what this machine keeps of it: copies of data files, and the folders of runs.
    """

    uri: str
    local: Path | None
    home: Path
    options: dict[str, str] = field(repr=False)


def read_address(
    lake: str | Path, options: Mapping[str, str] | None = None, workspace: str | Path | None = None
) -> Address:
    """The address of a folder or URL.

    Args:
        lake: a folder, or a URL without a query, a fragment or a password.
        options: as delta-rs takes them.
        workspace: the home; by default the folder's ``_pleo_extract``, or one in the user's cache for a URL.

    Raises:
        ConfigurationError: a URL that cannot be used, or an endpoint that is neither https nor on this machine.
        CredentialsError: none was named, and nothing may be asked for one.
    """
    text = str(lake)
    for path, what in ((lake, "the lake's address"), (workspace or ".", "the workspace")):
        check_path(path, what)
    if "://" not in text:
        if options:
            raise UsageError(f"{text} is a folder: storage options are for an object store")
        local = Path(lake).absolute()
        if local.exists() and not local.is_dir():
            raise ConfigurationError(f"{local} is a file, not a folder that can hold a Delta table")
        home = Path(workspace).absolute() if workspace else local / "_pleo_extract"
        return Address(uri=str(local), local=local, home=home, options={})
    uri = _check_url(text)
    scheme = urlsplit(uri).scheme
    given = {str(key): str(value) for key, value in (options or {}).items()}
    asks = given.pop(INSTANCE_METADATA, "false").lower() in ("true", "1", "yes")
    _check_endpoints(given)
    if scheme in AMAZON:
        _switch_off(asks=asks)
    if not asks:
        _require_credentials(scheme, given)
        given |= _without_metadata(scheme, given)
    home = Path(workspace).absolute() if workspace else _cache(uri)
    return Address(uri=uri, local=None, home=home, options={**DEFAULTS, **given})


def _check_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in SCHEMES:
        known = ", ".join(f"{each}://" for each in SCHEMES)
        raise ConfigurationError(
            f"a lake has no address that begins with {parts.scheme}://; there are {known}"
        )
    is_container = parts.scheme.startswith("abfs") and parts.password is None
    if parts.query or parts.fragment or not parts.netloc or ("@" in parts.netloc and not is_container):
        raise ConfigurationError(
            f"the address of a {parts.scheme}:// lake has a bucket and a path, and nothing else: no credential, no query"
        )
    return text.rstrip("/")


def _check_endpoints(options: Mapping[str, str]) -> None:
    for name, value in options.items():
        if "endpoint" in name.lower():
            parts = urlsplit(value)
            near = parts.hostname in ("127.0.0.1", "localhost", "::1")
            if (
                parts.username
                or parts.password
                or not (parts.scheme == "https" or (parts.scheme == "http" and near))
            ):
                raise ConfigurationError(f"the option {name} must be an https:// URL without a credential")


def _require_credentials(scheme: str, options: Mapping[str, str]) -> None:
    """Without any, the stores' clients ask the metadata service; S3's can be told not to, see below."""
    known = next((names for schemes, names in KNOWN.items() if scheme in schemes), None)
    if known is None:
        return
    company = "azure" if scheme in AZURE else "google"
    named = [*options, *(name for name in os.environ if name.upper().startswith(company.upper()))]
    prefixes = (f"{company}_storage_", f"{company}_", "")
    if not any(name.lower() == prefix + each for name in named for prefix in prefixes for each in known):
        example = "AZURE_STORAGE_ACCOUNT_KEY" if company == "azure" else "GOOGLE_APPLICATION_CREDENTIALS"
        raise CredentialsError(
            f"no credential for {scheme}:// is named in the environment, {example} for one; on a machine that has a "
            f"role of its own, say so with the storage option {INSTANCE_METADATA}=true"
        )


def _without_metadata(scheme: str, options: Mapping[str, str]) -> dict[str, str]:
    """Options that keep a client from asking a metadata service, unless one of the same name is given."""
    nowhere = {"azure_msi_endpoint": NOWHERE} if scheme in AZURE else {}
    if scheme in AMAZON:
        nowhere = {"aws_metadata_endpoint": NOWHERE}
    return {name: value for name, value in nowhere.items() if name not in {each.lower() for each in options}}


def _switch_off(*, asks: bool) -> None:
    """Amazon's own switch, which its SDK obeys and no option sets. What the user has set stays."""
    if asks:
        if os.environ.get(SWITCH) == OURS:
            del os.environ[SWITCH]
    else:
        os.environ.setdefault(SWITCH, OURS)


def _cache(uri: str) -> Path:
    try:
        return cache_path(uri, "lakes")
    except RuntimeError:
        raise ConfigurationError(
            "there is no home folder for the copies of a Delta table; set XDG_CACHE_HOME, or name one with --workspace"
        ) from None
