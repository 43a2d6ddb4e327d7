"""ChangeResourceRecordSets as a pure function: a zone and a change batch in, the new zone or everything that is wrong with the batch out.

https://docs.aws.amazon.com/Route53/latest/APIReference/API_ChangeResourceRecordSets.html
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

from lab.dns.records import Alias, RecordSet, Zone, canonical

if TYPE_CHECKING:
    from collections.abc import Iterable

SERVED_TYPES = ("A", "AAAA", "CAA", "CNAME", "MX", "NAPTR", "NS", "PTR", "SOA", "SPF", "SRV", "TXT")
UNSERVED_POLICIES = ("GeoLocation", "GeoProximityLocation", "CidrRoutingConfig", "TrafficPolicyInstanceId")


class InvalidBatchError(Exception):
    """The batch cannot be applied; ``messages`` says everything that is wrong."""

    def __init__(self, messages: list[str]) -> None:
        super().__init__("; ".join(messages))
        self.messages = messages


def record_from_api(shape: dict[str, Any]) -> RecordSet:
    """A ResourceRecordSet of the API as a value. Raises `InvalidBatchError`."""
    name, kind = canonical(str(shape["Name"])), str(shape["Type"])
    problems = _problems(shape, name, kind)
    if problems:
        raise InvalidBatchError(problems)
    alias = shape.get("AliasTarget")
    ttl, weight = shape.get("TTL"), shape.get("Weight")
    return RecordSet(
        name=name,
        type=kind,
        ttl=None if ttl is None else int(ttl),
        values=tuple(str(item["Value"]) for item in shape.get("ResourceRecords") or ()),
        alias=Alias(str(alias["HostedZoneId"]), canonical(str(alias["DNSName"])), _truth(alias["EvaluateTargetHealth"])) if alias else None,
        set_identifier=shape.get("SetIdentifier"),
        weight=None if weight is None else int(weight),
        region=shape.get("Region"),
        failover=shape.get("Failover"),
        multivalue=_truth(shape.get("MultiValueAnswer")),
        health_check_id=shape.get("HealthCheckId"),
    )


def record_to_api(record: RecordSet) -> dict[str, Any]:
    """A record set in the API's shape."""
    shape: dict[str, Any] = {"Name": record.name, "Type": record.type}
    optional = {
        "SetIdentifier": record.set_identifier,
        "Weight": record.weight,
        "Region": record.region,
        "Failover": record.failover,
        "MultiValueAnswer": record.multivalue or None,
        "TTL": record.ttl,
        "HealthCheckId": record.health_check_id,
    }
    shape.update({key: value for key, value in optional.items() if value is not None})
    if record.alias is not None:
        shape["AliasTarget"] = {
            "HostedZoneId": record.alias.zone_id,
            "DNSName": record.alias.name,
            "EvaluateTargetHealth": record.alias.evaluate_target_health,
        }
    else:
        shape["ResourceRecords"] = [{"Value": value} for value in record.values]
    return shape


def apply(zone: Zone, changes: Iterable[dict[str, Any]]) -> Zone:
    """The zone after the whole batch. Raises `InvalidBatchError` with every problem; then nothing has changed."""
    held = {(record.name, record.type, record.set_identifier): record for record in zone.all_records()}
    problems: list[str] = []
    touched: set[tuple[str, str]] = set()
    for change in changes:
        try:
            record = record_from_api(change["ResourceRecordSet"])
        except InvalidBatchError as error:
            problems += error.messages
            continue
        key = (record.name, record.type, record.set_identifier)
        problem = _change_problem(zone, str(change["Action"]), record, held.get(key))
        if problem is not None:
            problems.append(problem)
        elif change["Action"] == "DELETE":
            del held[key]
        else:
            held[key] = record
            touched.add((record.name, record.type))
    problems += [text for name, kind in sorted(touched) for text in _conflicts(held, name, kind)]
    if problems:
        raise InvalidBatchError(problems)
    return zone.with_records(held.values())


