"""What a folder's file system does, found out by trying: it decides what a kill can cost."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TRIAL_BYTES = 4 * 1024**2
_MOUNTS = Path("/proc/self/mountinfo")
_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Room:
    """What a folder's disk has left.

    Attributes:
        free: Bytes that this user may use.
        total: Bytes of the file system.
        files: How many files may be made; None where there is no limit.
    """

    free: int
    total: int
    files: int | None


def room(folder: Path) -> Room:
    """Return what a folder's disk has left.

    Raises:
        OSError: It is not there.
    """
    state = os.statvfs(folder)
    files = state.f_favail if state.f_files else None
    return Room(state.f_bavail * state.f_frsize, state.f_blocks * state.f_frsize, files)


def kind_of(folder: Path, mounts: Path = _MOUNTS) -> str:
    """Return the type of a folder's file system, e.g. `ext4`; empty where that is not told.

    Args:
        folder: Which.
        mounts: What is mounted where (Linux, proc(5), `/proc/pid/mountinfo`).
    """
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    place, found = folder.resolve(), (-1, "")
    for line in lines:
        before, separator, after = line.partition(" - ")
        fields = before.split(" ")
        if not separator or len(fields) < 5:
            continue
        mount = Path(_ESCAPE.sub(lambda match: chr(int(match[1], 8)), fields[4]))
        # Of two mounts on one place the later hides the earlier.
        if place.is_relative_to(mount) and len(mount.parts) >= found[0]:
            found = len(mount.parts), after.split(" ")[0]
    return found[1]


def allocates(fd: int, size: int = TRIAL_BYTES) -> bool:
    """Allocate a file's bytes; return whether the disk has really set them aside.

    A write through a mapping into a hole on a full disk kills the process by a signal.

    Raises:
        OSError: They cannot be allocated.
    """
    os.posix_fallocate(fd, 0, size)
    return os.fstat(fd).st_blocks * 512 >= size  # in units of 512 bytes, whatever the disk's are


def allocates_itself(fd: int, size: int = TRIAL_BYTES) -> bool:
    """Return whether the file system allocates by itself; elsewhere libc writes each block.

    Linux only; True where that cannot be told.
    """
    fallocate = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
    if fallocate is None:
        return True
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return fallocate(fd, 0, 0, size) == 0 or ctypes.get_errno() != errno.EOPNOTSUPP


def maps(fd: int, size: int = TRIAL_BYTES) -> bool:
    """Write through a mapping of a file of `size` bytes; return whether a read sees it.

    Raises:
        OSError: It cannot be mapped.
    """
    with mmap.mmap(fd, size, access=mmap.ACCESS_WRITE) as view:
        view[size - 4 : size] = b"tail"
        return os.pread(fd, 4, size - 4) == b"tail"


def syncs(fd: int) -> bool:
    """Write a file's bytes to the disk; return True.

    Raises:
        OSError: The disk did not take them.
    """
    os.fsync(fd)
    return True


def locks(path: Path) -> bool:
    """Return whether a lock (flock) on a file keeps another owner out.

    Raises:
        OSError: There are no locks.
    """
    with path.open("rb+") as one, path.open("rb+") as other:
        fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


@contextmanager
def trial_file(folder: Path, name: str) -> Iterator[tuple[int, Path]]:
    """Make a file in a folder of its own in `folder`, and remove both at the end.

    Raises:
        OSError: It cannot be made.
    """
    own = folder / name
    own.mkdir(mode=0o700)
    try:
        path = own / "file"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            yield fd, path
        finally:
            os.close(fd)
    finally:
        shutil.rmtree(own, ignore_errors=True)
