"""The state of a metric alarm from the points of its evaluation range: seven rules, tried in order.

Take the N newest real points of the range; ``bad`` of them breach, ``good`` do not, ``missing`` are lacking to N. A point's age is
counted in slots, 1 for the newest.

1. bad >= M: ALARM.
2. good >= N - M + 1: OK (even if all missing points were bad, M could not be reached).
3. a percentile point with too few samples, and the alarm is told to ignore such points: the state is retained.
4. TreatMissingData ignore: OK if there is a good point, else the state is retained.
5. breaching: ALARM if bad + missing >= M, else OK.
6. notBreaching: OK.
7. missing: INSUFFICIENT_DATA without real points; OK with a good point; with only bad points ALARM once one of them is M slots old.

They give AWS's answer in all forty cells of its tables (page *Configuring how CloudWatch alarms treat missing data*).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from alarms.engine.model import MetricAlarm
from alarms.engine.options import ALTERNATIVES, OBSERVED, Options
from alarms.engine.states import ALARM, INSUFFICIENT_DATA, OK, State
from alarms.engine.statistics import least_samples


@dataclass(frozen=True, slots=True)
class Datapoint:
    """A value of the metric in the period that begins at ``time``; the band's edges where the alarm compares with a band."""

    time: int
    value: float
    samples: float | None = None
    lower: float | None = None
    upper: float | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the rules look at."""

    n: int
    m: int
    treatment: str
    good: tuple[Datapoint, ...]
    bad: tuple[Datapoint, ...]
    low_sample: tuple[Datapoint, ...]
    oldest_bad_age: int
    previous: State
    options: Options

    @property
    def real(self) -> int:
        """How many real points count."""
        return len(self.good) + len(self.bad) + len(self.low_sample)

    @property
    def missing(self) -> int:
        """How many points are lacking to N."""
        return self.n - self.real


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state, the rule that gave it (1 to 7), what it saw, and the names of the options on which it hangs."""

    state: State
    rule: int
    why: str
    evidence: Evidence
    retained: bool = False
    depends_on: tuple[str, ...] = ()


Decision = State | None
"""A state, or None where a rule does not apply."""


def _enough_bad(e: Evidence) -> Decision:
    return ALARM if len(e.bad) >= e.m else None


def _enough_good(e: Evidence) -> Decision:
    return OK if len(e.good) >= e.n - e.m + 1 else None


def _low_sample(e: Evidence) -> Decision:
    return e.previous if e.low_sample else None


def _ignore(e: Evidence) -> Decision:
    if e.treatment != "ignore":
        return None
    return OK if e.good and e.options.ignore_with_good == "ok" else e.previous


def _breaching(e: Evidence) -> Decision:
    if e.treatment != "breaching":
        return None
    return ALARM if len(e.bad) + e.missing >= e.m else OK


def _not_breaching(e: Evidence) -> Decision:
    return OK if e.treatment == "notBreaching" else None


def _missing(e: Evidence) -> Decision:
    if not e.real:
        return INSUFFICIENT_DATA
    if e.good:
        return OK
    if e.oldest_bad_age >= e.m:
        return ALARM
    return INSUFFICIENT_DATA if e.options.fresh_breach == "insufficient-data" else e.previous


RULES: tuple[tuple[Callable[[Evidence], Decision], str], ...] = (
    (_enough_bad, "enough points breach"),
    (_enough_good, "so many points are fine that the rest cannot reach M"),
    (_low_sample, "a percentile has too few samples and such points are ignored"),
    (_ignore, "points are missing and are ignored"),
    (_breaching, "missing points count as breaching"),
    (_not_breaching, "missing points count as not breaching"),
    (_missing, "points are missing and stay missing"),
)


def breaches(alarm: MetricAlarm, point: Datapoint) -> bool:
    """Whether a point is on the wrong side of the threshold, or outside of the band."""
    value, threshold = point.value, alarm.threshold or 0.0
    low = point.lower is not None and value < point.lower
    high = point.upper is not None and value > point.upper
    match alarm.comparison:
        case "GreaterThanThreshold":
            return value > threshold
        case "GreaterThanOrEqualToThreshold":
            return value >= threshold
        case "LessThanThreshold":
            return value < threshold
        case "LessThanOrEqualToThreshold":
            return value <= threshold
        case "LessThanLowerThreshold":
            return low
        case "GreaterThanUpperThreshold":
            return high
        case _:
            return low or high


