"""The gateway: one HTTP endpoint per Region, all services behind it, told apart by the scope of their signature.

A request passes these stations: whose service is it (credential scope), what do the faults in force say, is the signature right, which
operation is it, does our own service have it, may moto answer it. Each refusal is worded in the protocol of the service.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections import deque
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from lab.aws import iam, sigv4
from lab.aws.conditions import THROTTLING
from lab.aws.httpd import HttpServer
from lab.aws.iam_actions import s3_call
from lab.aws.moto_bridge import RIGHT, is_right
from lab.aws.protocol import Call, Request, Response
from lab.aws.registry import SERVICES
from lab.aws.service import AwsError, Context
from lab.aws.world import unsupported

if TYPE_CHECKING:
    from lab.aws.world import LocalWorld

log = logging.getLogger(__name__)

RECENT_CALLS = 2000

# Credential scopes whose name is not botocore's service name.
_SIGNING_NAMES = {
    "monitoring": ["cloudwatch"],
    "tagging": ["resourcegroupstaggingapi"],
    "elasticloadbalancing": ["elbv2"],
    "dynamodb": ["dynamodb", "dynamodbstreams"],
}
# Services with one control plane for all Regions: clients sign for that plane's Region whatever endpoint they use.
_GLOBAL = {"iam", "route53", "route53-recovery-control-config"}
CLUSTER = "route53-recovery-cluster"
# Links in SNS's messages are followed without a signature.
_UNSIGNED_ACTIONS = {"ConfirmSubscription": "sns", "Unsubscribe": "sns"}

# Bodies above this are refused as they come over the wire, compressed or not.
_MAX_BODY = {("cloudwatch", "PutMetricData"): 1_048_576}
# What a request to a path that is no operation needs the permission for.
_RAW_ACTIONS = {"/v1/traces": "PutTraceSegments", "/v1/logs": "PutLogEvents", "/v1/metrics": "PutMetricData"}


class Gateway:
    """All endpoints of one lab's AWS. ``open`` serves, ``close`` ends it."""

    def __init__(self, world: LocalWorld) -> None:
        self.world = world
        self.plan = plan = world.plan
        self.recent: deque[dict[str, Any]] = deque(maxlen=RECENT_CALLS)
        self._servers: list[tuple[str, HttpServer]] = [
            (name, HttpServer("127.0.0.1", region.aws_port, lambda request, name=name: self.answer(name, request), f"aws-{name}"))  # type: ignore[misc]
            for name, region in plan.regions.items()
        ]
        self._servers += [
            (name, HttpServer("127.0.0.1", port, lambda request, name=name: self.answer(name, request, cluster=True), f"arc-{name}"))  # type: ignore[misc]
            for name, port in plan.arc_ports.items()
        ]

    def open(self) -> None:
        """Load the services and listen."""
        self.world.start()
        self.apply_conditions()

    def close(self) -> None:
        """Stop listening and end the services."""
        for _, server in self._servers:
            server.close()
        self.world.stop()

    def apply_conditions(self) -> None:
        """Close the endpoints of Regions that are down and open the others."""
        for region, server in self._servers:
            if self.world.is_down(region):
                server.close()
            else:
                server.open()

    def answer(self, region: str, request: Request, cluster: bool = False) -> Response | None:
        """The response to ``request`` on the endpoint of ``region``; None resets the connection."""
        started = time.perf_counter()
        request_id = secrets.token_hex(16)
        record: dict[str, Any] = {
            "at": self.world.clock.now(),
            "region": region,
            "service": "",
            "operation": "",
            "principal": "",
            "code": "",
        }
        try:
            response = self._answer(region, request, cluster, request_id, record)
        except AwsError as error:  # nothing said which service it is for: plain JSON
            record["code"] = error.code
            response = _plain_error(error, request_id)
        except Exception as error:
            log.exception("%s %s failed", request.method, request.path)
            record["code"] = "InternalFailure"
            response = _plain_error(AwsError("InternalFailure", f"The local AWS failed: {error!r}", 500), request_id)
        record["status"] = response.status if response else 0
        record["ms"] = round((time.perf_counter() - started) * 1000, 2)
        self.recent.append(record)
        return response

    def _answer(self, region: str, request: Request, cluster: bool, request_id: str, record: dict[str, Any]) -> Response | None:
        try:
            signature = sigv4.read(request)
        except ValueError as error:
            raise AwsError("IncompleteSignatureException", str(error), 403) from error
        if signature is None:
            return self._unsigned(region, request, request_id, record)
        candidates = _SIGNING_NAMES.get(signature.service, [signature.service])
        if not any(name in SERVICES or name in RIGHT or name == CLUSTER for name in candidates):
            raise unsupported(signature.service, "every operation")
        service = self.world.catalogue.choose(candidates, request)
        record["service"] = service
        try:
            region = self.world.served_from(service, region)
            if (service == CLUSTER) != cluster:
                where = "one of the cluster's own endpoints (DescribeCluster lists them)" if service == CLUSTER else "its Region's endpoint"
                raise AwsError("UnknownEndpoint", f"{service} is not served here: use {where}.", 400)
            raw = getattr(self.world.find(service), "raw_paths", {}).get(f"{request.method} {request.path}")
            call = None if raw is not None else self._route(service, request)
            record["operation"] = call.operation.name if call else f"{request.method} {request.path}"
            faulted = self._obey(region, service, call.operation.name if call else None, request)
            if faulted:
                return None
            if call and len(request.body) > _MAX_BODY.get((service, call.operation.name), len(request.body)):
                raise AwsError("RequestEntityTooLarge", "Request exceeded the maximum size of 1048576 bytes.", 413)
            protocol = call.protocol if call else self.world.catalogue.model(service).protocol
            if signature.region != region and not (service in _GLOBAL or (service == "sts" and signature.region == "us-east-1")):
                message = f"Credential should be scoped to a valid region, not '{signature.region}'."
                raise sigv4.refusal("scope", protocol, service, message)
            key = sigv4.verify(request, signature, self.world.keys, protocol, time.time())
            record["principal"] = key.principal
            if key.principal.startswith(iam.SESSION_PREFIX):
                self._authorize(region, service, request, call, key.principal, raw is not None)
            if raw is not None:
                response: Response = raw(self.world.context(service, record["operation"], region, key, request_id), request)
                return response
            return self._dispatch(region, service, request, call, key, request_id)
        except AwsError as error:
            record["code"] = error.code
            return self.world.catalogue.error(service, request, error, request_id)

    def _route(self, service: str, request: Request) -> Call | None:
        """The call that a request is; None where only moto needs to understand it."""
        try:
            return self.world.catalogue.route(service, request)
        except AwsError:
            if RIGHT.get(service) == ("*",):
                return None
            raise

    def _authorize(self, region: str, service: str, request: Request, call: Call | None, principal: str, raw: bool) -> None:
        """Hold a role's session to its role's policies. Raises AwsError (AccessDenied and the like)."""
        if raw:
            operation = _RAW_ACTIONS.get(request.path, "GetMetricData")
            params: dict[str, Any] = {"logGroupName": request.headers.get("x-aws-log-group", "*")}
        elif service == "s3":
            operation, params = s3_call(request.method, unquote(request.path), dict(request.query_pairs))
        else:
            call = call or self.world.catalogue.route(service, request)
            operation, params = call.operation.name, call.parameters(request)
        iam.authorize(self.world, principal, service, operation, params, region)

    def _dispatch(self, region: str, service: str, request: Request, call: Call | None, key: sigv4.Key, request_id: str) -> Response:
        """Let our own service answer, or moto where it may."""
        host = request.headers.get("host", "127.0.0.1")
        if call is None:
            return self.world.moto.answer(request, host)
        operation = call.operation
        method = getattr(self.world.find(service), operation.snake, None)
        if method is None:
            if not is_right(service, operation.name):
                raise unsupported(service, operation.name)
            if operation.name == "UpdateTable" and b'"ReplicaUpdates"' in request.content:
                raise AwsError(
                    "UnsupportedOperation", "The local AWS replicates tables by the lab's plan, not by UpdateTable's ReplicaUpdates.", 501
                )
            return self.world.moto.answer(request, host)
        ctx = self.world.context(service, operation.snake, region, key, request_id)
        params = call.parameters(request)
        try:
            return call.result(method(ctx, params), request_id)
        except AwsError:
            raise
        except Exception as error:
            log.exception("%s:%s failed", service, operation.name)
            raise AwsError("InternalFailure", f"The local AWS failed in {service}:{operation.name}: {error!r}", 500) from error

    def _unsigned(self, region: str, request: Request, request_id: str, record: dict[str, Any]) -> Response:
        """The few things AWS answers without a signature."""
        for name in SERVICES:
            handler = getattr(self.world.find(name), "public_paths", {}).get(f"{request.method} {request.path}")
            if handler is not None:
                record["service"], record["operation"] = name, f"{request.method} {request.path}"
                ctx = Context(name, record["operation"], region, self.world.account, "anonymous", "", self.world.clock.now(), request_id)
                response: Response = handler(ctx, request)
                return response
        service = _UNSIGNED_ACTIONS.get(request.form.get("Action", "")) if request.method == "GET" else None
        if service is None or self.world.find(service) is None:
            raise AwsError("MissingAuthenticationTokenException", "Missing Authentication Token", 403)
        call = self.world.catalogue.route(service, request)
        record["service"], record["operation"] = service, call.operation.name
        try:
            return self._dispatch(region, service, request, call, sigv4.Key("", "", "anonymous"), request_id)
        except AwsError as error:
            record["code"] = error.code
            return call.error(error, request_id)

    def _obey(self, region: str, service: str, operation: str | None, request: Request) -> bool:
        """Do what the conditions say: wait, raise the refusal, or return True where the connection is to be reset."""
        for condition in self.world.conditions.for_call(region, service, operation):
            if condition.kind == "slow":
                time.sleep(condition.options["ms"] / 1000)
            elif condition.kind == "hang":
                self.world.conditions.wait_until_lifted(condition, request.gone)
                return True
            elif condition.kind in {"reset", "down"}:
                return True
            elif condition.kind == "refuse":
                raise AwsError(
                    condition.options["code"], condition.options.get("message", "Refused by a fault"), condition.options.get("status", 400)
                )
            elif self.world.conditions.throttles(condition):
                code, status = THROTTLING.get(service, ("ThrottlingException", 400))
                raise AwsError(code, "Rate exceeded", status)
        return False


def _plain_error(error: AwsError, request_id: str) -> Response:
    body = json.dumps({"__type": error.code, "message": error.message}).encode()
    headers = {"content-type": "application/json", "x-amzn-errortype": error.code, "x-amzn-requestid": request_id}
    return Response(error.status, headers, body)
