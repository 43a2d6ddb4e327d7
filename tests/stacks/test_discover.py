"""A topology from what an account's tags say."""

from __future__ import annotations

from typing import Any

import yaml

from stacks.discover import document

EAST, WEST = "us-east-1", "us-west-2"


def caches(nodes: dict[str, list[str]]) -> dict[str, Any]:
    """The caches that are written for these CacheClusterIds by Region."""
    arns = {
        region: {"elasticache:cluster": [f"arn:aws:elasticache:{region}:123456789012:cluster:{node}" for node in names]}
        for region, names in nodes.items()
    }
    found = yaml.safe_load(document("App=retail", "retail", "123456789012", arns, lambda *_: None))
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
