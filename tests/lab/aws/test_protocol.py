"""Every operation of the services of our own, in its protocol: what botocore writes we read, and what we write botocore reads."""

from __future__ import annotations

import datetime as dt
from typing import Any
from urllib.parse import urlsplit

import botocore.session
import pytest
from botocore import parsers, serialize
from botocore.awsrequest import create_request_object, prepare_request_dict
from botocore.compat import HTTPHeaders

from lab.aws.protocol import Call, Catalogue, Request
from lab.aws.protocol.reading import epoch_seconds
from lab.aws.registry import SERVICES
from lab.aws.service import AwsError

CATALOGUE = Catalogue()
SESSION = botocore.session.get_session()
MOMENT = dt.datetime(2026, 11, 23, 1, 2, 3, tzinfo=dt.UTC)
NAMES = sorted({*SERVICES, "sqs", "elbv2", "ec2", "iam"})


def sample(shape: Any, output: bool, depth: int = 0, seen: tuple[str, ...] = ()) -> Any:
    """A value with every member that does not contain itself."""
    kind = shape.type_name
    if kind == "structure":
        if getattr(shape, "is_document_type", False):
            return {"free": ["form", 1]}
        if getattr(shape, "is_tagged_union", False):
            name, member = next(iter(shape.members.items()))
            return {name: sample(member, output, depth + 1, (*seen, shape.name))}
        return {
            name: sample(member, output, depth + 1, (*seen, shape.name))
            for name, member in shape.members.items()
            if member.name not in seen
            and not member.serialization.get("eventstream")
            and member.serialization.get("location") != "statusCode"
        }
    if kind == "list":
        if shape.member.name in seen:
            return []
        return [sample(shape.member, output, depth + 1, (*seen, shape.name)) for _ in range(2)]
    if kind == "map":
        key = shape.key.enum[0] if getattr(shape.key, "enum", None) else "key"
        return {key: sample(shape.value, output, depth + 1, (*seen, shape.name))} if shape.value.name not in seen else {}
    if kind == "string":
        return shape.enum[0] if shape.enum else 'a <b> & "c" ü'.replace(" ", "") if depth > 1 else "plain"
    if kind == "blob":
        return b"\x00bytes\xff"
    if kind == "boolean":
        return True
    if kind == "timestamp":
        return MOMENT
    if kind in {"float", "double"}:
        return 1.5
    return 7


def normal(value: Any) -> Any:
    """Values so that both sides compare: times as epoch seconds, no empty parts, which protocols may drop."""
    if isinstance(value, dict):
        return {key: item for key, each in value.items() if (item := normal(each)) not in ({}, [], None) and key != "ResponseMetadata"}
    if isinstance(value, list | tuple):
        return [normal(each) for each in value]
    if isinstance(value, dt.datetime):
        return epoch_seconds(value)
    return value


def operations(service: str) -> list[Any]:
    model = SESSION.get_service_model(service)
    found = [model.operation_model(name) for name in model.operation_names]
    return [each for each in found if not each.has_event_stream_input and not each.has_event_stream_output]


def request_of(operation: Any, params: dict[str, Any], protocol: str) -> Request:
    """What botocore sends for a call."""
    described = serialize.create_serializer(protocol, include_validation=False).serialize_to_request(params, operation)
    prepare_request_dict(described, endpoint_url="http://127.0.0.1", context={})
    prepared = create_request_object(described).prepare()
    parts = urlsplit(prepared.url)
    headers = {name.lower(): value.decode() if isinstance(value, bytes) else str(value) for name, value in prepared.headers.items()}
    body = prepared.body or b""
    body = body.read() if hasattr(body, "read") else body.encode() if isinstance(body, str) else bytes(body)
    return Request(prepared.method, parts.path, parts.query, headers, body)


@pytest.mark.parametrize("service", NAMES)
def test_requests_are_read_as_botocore_writes_them(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Operation and parameters come back, whatever the protocol; constraints are not at issue here."""
    monkeypatch.setattr("lab.aws.protocol.routing.checked", lambda _service, readers, shape, raw: readers.read(shape, raw)[0])
    for operation in operations(service)[:: 8 if service == "ec2" else 1]:
        params = sample(operation.input_shape, output=False) if operation.input_shape else {}
        request = request_of(operation, params, operation.service_model.metadata["protocol"])
        call = CATALOGUE.route(service, request)
        assert call.operation.name == operation.name
        assert normal(call.parameters(request)) == normal(params), operation.name


@pytest.mark.parametrize("service", NAMES)
def test_botocore_reads_our_results(service: str) -> None:
    """Every member of every result arrives as it was."""
    for operation in operations(service)[:: 8 if service == "ec2" else 1]:
        shape = operation.output_shape
        if shape is None or operation.has_streaming_output:
            continue
        value = sample(shape, output=True)
        protocol = operation.service_model.metadata["protocol"]
        model = CATALOGUE.model(service)
        response = Call(model, model.operations[operation.name], protocol, {}).result(value, "request-1")
        headers = HTTPHeaders()
        for name, content in response.headers.items():
            headers[name] = content
        parsed = parsers.create_parser(protocol).parse({"headers": headers, "body": response.body, "status_code": response.status}, shape)
        for name, member in shape.members.items():
            if member.serialization.get("location") == "statusCode":
                assert parsed.pop(name) == response.status
        assert normal(parsed) == normal(value), operation.name


@pytest.mark.parametrize("service", NAMES)
def test_botocore_reads_our_errors(service: str) -> None:
    """Code, message and status of an error of the model and of one that no model knows."""
    model = CATALOGUE.model(service)
    operation = next(iter(model.operations.values()))
    protocol = model.protocol
    known = next((shape.metadata.get("error", {}).get("code", shape.name) for shape in model.model.error_shapes), "ThrottlingException")
    for code in (known, "SomethingElse"):
        response = Call(model, operation, protocol, {}).error(AwsError(code, 'a <b> & "c"', 418), "request-1")
        headers = HTTPHeaders()
        for name, content in response.headers.items():
            headers[name] = content
        parsed = parsers.create_parser(protocol).parse(
            {"headers": headers, "body": response.body, "status_code": response.status}, operation.model.output_shape
        )
        assert (parsed["Error"]["Code"], parsed["Error"]["Message"]) == (code, 'a <b> & "c"')
        assert response.status == (418 if code == "SomethingElse" else response.status)
