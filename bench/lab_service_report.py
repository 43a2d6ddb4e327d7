"""What the figures of `lab_service_soak.py` say: percentiles, noise, the memory's slope, the verdicts, the tables and the picture.

**Noise.** Both services get arrivals of the same seconds, so what others do on the machine hits both. Requests are pooled in
blocks of `BLOCK_S`. The *noise* of a percentile is what two random halves of the bare service's own blocks differ by, 95 % of the time.
The *interval* of a difference comes from drawing the blocks, in pairs, with replacement (block bootstrap): 95 % of such runs lie in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    Latencies = npt.NDArray[np.float32]
    Blocks = Sequence[Latencies]

BLOCK_S = 10.0
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
DRAWS = 400
FLAT = 0.03  # growth of the resident memory after the warm-up, as a share of it
LEAST_S = 600.0  # after the warm-up, to tell whether memory is flat
COLOURS = {"bare": "#8a94a6", "instrumented": "#2f6fde"}
FAULT_COLOUR = "#e5484d"
WIDTH = 1100


@dataclass(frozen=True, slots=True)
class Row:
    """One condition: percentiles of both services in milliseconds, and whether their p99 differs by more than noise."""

    condition: str
    blocks: int
    requests: int
    bare: dict[str, float]
    instrumented: dict[str, float]
    difference: float
    interval: tuple[float, float]
    noise: float


@dataclass(frozen=True, slots=True)
class Effect:
    """What faults do to the p99 (ms): how much more the services differ while they last than while all is well."""

    difference: float
    interval: tuple[float, float]
    noise: float

    @property
    def within_noise(self) -> bool:
        """Whether it cannot be told from nothing: no longer than the noise, or nothing within the interval."""
        return self.difference <= self.noise or self.interval[0] <= 0.0


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory after the warm-up, MB; ``slope`` in MB an hour is Theil and Sen's: the median slope of all pairs of samples."""

    seconds: float
    median: float
    largest: float
    slope: float
    growth: float


def percentiles(latencies: Latencies) -> dict[str, float]:
    """In milliseconds; empty without requests."""
    if not latencies.size:
        return {}
    values = np.quantile(latencies, list(QUANTILES.values())) * 1000
    return {name: round(float(value), 3) for name, value in zip(QUANTILES, values, strict=True)}


def p99(blocks: Blocks) -> float:
    """Of all requests in ``blocks``, ms."""
    return float(np.quantile(np.concatenate(blocks), 0.99)) * 1000


def compare(condition: str, bare: Blocks, instrumented: Blocks, draw: np.random.Generator) -> Row:
    """One row. ``bare`` and ``instrumented`` hold the latencies (s) of the same blocks."""
    differences = [p99([instrumented[i] for i in chosen]) - p99([bare[i] for i in chosen]) for chosen in _draws(len(bare), draw)]
    return Row(
        condition,
        len(bare),
        sum(block.size for block in instrumented),
        percentiles(np.concatenate(bare)),
        percentiles(np.concatenate(instrumented)),
        round(p99(instrumented) - p99(bare), 3),
        _interval(differences),
        round(noise(bare, draw), 3),
    )


def effect_of_faults(well: tuple[Blocks, Blocks], faulty: tuple[Blocks, Blocks], draw: np.random.Generator) -> Effect:
    """Each pair is (bare, instrumented)."""

    def gap(pair: tuple[Blocks, Blocks], chosen: Sequence[int]) -> float:
        return p99([pair[1][i] for i in chosen]) - p99([pair[0][i] for i in chosen])

    first, second = _draws(len(well[0]), draw), _draws(len(faulty[0]), draw)
    drawn = [gap(faulty, b) - gap(well, a) for a, b in zip(first, second, strict=True)]
    whole = gap(faulty, range(len(faulty[0]))) - gap(well, range(len(well[0])))
    return Effect(round(whole, 3), _interval(drawn), round(noise([*well[0], *faulty[0]], draw), 3))


def noise(blocks: Blocks, draw: np.random.Generator) -> float:
    """What the p99 of two random halves of ``blocks`` differs by, 95 % of the time, ms."""
    if len(blocks) < 2:
        return float("nan")
    half = len(blocks) // 2
    orders = [draw.permutation(len(blocks)) for _ in range(DRAWS)]
    return float(np.quantile([abs(p99([blocks[i] for i in o[:half]]) - p99([blocks[i] for i in o[half:]])) for o in orders], 0.95))


