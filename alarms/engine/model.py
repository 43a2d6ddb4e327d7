"""Alarm definitions: PutMetricAlarm and PutCompositeAlarm parameters, parsed into frozen values.

`parse_metric_alarm` and `parse_composite_alarm` collect every problem and raise one DefinitionError, worded as AWS words it
where that is known. Pages: API PutMetricAlarm, PutCompositeAlarm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from alarms.engine import composite
from alarms.engine.math.check import check
from alarms.engine.problems import DefinitionError, Problem
from alarms.engine.query import (
    UNITS,
    MetricKey,
    MetricStat,
    Query,
    choice,
    flag,
    integer,
    parse_metric,
    parse_queries,
    parse_statistic,
    text,
    unknown_keys,
)
from alarms.engine.states import ALARM, INSUFFICIENT_DATA, OK, State

COMPARISONS: dict[str, str] = {
    "GreaterThanOrEqualToThreshold": "greater than or equal to the threshold",
    "GreaterThanThreshold": "greater than the threshold",
    "LessThanThreshold": "less than the threshold",
    "LessThanOrEqualToThreshold": "less than or equal to the threshold",
    "LessThanLowerOrGreaterThanUpperThreshold": "less than the lower or greater than the upper threshold",
    "LessThanLowerThreshold": "less than the lower threshold",
    "GreaterThanUpperThreshold": "greater than the upper threshold",
}
BAND_COMPARISONS = frozenset(name for name in COMPARISONS if "Lower" in name or "Upper" in name)
TREATMENTS = ("breaching", "notBreaching", "ignore", "missing")
STATISTICS = ("SampleCount", "Average", "Sum", "Minimum", "Maximum")
DAY_S, WEEK_S = 86_400, 604_800
MAX_ACTIONS = 5


@dataclass(frozen=True, slots=True)
class Actions:
    """What an alarm runs on entering a state, as ARNs."""

    enabled: bool = True
    ok: tuple[str, ...] = ()
    alarm: tuple[str, ...] = ()
    insufficient_data: tuple[str, ...] = ()

    def on(self, state: State) -> tuple[str, ...]:
        """The actions of ``state``, whether enabled or not."""
        return {OK: self.ok, ALARM: self.alarm, INSUFFICIENT_DATA: self.insufficient_data}[state]

    @property
    def any(self) -> bool:
        """Whether there is an action for some state."""
        return bool(self.ok or self.alarm or self.insufficient_data)


@dataclass(frozen=True, slots=True)
class WarmUp:
    """The time after creation in which an alarm does not act, or does not even evaluate."""

    seconds: float
    evaluate: bool


@dataclass(frozen=True, slots=True)
class MetricAlarm:
    """A metric alarm. ``queries`` has one entry, ``m1``, for an alarm on a single metric."""

    name: str
    queries: tuple[Query, ...]
    period: int
    evaluation_periods: int
    datapoints_to_alarm: int
    comparison: str
    threshold: float | None
    threshold_metric_id: str | None = None
    treat_missing_data: str | None = None
    """As given; None is CloudWatch's default, ``missing``."""
    low_sample_percentile: str = "evaluate"
    wall_clock_zone: str | None = None
    """Set for a WallClockWindow: periods then begin on the clock of this time zone."""
    warm_up: WarmUp | None = None
    actions: Actions = Actions()
    description: str = ""
    params: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False, hash=False)
    """The parameters it was made from, for DescribeAlarms."""

    @property
    def single_metric(self) -> MetricStat | None:
        """The statistic watched, for an alarm made of MetricName and Statistic rather than of Metrics."""
        return None if "Metrics" in self.params else self.queries[0].metric_stat

    @property
    def returned(self) -> Query:
        """The query whose points are compared."""
        shown = [query for query in self.queries if query.return_data and query.id != self.threshold_metric_id]
        return shown[0]

    @property
    def is_math(self) -> bool:
        """Whether what is compared is an expression's result."""
        return self.returned.expression is not None

    @property
    def metric_stats(self) -> tuple[MetricStat, ...]:
        """Every statistic the alarm reads."""
        return tuple(query.metric_stat for query in self.queries if query.metric_stat)

    @property
    def high_resolution(self) -> bool:
        """Whether the period is 10, 20 or 30 seconds."""
        return self.period < 60

    @property
    def multi_day(self) -> bool:
        """Whether it looks back more than a day, and is therefore evaluated once an hour."""
        return self.period * self.evaluation_periods > DAY_S

    @property
    def band(self) -> bool:
        """Whether it compares with an anomaly band."""
        return self.comparison in BAND_COMPARISONS


