"""SNS: what arrives where, in which envelope, and what happens when it cannot."""

from __future__ import annotations

import base64
import http.server
import json
import threading
import urllib.request
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from local_aws import EAST, WEST, LocalAws, eventually, local_aws

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    with local_aws(tmp_path_factory.mktemp("sns"), speed=20) as running:
        yield running


def unique(name: str) -> str:
    """A name that no other test uses."""
    return f"{name}-{uuid.uuid4().hex[:8]}"


class Receiver:
    """An HTTP endpoint that confirms its subscription, remembers what it got, and answers with ``statuses`` in turn (then 200)."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], str]] = []
        self.statuses: list[int] = []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                if self.headers["x-amz-sns-message-type"] == "SubscriptionConfirmation":
                    with urllib.request.urlopen(json.loads(body)["SubscribeURL"]) as answer:
                        answer.read()
                else:
                    receiver.got.append((dict(self.headers), body))
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    one = Receiver()
    with one.server:
        yield one
        one.server.shutdown()


def subscribed(aws: LocalAws, receiver: Receiver, **attributes: str) -> tuple[Any, str, str]:
    """A client, a topic and a confirmed subscription of ``receiver``."""
    sns = aws.client("sns")
    topic = sns.create_topic(Name=unique("pages"))["TopicArn"]
    arn = sns.subscribe(TopicArn=topic, Protocol="http", Endpoint=receiver.url, Attributes=attributes, ReturnSubscriptionArn=True)[
        "SubscriptionArn"
    ]
    eventually(lambda: sns.get_topic_attributes(TopicArn=topic)["Attributes"]["SubscriptionsConfirmed"] == "1")
    return sns, topic, arn


def queue_for(aws: LocalAws, name: str, topic: str = "*", region: str = EAST) -> tuple[Any, str, str]:
    """A queue that lets SNS send: client, URL and ARN."""
    sqs, name = aws.client("sqs", region), unique(name)
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = f"arn:aws:sqs:{region}:{aws.plan.account}:{name}"
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "sns.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": arn,
        "Condition": {"ArnLike": {"aws:SourceArn": topic}},
    }
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps({"Version": "2012-10-17", "Statement": [statement]})})
    return sqs, url, arn


def received(sqs: Any, url: str) -> list[dict[str, Any]]:
    """The messages in a queue now."""
    return list(sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]).get("Messages", []))


def test_an_endpoint_confirms_and_gets_the_envelope(aws: LocalAws, receiver: Receiver) -> None:
    """The handshake makes the subscription real; a message comes in SNS's envelope with SNS's headers."""
    sns, topic, arn = subscribed(aws, receiver)
    identity = sns.publish(
        TopicArn=topic, Subject="Region down", Message="look", MessageAttributes={"a": {"DataType": "String", "StringValue": "1"}}
    )
    headers, body = eventually(lambda: receiver.got)[0]
    envelope = json.loads(body)
    assert headers["x-amz-sns-message-type"] == "Notification"
    assert headers["x-amz-sns-subscription-arn"] == arn
    assert headers["x-amz-sns-message-id"] == envelope["MessageId"] == identity["MessageId"]
    assert (envelope["Subject"], envelope["Message"], envelope["TopicArn"]) == ("Region down", "look", topic)
    assert envelope["MessageAttributes"] == {"a": {"Type": "String", "Value": "1"}}
    assert arn in urllib.request.unquote(envelope["UnsubscribeURL"])  # type: ignore[attr-defined]


@pytest.mark.parametrize(("version", "algorithm"), [("1", hashes.SHA1()), ("2", hashes.SHA256())])
def test_the_signature_verifies(aws: LocalAws, receiver: Receiver, version: str, algorithm: hashes.HashAlgorithm) -> None:
    """A receiver that fetches the certificate and checks the signature as AWS's guide says is content."""
    sns, topic, _ = subscribed(aws, receiver)
    sns.set_topic_attributes(TopicArn=topic, AttributeName="SignatureVersion", AttributeValue=version)
    sns.publish(TopicArn=topic, Message="look")
    envelope = json.loads(eventually(lambda: receiver.got)[0][1])
    with urllib.request.urlopen(envelope["SigningCertURL"]) as answer:
        certificate = x509.load_pem_x509_certificate(answer.read())
    signed = "".join(f"{key}\n{envelope[key]}\n" for key in ("Message", "MessageId", "Timestamp", "TopicArn", "Type"))
    key: Any = certificate.public_key()
    key.verify(base64.b64decode(envelope["Signature"]), signed.encode(), padding.PKCS1v15(), algorithm)


