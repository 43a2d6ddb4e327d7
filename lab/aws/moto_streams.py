"""DynamoDB Streams of moto in bounded memory.

AWS keeps a stream record for 24 hours and a shard iterator for 15 minutes; moto keeps both for ever. Here the newest `RECORDS` of a table
and the newest `ITERATORS` of a Region are kept, so that a lab can run for days.
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Streams.html
"""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RECORDS = 10_000
ITERATORS = 1_000


class LastRecords:
    """A list of which the first items go when there are too many; the others keep their places."""

    def __init__(self, most: int = RECORDS) -> None:
        self._records: deque[Any] = deque()
        self._gone = 0
        self._most = most
        self._lock = threading.Lock()

    def append(self, record: Any) -> None:
        """Add one."""
        with self._lock:
            self._records.append(record)
            if len(self._records) > self._most:
                self._records.popleft()
                self._gone += 1

    def __len__(self) -> int:
        """How many there ever were."""
        with self._lock:
            return self._gone + len(self._records)

    def __getitem__(self, places: slice) -> list[Any]:
        """What is still there of ``[start:stop]``."""
        with self._lock:
            start, stop, _ = places.indices(self._gone + len(self._records))
            return [self._records[place - self._gone] for place in range(max(start, self._gone), stop)]

    def __iter__(self) -> Iterator[Any]:
        return iter(self[:])


class LastOnes(OrderedDict[str, Any]):
    """A dictionary of the newest entries."""

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        if len(self) > ITERATORS:
            self.pop(next(iter(self)), None)

    def __missing__(self, key: str) -> Any:
        from moto.core.exceptions import JsonRESTError

        raise JsonRESTError("ExpiredIteratorException", "The shard iterator has expired.")


@functools.cache
def bound() -> None:
    """Give moto's streams these containers, from now on."""
    from moto.dynamodb.models.table import StreamShard
    from moto.dynamodbstreams.models import DynamoDBStreamsBackend

    _after_init(StreamShard, items=LastRecords)
    _after_init(DynamoDBStreamsBackend, shard_iterators=LastOnes)


def _after_init(cls: Any, **attributes: Callable[[], Any]) -> None:
    original = cls.__init__

    @functools.wraps(original)
    def init(self: Any, *arguments: Any, **named: Any) -> None:
        original(self, *arguments, **named)
        for name, make in attributes.items():
            setattr(self, name, make())

    cls.__init__ = init
