"""One lane of a journal: a first-in-first-out queue of blocks in segment files, with a window of them in memory.

While the destination keeps up, blocks are written to disk and delivered from memory. Once more waits than the window holds, the rest is
only on
disk and is read from there. A disk that cannot be written (full, read-only) costs durability, not data, as long as the window has room.
"""

import logging
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from crosswatch_exporters.blocks import Block
from crosswatch_exporters.journal.records import (
    HEAD_BYTES,
    MAGIC,
    UNREADABLE,
    encode_cursor,
    head_of,
    read_all,
    read_cursor,
    set_aside,
    unsound,
)
from crosswatch_exporters.ledger import Account, Loss

log = logging.getLogger(__name__)

_WINDOW_BYTES = 4 * 1024 * 1024
_MOST_SEGMENT_BYTES = 4 * 1024 * 1024
# After a failed write, blocks stay in memory for so long before the disk is tried again.
_RETRY_DISK_AFTER = 5.0


@dataclass(slots=True, eq=False)
class _Segment:
    """A file and what is in it: `items` not yet committed, of which `unread` are not in the window."""

    number: int
    path: Path
    size: int = 0
    items: int = 0
    unread: int = 0


@dataclass(slots=True, eq=False)
class _Entry:
    """A block in the window. `segment` is None when it is in memory only, `end` the offset after it."""

    block: Block
    segment: _Segment | None
    end: int


