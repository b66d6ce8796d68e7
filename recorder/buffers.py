"""Memory for what is sent: large, short-lived, and gone as soon as it is not needed."""

from __future__ import annotations

import mmap

_FLAGS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


def buffer(size: int) -> memoryview:
    """Return `size` zero bytes, mapped for themselves.

    An allocator keeps what a thread frees for that thread, which is megabytes for each; these go
    back to the system with the last view of them. Nothing is touched here: to zero a part's bytes
    would keep the interpreter for milliseconds.
    """
    return memoryview(mmap.mmap(-1, size, flags=_FLAGS) if size else b"")