def _change_problem(zone: Zone, action: str, record: RecordSet, old: RecordSet | None) -> str | None:
    what = _what(record)
    if record.name != zone.name and not record.name.endswith("." + zone.name):
        return f"RRSet with DNS name {record.name} is not permitted in zone {zone.name}"
    if action == "CREATE" and old is not None:
        return f"Tried to create resource record set {what} but it already exists"
    if action == "DELETE" and old is None:
        return f"Tried to delete resource record set {what} but it was not found"
    if action == "DELETE" and old != record:
        return f"Tried to delete resource record set {what} but the values provided do not match the current values"
    if action == "DELETE" and record.name == zone.name and record.type in ("SOA", "NS"):
        return f"A HostedZone must contain exactly one {record.type} record for its own name"
    return None


def _conflicts(held: dict[tuple[str, str, str | None], RecordSet], name: str, kind: str) -> list[str]:
    group = [record for (other, type_, _), record in held.items() if (other, type_) == (name, kind)]
    found = []
    if len({record.policy for record in group}) > 1:
        found.append(f"RRSet with DNS name {name}, type {kind} cannot be created as other RRSets exist with the same name and type")
    if len({record.region for record in group if record.region}) < sum(record.region is not None for record in group):
        found.append(f"RRSet with DNS name {name}, type {kind}: another latency record has the same Region")
    if sum(record.failover == "PRIMARY" for record in group) > 1 or sum(record.failover == "SECONDARY" for record in group) > 1:
        found.append(f"RRSet with DNS name {name}, type {kind}: there can be one PRIMARY and one SECONDARY failover record")
    others = {type_ for other, type_, _ in held if other == name}
    if "CNAME" in others and len(others) > 1:
        found.append(f"RRSet of type CNAME with DNS name {name} is not permitted as it conflicts with other records with the same DNS name")
    return found


def _problems(shape: dict[str, Any], name: str, kind: str) -> list[str]:
    what = f"[name='{name}', type='{kind}']"
    problems = [f"Invalid request: {what}: {policy} is not supported here" for policy in UNSERVED_POLICIES if shape.get(policy)]
    if kind not in SERVED_TYPES:
        problems.append(f"Invalid request: {what}: records of type {kind} are not supported here")
    routed = [key for key in ("Weight", "Region", "Failover", "MultiValueAnswer") if shape.get(key) is not None]
    if len(routed) > 1:
        problems.append(f"Invalid request: {what}: only one of {', '.join(routed)} can be given")
    if bool(routed) != bool(shape.get("SetIdentifier")):
        missing = "Missing field 'SetIdentifier'" if routed else "Missing field 'Weight', 'Region', 'Failover' or 'MultiValueAnswer'"
        problems.append(f"Invalid request: {missing} in Change with {what}")
    records = shape.get("ResourceRecords")
    if shape.get("AliasTarget"):
        if records or shape.get("TTL") is not None:
            problems.append(
                f"Invalid request: Expected exactly one of [AliasTarget, all of [TTL, and ResourceRecords]] in Change with {what}"
            )
    elif not records or shape.get("TTL") is None:
        problems.append(f"Invalid request: Expected exactly one of [AliasTarget, all of [TTL, and ResourceRecords]] in Change with {what}")
    if kind in ("A", "AAAA"):
        family = "v4" if kind == "A" else "v6"
        problems += [
            f"Invalid Resource Record: FATAL problem: {kind}RRDATAIllegalIP{family}Address encountered with '{value}'"
            for value in (str(item["Value"]) for item in records or ())
            if not _is_address(value, 4 if kind == "A" else 6)
        ]
    return problems


def _is_address(value: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(value).version == version
    except ValueError:
        return False


def _truth(value: Any) -> bool:
    return value if isinstance(value, bool) else str(value).lower() == "true"


def _what(record: RecordSet) -> str:
    identifier = f", set identifier='{record.set_identifier}'" if record.set_identifier else ""
    return f"[name='{record.name}', type='{record.type}'{identifier}]"
