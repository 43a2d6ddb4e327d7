"""The protobuf wire format, as far as OTLP needs it: varints, length-delimited fields, AnyValue, and attributes with a cache.

Written by hand because it is the hot path: with attribute pairs cached as bytes a span costs a tenth of what it costs to build and
serialise
protobuf objects. `tests/exporters` proves that what is written here equals what the stock encoder writes.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from struct import Struct
from typing import Any

Redactor = Callable[[str, Any], Any]
"""Takes an attribute's key and value and gives the value that may leave the process."""

MASK_64 = (1 << 64) - 1
FIXED64 = Struct("<Q")
DOUBLE = Struct("<d")

# Nearly all lengths are below this, so they are looked up instead of computed. The table takes a millisecond of every service's start.
_TABLE = 1 << 12
_TWO_BYTES = 1 << 14
_SMALL = tuple(bytes((n,)) if n < 0x80 else bytes((n & 0x7F | 0x80, n >> 7)) for n in range(_TABLE))

# A service repeats itself: routes, methods, hosts. Beyond this many distinct pairs the cache starts again, so that ids cannot fill the
# memory.
_CACHE_PAIRS = 4096
_CACHE_VALUE_CHARACTERS = 256


def varint(n: int) -> bytes:
    """Encode `n`; a negative number is written as its 64-bit two's complement, as protobuf's int64 is."""
    if 0 <= n < _TABLE:
        return _SMALL[n]
    if 0 < n < _TWO_BYTES:
        return bytes((n & 0x7F | 0x80, n >> 7))
    n &= MASK_64
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def delimited(tag: bytes, payload: bytes) -> bytes:
    """A length-delimited field: tag, length, payload."""
    size = len(payload)
    return tag + (_SMALL[size] if size < _TABLE else varint(size)) + payload


def text(tag: bytes, value: str | None) -> bytes:
    """A string field; nothing when the string is empty, as proto3 leaves defaults out."""
    return delimited(tag, utf8(value)) if value else b""


def utf8(value: str) -> bytes:
    """UTF-8, with lone surrogates replaced: a string that came from undecodable bytes must not stop the batch it is in."""
    try:
        return value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-8", "replace")


def any_value(value: Any) -> bytes:
    """The payload of an AnyValue message. What is neither scalar, sequence nor mapping is written as its text."""
    match value:
        case None:
            return b""
        case bool():
            return b"\x10\x01" if value else b"\x10\x00"
        case str():
            return delimited(b"\x0a", utf8(value))
        case int():
            return b"\x18" + varint(value) if -(1 << 63) <= value < 1 << 63 else delimited(b"\x0a", str(value).encode())
        case float():
            return b"\x21" + DOUBLE.pack(value)
        case bytes():
            return delimited(b"\x3a", value)
        case Mapping():
            pairs = b"".join(delimited(b"\x0a", key_value(str(key), item)) for key, item in value.items())
            return delimited(b"\x32", pairs)
        case Sequence():
            return delimited(b"\x2a", b"".join(delimited(b"\x0a", any_value(item)) for item in value))
        case _:
            return delimited(b"\x0a", utf8(str(value)))


def key_value(key: str, value: Any) -> bytes:
    """The payload of a KeyValue message."""
    return delimited(b"\x0a", utf8(key)) + delimited(b"\x12", any_value(value))


class AttributeEncoder:
    """Writes attributes as one repeated field, remembering each pair it has seen.

    `tag` is the field's tag in the surrounding message. `redact` is applied before a pair is remembered, so a rule is evaluated once for
    each
    distinct pair and not once for each span.
    """

    def __init__(self, tag: int, redact: Redactor | None = None) -> None:
        self._tag = bytes((tag,))
        self._redact = redact
        # Of each key, the type its values have and the values seen. The type matters: True, 1 and 1.0 are equal as keys but not on the
        # wire.
        self._keys: dict[str, tuple[type, dict[Any, bytes]]] = {}
        self._remembered = 0

    def __call__(self, attributes: Iterable[tuple[str, Any]]) -> bytes:
        """Encode (key, value) pairs in their order."""
        keys = self._keys
        out = []
        for key, value in attributes:
            try:
                kind, values = keys[key]
                if value.__class__ is kind:
                    out.append(values[value])
                    continue
            except (KeyError, TypeError):  # not seen yet, or a value that cannot be a key
                pass
            out.append(self._encode(key, value))
        return b"".join(out)

    def _encode(self, key: str, value: Any) -> bytes:
        redacted = value if self._redact is None else self._redact(key, value)
        encoded = delimited(self._tag, key_value(key, redacted))
        kind = value.__class__
        if kind in _REMEMBERED and (kind is not str or len(value) <= _CACHE_VALUE_CHARACTERS):
            if self._remembered >= _CACHE_PAIRS:
                self._keys.clear()
                self._remembered = 0
            known, values = self._keys.setdefault(key, (kind, {}))
            if known is kind:
                values[value] = encoded
                self._remembered += 1
        return encoded


# Types whose values are compared by what they are worth. Floats are left out: 0.0 and -0.0 are equal, and floats rarely repeat.
_REMEMBERED = frozenset({str, int, bool})


def items_of(attributes: Any) -> Collection[tuple[str, Any]]:
    """The pairs of an SDK attribute container, without the copy and the lock that its iterator takes.

    The containers of finished spans and log records no longer change. Any other mapping is read through its public interface.
    """
    if not attributes:
        return ()
    if isinstance(attributes, dict):
        return attributes.items()
    inner = getattr(attributes, "_dict", None)
    return inner.items() if type(inner) is dict else attributes.items()
