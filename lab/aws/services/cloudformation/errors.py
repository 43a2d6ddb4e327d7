"""The errors of CloudFormation, in its words."""

from __future__ import annotations

from lab.aws.service import AwsError


def invalid(message: str) -> AwsError:
    """CloudFormation's answer to almost everything that is wrong with a request."""
    return AwsError("ValidationError", message)


def missing(stack: str) -> AwsError:
    """No such stack."""
    return invalid(f"Stack with id {stack} does not exist")


class ResourceError(Exception):
    """A resource could not be created, updated or deleted; the text is the event's ResourceStatusReason."""
