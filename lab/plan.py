"""The lab's plan: every address, credential and folder of one lab, decided before anything starts and written to ``plan.json``.

All parts read the plan; none guesses an address. ``LabPlan.make`` picks free loopback ports, `save` and `load` keep it in the lab's state
directory, which ``CROSSWATCH_LAB_DIR`` names (default: ``crosswatch-lab-<uid>`` in the system's temporary folder).
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import secrets
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.clock import LabClock

if TYPE_CHECKING:
    from collections.abc import Iterable

ACCOUNT = "123456789012"
DOMAIN = "retail.test"
STORE_NAME = f"store.{DOMAIN}"
DIRECTORY_VARIABLE = "CROSSWATCH_LAB_DIR"
DEFAULT_REGIONS = ("us-east-1", "us-west-2")
SERVICES = ("ui", "catalog", "carts", "checkout", "orders")
DATABASES = ("catalog", "orders")
CACHE_NODES = ("001", "002")
ARC_REGIONS = ("us-east-1", "us-west-2", "eu-west-1", "ap-northeast-1", "ap-southeast-2")
CONSOLE_PORT = 8480
PORTS = range(15_000, 32_000)
BUILT_IN, RABBITMQ = "built-in", "rabbitmq"


@dataclass(frozen=True, slots=True)
class Credentials:
    """An access key pair that the local AWS knows, and whom it stands for."""

    access_key: str
    secret_key: str
    principal: str


@dataclass(frozen=True, slots=True)
class RegionPlan:
    """Where the parts of one Region listen. Ports are on ``127.0.0.1`` unless said; the ALB listens on ``ip``.

    ``connect_ports``: Service Connect, one port a service. ``peering_ports``: the way to another Region's databases, keyed
    ``<region>/<database>``. ``writer_ports``: each database's global writer endpoint as this Region resolves it. ``redis_port`` is the
    cache's primary endpoint, ``redis_node_ports`` are its nodes. ``alb_admin_port``, ``ecs_port``, ``connect_admin_port``,
    ``aurora_port``, ``cache_port`` and ``peering_port`` speak JSON to the lab only. ``amqp_admin_port`` is the broker's management
    API; ``amqp_name_port`` and ``amqp_node_port`` are used by RabbitMQ alone, for Erlang's names and nodes.
    """

    name: str
    index: int
    ip: str
    aws_port: int
    resolver_port: int
    service_ports: dict[str, int]
    postgres_ports: dict[str, int]
    redis_port: int
    redis_node_ports: dict[str, int]
    cache_port: int
    amqp_port: int
    amqp_admin_port: int
    amqp_name_port: int
    amqp_node_port: int
    alb_admin_port: int
    ecs_port: int
    connect_ports: dict[str, int]
    connect_admin_port: int
    aurora_port: int
    peering_port: int
    peering_ports: dict[str, int]
    writer_ports: dict[str, int]

    @property
    def aws_endpoint(self) -> str:
        """The one endpoint of this Region's local AWS."""
        return f"http://127.0.0.1:{self.aws_port}"

    @property
    def alb_name(self) -> str:
        """The DNS name of this Region's load balancer."""
        return f"alb.{self.name}.{DOMAIN}"


