"""Choosing between the two ways classic metrics can go."""

import os

from crosswatch_exporters.blocks import EMF_LIMITS, METRIC_DATA_LIMITS
from crosswatch_exporters.classic.datums import Wanted
from crosswatch_exporters.classic.destinations import LogEvents, MetricData
from crosswatch_exporters.classic.packers import EmfPacker, MetricDataPacker
from crosswatch_exporters.endpoints import Route, aws_url
from crosswatch_exporters.self_metrics import SCOPE
from crosswatch_exporters.settings import Settings


def classic_lane(settings: Settings, lane_bytes: int) -> tuple[LogEvents, EmfPacker, Route] | tuple[MetricData, MetricDataPacker, Route]:
    """Destination, packer and route of the classic metrics; their endpoints are found as the AWS SDKs find them. Blocks fit a queue
    of `lane_bytes`."""
    service = settings.service
    # Every classic series is paid for: our own only where they are asked for.
    skip = frozenset() if settings.self_metrics == "classic" else frozenset({SCOPE})
    wanted = Wanted(settings.classic_names, settings.classic_dimensions, settings.classic_synthetic, skip)
    if settings.classic == "emf":
        route = Route(f"{aws_url('logs', settings.region, os.environ)}/", {}, settings.region, api="logs")
        packer = EmfPacker(settings.classic_namespace, service, wanted, EMF_LIMITS.for_queue(lane_bytes))
        return LogEvents(settings.emf_log_group, settings.emf_log_stream, settings.region), packer, route
    route = Route(f"{aws_url('monitoring', settings.region, os.environ)}/", {}, settings.region, api="monitoring")
    return (
        MetricData(settings.classic_namespace, settings.region),
        MetricDataPacker(service, wanted, METRIC_DATA_LIMITS.for_queue(lane_bytes)),
        route,
    )
