"""Write a topology from what an account's tags say: the resources of one workload in the Regions that are named.

Only what the APIs tell is written. What they cannot tell (the pages to ask for, who is paged) is written as an example with a comment.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import yaml
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console

from topology import Problem, UnusableInput, loads

TYPES = (
    "elasticloadbalancing:loadbalancer",
    "elasticloadbalancing:targetgroup",
    "ecs:service",
    "rds:cluster",
    "dynamodb:table",
    "elasticache:cluster",
    "mq:broker",
)
HEAD = "# Found by the tag {tag}. Lines marked CHECK could not be read from the account: correct them, then run `lint`.\n"


def command(tag: str, regions: list[str], out: Path, console: Console) -> int:
    """The command line's `discover`."""
    key, equals, value = tag.partition("=")
    problems = []
    if not equals or not key:
        problems.append(Problem(f"{tag!r} is not a tag", "write it as Key=Value", key="--tag"))
    if len(set(regions)) < 2:
        problems.append(Problem("a workload in one Region cannot fail over", "name two or more with --region", key="--region"))
    if out.exists():
        problems.append(Problem("the file exists and would be overwritten", "give another name with --out, or remove it", str(out)))
    if problems:
        raise UnusableInput(problems)
    try:
        found = {region: dict(_resources(key, value, region)) for region in regions}
        account = boto3.client("sts").get_caller_identity()["Account"]
        text = document(tag, value, account, found, boto3.client)
    except (ClientError, BotoCoreError) as error:
        raise UnusableInput([Problem(f"the account could not be read: {error}", "check credentials and the Regions' names")]) from error
    out.write_text(text, encoding="utf-8")
    console.print(f"{out}: {sum(len(arns) for kinds in found.values() for arns in kinds.values())} resources in {', '.join(regions)}")
    try:
        loads(text, str(out))
    except UnusableInput as error:
        for problem in error.problems:
            console.print(str(problem), markup=False, highlight=False)
        return 1
    return 0


def _resources(key: str, value: str, region: str) -> Iterator[tuple[str, list[str]]]:
    """Kind -> ARNs that carry the tag in ``region``."""
    client = boto3.client("resourcegroupstaggingapi", region_name=region)
    for kind in TYPES:
        pages = client.get_paginator("get_resources").paginate(TagFilters=[{"Key": key, "Values": [value]}], ResourceTypeFilters=[kind])
        arns = [item["ResourceARN"] for page in pages for item in page["ResourceTagMappingList"]]
        if arns:
            yield kind, sorted(arns)


def document(tag: str, workload: str, account: str, found: dict[str, dict[str, list[str]]], client: Callable[..., Any]) -> str:
    """The topology as YAML text from the ARNs of each Region."""
    regions = {name: _region(name, arns, client) for name, arns in found.items()}
    services = sorted({arn.rsplit("/", 1)[-1] for arns in found.values() for arn in arns.get("ecs:service", ())})
    value: dict[str, Any] = {
        "workload": _name(workload),
        "account": account,
        "store": {"name": "store.example.com  # CHECK"},
        "pages": [{"name": "home", "path": "/home"}],
        "regions": regions,
        "services": {_name(service): {"ecs_service": service} for service in services},
        "databases": _databases(found),
        "tables": {_name(table): {"table": table} for table in _common(found, "dynamodb:table")},
        "caches": _caches(found),
        "brokers": _by_region(found, "mq:broker", "brokers"),
        "runbooks": {
            "drain": {"document": f"{workload}-DrainRegion", "parameters": {"Region": "{region}"}},
            "enable": {"document": f"{workload}-EnableRegion", "parameters": {"Region": "{region}"}},
        },
    }
    text = yaml.safe_dump({key: part for key, part in value.items() if part}, sort_keys=False, width=140)
    return HEAD.format(tag=tag) + text.replace("'store.example.com  # CHECK'", "store.example.com  # CHECK: the Route 53 name")


def _region(name: str, arns: dict[str, list[str]], client: Callable[..., Any]) -> dict[str, Any]:
    balancers = [arn for arn in arns.get("elasticloadbalancing:loadbalancer", ()) if "/app/" in arn]
    groups = arns.get("elasticloadbalancing:targetgroup", ())
    region: dict[str, Any] = {}
    if balancers:
        described = client("elbv2", region_name=name).describe_load_balancers(LoadBalancerArns=balancers[:1])["LoadBalancers"][0]
        region["alb"] = {
            "url": f"https://{described['DNSName']}",
            "arn_suffix": balancers[0].split("loadbalancer/", 1)[1],
            "target_group": groups[0].rsplit(":", 1)[1] if groups else "",
        }
    services = arns.get("ecs:service", ())
    region["ecs_cluster"] = services[0].split("/")[-2] if services else ""
    return region


def _databases(found: dict[str, dict[str, list[str]]]) -> dict[str, Any]:
    """Clusters whose names differ only by the Region are taken as one global database."""
    return {
        name: {"global_cluster": f"{name}  # CHECK", "clusters": clusters["clusters"]}
        for name, clusters in _by_region(found, "rds:cluster", "clusters").items()
    }


def _by_region(found: dict[str, dict[str, list[str]]], kind: str, field: str) -> dict[str, Any]:
    """Name without the Region -> {field: {Region: name}}."""
    groups: dict[str, dict[str, str]] = {}
    for region, arns in found.items():
        for arn in arns.get(kind, ()):
            name = arn.rsplit(":", 2)[1] if kind == "mq:broker" else arn.rsplit(":", 1)[1]
            groups.setdefault(_name(name.replace(region, "").strip("-")), {})[region] = name
    return {name: {field: members} for name, members in groups.items() if len(members) == len(found)}


def _caches(found: dict[str, dict[str, list[str]]]) -> dict[str, Any]:
    """Name without the Region and the node's number -> {"clusters": {Region: the node, or the list of a replication group's nodes}}."""
    groups: dict[str, dict[str, list[str]]] = {}
    for region, arns in found.items():
        for arn in arns.get("elasticache:cluster", ()):
            node = arn.rsplit(":", 1)[1]
            name = _name(re.sub(r"-\d{3}$", "", node).replace(region, "").strip("-"))
            groups.setdefault(name, {}).setdefault(region, []).append(node)
    return {
        name: {"clusters": {region: nodes[0] if len(nodes) == 1 else nodes for region, nodes in members.items()}}
        for name, members in groups.items()
        if len(members) == len(found)
    }


def _common(found: dict[str, dict[str, list[str]]], kind: str) -> list[str]:
    """Names that stand in every Region."""
    names = [{arn.rsplit("/", 1)[-1] for arn in arns.get(kind, ())} for arns in found.values()]
    return sorted(set.intersection(*names)) if names else []


def _name(text: str) -> str:
    """A name of the topology's form."""
    cleaned = "".join(character if character.isalnum() else "-" for character in text.lower()).strip("-")
    return (cleaned or "workload")[:31]
