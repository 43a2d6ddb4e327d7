"""Times as they are given at the command line."""

from __future__ import annotations

from datetime import UTC, datetime

from topology import Problem, UnusableInput

FIRST_YEAR, LAST_YEAR = 2000, 2200


def instant(text: str, option: str) -> datetime:
    """An ISO 8601 time, UTC unless it says otherwise; ``option`` is for the message. Raises `UnusableInput`."""
    try:
        moment = datetime.fromisoformat(text)
        if not FIRST_YEAR <= moment.year < LAST_YEAR:
            raise ValueError(f"no metric is of the year {moment.year}")
    except ValueError as error:
        raise UnusableInput([Problem(f"{text!r} is not a time", "write it as 2026-01-31T12:00:00Z", key=option)]) from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
