"""One segment file of the journal, mapped."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

from recorder.journal_format import MAGIC, SEGMENT_BYTES, TABLE_BYTES

MADV_POPULATE_WRITE = 23
"""Linux `madvise(2)`; `mmap` has no name for it."""

# Not `mmap.madvise`, which keeps the interpreter all the while: a millisecond on a fresh file.
_madvise = ctypes.CDLL(None).madvise
_madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)

_EMPTY = bytes(TABLE_BYTES - len(MAGIC))


SPARE = ".spare"
"""What the names of files end with that are no segments any more, to be used again."""


def segment_path(folder: Path, number: int) -> Path:
    """Return the file of segment `number` (from 1)."""
    return folder / f"{number:08d}.journal"


class Segment:
    """One mapped segment file.

    Args:
        path: The file.
        create: Whether to make it, allocate and map it to be written to.
        touch: Whether to have its pages there before the first write.
        spare: A file to make it of, instead of allocating one.

    Attributes:
        view: Its bytes.
        writable: Whether it can be written to.

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
            first = ctypes.c_char.from_buffer(self._map)
            # Refused by kernels before Linux 5.14, and other systems: then pages come when touched.
            _madvise(ctypes.addressof(first), SEGMENT_BYTES, MADV_POPULATE_WRITE)
            del first  # while there is a view of it, it cannot be unmapped
        self.view = memoryview(self._map)
        self.writable = create
        if spare is not None:
            self.become(path, spare)
        elif create:
            self.view[: len(MAGIC)] = MAGIC

    def become(self, path: Path, spare: Path) -> None:
        """Be another segment, of the file it has: `spare` now, and `path` from now on.

        Raises:
            FileNotFoundError: The file is not there any more.
            OSError: It cannot be renamed.
        """
        self.view[: len(MAGIC)] = MAGIC
        self.view[len(MAGIC) : TABLE_BYTES] = _EMPTY
        spare.rename(path)  # not before it is empty

    def close(self) -> None:
        """Unmap it."""
        self.view.release()
        self._map.close()
