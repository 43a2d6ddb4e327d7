"""Route 53's and ARC's APIs through boto3 against the gateway."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from lab.aws import registry
from lab.aws.gateway import Gateway
from lab.aws.world import LocalWorld
from lab.plan import LabPlan

OURS = ("cloudwatch", "route53", "route53-recovery-cluster", "route53-recovery-control-config")


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    monkeypatch.setattr(registry, "SERVICES", {name: registry.SERVICES[name] for name in OURS})
    plan = LabPlan.make(tmp_path)
    running = Gateway(LocalWorld(plan))
    running.open()
    yield running
    running.close()


def client(gateway: Gateway, service: str, region: str = "us-east-1", url: str | None = None) -> Any:
    admin = gateway.plan.credentials["admin"]
    endpoint = url or gateway.plan.regions[region if region in gateway.plan.regions else "us-east-1"].aws_endpoint
    return boto3.client(
        service,
        region_name=region,
        endpoint_url=endpoint,
        aws_access_key_id=admin.access_key,
        aws_secret_access_key=admin.secret_key,
        config=Config(retries={"total_max_attempts": 1}),
    )


def change(name: str, action: str = "CREATE", **more: Any) -> dict[str, Any]:
    record = {"Name": name, "Type": "A", "TTL": 5, "ResourceRecords": [{"Value": "10.0.0.1"}]} | more
    return {"Action": action, "ResourceRecordSet": {key: value for key, value in record.items() if value is not None}}


class Zone:
    """A zone to change."""

    def __init__(self, gateway: Gateway) -> None:
        self.route53 = client(gateway, "route53")
        made = self.route53.create_hosted_zone(Name="example.test", CallerReference="1")
        self.id = made["HostedZone"]["Id"]

    def apply(self, *changes: dict[str, Any]) -> None:
        self.route53.change_resource_record_sets(HostedZoneId=self.id, ChangeBatch={"Changes": list(changes)})

    def names(self) -> list[str]:
        records = self.route53.list_resource_record_sets(HostedZoneId=self.id)["ResourceRecordSets"]
        return [f"{record['Name']} {record['Type']} {record.get('SetIdentifier', '')}".strip() for record in records]


def test_zones_come_and_go(gateway: Gateway) -> None:
    """A zone has SOA and NS; it can be deleted only when it holds no more than those."""
    zone = Zone(gateway)
    assert zone.names() == ["example.test. NS", "example.test. SOA"]
    zone.apply(
        change("www.example.test"),
        change("api.example.test", SetIdentifier="b", Weight=1),
        change("api.example.test", SetIdentifier="a", Weight=2),
    )
    assert zone.names()[2:] == ["api.example.test. A a", "api.example.test. A b", "www.example.test. A"]
    with pytest.raises(zone.route53.exceptions.HostedZoneNotEmpty):
        zone.route53.delete_hosted_zone(Id=zone.id)
    zone.apply(change("www.example.test", "DELETE"))
    zone.apply(*(change("api.example.test", "DELETE", SetIdentifier=name, Weight=weight) for name, weight in (("a", 2), ("b", 1))))
    zone.route53.delete_hosted_zone(Id=zone.id)
    with pytest.raises(zone.route53.exceptions.NoSuchHostedZone):
        zone.names()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ([change("www.other.test")], "not permitted in zone example.test."),
        ([change("a.example.test"), change("a.example.test")], "it already exists"),
        ([change("a.example.test", "DELETE")], "it was not found"),
        ([change("a.example.test", Weight=1)], "Missing field 'SetIdentifier'"),
        ([change("a.example.test", TTL=None)], "Expected exactly one of"),
        ([change("a.example.test", ResourceRecords=[{"Value": "300.1.1.1"}])], "Illegal"),
        ([change("a.example.test", SetIdentifier="x", Failover="PRIMARY", HealthCheckId="nope")], "health check was not found"),
        ([change("a.example.test"), change("a.example.test", SetIdentifier="x", Weight=1)], "other RRSets exist with the same name"),
        ([change("a.example.test", SetIdentifier=one, Region="us-east-1") for one in "xy"], "same Region"),
        ([change("a.example.test"), change("a.example.test", Type="CNAME", ResourceRecords=[{"Value": "b.test"}])], "RRSet of type CNAME"),
        ([change("a.example.test", GeoLocation={"CountryCode": "US"}, SetIdentifier="g")], "GeoLocation is not supported"),
    ],
)
def test_a_wrong_change_changes_nothing(gateway: Gateway, changes: list[dict[str, Any]], problem: str) -> None:
    """The batch is refused whole, with the reason."""
    zone = Zone(gateway)
    with pytest.raises(zone.route53.exceptions.InvalidChangeBatch, match=problem):
        zone.apply(change("good.example.test"), *changes)
    assert len(zone.names()) == 2


def test_records_in_pages(gateway: Gateway) -> None:
    """boto3's paginator gets every record once, in order."""
    zone = Zone(gateway)
    zone.apply(*(change(f"n{index:02d}.example.test") for index in range(25)))
    pages = zone.route53.get_paginator("list_resource_record_sets").paginate(HostedZoneId=zone.id, PaginationConfig={"PageSize": 7})
    names = [record["Name"] for each in pages for record in each["ResourceRecordSets"]]
    assert names[2:] == [f"n{index:02d}.example.test." for index in range(25)]


