"""The canary's handler: one shopper, every part of the journey a step, and what the browser complained of on the way.

The order that it places carries the synthetic mark and is deleted at the end. Console errors and failed requests go into
``journey.json``, an artifact of the run, and into one line for Logs Insights.
"""

from __future__ import annotations

import json
import ssl
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aws_synthetics.common import synthetics_configuration, synthetics_logger
from aws_synthetics.selenium import synthetics_webdriver

from canaries.journey import browser as chromium
from canaries.journey.settings import JourneySettings
from canaries.journey.shopper import JourneyError, Shopper
from canaries.shared import aws, settings, trace
from canaries.shared.exchange import Ask, exchange
from canaries.shared.resolve import Answer, ResolveError, resolver

if TYPE_CHECKING:
    from collections.abc import Callable

CONFIGURATION: Final = Path(__file__).parents[2] / "config.json"
COMPLAINTS_KEPT: Final = 50
Resolve = "Callable[[str, float], Answer]"


async def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Entry point of the bundle. Returns a summary; raises what the first failing step raised."""
    del event, context
    config = settings.load(JourneySettings, CONFIGURATION)
    synthetics_configuration.set_config({"screenshot_on_step_start": False, "screenshot_on_step_success": False})
    synthetics_configuration.disable_step_metrics()
    started, run, segment = time.time(), trace.TraceId.new(time.time()), trace.span_id()
    resolve = resolver(config.resolver)
    answer = _resolve(config, resolve)
    try:
        driver = synthetics_webdriver.Chrome(chromium.options(config.name, answer, config.ca, config.limits.total_s))
    except (OSError, ssl.SSLError) as error:
        raise JourneyError(f"the store's certificate could not be checked: {error}") from error
    driver.set_viewport_size(config.width, config.height)
    agent = str(synthetics_webdriver.get_canary_user_agent_string())
    chromium.mark(driver, trace.headers(run, segment, True, config.vantage, agent))
    shopper = Shopper(driver, config.name.url, config.step_s, config.email)
    spans: list[trace.Subsegment] = []
    try:
        for name, step in shopper.steps:
            await synthetics_webdriver.execute_step(name, _traced(name, step, shopper, spans))
    finally:
        complaints = _complaints(driver)
        _record(config, run, shopper, spans, complaints)
        _send_trace(config, run, segment, started, spans)
        if shopper.order_id and config.clean_up:
            _clean_up(config, resolve, run, agent, shopper.order_id)
    return {"order": shopper.order_id, "trace": str(run), "complaints": len(complaints)}


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
            spans.append(trace.Subsegment(trace.span_id(), name, began, seconds, shopper.browser.current_url, error=problem))

    return run


def _complaints(driver: Any) -> list[dict[str, str]]:
    """What the console showed as an error: scripts that broke and requests that failed. No shopper misses a site's icon."""
    entries = [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE" and "/favicon.ico " not in entry["message"]]
    return [{"source": entry.get("source", ""), "message": entry["message"][:500]} for entry in entries[:COMPLAINTS_KEPT]]


def _record(
    config: JourneySettings, run: trace.TraceId, shopper: Shopper, spans: list[trace.Subsegment], complaints: list[dict[str, str]]
) -> None:
    """One line for the log, and the same as an artifact."""
    line = {
        "crosswatch": "journey",
        "workload": config.workload,
        "vantage": config.vantage,
        "trace": str(run),
        "order": shopper.order_id,
        "product": shopper.product,
        "steps": [{"name": span.name, "ms": round(span.seconds * 1000, 1), "url": span.url, "error": span.error} for span in spans],
        "console": complaints,
    }
    (Path(tempfile.gettempdir()) / "journey.json").write_text(json.dumps(line, indent=1))
    print(json.dumps(line, separators=(",", ":")), flush=True)


def _clean_up(config: JourneySettings, resolve: Callable[[str, float], Answer], run: trace.TraceId, agent: str, order_id: str) -> None:
    """Delete the order; not being able to is an execution error, it does not touch the success of the journey."""
    target = config.name
    result = exchange(
        Ask(
            url_host=target.host,
            port=target.port,
            secure=target.secure,
            path=f"/orders/{order_id}",
            status=204,
            connect_s=config.limits.connect_s,
            total_s=config.limits.total_s,
            method="DELETE",
            headers={**trace.headers(run, trace.span_id(), True, config.vantage, agent), "Connection": "close"},
        ),
        resolve,
        ssl.create_default_context(cadata=config.ca),
    )
    if result.failure is not None and result.status != 404:
        synthetics_webdriver.add_execution_error(f"The synthetic order {order_id} could not be deleted: {result.failure}")


def _send_trace(config: JourneySettings, run: trace.TraceId, segment: str, started: float, spans: list[trace.Subsegment]) -> None:
    """Send the run's segment; not being able to is logged and fails nothing."""
    if not config.traces:
        return
    marks: dict[str, str | float | bool] = {"workload": config.workload, "vantage": config.vantage, "synthetic": True}
    document = trace.document(trace.RunSegment(run, segment, f"{config.workload}-journey", started, time.time(), marks, tuple(spans)))
    try:
        for problem in trace.send(aws.client("xray", config.vantage, config.trace_to, config.limits.write_s), [document]):
            synthetics_logger.warning("X-Ray refused the run's segment: %s", problem)
    except aws.errors() as error:
        synthetics_logger.warning("The run's segment could not be sent: %s", aws.short(error))
