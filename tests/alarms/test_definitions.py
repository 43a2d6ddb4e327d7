"""Definitions: problems in AWS's words, composite rules that are pointed at, deployment order, mute schedules, units and DynamoDB."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from alarms.engine import (
    ALARM,
    IMMEDIATE,
    INSUFFICIENT_DATA,
    OK,
    AlarmBook,
    Datapoint,
    DefinitionError,
    MemorySource,
    MetricKey,
    Samples,
    State,
    evaluate,
    parse_composite_alarm,
    parse_metric_alarm,
    parse_mute_rule,
)
from alarms.engine.composite import RuleError, deployment_order, parse
from alarms.engine.metric import treatment
from alarms.engine.window import cadence, next_evaluation, range_slots, window
from tests.alarms.kit import T0, acts, book, metric_alarm, states


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"DatapointsToAlarm": 2}, "DatapointsToAlarm must be less than or equal to EvaluationPeriods"),
        ({"MetricName": None}, "MetricName must not be null"),
        ({"Period": 45}, "Period must be 10, 20, 30 or a multiple of 60, not 45"),
        ({"Period": 5}, "Period must be 10, 20, 30 or a multiple of 60, not 5"),
        ({"Threshold": None}, "Threshold must not be null"),
        ({"Threshold": "1"}, "must be a number"),
        ({"Statistic": "p99"}, "failed to satisfy constraint: Member must satisfy enum value set"),
        ({"ExtendedStatistic": "p99"}, "Exactly one of Statistic and ExtendedStatistic must be set"),
        ({"Statistic": None, "ExtendedStatistic": "p101"}, "The value p101 for parameter ExtendedStatistic is not supported."),
        ({"EvaluationPeriods": 1441}, "Metrics cannot be checked across more than a day (EvaluationPeriods * Period must be <= 86400)."),
        ({"Period": 3600, "EvaluationPeriods": 169}, "more than seven days"),
        ({"TreatMissingData": "bad"}, "Value 'bad' at 'treatMissingData' failed to satisfy constraint"),
        ({"AlarmActions": ["arn"] * 6}, "Member must have length less than or equal to 5"),
        ({"Metrics": [], "Statistic": "Sum"}, "Statistic should not be set if list of Metrics is set."),
        ({"Treshold": 1}, 'Unknown parameter in input: "Treshold"'),
        ({"Dimensions": [{"Name": "A", "Value": "1"}, {"Name": "A", "Value": "2"}]}, "the dimension A is given twice"),
        ({"ThresholdMetricId": "m1"}, "ThresholdMetricId does not go with"),
        ({"EvaluationWindow": {"WallClockWindow": {"Timezone": "Mars/Olympus"}}}, "is not a time zone"),
        ({"AlarmName": "x" * 256}, "Member must have length less than or equal to 255"),
    ],
)
def test_problems_of_metric_alarms(changes: dict[str, Any], message: str) -> None:
    """One wrong parameter each."""
    with pytest.raises(DefinitionError) as error:
        parse_metric_alarm({**metric_alarm(), **changes})
    assert message in str(error.value)
    assert all(problem.mend for problem in error.value.problems)


def test_all_problems_are_collected() -> None:
    """Not only the first."""
    with pytest.raises(DefinitionError) as error:
        parse_metric_alarm(metric_alarm(Period=45, Threshold="x", ComparisonOperator="Above"))
    assert {problem.where for problem in error.value.problems} == {"Period", "Threshold", "ComparisonOperator"}


def test_broken_constraints_are_counted_as_aws_counts_them() -> None:
    """ "2 validation errors detected: …; …"."""
    with pytest.raises(DefinitionError) as error:
        parse_metric_alarm(metric_alarm(EvaluationPeriods=0, ComparisonOperator="Above"))
    assert error.value.aws_message.startswith("2 validation errors detected: Value '0' at 'evaluationPeriods' failed")


def test_datapoints_to_alarm_defaults_to_evaluation_periods() -> None:
    """M = N unless given."""
    assert parse_metric_alarm(metric_alarm(EvaluationPeriods=4)).datapoints_to_alarm == 4


# --- composite rules ------------------------------------------------------------------------------------------------------------------


def holds(rule: str, **given: State) -> bool:
    """A rule over alarms that are OK unless told otherwise."""
    return parse(rule).holds(lambda name: given.get(name, OK))


@pytest.mark.parametrize(
    ("rule", "alarms", "expected"),
    [
        ("ALARM(a) OR ALARM(b) AND ALARM(c)", {"a": ALARM}, True),
        ("(ALARM(a) OR ALARM(b)) AND ALARM(c)", {"a": ALARM}, False),
        ("NOT ALARM(a) AND OK(b)", {}, True),
        ("NOT NOT FALSE", {}, False),
        ("INSUFFICIENT_DATA(a)", {"a": INSUFFICIENT_DATA}, True),
        ("AT_LEAST(2, ALARM, (a, b, c))", {"a": ALARM, "c": ALARM}, True),
        ("AT_LEAST(2, ALARM, (a, b, c))", {"a": ALARM}, False),
        ("AT_LEAST(50%, ALARM, (a, b, c))", {"a": ALARM}, False),
        ("AT_LEAST(50%, ALARM, (a, b, c))", {"a": ALARM, "b": ALARM}, True),
        ("AT_LEAST(2, NOT OK, (a, b))", {"a": ALARM, "b": INSUFFICIENT_DATA}, True),
        (
            "AT_LEAST(2, ALARM, (AZ1Health, AZ2Health, AZ3Health)) AND NOT ALARM(MaintenanceWindow)",
            {"AZ1Health": ALARM, "AZ3Health": ALARM},
            True,
        ),
        ("TRUE", {}, True),
        ("ALARM(TRUE)", {"TRUE": ALARM}, True),
        ("ALARM(AND) AND OK(OR)", {"AND": ALARM}, True),
    ],
)
def test_rules(rule: str, alarms: dict[str, State], expected: bool) -> None:
    """Precedence, counting, and names that look like keywords."""
    assert holds(rule, **alarms) is expected


def test_names_are_quoted_as_documented() -> None:
    """Quotes around spaces and brackets, \\" for a quote, single quotes are part of the name."""
    rule = parse("""ALARM("a b (c), d") AND OK("say \\"hi\\"") AND OK('x')""")
    assert rule.children == ("a b (c), d", 'say "hi"', "'x'")


