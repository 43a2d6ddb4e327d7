"""Automation: documents of schema 0.3, run step by step against a real local AWS."""

from __future__ import annotations

import json
import os
import secrets
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.aws import registry
from lab.aws.gateway import Gateway
from lab.aws.services.automation.document import DocumentError, parse
from lab.aws.services.automation.expressions import UnresolvedError, select, substitute
from lab.aws.world import LocalWorld
from lab.plan import LabPlan

REGION = "us-west-2"
FINAL = {"Success", "Failed", "TimedOut", "Cancelled", "Rejected"}


ADD = """
def handler(events, context):
    print('adding')
    return {'sum': events['a'] + len(events['names']), 'names': events['names']}
"""
TRY = """
import pathlib
def handler(events, context):
    file = pathlib.Path(events['file'])
    file.open('a').write('x')
    assert len(file.read_text()) >= 3
"""
WAIT = """
import time
def handler(events, context):
    began = time.time()
    time.sleep(60)
    return {'took': time.time() - began}
"""
HANG = """
import os, pathlib, time
def handler(events, context):
    pathlib.Path(events['file']).write_text(str(os.getpid()))
    time.sleep(600)
"""


class Automation:
    """Creates and runs documents."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.ssm = gateway.world.client("ssm", REGION)
        self.tag = secrets.token_hex(4)  # moto keeps documents and parameters as long as the test process lives

    def create(self, steps: list[dict[str, Any]], name: str = "doc", **more: Any) -> None:
        content = yaml.safe_dump({"schemaVersion": "0.3", "mainSteps": steps, **more})
        self.ssm.create_document(Name=f"{name}-{self.tag}", Content=content, DocumentType="Automation", DocumentFormat="YAML")

    def start(self, name: str = "doc", parameters: dict[str, list[str]] | None = None) -> str:
        given: dict[str, Any] = {"Parameters": parameters} if parameters else {}
        return str(self.ssm.start_automation_execution(DocumentName=f"{name}-{self.tag}", **given)["AutomationExecutionId"])

    def wait(self, execution_id: str, within_s: float = 20.0) -> dict[str, Any]:
        deadline = time.monotonic() + within_s
        while True:
            execution: dict[str, Any] = self.ssm.get_automation_execution(AutomationExecutionId=execution_id)["AutomationExecution"]
            if execution["AutomationExecutionStatus"] in FINAL:
                return execution
            assert time.monotonic() < deadline, execution
            time.sleep(0.03)

    def run(self, steps: list[dict[str, Any]], given: dict[str, list[str]] | None = None, **more: Any) -> dict[str, Any]:
        self.create(steps, **more)
        return self.wait(self.start(parameters=given))


@pytest.fixture
def automation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Automation]:
    monkeypatch.setattr(registry, "SERVICES", {name: registry.SERVICES[name] for name in ("events", "ssm", "sts")})
    gateway = Gateway(LocalWorld(LabPlan.make(tmp_path, speed=getattr(request, "param", 1.0))))
    gateway.open()
    yield Automation(gateway)
    gateway.close()


def script(name: str, code: str, payload: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    inputs = {"Runtime": "python3.11", "Handler": "handler", "Script": code, "InputPayload": payload or {}}
    return {"name": name, "action": "aws:executeScript", "inputs": inputs, **more}


def sleep(name: str, duration: str = "PT0.1S", **more: Any) -> dict[str, Any]:
    return {"name": name, "action": "aws:sleep", "inputs": {"Duration": duration}, **more}


def statuses(execution: dict[str, Any]) -> list[str]:
    return [step["StepStatus"] for step in execution["StepExecutions"]]


def test_outputs_flow_from_step_to_step(automation: Automation) -> None:
    """A script's result is selected, handed to an API call, and shown as the execution's outputs."""
    automation.ssm.put_parameter(Name="/here", Value="oregon", Type="String", Overwrite=True)
    execution = automation.run(
        [
            script(
                "Add",
                ADD,
                {"a": "{{ Amount }}", "names": "{{ Names }}"},
                outputs=[
                    {"Name": "Sum", "Selector": "$.Payload.sum", "Type": "Integer"},
                    {"Name": "First", "Selector": "$.Payload.names[0]"},
                ],
            ),
            {
                "name": "Keep",
                "action": "aws:executeAwsApi",
                "inputs": {
                    "Service": "ssm",
                    "Api": "PutParameter",
                    "Name": "/sum/{{ Add.First }}",
                    "Value": "is {{ Add.Sum }}",
                    "Type": "String",
                },
                "outputs": [{"Name": "Version", "Selector": "$.Version", "Type": "Integer"}],
            },
        ],
        {"Amount": ["40"], "Names": ["x", "y"]},
        parameters={
            "Amount": {"type": "Integer"},
            "Names": {"type": "StringList"},
            "Region": {"type": "String", "default": "{{ssm:/here}}"},
        },
        outputs=["Add.Sum", "Keep.Version"],
    )
    assert execution["AutomationExecutionStatus"] == "Success", execution
    assert execution["Outputs"]["Add.Sum"] == ["42"]
    assert int(execution["Outputs"]["Keep.Version"][0]) >= 1
    assert execution["Parameters"]["Region"] == ["oregon"]
    assert automation.ssm.get_parameter(Name="/sum/x")["Parameter"]["Value"] == "is 42"
    assert execution["StepExecutions"][0]["Response"] == "adding\n"


def test_a_script_has_its_own_process_and_the_callers_credentials(automation: Automation) -> None:
    """It calls AWS as whoever started the document where no role is assumed, and its environment holds nothing else of ours."""
    code = """
        import boto3, os
        def handler(events, context):
            return {"who": boto3.client("sts").get_caller_identity()["Arn"], "pid": os.getpid(), "variables": sorted(os.environ)}
    """
    outputs = [{"Name": name, "Selector": f"$.Payload.{name}"} for name in ("who", "pid", "variables")]
    execution = automation.run([script("Who", textwrap.dedent(code), outputs=outputs)])
    shown = execution["StepExecutions"][0]["Outputs"]
    assert shown["who"][0].endswith(":user/admin")
    assert int(shown["pid"][0]) != os.getpid()
    assert "AWS_SECRET_ACCESS_KEY" in shown["variables"]
    assert "PYTEST_CURRENT_TEST" not in shown["variables"]


def test_failures_abort_continue_or_go_elsewhere(automation: Automation) -> None:
    """onFailure and isCritical decide where it goes on and what the whole is called."""
    fail = "def handler(events, context):\n    raise ValueError('no such order')\n"
    cases = {
        "abort": ([script("A", fail), sleep("B")], "Failed", ["Failed", "Pending"]),
        "uncritical": ([script("A", fail, isCritical=False, onFailure="Continue"), sleep("B")], "Success", ["Failed", "Success"]),
        "jump": ([script("A", fail, onFailure="step:C"), sleep("B"), sleep("C")], "Failed", ["Failed", "Pending", "Success"]),
        "jump_uncritical": (
            [script("A", fail, onFailure="step:C", isCritical=False), sleep("B"), sleep("C")],
            "Success",
            ["Failed", "Pending", "Success"],
        ),
    }
    for name, (steps, status, expected) in cases.items():
        automation.create(steps, name=name)
        execution = automation.wait(automation.start(name))
        assert (execution["AutomationExecutionStatus"], statuses(execution)) == (status, expected), name
        assert "ValueError: no such order (line 2, in handler)" in execution["StepExecutions"][0]["FailureMessage"]


def test_retries(automation: Automation, tmp_path: Path) -> None:
    """maxAttempts tries again; the step that then succeeds is a success."""
    execution = automation.run([script("A", TRY, {"file": str(tmp_path / "tries")}, maxAttempts=3)])
    assert execution["AutomationExecutionStatus"] == "Success"
    assert (tmp_path / "tries").read_text() == "xxx"


def test_branches(automation: Automation) -> None:
    """The first choice that holds; And, Or and Not; the default; else the end where the step is one."""
    choices = [
        {"NextStep": "Big", "And": [{"Variable": "{{ N }}", "NumericGreater": 9}, {"Not": {"Variable": "{{ N }}", "NumericEquals": 13}}]},
        {"NextStep": "Small", "Variable": "{{ N }}", "NumericLesserOrEquals": 5},
    ]
    steps = [
        {"name": "Choose", "action": "aws:branch", "inputs": {"Choices": choices}, "isEnd": True},
        sleep("Big", isEnd=True),
        sleep("Small", isEnd=True),
    ]
    automation.create(steps, parameters={"N": {"type": "Integer"}})
    for number, expected in (
        ("10", ["Success", "Success", "Pending"]),
        ("3", ["Success", "Pending", "Success"]),
        ("13", ["Success", "Pending", "Pending"]),
    ):
        execution = automation.wait(automation.start(parameters={"N": [number]}))
        assert (execution["AutomationExecutionStatus"], statuses(execution)) == ("Success", expected)


def test_waiting_for_and_asserting_a_property(automation: Automation) -> None:
    """It waits until the property is there; an assertion does not wait."""
    get = {"Service": "ssm", "Api": "GetParameter", "Name": "/state", "PropertySelector": "$.Parameter.Value", "DesiredValues": ["ready"]}
    automation.ssm.put_parameter(Name="/state", Value="busy", Type="String", Overwrite=True)
    automation.create([{"name": "Check", "action": "aws:assertAwsResourceProperty", "inputs": get}], name="check")
    failed = automation.wait(automation.start("check"))
    assert "$.Parameter.Value is busy, not one of ready" in failed["FailureMessage"]
    automation.create([{"name": "Wait", "action": "aws:waitForAwsResourceProperty", "inputs": get, "timeoutSeconds": 30}], name="wait")
    running = automation.start("wait")
    time.sleep(0.3)
    automation.ssm.put_parameter(Name="/state", Value="ready", Type="String", Overwrite=True)
    assert automation.wait(running)["AutomationExecutionStatus"] == "Success"


@pytest.mark.parametrize("automation", [50.0], indirect=True)
def test_time_is_lab_time(automation: Automation) -> None:
    """At speed 50 two minutes of sleep, in a step and in a script, are over in seconds; a timeout ends a script that hangs."""
    began = time.monotonic()
    execution = automation.run(
        [
            sleep("Sleep", "PT1M"),
            script("Also", WAIT, outputs=[{"Name": "Took", "Selector": "$.Payload.took"}]),
            script("Hang", "import time\ndef handler(events, context):\n    time.sleep(1e6)\n", timeoutSeconds=100),
        ]
    )
    assert time.monotonic() - began < 15
    first, second, third = execution["StepExecutions"]
    assert (first["ExecutionEndTime"] - first["ExecutionStartTime"]).total_seconds() >= 60
    assert 60 <= float(second["Outputs"]["Took"][0]) < 120
    assert third["StepStatus"] == "TimedOut"
    assert execution["AutomationExecutionStatus"] == "TimedOut"


def test_cancelling_kills_the_script(automation: Automation, tmp_path: Path) -> None:
    """StopAutomationExecution ends the process and the execution; stopping again is refused."""
    pid_file = tmp_path / "pid"
    automation.create([script("A", HANG, {"file": str(pid_file)}), sleep("B")])
    running = automation.start()
    deadline = time.monotonic() + 10
    while not (pid_file.exists() and pid_file.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    automation.ssm.stop_automation_execution(AutomationExecutionId=running)
    execution = automation.wait(running)
    assert (execution["AutomationExecutionStatus"], statuses(execution)) == ("Cancelled", ["Cancelled", "Pending"])
    assert not Path(f"/proc/{pid_file.read_text()}").exists()
    with pytest.raises(automation.ssm.exceptions.InvalidAutomationStatusUpdateException):
        automation.ssm.stop_automation_execution(AutomationExecutionId=running)


@pytest.mark.parametrize(("signal", "expected"), [("Approve", "Success"), ("Reject", "Rejected")])
def test_approval(automation: Automation, signal: str, expected: str) -> None:
    """The step waits for its approvers."""
    step = {"name": "Ask", "action": "aws:approve", "inputs": {"Approvers": ["arn:aws:iam::123456789012:user/admin"], "Message": "Now?"}}
    automation.create([step, sleep("Go")])
    running = automation.start()
    time.sleep(0.3)
    assert automation.ssm.get_automation_execution(AutomationExecutionId=running)["AutomationExecution"]["CurrentStepName"] == "Ask"
    automation.ssm.send_automation_signal(AutomationExecutionId=running, SignalType=signal)
    assert automation.wait(running)["AutomationExecutionStatus"] == expected


def test_events_of_execution_and_steps(automation: Automation) -> None:
    """Every change of status reaches EventBridge's targets, in order, named as AWS names it."""
    world = automation.gateway.world
    sqs, events = world.client("sqs", REGION), world.client("events", REGION)
    url = sqs.create_queue(QueueName=f"told-{automation.tag}")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    allow = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sqs:SendMessage", "Resource": arn}
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps({"Version": "2012-10-17", "Statement": [allow]})})
    events.put_rule(Name="told", EventPattern=json.dumps({"source": ["aws.ssm"]}))
    events.put_targets(Rule="told", Targets=[{"Id": "1", "Arn": arn}])
    execution = automation.run([sleep("A")])
    told: list[dict[str, Any]] = []
    deadline = time.monotonic() + 15
    while len(told) < 4:
        assert time.monotonic() < deadline, told
        for message in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []):
            told.append(json.loads(message["Body"]))
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    told.sort(key=lambda event: event["detail"]["Time"])
    assert [(event["detail-type"], event["detail"]["Status"]) for event in told] == [
        ("EC2 Automation Execution Status-change Notification", "InProgress"),
        ("EC2 Automation Step Status-change Notification", "InProgress"),
        ("EC2 Automation Step Status-change Notification", "Success"),
        ("EC2 Automation Execution Status-change Notification", "Success"),
    ]
    assert {event["detail"]["ExecutionId"] for event in told} == {execution["AutomationExecutionId"]}
    assert told[-1]["resources"][0].endswith(f":automation-execution/{execution['AutomationExecutionId']}")


