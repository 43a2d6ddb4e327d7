"""DNS over real sockets: name servers, resolvers, their rules and their faults."""

from __future__ import annotations

import time

import boto3
import dns.edns
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import pytest

from lab import admin
from lab.aws.services.routing_control import OFF, ON
from lab.clock import LabClock
from lab.dns.store import ZONE_ID
from lab.plan import STORE_NAME
from lab.topology import health_check_id, routing_control_arn
from tests.lab.dns.conftest import LabWithDns

EAST, WEST = "127.0.10.1", "127.0.11.1"


def ask(
    port: int, name: str = STORE_NAME, kind: str = "A", tcp: bool = False, subnet: str | None = None, source: str | None = None
) -> dns.message.Message:
    query = dns.message.make_query(name, kind)
    if subnet:
        query.use_edns(0, options=[dns.edns.ECSOption(subnet, 24)])
    send = dns.query.tcp if tcp else dns.query.udp
    return send(query, "127.0.0.1", port=port, timeout=3, source=source)


def addresses(message: dns.message.Message) -> list[str]:
    return [item.address for rrset in message.answer for item in rrset if rrset.rdtype == dns.rdatatype.A]


def switch(lab: LabWithDns, region: str, state: str) -> None:
    arn = routing_control_arn(lab.plan.account, lab.plan.regions[region].index)
    lab.world.service("route53-recovery-cluster").controls.update("us-west-2", {arn: state}, (), time.time())


@pytest.mark.parametrize("tcp", [False, True])
def test_each_region_is_sent_to_its_own_load_balancer(lab: LabWithDns, tcp: bool) -> None:
    """Latency records follow the asking Region: by the resolver's address, or by the client subnet that the query carries."""
    answer = ask(lab.plan.dns_port, tcp=tcp, source=WEST)
    assert addresses(answer) == [WEST]
    assert answer.answer[0].ttl == 60
    assert answer.flags & dns.flags.AA
    assert addresses(ask(lab.plan.dns_port, tcp=tcp, source=EAST)) == [EAST]
    assert addresses(ask(lab.plan.dns_port, tcp=tcp, subnet="127.0.11.0")) == [WEST]
    assert addresses(ask(lab.plan.dns_port, tcp=tcp, subnet="127.0.10.0")) == [EAST]


def test_a_routing_control_that_is_off_takes_its_region_out_at_once(lab: LabWithDns) -> None:
    """The control's health check fails and the name servers answer the other Region; on again, back again."""
    switch(lab, "us-east-1", OFF)
    assert addresses(ask(lab.plan.dns_port, source=EAST)) == [WEST]
    switch(lab, "us-east-1", ON)
    assert addresses(ask(lab.plan.dns_port, source=EAST)) == [EAST]


def test_a_load_balancer_without_healthy_targets_is_not_answered(lab: LabWithDns) -> None:
    """EvaluateTargetHealth; and where no Region is healthy, the answer is as if all were."""
    route53 = lab.world.service("route53")
    route53.set_balancers({"alb.us-east-1.retail.test": False, "alb.us-west-2.retail.test": True})
    assert addresses(ask(lab.plan.dns_port, source=EAST)) == [WEST]
    route53.set_balancers({"alb.us-east-1.retail.test": False, "alb.us-west-2.retail.test": False})
    assert addresses(ask(lab.plan.dns_port, source=EAST)) == [EAST]
    assert addresses(ask(lab.plan.dns_port, "alb.us-east-1.retail.test")) == [EAST]


def test_what_does_not_exist(lab: LabWithDns) -> None:
    """NXDOMAIN and NODATA carry the SOA; names that are not ours are refused."""
    missing = ask(lab.plan.dns_port, "nobody.retail.test")
    assert missing.rcode() == dns.rcode.NXDOMAIN
    assert missing.authority[0].rdtype == dns.rdatatype.SOA
    no_data = ask(lab.plan.dns_port, STORE_NAME, "AAAA")
    assert no_data.rcode() == dns.rcode.NOERROR
    assert not no_data.answer
    assert no_data.authority[0].rdtype == dns.rdatatype.SOA
    assert ask(lab.plan.dns_port, "example.com").rcode() == dns.rcode.REFUSED


