"""What a month of 30 days costs, item by item, counted from what `render` emits; beside it, the AWS sample's layout of canaries.

Prices are US list prices as of 2026, without free tiers; `PRICES` says each. Sources: the CloudWatch, Lambda and S3 pricing pages. Custom
metrics are prorated by the hour, so a month of them is a month's price. An alarm pays for each metric it reads, a composite is flat.
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
from stacks.templates import TIMEOUTS_S, schedule
from topology import Topology, load
from topology.signals import SERVICE, all_series, canary_kinds

MINUTES = 30 * 24 * 60
HIGH_RESOLUTION_S = 60
WRAPPER_S = 6.0
"""What a run is billed beyond its rounds: the runtime's own start and end, and the last round."""
LOG_KB_PER_RUN = 20
S3_PUTS_PER_RUN = 3
SAMPLE_CANARIES = 12


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


def sample(topology: Topology, prices: Prices = PRICES) -> list[Item]:
    """The run fees of the AWS sample's layout in the same Regions: twelve one-minute canaries in each."""
    runs = SAMPLE_CANARIES * len(topology.regions) * MINUTES
    per_region = SAMPLE_CANARIES * MINUTES * prices.run
    how = f"{SAMPLE_CANARIES} canaries each minute in {len(topology.regions)} Regions; {per_region:.2f} a Region"
    return [Item("canary runs of the AWS sample", runs, "runs", runs * prices.run, how)]


def _runs(topology: Topology, prices: Prices) -> Iterator[Item]:
    vantages = len(topology.vantage_names)
    for kind in canary_kinds(topology):
        runs = vantages * MINUTES / every_minutes(schedule(topology, kind))
        billed = topology.probe.rounds.until_s + WRAPPER_S if kind == "probe" else TIMEOUTS_S[kind] / 4
        gigabytes = topology.probe.memory_mb / 1024
        yield Item(f"{kind}: runs", runs, "runs", runs * prices.run, f"{vantages} vantages, {schedule(topology, kind)}")
        compute = runs * (billed * gigabytes * prices.lambda_gb_s + prices.lambda_request)
        yield Item(f"{kind}: Lambda", runs * billed * gigabytes, "GB-s", compute, f"{billed:.0f} s a run at {topology.probe.memory_mb} MB")
        logs = runs * LOG_KB_PER_RUN / 1e6
        yield Item(f"{kind}: logs", logs, "GB", logs * prices.log_gb, f"{LOG_KB_PER_RUN} kB a run, stored a month")
        puts = runs * S3_PUTS_PER_RUN
        yield Item(f"{kind}: artifacts", puts, "PUT", puts * prices.s3_put, f"{S3_PUTS_PER_RUN} objects a run")


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


def every_minutes(expression: str) -> float:
    """Minutes between two runs of a ``rate(...)``; a cron expression is counted as hourly."""
    words = expression.removeprefix("rate(").removesuffix(")").split()
    if expression.startswith("rate(") and len(words) == 2:
        return float(words[0]) * (60 if words[1].startswith("hour") else 1)
    return 60.0


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
        table.add_row(
            item.name,
            f"{item.quantity:,.0f} {item.unit}" if item.quantity >= 10 else f"{item.quantity:.2g} {item.unit}",
            f"{item.dollars:,.2f}",
            item.how,
        )
    table.add_section()
    table.add_row("[bold]total[/]", "", f"[bold]{total(ours):,.2f}[/]", "")
    for item in theirs:
        table.add_row(item.name, f"{item.quantity:,.0f} {item.unit}", f"{item.dollars:,.2f}", item.how, style="dim")
    console.print(table)
    return 0
