"""Route 53: hosted zones, record sets and health checks (botocore: route53), and what the name servers need to know of them.

The API is the control plane, in us-east-1 alone: while that Region is down every call is refused, and DNS and health checks go on.
Health checks publish to ``AWS/Route53`` in us-east-1 only, once a minute, and nothing while a check is disabled.
https://docs.aws.amazon.com/Route53/latest/APIReference/Welcome.html
"""

from __future__ import annotations

import random
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lab.aws.service import AwsError
from lab.aws.services.route53_checks import CheckOperations
from lab.aws.support import stamp
from lab.dns.changes import InvalidBatchError, apply, record_to_api
from lab.dns.checks import HealthChecks, Surroundings
from lab.dns.lookup import Asker, View, look_up
from lab.dns.records import RecordSet, Vpc, Zone, ZoneBook, canonical

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lab.aws.service import Context, World

HOME = "us-east-1"
NAME_SERVERS = ("ns-1.lab-dns-00.com", "ns-2.lab-dns-01.net", "ns-3.lab-dns-02.org", "ns-4.lab-dns-03.co.uk")
NS_TTL_S, SOA_TTL_S = 172_800, 900


class Service(CheckOperations):
    """The service. ``zones`` and ``checks`` are also read by the name servers (lab/dns)."""

    home_region = HOME

    def __init__(self, world: World) -> None:
        self.world = world
        self.zones = ZoneBook()
        self.balancers: Mapping[str, bool] = {}
        self.balancers_version = 0
        self._tags: dict[tuple[str, str], dict[str, str]] = {}
        self._changes: dict[str, float] = {}
        self.checks = HealthChecks(
            world.clock,
            Surroundings(
                routing_control_is_on=lambda arn: self._arc().is_on(arn),
                resolve=self._resolve,
                metric=self.read_metric,
                outside_version=lambda: self._arc().version,
            ),
        )
        world.every(1.0, self.checks.tick, name="route53-checks")
        world.every(60.0, self.publish, region=HOME, name="route53-metrics")

    def view(self) -> View:
        """What the name servers know now."""
        return View(self.zones, self.checks.unhealthy(), dict(self.balancers))

    def version(self) -> tuple[object, ...]:
        """Changes whenever `view` may have."""
        return (self.zones.version, self.checks.version, self.balancers_version)

    def set_balancers(self, balancers: Mapping[str, bool]) -> None:
        """Say which names are load balancers, and whether each has a healthy target."""
        canonical_names = {canonical(name): healthy for name, healthy in balancers.items()}
        if canonical_names != self.balancers:
            self.balancers = canonical_names
            self.balancers_version += 1

    def create_hosted_zone(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """A new zone, with its SOA and NS records; private where a VPC is given."""
        name = canonical(params["Name"])
        if any(zone.caller_reference == params["CallerReference"] for zone in self.zones.all()):
            raise AwsError("HostedZoneAlreadyExists", "A hosted zone has already been created with the specified caller reference.", 409)
        config = params.get("HostedZoneConfig") or {}
        vpc = params.get("VPC")
        zone = Zone(
            id="Z" + secrets.token_hex(10).upper(),
            name=name,
            caller_reference=params["CallerReference"],
            comment=config.get("Comment") or "",
            private=vpc is not None,
            vpcs=(Vpc(vpc["VPCRegion"], vpc["VPCId"]),) if vpc else (),
        )
        soa = f"{NAME_SERVERS[0]}. hostmaster.{name} 1 7200 900 1209600 86400"
        servers = tuple(f"{server}." for server in NAME_SERVERS)
        zone = zone.with_records([RecordSet(name, "NS", NS_TTL_S, servers), RecordSet(name, "SOA", SOA_TTL_S, (soa,))])
        self.zones.put(zone)
        return {
            **self._zone(zone),
            "ChangeInfo": self._changed(ctx),
            "Location": f"https://route53.amazonaws.com/2013-04-01/hostedzone/{zone.id}",
        }

    def get_hosted_zone(self, _ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """A zone and its VPCs."""
        return self._zone(self._found(params["Id"]))

    def list_hosted_zones(self, _ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """All zones."""
        shapes = [self._zone(zone)["HostedZone"] for zone in self.zones.all()]
        shown, following = _slice(shapes, params.get("Marker"), params.get("MaxItems"))
        return {
            "HostedZones": shown,
            "Marker": params.get("Marker") or "",
            "MaxItems": str(params.get("MaxItems") or 100),
            **_next("NextMarker", following),
        }

    def list_hosted_zones_by_name(self, _ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """All zones from a name on, in the order of names."""
        start = canonical(params["DNSName"]) if params.get("DNSName") else ""
        zones = [zone for zone in self.zones.all() if _order(zone.name) >= _order(start)]
        zones.sort(key=lambda zone: _order(zone.name))
        most = int(params.get("MaxItems") or 100)
        answer = {
            "HostedZones": [self._zone(zone)["HostedZone"] for zone in zones[:most]],
            "IsTruncated": len(zones) > most,
            "MaxItems": str(most),
        }
        return {**answer, **({"DNSName": params["DNSName"]} if params.get("DNSName") else {})}

    def get_hosted_zone_count(self, _ctx: Context, _params: dict[str, Any]) -> dict[str, Any]:
        """How many zones there are."""
        return {"HostedZoneCount": len(self.zones.all())}

    def delete_hosted_zone(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Delete a zone that holds nothing but its SOA and NS records."""
        zone = self._found(params["Id"])
        if any((record.name, record.type) not in {(zone.name, "SOA"), (zone.name, "NS")} for record in zone.all_records()):
            raise AwsError(
                "HostedZoneNotEmpty", "The specified hosted zone contains non-required resource record sets and so cannot be deleted."
            )
        self.zones.remove(zone.id)
        return {"ChangeInfo": self._changed(ctx)}

    def update_hosted_zone_comment(self, _ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Change a zone's comment."""
        zone = replace(self._found(params["Id"]), comment=params.get("Comment") or "")
        self.zones.put(zone)
        return {"HostedZone": self._zone(zone)["HostedZone"]}

    def associate_vpc_with_hosted_zone(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Let a VPC resolve a private zone's names."""
        zone = self._found(params["HostedZoneId"])
        if not zone.private:
            raise AwsError("PublicZoneVPCAssociation", "The hosted zone is public; a VPC can only be associated with a private one.")
        vpc = Vpc(params["VPC"]["VPCRegion"], params["VPC"]["VPCId"])
        if vpc not in zone.vpcs:
            self.zones.put(replace(zone, vpcs=(*zone.vpcs, vpc)))
        return {"ChangeInfo": self._changed(ctx)}

    def disassociate_vpc_from_hosted_zone(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Take a VPC away from a private zone; the last one has to stay."""
        zone = self._found(params["HostedZoneId"])
        vpc = Vpc(params["VPC"]["VPCRegion"], params["VPC"]["VPCId"])
        if vpc not in zone.vpcs:
            raise AwsError("VPCAssociationNotFound", "The specified VPC and hosted zone are not associated.", 404)
        if len(zone.vpcs) == 1:
            raise AwsError("LastVPCAssociation", "The VPC is the last one that is associated with the private hosted zone.")
        self.zones.put(replace(zone, vpcs=tuple(other for other in zone.vpcs if other != vpc)))
        return {"ChangeInfo": self._changed(ctx)}

    def change_resource_record_sets(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Apply a batch of changes, all or none."""
        zone = self._found(params["HostedZoneId"])
        changes = params["ChangeBatch"]["Changes"]
        missing = [
            f"The specified health check was not found: {check}"
            for change in changes
            if change["Action"] != "DELETE"
            and (check := change["ResourceRecordSet"].get("HealthCheckId"))
            and self.checks.get(check) is None
        ]
        try:
            if missing:
                raise InvalidBatchError(missing)
            self.zones.put(apply(zone, changes))
        except InvalidBatchError as error:
            raise AwsError("InvalidChangeBatch", f"[{', '.join(error.messages)}]", messages=error.messages) from error
        return {"ChangeInfo": self._changed(ctx)}

    def list_resource_record_sets(self, _ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """A zone's records from a name, type and identifier on."""
        zone = self._found(params["HostedZoneId"])
        start = (
            _order(canonical(params.get("StartRecordName") or ".")),
            params.get("StartRecordType") or "",
            params.get("StartRecordIdentifier") or "",
        )
        if not params.get("StartRecordName"):
            start = ([], "", "")
        records = [record for record in zone.all_records() if (_order(record.name), record.type, record.set_identifier or "") >= start]
        most = int(params.get("MaxItems") or 300)
        answer: dict[str, Any] = {
            "ResourceRecordSets": [record_to_api(record) for record in records[:most]],
            "IsTruncated": len(records) > most,
            "MaxItems": str(most),
        }
        if len(records) > most:
            following = records[most]
            answer |= {
                "NextRecordName": following.name,
                "NextRecordType": following.type,
                **_next("NextRecordIdentifier", following.set_identifier),
            }
        return answer

    def get_change(self, _ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """The state of a change; the name servers know at once, so it is INSYNC."""
        change = str(params["Id"]).removeprefix("/change/")
        if change not in self._changes:
            raise AwsError("NoSuchChange", f"A change with the specified change ID does not exist: {change}", 404)
        return {"ChangeInfo": {"Id": f"/change/{change}", "Status": "INSYNC", "SubmittedAt": stamp(self._changes[change])}}

    def test_dns_answer(self, _ctx: Context, params: dict[str, Any]) -> dict[str, Any]:  # noqa: PT019 - not a test
        """What the name servers answer. ``ResolverIP`` and the client subnet say from where; without them the asker is in us-east-1."""
        zone = self._found(params["HostedZoneId"])
        source = params.get("EDNS0ClientSubnetIP") or params.get("ResolverIP") or ""
        asker = self.asker(source)
        name = canonical(params["RecordName"])
        answer = look_up(
            self.view(),
            name,
            params["RecordType"],
            Asker(asker.region, asker.vpc_region or (zone.vpcs[0].region if zone.vpcs else None)),
            random.Random(),
        )
        codes = {0: "NOERROR", 3: "NXDOMAIN", 5: "REFUSED"}
        return {
            "Nameserver": NAME_SERVERS[0],
            "RecordName": name,
            "RecordType": params["RecordType"],
            "RecordData": [line.value for line in answer.lines],
            "ResponseCode": codes[answer.code],
            "Protocol": "UDP",
        }

    asker: Callable[[str], Asker] = staticmethod(lambda _source: Asker(HOME))

    def change_tags_for_resource(self, _ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Add and remove tags of a zone or health check."""
        tags = self._tags.setdefault((params["ResourceType"], params["ResourceId"]), {})
        tags.update({tag["Key"]: tag.get("Value") or "" for tag in params.get("AddTags") or ()})
        for key in params.get("RemoveTagKeys") or ():
            tags.pop(key, None)
        return {}

    def list_tags_for_resource(self, _ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """The tags of a zone or health check."""
        return {"ResourceTagSet": self._tag_set(params["ResourceType"], params["ResourceId"])}

    def list_tags_for_resources(self, _ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """The tags of several zones or health checks."""
        return {"ResourceTagSets": [self._tag_set(params["ResourceType"], resource) for resource in params["ResourceIds"]]}

    def _tag_set(self, kind: str, resource: str) -> dict[str, Any]:
        tags = self._tags.get((kind, resource), {})
        return {"ResourceType": kind, "ResourceId": resource, "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}

    def _zone(self, zone: Zone) -> dict[str, Any]:
        shape = {
            "Id": f"/hostedzone/{zone.id}",
            "Name": zone.name,
            "CallerReference": zone.caller_reference,
            "Config": {"Comment": zone.comment, "PrivateZone": zone.private},
            "ResourceRecordSetCount": len(zone.all_records()),
        }
        if not zone.private:
            return {"HostedZone": shape, "DelegationSet": {"NameServers": list(NAME_SERVERS)}}
        vpcs = [{"VPCRegion": vpc.region, "VPCId": vpc.id} for vpc in zone.vpcs]
        return {"HostedZone": shape, "VPCs": vpcs, "VPC": vpcs[0]}

    def _found(self, zone_id: str) -> Zone:
        plain = str(zone_id).removeprefix("/hostedzone/")
        zone = self.zones.get(plain)
        if zone is None:
            raise AwsError("NoSuchHostedZone", f"No hosted zone found with ID: {plain}", 404)
        return zone

    def _changed(self, ctx: Context) -> dict[str, Any]:
        change = "C" + secrets.token_hex(10).upper()
        self._changes[change] = ctx.now
        return {"Id": f"/change/{change}", "Status": "INSYNC", "SubmittedAt": stamp(ctx.now)}

    def _arc(self) -> Any:
        return self.world.service("route53-recovery-cluster").controls

    def _resolve(self, name: str) -> str | None:
        answer = look_up(self.view_for_checkers(), canonical(name), "A", Asker(HOME), random.Random(0))
        return next((line.value for line in answer.lines if line.type == "A"), None)

    def view_for_checkers(self) -> View:
        """The zones alone: a health checker's own look-up must not depend on the health that it is asked for."""
        return View(self.zones, frozenset(), dict(self.balancers))


def _order(name: str) -> list[str]:
    """The sort key of a name: its labels from the last to the first."""
    return name.rstrip(".").split(".")[::-1]


def _slice(items: list[dict[str, Any]], marker: str | None, most: Any) -> tuple[list[dict[str, Any]], str | None]:
    """One page of ``items`` from the one whose id is ``marker`` on, and the id of the first that did not fit."""
    ids = [str(item["Id"]).rpartition("/")[2] for item in items]
    start = ids.index(marker) if marker in ids else 0
    end = start + int(most or 100)
    return items[start:end], ids[end] if end < len(ids) else None


def _next(key: str, value: str | None) -> dict[str, Any]:
    if key == "NextMarker":
        return {"IsTruncated": value is not None, **({key: value} if value else {})}
    return {key: value} if value else {}
