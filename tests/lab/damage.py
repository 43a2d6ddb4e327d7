"""How the damage of each fault shows from outside, through the system's own protocol; and what "whole" means.

`SIGNS` maps a fault's name to a function that says whether its damage is to be seen now. It must be False before and after the fault.
`WATCHED` holds those of the monitoring itself, which need a lab where it is deployed.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import TYPE_CHECKING, Any

import dns.exception
import dns.message
import dns.query
import psycopg
import redis
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from lab import admin
from lab.data import broker
from lab.drill.record import answer, authority
from lab.plan import SERVICES, STORE_NAME
from lab.sight import Sight
from lab.store import names
from lab.topology import lab_topology

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.plan import LabPlan, RegionPlan
    from tests.lab.conftest import Lab

PATIENCE_S = 3.0
SERVICE_PATHS = {
    "ui": "/home",
    "catalog": "/catalogue/size",
    "carts": "/carts/nobody",
    "checkout": "/checkout/nobody",
    "orders": "/orders?email=nobody@example.com",
}
PAGES = ("/home", "/catalog", "/cart", "/orders?email=nobody@example.com")


@dataclass
class Eyes:
    """Looks at one lab from outside. ``memory`` is for signs that compare with how it was before."""

    lab: Lab
    memory: dict[str, Any] = field(default_factory=dict)

    @property
    def plan(self) -> LabPlan:
        return self.lab.plan

    def region(self, name: str) -> RegionPlan:
        return self.plan.regions[name]

    def get(self, region: str, path: str) -> tuple[int | str, bytes]:
        """A page of the store through the Region's load balancer, by the store's name; an error's name instead of a status."""
        here = self.region(region)
        context = ssl.create_default_context(cafile=str(self.plan.ca_file))
        connection = HTTPSConnection(STORE_NAME, self.plan.alb_port, context=context, timeout=PATIENCE_S)
        try:
            raw = socket.create_connection((here.ip, self.plan.alb_port), timeout=PATIENCE_S)
            connection.sock = context.wrap_socket(raw, server_hostname=STORE_NAME)
            connection.request("GET", path, headers={"Host": STORE_NAME, "X-Crosswatch-Synthetic": "true"})
            response: HTTPResponse = connection.getresponse()
            return response.status, response.read()
        except (OSError, HTTPException) as error:
            return type(error).__name__, b""
        finally:
            connection.close()

    def ask_service(self, region: str, service: str) -> tuple[int | str, float]:
        """Status (or an error's name) and seconds of one request to a task of the service."""
        tasks = [task for task in self.ecs(region)[service]["tasks"] if task["state"] == "RUNNING"]
        if not tasks:
            return "no task", 0.0
        connection = HTTPConnection("127.0.0.1", tasks[-1]["port"], timeout=PATIENCE_S)
        began = time.monotonic()
        try:
            connection.request("GET", SERVICE_PATHS[service])
            return connection.getresponse().status, time.monotonic() - began
        except (OSError, HTTPException) as error:
            return type(error).__name__, time.monotonic() - began
        finally:
            connection.close()

    def ecs(self, region: str) -> dict[str, Any]:
        found: dict[str, Any] = admin.call(self.region(region).ecs_port, "GET", "/status")
        return found

    def alb(self, region: str) -> dict[str, Any]:
        found: dict[str, Any] = admin.call(self.region(region).alb_admin_port, "GET", "/status")
        return found

    def aurora(self, database: str) -> dict[str, dict[str, Any]]:
        """The database's state in every Region."""
        return {name: admin.call(region.aurora_port, "GET", "/status")[database] for name, region in self.plan.regions.items()}

    def lags(self, database: str, kind: str) -> list[float]:
        """The standbys' lags in lab milliseconds."""
        return [each["lag"][kind] if each["lag"] else float("inf") for each in self.aurora(database).values() if each["role"] == "reader"]

    def redis(self, region: str) -> Redis:
        return self.redis_at(self.region(region).redis_port)

    def redis_at(self, port: int) -> Redis:
        """A client that tries once."""
        return Redis(host="127.0.0.1", port=port, socket_timeout=1.0, retry=Retry(NoBackoff(), 0))

    def set_redis(self, region: str) -> str:
        """ "" where a write to the cache's primary endpoint works, else the error's name."""
        try:
            self.redis(region).set("crosswatch:probe", "1")
        except redis.RedisError as error:
            return type(error).__name__
        return ""

    def cache(self, region: str) -> dict[str, Any]:
        """The cache's replication group, as its keeper sees it."""
        found: dict[str, Any] = admin.call(self.region(region).cache_port, "GET", "/status")
        return found

    def broker(self, region: str) -> dict[str, Any]:
        """The broker's node."""
        return broker.node(self.region(region).amqp_admin_port)

    def aws(self, region: str, service: str, operation: str, read_timeout: float = PATIENCE_S, **params: Any) -> tuple[str, float]:
        """ "" where the call works, else the error's code or name; and its seconds."""
        import boto3

        pair = self.plan.credentials["admin"]
        client = boto3.client(
            service,
            region_name=region,
            endpoint_url=self.region(region).aws_endpoint,
            aws_access_key_id=pair.access_key,
            aws_secret_access_key=pair.secret_key,
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=1, read_timeout=read_timeout),
        )
        began = time.monotonic()
        try:
            getattr(client, operation)(**params)
        except ClientError as error:
            return str(error.response["Error"]["Code"]), time.monotonic() - began
        except BotoCoreError as error:
            return type(error).__name__, time.monotonic() - began
        return "", time.monotonic() - began

    def routing(self) -> dict[str, str]:
        return Sight(self.plan, lab_topology(self.plan))._routing()

    def resolve(self, region: str) -> tuple[str, int, float]:
        """The resolver's RCODE (or an error's name), the answer's TTL, and seconds."""
        began = time.monotonic()
        try:
            reply = dns.query.udp(dns.message.make_query(STORE_NAME, "A"), "127.0.0.1", PATIENCE_S, self.region(region).resolver_port)
        except (OSError, dns.exception.DNSException) as error:
            return type(error).__name__, 0, time.monotonic() - began
        ttl = reply.answer[0].ttl if reply.answer else 0
        return dns.rcode.to_text(reply.rcode()), ttl, time.monotonic() - began

    def carry_cart(self, source: str, target: str, within_s: float) -> bool:
        """Whether an item put into one Region's carts table arrives in the other's in time."""
        key = {"customerId": {"S": f"damage-{uuid.uuid4()}"}, "itemId": {"S": "1"}}
        self.lab.client("dynamodb", source).put_item(TableName=names.CARTS_TABLE, Item=key)
        other = self.lab.client("dynamodb", target)
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if "Item" in other.get_item(TableName=names.CARTS_TABLE, Key=key):
                return True
            time.sleep(0.1)
        return False

    def troubles(self) -> list[str]:
        """Everything that is not whole about the store."""
        found = []
        for name in self.plan.regions:
            found += [f"{name}{path}: {status}" for path in PAGES if (status := self.get(name, path)[0]) != 200]
            found += [
                f"{name}/{service}: {status}" for service in SERVICES if (status := self.ask_service(name, service)[0]) not in {200, 404}
            ]
            found += [
                f"{name}/{service}: {s['running']}/{s['desired']}"
                for service, s in self.ecs(name).items()
                if s["running"] != s["desired"] or s["deploying"]
            ]
            if error := self.set_redis(name):
                found.append(f"{name} redis: {error}")
            if not (cache := self.cache(name))["whole"]:
                found.append(f"{name} cache: {cache}")
            node = self.broker(name)
            found += [f"{name} broker: {alarm}" for alarm in ("mem_alarm", "disk_free_alarm") if node[alarm]]
            if answer(self.plan, name) != [name]:
                found.append(f"{name} resolves to {answer(self.plan, name)}")
        for database in ("catalog", "orders"):
            state = self.aurora(database)
            found += [f"{name}/{database}: {each['role']} does not answer" for name, each in state.items() if not each["answering"]]
            if sorted(each["role"] for each in state.values()) != ["reader", "writer"]:
                found.append(f"{database}: {[each['role'] for each in state.values()]}")
            found += [
                f"{database} lag {lag} ms" for kind in ("replication_ms", "rpo_ms") for lag in self.lags(database, kind) if lag > 20_000
            ]
        found += [f"{each['name']} is {each['state']}" for each in self.lab.ask("details")["processes"] if each["state"] != "ready"]
        found += [str(each) for each in admin.call(self.plan.control_port, "GET", "/conditions")]
        found += [f"routing of {name} is {state}" for name, state in self.routing().items() if state != "on"]
        return found


