"""HTTP messages as plain values."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import parse_qsl

from lab.aws.service import AwsError


@dataclass(frozen=True)
class Request:
    """One HTTP request. ``path`` and ``query`` are as they came over the wire; header names are lower case.

    ``gone`` tells whether the client has left meanwhile, for who answers late.
    """

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    gone: Callable[[], bool] = field(default=lambda: False, compare=False, repr=False)

    @cached_property
    def content(self) -> bytes:
        """The body, uncompressed. Raises AwsError (SerializationException) where it says gzip and is not."""
        if self.headers.get("content-encoding", "").strip().lower() != "gzip":
            return self.body
        try:
            return gzip.decompress(self.body)
        except (OSError, EOFError, zlib.error) as error:
            raise AwsError("SerializationException", f"The request body is not valid gzip: {error}") from error

    @cached_property
    def query_pairs(self) -> list[tuple[str, str]]:
        """The query string's parameters in order."""
        return parse_qsl(self.query, keep_blank_values=True)

    @cached_property
    def form(self) -> dict[str, str]:
        """Parameters of a query-protocol request: the form body's, or the query string's."""
        pairs = parse_qsl(self.content.decode("utf-8", "replace"), keep_blank_values=True)
        return dict(self.query_pairs) | dict(pairs)


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP response; the server adds Content-Length."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
