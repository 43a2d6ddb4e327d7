"""The control socket: requests, refusals, and what is said where no lab runs."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Any

import pytest

from lab.control import SOCKET, ControlServer, NoLab, Refused, ask

if TYPE_CHECKING:
    from pathlib import Path


def refuse(_request: dict[str, Any]) -> None:
    raise Refused("not today")


def test_requests_are_answered_and_refused(tmp_path: Path) -> None:
    """A handler's value comes back; a refusal is raised at the asker."""
    server = ControlServer(tmp_path, {"double": lambda request: 2 * request["n"], "refuse": refuse})
    try:
        assert ask(tmp_path, "double", n=21) == 42
        with pytest.raises(Refused, match="not today"):
            ask(tmp_path, "refuse")
        with pytest.raises(Refused, match="one of double, refuse"):
            ask(tmp_path, "unknown")
        assert stat.S_IMODE((tmp_path / SOCKET).stat().st_mode) == 0o600
    finally:
        server.close()


def test_a_long_path_is_no_hindrance(tmp_path: Path) -> None:
    """The name of a Unix socket has 107 bytes; a test's folder may have more."""
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    server = ControlServer(deep, {"ping": lambda _: "pong"})
    try:
        assert ask(deep, "ping") == "pong"
    finally:
        server.close()


def test_no_lab_is_said_in_a_sentence(tmp_path: Path) -> None:
    """With the directory, and how to start one."""
    for directory in (tmp_path, tmp_path / "missing"):
        with pytest.raises(NoLab, match=r"no lab is running in .* 'lab up'"):
            ask(directory, "status")