@pytest.mark.parametrize(
    ("rule", "message", "position"),
    [
        (
            "true",
            "Unsupported token 'true' at char 0, must be: '(', 'NOT', AT_LEAST, TRUE or FALSE, ALARM, OK, or INSUFFICIENT_DATA",
            0,
        ),
        ("ALARM(a) and ALARM(b)", "Unsupported token 'and' at char 9, must be: 'AND' or 'OR'", 9),
        ("ALARM(a) AND", "Unexpected end of the rule at char 12", 12),
        ("ALARM a", "Unsupported token 'a' at char 6, must be: '('", 6),
        ("ALARM(a", "Unexpected end of the rule at char 7, must be: ')'", 7),
        ("ALARM(a))", "Unsupported token ')' at char 8", 8),
        ('ALARM("a)', "The quotation that begins at char 6 does not end", 6),
        ("AT_LEAST(3, ALARM, (a, b))", "AT_LEAST absolute threshold must be between 1 and number of alarms (2)", 9),
        ("AT_LEAST(101%, ALARM, (a, b))", "AT_LEAST percentage threshold must be between 1 and 100", 9),
        ("", "Unexpected end of the rule at char 0", 0),
        (" OR ".join(f"ALARM(a{i})" for i in range(101)), "the rule names 101 alarms, more than 100", 1099),
        (" OR ".join(["TRUE"] * 501), "the rule has 501 elements, more than 500", 4004),
        ("ALARM(" + "x" * 10_240 + ")", "more than 10240", 10_240),
    ],
)
def test_messages_point_at_the_character(rule: str, message: str, position: int) -> None:
    """In the service's words where they are known."""
    with pytest.raises(RuleError) as error:
        parse(rule)
    assert message in str(error.value)
    assert str(error.value).startswith("Error in AlarmRule [")
    assert error.value.position in (position, len(rule))
    assert error.value.pointed().splitlines()[-1].strip() == "^"


def test_composites_take_no_ec2_or_scaling_actions() -> None:
    """SNS, Lambda and Systems Manager only."""
    with pytest.raises(DefinitionError, match="cannot run the action"):
        parse_composite_alarm({"AlarmName": "c", "AlarmRule": "TRUE", "AlarmActions": ["arn:aws:automate:us-east-1:ec2:stop"]})