Sign = "Callable[[Eyes, str], bool]"


def region_down(eyes: Eyes, region: str) -> bool:
    states = {each["state"] for each in eyes.lab.ask("details")["processes"] if each["region"] == region}
    return states == {"stopped"} and eyes.aws(region, "sts", "get_caller_identity")[0] == "EndpointConnectionError"


def service_down(service: str, eyes: Eyes, region: str) -> bool:
    page = {"ui": "/home", "catalog": "/catalog", "carts": "/cart", "orders": "/orders?email=nobody@example.com"}.get(service)
    return eyes.ecs(region)[service]["running"] == 0 and (page is None or eyes.get(region, page)[0] != 200)


def service_slow(service: str, eyes: Eyes, region: str) -> bool:
    status, took = eyes.ask_service(region, service)
    return status in {200, 404} and took > 1.4


def service_erroring(service: str, eyes: Eyes, region: str) -> bool:
    return eyes.ask_service(region, service)[0] == 500


def wrong_body(eyes: Eyes, region: str) -> bool:
    status, body = eyes.get(region, "/home")
    return status == 200 and b"Retail Store" not in body


def no_assets(eyes: Eyes, region: str) -> bool:
    return eyes.get(region, "/home")[0] == 200 and eyes.get(region, "/assets/store.css")[0] == 404


