"""The ledger as metrics: `crosswatch.exporter.items` by signal and outcome, `crosswatch.exporter.waiting` by signal and place."""

from collections.abc import Callable, Iterator

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

from crosswatch_exporters.ledger import Ledger

SCOPE = "crosswatch_exporters"


def observe_ledger(meters: MeterProvider, ledger: Callable[[], Ledger]) -> None:
    """Register the instruments. `ledger` gives the current process's, which changes with a fork."""

    def items(_: CallbackOptions) -> Iterator[Observation]:
        for signal, balance in ledger().balances().items():
            for outcome in ("emitted", "recovered", "delivered"):
                yield Observation(getattr(balance, outcome), {"signal": signal, "outcome": outcome})
            for reason, count in balance.dropped.items():
                yield Observation(count, {"signal": signal, "outcome": "dropped", "reason": reason})

    def waiting(_: CallbackOptions) -> Iterator[Observation]:
        for signal, balance in ledger().balances().items():
            for place in ("queued", "held", "spooled"):
                yield Observation(getattr(balance, place), {"signal": signal, "place": place})

    meter = meters.get_meter(SCOPE)
    meter.create_observable_counter("crosswatch.exporter.items", [items], "{item}", "Items of telemetry by what became of them")
    meter.create_observable_up_down_counter("crosswatch.exporter.waiting", [waiting], "{item}", "Items of telemetry that wait, by where")
