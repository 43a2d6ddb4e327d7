"""AWS Lambda for Python functions from zips, run for real in child processes (`lab.aws.lambda_sandbox`).

Reference: https://docs.aws.amazon.com/lambda/latest/api/. A function exists as ``$LATEST`` only. It runs as a session of its role, logs to
``/aws/lambda/<name>`` and publishes its metrics to ``AWS/Lambda``; asynchronous events are retried in lab time and end at the function's
destinations (`lab.aws.lambda_events`). A Region that is down runs nothing: running functions are killed, accepted events wait.
"""

from __future__ import annotations

import base64
import json
import shutil
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

from lab.aws import iam, lambda_config
from lab.aws.lambda_config import Function, invalid
from lab.aws.lambda_events import Events
from lab.aws.lambda_pool import Pool
from lab.aws.service import AwsError
from lab.aws.support import Arn, Vended, page, read_object, trusts, vend, workspace

if TYPE_CHECKING:
    from lab.aws.lambda_sandbox import Outcome
    from lab.aws.service import Context, World

MAX_SYNCHRONOUS_BYTES = 6 * 1024 * 1024
MAX_ASYNCHRONOUS_BYTES = 1024 * 1024
_EVENT_DEFAULTS: dict[str, Any] = {"DestinationConfig": {"OnSuccess": {}, "OnFailure": {}}}


