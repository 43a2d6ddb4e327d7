"""Everything that can be said of a topology before it is deployed: placement, definitions, dashboards, runtime, limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from dashboards.validation import validate_body
from stacks.desired import Desired
from stacks.session import Session
from topology import Problem, Topology

TEMPLATE_MAX = 1_000_000
ALARMS_PER_STACK = 500
RUNTIME_NOTICE = timedelta(days=60)

Lint = Callable[[Desired], Iterator[Problem]]


def lint(state: Desired, file: str = "", session: Session | None = None) -> list[Problem]:
    """All findings, worst first. With a ``session`` the runtime is checked against what AWS offers now."""
    found = [problem for check in CHECKS for problem in check(state)]
    if session is not None:
        found += _runtime(state.topology, session)
    ranks = {"error": 0, "warning": 1, "note": 2}
    named = [Problem(p.what, p.mend, p.file or file, p.key, p.line, p.severity, p.check) for p in found]
    return sorted(named, key=lambda problem: (ranks[problem.severity], problem.check, problem.key))


def _vantages(state: Desired) -> Iterator[Problem]:
    """Two vantages cannot tell the loss of a Region from a cut between the two."""
    topology = state.topology
    if len(topology.vantage_names) == 2:
        names = " and ".join(topology.vantage_names)
        yield Problem(
            f"only {names} look at the store: the loss of one and a cut between them look the same",
            "add a third Region under 'vantages'; it need not run the workload",
            key="vantages",
            severity="note",
            check="placement/third-vantage",
        )


def _networks(state: Desired) -> Iterator[Problem]:
    """A canary in a VPC reaches the other Regions' CloudWatch only through a NAT, or through interface endpoints over peering."""
    topology = state.topology
    for region in topology.watched_regions:
        network = topology.network(region)
        if network is None:
            continue
        for other in topology.watched_regions:
            if other == region:
                continue
            private = topology.endpoint(other, "cloudwatch")
            if network.writes_through == "peered-endpoint" and not private:
                yield Problem(
                    f"the canaries in {region} write to {other} through a peered interface endpoint, but none is named",
                    f"name it under endpoints.{other}.cloudwatch, or use a NAT (writes_through: nat)",
                    key=f"regions.{region}.network",
                    check="placement/cross-region-writes",
                )
            if network.writes_through == "peered-endpoint" and private and other in topology.regions and region in topology.regions:
                yield Problem(
                    f"the canaries in {region} write to {other} over the peering they probe through: one cut silences both",
                    "send the writes through a NAT",
                    key=f"regions.{region}.network",
                    severity="warning",
                    check="placement/shared-path",
                )


def _databases(state: Desired) -> Iterator[Problem]:
    """Which clusters take writes is read from RDS: in the own Region, and in a cluster's Region when it left the global database."""
    topology = state.topology
    regions = sorted({region for database in topology.databases.values() for region in database.clusters})
    for vantage in topology.vantage_names:
        network = topology.network(vantage)
        away = [region for region in regions if region != vantage and not topology.endpoint(region, "rds")]
        if network is not None and network.writes_through == "peered-endpoint" and away:
            yield Problem(
                f"the probe in {vantage} stands behind peered interface endpoints and none leads to RDS in {', '.join(away)}: "
                "a cluster there that left its global database cannot be looked at, and a second writer is not seen from here",
                f"name one under endpoints.{away[0]}.rds (and give {vantage} one of its own), or use a NAT (writes_through: nat)",
                key=f"regions.{vantage}.network",
                severity="warning",
                check="placement/database-reads",
            )


