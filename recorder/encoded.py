"""A compressed output's bytes: encoded as chunks are sealed, in order, and never from the middle.

An encoder goes on from what came before, and its state cannot be kept. So all of an output is
encoded by one, from the first sample on; where that is not at hand, after a restart or where parts
must be sent once more, it begins anew. The same samples become the same bytes, and parts that are
acknowledged already are only compared; where they differ, by another library, say, the upload is
made anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from recorder.buffers import buffer
from recorder.chunk_reader import ChunkReader, Planes
from recorder.containers import Codec, Encoder
from recorder.encoded_parts import EncodedParts
from recorder.outputs import OutputSpec
from uploader.checksum import crc64nvme
from uploader.parts import PartDiffers
from uploader.store import Body, Part
from uploader.upload import MAX_PARALLEL_PARTS

STEP_SAMPLES = 1 << 17
"""So many are encoded at a time: workers do other things, too."""


class EncodedSource:
    """A compressed output, for `uploader.upload.Upload`.

    Args:
        spec: Which output.
        codec: Its format.
        sample_rate: Hz.
        bitrate: Bits per second of each channel, where the format has such a thing.
        part_bytes: Size of the upload's parts.
        reader: Where samples come from.
        parts: Keeps what is encoded.
        acknowledged: Returns the part of a number that is in the store.
        encoding: Held while something is encoded.
    """

    def __init__(
        self,
        spec: OutputSpec,
        codec: Codec,
        sample_rate: int,
        bitrate: int,
        part_bytes: int,
        reader: ChunkReader,
        parts: EncodedParts,
        acknowledged: Callable[[int], Part | None],
        encoding: asyncio.Semaphore,
    ) -> None:
        self._spec = spec
        self._codec = codec
        self._sample_rate = sample_rate
        self._bitrate = bitrate
        self._part_bytes = part_bytes
        self._reader = reader
        self._parts = parts
        self._acknowledged = acknowledged
        self._encoding = encoding
        self._lock = asyncio.Lock()
        self._encoder: Encoder | None = None
        self._at = 0
        self._size = 0
        self._sum = 0
        self._differs: int | None = None
        self._goal = 0
        self._end: int | None = None
        self._ended = self._amid = False
        self._head = b""

    @property
    def samples(self) -> int:
        """How many samples of the output are encoded: they are not needed again, as a rule."""
        return self._at

    async def reach(self, samples: int, sent: int) -> tuple[int, bool]:
        """Encode up to a sample, or as far ahead of what is sent as is kept.

        Args:
            samples: All before it, of the output, are sealed.
            sent: Bytes up to which all parts behind part 1 are in the store.

        Returns:
            How many bytes there are, and whether the sample is reached.

        Raises:
            PartDiffers: A part in the store is not what is encoded now: make the upload anew.
            StoreError: A chunk that is not here any more cannot be read from the store.
        """
        async with self._lock:
            self._goal = max(self._goal, samples)
            most = sent + MAX_PARALLEL_PARTS * self._part_bytes
            while self._at < samples and self._size < most:
                await self._step(samples)
            return self._size, self._at >= samples

    async def total(self, samples: int) -> int:
        """Encode up to a sample, and end the file there; return its size.

        Raises:
            PartDiffers: See `reach`.
            StoreError: See `reach`.
        """
        async with self._lock:
            if self._end not in (None, samples) or self._at > samples:
                self._begin_anew()
            self._goal, self._end = samples, samples
            while not self._ended:
                await self._go_on()
            return self._size

    async def read(self, start: int, end: int, total: int | None) -> Body:
        """Return the file's bytes [start, end), which lie within one part.

        Raises:
            ValueError: The head is asked for and the length is not known.
            PartDiffers: See `reach`.
            StoreError: See `reach`.
        """
        number = start // self._part_bytes + 1
        if start == 0 and total is None:
            raise ValueError("the head is written when the length is known")
        async with self._lock:
            await self._have(number, end - start)
            while start == 0 and not self._ended:  # the head tells of all that was encoded now
                await self._go_on()
            if start == 0 and self._size != total:
                raise PartDiffers(f"{self._spec.file} became another when it was encoded anew")
            body = buffer(end - start)
            await self._reader.in_thread(lambda: self._parts.read(number, body))
            if start == 0:
                body[: len(self._head)] = self._head[: len(body)]
            return body

    def recognizes(self, head: bytes, tail: bytes) -> bool:
        """Return whether an object of this recording holds the same, encoded in another way.

        Whoever completes an object has won the manifest that says how long it is, so that its
        length shows that it is whole; FLAC's sum of the samples shows what it holds, too.
        """
        return self._end is not None and self._codec.is_same(
            head, tail, self._head, self._end, self._sample_rate
        )

    def sent(self, number: int) -> None:
        """Let go of a part that is in the store; of part 1 at the end, with all."""
        if number > 1:
            self._parts.drop(number)

    def close(self) -> None:
        """Let go of everything. Idempotent."""
        if self._encoder is not None:
            with suppress(Exception):  # what it had to say is not wanted any more
                self._encoder.abandon()
        self._encoder = None
        self._parts.clear()

    # ------------------------------------------------------------------------------------------

    async def _have(self, number: int, size: int) -> None:
        """Make sure that a part's bytes are there: where they are not any more, encode anew."""
        if self._parts.size(number) >= size:
            return
        made = min(self._size, number * self._part_bytes) - (number - 1) * self._part_bytes
        if self._ended or made > self._parts.size(number):
            self._begin_anew()
        while self._parts.size(number) < size:
            if self._ended or (self._end is None and self._at >= self._goal):
                raise PartDiffers(f"{self._spec.file} became another when it was encoded anew")
            await self._go_on()

    async def _go_on(self) -> None:
        if self._at < self._goal:
            await self._step(self._goal)
            return
        await self._work(self._finish)

    async def _step(self, until: int) -> None:
        """Encode the next samples, up to `until` at most."""
        origin = self._spec.first_sample
        end = origin + min(until, self._at + STEP_SAMPLES)

        def from_files() -> bool:
            try:
                for planes in self._reader.blocks(origin + self._at, end):
                    self._encode(planes)
            except (FileNotFoundError, NotADirectoryError):
                return False
            return True

        if not await self._work(from_files):
            planes = await self._reader.read(origin + self._at, end)
            await self._work(lambda: self._encode(planes))

    async def _work(self, work: Callable[[], object]) -> object:
        try:
            async with self._encoding:
                result = await self._reader.in_thread(work)
        except BaseException:
            if self._amid:  # how far the encoder has come is not known
                self._begin_anew()
            raise
        if self._differs is not None:
            number, self._differs = self._differs, None
            raise PartDiffers(f"part {number} of {self._spec.file} is encoded in another way now")
        return result

    def _encode(self, planes: Planes) -> None:
        encoder, frames = self._going(), self._spec.render(planes)
        self._amid = True
        self._take(encoder.write(frames))
        self._at += len(frames)
        self._amid = False

    def _finish(self) -> None:
        encoder = self._going()
        self._amid = True
        ending = encoder.close()
        self._take(ending.data)
        self._head, self._ended = ending.head, True
        self._encoder, self._amid = None, False

    def _going(self) -> Encoder:
        if self._encoder is None:
            channels = self._spec.channels
            self._encoder = self._codec.encoder(self._sample_rate, channels, self._bitrate)
        return self._encoder

    def _take(self, data: bytes) -> None:
        """Cut what is encoded into parts."""
        while data:
            number = self._size // self._part_bytes + 1
            piece, data = (
                data[: number * self._part_bytes - self._size],
                data[number * self._part_bytes - self._size :],
            )
            self._parts.append(number, piece)
            self._sum = crc64nvme(piece, self._sum)
            self._size += len(piece)
            if self._size == number * self._part_bytes:
                self._compare(number, self._sum)
                self._sum = 0

    def _compare(self, number: int, checksum: int) -> None:
        """Let a part go that is in the store already, if it is this."""
        part = self._acknowledged(number) if number > 1 else None
        if part is None:
            return
        if (part.size, part.checksum) == (self._part_bytes, checksum):
            self._parts.drop(number)
        elif self._differs is None:
            self._differs = number

    def _begin_anew(self) -> None:
        self.close()
        self._at = self._size = self._sum = 0
        self._differs = None
        self._ended = self._amid = False
