"""Dashboards: what is rendered is valid, names what exists, and can be drawn; what is wrong is said as PutDashboard says it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alarms.rendering import definitions
from dashboards.drawing import DARK, LIGHT, page, png, svg
from dashboards.rendering import bodies, place
from dashboards.series import Data, Line, fetch, queries
from dashboards.validation import errors, validate_body
from topology import load, loads
from topology.signals import all_series

EXAMPLE = Path(__file__).parents[2] / "topology.yaml"
TOPOLOGY = load(EXAMPLE)
BODY: dict[str, Any] = json.loads(bodies(TOPOLOGY)["retail"])


@pytest.mark.parametrize("extra", ["", "\nvantages: {eu-west-1: {}, ap-northeast-1: {}}\n"])
def test_what_is_rendered_is_valid(extra: str) -> None:
    """For two vantages and for four there is neither an error nor a warning."""
    for body in bodies(loads(EXAMPLE.read_text() + extra)).values():
        assert validate_body(body) == []


def test_widgets_name_only_metrics_that_somebody_emits() -> None:
    """Every row stands in the signal catalogue with its Region and dimensions, and has a statistic that is valid for it."""
    known = {(item.region, item.key): signal for signal, item in all_series(TOPOLOGY)}
    for widget in BODY["widgets"]:
        for query in queries(widget):
            signal = known[query.region, (query.namespace, query.name, tuple(sorted(query.dimensions)))]
            assert query.stat in signal.statistics, (query, signal)


def test_alarm_widgets_name_alarms_that_exist() -> None:
    """Every ARN is one of the rendered alarms."""
    known = {f"arn:aws:cloudwatch:{item['Region']}:123456789012:alarm:{item['AlarmName']}" for item in definitions(TOPOLOGY)}
    named = {arn for widget in BODY["widgets"] if widget["type"] == "alarm" for arn in widget["properties"]["alarms"]}
    assert named
    assert named <= known


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is not slow input
@given(st.lists(st.tuples(st.integers(1, 24), st.integers(1, 8)), max_size=30))
def test_placed_widgets_do_not_overlap(sizes: list[tuple[int, int]]) -> None:
    """Whatever the sizes, no cell of the grid is taken twice and nothing leaves it."""
    taken: set[tuple[int, int]] = set()
    for item in place([{"type": "text", "width": width, "height": height} for width, height in sizes]):
        cells = {(x, y) for x in range(item["x"], item["x"] + item["width"]) for y in range(item["y"], item["y"] + item["height"])}
        assert not cells & taken
        assert item["x"] + item["width"] <= 24
        taken |= cells


NOT_TEXT = 'Invalid metric field type, only "String" type is allowed'


def metric(**properties: Any) -> str:
    """A body with one metric widget."""
    return json.dumps({"widgets": [{"type": "metric", "properties": {"region": "us-east-1", "metrics": [["N", "M"]], **properties}}]})


@pytest.mark.parametrize(
    ("body", "path", "message"),
    [
        ("nonsense", "", "The field DashboardBody must be a valid JSON object"),
        ("[]", "", "The field DashboardBody must be a valid JSON object"),
        ("{}", "", "Should have required property 'widgets'"),
        (metric(period=45), "/widgets/0/properties/period", "Should be >= 60"),
        (metric(period=90), "/widgets/0/properties/period", "Should be multiple of 60"),
        (metric(metrics=[["N", ""]]), "/widgets/0/properties/metrics/0/1", NOT_TEXT),
        (
            metric(metrics=[["N", "M", "D", None]]),
            "/widgets/0/properties/metrics/0/3",
            'Invalid metric field type, only "String" type is allowed',
        ),
        (metric(stat="p200"), "/widgets/0/properties/stat", "Should match pattern"),
        (metric(view="gauge"), "/widgets/0/properties/yAxis/left", "Should have required property 'min'"),
        (metric(region="mars"), "/widgets/0/properties/region", "Should be the code of a Region"),
        ('{"widgets":[{"type":"alarm","properties":{"alarms":["x"]}}]}', "/widgets/0/properties/alarms/0", "Should be the ARN of an alarm"),
        ('{"widgets":[{"type":"text","width":25,"properties":{"markdown":""}}]}', "/widgets/0/width", "Should be <= 24"),
    ],
)
def test_errors_are_those_of_the_service(body: str, path: str, message: str) -> None:
    """Path and message of each refusal."""
    assert any(finding.path == path and finding.message.startswith(message) for finding in errors(validate_body(body))), validate_body(body)


KEYS = st.sampled_from(
    ["type", "x", "y", "properties", "metrics", "region", "stat", "annotations", "horizontal", "alarms", "yAxis", "view"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2000) | st.text(max_size=6),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(
            KEYS,
            children,
            max_size=5,
        )
    ),
    max_leaves=25,
)


@settings(max_examples=400, deadline=None)
@given(JSON)
def test_no_body_makes_a_traceback(widgets: Any) -> None:
    """Whatever stands in a body, the answer is a list of findings."""
    validate_body(json.dumps({"widgets": widgets}))
    validate_body(json.dumps({"widgets": [{"type": "metric", "properties": widgets}], "variables": widgets}))


def test_rows_are_expanded() -> None:
    """A dot repeats the value above, three dots the rest of it."""
    rows = [["N", "M", "A", "1", "B", "2"], [".", "O", ".", "3", ".", "."], ["...", "9"]]
    widget = {"type": "metric", "properties": {"region": "us-east-1", "metrics": rows}}
    found = [(query.namespace, query.name, query.dimensions) for query in queries(widget)]
    assert found == [
        ("N", "M", (("A", "1"), ("B", "2"))),
        ("N", "O", (("A", "3"), ("B", "2"))),
        ("N", "O", (("A", "3"), ("B", "9"))),
    ]


class Recorder:
    """A CloudWatch that notes which periods it is asked for."""

    def __init__(self) -> None:
        self.periods: set[int] = set()

    def get_metric_data(self, **request: Any) -> dict[str, Any]:
        self.periods |= {query["MetricStat"]["Period"] for query in request["MetricDataQueries"]}
        return {"MetricDataResults": []}


@pytest.mark.parametrize(
    ("ago_s", "wanted", "asked"),
    [
        (3600, 10, 10),
        (3 * 3600 + 60, 10, 60),
        (3 * 3600 + 60, 90, 120),
        (16 * 86400, 60, 300),
        (64 * 86400, 300, 3600),
        (-7200, 10, 10),
    ],
)
def test_periods_are_those_that_cloudwatch_still_keeps(ago_s: int, wanted: int, asked: int) -> None:
    """For an old start, GetMetricData answers finer periods with nothing; a lab's time may lie ahead of the clock."""
    start, recorder = time.time() - ago_s, Recorder()
    widget = {"type": "metric", "properties": {"region": "us-east-1", "period": wanted, "metrics": [["N", "M"]]}}
    fetch({"widgets": [widget]}, lambda _: recorder, start, start + 600)
    assert recorder.periods == {asked}


def test_a_dashboard_is_drawn_with_and_without_data() -> None:
    """The picture shows titles, lines, gaps and alarm states; empty widgets say so."""
    line = Line("from us-east-1", tuple((60.0 * i, 1.0) for i in range(30) if i not in (10, 11, 12)), "#1f6fb2")
    arn = next(w for w in BODY["widgets"] if w["type"] == "alarm")["properties"]["alarms"][0]
    data = Data(0, 1800, {4: [line]}, {arn: {"StateValue": "ALARM"}})
    drawn = svg(BODY, data, LIGHT, "retail")
    assert "no data in this time" in drawn
    assert "1 in alarm" in drawn
    assert "Up: us-east-1" in drawn
    assert drawn.count("<svg") == 2
    image = png(BODY, data, DARK, "retail", scale=0.5)
    assert image.startswith(b"\x89PNG")
    assert "<svg" in page(BODY, data, "retail & co")
