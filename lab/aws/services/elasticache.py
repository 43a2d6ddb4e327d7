"""ElastiCache, as far as a replication group's roles need it: describe, test a failover, and the events that tell of one.

The nodes are real, and who of them is the primary is their keeper's business (`lab.data.cache`); this is the control plane over it. A
failover goes on in the background, as on AWS: callers watch ``Status``, ``CurrentRole`` and DescribeEvents. AWS does not put events of
node-based clusters on EventBridge, and the lab's group has no SNS topic, so there are no other messages. Which cluster the cluster's own
message of a failover is attributed to (here: the old primary's) is unverified.

https://docs.aws.amazon.com/AmazonElastiCache/latest/APIReference/API_TestFailover.html
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from typing import TYPE_CHECKING, Any

from lab import admin
from lab.aws.service import AwsError
from lab.aws.support import page, stamp
from lab.aws.times import asked_period
from lab.data.cache import CACHE_NODE, EVENTS_KEPT, NODE_GROUP
from lab.store import names

if TYPE_CHECKING:
    from lab.aws.service import Context, World
    from lab.plan import LabPlan

ENGINE, VERSION, NODE_TYPE = "redis", "6.2.6", "cache.t4g.micro"
ZONES = "abcdef"
DAY_S = 86_400.0
KEPT_DAYS = 14
TESTS_A_DAY = 15
READ_EVENTS_EVERY_LAB_S = 10.0
AVAILABLE, MODIFYING = "available", "modifying"


class Service:
    """ElastiCache in all Regions of the lab: one replication group each."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._plan: LabPlan = world.plan  # type: ignore[attr-defined]  # the gateway's world has the plan
        self._created = world.clock.now()
        self._events: dict[str, deque[dict[str, Any]]] = defaultdict(lambda: deque(maxlen=EVENTS_KEPT))
        self._tests: dict[str, deque[float]] = defaultdict(deque)
        self._lock = threading.Lock()
        for region in world.regions:
            world.every(READ_EVENTS_EVERY_LAB_S, lambda _now, region=region: self._read_events(region), region, f"cache events {region}")  # type: ignore[misc]

    # --- groups and nodes ---

    def describe_replication_groups(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """The Region's replication group."""
        wanted = params.get("ReplicationGroupId")
        if wanted:
            self._own_group(ctx, wanted)
        return _paged("ReplicationGroups", [self._group(ctx)], params)

    def describe_cache_clusters(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """The nodes of the Region's replication group: on AWS each is a cluster of one node."""
        status = self._status(ctx.region)
        nodes = [] if params.get("ShowCacheClustersNotInReplicationGroups") else list(self._nodes(ctx.region, status))
        found = [self._cluster(ctx, zone, node, bool(params.get("ShowCacheNodeInfo"))) for zone, node in zip(ZONES, nodes, strict=False)]
        if wanted := params.get("CacheClusterId"):
            found = [cluster for cluster in found if cluster["CacheClusterId"] == wanted.lower()]
            if not found:
                raise AwsError("CacheClusterNotFound", f"CacheCluster {wanted} not found.", 404)
        return _paged("CacheClusters", found, params)

    def list_tags_for_resource(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """The lab's caches have no tags."""
        known = {self._arn(ctx, "replicationgroup", names.cache(ctx.region))}
        known |= {self._arn(ctx, "cluster", node["id"]) for node in self._nodes(ctx.region, None)}
        if params["ResourceName"] not in known:
            raise AwsError("InvalidARN", f"The resource {params['ResourceName']} does not exist in {ctx.region}.")
        return {"TagList": []}

    # --- failover ---

    def test_failover(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Take the primary away and have its replica promoted; answers at once."""
        self._own_group(ctx, params["ReplicationGroupId"])
        if params["NodeGroupId"] != NODE_GROUP:
            raise AwsError("NodeGroupNotFoundFault", f"Node group {params['NodeGroupId']} not found.", 404)
        with self._lock:
            tests = self._tests[ctx.region]
            while tests and tests[0] <= ctx.now - DAY_S:
                tests.popleft()
            if len(tests) >= TESTS_A_DAY:
                raise AwsError("APICallRateForCustomerExceeded", f"TestFailover can be called {TESTS_A_DAY} times in 24 hours.")
            group = f"Replication group {names.cache(ctx.region)}"
            try:
                admin.call(self._plan.regions[ctx.region].cache_port, "POST", "/failover")
            except admin.Refusal as refusal:
                raise AwsError("InvalidReplicationGroupState", f"{group} is not in available state.") from refusal
            except OSError as error:
                raise AwsError("TestFailoverNotAvailableFault", f"{group} cannot be failed over now.") from error
            tests.append(ctx.now)
        return {"ReplicationGroup": self._group(ctx)}

    # --- events ---

    def describe_events(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """The events of this Region's cache, oldest first, of the last hour unless told otherwise (Duration: minutes; 14 days are kept)."""
        self._read_events(ctx.region)
        since, until = asked_period(self._world.clock, params, ctx.now)
        if since > until:
            raise AwsError("InvalidParameterCombination", "StartTime must be before EndTime.")
        since = max(since, ctx.now - KEPT_DAYS * DAY_S)
        source, kind = params.get("SourceIdentifier"), params.get("SourceType")
        found = [
            {"SourceIdentifier": each["source"], "SourceType": each["type"], "Message": each["message"], "Date": stamp(each["at"])}
            for each in list(self._events[ctx.region])
            if since <= each["at"] <= until and source in {None, each["source"]} and kind in {None, each["type"]}
        ]
        return _paged("Events", found, params)

    def _read_events(self, region: str) -> None:
        """Take over what the keeper has said: its events end with it, these do not."""
        try:
            said: list[dict[str, Any]] = admin.call(self._plan.regions[region].cache_port, "GET", "/events", timeout_s=1.0)
        except (OSError, admin.Refusal):
            return
        with self._lock:
            last = self._events[region][-1]["at"] if self._events[region] else 0.0
            known = [each for each in self._events[region] if each["at"] == last]
            self._events[region].extend(each for each in said if each["at"] >= last and each not in known)

    # --- shapes ---

    def _group(self, ctx: Context) -> dict[str, Any]:
        status = self._status(ctx.region)
        state = AVAILABLE if status and status["whole"] else MODIFYING
        members = [
            {
                "CacheClusterId": node["id"],
                "CacheNodeId": CACHE_NODE,
                "ReadEndpoint": {"Address": "127.0.0.1", "Port": node["port"]},
                "PreferredAvailabilityZone": f"{ctx.region}{zone}",
                "CurrentRole": node["role"],
            }
            for zone, node in zip(ZONES, self._nodes(ctx.region, status), strict=False)
        ]
        return {
            "ReplicationGroupId": names.cache(ctx.region),
            "Description": "carts on their way through the checkout",
            "Status": state,
            "PendingModifiedValues": {},
            "MemberClusters": [member["CacheClusterId"] for member in members],
            "NodeGroups": [
                {
                    "NodeGroupId": NODE_GROUP,
                    "Status": state,
                    "PrimaryEndpoint": {"Address": "127.0.0.1", "Port": self._plan.regions[ctx.region].redis_port},
                    "NodeGroupMembers": members,
                }
            ],
            "AutomaticFailover": "enabled",
            "MultiAZ": "enabled",
            "SnapshotRetentionLimit": 0,
            "ClusterEnabled": False,
            "ClusterMode": "disabled",
            "CacheNodeType": NODE_TYPE,
            "AuthTokenEnabled": False,
            "TransitEncryptionEnabled": False,
            "AtRestEncryptionEnabled": False,
            "ReplicationGroupCreateTime": stamp(self._created),
            "Engine": ENGINE,
            "ARN": self._arn(ctx, "replicationgroup", names.cache(ctx.region)),
        }

    def _cluster(self, ctx: Context, zone: str, node: dict[str, Any], with_nodes: bool) -> dict[str, Any]:
        state = AVAILABLE if node["well"] else MODIFYING
        cluster = {
            "CacheClusterId": node["id"],
            "CacheNodeType": NODE_TYPE,
            "Engine": ENGINE,
            "EngineVersion": VERSION,
            "CacheClusterStatus": state,
            "NumCacheNodes": 1,
            "PreferredAvailabilityZone": f"{ctx.region}{zone}",
            "CacheClusterCreateTime": stamp(self._created),
            "PendingModifiedValues": {},
            "ReplicationGroupId": names.cache(ctx.region),
            "SnapshotRetentionLimit": 0,
            "AuthTokenEnabled": False,
            "TransitEncryptionEnabled": False,
            "AtRestEncryptionEnabled": False,
            "ARN": self._arn(ctx, "cluster", node["id"]),
        }
        if with_nodes:
            cluster["CacheNodes"] = [
                {
                    "CacheNodeId": CACHE_NODE,
                    "CacheNodeStatus": state,
                    "CacheNodeCreateTime": stamp(self._created),
                    "Endpoint": {"Address": "127.0.0.1", "Port": node["port"]},
                    "ParameterGroupStatus": "in-sync",
                    "CustomerAvailabilityZone": f"{ctx.region}{zone}",
                }
            ]
        return cluster

    # --- finding ---

    def _status(self, region: str) -> dict[str, Any] | None:
        try:
            answer: dict[str, Any] = admin.call(self._plan.regions[region].cache_port, "GET", "/status", timeout_s=1.0)
        except (OSError, admin.Refusal):
            return None
        return answer

    def _nodes(self, region: str, status: dict[str, Any] | None) -> list[dict[str, Any]]:
        """The nodes as their keeper sees them; where it does not answer, as far as the plan knows them."""
        if status:
            return list(status["nodes"].values())
        ports = self._plan.regions[region].redis_node_ports
        return [{"id": names.cache_node(region, node), "port": port, "role": None, "well": False} for node, port in ports.items()]

    def _own_group(self, ctx: Context, name: str) -> None:
        if name.lower() != names.cache(ctx.region):
            raise AwsError("ReplicationGroupNotFoundFault", f"ReplicationGroup {name} not found.", 404)

    def _arn(self, ctx: Context, kind: str, name: str) -> str:
        return f"arn:aws:elasticache:{ctx.region}:{ctx.account}:{kind}:{name}"


def _paged(what: str, found: list[dict[str, Any]], params: dict[str, Any]) -> dict[str, Any]:
    """One page of a list: MaxRecords of 20 to 100, 100 by default."""
    size = int(params.get("MaxRecords") or 100)
    if not 20 <= size <= 100:
        raise AwsError("InvalidParameterValue", "The value of MaxRecords must be between 20 and 100.")
    items, marker = page(found, params.get("Marker"), size)
    return {what: items, "Marker": marker}
