"""The snapshot that an unplanned failover left of the old primary: the first step of the missing-transaction report (missing.py).

Aurora tries to keep one (``rds:unplanned-global-failover-<cluster>-<time>``). That of an earlier failover is as wrong as an ordinary one,
and would say that nothing is missing: only a snapshot since the last move of the writer counts, which RDS's events tell (they are kept for
14 days) or ``After``. Where Aurora could not take its snapshot, the report says so.

Runs inside aws:executeScript: standard library and boto3 only. ``Recovery``: see aurora.py.
"""

import json
import os
import re
import time
from datetime import UTC, datetime
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

Payload = dict[str, Any]
PATIENCE = Config(connect_timeout=3, read_timeout=60, retries={"mode": "standard", "total_max_attempts": 4})
ROUND_EVERY_S = 5.0
SNAPSHOT_MARK = "unplanned-global-failover"
MOVE = re.compile(r"Global (?:failover|switchover) to DB cluster .*\b(started|completed|finished|failed)\b")
EVENTS_FOR_MIN = 14 * 24 * 60


class NoReport(Exception):
    """The report cannot be made. The message says why, and what can be done."""


def find_snapshot(events: Payload, _context: object) -> Payload:
    """The snapshot that the last failover left of the old primary in ``FromRegion``, once it is available."""
    if events.get("Snapshot"):
        return {"Snapshot": events["Snapshot"]}
    member = _members(events).get(events["FromRegion"])
    since = _moved_at(events)
    client = _client(events, "rds", events["FromRegion"])
    deadline = time.time() + float(events.get("WithinSeconds", 600))
    while True:
        newest, seen = None, "does not exist"
        try:
            newest = _newest_snapshot(client, events, member)
        except (BotoCoreError, ClientError) as error:
            seen = f"cannot be looked for ({error})"
        if newest is not None and newest["SnapshotCreateTime"] < since:
            seen = f"does not exist: the newest is of {newest['SnapshotCreateTime']:%Y-%m-%d %H:%M:%S}, before the writer moved"
            seen += f" ({since:%Y-%m-%d %H:%M:%S})"
        elif newest is not None:
            if newest["Status"] == "available":
                print(f"{newest['DBClusterSnapshotIdentifier']} of {newest['SnapshotCreateTime']}")
                return {"Snapshot": newest["DBClusterSnapshotIdentifier"]}
            seen = f"is {newest['Status']}"
        if time.time() >= deadline:
            raise _unknown(events, f"The snapshot that Aurora tries to take of the old primary in {events['FromRegion']} {seen}.")
        time.sleep(ROUND_EVERY_S)


def _unknown(events: Payload, reason: str) -> NoReport:
    """Keep it as the report that there is none, and say so."""
    where = _put(events, "json", json.dumps({"status": "no-snapshot", "reason": reason, "missing": None}))
    return NoReport(
        f"{reason} What is missing is not known; it is not nothing. This is kept as {where}. An ordinary earlier snapshot cannot"
        " hold the lost rows: reconcile with what clients and downstream systems recorded."
    )


def _moved_at(events: Payload) -> datetime:
    """When the last move of the writer began: ``After`` if given, else by RDS's events. Raises `NoReport`."""
    if after := events.get("After"):
        try:
            said = datetime.fromisoformat(after)
        except ValueError as error:
            raise NoReport(f"After: {after!r} is not an ISO 8601 time, such as 2026-01-31T12:00:00Z.") from error
        return said if said.tzinfo else said.replace(tzinfo=UTC)
    told: list[tuple[datetime, str]] = []
    for region, member in _members(events).items():
        name = member["DBClusterArn"].rpartition(":")[2]
        try:
            pages = (
                _client(events, "rds", region)
                .get_paginator("describe_events")
                .paginate(SourceIdentifier=name, SourceType="db-cluster", Duration=EVENTS_FOR_MIN)
            )
            told += [(event["Date"], event["Message"]) for page in pages for event in page["Events"]]
        except (BotoCoreError, ClientError) as error:
            print(f"events of {name} cannot be read: {error}")
    moved = last_move(told)
    if moved is None:
        raise _unknown(events, "When the writer moved is not known: no event tells of it. Say After=<time of the failover>.")
    return moved


def last_move(told: list[tuple[datetime, str]]) -> datetime | None:
    """When the last failover or switchover that did not fail began, of events as (time, message); None where there is none."""
    moved = begun = None
    for at, message in sorted(told):
        if not (found := MOVE.search(message)):
            continue
        if found[1] == "started":
            begun = at
        elif found[1] == "failed":
            begun = None
        else:
            moved, begun = begun or at, None
    return begun or moved


def _newest_snapshot(client: Any, events: Payload, member: Payload | None) -> Payload | None:
    """The newest snapshot that a failover left of the old primary."""
    found = [
        snapshot
        for snapshot in client.describe_db_cluster_snapshots()["DBClusterSnapshots"]
        if SNAPSHOT_MARK in snapshot["DBClusterSnapshotIdentifier"] and _is_of(snapshot, member, events)
    ]
    return max(found, key=lambda snapshot: snapshot["SnapshotCreateTime"], default=None)


def _is_of(snapshot: Payload, member: Payload | None, events: Payload) -> bool:
    """Whether the snapshot is one of the old primary: the global database's member in the Region, or what its name says."""
    name = member["DBClusterArn"].rpartition(":")[2] if member else f"{events['GlobalCluster']}-{events['FromRegion']}"
    return bool(snapshot["DBClusterIdentifier"] == name)


def _put(events: Payload, suffix: str, text: str) -> str:
    bucket = _recovery(events)["bucket"]
    key = f"missing-transactions/{events['Database']}/{events['ExecutionId']}.{suffix}"
    _client(events, "s3", os.environ["AWS_REGION"]).put_object(Bucket=bucket, Key=key, Body=text.encode(), ContentType="application/json")
    return f"s3://{bucket}/{key}"


def _global_cluster(events: Payload) -> Payload:
    client = _client(events, "rds", os.environ["AWS_REGION"])
    found: Payload = client.describe_global_clusters(GlobalClusterIdentifier=events["GlobalCluster"])["GlobalClusters"][0]
    return found


def _members(events: Payload) -> dict[str, Payload]:
    return {member["DBClusterArn"].split(":")[3]: member for member in _global_cluster(events)["GlobalClusterMembers"]}


def _recovery(events: Payload) -> Payload:
    recovery: Payload = json.loads(events["Recovery"])
    return recovery


def _client(events: Payload, service: str, region: str) -> Any:
    url = _recovery(events)["endpoints"].get(region) or None
    return boto3.client(service, region_name=region, endpoint_url=url, config=PATIENCE.merge(Config(s3={"addressing_style": "path"})))
