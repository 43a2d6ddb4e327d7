"""The desired state: everything that should stand in every Region, as files and templates, computed from the topology alone.

The same input gives the same bytes. Code and templates are addressed by their hash, so an unchanged part is an unchanged key.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alarms.diagnosis import incidents
from alarms.rendering import region_definitions, ticket_incidents
from canaries import bundle as canary_bundle
from canaries.config import canary_config
from dashboards.rendering import bodies
from paging import bundle as notifier_bundle
from stacks import templates
from stacks.names import PARTS, dashboard_name, home
from topology import Topology
from topology.signals import canary_kinds


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file in the Region's bucket; the key holds the hash of the content."""

    key: str
    data: bytes

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True)
class Part:
    """One stack: its template as text, and the hash that says whether it has changed."""

    name: str
    body: str

    @property
    def sha256(self) -> str:
        """The hash of the template."""
        return hashlib.sha256(self.body.encode()).hexdigest()

    @property
    def key(self) -> str:
        """Where the template stands in the bucket."""
        return f"templates/{self.name}-{self.sha256[:16]}.json"

    @property
    def template(self) -> dict[str, Any]:
        """The template as data."""
        value: dict[str, Any] = json.loads(self.body)
        return value


@dataclass(frozen=True, slots=True)
class RegionState:
    """What should stand in one Region."""

    region: str
    parts: dict[str, Part]
    artifacts: tuple[Artifact, ...]
    definitions: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Desired:
    """What should stand everywhere."""

    topology: Topology
    regions: dict[str, RegionState]
    dashboards: dict[str, str]


def desired(topology: Topology) -> Desired:
    """Render everything."""
    dashboards = bodies(topology)
    return Desired(topology, {region: _region(topology, region, dashboards) for region in topology.watched_regions}, dashboards)


def write(state: Desired, directory: Path) -> list[Path]:
    """Write the rendered state to ``directory``: a folder for each Region, and the dashboards. Returns the files, in order."""
    files = []
    for path, data in _files(state):
        file = directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        files.append(file)
    return files


def _files(state: Desired) -> Iterator[tuple[str, bytes]]:
    for region, part in state.regions.items():
        for name in PARTS:
            yield f"{region}/{name}.template.json", part.parts[name].body.encode()
        yield f"{region}/alarms.json", json.dumps(part.definitions, indent=1).encode()
        for artifact in part.artifacts:
            yield f"{region}/{artifact.key}", artifact.data
    for name, body in state.dashboards.items():
        yield f"dashboards/{name}.json", body.encode()


def _region(topology: Topology, region: str, dashboards: dict[str, str]) -> RegionState:
    code: dict[str, tuple[str, str]] = {}
    artifacts = []
    for kind in canary_kinds(topology):
        built = canary_bundle.build(kind, canary_config(kind, topology, region))
        artifact = Artifact(f"code/{kind}-{built.sha256[:16]}.zip", built.data)
        code[kind] = artifact.key, built.handler
        artifacts.append(artifact)
    texts = {**ticket_incidents(topology, region), **incidents(topology, region)}
    notifier = notifier_bundle.build(notifier_bundle.settings(topology, region, texts, dashboard_name(topology)))
    notifier_artifact = Artifact(f"code/notifier-{notifier.sha256[:16]}.zip", notifier.data)
    definitions = region_definitions(topology, region)
    mine = dashboards if region == home(topology) else {}
    rendered = {
        "foundation": templates.foundation(topology, region),
        "canaries": templates.canaries(topology, region, code),
        "alarms": templates.alarms(topology, region, definitions, notifier_artifact.key, notifier.handler, mine),
    }
    parts = {name: Part(name, templates.body(rendered[name])) for name in PARTS}
    return RegionState(region, parts, (*artifacts, notifier_artifact), tuple({"Region": region, **item} for item in definitions))
