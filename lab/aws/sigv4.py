"""Signature Version 4, checked the way AWS checks it: header and presigned query, body hash, clock (the wall's), scope, session token.

`verify` is a pure decision over a request; it answers who signed, or raises `AwsError` with the code of the protocol family the service
belongs to (AWS names the same refusals differently in query, JSON and S3).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import secrets
import threading
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from lab.aws.service import AwsError

if TYPE_CHECKING:
    from lab.aws.protocol import Request

ALGORITHM = "AWS4-HMAC-SHA256"
MAX_SKEW_S = 300.0
MAX_SKEW_S3_S = 900.0
MAX_EXPIRES_S = 7 * 86_400.0  # of a presigned URL
KEEP_EXPIRED_S = 3600.0  # a client that comes late with its session is told that it expired
UNSIGNED = "UNSIGNED-PAYLOAD"
# Clients leave this one out of their signatures; all other x-amz-* headers that are sent have to be signed (x-amzn-* are none of them).
_MAY_BE_UNSIGNED = "x-amz-user-agent"
_EMPTY_HASH = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class Key:
    """A key pair; ``token`` and ``expires`` (wall, epoch seconds) are those of temporary credentials."""

    access_key: str
    secret_key: str
    principal: str
    token: str | None = None
    expires: float | None = None


class KeyStore:
    """The key pairs that the local AWS knows: the plan's, and those that STS issued."""

    def __init__(self, keys: list[Key]) -> None:
        self._keys = {key.access_key: key for key in keys}
        self._lock = threading.Lock()

    def find(self, access_key: str) -> Key | None:
        """The pair of ``access_key``, or None."""
        return self._keys.get(access_key)

    def issue(self, principal: str, expires: float) -> Key:
        """New temporary credentials for ``principal`` until ``expires`` (wall). Those that expired an hour ago are forgotten."""
        key = Key("ASIA" + secrets.token_hex(8).upper(), secrets.token_hex(20), principal, secrets.token_urlsafe(96), expires)
        oldest = time.time() - KEEP_EXPIRED_S
        with self._lock:
            for each in [each for each in self._keys.values() if each.expires is not None and each.expires < oldest]:
                del self._keys[each.access_key]
            self._keys[key.access_key] = key
        return key


@dataclass(frozen=True, slots=True)
class Signature:
    """What a request says about its signature."""

    access_key: str
    date: str
    region: str
    service: str
    signed_headers: tuple[str, ...]
    value: str
    timestamp: str
    presigned: bool
    expires_s: float | None
    token: str | None


# Refusals by protocol family: (query and REST-XML, JSON and REST-JSON, S3).
_CODES = {
    "missing": ("MissingAuthenticationToken", "MissingAuthenticationTokenException", "AccessDenied"),
    "incomplete": ("IncompleteSignature", "IncompleteSignatureException", "AuthorizationHeaderMalformed"),
    "unknown": ("InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId"),
    "token": ("InvalidClientTokenId", "UnrecognizedClientException", "InvalidToken"),
    "expired-token": ("ExpiredToken", "ExpiredTokenException", "ExpiredToken"),
    "signature": ("SignatureDoesNotMatch", "InvalidSignatureException", "SignatureDoesNotMatch"),
    "scope": ("SignatureDoesNotMatch", "InvalidSignatureException", "AuthorizationHeaderMalformed"),
    "unsigned": ("SignatureDoesNotMatch", "InvalidSignatureException", "AccessDenied"),
    "lifetime": ("IncompleteSignature", "IncompleteSignatureException", "AuthorizationQueryParametersError"),
    "skew": ("SignatureDoesNotMatch", "InvalidSignatureException", "RequestTimeTooSkewed"),
    "expired": ("SignatureDoesNotMatch", "InvalidSignatureException", "AccessDenied"),
}


def refusal(kind: str, protocol: str, service: str, message: str) -> AwsError:
    """An authentication error in the words of the service's protocol."""
    family = 2 if service == "s3" else 0 if protocol in {"query", "ec2", "rest-xml"} else 1
    malformed = service == "s3" and kind in {"incomplete", "scope", "lifetime"}
    return AwsError(_CODES[kind][family], message, 400 if malformed or protocol == "json" else 403)


def read(request: Request) -> Signature | None:
    """The request's signature; None where it has none. Raises ValueError where it is malformed."""
    header = request.headers.get("authorization")
    if header is not None:
        if not header.startswith(ALGORITHM):
            raise ValueError(f"Unsupported authorization type: {header.split(' ')[0]!r}")
        fields = dict(part.strip().partition("=")[::2] for part in header[len(ALGORITHM) :].split(","))
        missing = [name for name in ("Credential", "SignedHeaders", "Signature") if not fields.get(name)]
        if missing:
            raise ValueError(f"Authorization header requires {' and '.join(repr(name) for name in missing)} parameter.")
        timestamp, presigned, expires, token = (
            request.headers.get("x-amz-date", ""),
            False,
            None,
            request.headers.get("x-amz-security-token"),
        )
    else:
        query = dict(request.query_pairs)
        if "X-Amz-Signature" not in query:
            return None
        fields = {
            "Credential": query.get("X-Amz-Credential", ""),
            "SignedHeaders": query.get("X-Amz-SignedHeaders", ""),
            "Signature": query["X-Amz-Signature"],
        }
        lifetime = query.get("X-Amz-Expires", "0")
        if not lifetime.isdecimal():
            raise ValueError(f"X-Amz-Expires must be a number of seconds, not {lifetime!r}")
        timestamp, presigned, expires, token = (
            query.get("X-Amz-Date", ""),
            True,
            float(lifetime),
            query.get("X-Amz-Security-Token"),
        )
    scope = fields["Credential"].split("/")
    if len(scope) != 5 or scope[4] != "aws4_request":
        raise ValueError(
            f"Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got '{fields['Credential']}'"
        )
    return Signature(
        scope[0],
        scope[1],
        scope[2],
        scope[3],
        tuple(fields["SignedHeaders"].split(";")),
        fields["Signature"],
        timestamp,
        presigned,
        expires,
        token,
    )


