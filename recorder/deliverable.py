"""One output of a recording on its way: its upload, how far it is, and how it ended."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from typing import Any

from recorder import events
from recorder.chunk_reader import ChunkReader
from recorder.containers import codec, container
from recorder.encoded import EncodedSource
from recorder.encoded_parts import EncodedParts
from recorder.outputs import OutputSource, OutputSpec
from recorder.plan import Plan
from recorder.quota import SpoolQuota
from recorder.result import OutputResult, State
from uploader.checksum import decode, encode
from uploader.context import Context
from uploader.errors import BotRecorderError, NoSuchUpload
from uploader.parts import PartDiffers
from uploader.store import Part
from uploader.upload import ATTEMPTS_TO_REBUILD, Upload


class Deliverable:
    """One output object.

    Args:
        spec: Which.
        plan: Of the recording.
        context: Store, retries, budget.
        reader: Its samples.
        emit: Told of parts and completion.
        keep: Returns where encoded bytes are kept until they are in the store, by the output's
            file; by default that is in files without names.
        encoding: Held while something is encoded.
    """

    def __init__(
        self,
        spec: OutputSpec,
        plan: Plan,
        context: Context,
        reader: ChunkReader,
        emit: Callable[[events.Event], None],
        keep: Callable[[str], EncodedParts] | None = None,
        encoding: asyncio.Semaphore | None = None,
    ) -> None:
        self.spec = spec
        self.key = plan.folder + spec.file
        self.error: BotRecorderError | None = None
        self._plan = plan
        self._context = context
        self._emit = emit
        self._source = self._make_source(reader, keep or _unnamed, encoding or asyncio.Semaphore(1))
        self._upload = Upload(
            context,
            self.key,
            plan.output_attributes(spec),
            plan.part_bytes,
            self._source,
            self._part_done,
        )
        self._samples = 0
        self._bytes = 0
        self._completed = False

    def _make_source(
        self,
        reader: ChunkReader,
        keep: Callable[[str], EncodedParts],
        encoding: asyncio.Semaphore,
    ) -> OutputSource | EncodedSource:
        spec, plan = self.spec, self._plan
        if (form := codec(plan.format)) is None:
            return OutputSource(spec, container(plan.format), plan.sample_rate, reader)
        return EncodedSource(
            spec,
            form,
            plan.sample_rate,
            plan.opus_bitrate,
            plan.part_bytes,
            reader,
            keep(spec.file),
            lambda number: self._upload.parts.get(number),
            encoding,
        )

    @property
    def completed(self) -> bool:
        """Whether the object is in the store, verified."""
        return self._completed

    @property
    def doubtful(self) -> bool:
        """Whether the store may have an upload of this object that nobody knows."""
        return self._upload.doubtful

    @property
    def superseded(self) -> list[str]:
        """Ids of its uploads that were replaced by another and are still there."""
        return self._upload.superseded

    async def adopt(self, told: Mapping[str, Any]) -> None:
        """Go on with the upload that a manifest tells of.

        Raises:
            StoreError: See `Upload.adopt`.
        """
        upload_id = told.get("upload_id")
        if isinstance(upload_id, str) and upload_id:
            await self._upload.adopt(upload_id, _parts_told(told))

    async def advance(self, end: int) -> None:
        """Send the parts that are whole, given all samples before `end` are sealed.

        Raises:
            StoreError: See `Upload.advance`.
        """
        await self._upload.create()
        try:
            await self._send_whole(self._own(end))
        except PartDiffers:  # the next chunk begins the upload anew
            self._upload.restart()
            raise

    async def _send_whole(self, samples: int) -> None:
        """Send the parts that are whole; what is compressed is made no faster than it is sent."""
        reached = False
        while not reached:
            available, reached = await self._source.reach(samples, self._upload.sent_bytes())
            await self._upload.advance(available)

    async def _total(self, samples: int) -> int:
        """Return the object's size, which for what is compressed only its whole encoding tells."""
        if isinstance(self._source, OutputSource):
            return self._source.size(samples)
        for attempt in range(1, ATTEMPTS_TO_REBUILD + 1):
            try:
                await self._send_whole(samples)
                return await self._source.total(samples)
            except NoSuchUpload:  # completed already, perhaps; `advance` begins it anew
                if attempt == ATTEMPTS_TO_REBUILD:
                    raise
            except PartDiffers:
                if attempt == ATTEMPTS_TO_REBUILD:
                    raise
                self._upload.restart()
        raise RuntimeError("the last attempt returns or raises")

    async def prepare(self, end: int) -> None:
        """Send everything, given the recording ends at `end`; what failed, `finish` tries again."""
        if self._completed:
            return
        try:
            await self._upload.prepare(await self._total(self._own(end)))
        except BotRecorderError as error:
            self.error = error

    async def finish(self, end: int) -> None:
        """Complete the object; how that went is in `result`. Does nothing if it is complete."""
        if self._completed:
            return
        self._samples = self._own(end)
        try:
            info = await self._upload.finish(await self._total(self._samples))
        except BotRecorderError as error:
            self.error = error
            return
        self.error = None
        self._completed = True
        self._bytes = info.size
        self._source.close()
        url = self._context.store.url(self.key)
        self._emit(events.OutputCompleted(self.spec.name, self.key, url, info.size))

    async def drop_superseded(self) -> None:
        """Abort uploads that were replaced by another; only of an object that is complete.

        Raises:
            StoreError: See `Upload.drop_superseded`.
        """
        if self._completed:
            await self._upload.drop_superseded()

    async def abandon(self) -> None:
        """Abort its upload, if that is in progress: only where it can be made anew at any time.

        Raises:
            StoreError: See `Upload.abandon`.
        """
        self._source.close()
        if not self._completed:
            await self._upload.abandon()

    def needed_from(self) -> int:
        """Return the recording's first sample, behind part 1's, that is still to be sent."""
        source = self._source
        if isinstance(source, EncodedSource):
            return self.spec.first_sample + source.samples
        return self.spec.first_sample + source.samples_before(self._upload.sent_bytes())

    def part_1_samples(self) -> int:
        """Return before which sample of the recording part 1's lie: needed until the end."""
        source = self._source
        if isinstance(source, EncodedSource):
            return self.spec.first_sample  # what is encoded is kept as such
        return self.spec.first_sample + source.samples_before(self._plan.part_bytes) + 1

    def close(self) -> None:
        """Let go of what is held for parts that are not sent: they can be made anew. Idempotent."""
        self._source.close()

    def _own(self, end: int) -> int:
        return max(0, end - self.spec.first_sample)

    def result(self) -> OutputResult:
        """Return where the output stands."""
        url = self._context.store.url(self.key)
        if not self._completed:
            state = State.PENDING if self.error is None else state_of(self.error)
            reason, hint = said(self.error)
            return OutputResult(self.spec.name, state, self.key, url, reason=reason, hint=hint)
        return OutputResult(
            self.spec.name,
            State.COMPLETED,
            self.key,
            url,
            bytes=self._bytes,
            duration_seconds=self._plan.seconds(self._samples),
            parts=len(self._upload.parts),
            checksum=encode(self._upload.checksum()),
            verified=self._context.capabilities.head,
        )

    def to_dict(self, *, with_parts: bool) -> dict[str, Any]:
        """Return the output as the manifest lists it; with parts, while it is not done with."""
        result = self.result()
        parts = [
            [part.number, part.size, part.etag, encode(part.checksum or 0)]
            for _, part in sorted(self._upload.parts.items())
        ]
        return {
            "name": self.spec.name,
            "key": self.key,
            "layout": self.spec.layout,
            "channels": self.spec.channels,
            "first_sample": self.spec.first_sample,
            "upload_id": self._upload.upload_id,
            "state": str(result.state) if self._completed or self.error else "recording",
            "bytes": result.bytes,
            "samples": self._samples if self._completed else 0,
            "duration_seconds": result.duration_seconds,
            "parts": len(self._upload.parts),
            "checksum": result.checksum,
            "verified": result.verified,
            "reason": result.reason,
            "acknowledged": parts if with_parts else [],
        }

    def _part_done(self, part: Part) -> None:
        self._source.sent(part.number)
        self._emit(events.PartUploaded(self.spec.name, self.key, part.number, part.size))


def _unnamed(file: str) -> EncodedParts:
    return EncodedParts(None, file, SpoolQuota(sys.maxsize))


def _parts_told(told: Mapping[str, Any]) -> dict[int, Part]:
    """Return the acknowledged parts a manifest lists; what is not of that kind is not said."""
    parts = {}
    for item in told.get("acknowledged") or ():
        try:
            number, size, etag, checksum = item
            parts[int(number)] = Part(int(number), int(size), str(etag), decode(checksum))
        except (TypeError, ValueError):
            continue
    return parts


def state_of(error: BotRecorderError) -> State:
    """Return `pending` for what may pass by itself, `failed` for what needs somebody."""
    return State.PENDING if getattr(error, "retryable", False) else State.FAILED


def as_told(error: Exception) -> BotRecorderError:
    """Return an error as one of the project's own, so that it can be reported like any."""
    if isinstance(error, BotRecorderError):
        return error
    told = BotRecorderError(f"{type(error).__name__}: {error}")
    told.__cause__ = error
    return told


def said(error: BotRecorderError | None) -> tuple[str, str]:
    """Return an error's reason and hint."""
    if error is None:
        return "", ""
    return Exception.__str__(error), error.hint


__all__ = ["Deliverable", "as_told", "said", "state_of"]
