"""Where the book is kept between runs: in the canary's artifact bucket, or in the process where there is none.

The key is ``ledger/<workload>/<vantage>.json``; the failover report reads it too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from canaries.ledger.book import Book
from canaries.shared import aws


class BookError(Exception):
    """The book could not be read or kept; the text says why. Nothing may be placed without a book."""


@dataclass(slots=True)
class Bucket:
    """A book as an S3 object."""

    client: Any
    bucket: str
    key: str

    def load(self) -> Book:
        """The book, empty before the first run. Raises BookError.

        Whether there is one is asked by listing: reading a key that is not there answers "access denied" to a role that may list only
        its own prefix, and then a first run and a lost permission would look the same.
        """
        where = f"s3://{self.bucket}/{self.key} cannot be read"
        try:
            if not self.client.list_objects_v2(Bucket=self.bucket, Prefix=self.key, MaxKeys=1).get("KeyCount"):
                return Book()
            return Book.from_json(json.loads(self.client.get_object(Bucket=self.bucket, Key=self.key)["Body"].read()))
        except aws.errors() as error:
            raise BookError(f"{where}: {error}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise BookError(f"{where}: {error}; it is not a ledger's book") from error

    def save(self, book: Book) -> None:
        """Keep the book. Raises BookError."""
        body = json.dumps(book.as_json(), indent=1).encode()
        try:
            self.client.put_object(Bucket=self.bucket, Key=self.key, Body=body, ContentType="application/json")
        except aws.errors() as error:
            raise BookError(f"s3://{self.bucket}/{self.key} cannot be written: {error}") from error


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
