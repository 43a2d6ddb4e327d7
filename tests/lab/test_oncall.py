"""The on-call receiver: incidents by deduplication key, texts as they were sent, and the SNS handshake over HTTP."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from alarms import slo
from lab.clock import LabClock
from lab.oncall import Desk, Notification, Receiver
from topology import load

if TYPE_CHECKING:
    from collections.abc import Iterator

TOPIC = "arn:aws:sns:us-west-2:123456789012:pages"


def page(event: str = "trigger", key: str = "region-impaired/us-east-1", **more: Any) -> Notification:
    body = {"event": event, "dedup_key": key, "severity": "critical", "summary": "us-east-1 is impaired", **more}
    return Notification(10.0, TOPIC, "", json.dumps(body))


def test_one_incident_is_one_page() -> None:
    """The second trigger of an open incident, from another Region say, is an update; the resolve closes it."""
    desk = Desk()
    assert [desk.receive(message, "1").what for message in (page(), page(), page("resolve"))] == ["page", "update", "resolve"]
    (incident,) = desk.incidents()
    assert (incident.state, incident.severity, incident.summary) == ("resolved", "critical", "us-east-1 is impaired")
    assert len(incident.notifications) == 3


def test_a_trigger_after_the_resolve_is_a_new_page() -> None:
    """What comes back pages again; what is resolved twice does not matter."""
    desk = Desk()
    assert [desk.receive(message, "1").what for message in (page(), page("resolve"), page("resolve"), page())] == [
        "page",
        "resolve",
        "ignored",
        "page",
    ]
    assert [incident.state for incident in desk.incidents()] == ["resolved", "open"]


def test_a_warning_is_a_note_and_wakes_nobody() -> None:
    """Pager services go by severity; what names none is urgent."""
    desk = Desk()
    for index, severity in enumerate(("warning", "info", "error", "critical", "")):
        desk.receive(page(key=str(index), severity=severity), "1")
    assert [incident.severity for incident in desk.pages()] == ["error", "critical", ""]


def test_a_burn_that_pages_is_not_news_of_its_ticket() -> None:
    """The objective's ticket is open for days; the page of a fast burn is an incident of its own, and outlives the ticket's end."""
    texts = slo.incidents(load(Path(__file__).parents[2] / "topology.yaml"), "us-west-2")
    ticket, burn = (texts[f"retail-slo-availability-store-{pairs}"] for pairs in ("trickle", "fast-or-slow"))
    desk = Desk()

    def send(event: str, incident: dict[str, Any]) -> str:
        text = json.dumps({"event": event, **incident})
        return desk.receive(Notification(10.0, TOPIC, "", text), "1").what

    assert [send("trigger", ticket), send("trigger", burn), send("resolve", ticket)] == ["note", "page", "resolve"]
    assert [incident.state for incident in desk.pages()] == ["open"]


def test_different_keys_are_different_incidents() -> None:
    """Resolving one leaves the other open."""
    desk = Desk()
    for message in (page(key="a"), page(key="b"), page("resolve", key="a")):
        desk.receive(message, "1")
    assert [(incident.key, incident.state) for incident in desk.incidents()] == [("a", "resolved"), ("b", "open")]


def test_plain_text_is_shown_as_it_is() -> None:
    """With the notifier broken, whatever SNS sends is an incident, word for word."""
    desk = Desk()
    event = desk.receive(Notification(1.0, TOPIC, "", "Region down!\nrunbook: x"), "id-1")
    assert event.incident is not None
    assert (event.incident.key, event.incident.summary, event.incident.notifications[0].text) == (
        "id-1",
        "Region down!",
        "Region down!\nrunbook: x",
    )


def test_cloudwatchs_own_message_opens_and_closes() -> None:
    """Straight from the alarm: the ARN is the key, OK resolves."""
    desk = Desk()
    for state in ("ALARM", "OK"):
        text = json.dumps({"AlarmName": "down", "AlarmArn": "arn:a", "NewStateValue": state})
        desk.receive(Notification(1.0, TOPIC, f'{state}: "down" in US East', text), state)
    (incident,) = desk.incidents()
    assert (incident.key, incident.state, incident.summary) == ("arn:a", "resolved", 'ALARM: "down" in US East')


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def receiver(desk: Desk) -> Iterator[Receiver]:
    receiver = Receiver(0, LabClock.start(), desk)
    yield receiver
    receiver.close()


def post(receiver: Receiver, body: str, kind: str | None) -> int:
    headers = {"x-amz-sns-message-type": kind} if kind else {}
    request = urllib.request.Request(f"http://127.0.0.1:{receiver.port}/sns", body.encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_subscription_is_confirmed_by_visiting_its_url(receiver: Receiver) -> None:
    """As SNS asks for it, and nowhere but on this machine."""
    visited = threading.Event()

    class Sns(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/?Action=ConfirmSubscription&Token=t"
            visited.set()
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Sns) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/?Action=ConfirmSubscription&Token=t"
        assert post(receiver, json.dumps({"SubscribeURL": url}), "SubscriptionConfirmation") == 200
        assert visited.wait(5)
    assert post(receiver, json.dumps({"SubscribeURL": "http://192.0.2.1/steal"}), "SubscriptionConfirmation") == 400


def test_notifications_arrive_over_http(receiver: Receiver, desk: Desk) -> None:
    """An SNS envelope, a raw page, and something that is neither."""
    envelope = {"Type": "Notification", "MessageId": "m", "TopicArn": TOPIC, "Subject": "s", "Message": page().text}
    assert post(receiver, json.dumps(envelope), "Notification") == 200
    assert post(receiver, page("resolve").text, None) == 202
    assert post(receiver, "[]", "Notification") == 400
    (incident,) = desk.incidents()
    assert (incident.state, incident.notifications[0].source) == ("resolved", TOPIC)
    with urllib.request.urlopen(f"http://127.0.0.1:{receiver.port}/incidents", timeout=5) as answer:
        assert [found["key"] for found in json.load(answer)] == ["region-impaired/us-east-1"]
