"""The part of the Logs Insights query language that operators use every day.

Commands, joined with ``|``: fields, display, filter, stats … by …, sort, limit, parse (glob and regular expression), dedup. Expressions:
comparisons, ``and or not``, ``like`` and ``=~``, ``in``, arithmetic, and the functions below. Anything else is refused with a QueryError,
which AWS calls MalformedQueryException.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lab.aws.services.logs.query_expressions import Cursor, Expression, QueryError, Row, numeric, pipes, read_expression, truthy


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
    return [_command(part.strip()) for part in pipes(text)]


def run(commands: Sequence[Command], rows: list[Row], limit: int) -> Outcome:
    """Run a query over rows. Without a sort the newest events come first; without fields, time and message are shown."""
    rows = sorted(rows, key=lambda row: float(row["@timestamp"]), reverse=True)
    shown: list[str] | None = None
    matched: int | None = None
    for command in commands:
        if command.name == "stats" and matched is None:
            matched = len(rows)
        rows = command.run(rows)
        if command.name in {"stats", "display"}:
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


# -- commands ------------------------------------------------------------------------------------------------------------------------------


def _command(text: str) -> Command:
    name, _, rest = text.partition(" ")
    build = _COMMANDS.get(name.lower())
    if build is None:
        raise QueryError(f"unknown command '{name}': the local AWS knows {', '.join(sorted(_COMMANDS))}")
    if name.lower() == "parse":
        return _parse_command(rest)
    cursor = Cursor(rest)
    command = build(cursor)
    cursor.end()
    return command


def _named(cursor: Cursor) -> tuple[str, Expression, bool]:
    """An expression with its name (``as`` or its own text), and whether it is more than a field."""
    plain = cursor.peek().strip("`") if cursor.kind() in {"name", "quoted"} else ""
    begin = cursor.position
    expression = read_expression(cursor)
    source = cursor.since(begin)
    computed = cursor.position - begin > 1
    if cursor.accept("as"):
        return cursor.take()[1].strip("`"), expression, True
    return (source if computed else plain or source), expression, computed


def _fields(cursor: Cursor) -> Command:
    items = [_named(cursor)]
    while cursor.accept(","):
        items.append(_named(cursor))
    computed = [(name, expression) for name, expression, more in items if more]

    def stage(rows: list[Row]) -> list[Row]:
        return [row | {name: expression(row) for name, expression in computed} for row in rows] if computed else rows

    return Command("fields", stage, tuple(name for name, _, _ in items))


def _display(cursor: Cursor) -> Command:
    command = _fields(cursor)
    return Command("display", command.run, command.fields)


def _filter(cursor: Cursor) -> Command:
    test = read_expression(cursor)
    return Command("filter", lambda rows: [row for row in rows if truthy(test(row))])


def _limit(cursor: Cursor) -> Command:
    kind, value = cursor.take()
    if kind != "number" or not 1 <= int(float(value)) <= 10_000:
        raise QueryError(f"limit needs a number from 1 to 10000, not '{value}'")
    return Command("limit", lambda rows: rows[: int(float(value))])


def _sort(cursor: Cursor) -> Command:
    keys: list[tuple[Expression, bool]] = []
    while True:
        begin = cursor.position
        expression = read_expression(cursor)
        name = cursor.since(begin).strip("`")
        keys.append((_column_or(name, expression), cursor.accept("asc", "desc") == "desc"))
        if not cursor.accept(","):
            break

    def stage(rows: list[Row]) -> list[Row]:
        for expression, descending in reversed(keys):
            rows = sorted(rows, key=lambda row: _order(expression(row)), reverse=descending)
        return rows

    return Command("sort", stage)


def _column_or(name: str, expression: Expression) -> Expression:
    """The column ``name`` where a row has it (after stats, "count(*)" is one), else the expression."""
    return lambda row: row[name] if name in row else expression(row)


def _order(value: Any) -> tuple[int, float, str]:
    number = numeric(value)
    if value is None:
        return (0, 0.0, "")
    return (1, number, "") if number is not None else (2, 0.0, str(value))


def _dedup(cursor: Cursor) -> Command:
    keys = [read_expression(cursor)]
    while cursor.accept(","):
        keys.append(read_expression(cursor))

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


_PARSE = re.compile(
    r"""\s*(?P<field>@?[\w.@]+|`[^`]+`)\s+(?:"(?P<glob>(?:[^"\\]|\\.)*)"|'(?P<glob2>(?:[^'\\]|\\.)*)'|/(?P<regex>(?:[^/\\]|\\.)+)/)\s*(?:as\s+(?P<names>.+))?\Z""",
    re.IGNORECASE | re.DOTALL,
)


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
        glob = re.sub(r"\\(.)", r"\1", glob)
        if glob.count("*") != len(names):
            raise QueryError(f"parse has {glob.count('*')} wildcards and {len(names)} names")
        pattern = re.compile(
            ".*?" + "(.*?)".join(re.escape(part) for part in glob.split("*")) + ("\\Z" if glob.endswith("*") else ""), re.DOTALL
        )

    def stage(rows: list[Row]) -> list[Row]:
        out = []
        for row in rows:
            found = pattern.search(str(row.get(field, "")))
            out.append(row | dict(zip(names, found.groups(), strict=False)) if found else row)
        return out

    return Command("parse", stage)


def _stats(cursor: Cursor) -> Command:
    columns: list[tuple[str, Callable[[list[Row]], Any]]] = []
    while True:
        begin = cursor.position
        aggregate = _aggregate(cursor)
        name = cursor.since(begin)
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


def _aggregate(cursor: Cursor) -> Callable[[list[Row]], Any]:
    name = cursor.take()[1].lower()
    function = _AGGREGATES.get(name)
    if function is None:
        raise QueryError(f"unknown aggregate '{name}': the local AWS knows {', '.join(sorted(_AGGREGATES))}")
    cursor.expect("(")
    arguments: list[Expression] = []
    if not cursor.accept(")"):
        if cursor.accept("*"):
            arguments.append(lambda _row: 1)
        else:
            arguments.append(read_expression(cursor))
            while cursor.accept(","):
                arguments.append(read_expression(cursor))
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

_COMMANDS: dict[str, Callable[[Cursor], Command]] = {
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
