"""A replication group of real Redis servers behind its endpoint: what is lost, what is kept, and that there is one primary at a time."""

from __future__ import annotations

import os
import random
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

import boto3
import pytest
import redis
from botocore.config import Config
from botocore.exceptions import ClientError
from redis.backoff import NoBackoff
from redis.retry import Retry

from lab import admin, data
from lab.data.cache import FAILS_OVER_AFTER_S
from lab.process import ProcessSpec
from lab.store.checkout import application
from lab.store.vending import Publisher
from tests.lab.rig import rig, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.lab.rig import Rig

pytestmark = pytest.mark.slow
EAST = "us-east-1"
GROUP = f"retail-checkout-{EAST}"
SPEED = 20
PATIENCE_S = FAILS_OVER_AFTER_S / SPEED


class Cache:
    """One Region's cache, as its clients and its operators see it."""

    def __init__(self, lab: Rig) -> None:
        self.lab = lab
        self.here = lab.plan.regions[EAST]
        self.specs = {spec.name: spec for spec in data.cache_processes(lab.plan, self.here)}

    def client(self, port: int | None = None) -> redis.Redis:
        """A client that tries once: of the endpoint, or of one node."""
        return redis.Redis(port=port or self.here.redis_port, socket_timeout=1.0, retry=Retry(NoBackoff(), 0), decode_responses=True)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = admin.call(self.here.cache_port, "GET", "/status")
        return found

    def whole(self) -> str:
        """Wait until the group is whole; returns its primary."""
        wait_for("a whole group", lambda: self.status()["whole"], explain=lambda: str(self.status()) + self.lab.log(f"{EAST}/cache"))
        return str(self.status()["primary"])

    def other(self, node: str) -> str:
        return next(name for name in self.here.redis_node_ports if name != node)

    def kill(self, *nodes: str) -> None:
        for node in nodes:
            self.lab.stop(f"{EAST}/redis-{node}", signal.SIGKILL)

    def start(self, *nodes: str) -> None:
        self.lab.start(self.specs[f"{EAST}/redis-{node}"] for node in nodes)

    def signal(self, node: str, number: signal.Signals) -> None:
        os.kill(self.lab.running[f"{EAST}/redis-{node}"].pid, number)

    def await_primary(self, node: str) -> None:
        wait_for(f"{node} to be the primary", lambda: self.status()["primary"] == node, explain=lambda: str(self.status()))

    def messages(self) -> list[str]:
        return [
            f"{event['source'].removeprefix(GROUP)}: {event['message']}" for event in admin.call(self.here.cache_port, "GET", "/events")
        ]


@pytest.fixture
def cache() -> Iterator[Cache]:
    """A whole group, at speed 20."""
    with rig(speed=SPEED) as lab:
        made = Cache(lab)
        lab.start(made.specs.values())
        made.whole()
        yield made


def test_what_is_written_to_the_endpoint_is_on_both_nodes(cache: Cache) -> None:
    """One is the primary, the other its replica, which takes no writes."""
    primary = cache.whole()
    cache.client().set("cart", "full")
    replica = cache.client(cache.here.redis_node_ports[cache.other(primary)])
    wait_for("the replica to have it", lambda: replica.get("cart") == "full")
    with pytest.raises(redis.ReadOnlyError):
        replica.set("cart", "empty")
    assert cache.client(cache.here.redis_node_ports[primary]).get("cart") == "full"


def test_a_replica_is_promoted_and_the_old_primary_comes_back_as_its_replica(cache: Cache) -> None:
    """The carts are kept; the endpoint fails meanwhile, for about as long as it says; AWS's events tell it."""
    primary = cache.whole()
    heir = cache.other(primary)
    cache.client().set("cart", "full")
    wait_for("replication", lambda: cache.client(cache.here.redis_node_ports[heir]).get("cart") == "full")
    cache.kill(primary)
    began = time.monotonic()
    with pytest.raises(redis.ConnectionError):
        cache.client().get("cart")
    cache.await_primary(heir)
    assert time.monotonic() - began > 0.9 * PATIENCE_S
    assert cache.client().get("cart") == "full"
    cache.client().set("cart", "fuller")
    assert not cache.status()["whole"]
    cache.start(primary)
    assert cache.whole() == heir
    assert cache.client(cache.here.redis_node_ports[primary]).get("cart") == "fuller"
    done = f"Failover from primary node {GROUP}-{primary} to replica node {GROUP}-{heir} completed"
    assert cache.messages() == [
        f"-{primary}: {done}",
        f": {done}",
        f"-{primary}: Recovering cache nodes 0001",
        f"-{primary}: Finished recovery for cache nodes 0001",
    ]