def stuck_deploy(eyes: Eyes, region: str) -> bool:
    catalog = eyes.ecs(region)["catalog"]
    return catalog["deploying"] and catalog["failed_starts"] > 0 and eyes.get(region, "/catalog")[0] == 200


def replaced(eyes: Eyes, region: str) -> bool:
    tasks = {task["id"] for task in eyes.ecs(region)["checkout"]["tasks"]}
    before = eyes.memory.setdefault("checkout tasks", tasks)
    eyes.memory["checkout tasks"] = tasks
    return not tasks & before


def leaking(eyes: Eyes, region: str) -> bool:
    return any(admin.call(task["port"], "GET", "/chaos")["leaked_mb"] > 1 for task in eyes.ecs(region)["carts"]["tasks"])


def fails_open(eyes: Eyes, region: str) -> bool:
    targets = eyes.alb(region)["targets"]
    return all(target["state"] == "unhealthy" for target in targets) and eyes.get(region, "/home")[0] == 200


def days_left(eyes: Eyes, region: str) -> float:
    end = datetime.fromisoformat(eyes.alb(region)["certificate_expires"])
    return (end - datetime.now(UTC)).total_seconds() / 86_400


def stuck_name(eyes: Eyes, region: str) -> bool:
    """Whether a drain changes nothing at the name servers; undoes the drain."""
    eyes.lab.ask("inject", name="drained", region=region)
    try:
        deadline = time.monotonic() + 6
        while authority(eyes.plan, region) == [region]:
            if time.monotonic() > deadline:
                return True
            time.sleep(0.2)
        return False
    finally:
        eyes.lab.ask("heal", name="drained")


def cluster_refuses(count: int, eyes: Eyes, _region: str) -> bool:
    """Whether so many of the cluster's endpoints do not say the state of a routing control."""
    routing = lab_topology(eyes.plan).routing
    assert routing is not None
    arn = next(iter(routing.controls.values()))
    refused = 0
    for region, url in routing.cluster_endpoints.items():
        client = eyes.lab.client("route53-recovery-cluster", region, endpoint_url=url)
        try:
            client.get_routing_control_state(RoutingControlArn=arn)
        except (ClientError, BotoCoreError):
            refused += 1
    return refused == count


def writer_down(database: str, eyes: Eyes, _region: str) -> bool:
    return not any(each["role"] == "writer" and each["answering"] for each in eyes.aurora(database).values())


def lagging(database: str, kind: str, eyes: Eyes, _region: str) -> bool:
    return any(lag > 25_000 for lag in eyes.lags(database, kind))


def rds_says(eyes: Eyes) -> tuple[str, int, int]:
    """The status of the orders' global cluster, how many members it has, and how many of them are the writer."""
    (found,) = eyes.lab.client("rds", next(iter(eyes.plan.regions))).describe_global_clusters(GlobalClusterIdentifier="retail-orders")[
        "GlobalClusters"
    ]
    members = found["GlobalClusterMembers"]
    return found["Status"], len(members), sum(member["IsWriter"] for member in members)


def two_writers(eyes: Eyes, _region: str) -> bool:
    roles = [each["role"] for each in eyes.aurora("orders").values()]
    return roles == ["writer", "writer"] and rds_says(eyes) == ("available", 1, 1)


