"""A store with two Regions, for the tests of ledger and journey: an order table each, replication that lags as tests choose, failover."""

from __future__ import annotations

import json
import threading
import time
import uuid
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, redirect, request

from tests.canaries.servers import served

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    from werkzeug.wrappers import Response as BaseResponse

PRODUCT = "6d62d909-f957-430e-8689-b5129c0bb75e"
REGIONS = ("us-east-1", "us-west-2")


@dataclass
class Shop:
    """The whole store. ``writer`` takes the orders; the other Region gets them ``lag_s`` later, or never while ``cut``.

    ``confirm``: what the last question is answered with: "well"; "page", taken but answered with a page that has no number; "late", taken
    and answered after three seconds; "refused", not taken. ``forget_deletes``: DELETE finds none. ``hooks``: called once before a request.
    """

    writer: str = REGIONS[0]
    lag_s: float = 0.0
    cut: bool = False
    orders: dict[str, dict[str, dict[str, Any]]] = field(default_factory=lambda: {region: {} for region in REGIONS})
    broken: dict[str, int] = field(default_factory=dict)
    script: str = ""
    picture: int = 200
    refuse_deletes: bool = False
    forget_deletes: bool = False
    confirm: str = "well"
    hooks: dict[str, Callable[[], None]] = field(default_factory=dict)
    seen: list[dict[str, str]] = field(default_factory=list)
    deletes: list[str] = field(default_factory=list)
    ports: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def commit(self, order: dict[str, Any]) -> None:
        """Write an order where the writer is, and replicate it in order."""
        with self.lock:
            self.orders[self.writer][order["id"]] = {**order, "visible": 0.0}
            for region in REGIONS:
                if region != self.writer and not self.cut:
                    self.orders[region][order["id"]] = {**order, "visible": time.time() + self.lag_s}

    def find(self, region: str, identity: str) -> dict[str, Any] | None:
        """An order as a Region's reader sees it."""
        with self.lock:
            found = self.orders[region].get(identity)
            return found if found and found["visible"] <= time.time() else None

    def hide(self, region: str, identity: str, seconds: float) -> None:
        """Let a Region's readers not have an order for a while."""
        with self.lock:
            self.orders[region][identity]["visible"] = time.time() + seconds

    def fail_over(self) -> set[str]:
        """Make the other Region the writer; what had not arrived there is lost. Returns the lost orders' ids: the ground truth."""
        with self.lock:
            old, self.writer = self.writer, next(region for region in REGIONS if region != self.writer)
            now = time.time()
            kept = {identity: order for identity, order in self.orders[self.writer].items() if order["visible"] <= now}
            gone = set(self.orders[old]) - set(kept)
            self.orders[self.writer] = kept
            self.cut = True  # the old primary is no replica of the new one until it is rebuilt
            return gone

    def app(self, region: str) -> Flask:
        """The UI of one Region."""
        app = Flask(region)

        def html(body: str, status: int = 200) -> Response:
            links = '<a href="/catalog">Catalog</a><img src="/assets/watch.svg" alt="">'
            return Response(f"<html><title>Store</title><body>{links}{body}<script>{self.script}</script></body></html>", status)

        @app.before_request
        def trouble() -> Response | None:
            self.seen.append({"path": request.path, "region": region, **{k.lower(): v for k, v in request.headers}})
            hook = self.hooks.pop(f"{request.method} {request.path}", None)
            if hook is not None:
                hook()
            status = self.broken.get(f"{request.method} {request.path}") or self.broken.get(region)
            return html("Something is broken", status) if status else None

        @app.after_request
        def sign(response: Response) -> Response:
            response.headers["X-Retail-Store-Metadata"] = f"region={region}; task=1"
            return response

        @app.get("/assets/watch.svg")
        def picture() -> Response:
            svg = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
            return Response(svg if self.picture == 200 else "", self.picture, content_type="image/svg+xml")

        @app.get("/home")
        @app.get("/catalog")
        def catalog() -> Response:
            return html(f'<h1>Watches</h1><a href="/catalog/{PRODUCT}">Chronograf Classic</a> $530')

        @app.get("/catalog/<identity>")
        def product(identity: str) -> Response:
            form = (
                f'<form method="post" action="/cart"><input type="hidden" name="productId" value="{identity}"><button>Add</button></form>'
            )
            return html(f"<h1>Chronograf Classic</h1><p>$530</p>{form}")

        self._add_checkout(app, html)
        self._add_orders(app, region)
        return app

    def _add_checkout(self, app: Flask, html: Callable[[str], Response]) -> None:
        @app.post("/cart")
        def add() -> BaseResponse:
            assert request.form["productId"] == PRODUCT
            return redirect("/cart", 303)

        @app.get("/cart")
        def cart() -> Response:
            return html('<p>Chronograf Classic $530</p><a href="/checkout">Checkout</a>')

        @app.get("/checkout")
        def checkout() -> Response:
            names = ("firstName", "lastName", "email", "address1", "city", "state", "zip")
            fields = "".join(f'<input name="{name}">' for name in names)
            return html(f'<form method="post" action="/checkout">{fields}<button>Next</button></form>')

        @app.post("/checkout")
        def address() -> Response:
            if len(request.form.get("zip", "")) != 5:
                return checkout()
            radio = '<input type="radio" name="token" value="priority-mail" checked>'
            return html(f'<form method="post" action="/checkout/delivery">{radio}<button>Next</button></form>')

        @app.post("/checkout/delivery")
        def delivery() -> Response:
            return html('<form method="post" action="/checkout/payment"><button>Pay</button></form>')

        @app.post("/checkout/payment")
        def payment() -> Response:
            return html('<p>Chronograf Classic $530</p><form method="post" action="/checkout/confirm"><button>Order</button></form>')

        @app.post("/checkout/confirm")
        def confirm() -> Response:
            order = {"id": str(uuid.uuid4()), "synthetic": request.headers.get("X-Crosswatch-Synthetic") == "true"}
            if self.confirm == "refused":
                return Response("Too many orders", 429)
            self.commit(order)
            time.sleep(3 if self.confirm == "late" else 0)
            if self.confirm == "page":
                return html("<p>Thank you.</p>")
            if "json" in request.headers.get("Accept", ""):
                return Response(json.dumps({"orderId": order["id"]}), content_type="application/json")
            return html(f"<p>Thank you. Your order is {order['id']}.</p>")

    def _add_orders(self, app: Flask, region: str) -> None:
        @app.get("/orders/<identity>")
        def one(identity: str) -> Response:
            found = self.find(region, identity)
            return Response(json.dumps({"id": identity}) if found else "{}", 200 if found else 404, content_type="application/json")

        @app.delete("/orders/<identity>")
        def remove(identity: str) -> Response:
            if self.refuse_deletes:
                return Response("no", 500)
            if self.forget_deletes:
                return Response("", 404)
            with self.lock:
                found = [orders.pop(identity, None) for orders in self.orders.values()]
                self.deletes.append(identity)
            return Response("", 204 if any(found) else 404)


@contextmanager
def shop(tls: ssl.SSLContext | None = None) -> Iterator[Shop]:
    """Serve a `Shop`: us-east-1 on 127.0.0.1, us-west-2 on 127.0.0.2, each on a port of its own."""
    store = Shop()
    with ExitStack() as stack:
        for region, host in zip(REGIONS, ("127.0.0.1", "127.0.0.2"), strict=True):
            store.ports[region] = stack.enter_context(served(store.app(region), tls, host))
        yield store
