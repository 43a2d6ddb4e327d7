"""The gateway: who may call, in which protocol it is answered, and what faults do to it."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import os
import resource
import socket
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import boto3
import pytest
import requests
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError, ReadTimeoutError
from local_aws import EAST, WEST, LocalAws, eventually, local_aws

from lab.aws import sigv4
from lab.aws.control import Control
from lab.aws.httpd import HttpServer
from lab.aws.protocol import Request, Response
from lab.aws.service import AwsError

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    with local_aws(tmp_path_factory.mktemp("aws"), speed=20) as running:
        yield running


@pytest.fixture
def control(aws: LocalAws) -> Iterator[str]:
    served = Control(aws.gateway)
    served.open()
    try:
        yield f"http://127.0.0.1:{aws.plan.control_port}"
    finally:
        aws.world.conditions.remove()
        aws.gateway.apply_conditions()
        served.close()


def refused(call: Any, **params: Any) -> tuple[str, int]:
    """The code and HTTP status with which a call is refused."""
    with pytest.raises(ClientError) as caught:
        call(**params)
    response = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


WRONG_KEYS = [
    # service, operation, wrong secret, unknown key
    ("sts", "get_caller_identity", "SignatureDoesNotMatch", "InvalidClientTokenId"),
    ("sqs", "list_queues", "InvalidSignatureException", "UnrecognizedClientException"),
    ("logs", "describe_log_groups", "InvalidSignatureException", "UnrecognizedClientException"),
    ("cloudwatch", "list_metrics", "InvalidSignatureException", "UnrecognizedClientException"),
    ("xray", "get_trace_segment_destination", "InvalidSignatureException", "UnrecognizedClientException"),
    ("route53", "list_hosted_zones", "SignatureDoesNotMatch", "InvalidClientTokenId"),
    ("s3", "list_buckets", "SignatureDoesNotMatch", "InvalidAccessKeyId"),
]


@pytest.mark.parametrize(("service", "operation", "wrong_secret", "unknown_key"), WRONG_KEYS)
def test_a_wrong_secret_and_an_unknown_key_are_refused_in_the_words_of_the_protocol(
    aws: LocalAws, service: str, operation: str, wrong_secret: str, unknown_key: str
) -> None:
    """Query, JSON, CBOR and REST services name the same refusal differently."""
    admin = aws.plan.credentials["admin"]
    forged = aws.client(service, credentials={"AccessKeyId": admin.access_key, "SecretAccessKey": "x" * 40})
    assert refused(getattr(forged, operation))[0] == wrong_secret
    stranger = aws.client(service, credentials={"AccessKeyId": "AKIANOBODYKNOWSTHISX", "SecretAccessKey": "x" * 40})
    assert refused(getattr(stranger, operation))[0] == unknown_key


@pytest.mark.parametrize(
    ("service", "operation", "code"),
    [
        ("logs", "describe_log_groups", "InvalidSignatureException"),
        ("sns", "list_topics", "SignatureDoesNotMatch"),
        ("s3", "list_buckets", "AuthorizationHeaderMalformed"),
    ],
)
def test_a_request_that_is_signed_for_another_region_is_refused(aws: LocalAws, service: str, operation: str, code: str) -> None:
    """The scope of the signature must name the endpoint's Region."""
    admin = aws.plan.credentials["admin"]
    client = boto3.client(
        service,
        region_name=WEST,
        endpoint_url=aws.plan.regions[EAST].aws_endpoint,
        aws_access_key_id=admin.access_key,
        aws_secret_access_key=admin.secret_key,
    )
    assert refused(getattr(client, operation))[0] == code


def test_a_changed_body_does_not_match_its_signature(aws: LocalAws) -> None:
    """The hash of the body is signed."""
    admin = aws.plan.credentials["admin"]
    headers = {"content-type": "application/x-amz-json-1.1", "x-amz-target": "Logs_20140328.DescribeLogGroups"}
    url = aws.plan.regions[EAST].aws_endpoint + "/"
    request = AWSRequest("POST", url, data=b"{}", headers=headers)
    SigV4Auth(Credentials(admin.access_key, admin.secret_key), "logs", EAST).add_auth(request)
    signed = dict(request.prepare().headers)
    assert requests.post(url, data=b"{}", headers=signed).status_code == 200
    answer = requests.post(url, data=b'{"limit": 1}', headers=signed)
    assert (answer.status_code, answer.json()["__type"]) == (400, "InvalidSignatureException")


KEYS = sigv4.KeyStore([sigv4.Key("AKIATEST", "secret", "user/test")])


