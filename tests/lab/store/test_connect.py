"""Service Connect's proxies alone: which of their metrics there are."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from lab.plan import LabPlan
from lab.store.connect import CLIENTS, Mesh

if TYPE_CHECKING:
    from pathlib import Path

REGION = "us-east-1"


async def ask(plan: LabPlan, service: str) -> int:
    """The status of a request of UI to a service."""
    reader, writer = await asyncio.open_connection(CLIENTS["ui"], plan.regions[REGION].connect_ports[service])
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    line = await reader.readline()
    await reader.read()
    writer.close()
    return int(line.split()[1])


async def seen(tmp_path: Path, answer: bytes | None) -> tuple[int, dict[str, Any]]:
    """Status and metrics of one request to Catalog, whose one task answers so (hangs up where empty); None: there is no task."""
    plan = LabPlan.make(tmp_path)
    mesh = Mesh(plan, REGION)
    await mesh.start()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer or b"")
        writer.close()

    async with contextlib.AsyncExitStack() as stack:
        if answer is not None:
            task = await stack.enter_async_context(await asyncio.start_server(serve, "127.0.0.1", 0))
            port = task.sockets[0].getsockname()[1]
            await mesh.handle("POST", ("endpoints", "catalog"), {}, {"id": "t", "port": port})
        status = await ask(plan, "catalog")
    data = await mesh.handle("POST", ("window",), {}, None)
    return status, {datum["metric"]: datum["values"] for datum in data}


@pytest.mark.parametrize(
    ("answer", "status", "metrics"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, {"HTTPCode_Target_2XX_Count", "TargetResponseTime"}),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\nno", 503, {"HTTPCode_Target_5XX_Count", "TargetResponseTime"}),
        (b"", 503, set()),
    ],
    ids=["answers", "answers 503", "hangs up"],
)
def test_codes_are_those_of_tasks(tmp_path: Path, answer: bytes, status: int, metrics: set[str]) -> None:
    """The proxy's own 503 looks the same to the caller, and is no target's; what reached a task is counted either way."""
    got, found = asyncio.run(seen(tmp_path, answer))
    assert got == status
    assert {name for name in found if name.startswith(("HTTPCode", "TargetResponse"))} == metrics
    assert found["RequestCount"] == found["NewConnectionCount"] == [1]


def test_of_what_reached_no_task_there_is_nothing(tmp_path: Path) -> None:
    """The caller is answered 503; the called service's proxies stand beside its tasks, and there is none."""
    assert asyncio.run(seen(tmp_path, None)) == (503, {})
