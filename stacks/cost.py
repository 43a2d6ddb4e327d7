"""What a month of 30 days costs, item by item, counted from what `render` emits; beside it, the AWS sample's layout of canaries.

Prices are US list prices as of 2026, without free tiers; `PRICES` says each. Sources: the CloudWatch, Lambda and S3 pricing pages. Custom
metrics are prorated by the hour, so a month of them is a month's price. An alarm pays for each metric it reads, a composite is flat. The
network (NAT, interface endpoints) and traces are counted on neither side.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from stacks.desired import Desired, desired
from stacks.templates import schedule, timeout_s
from topology import Topology, load
from topology.schedules import runs_a_day
from topology.signals import SERVICE, all_series, canary_kinds

DAYS = 30
MINUTES = DAYS * 24 * 60
HIGH_RESOLUTION_S = 60
WRAPPER_S = 6.0
"""What a run is billed beyond its rounds: the runtime's own start and end, and the last round."""
LOG_KB_PER_RUN = 20
S3_PUTS_PER_RUN = 3
BOOK_WRITES_PER_RUN = 5
"""How often the ledger lists or writes its book: it is saved before and after whatever may be cut short. It is read once."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What the AWS sample lays out in each Region (aws-samples/sample-multi-region-resilient-microservice-on-aws, deployment/).

    ``billed_s`` and ``memory_mb`` are assumed: the runtime's own time and two seconds of requests, in the least memory that Synthetics
    gives. The rest is counted: canaries.yaml has four journeys to each of three targets, monitoring.yml the alarms; ``metrics`` are
    OrdersCreated and RegionDNSActive, since what Synthetics itself measures is free.
    """

    canaries: int = 12
    billed_s: float = WRAPPER_S + 2
    memory_mb: int = 960
    alarms: int = 13
    composites: int = 3
    metrics: int = 2
    dashboards: int = 2


SAMPLE = Sample()


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars."""

    run: float = 0.0012
    lambda_gb_s: float = 0.0000166667
    lambda_request: float = 0.20 / 1e6
    metric: float = 0.30
    put_metric_data: float = 0.01 / 1000
    alarm_metric: float = 0.10
    alarm_metric_high: float = 0.30
    composite: float = 0.50
    log_gb: float = 0.53
    s3_put: float = 0.005 / 1000
    s3_get: float = 0.0004 / 1000
    dashboard: float = 3.00


PRICES = Prices()


@dataclass(frozen=True, slots=True)
class Item:
    """One line of the estimate. ``how`` says how the quantity was counted."""

    name: str
    quantity: float
    unit: str
    dollars: float
    how: str


def estimate(state: Desired, prices: Prices = PRICES) -> list[Item]:
    """The items of the rendered topology."""
    return [*_runs(state.topology, prices), *_metrics(state.topology, prices), *_alarms(state, prices), _dashboards(state, prices)]


def total(items: list[Item]) -> float:
    """Dollars a month."""
    return sum(item.dollars for item in items)


def sample(topology: Topology, prices: Prices = PRICES, layout: Sample = SAMPLE) -> list[Item]:
    """The items of the AWS sample's layout in the same Regions: twelve one-minute canaries in each, with their alarms."""
    regions = len(topology.regions)
    runs = layout.canaries * regions * MINUTES
    per_region = layout.canaries * MINUTES * prices.run
    how = f"{layout.canaries} canaries each minute in {regions} Regions; {per_region:.2f} a Region"
    alarms, composites, metrics = layout.alarms * regions, layout.composites * regions, layout.metrics * regions
    dashboards = layout.dashboards * regions + 1
    return [
        Item("canary runs of the AWS sample", runs, "runs", runs * prices.run, how),
        *_executions("sample", runs, layout.billed_s, layout.memory_mb, prices),
        Item("sample: metrics", metrics, "metrics", metrics * prices.metric, "OrdersCreated and RegionDNSActive; Synthetics' own are free"),
        Item("sample: alarms", alarms, "alarm metrics", alarms * prices.alarm_metric, f"{layout.alarms} a Region, one-minute"),
        Item("sample: composite alarms", composites, "alarms", composites * prices.composite, f"{layout.composites} a Region"),
        Item("sample: dashboards", dashboards, "dashboards", dashboards * prices.dashboard, f"{layout.dashboards} a Region, one for all"),
    ]


def _runs(topology: Topology, prices: Prices) -> Iterator[Item]:
    vantages = len(topology.vantage_names)
    for kind in canary_kinds(topology):
        runs = vantages * DAYS * runs_a_day(schedule(topology, kind))
        billed = topology.probe.rounds.until_s + WRAPPER_S if kind == "probe" else timeout_s(topology, kind) / 4
        yield Item(f"{kind}: runs", runs, "runs", runs * prices.run, f"{vantages} vantages, {schedule(topology, kind)}")
        yield from _executions(kind, runs, billed, topology.probe.memory_mb, prices)
        if kind == "ledger":
            yield from _ledger(topology, runs, prices)


