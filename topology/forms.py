"""The forms that values of a topology have: each an annotated type, checked where the value is read."""

from __future__ import annotations

import ssl
from pathlib import Path
from string import Formatter
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, StringConstraints, ValidationInfo
from pydantic_core import PydanticCustomError

from topology.schedules import is_schedule

NAME_FORM = r"^[a-z][a-z0-9-]{0,30}$"
REGION_FORM = r"^[a-z]{2}(-[a-z]+)+-\d$"
URL_FORM = r"^https?://[^\s/]+"


def _address(url: str) -> str:
    """An address that can be taken apart."""
    try:
        if urlsplit(url).hostname and (urlsplit(url).port or True):
            return url
    except ValueError as error:
        raise PydanticCustomError("address", "this is not an address: {why}", {"why": str(error)}) from error
    raise PydanticCustomError("address", "this is not an address: it names no host")


def _schedule(expression: str) -> str:
    """What Synthetics takes as a schedule."""
    if not is_schedule(expression):
        raise PydanticCustomError("schedule", "this is no schedule of a canary")
    return expression


def _template(text: str) -> str:
    """A text in which nothing but ``{region}`` is to be filled in."""
    try:
        fields = {(name, form, conversion) for _, name, form, conversion in Formatter().parse(text) if name is not None}
    except ValueError as error:
        raise PydanticCustomError("placeholder", "a brace stands alone: {why}", {"why": str(error)}) from error
    if fields - {("region", "", None)}:
        raise PydanticCustomError("placeholder", "nothing but {region} can be filled in")
    return text


def _authority(value: str, info: ValidationInfo) -> str:
    """A file of certificates, found from the topology's folder (``info.context["folder"]``); returns its path from here."""
    path = Path((info.context or {}).get("folder", ".")) / value
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=path.read_text(encoding="ascii"))
    except OSError as error:  # what OpenSSL cannot read is one, too
        why = error.strerror if error.filename else "it holds no certificate in PEM form"
        raise PydanticCustomError("authority", "{file} cannot be read: {why}", {"file": str(path), "why": why or str(error)}) from error
    except ValueError as error:
        raise PydanticCustomError("authority", "{file} holds no certificate in PEM form", {"file": str(path)}) from error
    return str(path)


def _one_or_more(value: object) -> object:
    """A single name, as a list of one."""
    return (value,) if isinstance(value, str) else value


def _different(value: tuple[str, ...]) -> tuple[str, ...]:
    """Names, at least one, and none twice."""
    if not value or len(set(value)) != len(value):
        raise PydanticCustomError("nodes", "one node, or a list of different nodes, is expected")
    return value


Name = Annotated[str, StringConstraints(pattern=NAME_FORM)]
RegionName = Annotated[str, StringConstraints(pattern=REGION_FORM)]
AccountId = Annotated[str, StringConstraints(pattern=r"^[0-9]{12}$")]
SubnetId = Annotated[str, StringConstraints(pattern=r"^subnet-([0-9a-f]{8}|[0-9a-f]{17})$")]
SecurityGroupId = Annotated[str, StringConstraints(pattern=r"^sg-([0-9a-f]{8}|[0-9a-f]{17})$")]
Url = Annotated[str, StringConstraints(pattern=URL_FORM), AfterValidator(_address)]
Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,254}$")]
"""A name of AWS: a cluster, a service, a table, a broker."""
Nodes = Annotated[tuple[Identifier, ...], BeforeValidator(_one_or_more), AfterValidator(_different)]
QueueName = Annotated[str, StringConstraints(pattern=r"^[!-9;-~]([ -~]{0,199}[!-~])?$")]
"""What CloudWatch takes as the value of a dimension: printable ASCII, no space at the ends, no colon at the start."""
Schedule = Annotated[str, AfterValidator(_schedule)]
Template = Annotated[str, AfterValidator(_template)]
AuthorityFile = Annotated[str, AfterValidator(_authority)]