def signed_post(auth: type[SigV4Auth] = SigV4Auth, **added: str) -> Request:
    """A request that botocore signed, with headers ``added`` afterwards (underscores stand for dashes)."""
    body = b"Action=GetCallerIdentity&Version=2011-06-15"
    signed = AWSRequest("POST", "http://127.0.0.1/", data=body, headers={"host": "127.0.0.1"})
    auth(Credentials("AKIATEST", "secret"), "sts", EAST).add_auth(signed)
    headers = {name.lower(): value for name, value in signed.headers.items()}
    headers |= {name.replace("_", "-"): value for name, value in added.items()}
    return Request("POST", "/", "", headers, body)


def presigned_get(expires_s: int) -> Request:
    """A presigned URL of botocore's, as it is asked for."""
    signed = AWSRequest("GET", "http://127.0.0.1/?Action=GetCallerIdentity&Version=2011-06-15", headers={"host": "127.0.0.1"})
    SigV4QueryAuth(Credentials("AKIATEST", "secret"), "sts", EAST, expires=expires_s).add_auth(signed)
    return Request("GET", "/", signed.url.partition("?")[2], {"host": "127.0.0.1"}, b"")


def verified(request: Request, skew_s: float = 0.0) -> str:
    """Who signed, or the code of the refusal, ``skew_s`` after it was signed."""
    signature = sigv4.read(request)
    assert signature is not None
    now = dt.datetime.strptime(signature.timestamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC).timestamp() + skew_s
    try:
        return sigv4.verify(request, signature, KEYS, "query", now).principal
    except AwsError as error:
        return error.code


@pytest.mark.parametrize(
    ("skew_s", "outcome"), [(0, "user/test"), (-299, "user/test"), (301, "SignatureDoesNotMatch"), (-301, "SignatureDoesNotMatch")]
)
def test_a_signature_is_good_for_five_minutes(skew_s: float, outcome: str) -> None:
    """By the wall's clock, in both directions."""
    assert verified(signed_post(), skew_s) == outcome


@pytest.mark.parametrize(
    ("expires_s", "skew_s", "outcome"),
    [
        (60, 59, "user/test"),
        (60, 61, "SignatureDoesNotMatch"),
        (60, -299, "user/test"),
        (60, -301, "SignatureDoesNotMatch"),
        (604_800, 604_799, "user/test"),
        (604_801, 0, "IncompleteSignature"),
    ],
)
def test_a_presigned_url_is_good_from_its_time_to_its_end(expires_s: int, skew_s: float, outcome: str) -> None:
    """Neither before it was signed, nor longer than it says, nor than a week."""
    assert verified(presigned_get(expires_s), skew_s) == outcome


@pytest.mark.parametrize("lifetime", ["nan", "-1", "1e9", "soon", ""])
def test_the_life_of_a_presigned_url_is_a_number(lifetime: str) -> None:
    """What is none makes the signature incomplete."""
    request = presigned_get(60)
    with pytest.raises(ValueError, match="X-Amz-Expires must be a number of seconds"):
        sigv4.read(replace(request, query=request.query.replace("X-Amz-Expires=60", f"X-Amz-Expires={lifetime}")))


class HostlessAuth(SigV4Auth):
    """Signs everything but the host."""

    def headers_to_sign(self, request: Any) -> Any:
        chosen = super().headers_to_sign(request)
        del chosen["host"]
        return chosen


def test_host_and_amazons_headers_have_to_be_signed() -> None:
    """But for those that clients leave unsigned: the trace id, which proxies change, and a browser's user agent."""
    assert verified(signed_post(HostlessAuth)) == "SignatureDoesNotMatch"
    assert verified(signed_post(x_amz_acl="public-read")) == "SignatureDoesNotMatch"
    assert verified(signed_post(x_amzn_trace_id="Root=1-5759e988-bd862e3fe1be46a994272793", x_amz_user_agent="aws-sdk-js")) == "user/test"


def test_sessions_that_expired_long_ago_are_forgotten() -> None:
    """A lab for days issues many; one that expired just now is kept, so that its client is told so."""
    keys = sigv4.KeyStore([sigv4.Key("AKIATEST", "secret", "user/test")])
    ages = (-3600.0, 60.0, sigv4.KEEP_EXPIRED_S + 60.0)
    issued = [keys.issue("assumed-role/canary/run", time.time() - age) for age in ages]
    newest = keys.issue("assumed-role/canary/run", time.time() + 3600)
    assert [keys.find(each.access_key) for each in (*issued, newest)] == [issued[0], issued[1], None, newest]
    assert keys.find("AKIATEST") is not None


