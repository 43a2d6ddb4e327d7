"""Fixtures of the exporters' tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the helpers beside this file, whatever pytest's import mode

from receiver import Receiver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A strict receiver that behaves."""
    with Receiver() as server:
        yield server


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """A spool folder that does not exist yet."""
    return tmp_path / "spool"
