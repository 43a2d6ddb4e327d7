"""CloudWatch: limits of PutMetricData, statistics and math, alarms with their actions, dashboards."""

from __future__ import annotations

import datetime as dt
import json
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from botocore.exceptions import ClientError
from local_aws import EAST, WEST, LocalAws, eventually, local_aws, package

from alarms.engine.query import MetricKey
from lab.aws.ingestion import Ingestion
from lab.aws.services.cloudwatch.search import compile_search
from lab.aws.services.cloudwatch.store import RAW_S, Datum, MetricStore

if TYPE_CHECKING:
    from collections.abc import Iterator

SPEED = 30


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    with local_aws(tmp_path_factory.mktemp("aws"), speed=SPEED) as running:
        yield running


def put(aws: LocalAws, name: str, region: str = EAST, **datum: Any) -> None:
    aws.client("cloudwatch", region).put_metric_data(Namespace="Shop", MetricData=[{"MetricName": name, **datum}])


LIMITS = [
    ({"Namespace": "AWS/EC2", "MetricData": [{"MetricName": "m", "Value": 1}]}, "InvalidParameterValue"),
    ({"Namespace": "N"}, "MissingParameter"),
    ({"Namespace": "N", "MetricData": [{"MetricName": "m"}]}, "MissingParameter"),
    ({"Namespace": "N", "MetricData": [{"MetricName": "m", "Value": 1}] * 1001}, "InvalidParameterValue"),
    ({"Namespace": "N", "MetricData": [{"MetricName": "m", "Value": float("nan")}]}, "InvalidParameterValue"),
    ({"Namespace": "N", "MetricData": [{"MetricName": "m", "Value": 2.0**361}]}, "InvalidParameterValue"),
    ({"Namespace": "N", "MetricData": [{"MetricName": "m", "Value": 1, "Values": [1.0]}]}, "InvalidParameterCombination"),
    ({"Namespace": "N", "MetricData": [{"MetricName": "m", "Value": 1, "Counts": [1.0]}]}, "InvalidParameterCombination"),
    ({"Namespace": "N", "MetricData": [{"MetricName": "m", "Values": [1.0] * 151}]}, "InvalidParameterValue"),
    ({"Namespace": "N", "MetricData": [{"MetricName": "m", "Values": [1.0], "Counts": [1.0, 2.0]}]}, "InvalidParameterValue"),
    ({"Namespace": "N", "MetricData": [{"MetricName": "m", "Value": 1, "StorageResolution": 10}]}, "InvalidParameterValue"),
    ({"Namespace": "N", "MetricData": [{"MetricName": "m", "Value": 1, "Unit": "Parsecs"}]}, "ValidationError"),
    (
        {"Namespace": "N", "MetricData": [{"MetricName": "m", "Value": 1, "Dimensions": [{"Name": "a", "Value": "x"}] * 2}]},
        "InvalidParameterValue",
    ),
    (
        {
            "Namespace": "N",
            "MetricData": [{"MetricName": "m", "Value": 1, "Dimensions": [{"Name": f"d{i}", "Value": "x"} for i in range(31)]}],
        },
        "ValidationError",
    ),
]


@pytest.mark.parametrize(("params", "code"), LIMITS)
def test_put_metric_data_keeps_its_limits(aws: LocalAws, params: dict[str, Any], code: str) -> None:
    """Each documented limit refuses the request with CloudWatch's code."""
    with pytest.raises(ClientError) as caught:
        aws.client("cloudwatch").put_metric_data(**params)
    assert caught.value.response["Error"]["Code"] == code


@pytest.mark.parametrize("age_s", [14 * 86400 + 60, -2 * 3600 - 60])
def test_data_from_long_ago_or_the_future_is_refused(aws: LocalAws, age_s: float) -> None:
    """Two weeks back and two hours ahead, in lab time."""
    with pytest.raises(ClientError, match="must specify a time"):
        put(aws, "m", Value=1, Timestamp=aws.world.clock.now() - age_s)


