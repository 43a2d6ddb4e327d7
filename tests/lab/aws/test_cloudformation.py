"""CloudFormation: templates become real resources, and only what was asked for changes."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError
from local_aws import EAST, TRUST, WEST, LocalAws, eventually, local_aws, package

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMED = ["CAPABILITY_NAMED_IAM"]
EVERYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    with local_aws(tmp_path_factory.mktemp("cloudformation"), speed=20) as running:
        yield running


@pytest.fixture
def cfn(aws: LocalAws) -> Iterator[Any]:
    """A client; stacks that a test leaves behind are deleted."""
    client = aws.client("cloudformation")
    yield client
    for stack in client.describe_stacks()["Stacks"]:
        client.update_termination_protection(StackName=stack["StackName"], EnableTerminationProtection=False)
        client.delete_stack(StackName=stack["StackName"])
        settled(client, stack["StackId"])


def body(resources: dict[str, Any], **sections: Any) -> str:
    """A template as JSON."""
    return json.dumps({"Resources": resources, **sections})


def topic(**properties: Any) -> dict[str, Any]:
    """A topic resource."""
    return {"Type": "AWS::SNS::Topic", "Properties": properties}


def alarm(name: str, **properties: Any) -> dict[str, Any]:
    """A metric alarm resource."""
    return {
        "Type": "AWS::CloudWatch::Alarm",
        "Properties": {
            "AlarmName": name,
            "Namespace": "N",
            "MetricName": "M",
            "Statistic": "Sum",
            "Period": "60",
            "EvaluationPeriods": 1,
            "Threshold": 1,
            "ComparisonOperator": "GreaterThanThreshold",
            **properties,
        },
    }


def settled(cfn: Any, name: str) -> str:
    """The stack's status when nothing goes on any more."""

    def look() -> str:
        status = str(cfn.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"])
        return "" if status.endswith("_IN_PROGRESS") and status != "REVIEW_IN_PROGRESS" else status

    return eventually(look, 40)


def make(cfn: Any, name: str, template: str, **extra: Any) -> str:
    """Create a stack and wait; its status."""
    cfn.create_stack(StackName=name, TemplateBody=template, Capabilities=NAMED, **extra)
    return settled(cfn, name)


def change(cfn: Any, name: str, template: str, **extra: Any) -> str:
    """Update a stack and wait; its status."""
    cfn.update_stack(StackName=name, TemplateBody=template, Capabilities=NAMED, **extra)
    return settled(cfn, name)


def outputs(cfn: Any, name: str) -> dict[str, str]:
    """A stack's outputs."""
    return {one["OutputKey"]: one["OutputValue"] for one in cfn.describe_stacks(StackName=name)["Stacks"][0]["Outputs"]}


def events(cfn: Any, name: str) -> list[tuple[str, str]]:
    """What happened, the first first: logical ids and statuses."""
    found = cfn.describe_stack_events(StackName=name)["StackEvents"]
    return [(one["LogicalResourceId"], one["ResourceStatus"]) for one in reversed(found)]


def reasons(cfn: Any, name: str, logical: str) -> str:
    """Why a resource failed."""
    found = cfn.describe_stack_events(StackName=name)["StackEvents"]
    return " ".join(one.get("ResourceStatusReason", "") for one in found if one["LogicalResourceId"] == logical)


def changes(cfn: Any, stack: str, template: str, **extra: Any) -> dict[str, dict[str, Any]]:
    """A change set's changes, by logical id."""
    cfn.create_change_set(StackName=stack, ChangeSetName="look", TemplateBody=template, Capabilities=NAMED, **extra)
    found = cfn.describe_change_set(StackName=stack, ChangeSetName="look")["Changes"]
    cfn.delete_change_set(StackName=stack, ChangeSetName="look")
    return {one["ResourceChange"]["LogicalResourceId"]: one["ResourceChange"] for one in found}


def test_a_change_set_makes_the_whole_thread(aws: LocalAws, cfn: Any) -> None:
    """Role, function, permission, topic, alarm and a canary that is running: as the product deploys them."""
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="artifacts")
    s3.put_object(Bucket="artifacts", Key="probe.zip", Body=package(python__probe="def handler(e, c):\n    return 1\n"))
    s3.put_object(Bucket="artifacts", Key="notifier.zip", Body=package(app="def handler(e, c):\n    return 1\n"))
    role = {"RoleName": "all", "AssumeRolePolicyDocument": TRUST, "Policies": [{"PolicyName": "p", "PolicyDocument": EVERYTHING}]}
    template = body(
        {
            "Topic": topic(TopicName="alarms"),
            "Role": {"Type": "AWS::IAM::Role", "Properties": role},
            "Notifier": {
                "Type": "AWS::Lambda::Function",
                "Properties": {
                    "FunctionName": "notifier",
                    "Runtime": "python3.12",
                    "Handler": "app.handler",
                    "Code": {"S3Bucket": "artifacts", "S3Key": "notifier.zip"},
                    "Role": {"Fn::GetAtt": ["Role", "Arn"]},
                    "Timeout": "20",
                },
            },
            "Permission": {
                "Type": "AWS::Lambda::Permission",
                "Properties": {
                    "FunctionName": {"Fn::GetAtt": ["Notifier", "Arn"]},
                    "Action": "lambda:InvokeFunction",
                    "Principal": "sns.amazonaws.com",
                    "SourceArn": {"Ref": "Topic"},
                },
            },
            "Failure": {
                "Type": "AWS::Lambda::EventInvokeConfig",
                "Properties": {
                    "FunctionName": {"Ref": "Notifier"},
                    "Qualifier": "$LATEST",
                    "MaximumRetryAttempts": 1,
                    "DestinationConfig": {"OnFailure": {"Destination": {"Ref": "Topic"}}},
                },
            },
            "Subscription": {
                "Type": "AWS::SNS::Subscription",
                "DependsOn": ["Permission"],
                "Properties": {"TopicArn": {"Ref": "Topic"}, "Protocol": "lambda", "Endpoint": {"Fn::GetAtt": ["Notifier", "Arn"]}},
            },
            "Alarm": alarm("down", AlarmActions=[{"Ref": "Topic"}], Tags=[{"Key": "a", "Value": "b"}]),
            "Composite": {
                "Type": "AWS::CloudWatch::CompositeAlarm",
                "DependsOn": "Alarm",
                "Properties": {"AlarmName": "page", "AlarmRule": 'ALARM("down")'},
            },
            "Dashboard": {
                "Type": "AWS::CloudWatch::Dashboard",
                "Properties": {"DashboardName": "board", "DashboardBody": '{"widgets": []}'},
            },
            "Canary": {
                "Type": "AWS::Synthetics::Canary",
                "Properties": {
                    "Name": "probe",
                    "RuntimeVersion": "syn-python-selenium-12.0",
                    "Code": {"Handler": "probe.handler", "S3Bucket": "artifacts", "S3Key": "probe.zip"},
                    "ArtifactS3Location": "s3://artifacts/runs",
                    "ExecutionRoleArn": {"Fn::GetAtt": ["Role", "Arn"]},
                    "Schedule": {"Expression": "rate(1 minute)", "DurationInSeconds": "0"},
                    "RunConfig": {"TimeoutInSeconds": 59},
                    "StartCanaryAfterCreation": True,
                    "Tags": [{"Key": "code", "Value": "1"}],
                },
            },
        },
        Outputs={"Topic": {"Value": {"Ref": "Topic"}}},
    )
    cfn.create_change_set(StackName="whole", ChangeSetName="first", ChangeSetType="CREATE", TemplateBody=template, Capabilities=NAMED)
    described = cfn.describe_change_set(StackName="whole", ChangeSetName="first")
    assert (described["Status"], described["ExecutionStatus"]) == ("CREATE_COMPLETE", "AVAILABLE")
    assert {one["ResourceChange"]["Action"] for one in described["Changes"]} == {"Add"}
    assert len(described["Changes"]) == 10
    assert cfn.describe_stacks(StackName="whole")["Stacks"][0]["StackStatus"] == "REVIEW_IN_PROGRESS"
    cfn.execute_change_set(StackName="whole", ChangeSetName="first")
    assert settled(cfn, "whole") == "CREATE_COMPLETE"
    assert cfn.describe_change_set(StackName="whole", ChangeSetName="first")["ExecutionStatus"] == "EXECUTE_COMPLETE"
    assert aws.client("synthetics").get_canary(Name="probe")["Canary"]["Status"]["State"] == "RUNNING"
    described_alarms = aws.client("cloudwatch").describe_alarms(AlarmTypes=["MetricAlarm", "CompositeAlarm"])
    assert described_alarms["MetricAlarms"][0]["AlarmActions"] == [outputs(cfn, "whole")["Topic"]]
    assert [one["AlarmName"] for one in described_alarms["CompositeAlarms"]] == ["page"]
    order = [logical for logical, status in events(cfn, "whole") if status == "CREATE_COMPLETE"]
    assert order.index("Role") < order.index("Notifier") < order.index("Permission") < order.index("Subscription")
    cfn.create_change_set(StackName="whole", ChangeSetName="second", TemplateBody=template, Capabilities=NAMED)
    again = cfn.describe_change_set(StackName="whole", ChangeSetName="second")
    assert (again["Status"], again["ExecutionStatus"]) == ("FAILED", "UNAVAILABLE")
    assert "didn't contain changes" in again["StatusReason"]
    cfn.delete_stack(StackName="whole")
    assert settled(cfn, described["StackId"]) == "DELETE_COMPLETE"
    assert aws.client("synthetics").describe_canaries()["Canaries"] == []
    assert aws.client("cloudwatch").describe_alarms()["MetricAlarms"] == []
    assert aws.client("iam").list_roles()["Roles"] == []


