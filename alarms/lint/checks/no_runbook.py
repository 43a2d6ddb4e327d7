"""no-runbook: the alarm acts, and does not say what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator

from alarms.lint.context import Context
from topology.problems import Problem

NAME = "no-runbook"
_HELP = re.compile(r"https?://|\brun ?book\b|\b(look|run|turn|check|see|drain|wait|renew|restart|fail over)\b", re.IGNORECASE)


def check(context: Context) -> Iterator[Problem]:
    """Alarms with actions whose description holds no runbook, link or first step (what the notifier adds counts)."""
    for definition, alarm in context.alarms():
        if alarm.actions.alarm and not _HELP.search(alarm.description) and alarm.name not in context.texts:
            what = "acts, but its description names no runbook, link or first step"
            yield context.finding(NAME, definition, what, "say in AlarmDescription what to do first", "warning", "AlarmDescription")
