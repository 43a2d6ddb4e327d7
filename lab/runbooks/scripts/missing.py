"""The missing-transaction report: which rows the old primary had taken that the new primary does not have.

After an unplanned failover of a global database Aurora tries to keep a snapshot of the old primary
(``rds:unplanned-global-failover-<cluster>-<time>``). It is restored into a cluster of its own, both copies are read side by side in
the order of their keys, and what the new primary lacks is reported with its full content, taken from the copy that has it. An ordinary
earlier snapshot cannot hold the lost rows; where Aurora could not take its snapshot, the report says so instead of "nothing is missing".

An earlier failover's snapshot is as wrong as an ordinary one: only a snapshot since the last move of the writer counts, which RDS's events
tell (it keeps them for 14 days) or ``After``.

Orders that canaries placed are left out on both sides: their ledger deletes them, and accounts for them itself.

Runs inside aws:executeScript: standard library and boto3 only; SQL goes through the RDS Data API. ``Recovery``: see aurora.py.
"""

import csv
import io
import json
import os
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

Payload = dict[str, Any]
PATIENCE = Config(connect_timeout=3, read_timeout=60, retries={"mode": "standard", "total_max_attempts": 4})
ROUND_EVERY_S = 5.0
PAGE = 300
FIRST_KEY = "00000000-0000-0000-0000-000000000000"
SNAPSHOT_MARK = "unplanned-global-failover"
MOVE = re.compile(r"Global (?:failover|switchover) to DB cluster .*\b(started|completed|finished|failed)\b")
EVENTS_FOR_MIN = 14 * 24 * 60
NAMESPACE = "Crosswatch/Recovery"

# One row per transaction: its key and its full content, as JSON.
STATEMENTS = {
    "orders": """
        SELECT o.id::text AS key, (to_jsonb(o) || jsonb_build_object('items', coalesce(
            (SELECT jsonb_agg(to_jsonb(i) - 'order_id' ORDER BY i.product_id) FROM order_item i WHERE i.order_id = o.id), '[]'::jsonb
        )))::text AS content
        FROM customer_order o WHERE NOT o.synthetic AND o.id > :after::uuid ORDER BY o.id LIMIT {page}""",
    "catalog": """
        SELECT p.id::text AS key, (to_jsonb(p) || jsonb_build_object('tags', coalesce(
            (SELECT jsonb_agg(t.name ORDER BY t.name) FROM product_tag t WHERE t.product_id = p.id), '[]'::jsonb
        )))::text AS content
        FROM product p WHERE p.id > :after::uuid ORDER BY p.id LIMIT {page}""",
}


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


def restore(events: Payload, _context: object) -> Payload:
    """Restore the snapshot into a cluster of its own, beside everything else, and wait until it can be read."""
    client = _client(events, "rds", events["FromRegion"])
    identifier = f"{events['GlobalCluster']}-recovered-{events['ExecutionId'][:8]}"
    engine = _global_cluster(events)["Engine"]
    client.restore_db_cluster_from_snapshot(DBClusterIdentifier=identifier, SnapshotIdentifier=events["Snapshot"], Engine=engine)
    client.create_db_instance(
        DBInstanceIdentifier=f"{identifier}-1", DBClusterIdentifier=identifier, Engine=engine, DBInstanceClass="db.r6g.large"
    )
    deadline = time.time() + float(events.get("WithinSeconds", 1800))
    while True:
        cluster = client.describe_db_clusters(DBClusterIdentifier=identifier)["DBClusters"][0]
        if cluster["Status"] == "available":
            if not cluster.get("HttpEndpointEnabled"):
                client.enable_http_endpoint(ResourceArn=cluster["DBClusterArn"])
            return {"Cluster": identifier, "ClusterArn": cluster["DBClusterArn"]}
        if time.time() >= deadline:
            raise NoReport(f"{identifier} is {cluster['Status']}, not available.")
        time.sleep(ROUND_EVERY_S)


