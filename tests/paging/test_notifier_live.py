"""The notifier as Lambda runs it: unpacked from its bundle, called with SNS events, against the local AWS's SNS and CloudWatch."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from alarms.diagnosis import incidents
from paging import bundle
from tests.lab.aws.local_aws import WEST, LocalAws, eventually, local_aws
from topology import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TOPOLOGY = load(Path(__file__).parents[2] / "topology.yaml")
IMPAIRED, KEY = "retail-impaired-us-east-1", "retail/impaired/us-east-1+us-west-2"
Settings = dict[str, Any]


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    """A local AWS at the speed of the wall clock."""
    with local_aws(tmp_path_factory.mktemp("notifier")) as running:
        yield running


@pytest.fixture
def pages(aws: LocalAws) -> Iterator[tuple[str, Callable[[], list[dict[str, Any]]]]]:
    """The topic's ARN, and what a queue that subscribes to it has got since the last look."""
    sns, sqs = aws.client("sns", WEST), aws.client("sqs", WEST)
    topic = sns.create_topic(Name="retail-pages")["TopicArn"]
    url = sqs.create_queue(QueueName="on-call")["QueueUrl"]
    arn = f"arn:aws:sqs:{WEST}:{aws.plan.account}:on-call"
    statement = {"Effect": "Allow", "Principal": {"Service": "sns.amazonaws.com"}, "Action": "sqs:SendMessage", "Resource": arn}
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps({"Version": "2012-10-17", "Statement": [statement]})})
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes={"RawMessageDelivery": "true"})
    got: list[dict[str, Any]] = []

    def look() -> list[dict[str, Any]]:
        for message in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []):
            got.append(json.loads(message["Body"]))
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return got

    yield topic, look
    sqs.delete_queue(QueueUrl=url)
    sns.delete_topic(TopicArn=topic)


