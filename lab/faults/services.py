"""The store's services on ECS: one of them down, slow, wrong, leaking or badly deployed, in one Region."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from lab import admin
from lab.faults.fault import Fault, Where, the
from lab.plan import SERVICES

if TYPE_CHECKING:
    from lab.faults.ground import Ground

SLOW_MS = 1500
LEAK_MB_PER_MIN = 60
WHOLE_WITHIN_S = 60.0


def tasks_of(service: str) -> frozenset[str]:
    """What a fault touches that starts, stops or freezes a service's tasks."""
    return the(f"the tasks of {service} in {{region}}")


def conduct_of(service: str) -> frozenset[str]:
    """What a fault touches that has the tasks that run behave in some way."""
    return the(f"the conduct of {service} in {{region}}")


def lost_with_tasks(service: str) -> frozenset[str]:
    """What new tasks know nothing of. Those of UI are registered as targets by themselves, at their right port."""
    return conduct_of(service) | (the("the load balancer's targets in {region}") if service == "ui" else the())


def services(ground: Ground, region: str) -> dict[str, Any]:
    """What ECS says of the Region's services."""
    answer: dict[str, Any] = admin.call(ground.region(region).ecs_port, "GET", "/status")
    return answer


def await_whole(ground: Ground, region: str, service: str) -> None:
    """Wait until the service has as many running tasks as it should, all of the newest revision."""

    def whole() -> bool:
        status = services(ground, region)[service]
        return bool(status["running"] == status["desired"] > 0 and not status["deploying"])

    ground.await_(f"{region}/{service} has its tasks again", whole, WHOLE_WITHIN_S)


def scale(ground: Ground, region: str, service: str, desired: int) -> None:
    """Ask ECS for ``desired`` tasks."""
    admin.call(ground.region(region).ecs_port, "POST", f"/services/{service}/scale", {"desired": desired})


def _lose(service: str, ground: Ground, region: str) -> int:
    """Kill all tasks and have none come back; returns how many there should be."""
    status = services(ground, region)[service]
    ground.begun = int(status["desired"])
    scale(ground, region, service, 0)
    for task in status["tasks"]:
        _signal(ground, region, task["id"], "kill")
    ground.await_(f"{region}/{service} is gone", lambda: services(ground, region)[service]["running"] == 0)
    return int(status["desired"])


def _scale_back(service: str, ground: Ground, region: str, desired: int) -> None:
    scale(ground, region, service, desired)
    await_whole(ground, region, service)


def _disturb(service: str, path: str, ground: Ground, region: str) -> None:
    for task in services(ground, region)[service]["tasks"]:
        admin.call(task["port"], "POST", f"/chaos/{path}")


def _calm(service: str, ground: Ground, region: str, _memory: None) -> None:
    for task in services(ground, region)[service]["tasks"]:
        admin.call(task["port"], "DELETE", "/chaos")
    await_whole(ground, region, service)


def deploy(service: str, environment: dict[str, str], ground: Ground, region: str) -> None:
    """Roll out a release with ``environment`` added, and wait until it runs, unless it cannot."""
    admin.call(ground.region(region).ecs_port, "POST", f"/services/{service}/deploy", {"environment": environment})
    if environment.get("RETAIL_DEFECT") != "crash":
        await_whole(ground, region, service)


def roll_back(service: str, ground: Ground, region: str, _memory: None) -> None:
    """Roll out the release without additions again."""
    admin.call(ground.region(region).ecs_port, "POST", f"/services/{service}/rollback")
    await_whole(ground, region, service)


def _freeze(service: str, ground: Ground, region: str) -> list[str]:
    frozen = [task["id"] for task in services(ground, region)[service]["tasks"]]
    for task in frozen:
        _signal(ground, region, task, "stop")
    return frozen


def _thaw(service: str, ground: Ground, region: str, frozen: list[str]) -> None:
    for task in services(ground, region)[service]["tasks"]:
        if task["id"] in frozen:
            _signal(ground, region, task["id"], "cont")
    await_whole(ground, region, service)


def _signal(ground: Ground, region: str, task: str, how: str) -> None:
    """Signal a task, if it is still there."""
    try:
        admin.call(ground.region(region).ecs_port, "DELETE", f"/tasks/{task}?how={how}")
    except admin.Refusal as refusal:
        if refusal.status != 404:
            raise


