"""When to try, where, and when to leave an endpoint alone: state machines that take the clock as an argument and do no I/O.

An endpoint is left alone (`Breaker` open) after several failures in a row that speak of it being impaired. While the own Region's
endpoint is
left alone and the other Region's is not, telemetry goes there; the own endpoint is probed with one request at a time, and gets the
traffic back
only after several probes in a row succeeded over some time, so that a flapping endpoint does not make the traffic flap.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

_SLOW_SECONDS = 3.0


@dataclass(slots=True, eq=False)
class Backoff:
    """Delays that double from `first` to `most` seconds, each drawn between half and all of it, so that a thousand clients do not return
    as one.

    Attempts that fail also spend a budget, of which each delivery earns a part back: while it is used up, every delay is the longest one,
    so that an endpoint that fails again and again between successes is not asked twice for each success for ever.
    """

    first: float = 0.5
    most: float = 30.0
    failures: int = 0
    budget: float = 30.0
    earned: float = 0.5
    draw: Callable[[], float] = random.random
    _left: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._left = self.budget

    def next(self, asked: float | None) -> float:
        """The next delay. What the service asked for is obeyed in full, up to an hour, and never shortened by chance."""
        affordable = self._left >= 1.0
        ceiling = min(self.most, self.first * 2.0 ** min(self.failures, 16)) if affordable else self.most
        self.failures += 1
        self._left -= 1.0 if affordable else 0.0
        own = ceiling * (0.5 + self.draw() / 2)
        return own if asked is None else max(min(asked, 3600.0), self.first * self.draw() + asked if asked < 3600.0 else 3600.0)

    def reset(self) -> None:
        """Begin again: something was delivered."""
        self.failures = 0
        self._left = min(self.budget, self._left + self.earned)


@dataclass(slots=True, eq=False)
class Breaker:
    """Whether one endpoint may be used.

    Opens after `failures_to_open` impaired answers in a row. Open, it lets one probe through every `probe_every` seconds (doubling up to
    `probe_at_most`). Closes after `successes_to_close` successful probes in a row, if the first of them is `well_for` seconds ago.
    """

    failures_to_open: int = 4
    successes_to_close: int = 1
    well_for: float = 0.0
    probe_every: float = 1.0
    probe_at_most: float = 15.0
    opened_at: float | None = field(default=None, init=False)
    next_probe_at: float = field(default=0.0, init=False)
    _failures: int = field(default=0, init=False)
    _successes: int = field(default=0, init=False)
    _well_since: float = field(default=0.0, init=False)
    _interval: float = field(default=0.0, init=False)

    @property
    def open(self) -> bool:
        """Whether the endpoint is left alone but for probes."""
        return self.opened_at is not None

    def may_send(self, now: float) -> bool:
        """Whether a request, be it a probe, may be sent now."""
        return self.opened_at is None or now >= self.next_probe_at

    def succeeded(self, now: float) -> None:
        """A request was answered as it should be."""
        self._failures = 0
        if self.opened_at is None:
            return
        if self._successes == 0:
            self._well_since = now
        self._successes += 1
        self._interval = self.probe_every
        if self._successes >= self.successes_to_close and now - self._well_since >= self.well_for:
            self.opened_at = None
            self._successes = 0
        else:
            self.next_probe_at = now + self._interval

    def answered(self, now: float) -> None:
        """A request was answered, but not as it should be: throttled, refused, unknown. That opens nothing, and is no sign that an open
        breaker's endpoint is well again."""
        self._failures = 0
        self._successes = 0
        if self.opened_at is not None:
            self.next_probe_at = now + self._interval

    def asked_to_wait(self, until: float) -> None:
        """The endpoint, left alone, has asked for no probe before that time."""
        if self.opened_at is not None:
            self.next_probe_at = max(self.next_probe_at, until)

    def failed(self, now: float, took: float = 0.0) -> None:
        """A request was answered as an impaired endpoint answers, or not at all, after `took` seconds.

        One that kept us waiting counts for all but one: each further one would cost as long again.
        """
        self._failures += 1 if took < _SLOW_SECONDS else max(1, self.failures_to_open - 1)
        self._successes = 0
        if self.opened_at is not None:
            self._interval = min(self.probe_at_most, self._interval * 2)
            self.next_probe_at = now + self._interval
        elif self._failures >= self.failures_to_open:
            self.opened_at = now
            self._interval = self.probe_every
            self.next_probe_at = now + self._interval