def test_nothing_of_a_refused_request_is_stored(aws: LocalAws) -> None:
    """One bad datum refuses its neighbours."""
    cloudwatch = aws.client("cloudwatch")
    with pytest.raises(ClientError):
        cloudwatch.put_metric_data(
            Namespace="Half", MetricData=[{"MetricName": "good", "Value": 1}, {"MetricName": "bad", "Value": float("inf")}]
        )
    assert cloudwatch.list_metrics(Namespace="Half")["Metrics"] == []


def test_a_datapoint_is_seen_after_the_ingestion_delay(aws: LocalAws) -> None:
    """Not at once, and within ten lab seconds."""
    put(aws, "late", Value=7, StorageResolution=1)
    sent = aws.world.clock.now()

    def seen() -> list[float]:
        now = aws.world.clock.now()
        query = {"Id": "m", "MetricStat": {"Metric": {"Namespace": "Shop", "MetricName": "late"}, "Period": 10, "Stat": "Sum"}}
        answer = aws.client("cloudwatch").get_metric_data(MetricDataQueries=[query], StartTime=now - 120, EndTime=now + 60)
        return list(answer["MetricDataResults"][0]["Values"])

    assert seen() == []
    assert eventually(seen) == [7.0]
    assert 2 <= aws.world.clock.now() - sent <= 10 + 0.3 * SPEED


@pytest.fixture(scope="module")
def latencies(aws: LocalAws) -> float:
    """A minute of latencies 1..100 ms and one statistic set in its own metric; the start of that minute."""
    start = aws.world.clock.now() // 60 * 60 - 120
    put(aws, "Latency", Values=[float(value) for value in range(1, 101)], Timestamp=start, Unit="Milliseconds")
    put(aws, "Set", StatisticValues={"Minimum": 1, "Maximum": 9, "Sum": 30, "SampleCount": 6}, Timestamp=start)
    put(aws, "Faults", Value=5, Timestamp=start)
    put(aws, "Requests", Value=200, Timestamp=start)
    eventually(lambda: data(aws, start, Requests="Sum")["Requests"])
    time.sleep(10 / SPEED)
    return float(start)


def data(aws: LocalAws, start: float, expressions: dict[str, str] | None = None, **stats: str) -> dict[str, list[float]]:
    """GetMetricData's values by id; ``stats`` are metric=statistic, ``expressions`` id=expression."""
    queries: list[dict[str, Any]] = [
        {"Id": name.lower(), "MetricStat": {"Metric": {"Namespace": "Shop", "MetricName": name}, "Period": 60, "Stat": stat}}
        for name, stat in stats.items()
    ]
    queries += [{"Id": name, "Expression": text} for name, text in (expressions or {}).items()]
    answer = aws.client("cloudwatch").get_metric_data(MetricDataQueries=queries, StartTime=start, EndTime=start + 60)
    names = {name.lower(): name for name in stats}
    return {names.get(result["Id"], result["Id"]): result["Values"] for result in answer["MetricDataResults"]}


@pytest.mark.parametrize(
    ("stat", "value"),
    [
        ("Average", 50.5),
        ("Sum", 5050.0),
        ("SampleCount", 100.0),
        ("p90", 90.0),
        ("p99", 99.0),
        ("tm90", 45.5),
        ("PR(:10)", 10.0),
        ("TC(90%:)", 10.0),
    ],
)
def test_statistics(aws: LocalAws, latencies: float, stat: str, value: float) -> None:
    """Plain and extended statistics of raw values."""
    assert data(aws, latencies, Latency=stat)["Latency"] == [pytest.approx(value)]


def test_a_statistic_set_has_no_percentile(aws: LocalAws, latencies: float) -> None:
    """Sum and count yes, the distribution no."""
    assert data(aws, latencies, Set="Average")["Set"] == [5.0]
    assert data(aws, latencies, Set="p90")["Set"] == []


