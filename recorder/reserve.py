"""Room for one chunk, set aside: so that a chunk can be sealed, sent and freed on a full disk.

Sealing needs room for a chunk's file before the journal that holds its audio can go. The reserve
is a file of a chunk's size, allocated ahead of need; it becomes the chunk's. What of the chunk is
known before the rest can be put there already: it *begins* with that.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from recorder.quota import SpoolFull, SpoolQuota


@dataclass(frozen=True, slots=True)
class Begun:
    """Frames that lie where the next chunk's file has its first ones.

    Attributes:
        start: The first frame's position.
        samples: How many frames.
        tracks: Whose, in the order of channels.
        offset: Where they begin in the file.
        size: Their bytes.
        checksum: Of them.
    """

    start: int
    samples: int
    tracks: tuple[str, ...]
    offset: int
    size: int
    checksum: int


class Reserve:
    """One recording's. Thread-safe.

    Args:
        path: Its file, which an earlier process may have left.
        quota: Counts its bytes.
    """

    def __init__(self, path: Path, quota: SpoolQuota) -> None:
        self._path = path
        self._quota = quota
        self._lock = threading.Lock()
        self._dropped = False
        self._begun: tuple[Begun, int] | None = None
        try:
            self._size = path.stat().st_size
        except FileNotFoundError:
            self._size = 0

    @property
    def size(self) -> int:
        """Bytes set aside."""
        return self._size

    def grow(self, size: int, *, drop: bool) -> None:
        """See to it that `size` bytes are set aside.

        Args:
            size: Bytes.
            drop: Whether audio may be given up for them, if the quota's policy is that.

        Raises:
            SpoolFull: There is no room; what was set aside still is.
        """
        with self._lock:
            if self._size < size:
                more = size - self._size
                self._quota.allocate(
                    more, lambda: self._allocate(size), self._path.parent, drop=drop
                )
                self._size = size

    def try_to_grow(self, size: int) -> None:
        """Do the same if there is room; if not, do without."""
        with contextlib.suppress(SpoolFull):
            self.grow(size, drop=False)

    def begin(self, begun: Begun, frames: memoryview) -> None:
        """Put a chunk's first frames there ahead of the rest; without room for them, do nothing."""
        with self._lock, contextlib.suppress(OSError):
            self._begun = None
            if self._size >= begun.offset + begun.size:
                with self._path.open("r+b") as file:
                    file.seek(begun.offset)
                    file.write(frames)
                    self._begun = begun, os.fstat(file.fileno()).st_ino

    def become(
        self, path: Path, size: int, write: Callable[[BinaryIO, Begun | None], None]
    ) -> None:
        """Make it the file `path` of `size` bytes, which must have been set aside.

        Args:
            path: The file.
            size: Its bytes.
            write: Writes it, all but what it is given of what `begin` put there last.

        Raises:
            OSError: It could not be written; it is set aside as before.
        """
        with self._lock:
            begun, self._begun = self._begun, None
            try:
                with self._path.open("r+b") as file:
                    mine = begun is not None and begun[1] == os.fstat(file.fileno()).st_ino
                    write(file, begun[0] if begun and mine else None)
                    file.truncate(size)
            except FileNotFoundError:  # taken away: the next try allocates it anew
                self._quota.give(self._size)
                self._size = 0
                raise
            before = path.stat().st_size if path.exists() else 0
            self._path.replace(path)
            self._quota.give(self._size - size + before)
            self._size = 0

    def recycle(self, path: Path, size: int) -> bool:
        """Set a file's room aside that is not needed any more, if what is set aside is less.

        Nobody else can take the room meanwhile, as after a delete.

        Args:
            path: The file.
            size: Its bytes, which the quota counts.

        Returns:
            Whether that was done: the file is gone, and its bytes are the reserve's.
        """
        # Who holds the lock may be waiting for the very room that is being made.
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if self._dropped or self._size >= size:
                return False
            path.replace(self._path)
            self._begun = None
            self._quota.give(self._size)
            self._size = size
        except OSError:
            return False
        finally:
            self._lock.release()
        return True

    def drop(self) -> None:
        """Give it up: no chunk will follow."""
        with self._lock:
            self._dropped = True
            self._path.unlink(missing_ok=True)
            self._quota.give(self._size)
            self._size = 0

    def _allocate(self, size: int) -> None:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError:
            os.ftruncate(fd, self._size)
            raise
        finally:
            os.close(fd)
