"""What programs rely on in Pipecat's recorder, asked of it and of ours: the same test for both.

Frames are handed to the processor in real time. What is ours alone is in `test_pipecat.py`.
"""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from headless import FrameDirection, Stage, Witness, noise, until
from loguru import logger
from numpy.typing import NDArray
from pipecat.frames.frames import (
    AudioBufferStartRecordingFrame,
    AudioBufferStopRecordingFrame,
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    CancelFrame,
    EndFrame,
    Frame,
    InputAudioRawFrame,
    InterruptionFrame,
    OutputAudioRawFrame,
    TextFrame,
    TTSAudioRawFrame,
    UserAudioRawFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from pipecat.processors.audio.audio_buffer_processor import AudioBufferProcessor, TurnAudioData
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.utils import deprecation

from recorder.pipecat import RecorderProcessor

pytestmark = pytest.mark.realtime

RATE = 24_000
FRAME = RATE // 50
UPSTREAM, DOWNSTREAM = FrameDirection.UPSTREAM, FrameDirection.DOWNSTREAM
EITHER = (AudioBufferProcessor, RecorderProcessor)
Samples = NDArray[np.int16]


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that ours needs beside the import: where recordings go."""
    # Pipecat warns of a line of code once in the life of a process.
    deprecation._warned_sites.clear()
    monkeypatch.setenv("RECORDER_BUCKET", (tmp_path / "bucket").as_uri())
    monkeypatch.setenv("RECORDER_SPOOL_DIR", str(tmp_path / "spool"))
    monkeypatch.setenv("RECORDER_HOLD_BACK_SECONDS", "0.2")


class Rig:
    """A processor on its stage, and what it has told its handlers."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self.stage = Stage(processor)
        self.told: list[tuple[str, tuple[Any, ...]]] = []

    def listen(self, *names: str) -> None:
        for name in names:
            self.processor.add_event_handler(name, self._noting(name))

    def _noting(self, name: str) -> Callable[..., None]:
        def note(processor: Any, *arguments: Any) -> None:
            assert processor is self.processor
            self.told.append((name, arguments))

        return note

    def named(self, name: str) -> list[tuple[Any, ...]]:
        return [arguments for told, arguments in self.told if told == name]

    async def push(self, *frames: Frame, direction: FrameDirection = DOWNSTREAM) -> None:
        for frame in frames:
            await self.stage.push(frame, direction)

    async def live(self, user: bytes = b"", bot: bytes = b"") -> None:
        """Let everybody speak at once, in frames of 20 ms, as long as it takes."""
        began, size = time.monotonic(), FRAME * 2
        for start in range(0, max(len(user), len(bot)), size):
            due = began + (start // size + 1) / 50
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if audio := user[start : start + size]:
                await self.push(InputAudioRawFrame(audio, RATE, 1))
            if audio := bot[start : start + size]:
                await self.push(TTSAudioRawFrame(audio, RATE, 1))

    async def user_says(self, audio: bytes) -> None:
        await self.push(UserStartedSpeakingFrame())
        await self.live(user=audio)
        await self.push(UserStoppedSpeakingFrame())

    async def bot_says(self, audio: bytes) -> None:
        await self.push(BotStartedSpeakingFrame())
        await self.live(bot=audio)
        await self.push(BotStoppedSpeakingFrame())

    async def until(self, name: str, times: int = 1) -> list[tuple[Any, ...]]:
        await until(lambda: len(self.named(name)) >= times)
        return self.named(name)


@asynccontextmanager
async def on(kind: type[Any], **options: Any) -> AsyncIterator[Rig]:
    # In its usual mode a processor has a queue: the tests would not know what it has seen.
    rig = Rig(kind(enable_direct_mode=True, **options))
    await rig.stage.start()
    try:
        yield rig
    finally:
        await rig.processor.cleanup()


def samples(pcm: bytes) -> Samples:
    return np.frombuffer(pcm, "<i2")


def sounding(pcm: bytes | Samples) -> bytes:
    """Return what is not silence; the noise of the tests has no sample of 0."""
    audio = samples(pcm) if isinstance(pcm, bytes | bytearray) else pcm
    return bytes(audio[audio != 0].tobytes())


# -- before anything is recorded -------------------------------------------------------------------


@pytest.mark.parametrize("kind", EITHER)
async def test_what_it_was_made_with(kind: type[Any]) -> None:
    for options, rate, channels in (
        ({}, RATE, 1),
        ({"sample_rate": 16_000, "num_channels": 2}, 16_000, 2),
        ({"sample_rate": None, "buffer_size": 0, "enable_turn_audio": False}, RATE, 1),
    ):
        made = kind(auto_start_recording=False, **options)
        assert isinstance(made, FrameProcessor)
        assert made.sample_rate == 0
        assert made.num_channels == channels
        async with on(kind, **options) as rig:
            assert rig.processor.sample_rate == rate
            assert rig.processor.num_channels == channels


@pytest.mark.parametrize("kind", EITHER)
async def test_a_name_for_logs_is_taken(kind: type[Any]) -> None:
    assert str(kind(name="the recorder")) == "the recorder"


@pytest.mark.parametrize("kind", EITHER)
async def test_all_arguments_are_by_name(kind: type[Any]) -> None:
    with pytest.raises(TypeError):
        kind(16_000)


@pytest.mark.parametrize("kind", EITHER)
async def test_nothing_is_recorded_unasked(kind: type[Any]) -> None:
    async with on(kind) as rig:
        rig.listen("on_audio_data", "on_recording_started", "on_recording_stopped")
        await rig.live(user=noise(0.1, RATE), bot=noise(0.1, RATE))
        assert not rig.processor.has_audio()
        assert rig.processor.merge_audio_buffers() == b""
        await rig.processor.stop_recording()
        await rig.push(AudioBufferStopRecordingFrame(), EndFrame())
        await asyncio.sleep(0.1)
        assert not rig.told


# -- start and stop --------------------------------------------------------------------------------


async def by_call(rig: Rig, start: bool) -> None:
    await (rig.processor.start_recording() if start else rig.processor.stop_recording())


async def by_frame(rig: Rig, start: bool) -> None:
    await rig.push(AudioBufferStartRecordingFrame() if start else AudioBufferStopRecordingFrame())


async def by_frame_from_behind(rig: Rig, start: bool) -> None:
    frame = AudioBufferStartRecordingFrame() if start else AudioBufferStopRecordingFrame()
    await rig.push(frame, direction=UPSTREAM)


@pytest.mark.parametrize("do", [by_call, by_frame, by_frame_from_behind])
@pytest.mark.parametrize("kind", EITHER)
async def test_it_starts_and_stops(kind: type[Any], do: Callable[..., Any]) -> None:
    user = noise(0.5, RATE)
    async with on(kind, num_channels=2) as rig:
        rig.listen("on_recording_started", "on_recording_stopped", "on_track_audio_data")
        await rig.live(user=noise(0.1, RATE, seed=1))
        await do(rig, True)
        await rig.until("on_recording_started")
        await do(rig, True)
        await rig.live(user=user)
        assert rig.processor.has_audio()
        await do(rig, False)
        assert not rig.processor.has_audio()
        await do(rig, False)
        await rig.live(user=noise(0.1, RATE, seed=2))
        await rig.until("on_recording_stopped")
        await asyncio.sleep(0.1)
    assert [name for name, _ in rig.told] == [
        "on_recording_started",
        "on_track_audio_data",
        "on_recording_stopped",
    ]
    ((heard, bot, rate, channels),) = rig.named("on_track_audio_data")
    assert sounding(heard) == user
    assert not samples(bot).any()
    assert (len(heard), rate, channels) == (len(bot), RATE, 2)


@pytest.mark.parametrize("kind", EITHER)
async def test_a_handler_that_is_added_after_the_start_is_not_told_of_it(kind: type[Any]) -> None:
    async with on(kind) as rig:
        await rig.processor.start_recording()
        rig.listen("on_recording_started")
        await rig.processor.start_recording()
        await rig.live(user=noise(0.3, RATE))
        assert not rig.told


@pytest.mark.parametrize("kind", EITHER)
async def test_it_starts_with_the_pipeline_if_it_is_told_to(kind: type[Any]) -> None:
    rig = Rig(kind(enable_direct_mode=True, auto_start_recording=True))
    rig.listen("on_recording_started", "on_audio_data")
    user = noise(0.3, RATE)
    try:
        await rig.stage.set_up()
        assert not rig.told
        await rig.stage.start()
        await rig.live(user=user)
        await rig.push(EndFrame())
        await rig.until("on_audio_data")
    finally:
        await rig.processor.cleanup()
    assert [name for name, _ in rig.told] == ["on_recording_started", "on_audio_data"]
    assert sounding(rig.named("on_audio_data")[0][0]) == user


@pytest.mark.parametrize("kind", EITHER)
async def test_it_can_record_again(kind: type[Any]) -> None:
    calls = [noise(0.2, RATE, seed=seed) for seed in (1, 2)]
    async with on(kind) as rig:
        rig.listen("on_recording_started", "on_audio_data", "on_recording_stopped")
        for number, user in enumerate(calls, 1):
            await rig.processor.start_recording()
            await rig.live(user=user)
            await rig.processor.stop_recording()
            await rig.until("on_recording_stopped", number)
    assert [name for name, _ in rig.told] == [
        *("on_recording_started", "on_audio_data", "on_recording_stopped") * 2
    ]
    assert [sounding(audio) for audio, *_ in rig.named("on_audio_data")] == calls


@pytest.mark.parametrize("last", [EndFrame, CancelFrame])
@pytest.mark.parametrize("kind", EITHER)
async def test_the_end_of_the_pipeline_ends_the_recording(
    kind: type[Any], last: type[Frame]
) -> None:
    user = noise(0.3, RATE)
    async with on(kind, auto_start_recording=True) as rig:
        rig.listen("on_audio_data", "on_recording_stopped")
        await rig.live(user=user)
        await rig.push(last())
        assert not rig.processor.has_audio()
        await rig.until("on_recording_stopped")
        await rig.push(last())
        await rig.processor.cleanup()
    assert [name for name, _ in rig.told] == ["on_audio_data", "on_recording_stopped"]
    assert sounding(rig.named("on_audio_data")[0][0]) == user


# -- audio -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("kind", EITHER)
async def test_what_is_not_handed_on_yet_can_be_had(kind: type[Any], channels: int) -> None:
    user, bot = noise(0.4, RATE, seed=1), noise(0.4, RATE, seed=2)
    async with on(kind, num_channels=channels) as rig:
        rig.listen("on_recording_started")
        await rig.processor.start_recording()
        await rig.until("on_recording_started")
        await rig.user_says(user)
        so_far = rig.processor.merge_audio_buffers()
        assert type(so_far) is bytes
        if channels == 1:
            assert sounding(so_far) == user
        await rig.bot_says(bot)
        so_far = rig.processor.merge_audio_buffers()
        if channels == 1:
            assert sounding(so_far).startswith(user[: len(user) - 4 * FRAME])
        else:  # theirs ends where the track ends that is shorter just now
            for channel, said in ((0, user), (1, bot)):
                heard = sounding(samples(so_far)[channel::2])
                assert len(heard) > 0.8 * len(said)
                assert said.startswith(heard)
        assert rig.processor.has_audio()


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("kind", EITHER)
async def test_all_audio_is_told_at_the_end_where_no_blocks_are_asked_for(
    kind: type[Any], channels: int
) -> None:
    user, bot = noise(0.5, RATE, seed=1), noise(0.4, RATE, seed=2)
    async with on(kind, num_channels=channels, auto_start_recording=True) as rig:
        rig.listen("on_audio_data", "on_track_audio_data")
        await rig.user_says(user)
        await rig.bot_says(bot)
        assert not rig.told
        await rig.push(EndFrame())
        ((merged, *format_merged),) = await rig.until("on_audio_data")
        ((heard, said, *format_tracks),) = await rig.until("on_track_audio_data")
    assert all(type(audio) is bytes for audio in (merged, heard, said))
    assert format_merged == format_tracks == [RATE, channels]
    assert len(heard) == len(said) == len(merged) // channels
    assert (sounding(heard), sounding(said)) == (user, bot)
    if channels == 1:
        assert np.array_equal(samples(merged), samples(heard) + samples(said))
    else:
        assert np.array_equal(samples(merged)[::2], samples(heard))
        assert np.array_equal(samples(merged)[1::2], samples(said))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("kind", EITHER)
async def test_audio_is_told_in_blocks(kind: type[Any], channels: int) -> None:
    user, size = noise(1.5, RATE), RATE // 5  # bytes: 100 ms
    async with on(kind, num_channels=channels, buffer_size=size, auto_start_recording=True) as rig:
        rig.listen("on_audio_data", "on_track_audio_data")
        await rig.live(user=user)
        before_the_end = len(rig.told)
        await rig.push(EndFrame())
        await until(
            lambda: sum(len(audio) for audio, *_ in rig.named("on_audio_data")) >= len(user)
        )
        await until(
            lambda: len(rig.named("on_track_audio_data")) == len(rig.named("on_audio_data"))
        )
    assert before_the_end > 2
    merged, tracks = rig.named("on_audio_data"), rig.named("on_track_audio_data")
    for (audio, *format_merged), (heard, said, *format_tracks) in zip(merged, tracks, strict=True):
        assert format_merged == format_tracks == [RATE, channels]
        assert len(heard) == len(said) == len(audio) // channels
    assert all(len(heard) >= size for heard, *_ in tracks[:-1])
    assert sounding(b"".join(heard for heard, *_ in tracks)) == user


@pytest.mark.parametrize("kind", EITHER)
async def test_frames_without_audio_are_no_audio(kind: type[Any]) -> None:
    async with on(kind, auto_start_recording=True) as rig:
        rig.listen("on_audio_data")
        for frame in (InputAudioRawFrame(b"", RATE, 1), TTSAudioRawFrame(b"", RATE, 1)):
            await rig.push(frame)
        assert not rig.processor.has_audio()
        await rig.push(EndFrame())
        await asyncio.sleep(0.2)
        assert not rig.told


@pytest.mark.parametrize("kind", EITHER)
async def test_plain_output_audio_is_the_bots(kind: type[Any]) -> None:
    sound = noise(0.02, RATE)
    async with on(kind, auto_start_recording=True) as rig:
        rig.listen("on_track_audio_data")
        await rig.live(user=noise(0.1, RATE, seed=1))
        await rig.push(OutputAudioRawFrame(sound, RATE, 1))
        await rig.push(EndFrame())
        ((_, bot, *_),) = await rig.until("on_track_audio_data")
    assert sounding(bot) == sound


@pytest.mark.parametrize("kind", EITHER)
async def test_audio_of_a_named_user_is_the_users(kind: type[Any]) -> None:
    said = noise(0.02, RATE)
    async with on(kind, auto_start_recording=True) as rig:
        rig.listen("on_track_audio_data")
        await asyncio.sleep(0.05)
        await rig.push(UserAudioRawFrame(said, RATE, 1, user_id="ann"))
        await rig.push(EndFrame())
        ((user, *_),) = await rig.until("on_track_audio_data")
    assert sounding(user) == said


# -- handlers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EITHER)
async def test_handlers_are_functions_or_coroutines_and_may_fail(kind: type[Any]) -> None:
    told: list[str] = []
    async with on(kind, auto_start_recording=True) as rig:

        @rig.processor.event_handler("on_audio_data")
        async def fails(_processor: Any, _audio: bytes, _rate: int, _channels: int) -> None:
            told.append("fails")
            raise ValueError("a handler's own error")

        @rig.processor.event_handler("on_audio_data")
        async def waits(_processor: Any, _audio: bytes, _rate: int, _channels: int) -> None:
            await asyncio.sleep(0)
            told.append("waits")

        rig.processor.add_event_handler("on_audio_data", lambda *_: told.append("does not"))
        rig.listen("on_recording_stopped")
        await rig.live(user=noise(0.1, RATE))
        await rig.push(EndFrame())
        await until(lambda: len(told) == 3)
        await rig.until("on_recording_stopped")
    assert sorted(told) == ["does not", "fails", "waits"]


@pytest.mark.parametrize("kind", EITHER)
@pytest.mark.parametrize("speaker", ["user", "bot"])
async def test_events_of_old_warn_and_name_what_to_use(kind: type[Any], speaker: str) -> None:
    processor = kind()
    with pytest.warns(DeprecationWarning, match=f"on_{speaker}_turn_audio` instead") as caught:
        processor.add_event_handler(f"on_{speaker}_turn_audio_data", print)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        processor.add_event_handler(f"on_{speaker}_turn_audio", print)


# -- turns -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EITHER)
async def test_a_turn_has_what_each_said_in_it(kind: type[Any]) -> None:
    said = [noise(0.2, RATE, seed=seed) for seed in range(5)]
    async with on(kind, enable_turn_audio=True, auto_start_recording=True) as rig:
        rig.listen("on_user_turn_audio", "on_bot_turn_audio")
        await asyncio.sleep(0.1)
        await rig.user_says(said[0])
        await asyncio.sleep(0.2)
        await rig.user_says(said[1])
        await rig.bot_says(said[2])
        await rig.stage.end_turn(1)
        await rig.until("on_bot_turn_audio")
        await rig.bot_says(said[3])
        await rig.stage.end_turn(2)
        await rig.until("on_bot_turn_audio", 2)
        await rig.user_says(said[4])
        await rig.push(AudioBufferStopRecordingFrame())
        await rig.stage.end_turn(3)
        await rig.until("on_user_turn_audio", 2)
    told = [(name, turn) for name, (turn,) in rig.told]
    assert all(isinstance(turn, TurnAudioData) for _, turn in told)
    assert [(turn.sample_rate, turn.num_channels) for _, turn in told] == [(RATE, 1)] * 4
    assert [(name, turn.turn_number, bytes(turn.audio)) for name, turn in told] == [
        ("on_user_turn_audio", 1, said[0] + said[1]),
        ("on_bot_turn_audio", 1, said[2]),
        ("on_bot_turn_audio", 2, said[3]),
        ("on_user_turn_audio", 3, said[4]),
    ]


@pytest.mark.parametrize("kind", EITHER)
async def test_speech_of_an_open_microphone_begins_before_it_was_noticed(kind: type[Any]) -> None:
    heard = noise(1.8, RATE)
    async with on(kind, enable_turn_audio=True, auto_start_recording=True) as rig:
        rig.listen("on_user_turn_audio")
        await rig.live(user=heard[: int(1.4 * RATE) * 2])
        await rig.user_says(heard[int(1.4 * RATE) * 2 :])
        await rig.stage.end_turn(1)
        ((turn,),) = await rig.until("on_user_turn_audio")
    audio = bytes(turn.audio)
    assert heard.endswith(sounding(audio))
    assert len(audio) - len(sounding(audio)) < 0.06 * RATE * 2
    assert abs(len(audio) / 2 / RATE - 1.4) < 0.1


@pytest.mark.parametrize("kind", EITHER)
async def test_a_bot_that_was_interrupted_spoke_in_the_turn_that_ended_with_it(
    kind: type[Any],
) -> None:
    user, bot = noise(0.2, RATE, seed=1), noise(0.2, RATE, seed=2)
    async with on(kind, enable_turn_audio=True, auto_start_recording=True) as rig:
        rig.listen("on_user_turn_audio", "on_bot_turn_audio")
        await asyncio.sleep(0.1)
        await rig.push(BotStartedSpeakingFrame())
        await rig.live(bot=bot)
        await rig.push(UserStartedSpeakingFrame())
        await rig.stage.end_turn(1)
        await rig.push(BotStoppedSpeakingFrame())
        await rig.live(user=user)
        await rig.push(UserStoppedSpeakingFrame())
        await rig.stage.end_turn(2)
        await rig.until("on_user_turn_audio")
        await rig.until("on_bot_turn_audio")
    told = [(name, turn.turn_number, bytes(turn.audio)) for name, (turn,) in rig.told]
    assert told == [("on_bot_turn_audio", 1, bot), ("on_user_turn_audio", 2, user)]


@pytest.mark.parametrize("kind", EITHER)
async def test_events_of_old_tell_each_run_of_speech(kind: type[Any]) -> None:
    said = [noise(0.1, RATE, seed=seed) for seed in range(3)]
    async with on(kind, enable_turn_audio=True, auto_start_recording=True) as rig:
        with pytest.warns(DeprecationWarning, match="_turn_audio"):
            rig.listen("on_user_turn_audio_data", "on_bot_turn_audio_data")
        await asyncio.sleep(0.1)
        await rig.user_says(said[0])
        await rig.until("on_user_turn_audio_data")
        await asyncio.sleep(0.1)
        await rig.user_says(said[1])
        await rig.until("on_user_turn_audio_data", 2)
        await rig.bot_says(said[2])
        await rig.until("on_bot_turn_audio_data")
    told = [(name, type(audio), bytes(audio), *rest) for name, (audio, *rest) in rig.told]
    user, bot = "on_user_turn_audio_data", "on_bot_turn_audio_data"
    assert told == [
        (user, bytearray, said[0], RATE, 1),
        (user, bytearray, said[1], RATE, 1),
        (bot, bytearray, said[2], RATE, 1),
    ]


@pytest.mark.parametrize("kind", EITHER)
async def test_speech_is_not_told_unless_it_was_asked_for(kind: type[Any]) -> None:
    async with on(kind, auto_start_recording=True) as rig:
        rig.listen("on_user_turn_audio", "on_bot_turn_audio")
        await rig.user_says(noise(0.1, RATE))
        await rig.bot_says(noise(0.1, RATE))
        await rig.stage.end_turn(1)
        await rig.push(EndFrame())
        await asyncio.sleep(0.1)
        assert not rig.told


@pytest.mark.parametrize("kind", EITHER)
async def test_speech_by_turns_needs_somebody_who_counts_them(kind: type[Any]) -> None:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message)), level="WARNING")
    try:
        rig = Rig(kind(enable_direct_mode=True, enable_turn_audio=True))
        rig.stage.turns = None  # type: ignore[assignment]  # as where it is switched off
        await rig.stage.start()
        await rig.processor.cleanup()
    finally:
        logger.remove(sink)
    (line,) = [line for line in lines if "enable_turn_tracking=True" in line]
    assert "enable_turn_audio" in line


