"""Lambda: functions that really run, as their role, with logs, timeouts and retries."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from local_aws import EAST, LocalAws, eventually, local_aws, package

from lab.aws.lambda_config import Function
from lab.aws.lambda_events import AT_ONCE, WORKERS, Events
from lab.aws.lambda_sandbox import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

HANDLER = """
import json, logging, os, sys, time
count = 0
def handler(event, context):
    global count
    count += 1
    print("got", json.dumps(event))
    logging.warning("careful")
    if event.get("fail"):
        raise ValueError("no good")
    if event.get("exit"):
        os._exit(3)
    if event.get("sleep"):
        time.sleep(event["sleep"])
    if event.get("who"):
        import boto3
        return boto3.client("sts").get_caller_identity()["Arn"]
    if event.get("topics"):
        import boto3
        return boto3.client("sns").list_topics()["Topics"]
    return {"count": count, "pid": os.getpid(), "region": os.environ["AWS_REGION"], "color": os.environ.get("COLOR"),
            "left": context.get_remaining_time_in_millis(), "name": context.function_name}
"""


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    with local_aws(tmp_path_factory.mktemp("lambda"), speed=30) as running:
        running.role("function")
        yield running


@pytest.fixture
def functions(aws: LocalAws, request: pytest.FixtureRequest) -> Any:
    return aws.client("lambda")


def make(aws: LocalAws, name: str, code: str = HANDLER, **extra: Any) -> str:
    """A function, made anew for each test."""
    role = f"arn:aws:iam::{aws.plan.account}:role/function"
    settings = {"Runtime": "python3.12", "Handler": "app.handler", "Timeout": 20, **extra}
    made = aws.client("lambda").create_function(FunctionName=name, Role=role, Code={"ZipFile": package(app=code)}, **settings)
    return str(made["FunctionArn"])


def call(functions: Any, name: str, event: dict[str, Any], **extra: Any) -> tuple[Any, str | None]:
    """The answer, and the kind of error where it is one."""
    answer = functions.invoke(FunctionName=name, Payload=json.dumps(event), **extra)
    return json.loads(answer["Payload"].read()), answer.get("FunctionError")


def log_of(aws: LocalAws, name: str) -> list[str]:
    """The lines in the function's log group; empty where there is none."""
    try:
        return [event["message"] for event in aws.client("logs").filter_log_events(logGroupName=f"/aws/lambda/{name}")["events"]]
    except ClientError:
        return []


def test_it_runs_and_stays_warm(aws: LocalAws, functions: Any) -> None:
    """Two calls share a process; the environment is the function's own."""
    make(aws, "warm", Environment={"Variables": {"COLOR": "green"}})
    first, error = call(functions, "warm", {})
    second, _ = call(functions, "warm", {})
    assert error is None
    assert (first["count"], second["count"], first["pid"]) == (1, 2, second["pid"])
    assert (first["region"], first["color"], first["name"]) == (EAST, "green", "warm")
    functions.update_function_configuration(FunctionName="warm", Environment={"Variables": {"COLOR": "red"}})
    third, _ = call(functions, "warm", {})
    assert (third["count"], third["color"]) == (1, "red")
    with pytest.raises(ProcessLookupError):
        os.kill(first["pid"], 0)


def test_errors_are_told(aws: LocalAws, functions: Any) -> None:
    """An exception, an exit and a missing module, each in Lambda's words."""
    make(aws, "faulty")
    raised, error = call(functions, "faulty", {"fail": 1})
    assert (error, raised["errorType"], raised["errorMessage"]) == ("Unhandled", "ValueError", "no good")
    assert "raise ValueError" in raised["stackTrace"][0]
    ended, _ = call(functions, "faulty", {"exit": 1})
    assert ended["errorType"] == "Runtime.ExitError"
    assert "exit status 3" in ended["errorMessage"]
    again, error = call(functions, "faulty", {})
    assert (again["count"], error) == (1, None)
    make(aws, "missing", "import nowhere")
    lost, _ = call(functions, "missing", {})
    assert (lost["errorType"], lost["errorMessage"]) == (
        "Runtime.ImportModuleError",
        "Unable to import module 'app': No module named 'nowhere'",
    )