def test_a_hanging_primary_is_replaced_and_what_only_it_had_is_lost(cache: Cache) -> None:
    """Its clients wait until they are broken off; when it wakes up it follows, whatever it had."""
    primary = cache.whole()
    heir = cache.other(primary)
    admin.call(cache.here.cache_port, "PUT", "/replication", {"cut": True})
    old = cache.client(cache.here.redis_node_ports[heir])
    wait_for("the link to be cut", lambda: old.info("replication")["master_link_status"] == "down")
    cache.client().set("late", "1")
    assert old.get("late") is None
    cache.signal(primary, signal.SIGSTOP)
    try:
        with pytest.raises((redis.TimeoutError, redis.ConnectionError)):
            cache.client().get("late")
        cache.await_primary(heir)
        assert cache.client().get("late") is None
        cache.client().set("new", "1")
    finally:
        cache.signal(primary, signal.SIGCONT)
    assert cache.whole() == heir
    assert cache.client(cache.here.redis_node_ports[primary]).mget("late", "new") == [None, "1"]


def test_a_primary_that_restarts_empty_does_not_empty_its_replica(cache: Cache) -> None:
    """It comes back before anybody noticed; it has no data, so it must not be what the replica copies."""
    primary = cache.whole()
    cache.client().set("cart", "full")
    cache.kill(primary)
    cache.start(primary)
    cache.await_primary(cache.other(primary))
    assert cache.whole() == cache.other(primary)
    assert cache.client().get("cart") == "full"


def test_nothing_is_promoted_while_both_are_down_and_the_group_begins_anew(cache: Cache) -> None:
    """Nothing leads anywhere; both return empty, one as the other's replica."""
    primary = cache.whole()
    cache.client().set("cart", "full")
    cache.kill(primary, cache.other(primary))
    time.sleep(1.5 * PATIENCE_S)
    assert cache.status()["primary"] == primary
    with pytest.raises(redis.ConnectionError):
        cache.client().get("cart")
    cache.start("001", "002")
    cache.whole()
    assert cache.client().get("cart") is None
    cache.client().set("cart", "new")


def test_a_hanging_replica_is_not_promoted_and_an_empty_one_neither_while_data_may_be_left(cache: Cache) -> None:
    """The primary dies while its replica hangs: the group waits for the replica, though the primary is back, empty."""
    primary = cache.whole()
    heir = cache.other(primary)
    cache.client().set("cart", "full")
    cache.signal(heir, signal.SIGSTOP)
    try:
        cache.kill(primary)
        cache.start(primary)
        time.sleep(1.5 * PATIENCE_S)
        assert cache.client(cache.here.redis_node_ports[primary]).info("replication")["role"] == "slave"
    finally:
        cache.signal(heir, signal.SIGCONT)
    assert cache.whole() == heir
    assert cache.client().get("cart") == "full"


def test_connections_to_the_old_primary_break(cache: Cache) -> None:
    """A client that only listens learns of the failover, too."""
    with socket.create_connection(("127.0.0.1", cache.here.redis_port), timeout=15) as open_one:
        open_one.sendall(b"PING\r\n")
        assert open_one.recv(16) == b"+PONG\r\n"
        cache.signal(primary := cache.whole(), signal.SIGSTOP)
        try:
            assert open_one.recv(16) == b""
        finally:
            cache.signal(primary, signal.SIGCONT)
    cache.whole()


def test_a_keeper_that_starts_again_finds_the_primary(cache: Cache) -> None:
    """It keeps nothing on disk; the nodes know."""
    primary = cache.whole()
    cache.client().set("cart", "full")
    cache.lab.stop(f"{EAST}/cache", signal.SIGKILL)
    cache.kill(cache.other(primary))
    cache.start(cache.other(primary))
    cache.lab.start([cache.specs[f"{EAST}/cache"]])
    assert cache.whole() == primary
    assert cache.client().get("cart") == "full"


