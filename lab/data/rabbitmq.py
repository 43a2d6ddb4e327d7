"""The distribution's RabbitMQ for Amazon MQ, one node a Region, instead of the built-in broker: ``lab up --with rabbitmq``.

Two processes a Region. ``<region>/amqp-names`` is an epmd of the node's own (`lab.data.epmd`), so that the machine's is neither started nor
used; ``<region>/amqp`` is the node, with the management plugin on ``amqp_admin_port``. Everything listens on 127.0.0.1, and everything that
is written (queues, logs, cookie, generated configuration) is in ``<state>/rabbitmq/<region>``. What is told to a running node goes through
rabbitmqctl (`alarm`).
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lab.admin import Refusal
from lab.data import broker
from lab.process import ProcessSpec

if TYPE_CHECKING:
    from lab.plan import LabPlan, RegionPlan

SCRIPTS = Path("/usr/lib/rabbitmq/bin")
"""Where Debian keeps RabbitMQ's own scripts. Those in /usr/sbin change the user and the folder, and keep everything in /var."""

ROOT = Path(__file__).resolve().parents[2]
MEMORY_LIMIT = "512MiB"
DISK_FREE_LIMIT = "50MB"
BELOW_ANY_USE, BEYOND_ANY_DISK = 1 << 20, 1 << 50
TOLD_WITHIN_S = 60.0


def missing() -> list[str]:
    """The programs that this needs and that are not installed."""
    folders = [Path(folder) for folder in os.environ.get("PATH", os.defpath).split(os.pathsep) if folder]
    found = [str(SCRIPTS / name) for name in ("rabbitmq-server", "rabbitmqctl") if not os.access(SCRIPTS / name, os.X_OK)]
    return found + [name for name in ("erl", "epmd") if not any(os.access(folder / name, os.X_OK) for folder in folders)]


def processes(plan: LabPlan, region: RegionPlan) -> list[ProcessSpec]:
    """The Region's node and its epmd."""
    names = ProcessSpec(
        name=f"{region.name}/amqp-names",
        region=region.name,
        argv=(sys.executable, "-m", "lab.data.epmd", str(region.amqp_name_port)),
        environment={"PYTHONPATH": str(ROOT)},
        directory=plan.path,
        ready=lambda: _listens(region.amqp_name_port),
        restart=True,
    )
    node = ProcessSpec(
        name=f"{region.name}/amqp",
        region=region.name,
        argv=(str(SCRIPTS / "rabbitmq-server"),),
        environment=environment(plan, region),
        directory=plan.path,
        prepare=lambda: write_configuration(plan, region),
        ready=lambda: _listens(region.amqp_port) and bool(broker.node(region.amqp_admin_port, timeout_s=1.0)["running"]),
        after=(names.name,),
        stop_within_s=15.0,
    )
    return [names, node]


def home(plan: LabPlan, region: RegionPlan) -> Path:
    """Where the node keeps all its files."""
    return plan.path / "rabbitmq" / region.name


def node_name(region: RegionPlan) -> str:
    """The node's name in Erlang."""
    return f"rabbit-{region.name}@localhost"


def environment(plan: LabPlan, region: RegionPlan) -> dict[str, str]:
    """What makes RabbitMQ's scripts use this node and nothing of the machine's own. The same for the server and for rabbitmqctl."""
    folder = home(plan, region)
    return {
        "HOME": str(folder),  # .erlang.cookie
        "ERL_EPMD_PORT": str(region.amqp_name_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        # no Erlang program, not even one that lives for a moment, starts an epmd or listens beyond loopback
        "ERL_FLAGS": "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}",
        "ERL_CRASH_DUMP_SECONDS": "0",
        "RABBITMQ_NODENAME": node_name(region),
        "RABBITMQ_DIST_PORT": str(region.amqp_node_port),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "none.conf"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "none.config"),
        "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "generated"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_FEATURE_FLAGS_FILE": str(folder / "feature_flags"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +A 8",
        "detached": "yes",  # the server's script replaces itself with the node, which thereby is our own child and dies with the lab
    }


def write_configuration(plan: LabPlan, region: RegionPlan) -> None:
    """Make the node's folder."""
    folder = home(plan, region)
    for part in (folder, folder / "generated", folder / "mnesia", folder / "log"):
        part.mkdir(parents=True, exist_ok=True)
    (folder / "enabled_plugins").write_text("[rabbitmq_management].\n")
    settings = {
        "listeners.tcp.1": f"127.0.0.1:{region.amqp_port}",
        "management.tcp.ip": "127.0.0.1",
        "management.tcp.port": region.amqp_admin_port,
        "default_user": broker.USER,
        "default_pass": broker.PASSWORD,
        "vm_memory_high_watermark.absolute": MEMORY_LIMIT,
        "disk_free_limit.absolute": DISK_FREE_LIMIT,
        "collect_statistics_interval": 1000,
        "log.console.level": "warning",
    }
    (folder / "rabbitmq.conf").write_text("".join(f"{key} = {value}\n" for key, value in settings.items()))


def alarm(plan: LabPlan, region: RegionPlan, kind: str, on: bool) -> None:
    """Raise or end the ``memory`` or the ``disk`` alarm, by moving the limit to where the node's use of memory or disk is beyond it.

    Raises `lab.admin.Refusal`. The management API shows it some seconds later.
    """
    if kind == "memory":
        tell(plan, region, "set_vm_memory_high_watermark", "absolute", str(BELOW_ANY_USE) if on else MEMORY_LIMIT)
    else:
        tell(plan, region, "set_disk_free_limit", str(BEYOND_ANY_DISK) if on else DISK_FREE_LIMIT)


def tell(plan: LabPlan, region: RegionPlan, *command: str) -> str:
    """Run rabbitmqctl against the Region's node; returns what it printed. Raises `lab.admin.Refusal`."""
    variables = {key: os.environ[key] for key in ("PATH", "LANG", "LC_ALL") if key in os.environ} | environment(plan, region)
    variables["RABBITMQ_CTL_ERL_ARGS"] = "-dist_listen false"
    what = f"rabbitmqctl {' '.join(command)} in {region.name}"
    try:
        done = subprocess.run(
            [str(SCRIPTS / "rabbitmqctl"), "--quiet", *command],
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TOLD_WITHIN_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Refusal(504, f"{what}: no answer within {TOLD_WITHIN_S:g} s") from error
    if done.returncode:
        raise Refusal(502, f"{what}: code {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def _listens(port: int) -> bool:
    socket.create_connection(("127.0.0.1", port), timeout=1).close()
    return True