def read_only_endpoint(eyes: Eyes, region: str) -> bool:
    with contextlib.suppress(psycopg.Error):
        port = eyes.region(region).writer_ports["orders"]
        with psycopg.connect(f"host=127.0.0.1 port={port} user=postgres dbname=orders connect_timeout=3") as connection:
            row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
            return row == (True,)
    return False


def slow_peering(eyes: Eyes, _region: str) -> bool:
    far = next(name for name, each in eyes.aurora("orders").items() if each["role"] == "reader")
    began = time.monotonic()
    with psycopg.connect(f"host=127.0.0.1 port={eyes.region(far).writer_ports['orders']} user=postgres dbname=orders"):
        return time.monotonic() - began > 0.5


def evicting(eyes: Eyes, region: str) -> bool:
    info: dict[str, Any] = eyes.redis(region).info("stats")
    return int(info["evicted_keys"]) > 0 and eyes.redis(region).config_get("maxmemory-policy") == {"maxmemory-policy": "allkeys-lru"}


def promoted(eyes: Eyes, region: str) -> bool:
    """Whether one of the cache's nodes is gone and the other takes writes."""
    group = eyes.cache(region)
    gone = [node for node, about in group["nodes"].items() if about["state"] == "gone"]
    return len(gone) == 1 and group["primary"] not in gone and eyes.set_redis(region) == ""


def both_gone(eyes: Eyes, region: str) -> bool:
    """Whether neither node of the cache is there, and nothing was promoted."""
    ports = eyes.region(region).redis_node_ports.values()
    nodes = [eyes.redis_at(port) for port in ports]
    return eyes.set_redis(region) == "ConnectionError" and not any(_answers(node) for node in nodes)


def _answers(node: Redis) -> bool:
    try:
        return bool(node.ping())
    except redis.RedisError:
        return False


def not_replicated(eyes: Eyes, region: str) -> bool:
    """Whether a write to the cache's primary stays away from its replica."""
    group, mark = eyes.cache(region), str(uuid.uuid4())
    eyes.redis(region).set("crosswatch:mark", mark)
    time.sleep(1.0)
    replicas = [eyes.redis_at(node["port"]) for node in group["nodes"].values() if node["role"] == "replica"]
    return all(replica.get("crosswatch:mark") != mark.encode() for replica in replicas)


def failing_over(eyes: Eyes, region: str) -> bool:
    """Whether ElastiCache says that the replication group changes."""
    (group,) = eyes.lab.client("elasticache", region).describe_replication_groups()["ReplicationGroups"]
    return bool(group["Status"] == "modifying" and eyes.set_redis(region) == "ConnectionError")


def broker_down(eyes: Eyes, region: str) -> bool:
    try:
        socket.create_connection(("127.0.0.1", eyes.region(region).amqp_port), timeout=1).close()
    except OSError:
        return True
    return False


def queue_after_an_order(eyes: Eyes, region: str) -> dict[str, Any]:
    """The queue of order events, as the broker's management says, an order after the last look."""
    (task, *_) = eyes.ecs(region)["orders"]["tasks"]
    item = {"productId": str(uuid.uuid4()), "name": "Damage", "quantity": 1, "unitCost": 1}
    order = {"firstName": "D", "lastName": "E", "email": "damage@example.com", "items": [item]}
    admin.call(task["port"], "POST", "/orders", order)
    return next((queue for queue in broker.queues(eyes.region(region).amqp_admin_port) if queue["name"] == names.QUEUE), {})


def unacknowledged(eyes: Eyes, region: str) -> bool:
    """Whether order events stay unacknowledged."""
    return bool(queue_after_an_order(eyes, region).get("messages_unacknowledged", 0) > 1)


def unconsumed(eyes: Eyes, region: str) -> bool:
    """Whether order events wait and nobody takes them."""
    queue = queue_after_an_order(eyes, region)
    return bool(queue.get("messages_ready", 0) > 1 and queue.get("consumers") == 0)


def carts_late(within_s: float, eyes: Eyes, region: str) -> bool:
    other = next(name for name in eyes.plan.regions if name != region)
    return not eyes.carry_cart(region, other, within_s)


def aws_error(service: str, operation: str, codes: set[str], eyes: Eyes, region: str, **params: Any) -> bool:
    return any(eyes.aws(region, service, operation, **params)[0] in codes for _ in range(8))


