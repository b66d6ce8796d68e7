"""The waveform of a recording under way: noted chunk by chunk, put beside the outputs at the end.

A chunk is looked at when its file is read to be sent. What that finds is a small record in the
spool, so that memory does not grow with a call and a restart reads no audio again. A chunk that has
no record, or whose record is damaged, is read once more: from its file, or from the store.

A waveform is never a reason for a recording not to be complete: what goes wrong here is logged and
told in the manifest, and `recorder peaks` mends it.
"""

from __future__ import annotations

import asyncio
import struct
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recorder.account import Account
from recorder.chunk_reader import BLOCK_SAMPLES, ChunkReader, InThread, Planes
from recorder.chunks import Chunk
from recorder.deliverable import as_told, said
from recorder.outputs import OutputSpec
from recorder.plan import Plan
from recorder.render import Samples
from recorder.waveform import BITS, Extremes, Shape, Waveform, pixel_count
from uploader.checksum import crc64nvme, encode
from uploader.errors import BotRecorderError, TransientError
from uploader.store import Body

PATIENCE_SECONDS = 5.0
"""How long a finished recording waits for nothing but its waveform."""

PATIENCE_TO_READ_SECONDS = 60.0
"""The same where audio may have to be read again for it, and nobody waits."""

_RECORD = struct.Struct("<IQQII")  # number, checksum, first pixel, pixels, CRC-32 of the values


class Tally:
    """Of one recording.

    Args:
        account: Of the recording.
        folder: Its spool, if it has one here.
        reader: Its samples; what is missing must be an error there.
        in_thread: Runs work off the event loop.
    """

    def __init__(
        self, account: Account, folder: Path | None, reader: ChunkReader, in_thread: InThread
    ) -> None:
        self._account = account
        self._plan = plan = account.plan
        self._spec = plan.peaks_spec
        self._path = None if folder is None else folder / f"peaks-{plan.first_sample}"
        self._reader = reader
        self._in_thread = in_thread
        self._appendable: bool | None = None
        self._newest = 0
        self._putting: asyncio.Task[None] | None = None

    def note(self, chunk: Chunk, body: Body) -> None:
        """Take note of a chunk that is about to be sent; blocking, for a worker thread."""
        if self._path is None or chunk.lost or not chunk.tracks or self._appendable is False:
            return
        if chunk.number <= self._newest:  # it is sent once more
            return
        try:
            if self._appendable is None:
                self._cut_off_what_is_torn(self._path)
            self._append(self._path, chunk, self._look(chunk, _frames(chunk, body)))
            self._appendable, self._newest = True, chunk.number
        except Exception as error:  # whatever it is, the chunk is sent all the same
            self._appendable = False  # half a record may be there: nothing may follow it
            self._account.context.log.info("the waveform is not noted from here on: {}", error)

    def begin(self) -> None:
        """Put the waveform in the store, in the background: all is sealed, and the end final."""
        self._putting = asyncio.ensure_future(self._put_or_tell())

    async def end(self, *, patient: bool) -> None:
        """Wait until that has ended, one way or the other, for a while.

        Args:
            patient: Whether audio may have to be read again.
        """
        task, context = self._putting, self._account.context
        if task is None:
            return
        most = PATIENCE_TO_READ_SECONDS if patient else PATIENCE_SECONDS
        left = context.deadline.left(time.monotonic())
        try:
            await asyncio.wait([task], timeout=max(0.0, min(most, left / 2)))
        finally:
            if not task.done():
                self._tell(TransientError("it was not put in time", op="put_peaks"))
            await self.drop()

    async def drop(self) -> None:
        """End it where it is."""
        task, self._putting = self._putting, None
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task])

    async def _put_or_tell(self) -> None:
        try:
            await self._put()
        except Exception as error:  # whatever it is, the audio is complete without
            self._tell(as_told(error))

    def _tell(self, error: BotRecorderError) -> None:
        reason, _ = said(error)
        self._account.context.log.warning("there is no waveform: {}", reason)
        self._account.peaks = {"key": self._plan.peaks_key, "state": "failed", "reason": reason}

    async def _put(self) -> None:
        context, plan = self._account.context, self._account.plan  # which is exact by now
        waveform = await self.whole()
        body = await self._in_thread(waveform.to_json)
        checksum = crc64nvme(body)
        attributes = plan.peaks_attributes(waveform.shape.channels)
        async with context.budget.reserve(len(body)):
            await context.call(
                "put_peaks",
                lambda: context.store.put(plan.peaks_key, body, attributes, checksum=checksum),
            )
        self._account.peaks = described(plan, waveform.shape, body)

    async def whole(self) -> Waveform:
        """Return the waveform of all that is sealed.

        Raises:
            BotRecorderError: A chunk is neither noted, nor in the spool, nor in the store; or is
                not what was recorded.
        """
        plan, contents = self._plan, self._account.contents
        samples = max(0, contents.sealed_samples - plan.first_sample)
        shape = shape_of(plan, samples)
        waveform, sealed = Waveform(shape), list(contents.sealed)
        for chunk in await self._in_thread(lambda: self._merge_noted(waveform, sealed)):
            pixel, found = await self._read(chunk)
            waveform.merge(found, pixel)
        return waveform

    def _merge_noted(self, waveform: Waveform, chunks: Sequence[Chunk]) -> list[Chunk]:
        """Add what is known of chunks; return those that must be read."""
        noted, unknown = self._noted(), []
        for chunk in chunks:
            known = noted.get((chunk.number, chunk.checksum))
            if chunk.lost or not chunk.tracks:
                known = self._silence(chunk)
            if known is None:
                unknown.append(chunk)
            else:
                pixel, found = known
                waveform.merge(found, pixel)
        return unknown

    async def _read(self, chunk: Chunk) -> tuple[int, Extremes]:
        async with self._account.context.budget.reserve(chunk.bytes):
            planes = await self._reader.read(chunk.first_sample, chunk.end)
            return await self._in_thread(lambda: self._look(chunk, planes.samples.T))

    # -- one chunk -----------------------------------------------------------------------------

    def _look(self, chunk: Chunk, frames: Samples) -> tuple[int, Extremes]:
        """Return the first pixel of a chunk and its extremes, on the grid of the recording."""
        skipped = max(0, self._plan.first_sample - chunk.first_sample)
        begin = chunk.first_sample + skipped - self._plan.first_sample
        return look(self._plan, self._spec, chunk.tracks, frames[skipped:], begin)

    def _silence(self, chunk: Chunk) -> tuple[int, Extremes]:
        per_pixel, origin = self._plan.peaks_samples_per_pixel, self._plan.first_sample
        first, last = max(0, chunk.first_sample - origin), max(0, chunk.end - origin)
        pixel = first // per_pixel
        count = pixel_count(last, per_pixel) - pixel
        return pixel, np.zeros((count, self._spec.channels, 2), np.int8)

    # -- records -------------------------------------------------------------------------------

    def _append(self, path: Path, chunk: Chunk, looked: tuple[int, Extremes]) -> None:
        pixel, found = looked
        values = found.tobytes()
        head = _RECORD.pack(chunk.number, chunk.checksum, pixel, len(found), zlib.crc32(values))
        with path.open("ab", buffering=0) as file:
            if file.write(head + values) != len(head) + len(values):
                raise OSError(f"{path} could not be written in full")

    def _noted(self) -> dict[tuple[int, int], tuple[int, Extremes]]:
        if self._path is None:
            return {}
        try:
            body = self._path.read_bytes()
        except OSError:
            return {}
        return {key: value for key, value, _ in self._records(body)}

    def _records(self, body: bytes) -> Iterator[tuple[tuple[int, int], tuple[int, Extremes], int]]:
        """Yield records, by number and checksum of their chunk, and where each ends."""
        at, each = 0, 2 * self._spec.channels
        while at + _RECORD.size <= len(body):
            number, checksum, pixel, count, crc = _RECORD.unpack_from(body, at)
            values = body[at + _RECORD.size : at + _RECORD.size + count * each]
            if len(values) != count * each or zlib.crc32(values) != crc:
                return
            at += _RECORD.size + len(values)
            found = np.frombuffer(values, np.int8).reshape(count, -1, 2)
            yield (number, checksum), (pixel, found), at

    def _cut_off_what_is_torn(self, path: Path) -> None:
        """Prepare to go on with what an earlier process has noted."""
        try:
            body = path.read_bytes()
        except FileNotFoundError:
            return
        end = max([0, *(end for _, _, end in self._records(body))])
        if end < len(body):
            with path.open("r+b") as file:
                file.truncate(end)


