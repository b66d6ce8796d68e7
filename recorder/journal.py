"""The journal: what was accepted, in memory-mapped files that outlive the process.

Capture appends records (see `recorder.records`) to segment files of fixed size that were allocated
before they were mapped: writing through a mapping into a hole of a full disk would kill the process
by signal. The page cache keeps what was copied if the process dies the next instant.

The writer belongs to whoever captures, the reader to whoever seals. They share only the files, so
the reader works the same beside a living writer and after its death.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from recorder.quota import SpoolFull, SpoolQuota
from recorder.records import (
    COMMIT,
    COMMIT_OFFSET,
    END_OF_SEGMENT,
    HEADER,
    HEADER_BYTES,
    TIME,
    TIME_BYTES,
    Kind,
    Record,
    parse_record,
    record_size,
)

SEGMENT_BYTES = 1024 * 1024  # 13 s of a call's two tracks at 16 and 24 kHz

# The end of each segment is for marks, and the end of that for what a full spool must still take:
# that audio is being lost, once for each track there can be, and the stop.
LAST_BYTES = 24 * 1024
MARK_BYTES = LAST_BYTES + 8 * 1024
AUDIO_LIMIT = SEGMENT_BYTES - MARK_BYTES
MARK_LIMIT = SEGMENT_BYTES - LAST_BYTES
_LIMITS = dict.fromkeys(Kind, MARK_LIMIT)
_LIMITS |= {Kind.AUDIO: AUDIO_LIMIT, Kind.TIMED_AUDIO: AUDIO_LIMIT}
_LIMITS |= {Kind.LOST: SEGMENT_BYTES, Kind.STOP: SEGMENT_BYTES}
MAX_PAYLOAD = AUDIO_LIMIT - HEADER_BYTES - TIME_BYTES - 8


MADV_POPULATE_WRITE = 23
"""Linux `madvise(2)`; `mmap` has no name for it."""


def segment_path(folder: Path, number: int) -> Path:
    """Return the file of segment `number` (from 1)."""
    return folder / f"{number:08d}.journal"


class _Segment:
    """One mapped segment file."""

    def __init__(self, path: Path, *, create: bool, touch: bool = False) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL if create else os.O_RDONLY
        fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
        try:
            if create:
                os.posix_fallocate(fd, 0, SEGMENT_BYTES)
            access = mmap.ACCESS_WRITE if create else mmap.ACCESS_READ
            self.map = mmap.mmap(fd, SEGMENT_BYTES, access=access)
        except OSError:
            if create:
                path.unlink()
            raise
        finally:
            os.close(fd)
        if touch:  # here, and not by the frame path: a page's first touch can wait for the disk
            with contextlib.suppress(OSError):  # kernels before Linux 5.14, other systems
                self.map.madvise(MADV_POPULATE_WRITE)
        self.view = memoryview(self.map)

    def close(self) -> None:
        self.view.release()
        self.map.close()


class JournalWriter:
    """Appends records. The session holds its lock round every call but `prepare`.

    Args:
        folder: Where segments are; must exist.
        quota: Counts the bytes of segments.

    Raises:
        SpoolFull: The first segment cannot be allocated.
    """

    def __init__(self, folder: Path, quota: SpoolQuota) -> None:
        self._folder = folder
        self._quota = quota
        self._spare: _Segment | None = None
        self._allocating = threading.Lock()
        self._prepared = 0
        self._closed = False
        self._disk_full = ""
        self.number = 0
        self._current = self._allocate(touch=True)
        self.number = 1
        self._view = self._current.view
        self._offset = 0

    def append(
        self,
        kind: Kind,
        track: int,
        at_ns: int,
        written_ns: int,
        payload: bytes | memoryview = b"",
        sample_rate: int = 0,
        channels: int = 0,
        time_ns: int | None = None,
    ) -> None:
        """Copy one record into the journal; when this returns, it survives the process.

        Args:
            kind: What the record says.
            track: Track index.
            at_ns: Arrival, ns after the start.
            written_ns: Now, ns after the start.
            payload: At most `MAX_PAYLOAD` bytes.
            sample_rate: Hz, for audio.
            channels: For audio.
            time_ns: For the kinds that have one: see `recorder.records`.

        Raises:
            SpoolFull: No room for another segment; the record was not accepted.
        """
        length = len(payload)
        before = 0
        if time_ns is not None:
            before = TIME_BYTES
            length += TIME_BYTES
        size = (HEADER_BYTES + length + 7) & ~7
        offset = self._offset
        if offset + size > _LIMITS[kind]:
            self._roll()
            offset = 0
        start = offset + HEADER_BYTES
        view = self._view
        if time_ns is not None:
            TIME.pack_into(view, start, time_ns)
        view[start + before : start + length] = payload
        # The commit word is the header's last field, so it is stored after all the rest.
        HEADER.pack_into(
            view, offset, at_ns, written_ns, sample_rate, channels, kind, track, length, size
        )
        self._offset = offset + size

    def make_room(self, payload_bytes: int) -> None:
        """See to it that an audio record of this size, and marks before it, can follow.

        Raises:
            SpoolFull: No room for another segment.
        """
        if self._offset + record_size(payload_bytes + TIME_BYTES) + MARK_BYTES > AUDIO_LIMIT:
            self._roll()

    def prepare(self) -> None:
        """Allocate the next segment ahead of need, off the frame path.

        Raises:
            SpoolFull: No room.
        """
        with self._allocating:
            if self._spare is None and not self._closed:
                self._disk_full = ""
                self._spare = self._allocate(touch=True)

    @property
    def needs_spare(self) -> bool:
        """Whether `prepare` has something to do."""
        return self._spare is None and not self._closed

    def close(self) -> None:
        """Unmap; the files stay, but for a spare that holds nothing. Idempotent."""
        with self._allocating:
            if self._closed:
                return
            self._closed = True
            if self._spare is not None:
                self._spare.close()
                self._spare = None
                segment_path(self._folder, self._prepared).unlink(missing_ok=True)
                self._quota.give(SEGMENT_BYTES)
        self._view = memoryview(b"")
        self._offset = SEGMENT_BYTES
        self._current.close()

    def _roll(self) -> None:
        following = self._spare
        if following is None:
            # Faster than it could be prepared: allocate here, or wait for who is just doing so.
            with self._allocating:
                following = self._spare or self._allocate_now()
        self._spare = None
        if self._offset + HEADER_BYTES <= SEGMENT_BYTES:
            COMMIT.pack_into(self._view, self._offset + COMMIT_OFFSET, END_OF_SEGMENT)
        self._current.close()
        self._current, self._view, self._offset = following, following.view, 0
        self.number += 1

    def _allocate_now(self) -> _Segment:
        """Allocate on the frame path: a disk that has refused is asked again by `prepare` only."""
        if self._disk_full:
            raise SpoolFull(self._disk_full)
        return self._allocate()

    def _allocate(self, *, touch: bool = False) -> _Segment:
        path = segment_path(self._folder, self._prepared + 1)
        try:
            segment = self._quota.allocate(
                SEGMENT_BYTES, lambda: _Segment(path, create=True, touch=touch), self._folder
            )
        except SpoolFull as error:
            if isinstance(error.__cause__, OSError):
                self._disk_full = str(error)
            raise
        self._prepared += 1
        return segment


class JournalReader:
    """Reads committed records in order, from wherever it left off.

    Args:
        folder: Where segments are.
        segment: Number of the segment to begin in.
        offset: Byte in it to begin at.
    """

    def __init__(self, folder: Path, segment: int = 1, offset: int = 0) -> None:
        self._folder = folder
        self._segments: dict[int, _Segment] = {}
        self.segment = segment
        self.offset = offset
        self._stopped = False

    def stop(self) -> None:
        """Read no further: what follows is damaged. Segments can still be viewed."""
        self._stopped = True

    def read(self) -> Iterator[Record]:
        """Yield the records committed since the last call.

        Raises:
            ValueError: A segment is damaged.
        """
        while not self._stopped:
            view = self.view(self.segment)
            if view is None:
                return
            while (found := parse_record(view, self.segment, self.offset)) is not None:
                record, size = found
                self.offset += size
                yield record
            at_end = self.offset + HEADER_BYTES > SEGMENT_BYTES
            if not at_end:
                (commit,) = COMMIT.unpack_from(view, self.offset + COMMIT_OFFSET)
                if commit != END_OF_SEGMENT:
                    return
            if not segment_path(self._folder, self.segment + 1).exists():
                return
            self.segment += 1
            self.offset = 0

    def view(self, number: int) -> memoryview | None:
        """Return the bytes of a segment, or None if it is not there (yet, or any more)."""
        segment = self._segments.get(number)
        if segment is None:
            path = segment_path(self._folder, number)
            try:
                segment = _Segment(path, create=False)
            except FileNotFoundError:
                return None
            self._segments[number] = segment
        return segment.view

    def drop_before(self, number: int, quota: SpoolQuota) -> None:
        """Unmap and delete the segments before `number`: all in them is in sealed chunks."""
        for path in sorted(self._folder.glob("*.journal")):
            if int(path.stem) < number:
                old = self._segments.pop(int(path.stem), None)
                if old is not None:
                    old.close()
                path.unlink(missing_ok=True)
                quota.give(SEGMENT_BYTES)

    def close(self) -> None:
        """Unmap all segments. Idempotent, and from several threads at once."""
        with contextlib.suppress(KeyError):
            while True:
                self._segments.popitem()[1].close()


__all__ = ["MAX_PAYLOAD", "SEGMENT_BYTES", "JournalReader", "JournalWriter", "record_size"]
