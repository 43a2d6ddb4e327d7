"""``POST /v1/logs``: OTLP log records as log events.

The group and stream come from headers and must exist; one record out of bounds refuses the whole call. A record becomes one JSON event with
its resource, scope, attributes, severity, body and trace context.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse

from lab.aws import otlp
from lab.aws.otlp import RefusedError
from lab.aws.service import AwsError
from lab.aws.services.logs.store import EVENT_OVERHEAD_BYTES

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from lab.aws.protocol import Request
    from lab.aws.service import Context
    from lab.aws.services.logs.operations import Logs
    from lab.aws.world import LocalWorld

MAX_RECORDS = 10_000
MAX_MESSAGE_BYTES = 1_048_576
MAX_EVENT_BYTES = 1_048_576
MAX_REQUEST_BYTES = 20 * 1024 * 1024  # of the wire; the limit above is on what the events come to
NEWEST_S = 2 * 3600.0
_json = json.JSONEncoder(separators=(",", ":")).encode


class OtlpLogs:
    """The OTLP endpoint of CloudWatch Logs."""

    def __init__(self, world: LocalWorld, logs: Logs) -> None:
        self._clock = world.clock
        self._logs = logs
        self.raw_paths = {"POST /v1/logs": otlp.endpoint(ExportLogsServiceRequest, MAX_REQUEST_BYTES, self._export)}

    def _export(self, ctx: Context, request: Request, message: Any) -> Message:
        group_name, stream_name = request.headers.get("x-aws-log-group"), request.headers.get("x-aws-log-stream")
        if not group_name or not stream_name:
            raise RefusedError("The headers x-aws-log-group and x-aws-log-stream are required")
        try:
            group = self._logs.group(ctx.region, group_name)
            stream = self._logs.stream(group, stream_name)
        except AwsError as error:
            raise RefusedError(error.message) from error
        otlp.check_envelopes((each.resource, [part.scope for part in each.scope_logs]) for each in message.resource_logs)
        rows = list(self._rows(ctx, message))
        if len(rows) > MAX_RECORDS:
            raise RefusedError(f"The request has {len(rows)} log records, more than {MAX_RECORDS}")
        sizes = [len(text) for _, text in rows]  # JSON in ASCII: characters are bytes
        if any(size > MAX_EVENT_BYTES for size in sizes):
            raise RefusedError(f"Log event too large: {max(sizes)} bytes exceeds limit of {MAX_EVENT_BYTES}")
        total = sum(sizes) + EVENT_OVERHEAD_BYTES * len(sizes)
        if total > MAX_MESSAGE_BYTES:
            raise RefusedError(f"Upload too large: {total} bytes exceeds limit of {MAX_MESSAGE_BYTES}")
        oldest = ctx.now - group.retention_days * 86400 if group.retention_days is not None else None
        times = [time for time, _ in rows]
        otlp.check_times(times, ctx.now, NEWEST_S)
        if oldest is not None and times and min(times) < oldest:
            raise RefusedError("Timestamp is older than the retention of the log group")
        rows.sort(key=lambda row: row[0])
        self._logs.ingest(ctx.region, group, stream, [(round(time * 1000), text) for time, text in rows], round(ctx.now * 1000))
        return ExportLogsServiceResponse()

    def _rows(self, ctx: Context, message: Any) -> Any:
        """(lab seconds, JSON) of each record."""
        for resource_logs in message.resource_logs:
            resource = _json({"attributes": otlp.attributes(resource_logs.resource.attributes)})
            for scope_logs in resource_logs.scope_logs:
                named = {"name": scope_logs.scope.name, "version": scope_logs.scope.version}
                scope = _json({key: value for key, value in named.items() if value})
                # Most of a record's text, and the same for all: written once.
                shared = f'{{"resource":{resource},"scope":{scope},'
                for record in scope_logs.log_records:
                    nanos = record.time_unix_nano or record.observed_time_unix_nano
                    event: dict[str, Any] = {
                        "timeUnixNano": record.time_unix_nano,
                        "observedTimeUnixNano": record.observed_time_unix_nano,
                        "severityNumber": int(record.severity_number),
                        "severityText": record.severity_text,
                        "body": otlp.plain(record.body),
                        "attributes": otlp.attributes(record.attributes),
                        "flags": int(record.flags),
                        "traceId": record.trace_id.hex(),
                        "spanId": record.span_id.hex(),
                    }
                    yield (self._clock.to_lab(nanos / 1e9) if nanos else ctx.now), shared + _json(event)[1:]
