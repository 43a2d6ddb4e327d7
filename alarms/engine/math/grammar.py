"""The grammar of metric math: text to a small tree, with the position of what is wrong.

Ids start with a small letter, functions and keywords with a capital. From loose to tight: OR, AND, comparisons, + and -, * and /, unary
minus, ^. Expressions nested deeper than `MAX_DEPTH` are refused, so that nothing downstream can exhaust the stack.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from lark import Lark, Token, Transformer, UnexpectedInput, v_args
from lark.exceptions import VisitError

MAX_LENGTH = 2048
MAX_DEPTH = 50


class MathSyntaxError(ValueError):
    """An expression that cannot be parsed: what is wrong and at which character."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.position = position


@dataclass(frozen=True, slots=True)
class Number:
    """A constant."""

    value: float
    depth: int = 1


@dataclass(frozen=True, slots=True)
class Text:
    """A quoted string."""

    value: str
    depth: int = 1


@dataclass(frozen=True, slots=True)
class Word:
    """A bare capitalised word used as an argument, such as REPEAT or DESC."""

    value: str
    depth: int = 1


@dataclass(frozen=True, slots=True)
class Ref:
    """The id of another query."""

    id: str
    position: int
    depth: int = 1


@dataclass(frozen=True, slots=True)
class Call:
    """A function call."""

    name: str
    args: tuple[Node, ...]
    position: int
    depth: int


@dataclass(frozen=True, slots=True)
class Array:
    """``[a, b]``."""

    items: tuple[Node, ...]
    depth: int


@dataclass(frozen=True, slots=True)
class Chain:
    """``first op second op third …``: operators of one precedence, worked off from the left."""

    first: Node
    rest: tuple[tuple[str, Node], ...]
    depth: int


@dataclass(frozen=True, slots=True)
class Negate:
    """``-operand``."""

    operand: Node
    depth: int


Node = Number | Text | Word | Ref | Call | Array | Chain | Negate

_GRAMMAR = r"""
?start: either
?either: both (_OR both)*             -> fold_or
?both: comparison (_AND comparison)*  -> fold_and
?comparison: total (COMPARE total)*   -> fold
?total: product (SUM product)*        -> fold
?product: unary (PRODUCT unary)*      -> fold
?unary: MINUS unary                   -> negate
      | "+" unary                     -> same
      | power
?power: atom ("^" unary)?             -> power
?atom: NUMBER                         -> number
     | STRING                         -> string
     | ID                             -> ref
     | WORD "(" [arguments] ")"       -> call
     | WORD                           -> word
     | "[" arguments "]"              -> array
     | "(" either ")"                 -> same
arguments: either ("," either)*
_OR.2: /OR\b/ | "||"
_AND.2: /AND\b/ | "&&"
COMPARE: "==" | "!=" | "<=" | ">=" | "<" | ">"
SUM: "+" | "-"
MINUS: "-"
PRODUCT: "*" | "/"
NUMBER: /(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?/
STRING: /'[^']*'|"[^"]*"/
ID: /[a-z][a-zA-Z0-9_]*/
WORD: /[A-Z][A-Z0-9_]*/
%ignore /\s+/
"""


def _deeper(*nodes: Any) -> int:
    depth = 1 + max((node.depth for node in nodes), default=0)
    if depth > MAX_DEPTH:
        raise MathSyntaxError(f"the expression is nested deeper than {MAX_DEPTH} levels", 0)
    return depth


def _fold(items: list[Any]) -> Any:
    if len(items) == 1:
        return items[0]
    rest = tuple((str(op), right) for op, right in zip(items[1::2], items[2::2], strict=True))
    return Chain(items[0], rest, _deeper(*items[::2]))


class _Build(Transformer[Token, Any]):
    def fold(self, items: list[Any]) -> Any:
        return _fold(items)

    def fold_or(self, items: list[Any]) -> Any:
        return _fold([part for item in items for part in ("OR", item)][1:])

    def fold_and(self, items: list[Any]) -> Any:
        return _fold([part for item in items for part in ("AND", item)][1:])

    def power(self, items: list[Any]) -> Any:
        return items[0] if len(items) == 1 else Chain(items[0], (("^", items[1]),), _deeper(*items))

    def negate(self, items: list[Any]) -> Any:
        return Negate(items[1], _deeper(items[1]))

    def same(self, items: list[Any]) -> Any:
        return items[0]

    def arguments(self, items: list[Any]) -> Any:
        return tuple(items)

    @v_args(inline=True)
    def number(self, token: Token) -> Number:
        return Number(float(token))

    @v_args(inline=True)
    def string(self, token: Token) -> Text:
        return Text(str(token)[1:-1])

    @v_args(inline=True)
    def ref(self, token: Token) -> Ref:
        return Ref(str(token), token.start_pos or 0)

    @v_args(inline=True)
    def word(self, token: Token) -> Word:
        return Word(str(token))

    @v_args(inline=True)
    def call(self, token: Token, arguments: Any = None) -> Call:
        args = arguments or ()
        return Call(str(token), args, token.start_pos or 0, _deeper(*args))

    @v_args(inline=True)
    def array(self, items: Any) -> Array:
        return Array(items, _deeper(*items))


_PARSER = Lark(_GRAMMAR, parser="lalr", transformer=_Build(), maybe_placeholders=False)


@lru_cache(maxsize=4096)
def parse(expression: str) -> Node:
    """The tree of ``expression``. Raises MathSyntaxError."""
    if len(expression) > MAX_LENGTH:
        raise MathSyntaxError(f"the expression is longer than {MAX_LENGTH} characters", MAX_LENGTH)
    if not expression.strip():
        raise MathSyntaxError("the expression is empty", 0)
    try:
        return _PARSER.parse(expression)  # type: ignore[return-value]
    except UnexpectedInput as error:
        position = error.pos_in_stream if error.pos_in_stream is not None and error.pos_in_stream >= 0 else len(expression)
        position = min(position, len(expression))
        found = expression[position : position + 12] or "end of expression"
        raise MathSyntaxError(f"Unexpected '{found}' at character {position}", position) from error
    except VisitError as error:
        if isinstance(error.orig_exc, MathSyntaxError):
            raise error.orig_exc from None
        raise


def walk(node: Node) -> Iterator[Node]:
    """The node and everything below it."""
    yield node
    children: tuple[Node, ...] = ()
    if isinstance(node, Call):
        children = node.args
    elif isinstance(node, Array):
        children = node.items
    elif isinstance(node, Chain):
        children = (node.first, *(part for _, part in node.rest))
    elif isinstance(node, Negate):
        children = (node.operand,)
    for child in children:
        yield from walk(child)


def references(expression: str) -> tuple[str, ...]:
    """The ids an expression names, in order of appearance, each once."""
    return tuple(dict.fromkeys(node.id for node in walk(parse(expression)) if isinstance(node, Ref)))


def calls(expression: str) -> tuple[Call, ...]:
    """The function calls of an expression."""
    return tuple(node for node in walk(parse(expression)) if isinstance(node, Call))