def test_a_private_zone_is_seen_from_its_vpcs_only(lab: LabWithDns) -> None:
    """The resolver of an associated VPC gets the private answer, everybody else the public one."""
    client = lab.world.client("route53", "us-east-1")
    zone = client.create_hosted_zone(Name="retail.test", CallerReference="p", VPC={"VPCRegion": "us-west-2", "VPCId": "vpc-2"})[
        "HostedZone"
    ]
    record = {"Name": "inside.retail.test", "Type": "A", "TTL": 5, "ResourceRecords": [{"Value": "10.1.1.1"}]}
    client.change_resource_record_sets(
        HostedZoneId=zone["Id"], ChangeBatch={"Changes": [{"Action": "CREATE", "ResourceRecordSet": record}]}
    )
    assert addresses(ask(lab.plan.regions["us-west-2"].resolver_port, "inside.retail.test")) == ["10.1.1.1"]
    assert ask(lab.plan.regions["us-east-1"].resolver_port, "inside.retail.test").rcode() == dns.rcode.NXDOMAIN
    assert ask(lab.plan.dns_port, "inside.retail.test").rcode() == dns.rcode.NXDOMAIN


@pytest.mark.parametrize("tcp", [False, True])
def test_a_resolver_gives_the_remaining_ttl_and_asks_again_after_it(lab: LabWithDns, tcp: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cached answers stay what they were until their 60 lab seconds are over, and count down."""
    region = lab.plan.regions["us-east-1"]
    resolver = lab.dns.resolvers["us-east-1"]
    now = [1000.0]
    monkeypatch.setattr(resolver, "_clock", type("Hand", (), {"now": staticmethod(lambda: now[0])}))
    assert addresses(ask(region.resolver_port, tcp=tcp)) == [EAST]
    switch(lab, "us-east-1", OFF)
    now[0] += 45
    held = ask(region.resolver_port, tcp=tcp)
    assert (addresses(held), held.answer[0].ttl) == ([EAST], 15)
    assert held.flags & dns.flags.RA
    assert not held.flags & dns.flags.AA
    now[0] += 15
    fresh = ask(region.resolver_port, tcp=tcp)
    assert (addresses(fresh), fresh.answer[0].ttl) == ([WEST], 60)


def test_ttl_is_lab_time() -> None:
    """A clock ten times as fast ends an answer ten times as early."""
    clock = LabClock(0.0, 3600.0, 10.0)
    assert clock.at(6.0) - clock.at(0.0) == 60.0


def test_resolver_faults_and_their_end(lab: LabWithDns) -> None:
    """Down is silent, SERVFAIL says so, slow is late, stuck never notices a change; whole again, all is as before."""
    plan, region = lab.plan, lab.plan.regions["us-west-2"]

    def fault(**body: object) -> None:
        admin.call(plan.dns_admin_port, "POST", "/resolvers/us-west-2", body)

    assert addresses(ask(region.resolver_port)) == [WEST]
    fault(down=True)
    with pytest.raises(dns.exception.Timeout):
        dns.query.udp(dns.message.make_query(STORE_NAME, "A"), "127.0.0.1", port=region.resolver_port, timeout=0.3)
    fault(servfail=True)
    assert ask(region.resolver_port).rcode() == dns.rcode.SERVFAIL
    fault(delay_s=0.3)
    began = time.monotonic()
    assert addresses(ask(region.resolver_port)) == [WEST]
    assert time.monotonic() - began >= 0.3
    fault(stuck=True)
    switch(lab, "us-west-2", OFF)
    lab.dns.resolvers["us-west-2"]._clock = LabClock(0.0, time.time() + 10_000, 1.0)  # far beyond any TTL
    stuck = ask(region.resolver_port)
    assert (addresses(stuck), stuck.answer[0].ttl) == ([WEST], 0)
    fault()
    assert addresses(ask(region.resolver_port)) == [EAST]


def test_a_resolver_that_ignores_the_ttl(lab: LabWithDns, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``least_ttl_s`` an answer is held longer than its TTL, and still ends."""
    region, resolver = lab.plan.regions["us-west-2"], lab.dns.resolvers["us-west-2"]
    now = [0.0]
    monkeypatch.setattr(resolver, "_clock", type("Hand", (), {"now": staticmethod(lambda: now[0])}))
    admin.call(lab.plan.dns_admin_port, "POST", "/resolvers/us-west-2", {"least_ttl_s": 600})
    ask(region.resolver_port)
    switch(lab, "us-west-2", OFF)
    now[0] = 599
    assert addresses(ask(region.resolver_port)) == [WEST]
    now[0] = 601
    assert addresses(ask(region.resolver_port)) == [EAST]


def test_name_servers_down_and_stuck(lab: LabWithDns) -> None:
    """While they are down a resolver lives on its cache and then fails; stuck ones answer what was true."""
    region = lab.plan.regions["us-east-1"]
    ask(region.resolver_port)
    admin.call(lab.plan.dns_admin_port, "POST", "/authority", {"down": True})
    assert addresses(ask(region.resolver_port)) == [EAST]
    assert ask(lab.plan.regions["us-west-2"].resolver_port).rcode() == dns.rcode.SERVFAIL
    assert addresses(ask(region.resolver_port, "alb.us-west-2.retail.test")) == [WEST]  # their zone is AWS's own
    switch(lab, "us-west-2", OFF)
    switch(lab, "us-west-2", ON)
    admin.call(lab.plan.dns_admin_port, "POST", "/authority", {"stuck": True})  # before anybody asked again
    switch(lab, "us-east-1", OFF)
    assert addresses(ask(lab.plan.dns_port, source=EAST)) == [EAST]
    admin.call(lab.plan.dns_admin_port, "POST", "/authority", {})
    assert addresses(ask(lab.plan.dns_port, source=EAST)) == [WEST]


def test_dns_goes_on_without_the_control_plane(lab: LabWithDns) -> None:
    """With us-east-1 down no record can be changed, and names are still answered and follow the routing controls."""
    lab.world.conditions.add({"kind": "down", "region": "us-east-1"})
    lab.gateway.apply_conditions()
    client = boto3.client(
        "route53",
        region_name="us-west-2",
        endpoint_url=lab.plan.regions["us-west-2"].aws_endpoint,
        aws_access_key_id=lab.plan.credentials["admin"].access_key,
        aws_secret_access_key=lab.plan.credentials["admin"].secret_key,
        config=boto3.session.Config(retries={"total_max_attempts": 1}),
    )
    with pytest.raises(client.exceptions.ClientError, match="ServiceUnavailable"):
        client.list_resource_record_sets(HostedZoneId=ZONE_ID)
    switch(lab, "us-east-1", OFF)
    assert addresses(ask(lab.plan.dns_port, source=EAST)) == [WEST]


def test_the_stores_records_through_the_api(lab: LabWithDns) -> None:
    """Zone, alias records and health checks are there for boto3, and setting them up again changes nothing."""
    from lab.dns import setup

    setup(lab.world, lab.plan)
    client = lab.world.client("route53", "us-east-1")
    records = client.list_resource_record_sets(HostedZoneId=ZONE_ID)["ResourceRecordSets"]
    store = [record for record in records if record["Name"] == f"{STORE_NAME}."]
    assert [(record["Region"], record["HealthCheckId"], record["AliasTarget"]["EvaluateTargetHealth"]) for record in store] == [
        ("us-east-1", health_check_id(0), True),
        ("us-west-2", health_check_id(1), True),
    ]
    check = client.get_health_check(HealthCheckId=health_check_id(0))["HealthCheck"]
    assert check["HealthCheckConfig"]["RoutingControlArn"] == routing_control_arn(lab.plan.account, 0)
    answer = client.test_dns_answer(HostedZoneId=ZONE_ID, RecordName=STORE_NAME, RecordType="A", EDNS0ClientSubnetIP="127.0.11.9")
    assert answer["RecordData"] == [WEST]


def test_large_answers_are_cut_over_udp_and_whole_over_tcp(lab: LabWithDns) -> None:
    """What does not fit into 512 bytes comes with TC and no records; the same question over TCP gets all."""
    client = lab.world.client("route53", "us-east-1")
    values = [{"Value": f'"{n:03d} {"x" * 60}"'} for n in range(20)]
    change = {"Action": "UPSERT", "ResourceRecordSet": {"Name": "long.retail.test", "Type": "TXT", "TTL": 5, "ResourceRecords": values}}
    client.change_resource_record_sets(HostedZoneId=ZONE_ID, ChangeBatch={"Changes": [change]})
    for port in (lab.plan.dns_port, lab.plan.regions["us-east-1"].resolver_port):
        cut = dns.query.udp(dns.message.make_query("long.retail.test", "TXT"), "127.0.0.1", port=port, timeout=3)
        assert cut.flags & dns.flags.TC
        assert not cut.answer
        assert len(ask(port, "long.retail.test", "TXT", tcp=True).answer[0]) == 20


def test_the_handle_is_the_labs_own(lab: LabWithDns) -> None:
    """A page in a browser on this machine cannot break DNS: neither by a form's types, nor by a name of its own."""
    for headers in ({"Content-Type": "text/plain"}, {"Host": "rebound.example.com"}):
        with pytest.raises(admin.Refusal) as refused:
            admin.call(lab.plan.dns_admin_port, "POST", "/authority", {"down": True}, headers=headers)
        assert refused.value.status == 403
    assert admin.call(lab.plan.dns_admin_port, "GET", "/status")["authority"]["down"] is False
