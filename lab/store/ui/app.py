"""The UI service: HTML pages over the four services behind it.

    GET /  /home  /catalog?tag=&page=&size=  /catalog/{id}  /cart  /checkout  /orders?email=&page=&size=  /orders/{id}  /assets/{file}
    POST /cart  /cart/remove (form productId)  /checkout (form)  /checkout/delivery (form token)  /checkout/payment  /checkout/confirm
    DELETE /orders/{id}      of a canary's order

``/orders/{id}`` and ``/checkout/confirm`` answer JSON to who accepts only that. A form with mistakes is shown again, with status 200. The
session is the cookie SESSIONID. Every answer says where it came from: ``X-Retail-Store-Metadata: region=us-east-1; task=4f2c…`` (the
guidance's store has that filter too, switched off).

Environment: PORT, AWS_REGION, RETAIL_TASK_ID, RETAIL_ENDPOINT_CATALOG, …_CARTS, …_CHECKOUT, …_ORDERS.
"""

from __future__ import annotations

import os
import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flask import Flask, Response, g, jsonify, make_response, redirect, render_template, request, send_from_directory
from werkzeug.wrappers import Response as BaseResponse

from lab.store.service import create, log, serve, setting
from lab.store.ui.backend import Backend, BackendError

HERE = Path(__file__).parent
SESSION_COOKIE = "SESSIONID"
METADATA_HEADER = "X-Retail-Store-Metadata"
FIELDS = {
    "firstName": ("First name", r".{1,60}"),
    "lastName": ("Last name", r".{1,60}"),
    "email": ("E-mail", r"[^@\s]+@[^@\s]+"),
    "address1": ("Address", r".{1,100}"),
    "address2": ("Address, second line", r".{0,100}"),
    "city": ("City", r".{1,60}"),
    "state": ("State, two letters", r"[A-Z]{2}"),
    "zip": ("ZIP code, five digits", r"\d{5}"),
}
TOKEN = re.compile(r"[A-Za-z0-9\-]+")


@dataclass(frozen=True, slots=True)
class Backends:
    """The services behind the UI."""

    catalog: Backend
    carts: Backend
    checkout: Backend
    orders: Backend


class Pages:
    """What every page needs: the services behind, and where it is served from."""

    def __init__(self, back: Backends, region: str, task: str) -> None:
        self.back = back
        self._place = {"region": region, "task": task, "fields": FIELDS}

    def render(self, template: str, status: int = 200, **values: Any) -> Response:
        """A page from its template."""
        return make_response(render_template(template, **self._place, **values), status)

    def sorry(self, title: str, text: str, status: int) -> Response:
        """The page that says what is wrong."""
        return self.render("error.html", status, title=title, text=text)

    def nothing_to_buy(self) -> Response:
        """The answer to a checkout without a cart."""
        return self.sorry("Nothing to check out", "Your cart is empty, or this order has been placed already.", 409)

    def cart_lines(self) -> list[dict[str, Any]]:
        """The customer's cart with its products."""
        items = self.back.carts.get(f"/carts/{g.session}/items")
        found = [(self.back.catalog.find(f"/catalogue/product/{item['itemId']}"), item) for item in items]
        return [
            {"product": product, "quantity": item["quantity"], "total": item["quantity"] * item["unitPrice"]}
            for product, item in found
            if product
        ]


def application(back: Backends, region: str, task: str) -> Flask:
    """The UI in ``region``."""
    app = create("ui", template_folder=str(HERE / "templates"))
    pages = Pages(back, region, task)
    _know_customers(app, f"region={region}; task={task}")
    for part in (_browsing, _cart, _checkout, _orders):
        part(app, pages)

    @app.get("/assets/<path:name>")
    def asset(name: str) -> Response:
        return send_from_directory(os.environ.get("RETAIL_ASSETS", str(HERE / "assets")), name, max_age=3600)

    @app.errorhandler(404)
    def missing(_error: Exception) -> Response:
        return pages.sorry("Not here", "There is no such page.", 404)

    @app.errorhandler(BackendError)
    def broken(error: BackendError) -> Response:
        log.error("%s %s: %s", request.method, request.path, error)
        return pages.sorry("Something is broken", f"We cannot reach our {error.service} right now. Please try again.", 500)

    return app


def _know_customers(app: Flask, metadata: str) -> None:
    """Sessions, and the header that says where an answer came from."""

    @app.before_request
    def know_the_customer() -> None:
        cookie = request.cookies.get(SESSION_COOKIE, "")
        g.session = cookie if re.fullmatch(r"[A-Za-z0-9-]{8,64}", cookie) else str(uuid.uuid4())

    @app.after_request
    def sign(response: Response) -> Response:
        response.headers[METADATA_HEADER] = metadata
        if request.path.startswith(("/assets/", "/actuator", "/health", "/chaos")):
            return response
        response.headers["Cache-Control"] = "no-store"
        if request.cookies.get(SESSION_COOKIE) != g.get("session"):
            response.set_cookie(SESSION_COOKIE, g.session, httponly=True, samesite="Lax", path="/")
        return response


