"""Redaction of values, by the attribute's name and by what the value looks like."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from crosswatch_exporters.encoding.wire import Redactor

MASK = "[redacted]"

# Names that hold secrets wherever they occur as words of their own; `tokens`, as language models count them, is another word, and so is a
# `token` that something else is said of (`gen_ai.token.type`).
_SECRET_NAME = re.compile(
    r"(?:^|[._\-])(?:password|passwd|pwd|secret|api[_\-]?key|apikey|access[_\-]?key|private[_\-]?key|authorization|auth[_\-]?token|"
    r"access[_\-]?token|refresh[_\-]?token|id[_\-]?token|bearer|cookie|set-cookie|session[_\-]?id|credential|credentials|card[_\-]?number|cvv|ssn|token$)(?:$|[._\-])",
    re.IGNORECASE,
)
# Where a word of a name in camel case begins.
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

# What secrets look like inside longer texts. Each keeps what names the value and replaces the value.
_SECRET_TEXT = re.compile(
    r"(?P<url>(?<=://)[^/\s:@]*:[^/\s@]+(?=@))"
    r"|(?P<aws>\b(?:AKIA|ASIA)[0-9A-Z]{16}\b)"
    r"|(?P<jwt>\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
    r"|(?P<bearer>(?<=[Bb]earer )[\w.~+/=-]{8,})"
    # Not "Basic authentication": what is not a word of the language.
    r"|(?P<basic>(?<=[Bb]asic )(?![A-Za-z]?[a-z]+(?![A-Za-z0-9+/=]))[A-Za-z0-9+/]{4,}={0,2})"
    r"|(?P<signed>(?:(?<=X-Amz-Signature=)|(?<=X-Amz-Credential=)|(?<=X-Amz-Security-Token=))[^\s&;,\"']+)"
    r"|(?P<pem>-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]+?-----END [A-Z ]*PRIVATE KEY-----)",
)
# What must occur in a text before it is worth scanning: (a single character that is found at memory speed, the strings that contain it).
# Looking for a string costs about a nanosecond a character, which for a log line of 2 KB and a dozen strings would be most of its cost.
_HINTS = (
    ("@", ("://",)),
    ("I", ("AKIA", "ASIA")),
    ("J", ("eyJ",)),
    ("X", ("X-Amz-",)),
    ("V", ("PRIVATE KEY",)),
    ("B", ("Bearer ", "Basic ")),
    ("b", ("bearer ", "basic ")),
)

# Names that give a value away in a text, in lower case: (a rare character of it, the name). What costs is looking, and names are found at
# memory speed; one expression for all of them would take a hundred times as long.
_PAIR_NAMES = (("w", "passw"), ("w", "pwd"), ("s", "secret"), ("k", "token"), ("k", "key"))
# A `key` is one only with one of these before it, with or without a `_` or `-` between them.
_KINDS_OF_KEY = ("api", "access", "private", "account", "signing", "encryption")
_ENDS_OF_KINDS = frozenset(kind[-1] for kind in _KINDS_OF_KEY) | {"_", "-"}
# After the name, the rest of it (`password`, `passwd`, `secret_access_key`, `secretKey`), and the separator, in quotes or not, escaped or
# not; then the value.
_PAIR = re.compile(
    r"(?:ord|d)?(?:[_\-]?access)?(?:[_\-]?key)?\d*\\*[\"']?[ \t]*[:=]+>?[ \t]*"
    r"(?P<value>\"(?:[^\"\\\n]|\\.)*|'(?:[^'\\\n]|\\.)*|\\+\"[^\"\n]*|[^\s&;,\"']+)",
    re.IGNORECASE,
)
_OPENING = re.compile(r"\\*[\"']")
# `password = %s` in a statement is no password.
_PLACEHOLDER = re.compile(r"(?:%s|%\(\w+\)s|\$\d+|\?)\)*")

# Only for `strict`: what identifies a person.
_PERSONAL_TEXT = re.compile(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b|\b\d(?:[ -]?\d){12,18}\b")
_CARD_DIGITS = re.compile(r"\D")


@lru_cache(maxsize=4096)
def _is_secret_name(key: str) -> bool:
    return _SECRET_NAME.search(_HUMP.sub("_", key)) is not None


def redactor(level: str, allow: frozenset[str], rules: Sequence[re.Pattern[str]] = ()) -> Redactor | None:
    """The redactor of a level: `off` (None), `secrets`, or `strict` (secrets, mail addresses and card numbers). `allow` lists names left
    as they are; what one of `rules` finds in a text is masked too: its first group, or all of it when it has none."""
    if level == "off":
        return None
    mask = _Masks(level == "strict", tuple(rules))

    def redact(key: str, value: Any) -> Any:
        if key in allow:
            return value
        if _is_secret_name(key if isinstance(key, str) else str(key)) and value is not None and not isinstance(value, bool):
            return MASK
        return mask.scrub(value)

    return redact


class _Masks:
    """What is masked in values."""

    def __init__(self, strict: bool, rules: tuple[re.Pattern[str], ...]) -> None:
        self._strict = strict
        self._rules = rules

    def scrub(self, value: Any) -> Any:
        """The value with secrets in its texts masked; numbers stay, containers are walked."""
        match value:
            case str():
                return self._text(value)
            case Mapping():
                return {k: MASK if _is_secret_name(str(k)) else self.scrub(v) for k, v in value.items()}
            case bytes() | bytearray():
                return value
            case Sequence():
                return tuple(self.scrub(item) for item in value)
            case _:
                return value

    def _text(self, value: str) -> str:
        if "=" in value or ":" in value:
            value = _mask_pairs(value)
        if _may_hold_a_secret(value):
            value = _SECRET_TEXT.sub(MASK, value)
        if self._strict:
            value = _PERSONAL_TEXT.sub(_mask_personal, value)
        for rule in self._rules:
            value = rule.sub(_mask_group, value)
        return value


def _may_hold_a_secret(value: str) -> bool:
    for character, hints in _HINTS:
        if character in value:
            for hint in hints:
                if hint in value:
                    return True
    return False


def _mask_pairs(value: str) -> str:
    """`name=value` and `"name": "value"` with the values masked whose names are secret."""
    lower = value.lower()
    if len(lower) != len(value):  # a few letters are longer in lower case
        lower = "".join(c if len(small := c.lower()) != 1 else small for c in value)
    spans = [span for rare, name in _PAIR_NAMES if rare in lower for span in _values_of(name, value, lower)]
    return _masked(value, spans) if spans else value


def _values_of(name: str, value: str, lower: str) -> Iterator[tuple[int, int]]:
    """From where to where the values stand that a name in the text gives away. `lower` is the text in lower case."""
    at = lower.find(name)
    while at >= 0:
        end = at + len(name)
        if name != "key" or _is_kind_of_key(lower, at):
            found = _PAIR.match(value, end)
            if found is not None and _PLACEHOLDER.fullmatch(found["value"]) is None:
                opening = _OPENING.match(found["value"])
                yield found.start("value") + (opening.end() if opening is not None else 0), found.end()
                end = found.end()  # so that each character is looked at once a name, however often it occurs
        at = lower.find(name, end)


def _is_kind_of_key(lower: str, at: int) -> bool:
    return lower[at - 1 : at] in _ENDS_OF_KINDS and lower[max(0, at - 11) : at].rstrip("_-").endswith(_KINDS_OF_KEY)


def _masked(value: str, spans: list[tuple[int, int]]) -> str:
    out: list[str] = []
    done = 0
    for start, end in sorted(spans):
        if end <= done:
            continue  # within what is masked already
        out += (value[done : max(start, done)], MASK)
        done = end
    return "".join((*out, value[done:]))


def _mask_group(match: re.Match[str]) -> str:
    if not match.re.groups or match[1] is None:
        return MASK
    text, start = match[0], match.start()
    return text[: match.start(1) - start] + MASK + text[match.end(1) - start :]


def _mask_personal(match: re.Match[str]) -> str:
    text = match[0]
    return MASK if "@" in text or _is_card_number(_CARD_DIGITS.sub("", text)) else text


def _is_card_number(digits: str) -> bool:
    """Luhn's check, so that order numbers and timestamps are left alone."""
    doubled = (int(d) * (1 + i % 2) for i, d in enumerate(reversed(digits)))
    return sum(n - 9 if n > 9 else n for n in doubled) % 10 == 0
