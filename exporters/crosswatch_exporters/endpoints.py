"""Where a signal goes, and whether that place is AWS's."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

# https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch-OTLPEndpoint.html; the service name is also the one SigV4
# signs for.
SERVICE_OF_SIGNAL = {"traces": "xray", "logs": "logs", "metrics": "monitoring"}

_AWS_HOST = re.compile(
    r"(?:^|\.)(?P<service>xray|logs|monitoring)(?:-fips)?\.(?P<region>[a-z]{2}(?:-[a-z]+)+-\d+)\.(?:vpce\.)?(?:amazonaws\.com(?:\.cn)?|api\.aws)$"
)


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint of one signal: a full URL, extra headers, and the Region it stands in (empty when unknown).

    `api` names the AWS service whose API this is, which is signed wherever it stands; it is empty for OTLP endpoints, which may be
    anybody's.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    region: str = ""
    api: str = ""

    @property
    def host(self) -> str:
        """Host name without port, lower case; empty when the URL has none."""
        return (urlsplit(self.url).hostname or "").lower()


def aws_service_of(url: str) -> tuple[str, str] | None:
    """(service, Region) when the URL's host is one of AWS's telemetry endpoints, interface endpoints included."""
    match = _AWS_HOST.search((urlsplit(url).hostname or "").lower())
    return (match["service"], match["region"]) if match else None


def with_signal_path(base: str, signal: str) -> str:
    """OTEL_EXPORTER_OTLP_ENDPOINT is a base to which the signal's path is added."""
    return f"{base.rstrip('/')}/v1/{signal}"


def aws_url(service: str, region: str, environ: Mapping[str, str]) -> str:
    """The service's endpoint, without a path, as the AWS SDKs find it: AWS_ENDPOINT_URL_<SERVICE>, AWS_ENDPOINT_URL, or the public one."""
    names = {"monitoring": "CLOUDWATCH", "logs": "CLOUDWATCH_LOGS", "xray": "XRAY"}
    # The SDKs' name for CloudWatch Logs is CLOUDWATCH_LOGS; LOGS is what people write.
    candidates = [f"AWS_ENDPOINT_URL_{names[service]}", *(["AWS_ENDPOINT_URL_LOGS"] if service == "logs" else []), "AWS_ENDPOINT_URL"]
    if environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() != "true":
        for name in candidates:
            if environ.get(name):
                return environ[name].rstrip("/")
    suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return f"https://{service}.{region}.{suffix}"


def default_route(signal: str, region: str, environ: Mapping[str, str], headers: Mapping[str, str]) -> Route | None:
    """AWS's OTLP endpoint for traces and logs; metrics go over OTLP only where an endpoint is given. None without a Region."""
    if not region or (signal == "metrics" and environ):
        return None
    return Route(f"{aws_url(SERVICE_OF_SIGNAL[signal], region, environ)}/v1/{signal}", headers, region)
