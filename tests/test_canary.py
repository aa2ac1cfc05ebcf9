"""Tests of the canary: a test that leaks it fails, whatever the leak, and a test that does not passes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

LEAKS = """
import base64, logging, os, sys, warnings
from urllib.parse import quote
import pytest
import canary
from canary import CANARY
from pleo_extract.errors import PleoExtractError, RejectedRows

HEADER = "Basic " + base64.b64encode(f"{CANARY}:".encode()).decode()

def test_leak_stdout(): print("a", CANARY)
def test_leak_stderr(): print("a", HEADER, file=sys.stderr)
def test_leak_url(): print("https://pleo.example?key=" + quote(CANARY, safe=""))
def test_leak_password(): print(base64.b64encode(f":{CANARY}".encode()).decode())
def test_leak_nuls(): print(ascii(CANARY.encode("utf-16-le")))
def test_leak_utf_16(tmp_path): (tmp_path / "file").write_bytes(CANARY.encode("utf-16-be"))
def test_leak_descriptor(capfd):
    os.write(2, CANARY.encode())
    capfd.readouterr()
def test_leak_read_by_the_test(capsys):
    print(HEADER)
    capsys.readouterr()
def test_leak_record(): logging.getLogger("httpx").error("GET %s", HEADER)
def test_leak_swallowed_record():
    log = logging.getLogger("pleo_extract.quiet")
    log.propagate = False
    log.addHandler(logging.NullHandler())
    log.warning(CANARY)
def test_leak_swallowed_error():
    with pytest.raises(PleoExtractError):
        raise RejectedRows(["page 1: " + CANARY])
def test_leak_failure(): raise KeyError(CANARY)
def test_leak_warning(): warnings.warn(CANARY)
def test_leak_file(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/state.json").write_bytes(b"\\0" + HEADER.encode())
def test_leak_name(tmp_path): (tmp_path / HEADER.split()[1].strip("=")).touch()
def test_leak_link(tmp_path): (tmp_path / "link").symlink_to(CANARY.replace("/", "%2F").replace("+", "%2B").replace("=", "%3D"))
def test_leak_key_in_a_state(tmp_path): (tmp_path / "state").write_text(CANARY)
def test_leak_key_file_with_more(tmp_path): (tmp_path / "key").write_text("more and " + CANARY)

def test_sound(tmp_path, capsys):
    print("plp_***")
    capsys.readouterr()
    (tmp_path / "key-1").write_text(CANARY + "\\n")
    (tmp_path / "data").write_text("nothing")
    with pytest.raises(PleoExtractError):
        raise PleoExtractError("nothing")
"""


def test_a_leak_fails_its_test() -> None:
    """Every kind of leak fails the test that leaks, and no other test."""
    path = os.pathsep.join([str(Path(__file__).parent / "support"), *filter(None, sys.path)])
    environment = os.environ | {
        "PYTHONPATH": path,
        "PYTEST_ADDOPTS": "",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    options = ["-p", "canary", "-p", "no:cacheprovider", "-rA", "--tb=no", "--basetemp=temp", "test_leaks.py"]
    with tempfile.TemporaryDirectory() as folder:  # not under tmp_path, where the plugin would find it
        Path(folder, "test_leaks.py").write_text(LEAKS)
        Path(folder, "pytest.ini").write_text("[pytest]\n")
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    leaking = re.findall(r"def (test_leak_\w+)", LEAKS)
    assert re.findall(r"^ERROR \S+::(\w+)", done.stdout, re.MULTILINE) == leaking
    assert "PASSED test_leaks.py::test_sound" in done.stdout
    assert f"{len(leaking)} errors" in done.stdout
