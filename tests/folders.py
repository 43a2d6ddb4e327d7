"""Folders for tests whose servers run as another user, who cannot pass through pytest's own (they are for their owner only).

All stand below one directory, named after the process that made them. Whoever makes one first removes those of processes that are gone, so
that a test run that was killed leaves nothing for longer than until the next one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

BASE = Path("/tmp") / f"crosswatch-tests-{os.getuid()}"


@contextlib.contextmanager
def open_folder(name: str) -> Iterator[Path]:
    """A new folder that every user may pass through; removed at the end."""
    path = make_folder(name)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def make_folder(name: str) -> Path:
    """The same for those who remove it themselves."""
    BASE.mkdir(mode=0o711, exist_ok=True)
    sweep(BASE)
    path = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-{name}-", dir=BASE))
    path.chmod(0o711)
    return path


def sweep(base: Path) -> None:
    """Remove the folders of processes that have ended."""
    for folder in base.iterdir():
        maker = folder.name.partition("-")[0]
        if maker.isdigit() and not Path(f"/proc/{maker}").exists():
            shutil.rmtree(folder, ignore_errors=True)
