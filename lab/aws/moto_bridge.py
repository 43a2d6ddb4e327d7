"""The part of AWS that moto gets right, behind the same endpoint. Only operations on the list below reach it.

moto runs inside this process: requests go to its WSGI application, calls from our own services go through a boto3 client whose requests
never leave the process.
"""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import importlib.util
import io
import logging
import sys
import threading
import types
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import boto3
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.exceptions import ClientError

from lab.aws import moto_items, moto_streams
from lab.aws.protocol import Request, Response
from lab.aws.service import AwsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lab.aws.sigv4 import Key

# Operations (patterns) that moto 5.2.5 answers as AWS does, measured one by one. What is missing here is refused, not pretended.
RIGHT: dict[str, tuple[str, ...]] = {
    "dynamodb": (
        "CreateTable", "DescribeTable", "DeleteTable", "ListTables", "UpdateTable", "*Item", "*Items", "Query", "Scan", "*TimeToLive",
        "DescribeContinuousBackups", "DescribeLimits", "TagResource", "UntagResource", "ListTagsOfResource",
    ),
    "dynamodbstreams": ("*",),
    "ec2": ("DescribeVpcs", "DescribeSubnets", "DescribeSecurityGroups", "DescribeRegions", "DescribeAvailabilityZones"),
    "ecs": ("Create*", "Describe*", "List*", "Register*", "Deregister*", "Delete*", "UpdateService", "TagResource", "UntagResource"),
    "elasticache": ("Describe*", "ListTagsForResource"),
    "elbv2": ("Create*", "Describe*", "Modify*", "Register*", "Deregister*", "Delete*", "AddTags", "RemoveTags", "Set*"),
    "iam": (
        "*Role", "*Roles", "*RolePolicy", "*RolePolicies", "*Policy", "*Policies", "*PolicyVersion", "*PolicyVersions", "*User", "*Users",
        "TagRole", "UntagRole", "ListRoleTags", "TagPolicy", "UntagPolicy", "ListPolicyTags", "UpdateAssumeRolePolicy", "*InstanceProfile*",
        "*AccountAlias*",
    ),
    "kms": ("CreateKey", "DescribeKey", "ListKeys", "CreateAlias", "ListAliases", "Encrypt", "Decrypt", "GenerateDataKey*"),
    "mq": ("DescribeBroker", "ListBrokers"),
    "s3": ("*",),
    "secretsmanager": ("*Secret", "*SecretValue", "ListSecrets", "TagResource"),
    "servicediscovery": ("*",),
    "sqs": ("*",),
    "ssm": (
        "*Parameter", "*Parameters", "*ParametersByPath", "*Document", "*Documents", "*DocumentVersion*", "UpdateDocumentDefaultVersion",
        "*Tags*Resource",
    ),
}  # fmt: skip

MOST_HOSTS = 1000  # services times Regions, which are fewer; a path may look like a host to moto
_HOP_HEADERS = {"content-length", "connection", "transfer-encoding", "server", "date"}


@functools.lru_cache(maxsize=4096)
def is_right(service: str, operation: str) -> bool:
    """Whether moto may answer ``operation`` (botocore's name) of ``service``."""
    return any(fnmatch.fnmatchcase(operation, pattern) for pattern in RIGHT.get(service, ()))


