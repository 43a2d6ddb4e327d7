"""IAM: what policies say, and that sessions of roles are held to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st
from local_aws import EAST, WEST, LocalAws, local_aws

from lab.aws.iam import Decision, decide, decide_resource
from lab.aws.iam_actions import action_of, resources_of, s3_call
from lab.aws.service import AwsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ALLOWED, IMPLICIT, EXPLICIT = Decision.ALLOWED, Decision.IMPLICIT_DENY, Decision.EXPLICIT_DENY


def allow(**parts: Any) -> dict[str, Any]:
    """A policy of one Allow statement."""
    return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*", **parts}]}


def deny(**parts: Any) -> dict[str, Any]:
    """A policy of one Deny statement."""
    return {"Version": "2012-10-17", "Statement": {"Effect": "Deny", "Action": "*", "Resource": "*", **parts}}


@pytest.mark.parametrize(
    ("policies", "action", "resource", "context", "decision"),
    [
        ([], "s3:GetObject", "*", {}, IMPLICIT),
        ([allow()], "s3:GetObject", "*", {}, ALLOWED),
        ([allow(Action="s3:Get*")], "s3:GetObject", "*", {}, ALLOWED),
        ([allow(Action="S3:getobject")], "s3:GetObject", "*", {}, ALLOWED),
        ([allow(Action="s3:Get*")], "s3:PutObject", "*", {}, IMPLICIT),
        ([allow(), deny(Action=["s3:PutObject"])], "s3:PutObject", "*", {}, EXPLICIT),
        ([deny(Action=["s3:PutObject"]), allow()], "s3:PutObject", "*", {}, EXPLICIT),
        ([allow(Resource="arn:aws:s3:::b/runs/*")], "s3:PutObject", "arn:aws:s3:::b/runs/x/y", {}, ALLOWED),
        ([allow(Resource="arn:aws:s3:::b/runs/*")], "s3:PutObject", "arn:aws:s3:::b/other", {}, IMPLICIT),
        ([allow(Resource="arn:aws:s3:::b/?")], "s3:PutObject", "arn:aws:s3:::b/xy", {}, IMPLICIT),
        ([{"Statement": [{"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"}]}], "iam:CreateRole", "*", {}, IMPLICIT),
        ([{"Statement": [{"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"}]}], "s3:GetObject", "*", {}, ALLOWED),
        ([{"Statement": [{"Effect": "Allow", "Action": "*", "NotResource": "arn:x"}]}], "s3:GetObject", "arn:x", {}, IMPLICIT),
        ([allow(Condition={"StringEquals": {"cloudwatch:namespace": ["A", "B"]}})], "x:Y", "*", {"cloudwatch:namespace": "B"}, ALLOWED),
        ([allow(Condition={"StringEquals": {"CloudWatch:Namespace": "A"}})], "x:Y", "*", {"cloudwatch:namespace": "A"}, ALLOWED),
        ([allow(Condition={"StringEquals": {"cloudwatch:namespace": "A"}})], "x:Y", "*", {"cloudwatch:namespace": "a"}, IMPLICIT),
        ([allow(Condition={"StringEquals": {"cloudwatch:namespace": "A"}})], "x:Y", "*", {}, IMPLICIT),
        ([allow(Condition={"StringEqualsIfExists": {"cloudwatch:namespace": "A"}})], "x:Y", "*", {}, ALLOWED),
        ([allow(), deny(Condition={"StringNotEquals": {"aws:RequestedRegion": "r"}})], "x:Y", "*", {"aws:RequestedRegion": "r"}, ALLOWED),
        ([allow(), deny(Condition={"StringNotEquals": {"aws:RequestedRegion": "r"}})], "x:Y", "*", {"aws:RequestedRegion": "q"}, EXPLICIT),
        ([allow(Condition={"StringLike": {"k": "a*c"}})], "x:Y", "*", {"k": "abc"}, ALLOWED),
        (
            [allow(Condition={"ArnLike": {"aws:SourceArn": "arn:aws:sns:*:*:t"}})],
            "x:Y",
            "*",
            {"aws:SourceArn": "arn:aws:sns:r:1:t"},
            ALLOWED,
        ),
        ([allow(Condition={"ForAnyValue:StringEquals": {"k": ["a"]}})], "x:Y", "*", {"k": ["a", "b"]}, ALLOWED),
        ([allow(Condition={"ForAllValues:StringEquals": {"k": ["a"]}})], "x:Y", "*", {"k": ["a", "b"]}, IMPLICIT),
        ([allow(Condition={"Bool": {"aws:SecureTransport": False}})], "x:Y", "*", {"aws:SecureTransport": "false"}, ALLOWED),
        ([allow(Condition={"Null": {"k": "true"}})], "x:Y", "*", {}, ALLOWED),
        ([allow(Condition={"StringEquals": {"a": "1"}, "StringLike": {"b": "2"}})], "x:Y", "*", {"a": "1", "b": "3"}, IMPLICIT),
    ],
)
def test_decisions(policies: list[dict[str, Any]], action: str, resource: str, context: dict[str, Any], decision: Decision) -> None:
    """Deny beats Allow, silence is a refusal, every condition must hold."""
    assert decide(policies, action, resource, context) is decision


@given(st.lists(st.sampled_from([allow(), allow(Action="s3:*"), allow(Action="sns:*"), deny(Action="s3:Delete*"), deny(Action="sns:*")])))
def test_a_deny_cannot_be_outvoted(policies: list[dict[str, Any]]) -> None:
    """Whatever else is there, in whatever order: a Deny that matches decides."""
    for action in ("s3:DeleteObject", "sns:Publish", "s3:GetObject"):
        decision = decide([*policies, deny(Action=action)], action, "*")
        assert decision is EXPLICIT
        assert decide(list(reversed(policies)), action, "*") is decide(policies, action, "*")


def test_a_condition_that_is_not_known_is_an_error() -> None:
    """Better no answer than a wrong one."""
    with pytest.raises(AwsError, match="IpAddress"):
        decide([allow(Condition={"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}})], "x:Y", "*", {"aws:SourceIp": "10.0.0.1"})


@pytest.mark.parametrize(
    ("principal", "listed", "decision"),
    [
        ("sns.amazonaws.com", {"Service": "sns.amazonaws.com"}, ALLOWED),
        ("sns.amazonaws.com", {"Service": ["events.amazonaws.com"]}, IMPLICIT),
        ("sns.amazonaws.com", {"AWS": "*"}, IMPLICIT),
        ("sns.amazonaws.com", "*", ALLOWED),
        ("arn:aws:iam::123456789012:role/r", {"AWS": "123456789012"}, ALLOWED),
        ("arn:aws:iam::123456789012:role/r", {"AWS": "arn:aws:iam::999999999999:root"}, IMPLICIT),
    ],
)
def test_resource_policies_name_principals(principal: str, listed: Any, decision: Decision) -> None:
    """A statement counts for those it names only."""
    policy = {"Statement": [{"Effect": "Allow", "Principal": listed, "Action": "sqs:SendMessage", "Resource": "*"}]}
    assert decide_resource(policy, principal, "sqs:SendMessage", "arn:aws:sqs:r:1:q") is decision


@pytest.mark.parametrize(
    ("service", "operation", "params", "action", "resource"),
    [
        ("cloudwatch", "put_metric_data", {"Namespace": "N"}, "cloudwatch:PutMetricData", "*"),
        ("cloudwatch", "PutMetricAlarm", {"AlarmName": "a"}, "cloudwatch:PutMetricAlarm", "arn:aws:cloudwatch:r:1:alarm:a"),
        ("s3", "head_object", {"Bucket": "b", "Key": "k"}, "s3:GetObject", "arn:aws:s3:::b/k"),
        ("s3", "list_objects_v2", {"Bucket": "b"}, "s3:ListBucket", "arn:aws:s3:::b"),
        ("sns", "publish", {"TopicArn": "arn:aws:sns:r:1:t"}, "sns:Publish", "arn:aws:sns:r:1:t"),
        ("lambda", "invoke", {"FunctionName": "f"}, "lambda:InvokeFunction", "arn:aws:lambda:r:1:function:f"),
        ("synthetics", "start_canary", {"Name": "c"}, "synthetics:StartCanary", "arn:aws:synthetics:r:1:canary:c"),
        (
            "logs",
            "put_log_events",
            {"logGroupName": "g", "logStreamName": "s"},
            "logs:PutLogEvents",
            "arn:aws:logs:r:1:log-group:g:log-stream:s",
        ),
    ],
)
def test_calls_have_actions_and_resources(service: str, operation: str, params: dict[str, Any], action: str, resource: str) -> None:
    """An API call is looked up in policies under IAM's names."""
    assert action_of(service, operation) == action
    assert resources_of(service, operation, params, "r", "1") == [resource]


