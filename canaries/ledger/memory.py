"""Where the book is kept between runs: in the canary's artifact bucket, or in the process where there is none.

The key is ``ledger/<workload>/<vantage>.json``. Two runs may overlap (a dry run, an edit that starts the canary at once), so the book is
written only over the version that was read: S3 user guide, "conditional writes".
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final

from botocore.exceptions import ClientError

from canaries.ledger.book import Book
from canaries.shared import aws

CHANGED: Final = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey"})


class BookError(Exception):
    """The book could not be read or kept; the text says why. Nothing may be placed without a book.

    ``refused``: it was not kept, for certain; otherwise the answer did not come, and it may have been.
    """

    def __init__(self, text: str, *, refused: bool = False) -> None:
        super().__init__(text)
        self.refused = refused


@dataclass(slots=True)
class Bucket:
    """A book as an S3 object. One object for one run: it remembers which version it read or wrote last, by its entity tag."""

    client: Any
    bucket: str
    key: str
    _tag: str | None = None
    _sent: bytes | None = None

    def load(self) -> Book:
        """The book, empty before the first run. Raises BookError."""
        body = self._read()
        if body is None:
            return Book()
        try:
            return Book.from_json(json.loads(body))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BookError(f"{self._where} cannot be read: {error}; it is not a ledger's book") from error

    def save(self, book: Book) -> None:
        """Keep the book. Raises BookError, also where another run has changed it since this one read it."""
        if self._sent is not None:
            self._find_out(self._sent)
        body = json.dumps(book.as_json(), indent=1).encode()
        condition = {"IfMatch": self._tag} if self._tag else {"IfNoneMatch": "*"}
        try:
            answer = self.client.put_object(Bucket=self.bucket, Key=self.key, Body=body, ContentType="application/json", **condition)
        except ClientError as error:
            if aws.short(error) in CHANGED:
                raise self._changed() from error
            refused = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)) < 500
            self._sent = None if refused else body
            raise BookError(f"{self._where} cannot be written: {error}", refused=refused) from error
        except aws.errors() as error:
            self._sent = body
            raise BookError(f"{self._where} cannot be written: {error}") from error
        self._tag = answer["ETag"]

    @property
    def _where(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    def _read(self) -> bytes | None:
        """The object as it is now, None where there is none.

        Whether there is one is asked by listing: reading a key that is not there answers "access denied" to a role that may list only
        its own prefix, and then a first run and a lost permission would look the same.
        """
        try:
            if not self.client.list_objects_v2(Bucket=self.bucket, Prefix=self.key, MaxKeys=1).get("KeyCount"):
                self._tag = self._sent = None
                return None
            answer = self.client.get_object(Bucket=self.bucket, Key=self.key)
            body: bytes = answer["Body"].read()
        except aws.errors() as error:
            raise BookError(f"{self._where} cannot be read: {error}") from error
        self._tag, self._sent = answer["ETag"], None
        return body

    def _find_out(self, sent: bytes) -> None:
        """Whether a write whose answer did not come was done. Raises BookError where that cannot be told, or somebody else has written."""
        before = self._tag
        if self._read() != sent and self._tag != before:
            raise self._changed()

    def _changed(self) -> BookError:
        return BookError(f"{self._where} was changed by another run at the same time; this one places nothing more", refused=True)


@dataclass(slots=True)
class Warm:
    """A book that lives as long as the process: for runs without AWS."""

    book: Book = field(default_factory=Book)

    def load(self) -> Book:
        """The book."""
        return self.book

    def save(self, book: Book) -> None:
        """Keep it."""
        self.book = book
