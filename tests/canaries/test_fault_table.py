"""Faults of the lab, one or more of every class, are classified as the reviewed table says, from every vantage."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from lab.faults import CATALOGUE
from lab.topology import lab_topology
from tests.canaries.fault_table import PAGE, TABLE, WITHOUT_CANARIES, page, suffer
from tests.canaries.sight import Watcher
from tests.folders import open_folder
from tests.lab.conftest import UP_WITHIN_S, running_lab

if TYPE_CHECKING:
    from collections.abc import Iterator

KNOWN = json.loads(TABLE.read_text())
SAMPLE = (
    "ui-slow",
    "ui-erroring",
    "catalog-hanging",
    "carts-down",
    "ui-wrong-body",
    "checkout-erroring",
    "alb-down",
    "alb-hanging",
    "certificate-expired",
    "drained",
    "arc-down",
    "certificate-expiring",
    "resolver-servfail",
    "region-down",
)
DNS = {"resolver-servfail"}


@pytest.fixture(scope="module")
def watcher() -> Iterator[Watcher]:
    with open_folder("fault-table") as folder, running_lab(folder / "lab", "--no-deploy", "--speed", "1") as lab:
        lab.wait("the store to be up", lambda: "are up" in lab.output, UP_WITHIN_S)
        eyes = Watcher(lab.plan, lab_topology(lab.plan))
        yield eyes
        eyes.close()


@pytest.mark.lab
@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLE)
def test_a_fault_is_called_by_its_name(watcher: Watcher, name: str) -> None:
    """The name is left out where Route 53 leads it elsewhere after a while: when it does is Route 53's business."""
    seen, known = suffer(watcher, name), KNOWN[name]
    moved = {vantage for vantage in known if known[vantage].get("name") != seen[vantage].get("name") and name not in DNS}
    for vantage in moved:
        assert "name" not in seen[vantage] or "name" not in known[vantage], "it either fails the way its Region does or has moved"
    assert {v: {t: w for t, w in words.items() if t != "name" or v not in moved} for v, words in seen.items()} == {
        v: {t: w for t, w in words.items() if t != "name" or v not in moved} for v, words in known.items()
    }


def test_the_page_is_the_table_and_the_table_has_no_fault_that_the_lab_has_not() -> None:
    assert set(KNOWN) <= {fault.name for fault in CATALOGUE} - WITHOUT_CANARIES
    assert PAGE.read_text() == page(KNOWN)
