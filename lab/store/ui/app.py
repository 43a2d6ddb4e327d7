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


def application(back: Backends, region: str, task: str) -> Flask:
    """The UI in ``region``."""
    app = create("ui", template_folder=str(HERE / "templates"))
    metadata = f"region={region}; task={task}"

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

    def page(template: str, status: int = 200, **values: Any) -> Response:
        return make_response(render_template(template, region=region, task=task, fields=FIELDS, **values), status)

    @app.get("/")
    def root() -> BaseResponse:
        return redirect("/home", 302)

    @app.get("/home")
    def home() -> Response:
        return page("home.html", products=back.catalog.get("/catalogue", size=3, order="price"), tags=back.catalog.get("/catalogue/tags"))

    @app.get("/catalog")
    def catalog() -> Response:
        tag, number, size = request.args.get("tag", ""), _number("page", 1), _number("size", 3)
        total = back.catalog.get("/catalogue/size", tags=tag)["size"]
        products = back.catalog.get("/catalogue", tags=tag, page=number, size=size)
        pages = max(1, -(-total // size))
        return page(
            "catalog.html", products=products, tags=back.catalog.get("/catalogue/tags"), tag=tag, number=number, pages=pages, size=size
        )

    @app.get("/catalog/<identity>")
    def product(identity: str) -> Response:
        found = back.catalog.find(f"/catalogue/product/{identity}")
        return (
            page("product.html", product=found)
            if found
            else page("error.html", 404, title="No such watch", text="We do not sell this one.")
        )

    @app.get("/cart")
    def cart() -> Response:
        return page("cart.html", lines=cart_lines())

    @app.post("/cart")
    def add_to_cart() -> BaseResponse:
        found = back.catalog.find(f"/catalogue/product/{request.form.get('productId', '')}")
        if not found:
            return page("error.html", 404, title="No such watch", text="We do not sell this one.")
        back.carts.post(f"/carts/{g.session}/items", {"itemId": found["id"], "quantity": 1, "unitPrice": found["price"]})
        return redirect("/cart", 303)

    @app.post("/cart/remove")
    def remove_from_cart() -> BaseResponse:
        back.carts.delete(f"/carts/{g.session}/items/{request.form.get('productId', '-')}")
        return redirect("/cart", 303)

    @app.get("/checkout")
    def checkout() -> BaseResponse:
        lines = cart_lines()
        if not lines:
            return redirect("/cart", 303)
        back.checkout.post(f"/checkout/{g.session}/update", {"items": as_checkout(lines)})
        return page("checkout.html", values={}, errors={})

    @app.post("/checkout")
    def address() -> Response:
        values = {name: request.form.get(name, "").strip() for name in FIELDS}
        errors = {name: label for name, (label, pattern) in FIELDS.items() if not re.fullmatch(pattern, values[name])}
        current = back.checkout.find(f"/checkout/{g.session}")
        if not current:
            return page("error.html", 409, title="Nothing to check out", text="Your cart is empty.")
        if errors:
            return page("checkout.html", values=values, errors=errors)
        shipping = {name: value for name, value in values.items() if name != "email"}
        current |= {"customerEmail": values["email"], "shippingAddress": shipping}
        return page("delivery.html", checkout=back.checkout.post(f"/checkout/{g.session}/update", current))

    @app.post("/checkout/delivery")
    def delivery() -> Response:
        current = back.checkout.find(f"/checkout/{g.session}")
        token = request.form.get("token", "")
        if not current:
            return page("error.html", 409, title="Nothing to check out", text="Your cart is empty.")
        if not TOKEN.fullmatch(token) or token not in {rate["token"] for rate in current["shippingRates"]}:
            return page("delivery.html", checkout=current)
        return page("payment.html", checkout=back.checkout.post(f"/checkout/{g.session}/update", current | {"deliveryOptionToken": token}))

    @app.post("/checkout/payment")
    def payment() -> Response:
        current = back.checkout.find(f"/checkout/{g.session}")
        if not current:
            return page("error.html", 409, title="Nothing to check out", text="Your cart is empty.")
        return page("confirm.html", checkout=current)

    @app.post("/checkout/confirm")
    def confirm() -> Response:
        try:
            order = back.checkout.post(f"/checkout/{g.session}/submit", {})
        except BackendError as error:
            if error.status != 404:
                raise
            return page("error.html", 409, title="Nothing to check out", text="Your cart is empty, or this order has been placed already.")
        back.carts.delete(f"/carts/{g.session}")
        response = make_response(jsonify(order)) if _wants_json() else page("order.html", order=order)
        response.headers["X-Retail-Order-Id"] = order["orderId"]
        return response

    @app.get("/orders")
    def orders() -> Response:
        email, number, size = request.args.get("email", ""), _number("page", 1), _number("size", 3)
        return page(
            "orders.html", orders=back.orders.get("/orders", email=email, page=number, size=size), email=email, number=number, size=size
        )

    @app.get("/orders/<identity>")
    def order(identity: str) -> Response:
        found = back.orders.find(f"/orders/{identity}")
        if _wants_json():
            return make_response(jsonify(found or {"error": f"no order {identity}"}), 200 if found else 404)
        return (
            page("orders.html", orders=[found]) if found else page("error.html", 404, title="No such order", text="We know no such order.")
        )

    @app.delete("/orders/<identity>")
    def forget(identity: str) -> tuple[Response | str, int]:
        try:
            back.orders.delete(f"/orders/{identity}")
        except BackendError as error:
            if error.status in {403, 404}:
                return jsonify(
                    error="only a canary's order can be deleted" if error.status == 403 else f"no order {identity}"
                ), error.status
            raise
        return "", 204

    @app.get("/assets/<path:name>")
    def asset(name: str) -> Response:
        return send_from_directory(os.environ.get("RETAIL_ASSETS", str(HERE / "assets")), name, max_age=3600)

    @app.errorhandler(404)
    def missing(_error: Exception) -> Response:
        return page("error.html", 404, title="Not here", text="There is no such page.")

    @app.errorhandler(BackendError)
    def broken(error: BackendError) -> Response:
        log.error("%s %s: %s", request.method, request.path, error)
        return page(
            "error.html", 500, title="Something is broken", text=f"We cannot reach our {error.service} right now. Please try again."
        )

    def cart_lines() -> list[dict[str, Any]]:
        lines = []
        for item in back.carts.get(f"/carts/{g.session}/items"):
            if found := back.catalog.find(f"/catalogue/product/{item['itemId']}"):
                lines.append({"product": found, "quantity": item["quantity"], "total": item["quantity"] * item["unitPrice"]})
        return lines

    return app


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