def test_yaml_functions_conditions_and_parameters(cfn: Any) -> None:
    """The short forms, computed as CloudFormation computes them."""
    template = """
AWSTemplateFormatVersion: 2010-09-09
Parameters:
  Env: {Type: String, Default: prod, AllowedValues: [prod, test]}
  Names: {Type: CommaDelimitedList, Default: "a, b,c"}
  Count: {Type: Number, Default: 3, MaxValue: 5}
Mappings:
  Sizes: {us-east-1: {prod: big, test: small}}
Conditions:
  IsProd: !Equals [!Ref Env, prod]
  IsTest: !Not [!Condition IsProd]
  Either: !Or [!Condition IsProd, !Condition IsTest]
Resources:
  Topic:
    Type: AWS::SNS::Topic
    Properties:
      TopicName: !Sub "${AWS::StackName}-${Env}"
      DisplayName: !If [IsTest, test, !Ref "AWS::NoValue"]
  OnlyTest:
    Type: AWS::SNS::Topic
    Condition: IsTest
  Policy:
    Type: AWS::SNS::TopicPolicy
    Properties:
      Topics: [!Ref Topic]
      PolicyDocument:
        Version: 2012-10-17
        Statement: [{Effect: Allow, Principal: '*', Action: 'sns:Publish', Resource: !Ref Topic}]
Outputs:
  Joined: {Value: !Join ["-", [!Select [1, !Ref Names], !FindInMap [Sizes, !Ref "AWS::Region", !Ref Env]]]}
  Sub: {Value: !Sub ["${Topic.TopicName}/${x}/${!literal}", {x: !Ref Count}]}
  Split: {Value: !Select [5, !Split [":", !Ref Topic]]}
  Encoded: {Value: !Base64 hello}
  Zone: {Value: !Select [0, !GetAZs ""]}
  Test: {Condition: IsTest, Value: x}
"""
    assert make(cfn, "functions", template) == "CREATE_COMPLETE"
    assert outputs(cfn, "functions") == {
        "Joined": "b-big",
        "Sub": "functions-prod/3/${literal}",
        "Split": "functions-prod",
        "Encoded": "aGVsbG8=",
        "Zone": "us-east-1a",
    }
    env = [{"ParameterKey": "Env", "ParameterValue": "test"}, {"ParameterKey": "Names", "UsePreviousValue": True}]
    cfn.create_change_set(StackName="functions", ChangeSetName="test", UsePreviousTemplate=True, Parameters=env)
    found = {
        one["ResourceChange"]["LogicalResourceId"]: one["ResourceChange"]
        for one in cfn.describe_change_set(StackName="functions", ChangeSetName="test")["Changes"]
    }
    assert {name: one["Action"] for name, one in found.items()} == {"Topic": "Modify", "Policy": "Modify", "OnlyTest": "Add"}
    assert found["Topic"]["Replacement"] == "True"
    details = {one["Target"]["Name"]: one["Target"]["RequiresRecreation"] for one in found["Topic"]["Details"]}
    assert details == {"TopicName": "Always", "DisplayName": "Never"}
    dynamic = found["Policy"]["Details"][0]
    assert (dynamic["Evaluation"], dynamic["ChangeSource"], dynamic["CausingEntity"]) == ("Dynamic", "ResourceReference", "Topic")
    cfn.execute_change_set(StackName="functions", ChangeSetName="test")
    assert settled(cfn, "functions") == "UPDATE_COMPLETE"
    assert outputs(cfn, "functions")["Split"] == "functions-test"
    assert outputs(cfn, "functions")["Test"] == "x"


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{", "JSON not well-formed"),
        ("a: [", "YAML not well-formed"),
        ("{}", "At least one Resources member must be defined"),
        (body({"A": {"Type": "AWS::Foo::Bar"}}), r"Unrecognized resource types: \[AWS::Foo::Bar\]"),
        (body({"A": topic(TopicName={"Ref": "Nope"})}), r"Unresolved resource dependencies \[Nope\]"),
        (body({"A": topic(TopicName={"Fn::GetAtt": ["B", "Arn"]})}), "references undefined resource B"),
        (body({"A": topic(), "B": topic(TopicName={"Fn::GetAtt": ["A", "Nope"]})}), "does not support attribute type Nope"),
        (body({"A": topic(TopicName={"Ref": "B"}), "B": topic(TopicName={"Ref": "A"})}), "Circular dependency between resources"),
        (body({"A": {**topic(), "DependsOn": "C"}}), r"Unresolved resource dependencies \[C\]"),
        (body({"A": {**topic(), "Color": "red"}}), "Invalid template resource property 'Color'"),
        (body({"A-B": topic()}), "non alphanumeric"),
        (body({"A": topic()}, Colors={}), r"Invalid template property or properties \[Colors\]"),
        (body({"A": topic()}, Parameters={"P": {"Type": "String"}}), r"Parameters: \[P\] must have values"),
        (body({"A": topic()}, Parameters={"P": {"Type": "Number", "Default": "x"}}), "must be a number"),
        (body({"A": topic(TopicName={"Fn::ImportValue": "nobody"})}), "No export named nobody found"),
        (body({"A": topic(TopicName={"Fn::Nope": "x"})}), "Fn::Nope"),
        (body({"A": topic(DisplayName="x" * 51_200)}), "less than or equal to 51200"),
        ("Resources:\n  A: {Type: AWS::SNS::Topic}\n  A: {Type: AWS::SNS::Topic}\n", "duplicate key A"),
    ],
)
def test_templates_that_are_refused(cfn: Any, template: str, text: str) -> None:
    """What is wrong is said before anything is touched, in CloudFormation's words."""
    with pytest.raises(ClientError, match=text) as caught:
        cfn.create_stack(StackName="refused", TemplateBody=template)
    assert caught.value.response["Error"]["Code"] == "ValidationError"
    assert cfn.describe_stacks()["Stacks"] == []


