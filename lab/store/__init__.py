"""The retail store: in each Region a load balancer, the tasks of five services and the mesh between them; and who buys there."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from lab import admin
from lab.data import ROOT, environment
from lab.process import ProcessSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.plan import LabPlan, RegionPlan


def processes(plan: LabPlan) -> list[ProcessSpec]:
    """Every process of the store, all Regions. Nothing waits for anything: tasks retry what is not there yet.

    ``<region>/ecs`` is ready when a task of each service runs, so that the store serves when all are ready.
    """
    specs = [spec for region in plan.regions.values() for spec in _of_region(plan, region)]
    for name, ready in (("vending", None), ("traffic", lambda: bool(admin.call(plan.traffic_port, "GET", "/status", timeout_s=1.0)))):
        specs.append(
            ProcessSpec(
                name=name,
                argv=(sys.executable, "-m", f"lab.store.{name}"),
                environment=environment(plan),
                directory=ROOT,
                ready=ready,
                restart=True,
            )
        )
    return specs


def _of_region(plan: LabPlan, region: RegionPlan) -> list[ProcessSpec]:
    def module(part: str, ready: Callable[[], bool]) -> ProcessSpec:
        return ProcessSpec(
            name=f"{region.name}/{part}",
            region=region.name,
            argv=(sys.executable, "-m", f"lab.store.{part}", region.name),
            environment=environment(plan),
            directory=ROOT,
            ready=ready,
            ready_within_s=60.0,
        )

    return [
        module("ecs", lambda: _all_run(region)),
        module("connect", lambda: bool(admin.call(region.connect_admin_port, "GET", "/status", timeout_s=1.0))),
        module("alb", lambda: _alb_serves(region)),
    ]


def _all_run(region: RegionPlan) -> bool:
    services = admin.call(region.ecs_port, "GET", "/status", timeout_s=1.0).values()
    return all(service["running"] >= min(1, service["desired"]) for service in services)


def _alb_serves(region: RegionPlan) -> bool:
    return bool(admin.call(region.alb_admin_port, "GET", "/health", timeout_s=1.0)["healthy"])
