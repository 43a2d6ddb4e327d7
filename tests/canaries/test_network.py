"""A canary without a network: the fault is the kernel's, and ends with the process."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.canaries.servers import Recorder, Runner

SCRIPT = """
import socket, threading

def attempt(work):
    try:
        work()
    except OSError as error:
        return error.errno
    return 0

def handler(event, context):
    target = ("127.0.0.1", {port})
    found = [
        attempt(lambda: socket.create_connection(target, timeout=2).close()),
        attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", target)),
    ]
    thread = threading.Thread(target=lambda: found.append(attempt(lambda: socket.create_connection(target, timeout=2).close())))
    thread.start()
    thread.join()
    return found
"""
UNREACHABLE = 101


def told(runner: Runner, port: int, **environment: str) -> list[int]:
    """What the script returned: an errno for each attempt, 0 where it went through."""
    result = runner.script(SCRIPT.format(port=port), environment=environment)
    message = next(line.message for line in result.log if "canary response" in line.message)
    found: list[int] = json.loads(message[message.index("[", message.index("response")) :])
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="seccomp is Linux's")
def test_without_a_network_nothing_leaves_and_the_next_process_has_it_again(runner: Runner, aws: tuple[Recorder, Recorder]) -> None:
    """Streams and datagrams, in every thread; the run itself goes on, for its answer takes no network."""
    port = int(aws[0].url.rpartition(":")[2])
    assert told(runner, port, CROSSWATCH_NETWORK="down") == [UNREACHABLE] * 3
    assert told(runner, port) == [0, 0, 0]
