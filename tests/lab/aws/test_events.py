"""EventBridge: what matches, what is sent, and schedules in lab time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError
from local_aws import EAST, LocalAws, eventually, local_aws

from lab.aws.events_targets import payload
from lab.aws.patterns import PatternError, check, matches

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    with local_aws(tmp_path_factory.mktemp("events"), speed=30) as running:
        yield running


def queue(aws: LocalAws, name: str) -> tuple[Any, str, str]:
    """A queue that lets EventBridge send: client, URL, ARN."""
    sqs = aws.client("sqs")
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = f"arn:aws:sqs:{EAST}:{aws.plan.account}:{name}"
    statement = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sqs:SendMessage", "Resource": arn}
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps({"Version": "2012-10-17", "Statement": [statement]})})
    return sqs, url, arn


def bodies(sqs: Any, url: str) -> list[Any]:
    """What a queue holds."""
    return [json.loads(one["Body"]) for one in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])]


def test_a_matching_event_reaches_the_target(aws: LocalAws) -> None:
    """Events that fit the pattern arrive whole; others do not."""
    events = aws.client("events")
    sqs, url, arn = queue(aws, "matched")
    events.put_rule(Name="orders", EventPattern=json.dumps({"source": ["shop"], "detail": {"total": [{"numeric": [">", 10]}]}}))
    events.put_targets(Rule="orders", Targets=[{"Id": "q", "Arn": arn}])
    answer = events.put_events(
        Entries=[
            {"Source": "shop", "DetailType": "Order", "Detail": '{"total": 5}'},
            {"Source": "shop", "DetailType": "Order", "Detail": '{"total": 50}'},
            {"Source": "aws.ec2", "DetailType": "Order", "Detail": '{"total": 50}'},
            {"Source": "shop", "DetailType": "Order", "Detail": "no JSON"},
        ]
    )
    assert [entry.get("ErrorCode") for entry in answer["Entries"]] == [None, None, "NotAuthorizedForSourceException", "MalformedDetail"]
    (event,) = eventually(lambda: bodies(sqs, url))
    assert (event["source"], event["detail-type"], event["detail"], event["region"]) == ("shop", "Order", {"total": 50}, EAST)
    events.remove_targets(Rule="orders", Ids=["q"])
    events.delete_rule(Name="orders")
    assert bodies(sqs, url) == []


def test_schedules_run_in_lab_time(aws: LocalAws) -> None:
    """At speed 30, a rule of one minute fires every two seconds."""
    events = aws.client("events")
    sqs, url, arn = queue(aws, "ticks")
    began = aws.world.clock.now()
    events.put_rule(Name="tick", ScheduleExpression="rate(1 minute)")
    events.put_targets(Rule="tick", Targets=[{"Id": "q", "Arn": arn, "Input": '{"tick": true}'}])
    got: list[Any] = []
    eventually(lambda: got.extend(bodies(sqs, url)) or len(got) >= 2)
    assert 120 <= aws.world.clock.now() - began < 240
    assert got[0] == {"tick": True}
    events.disable_rule(Name="tick")
    assert events.describe_rule(Name="tick")["State"] == "DISABLED"


def test_a_target_without_permission_fails_into_the_dead_letter_queue(aws: LocalAws) -> None:
    """EventBridge is refused by the topic's default policy; the event is kept."""
    events = aws.client("events")
    topic = aws.client("sns").create_topic(Name="closed")["TopicArn"]
    sqs, url, arn = queue(aws, "dead")
    events.put_rule(Name="closed", EventPattern='{"source": ["closed"]}')
    events.put_targets(Rule="closed", Targets=[{"Id": "t", "Arn": topic, "DeadLetterConfig": {"Arn": arn}}])
    events.put_events(Entries=[{"Source": "closed", "DetailType": "x", "Detail": "{}"}])
    assert eventually(lambda: bodies(sqs, url))[0]["source"] == "closed"


@pytest.mark.parametrize(
    ("pattern", "event", "fits"),
    [
        ({"a": ["x", "y"]}, {"a": "y"}, True),
        ({"a": ["x"]}, {"a": ["w", "x"]}, True),
        ({"a": [None]}, {"a": None}, True),
        ({"a": [1]}, {"a": 1.0}, True),
        ({"a": [True]}, {"a": 1}, False),
        ({"a": [{"exists": False}]}, {}, True),
        ({"a": {"b": [{"exists": False}]}}, {}, True),
        ({"a": {"b": ["x"]}}, {"a": [{"b": "w"}, {"b": "x"}]}, True),
        ({"a": [{"prefix": {"equals-ignore-case": "EU-"}}]}, {"a": "eu-west-1"}, True),
        ({"a": [{"suffix": ".png"}]}, {"a": "x.jpg"}, False),
        ({"a": [{"wildcard": "dir/*/x?.png"}]}, {"a": "dir/any/x?.png"}, True),
        ({"a": [{"wildcard": "dir/*/x?.png"}]}, {"a": "dir/any/x1.png"}, False),
        ({"a": [{"anything-but": ["x", "y"]}]}, {"a": "z"}, True),
        ({"a": [{"anything-but": {"prefix": "x"}}]}, {"a": "xy"}, False),
        ({"a": [{"cidr": "10.0.0.0/8"}]}, {"a": "10.1.2.3"}, True),
        ({"$or": [{"a": ["x"]}, {"b": ["y"]}]}, {"b": "y"}, True),
        ({"a": ["x"], "b": ["y"]}, {"a": "x"}, False),
    ],
)
def test_patterns(pattern: dict[str, Any], event: dict[str, Any], fits: bool) -> None:
    """The operators of event patterns."""
    check(pattern)
    assert matches(pattern, event) is fits


@pytest.mark.parametrize("pattern", [{}, [], {"a": "x"}, {"a": []}, {"a": [{"like": "x"}]}, {"a": [{"numeric": ["~", 1]}]}, {"a": [["x"]]}])
def test_patterns_that_are_none(pattern: Any) -> None:
    """Malformed patterns are refused."""
    with pytest.raises(PatternError):
        check(pattern)


def test_input_transformers() -> None:
    """Values go into the template, quoted where they stand in quotes."""
    event = {"time": "t", "detail": {"name": 'a "b"', "n": 3, "list": [1]}}
    transformer = {
        "InputPathsMap": {"name": "$.detail.name", "n": "$.detail.n"},
        "InputTemplate": '{"text": "<name> is <n>", "n": <n>, "rule": <aws.events.rule-name>}',
    }
    assert json.loads(payload({"InputTransformer": transformer}, event, "r")) == {"text": 'a "b" is 3', "n": 3, "rule": "r"}
    assert json.loads(payload({"InputPath": "$.detail.list[0]"}, event)) == 1


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"Name": "r"}, "EventPattern or ScheduleExpression"),
        ({"Name": "r", "ScheduleExpression": "rate(1 minutes)"}, "ScheduleExpression is not valid"),
        ({"Name": "r", "EventPattern": '{"a": "b"}'}, "Event pattern is not valid"),
        ({"Name": "r", "EventPattern": '{"a": ["b"]}', "EventBusName": "mine"}, "default bus only"),
    ],
)
def test_refusals(aws: LocalAws, params: dict[str, Any], text: str) -> None:
    """Rules that AWS, or the lab, does not take."""
    with pytest.raises(ClientError, match=text):
        aws.client("events").put_rule(**params)
