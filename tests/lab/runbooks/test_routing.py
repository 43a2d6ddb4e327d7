"""Draining and enabling a Region by runbook, with the cluster's endpoints and DNS well and ill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lab import admin
from lab.topology import routing_control_arn
from tests.lab.runbooks.conftest import LabWithRunbooks

ARC = ("us-east-1", "us-west-2", "eu-west-1", "ap-northeast-1", "ap-southeast-2")


def controls(lab: LabWithRunbooks) -> dict[str, bool]:
    """Whether each Region's control is on."""
    arc = lab.world.service("route53-recovery-cluster").controls
    return {name: arc.is_on(routing_control_arn(lab.plan.account, region.index)) for name, region in lab.plan.regions.items()}


def break_endpoints(lab: LabWithRunbooks, *regions: str, **fault: bool) -> None:
    for region in regions:
        admin.call(lab.plan.dns_admin_port, "POST", f"/arc/{region}", fault)


def output(execution: dict[str, Any], name: str) -> str:
    return str(execution["Outputs"][name][0])


def test_drain_and_enable(lab: LabWithRunbooks) -> None:
    """The control goes off, another endpoint says so, the name leads to the other Region only; enabling undoes it."""
    drained = lab.run("retail-DrainRegion", Region="us-east-1")
    assert drained["AutomationExecutionStatus"] == "Success", drained
    assert controls(lab) == {"us-east-1": False, "us-west-2": True}
    assert json.loads(output(drained, "VerifyDns.Answers")) == {"us-east-1": ["us-west-2"], "us-west-2": ["us-west-2"]}
    assert output(drained, "SetRoutingControlOff.Endpoint") != output(drained, "VerifyOnAnotherEndpoint.Endpoint")
    assert output(drained, "SetRoutingControlOff.Before") == "On"
    enabled = lab.run("retail-EnableRegion", Region="us-east-1")
    assert enabled["AutomationExecutionStatus"] == "Success", enabled
    assert controls(lab) == {"us-east-1": True, "us-west-2": True}
    assert json.loads(output(enabled, "VerifyDns.Answers"))["us-east-1"] == ["us-east-1"]


def test_the_last_region_stays_in_service_unless_told(lab: LabWithRunbooks) -> None:
    """The second drain changes nothing and says why; with AllowLast the control goes off and DNS is reported to fail open."""
    lab.run("retail-DrainRegion", Region="us-east-1")
    refused = lab.run("retail-DrainRegion", Region="us-west-2")
    assert refused["AutomationExecutionStatus"] == "Failed"
    assert "us-west-2 is the last Region that is on" in refused["FailureMessage"]
    assert controls(lab) == {"us-east-1": False, "us-west-2": True}
    forced = lab.run("retail-DrainRegion", Region="us-west-2", AllowLast="true", WithinSeconds="1")
    assert controls(lab) == {"us-east-1": False, "us-west-2": False}
    assert forced["AutomationExecutionStatus"] == "Failed"
    assert "still leads clients in us-west-2 to us-west-2" in forced["FailureMessage"]


def test_drain_works_with_two_endpoints_down(lab: LabWithRunbooks) -> None:
    """Three of five endpoints are a majority: the runbook finds one that answers."""
    break_endpoints(lab, "us-east-1", "eu-west-1", down=True)
    assert lab.run("retail-DrainRegion", Region="us-east-1")["AutomationExecutionStatus"] == "Success"
    assert controls(lab)["us-east-1"] is False


def test_drain_fails_loudly_without_a_majority(lab: LabWithRunbooks) -> None:
    """With three endpoints cut off nothing is changed, and the runbook fails and names every endpoint it tried."""
    break_endpoints(lab, *ARC[:3], isolated=True)
    failed = lab.run("retail-DrainRegion", Region="us-east-1")
    assert failed["AutomationExecutionStatus"] == "Failed"
    assert all(f"{region}: EndpointTemporarilyUnavailableException" in failed["FailureMessage"] for region in ARC)
    assert controls(lab) == {"us-east-1": True, "us-west-2": True}
    assert [step["StepStatus"] for step in failed["StepExecutions"]] == ["Failed", "Pending", "Pending"]


def test_drain_with_every_endpoint_down_and_after_it(lab: LabWithRunbooks) -> None:
    """Connections to endpoints that are down are reset; when they are whole again the same runbook works."""
    break_endpoints(lab, *ARC, down=True)
    failed = lab.run("retail-DrainRegion", Region="us-east-1")
    assert all(f"{region}: ConnectionClosedError" in failed["FailureMessage"] for region in ARC), failed["FailureMessage"]
    break_endpoints(lab, *ARC)
    assert lab.run("retail-DrainRegion", Region="us-east-1")["AutomationExecutionStatus"] == "Success"


def test_drain_fails_when_dns_does_not_follow(lab: LabWithRunbooks) -> None:
    """Name servers that are stuck on the old answer make the drain fail although the control is off."""
    admin.call(lab.plan.dns_admin_port, "POST", "/authority", {"stuck": True})
    failed = lab.run("retail-DrainRegion", Region="us-east-1", WithinSeconds="1")
    assert failed["AutomationExecutionStatus"] == "Failed"
    assert "still leads clients in us-east-1 to us-east-1" in failed["FailureMessage"]
    admin.call(lab.plan.dns_admin_port, "POST", "/authority", {"down": True})
    dark = lab.run("retail-DrainRegion", Region="us-east-1", WithinSeconds="1")
    assert "it is not known where the name leads" in dark["FailureMessage"]


def test_enable_fails_while_the_load_balancer_has_no_healthy_target(lab: LabWithRunbooks) -> None:
    """Route 53 leaves the Region out, so being enabled is not being in service."""
    lab.run("retail-DrainRegion", Region="us-east-1")
    lab.dns._balancers["us-east-1"].healthy = False
    lab.dns._say_balancers()
    failed = lab.run("retail-EnableRegion", Region="us-east-1", WithinSeconds="1")
    assert "Clients in us-east-1 are sent to us-west-2" in failed["FailureMessage"]
    assert controls(lab)["us-east-1"] is True


def test_wrong_parameters_start_nothing(lab: LabWithRunbooks) -> None:
    """Every wrong parameter is named."""
    ssm = lab.world.client("ssm", "us-west-2")
    with pytest.raises(ssm.exceptions.InvalidAutomationExecutionParametersException) as refused:
        ssm.start_automation_execution(DocumentName="retail-DrainRegion", Parameters={"Region": ["virginia"], "Colour": ["red"]})
    assert "no parameter Colour" in str(refused.value)
    assert "Region must match" in str(refused.value)
    unknown = lab.run("retail-DrainRegion", Region="eu-west-1")
    assert "There is no Region eu-west-1; there are us-east-1, us-west-2." in unknown["FailureMessage"]


def test_the_stock_command_line_starts_a_runbook(lab: LabWithRunbooks, tmp_path: Path) -> None:
    """`aws ssm start-automation-execution --parameters Region=…` works as on AWS."""
    environment = {**os.environ, **lab.plan.aws_environment("admin", "us-west-2"), "AWS_CONFIG_FILE": str(tmp_path / "none")}
    command = [str(Path(sys.executable).parent / "aws"), "ssm", "start-automation-execution", "--document-name", "retail-DrainRegion"]
    answer = subprocess.run([*command, "--parameters", "Region=us-east-1"], env=environment, capture_output=True, text=True, check=True)
    execution = lab.wait(json.loads(answer.stdout)["AutomationExecutionId"])
    assert execution["AutomationExecutionStatus"] == "Success"
    assert execution["ExecutedBy"].endswith(":user/admin")
