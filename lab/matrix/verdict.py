"""Whether a fault led to what it must lead to: a `Record` and an `Expectation` in, sentences out. Pure."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from lab.matrix.expected import CELLS, NAME, Expectation
from lab.matrix.record import OK, SILENT, SLOW, Heard, Record, Seen
from lab.matrix.watch import most_common

if TYPE_CHECKING:
    from collections.abc import Iterator

WARM_UP_S = 40.0  # DNS caches, connections under way, and the round that the fault struck in
AFTER_S = 10.0


def findings(record: Record, wanted: Expectation) -> list[str]:
    """Everything that is not as it must be; empty where the contract held."""
    return [*record.troubles, *_pages(record, wanted), *_tickets(record, wanted), *_ends(record), *_cells(record, wanted)]


def _pages(record: Record, wanted: Expectation) -> Iterator[str]:
    page = wanted.page.on(record.struck) if wanted.page else None
    urgent = [heard for heard in record.heard if heard.urgent]
    right = [heard for heard in urgent if page and (heard.diagnosis, heard.subject) == (page.diagnosis, page.subject)]
    if page and not right and not wanted.or_nobody and not wanted.gap:
        yield f"no page says {page}"
    if right and wanted.gap:
        yield f"{page} was paged: this is no gap any more, correct lab/matrix/expected.py"
    if len(right) > 1:
        yield f"{page} was paged {len(right)} times"
    if right and right[0].opened > wanted.within_s:
        yield f"{page} was paged after {right[0].opened:.0f} s, and not within {wanted.within_s:.0f} s"
    for heard in urgent:
        if heard not in right:
            yield f"somebody was woken for nothing: {heard.diagnosis} {heard.subject}"
        elif record.fault == "region-down" and heard.region == record.struck:
            yield f"the page comes from {record.struck}, which is dead"


def _tickets(record: Record, wanted: Expectation) -> Iterator[str]:
    calm = [heard for heard in record.heard if not heard.urgent]
    for missing in sorted(wanted.tickets - {heard.diagnosis for heard in calm}):
        yield f"no ticket says {missing}"
    allowed = wanted.tickets | wanted.may
    for strange in sorted({f"{heard.diagnosis} {heard.subject}" for heard in calm if heard.diagnosis not in allowed}):
        yield f"a ticket about something else: {strange}"


def _ends(record: Record) -> Iterator[str]:
    for heard in record.heard:
        if heard.resolved is None:
            yield f"{heard.diagnosis} {heard.subject} was never resolved"
    if record.green is None:
        yield "not all is well again"


def _cells(record: Record, wanted: Expectation) -> Iterator[str]:
    for cell, got in observed(record, wanted.lasts_s).items():
        want = wanted.sees.get(cell, frozenset({OK}))
        if got not in want and not (got == SLOW and want == {OK}):
            yield f"the probe says {got} of {cell}, not {' or '.join(sorted(want))}"
    for page in sorted(failed_pages(record) - wanted.pages) if wanted.pages else ():
        yield f"the page {page} fails too"


def observed(record: Record, lasts_s: float = inf) -> dict[str, str]:
    """``vantage>target`` -> the class of most rounds while the fault was in force, at most ``lasts_s`` after it struck."""
    vantages = {"here": record.struck, "there": record.other}
    targets = {"here": f"alb-{record.struck}", "there": f"alb-{record.other}", "name": NAME}
    found = {}
    for cell in CELLS:
        vantage, target = cell.split(">")
        rounds = [each for each in _during(record) if each.vantage == vantages[vantage] and each.at <= lasts_s]
        found[cell] = most_common((each.classes[targets[target]] for each in rounds), SILENT)
    return found


def failed_pages(record: Record) -> set[str]:
    """The store's pages that failed at the struck Region's load balancer in most rounds in which any failed."""
    target = f"alb-{record.struck}"
    rounds = [set(each.pages[target]) for each in _during(record) if each.pages.get(target)]
    return {page for page in set().union(*rounds) if 2 * sum(page in each for each in rounds) > len(rounds)}


def _during(record: Record) -> list[Seen]:
    return [each for each in record.seen if WARM_UP_S <= each.at <= record.lasted - AFTER_S]


def page_of(record: Record) -> Heard | None:
    """The first page."""
    return next((heard for heard in record.heard if heard.urgent), None)


__all__ = ["failed_pages", "findings", "observed", "page_of"]
