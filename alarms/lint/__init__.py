"""``alarms lint``: what is wrong with alarm definitions although CloudWatch accepts them.

One module in `checks` and one page in docs/alarms/checks/ for each check. A check is switched off for one definition with a reason: in
YAML by a comment ``# crosswatch disable <check>: <reason>`` within the item, in JSON by the key ``x-crosswatch-disable: {<check>: …}``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from alarms.definitions import Definition, parse_all
from alarms.lint.checks import (
    action_region,
    always_fires,
    burn_rate,
    composite_order,
    discouraged_function,
    dynamodb_missing_data,
    implicit_missing_data,
    inverted_alarm,
    masking_statistic,
    never_fires,
    no_action,
    no_runbook,
    period_resolution,
    silence_blames_others,
    survivability,
    unit_mismatch,
    unknown_dimensions,
    unsupported_statistic,
    wrong_region,
)
from alarms.lint.context import Context
from topology import Topology
from topology.problems import Problem

__all__ = ["CHECKS", "DISABLING", "Context", "lint"]

Check = Callable[[Context], Iterator[Problem]]

CHECKS: dict[str, Check] = {
    module.NAME: module.check
    for module in (
        never_fires,
        always_fires,
        inverted_alarm,
        silence_blames_others,
        unsupported_statistic,
        masking_statistic,
        unit_mismatch,
        period_resolution,
        implicit_missing_data,
        dynamodb_missing_data,
        discouraged_function,
        unknown_dimensions,
        wrong_region,
        burn_rate,
        composite_order,
        no_runbook,
        no_action,
        action_region,
        survivability,
    )
}
DISABLING = "disabling"
"""The name under which misuse of the disabling comments is reported."""


def lint(definitions: Iterable[Definition], topology: Topology | None = None, texts: Mapping[str, object] | None = None) -> list[Problem]:
    """All findings, in the order of the checks. Raises UnusableInput for definitions CloudWatch would refuse."""
    definitions = list(definitions)
    context = Context(parse_all(definitions), topology, texts or {})
    off = {(d.file, d.key, d.name): d.disabled for d in definitions if d.disabled}
    found = list(_misused(context))
    for name, check in CHECKS.items():
        found += [problem for problem in check(context) if not any(name in d and _about(problem, *place) for place, d in off.items())]
    return found


def _about(problem: Problem, file: str, key: str, name: str) -> bool:
    place = ".".join(part for part in (key, name) if part)
    return problem.file == file and (problem.key == place or problem.key.startswith(place + "."))


def _misused(context: Context) -> Iterator[Problem]:
    """Disabled checks that do not exist, and disabling without a reason."""
    for definition, _ in context.parsed:
        for check, reason in definition.disabled.items():
            if check not in CHECKS:
                what = f"disables the check {check}, which does not exist"
                yield context.finding(DISABLING, definition, what, f"use one of {', '.join(CHECKS)}", "error")
            elif not reason.strip():
                what = f"disables the check {check} without a reason"
                yield context.finding(DISABLING, definition, what, f"write # crosswatch disable {check}: why", "error")
