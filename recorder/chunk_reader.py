"""Reads samples of sealed chunks: from the spool while they are there, else from the store."""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

import numpy as np

from recorder.chunks import Chunk
from recorder.containers.wav import parse_header
from recorder.render import Samples
from uploader.checksum import crc64nvme
from uploader.errors import BotRecorderError, NoSuchObject

T = TypeVar("T")

BLOCK_SAMPLES = 1 << 16
"""So many are read at a time where much is: what is in the processor's cache costs less."""


@dataclass(frozen=True, slots=True)
class Planes:
    """Samples of all tracks over one range.

    Attributes:
        samples: Shape (tracks, samples).
        tracks: Names, in row order.
    """

    samples: Samples
    tracks: tuple[str, ...]


class DamagedChunk(BotRecorderError):
    """A chunk, its object or its file, has other bytes than were recorded."""


class InThread(Protocol):
    """Runs a function on a worker thread."""

    async def __call__(self, function: Callable[[], T], /) -> T:
        """Return what it returns."""
        ...


class ChunkReader:
    """Samples by their position on the recording's clock.

    Args:
        chunks: The sealed chunks, in order; may grow.
        path: File of a chunk in the spool.
        fetch: Reads a chunk object from the store.
        in_thread: Runs file work off the event loop.
        gone: Told of a chunk that is neither in the spool nor in the store: it is silence.
    """

    def __init__(
        self,
        chunks: list[Chunk],
        path: Callable[[Chunk], Path],
        fetch: Callable[[Chunk], Awaitable[bytes]],
        in_thread: InThread,
        gone: Callable[[int], None],
    ) -> None:
        self._chunks = chunks
        self._path = path
        self._fetch = fetch
        self.in_thread = in_thread
        self._gone = gone

    async def read(self, start: int, end: int) -> Planes:
        """Return samples [start, end), all of which must be sealed.

        Raises:
            IndexError: They are not.
            StoreError: A chunk is only in the store, and cannot be read there.
        """
        wanted = self._wanted(start, end)
        # Tracks only ever join, so the last chunk names all there are.
        tracks = wanted[-1][0].tracks

        def from_files() -> list[Samples | None]:
            rows = [self._from_file(*one) for one in wanted]
            there = [row for row in rows if row is not None]
            return [_joined(there, len(tracks))] if len(there) == len(rows) else rows

        rows = await self.in_thread(from_files)
        if len(rows) == 1 and rows[0] is not None:
            return Planes(rows[0], tracks)
        found = [
            await self._elsewhere(*one) if row is None else row
            for one, row in zip(wanted, rows, strict=True)
        ]
        return Planes(await self.in_thread(lambda: _joined(found, len(tracks))), tracks)

    def blocks(self, start: int, end: int) -> Iterator[Planes]:
        """Yield samples [start, end) a block at a time, each to be used before the next.

        Blocking, for a worker thread: a part that is read and laid out in one go is in memory
        several times.

        Raises:
            IndexError: They are not sealed.
            FileNotFoundError: A chunk has no file here: `read` finds it elsewhere.
            DamagedChunk: A file is cut off.
        """
        wanted = self._wanted(start, end)
        tracks = wanted[-1][0].tracks
        planes = np.empty((len(tracks), min(BLOCK_SAMPLES, end - start)), np.int16)
        for chunk, begin, until in wanted:
            with contextlib.ExitStack() as stack:
                file = None
                if chunk.tracks and not chunk.lost:
                    file = stack.enter_context(self._path(chunk).open("rb"))
                    _seek(file, chunk, begin)
                for first in range(begin, until, BLOCK_SAMPLES):
                    block = planes[:, : min(BLOCK_SAMPLES, until - first)]
                    block.fill(0)
                    if file is not None:
                        _fill(block[: len(chunk.tracks)], file)
                    yield Planes(block, tracks)

    def _wanted(self, start: int, end: int) -> list[tuple[Chunk, int, int]]:
        """Return the chunks with samples [start, end), and which of each one's own those are."""
        if not self._chunks or end > self._chunks[-1].end:
            raise IndexError(f"samples [{start}, {end}) are not sealed")
        index = bisect_right(self._chunks, start, key=_first_sample) - 1
        wanted = []
        while index < len(self._chunks) and self._chunks[index].first_sample < end:
            chunk = self._chunks[index]
            first, last = max(start, chunk.first_sample), min(end, chunk.end)
            wanted.append((chunk, first - chunk.first_sample, last - chunk.first_sample))
            index += 1
        return wanted

    async def copy(
        self, start: int, width: int, target: memoryview, is_plain: Callable[[Sequence[str]], bool]
    ) -> bool:
        """Fill `target` with frames just as the chunk files have them.

        Args:
            start: The first byte that is wanted, counted from the recording's sample 0.
            width: Bytes of a frame.
            target: As many bytes as are wanted.
            is_plain: Whether the frames of these tracks have that width, and will do as they are.

        Returns:
            Whether all were there, and would do: if not, `read` gives the samples.
        """
        return await self.in_thread(lambda: self._copied(start, width, target, is_plain))

    def _copied(
        self, start: int, width: int, target: memoryview, is_plain: Callable[[Sequence[str]], bool]
    ) -> bool:
        filled = 0
        index = bisect_right(self._chunks, start // width, key=_first_sample) - 1
        for chunk in self._chunks[max(0, index) :]:
            if filled == len(target):
                break
            begin = start + filled - chunk.first_sample * width
            if begin < 0 or chunk.lost or not is_plain(chunk.tracks):
                return False
            size = min(len(target) - filled, chunk.samples * width - begin)
            try:
                with self._path(chunk).open("rb", buffering=0) as file:
                    file.seek(chunk.bytes - chunk.samples * width + begin)
                    if file.readinto(target[filled : filled + size]) != size:
                        return False
            except (FileNotFoundError, NotADirectoryError):
                return False
            filled += size
        return filled == len(target)

    def _from_file(self, chunk: Chunk, begin: int, until: int) -> Samples | None:
        """Return a chunk's samples; None if there is no file."""
        if chunk.lost or not chunk.tracks:
            return _silence(chunk, begin, until)
        width = len(chunk.tracks)
        try:
            with self._path(chunk).open("rb") as file:
                _seek(file, chunk, begin)
                raw = np.fromfile(file, dtype="<i2", count=(until - begin) * width)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return raw.reshape(-1, width).T

    async def _elsewhere(self, chunk: Chunk, begin: int, until: int) -> Samples:
        """Return a chunk's samples that has no file: from the store, or silence."""
        if self._is_lost(chunk):  # by now: the spool was full
            return _silence(chunk, begin, until)
        try:
            body = await self._fetch(chunk)
        except NoSuchObject:
            self._gone(chunk.number)
            return _silence(chunk, begin, until)
        if crc64nvme(body) != chunk.checksum:
            raise DamagedChunk(
                f"chunk {chunk.number} in the store is not what was recorded",
                hint="restore the object from an older version; nothing was replaced",
            )
        raw = np.frombuffer(body, dtype="<i2", offset=parse_header(body[:4096]).data_offset)
        return raw.reshape(-1, len(chunk.tracks))[begin:until].copy().T  # the rest may go

    def _is_lost(self, chunk: Chunk) -> bool:
        return self._chunks[chunk.number - self._chunks[0].number].lost


def _joined(rows: list[Samples], tracks: int) -> Samples:
    """Return samples one behind the other; tracks that joined later are silent before."""
    samples = np.zeros((tracks, sum(row.shape[1] for row in rows)), dtype=np.int16)
    at = 0
    for row in rows:
        samples[: len(row), at : at + row.shape[1]] = row
        at += row.shape[1]
    return samples


def _seek(file: BinaryIO, chunk: Chunk, sample: int) -> None:
    """Go to where a chunk's sample lies in its file."""
    offset = parse_header(file.read(4096)).data_offset
    file.seek(offset + sample * 2 * len(chunk.tracks))


def _fill(planes: Samples, file: BinaryIO) -> None:
    """Read so many samples of all tracks.

    Raises:
        DamagedChunk: There are fewer.
    """
    raw = np.fromfile(file, dtype="<i2", count=planes.size)
    if raw.size < planes.size:
        raise DamagedChunk(f"{file.name} is cut off")
    for index, plane in enumerate(planes):
        plane[:] = raw[index :: len(planes)]


def _silence(chunk: Chunk, begin: int, until: int) -> Samples:
    return np.zeros((len(chunk.tracks), until - begin), dtype=np.int16)


def _first_sample(chunk: Chunk) -> int:
    return chunk.first_sample


def joined(older: Planes, fresh: Planes) -> Planes:
    """Return older samples and fresh ones behind them; tracks that joined are silent before."""
    before, after = older.samples.shape[1], fresh.samples.shape[1]
    samples = np.zeros((len(fresh.tracks), before + after), dtype=np.int16)
    samples[: len(older.tracks), :before] = older.samples
    samples[:, before:] = fresh.samples
    return Planes(samples, fresh.tracks)
