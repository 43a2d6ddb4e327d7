"""Write a topology from what an account's tags say: the resources of one workload in the Regions that are named.

What the APIs tell is written as it is. What they cannot tell (the pages to ask for, the runbooks, a name that the certificate is for) is a
guess, and its line ends with a comment that begins with CHECK. What carries the tag and finds no place is listed at the end, and why.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import yaml
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console

from topology import Problem, UnusableInput, loads
from topology.document import KeyPath, parse

BALANCER, GROUP, SERVICE = "elasticloadbalancing:loadbalancer", "elasticloadbalancing:targetgroup", "ecs:service"
CLUSTER, TABLE, NODE, BROKER = "rds:cluster", "dynamodb:table", "elasticache:cluster", "mq:broker"
TYPES = (BALANCER, GROUP, SERVICE, CLUSTER, TABLE, NODE, BROKER)
ENGINES = ("aurora-mysql", "aurora-postgresql")
HEAD = "# Found by the tag {tag}. Lines marked CHECK could not be read from the account: correct them, then run `lint`.\n"

Found = dict[str, dict[str, list[str]]]
"""Region -> kind -> ARNs that carry the tag."""
Client = Callable[..., Any]
"""Makes a client of AWS, as `boto3.client` does."""


@dataclass(slots=True)
class Draft:
    """A topology under way. ``guesses`` says by key path what has to be checked, ``left`` by ARN why a resource has no place in it."""

    value: dict[str, Any] = field(default_factory=dict)
    guesses: dict[KeyPath, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)

    def text(self, tag: str) -> str:
        """The topology as YAML, a comment on every line that is a guess, and what was left out."""
        body = HEAD.format(tag=tag) + yaml.safe_dump({key: part for key, part in self.value.items() if part}, sort_keys=False, width=10_000)
        lines, places = body.splitlines(), parse(body, "topology").lines
        for path, why in self.guesses.items():
            lines[places[path] - 1] += f"  # CHECK: {why}"
        if self.left:
            lines += ["", "# Left out, though they carry the tag:", *(f"#   {arn}: {why}" for arn, why in sorted(self.left.items()))]
        return "\n".join(lines) + "\n"


def command(tag: str, regions: list[str], out: Path, console: Console) -> int:
    """The command line's `discover`."""
    key, equals, value = tag.partition("=")
    problems = []
    if not equals or not key:
        problems.append(Problem(f"{tag!r} is not a tag", "write it as Key=Value", key="--tag"))
    if len(set(regions)) < 2:
        problems.append(Problem("a workload in one Region cannot fail over", "name two or more with --region", key="--region"))
    if out.exists():
        mend = f"name another with --out, for instance --out {_name(value)}.topology.yaml, or remove it"
        problems.append(Problem("it exists and would be overwritten", mend, str(out), "--out"))
    if problems:
        raise UnusableInput(problems)
    try:
        found = {region: dict(_resources(key, value, region)) for region in regions}
        account = boto3.client("sts", region_name=regions[0]).get_caller_identity()["Account"]
        made = draft(value, account, found, boto3.client)
    except (ClientError, BotoCoreError) as error:
        raise UnusableInput([Problem(f"the account could not be read: {error}", "check credentials and the Regions' names")]) from error
    text = made.text(tag)
    out.write_text(text, encoding="utf-8")
    resources = sum(len(arns) for kinds in found.values() for arns in kinds.values())
    console.print(f"{out}: {resources} resources in {', '.join(regions)}; {len(made.guesses)} lines to CHECK", highlight=False)
    for arn, why in sorted(made.left.items()):
        console.print(f"left out: {arn}: {why}", markup=False, highlight=False)
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


def draft(workload: str, account: str, found: Found, client: Client) -> Draft:
    """The topology of ``workload`` from the ARNs of each Region."""
    made = Draft()
    made.value = {
        "workload": _name(workload),
        "account": account,
        "store": {"name": "store.example.com"},
        "pages": [{"name": "home", "path": "/home"}],
        "regions": {name: _region(name, arns, client, made) for name, arns in found.items()},
        "services": _services(found, made),
        "databases": _databases(found, client, made),
        "tables": _tables(found, made),
        "caches": _caches(found, made),
        "brokers": _brokers(found, made),
        "runbooks": {
            name: {"document": f"{_name(workload)}-{document}", "parameters": {"Region": "{region}"}}
            for name, document in (("drain", "DrainRegion"), ("enable", "EnableRegion"))
        },
    }
    made.guesses |= {
        ("store", "name"): "the Route 53 name that customers use",
        ("pages", 0, "path"): "the pages that matter, each with a regular expression for its body",
        ("runbooks", "drain", "document"): "the Automation document that drains a Region, and its parameters",
        ("runbooks", "enable", "document"): "the one that brings it back",
    }
    return made


