"""Expressions of Logs Insights queries: tokens, comparisons, arithmetic and functions, compiled to functions of a row."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

Row = dict[str, Any]
Expression = Callable[[Row], Any]
_UNITS = {"ms": 0.001, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "hr": 3600, "d": 86400, "w": 604800}


class QueryError(ValueError):
    """A query that cannot be understood; the message says where."""


class Moment(float):
    """A point in time, epoch seconds; shown as a date."""


# -- tokens ------------------------------------------------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<regex>/(?:[^/\\\n]|\\.)+/i?)|(?P<quoted>`[^`]+`)"""
    r"""|(?P<duration>\d+(?:ms|min|sec|hr|s|m|h|d|w)\b)|(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)"""
    r"""|(?P<name>@?[A-Za-z_][\w@]*(?:\.[\w@]+)*)|(?P<op>=~|!=|<=|>=|<|>|=|\+|-|\*|%|\^|/)|(?P<mark>[(),\[\]|]))""",
    re.VERBOSE,
)


def _tokens(text: str) -> list[tuple[str, str]]:
    out: list[tuple[str, str]] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            if not text[position:].strip():
                break
            raise QueryError(f"unexpected symbol found at '{text[position:].strip()[:20]}'")
        kind = match.lastgroup or ""
        value = match[kind]
        # A slash after an operand divides; anywhere else it begins a regular expression.
        if kind == "regex" and out and _is_operand(*out[-1]):
            start = match.start("regex")
            out.append(("op", "/"))
            position = start + 1
            continue
        out.append((kind, value))
        position = match.end()
    return out


def _is_operand(kind: str, value: str) -> bool:
    """Whether a token can stand left of a division."""
    if kind == "name":
        return value.lower() not in {"like", "parse"}
    return kind in {"number", "quoted"} or value in {")", "]"}


def pipes(text: str) -> list[str]:
    """The query split at pipes that stand outside strings and regular expressions."""
    parts, start, position = [], 0, 0
    quote = ""
    while position < len(text):
        char = text[position]
        if quote:
            if char == "\\":
                position += 1
            elif char == quote:
                quote = ""
        elif char in "\"'`" or (char == "/" and re.search(r"(like|=~|parse\s+\S+|,|\()\s*$", text[start:position])):
            quote = char
        elif char == "|":
            parts.append(text[start:position])
            start = position + 1
        position += 1
    return [*parts, text[start:]]


