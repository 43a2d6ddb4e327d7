"""Which class serves which service (botocore's name). Modules are imported when first asked for; one that does not exist serves nothing."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lab.aws.service import World

SERVICES = {
    name: f"lab.aws.services.{'lambda_' if name == 'lambda' else name.replace('-', '_')}:Service"
    for name in (
        "cloudformation",
        "cloudwatch",
        "elasticache",
        "events",
        "lambda",
        "logs",
        "rds",
        "rds-data",
        "resourcegroupstaggingapi",
        "route53",
        "route53-recovery-cluster",
        "route53-recovery-control-config",
        "sns",
        "ssm",
        "sts",
        "synthetics",
        "xray",
    )
}


def load(name: str, world: World) -> Any | None:
    """The object that serves ``name``, constructed with ``world``; None where we have none (yet). An error inside its module is raised."""
    target = SERVICES.get(name)
    if target is None:
        return None
    module, _, attribute = target.partition(":")
    if importlib.util.find_spec(module) is None:
        return None
    implementation = getattr(importlib.import_module(module), attribute, None)
    return None if implementation is None else implementation(world)