def test_an_unsigned_request_is_refused(aws: LocalAws) -> None:
    """Nothing but SNS's links works without a signature."""
    answer = requests.post(aws.plan.regions[EAST].aws_endpoint + "/v1/traces", data=b"")
    assert (answer.status_code, answer.json()["__type"]) == (403, "MissingAuthenticationTokenException")


def test_a_role_session_is_held_to_its_policies(aws: LocalAws) -> None:
    """AssumeRole's keys work with their token, and only for what the role may do."""
    session = aws.session(aws.role("writer", {"Effect": "Allow", "Action": "cloudwatch:PutMetricData", "Resource": "*"}))
    cloudwatch = aws.client("cloudwatch", credentials=session)
    cloudwatch.put_metric_data(Namespace="N", MetricData=[{"MetricName": "m", "Value": 1}])
    assert refused(cloudwatch.list_metrics)[0].startswith("AccessDenied")
    assert refused(aws.client("sts", credentials={**session, "SessionToken": "other"}).get_caller_identity)[0] == "InvalidClientTokenId"
    assert (
        refused(aws.client("sts").assume_role, RoleArn="arn:aws:iam::123456789012:role/nobody", RoleSessionName="ss")[0] == "AccessDenied"
    )


def test_presigned_urls_of_s3_work_until_changed(aws: LocalAws) -> None:
    """A presigned GET needs no header; another key is not covered by it."""
    admin = aws.plan.credentials["admin"]
    s3 = boto3.client(
        "s3",
        region_name=EAST,
        endpoint_url=aws.plan.regions[EAST].aws_endpoint,
        aws_access_key_id=admin.access_key,
        aws_secret_access_key=admin.secret_key,
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
    )
    s3.create_bucket(Bucket="presigned")
    s3.put_object(Bucket="presigned", Key="a b/ü+x", Body=b"content")
    url = s3.generate_presigned_url("get_object", Params={"Bucket": "presigned", "Key": "a b/ü+x"})
    assert requests.get(url).content == b"content"
    assert requests.get(url.replace("x?", "y?")).status_code == 403


def test_what_nobody_implements_is_refused_clearly(aws: LocalAws) -> None:
    """An operation that neither we nor moto do as AWS does is UnsupportedOperation, never success."""
    assert refused(aws.client("logs").put_account_policy, policyName="p", policyDocument="{}", policyType="DATA_PROTECTION_POLICY") == (
        "UnsupportedOperation",
        501,
    )
    assert refused(aws.client("kinesis").list_streams)[0] == "UnsupportedOperation"
    table = {"AttributeName": "id", "AttributeType": "S"}
    dynamodb = aws.client("dynamodb")
    dynamodb.create_table(
        TableName="t",
        AttributeDefinitions=[table],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )
    code, _ = refused(dynamodb.update_table, TableName="t", ReplicaUpdates=[{"Create": {"RegionName": WEST}}])
    assert code == "UnsupportedOperation"


def test_all_violations_of_the_model_are_told_at_once(aws: LocalAws) -> None:
    """Validation is the server's: a client that does not check gets every problem in one answer."""
    admin = aws.plan.credentials["admin"]
    client = boto3.client(
        "logs",
        region_name=EAST,
        endpoint_url=aws.plan.regions[EAST].aws_endpoint,
        aws_access_key_id=admin.access_key,
        aws_secret_access_key=admin.secret_key,
        config=Config(parameter_validation=False),
    )
    with pytest.raises(ClientError) as caught:
        client.put_metric_filter(logGroupName="not a name", filterName="f", filterPattern="")
    message = caught.value.response["Error"]["Message"]
    assert message.startswith("2 validation errors detected: ")
    assert "'logGroupName' failed to satisfy constraint: Member must satisfy regular expression pattern" in message
    assert "Value null at 'metricTransformations'" in message


def test_compressed_requests_are_read(aws: LocalAws) -> None:
    """boto3 compresses PutMetricData above 10 KiB."""
    cloudwatch = aws.client("cloudwatch")
    data = [{"MetricName": f"big-{index}", "Value": float(index), "Dimensions": [{"Name": "D", "Value": "v" * 50}]} for index in range(900)]
    cloudwatch.put_metric_data(Namespace="Gzip", MetricData=data)
    listed = [metric for page in cloudwatch.get_paginator("list_metrics").paginate(Namespace="Gzip") for metric in page["Metrics"]]
    assert len(listed) == 900


