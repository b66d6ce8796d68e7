"""Seals chunks: journal in, immutable chunk files out. Runs in worker threads, one at a time.

A chunk is all tracks as channels of one WAV file, exactly the object it becomes in the bucket.
"""

from __future__ import annotations

import copy
import errno
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recorder.containers import container
from recorder.journal import JournalReader
from recorder.quota import SpoolFull, SpoolQuota
from recorder.records import HEADER_BYTES, Kind, Record
from recorder.render import Renderer, Samples
from recorder.spool import Spool
from recorder.timeline import Timeline
from uploader.checksum import crc64nvme, encode

_WITH_JSON = frozenset((Kind.TRACK, Kind.TURN_END, Kind.LOST, Kind.STOP))
WAV = container("wav")  # chunks stay lossless and playable whatever the outputs' container


@dataclass(frozen=True, slots=True)
class Chunk:
    """A sealed chunk.

    Attributes:
        number: From 1.
        first_sample: Its place on the recording's clock.
        samples: How many, per track.
        tracks: Names, in channel order.
        bytes: Size of the file.
        checksum: CRC-64/NVME of the file.
    """

    number: int
    first_sample: int
    samples: int
    tracks: tuple[str, ...]
    bytes: int
    checksum: int

    @property
    def end(self) -> int:
        """The sample behind its last."""
        return self.first_sample + self.samples

    def to_dict(self) -> dict[str, Any]:
        """Return the chunk as the manifest lists it."""
        return {
            "number": self.number,
            "first_sample": self.first_sample,
            "samples": self.samples,
            "tracks": list(self.tracks),
            "bytes": self.bytes,
            "checksum": encode(self.checksum),
        }


