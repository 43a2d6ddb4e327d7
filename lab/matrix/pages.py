"""The tables in docs/lab, from the records of a pass: what was paged, what the probe saw, which of AWS's metrics moved."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.faults import CATALOGUE
from lab.matrix.expected import CELLS, Expectation, expected
from lab.matrix.record import OK, Record
from lab.matrix.vended import MOVES, Moved, moved
from lab.matrix.verdict import failed_pages, findings, observed, page_of
from topology.signals import CATALOGUE as SIGNALS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from topology.signal import Signal

MADE = "Made by `python -m lab.matrix out/matrix` from the records of `python deploy.py lab matrix`"
YES, NO = "✔", "✘"


def matrix(records: Mapping[str, Record]) -> str:
    """docs/lab/matrix.md."""
    rows = [(fault.name, records.get(fault.name)) for fault in CATALOGUE]
    tried = [record for _, record in rows if record]
    gaps = [record for record in tried if wanted(record).gap]
    kept = [record for record in tried if record not in gaps and not findings(record, wanted(record))]
    of_which = f", {len(gaps)} are known gaps" if gaps else ""
    seconds = sorted(page.opened for record in tried if (page := page_of(record)) and page.diagnosis in {"region-impaired", "store-down"})
    lines = [
        "# This fault, that page, and no other",
        "",
        f"{MADE} (speed {_speeds(tried)}, shoppers in the store).",
        f"{len(tried)} of {len(rows)} faults were tried, {len(kept)} led to what they must lead to{of_which}.",
        "What a fault must lead to stands in `lab/matrix/expected.py`, with reasons; it is derived from what a person on call has to do",
        "([from the matrix to one page](../alarms/paging.md)), and not from what came out.",
        "",
        "A row is good when, from all-green to all-green: the page came in time, once, with the right diagnosis and subject, or nobody was",
        "woken; every ticket that had to come came, and none about something else; every incident was resolved after healing; and",
        "each vantage's probe named the failure rightly ([probe classes](probe-classes.md)). Times are lab seconds from the fault to",
        "the page at the receiver. The objectives' burn-rate alarms have no actions during the pass, as on a game day: it burns a month's",
        "budget in an hour, and what they say of that is not about one fault.",
        "",
    ]
    if again := [record.fault for record in tried if record.tries > 1]:
        lines += [f"Tried again, because the machine was too busy to tell at first: {', '.join(again)}.", ""]
    if seconds:
        lines += [f"Pages about a Region or the store came {seconds[0]:.0f} to {seconds[-1]:.0f} s after the fault.", ""]
    lines += ["| fault | must wake | woke | after | tickets | | why |", "| --- | --- | --- | --- | --- | --- | --- |"]
    lines += [_matrix_row(name, record) for name, record in rows]
    lines += ["", "✘ is a contract that did not hold" + ("; *gap* one that Crosswatch cannot keep yet, and says so." if gaps else ".")]
    problems = [(record.fault, each) for record in tried for each in findings(record, wanted(record))]
    if problems:
        lines += ["", "## What did not hold", "", *(f"- `{fault}`: {each}" for fault, each in problems)]
    return "\n".join(lines) + "\n"


def probe_classes(records: Mapping[str, Record]) -> str:
    """docs/lab/probe-classes.md."""
    names = {"here": "the struck Region", "there": "the other Region", "name": "the name"}
    heads = [f"{cell.split('>')[0]} → {cell.split('>')[1]}" for cell in CELLS]
    shown = [record for fault in CATALOGUE if (record := records.get(fault.name))]
    right = sum(not _wrong(record) for record in shown)
    lines = [
        "# What the probe calls each fault",
        "",
        f"{MADE} (speed {_speeds(shown)}).",
        f"One column for each vantage and target: *here* is {names['here']}, *there* {names['there']}, *name* the store's name as that",
        "vantage resolves it. A cell is what the probe's own log said in most rounds while the fault was in force: `ok`, `slow`, `silent`",
        "(the vantage said nothing), or the kind of failure most of the target's failed pages had ([kinds](../canaries.md)). Pages are",
        "named where not all of them failed. A cell that is not what `lab/matrix/expected.py` declares is **bold**, with what was",
        "declared.",
        f"{right} of {len(shown)} faults are classified right in all six cells. The phases, page by page, from a lab at speed 1, are in",
        "[what the probe says of every fault](../canaries-faults.md).",
        "",
        "| fault | " + " | ".join(heads) + " | pages |",
        "| --- |" + " --- |" * (len(heads) + 1),
    ]
    for record in shown:
        cells = [_cell(cell, got, wanted(record)) for cell, got in observed(record, wanted(record).lasts_s).items()]
        pages = sorted(failed_pages(record))
        lines.append(f"| `{record.fault}` | {' | '.join(cells)} | {', '.join(pages) if 0 < len(pages) < 4 else ''} |")
    return "\n".join(lines) + "\n"


def vended(records: Mapping[str, Record]) -> str:
    """docs/lab/vended-metrics.md."""
    found = {each.move: each for record in records.values() for each in moved(record)}
    moves = {move.signal: found.get(move) for move in MOVES}
    signals = [signal for signal in SIGNALS if signal.vended]
    good = sum(bool((each := moves.get(signal)) and not each.problem) for signal in signals)
    strays = sorted({stray for record in records.values() for stray in record.strays})
    lines = [
        "# AWS's own metrics in the lab",
        "",
        f"{MADE}.",
        "Every metric of the [signal catalogue](../../topology/catalogue.py) that AWS emits, asked of the local CloudWatch with its",
        "documented dimensions and unit, in the Regions where AWS reports it, once a lab minute, before, under and after a fault that",
        "should move it.",
        "*Series* says how many of the catalogue's series had data at any time in the pass. *appears*: reported only when it is not zero;",
        f"*absent*: what reports it was gone. {good} of {len(signals)} moved and came back.",
        "",
        "| metric | dimensions | unit | series | absent when | fault | should | before | under it | after | |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *(_vended_row(signal, moves.get(signal), records.values()) for signal in signals),
        "",
        "## Where they must not be",
        "",
    ]
    lines += [f"- {NO} {stray}" for stray in strays] or [
        "No series stood in a Region where AWS does not report it: Route 53's health checks are in us-east-1 only, Aurora's lag in the",
        "secondary's Region only, DynamoDB's replication latency in the source's.",
    ]
    absent = [
        f"- {YES if not points else NO} `{name}` in the writer's Region {region}: {'absent' if not points else 'present'}"
        for name, region, points in _lag_at_the_writer(records.values())
    ]
    return "\n".join([*lines, "", *absent]) + "\n"


def wanted(record: Record) -> Expectation:
    """What the record's fault must lead to, in the lab that it was tried in."""
    return expected(record.patience_s)[record.fault]


