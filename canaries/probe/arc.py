"""The states of the routing controls, from ARC's data plane: five endpoints in five Regions, any of which may be gone.

Application Recovery Controller developer guide, "best practices": try the cluster endpoints in turn; do not rely on the control plane.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from canaries.shared import aws

if TYPE_CHECKING:
    from canaries.probe.settings import Arc


@dataclass(slots=True)
class RoutingReader:
    """Reads all controls from the first endpoint that answers, beginning with the one that did last time; what it does not tell, the next
    one is asked."""

    arc: Arc | None
    timeout_s: float
    budget_s: float
    _clients: dict[str, Any] = field(default_factory=dict)
    _order: list[str] = field(default_factory=list)

    def __call__(self) -> dict[str, bool]:
        """Whether each Region's control is on; a control that could not be read is absent: unknown is not off."""
        if self.arc is None:
            return {}
        self._order = self._order or list(self.arc.endpoints)
        deadline = time.perf_counter() + self.budget_s
        states: dict[str, bool] = {}
        for region in list(self._order):
            missing = [each for each in self.arc.controls if each not in states]
            if not missing or time.perf_counter() > deadline:
                break
            if not self._ask(region, missing, states, deadline):
                self._order.remove(region)
                self._order.append(region)
        return states

    def _ask(self, region: str, missing: list[str], states: dict[str, bool], deadline: float) -> bool:
        """Ask one endpoint for what is missing, control by control; whether it is one to begin with next time."""
        assert self.arc is not None
        told = False
        for each in missing:
            if time.perf_counter() > deadline:
                break
            try:
                states[each] = self._read(region, self.arc.controls[each])
                told = True
            except ClientError:  # this control is refused or unknown here; that says nothing of the others
                continue
            except aws.errors():
                return False
        return told

    def _read(self, region: str, control: str) -> bool:
        assert self.arc is not None
        if region not in self._clients:
            self._clients[region] = aws.client("route53-recovery-cluster", region, self.arc.endpoints[region], self.timeout_s)
        return bool(self._clients[region].get_routing_control_state(RoutingControlArn=control)["RoutingControlState"] == "On")
