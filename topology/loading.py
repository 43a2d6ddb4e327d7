"""From a file to a `Topology`, or to every problem that stands in the way."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from topology.document import Document, KeyPath, dotted, parse, read
from topology.forms import NAME_FORM, REGION_FORM, URL_FORM
from topology.model import SERVICE_NAMES, Topology
from topology.naming import excess
from topology.problems import Problem, UnusableInput

EXAMPLE = "topology.yaml in the repository shows one"
PARTITION = "aws"
"""The one that ARNs are written for; China, GovCloud and the isolated ones are others."""


def load(path: Path | str) -> Topology:
    """The topology in the file ``path``. Raises `UnusableInput` with all problems at once, each with file, line, key and mend."""
    return _build(read(Path(path)))


def loads(text: str, file: str = "topology.yaml") -> Topology:
    """The topology in ``text``; ``file`` is only for messages. Raises as `load`."""
    return _build(parse(text, file))


def _build(document: Document) -> Topology:
    problems = list(document.problems)
    topology = None
    try:
        topology = Topology.model_validate(document.value, context={"folder": Path(document.file).parent})
    except ValidationError as error:
        problems += [_from_pydantic(detail, document) for detail in error.errors()]
    problems += _references(document)
    if problems or topology is None:
        unique = {(problem.key, problem.what): problem for problem in problems}
        raise UnusableInput(sorted(unique.values(), key=lambda problem: (problem.line or 0, problem.key)))
    return topology


MENDS: dict[str, str] = {
    "missing": f"add it; {EXAMPLE}",
    "extra_forbidden": "remove it or correct its spelling",
    "too_short": "add what is missing; two Regions are the least that can fail over",
    "model_type": f"make it a mapping of keys to values; {EXAMPLE}",
    "dict_type": f"make it a mapping of names to values; {EXAMPLE}",
    "tuple_type": "make it a list: one '- item' a line",
    "string_type": "make it text; put numbers that are names (an account id) in quotes",
    "less_than": "use a smaller number; an objective of 100 % leaves no error budget, so no burn rate exists",
    "schedule": "write rate(1 minute), rate(2 minutes) to rate(60 minutes), rate(1 hour), or cron(minute hour day month weekday year) "
    "with ? for the day or the weekday",
    "placeholder": "write {region} where the Region is meant, and other braces twice: {{ and }}",
    "authority": "give the path of the authority's certificate, ASCII PEM, from the folder of this file",
    "address": "give an absolute address that starts with http:// or https://",
}


def _from_pydantic(detail: Any, document: Document) -> Problem:
    """One of pydantic's errors in our words."""
    path: KeyPath = tuple(part for part in detail["loc"] if part != "[key]")
    kind = detail["type"]
    last = str(path[-1]) if path else ""
    what = {
        "missing": f"{last!r} is missing",
        "extra_forbidden": f"{last!r} is not known here{_similar(path)}",
        "model_type": f"a mapping is expected, not {_kind(detail['input'])}",
        "dict_type": f"a mapping is expected, not {_kind(detail['input'])}",
        "tuple_type": f"a list is expected, not {_kind(detail['input'])}",
        "string_pattern_mismatch": f"{detail['input']!r} does not have the form {detail.get('ctx', {}).get('pattern', '')}",
    }.get(kind, f"{detail['msg'][0].lower()}{detail['msg'][1:]} (it is {detail['input']!r:.80})")
    mend = MENDS.get(kind, "correct the value")
    if kind == "string_pattern_mismatch":
        mend = _mend_for_form(last, detail.get("ctx", {}).get("pattern", ""))
    return Problem(what, mend, document.file, dotted(path), document.line(path))


def _mend_for_form(last: str, pattern: str) -> str:
    if pattern == URL_FORM:
        return MENDS["address"]
    if last == "account":
        return 'give the twelve digits of the AWS account in quotes: "123456789012"'
    if pattern not in (NAME_FORM, REGION_FORM):
        return "write it in that form; names of AWS as AWS shows them"
    return "correct the spelling; names are lower-case letters, digits and hyphens"


