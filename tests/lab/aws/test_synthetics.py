"""Synthetics: canaries' states, refusals, and runs that really happen."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError
from local_aws import EAST, WEST, LocalAws, eventually, local_aws, package

from lab.aws.synthetics_runner import start_delay

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPT = """
import os, time
def handler(event, context):
    print("canary says", os.environ.get("WORD"), os.getpid())
    if os.environ.get("WORD") == "fail":
        raise RuntimeError("the store is closed")
    if os.environ.get("WORD") == "hang":
        time.sleep(600)
    return "done"
"""
BUCKET = "canary-runs"


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROSSWATCH_LAB_START_DELAY", "0,1")
        with local_aws(tmp_path_factory.mktemp("synthetics"), speed=20) as running:
            running.role("canary")
            running.client("s3").create_bucket(Bucket=BUCKET)
            yield running


def settings(aws: LocalAws, **changes: Any) -> dict[str, Any]:
    """CreateCanary's parameters, all good."""
    return {
        "Name": "probe",
        "Code": {"Handler": "probe.handler", "ZipFile": package(python__probe=SCRIPT)},
        "ArtifactS3Location": f"s3://{BUCKET}/runs",
        "ExecutionRoleArn": f"arn:aws:iam::{aws.plan.account}:role/canary",
        "Schedule": {"Expression": "rate(1 minute)"},
        "RunConfig": {"TimeoutInSeconds": 59},
        "RuntimeVersion": "syn-python-selenium-12.0",
        **changes,
    }


def state(synthetics: Any, name: str) -> str:
    """A canary's state; GONE where there is none."""
    try:
        return str(synthetics.get_canary(Name=name)["Canary"]["Status"]["State"])
    except synthetics.exceptions.ResourceNotFoundException:
        return "GONE"


def become(synthetics: Any, name: str, wanted: str) -> None:
    """Wait for a state."""
    eventually(lambda: state(synthetics, name) == wanted)


def create(aws: LocalAws, **changes: Any) -> Any:
    """A canary that is READY, and its client."""
    synthetics = aws.client("synthetics")
    made = synthetics.create_canary(**settings(aws, **changes))["Canary"]
    assert made["Status"]["State"] == "CREATING"
    become(synthetics, made["Name"], "READY")
    return synthetics


def remove(synthetics: Any, name: str) -> None:
    """Stop and delete."""
    if state(synthetics, name) == "RUNNING":
        synthetics.stop_canary(Name=name)
        become(synthetics, name, "STOPPED")
    synthetics.delete_canary(Name=name)
    become(synthetics, name, "GONE")


def runs(synthetics: Any, name: str, count: int = 1, **extra: Any) -> list[dict[str, Any]]:
    """At least ``count`` completed runs, the latest first."""

    def look() -> list[dict[str, Any]]:
        done = [run for run in synthetics.get_canary_runs(Name=name, **extra)["CanaryRuns"] if run["Status"]["State"] != "RUNNING"]
        return done if len(done) >= count else []

    return eventually(look, 30)


@pytest.mark.slow
def test_a_canary_runs_on_its_schedule(aws: LocalAws) -> None:
    """Runs come a minute of lab time apart, leave artifacts in S3 and lines in the log group, and are metrics of CloudWatchSynthetics."""
    synthetics = create(aws, Name="regular", RunConfig={"TimeoutInSeconds": 59, "EnvironmentVariables": {"WORD": "hello"}})
    synthetics.start_canary(Name="regular")
    become(synthetics, "regular", "RUNNING")
    latest, first = runs(synthetics, "regular", 2)[-2:]
    assert (first["Status"]["State"], first["Status"]["TestResult"]) == ("PASSED", "PASSED")
    gap = (latest["Timeline"]["Started"] - first["Timeline"]["Started"]).total_seconds()
    assert 55 <= gap <= 70
    bucket, _, prefix = first["ArtifactS3Location"].partition("/")
    keys = [item["Key"] for item in aws.client("s3").list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]]
    assert any(key.endswith("SyntheticsReport-PASSED.json") for key in keys)
    canary = synthetics.get_canary(Name="regular")["Canary"]
    group = f"/aws/lambda/cwsyn-regular-{canary['Id']}"
    lines = [event["message"] for event in aws.client("logs").filter_log_events(logGroupName=group)["events"]]
    assert any("canary says hello" in line for line in lines)
    last = synthetics.describe_canaries_last_run(Names=["regular"])["CanariesLastRun"][0]["LastRun"]
    assert last["Status"]["State"] == "PASSED"
    metrics = aws.client("cloudwatch").list_metrics(Namespace="CloudWatchSynthetics", MetricName="SuccessPercent")["Metrics"]
    assert [{"Name": "CanaryName", "Value": "regular"}] in [metric["Dimensions"] for metric in metrics]
    assert "EnvironmentVariables" not in canary["RunConfig"]
    remove(synthetics, "regular")


