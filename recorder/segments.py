"""One segment file of the journal, mapped."""

from __future__ import annotations

import contextlib
import mmap
import os
from pathlib import Path

from recorder.journal_format import MAGIC, SEGMENT_BYTES

MADV_POPULATE_WRITE = 23
"""Linux `madvise(2)`; `mmap` has no name for it."""


def segment_path(folder: Path, number: int) -> Path:
    """Return the file of segment `number` (from 1)."""
    return folder / f"{number:08d}.journal"


class Segment:
    """One mapped segment file.

    Args:
        path: The file.
        create: Whether to make it, allocate and map it to be written to.
        touch: Whether to have its pages there before the first write.

    Attributes:
        view: Its bytes.

    Raises:
        FileNotFoundError: It is not there.
        OSError: It cannot be allocated, or mapped: nothing of it is left.
    """

    def __init__(self, path: Path, *, create: bool, touch: bool = False) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL if create else os.O_RDONLY
        fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
        try:
            if create:
                os.posix_fallocate(fd, 0, SEGMENT_BYTES)
            access = mmap.ACCESS_WRITE if create else mmap.ACCESS_READ
            self._map = mmap.mmap(fd, SEGMENT_BYTES, access=access)
        except OSError:
            if create:
                path.unlink()
            raise
        finally:
            os.close(fd)
        if touch:  # here, and not by the frame path: a page's first touch can wait for the disk
            with contextlib.suppress(OSError):  # kernels before Linux 5.14, other systems
                self._map.madvise(MADV_POPULATE_WRITE)
        self.view = memoryview(self._map)
        if create:
            self.view[: len(MAGIC)] = MAGIC

    def close(self) -> None:
        """Unmap it."""
        self.view.release()
        self._map.close()
