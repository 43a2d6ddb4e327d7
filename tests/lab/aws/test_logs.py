"""CloudWatch Logs: limits, filter patterns, metrics out of logs, Insights."""

from __future__ import annotations

import contextlib
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st
from local_aws import EAST, WEST, LocalAws, eventually, local_aws

from lab.aws.service import AwsError
from lab.aws.services.logs import query_language
from lab.aws.services.logs.metrics import EmfError, embedded
from lab.aws.services.logs.patterns import compile_pattern
from lab.aws.services.logs.query_expressions import QueryError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    with local_aws(tmp_path_factory.mktemp("aws"), speed=20) as running:
        yield running


@pytest.fixture
def group(aws: LocalAws, request: pytest.FixtureRequest) -> str:
    """A log group of the test's own, with the stream ``s``."""
    name = "/" + re.sub(r"\W", "-", request.node.name)
    logs = aws.client("logs")
    logs.create_log_group(logGroupName=name)
    logs.create_log_stream(logGroupName=name, logStreamName="s")
    return name


def now_ms(aws: LocalAws) -> int:
    return int(aws.world.clock.now() * 1000)


def put(aws: LocalAws, group: str, *messages: str, at: int | None = None) -> dict[str, Any]:
    at = at or now_ms(aws)
    events = [{"timestamp": at + index, "message": message} for index, message in enumerate(messages)]
    return dict(aws.client("logs").put_log_events(logGroupName=group, logStreamName="s", logEvents=events))


ACCESS = '10.0.0.1 - ann [10/Oct/2026:13:55:36 -0700] "GET /cart HTTP/1.1" 502 1534'
PATTERNS = [
    ("", "anything", True),
    ("ERROR", "an ERROR here", True),
    ("ERROR", "an error here", False),
    ("ERROR timeout", "timeout after ERROR", True),
    ("ERROR timeout", "ERROR only", False),
    ('"connection refused"', "a connection refused", True),
    ("ERROR -health", "ERROR in health", False),
    ("?ERROR ?WARN", "WARN", True),
    ("?ERROR ?WARN", "INFO", False),
    ("%E[R]+OR%", "ERRRROR", True),
    ('{ $.level = "ERROR" }', '{"level": "ERROR"}', True),
    ('{ $.level = "ERROR" }', "level ERROR", False),
    ('{ $.level != "ERROR" }', '{"level": "INFO"}', True),
    ("{ $.status >= 500 }", '{"status": 503}', True),
    ("{ $.status >= 500 }", '{"status": "503"}', True),
    ("{ $.status >= 500 }", '{"other": 503}', False),
    ('{ $.path = "/cart*" && $.ms > 1.5e2 }', '{"path": "/cart/7", "ms": 151}', True),
    ('{ ($.a = 1 || $.a = 2) && $.b = "x" }', '{"a": 2, "b": "x"}', True),
    ('{ ($.a = 1 || $.a = 2) && $.b = "x" }', '{"a": 3, "b": "x"}', False),
    ("{ $.a.b[1] = 7 }", '{"a": {"b": [1, 7]}}', True),
    ('{ $.tags[*] = "hot" }', '{"tags": ["cold", "hot"]}', True),
    ("{ $.gone NOT EXISTS }", "{}", True),
    ("{ $.gone IS NULL }", '{"gone": null}', True),
    ("{ $.ok IS TRUE }", '{"ok": true}', True),
    ("{ $.ok IS FALSE }", '{"ok": true}', False),
    ("{ $.trace = %^1-[0-9a-f]+% }", '{"trace": "1-abc"}', True),
    ("[ip, id, user, time, request, status=5*, bytes>1000]", ACCESS, True),
    ("[ip, id, user, time, request, status=404, bytes]", ACCESS, False),
    ("[..., status=404||status=502, bytes]", ACCESS, True),
    ("[ip, user=ann, ...]", ACCESS, False),
    ("[a, b]", "one two three", False),
]


@pytest.mark.parametrize(("pattern", "message", "matches"), PATTERNS)
def test_filter_patterns(pattern: str, message: str, matches: bool) -> None:
    """Terms, JSON selectors and space-delimited fields, as the documentation describes them."""
    assert (compile_pattern(pattern)(message) is not None) is matches


