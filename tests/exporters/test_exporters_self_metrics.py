"""The ledger as metrics."""

from __future__ import annotations

from crosswatch_exporters.ledger import Ledger
from crosswatch_exporters.self_metrics import observe_ledger
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader


def test_the_points_of_one_collection_are_of_one_moment() -> None:
    """Items that are delivered while a collection is under way are in it once: emitted = delivered + what waits."""
    ledger = Ledger()
    account = ledger.account("traces")
    account.taken = 100

    def waiting() -> int:
        """Ten more are delivered every time that somebody looks."""
        account.deliver(10)
        return 0

    account.waiting = waiting
    account.spooled = lambda: 100 - account.delivered
    reader = InMemoryMetricReader()
    with_meters = MeterProvider([reader], shutdown_on_exit=False)
    observe_ledger(with_meters, lambda: ledger)
    for _ in range(3):
        collected = reader.get_metrics_data()
        assert collected is not None
        points = {
            (point.attributes or {}).get("outcome") or (point.attributes or {}).get("place"): point.value  # type: ignore[union-attr]
            for metric in collected.resource_metrics[0].scope_metrics[0].metrics
            for point in metric.data.data_points
        }
        assert points["emitted"] == 100
        assert points["delivered"] + points["queued"] + points["held"] + points["spooled"] == 100
    with_meters.shutdown()
