"""Bringing every Region to the desired state: plan, apply, destroy; Regions in parallel, a Region's stacks in order.

CloudFormation does the work (rollback, ownership, deletion). boto3 acts directly only where CloudFormation cannot: uploading artifacts,
starting and stopping canaries, and muting the alarms while a deployment runs. An interrupted deployment is resumed by running it again.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from stacks.changes import HALF_MADE, STEADY, TEMPLATE_LIMIT, Change, DeploymentFailed, Stack, planned
from stacks.desired import Artifact, Desired, RegionState
from stacks.names import PARTS, Names, dashboard_name
from stacks.session import Session
from topology import Topology
from topology.signals import canary_kinds, canary_name

CHANGE_SET = "crosswatch"
MUTE = "PT30M"
MUTE_NAMES = 100
"""Alarms that one mute rule takes, and names that one DescribeAlarms takes."""
MUTE_RULES = 5
"""As many as the alarms of one stack need: CloudFormation takes 500 resources."""
DASHBOARD = "AWS::CloudWatch::Dashboard"

Report = Callable[[str, str, str, str], None]
"""Told of progress: (Region, stack part, logical id or step, status and reason)."""


def silent(_region: str, _part: str, _what: str, _status: str) -> None:
    """A report that says nothing."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened in one Region. ``failed`` is the message of what went wrong, or empty; ``notes`` say what else there is to know."""

    region: str
    changes: dict[str, list[Change]] = field(default_factory=dict)
    failed: str = ""
    notes: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether anything was, or would be, changed."""
        return any(self.changes.values())


def plan(state: Desired, session: Session | None = None) -> list[Outcome]:
    """What `apply` would change, Region by Region; no stack is changed.

    A template that is too long to be sent is put into the bucket, for CloudFormation to read it there.
    """
    opened = session or Session(state.topology)
    return _everywhere(state, lambda region: _plan_region(state.topology, region, opened))


def apply(state: Desired, session: Session | None = None, report: Report = silent) -> list[Outcome]:
    """Bring every Region to ``state``. A Region that fails does not stop the others; each outcome says how it went."""
    opened = session or Session(state.topology)
    ended = {region: threading.Event() for region in state.regions}

    def one(region: RegionState) -> Outcome:
        others = [event for name, event in ended.items() if name != region.region]
        try:
            return _apply_region(state.topology, region, opened, report, others)
        finally:
            ended[region.region].set()

    return _everywhere(state, one)


def destroy(topology: Topology, session: Session | None = None, report: Report = silent) -> list[Outcome]:
    """Remove everything in every Region: canaries first stopped, stacks in reverse order, the bucket emptied before it goes."""
    opened = session or Session(topology)

    def one(region: str) -> Outcome:
        names = Names.of(topology, region)
        notes = _unmute(topology, region, opened, report)
        _stop_canaries(topology, region, opened, report)
        for part in reversed(PARTS):
            if part == "foundation":
                _empty_bucket(opened.client("s3", region), names.bucket)
            _stack(topology, region, part, opened).delete(_progress(report, region, part))
            report(region, part, "stack", "gone")
        return Outcome(region, notes=notes)

    return _in_parallel(topology.watched_regions, one)


def _plan_region(topology: Topology, region: RegionState, session: Session) -> Outcome:
    changes: dict[str, list[Change]] = {}
    notes = []
    ready = _stack(topology, region.region, "foundation", session).describe() is not None
    for name in PARTS:
        stack, part = _stack(topology, region.region, name, session), region.parts[name]
        description = stack.describe()
        status = description["StackStatus"] if description else "REVIEW_IN_PROGRESS"
        if status in (*HALF_MADE, "REVIEW_IN_PROGRESS") or not ready:
            changes[name] = planned(part.body)
            notes += [f"{stack.name} is {status}: apply removes it and makes it anew"] if status in HALF_MADE else []
        elif status in STEADY:
            url = _template_url(topology, region, name, session) if len(part.body.encode()) > TEMPLATE_LIMIT else None
            changes[name] = stack.propose(part.body, url, f"{CHANGE_SET}-plan")
            stack.discard(f"{CHANGE_SET}-plan")
        else:
            raise DeploymentFailed(
                f"{stack.name} is {status}: what would change is known when that has ended; apply waits for it, and continues a rollback"
            )
    return Outcome(region.region, changes, notes=tuple(notes))


def _apply_region(topology: Topology, region: RegionState, session: Session, report: Report, others: list[threading.Event]) -> Outcome:
    changes: dict[str, list[Change]] = {}
    muted = False
    try:
        for name in PARTS:
            stack, part = _stack(topology, region.region, name, session), region.parts[name]
            progress = _progress(report, region.region, name)
            url = None
            if name != "foundation":
                for artifact in region.artifacts:
                    _upload(topology, region.region, artifact, session)
                url = _template_url(topology, region, name, session)
            stack.settle(progress)
            changes[name] = stack.propose(part.body, url, CHANGE_SET)
            if changes[name]:
                muted = muted or _mute(topology, region, session, stack.clock(CHANGE_SET), report)
                report(region.region, name, "stack", f"{len(changes[name])} changes")
                _let_dashboard_go(topology, region.region, changes[name], session, others, report)
                stack.execute(CHANGE_SET, progress)
            report(region.region, name, "stack", "up to date")
            if name == "canaries":
                _start_canaries(topology, region.region, session, report)
    except BaseException:
        if muted:
            _unmute(topology, region.region, session, report)
        raise
    return Outcome(region.region, changes, notes=_unmute(topology, region.region, session, report))


def _let_dashboard_go(
    topology: Topology, region: str, changes: list[Change], session: Session, others: list[threading.Event], report: Report
) -> None:
    """Before a dashboard that exists is made in ``region``, wait for the other Regions: one of them gives it up, and CloudFormation makes
    none that is there already."""
    if not any(change.kind == DASHBOARD and change.action == "Add" for change in changes):
        return
    listed = session.client("cloudwatch", region).list_dashboards(DashboardNamePrefix=dashboard_name(topology))["DashboardEntries"]
    if any(entry["DashboardName"] == dashboard_name(topology) for entry in listed):
        report(region, "alarms", "dashboard", "waits until the Region that had it gives it up")
        for other in others:
            other.wait()


def told(error: Exception) -> str:
    """An error of AWS in words, with what to do where that is always the same."""
    if isinstance(error, NoCredentialsError):
        return "no AWS credentials were found: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    return str(error)


def _everywhere(state: Desired, work: Callable[[RegionState], Outcome]) -> list[Outcome]:
    return _in_parallel(state.regions, lambda name: work(state.regions[name]))


def _in_parallel(regions: Any, work: Callable[[str], Outcome]) -> list[Outcome]:
    """Run ``work`` for every Region at once; an AWS error becomes that Region's outcome."""

    def guarded(region: str) -> Outcome:
        try:
            return work(region)
        except (DeploymentFailed, ClientError, BotoCoreError) as error:
            return Outcome(region, failed=told(error))

    names = list(regions)
    with ThreadPoolExecutor(max_workers=len(names)) as pool:
        return list(pool.map(guarded, names))


