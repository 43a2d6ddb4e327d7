"""DynamoDB's items come back from moto as they were sent, whatever types their values are of."""

from __future__ import annotations

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