def test_iam_needs_a_capability(cfn: Any) -> None:
    """Named roles need CAPABILITY_NAMED_IAM."""
    template = body({"R": {"Type": "AWS::IAM::Role", "Properties": {"RoleName": "r", "AssumeRolePolicyDocument": TRUST}}})
    with pytest.raises(ClientError, match=r"Requires capabilities : \[CAPABILITY_NAMED_IAM\]") as caught:
        cfn.create_stack(StackName="refused", TemplateBody=template, Capabilities=["CAPABILITY_IAM"])
    assert caught.value.response["Error"]["Code"] == "InsufficientCapabilitiesException"
    assert cfn.validate_template(TemplateBody=template)["Capabilities"] == ["CAPABILITY_NAMED_IAM"]


@pytest.mark.parametrize(
    ("resource", "text"),
    [
        (alarm("a", Colour="red"), r"extraneous key \[Colour\] is not permitted"),
        (alarm("a", Dimensions=[{"Name": "n", "Val": "v"}]), r"#/Dimensions/0: extraneous key \[Val\]"),
        (alarm("a", Period="often"), "#/Period: expected type: Integer, found: String"),
        (alarm("a", ComparisonOperator="Bigger"), "Bigger"),
        ({"Type": "AWS::SNS::Subscription", "Properties": {"Protocol": "http"}}, r"required key \[TopicArn\] not found"),
    ],
)
def test_bad_properties_fail_the_resource(aws: LocalAws, cfn: Any, resource: dict[str, Any], text: str) -> None:
    """Creation fails, everything is rolled back, and the event says why."""
    assert make(cfn, "bad", body({"Good": topic(TopicName="good"), "Bad": {**resource, "DependsOn": "Good"}})) == "ROLLBACK_COMPLETE"
    assert re.search(text, reasons(cfn, "bad", "Bad"))
    assert aws.client("sns").list_topics()["Topics"] == []
    with pytest.raises(ClientError, match="ROLLBACK_COMPLETE state and can not be updated"):
        cfn.update_stack(StackName="bad", TemplateBody=body({"Good": topic()}))