def _stack(topology: Topology, region: str, part: str, session: Session) -> Stack:
    tags = {"crosswatch:workload": topology.workload, "crosswatch:environment": topology.environment}
    return Stack(session.client("cloudformation", region), Names.of(topology, region).stack(part), tags)


def _progress(report: Report, region: str, part: str) -> Callable[[str, str, str], None]:
    return lambda what, status, reason: report(region, part, what, f"{status} {reason}".strip())


def _upload(topology: Topology, region: str, artifact: Artifact, session: Session) -> None:
    """Put an artifact into the bucket unless it is there: the key holds the content's hash."""
    s3, bucket = session.client("s3", region), Names.of(topology, region).bucket
    try:
        s3.head_object(Bucket=bucket, Key=artifact.key)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] not in (403, 404):
            raise
        checksum = base64.b64encode(hashlib.sha256(artifact.data).digest()).decode()
        s3.put_object(Bucket=bucket, Key=artifact.key, Body=artifact.data, ChecksumSHA256=checksum)


def _template_url(topology: Topology, region: RegionState, name: str, session: Session) -> str:
    """Put the template into the bucket and return its address, as CloudFormation itself reaches it."""
    part, bucket = region.parts[name], Names.of(topology, region.region).bucket
    _upload(topology, region.region, Artifact(part.key, part.body.encode()), session)
    private = topology.endpoint(region.region, "s3")
    if private and not (urlsplit(private).hostname or "").endswith(".amazonaws.com"):
        return f"{private.rstrip('/')}/{bucket}/{part.key}"
    return f"https://{bucket}.s3.{region.region}.amazonaws.com/{part.key}"


