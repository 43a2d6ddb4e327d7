"""The house rules: arrows run one way, links lead somewhere, nothing names this machine or a package registry."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(#[^)\s]*)?\)")
REGISTRIES = ("py" + "pi.org", "python" + "hosted.org", "registry.npm" + "js.org", "deb.deb" + "ian.org")


def tracked(*patterns: str) -> list[Path]:
    """The files that git tracks and that still stand; all files below the root where there is no git."""
    result = subprocess.run(["git", "ls-files", "-z", *patterns], cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode:
        return [path for pattern in patterns or ("**/*",) for path in ROOT.glob(pattern) if path.is_file() and ".venv" not in path.parts]
    return [path for name in result.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def test_arrows_run_one_way() -> None:
    """The import contract holds: lab -> stacks -> rooms -> topology, rooms apart from each other."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)
    assert result.returncode == 0, result.stdout[-3000:]


def test_no_two_test_modules_share_a_name() -> None:
    """Pytest imports a test module by its bare name: two of one name, and the whole suite is not even collected."""
    names = Counter(path.name for path in tracked("tests/**/test_*.py", "tests/test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def test_the_exporters_stand_alone() -> None:
    """The services install nothing else of ours."""
    rooms = "topology|alarms|dashboards|canaries|paging|stacks|lab"
    for path in tracked("exporters/crosswatch_exporters"):
        if path.suffix == ".py":
            assert not re.search(rf"^\s*(from|import) ({rooms})\b", path.read_text(encoding="utf-8"), re.MULTILINE), path


@pytest.mark.parametrize("page", tracked("*.md"), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of a page names a file that is there."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target, _anchor in LINK.findall(text):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), f"{page}: {target}"


def test_nothing_names_this_machine_or_a_registry() -> None:
    """No file carries a path of the machine that it was written on, or the address of a package registry."""
    for path in tracked():
        if path.suffix in (".png", ".zip", ".pem"):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        assert "/wo" + "rk/" not in text, path
        assert not any(host in text for host in REGISTRIES), path


def test_readme_names_commands_that_exist() -> None:
    """Each `deploy.py` command and make target of the README is one."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+) ", readme)) <= targets
    sys.path.insert(0, str(ROOT))
    from typer.main import get_command

    from deploy import app

    known = get_command(app).commands  # type: ignore[attr-defined]
    for first, second in re.findall(r"deploy\.py ([a-z]+)(?: ([a-z]+))?", readme):
        assert first in known, first
        inner = getattr(known[first], "commands", None)
        if inner is not None and second:
            assert second in inner, (first, second)
