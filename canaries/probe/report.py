"""What a run says of itself: one JSON line a round for Logs Insights, and one step for each target and page."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from canaries.probe.rounds import Round
    from canaries.probe.settings import ProbeSettings
    from canaries.probe.verdict import Look
    from canaries.probe.writers import Writers
    from canaries.shared.trace import TraceId

LINE_LIMIT: Final = 16 * 1024


def line(settings: ProbeSettings, seen: Round, run: TraceId, writes: Mapping[str, str | None], writers: Writers | None = None) -> str:
    """A round as one line of JSON, at most `LINE_LIMIT` bytes: failed looks first, then the others as long as there is room.

    ``writers`` is there in the round after RDS was asked: how many clusters of each database take writes, or why that is not known.
    """
    base: dict[str, Any] = {
        "crosswatch": "probe",
        "workload": settings.workload,
        "vantage": settings.vantage,
        "slot": seen.slot,
        "trace": str(run),
        "seconds": round(seen.seconds, 3),
        "sighted": seen.sighted,
        "cells": dict(seen.cells),
        "dns": _dns(settings, seen),
        "routing": {region: "on" if on else "off" for region, on in seen.routing.items()},
        "dns_agrees": seen.agrees,
        "writes": {region: error or "ok" for region, error in writes.items()},
    }
    if writers and (writers.counts or writers.unknown):
        base["writers"] = {**writers.counts, **writers.unknown}
    if seen.pooled is not None:
        base["pooled"] = {
            "ip": seen.pooled.exchange.ip,
            "region": seen.pooled.region,
            "age_s": round(seen.pooled.age_s, 1),
            "stale": seen.stale,
            **({"failure": str(seen.pooled.exchange.failure)} if seen.pooled.exchange.failure else {}),
        }
    rows: list[dict[str, Any]] = []
    size = len(json.dumps(base)) + 40
    looks = sorted(seen.looks, key=lambda look: look.first.ok)
    for look in looks:
        row = _row(look, seen.served_by.get((look.target, look.page)))
        size += len(json.dumps(row)) + 2
        if size > LINE_LIMIT:
            break
        rows.append(row)
    return json.dumps({**base, "looks": rows, "left_out": len(looks) - len(rows)}, separators=(",", ":"))


def verdict(look_failures: list[Look], run: TraceId) -> str:
    """Why a target's page failed this run, for the error of its step."""
    last = look_failures[-1]
    return f"{last.last.failure} ({len(look_failures)} rounds failed twice; trace {run})"


def _row(look: Look, region: str | None) -> dict[str, Any]:
    last = look.last
    row: dict[str, Any] = {
        "target": look.target,
        "page": look.page,
        "ok": last.ok,
        "ms": last.phases.as_dict(),
        "ip": last.ip,
        "region": region,
    }
    if last.status is not None:
        row["status"] = last.status
    if look.first.failure is not None:
        row["first"] = str(look.first.failure)
    if last.failure is not None:
        row |= {"kind": last.failure.kind, "phase": last.failure.phase, "detail": last.failure.detail[:300]}
    return row


def _dns(settings: ProbeSettings, seen: Round) -> dict[str, Any]:
    found: dict[str, Any] = {}
    hosts = {target.name: target.host for target in settings.targets}
    for look in seen.looks:
        answer = look.last.answer
        if answer is not None and answer.ttl_s is not None:
            found[hosts[look.target]] = {"addresses": answer.addresses, "ttl_s": answer.ttl_s}
    return found
