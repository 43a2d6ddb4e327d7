"""A span to an X-Ray segment document.

The shape is that of https://docs.aws.amazon.com/xray/latest/devguide/xray-api-segmentdocuments.html. Attributes are read under their stable
names and the ones before: with only the old ones read, as in the collector's translator, spans of today lose their SQL.
"""

import json
import re
from typing import Any

from crosswatch_exporters.encoding.decode import SpanData, first
from crosswatch_exporters.segments.causes import cause_of

MAX_DOCUMENT_BYTES = 64_000
_SERVER, _CLIENT, _PRODUCER, _CONSUMER = 2, 3, 4, 5
_NAME_CHARACTERS = re.compile(r"[^\w\s.:/%&#=+\-@]")
_ANNOTATION_KEY = re.compile(r"[^A-Za-z0-9_.]")
_MAX_ANNOTATIONS = 50
# Always searchable, without anybody having to ask for it.
_DEFAULT_ANNOTATIONS = ("crosswatch.synthetic", "telemetry.delivery.region", "cloud.region", "http.route", "error.type")


def document(span: SpanData, delivery_region: str = "") -> str:
    """The JSON document, within 64 KB: what is least needed is left out first."""
    segment = translate(span, delivery_region)
    for cut in ("", "metadata", "cause", "sql", "annotations"):
        if cut and cut in segment:
            segment[cut] = {"exceptions": []} if cut == "cause" else {}
        text = json.dumps(segment, separators=(",", ":"), default=str)
        if len(text.encode()) <= MAX_DOCUMENT_BYTES:
            return text
    return json.dumps({key: segment[key] for key in ("id", "trace_id", "name", "start_time", "end_time")}, separators=(",", ":"))


def translate(span: SpanData, delivery_region: str = "") -> dict[str, Any]:
    """The document as a dictionary. A server span, or one whose parent is elsewhere, is a segment; any other is a subsegment sent by
    itself."""
    whole = span.kind == _SERVER or not span.parent_id or span.parent_remote
    attributes = span.attributes
    segment: dict[str, Any] = {
        "id": span.span_id,
        "trace_id": f"1-{span.trace_id[:8]}-{span.trace_id[8:]}",
        "name": name_of(span),
        "start_time": span.start_ns / 1e9,
        "end_time": max(span.end_ns, span.start_ns) / 1e9,
    }
    if span.parent_id:
        segment["parent_id"] = span.parent_id
    if not whole:
        segment["type"] = "subsegment"
    if attributes.get("rpc.system") == "aws-api":
        segment["namespace"] = "aws"
    elif span.kind in (_CLIENT, _PRODUCER) and not whole:
        segment["namespace"] = "remote"
    optional = {
        "http": _http(span),
        "sql": _sql(attributes),
        "aws": _aws(span, whole),
        "user": first(attributes, "enduser.id", "user.id"),
        "origin": _origin(span.resource) if whole else None,
        "service": _service(span.resource) if whole else None,
    }
    segment |= {key: value for key, value in optional.items() if value}
    segment |= _verdict(span)
    annotations, metadata = _searchable(span, delivery_region, whole)
    if annotations:
        segment["annotations"] = annotations
    if metadata:
        segment["metadata"] = {"default": metadata}
    return segment


def name_of(span: SpanData) -> str:
    """What X-Ray shows as the node: the service itself for its own work, the other side for calls."""
    attributes = span.attributes
    own = first(span.resource, "service.name")
    if span.kind in (_CLIENT, _PRODUCER, _CONSUMER):
        database = first(attributes, "db.namespace", "db.name")
        host = first(attributes, "server.address", "net.peer.name", "http.host")
        named = first(attributes, "aws.remote.service", "peer.service", "rpc.service")
        if not named and first(attributes, "db.system.name", "db.system"):
            named = f"{database}@{host}" if database and host else database or host
        name = named or host or first(attributes, "messaging.destination.name") or span.name
    elif span.kind == _SERVER or not span.parent_id:
        name = first(attributes, "aws.local.service") or own or span.name
    else:
        name = span.name
    return _NAME_CHARACTERS.sub("", str(name))[:200] or "span"


def _http(span: SpanData) -> dict[str, Any]:
    attributes = span.attributes
    method = first(attributes, "http.request.method", "http.method")
    status = first(attributes, "http.response.status_code", "http.status_code")
    if method is None and status is None:
        return {}
    url = first(attributes, "url.full", "http.url") or _url(attributes)
    client = first(attributes, "client.address", "http.client_ip", "net.sock.peer.addr") if span.kind == _SERVER else None
    agent = first(attributes, "user_agent.original", "http.user_agent")
    request = {"method": method, "url": url, "user_agent": agent, "client_ip": client}
    response = {"status": status, "content_length": first(attributes, "http.response.body.size", "http.response_content_length")}
    blocks = {"request": {k: v for k, v in request.items() if v}, "response": {k: v for k, v in response.items() if v is not None}}
    return {key: block for key, block in blocks.items() if block}


def _url(attributes: dict[str, Any]) -> str | None:
    path = first(attributes, "url.path", "http.target", "http.route")
    if path is None:
        return None
    host = first(attributes, "server.address", "http.host", "net.host.name")
    port = first(attributes, "server.port", "net.host.port")
    scheme = first(attributes, "url.scheme", "http.scheme") or "http"
    query = first(attributes, "url.query")
    where = f"{scheme}://{host}{'' if port in (None, 80, 443) or ':' in str(host) else f':{port}'}" if host else ""
    return f"{where}{path}{f'?{query}' if query else ''}"