def test_descriptions_and_their_filters(automation: Automation) -> None:
    """Executions newest first, by status and by name; steps by status."""
    automation.run([sleep("A")], name="doc")
    automation.create([script("Bad", "def handler(e, c):\n    return 1 / 0\n"), sleep("B")], name="other")
    automation.wait(automation.start("other"))

    def found(*filters: dict[str, Any]) -> list[str]:
        answer = (
            automation.ssm.describe_automation_executions(Filters=list(filters))
            if filters
            else automation.ssm.describe_automation_executions()
        )
        return [each["DocumentName"].partition("-")[0] for each in answer["AutomationExecutionMetadataList"]]

    assert found() == ["other", "doc"]
    assert found({"Key": "ExecutionStatus", "Values": ["Success"]}) == ["doc"]
    assert found({"Key": "DocumentNamePrefix", "Values": ["oth"]}) == ["other"]
    newest = automation.ssm.describe_automation_executions()["AutomationExecutionMetadataList"][0]["AutomationExecutionId"]
    steps = automation.ssm.describe_automation_step_executions(AutomationExecutionId=newest)["StepExecutions"]
    assert [step["StepName"] for step in steps] == ["Bad"]
    assert "ZeroDivisionError" in steps[0]["FailureMessage"]


def test_a_region_that_is_down_holds_its_executions(automation: Automation) -> None:
    """Nothing goes on while the Region is down, and the rest is done when it is back."""
    automation.create([sleep("A", "PT0.5S"), sleep("B"), sleep("C")])
    running = automation.start()
    condition = automation.gateway.world.conditions.add({"kind": "down", "region": REGION})
    automation.gateway.apply_conditions()
    time.sleep(1.2)
    held = automation.gateway.world.service("ssm")._executions[REGION][running]
    assert [run.status for run in held.runs] == ["Success", "Pending", "Pending"] or held.runs[1].ended is None
    automation.gateway.world.conditions.remove(condition.id)
    automation.gateway.apply_conditions()
    assert automation.wait(running)["AutomationExecutionStatus"] == "Success"


