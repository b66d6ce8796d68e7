"""Reads samples of sealed chunks: from the spool while they are there, else from the store."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from recorder.chunks import Chunk
from recorder.containers.wav import parse_header
from recorder.render import Samples
from uploader.checksum import crc64nvme
from uploader.errors import BotRecorderError, NoSuchObject

T = TypeVar("T")


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
        if not self._chunks or end > self._chunks[-1].end:
            raise IndexError(f"samples [{start}, {end}) are not sealed")
        index = bisect_right(self._chunks, start, key=_first_sample) - 1
        covering = []
        while index < len(self._chunks) and self._chunks[index].first_sample < end:
            covering.append(self._chunks[index])
            index += 1
        # Tracks only ever join, so the last chunk names all there are.
        tracks = covering[-1].tracks
        samples = np.zeros((len(tracks), end - start), dtype=np.int16)
        for chunk in covering:
            first, last = max(start, chunk.first_sample), min(end, chunk.end)
            begin, until = first - chunk.first_sample, last - chunk.first_sample
            part = await self._rows(chunk, begin, until)
            samples[: len(chunk.tracks), first - start : last - start] = part
        return Planes(samples, tracks)

    async def _rows(self, chunk: Chunk, begin: int, until: int) -> Samples:
        if chunk.lost or not chunk.tracks:
            return _silence(chunk, begin, until)
        path = self._path(chunk)

        def from_file() -> Samples:
            with path.open("rb") as file:
                offset = parse_header(file.read(4096)).data_offset
                width = 2 * len(chunk.tracks)
                file.seek(offset + begin * width)
                raw = np.fromfile(file, dtype="<i2", count=(until - begin) * len(chunk.tracks))
            return raw.reshape(-1, len(chunk.tracks)).T

        try:
            return await self.in_thread(from_file)
        except (FileNotFoundError, NotADirectoryError):
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
                ) from None
        raw = np.frombuffer(body, dtype="<i2", offset=parse_header(body[:4096]).data_offset)
        return raw.reshape(-1, len(chunk.tracks))[begin:until].T

    def _is_lost(self, chunk: Chunk) -> bool:
        return self._chunks[chunk.number - self._chunks[0].number].lost


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
