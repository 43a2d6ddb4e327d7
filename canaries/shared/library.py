"""What our canaries ask of AWS's ``aws_synthetics``, in one place.

Only what is documented is taken for granted (CloudWatch_Synthetics_Canaries_Library_Python), and that with care: names and habits of the
library differ between its pages and its releases, and a probe that stumbles over its own wrapper sees nothing.
"""

from __future__ import annotations

import inspect
import os
from typing import TYPE_CHECKING, Any, Final

from aws_synthetics.common import synthetics_configuration, synthetics_logger
from aws_synthetics.selenium import synthetics_webdriver

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MARK: Final = "CloudWatchSynthetics"


def user_agent(event: Mapping[str, Any] | None, context: Any) -> str:
    """The mark by which traffic of canaries is told apart: ``CloudWatchSynthetics/<canary arn>``.

    AWS's blueprints ask the library for it, its documentation does not know of that; where it is not there, it is made up from what the
    invocation says.
    """
    own = getattr(synthetics_webdriver, "get_canary_user_agent_string", None)
    if callable(own):
        return str(own())
    name = str((event or {}).get("canaryName") or "unknown")
    parts = str(getattr(context, "invoked_function_arn", "")).split(":")  # arn:aws:lambda:<region>:<account>:function:<name>
    if len(parts) < 5:
        return f"{MARK}/{name}"
    return f"{MARK}/arn:{parts[1]}:synthetics:{os.environ.get('AWS_REGION', parts[3])}:{parts[4]}:canary:{name}"


def remaining(context: Any) -> Callable[[], float]:
    """A function that tells the seconds until the run's timeout; without end where the context does not know."""
    left = getattr(context, "get_remaining_time_in_millis", None)
    return (lambda: float(left()) / 1000) if callable(left) else lambda: float("inf")


def configure(options: Mapping[str, bool], *switches: str) -> None:
    """Set options, then call methods such as ``disable_step_metrics`` where the library has them."""
    synthetics_configuration.set_config(dict(options))
    for each in switches:
        switch = getattr(synthetics_configuration, each, None)
        if callable(switch):
            switch()


async def step(name: str, function: Callable[[], Any]) -> None:
    """Run a function as a step of the run. Raises what it raises, unless the library was told to go on."""
    result = synthetics_webdriver.execute_step(name, function)
    if inspect.isawaitable(result):
        await result


class Steps:
    """Steps of which every one is taken, whatever became of those before: also where the library knows no ``continue_on_step_failure``."""

    def __init__(self) -> None:
        self._raised: Exception | None = None

    async def take(self, name: str, function: Callable[[], Any]) -> None:
        """Run a function as a step; what it raises is kept for `close`."""
        try:
            await step(name, function)
        except Exception as error:  # noqa: BLE001 - it is raised by close
            self._raised = self._raised or error

    def close(self) -> None:
        """Raise what the first failed step raised, where the library let it out."""
        if self._raised is not None:
            raise self._raised


def warn(text: str) -> None:
    """A warning in the run's log; the library's pages know it by two names."""
    for name in ("warning", "warn", "info"):
        say = getattr(synthetics_logger, name, None)
        if callable(say):
            say(text)
            return
    print(text, flush=True)


def execution_error(text: str, error: Exception) -> None:
    """Fail the run without ending the script and without touching SuccessPercent."""
    add = getattr(synthetics_webdriver, "add_execution_error", None)
    if callable(add):
        add(text, error)
    else:
        warn(text)
