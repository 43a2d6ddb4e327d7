"""dynamodb-missing-data: AWS's documents disagree on whether alarms on AWS/DynamoDB honour TreatMissingData."""

from __future__ import annotations

from collections.abc import Iterator

from alarms.lint.context import Context
from topology.problems import Problem

NAME = "dynamodb-missing-data"


def check(context: Context) -> Iterator[Problem]:
    """Alarms that rely on silence of a DynamoDB metric being breaching: older documents say that it is always ignored."""
    for definition, alarm in context.metric_alarms():
        if alarm.treat_missing_data == "breaching" and any(stat.metric.namespace == "AWS/DynamoDB" for stat in alarm.metric_stats):
            what = "counts on missing DynamoDB data being breaching; by AWS's older documents such alarms always ignore missing data"
            yield context.finding(NAME, definition, what, "watch something that always reports instead", "warning", "TreatMissingData")
