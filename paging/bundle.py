"""The notifier as a Lambda package: a reproducible zip of the module and its configuration."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from topology import Topology

HANDLER = "notifier.handler"
RUNTIME = "python3.12"
EPOCH = (1980, 1, 1, 0, 0, 0)
INTERFACE_ENDPOINTS = ".vpce.amazonaws.com"


@dataclass(frozen=True, slots=True)
class Package:
    """A zip, its SHA-256 in hex, and the handler that Lambda calls."""

    data: bytes
    sha256: str
    handler: str = HANDLER


def page_topic(topology: Topology, region: str) -> str:
    """The ARN of the topic that people subscribe to in ``region``."""
    return f"arn:aws:sns:{region}:{topology.account}:{topology.workload}-pages"


def settings(topology: Topology, region: str, incidents: dict[str, dict[str, Any]], dashboard: str) -> dict[str, Any]:
    """The notifier's configuration in ``region``; ``incidents`` maps alarm names to texts (alarms.diagnosis and alarms.rendering).

    The endpoints are those of the topology, without interface endpoints: they answer within a VPC, in which the notifier does not stand.
    """
    endpoints = {service: topology.endpoint(region, service) for service in ("sns", "cloudwatch")}
    return {
        "workload": topology.workload,
        "region": region,
        "topic": page_topic(topology, region),
        "dashboard": dashboard,
        "console_url": topology.paging.console_url,
        "endpoints": {service: url for service, url in endpoints.items() if url and not _interface(url)},
        "vantages": list(topology.vantage_names),
        "targets": list(topology.targets),
        "incidents": incidents,
    }


def _interface(url: str) -> bool:
    return (urlsplit(url).hostname or "").endswith(INTERFACE_ENDPOINTS)


def build(configuration: dict[str, Any]) -> Package:
    """The Lambda package; the same input gives the same bytes."""
    files = {
        "config.json": json.dumps(configuration, indent=1, sort_keys=True),
        "notifier.py": (Path(__file__).parent / "notifier.py").read_text(encoding="utf-8"),
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    data = buffer.getvalue()
    return Package(data, hashlib.sha256(data).hexdigest())