def _placement(state: Desired) -> Iterator[Problem]:
    """An alarm about a Region that acts must live in another one."""
    for region, part in state.regions.items():
        for item in part.definitions:
            if item["AlarmName"].endswith(f"impaired-{region}"):
                yield Problem(
                    f"{item['AlarmName']} lives in the Region that it reports on",
                    "deploy it in a Region that survives",
                    key=f"{region}/{item['AlarmName']}",
                    check="placement/own-region",
                )
    if not state.topology.paging.subscriptions:
        yield Problem(
            "nobody is subscribed to pages",
            "add paging.subscriptions, for instance {protocol: https, endpoint: <your pager's address>}",
            key="paging.subscriptions",
            severity="warning",
            check="placement/nobody-listens",
        )


def _alarms(state: Desired) -> Iterator[Problem]:
    """The alarm engine's own checks (docs/alarms/checks), survivability included."""
    from alarms.commands import notifier_texts
    from alarms.definitions import from_items
    from alarms.lint import lint as find

    definitions = [item for part in state.regions.values() for item in part.definitions]
    yield from find(from_items(definitions, "rendered"), state.topology, notifier_texts(state.topology))


def _dashboards(state: Desired) -> Iterator[Problem]:
    for name, body in state.dashboards.items():
        for finding in validate_body(body):
            yield Problem(
                finding.message,
                "mend the template in dashboards/templates",
                key=f"{name}{finding.path}",
                severity=finding.severity,
                check="dashboard/body",
            )


def _limits(state: Desired) -> Iterator[Problem]:
    for region, part in state.regions.items():
        for name, stack in part.parts.items():
            if len(stack.body.encode()) > TEMPLATE_MAX:
                yield Problem(
                    f"the template {name} of {region} has {len(stack.body.encode()):,} bytes; CloudFormation takes {TEMPLATE_MAX:,}",
                    "split the workload into several topologies",
                    key=f"{region}/{name}",
                    check="limits/template",
                )
            if len(stack.template["Resources"]) > ALARMS_PER_STACK:
                yield Problem(
                    f"the stack {name} of {region} has more than {ALARMS_PER_STACK} resources",
                    "split the workload into several topologies",
                    key=f"{region}/{name}",
                    check="limits/resources",
                )


def _runtime(topology: Topology, session: Session) -> Iterator[Problem]:
    """Whether the runtime exists, and how long it will still be accepted; asked of each Region's Synthetics."""
    wanted = topology.probe.runtime
    for region in topology.watched_regions:
        try:
            pages = session.client("synthetics", region).describe_runtime_versions(MaxResults=100)
        except (ClientError, BotoCoreError) as error:
            yield Problem(
                f"the runtimes of {region} could not be read ({error})",
                "check credentials and network; nothing is wrong with the topology itself",
                key="probe.runtime",
                severity="note",
                check="runtime/unread",
            )
            continue
        yield from _judge_runtime(wanted, region, pages["RuntimeVersions"])


def _judge_runtime(wanted: str, region: str, versions: list[dict[str, Any]]) -> Iterator[Problem]:
    now = datetime.now(UTC)
    known = {version["VersionName"]: version for version in versions}
    newest = max((v for v in versions if "python-selenium" in v["VersionName"]), key=lambda v: v["ReleaseDate"], default=None)
    newest_name = newest["VersionName"] if newest else wanted
    if wanted not in known:
        yield Problem(f"{region} has no runtime {wanted}", f"use {newest_name}", key="probe.runtime", check="runtime/unknown")
        return
    ends = known[wanted].get("DeprecationDate")
    if ends is None:
        return
    if ends <= now:
        what = f"{wanted} is deprecated in {region} since {ends:%Y-%m-%d}: canaries with it can be neither created nor changed"
        yield Problem(what, f"use {newest_name}", key="probe.runtime", check="runtime/deprecated")
    elif ends - now < RUNTIME_NOTICE:
        what = f"{wanted} will be deprecated in {region} on {ends:%Y-%m-%d}"
        yield Problem(what, f"move to {newest_name} before", key="probe.runtime", severity="warning", check="runtime/ending")


CHECKS: tuple[Lint, ...] = (_vantages, _networks, _databases, _placement, _alarms, _dashboards, _limits)
