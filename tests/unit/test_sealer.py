"""When chunks are sealed, what is kept for later, and that a restart would find its place."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plans import make_plan

from recorder.journal import JournalWriter
from recorder.journal_format import SEGMENT_BYTES
from recorder.quota import SpoolFull, SpoolQuota
from recorder.records import NO_TRACK, Kind
from recorder.reserve import Reserve
from recorder.sealer import MOST_SPARES, Sealer
from recorder.spool import Spool
from recorder.timeline import NS
from uploader.checksum import crc64nvme
from uploader.errors import BotRecorderError

RATE = 24000
CHUNK = RATE
VOICE = np.random.default_rng(1).integers(-9000, 9000, 16000 * 60, dtype=np.int16)


class Call:
    """A journal and its sealer, one second's chunks, by seconds."""

    def __init__(self, folder: Path) -> None:
        self.quota = SpoolQuota(1 << 30)
        self.plan = make_plan(sample_rate=RATE, chunk_samples=CHUNK)
        self.spool = Spool.create(folder, "call", self.plan.to_dict())
        self.sealer = Sealer(self.spool, self.quota, self.plan)
        self.writer = JournalWriter(self.spool.journal, self.quota)
        self.writer.append(Kind.TRACK, 0, 0, 0, b'{"name": "user", "source": "capture"}')

    def speak(self, start: float, end: float, rate: int = 16000) -> None:
        count = rate // 50
        for index in range(round(start * 50), round(end * 50)):
            at = (index + 1) * NS // 50
            first = index * count % len(VOICE)
            pcm = VOICE[first : first + count].tobytes()
            self.writer.append(Kind.AUDIO, 0, at, at, pcm, rate, 1)

    def look(self, now: float) -> list[int]:
        return [chunk.number for chunk in self.sealer.step(round(now * NS))]

    def close(self) -> None:
        self.writer.close()
        self.sealer.close()
        self.spool.remove(self.quota)


@pytest.fixture
def call(tmp_path: Path) -> Call:
    return Call(tmp_path)


def test_a_chunk_is_sealed_when_the_hold_back_has_passed(call: Call) -> None:
    call.speak(0, 5, rate=24000)
    assert call.look(2.99) == []
    assert call.look(3.0) == [1]
    assert call.look(4.9) == [2]
    call.close()


def test_silence_is_sealed_on_time_too(call: Call) -> None:
    assert call.look(12.0) == list(range(1, 11))
    call.close()


def test_a_speaker_who_has_fallen_silent_holds_nothing_up(call: Call) -> None:
    """The resampler waits for input that does not come: the run has ended, and that is enough."""
    call.speak(0, 1.13)
    assert call.look(5.2) == [1, 2, 3]
    call.close()


def test_speech_in_need_of_resampling_waits_for_its_context_and_no_longer(call: Call) -> None:
    call.speak(0, 1.0)
    call.sealer.timeline.look_ahead_ns = 0
    call.sealer.timeline.reach = 0
    assert call.look(1.0) == []
    call.speak(1.0, 1.02)
    assert call.look(1.021) == [1]
    call.close()


def test_the_journal_shrinks_as_chunks_are_sealed(call: Call) -> None:
    most = 0
    for second in range(50):
        call.speak(second, second + 1)
        call.look(second + 1)
        most = max(most, len(list(call.spool.journal.glob("*.journal"))))
        assert len(list(call.spool.journal.iterdir())) <= 2 + MOST_SPARES
    written = 50 * 16000 * 2
    assert written > 1.5 * SEGMENT_BYTES
    assert most <= 2
    call.close()


