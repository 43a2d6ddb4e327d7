"""Puts the runbooks into a lab: their role, the parameters that tell them where things are, the bucket for reports, and the documents."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from lab.aws.service import AwsError
from lab.plan import DATABASES, STORE_NAME
from lab.runbooks.rendering import render
from lab.store.names import WORKLOAD
from lab.topology import routing_control_arn

if TYPE_CHECKING:
    from lab.aws.service import World
    from lab.plan import LabPlan

ROLE = f"{WORKLOAD}-automation"
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "ssm.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}


def put_all(world: World, plan: LabPlan) -> None:
    """See `lab.runbooks.register`."""
    _put_role(world, plan)
    documents = render(WORKLOAD, f"arn:aws:iam::{plan.account}:role/{ROLE}")
    for region in plan.regions:
        _put_bucket(world, region, bucket_name(plan.account, region))
    secrets = {region: {database: _put_secret(world, region, database) for database in DATABASES} for region in plan.regions}
    for region in plan.regions:
        for name, value in parameters(world, plan, region, secrets).items():
            world.call(region, "ssm", "put_parameter", Name=name, Value=json.dumps(value), Type="String", Overwrite=True)
        for name, content in documents.items():
            _put_document(world, region, name, content)


def bucket_name(account: str, region: str) -> str:
    """The bucket for the runbooks' reports."""
    return f"{WORKLOAD}-recovery-{account}-{region}"


def parameters(world: World, plan: LabPlan, region: str, secrets: dict[str, dict[str, str]]) -> dict[str, Any]:
    """What the runbooks have to know, by parameter name; values are kept as JSON. ``secrets`` are ARNs by Region and database."""
    rules = world.service("route53-recovery-cluster").controls.rules
    return {
        f"/{WORKLOAD}/routing": {
            "name": STORE_NAME,
            "controls": {name: routing_control_arn(plan.account, each.index) for name, each in plan.regions.items()},
            "endpoints": {name: f"http://127.0.0.1:{port}" for name, port in plan.arc_ports.items()},
            "balancers": {name: each.alb_name for name, each in plan.regions.items()},
            "nameServers": [f"127.0.0.1:{plan.dns_port}"],
            "vantages": {name: each.ip for name, each in plan.regions.items()},
            "safetyRules": sorted(rules),
        },
        f"/{WORKLOAD}/recovery": {
            "workload": WORKLOAD,
            "bucket": bucket_name(plan.account, region),
            "endpoints": {name: each.aws_endpoint for name, each in plan.regions.items()},
            "secrets": secrets,
        },
    }


def policy(account: str) -> dict[str, Any]:
    """What the runbooks may do, and no more."""
    allowed = {
        "route53-recovery-cluster:GetRoutingControlState": f"arn:aws:route53-recovery-control::{account}:controlpanel/*",
        "route53-recovery-cluster:UpdateRoutingControlState": f"arn:aws:route53-recovery-control::{account}:controlpanel/*",
        "rds:DescribeGlobalClusters": "*",
        "rds:DescribeDBClusters": "*",
        "rds:DescribeDBClusterSnapshots": "*",
        "rds:DescribeEvents": "*",
        "rds:FailoverGlobalCluster": "*",
        "rds:SwitchoverGlobalCluster": "*",
        "rds:CreateDBCluster": "*",
        "rds:CreateDBInstance": "*",
        "rds:RestoreDBClusterFromSnapshot": "*",
        "rds:EnableHttpEndpoint": f"arn:aws:rds:*:{account}:cluster:{WORKLOAD}-*",
        "rds:DeleteDBCluster": f"arn:aws:rds:*:{account}:cluster:{WORKLOAD}-*",
        "rds:DeleteDBInstance": f"arn:aws:rds:*:{account}:db:{WORKLOAD}-*",
        "rds:RemoveFromGlobalCluster": "*",
        "rds-data:ExecuteStatement": f"arn:aws:rds:*:{account}:cluster:{WORKLOAD}-*",
        "secretsmanager:GetSecretValue": "*",
        "s3:PutObject": f"arn:aws:s3:::{WORKLOAD}-recovery-{account}-*/*",
        "cloudwatch:PutMetricData": "*",
    }
    return {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": action, "Resource": resource} for action, resource in allowed.items()],
    }


def _put_role(world: World, plan: LabPlan) -> None:
    home = next(iter(plan.regions))
    try:
        world.call(home, "iam", "create_role", RoleName=ROLE, AssumeRolePolicyDocument=json.dumps(TRUST))
    except AwsError as error:
        if error.code != "EntityAlreadyExists":
            raise
    world.call(home, "iam", "put_role_policy", RoleName=ROLE, PolicyName="runbooks", PolicyDocument=json.dumps(policy(plan.account)))


def _put_bucket(world: World, region: str, name: str) -> None:
    location: dict[str, Any] = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    try:
        world.call(region, "s3", "create_bucket", Bucket=name, **location)
    except AwsError as error:
        if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
            raise


def _put_secret(world: World, region: str, database: str) -> str:
    """The secret with the database's user; its ARN."""
    name = f"{WORKLOAD}-{database}"
    try:
        return str(world.call(region, "secretsmanager", "describe_secret", SecretId=name)["ARN"])
    except AwsError as error:
        if error.code != "ResourceNotFoundException":
            raise
    user = json.dumps({"username": "postgres", "password": ""})
    return str(world.call(region, "secretsmanager", "create_secret", Name=name, SecretString=user)["ARN"])


def _put_document(world: World, region: str, name: str, content: str) -> None:
    try:
        world.call(region, "ssm", "create_document", Name=name, Content=content, DocumentType="Automation", DocumentFormat="YAML")
    except AwsError as error:
        if error.code != "DocumentAlreadyExists":
            raise
        held = world.call(region, "ssm", "get_document", Name=name, DocumentFormat="YAML")
        if held["Content"] != content:
            version = world.call(
                region, "ssm", "update_document", Name=name, Content=content, DocumentVersion="$LATEST", DocumentFormat="YAML"
            )
            number = version["DocumentDescription"]["DocumentVersion"]
            world.call(region, "ssm", "update_document_default_version", Name=name, DocumentVersion=number)
