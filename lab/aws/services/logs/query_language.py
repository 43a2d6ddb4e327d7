"""The part of the Logs Insights query language that operators use every day.

Commands, joined with ``|``: fields, display, filter, stats … by …, sort, limit, parse (glob and regular expression), dedup. Expressions:
comparisons, ``and or not``, ``like`` and ``=~``, ``in``, arithmetic, and the functions below. Anything else is refused with a QueryError,
which AWS calls MalformedQueryException.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax.html
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Row = dict[str, Any]
Expression = Callable[[Row], Any]
_UNITS = {"ms": 0.001, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "hr": 3600, "d": 86400, "w": 604800}


class QueryError(ValueError):
    """A query that cannot be understood; the message says where."""


class Moment(float):
    """A point in time, epoch seconds; shown as a date."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a query gives: rows, and how many events passed the filters."""

    rows: list[Row]
    matched: int


Stage = Callable[[list[Row]], list[Row]]


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a query: its name and what it does to the rows."""

    name: str
    run: Stage
    fields: tuple[str, ...] = ()


def parse(text: str) -> list[Command]:
    """The commands of a query. Raises QueryError."""
    text = re.sub(r"(?m)^\s*#.*$", "", text).strip()
    if not text:
        raise QueryError("The query is empty.")
    return [_command(part.strip()) for part in _pipes(text)]


def run(commands: Sequence[Command], rows: list[Row], limit: int) -> Outcome:
    """Run a query over rows. Without a sort the newest events come first; without fields, time and message are shown."""
    rows = sorted(rows, key=lambda row: float(row["@timestamp"]), reverse=True)
    shown: list[str] | None = None
    matched: int | None = None
    for command in commands:
        if command.name == "stats" and matched is None:
            matched = len(rows)
        rows = command.run(rows)
        if command.name == "stats":
            shown = list(command.fields)
        elif command.name == "display":
            shown = list(command.fields)
        elif command.name == "fields":
            shown = [*(shown or []), *(name for name in command.fields if name not in (shown or []))]
    if matched is None:
        matched = len(rows)
    aggregated = any(command.name == "stats" for command in commands)
    if shown is None:
        shown = ["@timestamp", "@message"]
    names = shown if aggregated else [*shown, "@ptr"]
    return Outcome([{name: row.get(name) for name in names} for row in rows[:limit]], matched)


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
        if kind == "regex" and out and (out[-1][0] in {"number", "quoted"} or out[-1][1] in {")", "]"} or (out[-1][0] == "name" and out[-1][1].lower() not in {"like", "parse"})):
            start = match.start("regex")
            out.append(("op", "/"))
            position = start + 1
            continue
        out.append((kind, value))
        position = match.end()
    return out


def _pipes(text: str) -> list[str]:
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


class _Cursor:
    """A position in a command's tokens."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._tokens = _tokens(text)
        self._at = 0

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


# -- commands ------------------------------------------------------------------------------------------------------------------------------


def _command(text: str) -> Command:
    name, _, rest = text.partition(" ")
    build = _COMMANDS.get(name.lower())
    if build is None:
        raise QueryError(f"unknown command '{name}': the local AWS knows {', '.join(sorted(_COMMANDS))}")
    if name.lower() == "parse":
        return _parse_command(rest)
    cursor = _Cursor(rest)
    command = build(cursor)
    cursor.end()
    return command


def _named(cursor: _Cursor) -> tuple[str, Expression, bool]:
    """An expression with its name (``as`` or its own text), and whether it is more than a field."""
    plain = cursor.peek().strip("`") if cursor.kind() in {"name", "quoted"} else ""
    begin = cursor._at
    expression = _or(cursor)
    source = "".join(value for _, value in cursor._tokens[begin : cursor._at])
    computed = cursor._at - begin > 1
    if cursor.accept("as"):
        return cursor.take()[1].strip("`"), expression, True
    return (source if computed else plain or source), expression, computed


def _fields(cursor: _Cursor) -> Command:
    items = [_named(cursor)]
    while cursor.accept(","):
        items.append(_named(cursor))
    computed = [(name, expression) for name, expression, more in items if more]

    def stage(rows: list[Row]) -> list[Row]:
        return [row | {name: expression(row) for name, expression in computed} for row in rows] if computed else rows

    return Command("fields", stage, tuple(name for name, _, _ in items))


def _display(cursor: _Cursor) -> Command:
    command = _fields(cursor)
    return Command("display", command.run, command.fields)


def _filter(cursor: _Cursor) -> Command:
    test = _or(cursor)
    return Command("filter", lambda rows: [row for row in rows if truthy(test(row))])