def test_health_check_settings(gateway: Gateway) -> None:
    """Defaults are filled in, wrong settings are named together, updates raise the version, in use is not deleted."""
    route53 = client(gateway, "route53")
    made = route53.create_health_check(CallerReference="a", HealthCheckConfig={"Type": "HTTPS", "FullyQualifiedDomainName": "x.test"})[
        "HealthCheck"
    ]
    config = made["HealthCheckConfig"]
    assert (config["Port"], config["RequestInterval"], config["FailureThreshold"], config["EnableSNI"]) == (443, 30, 3, True)
    again = route53.create_health_check(CallerReference="a", HealthCheckConfig={"Type": "HTTPS", "FullyQualifiedDomainName": "x.test"})
    assert again["HealthCheck"]["Id"] == made["Id"]
    with pytest.raises(route53.exceptions.InvalidInput, match=r"IPAddress or FullyQualifiedDomainName.*SearchString.*"):
        route53.create_health_check(CallerReference="b", HealthCheckConfig={"Type": "HTTP_STR_MATCH"})
    parent = {"Type": "CALCULATED", "ChildHealthChecks": [made["Id"]], "HealthThreshold": 1}
    route53.create_health_check(CallerReference="c", HealthCheckConfig=parent)
    with pytest.raises(route53.exceptions.HealthCheckInUse):
        route53.delete_health_check(HealthCheckId=made["Id"])
    updated = route53.update_health_check(HealthCheckId=made["Id"], HealthCheckVersion=1, ResourcePath="/home")["HealthCheck"]
    assert (updated["HealthCheckVersion"], updated["HealthCheckConfig"]["ResourcePath"]) == (2, "/home")
    with pytest.raises(route53.exceptions.HealthCheckVersionMismatch):
        route53.update_health_check(HealthCheckId=made["Id"], HealthCheckVersion=1, ResourcePath="/cart")
    with pytest.raises(route53.exceptions.NoSuchHealthCheck):
        route53.get_health_check(HealthCheckId="00000000-0000-0000-0000-000000000000")


def test_health_checks_publish_in_us_east_1_only(gateway: Gateway) -> None:
    """HealthCheckStatus by HealthCheckId, in Virginia, and nothing of a disabled check."""
    route53 = client(gateway, "route53")
    routing = {"Type": "RECOVERY_CONTROL", "RoutingControlArn": "arn:aws:route53-recovery-control::1:x"}
    shown = route53.create_health_check(CallerReference="a", HealthCheckConfig=routing)["HealthCheck"]["Id"]
    route53.create_health_check(CallerReference="b", HealthCheckConfig={**routing, "Disabled": True})
    gateway.world.service("route53").publish(gateway.world.clock.now())
    east = client(gateway, "cloudwatch").list_metrics(Namespace="AWS/Route53")["Metrics"]
    assert [(metric["MetricName"], metric["Dimensions"]) for metric in east] == [
        ("HealthCheckStatus", [{"Name": "HealthCheckId", "Value": shown}])
    ]
    assert client(gateway, "cloudwatch", "us-west-2").list_metrics(Namespace="AWS/Route53")["Metrics"] == []


