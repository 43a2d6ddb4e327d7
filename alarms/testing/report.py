"""Test results for people, for machines (JSON) and for CI (JUnit XML)."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from alarms.testing.coverage import AlarmCoverage
from alarms.testing.mutation import Mutant
from alarms.testing.trace import CaseResult

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Report:
    """All results; ``coverage`` and ``mutants`` where they were asked for."""

    results: tuple[CaseResult, ...]
    coverage: tuple[AlarmCoverage, ...] | None = None
    mutants: tuple[Mutant, ...] | None = None

    @property
    def passed(self) -> bool:
        """Whether every test passed. Coverage and surviving mutants are told, not judged."""
        return all(result.passed for result in self.results)

    @property
    def exit_code(self) -> int:
        """0 where everything passed, 1 where something failed."""
        return 0 if self.passed else 1

    @property
    def survivors(self) -> tuple[Mutant, ...]:
        """The mutants no test noticed."""
        return tuple(mutant for mutant in self.mutants or () if not mutant.killed)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        body: dict[str, Any] = {
            "passed": self.passed,
            "tests": [
                {
                    "file": result.case.file,
                    "name": result.case.name,
                    "passed": result.passed,
                    "seconds": round(result.seconds, 4),
                    "failures": [asdict(failure) for failure in result.failures],
                }
                for result in self.results
            ],
        }
        if self.coverage is not None:
            body["coverage"] = [{**asdict(one), "complete": one.complete, "lacking": one.lacking} for one in self.coverage]
        if self.mutants is not None:
            body["mutants"] = [asdict(mutant) for mutant in self.mutants]
        return body


def print_report(report: Report, console: Console, json: bool = False) -> None:
    """Write the report to ``console``."""
    if json:
        console.print_json(data=report.to_json())
        return
    for result in report.results:
        mark = "[green]ok  [/]" if result.passed else "[red]FAIL[/]"
        console.print(f"{mark} {escape(result.case.file)}: {escape(result.case.name)}", highlight=False, soft_wrap=True)
        for failure in result.failures:
            console.print(f"     {escape(failure.key)}: {escape(failure.message)}", highlight=False, soft_wrap=True)
            for line in failure.timeline.splitlines():
                console.print(f"       {escape(line)}", highlight=False, soft_wrap=True)
    failed = sum(not result.passed for result in report.results)
    console.print(f"{len(report.results)} tests, {failed} failed", highlight=False)
    if report.coverage is not None:
        _print_coverage(report.coverage, console)
    if report.mutants is not None:
        _print_mutants(report, console)


def _print_coverage(found: Sequence[AlarmCoverage], console: Console) -> None:
    table = Table("alarm", "Region", "ALARM", "back to OK", "missing data", "actions", title="Coverage", title_justify="left")
    for one in found:
        missing = "-" if one.missing_data is None else _mark(one.missing_data)
        table.add_row(
            escape(one.alarm), one.region or "", _mark(one.to_alarm), _mark(one.to_ok), missing, f"{one.actions_seen}/{one.actions}"
        )
    console.print(table)
    complete = sum(one.complete for one in found)
    console.print(f"{complete} of {len(found)} alarms are covered completely", highlight=False)


def _mark(seen: bool) -> str:
    return "[green]yes[/]" if seen else "[red]no[/]"


def _print_mutants(report: Report, console: Console) -> None:
    for mutant in report.survivors:
        why = "no test says anything about it" if not mutant.tests else f"{mutant.tests} tests still pass"
        place = f"{mutant.region}/{mutant.alarm}" if mutant.region else mutant.alarm
        console.print(f"[yellow]survives[/] {escape(place)}: {escape(mutant.change)} ({why})", highlight=False, soft_wrap=True)
    mutants = report.mutants or ()
    console.print(f"{len(mutants)} mutants, {len(report.survivors)} survive", highlight=False)


def write_junit(report: Report, path: Path) -> None:
    """Write the results as JUnit XML, one suite a file. Raises OSError."""
    root = ET.Element("testsuites", name="alarms")
    for file in dict.fromkeys(result.case.file for result in report.results):
        results = [result for result in report.results if result.case.file == file]
        failed = str(sum(not result.passed for result in results))
        seconds = f"{sum(result.seconds for result in results):.4f}"
        suite = ET.SubElement(root, "testsuite", name=_clean(file), tests=str(len(results)), failures=failed, errors="0", time=seconds)
        for result in results:
            name = _clean(result.case.name)
            case = ET.SubElement(suite, "testcase", name=name, classname=_clean(file), time=f"{result.seconds:.4f}")
            for failure in result.failures:
                node = ET.SubElement(case, "failure", message=_clean(failure.message), type="expectation")
                node.text = _clean(f"{failure.key}: {failure.message}\n{failure.timeline}")
    ET.indent(root)
    path.parent.mkdir(parents=True, exist_ok=True)
    ET.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _clean(text: str) -> str:
    """Without the characters XML cannot hold."""
    return _NOT_XML.sub("?", text)
