"""What the checks see: the alarms, the topology, and which signal each metric is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from alarms.definitions import Definition
from alarms.engine import Alarm, CompositeAlarm, MetricAlarm, MetricKey, MuteRule
from alarms.engine.composite import alarm_name
from topology import Topology
from topology.problems import Problem, Severity
from topology.signal import Series, Signal
from topology.signals import all_series, find

Parsed = Sequence[tuple[Definition, Alarm | MuteRule]]


@dataclass(frozen=True)
class Context:
    """All definitions together. Without a topology the checks that need one stay silent."""

    parsed: Parsed
    topology: Topology | None = None
    texts: Mapping[str, object] = field(default_factory=dict)
    """What the notifier says of alarms, by name: they need no runbook in their description."""

    def metric_alarms(self) -> Iterator[tuple[Definition, MetricAlarm]]:
        """The metric alarms."""
        for definition, item in self.parsed:
            if isinstance(item, MetricAlarm):
                yield definition, item

    def composites(self) -> Iterator[tuple[Definition, CompositeAlarm]]:
        """The composite alarms."""
        for definition, item in self.parsed:
            if isinstance(item, CompositeAlarm):
                yield definition, item

    def alarms(self) -> Iterator[tuple[Definition, Alarm]]:
        """Both."""
        for definition, item in self.parsed:
            if isinstance(item, MetricAlarm | CompositeAlarm):
                yield definition, item

    def named(self, name: str, region: str | None) -> Alarm | None:
        """The alarm of that name (or ARN) in the Region."""
        return self._by_name.get((region, alarm_name(name))) or self._by_name.get((None, alarm_name(name)))

    @cached_property
    def _by_name(self) -> dict[tuple[str | None, str], Alarm]:
        return {(definition.region, alarm.name): alarm for definition, alarm in self.alarms()}

    @cached_property
    def children(self) -> set[tuple[str | None, str]]:
        """(Region, name) of every alarm that some composite depends on."""
        return {(definition.region, child) for definition, composite in self.composites() for child in composite.depends_on}

    @cached_property
    def series(self) -> dict[tuple[str, str, tuple[tuple[str, str], ...]], list[tuple[Signal, Series]]]:
        """The topology's series by namespace, name and dimensions; empty without a topology."""
        found: dict[tuple[str, str, tuple[tuple[str, str], ...]], list[tuple[Signal, Series]]] = {}
        for signal, one in all_series(self.topology) if self.topology else ():
            found.setdefault(one.key, []).append((signal, one))
        return found

    def stored(self, key: MetricKey) -> list[tuple[Signal, Series]]:
        """The series a metric alarm's key reads, in whatever Region."""
        return self.series.get((key.namespace, key.name, key.dimensions), [])

    def finding(self, check: str, definition: Definition, what: str, mend: str, severity: Severity = "warning", where: str = "") -> Problem:
        """A finding about one definition."""
        place = ".".join(part for part in (definition.key, definition.name, where) if part)
        name = f"{definition.region}/{definition.name}" if definition.region else definition.name
        return Problem(f"{name}: {what}", mend, definition.file, place, definition.line, severity, check)


def signal_of(key: MetricKey) -> Signal | None:
    """The catalogue's signal with this name and these dimension names."""
    return find(key.namespace, key.name, tuple(name for name, _ in key.dimensions))