def test_a_lab_without_us_east_1_publishes_no_health_check_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no CloudWatch they could go to; that is no error."""
    monkeypatch.setattr(registry, "SERVICES", {name: registry.SERVICES[name] for name in OURS})
    world = LocalWorld(LabPlan.make(tmp_path, regions=("eu-west-1", "us-west-2")))
    service = world.service("route53")
    try:
        routing = {"Type": "RECOVERY_CONTROL", "RoutingControlArn": "arn:aws:route53-recovery-control::1:x"}
        world.call("us-west-2", "route53", "create_health_check", CallerReference="a", HealthCheckConfig=routing)
        service.publish(world.clock.now())
        listed = [world.call(region, "cloudwatch", "list_metrics", Namespace="AWS/Route53")["Metrics"] for region in world.regions]
        assert listed == [[], []]
    finally:
        world.stop()


def test_a_metric_check_takes_its_alarm_over(gateway: Gateway) -> None:
    """The alarm's metric and threshold as they were; an alarm that health checks cannot follow is refused."""
    alarm = {
        "Namespace": "N", "MetricName": "M", "Statistic": "Average", "Period": 60, "EvaluationPeriods": 2, "Threshold": 5.0,
        "ComparisonOperator": "GreaterThanThreshold",
    }  # fmt: skip
    cloudwatch = client(gateway, "cloudwatch", "us-west-2")
    cloudwatch.put_metric_alarm(AlarmName="busy", **alarm)
    cloudwatch.put_metric_alarm(AlarmName="fast", **{**alarm, "Period": 10})
    route53 = client(gateway, "route53")
    config = {"Type": "CLOUDWATCH_METRIC", "AlarmIdentifier": {"Region": "us-west-2", "Name": "busy"}}
    made = route53.create_health_check(CallerReference="a", HealthCheckConfig=config)["HealthCheck"]
    assert made["CloudWatchAlarmConfiguration"]["Threshold"] == 5.0
    assert made["HealthCheckConfig"]["InsufficientDataHealthStatus"] == "LastKnownStatus"
    config = {"Type": "CLOUDWATCH_METRIC", "AlarmIdentifier": {"Region": "us-west-2", "Name": "fast"}}
    with pytest.raises(route53.exceptions.InvalidInput, match="period below 60 seconds"):
        route53.create_health_check(CallerReference="b", HealthCheckConfig=config)


