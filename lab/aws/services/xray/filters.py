"""Filter expressions of GetTraceSummaries: ``service("orders") { fault } AND http.url CONTAINS "/cart" AND responsetime > 0.5``.

Known: the boolean, number and string keywords, ``annotation.key`` and ``annotation[key]``, ``user``, ``service(name) {…}``, ``edge(a, b)
{…}`` and ``id(name: …)``, with ``AND OR NOT !`` and parentheses. Anything else is refused, as X-Ray refuses what it cannot parse.
https://docs.aws.amazon.com/xray/latest/devguide/aws-xray-interface-console.html#xray-console-filters
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from lab.aws.service import AwsError
from lab.aws.services.xray.summary import Summary, Visit

Rule = Callable[[Summary], bool]
VisitRule = Callable[[Visit], bool]

_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<number>-?\d+(?:\.\d+)?)|(?P<op>!=|<=|>=|=|<|>|!)|(?P<mark>[(){}\[\],:])|(?P<word>[A-Za-z_][\w.]*))"""
)

_FLAGS: dict[str, VisitRule] = {
    "ok": lambda visit: visit.ok,
    "error": lambda visit: visit.error,
    "fault": lambda visit: visit.fault,
    "throttle": lambda visit: visit.throttle,
    "inferred": lambda visit: visit.node.inferred,
    "remote": lambda visit: visit.document.get("namespace") == "remote",
    "root": lambda visit: visit.root,
    "first": lambda visit: visit.root,
}


def _request(visit: Visit, key: str) -> Any:
    return ((visit.document.get("http") or {}).get("request") or {}).get(key)


_VALUES: dict[str, Callable[[Visit], Any]] = {
    "responsetime": lambda visit: visit.duration,
    "duration": lambda visit: visit.duration,
    "http.status": lambda visit: visit.status,
    "http.url": lambda visit: _request(visit, "url"),
    "http.method": lambda visit: _request(visit, "method"),
    "http.useragent": lambda visit: _request(visit, "user_agent"),
    "http.clientip": lambda visit: _request(visit, "client_ip"),
    "name": lambda visit: visit.node.name,
    "type": lambda visit: visit.node.type,
    "user": lambda visit: visit.document.get("user"),
    "version": lambda visit: (visit.document.get("service") or {}).get("version"),
}


def compile_filter(text: str | None) -> Rule:
    """The rule of an expression; everything where there is none. Raises AwsError (InvalidRequestException)."""
    if not text or not text.strip():
        return lambda _summary: True
    return _Parser(text).parse()


