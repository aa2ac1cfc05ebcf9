"""The rate window that processes share: together they keep the rate, and a restart of the machine resets it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pleo_extract import Client
from pleo_extract.client.window import SharedRateWindow, open_window
from pleo_extract.core.pace import RateWindow

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

RESERVE = """
import sys
from pathlib import Path
from pleo_extract.client.window import SharedRateWindow
window = SharedRateWindow(Path(sys.argv[1]), int(sys.argv[2]))
now = float(sys.argv[3])
for _ in range(int(sys.argv[4])):
    print(now + window.reserve(now))
"""


def most_in_a_minute(dues: Sequence[float]) -> int:
    """Return the most requests due in any 60 seconds."""
    dues = sorted(dues)
    return max(sum(1 for due in dues if start <= due < start + 60) for start in dues)


def test_processes_keep_the_pace_together(tmp_path: Path) -> None:
    """Four processes together never have more than the rate due in any minute."""
    command = [sys.executable, "-c", RESERVE, str(tmp_path / "window"), "50", "1000.0", "60"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    dues = [float(line) for process in running for line in process.communicate()[0].split()]
    assert [process.returncode for process in running] == [0, 0, 0, 0]
    assert len(dues) == 240
    assert most_in_a_minute(dues) == 50


def test_a_pause_holds_for_the_others(tmp_path: Path) -> None:
    """A Retry-After of one process also holds for later ones."""
    first = SharedRateWindow(tmp_path / "window", 100)
    first.pause(1000.0, 30.0)
    first.close()
    second = SharedRateWindow(tmp_path / "window", 100)
    assert second.is_paused(1010.0)
    assert second.reserve(1010.0) >= 20.0
    second.close()


def test_what_others_asked_is_foreseen(tmp_path: Path) -> None:
    """An estimate counts the requests of other processes, and reserves nothing."""
    first, second = (SharedRateWindow(tmp_path / "window", 100) for _ in range(2))
    assert second.foresee(1000.0, 100) == 0.0
    for _ in range(90):
        first.reserve(1000.0)
    assert second.foresee(1010.0, 10) == 0.0
    assert 50 <= second.foresee(1010.0, 11) <= 51
    assert second.foresee(1070.0, 100) == 0.0
    first.close()
    second.close()


def test_a_machine_started_anew_begins_anew(tmp_path: Path) -> None:
    """Instants far in the future, from before a restart of the monotonic clock, are ignored."""
    window = SharedRateWindow(tmp_path / "window", 2)
    for _ in range(10):
        window.reserve(1_000_000.0)
    assert window.reserve(5.0) == 0.0
    window.close()


def test_the_file_is_private_and_names_no_secret(tmp_path: Path) -> None:
    """The shared file is named after a hash and private."""
    window = open_window(500, "https://example.test", "plp_canary")
    assert isinstance(window, SharedRateWindow)
    window.reserve(1.0)
    window.close()
    (file,) = Path(os.environ["XDG_CACHE_HOME"], "pleo_extract").iterdir()
    assert file.stat().st_mode & 0o077 == 0
    assert b"canary" not in file.read_bytes()
    assert "canary" not in str(file)


def test_where_it_cannot_be_shared_it_is_kept_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a cache folder, with a renewable token, or with a sandbox rate, the window is not shared."""
    assert isinstance(open_window(500, "https://example.test", None), RateWindow)
    assert isinstance(open_window(10_000, "https://example.test", "plp_x"), RateWindow)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert isinstance(open_window(500, "https://example.test", "plp_x"), RateWindow)


def test_two_clients_of_one_key_share(tmp_path: Path) -> None:
    """Two clients with the same key and server share a file; another key has another."""
    for key in ("plp_one", "plp_one", "plp_two"):
        Client("http://127.0.0.1:1", api_key=key).close()
    assert len(list(Path(os.environ["XDG_CACHE_HOME"], "pleo_extract").iterdir())) == 2
