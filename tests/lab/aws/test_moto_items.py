"""DynamoDB's items come back from moto as they were sent, whatever types their values are of."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from local_aws import local_aws

if TYPE_CHECKING:
    from pathlib import Path

ITEM: dict[str, Any] = {
    "id": {"S": "a"},
    "number": {"N": "1.5"},
    "bytes": {"B": b"\x00x"},
    "texts": {"SS": ["b", "c"]},
    "numbers": {"NS": ["2"]},
    "parts": {"BS": [b"y"]},
    "S": {"M": {"S": {"S": "named like a type"}, "n": {"N": "1"}, "M": {"M": {}}}},
    "list": {"L": [{"S": "d"}, {"L": []}, {"BOOL": True}]},
    "no": {"BOOL": False},
    "none": {"NULL": True},
}


def test_an_item_comes_back_as_it_was(tmp_path: Path) -> None:
    """By key, in a query, from an update, and in the table's stream."""
    with local_aws(tmp_path) as aws:
        dynamodb, streams = aws.client("dynamodb"), aws.client("dynamodbstreams")
        made = dynamodb.create_table(
            TableName="t",
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
        )["TableDescription"]
        dynamodb.put_item(TableName="t", Item=ITEM)
        key: dict[str, Any] = {"TableName": "t", "Key": {"id": ITEM["id"]}}
        assert dynamodb.get_item(**key)["Item"] == ITEM
        assert "Item" not in dynamodb.get_item(TableName="t", Key={"id": {"S": "b"}})
        found = dynamodb.query(TableName="t", KeyConditionExpression="id = :id", ExpressionAttributeValues={":id": ITEM["id"]})
        assert found["Items"] == [ITEM]
        changed = dynamodb.update_item(
            **key, UpdateExpression="SET extra = :x", ExpressionAttributeValues={":x": {"N": "7"}}, ReturnValues="ALL_NEW"
        )
        assert changed["Attributes"] == {**ITEM, "extra": {"N": "7"}}
        stream = made["LatestStreamArn"]
        (shard,) = streams.describe_stream(StreamArn=stream)["StreamDescription"]["Shards"]
        start = streams.get_shard_iterator(StreamArn=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
        assert streams.get_records(ShardIterator=start)["Records"][0]["dynamodb"]["NewImage"] == ITEM


def test_a_query_finds_its_partition_and_no_other_while_others_write(tmp_path: Path) -> None:
    """In order, both ways, by index as before; and nothing breaks where items come and go meanwhile."""
    with local_aws(tmp_path) as aws:
        dynamodb = aws.client("dynamodb")
        dynamodb.create_table(
            TableName="t",
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("who", "what", "kind")],
            KeySchema=[{"AttributeName": "who", "KeyType": "HASH"}, {"AttributeName": "what", "KeyType": "RANGE"}],
            GlobalSecondaryIndexes=[
                {"IndexName": "kinds", "KeySchema": [{"AttributeName": "kind", "KeyType": "HASH"}], "Projection": {"ProjectionType": "ALL"}}
            ],
            BillingMode="PAY_PER_REQUEST",
        )

        def put(who: str, what: str) -> None:
            dynamodb.put_item(TableName="t", Item={"who": {"S": who}, "what": {"S": what}, "kind": {"S": what}})

        def found(condition: str, value: str, **more: Any) -> list[tuple[str, str]]:
            answer = dynamodb.query(TableName="t", KeyConditionExpression=condition, ExpressionAttributeValues={":v": {"S": value}}, **more)
            return [(item["who"]["S"], item["what"]["S"]) for item in answer["Items"]]

        for who, what in (("a", "2"), ("b", "1"), ("a", "1")):
            put(who, what)
        assert found("who = :v", "a") == [("a", "1"), ("a", "2")]
        assert found("who = :v", "a", ScanIndexForward=False) == [("a", "2"), ("a", "1")]
        assert found("who = :v", "nobody") == []
        assert sorted(found("kind = :v", "1", IndexName="kinds")) == [("a", "1"), ("b", "1")]
        with ThreadPoolExecutor(4) as pool:
            writes = [pool.submit(put, f"w{number}", "x") for number in range(60)]
            reads = [pool.submit(dynamodb.scan, TableName="t") for _ in range(60)]
            assert all(each.result() is not False for each in [*writes, *reads])
        assert dynamodb.scan(TableName="t", Select="COUNT")["Count"] == 63
