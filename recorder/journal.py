"""The journal: what was accepted, in memory-mapped files that outlive the process.

Capture appends records (see `recorder.journal_format`) to segment files of fixed size that were
allocated before they were mapped: writing through a mapping into a hole of a full disk would kill
the process by signal. The page cache keeps what was copied if the process dies the next instant.

The writer belongs to whoever captures, the reader to whoever seals (see `recorder.journal_reader`).
They share only the files, and in one process their mappings.
"""

from __future__ import annotations

import threading
from pathlib import Path

from recorder.journal_format import (
    COMMIT,
    COMMIT_OFFSET,
    END_OF_SEGMENT,
    EXTENT_BYTES,
    HEADER,
    HEADER_BYTES,
    LAST_BYTES,
    LAST_SLOTS,
    MARK_BYTES,
    MARK_SLOTS,
    SEGMENT_BYTES,
    TABLE_AT,
    TABLE_BYTES,
    TABLE_END,
    Kind,
    check,
    form,
)
from recorder.mapped import Mapped
from recorder.quota import SpoolFull, SpoolQuota
from recorder.segments import SPARE, Segment, segment_path

_RESERVED = dict.fromkeys(Kind, (LAST_BYTES, LAST_SLOTS))
_RESERVED |= {Kind.LOST: (0, 0), Kind.STOP: (0, 0)}
_AUDIO = frozenset((Kind.AUDIO, Kind.TIMED_AUDIO))

LAST_AUDIO_SLOT = TABLE_END - (MARK_SLOTS + 1) * HEADER_BYTES
"""Where the last header of audio in a segment lies."""

_pack = HEADER.pack_into


class Lane:
    """One track's way into the journal, with all worked out that is the same for many frames.

    Attributes:
        channels: Of the frames it takes.
        length: Bytes of each.
        offset: Where the next one goes.
        open_until: Up to where frames of this form can be put without further ado; 0 if nowhere.
        form: Their headers' form, see `recorder.journal_format.form`.
        check: Their headers' check, likewise.
        owner: Who may write frames of this form; nobody else does.
    """

    __slots__ = (
        "_end",
        "_track",
        "_writer",
        "channels",
        "check",
        "form",
        "length",
        "offset",
        "open_until",
        "owner",
    )

    def __init__(self, writer: JournalWriter, track: int) -> None:
        self._writer = writer
        self._track = track
        self._end = 0
        self.channels = self.length = 0
        self.offset = self.open_until = 0
        self.form = self.check = 0
        self.owner: object = None

    def fit(self, sample_rate: int, channels: int, length: int) -> None:
        """Take frames of this form from now on."""
        self.channels, self.length = channels, length
        self.form = form(Kind.AUDIO, self._track, sample_rate, channels)
        self.check = check(self.form, length, self._writer.number)
        self.open_until = self._end
        self.owner = None

    def resize(self, length: int) -> bool:
        """Take frames of another length from now on, if they are of whole samples."""
        if not length or length % (2 * self.channels):
            return False
        self.length, self.check = length, check(self.form, length, self._writer.number)
        return True

    def room(self, length: int) -> int:
        """Return where so many bytes can be put, and count them as put there; 0 if nowhere."""
        end = self.offset + length
        if end > self._end or not self._end:
            begin = self._writer.extend(self._end, length - (self._end - self.offset), length)
            if not begin:
                return 0
            if begin != self._end:
                self.offset = begin
            end = self.offset + length
            self._end = self._writer.free
        offset, self.offset = self.offset, end + (end & 1)
        return offset

    def leave(self) -> None:
        """Give up what is left of its extent: another segment follows."""
        self.offset = self._end = self.open_until = 0
        self.check = check(self.form, self.length, self._writer.number)


