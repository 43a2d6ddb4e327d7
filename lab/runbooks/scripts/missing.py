"""The missing-transaction report: which rows the old primary had taken that the new primary does not have.

After an unplanned failover of a global database Aurora tries to keep a snapshot of the old primary
(``rds:unplanned-global-failover-<cluster>-<time>``). It is restored into a cluster of its own, both copies are read side by side in
the order of their keys, and what the new primary lacks is reported with its full content, taken from the copy that has it. An ordinary
earlier snapshot cannot hold the lost rows; where Aurora could not take its snapshot, the report says so instead of "nothing is missing".

Which snapshot is the right one is snapshot.py's business.

Orders that canaries placed are left out on both sides: their ledger deletes them, and accounts for them itself.

Runs inside aws:executeScript: standard library and boto3 only; SQL goes through the RDS Data API. ``Recovery``: see aurora.py.
"""

import csv
import io
import json
import os
import time
from collections.abc import Iterator
from typing import Any

import boto3
from botocore.config import Config

Payload = dict[str, Any]
PATIENCE = Config(connect_timeout=3, read_timeout=60, retries={"mode": "standard", "total_max_attempts": 4})
ROUND_EVERY_S = 5.0
PAGE = 300
FIRST_KEY = "00000000-0000-0000-0000-000000000000"
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