@pytest.mark.parametrize(
    "pattern", ["{ $.a = ", "{ a = 1 }", "{ $.a > x }", "foo:bar", "[a, b=", "[a, ..., b, ...]", '{ $.a = "x" && }', "%(%"]
)
def test_patterns_that_cannot_be_read_are_refused(pattern: str) -> None:
    """Never taken for something else."""
    with pytest.raises(AwsError, match="Invalid filter pattern"):
        compile_pattern(pattern)


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_pattern_fails_in_another_way(pattern: str, message: str) -> None:
    """Whatever is asked: a matcher, or AWS's refusal."""
    with contextlib.suppress(AwsError):
        compile_pattern(pattern)(message)


BATCHES = [
    ([(0, "a"), (-1, "b")], "chronological order"),
    ([(-86_400_001, "a"), (0, "b")], "more than 24 hours"),
    ([(0, "a" * 600_000)] * 2, "Upload too large: 1200052 bytes exceeds limit of 1048576"),
    ([(0, "a" * 1_048_577)], "Log event too large"),
    ([(0, "a")] * 10_001, "less than or equal to 10000"),
]


@pytest.mark.parametrize(("rows", "why"), BATCHES)
def test_put_log_events_refuses_whole_batches(aws: LocalAws, group: str, rows: list[tuple[int, str]], why: str) -> None:
    """Order, span, size and number; nothing is stored."""
    base = now_ms(aws)
    events = [{"timestamp": base + offset, "message": message} for offset, message in rows]
    with pytest.raises(ClientError, match=why):
        aws.client("logs").put_log_events(logGroupName=group, logStreamName="s", logEvents=events)
    assert aws.client("logs").filter_log_events(logGroupName=group)["events"] == []


def test_events_out_of_time_are_rejected_one_by_one(tmp_path: Path) -> None:
    """Too old and too new ones are told by index, the others are stored."""
    with local_aws(tmp_path) as aws:  # at speed 1, where the past is not stretched
        aws.client("logs").create_log_group(logGroupName="g")
        aws.client("logs").create_log_stream(logGroupName="g", logStreamName="s")
        check_ages(aws, "g")


def check_ages(aws: LocalAws, group: str) -> None:
    base = now_ms(aws)
    assert put(aws, group, "old", at=base - 15 * 86_400_000)["rejectedLogEventsInfo"] == {"tooOldLogEventEndIndex": 1}
    assert put(aws, group, "new", at=base + 3 * 3_600_000)["rejectedLogEventsInfo"] == {"tooNewLogEventStartIndex": 0}
    aws.client("logs").put_retention_policy(logGroupName=group, retentionInDays=1)
    assert put(aws, group, "expired", at=base - 2 * 86_400_000)["rejectedLogEventsInfo"] == {"expiredLogEventEndIndex": 1}
    assert "rejectedLogEventsInfo" not in put(aws, group, "fine", at=base)
    assert [event["message"] for event in aws.client("logs").filter_log_events(logGroupName=group)["events"]] == ["fine"]


def test_missing_groups_streams_and_regions(aws: LocalAws, group: str) -> None:
    """What is in one Region is not in the other."""
    for region, name, stream, why in (
        (EAST, "/none", "s", "log group"),
        (EAST, group, "none", "log stream"),
        (WEST, group, "s", "log group"),
    ):
        with pytest.raises(ClientError, match=f"The specified {why} does not exist"):
            aws.client("logs", region).put_log_events(
                logGroupName=name, logStreamName=stream, logEvents=[{"timestamp": now_ms(aws), "message": "m"}]
            )
    with pytest.raises(ClientError, match="already exists"):
        aws.client("logs").create_log_group(logGroupName=group)


def test_reading_in_pages(aws: LocalAws, group: str) -> None:
    """Every event once, in order, both ways; GetLogEvents' token repeats at the end."""
    put(aws, group, *(f"m{index}" for index in range(25)))
    logs = aws.client("logs")
    pages = logs.get_paginator("filter_log_events").paginate(logGroupName=group, PaginationConfig={"PageSize": 10})
    assert [event["message"] for page in pages for event in page["events"]] == [f"m{index}" for index in range(25)]
    read: list[str] = []
    answer = logs.get_log_events(logGroupName=group, logStreamName="s", limit=10, startFromHead=True)
    while answer["events"]:
        read += [event["message"] for event in answer["events"]]
        token = answer["nextForwardToken"]
        answer = logs.get_log_events(logGroupName=group, logStreamName="s", limit=10, startFromHead=True, nextToken=token)
    assert read == [f"m{index}" for index in range(25)]
    assert answer["nextForwardToken"] == token
    newest = logs.get_log_events(logGroupName=group, logStreamName="s", limit=2)
    assert [event["message"] for event in newest["events"]] == ["m23", "m24"]