@pytest.mark.slow
def test_a_failing_canary_says_why_and_is_retried(aws: LocalAws) -> None:
    """A retry belongs to the same scheduled run."""
    retried = {"Expression": "rate(1 hour)", "RetryConfig": {"MaxRetries": 1}}
    run_config = {"TimeoutInSeconds": 300, "EnvironmentVariables": {"WORD": "fail"}}
    synthetics = create(aws, Name="failing", Schedule=retried, RunConfig=run_config)
    synthetics.start_canary(Name="failing")
    second, first = runs(synthetics, "failing", 2)
    assert first["Status"]["State"] == second["Status"]["State"] == "FAILED"
    assert first["Status"]["StateReasonCode"] == "CANARY_FAILURE"
    assert "the store is closed" in first["Status"]["StateReason"]
    assert first["ScheduledRunId"] == second["ScheduledRunId"]
    assert (first.get("RetryAttempt"), second["RetryAttempt"]) == (None, 1)
    become(synthetics, "failing", "RUNNING")
    remove(synthetics, "failing")


def test_a_hanging_canary_times_out(aws: LocalAws) -> None:
    """The run ends after its timeout of lab time (and the runtime's 2.5 wall seconds of patience in a lab that runs fast)."""
    synthetics = create(aws, Name="hanging", RunConfig={"TimeoutInSeconds": 20, "EnvironmentVariables": {"WORD": "hang"}})
    synthetics.start_canary(Name="hanging")
    (run, *_) = runs(synthetics, "hanging")
    assert "timed out" in run["Status"]["StateReason"].lower()
    took = (run["Timeline"]["Completed"] - run["Timeline"]["Started"]).total_seconds()
    assert 20 <= took < 20 + 5 * aws.plan.clock.speed
    become(synthetics, "hanging", "RUNNING")
    remove(synthetics, "hanging")


