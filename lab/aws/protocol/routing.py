"""Which operation a request means, and how to read and answer it in the protocol it speaks."""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote
from xml.sax.saxutils import escape

import botocore.session
from botocore import xform_name

from lab.aws.protocol import wire, writing
from lab.aws.protocol.messages import Request, Response
from lab.aws.protocol.reading import Readers
from lab.aws.service import AwsError

if TYPE_CHECKING:
    from collections.abc import Iterable

_LABEL = re.compile(r"\{([^}]+)\}")

# What a service calls a request that its model forbids; the others say ValidationException.
VALIDATION_CODES = {
    "cloudformation": "ValidationError",
    "cloudwatch": "ValidationError",
    "iam": "ValidationError",
    "logs": "InvalidParameterException",
    "rds": "InvalidParameterValue",
    "resourcegroupstaggingapi": "InvalidParameterException",
    "route53": "InvalidInput",
    "sns": "InvalidParameter",
    "sts": "ValidationError",
    "xray": "InvalidRequestException",
}


@dataclass(frozen=True)
class Operation:
    """One operation of a service: its botocore name and model, and its name in snake case."""

    service: str
    name: str
    snake: str
    model: Any


class ServiceModel:
    """One service's operations and how requests find them."""

    def __init__(self, name: str, model: Any) -> None:
        self.name = name
        self.model = model
        self.metadata: dict[str, Any] = model.metadata
        self.wire_readers = Readers(wire=True)
        self.plain_readers = Readers(wire=False)
        self.operations = {
            operation: Operation(name, operation, xform_name(operation), model.operation_model(operation))
            for operation in model.operation_names
        }
        self.by_snake = {operation.snake: operation for operation in self.operations.values()}
        self.errors = {shape.metadata.get("error", {}).get("code", shape.name): shape for shape in model.error_shapes}
        self.errors |= {shape.name: shape for shape in model.error_shapes}

    @property
    def protocol(self) -> str:
        """The protocol botocore speaks with the service."""
        return str(self.metadata["protocol"])

    @functools.cached_property
    def rest_routes(self) -> list[tuple[str, re.Pattern[str], dict[str, str], Operation]]:
        """(method, path pattern, required query parameters, operation), the most specific first."""
        routes = []
        for operation in self.operations.values():
            path, _, query = operation.model.http["requestUri"].partition("?")
            pattern, labels, literal = _path_pattern(path)
            required = dict(parse_qsl(query, keep_blank_values=True))
            routes.append(((-literal, labels, -len(required)), (operation.model.http["method"], pattern, required, operation)))
        return [route for _, route in sorted(routes, key=lambda pair: pair[0])]


def _path_pattern(path: str) -> tuple[re.Pattern[str], int, int]:
    """A Smithy path as a regular expression, with how many labels and how many literal characters it has."""
    out, position, labels = "", 0, 0
    path = path.rstrip("/") or "/"
    for match in _LABEL.finditer(path):
        out += re.escape(path[position : match.start()])
        # ARNs travel unencoded in the last label of some services, so a label at the end may hold slashes.
        greedy = match.group(1).endswith("+") or match.end() == len(path)
        out += f"(?P<l{labels}>{'.+' if greedy else '[^/]+'})"
        position, labels = match.end(), labels + 1
    literal = len(_LABEL.sub("", path))
    return re.compile(out + re.escape(path[position:]) + "/?"), labels, literal


