"""Rescues, from the bucket alone, the recordings whose hosts are lost.

A recording is stale when nothing of it has changed between two looks of this very observer: no two
hosts' clocks are ever compared. A stale one is taken over by compare-and-swap of its manifest, so
that any number of observers do each one once, and finished from its chunk objects.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from loguru import logger

from recorder.chunks import CHUNKS, Chunk
from recorder.clean_up import CleanUp, listed_leftovers, upload_name
from recorder.continuation import list_continuation
from recorder.delivery import Delivery
from recorder.depot import Depot
from recorder.export import EXPORTS
from recorder.plan import PEAKS, Plan
from recorder.recovered import Outcome, Recovered, failed, finished
from recorder.recovery import DURABLE, Rests, stale_seconds
from recorder.stored_contents import StoredContents
from uploader.context import Context
from uploader.errors import AccessDenied, BotRecorderError, NoSuchUpload, Unsupported
from uploader.manifest import MANIFEST, LostOwnership, ManifestFile, Stored
from uploader.store import ObjectInfo, UploadInfo

MAX_AT_ONCE = 8
BUSY_DAYS = 2
EMPTY_BYTES = 4096
QUIET_DAY_SECONDS = 3600.0
"""How seldom a day is looked at again that is over, and had nothing to do: an archive has many."""

_DAY = re.compile(r"dt=\d{4}-\d{2}-\d{2}/")
_FOLDER = re.compile(r"(dt=[^/]+/[^/]+/(?:continuation-[^/]+/)?)(.*)")


@dataclass(slots=True)
class Sighting:
    """What one look saw of a recording.

    Attributes:
        folder: Its key prefix.
        manifest: ETag of its manifest; empty if there is none.
        chunks: Chunk objects, as key and ETag.
        outputs: How many other objects there are that hold audio: an empty one tells nothing of
            the others, which a recording without chunks may still lack.
        uploads: Multipart uploads in progress, and how many parts each has.
        stored: Its manifest.
    """

    folder: str
    manifest: str = ""
    chunks: set[tuple[str, str]] = field(default_factory=set)
    outputs: int = 0
    uploads: dict[tuple[str, str], int] = field(default_factory=dict)
    stored: Stored | None = None

    @property
    def recording_id(self) -> str:
        """Its id, by its folder's name."""
        return self.folder.split("/")[1]

    @property
    def looks_finished(self) -> bool:
        """Whether its objects alone show that there is nothing to do."""
        return bool(self.outputs) and not self.chunks and not self.uploads

    def traces(self) -> tuple[object, ...]:
        """Return what a living owner would change."""
        return self.manifest, frozenset(self.chunks), frozenset(self.uploads.items())


