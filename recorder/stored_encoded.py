"""The samples of a compressed output in the store, decoded by libsndfile as a stream.

FLAC gives the samples that were recorded, and proves each frame by itself (CRC-16; RFC 9639,
section 9.3). Opus gives nearly them, each in its place: libsndfile drops the pre-skip, and decodes
80 ms ahead of where it is to begin (RFC 7845, sections 4.2 and 4.6). What has another rate than
the recording, since Opus has only five, is brought back to it by the recording's own resampler.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from functools import partial
from typing import TypeVar

import numpy as np
import soundfile

from recorder.at_rest import AtRest, NoAudio, in_spite_of_cancels, same_bytes
from recorder.chunk_reader import BLOCK_SAMPLES
from recorder.containers import Codec
from recorder.grid import Grid
from recorder.object_file import HELD_BYTES, ObjectFile
from recorder.render import Samples
from recorder.resample import BlockResampler

_EXACT_BYTES, _LOSSY_BYTES = 4, 16
"""Held of each sample that is decoded: once and again; as floats, as they are rounded, again."""

_AROUND_SECONDS = 2
"""Of input around a block that is resampled: the resampler's own blocks, and what is beside."""

_HINT = "`recorder verify` says what else is not as it was recorded"

T = TypeVar("T")


class EncodedOutput:
    """A compressed output that has the layout.

    Args:
        rest: The recording.
        key: The object.
        checksum: CRC-64/NVME of its bytes; None if it is not known.
        channels: 1 or 2.
        codec: Its format.
    """

    source = "output"

    def __init__(
        self, rest: AtRest, key: str, checksum: int | None, channels: int, codec: Codec
    ) -> None:
        self.lossy = not codec.lossless
        self._rest = rest
        self._key = key
        self._checksum = checksum
        self._channels = channels
        self._codec = codec

    @property
    def held_bytes(self) -> int:
        """Most that is held while it is read."""
        rate = self._rest.plan.sample_rate
        samples, each = BLOCK_SAMPLES, _LOSSY_BYTES if self.lossy else _EXACT_BYTES
        if self._codec.coded(0, rate)[1] != rate:
            samples += _AROUND_SECONDS * rate
        return HELD_BYTES + each * self._channels * samples

    async def blocks(self, start: int, end: int) -> AsyncGenerator[memoryview, None]:
        """Yield samples [start, end) as 16-bit little-endian PCM, in blocks of `BLOCK_SAMPLES`.

        Raises:
            BotRecorderError: The object is not what was recorded.
            StoreError: The store refuses, or does not answer.
        """
        async with (
            self._rest.context.budget.reserve(self.held_bytes),
            aclosing(self.unreserved(start, end)) as blocks,
        ):
            async for block in blocks:
                yield block

    async def unreserved(self, start: int, end: int) -> AsyncGenerator[memoryview, None]:
        """Do as `blocks` does; that `held_bytes` are held is the caller's to reserve.

        Raises:
            BotRecorderError: The object is not what was recorded.
            StoreError: The store refuses, or does not answer.
        """
        rest = self._rest
        file = ObjectFile(rest, self._key, rest.objects[self._key].size)
        decoded = _Decoded(file, self._key, rest, self._channels, self._codec)
        # A thread of its own: it waits for reads, which may need one of the loop's.
        thread = ThreadPoolExecutor(1, "decode")
        whole = (start, end) == (0, rest.samples)
        try:
            if self.lossy and not whole:  # of a page that is damaged, libsndfile says nothing
                await _run(thread, file, partial(self._prove, file))
            for begin in range(start, end, BLOCK_SAMPLES):
                until = min(end, begin + BLOCK_SAMPLES)
                frames = await _run(thread, file, partial(decoded.read, begin, until))
                yield frames.data.cast("B")
            if whole:
                await _run(thread, file, partial(self._prove, file))
        finally:
            thread.shutdown()  # it has nothing to do by now: this does not block
            decoded.close()

    def _prove(self, file: ObjectFile) -> None:
        same_bytes(self._key, self._checksum, file.checksum())


async def _run(thread: ThreadPoolExecutor, file: ObjectFile, function: Callable[[], T]) -> T:
    """Run blocking work that reads the file; a cancel waits until it has let go of it."""
    work = asyncio.get_running_loop().run_in_executor(thread, function)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        file.stop()
        await in_spite_of_cancels(_ended(work))
        raise


