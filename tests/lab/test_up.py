"""`lab up` as a user runs it: it serves, other terminals reach it, a second one is told of it, and bad input is refused."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab.control import Refused
from lab.data import rabbitmq
from lab.running import check_passable, installed_broker
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
    ],
)
def test_unusable_input_is_refused(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    """Exit 2, with what is wrong; nothing is started and nothing left."""
    done = run(tmp_path / "lab", *arguments)
    assert done.returncode == 2
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "lab").exists()


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
