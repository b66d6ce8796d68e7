"""Files read as frames, turns found by level, and the pace at which frames are played."""

from __future__ import annotations

import asyncio
import struct
import wave
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from recorder.containers.wav import wav_header
from recorder.player import (
    LOUD_RMS,
    MIN_PAUSE_SECONDS,
    InputError,
    Player,
    TurnGate,
    level,
    open_wav,
)
from recorder.session import Session
from uploader.clock import VirtualClock


def samples_of(count: int, channels: int = 1) -> np.ndarray[Any, np.dtype[np.int16]]:
    return np.random.default_rng(count).integers(-9000, 9000, (count, channels)).astype(np.int16)


def write_wav(path: Path, samples: np.ndarray[Any, Any], rate: int) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return path


class Call:
    """Stands in for a session; takes note of what is written, and when."""

    def __init__(self, clock: VirtualClock, flush_takes: float = 0.0) -> None:
        self.zero = clock.monotonic()
        self.clock = clock
        self.written: list[tuple[str, bytes, int, int, float, float]] = []
        self.turns: list[tuple[str, str, float]] = []
        self.flushes: list[float] = []
        self.last_mark = 0.0
        self.flush_takes = flush_takes
        self.flushing = asyncio.Event()

    def write(self, track: str, pcm: bytes, rate: int, channels: int = 1, at: float = 0) -> None:
        now = self.clock.monotonic() - self.zero
        self.written.append((track, bytes(pcm), rate, channels, at - self.zero, now))

    def start_turn(self, track: str, at: float) -> None:
        self.turns.append(("start", track, round(at - self.zero, 3)))

    def end_turn(self, track: str, at: float) -> None:
        self.turns.append(("end", track, round(at - self.zero, 3)))
        self.last_mark = self.clock.monotonic() - self.zero

    async def flush(self) -> None:
        self.flushes.append(round(self.clock.monotonic() - self.zero, 3))
        self.flushing.set()
        await asyncio.sleep(self.flush_takes)


async def play(*paths: tuple[str, Path], flush_takes: float = 0.0, **options: Any) -> Call:
    """Play files as fast as possible on a clock that does not begin at zero."""
    clock = VirtualClock(1000.0)
    call = Call(clock, flush_takes)
    options.setdefault("speed", 0)
    files = []
    contexts = []
    for track, path in paths:
        contexts.append(open_wav(path))
        files.append((track, contexts[-1].__enter__()))
    try:
        await Player(files, clock=clock, **options).play(cast("Session", call))
    finally:
        for context in contexts:
            context.__exit__(None, None, None)
    return call


