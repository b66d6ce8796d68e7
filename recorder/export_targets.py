"""Where exports go: a file, a stream, an object. Nothing there looks done before it is.

A file has another name until it is whole. An object comes into being by one request, and an upload
that does not get there is aborted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

from recorder.at_rest import in_spite_of_cancels
from uploader.checksum import crc64nvme
from uploader.context import Context
from uploader.errors import BotRecorderError, NoSuchObject, PreconditionFailed
from uploader.store import MAX_PARTS, MIN_PART_BYTES, Body, ObjectAttributes
from uploader.upload import Upload

T = TypeVar("T")

_BLOCK_BYTES = 1024**2
_INSTEAD = "--overwrite replaces it"


class TargetExists(BotRecorderError):
    """What an export is to become is there already."""


class Sink(Protocol):
    """Takes the bytes of an export, in order.

    Attributes:
        size: Bytes so far.
        checksum: CRC-64/NVME of them.
        peak: Most bytes it held at a time.
    """

    size: int
    checksum: int
    peak: int

    async def write(self, data: Body) -> None:
        """Take the next bytes; returns when there is room for more."""
        ...


class Target(Protocol):
    """What an export is to become."""

    @property
    def url(self) -> str:
        """Where it will be."""
        ...

    @property
    def folder(self) -> Path | None:
        """Where a file that becomes the target may lie until it is whole; None for anywhere."""
        ...

    async def check(self) -> None:
        """See whether it may be written.

        Raises:
            TargetExists: It is there already, and not to be replaced.
            BotRecorderError: It cannot be.
        """
        ...

    def open(self, total: int | None) -> contextlib.AbstractAsyncContextManager[Sink]:
        """Take what is written inside the block; leaving it without an error publishes that.

        Args:
            total: Its size, if that is known.

        Raises:
            TargetExists: It is there by now.
            BotRecorderError: It cannot be written.
        """
        ...


class _Counted:
    """What all sinks count."""

    def __init__(self) -> None:
        self.size = 0
        self.checksum = 0
        self.peak = 0

    def count(self, data: Body) -> None:
        self.size += len(data)
        self.checksum = crc64nvme(data, self.checksum)


class FileTarget:
    """A local file.

    Args:
        path: Which.
        overwrite: Whether one that is there is replaced.
    """

    def __init__(self, path: Path, *, overwrite: bool) -> None:
        self.path = path.absolute()
        self._overwrite = overwrite

    @property
    def url(self) -> str:
        """See `Target.url`."""
        return str(self.path)

    @property
    def folder(self) -> Path | None:
        """See `Target.folder`."""
        return self.path.parent

    async def check(self) -> None:
        """See `Target.check`."""
        if self.path.is_dir():
            raise BotRecorderError(f"{self.path} is a folder: name a file")
        if not self.path.parent.is_dir():
            raise BotRecorderError(f"{self.path.parent} is not there: make the folder first")
        if self.path.exists() and not self._overwrite:
            raise self._exists()

    @asynccontextmanager
    async def open(self, total: int | None) -> AsyncGenerator[Sink, None]:
        """See `Target.open`."""
        temporary = temporary_beside(self.path)
        try:
            file = await _in_thread(lambda: temporary.open("xb"), self.path)
            try:
                yield (sink := _FileSink(file, self.path))
                await sink.finish()
            finally:
                await asyncio.to_thread(file.close)
            await self.publish(temporary)
        finally:
            await asyncio.to_thread(temporary.unlink, missing_ok=True)

    async def take(self, temporary: Path) -> Sink:
        """Publish a file in the same folder that is whole; return what it holds."""
        found = _Found()

        def look() -> None:
            with temporary.open("rb") as file:
                while block := file.read(_BLOCK_BYTES):
                    found.count(block)
                os.fsync(file.fileno())

        await _in_thread(look, self.path)
        await self.publish(temporary)
        return found

    async def publish(self, temporary: Path) -> None:
        """Give a file that is whole its name.

        Raises:
            TargetExists: There is one by now.
            BotRecorderError: It cannot be done.
        """
        await _in_thread(lambda: self._publish(temporary), self.path)

    def _publish(self, temporary: Path) -> None:
        if self._overwrite:
            temporary.replace(self.path)
            return
        try:
            os.link(temporary, self.path)  # unlike a rename, never in place of another
        except FileExistsError:
            raise self._exists() from None
        except OSError:  # a file system without hard links
            if self.path.exists():
                raise self._exists() from None
            temporary.replace(self.path)

    def _exists(self) -> TargetExists:
        return TargetExists(f"{self.path} exists", hint=_INSTEAD)


class _Found(_Counted):
    """What is there already."""

    async def write(self, data: Body) -> None:
        raise RuntimeError("the file is whole")


class _FileSink(_Counted):
    def __init__(self, file: BinaryIO, path: Path) -> None:
        super().__init__()
        self._file = file
        self._path = path

    async def write(self, data: Body) -> None:
        self.peak = max(self.peak, len(data))

        def put() -> None:
            self._file.write(data)
            self.count(data)

        await _in_thread(put, self._path)

    async def finish(self) -> None:
        def sync() -> None:
            self._file.flush()
            os.fsync(self._file.fileno())

        await _in_thread(sync, self._path)


class StreamTarget:
    """A stream that somebody else opened, standard output say: what is written, is written.

    Args:
        stream: Takes bytes.
    """

    url = "-"
    folder = None

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    async def check(self) -> None:
        """See `Target.check`."""

    @asynccontextmanager
    async def open(self, total: int | None) -> AsyncGenerator[Sink, None]:
        """See `Target.open`."""
        sink = _StreamSink(self._stream)
        yield sink
        await sink.finish()


class _StreamSink(_Counted):
    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream = stream

    async def write(self, data: Body) -> None:
        self.peak = max(self.peak, len(data))

        def put() -> None:
            self._stream.write(data)
            self.count(data)

        await self._do(put)

    async def finish(self) -> None:
        await self._do(self._stream.flush)

    @staticmethod
    async def _do(work: Callable[[], None]) -> None:
        try:
            await asyncio.to_thread(work)
        except OSError as error:
            raise BotRecorderError(f"the output was closed: {error.strerror}") from error


class ObjectTarget:
    """An object in a store.

    Args:
        context: Of the store.
        key: Which.
        attributes: What a person sees beside it.
        overwrite: Whether one that is there is replaced.
    """

    folder = None

    def __init__(
        self, context: Context, key: str, attributes: ObjectAttributes, *, overwrite: bool
    ) -> None:
        self.key = key
        if overwrite:
            able = replace(context.capabilities, conditional_writes=False)
            context = replace(context, capabilities=able)
        self._context = context
        self._attributes = attributes
        self._overwrite = overwrite

    @property
    def url(self) -> str:
        """See `Target.url`."""
        return self._context.store.url(self.key)

    async def check(self) -> None:
        """See `Target.check`."""
        context = self._context
        if self._overwrite or not context.capabilities.head:
            return
        with contextlib.suppress(NoSuchObject):
            await context.call("head", lambda: context.store.head(self.key))
            raise self._exists()

    @asynccontextmanager
    async def open(self, total: int | None) -> AsyncGenerator[Sink, None]:
        """See `Target.open`."""
        sink = _ObjectSink(self._context, self.key, self._attributes, total)
        try:
            yield sink
            await sink.finish()
        except PreconditionFailed as error:
            await sink.abandon()
            raise self._exists() from error
        except BaseException:
            await sink.abandon()
            raise

    def _exists(self) -> TargetExists:
        return TargetExists(f"{self.url} exists", hint=_INSTEAD)


class _ObjectSink(_Counted):
    """Holds part 1, which an upload sends last, and the part that is filling up."""

    def __init__(
        self, context: Context, key: str, attributes: ObjectAttributes, total: int | None
    ) -> None:
        super().__init__()
        self._context = context
        self._part = max(MIN_PART_BYTES, -(-(total or 0) // MAX_PARTS))
        self._first = bytearray()
        self._later = bytearray()
        self._base = self._part  # where in the object `_later` begins
        self._upload = Upload(context, key, attributes, self._part, self)

    async def write(self, data: Body) -> None:
        view = memoryview(data)
        await asyncio.to_thread(self.count, view)
        room = self._part - len(self._first)
        self._first += view[:room]
        view = view[room:] if room < len(view) else view[:0]
        while len(view):
            room = self._part - len(self._later)
            self._later += view[:room]
            view = view[room:]
            self.peak = max(self.peak, len(self._first) + len(self._later))
            if len(self._later) == self._part:
                await self._upload.advance(self._base + self._part)
                self._base += self._part
                self._later = bytearray()
        self.peak = max(self.peak, len(self._first) + len(self._later))

    async def read(self, start: int, end: int, total: int | None) -> Body:
        """Return bytes of the object; see `uploader.source.Source`.

        Raises:
            BotRecorderError: They were sent, and are not held any more.
        """
        if end <= len(self._first):
            return memoryview(self._first)[start:end]
        if start < self._base:
            raise BotRecorderError(
                f"the upload of {self._upload.key} was lost on the way",
                hint="export once more; nothing is left of this one",
            )
        return memoryview(self._later)[start - self._base : end - self._base]

    async def finish(self) -> None:
        """Send what is left, complete and verify."""
        await self._upload.finish(self.size)

    async def abandon(self) -> None:
        """Leave nothing behind, even if this is cancelled once more."""
        with contextlib.suppress(BotRecorderError):
            await in_spite_of_cancels(self._upload.abandon())


def temporary_beside(path: Path) -> Path:
    """Return a name, in the same folder, for a file until it is whole."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


async def _in_thread(work: Callable[[], T], path: Path) -> T:
    try:
        return await asyncio.to_thread(work)
    except OSError as error:
        raise BotRecorderError(f"cannot write {path}: {error.strerror}") from error