def memory(at: Sequence[float], megabytes: Sequence[float], warm_up_s: float) -> Memory:
    """``at`` in seconds since the beginning; what comes before ``warm_up_s`` is left out of all but the largest."""
    times, values = np.asarray(at, float), np.asarray(megabytes, float)
    late = times >= warm_up_s
    if late.sum() < 3:
        late[:] = True
    x, y = times[late], values[late]
    i, j = np.triu_indices(len(x), 1)
    slope = float(np.median((y[j] - y[i]) / (x[j] - x[i]))) * 3600
    growth = slope * float(x[-1] - x[0]) / 3600
    return Memory(
        round(float(x[-1] - x[0]), 1), round(float(np.median(y)), 1), round(float(values.max()), 1), round(slope, 2), round(growth, 2)
    )


def _draws(count: int, draw: np.random.Generator) -> list[list[int]]:
    return [draw.integers(0, count, count).tolist() for _ in range(DRAWS)]


def _interval(values: Sequence[float]) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return round(float(low), 3), round(float(high), 3)


def latency_table(rows: Sequence[Row]) -> Table:
    """Both services' percentiles by condition."""
    table = Table(title="latency from the scheduled arrival, ms", title_justify="left", box=None, padding=(0, 2), header_style="dim")
    table.add_column("condition")
    for name in ("requests", *(f"{each} bare" for each in QUANTILES), *QUANTILES, "p99 more by", "95 % of draws", "noise"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            row.condition,
            f"{row.requests:,}",
            *(f"{row.bare[name]:.2f}" for name in QUANTILES),
            *(f"{row.instrumented[name]:.2f}" for name in QUANTILES),
            f"{row.difference:+.2f}",
            f"{row.interval[0]:+.2f} … {row.interval[1]:+.2f}",
            f"{row.noise:.2f}",
        )
    return table


