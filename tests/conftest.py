"""For every test: what the code under test puts into the temporary directory goes below pytest's own, which pytest clears away; and
properties have no time limits."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

# Properties are tried beside labs on busy machines: how long an example takes says nothing about it.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture(scope="session", autouse=True)
def _temporary_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Also of processes that are killed, and of those that tests start: they have it in their environment."""
    folder = str(tmp_path_factory.mktemp("tmp"))
    before, tempfile.tempdir = tempfile.tempdir, folder
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", folder)
        yield
    tempfile.tempdir = before
