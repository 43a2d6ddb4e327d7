"""Topology files: what is good is read, what is wrong is said all at once, with line, key and mend."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import trustme
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from topology import Topology, UnusableInput, load, loads

EXAMPLE = Path(__file__).parents[2] / "topology.yaml"
TEXT = EXAMPLE.read_text(encoding="utf-8")


def problems(text: str) -> list[str]:
    """The problems of ``text`` as 'key: what'."""
    with pytest.raises(UnusableInput) as caught:
        loads(text, "t.yaml")
    for problem in caught.value.problems:
        assert problem.file == "t.yaml"
        assert problem.mend
    return [f"{problem.key}: {problem.what}" for problem in caught.value.problems]


def test_the_example_is_a_topology() -> None:
    """The file in the repository is read, with its Regions as vantages and the name as the last target."""
    topology = load(EXAMPLE)
    assert topology.vantage_names == ("us-east-1", "us-west-2")
    assert topology.targets == ("alb-us-east-1", "alb-us-west-2", "name")
    assert topology.store.url == "https://store.example.com"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("us-west-2:\n    alb", "us-wst-2:\n    alb"), "regions.us-wst-2: AWS has no Region 'us-wst-2'"),
        (("target_percent: 99.9,", "target_percent: 100,"), "objectives[0].target_percent: input should be less than 100"),
        (("paging:", "pagign:"), "pagign: 'pagign' is not known here; is 'paging' meant?"),
        (("{name: catalog, path", "{name: home, path"), "pages[1].name: the name 'home' is taken by pages[0]"),
        (("      url: https://alb.us-east-1.store.example.com\n", ""), "regions.us-east-1.alb.url: 'url' is missing"),
        (('body: "Retail Store"', 'body: "Retail ("'), "pages[0].body: this is not a regular expression"),
        (("latency_ms: 1000, ", ""), "objectives[1]: a latency objective needs 'latency_ms'"),
        (('account: "123456789012"', "account: 123456789012"), "account: input should be a valid string"),
        (("failover:\n    catalog:", "failover:\n    katalog:"), "runbooks.failover.katalog: 'katalog' is none of the databases"),
        (("us-east-1: retail-checkout-us-east-1", "us-east-1: []"), "caches.checkout.clusters.us-east-1: one node, or a list"),
        (("us-east-1: retail-checkout-us-east-1", "us-east-1: [a, a]"), "caches.checkout.clusters.us-east-1: one node, or a list"),
        (("us-east-1: retail-checkout-us-east-1", "us-east-1: [a, 3]"), "caches.checkout.clusters.us-east-1[1]: input should be a valid"),
        (("environment: production", "environment: production\nenvironment: test"), "environment: the name 'environment' stands twice"),
        (('{Region: "{region}"}}', '{Region: "{Region}"}}'), "runbooks.drain.parameters.Region: nothing but {region} can be filled in"),
        (('{Region: "{region}"}}', '{Region: "{"}}'), "runbooks.drain.parameters.Region: a brace stands alone"),
        (('{Region: "{region}"}}', '{Region: "{region!r}"}}'), "runbooks.drain.parameters.Region: nothing but {region}"),
        (("queues: [orders]", "queues: [orders, orders]"), "brokers.orders.queues: the queue 'orders' stands twice"),
        (("queues: [orders]", 'queues: [":orders"]'), "brokers.orders.queues[0]: ':orders' does not have the form"),
        (("queues: [orders]", 'queues: ["ord\\ners"]'), "brokers.orders.queues[0]: "),
        (("ecs_cluster: retail\n", "ecs_cluster: 'retail: 1'\n"), "regions.us-east-1.ecs_cluster: "),
        (("table: retail-carts", "table: ''"), "tables.carts.table: '' does not have the form"),
        (("url: https://alb.us-east-1.store.example.com", "url: 'http://[::1'"), "regions.us-east-1.alb.url: this is not an address"),
        (("url: https://alb.us-east-1.store.example.com", "url: https://a:99999"), "regions.us-east-1.alb.url: this is not an address"),
        (("workload: retail\n", f"workload: {'r' * 31}\n"), f"workload: with {'r' * 31!r} in them, names of a bucket or a role in us-"),
    ],
)
def test_each_mistake_is_named(change: tuple[str, str], expected: str) -> None:
    """One bad line for each rule: the problem names the key and says what is wrong."""
    assert change[0] in TEXT
    found = problems(TEXT.replace(*change, 1))
    assert any(item.startswith(expected) for item in found), found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "the file is empty"),
        ("# only a comment\n", "the file is empty"),
        ("- a\n- b\n", "a mapping is expected at the top, not a list"),
        ("a: [", "this is not YAML"),
        ("a: b: c", "this is not YAML"),
        ("\x00", "this is not YAML"),
        ("!!python/object/apply:os.system [ls]", "this is not YAML"),
    ],
)
def test_what_is_no_mapping_is_said_in_one_sentence(text: str, expected: str) -> None:
    """Empty files, lists and broken YAML get a message, not a traceback."""
    assert expected in problems(text)[0]


def test_all_problems_come_at_once() -> None:
    """Three mistakes, three problems, in the order of the file."""
    bad = (
        TEXT.replace("workload: retail", "workload: Retail Store").replace("scheme: https", "scheme: gopher").replace("paging:", "pagign:")
    )
    found = problems(bad)
    assert [item.split(":")[0] for item in found] == ["workload", "store.scheme", "pagign"]


def test_a_region_that_is_missing_somewhere_is_found() -> None:
    """Each map by Region must be complete."""
    found = problems(
        TEXT.replace("clusters: {us-east-1: retail-orders-us-east-1, us-west-2: retail-orders-us-west-2}", "clusters: {us-east-1: x}")
    )
    assert found == ["databases.orders.clusters: the entry for us-west-2 is missing"]


def test_lines_are_those_of_the_file() -> None:
    """The line points at the key."""
    with pytest.raises(UnusableInput) as caught:
        loads(TEXT.replace("paging:", "pagign:"), "t.yaml")
    line = caught.value.problems[0].line
    assert line is not None
    assert TEXT.splitlines()[line - 1].startswith("paging:")


def test_three_regions_and_a_vantage_without_the_workload() -> None:
    """No Region is known by name: a third one that only looks adds a row to the matrix and no target."""
    topology = loads(TEXT + "\nvantages: {eu-west-1: {}}\n")
    assert topology.vantage_names == ("us-east-1", "us-west-2", "eu-west-1")
    assert len(topology.targets) == 3


def test_endpoints_must_cover_every_region() -> None:
    """A private endpoint for one Region only is a mistake that would be noticed in the failover."""
    found = problems(TEXT + "\nendpoints: {us-east-1: {'*': 'http://127.0.0.1:4566'}}\n")
    assert found == ["endpoints: the endpoints for us-west-2 are missing while other Regions have theirs"]


@pytest.mark.parametrize("region", ["cn-north-1", "us-gov-west-1"])
def test_a_region_of_another_partition_is_refused(region: str) -> None:
    """What is rendered holds ARNs of one partition; deploying it elsewhere would fail half-way."""
    found = problems(TEXT + f"\nvantages: {{{region}: {{}}}}\n")
    assert [item.split(" to the partition")[0] for item in found] == [f"vantages.{region}: {region} belongs"]


@pytest.mark.parametrize("name", ["ledger_schedule", "journey_schedule"])
def test_a_schedule_that_synthetics_refuses_is_named_with_the_forms(name: str) -> None:
    """Not a traceback of `cost`, and not a failed deployment."""
    with pytest.raises(UnusableInput) as caught:
        loads(TEXT + f"\njourneys: {{{name}: rate(2 hours)}}\n")
    [problem] = caught.value.problems
    assert problem.key == f"journeys.{name}"
    assert "rate(1 hour)" in problem.mend


def endpoints(**services: str) -> str:
    """The example with private endpoints, the same in both Regions."""
    return TEXT + "\n" + yaml.safe_dump({"endpoints": dict.fromkeys(("us-east-1", "us-west-2"), services)})


@pytest.mark.parametrize("written", ["monitoring", "cloudwatch"])
def test_a_service_is_known_by_both_of_its_names(written: str) -> None:
    """What lint asks for under one name is what the canaries and the command line read under another."""
    topology = loads(endpoints(**{written: "https://vpce-1.example.com", "*": "https://other.example.com"}))
    assert topology.endpoint("us-west-2", "monitoring") == topology.endpoint("us-west-2", "cloudwatch") == "https://vpce-1.example.com"
    assert topology.endpoint("us-west-2", "logs") == "https://other.example.com"
    assert topology.endpoint("eu-west-1", "logs") is None


def test_a_misspelt_service_is_found() -> None:
    """It would be ignored, and the canaries would write to an address that they cannot reach."""
    with pytest.raises(UnusableInput) as caught:
        loads(endpoints(cloudwach="https://vpce-1.example.com"))
    assert [problem.key for problem in caught.value.problems] == ["endpoints.us-east-1.cloudwach", "endpoints.us-west-2.cloudwach"]
    assert caught.value.problems[0].mend == "use 'cloudwatch'"


def test_one_service_has_one_address() -> None:
    """Two names with two addresses: which one is meant cannot be known."""
    found = problems(endpoints(monitoring="https://a.example.com", cloudwatch="https://b.example.com"))
    assert [item.split(":")[0] for item in found] == ["endpoints.us-east-1.monitoring", "endpoints.us-west-2.monitoring"]


PRIVATE = TEXT.replace("ttl_s: 60", "ttl_s: 60\n  ca_file: ca.pem")


def test_an_authority_is_found_beside_the_topology(tmp_path: Path) -> None:
    """A relative path is one from the topology's folder, wherever the command is run."""
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    (tmp_path / "topology.yaml").write_text(PRIVATE)
    assert load(tmp_path / "topology.yaml").store.ca_file == str(tmp_path / "ca.pem")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "holds no certificate in PEM form"),
        (b"\x30\x82\x01\x0a", "holds no certificate in PEM form"),
        ("Zertifikat für uns\n".encode(), "holds no certificate in PEM form"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "PEM form"),
    ],
)
def test_an_authority_that_is_none_is_named(content: bytes | None, why: str, tmp_path: Path) -> None:
    """Missing, empty, DER, not ASCII, broken: a problem at its key, not a traceback when the canaries are built."""
    if content is not None:
        (tmp_path / "ca.pem").write_bytes(content)
    (tmp_path / "topology.yaml").write_text(PRIVATE)
    with pytest.raises(UnusableInput) as caught:
        load(tmp_path / "topology.yaml")
    [problem] = caught.value.problems
    assert problem.key == "store.ca_file"
    assert why in problem.what


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(ANYTHING, st.integers(0, 12))
def test_no_input_makes_a_traceback(value: object, where: int) -> None:
    """Whatever stands in place of a part, the answer is a topology or a list of problems."""
    document = yaml.safe_load(TEXT)
    key = list(document)[where % len(document)]
    document[key] = value
    with contextlib.suppress(UnusableInput):
        assert isinstance(loads(yaml.safe_dump(document)), Topology)