class Catalogue:
    """Service models, loaded once each."""

    def __init__(self) -> None:
        self._session = botocore.session.get_session()
        self._models: dict[str, ServiceModel] = {}

    def model(self, service: str) -> ServiceModel:
        """The model of ``service`` (its botocore name)."""
        found = self._models.get(service)
        if found is None:
            found = self._models[service] = ServiceModel(service, self._session.get_service_model(service))
        return found

    def signing_names(self, services: Iterable[str]) -> dict[str, list[str]]:
        """Which of ``services`` a credential scope's service name may mean."""
        names: dict[str, list[str]] = {}
        for service in services:
            names.setdefault(self._session.get_service_model(service).signing_name, []).append(service)
        return names

    def choose(self, candidates: list[str], request: Request) -> str:
        """Which of several services with one signing name a request is for (DynamoDB or its streams, ELB or ELBv2)."""
        if len(candidates) == 1:
            return candidates[0]
        target = request.headers.get("x-amz-target", "").rpartition(".")[0]
        version = request.form.get("Version") if "form-urlencoded" in request.headers.get("content-type", "") else None
        for service in candidates:
            metadata = self.model(service).metadata
            if target and target == metadata.get("targetPrefix"):
                return service
            if version and version == metadata.get("apiVersion"):
                return service
        return candidates[0]

    def route(self, service: str, request: Request) -> Call:
        """The operation of ``service`` that ``request`` calls. Raises AwsError (UnknownOperationException or InvalidAction)."""
        model = self.model(service)
        protocol = _protocol(model, request)
        name = ""
        labels: dict[str, str] = {}
        if protocol == "smithy-rpc-v2-cbor":
            name = request.path.rpartition("/")[2]
        elif protocol == "json":
            name = request.headers.get("x-amz-target", "").rpartition(".")[2]
        elif protocol in {"query", "ec2"}:
            name = request.form.get("Action", "")
        else:
            return self._route_rest(model, protocol, request)
        operation = model.operations.get(name)
        if operation is None:
            raise AwsError(
                "InvalidAction" if protocol == "query" else "UnknownOperationException",
                f"The action {name or '(none)'} is not valid for {service}",
            )
        return Call(model, operation, protocol, labels)

    def _route_rest(self, model: ServiceModel, protocol: str, request: Request) -> Call:
        query = dict(request.query_pairs)
        for method, pattern, required, operation in model.rest_routes:
            if method != request.method or any(query.get(key) != value for key, value in required.items()):
                continue
            match = pattern.fullmatch(request.path)
            if match:
                names = [label.rstrip("+") for label in _LABEL.findall(operation.model.http["requestUri"].partition("?")[0])]
                return Call(model, operation, protocol, dict(zip(names, map(unquote, match.groups()), strict=True)))
        raise AwsError("UnknownOperationException", f"{request.method} {request.path} is no operation of {model.name}", 404)

    def error(self, service: str, request: Request, error: AwsError, request_id: str) -> Response:
        """``error`` as ``service`` would answer ``request`` even where no operation was found."""
        model = self.model(service)
        return _error_response(model, _protocol(model, request), error, request_id)


def _protocol(model: ServiceModel, request: Request) -> str:
    """The protocol a request speaks; botocore's choice for the service where the request does not tell."""
    if request.headers.get("smithy-protocol") == "rpc-v2-cbor":
        return "smithy-rpc-v2-cbor"
    if model.protocol.startswith("rest-"):
        return model.protocol
    if "x-amz-target" in request.headers:
        return "json"
    if model.protocol == "ec2":
        return "ec2"
    if "form-urlencoded" in request.headers.get("content-type", "") or (request.method == "GET" and "Action=" in request.query):
        return "query"
    return model.protocol


