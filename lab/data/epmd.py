"""``python -m lab.data.epmd <port>``: become Erlang's epmd on 127.0.0.1:port, and nowhere else.

Whatever address it is given, epmd also listens on ::1, except where it inherits its socket as from systemd (sd_listen_fds(3)).
"""

from __future__ import annotations

import os
import socket
import sys

FIRST_INHERITED = 3


def main(port: int) -> None:
    """Replace this process with epmd."""
    listening = socket.create_server(("127.0.0.1", port))
    if listening.fileno() != FIRST_INHERITED:
        os.dup2(listening.fileno(), FIRST_INHERITED)
    os.set_inheritable(FIRST_INHERITED, True)
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
    os.execvp("epmd", ["epmd", "-systemd", "-port", str(port)])


if __name__ == "__main__":
    main(int(sys.argv[1]))
