"""One HTTP request out, one frozen result back; network errors are results, not exceptions.

http.client with a kept-alive connection: a request costs a sixth of what it costs through requests. The sender owns the connection; only
`interrupt` may be called from another thread.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

# These take longer to import than all of ours: the sender does it when it first connects, not the service when it starts.
if TYPE_CHECKING:
    import http.client
    import ssl


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of a request. `status` is 0 when no complete answer arrived; `error` then says why."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    error: str = ""


# Answers of these endpoints are short; anything longer is somebody else's page.
_MAX_REPLY_BYTES = 1 << 20


class Transport:
    """Posts to one URL. Not thread-safe except for `interrupt`."""

    def __init__(self, url: str, timeout: float, certificate: str = "", client_certificate: str = "", client_key: str = "") -> None:
        self.url = url
        self._parts = urlsplit(url)
        self._timeout = timeout
        self._tls = (certificate, client_certificate, client_key)
        self._context: ssl.SSLContext | None = None
        self._connection: http.client.HTTPConnection | None = None

    def post(self, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Send `body`. A connection that the server closed while it was idle is opened again once, since nothing was answered on it yet."""
        reused = self._connection is not None and self._connection.sock is not None
        reply = self._attempt(body, headers)
        if reused and reply.status == 0 and reply.error.startswith(_CLOSED_WHILE_IDLE):
            reply = self._attempt(body, headers)
        return reply

    def interrupt(self) -> None:
        """Make a `post` that another thread waits in return now."""
        connection = self._connection
        sock = connection.sock if connection is not None else None
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # closed meanwhile, which is what was wanted

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _attempt(self, body: bytes, headers: Mapping[str, str]) -> Reply:
        import http.client

        try:
            connection = self._connection = self._connection or self._connect()
            connection.request("POST", self._target(), body=body, headers=dict(headers))
            response = connection.getresponse()
            content = response.read(_MAX_REPLY_BYTES)
            if response.will_close or not response.isclosed():
                self.close()
            return Reply(response.status, content, {name.lower(): value for name, value in response.getheaders()})
        except (OSError, http.client.HTTPException, ValueError, LookupError, MemoryError) as error:  # codecs are looked up, and need memory
            self.close()
            return Reply(0, error=f"{type(error).__name__}: {error}")

    def _target(self) -> str:
        path = self._parts.path or "/"
        return f"{path}?{self._parts.query}" if self._parts.query else path

    def _connect(self) -> http.client.HTTPConnection:
        import http.client

        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme != "https":
            return http.client.HTTPConnection(host, port, timeout=self._timeout)
        proxy = _proxy_for(host)
        if proxy is None:
            return http.client.HTTPSConnection(host, port, timeout=self._timeout, context=self._tls_context())
        tunnelled = http.client.HTTPSConnection(proxy[0], proxy[1], timeout=self._timeout, context=self._tls_context())
        tunnelled.set_tunnel(host, port)
        return tunnelled

    def _tls_context(self) -> ssl.SSLContext:
        if self._context is None:
            import ssl

            authority, certificate, key = self._tls
            self._context = ssl.create_default_context(cafile=authority or None)
            if certificate:
                self._context.load_cert_chain(certificate, key or None)
        return self._context


_CLOSED_WHILE_IDLE = ("RemoteDisconnected", "BrokenPipeError", "ConnectionResetError")


def _proxy_for(host: str) -> tuple[str, int | None] | None:
    """Host and port of HTTPS_PROXY, unless NO_PROXY names `host`. Plain HTTP, which is for a collector next to us, goes direct."""
    import urllib.request

    proxy = urllib.request.getproxies().get("https")
    if not proxy or urllib.request.proxy_bypass(host):
        return None
    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    return (parts.hostname, parts.port) if parts.hostname else None
