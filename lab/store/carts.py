"""The Carts service: what a customer wants to buy, in the Region's replica of a DynamoDB global table.

    GET | DELETE /carts/{customer}                       GET /carts/{customer}/merge?sessionId=
    GET | POST | PATCH /carts/{customer}/items           GET | DELETE /carts/{customer}/items/{item}

Environment: PORT, RETAIL_CARTS_TABLE, and boto3's own (AWS_REGION, AWS_ENDPOINT_URL, credentials).
"""

from __future__ import annotations

from typing import Any

import boto3
from boto3.dynamodb.conditions import Key
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from flask import Flask, Response, jsonify, request

from lab.store.service import create, log, serve, setting

MAX_QUANTITY = 99


def application(table: Any) -> Flask:
    """The service over a boto3 DynamoDB table."""
    app = create("carts")

    def items_of(customer: str) -> list[dict[str, Any]]:
        return [as_item(item) for item in table.query(KeyConditionExpression=Key("customerId").eq(customer))["Items"]]

    def put(customer: str, item: str, quantity: int, price: int) -> dict[str, Any]:
        done = table.update_item(
            Key={"customerId": customer, "itemId": item},
            UpdateExpression="SET unitPrice = :price ADD quantity :quantity",
            ExpressionAttributeValues={":price": price, ":quantity": quantity},
            ReturnValues="ALL_NEW",
        )
        return as_item(done["Attributes"])

    @app.get("/carts/<customer>")
    def cart(customer: str) -> Response:
        return jsonify(customerId=customer, items=items_of(customer))

    @app.delete("/carts/<customer>")
    def clear(customer: str) -> tuple[str, int]:
        with table.batch_writer() as batch:
            for item in items_of(customer):
                batch.delete_item(Key={"customerId": customer, "itemId": item["itemId"]})
        return "", 202

    @app.get("/carts/<customer>/merge")
    def merge(customer: str) -> tuple[Response | str, int]:
        session = request.args.get("sessionId", "")
        if not session:
            return jsonify(error="sessionId: missing"), 400
        for item in items_of(session):
            put(customer, item["itemId"], item["quantity"], item["unitPrice"])
            table.delete_item(Key={"customerId": session, "itemId": item["itemId"]})
        return "", 202

    @app.get("/carts/<customer>/items")
    def items(customer: str) -> Response:
        return jsonify(items_of(customer))

    @app.post("/carts/<customer>/items")
    def add(customer: str) -> tuple[Response, int]:
        item = request.get_json(silent=True)
        if problem := problem_with(item):
            return jsonify(error=problem), 400
        return jsonify(put(customer, item["itemId"], item["quantity"], item["unitPrice"])), 201

    @app.patch("/carts/<customer>/items")
    def change(customer: str) -> tuple[Response | str, int]:
        item = request.get_json(silent=True)
        if problem := problem_with(item):
            return jsonify(error=problem), 400
        table.put_item(
            Item={"customerId": customer, "itemId": item["itemId"], "quantity": item["quantity"], "unitPrice": item["unitPrice"]}
        )
        return "", 202

    @app.get("/carts/<customer>/items/<item>")
    def one(customer: str, item: str) -> tuple[Response, int]:
        found = table.get_item(Key={"customerId": customer, "itemId": item}).get("Item")
        return (jsonify(as_item(found)), 200) if found else (jsonify(error=f"no item {item}"), 404)

    @app.delete("/carts/<customer>/items/<item>")
    def remove(customer: str, item: str) -> tuple[str, int]:
        table.delete_item(Key={"customerId": customer, "itemId": item})
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
    serve(application(boto3.resource("dynamodb", config=config).Table(setting("RETAIL_CARTS_TABLE"))))
