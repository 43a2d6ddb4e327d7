"""The on-call receiver: stands for a pager service, and adds nothing of its own.

`Desk` turns what arrives into incidents (trigger and resolve, grouped by deduplication key, as pager services do it); `Receiver` is its
HTTP endpoint, which subscribes to SNS topics by their handshake.
"""

from __future__ import annotations

from lab.oncall.desk import Desk, Event, Incident, Notification
from lab.oncall.receiver import Receiver

__all__ = ["Desk", "Event", "Incident", "Notification", "Receiver"]
