"""The signal catalogue: every series is well formed and stands where it should."""

from __future__ import annotations

from pathlib import Path

from topology import load, loads
from topology.signals import CATALOGUE, HEALTH_CHECK_REGION, PROBE, all_series, find, series

EXAMPLE = Path(__file__).parents[2] / "topology.yaml"


def test_series_carry_exactly_the_dimensions_that_their_signal_names() -> None:
    """A dimension set that nobody emits would make an alarm that never fires."""
    for signal, item in all_series(load(EXAMPLE)):
        assert set(item.dimensions) == set(signal.dimensions), signal.name
        assert all(item.dimensions.values()), item


def test_no_series_stands_twice() -> None:
    """Within a Region a metric is one series."""
    seen = [(item.region, item.key) for signal, item in all_series(load(EXAMPLE)) if item.emitted_by != "*"]
    assert len(seen) == len(set(seen))


def test_the_matrix_stands_in_every_region() -> None:
    """Each watched Region holds all cells, so that it can decide alone."""
    topology = loads(EXAMPLE.read_text() + "\nvantages: {eu-west-1: {}}\n")
    signal = find(PROBE, "Up", ("Workload", "Vantage", "Target"))
    assert signal is not None
    cells = list(series(topology, signal))
    assert len(cells) == 3 * 3 * 3
    assert {item.region for item in cells} == {"us-east-1", "us-west-2", "eu-west-1"}


def test_health_checks_stand_in_one_region_only() -> None:
    """Route 53 vends them in us-east-1."""
    signal = find("AWS/Route53", "HealthCheckStatus")
    assert signal is not None
    assert {item.region for item in series(load(EXAMPLE), signal)} == {HEALTH_CHECK_REGION}


def test_aurora_lag_is_only_where_the_secondary_is() -> None:
    """No series has a Region as its own source."""
    signal = find("AWS/RDS", "AuroraGlobalDBReplicationLag")
    assert signal is not None
    assert all(item.dimensions["SourceRegion"] != item.region for item in series(load(EXAMPLE), signal))


def test_every_node_of_a_replication_group_has_its_series_and_a_single_node_no_lag() -> None:
    """Which of them is the replica changes with every failover, so all may have the lag; a node without replicas has none."""
    one, two = "us-east-1: retail-checkout-us-east-1", "us-east-1: [retail-checkout-001, retail-checkout-002]"
    text = EXAMPLE.read_text(encoding="utf-8")
    assert one in text
    for topology, nodes, replicas in ((loads(text), 1, 0), (loads(text.replace(one, two)), 2, 2)):
        for name, wanted in (("IsMaster", nodes), ("Evictions", nodes), ("ReplicationLag", replicas)):
            signal = find("AWS/ElastiCache", name, ("CacheClusterId",))
            assert signal is not None
            assert len([item for item in series(topology, signal) if item.region == "us-east-1"]) == wanted, name


def test_every_signal_says_what_its_silence_means() -> None:
    """Absence is part of a signal's meaning."""
    assert all(signal.absence and signal.what for signal in CATALOGUE)