def _limit(cursor: _Cursor) -> Command:
    kind, value = cursor.take()
    if kind != "number" or not 1 <= int(float(value)) <= 10_000:
        raise QueryError(f"limit needs a number from 1 to 10000, not '{value}'")
    return Command("limit", lambda rows: rows[: int(float(value))])


def _sort(cursor: _Cursor) -> Command:
    keys: list[tuple[Expression, bool]] = []
    while True:
        begin = cursor._at
        expression = _or(cursor)
        name = "".join(value for _, value in cursor._tokens[begin : cursor._at]).strip("`")
        # After stats the result of "count(*)" is a column of that name.
        keys.append((lambda row, name=name, expression=expression: row[name] if name in row else expression(row), cursor.accept("asc", "desc") == "desc"))  # type: ignore[misc]
        if not cursor.accept(","):
            break

    def stage(rows: list[Row]) -> list[Row]:
        for expression, descending in reversed(keys):
            rows = sorted(rows, key=lambda row: _order(expression(row)), reverse=descending)
        return rows

    return Command("sort", stage)


def _order(value: Any) -> tuple[int, float, str]:
    number = numeric(value)
    if value is None:
        return (0, 0.0, "")
    return (1, number, "") if number is not None else (2, 0.0, str(value))


def _dedup(cursor: _Cursor) -> Command:
    keys = [_or(cursor)]
    while cursor.accept(","):
        keys.append(_or(cursor))

    def stage(rows: list[Row]) -> list[Row]:
        seen: set[tuple[str, ...]] = set()
        out = []
        for row in rows:
            key = tuple(str(each(row)) for each in keys)
            if key not in seen:
                seen.add(key)
                out.append(row)
        return out

    return Command("dedup", stage)


_PARSE = re.compile(r"""\s*(?P<field>@?[\w.@]+|`[^`]+`)\s+(?:"(?P<glob>(?:[^"\\]|\\.)*)"|'(?P<glob2>(?:[^'\\]|\\.)*)'|/(?P<regex>(?:[^/\\]|\\.)+)/)\s*(?:as\s+(?P<names>.+))?\Z""", re.IGNORECASE | re.DOTALL)


def _parse_command(text: str) -> Command:
    match = _PARSE.match(text)
    if match is None:
        raise QueryError(f"cannot read the command 'parse {text[:40]}'")
    field = match["field"].strip("`")
    names = [name.strip() for name in (match["names"] or "").split(",") if name.strip()]
    if match["regex"] is not None:
        try:
            pattern = re.compile(re.sub(r"\(\?<(?![=!])", "(?P<", match["regex"]))
        except re.error as error:
            raise QueryError(f"the regular expression of parse cannot be read: {error}") from error
        names = names or list(pattern.groupindex)
    else:
        glob = match["glob"] if match["glob"] is not None else match["glob2"]
        if glob.count("*") != len(names):
            raise QueryError(f"parse has {glob.count('*')} wildcards and {len(names)} names")
        pattern = re.compile(".*?" + "(.*?)".join(re.escape(part) for part in glob.split("*")) + ("\\Z" if glob.endswith("*") else ""), re.DOTALL)

    def stage(rows: list[Row]) -> list[Row]:
        out = []
        for row in rows:
            found = pattern.search(str(row.get(field, "")))
            out.append(row | dict(zip(names, found.groups(), strict=False)) if found else row)
        return out

    return Command("parse", stage)


def _stats(cursor: _Cursor) -> Command:
    columns: list[tuple[str, Callable[[list[Row]], Any]]] = []
    while True:
        begin = cursor._at
        aggregate = _aggregate(cursor)
        name = "".join(value for _, value in cursor._tokens[begin : cursor._at])
        if cursor.accept("as"):
            name = cursor.take()[1].strip("`")
        columns.append((name, aggregate))
        if not cursor.accept(","):
            break
    groups: list[tuple[str, Expression]] = []
    if cursor.accept("by"):
        groups.append(_named(cursor)[:2])
        while cursor.accept(","):
            groups.append(_named(cursor)[:2])

    def stage(rows: list[Row]) -> list[Row]:
        parts: dict[tuple[Any, ...], list[Row]] = {}
        for row in rows:
            parts.setdefault(tuple(expression(row) for _, expression in groups), []).append(row)
        if not groups and not parts:
            parts[()] = []
        return [
            dict(zip((name for name, _ in groups), key, strict=True)) | {name: aggregate(members) for name, aggregate in columns}
            for key, members in parts.items()
        ]

    return Command("stats", stage, (*(name for name, _ in groups), *(name for name, _ in columns)))


