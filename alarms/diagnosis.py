"""From the matrix to one diagnosis: the composite alarms of a Region, and what each tells the person on call.

Every Region holds the whole matrix vantage x target and decides alone. In Region B the metric alarms (templates/probe.yaml.j2) say what
is so; the rules here turn them into diagnoses that exclude each other, so that one incident is one page:

    store-down     nothing is seen up by anybody, or every Region is down
    all-off        every routing control is off
    impaired-A     Region A does not serve and is not drained: drain it
    partial-A      Region A serves, but one of its pages fails whoever asks: nobody can, say, see a cart
    store-partial  the same in every Region
    split-D        two clusters of the database D take writes, and drift apart
    stuck-D        no cluster of the database D takes writes, for longer than a failover takes
    writes-fail    pages are served, and no synthetic order is acknowledged anywhere (only where a ledger is scheduled)
    drained-A      the same, but its control is off: nobody has to act
    name-down      the name does not answer although the Regions do, or those that customers are sent to
    dns-disagrees  the name answers with a Region whose control is off
    blind-all      no vantage sees anything: the monitoring is gone, not the store
    blind-V        the vantage in Region V is silent
    differ-A       vantages disagree about Region A for minutes: a path or part of the Region is bad

`lost-A` (A is not seen up and A's own vantage is silent) is quick evidence; it counts only until `blind-A` has noticed that the vantage
is gone for good, so that a canary known to be dead does not lower the bar. What customers meet at once is paged before what a database
says of itself: a Region that is down first, then a split, then a broken page, then a failover that does not end. With two vantages a full
cut between two Regions looks the same from both sides as the loss of the other one: both pages then carry one deduplication key and say
that this cannot be decided. With three or more, a Region that hears no other vantage (`alone`) accuses nobody until it knows for good that
they are silent: those who hear each other decide.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from topology.model import Runbook, Topology, alb_target
from topology.schedules import longest_pause_s

Severity = Literal["critical", "error", "warning", "info"]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One composite alarm in one Region. ``suppressor`` silences its actions for a while (CloudWatch's ActionsSuppressor)."""

    name: str
    kind: str
    region: str
    severity: Severity
    subject: str
    rule: str
    summary: str
    description: str
    dedup_key: str
    runbook: Runbook | None = None
    run_in: str = ""
    suppressor: str | None = None
    wait_s: int = 180

    @property
    def pages(self) -> bool:
        """Whether somebody is woken by it."""
        return self.severity in ("critical", "error")

    def incident(self) -> dict[str, Any]:
        """What the notifier needs to write the page (see paging/notifier.py)."""
        parameters = {key: value.format(region=self.subject) for key, value in self.runbook.parameters.items()} if self.runbook else {}
        return {
            "diagnosis": self.kind,
            "severity": self.severity,
            "subject": self.subject,
            "summary": self.summary,
            "description": self.description,
            "dedup_key": self.dedup_key,
            "runbook": {"document": self.runbook.document, "parameters": parameters, "region": self.run_in} if self.runbook else None,
        }

    def to_json(self) -> dict[str, Any]:
        """All fields as plain data."""
        return asdict(self)


LEDGER_SETTLE_S = 120
"""How long after a period of the ledger its alarm may take to clear: what ends within it is no page of its own."""


class Names:
    """The names of a workload's alarms; the same in every Region."""

    def __init__(self, topology: Topology) -> None:
        self._prefix = topology.workload

    def __call__(self, kind: str, subject: str = "") -> str:
        return f"{self._prefix}-{kind}-{subject}" if subject else f"{self._prefix}-{kind}"


def alarm_topic(topology: Topology, region: str) -> str:
    """The ARN of the topic that the alarms of ``region`` notify."""
    return f"arn:aws:sns:{region}:{topology.account}:{topology.workload}-alarms"


def page_topic(topology: Topology, region: str) -> str:
    """The ARN of the topic that people subscribe to in ``region``: for alarms about the way from an alarm to them, and for no others."""
    return f"arn:aws:sns:{region}:{topology.account}:{topology.workload}-pages"


def alarm(name: str) -> str:
    """The rule that ``name`` is in ALARM."""
    return f"ALARM({name})"


def all_of(terms: Iterable[str]) -> str:
    """AND over ``terms``; TRUE for none."""
    parts = list(terms)
    return parts[0] if len(parts) == 1 else "(" + " AND ".join(parts) + ")" if parts else "TRUE"