class BucketRescue:
    """Watches a bucket for recordings nobody goes on with.

    Args:
        depot: Stores, threads, settings.
        new_owner: Makes a token that nobody else has.
    """

    def __init__(self, depot: Depot, new_owner: Callable[[], str]) -> None:
        self._depot = depot
        self._new_owner = new_owner
        self._seen: dict[str, tuple[tuple[object, ...], float]] = {}
        self._quiet: dict[str, float] = {}
        self._rests = Rests(depot.clock)

    async def sweep(
        self,
        stale_after: float | None = None,
        *,
        wait: bool = True,
        dry_run: bool = False,
        unfenced: bool = False,
        tell: Callable[[Recovered], None] = lambda one: None,
        on_wait: Callable[[tuple[int, float]], None] = lambda what: None,
    ) -> list[Recovered]:
        """Look, take over what is stale, and, if told to wait, look again at what may become so.

        Args:
            stale_after: See `look`.
            wait: Whether to wait until all that was seen at first has changed or is stale. If not,
                a recording that failed is left alone for a while, longer each time; meanwhile its
                failure is told again, as the same object.
            dry_run: See `rescue`.
            unfenced: See `rescue`.
            tell: See `rescue`.
            on_wait: Told, before each wait, for how many recordings it is and how many seconds.

        Raises:
            StoreError: The store does not answer, or refuses.
        """
        found: list[Recovered] = []

        def note(recovered: Recovered) -> None:
            found.append(recovered)
            tell(recovered)

        stale, seconds = await self.look(stale_after)
        waiting = {name: seen for name, seen in self._seen.items() if not self._is_here(name)}
        for folder in [] if wait else list(waiting):
            if (failure := self._rests.failure(folder)) is not None:
                del waiting[folder]
                note(failure)
        while True:
            mine = [one for one in stale if one.folder in waiting]
            await self.rescue(mine, dry_run=dry_run, unfenced=unfenced, tell=note)
            for one in mine:
                del waiting[one.folder]
            if not wait or not waiting:
                return found
            on_wait((len(waiting), seconds))
            await asyncio.sleep(seconds)
            stale, seconds = await self.look(stale_after)
            for folder, before in list(waiting.items()):
                if self._seen.get(folder) != before:  # it lives, or was finished
                    del waiting[folder]
                    if folder in self._seen:
                        note(_alive(folder))

    async def look(self, stale_after: float | None = None) -> tuple[list[Sighting], float]:
        """Look through the bucket once.

        Args:
            stale_after: Seconds without a change after which a recording is stale; by its chunk
                length, if None.

        Returns:
            The stale recordings, and in how many seconds there may be more of those seen now; 0
            if there are no others.

        Raises:
            StoreError: The store does not answer, or refuses.
        """
        now = self._depot.clock.monotonic()
        stale: list[Sighting] = []
        seen: dict[str, tuple[tuple[object, ...], float]] = {}
        wait = 0.0
        for sighting in await self._sightings():
            traces = sighting.traces()
            before, since = self._seen.get(sighting.folder, (None, now))
            if before != traces:
                since = now
            seen[sighting.folder] = traces, since
            patience = _patience(sighting) if stale_after is None else stale_after
            if now - since >= patience:
                stale.append(sighting)
            else:
                wait = max(wait, since + patience - now)
        self._seen = seen
        return stale, wait

    async def rescue(
        self,
        stale: list[Sighting],
        *,
        dry_run: bool = False,
        unfenced: bool = False,
        tell: Callable[[Recovered], None] = lambda one: None,
    ) -> None:
        """Take over and finish stale recordings.

        Args:
            stale: From `look`.
            dry_run: Only say what would be done.
            unfenced: Also where the bucket cannot tell two owners apart.
            tell: Told of each recording at once.
        """
        slots = asyncio.Semaphore(MAX_AT_ONCE)

        async def one(sighting: Sighting) -> None:
            async with slots:
                recovered = await self._one(sighting, dry_run=dry_run, unfenced=unfenced)
            self._rests.note(sighting.folder, recovered)
            if recovered is not None:
                tell(recovered)

        await asyncio.gather(*(one(sighting) for sighting in stale))

    # -- looking -------------------------------------------------------------------------------

    async def _sightings(self) -> list[Sighting]:
        """Return the recordings of the bucket that are not plainly finished."""
        context = await self._context("")
        listing = await context.call("list_level", lambda: context.store.list_level(""))
        found: list[Sighting] = []
        now = self._depot.clock.monotonic()
        days = sorted(name for name in listing.folders if _DAY.fullmatch(name))
        for day in days:
            if day not in days[-BUSY_DAYS:] and now < self._quiet.get(day, now):
                continue
            folders = await self._of_day(context, day)
            candidates = [one for one in folders if one.manifest and not one.looks_finished]
            await asyncio.gather(*(self._read(context, one) for one in candidates))
            unfinished = [one for one in candidates if _is_unfinished(one)]
            self._quiet[day] = now + (0 if unfinished else QUIET_DAY_SECONDS)
            found += unfinished
        return found

    async def _of_day(self, context: Context, day: str) -> list[Sighting]:
        store = context.store

        async def objects() -> dict[str, Sighting]:
            folders: dict[str, Sighting] = {}
            async for info in store.list_objects(day):
                _note(folders, info)
            return folders

        async def uploads() -> list[UploadInfo]:
            return [info async for info in store.list_uploads(day)]

        folders = await context.call("list_objects", objects)
        try:
            for upload in await context.call("list_uploads", uploads):
                folder, _ = _split(upload.key)
                if folder in folders:
                    folders[folder].uploads[upload.key, upload.upload_id] = 0
        except (AccessDenied, Unsupported) as error:  # a permission of its own
            context.log.info("uploads in progress cannot be looked for: {}", error)
        return list(folders.values())

    async def _read(self, context: Context, sighting: Sighting) -> None:
        manifest = ManifestFile(context, sighting.folder + MANIFEST, "")
        try:
            sighting.stored = await manifest.read()
        except BotRecorderError as error:
            logger.bind(recording_id=sighting.recording_id).warning("left alone: {}", error)
            return
        sighting.manifest = sighting.stored.etag if sighting.stored else ""
        if not _is_unfinished(sighting):
            return
        for key, upload_id in list(sighting.uploads):
            request = partial(context.store.list_parts, key, upload_id)
            try:
                parts = await context.call("list_parts", request)
            except NoSuchUpload:
                del sighting.uploads[key, upload_id]
            except (AccessDenied, Unsupported) as error:  # likewise
                context.log.info("parts of uploads cannot be looked for: {}", error)
            else:
                sighting.uploads[key, upload_id] = len(parts)

    # -- rescuing ------------------------------------------------------------------------------

    async def _one(self, sighting: Sighting, *, dry_run: bool, unfenced: bool) -> Recovered | None:
        name, stored = sighting.recording_id, sighting.stored
        if stored is None:
            return None
        if self._is_here(sighting.folder):
            reason = "its spool is on this host, and knows more"
            return Recovered(name, "bucket", Outcome.ALIVE, reason=reason)
        try:
            plan = Plan.from_dict(stored.document)
            context = await self._context(name)
            if plan.folder != sighting.folder:
                raise BotRecorderError(f"{sighting.folder} has the manifest of {plan.folder}")
            if not context.capabilities.conditional_writes and not unfenced:
                raise BotRecorderError(
                    "the bucket has no conditional writes: two owners cannot be told apart",
                    hint="recover with --unfenced when its owner is gone for sure",
                )
            if stored.document["state"] in DURABLE:
                return await self._clean(plan, context, sighting, stored, dry_run=dry_run)
            if dry_run:
                reason = f"would be taken over and finished from {len(sighting.chunks)} chunks"
                return Recovered(name, "bucket", Outcome.RECOVERED, reason=reason)
            return await self._finish(plan, context, stored)
        except LostOwnership:
            reason = "its owner is alive after all, or somebody else was quicker"
            return Recovered(name, "bucket", Outcome.TAKEN, reason=reason)
        except Exception as error:  # one recording's trouble must not stop all others
            logger.bind(recording_id=name).info("not recovered: {}", error)
            return failed(name, "bucket", error)

    def _is_here(self, folder: str) -> bool:
        """Return whether a recording's spool is on this host: it knows more than the bucket."""
        return (self._depot.settings.spool_dir / folder.split("/")[1]).exists()

    async def _finish(self, plan: Plan, context: Context, stored: Stored) -> Recovered:
        depot = self._depot
        owner = self._new_owner()
        contents = StoredContents(plan, stored.document, context, owner)
        delivery = Delivery(
            plan, contents, context, depot.engine, depot.quota, owner, lambda event: None
        )
        await delivery.adopt(stored, "bucket", contents.load)
        if plan.continuation:
            await list_continuation(context, plan, None, owner)
        result = await delivery.conclude()
        if delivery.manifest.usurped is not None:
            raise delivery.manifest.usurped
        if plan.continuation and result.durable:
            await list_continuation(context, plan, result.samples, owner)
        return finished(plan.recording_id, "bucket", result)

    async def _clean(
        self, plan: Plan, context: Context, sighting: Sighting, stored: Stored, *, dry_run: bool
    ) -> Recovered:
        reason = f"it was finished; {len(sighting.chunks)} chunk objects and "
        reason += f"{len(sighting.uploads)} uploads were left over"
        outcome = Outcome.CLEANED
        if not dry_run:
            clean_up = CleanUp(plan, context)
            chunks = [Chunk.from_dict(told) for told in stored.document.get("chunks", [])]
            done = await clean_up.run(chunks, (), thorough=True)
            await clean_up.list_leftovers(self._new_owner())
            if not done:
                outcome, reason = Outcome.PENDING, f"{reason} and could not be deleted"
            elif count := len(clean_up.leftovers):
                reason += f"; {count} of them may not be deleted, and are listed in the manifest"
        return Recovered(plan.recording_id, "bucket", outcome, reason=reason)

    async def _context(self, recording_id: str) -> Context:
        depot = self._depot
        store, capabilities = await depot.reach(str(depot.settings.location))
        return depot.context(recording_id, store, capabilities)