def test_segments_are_used_again_and_let_go_where_room_is_short(call: Call) -> None:
    call.speak(0, 200)
    call.look(160)
    spares = list(call.spool.journal.glob("*.spare"))
    assert len(spares) == MOST_SPARES
    held = call.quota.used
    call.speak(200, 240)
    call.writer.prepare()
    assert call.quota.used == held
    assert len(list(call.spool.journal.glob("*.spare"))) < MOST_SPARES
    assert call.look(240) == list(range(159, 239))
    assert [chunk.number for chunk in call.sealer.sealed] == list(range(1, 239))
    assert list(call.spool.journal.glob("*.spare"))
    call.quota.limit = call.quota.used
    call.speak(240, 242)
    assert call.look(242) == [239, 240]
    assert not list(call.spool.journal.glob("*.spare"))
    sizes = [path.stat().st_size for path in call.spool.path.glob("*/*")]
    reserve = call.spool.path / "reserve"
    assert call.quota.used == sum(sizes) + (reserve.stat().st_size if reserve.exists() else 0)
    call.close()


def test_a_checkpoint_of_another_version_is_not_read(call: Call) -> None:
    call.speak(0, 10)
    call.look(10)
    path = call.spool.path / "checkpoint.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"version": 1}))
    sealer = Sealer(call.spool, call.quota, call.plan)
    with pytest.raises(BotRecorderError, match="has version 1, this program reads 2"):
        sealer.restore()
    call.close()


def test_a_checkpoint_says_where_to_go_on(call: Call) -> None:
    call.speak(0, 10)
    call.look(10)
    checkpoint = json.loads((call.spool.path / "checkpoint.json").read_text())
    assert [chunk["number"] for chunk in checkpoint["sealed"]] == list(range(1, 9))
    assert checkpoint["timeline"]["tracks"][0]["name"] == "user"
    assert checkpoint["journal"]["segment"] == 1
    call.close()


def test_a_full_spool_delays_sealing_and_loses_nothing(call: Call) -> None:
    call.speak(0, 5)
    call.quota.limit = 0
    with pytest.raises(SpoolFull):
        call.look(5)
    assert call.sealer.sealed == []
    assert list(call.spool.chunks.iterdir()) == []
    call.quota.limit = 1 << 30
    assert call.look(5) == [1, 2, 3]
    call.close()


def test_a_chunk_says_what_it_is(call: Call) -> None:
    call.speak(0, 2, rate=24000)
    call.writer.append(Kind.STOP, NO_TRACK, 2 * NS, 2 * NS, b'{"discard_unheard": false}')
    call.sealer.step(2 * NS, final=True)
    first, second = call.sealer.sealed
    assert (first.number, first.first_sample, first.samples) == (1, 0, CHUNK)
    assert (second.first_sample, second.end, second.tracks) == (CHUNK, 2 * CHUNK, ("user",))
    assert (
        call.sealer.chunk_path(call.sealer.sealed[0]).stat().st_size
        == first.bytes
        == 80 + 2 * CHUNK
    )
    assert call.sealer.finished
    call.close()


def full_disk(*args: object) -> None:
    raise OSError(28, "No space left on device")


