"""From the bytes of a request to values that `reading` understands, one function a protocol."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import cbor2

from lab.aws.service import AwsError

if TYPE_CHECKING:
    from lab.aws.protocol.messages import Request

_NAMESPACE = re.compile(r"^\{[^}]*\}")


def from_json(body: bytes) -> dict[str, Any]:
    """A JSON object; an empty body is an empty object."""
    if not body.strip():
        return {}
    try:
        value = json.loads(body)
    except ValueError as error:
        raise AwsError("SerializationException", f"The request body is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise AwsError("SerializationException", "The request body must be a JSON object")
    return value


def from_cbor(body: bytes) -> dict[str, Any]:
    """A CBOR map; an empty body is an empty map."""
    if not body:
        return {}
    try:
        value = cbor2.loads(body)
    except (cbor2.CBORDecodeError, ValueError, OverflowError) as error:
        raise AwsError("SerializationException", f"The request body is not valid CBOR: {error}") from error
    if not isinstance(value, dict):
        raise AwsError("SerializationException", "The request body must be a CBOR map")
    return value


class QueryReader:
    """The query protocol: ``Member.1.Key=value`` pairs, folded along the shape."""

    def __init__(self, form: dict[str, str], ec2: bool = False) -> None:
        self._form = form
        self._ec2 = ec2
        # Every prefix that has something below it, so that walking a large model costs only what was sent.
        self._prefixes: set[str] = set()
        for key in form:
            parts = key.split(".")
            self._prefixes.update(".".join(parts[:count]) for count in range(1, len(parts) + 1))

    def read(self, shape: Any) -> dict[str, Any]:
        """The request's parameters by member name; scalars are still text."""
        return self._structure(shape, "")

    def _value(self, shape: Any, prefix: str) -> Any:
        if prefix not in self._prefixes:
            return None
        if shape.type_name == "structure":
            return self._structure(shape, prefix)
        if shape.type_name == "list":
            return self._list(shape, prefix)
        if shape.type_name == "map":
            return self._map(shape, prefix)
        return self._form.get(prefix)

    def _structure(self, shape: Any, prefix: str) -> dict[str, Any]:
        out = {}
        for name, member in shape.members.items():
            key = self._key(member, name)
            value = self._value(member, f"{prefix}.{key}" if prefix else key)
            if value is not None:
                out[name] = value
        return out

    def _key(self, shape: Any, name: str) -> str:
        if self._ec2:
            if "queryName" in shape.serialization:
                return str(shape.serialization["queryName"])
            wire = str(shape.serialization.get("name", name))
            return wire[:1].upper() + wire[1:]
        if shape.type_name == "list" and shape.serialization.get("flattened"):
            return str(shape.member.serialization.get("name") or shape.serialization.get("name", name))
        return str(shape.serialization.get("name", name))

    def _list(self, shape: Any, prefix: str) -> list[Any]:
        if self._ec2 or shape.serialization.get("flattened"):
            base = prefix
        else:
            base = f"{prefix}.{shape.member.serialization.get('name', 'member')}"
        out: list[Any] = []
        while (value := self._value(shape.member, f"{base}.{len(out) + 1}")) is not None:
            out.append(value)
        return out

    def _map(self, shape: Any, prefix: str) -> dict[str, Any]:
        base = prefix if shape.serialization.get("flattened") else f"{prefix}.entry"
        key_name, value_name = shape.key.serialization.get("name", "key"), shape.value.serialization.get("name", "value")
        out: dict[str, Any] = {}
        index = 1
        while (key := self._form.get(f"{base}.{index}.{key_name}")) is not None:
            out[key] = self._value(shape.value, f"{base}.{index}.{value_name}")
            index += 1
        return out


def from_xml(body: bytes, shape: Any) -> dict[str, Any]:
    """A REST-XML body by member name; scalars are still text."""
    if not body.strip():
        return {}
    try:
        root = ET.fromstring(body)
    except ET.ParseError as error:
        raise AwsError("MalformedXML", f"The XML you provided was not well-formed: {error}") from error
    return _xml_structure(shape, root)


def _xml_value(shape: Any, nodes: list[ET.Element]) -> Any:
    if shape.type_name == "structure":
        return _xml_structure(shape, nodes[0])
    if shape.type_name == "list":
        items = nodes if shape.serialization.get("flattened") else list(nodes[0])
        return [_xml_value(shape.member, [item]) for item in items]
    if shape.type_name == "map":
        entries = nodes if shape.serialization.get("flattened") else list(nodes[0])
        key_name, value_name = shape.key.serialization.get("name", "key"), shape.value.serialization.get("name", "value")
        out = {}
        for entry in entries:
            children = _by_tag(entry)
            out[children[key_name][0].text or ""] = _xml_value(shape.value, children[value_name])
        return out
    return nodes[0].text or ""


def _xml_structure(shape: Any, node: ET.Element) -> dict[str, Any]:
    children = _by_tag(node)
    out = {}
    for name, member in shape.members.items():
        if "location" in member.serialization:
            continue
        key = member.serialization.get("name", name)
        if member.type_name == "list" and member.serialization.get("flattened"):
            key = member.member.serialization.get("name") or key
        if member.serialization.get("xmlAttribute"):
            value = next((text for attribute, text in node.attrib.items() if _NAMESPACE.sub("", attribute) == key.split(":")[-1]), None)
            if value is not None:
                out[name] = value
        elif key in children:
            out[name] = _xml_value(member, children[key])
    return out


def _by_tag(node: ET.Element) -> dict[str, list[ET.Element]]:
    children: dict[str, list[ET.Element]] = defaultdict(list)
    for child in node:
        children[_NAMESPACE.sub("", child.tag)].append(child)
    return children


def bound_values(shape: Any, request: Request, labels: dict[str, str]) -> dict[str, Any]:
    """Members of a REST request that travel in the path, the query string or headers, by member name."""
    out: dict[str, Any] = {}
    for name, member in shape.members.items():
        location = member.serialization.get("location")
        key = member.serialization.get("name", name)
        if location == "uri":
            if key in labels:
                out[name] = labels[key]
        elif location == "header":
            if (value := request.headers.get(key.lower())) is not None:
                out[name] = [part.strip() for part in value.split(",")] if member.type_name == "list" else value
        elif location == "headers":
            prefix = key.lower()
            out[name] = {header[len(prefix) :]: value for header, value in request.headers.items() if header.startswith(prefix)}
        elif location == "querystring":
            values = [value for pair, value in request.query_pairs if pair == key]
            if member.type_name == "list":
                if values:
                    out[name] = values
            elif member.type_name == "map":
                grouped: dict[str, Any] = defaultdict(list)
                for pair, value in request.query_pairs:
                    grouped[pair].append(value)
                many = member.value.type_name == "list"
                out[name] = {pair: found if many else found[0] for pair, found in grouped.items()}
            elif values:
                out[name] = values[0]
    return out
