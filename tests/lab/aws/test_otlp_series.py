"""OTLP metrics in bounded memory: the newest points, of series that are written, and what comes out is what went in."""

from __future__ import annotations

from typing import Any

import pytest

from lab.aws.services.cloudwatch import series
from lab.aws.services.cloudwatch.series import IDLE_S, POINTS, SeriesStore

HISTOGRAM = {"count": "7", "sum": "3.5", "buckets": [[0, str(2.0**index), str(2.0 ** (index + 1)), "1"] for index in range(20)]}


def everything(_labels: dict[str, str]) -> bool:
    return True


def labels(instance: int) -> dict[str, str]:
    return {"__name__": "http.server.request.duration", "@resource.service.instance.id": f"{instance:032x}"}


def names(store: SeriesStore, now: float) -> list[int]:
    """The instances that have a series."""
    return [int(each["@resource.service.instance.id"], 16) for each in store.labels(everything, now)]


@pytest.mark.parametrize("value", [0, 1.5, HISTOGRAM])
def test_a_point_comes_back_as_it_was(value: Any) -> None:
    """Numbers and histograms; of several in the interval the newest."""
    store = SeriesStore()
    store.put([(labels(1), 100.0, value), (labels(1), 90.0, 5)], now=100.0)
    assert store.newest(everything, 0.0, 100.0, now=100.0) == [(labels(1), (100.0, value))]
    assert store.newest(everything, 0.0, 95.0, now=100.0) == [(labels(1), (90.0, 5))]
    assert store.newest(everything, 100.0, 200.0, now=100.0) == []


def test_a_series_keeps_its_newest_points() -> None:
    """A series that is written for days takes no more memory than one that was written for half an hour."""
    store = SeriesStore()
    sizes = []
    for minute in range(10 * POINTS):
        store.put([(labels(1), minute * 60.0, HISTOGRAM)], now=minute * 60.0)
        sizes.append(store.memory)
    assert sizes[POINTS - 1] == sizes[-1]
    last = (10 * POINTS - 1) * 60.0
    assert store.newest(everything, 0.0, last - (POINTS - 1) * 60.0, now=last) != []
    assert store.newest(everything, 0.0, last - POINTS * 60.0, now=last) == []


def test_a_series_that_nobody_writes_goes_after_an_hour() -> None:
    """A service that restarted leaves its old series behind; the one that is still written stays, though it is older."""
    store = SeriesStore()
    store.put([(labels(1), 0.0, 1), (labels(2), 0.0, 1)], now=0.0)
    store.put([(labels(1), IDLE_S, 1)], now=IDLE_S)
    assert names(store, IDLE_S) == [2, 1]
    assert names(store, IDLE_S + 1) == [1]
    assert names(store, 2 * IDLE_S + 1) == []
    assert store.memory == 0


def test_what_was_written_longest_ago_goes_when_there_is_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound is on all series together; what is counted is what is kept."""
    monkeypatch.setattr(series, "MAX_BYTES", 100_000)
    store = SeriesStore()
    for moment in range(200):
        store.put([(labels(0), float(moment), HISTOGRAM), (labels(moment + 1), float(moment), HISTOGRAM)], now=float(moment))
        assert store.memory <= 100_000
    kept = names(store, 200.0)
    assert 0 in kept
    assert sorted(kept)[1:] == list(range(200 - len(kept) + 2, 201))
    assert len(kept) > 10


def test_there_are_never_more_series_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where they are small."""
    monkeypatch.setattr(series, "MAX_SERIES", 5)
    store = SeriesStore()
    store.put([(labels(instance), 0.0, 1) for instance in range(20)], now=0.0)
    assert names(store, 0.0) == [15, 16, 17, 18, 19]
