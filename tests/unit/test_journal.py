"""The journal: what was appended is read back, by this process or another, and no more."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from recorder.journal import JournalWriter
from recorder.journal_format import (
    COMMIT_OFFSET,
    EXTENT_BYTES,
    HEADER_BYTES,
    LAST_SLOTS,
    MARK_BYTES,
    MARK_SLOTS,
    MAX_PAYLOAD,
    NO_TRACK,
    SEGMENT_BYTES,
    SLOTS,
    TABLE_AT,
    Kind,
)
from recorder.journal_reader import JournalReader
from recorder.quota import SpoolFull, SpoolQuota
from recorder.track_writer import TrackWriter
from uploader.clock import VirtualClock

PLENTY = 1 << 30


def audio(writer: JournalWriter, payload: bytes, at: int = 0) -> None:
    writer.append(Kind.AUDIO, 0, at, at, payload, 16000, 1)


def read_payloads(reader: JournalReader) -> list[bytes]:
    payloads = []
    for record in reader.read():
        view = reader.view(record.segment)
        assert view is not None
        payloads.append(bytes(view[record.offset : record.offset + record.length]))
    return payloads


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def test_records_come_back_as_they_were_written(folder: Path) -> None:
    writer = JournalWriter(folder, SpoolQuota(PLENTY))
    writer.append(Kind.TRACK, 3, 1, 2, b"odd")
    writer.append(Kind.AUDIO, 3, -5, 7, b"\1\2\3\4", 8000, 2)
    reader = JournalReader(folder)
    first, second = list(reader.read())
    assert (first.kind, first.track, first.at_ns, first.written_ns) == (Kind.TRACK, 3, 1, 2)
    assert (second.at_ns, second.written_ns) == (-5, 7)
    assert (second.sample_rate, second.channels, second.length) == (8000, 2, 4)
    assert list(reader.read()) == []
    writer.close()
    reader.close()


def test_a_reader_follows_a_writer_through_segments(folder: Path) -> None:
    writer = JournalWriter(folder, SpoolQuota(PLENTY))
    reader = JournalReader(folder)
    written, read = [], []
    for index in range(300):
        payload = bytes([index % 256]) * (2 * (index * 37 % 9000))
        written.append(payload)
        audio(writer, payload, index)
        if index % 7 == 0:
            read += read_payloads(reader)
    read += read_payloads(reader)
    assert read == written
    assert writer.number > 1
    writer.close()
    reader.close()


@pytest.mark.parametrize("room", [0, 1, 2, 3])
def test_any_room_left_at_a_segments_end(folder: Path, room: int) -> None:
    """Losses may fill a segment to its last byte."""
    writer = JournalWriter(folder, SpoolQuota(PLENTY))
    payloads = [b"a" * MAX_PAYLOAD]
    audio(writer, payloads[0])
    for payload in (b"m" * (MARK_BYTES - room), b"", b"n" * 100):
        payloads.append(payload)
        writer.append(Kind.LOST, NO_TRACK, 0, 0, payload)
    reader = JournalReader(folder)
    assert read_payloads(reader) == payloads
    assert writer.number == 2
    writer.close()
    reader.close()


@pytest.mark.parametrize("left", [0, 1, 2])
def test_any_number_of_headers_left_at_a_segments_end(folder: Path, left: int) -> None:
    """With and without room for a mark that it has ended."""
    writer = JournalWriter(folder, SpoolQuota(PLENTY))
    reader = JournalReader(folder)
    for _ in range(SLOTS - left):
        writer.append(Kind.STOP, NO_TRACK, 0, 0)
    assert len(read_payloads(reader)) == SLOTS - left
    assert read_payloads(reader) == []
    writer.append(Kind.PAUSE, NO_TRACK, 0, 0)
    audio(writer, b"in another segment")
    assert [record.segment for record in reader.read()] == [2, 2]
    writer.close()
    reader.close()


def test_tiny_frames_leave_headers_for_marks(folder: Path) -> None:
    writer = JournalWriter(folder, SpoolQuota(SEGMENT_BYTES))
    for _ in range(SLOTS - MARK_SLOTS):
        audio(writer, b"xy")
    with pytest.raises(SpoolFull):
        audio(writer, b"xy")
    for _ in range(MARK_SLOTS - LAST_SLOTS):
        writer.append(Kind.CLEAR, 0, 0, 0)
    with pytest.raises(SpoolFull):
        writer.append(Kind.CLEAR, 0, 0, 0)
    for _ in range(LAST_SLOTS):
        writer.append(Kind.LOST, NO_TRACK, 0, 0)
    with pytest.raises(SpoolFull):
        writer.append(Kind.STOP, NO_TRACK, 0, 0)
    writer.close()


@pytest.mark.parametrize("tracks", [1, 2, 5, 64])
def test_what_a_track_says_lies_together(folder: Path, tracks: int) -> None:
    """And what each has left of its room does not cost many segments."""
    writer = JournalWriter(folder, SpoolQuota(PLENTY))
    frames = 40_000 // tracks
    for index in range(frames):
        for track in range(tracks):
            writer.append(Kind.AUDIO, track, index, index, b"v" * 320, 8000, 1)
    reader = JournalReader(folder)
    ends: dict[int, tuple[int, int]] = {}
    breaks = 0
    for record in reader.read():
        breaks += ends.get(record.track) != (record.segment, record.offset)
        ends[record.track] = record.segment, record.offset + record.length
    written = tracks * frames
    assert breaks < (
        written * 320 / EXTENT_BYTES * 1.2 + 20 * tracks if tracks < 9 else written / 8
    )
    assert writer.number <= 1.3 * max(written / SLOTS, written * 320 / SEGMENT_BYTES) + 1
    writer.close()
    reader.close()


def test_a_reader_goes_on_where_another_was(folder: Path) -> None:
    writer = JournalWriter(folder, SpoolQuota(PLENTY))
    for index in range(5):
        audio(writer, bytes([index, index]))
    third = list(JournalReader(folder).read())[2]
    reader = JournalReader(folder, third.segment, third.slot)
    assert read_payloads(reader) == [b"\2\2", b"\3\3", b"\4\4"]
    writer.close()
    reader.close()


def test_a_track_writer_takes_what_is_sure_to_fit_and_no_more(folder: Path) -> None:
    journal, clock = JournalWriter(folder, SpoolQuota(PLENTY)), VirtualClock(0.0)
    left: list[bytes] = []

    def otherwise(
        track: str,
        pcm: bytes | bytearray | memoryview,
        rate: int,
        channels: int,
        at: float | None,
        *,
        writer: TrackWriter,
    ) -> None:
        assert at is not None
        left.append(bytes(pcm))
        now = int(clock.monotonic() * 1e9)
        journal.append(Kind.AUDIO, 0, int(at * 1e9), now, bytes(pcm), rate, channels)
        journal.frames += 1
        lane = journal.lane(0)
        lane.fit(rate, channels, len(bytes(pcm)))
        writer.use(lane)

    writer = TrackWriter(
        "user", 16000, 2, journal, threading.Lock(), clock.monotonic, 0.0, otherwise
    )
    payloads = []
    for index in range(5000):
        clock.advance(0.25)
        payloads.append(index.to_bytes(2, "little") * 320)
        writer.write(payloads[-1], clock.monotonic() - 0.125)
        if index % 1000 == 0:
            journal.append(Kind.CLEAR, 0, index, index)
    reader = JournalReader(folder)
    assert [one for one in read_payloads(reader) if one] == payloads
    records = [one for one in JournalReader(folder).read() if one.kind is Kind.AUDIO]
    assert {(one.track, one.sample_rate, one.channels, one.length) for one in records} == {
        (0, 16000, 2, 640)
    }
    assert [one.written_ns for one in records] == [(i + 1) * 250_000_000 for i in range(5000)]
    assert {one.written_ns - one.at_ns for one in records} == {125_000_000}
    segments = len({one.segment for one in records})
    assert segments > 2
    assert journal.frames == 5000
    assert len(left) <= 5000 * 640 / EXTENT_BYTES + 3 * segments, "the first of each extent"
    journal.close()
    left.clear()
    writer._otherwise = lambda track, pcm, *_, **__: left.append(bytes(pcm))
    writer.write(payloads[0], clock.monotonic())
    assert left == payloads[:1]
    reader.close()


def test_no_segment_is_skipped_that_is_prepared_while_one_is_allocated(folder: Path) -> None:
    """Whoever reads would wait in it for ever: as soon as a frame has allocated one, another is."""
    writer = JournalWriter(folder, SpoolQuota(PLENTY))

    class Prompt:
        def __init__(self) -> None:
            self.lock = threading.Lock()
            self.first = True

        def __enter__(self) -> None:
            self.lock.acquire()

        def __exit__(self, *exc: object) -> None:
            self.lock.release()
            if self.first:
                self.first = False
                writer.prepare()

    writer._allocating = Prompt()  # type: ignore[assignment]
    for index in range(400):
        audio(writer, b"s" * 8000, index)
    reader = JournalReader(folder)
    assert len(read_payloads(reader)) == 400
    writer.close()
    reader.close()


def test_the_largest_payload_fits(folder: Path) -> None:
    writer = JournalWriter(folder, SpoolQuota(PLENTY))
    audio(writer, b"xy")
    audio(writer, b"z" * MAX_PAYLOAD)
    reader = JournalReader(folder)
    assert [len(payload) for payload in read_payloads(reader)] == [2, MAX_PAYLOAD]
    writer.close()
    reader.close()


def test_an_uncommitted_record_is_not_there(folder: Path) -> None:
    """What a process killed in the middle of a copy leaves: payload and header, no commit word."""
    writer = JournalWriter(folder, SpoolQuota(PLENTY))
    audio(writer, b"whole!")
    writer.close()
    with (folder / "00000001.journal").open("r+b") as file:
        file.seek(TABLE_AT + HEADER_BYTES)
        file.write(b"\xff" * COMMIT_OFFSET)
    reader = JournalReader(folder)
    assert read_payloads(reader) == [b"whole!"]
    reader.close()


@pytest.mark.parametrize("field", [24, 28, 30, 31, 32, 39])
def test_a_damaged_record_is_an_error_not_audio(folder: Path, field: int) -> None:
    writer = JournalWriter(folder, SpoolQuota(PLENTY))
    audio(writer, b"whole!")
    audio(writer, b"not so")
    audio(writer, b"never seen")
    writer.close()
    with (folder / "00000001.journal").open("r+b") as file:
        file.seek(TABLE_AT + HEADER_BYTES + field)
        [byte] = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0x51]))
    reader = JournalReader(folder)
    found = []
    with pytest.raises(ValueError, match="damaged record in segment 1, number 1"):
        found += [record.length for record in reader.read()]
    reader.close()
    reader = JournalReader(folder)
    batches = reader.batches()
    assert next(batches)["length"].tolist() == [6]
    reader.close()


def test_a_segment_of_another_version_is_an_error(folder: Path) -> None:
    writer = JournalWriter(folder, SpoolQuota(PLENTY))
    audio(writer, b"whole!")
    writer.close()
    path = folder / "00000001.journal"
    path.write_bytes(b"1" + path.read_bytes()[1:])
    reader = JournalReader(folder)
    with pytest.raises(ValueError, match="segment 1 is none of this version"):
        list(reader.read())
    reader.close()


def test_a_segment_that_was_only_allocated_holds_nothing(folder: Path) -> None:
    (folder / "00000001.journal").write_bytes(bytes(SEGMENT_BYTES))
    reader = JournalReader(folder)
    assert list(reader.read()) == []
    reader.close()


def test_a_full_spool_refuses_audio_and_still_takes_the_stop(folder: Path) -> None:
    quota = SpoolQuota(SEGMENT_BYTES)
    writer = JournalWriter(folder, quota)
    accepted = MAX_PAYLOAD // 640
    for _ in range(accepted):
        audio(writer, b"f" * 640)
    with pytest.raises(SpoolFull, match="the spool holds 1048576 of at most 1048576 bytes"):
        audio(writer, b"f" * 640)
    writer.append(Kind.STOP, NO_TRACK, 0, 0, b"{}")
    reader = JournalReader(folder)
    kinds = [record.kind for record in reader.read()]
    assert kinds == [Kind.AUDIO] * accepted + [Kind.STOP]
    quota.limit = PLENTY
    audio(writer, b"room again")
    assert read_payloads(reader) == [b"room again"]
    writer.close()
    reader.close()


class PreparesWhenReleased:
    """A writer's lock; whoever waits to prepare a segment gets it as soon as it is free."""

    def __init__(self, writer: JournalWriter) -> None:
        self._writer = writer
        self._lock = threading.Lock()
        self._preparing = False

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        if not self._preparing:
            self._preparing = True
            self._writer.prepare()
            self._preparing = False


