"""When chunks are sealed, what is kept for later, and that a restart would find its place."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from plans import make_plan

from recorder.journal import SEGMENT_BYTES, JournalWriter
from recorder.quota import SpoolFull, SpoolQuota
from recorder.records import NO_TRACK, Kind
from recorder.sealer import Sealer
from recorder.spool import Spool
from recorder.timeline import NS

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
            pcm = VOICE[index * count : (index + 1) * count].tobytes()
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
    call.speak(0, 1.04)
    call.sealer.timeline.look_ahead_ns = 0
    call.sealer.timeline.reach = 0
    assert call.look(1.04) == []
    call.speak(1.04, 1.06)
    assert call.look(1.06) == [1]
    call.close()


def test_the_journal_shrinks_as_chunks_are_sealed(call: Call) -> None:
    most = 0
    for second in range(50):
        call.speak(second, second + 1)
        call.look(second + 1)
        most = max(most, len(list(call.spool.journal.iterdir())))
    written = 50 * 16000 * 2
    assert written > 1.5 * SEGMENT_BYTES
    assert most <= 2
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
    assert call.sealer.chunk_path(1).stat().st_size == first.bytes == 80 + 2 * CHUNK
    assert call.sealer.finished
    call.close()
