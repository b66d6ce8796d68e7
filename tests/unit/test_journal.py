"""The journal: what was appended is read back, by this process or another, and no more."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest

from recorder.journal import AUDIO_LIMIT, MAX_PAYLOAD, SEGMENT_BYTES, JournalReader, JournalWriter
from recorder.quota import SpoolFull, SpoolQuota
from recorder.records import HEADER_BYTES, NO_TRACK, Kind, record_size

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


@pytest.mark.parametrize("room", [0, 8, 16, 24, 32, 40])
def test_any_room_left_at_a_segments_end(folder: Path, room: int) -> None:
    """Marks may fill a segment to its last byte: with and without room for an end mark."""
    writer = JournalWriter(folder, SpoolQuota(PLENTY))
    payloads = [b"a" * (AUDIO_LIMIT - HEADER_BYTES)]
    audio(writer, payloads[0])
    mark = SEGMENT_BYTES - AUDIO_LIMIT - HEADER_BYTES - room
    for payload in (b"m" * mark, b"n" * 100):
        payloads.append(payload)
        writer.append(Kind.TRACK, NO_TRACK, 0, 0, payload)
    reader = JournalReader(folder)
    assert read_payloads(reader) == payloads
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
        file.seek(record_size(6))
        file.write(b"\xff" * (HEADER_BYTES - 4))
    reader = JournalReader(folder)
    assert read_payloads(reader) == [b"whole!"]
    reader.close()


def test_a_damaged_record_is_an_error_not_audio(folder: Path) -> None:
    writer = JournalWriter(folder, SpoolQuota(PLENTY))
    audio(writer, b"whole!")
    writer.close()
    with (folder / "00000001.journal").open("r+b") as file:
        file.seek(24)
        file.write(b"\x77")
    reader = JournalReader(folder)
    with pytest.raises(ValueError, match="damaged record in segment 1"):
        list(reader.read())
    reader.close()


def test_a_full_spool_refuses_audio_and_still_takes_the_stop(folder: Path) -> None:
    quota = SpoolQuota(SEGMENT_BYTES)
    writer = JournalWriter(folder, quota)
    accepted = AUDIO_LIMIT // record_size(640)
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


def test_where_marks_no_longer_fit_losses_and_the_stop_still_do(folder: Path) -> None:
    """An hour of turns while nothing fits must not keep the loss of 64 tracks from being noted."""
    writer = JournalWriter(folder, SpoolQuota(SEGMENT_BYTES))
    audio(writer, b"a" * (AUDIO_LIMIT - HEADER_BYTES))
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

    audio(writer, b"a" * (AUDIO_LIMIT - HEADER_BYTES))
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