def _matrix_row(name: str, record: Record | None) -> str:
    if record is None:
        must = expected(1.0)[name]
        return f"| `{name}` | {_must(must, 'the Region')} | | | | not tried | {must.why} |"
    must, page = wanted(record), page_of(record)
    problems = findings(record, must)
    mark = NO if problems else "gap" if must.gap else YES
    tickets = ", ".join(sorted({each.diagnosis for each in record.heard if not each.urgent}))
    woke, after = (f"{page.diagnosis} {page.subject}", f"{page.opened:.0f} s") if page else ("nobody", "")
    return f"| `{name}` | {_must(must, record.struck)} | {woke} | {after} | {tickets} | {mark} | {must.gap or must.why} |"


def _must(must: Expectation, struck: str) -> str:
    page = str(must.page.on(struck)) if must.page else "nobody"
    ticket = f" (ticket {', '.join(sorted(must.tickets))})" if must.tickets else ""
    return page + (" or nobody" if must.or_nobody else "") + ticket


def _cell(cell: str, got: str, must: Expectation) -> str:
    declared = must.sees.get(cell, frozenset({OK}))
    return got if got in declared else f"**{got}** ({' or '.join(sorted(declared))})"


def _wrong(record: Record) -> bool:
    return any("**" in _cell(cell, got, wanted(record)) for cell, got in observed(record, wanted(record).lasts_s).items())


def _vended_row(signal: Signal, each: Moved | None, records: Iterable[Record]) -> str:
    known: dict[tuple[str, str], bool] = {}
    for record in records:
        for points in record.points:
            if (points.namespace, points.name, set(points.dimensions)) == (signal.namespace, signal.name, set(signal.dimensions)):
                key = (points.region, str(sorted(points.dimensions.items())))
                known[key] = known.get(key, False) or bool(points.points)
    present = f"{sum(known.values())} of {len(known)}"
    head = f"| {signal.namespace} `{signal.name}` | {', '.join(signal.dimensions)} | {signal.unit} | {present} | {signal.absence} |"
    if each is None:
        move = next(move for move in MOVES if move.signal == signal)
        return f"{head} `{move.fault}` | {move.way} | | not tried | | |"
    values = [_values(part) for part in (each.before, each.during, each.after)]
    verdict = f"{NO} {each.problem}" if each.problem else YES
    return f"{head} `{each.move.fault}` | {each.move.way} | {' | '.join(values)} | {verdict} |"


def _values(values: tuple[float, ...]) -> str:
    if not values:
        return "–"
    low, high = min(values), max(values)
    return f"{low:.3g}" if low == high else f"{low:.3g} … {high:.3g}"


def _lag_at_the_writer(records: Iterable[Record]) -> Iterator[tuple[str, str, int]]:
    """(metric, Region, datapoints) of Aurora's lag metrics in the struck Region, where the writers are, over all records."""
    counts: dict[tuple[str, str], int] = {}
    for record in records:
        for points in record.points:
            if points.name.startswith("AuroraGlobalDB") and points.region == record.struck:
                counts[points.name, points.region] = counts.get((points.name, points.region), 0) + len(points.points)
    yield from ((name, region, count) for (name, region), count in sorted(counts.items()))


def _speeds(records: Iterable[Record]) -> str:
    return " and ".join(f"{speed:g}" for speed in sorted({record.speed for record in records})) or "unknown"
