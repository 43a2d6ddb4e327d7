"""survivability: for each failure of the topology, some alarm with an action lives where it survives, and fires."""

from __future__ import annotations

from collections.abc import Iterator

from alarms.lint.context import Context
from alarms.lint.scenarios import pages, scenarios
from topology.problems import Problem

NAME = "survivability"


def check(context: Context) -> Iterator[Problem]:
    """Each scenario is played through with the topology's own signals; silence afterwards is a finding."""
    if context.topology is None or not any(definition.region for definition, _ in context.alarms()):
        return
    for scenario in scenarios(context.topology):
        if not pages(context, scenario):
            what = f"when {scenario.words}, no surviving alarm runs an action within {scenario.within_s // 60:.0f} minutes"
            mend = "put an alarm with an action into a Region that survives, on a metric that is stored there"
            yield Problem(what, mend, context.parsed[0][0].file, f"scenario {scenario.name}", None, "error", NAME)
