"""`lab up` as a user runs it: it serves, other terminals reach it, a second one is told of it, and bad input is refused."""

from __future__ import annotations

import io
import json
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from rich.console import Console
from typer.testing import CliRunner

from lab import admin, commands
from lab.control import ControlServer, Refused, Unusable
from lab.data import rabbitmq
from lab.running import RunningLab, check_passable, installed_broker
from lab.supervisor import FAILED, READY, STOPPED, ProcessStatus
from lab.up import Teller
from tests.lab.conftest import ROOT, environment
from tests.lab.damage import Eyes

if TYPE_CHECKING:
    from tests.lab.conftest import Lab

KEYS = {"now", "speed", "regions", "endpoints", "credentials", "dns", "console", "stores", "pages"}


@pytest.mark.lab
@pytest.mark.slow
class TestARunningLab:
    """With a store that serves."""

    def test_the_store_serves_in_every_region(self, store_lab: Lab) -> None:
        """Every page, by the store's name, with a certificate that holds."""
        assert Eyes(store_lab).troubles() == []

    def test_status_has_exactly_the_keys_that_others_rely_on(self, store_lab: Lab) -> None:
        """And what is in them works: boto3 takes the credentials and the endpoints as they are."""
        import boto3

        status = json.loads(store_lab.run("status", "--json").stdout)
        assert set(status) == KEYS
        assert status["speed"] == 10
        for region in status["regions"]:
            client = boto3.client("sts", region_name=region, endpoint_url=status["endpoints"][region], **status["credentials"])
            assert client.get_caller_identity()["Account"] == store_lab.plan.account

    def test_lab_time_runs_at_its_speed(self, store_lab: Lab) -> None:
        """Ten lab seconds a second."""
        began, before = time.monotonic(), store_lab.ask("status")["now"]
        time.sleep(1)
        passed = store_lab.ask("status")["now"] - before
        assert passed == pytest.approx(10 * (time.monotonic() - began), rel=0.3)

    def test_a_second_one_says_that_one_is_running(self, store_lab: Lab) -> None:
        """Where, since when, its console and how to stop it; the first one does not notice."""
        second = store_lab.run("up")
        assert second.returncode == 1
        for word in (str(store_lab.directory), "since", store_lab.ask("status")["console"], "lab down"):
            assert word in second.stdout
        assert store_lab.process.poll() is None

    def test_the_environment_file_makes_the_stock_command_line_work(self, store_lab: Lab) -> None:
        """The Region picks the endpoint; a Region that the lab has not is refused."""
        for name in ("env", "plan.json"):  # both hold keys
            assert stat.S_IMODE((store_lab.directory / name).stat().st_mode) == 0o600
        for region in store_lab.plan.regions:
            script = f". {store_lab.directory}/env; aws sts get-caller-identity --region {region} --query Account --output text"
            path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
            done = subprocess.run(["sh", "-c", script], env={"PATH": path}, capture_output=True, text=True, check=False)
            assert done.stdout.strip() == store_lab.plan.account, done.stderr
        script = f". {store_lab.directory}/env; aws sts get-caller-identity --region eu-west-1"
        done = subprocess.run(["sh", "-c", script], env={"PATH": path}, capture_output=True, text=True, check=False)
        assert (done.returncode, "not a Region of this lab" in done.stderr) == (2, True)

    def test_faults_from_another_terminal(self, store_lab: Lab) -> None:
        """Listed, injected, refused twice, healed; `lab up` says so too."""
        assert len(json.loads(store_lab.run("fault", "list", "--json").stdout)) >= 35
        injected = json.loads(store_lab.run("fault", "inject", "cloudwatch-slow", "--region", "us-west-2", "--json").stdout)
        assert [(each["name"], each["region"]) for each in injected] == [("cloudwatch-slow", "us-west-2")]
        again = store_lab.run("fault", "inject", "cloudwatch-slow", "--region", "us-west-2")
        assert (again.returncode, "in force already" in again.stderr) == (1, True)
        assert store_lab.run("fault", "heal").returncode == 0
        assert "cloudwatch-slow in us-west-2 injected" in store_lab.output

    def test_a_region_that_there_is_not_is_unusable_input(self, store_lab: Lab) -> None:
        """Exit 2, with those that there are; a fault that is not in force is refused, exit 1."""
        for arguments in (
            ("inject", "region-down", "--region", "mars"),
            ("heal", "--region", "mars"),
            ("inject", "arc-down", "--region", "us-east-1"),
        ):
            done = store_lab.run("fault", *arguments)
            assert done.returncode == 2, done.stderr
            assert "Region" in done.stderr
        idle = store_lab.run("fault", "heal", "redis-down")
        assert (idle.returncode, "not in force" in idle.stderr) == (1, True)


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "deploy.py"), "lab", *arguments]
    return subprocess.run(command, env=environment(directory), cwd=ROOT, capture_output=True, text=True, check=False)


