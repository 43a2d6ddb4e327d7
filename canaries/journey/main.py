"""The canary's handler: one shopper, every part of the journey a step, and what the browser complained of on the way.

The order that it places carries the synthetic mark and is deleted at the end, whatever became of the browser. Console errors and failed
requests go into ``journey.json``, an artifact of the run, and into one line for Logs Insights.
"""

from __future__ import annotations

import json
import ssl
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aws_synthetics.selenium import synthetics_webdriver
from selenium.common.exceptions import WebDriverException
from urllib3.exceptions import HTTPError

from canaries.journey import browser as chromium
from canaries.journey.settings import JourneySettings
from canaries.journey.shopper import JourneyError, Shopper
from canaries.shared import library, settings, trace
from canaries.shared.exchange import Ask, exchange
from canaries.shared.resolve import Answer, ResolveError, resolver

if TYPE_CHECKING:
    from collections.abc import Callable

CONFIGURATION: Final = Path(__file__).parents[2] / "config.json"
COMPLAINTS_KEPT: Final = 50


@dataclass(slots=True)
class Walk:
    """One run under way."""

    config: JourneySettings
    resolve: Callable[[str, float], Answer]
    run: trace.TraceId
    agent: str
    shopper: Shopper
    started: float
    spans: list[trace.Subsegment] = field(default_factory=list)
    deleting: trace.Subsegment | None = None


async def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Entry point of the bundle. Returns a summary; raises what the first failing step raised."""
    config = settings.load(JourneySettings, CONFIGURATION)
    library.configure({"screenshot_on_step_start": False, "screenshot_on_step_success": False}, "disable_step_metrics")
    started, segment = time.time(), trace.span_id()
    run = trace.TraceId.new(started)
    resolve = resolver(config.resolver)
    answer = _resolve(config, resolve)
    try:
        driver = synthetics_webdriver.Chrome(chromium.options(config.name, answer, config.ca, config.limits.total_s))
    except (OSError, ssl.SSLError) as error:
        raise JourneyError(f"the store's certificate could not be checked: {error}") from error
    driver.set_viewport_size(config.width, config.height)
    agent = library.user_agent(event, context)
    chromium.mark(driver, trace.headers(run, segment, config.traces, config.vantage, agent))
    walk = Walk(config, resolve, run, agent, Shopper(driver, config.name.url, config.step_s, config.email), started)
    complaints: list[dict[str, str]] = []
    try:
        for name, step in walk.shopper.steps:
            await library.step(name, _traced(name, step, walk.shopper, walk.spans))
    finally:
        _clean_up(walk)
        complaints = _complaints(driver)
        _record(walk, complaints)
        _send_trace(walk, segment)
    return {"order": walk.shopper.order_id, "trace": str(run), "complaints": len(complaints)}


def _resolve(config: JourneySettings, resolve: Callable[[str, float], Answer]) -> Answer | None:
    """The name's addresses where Chromium cannot find them itself. Raises JourneyError."""
    if config.resolver is None:
        return None
    try:
        return resolve(config.name.host, config.limits.connect_s)
    except ResolveError as error:
        raise JourneyError(f"dns: {error}") from error


def _traced(name: str, step: Callable[[], None], shopper: Shopper, spans: list[trace.Subsegment]) -> Callable[[], None]:
    """The step, with a subsegment for it whatever comes of it."""

    def run() -> None:
        began, clock, problem = time.time(), time.perf_counter(), None
        try:
            step()
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
            raise
        finally:
            seconds = time.perf_counter() - clock
            spans.append(trace.Subsegment(trace.span_id(), name, began, seconds, _address(shopper.browser), error=problem))

    return run


def _address(browser: Any) -> str:
    """Where the browser is, as far as it can still tell."""
    try:
        return str(browser.current_url)
    except (WebDriverException, OSError, HTTPError):
        return ""


def _complaints(driver: Any) -> list[dict[str, str]]:
    """What the console showed as an error: scripts that broke and requests that failed. No shopper misses a site's icon. A browser that is
    gone, or that keeps no log, has nothing to say."""
    try:
        entries = [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE" and "/favicon.ico " not in entry["message"]]
    except Exception as error:  # noqa: BLE001 - whatever it is, it must not hide why the journey failed
        return [{"source": "driver", "message": f"the console could not be read: {type(error).__name__}"}]
    return [{"source": entry.get("source", ""), "message": entry["message"][:500]} for entry in entries[:COMPLAINTS_KEPT]]


def _record(walk: Walk, complaints: list[dict[str, str]]) -> None:
    """One line for the log, and the same as an artifact."""
    config, shopper = walk.config, walk.shopper
    line = {
        "crosswatch": "journey",
        "workload": config.workload,
        "vantage": config.vantage,
        "trace": str(walk.run),
        "order": shopper.order_id,
        "product": shopper.product,
        "steps": [{"name": span.name, "ms": round(span.seconds * 1000, 1), "url": span.url, "error": span.error} for span in walk.spans],
        "console": complaints,
    }
    (Path(tempfile.gettempdir()) / "journey.json").write_text(json.dumps(line, indent=1))
    print(json.dumps(line, separators=(",", ":")), flush=True)


def _clean_up(walk: Walk) -> None:
    """Delete the order; not being able to, or not knowing which, is an execution error: it does not touch the success of the journey."""
    if not walk.config.clean_up or not walk.shopper.confirmed:
        return
    order_id = walk.shopper.order_id = walk.shopper.order_id or walk.shopper.late_number()
    if not order_id:
        text = f"An order was confirmed at {_address(walk.shopper.browser) or walk.config.name.url} and showed no number"
        library.execution_error(f"{text}: placed, fate unknown ({walk.config.email}, trace {walk.run})", JourneyError(text))
        return
    problem = _delete(walk, order_id)
    if problem is not None:
        library.execution_error(f"The synthetic order {order_id} could not be deleted: {problem}", JourneyError(problem))


def _delete(walk: Walk, order_id: str) -> str | None:
    """Ask the store to remove the order, as a part of the run's trace; why it could not, None where it is gone."""
    config, target, span, began = walk.config, walk.config.name, trace.span_id(), time.time()
    ask = Ask(
        url_host=target.host,
        port=target.port,
        secure=target.secure,
        path=f"/orders/{order_id}",
        status=204,
        connect_s=config.limits.connect_s,
        total_s=config.limits.total_s,
        method="DELETE",
        headers={**trace.headers(walk.run, span, config.traces, config.vantage, walk.agent), "Connection": "close"},
    )
    result = exchange(ask, walk.resolve, ssl.create_default_context(cadata=config.ca))
    problem = None if result.failure is None or result.status == 404 else str(result.failure)
    seconds, url = result.phases.total / 1000, f"{target.url}{ask.path}"
    walk.deleting = trace.Subsegment(span, target.host, began, seconds, url, ask.method, result.status, problem)
    return problem


def _send_trace(walk: Walk, segment: str) -> None:
    """Send the run's segment; not being able to is logged and fails nothing."""
    config = walk.config
    if not config.traces:
        return
    marks: dict[str, str | float | bool] = {"workload": config.workload, "vantage": config.vantage, "synthetic": True}
    spans = (*walk.spans, walk.deleting) if walk.deleting else tuple(walk.spans)
    own = trace.RunSegment(walk.run, segment, f"{config.workload}-journey", walk.started, time.time(), marks, spans)
    for problem in trace.Sender(config.vantage, config.trace_to, config.limits.write_s).send(own):
        library.warn(f"The run's segment could not be sent: {problem}")
