"""The lab's handle on its AWS: a small HTTP API on the plan's control port (loopback, no signature; JSON in and out).

POST   /conditions                  put a condition (see `lab.aws.conditions`) or a list of them in force; answers them with their ids
GET    /conditions                  the conditions in force
DELETE /conditions[?id=c1][?region=R]   lift one, a Region's, or all
GET    /calls[?service=S][?region=R][?operation=O][?limit=N]   recent calls, newest last
POST   /vend                        publish AWS/* metrics: a list of {region, namespace, metric, dimensions, value, unit?, timestamp?}
GET    /health                      {"now": lab time, "regions": {name: "up" | "down"}, "services": [...]}
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from lab.aws.httpd import HttpServer
from lab.aws.protocol import Request, Response
from lab.aws.world import served

if TYPE_CHECKING:
    from lab.aws.gateway import Gateway

log = logging.getLogger(__name__)


class Control:
    """Serves the control API of ``gateway``."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._world = gateway.world
        self._server = HttpServer("127.0.0.1", gateway.plan.control_port, self.answer, "aws-control")

    def open(self) -> None:
        """Start to listen."""
        self._server.open()

    def close(self) -> None:
        """Stop listening."""
        self._server.close()

    def answer(self, request: Request) -> Response:
        """One request. What is wrong with it is answered with status 400 and {"problem": text}."""
        query = dict(request.query_pairs)
        try:
            body = json.loads(request.body) if request.body else None
            match (request.method, request.path):
                case ("POST", "/conditions"):
                    return self._add(body)
                case ("GET", "/conditions"):
                    return _json([condition.as_json() for condition in self._world.conditions.all()])
                case ("DELETE", "/conditions"):
                    gone = self._world.conditions.remove(query.get("id"), query.get("region"))
                    self._gateway.apply_conditions()
                    return _json([condition.as_json() for condition in gone])
                case ("GET", "/calls"):
                    return _json(self._calls(query))
                case ("POST", "/vend"):
                    return self._vend(body)
                case ("GET", "/health"):
                    regions = {name: "down" if self._world.is_down(name) else "up" for name in self._world.regions}
                    return _json({"now": self._world.clock.now(), "regions": regions, "services": served(self._world)})
        except (ValueError, KeyError, TypeError) as error:
            return _json({"problem": f"{type(error).__name__}: {error}"}, 400)
        return _json({"problem": f"no such thing: {request.method} {request.path}"}, 404)

    def _add(self, body: Any) -> Response:
        added = [self._world.conditions.add(each) for each in (body if isinstance(body, list) else [body])]
        self._gateway.apply_conditions()
        return _json([condition.as_json() for condition in added], 201)

    def _calls(self, query: dict[str, str]) -> list[dict[str, Any]]:
        limit = int(query.get("limit", "200"))
        wanted = {key: query[key] for key in ("service", "region", "operation") if key in query}
        calls = [call for call in list(self._gateway.recent) if all(call[key] == value for key, value in wanted.items())]
        return calls[-limit:]

    def _vend(self, body: Any) -> Response:
        if not isinstance(body, list):
            raise TypeError("a list of metrics is needed")
        for item in body:
            self._world.vend(
                item["region"],
                item["namespace"],
                item["metric"],
                item.get("dimensions", {}),
                float(item["value"]),
                item.get("unit", "None"),
                item.get("timestamp"),
            )
        return _json({"vended": len(body)})


def _json(value: Any, status: int = 200) -> Response:
    return Response(status, {"content-type": "application/json"}, json.dumps(value).encode())
