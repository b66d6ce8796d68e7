"""A body as the S3 client wants it: a file."""

from __future__ import annotations

import io

from uploader.store import Body


def body_file(body: Body) -> io.BytesIO:
    """Return a body as a file, without a copy of it."""
    return _ViewFile(memoryview(body))


class _ViewFile(io.BytesIO):
    """Reads bytes that somebody else has.

    `io.BytesIO` copies them, even `bytes` as soon as the client asks it for its buffer, and keeps
    the interpreter for it, for milliseconds. A kind of it nevertheless: any other file the client
    would read in a thread, piece by piece.

    Args:
        view: The bytes; they do not change.
    """

    def __init__(self, view: memoryview) -> None:
        super().__init__()
        self._view = view
        self._at = 0

    def read(self, size: int | None = -1, /) -> bytes:
        end = len(self._view) if size is None or size < 0 else self._at + size
        part = bytes(self._view[self._at : end])
        self._at += len(part)
        return part

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._view)}[whence]
        self._at = max(0, origin + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def getbuffer(self) -> memoryview:
        return self._view[:]

    def getvalue(self) -> bytes:
        return bytes(self._view)
