"""A meter provider in front of the SDK's: limits series, redacts attribute values, marks synthetic traffic, survives fork.

It wraps public interfaces only. After a fork the SDK's provider is made anew and every instrument is bound to its new counterpart, so
that a
child begins at zero instead of reporting its parent's counts a second time.
"""

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any

from opentelemetry.context import Context
from opentelemetry.metrics import (
    CallbackOptions,
    Counter,
    Histogram,
    Meter,
    MeterProvider,
    ObservableCounter,
    ObservableGauge,
    ObservableUpDownCounter,
    Observation,
    UpDownCounter,
)
from opentelemetry.metrics import _Gauge as Gauge
from opentelemetry.util.types import Attributes

from crosswatch_exporters.encoding.wire import Redactor
from crosswatch_exporters.guards.cardinality import SeriesLimit
from crosswatch_exporters.guards.synthetic import ATTRIBUTE, caused_by_synthetic

log = logging.getLogger(__name__)

Bind = Callable[[], Any]


class AttributeGuard:
    """Decides under which attributes a measurement is recorded; one for each instrument.

    The verdict on a set of attributes is remembered, so that in the steady state it costs one lookup.
    """

    def __init__(self, limit: int, redact: Redactor | None) -> None:
        self._limit = SeriesLimit(limit)
        self._redact = redact
        self._most = 2 * limit
        self._verdicts: dict[Any, Mapping[str, Any]] = {}
        self._refused = False

    def __call__(self, attributes: Attributes, context: Context | None = None, mark: bool = True) -> Mapping[str, Any]:
        """Redacted, marked and limited attributes. `mark` is off for observations, which no request causes."""
        marked = mark and caused_by_synthetic(context)
        try:
            # The types are part of the key: 1 and True are equal, but not the same series.
            key = (marked, *attributes.items(), *map(type, attributes.values())) if attributes else marked
            found = self._verdicts.get(key)
        except (TypeError, AttributeError):  # lists as values, or attributes that are none
            return self._judge(attributes, marked)
        if found is None:
            found = self._judge(attributes, marked)
            if len(self._verdicts) < self._most:
                self._verdicts[key] = found
        return found

    def refuse(self, error: Exception) -> None:
        """A measurement could not be recorded: say so once; the service must not hear of it by an exception."""
        if not self._refused:
            self._refused = True
            log.warning("a measurement could not be recorded: %s: %s", type(error).__name__, error)

    def _judge(self, attributes: Attributes, marked: bool) -> Mapping[str, Any]:
        pairs = attributes.items() if isinstance(attributes, Mapping) else ()
        guarded: dict[str, Any] = {key if isinstance(key, str) else str(key): value for key, value in pairs}
        if self._redact is not None:
            redact = self._redact
            guarded = {key: redact(key, value) for key, value in guarded.items()}
        if marked:
            guarded[ATTRIBUTE] = True
        return self._limit(guarded)


class _Bound:
    """An instrument whose SDK counterpart can be replaced."""

    def __init__(self, bind: Bind, guard: AttributeGuard) -> None:
        self._bind = bind
        self._guard = guard
        self._inner = bind()

    def rebind(self) -> None:
        """Take the counterpart from the current SDK provider."""
        self._inner = self._bind()


class GuardedCounter(_Bound, Counter, UpDownCounter):
    """A counter or up-down counter."""

    def add(self, amount: int | float, attributes: Attributes = None, context: Context | None = None) -> None:
        """Add to the series that the guard allows."""
        try:
            self._inner.add(amount, self._guard(attributes, context), context)
        except Exception as error:  # noqa: BLE001  # whatever amount and attributes are, and whatever their own methods raise
            self._guard.refuse(error)


class GuardedHistogram(_Bound, Histogram):
    """A histogram."""

    def record(self, amount: int | float, attributes: Attributes = None, context: Context | None = None) -> None:
        """Record in the series that the guard allows."""
        try:
            self._inner.record(amount, self._guard(attributes, context), context)
        except Exception as error:  # noqa: BLE001  # whatever amount and attributes are, and whatever their own methods raise
            self._guard.refuse(error)


