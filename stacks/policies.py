"""Least privilege, role by role: who may do what, to which resource, under which condition."""

from __future__ import annotations

from typing import Any

from stacks.names import Names
from topology import Topology
from topology.model import Network
from topology.signals import LEDGER, PROBE

Statement = dict[str, Any]


def document(statements: list[Statement]) -> dict[str, Any]:
    """A policy document."""
    return {"Version": "2012-10-17", "Statement": statements}


def assumed_by(service: str) -> dict[str, Any]:
    """A trust policy for an AWS service."""
    return document([{"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}])


def allow(sid: str, actions: list[str], resources: list[str], condition: dict[str, Any] | None = None) -> Statement:
    """One Allow statement."""
    statement: Statement = {"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resources}
    return {**statement, "Condition": condition} if condition else statement


def canary(topology: Topology, names: Names, kind: str) -> list[Statement]:
    """A canary: its artifacts, its log group, metrics in the namespaces that are its own, traces, and the states it reads:
    routing controls, and which clusters take writes."""
    bucket = f"arn:aws:s3:::{names.bucket}"
    groups = f"arn:aws:logs:{names.region}:{names.account}:log-group:/aws/lambda/cwsyn-{names.workload}-{kind}-*"
    namespaces = ["CloudWatchSynthetics", LEDGER if kind == "ledger" else PROBE]
    statements = [
        allow("Artifacts", ["s3:PutObject"], [f"{bucket}/runs/{kind}/*"]),
        allow("ArtifactBucket", ["s3:GetBucketLocation"], [bucket]),
        allow("Logs", ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"], [groups, f"{groups}:*"]),
        allow("Metrics", ["cloudwatch:PutMetricData"], ["*"], {"StringEquals": {"cloudwatch:namespace": namespaces}}),
        allow("Traces", ["xray:PutTraceSegments"], ["*"]),
    ]
    if kind == "ledger":
        statements.append(allow("Ledger", ["s3:GetObject", "s3:PutObject"], [f"{bucket}/ledger/*"]))
        statements.append(allow("LedgerList", ["s3:ListBucket"], [bucket], {"StringLike": {"s3:prefix": ["ledger/*"]}}))
    if kind == "probe" and topology.routing:
        read = ["route53-recovery-cluster:GetRoutingControlState"]
        statements.append(allow("Routing", read, sorted(topology.routing.controls.values())))
    if kind == "probe" and topology.databases:
        databases, rds = topology.databases.values(), f"arn:aws:rds:{{}}:{names.account}:"
        globals_ = sorted(f"{rds.format('')}global-cluster:{each.global_cluster}" for each in databases)
        clusters = sorted(f"{rds.format(region)}cluster:{name}" for each in databases for region, name in each.clusters.items())
        statements.append(allow("Writers", ["rds:DescribeGlobalClusters"], globals_))
        statements.append(allow("WritersAlone", ["rds:DescribeDBClusters"], clusters))
    network = topology.network(names.region)
    return [*statements, *_interfaces(network, names)] if network else statements


def _interfaces(network: Network, names: Names) -> list[Statement]:
    """What Lambda needs to stand in a VPC: interfaces in these subnets with these security groups, nothing else."""
    ec2 = f"arn:aws:ec2:{names.region}:{names.account}:"
    interfaces = f"{ec2}network-interface/*"
    places = [*(f"{ec2}subnet/{name}" for name in network.subnets), *(f"{ec2}security-group/{name}" for name in network.security_groups)]
    return [
        allow("Network", ["ec2:CreateNetworkInterface"], [interfaces, *places]),
        allow("NetworkRemove", ["ec2:DeleteNetworkInterface"], [interfaces]),
        allow("NetworkRead", ["ec2:DescribeNetworkInterfaces"], ["*"]),
    ]


def notifier(names: Names) -> list[Statement]:
    """The notifier: publish to one topic, read metrics and alarms (composite ones need "*"), write its own log."""
    group = f"arn:aws:logs:{names.region}:{names.account}:log-group:/aws/lambda/{names.notifier}"
    return [
        allow("Page", ["sns:Publish"], [names.topic_arn("pages")]),
        allow("Matrix", ["cloudwatch:GetMetricData", "cloudwatch:DescribeAlarms"], ["*"]),
        allow("Logs", ["logs:CreateLogStream", "logs:PutLogEvents"], [f"{group}:*"]),
    ]
