"""A metric datum on its way to CloudWatch, without Region and time: those the publisher adds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True)
class Datum:
    """One or more samples of one metric within one period. ``unit`` is CloudWatch's."""

    namespace: str
    metric: str
    dimensions: Mapping[str, str]
    values: tuple[float, ...]
    unit: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "namespace": self.namespace,
            "metric": self.metric,
            "dimensions": dict(self.dimensions),
            "values": list(self.values),
            "unit": self.unit,
        }


def across(
    namespace: str, metric: str, dimension_sets: Iterable[Mapping[str, str]], values: Iterable[float], unit: str = "Count"
) -> list[Datum]:
    """The same samples under several sets of dimensions; nothing where there is no sample."""
    samples = tuple(values)
    return [Datum(namespace, metric, dimensions, samples, unit) for dimensions in dimension_sets] if samples else []