def test_a_suppressor_needs_both_periods() -> None:
    """And the periods need a suppressor."""
    for extra in (
        {"ActionsSuppressor": "s"},
        {"ActionsSuppressorWaitPeriod": 60},
        {"ActionsSuppressor": "s", "ActionsSuppressorWaitPeriod": 1},
    ):
        with pytest.raises(DefinitionError, match="ActionsSuppressor"):
            parse_composite_alarm({"AlarmName": "c", "AlarmRule": "TRUE", **extra})


def test_deployment_order_puts_children_first_and_names_cycles() -> None:
    """What only leads into a cycle is left out with it."""
    order, cycles = deployment_order({"top": ["mid"], "mid": ["leaf", "metric"], "leaf": [], "x": ["y"], "y": ["x"], "above": ["x"]})
    assert order == ["leaf", "mid", "top"]
    assert [set(cycle) for cycle in cycles] == [{"x", "y"}]


def test_composites_in_a_cycle_are_not_evaluated() -> None:
    """CloudWatch stops evaluating them; the rest goes on."""
    alarms = book()
    alarms.put_metric_alarm(metric_alarm(TreatMissingData="ignore"), T0)
    alarms.put_composite_alarm({"AlarmName": "x", "AlarmRule": "ALARM(a)"}, T0)
    alarms.put_composite_alarm({"AlarmName": "y", "AlarmRule": "ALARM(x)"}, T0)
    alarms.put_composite_alarm({"AlarmName": "x", "AlarmRule": "ALARM(a) OR ALARM(y)"}, T0)
    alarms.put_composite_alarm({"AlarmName": "z", "AlarmRule": "ALARM(a)"}, T0)
    alarms.set_alarm_state("a", ALARM, "test", T0 + 1)
    assert (alarms.state("x"), alarms.state("z")) == (INSUFFICIENT_DATA, ALARM)


# --- mute rules -----------------------------------------------------------------------------------------------------------------------


def mute(expression: str, duration: str = "PT1H", **more: Any) -> dict[str, Any]:
    """PutAlarmMuteRule's parameters."""
    zone = more.pop("Timezone", None)
    schedule = {"Expression": expression, "Duration": duration} | ({"Timezone": zone} if zone else {})
    return {"Name": "m", "Rule": {"Schedule": schedule}, "MuteTargets": {"AlarmNames": ["a"]}, **more}


