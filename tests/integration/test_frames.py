"""What a frame may be: encodings, cut samples, media timestamps, playback positions."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from calls import FRAME, RATE, VOICE, manifest, samples, settings_in, speak

from recorder import Recorder, VirtualClock
from recorder.stores import make_store

TELEPHONE = 8000


def g711(pcm: np.ndarray, subtype: str) -> bytes:
    """Encode by libsndfile."""
    body = io.BytesIO()
    soundfile.write(body, pcm, TELEPHONE, format="RAW", subtype=subtype)
    return body.getvalue()


@pytest.mark.parametrize(("encoding", "subtype"), [("mulaw", "ULAW"), ("alaw", "ALAW")])
async def test_telephony_is_decoded(tmp_path: Path, encoding: str, subtype: str) -> None:
    clock = VirtualClock(50.0)
    voice = VOICE[: 3 * TELEPHONE]
    encoded = g711(voice, subtype)
    async with Recorder(settings_in(tmp_path, sample_rate=TELEPHONE), clock=clock) as recorder:
        call = await recorder.start()
        for index in range(150):
            clock.advance_to(call.zero + (index + 1) / 50)
            call.write("user", encoded[index * 160 : (index + 1) * 160], 8000, encoding=encoding)
        result = await call.stop()
    assert (result.state, result.duration_seconds) == ("completed", 3.0)
    expected, _ = soundfile.read(
        io.BytesIO(encoded),
        dtype="int16",
        samplerate=TELEPHONE,
        channels=1,
        format="RAW",
        subtype=subtype,
    )
    np.testing.assert_array_equal(samples(tmp_path), expected)


@pytest.mark.parametrize("channels", [1, 2, 3])
async def test_a_byte_stream_cut_anywhere_is_joined_again(tmp_path: Path, channels: int) -> None:
    clock = VirtualClock(50.0)
    voice = np.repeat(VOICE[:RATE], channels).tobytes()
    draw = np.random.default_rng(7)
    cuts = [0, *sorted(draw.integers(0, len(voice), 60).tolist()), len(voice)]
    async with Recorder(settings_in(tmp_path), clock=clock) as recorder:
        call = await recorder.start()
        for start, end in pairwise(cuts):
            clock.advance_to(call.zero + end // (2 * channels) / RATE)
            call.write("user", voice[start:end], RATE, channels)
        clock.advance_to(call.zero + 1)
        result = await call.stop()
    assert result.samples == RATE
    np.testing.assert_array_equal(samples(tmp_path), VOICE[:RATE])


async def test_a_cut_sample_is_not_carried_into_another_format(tmp_path: Path) -> None:
    clock = VirtualClock(50.0)
    async with Recorder(settings_in(tmp_path), clock=clock) as recorder:
        call = await recorder.start()
        clock.advance(0.02)
        call.write("user", VOICE[:480].tobytes() + b"x", RATE)
        clock.advance(0.02)
        call.write("user", VOICE[:480].tobytes(), RATE, 2)
        clock.advance(0.02)
        call.write("user", VOICE[480:960].tobytes(), RATE)
        await call.stop()
    heard = samples(tmp_path)
    np.testing.assert_array_equal(heard[:480], VOICE[:480])
    np.testing.assert_array_equal(heard[720:1200], VOICE[480:960])


async def test_timestamps_and_playback_positions_survive_a_restart_of_reading(
    tmp_path: Path,
) -> None:
    """They are in the journal: what is lost of a call is known from it alone."""
    clock = VirtualClock(50.0)
    async with Recorder(settings_in(tmp_path, outputs=("tracks",)), clock=clock) as recorder:
        call = await recorder.start()
        for index in range(100):
            clock.advance_to(call.zero + (index + 1) / 50)
            pcm = VOICE[index * FRAME : (index + 1) * FRAME].tobytes()
            if not 50 <= index < 52:  # two packets are lost
                call.write("user", pcm, RATE, pts=9000 + index / 50)
            if index == 10:
                call.write("bot", VOICE[:RATE].tobytes(), RATE)  # a second, all at once
            if index == 30:
                call.played("bot", 0.25)
        call.interrupt("bot")
        await call.stop()
    user, bot = samples(tmp_path, "user.wav"), samples(tmp_path, "bot.wav")
    expected = VOICE[: 100 * FRAME].copy()
    expected[50 * FRAME : 52 * FRAME] = 0
    np.testing.assert_array_equal(user, expected)
    begun = round((31 / 50 - 0.25) * RATE)
    np.testing.assert_array_equal(bot[begun : begun + RATE], VOICE[:RATE])
    assert not bot[:begun].any()


async def test_when_sample_zero_was_is_told_by_both_clocks(tmp_path: Path) -> None:
    utc = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
    clock = VirtualClock(50.0, utc)
    settings = settings_in(tmp_path, keep_chunks=True)
    async with Recorder(settings, clock=clock) as recorder:
        clock.advance(10)
        call = await recorder.start()
        speak(call, clock, 0, 1.5)
        await call.stop()
        told = manifest(tmp_path)
        assert told["started_monotonic"] == call.zero == 60
        assert datetime.fromisoformat(told["started_at"]) == utc + timedelta(seconds=10)
    async with make_store(settings) as store:
        keys = [info.key async for info in store.list_objects() if info.key.endswith(".wav")]
        assert len(keys) == 3
        for key in keys:
            metadata = (await store.head(key)).metadata
            assert metadata["recorder-started-at"] == told["started_at"]
            assert metadata["recorder-started-monotonic"] == "60.000000"


async def test_a_stalled_microphone_is_waited_for_while_it_may_come_back(tmp_path: Path) -> None:
    clock = VirtualClock(50.0)
    settings = settings_in(tmp_path, stall_seconds=4.0, keep_chunks=True)
    async with Recorder(settings, clock=clock) as recorder:
        call = await recorder.start()
        speak(call, clock, 0, 2.5)
        clock.advance_to(call.zero + 6)
        assert await call.settled() == round(2.5 * RATE)
        await call.flush()
        assert len(list(tmp_path.glob("bucket/dt=*/*/chunks/0*"))) == 2
        for index in range(125, 300):
            call.write("user", VOICE[index * FRAME : (index + 1) * FRAME].tobytes(), RATE)
        speak(call, clock, 6, 8)
        assert await call.settled() == 6 * RATE
        await call.stop()
    np.testing.assert_array_equal(samples(tmp_path), VOICE[: 8 * RATE])
    assert manifest(tmp_path)["stall_seconds"] == 4.0
