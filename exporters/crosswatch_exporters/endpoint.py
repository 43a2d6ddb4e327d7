"""One endpoint as a sender uses it: signs what AWS must have signed, corrects the clock, asks for fresh keys, and knows its own health."""

import logging
import zlib
from collections.abc import Callable, Mapping

from crosswatch_exporters.aws.credentials import CredentialProvider
from crosswatch_exporters.aws.sigv4 import Signer
from crosswatch_exporters.endpoints import SERVICE_OF_SIGNAL, Route, aws_service_of
from crosswatch_exporters.health import Breaker
from crosswatch_exporters.settings import Settings
from crosswatch_exporters.transport import Reply, Transport
from crosswatch_exporters.verdicts import server_clock, stale_keys, wall_clock, wrong_clock

log = logging.getLogger(__name__)

# gzip's best level saves 4 % more than its fastest and costs six times the CPU.
_FASTEST = 1
_WORTH_COMPRESSING = 1024
# SigV4 tolerates 5 minutes; below this the clock is not what is wrong.
_NOTABLE_SKEW = 120.0


class NoCredentials(Exception):
    """The endpoint is AWS's and there is nothing to sign with; nothing is sent unsigned."""


class Endpoint:
    """Sends request bodies to one route."""

    def __init__(
        self,
        route: Route,
        transport: Transport,
        breaker: Breaker,
        signer: Signer | None,
        credentials: CredentialProvider | None,
        compression: bool,
        clock: Callable[[], float] = wall_clock,
    ) -> None:
        self.route = route
        self.breaker = breaker
        self.transport = transport
        self._signer = signer
        self._credentials = credentials
        self._compression = compression
        self._clock = clock
        self._skew = 0.0

    def send(self, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Post `body`; at most twice, when the first answer says that our keys or our clock were wrong and we know better now.

        Raises NoCredentials when there is nothing to sign with.
        """
        headers = {**headers, **self.route.headers}
        if self._compression and len(body) >= _WORTH_COMPRESSING:
            headers["content-encoding"] = "gzip"
            body = gzip(body)
        reply = self._post(body, headers)
        if self._signer is not None and self._learned_from(reply):
            reply = self._post(body, headers)
        return reply

    def _post(self, body: bytes, headers: Mapping[str, str]) -> Reply:
        if self._signer is None or self._credentials is None:
            return self.transport.post(body, headers)
        keys = self._credentials.get()
        if keys is None:
            raise NoCredentials(f"no AWS credentials for {self.route.host}")
        signed = self._signer.sign(keys, "POST", self.route.url, headers, body, self._clock() + self._skew)
        del signed["host"]  # http.client writes it, the same way
        return self.transport.post(body, signed)

    def _learned_from(self, reply: Reply) -> bool:
        """Whether a refusal taught us something that makes a second try worth while."""
        if stale_keys(reply) and self._credentials is not None:
            self._credentials.forget()
            return True
        if wrong_clock(reply):
            theirs = server_clock(reply)
            if theirs is not None and abs(theirs - (self._clock() + self._skew)) > _NOTABLE_SKEW:
                self._skew = theirs - self._clock()
                log.warning("the clock differs from %s by %.0f s; requests are signed with its time", self.route.host, self._skew)
                return True
        return False


def gzip(body: bytes) -> bytes:
    """`body` as a gzip stream, quickly."""
    compressor = zlib.compressobj(_FASTEST, zlib.DEFLATED, 31)
    return compressor.compress(body) + compressor.flush()


def open_endpoint(signal: str, route: Route, settings: Settings, credentials: CredentialProvider, breaker: Breaker) -> Endpoint:
    """An endpoint for a route: signed if it is AWS's, or an AWS API, or if the settings say so."""
    known = aws_service_of(route.url)
    signer = None
    if settings.sigv4 == "always" or (settings.sigv4 == "auto" and (known or route.api)):
        service, region = known or (route.api or SERVICE_OF_SIGNAL[signal], route.region or settings.region)
        signer = Signer(service, region)
    wire = settings.wires.get(signal, settings.wires[""])
    transport = Transport(route.url, wire.timeout, wire.certificate, wire.client_certificate, wire.client_key)
    # Of the APIs only PutMetricData documents compressed bodies.
    compression = wire.compression and route.api in ("", "monitoring")
    return Endpoint(route, transport, breaker, signer, credentials, compression)
