"""Where the book is kept between runs: in the canary's artifact bucket, or in the process where there is none.

The key is ``ledger/<workload>/<vantage>.json``; the failover report reads it too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

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
        """The book, empty before the first run. Raises BookError."""
        try:
            body = self.client.get_object(Bucket=self.bucket, Key=self.key)["Body"].read()
            return Book.from_json(json.loads(body))
        except aws.errors() as error:
            if isinstance(error, ClientError) and aws.short(error) in {"NoSuchKey", "404"}:
                return Book()
            raise BookError(f"s3://{self.bucket}/{self.key} cannot be read: {error}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise BookError(f"s3://{self.bucket}/{self.key} cannot be read: {error}") from error

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
