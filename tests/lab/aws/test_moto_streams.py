"""Stream records and iterators of DynamoDB stay bounded, and readers notice nothing but age."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from lab.aws import moto_streams
from tests.lab.aws.local_aws import local_aws

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.aws.local_aws import LocalAws

TABLE = "streamed"


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    with local_aws(tmp_path_factory.mktemp("aws"), speed=20) as running:
        yield running


def test_the_oldest_go_and_the_others_keep_their_places() -> None:
    kept = moto_streams.LastRecords(most=3)
    for number in range(10):
        kept.append(number)
    assert len(kept) == 10
    assert kept[7:9] == [7, 8]
    assert kept[0:8] == [7]
    assert kept[8:1000] == [8, 9]
    assert list(kept) == [7, 8, 9]


def test_a_reader_gets_every_record_once_and_old_iterators_expire(aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moto_streams, "ITERATORS", 5)
    tables, streams = aws.client("dynamodb"), aws.client("dynamodbstreams")
    tables.create_table(
        TableName=TABLE,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
    )
    arn = streams.list_streams(TableName=TABLE)["Streams"][0]["StreamArn"]
    shard = streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"][0]["ShardId"]
    first = iterator = streams.get_shard_iterator(StreamArn=arn, ShardId=shard, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
    read: list[str] = []
    for number in range(8):
        tables.put_item(TableName=TABLE, Item={"id": {"S": str(number)}})
        answer: dict[str, Any] = streams.get_records(ShardIterator=iterator)
        read += [record["dynamodb"]["Keys"]["id"]["S"] for record in answer["Records"]]
        iterator = answer["NextShardIterator"]
    assert read == [str(number) for number in range(8)]
    with pytest.raises(ClientError) as refused:
        streams.get_records(ShardIterator=first)
    assert refused.value.response["Error"]["Code"] == "ExpiredIteratorException"