@dataclass(frozen=True)
class Call:
    """A request that was understood: an operation, in a protocol."""

    service: ServiceModel
    operation: Operation
    protocol: str
    labels: dict[str, str]

    def parameters(self, request: Request) -> dict[str, Any]:
        """The operation's parameters. Raises AwsError with the service's own validation code for all violations at once."""
        shape = self.operation.model.input_shape
        if shape is None:
            return {}
        readers = self.service.wire_readers
        if self.protocol == "json":
            raw = wire.from_json(request.content)
        elif self.protocol == "smithy-rpc-v2-cbor":
            raw = wire.from_cbor(request.content)
        elif self.protocol in {"query", "ec2"}:
            readers, raw = self.service.plain_readers, wire.QueryReader(request.form, self.protocol == "ec2").read(shape)
        else:
            readers, raw = self.service.plain_readers, self._rest_values(shape, request)
        return checked(self.service.name, readers, shape, raw)

    def _rest_values(self, shape: Any, request: Request) -> dict[str, Any]:
        """A REST request's values by member name."""
        bound = wire.bound_values(shape, request, self.labels)
        payload = shape.serialization.get("payload")
        if payload is not None:
            body = shape.members[payload]
            if body.type_name in {"blob", "string"}:
                content: Any = request.content if body.type_name == "blob" else request.content.decode("utf-8", "replace")
                return bound | ({payload: content} if request.content else {})
            if self.protocol == "rest-xml":
                return bound | ({payload: wire.from_xml(request.content, body)} if request.content.strip() else {})
            return bound | {payload: _by_member(body, wire.from_json(request.content))}
        if self.protocol == "rest-xml":
            return wire.from_xml(request.content, shape) | bound
        members: dict[str, Any] = _by_member(shape, wire.from_json(request.content))
        return members | bound

    def result(self, value: dict[str, Any] | None, request_id: str) -> Response:
        """The response for ``value``, an operation's result."""
        value = value or {}
        model = self.operation.model
        shape = model.output_shape
        status = int(model.http.get("responseCode", 200))
        headers = {"x-amzn-requestid": request_id}
        if self.protocol == "smithy-rpc-v2-cbor":
            content = writing.tree(shape, value, cbor=True) if shape else {}
            return Response(200, headers | {"content-type": "application/cbor", "smithy-protocol": "rpc-v2-cbor"}, writing.to_cbor(content))
        if self.protocol == "json":
            version = self.service.metadata.get("jsonVersion", "1.0")
            content = writing.tree(shape, value) if shape else {}
            return Response(200, headers | {"content-type": f"application/x-amz-json-{version}"}, writing.to_json(content))
        if self.protocol in {"query", "ec2"}:
            return Response(200, headers | {"content-type": "text/xml"}, self._query_result(shape, value, request_id).encode())
        return self._rest_result(shape, value, status, headers)

    def _query_result(self, shape: Any, value: dict[str, Any], request_id: str) -> str:
        name = self.operation.name
        space = f' xmlns="{self.service.metadata.get("xmlNamespace", "")}"'
        if self.protocol == "ec2":
            content = writing.xml_content(shape, value, ec2=True) if shape else ""
            return f"<{name}Response{space}><requestId>{request_id}</requestId>{content}</{name}Response>"
        result = ""
        if shape is not None:
            wrapper = shape.serialization.get("resultWrapper", f"{name}Result")
            result = f"<{wrapper}>{writing.xml_content(shape, value)}</{wrapper}>"
        return f"<{name}Response{space}>{result}<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{name}Response>"

    def _rest_result(self, shape: Any, value: dict[str, Any], status: int, headers: dict[str, str]) -> Response:
        if shape is None:
            return Response(status, headers)
        for name, member in shape.members.items():
            if value.get(name) is None:
                continue
            location, key = member.serialization.get("location"), member.serialization.get("name", name)
            if location == "statusCode":
                status = int(value[name])
            elif location == "header":
                headers[key.lower()] = writing.scalar(member, value[name], "rfc822")
            elif location == "headers":
                headers |= {f"{key}{suffix}".lower(): str(item) for suffix, item in value[name].items()}
        payload = shape.serialization.get("payload")
        if payload is not None and shape.members[payload].type_name in {"blob", "string"}:
            content = value.get(payload) or b""
            return Response(status, headers, content.encode() if isinstance(content, str) else bytes(content))
        if self.protocol == "rest-json":
            body = shape.members[payload] if payload else shape
            content = value.get(payload) or {} if payload else value
            return Response(status, headers | {"content-type": "application/json"}, writing.to_json(writing.tree(body, content)))
        space = (self.operation.model.output_shape.serialization.get("xmlNamespace") or {}).get("uri") or self.service.metadata.get(
            "xmlNamespace", ""
        )
        if payload:
            body, content, name = (
                shape.members[payload],
                value.get(payload) or {},
                shape.members[payload].serialization.get("name", payload),
            )
        else:
            body, content, name = shape, value, shape.serialization.get("resultWrapper", f"{self.operation.name}Response")
        if not any("location" not in member.serialization for member in body.members.values()):
            return Response(status, headers)
        text = f'<?xml version="1.0" encoding="UTF-8"?>\n<{name} xmlns="{space}">{writing.xml_content(body, content)}</{name}>'
        return Response(status, headers | {"content-type": "text/xml"}, text.encode())

    def error(self, error: AwsError, request_id: str) -> Response:
        """The response for ``error``."""
        return _error_response(self.service, self.protocol, error, request_id)