# -- files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 24000, 44100, 48000])
def test_frames_are_20_ms_and_hold_every_sample(tmp_path: Path, rate: int) -> None:
    samples = samples_of(rate + 77, 2)
    with open_wav(write_wav(tmp_path / "a.wav", samples, rate)) as file:
        assert (file.sample_rate, file.channels, file.samples) == (rate, 2, rate + 77)
        frames = list(file.frames())
    assert b"".join(frame for frame, _ in frames) == samples.tobytes()
    ends = [end for _, end in frames]
    assert ends[:-1] == [(index + 1) * rate // 50 for index in range(len(ends) - 1)]
    assert ends[-1] == rate + 77


def test_a_large_chunk_before_the_samples_is_skipped(tmp_path: Path) -> None:
    samples = samples_of(1000)
    plain = wav_header(1000, 24000, 1)
    cover = struct.pack("<4sI", b"LIST", 100_000) + bytes(100_000)
    path = tmp_path / "cover.wav"
    path.write_bytes(plain[:12] + cover + plain[12:] + samples.tobytes())
    with open_wav(path) as file:
        assert b"".join(frame for frame, _ in file.frames()) == samples.tobytes()


def test_what_follows_the_samples_is_not_played(tmp_path: Path) -> None:
    samples = samples_of(1000)
    path = tmp_path / "tail.wav"
    path.write_bytes(wav_header(1000, 24000, 1) + samples.tobytes() + b"LIST\4\0\0\0loud")
    with open_wav(path) as file:
        assert b"".join(frame for frame, _ in file.frames()) == samples.tobytes()


@pytest.mark.parametrize(("claimed", "cut_off"), [(2000, True), (1000, False), (2**31 - 1, False)])
def test_a_file_is_as_long_as_the_samples_there(
    tmp_path: Path, claimed: int, cut_off: bool
) -> None:
    path = tmp_path / "short.wav"
    path.write_bytes(wav_header(claimed, 24000, 1) + samples_of(1000).tobytes() + b"\1")
    with open_wav(path) as file:
        assert (file.samples, file.cut_off) == (1000, cut_off)
        assert sum(len(frame) for frame, _ in file.frames()) == 2000


def test_a_file_that_shrinks_while_it_is_played_just_ends(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", samples_of(400_000), 24000)
    with open_wav(path) as file:
        frames = file.frames()
        next(frames)
        path.write_bytes(path.read_bytes()[:44])
        assert sum(len(frame) for frame, _ in frames) < 800_000


def eight_bit(path: Path) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(8000)
        file.writeframes(bytes(800))


def float_samples(path: Path) -> None:
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, 1, 8000, 32000, 4, 32)
    path.write_bytes(b"RIFF\0\0\0\0WAVE" + fmt + b"data\0\0\0\0")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.mkdir(), "not a regular file"),
        (lambda path: path.write_bytes(b""), "not a WAV"),
        (lambda path: path.write_bytes(b"fLaC" * 100), "not a WAV"),
        (eight_bit, "8 bits"),
        (float_samples, "32 bits"),
        (lambda path: path.write_bytes(wav_header(10, 3000, 1) + bytes(20)), "3000 Hz"),
        (lambda path: path.write_bytes(wav_header(10, 8000, 33) + bytes(660)), "33 channels"),
        (lambda path: path.write_bytes(wav_header(0, 8000, 1) + bytes(20)), "20 bytes follow"),
        (lambda path: path.write_bytes(wav_header(10, 8000, 1)[:50]), "no samples begin"),
    ],
    ids=[
        "missing",
        "folder",
        "empty",
        "flac",
        "8-bit",
        "float",
        "slow",
        "channels",
        "size-0",
        "cut-header",
    ],
)
def test_what_cannot_be_played_is_told_with_the_files_name(
    tmp_path: Path, make: Any, says: str
) -> None:
    path = tmp_path / "input.wav"
    make(path)
    with pytest.raises(InputError, match=says) as caught, open_wav(path):
        pass
    assert "input.wav" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_sample_formats_are_answered_with_what_is_allowed(tmp_path: Path) -> None:
    eight_bit(tmp_path / "a.wav")
    with pytest.raises(InputError) as caught, open_wav(tmp_path / "a.wav"):
        pass
    assert "16-bit PCM" in caught.value.hint


# -- turns -------------------------------------------------------------------------------------


def turns_of(levels: str) -> list[tuple[str, float]]:
    """Return the marks for frames of 20 ms, `#` loud and `.` quiet."""
    gate = TurnGate()
    marks = [
        gate.feed(LOUD_RMS if one == "#" else LOUD_RMS - 1, index / 50, (index + 1) / 50)
        for index, one in enumerate(levels)
    ]
    return [mark for mark in marks if mark is not None]


def test_a_turn_begins_and_ends_where_the_sound_does() -> None:
    pause = round(MIN_PAUSE_SECONDS * 50)
    assert turns_of("." * 5 + "#" * 10 + "." * pause) == [("start", 0.1), ("end", 0.3)]


def test_a_shorter_pause_does_not_end_a_turn() -> None:
    pause = round(MIN_PAUSE_SECONDS * 50) - 1
    assert turns_of("#" * 10 + "." * pause + "#" * 10 + "." * 40) == [
        ("start", 0.0),
        ("end", (20 + pause) / 50),
    ]


def test_a_click_is_no_turn() -> None:
    assert turns_of("..##" * 20 + "." * 40) == []


def test_the_level_of_silence_and_of_full_scale() -> None:
    assert level(bytes(640)) == 0
    assert level(b"") == 0
    assert level(struct.pack("<2h", 32767, -32768) * 100) == pytest.approx(32767.5, abs=0.01)


async def test_a_turn_ends_although_its_file_is_over(tmp_path: Path) -> None:
    short = write_wav(tmp_path / "short.wav", np.full((24000, 1), 5000), 24000)
    long = write_wav(tmp_path / "long.wav", np.zeros((24000 * 4, 1)), 24000)
    call = await play(("user", short), ("bot", long), mark_turns=True)
    assert call.turns == [("start", "user", 0.0), ("end", "user", 1.0)]
    assert call.last_mark == pytest.approx(1.0 + MIN_PAUSE_SECONDS)
    assert call.clock.monotonic() == pytest.approx(call.zero + 4)