def test_a_request_above_a_megabyte_is_refused(aws: LocalAws) -> None:
    """PutMetricData's limit holds for what travels."""
    admin = aws.plan.credentials["admin"]
    plain = boto3.client(
        "cloudwatch",
        region_name=EAST,
        endpoint_url=aws.plan.regions[EAST].aws_endpoint,
        aws_access_key_id=admin.access_key,
        aws_secret_access_key=admin.secret_key,
        config=Config(disable_request_compression=True),
    )
    data = [{"MetricName": "m", "Value": 1.0, "Dimensions": [{"Name": "D", "Value": "v" * 1024}]}] * 1000
    assert refused(plain.put_metric_data, Namespace="Large", MetricData=data) == ("RequestEntityTooLarge", 413)


@pytest.mark.parametrize(
    ("service", "code", "status"),
    [("cloudwatch", "Throttling", 400), ("logs", "ThrottlingException", 400), ("xray", "ThrottledException", 429), ("s3", "SlowDown", 503)],
)
def test_a_throttle_answers_with_the_services_own_code(aws: LocalAws, control: str, service: str, code: str, status: int) -> None:
    """Each service throttles in its own words."""
    operation = {"cloudwatch": "list_metrics", "logs": "describe_log_groups", "xray": "get_trace_segment_destination", "s3": "list_buckets"}
    requests.post(f"{control}/conditions", json={"kind": "throttle", "region": EAST, "service": service, "share": 1})
    assert refused(getattr(aws.client(service), operation[service])) == (code, status)
    getattr(aws.client(service, WEST), operation[service])()


def test_a_rate_lets_some_requests_pass(aws: LocalAws, control: str) -> None:
    """Above the rate of a second, and only then, requests are throttled."""
    requests.post(f"{control}/conditions", json={"kind": "throttle", "service": "logs", "rate": 3})
    outcomes = []
    for _ in range(12):
        try:
            aws.client("logs").describe_log_groups()
            outcomes.append("ok")
        except ClientError as error:
            outcomes.append(error.response["Error"]["Code"])
    assert 3 <= outcomes.count("ok") < 12
    assert set(outcomes) == {"ok", "ThrottlingException"}


def test_a_region_that_is_down_refuses_connections_and_comes_back(aws: LocalAws, control: str) -> None:
    """Its endpoint and its ARC endpoint close; the other Region, and calls into it, go on."""
    requests.post(f"{control}/conditions", json={"kind": "down", "region": EAST})
    with pytest.raises(EndpointConnectionError):
        aws.client("logs").describe_log_groups()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", aws.plan.arc_ports[EAST]), timeout=1)
    aws.client("logs", WEST).describe_log_groups()
    assert requests.get(f"{control}/health").json()["regions"] == {EAST: "down", WEST: "up"}
    requests.delete(f"{control}/conditions", params={"region": EAST})
    aws.client("logs").describe_log_groups()


def test_reset_refuse_and_slow(aws: LocalAws, control: str) -> None:
    """The other conditions do what they say."""
    logs = aws.client("logs")
    requests.post(f"{control}/conditions", json={"kind": "reset", "service": "logs"})
    with pytest.raises(ConnectionClosedError):
        logs.describe_log_groups()
    requests.delete(f"{control}/conditions")
    requests.post(
        f"{control}/conditions",
        json={"kind": "refuse", "service": "logs", "operation": "DescribeLogGroups", "code": "InternalServerException", "status": 500},
    )
    assert refused(logs.describe_log_groups) == ("InternalServerException", 500)
    requests.delete(f"{control}/conditions")
    requests.post(f"{control}/conditions", json={"kind": "slow", "service": "logs", "ms": 150})
    started = time.monotonic()
    logs.describe_log_groups()
    assert time.monotonic() - started >= 0.15


def test_a_hanging_request_ends_when_the_condition_goes(aws: LocalAws, control: str) -> None:
    """Nothing is answered while it hangs."""
    condition = requests.post(f"{control}/conditions", json={"kind": "hang", "service": "logs"}).json()[0]
    ended: list[type[BaseException]] = []

    def call() -> None:
        try:
            aws.client("logs").describe_log_groups()
        except ConnectionClosedError as error:
            ended.append(type(error))

    thread = threading.Thread(target=call)
    thread.start()
    thread.join(0.3)
    assert thread.is_alive()
    requests.delete(f"{control}/conditions", params={"id": condition["id"]})
    thread.join(5)
    assert ended == [ConnectionClosedError]