def aws_slow(service: str, operation: str, seconds: float, eyes: Eyes, region: str) -> bool:
    error, took = eyes.aws(region, service, operation, read_timeout=10)
    return not error and took >= seconds


PUT = {"Namespace": "Damage", "MetricData": [{"MetricName": "m", "Value": 1}]}
RESET = {"ConnectionClosedError", "ConnectionError", "EndpointConnectionError"}
SIGNS: dict[str, Callable[[Eyes, str], bool]] = {
    "region-down": region_down,
    "region-cut-off": partial(lagging, "orders", "rpo_ms"),
    **{f"{service}-down": partial(service_down, service) for service in SERVICES},
    **{f"{service}-slow": partial(service_slow, service) for service in SERVICES},
    **{f"{service}-erroring": partial(service_erroring, service) for service in SERVICES},
    "ui-wrong-body": wrong_body,
    "ui-without-assets": no_assets,
    "orders-bad-deploy": partial(service_erroring, "orders"),
    "catalog-stuck-deploy": stuck_deploy,
    "checkout-unhealthy": replaced,
    "carts-memory-leak": leaking,
    "catalog-hanging": lambda eyes, region: eyes.ask_service(region, "catalog")[0] == "TimeoutError",
    "alb-down": lambda eyes, region: eyes.get(region, "/home")[0] == "ConnectionRefusedError",
    "alb-hanging": lambda eyes, region: eyes.get(region, "/home")[0] == "TimeoutError",
    "alb-without-targets": lambda eyes, region: eyes.get(region, "/home")[0] == 503,
    "alb-health-check-wrong": fails_open,
    "alb-wrong-port": lambda eyes, region: eyes.get(region, "/home")[0] == 502,
    "certificate-expiring": lambda eyes, region: 0 < days_left(eyes, region) < 4 and eyes.get(region, "/home")[0] == 200,
    "certificate-expired": lambda eyes, region: eyes.get(region, "/home")[0] == "SSLCertVerificationError",
    "drained": lambda eyes, region: region not in (authority(eyes.plan, region) or [region]),
    "all-controls-off": lambda eyes, _: set(eyes.routing().values()) == {"off"},
    "arc-endpoint-down": partial(cluster_refuses, 1),
    "arc-down": lambda eyes, region: cluster_refuses(5, eyes, region) and set(eyes.routing().values()) == {"unknown"},
    "dns-down": lambda eyes, region: authority(eyes.plan, next(iter(eyes.plan.regions))) is None,
    "dns-stuck": lambda eyes, _: stuck_name(eyes, next(iter(eyes.plan.regions))),
    "resolver-down": lambda eyes, region: eyes.resolve(region)[0] == "Timeout",
    "resolver-servfail": lambda eyes, region: eyes.resolve(region)[0] == "SERVFAIL",
    "resolver-slow": lambda eyes, region: eyes.resolve(region)[2] > 1.9,
    "ttl-ignored": lambda eyes, region: eyes.resolve(region)[:2] == ("NOERROR", 0),
    **{f"{database}-writer-down": partial(writer_down, database) for database in ("catalog", "orders")},
    **{f"{database}-replication-paused": partial(lagging, database, "replication_ms") for database in ("catalog", "orders")},
    **{f"{database}-replication-cut": partial(lagging, database, "rpo_ms") for database in ("catalog", "orders")},
    **{f"{database}-lag": partial(lagging, database, "replication_ms") for database in ("catalog", "orders")},
    "orders-two-writers": two_writers,
    "orders-failover-stuck": lambda eyes, _: (
        read_only_endpoint(eyes, next(iter(eyes.plan.regions))) and rds_says(eyes) == ("failing-over", 2, 0)
    ),
    "orders-endpoint-stale": read_only_endpoint,
    "peering-refused": partial(lagging, "orders", "rpo_ms"),
    "peering-slow": slow_peering,
    "redis-down": both_gone,
    "redis-primary-down": promoted,
    "redis-failover": failing_over,
    "redis-replication-cut": not_replicated,
    "redis-hanging": lambda eyes, region: eyes.set_redis(region) == "TimeoutError",
    "redis-full": lambda eyes, region: eyes.set_redis(region) == "OutOfMemoryError",
    "redis-evicting": evicting,
    "broker-down": broker_down,
    "broker-blocked": lambda eyes, region: bool(eyes.broker(region)["mem_alarm"]),
    "broker-disk-full": lambda eyes, region: bool(eyes.broker(region)["disk_free_alarm"]),
    "orders-consumer-stuck": unacknowledged,
    "orders-consumer-gone": unconsumed,
    "carts-replication-cut": partial(carts_late, 3.0),
    "carts-replication-slow": partial(carts_late, 3.0),
    "cloudwatch-down": partial(aws_error, "cloudwatch", "put_metric_data", RESET, **PUT),
    "cloudwatch-throttled": partial(aws_error, "cloudwatch", "put_metric_data", {"Throttling"}, **PUT),
    "cloudwatch-slow": partial(aws_slow, "cloudwatch", "list_dashboards", 3.0),
    "cloudwatch-hanging": lambda eyes, region: eyes.aws(region, "cloudwatch", "list_dashboards")[0] == "ReadTimeoutError",
    "telemetry-throttled": partial(aws_error, "xray", "put_trace_segments", {"ThrottledException"}, TraceSegmentDocuments=["{}"]),
    "telemetry-down": partial(aws_error, "logs", "describe_log_groups", RESET),
    "notifier-down": partial(aws_error, "lambda", "list_functions", {"ServiceException"}),
    "sns-down": partial(aws_error, "sns", "list_topics", {"InternalError"}),
    "runbooks-down": partial(aws_error, "ssm", "list_documents", {"ThrottlingException"}),
    "carts-table-throttled": partial(aws_error, "dynamodb", "list_tables", {"ProvisionedThroughputExceededException"}),
    "permissions-lost": partial(aws_error, "cloudwatch", "put_metric_data", {"AccessDenied"}, **PUT),
    "aws-slow": partial(aws_slow, "sts", "get_caller_identity", 2.0),
}


