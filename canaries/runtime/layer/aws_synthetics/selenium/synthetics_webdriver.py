"""``synthetics_webdriver``: the browser, the steps and the errors of one run.

The documented part is `Chrome`, `execute_step`, `add_execution_error`, `add_user_agent`, `get_http_response` and, as AWS's blueprints use
it, `get_canary_user_agent_string`. The second part (`reset`, `set_event_and_context`, `before_canary`, `after_canary`, `get_step_errors`,
``_uploader``) is what AWS's open debug wrapper calls around a script. There is no ``execute_http_step`` in Python.
"""

from __future__ import annotations

import asyncio
import inspect
import time
import traceback
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aws_synthetics.common import CanaryStatus, synthetics_configuration, synthetics_logger
from aws_synthetics.selenium import constants

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from aws_synthetics.selenium.browser import SyntheticsBrowser

HTTP_TIMEOUT_S = 10


@dataclass(slots=True)
class StepRecord:
    """One step as the report has it; times are epoch seconds."""

    number: int
    name: str
    started: float
    ended: float = 0.0
    error: str | None = None
    screenshots: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Run:
    """Everything that belongs to the run under way."""

    event: dict[str, Any] = field(default_factory=dict)
    context: Any = None
    steps: list[StepRecord] = field(default_factory=list)
    execution_errors: list[str] = field(default_factory=list)
    user_agents: list[str] = field(default_factory=list)
    browsers: list[SyntheticsBrowser] = field(default_factory=list)
    requests: dict[str, int] = field(default_factory=dict)


class _Uploader:
    """Where artifacts go: ``s3_upload_location`` holds ``bucket`` and ``key``."""

    def __init__(self) -> None:
        self.s3_upload_location: dict[str, str] = {"bucket": "", "key": ""}


_run = _Run()
_uploader = _Uploader()


# ---------------------------------------------------------------------- documented


def Chrome(chrome_options: Any = None) -> SyntheticsBrowser:  # noqa: N802 - documented so
    """Start Chromium, headless, and return its driver. It is closed when the run ends; ``quit()`` does nothing."""
    from aws_synthetics.selenium.browser import start

    browser = start(chrome_options, get_canary_user_agent_string())
    _run.browsers.append(browser)
    return browser


async def execute_step(step_name: str, function_to_execute: Callable[[], Any]) -> Any:
    """Run a function, or await a coroutine function, as a step with log lines, screenshots and metrics of its own. To be awaited.

    Returns what the function returns. Raises what it raises, unless ``continue_on_step_failure`` is set; the run fails in both cases.
    """
    step = StepRecord(len(_run.steps) + 1, str(step_name), time.time())
    _run.steps.append(step)
    synthetics_logger.info("Executing step: %s", step.name)
    _screenshot(step, "starting", synthetics_configuration.get_screenshot_on_step_start())
    try:
        result = function_to_execute()
        if inspect.isawaitable(result):
            result = await result
    except Exception as error:
        step.ended = time.time()
        step.error = f"{type(error).__name__}: {error}"
        synthetics_logger.error("Step: %s failed with %s\n%s", step.name, step.error, traceback.format_exc().rstrip())
        _screenshot(step, "failed", synthetics_configuration.get_screenshot_on_step_failure())
        if not synthetics_configuration.get("continue_on_step_failure"):
            raise
        return None
    step.ended = time.time()
    synthetics_logger.info("Step: %s succeeded", step.name)
    _screenshot(step, "succeeded", synthetics_configuration.get_screenshot_on_step_success())
    return result


def add_execution_error(errorMessage: str, ex: BaseException | None = None) -> None:  # noqa: N803 - documented so
    """Fail the run without ending the script and without touching SuccessPercent."""
    text = f"{errorMessage} {type(ex).__name__}: {ex}" if ex is not None else str(errorMessage)
    synthetics_logger.error("Execution error: %s", text)
    _run.execution_errors.append(text)


def add_user_agent(user_agent: str) -> _Done:
    """Append to the user agent of the browser. May be awaited, as the newer page has it, or just called."""
    _run.user_agents.append(str(user_agent))
    for browser in _run.browsers:
        browser.append_user_agent(str(user_agent))
    return _Done()