def test_a_failing_endpoint_is_tried_again_in_lab_time(aws: LocalAws, receiver: Receiver) -> None:
    """Two answers of 500: the third attempt comes 20 lab seconds after the second."""
    sns, topic, _ = subscribed(aws, receiver)
    receiver.statuses = [500, 503]
    began = aws.world.clock.now()
    sns.publish(TopicArn=topic, Message="look")
    eventually(lambda: len(receiver.got) == 3)
    assert 40 <= aws.world.clock.now() - began < 60
    assert len({body for _, body in receiver.got}) == 1


def test_what_an_endpoint_refuses_goes_to_the_dead_letter_queue(aws: LocalAws, receiver: Receiver) -> None:
    """403 is final: no retry, and the message lies in the dead-letter queue."""
    sqs, url, queue = queue_for(aws, "dead")
    sns, topic, _ = subscribed(aws, receiver, RedrivePolicy=json.dumps({"deadLetterTargetArn": queue}))
    receiver.statuses = [403]
    sns.publish(TopicArn=topic, Message="lost?")
    message = eventually(lambda: received(sqs, url))[0]
    assert json.loads(message["Body"])["Message"] == "lost?"
    assert len(receiver.got) == 1


def test_raw_delivery_to_a_queue(aws: LocalAws) -> None:
    """Raw messages arrive as they were published, attributes included; others in the envelope."""
    sns = aws.client("sns")
    topic = sns.create_topic(Name=unique("orders"))["TopicArn"]
    sqs, url, queue = queue_for(aws, "raw", topic)
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue, Attributes={"RawMessageDelivery": "true"})
    sns.publish(TopicArn=topic, Message="as is", MessageAttributes={"n": {"DataType": "Number", "StringValue": "3"}})
    message = eventually(lambda: received(sqs, url))[0]
    assert message["Body"] == "as is"
    assert message["MessageAttributes"]["n"]["StringValue"] == "3"


def test_a_queue_that_does_not_let_sns_send_gets_nothing(aws: LocalAws) -> None:
    """The queue's policy names another topic: the message is lost, as in AWS."""
    sns = aws.client("sns")
    topic = sns.create_topic(Name=unique("orders"))["TopicArn"]
    sqs, url, queue = queue_for(aws, "closed", topic + "-other")
    _, open_url, open_queue = queue_for(aws, "open", topic)
    for one in (queue, open_queue):
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=one)
    sns.publish(TopicArn=topic, Message="who may?")
    eventually(lambda: received(sqs, open_url))
    assert received(sqs, url) == []


@pytest.mark.parametrize(
    ("policy", "scope", "attributes", "body", "passes"),
    [
        ({"severity": ["critical"]}, "MessageAttributes", {"severity": "critical"}, "x", True),
        ({"severity": ["critical"]}, "MessageAttributes", {"severity": "info"}, "x", False),
        ({"severity": ["critical"]}, "MessageAttributes", {}, "x", False),
        ({"severity": [{"anything-but": "info"}]}, "MessageAttributes", {"severity": "critical"}, "x", True),
        ({"severity": [{"exists": False}]}, "MessageAttributes", {}, "x", True),
        ({"detail": {"region": [{"prefix": "us-"}]}}, "MessageBody", {}, '{"detail": {"region": "us-east-1"}}', True),
        ({"detail": {"n": [{"numeric": [">", 3, "<=", 5]}]}}, "MessageBody", {}, '{"detail": {"n": 6}}', False),
        ({"a": [1]}, "MessageBody", {}, "not JSON", False),
    ],
)
def test_filter_policies(aws: LocalAws, policy: dict[str, Any], scope: str, attributes: dict[str, str], body: str, passes: bool) -> None:
    """Only what the filter lets through arrives; a second queue without a filter shows when delivery is over."""
    sns = aws.client("sns")
    topic = sns.create_topic(Name=unique("orders"))["TopicArn"]
    sqs, url, queue = queue_for(aws, "filtered", topic)
    _, all_url, all_queue = queue_for(aws, "all", topic)
    sns.subscribe(
        TopicArn=topic, Protocol="sqs", Endpoint=queue, Attributes={"FilterPolicy": json.dumps(policy), "FilterPolicyScope": scope}
    )
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=all_queue)
    sent = {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()}
    sns.publish(TopicArn=topic, Message=body, MessageAttributes=sent)
    eventually(lambda: received(sqs, all_url))
    assert bool(eventually(lambda: received(sqs, url)) if passes else received(sqs, url)) is passes