def test_unknown_things(automation: Automation) -> None:
    """A document or an execution that does not exist, and features that are not here, are refused clearly."""
    ssm = automation.ssm
    with pytest.raises(ssm.exceptions.AutomationDefinitionNotFoundException):
        ssm.start_automation_execution(DocumentName="nobody")
    with pytest.raises(ssm.exceptions.AutomationExecutionNotFoundException):
        ssm.get_automation_execution(AutomationExecutionId="0" * 36)
    automation.create([sleep("A")])
    with pytest.raises(ssm.exceptions.ClientError, match="UnsupportedOperation"):
        ssm.start_automation_execution(DocumentName=f"doc-{automation.tag}", Mode="Interactive")


def test_all_problems_of_a_document_at_once() -> None:
    """Whatever is wrong with a document is reported together."""
    content = {
        "schemaVersion": "2.2",
        "parameters": {"A": {"type": "Text"}},
        "mainSteps": [
            {"name": "bad name", "action": "aws:runCommand", "inputs": {}},
            {"name": "B", "action": "aws:executeAwsApi", "inputs": {"Service": "ssm"}, "onFailure": "step:Nowhere", "wait": 3},
            {"name": "B", "action": "aws:sleep", "inputs": {}},
        ],
    }
    with pytest.raises(DocumentError) as refused:
        parse(json.dumps(content))
    text = str(refused.value)
    for part in (
        "schemaVersion",
        "A.type",
        "bad name",
        "aws:runCommand",
        "inputs.Api",
        "Nowhere",
        "unknown key wait",
        "more than once",
        "Duration",
    ):
        assert part in text, part