def test_metrics_are_there_by_role_and_absent_from_a_node_that_is_down(cache: Cache) -> None:
    """Every node has its own; ReplicationLag is the replica's, in lab seconds."""
    primary = cache.whole()
    replica = cache.other(primary)
    publisher = Publisher(cache.lab.plan)

    def vended() -> dict[tuple[str, str], float]:
        return {
            (datum.dimensions["CacheClusterId"].removeprefix(f"{GROUP}-"), datum.metric): datum.values[0]
            for datum in publisher.cache(EAST, 60.0)
            if "CacheNodeId" not in datum.dimensions
        }

    first = vended()
    assert (first[primary, "IsMaster"], first[replica, "IsMaster"]) == (1, 0)
    assert first[replica, "ReplicationLag"] == 0
    assert (primary, "ReplicationLag") not in first
    admin.call(cache.here.cache_port, "PUT", "/replication", {"cut": True})
    time.sleep(1.0)  # for the primary's last ping to be behind
    cache.client().set("late", "1")
    wait_for("a lag", lambda: vended()[replica, "ReplicationLag"] > 5.0)
    admin.call(cache.here.cache_port, "PUT", "/replication", {"cut": False})
    wait_for("no lag", lambda: vended()[replica, "ReplicationLag"] == 0)
    cache.kill(primary)
    cache.await_primary(replica)
    last = vended()
    assert not [metric for node, metric in last if node == primary]
    assert last[replica, "IsMaster"] == 1
    assert (replica, "ReplicationLag") not in last


def test_behind_the_endpoint_is_one_primary_at_a_time(cache: Cache) -> None:
    """Whatever happens to the nodes: what answers at the endpoint is a primary, and older connections never answer for another one."""
    pool = [cache.client() for _ in range(3)]
    chance = random.Random(7)

    def answering() -> list[tuple[str, str]]:
        found = []
        for client in pool:
            try:
                said: dict[str, Any] = client.info()
            except redis.RedisError:
                continue
            found.append((said["role"], str(said["tcp_port"])))
        return found

    def strike(node: str) -> Callable[[], object]:
        if chance.random() < 0.5:
            cache.kill(node)
            return lambda: cache.start(node)
        cache.signal(node, signal.SIGSTOP)
        return lambda: cache.signal(node, signal.SIGCONT)

    for _ in range(4):
        mend = strike(chance.choice(["001", "002"]))
        deadline = time.monotonic() + chance.uniform(0.3, 2.0) * PATIENCE_S
        while time.monotonic() < deadline:
            before, found, after = cache.status()["primary"], answering(), cache.status()["primary"]
            assert {role for role, _ in found} <= {"master"}
            if before == after:
                assert {port for _, port in found} <= {str(cache.here.redis_node_ports[after])}
        mend()
        cache.whole()


def test_the_checkout_service_survives_a_failover_without_knowing_of_it(cache: Cache) -> None:
    """It fails while there is no primary; then the same process, with the connections it has, goes on with the carts."""
    primary = cache.whole()
    client = redis.Redis.from_url(f"redis://127.0.0.1:{cache.here.redis_port}/0", socket_timeout=2, socket_connect_timeout=1)
    service = application(client, "http://orders.invalid").test_client()
    item = {"id": "1", "name": "Clock", "quantity": 1, "unitCost": 5}
    assert service.post("/checkout/ann/update", json={"items": [item]}).status_code == 201
    assert service.get("/checkout/ann").status_code == 200
    cache.kill(primary)
    assert service.get("/checkout/ann").status_code == 500
    cache.await_primary(cache.other(primary))
    answer = service.get("/checkout/ann")
    assert answer.status_code == 200
    assert answer.get_json()["items"] == [item]
    assert service.post("/checkout/bob/update", json={"items": [item]}).status_code == 201


@pytest.fixture
def cloud(cache: Cache) -> Cache:
    """The cache and the local AWS over it."""
    plan = cache.lab.plan
    aws = ProcessSpec(
        name="aws",
        argv=(sys.executable, "-m", "lab.aws", "--plan", str(cache.lab.path / "plan.json")),
        directory=data.ROOT,
        environment=data.environment(plan),
        ready=lambda: bool(admin.call(plan.control_port, "GET", "/health")),
    )
    cache.lab.start([aws])
    return cache