@pytest.mark.slow
def test_a_timeout_kills(aws: LocalAws, functions: Any) -> None:
    """A function that sleeps too long is stopped after its timeout, or 10 wall seconds, whichever is more lab time."""
    make(aws, "slow", Timeout=1)
    answer, error = call(functions, "slow", {"sleep": 60})
    assert error == "Unhandled"
    assert answer["errorMessage"].endswith("Task timed out after 1.00 seconds")


def test_it_runs_as_its_role(aws: LocalAws, functions: Any) -> None:
    """What a function may do is what its role may do."""
    make(aws, "me")
    arn, _ = call(functions, "me", {"who": 1})
    assert arn == f"arn:aws:sts::{aws.plan.account}:assumed-role/function/me"


@pytest.mark.slow
def test_asynchronous_events_are_retried_and_then_reported(aws: LocalAws, functions: Any) -> None:
    """A failing event runs three times and ends at the failure destination."""
    make(aws, "retried")
    sqs = aws.client("sqs")
    url = sqs.create_queue(QueueName="failures")["QueueUrl"]
    destination = {"OnFailure": {"Destination": f"arn:aws:sqs:{EAST}:{aws.plan.account}:failures"}}
    functions.put_function_event_invoke_config(FunctionName="retried", DestinationConfig=destination)
    answer = functions.invoke(FunctionName="retried", InvocationType="Event", Payload=b'{"fail": 1}')
    assert answer["StatusCode"] == 202
    message = eventually(lambda: sqs.receive_message(QueueUrl=url).get("Messages"), 30)[0]
    record = json.loads(message["Body"])
    assert record["requestContext"]["condition"] == "RetriesExhausted"
    assert record["requestContext"]["approximateInvokeCount"] == 3
    assert record["requestPayload"] == {"fail": 1}
    assert record["responsePayload"]["errorMessage"] == "no good"


