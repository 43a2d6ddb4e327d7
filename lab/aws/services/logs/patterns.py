"""Filter patterns, as FilterLogEvents and metric filters use them.

Three kinds: terms (``ERROR -"health check" ?a ?b %regex%``), JSON selectors (``{ $.status >= 500 && $.path = "/cart*" }``) and
space-delimited fields (``[ip, user, ..., status = 5*, bytes > 1000]``). `compile_pattern` gives a function from a message to the
extracted values of a match (empty for terms), or None.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from lab.aws.service import AwsError

Matcher = Callable[[str], dict[str, Any] | None]
MAX_LENGTH = 1024


def _invalid(why: str) -> AwsError:
    return AwsError("InvalidParameterException", f"Invalid filter pattern: {why}")


@lru_cache(maxsize=512)
def compile_pattern(pattern: str) -> Matcher:
    """The matcher of ``pattern``. Raises AwsError (InvalidParameterException) where AWS would."""
    if len(pattern) > MAX_LENGTH:
        raise _invalid(f"longer than {MAX_LENGTH} characters")
    text = pattern.strip()
    if not text:
        return lambda _message: {}
    if text.startswith("{"):
        if not text.endswith("}"):
            raise _invalid("the closing brace is missing")
        return _json(text[1:-1])
    if text.startswith("["):
        if not text.endswith("]"):
            raise _invalid("the closing bracket is missing")
        return _fields(text[1:-1])
    return _terms(text)


# -- terms -------------------------------------------------------------------------------------------------------------------------------

_TERM = re.compile(r'\s*(?P<sign>[?-]?)(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|%(?P<regex>[^%]+)%|(?P<word>[^\s"]+))')
_WORD = re.compile(r"[A-Za-z0-9_]+")


def _terms(text: str) -> Matcher:
    """All plain terms, none of the excluded ones, and one of the optional ones where there are only those."""
    parts: dict[str, list[Callable[[str], bool]]] = {"": [], "?": [], "-": []}
    position = 0
    while position < len(text):
        match = _TERM.match(text, position)
        if match is None:
            if not text[position:].strip():
                break
            raise _invalid(f"cannot read {text[position : position + 20]!r}")
        position = match.end()
        if match["regex"] is not None:
            parts[match["sign"]].append(_regex(match["regex"]))
        elif match["quoted"] is not None:
            phrase = match["quoted"].replace('\\"', '"')
            parts[match["sign"]].append(lambda message, phrase=phrase: phrase in message)  # type: ignore[misc]
        else:
            word = match["word"]
            if not _WORD.fullmatch(word):
                raise _invalid(f"the term {word!r} has special characters: put it in double quotes")
            parts[match["sign"]].append(lambda message, word=word: word in message)  # type: ignore[misc]
    required, optional, excluded = parts[""], parts["?"], parts["-"]

    def match_terms(message: str) -> dict[str, Any] | None:
        if any(term(message) for term in excluded) or not all(term(message) for term in required):
            return None
        # Optional terms decide only where nothing is required; AWS ignores them otherwise.
        return {} if required or not optional or any(term(message) for term in optional) else None

    return match_terms


def _regex(text: str) -> Callable[[str], bool]:
    try:
        compiled = re.compile(text)
    except re.error as error:
        raise _invalid(f"the regular expression {text!r} cannot be read: {error}") from error
    return lambda message: compiled.search(message) is not None


# -- comparisons ---------------------------------------------------------------------------------------------------------------------------

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
}
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\Z")


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return float(value)
    return float(value) if isinstance(value, str) and _NUMBER.match(value.strip()) else None


def _comparison(operator: str, literal: str, quoted: bool, regex: bool) -> Callable[[Any], bool]:
    """``value <operator> literal`` as a predicate on the value."""
    if operator in _OPERATORS:
        limit = _number(literal)
        if limit is None:
            raise _invalid(f"{operator} needs a number, not {literal!r}")
        compare = _OPERATORS[operator]
        return lambda value: (number := _number(value)) is not None and compare(number, limit)
    negate = operator == "!="
    if regex:
        search = _regex(literal)
        return lambda value: value is not None and search(_text(value)) != negate
    wanted = None if quoted else _number(literal)
    wild = "*" in literal

    def equal(value: Any) -> bool:
        if wanted is not None and (number := _number(value)) is not None:
            return number == wanted
        text = _text(value)
        return fnmatch.fnmatchcase(text, literal.replace("[", "[[]").replace("?", "[?]")) if wild else text == literal

    return lambda value: value is not None and equal(value) != negate


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"))


# -- JSON ------------------------------------------------------------------------------------------------------------------------------

_JSON_TOKEN = re.compile(
    r"\s*(?:(?P<open>\()|(?P<close>\))|(?P<and>&&)|(?P<or>\|\|)|(?P<not>NOT\s+EXISTS\b)|(?P<is>IS\s+(?:NOT\s+)?(?:NULL|TRUE|FALSE)\b)"
    r'|(?P<op>>=|<=|!=|=|<|>)|(?P<path>\$(?:\.(?:"[^"]+"|[\w@-]+)|\[(?:\d+|\*|"[^"]+")\])*)|"(?P<quoted>(?:[^"\\]|\\.)*)"|%(?P<regex>[^%]+)%'
    r"|(?P<word>[^\s()&|=<>!\"]+))"
)
_PATH_PART = re.compile(r'\.(?:"(?P<q>[^"]+)"|(?P<n>[\w@-]+))|\[(?:(?P<i>\d+)|(?P<all>\*)|"(?P<b>[^"]+)")\]')
_MISSING = object()


def select(document: Any, path: str) -> list[Any]:
    """The values that a selector such as ``$.a.b[0]`` or ``$.list[*].x`` finds."""
    found = [document]
    for part in _PATH_PART.finditer(path):
        key = part["q"] or part["n"] or part["b"]
        if part["all"]:
            found = [item for value in found if isinstance(value, list) for item in value]
        elif part["i"] is not None:
            index = int(part["i"])
            found = [value[index] for value in found if isinstance(value, list) and index < len(value)]
        else:
            found = [value[key] for value in found if isinstance(value, dict) and key in value]
    return found


class _JsonParser:
    """Recursive descent; && binds tighter than ||."""

    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        position = 0
        while position < len(text):
            match = _JSON_TOKEN.match(text, position)
            if match is None:
                if not text[position:].strip():
                    break
                raise _invalid(f"cannot read {text[position : position + 20]!r}")
            kind = match.lastgroup or ""
            self._tokens.append((kind, match[kind]))
            position = match.end()
        self._at = 0
        self.paths: list[str] = []

    def parse(self) -> Callable[[Any], bool]:
        rule = self._or()
        if self._at != len(self._tokens):
            raise _invalid(f"unexpected {self._tokens[self._at][1]!r}")
        return rule

    def _kind(self) -> str:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else ""

    def _take(self, *kinds: str) -> tuple[str, str]:
        if self._at >= len(self._tokens) or (kinds and self._tokens[self._at][0] not in kinds):
            found = self._tokens[self._at][1] if self._at < len(self._tokens) else "the end"
            raise _invalid(f"expected {' or '.join(kinds)}, found {found}")
        self._at += 1
        return self._tokens[self._at - 1]

    def _or(self) -> Callable[[Any], bool]:
        parts = [self._and()]
        while self._kind() == "or":
            self._take()
            parts.append(self._and())
        return parts[0] if len(parts) == 1 else lambda document: any(part(document) for part in parts)

    def _and(self) -> Callable[[Any], bool]:
        parts = [self._one()]
        while self._kind() == "and":
            self._take()
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else lambda document: all(part(document) for part in parts)

    def _one(self) -> Callable[[Any], bool]:
        if self._kind() == "open":
            self._take()
            inner = self._or()
            self._take("close")
            return inner
        path = self._take("path")[1]
        self.paths.append(path)
        if self._kind() == "not":
            self._take()
            return lambda document: not select(document, path)
        if self._kind() == "is":
            words = self._take()[1].split()
            wanted = {"NULL": None, "TRUE": True, "FALSE": False}[words[-1]]
            negate = "NOT" in words
            return lambda document: any((value is wanted) != negate for value in select(document, path))
        operator = self._take("op")[1]
        kind, literal = self._take("quoted", "word", "regex")
        test = _comparison(operator, literal.replace('\\"', '"'), kind == "quoted", kind == "regex")
        return lambda document: any(test(value) for value in select(document, path))


def _json(text: str) -> Matcher:
    parser = _JsonParser(text)
    rule = parser.parse()
    paths = parser.paths

    def match_json(message: str) -> dict[str, Any] | None:
        if not message.lstrip().startswith("{"):
            return None
        try:
            document = json.loads(message)
        except ValueError:
            return None
        if not isinstance(document, dict) or not rule(document):
            return None
        return {path: values[0] for path in paths if (values := select(document, path))}

    return match_json


# -- space-delimited fields ----------------------------------------------------------------------------------------------------------------

_FIELD = re.compile(r'"(?P<quoted>(?:[^"\\]|\\.)*)"|\[(?P<bracket>[^\]]*)\]|(?P<word>\S+)')
_CONDITION = re.compile(r'\s*(?P<name>\w+)\s*(?P<op>>=|<=|!=|=|<|>)\s*(?:"(?P<quoted>[^"]*)"|%(?P<regex>[^%]+)%|(?P<word>[^\s&|]+))\s*\Z')


def _fields(text: str) -> Matcher:
    names: list[str] = []
    tests: list[tuple[int, Callable[[Any], bool]]] = []
    for position, part in enumerate(_top_level(text, ",")):
        item = part.strip()
        if item == "...":
            names.append("...")
            continue
        name, test = _field_condition(item, position)
        names.append(name)
        if test is not None:
            tests.append((position, test))
    if names.count("...") > 1:
        raise _invalid("'...' may stand only once")

    def match_fields(message: str) -> dict[str, Any] | None:
        values = [next(group for group in match.groups() if group is not None) for match in _FIELD.finditer(message)]
        if "..." in names:
            dots = names.index("...")
            after = len(names) - dots - 1
            if len(values) < len(names) - 1:
                return None
            values = [*values[:dots], "", *values[len(values) - after :]]
        if len(values) != len(names) or not all(test(values[position]) for position, test in tests):
            return None
        return {f"${name}": value for name, value in zip(names, values, strict=True) if name != "..."}

    return match_fields


def _top_level(text: str, separator: str) -> list[str]:
    """``text`` split at ``separator`` outside quotes and regular expressions."""
    return re.split(rf"{re.escape(separator)}(?=(?:[^\"%]|\"[^\"]*\"|%[^%]*%)*\Z)", text)


def _field_condition(item: str, position: int) -> tuple[str, Callable[[Any], bool] | None]:
    """``name``, or ``name = value`` with && and || between conditions on the same field."""
    if re.fullmatch(r"\w*", item):
        return item or f"{position + 1}", None
    name = ""
    anyof: list[list[Callable[[Any], bool]]] = []
    for alternative in _top_level(item, "||"):
        allof = []
        for condition in _top_level(alternative, "&&"):
            match = _CONDITION.match(condition)
            if match is None:
                raise _invalid(f"cannot read the field {item!r}")
            name = name or match["name"]
            literal = match["quoted"] if match["quoted"] is not None else match["regex"] or match["word"]
            allof.append(_comparison(match["op"], literal, match["quoted"] is not None, match["regex"] is not None))
        anyof.append(allof)
    return name, lambda value: any(all(test(value) for test in tests) for tests in anyof)
