"""Every fault of the catalogue, injected for real: its damage shows from outside, and after healing everything is whole."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from lab.faults import CATALOGUE, Where
from tests.lab.damage import SIGNS, WATCHED, Eyes

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lab.conftest import Lab

SHOWS_WITHIN_S = 25.0
WHOLE_WITHIN_S = 60.0


def await_(is_true: Callable[[], bool], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while not is_true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def test_every_fault_has_a_sign() -> None:
    """No fault is in the catalogue that these tests do not break for real."""
    assert {*SIGNS, *WATCHED} == {fault.name for fault in CATALOGUE}


@pytest.mark.lab
@pytest.mark.slow
@pytest.mark.parametrize("name", list(SIGNS))
def test_a_fault_breaks_what_it_says_and_heals(store_lab: Lab, name: str) -> None:
    """Whole before; the damage shows; whole after."""
    fault = CATALOGUE.get(name)
    eyes = Eyes(store_lab)
    region = "us-west-2" if fault.where is Where.REGION and name != "region-down" else "us-east-1" if fault.where is Where.REGION else ""
    assert await_(lambda: not eyes.troubles(), WHOLE_WITHIN_S), eyes.troubles()
    if name != "dns-stuck":
        assert not SIGNS[name](eyes, region), f"the damage of {name} shows before it is there"
    store_lab.ask("inject", name=name, region=region or None, timeout_s=120)
    try:
        assert await_(lambda: SIGNS[name](eyes, region), SHOWS_WITHIN_S), f"the damage of {name} does not show"
    finally:
        store_lab.ask("heal", timeout_s=180)
    assert await_(lambda: not eyes.troubles(), WHOLE_WITHIN_S), eyes.troubles()
    if name not in {"dns-stuck", "redis-evicting"}:
        assert await_(lambda: not SIGNS[name](eyes, region), SHOWS_WITHIN_S), f"the damage of {name} is still there"