def verify(request: Request, signature: Signature, keys: KeyStore, protocol: str, now_wall: float) -> Key:
    """Who signed ``request``. Raises AwsError where the key is unknown, the clock is off or the signature does not match."""

    def refuse(kind: str, message: str) -> AwsError:
        return refusal(kind, protocol, signature.service, message)

    key = keys.find(signature.access_key)
    if key is None:
        raise refuse("unknown", "The security token included in the request is invalid.")
    if key.token is not None and key.token != signature.token:
        raise refuse("token", "The security token included in the request is invalid.")
    if key.expires is not None and now_wall > key.expires:
        raise refuse("expired-token", "The security token included in the request is expired")
    try:
        signed_at = dt.datetime.strptime(signature.timestamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC).timestamp()
    except ValueError:
        raise refuse("incomplete", "Date must be in ISO-8601 'basic format'") from None
    if not signature.timestamp.startswith(signature.date):
        raise refuse("signature", f"Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date: {signature.timestamp}")
    if problem := _time_problem(signature, signed_at, now_wall) or _unsigned_problem(request, signature):
        raise refuse(*problem)
    expected = _signature(request, signature, key.secret_key)
    if expected is None or not hmac.compare_digest(expected, signature.value):
        raise refuse(
            "signature",
            "The request signature we calculated does not match the signature you provided. "
            "Check your AWS Secret Access Key and signing method.",
        )
    return key


def _time_problem(signature: Signature, signed_at: float, now_wall: float) -> tuple[str, str] | None:
    """What is wrong with when a request was signed and how long that is good for: kind of refusal and message."""
    skew = MAX_SKEW_S3_S if signature.service == "s3" else MAX_SKEW_S
    if not signature.presigned:
        if abs(now_wall - signed_at) > skew:
            return "skew", f"Signature expired: {signature.timestamp} is too far from the server's time"
        return None
    lifetime = signature.expires_s or 0.0
    if lifetime > MAX_EXPIRES_S:
        return "lifetime", f"X-Amz-Expires must be less than a week (in seconds); that is, it must be at most {MAX_EXPIRES_S:.0f}"
    if signed_at > now_wall + skew:
        return "expired", f"Signature not yet current: {signature.timestamp} is later than the server's time"
    return ("expired", "Request has expired") if now_wall > signed_at + lifetime else None


def _unsigned_problem(request: Request, signature: Signature) -> tuple[str, str] | None:
    """What of a request the signature leaves open: kind of refusal and message."""
    if "host" not in signature.signed_headers:
        return "unsigned", "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization."
    bare = {name for name in request.headers if name.startswith("x-amz-")} - {*signature.signed_headers, _MAY_BE_UNSIGNED}
    if bare:
        return "unsigned", f"There were headers present in the request which were not signed: {', '.join(sorted(bare))}"
    return None


def _signature(request: Request, signature: Signature, secret: str) -> str | None:
    """The signature that ``secret`` would have made, or None where the body is not the one that was signed."""
    payload = _payload_hash(request, signature)
    if payload is None:
        return None
    canonical = "\n".join(
        (
            request.method,
            _canonical_path(request.path, signature.service),
            _canonical_query(request.query),
            "".join(f"{name}:{' '.join(request.headers.get(name, '').split())}\n" for name in signature.signed_headers),
            ";".join(signature.signed_headers),
            payload,
        )
    )
    scope = f"{signature.date}/{signature.region}/{signature.service}/aws4_request"
    text = "\n".join((ALGORITHM, signature.timestamp, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    return hmac.new(_signing_key(secret, signature.date, signature.region, signature.service), text.encode(), hashlib.sha256).hexdigest()


def _payload_hash(request: Request, signature: Signature) -> str | None:
    claimed = request.headers.get("x-amz-content-sha256")
    if signature.presigned and claimed is None:
        return UNSIGNED if signature.service == "s3" else _hash(request.body)
    if claimed is not None and (claimed == UNSIGNED or claimed.startswith("STREAMING-")):
        return claimed if signature.service == "s3" else None
    actual = _hash(request.body)
    return actual if claimed is None or claimed == actual else None


def _hash(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest() if body else _EMPTY_HASH


def _canonical_path(path: str, service: str) -> str:
    if service == "s3":
        return path
    # Everyone but S3 encodes the path as it travels once more.
    return quote(path, safe="/-_.~") or "/"


def _canonical_query(query: str) -> str:
    if not query:
        return ""
    pairs = []
    for part in query.split("&"):
        key, _, value = part.partition("=")
        if key != "X-Amz-Signature":
            pairs.append((quote(unquote(key), safe="-_.~"), quote(unquote(value), safe="-_.~")))
    return "&".join(f"{key}={value}" for key, value in sorted(pairs))


@lru_cache(maxsize=512)
def _signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key
