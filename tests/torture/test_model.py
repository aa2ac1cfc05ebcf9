"""The model test of the quick suite, with more and longer sequences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from tally import FULL
from test_lake_model import LakeMachine

if TYPE_CHECKING:
    from collections.abc import Callable

    from tally import Tally


def test_any_sequence(tally: Callable[[str], Tally]) -> None:
    """Any sequence of steps keeps the lake equal to the model; see `tests/test_lake_model.py`."""
    one = tally("model, sequences of up to 40 steps")

    class Counted(LakeMachine):
        """A machine that counts its sequences."""

        def teardown(self) -> None:
            one.tries += 1
            super().teardown()

    profile = settings(
        max_examples=600 if FULL else 6,
        stateful_step_count=40 if FULL else 16,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    run_state_machine_as_test(Counted, settings=profile)
    one.check()