def test_a_segment_prepared_while_one_was_missing_is_the_next(folder: Path) -> None:
    writer = JournalWriter(folder, SpoolQuota(PLENTY))
    writer._allocating = PreparesWhenReleased(writer)  # type: ignore[assignment]
    reader = JournalReader(folder)
    written = [bytes([index]) * 60_000 for index in range(100)]
    for index, payload in enumerate(written):
        audio(writer, payload, index)
    assert read_payloads(reader) == written
    assert len(list(folder.glob("*.journal"))) == writer.number + 1  # and the one prepared
    writer.close()
    reader.close()


def test_a_full_disk_is_a_clear_error_and_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, offset: int, length: int) -> None:
        raise OSError(28, os.strerror(28))

    quota = SpoolQuota(PLENTY)
    writer = JournalWriter(folder, quota)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(SpoolFull, match="No space left on device"):
        writer.prepare()
    assert quota.used == SEGMENT_BYTES
    assert len(list(folder.iterdir())) == 1
    audio(writer, b"goes on")
    writer.close()


def test_segments_are_allocated_on_disk_before_they_are_mapped(folder: Path) -> None:
    writer = JournalWriter(folder, SpoolQuota(PLENTY))
    writer.prepare()
    for path in folder.iterdir():
        assert path.stat().st_blocks * 512 >= SEGMENT_BYTES
    writer.close()