def _alive(folder: str) -> Recovered:
    recording_id = folder.split("/")[1]
    return Recovered(recording_id, "bucket", Outcome.ALIVE, reason="it changed between two looks")


def _patience(sighting: Sighting) -> float:
    seconds = sighting.stored.document.get("chunk_seconds") if sighting.stored else None
    return stale_seconds(float(seconds) if isinstance(seconds, int | float) else 0.0)


def _is_unfinished(sighting: Sighting) -> bool:
    """Return whether there is something to do: to finish, or to clean up."""
    if sighting.stored is None:
        return False
    document = sighting.stored.document
    if document["state"] not in DURABLE:
        return True
    expected = listed_leftovers(document)
    if any(upload_name(*one) not in expected for one in sighting.uploads):
        return True
    if document.get("chunks_kept") is True:
        expected |= {sighting.folder + CHUNKS + name for name in _listed_chunks(document)}
    return any(key not in expected for key, _ in sighting.chunks)


def _listed_chunks(document: Mapping[str, Any]) -> set[str]:
    try:
        return {Chunk.from_dict(told).name for told in document.get("chunks", [])}
    except (BotRecorderError, TypeError):
        return set()


def _split(key: str) -> tuple[str, str]:
    match = _FOLDER.fullmatch(key)
    return (match[1], match[2]) if match else ("", key)


def _note(folders: dict[str, Sighting], info: ObjectInfo) -> None:
    folder, rest = _split(info.key)
    if not folder:
        return
    sighting = folders.setdefault(folder, Sighting(folder))
    if rest == MANIFEST:
        sighting.manifest = info.etag
    elif rest.startswith(CHUNKS):
        sighting.chunks.add((info.key, info.etag))
    elif rest != PEAKS and not rest.startswith(EXPORTS):
        sighting.outputs += info.size > EMPTY_BYTES
