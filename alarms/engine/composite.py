"""Composite alarm rules: CloudWatch's grammar, its messages, and the order composites must be deployed in.

A rule is compiled to a short program for a stack machine, so that evaluating it needs no recursion. Keywords are upper case, AND binds
tighter than OR, an unquoted name ends at white space, a round bracket or a comma, a quoted one writes ``"`` as ``\\"``.
Page: *Combining alarms*; messages as the service was seen to word them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedInput, UnexpectedToken
from lark.exceptions import VisitError

from alarms.engine.problems import Problem
from alarms.engine.states import State

MAX_RULE = 10_240
MAX_CHILDREN = 100
MAX_PARENTS = 150
MAX_ELEMENTS = 500


class RuleError(ValueError):
    """A rule that cannot be parsed. ``position`` is the character the message points at."""

    def __init__(self, message: str, position: int, rule: str = "") -> None:
        super().__init__(f"Error in AlarmRule [{message}]")
        self.position = position
        self.rule = rule

    def pointed(self) -> str:
        """The message with the rule and a caret under the character."""
        start = max(0, self.position - 60)
        shown = self.rule[start : self.position + 40].replace("\n", " ")
        return f"{self}\n  {shown}\n  {' ' * (self.position - start)}^"


@dataclass(frozen=True, slots=True)
class Constant:
    """TRUE or FALSE."""

    value: bool


@dataclass(frozen=True, slots=True)
class Test:
    """ALARM(x), OK(x) or INSUFFICIENT_DATA(x)."""

    __test__ = False  # not a test class for pytest

    state: State
    child: str


@dataclass(frozen=True, slots=True)
class AtLeast:
    """AT_LEAST(M or P%, [NOT] state, (x, y, …)); ``needed`` is the count it comes to."""

    needed: int
    negated: bool
    state: State
    children: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Combine:
    """AND or OR over the last ``count`` results, NOT over the last one."""

    op: str
    count: int


Instruction = Constant | Test | AtLeast | Combine


@dataclass(frozen=True, slots=True)
class Rule:
    """A parsed rule: its text, its program, and the alarms it names (as written, each once, in order)."""

    text: str
    program: tuple[Instruction, ...]
    children: tuple[str, ...]

    def holds(self, state_of: Callable[[str], State]) -> bool:
        """Whether the rule is true; ``state_of`` gets names as written in the rule."""
        stack: list[bool] = []
        for step in self.program:
            if isinstance(step, Constant):
                stack.append(step.value)
            elif isinstance(step, Test):
                stack.append(state_of(step.child) == step.state)
            elif isinstance(step, AtLeast):
                hits = sum((state_of(child) == step.state) is not step.negated for child in step.children)
                stack.append(hits >= step.needed)
            elif step.op == "NOT":
                stack[-1] = not stack[-1]
            else:
                taken = stack[-step.count :]
                stack[-step.count :] = [all(taken) if step.op == "AND" else any(taken)]
        return stack[0]


_GRAMMAR = r"""
start: either
either: both (OR both)*
both: unary (AND unary)*
unary: NOT unary               -> negation
     | "(" either ")"          -> same
     | TRUE                    -> constant
     | FALSE                   -> constant
     | STATE "(" name ")"      -> test
     | AT_LEAST "(" (COUNT | PERCENT) "," [NOT] STATE "," "(" name ("," name)* ")" ")" -> at_least
