"""The receiver's HTTP endpoint: an SNS subscriber on ``POST /`` (any path), and ``GET /incidents`` for who wants to know.

SNS (https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html) tells the kind of a message in the header
``x-amz-sns-message-type``. A SubscriptionConfirmation is confirmed by visiting its SubscribeURL, after it was answered, and only if that
URL is on this machine. With raw delivery the body is the message itself.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import threading
import urllib.request
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lab.oncall.desk import Notification

if TYPE_CHECKING:
    from lab.clock import LabClock
    from lab.oncall.desk import Desk

LARGEST_BODY = 1 << 20
CONFIRM_WITHIN_S = 5.0

log = logging.getLogger(__name__)


class Receiver:
    """Serves `desk` on ``127.0.0.1:port`` from threads of its own, until `close`."""

    def __init__(self, port: int, clock: LabClock, desk: Desk) -> None:
        receiver = self

        class Handler(_Handler):
            def do_POST(self) -> None:
                receiver.take(self)

            def do_GET(self) -> None:
                if self.path == "/incidents":
                    self.answer(200, json.dumps([incident.as_json() for incident in desk.incidents()]), "application/json")
                else:
                    self.answer(404, "GET /incidents, or POST an SNS message\n")

        self._clock = clock
        self._desk = desk
        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="oncall", daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def take(self, request: _Handler) -> None:
        """Answer one POST."""
        length = request.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > LARGEST_BODY:
            request.answer(413 if length.isdigit() else 411, "send a Content-Length of at most 1 MiB\n")
            return
        text = request.rfile.read(int(length)).decode("utf-8", "replace")
        kind = request.headers.get("x-amz-sns-message-type")
        topic = request.headers.get("x-amz-sns-topic-arn") or "direct"
        if kind is None or request.headers.get("x-amz-sns-rawdelivery") == "true":
            message_id = request.headers.get("x-amz-sns-message-id") or str(uuid.uuid4())
            self._desk.receive(Notification(self._clock.now(), topic, "", text), message_id)
            request.answer(202, "")
            return
        try:
            envelope: dict[str, Any] = json.loads(text)
            if kind == "SubscriptionConfirmation":
                confirm(envelope["SubscribeURL"])
            elif kind == "Notification":
                notification = Notification(self._clock.now(), envelope["TopicArn"], envelope.get("Subject") or "", envelope["Message"])
                self._desk.receive(notification, envelope["MessageId"])
        except (ValueError, KeyError, TypeError) as error:
            request.answer(400, f"not an SNS {kind}: {type(error).__name__}: {error}\n")
            return
        request.answer(200, "")


def confirm(url: str) -> None:
    """Visit the SubscribeURL, in a thread: SNS waits for our answer first. Raises ValueError for a URL that is not on this machine."""
    host = urlsplit(url).hostname or ""
    if urlsplit(url).scheme != "http" or not (host == "localhost" or _is_loopback(host)):
        raise ValueError(f"the SubscribeURL {url!r} is not on this machine")

    def visit() -> None:
        try:
            with urllib.request.urlopen(url, timeout=CONFIRM_WITHIN_S) as answer:
                answer.read()
        except OSError as error:
            log.warning("could not confirm the subscription at %s: %s", url, error)

    threading.Thread(target=visit, name="confirm", daemon=True).start()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Handler(BaseHTTPRequestHandler):
    """A quiet handler with a short way to answer."""

    protocol_version = "HTTP/1.1"

    def answer(self, status: int, text: str, content_type: str = "text/plain; charset=utf-8") -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        log.debug(format, *args)