class Moto:
    """moto, called in-process."""

    def __init__(self, key: Key, endpoints: Mapping[str, str]) -> None:
        """``endpoints`` are the gateway's by Region: what moto answers (queue URLs) names them."""
        self._key = key
        self._endpoints = endpoints
        self._lock = threading.Lock()
        self._tables = threading.RLock()  # moto's tables are plain dictionaries: who lists one while another writes finds it changed
        self._application: Callable[..., Any] | None = None
        self._clients: dict[tuple[str, str], Any] = {}
        self._session = boto3.session.Session()  # one, so that service models are read once

    def answer(self, request: Request, host: str) -> Response:
        """moto's response to a request that was already authenticated."""
        status, headers, body = self._wsgi(request, host)
        kept = {
            name.lower(): value
            for name, value in headers
            if name.lower() not in _HOP_HEADERS or (name.lower() == "content-length" and request.method == "HEAD")
        }
        return Response(status, kept, body)

    def call(self, region: str, service: str, operation: str, params: dict[str, Any]) -> dict[str, Any]:
        """Call an operation (snake case). Raises AwsError as the API would."""
        try:
            result: dict[str, Any] = getattr(self._client(service, region), operation)(**params)
        except ClientError as error:
            details = error.response.get("Error", {})
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400)
            raise AwsError(details.get("Code", "InternalFailure"), details.get("Message", ""), status) from error
        result.pop("ResponseMetadata", None)
        return result

    def _client(self, service: str, region: str) -> Any:
        with self._lock:
            client = self._clients.get((service, region))
            if client is None:
                client = self._session.client(
                    service,
                    region_name=region,
                    endpoint_url=self._endpoints.get(region, "http://localhost"),
                    aws_access_key_id=self._key.access_key,
                    aws_secret_access_key=self._key.secret_key,
                    config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}, disable_request_compression=True),
                )
                client.meta.events.register("before-send.*.*", self._instead_of_sending)
                self._clients[(service, region)] = client
            return client

    def _instead_of_sending(self, request: Any, **_: Any) -> AWSResponse:
        """botocore's hook: what it returns is taken for the response."""
        body = request.body or b""
        if hasattr(body, "read"):
            body = body.read()
        host, _, rest = request.url.split("://", 1)[1].partition("/")
        path, _, query = rest.partition("?")
        headers = {name.lower(): value.decode() if isinstance(value, bytes) else str(value) for name, value in request.headers.items()}
        plain = Request(request.method, f"/{path}", query, headers, body.encode() if isinstance(body, str) else bytes(body))
        status, answered, content = self._wsgi(plain, host)
        return AWSResponse(request.url, status, {name.lower(): value for name, value in answered}, _Raw(content))

    def _wsgi(self, request: Request, host: str) -> tuple[int, list[tuple[str, str]], bytes]:
        if self._application is None:
            with self._lock:
                if self._application is None:
                    self._application = _application()
        signed = request.headers.get("authorization", "")
        if "/ec2/aws4_request" in signed:
            _DeferredEc2.real()
        environ: dict[str, Any] = {
            "REQUEST_METHOD": request.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote(request.path, "latin-1"),
            "RAW_URI": request.path + (f"?{request.query}" if request.query else ""),
            "QUERY_STRING": request.query,
            "SERVER_NAME": host.partition(":")[0],
            "SERVER_PORT": host.partition(":")[2] or "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "CONTENT_LENGTH": str(len(request.body)),
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(request.body),
            "wsgi.errors": io.StringIO(),
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        for name, value in request.headers.items():
            if name == "content-type":
                environ["CONTENT_TYPE"] = value
            elif name not in {"content-length", "transfer-encoding"}:
                environ[f"HTTP_{name.upper().replace('-', '_')}"] = value
        environ.setdefault("HTTP_HOST", host)
        started: list[Any] = []

        def start(status: str, headers: list[tuple[str, str]], _exc_info: Any = None) -> Callable[[bytes], None]:
            started[:] = [int(status.split(" ", 1)[0]), headers]
            return lambda _data: None

        with self._tables if "/dynamodb/aws4_request" in signed else contextlib.nullcontext():
            chunks = self._application(environ, start)
            try:
                body = b"".join(chunks)
            finally:
                close = getattr(chunks, "close", None)
                if close is not None:
                    close()
        return started[0], started[1], body


def _application() -> Callable[..., Any]:
    """moto's server application. Its warnings are about itself and are silenced."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    if "moto.ec2" not in sys.modules:
        sys.modules["moto.ec2"] = _DeferredEc2("moto.ec2")
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    class Dispatcher(DomainDispatcherApplication):
        """moto's, which lists its folder twice and tries 300 patterns to find the backend of a request's host; here once for each host."""

        def __init__(self) -> None:
            super().__init__(create_backend_app)
            self._known: dict[str, Any] = {}

        def get_backend_for_host(self, host: str | None) -> Any:
            if host is None:
                return None
            found = self._known.get(host)
            if found is None:
                found = super().get_backend_for_host(host)
                if found is not None and len(self._known) < MOST_HOSTS:
                    self._known[host] = found
            return found

    moto_streams.bound()
    moto_items.quick()
    application: Callable[..., Any] = Dispatcher()
    return application


class _DeferredEc2(types.ModuleType):
    """Stands in for ``moto.ec2`` until somebody needs it.

    moto's SSM imports all of EC2 for one lookup that the lab never makes: 190 MB and most of a second of instance types and offerings.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        spec = importlib.util.find_spec(name)
        self.__path__ = list(spec.submodule_search_locations or ()) if spec else []

    @property
    def ec2_backends(self) -> _Backends:
        """What moto's SSM imports; it loads EC2 when it is looked into."""
        return _Backends()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real(), name)

    @staticmethod
    def real() -> types.ModuleType:
        """The real module, which takes this one's place."""
        if isinstance(sys.modules.get("moto.ec2"), _DeferredEc2):
            del sys.modules["moto.ec2"]
        return importlib.import_module("moto.ec2")


class _Backends:
    """``moto.ec2.ec2_backends``, looked up late."""

    def __getitem__(self, account: str) -> Any:
        return _DeferredEc2.real().ec2_backends[account]


class _Raw(io.BytesIO):
    """A body in the shape that botocore reads."""

    def stream(self, **_: Any) -> Any:
        yield self.read()
