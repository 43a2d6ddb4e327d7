"""no-action: nobody learns of the alarm."""

from __future__ import annotations

from collections.abc import Iterator

from alarms.lint.context import Context
from topology.problems import Problem

NAME = "no-action"


def check(context: Context) -> Iterator[Problem]:
    """Alarms without an ALARM action (or with actions switched off) that no composite uses either."""
    for definition, alarm in context.alarms():
        if (definition.region, alarm.name) in context.children:
            continue
        if not alarm.actions.alarm:
            what = "has no action for ALARM and is in no composite: nobody learns of it"
            yield context.finding(NAME, definition, what, "give it actions, use it in a composite, or drop it", "warning", "AlarmActions")
        elif not alarm.actions.enabled:
            what = "has its actions switched off"
            yield context.finding(NAME, definition, what, "set ActionsEnabled to true when it goes live", "note", "ActionsEnabled")
