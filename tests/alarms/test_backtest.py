"""``alarms backtest``: history read from JSON and CSV, replayed, compared, told, drawn, and fetched page by page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from alarms.backtest import Backtest, load, picture, print_backtest, replay
from alarms.backtest.data import save
from alarms.backtest.fetch import fetch, wanted
from alarms.definitions import from_items, only_alarms, parse_all
from alarms.engine import MetricKey, MetricStat
from tests.alarms.kit import T0, TOPIC, metric_alarm
from topology.problems import UnusableInput

METRIC = {"Namespace": "N", "MetricName": "M", "Dimensions": [{"Name": "D", "Value": "v"}]}


def export(path: Path, values: Sequence[float | None], stat: str = "Maximum", period: int = 60, **more: Any) -> Path:
    """A GetMetricData export of one series."""
    points = [(T0 + period * i, value) for i, value in enumerate(values) if value is not None]
    query = {"Id": "q", "MetricStat": {"Metric": METRIC, "Period": period, "Stat": stat}}
    result = {"Id": "q", "Timestamps": [datetime.fromtimestamp(t, UTC).isoformat() for t, _ in points], "Values": [v for _, v in points]}
    path.write_text(json.dumps({"MetricDataQueries": [query], "MetricDataResults": [result], **more}))
    return path


def run(data: Path, *items: dict[str, Any], minutes: int = 60) -> Backtest:
    """The alarms over the first minutes of the history."""
    outcomes = replay(parse_all(from_items(list(items))), load([data]), T0, T0 + 60 * minutes)
    return Backtest(T0, T0 + 60 * minutes, tuple(outcomes))


def episodes(result: Backtest, alarm: str = "a") -> list[tuple[float, float | None]]:
    """Minutes from the start."""
    one = next(outcome for outcome in result.new if outcome.alarm == alarm)
    return [((e.start - T0) / 60, None if e.end is None else (e.end - T0) / 60) for e in one.episodes]


HISTORY = [0.0] * 10 + [2.0] * 5 + [0.0] * 20 + [2.0] * 3 + [0.0] * 12 + [2.0] * 10


def test_episodes_of_a_history(tmp_path: Path) -> None:
    """Three bad stretches; the last one lasts beyond the data."""
    result = run(export(tmp_path / "h.json", HISTORY), metric_alarm())
    assert episodes(result) == [(11, 16), (36, 39), (51, None)]
    assert result.new[0].actions == 3
    assert result.new[0].minutes(result.end) == 5 + 3 + 9
    assert result.new[0].longest(result.end) == 9


def test_composites_and_their_actions_are_replayed(tmp_path: Path) -> None:
    """A composite over two alarms on the same history."""
    strict = metric_alarm("b", EvaluationPeriods=4, AlarmActions=[], OKActions=[])
    composite = {"AlarmName": "c", "AlarmRule": "ALARM(a) AND NOT ALARM(b)", "AlarmActions": [TOPIC]}
    result = run(export(tmp_path / "h.json", HISTORY), metric_alarm(AlarmActions=[], OKActions=[]), strict, composite)
    # b (4 of 4) is on from the fourth bad minute and back with the first good one
    assert episodes(result, "c") == [(11, 14), (36, 39), (51, 54)]
    assert result.new[-1].actions == 3


def test_longer_periods_are_made_of_shorter_ones(tmp_path: Path) -> None:
    """Five-minute sums from one-minute sums; percentiles only from the same period."""
    source = load([export(tmp_path / "h.json", [1.0] * 30, "Sum")])[None]
    key = MetricKey.of("N", "M", {"D": "v"})
    values, counts = source.statistics(MetricStat(key, 300, "Sum"), int(T0), 3, 0.0)
    assert values.tolist() == [5.0] * 3
    assert counts.tolist() == [5.0] * 3
    assert source.best(MetricStat(key, 90, "Sum")) is None
    p99 = load([export(tmp_path / "p.json", [1.0] * 30, "p99")])[None]
    assert p99.best(MetricStat(key, 300, "p99")) is None
    assert p99.best(MetricStat(key, 60, "p99")) is not None


def test_averages_are_weighted_by_sample_counts(tmp_path: Path) -> None:
    """An average over five minutes is not the mean of five averages."""
    files = [
        export(tmp_path / "a.json", [0, 0, 0, 0, 10.0], "Average"),
        export(tmp_path / "n.json", [10, 10, 10, 10, 160.0], "SampleCount"),
    ]
    source = load(files)[None]
    values, _ = source.statistics(MetricStat(MetricKey.of("N", "M", {"D": "v"}), 300, "Average"), int(T0), 1, 0.0)
    assert values[0] == pytest.approx(8.0)


def test_what_lies_before_an_export_is_not_missing(tmp_path: Path) -> None:
    """A breaching alarm does not begin in ALARM for want of older data."""
    assert (
        episodes(run(export(tmp_path / "h.json", [0] * 40), metric_alarm(EvaluationPeriods=10, TreatMissingData="breaching"), minutes=40))
        == []
    )


def test_csv_and_json_tell_the_same(tmp_path: Path) -> None:
    """The CSV's columns carry what the queries carry."""
    rows = ["timestamp,region,namespace,metric,dimensions,stat,period,value"]
    rows += [f"{T0 + 60 * i:.0f},us-west-2,N,M,D=v,Maximum,60,{value}" for i, value in enumerate(HISTORY)]
    table = tmp_path / "h.csv"
    table.write_text("\n".join(rows))
    from_csv = run(table, metric_alarm() | {"Region": "us-west-2"})
    assert episodes(from_csv) == episodes(run(export(tmp_path / "h.json", HISTORY), metric_alarm()))