class Cursor:
    """A position in a command's tokens."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._tokens = _tokens(text)
        self._at = 0

    @property
    def position(self) -> int:
        """How many tokens were taken."""
        return self._at

    def since(self, position: int) -> str:
        """The text of the tokens taken since ``position``."""
        return "".join(value for _, value in self._tokens[position : self._at])

    def peek(self) -> str:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else ""

    def kind(self) -> str:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else ""

    def word(self) -> str:
        """The next token in small letters, where it is a name."""
        return self.peek().lower() if self.kind() == "name" else ""

    def take(self) -> tuple[str, str]:
        if self._at >= len(self._tokens):
            raise QueryError(f"the command ends early: '{self.text[:60]}'")
        self._at += 1
        return self._tokens[self._at - 1]

    def accept(self, *values: str) -> str:
        """Take the next token where it is one of ``values`` (names in any case)."""
        value = self.word() if self.kind() == "name" else self.peek()
        if self.kind() != "string" and value in values:
            self.take()
            return value
        return ""

    def expect(self, value: str) -> None:
        if not self.accept(value):
            raise QueryError(f"expected '{value}' at '{self.peek() or 'the end'}' in '{self.text[:60]}'")

    def end(self) -> None:
        if self._at != len(self._tokens):
            raise QueryError(f"unexpected '{self.peek()}' in '{self.text[:60]}'")


# -- expressions ---------------------------------------------------------------------------------------------------------------------------


def numeric(value: Any) -> float | None:
    """A value as a number, where it is one."""
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, int | float):
        return float(value)
    try:
        return float(value) if isinstance(value, str) else None
    except ValueError:
        return None


def truthy(value: Any) -> bool:
    """Whether a filter lets a row with this value pass."""
    return value not in (None, False, 0, 0.0, "", "false")


def read_expression(cursor: Cursor) -> Expression:
    parts = [_and(cursor)]
    while cursor.accept("or"):
        parts.append(_and(cursor))
    return parts[0] if len(parts) == 1 else lambda row: any(truthy(part(row)) for part in parts)


def _and(cursor: Cursor) -> Expression:
    parts = [_not(cursor)]
    while cursor.accept("and"):
        parts.append(_not(cursor))
    return parts[0] if len(parts) == 1 else lambda row: all(truthy(part(row)) for part in parts)


def _not(cursor: Cursor) -> Expression:
    if cursor.accept("not"):
        inner = _not(cursor)
        return lambda row: not truthy(inner(row))
    return _compare(cursor)


def _compare(cursor: Cursor) -> Expression:
    left = _sum(cursor)
    negate = cursor.word() == "not"
    if negate:
        cursor.take()
    if cursor.accept("in"):
        cursor.expect("[")
        items = [_sum(cursor)]
        while cursor.accept(","):
            items.append(_sum(cursor))
        cursor.expect("]")
        return lambda row: any(_equal(left(row), item(row)) for item in items) != negate
    if cursor.accept("like", "=~"):
        kind, value = cursor.take()
        matches = _like(kind, value)
        return lambda row: ((found := left(row)) is not None and matches(str(found))) != negate
    if negate:
        raise QueryError(f"expected 'like' or 'in' after 'not' in '{cursor.text[:60]}'")
    operator = cursor.accept("=", "!=", "<", ">", "<=", ">=")
    if not operator:
        return left
    right = _sum(cursor)
    if operator in {"=", "!="}:
        return lambda row: _equal(left(row), right(row)) == (operator == "=")
    compare: Callable[[float, float], bool] = {
        "<": lambda a, b: a < b,
        ">": lambda a, b: a > b,
        "<=": lambda a, b: a <= b,
        ">=": lambda a, b: a >= b,
    }[operator]
    return lambda row: (a := numeric(left(row))) is not None and (b := numeric(right(row))) is not None and compare(a, b)


def _equal(left: Any, right: Any) -> bool:
    a, b = numeric(left), numeric(right)
    if a is not None and b is not None:
        return a == b
    return left is not None and right is not None and str(left) == str(right)


def _like(kind: str, value: str) -> Callable[[str], bool]:
    if kind == "regex":
        body, _, flags = value[1:].rpartition("/")
        try:
            pattern = re.compile(body, re.IGNORECASE if "i" in flags else 0)
        except re.error as error:
            raise QueryError(f"the regular expression {value} cannot be read: {error}") from error
        return lambda text: pattern.search(text) is not None
    if kind != "string":
        raise QueryError(f"like needs a string or a regular expression, not '{value}'")
    wanted = _unquote(value)
    if "%" in wanted:
        pattern = re.compile(".*".join(re.escape(part) for part in wanted.split("%")), re.DOTALL)
        return lambda text: pattern.fullmatch(text) is not None
    return lambda text: wanted in text


def _sum(cursor: Cursor) -> Expression:
    left = _product(cursor)
    while operator := cursor.accept("+", "-"):
        left = _arithmetic(operator, left, _product(cursor))
    return left


def _product(cursor: Cursor) -> Expression:
    left = _unary(cursor)
    while operator := cursor.accept("*", "/", "%", "^"):
        left = _arithmetic(operator, left, _unary(cursor))
    return left


def _arithmetic(operator: str, left: Expression, right: Expression) -> Expression:
    compute: Callable[[float, float], float | None] = {
        "+": lambda a, b: a + b,
        "-": lambda a, b: a - b,
        "*": lambda a, b: a * b,
        "/": lambda a, b: a / b if b else None,
        "%": lambda a, b: math.fmod(a, b) if b else None,
        "^": lambda a, b: a**b,
    }[operator]

    def evaluate(row: Row) -> float | None:
        a, b = numeric(left(row)), numeric(right(row))
        return None if a is None or b is None else compute(a, b)

    return evaluate


def _unary(cursor: Cursor) -> Expression:
    if cursor.accept("-"):
        inner = _unary(cursor)
        return lambda row: None if (value := numeric(inner(row))) is None else -value
    kind, value = cursor.take()
    if value == "(":
        inner = read_expression(cursor)
        cursor.expect(")")
        return inner
    if kind == "string":
        text = _unquote(value)
        return lambda _row: text
    if kind == "number":
        number = float(value)
        return lambda _row: number
    if kind == "duration":
        seconds = _seconds(value)
        return lambda _row: seconds
    if kind not in {"name", "quoted"}:
        raise QueryError(f"unexpected '{value}' in '{cursor.text[:60]}'")
    if kind == "name" and cursor.peek() == "(":
        return _call(value, cursor)
    name = value.strip("`")
    if name.lower() in {"true", "false"}:
        return lambda _row: name.lower()
    return lambda row: row.get(name)


def _unquote(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1])


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+)([a-z]+)", text)
    if match is None or match[2] not in _UNITS:
        raise QueryError(f"'{text}' is not a duration such as 30s, 5m or 1h")
    return int(match[1]) * float(_UNITS[match[2]])


def _call(name: str, cursor: Cursor) -> Expression:
    cursor.expect("(")
    arguments: list[Expression] = []
    if not cursor.accept(")"):
        arguments.append(read_expression(cursor))
        while cursor.accept(","):
            arguments.append(read_expression(cursor))
        cursor.expect(")")
    if name == "bin":
        if len(arguments) != 1:
            raise QueryError("bin needs one period, such as bin(5m)")
        width = float(arguments[0]({}) or 0)
        if width <= 0:
            raise QueryError("bin needs a period such as 30s, 5m or 1h")
        return lambda row: Moment(math.floor(float(row["@timestamp"]) / width) * width)
    function = _FUNCTIONS.get(name.lower())
    if function is None:
        raise QueryError(f"unknown function '{name}': the local AWS knows bin, {', '.join(sorted(_FUNCTIONS))}")
    return lambda row: function([argument(row) for argument in arguments])


def _on_number(compute: Callable[[float], float]) -> Callable[[list[Any]], Any]:
    return lambda a: None if (value := numeric(a[0])) is None else float(compute(value))


_FUNCTIONS: dict[str, Callable[[list[Any]], Any]] = {
    "abs": _on_number(abs),
    "ceil": _on_number(math.ceil),
    "floor": _on_number(math.floor),
    "sqrt": _on_number(math.sqrt),
    "log": _on_number(math.log),
    "ispresent": lambda a: a[0] is not None,
    "isempty": lambda a: a[0] in (None, ""),
    "isblank": lambda a: a[0] is None or not str(a[0]).strip(),
    "coalesce": lambda a: next((value for value in a if value is not None), None),
    "concat": lambda a: "".join(str(value) for value in a if value is not None),
    "strlen": lambda a: None if a[0] is None else float(len(str(a[0]))),
    "toupper": lambda a: None if a[0] is None else str(a[0]).upper(),
    "tolower": lambda a: None if a[0] is None else str(a[0]).lower(),
    "trim": lambda a: None if a[0] is None else str(a[0]).strip(),
    "strcontains": lambda a: float(str(a[1]) in str(a[0])) if a[0] is not None else 0.0,
    "replace": lambda a: None if a[0] is None else str(a[0]).replace(str(a[1]), str(a[2])),
    "tomillis": lambda a: None if a[0] is None else float(a[0]) * 1000,
    "frommillis": lambda a: None if (value := numeric(a[0])) is None else Moment(value / 1000),
}
