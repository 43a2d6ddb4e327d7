"""AWS Signature Version 4, with the standard library only.

Follows https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html. The signing key depends only on day,
Region
and service, so it is computed once for each of them; what remains for a request is one hash of the body and two short HMACs. The tests
compare
every signature with botocore's.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlsplit


@dataclass(frozen=True, slots=True)
class Credentials:
    """Keys as AWS hands them out; `expires_at` in seconds since the epoch, or None for keys that do not expire."""

    access_key: str
    secret_key: str
    token: str = ""
    expires_at: float | None = None


class Signer:
    """Signs requests to one service in one Region."""

    def __init__(self, service: str, region: str) -> None:
        self.service = service
        self.region = region
        self._derived: tuple[tuple[str, str], bytes] | None = None

    def sign(self, credentials: Credentials, method: str, url: str, headers: Mapping[str, str], body: bytes, now: float) -> dict[str, str]:
        """The headers to send: the given ones (lower-case names) with host, date, token and authorization added.

        `now` is in seconds since the epoch by the service's clock, which may not be ours.
        """
        import hashlib
        import hmac

        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        day = stamp[:8]
        parts = urlsplit(url)
        signed = {"host": _host(parts.hostname or "", parts.port, parts.scheme), **headers, "x-amz-date": stamp}
        if credentials.token:
            signed["x-amz-security-token"] = credentials.token
        names = sorted(name for name in signed if name not in _UNSIGNED)
        canonical_headers = "".join(f"{name}:{' '.join(signed[name].split())}\n" for name in names)
        signed_names = ";".join(names)
        canonical = "\n".join(
            (method, _path(parts.path), _query(parts.query), canonical_headers, signed_names, hashlib.sha256(body).hexdigest())
        )
        scope = f"{day}/{self.region}/{self.service}/aws4_request"
        to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        signature = hmac.new(self._key(credentials.secret_key, day), to_sign.encode(), hashlib.sha256).hexdigest()
        signed["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope}, SignedHeaders={signed_names}, Signature={signature}"
        )
        return signed

    def _key(self, secret: str, day: str) -> bytes:
        import hmac

        if self._derived is None or self._derived[0] != (secret, day):
            key = f"AWS4{secret}".encode()
            for part in (day, self.region, self.service, "aws4_request"):
                key = hmac.new(key, part.encode(), "sha256").digest()
            self._derived = ((secret, day), key)
        return self._derived[1]


# Proxies may add or change these on the way.
_UNSIGNED = frozenset({"connection", "expect", "user-agent", "x-amzn-trace-id", "transfer-encoding"})


def _host(name: str, port: int | None, scheme: str) -> str:
    host = f"[{name}]" if ":" in name else name
    return host if port in (None, {"http": 80, "https": 443}.get(scheme)) else f"{host}:{port}"


def _path(path: str) -> str:
    return quote(path or "/", safe="/~%") if "%" in path else quote(path or "/", safe="/~")


def _query(query: str) -> str:
    """Sorted; the URL is expected to be percent-encoded already."""
    pairs = sorted(part.partition("=")[::2] for part in query.split("&")) if query else []
    return "&".join(f"{key}={value}" for key, value in pairs)
