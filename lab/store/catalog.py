"""The Catalog service: products and tags, from the Region's own cluster of the catalog's Aurora global database.

    GET /catalogue?tags=&order=&page=1&size=10    GET /catalogue/size    GET /catalogue/tags    GET /catalogue/product/{id}
    POST /catalogue/product/{id}/stock {"count": 5}     through the global writer endpoint

Environment: PORT, AWS_REGION, RETAIL_CATALOG_READER and RETAIL_CATALOG_WRITER (libpq connection strings).
"""

from __future__ import annotations

import uuid
from typing import Any

from flask import Flask, Response, jsonify, request

from lab.store.database import Endpoint, Unavailable
from lab.store.service import create, log, serve, setting

PRODUCT = (
    "id::text, name, description, image_url, price, count,"
    " ARRAY(SELECT t.name FROM product_tag t WHERE t.product_id = product.id ORDER BY 1) AS tags"
)
TAGGED = "(%s::text[] IS NULL OR EXISTS (SELECT FROM product_tag t WHERE t.product_id = product.id AND t.name = ANY(%s::text[])))"
ORDER = {"": "name", "name": "name", "price": "price, name"}
MAX_SIZE = 50


def application(reader: Endpoint, writer: Endpoint) -> Flask:
    """The service over its database's two endpoints."""
    app = create("catalog")

    @app.get("/catalogue")
    def products() -> tuple[Response, int]:
        page, size = positive(request.args.get("page"), 1), min(positive(request.args.get("size"), 10), MAX_SIZE)
        order = ORDER.get(request.args.get("order", ""))
        if order is None:
            return jsonify(error=f"order: one of {', '.join(filter(None, ORDER))}"), 400
        tags = tags_asked()
        rows = reader.rows(
            f"SELECT {PRODUCT} FROM product WHERE {TAGGED} ORDER BY {order} LIMIT %s OFFSET %s", (tags, tags, size, (page - 1) * size)
        )
        return jsonify([as_product(row) for row in rows]), 200

    @app.get("/catalogue/size")
    def count() -> Response:
        tags = tags_asked()
        return jsonify(size=reader.rows(f"SELECT count(*) AS size FROM product WHERE {TAGGED}", (tags, tags))[0]["size"])

    @app.get("/catalogue/tags")
    def tags() -> Response:
        return jsonify([row["name"] for row in reader.rows("SELECT DISTINCT name FROM product_tag ORDER BY name")])

    @app.get("/catalogue/product/<identity>")
    def product(identity: str) -> tuple[Response, int]:
        rows = reader.rows(f"SELECT {PRODUCT} FROM product WHERE id = %s", (identity,)) if is_uuid(identity) else []
        return (jsonify(as_product(rows[0])), 200) if rows else (jsonify(error=f"no product {identity}"), 404)

    @app.post("/catalogue/product/<identity>/stock")
    def restock(identity: str) -> tuple[Response, int]:
        wanted = (request.get_json(silent=True) or {}).get("count")
        if not isinstance(wanted, int) or wanted < 0:
            return jsonify(error="count: a whole number from 0 up"), 400
        with writer.transaction() as connection:
            changed = connection.execute("UPDATE product SET count = %s WHERE id::text = %s", (wanted, identity)).rowcount
        return (jsonify(id=identity, count=wanted), 200) if changed else (jsonify(error=f"no product {identity}"), 404)

    @app.errorhandler(Unavailable)
    def unavailable(error: Unavailable) -> tuple[Response, int]:
        log.error("the catalog database is unavailable: %s", error)
        return jsonify(error="the catalog database is unavailable"), 500

    return app


def tags_asked() -> list[str] | None:
    """The tags in the query, None for all."""
    return [tag for tag in request.args.get("tags", "").split(",") if tag] or None


def positive(value: str | None, default: int) -> int:
    """``value`` as a number from 1 up."""
    return max(1, int(value)) if value and value.isdigit() else default


def is_uuid(value: str) -> bool:
    """Whether ``value`` is a UUID."""
    try:
        uuid.UUID(value)
    except ValueError:
        return False
    return True


def as_product(row: dict[str, Any]) -> dict[str, Any]:
    """A row in the shape of the API."""
    return {
        "id": row["id"],
        "name": row["name"],
        "description": row["description"],
        "imageUrl": row["image_url"],
        "price": row["price"],
        "count": row["count"],
        "tag": row["tags"],
    }


if __name__ == "__main__":
    serve(application(Endpoint(setting("RETAIL_CATALOG_READER")), Endpoint(setting("RETAIL_CATALOG_WRITER"))))