def any_of(terms: Iterable[str]) -> str:
    """OR over ``terms``; FALSE for none."""
    parts = list(terms)
    return parts[0] if len(parts) == 1 else "(" + " OR ".join(parts) + ")" if parts else "FALSE"


def none_of(terms: Iterable[str]) -> list[str]:
    """NOT each of ``terms``."""
    return [f"NOT {term}" for term in terms]


class Rules:
    """The building blocks of the rules in Region ``here``."""

    def __init__(self, topology: Topology, here: str) -> None:
        name = Names(topology)
        self.dark = alarm(name("dark"))
        others = [vantage for vantage in topology.vantage_names if vantage != here]
        self.blind = {vantage: alarm(name("silent", vantage)) for vantage in topology.vantage_names}
        self.heard = none_of([all_of([alarm(name("alone")), *none_of([self.blind[other] for other in others])])]) if len(others) > 1 else []
        """That somebody else is heard here, or is known to be silent; with two vantages nobody could tell."""
        self.name_down = all_of([alarm(name("name-unreachable")), *self.heard])
        self.dns = alarm(name("dns-mismatch"))
        self.off = {region: alarm(name("off", region)) for region in topology.regions} if topology.routing else {}
        self.down = {region: alarm(name("down", region)) for region in topology.regions}
        self.differ = {region: alarm(name("uneven", region)) for region in topology.regions}
        self.broken = {region: alarm(name("broken", region)) for region in topology.regions}
        self.store_down = all_of([any_of([self.dark, all_of(self.down.values())]), *self.heard])
        self.all_off = all_of(self.off.values()) if self.off else "FALSE"
        self.impaired = {
            region: self.down[region]
            if region == here
            else all_of([any_of([all_of([alarm(name("lost", region)), *none_of([self.blind[region]])]), self.down[region]]), *self.heard])
            for region in topology.regions
        }
        self.split = {database: alarm(name("writers-many", database)) for database in topology.databases}
        self.stuck = {database: alarm(name("writers-none", database)) for database in topology.databases}
        alike = [*self.broken.values(), *none_of([self.store_down, *self.impaired.values(), self.name_down, *self.off.values()])]
        alike += none_of(self.split.values())
        self.store_partial = all_of(alike)
        self.unplaced = alarm(name("unplaced")) if ledger_period_s(topology) else None
        well = all_of(none_of(self.impaired.values()))
        long_off = any_of(alarm(name("off-long", region)) for region in self.off)
        drained = all_of([alarm(name("name-unreachable-long")), long_off, *none_of(self.undrained(self.impaired))])
        self.answerable = any_of([well, drained]) if self.off else well
        """That the name should answer: every Region serves, or those that do not were drained minutes ago."""
        self.outage = [self.store_down, *self.undrained(self.impaired), self.name_down, *([self.all_off] if self.off else [])]

    def undrained(self, evidence: Mapping[str, str]) -> list[str]:
        """For each Region the rule that ``evidence`` says so and customers are still sent there: what is paged, and not merely known."""
        return [all_of([rule, *none_of([self.off[region]])]) if region in self.off else rule for region, rule in evidence.items()]


def diagnoses(topology: Topology, here: str) -> Iterator[Diagnosis]:
    """The composite alarms that live in Region ``here``. An alarm about a Region lives in the others, which survive it."""
    name, rules = Names(topology), Rules(topology, here)
    yield from _whole_store(topology, here, name, rules)
    for database in topology.databases:
        yield from _about_writers(topology, here, database, name, rules)
    for region in topology.regions:
        if region != here:
            yield from _about_region(topology, here, region, name, rules)
    for vantage in topology.vantage_names:
        if vantage != here:
            yield _blind(topology, here, vantage, name, rules)


def incidents(topology: Topology, here: str) -> dict[str, dict[str, Any]]:
    """Alarm name -> what the notifier in Region ``here`` says of it."""
    return {diagnosis.name: diagnosis.incident() for diagnosis in diagnoses(topology, here)}


def paged(topology: Topology, here: str) -> str:
    """The rule that somebody has been told of an outage: by a diagnosis of this Region or, about this Region, by the others."""
    rules = Rules(topology, here)
    elsewhere = [rules.impaired[here], rules.broken[here]] if here in topology.regions else []
    return any_of([*(alarm(diagnosis.name) for diagnosis in diagnoses(topology, here) if diagnosis.pages), *elsewhere])


