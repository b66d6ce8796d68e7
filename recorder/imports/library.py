"""Finds what is to be imported, on this machine or in a bucket, and brings it here."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Self
from urllib.parse import unquote, urlsplit

from recorder.imports.audio import UnreadableSource
from recorder.imports.request import ImportRefused
from recorder.names import shown
from recorder.settings import Settings
from recorder.stores import make_store
from recorder.verification.objects import Objects, pieces
from recorder.verification.report import Counts
from uploader.errors import NoSuchObject
from uploader.store import Store

MAX_FILES = 200
"""Files of one recording: more is a prefix that was meant to be longer."""

_READ_BYTES = 1024 * 1024

OnBytes = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Source:
    """A file, or an object in a bucket.

    Attributes:
        url: `file:///...` or `s3://bucket/key`.
        name: What follows the last `/`.
        size: Bytes.
        modified: When it was written.
        etag: Of an object.
        path: Of a file.
        bucket: Of an object.
        key: Of an object, in its bucket.
    """

    url: str
    name: str
    size: int
    modified: datetime | None
    etag: str = ""
    path: Path | None = None
    bucket: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A source that can be decoded: where it is on this machine, and the SHA-256 of its bytes."""

    source: Source
    path: Path
    sha256: str


class Library:
    """Reads sources. Used as an async context manager.

    Args:
        settings: Whose endpoint and credentials reach the buckets.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stores: dict[str, Store] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Open nothing yet."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the buckets."""
        await self._stack.aclose()

    async def find(self, text: str) -> list[Source]:
        """Return what a user's word means: one source, or all of a folder, by name.

        Raises:
            ImportRefused: It means nothing, or too much.
            StoreError: The bucket refuses, or does not answer.
        """
        scheme, separator, rest = text.partition("://")
        if separator and scheme.lower() == "s3":
            bucket, _, key = rest.partition("/")
            if not key:
                raise ImportRefused(f"{shown(text)} names no object", hint="s3://bucket/key")
            return await self._objects(bucket, key)
        if separator and scheme.lower() == "file":
            path = Path(unquote(urlsplit(text).path))
        elif separator:
            raise ImportRefused(
                f"{shown(text)} cannot be read", hint="allowed are paths, file:/// and s3://"
            )
        else:
            path = Path(text)
        return await asyncio.to_thread(_files, path)

    async def sibling(self, source: Source, name: str) -> Source | None:
        """Return what lies beside a source under another name, if it is there."""
        try:
            if source.path is not None:
                return _file(source.path.with_name(name))
            folder = source.key.rpartition("/")[0]
            return await self._object(source.bucket, f"{folder}/{name}" if folder else name)
        except (ImportRefused, NoSuchObject):
            return None

    async def text(self, source: Source, limit: int) -> bytes:
        """Return the first bytes of a small file."""
        if source.path is not None:
            path = source.path

            def read() -> bytes:
                with path.open("rb") as file:
                    return file.read(limit)

            return await asyncio.to_thread(read)
        store = await self._store(source.bucket)
        objects = Objects(store, Counts(), lambda step: None)
        return await objects.call("get", lambda: store.get(source.key, end=limit))

    async def fetch(self, source: Source, folder: Path, told: OnBytes) -> Fetched:
        """Hash a source; copy an object into `folder`, in pieces.

        Raises:
            UnreadableSource: It changes, or goes, while it is read.
            StoreError: The bucket refuses, or does not answer.
        """
        if source.path is not None:
            path = source.path
            digest = await asyncio.to_thread(_hash, path, told)
            return Fetched(source, path, digest)
        target = folder / hashlib.sha256(source.url.encode()).hexdigest()
        store = await self._store(source.bucket)
        objects = Objects(store, Counts(), lambda step: None)
        digester, count = hashlib.sha256(), 0
        file = await asyncio.to_thread(target.open, "wb")
        try:
            async for _, data in objects.stream(pieces(source.key, source.size)):
                await asyncio.to_thread(_keep, file, digester, data)
                count += len(data)
                told(len(data))
        finally:
            await asyncio.to_thread(file.close)
        info = await objects.head(source.key)
        if count != source.size or info is None or info.etag != source.etag:
            raise UnreadableSource(f"{source.url} was changed while it was read")
        return Fetched(source, target, digester.hexdigest())

    async def _store(self, bucket: str) -> Store:
        if bucket not in self._stores:
            settings = self._settings.replace(bucket=f"s3://{bucket}", prefix="")
            self._stores[bucket] = await self._stack.enter_async_context(make_store(settings))
        return self._stores[bucket]

    async def _objects(self, bucket: str, key: str) -> list[Source]:
        if not key.endswith(("/", "*")):
            try:
                return [await self._object(bucket, key)]
            except NoSuchObject as error:
                raise ImportRefused(
                    f"there is no object s3://{bucket}/{key}",
                    hint="for all that begins so, end it with a *",
                ) from error
        store, prefix = await self._store(bucket), key.removesuffix("*")
        objects = Objects(store, Counts(), lambda step: None)

        async def collect() -> list[str]:
            found = []
            async for info in store.list_objects(prefix):
                if not info.key.endswith("/"):
                    found.append(info.key)
                if len(found) > MAX_FILES:
                    raise ImportRefused(
                        f"s3://{bucket}/{key} has more than {MAX_FILES} objects",
                        hint="one recording's only",
                    )
            return sorted(found)

        keys = await objects.call("list_objects", collect)
        if not keys:
            raise ImportRefused(f"there are no objects s3://{bucket}/{prefix}...")
        return [await self._object(bucket, one) for one in keys]

    async def _object(self, bucket: str, key: str) -> Source:
        store = await self._store(bucket)
        objects = Objects(store, Counts(), lambda step: None)
        info = await objects.call("head", lambda: store.head(key))
        url, name = f"s3://{bucket}/{key}", key.rpartition("/")[2]
        return Source(url, name, info.size, info.modified, info.etag, bucket=bucket, key=key)


def _files(path: Path) -> list[Source]:
    if not path.is_dir():
        return [_file(path)]
    try:
        found = sorted(one for one in path.iterdir() if one.is_file() and one.name[0] != ".")
    except OSError as error:
        raise ImportRefused(f"cannot read {shown(str(path), 4096)}: {error.strerror}") from error
    if not found or len(found) > MAX_FILES:
        many = f"more than {MAX_FILES} files" if found else "no files"
        raise ImportRefused(f"there are {many} in {shown(str(path), 4096)}")
    return [_file(one) for one in found]


def _file(path: Path) -> Source:
    name = shown(str(path), 4096)
    try:
        stat = path.stat()
        if not path.is_file():
            raise ImportRefused(f"{name} is not a regular file")
    except OSError as error:
        raise ImportRefused(f"cannot read {name}: {error.strerror}") from error
    modified = datetime.fromtimestamp(stat.st_mtime, UTC)
    return Source(path.absolute().as_uri(), path.name, stat.st_size, modified, path=path)


def _hash(path: Path, told: OnBytes) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while data := file.read(_READ_BYTES):
                digest.update(data)
                told(len(data))
    except OSError as error:
        name = shown(str(path), 4096)
        raise UnreadableSource(f"cannot read {name}: {error.strerror}") from error
    return digest.hexdigest()


def _keep(file: BinaryIO, digest: hashlib._Hash, data: bytes) -> None:
    file.write(data)
    digest.update(data)