def test_states_that_forbid(aws: LocalAws) -> None:
    """What cannot be done now is a ConflictException."""
    synthetics = aws.client("synthetics")
    synthetics.create_canary(**settings(aws, Name="stubborn"))
    for operation in ("start_canary", "stop_canary", "delete_canary"):
        with pytest.raises(ClientError) as caught:
            getattr(synthetics, operation)(Name="stubborn")
        assert caught.value.response["Error"]["Code"] == "ConflictException"
    with pytest.raises(ClientError, match="can't be modified"):
        synthetics.update_canary(Name="stubborn", SuccessRetentionPeriodInDays=3)
    become(synthetics, "stubborn", "READY")
    with pytest.raises(ClientError, match="already exists"):
        synthetics.create_canary(**settings(aws, Name="stubborn"))
    synthetics.start_canary(Name="stubborn")
    become(synthetics, "stubborn", "RUNNING")
    with pytest.raises(ClientError, match="ConflictException"):
        synthetics.delete_canary(Name="stubborn")
    remove(synthetics, "stubborn")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"Name": "Bad Name"}, "name"),
        ({"RuntimeVersion": "syn-nonsense-99"}, "Invalid runtime version"),
        ({"RuntimeVersion": "syn-python-selenium-5.1"}, "Deprecated runtime version specified"),
        ({"RuntimeVersion": "syn-nodejs-puppeteer-16.0"}, "runs Python canaries"),
        ({"Schedule": {"Expression": "whenever you like"}}, "Invalid schedule expression"),
        ({"Schedule": {"Expression": "rate(2 hours)"}}, "between 1 minute and 1 hour"),
        ({"Code": {"Handler": "probe", "ZipFile": b"x"}}, "handler"),
        ({"Code": {"Handler": "probe.handler"}}, "either as ZipFile or as S3Bucket"),
        ({"RunConfig": {"TimeoutInSeconds": 59, "MemoryInMB": 1000}}, "multiple of 64"),
        ({"RunConfig": {"TimeoutInSeconds": 61}}, "less than or equal to the frequency"),
        ({"RunConfig": {"TimeoutInSeconds": 59, "ActiveTracing": True}}, "active tracing"),
        ({"RunConfig": {"TimeoutInSeconds": 59, "EnvironmentVariables": {"A1": "x" * 4096}}}, "4KB"),
        ({"RunConfig": {"TimeoutInSeconds": 59, "EnvironmentVariables": {"AWS_REGION": "x"}}}, "reserved keys"),
        ({"RunConfig": {"TimeoutInSeconds": 59, "EnvironmentVariables": {"1": "x"}}}, "environmentVariables"),
        ({"ArtifactS3Location": "bucket/prefix"}, "artifact S3 location"),
        ({"VpcConfig": {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}}, "no VPCs"),
        (
            {"Schedule": {"Expression": "rate(1 hour)", "RetryConfig": {"MaxRetries": 2}}, "RunConfig": {"TimeoutInSeconds": 600}},
            "less than 600",
        ),
    ],
)
def test_refusals(aws: LocalAws, changes: dict[str, Any], text: str) -> None:
    """What CreateCanary refuses, in its words."""
    with pytest.raises(ClientError, match=text):
        aws.client("synthetics").create_canary(**settings(aws, **changes))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"Code": {"Handler": "probe.handler", "S3Bucket": BUCKET, "S3Key": "none.zip"}}, "S3 Error Code: NoSuchKey"),
        ({"Code": {"Handler": "probe.handler", "ZipFile": b"no zip"}}, "Could not unzip"),
        ({"ExecutionRoleArn": "arn:aws:iam::123456789012:role/nobody"}, "cannot be assumed by Lambda"),
    ],
)
def test_a_canary_that_cannot_be_made_is_in_error(aws: LocalAws, changes: dict[str, Any], text: str) -> None:
    """The call is accepted; the canary ends in ERROR and says why."""
    synthetics = aws.client("synthetics")
    synthetics.create_canary(**settings(aws, Name="broken", **changes))
    become(synthetics, "broken", "ERROR")
    status = synthetics.get_canary(Name="broken")["Canary"]["Status"]
    assert status["StateReasonCode"] == "CREATE_FAILED"
    assert text in status["StateReason"]
    remove(synthetics, "broken")


@pytest.mark.slow
def test_the_same_key_is_not_read_again(aws: LocalAws) -> None:
    """UpdateCanary with an unchanged S3 key keeps the old code; another version or key brings the new."""
    s3 = aws.client("s3")
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    code = {"Handler": "probe.handler", "S3Bucket": BUCKET, "S3Key": "probe.zip"}
    s3.put_object(Bucket=BUCKET, Key="probe.zip", Body=package(python__probe='def handler(e, c):\n    print("old")\n'))
    synthetics = create(aws, Name="sticky", Code=code, Schedule={"Expression": "rate(0 minute)"})
    version = s3.put_object(Bucket=BUCKET, Key="probe.zip", Body=package(python__probe='def handler(e, c):\n    print("new")\n'))[
        "VersionId"
    ]
    said = []
    for changes in ({}, {"S3Version": version}):
        synthetics.update_canary(Name="sticky", Code={**code, **changes})
        eventually(lambda: state(synthetics, "sticky") in ("READY", "STOPPED"))
        before = len(synthetics.get_canary_runs(Name="sticky")["CanaryRuns"])
        synthetics.start_canary(Name="sticky")
        runs(synthetics, "sticky", before + 1)
        become(synthetics, "sticky", "STOPPED")
        group = f"/aws/lambda/cwsyn-sticky-{synthetics.get_canary(Name='sticky')['Canary']['Id']}"
        lines = [event["message"] for event in aws.client("logs").filter_log_events(logGroupName=group)["events"]]
        said.append([line for line in lines if line in ("old", "new")][-1])
    assert said == ["old", "new"]
    with pytest.raises(ClientError, match="Code must be provided when updating to a different runtime"):
        synthetics.update_canary(Name="sticky", RuntimeVersion="syn-python-selenium-14.0")
    remove(synthetics, "sticky")


