"""Which packages a script finds without bringing them: those of Lambda's Python runtime and of the Synthetics layer, and no others.

A laptop has many more installed. A bundle that forgot to vendor one must fail here as it would on AWS, so everything else is hidden.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

LAMBDA: Final = frozenset({"boto3", "botocore", "s3transfer", "jmespath", "dateutil", "six", "urllib3", "awscrt"})
LAYER: Final = frozenset({
    "selenium", "trio", "trio_websocket", "wsproto", "h11", "outcome", "sniffio", "sortedcontainers", "attr", "attrs", "idna", "certifi",
    "socks", "websocket", "typing_extensions", "exceptiongroup",
})  # fmt: skip


class RuntimePackages:
    """A meta path finder for the packages above, in ``folders``."""

    def __init__(self, folders: Sequence[str]) -> None:
        self._folders = list(folders)

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The spec of a package that AWS has too; None leaves the question to the next finder."""
        if path is None and fullname in LAMBDA | LAYER:
            return PathFinder.find_spec(fullname, self._folders, target)
        return None


def install(layer: str, opt: str, folders: Sequence[str]) -> None:
    """Lay out ``sys.path`` as Lambda does: the script's ``/opt/python`` first, then the layer's library."""
    sys.path[:0] = [f"{opt}/python", layer]
    sys.meta_path.append(RuntimePackages(folders))