class _Parser:
    """Recursive descent. Within ``service(…) {…}`` the same words speak of that service's part, outside of the trace."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[tuple[str, str]] = []
        position = 0
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                if not text[position:].strip():
                    break
                raise self._wrong(text[position : position + 20])
            kind = match.lastgroup or ""
            self._tokens.append((kind, match[kind]))
            position = match.end()
        self._at = 0

    def _wrong(self, at: str) -> AwsError:
        return AwsError("InvalidRequestException", f"Invalid filter expression: cannot read {at!r} in {self._text!r}")

    def _peek(self) -> str:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else ""

    def _take(self, *wanted: str) -> tuple[str, str]:
        if self._at >= len(self._tokens) or (wanted and self._peek() not in wanted):
            raise self._wrong(self._peek() or "the end")
        self._at += 1
        return self._tokens[self._at - 1]

    def _accept(self, *wanted: str) -> bool:
        if self._at < len(self._tokens) and self._tokens[self._at][0] != "string" and self._peek().upper() in wanted:
            self._at += 1
            return True
        return False

    def parse(self) -> Rule:
        rule = self._or(self._trace_term)
        if self._at != len(self._tokens):
            raise self._wrong(self._peek())
        return rule

    def _or(self, term: Callable[[], Callable[[Any], bool]]) -> Callable[[Any], bool]:
        parts = [self._and(term)]
        while self._accept("OR", "||"):
            parts.append(self._and(term))
        return parts[0] if len(parts) == 1 else lambda subject: any(part(subject) for part in parts)

    def _and(self, term: Callable[[], Callable[[Any], bool]]) -> Callable[[Any], bool]:
        parts = [self._not(term)]
        while self._accept("AND", "&&"):
            parts.append(self._not(term))
        return parts[0] if len(parts) == 1 else lambda subject: all(part(subject) for part in parts)

    def _not(self, term: Callable[[], Callable[[Any], bool]]) -> Callable[[Any], bool]:
        if self._accept("!", "NOT"):
            inner = self._not(term)
            return lambda subject: not inner(subject)
        if self._accept("("):
            inner = self._or(term)
            self._take(")")
            return inner
        return term()

    def _trace_term(self) -> Rule:
        kind, word = self._take()
        name = word.lower()
        if kind != "word":
            raise self._wrong(word)
        if name in {"service", "edge"} and self._peek() == "(":
            return self._complex(name)
        if name.startswith("annotation"):
            return self._annotation(word)
        if name == "id" and self._peek() == "(":
            wanted = self._id()
            return lambda summary: any(wanted(visit) for visit in summary.visits)
        if name == "partial":
            return lambda summary: summary.partial
        if name == "duration":
            test = self._comparison()
            return lambda summary: test(summary.duration)
        if name == "user":
            test = self._comparison()
            return lambda summary: any(test(user) for user in summary.users)
        if name in _FLAGS:
            flag = _FLAGS[name]
            expected = self._flag_value()
            return lambda summary: flag(summary.first) == expected
        if name in _VALUES:
            value, test = _VALUES[name], self._comparison()
            return lambda summary: test(value(summary.first))
        raise self._wrong(word)

    def _visit_term(self) -> VisitRule:
        kind, word = self._take()
        name = word.lower()
        if kind == "word" and name in _FLAGS:
            flag, expected = _FLAGS[name], self._flag_value()
            return lambda visit: flag(visit) == expected
        if kind == "word" and name in _VALUES:
            value, test = _VALUES[name], self._comparison()
            return lambda visit: test(value(visit))
        if kind == "word" and name.startswith("annotation"):
            key = self._annotation_key(word)
            test = self._comparison()
            return lambda visit: test((visit.document.get("annotations") or {}).get(key))
        raise self._wrong(word)

    def _flag_value(self) -> bool:
        """``fault``, or ``fault = false``."""
        if self._accept("="):
            return self._take("true", "false")[1] == "true"
        return True

    def _complex(self, name: str) -> Rule:
        """``service("x") {…}``, ``service(id(…))``, ``edge("a", "b") {…}``; without a filter the service or edge must only be there."""
        self._take("(")
        wanted: list[VisitRule | None] = []
        while self._peek() != ")":
            wanted.append(self._who())
            if not self._accept(","):
                break
        self._take(")")
        inner: VisitRule = lambda _visit: True  # noqa: E731
        if self._accept("{"):
            inner = self._or(self._visit_term)
            self._take("}")
        if name == "service":
            who = wanted[0] if wanted else None
            return lambda summary: any((who is None or who(visit)) and inner(visit) for visit in summary.visits)
        if len(wanted) != 2:
            raise self._wrong("edge needs two services")
        source, target = wanted
        return lambda summary: any(
            visit.caller is not None
            and (source is None or source(Visit(visit.caller, None, visit.document)))
            and (target is None or target(visit))
            and inner(visit)
            for visit in summary.visits
        )

    def _who(self) -> VisitRule | None:
        kind, word = self._take()
        if kind == "string":
            name = word[1:-1]
            return lambda visit: visit.node.name == name
        if kind == "word" and word.lower() == "id":
            return self._id()
        raise self._wrong(word)

    def _id(self) -> VisitRule:
        """``id(name: "x", type: "y")``."""
        self._take("(")
        tests: list[tuple[str, str]] = []
        while self._peek() != ")":
            key = self._take()[1].lower()
            self._take(":")
            kind, word = self._take()
            if kind != "string" or key not in {"name", "type", "account.id"}:
                raise self._wrong(word)
            if key != "account.id":
                tests.append((key, word[1:-1]))
            if not self._accept(","):
                break
        self._take(")")
        return lambda visit: all(getattr(visit.node, key) == value for key, value in tests)

    def _annotation_key(self, word: str) -> str:
        if "." in word:
            return word.partition(".")[2]
        self._take("[")
        kind, key = self._take()
        self._take("]")
        return key[1:-1] if kind == "string" else key

    def _annotation(self, word: str) -> Rule:
        key = self._annotation_key(word)
        if not self._has_operator():
            return lambda summary: key in summary.annotations
        test = self._comparison()
        return lambda summary: any(test(value) for value, _ in summary.annotations.get(key, ()))

    def _has_operator(self) -> bool:
        return self._peek() in {"=", "!=", "<", "<=", ">", ">="} or self._peek().upper() in {"CONTAINS", "BEGINSWITH", "ENDSWITH"}

    def _comparison(self) -> Callable[[Any], bool]:
        if not self._has_operator():
            raise self._wrong(self._peek() or "the end")
        operator = self._take()[1].upper()
        kind, word = self._take()
        if kind == "string":
            return _text_test(operator, re.sub(r"\\(.)", r"\1", word[1:-1]), self._wrong(operator))
        if kind == "word" and word.lower() in {"true", "false"} and operator in {"=", "!="}:
            return lambda value: isinstance(value, bool) and (value == (word.lower() == "true")) == (operator == "=")
        if kind != "number":
            raise self._wrong(word)
        return _number_test(operator, float(word), self._wrong(operator))


def _text_test(operator: str, wanted: str, wrong: AwsError) -> Callable[[Any], bool]:
    tests: dict[str, Callable[[str], bool]] = {
        "=": lambda text: text == wanted,
        "!=": lambda text: text != wanted,
        "CONTAINS": lambda text: wanted in text,
        "BEGINSWITH": lambda text: text.startswith(wanted),
        "ENDSWITH": lambda text: text.endswith(wanted),
    }
    if operator not in tests:
        raise wrong
    test = tests[operator]
    return lambda value: isinstance(value, str) and test(value)


def _number_test(operator: str, wanted: float, wrong: AwsError) -> Callable[[Any], bool]:
    tests: dict[str, Callable[[float], bool]] = {
        "=": lambda number: number == wanted,
        "!=": lambda number: number != wanted,
        "<": lambda number: number < wanted,
        "<=": lambda number: number <= wanted,
        ">": lambda number: number > wanted,
        ">=": lambda number: number >= wanted,
    }
    if operator not in tests:
        raise wrong
    test = tests[operator]
    return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and test(float(value))