def _kind(value: object) -> str:
    if value is None:
        return "an empty value"
    return {list: "a list", dict: "a mapping", str: "text", bool: "a yes/no value", int: "a number", float: "a number"}.get(
        type(value), type(value).__name__
    )


def _similar(path: KeyPath) -> str:
    """A suggestion for a misspelt key, from the names that the model knows."""
    known = {name for model in _models() for name in model}
    near = difflib.get_close_matches(str(path[-1]), known, n=1)
    return f"; is {near[0]!r} meant?" if near else ""


@cache
def _models() -> tuple[tuple[str, ...], ...]:
    import topology.model as module

    return tuple(tuple(item.model_fields) for item in vars(module).values() if isinstance(item, type) and issubclass(item, module.Model))


@cache
def aws_regions() -> dict[str, str]:
    """Every Region that botocore's endpoint data knows, with its partition."""
    import botocore.session

    session = botocore.session.get_session()
    return {
        region: partition
        for partition in session.get_available_partitions()
        for region in session.get_available_regions("cloudwatch", partition)
    }


@cache
def aws_services() -> frozenset[str]:
    """Every name by which a service may be called in 'endpoints'."""
    import botocore.session

    return frozenset(botocore.session.get_session().get_available_services()).union(*SERVICE_NAMES)


REGION = re.compile(REGION_FORM)


def _references(document: Document) -> Iterator[Problem]:
    """What the model alone cannot see: names that refer to nothing, and things that are missing for a Region."""
    value: dict[str, Any] = document.value
    regions = value.get("regions")
    if not isinstance(regions, dict):
        return
    vantages = _mapping(value.get("vantages"))

    def problem(path: KeyPath, what: str, mend: str) -> Problem:
        return Problem(what, mend, document.file, dotted(path), document.line(path))

    for section, names in (("regions", regions), ("vantages", vantages)):
        for name in names:
            if not isinstance(name, str) or (REGION.match(name) and name not in aws_regions()):
                near = difflib.get_close_matches(str(name), aws_regions(), n=1)
                yield problem((section, str(name)), f"AWS has no Region {name!r}", f"use {near[0]!r}" if near else "use a Region's code")
            elif aws_regions().get(name, PARTITION) != PARTITION:
                what = f"{name} belongs to the partition {aws_regions()[name]}; what is rendered holds ARNs of the partition {PARTITION}"
                yield problem((section, name), what, f"use Regions of the partition {PARTITION}; others cannot be deployed to")
    yield from _per_region(value, regions, vantages, problem)
    yield from _unique_names(value, problem)
    yield from _failover_targets(value, problem)
    yield from _services(value, problem)
    yield from _lengths(value, [name for name in (*regions, *vantages) if name in aws_regions()], problem)


def _per_region(value: dict[str, Any], regions: dict[str, Any], vantages: dict[str, Any], problem: Any) -> Iterator[Problem]:
    """Maps keyed by Region: no Region that is not there, and none of the workload's missing where all are needed."""
    for path, table in _complete_tables(value):
        for name in table:
            if name not in regions:
                yield problem((*path, name), f"the Region {name!r} is not one of this workload's", _known(regions))
        for name in regions:
            if name not in table:
                yield problem(path, f"the entry for {name} is missing", f"add a line for {name}")
    watched = {**regions, **vantages}
    endpoints, resolvers = _mapping(value.get("endpoints")), _mapping(_mapping(value.get("probe")).get("resolvers"))
    for path, name in [*((("endpoints",), name) for name in endpoints), *((("probe", "resolvers"), name) for name in resolvers)]:
        if name not in watched:
            yield problem((*path, name), f"the Region {name!r} is neither one of this workload's nor a vantage", _known(watched))
    for name in watched if endpoints else ():
        if name not in endpoints:
            what = f"the endpoints for {name} are missing while other Regions have theirs"
            yield problem(("endpoints",), what, f"add {name}, or remove 'endpoints' to use AWS's own")


