"""Both brokers that can stand for Amazon MQ, each run as the lab runs it, with the lab's own faults to break it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pika
import pytest
from pika.exceptions import AMQPError

from lab import data
from lab.data import broker, rabbitmq
from lab.faults import CATALOGUE, Board, Ground
from lab.plan import BUILT_IN, RABBITMQ, LabPlan
from lab.state import StateDirectory, processes_of
from lab.supervisor import Supervisor
from lab.warden import descendants
from tests.folders import open_folder
from tests.lab.rig import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

KINDS = (BUILT_IN, pytest.param(RABBITMQ, marks=pytest.mark.slow))
REGION = "us-east-1"
REQUIRED = "CROSSWATCH_REQUIRE_ALL"
LISTENING = "0A"


def require(kind: str) -> None:
    """Skip the test where the broker is not installed; fail it where everything has to be (continuous integration)."""
    if kind == RABBITMQ and (missing := rabbitmq.missing()):
        reason = f"RabbitMQ is not installed ({', '.join(missing)}); on Debian: apt-get install rabbitmq-server"
        if os.environ.get(REQUIRED):
            pytest.fail(f"{reason} ({REQUIRED} is set)")
        pytest.skip(reason)


class RunningBroker:
    """One Region's broker of a lab that has nothing else. ``board`` breaks and mends it."""

    def __init__(self, kind: str, supervisor: Supervisor, plan: LabPlan) -> None:
        self.kind = kind
        self.plan = plan
        self.here = plan.regions[REGION]
        self.supervisor = supervisor
        self.board = Board(Ground(plan, supervisor), CATALOGUE)

    def connect(self, password: str = broker.PASSWORD) -> pika.BlockingConnection:
        """A client's connection."""
        credentials = pika.PlainCredentials(broker.USER, password)
        return pika.BlockingConnection(
            pika.ConnectionParameters(
                "127.0.0.1", self.here.amqp_port, credentials=credentials, socket_timeout=5, blocked_connection_timeout=30
            )
        )

    def node(self) -> dict[str, Any]:
        """What the management API says of the node."""
        return broker.node(self.here.amqp_admin_port)

    def queue(self, name: str) -> dict[str, Any]:
        """What the management API says of a queue: {} where there is none."""
        return next((queue for queue in broker.queues(self.here.amqp_admin_port) if queue["name"] == name), {})

    def await_queue(self, name: str, **expected: int) -> None:
        """Wait until the management API says so; RabbitMQ counts once a second or so."""
        wait_for(f"{name}: {expected}", lambda: expected.items() <= self.queue(name).items(), 20, lambda: str(self.queue(name)))

    def clear(self) -> None:
        """Heal everything, and delete every queue, with what its connection would otherwise delete later."""
        self.board.heal()
        for name in [queue["name"] for queue in broker.queues(self.here.amqp_admin_port)]:
            with contextlib.suppress(AMQPError), self.connect() as connection:
                connection.channel().queue_delete(name)

    def listeners(self) -> set[str]:
        """The addresses on which the broker's processes listen, as /proc/net writes them: IPv4 in 8 digits, IPv6 in 32."""
        sockets = set()
        for pid in [pid for status in self.supervisor.status() if status.pid for pid in (status.pid, *descendants(status.pid))]:
            with contextlib.suppress(FileNotFoundError):
                for entry in Path(f"/proc/{pid}/fd").iterdir():
                    with contextlib.suppress(FileNotFoundError):
                        sockets.add(str(entry.readlink()))
        found = set()
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTENING and f"socket:[{fields[9]}]" in sockets:
                    found.add(fields[1])
        return found


@contextlib.contextmanager
def running_broker(kind: str) -> Iterator[RunningBroker]:
    """Bring the broker up and take it down; fails where a process or a file of it is left."""
    require(kind)
    with open_folder("broker") as folder:
        directory = folder / "lab"
        state = StateDirectory.claim(directory)
        plan = LabPlan.make(directory, broker=kind)
        plan.save()
        supervisor = Supervisor(plan, state)
        try:
            supervisor.start(data.broker_processes(plan, plan.regions[REGION]))
            yield RunningBroker(kind, supervisor, plan)
        finally:
            supervisor.close()
        assert not list(processes_of(state.identity))
        assert not directory.exists()
