"""``alarms lint``: one wrong input for each check, the sample's mistakes, disabling, and the failures played through."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from alarms import definitions as reading
from alarms import testing
from alarms.commands import notifier_texts
from alarms.lint import CHECKS, lint
from alarms.rendering import definitions as render
from tests.alarms.kit import TOPIC, metric_alarm
from topology import Topology, load
from topology.problems import Problem, UnusableInput

ROOT = Path(__file__).resolve().parent.parent.parent
HELP = {"AlarmDescription": "Look at the dashboard."}


@pytest.fixture(scope="module")
def topology() -> Topology:
    """The example workload."""
    return load(ROOT / "topology.yaml")


def found(*items: dict[str, Any], topology: Topology | None = None) -> set[str]:
    """The names of the checks that find something."""
    return {finding.check for finding in lint(reading.from_items(list(items)), topology)}


def sound(**changes: Any) -> dict[str, Any]:
    """An alarm that no check objects to, with changes."""
    base = {"Namespace": "Shop", "MetricName": "OrdersFailed", "Statistic": "Sum", "Threshold": 10, "OKActions": None, **HELP}
    return metric_alarm(**{**base, **changes})


def metric(namespace: str, name: str, dimensions: dict[str, str], **changes: Any) -> dict[str, Any]:
    """A sound alarm on a given metric."""
    dims = [{"Name": key, "Value": value} for key, value in dimensions.items()]
    return sound(Namespace=namespace, MetricName=name, Dimensions=dims, **changes)


def math(expression: str, **changes: Any) -> dict[str, Any]:
    """A sound alarm on an expression over m1 and m2."""
    queries: list[dict[str, Any]] = [{"Id": "e", "Expression": expression}]
    for ident in ("m1", "m2"):
        stat = {"Metric": {"Namespace": "Shop", "MetricName": ident}, "Period": 60, "Stat": "Sum", "Unit": "Count"}
        queries.append({"Id": ident, "MetricStat": stat, "ReturnData": False})
    single = ("Namespace", "MetricName", "Dimensions", "Period", "Statistic")
    return {key: value for key, value in sound(**changes).items() if key not in single} | {"Metrics": queries}


BALANCER = {"LoadBalancer": "app/x/1"}
SUCCESS: tuple[str, str, dict[str, str]] = ("CloudWatchSynthetics", "SuccessPercent", {"CanaryName": "c"})
REPLICATION: tuple[str, str, dict[str, str]] = ("AWS/DynamoDB", "ReplicationLatency", {"TableName": "t", "ReceivingRegion": "r"})
HEALTH: tuple[str, str, dict[str, str]] = ("AWS/Route53", "HealthCheckStatus", {"HealthCheckId": "h"})
LESS = "LessThanThreshold"
MORE = "GreaterThanThreshold"
WRONG: list[tuple[str, list[dict[str, Any]]]] = [
    ("never-fires", [metric(*SUCCESS, Statistic="Average", Threshold=0, ComparisonOperator=LESS)]),
    ("never-fires", [math("m1 > 3", Threshold=1, ComparisonOperator=MORE)]),
    ("never-fires", [sound(), {"AlarmName": "c", "AlarmRule": "FALSE", "AlarmActions": [TOPIC], **HELP}]),
    ("always-fires", [metric("AWS/ApplicationELB", "RequestCount", BALANCER, Threshold=0)]),
    ("always-fires", [{"AlarmName": "c", "AlarmRule": "TRUE", "AlarmActions": [TOPIC], **HELP}]),
    ("inverted-alarm", [metric(*SUCCESS, Statistic="Average", Threshold=90)]),
    ("silence-blames-others", [sound(TreatMissingData="breaching")]),
    ("unsupported-statistic", [metric(*REPLICATION, Statistic=None, ExtendedStatistic="p99")]),
    ("masking-statistic", [sound(Statistic=None, ExtendedStatistic="p99", ComparisonOperator=LESS)]),
    ("unit-mismatch", [metric("AWS/ApplicationELB", "TargetResponseTime", BALANCER, Statistic="Average", Unit="Milliseconds")]),
    ("unit-mismatch", [metric("AWS/ApplicationELB", "TargetResponseTime", BALANCER, Statistic="Average", Threshold=500)]),
    ("period-resolution", [metric("AWS/ApplicationELB", "RequestCount", BALANCER, Period=10)]),
    ("implicit-missing-data", [sound(TreatMissingData=None)]),
    ("dynamodb-missing-data", [metric("AWS/DynamoDB", "WriteThrottleEvents", {"TableName": "t"}, TreatMissingData="breaching")]),
    ("discouraged-function", [math("m1 - AVG(m1)")]),
    ("discouraged-function", [math("FILL(m1, 0)")]),
    ("unknown-dimensions", [metric("AWS/ApplicationELB", "HealthyHostCount", BALANCER)]),
    ("wrong-region", [metric(*HEALTH, ComparisonOperator=LESS, Threshold=1) | {"Region": "us-west-2"}]),
    ("burn-rate", [math("m1 / m2", AlarmName="slo-burn-1h", Threshold=7.2, ComparisonOperator=MORE)]),
    ("composite-order", [{"AlarmName": "c", "AlarmRule": "ALARM(a)", "AlarmActions": [TOPIC], **HELP}, sound()]),
    ("composite-order", [{"AlarmName": "c", "AlarmRule": "ALARM(gone)", "AlarmActions": [TOPIC], **HELP}]),
    ("no-runbook", [sound(AlarmDescription="Orders fail.")]),
    ("no-action", [sound(AlarmActions=None)]),
    ("action-region", [sound(AlarmActions=["arn:aws:sns:us-east-1:123456789012:page"]) | {"Region": "us-west-2"}]),
]


@pytest.mark.parametrize(("check", "items"), WRONG, ids=[f"{i}-{check}" for i, (check, _) in enumerate(WRONG)])
def test_each_check_finds_its_mistake(check: str, items: list[dict[str, Any]]) -> None:
    """A small definition with exactly that mistake in it."""
    assert check in found(*items)


def test_a_sound_alarm_has_no_findings() -> None:
    """The base of the wrong inputs is right."""
    assert found(sound()) == set()
    assert found(math("m1 / m2", Threshold=0.5), sound(AlarmName="b")) == set()


def test_every_check_is_tried_and_has_a_page() -> None:
    """A check without an input that trips it, or without a page, is not done."""
    tried = {check for check, _ in WRONG} | {"survivability"}
    assert set(CHECKS) == tried
    for name in CHECKS:
        page = (ROOT / "docs" / "alarms" / "checks" / f"{name}.md").read_text()
        assert page.startswith(f"# {name}\n")
        assert f"crosswatch disable {name}:" in page


def test_all_findings_say_what_and_how_to_mend() -> None:
    """File, key, sentence and mend."""
    for check, items in WRONG:
        for finding in lint(reading.from_items(items, "alarms.yaml")):
            assert isinstance(finding, Problem)
            assert finding.file == "alarms.yaml"
            assert finding.mend, check


# --- the mistakes of the AWS sample ---------------------------------------------------------------------------------------------------


def canary(name: str, threshold: float, operator: str, treatment: str) -> dict[str, Any]:
    """One of the sample's canary alarms."""
    params = {"Threshold": threshold, "ComparisonOperator": operator, "TreatMissingData": treatment, "AlarmActions": None}
    return metric("CloudWatchSynthetics", "SuccessPercent", {"CanaryName": name}, AlarmName=name, Statistic="Average", **params)


