"""AWS clients, one for each service and Region; the topology's private endpoints decide where they point, nothing else differs."""

from __future__ import annotations

import threading
from typing import Any

import boto3
from botocore.config import Config

from topology import Topology

GLOBAL_HOME = "us-east-1"


class Session:
    """A thread-safe store of boto3 clients for one topology."""

    def __init__(self, topology: Topology, config: Config | None = None) -> None:
        self._topology = topology
        self._session = boto3.session.Session()
        self._config = config or Config(retries={"max_attempts": 8, "mode": "adaptive"}, connect_timeout=5, read_timeout=60)
        self._clients: dict[tuple[str, str], Any] = {}
        self._lock = threading.Lock()

    def client(self, service: str, region: str) -> Any:
        """The client of ``service`` in ``region``."""
        with self._lock:
            key = service, region
            if key not in self._clients:
                endpoint = self._topology.endpoint(region, service)
                self._clients[key] = self._session.client(service, region_name=region, endpoint_url=endpoint, config=self._config)
            return self._clients[key]