def _sql(attributes: dict[str, Any]) -> dict[str, Any]:
    system = first(attributes, "db.system.name", "db.system")
    query = first(attributes, "db.query.text", "db.statement")
    if not system or system in ("dynamodb", "aws.dynamodb", "redis", "mongodb", "memcached"):
        return {}
    host, port = first(attributes, "server.address", "net.peer.name"), first(attributes, "server.port", "net.peer.port")
    database = first(attributes, "db.namespace", "db.name")
    address = f"{host or ''}{f':{port}' if port else ''}"
    block = {
        "database_type": system,
        "url": first(attributes, "db.connection_string") or f"{address}{f'/{database}' if database else ''}" or None,
        "user": first(attributes, "db.user"),
        "sanitized_query": query,
    }
    return {key: value for key, value in block.items() if value}


def _aws(span: SpanData, whole: bool) -> dict[str, Any]:
    attributes, resource = span.attributes, span.resource
    block: dict[str, Any] = {}
    if attributes.get("rpc.system") == "aws-api":
        block |= {
            "operation": first(attributes, "rpc.method", "aws.operation"),
            "region": first(attributes, "cloud.region", "aws.region"),
            "request_id": first(attributes, "aws.request_id", "aws.requestId"),
            "table_name": _single(first(attributes, "aws.dynamodb.table_names", "aws.table_name")),
            "queue_url": first(attributes, "aws.sqs.queue.url", "aws.queue_url"),
            "bucket_name": first(attributes, "aws.s3.bucket"),
        }
    if whole:
        block["account_id"] = first(resource, "cloud.account.id")
        container = {
            "container": first(resource, "container.name", "host.name"),
            "container_id": first(resource, "container.id"),
            "container_arn": first(resource, "aws.ecs.container.arn"),
            "task_arn": first(resource, "aws.ecs.task.arn"),
            "cluster_arn": first(resource, "aws.ecs.cluster.arn"),
            "launch_type": first(resource, "aws.ecs.launchtype"),
        }
        if resource.get("cloud.platform") == "aws_ecs":
            block["ecs"] = {key: value for key, value in container.items() if value}
        block["cloudwatch_logs"] = _log_groups(resource)
        block["xray"] = {"sdk": "crosswatch-exporters", "auto_instrumentation": True}
    return {key: value for key, value in block.items() if value}


def _log_groups(resource: dict[str, Any]) -> list[dict[str, str]]:
    arns = first(resource, "aws.log.group.arns") or []
    names = first(resource, "aws.log.group.names") or []
    arns = arns.split("&") if isinstance(arns, str) else arns
    names = names.split("&") if isinstance(names, str) else names
    if arns:
        return [{"log_group": str(arn).removesuffix(":*").rsplit(":", 1)[-1], "arn": str(arn).removesuffix(":*")} for arn in arns]
    return [{"log_group": str(name)} for name in names]


def _origin(resource: dict[str, Any]) -> str | None:
    platform = resource.get("cloud.platform")
    if platform == "aws_ecs":
        launch = str(resource.get("aws.ecs.launchtype", "")).lower()
        return {"fargate": "AWS::ECS::Fargate", "ec2": "AWS::ECS::EC2"}.get(launch, "AWS::ECS::Container")
    return {"aws_eks": "AWS::EKS::Container", "aws_ec2": "AWS::EC2::Instance"}.get(str(platform))


def _service(resource: dict[str, Any]) -> dict[str, Any]:
    version = first(resource, "service.version")
    return {"version": version} if version else {}


def _verdict(span: SpanData) -> dict[str, Any]:
    """error, throttle or fault, and the cause."""
    status = first(span.attributes, "http.response.status_code", "http.status_code")
    code = int(status) if isinstance(status, int) or str(status).isdigit() else 0
    flags: dict[str, Any] = {}
    if code == 429:
        flags = {"error": True, "throttle": True}
    elif 400 <= code < 500:
        flags = {"error": True}
    elif code >= 500 or span.status == 2:
        flags = {"fault": True}
    cause = cause_of(span)
    if cause and (flags or span.status == 2):
        flags["cause"] = cause
    return flags


def _searchable(span: SpanData, delivery_region: str, whole: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """(annotations, metadata): what was named for indexing, and the rest."""
    attributes = dict(span.attributes)
    shared = {"cloud.region": span.resource.get("cloud.region"), "telemetry.delivery.region": delivery_region}
    attributes |= {key: value for key, value in shared.items() if value and key not in attributes}
    named = attributes.pop("aws.xray.annotations", None) or []
    wanted = {*_DEFAULT_ANNOTATIONS, *(named if isinstance(named, list) else [named])}
    annotations: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    for key, value in attributes.items():
        if key in wanted and isinstance(value, (str, int, float, bool)) and len(annotations) < _MAX_ANNOTATIONS:
            annotations[_ANNOTATION_KEY.sub("_", key)] = value[:1000] if isinstance(value, str) else value
        else:
            metadata[key] = value
    if whole:
        metadata |= {f"otel.resource.{key}": value for key, value in span.resource.items()}
    return annotations, metadata


def _single(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else value