def checks(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What the soak demands, and whether it held."""
    own, ledger, effect = result["requests"]["instrumented"], result["ledger"], result["effect_of_faults"]
    memory = result["memory"]["instrumented"]
    inexact, looks = (sum(each[key] for each in ledger.values()) for key in ("inexact", "samples"))
    waiting, dropped = ({name: each[key] for name, each in ledger.items() if each[key]} for key in ("waiting", "dropped"))
    before, left = result["spool_of_the_ended_task"], result["spool_after_drain"]
    traces = result["traces"]
    found = {
        "every request": (own["answered"] == own["sent"], f"{own['answered']:,} of {own['sent']:,} answered with 200"),
        "ledger exact": (looks > 0 and not inexact, f"{inexact} of {looks:,} samples of {len(ledger)} signals are off"),
        "everything delivered": (
            bool(ledger) and not waiting and not dropped and not left,
            (
                f"{result['drained_after_s']:g} s after the last request: waiting {waiting or 0}, dropped {dropped or 0}; in the spool "
                f"of the ended task {before or 0}, after crosswatch-spool drain {left or 0}"
            ),
        ),
        "traces in X-Ray": (
            traces["missing"] == 0 and traces["whole"] == traces["opened"],
            (
                f"{traces['found']:,} looked for and found, {traces['missing']:,} missing; "
                f"of {traces['opened']:,} opened {traces['whole']:,} held both spans"
            ),
        ),
    }
    if memory["seconds"] >= LEAST_S:  # otherwise too short to tell
        found["memory flat"] = (
            memory["growth"] <= FLAT * memory["median"],
            (
                f"{memory['slope']:+.2f} MB an hour: {memory['growth']:+.2f} on {memory['median']:.1f} MB in the "
                f"{memory['seconds'] / 60:.0f} minutes after the warm-up; at most {memory['largest']:.1f} MB"
            ),
        )
    if effect:
        low, high = effect["interval"]
        found["p99 under faults"] = (
            effect["within_noise"],
            (
                f"{effect['difference']:+.2f} ms more above the bare service's than without faults "
                f"(95 % of draws: {low:+.2f} … {high:+.2f}; noise {effect['noise']:.2f})"
            ),
        )
    return {name: {"held": bool(held), "said": said} for name, (held, said) in found.items()}


def summary(result: dict[str, Any]) -> Iterator[str]:
    """The figures that are in no table, a line each."""
    for name, each in result["ledger"].items():
        yield (
            f"ledger, {name}: emitted {each['emitted']:,} + recovered {each['recovered']:,} = delivered {each['delivered']:,} "
            f"+ waiting {each['waiting']:,} + dropped {each['dropped']:,}; at most {each['most_waiting']:,} waited"
        )
    yield f"spans emitted a request: {result['spans_a_request']}; log events that CloudWatch Logs took: {result['log_events']:,}"
    yield f"spool: at most {result['spool_largest_mb']:.1f} MB on disk"
    for name, each in result["memory"].items():
        yield f"memory, {name}: median {each['median']:.1f} MB, {each['slope']:+.2f} MB an hour, largest {each['largest']:.1f} MB"
    shares = result["cpu_percent"]
    yield "CPU, % of one core: " + ", ".join(f"{name} {share:.1f}" for name, share in shares.items())
    for name, each in result["requests"].items():
        a_request = 10 * shares[name] / (each["sent"] / result["requests"]["instrumented"]["sent"] * result["rate"])
        yield f"{name}: {a_request:.2f} ms of CPU a request; p99 of the time from due to sent {each['unsent_p99_ms']:.2f} ms"


def picture(result: dict[str, Any]) -> bytes:
    """p99 by block, resident memory and the ledger's waiting items over time, with the faults behind them, as PNG."""
    import altair as alt
    import vl_convert

    faults = [each for each in result["phases"] if each["label"]]
    samples, ends = result["samples"], result["samples"][-1]["minute"]
    scale = alt.Scale(domain=[samples[0]["minute"], ends], nice=False)
    axis = alt.Axis(grid=False, tickMinStep=1, format="d", tickCount=min(30, result["minutes"]))
    colour = alt.Color("what:N", title=None, scale=alt.Scale(domain=list(COLOURS), range=list(COLOURS.values())))

    def data(rows: list[dict[str, Any]]) -> Any:
        return alt.Chart({"values": rows})

    def panel(rows: list[dict[str, Any]], title: str, height: int, log: bool = False) -> Any:
        y = alt.Scale(type="log", nice=False) if log else alt.Scale(zero=False)
        ticks = alt.Axis(tickCount=6, format="~s") if log else alt.Axis(tickCount=5)
        shade = (
            data(faults)
            .mark_rect(opacity=0.10, color=FAULT_COLOUR)
            .encode(x=alt.X("from:Q", title=None, scale=scale, axis=axis), x2="to:Q")
        )
        line = (
            data(rows)
            .mark_line(strokeWidth=1.8, clip=True)
            .encode(alt.X("minute:Q"), alt.Y("value:Q", title=title, scale=y, axis=ticks), colour)
        )
        return alt.layer(shade, line).properties(width=WIDTH, height=height)

    names = (
        data(faults)
        .mark_text(fontSize=10.5, color="#9b2c2f", align="left", baseline="middle", angle=315)
        .encode(x=alt.X("middle:Q", title=None, scale=scale, axis=None), y=alt.value(46), text="label:N")
        .properties(width=WIDTH, height=50, view=alt.ViewBackground(stroke=None))
    )
    p99s = [{"minute": each["minute"], "value": each[what], "what": what} for each in result["blocks"] for what in COLOURS if each[what]]
    resident = [{"minute": each["minute"], "value": each[f"{what}_mb"], "what": what} for each in samples for what in COLOURS]
    waiting = [{"minute": each["minute"], "value": each["items"], "what": "instrumented"} for each in result["waiting"]]
    chart = (
        alt.vconcat(
            names,
            panel(p99s, f"p99 of {BLOCK_S:g} s, ms", 260, log=True),
            panel(resident, "resident memory, MB", 150),
            panel(waiting, "spans that wait", 110),
            spacing=12,
        )
        .properties(
            title=alt.Title(
                f"{result['service']}: {result['rate']:g} requests/s for {result['minutes']} minutes, with telemetry and without",
                subtitle="x: minutes. Shaded: the telemetry endpoints of the own Region are in trouble, with * those of both Regions.",
                anchor="start",
                fontSize=15,
                subtitleFontSize=12,
                subtitleColor="#5f6b7d",
            )
        )
        .configure_view(stroke="#d5dae2")
        .configure_axis(labelFontSize=11, titleFontSize=12, titleFontWeight="normal", gridColor="#eceff4", labelColor="#5f6b7d")
        .configure_legend(orient="top", labelFontSize=12, symbolStrokeWidth=3)
    )
    return bytes(vl_convert.vegalite_to_png(chart.to_json(), scale=1.5))