def total(aws: LocalAws, namespace: str, name: str, **dimensions: str) -> float | None:
    """The sum of a metric around now."""
    now = aws.world.clock.now()
    points = aws.client("cloudwatch").get_metric_statistics(
        Namespace=namespace,
        MetricName=name,
        Dimensions=[{"Name": key, "Value": value} for key, value in dimensions.items()],
        StartTime=now - 3600,
        EndTime=now + 60,
        Period=3600,
        Statistics=["Sum"],
    )["Datapoints"]
    return sum(point["Sum"] for point in points) if points else None


def test_metric_filters_publish(aws: LocalAws, group: str) -> None:
    """Matches count, values and dimensions come out of the event, a minute without a match gives the default."""
    logs = aws.client("logs")
    transformations = {
        "errors": ('{ $.level = "ERROR" }', {"metricName": "Errors", "metricNamespace": "App", "metricValue": "1", "defaultValue": 0}),
        "ms": ("{ $.ms = * }", {"metricName": "Ms", "metricNamespace": "App", "metricValue": "$.ms", "dimensions": {"Path": "$.path"}}),
    }
    for name, (pattern, transformation) in transformations.items():
        logs.put_metric_filter(logGroupName=group, filterName=name, filterPattern=pattern, metricTransformations=[transformation])
    put(aws, group, *(json.dumps({"level": "ERROR" if index < 3 else "INFO", "ms": index, "path": "/cart"}) for index in range(10)))
    assert eventually(lambda: total(aws, "App", "Errors")) == 3
    assert eventually(lambda: total(aws, "App", "Ms", Path="/cart")) == 45
    assert eventually(lambda: total(aws, "AWS/Logs", "IncomingLogEvents", LogGroupName=group)) == 10
    assert {each["filterName"] for each in logs.describe_metric_filters(logGroupName=group)["metricFilters"]} == {"errors", "ms"}


def emf(timestamp: Any = 1000, **changes: Any) -> str:
    directive = {"Namespace": "Emf", "Dimensions": [["Service"], []], "Metrics": [{"Name": "Lat", "Unit": "Milliseconds"}]}
    directive |= changes.pop("directive", {})
    return json.dumps({"_aws": {"Timestamp": timestamp, "CloudWatchMetrics": [directive]}, "Service": "ui", "Lat": [1, 2], **changes})


def test_embedded_metrics_are_extracted() -> None:
    """One point a dimension set, at the document's own time."""
    points = embedded(emf(), lambda seconds: seconds)
    assert [(point.dimensions, point.values, point.unit, point.time) for point in points] == [
        ({"Service": "ui"}, (1.0, 2.0), "Milliseconds", 1.0),
        ({}, (1.0, 2.0), "Milliseconds", 1.0),
    ]
    (point, _) = embedded(emf(Lat={"Values": [5, 6], "Counts": [2, 1]}), lambda seconds: seconds)
    assert (point.values, point.counts) == ((5.0, 6.0), (2.0, 1.0))
    assert embedded("plain text with _aws", float) == []


@pytest.mark.parametrize(
    "message",
    [
        emf(timestamp="now"),
        emf(directive={"Namespace": ""}),
        emf(directive={"Metrics": [{"Name": "Lat", "Unit": "Parsec"}]}),
        emf(directive={"Metrics": [{"Name": "Lat"}] * 101}),
        emf(Service=7),
        emf(Service="x" * 1025),
        emf(Lat=list(range(101))),
        emf(Lat="fast"),
    ],
)
def test_broken_embedded_metrics_are_counted(message: str) -> None:
    """Each breach of the specification refuses the document."""
    with pytest.raises(EmfError) as caught:
        embedded(message, lambda seconds: seconds)
    assert caught.value.metric == "EMFValidationErrors"


def test_embedded_metrics_arrive_in_cloudwatch(aws: LocalAws, group: str) -> None:
    """Sent as a log event, seen as a metric; a broken document shows in AWS/Logs."""
    put(aws, group, emf(timestamp=now_ms(aws)), emf(timestamp="never"))
    assert eventually(lambda: total(aws, "Emf", "Lat", Service="ui")) == 3
    assert eventually(lambda: total(aws, "AWS/Logs", "EMFValidationErrors", LogGroupName=group)) == 1