def _whole_store(topology: Topology, here: str, name: Names, rules: Rules) -> Iterator[Diagnosis]:
    """Diagnoses about the store as a whole; they live in every Region, and the pager joins them by their key."""
    workload = topology.workload
    yield Diagnosis(
        name=name("store-down"),
        kind="store-down",
        region=here,
        severity="critical",
        subject=workload,
        rule=rules.store_down,
        summary=f"{workload} is down in every Region",
        description=(
            "No vantage sees any Region serve. Draining does not help; look for what the Regions share: the last "
            "deploy, a certificate, a data store."
            f"{_alone(topology, here)}"
        ),
        dedup_key=f"{workload}/store-down",
    )
    if rules.off:
        yield Diagnosis(
            name=name("all-off"),
            kind="all-off",
            region=here,
            severity="critical",
            subject=workload,
            rule=all_of([rules.all_off, *none_of([rules.store_down])]),
            summary=f"every routing control of {workload} is off",
            description=(
                "All Regions are drained at once, so Route 53 answers as if all were healthy. Look at the matrix for a Region that is seen "
                f"up, and turn its control on with {_how(topology.runbooks.enable)}: which one it is, no alarm can know."
            ),
            dedup_key=f"{workload}/all-off",
        )
    yield Diagnosis(
        name=name("name-down"),
        kind="name-down",
        region=here,
        severity="critical",
        subject=topology.store.name,
        rule=all_of([rules.name_down, *none_of([rules.store_down]), rules.answerable, *(none_of([rules.all_off]) if rules.off else [])]),
        summary=f"{topology.store.name} does not answer although the Regions do",
        description=(
            "The load balancers serve when asked directly, the Route 53 name does not. Look at the record, its health "
            "checks and the certificate for the name."
        ),
        dedup_key=f"{workload}/name-down",
    )
    yield Diagnosis(
        name=name("store-partial"),
        kind="store-partial",
        region=here,
        severity="critical",
        subject=workload,
        rule=rules.store_partial,
        summary=f"part of {workload} fails in every Region",
        description=(
            "The first page is served, and another one fails, in every Region. Draining does not help; look for what the Regions share: "
            "the last deploy, or the writer of a database, which is failed over."
        ),
        dedup_key=f"{workload}/store-partial",
    )
    if rules.unplaced:
        yield Diagnosis(
            name=name("writes-fail"),
            kind="writes-fail",
            region=here,
            severity="critical",
            subject=workload,
            rule=all_of(
                [
                    rules.unplaced,
                    *none_of([rules.store_down, *rules.undrained(rules.impaired), rules.name_down, *rules.broken.values()]),
                    *none_of([*rules.split.values(), *rules.stuck.values()]),
                    *(none_of([rules.all_off]) if rules.off else []),
                ]
            ),
            summary=f"nothing can be ordered from {workload}",
            description=(
                "Pages are served, and no synthetic order was acknowledged in any Region. Look at the orders' database: has it a writer, "
                "does the endpoint lead to it, is a failover stuck half-way? The ledger's last run says what the store answered."
            ),
            dedup_key=f"{workload}/writes-fail",
            suppressor=name("dark"),
            wait_s=ledger_period_s(topology) + LEDGER_SETTLE_S,
        )
    yield Diagnosis(
        name=name("blind-all"),
        kind="blind-all",
        region=here,
        severity="error",
        subject=workload,
        rule=all_of(
            [
                *rules.blind.values(),
                *none_of([rules.store_down, *rules.undrained(rules.impaired), rules.name_down, *rules.broken.values()]),
                *none_of([*rules.split.values(), *rules.stuck.values()]),
                *(none_of([rules.all_off]) if rules.off else []),
                *(none_of([rules.unplaced]) if rules.unplaced else []),
            ]
        ),
        summary=f"nobody watches {workload}: every vantage is silent",
        description=(
            "No canary reports. This says nothing about the store. Look at the canaries' last runs, their roles and their network."
        ),
        dedup_key=f"{workload}/blind-all",
        suppressor=name("dark"),
    )
    yield Diagnosis(
        name=name("dns-disagrees"),
        kind="dns-disagrees",
        region=here,
        severity="warning",
        subject=topology.store.name,
        rule=all_of([rules.dns, *none_of([rules.name_down, rules.store_down]), *(none_of([rules.all_off]) if rules.off else [])]),
        summary=f"{topology.store.name} answers with a Region whose routing control is off",
        description=(
            "Route 53 and the routing controls disagree. Look at the health checks bound to the controls and at "
            "resolvers that keep old answers."
        ),
        dedup_key=f"{workload}/dns-disagrees",
        suppressor=name("dark"),
    )