def test_a_dry_run_is_tried_before_it_is_taken_over(aws: LocalAws) -> None:
    """The canary keeps its settings until UpdateCanary takes those of the dry run."""
    synthetics = create(aws, Name="careful", Schedule={"Expression": "rate(1 hour)"}, RunConfig={"TimeoutInSeconds": 60})
    tried = synthetics.start_canary_dry_run(Name="careful", RunConfig={"TimeoutInSeconds": 120, "EnvironmentVariables": {"WORD": "dry"}})
    identity = tried["DryRunConfig"]["DryRunId"]
    (run,) = runs(synthetics, "careful", RunType="DRY_RUN")
    assert (run["Status"]["State"], run["DryRunConfig"]["DryRunId"]) == ("PASSED", identity)
    eventually(lambda: dry_run_status(synthetics, identity) == "PASSED")
    shown = synthetics.get_canary(Name="careful", DryRunId=identity)["Canary"]
    assert shown["RunConfig"]["TimeoutInSeconds"] == 120
    assert synthetics.get_canary(Name="careful")["Canary"]["RunConfig"]["TimeoutInSeconds"] == 60
    assert synthetics.get_canary_runs(Name="careful")["CanaryRuns"] == []
    with pytest.raises(ClientError, match="Only Schedule"):
        synthetics.update_canary(Name="careful", DryRunId=identity, SuccessRetentionPeriodInDays=3)
    synthetics.update_canary(Name="careful", DryRunId=identity)
    become(synthetics, "careful", "READY")
    assert synthetics.get_canary(Name="careful")["Canary"]["RunConfig"]["TimeoutInSeconds"] == 120
    remove(synthetics, "careful")


def dry_run_status(synthetics: Any, identity: str) -> str:
    """How far a dry run of the canary ``careful`` is."""
    return str(synthetics.get_canary(Name="careful", DryRunId=identity)["Canary"]["DryRunConfig"]["LastDryRunExecutionStatus"])


@pytest.mark.slow
def test_a_region_that_is_down_runs_nothing(aws: LocalAws) -> None:
    """The process is killed with its Region; runs go on when it is back."""
    synthetics = create(aws, Name="doomed", RunConfig={"TimeoutInSeconds": 59, "EnvironmentVariables": {"WORD": "hang"}})
    synthetics.start_canary(Name="doomed")
    canary = synthetics.get_canary(Name="doomed")["Canary"]
    eventually(lambda: any(run["Status"]["State"] == "RUNNING" for run in synthetics.get_canary_runs(Name="doomed")["CanaryRuns"]))
    aws.take_down(EAST)
    try:
        eventually(lambda: not processes_of(canary["Id"]))
        started = aws.world.clock.now()
        aws.world.clock.sleep(150)
        assert not processes_of(canary["Id"])
    finally:
        aws.take_down(EAST, down=False)
    recorded = [run["Timeline"]["Started"].timestamp() for run in synthetics.get_canary_runs(Name="doomed")["CanaryRuns"]]
    assert not [moment for moment in recorded if started < moment < started + 140]
    eventually(lambda: synthetics.get_canary_runs(Name="doomed")["CanaryRuns"][0]["Timeline"]["Started"].timestamp() > started + 150)
    synthetics.stop_canary(Name="doomed")
    eventually(lambda: state(synthetics, "doomed") == "STOPPED")
    remove(synthetics, "doomed")