@dataclass(frozen=True, slots=True)
class CompositeAlarm:
    """A composite alarm."""

    name: str
    rule: composite.Rule
    suppressor: str | None = None
    wait_s: float = 0.0
    extension_s: float = 0.0
    actions: Actions = Actions()
    description: str = ""
    params: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False, hash=False)

    @property
    def children(self) -> tuple[str, ...]:
        """The names of the alarms in the rule."""
        return tuple(dict.fromkeys(composite.alarm_name(child) for child in self.rule.children))

    @property
    def depends_on(self) -> tuple[str, ...]:
        """The names of children and suppressor."""
        extra = (composite.alarm_name(self.suppressor),) if self.suppressor else ()
        return tuple(dict.fromkeys((*self.children, *extra)))


Alarm = MetricAlarm | CompositeAlarm

_ACTION_KEYS = ("ActionsEnabled", "OKActions", "AlarmActions", "InsufficientDataActions", "ActionConfiguration")
_SINGLE_KEYS = ("MetricName", "Namespace", "Dimensions", "Period", "Unit", "Statistic", "ExtendedStatistic")
_METRIC_KEYS = (
    *("AlarmName", "AlarmDescription", *_ACTION_KEYS, *_SINGLE_KEYS, "Metrics", "EvaluationPeriods", "DatapointsToAlarm", "Threshold"),
    *("ThresholdMetricId", "ComparisonOperator", "TreatMissingData", "EvaluateLowSampleCountPercentile", "Tags"),
    *("EvaluationWindow", "WarmUpConfiguration", "EvaluationCriteria", "EvaluationInterval"),
)
_COMPOSITE_KEYS = (
    *("AlarmName", "AlarmDescription", *_ACTION_KEYS, "AlarmRule", "Tags"),
    *("ActionsSuppressor", "ActionsSuppressorWaitPeriod", "ActionsSuppressorExtensionPeriod"),
)


def parse_metric_alarm(params: Mapping[str, Any]) -> MetricAlarm:
    """A metric alarm from PutMetricAlarm's parameters. Raises DefinitionError."""
    problems: list[Problem] = []
    unknown_keys(params, _METRIC_KEYS, problems)
    name = text(params, "AlarmName", problems, required=True) or ""
    description = text(params, "AlarmDescription", problems, maximum=1024) or ""
    if params.get("EvaluationCriteria") is not None:
        problems.append(Problem("EvaluationCriteria", "PromQL alarms are not evaluated here", "watch a metric instead"))
    queries = _queries(params, problems)
    periods = integer(params, "EvaluationPeriods", problems, required=True) or 1
    datapoints = integer(params, "DatapointsToAlarm", problems) or periods
    if datapoints > periods:
        mend = "lower DatapointsToAlarm or raise EvaluationPeriods"
        problems.append(Problem("DatapointsToAlarm", "DatapointsToAlarm must be less than or equal to EvaluationPeriods", mend))
    comparison = choice(params, "ComparisonOperator", COMPARISONS, problems, required=True) or "GreaterThanThreshold"
    threshold, band_id = _threshold(params, comparison, queries, problems)
    treatment = choice(params, "TreatMissingData", TREATMENTS, problems)
    low_sample = choice(params, "EvaluateLowSampleCountPercentile", ("evaluate", "ignore"), problems) or "evaluate"
    period = _period(queries, problems)
    _check_length(period, periods, problems)
    actions = _actions(params, problems)
    zone, warm_up = _wall_clock(params, period, problems), _warm_up(params, problems)
    if problems:
        raise DefinitionError(problems)
    return MetricAlarm(
        *(name, queries, period, periods, datapoints, comparison, threshold, band_id, treatment, low_sample, zone, warm_up, actions),
        *(description, dict(params)),
    )


def _queries(params: Mapping[str, Any], problems: list[Problem]) -> tuple[Query, ...]:
    if params.get("Metrics") is not None:
        problems.extend(
            Problem(key, f"{key} should not be set if list of Metrics is set.", f"move {key} into Metrics, or drop Metrics")
            for key in _SINGLE_KEYS
            if params.get(key) is not None
        )
        inner: list[Problem] = []
        queries = parse_queries(params["Metrics"], inner)
        band = params.get("ThresholdMetricId")
        inner = inner or check(queries, alarm=True, band=band if isinstance(band, str) else None)
        problems.extend(problem.under("Metrics") for problem in inner)
        return queries
    unit = choice(params, "Unit", sorted(UNITS), problems)
    key = parse_metric(params, unit, problems) if params.get("MetricName") is not None else MetricKey("", "")
    if params.get("MetricName") is None:
        problems.append(Problem("MetricName", "MetricName must not be null", "name a metric, or give Metrics"))
    plain = choice(params, "Statistic", STATISTICS, problems)
    extended = text(params, "ExtendedStatistic", problems)
    if (params.get("Statistic") is None) == (params.get("ExtendedStatistic") is None):
        what = "Exactly one of Statistic and ExtendedStatistic must be set"
        problems.append(Problem("Statistic", what, "keep Statistic for Average and the like, ExtendedStatistic for p99 and the like"))
    if extended in STATISTICS:
        problems.append(Problem("ExtendedStatistic", f"{extended} is not an extended statistic", "write it as Statistic"))
    stat = parse_statistic(plain or extended, "ExtendedStatistic" if extended else "Statistic", problems)
    period = integer(params, "Period", problems, required=True) or 60
    return (Query("m1", MetricStat(key, period, stat)),)


