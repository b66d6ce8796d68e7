"""Looks into a bucket again and again, and tells what has appeared and what has gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from recorder.chunks import CHUNKS, OPEN_CHUNK
from uploader.errors import NoSuchObject, NoSuchUpload, TransientError
from uploader.manifest import MANIFEST
from uploader.store import Part, Store, UploadInfo

LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Sighting:
    """Something that was different from the look before.

    Attributes:
        seconds: When, after the watcher's start.
        what: `manifest`, `chunk`, `open chunk`, `object`, `upload`, `part`, or `removed`.
        name: Key of the object or upload, below the watched prefix.
        bytes: Size of the object or part.
        number: Of the part; how many were removed.
    """

    seconds: float
    what: str
    name: str
    bytes: int = 0
    number: int = 0


class Watcher:
    """Watches all keys below a prefix.

    Args:
        store: Open.
        prefix: What the keys begin with, ending in `/`.
        tell: Told of each sighting.
    """

    def __init__(self, store: Store, prefix: str, tell: Callable[[Sighting], None]) -> None:
        self._began = time.monotonic()
        self._store = store
        self._prefix = prefix
        self._tell = tell
        self._objects: set[str] = set()
        self._gone: set[str] = set()
        self._uploads: set[str] = set()
        self._parts_seen: set[tuple[str, int]] = set()

    def restart(self) -> None:
        """Count from now on."""
        self._began = time.monotonic()

    def elapsed(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self._began

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Look once. A server that does not answer just now is looked at next time."""
        store, prefix = self._store, self._prefix
        known = [key for key in self._objects if self._kind(key) == "chunk"]
        try:
            # Uploads first: then what has to be there before an upload is in the list of objects.
            uploads = [upload async for upload in store.list_uploads(prefix)]
            parts = [await self._parts(upload) for upload in uploads]
            objects = {info.key: info.size async for info in store.list_objects(prefix)}
        except TransientError:
            return
        manifest = prefix + MANIFEST
        if manifest in objects:
            self.note_object(manifest, objects[manifest])
        for upload, acknowledged in zip(uploads, parts, strict=True):
            if upload.upload_id not in self._uploads:
                self._uploads.add(upload.upload_id)
                self._say("upload", upload.key)
            for part in acknowledged:
                self.note_part(upload.key, part.number, part.size)
        for key, size in objects.items():
            self.note_object(key, size)
        if gone := set(known) - objects.keys() - self._gone:
            self._gone |= gone
            self._say("removed", f"{prefix}{CHUNKS}", number=len(gone))

    def note_object(self, key: str, size: int) -> None:
        """Take note of an object, if it is new."""
        if key not in self._objects:
            self._objects.add(key)
            self._say(self._kind(key), key, size)

    def note_part(self, key: str, number: int, size: int) -> None:
        """Take note of a part, if it is new: it may be joined to the object before a look."""
        if (key, number) not in self._parts_seen:
            self._parts_seen.add((key, number))
            self._say("part", key, size, number)

    async def _parts(self, upload: UploadInfo) -> list[Part]:
        try:
            return await self._store.list_parts(upload.key, upload.upload_id)
        except (NoSuchUpload, NoSuchObject):  # completed a moment ago
            return []

    def _kind(self, key: str) -> str:
        name = key.removeprefix(self._prefix)
        if name == MANIFEST:
            return "manifest"
        if name == CHUNKS + OPEN_CHUNK:
            return "open chunk"
        return "chunk" if name.startswith(CHUNKS) else "object"

    def _say(self, what: str, key: str, size: int = 0, number: int = 0) -> None:
        self._tell(Sighting(self.elapsed(), what, key.removeprefix(self._prefix), size, number))
