"""The likeliest mistakes at the command line: each is answered with the file or option and the mend, exit code 2, and no traceback."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import deploy

ROOT = Path(__file__).resolve().parents[1]

MISTAKES = {
    "render --topology nope.yaml": "nope.yaml: there is no such file",
    "render --topology .": "this is a folder",
    "render --topology list.yaml": "list.yaml:1: a mapping is expected at the top",
    "render --out list.yaml --topology {root}/topology.yaml": "'--out'",
    "render --out /proc/nowhere --topology {root}/topology.yaml": "/proc/nowhere",
    "cost --topology nope.yaml": "nope.yaml: there is no such file",
    "lint --topology nope.yaml": "nope.yaml: there is no such file",
    "plan --topology nope.yaml": "nope.yaml: there is no such file",
    "alarms test nope.yaml": "nope.yaml: cannot be read",
    "alarms test list.yaml": "is no alarm test file",
    "alarms test": "Missing argument",
    "alarms explain retail-impaired --topology {root}/topology.yaml": "did you mean",
    "alarms explain retail-impaired-us-east-1 --region mars --topology {root}/topology.yaml": "use --region us-west-2",
    "alarms lint nope": "nope: cannot be read",
    "alarms backtest --topology {root}/topology.yaml": "there is no history",
    "dashboards check nope.json": "nope.json: cannot be read: No such file",
    "dashboards preview --format pdf": "use html or png",
    "dashboards preview --out list.yaml": "'--out'",
    "dashboards preview --hours nan --topology {root}/topology.yaml": "--hours: nan is no time to look back",
    "dashboards preview --hours 1e12 --topology {root}/topology.yaml": "give up to 10920 hours",
    "dashboards preview --to 0001-01-01 --topology {root}/topology.yaml": "is not a time",
    "failover report --from x --to y --topology {root}/topology.yaml": "write it as 2026",
    "discover --tag x --region us-east-1": "write it as Key=Value",
    "discover --tag a=b --region us-east-1 --region us-west-2 --out list.yaml": "list.yaml: --out: it exists and would be overwritten",
    "rnder": "Did you mean 'render'?",
}


@pytest.mark.parametrize("command", MISTAKES)
def test_a_mistake_is_answered_with_its_mend(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, and words a person can act on."""
    (tmp_path / "list.yaml").write_text("- a\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["deploy.py", *command.format(root=ROOT).split()])
    with pytest.raises(SystemExit) as ended:
        deploy.main()
    captured = capsys.readouterr()
    told = " ".join((captured.out + captured.err).split())
    assert ended.value.code == 2, told
    assert MISTAKES[command] in told


@pytest.mark.parametrize("command", ["plan", "apply", "status", "destroy --yes", "lint", "dashboards preview", "failover report"])
def test_a_profile_that_does_not_exist_is_named(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A typing error in AWS_PROFILE is unusable input of every command that asks AWS."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_PROFILE", "prodution")
    span = ["--from", "2026-11-01T12:00:00Z", "--to", "2026-11-01T13:00:00Z"] if command == "failover report" else []
    monkeypatch.setattr(sys, "argv", ["deploy.py", *command.split(), *span, "--topology", str(ROOT / "topology.yaml")])
    with pytest.raises(SystemExit) as ended:
        deploy.main()
    assert ended.value.code == 2
    assert "prodution" in capsys.readouterr().err


def test_missing_credentials_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A plan without credentials is a failed check of each Region, and says what to set."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(sys, "argv", ["deploy.py", "plan", "--topology", str(ROOT / "topology.yaml")])
    with pytest.raises(SystemExit) as ended:
        deploy.main()
    assert ended.value.code == 1
    assert "set AWS_PROFILE, or AWS_ACCESS_KEY_ID" in " ".join(capsys.readouterr().out.split())
