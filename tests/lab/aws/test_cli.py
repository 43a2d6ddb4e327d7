"""The stock AWS CLI against the gateway in its own process: what an operator would type shows the real contents."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
import requests

from lab.aws.__main__ import MOST_DESCRIPTORS, allow_descriptors
from lab.plan import LabPlan

if TYPE_CHECKING:
    from collections.abc import Iterator

REGION = "us-west-2"
AWS = Path(sys.executable).with_name("aws")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabPlan]:
    directory = tmp_path_factory.mktemp("aws")
    made = LabPlan.make(directory, speed=10)
    made.save()
    process = subprocess.Popen([sys.executable, "-m", "lab.aws", "--plan", str(directory / "plan.json")], stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                requests.get(f"http://127.0.0.1:{made.control_port}/health", timeout=1)
                break
            except requests.ConnectionError:
                time.sleep(0.1)
        yield made
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (0, b"")


def cli(plan: LabPlan, *arguments: str) -> dict[str, Any]:
    """What a command of the CLI prints."""
    environment = {**os.environ, **plan.aws_environment("admin", REGION), "HOME": plan.directory}
    environment.pop("AWS_ENDPOINT_URL")
    command = [str(AWS), "--endpoint-url", plan.regions[REGION].aws_endpoint, "--output", "json", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout)) if done.stdout.strip() else {}


@pytest.mark.slow
def test_an_operator_sees_the_real_contents(plan: LabPlan) -> None:
    """Alarms, metric data, dashboards, logs and traces; times given in wall time are understood."""
    pair = plan.credentials["admin"]

    def client(service: str) -> Any:
        return boto3.client(
            service,
            region_name=REGION,
            endpoint_url=plan.regions[REGION].aws_endpoint,
            aws_access_key_id=pair.access_key,
            aws_secret_access_key=pair.secret_key,
        )

    cloudwatch, logs, now = client("cloudwatch"), client("logs"), time.time()
    cloudwatch.put_metric_alarm(
        AlarmName="store-down",
        Namespace="Crosswatch/Probe",
        MetricName="Up",
        Statistic="Minimum",
        Period=10,
        EvaluationPeriods=3,
        Threshold=1,
        ComparisonOperator="LessThanThreshold",
    )
    cloudwatch.put_metric_data(Namespace="Crosswatch/Probe", MetricData=[{"MetricName": "Up", "Value": 1, "StorageResolution": 1}])
    body = json.dumps({"widgets": [{"type": "text", "properties": {"markdown": "hello"}}]})
    cloudwatch.put_dashboard(DashboardName="ops", DashboardBody=body)
    logs.create_log_group(logGroupName="/store/ui")
    logs.create_log_stream(logGroupName="/store/ui", logStreamName="1")
    rows = [
        {"timestamp": round(now * 1000), "message": '{"level": "ERROR"}'},
        {"timestamp": round(now * 1000), "message": '{"level": "INFO"}'},
    ]
    logs.put_log_events(logGroupName="/store/ui", logStreamName="1", logEvents=rows)
    segment = {
        "name": "ui",
        "id": "0" * 15 + "1",
        "trace_id": f"1-{int(now):08x}-{'a' * 24}",
        "start_time": now - 1,
        "end_time": now,
        "fault": True,
    }
    client("xray").put_trace_segments(TraceSegmentDocuments=[json.dumps(segment)])
    time.sleep(1.1)  # the ingestion delay, ten lab seconds

    (alarm,) = cli(plan, "cloudwatch", "describe-alarms")["MetricAlarms"]
    assert (alarm["AlarmName"], alarm["MetricName"]) == ("store-down", "Up")
    stat = {"Metric": {"Namespace": "Crosswatch/Probe", "MetricName": "Up"}, "Period": 10, "Stat": "Minimum"}
    times = ("--start-time", str(int(now) - 60), "--end-time", str(int(now) + 60))
    found = cli(plan, "cloudwatch", "get-metric-data", "--metric-data-queries", json.dumps([{"Id": "up", "MetricStat": stat}]), *times)
    assert found["MetricDataResults"][0]["Values"] == [1.0]
    assert cli(plan, "cloudwatch", "get-dashboard", "--dashboard-name", "ops")["DashboardBody"] == body
    events = cli(plan, "logs", "filter-log-events", "--log-group-name", "/store/ui", "--filter-pattern", '{ $.level = "ERROR" }')["events"]
    assert [event["message"] for event in events] == ['{"level": "ERROR"}']
    traces = cli(plan, "xray", "get-trace-summaries", *times, "--filter-expression", 'service("ui") { fault }')["TraceSummaries"]
    assert [trace["Id"] for trace in traces] == [segment["trace_id"]]


def test_as_many_files_may_be_open_as_the_machine_allows() -> None:
    """The process raises its own limit, to at most 65,536."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, limits[1]), limits[1]))
    try:
        allow_descriptors()
        most = MOST_DESCRIPTORS if limits[1] == resource.RLIM_INFINITY else min(limits[1], MOST_DESCRIPTORS)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (most, limits[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