def test_a_failed_update_goes_back(aws: LocalAws, cfn: Any) -> None:
    """What was changed is as before, what was added is gone, what was replaced is kept."""
    assert make(cfn, "back", body({"A": alarm("a"), "T": topic(TopicName="old"), "B": alarm("b")})) == "CREATE_COMPLETE"
    broken = {
        "A": alarm("a", Threshold=5),
        "T": topic(TopicName="new"),
        "C": alarm("c"),
        "B": {**alarm("b", ComparisonOperator="x"), "DependsOn": ["A", "T", "C"]},
    }
    assert change(cfn, "back", body(broken)) == "UPDATE_ROLLBACK_COMPLETE"
    found = {one["AlarmName"]: one["Threshold"] for one in aws.client("cloudwatch").describe_alarms()["MetricAlarms"]}
    assert found == {"a": 1.0, "b": 1.0}
    assert [one["TopicArn"].rpartition(":")[2] for one in aws.client("sns").list_topics()["Topics"]] == ["old"]
    assert change(cfn, "back", body({"A": alarm("a", Threshold=7), "T": topic(TopicName="new")})) == "UPDATE_COMPLETE"
    found = {one["AlarmName"]: one["Threshold"] for one in aws.client("cloudwatch").describe_alarms()["MetricAlarms"]}
    assert found == {"a": 7.0}
    assert [one["TopicArn"].rpartition(":")[2] for one in aws.client("sns").list_topics()["Topics"]] == ["new"]


