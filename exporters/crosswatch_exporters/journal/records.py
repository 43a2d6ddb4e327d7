"""The format of a segment: a magic number with the version, then records that each carry their own checksum.

    segment = MAGIC record*
    record  = marker crc32 payload-length items weight oldest_ns newest_ns payload        (little endian)

The checksum covers everything after itself. A record that is cut short or damaged is skipped: reading goes on at the next marker whose
record
is sound.
"""

import logging
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from struct import Struct

from crosswatch_exporters.blocks import Block

log = logging.getLogger(__name__)

MAGIC = b"CWSPOOL\x01"
UNREADABLE = ".unreadable"
_MARKER = b"CWR1"
_HEAD = Struct("<4sIIIIQQ")
_CURSOR = Struct("<QQ")
_AFTER_CRC = 8
HEAD_BYTES = _HEAD.size


@dataclass(frozen=True, slots=True)
class Stored:
    """A block as it lies in a segment; `end` is the offset after its record."""

    block: Block
    end: int


def head_of(block: Block) -> bytes:
    """What stands before a block's payload in its record."""
    head = _HEAD.pack(_MARKER, 0, len(block.payload), block.items, block.weight, _u64(block.oldest_ns), _u64(block.newest_ns))
    crc = zlib.crc32(block.payload, zlib.crc32(head[_AFTER_CRC:]))
    return b"".join((head[:4], crc.to_bytes(4, "little"), head[_AFTER_CRC:]))


def read_at(data: bytes, offset: int) -> Stored | None:
    """The record at `offset`, or None when there is no sound one."""
    if offset + HEAD_BYTES > len(data):
        return None
    marker, crc, size, items, weight, oldest, newest = _HEAD.unpack_from(data, offset)
    end = offset + HEAD_BYTES + size
    if marker != _MARKER or end > len(data) or zlib.crc32(memoryview(data)[offset + _AFTER_CRC : end]) != crc:
        return None
    return Stored(Block(data[offset + HEAD_BYTES : end], items, weight, oldest, newest), end)


def read_all(data: bytes, offset: int = 0) -> Iterator[Stored]:
    """Every sound record from `offset` on, or from the start. Each says by its marker and checksum that it is one of this version: a file
    whose head is damaged is read as well."""
    offset = max(offset, len(MAGIC))
    while 0 <= offset < len(data):
        stored = read_at(data, offset)
        if stored is None:
            offset = data.find(_MARKER, offset + 1)
        else:
            yield stored
            offset = stored.end


def unsound(data: bytes, offset: int, found: Sequence[Stored]) -> int:
    """How many bytes from `offset` on belong to none of the records that were found there."""
    return max(0, len(data) - max(offset, len(MAGIC))) - sum(HEAD_BYTES + len(stored.block.payload) for stored in found)


def set_aside(path: Path) -> None:
    """Keep a segment in which there is nothing that we can read, such as a later version's, under a name that nobody deletes."""
    kept = path.with_suffix(UNREADABLE)
    try:
        path.rename(kept)
    except OSError as error:
        log.warning("the spool's %s cannot be read, nor set aside: %s", path, error)
    else:
        log.warning("nothing in the spool's %s can be read; it is kept as %s", path, kept.name)


def encode_cursor(number: int, offset: int) -> bytes:
    """How far a lane has been delivered: segment number and offset in it, with a checksum."""
    body = _CURSOR.pack(number, offset)
    return zlib.crc32(body).to_bytes(4, "little") + body


def read_cursor(lane: Path) -> tuple[int, int]:
    """(segment number, offset) of a lane's folder, or (0, 0) when there is none or it is damaged: then everything is sent again."""
    try:
        data = (lane / "cursor").read_bytes()
    except OSError:
        return 0, 0
    if len(data) != 4 + _CURSOR.size or zlib.crc32(data[4:]).to_bytes(4, "little") != data[:4]:
        return 0, 0
    number, offset = _CURSOR.unpack(data[4:])
    return int(number), int(offset)


def _u64(number: int) -> int:
    return min(max(number, 0), (1 << 64) - 1)