def get_http_response(url: str) -> int | str:
    """The status code that a GET of ``url`` is answered with, or ``"error"``."""
    request = urllib.request.Request(url, headers={"User-Agent": get_canary_user_agent_string()})
    try:
        with urllib.request.urlopen(request, timeout=HTTP_TIMEOUT_S) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, ValueError) as error:
        synthetics_logger.error("get_http_response: %s: %s", url, error)
        return "error"


def get_canary_user_agent_string() -> str:
    """``CloudWatchSynthetics/<canary arn>`` and what was added: the mark by which traffic of canaries is told apart."""
    arn = getattr(_run.context, "canary_arn", "") or _run.event.get("canaryName", "")
    return " ".join([f"{constants.USER_AGENT}/{arn}", *_run.user_agents])


class _Done:
    """Something that may be awaited or left alone."""

    def __await__(self) -> Any:
        return iter(())


# ---------------------------------------------------------------------- for the wrapper


async def reset() -> None:
    """Forget the run before: its browsers, steps, errors and options."""
    await asyncio.sleep(0)
    for browser in _run.browsers:
        browser.end()
    _run.browsers, _run.steps, _run.execution_errors, _run.user_agents, _run.requests = [], [], [], [], {}
    _run.event, _run.context = {}, None
    synthetics_configuration.reset()
    synthetics_logger.reset()


def set_event_and_context(event: dict[str, Any], context: Any) -> None:
    """The event of the invocation: canaryName, canaryRunId, artifactS3Location{s3Bucket, s3Key}, customerCanaryHandlerName."""
    _run.event, _run.context = event, context
    location = event.get("artifactS3Location") or {}
    _uploader.s3_upload_location = {"bucket": location.get("s3Bucket", ""), "key": location.get("s3Key", "")}


async def before_canary() -> None:
    """Nothing is prepared ahead here: the browser starts when the script asks for it."""
    await asyncio.sleep(0)


def get_step_errors() -> list[str]:
    """The errors of the failed steps, in order."""
    return [step.error for step in _run.steps if step.error is not None]


def get_steps() -> list[StepRecord]:
    """All steps of the run, in order."""
    return list(_run.steps)


def get_execution_errors() -> list[str]:
    """What `add_execution_error` was told."""
    return list(_run.execution_errors)


def get_requests() -> dict[str, int]:
    """How many of the browser's requests were answered 2xx, 4xx and 5xx, and how many failed; empty where no browser was used."""
    for browser in _run.browsers:
        for kind, count in browser.take_requests().items():
            _run.requests[kind] = _run.requests.get(kind, 0) + count
    return dict(_run.requests)


async def after_canary(
    result: str,
    error: BaseException | None,
    start: datetime,
    end: datetime,
    reset_ms: float | None,
    setup_ms: float | None,
    launch_ms: float | None,
) -> dict[str, Any]:
    """Close the browser, save the report and the artifacts, publish the metrics; returns ``testRunError`` and ``executionError``."""
    from aws_synthetics.wrapper import finish

    await asyncio.sleep(0)
    requests = get_requests()
    for browser in _run.browsers:
        browser.end()
    _run.browsers = []
    if result == CanaryStatus.PASSED.value and get_step_errors():
        result = CanaryStatus.FAILED.value
    summary: dict[str, Any] = finish.finish(
        finish.Outcome(
            event=_run.event,
            context=_run.context,
            result=result,
            error=error,
            started=start.timestamp(),
            ended=end.timestamp(),
            spent_ms={"Reset": reset_ms or 0.0, "SetUp": setup_ms or 0.0, "Launch": launch_ms or 0.0},
            steps=list(_run.steps),
            execution_errors=list(_run.execution_errors),
            requests=requests,
            location=dict(_uploader.s3_upload_location),
        )
    )
    return summary


def _screenshot(step: StepRecord, suffix: str, wanted: bool) -> None:
    """A picture of the newest browser, if there is one and one is wanted; a failure to take it is logged and fails nothing."""
    if not wanted or not _run.browsers:
        return
    name = f"{step.number:02d}-{''.join(c if c.isalnum() or c in '-_' else '-' for c in step.name)[:80]}"
    try:
        step.screenshots.append(_run.browsers[-1].save_screenshot(name, suffix))
    except _webdriver_error() as error:
        add_execution_error(f"Unable to take the screenshot {name}-{suffix}.", error)


def _webdriver_error() -> type[Exception]:
    from selenium.common.exceptions import WebDriverException

    return WebDriverException
