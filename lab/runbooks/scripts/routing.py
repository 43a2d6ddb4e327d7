"""Routing steps of the runbooks: set a Region's routing control, and prove that it took effect.

Runs inside aws:executeScript: standard library and boto3 only. Everything goes through data planes (the cluster's five endpoints, DNS), so
that it works while control planes do not. ``Routing`` is the JSON of the parameter /<workload>/routing:

    name          the service's DNS name                   controls     {Region: routing control ARN}
    endpoints     {Region: cluster endpoint URL}           balancers    {Region: load balancer's DNS name}
    nameServers   ["address:port"] of the hosted zone      vantages     {Region: an IPv4 address there, as EDNS client subnet}
    safetyRules   [ARN] to override when the last Region is taken out on purpose
"""

import json
import os
import random
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

Payload = dict[str, Any]

ON, OFF = "On", "Off"
PATIENCE = Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 1})
REFUSALS = ("ConflictException", "AccessDeniedException", "ResourceNotFoundException", "ValidationException")
DNS_TIMEOUT_S = 2.0
ROUND_EVERY_S = 2.0


class NotInEffect(Exception):
    """The routing is not as it has to be. The message says what was seen instead, and what to do."""


def set_state(events: Payload, _context: object) -> Payload:
    """Set ``Region``'s control to ``State`` through the first endpoint that does it. The last Region that is on stays on,
    unless ``AllowLast`` is true."""
    routing, region, state = _routing(events), events["Region"], events["State"]
    before, read_from = _read_all(routing)
    others_on = [name for name, current in before.items() if name != region and current == ON]
    override = []
    if state == OFF and not others_on:
        if not _truth(events.get("AllowLast")):
            raise NotInEffect(
                f"{region} is the last Region that is on; nothing was changed. Route 53 answers as if all were healthy when none is,"
                " so this would not take traffic off it. Start again with AllowLast=true if you want that."
            )
        override = routing.get("safetyRules", [])
    change = {"RoutingControlArn": _control(routing, region), "RoutingControlState": state}
    if override:
        change["SafetyRulesToOverride"] = override
    _, endpoint, failures = _first(routing, lambda client: client.update_routing_control_state(**change))
    print(f"{region}: {before[region]} -> {state} through the endpoint in {endpoint} (states read in {read_from})")
    return {"Endpoint": endpoint, "Before": before[region], "States": {**before, region: state}, "FailedEndpoints": failures}


def verify_state(events: Payload, _context: object) -> Payload:
    """Read the control back through an endpoint other than the one that set it; it has to say ``State``."""
    routing, region, state = _routing(events), events["Region"], events["State"]
    others = {name: url for name, url in routing["endpoints"].items() if name != events.get("Endpoint")}
    seen, endpoint, _ = _first({**routing, "endpoints": others}, lambda client: _state(client, routing, region))
    if seen != state:
        raise NotInEffect(f"The endpoint in {endpoint} says that the routing control of {region} is {seen}, not {state}.")
    return {"Endpoint": endpoint, "State": seen}


def verify_dns(events: Payload, _context: object) -> Payload:
    """Wait until the name's answers leave ``Region`` out (``Expect`` absent) or hold it where it asks from (present)."""
    routing, region = _routing(events), events["Region"]
    deadline = time.time() + float(events.get("WithinSeconds", 60))
    while True:
        try:
            answers = _answers(routing)
            problem = _problem(answers, region, events["Expect"])
        except OSError as error:
            answers, problem = {}, f"No name server answers ({error}), so it is not known where the name leads."
        if problem is None:
            print(f"{routing['name']}: {answers}")
            return {"Answers": answers}
        if time.time() >= deadline:
            raise NotInEffect(problem)
        time.sleep(ROUND_EVERY_S)


def require_drained(events: Payload, context: object) -> Payload:
    """Raise unless ``Region`` takes no traffic: its control is Off on two endpoints, and no answer of the name leads to it."""
    routing, region = _routing(events), events["Region"]
    states, endpoint = _read_all(routing)
    if states[region] != OFF:
        raise NotInEffect(
            f"The routing control of {region} is {states[region]} (read in {endpoint}): the Region still takes traffic."
            f" Nothing was failed over. Drain {region} first."
        )
    verify_state({**events, "State": OFF, "Endpoint": endpoint}, context)
    seen = verify_dns({**events, "Expect": "absent"}, context)
    return {"States": states, "Answers": seen["Answers"]}