def test_metric_math_and_search(aws: LocalAws, latencies: float) -> None:
    """Expressions over metrics, and metrics found by name."""
    found = data(
        aws,
        latencies,
        {"rate": "100*faults/requests", "all": "SUM(SEARCH('{Shop} MetricName=\"Faults\"', 'Sum', 60))"},
        Faults="Sum",
        Requests="Sum",
    )
    assert found["rate"] == [2.5]
    assert found["all"] == [5.0]


def test_wrong_expressions_are_refused_with_their_place(aws: LocalAws, latencies: float) -> None:
    """As CloudWatch words it."""
    with pytest.raises(ClientError, match="Error in expression 'e'"):
        data(aws, latencies, {"e": "NOPE(1)"})


def test_get_metric_statistics_with_extended(aws: LocalAws, latencies: float) -> None:
    """Both kinds in one datapoint, with its unit."""
    answer = aws.client("cloudwatch").get_metric_statistics(
        Namespace="Shop",
        MetricName="Latency",
        StartTime=latencies,
        EndTime=latencies + 60,
        Period=60,
        Statistics=["Maximum"],
        ExtendedStatistics=["p50"],
    )
    (point,) = answer["Datapoints"]
    assert (point["Maximum"], point["ExtendedStatistics"], point["Unit"]) == (100.0, {"p50": 50.0}, "Milliseconds")


def test_more_than_1440_datapoints_are_refused(aws: LocalAws) -> None:
    """GetMetricStatistics' limit."""
    with pytest.raises(ClientError, match="exceeds the limit of 1,440"):
        aws.client("cloudwatch").get_metric_statistics(
            Namespace="Shop", MetricName="m", StartTime=0, EndTime=1441 * 60, Period=60, Statistics=["Sum"]
        )


def test_results_come_in_pages(aws: LocalAws) -> None:
    """MaxDatapoints cuts the answer; the token goes on where it ended."""
    start = aws.world.clock.now() // 60 * 60 - 600
    for minute in range(7):
        put(aws, "paged", Value=minute, Timestamp=start + 60 * minute)
    query = {"Id": "m", "MetricStat": {"Metric": {"Namespace": "Shop", "MetricName": "paged"}, "Period": 60, "Stat": "Sum"}}
    paginator = aws.client("cloudwatch").get_paginator("get_metric_data")

    def pages() -> list[list[float]]:
        return [
            result["Values"]
            for page in paginator.paginate(
                MetricDataQueries=[query], StartTime=start, EndTime=start + 600, MaxDatapoints=3, ScanBy="TimestampAscending"
            )
            for result in page["MetricDataResults"]
        ]

    assert eventually(lambda: pages() if sum(map(len, pages())) == 7 else None) == [[0, 1, 2], [3, 4, 5], [6]]


def test_list_metrics_by_dimension(aws: LocalAws) -> None:
    """A filter without a value asks for the dimension, one with a value for that."""
    for vantage in ("east", "west"):
        put(aws, "Up", Value=1, Dimensions=[{"Name": "Vantage", "Value": vantage}])
    cloudwatch = aws.client("cloudwatch")
    assert len(cloudwatch.list_metrics(MetricName="Up", Dimensions=[{"Name": "Vantage"}])["Metrics"]) == 2
    (found,) = cloudwatch.list_metrics(MetricName="Up", Dimensions=[{"Name": "Vantage", "Value": "west"}])["Metrics"]
    assert found["Dimensions"] == [{"Name": "Vantage", "Value": "west"}]
    assert aws.client("cloudwatch", WEST).list_metrics(MetricName="Up")["Metrics"] == []


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("{AWS/ELB,LoadBalancer} latency", True),
        ("{AWS/ELB} latency", False),
        ('MetricName="TargetLatency"', True),
        ('MetricName="Target"', False),
        ("MetricName=Target", True),
        ("target NOT east", True),
        ("target AND NOT west", False),
        ("LoadBalancer=(east OR west)", True),
        ('LoadBalancer="alb-west"', True),
        ('LoadBalancer="alb"', False),
    ],
)
def test_search_expressions(text: str, matches: bool) -> None:
    """Schema, partial and exact terms, properties and operators."""
    assert compile_search(text)(MetricKey.of("AWS/ELB", "TargetLatency", {"LoadBalancer": "alb-west"})) is matches


