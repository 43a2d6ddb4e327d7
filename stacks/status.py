"""What stands where: stacks with their drift and whether they are stale, canaries with their last run, alarms by state."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from stacks.changes import STEADY
from stacks.deployment import told
from stacks.desired import Desired
from stacks.names import PARTS, Names
from stacks.session import Session
from topology import Topology
from topology.signals import canary_kinds, canary_name

DRIFT_WAIT_S = 120


@dataclass(frozen=True, slots=True)
class StackStatus:
    """One stack. ``drift`` is CloudFormation's word for it; ``drifted`` names the resources; ``stale`` means: not what is rendered now.

    ``unread`` says what could not be looked at. A stack that is not steady is stale, whatever it is on its way to.
    """

    name: str
    status: str
    stale: bool
    drift: str = ""
    drifted: tuple[str, ...] = ()
    unread: str = ""

    @property
    def steady(self) -> bool:
        """Whether it stands as its own template says: neither on its way nor half made."""
        return self.status in STEADY

    @property
    def good(self) -> bool:
        """Whether it stands as rendered."""
        return self.steady and not self.stale and not self.drifted


@dataclass(frozen=True, slots=True)
class CanaryStatus:
    """One canary and its newest run."""

    name: str
    state: str
    last_run: str = ""
    ended: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RegionStatus:
    """One Region. ``unread`` says why it could not be looked at, where it could not."""

    region: str
    stacks: tuple[StackStatus, ...] = ()
    canaries: tuple[CanaryStatus, ...] = ()
    alarms: dict[str, list[str]] = field(default_factory=dict)
    unread: str = ""

    @property
    def good(self) -> bool:
        """Whether everything stands as rendered."""
        return not self.unread and all(stack.good for stack in self.stacks)

    def to_json(self) -> dict[str, Any]:
        """The status as plain data."""
        return asdict(self)


def status(state: Desired, session: Session | None = None) -> list[RegionStatus]:
    """The status of every watched Region; Regions are asked in parallel and one that does not answer says so."""
    opened = session or Session(state.topology)

    def one(region: str) -> RegionStatus:
        try:
            return _region(state, region, opened)
        except (ClientError, BotoCoreError) as error:
            return RegionStatus(region, unread=told(error))

    with ThreadPoolExecutor(max_workers=len(state.regions)) as pool:
        return list(pool.map(one, state.regions))


def _region(state: Desired, region: str, session: Session) -> RegionStatus:
    topology = state.topology
    stacks = tuple(_stack(state, region, part, session) for part in PARTS)
    return RegionStatus(region, stacks, _canaries(topology, region, session), _alarms(topology, region, session))


def _stack(state: Desired, region: str, part: str, session: Session) -> StackStatus:
    client, name = session.client("cloudformation", region), Names.of(state.topology, region).stack(part)
    try:
        description = client.describe_stacks(StackName=name)["Stacks"][0]
    except ClientError as error:
        if "does not exist" in str(error):
            return StackStatus(name, "not deployed", stale=True)
        raise
    status = description["StackStatus"]
    if status not in STEADY:
        return StackStatus(name, status, stale=True)
    deployed = client.get_template(StackName=name)["TemplateBody"]
    value = json.loads(deployed) if isinstance(deployed, str) else deployed
    stale = value != state.regions[region].parts[part].template
    try:
        drift, drifted = _drift(client, name)
    except ClientError as error:  # an operation that has just begun, or no right to ask
        return StackStatus(name, status, stale, "UNKNOWN", unread=f"drift was not read: {error}")
    return StackStatus(name, status, stale, drift, drifted)


def _drift(client: Any, name: str) -> tuple[str, tuple[str, ...]]:
    """Detect drift and name what has drifted."""
    detection = client.detect_stack_drift(StackName=name)["StackDriftDetectionId"]
    give_up, pause = time.monotonic() + DRIFT_WAIT_S, 0.1
    while True:
        answer = client.describe_stack_drift_detection_status(StackDriftDetectionId=detection)
        if answer["DetectionStatus"] != "DETECTION_IN_PROGRESS" or time.monotonic() > give_up:
            break
        time.sleep(pause)
        pause = min(pause * 1.5, 5)
    if answer.get("StackDriftStatus") != "DRIFTED":
        return answer.get("StackDriftStatus", "UNKNOWN"), ()
    found = client.describe_stack_resource_drifts(StackName=name, StackResourceDriftStatusFilters=["MODIFIED", "DELETED"])
    resources = [f"{item['LogicalResourceId']} {item['StackResourceDriftStatus'].lower()}" for item in found["StackResourceDrifts"]]
    return "DRIFTED", tuple(resources)


def _canaries(topology: Topology, region: str, session: Session) -> tuple[CanaryStatus, ...]:
    synthetics = session.client("synthetics", region)
    names = [canary_name(topology, kind) for kind in canary_kinds(topology)]
    result = []
    for name in names:
        try:
            canary = synthetics.get_canary(Name=name)["Canary"]
        except ClientError as error:
            if error.response["Error"]["Code"] != "ResourceNotFoundException":
                raise
            result.append(CanaryStatus(name, "not deployed"))
            continue
        runs = synthetics.get_canary_runs(Name=name, MaxResults=5)["CanaryRuns"]
        ended = next((run for run in runs if run["Status"]["State"] != "RUNNING"), None)
        run_status = ended["Status"] if ended else {}
        finished = ended["Timeline"].get("Completed") if ended else None
        result.append(
            CanaryStatus(
                name,
                canary["Status"]["State"],
                run_status.get("State", "no run yet"),
                finished.isoformat() if finished else "",
                run_status.get("StateReason", ""),
            )
        )
    return tuple(result)


def _alarms(topology: Topology, region: str, session: Session) -> dict[str, list[str]]:
    """State -> names of this workload's alarms."""
    states: dict[str, list[str]] = {}
    paginator = session.client("cloudwatch", region).get_paginator("describe_alarms")
    for page in paginator.paginate(AlarmNamePrefix=f"{topology.workload}-", AlarmTypes=["MetricAlarm", "CompositeAlarm"]):
        for alarm in (*page.get("MetricAlarms", ()), *page.get("CompositeAlarms", ())):
            states.setdefault(alarm["StateValue"], []).append(alarm["AlarmName"])
    return states