def _about_writers(topology: Topology, here: str, database: str, name: Names, rules: Rules) -> Iterator[Diagnosis]:
    """Diagnoses about the writer of a global database. They live in every Region: each asks RDS, and the pager joins them by their key.

    The alarm cannot know which of two writers shall stay, so the page names the runbooks and starts none.
    """
    workload, runbooks, split, stuck = topology.workload, topology.runbooks, rules.split[database], rules.stuck[database]
    minutes = topology.databases[database].failover_s // 60
    yield Diagnosis(
        name=name("split-writer", database),
        kind="split-writer",
        region=here,
        severity="critical",
        subject=database,
        rule=all_of([split, *none_of(rules.outage)]),
        summary=f"two clusters of {database} take writes",
        description=(
            f"RDS says that more than one cluster of {database} takes writes: what customers write is divided, and drifts apart. "
            f"Choose the one that stays, and drain the other's Region ({runbooks.drain.document}). Look at what only the other one has"
            f"{_named(runbooks.missing_transactions)}; then it is deleted, and rebuilt as a secondary"
            f"{_named(runbooks.rebuild.get(database))}."
        ),
        dedup_key=f"{workload}/split-writer/{database}",
    )
    yield Diagnosis(
        name=name("failover-stuck", database),
        kind="failover-stuck",
        region=here,
        severity="critical",
        subject=database,
        rule=all_of([stuck, *none_of([*rules.outage, *rules.undrained(rules.broken), split])]),
        summary=f"no cluster of {database} takes writes",
        description=(
            f"For {minutes} minutes RDS has named no cluster of {database} that takes writes: a failover or switchover does not end. "
            "Look at FailoverState in DescribeGlobalClusters, at the events of both clusters, and at the runbook that began it. If RDS has "
            f"given up, fail over again{_named(runbooks.failover.get(database))}."
        ),
        dedup_key=f"{workload}/failover-stuck/{database}",
    )


def _named(runbook: Runbook | None) -> str:
    """A runbook's document in brackets, for the middle of a sentence."""
    return f" ({runbook.document})" if runbook else ""


def _about_region(topology: Topology, here: str, region: str, name: Names, rules: Rules) -> Iterator[Diagnosis]:
    workload = topology.workload
    impaired, off = rules.impaired[region], rules.off.get(region)
    key = _region_key(topology, region)
    last = _last(topology, region)
    undecided = _undecided(topology, here, region)
    yield Diagnosis(
        name=name("impaired", region),
        kind="region-impaired",
        region=here,
        severity="critical",
        subject=region,
        rule=all_of([impaired, *(none_of([off]) if off else []), *none_of([rules.store_down])]),
        summary=f"{region} does not serve {workload}",
        description=(
            f"Customers whom Route 53 sends to {region} get errors. Drain {region}; then decide on the databases' failover."
            f"{last}{undecided}"
        ),
        dedup_key=key,
        runbook=topology.runbooks.drain,
        run_in=_run_in(topology, topology.runbooks.drain, here, region),
    )
    yield Diagnosis(
        name=name("partial", region),
        kind="region-partial",
        region=here,
        severity="error",
        subject=region,
        rule=all_of(
            [
                rules.broken[region],
                *(none_of([off]) if off else []),
                *none_of([impaired, rules.store_down, rules.name_down, rules.store_partial, *rules.split.values()]),
            ]
        ),
        summary=f"part of {workload} fails in {region}",
        description=(
            f"{region} serves its first page, and another one fails whoever asks; the steps of the probe's last run name it. Look at the "
            f"service behind it and at its data store. Drain {region} if that cannot be mended at once; if it is the writer of a database "
            f"that fails, fail the database over.{last}"
        ),
        dedup_key=f"{workload}/partial/{region}",
        runbook=topology.runbooks.drain,
        run_in=_run_in(topology, topology.runbooks.drain, here, region),
    )
    if off:
        yield Diagnosis(
            name=name("drained", region),
            kind="region-impaired-drained",
            region=here,
            severity="info",
            subject=region,
            rule=all_of([impaired, off, *none_of([rules.store_down])]),
            summary=f"{region} does not serve {workload}, and is drained",
            description=f"No customer is sent to {region}. Enable it again when it has recovered.",
            dedup_key=f"{workload}/drained/{region}",
            runbook=topology.runbooks.enable,
            run_in=_run_in(topology, topology.runbooks.enable, here, region),
        )
    yield Diagnosis(
        name=name("differ", region),
        kind="vantages-differ",
        region=here,
        severity="warning",
        subject=region,
        rule=all_of([rules.differ[region], *none_of([impaired, rules.store_down])]),
        summary=f"vantages disagree about {region}",
        description=(
            f"Some vantages see {region} serve and others do not, for minutes. A path between Regions or part of "
            f"{region} is bad; customers near it may suffer."
        ),
        dedup_key=f"{workload}/differ/{region}",
        suppressor=name("dark"),
    )


