"""F67 at large: many more bits of what is read from disk turned around, each tried at every public door."""

from __future__ import annotations

import pytest
from tally import FULL
from test_faults_store import MANIFEST, RECORD, cut, kept
from test_faults_store import TestFlippedBits as Flips

__all__ = ["cut", "kept", "test_f67_bits_of_a_lake", "test_f67_bits_of_staging"]

TIMES = 40 if FULL else 1
CASES = Flips()


@pytest.mark.parametrize("name", [MANIFEST, RECORD])
def test_f67_bits_of_a_lake(name: str, request: pytest.FixtureRequest) -> None:
    """In a manifest or a record: 65 or mended, whichever bit it is."""
    CASES.test_f67_a_flipped_bit(name, 25 * TIMES, request.getfixturevalue("kept"))


@pytest.mark.parametrize("name", ["journal.jsonl", "run.json"])
def test_f67_bits_of_staging(name: str, request: pytest.FixtureRequest) -> None:
    """In a journal or its header: the dump ends with the truth, whichever bit it is."""
    CASES.test_f67_a_flipped_bit_in_staging(name, 25 * TIMES, request.getfixturevalue("cut"))
