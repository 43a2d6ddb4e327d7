"""A local AWS with DNS, on free ports, for the tests of this room."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.aws import registry
from lab.aws.gateway import Gateway
from lab.aws.world import LocalWorld
from lab.dns import setup
from lab.dns.serving import Dns
from lab.plan import LabPlan


class LabWithDns:
    """A gateway and its DNS."""

    def __init__(self, plan: LabPlan) -> None:
        self.plan = plan
        self.gateway = Gateway(LocalWorld(plan))
        self.world = self.gateway.world
        self.gateway.open()
        setup(self.world, plan)
        self.dns = Dns(self.world, plan).start()

    def close(self) -> None:
        self.dns.stop()
        self.gateway.close()


OURS = ("route53", "route53-recovery-cluster", "route53-recovery-control-config")


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LabWithDns]:
    monkeypatch.setattr(registry, "SERVICES", {name: registry.SERVICES[name] for name in OURS})
    running = LabWithDns(LabPlan.make(tmp_path))
    try:
        yield running
    finally:
        running.close()