class GuardedGauge(_Bound, Gauge):
    """A synchronous gauge."""

    def set(self, amount: int | float, attributes: Attributes = None, context: Context | None = None) -> None:
        """Set the series that the guard allows."""
        try:
            self._inner.set(amount, self._guard(attributes, context), context)
        except Exception as error:  # noqa: BLE001  # whatever amount and attributes are, and whatever their own methods raise
            self._guard.refuse(error)


class GuardedObservable(_Bound, ObservableCounter, ObservableUpDownCounter, ObservableGauge):
    """An observable instrument; its guard sits in its callbacks."""


class GuardedMeter(Meter):
    """A meter whose instruments are guarded. Created through the provider."""

    def __init__(
        self, provider: "GuardedMeterProvider", name: str, version: str | None, schema_url: str | None, attributes: Attributes
    ) -> None:
        super().__init__(name, version, schema_url)
        self._provider = provider
        self._scope = (name, version, schema_url, attributes)
        self._sdk: Any = provider.sdk.get_meter(*self._scope)
        self._instruments: dict[tuple[str, str, str, str], Any] = {}
        self._lock = threading.Lock()

    def rebind(self) -> None:
        """Take meter and instruments from the provider's new SDK."""
        self._lock = threading.Lock()
        self._sdk = self._provider.sdk.get_meter(*self._scope)
        for instrument in self._instruments.values():
            instrument.rebind()

    def create_counter(self, name: str, unit: str = "", description: str = "") -> Counter:
        """See `opentelemetry.metrics.Meter`."""
        made: Counter = self._guarded(GuardedCounter, "counter", name, unit, description)
        return made

    def create_up_down_counter(self, name: str, unit: str = "", description: str = "") -> UpDownCounter:
        """See `opentelemetry.metrics.Meter`."""
        made: UpDownCounter = self._guarded(GuardedCounter, "up_down_counter", name, unit, description)
        return made

    def create_histogram(
        self, name: str, unit: str = "", description: str = "", *, explicit_bucket_boundaries_advisory: Sequence[float] | None = None
    ) -> Histogram:
        """See `opentelemetry.metrics.Meter`."""
        made: Histogram = self._guarded(
            GuardedHistogram, "histogram", name, unit, description, explicit_bucket_boundaries_advisory=explicit_bucket_boundaries_advisory
        )
        return made

    def create_gauge(self, name: str, unit: str = "", description: str = "") -> Gauge:
        """See `opentelemetry.metrics.Meter`."""
        made: Gauge = self._guarded(GuardedGauge, "gauge", name, unit, description)
        return made

    def create_observable_counter(
        self, name: str, callbacks: Sequence[Any] | None = None, unit: str = "", description: str = ""
    ) -> ObservableCounter:
        """See `opentelemetry.metrics.Meter`."""
        made: ObservableCounter = self._observable("observable_counter", name, callbacks, unit, description)
        return made

    def create_observable_up_down_counter(
        self, name: str, callbacks: Sequence[Any] | None = None, unit: str = "", description: str = ""
    ) -> ObservableUpDownCounter:
        """See `opentelemetry.metrics.Meter`."""
        made: ObservableUpDownCounter = self._observable("observable_up_down_counter", name, callbacks, unit, description)
        return made

    def create_observable_gauge(
        self, name: str, callbacks: Sequence[Any] | None = None, unit: str = "", description: str = ""
    ) -> ObservableGauge:
        """See `opentelemetry.metrics.Meter`."""
        made: ObservableGauge = self._observable("observable_gauge", name, callbacks, unit, description)
        return made

    def _guarded(
        self, kind: Callable[[Bind, AttributeGuard], Any], factory: str, name: str, unit: str, description: str, **advice: Any
    ) -> Any:
        """The instrument of that identity, made once: two guards for one instrument would each admit their own series."""
        with self._lock:
            key = (factory, name.lower(), unit, description)
            if key not in self._instruments:
                create = f"create_{factory}"
                self._instruments[key] = kind(
                    lambda: getattr(self._sdk, create)(name, unit=unit, description=description, **advice), self._provider.guard()
                )
            return self._instruments[key]

    def _observable(self, factory: str, name: str, callbacks: Sequence[Any] | None, unit: str, description: str) -> Any:
        with self._lock:
            key = (factory, name.lower(), unit, description)
            if key not in self._instruments:
                guard = self._provider.guard()
                guarded = [_guard_callback(callback, guard) for callback in callbacks or ()]
                self._instruments[key] = GuardedObservable(
                    lambda: getattr(self._sdk, f"create_{factory}")(name, guarded, unit=unit, description=description), guard
                )
            return self._instruments[key]


