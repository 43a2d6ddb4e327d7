"""An SNS message and the envelope it travels in, signed as SNS signs.

Reference: https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html and, for the string that is signed,
https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html. The key is made when the lab starts; its certificate is
served under ``SigningCertURL``, on the lab's endpoint instead of AWS's host.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from lab.aws.support import iso

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_SIGNED = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
}


@dataclass(frozen=True, slots=True)
class Message:
    """A published message. ``time`` is lab time; ``attributes`` have the shape of Publish's MessageAttributes."""

    id: str
    topic: str
    subject: str | None
    text: str
    structured: bool
    time: float
    attributes: Mapping[str, Any] = field(default_factory=dict)
    signature_version: str = "1"

    def plain_attributes(self) -> dict[str, Any]:
        """Attributes as a filter policy sees them: numbers as numbers, ``String.Array`` as lists."""
        plain: dict[str, Any] = {}
        for name, attribute in self.attributes.items():
            kind = attribute["DataType"].split(".")
            text = attribute.get("StringValue", "")
            if attribute["DataType"] == "String.Array":
                plain[name] = json.loads(text)
            elif kind[0] == "Number":
                plain[name] = float(text)
            elif kind[0] == "String":
                plain[name] = text
        return plain


def text_for(message: Message, protocol: str) -> str:
    """The body for a protocol: of a message with ``MessageStructure`` json, the protocol's own version or the default."""
    if not message.structured:
        return message.text
    versions = json.loads(message.text)
    return str(versions.get(protocol, versions["default"]))


def typed_attributes(message: Message) -> dict[str, dict[str, str]]:
    """Attributes as envelopes and Lambda events carry them."""
    return {
        name: {
            "Type": attribute["DataType"],
            "Value": attribute["StringValue"] if "StringValue" in attribute else base64.b64encode(attribute["BinaryValue"]).decode(),
        }
        for name, attribute in message.attributes.items()
    }


class Signer:
    """Signs envelopes with a key of its own. ``endpoint`` gives a Region's URL, ``path`` is where its certificate is served."""

    def __init__(self, endpoint: Callable[[str], str]) -> None:
        self._endpoint = endpoint
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
        now = dt.datetime.now(dt.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=365))
            .sign(self._key, hashes.SHA256())
        )
        self.certificate = certificate.public_bytes(serialization.Encoding.PEM).decode()
        identity = hashlib.md5(self.certificate.encode(), usedforsecurity=False).hexdigest()
        self.path = f"/SimpleNotificationService-{identity}.pem"

    def envelope(self, message: Message, protocol: str, unsubscribe_url: str) -> dict[str, Any]:
        """The notification as JSON, for HTTP, SQS and mail."""
        envelope: dict[str, Any] = {"Type": "Notification", "MessageId": message.id, "TopicArn": message.topic}
        if message.subject is not None:
            envelope["Subject"] = message.subject
        envelope["Message"] = text_for(message, protocol)
        envelope["Timestamp"] = iso(message.time)
        self.sign(envelope, message.signature_version)
        envelope["UnsubscribeURL"] = unsubscribe_url
        if message.attributes:
            envelope["MessageAttributes"] = typed_attributes(message)
        return envelope

    def sign(self, envelope: dict[str, Any], version: str) -> None:
        """Add SignatureVersion, Signature and SigningCertURL."""
        region = envelope["TopicArn"].split(":")[3]
        lines = [part for key in _SIGNED[envelope["Type"]] if key in envelope for part in (key, envelope[key])]
        algorithm = hashes.SHA256() if version == "2" else hashes.SHA1()  # version 1 is SHA-1
        signature = self._key.sign(("\n".join(lines) + "\n").encode(), padding.PKCS1v15(), algorithm)
        envelope["SignatureVersion"] = version
        envelope["Signature"] = base64.b64encode(signature).decode()
        envelope["SigningCertURL"] = f"{self._endpoint(region)}{self.path}"
