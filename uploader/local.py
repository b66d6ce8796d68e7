"""A directory as a store: objects are plain files, with the semantics of S3.

For tests, for hosts without object storage, and for a first look: a person opens the recording
in the folder. The work is done in `uploader.local_disk` and `uploader.local_uploads`, in threads;
this file keeps it off the event loop and waits for it even when a call is cancelled.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import quote

from uploader import checksum as crc
from uploader import limits
from uploader.errors import ChecksumError
from uploader.local_disk import Disk
from uploader.local_files import translated
from uploader.local_uploads import Uploads
from uploader.store import (
    Body,
    Listing,
    ObjectAttributes,
    ObjectInfo,
    Part,
    Store,
    UploadInfo,
)

T = TypeVar("T")

_LISTED_AT_ONCE = 200


class LocalStore(Store):
    """A store in a local folder, which other processes may use at the same time.

    The folder is created on entry if the one above it exists; where it is not, every operation
    raises `NoSuchBucket`. A name in it is at most 255 bytes, and an object's key is never
    another's folder: `InvalidRequest`. A full disk is a `TransientError`, because space comes back.

    Args:
        root: The folder.
        prefix: What all keys begin with, with or without a `/` at its end; folders are made for
            it as they are for keys.
    """

    def __init__(self, root: Path, prefix: str = "") -> None:
        self.root = root.absolute()
        self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._disk = Disk(self.root, self.prefix)
        self._uploads = Uploads(self._disk)

    def url(self, key: str) -> str:
        """Return the file's URL, `file:///...`."""
        # `=` and the like need no encoding in a path (RFC 3986, section 3.3), and read better so.
        path = str(self.root / (self.prefix + key)) + ("/" if key.endswith("/") else "")
        return "file://" + quote(path, safe="/=+,@:~")

    async def __aenter__(self) -> Self:
        """Make the root folder if its parent exists, and clear what killed processes left."""
        await self._run("open", "", self._disk.open)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Do nothing: nothing is kept open."""

    async def put(
        self,
        key: str,
        body: Body,
        attributes: ObjectAttributes | None = None,
        *,
        checksum: int | None = None,
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> ObjectInfo:
        """See `Store.put`."""
        attributes = attributes or ObjectAttributes()
        limits.check_key("put", key, prefix=self.prefix)
        limits.check_put("put", key, body, if_absent=if_absent, if_match=if_match)
        limits.check_attributes("put", key, attributes)

        def write() -> ObjectInfo:
            found = _checked("put", key, body, checksum)
            return self._disk.put(
                key, body, found, attributes, if_absent=if_absent, if_match=if_match
            )

        return await self._run("put", key, write)

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> bytes:
        """See `Store.get`."""
        limits.check_key("get", key, prefix=self.prefix)
        limits.check_range("get", key, start, end)

        def read() -> bytes:
            with self._disk.opened("get", key) as (fd, version):
                if start > 0 and start >= version.size:
                    problem = f"the object has {version.size} bytes, none at {start}"
                    raise limits.refuse("get", key, problem, code="InvalidRange")
                return _read(fd, start, version.size if end is None else min(end, version.size))

        return await self._run("get", key, read)

    async def read(self, key: str) -> tuple[bytes, ObjectInfo]:
        """See `Store.read`."""
        limits.check_key("read", key, prefix=self.prefix)

        def look() -> tuple[bytes, ObjectInfo]:
            with self._disk.opened("read", key) as (fd, version):
                return _read(fd, 0, version.size), version.info(key)

        return await self._run("read", key, look)

    async def head(self, key: str) -> ObjectInfo:
        """See `Store.head`."""
        limits.check_key("head", key, prefix=self.prefix)
        return await self._run("head", key, lambda: self._disk.head("head", key))

    async def tags(self, key: str) -> dict[str, str]:
        """See `Store.tags`."""
        limits.check_key("tags", key, prefix=self.prefix)
        return await self._run("tags", key, lambda: self._disk.tags(key))

    async def tag(self, key: str, tags: Mapping[str, str]) -> None:
        """See `Store.tag`."""
        limits.check_key("tag", key, prefix=self.prefix)
        limits.check_attributes("tag", key, ObjectAttributes(tags=tags))
        await self._run("tag", key, lambda: self._disk.tag(key, tags))

    async def list_objects(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        """See `Store.list_objects`."""
        limits.check_prefix("list_objects", prefix)
        found = self._disk.walk(prefix)
        while page := await self._run("list_objects", prefix, lambda: _take(found)):
            for info in page:
                yield info

    async def list_level(self, prefix: str = "") -> Listing:
        """See `Store.list_level`."""
        limits.check_prefix("list_level", prefix, level=True)
        objects, folders = await self._run("list_level", prefix, lambda: self._disk.level(prefix))
        return Listing(objects=objects, folders=folders)

    async def delete(self, key: str) -> None:
        """See `Store.delete`."""
        limits.check_key("delete", key, prefix=self.prefix)
        await self._run("delete", key, lambda: self._disk.delete(key))

    async def create_multipart(self, key: str, attributes: ObjectAttributes | None = None) -> str:
        """See `Store.create_multipart`."""
        wanted = attributes or ObjectAttributes()
        limits.check_key("create_multipart", key, prefix=self.prefix)
        limits.check_attributes("create_multipart", key, wanted)
        return await self._run("create_multipart", key, lambda: self._uploads.create(key, wanted))

    async def upload_part(
        self, key: str, upload_id: str, number: int, body: Body, *, checksum: int | None = None
    ) -> Part:
        """See `Store.upload_part`."""
        limits.check_key("upload_part", key, prefix=self.prefix)
        limits.check_part("upload_part", key, number, body)

        def write() -> Part:
            found = _checked("upload_part", key, body, checksum)
            return self._uploads.put_part(key, upload_id, number, body, found)

        return await self._run("upload_part", key, write)

    async def list_parts(self, key: str, upload_id: str) -> list[Part]:
        """See `Store.list_parts`."""
        limits.check_key("list_parts", key, prefix=self.prefix)
        return await self._run("list_parts", key, lambda: self._uploads.parts(key, upload_id))

    async def list_uploads(self, prefix: str = "") -> AsyncIterator[UploadInfo]:
        """See `Store.list_uploads`."""
        limits.check_prefix("list_uploads", prefix)
        for upload in await self._run(
            "list_uploads", prefix, lambda: list(self._uploads.all(prefix))
        ):
            yield upload

    async def complete_multipart(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[Part],
        *,
        checksum: int | None = None,
        if_absent: bool = False,
    ) -> ObjectInfo:
        """See `Store.complete_multipart`."""
        limits.check_key("complete_multipart", key, prefix=self.prefix)
        limits.check_parts("complete_multipart", key, parts)
        return await self._run(
            "complete_multipart",
            key,
            lambda: self._uploads.complete(
                key, upload_id, parts, checksum=checksum, if_absent=if_absent
            ),
        )

    async def abort_multipart(self, key: str, upload_id: str) -> None:
        """See `Store.abort_multipart`."""
        limits.check_key("abort_multipart", key, prefix=self.prefix)
        await self._run("abort_multipart", key, lambda: self._uploads.abort(key, upload_id))

    async def _run(self, op: str, key: str, work: Callable[[], T]) -> T:
        """Do blocking work in a thread; if cancelled, wait for its end before saying so.

        A thread cannot be stopped. Leaving it alone would let it read a buffer, or publish an
        object, after the caller has been told that the call is over.
        """

        def translating() -> T:
            with translated(op, key, self.root):
                return work()

        task = asyncio.ensure_future(asyncio.to_thread(translating))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            while not task.done():
                try:
                    await asyncio.wait([task])
                except asyncio.CancelledError:
                    continue  # told once more: the answer is the same
            if not task.cancelled():
                task.exception()  # seen: the caller asked not to know
            raise


def _checked(op: str, key: str, body: Body, checksum: int | None) -> int:
    """Return the body's checksum after comparing it with the caller's."""
    found = crc.crc64nvme(body)
    if checksum is not None and checksum != found:
        message = f"{op} {key!r}: the bytes' checksum is {found:016x}, not {checksum:016x}"
        raise ChecksumError(message, op=op, key=key, code="BadDigest")
    return found


def _read(fd: int, start: int, end: int) -> bytes:
    blocks = []
    while start < end and (block := os.pread(fd, end - start, start)):
        blocks.append(block)
        start += len(block)
    return blocks[0] if len(blocks) == 1 else b"".join(blocks)


def _take(found: Iterator[ObjectInfo]) -> list[ObjectInfo]:
    return list(itertools.islice(found, _LISTED_AT_ONCE))