def _guard_callback(callback: Any, guard: AttributeGuard) -> Callable[[CallbackOptions], Iterable[Observation]]:
    """The callback, or generator, with its observations guarded."""
    generator: Generator[Iterable[Observation], CallbackOptions, None] | None = None
    if isinstance(callback, Generator):
        next(callback)
        generator = callback

    def observe(options: CallbackOptions) -> Iterable[Observation]:
        observations = generator.send(options) if generator is not None else callback(options)
        for observation in observations or ():
            yield Observation(observation.value, guard(observation.attributes, mark=False), observation.context)

    return observe


class GuardedMeterProvider(MeterProvider):
    """The process's meter provider. `make_sdk` makes an SDK provider, and is called again in a forked child; `deliver`
    sends what was collected, in so many seconds at most."""

    def __init__(
        self,
        make_sdk: Callable[[], Any],
        series_limit: int,
        redact: Redactor | None,
        deliver: Callable[[float], bool] = lambda seconds: True,
    ) -> None:
        self._make_sdk = make_sdk
        self._series_limit = series_limit
        self._redact = redact
        self._deliver = deliver
        self._lock = threading.Lock()
        self._meters: dict[tuple[Any, ...], GuardedMeter] = {}
        self.sdk = make_sdk()

    def guard(self) -> AttributeGuard:
        """A guard for a new instrument."""
        return AttributeGuard(self._series_limit, self._redact)

    def get_meter(self, name: str, version: str | None = None, schema_url: str | None = None, attributes: Attributes = None) -> Meter:
        """The meter of that scope."""
        key = (name, version, schema_url, tuple(sorted((attributes or {}).items(), key=str)))
        with self._lock:
            if key not in self._meters:
                self._meters[key] = GuardedMeter(self, name, version, schema_url, attributes)
            return self._meters[key]

    def after_fork(self) -> None:
        """In the child: begin again with an SDK provider of its own. Locks of the parent's threads are left behind with the old one."""
        self._lock = threading.Lock()
        self.sdk = self._make_sdk()
        for meter in self._meters.values():
            meter.rebind()

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Collect now and deliver; whether all of it arrived in that time."""
        by = time.monotonic() + timeout_millis / 1000
        flush = getattr(self.sdk, "force_flush", None)  # the API's no-op provider has none
        if flush is None:
            return True
        try:
            flush(timeout_millis)
        except Exception as error:  # noqa: BLE001  # the SDK's own class, or what a service's callback raised
            log.warning("metrics could not be collected: %s: %s", type(error).__name__, error)
            return False
        return self._deliver(max(0.0, by - time.monotonic()))

    def shutdown(self, timeout_millis: float = 30_000) -> None:
        """Collect one last time."""
        if shutdown := getattr(self.sdk, "shutdown", None):
            try:
                shutdown(timeout_millis)
            except Exception as error:  # noqa: BLE001  # as above
                log.warning("metrics could not be collected: %s: %s", type(error).__name__, error)