async def _ended(work: asyncio.Future[T]) -> None:
    with suppress(Exception, asyncio.CancelledError):
        await work


class _Decoded:
    """The decoder, and what it takes to have samples at the recording's rate. Blocking."""

    def __init__(
        self, file: ObjectFile, key: str, rest: AtRest, channels: int, codec: Codec
    ) -> None:
        self._file = file
        self._key = key
        self._channels = channels
        self._codec = codec
        self._rate = rest.plan.sample_rate
        self._frames, self._coded_rate = codec.coded(rest.samples, self._rate)
        self._sound: soundfile.SoundFile | None = None
        self._position = 0
        grid = Grid(self._coded_rate, self._rate)
        self._resamplers = [BlockResampler(grid) for _ in range(channels)]
        # A length that was rounded down when it was encoded is still a whole one afterwards.
        self._available = self._frames + 1 + self._coded_rate // self._rate
        self._kept_from = 0
        self._kept: Samples = np.zeros((0, channels), np.int16)

    def read(self, start: int, end: int) -> Samples:
        """Return samples [start, end) at the recording's rate, shape (samples, channels)."""
        if self._coded_rate == self._rate:
            return self._decode(start, end)
        needed = self._resamplers[0].needed_input(start, end, self._available)
        self._keep(*needed)
        first = self._kept_from
        rendered = [
            one.render(start, end, partial(_cut, row, first), self._available, final=True)
            for one, row in zip(self._resamplers, self._kept.T, strict=True)
        ]
        return np.ascontiguousarray(np.stack(rendered, axis=1), "<i2")

    def close(self) -> None:
        """Let go of the decoder. Idempotent."""
        if self._sound is not None:
            self._sound.close()
            self._sound = None

    def _keep(self, start: int, end: int) -> None:
        """Have the decoded samples [start, end) in `_kept`; of those before, nothing."""
        have = self._kept_from + len(self._kept)
        begin = have if self._kept_from <= start <= have else start
        older = self._kept[start - self._kept_from :] if begin == have else self._kept[:0]
        parts = [older]
        if begin < (until := min(end, self._frames)):
            parts.append(self._decode(begin, until))
            begin = until
        parts.append(np.zeros((max(0, end - begin), self._channels), np.int16))
        self._kept_from, self._kept = start, np.concatenate(parts)

    def _decode(self, start: int, end: int) -> Samples:
        """Return decoded samples [start, end), as they are in the file."""
        try:
            return self._decoded(start, end)
        except soundfile.LibsndfileError as error:
            self._file.check()  # or else it is no wonder
            said = error.error_string.removeprefix("Error : ").rstrip(".")
            raise NoAudio(
                f"{self._key} cannot be decoded, so it is damaged (libsndfile says: {said})",
                hint=_HINT,
            ) from error

    def _decoded(self, start: int, end: int) -> Samples:
        sound = self._sound or self._open()
        if start != self._position:
            sound.seek(start)
        # Floats of what is lossy: it may swing further than 16 bits, where libsndfile wraps.
        dtype = "int16" if self._codec.lossless else "float32"
        block = sound.read(end - start, dtype=dtype, always_2d=True)
        self._file.check()
        self._position = start + len(block)
        if len(block) != end - start:
            raise NoAudio(
                f"{self._key} cannot be decoded: it ends at sample {self._position}, of "
                f"{self._frames}",
                hint=_HINT,
            )
        if not self._codec.lossless:
            block = np.clip(np.rint(block * 32768), -32768, 32767)
        return np.ascontiguousarray(block, "<i2")

    def _open(self) -> soundfile.SoundFile:
        sound = self._sound = soundfile.SoundFile(self._file)
        self._file.check()
        found = (sound.frames, sound.channels, sound.samplerate)
        if found != (self._frames, self._channels, self._coded_rate):
            said = "{} samples of {} channels at {} Hz".format(*found)
            raise NoAudio(f"{self._key} does not begin as it was recorded: {said}", hint=_HINT)
        return sound


def _cut(row: Samples, first: int, begin: int, until: int) -> Samples:
    """Return samples [begin, until) of a row that begins with sample `first`."""
    return row[begin - first : until - first]
