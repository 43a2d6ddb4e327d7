"""Real servers for the canaries' tests: HTTP with any behaviour, DNS, and the parts of AWS that a run writes to."""

from __future__ import annotations

import gzip
import io
import json
import socket
import ssl
import threading
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.parsers import RpcV2CBORParser
from dnslib import QTYPE, RCODE, RR, A
from dnslib.server import BaseResolver
from flask import Flask, Response, request
from werkzeug.serving import make_server

from canaries.runtime import RunRequest, RunResult, Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dnslib import DNSRecord

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "AKIATEST", "AWS_SECRET_ACCESS_KEY": "test"}


def bundle(folder: Path, files: dict[str, str]) -> Path:
    """A zip with these files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    path = folder / "bundle.zip"
    path.write_bytes(buffer.getvalue())
    return path


@dataclass
class Runner:
    """Runs scripts in one sandbox."""

    sandbox: Sandbox
    folder: Path

    def script(self, text: str, handler: str = "canary.handler", **changes: Any) -> RunResult:
        """Run ``text`` as python/canary.py."""
        return self.files({"python/canary.py": text}, handler, **changes)

    def files(self, files: dict[str, str], handler: str, **changes: Any) -> RunResult:
        """Run a bundle of these files."""
        return self.sandbox.run(self.request(bundle(self.folder, files), handler, **changes))

    def request(self, path: Path, handler: str, **changes: Any) -> RunRequest:
        """A request with artifacts in a folder and no AWS."""
        values: dict[str, Any] = {
            "canary": "tested",
            "handler": handler,
            "bundle": path,
            "region": "us-east-1",
            "artifacts": str(self.folder / "artifacts"),
            **changes,
        }
        return RunRequest(**values)


@contextmanager
def raw_server(talk: Callable[[socket.socket], None], tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server that hands each connection to ``talk``; yields its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def serve(connection: socket.socket) -> None:
        try:
            talk(tls.wrap_socket(connection, server_side=True) if tls else connection)
        except OSError:
            pass
        finally:
            connection.close()

    def accept() -> None:
        while not stop.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        stop.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def answering(payload: bytes) -> Callable[[socket.socket], None]:
    """A behaviour: read the request's head, answer these bytes, close."""

    def talk(connection: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data and (more := connection.recv(65536)):
            data += more
        connection.sendall(payload)

    return talk


def page(body: str, head: str = "") -> bytes:
    """A whole HTTP answer."""
    return f"HTTP/1.1 200 OK\r\n{head}Content-Length: {len(body.encode())}\r\nConnection: close\r\n\r\n{body}".encode()


@contextmanager
def served(app: Flask, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> Iterator[int]:
    """A Flask application on a port of its own."""
    server = make_server(host, 0, app, threaded=True, ssl_context=tls)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join(5)
        server.server_close()


class Zone(BaseResolver):  # type: ignore[misc]
    """A DNS zone that tests change while it is served: name -> addresses; a name may also map to an RCODE or to None (no answer)."""

    def __init__(self, ttl: int = 60) -> None:
        self.names: dict[str, list[str] | int | None] = {}
        self.ttl = ttl

    def resolve(self, asked: DNSRecord, handler: Any) -> DNSRecord | None:
        reply = asked.reply()
        found = self.names.get(str(asked.q.qname).rstrip("."), RCODE.NXDOMAIN)
        if found is None:
            raise OSError("silent")
        if isinstance(found, int):
            reply.header.rcode = found
        else:
            for address in found:
                reply.add_answer(RR(asked.q.qname, QTYPE.A, rdata=A(address), ttl=self.ttl))
        return reply


@dataclass
class Recorder:
    """A stand-in for one Region's endpoints that keeps what it was sent: metrics, segments, and ARC's answers."""

    data: list[dict[str, Any]] = field(default_factory=list)
    segments: list[dict[str, Any]] = field(default_factory=list)
    controls: dict[str, str] = field(default_factory=dict)
    url: str = ""

    def values(self, name: str, **dimensions: str) -> list[float]:
        """The values put under a metric with exactly these dimensions, in order."""
        wanted = {"Workload": "retail", **dimensions}
        return [
            value
            for datum in self.data
            if datum["MetricName"] == name and {each["Name"]: each["Value"] for each in datum["Dimensions"]} == wanted
            for value in (datum["Values"] if "Values" in datum else [datum["Value"]])
        ]


@contextmanager
def recording() -> Iterator[Recorder]:
    """Serve a `Recorder`: CloudWatch (any protocol botocore speaks), X-Ray and the ARC data plane."""
    recorder, app = Recorder(), Flask("aws")

    @app.post("/TraceSegments")
    def segments() -> Response:
        recorder.segments += [json.loads(each) for each in request.get_json(force=True)["TraceSegmentDocuments"]]
        return Response('{"UnprocessedTraceSegments": []}', content_type="application/json")

    @app.post("/", defaults={"path": ""})
    @app.post("/<path:path>")
    def anything(path: str) -> Response:
        if "ToggleCustomerAPI" in request.headers.get("X-Amz-Target", ""):
            arn = request.get_json(force=True)["RoutingControlArn"]
            if arn not in recorder.controls:
                return Response('{"__type": "ResourceNotFoundException", "message": "no such control"}', 400)
            return Response(json.dumps({"RoutingControlArn": arn, "RoutingControlState": recorder.controls[arn]}))
        recorder.data += _metric_data()
        if request.headers.get("smithy-protocol"):
            return Response(b"\xbf\xff", headers={"smithy-protocol": "rpc-v2-cbor"}, content_type="application/cbor")
        return Response("{}", content_type="application/x-amz-json-1.0")

    with served(app) as port:
        recorder.url = f"http://127.0.0.1:{port}"
        yield recorder


def _metric_data() -> list[dict[str, Any]]:
    """The datums of the PutMetricData request being served: JSON 1.0 or smithy RPC v2 (CBOR), as botocore chose; perhaps compressed."""
    body = request.get_data()
    if request.headers.get("Content-Encoding") == "gzip":
        body = gzip.decompress(body)
    cbor = request.headers.get("smithy-protocol") == "rpc-v2-cbor"
    parsed = RpcV2CBORParser().parse_data_item(io.BufferedReader(io.BytesIO(body))) if cbor else json.loads(body)
    return [{**datum, "Namespace": parsed["Namespace"]} for datum in parsed["MetricData"]]