class Service:
    """The operations of Lambda."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._functions: dict[tuple[str, str], Function] = {}
        self._lock = threading.RLock()
        self._folder = workspace(world, "lambda")
        self._pool = Pool(world)
        self._events = Events(world, self.run)

    def close(self) -> None:
        """End all sandboxes and remove all code."""
        self._events.close()
        self._pool.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    # ---- functions

    def create_function(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Create a function; it is Active at once."""
        name = _plain_name(params["FunctionName"])
        lambda_config.check_name(name)
        _refuse_publish(params)
        arn = f"arn:aws:lambda:{ctx.region}:{ctx.account}:function:{name}"
        function = Function(arn, name, params["Role"], {"Timeout": 3, "MemorySize": 128}, {}, ctx.now, tags=dict(params.get("Tags", {})))
        lambda_config.apply(function, params)
        self._check_role(ctx, function.role)
        self._install(ctx, function, params["Code"])
        with self._lock:
            if (ctx.region, name) in self._functions:
                shutil.rmtree(function.code or "", ignore_errors=True)
                raise AwsError("ResourceConflictException", f"Function already exist: {name}", 409)
            self._functions[ctx.region, name] = function
        return function.configuration()

    def update_function_code(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Replace the code; the next event starts a fresh sandbox."""
        _refuse_publish(params)
        with self._lock:
            function = self._function(ctx, params["FunctionName"])
            _check_revision(function, params)
            if params.get("DryRun"):
                return function.configuration()
            self._install(ctx, function, params)
            self._touch(ctx, function)
            return function.configuration()

    def update_function_configuration(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Change the configuration; the next event starts a fresh sandbox."""
        with self._lock:
            function = self._function(ctx, params["FunctionName"])
            _check_revision(function, params)
            if "Role" in params:
                self._check_role(ctx, params["Role"])
            lambda_config.apply(function, params)
            self._touch(ctx, function)
            return function.configuration()

    def get_function(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Configuration, tags and where the code lies."""
        function = self._function(ctx, params["FunctionName"])
        answer: dict[str, Any] = {
            "Configuration": function.configuration(),
            "Code": {"RepositoryType": "S3", "Location": f"file://{function.code}"},
        }
        if function.tags:
            answer["Tags"] = dict(function.tags)
        if function.reserved is not None:
            answer["Concurrency"] = {"ReservedConcurrentExecutions": function.reserved}
        return answer

    def get_function_configuration(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """The configuration alone."""
        return self._function(ctx, params["FunctionName"]).configuration()

    def list_functions(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """The Region's functions, 50 a page."""
        with self._lock:
            found = [function.configuration() for (region, _), function in sorted(self._functions.items()) if region == ctx.region]
        shown, marker = page(found, params.get("Marker"), min(params.get("MaxItems", 50), 50))
        return {"Functions": shown, "NextMarker": marker}

    def delete_function(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Delete the function and end its sandboxes."""
        with self._lock:
            function = self._function(ctx, params["FunctionName"])
            del self._functions[ctx.region, function.name]
        self._pool.retire(function)
        shutil.rmtree(function.code or "", ignore_errors=True)
        return {"StatusCode": 204}

    def put_function_concurrency(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Reserve concurrency; 0 stops the function."""
        function = self._function(ctx, params["FunctionName"])
        function.reserved = params["ReservedConcurrentExecutions"]
        return {"ReservedConcurrentExecutions": function.reserved}

    def get_function_concurrency(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """The reserved concurrency, where there is one."""
        function = self._function(ctx, params["FunctionName"])
        return {} if function.reserved is None else {"ReservedConcurrentExecutions": function.reserved}

    def delete_function_concurrency(self, ctx: Context, params: dict[str, Any]) -> None:
        """Back to the account's concurrency."""
        self._function(ctx, params["FunctionName"]).reserved = None

    def tag_resource(self, ctx: Context, params: dict[str, Any]) -> None:
        """Add or replace tags."""
        self._function(ctx, params["Resource"]).tags.update(params["Tags"])

    def untag_resource(self, ctx: Context, params: dict[str, Any]) -> None:
        """Remove tags."""
        tags = self._function(ctx, params["Resource"]).tags
        for key in params["TagKeys"]:
            tags.pop(key, None)

    def list_tags(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """The function's tags."""
        return {"Tags": dict(self._function(ctx, params["Resource"]).tags)}

    # ---- permissions

    def add_permission(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Add a statement to the function's policy, which services need before they may invoke it."""
        with self._lock:
            function = self._function(ctx, params["FunctionName"])
            sid = params["StatementId"]
            if any(one["Sid"] == sid for one in function.statements):
                raise AwsError(
                    "ResourceConflictException",
                    f"The statement id ({sid}) provided already exists. Please provide a new statement id.",
                    409,
                )
            statement = _statement(function, params)
            function.statements.append(statement)
            function.revision = str(uuid.uuid4())
            return {"Statement": json.dumps(statement)}

    def remove_permission(self, ctx: Context, params: dict[str, Any]) -> None:
        """Remove a statement from the function's policy."""
        with self._lock:
            function = self._function(ctx, params["FunctionName"])
            kept = [one for one in function.statements if one["Sid"] != params["StatementId"]]
            if len(kept) == len(function.statements):
                raise AwsError("ResourceNotFoundException", f"Statement {params['StatementId']} is not found in resource policy.", 404)
            function.statements = kept

    def get_policy(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """The function's policy; an error where it has none."""
        function = self._function(ctx, params["FunctionName"])
        if not function.statements:
            raise AwsError("ResourceNotFoundException", "The resource you requested does not exist.", 404)
        return {"Policy": json.dumps(_policy(function)), "RevisionId": function.revision}

    # ---- asynchronous invocation

    def put_function_event_invoke_config(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Set retries, age and destinations, forgetting what was set before."""
        return self._set_event_config(ctx, params, {})

    def update_function_event_invoke_config(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Change some of retries, age and destinations."""
        function = self._function(ctx, params["FunctionName"])
        return self._set_event_config(ctx, params, _event_config(function))

    def get_function_event_invoke_config(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """What was set."""
        function = self._function(ctx, params["FunctionName"])
        _event_config(function)
        return _shown_event_config(function)

    def list_function_event_invoke_configs(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """What was set, as a list of none or one."""
        function = self._function(ctx, params["FunctionName"])
        return {"FunctionEventInvokeConfigs": [] if function.event_config is None else [_shown_event_config(function)]}

    def delete_function_event_invoke_config(self, ctx: Context, params: dict[str, Any]) -> None:
        """Back to two retries within six hours."""
        function = self._function(ctx, params["FunctionName"])
        _event_config(function)
        function.event_config = None

    def _set_event_config(self, ctx: Context, params: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
        function = self._function(ctx, params["FunctionName"])
        destinations = params.get("DestinationConfig", {})
        for side in ("OnSuccess", "OnFailure"):
            target = destinations.get(side, {}).get("Destination")
            if target and ((arn := Arn.parse(target)) is None or arn.service not in ("sns", "sqs", "lambda", "events", "s3")):
                raise invalid(f"The provided destination config DestinationConfig({side}) is invalid.")
        keys = ("MaximumRetryAttempts", "MaximumEventAgeInSeconds", "DestinationConfig")
        function.event_config = base | {key: params[key] for key in keys if params.get(key) is not None}
        function.event_config_modified = ctx.now
        return _shown_event_config(function)

    # ---- invocation

    def invoke(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Run a function: RequestResponse waits for its answer, Event queues it, DryRun only checks."""
        function = self._function(ctx, params["FunctionName"])
        kind = params.get("InvocationType", "RequestResponse")
        payload = _payload(params.get("Payload"), MAX_ASYNCHRONOUS_BYTES if kind == "Event" else MAX_SYNCHRONOUS_BYTES)
        if kind == "DryRun":
            return {"StatusCode": 204}
        if kind == "Event":
            self._accept(function, payload)
            return {"StatusCode": 202}
        request_id = ctx.request_id or str(uuid.uuid4())
        outcome = self.run(function, request_id, payload)
        answer: dict[str, Any] = {"StatusCode": 200, "Payload": outcome.payload, "ExecutedVersion": "$LATEST"}
        if outcome.error:
            answer["FunctionError"] = "Unhandled"
        if params.get("LogType") == "Tail":
            answer["LogResult"] = base64.b64encode("\n".join(line for _, line in outcome.log).encode()[-4096:]).decode()
        return answer

    def invoke_from(self, service: str, source_arn: str, function_arn: str, payload: bytes) -> None:
        """Queue an event of another service (``sns.amazonaws.com``), if the function's policy lets that service and source invoke it.

        Raises `AwsError`: 403 and 404 are final; anything else says that Lambda does not answer now, and the caller tries again.
        """
        arn = Arn.parse(function_arn)
        if arn is not None:
            self._answers(arn.region)
        function = self._functions.get((arn.region, _plain_name(function_arn))) if arn else None
        if function is None:
            raise AwsError("ResourceNotFoundException", f"Function not found: {function_arn}", 404)
        context = {"aws:SourceArn": source_arn, "aws:SourceAccount": source_arn.split(":")[4]}
        decision = iam.decide_resource(_policy(function), service, "lambda:InvokeFunction", function.arn, context)
        if decision is not iam.Decision.ALLOWED:
            raise AwsError(
                "AccessDeniedException",
                f"User: {service} is not authorized to perform: lambda:InvokeFunction on resource: {function.arn} "
                "because no resource-based policy allows the lambda:InvokeFunction action",
                403,
            )
        self._accept(function, payload)

    def _answers(self, region: str) -> None:
        """Raise `AwsError` where the Region's Lambda takes no events: those of other services do not come through the gateway."""
        if self._world.is_down(region):
            raise AwsError("RegionUnavailable", f"{region} does not answer", 503)
        self._world.obey(region, "lambda", "Invoke")

    def run(self, function: Function, request_id: str, payload: bytes) -> Outcome:
        """Run a function for one event, with logs and metrics. Raises `AwsError` where it cannot run at all."""
        dimensions = {"FunctionName": function.name}
        try:
            outcome = self._pool.run(function, request_id, payload)
        except AwsError as error:
            if error.code == "TooManyRequestsException":
                vend(self._world, function.region, "AWS/Lambda", dimensions, [Vended("Throttles", 1)])
            raise
        vend(
            self._world,
            function.region,
            "AWS/Lambda",
            dimensions,
            [
                Vended("Invocations", 1),
                Vended("Errors", int(outcome.error)),
                Vended("Duration", outcome.wall_ms, "Milliseconds"),
                Vended("ConcurrentExecutions", self._pool.running(function)),
            ],
        )
        return outcome

    def _accept(self, function: Function, payload: bytes) -> None:
        vend(self._world, function.region, "AWS/Lambda", {"FunctionName": function.name}, [Vended("AsyncEventsReceived", 1)])
        self._events.accept(function, payload)

    # ---- what the operations have in common

    def _function(self, ctx: Context, name: str) -> Function:
        plain, qualifier = _plain_name(name), _qualifier(name)
        with self._lock:
            function = self._functions.get((ctx.region, plain))
        arn = f"arn:aws:lambda:{ctx.region}:{ctx.account}:function:{plain}"
        if function is None or qualifier not in ("", "$LATEST"):
            raise AwsError("ResourceNotFoundException", f"Function not found: {arn}{f':{qualifier}' if qualifier else ''}", 404)
        return function

    def _check_role(self, ctx: Context, role: str) -> None:
        if not trusts(self._world, ctx.region, role, "lambda.amazonaws.com"):
            raise invalid("The role defined for the function cannot be assumed by Lambda.")

    def _install(self, ctx: Context, function: Function, code: dict[str, Any]) -> None:
        """Unpack new code beside the old, then switch."""
        if code.get("ImageUri"):
            raise AwsError("UnsupportedOperation", "The lab's Lambda runs zip packages only")
        if code.get("ZipFile"):
            content = bytes(code["ZipFile"])
        elif code.get("S3Bucket") and code.get("S3Key"):
            content = self._fetch(ctx, code)
        else:
            raise invalid("Please provide a source for function code.")
        root = self._folder / f"{function.region}-{function.name}-{time.monotonic_ns()}"
        folder = root / "task"
        folder.mkdir(parents=True)
        try:
            function.digest, function.size = lambda_config.unpack(content, folder)
        except AwsError:
            shutil.rmtree(root, ignore_errors=True)
            raise
        function.code = folder

    def _fetch(self, ctx: Context, code: dict[str, Any]) -> bytes:
        try:
            return read_object(self._world, ctx.region, code["S3Bucket"], code["S3Key"], code.get("S3ObjectVersion"))
        except AwsError as error:
            raise invalid(f"Error occurred while GetObject. S3 Error Code: {error.code}. S3 Error Message: {error.message}") from error

    def _touch(self, ctx: Context, function: Function) -> None:
        function.modified, function.revision = ctx.now, str(uuid.uuid4())
        self._pool.retire(function)


def _plain_name(name: str) -> str:
    """The bare name in a name, a partial ARN or an ARN, with or without qualifier."""
    if ":function:" in name:
        name = name.partition(":function:")[2]
    return name.partition(":")[0]


def _qualifier(name: str) -> str:
    rest = name.partition(":function:")[2] or name
    return rest.partition(":")[2]


def _payload(given: Any, limit: int) -> bytes:
    payload = bytes(given or b"{}")
    if len(payload) > limit:
        raise AwsError(
            "RequestTooLargeException", f"{len(payload)} byte payload is too large for the invocation (limit {limit} bytes)", 413
        )
    try:
        json.loads(payload)
    except ValueError as error:
        raise AwsError("InvalidRequestContentException", f"Could not parse request body into json: {error}") from None
    return payload


def _refuse_publish(params: dict[str, Any]) -> None:
    if params.get("Publish"):
        raise AwsError("UnsupportedOperation", "The lab's Lambda keeps $LATEST only and publishes no versions")


def _check_revision(function: Function, params: dict[str, Any]) -> None:
    if params.get("RevisionId", function.revision) != function.revision:
        raise AwsError("PreconditionFailedException", "The Revision Id provided does not match the latest Revision Id.", 412)


def _policy(function: Function) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Id": "default", "Statement": function.statements}


def _statement(function: Function, params: dict[str, Any]) -> dict[str, Any]:
    principal = params["Principal"]
    is_service = principal.endswith(".amazonaws.com")
    named: Any = {"Service": principal} if is_service else principal if principal == "*" else {"AWS": _account_arn(principal)}
    conditions: dict[str, Any] = {}
    if "SourceArn" in params:
        conditions["ArnLike"] = {"AWS:SourceArn": params["SourceArn"]}
    if "SourceAccount" in params:
        conditions["StringEquals"] = {"AWS:SourceAccount": params["SourceAccount"]}
    statement = {
        "Sid": params["StatementId"],
        "Effect": "Allow",
        "Principal": named,
        "Action": params["Action"],
        "Resource": function.arn,
    }
    return statement | ({"Condition": conditions} if conditions else {})


def _account_arn(principal: str) -> str:
    return f"arn:aws:iam::{principal}:root" if principal.isdigit() else principal


def _event_config(function: Function) -> dict[str, Any]:
    if function.event_config is None:
        raise AwsError("ResourceNotFoundException", f"The function {function.arn}:$LATEST doesn't have an EventInvokeConfig", 404)
    return function.event_config


def _shown_event_config(function: Function) -> dict[str, Any]:
    config = function.event_config or {}
    return {"FunctionArn": f"{function.arn}:$LATEST", "LastModified": function.event_config_modified, **_EVENT_DEFAULTS, **config}