def test_dropped_segments_are_gone_and_counted(folder: Path) -> None:
    quota = SpoolQuota(PLENTY)
    writer = JournalWriter(folder, quota)
    reader = JournalReader(folder)
    for _ in range(400):
        audio(writer, b"d" * 8000)
    count = len(read_payloads(reader))
    assert count == 400
    reader.drop_before(reader.segment, quota)
    writer.close()
    assert [int(path.stem) for path in folder.iterdir()] == [reader.segment]
    assert quota.used == SEGMENT_BYTES
    reader.close()


def test_a_segment_is_made_of_one_that_is_not_needed_any_more(folder: Path) -> None:
    quota = SpoolQuota(PLENTY)
    writer = JournalWriter(folder, quota)
    reader = JournalReader(folder)
    for _ in range(400):
        audio(writer, b"d" * 8000)
    assert len(read_payloads(reader)) == 400
    before = quota.used
    reader.drop_before(reader.segment, quota, spares=1)
    [spare] = folder.glob("*.spare")
    node = spare.stat().st_ino
    assert quota.used == before - (reader.segment - 2) * SEGMENT_BYTES
    held = quota.used
    writer.prepare()
    assert quota.used == held
    assert not list(folder.glob("*.spare"))
    number = writer.number + 1
    while writer.number < number:
        audio(writer, b"e" * 8000)
    audio(writer, b"last")
    assert (folder / f"{number:08d}.journal").stat().st_ino == node
    assert [payload[:1] for payload in read_payloads(reader)][-2:] == [b"e", b"l"]
    reader.drop_before(reader.segment, quota, spares=1)
    reader.drop_before(reader.segment, quota)
    assert not list(folder.glob("*.spare"))
    writer.close()
    assert quota.used == len(list(folder.iterdir())) * SEGMENT_BYTES
    reader.close()


