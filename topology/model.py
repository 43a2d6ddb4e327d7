"""The typed model of ``topology.yaml``: one workload, its Regions, its data stores, and how it is watched.

Everything Crosswatch renders comes from a `Topology`. It is a frozen value; `topology.load` reads one from a file and collects every
problem on the way. Durations carry their unit in the name. Regions are a mapping, two or more, none named by the code.
"""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from topology.forms import (
    AccountId,
    AuthorityFile,
    Identifier,
    Name,
    Nodes,
    QueueName,
    RegionName,
    Schedule,
    SecurityGroupId,
    SubnetId,
    Template,
    Url,
)

SERVICE_NAMES = (("cloudwatch", "monitoring"), ("elbv2", "elasticloadbalancing"), ("resourcegroupstaggingapi", "tagging"))
"""Services that boto3 calls by one name and their endpoints by another: either may stand in 'endpoints'."""


class Model(BaseModel):
    """A part of the topology: frozen, and strict about names it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Store(Model):
    """The public face of the workload: its Route 53 name and how it is served."""

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+$")
    scheme: Literal["https", "http"] = "https"
    port: int | None = Field(default=None, ge=1, le=65535)
    record: Literal["latency", "failover"] = "latency"
    ttl_s: int = Field(default=60, ge=0, le=604800)
    ca_file: AuthorityFile | None = None

    @property
    def url(self) -> str:
        """The store's address by name, without a path."""
        default = 443 if self.scheme == "https" else 80
        return f"{self.scheme}://{self.name}" + (f":{self.port}" if self.port not in (None, default) else "")


class Page(Model):
    """A page that the probe asks for, and what makes the answer a good one. ``body`` is a regular expression."""

    name: Name
    path: str = Field(pattern=r"^/")
    status: int = Field(default=200, ge=100, le=599)
    body: str | None = None


class Network(Model):
    """Where a canary's Lambda stands in a VPC. ``writes_through`` says how it reaches the other Regions' CloudWatch."""

    subnets: tuple[SubnetId, ...] = Field(min_length=1, max_length=16)
    security_groups: tuple[SecurityGroupId, ...] = Field(min_length=1, max_length=5)
    writes_through: Literal["nat", "peered-endpoint"] = "nat"


class LoadBalancer(Model):
    """A Region's Application Load Balancer. ``arn_suffix`` and ``target_group`` are the dimensions of its metrics."""

    url: Url
    arn_suffix: str = Field(pattern=r"^app/[^/]+/[0-9a-f]+$")
    target_group: str = Field(pattern=r"^targetgroup/[^/]+/[0-9a-f]+$")

    @property
    def host(self) -> str:
        """The host of the address."""
        return urlsplit(self.url).hostname or ""

    @field_validator("url")
    @classmethod
    def _no_path(cls, url: str) -> str:
        if urlsplit(url).path not in ("", "/"):
            raise ValueError("the address of a load balancer has no path; pages have paths")
        return url.rstrip("/")


class Region(Model):
    """One Region that runs the workload."""

    alb: LoadBalancer
    ecs_cluster: Identifier
    network: Network | None = None


class Vantage(Model):
    """A Region that looks at the workload; it need not run it."""

    network: Network | None = None


class Routing(Model):
    """ARC routing controls and the health checks bound to them. Endpoints are the cluster's, by Region."""

    cluster_endpoints: dict[RegionName, Url] = Field(min_length=1)
    controls: dict[RegionName, str]
    health_checks: dict[RegionName, str]


class Database(Model):
    """An Aurora global database: one cluster a Region, one of them the writer. A failover is stuck after ``failover_s``."""

    global_cluster: Identifier
    engine: Literal["aurora-mysql", "aurora-postgresql"] = "aurora-mysql"
    clusters: dict[RegionName, Identifier]
    rpo_s: int = Field(default=60, ge=1)
    failover_s: int = Field(default=300, ge=120, le=3600, multiple_of=60)


class Table(Model):
    """A DynamoDB global table, the same name in every Region."""

    table: Identifier
    replication_s: int = Field(default=60, ge=1)


class Cache(Model):
    """ElastiCache nodes by Region: one CacheClusterId, or a list with all nodes of a replication group, whichever is its primary.

    A replica may be ``lag_s`` behind the primary.
    """

    clusters: dict[RegionName, Nodes]
    lag_s: int = Field(default=60, ge=1)


class Broker(Model):
    """Amazon MQ for RabbitMQ brokers by Region, and the queues worth watching."""

    brokers: dict[RegionName, Identifier]
    queues: tuple[QueueName, ...] = ()
    virtual_host: str = "/"


class Service(Model):
    """A service of the workload as ECS and the exporters name it."""

    ecs_service: Identifier
    log_group: str | None = None


class Runbook(Model):
    """A Systems Manager Automation document. ``{region}`` in a parameter stands for the Region that the page is about."""

    document: str = Field(pattern=r"^[a-zA-Z0-9_.:/-]{3,200}$")
    parameters: dict[str, Template] = Field(default_factory=dict)
    run_in: Literal["surviving", "affected", "any"] = "surviving"


