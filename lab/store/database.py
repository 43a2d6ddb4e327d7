"""How Catalog and Orders use Aurora: reads go to the Region's own cluster, writes to the global writer endpoint.

Each thread keeps one connection to each of the two. A connection that broke (failover, restart, cut link) is opened anew, once a call:
a statement that fails on a fresh connection is the caller's error.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import dict_row

if TYPE_CHECKING:
    from collections.abc import Iterator

OPTIONS = "connect_timeout=2 tcp_user_timeout=4000 keepalives_idle=2 options='-c statement_timeout=4000'"


class Unavailable(Exception):
    """The database did not answer, or takes no writes."""


class Endpoint:
    """One endpoint of a cluster; ``dsn`` is a libpq connection string."""

    def __init__(self, dsn: str) -> None:
        self._dsn = f"{dsn} {OPTIONS}"
        self._local = threading.local()

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Connection[dict[str, Any]]]:
        """A transaction, committed at the end. Raises `Unavailable` where there is nobody to take it; the outcome of a commit that
        broke is unknown, as always."""
        try:
            connection = self._connection()
            with connection.transaction():
                yield connection
        except (psycopg.OperationalError, psycopg.InterfaceError, psycopg.errors.ReadOnlySqlTransaction) as error:
            self._forget()
            raise Unavailable(str(error).strip().splitlines()[0]) from error

    def rows(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[dict[str, Any]]:
        """The rows of one reading statement; tried again on a new connection where the old one broke."""
        for last in (False, True):
            try:
                return self._connection().execute(sql.encode(), parameters).fetchall()
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                self._forget()
                if last:
                    raise Unavailable(str(error).strip().splitlines()[0]) from error
        raise AssertionError("unreachable")

    def _connection(self) -> psycopg.Connection[dict[str, Any]]:
        connection: psycopg.Connection[dict[str, Any]] | None = getattr(self._local, "connection", None)
        if connection is not None and not connection.closed and _is_stale(connection):
            self._forget()
            connection = None
        if connection is None or connection.closed:
            connection = psycopg.connect(self._dsn, autocommit=True, row_factory=dict_row)
            self._local.connection = connection
        return connection

    def _forget(self) -> None:
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None


def _is_stale(connection: psycopg.Connection[Any]) -> bool:
    """Whether the other side has hung up on an idle connection: its socket has something to read, though nothing was asked."""
    import select

    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN | select.POLLHUP)
    return bool(poll.poll(0))
