"""The control socket: requests, refusals, and what is said where no lab runs."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Any

import pytest

from lab.control import SOCKET, ControlServer, NoLab, Refused, Unusable, ask

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


def test_a_mistake_of_the_labs_own_is_told_to_who_asked(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Not that no lab is running; the traceback stands where the lab runs."""
    server = ControlServer(tmp_path, {"divide": lambda request: 1 / request["by"], "odd": lambda _: {object()}})
    try:
        with pytest.raises(Refused, match=r"'divide' failed in the lab itself: ZeroDivisionError"):
            ask(tmp_path, "divide", by=0)
        with pytest.raises(Refused, match="'odd' failed in the lab itself: TypeError"):
            ask(tmp_path, "odd")
        assert ask(tmp_path, "divide", by=2) == 0.5
    finally:
        server.close()
    assert "Traceback" in capfd.readouterr().err


def test_unusable_input_is_told_from_a_refusal(tmp_path: Path) -> None:
    """What is refused now may go later; what there is not, never does."""

    def name_what_there_is_not(_request: dict[str, Any]) -> None:
        raise Unusable("there is no Mars")

    server = ControlServer(tmp_path, {"refuse": refuse, "mars": name_what_there_is_not})
    try:
        with pytest.raises(Unusable, match="there is no Mars"):
            ask(tmp_path, "mars")
        with pytest.raises(Refused) as refused:
            ask(tmp_path, "refuse")
        assert not isinstance(refused.value, Unusable)
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
