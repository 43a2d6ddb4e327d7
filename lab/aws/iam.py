"""Who may do what: the evaluation of IAM policies, and `authorize`, which the gateway asks before each call.

Role sessions (principals ``assumed-role/<role>/<session>``) are held to their role's inline and managed policies, read from the IAM of the
lab. Other principals (``user/admin``, ``role/lab``, the services' own) are the lab's and pass. Only identity-based policies are looked at
here; SNS, SQS and Lambda ask `decide_resource` about their resource policies where a service calls them.

Reference: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
"""

from __future__ import annotations

import enum
import functools
import json
import re
import threading
import time
import urllib.parse
from typing import TYPE_CHECKING, Any

from lab.aws.iam_actions import action_of, context_of, resources_of
from lab.aws.service import AwsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from lab.aws.service import World

SESSION_PREFIX = "assumed-role/"
CACHE_WALL_S = 2.0  # IAM is eventually consistent; a policy that changed is seen after this long
_NEEDS_NO_PERMISSION = frozenset({"sts:GetCallerIdentity", "sts:GetSessionToken"})
_BY_NAME = frozenset({"cloudwatch", "s3", "sqs", "iam", "sts", "cloudformation", "autoscaling", "elbv2", "rds", "ec2"})

# What the role policies that AWS keeps for Lambda functions say; moto knows managed policies only when told to load all of them.
_AWS_MANAGED: dict[str, dict[str, Any]] = {
    "arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole": {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"], "Resource": "*"},
        ],
    },
    "arn:aws:iam::aws:policy/AWSXRayDaemonWriteAccess": {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": ["xray:Put*", "xray:GetSampling*"], "Resource": "*"}],
    },
}


class Decision(enum.Enum):
    """The outcome for one action on one resource."""

    ALLOWED = "allowed"
    IMPLICIT_DENY = "implicitDeny"
    EXPLICIT_DENY = "explicitDeny"


def decide(policies: Iterable[Mapping[str, Any]], action: str, resource: str, context: Mapping[str, Any] | None = None) -> Decision:
    """What identity-based ``policies`` say about ``action`` (``cloudwatch:PutMetricData``) on ``resource`` (an ARN or ``*``).

    ``context`` maps condition keys to a value or a list of values; a key that is missing is absent from the request.
    """
    return _decide(policies, action, resource, context or {}, lambda _: True)


def decide_resource(
    policy: Mapping[str, Any], principal: str, action: str, resource: str, context: Mapping[str, Any] | None = None
) -> Decision:
    """What a resource's own ``policy`` says about ``principal``: a service (``sns.amazonaws.com``), an account's ARN, or an identity's."""

    def named(statement: Mapping[str, Any]) -> bool:
        listed = statement.get("Principal")
        if listed == "*":
            return True
        if not isinstance(listed, dict):
            return False
        kind = "Service" if principal.endswith(".amazonaws.com") else "AWS"
        account = principal.split(":")[4] if principal.startswith("arn:") else ""
        accepted = {principal, "*", *([account, f"arn:aws:iam::{account}:root"] if account else [])}
        return any(name in accepted for name in _as_list(listed.get(kind, [])))

    return _decide([policy], action, resource, context or {}, named)


def authorize(world: World, principal: str, service: str, operation: str, params: Mapping[str, Any], region: str) -> None:
    """Raise `AwsError` in AWS's words unless ``principal`` may call ``operation`` (snake or camel case) with ``params`` in ``region``.

    ``service`` is botocore's name. IAM is global, but is read through ``region``, so that a Region can stand alone.
    """
    if not principal.startswith(SESSION_PREFIX):
        return
    action = action_of(service, operation)
    if action in _NEEDS_NO_PERMISSION:
        return
    policies = role_policies(world, principal.split("/")[1], region)
    context = {"aws:RequestedRegion": region, "aws:PrincipalType": "AssumedRole", **context_of(service, operation, params)}
    for resource in resources_of(service, operation, params, region, world.account):
        decision = decide(policies, action, resource, context)
        if decision is not Decision.ALLOWED:
            raise denied(world.account, principal, service, action, resource, decision)


def allowed(world: World, principal: str, service: str, operation: str, params: Mapping[str, Any], region: str) -> bool:
    """`authorize` as a question."""
    try:
        authorize(world, principal, service, operation, params, region)
    except AwsError:
        return False
    return True


def denied(account: str, principal: str, service: str, action: str, resource: str, decision: Decision) -> AwsError:
    """The refusal, worded and coded as the service's protocol has it."""
    who = f"arn:aws:sts::{account}:{principal}"
    why = (
        "with an explicit deny in an identity-based policy"
        if decision is Decision.EXPLICIT_DENY
        else f"because no identity-based policy allows the {action} action"
    )
    where = "" if resource == "*" else f" on resource: {resource}"
    code = "AuthorizationError" if service == "sns" else "AccessDenied" if service in _BY_NAME else "AccessDeniedException"
    return AwsError(code, f"User: {who} is not authorized to perform: {action}{where} {why}", 403)


_cache: dict[tuple[int, str], tuple[float, list[dict[str, Any]]]] = {}
_cache_lock = threading.Lock()


def role_policies(world: World, role: str, region: str) -> list[dict[str, Any]]:
    """The policy documents in force for ``role``, inline and managed; none where the role is gone."""
    key = (id(world), role)
    with _cache_lock:
        found = _cache.get(key)
    if found and found[0] > time.monotonic():
        return found[1]
    documents = _read_policies(world, role, region)
    with _cache_lock:
        _cache[key] = (time.monotonic() + CACHE_WALL_S, documents)
    return documents