def test_a_spare_that_was_let_go_meanwhile_is_counted_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quota = SpoolQuota(PLENTY)
    writer = JournalWriter(folder, quota)
    monkeypatch.setattr(Path, "glob", lambda *_: iter([folder / "00000009.spare"]))
    before = quota.used
    writer.prepare()
    assert quota.used == before + SEGMENT_BYTES
    writer.close()


def test_what_is_left_of_an_older_segment_in_the_same_file_is_not_read(folder: Path) -> None:
    """Where the power failed before the empty table was on the disk."""
    writer = JournalWriter(folder, SpoolQuota(PLENTY))
    audio(writer, b"long ago")
    writer.close()
    (folder / "00000001.journal").rename(folder / "00000007.journal")
    reader = JournalReader(folder, 7)
    with pytest.raises(ValueError, match="damaged record in segment 7, number 0"):
        list(reader.read())
    reader.close()


def test_where_marks_no_longer_fit_losses_and_the_stop_still_do(folder: Path) -> None:
    """An hour of turns while nothing fits must not keep the loss of 64 tracks from being noted."""
    writer = JournalWriter(folder, SpoolQuota(SEGMENT_BYTES))
    audio(writer, b"a" * MAX_PAYLOAD)
    marks = 0
    with suppress(SpoolFull):
        while True:
            writer.append(Kind.TURN_END, 0, 0, 0, b'{"interrupted": false}')
            marks += 1
    assert marks > 100
    for _ in range(64):
        writer.append(Kind.LOST, NO_TRACK, 0, 0, b"l" * 300)
    writer.append(Kind.STOP, NO_TRACK, 0, 0, b"{}")
    reader = JournalReader(folder)
    kinds = [record.kind for record in reader.read()]
    assert kinds[marks + 1 :] == [Kind.LOST] * 64 + [Kind.STOP]
    writer.close()
    reader.close()


