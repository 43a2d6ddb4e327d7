"""A local AWS with DNS and the runbooks, on free ports."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import admin
from lab.aws import registry
from lab.aws.gateway import Gateway
from lab.aws.world import LocalWorld
from lab.dns import setup
from lab.dns.serving import Dns
from lab.plan import LabPlan
from lab.runbooks import register

OURS = ("route53", "route53-recovery-cluster", "route53-recovery-control-config", "ssm", "sts")
FINAL = {"Success", "Failed", "TimedOut", "Cancelled", "Rejected"}


class LabWithRunbooks:
    """A gateway, its DNS and its runbooks. ``events`` are what Automation put on the event bus."""

    def __init__(self, plan: LabPlan) -> None:
        self.plan = plan
        self.gateway = Gateway(LocalWorld(plan))
        self.world = self.gateway.world
        self.gateway.open()
        setup(self.world, plan)
        self.dns = Dns(self.world, plan).start()
        register(self.world, plan)

    def close(self) -> None:
        self.dns.stop()
        self.gateway.close()

    def put(self, name: str, content: str, region: str = "us-west-2") -> None:
        """Add an Automation document."""
        self.world.client("ssm", region).create_document(Name=name, Content=content, DocumentType="Automation", DocumentFormat="YAML")

    def run(self, name: str, region: str = "us-west-2", within_s: float = 60.0, **parameters: str) -> dict[str, Any]:
        """Run a document to its end; the execution as GetAutomationExecution gives it."""
        ssm = self.world.client("ssm", region)
        given = {"Parameters": {key: [value] for key, value in parameters.items()}} if parameters else {}
        return self.wait(ssm.start_automation_execution(DocumentName=name, **given)["AutomationExecutionId"], region, within_s)

    def wait(self, execution_id: str, region: str = "us-west-2", within_s: float = 60.0) -> dict[str, Any]:
        """Wait for the end of an execution."""
        ssm = self.world.client("ssm", region)
        deadline = time.monotonic() + within_s
        while True:
            execution: dict[str, Any] = ssm.get_automation_execution(AutomationExecutionId=execution_id)["AutomationExecution"]
            if execution["AutomationExecutionStatus"] in FINAL:
                return execution
            assert time.monotonic() < deadline, execution
            time.sleep(0.05)

    def make_whole(self) -> None:
        """Heal everything and put both Regions into service."""
        for path in (
            "/authority",
            *(f"/resolvers/{name}" for name in self.plan.regions),
            *(f"/arc/{name}" for name in self.plan.arc_ports),
        ):
            admin.call(self.plan.dns_admin_port, "POST", path, {})
        controls = self.world.service("route53-recovery-cluster").controls
        controls.update("eu-west-1", dict.fromkeys(controls.controls, "On"), controls.rules, self.plan.clock.now())
        for balancer in self.dns._balancers.values():
            balancer.healthy = True
        self.dns._say_balancers()


@contextlib.contextmanager
def running(directory: Path, speed: float) -> Iterator[LabWithRunbooks]:
    """A lab for a ``with`` block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "SERVICES", {name: registry.SERVICES[name] for name in OURS})
        made = LabWithRunbooks(LabPlan.make(directory, speed=speed))
        try:
            yield made
        finally:
            made.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabWithRunbooks]:
    """One lab for a whole module, at the wall's speed."""
    with running(tmp_path_factory.mktemp("lab"), 1.0) as made:
        yield made


@pytest.fixture
def lab(shared: LabWithRunbooks) -> LabWithRunbooks:
    """The shared lab, whole, with both Regions in service."""
    shared.make_whole()
    return shared


@pytest.fixture
def fast_lab(tmp_path: Path) -> Iterator[LabWithRunbooks]:
    """A lab of its own at speed 20."""
    with running(tmp_path, 20.0) as made:
        yield made