class Cluster:
    """An ARC cluster with two controls."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        config = self.config = client(gateway, "route53-recovery-control-config", "us-west-2")
        urls = {name: f"http://127.0.0.1:{port}" for name, port in gateway.plan.arc_ports.items()}
        gateway.world.service("route53-recovery-control-config").endpoints = urls
        self.cluster = config.create_cluster(ClusterName="retail")["Cluster"]
        arn = self.cluster["ClusterArn"]
        self.panel = config.create_control_panel(ClusterArn=arn, ControlPanelName="regions")["ControlPanel"]["ControlPanelArn"]
        self.east, self.west = (
            config.create_routing_control(ClusterArn=arn, ControlPanelArn=self.panel, RoutingControlName=name)["RoutingControl"][
                "RoutingControlArn"
            ]
            for name in ("east", "west")
        )

    def data(self, region: str = "eu-west-1") -> Any:
        return client(self.gateway, "route53-recovery-cluster", region, f"http://127.0.0.1:{self.gateway.plan.arc_ports[region]}")

    def guard(self, wait_ms: int = 0) -> str:
        rule = {
            "Name": "one-on", "ControlPanelArn": self.panel, "AssertedControls": [self.east, self.west], "WaitPeriodMs": wait_ms,
            "RuleConfig": {"Type": "ATLEAST", "Threshold": 1, "Inverted": False},
        }  # fmt: skip
        return str(self.config.create_safety_rule(AssertionRule=rule)["AssertionRule"]["SafetyRuleArn"])

    def set(self, region: str = "eu-west-1", override: tuple[str, ...] = (), **states: str) -> None:
        entries = [{"RoutingControlArn": getattr(self, name), "RoutingControlState": state} for name, state in states.items()]
        self.data(region).update_routing_control_states(UpdateRoutingControlStateEntries=entries, SafetyRulesToOverride=list(override))

    def state(self, name: str, region: str = "eu-west-1") -> str:
        return str(self.data(region).get_routing_control_state(RoutingControlArn=getattr(self, name))["RoutingControlState"])


def test_routing_controls_through_all_five_endpoints(gateway: Gateway) -> None:
    """New controls are off; what one endpoint sets all others say."""
    cluster = Cluster(gateway)
    assert {each["Region"] for each in cluster.cluster["ClusterEndpoints"]} == set(gateway.plan.arc_ports)
    assert cluster.state("east") == "Off"
    cluster.set("us-east-1", east="On")
    assert {cluster.state("east", region) for region in gateway.plan.arc_ports} == {"On"}
    listed = cluster.data().list_routing_controls(ControlPanelArn=cluster.panel)["RoutingControls"]
    assert [(each["RoutingControlName"], each["RoutingControlState"]) for each in listed] == [("east", "On"), ("west", "Off")]


def test_an_assertion_rule_keeps_one_control_on(gateway: Gateway) -> None:
    """A change that would leave none on is refused whole and changes nothing, unless the rule is overridden."""
    cluster = Cluster(gateway)
    cluster.set(east="On", west="On")
    rule = cluster.guard()
    cluster.set(east="Off")
    with pytest.raises(cluster.data().exceptions.ConflictException, match="one-on"):
        cluster.set(west="Off")
    assert cluster.state("west") == "On"
    cluster.set(override=(rule,), west="Off")
    assert cluster.state("west") == "Off"


def test_a_waiting_period_refuses_flapping(gateway: Gateway) -> None:
    """Within WaitPeriodMs of a change the guarded controls cannot change again."""
    cluster = Cluster(gateway)
    cluster.set(east="On", west="On")
    gateway.world.service("route53-recovery-cluster").controls._changed_at.clear()
    cluster.guard(wait_ms=60_000)
    cluster.set(east="Off")
    with pytest.raises(cluster.data().exceptions.ConflictException):
        cluster.set(east="On")


def test_a_gating_rule_locks_its_targets(gateway: Gateway) -> None:
    """Targets change only while the gate is on."""
    cluster = Cluster(gateway)
    rule = {
        "Name": "gate", "ControlPanelArn": cluster.panel, "GatingControls": [cluster.west], "TargetControls": [cluster.east],
        "WaitPeriodMs": 0,
        "RuleConfig": {"Type": "OR", "Threshold": 0, "Inverted": False},
    }  # fmt: skip
    cluster.config.create_safety_rule(GatingRule=rule)
    with pytest.raises(cluster.data().exceptions.ConflictException):
        cluster.set(east="On")
    cluster.set(west="On")
    cluster.set(east="On")
    assert cluster.state("east") == "On"


def test_endpoints_down_cut_off_and_unreadable(gateway: Gateway) -> None:
    """A majority updates; one that is cut off reads what it knew; one whose Region is down refuses the connection."""
    cluster = Cluster(gateway)
    controls = gateway.world.service("route53-recovery-cluster").controls
    controls.set_endpoint("us-east-1", isolated=True)
    controls.set_endpoint("us-west-2", down=True)
    cluster.set(east="On")
    assert cluster.state("east", "us-east-1") == "Off"
    with pytest.raises(cluster.data().exceptions.EndpointTemporarilyUnavailableException):
        cluster.set("us-east-1", east="Off")
    with pytest.raises(cluster.data().exceptions.EndpointTemporarilyUnavailableException):
        cluster.state("east", "us-west-2")
    controls.set_endpoint("ap-southeast-2", down=True)
    with pytest.raises(cluster.data().exceptions.EndpointTemporarilyUnavailableException):
        cluster.set(east="Off")
    assert cluster.state("east") == "On"
    for region in gateway.plan.arc_ports:
        controls.set_endpoint(region)
    assert cluster.state("east", "us-east-1") == "On"
    controls.set_endpoint("eu-west-1", unreadable=True)
    with pytest.raises(cluster.data().exceptions.InternalServerException):
        cluster.state("east")


def test_the_control_plane_is_in_us_west_2_only(gateway: Gateway) -> None:
    """Another Region's endpoint passes the call on; with us-west-2 down it is refused, and the data plane goes on."""
    cluster = Cluster(gateway)
    assert client(gateway, "route53-recovery-control-config", "us-east-1").list_clusters()["Clusters"][0]["Name"] == "retail"
    gateway.world.conditions.add({"kind": "down", "region": "us-west-2"})
    gateway.apply_conditions()
    with pytest.raises(cluster.config.exceptions.ClientError, match="ServiceUnavailable"):
        client(gateway, "route53-recovery-control-config", "us-east-1").list_clusters()
    cluster.set("ap-northeast-1", east="On")
    assert cluster.state("east") == "On"


def test_what_does_not_exist_and_who_may_not(gateway: Gateway) -> None:
    """Unknown ARNs and wrong signatures are refused as AWS does."""
    cluster = Cluster(gateway)
    with pytest.raises(cluster.data().exceptions.ResourceNotFoundException):
        cluster.data().get_routing_control_state(RoutingControlArn=cluster.east[:-1] + "x")
    stranger = boto3.client(
        "route53-recovery-cluster",
        region_name="eu-west-1",
        endpoint_url=f"http://127.0.0.1:{gateway.plan.arc_ports['eu-west-1']}",
        aws_access_key_id=gateway.plan.credentials["admin"].access_key,
        aws_secret_access_key="wrong",
    )
    with pytest.raises(stranger.exceptions.ClientError, match="InvalidSignatureException"):
        stranger.get_routing_control_state(RoutingControlArn=cluster.east)