def test_sns_needs_permission(aws: LocalAws, functions: Any) -> None:
    """A topic reaches the function only after AddPermission; then the event is SNS's."""
    code = """
import boto3, json
def handler(event, context):
    boto3.client("sqs").send_message(QueueUrl=event["Records"][0]["Sns"]["Message"], MessageBody=json.dumps(event))
"""
    arn = make(aws, "listener", code)
    sns, sqs = aws.client("sns"), aws.client("sqs")
    topic = sns.create_topic(Name="alarms")["TopicArn"]
    url = sqs.create_queue(QueueName="heard")["QueueUrl"]
    sns.subscribe(TopicArn=topic, Protocol="lambda", Endpoint=arn)
    sns.publish(TopicArn=topic, Message="lost")
    functions.add_permission(
        FunctionName="listener", StatementId="sns", Action="lambda:InvokeFunction", Principal="sns.amazonaws.com", SourceArn=topic + "x"
    )
    sns.publish(TopicArn=topic, Message="lost")
    functions.add_permission(
        FunctionName="listener", StatementId="sns2", Action="lambda:InvokeFunction", Principal="sns.amazonaws.com", SourceArn=topic
    )
    sns.publish(TopicArn=topic, Message=url, Subject="s")
    (message,) = eventually(lambda: sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"))
    record = json.loads(message["Body"])["Records"][0]
    assert record["EventSource"] == "aws:sns"
    assert (record["Sns"]["TopicArn"], record["Sns"]["Subject"]) == (topic, "s")


@pytest.mark.parametrize(
    ("extra", "text"),
    [
        ({"Runtime": "nodejs22.x"}, "runs Python functions"),
        ({"Runtime": "python2.7"}, "Member must satisfy enum value set"),
        ({"Environment": {"Variables": {"AWS_REGION": "x"}}}, "Reserved keys used in this request: AWS_REGION"),
        ({"Environment": {"Variables": {"COLOR": "x" * 4096}}}, "exceeded the 4KB limit"),
        ({"Timeout": 901}, "less than or equal to 900"),
        ({"Code": {"ZipFile": b"not a zip"}}, "Could not unzip"),
        ({"Code": {"S3Bucket": "nowhere", "S3Key": "k"}}, "S3 Error Code: NoSuchBucket"),
        ({"Role": "arn:aws:iam::123456789012:role/unknown"}, "cannot be assumed by Lambda"),
        ({"VpcConfig": {"SubnetIds": ["subnet-1"]}}, "does not do VpcConfig"),
    ],
)
def test_refusals(aws: LocalAws, functions: Any, extra: dict[str, Any], text: str) -> None:
    """What Lambda refuses, and what the lab cannot do, is said."""
    settings: dict[str, Any] = {
        "Runtime": "python3.12",
        "Handler": "app.handler",
        "Code": {"ZipFile": package(app=HANDLER)},
        "Role": f"arn:aws:iam::{aws.plan.account}:role/function",
        **extra,
    }
    with pytest.raises(ClientError, match=text):
        functions.create_function(FunctionName="refused", **settings)


@pytest.mark.slow
def test_no_function_outlives_its_aws(tmp_path: Path) -> None:
    """Killed with SIGKILL, the AWS process takes its sandboxes along."""
    aws = LocalAws(tmp_path, speed=1)
    aws.plan.save()
    process = subprocess.Popen([sys.executable, "-m", "lab.aws", "--plan", str(tmp_path / "plan.json")])
    try:
        eventually(lambda: answers(aws), 30)
        aws.role("function")
        make(aws, "orphan")
        first, _ = call(aws.client("lambda"), "orphan", {})
        os.kill(first["pid"], 0)
    finally:
        process.kill()
        process.wait()
    eventually(lambda: not Path(f"/proc/{first['pid']}").exists(), 5)


def answers(aws: LocalAws) -> bool:
    """Whether the AWS process is up."""
    try:
        aws.client("sts").get_caller_identity()
    except EndpointConnectionError:
        return False
    return True


def test_a_function_dies_with_its_region_and_its_event_waits(aws: LocalAws, functions: Any) -> None:
    """Killed while it runs, an asynchronous event is run again when the Region is back, and counts as one attempt."""
    make(aws, "regional", Timeout=900)
    functions.invoke(FunctionName="regional", InvocationType="Event", Payload=b'{"sleep": 3}')
    eventually(lambda: sandboxes_of("regional"))
    aws.take_down(EAST)
    try:
        eventually(lambda: not sandboxes_of("regional"), 5)
    finally:
        aws.take_down(EAST, down=False)
    lines = eventually(lambda: [line for line in log_of(aws, "regional") if line.startswith("END")] and log_of(aws, "regional"), 30)
    assert len([line for line in lines if line.startswith("got")]) == 1
    assert not [line for line in lines if "exited" in line]


@contextlib.contextmanager
def outage(aws: LocalAws) -> Iterator[None]:
    """Lambda refuses in one Region, as in the lab's fault ``notifier-down``."""
    condition = aws.world.conditions.add({"kind": "refuse", "region": EAST, "service": "lambda", "code": "ServiceException", "status": 500})
    try:
        yield
    finally:
        aws.world.conditions.remove(condition.id)


def attempts(aws: LocalAws, name: str) -> int:
    """How often a function's handler began."""
    return len([line for line in log_of(aws, name) if line.startswith("got")])


def test_an_outage_of_lambda_delays_what_a_topic_sends(aws: LocalAws, functions: Any) -> None:
    """SNS keeps the message and tries again; it arrives when the outage ends, and only then counts as delivered."""
    arn = make(aws, "delayed")
    sns = aws.client("sns")
    topic = sns.create_topic(Name="delayed")["TopicArn"]
    functions.add_permission(
        FunctionName="delayed", StatementId="sns", Action="lambda:InvokeFunction", Principal="sns.amazonaws.com", SourceArn=topic
    )
    sns.subscribe(TopicArn=topic, Protocol="lambda", Endpoint=arn)

    def counted(metric: str) -> bool:
        dimensions = [{"Name": "TopicName", "Value": "delayed"}]
        return bool(aws.client("cloudwatch").list_metrics(Namespace="AWS/SNS", MetricName=metric, Dimensions=dimensions)["Metrics"])

    with outage(aws):
        sns.publish(TopicArn=topic, Message="page")
        aws.world.clock.sleep(30)
        assert attempts(aws, "delayed") == 0
        assert (counted("NumberOfMessagesPublished"), counted("NumberOfNotificationsDelivered")) == (True, False)
    eventually(lambda: attempts(aws, "delayed") == 1)
    assert (counted("NumberOfNotificationsDelivered"), counted("NumberOfNotificationsFailed")) == (True, False)


def test_an_accepted_event_waits_out_an_outage(aws: LocalAws, functions: Any) -> None:
    """The retry of a failed event falls into an outage of Lambda: it waits, and runs afterwards."""
    make(aws, "accepted")
    functions.invoke(FunctionName="accepted", InvocationType="Event", Payload=b'{"fail": 1}')
    eventually(lambda: attempts(aws, "accepted") == 1)
    with outage(aws):
        aws.world.clock.sleep(75)
        assert attempts(aws, "accepted") == 1
    eventually(lambda: attempts(aws, "accepted") == 2)


def test_a_slow_function_holds_up_no_other(aws: LocalAws) -> None:
    """More events of one function than there are workers: two run, the others wait, and another function's event runs at once."""
    release = threading.Event()
    ran: list[str] = []
    at_once: list[int] = []
    running: set[str] = set()

    def run(function: Function, identity: str, _payload: bytes) -> Outcome:
        running.add(identity)
        at_once.append(len(running))
        if function.name == "stuck":
            release.wait(20)
        running.discard(identity)
        ran.append(function.name)
        return Outcome(b"null", False, (), 0.0, None, 0.0)

    events = Events(aws.world, run)
    stuck, quick = (Function(f"arn:aws:lambda:{EAST}:1:function:{name}", name, "", {}, {}, 0.0) for name in ("stuck", "quick"))
    try:
        for _ in range(WORKERS + 4):
            events.accept(stuck, b"{}")
        events.accept(quick, b"{}")
        eventually(lambda: ran == ["quick"])
        release.set()
        eventually(lambda: ran.count("stuck") == WORKERS + 4)
        assert max(at_once) <= AT_ONCE + 1
    finally:
        release.set()
        events.close()


def test_a_busy_sandbox_does_not_keep_old_settings(aws: LocalAws, functions: Any) -> None:
    """What ran while the configuration changed is thrown away when it is done, whatever it was that changed."""
    make(aws, "changed")
    answers: list[Any] = []
    slow = threading.Thread(target=lambda: answers.append(call(functions, "changed", {"sleep": 1})))
    slow.start()
    eventually(lambda: sandboxes_of("changed"))
    functions.update_function_configuration(FunctionName="changed", MemorySize=256)
    slow.join()
    again, _ = call(functions, "changed", {})
    assert answers[0][1] is None
    assert (again["count"], again["pid"] != answers[0][0]["pid"]) == (1, True)


def test_a_sandbox_that_reads_slowly_gets_the_whole_event(aws: LocalAws, functions: Any) -> None:
    """An event larger than the socket's buffer, to a child that is stopped for half a second."""
    make(aws, "large", "import os\ndef handler(event, context):\n    return [os.getpid(), len(event.get('text', ''))]\n")
    (pid, _), _ = call(functions, "large", {})
    os.kill(pid, signal.SIGSTOP)
    timer = threading.Timer(0.5, os.kill, (pid, signal.SIGCONT))
    timer.start()
    try:
        began = time.monotonic()
        assert call(functions, "large", {"text": "x" * 2_000_000}) == ([pid, 2_000_000], None)
        assert time.monotonic() - began >= 0.4
    finally:
        timer.join()


def sandboxes_of(function: str) -> list[str]:
    """The processes that run a function."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"AWS_LAMBDA_FUNCTION_NAME={function}\0".encode() in (folder / "environ").read_bytes():
                found.append(folder.name)
    return found