def compare(events: Payload, _context: object) -> Payload:
    """Read both copies side by side, write the report, and publish how many transactions are missing."""
    writers = {region: member for region, member in _members(events).items() if member["IsWriter"]}
    if len(writers) != 1:
        raise NoReport(
            f"The global database has {len(writers)} writers ({', '.join(sorted(writers))}); there has to be one to compare with."
        )
    (region, writer), old_region = next(iter(writers.items())), events["FromRegion"]
    if region == old_region:
        raise NoReport(f"The writer is in {region}, the Region to compare with: it did not fail over, or it was switched back.")
    old = _rows(events, old_region, events["ClusterArn"])
    new = _rows(events, region, writer["DBClusterArn"])
    missing, different, compared = _differences(old, new)
    report = {
        "status": "compared",
        "database": events["Database"],
        "oldPrimary": {"region": old_region, "snapshot": events["Snapshot"]},
        "newPrimary": {"region": region, "cluster": writer["DBClusterArn"]},
        "compared": compared,
        "missing": missing,
        "different": different,
    }
    json_at = _put(events, "json", json.dumps(report, indent=1, sort_keys=True))
    csv_at = _put(events, "csv", _as_csv(missing))
    dimensions = [{"Name": "Workload", "Value": _recovery(events)["workload"]}, {"Name": "Database", "Value": events["Database"]}]
    datum = {"MetricName": "MissingTransactions", "Dimensions": dimensions, "Value": float(len(missing)), "Unit": "Count"}
    _client(events, "cloudwatch", os.environ["AWS_REGION"]).put_metric_data(Namespace=NAMESPACE, MetricData=[datum])
    print(f"{len(missing)} of {compared} are missing, {len(different)} differ: {json_at} {csv_at}")
    return {"Missing": len(missing), "Different": len(different), "Compared": compared, "Json": json_at, "Csv": csv_at}


def remove(events: Payload, _context: object) -> Payload:
    """Delete the restored cluster again."""
    client = _client(events, "rds", events["FromRegion"])
    client.delete_db_instance(DBInstanceIdentifier=f"{events['Cluster']}-1", SkipFinalSnapshot=True)
    client.delete_db_cluster(DBClusterIdentifier=events["Cluster"], SkipFinalSnapshot=True)
    return {"Removed": events["Cluster"]}


def _differences(old: Iterator[tuple[str, Payload]], new: Iterator[tuple[str, Payload]]) -> tuple[list[Payload], list[Payload], int]:
    """Rows of ``old`` that ``new`` lacks, rows that both have with other content, and how many rows ``old`` has. Both come by key."""
    missing: list[Payload] = []
    different: list[Payload] = []
    compared = 0
    theirs = next(new, None)
    for key, content in old:
        compared += 1
        while theirs is not None and theirs[0] < key:
            theirs = next(new, None)
        if theirs is None or theirs[0] != key:
            missing.append(content)
        elif theirs[1] != content:
            different.append({"old": content, "new": theirs[1]})
    return missing, different, compared


def _rows(events: Payload, region: str, cluster_arn: str) -> Iterator[tuple[str, Payload]]:
    """All rows of one copy as (key, content), by key, a page at a time."""
    client = _client(events, "rds-data", region)
    statement = STATEMENTS[events["Database"]].format(page=PAGE)
    after = FIRST_KEY
    while True:
        answer = client.execute_statement(
            resourceArn=cluster_arn,
            secretArn=_recovery(events)["secrets"][region][events["Database"]],
            database=events["Database"],
            sql=statement,
            parameters=[{"name": "after", "value": {"stringValue": after}}],
            formatRecordsAs="JSON",
        )
        rows = json.loads(answer["formattedRecords"])
        for row in rows:
            yield row["key"], json.loads(row["content"])
        if len(rows) < PAGE:
            return
        after = rows[-1]["key"]


def _as_csv(rows: list[Payload]) -> str:
    """One line per row; columns are the rows' own, what is not plain (items) as JSON."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(columns)
    for row in rows:
        values = (row.get(column) for column in columns)
        writer.writerow([value if isinstance(value, str) else json.dumps(value) for value in values])
    return out.getvalue()


def _put(events: Payload, suffix: str, text: str) -> str:
    bucket = _recovery(events)["bucket"]
    key = f"missing-transactions/{events['Database']}/{events['ExecutionId']}.{suffix}"
    kind = "text/csv" if suffix == "csv" else "application/json"
    _client(events, "s3", os.environ["AWS_REGION"]).put_object(Bucket=bucket, Key=key, Body=text.encode(), ContentType=kind)
    return f"s3://{bucket}/{key}"


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
