"""PutMetricData: every documented limit, each refused in CloudWatch's words; and what a datum becomes in the store.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricData.html
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lab.aws.service import AwsError
from lab.aws.services.cloudwatch.store import Datum

if TYPE_CHECKING:
    from lab.clock import LabClock

MAX_METRICS = 1000
MAX_VALUES = 150
MAX_MAGNITUDE = 2.0**360
OLDEST_S = 14 * 86400.0
NEWEST_S = 2 * 3600.0


@dataclass(frozen=True, slots=True)
class Incoming:
    """One valid datum of a request."""

    name: str
    dimensions: dict[str, str]
    unit: str
    data: tuple[Datum, ...]


def read(params: dict[str, Any], clock: LabClock, now: float) -> list[Incoming]:
    """All data of a PutMetricData request. Raises AwsError for the first thing CloudWatch would refuse; nothing is stored then."""
    namespace = params["Namespace"]
    if namespace.startswith("AWS/"):
        raise AwsError("InvalidParameterValue", "The value AWS/ for parameter Namespace is invalid.")
    if namespace.startswith(":"):
        raise AwsError("InvalidParameterValue", f"The value {namespace} for parameter Namespace is invalid.")
    data = [("MetricData", item) for item in params.get("MetricData", ())]
    for index, entity in enumerate(params.get("EntityMetricData", ()), 1):
        data += [(f"EntityMetricData.member.{index}.MetricData", item) for item in entity.get("MetricData", ())]
    if not data:
        raise AwsError("MissingParameter", "The parameter MetricData is required.")
    if len(data) > MAX_METRICS:
        raise AwsError("InvalidParameterValue", f"The collection MetricData must not have a size greater than {MAX_METRICS}.")
    return [_datum(f"{where}.member.{index}", item, clock, now) for index, (where, item) in enumerate(data, 1)]


def _datum(where: str, item: dict[str, Any], clock: LabClock, now: float) -> Incoming:
    resolution = item.get("StorageResolution", 60)
    if resolution not in (1, 60):
        raise AwsError("InvalidParameterValue", f"The value {resolution} for parameter {where}.StorageResolution is invalid.")
    time = clock.to_lab(item["Timestamp"]) if "Timestamp" in item else now
    if time < now - OLDEST_S:
        raise AwsError("InvalidParameterValue", f"The parameter {where}.Timestamp must specify a time within the past two weeks.")
    if time > now + NEWEST_S:
        raise AwsError(
            "InvalidParameterValue", f"The parameter {where}.Timestamp must specify a time no more than two hours in the future."
        )
    stored = math.floor(time / resolution) * float(resolution)
    return Incoming(item["MetricName"], _dimensions(where, item), item.get("Unit", "None"), tuple(_rows(where, item, stored)))


def _dimensions(where: str, item: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for index, dimension in enumerate(item.get("Dimensions", ()), 1):
        label = f"{where}.Dimensions.member.{index}"
        name, value = dimension["Name"], dimension["Value"]
        if name.startswith(":") or not name.isascii() or not name.strip():
            raise AwsError("InvalidParameterValue", f"The value {name} for parameter {label}.Name is invalid.")
        if not value.isascii() or not value.strip():
            raise AwsError("InvalidParameterValue", f"The value {value} for parameter {label}.Value is invalid.")
        if name in found:
            raise AwsError("InvalidParameterValue", f"Duplicate dimension name {name} in {where}.Dimensions.")
        found[name] = value
    return found


def _rows(where: str, item: dict[str, Any], time: float) -> list[Datum]:
    given = [key for key in ("Value", "StatisticValues", "Values") if key in item]
    if len(given) > 1:
        raise AwsError(
            "InvalidParameterCombination",
            f"The parameters {where}.{given[0]} and {where}.{given[1]} are mutually exclusive and you have specified both.",
        )
    if "Counts" in item and "Values" not in item:
        raise AwsError("InvalidParameterCombination", f"The parameter {where}.Counts can only be used together with {where}.Values.")
    if not given:
        raise AwsError(
            "MissingParameter",
            f"At least one of the parameters {where}.Value, {where}.Values and {where}.StatisticValues must be specified.",
        )
    if given == ["Value"]:
        value = _number(f"{where}.Value", item["Value"])
        return [Datum(time, value, value, value, 1.0)]
    if given == ["StatisticValues"]:
        return [_statistic_set(where, item["StatisticValues"], time)]
    values, counts = item["Values"], item.get("Counts")
    if not values:
        raise AwsError("MissingParameter", f"The parameter {where}.Values must not be empty.")
    if len(values) > MAX_VALUES:
        raise AwsError("InvalidParameterValue", f"The collection {where}.Values must not have a size greater than {MAX_VALUES}.")
    if counts is not None and len(counts) != len(values):
        raise AwsError("InvalidParameterValue", f"The parameters {where}.Values and {where}.Counts must be of the same size.")
    rows = []
    for index, raw in enumerate(values):
        value = _number(f"{where}.Values.member.{index + 1}", raw)
        count = 1.0 if counts is None else _number(f"{where}.Counts.member.{index + 1}", counts[index])
        if count <= 0:
            raise AwsError("InvalidParameterValue", f"The value {count:g} for parameter {where}.Counts.member.{index + 1} is invalid.")
        rows.append(Datum(time, value, value, value * count, count))
    return rows


def _statistic_set(where: str, given: dict[str, Any], time: float) -> Datum:
    low, high, total, count = (
        _number(f"{where}.StatisticValues.{key}", given[key]) for key in ("Minimum", "Maximum", "Sum", "SampleCount")
    )
    if count <= 0:
        raise AwsError("InvalidParameterValue", f"The value {count} for parameter {where}.StatisticValues.SampleCount is invalid.")
    if low > high:
        raise AwsError("InvalidParameterValue", f"The parameter {where}.StatisticValues.Maximum must be greater than or equal to Minimum.")
    return Datum(time, low, high, total, count)


def _number(where: str, value: float) -> float:
    if not math.isfinite(value) or abs(value) > MAX_MAGNITUDE:
        raise AwsError("InvalidParameterValue", f"The value {value} for parameter {where} is invalid.")
    return float(value)
