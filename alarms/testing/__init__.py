"""``alarms test``: unit tests of alarm definitions, in promtool's style with CloudWatch's semantics.

The file format is described in docs/alarms/testing.md. `run` runs files, `print_report` and `write_junit` tell the outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from alarms.definitions import Definition
from alarms.testing.coverage import AlarmCoverage, coverage
from alarms.testing.mutation import Mutant, mutate
from alarms.testing.report import Report, print_report, write_junit
from alarms.testing.runner import load_suites, run_case
from alarms.testing.trace import CaseResult, Failure

__all__ = ["AlarmCoverage", "CaseResult", "Failure", "Mutant", "Report", "print_report", "run", "write_junit"]


def run(
    files: Iterable[Path],
    definitions_default: Callable[[], list[Definition]] | None = None,
    *,
    junit: Path | None = None,
    with_coverage: bool = False,
    with_mutants: bool = False,
) -> Report:
    """Run the tests of ``files``.

    ``definitions_default`` renders the definitions for files that name none (`alarms.definitions.from_items` makes them from parameters).
    Raises UnusableInput for files that cannot be used, with every problem in them; OSError where the JUnit file cannot be written.
    """
    suites = load_suites(files, definitions_default)
    results = [[run_case(case, parsed) for case in suite.cases] for suite, parsed in suites]
    covered: list[AlarmCoverage] | None = None
    if with_coverage:
        # files that share definitions (those rendered from the topology) are covered together
        shared: list[tuple[tuple[Definition, ...], list[int]]] = []
        for i, (suite, _) in enumerate(suites):
            for definitions, members in shared:
                if definitions == suite.definitions:
                    members.append(i)
                    break
            else:
                shared.append((suite.definitions, [i]))
        covered = [one for _, members in shared for one in coverage(suites[members[0]][1], (r for i in members for r in results[i]))]
    flat = tuple(result for group in results for result in group)
    found = mutate(suites, flat) if with_mutants else None
    report = Report(flat, None if covered is None else tuple(covered), None if found is None else tuple(found))
    if junit is not None:
        write_junit(report, junit)
    return report