def _executions(name: str, runs: float, billed_s: float, memory_mb: int, prices: Prices) -> Iterator[Item]:
    """What ``runs`` cost beside their fee: Lambda, logs, artifacts."""
    gigabyte_s = runs * billed_s * memory_mb / 1024
    compute = gigabyte_s * prices.lambda_gb_s + runs * prices.lambda_request
    yield Item(f"{name}: Lambda", gigabyte_s, "GB-s", compute, f"{billed_s:.0f} s a run at {memory_mb} MB")
    logs = runs * LOG_KB_PER_RUN / 1e6
    yield Item(f"{name}: logs", logs, "GB", logs * prices.log_gb, f"{LOG_KB_PER_RUN} kB a run, stored a month")
    puts = runs * S3_PUTS_PER_RUN
    yield Item(f"{name}: artifacts", puts, "PUT", puts * prices.s3_put, f"{S3_PUTS_PER_RUN} objects a run")


def _ledger(topology: Topology, runs: float, prices: Prices) -> Iterator[Item]:
    """What only the ledger asks for: its metrics written everywhere, its book."""
    regions = len(topology.watched_regions)
    yield Item("ledger: PutMetricData", runs * regions, "requests", runs * regions * prices.put_metric_data, "one a run to every Region")
    book = runs * (BOOK_WRITES_PER_RUN * prices.s3_put + prices.s3_get)
    how = f"{BOOK_WRITES_PER_RUN} PUT or LIST and one GET a run"
    yield Item("ledger: book", runs * (BOOK_WRITES_PER_RUN + 1), "requests", book, how)


def _metrics(topology: Topology, prices: Prices) -> Iterator[Item]:
    mine = [(signal, series) for signal, series in all_series(topology) if not signal.vended]
    probe = sum(signal.namespace != SERVICE for signal, _ in mine)
    services = len(mine) - probe
    yield Item("metrics of the canaries", probe, "metrics", probe * prices.metric, "the whole matrix in every Region")
    if services:
        synthetic = len(topology.regions)
        series = services + synthetic
        how = "request durations of each service in each Region, and of synthetic requests in each"
        yield Item("metrics of the services", series, "metrics", series * prices.metric, how)
    rounds = topology.probe.rounds
    each = max(1, int((rounds.until_s - rounds.offset_s) // rounds.every_s) + 1)
    requests = len(topology.vantage_names) * MINUTES * each * len(topology.watched_regions)
    yield Item("PutMetricData", requests, "requests", requests * prices.put_metric_data, f"{each} rounds a minute, to every Region")


def _alarms(state: Desired, prices: Prices) -> Iterator[Item]:
    definitions = [item for region in state.regions.values() for item in region.definitions]
    composites = [item for item in definitions if "AlarmRule" in item]
    metric_alarms = [item for item in definitions if "AlarmRule" not in item]
    high = sum(_metrics_read(item) for item in metric_alarms if _period(item) < HIGH_RESOLUTION_S)
    standard = sum(_metrics_read(item) for item in metric_alarms if _period(item) >= HIGH_RESOLUTION_S)
    yield Item("alarms, high resolution", high, "alarm metrics", high * prices.alarm_metric_high, "10-second alarms, each metric they read")
    yield Item("alarms, standard", standard, "alarm metrics", standard * prices.alarm_metric, "one-minute alarms, each metric they read")
    yield Item("composite alarms", len(composites), "alarms", len(composites) * prices.composite, "one for each diagnosis")


def _dashboards(state: Desired, prices: Prices) -> Item:
    count = len(state.dashboards)
    return Item("dashboards", count, "dashboards", count * prices.dashboard, "global: deployed once")


def _metrics_read(item: dict[str, Any]) -> int:
    return sum("MetricStat" in query for query in item.get("Metrics", ())) or 1


def _period(item: dict[str, Any]) -> int:
    periods = [query["MetricStat"]["Period"] for query in item.get("Metrics", ()) if "MetricStat" in query]
    return int(min(periods, default=item.get("Period", 60)))


def command(file: Path, as_json: bool, console: Console) -> int:
    """Print the estimate; the command line's `cost`."""
    state = desired(load(file))
    ours, theirs = estimate(state), sample(state.topology)
    if as_json:
        rows = [{"name": i.name, "quantity": i.quantity, "unit": i.unit, "dollars": round(i.dollars, 2), "how": i.how} for i in ours]
        reference = [{"name": i.name, "quantity": i.quantity, "unit": i.unit, "dollars": round(i.dollars, 2), "how": i.how} for i in theirs]
        summary = {"items": rows, "total": round(total(ours), 2), "sample": reference, "sample_total": round(total(theirs), 2)}
        console.print_json(json.dumps(summary))
        return 0
    table = Table(title=f"{state.topology.workload}: a month of 30 days, US dollars", title_justify="left")
    table.add_column("item")
    table.add_column("quantity", justify="right")
    table.add_column("dollars", justify="right")
    table.add_column("counted as", style="dim")
    for item in ours:
        table.add_row(item.name, _amount(item), f"{item.dollars:,.2f}", item.how)
    table.add_section()
    table.add_row("[bold]total[/]", "", f"[bold]{total(ours):,.2f}[/]", "")
    table.add_section()
    for item in theirs:
        table.add_row(item.name, _amount(item), f"{item.dollars:,.2f}", item.how, style="dim")
    table.add_row("total of the AWS sample's layout", "", f"{total(theirs):,.2f}", "for comparison", style="dim")
    console.print(table)
    return 0


def _amount(item: Item) -> str:
    return f"{item.quantity:,.0f} {item.unit}" if item.quantity >= 10 else f"{item.quantity:.2g} {item.unit}"
