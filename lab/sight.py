"""What an operator sees: alarms, canaries, routing and the matrix, read from every Region's AWS through boto3, as any console reads them.

`Sight.look` asks all Regions in parallel with short timeouts; a Region that does not answer is reported as silent and the others' answers
stand. Everything in a `View` is plain data with lab times, ready for JSON.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from topology import Topology

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.plan import LabPlan

NAMESPACE = "Crosswatch/Probe"
FRESH_S = 45
WINDOW_S = 180
PERIOD_S = 10
ON = "On"


@dataclass(frozen=True, slots=True)
class View:
    """One look. ``regions`` by name: ``reachable``, ``error``, ``alarms`` and ``canaries``; ``matrix[vantage][target]``: ``state`` (up,
    degraded, down or silent) and ``latency_ms``; ``stored_in``: the Region whose CloudWatch the matrix was read from; ``routing`` by
    Region: on, off or unknown."""

    now: float
    regions: dict[str, dict[str, Any]]
    matrix: dict[str, dict[str, dict[str, Any]]]
    stored_in: str | None
    routing: dict[str, str]

    def troubles(self) -> list[str]:
        """Everything that keeps this from being all-green, in words; empty when all is well."""
        found = [f"{name}: {region['error']}" for name, region in self.regions.items() if not region["reachable"]]
        for name, region in self.regions.items():
            raised = [alarm["name"] for alarm in region["alarms"] if alarm["state"] == "ALARM" and not _remembers(alarm)]
            found += [f"{name}: {alarm} is in ALARM" for alarm in raised]
            unknown = [alarm["name"] for alarm in region["alarms"] if alarm["composite"] and alarm["state"] == "INSUFFICIENT_DATA"]
            found += [f"{name}: {alarm} has no verdict yet" for alarm in unknown]
            if region["reachable"] and not region["alarms"]:
                found.append(f"{name}: no alarms yet")
            found += [
                f"{name}: canary {canary['name']} has {canary['last'].lower() or 'not run yet'}"
                for canary in region["canaries"]
                if canary["last"] != "PASSED"
            ]
            if region["reachable"] and not region["canaries"]:
                found.append(f"{name}: no canaries yet")
        for vantage, row in self.matrix.items():
            found += [f"{vantage} sees {target} {cell['state']}" for target, cell in row.items() if cell["state"] not in {"up", "degraded"}]
        found += [f"routing of {name} is {state}" for name, state in self.routing.items() if state != "on"]
        return found


def _remembers(alarm: dict[str, Any]) -> bool:
    """Whether an alarm speaks of the past: an error budget stays burnt for hours after all is well again."""
    return "-slo-" in alarm["name"]


class Sight:
    """Looks at one lab's AWS as its administrator."""

    def __init__(self, plan: LabPlan, topology: Topology) -> None:
        self._plan = plan
        self._topology = topology
        self._clients: dict[tuple[str, str], Any] = {}
        self._pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="sight")

    def client(self, service: str, region: str, **options: Any) -> Any:
        """A boto3 client with a console's patience: no retries, two seconds."""
        key = (service, str(options.get("endpoint_url", region)))
        if key not in self._clients:
            import boto3
            from botocore.config import Config

            pair = self._plan.credentials["admin"]
            self._clients[key] = boto3.client(
                service,
                aws_access_key_id=pair.access_key,
                aws_secret_access_key=pair.secret_key,
                config=Config(retries={"total_max_attempts": 1}, connect_timeout=1, read_timeout=2),
                **{"region_name": region, "endpoint_url": self._plan.regions[region].aws_endpoint, **options},
            )
        return self._clients[key]

    def look(self) -> View:
        """See everything once; takes as long as the slowest Region, at most a few seconds."""
        names = list(self._plan.regions)
        now = self._plan.clock.now()
        for name in names:  # boto3 makes clients in one thread only
            for service in ("cloudwatch", "synthetics"):
                self.client(service, name)
        futures = {name: self._pool.submit(self._region, name, now) for name in names}
        routing = self._pool.submit(self._routing)
        seen = {name: future.result() for name, future in futures.items()}
        stored_in, matrix = self._freshest({name: region.pop("matrix") for name, region in seen.items()})
        return View(now, seen, matrix, stored_in, routing.result())

    def _region(self, name: str, now: float) -> dict[str, Any]:
        errors: list[str] = []

        def attempt(what: Callable[[], Any], otherwise: Any) -> Any:
            from botocore.exceptions import BotoCoreError, ClientError

            try:
                return what()
            except (BotoCoreError, ClientError) as error:
                errors.append(_in_short(error))
                return otherwise

        alarms = attempt(lambda: self._alarms(name), None)
        if alarms is None and "refused" in errors[0]:
            return {"reachable": False, "error": errors[0], "alarms": [], "canaries": [], "matrix": {}}
        canaries = attempt(lambda: self._canaries(name), [])
        matrix = attempt(lambda: self._matrix(name, now), {})
        return {
            "reachable": alarms is not None,
            "error": "; ".join(dict.fromkeys(errors)),
            "alarms": alarms or [],
            "canaries": canaries,
            "matrix": matrix,
        }

    def _alarms(self, region: str) -> list[dict[str, Any]]:
        pages = self.client("cloudwatch", region).get_paginator("describe_alarms").paginate(AlarmTypes=["MetricAlarm", "CompositeAlarm"])
        return [
            {
                "name": alarm["AlarmName"],
                "arn": alarm["AlarmArn"],
                "state": alarm["StateValue"],
                "since": alarm.get("StateTransitionedTimestamp", alarm["StateUpdatedTimestamp"]).timestamp(),
                "reason": alarm.get("StateReason", ""),
                "description": alarm.get("AlarmDescription", ""),
                "composite": kind == "CompositeAlarms",
                "actions": bool(alarm.get("ActionsEnabled") and alarm.get("AlarmActions")),
            }
            for page in pages
            for kind in ("CompositeAlarms", "MetricAlarms")
            for alarm in page.get(kind, ())
        ]

    def _canaries(self, region: str) -> list[dict[str, Any]]:
        client = self.client("synthetics", region)
        last = {run["CanaryName"]: run["LastRun"] for run in client.describe_canaries_last_run().get("CanariesLastRun", ())}
        return [
            {
                "name": canary["Name"],
                "state": canary["Status"]["State"],
                "last": last.get(canary["Name"], {}).get("Status", {}).get("State", ""),
                "reason": last.get(canary["Name"], {}).get("Status", {}).get("StateReason", ""),
                "started": _epoch(last.get(canary["Name"], {}).get("Timeline", {}).get("Started")),
            }
            for canary in client.describe_canaries().get("Canaries", ())
        ]

    def _matrix(self, region: str, now: float) -> dict[str, dict[str, dict[str, Any]]]:
        """The whole matrix as ``region``'s CloudWatch holds it; ``at`` is the time of a cell's newest datapoint."""
        cells = [(vantage, target) for vantage in self._topology.vantage_names for target in self._topology.targets]
        metrics = {"u": ("Up", "Maximum"), "d": ("Degraded", "Maximum"), "l": ("LatencyMs", "Average")}
        answer = self.client("cloudwatch", region).get_metric_data(
            MetricDataQueries=[
                {
                    "Id": f"{letter}{index}",
                    "MetricStat": {"Metric": self._metric(metric, vantage, target), "Period": PERIOD_S, "Stat": statistic},
                }
                for index, (vantage, target) in enumerate(cells)
                for letter, (metric, statistic) in metrics.items()
            ],
            StartTime=datetime.fromtimestamp(now - WINDOW_S, UTC),
            EndTime=datetime.fromtimestamp(now + PERIOD_S, UTC),
            ScanBy="TimestampDescending",
        )
        newest: dict[str, tuple[float, float]] = {}
        for result in answer["MetricDataResults"]:
            if result["Values"]:
                newest[result["Id"]] = (result["Timestamps"][0].timestamp(), result["Values"][0])
        matrix: dict[str, dict[str, dict[str, Any]]] = {}
        for index, (vantage, target) in enumerate(cells):
            at, up = newest.get(f"u{index}", (0.0, 0.0))
            degraded_at, degraded = newest.get(f"d{index}", (0.0, 0.0))
            fresh = at + PERIOD_S >= now - FRESH_S
            state = "silent" if not fresh else "down" if up < 1 else "degraded" if degraded_at >= at and degraded >= 1 else "up"
            latency = newest.get(f"l{index}", (0.0, None))[1] if state in {"up", "degraded"} else None
            matrix.setdefault(vantage, {})[target] = {"state": state, "latency_ms": latency, "at": at or None}
        return matrix

    def _metric(self, name: str, vantage: str, target: str) -> dict[str, Any]:
        dimensions = {"Workload": self._topology.workload, "Vantage": vantage, "Target": target}
        return {
            "Namespace": NAMESPACE,
            "MetricName": name,
            "Dimensions": [{"Name": key, "Value": value} for key, value in dimensions.items()],
        }

    def _freshest(self, matrices: dict[str, dict[str, Any]]) -> tuple[str | None, dict[str, dict[str, dict[str, Any]]]]:
        """The matrix from the Region that knows most lately; what each vantage writes at home only (latency, degraded) from there."""
        silent = {
            vantage: {target: {"state": "silent", "latency_ms": None, "at": None} for target in self._topology.targets}
            for vantage in self._topology.vantage_names
        }
        held = {name: matrix for name, matrix in matrices.items() if matrix}
        if not held:
            return None, silent

        def freshness(name: str) -> float:
            return sum(cell["at"] or 0.0 for row in held[name].values() for cell in row.values())

        best = max(held, key=freshness)
        merged = held[best]
        for vantage, row in merged.items():
            for target, cell in row.items():
                at_home = held.get(vantage, {}).get(vantage, {}).get(target)
                if at_home and cell["state"] in {"up", "degraded"}:
                    cell["latency_ms"] = at_home["latency_ms"]
                    if at_home["state"] == "degraded" and at_home["at"] >= cell["at"]:
                        cell["state"] = "degraded"
        return best, merged

    def _routing(self) -> dict[str, str]:
        """Each routing control's state from the first ARC endpoint that answers, as the recovery cluster's users are told to read it."""
        from botocore.exceptions import BotoCoreError, ClientError

        routing = self._topology.routing
        if routing is None:
            return {}
        states = dict.fromkeys(routing.controls, "unknown")
        for region, url in routing.cluster_endpoints.items():
            home = region if region in self._plan.regions else next(iter(self._plan.regions))
            try:
                client = self.client("route53-recovery-cluster", home, endpoint_url=url, region_name=region)
                for name, arn in routing.controls.items():
                    state = client.get_routing_control_state(RoutingControlArn=arn)["RoutingControlState"]
                    states[name] = "on" if state == ON else "off"
                return states
            except (BotoCoreError, ClientError):
                continue
        return states


def _epoch(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment else None


def _in_short(error: Exception) -> str:
    response = getattr(error, "response", None)
    if response:
        return f"{response['Error'].get('Code', '')}: {response['Error'].get('Message', '')}"
    kinds = {"EndpointConnectionError": "connection refused", "ConnectTimeoutError": "connect timed out", "ReadTimeoutError": "no answer"}
    return kinds.get(type(error).__name__, type(error).__name__)