def _of(service: str) -> tuple[Fault, ...]:
    """The faults that every service can have."""
    title = "UI" if service == "ui" else service.capitalize()
    seen_at = "the load balancer answers 503" if service == "ui" else f"Service Connect answers 503 for {service}"
    return (
        Fault(
            f"{service}-down",
            "services",
            f"Every task of {title} is killed in one Region, and none comes back.",
            f"RunningTaskCount of {service} is 0; {seen_at}",
            Where.REGION,
            partial(_lose, service),
            partial(_scale_back, service),
            touches=tasks_of(service),
            forgets=lost_with_tasks(service),
        ),
        Fault(
            f"{service}-slow",
            "services",
            f"{title} answers every request {SLOW_MS / 1000:g} s late in one Region.",
            f"the latency of {service} rises by {SLOW_MS} ms",
            Where.REGION,
            partial(_disturb, service, f"latency/{SLOW_MS}"),
            partial(_calm, service),
            touches=conduct_of(service),
        ),
        Fault(
            f"{service}-erroring",
            "services",
            f"{title} answers every request with 500 in one Region, while its health check passes.",
            f"5xx of {service} rise; its tasks stay healthy",
            Where.REGION,
            partial(_disturb, service, "status/500"),
            partial(_calm, service),
            touches=conduct_of(service),
        ),
    )


FAULTS = (
    *(fault for service in SERVICES for fault in _of(service)),
    Fault(
        "ui-wrong-body",
        "services",
        "UI answers 200 with a page that is not the store's in one Region.",
        "status codes are all 200; only who reads the page notices",
        Where.REGION,
        partial(_disturb, "ui", "body"),
        partial(_calm, "ui"),
        touches=conduct_of("ui"),
    ),
    Fault(
        "ui-without-assets",
        "services",
        "UI is deployed without its style sheets and pictures in one Region: pages answer 200 and look broken.",
        "/assets/… answers 404, the pages 200",
        Where.REGION,
        partial(deploy, "ui", {"RETAIL_ASSETS": "/nonexistent"}),
        partial(roll_back, "ui"),
        touches=tasks_of("ui"),
        forgets=lost_with_tasks("ui"),
    ),
    Fault(
        "orders-bad-deploy",
        "services",
        "A release of Orders that answers every request with 500 is rolled out in one Region.",
        "Orders has a new revision; its 5xx rise",
        Where.REGION,
        partial(deploy, "orders", {"RETAIL_DEFECT": "status/500"}),
        partial(roll_back, "orders"),
        touches=tasks_of("orders"),
        forgets=lost_with_tasks("orders"),
    ),
    Fault(
        "catalog-stuck-deploy",
        "services",
        "A release of Catalog whose tasks crash at once: the rollout never ends, the old tasks go on serving.",
        "DeploymentCount of catalog is 2; ECS reports failed starts",
        Where.REGION,
        partial(deploy, "catalog", {"RETAIL_DEFECT": "crash"}),
        partial(roll_back, "catalog"),
        touches=tasks_of("catalog"),
        forgets=lost_with_tasks("catalog"),
    ),
    Fault(
        "checkout-unhealthy",
        "services",
        "The health check of Checkout fails although it serves: ECS stops and replaces its tasks.",
        "tasks of checkout are stopped and started",
        Where.REGION,
        partial(_disturb, "checkout", "health"),
        partial(_calm, "checkout"),
        touches=tasks_of("checkout"),
        forgets=lost_with_tasks("checkout"),
    ),
    Fault(
        "carts-memory-leak",
        "services",
        f"Carts loses {LEAK_MB_PER_MIN} MB of memory a minute in one Region, until a task has used up what it may and is killed.",
        "MemoryUtilization of carts rises steadily; in the end ECS says OutOfMemoryError and starts a new task",
        Where.REGION,
        partial(_disturb, "carts", f"leak/{LEAK_MB_PER_MIN}"),
        partial(_calm, "carts"),
        touches=conduct_of("carts"),
    ),
    Fault(
        "catalog-hanging",
        "services",
        "The tasks of Catalog stop in their tracks in one Region: connections are accepted and never answered.",
        "requests to catalog time out",
        Where.REGION,
        partial(_freeze, "catalog"),
        partial(_thaw, "catalog"),
        touches=tasks_of("catalog"),
        forgets=lost_with_tasks("catalog"),
    ),
)