QUERIES = [
    ("fields n | sort n desc | limit 2", [["9"], ["8"]]),
    ('filter level = "ERROR" | stats count(*) as c', [["5"]]),
    ("filter @message like /ERR/ and n > 5 | stats count(*)", [["2"]]),
    ('filter not (level = "ERROR") | stats avg(n), max(n), min(n)', [["5", "9", "1"]]),
    ("stats pct(n, 90) as p by level | sort p desc", [["INFO", "9"], ["ERROR", "8"]]),
    ("filter n in [1, 2, 99] | stats sum(n * 2)", [["6"]]),
    ("fields n + 1 as next | filter next = 3 | display next", [["3"]]),
    ('filter n = 4 | parse @message "\\"path\\": \\"*\\"" as p | display p', [["/p4"]]),
    ('filter n = 4 | parse @message /path": "(?<where>[^"]+)/ | display where', [["/p4"]]),
    ("filter deep.a = 7 | stats count_distinct(level)", [["2"]]),
    ("dedup level | sort level asc | display level", [["ERROR"], ["INFO"]]),
    ("filter ispresent(gone) | stats count(*)", [["0"]]),
    ("stats count(*) as c by bin(1d) | display c", [["10"]]),
    ("filter path not like 'p1' | stats count(*)", [["9"]]),
]


@pytest.mark.parametrize(("query", "rows"), QUERIES)
def test_insights(query: str, rows: list[list[str]]) -> None:
    """The commands operators use, over ten events."""
    from lab.aws.services.logs.insights import _flatten, text
    from lab.aws.services.logs.query_expressions import Moment

    events = []
    for n in range(10):
        document = {"n": n, "level": "INFO" if n % 2 else "ERROR", "path": f"/p{n}", "deep": {"a": 7}}
        row: dict[str, Any] = {"@timestamp": Moment(1000.0 + n), "@message": json.dumps(document), "@ptr": str(n)}
        _flatten(document, "", row)
        events.append(row)
    outcome = query_language.run(query_language.parse(query), events, 1000)
    assert [[text(value) for name, value in row.items() if name != "@ptr" and value is not None] for row in outcome.rows] == rows


@pytest.mark.parametrize(
    "query", ["", "explode n", "filter a = = b", "stats nope(n)", "stats count(*", "limit many", "parse @message '* *' as one"]
)
def test_queries_that_cannot_be_read_are_malformed(query: str) -> None:
    """With a message that names the place."""
    with pytest.raises(QueryError):
        query_language.parse(query)


@given(st.text(max_size=60))
def test_no_query_fails_in_another_way(query: str) -> None:
    """Whatever is asked: commands, or QueryError."""
    with contextlib.suppress(QueryError):
        query_language.parse(query)


def test_insights_over_the_api(aws: LocalAws, group: str) -> None:
    """StartQuery and GetQueryResults, with statistics and errors."""
    put(aws, group, '{"ms": 10}', '{"ms": 30}', "text")
    logs = aws.client("logs")
    now = int(aws.world.clock.now())
    params: dict[str, Any] = {"logGroupName": group, "startTime": now - 600, "endTime": now + 60}
    query = logs.start_query(queryString="filter ms > 5 | stats avg(ms) as mean", **params)["queryId"]
    answer = logs.get_query_results(queryId=query)
    assert (answer["status"], answer["results"]) == ("Complete", [[{"field": "mean", "value": "20"}]])
    assert (answer["statistics"]["recordsScanned"], answer["statistics"]["recordsMatched"]) == (3.0, 2.0)
    with pytest.raises(ClientError, match="unknown command") as caught:
        logs.start_query(queryString="boom", **params)
    assert caught.value.response["Error"]["Code"] == "MalformedQueryException"


def test_a_group_keeps_its_memory_bounded() -> None:
    """Above the cap the oldest events go."""
    from lab.aws.services.logs import store

    group = store.LogGroup("g", 0)
    stream = group.streams["s"] = store.LogStream("s", 0)
    message = "x" * (store.GROUP_BYTES // 100)
    for index in range(150):
        group.add(stream, [(index, message)], index)
    assert group.stored <= store.GROUP_BYTES
    assert group.stored == sum(event.size for event in stream.events)
    assert stream.events[-1].timestamp == 149
