"""How other terminals reach a running lab: a Unix socket in its state directory, one JSON object a line each way.

A request is ``{"do": NAME, …}``, the answer ``{"ok": …}`` or ``{"refused": "why"}``, with ``"unusable": true`` where the request makes no
sense in any state of this lab. The socket's mode keeps other users out.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import socketserver
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

SOCKET = "control.sock"


class NoLab(Exception):
    """No lab runs in the state directory."""

    def __init__(self, directory: Path) -> None:
        super().__init__(f"no lab is running in {directory}. Start one with 'lab up', or name its directory in CROSSWATCH_LAB_DIR.")


class Refused(Exception):
    """The lab understood the request and says why it does not do it."""


class Unusable(Refused):
    """The request names what there is not: a fault, a Region."""


class ControlServer:
    """Answers requests with ``handlers[do](request)``, each in a thread of its own. A handler refuses by raising `Refused`.

    What else it raises is refused too, and its traceback printed: who asked shall not read that no lab is running.
    """

    def __init__(self, directory: Path, handlers: Mapping[str, Callable[[dict[str, Any]], Any]]) -> None:
        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(ConnectionError):
                    for line in self.rfile:
                        self.wfile.write(json.dumps(_answer(handlers, line)).encode() + b"\n")

        with _short(directory / SOCKET) as path:
            self._server = _UnixServer(path, Handler)
            Path(path).chmod(0o600)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="control", daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()


class _UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64


def ask(directory: Path, do: str, timeout_s: float = 120.0, **request: Any) -> Any:
    """Ask the lab that runs in ``directory``. Raises `NoLab`, `Refused`, or TimeoutError."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout_s)
        try:
            with _short(directory / SOCKET) as path:
                connection.connect(path)
            connection.sendall(json.dumps({"do": do, **request}).encode() + b"\n")
            with connection.makefile("rb") as lines:
                line = lines.readline()
        except TimeoutError:
            raise TimeoutError(f"the lab in {directory} did not answer '{do}' within {timeout_s:g} s") from None
        except OSError as error:
            raise NoLab(directory) from error
    if not line:
        raise NoLab(directory)
    answer = json.loads(line)
    if "refused" in answer:
        raise (Unusable if answer.get("unusable") else Refused)(answer["refused"])
    return answer["ok"]


def _answer(handlers: Mapping[str, Callable[[dict[str, Any]], Any]], line: bytes) -> dict[str, Any]:
    try:
        request = json.loads(line)
        handler = handlers[request["do"]]
    except (ValueError, KeyError, TypeError):
        return {"refused": f'a request is {{"do": one of {", ".join(handlers)}}}'}
    try:
        answer = {"ok": handler(request)}
        json.dumps(answer)
    except Refused as refusal:
        return {"refused": str(refusal), "unusable": isinstance(refusal, Unusable)}
    except Exception as error:  # noqa: BLE001 - a mistake of our own, to be told to who asked
        traceback.print_exc()
        return {"refused": f"'{request['do']}' failed in the lab itself: {type(error).__name__}: {error}"}
    return answer


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """``path`` by way of its folder's descriptor: the name of a Unix socket may have no more than 107 bytes."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