def _region(name: str, arns: dict[str, list[str]], client: Client, made: Draft) -> dict[str, Any]:
    region: dict[str, Any] = {}
    balancers = [arn for arn in arns.get(BALANCER, ()) if "/app/" in arn]
    made.left |= {arn: "it is no application load balancer" for arn in arns.get(BALANCER, ()) if arn not in balancers}
    if balancers:
        made.left |= dict.fromkeys(balancers[1:], f"one load balancer a Region is watched, here {balancers[0]}")
        region["alb"] = _balancer(name, balancers[0], arns.get(GROUP, []), client("elbv2", region_name=name), made)
        if len(balancers) > 1:
            made.guesses["regions", name, "alb", "arn_suffix"] = f"{len(balancers)} load balancers carry the tag"
    else:
        made.left |= dict.fromkeys(arns.get(GROUP, ()), "no application load balancer carries the tag in its Region")
    clusters = Counter(_ecs_cluster(arn) for arn in arns.get(SERVICE, ()))
    region["ecs_cluster"] = next((cluster for cluster, _ in clusters.most_common(1)), "default")
    if len(clusters) != 1:
        several = f"services of {len(clusters)} clusters carry the tag" if clusters else "no service carries the tag"
        made.guesses["regions", name, "ecs_cluster"] = several
    return region


def _balancer(region: str, arn: str, tagged: list[str], elbv2: Any, made: Draft) -> dict[str, str]:
    """A load balancer: how it listens, and the target group behind it."""
    host = elbv2.describe_load_balancers(LoadBalancerArns=[arn])["LoadBalancers"][0]["DNSName"]
    ports = {item["Protocol"]: item["Port"] for item in reversed(elbv2.describe_listeners(LoadBalancerArn=arn)["Listeners"])}
    scheme, usual = ("https", 443) if "HTTPS" in ports or not ports else ("http", 80)
    port = ports.get(scheme.upper(), usual)
    if scheme == "https":
        made.guesses["regions", region, "alb", "url"] = "no certificate is for a load balancer's own name: give yours that leads to it"
    behind = [item["TargetGroupArn"] for item in elbv2.describe_target_groups(LoadBalancerArn=arn)["TargetGroups"]]
    groups = [group for group in behind if group in tagged] or behind or tagged
    made.left |= {group: "one target group a Region is watched" for group in tagged if group not in groups[:1]}
    if len(groups) != 1:
        made.guesses["regions", region, "alb", "target_group"] = f"{len(groups) or 'no'} target groups stand behind it"
    return {
        "url": f"{scheme}://{host}" + (f":{port}" if port != usual else ""),
        "arn_suffix": arn.split("loadbalancer/", 1)[1],
        "target_group": groups[0].rsplit(":", 1)[1] if groups else "targetgroup/unknown/0",
    }


def _services(found: Found, made: Draft) -> dict[str, Any]:
    """Services by name; one that does not run in every Region is marked."""
    services: dict[str, Any] = {}
    regions: dict[str, set[str]] = {}
    for region, arns in found.items():
        for arn in arns.get(SERVICE, ()):
            service = arn.rsplit("/", 1)[-1]
            key = _name(service)
            if services.setdefault(key, {"ecs_service": service})["ecs_service"] != service:
                made.left[arn] = f"another service is called {key!r}"
            regions.setdefault(key, set()).add(region)
    for key in services:
        if len(regions[key]) < len(found):
            made.guesses["services", key, "ecs_service"] = f"carries the tag in {', '.join(sorted(regions[key]))} only"
    return dict(sorted(services.items()))


