"""The control plane of Application Recovery Controller (botocore: route53-recovery-control-config); it is in us-west-2 only.

https://docs.aws.amazon.com/recovery-cluster/latest/api/what-is-recovery-control.html
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from lab.aws.service import AwsError
from lab.aws.services.routing_control import CONTROL_PLANE_REGION, Cluster, Control, Panel, RoutingControls, SafetyRule
from lab.aws.support import page

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab.aws.service import Context, World

MOST_CLUSTERS = 2
DEPLOYED = "DEPLOYED"

T = TypeVar("T")


class Service:
    """The service. ``endpoints`` maps each endpoint Region to its URL; the lab sets it once the endpoints listen."""

    home_region = CONTROL_PLANE_REGION

    def __init__(self, world: World) -> None:
        self._world = world
        self.endpoints: Mapping[str, str] = {}

    @property
    def _all(self) -> RoutingControls:
        controls: RoutingControls = self._world.service("route53-recovery-cluster").controls
        return controls

    def create_cluster(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """A new cluster with its five endpoints."""
        name = params["ClusterName"]
        if any(cluster.name == name for cluster in self._all.clusters.values()):
            raise _conflict(f"A cluster with the name {name} exists already.")
        if len(self._all.clusters) >= MOST_CLUSTERS:
            raise AwsError("ServiceQuotaExceededException", f"An account can have {MOST_CLUSTERS} clusters.", 402)
        cluster = self._all.add_cluster(name)
        self._all.tags[cluster.arn] = dict(params.get("Tags") or {})
        return {"Cluster": self._cluster(ctx, cluster)}

    def describe_cluster(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """A cluster and its endpoints."""
        return {"Cluster": self._cluster(ctx, _found(self._all.clusters, params["ClusterArn"], "cluster"))}

    def list_clusters(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """All clusters."""
        return _listed("Clusters", [self._cluster(ctx, cluster) for cluster in self._all.clusters.values()], params)

    def delete_cluster(self, _ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Delete a cluster that has no control panel but the default one."""
        cluster = _found(self._all.clusters, params["ClusterArn"], "cluster")
        panels = [panel for panel in self._all.panels.values() if panel.cluster_arn == cluster.arn]
        if any(not panel.default or self._controls_of(panel.arn) for panel in panels):
            raise _conflict("The cluster still has control panels or routing controls; delete them first.")
        for panel in panels:
            del self._all.panels[panel.arn]
        del self._all.clusters[cluster.arn]
        return {}

    def create_control_panel(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """A new control panel."""
        cluster = _found(self._all.clusters, params["ClusterArn"], "cluster")
        name = params["ControlPanelName"]
        if any(panel.name == name and panel.cluster_arn == cluster.arn for panel in self._all.panels.values()):
            raise _conflict(f"A control panel with the name {name} exists already.")
        panel = self._all.add_panel(name, cluster.arn)
        self._all.tags[panel.arn] = dict(params.get("Tags") or {})
        return {"ControlPanel": self._panel(ctx, panel)}

    def describe_control_panel(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """A control panel."""
        return {"ControlPanel": self._panel(ctx, _found(self._all.panels, params["ControlPanelArn"], "control panel"))}

    def list_control_panels(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """The control panels of one cluster, or of all."""
        wanted = params.get("ClusterArn")
        panels = [self._panel(ctx, panel) for panel in self._all.panels.values() if wanted in (None, panel.cluster_arn)]
        return _listed("ControlPanels", panels, params)

    def update_control_panel(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Rename a control panel."""
        panel = replace(_found(self._all.panels, params["ControlPanelArn"], "control panel"), name=params["ControlPanelName"])
        self._all.panels[panel.arn] = panel
        return {"ControlPanel": self._panel(ctx, panel)}

    def delete_control_panel(self, _ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Delete an empty control panel."""
        panel = _found(self._all.panels, params["ControlPanelArn"], "control panel")
        if self._controls_of(panel.arn) or any(rule.panel_arn == panel.arn for rule in self._all.rules.values()):
            raise _conflict("The control panel still has routing controls or safety rules; delete them first.")
        del self._all.panels[panel.arn]
        return {}

    def create_routing_control(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """A new routing control, Off; in the cluster's default panel where none is named."""
        cluster = _found(self._all.clusters, params["ClusterArn"], "cluster")
        default = next(panel.arn for panel in self._all.panels.values() if panel.default and panel.cluster_arn == cluster.arn)
        panel = _found(self._all.panels, params.get("ControlPanelArn") or default, "control panel")
        name = params["RoutingControlName"]
        if any(control.name == name for control in self._controls_of(panel.arn)):
            raise _conflict(f"A routing control with the name {name} exists already.")
        return {"RoutingControl": _control(ctx, self._all.add_control(name, panel.arn))}

    def describe_routing_control(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """A routing control, without its state: that is the data plane's."""
        return {"RoutingControl": _control(ctx, _found(self._all.controls, params["RoutingControlArn"], "routing control"))}

    def list_routing_controls(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """The routing controls of a panel."""
        panel = _found(self._all.panels, params["ControlPanelArn"], "control panel")
        return _listed("RoutingControls", [_control(ctx, control) for control in self._controls_of(panel.arn)], params)

    def update_routing_control(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Rename a routing control."""
        control = replace(_found(self._all.controls, params["RoutingControlArn"], "routing control"), name=params["RoutingControlName"])
        self._all.controls[control.arn] = control
        return {"RoutingControl": _control(ctx, control)}

    def delete_routing_control(self, _ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Delete a routing control that no safety rule names."""
        control = _found(self._all.controls, params["RoutingControlArn"], "routing control")
        if any(control.arn in (*rule.controls, *rule.targets) for rule in self._all.rules.values()):
            raise _conflict("A safety rule names the routing control; delete the rule first.")
        self._all.remove_control(control.arn)
        return {}

    def list_associated_route53_health_checks(self, _ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """The ids of the RECOVERY_CONTROL health checks of a routing control."""
        control = _found(self._all.controls, params["RoutingControlArn"], "routing control")
        checks = self._world.service("route53").checks.all()
        return _listed("HealthCheckIds", [check.id for check in checks if check.config.get("RoutingControlArn") == control.arn], params)

    def create_safety_rule(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """A new assertion or gating rule."""
        new = params.get("AssertionRule") or params.get("GatingRule")
        if new is None or (params.get("AssertionRule") and params.get("GatingRule")):
            raise AwsError("ValidationException", "Give exactly one of AssertionRule and GatingRule.")
        controls = tuple(new.get("AssertedControls") or new.get("GatingControls") or ())
        targets = tuple(new.get("TargetControls") or ())
        panel = _found(self._all.panels, new["ControlPanelArn"], "control panel")
        for arn in (*controls, *targets):
            if _found(self._all.controls, arn, "routing control").panel_arn != panel.arn:
                raise AwsError("ValidationException", f"The routing control {arn} is not in the control panel {panel.arn}.")
        config = new["RuleConfig"]
        rule = SafetyRule(
            "",
            new["Name"],
            panel.arn,
            controls,
            config["Type"],
            int(config["Threshold"]),
            bool(config["Inverted"]),
            int(new["WaitPeriodMs"]),
            targets,
        )
        rule = self._all.add_rule(rule)
        self._all.tags[rule.arn] = dict(params.get("Tags") or {})
        return _rule(ctx, rule)

    def describe_safety_rule(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """A safety rule."""
        return _rule(ctx, _found(self._all.rules, params["SafetyRuleArn"], "safety rule"))

    def list_safety_rules(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """The safety rules of a panel."""
        panel = _found(self._all.panels, params["ControlPanelArn"], "control panel")
        rules = [rule for rule in self._all.rules.values() if rule.panel_arn == panel.arn]
        shown = [{("GATING" if rule.targets else "ASSERTION"): next(iter(_rule(ctx, rule).values()))} for rule in rules]
        return _listed("SafetyRules", shown, params)

    def update_safety_rule(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Change a rule's name or waiting period."""
        change = params.get("AssertionRuleUpdate") or params.get("GatingRuleUpdate") or {}
        rule = _found(self._all.rules, change.get("SafetyRuleArn", ""), "safety rule")
        rule = replace(rule, name=change["Name"], wait_ms=int(change["WaitPeriodMs"]))
        self._all.rules[rule.arn] = rule
        return _rule(ctx, rule)

    def delete_safety_rule(self, _ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Delete a rule."""
        del self._all.rules[_found(self._all.rules, params["SafetyRuleArn"], "safety rule").arn]
        return {}

    def list_tags_for_resource(self, _ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """The tags of a cluster, panel or rule."""
        return {"Tags": self._all.tags.get(params["ResourceArn"], {})}

    def tag_resource(self, _ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Add tags."""
        self._all.tags.setdefault(params["ResourceArn"], {}).update(params["Tags"])
        return {}

    def untag_resource(self, _ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Take tags away."""
        for key in params["TagKeys"]:
            self._all.tags.get(params["ResourceArn"], {}).pop(key, None)
        return {}

    def _controls_of(self, panel_arn: str) -> list[Control]:
        return [control for control in self._all.controls.values() if control.panel_arn == panel_arn]

    def _cluster(self, ctx: Context, cluster: Cluster) -> dict[str, Any]:
        endpoints = [{"Endpoint": url, "Region": region} for region, url in self.endpoints.items()]
        return {"ClusterArn": cluster.arn, "Name": cluster.name, "Status": DEPLOYED, "ClusterEndpoints": endpoints, "Owner": ctx.account}

    def _panel(self, ctx: Context, panel: Panel) -> dict[str, Any]:
        return {
            "ClusterArn": panel.cluster_arn,
            "ControlPanelArn": panel.arn,
            "DefaultControlPanel": panel.default,
            "Name": panel.name,
            "RoutingControlCount": len(self._controls_of(panel.arn)),
            "Status": DEPLOYED,
            "Owner": ctx.account,
        }


def _control(ctx: Context, control: Control) -> dict[str, Any]:
    return {
        "ControlPanelArn": control.panel_arn,
        "Name": control.name,
        "RoutingControlArn": control.arn,
        "Status": DEPLOYED,
        "Owner": ctx.account,
    }


def _rule(ctx: Context, rule: SafetyRule) -> dict[str, Any]:
    shape: dict[str, Any] = {
        "ControlPanelArn": rule.panel_arn,
        "Name": rule.name,
        "RuleConfig": {"Type": rule.kind, "Threshold": rule.threshold, "Inverted": rule.inverted},
        "SafetyRuleArn": rule.arn,
        "Status": DEPLOYED,
        "WaitPeriodMs": rule.wait_ms,
        "Owner": ctx.account,
    }
    if rule.targets:
        return {"GatingRule": {**shape, "GatingControls": list(rule.controls), "TargetControls": list(rule.targets)}}
    return {"AssertionRule": {**shape, "AssertedControls": list(rule.controls)}}


def _listed(key: str, items: list[Any], params: dict[str, Any]) -> dict[str, Any]:
    shown, token = page(items, params.get("NextToken"), int(params.get("MaxResults") or 1000))
    return {key: shown, **({"NextToken": token} if token else {})}


def _found(things: Mapping[str, T], arn: str, kind: str) -> T:
    if arn not in things:
        raise AwsError("ResourceNotFoundException", f"There is no {kind} {arn}.", 404)
    return things[arn]


def _conflict(message: str) -> AwsError:
    return AwsError("ConflictException", message, 409)
