"""F67 at scale: many more flipped bits in the files of a lake, each tried with every public function."""

from __future__ import annotations

import pytest
from tally import FULL
from test_faults_store import MANIFEST, RECORD, cut, kept
from test_faults_store import TestFlippedBits as Flips

__all__ = ["cut", "kept", "test_f67_bits_of_a_lake", "test_f67_bits_of_staging"]

FLIPS = 1_000 if FULL else 5
CASES = Flips()


@pytest.mark.parametrize("name", [MANIFEST, RECORD])
def test_f67_bits_of_a_lake(name: str, request: pytest.FixtureRequest) -> None:
    """A flipped bit in a manifest or a record gives 65 or is repaired."""
    CASES.test_f67_a_flipped_bit(name, FLIPS, request.getfixturevalue("kept"))


@pytest.mark.parametrize("name", ["journal.jsonl", "run.json"])
def test_f67_bits_of_staging(name: str, request: pytest.FixtureRequest) -> None:
    """A flipped bit in a journal or its header does not keep the dump from a correct lake."""
    CASES.test_f67_a_flipped_bit_in_staging(name, FLIPS, request.getfixturevalue("cut"))
