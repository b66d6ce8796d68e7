"""How much disk the spools of one process may take, and how room is made where that is used up.

Room is made at two prices. A chunk file whose chunk is durable in the store costs nothing: it was
kept for parts still to be sent, and can be read back. The oldest chunk that is in no store yet is
given up for newer audio only where the settings say so, and is listed as a gap.
"""

from __future__ import annotations

import errno
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from uploader.errors import BotRecorderError

T = TypeVar("T")

NO_ROOM = frozenset((errno.ENOSPC, errno.EDQUOT))
"""What a disk answers that is full, or a user's share of it."""


class SpoolFull(BotRecorderError):
    """There is no room in the spool: the disk is full, or its configured size is used up."""


class Shelf(Protocol):
    """The chunk files of one recording, of which some may be let go; see `recorder.shelf`.

    Ages are seconds of the wall clock at which a chunk's audio was, so that recordings compare.
    """

    def oldest_copy(self) -> float | None:
        """Return the age of the oldest file whose chunk is durable in the store."""
        ...

    def copy_bytes(self) -> int:
        """Return the bytes of all such files."""
        ...

    def let_copy_go(self) -> int:
        """Delete the oldest; return its bytes, 0 if it was gone already."""
        ...

    def oldest_unsent(self) -> float | None:
        """Return the age of the oldest chunk that may be given up."""
        ...

    def unsent_bytes(self) -> int:
        """Return the bytes of all chunks that may be given up."""
        ...

    def give_up(self) -> int:
        """Give up the oldest such chunk: its audio is lost. Return the bytes of its file."""
        ...


class SpoolQuota:
    """Counts bytes allocated in the spool against a limit, and makes room. Thread-safe.

    Args:
        limit: Bytes.
        used: Bytes that are there already, e.g. left by an earlier process.
        drop_oldest: Whether the oldest audio is given up for newer, where nothing else helps.
    """

    def __init__(self, limit: int, used: int = 0, *, drop_oldest: bool = False) -> None:
        self.limit = limit
        self.drop_oldest = drop_oldest
        self._shelves: weakref.WeakSet[Shelf] = weakref.WeakSet()
        self._used = used
        self._lock = threading.Lock()
        self._making_room = threading.Lock()

    @property
    def used(self) -> int:
        """Bytes allocated now."""
        return self._used

    def take(self, count: int, *, drop: bool = True) -> None:
        """Allocate `count` bytes, making room for them if need be.

        Args:
            count: Bytes.
            drop: Whether audio may be given up for them, if the quota's policy is that.

        Raises:
            SpoolFull: They do not fit under the limit; nothing was allocated.
        """
        if not self._missing(count):
            return
        with self._making_room:  # not two files for the room of one
            while missing := self._missing(count):
                if count > self.limit or not self._make_room(missing, drop=drop):
                    raise SpoolFull(
                        f"the spool holds {self._used} of at most {self.limit} bytes",
                        hint="the store is not taking uploads fast enough, or set "
                        "RECORDER_SPOOL_MAX_BYTES higher",
                    )

    @property
    def roomy(self) -> bool:
        """Whether less than half of what is allowed is used."""
        return self._used < self.limit // 2

    def give(self, count: int) -> None:
        """Return `count` bytes."""
        with self._lock:
            self._used = max(0, self._used - count)

    def correct(self, by: int) -> None:
        """Change what is allocated by what was found on the disk and never counted, or not there.

        Other processes use the same spool folder, and so did those whose files are finished.
        """
        with self._lock:
            self._used = max(0, self._used + by)

    def allocate(self, count: int, work: Callable[[], T], where: Path, *, drop: bool = True) -> T:
        """Take `count` bytes and do what needs them of the disk, making room on either.

        Args:
            count: Bytes.
            work: Allocates them; if the disk has no room for them, it must leave nothing behind.
            where: In which folder, for the error.
            drop: See `take`.

        Returns:
            What `work` returns.

        Raises:
            SpoolFull: There is no room; nothing was allocated.
        """
        self.take(count, drop=drop)
        try:
            while True:
                try:
                    return work()
                except OSError as error:
                    full = error.errno in NO_ROOM
                    missing = max(1, count - _free(where))
                    if not (full and self.make_room(missing, drop=drop)):
                        raise _refused(count, where, error, full=full) from error
        except BaseException:
            self.give(count)
            raise

    def make_room(self, count: int, *, drop: bool = True) -> bool:
        """Let chunk files of `count` bytes go, or none if there are fewer; return whether any."""
        with self._making_room:
            return self._make_room(count, drop=drop)

    def add(self, shelf: Shelf) -> None:
        """Let chunk files of a recording go from now on, if need be."""
        with self._making_room:
            self._shelves.add(shelf)

    def remove(self, shelf: Shelf) -> None:
        """Touch no file of a recording any more. Idempotent."""
        with self._making_room:
            self._shelves.discard(shelf)

    def _missing(self, count: int) -> int:
        """Allocate `count` bytes if they fit; return how many do not."""
        with self._lock:
            missing = max(0, self._used + count - self.limit)
            if not missing:
                self._used += count
            return missing

    def _make_room(self, count: int, *, drop: bool) -> bool:
        shelves, freed = list(self._shelves), 0
        drop = drop and self.drop_oldest
        there = sum(shelf.copy_bytes() for shelf in shelves)
        if drop:
            there += sum(shelf.unsent_bytes() for shelf in shelves)
        if there < count:
            return False  # all of it would not be enough
        while freed < count and (shelf := _oldest(shelves, copies=True)) is not None:
            freed += shelf.let_copy_go()
        while drop and freed < count and (shelf := _oldest(shelves, copies=False)) is not None:
            freed += shelf.give_up()
        return freed > 0


def _oldest(shelves: list[Shelf], *, copies: bool) -> Shelf | None:
    """Return the shelf with the oldest file that may go."""
    found: list[tuple[float, int]] = []
    for index, shelf in enumerate(shelves):
        age = shelf.oldest_copy() if copies else shelf.oldest_unsent()
        if age is not None:
            found.append((age, index))
    return shelves[min(found)[1]] if found else None


def _free(where: Path) -> int:
    """Return how many bytes a disk has left; what a user's share has left is not told by it."""
    try:
        state = os.statvfs(where)
    except OSError:
        return 0
    return state.f_bavail * state.f_frsize


def _refused(count: int, where: Path, error: OSError, *, full: bool) -> SpoolFull:
    if full or error.errno == errno.EFBIG:
        return SpoolFull(
            f"no room for {count} bytes in spool {where}: {error.strerror}",
            hint="free disk space, or set RECORDER_SPOOL_DIR to a larger disk",
        )
    return SpoolFull(f"cannot write to spool {where}: {error.strerror}")
