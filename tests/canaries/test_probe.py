"""The probe: its decisions, its datapoints, and whole runs of its bundle against real servers."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from canaries.probe import metrics, verdict
from canaries.probe.arc import RoutingReader
from canaries.probe.report import LINE_LIMIT, line
from canaries.probe.rounds import Round, grid
from canaries.probe.settings import Arc, Database, Page, ProbeSettings
from canaries.probe.verdict import Cell, Look
from canaries.probe.writers import Writers
from canaries.shared import aws as aws_client
from canaries.shared import trace
from canaries.shared.exchange import Exchange, Failure, Kind, Phase, Phases
from canaries.shared.publish import Writer
from canaries.shared.settings import ConfigurationError, decode, encode, load
from canaries.shared.target import Target
from tests.canaries.servers import CREDENTIALS, Recorder, answering, raw_server

if TYPE_CHECKING:
    pass

EAST, WEST = "us-east-1", "us-west-2"
GOOD = Exchange(None, Phases(1, 1, None, 5, 1, 8.0), 200, "127.0.0.1")
SLOW = replace(GOOD, phases=Phases(1, 1, None, 1500, 1, 1503.0))
BAD = Exchange(Failure(Kind.STATUS, Phase.TTFB, "503, expected 200"), Phases(1, 1, None, 5, 1, 8.0), 503, "127.0.0.1")
RUN = trace.TraceId("6b000000", "a" * 24)


def looks(*pages: str, target: str = "name") -> list[Look]:
    """Looks by a letter each: g good, s slow, f failed twice, r good on the second try."""
    tries = {"g": (GOOD, None), "s": (SLOW, None), "f": (BAD, BAD), "r": (BAD, GOOD)}
    return [Look(target, f"page{number}", *tries[letter]) for number, letter in enumerate(pages)]


# ---------------------------------------------------------------------- decisions


@pytest.mark.parametrize(
    ("pages", "cell"),
    [
        ("gggg", Cell.UP),
        ("rggg", Cell.UP),
        ("rrrr", Cell.UP),
        ("gggs", Cell.DEGRADED),
        ("gfgg", Cell.DEGRADED),
        ("gffg", Cell.DEGRADED),
        ("gfff", Cell.DOWN),
        ("fggg", Cell.DOWN),
        ("ffff", Cell.DOWN),
        ("f", Cell.DOWN),
        ("gf", Cell.DEGRADED),
        ("gfffffffffff", Cell.DOWN),
    ],
)
def test_a_targets_cell(pages: str, cell: Cell) -> None:
    """Home twice, or three quarters of the pages twice."""
    assert verdict.cell(looks(*pages), degraded_ms=1000) is cell


@given(st.text("gsfr", min_size=1, max_size=12), st.integers(0, 11))
def test_one_more_failed_page_never_makes_a_cell_better(pages: str, at: int) -> None:
    order = [Cell.UP, Cell.DEGRADED, Cell.DOWN]
    worse = pages[: at % len(pages)] + "f" + pages[at % len(pages) + 1 :]
    assert order.index(verdict.cell(looks(*worse), 1000)) >= order.index(verdict.cell(looks(*pages), 1000))


def test_a_vantage_that_sees_nothing_up_is_not_sighted() -> None:
    assert verdict.sighted([Cell.DOWN, Cell.DEGRADED])
    assert not verdict.sighted([Cell.DOWN, Cell.DOWN])
    assert not verdict.sighted([])


REGIONS = {"10.0.0.1": EAST, "10.0.0.2": WEST}


@pytest.mark.parametrize(
    ("addresses", "routing", "agrees"),
    [
        (["10.0.0.1"], {EAST: True, WEST: True}, True),
        (["10.0.0.1"], {EAST: False, WEST: True}, False),
        (["10.0.0.1", "10.0.0.2"], {EAST: True, WEST: True}, True),
        (["10.0.0.1", "10.0.0.2"], {EAST: True, WEST: False}, False),
        (["10.0.0.1"], {WEST: True}, None),
        (["10.0.0.9"], {EAST: True, WEST: True}, None),
        (["10.0.0.9", "10.0.0.1"], {EAST: False}, False),
        ([], {EAST: True, WEST: True}, None),
        (["10.0.0.1"], {}, None),
    ],
)
def test_whether_dns_agrees_with_the_routing_controls(addresses: list[str], routing: dict[str, bool], agrees: bool | None) -> None:
    """What cannot be told is None, never a disagreement: unknown is not off."""
    assert verdict.dns_agrees(addresses, REGIONS, routing) is agrees


@pytest.mark.parametrize(
    ("headers", "body", "ip", "region"),
    [
        ({"x-retail-store-metadata": "region=us-west-2; task=4f2c"}, "us-east-1", "10.0.0.1", WEST),
        ({}, "Served from <b>us-west-2</b>", "10.0.0.1", WEST),
        ({}, "us-west-2 and us-east-1", "10.0.0.1", EAST),
        ({}, "nothing", "10.0.0.2", WEST),
        ({}, "nothing", "10.0.0.9", None),
    ],
)
def test_which_region_answered(headers: dict[str, str], body: str, ip: str, region: str | None) -> None:
    answer = replace(GOOD, headers=headers, body=body, ip=ip)
    assert verdict.answering_region(answer, "X-Retail-Store-Metadata", (EAST, WEST), REGIONS) == region


def test_a_page_fails_the_run_when_it_failed_in_half_of_its_rounds() -> None:
    failed = verdict.pages_failed([looks("f", "f"), looks("g", "f"), looks("f", "g"), looks("g", "g"), looks("g", "f")])
    assert [len(each) for each in failed.values()] == [0, 3]


# ---------------------------------------------------------------------- rounds and datapoints


@given(
    st.floats(1e9, 2e9), st.sampled_from([5.0, 10.0, 15.0, 20.0, 30.0]), st.floats(0, 9.9), st.floats(0, 58),
)  # fmt: skip
def test_slots_lie_on_the_grid_within_the_run(start: float, every: float, offset: float, until: float) -> None:
    slots = list(grid(start, every, offset, until))
    assert all(start - 1e-3 <= slot <= start + until + 1e-3 for slot in slots)
    assert all(abs((slot - offset) / every - round((slot - offset) / every)) < 1e-6 for slot in slots)
    assert len(slots) >= int(until / every)


def test_two_vantages_that_start_apart_share_their_slots() -> None:
    east, west = list(grid(1_800_000_002.3, 10, 6, 50)), list(grid(1_800_000_009.9, 10, 6, 50))
    assert [slot % 60 for slot in east] == [6, 16, 26, 36, 46]
    assert set(east) & set(west) == {slot for slot in east if slot > 1_800_000_010}


def settings(**changes: Any) -> ProbeSettings:
    values: dict[str, Any] = {
        "workload": "retail",
        "vantage": EAST,
        "targets": (
            Target("alb-us-east-1", "http://a.test", EAST),
            Target("alb-us-west-2", "http://b.test", WEST),
            Target("name", "http://n.test"),
        ),
        "pages": (Page("home", "/home"), Page("cart", "/cart")),
        "write_to": {EAST: None, WEST: None},
        **changes,
    }
    return ProbeSettings(**values)


def seen(cells: dict[str, Cell], **changes: Any) -> Round:
    values: dict[str, Any] = {
        "slot": 1_800_000_006.0,
        "looks": tuple(look for target in cells for look in looks("g", "f", target=target)),
        "cells": cells,
        "routing": {EAST: True},
        "agrees": None,
        "served_by": {},
        "pooled": None,
        "seconds": 0.1,
        **changes,
    }
    return Round(**values)


def names(data: list[dict[str, Any]]) -> list[str]:
    return [f"{each['MetricName']}{{{','.join(d['Value'] for d in each['Dimensions'][1:])}}}={each.get('Value')}" for each in data]


def test_a_round_becomes_the_matrix() -> None:
    cells = {"alb-us-east-1": Cell.UP, "alb-us-west-2": Cell.DOWN, "name": Cell.DEGRADED}
    all_looks = (*looks("g", "g", target="alb-us-east-1"), *looks("f", "f", target="alb-us-west-2"), *looks("g", "f", target="name"))
    data = metrics.data(settings(), seen(cells, looks=all_looks), last=False)
    assert names(data) == [
        "Up{alb-us-east-1}=1.0",
        "Whole{alb-us-east-1}=1.0",
        "Up{us-east-1,alb-us-east-1}=1.0",
        "Up{alb-us-west-2}=0.0",
        "Whole{alb-us-west-2}=0.0",
        "Up{us-east-1,alb-us-west-2}=0.0",
        "Up{name}=1.0",
        "Whole{name}=0.0",
        "Up{us-east-1,name}=1.0",
        "Sighted{}=1.0",
        "Sighted{us-east-1}=1.0",
        "Alive{us-east-1}=1.0",
        "RoutingOn{us-east-1}=1.0",
    ]
    assert all(each["StorageResolution"] == 1 for each in data)
    assert all(each["Dimensions"][0] == {"Name": "Workload", "Value": "retail"} for each in data)


def test_a_vantage_that_sees_nothing_does_not_vote() -> None:
    data = names(metrics.data(settings(), seen(dict.fromkeys(["alb-us-east-1", "alb-us-west-2", "name"], Cell.DOWN)), last=False))
    assert not [each for each in data if each.startswith(("Up{alb", "Up{name"))]
    assert {"Up{us-east-1,name}=0.0", "Sighted{}=0.0", "Alive{us-east-1}=1.0"} < set(data)


def test_the_last_round_leases_the_next_two_slots() -> None:
    data = [each for each in metrics.data(settings(), seen({"name": Cell.UP}), last=True) if each["MetricName"] == "Alive"]
    assert [each["Timestamp"].timestamp() - 1_800_000_006 for each in data] == [0, 10, 20]


def test_the_own_region_also_gets_what_is_degraded_latencies_and_writes() -> None:
    data = metrics.own_data(settings(), seen({"name": Cell.DEGRADED}), {EAST: True, WEST: False})
    assert names(data) == [
        "Degraded{us-east-1,name}=1.0",
        "LatencyMs{us-east-1,name}=None",
        "WriteOk{us-east-1,us-east-1}=1.0",
        "WriteOk{us-east-1,us-west-2}=0.0",
    ]
    assert data[1]["Values"] == [8.0]  # the page that failed has no latency


def test_how_many_clusters_write_goes_everywhere_once_it_was_read() -> None:
    """In the round after RDS was asked, and in no other; a database about which nothing is known is absent."""
    round_ = seen({"name": Cell.UP})
    data = names(metrics.data(settings(), round_, False, {"orders": 2, "catalog": 0}))
    assert {"Writers{orders}=2.0", "Writers{catalog}=0.0"} < set(data)
    assert not [each for each in names(metrics.data(settings(), round_, last=False)) if each.startswith("Writers")]
    found = Writers({"orders": 2}, {"catalog": "us-east-1: Throttling"})
    assert json.loads(line(settings(), round_, RUN, {}, found))["writers"] == {"orders": 2, "catalog": "us-east-1: Throttling"}
    assert "writers" not in json.loads(line(settings(), round_, RUN, {}, Writers()))


def test_a_rounds_line_is_bounded_and_keeps_the_failures() -> None:
    cells = {f"alb-{number}": Cell.UP for number in range(200)}
    text = line(
        settings(targets=()), seen(cells, looks=tuple(look for t in cells for look in looks("g", "g", "f", target=t)), routing={}), RUN, {}
    )
    parsed = json.loads(text)
    assert len(text) <= LINE_LIMIT
    assert parsed["left_out"] > 0
    assert {look["ok"] for look in parsed["looks"]} == {False}


# ---------------------------------------------------------------------- writing and reading


def test_a_region_that_cannot_be_written_to_delays_nobody(aws: tuple[Recorder, Recorder], monkeypatch: pytest.MonkeyPatch) -> None:
    """One Region is a black hole, one refuses, one works: the works-one has its datum, all is over in little more than the timeout."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)

    def swallow(connection: Any) -> None:
        while connection.recv(65536):
            pass
        time.sleep(3)

    with raw_server(swallow) as hole:
        writer = Writer("Crosswatch/Probe", {EAST: aws[0].url, WEST: f"http://127.0.0.1:{hole}", "eu-west-1": "http://127.0.0.1:1"}, 0.5)
        data = metrics.data(settings(), seen({"name": Cell.UP}), last=False)
        began = time.perf_counter()
        outcome = writer.write(dict.fromkeys([EAST, WEST, "eu-west-1"], data))
        took = time.perf_counter() - began
        writer.close()
    assert outcome[EAST] is None
    assert aws[0].values("Sighted") == [1.0]
    assert (outcome[WEST] or "").startswith(("ReadTimeoutError", "no answer within"))
    assert (outcome["eu-west-1"] or "").startswith("EndpointConnectionError")
    assert took < 1.2