def test_sample_region_switch_trigger_alarm() -> None:
    """It asks for OK of an alarm that is in ALARM while the local Region is healthy, and silence of its own canaries accuses the other."""
    remote = [canary(f"rmt-{page}", 90, "LessThanThreshold", "breaching") for page in ("home", "cart", "catalog", "orders")]
    local = canary("LclHomeHealthyAlarm", 90, "GreaterThanOrEqualToThreshold", "notBreaching")
    rule = " AND ".join([*(f"ALARM(rmt-{page})" for page in ("home", "cart", "catalog", "orders")), "OK(LclHomeHealthyAlarm)"])
    trigger = {"AlarmName": "RegionSwitchTriggerAlarm", "AlarmRule": rule, "AlarmActions": [TOPIC], **HELP}
    findings = lint(reading.from_items([*remote, local, trigger]))
    inverted = [finding for finding in findings if finding.check == "inverted-alarm"]
    assert [finding.severity for finding in inverted] == ["error"]
    assert "asks for OK(LclHomeHealthyAlarm), which means that things are bad" in inverted[0].what
    blamed = [finding for finding in findings if finding.check == "silence-blames-others"]
    assert len(blamed) == 1
    assert "RegionSwitchTriggerAlarm" in blamed[0].what


def test_sample_canary_success_rate_alarm() -> None:
    """The average over twelve canaries stays at 91.7 % when one journey is down: below 90 never comes of one failure."""
    alarm = metric("CloudWatchSynthetics", "SuccessPercent", {}, Statistic="Average", Threshold=90, ComparisonOperator=LESS)
    findings = [finding for finding in lint(reading.from_items([alarm])) if finding.check == "masking-statistic"]
    assert len(findings) == 1
    assert "with 10 or more emitters" in findings[0].what