def test_old_definitions_against_new(tmp_path: Path) -> None:
    """The comparison names what changed and by how much."""
    exports = load([export(tmp_path / "h.json", HISTORY)])
    old, new = (parse_all(from_items([metric_alarm(EvaluationPeriods=n)])) for n in (1, 4))
    end = T0 + 3600
    result = Backtest(T0, end, tuple(replay(new, exports, T0, end)), tuple(replay(old, exports, T0, end)))
    assert result.changed
    told = result.to_json()["alarms"][0]
    assert (told["old"]["count"], told["new"]["count"]) == (3, 2)
    console = Console(record=True, width=160, file=(tmp_path / "out").open("w"))
    print_backtest(result, console)
    assert "* differs from the old definitions" in console.export_text()
    same = Backtest(T0, end, result.new, result.new)
    assert not same.changed


def test_metrics_without_history_are_named(tmp_path: Path) -> None:
    """An alarm that could not be judged is not silently fine."""
    result = run(export(tmp_path / "h.json", HISTORY), metric_alarm(MetricName="Other"))
    assert result.new[0].lacks == ("Maximum of N Other{D=v}",)


@pytest.mark.parametrize("suffix", [".svg", ".html"])
def test_the_picture_shows_the_strips(tmp_path: Path, suffix: str) -> None:
    """SVG and HTML name the alarm."""
    path = tmp_path / "out" / f"strips{suffix}"
    picture(run(export(tmp_path / "h.json", HISTORY), metric_alarm("payments-failing")), path)
    assert "payments-failing" in path.read_text()
    with pytest.raises(ValueError, match=r"\.svg, \.png or \.html"):
        picture(run(tmp_path / "h.json", metric_alarm()), tmp_path / "strips.gif")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("h.json", "[]", None),
        ("h.json", "{}", "holds no MetricDataResults"),
        ("h.json", '{"MetricDataQueries": [{}], "MetricDataResults": []}', "MetricDataQueries[0]"),
        (
            "h.json",
            '{"MetricDataQueries": [{"Id": "q"}], "MetricDataResults": [{"Id": "q", "Timestamps": [1], "Values": []}]}',
            "1 timestamps and 0 values",
        ),
        ("h.json", "{", "is not valid"),
        ("h.csv", "a,b\n1,2", "lacks the columns"),
        ("h.csv", "timestamp,namespace,metric,dimensions,stat,period,value\nnow,N,M,,Sum,60,1", "cannot be read"),
    ],
)
def test_unusable_history(tmp_path: Path, name: str, content: str, message: str | None) -> None:
    """The file, the place, and what is wrong."""
    path = tmp_path / name
    path.write_text(content)
    if message is None:
        assert load([path]) == {}
        return
    with pytest.raises(UnusableInput) as error:
        load([path])
    assert message in str(error.value)
    assert all(problem.file == str(path) for problem in error.value.problems)


class FakePages:
    """GetMetricData as a paginator would answer it: two pages a call, one point a period."""

    def __init__(self, asked: list[dict[str, Any]]) -> None:
        self.asked = asked

    def get_paginator(self, operation: str) -> FakePages:
        """The only operation there is."""
        assert operation == "get_metric_data"
        return self

    def paginate(self, **request: Any) -> Iterator[dict[str, Any]]:
        """Half of the points on each page."""
        self.asked.append(request)
        for query in request["MetricDataQueries"]:
            period = query["MetricStat"]["Period"]
            times = np.arange(request["StartTime"].timestamp(), request["EndTime"].timestamp(), period)
            for half in np.array_split(times, 2):
                stamps = [datetime.fromtimestamp(t, UTC) for t in half]
                yield {"MetricDataResults": [{"Id": query["Id"], "Timestamps": stamps, "Values": [1.0] * len(half)}]}


def test_fetching_asks_for_what_the_alarms_read_within_the_limits(tmp_path: Path) -> None:
    """Each Region once for each statistic, in calls of fewer than 100,800 points; what is saved can be replayed."""
    items = [metric_alarm(f"a{i}", MetricName=f"M{i}") | {"Region": "us-west-2"} for i in range(120)]
    items.append(metric_alarm("twin", MetricName="M1") | {"Region": "us-west-2"})
    stats = wanted(only_alarms(parse_all(from_items(items))))
    assert len(stats["us-west-2"]) == 120
    asked: list[dict[str, Any]] = []
    seen: list[tuple[str, int, int]] = []
    days = 2
    parts = fetch(stats, T0, T0 + days * 86_400, lambda _: FakePages(asked), lambda *step: seen.append(step))
    for request in asked:
        minutes = (request["EndTime"] - request["StartTime"]).total_seconds() / 60
        assert len(request["MetricDataQueries"]) * minutes < 100_800
    assert seen[-1] == ("us-west-2", len(asked), len(asked))
    path = tmp_path / "saved.json"
    save(parts, path)
    export_ = load([path])["us-west-2"]
    assert all(len(times) == days * 1440 for times, _ in export_.series.values())
