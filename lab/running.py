"""One running lab: its plan, processes, receiver, faults and control socket, from claiming the state directory to leaving nothing behind.

`RunningLab` is what ``lab up`` and ``lab drill`` bring up. It prints nothing; it reports through the callbacks of `Reports`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.control import ControlServer, Refused
from lab.environment import shell_environment
from lab.faults import CATALOGUE, Active, Board, Ground
from lab.oncall import Desk, Event, Receiver
from lab.plan import BUILT_IN, RABBITMQ, STORE_NAME, LabPlan
from lab.process import ProcessSpec
from lab.state import StateDirectory
from lab.supervisor import ROOT, ProcessStatus, StartError, Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

READY_WITHIN_S = 120.0  # a part takes a second or two; a machine that is busy with other things may take much longer
DEPLOY_WITHIN_S = 300.0
ONLOOKERS = ("traffic", "vending")
PEAK_PER_MIN = 12.0  # visits a lab minute in each Region, in the evening
PEAK_PER_WALL_MIN = 24.0  # in a fast lab fewer come: two cores serve so many beside everything else


def _nothing(*_: object) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Reports:
    """Whom a lab tells what happens: a process changed, a page came or went, a fault was injected or healed."""

    process: Callable[[ProcessStatus], None] = _nothing
    page: Callable[[Event], None] = _nothing
    fault: Callable[[str, Active], None] = _nothing


class RunningLab:
    """Brings a lab up (`start_store`, then `deploy`) and down (`close`)."""

    def __init__(self, directory: Path, regions: Iterable[str], speed: float, reports: Reports, broker: str = BUILT_IN) -> None:
        check_passable(directory)
        state = StateDirectory.claim(directory)
        with contextlib.ExitStack() as undo:
            undo.callback(state.remove)
            self.plan = LabPlan.make(directory, regions, speed, broker)
            self.owner = state.own(self.console_url)
            self.plan.save()
            self.desk = Desk(reports.page)
            self.receiver = Receiver(self.plan.oncall_port, self.plan.clock, self.desk)
            undo.callback(self.receiver.close)
            self.supervisor = Supervisor(self.plan, state, reports.process)
            undo.pop_all()
        self.board = Board(Ground(self.plan, self.supervisor), CATALOGUE, reports.fault)
        self.end_requested = threading.Event()
        self.deployed = False
        self._later: list[ProcessSpec] = []
        self.trouble: list[str] = ["not deployed yet"]
        self._control = ControlServer(
            directory,
            {
                "status": lambda _: self.status(),
                "details": lambda _: self.details(),
                "inject": lambda request: self.board.inject(request["name"], request.get("region")).as_json(),
                "heal": lambda request: [each.as_json() for each in self.board.heal(request.get("name"), request.get("region"))],
                "down": lambda _: self.end_requested.set(),
            },
        )

    @property
    def console_url(self) -> str:
        """The web page."""
        return f"http://127.0.0.1:{self.plan.console_port}/"

    def start_store(self) -> None:
        """Start the store and its AWS and wait until it serves. Raises `StartError` or `LabEnded`."""
        from lab import data, store
        from lab.topology import write

        topology = write(self.plan)
        variables = self.plan.path / "env"
        variables.touch(mode=0o600)  # it holds the administrator's keys, and others may pass through the folder
        variables.write_text(shell_environment(self.plan, topology))
        specs = [self._aws(), *data.processes(self.plan), *store.processes(self.plan)]
        every = [dataclasses.replace(spec, ready_within_s=max(spec.ready_within_s, READY_WITHIN_S)) for spec in specs]
        self._later = [spec for spec in every if spec.name in ONLOOKERS] + [self._console()]
        self.supervisor.start(spec for spec in every if spec.name not in ONLOOKERS)

    def start_onlookers(self) -> None:
        """Start what the store does not need in order to serve: its shoppers, the vending of its metrics, the console."""
        self.supervisor.start(self._later)

    def invite_shoppers(self) -> float:
        """Have a mild load of shoppers come with the shape of the day; returns how many a lab minute at its peak, in each Region."""
        from lab import admin

        peak = min(PEAK_PER_MIN, PEAK_PER_WALL_MIN / self.plan.clock.speed)
        admin.call(self.plan.traffic_port, "PUT", "/load", {"peak_per_min": peak, "follow_day": True})
        return peak

    def deploy(self) -> None:
        """Deploy the monitoring with the command line that deploys it on AWS. Raises `StartError` with the end of its output."""
        region = next(iter(self.plan.regions))
        environment = self.plan.aws_environment("admin", region)
        del environment["AWS_ENDPOINT_URL"]  # the topology's endpoints lead to each Region
        arguments = ("apply", "--topology", str(self.plan.path / "topology.yaml"))
        self.supervisor.run("deploy", (sys.executable, str(ROOT / "deploy.py"), *arguments), environment, within_s=DEPLOY_WITHIN_S)
        self.deployed = True

    def status(self) -> dict[str, Any]:
        """What ``lab status --json`` prints."""
        plan = self.plan
        admin = plan.credentials["admin"]
        return {
            "now": plan.clock.now(),
            "speed": plan.clock.speed,
            "regions": list(plan.regions),
            "endpoints": {name: region.aws_endpoint for name, region in plan.regions.items()},
            "credentials": {"aws_access_key_id": admin.access_key, "aws_secret_access_key": admin.secret_key},
            "dns": {
                "host": "127.0.0.1",
                "port": plan.dns_port,
                "name": STORE_NAME,
                "resolvers": {name: {"host": "127.0.0.1", "port": region.resolver_port} for name, region in plan.regions.items()},
            },
            "console": self.console_url,
            "stores": {
                name: {
                    "url": f"https://{region.alb_name}:{plan.alb_port}/",
                    "address": region.ip,
                    "port": plan.alb_port,
                    "ca_file": str(plan.ca_file),
                    "services": region.service_ports,
                    "postgres": region.postgres_ports,
                    "redis": region.redis_port,
                    "amqp": region.amqp_port,
                }
                for name, region in plan.regions.items()
            },
            "pages": [incident.as_json() for incident in self.desk.pages()],
        }

    def details(self) -> dict[str, Any]:
        """What the console shows beyond AWS: processes, faults and pages."""
        active = self.board.active()
        return {
            "now": self.plan.clock.now(),
            "speed": self.plan.clock.speed,
            "since": self.plan.clock.at(self.owner.since),
            "deployed": self.deployed,
            "trouble": self.trouble,
            "processes": [dataclasses.asdict(status) for status in self.supervisor.status()],
            "faults": [
                {
                    "name": fault.name,
                    "family": fault.family,
                    "sentence": fault.sentence,
                    "shows": fault.shows,
                    "where": fault.where.value,
                    "active": [{"region": each.region or None, "since": each.since} for each in active if each.fault is fault],
                }
                for fault in CATALOGUE
            ],
            "strikes": [each.as_json() for each in (*self.board.past(), *active)],
            "pages": [incident.as_json() for incident in self.desk.incidents()],
        }

    def close(self) -> None:
        """End everything; nothing of the lab is left when this returns."""
        with contextlib.suppress(OSError):
            self._control.close()
        self.receiver.close()
        self.supervisor.close()

    def _aws(self) -> ProcessSpec:
        return ProcessSpec(
            name="aws",
            argv=(sys.executable, "-m", "lab.aws", "--plan", str(self.plan.path / "plan.json")),
            directory=ROOT,
            ready=lambda: _answers(self.plan.control_port, "/health"),
        )

    def _console(self) -> ProcessSpec:
        return ProcessSpec(
            name="console",
            argv=(sys.executable, "-m", "lab.console", str(self.plan.path)),
            directory=ROOT,
            ready=lambda: _answers(self.plan.console_port, "/health"),
            restart=True,
        )


def _answers(port: int, path: str) -> bool:
    from lab import admin

    admin.call(port, "GET", path, timeout_s=1.0)
    return True


def check_passable(directory: Path) -> None:
    """Raise OSError where PostgreSQL, which refuses to run as root and runs as nobody for root, could not reach ``directory``."""
    if os.geteuid() != 0:
        return
    for parent in directory.absolute().parents:
        if parent.exists() and not parent.stat().st_mode & 0o001:
            raise OSError(
                f"PostgreSQL does not run as root and cannot pass through {parent} to {directory}: "
                f"'chmod o+x {parent}', or name another directory in CROSSWATCH_LAB_DIR"
            )


def installed_broker(name: str | None) -> str:
    """Which message broker to use. Raises `Refused` where ``rabbitmq`` was asked for and is not installed."""
    from lab.data import rabbitmq

    if name is None:
        return BUILT_IN
    if name != RABBITMQ:
        raise Refused(f"--with {name}: only '{RABBITMQ}' can be asked for")
    if missing := rabbitmq.missing():
        raise Refused(
            f"--with rabbitmq: RabbitMQ is not installed ({', '.join(missing)}: missing). "
            "On Debian: apt-get install rabbitmq-server; or leave --with out."
        )
    return RABBITMQ


__all__ = ["Reports", "RunningLab", "StartError", "installed_broker"]