def test_a_disk_that_is_full_is_not_asked_with_every_frame(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = JournalWriter(folder, SpoolQuota(PLENTY))
    asked = []

    def full(fd: int, offset: int, length: int) -> None:
        asked.append(length)
        raise OSError(28, os.strerror(28))

    audio(writer, b"a" * MAX_PAYLOAD)
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        for _ in range(5):
            with pytest.raises(SpoolFull, match="No space left on device"):
                audio(writer, b"f" * 640)
        assert len(asked) == 1
        with pytest.raises(SpoolFull):
            writer.prepare()
        assert len(asked) == 2
    with pytest.raises(SpoolFull, match="No space left on device"):
        audio(writer, b"f" * 640)
    writer.prepare()
    audio(writer, b"room again")
    writer.close()


def test_a_segment_that_cannot_be_mapped_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quota = SpoolQuota(PLENTY)
    writer = JournalWriter(folder, quota)

    def no_maps(*args: object, **options: object) -> None:
        raise OSError(12, os.strerror(12))

    with monkeypatch.context() as patch:
        patch.setattr("mmap.mmap", no_maps)
        with pytest.raises(SpoolFull, match="Cannot allocate memory"):
            writer.prepare()
    assert len(list(folder.iterdir())) == 1
    assert quota.used == SEGMENT_BYTES
    writer.prepare()
    writer.close()