def treatment(alarm: MetricAlarm, options: Options) -> str:
    """How the alarm treats missing data. Alarms on AWS/DynamoDB alone ignore it by default (see `Options.dynamodb_missing`)."""
    dynamodb = all(stat.metric.namespace == "AWS/DynamoDB" for stat in alarm.metric_stats) and bool(alarm.metric_stats)
    if dynamodb and (alarm.treat_missing_data is None or options.dynamodb_missing == "always-ignore"):
        return "ignore"
    return alarm.treat_missing_data or "missing"


def evaluate(
    alarm: MetricAlarm, points: Sequence[Datapoint | None], previous: State, options: Options = OBSERVED, *, explain: bool = False
) -> Verdict:
    """The alarm's state after looking at ``points``: the slots of its evaluation range, oldest first, None where missing.

    A point without a band is missing for an alarm that compares with one. With ``explain`` the verdict names the options it hangs on; that
    needs ``points`` from a range as long as the longest alternative (`longest_range`), of which the newest slots are used.
    """
    from alarms.engine.window import range_slots

    verdict = _decide(gather(alarm, points[max(0, len(points) - range_slots(alarm, options)) :], previous, options))
    if not explain:
        return verdict
    hangs = []
    for name, values in ALTERNATIVES.items():
        for value in values:
            other = replace(options, **{name: value})  # type: ignore[arg-type]
            seen = points[max(0, len(points) - range_slots(alarm, other)) :]
            if _decide(gather(alarm, seen, previous, other)).state != verdict.state:
                hangs.append(name)
                break
    return replace(verdict, depends_on=tuple(hangs))


def longest_range(alarm: MetricAlarm, options: Options) -> Options:
    """``options`` with the longest of the alternative evaluation ranges: what to fetch before asking for an explanation."""
    periods = max((options.range_extra_periods, *(int(str(v)) for v in ALTERNATIVES["range_extra_periods"])))
    seconds = max((options.range_extra_high_resolution_s, *(int(str(v)) for v in ALTERNATIVES["range_extra_high_resolution_s"])))
    if alarm.high_resolution:
        return replace(options, range_extra_high_resolution_s=seconds)
    return replace(options, range_extra_periods=periods)


def gather(alarm: MetricAlarm, points: Sequence[Datapoint | None], previous: State, options: Options) -> Evidence:
    """Sort the N newest real points into good, bad and low-sample."""
    least = 0.0
    if alarm.low_sample_percentile == "ignore" and not alarm.is_math and alarm.returned.metric_stat:
        least = least_samples(alarm.returned.metric_stat.stat)
    good: list[Datapoint] = []
    bad: list[Datapoint] = []
    low: list[Datapoint] = []
    oldest_bad = taken = 0
    for age, point in enumerate(reversed(points), 1):
        if point is None or (alarm.band and point.lower is None and point.upper is None):
            continue
        if least and point.samples is not None and point.samples < least:
            low.append(point)
        elif breaches(alarm, point):
            bad.append(point)
            oldest_bad = age
        else:
            good.append(point)
        taken += 1
        if taken == alarm.evaluation_periods:
            break
    n, m = alarm.evaluation_periods, alarm.datapoints_to_alarm
    return Evidence(n, m, treatment(alarm, options), tuple(good), tuple(bad), tuple(low), oldest_bad, previous, options)


def _decide(evidence: Evidence) -> Verdict:
    for number, (rule, why) in enumerate(RULES, 1):
        state = rule(evidence)
        if state is not None:
            return Verdict(state, number, why, evidence, retained=_retains(number, state, evidence))
    raise AssertionError(f"no rule for the treatment {evidence.treatment!r}")


def _retains(rule: int, state: State, evidence: Evidence) -> bool:
    """Whether the state was kept, rather than decided and found to be the same."""
    if rule == 3:
        return True
    if rule == 4:
        return not (evidence.good and evidence.options.ignore_with_good == "ok")
    young = bool(evidence.bad) and not evidence.good and evidence.oldest_bad_age < evidence.m
    return rule == 7 and young and evidence.options.fresh_breach == "retain" and state == evidence.previous
