"""What tests leave behind when they are killed is swept away by the next."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.folders import open_folder, sweep


def test_a_folder_of_a_process_that_was_killed_is_swept(tmp_path: Path) -> None:
    """A folder of a living process stays, whoever sweeps."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    dead, alive = tmp_path / f"{child.pid}-lab-x", tmp_path / f"{os.getpid()}-lab-x"
    for folder in (dead, alive):
        folder.mkdir()
        (folder / "plan.json").write_text("{}", encoding="utf-8")
    sweep(tmp_path)
    assert dead.exists()
    child.kill()
    child.wait()
    sweep(tmp_path)
    assert not dead.exists()
    assert alive.exists()


def test_a_folder_lets_others_pass_and_is_removed() -> None:
    """PostgreSQL's user walks through it to its own data."""
    with open_folder("here") as folder:
        assert folder.stat().st_mode & 0o777 == 0o711
    assert not folder.exists()


def test_temporary_files_of_tests_and_their_children_are_pytests(tmp_path_factory: object) -> None:
    """mkdtemp here and in a child process stays out of /tmp itself."""
    command = [sys.executable, "-c", "import tempfile; print(tempfile.gettempdir())"]
    theirs = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert theirs == tempfile.gettempdir()
    assert "pytest-" in theirs
