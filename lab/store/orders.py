"""The Orders service: orders in an Aurora global database, and an event for each on the Region's Amazon MQ broker.

    POST /orders {"firstName", "lastName", "email", "createdOn", "items": [{"productId", "name", "quantity", "unitCost"}]} -> + "id"
    GET /orders?email=&page=1&size=20[&synthetic=true]      newest first; a canary's orders only where asked for
    GET /orders/{id}         from the Region's own cluster, so that replication can be seen from outside
    DELETE /orders/{id}      of a canary's order; a customer's is refused with 403

An order is synthetic when the request that placed it carries a canary's mark (see `lab.store.service.is_synthetic`). Synthetic orders have
their own column and log line, and are never counted as customers' orders.

Environment: PORT, AWS_REGION, RETAIL_ORDERS_READER, RETAIL_ORDERS_WRITER (libpq connection strings), RETAIL_ORDERS_AMQP (amqp://…).
RETAIL_ORDERS_CONSUMER=off: a release that has lost its consumer, and only publishes.
"""

from __future__ import annotations

import json
import os
import uuid
from datetime import UTC, datetime
from typing import Any

import psycopg
from flask import Flask, Response, jsonify, request

from lab.store.catalog import is_uuid, positive
from lab.store.database import Endpoint, Unavailable
from lab.store.events import Outbox, consume
from lab.store.service import create, is_synthetic, log, serve, setting

MAX_SIZE = 100
COLUMNS = "id::text, first_name, last_name, email, created_on, region, synthetic"


def application(reader: Endpoint, writer: Endpoint, outbox: Outbox, region: str) -> Flask:
    """The service over its database's two endpoints; events go to ``outbox``."""
    app = create("orders")

    @app.post("/orders")
    def place() -> tuple[Response, int]:
        wanted: Any = request.get_json(silent=True)
        if problem := problem_with(wanted):
            return jsonify(error=problem), 400
        order = {
            "id": str(uuid.uuid4()),
            "firstName": wanted.get("firstName", ""),
            "lastName": wanted.get("lastName", ""),
            "email": wanted["email"],
            "createdOn": wanted.get("createdOn") or datetime.now(UTC).isoformat(timespec="milliseconds"),
            "region": region,
            "synthetic": is_synthetic(request.headers),
            "items": wanted["items"],
        }
        with writer.transaction() as connection:
            insert(connection, order)
        log.info("Created %s: %s", "Synthetic Order" if order["synthetic"] else "Order", order["id"])
        outbox.put("order.created", order)
        return jsonify(order), 201

    @app.get("/orders")
    def find() -> Response:
        page, size = positive(request.args.get("page"), 1), min(positive(request.args.get("size"), 20), MAX_SIZE)
        email, synthetic = request.args.get("email") or None, request.args.get("synthetic") == "true"
        rows = reader.rows(
            f"SELECT {COLUMNS} FROM customer_order WHERE synthetic = %s AND (%s::text IS NULL OR email = %s)"
            " ORDER BY created_on DESC LIMIT %s OFFSET %s",
            (synthetic, email, email, size, (page - 1) * size),
        )
        return jsonify([as_order(row, items_of(reader, row["id"])) for row in rows])

    @app.get("/orders/<identity>")
    def one(identity: str) -> tuple[Response, int]:
        rows = reader.rows(f"SELECT {COLUMNS} FROM customer_order WHERE id = %s", (identity,)) if is_uuid(identity) else []
        return (jsonify(as_order(rows[0], items_of(reader, identity))), 200) if rows else (jsonify(error=f"no order {identity}"), 404)

    @app.delete("/orders/<identity>")
    def remove(identity: str) -> tuple[Response | str, int]:
        if not is_uuid(identity):
            return jsonify(error=f"no order {identity}"), 404
        with writer.transaction() as connection:
            if connection.execute("DELETE FROM customer_order WHERE id = %s AND synthetic", (identity,)).rowcount:
                return "", 204
            known = connection.execute("SELECT FROM customer_order WHERE id = %s", (identity,)).rowcount
        return (jsonify(error="this is a customer's order"), 403) if known else (jsonify(error=f"no order {identity}"), 404)

    @app.errorhandler(Unavailable)
    def unavailable(error: Unavailable) -> tuple[Response, int]:
        log.error("the orders database is unavailable: %s", error)
        return jsonify(error="the orders database is unavailable"), 500

    return app


def insert(connection: psycopg.Connection[dict[str, Any]], order: dict[str, Any]) -> None:
    """Write one order and its items."""
    connection.execute(
        "INSERT INTO customer_order (id, first_name, last_name, email, created_on, region, synthetic) VALUES (%s, %s, %s, %s, %s, %s, %s)",
        tuple(order[key] for key in ("id", "firstName", "lastName", "email", "createdOn", "region", "synthetic")),
    )
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO order_item (order_id, product_id, name, quantity, unit_cost) VALUES (%s, %s, %s, %s, %s)",
            [(order["id"], item["productId"], item.get("name", ""), item["quantity"], item["unitCost"]) for item in order["items"]],
        )


def items_of(reader: Endpoint, identity: str) -> list[dict[str, Any]]:
    """The items of one order."""
    return reader.rows(
        'SELECT product_id::text AS "productId", name, quantity, unit_cost AS "unitCost", quantity * unit_cost AS "totalCost"'
        " FROM order_item WHERE order_id = %s ORDER BY name",
        (identity,),
    )


def as_order(row: dict[str, Any], items: list[dict[str, Any]]) -> dict[str, Any]:
    """A row in the shape of the API."""
    return {
        "id": row["id"],
        "firstName": row["first_name"],
        "lastName": row["last_name"],
        "email": row["email"],
        "createdOn": row["created_on"].isoformat(timespec="milliseconds"),
        "region": row["region"],
        "synthetic": row["synthetic"],
        "items": items,
    }


def problem_with(order: Any) -> str | None:
    """What is wrong with an order that a client sent, or None."""
    if not isinstance(order, dict):
        return "the body is not a JSON object"
    if not isinstance(order.get("email"), str) or "@" not in order["email"]:
        return "email: not an address"
    if created := order.get("createdOn"):
        try:
            datetime.fromisoformat(created)
        except (TypeError, ValueError):
            return "createdOn: not an ISO 8601 time"
    items = order.get("items")
    if not isinstance(items, list) or not items:
        return "items: missing"
    seen = set()
    for number, item in enumerate(items):
        if not isinstance(item, dict) or not is_uuid(str(item.get("productId"))):
            return f"items[{number}].productId: not a product's id"
        if not all(isinstance(item.get(key), int) and item[key] >= least for key, least in (("quantity", 1), ("unitCost", 0))):
            return f"items[{number}]: quantity and unitCost are whole numbers"
        if item["productId"] in seen:
            return f"items[{number}].productId: twice in one order"
        seen.add(item["productId"])
    return None


def shipped(body: bytes) -> None:
    """What the warehouse does with an event: it says that it has seen it."""
    event = json.loads(body)
    log.info("Order %s goes to the warehouse: %d items", event["id"], len(event["items"]))


if __name__ == "__main__":
    broker = setting("RETAIL_ORDERS_AMQP")
    if os.environ.get("RETAIL_ORDERS_CONSUMER") != "off":
        consume(broker, shipped)
    serve(
        application(
            Endpoint(setting("RETAIL_ORDERS_READER")), Endpoint(setting("RETAIL_ORDERS_WRITER")), Outbox(broker), setting("AWS_REGION")
        )
    )
