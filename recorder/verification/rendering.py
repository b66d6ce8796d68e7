"""Makes the samples of outputs and clips again from chunk objects: the strongest proof there is.

Each chunk is read once. What its samples become in each output is only summed up, as a checksum to
compare with the output's; if those differ, both are read once more to say where.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np

from recorder.chunk_reader import Planes
from recorder.outputs import OutputSpec
from recorder.render import Samples
from recorder.verification.claims import Claims, ListedChunk
from recorder.verification.decoding import EncodedScan
from recorder.verification.examination import Examiner
from recorder.verification.objects import Objects, Piece, pieces
from recorder.verification.report import Proof
from recorder.verification.scan import Scan, Wanted
from uploader.checksum import crc64nvme

_BLOCK = 65_536  # samples rendered at a time, however many tracks there are


@dataclass(slots=True)
class Rendition:
    """The samples of one output or clip, as the chunks have them: their bytes, summed up.

    Attributes:
        spec: What it is made of.
        start: The next sample, on the recording's clock.
        end: The sample behind the last.
        checksum: CRC-64/NVME of the samples so far.
        length: Their bytes.
    """

    spec: OutputSpec
    start: int
    end: int
    checksum: int = 0
    length: int = 0

    def take(self, planes: Planes, position: int) -> None:
        """Take samples from `position` on; what no chunk had before them is silence."""
        until = min(self.end, position + planes.samples.shape[1])
        if until <= self.start:
            return
        self.be_silent(position)
        first = self.start - position
        samples = planes.samples[:, first : until - position]
        self._add(pcm(self.spec, Planes(samples, planes.tracks)))

    def be_silent(self, until: int) -> None:
        """Take silence for the samples up to `until`."""
        while (count := min(until, self.end, self.start + _BLOCK) - self.start) > 0:
            self._add(np.zeros((count, self.spec.channels), dtype="<i2"))

    def _add(self, frames: Samples) -> None:
        self.checksum = crc64nvme(frames.data.cast("B"), self.checksum)
        self.length += frames.nbytes
        self.start += len(frames)


class Rendering:
    """Chunk objects of one recording, and what becomes of them.

    Args:
        claims: What should be there.
        objects: Reads them.
        examiner: Judges them.

    Attributes:
        proofs: The chunk objects that are what they should be.
        made: What the chunks make of outputs and clips, by key; empty if some chunk is not as it
            should be.
    """

    def __init__(self, claims: Claims, objects: Objects, examiner: Examiner) -> None:
        self.proofs: list[Proof] = []
        self.made: dict[str, Rendition] = {}
        self._claims = claims
        self._objects = objects
        self._examiner = examiner
        self._there: list[ListedChunk] = []

    async def run(self, targets: Iterable[Wanted]) -> None:
        """Read and judge the chunk objects, and render what they make of the targets.

        Raises:
            StoreError: The store refuses, or does not answer.
        """
        expected = [chunk for chunk in self._claims.chunks if not chunk.lost]
        infos = await self._examiner.heads([chunk.wanted for chunk in expected])
        self._there = [chunk for chunk in expected if chunk.wanted.key in infos]
        made: dict[str, Rendition] = {}
        if self._claims.whole and self._there == expected:
            made = {one.key: rendition for one in targets if (rendition := self._begun(one))}
        scans: dict[str, Scan] = {}

        def take(chunk: ListedChunk, data: bytes) -> None:
            scan = scans.setdefault(chunk.wanted.key, Scan())
            position = chunk.first_sample + scan.samples
            frames = scan.feed(data)
            for at, planes in self._planes(chunk, frames):
                for rendition in made.values():
                    rendition.take(planes, position + at)

        async with aclosing(self._stream(self._there)) as stream:
            async for chunk, data in stream:
                await asyncio.to_thread(take, chunk, data)
        for rendition in made.values():
            await asyncio.to_thread(rendition.be_silent, rendition.end)
        for chunk in self._there:
            key = chunk.wanted.key
            scan = scans.get(key, Scan())
            if self._examiner.judge(chunk.wanted, infos[key], scan):
                self.proofs.append(scan.proof(chunk.wanted))
        if len(self.proofs) == len(expected):
            self.made = made

    async def difference(self, target: Wanted, object_scan: Scan) -> str:
        """Return where an object's samples differ from the chunks'; empty if they do not.

        Args:
            target: The object.
            object_scan: What was read of it.

        Raises:
            StoreError: The store refuses, or does not answer.
        """
        spec = target.spec
        if spec is None:
            return ""
        begin, end = target.first_sample, target.first_sample + (target.samples or 0)
        scans: dict[str, Scan] = {}
        async with aclosing(self._stream(self._there, again=True)) as stream:
            async for chunk, data in stream:
                scan = scans.setdefault(chunk.wanted.key, Scan())
                position = chunk.first_sample + scan.samples
                for at, planes in self._planes(chunk, scan.feed(data)):
                    first = max(begin, position + at)
                    last = min(end, position + at + planes.samples.shape[1])
                    if first >= last:
                        continue
                    found = await self._found(target, object_scan, first - begin, last - begin)
                    inside = slice(first - position - at, last - position - at)
                    wrong = _wrong(spec, planes, len(chunk.tracks), inside, found)
                    if wrong is not None:
                        sample = first - begin + wrong
                        seconds = sample / max(1, target.sample_rate)
                        return f"not those of its chunks from sample {sample} ({seconds:.3f} s) on"
        return ""

    async def _found(self, target: Wanted, scan: Scan, first: int, last: int) -> Samples:
        """Return an object's samples [first, last), interleaved; fewer if there are fewer."""
        if isinstance(scan, EncodedScan):
            blocks = await asyncio.to_thread(lambda: list(scan.frames(first, last)))
            return np.concatenate([np.zeros(0, "<i2"), *(block.reshape(-1) for block in blocks)])
        width = 2 * target.channels
        offset = scan.info.data_offset if scan.info else 0
        piece = Piece(target.key, offset + first * width, offset + last * width)
        return np.frombuffer(await self._objects.get(piece), dtype="<i2")

    def _begun(self, target: Wanted) -> Rendition | None:
        spec, samples = target.spec, target.samples
        if spec is None or samples is None:
            return None
        if target.codec is not None and not target.codec.lossless:
            return None  # decoded samples are never those that were encoded
        if target.codec is None and 2 * spec.channels * samples > (target.bytes or 0):
            return None  # a contradiction, told before; the object is as long as it says
        if spec.layout == "track" and spec.track not in self._claims.tracks:
            return None
        return Rendition(spec, target.first_sample, target.first_sample + samples)

    async def _stream(
        self, chunks: Sequence[ListedChunk], *, again: bool = False
    ) -> AsyncGenerator[tuple[ListedChunk, bytes], None]:
        by_key = {chunk.wanted.key: chunk for chunk in chunks}
        wanted = (piece for key, chunk in by_key.items() for piece in _pieces(key, chunk))
        async with aclosing(self._objects.stream(wanted, again=again)) as stream:
            async for piece, data in stream:
                yield by_key[piece.key], data

    def _planes(self, chunk: ListedChunk, frames: Samples | None) -> Iterator[tuple[int, Planes]]:
        """Yield frames as planes of all tracks, each block with where in the frames it begins."""
        tracks = self._claims.tracks
        joined = len(chunk.tracks)
        if frames is None or frames.shape[1] != max(1, joined) or len(tracks) < joined:
            return  # a finding
        for at in range(0, len(frames), _BLOCK):
            block = frames[at : at + _BLOCK].T[:joined]
            planes = np.zeros((len(tracks), block.shape[1]), dtype=np.int16)
            planes[: len(block)] = block
            yield at, Planes(planes, tracks)


def pcm(spec: OutputSpec, planes: Planes) -> Samples:
    """Return samples laid out as in the object, shape (samples, channels)."""
    return np.ascontiguousarray(spec.render(planes), dtype="<i2")


def _pieces(key: str, chunk: ListedChunk) -> Iterable[Piece]:
    return pieces(key, chunk.wanted.bytes or 0)


def _wrong(
    spec: OutputSpec, planes: Planes, joined: int, inside: slice, found: Samples
) -> int | None:
    """Return the first sample that is not what the planes make of it, or None.

    Tracks join with their first frame. Which of them count as there, a moment before, depends on
    what was rendered together: those of the chunk alone (the first `joined`), or all.
    """
    good = np.zeros(inside.stop - inside.start, dtype=bool)
    for count in {joined, len(planes.tracks)}:
        if spec.layout == "track" and spec.track not in planes.tracks[:count]:
            continue
        some = Planes(planes.samples[:count, inside], planes.tracks[:count])
        expected = pcm(spec, some)
        if found.size != expected.size:
            return 0  # it became shorter while it was read
        good |= (found.reshape(expected.shape) == expected).all(axis=1)
    return None if good.all() else int(good.argmin())