def test_a_region_that_is_down_delivers_when_it_is_back(aws: LocalAws, receiver: Receiver) -> None:
    """A message that fails once waits out the loss of its Region."""
    sns, topic, _ = subscribed(aws, receiver)
    receiver.statuses = [500]
    sns.publish(TopicArn=topic, Message="look")
    eventually(lambda: len(receiver.got) == 1)
    aws.take_down(EAST)
    aws.world.clock.sleep(30)
    assert len(receiver.got) == 1
    aws.take_down(EAST, down=False)
    eventually(lambda: len(receiver.got) == 2)


def test_topics_belong_to_one_region(aws: LocalAws) -> None:
    """Another Region neither lists nor takes the topic."""
    topic = aws.client("sns").create_topic(Name=unique("pages"))["TopicArn"]
    west = aws.client("sns", WEST)
    assert west.list_topics()["Topics"] == []
    with pytest.raises(ClientError, match="Invalid parameter: TopicArn"):
        west.publish(TopicArn=topic, Message="x")


@pytest.mark.parametrize(
    ("call", "code", "text"),
    [
        (lambda sns, topic: sns.publish(TopicArn=topic + "x", Message="m"), "NotFound", "Topic does not exist"),
        (lambda sns, topic: sns.publish(TopicArn=topic, Message=""), "InvalidParameter", "Empty message"),
        (lambda sns, topic: sns.publish(TopicArn=topic, Message="m", Subject="two\nlines"), "InvalidParameter", "Subject"),
        (lambda sns, topic: sns.publish(TopicArn=topic, Message="m" * 262_145), "InvalidParameter", "Message too long"),
        (lambda sns, topic: sns.publish(TopicArn=topic, Message="m", MessageStructure="json"), "InvalidParameter", "failed to parse"),
        (lambda sns, topic: sns.create_topic(Name="bad name"), "InvalidParameter", "Topic Name"),
        (lambda sns, topic: sns.create_topic(Name="a.fifo", Attributes={"FifoTopic": "true"}), "UnsupportedOperation", "FIFO"),
        (lambda sns, topic: sns.subscribe(TopicArn=topic, Protocol="http", Endpoint="https://x"), "InvalidParameter", "Endpoint"),
        (lambda sns, topic: sns.subscribe(TopicArn=topic, Protocol="sms", Endpoint="+1"), "UnsupportedOperation", "sms"),
        (
            lambda sns, topic: sns.set_topic_attributes(TopicArn=topic, AttributeName="Nope", AttributeValue="1"),
            "InvalidParameter",
            "AttributeName",
        ),
        (lambda sns, topic: sns.confirm_subscription(TopicArn=topic, Token="t"), "InvalidParameter", "Token"),
    ],
)
def test_refusals(aws: LocalAws, call: Any, code: str, text: str) -> None:
    """What AWS refuses is refused in its words."""
    sns = aws.client("sns")
    topic = sns.create_topic(Name=unique("pages"))["TopicArn"]
    with pytest.raises(ClientError, match=text) as caught:
        call(sns, topic)
    assert caught.value.response["Error"]["Code"] == code


def test_a_batch_reports_each_message(aws: LocalAws) -> None:
    """One bad entry does not spoil the others."""
    sns = aws.client("sns")
    topic = sns.create_topic(Name=unique("pages"))["TopicArn"]
    answer = sns.publish_batch(
        TopicArn=topic, PublishBatchRequestEntries=[{"Id": "a", "Message": "m"}, {"Id": "b", "Message": "m", "Subject": ""}]
    )
    assert [one["Id"] for one in answer["Successful"]] == ["a"]
    assert [(one["Id"], one["Code"]) for one in answer["Failed"]] == [("b", "InvalidParameter")]