def _databases(found: Found, client: Client, made: Draft) -> dict[str, Any]:
    """The global databases that the tagged clusters belong to; what belongs to none is paired by name, which is a guess."""
    tagged = [arn for arns in found.values() for arn in arns.get(CLUSTER, ())]
    known: dict[str, dict[str, Any]] = {}
    for region, arns in found.items():
        if arns.get(CLUSTER):
            pages = client("rds", region_name=region).get_paginator("describe_global_clusters").paginate()
            known |= {each["GlobalClusterIdentifier"]: each for page in pages for each in page["GlobalClusters"]}
    databases: dict[str, Any] = {}
    placed: set[str] = set()
    for identifier, each in sorted(known.items()):
        members = [member["DBClusterArn"] for member in each["GlobalClusterMembers"]]
        placed |= set(members)
        clusters = {arn.split(":")[3]: arn.rsplit(":", 1)[1] for arn in members if arn.split(":")[3] in found}
        if not set(members) & set(tagged):
            continue
        if len(clusters) < len(found):
            made.left |= {arn: f"its global database {identifier} is not in every Region" for arn in members if arn in tagged}
            continue
        engine = {"engine": each["Engine"]} if each.get("Engine") in ENGINES else {}
        databases[_name(identifier)] = {"global_cluster": identifier, **engine, "clusters": {name: clusters[name] for name in found}}
    alone = {region: {CLUSTER: [arn for arn in arns.get(CLUSTER, ()) if arn not in placed]} for region, arns in found.items()}
    for name, paired in _by_region(alone, CLUSTER, made).items():
        if name in databases:
            nameless = [arn for kinds in alone.values() for arn in kinds[CLUSTER] if _resource(arn, CLUSTER) in paired.values()]
            made.left |= dict.fromkeys(nameless, f"another database is called {name!r}")
            continue
        databases[name] = {"global_cluster": name, "clusters": paired}
        made.guesses["databases", name, "global_cluster"] = "its clusters belong to no global database that can be read; paired by name"
    return databases


def _tables(found: Found, made: Draft) -> dict[str, Any]:
    tables: dict[str, Any] = {}
    for table in sorted({arn.rsplit("/", 1)[-1] for arns in found.values() for arn in arns.get(TABLE, ())}):
        arns = [arn for kinds in found.values() for arn in kinds.get(TABLE, ()) if arn.rsplit("/", 1)[-1] == table]
        if len(arns) < len(found):
            made.left |= dict.fromkeys(arns, "it carries the tag in some Regions only")
        elif _name(table) in tables:
            made.left |= dict.fromkeys(arns, f"another table is called {_name(table)!r}")
        else:
            tables[_name(table)] = {"table": table}
    return tables


def _brokers(found: Found, made: Draft) -> dict[str, Any]:
    brokers = {name: {"brokers": members} for name, members in _by_region(found, BROKER, made).items()}
    made.guesses |= {("brokers", name): "AWS lists no queues: add 'queues: [...]' for those worth watching" for name in brokers}
    return brokers


def _by_region(found: Found, kind: str, made: Draft) -> dict[str, dict[str, str]]:
    """Name without the Region -> {Region: name}; what is not in every Region, or twice in one, is left out."""
    groups: dict[str, dict[str, list[str]]] = {}
    for region, arns in found.items():
        for arn in arns.get(kind, ()):
            groups.setdefault(_name(_resource(arn, kind).replace(region, "").strip("-")), {}).setdefault(region, []).append(arn)
    paired = {}
    for name, members in groups.items():
        if len(members) == len(found) and all(len(arns) == 1 for arns in members.values()):
            paired[name] = {region: _resource(arns[0], kind) for region, arns in members.items()}
        else:
            made.left |= {arn: "no partner by its name in every other Region" for arns in members.values() for arn in arns}
    return paired


def _caches(found: Found, made: Draft) -> dict[str, Any]:
    """Name without the Region and the node's number -> {"clusters": {Region: the node, or the list of a replication group's nodes}}."""
    groups: dict[str, dict[str, list[str]]] = {}
    for region, arns in found.items():
        for arn in arns.get(NODE, ()):
            name = _name(re.sub(r"-\d{3}$", "", _resource(arn, NODE)).replace(region, "").strip("-"))
            groups.setdefault(name, {}).setdefault(region, []).append(arn)
    caches = {}
    for name, members in groups.items():
        if len(members) < len(found):
            made.left |= {arn: "no partner by its name in every other Region" for arns in members.values() for arn in arns}
            continue
        nodes = {region: [_resource(arn, NODE) for arn in arns] for region, arns in members.items()}
        caches[name] = {"clusters": {region: names[0] if len(names) == 1 else names for region, names in nodes.items()}}
    return caches


def _resource(arn: str, kind: str) -> str:
    """The name in an ARN; a broker's is followed by its id."""
    return arn.rsplit(":", 2)[1] if kind == BROKER else arn.rsplit(":", 1)[1]


def _ecs_cluster(arn: str) -> str:
    """The cluster of a service; ARNs of the old form do not name it."""
    path = arn.split(":service/", 1)[1].split("/")
    return path[0] if len(path) > 1 else "default"


def _name(text: str) -> str:
    """A name of the topology's form."""
    cleaned = "".join(character if character.isascii() and character.isalnum() else "-" for character in text.lower()).strip("-")
    return (cleaned or "workload")[:31]
