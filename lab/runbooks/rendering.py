"""From the files in ``documents/`` and ``scripts/`` to documents as Systems Manager takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
DOCUMENTS, SCRIPTS = HERE / "documents", HERE / "scripts"
MOST_BYTES = 64 * 1024


class _Loader(yaml.SafeLoader):
    """Safe YAML that knows ``!script``."""


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, so that scripts stay readable."""


def _script(loader: _Loader, node: yaml.Node) -> str:
    return (SCRIPTS / str(loader.construct_scalar(node))).read_text()  # type: ignore[arg-type]


def _text(dumper: _Dumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Loader.add_constructor("!script", _script)
_Dumper.add_representer(str, _text)


def render(workload: str, role: str) -> dict[str, str]:
    """The documents by name (``<workload>-<Action>``), as YAML. ``role`` is the ARN that they assume unless told otherwise.

    Raises ValueError where one is larger than the 64 KB that Systems Manager takes.
    """
    rendered = {}
    for file in sorted(DOCUMENTS.glob("*.yaml")):
        text = file.read_text().replace("@workload@", workload).replace("@role@", role)
        document: dict[str, Any] = yaml.load(text, _Loader)
        content = yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=1000)
        if len(content.encode()) > MOST_BYTES:
            raise ValueError(f"{file.name} has {len(content.encode())} bytes; Systems Manager takes {MOST_BYTES}")
        rendered[f"{workload}-{file.stem}"] = content
    return rendered
