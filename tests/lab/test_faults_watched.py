"""The faults of the monitoring itself, in a lab where it is deployed and all-green."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.lab.damage import WATCHED, Eyes

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lab.conftest import Lab

REGION = "us-west-2"
SHOWS_WITHIN_S = 100.0  # runs begin each lab minute; a hanging one is cut off at its timeout


def await_(is_true: Callable[[], bool], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while not is_true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


@pytest.mark.lab
@pytest.mark.slow
@pytest.mark.parametrize("name", list(WATCHED))
def test_a_fault_of_the_monitoring_shows_and_heals(watched_lab: Lab, name: str) -> None:
    """Not there before; the damage shows; gone after."""
    eyes = Eyes(watched_lab)
    assert await_(lambda: not WATCHED[name](eyes, REGION), SHOWS_WITHIN_S)
    watched_lab.ask("inject", name=name, region=REGION, timeout_s=120)
    try:
        assert await_(lambda: WATCHED[name](eyes, REGION), SHOWS_WITHIN_S), f"the damage of {name} does not show"
    finally:
        watched_lab.ask("heal", timeout_s=180)
    assert await_(lambda: not WATCHED[name](eyes, REGION), 2 * SHOWS_WITHIN_S), f"the damage of {name} is still there"