def test_old_samples_are_rolled_up_without_losing_their_sums() -> None:
    """After three hours a minute keeps few rows: sum, count, extremes exact, percentiles close."""
    store = MetricStore(Ingestion(0, 0))
    values = np.random.default_rng(1).lognormal(3, 1, 3000)
    for index, value in enumerate(values):
        store.put("N", "m", {}, "None", [Datum(index // 50, value, value, value, 1.0)], now=0)
    assert len(store) == 3000
    store.compact(RAW_S + 60)
    assert len(store) < 30
    samples = store.samples(MetricKey("N", "m"), 0, 60, 1e9)
    assert samples.total.sum() == pytest.approx(values.sum())
    assert samples.counts.sum() == 3000
    assert (samples.low.min(), samples.high.max()) == (values.min(), values.max())
    store.compact(16 * 86400.0)
    assert len(store) == 0


# -- alarms --------------------------------------------------------------------------------------------------------------------------------


def alarm(name: str, **more: Any) -> dict[str, Any]:
    return {
        "AlarmName": name,
        "Namespace": "Shop",
        "MetricName": name,
        "Statistic": "Minimum",
        "Period": 10,
        "EvaluationPeriods": 2,
        "Threshold": 1,
        "ComparisonOperator": "LessThanThreshold",
        **more,
    }


def state(aws: LocalAws, name: str) -> str:
    found = aws.client("cloudwatch").describe_alarms(AlarmNames=[name], AlarmTypes=["MetricAlarm", "CompositeAlarm"])
    return str((found["MetricAlarms"] + found["CompositeAlarms"])[0]["StateValue"])


def test_an_alarm_lives_and_tells_its_topic(aws: LocalAws) -> None:
    """INSUFFICIENT_DATA at first, then what the data say; each change is published in CloudWatch's message."""
    sns, sqs, cloudwatch = aws.client("sns"), aws.client("sqs"), aws.client("cloudwatch")
    topic = sns.create_topic(Name="alarms")["TopicArn"]
    queue = sqs.create_queue(QueueName="alarms")["QueueUrl"]
    queue_arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    allow = {"Effect": "Allow", "Principal": {"Service": "sns.amazonaws.com"}, "Action": "sqs:SendMessage", "Resource": queue_arn}
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": json.dumps({"Version": "2012-10-17", "Statement": [allow]})})
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue_arn)
    cloudwatch.put_metric_alarm(**alarm("up", AlarmActions=[topic]))
    cloudwatch.put_composite_alarm(AlarmName="shop", AlarmRule="ALARM(up)")
    assert state(aws, "up") == "INSUFFICIENT_DATA"

    def until(value: float, wanted: str) -> None:
        def reached() -> bool:
            put(aws, "up", Value=value, StorageResolution=1)
            return state(aws, "up") == wanted

        eventually(reached, within_s=20)

    until(1, "OK")
    until(0, "ALARM")
    eventually(lambda: state(aws, "shop") == "ALARM")
    (received,) = eventually(lambda: sqs.receive_message(QueueUrl=queue).get("Messages"))
    notification = json.loads(received["Body"])
    assert notification["Subject"] == 'ALARM: "up" in US East (N. Virginia)'
    message = json.loads(notification["Message"])
    assert (message["AlarmName"], message["NewStateValue"], message["OldStateValue"], message["AWSAccountId"]) == (
        "up",
        "ALARM",
        "OK",
        "123456789012",
    )
    history = cloudwatch.describe_alarm_history(AlarmName="up", HistoryItemType="StateUpdate")["AlarmHistoryItems"]
    assert history[0]["HistorySummary"] == "Alarm updated from OK to ALARM"
    assert history[-1]["HistorySummary"] == "Alarm updated from INSUFFICIENT_DATA to OK"


def test_a_change_reaches_event_bus_and_function(aws: LocalAws) -> None:
    """Every change is an event; a Lambda action needs the function's permission for CloudWatch alarms."""
    sqs, events, functions, cloudwatch = (aws.client(name) for name in ("sqs", "events", "lambda", "cloudwatch"))
    queue = sqs.create_queue(QueueName="changes")["QueueUrl"]
    queue_arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    allow = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sqs:SendMessage", "Resource": queue_arn}
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": json.dumps({"Version": "2012-10-17", "Statement": [allow]})})
    pattern = {"source": ["aws.cloudwatch"], "detail": {"alarmName": ["acts"]}}
    events.put_rule(Name="changes", EventPattern=json.dumps(pattern))
    events.put_targets(Rule="changes", Targets=[{"Id": "q", "Arn": queue_arn}])
    code = package(app="def handler(event, context):\n    print('told of', event['alarmData']['alarmName'])\n")
    role = aws.role("alarm-function")
    function = functions.create_function(
        FunctionName="told", Runtime="python3.12", Handler="app.handler", Role=role, Code={"ZipFile": code}
    )
    functions.add_permission(
        FunctionName="told", StatementId="alarms", Action="lambda:InvokeFunction", Principal="lambda.alarms.cloudwatch.amazonaws.com"
    )
    eventually(lambda: functions.get_function(FunctionName="told")["Configuration"]["State"] == "Active")
    cloudwatch.put_metric_alarm(**alarm("acts", TreatMissingData="ignore", AlarmActions=[function["FunctionArn"]]))
    cloudwatch.set_alarm_state(AlarmName="acts", StateValue="ALARM", StateReason="test")
    (received,) = eventually(lambda: sqs.receive_message(QueueUrl=queue).get("Messages"), within_s=30)
    event = json.loads(received["Body"])
    assert (event["detail-type"], event["detail"]["state"]["value"]) == ("CloudWatch Alarm State Change", "ALARM")

    def printed() -> list[Any]:
        try:
            found = aws.client("logs").filter_log_events(logGroupName="/aws/lambda/told", filterPattern='"told of acts"')
        except ClientError:
            return []
        return list(found["events"])

    assert len(eventually(printed, within_s=30)) == 1


def test_a_region_that_is_down_evaluates_nothing(aws: LocalAws) -> None:
    """Its alarms keep their state while it is away, and say nothing of that time afterwards."""
    cloudwatch = aws.client("cloudwatch")
    cloudwatch.put_metric_alarm(**alarm("frozen", TreatMissingData="breaching"))
    cloudwatch.set_alarm_state(AlarmName="frozen", StateValue="OK", StateReason="test")
    aws.take_down(EAST)
    time.sleep(120 / SPEED)
    aws.take_down(EAST, down=False)
    changes = cloudwatch.describe_alarm_history(AlarmName="frozen", HistoryItemType="StateUpdate")["AlarmHistoryItems"]
    assert [item["HistorySummary"] for item in changes] == ["Alarm updated from INSUFFICIENT_DATA to OK"]
    eventually(lambda: state(aws, "frozen") == "ALARM")


POLICIES = {
    "the one a topic begins with": (None, True),
    "one for alarms of this account": ({"Principal": {"Service": "cloudwatch.amazonaws.com"}, "Condition": "account"}, True),
    "one for other services": ({"Principal": {"Service": "events.amazonaws.com"}}, False),
    "one for alarms of another account": ({"Principal": {"Service": "cloudwatch.amazonaws.com"}, "Condition": "stranger"}, False),
}


@pytest.mark.parametrize(("statement", "allowed"), POLICIES.values(), ids=POLICIES)
def test_an_alarm_publishes_where_the_topics_policy_lets_it(aws: LocalAws, statement: dict[str, Any] | None, allowed: bool) -> None:
    """What is refused stands in the alarm's history as a failed action, and reaches nobody."""
    cloudwatch, sns, sqs = aws.client("cloudwatch"), aws.client("sns"), aws.client("sqs")
    name = f"policy-{list(POLICIES.values()).index((statement, allowed))}"
    topic, queue = sns.create_topic(Name=name)["TopicArn"], sqs.create_queue(QueueName=name)["QueueUrl"]
    account = topic.split(":")[4]
    if statement:
        full = {"Effect": "Allow", "Action": "sns:Publish", "Resource": topic, **statement}
        if of := full.pop("Condition", None):
            full["Condition"] = {"StringEquals": {"aws:SourceAccount": account if of == "account" else "999999999999"}}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [full]})
        sns.set_topic_attributes(TopicArn=topic, AttributeName="Policy", AttributeValue=policy)
    queue_arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    allow = {"Effect": "Allow", "Principal": {"Service": "sns.amazonaws.com"}, "Action": "sqs:SendMessage", "Resource": queue_arn}
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": json.dumps({"Version": "2012-10-17", "Statement": [allow]})})
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue_arn)
    cloudwatch.put_metric_alarm(**alarm(name, TreatMissingData="ignore", AlarmActions=[topic]))
    cloudwatch.set_alarm_state(AlarmName=name, StateValue="ALARM", StateReason="test")

    def outcome() -> dict[str, Any] | None:
        items = cloudwatch.describe_alarm_history(AlarmName=name, HistoryItemType="Action")["AlarmHistoryItems"]
        failed = bool(items) and items[0]["HistorySummary"].startswith("Failed to execute action")
        return items[0] if items and failed != allowed else None

    item = eventually(outcome)
    assert json.loads(item["HistoryData"])["actionState"] == ("Succeeded" if allowed else "Failed")
    assert ("is not authorized to perform: SNS:Publish" in item["HistorySummary"]) is not allowed
    told = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=2).get("Messages", [])
    assert bool(told) is allowed