def when(text: str) -> float:
    """Epoch seconds of a UTC time."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("params", "inside", "outside"),
    [
        (mute("at(2026-03-01T08:00)"), ["2026-03-01T08:00", "2026-03-01T08:59"], ["2026-03-01T07:59", "2026-03-01T09:00"]),
        (mute("cron(0 2 * * SUN)"), ["2026-03-01T02:30", "2026-03-08T02:00"], ["2026-03-02T02:30"]),
        (mute("cron(0 2 * * 0)"), ["2026-03-01T02:30"], ["2026-03-02T02:30"]),
        (mute("cron(0 2 * * 7)"), ["2026-03-01T02:30"], ["2026-03-02T02:30"]),
        (mute("cron(0 22 * * MON-FRI)", "PT10H"), ["2026-03-02T23:00", "2026-03-03T07:59", "2026-03-07T07:00"], ["2026-03-01T23:00"]),
        (mute("cron(0,30 9 1,15 JAN,MAR *)", "PT10M"), ["2026-03-15T09:35"], ["2026-03-15T09:15", "2026-02-15T09:05"]),
        (mute("cron(0 0 13 * FRI)"), ["2026-03-13T00:10", "2026-03-06T00:10", "2026-01-13T00:10"], ["2026-03-14T00:10"]),
        (mute("cron(0 2 * * *)", Timezone="Europe/Berlin"), ["2026-01-10T01:30", "2026-07-10T00:30"], ["2026-07-10T02:30"]),
        (mute("cron(0 2 * * *)", "P1D"), ["2026-03-01T01:59", "2026-03-01T02:00"], []),
        (
            mute("cron(0 2 * * *)", StartDate="2026-03-02T00:00:00Z", ExpireDate="2026-03-03T02:30:00Z"),
            ["2026-03-02T02:30"],
            ["2026-03-01T02:30", "2026-03-03T02:40"],
        ),
    ],
)
def test_mute_windows(params: dict[str, Any], inside: list[str], outside: list[str]) -> None:
    """at and cron, weekdays, time zones, start and expiry."""
    rule = parse_mute_rule(params)
    for text in inside:
        assert rule.status(when(text)) == "ACTIVE", text
    for text in outside:
        assert rule.status(when(text)) != "ACTIVE", text


def test_a_mute_rule_expires() -> None:
    """at(…) after its window, any rule after ExpireDate."""
    assert parse_mute_rule(mute("at(2026-03-01T08:00)")).status(when("2026-03-02T00:00")) == "EXPIRED"
    assert parse_mute_rule(mute("at(2026-03-01T08:00)")).status(when("2026-02-02T00:00")) == "SCHEDULED"


@pytest.mark.parametrize(
    ("params", "where"),
    [
        (mute("cron(0 2 * *)"), "Rule.Schedule.Expression"),
        (mute("cron(*/5 2 * * *)"), "Rule.Schedule.Expression"),
        (mute("cron(61 2 * * *)"), "Rule.Schedule.Expression"),
        (mute("rate(5 minutes)"), "Rule.Schedule.Expression"),
        (mute("at(2026-02-30T08:00)"), "Rule.Schedule.Expression"),
        (mute("cron(0 2 * * *)", "PT30S"), "Rule.Schedule.Duration"),
        (mute("cron(0 2 * * *)", "P16D"), "Rule.Schedule.Duration"),
        (mute("cron(0 2 * * *)", Timezone="Nowhere"), "Rule.Schedule.Timezone"),
        (mute("cron(0 2 * * *)") | {"MuteTargets": {"AlarmNames": ["arn:aws:cloudwatch:us-east-1:1:alarm:a"]}}, "MuteTargets.AlarmNames"),
        (mute("cron(0 2 * * *)") | {"MuteTargets": {"AlarmNames": ["a"] * 101}}, "MuteTargets.AlarmNames"),
        ({"Name": "m"}, "Rule"),
    ],
)
def test_problems_of_mute_rules(params: dict[str, Any], where: str) -> None:
    """Each at its key."""
    with pytest.raises(DefinitionError) as error:
        parse_mute_rule(params)
    assert where in {problem.where for problem in error.value.problems}


# --- units, DynamoDB, windows ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "sent", "expected"), [(None, "Count", ALARM), ("Count", "Count", ALARM), ("Seconds", "Count", OK), ("None", None, ALARM)]
)
def test_a_unit_selects_what_was_sent_in_it(asked: str | None, sent: str | None, expected: State) -> None:
    """CloudWatch does not convert: another unit is another set of data."""
    alarms = book()
    alarms.put_metric_alarm(metric_alarm(Unit=asked), T0)
    source = MemorySource()
    source.add(MetricKey.of("N", "M", {"D": "v"}, sent), Samples.of([5], times=[T0]))
    alarms.tick(T0 + 60, source)
    assert alarms.state("a") == expected


def test_dimensions_match_exactly() -> None:
    """A metric with fewer or more dimensions is another metric."""
    alarms = book()
    alarms.put_metric_alarm(metric_alarm(TreatMissingData="missing"), T0)
    source = MemorySource()
    source.add(MetricKey.of("N", "M"), Samples.of([5], times=[T0]))
    source.add(MetricKey.of("N", "M", {"D": "v", "E": "w"}), Samples.of([5], times=[T0]))
    alarms.tick(T0 + 60, source)
    assert alarms.state("a") == INSUFFICIENT_DATA


def test_dynamodb_and_missing_data() -> None:
    """Explicit treatments are honoured, the default is ignore; the older documents' reading is an option."""
    dynamo = metric_alarm(Namespace="AWS/DynamoDB", TreatMissingData="breaching")
    explicit, implicit = parse_metric_alarm(dynamo), parse_metric_alarm({k: v for k, v in dynamo.items() if k != "TreatMissingData"})
    always = replace(IMMEDIATE, dynamodb_missing="always-ignore")
    assert [treatment(alarm, options) for alarm in (explicit, implicit) for options in (IMMEDIATE, always)] == [
        "breaching",
        "ignore",
        "ignore",
        "ignore",
    ]
    verdict = evaluate(explicit, [None] * 3, OK, IMMEDIATE, explain=True)
    assert verdict.state == ALARM
    assert "dynamodb_missing" in verdict.depends_on


