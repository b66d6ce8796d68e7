"""What recordings there are, read from their manifests and from what the store says of uploads.

Read-only, and nothing read is believed: a manifest is a file in a bucket, which others may write.
What is not of the kind that belongs there counts as not said.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, TypeVar

from uploader.errors import (
    AccessDenied,
    BotRecorderError,
    InvalidRequest,
    NoSuchObject,
    NoSuchUpload,
    Unsupported,
)
from uploader.manifest import MANIFEST, parse
from uploader.retry import Retrier, RetryPolicy
from uploader.store import ObjectInfo, Part, Store, UploadInfo

T = TypeVar("T")

MAX_PARALLEL_READS = 16

POLICY = RetryPolicy(attempts=3, deadline_seconds=20.0, attempt_timeout_seconds=15.0)
"""Somebody waits for the answer: rather an error soon."""

_DAY = re.compile(r"dt=(\d{4}-\d{2}-\d{2})/")
#: How `recorder.names.new_recording_id` begins an id.
_TIMED_ID = re.compile(r"(\d{8}T\d{6}Z)-[A-Za-z0-9]")


class NoSuchRecording(BotRecorderError):
    """No recording has this id."""


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON object from outside, read with the kinds that are expected."""

    values: Mapping[str, Any]

    def text(self, name: str) -> str:
        """Return a string; empty if there is none."""
        value = self.values.get(name)
        return value if isinstance(value, str) else ""

    def number(self, name: str) -> float:
        """Return a finite number; 0 if there is none."""
        value = self.values.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return 0
        try:
            return value if math.isfinite(value) else 0
        except OverflowError:  # a whole number too large for a float
            return 0

    def count(self, name: str) -> int:
        """Return a whole number; 0 if there is none."""
        return int(self.number(name))

    def flag(self, name: str) -> bool:
        """Return whether it is true."""
        return self.values.get(name) is True

    def items(self, name: str) -> list[Document]:
        """Return the objects of a list; empty if there is none."""
        value = self.values.get(name)
        found = value if isinstance(value, list) else []
        return [Document(item) for item in found if isinstance(item, dict)]

    def pairs(self, name: str) -> dict[str, str]:
        """Return an object's entries as text; empty if there is none."""
        value = self.values.get(name)
        found = value if isinstance(value, dict) else {}
        return {str(key): str(item) for key, item in found.items()}

    def time(self, name: str) -> datetime | None:
        """Return a time with a timezone, or None."""
        try:
            found = datetime.fromisoformat(self.text(name))
            return found.astimezone(UTC) if found.utcoffset() is not None else None
        except (ValueError, OverflowError):
            return None


@dataclass(slots=True)
class Recording:
    """One recording, as its manifest tells.

    Attributes:
        recording_id: Its folder's name.
        day: Its day's folder, `YYYY-MM-DD`.
        manifest: Empty if it cannot be read.
        problem: Why it cannot be read; empty if it can.
        written: When the manifest was last written, by the store's clock.
        uploads: Multipart uploads in progress; None if one may not ask for them.
    """

    recording_id: str
    day: str
    manifest: Document = field(default_factory=lambda: Document({}))
    problem: str = ""
    written: datetime | None = None
    uploads: list[UploadInfo] | None = field(default_factory=list)

    @property
    def folder(self) -> str:
        """Key prefix of everything of the recording."""
        return f"dt={self.day}/{self.recording_id}/"

    @property
    def state(self) -> str:
        """What the manifest says, or that there is none."""
        return self.manifest.text("state") or "unreadable"

    @property
    def started_at(self) -> datetime | None:
        """When it was started: the manifest's word, or what the id says."""
        return self.manifest.time("started_at") or id_time(self.recording_id)

    @property
    def output_bytes(self) -> int:
        """Bytes of all outputs that are complete."""
        return sum(output.count("bytes") for output in self.manifest.items("outputs"))


@dataclass(slots=True)
class Details:
    """Everything the store has of one recording.

    Attributes:
        recording: Its manifest.
        objects: All objects in its folder, by key.
        parts: The parts of each upload in progress, in the order of `recording.uploads`; None
            for an upload that ended meanwhile.
        other_days: Further days with a recording of the same id.
    """

    recording: Recording
    objects: dict[str, ObjectInfo]
    parts: list[list[Part] | None]
    other_days: list[str]


@dataclass(frozen=True, slots=True)
class Page:
    """The newest recordings; `more` says whether there are older ones."""

    recordings: list[Recording]
    more: bool


