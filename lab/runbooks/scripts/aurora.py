"""Database steps of the runbooks: who writes in an Aurora global database, and whether that became what it had to.

Runs inside aws:executeScript: standard library and boto3 only. ``Recovery`` is the JSON of the parameter /<workload>/recovery:

    workload      its name                     bucket       for reports, in this Region
    endpoints     {Region: URL}, empty on AWS: where another Region's API is reached
    secrets       {Region: {database: ARN of the secret with its user}}, for the Data API
"""

import json
import os
import time
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

Payload = dict[str, Any]
PATIENCE = Config(connect_timeout=3, read_timeout=20, retries={"mode": "standard", "total_max_attempts": 3})
ROUND_EVERY_S = 5.0
SYNCHRONISED = ("connected", None)


class WrongState(Exception):
    """The databases are not as they have to be. The message says what was seen instead, and what to do."""


def plan_failover(events: Payload, _context: object) -> Payload:
    """What moving the writer of ``GlobalCluster`` from ``FromRegion`` to ``ToRegion`` (empty: the only other one) takes."""
    cluster = _global_cluster(events)
    source = events["FromRegion"]
    members = _members(cluster)
    if source not in members:
        raise WrongState(f"{cluster['GlobalClusterIdentifier']} has no cluster in {source}; it has {', '.join(sorted(members))}.")
    others = sorted(region for region in members if region != source)
    target = events.get("ToRegion") or (others[0] if len(others) == 1 else "")
    if target not in others:
        raise WrongState(f"ToRegion must be one of {', '.join(others)}, not {target or 'empty'}.")
    writers = sorted(region for region, member in members.items() if member["IsWriter"])
    print(f"{cluster['GlobalClusterIdentifier']}: writer in {', '.join(writers) or 'no Region'}, status {cluster['Status']}")
    if writers == [target]:
        return {"Needed": False, "TargetArn": members[target]["DBClusterArn"], "ToRegion": target, "Writer": target}
    if writers != [source]:
        raise WrongState(f"The writer is in {', '.join(writers) or 'no Region'}, not in {source}. Nothing was changed.")
    return {"Needed": True, "TargetArn": members[target]["DBClusterArn"], "ToRegion": target, "Writer": source}


def verify_writer(events: Payload, _context: object) -> Payload:
    """Wait until ``ToRegion`` alone holds the writer and the global cluster says that it is available."""
    deadline = time.time() + float(events.get("WithinSeconds", 600))
    while True:
        cluster = _global_cluster(events)
        members = _members(cluster)
        writers = sorted(region for region, member in members.items() if member["IsWriter"])
        if writers == [events["ToRegion"]] and cluster["Status"] == "available":
            return {"Writer": writers[0], "Members": {region: member.get("SynchronizationStatus") for region, member in members.items()}}
        if time.time() >= deadline:
            raise WrongState(
                f"{cluster['GlobalClusterIdentifier']} is {cluster['Status']} with its writer in {', '.join(writers) or 'no Region'},"
                f" not in {events['ToRegion']}. Failover state: {json.dumps(cluster.get('FailoverState'))}."
            )
        time.sleep(ROUND_EVERY_S)


def rebuild(events: Payload, _context: object) -> Payload:
    """Wait until ``Region`` follows the writer again; where it is no member any more, make a secondary cluster there.

    After a managed failover Aurora brings the old primary back as a secondary by itself, once its Region is well.
    """
    region = events["Region"]
    deadline = time.time() + float(events.get("WithinSeconds", 1800))
    made = False
    while True:
        cluster = _global_cluster(events)
        members = _members(cluster)
        member = members.get(region)
        writers = sorted(name for name, each in members.items() if each["IsWriter"])
        if region in writers:
            raise WrongState(f"{region} holds the writer of {cluster['GlobalClusterIdentifier']}; there is nothing to rebuild there.")
        if member is None and not made:
            _create_secondary(events, cluster, region)
            made = True
        elif member is not None and member.get("SynchronizationStatus") in SYNCHRONISED and _is_available(events, member, region):
            return {"Writer": writers[0] if writers else "", "Secondary": member["DBClusterArn"], "Made": made}
        if time.time() >= deadline:
            seen = "no member" if member is None else f"{member.get('SynchronizationStatus')}"
            raise WrongState(f"The cluster of {cluster['GlobalClusterIdentifier']} in {region} does not follow the writer yet: {seen}.")
        time.sleep(ROUND_EVERY_S)


def _create_secondary(events: Payload, cluster: Payload, region: str) -> None:
    """A new secondary cluster with one instance, in the place of the old primary's cluster."""
    identifier = f"{cluster['GlobalClusterIdentifier']}-{region}"
    client = _rds(events, region)
    client.create_db_cluster(
        DBClusterIdentifier=identifier, Engine=cluster["Engine"], GlobalClusterIdentifier=cluster["GlobalClusterIdentifier"]
    )
    client.create_db_instance(
        DBInstanceIdentifier=f"{identifier}-1", DBClusterIdentifier=identifier, Engine=cluster["Engine"], DBInstanceClass="db.r6g.large"
    )
    print(f"{identifier} was made as a secondary of {cluster['GlobalClusterIdentifier']}")


def _is_available(events: Payload, member: Payload, region: str) -> bool:
    """Whether the member's own Region says that its cluster is available; not while that Region does not answer."""
    try:
        found = _rds(events, region).describe_db_clusters(DBClusterIdentifier=member["DBClusterArn"].rpartition(":")[2])
    except (ClientError, BotoCoreError) as error:
        print(f"{region}: {error}")
        return False
    return bool(found["DBClusters"][0]["Status"] == "available")


def _global_cluster(events: Payload) -> Payload:
    client = _rds(events, os.environ["AWS_REGION"])
    clusters = client.describe_global_clusters(GlobalClusterIdentifier=events["GlobalCluster"])["GlobalClusters"]
    found: Payload = clusters[0]
    return found


def _members(cluster: Payload) -> dict[str, Payload]:
    """The global cluster's members by Region."""
    return {member["DBClusterArn"].split(":")[3]: member for member in cluster["GlobalClusterMembers"]}


def _rds(events: Payload, region: str) -> Any:
    url = json.loads(events["Recovery"])["endpoints"].get(region) or None
    return boto3.client("rds", region_name=region, endpoint_url=url, config=PATIENCE)
