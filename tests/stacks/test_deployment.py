"""Deployment against the local AWS: what a plan leaves alone, what an apply and a destroy clear away, and what they say when it fails."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from lab import topology as lab_topology
from lab.store import tls
from stacks import deployment
from stacks.changes import Change, DeploymentFailed, Stack
from stacks.deployment import Outcome
from stacks.desired import Desired, Part, RegionState
from stacks.names import Names, home
from stacks.session import Session
from stacks.status import status
from tests.lab.aws.local_aws import EAST, WEST, LocalAws, eventually, local_aws
from topology import Topology, loads

if TYPE_CHECKING:
    from collections.abc import Iterator

Resources = dict[str, Any]
BODY = json.dumps({"widgets": []})


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    with local_aws(tmp_path_factory.mktemp("deployment"), speed=20) as running:
        tls.authority(running.plan)
        yield running


@pytest.fixture(scope="module")
def topology(aws: LocalAws) -> Topology:
    """The lab's, which leads to the local AWS."""
    return loads(yaml.safe_dump(lab_topology.document(aws.plan)))


@pytest.fixture
def session(aws: LocalAws, topology: Topology, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """The command line's own clients; whatever a test leaves behind is removed."""
    for name, value in aws.plan.aws_environment("admin", EAST).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setattr(deployment, "_start_canaries", lambda *_: None)  # none is deployed here
    opened = Session(topology)
    yield opened
    assert [outcome.failed for outcome in deployment.destroy(topology, opened)] == ["", ""]


def topic(name: str) -> Resources:
    """A topic of this name."""
    return {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": name}}


def alarm(name: str, operator: str = "GreaterThanThreshold") -> Resources:
    """An alarm; CloudWatch refuses an ``operator`` that it does not know."""
    properties = {
        "AlarmName": name,
        "Namespace": "N",
        "MetricName": "M",
        "Statistic": "Sum",
        "Period": 60,
        "EvaluationPeriods": 1,
        "Threshold": 1,
        "ComparisonOperator": operator,
    }
    return {"Type": "AWS::CloudWatch::Alarm", "Properties": properties}


def text(resources: Resources) -> str:
    """A template."""
    return json.dumps({"Resources": resources})


def desired(topology: Topology, alarms: dict[str, Resources], definitions: tuple[dict[str, Any], ...] = ()) -> Desired:
    """A desired state with a bucket, a topic in place of canaries, and ``alarms`` by Region."""
    regions = {}
    for region in topology.watched_regions:
        bucket = {"Bucket": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": Names.of(topology, region).bucket}}}
        rendered = {"foundation": bucket, "canaries": {"Topic": topic("stands-in")}, "alarms": alarms[region]}
        parts = {name: Part(name, text(resources)) for name, resources in rendered.items()}
        regions[region] = RegionState(region, parts, (), definitions)
    return Desired(topology, regions, {})


def stack(session: Session, topology: Topology, part: str = "alarms", region: str = EAST) -> Stack:
    """One of the stacks."""
    return Stack(session.client("cloudformation", region), Names.of(topology, region).stack(part), {})


def silent(*_: str) -> None:
    """Progress that nobody hears."""


def create(made: Stack, resources: Resources, wanted: str = "CREATE_COMPLETE") -> None:
    """Make a stack by hand and wait until it ends as ``wanted``."""
    made.client.create_stack(StackName=made.name, TemplateBody=text(resources))
    eventually(lambda: (made.describe() or {})["StackStatus"] == wanted)


def test_a_plan_leaves_a_half_made_stack_alone(session: Session, topology: Topology) -> None:
    """It says that apply would remove it and what it would make, and the stack is as it was."""
    same = {EAST: {"T": topic("t")}, WEST: {"T": topic("t")}}
    made = stack(session, topology)
    create(stack(session, topology, "foundation"), {"T": topic("foundation")})
    create(made, {"A": alarm("a", "Bigger")}, "ROLLBACK_COMPLETE")
    before = made.describe()
    east, west = deployment.plan(desired(topology, same), session)
    assert made.describe() == before
    assert (east.failed, west.failed) == ("", "")
    assert [change.resource for change in east.changes["alarms"]] == ["T"]
    assert east.notes == (f"{made.name} is ROLLBACK_COMPLETE: apply removes it and makes it anew",)
    assert west.notes == ()


def test_a_plan_does_not_continue_a_rollback_and_apply_does(session: Session, topology: Topology) -> None:
    """A stack whose rollback is stuck is reported; only apply goes on with it."""
    made, sns = stack(session, topology), session.client("sns", EAST)
    create(stack(session, topology, "foundation"), {"T": topic("foundation")})
    create(made, {"T": topic("t"), "A": alarm("a")})
    arn = next(each["TopicArn"] for each in sns.list_topics()["Topics"] if each["TopicArn"].endswith(":t"))
    sns.delete_topic(TopicArn=arn)
    broken = topic("t")
    broken["Properties"]["DisplayName"] = "two"
    made.client.update_stack(StackName=made.name, TemplateBody=text({"T": broken, "A": alarm("a", "Bigger")}))
    eventually(lambda: (made.describe() or {})["StackStatus"] == "UPDATE_ROLLBACK_FAILED")
    east, _ = deployment.plan(desired(topology, {EAST: {"A": alarm("a")}, WEST: {"A": alarm("a")}}), session)
    assert "is UPDATE_ROLLBACK_FAILED" in east.failed
    assert (made.describe() or {})["StackStatus"] == "UPDATE_ROLLBACK_FAILED"
    sns.create_topic(Name="t")
    assert (made.settle(silent) or {})["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"


def test_the_reason_of_a_failure_is_found_among_hundreds_of_events(session: Session, topology: Topology) -> None:
    """A rollback writes more events than one page holds; the one that says why is an old one by then."""
    many: Resources = {f"T{index}": topic(f"many-{index}") for index in range(60)}
    made = stack(session, topology)
    assert made.propose(text({**many, "A": {**alarm("a", "Bigger"), "DependsOn": list(many)}}), None, "crosswatch")
    with pytest.raises(DeploymentFailed, match=r"ended as ROLLBACK_COMPLETE\n    A: .*Bigger"):
        made.execute("crosswatch", silent)


def test_a_stack_under_way_is_deleted_when_it_has_ended(session: Session, topology: Topology) -> None:
    """CloudFormation refuses to delete what it is still making."""
    made = stack(session, topology)
    made.client.create_stack(StackName=made.name, TemplateBody=text({f"T{index}": topic(f"slow-{index}") for index in range(20)}))
    made.delete(silent)
    assert made.describe() is None


def test_every_alarm_that_acts_is_muted_and_no_rule_is_left(session: Session, topology: Topology) -> None:
    """A rule holds a hundred alarms; a deployment that was killed leaves its rules to the next apply or to destroy."""
    names = [f"retail-{index:03}" for index in range(120)]
    definitions = tuple({"AlarmName": name, "AlarmActions": ["arn"]} for name in names)
    cloudwatch = session.client("cloudwatch", EAST)
    create(stack(session, topology), {f"A{index}": alarm(name) for index, name in enumerate(names)})
    state = desired(topology, {EAST: {}, WEST: {}}, definitions)
    assert deployment._mute(topology, state.regions[EAST], session, datetime.now(UTC), deployment.silent)
    rules = [each["AlarmMuteRuleArn"].split(":")[-1] for each in cloudwatch.list_alarm_mute_rules()["AlarmMuteRuleSummaries"]]
    assert rules == ["retail-crosswatch-deploy", "retail-crosswatch-deploy-2"]
    muted = [name for rule in rules for name in cloudwatch.get_alarm_mute_rule(AlarmMuteRuleName=rule)["MuteTargets"]["AlarmNames"]]
    assert muted == names
    assert [outcome.failed for outcome in deployment.destroy(topology, session)] == ["", ""]
    assert cloudwatch.list_alarm_mute_rules()["AlarmMuteRuleSummaries"] == []


def test_a_rule_that_cannot_be_removed_hides_no_failure(session: Session, topology: Topology, monkeypatch: pytest.MonkeyPatch) -> None:
    """The outcome is the deployment's own; that alarms may stay muted is said where it worked."""
    same = {region: {"A": alarm("a")} for region in (EAST, WEST)}
    heard: list[str] = []
    client = session.client("cloudwatch", EAST)
    monkeypatch.setattr(client, "delete_alarm_mute_rule", lambda **_: client.describe_alarms(AlarmNames=["x" * 256]))
    monkeypatch.setattr(deployment, "_mute", lambda *_: True)
    broken = desired(topology, {**same, EAST: {"A": alarm("a", "Bigger")}})
    east, west = deployment.apply(broken, session, lambda *words: heard.append(" ".join(words)))
    assert "Bigger" in east.failed
    assert west == Outcome(WEST, west.changes)
    assert any("may stay muted" in line for line in heard)
    east, _ = deployment.apply(desired(topology, same), session)
    assert east.failed == ""
    assert "may stay muted" in east.notes[0]


def test_the_dashboard_outlives_its_move(session: Session, topology: Topology) -> None:
    """The Region that is to have it waits until the one that had it has removed it: otherwise the removal would come last."""
    board = {"D": {"Type": "AWS::CloudWatch::Dashboard", "Properties": {"DashboardName": topology.workload, "DashboardBody": BODY}}}
    other: Resources = {f"T{index}": topic(f"beside-{index}") for index in range(10)}
    assert all(not outcome.failed for outcome in deployment.apply(desired(topology, {EAST: {**other, **board}, WEST: other}), session))
    heard: list[str] = []
    slow: Resources = {**other, **{f"S{index}": topic(f"slow-{index}") for index in range(10)}}
    outcomes = deployment.apply(
        desired(topology, {EAST: slow, WEST: {**other, **board}}), session, lambda *words: heard.append(" ".join(words))
    )
    assert [outcome.failed for outcome in outcomes] == ["", ""]
    assert any("waits until the Region that had it" in line for line in heard)
    assert session.client("cloudwatch", WEST).get_dashboard(DashboardName=topology.workload)["DashboardBody"] == BODY


def test_the_order_of_regions_does_not_move_the_dashboard(topology: Topology) -> None:
    """Reordering the file is no change of the monitoring."""
    turned = topology.model_copy(update={"regions": dict(reversed(topology.regions.items()))})
    assert home(turned) == home(topology)


def test_status_tells_a_stack_that_is_not_steady(session: Session, topology: Topology) -> None:
    """Its drift cannot be asked for; that makes neither the stack nor its Region unreadable, and it is not good."""
    create(stack(session, topology), {"A": alarm("a", "Bigger")}, "ROLLBACK_COMPLETE")
    create(stack(session, topology, "canaries"), {"Topic": topic("stands-in")})
    east, west = status(desired(topology, {EAST: {"A": alarm("a")}, WEST: {}}), session)
    assert (east.unread, east.good, west.unread) == ("", False, "")
    by_name = {each.name: each for each in east.stacks}
    half, whole = by_name["retail-crosswatch-alarms"], by_name["retail-crosswatch-canaries"]
    assert (half.status, half.good) == ("ROLLBACK_COMPLETE", False)
    assert (whole.status, whole.good, whole.drift) == ("CREATE_COMPLETE", True, "IN_SYNC")
    assert [each.status for each in west.stacks] == ["not deployed"] * 3


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        (None, "https://{bucket}.s3.us-east-1.amazonaws.com/"),
        ("https://bucket.vpce-1-2.s3.us-east-1.vpce.amazonaws.com", "https://{bucket}.s3.us-east-1.amazonaws.com/"),
        ("http://127.0.0.1:4566/", "http://127.0.0.1:4566/{bucket}/"),
    ],
)
def test_cloudformation_reads_templates_where_it_can_reach_them(endpoint: str | None, expected: str, topology: Topology) -> None:
    """A VPC's private address is none of CloudFormation's; a lab's address is the only one there is."""

    class Known:
        """An S3 that has everything."""

        def client(self, *_: str) -> Known:
            return self

        def head_object(self, **_: str) -> None:
            """It is there."""

    private = topology.model_copy(update={"endpoints": {EAST: {"s3": endpoint}} if endpoint else {}})
    region = RegionState(EAST, {"alarms": Part("alarms", "{}")}, (), ())
    url = deployment._template_url(private, region, "alarms", Known())  # type: ignore[arg-type]
    assert url.startswith(expected.format(bucket=Names.of(topology, EAST).bucket))


def test_nobody_waits_where_no_dashboard_moves(session: Session, topology: Topology) -> None:
    """A first deployment has none to wait for."""
    never = [threading.Event()]
    deployment._let_dashboard_go(topology, EAST, [Change("Add", "D", deployment.DASHBOARD)], session, never, deployment.silent)