def canary(eyes: Eyes, region: str) -> tuple[str, str]:
    """State of the Region's probe, and of its newest run that has ended: while one hangs, the next begins."""
    client = eyes.lab.client("synthetics", region)
    (found,) = [each for each in client.describe_canaries()["Canaries"] if "probe" in each["Name"]]
    runs = client.get_canary_runs(Name=found["Name"], MaxResults=5)["CanaryRuns"]
    ended = [run["Status"]["State"] for run in runs if run["Status"]["State"] != "RUNNING"]
    return found["Status"]["State"], ended[0] if ended else ""


def from_the_future(eyes: Eyes, region: str) -> bool:
    """Whether the vantage has written datapoints for minutes to come."""
    now = eyes.plan.clock.now()
    dimensions = {"Workload": "retail", "Vantage": region}
    found = eyes.lab.client("cloudwatch", region).get_metric_statistics(
        Namespace="Crosswatch/Probe",
        MetricName="Sighted",
        Dimensions=[{"Name": name, "Value": value} for name, value in dimensions.items()],
        StartTime=datetime.fromtimestamp(now + 120, UTC),
        EndTime=datetime.fromtimestamp(now + 600, UTC),
        Period=10,
        Statistics=["Maximum"],
    )
    return bool(found["Datapoints"])


def cut_off(eyes: Eyes, region: str) -> bool:
    """Whether the probe's newest line says that it got nothing from anywhere and could write nowhere: only its log still arrives."""
    now = eyes.plan.clock.now()
    (found,) = [each for each in eyes.lab.client("synthetics", region).describe_canaries()["Canaries"] if "probe" in each["Name"]]
    pages = (
        eyes.lab.client("logs", region)
        .get_paginator("filter_log_events")
        .paginate(
            logGroupName=f"/aws/lambda/{found['EngineArn'].split(':')[6]}",
            filterPattern='{ $.crosswatch = "probe" }',
            startTime=int((now - 300) * 1000),
            endTime=int((now + 60) * 1000),
        )
    )
    lines = [json.loads(event["message"]) for page in pages for event in page["events"]]
    newest = max(lines, key=lambda line: float(line["slot"]), default=None)
    return newest is not None and not newest["sighted"] and "ok" not in newest["writes"].values()


WATCHED: dict[str, Callable[[Eyes, str], bool]] = {
    "canary-stopped": lambda eyes, region: canary(eyes, region)[0] == "STOPPED",
    "canary-hanging": lambda eyes, region: canary(eyes, region) == ("RUNNING", "FAILED"),
    "canary-short-of-time": lambda eyes, region: canary(eyes, region) == ("RUNNING", "FAILED"),
    "vantage-clock-skewed": from_the_future,
    "vantage-network-down": cut_off,
}