def test_with_room_set_aside_a_chunk_is_sealed_on_a_full_disk(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    call.speak(0, 5)
    call.sealer.set_room_aside()
    with monkeypatch.context() as patch:
        patch.setattr("os.posix_fallocate", full_disk)
        with pytest.raises(SpoolFull):
            call.look(5)
        assert [chunk.number for chunk in call.sealer.sealed] == [1]
    assert call.look(5) == [2, 3]
    assert (call.spool.path / "reserve").exists()
    call.close()


def test_room_is_set_aside_again_after_a_chunk_and_given_back_at_the_end(call: Call) -> None:
    call.sealer.set_room_aside()
    call.speak(0, 4)
    call.look(4)
    held = call.spool.path / "reserve"
    assert held.stat().st_size >= 80 + 2 * CHUNK
    files = [*call.spool.chunks.iterdir(), *call.spool.journal.iterdir(), held]
    assert call.quota.used == sum(path.stat().st_size for path in files)
    call.writer.append(Kind.STOP, NO_TRACK, 4 * NS, 4 * NS, b'{"discard_unheard": false}')
    call.sealer.step(4 * NS, final=True)
    assert not held.exists()
    files.remove(held)
    assert call.quota.used == sum(path.stat().st_size for path in call.spool.path.glob("*/*"))
    call.close()


def test_a_chunk_wider_than_the_room_set_aside_waits_or_gets_more(call: Call) -> None:
    call.sealer.set_room_aside()
    for index in range(1, 6):
        body = json.dumps({"name": f"guest-{index}", "source": "capture"}).encode()
        call.writer.append(Kind.TRACK, index, 0, 0, body)
    call.speak(0, 4)
    room, call.quota.limit = call.quota.limit, call.quota.used
    held = (call.spool.path / "reserve").stat().st_size
    with pytest.raises(SpoolFull):
        call.look(4)
    assert (call.spool.path / "reserve").stat().st_size == held
    call.quota.limit = room
    assert call.look(4) == [1, 2]
    assert call.sealer.chunk_path(call.sealer.sealed[0]).stat().st_size == 80 + 2 * CHUNK * 6
    call.close()


def test_without_a_checkpoint_the_journal_stays_and_the_next_look_writes_it(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    call.speak(0, 60)
    before = sorted(call.spool.journal.iterdir())
    assert len(before) > 1
    with monkeypatch.context() as patch:
        patch.setattr(call.spool, "write", full_disk)
        assert call.look(40) == list(range(1, 39))
        assert call.look(40.5) == []
        assert call.look(41) == [39]
    assert sorted(call.spool.journal.iterdir()) == before
    assert call.look(41.1) == []
    assert len(list(call.spool.journal.glob("*.journal"))) < len(before)
    checkpoint = json.loads((call.spool.path / "checkpoint.json").read_text())
    assert len(checkpoint["sealed"]) == 39
    call.close()


def test_a_chunk_that_is_lost_later_is_lost_in_the_next_checkpoint(call: Call) -> None:
    call.speak(0, 10)
    assert call.look(4) == [1, 2]
    call.sealer.sealed[0] = replace(call.sealer.sealed[0], lost=True)
    assert call.look(5) == [3]
    checkpoint = json.loads((call.spool.path / "checkpoint.json").read_text())
    assert [chunk["lost"] for chunk in checkpoint["sealed"]] == [True, False, False]
    call.close()


def test_room_is_made_for_a_checkpoint(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what may go: a file that is in the store, too."""
    write, tries = call.spool.write, []

    def full_once(name: str, text: str) -> None:
        tries.append(name)
        if len(tries) == 1:
            full_disk()
        write(name, text)

    asked = []

    def make_room(count: int, *, drop: bool) -> bool:
        asked.append(drop)
        return True

    monkeypatch.setattr(call.spool, "write", full_once)
    monkeypatch.setattr(call.quota, "make_room", make_room)
    call.speak(0, 4)
    assert call.look(4) == [1, 2]
    assert (len(tries), asked) == (2, [True])
    assert (call.spool.path / "checkpoint.json").exists()
    call.close()


def lost(call: Call, at: float, until: float, **more: object) -> None:
    body = {"track": "user", "frames": 1, "reason": "full", **more}
    call.writer.append(
        Kind.LOST, NO_TRACK, int(at * NS), int(until * NS), json.dumps(body).encode()
    )


def test_a_gap_noted_at_its_beginning_and_its_end_is_one(call: Call) -> None:
    call.speak(0, 1)
    lost(call, 1, 1.02, open=True)
    call.look(3.5)
    assert [(gap.start, gap.end) for gap in call.sealer.timeline.lost] == [(RATE, None)]
    lost(call, 1, 3)
    call.speak(3, 4)
    lost(call, 4, 4.02, open=True)
    call.look(6)
    call.look(7)
    gaps = [(gap.start, gap.end) for gap in call.sealer.timeline.lost]
    assert gaps == [(RATE, 3 * RATE), (4 * RATE, None)]
    call.close()


def test_a_recording_that_is_cut_off_ends_with_what_was_written_last(call: Call) -> None:
    """Also where a checkpoint has all of it, and nothing is left to be read again."""
    call.speak(0, 2.2)
    call.writer.append(Kind.PAUSE, NO_TRACK, round(2.6 * NS), round(2.6 * NS))
    assert call.look(3.9) == [1]
    call.sealer.close()
    call.sealer = Sealer(call.spool, call.quota, call.plan)
    call.sealer.restore()
    call.sealer.seal_all()
    assert call.sealer.sealed_samples == round(2.6 * RATE)
    call.close()


# -- what the open chunk has begun with is not rendered again ------------------------------------


@pytest.fixture
def rendered(call: Call, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What is rendered, [first sample, end)."""
    spans: list[tuple[int, int]] = []
    planes = call.sealer._renderer.planes

    def noted(start: int, end: int, *rest: Any) -> Any:
        spans.append((start, end))
        return planes(start, end, *rest)

    monkeypatch.setattr(call.sealer._renderer, "planes", noted)
    return spans


def twin(call: Call, folder: Path) -> bytes:
    """The first chunk's file as a sealer makes it that has not begun with anything."""
    other = Sealer(call.spool, SpoolQuota(1 << 30), call.plan)
    other.reserve = Reserve(folder / "another", SpoolQuota(1 << 30))
    other._spool = Spool.create(folder, "twin", call.plan.to_dict())
    chunk = other.step(round(3.0 * NS))[0]
    other.close()
    return other.chunk_path(chunk).read_bytes()


def test_a_chunk_goes_on_from_what_is_in_its_file_already(
    call: Call, rendered: list[tuple[int, int]], tmp_path: Path
) -> None:
    call.sealer.set_room_aside()
    call.speak(0, 5)
    found = call.sealer.open_chunk(round(2.6 * NS), CHUNK // 2)
    assert found is not None
    assert rendered == [(0, CHUNK // 2)]
    assert call.look(3.0) == [1]
    assert rendered[1:] == [(CHUNK // 2, CHUNK)]
    chunk = call.sealer.sealed[0]
    data = call.sealer.chunk_path(chunk).read_bytes()
    assert data == twin(call, tmp_path)
    assert (len(data), crc64nvme(data)) == (chunk.bytes, chunk.checksum)
    head = len(data) - 2 * CHUNK
    assert bytes(found[1][head:]) == data[head : head + CHUNK]
    assert crc64nvme(found[1]) == found[0].checksum
    call.close()


@pytest.mark.parametrize("what", ["a track joins", "the room is gone", "another file's room"])
def test_what_cannot_be_gone_on_from_is_rendered_anew(
    call: Call, rendered: list[tuple[int, int]], tmp_path: Path, what: str
) -> None:
    call.sealer.set_room_aside()
    reserve = tmp_path / "call" / "reserve"
    size = call.sealer.reserve.size
    call.speak(0, 1.5)
    if what == "a track joins":  # and is known only when the chunk is sealed
        told, at = b'{"name": "bot", "source": "playout"}', round(1.8 * NS)
        call.writer.append(Kind.TRACK, 1, at, at, told)
    assert call.sealer.open_chunk(round(2.6 * NS), CHUNK // 2) is not None
    if what != "a track joins":
        reserve.rename(tmp_path / "kept")  # so that the new one is another
        if what == "another file's room":
            reserve.write_bytes(b"\xff" * size)
        else:
            with pytest.raises(FileNotFoundError):
                call.look(3.0)
        rendered.clear()
    assert call.look(3.0) == [1]
    assert rendered[-1] == (0, CHUNK)
    chunk = call.sealer.sealed[0]
    data = call.sealer.chunk_path(chunk).read_bytes()
    assert data == twin(call, tmp_path)
    assert (len(data), crc64nvme(data)) == (chunk.bytes, chunk.checksum)
    call.close()