def test_describe_alarms_selects(aws: LocalAws) -> None:
    """By name, prefix, type and relation; composites only where asked for."""
    cloudwatch = aws.client("cloudwatch", WEST)
    for name in ("a-one", "a-two", "b"):
        cloudwatch.put_metric_alarm(**alarm(name, Tags=[{"Key": "k", "Value": name}]))
    cloudwatch.put_composite_alarm(AlarmName="parent", AlarmRule='ALARM("a-one") OR ALARM("b")')

    def names(**params: Any) -> list[str]:
        found = cloudwatch.describe_alarms(**params)
        return [each["AlarmName"] for each in found["MetricAlarms"] + found["CompositeAlarms"]]

    assert names() == ["a-one", "a-two", "b"]
    assert names(AlarmNamePrefix="a-") == ["a-one", "a-two"]
    assert names(AlarmTypes=["CompositeAlarm"]) == ["parent"]
    assert names(ParentsOfAlarmName="b", AlarmTypes=["CompositeAlarm"]) == ["parent"]
    assert names(ChildrenOfAlarmName="parent") == ["a-one", "b"]
    assert [
        len(page["MetricAlarms"]) for page in cloudwatch.get_paginator("describe_alarms").paginate(PaginationConfig={"PageSize": 2})
    ] == [2, 1]
    arn = cloudwatch.describe_alarms(AlarmNames=["b"])["MetricAlarms"][0]["AlarmArn"]
    assert cloudwatch.list_tags_for_resource(ResourceARN=arn)["Tags"] == [{"Key": "k", "Value": "b"}]
    assert [each["AlarmName"] for each in cloudwatch.describe_alarms_for_metric(Namespace="Shop", MetricName="b")["MetricAlarms"]] == ["b"]
    with pytest.raises(ClientError, match="composite alarm"):
        cloudwatch.delete_alarms(AlarmNames=["b"])
    cloudwatch.delete_alarms(AlarmNames=["parent"])
    cloudwatch.delete_alarms(AlarmNames=["a-one", "a-two", "b"])
    assert names(AlarmTypes=["CompositeAlarm", "MetricAlarm"]) == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"Period": 45}, "Period must be 10, 20, 30 or a multiple of 60"),
        ({"AlarmActions": ["arn:aws:sns:us-west-2:123456789012:t"]}, "Invalid region us-west-2 specified. Only us-east-1 is supported."),
        ({"DatapointsToAlarm": 3}, "DatapointsToAlarm must be less than or equal to EvaluationPeriods"),
        ({"ComparisonOperator": "Above"}, "enum value set"),
    ],
)
def test_wrong_alarms_are_refused(aws: LocalAws, change: dict[str, Any], why: str) -> None:
    """With CloudWatch's reason."""
    with pytest.raises(ClientError, match=why):
        aws.client("cloudwatch").put_metric_alarm(**alarm("wrong", **change))


