"""Resource and scope messages, which all three signals share, and the grouping of items under them."""

from typing import Any

from crosswatch_exporters.encoding.wire import AttributeEncoder, Redactor, delimited, items_of, text, varint


class Envelope:
    """Groups encoded items by resource and scope into one OTLP request, whose outer shape is the same for spans, logs and metrics::

        Request{1: Resource*{1: resource, 2: Scope*{1: scope, 2: item*, 3: schema_url}, 3: schema_url}}

    Resources and scopes are told apart by identity, since hashing an SDK resource serialises it. The encoded forms are remembered together
    with the object, which keeps the identity valid.
    """

    # Scopes are few; resources change only on fork. More than this means someone makes them for each item.
    _REMEMBERED = 512

    def __init__(self, redact: Redactor | None = None) -> None:
        self._resource_attributes = AttributeEncoder(0x0A, redact)
        self._scope_attributes = AttributeEncoder(0x1A, redact)
        self._resources: dict[int, tuple[Any, bytes, bytes]] = {}
        self._scopes: dict[int, tuple[Any, bytes, bytes]] = {}

    def resource(self, resource: Any) -> tuple[bytes, bytes]:
        """Two fields of a ResourceSpans (-Logs, -Metrics): the resource, and its schema URL."""
        found = self._resources.get(id(resource))
        if found is None:
            body = delimited(b"\x0a", self._resource_attributes(items_of(resource.attributes)))
            found = self._remember(self._resources, resource, body, text(b"\x1a", resource.schema_url))
        return found[1], found[2]

    def scope(self, scope: Any) -> tuple[bytes, bytes]:
        """Two fields of a ScopeSpans (-Logs, -Metrics): the scope, and its schema URL."""
        found = self._scopes.get(id(scope))
        if found is None:
            if scope is None:
                body, schema = b"\x0a\x00", b""
            else:
                fields = (
                    text(b"\x0a", _said(scope.name))
                    + text(b"\x12", _said(scope.version))
                    + self._scope_attributes(items_of(scope.attributes))
                )
                body, schema = delimited(b"\x0a", fields), text(b"\x1a", _said(scope.schema_url))
            found = self._remember(self._scopes, scope, body, schema)
        return found[1], found[2]

    def _remember(self, cache: dict[int, tuple[Any, bytes, bytes]], key: Any, body: bytes, schema: bytes) -> tuple[Any, bytes, bytes]:
        if len(cache) >= self._REMEMBERED:
            cache.clear()
        cache[id(key)] = entry = (key, body, schema)
        return entry

    def request(self, groups: dict[tuple[int, int], tuple[Any, Any, list[bytes]]]) -> bytes:
        """One request from {(id(resource), id(scope)): (resource, scope, parts)}; `parts` joined are the scope's items, tags included."""
        # Sizes first, then one join: a batch of logs is hundreds of kilobytes, and each copy of it costs as much as encoding it did.
        resources: dict[int, tuple[Any, list[bytes], int]] = {}
        for (resource_id, _), (resource, scope, parts) in groups.items():
            scope_body, schema = self.scope(scope)
            size = len(scope_body) + sum(map(len, parts)) + len(schema)
            head = b"\x12" + varint(size)
            _, inner, inner_size = resources.get(resource_id, (resource, [], 0))
            inner += (head, scope_body, *parts, schema)
            resources[resource_id] = (resource, inner, inner_size + len(head) + size)
        out: list[bytes] = []
        for resource, inner, inner_size in resources.values():
            body, schema = self.resource(resource)
            out += (b"\x0a" + varint(len(body) + inner_size + len(schema)), body, *inner, schema)
        return b"".join(out)


def _said(value: Any) -> str:
    """A name or version as text, whatever the service gave as one: `get_tracer("shop", 1.0)` is not rare."""
    return value if isinstance(value, str) else "" if value is None else str(value)
