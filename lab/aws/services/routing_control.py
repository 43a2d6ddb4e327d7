"""Application Recovery Controller's routing controls: clusters, panels, controls, safety rules, and a cluster's five endpoints.

A cluster keeps each routing control's state in five replicas, one per endpoint, each in another Region. AWS publishes that the endpoints
are redundant, not how; here an update needs three of the five replicas that can reach each other (a majority), an endpoint that was
away catches up when it is back, and an endpoint that is cut off from the others still answers reads with what it last knew.

The rules of safety rules are pure functions (`violated`); https://docs.aws.amazon.com/r53recovery/latest/dg/routing-control.safety-rules.html.
"""

from __future__ import annotations

import secrets
import threading
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from lab.aws.service import AwsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

ON, OFF = "On", "Off"
ENDPOINT_REGIONS = ("us-east-1", "us-west-2", "eu-west-1", "ap-northeast-1", "ap-southeast-2")
CONTROL_PLANE_REGION = "us-west-2"


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster; ``arn`` names it."""

    arn: str
    name: str


@dataclass(frozen=True, slots=True)
class Panel:
    """A control panel: controls that are changed and guarded together."""

    arn: str
    name: str
    cluster_arn: str
    default: bool = False


@dataclass(frozen=True, slots=True)
class Control:
    """A routing control. Its state is in the replicas."""

    arn: str
    name: str
    panel_arn: str


@dataclass(frozen=True, slots=True)
class SafetyRule:
    """An assertion rule (no ``targets``) or a gating rule.

    ``controls`` are asserted, or gate the ``targets``. ``kind`` is ATLEAST, AND or OR; ``wait_ms`` is how long after a change of a guarded
    control further changes are refused.
    """

    arn: str
    name: str
    panel_arn: str
    controls: tuple[str, ...]
    kind: str
    threshold: int
    inverted: bool
    wait_ms: int
    targets: tuple[str, ...] = ()

    @property
    def guarded(self) -> tuple[str, ...]:
        """The controls whose change this rule may refuse."""
        return self.targets or self.controls


def holds(rule: SafetyRule, states: Mapping[str, str]) -> bool:
    """Whether the rule's condition is true with these states (by ARN; a missing one is Off)."""
    on = sum(states.get(arn) == ON for arn in rule.controls)
    needed = {"ATLEAST": rule.threshold, "AND": len(rule.controls), "OR": 1}[rule.kind]
    return (on >= needed) != rule.inverted


def violated(
    rules: Iterable[SafetyRule], before: Mapping[str, str], changes: Mapping[str, str], changed_at: Mapping[str, float], now: float
) -> SafetyRule | None:
    """The first rule that forbids ``changes`` at ``now`` (seconds), None where none does.

    An assertion rule looks at the states as they would be, a gating rule at its gating controls as they are. ``changed_at`` says when each
    control changed last.
    """
    after = {**before, **changes}
    moved = {arn for arn, state in changes.items() if before.get(arn, OFF) != state}
    for rule in rules:
        touched = moved.intersection(rule.guarded)
        if not touched:
            continue
        waiting = any(now - changed_at.get(arn, float("-inf")) < rule.wait_ms / 1000 for arn in rule.guarded)
        if waiting or not holds(rule, before if rule.targets else after):
            return rule
    return None


@dataclass(slots=True)
class Endpoint:
    """One endpoint of the data plane, with its replica of the states.

    ``down``: does not answer. ``isolated``: answers reads with the ``states`` it knew when it was cut off, and refuses updates.
    ``unreadable``: answers, and refuses to say the state.
    """

    region: str
    down: bool = False
    isolated: bool = False
    unreadable: bool = False
    states: dict[str, str] = field(default_factory=dict)


