"""boto3 clients for code that must not be held up: short timeouts, no retries, connections kept while the process is warm."""

from __future__ import annotations

from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError


def client(service: str, region: str, endpoint: str | None, timeout_s: float) -> Any:
    """A client of ``service`` in ``region``, at a private endpoint where there is one."""
    config = Config(connect_timeout=timeout_s, read_timeout=timeout_s, retries={"total_max_attempts": 1}, max_pool_connections=2)
    return boto3.session.Session(region_name=region).client(service, endpoint_url=endpoint, config=config)


def errors() -> tuple[type[Exception], ...]:
    """What a call may raise. ResponseParserError is no BotoCoreError: it is what comes of a proxy's own page in place of AWS's answer."""
    return (BotoCoreError, ClientError, ResponseParserError, OSError)


def short(error: Exception) -> str:
    """An error in a few words: AWS's code, or the kind of trouble on the way."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", "ClientError"))
    return type(error).__name__
