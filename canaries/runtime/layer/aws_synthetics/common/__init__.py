"""``from aws_synthetics.common import synthetics_configuration, synthetics_logger``."""

from __future__ import annotations

from enum import Enum

from aws_synthetics.common import synthetics_logger
from aws_synthetics.common.configuration import SyntheticsConfiguration

synthetics_configuration = SyntheticsConfiguration()


class CanaryStatus(Enum):
    """What a script came to; AWS's open debug wrapper reads ``.value``."""

    NO_RESULT = "NO_RESULT"
    PASSED = "PASSED"
    FAILED = "FAILED"


__all__ = ["CanaryStatus", "synthetics_configuration", "synthetics_logger"]
