"""The AWS protocols, from botocore's service models: a request becomes an operation and its parameters, a result or error a response.

One path for all protocols (query, ec2, json 1.0 and 1.1, rest-json, rest-xml, smithy-rpc-v2-cbor)::

    call = Catalogue().route("cloudwatch", request)     # which operation, spoken in which protocol
    params = call.parameters(request)                   # coerced and validated by the model
    response = call.result({...})  or  call.error(AwsError(...), request_id)

In parameters, timestamps are epoch seconds (float) and blobs are bytes, whatever the protocol. In results, a timestamp may be epoch
seconds, a datetime or an ISO 8601 string; members that are None are left out.
"""

from lab.aws.protocol.messages import Request, Response
from lab.aws.protocol.routing import Call, Catalogue, Operation

__all__ = ["Call", "Catalogue", "Operation", "Request", "Response"]