@pytest.mark.parametrize(
    ("method", "path", "query", "operation", "params"),
    [
        ("PUT", "/b/runs/a.json", {}, "PutObject", {"Bucket": "b", "Key": "runs/a.json"}),
        ("GET", "/b", {"list-type": "2", "prefix": "ledger/"}, "ListBucket", {"Bucket": "b", "Prefix": "ledger/"}),
        ("GET", "/b", {"location": ""}, "GetBucketLocation", {"Bucket": "b"}),
        ("GET", "/b/k", {"versionId": "3"}, "GetObjectVersion", {"Bucket": "b", "Key": "k"}),
        ("PUT", "/b/k", {"tagging": ""}, "PutObjectTagging", {"Bucket": "b", "Key": "k"}),
        ("GET", "/", {}, "ListBuckets", {}),
    ],
)
def test_s3_requests_are_told_apart(method: str, path: str, query: dict[str, str], operation: str, params: dict[str, str]) -> None:
    """S3's operations share methods and paths; their actions differ."""
    assert s3_call(method, path, query) == (operation, params)


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    with local_aws(tmp_path_factory.mktemp("iam")) as running:
        yield running


def test_a_role_may_do_what_its_policy_says_and_no_more(aws: LocalAws, tmp_path: Path) -> None:
    """The namespace condition of the standard canary role is kept, over the wire."""
    condition = {"StringEquals": {"cloudwatch:namespace": "CloudWatchSynthetics"}}
    arn = aws.role("narrow", {"Effect": "Allow", "Action": "cloudwatch:PutMetricData", "Resource": "*", "Condition": condition})
    session = aws.session(arn)
    cloudwatch = aws.client("cloudwatch", credentials=session)
    data = [{"MetricName": "M", "Value": 1.0}]
    cloudwatch.put_metric_data(Namespace="CloudWatchSynthetics", MetricData=data)
    with pytest.raises(ClientError) as caught:
        cloudwatch.put_metric_data(Namespace="Other", MetricData=data)
    error = caught.value.response["Error"]
    assert error["Code"] in ("AccessDenied", "AccessDeniedException")
    assert (
        "assumed-role/narrow/test is not authorized to perform: cloudwatch:PutMetricData because no identity-based policy"
        in error["Message"]
    )
    with pytest.raises(ClientError, match="not authorized to perform: sns:CreateTopic"):
        aws.client("sns", credentials=session).create_topic(Name="t")
    assert aws.client("sts", credentials=session).get_caller_identity()["Arn"].endswith("assumed-role/narrow/test")


def test_an_explicit_deny_of_a_region_holds_there_only(aws: LocalAws) -> None:
    """aws:RequestedRegion is the Region of the endpoint."""
    arn = aws.role(
        "homebound",
        {"Effect": "Allow", "Action": "*", "Resource": "*"},
        {"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": {"StringNotEquals": {"aws:RequestedRegion": EAST}}},
    )
    session = aws.session(arn)
    aws.client("sns", EAST, session).list_topics()
    with pytest.raises(ClientError, match="with an explicit deny in an identity-based policy"):
        aws.client("sns", WEST, session).list_topics()
