"""What a live session holds, in counts: maps of the journal, records, bytes behind what is sent."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from calls import FRAME, RATE, settings_in, speak
from faulty_store import FaultyStore

from recorder import Recorder, VirtualClock
from recorder.journal import JournalWriter
from recorder.journal_format import SEGMENT_BYTES, Kind
from recorder.pending import KEPT, Pending
from recorder.quota import SpoolQuota
from recorder.records import Record
from recorder.sealer import MOST_SPARES
from recorder.segments import SPARE
from uploader.local import LocalStore
from uploader.s3_body import body_file

CHUNK = 10
UNSEALED = 2
"""Segments for a chunk and the hold-back, of one voice at 24 kHz."""

MIB = 1 << 20


def mapped_segments(folder: Path) -> int:
    """How often this process has a segment below a folder mapped, or what is to become one."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    kinds = (".journal", SPARE)  # and maybe " (deleted)" behind
    return sum(str(folder) in line and any(kind in line for kind in kinds) for line in lines)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux tells what is mapped")
async def test_a_session_has_mapped_what_it_writes_what_is_not_sealed_and_some_spares(
    tmp_path: Path,
) -> None:
    store, clock = FaultyStore(LocalStore(tmp_path / "bucket")), VirtualClock()
    settings = settings_in(tmp_path, chunk_seconds=CHUNK)
    async with Recorder(settings, clock=clock, store=store, recover=False) as recorder:
        call = await recorder.start()
        for begin in range(0, 130, CHUNK):
            speak(call, clock, begin, begin + CHUNK)
            await call.flush()
            await call.read(begin, begin + 1)
            assert 0 < mapped_segments(tmp_path / "spool") <= 2 + UNSEALED + MOST_SPARES
        await call.stop()
    assert mapped_segments(tmp_path / "spool") == 0


def test_a_spare_is_made_when_half_of_a_segment_is_used(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, SpoolQuota(1 << 30))
    assert not writer.needs_spare
    while not writer.needs_spare:
        writer.append(Kind.AUDIO, 0, 0, 0, bytes(FRAME * 2), RATE, 1)
    assert writer.number == 1
    assert SEGMENT_BYTES * 0.4 < writer.free < SEGMENT_BYTES * 0.6
    writer.prepare()
    assert not writer.needs_spare
    writer.close()


def test_records_that_are_decided_on_are_let_go(tmp_path: Path) -> None:
    many = 20 * KEPT
    record = Record(Kind.AUDIO, 0, 0, 0, RATE, 1, 1, 0, 0)
    pending = Pending()
    for _ in range(many):
        pending.append(record, None)
    assert len(pending.rows) == many
    pending.drop(many - 10)
    assert len(pending) == 10
    base = pending.rows.base
    assert len(pending.rows if base is None else base) <= 2 * KEPT
    assert len(pending._records) <= 2 * KEPT


def test_a_body_is_sent_without_a_copy_of_it() -> None:
    body = bytearray(range(256)) * (4 * MIB // 256)
    tracemalloc.start()
    try:
        for one in (body, memoryview(body), bytes(body)):
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            file = body_file(one)
            assert len(file.getbuffer()) == len(body)
            assert file.read(1000) == body[:1000]
            assert tracemalloc.get_traced_memory()[1] - before < MIB
            assert (file.tell(), file.seek(-5, 2)) == (1000, len(body) - 5)
            assert file.read() == body[-5:]
            assert file.read(7) == b""
            assert file.seek(10) == file.tell() == 10
            assert (file.seek(5, 1), file.read(2)) == (15, body[15:17])
            assert file.getvalue() == body
    finally:
        tracemalloc.stop()


async def test_a_part_is_made_with_little_beside_it(tmp_path: Path) -> None:
    """All of a part was in memory five times: as read, as planes, laid out, zeroed and sent."""
    store, clock = FaultyStore(LocalStore(tmp_path / "bucket")), VirtualClock()
    settings = settings_in(tmp_path, chunk_seconds=CHUNK, part_bytes=5 * MIB)
    async with Recorder(settings, clock=clock, store=store, recover=False) as recorder:
        call = await recorder.start()
        tracemalloc.start()
        try:
            for begin in range(0, 130, CHUNK):  # two parts
                speak(call, clock, begin, begin + CHUNK)
                await call.flush()
            assert tracemalloc.get_traced_memory()[1] < 4 * MIB
        finally:
            tracemalloc.stop()
