"""The alarms rendered from the example topology, tested with `alarms test` itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from alarms import testing
from alarms.commands import rendered

ROOT = Path(__file__).resolve().parent.parent.parent
FILES = sorted((Path(__file__).parent / "rendered").glob("*.test.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_rendered_alarms_do_what_their_tests_say(path: Path) -> None:
    """Each file in rendered/; a failure shows the timeline."""
    report = testing.run([path], lambda: rendered(ROOT / "topology.yaml"))
    told = [f"{result.case.name}: {failure.message}\n{failure.timeline}" for result in report.results for failure in result.failures]
    assert not told, "\n".join(told)
    assert report.results


def test_the_loss_of_a_region_drives_the_paging_alarm_there_and_back() -> None:
    """Coverage of the alarm that pages: into ALARM, back to OK, both actions run."""
    report = testing.run(FILES, lambda: rendered(ROOT / "topology.yaml"), with_coverage=True)
    assert report.coverage is not None
    paging = next(one for one in report.coverage if one.alarm.endswith("impaired-us-east-1") and one.region == "us-west-2")
    assert paging.complete, paging.lacking
