"""A pair of Regions with their databases and the link between them, for the tests of this folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lab import data
from tests.lab.rig import rig

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.rig import Rig


@pytest.fixture(scope="module")
def databases() -> Iterator[Rig]:
    """Writers in us-east-1, standbys in us-west-2, links up; a test leaves them so."""
    yield from _pair()


@pytest.fixture
def own_databases() -> Iterator[Rig]:
    """The same for one test alone, which may leave them as it likes."""
    yield from _pair()


def _pair() -> Iterator[Rig]:
    with rig() as made:
        made.start(spec for spec in data.processes(made.plan) if spec.name.endswith(("/aurora", "/peering")))
        yield made