name: QUOTED | NAME
OR.3: /OR\b/
AND.3: /AND\b/
NOT.3: /NOT\b/
TRUE.3: /TRUE\b/
FALSE.3: /FALSE\b/
STATE.3: /(ALARM|OK|INSUFFICIENT_DATA)\b/
AT_LEAST.3: /AT_LEAST\b/
PERCENT.2: /\d+%/
COUNT.1: /\d+/
QUOTED.2: /"(\\.|[^"\\])*"/
NAME: /[^\s(),"]+/
%ignore /\s+/
"""

_OPERAND = "'(', 'NOT', AT_LEAST, TRUE or FALSE, ALARM, OK, or INSUFFICIENT_DATA"
_EXPECTED = (
    ("NAME", "an alarm name or ARN"),
    ("STATE", "ALARM, OK, or INSUFFICIENT_DATA"),
    ("COUNT", "a number of alarms or a percentage"),
    ("LPAR", "'('"),
    ("AND", "'AND'"),
    ("OR", "'OR'"),
    ("COMMA", "','"),
    ("RPAR", "')'"),
)


class _Compile(Transformer[Token, Any]):
    """Builds programs bottom-up while the parser reduces: no tree, no recursion."""

    def start(self, items: list[Any]) -> Any:
        return items[0]

    def same(self, items: list[Any]) -> Any:
        return items[0]

    def either(self, items: list[Any]) -> Any:
        return _joined("OR", [item for item in items if not isinstance(item, Token)])

    def both(self, items: list[Any]) -> Any:
        return _joined("AND", [item for item in items if not isinstance(item, Token)])

    def negation(self, items: list[Any]) -> Any:
        program = items[1]
        if program[-1] == Combine("NOT", 1):
            return program[:-1]
        return [*program, Combine("NOT", 1)]

    def constant(self, items: list[Any]) -> Any:
        return [Constant(str(items[0]) == "TRUE")]

    def test(self, items: list[Any]) -> Any:
        return [Test(str(items[0]), items[1])]  # type: ignore[arg-type]

    def at_least(self, items: list[Any]) -> Any:
        items = [item for item in items if item is not None]
        threshold = items[1]
        negated = isinstance(items[2], Token) and items[2].type == "NOT"
        state, *names = items[3:] if negated else items[2:]
        return [AtLeast(_needed(threshold, len(names)), negated, str(state), tuple(names))]  # type: ignore[arg-type]

    def name(self, items: list[Any]) -> Any:
        token = items[0]
        return re.sub(r"\\(.)", r"\1", token[1:-1]) if token.type == "QUOTED" else str(token)


def _joined(op: str, programs: list[list[Instruction]]) -> list[Instruction]:
    if len(programs) == 1:
        return programs[0]
    return [*(step for program in programs for step in program), Combine(op, len(programs))]


def _needed(threshold: Token, alarms: int) -> int:
    position = threshold.start_pos or 0
    if threshold.type == "PERCENT":
        percent = int(threshold[:-1][:9])
        if not 1 <= percent <= 100:
            raise RuleError("AT_LEAST percentage threshold must be between 1 and 100", position)
        return math.ceil(percent * alarms / 100)
    count = int(threshold[:9])
    if not 1 <= count <= alarms:
        raise RuleError(f"AT_LEAST absolute threshold must be between 1 and number of alarms ({alarms})", position)
    return count


_PARSER = Lark(_GRAMMAR, parser="lalr", transformer=_Compile(), maybe_placeholders=False)


@lru_cache(maxsize=4096)
def parse(text: str) -> Rule:
    """The rule ``text`` stands for. Raises RuleError, which points at the character."""
    if len(text) > MAX_RULE:
        raise RuleError(f"the rule has {len(text)} characters, more than {MAX_RULE}", MAX_RULE, text)
    try:
        program: Any = _PARSER.parse(text)
    except UnexpectedInput as error:
        raise _worded(error, text) from None
    except VisitError as error:
        if isinstance(error.orig_exc, RuleError):
            error.orig_exc.rule = text
            raise error.orig_exc from None
        raise
    except RuleError as error:
        error.rule = text
        raise
    elements = [step for step in program if not isinstance(step, Combine)]
    children: dict[str, None] = {}
    for step in elements:
        if isinstance(step, Test):
            children[step.child] = None
        elif isinstance(step, AtLeast):
            children.update(dict.fromkeys(step.children))
    if len(elements) > MAX_ELEMENTS:
        raise RuleError(f"the rule has {len(elements)} elements, more than {MAX_ELEMENTS}", len(text), text)
    if len(children) > MAX_CHILDREN:
        raise RuleError(f"the rule names {len(children)} alarms, more than {MAX_CHILDREN}", len(text), text)
    return Rule(text, tuple(program), tuple(children))


def _worded(error: UnexpectedInput, text: str) -> RuleError:
    """The parser's complaint in the service's words."""
    position = error.pos_in_stream
    expected: set[str] = set()
    if isinstance(error, UnexpectedToken):
        expected = set(error.accepts or error.expected)
    elif isinstance(error, UnexpectedCharacters):
        expected = set(error.allowed or ())
    if position is None or position < 0 or (isinstance(error, UnexpectedToken) and error.token.type == "$END"):
        position = len(text.rstrip())
    must = _OPERAND if {"TRUE", "LPAR"} <= expected else " or ".join(words for kind, words in _EXPECTED if kind in expected)
    rest = text[position:]
    if not rest.strip():
        return RuleError(f"Unexpected end of the rule at char {position}, must be: {must}", position, text)
    if rest[0] == '"' and re.match(r'"(\\.|[^"\\])*"', rest) is None:
        return RuleError(f"The quotation that begins at char {position} does not end", position, text)
    found = re.match(r'"(\\.|[^"\\])*"|[^\s(),"]+|.', rest, re.DOTALL)
    token = found.group() if found else rest[0]
    return RuleError(f"Unsupported token '{token[:60]}' at char {position}, must be: {must or 'the end of the rule'}", position, text)


_ARN = re.compile(r"arn:[^:]+:cloudwatch:(?P<region>[^:]*):(?P<account>[^:]*):alarm:(?P<name>.+)\Z", re.DOTALL)


def alarm_name(reference: str) -> str:
    """The alarm's name in a name or ARN."""
    match = _ARN.match(reference)
    return match["name"] if match else reference


def foreign(reference: str, region: str | None, account: str | None) -> str | None:
    """AWS's message where an ARN points to another Region or account; None where it does not."""
    match = _ARN.match(reference)
    if match is None:
        return None
    if region and match["region"] != region:
        return f"Wrong ARN region, it was {match['region']} but {region} was expected instead"
    if account and match["account"] != account:
        return "A composite alarm cannot have a child relation with alarms from another AWS account"
    return None


def deployment_order(composites: Mapping[str, Iterable[str]]) -> tuple[list[str], list[tuple[str, ...]]]:
    """The composites' names so that each comes after those it names, and the cycles among them (whose members are left out).

    ``composites`` maps a composite's name to the names of its children and suppressor.
    """
    order: list[str] = []
    cycles: list[tuple[str, ...]] = []
    waiting = {name: {child for child in children if child in composites} for name, children in composites.items()}
    while waiting:
        ready = [name for name, children in waiting.items() if not children]
        if not ready:
            break
        order.extend(ready)
        for name in ready:
            del waiting[name]
        for children in waiting.values():
            children.difference_update(ready)
    while waiting:
        path = [next(iter(waiting))]
        while (step := next(iter(waiting[path[-1]]))) not in path:
            path.append(step)
        cycle = path[path.index(step) :]
        cycles.append(tuple(cycle))
        gone = set(cycle)
        # what only leads into the cycle is not part of it, but cannot be deployed either
        waiting = {name: children - gone for name, children in waiting.items() if name not in gone}
        while ready := [name for name, children in waiting.items() if not children]:
            for name in ready:
                del waiting[name]
            waiting = {name: children - set(ready) for name, children in waiting.items()}
    return order, cycles


def check_references(rule: Rule, region: str | None, account: str | None) -> list[Problem]:
    """Problems with ARNs of other Regions or accounts."""
    messages = dict.fromkeys(message for child in rule.children if (message := foreign(child, region, account)))
    return [Problem("AlarmRule", message, "name only alarms of the composite's own Region and account") for message in messages]
