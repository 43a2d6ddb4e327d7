"""What an answer means: a pure function from a reply to one of four verdicts."""

import json
import time
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from crosswatch_exporters.encoding.read import fields
from crosswatch_exporters.transport import Reply


class Action(Enum):
    """What to do with the items of a request."""

    DELIVERED = auto()
    RETRY = auto()
    SPLIT = auto()
    FALL_BACK = auto()


@dataclass(frozen=True, slots=True)
class Verdict:
    """An action and its particulars.

    `rejected` items of a delivered request were not taken. `after` is how many seconds the service asked to wait, `impaired` whether
    this speaks
    of an endpoint in trouble (and not of our request, our rights or our rate), `reason` is for the log.
    """

    action: Action
    rejected: int = 0
    after: float | None = None
    impaired: bool = False
    reason: str = ""


# The service names clock skew and stale or unknown keys in the body, not in the status.
_STALE_KEYS = (b"ExpiredToken", b"UnrecognizedClient", b"InvalidClientTokenId", b"InvalidAccessKeyId", b"security token")
_WRONG_CLOCK = (
    b"RequestTimeTooSkewed",
    b"Signature expired",
    b"Signature not yet current",
    b"RequestExpired",
    b"InvalidSignature",
    b"SignatureDoesNotMatch",
)
_THROTTLED = (
    b"Throttling",
    b"TooManyRequests",
    b"LimitExceeded",
    b"RequestLimit",
    b"ServiceUnavailable",
    b"InternalFailure",
    b"InternalError",
)
# The X-Ray endpoint while Transaction Search is off.
_SEARCH_IS_OFF = b"supported with CloudWatch Logs as a Trace Segment Destination"


def judge(reply: Reply, now: float) -> Verdict:
    """The verdict on an OTLP answer, or on an AWS API's without its own rejection format. `now` in seconds, for Retry-After dates."""
    status = reply.status
    if status == 0:
        return Verdict(Action.RETRY, impaired=True, reason=reply.error)
    if 200 <= status < 300:
        return Verdict(Action.DELIVERED)
    reason = f"HTTP {status} {brief(reply.body)}".rstrip()
    after = retry_after(reply.headers.get("retry-after", ""), now)
    if status == 429 or (status == 400 and any(word in reply.body for word in _THROTTLED)):
        return Verdict(Action.RETRY, after=after, reason=reason)
    if status == 408 or status >= 500:
        return Verdict(Action.RETRY, after=after, impaired=True, reason=reason)
    if _SEARCH_IS_OFF in reply.body:
        return Verdict(Action.FALL_BACK, reason=reason)
    if status in (400, 413, 422) and not stale_keys(reply) and not wrong_clock(reply):
        return Verdict(Action.SPLIT, reason=reason)
    # What is left is about rights, names or addresses: nothing that sending less would mend, and nothing to lose data for.
    return Verdict(Action.RETRY, after=after, reason=reason)


def judge_otlp(reply: Reply, now: float) -> Verdict:
    """Like `judge`, reading the partial_success of an OTLP answer: items that were refused although the status is 200."""
    verdict = judge(reply, now)
    if verdict.action is not Action.DELIVERED or not reply.body:
        return verdict
    rejected, message = partial_success(reply.body)
    return Verdict(Action.DELIVERED, rejected=rejected, reason=message) if rejected else verdict


def partial_success(body: bytes) -> tuple[int, str]:
    """(rejected items, error message) of an Export*ServiceResponse; (0, "") when it has none or is not protobuf."""
    try:
        for number, value in fields(body):
            if number == 1 and isinstance(value, bytes):
                inner = dict(fields(value))
                rejected, message = inner.get(1, 0), inner.get(2, b"")
                if isinstance(rejected, int) and isinstance(message, bytes):
                    return rejected, message.decode(errors="replace")
    except ValueError:
        return 0, ""
    return 0, ""


def json_object(body: bytes) -> dict[str, Any]:
    """An answer's JSON object; an empty one when it is something else. The status has said what matters: nothing is sent again for this."""
    try:
        loaded = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def stale_keys(reply: Reply) -> bool:
    """Whether the service refused our keys."""
    return reply.status in (400, 401, 403) and any(word in reply.body for word in _STALE_KEYS)


def wrong_clock(reply: Reply) -> bool:
    """Whether the service refused our signature's time, or the signature, which a wrong time explains."""
    return reply.status in (400, 401, 403) and any(word in reply.body for word in _WRONG_CLOCK)


def server_clock(reply: Reply) -> float | None:
    """The service's time by its Date header, in seconds since the epoch."""
    return _http_date(reply.headers.get("date", ""))


def retry_after(value: str, now: float) -> float | None:
    """Seconds to wait by a Retry-After header, which is a number of seconds or a date; None when there is none or it cannot be read."""
    if value.strip().isdecimal():
        return float(value)
    at = _http_date(value)
    return None if at is None else max(0.0, at - now)


def _http_date(value: str) -> float | None:
    if not value:
        return None
    import email.utils

    parsed = email.utils.parsedate_tz(value)
    try:
        return None if parsed is None else float(email.utils.mktime_tz(parsed))
    except (OverflowError, ValueError):
        return None


def brief(body: bytes) -> str:
    """The beginning of an answer's text, for a log line."""
    return " ".join(body[:300].decode(errors="replace").split())


def wall_clock() -> float:
    """Seconds since the epoch."""
    return time.time()
