"""The queue between encoding and sending, in memory: used where there is no disk to write to. `journal` has the same shape on disk."""

from collections import deque
from itertools import islice
from typing import Protocol

from crosswatch_exporters.blocks import Block
from crosswatch_exporters.ledger import Account, Loss


class BlockQueue(Protocol):
    """First in, first out. All methods expect the account's lock to be held."""

    def append(self, block: Block) -> None:
        """Add a block. Never fails: what does not fit displaces the oldest, and the account says so."""

    def head(self, count: int) -> list[Block]:
        """The first blocks, oldest first; they stay in the queue until they are committed."""

    def settle(self, items: int) -> None:
        """That many items of the first blocks have been delivered or counted as lost."""

    def commit(self, count: int) -> None:
        """Remove the first blocks, all of whose items have been settled."""

    def close(self) -> None:
        """Give back what the queue holds in the operating system."""

    @property
    def items(self) -> int:
        """Items in the queue."""

    @property
    def weight(self) -> int:
        """Bytes in the queue."""


class MemoryQueue:
    """A bounded queue of blocks. Blocks that are being sent are not displaced."""

    def __init__(self, account: Account, max_bytes: int) -> None:
        self._account = account
        self._max_bytes = max_bytes
        self._blocks: deque[Block] = deque()
        self._busy = 0
        self.items = 0
        self.weight = 0

    def append(self, block: Block) -> None:
        """Add a block, displacing the oldest that are not being sent."""
        self._blocks.append(block)
        self.items += block.items
        self.weight += block.weight
        while self.weight > self._max_bytes and len(self._blocks) > self._busy:
            oldest = self._blocks[self._busy]
            del self._blocks[self._busy]
            self.items -= oldest.items
            self.weight -= oldest.weight
            self._account.lose(Loss.SPOOL_FULL, oldest.items)

    def head(self, count: int) -> list[Block]:
        """The first blocks; from now on they count as being sent."""
        blocks = list(islice(self._blocks, count))
        self._busy = max(self._busy, len(blocks))
        return blocks

    def settle(self, items: int) -> None:
        """Items of the first blocks are no longer ours."""
        self.items -= items

    def commit(self, count: int) -> None:
        """Remove the first blocks."""
        for _ in range(count):
            self.weight -= self._blocks.popleft().weight
        self._busy = max(0, self._busy - count)

    def close(self) -> None:
        """What is still here ends with the process."""
        self._account.lose(Loss.SHUTDOWN, self.items)
        self.items = 0


class Backlog:
    """Several queues as one: what was taken over from ended processes first, then our own. New blocks go to our own."""

    def __init__(self, own: BlockQueue) -> None:
        self.own = own
        self._taken_over: deque[BlockQueue] = deque()
        self._current: BlockQueue = own

    def take_over(self, queue: BlockQueue) -> None:
        """Add the queue of an ended process."""
        self._taken_over.append(queue)

    @property
    def items(self) -> int:
        """Items in all of them."""
        return self.own.items + sum(queue.items for queue in self._taken_over)

    @property
    def weight(self) -> int:
        """Bytes in all of them."""
        return self.own.weight + sum(queue.weight for queue in self._taken_over)

    def append(self, block: Block) -> None:
        """Add to our own."""
        self.own.append(block)

    def head(self, count: int) -> list[Block]:
        """The first blocks of the first queue that has any."""
        while self._taken_over:
            self._current = self._taken_over[0]
            if blocks := self._current.head(count):
                return blocks
            self._taken_over.popleft().close()
        self._current = self.own
        return self.own.head(count)

    def settle(self, items: int) -> None:
        """On the queue that `head` was last taken from."""
        self._current.settle(items)

    def commit(self, count: int) -> None:
        """On the queue that `head` was last taken from."""
        self._current.commit(count)

    def close(self) -> None:
        """Close all."""
        for queue in (*self._taken_over, self.own):
            queue.close()