def test_commands_without_a_lab_say_so(tmp_path: Path) -> None:
    """In a sentence, exit 1, no traceback."""
    for arguments in (("down",), ("status",), ("status", "--json"), ("fault", "inject", "region-down"), ("fault", "heal")):
        done = run(tmp_path / "lab", *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert "no lab is running in" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("up", "--speed", "fast"), "valid number"),
        (("up", "--speed", "0"), "0.1"),
        (("up", "--region", "us-east-1"), "two or more different Regions"),
        (("up", "--region", "us-east-1", "--region", "us-east-1"), "two or more different Regions"),
        (("up", "--region", "us-east-1", "--region", "mars"), "mars"),
        (("up", "--with", "kafka"), "only 'rabbitmq'"),
        (("fault", "inject"), "Missing argument"),
        (("fault", "inject", "regoin-down"), "did you mean region-down"),
        (("fault", "heal", "nonsense"), "'lab fault list' shows all"),
    ],
)
def test_unusable_input_is_refused(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    """Exit 2, with what is wrong; nothing is started and nothing left."""
    done = run(tmp_path / "lab", *arguments)
    assert done.returncode == 2
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "lab").exists()


def test_what_the_lab_finds_unusable_ends_with_2_and_what_it_refuses_with_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The contract of exit codes."""

    def inject(request: dict[str, Any]) -> None:
        raise (Unusable("mars is not a Region of this lab") if request["region"] == "mars" else Refused("not now"))

    server = ControlServer(tmp_path, {"inject": inject})
    monkeypatch.setattr(commands, "state_directory", lambda: tmp_path)
    try:
        for region, code in (("mars", 2), ("us-east-1", 1)):
            assert CliRunner().invoke(commands.app, ["fault", "inject", "alb-down", "--region", region]).exit_code == code
    finally:
        server.close()


def status_of(name: str, state: str, region: str | None = None, exit_code: int | None = None) -> ProcessStatus:
    """One process."""
    return ProcessStatus(name, region, state, 0.0, None, exit_code, 1, (), ())


def test_a_part_that_ends_by_itself_is_told() -> None:
    """One that ran and failed, with its log; not one that a fault took down, and not one that never started."""
    output = io.StringIO()
    teller = Teller(Console(file=output, width=140))
    tell = teller.reports().process
    for name, states in (("aws", (READY, FAILED)), ("us-east-1/alb", (READY, STOPPED)), ("console", ("starting", FAILED))):
        for state in states:
            tell(status_of(name, state, exit_code=-9))
    assert "aws ended by itself, exit code -9; see logs/aws.log" in output.getvalue()
    assert "alb" not in output.getvalue()
    assert "console" not in output.getvalue()


def test_status_shows_the_parts_that_belong_to_no_region(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The local AWS serves all Regions: when it is gone, that is a row."""
    answers = {
        "status": {
            "now": 0.0,
            "speed": 1.0,
            "console": "http://127.0.0.1:1/",
            "regions": ["us-east-1"],
            "stores": {"us-east-1": {"url": "https://store"}},
            "endpoints": {"us-east-1": "http://aws"},
            "pages": [],
        },
        "details": {"faults": [], "processes": [{"name": "aws", "region": None, "state": "failed"}]},
    }
    server = ControlServer(tmp_path, {"status": lambda _: answers["status"], "details": lambda _: answers["details"]})
    monkeypatch.setattr(commands, "state_directory", lambda: tmp_path)
    try:
        shown = CliRunner().invoke(commands.app, ["status"]).output
    finally:
        server.close()
    (row,) = [line for line in shown.splitlines() if "shared by all" in line]
    assert "aws (failed)" in row


@pytest.mark.parametrize(("speed", "peak"), [(1, 12.0), (2, 12.0), (10, 2.4)])
def test_shoppers_come_with_the_day_and_no_more_than_a_small_machine_serves(
    monkeypatch: pytest.MonkeyPatch, speed: float, peak: float
) -> None:
    """Twelve a lab minute in the evening, and in a fast lab as many as that is of the wall's time."""
    asked: list[Any] = []
    monkeypatch.setattr(admin, "call", lambda *request: asked.append(request))
    lab = SimpleNamespace(plan=SimpleNamespace(traffic_port=1, clock=SimpleNamespace(speed=speed)))
    assert RunningLab.invite_shoppers(cast("RunningLab", lab)) == pytest.approx(peak)
    assert asked == [(1, "PUT", "/load", {"peak_per_min": peak, "follow_day": True})]


def test_a_broker_that_is_not_installed_is_said_to_be_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With what is missing of it and how to install it; where it is whole, it is taken."""
    assert installed_broker(None) == "built-in"
    monkeypatch.setattr(rabbitmq, "SCRIPTS", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    for program in ("rabbitmq-server", "rabbitmqctl", "erl"):
        (tmp_path / program).touch(mode=0o755)
    with pytest.raises(Refused, match=r"epmd.*apt-get install rabbitmq-server"):
        installed_broker("rabbitmq")
    (tmp_path / "epmd").touch(mode=0o755)
    assert installed_broker("rabbitmq") == "rabbitmq"


def test_a_folder_that_postgresql_cannot_pass_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For root only: nobody else runs PostgreSQL as somebody else."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with pytest.raises(OSError, match=r"cannot pass through .* chmod o\+x|'chmod o\+x"):
        check_passable(closed / "lab")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    check_passable(closed / "lab")
