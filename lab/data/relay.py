"""Carries TCP connections of an endpoint to the server that it stands for, both ways, until one side ends.

On AWS endpoints are names; in the lab they are ports (decision 060), and who listens on one hands each connection to `carry`.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Ends = set[asyncio.StreamWriter]

CHUNK = 1 << 16


async def carry(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int, ends: Ends, before: Callable[[], Awaitable[None]] | None = None
) -> None:
    """Carry an accepted connection to ``port`` and close it. ``before`` is awaited before each piece goes on, either way.

    Both of its ends are in ``ends`` meanwhile, so that `abort` breaks it. A server that does not listen looks like one that hangs up.
    """
    ends.add(writer)
    upstream: asyncio.StreamWriter | None = None
    try:
        back, upstream = await asyncio.open_connection("127.0.0.1", port)
        ends.add(upstream)
        if writer.is_closing():  # broken off while it was being connected: nothing of it may arrive
            return
        pumps = [asyncio.create_task(_pump(*pair, before)) for pair in ((reader, upstream), (back, writer))]
        _, pending = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pending:
            pump.cancel()
    except OSError:
        pass
    finally:
        for end in (writer, upstream):
            if end is not None:
                ends.discard(end)
                end.close()


def abort(ends: Ends) -> None:
    """Break connections at once: their clients see a reset."""
    for writer in list(ends):
        writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, before: Callable[[], Awaitable[None]] | None) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(CHUNK):
            if before is not None:
                await before()
            writer.write(data)
            await writer.drain()