def test_what_fails_half_way_leaves_nothing(aws: LocalAws, cfn: Any) -> None:
    """A canary that ends in ERROR is deleted with its stack's update; a later change set adds it anew."""
    role = {"RoleName": "half", "AssumeRolePolicyDocument": TRUST}
    resources: dict[str, Any] = {"Role": {"Type": "AWS::IAM::Role", "Properties": role}}
    assert make(cfn, "half", body(resources)) == "CREATE_COMPLETE"
    canary = {
        "Name": "half",
        "RuntimeVersion": "syn-python-selenium-12.0",
        "Code": {"Handler": "probe.handler", "S3Bucket": "nowhere", "S3Key": "probe.zip"},
        "ArtifactS3Location": "s3://nowhere/runs",
        "ExecutionRoleArn": {"Fn::GetAtt": ["Role", "Arn"]},
        "Schedule": {"Expression": "rate(1 minute)"},
    }
    resources["Canary"] = {"Type": "AWS::Synthetics::Canary", "Properties": canary}
    assert change(cfn, "half", body(resources)) == "UPDATE_ROLLBACK_COMPLETE"
    assert "NoSuchBucket" in reasons(cfn, "half", "Canary")
    assert aws.client("synthetics").describe_canaries()["Canaries"] == []
    assert changes(cfn, "half", body(resources))["Canary"]["Action"] == "Add"


def test_a_rollback_that_fails_can_be_continued(aws: LocalAws, cfn: Any) -> None:
    """A topic that was deleted behind the stack's back cannot be restored; skipping it ends the rollback."""
    sns = aws.client("sns")
    assert make(cfn, "stuck", body({"T": topic(TopicName="t", DisplayName="one"), "B": alarm("b")})) == "CREATE_COMPLETE"
    arn = sns.list_topics()["Topics"][0]["TopicArn"]
    sns.delete_topic(TopicArn=arn)
    update = {"B": alarm("b", Threshold=2), "T": {**topic(TopicName="t", DisplayName="two"), "DependsOn": "B"}}
    assert change(cfn, "stuck", body(update)) == "UPDATE_ROLLBACK_FAILED"
    with pytest.raises(ClientError, match="can not be updated"):
        cfn.update_stack(StackName="stuck", TemplateBody=body(update))
    cfn.continue_update_rollback(StackName="stuck", ResourcesToSkip=["T"])
    assert settled(cfn, "stuck") == "UPDATE_ROLLBACK_COMPLETE"
    assert aws.client("cloudwatch").describe_alarms()["MetricAlarms"][0]["Threshold"] == 1.0


def test_drift_is_found_and_mended(aws: LocalAws, cfn: Any) -> None:
    """A threshold that was changed by hand and an alarm that is gone are told; the rest is in sync."""
    resources = {"A": alarm("a"), "B": alarm("b"), "T": topic(TopicName="t", DisplayName="d")}
    assert make(cfn, "drifting", body(resources)) == "CREATE_COMPLETE"
    assert drift(cfn, "drifting") == ("IN_SYNC", {})
    cloudwatch = aws.client("cloudwatch")
    cloudwatch.delete_alarms(AlarmNames=["b"])
    cloudwatch.put_metric_alarm(
        AlarmName="a",
        Namespace="N",
        MetricName="M",
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=9,
        ComparisonOperator="GreaterThanThreshold",
    )
    status, found = drift(cfn, "drifting")
    assert status == "DRIFTED"
    assert {name: one["StackResourceDriftStatus"] for name, one in found.items()} == {"A": "MODIFIED", "B": "DELETED"}
    (difference,) = found["A"]["PropertyDifferences"]
    assert (difference["PropertyPath"], float(difference["ExpectedValue"]), float(difference["ActualValue"])) == ("/Threshold", 1.0, 9.0)