def _threshold(
    params: Mapping[str, Any], comparison: str, queries: tuple[Query, ...], problems: list[Problem]
) -> tuple[float | None, str | None]:
    """Threshold and ThresholdMetricId, one of which fits the operator; and the one query that is compared."""
    band_id = text(params, "ThresholdMetricId", problems)
    value = params.get("Threshold")
    shown = [query for query in queries if query.return_data]
    if comparison in BAND_COMPARISONS:
        if band_id is None or value is not None:
            what = f"{comparison} compares with the band named by ThresholdMetricId, not with Threshold"
            problems.append(Problem("ThresholdMetricId", what, "set ThresholdMetricId to the Id of the ANOMALY_DETECTION_BAND"))
        elif band_id not in {query.id for query in queries}:
            problems.append(Problem("ThresholdMetricId", f"no metric has the Id '{band_id}'", "name the band's query"))
        if queries and len([query for query in shown if query.id != band_id]) != 1:
            what = "Exactly two elements of the metrics list should return data."
            problems.append(Problem("Metrics", what, "set ReturnData on the metric and on the band, and on nothing else"))
        return None, band_id
    if band_id is not None:
        problems.append(Problem("ThresholdMetricId", f"ThresholdMetricId does not go with {comparison}", "use Threshold"))
    if queries and len(shown) != 1:
        what = "Exactly one element of the metrics list should return data."
        problems.append(Problem("Metrics", what, "set ReturnData to false on all but one"))
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        what = "Threshold must not be null" if value is None else f"must be a number, not {value!r}"
        problems.append(Problem("Threshold", what, "give the number the metric is compared with"))
        return 0.0, None
    return float(value), None


def _period(queries: tuple[Query, ...], problems: list[Problem]) -> int:
    periods = [query.seconds for query in queries if query.seconds]
    if queries and not periods:
        problems.append(Problem("Metrics", "Period must not be null", "give the expression a Period"))
    period = min(periods, default=60)
    if period % 60 and period not in (10, 20, 30):
        problems.append(Problem("Period", f"Period must be 10, 20, 30 or a multiple of 60, not {period}", "round it"))
        return 60
    return period


def _check_length(period: int, periods: int, problems: list[Problem]) -> None:
    limit, words = (WEEK_S, "seven days") if period >= 3600 else (DAY_S, "a day")
    if period * periods > limit:
        what = f"Metrics cannot be checked across more than {words} (EvaluationPeriods * Period must be <= {limit})."
        problems.append(Problem("EvaluationPeriods", what, f"look back at most {limit // period} periods"))


def _wall_clock(params: Mapping[str, Any], period: int, problems: list[Problem]) -> str | None:
    window = params.get("EvaluationWindow")
    if window is None or (isinstance(window, Mapping) and set(window) == {"SlidingWindow"}):
        return None
    clock = window.get("WallClockWindow") if isinstance(window, Mapping) else None
    if not isinstance(clock, Mapping) or (isinstance(window, Mapping) and len(window) != 1):
        what = "must hold exactly one of SlidingWindow and WallClockWindow"
        problems.append(Problem("EvaluationWindow", what, "write {WallClockWindow: {Timezone: UTC}}"))
        return None
    if period not in (60, 300, 3600, DAY_S, WEEK_S):
        what = f"a wall clock window goes with periods of 60, 300, 3600, 86400 or 604800 seconds, not {period}"
        problems.append(Problem("EvaluationWindow", what, "change the Period"))
    zone = text(clock, "Timezone", problems, maximum=50) or "UTC"
    try:
        return ZoneInfo(zone).key
    except (ZoneInfoNotFoundError, ValueError, OSError):
        problems.append(Problem("EvaluationWindow.WallClockWindow.Timezone", f"'{zone}' is not a time zone", "use e.g. Europe/Berlin"))
        return None