def test_sample_dynamodb_alarms() -> None:
    """SystemErrors comes with TableName and Operation, UserErrors with no dimensions at all."""
    alarms = [
        metric("AWS/DynamoDB", "SystemErrors", {"TableName": "carts"}, AlarmName="system"),
        metric("AWS/DynamoDB", "UserErrors", {"TableName": "carts"}, AlarmName="user"),
        metric("AWS/DynamoDB", "UserErrors", {}, AlarmName="account"),
    ]
    findings = [finding for finding in lint(reading.from_items(alarms)) if finding.check == "unknown-dimensions"]
    assert len(findings) == 3
    assert "{Operation, TableName}" in findings[0].what


def test_sample_aurora_replica_lag_alarm(topology: Topology) -> None:
    """The lag is a metric of the secondary: in the primary Region, on the primary's cluster, it watches nothing."""
    database = topology.databases["orders"]
    primary = next(iter(database.clusters))
    unnamed = metric("AWS/RDS", "AuroraGlobalDBReplicationLag", {"DBClusterIdentifier": database.clusters[primary]}, Statistic="Maximum")
    assert "unknown-dimensions" in found(unnamed | {"Region": primary}, topology=topology)
    other = next(region for region in database.clusters if region != primary)
    full = {"DBClusterIdentifier": database.clusters[other], "SourceRegion": primary}
    lag = metric("AWS/RDS", "AuroraGlobalDBReplicationLag", full, Statistic="Maximum", Threshold=60_000)
    assert "wrong-region" in found(lag | {"Region": primary}, topology=topology)
    assert "wrong-region" not in found(lag | {"Region": other}, topology=topology)


def test_sample_orders_created_alarm_is_fed_by_the_canaries(tmp_path: Path) -> None:
    """OrdersCreated <= 0 cannot show the loss of customers' orders while canaries go on ordering: a test says so."""
    below = {"Threshold": 0, "ComparisonOperator": "LessThanOrEqualToThreshold", "TreatMissingData": "breaching"}
    alarm = sound(MetricName="OrdersCreated", Statistic="Sum", **below)
    customers = {"metric": {"namespace": "Shop", "name": "OrdersCreated", "dimensions": {"D": "v"}}, "values": "20x9 0x30"}
    canaries = {"metric": customers["metric"], "values": "6x40"}
    case = {"input_series": [customers, canaries], "expect": [{"at": "15m", "alarm": "a", "state": "ALARM"}]}
    path = tmp_path / "orders.test.yaml"
    path.write_text(yaml.safe_dump({"definitions": [alarm], "tests": [case]}))
    report = testing.run([path])
    assert [failure.message for failure in report.results[0].failures] == ["at 15m the alarm a is OK, expected ALARM"]


