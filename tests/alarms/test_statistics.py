"""CloudWatch's statistics: definitions, names, statistic sets, and low samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alarms.engine.statistics import Samples, by_slot, least_samples, percentile_of, statistic, valid_statistic

HUNDRED = Samples.of(range(1, 101))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Average", 50.5),
        ("Sum", 5050),
        ("Minimum", 1),
        ("Maximum", 100),
        ("SampleCount", 100),
        ("p0", 1),
        ("p50", 50),
        ("p99", 99),
        ("p99.9", 100),
        ("p100", 100),
        ("tm90", 45.5),
        ("TM(2%:98%)", 50.5),
        ("TM(10%:90%)", 50.5),
        ("TM(:90)", 45.5),
        ("TM(90:)", 95.5),
        ("TM(10:20)", 15.5),
        ("tc90", 90),
        ("TC(10:20)", 10),
        ("TC(25%:75%)", 50),
        ("ts90", 4095),
        ("TS(80%:)", sum(range(81, 101))),
        ("IQM", 50.5),
        ("iqm", 50.5),
        ("wm90", (sum(range(1, 91)) + 10 * 90) / 100),
        ("WM(10%:90%)", (10 * 11 + sum(range(11, 91)) + 10 * 90) / 100),
        ("WM(10:90)", (10 * 10 + sum(range(11, 91)) + 10 * 90) / 100),
        ("PR(:30)", 30),
        ("PR(10:20)", 10),
        ("PR(99:)", 1),
    ],
)
def test_statistics_of_one_to_a_hundred(name: str, expected: float) -> None:
    """Page *CloudWatch statistics definitions*: lower bounds are exclusive, upper ones inclusive."""
    assert statistic(name, HUNDRED) == pytest.approx(expected)


def test_p99_of_success_hides_failures() -> None:
    """The p99 of eleven times 100 and one 0 is 100; the average is 91.7."""
    samples = Samples.of([100.0] * 11 + [0.0])
    assert statistic("p99", samples) == 100
    assert statistic("Average", samples) == pytest.approx(91.67, abs=0.01)
    assert statistic("Minimum", samples) == 0


@pytest.mark.parametrize(
    "name",
    [
        "",
        "average",
        "p",
        "p101",
        "p-1",
        "p100.5",
        "p1.12345678901",
        "tm",
        "TM()",
        "TM(:)",
        "TM(1%:2)",
        "TM(20:10)",
        "TM(0%:101%)",
        "PR(1%:2%)",
        "IQM90",
        "p99 ",
        "pp99",
        "PR90",
        "TX(1:2)",
        "p٩",
    ],
)
def test_names_cloudwatch_does_not_know(name: str) -> None:
    """Names and ranges that are no statistic."""
    assert not valid_statistic(name)
    with pytest.raises(ValueError, match="not a CloudWatch statistic"):
        statistic(name, HUNDRED)


def test_counts_weigh_like_repeated_values() -> None:
    """Values and Counts of PutMetricData are the same as so many single values."""
    weighted = Samples.of([1, 5, 9], [50, 30, 20])
    single = Samples.of([1] * 50 + [5] * 30 + [9] * 20)
    for name in ("Average", "Sum", "SampleCount", "p50", "p80", "p81", "tm90", "TC(10%:85%)", "WM(10%:85%)", "PR(1:5)", "iqm"):
        assert statistic(name, weighted) == pytest.approx(statistic(name, single)), name


def test_statistic_sets_have_no_distribution() -> None:
    """A statistic set gives the five basic statistics; percentiles only where minimum and maximum are equal."""
    one = Samples.of_sets([0.0], [(1.0, 9.0, 20.0, 4.0)])
    assert [statistic(name, one) for name in ("Minimum", "Maximum", "Sum", "SampleCount", "Average")] == [1, 9, 20, 4, 5]
    assert statistic("p50", one) is None
    assert statistic("p50", Samples.of_sets([0.0], [(3.0, 3.0, 12.0, 4.0)])) == 3


def test_no_samples_no_statistic() -> None:
    """Of nothing there is no statistic, not even a count of 0."""
    assert statistic("SampleCount", Samples.of([])) is None
    assert statistic("TM(500:600)", HUNDRED) is None


@pytest.mark.parametrize(
    ("name", "least"), [("p99", 1000), ("p95", 200), ("p90", 100), ("p50", 20), ("p10", 100), ("p1", 1000), ("Average", 0)]
)
def test_low_sample_thresholds(name: str, least: float) -> None:
    """Page *Percentile-based CloudWatch alarms and low data samples*."""
    assert least_samples(name) == least
    assert (percentile_of(name) is None) == (name == "Average")


@given(
    values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30),
    times=st.lists(st.integers(-100, 500), min_size=30, max_size=30),
    name=st.sampled_from(["Average", "Sum", "Minimum", "Maximum", "SampleCount", "p90", "tm75", "PR(0:5)", "wm80"]),
)
def test_by_slot_is_the_statistic_of_each_slot(values: list[float], times: list[int], name: str) -> None:
    """The vectorised slots equal one statistic after the other."""
    samples = Samples.of(values, times=times[: len(values)])
    found, counts = by_slot(name, samples, 0, 60, 6)
    for slot in range(6):
        inside = samples.between(60 * slot, 60 * slot + 60)
        expected = statistic(name, inside)
        assert counts[slot] == len(inside)
        if expected is None:
            assert math.isnan(found[slot])
        else:
            assert found[slot] == pytest.approx(expected, rel=1e-9, abs=1e-6)


@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), share=st.floats(0, 100))
def test_a_percentile_is_a_value_that_was_sent(values: list[float], share: float) -> None:
    """Nearest rank: never between two samples, and between the extremes."""
    found = statistic(f"p{share:.5f}".rstrip("0").rstrip("."), Samples.of(values))
    assert found is not None
    assert found in np.asarray(values)