def processes_of(canary_id: str) -> list[int]:
    """The processes that run as a canary's function."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if canary_id.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


def test_groups_are_global(aws: LocalAws) -> None:
    """A group made in one Region holds canaries of both."""
    east, west = aws.client("synthetics"), aws.client("synthetics", WEST)
    create(aws, Name="member")
    group = east.create_group(Name="all", Tags={"team": "store"})["Group"]
    arn = f"arn:aws:synthetics:{EAST}:{aws.plan.account}:canary:member"
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        west.associate_resource(GroupIdentifier="all", ResourceArn=arn)
    east.associate_resource(GroupIdentifier="all", ResourceArn=arn)
    assert west.list_group_resources(GroupIdentifier=group["Id"])["Resources"] == [arn]
    assert [one["Name"] for one in east.list_associated_groups(ResourceArn=arn)["Groups"]] == ["all"]
    assert west.list_tags_for_resource(ResourceArn=group["Arn"])["Tags"] == {"team": "store"}
    remove(east, "member")
    assert west.list_group_resources(GroupIdentifier="all")["Resources"] == []
    east.delete_group(GroupIdentifier="all")


def test_tags_regions_and_runtimes(aws: LocalAws) -> None:
    """Canaries belong to a Region; runtimes have dates."""
    synthetics = create(aws, Name="tagged", Tags={"a": "1"})
    arn = f"arn:aws:synthetics:{EAST}:{aws.plan.account}:canary:tagged"
    synthetics.tag_resource(ResourceArn=arn, Tags={"b": "2"})
    synthetics.untag_resource(ResourceArn=arn, TagKeys=["a"])
    assert synthetics.get_canary(Name="tagged")["Canary"]["Tags"] == {"b": "2"}
    assert aws.client("synthetics", WEST).describe_canaries()["Canaries"] == []
    versions = {one["VersionName"]: one for one in synthetics.describe_runtime_versions()["RuntimeVersions"]}
    assert "DeprecationDate" in versions["syn-python-selenium-5.1"]
    assert "DeprecationDate" not in versions["syn-python-selenium-14.0"]
    remove(synthetics, "tagged")


@pytest.mark.slow
def test_eventbridge_hears_of_runs(aws: LocalAws) -> None:
    """Every run is an event."""
    sqs, events = aws.client("sqs"), aws.client("events")
    url = sqs.create_queue(QueueName="heard")["QueueUrl"]
    arn = f"arn:aws:sqs:{EAST}:{aws.plan.account}:heard"
    statement = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sqs:SendMessage", "Resource": arn}
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps({"Version": "2012-10-17", "Statement": [statement]})})
    events.put_rule(Name="runs", EventPattern='{"source": ["aws.synthetics"], "detail-type": ["Synthetics Canary TestRun Successful"]}')
    events.put_targets(Rule="runs", Targets=[{"Id": "q", "Arn": arn}])
    synthetics = create(aws, Name="announced", Schedule={"Expression": "rate(0 minute)"})
    synthetics.start_canary(Name="announced")
    (message,) = eventually(lambda: sqs.receive_message(QueueUrl=url).get("Messages"))
    assert json.loads(message["Body"])["detail"]["canary-name"] == "announced"
    become(synthetics, "announced", "STOPPED")
    remove(synthetics, "announced")


@pytest.mark.parametrize("text", ["x", "1", "5,2", "-1,2"])
def test_a_bad_start_delay_is_named(text: str) -> None:
    """The message names the variable."""
    with pytest.raises(ValueError, match="CROSSWATCH_LAB_START_DELAY"):
        start_delay({"CROSSWATCH_LAB_START_DELAY": text})


@pytest.mark.slow
def test_closing_ends_the_processes(aws: LocalAws, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No canary outlives its AWS."""
    with local_aws(tmp_path_factory.mktemp("short"), speed=20, fresh=False) as short:
        synthetics = create(short, Name="brief", RunConfig={"TimeoutInSeconds": 59, "EnvironmentVariables": {"WORD": "hang"}})
        synthetics.start_canary(Name="brief")
        identity = synthetics.get_canary(Name="brief")["Canary"]["Id"]
        eventually(lambda: processes_of(identity))
    time.sleep(0.2)
    assert processes_of(identity) == []