@dataclass(frozen=True, slots=True)
class LabPlan:
    """One lab, whole. ``credentials`` has the keys ``admin`` (command line, canary runtime) and ``service`` (the store's services).

    ``broker`` says what stands for Amazon MQ: ``built-in`` or ``rabbitmq``.
    """

    directory: str
    clock: LabClock
    account: str
    alb_port: int
    dns_port: int
    dns_admin_port: int
    console_port: int
    control_port: int
    oncall_port: int
    replicator_port: int
    traffic_port: int
    arc_ports: dict[str, int]
    regions: dict[str, RegionPlan]
    credentials: dict[str, Credentials]
    broker: str = BUILT_IN

    @classmethod
    def make(cls, directory: Path, regions: Iterable[str] = DEFAULT_REGIONS, speed: float = 1.0, broker: str = BUILT_IN) -> LabPlan:
        """A plan with free ports for ``regions``, two or more."""
        names = list(regions)
        ips = [f"127.0.{10 + index}.1" for index in range(len(names))]
        per_region = 1 + 1 + len(SERVICES) + len(DATABASES) + 1 + len(CACHE_NODES) + 1 + 4
        per_region += 1 + 1 + (len(SERVICES) - 1) + 1 + 1 + 1 + len(DATABASES) * (len(names) - 1) + len(DATABASES)
        ports = iter(_free_ports(6 + len(ARC_REGIONS) + per_region * len(names)))
        plans = {
            name: RegionPlan(
                name=name,
                index=index,
                ip=ips[index],
                aws_port=next(ports),
                resolver_port=next(ports),
                service_ports={service: next(ports) for service in SERVICES},
                postgres_ports={database: next(ports) for database in DATABASES},
                redis_port=next(ports),
                redis_node_ports={node: next(ports) for node in CACHE_NODES},
                cache_port=next(ports),
                amqp_port=next(ports),
                amqp_admin_port=next(ports),
                amqp_name_port=next(ports),
                amqp_node_port=next(ports),
                alb_admin_port=next(ports),
                ecs_port=next(ports),
                connect_ports={service: next(ports) for service in SERVICES if service != "ui"},
                connect_admin_port=next(ports),
                aurora_port=next(ports),
                peering_port=next(ports),
                peering_ports={f"{other}/{database}": next(ports) for other in names if other != name for database in DATABASES},
                writer_ports={database: next(ports) for database in DATABASES},
            )
            for index, name in enumerate(names)
        }
        return cls(
            directory=str(directory.absolute()),
            clock=LabClock.start(speed),
            account=ACCOUNT,
            alb_port=_free_port_on_all(ips),
            dns_port=next(ports),
            dns_admin_port=next(ports),
            console_port=CONSOLE_PORT if _is_free("127.0.0.1", CONSOLE_PORT) else _free_ports(1)[0],
            control_port=next(ports),
            oncall_port=next(ports),
            replicator_port=next(ports),
            traffic_port=next(ports),
            arc_ports={name: next(ports) for name in ARC_REGIONS},
            regions=plans,
            credentials={
                "admin": Credentials("AKIALAB" + secrets.token_hex(6).upper() + "A", secrets.token_hex(20), "user/admin"),
                "service": Credentials("AKIALAB" + secrets.token_hex(6).upper() + "S", secrets.token_hex(20), "role/retail-service"),
            },
            broker=broker,
        )

    @property
    def path(self) -> Path:
        """The state directory."""
        return Path(self.directory)

    @property
    def ca_file(self) -> Path:
        """The certificate authority that signed the load balancers' certificates, PEM."""
        return self.path / "ca.pem"

    @property
    def logs(self) -> Path:
        """One log file per process."""
        return self.path / "logs"

    def save(self) -> None:
        """Write ``plan.json`` (mode 0600, it holds secrets)."""
        file = self.path / "plan.json"
        file.touch(mode=0o600)
        file.write_text(json.dumps(dataclasses.asdict(self), indent=1))

    @classmethod
    def load(cls, directory: Path | None = None) -> LabPlan:
        """Read the plan of the running lab. Raises FileNotFoundError where no lab runs."""
        data: dict[str, Any] = json.loads(((directory or state_directory()) / "plan.json").read_text())
        data["clock"] = LabClock(**data["clock"])
        data["regions"] = {name: RegionPlan(**region) for name, region in data["regions"].items()}
        data["credentials"] = {name: Credentials(**pair) for name, pair in data["credentials"].items()}
        return cls(**data)

    def aws_environment(self, who: str, region: str) -> dict[str, str]:
        """Environment variables that make a process use this lab's AWS in ``region`` as the principal ``who``."""
        pair = self.credentials[who]
        return {
            "AWS_ACCESS_KEY_ID": pair.access_key,
            "AWS_SECRET_ACCESS_KEY": pair.secret_key,
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
            "AWS_ENDPOINT_URL": self.regions[region].aws_endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
        }


def state_directory() -> Path:
    """The lab's state directory, whether or not it exists; always absolute, since the lab's processes run in folders of their own."""
    named = os.environ.get(DIRECTORY_VARIABLE)
    directory = Path(named) if named else Path(tempfile.gettempdir()) / f"crosswatch-lab-{os.getuid()}"
    return directory.absolute()


def _free_ports(count: int) -> list[int]:
    """``count`` different ports that are free on 127.0.0.1 now, below the range that the system gives to outgoing connections.

    A port of that range could be taken by any client between the plan and the start of the server that it is meant for.
    """
    held: list[socket.socket] = []
    try:
        for port in random.sample(PORTS, len(PORTS)):
            sock = socket.socket()
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                sock.close()
                continue
            held.append(sock)
            if len(held) == count:
                return [sock.getsockname()[1] for sock in held]
        raise OSError(f"no {count} free ports between {PORTS.start} and {PORTS.stop}")
    finally:
        for sock in held:
            sock.close()


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError:
            return False
    return True


def _free_port_on_all(hosts: list[str]) -> int:
    """A port that is free on every one of ``hosts``."""
    for _ in range(100):
        port = _free_ports(1)[0]
        if all(_is_free(host, port) for host in hosts):
            return port
    raise OSError(f"no port is free on all of {', '.join(hosts)}")
