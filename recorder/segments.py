"""One segment file of the journal, mapped."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterable
from pathlib import Path

from recorder.journal_format import MAGIC, SEGMENT_BYTES, TABLE_BYTES
from recorder.quota import SpoolQuota

MADV_POPULATE_WRITE = 23
"""Linux `madvise(2)`; `mmap` has no name for it."""


SPARE = ".spare"
"""What the names of files end with that are no segments any more, to be used again."""


def segment_path(folder: Path, number: int) -> Path:
    """Return the file of segment `number` (from 1)."""
    return folder / f"{number:08d}.journal"


def drop_spares(paths: Iterable[Path], quota: SpoolQuota) -> int:
    """Delete spare files, if they are still there; return how many were."""
    count = 0
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # in use again
            path.unlink()
            quota.give(SEGMENT_BYTES)
            count += 1
    return count


class Segment:
    """One mapped segment file.

    Args:
        path: The file.
        create: Whether to make it, allocate and map it to be written to.
        touch: Whether to have its pages there before the first write.
        spare: A file to make it of, instead of allocating one.

    Attributes:
        view: Its bytes.

    Raises:
        FileNotFoundError: It is not there.
        OSError: It cannot be allocated, or mapped: nothing of it is left.
    """

    def __init__(
        self, path: Path, *, create: bool, touch: bool = False, spare: Path | None = None
    ) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL if create else os.O_RDONLY
        if spare is not None:
            flags = os.O_RDWR
        fd = os.open(spare or path, flags | os.O_CLOEXEC, 0o600)
        try:
            if create and spare is None:
                os.posix_fallocate(fd, 0, SEGMENT_BYTES)
            access = mmap.ACCESS_WRITE if create else mmap.ACCESS_READ
            self._map = mmap.mmap(fd, SEGMENT_BYTES, access=access)
        except OSError:
            if create:
                (spare or path).unlink()
            raise
        finally:
            os.close(fd)
        if touch:  # here, and not by the frame path: a page's first touch can wait for the disk
            with contextlib.suppress(OSError):  # kernels before Linux 5.14, other systems
                self._map.madvise(MADV_POPULATE_WRITE)
        self.view = memoryview(self._map)
        if create:
            if spare is not None:
                self.view[:TABLE_BYTES] = bytes(TABLE_BYTES)
            self.view[: len(MAGIC)] = MAGIC
        if spare is not None:  # not before it is empty
            spare.rename(path)

    def close(self) -> None:
        """Unmap it."""
        self.view.release()
        self._map.close()
