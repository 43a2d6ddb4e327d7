"""Template bodies, JSON or YAML, as plain data: the short forms of the intrinsic functions become their long forms.

Reference: https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/template-formats.html
"""

from __future__ import annotations

import json
from typing import Any

import yaml

from lab.aws.services.cloudformation.errors import invalid

_SHORT = (
    "And",
    "Base64",
    "Cidr",
    "Equals",
    "FindInMap",
    "GetAZs",
    "If",
    "ImportValue",
    "Join",
    "Length",
    "Not",
    "Or",
    "Select",
    "Split",
    "Sub",
    "ToJsonString",
    "Transform",
)


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as CloudFormation reads it: dates stay text, keys must be unique, tags are functions."""


def _mapping(loader: _Loader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    seen: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise invalid(f"Template format error: YAML not well-formed. (line {key_node.start_mark.line + 1}: duplicate key {key})")
        seen[key] = loader.construct_object(value_node, deep=deep)
    return seen


def _construct(loader: _Loader, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return loader.construct_scalar(node)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    assert isinstance(node, yaml.MappingNode)
    return _mapping(loader, node, deep=True)


def _map(loader: Any, node: Any) -> Any:
    return _mapping(loader, node, deep=True)


def _function(name: str) -> Any:
    return lambda loader, node: {name: _construct(loader, node)}


def _get_att(loader: _Loader, node: yaml.Node) -> Any:
    value = _construct(loader, node)
    return {"Fn::GetAtt": value.split(".", 1) if isinstance(value, str) else value}


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_constructor("tag:yaml.org,2002:map", _map)
_Loader.add_constructor("!Ref", _function("Ref"))
_Loader.add_constructor("!Condition", _function("Condition"))
_Loader.add_constructor("!GetAtt", _get_att)
for _name in _SHORT:
    _Loader.add_constructor(f"!{_name}", _function(f"Fn::{_name}"))


def parse(body: str) -> dict[str, Any]:
    """The template as a mapping. Raises `AwsError` where it is neither JSON nor YAML."""
    try:
        data = json.loads(body) if body.lstrip().startswith("{") else yaml.load(body, _Loader)
    except json.JSONDecodeError as error:
        raise invalid(f"Template format error: JSON not well-formed. (line {error.lineno}, column {error.colno})") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise invalid(f"Template format error: YAML not well-formed.{where}") from None
    except yaml.YAMLError:
        raise invalid("Template format error: YAML not well-formed.") from None
    if not isinstance(data, dict):
        raise invalid("Template format error: unsupported structure.")
    result: dict[str, Any] = _long_get_att(data)
    return result


def _long_get_att(node: Any) -> Any:
    """``Fn::GetAtt`` with a dotted string (as YAML allows in its long form too) becomes the list."""
    if isinstance(node, dict):
        if set(node) == {"Fn::GetAtt"} and isinstance(node["Fn::GetAtt"], str):
            return {"Fn::GetAtt": node["Fn::GetAtt"].split(".", 1)}
        return {key: _long_get_att(value) for key, value in node.items()}
    return [_long_get_att(item) for item in node] if isinstance(node, list) else node