def _aggregate(cursor: _Cursor) -> Callable[[list[Row]], Any]:
    name = cursor.take()[1].lower()
    function = _AGGREGATES.get(name)
    if function is None:
        raise QueryError(f"unknown aggregate '{name}': the local AWS knows {', '.join(sorted(_AGGREGATES))}")
    cursor.expect("(")
    arguments: list[Expression] = []
    if not cursor.accept(")"):
        if cursor.accept("*"):
            arguments.append(lambda row: 1)
        else:
            arguments.append(_or(cursor))
            while cursor.accept(","):
                arguments.append(_or(cursor))
        cursor.expect(")")
    return lambda rows: function(rows, arguments)


def _numbers(rows: list[Row], arguments: list[Expression]) -> list[float]:
    return [number for row in rows if (number := numeric(arguments[0](row))) is not None]


def _percentile(rows: list[Row], arguments: list[Expression]) -> float | None:
    numbers = _numbers(rows, arguments)
    share = numeric(arguments[1]({})) if len(arguments) > 1 else None
    if share is None or not 0 <= share <= 100:
        raise QueryError("pct needs a percentage from 0 to 100")
    return float(np.percentile(numbers, share, method="inverted_cdf")) if numbers else None


_AGGREGATES: dict[str, Callable[[list[Row], list[Expression]], Any]] = {
    "count": lambda rows, a: float(sum(a[0](row) is not None for row in rows) if a else len(rows)),
    "count_distinct": lambda rows, a: float(len({str(v) for row in rows if (v := a[0](row)) is not None})),
    "sum": lambda rows, a: float(sum(_numbers(rows, a))),
    "avg": lambda rows, a: float(np.mean(n)) if (n := _numbers(rows, a)) else None,
    "min": lambda rows, a: min((v for row in rows if (v := a[0](row)) is not None), key=_order, default=None),
    "max": lambda rows, a: max((v for row in rows if (v := a[0](row)) is not None), key=_order, default=None),
    "stddev": lambda rows, a: float(np.std(n)) if (n := _numbers(rows, a)) else None,
    "median": lambda rows, a: float(np.median(n)) if (n := _numbers(rows, a)) else None,
    "pct": _percentile,
    "percentile": _percentile,
    "earliest": lambda rows, a: a[0](min(rows, key=lambda row: float(row["@timestamp"]))) if rows else None,
    "latest": lambda rows, a: a[0](max(rows, key=lambda row: float(row["@timestamp"]))) if rows else None,
}

_COMMANDS: dict[str, Callable[[_Cursor], Command]] = {
    "fields": _fields,
    "display": _display,
    "filter": _filter,
    "limit": _limit,
    "head": _limit,
    "sort": _sort,
    "stats": _stats,
    "dedup": _dedup,
    "parse": lambda cursor: _parse_command(cursor.text),
}


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


def _or(cursor: _Cursor) -> Expression:
    left = _and(cursor)
    while cursor.accept("or"):
        left = (lambda a, b: lambda row: truthy(a(row)) or truthy(b(row)))(left, _and(cursor))
    return left


def _and(cursor: _Cursor) -> Expression:
    left = _not(cursor)
    while cursor.accept("and"):
        left = (lambda a, b: lambda row: truthy(a(row)) and truthy(b(row)))(left, _not(cursor))
    return left


def _not(cursor: _Cursor) -> Expression:
    if cursor.accept("not"):
        inner = _not(cursor)
        return lambda row: not truthy(inner(row))
    return _compare(cursor)


def _compare(cursor: _Cursor) -> Expression:
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
    compare = {"<": lambda a, b: a < b, ">": lambda a, b: a > b, "<=": lambda a, b: a <= b, ">=": lambda a, b: a >= b}[operator]
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


def _sum(cursor: _Cursor) -> Expression:
    left = _product(cursor)
    while operator := cursor.accept("+", "-"):
        left = _arithmetic(operator, left, _product(cursor))
    return left


def _product(cursor: _Cursor) -> Expression:
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


def _unary(cursor: _Cursor) -> Expression:
    if cursor.accept("-"):
        inner = _unary(cursor)
        return lambda row: None if (value := numeric(inner(row))) is None else -value
    kind, value = cursor.take()
    if value == "(":
        inner = _or(cursor)
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


def _call(name: str, cursor: _Cursor) -> Expression:
    cursor.expect("(")
    arguments: list[Expression] = []
    if not cursor.accept(")"):
        arguments.append(_or(cursor))
        while cursor.accept(","):
            arguments.append(_or(cursor))
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