@pytest.fixture
def install(
    aws: LocalAws, pages: tuple[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[Settings], Settings]], Any]:
    """Unpacks the bundle, with settings that a test may change, and loads its handler's module."""
    admin = aws.plan.credentials["admin"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", admin.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", admin.secret_key)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # an earlier test's, with other keys
    endpoint = aws.plan.regions[WEST].aws_endpoint
    settings = bundle.settings(TOPOLOGY, WEST, incidents(TOPOLOGY, WEST), "retail")
    settings |= {"topic": pages[0], "endpoints": {"sns": endpoint, "cloudwatch": endpoint}}

    def load_it(change: Callable[[Settings], Settings] = lambda same: same) -> Any:
        zipfile.ZipFile(io.BytesIO(bundle.build(change(settings)).data)).extractall(tmp_path)
        spec = importlib.util.spec_from_file_location("installed_notifier", tmp_path / "notifier.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    return load_it


def message(state: str = "ALARM", before: str = "OK", name: str = IMPAIRED, age_s: float = 1.0) -> dict[str, Any]:
    """CloudWatch's message of a change ``age_s`` ago."""
    changed = datetime.now(UTC) - timedelta(seconds=age_s)
    return {
        "AlarmName": name,
        "AlarmDescription": "words",
        "NewStateValue": state,
        "OldStateValue": before,
        "NewStateReason": "because",
        "StateChangeTime": changed.strftime("%Y-%m-%dT%H:%M:%S.000+0000"),
        "AlarmArn": f"arn:aws:cloudwatch:us-west-2:123456789012:alarm:{name}",
    }


def event(*messages: Any) -> dict[str, Any]:
    """An SNS event as Lambda gets it."""
    return {"Records": [{"Sns": {"Message": one if isinstance(one, str) else json.dumps(one)}} for one in messages]}


def sent(look: Callable[[], list[dict[str, Any]]], count: int) -> list[tuple[str, str]]:
    """Event and key of the first ``count`` pages, in any order: SNS does not keep one."""
    eventually(lambda: len(look()) >= count)
    return sorted((page["event"], page["dedup_key"]) for page in look())


def test_both_ends_of_an_incident_are_published(pages: tuple[str, Any], install: Any) -> None:
    """An alarm and its OK, with the matrix of a CloudWatch that has heard of nobody."""
    notifier = install()
    assert notifier.handler(event(message()), None) == {"published": 1}
    assert notifier.handler(event(message("OK", "ALARM")), None) == {"published": 1}
    assert sent(pages[1], 2) == [("resolve", KEY), ("trigger", KEY)]
    (trigger,) = [page for page in pages[1]() if page["event"] == "trigger"]
    assert {cell["state"] for cell in trigger["seen_from"]} == {"silent"}


@pytest.mark.parametrize("state", ["OK", "ALARM"])
def test_a_late_trigger_whose_alarm_is_over_closes_itself(aws: LocalAws, pages: tuple[str, Any], install: Any, state: str) -> None:
    """Its OK has come before it and found nothing to close; an alarm that still is in ALARM stays open."""
    cloudwatch, name = aws.client("cloudwatch", WEST), f"retail-late-{state}"
    cloudwatch.put_metric_alarm(
        AlarmName=name,
        Namespace="N",
        MetricName="M",
        Statistic="Sum",
        Period=3600,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanThreshold",
        TreatMissingData="ignore",
    )
    cloudwatch.set_alarm_state(AlarmName=name, StateValue=state, StateReason="test")
    try:
        published = install().handler(event(message(name=name, age_s=90)), None)["published"]
    finally:
        cloudwatch.delete_alarms(AlarmNames=[name])
    key = f"retail/{name}/us-west-2"
    assert published == (2 if state == "OK" else 1)
    assert sent(pages[1], published) == ([("resolve", key)] if state == "OK" else []) + [("trigger", key)]


def test_a_young_trigger_is_not_looked_up(aws: LocalAws, pages: tuple[str, Any], install: Any) -> None:
    """CloudWatch, asked at once, may say what was before: then the page would close itself."""
    cloudwatch = aws.client("cloudwatch", WEST)
    cloudwatch.put_composite_alarm(AlarmName=IMPAIRED, AlarmRule="FALSE")
    try:
        assert install().handler(event(message()), None) == {"published": 1}
    finally:
        cloudwatch.delete_alarms(AlarmNames=[IMPAIRED])
    assert sent(pages[1], 1) == [("trigger", KEY)]


def test_a_page_without_its_words_or_its_picture_has_its_key(pages: tuple[str, Any], install: Any) -> None:
    """An incident whose texts are broken, and a CloudWatch that is not there, still open and close one incident."""

    def broken(settings: Settings) -> Settings:
        texts = {**settings["incidents"], IMPAIRED: {"dedup_key": KEY, "severity": "critical"}}
        return settings | {"incidents": texts, "endpoints": settings["endpoints"] | {"cloudwatch": "http://127.0.0.1:9"}}

    notifier = install(broken)
    notifier.handler(event(message()), None)
    notifier.handler(event(message("OK", "ALARM")), None)
    assert sent(pages[1], 2) == [("resolve", KEY), ("trigger", KEY)]
    assert {(page["severity"], page["summary"]) for page in pages[1]()} == {("critical", f"{IMPAIRED}: because")}


def test_one_bad_record_does_not_stop_the_others(pages: tuple[str, Any], install: Any) -> None:
    """The others' pages go out, and Lambda learns of the failure."""
    notifier = install()
    with pytest.raises(ValueError, match="Expecting value"):
        notifier.handler(event("not JSON", message()), None)
    assert sent(pages[1], 1) == [("trigger", KEY)]


def test_an_event_that_is_not_of_sns_is_a_failure(install: Any) -> None:
    """Nothing was paged, so nobody may believe that something was."""
    with pytest.raises(KeyError):
        install().handler({"source": "aws.events"}, None)


def test_a_page_that_cannot_be_published_is_a_failure(install: Any) -> None:
    """Lambda tries again, and then sends the event to its failure destination."""
    notifier = install(lambda settings: settings | {"topic": settings["topic"] + "-gone"})
    with pytest.raises(Exception, match=r"NotFound|AuthorizationError"):
        notifier.handler(event(message()), None)
