"""implicit-missing-data: the alarm does not say what silence means."""

from __future__ import annotations

from collections.abc import Iterator

from alarms.lint.context import Context
from topology.problems import Problem

NAME = "implicit-missing-data"


def check(context: Context) -> Iterator[Problem]:
    """The default is ``missing``, for AWS/DynamoDB ``ignore``: say which you mean."""
    for definition, alarm in context.metric_alarms():
        if alarm.treat_missing_data is None:
            default = "ignore" if all(stat.metric.namespace == "AWS/DynamoDB" for stat in alarm.metric_stats) else "missing"
            what = f"does not say how missing data is treated; CloudWatch takes {default}"
            mend = "set TreatMissingData: breaching for a heartbeat, notBreaching for what is only sent when it is not zero"
            yield context.finding(NAME, definition, what, mend, "warning", "TreatMissingData")
