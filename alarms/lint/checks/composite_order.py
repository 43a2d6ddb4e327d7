"""composite-order: composites must be created after their children, must not depend on themselves, and should not be deep."""

from __future__ import annotations

from collections.abc import Iterator

from alarms.engine.composite import deployment_order, foreign
from alarms.lint.context import Context
from topology.problems import Problem

NAME = "composite-order"
MAX_DEPTH = 4


def check(context: Context) -> Iterator[Problem]:
    """Missing and foreign children, cycles, children that come later in the list, and towers of composites."""
    for region in dict.fromkeys(definition.region for definition, _ in context.alarms()):
        here = [(definition, alarm) for definition, alarm in context.alarms() if definition.region == region]
        place = {alarm.name: i for i, (_, alarm) in enumerate(here)}
        rules = {}
        for definition, composite in context.composites():
            if definition.region != region:
                continue
            rules[composite.name] = composite.depends_on
            for reference in (*composite.rule.children, *([composite.suppressor] if composite.suppressor else [])):
                if message := foreign(reference, region, None):
                    yield context.finding(NAME, definition, message, "name only alarms of this Region", "error", "AlarmRule")
            for child in composite.depends_on:
                if child not in place:
                    what = f"names {child}, which is not defined in {region or 'the same place'}"
                    yield context.finding(NAME, definition, what, "define the child, or correct the name", "error", "AlarmRule")
                elif place[child] > place[composite.name]:
                    what = f"comes before its child {child}: created in this order it is refused"
                    yield context.finding(NAME, definition, what, "list children before composites", "warning", "AlarmRule")
        order, cycles = deployment_order(rules)
        by_name = {alarm.name: definition for definition, alarm in here}
        for cycle in cycles:
            what = "depends on itself: " + " -> ".join((*cycle, cycle[0]))
            yield context.finding(NAME, by_name[cycle[0]], what, "take one of them out of a rule", "error", "AlarmRule")
        depth: dict[str, int] = {}
        for name in order:
            depth[name] = 1 + max((depth.get(child, 0) for child in rules[name]), default=0)
            if depth[name] == MAX_DEPTH + 1:
                what = f"stands on {depth[name]} levels of composites: hard to follow at night"
                yield context.finding(NAME, by_name[name], what, "flatten the rules", "note", "AlarmRule")
