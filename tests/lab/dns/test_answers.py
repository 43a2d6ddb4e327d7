"""Route 53's rules for choosing records, as a table."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.dns.distance import distance_km
from lab.dns.records import RecordSet
from lab.dns.routing import choose

EAST = RecordSet("store.", "A", 60, ("1.1.1.1",), set_identifier="east", region="us-east-1")
WEST = RecordSet("store.", "A", 60, ("2.2.2.2",), set_identifier="west", region="us-west-2")
PRIMARY = RecordSet("store.", "A", 60, ("1.1.1.1",), set_identifier="p", failover="PRIMARY")
SECONDARY = RecordSet("store.", "A", 60, ("2.2.2.2",), set_identifier="s", failover="SECONDARY")


@pytest.mark.parametrize(
    ("records", "healthy", "asking", "expected"),
    [
        ([EAST, WEST], {"east", "west"}, "us-east-1", "east"),
        ([EAST, WEST], {"east", "west"}, "us-west-1", "west"),
        ([EAST, WEST], {"east", "west"}, "eu-west-1", "east"),
        ([EAST, WEST], {"west"}, "us-east-1", "west"),
        ([EAST, WEST], set(), "us-west-2", "west"),  # none is healthy: as if all were
        ([SECONDARY, PRIMARY], {"p", "s"}, "us-west-2", "p"),
        ([SECONDARY, PRIMARY], {"s"}, "us-east-1", "s"),
        ([SECONDARY, PRIMARY], set(), "us-east-1", "p"),  # none is healthy: the primary
    ],
)
def test_latency_and_failover_records(records: list[RecordSet], healthy: set[str], asking: str, expected: str) -> None:
    """Latency follows the asking Region among the healthy; failover the primary while it is healthy or nothing is."""
    chosen = choose(records, lambda record: record.set_identifier in healthy, asking, Random(1))
    assert [record.set_identifier for record in chosen] == [expected]


def test_weights_share_the_answers() -> None:
    """Answers are drawn in proportion to the weights; an unhealthy record is never drawn while another is healthy."""
    heavy = RecordSet("a.", "A", 60, ("1.1.1.1",), set_identifier="heavy", weight=3)
    light = replace(heavy, set_identifier="light", weight=1)
    random = Random(7)
    drawn = Counter(choose([heavy, light], lambda _: True, "us-east-1", random)[0].set_identifier for _ in range(4000))
    assert 0.7 < drawn["heavy"] / 4000 < 0.8
    assert choose([heavy, light], lambda record: record is light, "us-east-1", random) == [light]


def test_records_of_weight_zero_serve_only_when_the_others_are_unhealthy() -> None:
    """Weight 0 is the last resort, and when nothing is healthy the weighted ones answer."""
    heavy = RecordSet("a.", "A", 60, ("1.1.1.1",), set_identifier="heavy", weight=1)
    zero = replace(heavy, set_identifier="zero", weight=0)
    assert choose([heavy, zero], lambda _: True, "us-east-1", Random(1)) == [heavy]
    assert choose([heavy, zero], lambda record: record is zero, "us-east-1", Random(1)) == [zero]
    assert choose([heavy, zero], lambda _: False, "us-east-1", Random(1)) == [heavy]


@given(healthy=st.sets(st.integers(0, 11)), seed=st.integers())
def test_multivalue_gives_up_to_eight_healthy_records(healthy: set[int], seed: int) -> None:
    """Never more than eight, never an unhealthy one while one is healthy, never none."""
    records = [RecordSet("a.", "A", 60, (f"10.0.0.{n}",), set_identifier=str(n), multivalue=True) for n in range(12)]
    chosen = choose(records, lambda record: int(record.set_identifier or 0) in healthy, "us-east-1", Random(seed))
    identifiers = {int(record.set_identifier or 0) for record in chosen}
    assert len(chosen) == len(identifiers) == min(8, len(healthy) or 12)
    assert not healthy or identifiers <= healthy


def test_distances_are_symmetric_and_sensible() -> None:
    """Oregon is nearer to California than Virginia is; an unknown Region is far from all."""
    assert distance_km("us-west-2", "us-west-1") < distance_km("us-east-1", "us-west-1")
    assert distance_km("us-east-1", "us-west-2") == pytest.approx(distance_km("us-west-2", "us-east-1"))
    assert distance_km("us-east-1", "mars-1") == 20_000