def drift(cfn: Any, name: str) -> tuple[str, dict[str, Any]]:
    """Detect drift: the stack's status, and the resources that have drifted."""
    identity = cfn.detect_stack_drift(StackName=name)["StackDriftDetectionId"]

    def look() -> dict[str, Any]:
        answer: dict[str, Any] = cfn.describe_stack_drift_detection_status(StackDriftDetectionId=identity)
        return answer if answer["DetectionStatus"] != "DETECTION_IN_PROGRESS" else {}

    status = eventually(look)
    assert status["DetectionStatus"] == "DETECTION_COMPLETE"
    listed = cfn.describe_stack_resource_drifts(StackName=name, StackResourceDriftStatusFilters=["MODIFIED", "DELETED"])
    assert status["DriftedStackResourceCount"] == len(listed["StackResourceDrifts"])
    return status["StackDriftStatus"], {one["LogicalResourceId"]: one for one in listed["StackResourceDrifts"]}


def test_exports_hold_stacks_together(cfn: Any) -> None:
    """An export that is imported can neither change nor go."""
    exporting = {"Arn": {"Value": {"Ref": "T"}, "Export": {"Name": "topic-arn"}}}
    assert make(cfn, "base", body({"T": topic(TopicName="t")}, Outputs=exporting)) == "CREATE_COMPLETE"
    user = body({"A": alarm("a", AlarmActions=[{"Fn::ImportValue": "topic-arn"}])})
    assert make(cfn, "user", user) == "CREATE_COMPLETE"
    assert cfn.list_imports(ExportName="topic-arn")["Imports"] == ["user"]
    with pytest.raises(ClientError, match="Export topic-arn cannot be deleted as it is in use by user"):
        cfn.delete_stack(StackName="base")
    assert change(cfn, "base", body({"T": topic(TopicName="t2")}, Outputs=exporting)) == "UPDATE_ROLLBACK_COMPLETE"
    assert make(cfn, "double", body({"T": topic(TopicName="x")}, Outputs=exporting)) == "ROLLBACK_COMPLETE"
    for name in ("user", "base"):
        cfn.delete_stack(StackName=name)
        eventually(lambda name=name: all(one["StackName"] != name for one in cfn.describe_stacks()["Stacks"]))


def test_protection_retention_and_tags(aws: LocalAws, cfn: Any) -> None:
    """A protected stack stays, a retained resource stays, a stack's tags are its resources'."""
    kept = {**topic(TopicName="kept"), "DeletionPolicy": "Retain"}
    tags = [{"Key": "team", "Value": "store"}]
    template = body({"K": kept, "T": topic(TopicName="t", Tags=[{"Key": "own", "Value": "1"}])})
    assert make(cfn, "guarded", template, Tags=tags, EnableTerminationProtection=True) == "CREATE_COMPLETE"
    sns = aws.client("sns")
    arn = f"arn:aws:sns:{EAST}:{aws.plan.account}:t"
    found = {tag["Key"]: tag["Value"] for tag in sns.list_tags_for_resource(ResourceArn=arn)["Tags"]}
    assert found == {"team": "store", "own": "1"}
    assert change(cfn, "guarded", template, Tags=[{"Key": "team", "Value": "other"}]) == "UPDATE_COMPLETE"
    found = {tag["Key"]: tag["Value"] for tag in sns.list_tags_for_resource(ResourceArn=arn)["Tags"]}
    assert found == {"team": "other", "own": "1"}
    with pytest.raises(ClientError, match="TerminationProtection is enabled"):
        cfn.delete_stack(StackName="guarded")
    cfn.update_termination_protection(StackName="guarded", EnableTerminationProtection=False)
    identity = cfn.describe_stacks(StackName="guarded")["Stacks"][0]["StackId"]
    cfn.delete_stack(StackName="guarded")
    assert settled(cfn, identity) == "DELETE_COMPLETE"
    assert ("K", "DELETE_SKIPPED") in events(cfn, identity)
    left = sns.list_topics()["Topics"]
    assert [one["TopicArn"].rpartition(":")[2] for one in left] == ["kept"]
    sns.delete_topic(TopicArn=left[0]["TopicArn"])


def test_a_bucket_with_objects_stops_the_deletion(aws: LocalAws, cfn: Any) -> None:
    """DELETE_FAILED; then the bucket can be retained."""
    bucket = {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "full", "VersioningConfiguration": {"Status": "Enabled"}}}
    assert make(cfn, "holding", body({"B": bucket, "T": topic()})) == "CREATE_COMPLETE"
    aws.client("s3").put_object(Bucket="full", Key="k", Body=b"x")
    identity = cfn.describe_stacks(StackName="holding")["Stacks"][0]["StackId"]
    cfn.delete_stack(StackName="holding")
    assert settled(cfn, identity) == "DELETE_FAILED"
    assert "not empty" in reasons(cfn, identity, "B")
    cfn.delete_stack(StackName="holding", RetainResources=["B"])
    assert settled(cfn, identity) == "DELETE_COMPLETE"