def _browsing(app: Flask, pages: Pages) -> None:
    catalog_service = pages.back.catalog

    @app.get("/")
    def root() -> BaseResponse:
        return redirect("/home", 302)

    @app.get("/home")
    def home() -> Response:
        products = catalog_service.get("/catalogue", size=3, order="price")
        return pages.render("home.html", products=products, tags=catalog_service.get("/catalogue/tags"))

    @app.get("/catalog")
    def catalog() -> Response:
        tag, number, size = request.args.get("tag", ""), _number("page", 1), _number("size", 3)
        total = catalog_service.get("/catalogue/size", tags=tag)["size"]
        products = catalog_service.get("/catalogue", tags=tag, page=number, size=size)
        count = max(1, -(-total // size))
        tags = catalog_service.get("/catalogue/tags")
        return pages.render("catalog.html", products=products, tags=tags, tag=tag, number=number, pages=count, size=size)

    @app.get("/catalog/<identity>")
    def product(identity: str) -> Response:
        found = catalog_service.find(f"/catalogue/product/{identity}")
        return pages.render("product.html", product=found) if found else pages.sorry("No such watch", "We do not sell this one.", 404)


def _cart(app: Flask, pages: Pages) -> None:
    @app.get("/cart")
    def cart() -> Response:
        return pages.render("cart.html", lines=pages.cart_lines())

    @app.post("/cart")
    def add_to_cart() -> BaseResponse:
        found = pages.back.catalog.find(f"/catalogue/product/{request.form.get('productId', '')}")
        if not found:
            return pages.sorry("No such watch", "We do not sell this one.", 404)
        pages.back.carts.post(f"/carts/{g.session}/items", {"itemId": found["id"], "quantity": 1, "unitPrice": found["price"]})
        return redirect("/cart", 303)

    @app.post("/cart/remove")
    def remove_from_cart() -> BaseResponse:
        pages.back.carts.delete(f"/carts/{g.session}/items/{request.form.get('productId', '-')}")
        return redirect("/cart", 303)


def _checkout(app: Flask, pages: Pages) -> None:
    service = pages.back.checkout

    def current() -> dict[str, Any] | None:
        return service.find(f"/checkout/{g.session}")

    def update(checkout: dict[str, Any]) -> Any:
        return service.post(f"/checkout/{g.session}/update", checkout)

    @app.get("/checkout")
    def begin() -> BaseResponse:
        lines = pages.cart_lines()
        if not lines:
            return redirect("/cart", 303)
        update({"items": as_checkout(lines)})
        return pages.render("checkout.html", values={}, errors={})

    @app.post("/checkout")
    def address() -> Response:
        values = {name: request.form.get(name, "").strip() for name in FIELDS}
        errors = {name: label for name, (label, pattern) in FIELDS.items() if not re.fullmatch(pattern, values[name])}
        checkout = current()
        if not checkout:
            return pages.nothing_to_buy()
        if errors:
            return pages.render("checkout.html", values=values, errors=errors)
        shipping = {name: value for name, value in values.items() if name != "email"}
        return pages.render("delivery.html", checkout=update(checkout | {"customerEmail": values["email"], "shippingAddress": shipping}))

    @app.post("/checkout/delivery")
    def delivery() -> Response:
        checkout, token = current(), request.form.get("token", "")
        if not checkout:
            return pages.nothing_to_buy()
        if not TOKEN.fullmatch(token) or token not in {rate["token"] for rate in checkout["shippingRates"]}:
            return pages.render("delivery.html", checkout=checkout)
        return pages.render("payment.html", checkout=update(checkout | {"deliveryOptionToken": token}))

    @app.post("/checkout/payment")
    def payment() -> Response:
        checkout = current()
        return pages.render("confirm.html", checkout=checkout) if checkout else pages.nothing_to_buy()

    @app.post("/checkout/confirm")
    def confirm() -> Response:
        try:
            order = service.post(f"/checkout/{g.session}/submit", {})
        except BackendError as error:
            if error.status != 404:
                raise
            return pages.nothing_to_buy()
        pages.back.carts.delete(f"/carts/{g.session}")
        response = make_response(jsonify(order)) if _wants_json() else pages.render("order.html", order=order)
        response.headers["X-Retail-Order-Id"] = order["orderId"]
        return response


def _orders(app: Flask, pages: Pages) -> None:
    service = pages.back.orders

    @app.get("/orders")
    def orders() -> Response:
        email, number, size = request.args.get("email", ""), _number("page", 1), _number("size", 3)
        found = service.get("/orders", email=email, page=number, size=size)
        return pages.render("orders.html", orders=found, email=email, number=number, size=size)

    @app.get("/orders/<identity>")
    def order(identity: str) -> Response:
        found = service.find(f"/orders/{identity}")
        if _wants_json():
            return make_response(jsonify(found or {"error": f"no order {identity}"}), 200 if found else 404)
        return pages.render("orders.html", orders=[found]) if found else pages.sorry("No such order", "We know no such order.", 404)

    @app.delete("/orders/<identity>")
    def forget(identity: str) -> tuple[Response | str, int]:
        try:
            service.delete(f"/orders/{identity}")
        except BackendError as error:
            if error.status == 403:
                return jsonify(error="only a canary's order can be deleted"), 403
            if error.status == 404:
                return jsonify(error=f"no order {identity}"), 404
            raise
        return "", 204


def as_checkout(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Cart lines in the shape of the Checkout service."""
    return [
        {
            "id": line["product"]["id"],
            "name": line["product"]["name"],
            "quantity": line["quantity"],
            "unitCost": line["product"]["price"],
            "totalCost": line["total"],
            "imageUrl": line["product"]["imageUrl"],
        }
        for line in lines
    ]


def _number(name: str, default: int) -> int:
    value = request.args.get(name, "")
    return max(1, min(int(value), 100)) if value.isdigit() else default


def _wants_json() -> bool:
    return request.accept_mimetypes.best_match(["text/html", "application/json"]) == "application/json"


def main() -> None:
    """Serve the UI as the environment says."""
    back = Backends(*(Backend(name, setting(f"RETAIL_ENDPOINT_{name.upper()}")) for name in ("catalog", "carts", "checkout", "orders")))
    serve(application(back, setting("AWS_REGION"), os.environ.get("RETAIL_TASK_ID", "local")), threads=12)


if __name__ == "__main__":
    main()