def _start_canaries(topology: Topology, region: str, session: Session, report: Report) -> None:
    """Start what is not running; a canary that was just created starts by itself."""
    synthetics = session.client("synthetics", region)
    for kind in canary_kinds(topology):
        name = canary_name(topology, kind)
        state = synthetics.get_canary(Name=name)["Canary"]["Status"]["State"]
        if state in ("READY", "STOPPED"):
            synthetics.start_canary(Name=name)
            report(region, "canaries", name, "started")


def _stop_canaries(topology: Topology, region: str, session: Session, report: Report) -> None:
    synthetics = session.client("synthetics", region)
    for kind in canary_kinds(topology):
        name = canary_name(topology, kind)
        try:
            synthetics.stop_canary(Name=name)
            report(region, "canaries", name, "stopped")
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("ResourceNotFoundException", "ConflictException"):
                raise


def _mute(topology: Topology, region: RegionState, session: Session, now: datetime, report: Report) -> bool:
    """Mute the alarms that act, while they are changed under way; a first deployment has none. Returns whether a rule was made."""
    cloudwatch, names = session.client("cloudwatch", region.region), Names.of(topology, region.region)
    acting = [item["AlarmName"] for item in region.definitions if item.get("AlarmActions")]
    existing = sorted(
        alarm["AlarmName"]
        for some in _hundreds(acting)
        for page in cloudwatch.get_paginator("describe_alarms").paginate(AlarmNames=some, AlarmTypes=["MetricAlarm", "CompositeAlarm"])
        for alarm in (*page.get("MetricAlarms", ()), *page.get("CompositeAlarms", ()))
    )
    for number, some in enumerate(_hundreds(existing), 1):
        cloudwatch.put_alarm_mute_rule(
            Name=names.mute_rule(number),
            Description="a deployment is under way",
            Rule={"Schedule": {"Expression": f"at({now:%Y-%m-%dT%H:%M})", "Duration": MUTE, "Timezone": "UTC"}},
            MuteTargets={"AlarmNames": some},
        )
        report(region.region, "alarms", "mute rule", "alarms are muted during the deployment")
    return bool(existing)


def _unmute(topology: Topology, region: str, session: Session, report: Report) -> tuple[str, ...]:
    """Remove the mute rules of this deployment and of one that was killed. What stays ends by itself: that is noted, not raised."""
    cloudwatch, names = session.client("cloudwatch", region), Names.of(topology, region)
    try:
        for number in range(1, MUTE_RULES + 1):
            cloudwatch.delete_alarm_mute_rule(AlarmMuteRuleName=names.mute_rule(number))
    except (ClientError, BotoCoreError) as error:
        if isinstance(error, ClientError) and error.response["Error"]["Code"].startswith("ResourceNotFound"):
            return ()
        note = f"the alarms may stay muted for up to 30 minutes, since the mute rule could not be removed: {error}"
        report(region, "alarms", "mute rule", note)
        return (note,)
    return ()


def _hundreds(names: list[str]) -> Iterator[list[str]]:
    """As many names as one call takes."""
    for first in range(0, len(names), MUTE_NAMES):
        yield names[first : first + MUTE_NAMES]


def _empty_bucket(s3: Any, bucket: str) -> None:
    """Delete every version of every object: a bucket that is not empty cannot be deleted."""
    try:
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
            doomed = [
                {"Key": item["Key"], "VersionId": item["VersionId"]} for item in (*page.get("Versions", ()), *page.get("DeleteMarkers", ()))
            ]
            if doomed:
                s3.delete_objects(Bucket=bucket, Delete={"Objects": doomed, "Quiet": True})
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("NoSuchBucket", "404"):
            raise
