"""What the stacks and the things in them are called; the same rule everywhere, so that ARNs are known before anything exists."""

from __future__ import annotations

from dataclasses import dataclass

from topology import Topology
from topology.naming import bucket_name, role_name

PARTS = ("foundation", "canaries", "alarms")
"""The stacks of a Region in the order of deployment: canaries and alarms apart, so that one rollback cannot blind everything."""


@dataclass(frozen=True, slots=True)
class Names:
    """Names of one workload in one Region."""

    workload: str
    account: str
    region: str

    @classmethod
    def of(cls, topology: Topology, region: str) -> Names:
        """The names of ``topology`` in ``region``."""
        return cls(topology.workload, topology.account, region)

    def stack(self, part: str) -> str:
        """The name of the stack for ``part``."""
        return f"{self.workload}-crosswatch-{part}"

    @property
    def bucket(self) -> str:
        """The bucket of artifacts: code, templates, and what canaries leave behind."""
        return bucket_name(self.workload, self.account, self.region)

    def role(self, purpose: str) -> str:
        """A role's name; IAM is global, so the Region is part of it."""
        return role_name(self.workload, purpose, self.region)

    @property
    def notifier(self) -> str:
        """The notifier's function name."""
        return f"{self.workload}-notifier"

    def topic(self, purpose: str) -> str:
        """A topic's name."""
        return f"{self.workload}-{purpose}"

    def topic_arn(self, purpose: str) -> str:
        """A topic's ARN."""
        return f"arn:aws:sns:{self.region}:{self.account}:{self.topic(purpose)}"

    def mute_rule(self, number: int) -> str:
        """The alarm mute rule that holds while a deployment runs; ``number`` counts from 1, since a rule holds a hundred alarms."""
        return f"{self.workload}-crosswatch-deploy" + (f"-{number}" if number > 1 else "")


def dashboard_name(topology: Topology) -> str:
    """The store's dashboard; dashboards are global, so there is one."""
    return topology.workload


def home(topology: Topology) -> str:
    """The Region that dashboards are deployed from, whatever the order in the file: a dashboard that moves is removed and made anew."""
    return min(topology.regions)
