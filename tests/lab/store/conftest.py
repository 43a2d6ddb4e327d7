"""The whole store in two Regions, started once for the tests of this folder that only look, with moto for the local AWS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lab import data, store
from tests.lab.data.test_dynamodb import moto
from tests.lab.rig import rig
from tests.lab.store.shopper import Shopper

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.rig import Rig


@pytest.fixture(scope="session")
def shop() -> Iterator[Rig]:
    """Everything but the local AWS, at speed 10."""
    with rig(speed=10) as made:
        specs = [*data.processes(made.plan), *store.processes(made.plan)]
        made.start([*moto(made), *(spec for spec in specs if spec.name != "vending")], within_s=150)
        yield made


@pytest.fixture
def west(shop: Rig) -> Shopper:
    """A shopper in us-west-2."""
    return Shopper(shop, "us-west-2")
