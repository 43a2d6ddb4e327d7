"""The AWS that monitoring itself stands on: one service of one Region down, slow, throttling, hanging or refusing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lab.faults.fault import Fault, Where

if TYPE_CHECKING:
    from lab.faults.ground import Ground


def _condition(name: str, sentence: str, shows: str, services: tuple[str | None, ...], kind: str, **options: Any) -> Fault:
    """A fault that is a condition on ``services`` of the Region's AWS (None: on all)."""

    def inject(ground: Ground, region: str) -> list[str]:
        imposed: list[str] = []
        ground.begun = imposed
        imposed.extend(ground.impose(kind, region, service, **options) for service in services)
        return imposed

    def heal(ground: Ground, _region: str, conditions: list[str]) -> None:
        for condition in conditions:
            ground.lift(condition)

    return Fault(name, "aws", sentence, shows, Where.REGION, inject, heal)


FAULTS = (
    _condition(
        "cloudwatch-down",
        "CloudWatch of one Region resets every connection: no datapoint gets in, no alarm is read.",
        "PutMetricData and DescribeAlarms of the Region fail with a connection reset",
        ("cloudwatch",),
        "reset",
    ),
    _condition(
        "cloudwatch-throttled",
        "CloudWatch of one Region answers half of all requests with Throttling.",
        "PutMetricData of the Region answers Throttling",
        ("cloudwatch",),
        "throttle",
        share=0.5,
    ),
    _condition(
        "cloudwatch-slow",
        "CloudWatch of one Region answers every request three seconds late.",
        "every answer of the Region's CloudWatch takes 3 s",
        ("cloudwatch",),
        "slow",
        ms=3000,
    ),
    _condition(
        "cloudwatch-hanging",
        "CloudWatch of one Region accepts requests and never answers them.",
        "requests to the Region's CloudWatch time out",
        ("cloudwatch",),
        "hang",
    ),
    _condition(
        "telemetry-throttled",
        "The endpoints for traces and logs of one Region throttle nearly everything.",
        "the OTLP endpoints, PutTraceSegments and PutLogEvents answer with their throttling codes",
        ("xray", "logs"),
        "throttle",
        share=0.9,
    ),
    _condition(
        "telemetry-down",
        "The endpoints for traces and logs of one Region reset every connection.",
        "the OTLP endpoints, PutTraceSegments and PutLogEvents fail with a connection reset",
        ("xray", "logs"),
        "reset",
    ),
    _condition(
        "notifier-down",
        "Lambda of one Region fails, and the notifier with it: its alarms are heard when Lambda is back and SNS tries again.",
        "Invoke of the Region's functions answers ServiceException",
        ("lambda",),
        "refuse",
        code="ServiceException",
        message="The AWS Lambda service encountered an internal error.",
        status=500,
    ),
    _condition(
        "sns-down",
        "SNS of one Region refuses to publish: that Region's alarms reach nobody.",
        "Publish of the Region answers InternalError",
        ("sns",),
        "refuse",
        code="InternalError",
        message="The request processing has failed because of an unknown error, exception or failure.",
        status=500,
    ),
    _condition(
        "runbooks-down",
        "Systems Manager of one Region is throttled out: runbooks cannot be started there, only in another Region.",
        "StartAutomationExecution of the Region answers ThrottlingException",
        ("ssm",),
        "throttle",
        share=1.0,
    ),
    _condition(
        "carts-table-throttled",
        "The carts table of one Region throttles most reads and writes, as with too little capacity.",
        "DynamoDB of the Region answers ProvisionedThroughputExceededException",
        ("dynamodb",),
        "throttle",
        share=0.8,
    ),
    _condition(
        "permissions-lost",
        "A wrong IAM policy: nobody may write metrics in one Region any more.",
        "PutMetricData of the Region answers AccessDenied",
        ("cloudwatch",),
        "refuse",
        operation="PutMetricData",
        code="AccessDenied",
        message="is not authorized to perform: cloudwatch:PutMetricData",
        status=403,
    ),
    _condition(
        "aws-slow",
        "Every AWS service of one Region answers two seconds late.",
        "every answer of the Region's endpoint takes 2 s",
        (None,),
        "slow",
        ms=2000,
    ),
)
