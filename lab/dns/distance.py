"""How far the Regions are from each other, for latency records.

Route 53 uses latencies that it measures and does not publish; here the distance between the Regions on the globe stands for them.
"""

from __future__ import annotations

from math import asin, cos, radians, sin, sqrt

# Latitude and longitude of each Region's metropolitan area, degrees.
PLACES: dict[str, tuple[float, float]] = {
    "us-east-1": (39.0, -77.5),
    "us-east-2": (40.0, -83.0),
    "us-west-1": (37.4, -121.9),
    "us-west-2": (45.8, -119.7),
    "ca-central-1": (45.5, -73.6),
    "ca-west-1": (51.0, -114.1),
    "sa-east-1": (-23.5, -46.6),
    "mx-central-1": (20.6, -100.4),
    "eu-west-1": (53.3, -6.3),
    "eu-west-2": (51.5, -0.1),
    "eu-west-3": (48.9, 2.4),
    "eu-central-1": (50.1, 8.7),
    "eu-central-2": (47.4, 8.5),
    "eu-north-1": (59.3, 18.1),
    "eu-south-1": (45.5, 9.2),
    "eu-south-2": (41.6, -0.9),
    "me-south-1": (26.1, 50.6),
    "me-central-1": (25.2, 55.3),
    "il-central-1": (32.1, 34.8),
    "af-south-1": (-33.9, 18.4),
    "ap-south-1": (19.1, 72.9),
    "ap-south-2": (17.4, 78.5),
    "ap-southeast-1": (1.4, 103.8),
    "ap-southeast-2": (-33.9, 151.2),
    "ap-southeast-3": (-6.2, 106.8),
    "ap-southeast-4": (-37.8, 145.0),
    "ap-east-1": (22.3, 114.2),
    "ap-northeast-1": (35.7, 139.7),
    "ap-northeast-2": (37.6, 127.0),
    "ap-northeast-3": (34.7, 135.5),
}


def distance_km(one: str, other: str) -> float:
    """The great-circle distance between two Regions, km; half the globe's girth where a Region is unknown."""
    if one == other:
        return 0.0
    if one not in PLACES or other not in PLACES:
        return 20_000.0
    (lat1, lon1), (lat2, lon2) = (tuple(map(radians, PLACES[region])) for region in (one, other))
    half = sin((lat2 - lat1) / 2) ** 2 + cos(lat1) * cos(lat2) * sin((lon2 - lon1) / 2) ** 2
    return 2 * 6371 * asin(sqrt(half))