def document(value: Any) -> dict[str, Any]:
    """A policy document, whether IAM gave it as an object, as JSON, or as URL-encoded JSON."""
    if isinstance(value, str):
        value = json.loads(urllib.parse.unquote(value) if value.startswith("%7B") else value)
    return dict(value)


def _read_policies(world: World, role: str, region: str) -> list[dict[str, Any]]:
    call = functools.partial(world.call, region, "iam")
    found: list[dict[str, Any]] = []
    try:
        names = call("list_role_policies", RoleName=role)["PolicyNames"]
        attached = call("list_attached_role_policies", RoleName=role)["AttachedPolicies"]
        found.extend(document(call("get_role_policy", RoleName=role, PolicyName=name)["PolicyDocument"]) for name in names)
    except AwsError as error:
        if error.code == "NoSuchEntity":
            return []
        raise
    for policy in attached:
        arn = policy["PolicyArn"]
        if arn in _AWS_MANAGED:
            found.append(_AWS_MANAGED[arn])
            continue
        version = call("get_policy", PolicyArn=arn)["Policy"]["DefaultVersionId"]
        found.append(document(call("get_policy_version", PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]))
    return found


def _decide(
    policies: Iterable[Mapping[str, Any]],
    action: str,
    resource: str,
    context: Mapping[str, Any],
    names_principal: Callable[[Mapping[str, Any]], bool],
) -> Decision:
    outcome = Decision.IMPLICIT_DENY
    for policy in policies:
        for statement in _as_list(policy.get("Statement", [])):
            if not (names_principal(statement) and _covers(statement, action, resource) and _conditions_hold(statement, context)):
                continue
            if statement.get("Effect") == "Deny":
                return Decision.EXPLICIT_DENY
            outcome = Decision.ALLOWED
    return outcome


def _covers(statement: Mapping[str, Any], action: str, resource: str) -> bool:
    if "Action" in statement:
        if not any(_like(pattern.lower(), action.lower()) for pattern in _as_list(statement["Action"])):
            return False
    elif any(_like(pattern.lower(), action.lower()) for pattern in _as_list(statement.get("NotAction", []))):
        return False
    if "Resource" in statement:
        return any(_like(pattern, resource) for pattern in _as_list(statement["Resource"]))
    if "NotResource" in statement:
        return not any(_like(pattern, resource) for pattern in _as_list(statement["NotResource"]))
    return True


@functools.lru_cache(maxsize=4096)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile("".join(".*" if c == "*" else "." if c == "?" else re.escape(c) for c in text), re.DOTALL)


def _like(pattern: str, value: str) -> bool:
    return _pattern(pattern).fullmatch(value) is not None


def _bool(wanted: str, value: str) -> bool:
    return wanted.lower() == value.lower()


def _number(test: Callable[[float, float], bool]) -> Callable[[str, str], bool]:
    return lambda wanted, value: test(float(value), float(wanted))


_POSITIVE: dict[str, Callable[[str, str], bool]] = {
    "StringEquals": lambda wanted, value: wanted == value,
    "StringEqualsIgnoreCase": lambda wanted, value: wanted.lower() == value.lower(),
    "StringLike": _like,
    "ArnEquals": _like,
    "ArnLike": _like,
    "Bool": _bool,
    "NumericEquals": _number(lambda a, b: a == b),
    "NumericLessThan": _number(lambda a, b: a < b),
    "NumericLessThanEquals": _number(lambda a, b: a <= b),
    "NumericGreaterThan": _number(lambda a, b: a > b),
    "NumericGreaterThanEquals": _number(lambda a, b: a >= b),
}
_NEGATIVE = {
    "StringNotEquals": "StringEquals",
    "StringNotEqualsIgnoreCase": "StringEqualsIgnoreCase",
    "StringNotLike": "StringLike",
    "ArnNotEquals": "ArnEquals",
    "ArnNotLike": "ArnLike",
    "NumericNotEquals": "NumericEquals",
}


def _conditions_hold(statement: Mapping[str, Any], context: Mapping[str, Any]) -> bool:
    """Every operator and every key must hold. Raises `AwsError` for an operator that is not evaluated, rather than guess."""
    folded = {key.lower(): value for key, value in context.items()}
    return all(
        _condition_holds(name, _as_list(wanted), folded.get(key.lower()))
        for name, block in statement.get("Condition", {}).items()
        for key, wanted in block.items()
    )


def _condition_holds(name: str, wanted: list[Any], present: Any) -> bool:
    quantifier, colon, base = name.rpartition(":")
    optional = base.endswith("IfExists")
    base = base.removesuffix("IfExists")
    wanted = ["true" if item is True else "false" if item is False else str(item) for item in wanted]
    if base == "Null":
        return bool((present is None) == (wanted[0] == "true"))
    negative: bool = base in _NEGATIVE
    test = _POSITIVE.get(_NEGATIVE.get(base, base))
    if test is None:
        raise AwsError("UnsupportedOperation", f"The lab does not evaluate the IAM condition operator {name}")
    if present is None:
        return optional or negative or quantifier == "ForAllValues"
    values = [str(item) for item in _as_list(present)]

    def fits(value: str) -> bool:
        return negative is not any(test(choice, value) for choice in wanted)

    if colon and quantifier == "ForAllValues":
        return all(fits(value) for value in values)
    return any(map(fits, values)) if colon else all(map(fits, values))


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