def checked(service: str, readers: Readers, shape: Any, raw: dict[str, Any]) -> dict[str, Any]:
    """``raw`` coerced along ``shape``. Raises AwsError where the model forbids it."""
    params, problems = readers.read(shape, raw)
    if problems:
        count = f"{len(problems)} validation error{'s' if len(problems) > 1 else ''} detected: "
        raise AwsError(VALIDATION_CODES.get(service, "ValidationException"), count + "; ".join(problems))
    return dict(params)


def _by_member(shape: Any, value: Any) -> Any:
    """A JSON value's structures re-keyed from names on the wire to member names."""
    if shape.type_name == "structure" and isinstance(value, dict) and not shape.is_document_type:
        out = {}
        for name, member in shape.members.items():
            if "location" in member.serialization:
                continue
            item = value.get(member.serialization.get("name", name))
            if item is not None:
                out[name] = _by_member(member, item)
        return out
    if shape.type_name == "list" and isinstance(value, list):
        return [_by_member(shape.member, item) for item in value]
    if shape.type_name == "map" and isinstance(value, dict):
        return {key: _by_member(shape.value, item) for key, item in value.items()}
    return value


def _error_response(service: ServiceModel, protocol: str, error: AwsError, request_id: str) -> Response:
    """An error in the protocol's form. The model gives the HTTP status and the members that carry more than a message."""
    shape = service.errors.get(error.code)
    status = error.status
    if shape is not None:
        status = int(shape.metadata.get("error", {}).get("httpStatusCode", status))
    headers = {"x-amzn-requestid": request_id}
    fields = dict(error.fields)
    sender = "Sender" if status < 500 else "Receiver"
    if protocol in {"query", "ec2"} or (protocol == "rest-xml" and service.name != "s3"):
        return Response(
            status, headers | {"content-type": "text/xml"}, _xml_error(service, protocol, error, shape, sender, request_id).encode()
        )
    if protocol == "rest-xml":
        text = f"<Error><Code>{error.code}</Code><Message>{escape(error.message)}</Message><RequestId>{request_id}</RequestId></Error>"
        return Response(status, headers | {"content-type": "application/xml"}, text.encode())
    name = shape.name if shape is not None else error.code
    content: dict[str, Any] = {"__type": name, "message": error.message}
    if shape is not None:
        fields = {
            key: value for member in shape.members if member.lower() == "message" for key, value in {member: error.message}.items()
        } | fields
        content |= writing.tree(shape, fields, cbor=protocol == "smithy-rpc-v2-cbor")
    if "awsQueryCompatible" in service.metadata:
        code = shape.metadata.get("error", {}).get("code", error.code) if shape is not None else error.code
        headers["x-amzn-query-error"] = f"{code};{sender}"
    if protocol == "smithy-rpc-v2-cbor":
        return Response(status, headers | {"content-type": "application/cbor", "smithy-protocol": "rpc-v2-cbor"}, writing.to_cbor(content))
    headers["x-amzn-errortype"] = name
    version = service.metadata.get("jsonVersion", "1.0")
    kind = "application/json" if protocol == "rest-json" else f"application/x-amz-json-{version}"
    return Response(status, headers | {"content-type": kind}, json.dumps(content).encode())


def _xml_error(service: ServiceModel, protocol: str, error: AwsError, shape: Any, sender: str, request_id: str) -> str:
    extra = writing.xml_content(shape, dict(error.fields)) if shape is not None else ""
    code = shape.metadata.get("error", {}).get("code", error.code) if shape is not None else error.code
    message = escape(error.message)
    if protocol == "ec2":
        inside = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
        return f"<Response><Errors>{inside}</Errors><RequestID>{request_id}</RequestID></Response>"
    space = f' xmlns="{service.metadata.get("xmlNamespace", "")}"'
    body = f"<Error><Type>{sender}</Type><Code>{code}</Code><Message>{message}</Message>{extra}</Error>"
    return f"<ErrorResponse{space}>{body}<RequestId>{request_id}</RequestId></ErrorResponse>"
