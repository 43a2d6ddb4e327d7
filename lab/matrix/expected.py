"""What each fault must lead to: one table beside the catalogue of faults.

It is derived from what a person on call has to do (docs/alarms/paging.md), not from what comes out. `expected` answers for one lab: how
long the probe waits for an answer depends on the lab's speed, and with it whether a slow page is slow or no answer at all.

Faults strike the first Region of the lab, where the writers of both databases are, too. ``here`` is that Region, ``there`` any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf

from lab.faults.services import SLOW_MS
from lab.faults.vantages import SKEW_S
from lab.matrix.record import OK
from lab.plan import STORE_NAME

HERE, THERE, NAME = "here", "there", "name"
CELLS = tuple(f"{vantage}>{target}" for vantage in (HERE, THERE) for target in (HERE, THERE, NAME))
SETTLE_S = 70.0
WATCH_S = 150.0


@dataclass(frozen=True, slots=True)
class Page:
    """One page: the diagnosis' kind, and its subject, in which ``{here}`` is the struck Region."""

    diagnosis: str
    subject: str

    def on(self, here: str) -> Page:
        """The page in a lab where ``here`` was struck."""
        return replace(self, subject=self.subject.format(here=here))

    def __str__(self) -> str:
        return f"{self.diagnosis} {self.subject}"


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a fault must lead to.

    ``page``: the one page that must come, None for nobody. ``or_nobody``: it may also stay away (``why`` says why that is right).
    ``tickets``: diagnoses of severity warning or info that must come; ``may``: that may come too. ``within_s``: lab seconds until page and
    tickets are there; ``watch_s``: how long nobody else may be told anything.
    ``sees``: the probe's class of each cell ``vantage>target`` where it is not ``ok``; several classes are alternatives. ``pages``: only
    these pages of the store fail in those cells. ``lasts_s``: after this AWS itself has mended it. ``rest_s``: how long, after all is
    green, what it left would still deceive whoever tries the next fault.
    ``gap``: why the page does not come yet; nobody else may be woken, and where the page does come the entry has to be corrected.
    """

    page: Page | None = None
    tickets: frozenset[str] = frozenset()
    may: frozenset[str] = frozenset()
    or_nobody: bool = False
    within_s: float = 240.0
    watch_s: float = WATCH_S
    sees: Mapping[str, frozenset[str]] = field(default_factory=dict)
    pages: frozenset[str] = frozenset()
    lasts_s: float = inf
    rest_s: float = 0.0
    why: str = ""
    gap: str = ""


def expected(patience_s: float) -> dict[str, Expectation]:
    """Fault -> expectation, in a lab whose probe waits ``patience_s`` wall seconds for an answer."""
    slow = "timeout" if patience_s <= SLOW_MS / 1000 else "slow"
    return {
        **_regions(),
        **_services(slow),
        **_balancer(),
        **_routing(patience_s),
        **_databases(),
        **_stores(),
        **_vantages(),
        **_aws(),
    }


IMPAIRED = Page("region-impaired", "{here}")
PARTIAL = Page("region-partial", "{here}")
BLIND_TICKET = frozenset({"vantage-blind"})


def _here(*classes: str) -> dict[str, frozenset[str]]:
    """Every vantage sees the struck Region's load balancer so, and its own vantage the name, which leads there."""
    return dict.fromkeys(("here>here", "there>here", "here>name"), frozenset(classes))


def _blind(*classes: str) -> dict[str, frozenset[str]]:
    """The struck Region's vantage sees nothing but this."""
    return dict.fromkeys(("here>here", "here>there", "here>name"), frozenset(classes))


def _moved_away(*classes: str) -> dict[str, frozenset[str]]:
    """The same, but the name's record evaluates the target's health and leads elsewhere once that is known."""
    return _here(*classes) | {"here>name": frozenset({OK, *classes})}


def _impaired(*classes: str) -> Expectation:
    return Expectation(IMPAIRED, sees=_here(*classes))


def _partial(page: str, *classes: str) -> Expectation:
    return Expectation(PARTIAL, within_s=420, sees=_here(*classes), pages=frozenset({page}))


def _nobody(why: str = "", **more: object) -> Expectation:
    return replace(Expectation(why=why), **more)  # type: ignore[arg-type]


UNSEEN = "only who goes to the checkout notices: the journey canary, which this lab does not deploy"
PROMOTED = "ElastiCache promotes the replica by itself; only who is in the checkout meanwhile notices"
OUTBOX = "Orders keeps its events in the outbox; no customer notices"


