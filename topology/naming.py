"""Names of ours that AWS limits in length and that hold the Region: known when a topology is loaded, used when it is deployed."""

from __future__ import annotations

BUCKET_MOST = 63
ROLE_MOST = 64
ROLES = ("probe", "journey", "ledger", "notifier")


def bucket_name(workload: str, account: str, region: str) -> str:
    """The bucket of artifacts in a Region; bucket names are global."""
    return f"crosswatch-{workload}-{account}-{region}"


def role_name(workload: str, purpose: str, region: str) -> str:
    """A role's name; IAM is global, so the Region is part of it."""
    return f"crosswatch-{workload}-{purpose}-{region}"


def excess(workload: str, account: str, region: str) -> int:
    """By how many characters the longest name in ``region`` is longer than AWS takes; 0 or less where all fit."""
    roles = max(len(role_name(workload, purpose, region)) for purpose in ROLES)
    return max(len(bucket_name(workload, account, region)) - BUCKET_MOST, roles - ROLE_MOST)
