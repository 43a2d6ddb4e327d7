"""A topology from what an account's tags say."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from stacks import discover
from stacks.discover import draft
from topology import UnusableInput, loads

EAST, WEST = "us-east-1", "us-west-2"
ACCOUNT = "123456789012"


@dataclass
class Account:
    """What the describing calls answer: ``listeners`` of every load balancer, the global databases."""

    listeners: list[dict[str, Any]] = field(default_factory=lambda: [{"Protocol": "HTTPS", "Port": 443}])
    databases: list[dict[str, Any]] = field(default_factory=list)

    def client(self, service: str, region_name: str) -> Any:
        """A client of it."""
        assert service in ("elbv2", "rds")
        self.region = region_name
        return self

    def describe_load_balancers(self, LoadBalancerArns: list[str]) -> dict[str, Any]:  # noqa: N803 - boto3's names
        return {"LoadBalancers": [{"DNSName": f"internal-retail-1.{arn.split(':')[3]}.elb.amazonaws.com"} for arn in LoadBalancerArns]}

    def describe_listeners(self, LoadBalancerArn: str) -> dict[str, Any]:  # noqa: N803
        return {"Listeners": self.listeners}

    def describe_target_groups(self, LoadBalancerArn: str) -> dict[str, Any]:  # noqa: N803
        return {"TargetGroups": [{"TargetGroupArn": group(LoadBalancerArn.split(":")[3])}]}

    def get_paginator(self, operation: str) -> Any:
        assert operation == "describe_global_clusters"
        return self

    def paginate(self) -> list[dict[str, Any]]:
        return [{"GlobalClusters": self.databases}]


def arn(service: str, region: str, name: str) -> str:
    """An ARN of the account."""
    return f"arn:aws:{service}:{region}:{ACCOUNT}:{name}"


def group(region: str) -> str:
    """The target group behind the load balancer."""
    return arn("elasticloadbalancing", region, "targetgroup/ui/943f017f100becff")


def cluster(name: str, region: str) -> str:
    """An Aurora cluster."""
    return arn("rds", region, f"cluster:{name}-{region}")


def workload(region: str) -> dict[str, list[str]]:
    """A complete Region."""
    return {
        discover.BALANCER: [arn("elasticloadbalancing", region, "loadbalancer/app/retail/50dc6c495c0c9188")],
        discover.GROUP: [group(region)],
        discover.SERVICE: [arn("ecs", region, f"service/retail/{name}") for name in ("ui", "orders")],
        discover.CLUSTER: [cluster("retail-orders", region)],
        discover.TABLE: [arn("dynamodb", region, "table/retail-carts")],
        discover.BROKER: [arn("mq", region, f"broker:retail-orders-{region}:b-1234")],
    }


GLOBAL = {
    "GlobalClusterIdentifier": "shop-orders",
    "Engine": "aurora-postgresql",
    "GlobalClusterMembers": [{"DBClusterArn": cluster("retail-orders", region)} for region in (EAST, WEST)],
}


def comments(text: str) -> dict[str, str]:
    """The lines that are marked, without their comments -> what is to be checked."""
    return {line.split("  # CHECK: ")[0].strip(): line.split("  # CHECK: ")[1] for line in text.splitlines() if "  # CHECK: " in line}


def test_a_complete_workload_is_a_topology_with_its_guesses_marked() -> None:
    """What the account tells is there without a mark; every guess has its comment; nothing of a comment gets into a value."""
    found = {region: workload(region) for region in (EAST, WEST)}
    made = draft("retail", ACCOUNT, found, Account(databases=[GLOBAL]).client)
    text = made.text("App=retail")
    topology = loads(text)
    assert topology.store.name == "store.example.com"
    assert topology.databases["shop-orders"].global_cluster == "shop-orders"
    assert topology.databases["shop-orders"].engine == "aurora-postgresql"
    assert topology.databases["shop-orders"].clusters == {EAST: f"retail-orders-{EAST}", WEST: f"retail-orders-{WEST}"}
    assert topology.regions[WEST].alb.target_group == "targetgroup/ui/943f017f100becff"
    assert made.left == {}
    marked = comments(text)
    assert {"name: store.example.com", "path: /home", "document: retail-DrainRegion", "document: retail-EnableRegion"} <= set(marked)
    assert {line for line in marked if line.startswith("url: ")} == {
        f"url: https://internal-retail-1.{region}.elb.amazonaws.com" for region in (EAST, WEST)
    }
    assert not any("global_cluster" in line for line in marked)


def test_a_load_balancer_without_tls_is_known_by_its_own_name() -> None:
    """Then its name is right, its port is told, and there is nothing to check."""
    found = {region: workload(region) for region in (EAST, WEST)}
    text = draft("retail", ACCOUNT, found, Account(listeners=[{"Protocol": "HTTP", "Port": 8080}], databases=[GLOBAL]).client).text("a=b")
    assert loads(text).regions[EAST].alb.url == f"http://internal-retail-1.{EAST}.elb.amazonaws.com:8080"
    assert not any(line.startswith("url: ") for line in comments(text))


def test_clusters_of_no_global_database_are_paired_by_name_and_marked() -> None:
    """The name of the global database is then a guess, and says so."""
    found = {region: workload(region) for region in (EAST, WEST)}
    text = draft("retail", ACCOUNT, found, Account().client).text("a=b")
    assert loads(text).databases["retail-orders"].global_cluster == "retail-orders"
    assert "paired by name" in comments(text)["global_cluster: retail-orders"]


def test_what_finds_no_place_is_listed_with_the_reason() -> None:
    """A second load balancer, a table of one Region, a cluster without a partner: none is dropped in silence."""
    found = {region: workload(region) for region in (EAST, WEST)}
    second = arn("elasticloadbalancing", EAST, "loadbalancer/app/other/1b4ff5a6d2c7e890")
    alone, table = cluster("reports", EAST), arn("dynamodb", WEST, "table/sessions")
    found[EAST][discover.BALANCER].append(second)
    found[EAST][discover.CLUSTER].append(alone)
    found[WEST][discover.TABLE].append(table)
    made = draft("retail", ACCOUNT, found, Account(databases=[GLOBAL]).client)
    assert set(made.left) == {second, alone, table}
    text = made.text("a=b")
    loads(text)
    for left in made.left:
        assert f"#   {left}: " in text


def test_a_file_that_exists_is_kept_and_another_name_proposed(tmp_path: Path) -> None:
    """The message names the option."""
    out = tmp_path / "topology.yaml"
    out.write_text("mine")
    with pytest.raises(UnusableInput) as caught:
        discover.command("App=retail", [EAST, WEST], out, Console())
    [problem] = caught.value.problems
    assert problem.key == "--out"
    assert "--out retail.topology.yaml" in problem.mend
    assert out.read_text() == "mine"


def caches(nodes: dict[str, list[str]]) -> dict[str, Any]:
    """The caches that are written for these CacheClusterIds by Region."""
    arns = {region: {discover.NODE: [arn("elasticache", region, f"cluster:{node}") for node in names]} for region, names in nodes.items()}
    found = yaml.safe_load(draft("retail", ACCOUNT, arns, Account().client).text("App=retail"))
    return dict(found.get("caches", {}))


def test_a_single_node_stands_by_its_name() -> None:
    """The cache is called what its nodes are called without the Region."""
    assert caches({EAST: [f"checkout-{EAST}"], WEST: [f"checkout-{WEST}"]}) == {
        "checkout": {"clusters": {EAST: f"checkout-{EAST}", WEST: f"checkout-{WEST}"}}
    }


def test_the_nodes_of_a_replication_group_stand_together() -> None:
    """AWS numbers them; a group may have more nodes in one Region than in another."""
    east, west = [f"checkout-{EAST}-001", f"checkout-{EAST}-002"], [f"checkout-{WEST}-001"]
    assert caches({EAST: east, WEST: west}) == {"checkout": {"clusters": {EAST: east, WEST: west[0]}}}


def test_a_cache_that_is_not_in_every_region_is_left_out() -> None:
    """The topology needs an entry for each."""
    assert caches({EAST: ["sessions-001"], WEST: []}) == {}
