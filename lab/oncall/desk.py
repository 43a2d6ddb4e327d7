"""What a pager service does with the messages it gets: one incident a deduplication key, opened by a trigger, closed by a resolve.

Three kinds of message are understood, from the richest to the poorest:

* a page of ours: JSON with ``event`` (``trigger`` or ``resolve``) and ``dedup_key``;
* CloudWatch's own alarm notification, past the notifier: the alarm's ARN is the key, ``ALARM`` triggers, ``OK`` resolves;
* any other text: an incident of its own, which only a person can close.

Whatever it was, the text is kept exactly as it was sent.
"""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

OPEN, RESOLVED = "open", "resolved"
CALM = ("warning", "info")


@dataclass(frozen=True, slots=True)
class Notification:
    """One message as it arrived. ``received`` is lab time, epoch seconds; ``source`` the topic's ARN, or how else it came."""

    received: float
    source: str
    subject: str
    text: str


@dataclass(frozen=True, slots=True)
class Incident:
    """One incident. ``page`` is the trigger's JSON, where it was JSON. Times are lab time.

    An ``urgent`` one wakes somebody: that is a page. Pager services go by severity (a low urgency for ``warning`` and ``info``); a message
    that names none is urgent.
    """

    number: int
    key: str
    state: str
    severity: str
    urgent: bool
    summary: str
    opened: float
    resolved: float | None
    page: dict[str, Any] | None
    notifications: tuple[Notification, ...]

    def as_json(self) -> dict[str, Any]:
        """The incident as JSON has it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Event:
    """What a message did: ``page`` (opened an urgent one), ``note`` (a calm one), ``update`` (was open), ``resolve`` or ``ignored``."""

    what: str
    incident: Incident | None
    notification: Notification


@dataclass(frozen=True, slots=True)
class _Reading:
    """A message as the desk understands it."""

    trigger: bool
    key: str
    severity: str
    summary: str
    page: dict[str, Any] | None


class Desk:
    """All incidents, in the order in which they were opened. Methods may be called from any thread."""

    def __init__(self, on_event: Callable[[Event], None] | None = None) -> None:
        self._on_event = on_event or (lambda _: None)
        self._lock = threading.Lock()
        self._incidents: list[Incident] = []

    def incidents(self) -> list[Incident]:
        """Every incident since the lab started."""
        with self._lock:
            return list(self._incidents)

    def pages(self) -> list[Incident]:
        """The urgent ones."""
        return [incident for incident in self.incidents() if incident.urgent]

    def receive(self, notification: Notification, message_id: str) -> Event:
        """Take in one message; ``message_id`` is the key of a message that brings none."""
        reading = read(notification, message_id)
        with self._lock:
            event = self._apply(reading, notification)
        self._on_event(event)
        return event

    def _apply(self, reading: _Reading, notification: Notification) -> Event:
        index = next((i for i, known in enumerate(self._incidents) if known.key == reading.key and known.state == OPEN), None)
        if index is None:
            if not reading.trigger:
                return Event("ignored", None, notification)
            incident = Incident(
                number=len(self._incidents) + 1,
                key=reading.key,
                state=OPEN,
                severity=reading.severity,
                urgent=reading.severity not in CALM,
                summary=reading.summary,
                opened=notification.received,
                resolved=None,
                page=reading.page,
                notifications=(notification,),
            )
            self._incidents.append(incident)
            return Event("page" if incident.urgent else "note", incident, notification)
        incident = self._incidents[index]
        incident = replace(incident, notifications=(*incident.notifications, notification))
        if not reading.trigger:
            incident = replace(incident, state=RESOLVED, resolved=notification.received)
        self._incidents[index] = incident
        return Event("update" if reading.trigger else "resolve", incident, notification)


def read(notification: Notification, message_id: str) -> _Reading:
    """Understand a message as far as it can be understood; never refuse one."""
    try:
        body = json.loads(notification.text)
    except ValueError:
        body = None
    if isinstance(body, dict) and body.get("dedup_key") and body.get("event") in {"trigger", "resolve"}:
        summary = str(body.get("summary") or notification.subject or body["dedup_key"])
        return _Reading(body["event"] == "trigger", str(body["dedup_key"]), str(body.get("severity") or ""), summary, body)
    if isinstance(body, dict) and body.get("AlarmName") and body.get("NewStateValue"):
        key = str(body.get("AlarmArn") or body["AlarmName"])
        return _Reading(body["NewStateValue"] == "ALARM", key, "", notification.subject or str(body["AlarmName"]), None)
    first_line = next(iter(notification.text.strip().splitlines()), "")
    return _Reading(True, message_id, "", notification.subject or first_line or "(empty message)", None)