class Sealer:
    """Turns one recording's journal into chunk files. Not thread-safe: one call at a time.

    Args:
        spool: The recording's folder.
        quota: Counts the bytes of chunk files and freed segments.
        sample_rate: Of the recording, Hz.
        chunk_samples: Exact length of every chunk but the last.
        hold_back_seconds: See `recorder.timeline`.
    """

    def __init__(
        self,
        spool: Spool,
        quota: SpoolQuota,
        sample_rate: int,
        chunk_samples: int,
        hold_back_seconds: float,
    ) -> None:
        self.timeline = Timeline(sample_rate, hold_back_seconds)
        self.sealed: list[Chunk] = []
        self._spool = spool
        self._quota = quota
        self._chunk_samples = chunk_samples
        self._reader = JournalReader(spool.journal)
        self._renderer = Renderer(self.timeline, self._reader.view)

    @property
    def sealed_samples(self) -> int:
        """Samples in sealed chunks."""
        return self.sealed[-1].end if self.sealed else 0

    @property
    def finished(self) -> bool:
        """Whether all there is, is sealed."""
        return self.timeline.length is not None and self.sealed_samples >= self.timeline.length

    def chunk_path(self, number: int) -> Path:
        """Return the file of a chunk."""
        return self._spool.chunks / f"{number:06d}.wav"

    def step(
        self, now_ns: int, *, final: bool = False, rest: Sequence[tuple[Record, object]] = ()
    ) -> list[Chunk]:
        """Take in what capture has written and seal every chunk that is due.

        Args:
            now_ns: Now, ns after the recording's start: read before this call.
            final: No more will be written; seal everything.
            rest: Records, with their payloads, that no longer fit into the journal.

        Returns:
            The newly sealed chunks, in order.

        Raises:
            SpoolFull: No room for a chunk file; nothing is lost, the next call tries again.
        """
        self._take_in(self.timeline)
        for record, payload in rest:
            self.timeline.feed(record, payload)
        self.timeline.advance(now_ns, final=final)
        new: list[Chunk] = []
        try:
            while (end := self._next_end()) is not None:
                chunk = self._seal(self.sealed_samples, end)
                self.sealed.append(chunk)
                new.append(chunk)
        finally:
            if new:
                self._forget()
        return new

    def preview(self, start: int, end: int, now_ns: int) -> tuple[Samples, tuple[str, ...]]:
        """Return samples [start, end) behind the sealed ones, as they stand at this moment.

        What is not settled yet is placed by what is known now.

        Args:
            start: No sample before it.
            end: The sample behind the last.
            now_ns: Now, ns after the recording's start: read before this call.

        Returns:
            Shape (tracks, samples), and the tracks' names.
        """
        self._take_in(self.timeline)
        self.timeline.advance(now_ns)
        timeline, renderer = self.timeline, self._renderer
        if not renderer.ready(end):
            timeline = copy.deepcopy(timeline)
            timeline.advance(timeline.decided_ns, final=True)
            renderer = Renderer(timeline, self._reader.view)
        return renderer.planes(start, end), tuple(state.name for state in timeline.tracks)

    def close(self) -> None:
        """Unmap the journal."""
        self._reader.close()

    def discard(self) -> None:
        """Delete the journal: everything in it is durable elsewhere."""
        self._reader.drop_before(self._reader.segment + 2, self._quota)
        self._reader.close()

    def _take_in(self, timeline: Timeline) -> None:
        for record in self._reader.read():
            timeline.feed(record, self._payload(record) if record.kind in _WITH_JSON else None)

    def _payload(self, record: Record) -> object:
        view = self._reader.view(record.segment)
        if view is None:
            raise LookupError(f"journal segment {record.segment} is gone while it is read")
        return json.loads(bytes(view[record.offset : record.offset + record.length]))

    def _next_end(self) -> int | None:
        start, length = self.sealed_samples, self.timeline.length
        end = start + self._chunk_samples
        if length is not None:
            return min(end, length) if start < length else None
        return end if self._renderer.ready(end) else None

    def _seal(self, start: int, end: int) -> Chunk:
        planes = self._renderer.planes(start, end)
        tracks, samples = planes.shape
        header = WAV.header(samples, self.timeline.sample_rate, tracks)
        body = np.ascontiguousarray(planes.T)
        size = len(header) + body.nbytes
        number = len(self.sealed) + 1
        self._quota.take(size)
        try:
            self._write(self.chunk_path(number), header, body.data.cast("B"))
        except BaseException:
            self._quota.give(size)
            raise
        names = tuple(state.name for state in self.timeline.tracks)
        checksum = crc64nvme(body.data.cast("B"), crc64nvme(header))
        return Chunk(number, start, samples, names, size, checksum)

    def _write(self, path: Path, header: bytes, body: memoryview) -> None:
        temporary = path.with_suffix(".new")
        try:
            with temporary.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, len(header) + len(body))
                file.write(header)
                file.write(body)
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise SpoolFull(
                    f"no room for chunk {path.name} in spool {self._spool.path}",
                    hint="free disk space, or set RECORDER_SPOOL_DIR to a larger disk",
                ) from error
            raise

    def _forget(self) -> None:
        position = self.sealed_samples
        self.timeline.forget_before(position, self._renderer.needed_input(position))
        self._renderer.forget()
        self._checkpoint()
        oldest = self.timeline.oldest_segment(self._reader.segment)
        self._reader.drop_before(oldest, self._quota)

    def _checkpoint(self) -> None:
        """Note what a restart cannot read from the journal any more: it is about to shrink."""
        timeline = self.timeline
        self._spool.write_json(
            "checkpoint.json",
            {
                "version": 1,
                "sealed": [asdict(chunk) for chunk in self.sealed],
                "timeline": timeline.state(),
                "journal": self._undecided(),
            },
        )

    def _undecided(self) -> dict[str, int]:
        """Return where reading begins again: at the oldest record not decided on."""
        record = self.timeline.oldest_pending
        if record is None:
            return {"segment": self._reader.segment, "offset": self._reader.offset}
        return {"segment": record.segment, "offset": record.offset - HEADER_BYTES}
