"""The accounts file and its key files: bad content gives 78 with its place, never a traceback."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

import pytest
from canary import CANARY

from pleo_extract.client import read_accounts
from pleo_extract.core.pace import RateWindow
from pleo_extract.errors import ConfigurationError, CredentialsError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


ONE = "6f1f2c1e-8f5b-4a53-9f0a-0d3c6f0a7b11"
TWO = "6f1f2c1e-8f5b-4a53-9f0a-0d3c6f0a7b22"


def entry(company: str = ONE, **more: str) -> str:
    """Return one account as TOML; the values are TOML, too."""
    said = {"company_id": f'"{company}"', "api_key_env": '"K"', **more}
    return "[[account]]\n" + "".join(f"{name} = {value}\n" for name, value in said.items())


def refuse(tmp_path: Path, content: str | bytes) -> str:
    """Return why this file is refused; check that the message names it and is one line."""
    path = tmp_path / "accounts.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigurationError) as caught:
        read_accounts(path)
    said = caught.value.tell()
    assert caught.value.code == 78
    assert str(path) in said
    assert said.isprintable()
    assert len(said) < 1_000
    return said.removeprefix(str(path))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a = " + "[" * 100_000, "nested too deeply"),
        ("a." * 4_000 + "b = 1", ""),
        pytest.param("a." * 20_000 + "b = 1", "", marks=pytest.mark.slow),  # its parser is quadratic
        ("a = " + "9" * 5_000, "is not TOML"),
        ("\n\nb = ?", "line 3"),
        (entry(rate=str(10**30)), "rate must be a whole number from 1 to 10,000,000"),
        (entry(rate="0x" + "f" * 9_000), "rate must be a whole number"),
        (entry(rate="true"), "rate must be a whole number"),
        ("# two\n" + entry(name='"A\u202eB"'), r", line 2: account 1 (A\u202eB): a name has no"),
        (entry(name='"A\\u2066B"'), "no mark of direction"),
        (entry(name='"A\\u001b[2JB"'), "no other control character"),
        (entry(name='"A\\u200bB"'), "no other control character"),
        (entry(name="7"), "a name is a text"),
        (entry(name='" "'), "not empty"),
        (entry(name='"Acme"') + "\n" + entry(TWO, name='"Acme"'), "names name Acme twice"),
        (entry(name='"Caf\u00e9"') + entry(TWO, name='"Cafe\u0301"'), "names name Caf\u00e9 twice"),
        (entry() + entry(TWO, name=f'"{ONE}"'), f"names name {ONE} twice"),
        (entry() + entry(), f"names company {ONE} twice"),
        (entry() + "\n" + entry(TWO, rate="0"), ", line 5: account 2"),
        (entry(base_url='"ftp://x"'), "account 1 (without a name): the base URL"),
        (entry(**{'"\\u202ekey"': "1"}), r"unknown key '\\u202ekey'"),
        (entry(api_key_env='"A\\u0000B"'), "holds a NUL"),
        ('baseurl = "sandbox"\n' + entry(), "unknown key 'baseurl'"),
        (entry().replace("[[account]]", "[account]"), "has no [[account]], but an [account]"),
        (entry(api_key_file='"k"'), "has api_key_env and api_key_file, and needs one of"),
    ],
)
def test_f48_what_cannot_be_used_is_said_in_words(content: str, says: str, tmp_path: Path) -> None:
    """F48: a huge number, deep nesting, invisible characters or a duplicate name gives file, line and reason."""
    assert says in refuse(tmp_path, content)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_f10_another_encoding_is_named(encoding: str, tmp_path: Path) -> None:
    """F10: a file in UTF-16 is refused with the name of that encoding."""
    assert "is UTF-16 or UTF-32" in refuse(tmp_path, entry().encode(encoding))


def test_f10_bytes_that_are_no_utf8_have_a_line(tmp_path: Path) -> None:
    """F10: a byte that is not UTF-8 is reported with its line."""
    assert ", line 3: byte 0xe9 is not UTF-8" in refuse(tmp_path, "# 1\n# 2\n# \u00e9".encode("latin-1"))


def test_a_mark_of_utf8_is_no_part_of_the_file(tmp_path: Path) -> None:
    """A byte order mark at the beginning of accounts and key files is ignored."""
    path, key = tmp_path / "accounts.toml", tmp_path / "key"
    path.write_bytes(
        codecs.BOM_UTF8 + entry(api_key_env="1").replace("api_key_env = 1", 'api_key_file = "key"').encode()
    )
    key.write_bytes(codecs.BOM_UTF8 + f"{CANARY}\r\n".encode())
    key.chmod(0o600)
    (account,) = read_accounts(path)
    with account.open() as client:
        assert client.company_id == ONE
    key.write_text(CANARY)  # the canary plugin exempts key files


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_f10_a_key_file_in_another_encoding(encoding: str, tmp_path: Path) -> None:
    """F10: a key file in UTF-16 gives 78 with its name, and its content appears nowhere."""
    path, key = tmp_path / "accounts.toml", tmp_path / "key"
    path.write_text(f'[[account]]\ncompany_id = "{ONE}"\napi_key_file = "key"\n')
    key.write_bytes(CANARY.encode(encoding))
    key.chmod(0o600)
    (account,) = read_accounts(path)
    with (
        pytest.raises(ConfigurationError, match=r"key is UTF-16 or UTF-32, from line 1 on") as caught,
        account.open(),
    ):
        pass
    assert caught.value.code == 78
    key.write_bytes(CANARY.encode() + b"\n\xe9")
    with (
        pytest.raises(ConfigurationError, match=r"key, line 2: byte 0xe9 is not UTF-8") as caught,
        account.open(),
    ):
        pass
    error: BaseException | None = caught.value
    while error is not None:
        trace = error.__traceback__
        while trace is not None:
            assert CANARY[:8] not in str(trace.tb_frame.f_locals.get("data"))
            trace = trace.tb_next
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize("rate", [10**30, 10_000_001])
def test_f48_a_rate_beyond_reason(rate: int) -> None:
    """F48: an absurdly large rate is refused with a clear message."""
    with pytest.raises(UsageError, match="rate must be a whole number of requests a minute from 1"):
        RateWindow(rate)


@pytest.mark.parametrize("source", ["api_key_env", "api_key_file", "access_token_env", "access_token_file"])
def test_f48_a_credential_where_its_place_belongs(source: str, tmp_path: Path) -> None:
    """F48: a key pasted into the accounts file is refused and not shown."""
    path = tmp_path / "accounts.toml"
    path.write_text(f'[[account]]\ncompany_id = "{ONE}"\n{source} = "{CANARY}"\n')
    with pytest.raises(ConfigurationError, match=rf"{source} is the name of .* is not shown"):
        read_accounts(path)
    path.write_text("")  # the canary plugin checks this file


def test_f1_a_key_file_that_is_missing(tmp_path: Path) -> None:
    """The message about a missing key file has its full path and the system's reason."""
    path = tmp_path / "accounts.toml"
    path.write_text(f'[[account]]\ncompany_id = "{ONE}"\napi_key_file = "keys/acme"\n')
    (account,) = read_accounts(path)
    with pytest.raises(CredentialsError, match="No such file") as caught, account.open():
        pass
    assert f"api_key_file {tmp_path / 'keys/acme'}" in str(caught.value)
