"""One recording's chunk files in the spool: which may be let go when it is full, and what is lost.

Called from the engine's loop, from its workers, and from a bot's thread where a frame needs room at
once: nothing here waits for anything but an unlink.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from recorder.account import Account
from recorder.chunks import Chunk
from recorder.events import ChunkDropped, Event
from recorder.quota import SpoolFull, SpoolQuota
from recorder.reserve import Reserve
from recorder.timeline import Lost

if TYPE_CHECKING:
    from loguru import Logger

DROPPED = (
    "the spool was full: by RECORDER_SPOOL_FULL=drop_oldest, the oldest audio that was not in the "
    "bucket was given up"
)
GONE = "chunk {} is neither in the spool nor in the bucket"


class ChunkShelf:
    """The files of a recording's sealed chunks.

    A chunk that is being sent just now is not given up: with a store that is merely slow, nothing
    would ever get through.

    Args:
        account: Of the recording: its chunks, and how many of them a manifest lists for sure.
        quota: Gets back the bytes of files.
        emit: Told of what is given up.
        log: Likewise.

    Attributes:
        sent: How many chunks, from the first, are in the store, or lost.
        reserve: Room for the next chunk; None where no chunk will follow.
        droppable: Whether chunks may be given up. Not where it is unknown what the store has.
    """

    def __init__(
        self,
        account: Account,
        quota: SpoolQuota,
        emit: Callable[[Event], None],
        log: Logger,
    ) -> None:
        self.sent = 0
        self.droppable = False
        self.reserve: Reserve | None = None
        self._account = account
        self._contents = account.contents
        self._quota = quota
        self._emit = emit
        self._log = log
        self._lock = threading.Lock()
        self._sending: int | None = None
        self._away: set[int] = set()
        self._told_at = -1

    # -- for the delivery ----------------------------------------------------------------------

    @contextmanager
    def sending(self) -> Iterator[Chunk | None]:
        """Claim the next chunk to be sent: it is not given up while it is on its way.

        Leaving the block counts it as sent, an exception does not.

        Yields:
            The chunk; None if its audio is lost.
        """
        with self._lock:
            index = self._sending = self.sent
            chunk = self._contents.sealed[index]
        try:
            yield None if chunk.lost else chunk
            self.sent = index + 1
        finally:
            self._sending = None

    def gone(self, number: int) -> None:
        """Take note that a chunk is nowhere: not in the spool, not in the store."""
        sealed = self._contents.sealed
        index = number - sealed[0].number
        with self._lock:
            if not sealed[index].lost:
                self._log.error(GONE, number)
                self._lose(index, GONE.format(number))

    def retire(self, chunk: Chunk) -> int:
        """Let a file go; where no room is set aside for the next chunk, its own is from now on.

        Returns:
            The bytes that are free now.
        """
        return 0 if self._recycle(chunk) else self.delete(chunk)

    def restock(self) -> None:
        """If there is no room set aside, take that of a file whose chunk is in the store, too."""
        index = next(self._copies(), None)
        if index is not None:
            self._recycle(self._contents.sealed[index])

    def delete(self, chunk: Chunk) -> int:
        """Delete a chunk's file; return its bytes, 0 if it was gone already."""
        self._away.add(self._index(chunk))
        try:
            self._contents.chunk_path(chunk).unlink()
        except (FileNotFoundError, NotADirectoryError):
            return 0
        self._quota.give(chunk.bytes)
        return chunk.bytes

    def _recycle(self, chunk: Chunk) -> bool:
        path = self._contents.chunk_path(chunk)
        reserve = self.reserve
        if reserve is None or reserve.size or not reserve.recycle(path, chunk.bytes):
            return False
        self._away.add(self._index(chunk))
        return True

    # -- for the quota, see `recorder.quota.Shelf` -----------------------------------------------

    def oldest_copy(self) -> float | None:
        """See `recorder.quota.Shelf`."""
        index = next(self._copies(), None)
        return None if index is None else self._age(index)

    def copy_bytes(self) -> int:
        """See `recorder.quota.Shelf`."""
        return sum(self._contents.sealed[index].bytes for index in self._copies())

    def let_copy_go(self) -> int:
        """See `recorder.quota.Shelf`."""
        index = next(self._copies(), None)
        return 0 if index is None else self.retire(self._contents.sealed[index])

    def oldest_unsent(self) -> float | None:
        """See `recorder.quota.Shelf`."""
        index = next(self._unsent(), None)
        return None if index is None else self._age(index)

    def unsent_bytes(self) -> int:
        """See `recorder.quota.Shelf`."""
        return sum(self._contents.sealed[index].bytes for index in self._unsent())

    def give_up(self) -> int:
        """See `recorder.quota.Shelf`."""
        with self._lock:
            index = next(self._unsent(), None)
            if index is None:
                return 0
            chunk = self._contents.sealed[index]
            lost = index >= self.sent  # or else it is in the store, and no manifest says so yet
            if lost:
                self._lose(index, DROPPED)
        freed = self.retire(chunk)
        if lost:
            self._tell(chunk)
        return freed

    def _copies(self) -> Iterator[int]:
        """Yield the chunks that a manifest lists and whose files are here."""
        for index in range(self._account.noted):
            if index not in self._away and not self._contents.sealed[index].lost:
                yield index

    def _unsent(self) -> Iterator[int]:
        """Yield the chunks that may be given up: no manifest lists them, none is on its way."""
        if self.droppable:
            for index in range(self._account.noted, len(self._contents.sealed)):
                if index != self._sending and not (
                    index in self._away or self._contents.sealed[index].lost
                ):
                    yield index

    def _index(self, chunk: Chunk) -> int:
        return chunk.number - self._contents.sealed[0].number

    def _lose(self, index: int, reason: str) -> None:
        # The gap first: whoever finds the chunk lost finds the gap, too.
        sealed, lost = self._contents.sealed, self._contents.timeline.lost
        chunk = sealed[index]
        listed = {(gap.track, gap.start, gap.end) for gap in lost}
        for track in chunk.tracks:
            if (track, chunk.first_sample, chunk.end) not in listed:
                lost.append(Lost(track, chunk.first_sample, chunk.end, 0, reason))
        sealed[index] = replace(chunk, lost=True)

    def _tell(self, chunk: Chunk) -> None:
        error = SpoolFull(
            DROPPED,
            hint="the store is not taking uploads fast enough, or set "
            "RECORDER_SPOOL_MAX_BYTES higher",
        )
        if self._told_at != self.sent:  # once, until the store has taken something again
            self._told_at = self.sent
            self._log.error("audio is being lost from chunk {} on: {}", chunk.number, error)
        self._emit(ChunkDropped(chunk, error))

    def _age(self, index: int) -> float:
        plan, chunk = self._account.plan, self._contents.sealed[index]
        return plan.started_at.timestamp() + chunk.first_sample / plan.sample_rate
