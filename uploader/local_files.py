"""Files made durable, and what the operating system's errors mean to a store."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from uploader.errors import (
    AccessDenied,
    InvalidRequest,
    NoSuchBucket,
    StoreError,
    TransientError,
)
from uploader.store import Body

_FULL = (errno.ENOSPC, errno.EDQUOT)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_NAME = (errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EINVAL)


@contextmanager
def translated(op: str, key: str, root: Path) -> Iterator[None]:
    """Turn the operating system's errors into the store's."""
    try:
        yield
    except OSError as error:
        raise _translate(error, op, key, root) from error


def _translate(error: OSError, op: str, key: str, root: Path) -> StoreError:
    code = errno.errorcode.get(error.errno or 0, type(error).__name__)
    message = f"{op} {key!r} in {root}: {error.strerror or error}"
    if error.errno in _FULL:
        hint = "the disk is full: free some space, or set another folder"
        return TransientError(message, op=op, key=key, code=code, hint=hint)
    if error.errno in _DENIED:
        hint = "the folder and all in it must be writable for the user this runs as"
        return AccessDenied(message, op=op, key=key, code=code, hint=hint)
    if not root.is_dir():
        return no_such_root(op, key, root)
    if error.errno in _NAME:
        hint = "a name has at most 255 bytes, and no object is a folder of others"
        return InvalidRequest(message, op=op, key=key, code=code, hint=hint)
    return TransientError(message, op=op, key=key, code=code)


def no_such_root(op: str, key: str, root: Path) -> NoSuchBucket:
    """Return the error for a root folder that is not there."""
    return NoSuchBucket(
        f"{op} {key!r}: there is no folder {root}",
        op=op,
        key=key,
        code="ENOENT",
        hint="the folder is made at start if the one above it exists",
    )


def fsync_folder(path: Path) -> None:
    """Make a folder's entries durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_file(path: Path, *buffers: Body) -> None:
    """Write a new file and make its bytes durable; on an error nothing is left of it."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        for buffer in buffers:
            with memoryview(buffer) as view:
                written = 0
                while written < len(view):
                    written += os.write(fd, view[written:])
        os.fsync(fd)
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise
    finally:
        os.close(fd)
