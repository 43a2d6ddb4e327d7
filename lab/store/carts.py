"""The Carts service: what a customer wants to buy, in the Region's replica of a DynamoDB global table.

    GET | DELETE /carts/{customer}                       GET /carts/{customer}/merge?sessionId=
    GET | POST | PATCH /carts/{customer}/items           GET | DELETE /carts/{customer}/items/{item}

Environment: PORT, RETAIL_CARTS_TABLE, and boto3's own (AWS_REGION, AWS_ENDPOINT_URL, credentials).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import boto3
from boto3.dynamodb.conditions import Key
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from flask import Flask, Response, jsonify, request

from lab.store.service import create, log, serve, setting

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_QUANTITY = 99


class Carts:
    """The carts in a boto3 DynamoDB table."""

    def __init__(self, table: Any) -> None:
        self.table = table

    def items(self, customer: str) -> list[dict[str, Any]]:
        """What is in a cart."""
        return [as_item(item) for item in self.table.query(KeyConditionExpression=Key("customerId").eq(customer))["Items"]]

    def item(self, customer: str, item: str) -> dict[str, Any] | None:
        """One item of a cart."""
        found = self.table.get_item(Key={"customerId": customer, "itemId": item}).get("Item")
        return as_item(found) if found else None

    def add(self, customer: str, item: Mapping[str, Any]) -> dict[str, Any]:
        """Put more of an item into a cart; returns it as it is then."""
        done = self.table.update_item(
            Key={"customerId": customer, "itemId": item["itemId"]},
            UpdateExpression="SET unitPrice = :price ADD quantity :quantity",
            ExpressionAttributeValues={":price": item["unitPrice"], ":quantity": item["quantity"]},
            ReturnValues="ALL_NEW",
        )
        return as_item(done["Attributes"])

    def set(self, customer: str, item: Mapping[str, Any]) -> None:
        """Put an item into a cart in place of what was there."""
        self.table.put_item(Item={"customerId": customer} | {key: item[key] for key in ("itemId", "quantity", "unitPrice")})

    def remove(self, customer: str, *items: str) -> None:
        """Take items out of a cart."""
        with self.table.batch_writer() as batch:
            for item in items:
                batch.delete_item(Key={"customerId": customer, "itemId": item})

    def merge(self, session: str, customer: str) -> None:
        """Move what a session has gathered into a customer's cart."""
        items = self.items(session)
        for item in items:
            self.add(customer, item)
        self.remove(session, *(item["itemId"] for item in items))


def application(carts: Carts) -> Flask:
    """The service over its table."""
    app = create("carts")

    @app.get("/carts/<customer>")
    def cart(customer: str) -> Response:
        return jsonify(customerId=customer, items=carts.items(customer))

    @app.delete("/carts/<customer>")
    def clear(customer: str) -> tuple[str, int]:
        carts.remove(customer, *(item["itemId"] for item in carts.items(customer)))
        return "", 202

    @app.get("/carts/<customer>/merge")
    def merge(customer: str) -> tuple[Response | str, int]:
        session = request.args.get("sessionId", "")
        if not session:
            return jsonify(error="sessionId: missing"), 400
        carts.merge(session, customer)
        return "", 202

    @app.get("/carts/<customer>/items")
    def items(customer: str) -> Response:
        return jsonify(carts.items(customer))

    @app.post("/carts/<customer>/items")
    def add(customer: str) -> tuple[Response, int]:
        item: Any = request.get_json(silent=True)
        problem = problem_with(item)
        return (jsonify(error=problem), 400) if problem else (jsonify(carts.add(customer, item)), 201)

    @app.patch("/carts/<customer>/items")
    def change(customer: str) -> tuple[Response | str, int]:
        item: Any = request.get_json(silent=True)
        if problem := problem_with(item):
            return jsonify(error=problem), 400
        carts.set(customer, item)
        return "", 202

    @app.get("/carts/<customer>/items/<item>")
    def one(customer: str, item: str) -> tuple[Response, int]:
        found = carts.item(customer, item)
        return (jsonify(found), 200) if found else (jsonify(error=f"no item {item}"), 404)

    @app.delete("/carts/<customer>/items/<item>")
    def remove(customer: str, item: str) -> tuple[str, int]:
        carts.remove(customer, item)
        return "", 202

    @app.errorhandler(ClientError)
    @app.errorhandler(BotoCoreError)
    def unavailable(error: Exception) -> tuple[Response, int]:
        log.error("the carts table is unavailable: %s", error)
        return jsonify(error="the carts table is unavailable"), 500

    return app


def problem_with(item: Any) -> str | None:
    """What is wrong with an item that a client sent, or None."""
    if not isinstance(item, dict):
        return "the body is not a JSON object"
    if not isinstance(item.get("itemId"), str) or not item["itemId"]:
        return "itemId: missing"
    if not isinstance(item.get("quantity"), int) or not 1 <= item["quantity"] <= MAX_QUANTITY:
        return f"quantity: a whole number from 1 to {MAX_QUANTITY}"
    if not isinstance(item.get("unitPrice"), int) or item["unitPrice"] < 0:
        return "unitPrice: a whole number from 0 up"
    return None


def as_item(item: dict[str, Any]) -> dict[str, Any]:
    """A DynamoDB item in the shape of the API."""
    return {"itemId": item["itemId"], "quantity": int(item.get("quantity", 0)), "unitPrice": int(item.get("unitPrice", 0))}


if __name__ == "__main__":
    config = Config(connect_timeout=1, read_timeout=3, retries={"total_max_attempts": 2, "mode": "standard"}, max_pool_connections=16)
    serve(application(Carts(boto3.resource("dynamodb", config=config).Table(setting("RETAIL_CARTS_TABLE")))))
