"""The Checkout service: a cart on its way to an order, kept in the Region's ElastiCache for Redis until the order is placed.

    GET /checkout/{customer}     POST /checkout/{customer}/update     POST /checkout/{customer}/submit -> {"orderId", "customerEmail"}

Environment: PORT, RETAIL_CHECKOUT_REDIS (redis://…), RETAIL_ENDPOINT_ORDERS (Service Connect).
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import redis
import requests
from flask import Flask, Response, jsonify, request

from lab.store.service import SYNTHETIC_HEADER, create, is_synthetic, log, serve, setting

KEPT_S = 3600
SHIPPING = {"priority-mail": ("Priority Mail", 5), "priority-mail-express": ("Priority Mail Express", 15)}
TIMEOUT_S = (2.0, 10.0)


def application(cache: redis.Redis, orders: str) -> Flask:
    """The service over its cache; ``orders`` is the Orders service's address."""
    app = create("checkout")
    session = requests.Session()

    def load(customer: str) -> dict[str, Any] | None:
        raw = cache.get(f"checkout:{customer}")
        return json.loads(raw) if isinstance(raw, bytes) else None

    @app.get("/checkout/<customer>")
    def show(customer: str) -> tuple[Response, int]:
        checkout = load(customer)
        return (jsonify(checkout), 200) if checkout else (jsonify(error=f"no checkout of {customer}"), 404)

    @app.post("/checkout/<customer>/update")
    def update(customer: str) -> tuple[Response, int]:
        wanted = request.get_json(silent=True)
        if not isinstance(wanted, dict) or not isinstance(wanted.get("items"), list):
            return jsonify(error="items: missing"), 400
        token = wanted.get("deliveryOptionToken")
        if token is not None and token not in SHIPPING:
            return jsonify(error=f"deliveryOptionToken: one of {', '.join(SHIPPING)}"), 400
        checkout = with_totals(wanted)
        cache.set(f"checkout:{customer}", json.dumps(checkout), ex=KEPT_S)
        return jsonify(checkout), 201

    @app.post("/checkout/<customer>/submit")
    def submit(customer: str) -> tuple[Response, int]:
        checkout = load(customer)
        if not checkout or not checkout["items"]:
            return jsonify(error=f"no checkout of {customer}"), 404
        headers = {SYNTHETIC_HEADER: "true"} if is_synthetic(request.headers) else {}
        try:
            answer = session.post(f"{orders}/orders", json=as_order(checkout), headers=headers, timeout=TIMEOUT_S)
            answer.raise_for_status()
        except requests.RequestException as error:
            log.error("the order was not placed: %s", error)
            return jsonify(error="the Orders service did not take the order"), 500
        cache.delete(f"checkout:{customer}")
        return jsonify(orderId=answer.json()["id"], customerEmail=checkout.get("customerEmail", "")), 201

    @app.errorhandler(redis.RedisError)
    def unavailable(error: redis.RedisError) -> tuple[Response, int]:
        log.error("the cache is unavailable: %s", error)
        return jsonify(error="the cache is unavailable"), 500

    return app


def with_totals(checkout: dict[str, Any]) -> dict[str, Any]:
    """``checkout`` with what it costs, and how it can be delivered."""
    subtotal = sum(item["quantity"] * item["unitCost"] for item in checkout["items"])
    shipping = SHIPPING[checkout["deliveryOptionToken"]][1] if checkout.get("deliveryOptionToken") else 0
    rates = [{"token": token, "name": name, "amount": amount} for token, (name, amount) in SHIPPING.items()]
    return checkout | {"subtotal": subtotal, "shipping": shipping, "tax": 0, "total": subtotal + shipping, "shippingRates": rates}


def as_order(checkout: dict[str, Any]) -> dict[str, Any]:
    """What the Orders service is told."""
    address = checkout.get("shippingAddress") or {}
    return {
        "firstName": address.get("firstName") or checkout.get("firstName", ""),
        "lastName": address.get("lastName") or checkout.get("lastName", ""),
        "email": checkout.get("customerEmail", ""),
        "createdOn": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "items": [
            {"productId": item["id"], "name": item["name"], "quantity": item["quantity"], "unitCost": item["unitCost"]}
            for item in checkout["items"]
        ],
    }


if __name__ == "__main__":
    serve(
        application(
            redis.Redis.from_url(setting("RETAIL_CHECKOUT_REDIS"), socket_timeout=2, socket_connect_timeout=1),
            setting("RETAIL_ENDPOINT_ORDERS"),
        )
    )