def _regions() -> dict[str, Expectation]:
    return {
        "region-down": Expectation(
            IMPAIRED,
            may=frozenset({"rpo"}) | BLIND_TICKET,
            sees={"here>here": frozenset({"silent"}), "here>there": frozenset({"silent"}), "here>name": frozenset({"silent"})}
            | {"there>here": frozenset({"refused"})},
        ),
        "region-cut-off": _nobody(
            "readers are served everywhere; what is written at home would be lost in a failover, and nobody has to fail over",
            tickets=frozenset({"rpo"}),
            may=frozenset({"replication"}),
            within_s=480,
        ),
    }


def _services(slow: str) -> dict[str, Expectation]:
    timid = "slower than the probe's patience: no answer" if slow == "timeout" else "slow, and it serves"
    slow_ui = _impaired(slow) if slow == "timeout" else _nobody(timid, sees=_here(slow))
    found = {
        "ui-down": Expectation(IMPAIRED, sees=_moved_away("status")),
        "ui-slow": replace(slow_ui, why=timid),
        "ui-erroring": _impaired("status"),
        "ui-wrong-body": _impaired("body"),
        "ui-without-assets": _nobody("pages answer 200; only a browser notices: the journey canary, which this lab does not deploy"),
        "catalog-down": replace(_impaired("status"), why="home and catalog show the catalog's products"),
        "catalog-slow": replace(_impaired("timeout"), why="home asks the catalog twice: 3 s, longer than the probe waits"),
        "catalog-erroring": _impaired("status"),
        "catalog-hanging": replace(_impaired("timeout"), lasts_s=85, why="until ECS has replaced the tasks that fail three health checks"),
        "catalog-stuck-deploy": _nobody("the old tasks go on serving"),
        "checkout-down": _nobody(UNSEEN),
        "checkout-slow": _nobody(UNSEEN),
        "checkout-erroring": _nobody(UNSEEN),
        "checkout-unhealthy": _nobody("tasks are replaced before the old ones end"),
        "carts-memory-leak": _nobody("a task that is out of memory is replaced", watch_s=400),
        "orders-bad-deploy": _partial("orders", "status"),
    }
    for service, page in (("carts", "cart"), ("orders", "orders")):
        found[f"{service}-down"] = _partial(page, "status")
        found[f"{service}-erroring"] = _partial(page, "status")
        slow_page = _partial(page, slow) if slow == "timeout" else _nobody(sees=_here(slow))
        found[f"{service}-slow"] = replace(slow_page, why=timid)
    return found


def _balancer() -> dict[str, Expectation]:
    return {
        "alb-down": Expectation(IMPAIRED, sees=_moved_away("refused")),
        "alb-hanging": Expectation(IMPAIRED, sees=_moved_away("timeout")),
        "alb-without-targets": Expectation(IMPAIRED, sees=_moved_away("status")),
        "alb-wrong-port": Expectation(IMPAIRED, sees=_moved_away("status")),
        "alb-health-check-wrong": _nobody("a target group in which all are unhealthy fails open", watch_s=270),
        "certificate-expiring": _nobody("there are days left", tickets=frozenset({"certificate"}), within_s=600),
        "certificate-expired": replace(_impaired("certificate"), may=frozenset({"certificate"})),
    }


def _routing(patience_s: float) -> dict[str, Expectation]:
    late = frozenset({"dns", "timeout"}) if patience_s <= 2.0 else frozenset({"slow"})
    blind = Expectation(tickets=BLIND_TICKET, within_s=600, sees=_blind("dns"), why="the Region serves; its vantage cannot find it")
    return {
        "drained": _nobody("no fault: somebody drained a healthy Region"),
        "all-controls-off": Expectation(Page("all-off", "retail")),
        "arc-endpoint-down": _nobody("four endpoints are left"),
        "arc-down": _nobody("unknown is not off; who wants to drain will notice, and a runbook says so"),
        "dns-down": Expectation(
            Page("name-down", STORE_NAME),
            within_s=300,
            sees={"here>name": frozenset({"dns"}), "there>name": frozenset({"dns"})},
            why="resolvers answer from memory for the TTL; the load balancers' names are in AWS's zone",
        ),
        "dns-stuck": _nobody("the answers are right until somebody drains"),
        "resolver-down": blind,
        "resolver-servfail": blind,
        "resolver-slow": Expectation(
            tickets=frozenset() if "slow" in late else BLIND_TICKET, within_s=600, sees=_blind(*late), why="it answers after 2 s"
        ),
        "ttl-ignored": _nobody("the answers are right until somebody drains"),
    }