def _complete_tables(value: dict[str, Any]) -> Iterator[tuple[KeyPath, dict[str, Any]]]:
    """The mappings that need an entry for every Region of the workload."""
    routing = _mapping(value.get("routing"))
    candidates: list[tuple[KeyPath, Any]] = [(("routing", key), routing.get(key)) for key in ("controls", "health_checks")]
    for section, key in (("databases", "clusters"), ("caches", "clusters"), ("brokers", "brokers")):
        candidates += [((section, name, key), _mapping(part).get(key)) for name, part in _mapping(value.get(section)).items()]
    return ((path, table) for path, table in candidates if isinstance(table, dict))


def _mapping(value: Any) -> dict[str, Any]:
    """``value`` where it is a mapping, otherwise an empty one: the model has reported the rest."""
    return value if isinstance(value, dict) else {}


def _items(value: Any) -> list[Any]:
    """``value`` where it is a list, otherwise an empty one."""
    return value if isinstance(value, list) else []


def _known(names: dict[str, Any]) -> str:
    return "use one of " + ", ".join(str(name) for name in names)


def _unique_names(value: dict[str, Any], problem: Any) -> Iterator[Problem]:
    for section in ("pages", "objectives"):
        seen: dict[str, int] = {}
        for index, item in enumerate(_items(value.get(section))):
            name = item.get("name") if isinstance(item, dict) else None
            if not isinstance(name, str):
                continue
            if name in seen:
                yield problem((section, index, "name"), f"the name {name!r} is taken by {section}[{seen[name]}]", "give each its own name")
            seen.setdefault(name, index)
    for name, broker in _mapping(value.get("brokers")).items():
        queues = [queue for queue in _items(_mapping(broker).get("queues")) if isinstance(queue, str)]
        for queue in sorted({queue for queue in queues if queues.count(queue) > 1}):
            yield problem(("brokers", name, "queues"), f"the queue {queue!r} stands twice", "name each queue once")
    for index, objective in enumerate(_items(value.get("objectives"))):
        if isinstance(objective, dict) and objective.get("kind") == "latency" and objective.get("latency_ms") is None:
            yield problem(("objectives", index), "a latency objective needs 'latency_ms'", "add latency_ms: the time that still is good")
    for index, page in enumerate(_items(value.get("pages"))):
        body = page.get("body") if isinstance(page, dict) else None
        if isinstance(body, str):
            try:
                re.compile(body)
            except re.error as error:
                yield problem(("pages", index, "body"), f"this is not a regular expression: {error}", "escape special characters with \\")


def _failover_targets(value: dict[str, Any], problem: Any) -> Iterator[Problem]:
    runbooks, databases = _mapping(value.get("runbooks")), _mapping(value.get("databases"))
    for section in ("failover", "rebuild"):
        for name in _mapping(runbooks.get(section)):
            if name not in databases:
                yield problem(
                    ("runbooks", section, name), f"{name!r} is none of the databases", f"use one of {', '.join(databases) or '(none)'}"
                )


def _services(value: dict[str, Any], problem: Any) -> Iterator[Problem]:
    """Private endpoints of services that AWS does not have, and two for one service."""
    for region, services in _mapping(value.get("endpoints")).items():
        named = _mapping(services)
        for name in named:
            if name != "*" and name not in aws_services():
                near = difflib.get_close_matches(str(name), aws_services(), n=1)
                mend = f"use {near[0]!r}" if near else "use the name that boto3 has for the service, or '*' for all"
                yield problem(("endpoints", str(region), str(name)), f"AWS has no service {name!r}", mend)
        for one, other in SERVICE_NAMES:
            if one in named and other in named and named[one] != named[other]:
                what = f"{one!r} and {other!r} are one service, and have two addresses"
                yield problem(("endpoints", str(region), other), what, "keep one of the two")


def _lengths(value: dict[str, Any], regions: list[str], problem: Any) -> Iterator[Problem]:
    """Buckets and roles whose names would be longer than AWS takes."""
    workload, account = value.get("workload"), value.get("account")
    if not (regions and isinstance(workload, str) and isinstance(account, str) and re.match(NAME_FORM, workload)):
        return
    over, region = max((excess(workload, account, region), region) for region in regions)
    if over > 0:
        what = f"with {workload!r} in them, names of a bucket or a role in {region} are {over} characters longer than AWS takes"
        yield problem(("workload",), what, f"shorten it to {len(workload) - over} characters")
