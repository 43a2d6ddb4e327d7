"""Bundles: the zip that a canary runs from, the same bytes for the same input.

Layout (CloudWatch_Synthetics_WritingCanary_Python): ``python/<kind>.py`` with the handler, ``python/config.json``, our modules under
``python/canaries``, vendored packages beside them. Nothing in it is newer than Python 3.11.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = Literal["probe", "journey", "ledger"]
KINDS: Final[tuple[Kind, ...]] = ("probe", "journey", "ledger")
LIMIT_BYTES: Final = 2_000_000
EPOCH: Final = (1980, 1, 1, 0, 0, 0)
PACKAGE: Final = Path(__file__).parent

VENDORED: Final = ("dnspython",)
PINNED: Final = {"dnspython": "2.9.2"}  # as in pyproject.toml; another version would be another bundle
ENTRY: Final = '''"""The canary's entry point."""

from canaries.{kind}.main import handler

__all__ = ["handler"]
'''
IMPORTED_AS: Final = {"dnspython": "dns"}


class BundleError(Exception):
    """A bundle cannot be built here; the text says how to mend that."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A built zip. ``sha256`` is of its bytes, in hexadecimal; ``vendored`` are the packages in it with their versions."""

    kind: Kind
    data: bytes
    sha256: str
    handler: str
    files: tuple[str, ...]
    vendored: Mapping[str, str]

    @property
    def file_name(self) -> str:
        """A name that changes with the content."""
        return f"{self.kind}-{self.sha256[:16]}.zip"


def build(kind: Kind, config: Mapping[str, Any]) -> Bundle:
    """Build the bundle of a canary with its configuration. Raises BundleError when a vendored package is absent or of another version."""
    files = {
        f"python/{kind}.py": ENTRY.format(kind=kind).encode(),
        "python/config.json": json.dumps(config, indent=1, sort_keys=True).encode() + b"\n",
        "python/canaries/__init__.py": (PACKAGE / "__init__.py").read_bytes(),
    }
    for part in ("shared", kind):
        files |= {f"python/canaries/{part}/{path.name}": path.read_bytes() for path in (PACKAGE / part).glob("*.py")}
    for name in VENDORED:
        files |= {f"python/{path}": data for path, data in vendor(name).items()}
    data = archive(files)
    if len(data) > LIMIT_BYTES:
        raise BundleError(f"{kind}: the bundle has {len(data)} bytes, more than {LIMIT_BYTES}")
    versions = {name: PINNED[name] for name in VENDORED}
    return Bundle(kind, data, hashlib.sha256(data).hexdigest(), f"{kind}.handler", tuple(sorted(files)), versions)


def vendor(name: str) -> dict[str, bytes]:
    """The Python files and licence of an installed distribution, by path. Raises BundleError."""
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        raise BundleError(f"{name} is not installed; pip install {name}=={PINNED[name]}") from None
    if distribution.version != PINNED[name]:
        raise BundleError(f"{name} {distribution.version} is installed, the bundle pins {PINNED[name]}; pip install {name}=={PINNED[name]}")
    folder = IMPORTED_AS[name]
    found: dict[str, bytes] = {}
    for path in distribution.files or ():
        if (path.parts[0] == folder and path.suffix == ".py") or path.name == "LICENSE":
            found[path.as_posix() if path.parts[0] == folder else f"{folder}/LICENSE"] = Path(str(path.locate())).read_bytes()
    if not any(each.endswith(".py") for each in found):
        raise BundleError(f"{name} is installed without its Python files; pip install --force-reinstall {name}=={PINNED[name]}")
    return found


def archive(files: Mapping[str, bytes]) -> bytes:
    """A zip whose bytes depend on names and contents alone: sorted, one date, one mode; stored, since what zlib makes of the same input
    differs from build to build of it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as target:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.compress_type = zipfile.ZIP_STORED
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            target.writestr(entry, files[name])
    return buffer.getvalue()
