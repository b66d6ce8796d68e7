"""Looks into a bucket again and again, and tells what has appeared and what has gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from uploader.errors import NoSuchObject, NoSuchUpload, TransientError
from uploader.manifest import MANIFEST
from uploader.store import Store

LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Sighting:
    """Something that was different from the look before.

    Attributes:
        seconds: When, after the watcher's start.
        what: `manifest`, `chunk`, `object`, `upload`, `part`, or `removed`.
        name: Key of the object or upload, below the watched prefix.
        bytes: Size of the object or part.
        number: Of the part; how many were removed.
    """

    seconds: float
    what: str
    name: str
    bytes: int = 0
    number: int = 0


@dataclass(slots=True)
class _Seen:
    objects: dict[str, int] = field(default_factory=dict)
    uploads: set[tuple[str, str]] = field(default_factory=set)
    parts: set[tuple[str, int]] = field(default_factory=set)


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
        self._seen = _Seen()

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
        try:
            uploads = [upload async for upload in self._store.list_uploads(self._prefix)]
            for upload in uploads:
                await self._see_upload(upload.key, upload.upload_id)
            objects = [info async for info in self._store.list_objects(self._prefix)]
        except TransientError:
            return
        now = {info.key: info.size for info in objects}
        gone = [key for key in self._seen.objects if key not in now]
        for key in sorted(now, key=lambda key: (not key.endswith(MANIFEST), key)):
            if key not in self._seen.objects:
                self._say(self._kind(key), key, now[key])
        chunks = [key for key in gone if self._kind(key) == "chunk"]
        if chunks:
            self._say("removed", f"{self._prefix}chunks/", number=len(chunks))
        self._seen.objects = now

    async def _see_upload(self, key: str, upload_id: str) -> None:
        if (key, upload_id) not in self._seen.uploads:
            self._say("upload", key)
            self._seen.uploads.add((key, upload_id))
        try:
            found = await self._store.list_parts(key, upload_id)
        except (NoSuchUpload, NoSuchObject):  # completed a moment ago
            return
        for part in found:
            self.note_part(key, part.number, part.size)

    def note_part(self, key: str, number: int, size: int) -> None:
        """Take note of a part, which may be joined to the object before the next look."""
        if (key, number) not in self._seen.parts:
            self._seen.parts.add((key, number))
            self._say("part", key, size, number)

    def _kind(self, key: str) -> str:
        name = key.removeprefix(self._prefix)
        if name == MANIFEST:
            return "manifest"
        return "chunk" if name.startswith("chunks/") else "object"

    def _say(self, what: str, key: str, size: int = 0, number: int = 0) -> None:
        self._tell(Sighting(self.elapsed(), what, key.removeprefix(self._prefix), size, number))
