"""A local AWS with DNS and the runbooks, on free ports."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

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


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[LabWithRunbooks]:
    monkeypatch.setattr(registry, "SERVICES", {name: registry.SERVICES[name] for name in OURS})
    running = LabWithRunbooks(LabPlan.make(tmp_path, speed=getattr(request, "param", 1.0)))
    try:
        yield running
    finally:
        running.close()