CALLS: dict[str, Any] = {
    "cloudwatch": lambda client: client.put_metric_data(Namespace="Crosswatch/Probe", MetricData=[{"MetricName": "Up", "Value": 1.0}]),
    "rds": lambda client: client.describe_global_clusters(),
    "route53-recovery-cluster": lambda client: client.get_routing_control_state(RoutingControlArn="arn:aws:x:::" + "c" * 80),
    "s3": lambda client: client.get_object(Bucket="kept", Key="book"),
}


@pytest.mark.parametrize("service", CALLS)
@pytest.mark.parametrize("status", [500, 502])
def test_a_proxys_own_page_in_place_of_awss_answer_is_an_error_like_others(
    service: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """botocore raises something of its own kind for an answer that it cannot read; a run must survive that too."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    text = "<!doctype html>\n<html lang=en>\n<title>Bad gateway</title>"
    answer = f"HTTP/1.1 {status} Bad\r\nContent-Type: text/html\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n{text}"
    with raw_server(answering(answer.encode())) as port, pytest.raises(aws_client.errors()) as caught:
        CALLS[service](aws_client.client(service, EAST, f"http://127.0.0.1:{port}", 1.0))
    assert aws_client.short(caught.value)


def test_routing_is_read_from_any_cluster_endpoint(aws: tuple[Recorder, Recorder], monkeypatch: pytest.MonkeyPatch) -> None:
    """The first endpoint is gone: the next one is asked, and asked first from then on. A control that nobody knows is absent."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    arn = "arn:aws:route53-recovery-control::123456789012:controlpanel/" + "0" * 32 + "/routingcontrol/{}"
    controls = {EAST: arn.format("a" * 16), WEST: arn.format("b" * 16), "eu-west-1": arn.format("c" * 16)}
    aws[0].controls.update({controls[EAST]: "On", controls[WEST]: "Off"})
    reader = RoutingReader(Arc({"ap-southeast-2": "http://127.0.0.1:1", EAST: aws[0].url}, controls), 0.5, 2)
    assert reader() == {EAST: True, WEST: False}
    assert RoutingReader(None, 0.5, 2)() == {}


# ---------------------------------------------------------------------- configuration


def test_a_configuration_survives_the_way_through_json() -> None:
    full = settings(
        arc=Arc({EAST: "http://x"}, {EAST: "arn"}),
        ca="PEM",
        resolver="10.0.0.2:53",
        databases={"orders": Database("retail-orders", {EAST: "orders-east", WEST: "orders-west"})},
        rds={EAST: None, WEST: "http://rds.west.test"},
    )
    problems: list[str] = []
    assert decode(ProbeSettings, encode(full), "", problems) == full
    assert problems == []


def test_all_problems_of_a_configuration_are_named(tmp_path: Path) -> None:
    data = encode(settings())
    data["vantag"] = data.pop("vantage")
    data["pages"][1]["status"] = "200"
    data["rounds"]["every_s"] = True
    path = tmp_path / "config.json"
    path.write_text(json.dumps(data))
    with pytest.raises(ConfigurationError) as caught:
        load(ProbeSettings, path)
    for part in ("config.json: vantage: missing", "vantag: unknown key", "pages[1].status: a int is expected, not '200'", "rounds.every_s"):
        assert part in str(caught.value)


# ---------------------------------------------------------------------- traces


def test_a_trace_has_one_id_in_three_spellings() -> None:
    headers = trace.headers(RUN, "b" * 16, True, EAST, "agent")
    assert headers["X-Amzn-Trace-Id"] == f"Root=1-6b000000-{'a' * 24};Parent={'b' * 16};Sampled=1"
    assert headers["traceparent"] == f"00-6b000000{'a' * 24}-{'b' * 16}-01"
    assert headers["X-Crosswatch-Synthetic"] == "true"
    assert "crosswatch.synthetic=true" in headers["baggage"]


@examples(deadline=None)
@given(st.integers(0, 900), st.integers(0, 900))
def test_a_segment_document_always_fits_and_failures_come_first(good: int, failed: int) -> None:
    spans = [trace.Subsegment(f"{n:016x}", "store.retail.test", n, 0.1, "http://store.retail.test/home", status=200) for n in range(good)]
    spans += [replace(spans[0] if spans else trace.Subsegment("0" * 16, "s", 0, 0.1, "u"), error="x" * 200) for _ in range(failed)]
    text = trace.document(trace.RunSegment(RUN, "c" * 16, "retail-probe", 0, 50, {}, tuple(spans)))
    parsed = json.loads(text)
    kept = parsed["subsegments"]
    assert len(text) <= trace.DOCUMENT_LIMIT
    assert len(kept) + parsed["metadata"]["crosswatch"]["left_out"] == good + failed
    assert sum("fault" in each for each in kept) == min(failed, len(kept))
