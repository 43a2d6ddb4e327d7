"""The ledger as metrics: `crosswatch.exporter.items` by signal and outcome, `crosswatch.exporter.waiting` by signal and place.

Both are of one moment, so that whoever adds up the points of one collection finds the ledger exact.
"""

from collections.abc import Callable, Iterator

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

from crosswatch_exporters.ledger import Balance, Ledger

SCOPE = "crosswatch_exporters"


def observe_ledger(meters: MeterProvider, ledger: Callable[[], Ledger]) -> None:
    """Register the instruments. `ledger` gives the current process's, which changes with a fork."""
    seen: dict[str, Balance] = {}

    def items(_: CallbackOptions) -> Iterator[Observation]:
        # A collection asks the instruments in the order in which they were made, and never at the same time as another one.
        seen.clear()
        seen.update(ledger().balances())
        for signal, balance in seen.items():
            for outcome in ("emitted", "recovered", "delivered"):
                yield Observation(getattr(balance, outcome), {"signal": signal, "outcome": outcome})
            for reason, count in balance.dropped.items():
                yield Observation(count, {"signal": signal, "outcome": "dropped", "reason": reason})

    def waiting(_: CallbackOptions) -> Iterator[Observation]:
        for signal, balance in seen.items():
            for place in ("queued", "held", "spooled"):
                yield Observation(getattr(balance, place), {"signal": signal, "place": place})

    meter = meters.get_meter(SCOPE)
    meter.create_observable_counter("crosswatch.exporter.items", [items], "{item}", "Items of telemetry by what became of them")
    meter.create_observable_up_down_counter("crosswatch.exporter.waiting", [waiting], "{item}", "Items of telemetry that wait, by where")