class Lane:
    """A `BlockQueue` on disk. All methods expect the account's lock to be held."""

    def __init__(
        self, folder: Path, account: Account, max_bytes: int, fsync: bool = False, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.folder = folder
        self.items = 0
        self.weight = 0
        self.disk_bytes = 0
        self._account = account
        self._max_bytes = max_bytes
        self._segment_bytes = min(_MOST_SEGMENT_BYTES, max(4096, max_bytes // 8))
        self._fsync = fsync
        self._monotonic = monotonic
        self._segments: deque[_Segment] = deque()
        self._window: deque[_Entry] = deque()
        self._window_bytes = 0
        self._unwritten: deque[Block] = deque()
        self._busy = 0
        self._read_offset = 0
        self._reading: _Segment | None = None
        self._contents: tuple[int, bytes] | None = None
        self._write_fd = -1
        self._cursor_fd = -1
        self._disk_failed_at: float | None = None
        self._said_too_large = False
        self._next_number = 1
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._recover()

    # --- BlockQueue ---

    def append(self, block: Block) -> None:
        """Write a block. Over the size limit, the oldest segment gives way; when the disk cannot be written, the block stays in memory."""
        self.items += block.items
        self.weight += block.weight
        caught_up = self._caught_up()
        segment = self._write(block)
        if segment is None and not caught_up:
            self._keep_in_memory(block)
        elif caught_up and (segment is None or self._window_bytes < _WINDOW_BYTES):
            if segment is None and self._window_bytes >= _WINDOW_BYTES:
                self._drop_new(block)
            else:
                self._admit(_Entry(block, segment, segment.size if segment else 0))
                if segment is not None:
                    self._reading, self._read_offset = segment, segment.size
        elif segment is not None:
            segment.unread += block.items
        while self.disk_bytes > self._max_bytes and len(self._segments) > 1:
            self._evict()

    def head(self, count: int) -> list[Block]:
        """The first blocks; from now on they count as being sent and are not displaced."""
        while len(self._window) < count and self._read_more():
            pass
        blocks = [entry.block for entry in islice(self._window, count)]
        self._busy = max(self._busy, len(blocks))
        return blocks

    def settle(self, items: int) -> None:
        """Items of the first blocks have been delivered or counted as lost."""
        self.items -= items

    def commit(self, count: int) -> None:
        """Remove the first blocks, and segments that are done with."""
        last: _Entry | None = None
        for _ in range(count):
            entry = self._window.popleft()
            self._window_bytes -= len(entry.block.payload)
            self.weight -= entry.block.weight
            if entry.segment is not None:
                entry.segment.items -= entry.block.items
                last = entry
        self._busy = max(0, self._busy - count)
        if self.items == 0:
            self.weight = 0
        if last is not None:
            self._advance(last)

    def close(self) -> None:
        """Write what is only in memory, if the disk lets us; close the files, and remove them when nothing is left."""
        self._disk_failed_at = None
        on_disk = {segment.number for segment in self._segments}
        only_here = [entry.block for entry in self._window if entry.segment is None or entry.segment.number not in on_disk]
        for block in only_here + list(self._unwritten):
            if self._write(block) is None:
                self.items -= block.items
                self._account.lose(Loss.SHUTDOWN, block.items)
        for fd in (self._write_fd, self._cursor_fd):
            if fd >= 0:
                os.close(fd)
        self._write_fd = self._cursor_fd = -1
        if self.items == 0:
            self.remove()

    def remove(self) -> None:
        """Delete the lane's files and folder, but for segments that we cannot read. What cannot be deleted, or is gone, stays as it is."""
        try:
            for path in self.folder.iterdir():
                if path.suffix != UNREADABLE:
                    path.unlink(missing_ok=True)
            self.folder.rmdir()
        except OSError as error:
            log.debug("%s cannot be removed: %s", self.folder, error)

    def shed(self) -> bool:
        """Delete the oldest segment although nothing was appended; False when there is only one left."""
        if len(self._segments) < 2:
            return False
        self._evict()
        return True

    # --- writing ---

    def _write(self, block: Block) -> _Segment | None:
        """The segment the block is now in, or None when the disk could not be written."""
        now = self._monotonic()
        if self._disk_failed_at is not None and now - self._disk_failed_at < _RETRY_DISK_AFTER:
            return None
        try:
            size = HEAD_BYTES + len(block.payload)
            if size + len(MAGIC) > self._max_bytes:
                self._say_too_large(size)
                return None
            segment = self._segment_for(size)
            written = os.writev(self._write_fd, (head_of(block), block.payload))
            if written != size:
                os.ftruncate(self._write_fd, segment.size)
                raise OSError(28, "the disk took only a part of the record")
            if self._fsync:
                os.fdatasync(self._write_fd)
        except (OSError, MemoryError) as error:
            if self._disk_failed_at is None and not isinstance(error, MemoryError):
                log.warning("the spool %s cannot be written (%s); telemetry waits in memory", self.folder, error)
            self._disk_failed_at = now
            return None
        self._disk_failed_at = None
        segment.size += size
        segment.items += block.items
        self.disk_bytes += size
        return segment

    def _say_too_large(self, size: int) -> None:
        if not self._said_too_large:
            self._said_too_large = True
            log.warning(
                "%d bytes of %s do not fit the spool's %d and wait in memory; raise CROSSWATCH_SPOOL_MAX_BYTES",
                size,
                self._account.signal,
                self._max_bytes,
            )

    def _segment_for(self, size: int) -> _Segment:
        """The segment to append to: the last one, or a new one when it is full."""
        if self._write_fd >= 0 and self._segments and self._segments[-1].size + size <= self._segment_bytes:
            return self._segments[-1]
        number = self._next_number
        path = self.folder / f"{number:08d}.seg"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, MAGIC)
        except OSError:
            os.close(fd)
            path.unlink(missing_ok=True)
            raise
        if self._write_fd >= 0:
            os.close(self._write_fd)
        self._write_fd = fd
        segment = _Segment(number, path, len(MAGIC))
        self._next_number = number + 1
        self._segments.append(segment)
        self.disk_bytes += len(MAGIC)
        return segment

    def _keep_in_memory(self, block: Block) -> None:
        self._unwritten.append(block)
        if sum(len(waiting.payload) for waiting in self._unwritten) > _WINDOW_BYTES:
            self._drop_new(self._unwritten.popleft())

    def _drop_new(self, block: Block) -> None:
        self.items -= block.items
        self.weight -= block.weight
        self._account.lose(Loss.SPOOL_FULL, block.items)

    # --- reading ---

    def _caught_up(self) -> bool:
        """Whether the window holds everything there is, so that a new block may join it directly."""
        if self._unwritten:
            return False
        last = self._segments[-1] if self._segments else None
        return last is None or (self._reading is last and self._read_offset >= last.size)

    def _read_more(self) -> bool:
        """Bring the next block into the window; False when there is none."""
        while self._segments:
            segment = self._reading if self._reading is not None else self._segments[0]
            stored = None
            if self._read_offset < segment.size:
                stored = next(read_all(self._read_segment(segment), self._read_offset), None)
            if stored is not None:
                self._reading, self._read_offset = segment, stored.end
                segment.unread -= stored.block.items
                self._admit(_Entry(stored.block, segment, stored.end))
                return True
            self._write_off(segment)
            following = next((s for s in self._segments if s.number > segment.number), None)
            self._reading, self._read_offset = segment, max(segment.size, self._read_offset)
            if following is None:
                break
            self._reading, self._read_offset = following, len(MAGIC)
        if self._unwritten:
            self._admit(_Entry(self._unwritten.popleft(), None, 0))
            return True
        return False

    def _read_segment(self, segment: _Segment) -> bytes:
        """The segment's contents, kept until another one or more of it is wanted."""
        if self._contents is None or self._contents[0] != segment.number or len(self._contents[1]) < segment.size:
            try:
                self._contents = (segment.number, segment.path.read_bytes())
            except OSError as error:
                log.warning("the spool's %s cannot be read: %s", segment.path, error)
                self._contents = (segment.number, b"")
        return self._contents[1]

    def _write_off(self, segment: _Segment) -> None:
        """Nothing more can be read from a segment: what it should still have held is lost."""
        if segment.unread > 0:
            self.items -= segment.unread
            segment.items -= segment.unread
            self._account.lose(Loss.SPOOL_CORRUPT, segment.unread)
        segment.unread = 0

    def _admit(self, entry: _Entry) -> None:
        self._window.append(entry)
        self._window_bytes += len(entry.block.payload)

    # --- forgetting ---

    def _advance(self, entry: _Entry) -> None:
        """Note how far delivery has come, and delete the segments before that."""
        segment = entry.segment
        if segment is None or segment not in self._segments:
            return
        while self._segments[0] is not segment:
            self._delete(self._segments.popleft())
        finished = segment.items == 0 and segment is not self._segments[-1]
        if finished and segment.unread <= 0:
            self._delete(self._segments.popleft())
            return
        if segment.items == 0 and segment is self._segments[-1] and segment.size > self._segment_bytes // 2:
            self._retire(segment)
            return
        self._write_cursor(segment.number, entry.end)

    def _retire(self, segment: _Segment) -> None:
        """Delete the segment that is being written to: everything in it has been delivered, and a new one begins when there is something
        to write."""
        if self._write_fd >= 0:
            os.close(self._write_fd)
            self._write_fd = -1
        # The number goes on, so that the cursor never points into a later file of the same name.
        self._write_cursor(segment.number + 1, 0)
        self._delete(segment)
        self._segments.clear()
        self._reading, self._read_offset = None, 0

    def _write_cursor(self, number: int, offset: int) -> None:
        try:
            if self._cursor_fd < 0:
                self._cursor_fd = os.open(self.folder / "cursor", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            os.pwrite(self._cursor_fd, encode_cursor(number, offset), 0)
        except OSError as error:
            log.debug("the spool's cursor in %s cannot be written: %s", self.folder, error)  # costs duplicates after a crash, nothing else

    def _evict(self) -> None:
        """Delete the oldest segment; what of it is not being sent is lost."""
        segment = self._segments.popleft()
        busy = list(islice(self._window, self._busy))
        kept = sum(entry.block.items for entry in busy if entry.segment is segment)
        lost = segment.items - kept
        for entry in list(islice(self._window, self._busy, None)):
            if entry.segment is segment:
                self._window.remove(entry)
                self._window_bytes -= len(entry.block.payload)
        self._account.lose(Loss.SPOOL_FULL, lost)
        self.items -= lost
        if self._reading is segment or self._reading is None:
            self._reading, self._read_offset = self._segments[0], len(MAGIC)
        self._delete(segment)

    def _delete(self, segment: _Segment) -> None:
        self.disk_bytes -= segment.size
        try:
            segment.path.unlink(missing_ok=True)
        except OSError as error:
            log.debug("%s cannot be deleted: %s", segment.path, error)

    # --- recovery ---

    def _recover(self) -> None:
        """Count what an earlier process left."""
        number, offset = read_cursor(self.folder)
        self._next_number = number + 1
        for path in sorted(self.folder.glob("*.seg")):
            if not path.stem.isdigit() or path.is_symlink():
                continue
            segment = _Segment(int(path.stem), path)
            if segment.number < number:
                path.unlink(missing_ok=True)
                continue
            data = path.read_bytes()
            start = offset if segment.number == number else len(MAGIC)
            found = list(read_all(data, start))
            damaged = unsound(data, start, found)
            if damaged and not found and data[: len(MAGIC)] != MAGIC:
                set_aside(path)
                continue
            if damaged:
                log.warning("%d bytes of the spool's %s are damaged; what they held is lost", damaged, path)
            segment.size = len(data)
            segment.items = segment.unread = sum(stored.block.items for stored in found)
            self.weight += sum(stored.block.weight for stored in found)
            self.items += segment.items
            self.disk_bytes += segment.size
            if not self._segments:
                self._reading, self._read_offset = segment, start
            self._segments.append(segment)
            self._next_number = max(self._next_number, segment.number + 1)
