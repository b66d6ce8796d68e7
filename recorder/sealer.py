"""Seals chunks: journal in, immutable chunk files out. Runs in worker threads, one at a time.

A chunk is all tracks as channels of one WAV file, exactly the object it becomes in the bucket.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from loguru import logger

from recorder.buffers import buffer
from recorder.chunks import OPEN_CHUNK, Chunk
from recorder.containers import container
from recorder.journal_format import Rows
from recorder.journal_reader import JournalReader
from recorder.mapped import Mapped
from recorder.plan import Plan
from recorder.quota import NO_ROOM, SpoolFull, SpoolQuota
from recorder.records import NO_TRACK, Kind, Record
from recorder.render import Renderer, Samples
from recorder.reserve import Begun, Reserve
from recorder.spool import Spool
from recorder.timeline import NS, Timeline
from uploader.checksum import combine, crc64nvme
from uploader.errors import BotRecorderError
from uploader.store import Body

_WITH_JSON = np.zeros(256, np.bool_)  # by kind
_WITH_JSON[[Kind.TRACK, Kind.TURN_END, Kind.LOST, Kind.STOP]] = True
CHECKPOINT = "checkpoint.json"
CHECKPOINT_VERSION = 2
RESERVE = "reserve"
CHECKPOINT_BYTES = 64 * 1024
"""What the reserve has beyond a chunk: it is free again when the checkpoint is written."""

BLOCK_SAMPLES = 1 << 16
"""So many are rendered and written at a time: what is in the processor's cache costs less."""

MOST_SPARES = 3
"""Journal segments that are used again: about as many as a chunk frees."""

LIKELY_TRACKS = 2
"""How many tracks room is set aside for before any is known."""

WAV = container("wav")  # chunks stay lossless and playable whatever the outputs' container


