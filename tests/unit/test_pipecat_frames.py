"""What the processor makes of frames, one by one, in virtual time."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from conversation import FRAME, RATE, final_audio, noise, objects, talking
from faulty_store import FaultyStore
from headless import FrameDirection
from pipecat.frames.frames import (
    AudioBufferStartRecordingFrame,
    AudioBufferStopRecordingFrame,
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    CancelFrame,
    EndFrame,
    InputAudioRawFrame,
    InterruptionFrame,
    OutputAudioRawFrame,
    TextFrame,
    TTSAudioRawFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)

from recorder import Recorder, Session, Settings, VirtualClock
from recorder.events import CaptureFailed


async def test_what_was_said_is_recorded_sample_for_sample(
    clock: VirtualClock, recorder: Recorder, store: FaultyStore
) -> None:
    user, bot = noise(3, 1), noise(2, 2)
    async with talking(clock, recorder) as talk:
        await talk.say(user=user, bot=bot)
        await talk.stage.push(EndFrame())
        await talk.over()
    audio = await final_audio(store)
    assert np.array_equal(audio[:, 0], user)
    assert np.array_equal(audio[: len(bot), 1], bot)
    assert not audio[len(bot) :, 1].any()


async def test_every_frame_goes_on_at_once(clock: VirtualClock, recorder: Recorder) -> None:
    frames = [
        InputAudioRawFrame(b"\0\0", RATE, 1),
        OutputAudioRawFrame(b"odd", RATE, 1),
        InputAudioRawFrame(b"\0\0", 0, 1),
        OutputAudioRawFrame(b"", RATE, 1),
        TextFrame("text"),
        InterruptionFrame(),
        AudioBufferStopRecordingFrame(),
        AudioBufferStartRecordingFrame(),
        EndFrame(),
    ]
    async with talking(clock, recorder) as talk:
        seen = talk.stage.behind.seen
        del seen[:]
        for frame in frames:
            await talk.stage.push(frame)
            assert seen[-1] is frame
        assert len(seen) == len(frames)


async def test_audio_that_flows_upstream_is_none_of_the_conversations(
    clock: VirtualClock, recorder: Recorder, store: FaultyStore
) -> None:
    async with talking(clock, recorder) as talk:
        clock.advance(0.5)
        audio = noise(0.02).tobytes()
        for frame in (InputAudioRawFrame(audio, RATE, 1), OutputAudioRawFrame(audio, RATE, 1)):
            await talk.stage.push(frame, FrameDirection.UPSTREAM)
        await talk.stage.push(EndFrame())
        await talk.over()
    assert not (await final_audio(store)).any()


async def test_bad_frames_are_counted_and_reported_once(
    clock: VirtualClock, recorder: Recorder, store: FaultyStore
) -> None:
    user = noise(1)
    async with talking(clock, recorder) as talk:
        for _ in range(3):
            await talk.stage.push(OutputAudioRawFrame(b"even", 0, 1))
        await talk.say(user=user)
        await talk.stage.push(EndFrame())
        await talk.over()
        assert talk.processor.errors == 3
    ((failure,),) = talk.named("on_upload_error")
    assert isinstance(failure, CaptureFailed)
    assert failure.track == "bot"
    assert np.array_equal((await final_audio(store))[:, 0], user)


async def test_two_users_at_once_take_no_longer_than_one(
    clock: VirtualClock, recorder: Recorder, store: FaultyStore
) -> None:
    one, other = noise(1, 1), noise(1, 2)
    async with talking(clock, recorder, outputs=["tracks"]) as talk:
        await talk.say(ann=one, bob=other)
        await talk.stage.push(EndFrame())
        await talk.over()
    assert np.array_equal((await final_audio(store, "/user.wav"))[:, 0], one)
    assert np.array_equal((await final_audio(store, "/user-2.wav"))[:, 0], other)


async def test_the_manifest_says_who_is_on_a_track_and_since_when(
    clock: VirtualClock, recorder: Recorder, store: FaultyStore
) -> None:
    async with talking(clock, recorder, track_names=lambda _: None) as talk:
        await talk.say(ann=noise(1))
        await talk.say(bob=noise(0.5))
        await talk.stage.push(EndFrame())
        await talk.over()
    (manifest,) = await objects(store, "/manifest.json")
    assert json.loads(manifest)["tracks"] == [
        {"name": "bot", "source": "playout", "participant": None, "joined": None},
        {"name": "user", "source": "capture", "participant": "ann", "joined": 0},
        {"name": "user-2", "source": "capture", "participant": "bob", "joined": RATE},
    ]


async def test_nothing_that_is_stored_says_who_spoke_where_that_is_not_wanted(
    clock: VirtualClock, recorder: Recorder, store: FaultyStore, settings: Settings
) -> None:
    async with talking(clock, recorder, record_participants=False) as talk:
        await talk.say(a_person=noise(1))
        await talk.until(lambda: talk.processor.recording_id)
        spooled = [path.read_bytes() for path in settings.spool_dir.rglob("*") if path.is_file()]
        await talk.stage.push(EndFrame())
        await talk.over()
    assert not any(b"a_person" in one for one in spooled)
    assert not any(b"a_person" in one for one in await objects(store, ""))


@pytest.mark.parametrize("waiting", [False, True])
async def test_timestamps_are_passed_on_in_seconds(
    clock: VirtualClock, recorder: Recorder, waiting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[float | None] = []

    def take(_session: Session, track: str, *arguments: Any, **known: Any) -> None:
        assert track == "user"
        assert len(arguments) == 4
        written.append(known.get("pts"))

    monkeypatch.setattr(Session, "_take", take)
    async with talking(clock, recorder, started=not waiting) as talk:
        for number in range(30):
            clock.advance(0.02)
            frame = InputAudioRawFrame(bytes(640), 16_000, 1)
            frame.pts = 960 * number
            await talk.stage.push(frame)
        await talk.until(lambda: len(written) == 30)
    assert written[:10] == [None] * 10
    assert written[11:] == pytest.approx([0.02 * number for number in range(11, 30)])


async def test_formats_may_change_from_frame_to_frame(
    clock: VirtualClock, recorder: Recorder, store: FaultyStore
) -> None:
    tone = np.full(RATE, 4000, np.int16)
    async with talking(clock, recorder) as talk:
        for number in range(100):
            rate, channels = [(RATE, 1), (16_000, 2), (8_000, 1), (48_000, 2)][number // 25]
            clock.advance(0.02)
            audio = tone[: rate // 50 * channels].tobytes()
            frames = [
                InputAudioRawFrame(audio, rate, channels),
                TTSAudioRawFrame(audio, rate, channels),
            ]
            frames += [
                InputAudioRawFrame(b"", rate, channels),
                TTSAudioRawFrame(b"", rate, channels),
            ]
            for frame in frames:
                await talk.stage.push(frame)
                assert talk.stage.behind.seen[-1] is frame
        await talk.stage.push(EndFrame())
        await talk.over()
        assert talk.processor.errors == 0
    audio = await final_audio(store)
    assert abs(len(audio) - 2 * RATE) <= 1
    assert (np.abs(audio.astype(int) - 4000) < 400).mean() > 0.99


async def test_a_bot_is_not_recorded_beyond_its_interruption(
    clock: VirtualClock, recorder: Recorder, store: FaultyStore
) -> None:
    bot, user = noise(5, 1), noise(2, 2)
    async with talking(clock, recorder) as talk:
        await talk.stage.push(BotStartedSpeakingFrame())
        for start in range(0, len(bot), FRAME):  # all at once
            await talk.stage.push(TTSAudioRawFrame(bot[start : start + FRAME].tobytes(), RATE, 1))
        await talk.say(user=user[:RATE])
        await talk.stage.push(InterruptionFrame())
        await talk.stage.push(BotStoppedSpeakingFrame())
        await talk.say(user=user[RATE:])
        await talk.stage.push(EndFrame())
        await talk.over()
    audio = await final_audio(store)
    heard = RATE
    assert len(audio) == 2 * RATE
    assert np.array_equal(audio[:heard, 1], bot[:heard])
    assert not audio[heard:, 1].any()
    (manifest,) = await objects(store, "/manifest.json")
    (turn,) = json.loads(manifest)["turns"]
    assert (turn["track"], turn["start"], turn["interrupted"]) == ("bot", 0, True)
    assert (turn["end"], turn["conversation_turn"]) == (heard, 1)


async def test_the_manifests_turns_say_which_of_the_conversations_they_belong_to(
    clock: VirtualClock, recorder: Recorder, store: FaultyStore
) -> None:
    async with talking(clock, recorder) as talk:
        for number in (1, 2):
            await talk.stage.push(UserStartedSpeakingFrame())
            await talk.say(user=noise(0.5))
            await talk.stage.push(UserStoppedSpeakingFrame())
            await talk.stage.push(BotStartedSpeakingFrame())
            await talk.say(bot=noise(0.5))
            if number == 1:
                await talk.stage.push(BotStoppedSpeakingFrame())
                await talk.stage.end_turn(1)
        await talk.stage.push(CancelFrame())
        await talk.over()
    (manifest,) = await objects(store, "/manifest.json")
    assert [
        (turn["number"], turn["track"], turn["conversation_turn"], turn["interrupted"])
        for turn in json.loads(manifest)["turns"]
    ] == [(1, "user", 1, False), (2, "bot", 1, False), (3, "user", 2, False), (4, "bot", 2, True)]


async def test_speech_becomes_turn_clips(
    clock: VirtualClock, recorder: Recorder, store: FaultyStore
) -> None:
    user, bot = noise(1, 1), noise(1, 2)
    async with talking(clock, recorder, outputs=["turns"]) as talk:
        await talk.stage.push(UserStartedSpeakingFrame())
        await talk.say(user=user)
        await talk.stage.push(UserStoppedSpeakingFrame())
        await talk.stage.push(BotStartedSpeakingFrame())
        await talk.say(bot=bot)
        await talk.stage.push(BotStoppedSpeakingFrame())
        await talk.stage.push(EndFrame())
        await talk.over()
    assert np.array_equal((await final_audio(store, "0001-user.wav"))[:, 0], user)
    assert np.array_equal((await final_audio(store, "0002-bot.wav"))[:, 0], bot)