# --- disabling ------------------------------------------------------------------------------------------------------------------------


def test_a_comment_with_a_reason_disables_a_check_for_one_alarm(tmp_path: Path) -> None:
    """Only for the item it stands in."""
    path = tmp_path / "alarms.yaml"
    quiet, loud = sound(AlarmActions=None), sound(AlarmName="b", AlarmActions=None)
    comment = "  # crosswatch disable no-action: shown on the dashboard only\n"
    path.write_text(yaml.safe_dump([quiet], sort_keys=False) + comment + yaml.safe_dump([loud]))
    findings = lint(reading.load_file(path))
    assert [(finding.check, finding.line is not None, "b" in finding.key) for finding in findings] == [("no-action", True, True)]


def test_a_key_with_a_reason_disables_a_check_in_json(tmp_path: Path) -> None:
    """JSON has no comments."""
    path = tmp_path / "alarms.json"
    path.write_text(json.dumps([sound(AlarmActions=None) | {"x-crosswatch-disable": {"no-action": "shown on the dashboard only"}}]))
    assert lint(reading.load_file(path)) == []


def test_disabling_needs_a_reason_and_a_check_that_exists(tmp_path: Path) -> None:
    """Otherwise it is itself a finding."""
    path = tmp_path / "alarms.yaml"
    path.write_text(yaml.safe_dump([sound()]) + "  # crosswatch disable no-action\n  # crosswatch disable no-acton: typo\n")
    assert {finding.check for finding in lint(reading.load_file(path))} == {"disabling"}


def test_a_template_is_ordered_by_depends_on(tmp_path: Path) -> None:
    """Without DependsOn CloudFormation may create the composite first, and CloudWatch refuses it."""
    child = {"Type": "AWS::CloudWatch::Alarm", "Properties": sound()}
    rule = {"AlarmName": "c", "AlarmRule": "ALARM(a)", "AlarmActions": [TOPIC], **HELP}
    path = tmp_path / "template.json"
    for depends, expected in (({"DependsOn": ["Child"]}, set()), ({}, {"composite-order"})):
        composite = {"Type": "AWS::CloudWatch::CompositeAlarm", "Properties": rule, **depends}
        path.write_text(json.dumps({"Resources": {"Child": child, "Composite": composite}}))
        assert {finding.check for finding in lint(reading.load_file(path))} == expected


# --- survivability --------------------------------------------------------------------------------------------------------------------


def test_alarms_that_all_live_in_one_region_do_not_survive_it(topology: Topology) -> None:
    """With only us-east-1's alarms nobody tells that us-east-1 is gone."""
    first = next(iter(topology.regions))
    items = [item for item in render(topology) if item["Region"] == first]
    scenarios = {finding.key for finding in lint(reading.from_items(items), topology) if finding.check == "survivability"}
    assert f"scenario region-gone:{first}" in scenarios


def test_the_rendered_alarms_survive_the_loss_of_a_region_or_a_vantage(topology: Topology) -> None:
    """Every Region and every vantage of the example."""
    findings = lint(reading.from_items(render(topology)), topology, notifier_texts(topology))
    lost = {finding.key for finding in findings if finding.check == "survivability"}
    assert not {key for key in lost if "region-gone" in key or "vantage-gone" in key}


def test_slo_alarms_have_no_findings_of_their_own(topology: Topology) -> None:
    """Rendered beside the others."""
    items = render(topology)
    findings = lint(reading.from_items(items), topology, notifier_texts(topology))
    assert findings == []


def test_definitions_aws_refuses_are_unusable() -> None:
    """Lint is for what CloudWatch accepts."""
    with pytest.raises(UnusableInput):
        found(sound(Period=45))