class Sealer:
    """Turns one recording's journal into chunk files. Not thread-safe: one call at a time.

    Args:
        spool: The recording's folder.
        quota: Counts the bytes of chunk files and freed segments.
        plan: What is recorded.

    Attributes:
        timeline: See `recorder.chunks.Contents`.
        sealed: Likewise.
        in_store: Likewise.
        reserve: Room for the next chunk.
        mapped: The journal's segments, for its writer, too.
    """

    def __init__(self, spool: Spool, quota: SpoolQuota, plan: Plan) -> None:
        self.timeline = Timeline(plan.sample_rate, plan.hold_back_seconds, plan.stall_seconds)
        self.sealed: list[Chunk] = []
        self.in_store = 0
        self._spool = spool
        self._quota = quota
        self._chunk_samples = plan.chunk_samples
        self.mapped = Mapped()
        self._reader = JournalReader(spool.journal, mapped=self.mapped)
        self._renderer = Renderer(self.timeline, self._reader.view)
        self._last_written_ns = 0
        self.reserve = Reserve(spool.path / RESERVE, quota)
        self._drop = True
        self._unnoted = False
        self._noted: list[tuple[Chunk, str]] = []
        self._log = logger.bind(recording_id=plan.recording_id)

    def set_room_aside(self) -> None:
        """See to it that the next chunk can be sealed when the disk is full; if there is room."""
        tracks = max(LIKELY_TRACKS, len(self.timeline.tracks))
        size = len(WAV.header(0, self.timeline.sample_rate, tracks))
        size += self._chunk_samples * tracks * 2
        self.reserve.try_to_grow(size + CHECKPOINT_BYTES)

    def restore(self) -> None:
        """Go on where an earlier process stopped, from its last checkpoint.

        Raises:
            BotRecorderError: The checkpoint is damaged.
            OSError: It cannot be read.
        """
        self._drop = False  # what is older than this process is no reason to lose what is newer
        state = self._spool.read_json(CHECKPOINT)
        if state is None:
            return
        if state.get("version") != CHECKPOINT_VERSION:
            raise BotRecorderError(
                f"{self._spool.path / CHECKPOINT} has version {state.get('version')!r}, this "
                f"program reads {CHECKPOINT_VERSION}",
                hint="finish the recording with the version that made it",
            )
        try:
            self.sealed[:] = [
                Chunk(**{**chunk, "tracks": tuple(chunk["tracks"])}) for chunk in state["sealed"]
            ]
            self.timeline.restore(state["timeline"])
            journal = state["journal"]
            self._reader = JournalReader(
                self._spool.journal, journal["segment"], journal["slot"], mapped=self.mapped
            )
            self._last_written_ns = journal["written_ns"]
        except (KeyError, TypeError, ValueError) as error:
            raise BotRecorderError(
                f"{self._spool.path / CHECKPOINT} is damaged: {error}"
            ) from error
        self._renderer = Renderer(self.timeline, self._reader.view)

    def seal_all(self) -> None:
        """Seal everything an earlier process accepted; where it was cut off, that is the end.

        Raises:
            SpoolFull: No room for a chunk file; nothing is lost, the next call tries again.
        """
        damage = ""
        try:
            self._take_in()
        except ValueError as error:  # what follows cannot be read: it is said so, and it is not all
            damage = str(error)
            self._reader.stop()
        timeline = self.timeline
        if timeline.length is None and not timeline.stopping:
            sealed_ns = -(-self.sealed_samples * NS // timeline.sample_rate)
            end = max(self._last_written_ns, sealed_ns)
            if damage:
                timeline.advance(end, final=True)  # which tracks there are
                for state in timeline.tracks:
                    reason = {"track": state.name, "frames": 0, "reason": damage, "open": True}
                    timeline.feed(_mark(Kind.LOST, end), reason)
            timeline.feed(_mark(Kind.STOP, end), {"discard_unheard": False})
        self.step(self._last_written_ns, final=True)

    @property
    def sealed_samples(self) -> int:
        """Samples in sealed chunks."""
        return self.sealed[-1].end if self.sealed else 0

    @property
    def finished(self) -> bool:
        """Whether all there is, is sealed."""
        return self.timeline.length is not None and self.sealed_samples >= self.timeline.length

    def chunk_path(self, chunk: Chunk) -> Path:
        """Return the file of a chunk."""
        return self._spool.chunks / chunk.name

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
        self._take_in()
        for record, payload in rest:
            self.timeline.feed(record, payload)
        self._advance(now_ns, final=final)
        new: list[Chunk] = []
        try:
            while (end := self._next_end()) is not None:
                chunk = self._seal(self.sealed_samples, end)
                self.sealed.append(chunk)
                new.append(chunk)
        finally:
            if new or self._unnoted:
                self._forget()
        if self.finished:
            self.reserve.drop()
        elif new:
            self.set_room_aside()
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
        self._take_in()
        self._advance(now_ns)
        timeline, renderer = self.timeline, self._renderer
        if not renderer.ready(end):
            timeline = timeline.copy()
            timeline.advance(timeline.decided_ns, final=True)
            renderer = Renderer(timeline, self._reader.view)
        return renderer.planes(start, end), tuple(state.name for state in timeline.tracks)

    def open_chunk(self, now_ns: int, samples: int) -> tuple[Chunk, Body] | None:
        """Return what the open chunk will begin with.

        Args:
            now_ns: Now, ns after the recording's start: read before this call.
            samples: How many samples of it.

        Returns:
            They as a chunk, whose number is the one it will have, and its file's bytes. None where
            they are not settled, or the chunk is due to be sealed.
        """
        start = self.sealed_samples
        if not samples <= self.settled(now_ns) - start < self._chunk_samples:
            return None
        chunk = self._chunk(start, start + samples)
        header, body = self._header(chunk), buffer(chunk.bytes)
        at = len(header)
        body[:at] = header
        frames = body[at:]
        for part in self._frames(start, chunk.end):
            body[at : at + len(part)] = part
            at += len(part)
        checksum = crc64nvme(frames)
        # The chunk begins with the same frames: they are put where its file has them.
        whole = self._chunk(start, start + self._chunk_samples)
        offset = len(self._header(whole))
        self.reserve.begin(
            Begun(start, samples, chunk.tracks, offset, len(frames), checksum), frames
        )
        checksum = combine([(crc64nvme(header), len(header)), (checksum, len(frames))])
        return replace(chunk, checksum=checksum, file=OPEN_CHUNK), body

    def settled(self, now_ns: int) -> int:
        """Return up to which sample nothing changes any more, and all can be rendered.

        Args:
            now_ns: Now, ns after the recording's start: read before this call.
        """
        self._take_in()
        self._advance(now_ns)
        return max(self.sealed_samples, self._renderer.ready_until())

    def close(self) -> None:
        """Unmap the journal; what is read of it later is mapped again."""
        self._reader.close()

    def _take_in(self) -> None:
        for rows in self._reader.batches():
            told = np.flatnonzero(_WITH_JSON[rows["kind"]]).tolist()
            self.timeline.feed_rows(rows, {index: self._payload(rows, index) for index in told})
            self._last_written_ns = max(self._last_written_ns, int(rows["written_ns"].max()))

    def _advance(self, now_ns: int, *, final: bool = False) -> None:
        self.timeline.advance(now_ns, final=final)
        # A gap that was noted when it began is one with what was noted when it ended.
        lost = self.timeline.lost
        ended = {(gap.track, gap.start) for gap in lost if gap.end is not None}
        for gap in [gap for gap in lost if gap.end is None and (gap.track, gap.start) in ended]:
            lost.remove(gap)

    def _payload(self, rows: Rows, index: int) -> object:
        row = rows[index]
        view = self._reader.view(int(row["segment"]))
        if view is None:
            raise LookupError(f"journal segment {row['segment']} is gone while it is read")
        offset = int(row["offset"])
        return json.loads(bytes(view[offset : offset + int(row["length"])]))

    def _next_end(self) -> int | None:
        start, length = self.sealed_samples, self.timeline.length
        end = start + self._chunk_samples
        if length is not None:
            return min(end, length) if start < length else None
        return end if self._renderer.ready(end) else None

    def _seal(self, start: int, end: int) -> Chunk:
        chunk = self._chunk(start, end)
        checksum = 0

        def write(file: BinaryIO, begun: Begun | None) -> None:
            nonlocal checksum
            header, first = self._header(chunk), start
            file.write(header)
            checksum = crc64nvme(header)
            if begun is not None and self._begins(chunk, len(header), begun):
                first += begun.samples
                checksum = combine([(checksum, len(header)), (begun.checksum, begun.size)])
                file.seek(begun.size, os.SEEK_CUR)
            for part in self._frames(first, end):
                file.write(part)
                checksum = crc64nvme(part, checksum)

        try:
            self.reserve.grow(chunk.bytes, drop=False)
        except SpoolFull:
            self._reader.drop_before(0, self._quota)  # spares
            self.reserve.grow(chunk.bytes, drop=self._drop)
        self.reserve.become(self.chunk_path(chunk), chunk.bytes, write)
        return replace(chunk, checksum=checksum)

    def _begins(self, chunk: Chunk, offset: int, begun: Begun) -> bool:
        """Return whether a chunk's file begins with what is there already."""
        there = (begun.start, begun.tracks, begun.offset)
        return (
            there == (chunk.first_sample, chunk.tracks, offset) and begun.samples <= chunk.samples
        )

    def _chunk(self, start: int, end: int) -> Chunk:
        """Return what is known of a chunk of samples [start, end) before it is rendered."""
        names = tuple(state.name for state in self.timeline.tracks)
        chunk = Chunk(len(self.sealed) + 1, start, end - start, names, 0, 0)
        size = len(self._header(chunk)) + self._frame_bytes(chunk.samples)
        return replace(chunk, bytes=size)

    def _header(self, chunk: Chunk) -> bytes:
        channels = max(1, len(chunk.tracks))  # if nobody has joined yet: a file needs one
        return WAV.header(chunk.samples, self.timeline.sample_rate, channels)

    def _frame_bytes(self, samples: int) -> int:
        return 2 * max(1, len(self.timeline.tracks)) * samples

    def _frames(self, start: int, end: int) -> Iterator[memoryview]:
        """Yield a chunk's frames [start, end) as bytes, each piece to be used before the next."""
        tracks = len(self.timeline.tracks)
        most = min(BLOCK_SAMPLES, end - start)
        frames = np.zeros((most, max(1, tracks)), np.int16)
        planes = frames[:, :tracks].T  # each is put straight into its channel
        for first in range(start, end, BLOCK_SAMPLES):
            count = min(BLOCK_SAMPLES, end - first)
            self._renderer.planes(first, first + count, planes[:, :count])
            yield frames[:count].data.cast("B")

    def _forget(self) -> None:
        position = self.sealed_samples
        self.timeline.forget_before(position, self._renderer.needed_input(position))
        self._renderer.forget()
        if self._checkpoint():
            oldest = self.timeline.oldest_segment(self._reader.segment)
            going_on = self._drop and self.timeline.length is None
            spares = MOST_SPARES if going_on and self._quota.roomy else 0
            self._reader.drop_before(oldest, self._quota, spares=spares)

    def _checkpoint(self) -> bool:
        """Note what a restart cannot read from the journal once it shrinks; return whether it may.

        Where that cannot be written, the journal stays as it is, and the next look tries again.
        """
        sealed = self._sealed_as_json()  # before gaps: a chunk lost by now has its gap among them
        document = {
            "version": CHECKPOINT_VERSION,
            "timeline": self.timeline.state(),
            "journal": self._undecided(),
        }
        text = f'{{"sealed": [{sealed}], {json.dumps(document)[1:]}'
        write = partial(self._spool.write, CHECKPOINT, text)
        try:
            try:
                write()
            except OSError as error:
                room = error.errno in NO_ROOM and self._quota.make_room(1, drop=self._drop)
                if not room:
                    raise
                write()
        except OSError as error:
            if not self._unnoted:
                self._log.error("the journal stays as it is: no checkpoint: {}", error)
            self._unnoted = True
            return False
        self._unnoted = False
        return True

    def _sealed_as_json(self) -> str:
        """Return the sealed chunks; each is made into text once, unless it becomes another."""
        noted = self._noted
        for index, chunk in enumerate(self.sealed):
            if index == len(noted):
                noted.append((chunk, json.dumps(chunk.state())))
            elif noted[index][0] is not chunk:
                noted[index] = chunk, json.dumps(chunk.state())
        return ", ".join([text for _, text in noted])

    def _undecided(self) -> dict[str, int]:
        """Return where reading begins again: at the oldest record not decided on.

        And when the newest record was written: a recording that is cut off ends there.
        """
        record = self.timeline.oldest_pending
        segment, slot = self._reader.segment, self._reader.slot
        if record is not None:
            segment, slot = record.segment, record.slot
        return {"segment": segment, "slot": slot, "written_ns": self._last_written_ns}


def _mark(kind: Kind, at_ns: int) -> Record:
    return Record(kind, NO_TRACK, at_ns, at_ns, 0, 0, 0, 0, 0)
