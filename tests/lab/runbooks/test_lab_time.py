"""Runbooks in a lab whose clock runs fast. (A module of its own: moto keeps one set of parameters per process.)"""

from __future__ import annotations

import pytest

from lab import admin
from tests.lab.runbooks.conftest import LabWithRunbooks


@pytest.mark.slow
def test_waiting_follows_lab_time(fast_lab: LabWithRunbooks) -> None:
    """At speed 20 a minute's patience with DNS ends after three seconds of the wall's."""
    admin.call(fast_lab.plan.dns_admin_port, "POST", "/authority", {"stuck": True})
    failed = fast_lab.run("retail-DrainRegion", within_s=20, Region="us-east-1", WithinSeconds="60")
    steps = {step["StepName"]: step for step in failed["StepExecutions"]}
    waited = steps["VerifyDns"]["ExecutionEndTime"] - steps["VerifyDns"]["ExecutionStartTime"]
    assert 60 <= waited.total_seconds() < 200