class JournalWriter:
    """Appends records. The session holds its lock round every call but `prepare`.

    Args:
        folder: Where segments are; must exist.
        quota: Counts the bytes of segments.
        mapped: Keeps what it has mapped for the reader in this process; if None, there is none.

    Attributes:
        number: Of the segment that is written to.
        view: Its bytes.
        slot: Where the next header goes.
        free: Where the next extent begins.
        last_ns: When the newest record was written; kept by who appends.
        frames: Frames of audio appended; likewise.

    Raises:
        SpoolFull: The first segment cannot be allocated.
    """

    def __init__(self, folder: Path, quota: SpoolQuota, mapped: Mapped | None = None) -> None:
        self._folder = folder
        self._mapped = mapped or Mapped()
        if mapped is None:
            self._mapped.close()  # keeps nothing
        self._quota = quota
        self._spare: Segment | None = None
        self._allocating = threading.Lock()
        self._prepared = 0
        self._closed = False
        self._disk_full = ""
        self._lanes: dict[int, Lane] = {}
        self.number = 0
        self.last_ns = self.frames = 0
        self.slot = self.free = self._top = 0
        self._take(self._allocate(touch=True))

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
            time_ns: For the kinds that have one: see `recorder.journal_format`.

        Raises:
            SpoolFull: No room for another segment; the record was not accepted.
        """
        length = len(payload)
        room = self._audio_room if kind in _AUDIO else self._mark_room
        if not (offset := room(kind, track, length)):
            self._roll()
            if not (offset := room(kind, track, length)):
                raise ValueError(f"{length} bytes are more than a segment holds")
        view, slot = self.view, self.slot
        view[offset : offset + length] = payload
        fields = form(kind, track, sample_rate, channels)
        commit = check(fields, length, self.number) | offset
        _pack(view, slot, at_ns, written_ns, time_ns or 0, fields, length, commit)
        self.slot = slot + HEADER_BYTES

    def lane(self, track: int) -> Lane:
        """Return a track's way into the journal."""
        lane = self._lanes.get(track)
        if lane is None:
            lane = self._lanes[track] = Lane(self, track)
        return lane

    def shut_lanes(self) -> None:
        """Have every frame looked at, until one of its track is accepted as usual."""
        for lane in self._lanes.values():
            lane.open_until = 0

    def make_room(self, payload_bytes: int) -> None:
        """See to it that an audio record of this size, and marks before it, can follow.

        Raises:
            SpoolFull: No room for another segment.
        """
        fits = self._top - self.free - 2 * MARK_BYTES >= payload_bytes
        if not fits or self.slot > LAST_AUDIO_SLOT - MARK_SLOTS * HEADER_BYTES:
            self._roll()

    def extend(self, end: int, more: int, length: int) -> int:
        """Hand out an extent: from `free`, which moves to its end.

        Args:
            end: Where the extent ends that its track has: what is free behind it makes it longer.
            more: How many bytes it lacks.
            length: How many are needed if it cannot be made longer.

        Returns:
            Where it begins: `end` if that was made longer, 0 where there is no room.
        """
        begin = self.free
        needed = more if begin == end else length
        left = self._top - MARK_BYTES - begin
        if needed > left:
            return 0
        # The more tracks, the less to each: what one has left is lost to the others.
        share = (SEGMENT_BYTES - TABLE_BYTES) // (4 * len(self._lanes)) & ~1
        self.free = begin + min(left, max(needed + (needed & 1), min(EXTENT_BYTES, share)))
        return begin

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
        """Whether `prepare` should be called: half of the segment at hand is used.

        Not before: a spare is a megabyte of mapped memory for each session.
        """
        if self._spare is not None or self._closed:
            return False
        return self.free > SEGMENT_BYTES // 2 or self.slot > TABLE_END // 2

    def close(self) -> None:
        """Unmap; the files stay, but for a spare that holds nothing. Idempotent."""
        with self._allocating:
            if self._closed:
                return
            self._closed = True
            if self._spare is not None:
                self._mapped.drop(self._prepared)
                self._spare = None
                segment_path(self._folder, self._prepared).unlink(missing_ok=True)
                self._quota.give(SEGMENT_BYTES)
        self.view = memoryview(b"")
        self.slot = TABLE_END
        self._mapped.left(self.number)

    def _audio_room(self, kind: Kind, track: int, length: int) -> int:
        return self.lane(track).room(length) if self.slot <= LAST_AUDIO_SLOT else 0

    def _mark_room(self, kind: Kind, track: int, length: int) -> int:
        reserved, slots = _RESERVED[kind]
        offset = self._top - length - (length & 1)
        if offset - self.free < reserved or self.slot >= TABLE_END - slots * HEADER_BYTES:
            return 0
        # Without a payload, the segment's last byte: an offset is below its size, and never zero.
        self._top = offset
        return min(offset, SEGMENT_BYTES - 2)

    def _roll(self) -> None:
        # Where frames come faster than segments are prepared, allocate here, or wait for who is
        # just doing so. A spare that is there was prepared: nobody holds the lock for long.
        with self._allocating:
            following, self._spare = self._spare or self._allocate_now(), None
        if self.slot < TABLE_END:
            COMMIT.pack_into(self.view, self.slot + COMMIT_OFFSET, END_OF_SEGMENT)
        self._mapped.left(self.number)
        self._take(following)

    def _take(self, segment: Segment) -> None:
        self.view = segment.view
        self.slot = TABLE_AT
        self.free, self._top = TABLE_BYTES, SEGMENT_BYTES
        self.number += 1
        for lane in self._lanes.values():
            lane.leave()

    def _allocate_now(self) -> Segment:
        """Allocate on the frame path: a disk that has refused is asked again by `prepare` only."""
        if self._disk_full:
            raise SpoolFull(self._disk_full)
        return self._allocate()

    def _allocate(self, *, touch: bool = False) -> Segment:
        path = segment_path(self._folder, self._prepared + 1)
        segment = self._again(path)
        if segment is None:
            try:
                segment = self._quota.allocate(
                    SEGMENT_BYTES, lambda: Segment(path, create=True, touch=touch), self._folder
                )
            except SpoolFull as error:
                if isinstance(error.__cause__, OSError):
                    self._disk_full = str(error)
                raise
        self._prepared += 1
        self._mapped.add(self._prepared, segment, written=True)
        return segment

    def _again(self, path: Path) -> Segment | None:
        """Return a segment made of a file that is not needed any more, if there is one."""
        for spare in self._folder.glob(f"*{SPARE}"):
            segment = self._mapped.take_spare(spare)
            try:
                if segment is None:
                    return Segment(path, create=True, touch=True, spare=spare)
                segment.become(path, spare)
            except FileNotFoundError:  # let go meanwhile, and counted as that
                if segment is not None:
                    segment.close()
            except OSError:
                self._quota.give(SEGMENT_BYTES)
                raise
            else:
                return segment
        return None