def _warm_up(params: Mapping[str, Any], problems: list[Problem]) -> WarmUp | None:
    value = params.get("WarmUpConfiguration")
    if value is None:
        return None
    if not isinstance(value, Mapping):
        problems.append(Problem("WarmUpConfiguration", "must be a mapping", "give WarmUpPeriodDurationInMinutes"))
        return None
    minutes = integer(value, "WarmUpPeriodDurationInMinutes", problems, required=True) or 0
    if minutes > 2880:
        problems.append(Problem("WarmUpConfiguration", "a warm-up lasts at most 2880 minutes", "shorten it"))
    return WarmUp(minutes * 60.0, not flag(value, "OnlyStartEvaluatingAfterWarmUpPeriodEnds", False, problems))


def _actions(params: Mapping[str, Any], problems: list[Problem]) -> Actions:
    lists: dict[str, tuple[str, ...]] = {}
    for key in ("OKActions", "AlarmActions", "InsufficientDataActions"):
        value = params.get(key)
        if value is None:
            value = ()
        if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(arn, str) for arn in value):
            problems.append(Problem(key, "must be a list of ARNs", "write each ARN as a string"))
            value = ()
        if len(value) > MAX_ACTIONS:
            rule = f"Member must have length less than or equal to {MAX_ACTIONS}"
            what = f"Value '{len(value)} items' at '{key[:1].lower() + key[1:]}' failed to satisfy constraint: {rule}"
            problems.append(Problem(key, what, "let one topic notify several"))
        lists[key] = tuple(value)
    return Actions(
        flag(params, "ActionsEnabled", True, problems), lists["OKActions"], lists["AlarmActions"], lists["InsufficientDataActions"]
    )


def parse_composite_alarm(params: Mapping[str, Any], region: str | None = None, account: str | None = None) -> CompositeAlarm:
    """A composite alarm from PutCompositeAlarm's parameters. Raises DefinitionError.

    With ``region`` and ``account``, ARNs that point elsewhere are refused. Whether the children exist is the book's business.
    """
    problems: list[Problem] = []
    unknown_keys(params, _COMPOSITE_KEYS, problems)
    name = text(params, "AlarmName", problems, required=True) or ""
    description = text(params, "AlarmDescription", problems, maximum=1024) or ""
    rule = _rule(text(params, "AlarmRule", problems, maximum=composite.MAX_RULE, required=True), name, region, account, problems)
    suppressor = text(params, "ActionsSuppressor", problems, maximum=1600)
    wait = integer(params, "ActionsSuppressorWaitPeriod", problems, minimum=0)
    extension = integer(params, "ActionsSuppressorExtensionPeriod", problems, minimum=0)
    if suppressor is not None:
        if wait is None or extension is None:
            what = "ActionsSuppressorWaitPeriod and ActionsSuppressorExtensionPeriod are required with ActionsSuppressor"
            problems.append(Problem("ActionsSuppressor", what, "give both in seconds, for example 60"))
        if message := composite.foreign(suppressor, region, account):
            problems.append(Problem("ActionsSuppressor", message, "use a suppressor of the same Region and account"))
        if composite.alarm_name(suppressor) == name:
            problems.append(Problem("ActionsSuppressor", "A composite alarm cannot suppress itself", "name another alarm"))
    elif wait is not None or extension is not None:
        what = "ActionsSuppressorWaitPeriod and ActionsSuppressorExtensionPeriod need an ActionsSuppressor"
        problems.append(Problem("ActionsSuppressor", what, "name a suppressor or drop the periods"))
    actions = _actions(params, problems)
    problems.extend(
        Problem("AlarmActions", f"A composite alarm cannot run the action {arn}", "use SNS, Lambda or Systems Manager")
        for arn in (*actions.ok, *actions.alarm, *actions.insufficient_data)
        if ":automate:" in arn or ":autoscaling:" in arn
    )
    if problems or rule is None:
        raise DefinitionError(problems)
    return CompositeAlarm(name, rule, suppressor, float(wait or 0), float(extension or 0), actions, description, dict(params))


def _rule(value: str | None, name: str, region: str | None, account: str | None, problems: list[Problem]) -> composite.Rule | None:
    if value is None:
        return None
    try:
        rule = composite.parse(value)
    except composite.RuleError as error:
        problems.append(Problem("AlarmRule", str(error), f"look at character {error.position}"))
        return None
    problems.extend(composite.check_references(rule, region, account))
    if name in {composite.alarm_name(child) for child in rule.children}:
        problems.append(Problem("AlarmRule", "A composite alarm cannot have itself as a child", "take it out of its own rule"))
    return rule
