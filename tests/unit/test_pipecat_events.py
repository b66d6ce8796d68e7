"""The audio that handlers of the processor's events are given: all of it, once, in order."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from conversation import RATE, noise, talking, wait_for
from faulty_store import FaultyStore
from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    EndFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)

from recorder import Recorder, Settings, VirtualClock
from recorder.pipecat import RecorderProcessor


async def test_blocks_have_one_length_and_are_the_recording(
    clock: VirtualClock, recorder: Recorder
) -> None:
    user, bot = noise(1.2, 1), noise(1.2, 2)
    async with talking(clock, recorder, num_channels=2, buffer_size=RATE) as talk:
        talk.listen("on_audio_data")
        talk.listen("on_track_audio_data")
        await talk.say(user=user, bot=bot)
        await talk.stage.push(EndFrame())
        await talk.over()
    blocks = talk.named("on_audio_data")
    assert [len(block[0]) // 4 for block in blocks] == [RATE // 2, RATE // 2, RATE // 5]
    assert {block[1:] for block in blocks} == {(RATE, 2)}
    stereo = np.frombuffer(b"".join(block[0] for block in blocks), "<i2").reshape(-1, 2)
    assert np.array_equal(stereo[:, 0], user)
    assert np.array_equal(stereo[:, 1], bot)
    tracks = talk.named("on_track_audio_data")
    assert b"".join(block[0] for block in tracks) == user.tobytes()
    assert b"".join(block[1] for block in tracks) == bot.tobytes()


async def test_without_a_buffer_size_all_audio_comes_at_the_end(
    clock: VirtualClock, recorder: Recorder
) -> None:
    user, bot = noise(1.2, 1), noise(1.2, 2)
    async with talking(clock, recorder) as talk:
        talk.listen("on_audio_data")
        await talk.say(user=user, bot=bot)
        await talk.stage.push(EndFrame())
        await talk.over()
    ((audio, rate, channels),) = talk.named("on_audio_data")
    assert (rate, channels) == (RATE, 1)
    assert np.array_equal(np.frombuffer(audio, "<i2"), user + bot)


async def test_a_recording_without_a_frame_hands_on_no_audio(
    clock: VirtualClock, recorder: Recorder
) -> None:
    async with talking(clock, recorder) as talk:
        talk.listen("on_audio_data")
        clock.advance(1)
        await talk.stage.push(EndFrame())
        await talk.over()
    assert not talk.named("on_audio_data")
    assert talk.named("on_recording_stopped")


async def test_handlers_are_called_in_order_one_at_a_time(
    clock: VirtualClock, recorder: Recorder
) -> None:
    order: list[str] = []
    async with talking(clock, recorder, buffer_size=RATE // 10) as talk:

        async def slow(_processor: RecorderProcessor, audio: bytes, *_: int) -> None:
            number = len(order) // 2
            order.append(f"{number} begins")
            await asyncio.sleep(0.002 * (10 - number))  # each is quicker than the one before
            order.append(f"{number} ends")
            if number == 3:
                raise ValueError("a handler's own error")

        talk.processor.add_event_handler("on_audio_data", slow)
        talk.processor.add_event_handler(
            "on_recording_stopped", lambda _processor: order.append("stopped")
        )
        talk.processor.add_event_handler(
            "on_recording_completed", lambda _processor, _result: order.append("completed")
        )
        await talk.say(user=noise(0.5))
        await talk.stage.push(EndFrame())
        await talk.over()
    expected = [f"{number} {what}" for number in range(10) for what in ("begins", "ends")]
    assert order == [*expected, "stopped", "completed"]


@pytest.mark.parametrize("name", ["on_audio_data", "on_user_turn_audio"])
async def test_audio_is_kept_until_slow_handlers_have_had_it(
    clock: VirtualClock,
    settings: Settings,
    store: FaultyStore,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    monkeypatch.setattr("recorder.pipecat.blocks.MAX_READ_SECONDS", 0.1)
    user = noise(1)
    delivered = asyncio.Event()
    settings = settings.replace(chunk_seconds=0.1)
    async with (
        Recorder(settings, store=store, clock=clock) as recorder,
        talking(clock, recorder, buffer_size=RATE // 2, enable_turn_audio=True) as talk,
    ):
        deletes_of_the_probe = store.calls["delete"]
        talk.listen(name)
        talk.processor.add_event_handler(name, wait_for(delivered))
        for number in (1, 2):
            await talk.stage.push(UserStartedSpeakingFrame())
            await talk.say(user=user[(number - 1) * RATE // 2 : number * RATE // 2])
            await talk.stage.push(UserStoppedSpeakingFrame())
            await talk.stage.end_turn(number)
        await talk.stage.push(EndFrame())
        # The recording is complete, and its chunks are gone from the store: the spool is next.
        await talk.until(lambda: store.calls["delete"] == deletes_of_the_probe + 10)
        await asyncio.sleep(0.05)
        delivered.set()
        await talk.over()
    pieces = [arguments[0] for arguments in talk.named(name)]
    audio = [piece if isinstance(piece, bytes) else piece.audio for piece in pieces]
    assert len(audio) > 1
    assert b"".join(audio) == user.tobytes()
    assert not list(settings.spool_dir.iterdir())


async def test_turn_audio_leaves_out_pauses(clock: VirtualClock, recorder: Recorder) -> None:
    user, bot = noise(6, 1), noise(1, 2)
    async with talking(clock, recorder, enable_turn_audio=True) as talk:
        talk.listen("on_user_turn_audio")
        talk.listen("on_bot_turn_audio")
        await talk.say(user=user[: 2 * RATE])
        await talk.stage.push(UserStartedSpeakingFrame())
        await talk.say(user=user[2 * RATE : 3 * RATE])
        await talk.stage.push(UserStoppedSpeakingFrame())
        await talk.say(user=user[3 * RATE : 5 * RATE])
        await talk.stage.push(UserStartedSpeakingFrame())
        await talk.say(user=user[5 * RATE :])
        await talk.stage.push(UserStoppedSpeakingFrame())
        await talk.stage.push(BotStartedSpeakingFrame())
        await talk.say(bot=bot)
        await talk.stage.push(BotStoppedSpeakingFrame())
        await talk.stage.end_turn(5)
        await talk.until(lambda: talk.named("on_bot_turn_audio"))
        await talk.until(lambda: talk.named("on_user_turn_audio"))
    ((said,),) = talk.named("on_user_turn_audio")
    assert (said.turn_number, said.sample_rate, said.num_channels) == (5, RATE, 1)
    assert said.audio == user[RATE : 3 * RATE].tobytes() + user[4 * RATE :].tobytes()
    ((answered,),) = talk.named("on_bot_turn_audio")
    assert answered.audio == bot.tobytes()


async def test_a_turn_that_ends_after_the_recording_has_its_audio(
    clock: VirtualClock, recorder: Recorder, settings: Settings
) -> None:
    user = noise(2)
    async with talking(clock, recorder, enable_turn_audio=True) as talk:
        talk.listen("on_user_turn_audio")
        await talk.stage.push(UserStartedSpeakingFrame())
        await talk.say(user=user)
        await talk.stage.push(EndFrame())
        await talk.over()
        await talk.until(lambda: not list(settings.spool_dir.iterdir()))
        await talk.stage.end_turn(1)
        await talk.until(lambda: talk.named("on_user_turn_audio"))
    assert talk.named("on_user_turn_audio")[0][0].audio == user.tobytes()


async def test_runs_of_speech_for_handlers_of_old(clock: VirtualClock, recorder: Recorder) -> None:
    bot = noise(1)
    async with talking(clock, recorder, enable_turn_audio=True) as talk:
        with pytest.warns(DeprecationWarning, match="on_bot_turn_audio"):
            talk.listen("on_bot_turn_audio_data")
        await talk.stage.push(BotStartedSpeakingFrame())
        await talk.say(bot=bot)
        await talk.stage.push(BotStoppedSpeakingFrame())
        await talk.until(lambda: talk.named("on_bot_turn_audio_data"))
    ((audio, rate, channels),) = talk.named("on_bot_turn_audio_data")
    assert isinstance(audio, bytearray)
    assert (bytes(audio), rate, channels) == (bot.tobytes(), RATE, 1)


async def test_no_turn_audio_unless_it_is_enabled(clock: VirtualClock, recorder: Recorder) -> None:
    async with talking(clock, recorder) as talk:
        talk.listen("on_bot_turn_audio")
        await talk.stage.push(BotStartedSpeakingFrame())
        await talk.say(bot=noise(0.5))
        await talk.stage.push(BotStoppedSpeakingFrame())
        await talk.stage.end_turn(1)
        await talk.stage.push(EndFrame())
        await talk.over()
    assert not talk.named("on_bot_turn_audio")


async def test_audio_that_no_block_has_handed_on(clock: VirtualClock, recorder: Recorder) -> None:
    user, bot = noise(1, 1), noise(1, 2)
    async with talking(clock, recorder, num_channels=2) as talk:
        assert not talk.processor.has_audio()
        assert talk.processor.merge_audio_buffers() == b""
        await talk.say(user=user, bot=bot)
        assert talk.processor.has_audio()
        merged = np.frombuffer(talk.processor.merge_audio_buffers(), "<i2").reshape(-1, 2)
        await talk.processor.stop_recording()
        assert not talk.processor.has_audio()
        assert talk.processor.merge_audio_buffers() == b""
    assert np.array_equal(merged[:, 0], user)
    assert np.array_equal(merged[:, 1], bot)