class Catalog:
    """Reads what a store has.

    Args:
        store: Open.
        policy: How requests are retried.
    """

    def __init__(self, store: Store, policy: RetryPolicy = POLICY) -> None:
        self._store = store
        self._retrier = Retrier(policy)
        self._slots = asyncio.Semaphore(MAX_PARALLEL_READS)

    async def newest(self, limit: int, day: date | None = None) -> Page:
        """Return the newest recordings, newest first.

        Of ids that begin with their time only the manifests shown are read; recordings of a day
        with other ids must all be read to be put in order.

        Args:
            limit: At most so many.
            day: Only of this UTC day.

        Raises:
            StoreError: The store does not answer, or refuses.
        """
        found: list[Recording] = []
        more = False
        for name in await self._days() if day is None else [f"{day:%Y-%m-%d}"]:
            if len(found) >= limit:
                more = True
                break
            recordings = await self._of_day(name)
            wanted = limit - len(found)
            more = len(recordings) > wanted
            found += await self._newest_of(recordings, wanted)
            if more:
                break
        by_day: dict[str, list[Recording]] = {}
        for recording in found:
            by_day.setdefault(recording.day, []).append(recording)
        await asyncio.gather(*(self._add_uploads(*item) for item in by_day.items()))
        return Page(found, more)

    async def find(self, recording_id: str, day: date | None = None) -> Details:
        """Return all there is of one recording; of the newest, if an id was used on many days.

        Raises:
            NoSuchRecording: There is none.
            StoreError: The store does not answer, or refuses.
        """
        started = id_time(recording_id)
        if day is not None:
            days = [f"{day:%Y-%m-%d}"]
        elif started is not None:
            days = [f"{started:%Y-%m-%d}"]
        else:
            days = []
        found = await self._on_days(recording_id, days)
        if not found and day is None:
            found = await self._on_days(recording_id, await self._days())
        if not found:
            where = self._store.url("")
            raise NoSuchRecording(f"no recording {recording_id!r} at {where}")
        recording = found[0]
        objects, _ = await asyncio.gather(
            self._objects(recording.folder), self._add_uploads(recording.day, [recording])
        )
        parts = await asyncio.gather(*(self._parts(upload) for upload in recording.uploads or ()))
        others = [other.day for other in found[1:]]
        return Details(recording, objects, list(parts), others)

    async def _days(self) -> list[str]:
        listing = await self._call("list_level", lambda: self._store.list_level(""))
        found = [match[1] for name in listing.folders if (match := _DAY.fullmatch(name))]
        return sorted(found, reverse=True)

    async def _of_day(self, day: str) -> list[Recording]:
        prefix = f"dt={day}/"
        listing = await self._call("list_level", lambda: self._store.list_level(prefix))
        return [Recording(name[len(prefix) : -1], day) for name in listing.folders]

    async def _newest_of(self, recordings: list[Recording], limit: int) -> list[Recording]:
        timed = [recording for recording in recordings if id_time(recording.recording_id)]
        timed.sort(key=lambda recording: recording.recording_id, reverse=True)
        shown = set(map(id, timed[:limit]))
        others = [one for one in recordings if not id_time(one.recording_id) or id(one) in shown]
        await asyncio.gather(*(self._read(recording) for recording in others))
        others.sort(key=_age, reverse=True)
        return others[:limit]

    async def _on_days(self, recording_id: str, days: list[str]) -> list[Recording]:
        recordings = [Recording(recording_id, day) for day in days]
        there = await asyncio.gather(*(self._read(recording) for recording in recordings))
        return [one for one, is_there in zip(recordings, there, strict=True) if is_there]

    async def _read(self, recording: Recording) -> bool:
        """Read a recording's manifest; return whether there is one."""
        key = recording.folder + MANIFEST
        async with self._slots:
            try:
                body, info = await self._call("get_manifest", lambda: self._store.read(key))
            except NoSuchObject:
                recording.problem = f"there is no {MANIFEST}"
                return False
            except InvalidRequest as error:  # a folder whose name makes no key
                recording.problem = str(error)
                return False
        recording.written = info.modified
        try:
            recording.manifest = Document(parse(body, key))
        except (BotRecorderError, TypeError, RecursionError) as error:
            recording.problem = str(error) or f"{MANIFEST} cannot be read"
        return True

    async def _add_uploads(self, day: str, recordings: list[Recording]) -> None:
        prefix = recordings[0].folder if len(recordings) == 1 else f"dt={day}/"

        async def collect() -> list[UploadInfo]:
            return await _all(self._store.list_uploads(prefix))

        try:
            async with self._slots:
                uploads = await self._call("list_uploads", collect)
        except (AccessDenied, Unsupported):  # a permission of its own, which readers may lack
            for recording in recordings:
                recording.uploads = None
            return
        by_folder: dict[str, list[UploadInfo]] = {}
        for upload in uploads:
            by_folder.setdefault("/".join(upload.key.split("/")[:2]) + "/", []).append(upload)
        for recording in recordings:
            recording.uploads = by_folder.get(recording.folder, [])

    async def _objects(self, folder: str) -> dict[str, ObjectInfo]:
        async def collect() -> list[ObjectInfo]:
            return await _all(self._store.list_objects(folder))

        found = await self._call("list_objects", collect)
        return {info.key: info for info in found}

    async def _parts(self, upload: UploadInfo) -> list[Part] | None:
        async with self._slots:
            try:
                return await self._call(
                    "list_parts", lambda: self._store.list_parts(upload.key, upload.upload_id)
                )
            except (NoSuchUpload, NoSuchObject):
                return None

    async def _call(self, op: str, request: Callable[[], Awaitable[T]]) -> T:
        return await self._retrier.call(op, request)


def id_time(recording_id: str) -> datetime | None:
    """Return the time that a made id begins with, or None for an id of another kind."""
    match = _TIMED_ID.match(recording_id)
    if match is None:
        return None
    try:
        return datetime.strptime(match[1], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def _age(recording: Recording) -> tuple[datetime, str]:
    return recording.started_at or datetime.min.replace(tzinfo=UTC), recording.recording_id


async def _all(found: AsyncIterator[T]) -> list[T]:
    return [item async for item in found]
