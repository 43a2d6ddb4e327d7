"""Route 53's operations on health checks, and the metrics that health checks publish: the half of the service that is not about zones."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lab.aws.service import AwsError
from lab.aws.support import stamp
from lab.dns.checks import CHECKER_REGIONS, HealthCheck, HealthChecks

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.aws.service import Context, World
    from lab.dns.records import ZoneBook

HOME = "us-east-1"
NAMESPACE = "AWS/Route53"
DEFAULT_PORTS = {"HTTP": 80, "HTTP_STR_MATCH": 80, "HTTPS": 443, "HTTPS_STR_MATCH": 443}
CHECKER_ADDRESSES = {region: f"192.0.2.{index + 1}" for index, region in enumerate(CHECKER_REGIONS)}


class CheckOperations:
    """Mixed into the service, which has ``world``, ``zones`` and ``checks``."""

    world: World
    zones: ZoneBook
    checks: HealthChecks

    def create_health_check(self, _ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """A new health check. The same caller reference and configuration gives the one that exists."""
        reference = params["CallerReference"]
        config = complete(params["HealthCheckConfig"])
        check = next((check for check in self.checks.all() if check.caller_reference == reference), None)
        if check is not None and check.config != config:
            raise AwsError(
                "HealthCheckAlreadyExists", f"A health check with the caller reference {reference} exists with other settings.", 409
            )
        if check is None:
            check = HealthCheck(secrets.token_hex(16), reference, config, 1, self._alarm_of(config))
            check = replace(check, id=_uuid(check.id))
            self.checks.put(check)
        return {"HealthCheck": shape_of(check), "Location": f"https://route53.amazonaws.com/2013-04-01/healthcheck/{check.id}"}

    def get_health_check(self, _ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """A health check's settings."""
        return {"HealthCheck": shape_of(self._check(params))}

    def list_health_checks(self, _ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """All health checks."""
        checks = self.checks.all()
        most, marker = int(params.get("MaxItems") or 100), params.get("Marker") or ""
        start = next((index for index, check in enumerate(checks) if check.id >= marker), len(checks))
        rest = checks[start + most :]
        answer: dict[str, Any] = {
            "HealthChecks": [shape_of(check) for check in checks[start : start + most]],
            "Marker": marker,
            "IsTruncated": bool(rest),
            "MaxItems": str(most),
        }
        return {**answer, **({"NextMarker": rest[0].id} if rest else {})}

    def get_health_check_count(self, _ctx: Context, _params: dict[str, Any]) -> dict[str, Any]:
        """How many health checks there are."""
        return {"HealthCheckCount": len(self.checks.all())}

    def update_health_check(self, _ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Change the settings that are given; the type cannot change. A CLOUDWATCH_METRIC check takes its alarm's settings over anew."""
        check = self._check(params)
        expected = params.get("HealthCheckVersion")
        if expected is not None and int(expected) != check.version:
            raise AwsError("HealthCheckVersionMismatch", f"The health check is at version {check.version}, not {expected}.", 409)
        changes = {key: value for key, value in params.items() if key not in ("HealthCheckId", "HealthCheckVersion", "ResetElements")}
        config = {key: value for key, value in check.config.items() if key not in (params.get("ResetElements") or ())}
        config = complete({**config, **changes})
        check = replace(check, config=config, version=check.version + 1, alarm=self._alarm_of(config))
        self.checks.put(check)
        return {"HealthCheck": shape_of(check)}

    def delete_health_check(self, _ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Delete a health check that no other one watches. Records that name it are healthy from then on."""
        check = self._check(params)
        if any(check.id in (other.config.get("ChildHealthChecks") or ()) for other in self.checks.all()):
            raise AwsError("HealthCheckInUse", f"The health check {check.id} is a child of another health check.")
        self.checks.remove(check.id)
        return {}

    def get_health_check_status(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """What each checker last saw; for a check that probes nothing, its state as every checker knows it."""
        check = self._check(params)
        if check.is_endpoint:
            observations = [
                _observation(checker.region, checker.last.text, checker.checked_at or ctx.now)
                for checker in self.checks.checkers(check.id)
                if checker.last is not None
            ]
            return {"HealthCheckObservations": observations}
        text = "Success: the health check is healthy." if self.checks.is_healthy(check.id) else "Failure: the health check is unhealthy."
        return {"HealthCheckObservations": [_observation(region, text, ctx.now) for region in CHECKER_REGIONS]}

    def get_health_check_last_failure_reason(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Why each checker last failed; checkers that never did are left out."""
        check = self._check(params)
        if not check.is_endpoint:
            raise AwsError("InvalidInput", f"A health check of type {check.type} has no last failure reason.")
        return {
            "HealthCheckObservations": [
                _observation(checker.region, checker.last_failure.text, checker.checked_at or ctx.now)
                for checker in self.checks.checkers(check.id)
                if checker.last_failure is not None
            ]
        }

    def get_checker_ip_ranges(self, _ctx: Context, _params: dict[str, Any]) -> dict[str, Any]:
        """Where health checkers ask from: in the lab, this machine."""
        return {"CheckerIpRanges": ["127.0.0.0/8"]}

    def publish(self, _now: float) -> None:
        """Publish each enabled check's metrics to CloudWatch in us-east-1; a lab without that Region has nowhere to see them."""
        if HOME not in self.world.regions:
            return
        for check in self.checks.all():
            if check.config.get("Disabled"):
                continue
            healthy = self.checks.is_healthy(check.id)
            self._vend(check, "HealthCheckStatus", float(healthy))
            checkers = self.checks.checkers(check.id)
            if checkers:
                share = 100.0 * sum(checker.healthy for checker in checkers) / len(checkers)
                self._vend(check, "HealthCheckPercentageHealthy", share, "Percent")
            if check.type == "CALCULATED":
                self._vend(check, "ChildHealthCheckHealthyCount", float(self.checks.children_healthy(check)), "Count")
            if check.config.get("MeasureLatency"):
                for checker in checkers:
                    for name, value in (checker.last.timings if checker.last else {}).items():
                        self._vend(check, name, value, "Milliseconds", Region=checker.region)

    def read_metric(self, region: str, alarm: Mapping[str, Any]) -> list[float | None]:
        """The newest ``EvaluationPeriods`` values of an alarm's metric, oldest first; none where CloudWatch does not answer."""
        period, count = int(alarm["Period"]), int(alarm["EvaluationPeriods"])
        end = self.world.clock.now() // period * period
        try:
            answer = self.world.call(
                region,
                "cloudwatch",
                "get_metric_statistics",
                Namespace=alarm["Namespace"],
                MetricName=alarm["MetricName"],
                Dimensions=list(alarm.get("Dimensions") or ()),
                StartTime=stamp(end - period * count),
                EndTime=stamp(end),
                Period=period,
                Statistics=[alarm["Statistic"]],
            )
        except AwsError:
            return []
        found = {round(point["Timestamp"].timestamp()): float(point[alarm["Statistic"]]) for point in answer.get("Datapoints", ())}
        return [found.get(round(end - period * (count - index))) for index in range(count)]

    def _vend(self, check: HealthCheck, metric: str, value: float, unit: str = "None", **dimensions: str) -> None:
        publish: Callable[..., None] | None = getattr(self.world, "vend", None)
        if publish is not None:
            publish(HOME, NAMESPACE, metric, {"HealthCheckId": check.id, **dimensions}, value, unit)

    def _check(self, params: dict[str, Any]) -> HealthCheck:
        check = self.checks.get(params["HealthCheckId"])
        if check is None:
            raise AwsError("NoSuchHealthCheck", f"No health check exists with the specified ID: {params['HealthCheckId']}", 404)
        return check

    def _alarm_of(self, config: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The metric and threshold of a CLOUDWATCH_METRIC check's alarm, as it is now."""
        if config["Type"] != "CLOUDWATCH_METRIC":
            return None
        wanted = config["AlarmIdentifier"]
        found = self.world.call(wanted["Region"], "cloudwatch", "describe_alarms", AlarmNames=[wanted["Name"]]).get("MetricAlarms") or []
        if not found:
            raise AwsError("InvalidInput", f"There is no metric alarm {wanted['Name']} in {wanted['Region']}.")
        alarm = found[0]
        problems = [
            text
            for wrong, text in (
                (alarm.get("Metrics"), "uses metric math"),
                (alarm.get("ExtendedStatistic"), "uses an extended statistic"),
                (int(alarm.get("Period") or 60) < 60, "has a period below 60 seconds"),
                (alarm.get("DatapointsToAlarm") not in (None, alarm.get("EvaluationPeriods")), "needs M out of N datapoints"),
            )
            if wrong
        ]
        if problems:
            raise AwsError("InvalidInput", f"The alarm {wanted['Name']} {' and '.join(problems)}, which a health check cannot follow.")
        keys = ("Namespace", "MetricName", "Dimensions", "Statistic", "Period", "EvaluationPeriods", "Threshold", "ComparisonOperator")
        return {key: alarm[key] for key in keys if key in alarm}


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """A HealthCheckConfig with Route 53's defaults. Raises `AwsError` with everything that is wrong with it."""
    full = {"Inverted": False, "Disabled": False, **{key: value for key, value in config.items() if value is not None}}
    kind = full["Type"]
    problems: list[str] = []
    if kind in DEFAULT_PORTS or kind == "TCP":
        full = {"RequestInterval": 30, "FailureThreshold": 3, "MeasureLatency": False, **full}
        if kind in DEFAULT_PORTS:
            full.setdefault("Port", DEFAULT_PORTS[kind])
        if kind.startswith("HTTPS"):
            full.setdefault("EnableSNI", True)
        problems += _endpoint_problems(full)
    else:
        needed = {"CALCULATED": ("HealthThreshold",), "RECOVERY_CONTROL": ("RoutingControlArn",)}.get(kind, ("AlarmIdentifier",))
        problems += [f"{key} is required for a health check of type {kind}" for key in needed if key not in full]
        if kind == "CALCULATED":
            full.setdefault("ChildHealthChecks", [])
        if kind == "CLOUDWATCH_METRIC":
            full.setdefault("InsufficientDataHealthStatus", "LastKnownStatus")
    if problems:
        raise AwsError("InvalidInput", "Invalid parameter : " + "; ".join(problems))
    return full


def _endpoint_problems(config: dict[str, Any]) -> list[str]:
    problems = []
    if not config.get("IPAddress") and not config.get("FullyQualifiedDomainName"):
        problems.append("either IPAddress or FullyQualifiedDomainName is required")
    if "Port" not in config:
        problems.append("Port is required for a health check of type TCP")
    if int(config["RequestInterval"]) not in (10, 30):
        problems.append(f"RequestInterval must be 10 or 30, not {config['RequestInterval']}")
    if not 1 <= int(config["FailureThreshold"]) <= 10:
        problems.append(f"FailureThreshold must be from 1 to 10, not {config['FailureThreshold']}")
    if config["Type"].endswith("_STR_MATCH") and not config.get("SearchString"):
        problems.append(f"SearchString is required for a health check of type {config['Type']}")
    if config.get("Regions") is not None and len(config["Regions"]) < 3:
        problems.append("Regions must name at least three")
    return problems


def shape_of(check: HealthCheck) -> dict[str, Any]:
    """A HealthCheck in the API's shape."""
    shape: dict[str, Any] = {
        "Id": check.id,
        "CallerReference": check.caller_reference,
        "HealthCheckConfig": dict(check.config),
        "HealthCheckVersion": check.version,
    }
    if check.alarm is not None:
        shape["CloudWatchAlarmConfiguration"] = dict(check.alarm)
    return shape


def _observation(region: str, text: str, at: float) -> dict[str, Any]:
    return {
        "Region": region,
        "IPAddress": CHECKER_ADDRESSES.get(region, "192.0.2.99"),
        "StatusReport": {"Status": text, "CheckedTime": stamp(at)},
    }


def _uuid(text: str) -> str:
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
