"""The canary's handler: rounds on the grid, each written as it ends; then the run's verdict as steps, and its trace.

The library is not documented as thread-safe and one raise ends a run, so rounds run outside of steps and the library is only called from
this thread, at the end.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from canaries.probe import metrics, report, verdict
from canaries.probe.arc import RoutingReader
from canaries.probe.rounds import Prober, Round, grid
from canaries.probe.settings import ProbeSettings
from canaries.probe.writers import WriterReader
from canaries.shared import library, settings, trace
from canaries.shared.publish import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CONFIGURATION: Final = Path(__file__).parents[2] / "config.json"
END_RESERVE_S: Final = 3.0  # steps, report and artifacts after the last round
OPTIONS: Final = {
    "continue_on_step_failure": True,
    "screenshot_on_step_start": False,
    "screenshot_on_step_success": False,
    "screenshot_on_step_failure": False,
}


class ProbeFailedError(Exception):
    """A page of a target failed in at least half of the run's rounds."""


@dataclass(slots=True)
class Warm:
    """What is kept from run to run while the process is warm."""

    settings: ProbeSettings
    prober: Prober
    writer: Writer
    writers: WriterReader
    tracing: trace.Sender


_warm: list[Warm] = []


async def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Entry point of the bundle. Returns a summary; the run fails through its steps."""
    warm = _warm[0] if _warm else _start(CONFIGURATION)
    warm.writers.begin()
    warm.prober.user_agent = library.user_agent(event, context)
    started = time.time()
    run, segment = trace.TraceId.new(started), trace.span_id()
    rounds = list(_rounds(warm, run, library.remaining(context)))
    library.configure(OPTIONS, "disable_step_metrics")
    steps = library.Steps()
    failures = verdict.pages_failed([each.looks for each in rounds])
    for (target, page), failed in failures.items():
        await steps.take(f"{target} {page}", _step(report.verdict(failed, run) if failed else None))
    if not rounds:
        raise ProbeFailedError("no round fits between the start of this run and its timeout: raise the timeout or lower rounds.until_s")
    if warm.settings.traces:
        _send_trace(warm, run, segment, started, rounds)
    steps.close()
    return {"rounds": len(rounds), "failed": sum(bool(failed) for failed in failures.values()), "trace": str(run)}


def _start(configuration: Path) -> Warm:
    """Read the configuration and make everything that later runs reuse."""
    loaded = settings.load(ProbeSettings, configuration)
    limits = loaded.limits
    routing = RoutingReader(loaded.arc, limits.write_s, 2 * limits.write_s)
    warm = Warm(
        settings=loaded,
        prober=Prober(loaded, routing),
        writer=Writer(metrics.NAMESPACE, loaded.write_to, limits.write_s),
        writers=WriterReader(loaded.vantage, loaded.databases, loaded.rds),
        tracing=trace.Sender(loaded.vantage, loaded.trace_to, limits.write_s),
    )
    _warm.append(warm)
    return warm


def _rounds(warm: Warm, run: trace.TraceId, remaining_s: Callable[[], float]) -> Iterator[Round]:
    """The run's rounds, published one by one. A slot that has gone by, because a round took long, is left out."""
    plan, limits = warm.settings.rounds, warm.settings.limits
    worst_s = max(plan.retry_after_s, limits.total_s) + limits.total_s + limits.write_s
    slots = list(grid(time.time(), plan.every_s, plan.offset_s, plan.until_s))
    for slot in slots:
        pause = slot - time.time()
        if pause < -plan.every_s / 2:
            continue
        if remaining_s() < max(0.0, pause) + worst_s + END_RESERVE_S:
            break
        time.sleep(max(0.0, pause))
        seen = warm.prober.round(slot, run)
        last = slot == slots[-1] or remaining_s() < (slot + plan.every_s - time.time()) + worst_s + END_RESERVE_S
        writers = warm.writers.take()
        data = metrics.data(warm.settings, seen, last, writers.counts)
        own = metrics.own_data(warm.settings, seen, {region: error is None for region, error in warm.writer.last.items()})
        writes = warm.writer.write({region: data + own if region == warm.settings.vantage else data for region in warm.settings.write_to})
        print(report.line(warm.settings, seen, run, writes, writers), flush=True)
        yield seen


def _step(problem: str | None) -> Callable[[], None]:
    def tell() -> None:
        if problem is not None:
            raise ProbeFailedError(problem)

    return tell


def _send_trace(warm: Warm, run: trace.TraceId, segment: str, started: float, rounds: list[Round]) -> None:
    """Send the run's segment; not being able to is logged and fails nothing."""
    spans = tuple(span for each in rounds for span in each.spans)
    sent = warm.tracing.send(
        trace.RunSegment(
            run,
            segment,
            f"{warm.settings.workload}-probe",
            started,
            time.time(),
            {"workload": warm.settings.workload, "vantage": warm.settings.vantage, "synthetic": True},
            spans,
        )
    )
    for problem in sent:
        library.warn(f"The run's segment could not be sent: {problem}")