def _blind(topology: Topology, here: str, vantage: str, name: Names, rules: Rules) -> Diagnosis:
    others = [rule for other, rule in rules.blind.items() if other != vantage]
    impaired = [rules.impaired[vantage]] if vantage in rules.impaired else []
    return Diagnosis(
        name=name("blind", vantage),
        kind="vantage-blind",
        region=here,
        severity="warning",
        subject=vantage,
        rule=all_of([rules.blind[vantage], *none_of([all_of(others)] if others else []), *none_of([*impaired, rules.store_down])]),
        summary=f"the vantage in {vantage} is silent",
        description=f"The probe in {vantage} does not report here. {vantage} itself may be well. Look at its canary's last runs.",
        dedup_key=f"{topology.workload}/blind/{vantage}",
        suppressor=name("dark"),
    )


def _region_key(topology: Topology, region: str) -> str:
    """With two vantages the loss of either Region and a cut between them cannot be told apart, so they are one incident."""
    if len(topology.vantage_names) == 2:
        return f"{topology.workload}/impaired/" + "+".join(sorted(topology.vantage_names))
    return f"{topology.workload}/impaired/{region}"


def _undecided(topology: Topology, here: str, region: str) -> str:
    if len(topology.vantage_names) > 2 or region not in topology.vantage_names:
        return _alone(topology, here)
    return f" If {region}'s own vantage is silent, a cut between {here} and {region} looks the same; a third vantage would decide it."


def _alone(topology: Topology, here: str) -> str:
    """What a Region that hears nobody else has to say of its own view; with two vantages `_undecided` says more."""
    if len(topology.vantage_names) <= 2:
        return ""
    return f" If no vantage but {here}'s own is heard here, {here} may be what is cut off: look from another Region before you act."


def _last(topology: Topology, region: str) -> str:
    """What has to be done first where every other Region is drained: the drain does not turn the last control off."""
    others = [other for other in (topology.routing.controls if topology.routing else ()) if other != region]
    if not others:
        return ""
    condition = f"{others[0]} is off, enable it" if len(others) == 1 else f"{' and '.join(others)} are off, enable one of them"
    return f" If {condition} first with {_how(topology.runbooks.enable)}: the last control is not turned off."


def _how(runbook: Runbook) -> str:
    """A runbook for the middle of a sentence, with its parameters' names: their values are the reader's to choose."""
    words = [runbook.document, *(f"{key}={value.format(region='<region>')}" for key, value in runbook.parameters.items())]
    return f"the runbook {' '.join(words)}"


def _run_in(topology: Topology, runbook: Runbook, here: str, region: str) -> str:
    """Where the runbook is started: in a Region that survives, unless the document stands in the affected one."""
    if runbook.run_in == "affected":
        return region
    return here if here in topology.regions else next(name for name in topology.regions if name != region)


def ledger_period_s(topology: Topology) -> int:
    """The period in which each vantage's ledger runs at least once, whole minutes; 0 where none is scheduled."""
    schedule = topology.journeys.ledger_schedule
    return longest_pause_s(schedule) if schedule else 0


def targets(topology: Topology) -> dict[str, str]:
    """Region -> its target's name."""
    return {region: alb_target(region) for region in topology.regions}
