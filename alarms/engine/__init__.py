"""CloudWatch alarms as pure functions: definitions in, states, reasons and actions out, with the clock as an argument.

- `model`, `mute`, `composite`: definitions parsed into frozen values, all problems collected.
- `metric.evaluate`: the state of one alarm from the points of its evaluation range; `source.datapoints` fetches them.
- `book.AlarmBook`: the alarms of one Region over time, with composites, suppression, mute rules and the messages AWS sends.
- `statistics`, `math`: CloudWatch's statistics and metric math, also for GetMetricData and dashboards.
- `options.Options`: named choices where AWS's documents are silent or contradict each other.
"""

from alarms.engine.book import AlarmBook, AlarmNotFoundError
from alarms.engine.events import Action, Event, HistoryItem, Transition, Withheld
from alarms.engine.metric import Datapoint, Verdict, evaluate
from alarms.engine.model import Alarm, CompositeAlarm, MetricAlarm, parse_composite_alarm, parse_metric_alarm
from alarms.engine.mute import MuteRule, parse_mute_rule
from alarms.engine.options import IMMEDIATE, OBSERVED, Options
from alarms.engine.problems import DefinitionError, Problem
from alarms.engine.query import MetricKey, MetricStat, Query
from alarms.engine.source import BandSource, MemorySource, MetricSource
from alarms.engine.states import ALARM, INSUFFICIENT_DATA, OK, State
from alarms.engine.statistics import EMPTY, Samples, statistic, valid_statistic

__all__ = [
    "ALARM",
    "EMPTY",
    "IMMEDIATE",
    "INSUFFICIENT_DATA",
    "OBSERVED",
    "OK",
    "Action",
    "Alarm",
    "AlarmBook",
    "AlarmNotFoundError",
    "BandSource",
    "CompositeAlarm",
    "Datapoint",
    "DefinitionError",
    "Event",
    "HistoryItem",
    "MemorySource",
    "MetricAlarm",
    "MetricKey",
    "MetricSource",
    "MetricStat",
    "MuteRule",
    "Options",
    "Problem",
    "Query",
    "Samples",
    "State",
    "Transition",
    "Verdict",
    "Withheld",
    "evaluate",
    "parse_composite_alarm",
    "parse_metric_alarm",
    "parse_mute_rule",
    "statistic",
    "valid_statistic",
]
