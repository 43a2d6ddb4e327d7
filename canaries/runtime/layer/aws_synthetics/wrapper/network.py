"""A vantage without a network, as a fault: the kernel answers every connect and every datagram of this process with ENETUNREACH.

So it is for a canary in a VPC whose route or NAT is gone: its code runs, its log goes out through Lambda's own way, and nothing else does.
It is a seccomp filter (Linux: kernel documentation, "Seccomp BPF"), which needs no rights, holds for all threads and child processes, and
cannot be taken off again: the network is back in the next process. The parent's socket pair is no connection and stays.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06  # BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K
ALLOW, FAIL_WITH = 0x7FFF0000, 0x00050000
NUMBER, ARCHITECTURE, ADDRESS_LOW, ADDRESS_HIGH = 0, 4, 48, 52  # offsets in struct seccomp_data; sendto's fifth argument is an address
CALLS = {"x86_64": (0xC000003E, 42, 44), "aarch64": (0xC00000B7, 203, 206)}
"""Machine -> its AUDIT_ARCH number, and its numbers of connect and sendto."""


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def install(state: str | None) -> None:
    """Take the network away where ``state`` is "down". Raises OSError where this machine's kernel cannot."""
    if state != "down":
        return
    machine = platform.machine()
    if sys.platform != "linux" or machine not in CALLS:
        raise OSError(errno.ENOSYS, f"a network can be taken away on Linux ({', '.join(CALLS)}) only, not on {sys.platform} {machine}")
    code = _filter(*CALLS[machine])
    held = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.addressof(held))
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or library.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), f"the network could not be taken away: {os.strerror(ctypes.get_errno())}")


def _filter(architecture: int, connect: int, sendto: int) -> bytes:
    """The program: other architectures and calls pass, so does what is sent on a connected socket; jumps count from the next line."""
    lines = (
        (LOAD, 0, 0, ARCHITECTURE),
        (JUMP_IF_EQUAL, 0, 7, architecture),
        (LOAD, 0, 0, NUMBER),
        (JUMP_IF_EQUAL, 6, 0, connect),
        (JUMP_IF_EQUAL, 0, 4, sendto),
        (LOAD, 0, 0, ADDRESS_LOW),
        (JUMP_IF_EQUAL, 0, 3, 0),
        (LOAD, 0, 0, ADDRESS_HIGH),
        (JUMP_IF_EQUAL, 0, 1, 0),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, FAIL_WITH | errno.ENETUNREACH),
    )
    return b"".join(struct.pack("HBBI", *line) for line in lines)