class RoutingControls:
    """Everything about routing controls in the account. Safe to use from several threads; ``version`` rises with each change of state."""

    def __init__(self, account: str, region_is_down: Callable[[str], bool]) -> None:
        self._account = account
        self._region_is_down = region_is_down
        self._lock = threading.RLock()
        self.clusters: dict[str, Cluster] = {}
        self.panels: dict[str, Panel] = {}
        self.controls: dict[str, Control] = {}
        self.rules: dict[str, SafetyRule] = {}
        self.tags: dict[str, dict[str, str]] = {}
        self.endpoints = {region: Endpoint(region) for region in ENDPOINT_REGIONS}
        self._agreed: dict[str, str] = {}
        self._changed_at: dict[str, float] = {}
        self.version = 0

    def add_cluster(self, name: str) -> Cluster:
        """A new cluster, with its default control panel."""
        cluster = Cluster(f"arn:aws:route53-recovery-control::{self._account}:cluster/{uuid.uuid4()}", name)
        with self._lock:
            self.clusters[cluster.arn] = cluster
            self.add_panel("DefaultControlPanel", cluster.arn, default=True)
        return cluster

    def add_panel(self, name: str, cluster_arn: str, default: bool = False, arn: str | None = None) -> Panel:
        """A new control panel of a cluster; the ARN is made up where none is given."""
        arn = arn or f"arn:aws:route53-recovery-control::{self._account}:controlpanel/{secrets.token_hex(16)}"
        panel = Panel(arn, name, cluster_arn, default)
        with self._lock:
            self.panels[arn] = panel
        return panel

    def add_control(self, name: str, panel_arn: str, arn: str | None = None) -> Control:
        """A new routing control; it is Off. The ARN is made up where none is given."""
        control = Control(arn or f"{panel_arn}/routingcontrol/{secrets.token_hex(8)}", name, panel_arn)
        with self._lock:
            self.controls[control.arn] = control
            self._agree({control.arn: OFF})
        return control

    def add_rule(self, rule: SafetyRule) -> SafetyRule:
        """A new safety rule; the ARN is made here."""
        rule = replace(rule, arn=f"{rule.panel_arn}/safetyrule/{secrets.token_hex(8)}")
        with self._lock:
            self.rules[rule.arn] = rule
        return rule

    def remove_control(self, arn: str) -> None:
        """Forget a control."""
        with self._lock:
            self.controls.pop(arn, None)
            self._agreed.pop(arn, None)
            self.version += 1

    def is_on(self, arn: str) -> bool:
        """The state that the cluster agreed on: what Route 53's RECOVERY_CONTROL health checks follow."""
        return self._agreed.get(arn) == ON

    def read(self, region: str, arns: Iterable[str]) -> dict[str, str]:
        """The states as the endpoint in ``region`` knows them. Raises `AwsError` where that endpoint does not say."""
        with self._lock:
            endpoint = self._answering(region)
            if endpoint.unreadable:
                raise AwsError("InternalServerException", "There was an unexpected error during processing of the request.", 500)
            known = endpoint.states if endpoint.isolated else self._agreed
            return {arn: known.get(arn, OFF) for arn in arns}

    def update(self, region: str, changes: Mapping[str, str], override: Iterable[str], now: float) -> None:
        """Set states through the endpoint in ``region``, all or none. Raises `AwsError` as the API would."""
        with self._lock:
            endpoint = self._answering(region)
            connected = [other for other in self.endpoints.values() if not other.isolated and not self._is_down(other)]
            if endpoint not in connected or len(connected) * 2 <= len(self.endpoints):
                raise unavailable(region)
            skipped = set(override)
            rules = [rule for rule in self.rules.values() if rule.arn not in skipped]
            rule = violated(rules, self._agreed, changes, self._changed_at, now)
            if rule is not None:
                raise AwsError(
                    "ConflictException",
                    f"Update would violate safety rule {rule.name} ({rule.arn})",
                    409,
                    resourceId=rule.arn,
                    resourceType="SafetyRule",
                )
            for arn, state in changes.items():
                if self._agreed.get(arn) != state:
                    self._changed_at[arn] = now
            self._agree(changes)

    def set_endpoint(self, region: str, *, down: bool = False, isolated: bool = False, unreadable: bool = False) -> None:
        """Break or heal an endpoint. One that is whole again catches up with what the others agreed on meanwhile."""
        with self._lock:
            endpoint = self.endpoints[region]
            if isolated and not endpoint.isolated:
                endpoint.states = dict(self._agreed)
            endpoint.down, endpoint.isolated, endpoint.unreadable = down, isolated, unreadable

    def _agree(self, changes: Mapping[str, str]) -> None:
        self._agreed = {**self._agreed, **changes}
        self.version += 1

    def _is_down(self, endpoint: Endpoint) -> bool:
        return endpoint.down or self._region_is_down(endpoint.region)

    def _answering(self, region: str) -> Endpoint:
        endpoint = self.endpoints.get(region)
        if endpoint is None or self._is_down(endpoint):
            raise unavailable(region)
        return endpoint


def unavailable(region: str) -> AwsError:
    """The error of an endpoint that cannot serve the request now."""
    return AwsError(
        "EndpointTemporarilyUnavailableException", f"The cluster endpoint in {region} is not available. Try another cluster endpoint.", 503
    )
