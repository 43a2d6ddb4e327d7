"""SEARCH expressions: ``SEARCH('{Namespace,Dim1,Dim2} MetricName="Latency" us-east', 'p99', 60)`` finds metrics by what they are called.

A term matches in part, by the tokens of names split at punctuation and capitals; a term in double quotes matches exactly. Terms may be
bound to a property (``MetricName=``, ``Namespace=``, ``Region=`` or any dimension, quoted or not) and joined with AND (the default), OR,
NOT and parentheses. A schema in braces selects metrics with exactly these dimensions.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/search-expression-syntax.html
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alarms.engine.query import MetricKey

Match = Callable[["MetricKey"], bool]

_TOKEN = re.compile(r'\s*(?:(?P<open>\()|(?P<close>\))|(?P<word>(?:"(?:[^"\\]|\\.)*"|[^\s()="])+(?:=(?:"(?:[^"\\]|\\.)*"|\(|[^\s()"]+))?))')
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_]+")


def compile_search(text: str) -> Match:
    """The predicate that a SEARCH text stands for. Raises ValueError where it cannot be read."""
    text = text.strip()
    schema: tuple[str, tuple[str, ...]] | None = None
    if text.startswith("{"):
        inside, closed, text = text[1:].partition("}")
        if not closed:
            raise ValueError("the schema's closing brace is missing")
        parts = [_unquoted(part.strip()) for part in _split(inside)]
        schema = (parts[0], tuple(sorted(parts[1:])))
    matches = _Parser(_tokens(text)).expression() if text.strip() else (lambda _key: True)

    def match(key: MetricKey) -> bool:
        if schema is not None and (key.namespace != schema[0] or tuple(sorted(name for name, _ in key.dimensions)) != schema[1]):
            return False
        return matches(key)

    return match


def _split(text: str) -> list[str]:
    """Comma-separated parts, where commas inside double quotes do not separate."""
    return re.findall(r'(?:"[^"]*"|[^,])+', text)


def _unquoted(text: str) -> str:
    return text[1:-1].replace('\\"', '"') if len(text) > 1 and text[0] == text[-1] == '"' else text


def _tokens(text: str) -> list[str]:
    out, position = [], 0
    text = text.strip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or match.end() == position:
            raise ValueError(f"cannot read the search at {text[position : position + 20]!r}")
        word = match.group("word")
        if word is not None and word.endswith("=("):
            out += [word[:-1], "("]
        else:
            out.append(match.group().strip())
        position = match.end()
    return out


class _Parser:
    """Recursive descent over the tokens; AND binds tighter than OR, as it does in CloudWatch."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._at = 0

    def expression(self, bound: str | None = None) -> Match:
        match = self._or(bound)
        if self._at != len(self._tokens):
            raise ValueError(f"unexpected {self._tokens[self._at]!r} in the search")
        return match

    def _peek(self) -> str | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _take(self) -> str:
        token = self._peek()
        if token is None:
            raise ValueError("the search ends early")
        self._at += 1
        return token

    def _or(self, bound: str | None) -> Match:
        parts = [self._and(bound)]
        while self._peek() == "OR":
            self._take()
            parts.append(self._and(bound))
        return parts[0] if len(parts) == 1 else lambda key: any(part(key) for part in parts)

    def _and(self, bound: str | None) -> Match:
        parts = [self._not(bound)]
        while (token := self._peek()) is not None and token not in {"OR", ")"}:
            if token == "AND":
                self._take()
            parts.append(self._not(bound))
        return parts[0] if len(parts) == 1 else lambda key: all(part(key) for part in parts)

    def _not(self, bound: str | None) -> Match:
        if self._peek() == "NOT":
            self._take()
            inner = self._not(bound)
            return lambda key: not inner(key)
        return self._term(bound)

    def _term(self, bound: str | None) -> Match:
        token = self._take()
        if token == "(":
            inner = self._or(bound)
            if self._take() != ")":
                raise ValueError("a closing parenthesis is missing in the search")
            return inner
        prop, equals, value = _bound(token)
        if not equals:
            return _matcher(bound, token)
        if value:
            return _matcher(prop, value)
        return self._term(prop)


def _bound(token: str) -> tuple[str, str, str]:
    """``Name=value`` apart; no equals sign outside quotes means a plain term."""
    match = re.match(r'("(?:[^"\\]|\\.)*"|[^"=]+)(=)(.*)\Z', token, re.DOTALL)
    return (_unquoted(match[1]), "=", match[3]) if match else ("", "", token)


def _matcher(prop: str | None, value: str) -> Match:
    exact = value.startswith('"')
    wanted = _unquoted(value)
    words = {word.lower() for word in _WORDS.findall(wanted)}

    def one(text: str) -> bool:
        if exact:
            return text == wanted
        return wanted.lower() in text.lower() or (bool(words) and words <= {word.lower() for word in _WORDS.findall(text)})

    def match(key: MetricKey) -> bool:
        if prop is None:
            return any(one(text) for text in (key.namespace, key.name, *(part for pair in key.dimensions for part in pair)))
        if prop == "MetricName":
            return one(key.name)
        if prop == "Namespace":
            return one(key.namespace)
        return any(one(text) for name, text in key.dimensions if name == prop.removeprefix(":dim.").removeprefix("dim."))

    return match