async def test_a_turn_that_goes_on_at_the_end_is_ended(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", np.full((24000, 1), 5000), 24000)
    call = await play(("user", path), mark_turns=True)
    assert call.turns == [("start", "user", 0.0), ("end", "user", 1.0)]


# -- pace --------------------------------------------------------------------------------------


async def test_every_frame_arrives_when_its_last_sample_does(tmp_path: Path) -> None:
    user = write_wav(tmp_path / "u.wav", samples_of(11025 + 5), 11025)
    bot = write_wav(tmp_path / "b.wav", samples_of(48000 * 2, 2), 48000)
    call = await play(("user", user), ("bot", bot))
    for track, rate in (("user", 11025), ("bot", 48000)):
        position = 0
        for name, pcm, its_rate, channels, at, now in call.written:
            if name == track:
                position += len(pcm) // (2 * channels)
                assert its_rate == rate
                assert at == pytest.approx(position / rate)
                assert 0 <= now - at + 1e-9 < 0.02
    assert call.clock.monotonic() == pytest.approx(call.zero + 2.0)


async def test_the_call_is_as_long_as_the_longest_file(tmp_path: Path) -> None:
    user = write_wav(tmp_path / "u.wav", samples_of(1001), 8000)
    call = await play(("user", user))
    assert call.clock.monotonic() - call.zero == pytest.approx(1001 / 8000)


async def test_a_store_that_keeps_up_is_waited_for_every_so_often(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", samples_of(8000 * 10), 8000)
    call = await play(("user", path), flush_seconds=3.0)
    assert call.flushes == [3.0, 6.0, 9.0]


async def test_a_store_that_does_not_answer_is_given_up_waiting_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = []

    async def wait(tasks: Any, **options: Any) -> None:
        waited.append(options["timeout"])
        await asyncio.sleep(0)

    monkeypatch.setattr("recorder.player.asyncio.wait", wait)
    path = write_wav(tmp_path / "a.wav", samples_of(8000 * 4), 8000)
    call = await play(("user", path), flush_seconds=1.0, patience_seconds=30.0, flush_takes=3600.0)
    assert waited == [30.0, 1.0, 1.0, 1.0]
    assert sum(len(written[1]) for written in call.written) == 64_000


async def test_stop_ends_the_wait_for_a_store(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", samples_of(8000 * 4), 8000)
    clock = VirtualClock()
    call = Call(clock, flush_takes=3600.0)
    with open_wav(path) as file:
        player = Player(
            [("user", file)], clock=clock, speed=0, flush_seconds=1.0, patience_seconds=3600.0
        )
        playing = asyncio.create_task(player.play(cast("Session", call)))
        await call.flushing.wait()
        player.stop()
        await playing
    assert clock.monotonic() == pytest.approx(1.0)


async def test_progress_comes_to_the_whole_length(tmp_path: Path) -> None:
    told: list[float] = []
    path = write_wav(tmp_path / "a.wav", samples_of(8000), 8000)
    await play(("user", path), on_progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert len(told) == 11


async def test_stop_ends_playing(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", samples_of(80_000), 8000)
    clock = VirtualClock()
    with open_wav(path) as file:
        player = Player(
            [("user", file)],
            clock=clock,
            speed=0,
            on_progress=lambda seconds: player.stop() if seconds >= 2 else None,
        )
        await player.play(cast("Session", Call(clock)))
    assert clock.monotonic() == pytest.approx(2.0)


async def test_a_speed_takes_that_part_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal slept
        slept += seconds

    monkeypatch.setattr("recorder.player.time.monotonic", lambda: 50.0 + slept)
    monkeypatch.setattr("recorder.player.asyncio.sleep", sleep)
    path = write_wav(tmp_path / "a.wav", samples_of(16_000), 8000)
    await play(("user", path), speed=4.0)
    assert slept == pytest.approx(0.5, abs=0.005)


@pytest.mark.parametrize("speed", [-1.0, float("nan"), float("inf")])
def test_impossible_speeds(speed: float) -> None:
    with pytest.raises(ValueError, match="speed"):
        Player([], clock=VirtualClock(), speed=speed)


def test_the_systems_clock_has_one_speed() -> None:
    with pytest.raises(ValueError, match="speed"):
        Player([], speed=2.0)