def test_low_sample_points_are_neither_good_nor_bad() -> None:
    """With ignore, a point of too few samples keeps the state unless the rest decides."""
    alarm = parse_metric_alarm(
        metric_alarm(
            Statistic=None, ExtendedStatistic="p90", EvaluationPeriods=2, DatapointsToAlarm=1, EvaluateLowSampleCountPercentile="ignore"
        )
    )
    few, many, good = Datapoint(0, 5.0, 99), Datapoint(60, 5.0, 100), Datapoint(60, 0.0, 100)
    assert evaluate(alarm, [few, few], OK).state == OK
    assert evaluate(alarm, [few, few], ALARM).state == ALARM
    assert evaluate(alarm, [few, many], OK).state == ALARM
    assert evaluate(alarm, [few, good], ALARM).state == ALARM


@pytest.mark.parametrize(
    ("period", "n", "every", "slots"),
    [(60, 3, 60, 5), (300, 1, 60, 3), (10, 3, 10, 9), (30, 2, 10, 4), (3600, 25, 3600, 27), (86_400, 1, 60, 3)],
)
def test_cadence_and_range(period: int, n: int, every: int, slots: int) -> None:
    """Every minute, every ten seconds, every hour; N + 2 periods, or N and a minute."""
    alarm = parse_metric_alarm(metric_alarm(Period=period, EvaluationPeriods=n))
    assert cadence(alarm) == every
    assert range_slots(alarm, IMMEDIATE) == slots


def test_the_window_slides_minute_by_minute() -> None:
    """Page alarm-limits: at 12:15 a five-minute alarm expects 12:00, 12:05, 12:10; at 12:16 12:01, 12:06, 12:11."""
    alarm = parse_metric_alarm(metric_alarm(Period=300, EvaluationPeriods=3))
    noon = when("2026-01-01T12:00")
    assert window(alarm, noon + 15 * 60, IMMEDIATE).end == noon + 15 * 60
    assert window(alarm, noon + 16 * 60 + 20, IMMEDIATE).end == noon + 16 * 60
    assert window(alarm, noon + 16 * 60, IMMEDIATE).start == noon + 60 - 2 * 300


def test_a_wall_clock_window_begins_with_the_clock() -> None:
    """Days of Berlin begin at 23:00 UTC in winter."""
    clock = {"WallClockWindow": {"Timezone": "Europe/Berlin"}}
    alarm = parse_metric_alarm(metric_alarm(Period=86_400, EvaluationWindow=clock))
    assert window(alarm, when("2026-01-05T12:00"), IMMEDIATE).end == when("2026-01-04T23:00")


def test_ten_second_alarms_are_held_back_and_math_is_not() -> None:
    """As observed: a scalar alarm looks at a slot ten seconds after its end."""
    plain = parse_metric_alarm(metric_alarm(Period=10))
    assert window(plain, T0 + 29.9, replace(IMMEDIATE, hold_back_high_resolution_s=10.0)).end == T0 + 10
    assert window(plain, T0 + 29.9, IMMEDIATE).end == T0 + 20


def test_evaluations_follow_their_phase() -> None:
    """Strictly later than the instant asked for."""
    assert next_evaluation(T0, 60, 12.5) == T0 + 12.5
    assert next_evaluation(T0 + 12.5, 60, 12.5) == T0 + 72.5


def test_warm_up_withholds_actions_or_evaluation() -> None:
    """In the warm-up the alarm changes state silently; or it is not evaluated at all."""
    source = MemorySource()
    source.add(MetricKey.of("N", "M", {"D": "v"}), Samples.of([5] * 30, times=[T0 + 60 * i for i in range(30)]))
    seen = {}
    for only in (False, True):
        alarms = AlarmBook("us-west-2", phase=lambda _: 0.0)
        warm_up = {"WarmUpPeriodDurationInMinutes": 10, "OnlyStartEvaluatingAfterWarmUpPeriodEnds": only}
        alarms.put_metric_alarm(metric_alarm(WarmUpConfiguration=warm_up), T0)
        events = alarms.tick(T0 + 900, source)
        seen[only] = (states(events), acts(events))
    assert seen[False] == ([(1, "a", ALARM)], [])
    assert seen[True] == ([(11, "a", ALARM)], [(11, "a", ALARM)])