class Runbooks(Model):
    """What the person on call is told to do."""

    drain: Runbook
    enable: Runbook
    failover: dict[str, Runbook] = Field(default_factory=dict)
    rebuild: dict[str, Runbook] = Field(default_factory=dict)
    missing_transactions: Runbook | None = None
    guide_url: Url | None = None


class Subscription(Model):
    """Who receives pages: an SNS subscription made in every Region's page topic."""

    protocol: Literal["https", "http", "email", "sms", "lambda", "sqs"]
    endpoint: str = Field(min_length=1)


class Paging(Model):
    """Where pages go. ``console_url`` is the CloudWatch console's address unless a private one is used."""

    subscriptions: tuple[Subscription, ...] = ()
    console_url: Url | None = None


class Rounds(Model):
    """The probe's rounds on the wall-clock grid, in seconds (facts and reasons: docs/canaries.md)."""

    every_s: int = Field(default=10, ge=5, le=30)
    offset_s: float = Field(default=6, ge=0)
    until_s: float = Field(default=50, gt=0, le=58)
    retry_after_s: float = Field(default=2, gt=0)


class Probe(Model):
    """The probe canary. Times are seconds; a page's total time above ``degraded_ms`` counts as degraded."""

    runtime: str = "syn-python-selenium-14.0"
    rounds: Rounds = Rounds()
    connect_timeout_s: float = Field(default=1, gt=0, le=10)
    total_timeout_s: float = Field(default=2, gt=0, le=20)
    write_timeout_s: float = Field(default=1, gt=0, le=10)
    degraded_ms: float = Field(default=1000, gt=0)
    memory_mb: int = Field(default=960, ge=960, le=3008, multiple_of=64)
    retention_days: int = Field(default=3, ge=1, le=455)
    resolvers: dict[RegionName, str] = Field(default_factory=dict)
    certificate_days: int = Field(default=21, ge=1)


class Journeys(Model):
    """The slower canaries; each is left out where its schedule is null. Forms: `topology.schedules`."""

    journey_schedule: Schedule | None = None
    ledger_schedule: Schedule | None = None


class Objective(Model):
    """A service level objective, in percent over ``window_days``."""

    name: Name
    kind: Literal["availability", "latency"]
    target_percent: float = Field(gt=0, lt=100)
    window_days: int = Field(default=30, ge=7, le=90)
    latency_ms: float | None = Field(default=None, gt=0)
    source: Literal["probe", "alb"] = "probe"


class Topology(Model):
    """One workload and how it is watched."""

    workload: Name
    account: AccountId
    environment: Name = "production"
    store: Store
    pages: tuple[Page, ...] = Field(min_length=1, max_length=12)
    regions: dict[RegionName, Region] = Field(min_length=2)
    vantages: dict[RegionName, Vantage] = Field(default_factory=dict)
    services: dict[Name, Service] = Field(default_factory=dict)
    routing: Routing | None = None
    databases: dict[Name, Database] = Field(default_factory=dict)
    tables: dict[Name, Table] = Field(default_factory=dict)
    caches: dict[Name, Cache] = Field(default_factory=dict)
    brokers: dict[Name, Broker] = Field(default_factory=dict)
    runbooks: Runbooks
    paging: Paging = Paging()
    probe: Probe = Probe()
    journeys: Journeys = Journeys()
    objectives: tuple[Objective, ...] = ()
    endpoints: dict[RegionName, dict[str, Url]] = Field(default_factory=dict)

    @property
    def vantage_names(self) -> tuple[str, ...]:
        """The Regions that look: the workload's own, then those that only watch."""
        return (*self.regions, *(name for name in self.vantages if name not in self.regions))

    @property
    def targets(self) -> tuple[str, ...]:
        """What is looked at: ``alb-<region>`` for every Region, and ``name`` for the store's Route 53 name."""
        return (*(alb_target(name) for name in self.regions), NAME_TARGET)

    @property
    def watched_regions(self) -> tuple[str, ...]:
        """Every Region in which something of ours stands."""
        return self.vantage_names

    def endpoint(self, region: str, service: str) -> str | None:
        """The private endpoint of an AWS service in a Region, or None for AWS's own. ``*`` stands for every service.

        A service may be called by boto3's name or by its endpoint's (`SERVICE_NAMES`), here and in the file.
        """
        services = self.endpoints.get(region, {})
        names = next((group for group in SERVICE_NAMES if service in group), ())
        return next((services[name] for name in (service, *names, "*") if name in services), None)

    def network(self, region: str) -> Network | None:
        """Where the canaries of a Region stand, or None for no VPC."""
        vantage = self.vantages.get(region)
        if vantage and vantage.network:
            return vantage.network
        return self.regions[region].network if region in self.regions else None


NAME_TARGET = "name"


def alb_target(region: str) -> str:
    """The target that is a Region's load balancer."""
    return f"alb-{region}"
