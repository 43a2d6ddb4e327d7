"""The lab's certificate authority and the load balancers' certificates. Validity is wall time: TLS clients know no other."""

from __future__ import annotations

import fcntl
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from lab.plan import STORE_NAME

if TYPE_CHECKING:
    import trustme

    from lab.plan import LabPlan

VALID_DAYS = 395.0


def authority(plan: LabPlan) -> trustme.CA:
    """The lab's authority, made by the first who asks; its certificate is ``plan.ca_file``."""
    import trustme

    key_file = plan.path / "ca.key"
    with (plan.path / "ca.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not plan.ca_file.exists():
            made = trustme.CA(organization_name="Crosswatch lab")
            key_file.touch(mode=0o600)
            key_file.write_bytes(made.private_key_pem.bytes())
            partial = plan.ca_file.with_suffix(".partial")
            partial.write_bytes(made.cert_pem.bytes())
            partial.rename(plan.ca_file)
        return trustme.CA.from_pem(plan.ca_file.read_bytes(), key_file.read_bytes())


def certify(plan: LabPlan, region: str, context: ssl.SSLContext, days: float = VALID_DAYS) -> datetime:
    """Load a new certificate for the Region's load balancer into ``context``; returns when it expires.

    ``days`` from now may be negative: then it has expired already. New connections get the new certificate.
    """
    end = datetime.now(UTC) + timedelta(days=days)
    leaf = authority(plan).issue_cert(
        STORE_NAME,
        plan.regions[region].alb_name,
        common_name=STORE_NAME,
        not_before=min(datetime.now(UTC), end) - timedelta(days=1),
        not_after=end,
    )
    file = plan.path / f"alb-{region}.pem"
    file.touch(mode=0o600)
    Path(file).write_bytes(leaf.private_key_pem.bytes() + b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    context.load_cert_chain(file)
    return end