def elasticache(cache: Cache) -> Any:
    """A client of the local ElastiCache."""
    pair = cache.lab.plan.credentials["admin"]
    return boto3.client(
        "elasticache",
        region_name=EAST,
        endpoint_url=cache.here.aws_endpoint,
        aws_access_key_id=pair.access_key,
        aws_secret_access_key=pair.secret_key,
        config=Config(retries={"total_max_attempts": 1}),
    )


def test_a_tested_failover_is_told_as_aws_tells_it(cloud: Cache) -> None:
    """TestFailover through boto3: roles move, the carts stay, the group is available again, and the five events come in AWS's order."""
    client, primary = elasticache(cloud), cloud.whole()
    heir = cloud.other(primary)
    cloud.client().set("cart", "full")

    def group() -> dict[str, Any]:
        (found,) = client.describe_replication_groups(ReplicationGroupId=GROUP)["ReplicationGroups"]
        return dict(found)

    def roles() -> dict[str, str]:
        (nodes,) = group()["NodeGroups"]
        assert nodes["PrimaryEndpoint"] == {"Address": "127.0.0.1", "Port": cloud.here.redis_port}
        return {member["CacheClusterId"].rpartition("-")[2]: member["CurrentRole"] for member in nodes["NodeGroupMembers"]}

    assert (group()["Status"], group()["AutomaticFailover"], group()["MultiAZ"]) == ("available", "enabled", "enabled")
    assert roles() == {primary: "primary", heir: "replica"}
    assert client.test_failover(ReplicationGroupId=GROUP, NodeGroupId="0001")["ReplicationGroup"]["Status"] == "modifying"
    with pytest.raises(ClientError, match="InvalidReplicationGroupState"):
        client.test_failover(ReplicationGroupId=GROUP, NodeGroupId="0001")
    with pytest.raises(redis.ConnectionError):
        cloud.client().get("cart")
    wait_for("the group to be available", lambda: group()["Status"] == "available")
    assert roles() == {primary: "replica", heir: "primary"}
    assert cloud.client().get("cart") == "full"
    done = f"Failover from primary node {GROUP}-{primary} to replica node {GROUP}-{heir} completed"
    assert [(event["SourceType"], event["Message"]) for event in client.describe_events()["Events"]] == [
        ("replication-group", "Test Failover API called for node group 0001"),
        ("cache-cluster", done),
        ("replication-group", done),
        ("cache-cluster", "Recovering cache nodes 0001"),
        ("cache-cluster", "Finished recovery for cache nodes 0001"),
    ]
    only = client.describe_events(SourceType="replication-group", SourceIdentifier=GROUP, StartTime=cloud.lab.plan.clock.now() - 600)
    assert len(only["Events"]) == 2


def test_what_aws_refuses_is_refused(cloud: Cache) -> None:
    """Unknown names, and a failover of a group that is not whole."""
    client, primary = elasticache(cloud), cloud.whole()
    refusals: list[tuple[str, Callable[[], object]]] = [
        ("ReplicationGroupNotFoundFault", lambda: client.describe_replication_groups(ReplicationGroupId="other")),
        ("ReplicationGroupNotFoundFault", lambda: client.test_failover(ReplicationGroupId="other", NodeGroupId="0001")),
        ("NodeGroupNotFoundFault", lambda: client.test_failover(ReplicationGroupId=GROUP, NodeGroupId="0002")),
        ("CacheClusterNotFound", lambda: client.describe_cache_clusters(CacheClusterId="other")),
        ("InvalidParameterValue", lambda: client.describe_events(MaxRecords=5)),
        ("InvalidParameterCombination", lambda: client.describe_events(StartTime=1e9 + 1, EndTime=1e9)),
        ("InvalidARN", lambda: client.list_tags_for_resource(ResourceName=f"arn:aws:elasticache:{EAST}:123456789012:cluster:other")),
    ]
    for code, call in refusals:
        with pytest.raises(ClientError, match=code):
            call()
    cloud.kill(cloud.other(primary))
    wait_for("the group to change", lambda: not cloud.status()["whole"])
    with pytest.raises(ClientError, match="InvalidReplicationGroupState"):
        client.test_failover(ReplicationGroupId=GROUP, NodeGroupId="0001")
    shown = {
        one["CacheClusterId"]: one["CacheClusterStatus"] for one in client.describe_cache_clusters(ShowCacheNodeInfo=True)["CacheClusters"]
    }
    assert shown == {f"{GROUP}-{primary}": "available", f"{GROUP}-{cloud.other(primary)}": "modifying"}