# -- the pipeline ----------------------------------------------------------------------------------


@pytest.mark.parametrize("recording", [False, True])
@pytest.mark.parametrize("kind", EITHER)
async def test_all_frames_go_on_untouched_and_in_order(kind: type[Any], recording: bool) -> None:
    down = [
        InputAudioRawFrame(b"\1\0" * FRAME, RATE, 1),
        UserAudioRawFrame(b"\2\0" * FRAME, RATE, 1, user_id="ann"),
        TTSAudioRawFrame(b"\3\0" * FRAME, RATE, 1),
        UserStartedSpeakingFrame(),
        TextFrame("text"),
        InterruptionFrame(),
        UserStoppedSpeakingFrame(),
        BotStartedSpeakingFrame(),
        BotStoppedSpeakingFrame(),
        AudioBufferStopRecordingFrame(),
        AudioBufferStartRecordingFrame(),
        EndFrame(),
    ]
    up = [TextFrame("up"), InterruptionFrame(), BotStartedSpeakingFrame()]
    before = Witness()
    async with on(kind, auto_start_recording=recording) as rig:
        before.link(rig.processor)
        seen_above: list[Frame] = []

        async def above(frame: Frame, direction: FrameDirection) -> None:
            assert direction is UPSTREAM
            seen_above.append(frame)

        before.queue_frame = above  # type: ignore[method-assign,assignment]
        del rig.stage.behind.seen[:]
        states = [(frame, dict(vars(frame))) for frame in (*down, *up)]
        await rig.push(*up, direction=UPSTREAM)
        await rig.push(*down)
        assert [id(frame) for frame in rig.stage.behind.seen] == [id(frame) for frame in down]
        assert [id(frame) for frame in seen_above] == [id(frame) for frame in up]
        for frame, state in states:
            assert vars(frame) == state
