"""The console's server and what it makes of looks: strips, drained stretches, and who may press a button."""

from __future__ import annotations

import json
import re
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any, cast

import pytest

from lab.console.server import ConsoleServer
from lab.console.watch import BUCKETS, WINDOW_S, Moment, Watch, drained, strip
from lab.control import Refused

if TYPE_CHECKING:
    from collections.abc import Iterator

CELL = ("us-east-1", "name")
WIDTH = WINDOW_S / BUCKETS
NOW = 10_000.0


def moments(*states: tuple[float, str]) -> list[Moment]:
    """Looks at (seconds before now, state of the cell)."""
    return [Moment(NOW - ago, {CELL: state}, {"us-east-1": "on"}) for ago, state in states]


def test_a_strip_ends_now_and_shows_the_worst_of_a_bucket() -> None:
    """Two looks in one bucket: the worse one counts."""
    assert strip(moments((2, "down"), (1, "up")), CELL, NOW)[-1] == "d"
    assert strip(moments((WIDTH + 1, "up"), (1, "silent")), CELL, NOW)[-2:] == "us"


def test_a_strip_bridges_short_pauses_only() -> None:
    """Between looks the last one holds for three buckets; then nobody knows."""
    assert strip(moments((8 * WIDTH - 1, "up"), (1, "up")), CELL, NOW)[-9:] == " uuuu   u"


def test_a_strip_knows_nothing_of_what_is_outside() -> None:
    """Looks before the window, and no looks at all."""
    assert strip(moments((WINDOW_S + 5, "down")), CELL, NOW) == " " * BUCKETS
    assert strip([], CELL, NOW) == " " * BUCKETS


def test_drained_stretches_begin_and_end_with_what_was_seen() -> None:
    """An unknown state neither begins nor ends one."""
    states = ["on", "off", "unknown", "off", "on", "off"]
    looks = [Moment(float(at), {}, {"us-east-1": state}) for at, state in enumerate(states)]
    assert drained(looks) == [
        {"region": "us-east-1", "since": 1.0, "until": 4.0},
        {"region": "us-east-1", "since": 5.0, "until": None},
    ]


class FakeWatch:
    """Stands for the memory of a lab: what matters here is who may ask for what."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def wait(self, after: int, _timeout_s: float) -> tuple[int, dict[str, Any]]:
        return after + 1, {"now": NOW}

    def ask(self, do: str, **request: Any) -> Any:
        request.pop("timeout_s", None)
        if request.get("name") == "no-such-fault":
            raise Refused("there is no fault called 'no-such-fault'")
        self.asked.append((do, request))
        return {}


@pytest.fixture
def watch() -> FakeWatch:
    return FakeWatch()


@pytest.fixture
def server(watch: FakeWatch) -> Iterator[ConsoleServer]:
    server = ConsoleServer(0, cast("Watch", watch))
    server.start()
    yield server
    server.close()


def ask(server: ConsoleServer, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str, dict[str, str]]:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=5)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, None if body is None else json.dumps(body), named)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text, dict(answer.getheaders())


def token(server: ConsoleServer) -> str:
    found = re.search(r'name="token" content="([^"]+)"', ask(server, "GET", "/")[1])
    assert found
    return found.group(1)


def test_the_page_needs_nothing_from_elsewhere(server: ConsoleServer) -> None:
    """No address of another host in page, script or style; and a policy that would forbid it."""
    for path in ("/", "/app.js", "/style.css", "/favicon.svg"):
        status, text, headers = ask(server, "GET", path)
        assert status == 200
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert not [url for url in re.findall(r"https?://[^\"'\s)]+", text) if not url.startswith("http://www.w3.org/")]


def test_a_button_works_from_the_page_and_from_nowhere_else(server: ConsoleServer, watch: FakeWatch) -> None:
    """The token and the origin of the page are both needed; what is refused asks nothing of the lab."""
    body = {"name": "region-down", "region": "us-east-1"}
    origin = f"http://127.0.0.1:{server.port}"
    good = {"Origin": origin, "X_Console_Token": token(server)}
    assert ask(server, "POST", "/faults/inject", body, Origin=origin)[0] == 403
    assert ask(server, "POST", "/faults/inject", body, **{**good, "Origin": "http://evil.example"})[0] == 403
    assert ask(server, "POST", "/faults/inject", body, **{**good, "X_Console_Token": "guess"})[0] == 403
    assert watch.asked == []
    assert ask(server, "POST", "/faults/inject", body, **good)[0] == 200
    assert ask(server, "POST", "/faults/heal", {"name": "region-down"}, **good)[0] == 200
    assert watch.asked == [("inject", body), ("heal", {"name": "region-down"})]


def test_what_the_lab_refuses_is_shown(server: ConsoleServer) -> None:
    """With the lab's own words; nonsense is told what is wanted."""
    good = {"Origin": f"http://127.0.0.1:{server.port}", "X_Console_Token": token(server)}
    status, text, _ = ask(server, "POST", "/faults/inject", {"name": "no-such-fault"}, **good)
    assert (status, "there is no fault called" in text) == (409, True)
    assert ask(server, "POST", "/faults/inject", [1], **good)[0] == 400
    assert ask(server, "POST", "/elsewhere", {}, **good)[0] == 400
    assert ask(server, "GET", "/elsewhere")[0] == 404


def test_a_name_that_was_rebound_does_not_reach_the_console(server: ConsoleServer) -> None:
    """A request for another host is not answered, whatever its path."""
    for path in ("/", "/state", "/events"):
        assert ask(server, "GET", path, Host="evil.example")[0] == 421


def test_states_arrive_as_events(server: ConsoleServer) -> None:
    """One server-sent event a state."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.request("GET", "/events")
    answer = connection.getresponse()
    assert answer.getheader("Content-Type") == "text/event-stream"
    assert json.loads(answer.readline().decode().removeprefix("data: ")) == {"now": NOW}
    connection.close()
