"""Writer and reader of one process use the same mappings, and nothing stays mapped that is gone."""

from __future__ import annotations

import mmap
import resource
from pathlib import Path

import pytest

from recorder.journal import JournalWriter
from recorder.journal_format import SEGMENT_BYTES, TABLE_BYTES
from recorder.journal_reader import JournalReader
from recorder.mapped import Mapped
from recorder.quota import SpoolQuota
from recorder.records import Kind
from recorder.segments import MADV_POPULATE_WRITE, Segment, segment_path

FRAME = bytes(range(250)) * 32


class Journal:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.quota = SpoolQuota(1 << 30)
        self.mapped = Mapped()
        self.writer = JournalWriter(folder, self.quota, self.mapped)
        self.reader = JournalReader(folder, mapped=self.mapped)

    def write(self, count: int) -> None:
        for _ in range(count):
            self.writer.append(Kind.AUDIO, 0, 0, 0, FRAME, 16_000, 1)

    def read(self) -> int:
        records = list(self.reader.read())
        for record in records:
            view = self.reader.view(record.segment)
            assert view is not None
            assert view[record.offset : record.offset + record.length] == FRAME
        return len(records)

    def mappings(self) -> list[str]:
        return mappings(self.folder)


def mappings(folder: Path) -> list[str]:
    """Return the names of a folder's files that are mapped, once for each mapping."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return sorted(line.split("/")[-1] for line in lines if f"{folder}/" in line)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path)


def test_each_segment_is_mapped_once(journal: Journal) -> None:
    journal.write(300)
    assert journal.read() == 300
    assert journal.mappings() == sorted(path.name for path in journal.folder.iterdir())
    journal.writer.close()
    journal.reader.close()
    assert journal.mappings() == []


def test_a_mapping_stays_with_a_file_that_is_used_again(journal: Journal) -> None:
    journal.write(300)
    journal.read()
    journal.reader.drop_before(journal.reader.segment, journal.quota, spares=1)
    [spare] = journal.folder.glob("*.spare")
    node = spare.stat().st_ino
    assert len(journal.mappings()) == 2
    journal.writer.prepare()
    assert len(journal.mappings()) == 2
    assert journal.folder.joinpath("00000004.journal").stat().st_ino == node
    journal.write(300)
    assert journal.read() == 300
    assert journal.reader.segment > 4
    journal.writer.close()
    journal.reader.close()
    assert journal.mappings() == []


@pytest.mark.parametrize("spares", [0, 1])
def test_what_is_deleted_is_not_mapped_any_more(journal: Journal, spares: int) -> None:
    """Or the disk would not have its room again."""
    journal.write(300)
    journal.read()
    journal.reader.drop_before(journal.reader.segment, journal.quota, spares=spares)
    journal.reader.drop_before(0, journal.quota)
    assert journal.mappings() == ["00000003.journal"]
    journal.writer.prepare()
    journal.writer.close()
    journal.read()
    assert journal.mappings() == ["00000003.journal"]
    journal.reader.close()
    assert journal.mappings() == []


def test_a_reader_that_closes_takes_no_mapping_from_the_writer(journal: Journal) -> None:
    journal.write(130)
    journal.reader.close()
    assert journal.mappings() == ["00000002.journal"]
    journal.write(300)
    journal.writer.close()
    assert journal.mappings() == []
    assert journal.read() == 430
    journal.reader.close()


def test_without_a_reader_only_what_is_written_to_is_mapped(tmp_path: Path) -> None:
    alone = JournalWriter(tmp_path, SpoolQuota(1 << 30))
    for _ in range(300):
        alone.append(Kind.AUDIO, 0, 0, 0, FRAME, 16_000, 1)
    assert mappings(tmp_path) == ["00000003.journal"]
    alone.close()
    assert mappings(tmp_path) == []


def touching_faults(segment: Segment) -> int:
    """How many pages of a segment are made only when they are written to."""
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for page in range(TABLE_BYTES, SEGMENT_BYTES, mmap.PAGESIZE):
        segment.view[page] = 1
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before


def test_who_captures_waits_for_no_page(tmp_path: Path) -> None:
    for touch in (False, True):
        segment = Segment(segment_path(tmp_path, 1 + touch), create=True, touch=touch)
        faults = touching_faults(segment)
        segment.close()
        if not touch and not faults:
            pytest.skip("pages are not counted here")
    if faults:
        try:  # Linux before 5.14 cannot do it
            mmap.mmap(-1, mmap.PAGESIZE).madvise(MADV_POPULATE_WRITE)
        except OSError:
            pytest.skip("this kernel makes no pages ahead")
    assert faults <= 2