def _problem(answers: dict[str, list[str]], region: str, expect: str) -> str | None:
    """What is wrong with the answers (Region -> where they lead, by asking Region), None where nothing is."""
    empty = sorted(vantage for vantage, led_to in answers.items() if not led_to)
    if empty:
        return f"The name has no answer for clients in {', '.join(empty)}."
    if expect == "present":
        return None if region in answers[region] else f"Clients in {region} are sent to {', '.join(answers[region])}, not to {region}."
    still = sorted(vantage for vantage, led_to in answers.items() if region in led_to)
    return f"The name still leads clients in {', '.join(still)} to {region}." if still else None


def _answers(routing: Payload) -> dict[str, list[str]]:
    """Where the name leads, for clients in each Region: {asking Region: [Region or unknown address]}."""
    owners = {address: region for region, name in routing["balancers"].items() for address in _resolve(routing, name)}
    return {
        vantage: sorted({owners.get(found, found) for found in _resolve(routing, routing["name"], subnet)})
        for vantage, subnet in routing["vantages"].items()
    }


def _resolve(routing: Payload, name: str, subnet: str | None = None) -> list[str]:
    """The IPv4 addresses of ``name``, from the first name server that answers. Raises OSError where none does."""
    error = OSError("no name servers are configured")
    for server in routing["nameServers"]:
        host, _, port = server.partition(":")
        try:
            return _ask(host, int(port or 53), name, subnet)
        except (OSError, struct.error, IndexError) as failure:
            error = OSError(f"{server}: {failure}")
    raise error


def _ask(host: str, port: int, name: str, subnet: str | None) -> list[str]:
    """One A query over UDP, with an EDNS client subnet (RFC 7871) where one is given."""
    identity = random.randrange(65536)
    question = b"".join(bytes([len(label)]) + label.encode() for label in name.rstrip(".").split(".")) + b"\0\0\1\0\1"
    option = struct.pack("!HHHBB", 8, 7, 1, 24, 0) + socket.inet_aton(subnet)[:3] if subnet else b""
    extra = b"\0\0\x29\x10\0\0\0\0\0" + struct.pack("!H", len(option)) + option
    message = struct.pack("!HHHHHH", identity, 0, 1, 0, 0, 1) + question + extra
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(DNS_TIMEOUT_S)
        sock.connect((host, port))
        sock.send(message)
        answer = sock.recv(4096)
    got, flags, _, count = struct.unpack_from("!HHHH", answer)
    if got != identity or flags & 0x0F not in (0, 3):
        raise OSError(f"answer code {flags & 0x0F}")
    at, found = 12 + len(question), []
    for _ in range(count):
        at = _name_end(answer, at)
        kind, _, _, length = struct.unpack_from("!HHIH", answer, at)
        if kind == 1:
            found.append(socket.inet_ntoa(answer[at + 10 : at + 14]))
        at += 10 + length
    return found


def _name_end(message: bytes, at: int) -> int:
    while message[at] and message[at] < 0xC0:
        at += 1 + message[at]
    return at + (2 if message[at] else 1)


def _read_all(routing: Payload) -> tuple[dict[str, str], str]:
    """Every Region's state, and which endpoint said so."""
    states, endpoint, _ = _first(routing, lambda client: {region: _state(client, routing, region) for region in routing["controls"]})
    return states, endpoint


def _state(client: Any, routing: Payload, region: str) -> str:
    return str(client.get_routing_control_state(RoutingControlArn=_control(routing, region))["RoutingControlState"])


def _first(routing: Payload, work: Callable[[Any], Any]) -> tuple[Any, str, dict[str, str]]:
    """``work(client)`` with the first endpoint where it succeeds, in random order as AWS advises: (result, Region, failures)."""
    endpoints = list(routing["endpoints"].items())
    random.shuffle(endpoints)
    failures: dict[str, str] = {}
    for region, url in endpoints:
        client = boto3.client("route53-recovery-cluster", region_name=region, endpoint_url=url, config=PATIENCE)
        try:
            return work(client), region, failures
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in REFUSALS:
                raise NotInEffect(f"The endpoint in {region} refuses: {code}: {error.response['Error']['Message']}") from error
            failures[region] = code
        except BotoCoreError as error:
            failures[region] = type(error).__name__
    told = "; ".join(f"{region}: {why}" for region, why in sorted(failures.items()))
    raise NotInEffect(f"None of the cluster's endpoints did it ({told}). The routing was not changed; try again, or use another way.")


def _routing(events: Payload) -> Payload:
    routing: Payload = json.loads(events["Routing"])
    _control(routing, events["Region"])
    return routing


def _control(routing: Payload, region: str) -> str:
    if region not in routing["controls"]:
        raise NotInEffect(f"There is no Region {region}; there are {', '.join(sorted(routing['controls']))}.")
    return str(routing["controls"][region])


def _truth(value: object) -> bool:
    return str(value).lower() == "true"


os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
