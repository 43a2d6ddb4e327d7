"""The data plane of Application Recovery Controller: reading and setting routing control states (botocore: route53-recovery-cluster).

Each of a cluster's five endpoints is an HTTP endpoint of its own; the Region of the request says which one was asked.
https://docs.aws.amazon.com/routing-control/latest/APIReference/Welcome.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lab.aws.service import AwsError
from lab.aws.services.routing_control import OFF, ON, Control, RoutingControls
from lab.aws.support import page

if TYPE_CHECKING:
    from lab.aws.service import Context, World

MOST_ENTRIES = 10


class Service:
    """The service; ``controls`` is shared with route53-recovery-control-config and with Route 53's health checks."""

    def __init__(self, world: World) -> None:
        self.controls = RoutingControls(world.account, world.is_down)

    def get_routing_control_state(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """The state of one control, as this endpoint knows it."""
        control = self._control(params["RoutingControlArn"])
        state = self.controls.read(ctx.region, [control.arn])[control.arn]
        return {"RoutingControlArn": control.arn, "RoutingControlName": control.name, "RoutingControlState": state}

    def list_routing_controls(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """All controls of a panel (of all panels where none is named) with their states."""
        panel_arn = params.get("ControlPanelArn")
        if panel_arn is not None and panel_arn not in self.controls.panels:
            raise not_found(panel_arn, "ControlPanel")
        controls = [control for control in self.controls.controls.values() if panel_arn in (None, control.panel_arn)]
        shown, token = page(controls, params.get("NextToken"), int(params.get("MaxResults") or 100))
        states = self.controls.read(ctx.region, [control.arn for control in shown])
        entries = [
            {
                "ControlPanelArn": control.panel_arn,
                "ControlPanelName": self.controls.panels[control.panel_arn].name,
                "RoutingControlArn": control.arn,
                "RoutingControlName": control.name,
                "RoutingControlState": states[control.arn],
                "Owner": ctx.account,
            }
            for control in shown
        ]
        return {"RoutingControls": entries, **({"NextToken": token} if token else {})}

    def update_routing_control_state(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Set one control."""
        return self.update_routing_control_states(ctx, {"UpdateRoutingControlStateEntries": [params], **params})

    def update_routing_control_states(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Set several controls, all or none."""
        entries = params["UpdateRoutingControlStateEntries"]
        if not 0 < len(entries) <= MOST_ENTRIES:
            raise AwsError(
                "ValidationException", f"Between 1 and {MOST_ENTRIES} routing controls can be updated in one call, not {len(entries)}."
            )
        changes: dict[str, str] = {}
        for entry in entries:
            state = entry["RoutingControlState"]
            if state not in (ON, OFF):
                raise AwsError("ValidationException", f"RoutingControlState must be On or Off, not {state!r}.")
            changes[self._control(entry["RoutingControlArn"]).arn] = state
        override = params.get("SafetyRulesToOverride") or []
        for arn in override:
            if arn not in self.controls.rules:
                raise not_found(arn, "SafetyRule")
        self.controls.update(ctx.region, changes, override, ctx.now)
        return {}

    def _control(self, arn: str) -> Control:
        control = self.controls.controls.get(arn)
        if control is None:
            raise not_found(arn, "RoutingControl")
        return control


def not_found(arn: str, kind: str) -> AwsError:
    """The error for an ARN that names nothing."""
    return AwsError("ResourceNotFoundException", f"{kind} not found: {arn}", 404, resourceId=arn, resourceType=kind)
