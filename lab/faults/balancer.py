"""The load balancer of a Region: down, hanging, without targets, misconfigured, or with a certificate that ends."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from lab import admin
from lab.faults.fault import Fault, Where, the
from lab.faults.services import await_whole, lost_with_tasks, scale, services, tasks_of
from lab.store.tls import VALID_DAYS

if TYPE_CHECKING:
    from lab.faults.ground import Ground

CLOSED_PORT = 1
CHECK = the("the load balancer's health check in {region}")
TARGETS = the("the load balancer's targets in {region}")
CERTIFICATE = the("the load balancer's certificate in {region}")


def _status(ground: Ground, region: str) -> dict[str, Any]:
    answer: dict[str, Any] = admin.call(ground.region(region).alb_admin_port, "GET", "/status")
    return answer


def _kill(ground: Ground, region: str) -> None:
    ground.processes.hold([f"{region}/alb"], "alb-down")


def _start(ground: Ground, region: str, _memory: None) -> None:
    ground.processes.release([f"{region}/alb"], "alb-down")
    _await_targets(ground, region)


def _freeze(ground: Ground, region: str) -> None:
    ground.processes.freeze([f"{region}/alb"], "alb-hanging")


def _thaw(ground: Ground, region: str, _memory: None) -> None:
    ground.processes.thaw([f"{region}/alb"], "alb-hanging")
    _await_targets(ground, region)


def _empty(ground: Ground, region: str) -> int:
    desired = int(services(ground, region)["ui"]["desired"])
    ground.begun = desired
    scale(ground, region, "ui", 0)
    ground.await_(f"{region}'s load balancer has no targets", lambda: not _status(ground, region)["targets"], 60.0)
    return desired


def _fill(ground: Ground, region: str, desired: int) -> None:
    scale(ground, region, "ui", desired)
    await_whole(ground, region, "ui")
    _await_targets(ground, region)


def _mistake(ground: Ground, region: str) -> dict[str, Any]:
    check = _status(ground, region)["attributes"]["health_check"]
    _set_check(ground, region, {"path": "/no-such-page"})
    return {"path": check["path"]}


def _correct(ground: Ground, region: str, check: dict[str, Any]) -> None:
    _set_check(ground, region, check)
    _await_targets(ground, region)


def _set_check(ground: Ground, region: str, check: dict[str, Any]) -> None:
    admin.call(ground.region(region).alb_admin_port, "PUT", "/attributes", {"health_check": check})


def _misdirect(ground: Ground, region: str) -> None:
    for target in _status(ground, region)["targets"]:
        _register(ground, region, target["id"], CLOSED_PORT)


def _direct(ground: Ground, region: str, _memory: None) -> None:
    for task in services(ground, region)["ui"]["tasks"]:
        if task["state"] == "RUNNING":
            _register(ground, region, task["id"], task["port"])
    _await_targets(ground, region)


def _register(ground: Ground, region: str, identity: str, port: int) -> None:
    admin.call(ground.region(region).alb_admin_port, "POST", "/targets", {"id": identity, "port": port})


def _certify(days: float, ground: Ground, region: str, _memory: None = None) -> None:
    admin.call(ground.region(region).alb_admin_port, "PUT", "/certificate", {"days": days})


def _await_targets(ground: Ground, region: str) -> None:
    def healthy() -> bool:
        targets = _status(ground, region)["targets"]
        return bool(targets) and all(target["state"] == "healthy" for target in targets)

    ground.await_(f"{region}'s load balancer has healthy targets", healthy, 60.0)


FAULTS = (
    Fault(
        "alb-down",
        "load balancer",
        "The load balancer of one Region is gone; everything behind it runs on.",
        "connections to the load balancer are refused",
        Where.REGION,
        _kill,
        _start,
        forgets=CHECK | TARGETS | CERTIFICATE,
    ),
    Fault(
        "alb-hanging",
        "load balancer",
        "The load balancer of one Region accepts connections and never answers.",
        "requests to the load balancer time out",
        Where.REGION,
        _freeze,
        _thaw,
    ),
    Fault(
        "alb-without-targets",
        "load balancer",
        "The target group of one Region is empty: UI was scaled to nothing, in good order.",
        "the load balancer answers 503; HealthyHostCount is 0",
        Where.REGION,
        _empty,
        _fill,
        touches=tasks_of("ui"),
        forgets=lost_with_tasks("ui"),
    ),
    Fault(
        "alb-health-check-wrong",
        "load balancer",
        "A mistake in the target group of one Region: the health check asks for a page that does not exist.",
        "all targets are unhealthy, and the load balancer, failing open, sends them requests all the same",
        Where.REGION,
        _mistake,
        _correct,
        touches=CHECK,
    ),
    Fault(
        "alb-wrong-port",
        "load balancer",
        "A mistake in the target group of one Region: it sends requests and health checks to a port on which nobody listens.",
        "the load balancer answers 502; TargetConnectionErrorCount rises",
        Where.REGION,
        _misdirect,
        _direct,
        touches=TARGETS,
    ),
    Fault(
        "certificate-expiring",
        "load balancer",
        "The certificate of one Region's load balancer ends in three days.",
        "CertificateDaysLeft is 3",
        Where.REGION,
        partial(_certify, 3),
        partial(_certify, VALID_DAYS),
        touches=CERTIFICATE,
    ),
    Fault(
        "certificate-expired",
        "load balancer",
        "The certificate of one Region's load balancer ended yesterday.",
        "TLS clients refuse the load balancer's certificate",
        Where.REGION,
        partial(_certify, -1),
        partial(_certify, VALID_DAYS),
        touches=CERTIFICATE,
    ),
)
