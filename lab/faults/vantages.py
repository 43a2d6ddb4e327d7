"""The vantages: a canary that was stopped, hangs, has too little time, no network, or a clock that is off."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.faults.fault import Fault, Where
from lab.warden import descendants

if TYPE_CHECKING:
    from collections.abc import Iterator
    from threading import Event

    from lab.faults.ground import Ground

SKEW_S = 240
SETTLE_WITHIN_S = 60.0


def _probe(ground: Ground, region: str) -> dict[str, Any]:
    """The Region's probe canary, as Synthetics describes it. Raises ConnectionError where none is deployed."""
    for canary in ground.client("synthetics", region).describe_canaries()["Canaries"]:
        if "probe" in canary["Name"]:
            found: dict[str, Any] = canary
            return found
    raise ConnectionError(f"no probe canary is deployed in {region}")


def _await_state(ground: Ground, region: str, state: str) -> None:
    ground.await_(f"the probe in {region} is {state}", lambda: _probe(ground, region)["Status"]["State"] == state, SETTLE_WITHIN_S)


def _await_update(ground: Ground, region: str) -> None:
    """A canary that is being updated refuses the next change."""
    ground.await_(f"the probe in {region} is updated", lambda: _probe(ground, region)["Status"]["State"] != "UPDATING", SETTLE_WITHIN_S)


def _stop(ground: Ground, region: str) -> None:
    ground.client("synthetics", region).stop_canary(Name=_probe(ground, region)["Name"])
    _await_state(ground, region, "STOPPED")


def _start(ground: Ground, region: str, _memory: None) -> None:
    ground.client("synthetics", region).start_canary(Name=_probe(ground, region)["Name"])
    _await_state(ground, region, "RUNNING")


def _configure(ground: Ground, region: str, variables: dict[str, str], drop: tuple[str, ...] = ()) -> None:
    """Change the environment variables of the probe, through the API, and nothing else."""
    client = ground.client("synthetics", region)
    canary = _probe(ground, region)
    run = {key: value for key, value in canary["RunConfig"].items() if key != "EnvironmentVariables"}
    kept = {key: value for key, value in canary["RunConfig"].get("EnvironmentVariables", {}).items() if key not in drop}
    client.update_canary(Name=canary["Name"], RunConfig={**run, "EnvironmentVariables": kept | variables})
    _await_update(ground, region)


def _skew(ground: Ground, region: str) -> None:
    _configure(ground, region, {"CROSSWATCH_CLOCK_SKEW_S": str(SKEW_S)})


def _straighten(ground: Ground, region: str, _memory: None) -> None:
    _configure(ground, region, {}, drop=("CROSSWATCH_CLOCK_SKEW_S",))


def _unplug(ground: Ground, region: str) -> None:
    _configure(ground, region, {"CROSSWATCH_NETWORK": "down"})


def _plug_in(ground: Ground, region: str, _memory: None) -> None:
    _configure(ground, region, {}, drop=("CROSSWATCH_NETWORK",))


def _hurry(ground: Ground, region: str) -> int:
    client = ground.client("synthetics", region)
    canary = _probe(ground, region)
    ground.begun = int(canary["RunConfig"]["TimeoutInSeconds"])
    client.update_canary(Name=canary["Name"], RunConfig={"TimeoutInSeconds": 3})
    _await_update(ground, region)
    return int(canary["RunConfig"]["TimeoutInSeconds"])


def _give_time(ground: Ground, region: str, seconds: int) -> None:
    ground.client("synthetics", region).update_canary(Name=_probe(ground, region)["Name"], RunConfig={"TimeoutInSeconds": seconds})
    _await_update(ground, region)


def _hang(ground: Ground, region: str) -> None:
    """Stop every process of the Region's canaries in its tracks, the ones that replace them too, until healed."""

    def freeze(stopping: Event) -> None:
        while not stopping.wait(0.1):
            _signal_canaries(ground, region, signal.SIGSTOP)

    ground.keep_doing(f"hanging canaries in {region}", freeze)


def _go_on(ground: Ground, region: str, _memory: None) -> None:
    ground.stop_doing(f"hanging canaries in {region}")
    _signal_canaries(ground, region, signal.SIGCONT)


def _signal_canaries(ground: Ground, region: str, number: signal.Signals) -> None:
    for pid in _canaries(ground, region):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _canaries(ground: Ground, region: str) -> Iterator[int]:
    """The processes in which canaries of the Region run: children of the local AWS whose environment says so."""
    aws = ground.processes.pid("aws")
    marks = (f"AWS_REGION={region}".encode(), b"CROSSWATCH_SANDBOX=")
    for pid in descendants(aws) if aws else ():
        with contextlib.suppress(OSError):
            variables = (Path("/proc") / str(pid) / "environ").read_bytes().split(b"\0")
            if marks[0] in variables and any(variable.startswith(marks[1]) for variable in variables):
                yield pid


FAULTS = (
    Fault(
        "canary-stopped",
        "vantages",
        "Somebody stopped the probe of one Region and forgot it.",
        "the canary is STOPPED; the vantage falls silent",
        Where.REGION,
        _stop,
        _start,
    ),
    Fault(
        "canary-hanging",
        "vantages",
        "The probe of one Region hangs: every run is cut off at its timeout.",
        "the canary's runs fail with a timeout; the vantage falls silent",
        Where.REGION,
        _hang,
        _go_on,
    ),
    Fault(
        "canary-short-of-time",
        "vantages",
        "The probe of one Region was given a timeout of three seconds by mistake.",
        "the canary's runs fail with a timeout",
        Where.REGION,
        _hurry,
        _give_time,
    ),
    Fault(
        "vantage-clock-skewed",
        "vantages",
        f"The clock of one Region's vantage is {SKEW_S} s fast.",
        f"the vantage's datapoints are {SKEW_S} s ahead",
        Where.REGION,
        _skew,
        _straighten,
    ),
    Fault(
        "vantage-network-down",
        "vantages",
        "The probe of one Region loses its network: it reaches no target, no name server and no CloudWatch, while its Region serves.",
        "the canary's runs cannot save their artifacts; its log says that every look and every write failed",
        Where.REGION,
        _unplug,
        _plug_in,
    ),
)
