"""The dashboard commands: check bodies offline, and preview them as HTML or PNG from real data."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from dashboards.drawing import page, png
from dashboards.rendering import bodies
from dashboards.series import Data, fetch
from dashboards.times import instant
from dashboards.validation import Finding, validate_body
from topology import Problem, Topology, UnusableInput, load

HOURS_MOST = 455 * 24
"""As long as CloudWatch keeps a metric."""


def check(files: list[Path], as_json: bool, console: Console) -> int:
    """Say what PutDashboard would say of each file; 1 where it would refuse one."""
    found = {str(file): validate_body(_read(file)) for file in files}
    if as_json:
        plain = {name: [_plain(finding) for finding in findings] for name, findings in found.items()}
        console.print_json(json.dumps(plain))
    else:
        for name, findings in found.items():
            for finding in findings:
                color = "red" if finding.severity == "error" else "yellow"
                console.print(f"[{color}]{finding.severity}[/] {name}{finding.path}: ", end="", highlight=False)
                console.print(finding.message, markup=False, highlight=False)
            if not findings:
                console.print(f"[green]{name}: PutDashboard would take it as it is[/]", highlight=False)
    return 1 if any(finding.severity == "error" for findings in found.values() for finding in findings) else 0


def preview(file: Path, out: Path, image: str, hours: float, until: str, console: Console) -> int:
    """Draw every dashboard of the topology from its Regions' data of ``hours`` up to ``until`` (ISO 8601; empty: now).

    Regions that do not answer are drawn empty, with a note.
    """
    topology = load(file)
    if not 0 < hours <= HOURS_MOST:
        raise UnusableInput([Problem(f"{hours} is no time to look back", f"give up to {HOURS_MOST} hours", key="--hours")])
    end = instant(until, "--to").timestamp() if until else time.time()
    out.mkdir(parents=True, exist_ok=True)
    for name, body in bodies(topology).items():
        value = json.loads(body)
        data = _fetch(topology, value, hours, end)
        path = out / f"{name}.{image}"
        if image == "png":
            path.write_bytes(png(value, data, title=name))
        else:
            path.write_text(page(value, data, name), encoding="utf-8")
        notes = sorted({line.note for lines in data.lines.values() for line in lines if line.note})
        console.print(str(path), highlight=False)
        for note in notes:
            console.print("  [yellow]not read[/] ", end="")
            console.print(note, markup=False, highlight=False)
    return 0


def _fetch(topology: Topology, body: dict[str, Any], hours: float, end: float) -> Data:
    import boto3
    from botocore.config import Config

    quick = Config(connect_timeout=3, read_timeout=15, retries={"max_attempts": 2})
    session = boto3.session.Session()  # a profile that does not exist is the user's to mend, not a Region that does not answer
    clients: dict[str, Any] = {}

    def client_for(region: str) -> Any:
        if region not in clients:
            endpoint = topology.endpoint(region, "cloudwatch")
            clients[region] = session.client("cloudwatch", region_name=region, endpoint_url=endpoint, config=quick)
        return clients[region]

    return fetch(body, client_for, end - hours * 3600, end)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        problem = Problem(f"cannot be read: {why}", "give the path of a dashboard body, JSON", str(file))
        raise UnusableInput([problem]) from error


def _plain(finding: Finding) -> dict[str, str]:
    return {"path": finding.path, "message": finding.message, "severity": finding.severity}
