"""Reading protobuf without knowing its schema: fields of a message, and OTLP requests taken apart and put together again."""

from collections.abc import Iterator
from struct import unpack_from


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """(value, position after it). Raises ValueError when the data ends or the number is longer than 64 bits."""
    result = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("not protobuf: a number does not end")
        byte = data[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
        shift += 7


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of each field: bytes for length-delimited ones, int for the rest (fixed ones as unsigned).

    Raises ValueError where the data is not protobuf.
    """
    at, end = 0, len(data)
    while at < end:
        key, at = read_varint(data, at)
        number, kind = key >> 3, key & 7
        value: int | bytes
        if kind == 2:
            size, at = read_varint(data, at)
            if at + size > end:
                raise ValueError("not protobuf: a field is longer than its message")
            value = data[at : at + size]
            at += size
        elif kind == 0:
            value, at = read_varint(data, at)
        elif kind in (1, 5):
            width = 8 if kind == 1 else 4
            if at + width > end:
                raise ValueError("not protobuf: a field is longer than its message")
            value = int(unpack_from("<Q" if kind == 1 else "<I", data, at)[0])
            at += width
        else:
            raise ValueError(f"not protobuf: wire type {kind}")
        yield number, value