def test_large_templates_come_from_s3(aws: LocalAws, cfn: Any) -> None:
    """Beyond 51,200 bytes, by the address of the lab's S3."""
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="templates")
    template = body({f"A{index}": alarm(f"alarm-{index}", AlarmDescription="d" * 800) for index in range(60)})
    assert len(template) > 51_200
    s3.put_object(Bucket="templates", Key="big.json", Body=template.encode())
    endpoint = aws.plan.regions[EAST].aws_endpoint
    cfn.create_stack(StackName="large", TemplateURL=f"{endpoint}/templates/big.json")
    assert settled(cfn, "large") == "CREATE_COMPLETE"
    assert len(cfn.list_stack_resources(StackName="large")["StackResourceSummaries"]) == 60
    assert json.dumps(cfn.get_template(StackName="large")["TemplateBody"])


@pytest.mark.slow
def test_every_other_type_acts(aws: LocalAws, cfn: Any) -> None:
    """Types that the first test leaves out: made, read back without drift, changed, deleted."""

    def template(word: str) -> str:
        return body(
            {
                "Logs": {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": "/shop", "RetentionInDays": "7"}},
                "Filter": {
                    "Type": "AWS::Logs::MetricFilter",
                    "Properties": {
                        "FilterName": "errors",
                        "LogGroupName": {"Ref": "Logs"},
                        "FilterPattern": word,
                        "MetricTransformations": [{"MetricName": "Errors", "MetricNamespace": "Shop", "MetricValue": "1"}],
                    },
                },
                "Queue": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": "q", "VisibilityTimeout": 30 if word == "a" else 40}},
                "QueuePolicy": {
                    "Type": "AWS::SQS::QueuePolicy",
                    "Properties": {
                        "Queues": [{"Ref": "Queue"}],
                        "PolicyDocument": {
                            "Version": "2012-10-17",
                            "Statement": [
                                {
                                    "Effect": "Allow",
                                    "Principal": "*",
                                    "Action": "sqs:SendMessage",
                                    "Resource": {"Fn::GetAtt": ["Queue", "Arn"]},
                                }
                            ],
                        },
                    },
                },
                "Rule": {
                    "Type": "AWS::Events::Rule",
                    "Properties": {
                        "Name": "rule",
                        "EventPattern": {"source": [word]},
                        "Targets": [{"Id": "q", "Arn": {"Fn::GetAtt": ["Queue", "Arn"]}}],
                    },
                },
                "Parameter": {"Type": "AWS::SSM::Parameter", "Properties": {"Name": "/shop/p", "Type": "String", "Value": word}},
                "Document": {
                    "Type": "AWS::SSM::Document",
                    "Properties": {
                        "Name": "Runbook",
                        "DocumentType": "Automation",
                        "UpdateMethod": "NewVersion",
                        "Content": {
                            "schemaVersion": "0.3",
                            "description": word,
                            "mainSteps": [{"name": "wait", "action": "aws:sleep", "inputs": {"Duration": "PT1S"}}],
                        },
                    },
                },
                "Managed": {"Type": "AWS::IAM::ManagedPolicy", "Properties": {"ManagedPolicyName": "m", "PolicyDocument": {**EVERYTHING}}},
                "Role": {
                    "Type": "AWS::IAM::Role",
                    "Properties": {
                        "RoleName": "typed",
                        "AssumeRolePolicyDocument": TRUST,
                        "Description": word,
                        "ManagedPolicyArns": [{"Ref": "Managed"}],
                    },
                },
                "Policy": {
                    "Type": "AWS::IAM::Policy",
                    "Properties": {"PolicyName": "inline", "Roles": [{"Ref": "Role"}], "PolicyDocument": EVERYTHING},
                },
                "Bucket": {
                    "Type": "AWS::S3::Bucket",
                    "Properties": {
                        "BucketName": "typed",
                        "VersioningConfiguration": {"Status": "Enabled"},
                        "BucketEncryption": {
                            "ServerSideEncryptionConfiguration": [{"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
                        },
                        "PublicAccessBlockConfiguration": {"BlockPublicAcls": True, "BlockPublicPolicy": "true"},
                        "LifecycleConfiguration": {"Rules": [{"Id": "r", "Status": "Enabled", "Prefix": "runs/", "ExpirationInDays": 7}]},
                    },
                },
                "BucketPolicy": {
                    "Type": "AWS::S3::BucketPolicy",
                    "Properties": {
                        "Bucket": {"Ref": "Bucket"},
                        "PolicyDocument": {
                            "Version": "2012-10-17",
                            "Statement": [
                                {"Effect": "Deny", "Principal": "*", "Action": "s3:DeleteBucket", "Resource": "arn:aws:s3:::typed"}
                            ],
                        },
                    },
                },
                "Alarm": alarm("muted"),
                "Mute": {
                    "Type": "AWS::CloudWatch::AlarmMuteRule",
                    "DependsOn": "Alarm",
                    "Properties": {
                        "Name": "night",
                        "Description": word,
                        "Rule": {"Schedule": {"Expression": "cron(0 1 * * *)", "Duration": "PT1H"}},
                        "MuteTargets": {"AlarmNames": ["muted"]},
                    },
                },
                "Group": {"Type": "AWS::Synthetics::Group", "Properties": {"Name": "group"}},
                "Query": {
                    "Type": "AWS::Logs::QueryDefinition",
                    "Properties": {"Name": "query", "QueryString": f"filter @message like /{word}/"},
                },
            }
        )

    assert make(cfn, "types", template("a")) == "CREATE_COMPLETE", [
        (logical, reasons(cfn, "types", logical)) for logical, status in events(cfn, "types") if status == "CREATE_FAILED"
    ]
    assert drift(cfn, "types") == ("IN_SYNC", {})
    status = change(cfn, "types", template("b"))
    assert status == "UPDATE_COMPLETE", [
        (logical, reasons(cfn, "types", logical)) for logical, one in events(cfn, "types") if one == "UPDATE_FAILED"
    ]
    assert drift(cfn, "types") == ("IN_SYNC", {})
    assert aws.client("ssm").get_parameter(Name="/shop/p")["Parameter"]["Value"] == "b"
    assert json.loads(aws.client("ssm").get_document(Name="Runbook")["Content"])["description"] == "b"
    assert json.loads(aws.client("events").describe_rule(Name="rule")["EventPattern"]) == {"source": ["b"]}
    assert aws.client("logs").describe_metric_filters(logGroupName="/shop")["metricFilters"][0]["filterPattern"] == "b"
    identity = cfn.describe_stacks(StackName="types")["Stacks"][0]["StackId"]
    cfn.delete_stack(StackName="types")
    assert settled(cfn, identity) == "DELETE_COMPLETE", [
        (logical, reasons(cfn, identity, logical)) for logical, one in events(cfn, identity) if one == "DELETE_FAILED"
    ]


def test_a_custom_name_cannot_be_replaced(cfn: Any) -> None:
    """A change that would replace a named resource under the same name fails, and says to rename."""
    role = {"Type": "AWS::IAM::Role", "Properties": {"RoleName": "named", "Path": "/a/", "AssumeRolePolicyDocument": TRUST}}
    assert make(cfn, "named", body({"R": role})) == "CREATE_COMPLETE"
    moved = {**role, "Properties": {**role["Properties"], "Path": "/b/"}}
    assert changes(cfn, "named", body({"R": moved}))["R"]["Replacement"] == "True"
    assert change(cfn, "named", body({"R": moved})) == "UPDATE_ROLLBACK_COMPLETE"
    assert "custom-named resource requires replacing" in reasons(cfn, "named", "R")


def test_stacks_belong_to_a_region_and_outlive_its_loss(aws: LocalAws, cfn: Any) -> None:
    """Another Region does not see the stack; an operation waits for its Region."""
    assert make(cfn, "local", body({"T": topic(TopicName="t")})) == "CREATE_COMPLETE"
    assert aws.client("cloudformation", WEST).describe_stacks()["Stacks"] == []
    with pytest.raises(ClientError, match="Stack with id local does not exist"):
        aws.client("cloudformation", WEST).describe_stacks(StackName="local")


def test_waiters_of_boto3_work(cfn: Any) -> None:
    """The states are those that botocore waits for."""
    quick = {"Delay": 1, "MaxAttempts": 30}
    cfn.create_change_set(StackName="waited", ChangeSetName="c", ChangeSetType="CREATE", TemplateBody=body({"T": topic()}))
    cfn.get_waiter("change_set_create_complete").wait(StackName="waited", ChangeSetName="c", WaiterConfig=quick)
    cfn.execute_change_set(StackName="waited", ChangeSetName="c")
    cfn.get_waiter("stack_create_complete").wait(StackName="waited", WaiterConfig=quick)
    cfn.update_stack(StackName="waited", TemplateBody=body({"T": topic(DisplayName="d")}))
    cfn.get_waiter("stack_update_complete").wait(StackName="waited", WaiterConfig=quick)
    with pytest.raises(ClientError, match=r"No updates are to be performed\."):
        cfn.update_stack(StackName="waited", TemplateBody=body({"T": topic(DisplayName="d")}))
    cfn.delete_stack(StackName="waited")
    cfn.get_waiter("stack_delete_complete").wait(StackName="waited", WaiterConfig=quick)
