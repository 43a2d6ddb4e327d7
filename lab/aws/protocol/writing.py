"""From an operation's result to the bytes of a response, one writer a protocol, led by the shapes of botocore's model."""

from __future__ import annotations

import base64
import datetime as dt
import json
from email.utils import formatdate
from typing import Any
from xml.sax.saxutils import escape

import cbor2

from lab.aws.protocol.reading import epoch_seconds

_XML_QUOTES = {'"': "&quot;", "\r": "&#xD;"}


def tree(shape: Any, value: Any, cbor: bool = False, timestamps: str = "unixtimestamp") -> Any:
    """``value`` as plain JSON or CBOR values, keyed by the names on the wire. TypeError or ValueError on a wrong type."""
    kind = shape.type_name
    if kind == "structure":
        if shape.is_document_type:
            return value
        return {
            member.serialization.get("name", name): tree(member, value[name], cbor, timestamps)
            for name, member in shape.members.items()
            if value.get(name) is not None and "location" not in member.serialization
        }
    if kind == "list":
        return [tree(shape.member, item, cbor, timestamps) for item in value]
    if kind == "map":
        return {str(key): tree(shape.value, item, cbor, timestamps) for key, item in value.items() if item is not None}
    if kind == "string":
        return value if isinstance(value, str) else str(value)
    if kind in {"float", "double"}:
        return float(value)
    if kind in {"integer", "long", "short", "byte"}:
        return int(value)
    if kind == "timestamp":
        return _cbor_timestamp(value) if cbor else timestamp(value, shape.serialization.get("timestampFormat", timestamps))
    if kind == "blob":
        data = value.encode() if isinstance(value, str) else bytes(value)
        return data if cbor else base64.b64encode(data).decode()
    return value


def to_json(value: Any) -> bytes:
    """Compact JSON; floats that JSON cannot say become the strings AWS uses."""
    return json.dumps(value, separators=(",", ":")).encode()


def to_cbor(value: Any) -> bytes:
    """CBOR as Smithy's RPC v2 wants it."""
    return cbor2.dumps(value)


def _cbor_timestamp(value: Any) -> Any:
    return cbor2.CBORTag(1, epoch_seconds(value))


def timestamp(value: Any, form: str) -> Any:
    """A timestamp in one of the forms of the models: ``unixtimestamp``, ``iso8601`` or ``rfc822``."""
    seconds = epoch_seconds(value)
    if form.lower() == "unixtimestamp":
        whole = round(seconds, 3)
        return int(whole) if whole == int(whole) else whole
    if form.lower() == "rfc822":
        return formatdate(seconds, usegmt=True)
    text = dt.datetime.fromtimestamp(round(seconds, 3), dt.UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z").replace(".000Z", "Z")


def xml(shape: Any, value: Any, name: str, ec2: bool = False) -> str:
    """``value`` as the XML element ``name``."""
    return f"<{name}{_namespace(shape)}{_attributes(shape, value)}>{xml_content(shape, value, ec2)}</{name}>"


def xml_content(shape: Any, value: Any, ec2: bool = False) -> str:
    """What stands between the tags of the element for ``value``."""
    kind = shape.type_name
    if kind == "structure":
        return "".join(
            _xml_member(member, value[name], member.serialization.get("name", name), ec2)
            for name, member in shape.members.items()
            if value.get(name) is not None and "location" not in member.serialization and not member.serialization.get("xmlAttribute")
        )
    if kind == "list":
        item = shape.member.serialization.get("name", "item" if ec2 else "member")
        return "".join(xml(shape.member, each, item, ec2) for each in value)
    if kind == "map":
        return "".join(f"<entry>{_map_entry(shape, key, item, ec2)}</entry>" for key, item in value.items() if item is not None)
    return escape(scalar(shape, value), _XML_QUOTES)


def scalar(shape: Any, value: Any, timestamps: str = "iso8601") -> str:
    """A scalar as text, for XML and headers."""
    kind = shape.type_name
    if kind == "boolean":
        return "true" if value else "false"
    if kind == "timestamp":
        return str(timestamp(value, shape.serialization.get("timestampFormat", timestamps)))
    if kind == "blob":
        return base64.b64encode(value.encode() if isinstance(value, str) else bytes(value)).decode()
    if kind in {"integer", "long", "short", "byte"}:
        return str(int(value))
    return str(value)


def _xml_member(shape: Any, value: Any, name: str, ec2: bool) -> str:
    if shape.serialization.get("flattened"):
        if shape.type_name == "list":
            item = shape.member.serialization.get("name") or name
            return "".join(xml(shape.member, each, item, ec2) for each in value)
        return "".join(f"<{name}>{_map_entry(shape, key, item, ec2)}</{name}>" for key, item in value.items() if item is not None)
    return xml(shape, value, name, ec2)


def _map_entry(shape: Any, key: Any, value: Any, ec2: bool) -> str:
    key_name, value_name = shape.key.serialization.get("name", "key"), shape.value.serialization.get("name", "value")
    return f"<{key_name}>{escape(str(key))}</{key_name}>{xml(shape.value, value, value_name, ec2)}"


def _namespace(shape: Any) -> str:
    space = shape.serialization.get("xmlNamespace") or {}
    if not isinstance(space, dict) or "uri" not in space:
        return ""
    prefix = f":{space['prefix']}" if space.get("prefix") else ""
    return f' xmlns{prefix}="{escape(space["uri"])}"'


def _attributes(shape: Any, value: Any) -> str:
    if shape.type_name != "structure":
        return ""
    return "".join(
        f' {member.serialization.get("name", name)}="{escape(str(value[name]), _XML_QUOTES)}"'
        for name, member in shape.members.items()
        if member.serialization.get("xmlAttribute") and value.get(name) is not None
    )
