"""Redaction of values, by the attribute's name and by what the value looks like."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from crosswatch_exporters.encoding.wire import Redactor

MASK = "[redacted]"

# Names that hold secrets wherever they occur as a word of their own; `tokens`, as language models count them, is another word.
_SECRET_NAME = re.compile(
    r"(?:^|[._\-])(?:password|passwd|pwd|secret|api[_\-]?key|apikey|access[_\-]?key|private[_\-]?key|authorization|auth[_\-]?token|"
    r"access[_\-]?token|refresh[_\-]?token|id[_\-]?token|bearer|cookie|set-cookie|session[_\-]?id|credential|credentials|card[_\-]?number|cvv|ssn)(?:$|[._\-])",
    re.IGNORECASE,
)

# What secrets look like inside longer texts. Each keeps what names the value and replaces the value.
_SECRET_TEXT = re.compile(
    r"(?P<url>(?<=://)[^/\s:@]*:[^/\s@]+(?=@))"
    r"|(?P<aws>\b(?:AKIA|ASIA)[0-9A-Z]{16}\b)"
    r"|(?P<jwt>\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
    r"|(?P<bearer>(?<=[Bb]earer )[\w.~+/=-]{8,})"
    r"|(?P<pair>(?:(?<=password=)|(?<=passwd=)|(?<=secret=)|(?<=api_key=)|(?<=apikey=)|(?<=token=)|(?<=X-Amz-Signature=)|(?<=X-Amz-Credential=)"
    r"|(?<=X-Amz-Security-Token=))[^\s&;,\"']+)"
    r"|(?P<pem>-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]+?-----END [A-Z ]*PRIVATE KEY-----)",
)
# Only for `strict`: what identifies a person.
_PERSONAL_TEXT = re.compile(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b|\b\d(?:[ -]?\d){12,18}\b")
_CARD_DIGITS = re.compile(r"\D")
# What must occur in a text before it is worth scanning: (a single character that is found at memory speed, the strings that contain it).
# Looking for a string costs about a nanosecond a character, which for a log line of 2 KB and a dozen strings would be most of its cost.
_HINTS = (
    ("@", ("://",)),
    ("I", ("AKIA", "ASIA")),
    ("J", ("eyJ",)),
    ("=", ("assw", "ecret=", "oken=", "key=")),
    ("X", ("X-Amz-",)),
    ("V", ("PRIVATE KEY",)),
    ("r", ("earer ",)),
)


@lru_cache(maxsize=4096)
def _is_secret_name(key: str) -> bool:
    return _SECRET_NAME.search(key) is not None


def redactor(level: str, allow: frozenset[str]) -> Redactor | None:
    """The redactor of a level: `off` (None), `secrets`, or `strict` (secrets, mail addresses and card numbers). `allow` lists names left
    as they are."""
    if level == "off":
        return None
    strict = level == "strict"

    def redact(key: str, value: Any) -> Any:
        if key in allow:
            return value
        if _is_secret_name(key) and value is not None and not isinstance(value, bool):
            return MASK
        return scrub(value, strict)

    return redact


def scrub(value: Any, strict: bool = False) -> Any:
    """The value with secrets in its texts masked; numbers stay, containers are walked."""
    match value:
        case str():
            return _scrub_text(value, strict)
        case Mapping():
            return {k: MASK if _is_secret_name(str(k)) else scrub(v, strict) for k, v in value.items()}
        case bytes() | bytearray():
            return value
        case Sequence():
            return tuple(scrub(item, strict) for item in value)
        case _:
            return value


def _scrub_text(value: str, strict: bool) -> str:
    if _may_hold_a_secret(value):
        value = _SECRET_TEXT.sub(MASK, value)
    return _PERSONAL_TEXT.sub(_mask_personal, value) if strict else value


def _may_hold_a_secret(value: str) -> bool:
    for character, hints in _HINTS:
        if character in value:
            for hint in hints:
                if hint in value:
                    return True
    return False


def _mask_personal(match: re.Match[str]) -> str:
    text = match[0]
    return MASK if "@" in text or _is_card_number(_CARD_DIGITS.sub("", text)) else text


def _is_card_number(digits: str) -> bool:
    """Luhn's check, so that order numbers and timestamps are left alone."""
    doubled = (int(d) * (1 + i % 2) for i, d in enumerate(reversed(digits)))
    return sum(n - 9 if n > 9 else n for n in doubled) % 10 == 0
