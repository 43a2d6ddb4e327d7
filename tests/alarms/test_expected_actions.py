"""The complete list of actions in an alarm test: lines and actions are matched one to one where a line is written more than once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from alarms import testing

EAST, WEST = "us-east-1", "us-west-2"
PAGE, LOG = ("arn:aws:sns:us-east-1:123456789012:" + name for name in ("page", "log"))
METRIC = {"namespace": "N", "name": "M"}


def definition(region: str | None = None, actions: tuple[str, ...] = (PAGE,)) -> dict[str, Any]:
    """The alarm ``a``: M > 0 for a minute."""
    alarm = {
        "AlarmName": "a",
        "Namespace": "N",
        "MetricName": "M",
        "Statistic": "Sum",
        "Period": 60,
        "EvaluationPeriods": 1,
        "Threshold": 0,
        "ComparisonOperator": "GreaterThanThreshold",
        "TreatMissingData": "notBreaching",
        "ActionsEnabled": True,
        "AlarmActions": list(actions),
    }
    return alarm | ({"Region": region} if region else {})


def line(**more: Any) -> dict[str, Any]:
    """The alarm acts at the second minute."""
    return {"at": "2m", "alarm": "a", "state": "ALARM", **more}


def failures(directory: Path, definitions: list[dict[str, Any]], series: list[dict[str, Any]], *lines: dict[str, Any]) -> list[str]:
    """What a test with these ``expect_actions`` says."""
    test = {"name": "t", "input_series": series, "expect": [], "expect_actions": list(lines)}
    path = directory / "a.test.yaml"
    path.write_text(yaml.safe_dump({"definitions": definitions, "tests": [test]}))
    return [failure.message for result in testing.run([path]).results for failure in result.failures]


TWO_REGIONS = [definition(EAST), definition(WEST)]
BOTH = [{"metric": METRIC, "stored_in": region, "values": "0 1 1"} for region in (EAST, WEST)]
ONE = [{"metric": METRIC, "values": "0 1 1"}]


@pytest.mark.parametrize(
    "lines",
    [
        [line()],
        [line(), line()],
        [line(region=EAST), line(region=WEST)],
        [line(), line(region=WEST)],
        [line(region=WEST), line()],
    ],
)
def test_an_alarm_of_the_same_name_in_two_regions(lines: list[dict[str, Any]], tmp_path: Path) -> None:
    """One line stands for both actions; two lines, twins or not and in any order, for one each."""
    assert failures(tmp_path, TWO_REGIONS, BOTH, *lines) == []


@pytest.mark.parametrize("lines", [[line()], [line(), line()], [line(), line(action=PAGE)], [line(action=LOG), line(action=PAGE)]])
def test_an_alarm_with_two_actions(lines: list[dict[str, Any]], tmp_path: Path) -> None:
    """The same for the ARNs of one alarm."""
    assert failures(tmp_path, [definition(actions=(PAGE, LOG))], ONE, *lines) == []


def test_a_line_too_many_is_told(tmp_path: Path) -> None:
    """Three twins for two actions: one of them has none of its own."""
    assert failures(tmp_path, TWO_REGIONS, BOTH, line(), line(), line()) == ["at 2m no other action of a for ALARM"]


def test_an_action_too_many_is_told(tmp_path: Path) -> None:
    """A line that names its Region does not stand for the other one."""
    assert failures(tmp_path, TWO_REGIONS, BOTH, line(region=EAST)) == [f"at 2m the alarm a ran {PAGE} for ALARM, which is not expected"]