def test_a_hanging_request_ends_when_its_client_leaves(aws: LocalAws, control: str) -> None:
    """The fault holds no thread and no connection for a client that has given up."""
    requests.post(f"{control}/conditions", json={"kind": "hang", "service": "logs"})
    admin = aws.plan.credentials["admin"]
    impatient = boto3.client(
        "logs",
        region_name=EAST,
        endpoint_url=aws.plan.regions[EAST].aws_endpoint,
        aws_access_key_id=admin.access_key,
        aws_secret_access_key=admin.secret_key,
        config=Config(read_timeout=0.5, retries={"total_max_attempts": 1}),
    )

    def served() -> int:
        return sum(thread.name == f"aws-{EAST}" for thread in threading.enumerate())

    before = served()
    with pytest.raises(ReadTimeoutError):
        impatient.describe_log_groups()
    assert served() == before + 1
    eventually(lambda: served() == before, 5)


def test_a_server_that_ran_out_of_descriptors_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """While no descriptor is free a connection waits; when there is one again it is served."""
    server = HttpServer("127.0.0.1", 0, lambda _request: Response(200, {}, b"served"), "starved")
    server.open()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        with socket.socket() as client:
            client.settimeout(10)
            free = os.dup(client.fileno())
            os.close(free)
            resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
            try:
                client.connect(("127.0.0.1", server.port))
                client.sendall(b"GET / HTTP/1.1\r\n\r\n")
                time.sleep(0.3)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            assert client.recv(1000).endswith(b"served")
        assert [record.message.partition(":")[0] for record in caplog.records if "cannot accept" in record.message] == ["starved"]
    finally:
        server.close()


def test_unusable_conditions_are_refused_with_all_that_is_wrong(control: str) -> None:
    """The answer names every key."""
    answer = requests.post(f"{control}/conditions", json={"kind": "throttle", "region": "mars-1", "rate": -1})
    assert answer.status_code == 400
    problem = answer.json()["problem"]
    assert "region: 'mars-1' is no Region of this lab" in problem
    assert "rate: -1 is not usable" in problem
    assert requests.post(f"{control}/conditions", json={"kind": "sunny"}).status_code == 400


def test_recent_calls_are_remembered(aws: LocalAws, control: str) -> None:
    """Tests of other parts ask which calls were made."""
    aws.client("sqs", WEST).list_queues()
    call = requests.get(f"{control}/calls", params={"service": "sqs", "region": WEST, "limit": 1}).json()[0]
    assert (call["operation"], call["principal"], call["status"], call["code"]) == ("ListQueues", "user/admin", 200, "")


def test_the_server_survives_what_is_not_http(aws: LocalAws) -> None:
    """Garbage gets 400 or a closed connection, and the next client is served."""
    for garbage in (b"hello\r\n\r\n", b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", aws.plan.regions[EAST].aws_port), timeout=5) as raw:
            raw.sendall(garbage)
            assert b" 400 " in raw.recv(1000)
    aws.client("sts").get_caller_identity()


def test_a_body_that_only_claims_to_be_gzip(aws: LocalAws) -> None:
    """It is refused, not failed on."""
    admin = aws.plan.credentials["admin"]
    headers = {"content-type": "application/x-amz-json-1.1", "x-amz-target": "Logs_20140328.DescribeLogGroups", "content-encoding": "gzip"}
    for body, status in ((b"plain", 400), (gzip.compress(json.dumps({}).encode()), 200)):
        request = AWSRequest("POST", aws.plan.regions[EAST].aws_endpoint + "/", data=body, headers=headers)
        SigV4Auth(Credentials(admin.access_key, admin.secret_key), "logs", EAST).add_auth(request)
        assert requests.post(request.url, data=body, headers=dict(request.prepare().headers)).status_code == status


def test_services_call_each_other_and_moto_in_process(aws: LocalAws) -> None:
    """World.call checks parameters, reaches moto, and knows when a Region is away."""
    aws.world.call(EAST, "sqs", "create_queue", QueueName="inner")
    assert aws.world.call(EAST, "sqs", "list_queues", QueueNamePrefix="inner")["QueueUrls"] == [
        f"{aws.plan.regions[EAST].aws_endpoint}/123456789012/inner"
    ]
    with pytest.raises(AwsError, match="Value null at 'logGroupName'"):
        aws.world.call(EAST, "logs", "create_log_group")
    aws.take_down(EAST)
    try:
        with pytest.raises(AwsError, match="RegionUnavailable"):
            aws.world.call(EAST, "sqs", "list_queues")
    finally:
        aws.take_down(EAST, down=False)