@pytest.mark.parametrize("content", ["", "- a", "{", "a: [", "schemaVersion: '0.3'"])
def test_documents_that_are_none(content: str) -> None:
    """Empty, a list, broken JSON or YAML, no steps."""
    with pytest.raises(DocumentError):
        parse(content)


@pytest.mark.parametrize(
    ("path", "expected"),
    [("$", {"A": [{"B": 1}, {"B": 2}], "c-d": 3}), ("$.A[1].B", 2), ("$.A[*].B", [1, 2]), ("$['c-d']", 3), ("$.c-d", 3)],
)
def test_selectors(path: str, expected: Any) -> None:
    """The part of JSONPath that documents use."""
    assert select({"A": [{"B": 1}, {"B": 2}], "c-d": 3}, path) == expected


@pytest.mark.parametrize("path", ["A", "$.X", "$.A[7]", "$.A..B", "$.A[?(@.B)]"])
def test_selectors_that_find_nothing(path: str) -> None:
    """They say so."""
    with pytest.raises(UnresolvedError):
        select({"A": [{"B": 1}]}, path)


def test_substitution_keeps_types() -> None:
    """A lone reference is the value itself; within a text it is written out; a value is not looked into again."""
    values = {"n": 3, "list": ["a"], "sly": "{{ n }}"}
    assert substitute({"k": "{{ n }}", "t": "is {{n}} of {{ list }}", "s": ["{{ sly }}"]}, values.__getitem__) == {
        "k": 3,
        "t": 'is 3 of ["a"]',
        "s": ["{{ n }}"],
    }