def _databases() -> dict[str, Expectation]:
    behind = Expectation(tickets=frozenset({"rpo"}), within_s=540, why="served everywhere; a failover now would lose data")
    writes_fail = "nothing can be written in any Region: fail over"
    return {
        "catalog-writer-down": replace(
            _impaired("status"), may=frozenset({"rpo"}), why="the writer's Region reads from the writer: home fails there"
        ),
        "catalog-replication-paused": behind,
        "catalog-replication-cut": behind,
        "catalog-lag": behind,
        "orders-writer-down": Expectation(
            PARTIAL,
            may=frozenset({"rpo"}),
            within_s=420,
            sees=_here("status"),
            pages=frozenset({"orders"}),
            why=f"{writes_fail}; seen in the writer's Region, which reads from the writer",
        ),
        "orders-replication-paused": behind,
        "orders-replication-cut": behind,
        "orders-lag": behind,
        "orders-two-writers": Expectation(
            Page("split-writer", "orders"),
            may=frozenset({"rpo"}),
            within_s=360,
            why="two Regions take orders and drift apart: three minutes of two writers",
        ),
        "orders-failover-stuck": Expectation(
            Page("failover-stuck", "orders"),
            may=frozenset({"rpo"}),
            within_s=480,
            why="no cluster takes writes: longer than the five minutes that a failover may take",
        ),
        "orders-endpoint-stale": _nobody("no order can be placed in one Region: the ledger canary notices, which this lab does not deploy"),
        "peering-refused": replace(behind, why="the standbys get nothing; readers are served everywhere"),
        "peering-slow": _nobody("replication is some tenths of a second behind"),
    }


def _stores() -> dict[str, Expectation]:
    return {
        **{f"redis-{how}": _nobody(UNSEEN, may=frozenset({"evictions"})) for how in ("down", "full", "evicting")},
        **{f"redis-{how}": _nobody(PROMOTED) for how in ("primary-down", "hanging", "failover")},
        "redis-replication-cut": _nobody(
            "the primary serves; what a failover would lose, nobody misses yet", tickets=frozenset({"cache-lag"}), within_s=540
        ),
        **{f"broker-{how}": _nobody(OUTBOX) for how in ("down", "blocked", "disk-full")},
        "orders-consumer-stuck": _nobody("events wait; somebody does consume, so no ticket either", may=frozenset({"unconsumed"})),
        "orders-consumer-gone": _nobody(
            "customers notice nothing, and the warehouse gets no order", tickets=frozenset({"unconsumed"}), within_s=600
        ),
        "carts-replication-cut": _nobody("carts are served in both Regions", may=frozenset({"replication"})),
        "carts-replication-slow": _nobody("5 s are within what was promised"),
    }


def _vantages() -> dict[str, Expectation]:
    silent = Expectation(tickets=BLIND_TICKET, within_s=600, sees=_blind("silent"), why="the Region serves; its canary does not report")
    return {
        "canary-stopped": silent,
        "canary-hanging": silent,
        "canary-short-of-time": silent,
        "vantage-network-down": replace(
            silent, sees=_blind("dns", "unreachable"), why="the Region serves; its canary sees nothing, and only its log still arrives"
        ),
        "vantage-clock-skewed": replace(
            _nobody("a vantage whose datapoints come from the future is as good as silent", may=BLIND_TICKET),
            sees=_blind("silent"),
            rest_s=SKEW_S,
        ),
    }


def _aws() -> dict[str, Expectation]:
    unlogged = replace(_nobody("spooled and sent later; the canary's own log is among what has to wait"), sees=_blind("silent", OK))
    half_blind = Expectation(
        Page("blind-all", "retail"),
        or_nobody=True,
        within_s=300,
        may=BLIND_TICKET | {"unwritable"},
        why="the Region gets no datapoints and cannot know that the others do; saying so is right, and so is silence while it is short",
    )
    return {
        "cloudwatch-down": half_blind,
        "cloudwatch-throttled": _nobody("the other Region holds the whole matrix", may=BLIND_TICKET | {"unwritable"}),
        "cloudwatch-slow": half_blind,
        "cloudwatch-hanging": half_blind,
        "permissions-lost": half_blind,
        "telemetry-throttled": unlogged,
        "telemetry-down": unlogged,
        "notifier-down": _nobody("there is nothing to say"),
        "sns-down": _nobody("there is nothing to say"),
        "runbooks-down": _nobody("runbooks can be started in another Region"),
        "carts-table-throttled": Expectation(
            PARTIAL,
            or_nobody=True,
            within_s=300,
            sees=_here("status", "timeout", "slow", OK),
            pages=frozenset({"cart"}),
            why="the SDK's retries hide a part; what is left fails the cart",
        ),
        "aws-slow": Expectation(
            PARTIAL,
            within_s=300,
            sees=_here("timeout", "slow", OK),
            pages=frozenset({"cart"}),
            may=BLIND_TICKET | {"unwritable"},
            why="a cart waits for DynamoDB longer than the probe waits for the page",
        ),
    }
