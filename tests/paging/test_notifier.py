"""The notifier: one alarm in, one page out, with what is broken, as seen from where, since when, what to do and where to look."""

from __future__ import annotations

import io
import json
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from alarms.diagnosis import incidents
from paging import bundle, notifier
from stacks.desired import desired
from topology import load, loads

EXAMPLE = Path(__file__).parents[2] / "topology.yaml"
TOPOLOGY = load(EXAMPLE)
SETTINGS = bundle.settings(TOPOLOGY, "us-west-2", incidents(TOPOLOGY, "us-west-2"), "retail")
MATRIX = [{"vantage": "us-west-2", "target": "alb-us-east-1", "state": "down"}]


def alarm(state: str = "ALARM", before: str = "OK", name: str = "retail-impaired-us-east-1") -> dict[str, Any]:
    """CloudWatch's message for a composite alarm."""
    return {
        "AlarmName": name,
        "AlarmDescription": "words",
        "NewStateValue": state,
        "OldStateValue": before,
        "NewStateReason": "because",
        "StateChangeTime": "2026-01-01T00:00:00.000+0000",
        "AlarmArn": f"arn:aws:cloudwatch:us-west-2:123456789012:alarm:{name}",
    }


def test_a_page_says_everything() -> None:
    """Subject, severity, key, runbook with its exact parameters, link and matrix are there."""
    page = notifier.compose(alarm(), SETTINGS, MATRIX)
    assert page is not None
    assert (page.event, page.severity, page.subject, page.region) == ("trigger", "critical", "us-east-1", "us-west-2")
    assert page.what_to_do == {
        "runbook": "retail-DrainRegion",
        "parameters": {"Region": "us-east-1"},
        "region": "us-west-2",
        "command": "aws ssm start-automation-execution --region us-west-2 --document-name retail-DrainRegion --parameters Region=us-east-1",
    }
    assert "dashboards/dashboard/retail" in page.links["dashboard"]
    text = notifier.text(page)
    for words in ("CRITICAL: us-east-1 does not serve retail", "us-west-2  sees alb-us-east-1 down", "retail-DrainRegion", "2026-01-01"):
        assert words in text


@pytest.mark.parametrize(
    ("state", "before", "event"),
    [("ALARM", "OK", "trigger"), ("ALARM", "INSUFFICIENT_DATA", "trigger"), ("OK", "ALARM", "resolve"), ("OK", "INSUFFICIENT_DATA", None)],
)
def test_only_news_is_sent(state: str, before: str, event: str | None) -> None:
    """A new alarm that finds all well resolves nothing; both ends of an incident carry the same key."""
    page = notifier.compose(alarm(state, before), SETTINGS, [])
    assert (page.event if page else None) == event
    if page:
        assert page.dedup_key == "retail/impaired/us-east-1+us-west-2"


def test_an_unknown_alarm_is_passed_on() -> None:
    """Nothing is lost because a configuration is old."""
    page = notifier.compose(alarm(name="somebody-elses"), SETTINGS, [])
    assert page is not None
    assert (page.diagnosis, page.severity) == ("unknown", "error")
    assert "because" in page.summary
    assert page.links


def test_the_barest_page_is_the_same_incident() -> None:
    """What cannot be written in full is sent with the alarm's own words, under the same key and with the same severity."""
    for state, before in (("ALARM", "OK"), ("OK", "ALARM")):
        full, bare = notifier.compose(alarm(state, before), SETTINGS, MATRIX), notifier.bare(alarm(state, before), SETTINGS)
        assert full is not None
        assert bare is not None
        assert (bare.event, bare.dedup_key, bare.severity, bare.subject) == (full.event, full.dedup_key, full.severity, full.subject)
        assert "because" in notifier.text(bare)


def test_a_page_without_its_picture_is_a_page() -> None:
    """Here no configuration lies beside the module, so that no client can be made."""
    page = notifier.page_for(alarm(), SETTINGS)
    assert page is not None
    assert (page.summary, page.seen_from) == ("us-east-1 does not serve retail", [])


def test_the_notifier_is_quicker_than_its_time_is_over() -> None:
    """Two messages and two looks, each as slow as it may be, end before Lambda ends the function."""

    def worst(service: str) -> float:
        config: Any = notifier.PATIENCE[service]
        tries = config.retries["total_max_attempts"]
        return float(tries * (config.connect_timeout + config.read_timeout) + (tries - 1))

    template = desired(TOPOLOGY).regions["us-west-2"].parts["alarms"].template
    assert 2 * (worst("cloudwatch") + worst("sns")) < template["Resources"]["Notifier"]["Properties"]["Timeout"]


def test_the_notifier_does_not_ask_interface_endpoints() -> None:
    """They answer within a VPC, in which it does not stand; an endpoint that is any other address is its own business."""
    interface = "https://vpce-0123-abc.monitoring.us-west-2.vpce.amazonaws.com"
    text = f"\nendpoints: {{us-east-1: {{sns: '{interface}'}}, us-west-2: {{cloudwatch: '{interface}', sns: 'http://127.0.0.1:4566'}}}}\n"
    settings = bundle.settings(loads(EXAMPLE.read_text() + text), "us-west-2", {}, "retail")
    assert settings["endpoints"] == {"sns": "http://127.0.0.1:4566"}


def test_the_bundle_is_reproducible_and_complete() -> None:
    """The same input gives the same bytes, and the zip holds the module and its configuration."""
    first, second = bundle.build(SETTINGS), bundle.build(SETTINGS)
    assert first == second
    with zipfile.ZipFile(io.BytesIO(first.data)) as archive:
        assert archive.namelist() == ["config.json", "notifier.py"]
        assert json.loads(archive.read("config.json"))["incidents"]["retail-impaired-us-east-1"]["severity"] == "critical"


def test_a_vantage_without_a_lease_is_silent_whatever_it_last_saw() -> None:
    """Half a minute after its loss a Region's last good words are still fresh; its lease is not."""
    end = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
    before = [end - timedelta(seconds=seconds) for seconds in (40, 10)]
    cells = [("us-east-1", "name"), ("us-west-2", "name"), ("us-west-2", "alb-us-east-1")]
    answer = [
        {"Id": "c0", "Values": [1.0], "Timestamps": before[:1]},
        {"Id": "c1", "Values": [1.0], "Timestamps": before[1:]},
        {"Id": "c2", "Values": [0.0], "Timestamps": before[1:]},
        {"Id": "v0", "Values": [1.0], "Timestamps": before[:1]},
        {"Id": "v1", "Values": [1.0], "Timestamps": before[1:]},
    ]
    states = [cell["state"] for cell in notifier.cells_at(end, answer, cells, ["us-east-1", "us-west-2"])]
    assert states == ["silent", "up", "down"]