def shape_of(plan: Plan, samples: int) -> Shape:
    """Return what a recording's waveform is of, given its length."""
    channels = plan.peaks_spec.channels
    return Shape(plan.sample_rate, channels, plan.peaks_samples_per_pixel, samples)


def look(
    plan: Plan, spec: OutputSpec, tracks: tuple[str, ...], frames: Samples, begin: int
) -> tuple[int, Extremes]:
    """Return the first pixel of some frames, and their extremes as the mixed output has them.

    Args:
        plan: Of the recording.
        spec: Of its mixed output.
        tracks: The frames' channels.
        frames: Shape (samples, tracks).
        begin: Where they begin, counted from the recording's first sample.
    """
    per_pixel = plan.peaks_samples_per_pixel
    offset = begin % per_pixel
    part = Waveform(Shape(plan.sample_rate, spec.channels, per_pixel, offset + len(frames)))
    plain = spec.is_plain(tracks)
    step = len(frames) if plain else BLOCK_SAMPLES
    for start in range(0, len(frames), max(1, step)):
        block = frames[start : start + step]
        part.add(block if plain else spec.render(Planes(block.T, tracks)), offset + start)
    return begin // per_pixel, part.values


def described(plan: Plan, shape: Shape, body: bytes) -> dict[str, Any]:
    """Return what a manifest says of a waveform."""
    return {
        "key": plan.peaks_key,
        "state": "completed",
        "layout": plan.peaks_spec.layout,
        "channels": shape.channels,
        "samples_per_pixel": shape.samples_per_pixel,
        "bits": BITS,
        "length": shape.pixels,
        "bytes": len(body),
        "checksum": encode(crc64nvme(body)),
    }


def _frames(chunk: Chunk, body: Body) -> Samples:
    """Return a chunk file's frames, shape (samples, tracks)."""
    width = len(chunk.tracks)
    offset = len(body) - 2 * width * chunk.samples
    return np.frombuffer(body, "<i2", offset=offset).reshape(-1, width)


def refuse_gone(number: int) -> None:
    """Refuse to take a chunk that is nowhere for silence: only an output may decide on that.

    Raises:
        BotRecorderError: Always.
    """
    raise BotRecorderError(f"chunk {number} is neither in the spool nor in the store")