def test_mute_rules(aws: LocalAws) -> None:
    """They can be put, read, listed and deleted."""
    cloudwatch = aws.client("cloudwatch")
    at = dt.datetime.fromtimestamp(aws.world.clock.now() - 60, dt.UTC).strftime("%Y-%m-%dT%H:%M")
    rule = {"Schedule": {"Expression": f"at({at})", "Duration": "PT2H"}}
    cloudwatch.put_alarm_mute_rule(Name="deploy", Rule=rule, MuteTargets={"AlarmNames": ["up"]})
    assert cloudwatch.get_alarm_mute_rule(AlarmMuteRuleName="deploy")["Status"] == "ACTIVE"
    assert len(cloudwatch.list_alarm_mute_rules(AlarmName="up")["AlarmMuteRuleSummaries"]) == 1
    cloudwatch.delete_alarm_mute_rule(AlarmMuteRuleName="deploy")
    with pytest.raises(ClientError, match="deploy"):
        cloudwatch.get_alarm_mute_rule(AlarmMuteRuleName="deploy")


# -- dashboards ----------------------------------------------------------------------------------------------------------------------------


def test_dashboards_are_global_and_validated(aws: LocalAws) -> None:
    """What one Region's endpoint stores the other shows; errors refuse, warnings are answered."""
    east, west = aws.client("cloudwatch"), aws.client("cloudwatch", WEST)
    body = json.dumps({"widgets": [{"type": "text", "x": 0, "y": 0, "width": 6, "height": 3, "properties": {"markdown": "hi"}}]})
    east.put_dashboard(DashboardName="ops", DashboardBody=body)
    assert west.get_dashboard(DashboardName="ops")["DashboardBody"] == body
    assert west.get_dashboard(DashboardName="ops")["DashboardArn"] == "arn:aws:cloudwatch::123456789012:dashboard/ops"
    for name, wrong in (("ops", "not json"), ("ops", '{"widgets": [{"type": "metric", "properties": {}}]}'), ("bad name", body)):
        with pytest.raises(ClientError) as caught:
            east.put_dashboard(DashboardName=name, DashboardBody=wrong)
        assert caught.value.response["Error"]["Code"] == "InvalidParameterInput"
    with pytest.raises(ClientError, match="does not exist"):
        east.delete_dashboards(DashboardNames=["ops", "none"])
    west.delete_dashboards(DashboardNames=["ops"])
    assert east.list_dashboards()["DashboardEntries"] == []


def test_services_may_publish_to_aws_namespaces(aws: LocalAws) -> None:
    """World.vend stores what PutMetricData refuses."""
    aws.world.vend(WEST, "AWS/ApplicationELB", "RequestCount", {"LoadBalancer": "app/x"}, 12, "Count")
    (metric,) = aws.client("cloudwatch", WEST).list_metrics(Namespace="AWS/ApplicationELB")["Metrics"]
    assert metric["MetricName"] == "RequestCount"
